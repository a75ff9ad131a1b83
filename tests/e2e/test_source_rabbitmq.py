"""The RabbitMQ source, by the real binary against a real broker that pika publishes to."""

import datetime
import itertools
import json
import re

import pika
import pytest

from support.bridges import set_bridge, wait_lines
from support.fixtures import need
from support.pipelines import LONG, SLOW_FACTOR, Lines
from support.rabbitmq_server import RabbitServer, available
from support.relay import Relay
from support.tls import Authority
from support.waiting import eventually
from support.writers import wait_trouble

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server(authority):
    """One broker for the module: each test has a queue of its own."""
    need(available(), "rabbitmq-server")
    certificate, key = authority.certificate("server")
    server = RabbitServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    yield server
    server.stop()


@pytest.fixture
def queue(server):
    name = f"s{next(_numbers)}"
    server.queue(name, "classic", name)
    return name


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


def set_pipeline(db, name, server, queue, path, source=None, **options):
    """A pipeline from a queue into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "rabbitmq", "url": server.url, "queue": queue, **(source or {})}
    set_bridge(db, name, source, path, **options)


def publish(server, exchange, *bodies, key="k", ids=True, **properties):
    with server.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(
                exchange, key, body if isinstance(body, bytes) else json.dumps(body).encode(),
                pika.BasicProperties(message_id=f"m{body}" if ids else None, delivery_mode=2,
                                     **properties), mandatory=True)


def wait_acknowledged(server, queue):
    eventually(lambda: server.held(queue) == 0, 15 * SLOW_FACTOR)


def test_ids_types_and_keys_are_what_the_documentation_says(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"aggregate_id_from": "header:customer"})
    with relay:
        publish(server, queue, 1, key="order.paid", headers={"customer": 7})
        message, = wait_lines(lines, 1)
        wait_acknowledged(server, queue)
    assert message == {"id": "p:m1", "type": "order.paid", "key": "7", "payload": 1}


def test_what_is_not_json_keeps_its_content_type(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path)
    with relay:
        publish(server, queue, b"a,b", content_type="text/csv")
        publish(server, queue, b"a,b")
        wait_lines(lines, 2)
    assert [line["payload"] for line in lines.messages()] == [
        {"raw_base64": "YSxi", "content_type": "text/csv"},
        {"raw_base64": "YSxi", "content_type": "application/octet-stream"}]


def test_a_message_without_an_id_gets_a_new_one_and_a_warning(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path)
    with relay:
        publish(server, queue, 1, 2, ids=False)
        first, second = wait_lines(lines, 2)
        assert first["id"] != second["id"]
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                            first["id"])
        eventually(lambda: relay.log().count("no message-id") == 1)


def test_queue_and_bindings_are_made_where_they_are_absent(db, server, queue, relay, lines):
    made = queue + "-made"
    set_pipeline(db, "p", server, made, lines.path, {"bind": {queue: "a.*, b.#"}})
    with relay:
        eventually(lambda: server.exists(made), 20 * SLOW_FACTOR)
        eventually(lambda: relay.metric("source_connected", pipeline="p") == 1, 20 * SLOW_FACTOR)
        for number, key in enumerate(("a.x", "a.x.y", "b.x.y", "c")):
            publish(server, queue, number, key=key)
        assert [m["payload"] for m in wait_lines(lines, 2)] == [0, 2]


def test_a_queue_that_shall_not_be_made_is_asked_for(db, server, relay, lines):
    set_pipeline(db, "p", server, "absent", lines.path, {"declare": False})
    with relay:
        wait_trouble(relay, db, "p", "no queue 'absent'", remedy="declare")
        assert relay.pipeline("p")["state"] == "misconfigured"


def test_the_broker_hands_out_no_more_than_the_prefetch_count(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"prefetch": 10}, rate_limit=20)
    publish(server, queue, *range(60))
    with relay:
        eventually(lambda: len(lines.messages()) > 5, 20 * SLOW_FACTOR)
        # Ready are all but those that were handed out and those that are done.
        assert server.count(queue) >= 60 - 10 - len(lines.messages()) - 10
        wait_lines(lines, 60, 30)
        wait_acknowledged(server, queue)
    assert [m["payload"] for m in lines.messages()] == list(range(60))


def test_a_queue_that_is_deleted_is_made_again(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"bind": {queue: "#"}})
    with relay:
        publish(server, queue, 1)
        wait_lines(lines, 1)
        with server.channel() as channel:
            channel.queue_delete(queue)
        eventually(lambda: server.exists(queue), 20 * SLOW_FACTOR)
        eventually(lambda: relay.pipeline("p")["last_error"] is None, 20 * SLOW_FACTOR)
        publish(server, queue, 2)
        assert [m["payload"] for m in wait_lines(lines, 2)] == [1, 2]


def test_what_was_not_settled_comes_again_when_the_relay_was_killed(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, rate_limit=50)
    publish(server, queue, *range(100))
    relay.start()
    eventually(lambda: len(lines.messages()) >= 20, 20 * SLOW_FACTOR)
    relay.kill9()
    relay.start()
    eventually(lambda: {m["payload"] for m in lines.messages()} == set(range(100)),
               30 * SLOW_FACTOR)
    wait_acknowledged(server, queue)
    relay.stop()


def test_it_reads_over_tls_and_names_a_wrong_authority(db, server, queue, authority, relay, lines):
    url = f"amqps://127.0.0.1:{server.tls_port}"
    set_pipeline(db, "p", server, queue, lines.path, {"url": url, "tls_ca": authority.ca})
    set_pipeline(db, "wrong", server, queue, lines.path + ".wrong",
                 {"url": url, "tls_ca": Authority("other").ca})
    with relay:
        publish(server, queue, 1, 2, 3)
        wait_lines(lines, 3)
        wait_trouble(relay, db, "wrong", "certificate .* not trusted", remedy="tls_ca")


# Ends of the relay behind a sink that takes nothing ---------------------------------------------

ENDS = 20 if LONG else 5  # of each kind; more than the limit of deliveries


def set_inbox(db, name, server, queue, **source):
    """A pipeline from a queue into the inbox of the same name."""
    db.execute("select pgtrickle.set_relay(%s, %s::jsonb)", (name, json.dumps({
        "source": {"type": "rabbitmq", "url": server.url, "queue": queue, **source},
        "sink": {"type": "pg-inbox", "inbox_name": name}})))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


def stored(db, name):
    if db.one("select to_regclass(%s)", (f"pgtrickle.inbox_{name}",)) is None:
        return []
    return sorted(payload for payload, in db.execute(
        f"select payload::text::int from pgtrickle.inbox_{name}"))


def waiting_for_locks(db):
    """Tables that sessions of the relay wait for."""
    return {name for name, in db.execute(
        "select l.relation::regclass::text from pg_locks l join pg_stat_activity a using (pid)"
        " where not l.granted and l.relation is not null and a.datname = current_database()")}


@pytest.mark.timeout(1200)
def test_no_message_is_lost_by_stops_and_kills_behind_a_locked_inbox(db, server, relay_bin):
    """Of a stream, a classic queue, and a quorum queue that drops a message at its fourth return."""
    number = next(_numbers)
    kinds = {"stream": {}, "classic": {}, "quorum": {"x-delivery-limit": 3}}
    queues = {kind: f"ends{number}-{kind}" for kind in kinds}
    for kind, arguments in kinds.items():
        server.queue(queues[kind], kind, **arguments)
        set_inbox(db, kind, server, queues[kind])
        publish(server, "", 0, key=queues[kind])
    tables = {f"pgtrickle.inbox_{kind}" for kind in kinds}
    relay = Relay(db.relay_dsn, drain_timeout="100ms", discovery_interval="100ms")
    with relay:
        for kind in kinds:
            eventually(lambda: stored(db, kind) == [0], 30 * SLOW_FACTOR, message=relay.log)
        with db.connect(autocommit=False) as locker:
            locker.execute(f"lock table {', '.join(tables)} in access exclusive mode")
            for kind in kinds:  # in the first life these are in work when it ends
                publish(server, "", *range(1, 31), key=queues[kind])
            for end in [relay.stop] * ENDS + [relay.kill9] * ENDS:
                eventually(lambda: waiting_for_locks(db) == tables, 30 * SLOW_FACTOR,
                           message=relay.log)
                end()
                relay.start()
            eventually(lambda: waiting_for_locks(db) == tables, 30 * SLOW_FACTOR)
            locker.rollback()
        for kind in kinds:
            eventually(lambda: len(stored(db, kind)) >= 31, 60 * SLOW_FACTOR,
                       message=lambda: f"{kind}: {stored(db, kind)}\n{relay.log()}")
            assert stored(db, kind) == list(range(31))
        for kind in ("classic", "quorum"):
            wait_acknowledged(server, queues[kind])


def test_a_limit_of_deliveries_is_said(db, server, queue, relay, lines):
    limited = queue + "-limited"
    server.queue(limited, "quorum", **{"x-delivery-limit": 3})
    server.queue(queue + "-free", "quorum")
    set_pipeline(db, "limited", server, limited, lines.path)
    set_pipeline(db, "free", server, queue + "-free", lines.path + ".free")
    set_pipeline(db, "classic", server, queue, lines.path + ".classic")
    with relay:
        for name in ("limited", "free", "classic"):
            eventually(lambda: relay.metric("source_connected", pipeline=name) == 1,
                       20 * SLOW_FACTOR)
        said = {name: [line for line in relay.log_lines if f"[{name}] delivery_limit" in line]
                for name in ("limited", "free", "classic")}
        line, = said["limited"]
        assert limited in line and "'3'" in line and "dead-letter exchange" in line
        # Since 4.0 a quorum queue has a limit if nothing is said.
        assert len(said["free"]) == (1 if server.major_version >= 4 else 0) and not said["classic"]


def test_lag_is_what_the_broker_holds(db, server, queue, relay):
    """Ready and unacknowledged, while the sink takes nothing, with more than the prefetch count."""
    stream, quorum = queue + "-stream", queue + "-quorum"
    server.queue(stream, "stream")
    server.queue(quorum, "quorum")
    names = {"classic": queue, "stream": stream, "quorum": quorum}
    for name, place in names.items():
        set_inbox(db, name, server, place, prefetch=50)
        publish(server, "", 0, key=place)
    with relay:
        for name in names:
            eventually(lambda: stored(db, name) == [0], 20 * SLOW_FACTOR, message=relay.log)
            eventually(lambda: relay.pipeline(name)["lag"] == 0, 20 * SLOW_FACTOR)
        with db.connect(autocommit=False) as locker:
            for name in names:
                locker.execute(f"lock table pgtrickle.inbox_{name} in access exclusive mode")
            for place in names.values():
                publish(server, "", *range(1, 301), key=place)
            for name in names:
                eventually(lambda: relay.pipeline(name)["lag"] == 300, 30 * SLOW_FACTOR,
                           message=lambda: f"{name}: {relay.pipeline(name)}")
            locker.rollback()
        for name in names:
            eventually(lambda: relay.pipeline(name)["lag"] == 0, 30 * SLOW_FACTOR,
                       message=lambda: f"{name}: {relay.pipeline(name)}")
            assert stored(db, name) == list(range(301))


# Streams ----------------------------------------------------------------------------------------

def bodies(lines):
    return [message["payload"] for message in lines.messages()]


def wait_bodies(relay, lines, wanted, deadline=30):
    wanted = list(wanted)
    eventually(lambda: len(lines.messages()) >= len(wanted), deadline * SLOW_FACTOR,
               message=lambda: f"{bodies(lines)} of {wanted}\n{relay.log()}")
    assert bodies(lines) == wanted


@pytest.fixture
def stream(server):
    name = f"stream{next(_numbers)}"
    server.queue(name, "stream")
    return name


def test_a_stream_is_read_from_its_first_message_and_goes_on_after_restarts(
        db, server, stream, relay, lines):
    publish(server, "", *range(10), key=stream, ids=False)
    set_pipeline(db, "p", server, stream, lines.path)
    with relay:
        wait_bodies(relay, lines, range(10))
    publish(server, "", *range(10, 15), key=stream, ids=False)
    with relay:
        wait_bodies(relay, lines, range(15))
    relay.start()  # with nothing new, too
    relay.wait_state("p", "idle", deadline=20 * SLOW_FACTOR)
    relay.kill9()
    publish(server, "", 15, key=stream, ids=False)
    with relay:
        wait_bodies(relay, lines, range(16))
    # The same at each delivery, and no two are equal.
    assert [m["id"] for m in lines.messages()] == [f"p:{stream}:{n}" for n in range(16)]


def test_a_stream_that_was_made_again_is_read_from_its_beginning(db, server, stream, relay, lines):
    """Once it is shorter than what was read, once as long with other messages in it."""
    set_pipeline(db, "p", server, stream, lines.path, {"declare": False, "prefetch": 1})
    publish(server, "", *range(10), key=stream, ids=False)
    relay.start()
    wait_bodies(relay, lines, range(10))
    relay.stop()
    for first, last in ((10, 13), (13, 30)):
        with server.channel() as channel:
            channel.queue_delete(stream)
        server.queue(stream, "stream")
        publish(server, "", *range(first, last), key=stream, ids=False)
        relay.start()
        wait_bodies(relay, lines, range(last), 60)
        eventually(lambda: "made again" in relay.log(), message=relay.log)
        relay.stop()
    ids = [m["id"] for m in lines.messages()]
    assert len(set(ids)) == 30
    # And it goes on there.
    publish(server, "", 30, key=stream, ids=False)
    with relay:
        wait_bodies(relay, lines, range(31))


def test_a_stream_begins_where_start_says(db, server, stream, relay, tmp_path):
    publish(server, "", *range(5), key=stream)
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    starts = {"offset": "3", "past": "2020-01-01T00:00:00Z", "next": "next",
              "future": soon.strftime("%Y-%m-%dT%H:%M:%SZ")}
    found = {name: Lines(tmp_path / name) for name in starts}
    # A place in time is that of a chunk of messages: what comes a second later is another one.
    written = datetime.datetime.now()
    eventually(lambda: (datetime.datetime.now() - written).total_seconds() > 2, 5)
    for name, start in starts.items():
        set_pipeline(db, name, server, stream, found[name].path, {"start": start})
    with relay:
        for name in starts:
            relay.wait_state(name, "idle", deadline=20 * SLOW_FACTOR)
        wait_bodies(relay, found["offset"], [3, 4])
        wait_bodies(relay, found["past"], range(5))
        for name in starts:
            eventually(lambda: relay.pipeline(name)["lag"] in (0, None), 10 * SLOW_FACTOR)
    # What was published while it did not run is not skipped, though nothing was read before.
    publish(server, "", 5, key=stream)
    with relay:
        wait_bodies(relay, found["offset"], [3, 4, 5])
        wait_bodies(relay, found["next"], [5])


def test_another_relay_goes_on_where_the_stream_is_settled(db, server, stream, lines):
    set_pipeline(db, "p", server, stream, lines.path)
    first, second = Relay(db.relay_dsn), Relay(db.relay_dsn)
    publish(server, "", *range(20), key=stream, ids=False)
    with first:
        wait_bodies(first, lines, range(20))
        second.start()
        second.wait_up()
        first.kill9()
        publish(server, "", *range(20, 40), key=stream, ids=False)
        eventually(lambda: len(set(bodies(lines))) == 40, 30 * SLOW_FACTOR, message=second.log)
    second.stop()
    by_id = {m["id"]: m["payload"] for m in lines.messages()}
    assert sorted(by_id.values()) == list(range(40))


def test_messages_that_a_stream_deleted_unread_are_said(db, server, relay, lines):
    stream = f"stream{next(_numbers)}"
    server.queue(stream, "stream", **{"x-max-length-bytes": 50_000,
                                      "x-stream-max-segment-size-bytes": 20_000})
    set_pipeline(db, "p", server, stream, lines.path)
    publish(server, "", 0, key=stream)
    with relay:
        wait_bodies(relay, lines, [0])
    for number in range(1, 40):  # each in a chunk of its own
        publish(server, "", f"{number:04000}", key=stream, ids=False)
    with relay:
        eventually(lambda: len(lines.messages()) > 1 and int(bodies(lines)[-1]) == 39,
                   20 * SLOW_FACTOR, message=relay.log)
        missing = int(bodies(lines)[1]) - 1
        assert missing > 0
        eventually(lambda: re.search(r"has deleted up to \d+ messages", relay.log()), message=relay.log)


def test_a_stream_that_is_deleted_is_not_replaced_by_a_queue(db, server, stream, relay, lines):
    set_pipeline(db, "p", server, stream, lines.path)
    publish(server, "", 0, key=stream, ids=False)
    with relay:
        wait_bodies(relay, lines, [0])
        with server.channel() as channel:
            channel.queue_delete(stream)
        wait_trouble(relay, db, "p", f"no queue '{stream}'", remedy="stream")
        server.queue(stream, "stream")
        publish(server, "", 1, key=stream, ids=False)
        wait_bodies(relay, lines, [0, 1], 60)
