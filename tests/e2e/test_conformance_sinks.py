"""Every sink, the same cases: what a broker of any kind may expect of the relay.

A broker is described by its module in conformance/; see conformance/base.py. The order of the tests
is broker by broker, so that each server starts once."""

import json
import random
import re
import time
from decimal import Decimal

import psycopg
import pytest

from conformance.lab import FailingBroker, assert_no_secret_is_shown, wait_told
from conformance.suite import SINKS, case, note, parametrize, start
from support.background import Background
from support.pipelines import (LONG, SLOW_FACTOR, Lines, make_table, new_rows, position,
                               positions_gone_back, set_outbox, status_row, to_file, wait_settled,
                               watch_positions)
from support.proxy import DOWN, UP
from support.relay import run_command
from support.waiting import eventually
from support.writers import dead_letters

KEYS = 7
MOST_TRIES = 15 if LONG else 3  # how often the relay tries in vain while a killed broker is away


def pytest_generate_tests(metafunc):
    parametrize(metafunc)


@pytest.fixture(scope="module")
def broker(request):
    running = start(request.param, SINKS)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _noted(request, broker, record_property):
    note(request.node, broker, record_property)


class Writer(Background):
    """Commits rows (id, name, id modulo KEYS), one a transaction."""

    PAUSE = 0.002

    def __init__(self, db, first=1):
        super().__init__()
        self._db = db
        self.committed = first - 1

    def _run(self):
        with self._db.connect() as connection:
            while not self._stop.wait(self.PAUSE):
                number = self.committed + 1
                connection.execute("insert into orders values (%s, 'w', %s)",
                                   (number, number % KEYS))
                self.committed = number

    def more(self, count, deadline=60):
        """Waits until that many more rows are committed."""
        target = self.committed + count
        eventually(lambda: self.committed >= target, deadline * SLOW_FACTOR)


class Lab(FailingBroker):
    """A table with an outbox, a pipeline `p` from it to the broker, and what arrived there."""

    def __init__(self, db, broker):
        self.db, self.broker = db, broker

    # Configuring -------------------------------------------------------------------------------

    def configure(self, through=None, name="p", **options):
        """A pipeline with a message for each row and the key `amount`, into `through` or the
        broker's own sink, with what `options["sink"]` changes of it."""
        config = {"stream_table": "orders", "message": "row", "key_template": "{{ amount }}",
                  "retry": {"min": "50ms", "max": "1s"}, **options}
        config["sink"] = {**(through or self.broker.sink()), **options.get("sink", {})}
        set_outbox(self.db, name, config)

    def insert(self, first, count):
        """Rows in one statement."""
        self.db.execute("insert into orders select i, 'row', i %% %s"
                        " from generate_series(%s::bigint, %s::bigint) i",
                        (KEYS, first, first + count - 1))

    def writer(self, first=1):
        return Writer(self.db, first)

    # What arrived ------------------------------------------------------------------------------

    def rows(self):
        """(id, key) of the rows that arrived, in the broker's order."""
        return [(row["id"], row["amount"]) for message in self.broker.received()
                for row in new_rows(json.loads(message.body))]

    def wait_rows(self, wanted, exact=False, deadline=60, settled=True):
        """Waits until all of these rows have arrived, and checks what must hold then: nothing else
        arrived, the first deliveries of each key are in order, and, where that is promised, nothing
        arrived twice."""
        wanted = list(wanted)
        found = []

        def complete():
            nonlocal found
            if self.broker.count() < len(wanted):
                return False
            found = self.rows()
            return set(wanted) <= {identity for identity, _ in found}
        eventually(complete, deadline * SLOW_FACTOR, interval=0.1, message=lambda: self.story(
            wanted))
        if settled:
            wait_settled(self.db, "p", "orders")
            found = self.rows()
        assert {identity for identity, _ in found} == set(wanted), "what was never committed arrived"
        if self.broker.ordered:
            for key in range(KEYS):
                first = list(dict.fromkeys(i for i, k in found if int(k) == key))
                assert first == sorted(first), f"the order of key {key}"
        if exact or self.broker.deduplicates:
            assert len(found) == len(wanted), "something arrived twice"
        assert self.dead_letters() == []

    def wait_tries(self, relay, count):
        """Waits until that many tries have failed. A server that cannot be reached is tried again
        after 2 seconds at the latest, however often that was in vain."""
        seen = set()

        def tried():
            seen.add(relay.metric("delivery_errors_total", pipeline="p"))
            return len(seen) > count
        eventually(tried, (10 + 5 * count) * SLOW_FACTOR,
                   message=lambda: f"{sorted(seen)}; {status_row(self.db, 'p')}")

    def seconds_to_the_next_message(self):
        back, arrived = time.monotonic(), self.broker.count()
        eventually(lambda: self.broker.count() > arrived, 60 * SLOW_FACTOR,
                   message=lambda: f"{status_row(self.db, 'p')}; {self.broker.log()[-1500:]}")
        return time.monotonic() - back

    def story(self, wanted):
        found = {identity for identity, _ in self.rows()}
        missing = sorted(set(wanted) - found)
        return (f"{len(found)} of {len(wanted)} rows arrived, missing {missing[:5]}...; status "
                f"{status_row(self.db, 'p')}; broker: {self.broker.log()[-1500:]}")

    def dead_letters(self):
        return dead_letters(self.db, "p")

    def wait_trouble(self, relay, pipeline, pattern):
        """Waits until health, the database and the log name the trouble, with a remedy."""
        wait_told(relay, self.db, pipeline, pattern)
        eventually(lambda: any(pipeline in line and re.search(pattern, line, re.IGNORECASE)
                               for line in relay.log_lines), 30 * SLOW_FACTOR,
                   message=lambda: f"the log says nothing of it: {relay.log(40)}")


