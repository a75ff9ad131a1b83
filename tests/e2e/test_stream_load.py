"""postgres-stream under load: writers of all forms, slow and paused sinks, a poison event, missing
partitions, and midnight."""

import contextlib
import os
import random
import subprocess
import threading

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.http_server import HttpServer
from support.postgres import PostgresServer
from support.relay import Relay
from support.stream_program import (StreamProgram, configure, connection,  # noqa: F401
                                    end_database, insert, make_server, stream_home,
                                    stream_program_server, subscribe_orders, wait_running)
from support.stream_source import CrossingWriters, Witness, scene  # noqa: F401
from support.waiting import eventually, holds_for

MEBIBYTE = 1 << 20


@pytest.fixture
def sink():
    server = HttpServer()
    server.start()
    yield server
    server.stop()


def http(sink):
    return {"type": "http", "url": sink.url("/hook"), "allow_private": True}


def delivered(sink):
    """The ids of the events that the sink took, in its order."""
    return [request.json["new"]["id"] for request in sink.accepted("/hook")]


def wait_delivered(sink, wanted, program, deadline=120):
    eventually(lambda: set(delivered(sink)) >= set(wanted), deadline, interval=0.2, message=lambda: (
        f"{len(set(delivered(sink)))} of {len(wanted)}\n{program._story()}"))


def retained(database):
    """The log that the slot of stream 1 holds back."""
    return database.one("select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint "
                        "from pg_replication_slots where slot_name = 'pgstream_1' "
                        "and database = current_database()")


@pytest.fixture
def home():
    """A database on a server of its own: names of slots and of prepared transactions are the
    server's."""
    server = make_server()
    database = server.create_database(template="template0")
    yield database
    end_database(database)
    server.stop_immediate()


