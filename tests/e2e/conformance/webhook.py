"""HTTP webhooks: a web server that keeps what it accepted in a file, and a sender that repeats what was
not answered with 200."""

import json

from support.http_sender import HttpSender
from support.http_server import HttpServer
from support.processes import free_port
from support.proxy import FaultProxy
from support.tls import Authority

from .base import Received, ServerBroker

TOKEN = "right-token"
RELAY_IS_THE_SERVER = "the relay is the server, and the senders are the clients"


class WebhookBroker(ServerBroker):
    """One server that asks for a bearer token; a place is a path. For the source a place is a port at
    which the relay listens, and a sender."""

    name = "webhook"
    reads_back = False
    max_body = 2_000_000
    has_key = False
    refusal = ("http_422", "422")
    source_na = {case: RELAY_IS_THE_SERVER for case in (
        "broker_killed", "broker_frozen", "authentication_refused", "wrong_ca", "unresolvable")}

    def __init__(self):
        super().__init__(HttpServer(authorization=f"Bearer {TOKEN}"))
        self._listen = self._sender = None

    def close(self):
        if self._sender:
            self._sender.close()
        super().close()

    def prepare(self):
        self._server.rules()
        if self._sender:
            self._sender.close()
        self._listen = free_port()
        self._sender = HttpSender(self._listen)

    # The sink ----------------------------------------------------------------------------------

    def sink(self, port=None, **over):
        return {"type": "webhook", "url": f"http://127.0.0.1:{port or self.port}/{self.place}/",
                "allow_private": True, "bearer_token": TOKEN, "timeout": "2s",
                "connect_timeout": "2s", **over}

    def received(self):
        return [Received(request.id, None, request.path, request.headers, request.body)
                for request in self._server.accepted(f"/{self.place}/")]

    def refuse(self):
        self._server.rules({"path": f"/{self.place}/", "contains": '"poison"', "status": 422})
        return {}

    def cure(self):
        self._server.rules()
        return {}

    def wrong_credentials(self):
        return self.sink(bearer_token="wrong-token")

    def wrong_ca(self):
        if self._secured is None:
            self._secured = HttpServer(tls=Authority().certificate("server")).start()
        return self.sink(url=self._secured.url("/hook"), tls_ca=Authority("other").ca)

    def unresolvable(self):
        return self.sink(url="https://no-such-host.invalid/hook")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        if port:  # of a proxy, for those who send
            self._sender.port = port
        return {"type": "webhook", "listen": f"127.0.0.1:{self._listen}", "auth": "bearer",
                "bearer_token": TOKEN, "aggregate_id_from": "header:key",
                "max_waiting_bytes": "8MiB", **over}

    def source_proxy(self):
        return FaultProxy(self._listen)

    def publish(self, messages):
        """The sender has them, and goes on until they are answered with 200."""
        for identity, key, kind, body in messages:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type(body),
                       "pgtrickle-id": identity, "X-Event-Type": kind, "key": key}
            self._sender.send("/inbox", {name: text for name, text in headers.items() if text},
                              body)

    def unacknowledged(self):
        assert not self._sender.refused, self._sender.refused
        return self._sender.unanswered()


def content_type(body):
    try:
        json.loads(body)
    except ValueError:
        return "application/octet-stream"
    return "application/json"
