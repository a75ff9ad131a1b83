"""Writers whose every committed change can be told from the table's last state."""

import random
import threading
import time

import psycopg

TABLE = "counters"


def make_counters(db, keys=200):
    """The table that writers change and its outbox; every key starts at version 1."""
    db.execute(f"create table {TABLE} (key int primary key, version int not null, filler text)")
    db.execute("select pgtrickle.enable_outbox(%s)", (TABLE,))
    db.execute(f"insert into {TABLE} select k, 1, 'x' from generate_series(1, %s) k", (keys,))


def final_versions(db):
    return dict(db.execute(f"select key, version from {TABLE}"))


class Writers:
    """Threads that count versions up until stopped; they reconnect for as long as it takes.

    Among plain changes of one to five keys there are rollbacks, savepoints that are rolled back,
    and transactions that stay open for a while. Context manager: leaving it stops the writers.
    """

    def __init__(self, dsn, history, count=4, keys=200, seed=0, pause=0.002):
        self._dsn, self._history, self._keys, self._pause = dsn, history, keys, pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number, seed * 1000 + number),
                                          daemon=True) for number in range(count)]
        self.commits = 0
        self.errors = []
        self._lock = threading.Lock()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.errors, self.errors[:3]

    def _write(self, number, seed):
        chance = random.Random(seed)
        connection = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = psycopg.connect(self._dsn, connect_timeout=5)
                self._transaction(connection, number, chance)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._history.note(f"writer {number}", "unknown", error=str(error)[:100])
                if connection is not None:
                    connection.close()
                connection = None
                self._stop.wait(0.05)
            except Exception as error:  # a writer must never fail because of the outbox
                self.errors.append(repr(error))
                return
            self._stop.wait(chance.random() * 2 * self._pause)
        if connection is not None:
            connection.close()

    def _transaction(self, connection, number, chance):
        keys = sorted(chance.sample(range(1, self._keys + 1), chance.choice((1, 1, 1, 2, 5))))
        kind = chance.random()
        change = f"update {TABLE} set version = version + 1 where key = any(%s)"
        # Rows are locked in key order, so that writers wait for each other and never deadlock.
        connection.execute(f"select from {TABLE} where key = any(%s) order by key for update",
                           (keys,))
        if kind < 0.1:
            connection.execute(change, (keys,))
            connection.rollback()
            return
        if kind < 0.2:
            connection.execute("savepoint s")
            connection.execute(change, (keys,))
            connection.execute("rollback to savepoint s")
        connection.execute(change, (keys,))
        if kind > 0.97:
            time.sleep(chance.random() * 0.2)  # a slow publisher: part of the load, not a wait
        connection.commit()
        with self._lock:
            self.commits += 1
