"""HTTP webhooks: a web server that keeps what it accepted in a file."""


from support.http_server import HttpServer
from support.tls import Authority

from .base import Broker, Received

TOKEN = "right-token"


class WebhookBroker(Broker):
    """One server that asks for a bearer token; a place is a path."""

    name = "webhook"
    max_body = 2_000_000
    has_key = False

    def __init__(self):
        super().__init__()
        self._server = HttpServer(authorization=f"Bearer {TOKEN}")
        self._secured = None
        self.port = self._server.port

    def start(self):
        self._server.start()
        return self

    def stop(self):
        self._server.stop()

    def kill9(self):
        self._server.kill9()

    def freeze(self):
        self._server.freeze()

    def thaw(self):
        self._server.thaw()

    def close(self):
        self._server.stop()
        if self._secured:
            self._secured.stop()

    def log(self):
        return self._server.log()

    def prepare(self):
        self._server.rules()

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
