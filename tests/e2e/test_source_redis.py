"""The Redis Streams source, by the real binary against a real server that redis-py writes to."""

import json
import re
import shutil

import pytest

from support.bridges import set_bridge, wait_lines
from support.fixtures import need
from support.pipelines import LONG, SLOW_FACTOR, Lines
from support.redis_server import RedisServer
from support.stuck_inbox import StuckInbox, lists_show
from support.tls import Authority
from support.waiting import eventually, holds_for
from support.writers import wait_trouble


@pytest.fixture
def server():
    need(shutil.which("redis-server"), "redis-server")
    server = RedisServer().start()
    yield server
    server.stop()


def set_pipeline(db, name, server, path, source=None, **options):
    """A pipeline from the stream `s` into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "redis", "url": server.url, "stream_key": "s", "group": "g",
              "consumer": "c", "response_timeout": "2s", **(source or {})}
    set_bridge(db, name, source, path, **options)


def add(server, *entries, key="s"):
    with server.client() as client:
        return [client.xadd(key, entry).decode() for entry in entries]


def pending(server, key="s", group="g"):
    with server.client() as client:
        return client.xpending(key, group)["pending"]


def wait_acknowledged(server, **which):
    eventually(lambda: pending(server, **which) == 0, 15 * SLOW_FACTOR)


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


def test_ids_types_and_payloads_are_what_the_documentation_says(db, server, relay, lines):
    set_pipeline(db, "p", server, lines.path, {"aggregate_id_from": "header:customer"})
    with relay:
        entries = add(server, {"pgtrickle_id": "x:1", "event_type": "paid", "customer": "7",
                               "payload": '{"n":1}'},
                      {"payload": '{"n":2}'},
                      {"name": "a", "amount": "10.50", "pgtrickle_op": "insert"},
                      {"payload": "a,b", "content_type": "text/csv"}, {"payload": "a,b"})
        first, second, third, csv, bare = wait_lines(lines, 5)
        wait_acknowledged(server)
    assert first == {"id": "x:1", "type": "paid", "key": "7", "payload": {"n": 1}}
    assert re.fullmatch(rf"p:s:\d+:{entries[1]}", second["id"]) and second["type"] == "s"
    assert third["payload"] == {"name": "a", "amount": "10.50"}
    assert csv["payload"] == {"raw_base64": "YSxi", "content_type": "text/csv"}
    assert bare["payload"] == {"raw_base64": "YSxi", "content_type": "application/octet-stream"}


def test_what_is_there_is_read_unless_only_what_comes_is_wanted(db, server, relay, lines, tmp_path):
    add(server, {"payload": "1"})
    new = Lines(tmp_path / "new.jsonl")
    set_pipeline(db, "all", server, lines.path, {"group": "all"})
    set_pipeline(db, "new", server, new.path, {"group": "new", "start": "$"})
    with relay:
        wait_lines(lines, 1)
        with server.client() as client:
            eventually(lambda: {"all", "new"} <= {group["name"].decode() for group in
                                                client.xinfo_groups("s")})
        add(server, {"payload": "2"})
        assert [m["payload"] for m in wait_lines(lines, 2)] == [1, 2]
        assert [m["payload"] for m in wait_lines(new, 1)] == [2]


def test_what_a_dead_consumer_left_is_taken_over(db, server, relay, lines):
    with server.client() as client:
        client.xgroup_create("s", "g", "0", mkstream=True)
        add(server, *({"payload": str(n)} for n in range(100)))
        taken = client.xreadgroup("g", "dead-consumer", {"s": ">"}, count=40)
        assert len(taken[0][1]) == 40
    set_pipeline(db, "p", server, lines.path, {"claim_idle": "1s"})
    with relay:
        wait_lines(lines, 100)
        wait_acknowledged(server)
    assert sorted(m["payload"] for m in lines.messages()) == list(range(100))


def test_nothing_that_is_under_way_is_taken_over_from_ourselves(db, server, relay, lines):
    set_pipeline(db, "p", server, lines.path, {"claim_idle": "200ms"}, rate_limit=20)
    with relay:
        add(server, *({"payload": str(n)} for n in range(60)))
        wait_lines(lines, 60, 30)
        wait_acknowledged(server)
    assert [m["payload"] for m in lines.messages()] == list(range(60))


def test_a_stream_that_was_deleted_is_begun_anew(db, server, relay, lines):
    set_pipeline(db, "p", server, lines.path)
    with relay:
        add(server, {"payload": "1"})
        wait_lines(lines, 1)
        with server.client() as client:
            client.delete("s")
        add(server, {"payload": "2"})
        assert [m["payload"] for m in wait_lines(lines, 2, 40)] == [1, 2]


def test_a_key_that_holds_no_stream_is_a_configuration_error(db, server, relay, lines):
    with server.client() as client:
        client.set("s", "text")
    set_pipeline(db, "p", server, lines.path)
    with relay:
        wait_trouble(relay, db, "p", "WRONGTYPE", remedy="stream_key")
        assert relay.pipeline("p")["state"] == "misconfigured"


def test_large_entries_are_read_a_few_at_a_time(db, server, relay, lines):
    add(server, *({"payload": json.dumps("x" * 1_000_000)} for _ in range(60)))
    set_pipeline(db, "p", server, lines.path, batch_bytes="4MiB", rate_limit=1000)
    with relay:
        wait_lines(lines, 60, 60)
        wait_acknowledged(server)
        assert relay.peak_kib() < 160_000


def test_it_reads_over_tls(db, relay, lines):
    authority = Authority()
    certificate, key = authority.certificate("server")
    server = RedisServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    try:
        set_pipeline(db, "p", server, lines.path, {"tls_ca": authority.ca})
        with relay:
            add(server, *({"payload": str(n)} for n in range(5)))
            wait_lines(lines, 5)
            wait_acknowledged(server)
    finally:
        server.stop()


def test_a_server_that_restarts_loses_and_repeats_nothing_that_was_acknowledged(db, server, relay,
                                                                                lines):
    set_pipeline(db, "p", server, lines.path)
    with relay:
        add(server, *({"payload": str(n)} for n in range(10)))
        wait_lines(lines, 10)
        wait_acknowledged(server)
        server.kill9()
        wait_trouble(relay, db, "p", "Redis at")
        server.start()
        add(server, *({"payload": str(n)} for n in range(10, 20)))
        wait_lines(lines, 20)
        wait_acknowledged(server)
        holds_for(lambda: len(lines.messages()) == 20, 0.5)


def add_many(client, first, count, key="s"):
    with client.pipeline(transaction=False) as pipe:
        for number in range(first, first + count):
            pipe.xadd(key, {"payload": json.dumps({"n": number})})
        pipe.execute()


def delivery_counts(client, key="s", group="g"):
    return {entry["times_delivered"] for entry in
            client.xpending_range(key, group, "-", "+", 100_000)}


def consumers(server, key="s", group="g"):
    """{name: entries that it holds}"""
    with server.client() as client:
        return {each["name"].decode(): each["pending"] for each in client.xinfo_consumers(key, group)}


def test_consumers_that_are_gone_and_hold_nothing_are_removed(db, server, relay, lines):
    with server.client() as client:
        client.xgroup_create("s", "g", "0", mkstream=True)
        for number in range(30):
            client.xgroup_createconsumer("s", "g", f"pod-{number}")
        client.xgroup_createconsumer("s", "g", "it's {a} \"name\"\r\n")
        add(server, {"payload": "1"})
        client.xreadgroup("g", "holds-one", {"s": ">"})
    set_pipeline(db, "p", server, lines.path, {"consumer_idle": "1s", "claim_idle": "60s"})
    with relay:
        eventually(lambda: consumers(server) == {"c": 0, "holds-one": 1}, 20 * SLOW_FACTOR,
                   interval=0.1, message=lambda: consumers(server))
        eventually(lambda: "consumers_removed" in relay.log(1000), 10 * SLOW_FACTOR)
        add(server, {"payload": "2"})
        wait_lines(lines, 1)
        holds_for(lambda: consumers(server).keys() == {"c", "holds-one"}
                  and consumers(server)["holds-one"] == 1, 3)
        # A consumer that comes back is one again, and loses nothing.
        with server.client() as client:
            assert client.xreadgroup("g", "holds-one", {"s": "0"})[0][1]
            client.xreadgroup("g", "pod-1", {"s": ">"}, block=50)
        add(server, {"payload": "3"})
        wait_lines(lines, 2)


def test_no_entry_is_lost_to_the_removal_of_its_consumer(db, server, relay, lines):
    """Consumers that the relay may remove at any moment take entries all the time: each entry is
    held by one of them, or arrives here."""
    with server.client() as client:
        client.xgroup_create("s", "g", "0", mkstream=True)
    set_pipeline(db, "p", server, lines.path, {"consumer_idle": "1ms", "claim_idle": "1h"})
    with relay, server.client() as client:
        eventually(lambda: "c" in consumers(server), 20 * SLOW_FACTOR)
        held = 0
        for number in range(60 if LONG else 20):
            name = f"pod-{number}"
            client.xgroup_createconsumer("s", "g", name)
            client.xadd("s", {"payload": str(number)})
            taken = client.xreadgroup("g", name, {"s": ">"}, count=1, block=100)
            held += len(taken[0][1]) if taken else 0
        eventually(lambda: set(consumers(server).values()) <= {0, 1}
                   and sum(consumers(server).values()) == held, 20 * SLOW_FACTOR)
        eventually(lambda: len(lines.messages()) + held == number + 1, 20 * SLOW_FACTOR,
                   message=lambda: f"{len(lines.messages())} arrived, {held} are held")


@pytest.mark.parametrize("consumer_idle, rights", [(0, True), ("1ms", False)])
def test_consumers_stay_where_none_may_be_removed(db, server, relay, lines, consumer_idle, rights):
    source = {"consumer_idle": consumer_idle}
    with server.client() as client:
        client.xgroup_create("s", "g", "0", mkstream=True)
        client.xgroup_createconsumer("s", "g", "gone")
        if not rights:
            client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"],
                               commands=["+@all", "-eval"])
            source |= {"user": "reader", "password": "pw"}
    set_pipeline(db, "p", server, lines.path, source)
    with relay:
        add(server, {"payload": "1"})
        wait_lines(lines, 1)
        holds_for(lambda: "gone" in consumers(server), 2)
        assert ("cannot_remove_consumers" in relay.log(1000)) == (not rights)
        relay.wait_healthy(pipelines=1)


def test_a_locked_inbox_shows_the_whole_lag_and_no_other_consumer_takes_anything_over(
        db, server, relay, tmp_path):
    """The other one takes over what is idle for a part of the time that the inbox is locked."""
    source = {"type": "redis", "url": server.url, "stream_key": "s", "group": "g",
              "consumer": "c", "claim_idle": "1s"}
    other = Lines(tmp_path / "other.jsonl")
    with StuckInbox(db, source) as inbox, server.client() as client:
        with relay:
            add_many(client, 0, 500)
            eventually(lambda: inbox.count() == 500)
            inbox.lock()
            add_many(client, 500, 30_000)
            inbox.wait_lag(relay, 30_000)
            assert lists_show(db, 30_000)
            eventually(lambda: pending(server) >= 1000)
            for _ in range(6):
                taken = client.xautoclaim("s", "g", "other", 1000, "0-0", count=100)
                assert taken[1] == []
                inbox.hold(relay, 30_000, 0.5)
            assert delivery_counts(client) == {1}
            inbox.unlock()
            inbox.wait_all(relay, 30_500)
            inbox.assert_read_once(relay, 30_500)
            # Of a relay that was killed they are taken over.
            inbox.lock()
            add_many(client, 30_500, 50)
            eventually(lambda: pending(server) == 50)
            relay.kill9()
            taken = set()

            def takes_all():  # each as soon as it is idle for long enough
                claimed = client.xautoclaim("s", "g", "other", 1000, "0-0", count=100)[1]
                taken.update(entry for entry, _ in claimed)
                return len(taken) == 50

            eventually(takes_all, 5 * SLOW_FACTOR)


def test_the_lag_is_counted_where_the_server_does_not_know_it_and_unknown_while_that_is_away(
        db, server, relay):
    """Redis tells no lag where entries were deleted that the group was not given yet."""
    source = {"type": "redis", "url": server.url, "stream_key": "s", "group": "g", "consumer": "c"}
    with StuckInbox(db, source) as inbox, server.client() as client:
        inbox.lock()
        add_many(client, 0, 3000)
        with relay:
            inbox.wait_lag(relay, 3000)
            inner = [entry for entry, _ in client.xrange("s", count=2500)[-100:]]
            client.xdel("s", *inner)
            assert client.xinfo_groups("s")[0]["lag"] is None
            inbox.wait_lag(relay, 2900)
            server.kill9()
            inbox.wait_lag(relay, None)
            server.start()
            inbox.wait_lag(relay, 2900)
            inbox.unlock()
            inbox.wait_all(relay, 2900)
