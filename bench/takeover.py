"""How long a pipeline is without an owner: seconds from a fault until another owner has claimed its
position, for each build in turn, in one run.

    /usr/bin/python3 bench/takeover.py before=/path/to/pgtrickle-relay after=build/release/pgtrickle-relay

ROUNDS=30 of each fault, FROZEN=10 of SIGSTOP.
"""

import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "e2e"))

from support.pipelines import make_table, set_outbox, to_file  # noqa: E402
from support.postgres import PostgresServer  # noqa: E402
from support.processes import temporary_directory  # noqa: E402
from support.relay import Relay, clean_environment  # noqa: E402
from support.waiting import eventually  # noqa: E402
import subprocess  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "30"))
FROZEN = int(os.environ.get("FROZEN", "10"))


class Pair:
    """Two relays of one build over one pipeline in a database of its own."""

    def __init__(self, server, name, binary):
        self.name = name
        template = f"template_{name}"
        with server.connect() as connection:
            connection.execute(f"create database {template}")
        subprocess.run([binary, "init", "--postgres-url", server.dsn(template)], check=True,
                       env=clean_environment(), capture_output=True)
        self.db = server.create_database(template)
        login = self.db.login("relay_daemon", "pgtrickle_relay")
        make_table(self.db)
        path = os.path.join(temporary_directory("takeover", None), "out.jsonl")
        set_outbox(self.db, "p", to_file("orders", path))
        self.relays = [Relay(login, binary=binary) for _ in range(2)]
        for relay in self.relays:
            relay.start()
        self.wait_both()

    def claim(self):
        return self.db.one("select owner_token from pgtrickle.relay_consumer_offsets")

    def wait_both(self):
        for relay in self.relays:
            relay.wait_up()
        eventually(lambda: sorted(self.owned()) == [0, 1] and self.claim(), 30)
        eventually(lambda: self.db.one(
            "select count(*) from pgtrickle.relay_instances"
            " where heartbeat_at > clock_timestamp() - interval '2 seconds'") == 2, 30)

    def owned(self):
        return [relay.health()[1]["pipelines_owned"] for relay in self.relays]

    def session_of_owner(self):
        return self.db.one(
            "select l.pid from pg_locks l join pg_stat_activity a using (pid)"
            " where l.locktype = 'advisory' and l.granted and a.datname = current_database()"
            " and a.application_name like 'pgtrickle-relay l%%' and a.client_port = any(%s)",
            (ports_of(self.relays[self.owned().index(1)].pid),))

    def seconds(self, fault):
        self.wait_both()
        time.sleep(random.uniform(0, 1.2))  # the phase of the beats is chance
        owner = self.relays[self.owned().index(1)]
        before, session = self.claim(), self.session_of_owner()
        begin = time.monotonic()
        if fault == "kill -9":
            owner.kill9()
        elif fault == "SIGSTOP":
            owner.freeze()
        elif fault == "SIGTERM":
            owner.process.signal(15)
        else:
            assert self.db.one("select pg_terminate_backend(%s)", (session,))
        eventually(lambda: self.claim() != before, 30, interval=0.002)
        took = time.monotonic() - begin
        if fault == "SIGSTOP":
            owner.thaw()
        elif fault != "session terminated":
            eventually(lambda: not owner.running, 20)
            owner.start()
        return took

    def stop(self):
        for relay in self.relays:
            relay.stop()


def ports_of(pid):
    """The local TCP ports of a process."""
    sockets = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            pass
    with open("/proc/net/tcp") as lines:
        rows = [line.split() for line in list(lines)[1:]]
    return [int(row[1].rsplit(":", 1)[1], 16) for row in rows if f"socket:[{row[9]}]" in sockets]


def main():
    server = PostgresServer("takeover").start()
    try:
        pairs = [Pair(server, *argument.split("=", 1)) for argument in sys.argv[1:]]
        for fault, rounds in (("kill -9", ROUNDS), ("session terminated", ROUNDS),
                              ("SIGTERM", ROUNDS), ("SIGSTOP", FROZEN)):
            times = {pair.name: [] for pair in pairs}
            for number in range(rounds):
                for pair in pairs if number % 2 else reversed(pairs):
                    times[pair.name].append(pair.seconds(fault))
            for name, found in times.items():
                found.sort()
                print(f"{fault:20} {name:8} n={len(found)} p50 {statistics.median(found):.2f} s"
                      f"  p99 {found[max(0, round(len(found) * 0.99) - 1)]:.2f} s"
                      f"  longest {found[-1]:.2f} s", flush=True)
        for pair in pairs:
            pair.stop()
    finally:
        server.kill9()


main()
