"""Messages by chance, and the brokers that bring them: what was published and what is acknowledged,
as independent clients see it."""

import base64
import dataclasses
import http.client
import json
import queue
import threading
import uuid

import redis

from .nats_client import NatsError
from .processes import free_port

WINDOW = 0.1  # seconds of JetStream's own deduplication, the shortest there is


@dataclasses.dataclass(frozen=True)
class Message:
    """A body and a type; the tag is in the body, or, where that is empty, the message's key."""
    tag: str
    body: bytes
    kind: str
    key: str
    content_type: str = ""


@dataclasses.dataclass(eq=False)
class Publication:
    """A message that a broker took. `identity` says which publications are the same message."""
    lane: object
    message: Message
    identity: tuple
    given: bytes          # the id that the publisher gave
    place: object = None  # where the broker has it
    incarnation: int = 0
    answer: int = 0       # of HTTP


# Ids and payloads ---------------------------------------------------------------------------------

HOSTILE = [
    b"ID1", b"id1 ", b" id1", b"id1\t", b"id 1", b"id1:id2", b"id1/id2", "idé".encode(),
    "ide\u0301".encode(), "ıd1".encode(), b"\\x6964", b"base64:/w==", b"\xff", b"\xff\xfe id1",
    b"a\x00b", b"a\x00c", b"'; drop table x; --", b'{"a":1}', b"%s", b"null", b"NULL", b"0", b"",
    b" ", b"$1", b"id1~0123456789abcdef", "🙂".encode(), b"p1:id1", b"a" * 300, b"a" * 299 + b"b",
    b"id-that-is-long-1", b"id-that-is-long-2", b"id-that-is-l", b"aa-1", b"aa-2", b"aa",
    b"sha256:00", b"z" * 3 + b"q"]
NUMBERS = [b"1", b"01", b"+1", b"1.0", b"1.4", b"1.41", b"1.004", b"1e0", b"2", b"3", b"999999",
           b"1000000", b"99999999999", b"-0", b"0", b"NaN", b"abc", b"0x1", b"1_0", b" 5", b"5 ",
           b"16777216", b"16777217", b"0110", b"01101", b"32768", b"0.1", b"0.10000000001"]
TIMES = [b"2024-01-01 00:00:00+00", b"2024-01-01T01:00:00+01", b"2024-01-01 00:00:00.4+00",
         b"2024-01-01 00:00:00.3+00", b"2024-01-02", b"infinity", b"never", b"2024-01-02 00:00+00"]


def ids(random, kind):
    """An id as a publisher may give it."""
    if kind == "number":
        return random.choice(NUMBERS) if random.random() < 0.6 else b"%d" % random.randrange(60)
    if kind == "time":
        return random.choice(TIMES) if random.random() < 0.6 else (
            b"2024-02-%02d 00:00:00+00" % random.randint(1, 28))
    if kind == "uuid":
        text = str(uuid.UUID(int=random.randrange(30)))
        return random.choice((text, text.upper(), "{%s}" % text, text.replace("-", ""), text + "0",
                              " " + text)).encode()
    if random.random() < 0.35:
        return random.choice(HOSTILE)
    if random.random() < 0.02:
        return random.randbytes(2500).hex().encode()
    return b"id%d" % random.randrange(60)


def own_id(kind, number, tag):
    """An id that no other message has."""
    own = {"text": tag, "uuid": str(uuid.UUID(int=1000 + number))}
    return own.get(kind, str(number)).encode()


def _text(tag, random):
    return random.choice([
        '{"t":"%s","n":1}', '{ "t" : "%s" ,\t"n" : 2 }', '["%s", null, true]', '"%s"',
        '{"t":"%s","v":1.50,"w":1e2,"x":-0.0,"y":12345678901234567890123456789012345678901234.5}',
        '{"t":"%s","u":"ü\\u00fc\\ud83d\\ude00\\n"}', '{"a":1,"t":"%s","a":2}',
        '{"t":"%s","n":"x"}',
        ' \n{"t":"%s"}\n ', '{"t":"%s","raw_base64":"YQ==","content_type":"text/plain"}',
        '{"t":"%s","was":{"t":"other"}}']) % tag


