"""Redis Streams."""

from support.redis_server import RedisServer
from support.tls import Authority

from .base import Received, ServerBroker

PASSWORD = "right-password"


class RedisBroker(ServerBroker):
    """One redis-server that asks for a password and writes everything to its disk; a place is the
    key of a stream."""

    name = "redis"
    max_body = 5_000_000
    poison = "poison" + "x" * 2_000_000  # proto-max-bulk-len is lowered by refuse()
    refusal = ("too_large", str(1 << 20))

    def __init__(self):
        super().__init__(RedisServer(password=PASSWORD))

    # The sink ----------------------------------------------------------------------------------

    def _end(self, port):
        return {"type": "redis", "url": f"redis://127.0.0.1:{port or self.port}",
                "password": PASSWORD, "stream_key": self.place, "connect_timeout": "2s",
                "response_timeout": "2s"}

    def sink(self, port=None, **over):
        return {**self._end(port), **over}

    def received(self):
        found = []
        for _, fields in self._server.entries(self.place):
            body = fields.pop("payload", b"")
            headers = {name.replace("_", "-") if name.startswith("pgtrickle_") else name:
                       value.decode() for name, value in fields.items()}
            found.append(Received(headers.get("pgtrickle-id"), None, self.place, headers, body))
        return found

    def count(self):
        return self._server.count(self.place)

    def refuse(self):
        with self._server.client() as client:
            client.config_set("proto-max-bulk-len", 1 << 20)
        return {}

    def cure(self):
        with self._server.client() as client:
            client.config_set("proto-max-bulk-len", 512 << 20)
        return {}

    def wrong_credentials(self):
        return self.sink(password="wrong-password")

    def wrong_ca(self):
        if self._secured is None:
            authority = Authority()
            certificate, key = authority.certificate("server")
            self._secured = RedisServer(
                tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
        return {"type": "redis", "url": self._secured.url, "stream_key": self.place,
                "tls_ca": Authority("other").ca}

    def unresolvable(self):
        return self.sink(url="redis://no-such-host.invalid:6379")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {**self._end(port), "group": "relay", "consumer": "relay",
                "aggregate_id_from": "header:key", **over}

    def publish(self, messages):
        with self._server.client() as client:
            pipeline = client.pipeline(transaction=False)
            for identity, key, kind, body in messages:
                fields = {"pgtrickle_id": identity, "key": key, "event_type": kind}
                pipeline.xadd(self.place, {
                    **{name: text for name, text in fields.items() if text}, "payload": body})
            pipeline.execute()

    def unacknowledged(self):
        with self._server.client() as client:
            for group in client.xinfo_groups(self.place):
                if group["name"] == b"relay":
                    return group["pending"] + group.get("lag", 0)
        return self.count()
