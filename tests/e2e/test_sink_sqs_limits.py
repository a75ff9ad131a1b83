"""How large a message the SQS sink sends: what the queue's MaximumMessageSize says. ElasticMQ itself
refuses a message, and a request, of more than 1 MiB; smaller limits are those of the door before it."""

import json

import pytest

from support.pipelines import SLOW_FACTOR, set_outbox
from support.sqs_fixtures import queue_name, server, sqs  # noqa: F401
from support.sqs_server import KEYS, REGION, Inbox
from support.waiting import eventually
from support.writers import dead_letters

MIB = 1_048_576


@pytest.fixture
def publish(db):
    """Publishes a message with a body of about so many bytes."""
    db.execute("select pgtrickle.create_outbox('events')")

    def one(name, size):
        db.execute("select pgtrickle.publish('events', jsonb_build_object('n', %s::text, 'x',"
                   " repeat('x', %s)))", (name, size))
    return one


def send_to(db, server, url, ordering="key", **sink):
    set_outbox(db, "p", {"outbox": "events", "ordering": ordering, "sink": {
        "type": "sqs", "queue_url": url, "region": REGION, "timeout": "10s",
        "endpoint": f"http://127.0.0.1:{server.relay_port}", **KEYS, **sink}})


def send_to_queue(db, server, limit):
    """A queue with this limit, and a pipeline to it."""
    server.limit(limit)
    url = server.queue(queue_name())
    send_to(db, server, url)
    return Inbox(server, url)


def names(inbox):
    return sorted(json.loads(message["Body"])["n"] for message in inbox.read())


def wait_names(inbox, *wanted, relay):
    eventually(lambda: names(inbox) == sorted(wanted), 30 * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{names(inbox)}\n{relay.log(40)}")


def refused(db, relay):
    letter, = eventually(lambda: dead_letters(db, "p"), 30 * SLOW_FACTOR,
                         message=lambda: relay.log(40))
    return letter


def test_a_queue_of_one_mebibyte_gets_messages_of_nearly_that(db, sqs, relay, publish):
    inbox = send_to_queue(db, sqs, MIB)
    publish("small", 10)
    publish("large", MIB - 1000)
    publish("too large", MIB)
    publish("last", 10)
    with relay:
        wait_names(inbox, "small", "large", "last", relay=relay)
        letter = refused(db, relay)
    assert letter[1] == "too_large"
    assert "MaximumMessageSize is 1048576" in letter[2], letter


def test_a_small_queue_refuses_what_is_larger_and_takes_the_rest(db, sqs, relay, publish):
    inbox = send_to_queue(db, sqs, 2048)
    publish("small", 10)
    publish("too large", 2048)
    publish("last", 10)
    with relay:
        wait_names(inbox, "small", "last", relay=relay)
        letter = refused(db, relay)
        # The relay itself refused it: the queue never saw it.
        assert all(size <= 2048 for sizes in sqs.requests() for size in sizes)
    assert letter[1] == "too_large" and "MaximumMessageSize is 2048" in letter[2], letter


def test_a_limit_that_was_raised_counts_for_the_next_large_message(db, sqs, relay, publish):
    inbox = send_to_queue(db, sqs, 2048)
    publish("too large", 4000)
    with relay:
        refused(db, relay)
        sqs.limit(8192)

        def arrived():
            if not names(inbox):
                publish("again", 4000)
            return "again" in names(inbox)
        eventually(arrived, 60 * SLOW_FACTOR, interval=1, message=lambda: relay.log(40))


def test_a_request_holds_no_more_than_one_mebibyte(db, sqs, relay, publish):
    sqs.limit(MIB)
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    send_to(db, sqs, url, ordering="none")  # several messages without a key in one request
    wanted = [f"{i:02}" for i in range(24)]
    for name in wanted:
        publish(name, 200_000)
    with relay:
        wait_names(inbox, *wanted, relay=relay)
        requests = sqs.requests()
    assert all(sum(sizes) <= MIB for sizes in requests), requests
    assert max(map(len, requests)) == 5, requests  # more than 256 KiB go together
    assert dead_letters(db, "p") == []


def test_where_the_limit_may_not_be_read_the_queue_itself_refuses(db, sqs, relay, publish):
    sqs.faults({"action": "GetQueueAttributes", "status": 403, "code": "AccessDenied"},
               {"action": "SendMessageBatch", "largest": 300_000})
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    send_to(db, sqs, url)
    publish("small", 10)
    publish("large", 290_000)
    publish("too large", 310_000)
    publish("beyond all", MIB)
    publish("last", 10)
    with relay:
        wait_names(inbox, "small", "large", "last", relay=relay)
        letters = eventually(lambda: len(found := dead_letters(db, "p")) == 2 and found,
                             30 * SLOW_FACTOR, message=lambda: relay.log(40))
        log = relay.log(10_000)
    assert sorted(letter[1] for letter in letters) == ["InvalidParameterValue", "too_large"]
    assert "sqs:GetQueueAttributes" in log and "max_message_bytes" in log


def test_max_message_bytes_lowers_the_limit_and_never_raises_it(db, sqs, relay, publish):
    sqs.limit(4096)
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    send_to(db, sqs, url, max_message_bytes=2048)
    publish("too large", 3000)
    publish("small", 10)
    with relay:
        wait_names(inbox, "small", relay=relay)
        letter = refused(db, relay)
        assert letter[1] == "too_large" and "max_message_bytes is 2048" in letter[2]
    send_to(db, sqs, url, max_message_bytes="1MiB")
    publish("middle", 3000)
    publish("far too large", 5000)
    with relay:
        wait_names(inbox, "small", "middle", relay=relay)
        letters = eventually(lambda: len(found := dead_letters(db, "p")) == 2 and found,
                             30 * SLOW_FACTOR, message=lambda: relay.log(40))
    assert any("MaximumMessageSize is 4096" in letter[2] for letter in letters), letters


@pytest.mark.parametrize("told", ["", "none", "-1", "0", "99999999999999999999"])
def test_a_limit_that_is_no_size_counts_as_not_told(db, sqs, relay, publish, told):
    sqs.faults({"action": "GetQueueAttributes", "attributes": {"MaximumMessageSize": told}})
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    send_to(db, sqs, url)
    publish("large", 500_000)
    with relay:
        wait_names(inbox, "large", relay=relay)
    assert dead_letters(db, "p") == []
