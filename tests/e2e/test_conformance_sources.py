"""Every source, the same cases: whatever a broker of any kind does, each message is in the inbox
exactly once, and is acknowledged only when it is there.

A broker is described by its module in conformance/; see conformance/base.py."""

import json
import random
from decimal import Decimal

import pytest

from conformance.lab import FailingBroker, assert_no_secret_is_shown, wait_told
from conformance.suite import SOURCES, case, note, parametrize, start
from support.background import Background
from support.pipelines import LONG, SLOW_FACTOR, Lines, make_table, set_outbox, status_row, to_file
from support.proxy import DOWN, UP
from support.relay import Relay
from support.waiting import eventually, holds_for

INBOX = "pgtrickle.inbox_shop"
WHERE = r"127\.0\.0\.1"  # an error names the endpoint


def pytest_generate_tests(metafunc):
    parametrize(metafunc)


@pytest.fixture(scope="module")
def broker(request):
    running = start(request.param, SOURCES)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _noted(request, broker, record_property):
    note(request.node, broker, record_property)


def event(number):
    """(id, key, type, body) of one message."""
    body = json.dumps({"n": number, "text": "ü" * (number % 50)}).encode()
    return f"e{number}", f"k{number % 7}", "order.paid", body


class Publisher(Background):
    """Publishes events; knows how many the broker has taken."""

    def __init__(self, broker, first=1, size=10, pause=0.01):
        super().__init__()
        self._broker, self._size, self._pause = broker, size, pause
        self.published = first - 1

    def _run(self):
        while not self._stop.wait(self._pause):
            first = self.published + 1
            self._broker.publish([event(n) for n in range(first, first + self._size)])
            self.published += self._size

    def more(self, count, deadline=60):
        target = self.published + count
        eventually(lambda: self.published >= target, deadline * SLOW_FACTOR)


class Lab(FailingBroker):
    """A pipeline `in` from the broker into an inbox, and what is in there."""

    def __init__(self, db, broker):
        self.db, self.broker = db, broker
        self._next = 1
        db.execute("select pgtrickle.create_inbox('shop')")

    def configure(self, source=None, name="in", **options):
        config = {"retry": {"min": "50ms", "max": "1s"}, "source": source or self.broker.source(),
                  "sink": {"type": "inbox", "inbox_name": "shop"}, **options}
        self.db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb)",
                        (name, json.dumps(config)))
        self.db.execute("select pgtrickle.enable_relay(%s)", (name,))

    def publish(self, count):
        """The next `count` events; returns how many were published so far."""
        self.broker.publish([event(n) for n in range(self._next, self._next + count)])
        self._next += count
        return self._next - 1

    def publisher(self):
        return Publisher(self.broker, self._next)

    def count(self):
        return self.db.one(f"select count(*) from {INBOX}")

    def ids(self):
        return {row[0] for row in self.db.execute(f"select event_id from {INBOX}")}

    def wait(self, last, deadline=60):
        """Waits until events 1 to `last` are in the inbox, and all is acknowledged; checks that
        nothing else is there."""
        eventually(lambda: self.count() >= last, deadline * SLOW_FACTOR, interval=0.05,
                   message=lambda: self.story(last))
        assert self.ids() == {f"e{n}" for n in range(1, last + 1)}
        eventually(lambda: not self.broker.unacknowledged(), 30 * SLOW_FACTOR, interval=0.1,
                   message=lambda: f"{self.broker.unacknowledged()} are not acknowledged")
        assert self.db.one("select count(*) from pgtrickle.relay_dlq") == 0

    def story(self, last):
        missing = sorted({f"e{n}" for n in range(1, last + 1)} - self.ids())
        return (f"{self.count()} of {last}, missing {missing[:5]}...; unacknowledged "
                f"{self.broker.unacknowledged()}; {status_row(self.db, 'in')}; "
                f"{self.broker.log()[-1500:]}")


@pytest.fixture
def lab(db, broker):
    lab = Lab(db, broker.fresh())
    yield lab
    lab.make_good()


# What arrives ----------------------------------------------------------------------------------


@case(SOURCES, "delivers_all", "each message in the inbox, with id, type and key")
def test_each_message_is_in_the_inbox_with_id_type_and_key(db, lab, broker, relay):
    lab.configure()
    lab.publish(100)
    with relay:
        lab.wait(100)
        lab.publish(100)
        lab.wait(200)
        relay.wait_healthy()
    rows = db.execute(f"select event_id, aggregate_id, event_type, payload, source from {INBOX}")
    assert {row[:3] for row in rows} == {event(n)[:3] for n in range(1, 201)}
    payloads = {row[0]: broker.body_of(row[3]) for row in rows}
    assert all(payloads[f"e{n}"] == json.loads(event(n)[3]) for n in range(1, 201))


@case(SOURCES, "body_exact", "payloads are equal as JSON: unicode, numbers of 40 digits, the "
                             "largest ones")
