"""The NATS JetStream source, by the real binary against a real server."""

import base64
import json
import pathlib
import re
import time

import pytest

from support.background import Background
from support.bridges import set_bridge, wait_numbers
from support.inboxes import count
from support.nats_client import NatsError
from support.nats_server import NatsServer
from support.nats_tool import add_stream
from support.pipelines import SLOW_FACTOR, Lines
from support.postgres import REPOSITORY
from support.relay import run_command
from support.stuck_inbox import StuckInbox, lists_show
from support.waiting import eventually, holds_for
from support.writers import wait_trouble


@pytest.fixture
def stream(nats):
    """A stream `s` over in.>, and a client for it."""
    with nats.client() as client:
        client.create_stream("s", "in.>")
        yield client


def set_pipeline(db, name, server, path, source=None, **options):
    """A pipeline from the stream `s` into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "nats", "url": server.url, "stream": "s", "consumer": "c",
              "ack_wait": "2s", **(source or {})}
    set_bridge(db, name, source, path, **options)


def publish(client, first, count, subject="in.x", ids=False):
    for number in range(first, first + count):
        headers = {"Nats-Msg-Id": f"id-{number}"} if ids else None
        client.publish_acknowledged(subject, json.dumps({"n": number}).encode(), headers)


def consumer(client, name="c"):
    try:
        return client._api(f"CONSUMER.INFO.s.{name}")
    except NatsError as error:
        raise LookupError(str(error)) from error  # not made yet


def unsettled(client):
    info = consumer(client)
    return info["num_pending"] + info["num_ack_pending"]


class Publisher(Background):
    """Publishes {"n": 0}, {"n": 1}, ..., each until it is acknowledged."""

    def __init__(self, server):
        super().__init__()
        self._server = server
        self.published = 0

    def _run(self):
        client = None
        while not self._stop.is_set():
            try:
                client = client or self._server.client()
                publish(client, self.published, 1, ids=True)
                self.published += 1
            except Exception:  # the server is away: once more, with the same id
                client = None
                self._stop.wait(0.05)

    def wait(self, count, deadline=60):
        eventually(lambda: self.published >= count, deadline * SLOW_FACTOR)


# What a message becomes --------------------------------------------------------------------


def test_ids_types_and_payloads_are_as_the_documentation_says(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path)
    stream.publish_acknowledged("in.orders", b'{"a": 1}', {"Nats-Msg-Id": "own-id"})
    stream.publish_acknowledged("in.other", b'{"a": 2}')
    stream.publish_acknowledged("in.other", b"\x00\xff", {"a": "1"})
    stream.publish_acknowledged("in.other", b"a,b", {"a": "1", "Content-Type": "text/csv"})
    with relay:
        eventually(lambda: len(lines.messages()) == 4)
    first, second, binary, csv = lines.messages()
    pipeline, name, created, sequence = second["id"].split(":")
    assert (pipeline, name, sequence) == ("p", "s", "2") and int(created) > 1_600_000_000 * 10**9
    assert first == {"id": f"p:s:{created}:id:own-id", "type": "in.orders", "key": None,
                     "payload": {"a": 1}}
    assert base64.b64decode(binary["payload"]["raw_base64"]) == b"\x00\xff"
    assert binary["payload"]["content_type"] == "application/octet-stream"
    assert csv["payload"] == {"raw_base64": "YSxi", "content_type": "text/csv"}


def test_what_becomes_id_type_and_key_may_be_mapped(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path,
                 {"id_from": "json:/id", "event_type_from": "header:kind",
                  "aggregate_id_from": "template:{subject}/{json:/id}"})
    stream.publish_acknowledged("in.a", b'{"id": 17}', {"kind": "paid"})
    with relay:
        eventually(lambda: len(lines.messages()) == 1)
    assert lines.messages()[0] == {"id": "17", "type": "paid", "key": "in.a/17",
                                   "payload": {"id": 17}}


def test_ten_thousand_messages_arrive_in_order(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, batch_size=700)
    for number in range(10_000):
        stream.publish("in.x", json.dumps({"n": number}))
    stream.flush()
    eventually(lambda: stream.count("s") == 10_000, 30 * SLOW_FACTOR)
    with relay:
        wait_numbers(lines, range(10_000), 60)
        eventually(lambda: unsettled(stream) == 0)
        eventually(lambda: relay.pipeline("p")["lag"] == 0)


def test_a_message_does_not_wait_for_others(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path)
    publish(stream, 0, 1)
    with relay:
        wait_numbers(lines, [0])
        for number in range(1, 6):
            began = time.monotonic()
            publish(stream, number, 1)
            wait_numbers(lines, range(number + 1))
            assert time.monotonic() - began < 1 * SLOW_FACTOR


def test_a_filter_lets_only_its_subjects_pass(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, {"subject": "in.wanted.>"})
    publish(stream, 0, 1, "in.wanted.a")
    publish(stream, 1, 1, "in.other")
    publish(stream, 2, 1, "in.wanted.b")
    with relay:
        wait_numbers(lines, [0, 2])
        assert consumer(stream)["config"]["filter_subject"] == "in.wanted.>"


def test_a_message_larger_than_a_batch_arrives(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, batch_bytes="64KiB")
    publish(stream, 0, 1)
    stream.publish_acknowledged("in.x", json.dumps({"n": 1, "x": "y" * 500_000}).encode())
    publish(stream, 2, 1)
    with relay:
        wait_numbers(lines, range(3))


def test_round_trip_keeps_the_outbox_ids(db, nats, relay, stream, tmp_path):
    db.execute("create table orders (id bigint primary key, name text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    db.execute("select pgtrickle.set_relay_outbox('out', config => %s::jsonb)", (json.dumps({
        "stream_table": "orders", "message": "row",
        "sink": {"type": "nats", "url": nats.url, "subject": "in.orders"}}),))
    db.execute("select pgtrickle.enable_relay('out')")
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "back", nats, lines.path)
    with relay:
        db.execute("insert into orders select i, 'x', i from generate_series(1, 500) i")
        eventually(lambda: len(lines.messages()) == 500, 30 * SLOW_FACTOR)
    assert [message["payload"]["new"]["id"] for message in lines.messages()] == list(range(1, 501))
    assert all(message["id"].startswith("out:") for message in lines.messages())


def test_the_example_of_the_documentation_fills_an_inbox(db, nats, relay):
    page = pathlib.Path(REPOSITORY, "docs/backends/nats.md").read_text()
    with relay, nats.client() as client:
        db.execute(re.findall(r"```sql\n(.*?)```", page, re.DOTALL)[1]
                   .replace("nats://localhost:4222", nats.url))
        relay.wait_healthy(pipelines=1)
        eventually(lambda: "commands" in (client._api("STREAM.NAMES")["streams"] or []))
        for number in range(100):
            client.publish_acknowledged("commands.x", json.dumps({"n": number}).encode())
        eventually(lambda: count(db, "pgtrickle.inbox_commands") == 100, 30 * SLOW_FACTOR)


def test_a_stream_is_made_where_the_source_is_told_to(db, nats, relay, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, {"stream": "made", "create_stream": True})
    set_pipeline(db, "q", nats, tmp_path / "q", {"stream": "other", "create_stream": True,
                                                 "subject": "other.x.*", "consumer": "d"})
    set_pipeline(db, "r", nats, tmp_path / "r", {"stream": "third", "create_stream": True,
                                                 "stream_subjects": ["third", "3.>"]})
    with nats.client() as client:
        assert run_command("check", "--postgres-url", db.relay_dsn).returncode == 0
        assert client._api("STREAM.NAMES")["total"] == 0, "check makes none"
        with relay:
            relay.wait_healthy(pipelines=3)
            eventually(lambda: client._api("STREAM.NAMES")["total"] == 3)
            assert [client.stream_info(name)["config"]["subjects"]
                    for name in ("made", "other", "third")] \
                == [["made.>"], ["other.x.*"], ["third", "3.>"]]
            publish(client, 0, 3, "made.x")
            wait_numbers(lines, range(3))


def test_a_stream_that_is_absent_is_an_error_with_the_command_that_makes_it(
        db, nats, relay, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, {"stream": "absent"})
    set_pipeline(db, "q", nats, tmp_path / "q", {"stream": "it;s", "subject": "a.'b'.>"})
    with relay, nats.client() as client:
        wait_trouble(relay, db, "p", "no stream 'absent'", remedy="nats stream add absent ")
        wait_trouble(relay, db, "q", "no stream 'it;s'", remedy="nats stream add 'it;s' ")
        assert add_stream(client, relay.pipeline("q")["remedy"], nats) == ("it;s", ["a.'b'.>"])
        assert add_stream(client, relay.pipeline("p")["remedy"], nats) == ("absent", ["absent.>"])
        publish(client, 0, 3, "absent.x")
        db.execute("select pgtrickle.pause_relay('p')")
        db.execute("select pgtrickle.resume_relay('p')")  # else it looks again within 30 seconds
        wait_numbers(lines, range(3))


# Acknowledged only when settled ------------------------------------------------------------


def test_nothing_is_acknowledged_before_the_sink_has_it_and_nothing_comes_twice_meanwhile(
        db, nats, relay, stream, tmp_path):
    missing = tmp_path / "later" / "out"  # the file sink makes files, not directories
    set_pipeline(db, "p", nats, missing)
    publish(stream, 0, 100)
    with relay:
        eventually(lambda: relay.pipeline("p")["last_error"])
        eventually(lambda: consumer(stream)["num_ack_pending"] == 100)
        # Twice the time after which messages would come again, were they not in work.
        holds_for(lambda: consumer(stream)["ack_floor"]["stream_seq"] == 0, 4 * SLOW_FACTOR)
        assert consumer(stream)["num_redelivered"] == 0
        missing.parent.mkdir(mode=0o777)
        wait_numbers(Lines(missing), range(100), 60)
        eventually(lambda: unsettled(stream) == 0)


def test_a_clean_restart_repeats_nothing_and_waits_for_nothing(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path, {"ack_wait": "1h"})
    with Publisher(nats) as publisher:
        for _ in range(4):
            with relay:
                publisher.wait(publisher.published + 100)
    with relay:
        wait_numbers(lines, range(publisher.published), 30, once=False, in_order=False)
    assert len({message["id"] for message in lines.messages()}) == len(lines.messages())


# Faults ------------------------------------------------------------------------------------


def test_a_deleted_consumer_is_made_again(db, nats, relay, stream, tmp_path):
    lines = Lines(tmp_path / "out")
    set_pipeline(db, "p", nats, lines.path)
    publish(stream, 0, 10)
    with relay:
        wait_numbers(lines, range(10))
        stream._api("CONSUMER.DELETE.s.c")
        publish(stream, 10, 10)
        wait_numbers(lines, range(20), 60, once=False, in_order=False)


def test_what_cannot_be_right_is_told(db, nats, relay, stream, tmp_path):
    stream._api("CONSUMER.DURABLE.CREATE.s.push", {"stream_name": "s", "config": {
        "durable_name": "push", "deliver_subject": "somewhere", "ack_policy": "explicit"}})
    set_pipeline(db, "push", nats, tmp_path / "a", {"consumer": "push"})
    set_pipeline(db, "absent", nats, tmp_path / "b", {"stream": "no-such"})
    server = NatsServer(user="u", password="right").start()
    try:
        set_pipeline(db, "wrong", server, tmp_path / "c",
                     {"user": "u", "password": "no-such-secret"})
        with relay:
            wait_trouble(relay, db, "push", "pushes its messages")
            wait_trouble(relay, db, "absent", "no stream 'no-such'", remedy="nats stream add no-such")
            wait_trouble(relay, db, "wrong", "refuses the credentials", remedy="password")
            assert "no-such-secret" not in relay.log()
    finally:
        server.stop()


def test_the_end_of_max_deliver_is_told_in_the_log(db, nats, relay, stream, tmp_path):
    missing = tmp_path / "later" / "out"
    set_pipeline(db, "p", nats, missing, {"max_deliver": 1, "ack_wait": "2s"})
    publish(stream, 0, 1)
    relay.start()
    eventually(lambda: consumer(stream)["num_ack_pending"] == 1)
    relay.kill9()  # what it had in work is never delivered again
    relay.start()
    eventually(lambda: "max_deliver_reached" in relay.log(), 20 * SLOW_FACTOR)
    relay.stop()


# Behind an inbox that is locked ------------------------------------------------------------


def publish_many(client, first, count):
    for number in range(first, first + count):
        client.publish("in.x", json.dumps({"n": number}))
    client.flush()


def test_a_locked_inbox_shows_the_whole_lag_and_costs_no_delivery(db, nats, relay, stream):
    """Several times ack_wait, with a consumer that delivers each message once at most."""
    stream._api("CONSUMER.DURABLE.CREATE.s.c", {"stream_name": "s", "config": {
        "durable_name": "c", "ack_policy": "explicit", "ack_wait": 10**9, "max_deliver": 1,
        "max_ack_pending": 20000}})
    source = {"type": "nats", "url": nats.url, "stream": "s", "consumer": "c", "ack_wait": "1s"}
    with StuckInbox(db, source) as inbox:
        with relay:
            assert "max_deliver" in eventually(lambda: relay.log() if "of the consumer to -1"
                                               in relay.log() else "")
            publish_many(stream, 0, 500)
            eventually(lambda: inbox.count() == 500)
            inbox.lock()
            publish_many(stream, 500, 30_000)
            inbox.wait_lag(relay, 30_000)
            assert lists_show(db, 30_000)
            inbox.hold(relay, 30_000, 3)
            delivered = consumer(stream)["delivered"]
            assert delivered["consumer_seq"] == delivered["stream_seq"] > 500
            inbox.unlock()
            inbox.wait_all(relay, 30_500)
            inbox.assert_read_once(relay, 30_500)
            assert "max_deliver_reached" not in relay.log()


def test_what_waits_is_kept_in_work_over_another_connection(db, nats, relay, stream):
    """A locked inbox, and a server that goes away and comes back meanwhile."""
    source = {"type": "nats", "url": nats.url, "stream": "s", "consumer": "c", "ack_wait": "1s"}
    with StuckInbox(db, source) as inbox:
        inbox.lock()
        publish_many(stream, 0, 300)
        with relay:
            inbox.wait_lag(relay, 300)
            nats.kill9()
            inbox.wait_lag(relay, None)
            nats.start()
            inbox.wait_lag(relay, 300)
            with nats.client() as client:
                again = consumer(client)["num_redelivered"]
                inbox.hold(relay, 300, 2.5)
                assert consumer(client)["num_redelivered"] == again
            inbox.unlock()
            inbox.wait_all(relay, 300)


def test_a_stop_behind_a_locked_inbox_counts_few_deliveries(db, nats, start_relay, stream):
    """What a relay has read and not stored when it stops counts as delivered."""
    source = {"type": "nats", "url": nats.url, "stream": "s", "consumer": "c", "fetch": 100}
    with StuckInbox(db, source) as inbox:
        inbox.lock()
        publish_many(stream, 0, 3000)
        with start_relay(db.relay_dsn, drain_timeout="500ms") as relay:
            inbox.wait_lag(relay, 3000)
        assert 0 < consumer(stream)["delivered"]["stream_seq"] <= 400
        inbox.unlock()
        with start_relay(db.relay_dsn) as relay:
            inbox.wait_all(relay, 3000)