@pytest.fixture
def lab(db, broker):
    make_table(db)
    lab = Lab(db, broker.fresh())
    yield lab
    lab.make_good()


# What arrives ----------------------------------------------------------------------------------


@case(SINKS, "delivers_all", "delivers all, in order per key, with id and headers")
def test_delivers_all_in_order_with_id_and_headers(db, lab, broker, relay):
    lab.configure(headers={"source-system": "shop"})
    with relay:
        for first in range(1, 201, 10):
            lab.insert(first, 10)
        lab.wait_rows(range(1, 201), exact=True)
    found = broker.received()
    assert len({message.id for message in found}) == 200
    for message in found:
        body = json.loads(message.body)
        assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:\d+\.[0-9a-f]{4}", message.id)
        assert message.id == body["metadata"]["id"]
        if broker.has_key:
            assert message.key == str(body["new"]["amount"])
        if broker.has_headers:
            wanted = {"pgtrickle-op": "insert", "pgtrickle-stream-table": "orders",
                      "pgtrickle-outbox-id": str(body["sequence"]), "source-system": "shop",
                      "pgtrickle-id": message.id}
            got = {name.lower(): text for name, text in message.headers.items()}
            assert {name: got.get(name) for name in wanted} == wanted
            assert "pgtrickle-full-refresh" not in got


@case(SINKS, "body_exact", "bodies are exact: unicode, numbers of 40 digits, the largest ones")
def test_bodies_are_exact(db, lab, broker, relay):
    db.execute("select pgtrickle.create_outbox('events')")
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t / \\u0001"}', '[]', '"plain"', '0.10', 'null',
             '{"deep": [[[[[{"a": {"b": [1, 2.50, true, null]}}]]]]]}',
             json.dumps({"large": "x" * (broker.max_body - 20)})]
    lab.configure(stream_table="events", key_template="one")
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        with pytest.raises(psycopg.errors.UntranslatableCharacter):
            db.execute("select pgtrickle.publish('events', %s::jsonb)", ('{"t": "\\u0000"}',))
        eventually(lambda: broker.count() >= len(texts), 30 * SLOW_FACTOR,
                   message=lambda: f"{broker.count()}; {status_row(db, 'p')}")
    stored = [db.one("select %s::jsonb::text", (text,)) for text in texts]
    found = [message.body for message in broker.received()]
    if not broker.ordered:
        stored, found = sorted(stored), sorted(found)
    if broker.raw_body:
        assert found == [text.encode() for text in stored]
    else:
        def exact(text):
            return json.loads(text, parse_float=Decimal, parse_int=Decimal)
        assert [exact(body) for body in found] == [exact(text) for text in stored]
    assert lab.dead_letters() == []


