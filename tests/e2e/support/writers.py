"""Rows that keep coming, and what became of them."""

import re

from .background import Background
from .pipelines import SLOW_FACTOR, status_row
from .waiting import eventually


class Writer(Background):
    """Inserts single rows (id, name, amount) until told to stop.

    Ids count from 1. Names are `w`, or, with `keys`, the id modulo that number. `committed` is the
    last id that was committed.
    """

    def __init__(self, db, table="orders", keys=None):
        super().__init__()
        self._db, self._table, self._keys = db, table, keys
        self.committed = 0

    def _run(self):
        with self._db.connect() as connection:
            while not self._stop.is_set():
                number = self.committed + 1
                name = str(number % self._keys) if self._keys else "w"
                connection.execute(f"insert into {self._table} values (%s, %s, %s)",
                                   (number, name, number))
                self.committed = number

    def wait(self, count, deadline=30):
        eventually(lambda: self.committed >= count, deadline * SLOW_FACTOR)


def bulk(db, first, count, size=0, table="orders"):
    """`count` rows in one statement, with names of about `size` characters."""
    db.execute(f"insert into {table} select i, 'row ' || i || repeat('x', %s), i"
               " from generate_series(%s::bigint, %s::bigint) i", (size, first, first + count - 1))


def dead_letters(db, pipeline):
    """(id, error_code, error_message, payload) of what is not resolved."""
    return db.execute("select id, error_code, error_message, convert_from(payload, 'UTF8')"
                      " from pgtrickle.relay_dlq where pipeline = %s and resolved_at is null"
                      " order by id", (pipeline,))


def wait_trouble(relay, db, pipeline, pattern, remedy="", deadline=20):
    """Waits until /health and relay_pipeline_status tell the trouble, and its remedy."""
    def told():
        entry, stored = relay.pipeline(pipeline), status_row(db, pipeline)
        assert re.search(pattern, str(entry["last_error"])), entry
        assert stored and re.search(pattern, str(stored["last_error"])), stored
        assert stored["remedy"] and remedy in stored["remedy"], stored
        return entry
    return eventually(told, deadline * SLOW_FACTOR, message=lambda: relay.log(40))
