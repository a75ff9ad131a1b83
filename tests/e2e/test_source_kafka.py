"""The Kafka source, by the real binary against a real broker that confluent-kafka writes to."""

import base64
import json
import pathlib
import re
import time

import pytest

from support.background import Background
from support.bridges import numbers, set_bridge, wait_numbers
from support.fixtures import need
from support.inboxes import count
from support.kafka_fixtures import fresh_topic, own_kafka, shared_kafka, topic  # noqa: F401
from support.kafka_server import KafkaServer
from support.pipelines import SLOW_FACTOR, Lines
from support.postgres import REPOSITORY
from support.stuck_inbox import StuckInbox, lists_show
from support.waiting import eventually, holds_for
from support.writers import wait_trouble


def group_of(topic):
    return f"group-of-{topic}"


def set_pipeline(db, name, server, topic, path, source=None, **options):
    """A pipeline from a topic into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "kafka", "brokers": server.brokers, "topic": topic,
              "group_id": group_of(topic), **(source or {})}
    set_bridge(db, name, source, path, **options)


def numbered(count, first=0, keys=1):
    return [{"value": json.dumps({"n": n}), "key": f"k{n % keys}"}
            for n in range(first, first + count)]


class Publisher(Background):
    """Publishes {"n": 0}, {"n": 1}, ...; knows what was acknowledged."""

    def __init__(self, server, topic, keys=5):
        super().__init__()
        self._server, self._topic, self._keys = server, topic, keys
        self.published = 0

    def _run(self):
        producer = self._server.producer(**{"enable.idempotence": True})
        number = 0
        while not self._stop.is_set():
            producer.produce(self._topic, json.dumps({"n": number}), f"k{number % self._keys}",
                             on_delivery=self._delivered)
            number += 1
            producer.poll(0.001)
        producer.flush(60)

    def _delivered(self, error, _):
        assert not error, error
        self.published += 1

    def wait(self, count, deadline=60):
        eventually(lambda: self.published >= count, deadline * SLOW_FACTOR)


# What a record becomes ---------------------------------------------------------------------


def test_ids_types_keys_and_payloads_are_as_the_documentation_says(db, shared_kafka, relay, topic,
                                                                  tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path)
    now = int(time.time() * 1000)
    shared_kafka.publish(topic, [
        {"value": '{"a": 1}', "key": "k", "timestamp": now,
         "headers": {"pgtrickle-id": "own-id", "event-type": "order.created"}},
        {"value": '{"a": 2}', "timestamp": now},
        {"value": b"\x00\xff", "key": b"\xff\x00", "timestamp": now},
        {"value": None, "key": "gone", "timestamp": now},
        {"value": "a,b", "timestamp": now, "headers": {"contentType": "text/csv"}},
    ])
    with relay:
        eventually(lambda: len(lines.messages()) == 5)
    first, second, binary, tombstone, csv = lines.messages()
    assert first == {"id": "own-id", "type": "order.created", "key": "k", "payload": {"a": 1}}
    prefix = second["id"].split(":")
    assert prefix[0] == "p" and len(prefix[1]) == 22 and prefix[2:] == [topic, "0", "1", str(now)]
    assert (second["type"], second["key"]) == (topic, None)
    assert binary["key"] == "base64:/wA="
    assert base64.b64decode(binary["payload"]["raw_base64"]) == b"\x00\xff"
    assert binary["payload"]["content_type"] == "application/octet-stream"
    assert csv["payload"] == {"raw_base64": "YSxi", "content_type": "text/csv"}
    assert (tombstone["key"], tombstone["payload"]) == ("gone", None)


def test_what_becomes_id_type_and_key_may_be_mapped(db, shared_kafka, relay, topic, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path,
                 {"id_from": "json:/id", "event_type_from": "header:kind",
                  "aggregate_id_from": "template:{subject}/{key}"})
    shared_kafka.publish(topic, [{"value": '{"id": 17}', "key": "k", "headers": {"kind": "paid"}},
                                 {"value": '{"none": 1}', "key": "k"}])
    with relay:
        eventually(lambda: len(lines.messages()) == 2)
    first, second = lines.messages()
    assert (first["id"], first["type"], first["key"]) == ("17", "paid", f"{topic}/k")
    assert second["id"].startswith("p:") and second["type"] == topic


def test_an_empty_id_prefix_leaves_the_pipeline_out_of_ids(db, shared_kafka, relay, topic,
                                                          tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path, id_prefix="")
    shared_kafka.publish(topic, numbered(1))
    with relay:
        eventually(lambda: len(lines.messages()) == 1)
    assert lines.messages()[0]["id"].split(":")[1] == topic


def test_a_topic_that_is_made_again_behind_a_running_relay_is_read_from_its_start(
        db, shared_kafka, relay, topic, tmp_path):
    """At once, and with more records than the old one had: nothing looks as if it were new."""
    need(shared_kafka.real, f"a real Kafka ({shared_kafka.why_mock})")
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path)
    with relay:
        wanted = set()
        for life in range(4):
            if life > 0:
                shared_kafka.remake_topic(topic)
            new = range(100 * life, 100 * life + 3 * 2**life)
            shared_kafka.publish(topic, [{"value": json.dumps({"n": n})} for n in new])
            wanted |= set(new)
            eventually(lambda: set(numbers(lines)) == wanted, 30 * SLOW_FACTOR, interval=0.05,
                       message=lambda: f"missing {wanted - set(numbers(lines))}\n{relay.log(30)}")
            # Of a group without any commit nothing can be forgotten.
            eventually(lambda: shared_kafka.committed(group_of(topic), topic) == {0: len(new)},
                       30 * SLOW_FACTOR)


def test_ten_thousand_records_arrive_in_the_order_of_each_partition(db, shared_kafka, relay,
                                                                   tmp_path):
    topic = fresh_topic(shared_kafka, 3)
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path, batch_size=700)
    shared_kafka.publish(topic, numbered(10_000, keys=11))
    with relay:
        eventually(lambda: len(lines.messages()) >= 10_000, 60 * SLOW_FACTOR, interval=0.2)
        assert len({message["id"] for message in lines.messages()}) == 10_000
        for key in range(11):
            found = [message["payload"]["n"] for message in lines.messages()
                     if message["key"] == f"k{key}"]
            assert found == list(range(key, 10_000, 11))
        eventually(lambda: sum(shared_kafka.committed(group_of(topic), topic).values()) == 10_000)
        eventually(lambda: relay.pipeline("p")["lag"] == 0)


@pytest.mark.alone
def test_a_steady_sink_never_waits_for_the_next_fetch(db, shared_kafka, relay, topic, tmp_path):
    """Little is fetched ahead, and the library looks for room only once a second by itself."""
    output, count, rate = tmp_path / "out", 8000, 2000
    shared_kafka.publish(topic, [{"value": json.dumps({"n": n, "filler": "x" * 10000})}
                                 for n in range(count)])
    set_pipeline(db, "p", shared_kafka, topic, output, rate_limit=rate)
    with relay:
        eventually(lambda: output.exists() and output.stat().st_size > 0, 20 * SLOW_FACTOR)
        began = time.monotonic()
        wait_numbers(Lines(output), range(count), deadline=60)
        took = time.monotonic() - began
    assert took < 1.6 * SLOW_FACTOR * count / rate


def test_a_pattern_reads_every_topic_that_fits_even_a_new_one(db, shared_kafka, relay, tmp_path):
    prefix = f"pat{time.monotonic_ns()}"
    shared_kafka.create_topic(f"{prefix}-a")
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, f"^{prefix}-.*", lines.path,
                 {"rdkafka": {"topic.metadata.refresh.interval.ms": 500}})
    with relay:
        shared_kafka.publish(f"{prefix}-a", numbered(3))
        wait_numbers(lines, range(3))
        shared_kafka.create_topic(f"{prefix}-b")
        shared_kafka.publish(f"{prefix}-b", numbered(3, first=3))
        wait_numbers(lines, range(6))
        assert {message["type"] for message in lines.messages()} == {f"{prefix}-a", f"{prefix}-b"}


def test_a_group_without_an_offset_may_begin_at_the_end(db, shared_kafka, relay, topic, tmp_path):
    shared_kafka.publish(topic, numbered(5))
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path, {"auto_offset_reset": "latest"})
    with relay:
        # Only once the member has its place does "the end" mean something.
        eventually(lambda: relay.pipeline("p")["state"] in ("idle", "running"))
        def arrives():
            shared_kafka.publish(topic, numbered(1, first=5))
            return eventually(lambda: lines.messages(), 1)
        eventually(arrives, 30 * SLOW_FACTOR)
        assert set(numbers(lines)) == {5}


def test_a_record_beyond_the_limit_is_set_aside_and_the_next_ones_go_on(db, shared_kafka, relay,
                                                                       topic, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path, max_record_bytes=10_000)
    shared_kafka.publish(topic, [*numbered(1), {"value": json.dumps({"n": "x" * 20_000})},
                                 *numbered(1, first=1)])
    with relay:
        wait_numbers(lines, [0, 1])
        eventually(lambda: db.execute("select error_code from pgtrickle.relay_dlq") ==
                   [("too_large",)])
        eventually(lambda: shared_kafka.committed(group_of(topic), topic) == {0: 3})


def test_round_trip_keeps_the_outbox_ids(db, shared_kafka, relay, topic, tmp_path):
    db.execute("create table orders (id bigint primary key, name text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    db.execute("select pgtrickle.set_relay_outbox('out', config => %s::jsonb)", (json.dumps({
        "stream_table": "orders", "message": "row",
        "sink": {"type": "kafka", "brokers": shared_kafka.brokers, "topic": topic}}),))
    db.execute("select pgtrickle.enable_relay('out')")
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "back", shared_kafka, topic, lines.path)
    with relay:
        db.execute("insert into orders select i, 'x', i from generate_series(1, 500) i")
        eventually(lambda: len(lines.messages()) == 500, 30 * SLOW_FACTOR)
    assert [message["payload"]["new"]["id"] for message in lines.messages()] == list(range(1, 501))
    assert all(message["id"].startswith("out:") for message in lines.messages())
    assert [message["key"] for message in lines.messages()] == [str(i) for i in range(1, 501)]


def test_the_example_of_the_documentation_fills_an_inbox(db, shared_kafka, relay):
    page = pathlib.Path(REPOSITORY, "docs/backends/kafka.md").read_text()
    shared_kafka.create_topic("payment-events")
    shared_kafka.publish("payment-events", [*numbered(100), *numbered(1)])
    with relay:
        db.execute(re.findall(r"```sql\n(.*?)```", page, re.DOTALL)[1]
                   .replace("localhost:9092", shared_kafka.brokers))
        eventually(lambda: count(db, "pgtrickle.inbox_payment_events") == 101, 30 * SLOW_FACTOR)
        eventually(lambda: shared_kafka.committed("pgtrickle-inbox", "payment-events") == {0: 101})


# Acknowledged only when settled ------------------------------------------------------------


def test_nothing_is_committed_before_the_sink_has_it(db, shared_kafka, relay, topic, tmp_path):
    missing = tmp_path / "later" / "out"  # the file sink makes files, not directories
    set_pipeline(db, "p", shared_kafka, topic, missing)
    shared_kafka.publish(topic, numbered(100))
    with relay:
        eventually(lambda: relay.pipeline("p")["last_error"])
        # What may be committed is where it began.
        holds_for(lambda: shared_kafka.committed(group_of(topic), topic) in ({}, {0: 0}), 1)
        missing.parent.mkdir(mode=0o777)
        lines = Lines(missing)
        wait_numbers(lines, range(100), 60)
        eventually(lambda: shared_kafka.committed(group_of(topic), topic) == {0: 100})


def test_a_killed_relay_goes_on_where_it_was(db, shared_kafka, relay, tmp_path):
    topic = fresh_topic(shared_kafka, 2)
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path, batch_size=50)
    with Publisher(shared_kafka, topic) as publisher:
        relay.start()
        for level in (300, 700, 1100):
            publisher.wait(level)
            seen = len(lines.messages())
            eventually(lambda: len(lines.messages()) > seen)
            relay.kill9()
            began = time.monotonic()
            relay.start()
            seen = len(lines.messages())
            eventually(lambda: len(lines.messages()) > seen, 30 * SLOW_FACTOR)
            assert time.monotonic() - began < 12 * SLOW_FACTOR  # the old member's session is 6 s
        publisher.wait(publisher.published + 300)
    eventually(lambda: set(numbers(lines)) == set(range(publisher.published)), 60 * SLOW_FACTOR)
    for key in range(5):
        found = [n for n in dict.fromkeys(numbers(lines)) if n % 5 == key]
        assert found == sorted(found)
    relay.stop()


def test_a_clean_restart_repeats_nothing(db, shared_kafka, relay, topic, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path)
    with relay:
        shared_kafka.publish(topic, numbered(100))
        wait_numbers(lines, range(100))
    assert shared_kafka.committed(group_of(topic), topic) == {0: 100}, "a stop commits what is settled"
    with relay:
        shared_kafka.publish(topic, numbered(100, first=100))
        wait_numbers(lines, range(200))


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_partitions_that_go_to_another_member_and_come_back_lose_nothing(db, shared_kafka, relay,
                                                                        tmp_path, strategy):
    topic = fresh_topic(shared_kafka, 4)
    lines = Lines(tmp_path / "out")
    rdkafka = {"partition.assignment.strategy": strategy}
    set_pipeline(db, "p", shared_kafka, topic, lines.path, {"rdkafka": rdkafka})
    other = Lines(tmp_path / "other")
    with relay:
        with Publisher(shared_kafka, topic) as publisher:
            publisher.wait(300)
            set_pipeline(db, "q", shared_kafka, topic, other.path, {"rdkafka": rdkafka})
            eventually(lambda: len(other.messages()) > 50, 60 * SLOW_FACTOR)
            db.execute("select pgtrickle.disable_relay('q')")
            seen = len(lines.messages())
            eventually(lambda: len(lines.messages()) > seen + 200, 60 * SLOW_FACTOR)
        wanted = set(range(publisher.published))
        eventually(lambda: set(numbers(lines)) | set(numbers(other)) == wanted, 60 * SLOW_FACTOR)
        eventually(lambda: sum(shared_kafka.committed(group_of(topic), topic).values()) == len(wanted),
                   30 * SLOW_FACTOR)


# Faults ------------------------------------------------------------------------------------


def test_a_topic_that_is_absent_is_told_and_waited_for(db, shared_kafka, relay, tmp_path):
    topic = f"absent-{time.monotonic_ns()}"
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", shared_kafka, topic, lines.path,
                 {"rdkafka": {"topic.metadata.refresh.interval.ms": 500}})
    with relay:
        wait_trouble(relay, db, "p", topic, remedy="create the topic", deadline=40)
        shared_kafka.create_topic(topic)
        shared_kafka.publish(topic, numbered(10))
        wait_numbers(lines, range(10), 90)
        eventually(lambda: relay.pipeline("p")["last_error"] is None, 60 * SLOW_FACTOR)


def test_a_wrong_password_and_a_missing_right_are_told(db, relay, tmp_path):
    server = KafkaServer(sasl=("relay", "right"), acl=True).start()
    try:
        topic = fresh_topic(server)
        login = {"sasl_username": "relay", "sasl_password": "right"}
        set_pipeline(db, "wrong", server, topic, tmp_path / "a",
                     login | {"sasl_password": "no-such-secret"})
        set_pipeline(db, "denied", server, topic, tmp_path / "b", login)
        with relay:
            wait_trouble(relay, db, "wrong", "(?i)authentication", remedy="sasl_password")
            wait_trouble(relay, db, "denied", "(?i)authoriz", remedy="right", deadline=40)
            assert "no-such-secret" not in relay.log()
    finally:
        server.stop()


def test_a_stop_is_quick_while_the_broker_is_away(db, own_kafka, relay, tmp_path):
    topic = fresh_topic(own_kafka)
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", own_kafka, topic, lines.path)
    own_kafka.publish(topic, numbered(10))
    relay.start()
    wait_numbers(lines, range(10))
    own_kafka.freeze()
    began = time.monotonic()
    relay.stop()
    assert time.monotonic() - began < 15 * SLOW_FACTOR
    own_kafka.thaw()


# Behind an inbox that is locked ------------------------------------------------------------


def test_a_locked_inbox_shows_the_whole_lag_and_the_member_stays_in_its_group(db, shared_kafka,
                                                                             relay):
    """For longer than max.poll.interval.ms."""
    topic = fresh_topic(shared_kafka, 3)
    source = {"type": "kafka", "brokers": shared_kafka.brokers, "topic": topic,
              "group_id": group_of(topic), "rdkafka": {"max.poll.interval.ms": "6000"}}
    with StuckInbox(db, source) as inbox:
        with relay:
            shared_kafka.publish(topic, numbered(500, keys=7))
            eventually(lambda: inbox.count() == 500, 30 * SLOW_FACTOR)
            inbox.lock()
            shared_kafka.publish(topic, numbered(30_000, 500, keys=7))
            inbox.wait_lag(relay, 30_000)
            assert lists_show(db, 30_000)
            inbox.hold(relay, 30_000, 7)
            # Fetching has paused: what comes now is known all the same.
            shared_kafka.publish(topic, numbered(100, 30_500, keys=7))
            inbox.wait_lag(relay, 30_100)
            inbox.unlock()
            inbox.wait_all(relay, 30_600)
            inbox.assert_read_once(relay, 30_600)


def test_the_marks_of_transactions_are_no_lag(db, shared_kafka, relay, topic):
    producer = shared_kafka.producer(**{"transactional.id": topic})
    producer.init_transactions(30)
    for first in (0, 10):
        producer.begin_transaction()
        for message in numbered(10, first):
            producer.produce(topic, **message)
        producer.commit_transaction(30)
    source = {"type": "kafka", "brokers": shared_kafka.brokers, "topic": topic,
              "group_id": group_of(topic)}
    with StuckInbox(db, source) as inbox, relay:
        inbox.wait_all(relay, 20)
