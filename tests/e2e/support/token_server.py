"""An authorization server and a resource server in one: tokens by client credentials, with a lifetime, and
webhooks that take requests with a good token only."""

import base64
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLIENT, SECRET = "relay client", "s3cret-of:the/client+word"
AUDIENCE, SCOPE = "https://hooks.example.com", "hooks.write hooks.read"


class TokenServer:
    """Paths below /token give tokens, all others are webhooks. `faults` has what goes wrong at a path of
    the first kind: (status, headers, body), "hang" or "close"."""

    def __init__(self):
        self.lifetime = 3600      # of tokens; None: answers without expires_in
        self.delay = 0            # before a token is given
        self.revoked = set()
        self.faults = {}
        self.asked = []           # (path, headers, form) of each request for a token
        self.issued = {}          # token: when it ends
        self.arrived = []         # (path, token, status, id) of each webhook
        self.most_at_once = 0     # requests for tokens
        self.during_renewal = 0   # webhooks that were taken while a token was being asked for
        self.refuse_all = False   # whatever the token
        self.echo = None          # a status with which webhooks send back what they got
        self._pending = 0
        self._lock, self._closed = threading.Lock(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self._send(*owner._hook(self.path, self.headers))

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if not self.path.startswith("/token"):
                    return self._send(*owner._hook(self.path, self.headers))
                answer = owner._token(self.path, self.headers, body)
                if isinstance(answer, tuple):
                    return self._send(*answer)
                if answer == "hang":
                    owner._closed.wait()
                self.close_connection = True

            def _send(self, status, headers, text):
                data = text.encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

            def handle_error(self, *_):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def taken(self, path="/"):
        """Ids of the webhooks that were taken, each time."""
        return [identity for at, _, status, identity in list(self.arrived)
                if status == 200 and at.startswith(path)]

    def _token(self, path, headers, body):
        form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
        with self._lock:
            self.asked.append((path, dict(headers), form))
            self._pending += 1
            self.most_at_once = max(self.most_at_once, self._pending)
        try:
            fault = self.faults.get(path)
            if fault:
                return fault
            self._closed.wait(self.delay)
            return self._grant(headers, form)
        finally:
            with self._lock:
                self._pending -= 1

    def _grant(self, headers, form):
        given = headers.get("Authorization", "")
        if given.startswith("Basic "):
            user, _, word = base64.b64decode(given[6:]).decode().partition(":")
            client = urllib.parse.unquote_plus(user), urllib.parse.unquote_plus(word)
        else:
            client = form.get("client_id"), form.get("client_secret")
        kind = {"Content-Type": "application/json"}
        if client != (CLIENT, SECRET):
            return 401, kind, json.dumps({"error": "invalid_client",
                                          "error_description": f"no such client: {client[1]}"})
        if form.get("scope") != SCOPE:
            return 400, kind, json.dumps({"error": "invalid_scope"})
        if form.get("grant_type") != "client_credentials" or form.get("audience") != AUDIENCE:
            return 400, kind, json.dumps({"error": "invalid_target"})
        with self._lock:
            token = f"t0ken-number-{len(self.issued):03}-{'abcdefgh' * 4}"
            lifetime = self.lifetime
            self.issued[token] = time.monotonic() + (lifetime or 10**6)
        granted = {"access_token": token, "token_type": "Bearer"}
        if lifetime:
            granted["expires_in"] = lifetime
        return 200, kind, json.dumps(granted)

    def _hook(self, path, headers):
        given = headers.get("Authorization", "")
        token = given.removeprefix("Bearer ")
        good = (given.startswith("Bearer ") and self.issued.get(token, 0) > time.monotonic()
                and token not in self.revoked and not self.refuse_all)
        status = self.echo if good and self.echo else 200 if good else 401
        with self._lock:
            self.arrived.append((path, token, status, headers.get("Idempotency-Key")))
            self.during_renewal += status == 200 and self._pending > 0 and len(self.issued) > 0
        return status, {}, "ok" if status == 200 else f"you sent {given}"