def _odd(tag, random):
    t = tag.encode()
    if random.random() < 0.08:
        return random.choice([
            b'{"t":"%s","v":%s}' % (t, b"9" * 140000), b'{"t":"%s","b":"%s"}' % (t, b"x" * 200000),
            b"[" * 30000 + b'"%s"' % t + b"]" * 30000])
    return random.choice([
        b'{"t":"%s","z":"\\u0000"}' % t, b'{"t":"%s","z":"\\ud800"}' % t, b"%s is no json" % t,
        b"%s \xff\xfe" % t, b"%s \x00 NUL" % t, b'{"t":"%s"' % t, b'\xef\xbb\xbf{"t":"%s"}' % t,
        b'{"t":"%s","v":1e400000}' % t, b"[" * 500 + b'"%s"' % t + b"]" * 500,
        b'{"t":"%s",}' % t, b"%s" % t,
        b'{"t":"%s","v":NaN}' % t, b'{"t":"%s","v":"\x01"}' % t,
        b"%s " % t + random.randbytes(300)])


def message(tag, random, poison=0.12):
    """A message with that tag; `poison`: how many of them a table may refuse for their type."""
    kind = "a.poison" if random.random() < poison else "ok"
    content_type = ""
    if random.random() < 0.03:
        body = b""
    elif random.random() < 0.25:
        body, content_type = _odd(tag, random), "application/octet-stream"
    else:
        body = _text(tag, random).encode()
        content_type = "application/json"
    return Message(tag, body, kind, tag, content_type)


# Lanes --------------------------------------------------------------------------------------------


def as_text(given):
    """An id as the relay writes it: what is no text is the same id as its base64 form."""
    try:
        is_text = "\0" not in given.decode()
    except UnicodeDecodeError:
        is_text = False
    return given if is_text else b"base64:" + base64.b64encode(given)


class Lane:
    """A pipeline from a source of its own into a table. `mode` says where ids come from:
    `broker` (the broker's or its publisher's), `from` (id_from), `relay` (as a relay gives it),
    `none`."""

    dash = "-"

    def __init__(self, number, table, mode):
        self.name = f"p{number}"
        self.number, self.table, self.mode = number, table, mode
        self.incarnation = 0
        self.publications = []

    def config(self):
        source = self.source() | {"event_type_from": self.header("event-type"),
                                  "aggregate_id_from": self.header("k")}
        if self.mode == "from":
            source["id_from"] = self.header("my-id")
        return {"source": source, "sink": {"type": "inbox", **self.table.target},
                "retry_min": "20ms", "retry_max": "300ms"}

    def header(self, name):
        return f"header:{name}"

    def note(self, message, given, place, answer=0):
        publication = Publication(self, message, self.identity(given), given, place,
                                  self.incarnation, answer)
        self.publications.append(publication)
        return publication

    def publish_beside(self, item):
        """Brings one message to the relay, though others of the lane are refused."""
        self.publish([item])

    def identity(self, given):
        """What makes a message the same one when it comes again."""
        arrives = as_text(self.arrives(given))
        if self.mode == "none" or not arrives:
            return (self.name, self.incarnation, "alone", len(self.publications))
        if self.mode == "broker":
            return (self.name, self.scope(), arrives)
        return ("any", arrives)

    def may_be(self, publication, identity):
        """Whether a message with this id may be that publication."""
        return publication.identity[2:3] == ("alone",) or (
            as_text(self.arrives(publication.given)).decode() in identity)

    def arrives(self, given):
        """The id as it comes out of the protocol: headers are without blanks at their ends."""
        return given.strip(b" \t")

    def scope(self):
        return 0

    def is_taken(self, publication):
        """Whether the source has accepted it, so that it must be settled some time."""
        return True

    def __repr__(self):
        return f"{self.name} ({type(self).__name__}, ids {self.mode}, table {self.table.shape.name})"


def _line(name, value):
    return name + b": " + value + b"\r\n"