def test_payloads_are_equal_as_json(db, lab, broker, relay):
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t / \\u0001"}', '[]', '"plain"', '0.10', 'null',
             '{"big": 9007199254740993, "small": 1e-20}',
             json.dumps({"large": "x" * (broker.max_body - 20)})]
    lab.configure()
    broker.publish([(f"e{n}", "k", "t", text.encode()) for n, text in enumerate(texts)])
    with relay:
        eventually(lambda: lab.count() == len(texts), 40 * SLOW_FACTOR,
                   message=lambda: lab.story(len(texts)))

    def exact(text):
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)
    stored = dict(db.execute(f"select event_id, payload::text from {INBOX}"))
    for number, text in enumerate(texts):
        assert broker.body_of(exact(stored[f"e{number}"])) == exact(text)


@case(SOURCES, "ten_thousand", "10,000 messages across batch borders")
def test_ten_thousand_messages_across_batch_borders(lab, relay):
    lab.configure(batch_size=700)
    with relay:
        for _ in range(10):
            lab.publish(1000)
        lab.wait(10_000, deadline=120)


@case(SOURCES, "duplicates", "sent twice, in the inbox once")
def test_what_is_sent_twice_is_in_the_inbox_once(lab, broker, relay):
    lab.configure()
    with relay:
        for _ in range(3):
            broker.publish([event(n) for n in range(1, 51)])
        last = lab.publish(100)
        lab.wait(last)


@case(SOURCES, "poison", "payloads that are no JSON hold nothing up and are not lost")
def test_payloads_that_are_no_json_hold_nothing_up_and_are_not_lost(db, lab, broker, relay):
    poison = [*broker.poison_payloads(), b'{"t": "\\u0000"}']
    lab.configure()
    with relay:
        lab.publish(10)
        broker.publish([(f"p{n}", "k1", "t", body) for n, body in enumerate(poison)])
        last = lab.publish(10)
        wanted = {f"e{n}" for n in range(1, last + 1)}
        eventually(lambda: wanted <= lab.ids(), 40 * SLOW_FACTOR, message=lambda: lab.story(last))

        def kept():
            return lab.count() - last + db.one("select count(*) from pgtrickle.relay_dlq"
                                               " where resolved_at is null") == len(poison)
        eventually(kept, 30 * SLOW_FACTOR, message=lambda: lab.story(last))
        eventually(lambda: not broker.unacknowledged(), 30 * SLOW_FACTOR)
        holds_for(kept, 1, interval=0.1)  # nothing loops
        relay.wait_healthy()


@case(SOURCES, "acknowledged_after_commit", "acknowledged only after the commit")
def test_nothing_is_acknowledged_before_it_is_committed(db, lab, broker, relay):
    lab.configure()
    with relay:
        lab.wait(lab.publish(20))
        with db.connect(autocommit=False) as blocker:
            blocker.execute(f"lock table {INBOX} in access exclusive mode")
            lab.publish(30)
            if broker.unacknowledged() is not None:
                holds_for(lambda: broker.unacknowledged() == 30, 2, interval=0.1)
            relay.kill9()
            blocker.rollback()
        relay.start()
        lab.wait(50)


# Faults ----------------------------------------------------------------------------------------


@case(SOURCES, "relay_restarted", "relay stopped, and killed with -9 at random moments")
@pytest.mark.timeout(900 if LONG else 300)
def test_the_relay_stopped_and_killed_at_random_moments(lab, relay):
    chance = random.Random(7)
    lab.configure(batch_size=50)
    with lab.publisher() as publisher:
        relay.start()
        for turn in range(100 if LONG else 6):  # every second one is a kill
            publisher.more(chance.randint(20, 150))
            relay.kill9() if turn % 2 else relay.stop()
            relay.start()
        publisher.more(50)
    lab.wait(publisher.published)
    relay.stop()


@case(SOURCES, "postgres_restarted", "PostgreSQL restarted and killed with -9")
def test_postgresql_restarted_and_killed(own_pg_server, own_db, broker, relay_bin):
    lab = Lab(own_db, broker.fresh())
    lab.configure()
    with Relay(own_db.relay_dsn) as relay:
        with lab.publisher() as publisher:
            for mode in ("fast", "kill9", "immediate"):
                publisher.more(100)
                own_pg_server.restart(mode)
            publisher.more(100)
        lab.wait(publisher.published, deadline=90)
        relay.wait_healthy(deadline=30)


@case(SOURCES, "broker_killed", "broker killed with -9 and started again")
def test_the_broker_killed_and_started_again(db, lab, broker, relay):
    broker.prepare_durable()
    lab.configure(batch_size=50)
    with relay:
        for number in range(3):
            lab.publish(500)
            lab.kill()
            if number == 0:  # the others are back before the relay has noticed
                wait_told(relay, db, "in", WHERE)
            lab.revive()
        lab.wait(lab.publish(100), deadline=90)
        relay.wait_healthy(deadline=30)


