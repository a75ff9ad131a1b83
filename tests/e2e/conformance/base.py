"""What the conformance suite knows of a broker, and nothing else.

One module for each broker, named after the sink type, with one class `<Name>Broker(Broker)`. The
suite finds it by its module. A server is started once and serves many tests: every test calls
`fresh()` and gets a **place** of its own (a stream, topic, queue, path, table ...).
"""

import os
from dataclasses import dataclass, field

from support.proxy import FaultProxy


@dataclass
class Received:
    """One message at its destination, as an independent client read it. What the broker has no
    room for is None. `headers` have the names as they arrived."""
    id: str | None
    key: str | None
    subject: str | None
    headers: dict = field(default_factory=dict)
    body: bytes = b""


class Broker:
    """A running real server. Subclasses set the attributes that differ, and write the methods that
    raise NotImplementedError.

    `na` says which cases cannot apply, and why: {case: reason}. The cases are the names in CASES;
    the reason stands in the table that the suite prints. A case is never left out in silence.
    """

    # What it is --------------------------------------------------------------------------------

    name = ""                 # the sink's type
    source_name = None        # the source's type, where it is another one
    reads_back = True         # what sink() writes is what source() reads
    deduplicates = False      # it drops a second message with the same id
    ordered = True            # received() tells the order of the messages of a key
    has_headers = True        # Received.headers holds pgtrickle-id and so on
    has_key = False           # Received.key holds the message's key
    raw_body = True           # the body arrives byte for byte (False: an inbox stores JSON values)
    has_server = True         # there is a server to kill, freeze and cut off
    slow_on_disk = False      # its durable places take few messages a second (an emulator)
    source_notices_silence = True  # an idle source asks the server something every few seconds
    max_body = 900_000        # the largest body in bytes that is worth sending
    large_load = {}           # options of the sink for a million keys; the column `bucket` has 256 values
    na = {}
    source_na = {}

    # How "poison" is made (see refuse) ---------------------------------------------------------

    poison = "poison"         # the `name` of the row that the broker must refuse
    refusal = ("", "")        # the code of the dead letter, and a part of its message

    port = None               # TCP port of clients

    def __init__(self):
        self.place = None
        self._places = 0

    # Life and death ----------------------------------------------------------------------------

    def start(self):
        """Starts the server, or starts it again on the same port with the same data; returns when
        it serves. Returns self."""
        raise NotImplementedError

    def stop(self):
        """An orderly stop. The data stays for the next start()."""
        raise NotImplementedError

    def kill9(self):
        raise NotImplementedError

    def freeze(self):
        """SIGSTOP of every process of the server."""
        raise NotImplementedError

    def thaw(self):
        raise NotImplementedError

    def close(self):
        """The end of the tests: stops whatever this object started. Must not fail."""
        self.stop()

    def log(self):
        """The end of the server's log, shown when a test fails."""
        return ""

    # Places ------------------------------------------------------------------------------------

    def fresh(self):
        """Gives the next test a place of its own: sets `place` to a name that was never used and
        calls prepare(). From then on sink(), source(), received() and publish() mean that place."""
        self._places += 1
        self.place = f"c{os.getpid() % 10000}n{self._places}"
        self.prepare()
        return self

    def prepare(self):
        """Creates `place` at the server, where it must exist before the first message."""

    def prepare_unordered(self):
        """Makes `place` again as one without any order, where the broker has such places beside those
        with order and gives far more at once from them."""

    def prepare_durable(self):
        """Makes `place` again as one that is whole after kill9() and start(), where the broker has such
        places beside those that serve all other cases faster."""

    # The sink ----------------------------------------------------------------------------------

    def sink(self, port=None, **over):
        """The sink of a pipeline in its nested SQL form, {"type": ..., ...}, with credentials,
        subject or topic, and all else that it needs to deliver to `place`. `port` stands for the
        server's own: that of a proxy() on 127.0.0.1. Timeouts are short enough for tests (a few
        seconds). `over` replaces options."""
        raise NotImplementedError

    def proxy(self):
        """A fault proxy before the server: its `port` is for sink(port=...) and source(port=...).
        A broker whose clients connect to the address that it advertises (Kafka) must see to it that
        a client which came through the proxy stays there."""
        return FaultProxy(self.port)

    def received(self):
        """Everything that has arrived at `place` so far, in the broker's order: list[Received].
        Called again and again while messages arrive, and after restarts; reading must not change
        what the next call returns (where reading consumes, keep what was read)."""
        raise NotImplementedError

    def count(self):
        """How many messages received() would return: here for brokers that can tell faster."""
        return len(self.received())

    def drain(self):
        """Reads what has arrived, from a broker that gets slow with a million messages."""

    # What must be refused ----------------------------------------------------------------------

    def refuse(self):
        """Options of a pipeline (beside "sink", or inside it) under which the broker refuses the
        message of a row whose `name` is `self.poison`, and no other one; for instance
        {"sink": {"max_message_bytes": 60000}} with a `poison` of 70,000 characters. May change the
        server too. Such a message must be *rejected*: it can never be delivered as things stand."""
        raise NotImplementedError

    def cure(self):
        """Takes the cause of refuse() away, so that a retry of the dead letter is delivered. Returns
        the options that then replace those of refuse()."""
        return {}

    def wrong_credentials(self):
        """A sink whose credentials the server refuses; None where `na` says why there is none."""
        return None

    def wrong_ca(self):
        """A sink that meets a TLS server whose certificate its `tls_ca` did not sign."""
        return None

    def unresolvable(self):
        """A sink at host no-such-host.invalid."""
        return None

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        """The source of a pipeline in its nested SQL form, reading from `place`: what sink()
        delivers there, it reads. Redelivery of what was not acknowledged is quick enough for tests
        (a few seconds)."""
        raise NotImplementedError

    def source_proxy(self):
        """A fault proxy between server and source(port=...)."""
        return self.proxy()

    def publish(self, messages):
        """Sends messages to `place` by an independent client and returns when the server has taken
        them: a list of (id, key, event type, body as bytes). They carry the id, key and type where
        the source looks for them by default (BACKENDS: sources), so that the inbox's event_id,
        aggregate_id and event_type become exactly those."""
        raise NotImplementedError

    round_trip = {}  # options of source() that it takes to read what sink() wrote, ids included

    def body_of(self, payload):
        """The body that publish() was given, of an inbox's payload (both parsed)."""
        return payload

    def poison_payloads(self):
        """Payloads (bytes) that publish() can send and that are no JSON: they must reach the inbox
        or the dead letters, not hold up others. At least one that is no UTF-8 where bodies are bytes."""
        return [b"{not json", b"\xff\xfe\x00binary"]

    def unacknowledged(self):
        """How many messages of `place` the server still holds for the source, unread ones included;
        None where it cannot tell."""
        return None


class ServerBroker(Broker):
    """A broker that is one process of support/, and perhaps a second one with TLS (`_secured`)."""

    def __init__(self, server):
        super().__init__()
        self._server = server
        self._secured = None
        self.port = server.port

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
        self.stop()
        if self._secured:
            self._secured.stop()

    def log(self):
        return self._server.log()
