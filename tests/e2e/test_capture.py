"""Capture on ordinary tables: whoever applies an outbox row after row, by id, has the table.

Every test ends with that: `Replay` takes the deltas from payloads and claim checks, in order, and
its rows must equal the table's.
"""

import collections
import contextlib
import random
import threading

import psycopg
import pytest

from support.waiting import eventually


class Replay:
    """Applies an outbox as a consumer would: strictly, a deleted row must have been there."""

    def __init__(self, db, table):
        self.db = db
        self.table = table
        self.outbox = self.config("outbox_table_name")
        self.delta = self.config("delta_table_name")

    def config(self, column):
        return self.db.one(
            f"select {column} from pgtrickle.pgt_outbox_config "
            "where stream_table_oid = %s::regclass", (self.table,))

    def entries(self):
        """(id, tg_op, inserted_count, deleted_count, is_claim_check, payload) by id."""
        return self.db.execute(
            f'select id, tg_op, inserted_count, deleted_count, is_claim_check, payload '
            f'from pgtrickle."{self.outbox}" order by id')

    def ops(self):
        return [row[1] for row in self.entries()]

    def _changes(self, id, claim_check):
        if claim_check:
            rows = self.db.execute(
                f'select row_num, row_op, row_data::text from pgtrickle."{self.delta}" '
                "where outbox_id = %s order by row_num", (id,))
            assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
            return [row[1:] for row in rows]
        return self.db.execute(
            f"""select op, r::text from pgtrickle."{self.outbox}" o,
                lateral (select 1, 'DELETE', * from jsonb_array_elements(payload -> 'deleted')
                         union all
                         select 2, 'INSERT', * from jsonb_array_elements(payload -> 'inserted'))
                  c (phase, op, r)
                where o.id = %s order by phase""", (id,))

    def rows(self, strict=True):
        have = collections.Counter()
        entries = self.entries()
        if not strict:
            last = max(n for n, row in enumerate(entries) if row[5].get("full_refresh"))
            entries = entries[last:]
        for id, _, inserted, deleted, claim_check, payload in entries:
            assert payload["v"] == 1
            if payload.get("full_refresh"):
                have.clear()
            changes = self._changes(id, claim_check)
            assert sum(op == "INSERT" for op, _ in changes) == inserted
            assert sum(op == "DELETE" for op, _ in changes) == deleted
            for op, row in changes:
                if op == "DELETE":
                    assert have[row] > 0, f"outbox row {id} deletes what is not there: {row}"
                    have[row] -= 1
                else:
                    have[row] += 1
        return +have

    def check(self, strict=True):
        """strict=False: only from the last full refresh on, as a consumer that begins there."""
        rows = self.db.execute(f"select to_jsonb(x.*)::text from {self.table} x")
        assert self.rows(strict) == collections.Counter(row[0] for row in rows)