@case(SOURCES, "broker_frozen", "broker frozen (SIGSTOP) and thawed")
def test_the_broker_frozen_and_thawed(db, lab, broker, relay):
    lab.configure()
    with relay:
        lab.wait(lab.publish(50))
        lab.freeze()
        if broker.source_notices_silence:
            wait_told(relay, db, "in", WHERE, deadline=45)
        else:
            holds_for(relay.alive, 6, interval=0.5)
        lab.thaw()
        lab.wait(lab.publish(200), deadline=90)
        relay.wait_healthy(deadline=30)


@case(SOURCES, "connection_cut", "connection cut after N bytes, either way")
def test_the_connection_cut_after_any_number_of_bytes(lab, broker, relay):
    with broker.source_proxy() as proxy:
        lab.configure(source=broker.source(port=proxy.port))
        with relay:
            lab.wait(lab.publish(20))
            for direction, cut in ((DOWN, 1), (DOWN, 700), (DOWN, 20_000), (UP, 1), (UP, 100)):
                proxy.cut_after(cut, direction)

                def cut_came():
                    lab.publish(20)
                    return not proxy.cut_is_pending()
                eventually(cut_came, 60 * SLOW_FACTOR, interval=0.1,
                           message=lambda: f"no {cut} bytes went {direction}")
                lab.wait(lab.publish(20), deadline=90)
            lab.wait(lab.publish(20), deadline=90)


@case(SOURCES, "authentication_refused", "authentication refused: a clear error, the others run")
def test_refused_authentication_is_named_while_the_others_run(db, lab, broker, relay, tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, as_source(broker, broker.wrong_credentials()),
                   "auth|password|credential|token|denied|refused|access|permi|forbidden|40[13]")


@case(SOURCES, "wrong_ca", "TLS with a wrong CA: the same")
def test_an_untrusted_certificate_is_named_while_the_others_run(db, lab, broker, relay, tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, as_source(broker, broker.wrong_ca()),
                   "certificate|tls|ssl")


@case(SOURCES, "unresolvable", "name that does not resolve: the same")
def test_a_host_that_does_not_resolve_is_named_while_the_others_run(db, lab, broker, relay,
                                                                    tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, as_source(broker, broker.unresolvable()),
                   r"no-such-host\.invalid")


def as_source(broker, sink):
    """The source that is wrong as that sink is: the options in which it differs from a right one."""
    assert sink is not None, "the broker's module neither gives such a sink nor says why not"
    right = broker.sink()
    changed = {name: value for name, value in sink.items() if right.get(name) != value}
    kept = {name: value for name, value in broker.source().items()
            if name in sink or name not in right}
    return {**kept, **changed}


def neighbour_runs(db, lab, relay, tmp_path, source, pattern):
    lines = Lines(tmp_path / "neighbour.jsonl")
    make_table(db)
    lab.configure(source=source)
    set_outbox(db, "neighbour", to_file("orders", lines.path, message="row"))
    with relay:
        wait_told(relay, db, "in", pattern)
        db.execute("insert into orders select i from generate_series(1, 20) i")
        lines.wait_rows(range(1, 21))
        assert_no_secret_is_shown(relay, source)


@case(SOURCES, "back_pressure", "a database that takes nothing does not grow memory")
def test_a_database_that_takes_nothing_does_not_grow_memory(db, lab, broker, relay):
    broker.prepare_unordered()
    lab.configure(batch_bytes="1MiB")
    with relay:
        lab.wait(lab.publish(50))
        before = relay.resident_kib()
        with db.connect(autocommit=False) as blocker:
            blocker.execute(f"lock table {INBOX} in access exclusive mode")
            body = json.dumps({"x": "x" * 10_000}).encode()
            for first in range(1000, 7000, 250):  # 60 MB
                broker.publish([(f"b{n}", "k", "t", body) for n in range(first, first + 250)])
            holds_for(lambda: relay.peak_kib() - before < 45_000, 2, interval=0.1)
        eventually(lambda: lab.count() == 6050, 90 * SLOW_FACTOR, interval=0.1,
                   message=lambda: lab.story(6050))
        assert relay.peak_kib() - before < 45_000


# Steering --------------------------------------------------------------------------------------


@case(SOURCES, "hot_reload", "configuration changed while messages flow")
def test_a_changed_configuration_takes_effect_while_messages_flow(lab, relay):
    lab.configure(batch_size=20)
    with relay:
        with lab.publisher() as publisher:
            for size in (30, 40):
                publisher.more(100)
                lab.configure(batch_size=size)
            publisher.more(100)
        lab.wait(publisher.published)


@case(SOURCES, "stop_under_load", "stopped under load: clean, within the drain timeout")
def test_a_stop_under_load_is_clean(lab, relay):
    lab.configure(batch_size=100)
    with lab.publisher() as publisher:
        for _ in range(3):
            relay.start()
            publisher.more(150)
            relay.stop(deadline=30)
        relay.start()
        publisher.more(50)
    lab.wait(publisher.published)
    relay.stop()
