"""Statements that change more than the threshold become claim checks; values that jsonb cannot hold."""

import contextlib
import time

import psycopg
import pytest

from support.replay import Replay, orders


def test_more_rows_than_the_threshold_become_a_claim_check_in_key_order(db):
    db.execute("create table lots (a text, b int, v int, primary key (b, a))")
    db.execute("select pgtrickle.enable_outbox('lots', inline_threshold_rows => 10)")
    db.execute("insert into lots select 'k' || n, n % 3, 0 from generate_series(1, 10) n")
    db.execute("insert into lots select 'k' || n, n % 3, 0 from generate_series(11, 21) n "
               "order by random()")
    db.execute("update lots set v = 1 where b = 1 or b = 2")
    replay = Replay(db, "lots")
    assert [row[1:5] for row in replay.entries()] == [
        ("INSERT", 10, 0, False), ("INSERT", 11, 0, True), ("UPDATE", 14, 14, True)]
    assert replay.entries()[1][5] == {"v": 1, "claim_check": True, "refresh_mode": "DIFFERENTIAL",
                                      "refresh_duration_ms": 0}
    pairs = db.execute("select row_op, row_data ->> 'b', row_data ->> 'a', row_data ->> 'v' "
                       "from pgtrickle.outbox_delta_rows_lots where outbox_id = 3 "
                       "order by row_num")
    keys = [row[1:3] for row in pairs[::2]]
    assert keys == [row[1:3] for row in pairs[1::2]] and keys == sorted(keys)
    assert [row[0] for row in pairs] == ["DELETE", "INSERT"] * 14
    replay.check()


def test_more_bytes_than_the_threshold_become_a_claim_check(db):
    db.execute("create table wide (id int primary key, body text)")
    db.execute("select pgtrickle.enable_outbox('wide', inline_threshold_bytes => 10000)")
    db.execute("insert into wide select n, repeat('x', 4000) from generate_series(1, 2) n")
    db.execute("insert into wide select n, repeat('x', 4000) from generate_series(3, 5) n")
    db.execute("update wide set id = id + 10 where id in (1, 2)")
    db.execute("delete from wide where id = 3")
    replay = Replay(db, "wide")
    assert [row[4] for row in replay.entries()] == [False, True, True, False]
    replay.check()


def test_one_large_row_and_many_small_ones_are_measured_too(db):
    db.execute("create table wide (id int primary key, body text)")
    db.execute("select pgtrickle.enable_outbox('wide', inline_threshold_bytes => 4000000)")
    db.execute("insert into wide values (1, repeat('x', 3000000))")
    db.execute("insert into wide values (2, repeat('x', 5000000))")
    db.execute("insert into wide select n, 'small' from generate_series(3, 500) n")
    replay = Replay(db, "wide")
    assert [row[4] for row in replay.entries()] == [False, True, False]
    replay.check()


def compress_quickly(db, table, column):
    """By lz4, where the server was built with it; the default does too, but takes its time."""
    with contextlib.suppress(psycopg.errors.FeatureNotSupported):
        db.execute(f"alter table {table} alter {column} set compression lz4")


def test_a_statement_beyond_what_jsonb_holds_does_not_fail(db):
    db.execute("create table huge (id int primary key, body text)")
    compress_quickly(db, "huge", "body")
    db.execute("select pgtrickle.enable_outbox('huge')")
    db.execute("insert into huge select n, repeat(n::text, 32000000) "
               "from generate_series(1, 9) n")
    assert [row[2:5] for row in Replay(db, "huge").entries()] == [(9, 0, True)]
    assert db.one("select sum(length(row_data ->> 'body')) "
                  "from pgtrickle.outbox_delta_rows_huge") == 9 * 32_000_000


def test_rows_that_are_small_only_when_compressed_are_measured_in_full(db):
    db.execute("create table dense (id int primary key, body text, n int default 0)")
    compress_quickly(db, "dense", "body")
    db.execute("insert into dense select n, repeat('x', 3000000) from generate_series(1, 30) n")
    db.execute("select pgtrickle.enable_outbox('dense')")
    db.execute("select pgtrickle.outbox_full_refresh('dense')")
    db.execute("update dense set n = 1")
    db.execute("update dense set n = 2 where id = 1")
    db.execute("delete from dense where id = 2")
    replay = Replay(db, "dense")
    assert [row[4] for row in replay.entries()] == [True] * 4
    replay.check()


def test_a_value_beyond_what_jsonb_holds_is_left_out_and_named(db):
    db.execute("create table vast (id int primary key, body text, n int)")
    compress_quickly(db, "vast", "body")
    db.execute("select pgtrickle.enable_outbox('vast')")
    db.execute("insert into vast values (1, repeat('x', 270000000), 5)")
    assert db.execute("select row_data from pgtrickle.outbox_rows('vast', 1)") == [
        ({"id": 1, "n": 5, "body": None, "__pgtrickle_omitted": ["body"]},)]


def test_a_claim_check_survives_a_renamed_key_column(db, orders):
    db.execute("alter table orders rename id to number")
    db.execute("insert into orders select n, 'eu', n from generate_series(1, 11000) n")
    orders.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert orders.config("key_columns") == ["number"]


def test_outbox_rows_shows_both_forms_in_the_order_of_application(db):
    db.execute("create table lots (id int primary key, v int)")
    db.execute("select pgtrickle.enable_outbox('lots', inline_threshold_rows => 2)")
    db.execute("insert into lots values (1, 1), (2, 2)")
    db.execute("insert into lots select n, n from generate_series(3, 5) n")
    db.execute("update lots set v = 9 where id = 1")
    rows = "select row_num, row_op, row_data ->> 'v' from pgtrickle.outbox_rows('lots', %s)"
    assert db.execute(rows, (1,)) == [(1, "INSERT", "1"), (2, "INSERT", "2")]
    assert db.execute(rows, (2,)) == [(1, "INSERT", "3"), (2, "INSERT", "4"), (3, "INSERT", "5")]
    assert db.execute(rows, (3,)) == [(1, "DELETE", "1"), (2, "INSERT", "9")]
    db.execute("select pgtrickle.outbox_rows_consumed('lots', 2)")
    assert len(db.execute(rows, (2,))) == 3
    assert db.one("select last_consumed_id from pgtrickle.pgt_outbox_config") == 2
    assert db.one("select id from pgtrickle.pgt_outbox_latest_lots") == 3


@pytest.mark.parametrize("keys", ["", "deferrable initially deferred"])
@pytest.mark.parametrize("capture", ["auto", "row"])
def test_the_time_of_a_statement_grows_with_its_rows_not_with_their_square(db, capture, keys):
    """Each row of an UPDATE has an old and a new one."""
    db.execute(f"create table items (id int primary key {keys}, part int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => %s)", (capture,))
    took = {}
    for statement in ("insert into items select n, 1 from generate_series(1, 20000) n",
                      "update items set part = part + 1", "update items set id = -id",
                      "delete from items"):
        began = time.monotonic()
        db.execute(statement)
        took[statement] = time.monotonic() - began
    inserting = took.pop("insert into items select n, 1 from generate_series(1, 20000) n")
    assert max(took.values()) < 1 + 20 * inserting, (inserting, took)
