"""Copies of a table that begin with a snapshot, and writers that make them hard to keep exact."""

import contextlib
import random

import psycopg

from .background import Background
from .groups import commit, poll
from .waiting import eventually


class Copy:
    """A copy of a keyed table, kept by a consumer that believes nothing: a row that comes must not
    be there, and a row that goes must be there as it was."""

    def __init__(self, rows, key="id"):
        self.key = key
        self.rows = {row[key]: row for row in rows}

    def apply(self, payload):
        if payload.get("full_refresh"):
            self.rows = {}
        for row in payload.get("deleted", []):
            assert self.rows.pop(row[self.key], None) == row, f"gone, but not as it was: {row}"
        for row in payload.get("inserted", []):
            assert row[self.key] not in self.rows, f"here already: {row}"
            self.rows[row[self.key]] = row


def table_rows(connection, table="stock"):
    return [row for row, in connection.execute(f"select to_jsonb(x.*) from {table} x")]


def take_copy(connection, group, table="stock", between=None):
    """The copy that a group's snapshot begins with; `between` runs between the snapshot and the read."""
    while True:
        try:
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read")
                connection.execute("select pgtrickle.consumer_snapshot(%s)", (group,))
                if between:
                    between()
                return Copy(table_rows(connection, table))
        except psycopg.errors.SerializationFailure:
            continue


def follow(connection, group, copy, consumer="a", polls=None):
    """Applies the changes that the group has now, of so many polls; how many outbox rows those were."""
    count = 0
    while polls != 0 and (rows := poll(connection, consumer, group, 2000)):
        polls = polls and polls - 1
        for row in rows:
            assert not row["is_claim_check"]
            copy.apply(row["payload"])
        commit(connection, rows[-1]["outbox_id"], consumer, group)
        count += len(rows)
    return count


class StockWriters:
    """Writers that insert, update, delete, move keys, roll back, prepare and stay open."""

    def __init__(self, db, count, keys=400, table="stock", pause=0.03):
        self._db = db
        self.writers = [StockWriter(db, number, keys, table, pause) for number in range(count)]

    def __enter__(self):
        for writer in self.writers:
            writer.__enter__()
        return self

    def __exit__(self, *error):
        for writer in self.writers:
            writer.stop()
        # A writer whose server was killed may have left one, for which others wait.
        eventually(self._has_ended, 60)
        for writer in self.writers:
            writer.__exit__(*error)

    def _has_ended(self):
        with self._db.connect() as connection:
            for gid, in connection.execute("select gid from pg_prepared_xacts"
                                           " where database = current_database()").fetchall():
                with contextlib.suppress(psycopg.errors.UndefinedObject):
                    connection.execute(f"commit prepared '{gid}'")
        return not any(writer.is_running() for writer in self.writers)


class StockWriter(Background):
    def __init__(self, db, number, keys, table, pause):
        super().__init__()
        self._db, self._number, self._keys, self._table = db, number, keys, table
        self._random = random.Random(number)
        self._pause = pause
        self.commits = 0

    def stop(self):
        self._stop.set()

    def is_running(self):
        return self._thread.is_alive()

    def _statement(self):
        key = self._random.randint(1, self._keys)
        other = self._random.randint(1, self._keys)
        upper = key + self._random.randint(0, 5)
        return self._random.choice([
            f"insert into {self._table} values ({key}, 'n', {other}) on conflict do nothing",
            f"insert into {self._table} select i, 'm', {other} from generate_series({key}, {upper}) i"
            " on conflict do nothing",
            f"update {self._table} set amount = amount + 1 where id = {key}",
            f"update {self._table} set amount = amount + 1 where id between {key} and {upper}",
            f"update {self._table} set id = {other} where id = {key}"
            f" and not exists (select from {self._table} where id = {other})",
            f"delete from {self._table} where id between {key} and {upper}"])

    def _transaction(self, connection):
        connection.execute("begin")
        connection.execute(self._statement())
        if self._random.random() < 0.3:
            connection.execute("savepoint a")
            connection.execute(self._statement())
            if self._random.random() < 0.5:
                connection.execute("rollback to a")
        if self._random.random() < 0.2:
            self._stop.wait(self._random.random() * 0.05)
        end = self._random.random()
        if end < 0.15:
            connection.execute("rollback")
        elif end < 0.3:
            name = f"stock {self._db.name} {self._number} {self._random.random()}"
            connection.execute(f"prepare transaction '{name}'")
            self._stop.wait(self._random.random() * 0.02)
            connection.execute(f"commit prepared '{name}'")
            self.commits += 1
        else:
            connection.execute("commit")
            self.commits += 1

    def _run(self):
        connection = None
        while not self._stop.is_set():
            try:
                connection = connection or self._db.connect()
                self._transaction(connection)
                self._stop.wait(self._pause)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                connection.execute("rollback")
            except psycopg.errors.UndefinedObject:
                pass  # its prepared transaction was ended for it
            except psycopg.OperationalError:
                if connection:
                    connection.close()
                connection = None  # the server was killed
                self._stop.wait(0.1)
        if connection:
            connection.close()
