"""A small NATS client on plain sockets, independent of the library that the relay uses."""

import io
import itertools
import json
import queue
import random
import select
import socket
import ssl
import string
import threading
from dataclasses import dataclass, field


@dataclass
class Message:
    """A message as it arrived; from a stream, `sequence` is its place there and `time` (in seconds)
    is when the server stored it."""
    subject: str
    data: bytes
    reply: str = ""
    headers: dict = field(default_factory=dict)
    status: int = 0
    sequence: int = 0
    pending: int = -1
    time: float = 0.0

    @property
    def json(self):
        return json.loads(self.data)

    @property
    def id(self):
        return self.headers.get("Nats-Msg-Id")


class NatsError(Exception):
    pass


class NatsClient:
    """Blocking calls; one background thread reads. Not reconnecting: a broken one is made anew."""

    def __init__(self, host, port, user=None, password=None, token=None, tls_ca=None, tls_cert=None,
                 tls_key=None, timeout=10):
        self._timeout = timeout
        self._socket = socket.create_connection((host, port), timeout=timeout)
        info = self._read_greeting()
        if info.get("tls_required") or tls_ca:
            context = ssl.create_default_context(cafile=tls_ca)
            if tls_cert:
                context.load_cert_chain(tls_cert, tls_key)
            self._socket = _TlsSocket(context.wrap_socket(self._socket, server_hostname=host))
        else:
            self._socket.settimeout(None)
        self.info = info
        self._file = io.BufferedReader(_Readable(self._socket), 65536)
        self._write_lock = threading.Lock()
        self._queues = {}
        self._sids = itertools.count(1)
        self._pongs = queue.Queue()
        self.error = None
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "1",
                   "headers": True, "no_responders": True, "protocol": 1, "echo": True}
        if user:
            options |= {"user": user, "pass": password}
        if token:
            options["auth_token"] = token
        self._send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        self._thread = threading.Thread(target=self._read_loop, daemon=True)
        self._thread.start()
        self._inbox = "_INBOX." + "".join(random.choices(string.ascii_letters, k=16))
        self._replies = {}
        self._reply_numbers = itertools.count(1)
        self.flush()

    def _read_greeting(self):
        line = b""
        while not line.endswith(b"\r\n"):
            piece = self._socket.recv(1)
            if not piece:
                raise NatsError("the server closed the connection")
            line += piece
        return json.loads(line[len(b"INFO "):])

    # The wire ------------------------------------------------------------------------------

    def _send(self, data):
        with self._write_lock:
            self._socket.sendall(data)

    def _read_loop(self):
        try:
            while True:
                line = self._file.readline()
                if not line:
                    raise NatsError("the server closed the connection")
                verb, _, rest = line.rstrip(b"\r\n").partition(b" ")
                if verb in (b"MSG", b"HMSG"):
                    self._dispatch(verb, rest.decode().split(" "))
                elif verb == b"PING":
                    self._send(b"PONG\r\n")
                elif verb == b"PONG":
                    self._pongs.put(True)
                elif verb == b"-ERR":
                    raise NatsError(rest.decode())
        except (NatsError, OSError, ValueError) as error:
            self.error = error
            self._pongs.put(False)
            for waiting in list(self._queues.values()):
                waiting.put(None)

    def _dispatch(self, verb, fields):
        reply = fields[2] if len(fields) == (4 if verb == b"MSG" else 5) else ""
        header_size = int(fields[-2]) if verb == b"HMSG" else 0
        body = self._file.read(int(fields[-1]) + 2)[:-2]
        status, headers = _parse_headers(body[:header_size])
        message = Message(fields[0], body[header_size:], reply, headers, status)
        if reply.startswith("$JS.ACK."):
            # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
            parts = reply.split(".")
            message.sequence, message.pending = int(parts[-4]), int(parts[-1])
            message.time = int(parts[-2]) / 1e9
        waiting = self._queues.get(int(fields[1]))
        if waiting is not None:
            waiting.put(message)

    # Core NATS -----------------------------------------------------------------------------

    def flush(self):
        """Returns when the server has seen all that was sent; raises NatsError if it refused."""
        self._send(b"PING\r\n")
        try:
            alive = self._pongs.get(timeout=self._timeout)
        except queue.Empty:
            raise NatsError("no PONG") from None
        if not alive:
            raise NatsError(str(self.error))

    def publish(self, subject, data=b"", reply="", headers=None):
        data = data.encode() if isinstance(data, str) else data
        reply = f"{reply} " if reply else ""
        if headers:
            block = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
            block = block.encode()
            line = f"HPUB {subject} {reply}{len(block)} {len(block) + len(data)}\r\n"
            self._send(line.encode() + block + data + b"\r\n")
        else:
            self._send(f"PUB {subject} {reply}{len(data)}\r\n".encode() + data + b"\r\n")

    def subscribe(self, subject):
        """A queue.Queue of Messages (None: the connection is gone)."""
        sid = next(self._sids)
        self._queues[sid] = queue.Queue()
        self._send(f"SUB {subject} {sid}\r\n".encode())
        self._queues[sid].sid = sid
        return self._queues[sid]

    def unsubscribe(self, subscription):
        self._queues.pop(subscription.sid, None)
        self._send(f"UNSUB {subscription.sid}\r\n".encode())

    def request(self, subject, data=b"", headers=None):
        inbox = f"{self._inbox}.{next(self._reply_numbers)}"
        answers = self.subscribe(inbox)
        try:
            self.publish(subject, data, inbox, headers)
            answer = answers.get(timeout=self._timeout)
        except queue.Empty:
            raise NatsError(f"no answer to {subject}") from None
        finally:
            if self.error is None:
                self.unsubscribe(answers)
        if answer is None:
            raise NatsError(str(self.error))
        if answer.status == 503:
            raise NatsError(f"no responder for {subject}")
        return answer

    # JetStream -----------------------------------------------------------------------------

    def _api(self, subject, body=None):
        answer = self.request(f"$JS.API.{subject}", json.dumps(body) if body is not None else b"")
        parsed = answer.json
        if "error" in parsed:
            raise NatsError(f"{subject}: {parsed['error']}")
        return parsed

    def create_stream(self, name, subjects, duplicate_window=120.0, **options):
        """File-backed; `duplicate_window` in seconds, further `options` as the API has them."""
        config = {"name": name, "subjects": subjects if isinstance(subjects, list) else [subjects],
                  "storage": "file", "retention": "limits", "num_replicas": 1, "discard": "old",
                  "max_msgs": -1, "max_bytes": -1, "max_age": 0,
                  "duplicate_window": int(duplicate_window * 1e9), **options}
        return self._api(f"STREAM.CREATE.{name}", config)

    def update_stream(self, name, **changes):
        return self._api(f"STREAM.UPDATE.{name}", self.stream_info(name)["config"] | changes)

    def delete_stream(self, name):
        return self._api(f"STREAM.DELETE.{name}")

    def stream_info(self, name):
        return self._api(f"STREAM.INFO.{name}")

    def count(self, name):
        """How many messages the stream holds; one that is not there holds none."""
        try:
            return self.stream_info(name)["state"]["messages"]
        except NatsError as error:
            if "stream not found" in str(error):
                return 0
            raise

    def publish_acknowledged(self, subject, data, headers=None):
        answer = self.request(subject, data, headers).json
        if "error" in answer:
            raise NatsError(f"{subject}: {answer['error']}")
        return answer

    def messages(self, stream, subject=None, start_sequence=None):
        """All messages that the stream holds (from a sequence on), in the stream's order."""
        config = {"ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant",
                  "inactive_threshold": int(60e9), "max_deliver": 1}
        if start_sequence:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start_sequence}
        if subject:
            config["filter_subject"] = subject
        consumer = self._api(f"CONSUMER.CREATE.{stream}",
                             {"stream_name": stream, "config": config})["name"]
        inbox = f"{self._inbox}.{next(self._reply_numbers)}"
        arriving = self.subscribe(inbox)
        found, ended = [], False
        while not ended:
            self.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
                         json.dumps({"batch": 250, "no_wait": True}), inbox)
            for _ in range(250):
                try:
                    message = arriving.get(timeout=self._timeout)
                except queue.Empty:
                    raise NatsError(f"reading {stream} stalled after {len(found)}") from None
                if message is None:
                    raise NatsError(str(self.error))
                if message.status:
                    ended = True
                    break
                found.append(message)
                if message.pending == 0:
                    ended = True
                    break
        self.unsubscribe(arriving)
        self._api(f"CONSUMER.DELETE.{stream}.{consumer}")
        return found

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        self._thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Readable(io.RawIOBase):
    """What a BufferedReader needs of a socket."""

    def __init__(self, source):
        self._source = source

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._source.recv(len(buffer))
        buffer[:len(data)] = data
        return len(data)


class _TlsSocket:
    """An SSLSocket that one thread may read while another writes (OpenSSL allows one at a time)."""

    def __init__(self, secured):
        self._secured = secured
        self._secured.setblocking(False)
        self._lock = threading.Lock()

    def _try(self, operation):
        with self._lock:
            try:
                return operation()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                reading = isinstance(wanted, ssl.SSLWantReadError)
        sockets = [self._secured]
        select.select(sockets if reading else [], [] if reading else sockets, [], 1.0)
        return None

    def recv(self, size):
        while (data := self._try(lambda: self._secured.recv(size))) is None:
            pass
        return data

    def sendall(self, data):
        rest = memoryview(data)
        while rest:
            sent = self._try(lambda: self._secured.send(rest))
            rest = rest[sent or 0:]

    def shutdown(self, how):
        socket.socket.shutdown(self._secured, how)

    def close(self):
        self._secured.close()


def _parse_headers(block):
    if not block:
        return 0, {}
    first, *lines = block.decode().split("\r\n")
    code = first[len("NATS/1.0"):].strip().split(" ")[0]
    headers = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            headers[name] = value.strip()
    return int(code) if code.isdigit() else 0, headers
