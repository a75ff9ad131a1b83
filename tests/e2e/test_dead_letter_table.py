"""One class keeps dead letters in any table with the columns of relay_dlq, whatever its schema."""

import os
import subprocess

import pytest

from support.relay import relay_binary

TABLES = ["pgtrickle.relay_dlq", "pgstream.dead_letters"]


@pytest.fixture(params=TABLES)
def table(db, request):
    db.execute("create schema pgstream")
    db.execute("create table pgstream.dead_letters (like pgtrickle.relay_dlq including all)")
    return request.param


def probe(db, table, *words):
    """What `dead_letter_probe` printed, by line."""
    binary = os.path.join(os.path.dirname(relay_binary()), "dead_letter_probe")
    done = subprocess.run([binary, db.dsn, table, *words], capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_operation_uses_that_table_only(db, table):
    (other,) = set(TABLES) - {table}
    probe(db, table, "store", "m1", "k1")
    probe(db, table, "store", "m1", "k1")
    probe(db, table, "store", "m2", "k2")
    rows = (f"select message_id, attempts, error_code from {table}"
            " where resolved_at is null order by id")
    assert db.execute(rows) == [("m1", 2, "refused"), ("m2", 1, "refused")]
    assert probe(db, table, "parked") == ["k1", "k2"]

    db.execute(f"update {table} set retry_requested_at = now() where message_id = 'm1'")
    assert probe(db, table, "take") == ["m1 k1"]
    probe(db, table, "fail")
    assert db.execute(rows) == [("m1", 3, "again"), ("m2", 1, "refused")]

    db.execute(f"update {table} set retry_requested_at = now() where message_id = 'm2'")
    probe(db, table, "resolve")
    assert db.execute(rows) == [("m1", 3, "again")]
    assert db.one(f"select count(*) from {other}") == 0
