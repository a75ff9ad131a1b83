"""Inboxes as SQL sees them."""

import psycopg
import psycopg.sql
import pytest


@pytest.fixture
def admin(db):
    """A session of an administrator who is nothing else."""
    with psycopg.connect(db.login("inbox_admin", "pgtrickle_admin"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def inbox(db):
    db.execute("select pgtrickle.create_inbox('shop')")
    return "pgtrickle.inbox_shop"


def arrive(db, *ids, table="pgtrickle.inbox_shop", age="0"):
    for identity in ids:
        db.execute(f"insert into {table} (event_id, event_type, payload, received_at) "
                   "values (%s, 'order', '{}', clock_timestamp() - %s::interval)", (identity, age))


def ids(db, relation):
    return [row[0] for row in db.execute(f"select event_id from {relation} order by event_id")]


def opened(db, name, table, **settings):
    values = {"max_retries": None, "schedule": None, "with_dead_letter": None,
              "retention_hours": None, "looks_only": False, **settings}
    with psycopg.connect(db.relay_dsn, autocommit=True) as connection:
        return connection.execute(
            "select table_schema, table_name, made from pgtrickle.relay_open_inbox(%s, %s, "
            "%(a)s, %(b)s, %(c)s, %(d)s, %(e)s)".replace("%s", "%(n)s", 1).replace("%s", "%(t)s"),
            {"n": name, "t": table, "a": values["max_retries"], "b": values["schedule"],
             "c": values["with_dead_letter"], "d": values["retention_hours"],
             "e": values["looks_only"]}).fetchone()
