"""The parts of scripts/bench that measure postgres-stream."""

import contextlib
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time

import destinations
from figures import ratio_line, running_seconds, table
from support.nats_server import NatsServer
from support.processes import free_port, temporary_directory
from support.stream_program import StreamProgram, configure, connection, subscribe_orders
from support.waiting import eventually

STREAM = "stream-1"
SLOT = "pgstream_1"
MEMORY = {"type": "memory"}
PGBENCH = pathlib.Path(__file__).parent / "pgbench"
EVENT_COLUMNS = "id, payload, metadata, created_at, xid, seq"
CLIENTS = 8
ROWS_OF_A_STATEMENT = 100


class Stream:
    """A database with a stream, and what the program has stored of it: each run begins with that."""

    def __init__(self, bench):
        self.bench = bench
        self.database = bench.postgres.create_database(template="template0")
        self.directory = pathlib.Path(temporary_directory("bench-stream"))
        self._slots = itertools.count()
        with self.program(MEMORY) as program:
            program.wait_state(STREAM, "idle", "running", deadline=60)

    def program(self, sink, **stream):
        configure(self.directory, self.database, sink, {"batch": {"max_size": self.bench.BATCH},
                                                        **stream}, log_level="warn")
        return StreamProgram(self.directory)

    def write_orders(self):
        """The rows of `orders`, in transactions of `--transaction` rows each."""
        rows, each = self.bench.options.rows, self.bench.options.transaction
        self.database.execute("set synchronous_commit = off")
        self.database.execute(f"""
            do $$ begin
              for i in 1 .. {rows // each} loop
                insert into orders (note)
                select repeat('x', {self.bench.PAYLOAD}) from generate_series(1, {each});
                commit;
              end loop;
            end $$""")
        self.database.execute("reset synchronous_commit")
        self.database.execute("vacuum analyze")
        self.database.execute("checkpoint")

    def note(self):
        """What is stored now is what `restore` brings back."""
        self.database.execute("create table noted_streams as table pgstream.streams")
        self.database.execute("create table noted_backlog as table pgstream.backlog")
        self.database.execute("select pg_copy_logical_replication_slot(%s, %s)",
                              (SLOT, f"{SLOT}_noted"))

    def copy_slot(self, name):
        self.database.execute("select pg_copy_logical_replication_slot(%s, %s)",
                              (f"{SLOT}_noted", name))

    def drop_slot(self, name):
        eventually(lambda: not self.database.one(
            "select active from pg_replication_slots where slot_name = %s", (name,)), 30)
        self.database.execute("select pg_drop_replication_slot(%s)", (name,))

    def restore(self):
        self.drop_slot(SLOT)
        self.copy_slot(SLOT)
        self.database.execute("""
            update pgstream.streams s set
              (recorded_lsn, settled_snapshot, settled_also, round_snapshot, round_seq, last_n) =
              (select recorded_lsn, settled_snapshot, settled_also, round_snapshot, round_seq, last_n
               from noted_streams n where n.id = s.id);
            truncate pgstream.backlog;
            insert into pgstream.backlog table noted_backlog""")
        self.database.execute("vacuum analyze pgstream.backlog")
        self.database.execute("checkpoint")

    def bytes_of_a_payload(self):
        return self.database.one("select avg(length(payload::text))::int from pgstream.events")

    def end(self):
        for name, in self.database.execute("select slot_name from pg_replication_slots "
                                           "where database = current_database()"):
            self.drop_slot(name)
        self.database.drop()


def delivered(program):
    """How many events the sink `memory` has counted."""
    return program.pipeline(STREAM)["sink_report"]["numbers"]["memory_messages"]


def way(program):
    """Which way the events take: live or spooling."""
    return program.pipeline(STREAM)["source_report"]["state"]


def seen(count, rows, begin=None, interval=0.005):
    """Events a second until `count` says that all arrived: from `begin`, or from when it said first
    that there are some."""
    first = eventually(count, 120, interval=interval)
    first, since = (first, time.monotonic()) if begin is None else (0, begin)
    eventually(lambda: count() >= rows, 600, interval=interval)
    speed = (rows - first) / (time.monotonic() - since)
    assert count() == rows, (count(), rows)
    return speed


class Measured:
    """Runs of the program in one part: speed, its CPU time for an event, and its peak memory."""

    def __init__(self):
        self.cpu, self.peaks = [], []

    def note(self, program, rows):
        self.cpu.append(1e6 * program.cpu_seconds() / rows)
        self.peaks.append(program.peak_kib() / 1024)

    def __str__(self):
        return (f"the program's CPU {statistics.median(self.cpu):.2f} µs an event, start included; "
                f"its peak memory {max(self.peaks):.0f} MB")


@contextlib.contextmanager
def events_in_the_log(bench):
    """A stream whose events are in the log, behind what its slot has confirmed."""
    stream = Stream(bench)
    try:
        subscribe_orders(stream.database)
        stream.note()
        stream.write_orders()
        yield stream
    finally:
        stream.end()