@case(SINKS, "ten_thousand", "10,000 messages across batch borders")
def test_ten_thousand_messages_across_batch_borders(db, lab, relay):
    lab.configure(batch_size=700)
    with relay:
        for first in range(1, 10_001, 500):
            lab.insert(first, 500)
        lab.wait_rows(range(1, 10_001), exact=True, deadline=120)
        eventually(lambda: relay.metric("messages_delivered_total", pipeline="p") == 10_000)


@case(SINKS, "large_batches", "messages of many sizes in one batch")
def test_messages_of_many_sizes_in_one_batch(db, lab, broker, relay):
    sizes = [1, 100, 10_000, 60_000, min(broker.max_body - 2_000, 200_000)] * 10
    lab.configure()
    with relay:
        with db.connect() as connection:
            with connection.transaction():
                for identity, size in enumerate(sizes, 1):
                    connection.execute("insert into orders values (%s, repeat('x', %s), %s)",
                                       (identity, size, identity % KEYS))
        lab.wait_rows(range(1, len(sizes) + 1), exact=True)
    names = {row["id"]: row["name"] for message in broker.received()
             for row in new_rows(json.loads(message.body))}
    assert [len(names[identity]) for identity in range(1, len(sizes) + 1)] == sizes


# Faults ----------------------------------------------------------------------------------------


@case(SINKS, "relay_restarted", "relay stopped and killed with -9 in mid-stream: nothing lost")
def test_the_relay_restarted_and_killed_in_mid_stream(db, lab, relay):
    lab.configure(batch_size=50)
    with lab.writer() as writer:
        relay.start()
        for end in (relay.stop, relay.kill9, relay.stop, relay.kill9):
            writer.more(150)
            end()
            relay.start()
        writer.more(100)
    lab.wait_rows(range(1, writer.committed + 1))
    relay.stop()


@case(SINKS, "broker_killed", "broker killed with -9 and started again: nothing lost, order kept, "
                              "no dead letter",
      sanitizer=("nats", "rabbitmq", "redis", "webhook"))
@pytest.mark.timeout(900 if LONG else 300)
def test_the_broker_killed_and_started_again(db, lab, broker, relay):
    """With the retry settings that a pipeline has when it names none."""
    chance = random.Random(7)
    broker.prepare_durable()
    watch_positions(db)
    lab.configure(retry={})
    recoveries = []
    with relay:
        with lab.writer() as writer:
            for number in range(10 if LONG else 2):
                writer.more(150)
                lab.kill()
                # The first absence is the longest; the lengths of the others are chance.
                lab.wait_tries(relay, MOST_TRIES if number == 0 else chance.randint(1, MOST_TRIES))
                lab.revive()
                recoveries.append(lab.seconds_to_the_next_message())
            writer.more(100)
        lab.wait_rows(range(1, writer.committed + 1), deadline=90)
        relay.wait_healthy()
    assert positions_gone_back(db) == []
    # Other tests run beside this one: one recovery shows what the retries are capable of, all of
    # them that none waits for something long.
    assert min(recoveries) <= 3 * SLOW_FACTOR and max(recoveries) <= 15 * SLOW_FACTOR, recoveries


@case(SINKS, "broker_frozen", "broker frozen (SIGSTOP) and thawed: the same, and told in health")
def test_the_broker_frozen_and_thawed(db, lab, relay):
    lab.configure()
    with relay:
        with lab.writer() as writer:
            writer.more(150)
            lab.freeze()
            relay.wait_state("p", "retrying", deadline=45 * SLOW_FACTOR)
            lab.thaw()
            writer.more(100)
        lab.wait_rows(range(1, writer.committed + 1), deadline=90)
        relay.wait_healthy()


