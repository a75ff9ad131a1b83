"""What is in an inbox."""

from .pipelines import SLOW_FACTOR
from .waiting import eventually


def count(db, table="pgtrickle.inbox_shop"):
    """Rows of the inbox; 0 while there is none."""
    if db.one("select to_regclass(%s)", (table,)) is None:
        return 0
    return db.one(f"select count(*) from {table}")


def wait_count(db, wanted, relay, table="pgtrickle.inbox_shop", deadline=30):
    """Waits until that many rows are in the inbox, and no more."""
    eventually(lambda: count(db, table) >= wanted, deadline * SLOW_FACTOR,
               message=lambda: f"{count(db, table)} rows\n{relay.log(40)}")
    assert count(db, table) == wanted
