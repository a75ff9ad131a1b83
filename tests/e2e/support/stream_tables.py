"""What the tests of stream tables share."""

import json

import pytest

from .waiting import eventually

DEMO_QUERY = """select region, created_at::date as day, sum(amount) as revenue,
                       count(*) as order_count
                from orders group by 1, 2"""

DEMO_TABLE = (
    "set timezone = 'UTC'",
    "create table orders (id bigint generated always as identity primary key, "
    "region text, amount numeric(12, 2), created_at timestamptz not null default now())",
    "insert into orders (region, amount, created_at) values "
    "('europe', 100, '2026-04-27 10:00Z'), ('europe', 50.20, '2026-04-27 11:00Z'), "
    "('asia', 7, '2026-04-27 12:00Z')")


@pytest.fixture
def orders(db):
    """The demo of the documentation: orders, and what they come to by region and day."""
    for statement in DEMO_TABLE:
        db.execute(statement)
    return db


def create(db, name="revenue_by_region", query=DEMO_QUERY, schedule="1ms", mode="AUTO", key=None):
    db.execute("select pgtrickle.create_stream_table(%s, %s, %s, %s, %s)",
               (name, query, schedule, mode, key))


def refresh(db, name="revenue_by_region"):
    return db.one("select pgtrickle.refresh_stream_table(%s)", (name,))


def state(db, name="revenue_by_region"):
    columns = ("status", "consecutive_errors", "last_error", "always_due")
    row = db.execute(f"select {', '.join(columns)} from pgtrickle.pgt_stream_tables "
                     "where pgt_name = %s", (name,))[0]
    return dict(zip(columns, row))


def due(db, at_once=True):
    """What the daemon is told to refresh; `at_once`: however long ago the last refresh was."""
    if at_once:
        db.execute("""update pgtrickle.pgt_stream_tables set next_due_at = now()
                      where pgt_id in (select pgt_id from pgtrickle.pgt_stream_tables
                                       where schedule = '1ms' for no key update skip locked)""")
    with db.connect(user="relay_daemon") as daemon:
        return [row[0] for row in daemon.execute("select * from pgtrickle.stream_tables_due()")]


def settled(db):
    """Refreshes until nothing is due any more."""
    eventually(lambda: [refresh(db, name) for name in due(db)] == [])


class Listener:
    """Collects the notifications of a channel."""

    def __init__(self, db, channel="pg_trickle_alert"):
        self.payloads = []
        self.connection = db.connect()
        self.connection.add_notify_handler(lambda heard: self.payloads.append(heard.payload))
        self.connection.execute(f"listen {channel}")

    def alerts(self, event=None):
        self.connection.execute("select 1")     # the server sends what has been committed with it
        bodies = [json.loads(payload) for payload in self.payloads]
        return [body for body in bodies if event is None or body.get("event") == event]