@case(SINKS, "connection_cut", "connection cut after N bytes, either way")
def test_the_connection_cut_after_any_number_of_bytes(db, lab, broker, relay):
    with broker.proxy() as proxy:
        lab.configure(through=broker.sink(port=proxy.port))
        with relay:
            with lab.writer() as writer:
                writer.more(50)
                for direction, cut in ((UP, 1), (UP, 5_000), (UP, 33_333), (DOWN, 1), (DOWN, 700)):
                    proxy.cut_after(cut, direction)
                    eventually(lambda: not proxy.cut_is_pending(), 60 * SLOW_FACTOR,
                               message=lambda: f"no {cut} bytes went {direction}")
                    writer.more(30)
            lab.wait_rows(range(1, writer.committed + 1), deadline=90)


@case(SINKS, "authentication_refused", "authentication refused: a clear error, the others run")
def test_refused_authentication_is_named_while_the_others_run(db, lab, broker, relay, tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, broker.wrong_credentials(),
                   "auth|password|credential|token|denied|refused|access|permi|forbidden|40[13]")


@case(SINKS, "wrong_ca", "TLS with a wrong CA: the same")
def test_an_untrusted_certificate_is_named_while_the_others_run(db, lab, broker, relay, tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, broker.wrong_ca(), "certificate|tls|ssl")


@case(SINKS, "unresolvable", "name that does not resolve: the same")
def test_a_host_that_does_not_resolve_is_named_while_the_others_run(db, lab, broker, relay,
                                                                    tmp_path):
    neighbour_runs(db, lab, relay, tmp_path, broker.unresolvable(), r"no-such-host\.invalid")


def neighbour_runs(db, lab, relay, tmp_path, sink, pattern):
    assert sink is not None, "the broker's module neither gives such a sink nor says why not"
    lines = Lines(tmp_path / "neighbour.jsonl")
    lab.configure(through=sink)
    set_outbox(db, "neighbour", to_file("orders", lines.path, message="row"))
    with relay:
        lab.insert(1, 20)
        lab.wait_trouble(relay, "p", pattern)
        lines.wait_rows(range(1, 21))
        assert relay.pipeline("neighbour")["state"] in ("running", "idle")
        status, health = relay.health()
        assert status == 200 and health["status"] == "degraded"
        assert_no_secret_is_shown(relay, sink)
    assert lab.dead_letters() == [], "a connection problem is no message's fault"


@case(SINKS, "poison", "poison among 10,000: exactly that one in the dead letters, neighbours "
                       "delivered, retry works when the cause is gone and moves no position")
def test_exactly_the_poisonous_message_is_set_aside(db, lab, broker, relay):
    lab.configure(**broker.refuse())
    with relay:
        lab.insert(1, 5)
        with db.connect() as connection, connection.transaction():
            connection.execute("insert into orders values (6, 'before', 6), (7, %s, 0), "
                               "(8, 'after', 1)", (broker.poison,))
        for first in range(9, 10_001, 999):
            lab.insert(first, min(999, 10_001 - first))
        wanted = {*range(1, 7), *range(8, 10_001)}
        eventually(lambda: {i for i, _ in lab.rows()} == wanted, 120 * SLOW_FACTOR, interval=0.1,
                   message=lambda: lab.story(wanted))
        letters = eventually(lab.dead_letters, 20 * SLOW_FACTOR)
        assert len(letters) == 1
        letter, code, message, payload = letters[0]
        assert code == broker.refusal[0] and broker.refusal[1] in message
        assert [row["id"] for row in new_rows(json.loads(payload))] == [7]
        wait_settled(db, "p", "orders")
        settled = position(db, "p")
        options = broker.cure()
        lab.configure(**options)
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        eventually(lambda: {i for i, _ in lab.rows()} == wanted | {7}, 60 * SLOW_FACTOR,
                   interval=0.1, message=lambda: lab.story(wanted | {7}))
        eventually(lambda: lab.dead_letters() == [], 20 * SLOW_FACTOR)
        assert position(db, "p") == settled


