"""The parts of scripts/bench that measure consumer groups."""

import contextlib
import multiprocessing
import pathlib
import statistics
import tempfile
import time

import psycopg

from figures import ratio_line, running_seconds, table
from support.groups import COLUMNS, WORKER, make_group
from support.waiting import eventually

BATCH = 100
WAITING = 10_000
CONSUMERS, POLLERS = 10, 16
POLLS_A_SECOND = 10  # of each of several consumers
PUBLISH = pathlib.Path(__file__).parent / "pgbench" / "publish.sql"
POLL = f"select {COLUMNS} from pgtrickle.poll_outbox('g', %s, {BATCH}, 30, %s)"
COMMIT = "select pgtrickle.commit_offset('g', %s, %s)"
# What a consumer without leases, attempts and order among transactions would do.
SELECT = ("select id, pgt_id, created_at, inserted_count, deleted_count, is_claim_check, payload, event_type, "
          f"event_key, headers from pgtrickle.outbox_shop where id > %s order by id limit {BATCH}")
UPDATE = "update plain_position set position = %s"


def p99(values):
    return statistics.quantiles(values, n=100)[98]


def events(bench, slots, rows):
    """A database with events of 1,000 keys that wait for a group."""
    database = bench.database()
    database.execute("select pgtrickle.create_outbox('shop')")
    make_group(database, slots=slots)
    for first in range(0, rows, 10_000):
        database.execute("select pgtrickle.publish('shop', jsonb_build_object('note', repeat('x', %s)), "
                         "key => (i %% 1000)::text) from generate_series(1, %s) i",
                         (bench.PAYLOAD, min(10_000, rows - first)))
    database.execute("create table plain_position as select 0::bigint as position")
    database.execute("vacuum analyze")
    database.execute("checkpoint")
    return database


def timed(call):
    begun = time.monotonic()
    found = call()
    return 1000 * (time.monotonic() - begun), found


class Times:
    """Milliseconds of reads and of commits, and the server's processor time for one of each."""

    def __init__(self):
        self.reads, self.commits, self.cpu = [], [], []

    def run(self, session, read, commit, turns):
        server = session.info.backend_pid
        cpu = running_seconds(server)
        for _ in range(turns):
            took, rows = timed(read)
            assert len(rows) == BATCH
            self.reads.append(took)
            self.commits.append(timed(lambda: commit(rows[-1][0]))[0])
        self.cpu.append(1000 * (running_seconds(server) - cpu) / turns)
        return self.cpu[-1]

    def __str__(self):
        return (f"CPU {statistics.median(self.cpu):.2f} ms; read p50 {statistics.median(self.reads):.2f}, p99 "
                f"{p99(self.reads):.2f} ms; commit p50 {statistics.median(self.commits):.2f}, p99 "
                f"{p99(self.commits):.2f} ms")


def groups_poll(bench):
    """One consumer, and never fewer than 10,000 rows that wait."""
    lines = []
    for slots in (1, 4, 16):
        database = events(bench, slots, bench.options.rows)
        turns = (bench.options.rows - WAITING) // BATCH // bench.options.runs
        times = {name: Times() for name in ("poll and commit", "limit")}
        position = 0
        with database.connect(user=WORKER) as worker, database.connect() as plain:
            def with_group():
                return times["poll and commit"].run(
                    worker, lambda: worker.execute(POLL, ("w", 0)).fetchall(),
                    lambda last: worker.execute(COMMIT, ("w", last)), turns)

            def read():
                return plain.execute(SELECT, (position,)).fetchall()

            def commit(last):
                nonlocal position
                position = last
                plain.execute(UPDATE, (last,))

            figures = bench.in_turns({"poll and commit": with_group,
                                      "limit": lambda: times["limit"].run(plain, read, commit, turns)},
                                     f"groups-poll-{slots}")
        database.drop()
        lines += ["", f"poll and commit of {BATCH} rows, {slots} slot{'s' * (slots > 1)}"]
        lines += [f"  {name:18}{each}" for name, each in times.items()]
        lines.append("  " + ratio_line("CPU of the server, ours / limit", figures["poll and commit"], figures["limit"]))
    return lines


def consume(dsn, name, seconds, pause, wait, path):
    """A consumer as a process of its own. Writes how long its commits took, in milliseconds."""
    with psycopg.connect(dsn, autocommit=True) as session, open(path, "w") as out:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            rows = session.execute(POLL, (name, wait)).fetchall()
            if rows:
                took, _ = timed(lambda: session.execute(COMMIT, (name, rows[-1][0])))
                out.write(f"{took}\n")
            time.sleep(max(0, begun + pause - time.monotonic()))


@contextlib.contextmanager
def consumers(database, count, seconds, pause=0.0, wait=0):
    """Runs consumers for so long, and waits for their end. Gives the times of their commits, then."""
    dsn = database.server.dsn(database.name, user=WORKER)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        paths = [pathlib.Path(directory, str(number)) for number in range(count)]
        processes = [context.Process(target=consume, args=(dsn, f"w{path.name}", seconds, pause, wait, path))
                     for path in paths]
        for each in processes:
            each.start()
        times = []
        yield times
        for each in processes:
            each.join()
            assert each.exitcode == 0
        times += [float(line) for path in paths for line in path.read_text().splitlines()]


def groups_commit(bench):
    """Ten consumers, each a hundred rows ten times a second."""
    seconds = bench.options.seconds
    database = events(bench, 16, WAITING + CONSUMERS * POLLS_A_SECOND * BATCH * seconds)
    with consumers(database, CONSUMERS, seconds, pause=1 / POLLS_A_SECOND) as times:
        pass
    database.drop()
    return ["", f"commits of {CONSUMERS} consumers, {len(times) / seconds:.0f} a second: p50 "
                f"{statistics.median(times):.2f}, p99 {p99(times):.2f} ms"]


def groups_publish(bench):
    """Publishers of `shop`, while consumers read that, or wait for events of another outbox."""
    seconds = max(2, bench.options.seconds // 2)
    lines = []
    for rate in ("1000", None):
        def published(pollers=0, outbox="shop", pause=0.0):
            database = bench.database()
            for name in {"shop", outbox}:
                database.execute("select pgtrickle.create_outbox(%s)", (name,))
            make_group(database, outbox=outbox, slots=16)
            with consumers(database, pollers, seconds + 3, pause=pause, wait=5):
                eventually(lambda: database.one(
                    "select count(*) from pg_stat_activity where usename = %s and datname = %s",
                    (WORKER, database.name)) == pollers, 30)
                speed, _ = bench.commits(database, PUBLISH, 4, seconds, *(["-R", rate] if rate else []))
            database.drop()
            return speed

        figures = bench.in_turns({"no consumer": published,
                                  "16 wait": lambda: published(POLLERS, "other"),
                                  "16 poll, 10/s each": lambda: published(POLLERS, pause=1 / POLLS_A_SECOND),
                                  "16 poll at once": lambda: published(POLLERS),
                                  "none again": published}, f"groups-publish-{rate or 'most'}")
        lines += table(f"4 publishers, {f'{rate} events a second' if rate else 'as fast as they can'}",
                       "events/s", figures, "no consumer")
    return lines


ALL = {"groups-poll": groups_poll, "groups-commit": groups_commit, "groups-publish": groups_publish}
