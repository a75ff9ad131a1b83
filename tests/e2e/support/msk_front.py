"""A stand-in for how Amazon MSK lets clients in: TLS and SASL OAUTHBEARER with a signed request.

It checks each token with botocore, not with code of ours, and then passes the connection on to a
real broker. As MSK does, it ends a connection when the token that opened it is over.
"""

import base64
import datetime
import select
import socket
import ssl
import struct
import time
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .listening import listen

_SASL_HANDSHAKE, _SASL_AUTHENTICATE = 17, 36
_AUTHENTICATION_FAILED = 58


class Refused(Exception):
    """Why a token is refused."""


def parse_expiry(text):
    return datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(
        tzinfo=datetime.timezone.utc).timestamp()


class Verifier:
    """`secret_of(access_key)` is (secret, session token or None, when the keys end or None)."""

    def __init__(self, region, secret_of):
        self.region, self.secret_of = region, secret_of

    def check(self, token):
        """(access key, when the token ends); Refused says what is wrong with it."""
        if "=" in token or "+" in token or "/" in token:
            raise Refused("it is no base64url without padding")
        url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
        given = parse_qsl(url.query, strict_parsing=True)
        query = dict(given)
        if len(query) != len(given):
            raise Refused("a parameter comes twice")
        self._expect("place", f"{url.scheme}://{url.netloc}{url.path}",
                     f"https://kafka.{self.region}.amazonaws.com/")
        self._expect("action", query["Action"], "kafka-cluster:Connect")
        self._expect("lifetime", query["X-Amz-Expires"], "900")
        self._expect("headers", query["X-Amz-SignedHeaders"], "host")
        if not query.pop("User-Agent").startswith("pgtrickle-relay/"):
            raise Refused("no user agent")
        key, *scope = query["X-Amz-Credential"].split("/")
        signed_at = parse_expiry(query["X-Amz-Date"])
        self._expect("scope", scope, [query["X-Amz-Date"][:8], self.region, "kafka-cluster",
                                      "aws4_request"])
        if abs(time.time() - signed_at) > 900:
            raise Refused("it is over")
        secret, session, ends = self.secret_of(key)
        self._expect("session token", query.get("X-Amz-Security-Token"), session)
        signature = query.pop("X-Amz-Signature")
        self._expect("signature", signature, self._sign(key, secret, session, query))
        ends = min(signed_at + 900, ends or signed_at + 900)
        if ends <= time.time():
            raise Refused("its keys are over")
        return key, ends

    @staticmethod
    def _expect(what, found, wanted):
        if found != wanted:
            raise Refused(f"wrong {what}")

    def _sign(self, key, secret, session, query):
        signer = SigV4QueryAuth(Credentials(key, secret, session), "kafka-cluster", self.region, 900)
        asked = urlencode(query, safe="", quote_via=quote)
        request = AWSRequest("GET", f"https://kafka.{self.region}.amazonaws.com/?{asked}")
        request.context["timestamp"] = query["X-Amz-Date"]
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return signer.signature(text, request)


class MskFront:
    """Listens on `port`; what gets in goes to `target_port`. `answer` "close": it closes the
    connection instead of saying why a token is refused."""

    def __init__(self, target_port, verifier, certificate, key):
        self.target_port, self.verifier = target_port, verifier
        self.answer = "refuse"
        self.keys = []     # the access key of each token that was accepted
        self.refused = []  # why others were not
        self.tokens = set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = listen(self._serve)
        self.port = self._listener.getsockname()[1]

    def close(self):
        self._listener.close()

    def _serve(self, connection):
        try:
            with self._context.wrap_socket(connection, server_side=True) as client, \
                    socket.create_connection(("127.0.0.1", self.target_port)) as server:
                ends = self._let_in(client, server)
                if ends is not None:
                    self._pass_on(client, server, ends)
        except OSError:
            pass

    def _let_in(self, client, server):
        """When the connection ends; None where the client was not let in."""
        while True:
            request = read_frame(client)
            kind, version, correlation = struct.unpack_from(">hhi", request)
            if kind == _SASL_HANDSHAKE:
                answer = struct.pack(">hi", 0, 1) + text("OAUTHBEARER")
            elif kind == _SASL_AUTHENTICATE:
                try:
                    key, ends = self._check(request)
                except (Refused, KeyError, ValueError) as why:
                    self.refused.append(str(why))
                    if self.answer == "refuse":
                        write_frame(client, struct.pack(">ih", correlation, _AUTHENTICATION_FAILED)
                                    + text("Access denied") + struct.pack(">i", 0)
                                    + (struct.pack(">q", 0) if version else b""))
                    return None
                self.keys.append(key)
                write_frame(client, struct.pack(">ihhi", correlation, 0, -1, 0)
                            + (struct.pack(">q", 0) if version else b""))
                return ends
            else:
                write_frame(server, request)
                write_frame(client, read_frame(server))
                continue
            write_frame(client, struct.pack(">i", correlation) + answer)

    def _check(self, request):
        # client id, then the bytes of OAUTHBEARER: n,,^Aauth=Bearer <token>^A^A
        start = 10 + max(0, struct.unpack_from(">h", request, 8)[0])
        said = request[start + 4:].decode()
        token = said.split("auth=Bearer ", 1)[1].split("\x01", 1)[0]
        self.tokens.add(token)
        return self.verifier.check(token)

    @staticmethod
    def _pass_on(client, server, ends):
        """One thread for both ways: a TLS connection must not be used by two."""
        client.setblocking(False)
        server.setblocking(False)
        ways = ((client, server), (server, client))
        waiting, room = {client: b"", server: b""}, 1 << 20  # what is to be written there
        while time.time() < ends:
            moved = False
            for source, target in ways:
                try:
                    if len(waiting[target]) < room:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        waiting[target] += data
                        moved = True
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    pass
                try:
                    if waiting[target]:
                        sent = target.send(waiting[target])
                        waiting[target] = waiting[target][sent:]
                        moved = True
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    pass
            if not moved:  # nor is anything left in the TLS connection
                select.select([source for source, target in ways if len(waiting[target]) < room],
                              [target for target in waiting if waiting[target]], [], 0.1)


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def read_frame(connection):
    return read_exactly(connection, struct.unpack(">i", read_exactly(connection, 4))[0])


def write_frame(connection, body):
    connection.sendall(struct.pack(">i", len(body)) + body)
