"""The Redis Streams source, by the real binary against a real server that redis-py writes to."""

import json
import re
import shutil

import pytest

from support.bridges import set_bridge, wait_lines
from support.fixtures import need
from support.pipelines import SLOW_FACTOR, Lines
from support.redis_server import RedisServer
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
                      {"name": "a", "amount": "10.50", "pgtrickle_op": "insert"})
        first, second, third = wait_lines(lines, 3)
        wait_acknowledged(server)
    assert first == {"id": "x:1", "type": "paid", "key": "7", "payload": {"n": 1}}
    assert re.fullmatch(rf"p:s:\d+:{entries[1]}", second["id"]) and second["type"] == "s"
    assert third["payload"] == {"name": "a", "amount": "10.50"}


def test_what_is_there_is_read_unless_only_what_comes_is_wanted(db, server, relay, lines, tmp_path):
    add(server, {"payload": "1"})
    new = Lines(tmp_path / "new.jsonl")
    set_pipeline(db, "all", server, lines.path, {"group": "all"})
    set_pipeline(db, "new", server, new.path, {"group": "new", "start": "$"})
    with relay:
        wait_lines(lines, 1)
        with server.client() as client:
            eventually(lambda: len(client.xinfo_groups("s")) == 2)
        add(server, {"payload": "2"})
        assert [m["payload"] for m in wait_lines(lines, 2)] == [1, 2]
        assert [m["payload"] for m in wait_lines(new, 1)] == [2]


def test_what_a_dead_consumer_left_is_taken_over(db, server, relay, lines):
    with server.client() as client:
        client.xgroup_create("s", "g", "0", mkstream=True)
        add(server, *({"payload": str(n)} for n in range(100)))
        taken = client.xreadgroup("g", "somebody-dead", {"s": ">"}, count=40)
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