def test_32_writers_of_all_forms_once_and_in_commit_order(home, tmp_path, sink):
    configure(tmp_path, home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(home)
        witness = Witness(home)
        with CrossingWriters(home, "all forms", count=32) as writers:
            eventually(lambda: home.one("select count(*) from orders") > 30000, 60, interval=0.2)
        writers.commit_prepared()
        committed = witness.committed()
        wait_delivered(sink, committed, program)
        witness.end()
    assert len(committed) > 20000
    assert delivered(sink) == committed


def test_a_sink_ten_times_slower_than_the_writers(home, tmp_path, sink):
    configure(tmp_path, home, http(sink), {"failover_after": "1s"})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(home)
        witness = Witness(home)
        sink.rules({"delay": 0.05})
        with CrossingWriters(home, "slow") as writers:
            eventually(lambda: program.metric("failover_active", pipeline="stream-1") == 1, 30)
            eventually(lambda: home.one("select coalesce(sum(events), 0) from pgstream.backlog") > 2000, 60)
            holds_for(lambda: retained(home) < 16 * MEBIBYTE, 5, interval=0.2)
            assert len(witness.committed()) > 10 * len(delivered(sink)) > 0
        writers.commit_prepared()
        sink.rules()
        committed = witness.committed()
        wait_delivered(sink, committed, program)
        eventually(lambda: program.metric("failover_active", pipeline="stream-1") == 0, 30)
        witness.end()
    assert delivered(sink) == committed


def test_a_paused_stream_holds_no_log_back(scene, tmp_path):  # noqa: F811
    """Of a stream that is a pipeline of the relay, which an operator can pause."""
    relays = scene.relay_database
    relays.execute("select pgtrickle.set_relay('paused', %s)", (Jsonb({
        "source": {"type": "stream", "stream": 1, "url": "${env:STREAM_URL}", "failover_after": "1s"},
        "sink": {"type": "webhook", "url": scene.sink.url("/hook"), "allow_private": True}}),))
    relays.execute("select pgtrickle.enable_relay('paused')")
    with Relay(relays.relay_dsn, env={"STREAM_URL": scene.daemon_dsn},
               allow_secret="env:STREAM_URL") as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        relays.execute("select pgtrickle.pause_relay('paused')")
        relay.wait_state("paused", "paused")
        with CrossingWriters(scene.database, "paused") as writers:
            eventually(lambda: scene.database.one("select coalesce(sum(events), 0) "
                                                  "from pgstream.backlog") > 1000, 60, message=relay.log)
            holds_for(lambda: retained(scene.database) < 16 * MEBIBYTE, 3, interval=0.2)
        writers.commit_prepared()
        before = len(scene.deliveries())
        holds_for(lambda: len(scene.deliveries()) == before, 1)
        relays.execute("select pgtrickle.resume_relay('paused')")
        committed = scene.committed()
        scene.wait_delivered(len(committed), relay, 120)
    assert scene.deliveries() == committed


class Counters:
    """Rows that are changed again and again by several writers, each change an event."""

    ROWS = 20

    def __init__(self, database):
        self._database, self._end = database, threading.Event()
        database.execute("""
            create table counters (id int primary key, value int not null);
            insert into counters select n, 0 from generate_series(1, %d) n;
            insert into pgstream.subscriptions
              (key, stream_id, operation, schema_name, table_name, column_names)
            values ('counted', 1, 'UPDATE', 'public', 'counters', array['id', 'value'])""" % self.ROWS)
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(8)]

    def _run(self, number):
        chance = random.Random(number)
        while not self._end.is_set():
            try:
                with self._database.connect() as session:
                    while not self._end.is_set():
                        session.execute("begin; update counters set value = value + 1 where id = %d"
                                        % chance.randint(1, self.ROWS))
                        self._end.wait(chance.choice([0, 0, 0, 0.05]))
                        session.execute(chance.choice(["commit", "commit", "commit", "rollback"]))
            except psycopg.OperationalError:
                self._end.wait(0.05)  # the server is being started again

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_reading_the_table_of_a_server_without_logical_replication(tmp_path, sink):
    """By a role without REPLICATION, through outages of the sink and kills of both sides: every change
    of each row, in its order."""
    server = make_server(wal_level="replica")
    chance = random.Random(3)
    try:
        home = server.create_database(template="template0")
        home.login("reader")
        home.execute(f"alter database {home.name} owner to reader")
        configure(tmp_path, home, http(sink), {"pg_connection": connection(home, username="reader"),
                                               "reader": "table"})
        program = StreamProgram(tmp_path).start()
        wait_running(program)
        with Counters(home):
            for fault in ("down", "kill", "up", "kill server", "down", "kill server", "kill", "up"):
                seen = len(sink.requests("/hook"))
                if fault in ("down", "up"):
                    sink.rules(*([{"status": 503}] if fault == "down" else []))
                elif fault == "kill":
                    program.kill9()
                    program.start()
                else:
                    server.kill9()
                    server.start()
                eventually(lambda: len(sink.requests("/hook")) > seen + chance.randint(1, 20), 60,
                           message=program._story)
        values = dict(home.execute("select id, value from counters"))
        assert sum(values.values()) > 100

        def changes():
            found = {id: [] for id in values}
            for request in sink.accepted("/hook"):
                row = request.json["new"]
                if row["value"] not in found[row["id"]]:
                    found[row["id"]].append(row["value"])
            return found
        eventually(lambda: all(len(changes()[id]) == values[id] for id in values), 60, interval=0.5,
                   message=program._story)
        assert changes() == {id: list(range(1, values[id] + 1)) for id in values}
        assert home.execute("select from pg_replication_slots") == []
        program.stop()
    finally:
        server.stop_immediate()


def test_one_poison_event_among_10000(stream_home, tmp_path, sink):  # noqa: F811
    # On a busy machine the sink may be further behind than the default, which is not the poison's doing.
    configure(tmp_path, stream_home, http(sink), {"failover_after": "60s"})
    sink.rules({"contains": '"poison"', "status": 422})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home, 6000)
        stream_home.execute("insert into orders (note) values ('poison')")
        insert(stream_home, 3999)
        wait_delivered(sink, set(range(1, 10001)) - {6001}, program)
        program.wait_metric("dlq_messages", 1, pipeline="stream-1")
        assert program.metric("failover_active", pipeline="stream-1") == 0
        assert program.health()[1]["status"] == "healthy"

        def tried():
            return sum(b'"poison"' in request.body for request in sink.requests("/hook"))
        assert tried() == 1
        holds_for(lambda: tried() == 1, 3, interval=0.5)
    assert delivered(sink) == [id for id in range(1, 10001) if id != 6001]
    assert stream_home.execute("select convert_from(payload, 'UTF8')::jsonb -> 'new' ->> 'note' "
                               "from pgstream.dead_letters") == [("poison",)]


