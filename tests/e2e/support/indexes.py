"""A search index that is kept equal to a table by a consumer, and what is done to the table meanwhile.

Each kind of consumer (a feed, a group, a subscription) is a class after `Follower`.
"""

import contextlib
import json
import random

import psycopg

from .background import Background


class Index:
    """A copy of a table as a dictionary, by primary key."""

    def __init__(self):
        self.rows = {}

    def apply(self, action, pk, row):
        key = json.dumps(pk, sort_keys=True)
        if action == "D":
            assert self.rows.pop(key, None) is not None, f"{pk} is deleted and was not there"
        elif action == "I":
            assert key not in self.rows, f"{pk} is inserted and was there"
            self.rows[key] = row
        else:
            assert key in self.rows, f"{pk} is updated and was not there"
            self.rows[key] = row

    def clear(self):
        self.rows = {}

    def of_table(self, db, table, key_columns):
        """What the index should be: what the table holds now."""
        found = db.execute(f"select to_jsonb(t) from {table} t")
        return {json.dumps({name: row[name] for name in key_columns}, sort_keys=True): row
                for (row,) in found}


class Follower(Background):
    """Keeps an index equal to a table in a thread, whatever happens to the server's sessions.

    `take(connection)` reads the next changes and applies them: what another kind of consumer
    (a group, a subscription) implements in another way.
    """

    def __init__(self, db):
        super().__init__()
        self.index, self._db = Index(), db

    def take(self, connection):
        raise NotImplementedError

    def _run(self):
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.OperationalError), self._db.connect() as connection:
                while not self._stop.is_set():
                    self.take(connection)


class Turmoil(Background):
    """Changes a table all the time: many rows at once, keys that change and are swapped, TRUNCATE, full
    refreshes, and what else is given as `more`."""

    CHANGES = [
        "insert into {t} select i, 0, 'new' from generate_series(1, 400) i on conflict do nothing",
        "insert into {t} values (trunc(random() * 900), 1) on conflict (id) do update set n = {t}.n + 1",
        "update {t} set n = n + 1 where id % 7 = trunc(random() * 7)",
        "update {t} set id = 1000 - id where id between 1 and 300",
        "update {t} set id = id + 5000 where id < 100",
        "update {t} set id = id - 5000 where id > 5000",
        "delete from {t} where id % 5 = trunc(random() * 5)",
        "truncate {t}",
        "select pgtrickle.outbox_full_refresh('{t}')"]

    def __init__(self, db, table, more=(), seed=11):
        super().__init__()
        self._db, self._chance = db, random.Random(seed)
        self._changes = [change.format(t=table) for change in [*self.CHANGES, *more]]
        db.execute(f"create table {table} (id int primary key, n int, note text)")

    def _run(self):
        with self._db.connect() as connection:
            while not self._stop.is_set():
                # Keys that meet: nothing was changed.
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    connection.execute(self._chance.choice(self._changes))
