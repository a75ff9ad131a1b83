"""The SQS source, by the real binary against ElasticMQ, to which boto3 writes."""

import base64
import json
import time

import pytest

from support.bridges import set_bridge
from support.pipelines import SLOW_FACTOR, Lines
from support.sqs_fixtures import queue_name, server, sqs  # noqa: F401
from support.sqs_server import KEYS, REGION
from support.stuck_inbox import StuckInbox, lists_show
from support.waiting import eventually, holds_for
from support.writers import wait_trouble


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


@pytest.fixture
def queue(sqs):
    return sqs.queue(queue_name(), VisibilityTimeout=5)


@pytest.fixture
def fifo(sqs):
    return sqs.queue(queue_name(".fifo"), VisibilityTimeout=5)


def set_pipeline(db, name, sqs, url, path, source=None, port=None, **options):
    """A pipeline from the queue into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "sqs", "queue_url": url, "region": REGION, "timeout": "3s",
              "endpoint": f"http://127.0.0.1:{port or sqs.relay_port}", "wait": "1s",
              "visibility_timeout": "5s", **KEYS, **(source or {})}
    set_bridge(db, name, source, path, **options)


def send(sqs, url, body, attributes=None, **more):
    return sqs.client().send_message(
        QueueUrl=url, MessageBody=body, **more, MessageAttributes={
            name: {"DataType": "String", "StringValue": value}
            for name, value in (attributes or {}).items()})["MessageId"]


def wait_lines(lines, count, deadline=20):
    eventually(lambda: len(lines.messages()) >= count, deadline * SLOW_FACTOR,
               message=lambda: f"{len(lines.messages())} lines of {count}")
    return lines.messages()


def wait_deleted(sqs, url):
    eventually(lambda: sqs.count(url) == 0, 15 * SLOW_FACTOR)


@pytest.mark.sanitizer
def test_ids_types_and_payloads_are_what_the_documentation_says(db, sqs, queue, relay, lines):
    set_pipeline(db, "p", sqs, queue, lines.path, {"aggregate_id_from": "header:customer"})
    identity = send(sqs, queue, '{"n": 1.10}')
    send(sqs, queue, '{"n":2}', {"event_type": "paid", "customer": "7", "pgtrickle-id": "x:1"})
    with relay:
        found = {line["id"]: line for line in wait_lines(lines, 2)}
        wait_deleted(sqs, queue)
    name = queue.rsplit("/", 1)[1]
    assert (found[f"p:{identity}"]["type"], found[f"p:{identity}"]["payload"]) == (name, {"n": 1.1})
    assert found["x:1"] == {"id": "x:1", "type": "paid", "key": "7", "payload": {"n": 2}}


def test_a_fifo_queue_gives_message_id_group_and_order(db, sqs, fifo, relay, lines):
    set_pipeline(db, "p", sqs, fifo, lines.path)
    sent = [send(sqs, fifo, str(number), MessageGroupId=f"g{number % 3}",
                 MessageDeduplicationId=f"d{number}") for number in range(60)]
    with relay:
        found = wait_lines(lines, 60)
        wait_deleted(sqs, fifo)
    assert len(found) == 60
    for group in range(3):
        ours = [line for line in found if line["key"] == f"g{group}"]
        assert [line["payload"] for line in ours] == list(range(group, 60, 3))
        assert all(line["id"] == f"p:{sent[line['payload']]}" for line in ours)


def test_what_our_sink_packed_is_unpacked_into_headers(db, sqs, queue, relay):
    db.execute("select pgtrickle.create_inbox('shop')")
    db.execute("select pgtrickle.set_relay_inbox('p', config => %s::jsonb)", (json.dumps({
        "source": {"type": "sqs", "queue_url": queue, "region": REGION, "endpoint": sqs.endpoint,
                   "wait": "1s", "trace_id_from": "header:a", **KEYS},
        "sink": {"type": "inbox", "inbox_name": "shop"}}),))
    db.execute("select pgtrickle.enable_relay('p')")
    send(sqs, queue, "1", {"a": "t", "pgtrickle-headers": '{"b": "ü"}'})
    with relay:
        eventually(lambda: db.one("select count(*) from pgtrickle.inbox_shop") == 1)
        wait_deleted(sqs, queue)
    headers = db.one("select to_jsonb(i)->'headers' from pgtrickle.inbox_shop i")
    assert headers is None or {**headers, "b": "ü", "a": "t"} == headers


def test_payloads_that_are_no_json_are_passed_on(db, sqs, queue, relay, lines):
    set_pipeline(db, "p", sqs, queue, lines.path)
    send(sqs, queue, "{not json ü")
    send(sqs, queue, "a,b", {"Content-Type": "text/csv"})
    send(sqs, queue, "1")
    with relay:
        found = wait_lines(lines, 3)
        wait_deleted(sqs, queue)
    number, csv, raw = sorted((line["payload"] for line in found), key=str)
    assert number == 1 and base64.b64decode(raw["raw_base64"]).decode() == "{not json ü"
    assert raw["content_type"] == "application/octet-stream"
    assert csv == {"raw_base64": "YSxi", "content_type": "text/csv"}


def test_nothing_is_deleted_before_it_is_delivered_and_work_stays_hidden(db, sqs, queue, relay,
                                                                         tmp_path):
    """The sink cannot write for longer than the visibility timeout: no other consumer sees the message."""
    place = tmp_path / "later"
    lines = Lines(place / "out.jsonl")
    set_pipeline(db, "p", sqs, queue, lines.path, {"visibility_timeout": "2s"}, retry_max="500ms")
    place.write_text("in the way")
    send(sqs, queue, "1")
    with relay:
        def hidden():
            return sqs.counts(queue) == (0, 1)
        eventually(hidden, 10 * SLOW_FACTOR)
        holds_for(hidden, 5, interval=0.1)
        place.unlink()
        place.mkdir()
        assert len(wait_lines(lines, 1)) == 1
        wait_deleted(sqs, queue)


def test_a_stop_gives_back_at_once_what_is_not_settled(db, sqs, relay, tmp_path):
    """Without that, no consumer would see it for ten minutes."""
    url = sqs.queue(queue_name(), VisibilityTimeout=600)
    place = tmp_path / "later"
    place.write_text("in the way of the sink")
    set_pipeline(db, "p", sqs, url, place / "out.jsonl", {"visibility_timeout": "600s"},
                 retry_max="500ms")
    for number in range(25):
        send(sqs, url, str(number))
    with relay:
        eventually(lambda: sqs.counts(url) == (0, 25), 10 * SLOW_FACTOR)
        relay.wait_state("p", "misconfigured", "retrying")
    assert sqs.counts(url) == (25, 0)
    place.unlink()
    place.mkdir()
    with relay:
        found = wait_lines(Lines(place / "out.jsonl"), 25)
        wait_deleted(sqs, url)
    assert sorted(line["payload"] for line in found) == list(range(25))


def test_a_queue_that_is_absent_and_refused_keys_are_named(db, sqs, queue, relay, tmp_path):
    set_pipeline(db, "absent", sqs, queue + "-absent", tmp_path / "a")
    sqs.faults({"action": "ReceiveMessage", "status": 403, "code": "AccessDenied"})
    set_pipeline(db, "refused", sqs, queue, tmp_path / "b")
    with relay:
        wait_trouble(relay, db, "absent", "does not exist", remedy="make the queue")
        wait_trouble(relay, db, "refused", "AccessDenied", remedy="sqs:ReceiveMessage")
        assert KEYS["secret_access_key"] not in relay.log(10_000)


def test_a_stop_is_quick_though_a_long_poll_waits(db, sqs, queue, relay, lines):
    set_pipeline(db, "p", sqs, queue, lines.path, {"wait": "20s"})
    send(sqs, queue, "1")
    relay.start()
    wait_lines(lines, 1)
    wait_deleted(sqs, queue)  # the next poll began when this one had been received
    began = time.monotonic()
    relay.stop()
    assert time.monotonic() - began < 5 * SLOW_FACTOR


def test_a_locked_inbox_shows_the_whole_lag_and_costs_no_receipt(db, sqs, relay):
    """For longer than the visibility timeout, with a queue that sets a message aside when it is
    received a second time."""
    dead = sqs.queue(queue_name())
    arn = sqs.client().get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    url = sqs.queue(queue_name(), VisibilityTimeout=4, RedrivePolicy=json.dumps(
        {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 1}))
    source = {"type": "sqs", "queue_url": url, "region": REGION, "endpoint": sqs.endpoint,
              "wait": "2s", "visibility_timeout": "4s", **KEYS}
    with StuckInbox(db, source) as inbox:
        with relay:
            send_many(sqs, url, 0, 50)
            eventually(lambda: inbox.count() == 50)
            eventually(lambda: "redrive_policy" in relay.log(), message=relay.log)
            inbox.lock()
            send_many(sqs, url, 50, 500)
            inbox.wait_lag(relay, 500)
            assert lists_show(db, 500)
            inbox.hold(relay, 500, 7)
            assert sqs.count(dead) == 0
            inbox.unlock()
            inbox.wait_all(relay, 550)
            inbox.assert_read_once(relay, 550)
        assert sqs.count(dead) == 0


def send_many(sqs, url, first, count):
    for start in range(first, first + count, 10):
        sqs.client().send_message_batch(QueueUrl=url, Entries=[
            {"Id": str(n), "MessageBody": json.dumps({"n": n})} for n in range(start, start + 10)])