@case(SINKS, "all_rejected", "every message rejected: degraded in health and status, and well again "
                             "after one that is delivered")
def test_a_pipeline_whose_every_message_is_rejected_is_degraded(db, lab, broker, relay):
    def told():
        """What health says, and whether `status` shows the trouble."""
        health = relay.health()[1]
        shown = run_command("status", "--json", "--postgres-url", db.relay_dsn).stdout
        return (health["status"], [cause["code"] for cause in health["pipelines"][0].get("causes", ())],
                "was rejected, 6 of them" in shown)
    lab.configure(**broker.refuse())
    with relay:
        for identity in range(1, 7):
            db.execute("insert into orders values (%s, %s, %s)",
                       (identity, broker.poison, identity))
        eventually(lambda: len(lab.dead_letters()) == 6, 60 * SLOW_FACTOR,
                   message=lambda: lab.story([]))
        assert {code for _, code, _, _ in lab.dead_letters()} == {broker.refusal[0]}
        eventually(lambda: told() == ("degraded", ["all_rejected"], True), 30 * SLOW_FACTOR,
                   interval=0.5, message=lambda: f"{told()} {relay.health()[1]}")
        lab.insert(7, 1)
        eventually(lambda: {i for i, _ in lab.rows()} == {7}, 60 * SLOW_FACTOR, interval=0.1,
                   message=lambda: lab.story([7]))
        eventually(lambda: told() == ("healthy", [], False), 30 * SLOW_FACTOR, interval=0.5,
                   message=lambda: f"{told()} {relay.health()[1]}")


@case(SINKS, "back_pressure", "a sink that takes few messages a second does not grow memory")
def test_a_slow_broker_does_not_grow_memory(db, lab, broker, relay):
    with broker.proxy() as proxy:
        lab.configure(through=broker.sink(port=proxy.port), batch_bytes="1MiB")
        with relay:
            lab.insert(1, 100)
            lab.wait_rows(range(1, 101))
            before = relay.resident_kib()
            proxy.slow(20_000)
            forwarded = proxy.forwarded[UP]
            for first in range(1001, 61_000, 3_000):  # about 30 MB of messages
                db.execute("insert into orders select i, repeat('x', 300), i %% 7"
                           " from generate_series(%s::int, %s::int) i", (first, first + 2_999))
            eventually(lambda: proxy.forwarded[UP] > forwarded + 20_000, 30 * SLOW_FACTOR)
            assert relay.peak_kib() - before < 25_000
            assert relay.pipeline("p")["lag"] > 0
            db.execute("select pgtrickle.disable_relay('p')")
            proxy.restore()


# Steering --------------------------------------------------------------------------------------


@case(SINKS, "hot_reload", "configuration changed while messages flow")
def test_a_changed_configuration_takes_effect_while_messages_flow(db, lab, broker, relay):
    lab.configure(batch_size=20)
    with relay:
        with lab.writer() as writer:
            writer.more(100)
            lab.configure(batch_size=20, columns=["amount"])

            def changed():
                found = broker.received()
                return found and "name" not in json.loads(found[-1].body)["new"]
            eventually(changed, 30 * SLOW_FACTOR, interval=0.1)
            writer.more(100)
        lab.wait_rows(range(1, writer.committed + 1))


@case(SINKS, "stop_under_load", "stopped under load: clean, within the drain timeout, no duplicate "
                                "where the broker deduplicates")
def test_a_stop_under_load_is_clean(db, lab, relay):
    lab.configure(batch_size=100)
    with lab.writer() as writer:
        for _ in range(3):
            relay.start()
            writer.more(150)
            relay.stop(deadline=30)  # --drain-timeout's default; the exit code must be 0
        relay.start()
        writer.more(50)
    lab.wait_rows(range(1, writer.committed + 1))
    relay.stop()