def counted_by_reader(stream):
    """The speed of the bare reader."""
    rows = stream.bench.options.rows
    stream.copy_slot("bare")
    done = stream.bench.run_program("limit_stream", stream.database.dsn, "bare", SLOT, rows)
    stream.drop_slot("bare")
    return (rows - 1) / (done["last"] - done["first"])


def stream_memory(bench):
    rows = bench.options.rows
    measured = Measured()
    with events_in_the_log(bench) as stream:
        def with_program():
            stream.restore()
            with stream.program(MEMORY) as program:
                speed = seen(lambda: delivered(program), rows)
                measured.note(program, rows)
            return speed

        figures = bench.in_turns({"postgres-stream": with_program,
                                  "limit": lambda: counted_by_reader(stream),
                                  "limit again": lambda: counted_by_reader(stream)},
                                 "stream-memory")
        size = stream.bytes_of_a_payload()
    return table("from the log to the sink memory", "events/s", figures, "limit", [
        f"{rows} events of {size} bytes, {bench.options.transaction} in a transaction, from the "
        "first one to the last", str(measured)])


def stream_nats(bench):
    rows = bench.options.rows
    measured = Measured()
    numbers = itertools.count()
    nats = destinations.Nats(bench.build / "bench")
    backlog, outbox = bench.backlog()
    with events_in_the_log(bench) as stream:
        def new_place():
            place = f"p{next(numbers)}"
            nats.prepare(place)
            return place

        def with_program():
            stream.restore()
            place = new_place()
            with stream.program(nats.sink(place)) as program:
                speed = seen(lambda: nats.count(place), rows)
                measured.note(program, rows)
            nats.forget(place)
            return speed

        def limit():
            place = new_place()
            process = subprocess.Popen([bench.program("limit_nats"), backlog.dsn, outbox,
                                        str(bench.BATCH), *map(str, nats.limit(place))])
            speed = seen(lambda: nats.count(place), rows)
            assert process.wait() == 0
            nats.forget(place)
            return speed

        try:
            figures = bench.in_turns({"postgres-stream": with_program, "limit_nats": limit,
                                      "bare reader": lambda: counted_by_reader(stream),
                                      "limit_nats again": limit}, "stream-nats")
        finally:
            nats.stop()
        backlog.drop()
        size = stream.bytes_of_a_payload()
    slower = min(("limit_nats", "bare reader"), key=lambda name: statistics.median(figures[name]))
    return table("from the log to JetStream", "events/s", figures, slower, [
        f"{rows} events of {size} bytes, {bench.options.transaction} in a transaction; {nats.what}; "
        "from the first one to the last", str(measured)])


@contextlib.contextmanager
def events_in_the_backlog(bench):
    """A stream whose events were spooled, because its sink was down."""
    stream = Stream(bench)
    try:
        subscribe_orders(stream.database)
        stream.write_orders()
        rows = bench.options.rows
        dead = {"type": "http", "url": f"http://127.0.0.1:{free_port()}/", "allow_private": True}
        with stream.program(dead, failover_after="100ms") as program:
            eventually(lambda: stream.database.one(
                "select sum(events) from pgstream.backlog") == rows, 600, interval=0.2)
            program.kill9()  # it would wait for its sink
        eventually(lambda: not stream.database.one(
            "select active from pg_replication_slots where slot_name = %s", (SLOT,)), 30)
        stream.note()
        yield stream
    finally:
        stream.end()


def from_the_start(stream, measured, **options):
    """The speed of the program to the sink memory, from the moment when it owns its stream."""
    rows = stream.bench.options.rows
    stream.restore()
    with stream.program(MEMORY, **options) as program:
        eventually(lambda: program.health()[1]["pipelines_owned"] == 1, 30, interval=0.002)
        speed = seen(lambda: delivered(program), rows, begin=time.monotonic())
        measured.note(program, rows)
    return speed


def speed_of_statement(stream, how, query):
    done = stream.bench.run_program("limit_rows", stream.database.dsn, how, query)
    assert done["rows"] == stream.bench.options.rows
    return done["rows"] / done["seconds"]


def stream_replay(bench):
    rows = bench.options.rows
    measured = Measured()
    with events_in_the_backlog(bench) as stream:
        def copy():
            return speed_of_statement(
                stream, "copy", f"select {EVENT_COLUMNS} from pgstream.events "
                                "where stream_id = 1 order by created_at, id")

        figures = bench.in_turns({"postgres-stream": lambda: from_the_start(stream, measured),
                                  "COPY": copy, "COPY again": copy}, "stream-replay")
    return table("replay of a backlog to the sink memory", "events/s", figures, "COPY", [
        f"{rows} events, {bench.options.transaction} in a transaction, from the start of the "
        "pipeline to the last one;", "COPY: the same rows ordered by created_at, id, in binary form",
        str(measured)])


