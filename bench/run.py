"""Measures the relay side by side with limit programs, and prints ratios (bench/README.md).

  scripts/bench [PART ...]            parts: drain-stdout, drain-nats, drain-kafka, drain-redis,
                  drain-rabbitmq, drain-sqs, drain-webhook, drain-pg-inbox, from-nats, from-kafka,
                  from-redis, from-rabbitmq, from-sqs, from-pg-outbox, from-file, from-webhook,
                  latency, cost, groups-poll, groups-commit, groups-publish, stream-memory,
                  stream-nats, stream-replay, stream-table, stream-latency, stream-cost,
                  stream-spool (all)
    --runs N        runs of each contender, at least 3 for a median (default 3)
    --rows N        rows of the backlog (default 200000)
    --transaction N rows of a transaction, in the parts of postgres-stream (default 10)
    --seconds N     length of a latency run (default 10) and of a pgbench run (half of it)
    --build-dir D   use the programs of this build instead of building build/release
    --json FILE     write the figures there too
"""

import argparse
import functools
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import destinations  # noqa: E402
import groups  # noqa: E402
import origins  # noqa: E402
import streams  # noqa: E402
from figures import median, ratio_line, short, table  # noqa: E402
from pipe_counter import PipeCounter  # noqa: E402
from support.nats_server import NatsServer  # noqa: E402
from support.postgres import PostgresServer  # noqa: E402
from support.processes import free_port  # noqa: E402
from support.relay import Relay  # noqa: E402
from support.waiting import eventually  # noqa: E402

BATCH = 1000
PAYLOAD = 250  # bytes of text in a row; a payload is about 300
CONNECTIONS = 64  # of those who send to the receiver