class NatsLane(Lane):
    """A stream of its own."""

    def arrives(self, given):
        """The client library ends a header at a NUL byte."""
        return given.split(b"\0")[0].strip(b" \t")

    def __init__(self, number, table, mode, server):
        super().__init__(number, table, mode)
        self.server = server
        self.stream = f"S{number}"
        self._client = None
        self.create()

    def client(self):
        if self._client is None or self._client.error is not None:
            self._client = self.server.client()
        return self._client

    def source(self):
        return {"type": "nats", "url": self.server.url, "stream": self.stream,
                "consumer": f"c{self.number}", "ack_wait": "2s"}

    def scope(self):
        return self.incarnation

    def create(self):
        self.client().create_stream(self.stream, f"s{self.number}.>", WINDOW)

    def make_again(self):
        """Deletes the stream, and makes it again."""
        self.client().delete_stream(self.stream)
        self.incarnation += 1
        self.create()

    def publish(self, items):
        client = self.client()
        inbox = f"{client._inbox}.many.{len(self.publications)}"
        answers = client.subscribe(f"{inbox}.*")
        for number, (message, given) in enumerate(items):
            block = b"NATS/1.0\r\n" + _line(b"event-type", message.kind.encode())
            if message.key:
                block += _line(b"k", message.key.encode())
            names = {"broker": (b"Nats-Msg-Id",), "from": (b"my-id",),
                     "relay": (b"pgtrickle-id",)}
            for name in names.get(self.mode, ()):
                block += _line(name, given)
            block += b"\r\n"
            head = f"HPUB s{self.number}.x {inbox}.{number} {len(block)} " \
                   f"{len(block) + len(message.body)}\r\n"
            client._send(head.encode() + block + message.body + b"\r\n")
        for _ in items:
            answer = answers.get(timeout=20)
            if answer is None:
                raise NatsError(str(client.error))
            number, said = int(answer.subject.rsplit(".", 1)[1]), answer.json
            if "error" in said:
                raise NatsError(said["error"])
            if not said.get("duplicate"):
                self.note(*items[number], said["seq"])
        client.unsubscribe(answers)

    def _consumer(self):
        try:
            return self.client()._api(f"CONSUMER.INFO.{self.stream}.c{self.number}")
        except NatsError:
            return None

    def acknowledged(self):
        """The publications that the broker will not deliver again."""
        info = self._consumer()
        floor = info["ack_floor"]["stream_seq"] if info else 0
        return [p for p in self.publications
                if p.incarnation == self.incarnation and p.place <= floor]

    def drained(self):
        info = self._consumer()
        return info is not None and info["num_pending"] == 0 and info["num_ack_pending"] == 0

    def close(self):
        if self._client is not None:
            self._client.close()


class RedisLane(Lane):
    """A stream of its own. With the ids of the broker, entries have ids that count from 1."""

    dash = "_"

    def __init__(self, number, table, mode, server):
        super().__init__(number, table, mode)
        self.server = server
        self.key = f"r{number}"
        self._client = server.client()
        self._next = 1

    def arrives(self, given):
        return given

    def scope(self):
        return self.incarnation

    def source(self):
        return {"type": "redis", "url": self.server.url, "stream_key": self.key,
                "group": f"g{self.number}", "consumer": "c", "claim_idle": "2s"}

    def header(self, name):
        return f"header:{name.replace('-', self.dash)}"

    def make_again(self):
        """Deletes the stream; the next entries have the ids of the first."""
        self._client.delete(self.key)
        self.incarnation += 1
        self._next = 1

    def publish(self, items):
        for message, given in items:
            fields = {b"payload": message.body, b"event_type": message.kind.encode()}
            if message.key:
                fields[b"k"] = message.key.encode()
            if message.content_type:
                fields[b"content_type"] = message.content_type.encode()
            entry = "*"
            if self.mode == "broker":
                entry, self._next = f"{self._next}-1", self._next + 1
                given = entry.encode()
            elif self.mode != "none":
                fields[{"from": b"my_id", "relay": b"pgtrickle_id"}[self.mode]] = given
            place = self._client.xadd(self.key, fields, id=entry)
            self.note(message, given, tuple(map(int, place.split(b"-"))))

    def _group(self):
        try:
            for group in self._client.xinfo_groups(self.key):
                if group["name"] == f"g{self.number}".encode():
                    return group
        except redis.ResponseError:
            pass
        return None

    def acknowledged(self):
        group = self._group()
        if group is None:
            return []
        # What is delivered after this was read is beyond `last`, and not counted.
        last = tuple(map(int, group["last-delivered-id"].split(b"-")))
        pending = {tuple(map(int, entry["message_id"].split(b"-"))) for entry in
                   self._client.xpending_range(self.key, f"g{self.number}", "-", "+", 1000000)}
        return [p for p in self.publications if p.incarnation == self.incarnation
                and p.place <= last and p.place not in pending]

    def drained(self):
        group = self._group()
        here = [p.place for p in self.publications if p.incarnation == self.incarnation]
        if not here:
            return True
        return (group is not None and group["pending"] == 0
                and tuple(map(int, group["last-delivered-id"].split(b"-"))) >= max(here))

    def close(self):
        self._client.close()


