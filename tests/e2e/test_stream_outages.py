"""postgres-stream under load when a sink is down and both sides are killed, and when the replication
slot is lost: what comes, what comes again, and what is told."""

import collections
import contextlib

import pytest
from support.http_server import HttpServer
from support.stream_program import (StreamProgram, configure, end_database, make_server,
                                    subscribe_orders, wait_running)
from support.stream_source import ALL_EVENTS, CrossingWriters, Witness, drop_slot
from support.waiting import eventually, holds_for

MEBIBYTE = 1 << 20
NAME = "stream-1"


@pytest.fixture
def sink():
    server = HttpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def home():
    """A database on a server of its own: the server is killed, and its settings change."""
    server = make_server()
    database = server.create_database(template="template0")
    yield database
    end_database(database)
    server.stop_immediate()


@contextlib.contextmanager
def streaming(home, tmp_path, sink):
    configure(tmp_path, home, {"type": "http", "url": sink.url("/hook"), "allow_private": True},
              {"failover_after": "1s"})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(home)
        yield program


def delivered(sink):
    return [request.json["new"]["id"] for request in sink.accepted("/hook")]


def wait_delivered(sink, wanted, program):
    wanted = set(wanted)
    eventually(lambda: set(delivered(sink)) >= wanted, 120, interval=0.2, message=lambda: (
        f"{len(wanted - set(delivered(sink)))} of {len(wanted)} are missing\n{program._story()}"))


def wait_more(sink, count, program):
    """Waits until the sink has taken so many more events."""
    wanted = len(delivered(sink)) + count
    eventually(lambda: len(delivered(sink)) >= wanted, 60, message=program._story)


def backlog(home):
    """How many events wait there."""
    return home.one("select coalesce(sum(events), 0) from pgstream.backlog")


def slot(home, column):
    return home.one(f"select {column} from pg_replication_slots where slot_name = 'pgstream_1'")


def held(home):
    """The log that the slot holds back and that was not confirmed."""
    return slot(home, "pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint")


def wait_log_released(home):
    """The server may remove all of the log that there is now."""
    place = home.one("select pg_current_wal_insert_lsn()")

    def released():
        home.execute("select pg_log_standby_snapshot()" if home.server.version >= 16
                     else "checkpoint")
        return slot(home, f"restart_lsn >= '{place}'")
    eventually(released, 120, interval=0.5)


def kill_both(home, program):
    program.kill9()
    program.start()
    home.server.kill9()
    home.server.start()


def test_an_outage_with_kills_in_it_and_in_the_replay(home, tmp_path, sink):
    with streaming(home, tmp_path, sink) as program:
        witness = Witness(home)
        with CrossingWriters(home, "outage") as writers:
            wait_more(sink, 50, program)
            sink.rules({"status": 503})
            eventually(lambda: backlog(home) > 1000, 60, message=program._story)
            wait_log_released(home)  # Later, a kill may have left a prepared transaction.
            kill_both(home, program)
            before = backlog(home)
            eventually(lambda: backlog(home) > before + 1000, 60, message=program._story)
            holds_for(lambda: held(home) < 16 * MEBIBYTE, 3, interval=0.2)
            sink.rules({"delay": 0.001})  # The writers are faster, so the replay does not end.
            for _ in range(2):
                wait_more(sink, 200, program)
                assert backlog(home) > 0
                kill_both(home, program)
            wait_more(sink, 200, program)
        writers.commit_prepared()
        sink.rules()
        committed = witness.committed()
        wait_delivered(sink, committed, program)
        eventually(lambda: program.metric("failover_active", pipeline=NAME) == 0, 30)
        witness.end()
    assert list(dict.fromkeys(delivered(sink))) == committed


def invalidate_slot(home, program):
    program.freeze()
    home.execute("alter system set max_slot_wal_keep_size = '1MB'")
    home.execute("select pg_reload_conf()")

    def lost():
        home.execute("select pg_logical_emit_message(false, 'load', repeat('x', 20000000))")
        home.execute("select pg_switch_wal()")
        home.execute("checkpoint")
        return slot(home, "wal_status") == "lost"
    eventually(lost, 60)
    program.thaw()


def make_publication_anew(home, _):
    before = home.one("select count(*) from orders")
    home.execute("drop publication pgstream_1")
    eventually(lambda: home.one("select count(*) from orders") > before + 100)
    home.execute("select pgstream.add_stream(1)")


def known_to_be_settled(home, count):
    """The ids of the events that the stream's row says are settled, once there are so many. (What is in
    the backlog is accounted for, and not settled.)"""
    ids = {id for (id,) in home.execute(
        f"select (e.payload -> 'new' ->> 'id')::int from pgstream.streams s, {ALL_EVENTS} e "
        "where pg_visible_in_snapshot(e.xid, s.settled_snapshot) "
        "and not exists (select from pgstream.backlog b where b.xid = e.xid)")}
    return ids if len(ids) > count else None


@pytest.mark.parametrize("lose, cause", [
    (lambda home, _: drop_slot(home), "it is gone"),
    (invalidate_slot, "it was invalidated"),
    (make_publication_anew, "the publication was made anew"),
], ids=["dropped", "invalidated", "publication"])
def test_a_slot_that_is_lost_under_load(home, tmp_path, sink, lose, cause):
    """Nothing that was committed is missing, and what was known to be settled does not come again."""
    with streaming(home, tmp_path, sink) as program:
        with CrossingWriters(home, "lost") as writers:
            wait_more(sink, 500, program)
            settled = eventually(lambda: known_to_be_settled(home, 300), 60, message=program._story)
            assert settled <= set(delivered(sink))
            lose(home, program)
            eventually(lambda: program.metric("slot_recoveries_total", pipeline=NAME) == 1, 60,
                       message=program._story)
            wait_more(sink, 500, program)
        writers.commit_prepared()
        wait_delivered(sink, [id for (id,) in home.execute("select id from orders")], program)
        note = program.pipeline(NAME)["source_report"]["note"]
        assert "the replication slot pgstream_1 does not continue the stream" in note and cause in note
        assert note in program.log(2000)
        program.wait_healthy(deadline=30)
    ids = collections.Counter(delivered(sink))
    assert [id for id in settled if ids[id] > 1] == []
    assert set(ids) == {id for (id,) in home.execute("select id from orders")}
