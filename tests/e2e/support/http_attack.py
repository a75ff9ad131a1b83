"""Clients that harm an HTTP server, in a process of their own: what they do to the clock and the
interpreter of the test would otherwise look like slow answers.

Run as a program: http_attack.py KIND PORT CONNECTIONS [PATH]. It writes "ready" to stdout once it
has opened all its connections, and goes on until it is killed. A connection that the server ends is
opened again.
"""

import errno
import os
import resource
import selectors
import socket
import subprocess
import sys
import time

from support.processes import Process

_PIECE = 65536
_PIPELINED = 64


class _Attacker:
    """One connection. `on_turn` is called about ten times a second, `on_room` when it can send."""

    reads = True       # whether it takes what the server answers
    sends = False      # whether it wants to hear of room for sending

    def __init__(self, port, path):
        self.port, self.path = port, path
        self.socket = None
        self.pending = b""

    def connect(self):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if not self.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        code = self.socket.connect_ex(("127.0.0.1", self.port))
        if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
            raise OSError(code, os.strerror(code))

    def close(self):
        self.socket.close()

    def request(self):
        return b"GET " + self.path + b" HTTP/1.1\r\nHost: x\r\n\r\n"

    def start(self):
        """Connected: what it sends first."""

    def on_turn(self):
        pass

    def on_room(self):
        pass

    def send(self, data):
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0


class Idle(_Attacker):
    """Connects and says nothing."""


class UsedIdle(_Attacker):
    """Asks once, and keeps the connection."""

    def start(self):
        self.send(self.request())


class Slow(_Attacker):
    """Sends one byte of its request a second."""

    def start(self):
        self.pending = b"GET " + self.path + b" HTTP/1.1\r\nX: " + b"x" * 4000
        self.next = 0.0

    def on_turn(self):
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + 1
            self.pending = self.pending[self.send(self.pending[:1]):]


class SlowBody(_Attacker):
    """Announces a body, sends most of it, and then nothing."""

    sends = True

    def start(self):
        self.pending = (b"POST /api/pipelines/x/pause HTTP/1.1\r\nHost: x\r\n"
                        b"Content-Length: 1048576\r\n\r\n" + b"x" * 1048000)

    def on_room(self):
        self.pending = self.pending[self.send(self.pending[:_PIECE]):]
        return bool(self.pending)


class Pipelining(_Attacker):
    """Sends requests without a pause, and reads the answers."""

    sends = True

    def on_room(self):
        if not self.pending:
            self.pending = self.request() * _PIPELINED
        self.pending = self.pending[self.send(self.pending):]
        return True


class Deaf(Pipelining):
    """Sends requests without a pause, and reads no answer."""

    reads = False


class Asking(_Attacker):
    """Sends one request, and the next one once it has been answered."""

    def start(self):
        self.send(self.request())

    def on_answer(self):
        self.send(self.request())


class Storm(_Attacker):
    """Connects, sends nothing, and connects again at once."""

    def on_turn(self):
        raise ConnectionResetError


KINDS = {"idle": Idle, "used-idle": UsedIdle, "slow": Slow, "slow-body": SlowBody,
         "pipelining": Pipelining, "deaf": Deaf, "asking": Asking, "storm": Storm}


class _Loop:
    def __init__(self, kind, port, count, path):
        self.selector = selectors.DefaultSelector()
        self.attackers = [KINDS[kind](port, path.encode()) for _ in range(count)]
        self.waiting = list(self.attackers)   # to be connected
        self.live = set()
        self.opened = 0
        self.was_ready = False

    def open_some(self):
        for _ in range(min(256, len(self.waiting))):
            one = self.waiting.pop()
            self.opened += 1
            try:
                one.connect()
            except OSError:
                one.close()
                self.waiting.append(one)
                return
            self.selector.register(one.socket, selectors.EVENT_WRITE, one)
        if self.opened >= len(self.attackers) and not self.was_ready:
            self.was_ready = True
            print("ready", flush=True)

    def end(self, one):
        self.selector.unregister(one.socket)
        one.close()
        self.live.discard(one)
        self.waiting.insert(0, one)

    def event(self, one, mask):
        if one not in self.live:
            code = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self.live.add(one)
            one.start()
            self.watch(one, one.sends)
            return
        if mask & selectors.EVENT_READ:
            answer = one.socket.recv(_PIECE)
            if not answer:
                raise ConnectionResetError
            if isinstance(one, Asking):
                one.on_answer()
        if mask & selectors.EVENT_WRITE and not one.on_room():
            self.watch(one, False)

    def watch(self, one, writing):
        mask = (selectors.EVENT_READ if one.reads else 0) | (selectors.EVENT_WRITE if writing else 0)
        self.selector.modify(one.socket, mask or selectors.EVENT_WRITE, one)

    def run(self):
        turn = 0.0
        while True:
            hurried = self.waiting and (not self.was_ready or isinstance(self.waiting[0], Storm))
            if hurried:
                self.open_some()
            for key, mask in self.selector.select(0.0 if hurried else 0.05):
                try:
                    self.event(key.data, mask)
                except OSError:
                    self.end(key.data)
            if time.monotonic() < turn:
                continue
            turn = time.monotonic() + 0.1
            self.open_some()
            for one in list(self.live):
                try:
                    one.on_turn()
                except OSError:
                    self.end(one)


class Attack:
    """Runs the program above until the context ends."""

    def __init__(self, kind, port, connections, path="/health/live"):
        self._argv = [sys.executable, "-m", "support.http_attack", kind, str(port),
                      str(connections), path]

    def __enter__(self):
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._process = Process(self._argv, stdout=subprocess.PIPE, cwd=folder)
        line = self._process._popen.stdout.readline()
        assert line == b"ready\n", line
        return self

    def __exit__(self, *_):
        self._process.kill9()
        self._process._popen.stdout.close()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _Loop(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]).run()
