"""The server of lineq, as the conformance suite of the relay sees it: tests/e2e/conformance/base.py."""

import os
import pathlib
import socket
import sys

from conformance.base import Received, ServerBroker
from support.processes import Process, free_port, temporary_directory
from support.server import Server
from support.waiting import eventually

SERVER = pathlib.Path(__file__).with_name("server.py")
sys.path.insert(0, str(SERVER.parent))
from server import from_line, to_line  # noqa: E402

TOKEN = "right-token"
NO_TLS = "the protocol has no TLS"


class LineqServer(Server):
    """server.py as a process that keeps its port and its folder."""

    def __init__(self):
        self.port = free_port()
        self.directory = temporary_directory("lineq")
        self.log_path = os.path.join(self.directory, "log")

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = Process([sys.executable, str(SERVER), str(self.port), self.directory,
                                    TOKEN], stdout=log, stderr=log)
        eventually(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True, 20,
                   message=self.log)
        return self

    def refuse(self, refused):
        path = os.path.join(self.directory, "refuse")
        if refused:
            open(path, "w").close()
        elif os.path.exists(path):
            os.remove(path)


class LineqBroker(ServerBroker):
    """A place is a queue."""

    name = "lineq"
    has_key = True
    refusal = ("refused", "poison")
    na = {"wrong_ca": NO_TLS}
    source_na = {"wrong_ca": NO_TLS}
    source_notices_silence = False  # the protocol asks an idle server nothing: it sends what it has

    def __init__(self):
        super().__init__(LineqServer())

    def prepare(self):
        self._server.refuse(False)

    def _client(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(to_line(b"HELLO", TOKEN.encode()))
        lines = client.makefile("rb")
        assert from_line(lines.readline()) == [b"OK"]
        return client, lines

    def _list(self):
        """The lines of every message of the queue, and how many are unacknowledged."""
        client, lines = self._client()
        with client, lines:
            client.sendall(to_line(b"LIST", self.place.encode()))
            found = []
            for line in lines:
                if line.startswith(b"END\t"):
                    return found, int(from_line(line)[1])
                found.append(line)
        raise OSError("the server went away")

    # The sink ----------------------------------------------------------------------------------

    def _end(self, port, over):
        return {"type": "lineq", "url": f"lineq://127.0.0.1:{port or self.port}", "token": TOKEN,
                "queue": self.place, "timeout": "2s", **over}

    def sink(self, port=None, **over):
        return self._end(port, over)

    def received(self):
        found = []
        for line in self._list()[0]:
            _, _, identity, key, _, body, *headers = from_line(line)
            found.append(Received(identity.decode(), key.decode(), self.place, {
                name.decode(): value.decode() for name, value in zip(headers[::2], headers[1::2])},
                body))
        return found

    def count(self):
        return len(self._list()[0])

    def refuse(self):
        self._server.refuse(True)
        return {}

    def cure(self):
        self._server.refuse(False)
        return {}

    def wrong_credentials(self):
        return self.sink(token="wrong-token")

    def unresolvable(self):
        return self.sink(url="lineq://no-such-host.invalid")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return self._end(port, over)

    def publish(self, messages):
        client, lines = self._client()
        with client, lines:
            for identity, key, kind, body in messages:
                client.sendall(to_line(b"PUT", self.place.encode(), identity.encode(),
                                       (key or "").encode(), (kind or "").encode(), body))
                assert from_line(lines.readline()) == [b"OK"]

    def unacknowledged(self):
        return self._list()[1]
