"""Apache Kafka."""

from support.kafka_server import KafkaServer
from support.proxy import FaultProxy
from support.tls import Authority

from .base import Received, ServerBroker

USER, PASSWORD = "relay", "right-password"
_LIMIT = 1_048_588  # a topic's max.message.bytes unless it says otherwise


class KafkaBroker(ServerBroker):
    """One node that asks for a password; a place is a topic of one partition."""

    name = "kafka"
    has_key = True
    max_body = 900_000
    poison = "poison" + "x" * 1_200_000
    refusal = ("too_large", "topic")

    def __init__(self):
        super().__init__(KafkaServer(sasl=(USER, PASSWORD)))
        self._readers = {}
        if not self._server.real:
            self.na = self.source_na = dict.fromkeys(
                ("broker_killed", "broker_frozen", "connection_cut"), self._server.why_mock)

    def close(self):
        for reader in self._readers.values():
            reader.close()
        super().close()

    def prepare(self):
        self._server.create_topic(self.place, compression_type="uncompressed")

    def prepare_durable(self):
        """With three partitions: each must keep the order of its keys when the broker is killed."""
        if self._server.real:
            self._server.add_partitions(self.place, 3)

    def proxy(self):
        """Clients go on to the address that the broker advertises: it is then the proxy's."""
        proxy = FaultProxy(self.port)
        self._server.advertise(proxy.port)
        return proxy

    # The sink ----------------------------------------------------------------------------------

    def _end(self, port):
        # Without a proxy clients have to find the server itself again.
        if port is None:
            self._server.advertise(self.port)
        return {"type": "kafka", "brokers": f"127.0.0.1:{port or self.port}", "topic": self.place,
                "security_protocol": "SASL_PLAINTEXT", "sasl_username": USER,
                "sasl_password": PASSWORD, "connect_timeout": "2s"}

    def sink(self, port=None, **over):
        return {**self._end(port), "compression": "none", "delivery_timeout": "2s", **over}

    def _reader(self):
        if self.place not in self._readers:
            self._readers[self.place] = self._server.reader(self.place)
        return self._readers[self.place]

    def received(self):
        return [Received(record.id, record.key.decode() if record.key is not None else None,
                         record.topic, record.headers, record.body)
                for record in self._reader().messages()]

    def count(self):
        return self._reader().count()

    def refuse(self):
        return {}

    def cure(self):
        self._server.set_topic(self.place, max_message_bytes=4 * _LIMIT)
        return {}

    def wrong_credentials(self):
        return self.sink(sasl_password="wrong-password")

    def wrong_ca(self):
        if self._secured is None:
            certificate, key = Authority().certificate("server")
            self._secured = KafkaServer(tls={"cert": certificate, "key": key}).start()
        return {"type": "kafka", "brokers": self._secured.brokers, "topic": self.place,
                "security_protocol": "SSL", "tls_ca": Authority("other").ca,
                "connect_timeout": "2s"}

    def unresolvable(self):
        return self.sink(brokers="no-such-host.invalid:9092")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {**self._end(port), "group_id": f"relay-{self.place}",
                "rdkafka": {"socket.timeout.ms": 2000}, **over}

    def publish(self, messages):
        self._server.publish(self.place, [
            {"value": body, "key": key, "headers": {
                name: text for name, text in {"pgtrickle-id": identity, "event-type": kind}.items()
                if text}}
            for identity, key, kind, body in messages])

    def unacknowledged(self):
        committed = self._server.committed(f"relay-{self.place}", self.place)
        return self._reader().count() - sum(committed.values())
