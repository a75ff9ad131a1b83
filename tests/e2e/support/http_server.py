"""A web server that takes requests, keeps them in a file, and misbehaves on command.

Run as a program it is the server (asyncio, keep-alive, optional TLS); `HttpServer` starts, kills,
freezes and reads it from a test. A request is written to the file before it is answered, so what was
answered is there after a kill -9.
"""

import asyncio
import base64
import json
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass


# The program -----------------------------------------------------------------------------------


class _Server:
    def __init__(self, directory, authorization):
        self._record = open(os.path.join(directory, "requests.jsonl"), "ab", buffering=0)
        self._control = os.path.join(directory, "control.json")
        self._seen = None
        self._rules = []
        self._random = random.Random(7)
        self._authorization = authorization

    def _rule(self, path, body):
        """The first rule that fits, with what it says used up by one."""
        try:
            stamp = os.stat(self._control).st_mtime_ns
        except FileNotFoundError:
            return {}
        if stamp != self._seen:
            with open(self._control) as control:
                self._rules = json.load(control)
            self._seen = stamp
        for rule in self._rules:
            if not path.startswith(rule.get("path", "/")):
                continue
            if rule.get("contains") and rule["contains"].encode() not in body:
                continue
            if self._random.random() >= rule.get("probability", 1):
                continue
            if rule.get("times") is not None:
                if rule["times"] <= 0:
                    continue
                rule["times"] -= 1
            return rule
        return {}

    async def serve(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        line = await reader.readline()
        if not line.strip():
            return False
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = []
        while (line := await reader.readline()) != b"\r\n":
            if not line.endswith(b"\n"):
                return False  # cut off in the middle
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            headers.append((name, value.strip()))
        lower = {name.lower(): value for name, value in headers}
        body = await reader.readexactly(int(lower.get("content-length", 0)))
        rule = self._rule(path, body)
        status = rule.get("status", 200)
        if self._authorization and lower.get("authorization") != self._authorization:
            status = 401
        if rule.get("delay"):
            await asyncio.sleep(rule["delay"])
        if rule.get("record", True):
            self._record.write(json.dumps({
                "method": method, "path": path, "headers": headers, "status": status,
                "at": time.monotonic(), "body": base64.b64encode(body).decode()}).encode() + b"\n")
        if rule.get("cut"):
            writer.transport.abort()
            return False
        answer = rule.get("answer", "ok" if status < 300 else f"status {status}").encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in rule.get("headers", {}).items())
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n{extra}\r\n".encode()
                     + answer)
        await writer.drain()
        return True


async def _main(port, directory, certificate, key, authorization):
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
    served = _Server(directory, authorization)
    server = await asyncio.start_server(served.serve, "127.0.0.1", int(port), ssl=tls,
                                        backlog=512, limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(_main(*sys.argv[1:6]))
    sys.exit(0)


# The test's side -------------------------------------------------------------------------------

from .processes import Process, free_port, temporary_directory  # noqa: E402
from .server import Server  # noqa: E402
from .waiting import eventually  # noqa: E402


@dataclass
class Request:
    method: str
    path: str
    status: int      # what it was answered
    headers: dict    # names in lower case
    body: bytes
    at: float        # when it had come, on the machine's monotonic clock

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def id(self):
        return self.headers.get("idempotency-key")


class HttpServer(Server):
    """The server as a process; keeps port and requests over restarts."""

    def __init__(self, tls=None, authorization=""):
        self.port = free_port()
        self.directory = temporary_directory("http")
        self.log_path = os.path.join(self.directory, "log")
        self._tls = tls or ("", "")
        self._authorization = authorization
        self._reading, self._requests, self._read_up_to = threading.Lock(), [], 0

    def url(self, path="/", port=None):
        scheme = "https" if self._tls[0] else "http"
        return f"{scheme}://127.0.0.1:{port or self.port}{path}"

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = Process([sys.executable, os.path.abspath(__file__), str(self.port),
                                    self.directory, *self._tls, self._authorization],
                                   stdout=log, stderr=log)
        eventually(self._accepts, 20, message=self.log)
        return self

    def _accepts(self):
        if not self.process.running:
            raise RuntimeError(f"the server ended:\n{self.log()}")
        socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        return True

    def stop(self):
        if self.process is None:
            return
        self.process.thaw()
        self.process.kill9()
        self.process = None

    kill9 = stop

    def rules(self, *rules):
        """What goes wrong from now on: dictionaries with any of path (a prefix), contains (text of
        the body), probability, times; and status, headers, answer, delay, cut, record."""
        path = os.path.join(self.directory, "control.json")
        with open(f"{path}.new", "w") as control:
            json.dump(rules, control)
        os.replace(f"{path}.new", path)

    def requests(self, path="/"):
        """Every request under that path that was read to its end, in order of arrival."""
        with self._reading:
            self._read_on()
            return [request for request in self._requests if request.path.startswith(path)]

    def _read_on(self):
        """Reads what the server has written since the last time."""
        try:
            with open(os.path.join(self.directory, "requests.jsonl"), "rb") as lines:
                lines.seek(self._read_up_to)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read_up_to += len(line)
                    entry = json.loads(line)
                    headers = {name.lower(): value for name, value in entry["headers"]}
                    self._requests.append(Request(entry["method"], entry["path"], entry["status"],
                                                  headers, base64.b64decode(entry["body"]),
                                                  entry["at"]))
        except FileNotFoundError:
            pass

    def accepted(self, path="/"):
        """Those that were answered with a success status."""
        return [request for request in self.requests(path) if request.status < 300]
