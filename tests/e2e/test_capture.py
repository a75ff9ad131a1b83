"""Capture on ordinary tables: a consumer that applies an outbox row after row, by id, has the table.

Every test ends with that: `Replay` takes the deltas from payloads and claim checks, in order, and
its rows must equal the table's.
"""

import psycopg
import pytest

from support.replay import Replay, orders
from support.waiting import eventually


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
            connection.execute("select pgtrickle_internal.capture_1_insert()")
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


# The door for stream tables --------------------------------------------------------------------

def test_a_difference_is_appended_in_the_form_that_fits(db, orders):
    db.execute("create table diff (op text, ord bigint, row_data jsonb)")
    heard = []
    append = ("select pgtrickle_internal.outbox_append('outbox_orders', 'diff', %s, %s, 7, %s)")
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
