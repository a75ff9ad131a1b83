"""RabbitMQ."""

import pika

from support.rabbitmq_server import RabbitServer
from support.tls import Authority

from .base import Received, ServerBroker

LARGEST = 1_000_000  # max_message_size until cure()


class RabbitBroker(ServerBroker):
    """One broker; a place is a durable queue bound to an exchange of the same name."""

    name = "rabbitmq"
    max_body = 900_000
    poison = "poison" + "x" * 1_100_000
    refusal = ("refused_by_broker", str(LARGEST))

    def __init__(self):
        authority = Authority()
        certificate, key = authority.certificate("server")
        super().__init__(RabbitServer(tls={"cert": certificate, "key": key, "ca": authority.ca},
                                      settings=[f"max_message_size = {LARGEST}"]))
        self._taken = {}

    def prepare(self):
        # Quorum queues of this version may not come back from a kill soon after they were made.
        self._server.queue(self.place, "classic", self.place)

    def prepare_durable(self):
        self._server.flush_definitions()

    # The sink ----------------------------------------------------------------------------------

    def _end(self, port):
        return {"type": "rabbitmq", "url": f"amqp://guest:guest@127.0.0.1:{port or self.port}",
                "connect_timeout": "2s", "operation_timeout": "2s"}

    def sink(self, port=None, **over):
        return {**self._end(port), "exchange": self.place, "routing_key": "rows",
                "ack_timeout": "3s", **over}

    def received(self):
        """Reading takes messages out of the queue: what was read is kept here."""
        taken = self._taken.setdefault(self.place, [])
        taken += [Received(message.id, None, message.routing_key, message.headers, message.body)
                  for message in self._server.take(self.place)]
        return list(taken)

    def count(self):
        return len(self._taken.get(self.place, [])) + self._server.count(self.place)

    def refuse(self):
        self._server.set_largest_message(LARGEST)
        return {}

    def cure(self):
        self._server.set_largest_message(128 << 20)
        return {}

    def wrong_credentials(self):
        return self.sink(password="wrong-password")

    def wrong_ca(self):
        return self.sink(url=f"amqps://127.0.0.1:{self._server.tls_port}",
                         tls_ca=Authority("other").ca)

    def unresolvable(self):
        return self.sink(url="amqp://no-such-host.invalid:5672")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {**self._end(port), "queue": self.place, "aggregate_id_from": "header:key",
                "heartbeat": "2s", **over}

    def publish(self, messages):
        """The event type is the routing key."""
        with self._server.channel() as channel:
            # One transaction: a confirm for each message would wait for each of them.
            channel.tx_select()
            for identity, key, kind, body in messages:
                headers = {"pgtrickle-id": identity, **({"key": key} if key else {})}
                channel.basic_publish(
                    self.place, kind or "", body,
                    pika.BasicProperties(message_id=identity, delivery_mode=2, headers=headers),
                    mandatory=True)
            channel.tx_commit()

    def unacknowledged(self):
        return self._server.held(self.place)
