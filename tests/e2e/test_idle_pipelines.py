"""A thousand idle pipelines are an ordinary case."""

import time

import pytest

from support.pipelines import Lines, newest_outbox_id, position
from support.postgres import RELAY_ROLE
from support.relay import Relay
from support.waiting import eventually, holds_for

PIPELINES = 1000


@pytest.fixture
def thousand(db, tmp_path):
    """1,000 tables, each with an outbox and an enabled pipeline into a file of its own."""
    for first in range(0, PIPELINES, 50):
        db.execute("""
            do $do$
            declare n int;
            begin
              for n in {first} .. {first} + 49 loop
                execute format('create table t%s (id int primary key, note text)', n);
                perform pgtrickle.enable_outbox(format('t%s', n));
                perform pgtrickle.set_relay_outbox(format('p%s', n), config => jsonb_build_object(
                  'stream_table', format('t%s', n),
                  'sink', jsonb_build_object('type', 'file',
                                             'path', format('{path}/p%s.jsonl', n))));
                perform pgtrickle.enable_relay(format('p%s', n));
              end loop;
            end $do$""".format(first=first, path=tmp_path))
    return tmp_path


def sessions(db):
    return db.one("select count(*) from pg_stat_activity where usename = %s"
                  " and datname = current_database()", (RELAY_ROLE,))


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_1000_idle_pipelines_cost_ten_connections_at_most_and_each_is_awake_at_once(
        db, thousand, relay_bin, record_property):
    with Relay(db.relay_dsn) as relay:
        begin = time.monotonic()
        relay.wait_healthy(pipelines=PIPELINES, deadline=120)
        ready = time.monotonic() - begin
        # All have opened, found nothing, and gone to sleep.
        eventually(lambda: all(p["state"] == "idle" for p in relay.health()[1]["pipelines"]), 60,
                   interval=0.5)
        holds_for(lambda: sessions(db) <= 10, 5, interval=0.1)
        begin, cpu = time.monotonic(), relay.cpu_seconds()
        holds_for(lambda: sessions(db) <= 10, 10, interval=1)
        share = (relay.cpu_seconds() - cpu) / (time.monotonic() - begin)
        resident = relay.resident_kib() / 1024
        figures = {"pipelines": PIPELINES, "ready_seconds": round(ready, 2),
                   "connections": sessions(db), "cpu_percent": round(100 * share, 2),
                   "resident_mib": round(resident, 1)}
        record_property("idle", figures)
        print(figures)
        assert resident < 200
        assert share < 0.10, "figures are measured by the benchmark; this only catches spinning"

        for number in (0, 500, 999):
            lines = Lines(thousand / f"p{number}.jsonl")
            begin = time.monotonic()
            db.execute(f"insert into t{number} values (1, 'x')")
            eventually(lambda: lines.rows() == [1], 5, interval=0.002)
            print(f"p{number}: {time.monotonic() - begin:.3f} s from idle to delivered")
        assert sessions(db) <= 10


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_hundred_busy_pipelines_share_the_ten_connections(db, relay_bin, tmp_path):
    db.execute("create table shared (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('shared')")
    for number in range(100):
        db.execute(
            "select pgtrickle.set_relay_outbox(%s, config => jsonb_build_object('stream_table',"
            " 'shared', 'sink', jsonb_build_object('type', 'file', 'path', %s::text)))",
            (f"p{number}", f"{tmp_path}/p{number}.jsonl"))
        db.execute("select pgtrickle.enable_relay(%s)", (f"p{number}",))
    with Relay(db.relay_dsn) as relay:
        with db.connect() as connection, connection.pipeline():
            for identity in range(1, 501):
                connection.execute("insert into shared values (%s)", (identity,))
        newest = newest_outbox_id(db, "shared")
        eventually(lambda: all((position(db, f"p{number}") or (0, 0))[0] >= newest
                               for number in range(100)), 60, interval=0.2,
                   message=lambda: relay.log(30))
        assert sessions(db) <= 10
        assert db.one("select max(last_change_id) = min(last_change_id)"
                      " from pgtrickle.relay_consumer_offsets")
    for number in (0, 50, 99):
        assert Lines(tmp_path / f"p{number}.jsonl").rows() == list(range(1, 501))