class HttpLane(Lane):
    """A receiver of its own. A sender says again, with the id that it gave, what was not answered
    with 200 or with a refusal; without an id it says everything once."""

    SENDERS = 4
    LOST, NOT_SENT = 0, -1

    def __init__(self, number, table, mode, _):
        super().__init__(number, table, mode)
        self.port = free_port()
        self._todo = queue.Queue()
        self._open = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        for _ in range(self.SENDERS):
            threading.Thread(target=self._send, daemon=True).start()

    def source(self):
        return {"type": "webhook", "listen": f"127.0.0.1:{self.port}", "response_timeout": "3s"}

    def publish(self, items):
        for message, given in items:
            self._todo.put(self._begin(message, given))

    def publish_beside(self, item):
        """Sends one message at once, whatever the senders wait for."""
        threading.Thread(target=self._deliver, args=(self._begin(*item),), daemon=True).start()

    def _begin(self, message, given):
        with self._lock:
            self._open += 1
        return self.note(message, given, None)

    def _send(self):
        while not self._ending.is_set():
            try:
                publication = self._todo.get(timeout=0.2)
            except queue.Empty:
                continue
            self._deliver(publication)

    def _deliver(self, publication):
        status = 0
        while not self._ending.is_set():
            status = self._say(publication)
            if status not in (self.NOT_SENT, self.LOST, 503):
                break
            # Without an id, what may have been committed is not said again.
            if publication.identity[2:3] == ("alone",) and status != self.NOT_SENT:
                break
            self._ending.wait(0.05)
        publication.answer = status
        with self._lock:
            self._open -= 1

    def _say(self, publication):
        message = publication.message
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = False
        try:
            connection.connect()
            connection.putrequest("POST", "/inbox/x")
            connection.putheader("Content-Length", str(len(message.body)))
            connection.putheader("event-type", message.kind)
            if message.key:
                connection.putheader("k", message.key)
            if message.content_type:
                connection.putheader("Content-Type", message.content_type)
            name = {"broker": "Idempotency-Key", "from": "my-id", "relay": "pgtrickle-id"}
            if self.mode in name:
                connection.putheader(name[self.mode], publication.given)
            sent = True
            connection.endheaders(message.body)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return self.LOST if sent else self.NOT_SENT
        finally:
            connection.close()

    def is_taken(self, publication):
        return publication.answer == 200

    def acknowledged(self):
        return [p for p in self.publications if self.is_taken(p)]

    def drained(self):
        with self._lock:
            return self._open == 0

    def close(self):
        self._ending.set()


LANES = {"nats": NatsLane, "redis": RedisLane, "http": HttpLane}


def raw_body(stored):
    """The body that {"raw_base64": ...} stands for; None where it is something else."""
    try:
        value = json.loads(stored)
        if isinstance(value, dict) and set(value) == {"raw_base64", "content_type"}:
            return base64.b64decode(value["raw_base64"], validate=True)
    except (ValueError, RecursionError):
        pass
    return None