@pytest.fixture
def orders(db):
    """A table with an outbox, empty."""
    db.execute("create table orders (id int primary key, region text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    return Replay(db, "orders")


# What a statement leaves -----------------------------------------------------------------------

def test_each_statement_gives_one_row_with_its_counts_and_operation(db, orders):
    db.execute("insert into orders values (1, 'eu', 1.5), (2, 'us', 2)")
    db.execute("update orders set amount = amount + 1")
    db.execute("delete from orders where id = 1")
    assert [row[1:5] for row in orders.entries()] == [
        ("INSERT", 2, 0, False), ("UPDATE", 2, 2, False), ("DELETE", 0, 1, False)]
    orders.check()


def test_payload_has_the_documented_shape(db, orders):
    db.execute("insert into orders values (1, 'eu', 1.50)")
    payload = orders.entries()[0][5]
    assert payload == {"v": 1, "inserted": [{"id": 1, "region": "eu", "amount": 1.5}],
                       "deleted": [], "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 0}


def test_statements_without_rows_leave_nothing(db, orders):
    db.execute("insert into orders select 1, 'x', 1 where false")
    db.execute("update orders set amount = 0")
    db.execute("delete from orders")
    assert orders.entries() == []


def test_key_change_is_a_delete_and_an_insert(db, orders):
    db.execute("insert into orders values (1, 'eu', 1), (2, 'eu', 2)")
    db.execute("update orders set id = id + 10")
    payload = orders.entries()[1][5]
    assert [r["id"] for r in payload["deleted"]] == [1, 2]
    assert [r["id"] for r in payload["inserted"]] == [11, 12]
    orders.check()


def test_truncate_is_a_full_refresh_without_rows(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("truncate orders")
    assert orders.entries()[1][5] == {
        "v": 1, "inserted": [], "deleted": [], "full_refresh": True,
        "refresh_mode": "FULL", "refresh_duration_ms": 0}
    db.execute("insert into orders values (2, 'us', 2)")
    orders.check()


def test_truncate_cascade_reaches_the_outbox_of_the_referencing_table(db, orders):
    db.execute("create table lines (order_id int references orders, n int)")
    db.execute("select pgtrickle.enable_outbox('lines')")
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("insert into lines values (1, 1), (1, 1)")
    db.execute("truncate orders cascade")
    orders.check()
    Replay(db, "lines").check()


def test_on_conflict_gives_an_update_and_an_insert(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("insert into orders values (1, 'eu', 5), (2, 'us', 2) "
               "on conflict (id) do update set amount = excluded.amount")
    db.execute("insert into orders values (1, 'eu', 7) on conflict do nothing")
    assert orders.ops() == ["INSERT", "UPDATE", "INSERT"]
    orders.check()


def test_merge_gives_up_to_three_rows(db, orders):
    if db.server.version < 15:
        pytest.skip("MERGE came with PostgreSQL 15")
    db.execute("insert into orders values (1, 'eu', 1), (2, 'us', 2)")
    db.execute("merge into orders o using (values (1), (2), (3)) v (i) on o.id = v.i "
               "when matched and v.i = 1 then delete "
               "when matched then update set amount = 20 "
               "when not matched then insert values (v.i, 'asia', 3)")
    assert sorted(orders.ops()[1:]) == ["DELETE", "INSERT", "UPDATE"]
    orders.check()


def test_copy_is_one_statement(db, orders):
    with db.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("copy orders from stdin") as copy:
            for n in range(150):
                copy.write_row((n, "eu", n))
    assert [row[1:5] for row in orders.entries()] == [("INSERT", 150, 0, False)]
    orders.check()


def test_data_modifying_ctes_are_recorded_each(db, orders):
    db.execute("insert into orders values (1, 'eu', 1), (2, 'us', 2)")
    db.execute("with gone as (delete from orders where id = 1 returning *), "
               "moved as (update orders set region = 'asia' where id = 2 returning *) "
               "insert into orders select id + 10, region, amount from gone "
               "union all select id + 10, region, amount from moved")
    assert sorted(orders.ops()[1:]) == ["DELETE", "INSERT", "UPDATE"]
    orders.check()


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
def test_foreign_key_actions_are_recorded_on_the_child(db, orders, action):
    db.execute("create table lines (id int primary key, order_id int default 3 "
               f"references orders on delete {action} on update cascade)")
    db.execute("select pgtrickle.enable_outbox('lines')")
    db.execute("insert into orders select n, 'eu', n from generate_series(1, 5) n")
    db.execute("insert into lines select n, n % 5 + 1 from generate_series(1, 50) n")
    db.execute("update orders set id = id + 100 where id = 1")
    db.execute("delete from orders where id in (2, 4, 5)")
    orders.check()
    Replay(db, "lines").check()


def test_a_cascade_within_one_table_is_recorded(db):
    db.execute("create table tree (id int primary key, "
               "parent int references tree on delete cascade on update cascade)")
    db.execute("select pgtrickle.enable_outbox('tree')")
    db.execute("insert into tree values (1, null), (2, 1), (3, 2), (4, 1), (5, null), (6, 5)")
    db.execute("update tree set id = id + 10 where id = 1")
    db.execute("delete from tree where id in (11, 3)")
    replay = Replay(db, "tree")
    replay.check()
    assert db.one("select count(*) from tree") == 2


def test_rolled_back_work_leaves_nothing(db, orders):
    with db.connect(autocommit=False) as connection:
        connection.execute("insert into orders values (1, 'eu', 1)")
        connection.execute("savepoint s")
        connection.execute("update orders set amount = 2")
        connection.execute("delete from orders")
        connection.execute("rollback to s")
        connection.execute("insert into orders values (2, 'us', 2)")
        connection.commit()
    assert orders.ops() == ["INSERT", "INSERT"]
    orders.check()


def test_a_prepared_transaction_is_recorded_when_it_commits(db, orders):
    with db.connect() as connection:
        connection.execute("begin")
        connection.execute("insert into orders values (1, 'eu', 1)")
        connection.execute("update orders set amount = 2")
        connection.execute("prepare transaction 'two-phase'")
    assert orders.entries() == []
    db.execute("commit prepared 'two-phase'")
    assert orders.ops() == ["INSERT", "UPDATE"]
    orders.check()


def test_publishers_do_not_wait_for_each_other(db, orders):
    with db.connect(autocommit=False) as slow, db.connect(autocommit=False) as quick:
        slow.execute("insert into orders values (1, 'eu', 1)")
        quick.execute("set lock_timeout = '2s'")
        quick.execute("insert into orders values (2, 'eu', 1)")
        quick.commit()
        slow.commit()
    orders.check()


def test_a_writer_needs_no_right_on_the_outbox(db, orders):
    dsn = db.login("writer")
    db.execute("grant insert, update, delete, select on orders to writer")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("insert into orders values (1, 'eu', 1)")
        connection.execute("update orders set amount = 3")
        connection.execute("create temp table outbox_orders (x int)")
        connection.execute("set search_path = pg_temp")
        connection.execute("delete from public.orders")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from pgtrickle.outbox_orders")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select pgtrickle._capture_1_insert()")
    assert orders.ops() == ["INSERT", "UPDATE", "DELETE"]


def test_notify_is_sent_only_where_it_was_asked_for(db, orders):
    db.execute("create table loud (id int)")
    db.execute("select pgtrickle.enable_outbox('loud', notify => true)")
    heard = []
    with db.connect() as connection:
        connection.add_notify_handler(lambda note: heard.append(note.payload))
        connection.execute("listen pgtrickle_outbox_new")
        connection.execute("insert into orders values (1, 'eu', 1)")
        connection.execute("insert into loud values (1)")
        connection.execute("update loud set id = 2")
        connection.execute("truncate loud")
        connection.execute("notify pgtrickle_outbox_new, 'end'")
        eventually(lambda: connection.execute("select 1") and heard[-1:] == ["end"])
    assert heard == ["outbox_loud"] * 3 + ["end"]


# Values ----------------------------------------------------------------------------------------

def test_values_of_all_kinds_arrive_unchanged(db):
    db.execute("create type mood as enum ('calm', 'wild')")
    db.execute("create type pair as (a int, b text)")
    db.execute("create domain price as numeric check (value >= 0)")
    db.execute("""create table kinds (id bigint primary key, n numeric, d price, f float8, t text,
        j json, jb jsonb, ints int[], texts text[], m mood, p pair, b bytea, ts timestamptz,
        r int4range, u uuid, x xml, point point, "Weird ""col.umn" text,
        twice int generated always as (length(t) * 2) stored)""")
    db.execute("select pgtrickle.enable_outbox('kinds')")
    digits = "1234567890123456789012345678901234567890"
    db.execute("""insert into kinds values (9223372036854775807, %s, %s, 0.1, %s,
        '{"b": 1.50, "a": [1,2,  3]}', '{"k": 12345678901234567890.123}', '{{1,2},{3,null}}',
        '{"a b","ü","NULL",null}', 'wild', '(7,"x y")', '\\x00ff', '2026-01-02 03:04:05.678901+02',
        '[1,5)', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '<a>&amp;</a>', '(1,2)', 'weird')""",
               (digits + "." + digits, digits, "naïve 🦆 \\ \" \n\t 中文"))
    db.execute("insert into kinds (id) values (2)")
    db.execute("insert into kinds (id, n, f) values (3, 'NaN', '-Infinity')")
    db.execute("update kinds set t = t || '!'")
    Replay(db, "kinds").check()
    text = db.one("select payload::text from pgtrickle.outbox_kinds where id = 1")
    assert digits + "." + digits in text and "9223372036854775807" in text


def test_columns_named_as_our_own_words_do_not_disturb(db):
    db.execute('create table words (id int primary key, x int, s int, r int, j int, new_rows int, '
               'old_rows int, "new" int, "old" int, marks int, total int, written int, bytes int, '
               'outbox int, inserted int, deleted int, row_op text, row_data text, tg_op text)')
    db.execute("select pgtrickle.enable_outbox('words', inline_threshold_rows => 2)")
    db.execute("insert into words (id, x) values (1, 2)")
    db.execute("insert into words (id, x) select n, n from generate_series(2, 9) n")
    db.execute("update words set x = 1, r = 5")
    db.execute("delete from words where id < 4")
    replay = Replay(db, "words")
    assert [row[4] for row in replay.entries()] == [False, True, True, True]
    replay.check()


def test_an_unchanged_large_column_is_recorded_whole(db):
    db.execute("create table docs (id int primary key, body text, n int)")
    db.execute("alter table docs alter body set storage external")
    db.execute("select pgtrickle.enable_outbox('docs')")
    db.execute("insert into docs select n, repeat(md5(n::text), 600), 0 "
               "from generate_series(1, 5) n")
    db.execute("update docs set n = 1")
    Replay(db, "docs").check()


def test_a_changed_table_definition_is_followed_at_once(db, orders):
    with db.connect() as writer:
        writer.execute("insert into orders values (1, 'eu', 1)")
        writer.execute("update orders set amount = 2")
        db.execute("alter table orders add column note text default 'none'")
        writer.execute("insert into orders values (2, 'us', 2, 'new column')")
        writer.execute("update orders set note = 'x' where id = 2")
        db.execute("alter table orders drop column region")
        writer.execute("insert into orders values (3, 3, 'less')")
        writer.execute("delete from orders where id = 2")
        writer.execute("update orders set amount = amount where id = 3")
    assert [sorted(row[5]["inserted"][0]) for row in orders.entries() if row[5]["inserted"]][-1] \
        == ["amount", "id", "note"]


# Claim check -----------------------------------------------------------------------------------

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


# Triggers of the user's ------------------------------------------------------------------------

NEIGHBOUR_TRIGGERS = {
    "after row": """
        create function renumber() returns trigger language plpgsql as $$ begin
          update items set pos = pos + 1 where list = new.list and pos >= new.pos and id <> new.id;
          return null; end $$;
        create trigger renumber after insert on items for each row execute function renumber()""",
    "before row": """
        create function renumber() returns trigger language plpgsql as $$ begin
          update items set pos = pos + 1 where list = new.list and pos >= new.pos;
          return new; end $$;
        create trigger renumber before insert on items for each row execute function renumber()""",
    "after statement": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            insert into items select id + 1000, list, pos from added;
            update items set pos = -pos where id in (select id from added);
          end if; return null; end $$;
        create trigger "0" after insert on items referencing new table as added
          for each statement execute function renumber()""",
    "before statement": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            update items set pos = pos + 100; delete from items where pos > 300;
          end if; return null; end $$;
        create trigger renumber before insert on items for each statement
          execute function renumber()""",
    "three levels": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() > 3 then return null; end if;
          if new.pos < 3 then update items set pos = pos + 1 where list = new.list;
          elsif new.pos < 5 then delete from items where id = new.id - 1;
            update items set list = list + 1 where id = new.id; end if;
          return null; end $$;
        create trigger renumber after insert or update on items for each row
          execute function renumber()""",
}


@pytest.mark.parametrize("capture", ["auto", "row"])
@pytest.mark.parametrize("kind", NEIGHBOUR_TRIGGERS)
def test_user_triggers_that_write_to_the_same_table_are_recorded_in_their_order(db, kind, capture):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => %s)", (capture,))
    db.execute(NEIGHBOUR_TRIGGERS[kind])
    db.execute("insert into items select n, n % 2, n from generate_series(1, 6) n")
    db.execute("insert into items values (11, 0, 2), (12, 1, 2), (13, 0, 2)")
    with contextlib.suppress(psycopg.errors.CardinalityViolation):  # the server's own limit
        db.execute("insert into items values (11, 0, 1), (14, 0, 1) on conflict (id) "
                   "do update set pos = 0")
    db.execute("update items set pos = pos where id % 2 = 0")
    replay = Replay(db, "items")
    replay.check()


def replay_by_key(db, table, key):
    """As a consumer that keeps the last row of each key, and forgets a key when it is deleted.

    An update is recognised by its key, as a row with that key among deleted and inserted ones.
    """
    replay = Replay(db, table)
    have = {}
    for _, _, _, _, _, payload in replay.entries():
        inserted = {row[key]: row for row in payload["inserted"]}
        for row in payload["deleted"]:
            if row[key] not in inserted:
                have.pop(row[key], None)
        have.update(inserted)
    return have


BY_KEY_TRIGGERS = {
    "replaces a row before": ("before insert", """
        delete from items where id = new.id; return new;"""),
    "closes the previous version before": ("before insert", """
        update items set pos = -pos where list = new.list and pos > 0 and id <> new.id;
        return new;"""),
    "gives a freed key away": ("after update", """
        if old.id <> new.id and pg_trigger_depth() = 1 then
          insert into items values (old.id, -1, 0); end if;
        return null;"""),
}


@pytest.mark.parametrize("capture", ["auto", "row"])
@pytest.mark.parametrize("kind", BY_KEY_TRIGGERS)
def test_a_consumer_that_applies_rows_by_key_is_right_too(db, kind, capture):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => %s)", (capture,))
    when, body = BY_KEY_TRIGGERS[kind]
    db.execute(f"""create function meddle() returns trigger language plpgsql as $$ begin
        {body} end $$;
        create trigger meddle {when} on items for each row execute function meddle()""")
    db.execute("insert into items values (1, 0, 1)")
    db.execute("insert into items values (2, 0, 2), (3, 0, 3), (4, 0, 4)")
    if kind == "replaces a row before":
        db.execute("insert into items values (1, 0, 5), (7, 1, 5)")
        db.execute("insert into items values (7, 0, 6), (8, 1, 7), (2, 2, 2)")
    db.execute("update items set id = id + 10 where id in (1, 3)")
    Replay(db, "items").check()
    rows = db.execute("select to_jsonb(x.*) from items x")
    assert replay_by_key(db, "items", "id") == {row["id"]: row for row, in rows}


def test_nested_writes_keep_their_order_among_concurrent_writers(db):
    """The outer statement waits for a row between its nested ones and its end."""
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("insert into items select n, 0, n from generate_series(1, 5) n")
    db.execute("create function audit() returns trigger language plpgsql as $$ begin "
               "insert into items values (old.id + 100, 1, old.pos) on conflict do nothing; "
               "return new; end $$")
    db.execute("create trigger audit before update on items for each row "
               "when (old.id < 100) execute function audit()")
    with db.connect(autocommit=False) as first, db.connect() as second:
        first.execute("delete from items where id = 3")
        waiting = threading.Thread(
            target=second.execute, args=("update items set pos = 0 where id <= 5",))
        waiting.start()
        eventually(lambda: db.one("select count(*) from pg_locks where not granted"))
        first.execute("update items set pos = 77 where id = 5")
        first.commit()
        waiting.join()
    assert db.one("select count(*) from items where pos = 0") == 4
    Replay(db, "items").check()


def test_a_failed_nested_write_leaves_the_order_intact(db):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("""create function risky() returns trigger language plpgsql as $$ begin
        begin update items set pos = pos + 1 where id <> new.id; perform 1 / (new.pos - 2);
        exception when division_by_zero then null; end;
        return null; end $$;
        create trigger risky after insert on items for each row execute function risky()""")
    db.execute("insert into items values (1, 0, 1), (2, 0, 2), (3, 0, 3)")
    Replay(db, "items").check()


WRITES_BEFORE = {
    "another table's trigger": "insert into source values (1)",
    "its own trigger": "insert into items values (1, 100), (5, 5)",
}


@pytest.mark.parametrize("then", ["update", "cascade"])
@pytest.mark.parametrize("first", WRITES_BEFORE)
def test_what_triggers_wrote_in_earlier_statements_stays_before_later_ones(db, first, then):
    db.execute("""create table source (id int);
        create table parents (id int primary key); insert into parents values (1);
        create table items (id int primary key, n int,
                            parent int default 1 references parents on update cascade)""")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("""create function feed() returns trigger language plpgsql as $$ begin
          insert into items values (new.id, 1); return null; end $$;
        create trigger feed after insert on source for each row execute function feed();
        create function again() returns trigger language plpgsql as $$ begin
          if new.n = 100 then update items set n = 101 where id = new.id; end if;
          return null; end $$;
        create trigger again after insert on items for each row execute function again()""")
    later = {"update": "update items set n = n + 1",
             "cascade": "update parents set id = id + 1"}[then]
    with db.connect() as connection:
        connection.execute("begin")
        connection.execute(WRITES_BEFORE[first])
        connection.execute(later)
        connection.execute("select 1")
        connection.execute(later)
        connection.execute("commit")
    Replay(db, "items").check()
    db.execute("delete from items; delete from parents; insert into parents values (1)")
    db.execute(f"do $$ begin {WRITES_BEFORE[first]}; {later}; {later}; end $$")
    Replay(db, "items").check()


def test_a_cascade_with_triggers_on_the_child_is_recorded_in_order(db):
    db.execute("create table parents (id int primary key)")
    db.execute("create table children (id int primary key, n int default 0, "
               "parent int references parents on update cascade on delete set null)")
    db.execute("select pgtrickle.enable_outbox('children')")
    db.execute("""create function touch() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() = 1 then
          update children set n = n + 1 where parent is not distinct from new.parent; end if;
        return null; end $$;
        create trigger touch after update on children for each row execute function touch()""")
    db.execute("insert into parents values (1), (2)")
    db.execute("insert into children select n, 0, n % 2 + 1 from generate_series(1, 6) n")
    db.execute("update parents set id = id + 10")
    db.execute("delete from parents where id = 11")
    Replay(db, "children").check()


def test_a_nested_claim_check_moves_with_its_rows(db):
    db.execute("create table items (id int primary key, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', inline_threshold_rows => 3)")
    db.execute("""create function shift() returns trigger language plpgsql as $$ begin
        update items set pos = pos + 1; return null; end $$;
        create trigger shift after insert on items for each row execute function shift()""")
    db.execute("insert into items select n, n from generate_series(1, 6) n")
    Replay(db, "items").check()
    assert db.one("select count(*) from pgtrickle.outbox_delta_rows_items d where not exists "
                  "(select from pgtrickle.outbox_items o where o.id = d.outbox_id)") == 0


# Row capture, replication ----------------------------------------------------------------------

def test_row_capture_gives_one_outbox_row_a_row(db):
    db.execute("create table items (id int primary key, v int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => 'row', "
               "inline_threshold_bytes => 2000)")
    db.execute("alter table items add body text")
    db.execute("insert into items values (1, 1), (2, 2)")
    db.execute("update items set v = 3")
    db.execute("update items set body = repeat('x', 3000) where id = 1")
    db.execute("delete from items where id = 1")
    replay = Replay(db, "items")
    assert [row[1:5] for row in replay.entries()] == [
        ("INSERT", 1, 0, False), ("INSERT", 1, 0, False), ("UPDATE", 1, 1, False),
        ("UPDATE", 1, 1, False), ("UPDATE", 1, 1, True), ("DELETE", 0, 1, True)]
    replay.check()


@pytest.mark.parametrize("role, ops", [
    ("origin", ["INSERT", "UPDATE", "DELETE"]),
    ("replica", ["INSERT", "INSERT", "UPDATE", "UPDATE", "DELETE"])])
@pytest.mark.parametrize("by_hand", [False, True])
def test_each_change_is_recorded_once_whatever_the_replication_role(db, orders, role, ops,
                                                                    by_hand):
    if by_hand:
        db.execute("alter table orders enable trigger all")
        if role == "replica":
            assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
            assert orders.entries()[0][5]["full_refresh"]
            ops = [None, *ops]
    with db.connect() as connection:
        connection.execute(f"set session_replication_role = {role}")
        connection.execute("insert into orders values (1, 'eu', 1), (2, 'us', 2)")
        connection.execute("update orders set amount = 5")
        connection.execute("delete from orders where id = 1")
    assert orders.ops() == ops
    orders.check()


@pytest.fixture
def subscription(pg_server, db):
    """subscription(tables): `db` follows a new database; yields that one."""
    publisher = pg_server.create_database(template="template0")
    made = []

    def subscribe(definition, tables):
        publisher.execute(definition)
        publisher.execute(f"create publication p for table {tables}")
        slot = f"slot_{db.name}"
        publisher.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        made.append(slot)
        db.execute(f"create subscription s connection '{publisher.dsn}' publication p "
                   f"with (create_slot = false, slot_name = '{slot}')")
        return publisher

    yield subscribe
    if made:
        db.execute("alter subscription s disable")
        db.execute("alter subscription s set (slot_name = none)")
        db.execute("drop subscription s")
        eventually(lambda: not publisher.one(
            "select active from pg_replication_slots where slot_name = %s", (made[0],)))
        publisher.execute("select pg_drop_replication_slot(%s)", (made[0],))
    publisher.drop()


def caught_up(db, publisher, table):
    """Waits until the subscriber's table equals the publisher's."""
    query = f"select to_jsonb(x.*)::text from {table} x order by 1"
    eventually(lambda: db.execute(query) == publisher.execute(query), deadline=30)


@pytest.mark.parametrize("capture", ["auto", "row"])
def test_changes_applied_by_logical_replication_are_recorded(db, subscription, capture):
    definition = "create table orders (id int primary key, region text, amount numeric)"
    db.execute(definition)
    db.execute("select pgtrickle.enable_outbox('orders', capture => %s)", (capture,))
    publisher = subscription(
        definition + "; insert into orders select n, 'old', n from generate_series(1, 20) n",
        "orders")
    caught_up(db, publisher, "orders")
    replay = Replay(db, "orders")
    replay.check()
    publisher.execute("insert into orders values (101, 'eu', 1), (102, 'us', 2)")
    publisher.execute("update orders set amount = amount + 1 where id > 100")
    publisher.execute("update orders set id = id + 1000 where id = 101")
    publisher.execute("delete from orders where id <= 10")
    caught_up(db, publisher, "orders")
    replay.check()
    publisher.execute("truncate orders")
    publisher.execute("insert into orders values (1, 'new', 1)")
    caught_up(db, publisher, "orders")
    replay.check()
    db.execute("insert into orders values (5000, 'local', 1), (5001, 'local', 2)")
    replay.check()


def test_replication_into_a_partitioned_table_is_recorded(db, subscription):
    definition = ("create table orders (id int primary key, amount int) partition by range (id);"
                  "create table orders_1 partition of orders for values from (0) to (100);"
                  "create table orders_2 partition of orders for values from (100) to (200)")
    db.execute(definition)
    db.execute("select pgtrickle.enable_outbox('orders')")
    publisher = subscription(definition, "orders")
    publisher.execute("insert into orders select n, n from generate_series(1, 150) n")
    publisher.execute("update orders set id = id + 90 where id = 90")
    publisher.execute("delete from orders where id > 140")
    caught_up(db, publisher, "orders")
    Replay(db, "orders").check()


# Partitions ------------------------------------------------------------------------------------

@pytest.fixture
def events(db):
    """A partitioned table, a part partitioned again, one with other columns; and its outbox."""
    db.execute("""
        create table events (id int, part int, body text, primary key (id, part))
          partition by range (part);
        create table events_1 partition of events for values from (0) to (10);
        create table events_2 (body text, dropped int, part int not null, id int not null);
        alter table events_2 drop column dropped;
        alter table events attach partition events_2 for values from (10) to (20);
        create table events_3 partition of events for values from (20) to (40)
          partition by range (part);
        create table events_3a partition of events_3 for values from (20) to (30);
        create table events_3b partition of events_3 for values from (30) to (40)""")
    db.execute("select pgtrickle.enable_outbox('events', capture => 'statement')")
    return Replay(db, "events")


def test_a_merge_that_inserts_before_it_updates_is_recorded_as_it_was(db):
    if db.server.version < 15:
        return  # no MERGE
    db.execute("create table stock (id int primary key, n int) partition by range (id)")
    db.execute("create table stock_1 partition of stock default")
    db.execute("select pgtrickle.enable_outbox('stock')")
    stock = Replay(db, "stock")
    db.execute("insert into stock values (2, 0), (4, 0)")
    db.execute("merge into stock t using generate_series(1, 5) s (id) on t.id = s.id"
               " when matched then update set n = t.n + 1"
               " when not matched then insert values (s.id, 9)")
    stock.check()


def test_statements_on_the_parent_are_recorded_once_for_all_partitions(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("update events set body = 'y' where part % 2 = 0")
    db.execute("delete from events where part % 5 = 0")
    assert [row[1:4] for row in events.entries()] == [
        ("INSERT", 40, 0), ("UPDATE", 20, 20), ("DELETE", 0, 8)]
    events.check()


def test_rows_that_move_between_partitions_are_updates(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("update events set part = (part + 13) % 40")
    assert events.ops() == ["INSERT", "UPDATE"]
    db.execute("insert into events values (3, 16, 'z') on conflict (id, part) "
               "do update set body = excluded.body")
    events.check()


def test_statements_on_a_partition_are_recorded(db, events):
    db.execute("insert into events_1 values (1, 1, 'x'), (2, 2, 'x')")
    db.execute("insert into events_2 (id, part, body) values (3, 12, 'x')")
    db.execute("insert into events_3 values (4, 22, 'x'), (5, 33, 'x')")
    db.execute("update events_3 set part = part + 5 where id = 4")
    db.execute("update events_3a set body = 'leaf'")
    db.execute("delete from events_1 where id = 1")
    with db.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("copy events_3b from stdin") as copy:
            copy.write_row((9, 39, "copied"))
    assert len(events.entries()) == 7
    events.check()


def test_truncating_one_partition_deletes_its_rows(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("truncate events_2")
    db.execute("truncate events_3")
    assert [row[3] for row in events.entries()] == [0, 10, 10, 10]
    events.check()
    db.execute("truncate events")
    assert events.entries()[-1][5]["full_refresh"] and len(events.entries()) == 5
    db.execute("insert into events values (1, 1, 'again')")
    db.execute("truncate events_1")
    events.check()


def test_a_new_partition_is_recorded_from_its_first_row(db, events):
    db.execute("create table events_4 partition of events for values from (40) to (50)")
    db.execute("insert into events_4 values (1, 41, 'direct'), (2, 42, 'direct')")
    db.execute("insert into events values (3, 43, 'by the parent'), (4, 4, 'by the parent')")
    db.execute("update events set part = 44 where id = 4")
    events.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0
    before = len(events.entries())
    db.execute("insert into events_4 values (5, 45, 'direct'), (6, 46, 'direct')")
    assert len(events.entries()) == before + 1
    db.execute("truncate events_4")
    events.check()


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_attached_detached_and_dropped_partitions_are_followed(db, capture):
    db.execute("create table events (id int, part int) partition by range (part)")
    db.execute("create table events_1 partition of events for values from (0) to (10)")
    db.execute("select pgtrickle.enable_outbox('events', capture => %s)", (capture,))
    events = Replay(db, "events")
    upkeep = "select pgtrickle.outbox_capture_upkeep()"
    db.execute("insert into events select n, n % 10 from generate_series(1, 30) n")
    db.execute("create table events_2 (id int, part int)")
    db.execute("insert into events_2 select n, 10 + n % 10 from generate_series(1, 30) n")
    db.execute("alter table events attach partition events_2 for values from (10) to (20)")
    db.execute("delete from events where part = 12")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    db.execute("insert into events_2 values (99, 19)")
    db.execute("alter table events detach partition events_1")
    db.execute("update events_1 set id = -1")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    assert db.one("select count(*) from pg_trigger where tgrelid = 'events_1'::regclass") == 0
    db.execute("alter table events attach partition events_1 for values from (0) to (10)")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    db.execute("drop table events_2")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    assert db.one(upkeep) == 0
    assert events.config("problem") is None


def test_an_outbox_on_one_partition_records_what_reaches_it(db):
    db.execute("create table events (id int, part int) partition by range (part)")
    db.execute("create table events_1 partition of events for values from (0) to (10)")
    db.execute("create table events_2 partition of events for values from (10) to (20)")
    db.execute("select pgtrickle.enable_outbox('events_1')")
    db.execute("insert into events select n, n from generate_series(0, 19) n")
    db.execute("update events set part = part - 5 where part >= 5")
    db.execute("insert into events_1 values (50, 5)")
    one = Replay(db, "events_1")
    assert one.config("capture") == "row"
    one.check()
    db.execute("select pgtrickle.enable_outbox('events')")
    db.execute("select pgtrickle.outbox_full_refresh('events')")
    db.execute("delete from events where id = 3")
    db.execute("truncate events")
    one.check()
    Replay(db, "events").check()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is a partition"):
        db.execute("select pgtrickle.enable_outbox('events_2', capture => 'statement')")


# Upkeep ----------------------------------------------------------------------------------------

def test_triggers_that_were_switched_off_are_noticed_and_mended(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("alter table orders disable trigger user")
    db.execute("insert into orders values (2, 'eu', 2)")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    orders.check()
    db.execute("insert into orders values (3, 'eu', 3)")
    orders.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0


def test_upkeep_without_the_owners_rights_says_what_to_do(db, events):
    db.execute("create table events_4 partition of events for values from (40) to (50)")
    with db.connect(user="relay_daemon") as relay:
        relay.execute("select pgtrickle.relay_housekeeping()")
    assert "outbox_capture_upkeep()" in events.config("problem")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert events.config("problem") is None
    events.check()


def test_full_refresh_records_all_rows_anew(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("alter table orders disable trigger user")
    db.execute("insert into orders select n, 'eu', n from generate_series(2, 30) n")
    db.execute("alter table orders enable trigger user")
    id = db.one("select pgtrickle.outbox_full_refresh('orders')")
    last = orders.entries()[-1]
    assert last[0] == id and last[2:5] == (30, 0, True) and last[5]["full_refresh"]
    orders.check()
    assert not db.one("select has_table_privilege('pgtrickle_owner', 'orders', 'select')")


def test_renaming_the_table_keeps_the_outbox(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("create schema shop")
    db.execute("alter table orders rename to sales")
    db.execute("alter table sales set schema shop")
    db.execute("insert into shop.sales values (2, 'eu', 2)")
    Replay(db, "shop.sales").check()
    for name in ["orders", "public.orders", "sales", "shop.sales", "outbox_orders"]:
        assert db.one("select outbox_table_name from pgtrickle.relay_resolve_outbox(%s)",
                      (name,)) == "outbox_orders"
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0


def test_the_outbox_of_a_dropped_table_stays_until_its_rows_are_gone(db, orders):
    db.execute("insert into orders values (1, 'eu', 1)")
    db.execute("drop table orders")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert db.one("select count(*) from pgtrickle.outbox_orders") == 1
    assert db.one("select source_dropped_at is not null "
                  "from pgtrickle.relay_resolve_outbox('orders')")
    db.execute("create table orders (id int)")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert "enable_outbox" in db.one("select problem from pgtrickle.pgt_outbox_config")
    db.execute("delete from pgtrickle.outbox_orders")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert db.one("select to_regclass('pgtrickle.outbox_orders')") is None
    assert db.one("select pgtrickle.enable_outbox('orders')") == "outbox_orders"


# Enabling, disabling ---------------------------------------------------------------------------

NAMES = ["my-orders", "{outbox} {op}", "MyOrders", 'with "quotes"', "with.dots", "ümlaut näme",
         "per%cent {x}", "semi;colon' --", "n" * 63, "é" * 31]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_kinds_work(db, name):
    quoted = '"' + name.replace('"', '""') + '"'
    db.execute(f'create table {quoted} (id int primary key, "a-b" text)')
    outbox = db.one("select pgtrickle.enable_outbox(%s, inline_threshold_rows => 2)", (name,))
    assert len(outbox.encode()) <= 63
    db.execute(f"insert into {quoted} values (1, 'x')")
    db.execute(f"update {quoted} set \"a-b\" = 'y'")
    db.execute(f"insert into {quoted} select n, 'x' from generate_series(2, 9) n")
    assert [row[1] for row in db.execute(
        "select row_num, row_op from pgtrickle.outbox_rows(%s, 2)", (name,))] == [
            "DELETE", "INSERT"]
    assert len(db.execute("select * from pgtrickle.outbox_rows(%s, 3)", (name,))) == 8
    db.execute("select pgtrickle.disable_outbox(%s)", (name,))
    db.execute(f"insert into {quoted} values (99, 'x')")
    assert db.one("select count(*) from pg_class where relnamespace = 'pgtrickle'::regnamespace "
                  "and relname in (%s)", (outbox,)) == 0


def test_same_and_long_names_get_outboxes_of_their_own(db):
    db.execute("create schema a; create schema b")
    long = "x" * 60
    for table in ["a.orders", "b.orders", "public.orders", f"a.{long}1", f"a.{long}2"]:
        db.execute(f"create table {table} (id int)")
        db.execute("select pgtrickle.enable_outbox(%s)", (table,))
    names = [row[0] for row in db.execute(
        "select outbox_table_name from pgtrickle.pgt_outbox_config order by outbox_number")]
    assert names[0] == "outbox_orders" and len(set(names)) == 5
    for table in ["a.orders", "b.orders", "public.orders"]:
        db.execute(f"insert into {table} values (1)")
        Replay(db, table).check()
    with pytest.raises(psycopg.errors.AmbiguousAlias, match="ambiguous"):
        db.execute("select * from pgtrickle.relay_resolve_outbox('orders')")


def test_what_cannot_have_an_outbox_is_refused(db, orders):
    db.execute("create view v as select 1; create table base (a int); "
               "create table child () inherits (base); create temp table temporary (a int)")
    for name, message in [("v", "is not a table"), ("base", "inheritance"),
                          ("child", "inheritance"), ("pg_class", "system"),
                          ("pgtrickle.outbox_orders", "system"), ("nowhere", "there is no table"),
                          ("temporary", "temporary"), ("orders", "already has an outbox")]:
        with pytest.raises(psycopg.Error, match=message):
            db.execute("select pgtrickle.enable_outbox(%s)", (name,))
    db.execute("create table t (a int)")
    for options, message in [("retention_hours => 0", "retention_hours"),
                             ("inline_threshold_rows => 0", "inline_threshold_rows"),
                             ("inline_threshold_bytes => 999999999", "inline_threshold_bytes"),
                             ("capture => 'magic'", "capture"),
                             ("key_columns => '{b}'", "key column \"b\"")]:
        with pytest.raises(psycopg.Error, match=message):
            db.execute(f"select pgtrickle.enable_outbox('t', {options})")
    assert db.one("select count(*) from pgtrickle.pgt_outbox_config") == 1


def test_disabling_takes_everything_away(db, events):
    db.execute("insert into events values (1, 1, 'x')")
    db.execute("select pgtrickle.disable_outbox('events')")
    db.execute("insert into events values (2, 2, 'x')")
    db.execute("insert into events_3a values (2, 22, 'x')")
    assert db.one("select count(*) from pg_trigger where tgname like '!pgtrickle%'") == 0
    assert db.one("select count(*) from pg_proc where proname ~ '_capture_[0-9]'") == 0
    assert db.one("select count(*) from pg_class where relname ~ "
                  "'^(outbox_|pgt_outbox_latest_).*events'") == 0
    db.execute("select pgtrickle.disable_outbox('events', if_exists => true)")
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.execute("select pgtrickle.disable_outbox('events')")
    db.execute("select pgtrickle.enable_outbox('events')")


def test_the_owner_of_a_table_enables_its_outbox_and_others_do_not(db):
    owner = db.login("shop_owner", "pgtrickle_admin")
    other = db.login("another_admin", "pgtrickle_admin")
    db.execute("create schema shop authorization shop_owner")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("""create table shop.events (id int, part int)
            partition by range (part);
            create table shop.events_1 partition of shop.events for values from (0) to (10)""")
        connection.execute("select pgtrickle.enable_outbox('shop.events')")
        connection.execute("insert into shop.events values (1, 1), (2, 2)")
        connection.execute("create table shop.events_2 partition of shop.events "
                           "for values from (10) to (20)")
        connection.execute("insert into shop.events_2 values (3, 13)")
        connection.execute("select pgtrickle.outbox_capture_upkeep()")
        connection.execute("truncate shop.events_1")
        connection.execute("select pgtrickle.outbox_full_refresh('shop.events')")
        Replay(db, "shop.events").check()
        with psycopg.connect(other, autocommit=True) as stranger:
            for call in ["disable_outbox('shop.events')", "outbox_full_refresh('shop.events')"]:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    stranger.execute(f"select pgtrickle.{call}")
        connection.execute("select pgtrickle.disable_outbox('shop.events')")


def test_enabling_waits_for_a_writer_without_holding_up_the_others(db):
    db.execute("create table busy (id int primary key)")
    with db.connect(autocommit=False) as writer, db.connect() as enabler, db.connect() as third:
        writer.execute("insert into busy values (1)")
        done = threading.Thread(target=enabler.execute,
                                args=("select pgtrickle.enable_outbox('busy')",))
        done.start()
        eventually(lambda: db.one("select count(*) from pg_locks where relation = "
                                  "'busy'::regclass and not granted"))
        third.execute("set statement_timeout = '5s'")
        third.execute("insert into busy values (2)")
        writer.commit()
        done.join(30)
    db.execute("insert into busy values (3)")
    assert Replay(db, "busy").ops() == ["INSERT"]


def test_installing_again_keeps_outboxes_and_their_rows(db, orders):
    from support.postgres import install_from_files
    db.execute("insert into orders values (1, 'eu', 1)")
    install_from_files(db.dsn)
    db.execute("insert into orders values (2, 'eu', 2)")
    orders.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0


# The door for stream tables --------------------------------------------------------------------

def test_a_difference_is_appended_in_the_form_that_fits(db, orders):
    db.execute("create table diff (op text, ord bigint, row_data jsonb)")
    heard = []
    append = ("select pgtrickle._outbox_append('outbox_orders', 'diff', %s, %s, 7, %s)")
    refresh = "5f9c1d3e-8f9f-4b39-9a5c-0c5d5a4ad6f5"
    with db.connect() as connection:
        connection.add_notify_handler(lambda note: heard.append(note.payload))
        connection.execute("listen pgtrickle_outbox_new")
        connection.execute("grant select on diff to pgtrickle_owner")
        assert connection.execute(append, (refresh, "DIFFERENTIAL", False)).fetchone() == (None,)
        connection.execute("""insert into diff values ('INSERT', 2, '{"id": 2}'),
            ('INSERT', 1, '{"id": 1, "v": 2}'), ('DELETE', 1, '{"id": 1, "v": 1}')""")
        connection.execute(append, (refresh, "DIFFERENTIAL", False))
        connection.execute("insert into diff select 'INSERT', n, jsonb_build_object('id', n) "
                           "from generate_series(3, 11000) n")
        connection.execute(append, (refresh, "DIFFERENTIAL", False))
        connection.execute("delete from diff where ord > 2 or op = 'DELETE'")
        connection.execute("update diff set row_data = "
                           "jsonb_build_object('x', repeat('x', 999999))")
        connection.execute(append, (None, "FULL", True))
        connection.execute("truncate diff")
        connection.execute(append, (None, "FULL", True))
        eventually(lambda: connection.execute("select 1") and len(heard) == 4)
    inline, claim, full, empty = orders.entries()
    assert inline[2:] == (2, 1, False, {
        "v": 1, "inserted": [{"id": 1, "v": 2}, {"id": 2}], "deleted": [{"id": 1, "v": 1}],
        "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 7})
    assert claim[2:] == (11000, 1, True, {"v": 1, "claim_check": True, "refresh_duration_ms": 7,
                                          "refresh_mode": "DIFFERENTIAL"})
    assert full[2:] == (2, 0, True, {"v": 1, "claim_check": True, "full_refresh": True,
                                     "refresh_mode": "FULL", "refresh_duration_ms": 7})
    assert empty[2:5] == (0, 0, False) and empty[5]["full_refresh"] and empty[5]["inserted"] == []
    assert db.execute("select row_op, row_data ->> 'id' from pgtrickle.outbox_rows('orders', %s) "
                      "limit 3", (claim[0],)) == [
                          ("DELETE", "1"), ("INSERT", "1"), ("INSERT", "2")]
    assert str(db.one("select refresh_id from pgtrickle.outbox_orders limit 1")) == refresh


# At random -------------------------------------------------------------------------------------

RANDOM_STATEMENTS = [
    "insert into things (id, grp, n) select {a} + g, {b}, g from generate_series(1, {few}) g "
    "on conflict do nothing",
    "insert into things (id, grp, n) values ({a}, {b}, {c}), ({c}, {b}, {a}) "
    "on conflict (id) do update set n = things.n + 1",
    "update things set n = n + {c} where grp = {b}",
    "update things set grp = (grp + {b}) % 5 where id % 7 = {b}",
    "update things set id = id + 1000 where id = {a} and not exists "
    "(select from things t where t.id = {a} + 1000)",
    "delete from things where id % 11 = {b}",
    "delete from things where id = {a}",
    "merge into things t using (select {a} + g as id from generate_series(1, {few}) g) s "
    "on t.id = s.id when matched and t.n % 2 = 0 then delete "
    "when matched then update set n = t.n + 1 "
    "when not matched then insert (id, grp, n) values (s.id, {b}, {c})",
    "with gone as (delete from things where grp = {b} and n % 3 = 0 returning *) "
    "update things set n = n + 1 where grp = ({b} + 1) % 5",
    "truncate things",
]


@pytest.mark.parametrize("seed", range(4))
def test_random_statements_replay_to_the_table(db, seed):
    """With user triggers, cascades, savepoints and partitions; two kinds of outbox at once."""
    dice = random.Random(seed)
    partitioned = seed % 2 == 1
    db.execute("create table things (id int primary key, grp int, n int, note text)"
               + (" partition by range (id)" if partitioned else ""))
    if partitioned:
        db.execute("create table things_1 partition of things for values from (0) to (60);"
                   "create table things_2 partition of things default")
    db.execute("select pgtrickle.enable_outbox('things', inline_threshold_rows => 8)")
    db.execute("""create function meddle() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() < 3 and new.n % 4 = 0 then
          update things set n = n + 1 where grp = new.grp and id <> new.id and n % 4 <> 3;
        elsif new.n % 9 = 5 then
          delete from things where id = new.id - 1;
        end if;
        return null; end $$;
        create trigger meddle after insert or update on things for each row
        execute function meddle()""")
    replay = Replay(db, "things")
    if db.server.version < 15:
        statements = [s for s in RANDOM_STATEMENTS if not s.startswith("merge")]
    else:
        statements = RANDOM_STATEMENTS
    with db.connect(autocommit=False) as connection:
        for step in range(150):
            statement = dice.choices(statements, [1 if s.startswith("truncate") else 10
                                                  for s in statements])[0]
            connection.execute("savepoint s")
            try:
                connection.execute(statement.format(
                    a=dice.randrange(120), b=dice.randrange(5), c=dice.randrange(120),
                    few=dice.randrange(1, 15)))
                if dice.random() < 0.1:
                    connection.execute("rollback to s")
            except psycopg.Error:
                connection.execute("rollback to s")
            if dice.random() < 0.3:
                (connection.commit if dice.random() < 0.8 else connection.rollback)()
            if step % 30 == 0:
                connection.commit()
                replay.check()
        connection.commit()
    replay.check()
    assert len(replay.entries()) > 50


def test_concurrent_writers_on_the_same_rows_replay_to_the_table(db):
    db.execute("create table hot (id int primary key, n int, who int)")
    db.execute("select pgtrickle.enable_outbox('hot', inline_threshold_rows => 5)")
    db.execute("""create function spread() returns trigger language plpgsql as $$ begin
        if new.n % 5 = 0 and pg_trigger_depth() = 1 then
          update hot set who = -1 where id = new.id; end if;
        return null; end $$;
        create trigger spread after update on hot for each row execute function spread()""")
    db.execute("insert into hot select n, 0, 0 from generate_series(1, 12) n")

    def write(number):
        dice = random.Random(number)
        with db.connect() as connection:
            for _ in range(60):
                statement = dice.choice([
                    "update hot set n = n + 1, who = {w} where id = {i}",
                    "update hot set n = n + 1 where id in (select id from hot order by id "
                    "limit {k} for update)",
                    "delete from hot where id = {i}",
                    "insert into hot values ({i}, 0, {w}) on conflict (id) "
                    "do update set n = hot.n + 1"])
                try:
                    connection.execute(statement.format(
                        w=number, i=dice.randrange(1, 13), k=dice.randrange(1, 12)))
                except psycopg.errors.DeadlockDetected:
                    pass

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    Replay(db, "hot").check()
