"""Groups whose workers are killed: nothing is lost, order per key holds, exactly once in one transaction.

GROUPS_SECONDS says for how long workers are killed.
"""

import contextlib
import glob
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import psycopg
import pytest

from support.groups import WORKER, make_group
from support.waiting import eventually

SECONDS = float(os.environ.get("GROUPS_SECONDS", "10"))
HERE = os.path.dirname(__file__)


class Workers:
    """Processes that poll a group, and what they wrote down."""

    def __init__(self, db, count, directory, table=None):
        self._db, self._directory, self._table = db, directory, table
        self._processes = [self._start(number) for number in range(count)]
        self.kills = 0

    def _start(self, number):
        argv = [sys.executable, "-m", "support.group_worker",
                self._db.server.dsn(self._db.name, user=WORKER), "g", f"w{number}",
                f"{self._directory}/{number}.log"] + ([self._table] if self._table else [])
        return subprocess.Popen(argv, cwd=HERE)

    def kill_one(self, chance):
        """Kills a worker with -9, or ends its session in the server; both are replaced."""
        number = chance.randrange(len(self._processes))
        if chance.random() < 0.5:
            self._processes[number].send_signal(signal.SIGKILL)
            self._processes[number].wait()
            self._processes[number] = self._start(number)
            self.kills += 1
        else:
            self.kills += len(self._db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s "
                "and datname = %s order by random() limit 1", (WORKER, self._db.name)))

    def end(self):
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def lines(self, kind):
        """(moment, place, outbox id, key, n, attempt) of all `got` or `ack` lines."""
        found = []
        for path in glob.glob(f"{self._directory}/*.log"):
            with open(path) as log:
                for line in log:
                    # A line that was not finished is of a worker that was killed.
                    if line.startswith(kind) and line.endswith("\n") and line.count(" ") == 6:
                        _, moment, place, id, key, n, attempt = line.split()
                        found.append((int(moment), int(place), int(id), key, int(n), int(attempt)))
        return sorted(found)


class Publishers:
    """Threads that publish events of keys of their own, some rolled back, some prepared.

    `committed`: (key, n), the n of a key count up in the order of its commits.
    """

    def __init__(self, db, count):
        self.committed, self._db, self._stop = [], db, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        chance, counts = random.Random(number), Counter()
        with self._db.connect() as connection:
            while not self._stop.is_set():
                keys = chance.sample([f"{number}.{k}" for k in range(5)], chance.randint(1, 3))
                how = chance.random()
                connection.execute("begin")
                for key in keys:
                    connection.execute("select pgtrickle.publish('shop', to_jsonb(%s::int), key => %s)",
                                       (counts[key] + 1, key))
                if chance.random() < 0.2:
                    connection.execute("savepoint s")
                    connection.execute("select pgtrickle.publish('shop', '-1', key => %s)", keys[:1])
                    connection.execute("rollback to s")
                if how < 0.15:
                    connection.execute("rollback")
                    continue
                if how < 0.3:
                    name = f"{number} {sum(counts.values())}"
                    connection.execute(f"prepare transaction '{name}'")
                    connection.execute("select pg_sleep(0.01)")
                    ends = "rollback" if how < 0.2 else "commit"
                    connection.execute(f"{ends} prepared '{name}'")
                    if ends == "rollback":
                        continue
                else:
                    connection.execute("commit")
                counts.update(keys)
                self.committed += [(key, counts[key]) for key in keys]

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def killed_for_a_while(db, workers, publishers):
    chance, until = random.Random(7), time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            time.sleep(0.15)
            workers.kill_one(chance)
        publishers.end()
        yield
    finally:
        publishers.end()
        workers.end()


def all_is_passed(db):
    last = db.one("select max(id) from pgtrickle.outbox_shop")
    return db.one("select min(position) >= %s from pgtrickle.consumers where name = 'g'", (last,))


def test_killed_workers_lose_nothing_and_keep_the_order_of_each_key(db, tmp_path):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db, slots=16, max_attempts=1000)
    workers, publishers = Workers(db, 16, tmp_path), Publishers(db, 6)
    with killed_for_a_while(db, workers, publishers):
        eventually(lambda: all_is_passed(db), 60)
    got, acknowledged = workers.lines("got"), workers.lines("ack")
    print(f"{len(publishers.committed)} events, {workers.kills} kills, {len(got)} deliveries, "
          f"{len(acknowledged)} acknowledged")
    assert {(key, n) for _, _, _, key, n, _ in got} == set(publishers.committed)
    assert max(Counter(id for _, _, id, *_ in acknowledged).values()) == 1
    first = defaultdict(list)
    for _, _, _, key, n, _ in got:
        if n not in first[key]:
            first[key].append(n)
    assert {key: ns for key, ns in first.items() if ns != sorted(ns)} == {}
    assert workers.kills > SECONDS / 3 and len(publishers.committed) > 100
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.mark.parametrize("slots", [1, 8])
def test_poll_write_and_commit_in_one_transaction_is_exactly_once(db, tmp_path, slots):
    db.execute("select pgtrickle.create_outbox('shop'); create table effects (id bigint, n int); ")
    make_group(db, slots=slots, max_attempts=1000)
    db.execute("grant insert on effects to worker")
    workers, publishers = Workers(db, 6, tmp_path, "effects"), Publishers(db, 3)
    with killed_for_a_while(db, workers, publishers):
        eventually(lambda: all_is_passed(db), 60)
    done = db.execute("select e.id, o.event_key, e.n from effects e "
                      "left join pgtrickle.outbox_shop o on o.id = e.id")
    print(f"{len(publishers.committed)} events, {workers.kills} kills, {len(done)} effects")
    assert Counter((key, n) for _, key, n in done) == Counter(publishers.committed)
    assert workers.kills > SECONDS / 2


def test_the_role_of_the_workers_owns_nothing(db):
    make_group_role = db.login(WORKER, "pgtrickle_consumer")
    with psycopg.connect(make_group_role) as connection:
        assert connection.execute(
            "select count(*) from pg_class where relowner = current_user::regrole").fetchone() == (0,)
        assert connection.execute(
            "select array_agg(roleid::regrole::text) from pg_auth_members "
            "where member = current_user::regrole").fetchone() == (["pgtrickle_consumer"],)