def drop_partitions(database):
    """As a daemon leaves them that was away for days."""
    for (name,) in database.execute("select inhrelid::regclass::text from pg_inherits "
                                    "where inhparent = 'pgstream.events'::regclass"):
        database.execute(f"alter table pgstream.events detach partition {name}; drop table {name}")


def test_events_without_any_partition(stream_home, tmp_path, sink):  # noqa: F811
    configure(tmp_path, stream_home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home, 10)
        wait_delivered(sink, range(1, 11), program)
    drop_partitions(stream_home)
    insert(stream_home, 1000)
    stop, failed = threading.Event(), []

    def write():
        with stream_home.connect() as session:
            session.execute("set lock_timeout = '30ms'")
            while not stop.is_set():
                try:
                    session.execute("insert into orders (note) values ('x')")
                except psycopg.Error as error:
                    failed.append(error)
    writers = [threading.Thread(target=write, daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    with StreamProgram(tmp_path) as program:
        eventually(lambda: stream_home.one("select count(*) from pgstream.events") > 100, 30,
                   message=program._story)
        stop.set()
        for writer in writers:
            writer.join()
        assert failed == []
        assert stream_home.one("select count(*) from pgstream.events_overflow") >= 1000
        assert stream_home.one("select pgstream.stream_status(1)")["partitions_ahead"] >= 3
        wait_delivered(sink, [id for (id,) in stream_home.execute("select id from orders")], program)
    assert sorted(delivered(sink)) == sorted(set(delivered(sink)))


# Midnight ---------------------------------------------------------------------------------------

# The clock of a process, moved so that it begins `BEFORE_MIDNIGHT` seconds before midnight UTC.
CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long moved(void) {
  static long by;
  if (by == 0) by = atol(getenv("CLOCK_MOVED"));
  return by;
}

int gettimeofday(struct timeval *tv, void *tz) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  tv->tv_sec = now.tv_sec + moved();
  tv->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timeval tv;
  gettimeofday(&tv, NULL);
  if (out) *out = tv.tv_sec;
  return tv.tv_sec;
}
"""
BEFORE_MIDNIGHT = 20


@pytest.fixture
def server_before_midnight(tmp_path_factory):
    """PostgreSQL whose clock comes to midnight while a test runs."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    server = PostgresServer("midnight")
    # The server's user must be able to read it.
    library = os.path.join(server.directory, "clock.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "clock.c"], check=True)
    os.chmod(library, 0o755)

    def start():
        now = int(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout)
        server.start(env={**os.environ, "LD_PRELOAD": library,
                          "CLOCK_MOVED": str(86400 - BEFORE_MIDNIGHT - now % 86400)})
        return server
    yield start
    server.stop_immediate()


class LockWatch(threading.Thread):
    """Samples `pg_locks` for writers that wait for a lock."""

    # Writers extend a table one after the other: that wait is not for a lock of ours.
    WAITING = """
        select l.relation::regclass::text, l.locktype, l.mode, a.query
        from pg_locks l join pg_stat_activity a using (pid)
        where not l.granted and l.locktype <> 'extend' and a.application_name = 'writer'"""

    def __init__(self, database):
        super().__init__(daemon=True)
        self._database, self._end = database, threading.Event()
        self.samples, self.waited = 0, []

    def run(self):
        with self._database.connect() as session:
            while not self._end.is_set():
                self.waited += session.execute(self.WAITING).fetchall()
                self.samples += 1

    def end(self):
        self._end.set()
        self.join()


@contextlib.contextmanager
def writers_that_never_wait(home):
    """Eight of them; no transaction fails, and none waits for a lock."""
    stop, failed = threading.Event(), []

    def write():
        with home.connect(autocommit=False, application_name="writer") as session:
            while not stop.is_set():
                try:
                    session.execute("insert into orders (note) values ('x')")
                    session.commit()
                except psycopg.Error as error:
                    failed.append(error)
                    return
    watch = LockWatch(home)
    watch.start()
    writers = [threading.Thread(target=write, daemon=True) for _ in range(8)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()
        watch.end()
    assert failed == []
    assert watch.samples > 1000
    assert watch.waited == []


@contextlib.contextmanager
def before_midnight(start, tmp_path, sink, missing):
    """A database with a stream, whose daemon was there and has left no partition for the days that are
    `missing`, from today on; an open transaction, and a prepared one. Yields today and the next two
    days as well."""
    home = start().create_database(template="template0")
    configure(tmp_path, home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(home)
    days = [day for (day,) in home.execute(
        "select to_char((now() at time zone 'UTC')::date + n, 'YYYYMMDD') from generate_series(0, 2) n")]
    for day in days[missing]:
        home.execute(f"alter table pgstream.events detach partition pgstream.events_{day};"
                     f"drop table pgstream.events_{day}")
    with home.connect(autocommit=False) as open_writer, home.connect() as preparing:
        open_writer.execute("insert into orders (note) values ('open')")
        open_writer.execute("set constraints all immediate")
        preparing.execute("begin; insert into orders (note) values ('prepared');"
                          "prepare transaction 'over midnight'")
        assert home.one("select to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')") == days[0]
        yield home, open_writer, preparing, days


def wait_events(home, table, program=None):
    """Waits until it is there and has events."""
    eventually(lambda: home.one("select to_regclass(%s)", (f"pgstream.{table}",))
               and home.one(f"select count(*) from pgstream.{table}") > 100, 3 * BEFORE_MIDNIGHT,
               message=program and program._story)


def test_no_commit_waits_at_midnight_and_in_maintenance(server_before_midnight, tmp_path, sink):
    # Tomorrow is there, and the days behind it are made at the next start, under load.
    with before_midnight(server_before_midnight, tmp_path, sink, slice(2, None)) as prepared:
        home, opened, preparing, days = prepared
        home.execute("""
            create table pgstream.events_20200101 (like pgstream.events including defaults);
            alter table pgstream.events attach partition pgstream.events_20200101
              for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');
            alter table pgstream.events_20200101 owner to pgstream_owner""")
        with writers_that_never_wait(home), StreamProgram(tmp_path) as program:
            eventually(lambda: home.one("select to_regclass(%s)", (f"pgstream.events_{days[2]}",)),
                       30, message=program._story)
            wait_events(home, f"events_{days[1]}", program)
            # What the old transactions held up is done when they have ended.
            opened.commit()
            preparing.execute("commit prepared 'over midnight'")
            eventually(lambda: home.one("select to_regclass('pgstream.events_20200101')") is None, 90,
                       message=program._story)
        with StreamProgram(tmp_path) as program:
            wait_delivered(sink, [id for (id,) in home.execute("select id from orders")], program)
        assert home.one("select count(*) from pgstream.events_overflow") == 0


def test_midnight_while_tomorrow_has_no_partition(server_before_midnight, tmp_path, sink):
    """The daemon is away, and comes back after midnight."""
    with before_midnight(server_before_midnight, tmp_path, sink, slice(1, None)) as prepared:
        home, opened, preparing, days = prepared
        with writers_that_never_wait(home):
            wait_events(home, "events_overflow")
            # A transaction that knows yesterday's partition.
            opened.execute("insert into orders (note) values ('open after midnight')")
            opened.commit()
            with StreamProgram(tmp_path) as program:
                wait_events(home, f"events_{days[1]}", program)
            preparing.execute("commit prepared 'over midnight'")
        with StreamProgram(tmp_path) as program:
            wait_delivered(sink, [id for (id,) in home.execute("select id from orders")], program)
