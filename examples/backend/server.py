#!/usr/bin/env python3
"""A server of lineq: queues of messages, spoken to in lines.

A line is fields separated by tabs; inside a field a backslash, a tab and a newline are \\\\, \\t, \\n.

  HELLO token                                        -> OK, or DENIED
  PUT queue id key type body [name value]...         -> OK when it is on disk, or REFUSED reason
  READ queue                                         -> QUEUE incarnation, then for ever
                                                        MSG number id key type body [name value]...
  ACK number        (of the queue that is read: it and all before it; there is no answer)
  LIST queue        -> MSG ... of every message that was put, then END number of unacknowledged ones

Usage: server.py port directory [token]        A message that contains "poison" is refused while
                                               the file `refuse` is in the directory.
"""

import hashlib
import os
import pathlib
import re
import secrets
import socketserver
import sys
import threading

ESCAPES = {b"\\": b"\\\\", b"\t": b"\\t", b"\n": b"\\n"}
UNESCAPED = {escaped: plain for plain, escaped in ESCAPES.items()}


def to_line(*fields):
    return b"\t".join(re.sub(rb"[\\\t\n]", lambda found: ESCAPES[found[0]], field)
                      for field in fields) + b"\n"


def from_line(line):
    return [re.sub(rb"\\.", lambda found: UNESCAPED[found[0]], field)
            for field in line.rstrip(b"\n").split(b"\t")]


class Queue:
    """The messages of one queue, and how many of them are acknowledged; both are in files."""

    def __init__(self, folder, name):
        base = folder / hashlib.sha256(name).hexdigest()[:32]
        self.changed = threading.Condition()
        self.reader = None  # the connection that reads it: the newest one
        self._messages_path, self._state_path = base.with_suffix(".log"), base.with_suffix(".state")
        try:
            incarnation, acknowledged = self._state_path.read_text().split()
        except (FileNotFoundError, ValueError):
            incarnation, acknowledged = secrets.token_hex(8), "0"
        self.incarnation, self.acknowledged = incarnation, int(acknowledged)
        self.messages = []
        whole = 0
        if self._messages_path.exists():
            for line in self._messages_path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):  # else the server was killed while it wrote
                    self.messages.append(line)
                    whole += len(line)
        self._file = open(self._messages_path, "ab", buffering=0)
        self._file.truncate(whole)
        self._save()

    def _save(self):
        part = self._state_path.with_suffix(".part")
        part.write_text(f"{self.incarnation} {self.acknowledged}")
        os.replace(part, self._state_path)

    def put(self, fields):
        line = to_line(*fields)
        with self.changed:
            self._file.write(line)
            self.messages.append(line)
            self.changed.notify_all()

    def acknowledge(self, number):
        with self.changed:
            if self.acknowledged < number <= len(self.messages):
                self.acknowledged = number
                self._save()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port, folder, token):
        self.folder, self.token = pathlib.Path(folder), token.encode()
        self._queues, self._lock = {}, threading.Lock()
        super().__init__(("127.0.0.1", port), Connection)

    def queue(self, name):
        with self._lock:
            if name not in self._queues:
                self._queues[name] = Queue(self.folder, name)
            return self._queues[name]

    def refuses(self, body):
        return b"poison" in body and (self.folder / "refuse").exists()


class Connection(socketserver.StreamRequestHandler):
    rbufsize = wbufsize = 1 << 16
    disable_nagle_algorithm = True
    reading = None  # the queue that this connection reads

    def handle(self):
        try:
            if from_line(self.rfile.readline())[:2] != [b"HELLO", self.server.token]:
                self.answer(b"DENIED")
                return
            self.answer(b"OK")
            for line in self.rfile:
                if not line.endswith(b"\n"):
                    return  # cut in the middle
                self.do(*from_line(line))
        except OSError:
            pass
        finally:
            self.stop_reading()

    def answer(self, *fields):
        self.wfile.write(to_line(*fields))
        self.wfile.flush()

    def do(self, command, *fields):
        if command == b"PUT":
            queue, *message = fields
            if self.server.refuses(message[3]):
                self.answer(b"REFUSED", b"it is poison")
            else:
                self.server.queue(queue).put(message)
                self.answer(b"OK")
        elif command == b"READ":
            self.reading = self.server.queue(fields[0])
            self.answer(b"QUEUE", self.reading.incarnation.encode())
            with self.reading.changed:
                self.reading.reader = self
                self.reading.changed.notify_all()
            threading.Thread(target=self.push, args=(self.reading,), daemon=True).start()
        elif command == b"ACK":
            self.reading.acknowledge(int(fields[0]))
        elif command == b"LIST":
            queue = self.server.queue(fields[0])
            with queue.changed:
                messages, acknowledged = list(queue.messages), queue.acknowledged
            self.wfile.write(b"".join(b"MSG\t%d\t" % number + line
                                      for number, line in enumerate(messages, 1)))
            self.answer(b"END", str(len(messages) - acknowledged).encode())
        else:
            self.answer(b"ERROR", b"no such command")

    def push(self, queue):
        """Sends what is there and what comes, until the connection ends or another one reads."""
        next_number = queue.acknowledged + 1
        try:
            while True:
                with queue.changed:
                    queue.changed.wait_for(
                        lambda: queue.reader is not self or len(queue.messages) >= next_number)
                    if queue.reader is not self:
                        return
                    lines = queue.messages[next_number - 1:next_number + 499]
                self.connection.sendall(b"".join(b"MSG\t%d\t" % number + line for number, line
                                                 in enumerate(lines, next_number)))
                next_number += len(lines)
        except OSError:
            pass

    def stop_reading(self):
        if self.reading:
            with self.reading.changed:
                if self.reading.reader is self:
                    self.reading.reader = None
                self.reading.changed.notify_all()


if __name__ == "__main__":
    port, folder, *token = sys.argv[1:]
    Server(int(port), folder, *(token or [""])).serve_forever()