class Bench:
    """The servers, the programs and the figures of one run of this script."""

    BATCH, PAYLOAD = BATCH, PAYLOAD

    def __init__(self, options):
        self.options = options
        self.build = pathlib.Path(options.build_dir).resolve() if options.build_dir else self.built()
        self.relay_binary = str(self.build / "pgtrickle-relay")
        os.environ["RELAY_BIN"] = self.relay_binary  # postgres-stream stands beside it
        self.postgres = PostgresServer("bench-pg", settings={
            "shared_buffers": "'512MB'", "max_wal_size": "'8GB'", "checkpoint_timeout": "'30min'",
            "autovacuum": "off", "fsync": "on"}).start()
        self.figures = {}

    @staticmethod
    def built():
        subprocess.run([ROOT / "scripts" / "build", "release", "-DRELAY_BENCH=ON"], check=True)
        return ROOT / "build" / "release"

    def program(self, name):
        return str(self.build / "bench" / name)

    def run_program(self, name, *arguments):
        """Runs a program of bench/ that prints a line of JSON; what it says."""
        done = subprocess.run([self.program(name), *map(str, arguments)], capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def database(self):
        database = self.postgres.create_database(template="template0")
        done = subprocess.run([self.relay_binary, "init", "--postgres-url", database.dsn],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return database

    def relay(self, database, **options):
        return Relay(database.dsn, binary=self.relay_binary, **options)

    def in_turns(self, contenders, label):
        """Runs each contender `runs` times, in an order that alternates; their figures."""
        figures = {name: [] for name in contenders}
        names = list(contenders)
        for run in range(self.options.runs):
            for name in names if run % 2 == 0 else reversed(names):
                figures[name].append(contenders[name]())
                print(f"  {label} {name}, run {run + 1}: {short(figures[name][-1])}",
                      file=sys.stderr, flush=True)
        self.figures[label] = figures
        return figures

    # The drain of a backlog ----------------------------------------------------------------

    def backlog(self):
        """A database with `rows` outbox rows of one inserted row each."""
        database = self.database()
        database.execute("create table orders (id bigint primary key, note text)")
        outbox = database.one("select pgtrickle.enable_outbox('orders')")
        database.execute(f"""
            do $$ begin
              for i in 1 .. {self.options.rows} loop
                insert into orders values (i, repeat('x', {PAYLOAD}));
                if i % 1000 = 0 then commit; end if;
              end loop;
            end $$""")
        database.execute(f'vacuum analyze pgtrickle."{outbox}"')
        database.execute("checkpoint")
        return database, outbox

    def pipeline(self, database, name, sink, **options):
        database.execute("select pgtrickle.set_relay_outbox(%s, config => %s::jsonb)",
                         (name, json.dumps({"stream_table": "orders", "sink": sink,
                                            "batch_size": BATCH, **options})))

    def drain_stdout(self):
        rows = self.options.rows
        database, outbox = self.backlog()
        numbers = iter(range(1000))
        peaks, starts = [], []

        def with_relay():
            counter = PipeCounter()
            relay = self.relay(database, stdout=counter.write_end, log_level="warn")
            with relay:
                counter.follow()
                relay.wait_up()
                name = f"stdout-{next(numbers)}"
                self.pipeline(database, name, {"type": "stdout"})
                begin = time.monotonic()
                database.execute("select pgtrickle.enable_relay(%s)", (name,))
                seconds = counter.wait(rows) - begin
                starts.append(1000 * (counter.first - begin))
                peaks.append(relay.peak_kib() / 1024)
                database.execute("select pgtrickle.delete_relay(%s)", (name,))
            return rows / seconds

        def limit():
            counter = PipeCounter()
            begin = time.monotonic()
            process = subprocess.Popen([self.program("limit_stdout"), database.dsn, outbox,
                                        str(BATCH)], stdout=counter.write_end)
            counter.follow()
            seconds = counter.wait(rows) - begin
            assert process.wait() == 0
            return rows / seconds

        figures = self.in_turns({"relay": with_relay, "limit": limit, "limit again": limit},
                                "drain-stdout")
        self.figures["drain-stdout peak MB"] = peaks
        database.drop()
        return table("drain of a backlog to standard output", "rows/s", figures, "limit", [
            f"{rows} outbox rows of about 300 bytes, batches of {BATCH}; from enable_relay() to the "
            "last line,", f"the first one after {statistics.median(starts):.0f} ms; "
            f"the relay's peak memory: {max(peaks):.0f} MB"])

    def drain(self, kind):
        """The drain of a backlog to a server, beside the limit program for it."""
        rows = self.options.rows
        database, outbox = self.backlog()
        programs = self.build / "bench"
        destination = (kind(programs, self.database()) if kind is destinations.Inbox
                       else kind(programs))
        numbers = iter(range(1000))
        peaks, starts = [], []

        def drained(place, begin):
            eventually(lambda: destination.count(place) > 0, 60, interval=0.005)
            first = time.monotonic()
            eventually(lambda: destination.count(place) >= rows, 600, interval=0.01)
            seconds = time.monotonic() - begin
            assert destination.count(place) == rows
            destination.forget(place)
            return rows / seconds, 1000 * (first - begin)

        def new_place():
            place = f"b{next(numbers)}"
            destination.prepare(place)
            return place

        def with_relay():
            with self.relay(database, log_level="warn") as relay:
                relay.wait_up()
                place = new_place()
                self.pipeline(database, place, destination.sink(place), **destination.options)
                begin = time.monotonic()
                database.execute("select pgtrickle.enable_relay(%s)", (place,))
                speed, delay = drained(place, begin)
                starts.append(delay)
                peaks.append(relay.peak_kib() / 1024)
                database.execute("select pgtrickle.delete_relay(%s)", (place,))
                return speed

        def limit():
            place = new_place()
            program = f"limit_{kind.name.removeprefix('pg-')}"
            begin = time.monotonic()
            process = subprocess.Popen([self.program(program), database.dsn, outbox, str(BATCH),
                                        *map(str, destination.limit(place))])
            speed, _ = drained(place, begin)
            assert process.wait() == 0
            return speed

        label = f"drain-{kind.name}"
        try:
            figures = self.in_turns({"relay": with_relay, "limit": limit, "limit again": limit},
                                    label)
        finally:
            destination.stop()
        self.figures[f"{label} peak MB"] = peaks
        database.drop()
        return table(f"drain of a backlog to {kind.name}", kind.unit, figures, "limit", [
            f"{rows} outbox rows of about 300 bytes, batches of {BATCH}; {kind.what}; from "
            "enable_relay() to the", f"last message, the first one after "
            f"{statistics.median(starts):.0f} ms; the relay's peak memory: {max(peaks):.0f} MB"])

    # From a broker into an inbox ------------------------------------------------------------

    def set_source(self, database, name, source):
        database.execute("select pgtrickle.create_inbox(%s)", (name,))
        database.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb)",
                         (name, json.dumps({"source": source, "batch_size": BATCH,
                                            "sink": {"type": "inbox", "inbox_name": name}})))

    def arrived(self, database, name, begin, program=None):
        """Seconds until all rows are in the inbox `name`, and until the first one was seen. Looks the
        more often the nearer the end is, because counting takes time from what it watches.
        `program` must not fail meanwhile."""
        rows = self.options.rows
        first = None
        while True:
            count = database.one(f"select count(*) from pgtrickle.inbox_{name}")
            seconds = time.monotonic() - begin
            if count >= rows:
                assert count == rows
                return seconds, first or seconds
            first = first or (seconds if count else None)
            assert seconds < 600, f"{count} of {rows}"
            assert program is None or program.poll() in (None, 0)
            time.sleep(min(0.2, max(0.005, (rows - count) * seconds / count / 2)) if count
                       else 0.005)

    def from_source(self, kind):
        """From where a source reads into an inbox, beside the limit program for it."""
        rows = self.options.rows
        backlog, outbox = self.backlog()
        inbox = self.database()
        origin = kind(self, backlog, outbox)
        numbers = iter(range(1000))
        peaks, starts = [], []

        def new_place():
            place = f"s{next(numbers)}"
            origin.fill(place)
            return place

        def end(place):
            origin.forget(place)
            inbox.execute("select pgtrickle.drop_inbox(%s)", (place,))
            inbox.execute("checkpoint")

        def with_relay():
            place = new_place()
            with self.relay(inbox, log_level="warn") as relay:
                relay.wait_up()
                self.set_source(inbox, place, origin.source(place))
                begin = time.monotonic()
                inbox.execute("select pgtrickle.enable_relay(%s)", (place,))
                seconds, first = self.arrived(inbox, place, begin)
                starts.append(1000 * first)
                peaks.append(relay.peak_kib() / 1024)
                inbox.execute("select pgtrickle.delete_relay(%s)", (place,))
            end(place)
            return rows / seconds

        def limit():
            place = new_place()
            inbox.execute("select pgtrickle.create_inbox(%s)", (place,))
            begin = time.monotonic()
            process = subprocess.Popen(list(map(str, origin.limit(place, inbox))))
            seconds, _ = self.arrived(inbox, place, begin, process)
            assert process.wait() == 0
            end(place)
            return rows / seconds

        label = f"from-{kind.name}"
        try:
            figures = self.in_turns({"relay": with_relay, "limit": limit, "limit again": limit},
                                    label)
        finally:
            origin.stop()
        self.figures[f"{label} peak MB"] = peaks
        backlog.drop()
        inbox.drop()
        return table(f"from {kind.name} into an inbox", "messages/s", figures, "limit", [
            f"{rows} messages of about 300 bytes, batches of {BATCH}; {kind.what}; from "
            "enable_relay() to the", f"last row, the first one after "
            f"{statistics.median(starts):.0f} ms; the relay's peak memory: {max(peaks):.0f} MB"])

    def from_webhook(self):
        """Requests to the receiver, beside the same load on the limit program, and on a server that
        stores nothing."""
        rows = self.options.rows
        inbox = self.database()
        numbers = iter(range(1000))
        waits = {}

        def load(name, port, path="/"):
            done = subprocess.run([self.program("http_load"), str(port), path, str(CONNECTIONS),
                                   str(rows), str(PAYLOAD)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            figures = json.loads(done.stdout)
            waits.setdefault(name, []).append(figures)
            return figures["rate"]

        def end(name):
            assert inbox.one(f"select count(*) from pgtrickle.inbox_{name}") == rows
            inbox.execute("select pgtrickle.drop_inbox(%s)", (name,))
            inbox.execute("checkpoint")

        def with_relay():
            name, port = f"w{next(numbers)}", free_port()
            with self.relay(inbox, log_level="warn") as relay:
                relay.wait_up()
                self.set_source(inbox, name, {"type": "webhook", "listen": f"127.0.0.1:{port}"})
                inbox.execute("select pgtrickle.enable_relay(%s)", (name,))
                relay.wait_state(name, "idle", "running")
                rate = load("relay", port, "/inbox")
                inbox.execute("select pgtrickle.delete_relay(%s)", (name,))
            end(name)
            return rate

        def served_by(label, *command):
            server = destinations.HttpProgram(*command)
            try:
                return load(label, server.port)
            finally:
                server.stop()

        def limit():
            name = f"w{next(numbers)}"
            inbox.execute("select pgtrickle.create_inbox(%s)", (name,))
            rate = served_by("limit", self.program("limit_receiver"), inbox.dsn, f"inbox_{name}")
            end(name)
            return rate

        def nothing():
            return served_by("stores nothing", self.program("http_target"))

        figures = self.in_turns({"relay": with_relay, "limit": limit, "limit again": limit,
                                 "stores nothing": nothing}, "from-webhook")
        inbox.drop()
        self.figures["from-webhook answers"] = waits
        return table("requests to the receiver, answered when committed", "requests/s", figures,
                     "limit", [
            f"{rows} requests of about 300 bytes over {CONNECTIONS} connections; an answer took "
            "(p50, p99):", *(f"{name}: {median(of, 'p50'):.2f} ms, {median(of, 'p99'):.2f} ms"
                             for name, of in waits.items())])

    # From the commit to the acknowledgement --------------------------------------------------

    def latency(self):
        nats = NatsServer().start()
        runs = []
        try:
            for run in range(self.options.runs):
                database = self.database()
                database.execute("create table latency (id bigint primary key, payload text)")
                database.execute("select pgtrickle.enable_outbox('latency')")
                name = f"l{run}"
                with nats.client() as client, self.relay(database, log_level="warn") as relay:
                    client.create_stream(name, f"{name}.>")
                    database.execute(
                        "select pgtrickle.set_relay_outbox(%s, config => %s::jsonb)",
                        (name, json.dumps({"stream_table": "latency",
                                           "sink": {"type": "nats", "url": nats.url},
                                           "subject_template": f"{name}.x"})))
                    database.execute("select pgtrickle.enable_relay(%s)", (name,))
                    relay.wait_state(name, "idle", "running")
                    cpu = relay.cpu_seconds()
                    figures = self.run_program("latency_nats", database.dsn, nats.url, name, 1000,
                                               self.options.seconds, 8)
                    figures["cpu"] = (relay.cpu_seconds() - cpu) / self.options.seconds
                    runs.append(figures)
                    print(f"  latency, run {run + 1}: {figures}", file=sys.stderr)
                database.drop()
        finally:
            nats.stop()
        return self.latency_table("latency", runs)

    def latency_table(self, part, runs):
        self.figures[part] = runs
        lines = ["", f"{part}: commit's return to consumer, 1,000 tx/s, open loop, 8 connections (ms)",
                 f"  {'':22}{'median':>10}{'least':>10}{'most':>10}"]
        for key in ("seen_p50", "seen_p99", "stored_p50", "stored_p99", "rate", "cpu"):
            values = [run[key] for run in runs]
            lines.append(f"  {key:22}{statistics.median(values):>10.2f}{min(values):>10.2f}"
                         f"{max(values):>10.2f}")
        lines.append("  seen: a consumer of the stream has it; stored: the stream's own timestamp; "
                     "cpu: the program's share of a core")
        return lines

    def commits(self, database, script, clients, seconds, *options):
        """Runs a script of pgbench; commits a second, and how many there were."""
        done = subprocess.run(
            [newest("/usr/lib/postgresql/*/bin/pgbench"), "-n", "-M", "prepared", "-c", str(clients),
             "-j", str(min(clients, 2)), "-T", str(seconds), "-f", str(script), *options, database.dsn],
            capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        speed = next(float(line.split("=")[1].split()[0]) for line in done.stdout.splitlines()
                     if line.startswith("tps"))
        processed = next(int(line.split(":")[1].split("/")[0]) for line in done.stdout.splitlines()
                         if line.startswith("number of transactions actually processed"))
        return speed, processed

    # What the outbox costs the application ---------------------------------------------------

    def cost(self):
        database = self.database()
        with open(ROOT / "bench" / "pgbench" / "setup.sql") as setup:
            database.execute(setup.read())
        scripts = {name: ROOT / "bench" / "pgbench" / f"{name}.sql"
                   for name in ("trigger", "four_statements", "cte")}
        outbox = database.one("select outbox_table_name from pgtrickle_internal.outbox_config")
        seconds = max(2, self.options.seconds // 2)

        def run(script, clients):
            database.execute(f'truncate orders_trigger, orders_plain, plain_outbox,'
                             f' pgtrickle."{outbox}"')
            database.execute("checkpoint")
            speed, processed = self.commits(database, script, clients, seconds)
            written = database.one("select (select count(*) from plain_outbox)"
                                   f' + (select count(*) from pgtrickle."{outbox}")')
            # At the end pgbench hangs up on transactions that are under way, and may be committed.
            assert processed <= written <= processed + clients, (written, processed)
            return speed

        lines = []
        for clients in (1, 8, 16):
            figures = self.in_turns(
                {"our trigger": lambda: run(scripts["trigger"], clients),
                 "four statements": lambda: run(scripts["four_statements"], clients),
                 "one CTE": lambda: run(scripts["cte"], clients),
                 "four again": lambda: run(scripts["four_statements"], clients)},
                f"cost-{clients}")
            lines += table(f"application's commits, {clients} client{'s' * (clients > 1)}",
                           "commits/s", figures, "four statements",
                           [ratio_line("our trigger / one CTE", figures["our trigger"],
                                       figures["one CTE"])])
        database.drop()
        return lines


def newest(pattern):
    return max(glob.glob(pattern), key=lambda path: int(path.split("/")[4]))


def main():
    parts = {"drain-stdout": Bench.drain_stdout}
    for kind in destinations.ALL:
        parts[f"drain-{kind.name}"] = functools.partial(Bench.drain, kind=kind)
    for kind in origins.ALL:
        parts[f"from-{kind.name}"] = functools.partial(Bench.from_source, kind=kind)
    parts |= {"from-webhook": Bench.from_webhook, "latency": Bench.latency,
              "cost": Bench.cost} | groups.ALL | streams.ALL
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="PART")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--transaction", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--build-dir")
    parser.add_argument("--json")
    options = parser.parse_args()
    if unknown := set(options.part) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    bench = Bench(options)
    try:
        lines = [f"{os.cpu_count()} cores, PostgreSQL {bench.postgres.version}, "
                 f"{options.runs} runs each, in turns; everything on this machine"]
        for name in options.part or parts:
            print(f"{name} ...", file=sys.stderr, flush=True)
            lines += parts[name](bench)
    finally:
        bench.postgres.stop_immediate()
    print("\n".join(lines))
    if options.json:
        with open(options.json, "w") as out:
            json.dump(bench.figures, out, indent=1)


if __name__ == "__main__":
    main()