def stream_table(bench):
    rows = bench.options.rows
    measured = Measured()
    stream = Stream(bench)
    try:
        subscribe_orders(stream.database)
        stream.write_orders()
        stream.note()

        def select():
            return speed_of_statement(
                stream, "select", f"select {EVENT_COLUMNS} from pgstream.events where stream_id = 1")

        figures = bench.in_turns(
            {"postgres-stream": lambda: from_the_start(stream, measured, reader="table"),
             "SELECT": select, "SELECT again": select}, "stream-table")
    finally:
        stream.end()
    return table("reader: table, to the sink memory", "events/s", figures, "SELECT", [
        f"{rows} events, {bench.options.transaction} in a transaction, from the start of the "
        "pipeline to the last one;", "SELECT: the same rows without an order, row by row, in binary "
        "form", str(measured)])


def stream_latency(bench):
    nats = NatsServer().start()
    runs = []
    try:
        for run in range(bench.options.runs):
            stream = Stream(bench)
            database = stream.database
            database.execute("""
                create table latency (id bigint primary key, payload text);
                insert into pgstream.subscriptions
                  (key, stream_id, operation, schema_name, table_name, column_names)
                values ('latency', 1, 'INSERT', 'public', 'latency', array['id', 'payload'])""")
            name = f"l{run}"
            with nats.client() as client, stream.program(
                    {"type": "nats", "url": nats.url, "subject": f"{name}.x"}) as program:
                client.create_stream(name, f"{name}.>")
                program.wait_state(STREAM, "idle", "running")
                cpu = program.cpu_seconds()
                figures = bench.run_program("latency_nats", database.dsn, nats.url, name, 1000,
                                            bench.options.seconds, 8)
                figures["cpu"] = (program.cpu_seconds() - cpu) / bench.options.seconds
                runs.append(figures)
                print(f"  stream-latency, run {run + 1}: {figures}", file=sys.stderr)
            stream.end()
    finally:
        nats.stop()
    return bench.latency_table("stream-latency", runs)


def stream_cost(bench):
    """The CPU time that a row costs the application's session, with different triggers."""
    rows = bench.options.rows
    stream = Stream(bench)
    database = stream.database
    database.execute((PGBENCH / "stream_triggers.sql").read_text())

    def run(kind):
        database.execute(f"truncate users_{kind}, pgstream.events")
        database.execute("checkpoint")
        with database.connect() as session:
            pid = session.info.backend_pid

            def write(count):
                session.execute(f"""
                    do $$ begin
                      for i in 1 .. {count // ROWS_OF_A_STATEMENT} loop
                        insert into users_{kind} (email, email_verified)
                        select 'user@example.com', true
                        from generate_series(1, {ROWS_OF_A_STATEMENT});
                        commit;
                      end loop;
                    end $$""")

            session.execute("set synchronous_commit = off")
            write(ROWS_OF_A_STATEMENT)  # plans are made
            before = running_seconds(pid)
            write(rows)
            took = running_seconds(pid) - before
        written = database.one("select count(*) from pgstream.events")
        assert written == (0 if kind == "bare" else rows + ROWS_OF_A_STATEMENT)
        return 1e6 * took / rows

    try:
        figures = bench.in_turns({
            "our trigger": lambda: run("ours"), "by hand": lambda: run("hand"),
            "the peer's": lambda: run("peer"), "no trigger": lambda: run("bare"),
            "by hand again": lambda: run("hand")}, "stream-cost")
    finally:
        stream.end()
    return table("the application's CPU time for a row with a deferred trigger", "ns", {
        name: [1000 * value for value in values] for name, values in figures.items()}, "by hand", [
        f"{rows} rows, {ROWS_OF_A_STATEMENT} of a statement and transaction; the whole of the "
        "session's CPU time", ratio_line("our trigger / the peer's", figures["our trigger"],
                                         figures["the peer's"])])


def stream_spool(bench):
    """Commits a second of an application while its events are delivered, and while they are
    spooled."""
    stream = Stream(bench)
    database = stream.database
    subscribe_orders(database)
    seconds = max(2, bench.options.seconds // 2)

    def commits():
        return bench.commits(database, PGBENCH / "stream.sql", CLIENTS, seconds)[0]

    def live():
        with stream.program(MEMORY) as program:
            eventually(lambda: way(program) == "live" and program.pipeline(STREAM)["lag"] == 0, 120)
            database.execute("checkpoint")
            return commits()

    def spooling():
        dead = {"type": "http", "url": f"http://127.0.0.1:{free_port()}/", "allow_private": True}
        with stream.program(dead, failover_after="100ms") as program:
            database.execute("insert into orders (note) values ('x')")
            eventually(lambda: way(program) == "spooling", 60)
            database.execute("checkpoint")
            speed = commits()
            assert way(program) == "spooling"
            program.kill9()
        return speed

    try:
        figures = bench.in_turns({"spooling": spooling, "live": live, "live again": live},
                                 "stream-spool")
    finally:
        stream.end()
    return table("the application's commits", "commits/s", figures, "live", [
        f"{CLIENTS} clients, one row of about 300 bytes in a transaction, {seconds} s; spooling: the "
        "sink is down"])


ALL = {"stream-memory": stream_memory, "stream-nats": stream_nats,
       "stream-replay": stream_replay, "stream-table": stream_table,
       "stream-latency": stream_latency, "stream-cost": stream_cost,
       "stream-spool": stream_spool}
