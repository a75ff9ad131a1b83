"""NATS JetStream."""

import re
import uuid

from support.nats_server import NatsServer
from support.tls import Authority

from .base import Received, ServerBroker

USER, PASSWORD = "relay", "right-password"


class NatsBroker(ServerBroker):
    """One nats-server that asks for a password; a place is a stream over `<place>.>`."""

    name = "nats"
    deduplicates = True
    max_body = 900_000
    poison = "poison" + "x" * 1_100_000  # max_payload is 1 MiB but after cure()
    refusal = ("too_large", str(1 << 20))

    def __init__(self):
        super().__init__(NatsServer(user=USER, password=PASSWORD, max_payload=1 << 20))

    def prepare(self):
        with self._server.client() as client:
            client.create_stream(self.place, f"{self.place}.>")

    # The sink ----------------------------------------------------------------------------------

    def sink(self, port=None, **over):
        return {"type": "nats", "url": f"nats://127.0.0.1:{port or self.port}", "user": USER,
                "password": PASSWORD, "subject": f"{self.place}.rows", "ack_timeout": "2s",
                "connect_timeout": "2s", **over}

    def received(self):
        with self._server.client() as client:
            return [Received(m.id, None, m.subject, m.headers, m.data)
                    for m in client.messages(self.place)]

    def count(self):
        with self._server.client() as client:
            return client.count(self.place)

    def refuse(self):
        return self._limit(1 << 20)

    def cure(self):
        return self._limit(4 << 20)

    def _limit(self, max_payload):
        with open(self._server.config_path) as config:
            before = config.read()
        after = re.sub(r"max_payload: \d+", f"max_payload: {max_payload}", before)
        if after != before:
            with open(self._server.config_path, "w") as config:
                config.write(after)
            self._server.restart()
        return {}

    def wrong_credentials(self):
        return self.sink(password="wrong-password")

    def wrong_ca(self):
        if self._secured is None:
            certificate, key = Authority().certificate("server")
            self._secured = NatsServer(tls={"cert": certificate, "key": key}).start()
        return self.sink(url=f"tls://127.0.0.1:{self._secured.port}", tls_ca=Authority("other").ca)

    def unresolvable(self):
        return self.sink(url="nats://no-such-host.invalid:4222")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {"type": "nats", "url": f"nats://127.0.0.1:{port or self.port}", "user": USER,
                "password": PASSWORD, "stream": self.place, "consumer": "relay",
                "ack_wait": "3s", "connect_timeout": "2s", "aggregate_id_from": "header:key",
                "event_type_from": "header:event-type", **over}

    def publish(self, messages):
        with self._server.client() as client:
            for identity, key, kind, body in messages:
                headers = {"pgtrickle-id": identity, "key": key, "event-type": kind}
                client.publish(f"{self.place}.rows", body, f"_INBOX.{uuid.uuid4().hex}",
                               {name: text for name, text in headers.items() if text})
            client.flush()

    def unacknowledged(self):
        with self._server.client() as client:
            info = client._api(f"CONSUMER.INFO.{self.place}.relay")
            return info["num_pending"] + info["num_ack_pending"]
