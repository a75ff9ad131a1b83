"""What the capture functions may do, and what they never run.

A type's owner may give it a cast to json at any time, a table's owner may change its columns at any
time. Neither gets a statement of theirs run as pgtrickle_capture, nor makes an application's
statement fail.
"""

import psycopg
import pytest

from support.replay import Replay

# A cast of the type's owner that notes as which role it ran. A role that may not write the note goes
# on: an attack must not show as an error.
SPY = """
create table seen (who text, what text);
grant insert on seen to public;
create function spy(what text) returns void language plpgsql as $$
begin
  insert into public.seen values (current_user, what);
exception when others then
  raise notice 'a spy could not write';
end $$;
"""
CASTS = """
create function {type}_to_{target}({type}) returns {target} language plpgsql as $$
begin
  perform public.spy('{type} to {target}');
  return '"spied"';
end $$;
create cast ({type} as {target}) with function {type}_to_{target}({type}) as implicit;
"""
TYPES = """
create type mood as enum ('calm', 'wild');
create type span as range (subtype = int8);
create domain feeling as mood;
create type pair as (n int, m mood);
create type plain_pair as (n int, t text);
create domain pairing as pair;
"""
COLUMNS = {
    "mood": ("'wild'", "wild"),
    "mood[]": ("array['wild', null, 'calm']::mood[]", ["wild", None, "calm"]),
    "feeling": ("'calm'", "calm"),
    "feeling[]": ("array['calm']::feeling[]", ["calm"]),
    "span": ("span(1, 5)", "[1,5)"),
    "span[]": ("array[span(1, 5)]", ["[1,5)"]),
    "pair": ("row(7, 'wild')::pair", {"n": 7, "m": "wild"}),
    "pair[]": ("array[row(7, 'wild')::pair, null]", [{"n": 7, "m": "wild"}, None]),
    "pairing": ("row(8, 'calm')::pairing", {"n": 8, "m": "calm"}),
    "plain_pair": ("row(9, 'x')::plain_pair", {"n": 9, "t": "x"}),
    "plain_pair[]": ("array[row(9, 'x')::plain_pair]", [{"n": 9, "t": "x"}]),
}


@pytest.fixture
def spied(db):
    """A superuser's table with columns of types that belong to a plain role."""
    db.login("typist")
    db.execute(SPY)
    db.execute("grant create on schema public to typist")
    with db.connect(user="typist") as typist:
        typist.execute(TYPES)
    listed = ", ".join(f"c{n} {type}" for n, type in enumerate(COLUMNS))
    db.execute(f"create table treasure (id int primary key, {listed})")
    return db


def plant_casts(db):
    with db.connect(user="typist") as typist:
        for type in ("mood", "span", "pair", "plain_pair"):
            for target in ("json", "jsonb", "text"):
                typist.execute(CASTS.format(type=type, target=target))


def inserted(db, table):
    return db.one("select r.row_data from pgtrickle.pgt_outbox_config c "
                  "cross join lateral pgtrickle.outbox_rows(c.outbox_table_name, (select max(id) "
                  f"from pgtrickle.outbox_{table})) r where c.stream_table_name = %s", (table,))


WRITE = "insert into treasure values ({id}, " + ", ".join(v for v, _ in COLUMNS.values()) + ")"
EXPECTED = {f"c{n}": wanted for n, (_, wanted) in enumerate(COLUMNS.values())}


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_no_cast_of_a_type_s_owner_runs_whenever_it_was_made(spied, capture):
    db = spied
    db.execute(f"select pgtrickle.enable_outbox('treasure', capture => '{capture}', "
               "inline_threshold_rows => 60)")
    with db.connect() as writer:
        writer.execute(WRITE.format(id=1))
        before = inserted(db, "treasure")
        plant_casts(db)
        writer.execute(WRITE.format(id=2))
        assert inserted(db, "treasure") == {"id": 2, **EXPECTED}
        assert before == {"id": 1, **EXPECTED}
        # Several rows, an update, a claim check, a deletion, all rows.
        values = WRITE.format(id="k").removeprefix("insert into treasure values (").removesuffix(")")
        for last in (9, 99, 199):
            writer.execute(f"insert into treasure select {values} from generate_series("
                           f"(select max(id) + 1 from treasure), {last}) k")
        writer.execute("update treasure set id = -id")
        writer.execute("delete from treasure where id % 2 = 0")
        writer.execute("select pgtrickle.outbox_full_refresh('treasure')")
    assert db.execute("select * from seen") == []
    ids = "select count(*), count(distinct row_data ->> 'id') from pgtrickle.outbox_rows("\
          "'treasure', (select max(id) from pgtrickle.outbox_treasure))"
    assert db.execute(ids) == [(100, 100)]


@pytest.mark.parametrize("change", [
    "alter table treasure add column again mood default 'wild'",
    "alter table treasure alter column note type mood using 'wild'",
    "alter type plain_pair add attribute m mood",
    "alter table treasure rename column note to remark",
    "alter table treasure drop column note"])
@pytest.mark.parametrize("capture", ["statement", "row"])
def test_a_column_that_comes_or_changes_is_followed_without_running_its_casts(spied, change,
                                                                              capture):
    db = spied
    db.execute("drop table treasure")
    db.execute("create table treasure (id int primary key, note text, p plain_pair)")
    db.execute(f"select pgtrickle.enable_outbox('treasure', capture => '{capture}')")
    plant_casts(db)
    with db.connect() as writer, db.connect() as repeatable, db.connect() as altering:
        repeatable.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        repeatable.autocommit = False
        repeatable.execute("select count(*) from seen")  # its snapshot
        writer.execute("insert into treasure (id, p) values (1, row(1, 'x'))")
        with altering.transaction():
            altering.execute("insert into treasure (id, p) values (2, row(1, 'x'))")
            altering.execute(change)
            altering.execute("insert into treasure (id, p) values (3, null)")
        writer.execute("insert into treasure (id, p) select 4, p from treasure where id = 1")
        repeatable.execute("insert into treasure (id, p) values (5, null)")
        repeatable.commit()
        writer.execute("insert into treasure (id) values (6), (7)")
    assert db.execute("select * from seen") == []
    rows = dict(db.execute(
        "select (r.row_data ->> 'id')::int, r.row_data from pgtrickle.outbox_treasure o "
        "cross join lateral pgtrickle.outbox_rows('treasure', o.id) r"))
    columns = {name for name, in db.execute(
        "select attname from pg_attribute where attrelid = 'treasure'::regclass and attnum > 0 "
        "and not attisdropped")}
    for number in (3, 4, 6, 7):
        assert set(rows[number]) == columns
    # Upkeep writes the functions for the new columns, and heals what a transaction missed that could
    # not know them.
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert 5 in rows or db.execute(
        "select r.row_data ->> 'id' from pgtrickle.outbox_rows('treasure', (select max(id) from "
        "pgtrickle.outbox_treasure)) r order by 1") == [(str(n),) for n in range(1, 8)]
    db.execute("insert into treasure (id, p) select 8, p from treasure where id = 1")
    assert set(inserted(db, "treasure")) == columns
    assert db.execute("select * from seen") == []


def test_a_partition_tree_that_changes_behind_an_old_snapshot_runs_no_cast(spied):
    """A partitioned table has no file that a change of type would write anew."""
    db = spied
    db.execute("create table parcels (id int, note text) partition by list (id)")
    db.execute("create table later (id int, note mood)")
    db.execute("select pgtrickle.enable_outbox('parcels', capture => 'statement')")
    plant_casts(db)
    with db.connect() as writer:
        writer.execute("begin isolation level repeatable read")
        writer.execute("select 1")
        db.execute("alter table parcels alter note type mood using note::mood")
        db.execute("alter table parcels attach partition later for values in (1)")
        writer.execute("insert into parcels values (1, 'wild')")
        writer.execute("commit")
        writer.execute("insert into parcels values (1, 'calm')")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert db.execute("select * from seen") == []
    notes = [note for note, in db.execute(
        "select r.row_data ->> 'note' from pgtrickle.outbox_parcels o cross join lateral "
        "pgtrickle.outbox_rows('parcels', o.id) r order by o.id desc, 1 limit 2")]
    assert notes == ["calm", "wild"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_transactions_with_an_old_snapshot_are_captured_like_others(spied, isolation):
    db = spied
    db.execute("create table plain (id int primary key, note text)")
    db.execute("create table moody (id int primary key, m mood)")
    db.execute("create table tree (id int primary key, note text) partition by range (id)")
    db.execute("create table moody_tree (id int primary key, m mood) partition by range (id)")
    tables = ["plain", "moody", "tree", "moody_tree"]
    for table in tables:
        if "tree" in table:
            db.execute(f"create table {table}_1 partition of {table} default")
        db.execute(f"select pgtrickle.enable_outbox('{table}', capture => 'statement')")
    db.login("clerk_of_old")
    db.execute(f"grant all on {', '.join(tables)} to clerk_of_old")
    with db.connect(user="clerk_of_old") as writer:
        writer.execute(f"begin isolation level {isolation}")
        for table in tables:
            writer.execute(f"insert into {table} values (1, 'calm')")
            writer.execute(f"insert into {table} select n, 'calm' from generate_series(2, 99) n")
        writer.execute("commit")
    assert db.execute("select * from pgtrickle_internal.outbox_misses") == []
    for table in tables:
        Replay(db, table).check()


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_a_column_renamed_behind_an_old_snapshot_makes_no_statement_fail(spied, capture):
    db = spied
    db.execute("create table renamed (id int primary key, m mood)")
    db.execute(f"select pgtrickle.enable_outbox('renamed', capture => '{capture}')")
    with db.connect() as writer:
        writer.execute("insert into renamed values (1, 'calm')")
        writer.execute("begin isolation level repeatable read")
        writer.execute("select 1")
        db.execute("alter table renamed rename m to mood_of_the_day")
        writer.execute("insert into renamed values (2, 'calm')")
        writer.execute("commit")
        writer.execute("insert into renamed values (3, 'wild')")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    Replay(db, "renamed").check(strict=False)


def test_the_outbox_of_a_dropped_table_is_not_taken_over_by_another_table(spied):
    db = spied
    db.execute("select pgtrickle.enable_outbox('treasure')")
    number = db.one("select outbox_number from pgtrickle.pgt_outbox_config")
    db.execute(WRITE.format(id=1))
    db.execute("drop table treasure")
    with db.connect(user="typist") as typist:
        typist.execute("create table treasure (id int primary key)")
        typist.execute("create function noop() returns trigger language plpgsql as "
                       "'begin return new; end'")
        typist.execute(f'create trigger "!pgtrickle_{number}_begin" before insert on treasure '
                       "for each statement execute function noop()")
        db.execute("select pgtrickle.relay_housekeeping()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            typist.execute("create trigger mine after insert on treasure referencing new table as "
                           "new_rows for each statement execute function "
                           f"pgtrickle_internal.capture_{number}_insert()")
    assert db.one("select stream_table_oid from pgtrickle.pgt_outbox_config") is None


def test_a_detached_partition_that_gets_another_column_runs_no_cast(spied):
    db = spied
    db.execute("create table days (id int primary key, note text) partition by range (id)")
    db.execute("create table days_1 partition of days for values from (0) to (100)")
    db.execute("select pgtrickle.enable_outbox('days', capture => 'statement')")
    plant_casts(db)
    db.execute("alter table days detach partition days_1")
    db.execute("alter table days_1 add column m mood default 'wild'")
    db.execute("insert into days_1 values (1, 'x')")
    assert inserted(db, "days") == {"id": 1, "note": "x", "m": "wild"}
    assert db.execute("select * from seen") == []


# Roles ------------------------------------------------------------------------------------------

@pytest.fixture
def shop(db):
    """A table of a plain role, its outbox made by an administrator, and a role that may write it."""
    db.login("shopkeeper")
    db.login("cashier")
    db.execute("create schema shop authorization shopkeeper")
    with db.connect(user="shopkeeper") as owner:
        owner.execute("create table shop.sales (id int, day int, primary key (id, day)) "
                      "partition by list (day)")
        owner.execute("create table shop.sales_1 partition of shop.sales for values in (1)")
        owner.execute("create table shop.other (id int primary key, day int)")
        owner.execute("grant usage on schema shop to cashier")
        owner.execute("grant all on all tables in schema shop to cashier")
    db.execute("select pgtrickle.enable_outbox('shop.sales', capture => 'statement')")
    return db


def ids(db):
    return [tuple(row) for row in db.execute(
        "select r.row_op, (r.row_data ->> 'id')::int from pgtrickle.outbox_sales o cross join "
        "lateral pgtrickle.outbox_rows('shop.sales', o.id) r order by o.id, r.row_num")]


def test_the_owner_makes_attaches_and_truncates_partitions_of_a_captured_table(shop):
    db = shop
    with db.connect(user="shopkeeper") as owner:
        owner.execute("create table shop.sales_2 partition of shop.sales for values in (2)")
        owner.execute("create table shop.sales_3 (id int not null, day int not null)")
        owner.execute("alter table shop.sales attach partition shop.sales_3 for values in (3)")
        owner.execute("insert into shop.sales values (1, 1), (2, 2), (3, 3)")
        owner.execute("truncate shop.sales_1")
        owner.execute("create index on shop.sales (day)")
    assert ids(db) == [("INSERT", 1), ("INSERT", 2), ("INSERT", 3), ("DELETE", 1)]


def test_a_new_owner_makes_partitions_once_upkeep_has_looked(shop):
    db = shop
    for table in ("sales", "sales_1"):
        db.execute(f"alter table shop.{table} owner to cashier")
    db.execute("grant create on schema shop to cashier")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    with db.connect(user="cashier") as owner:
        owner.execute("create table shop.sales_2 partition of shop.sales for values in (2)")
        owner.execute("insert into shop.sales values (2, 2)")
    with db.connect(user="shopkeeper") as former:
        for trigger in ("capture_1_row", "capture_1_insert"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                former.execute("create trigger t after insert on shop.other "
                               f"for each row execute function pgtrickle.{trigger}()")
    assert ids(db) == [("INSERT", 2)]


def test_a_new_owner_makes_partitions_although_the_rest_of_upkeep_needs_an_owner(shop):
    db = shop
    db.execute("create table shop.sales_9 partition of shop.sales for values in (9)")
    db.execute("alter table shop.sales owner to cashier")
    db.execute("alter table shop.sales detach partition shop.sales_9")
    with db.connect(user="relay_daemon") as relay:
        relay.execute("select pgtrickle.relay_housekeeping()")
    db.execute("grant create on schema shop to cashier")
    with db.connect(user="cashier") as owner:
        owner.execute("create table shop.sales_2 partition of shop.sales for values in (2)")


def test_a_truncate_that_cannot_be_recorded_goes_on_and_is_said(shop):
    db = shop
    db.execute("insert into shop.sales values (1, 1)")
    # Row security that binds the owner too hides rows from it.
    db.execute("alter table shop.sales_1 enable row level security")
    db.execute("alter table shop.sales_1 force row level security")
    with db.connect(user="cashier") as writer:
        writer.execute("truncate shop.sales_1")
    assert db.one("select count(*) from shop.sales") == 0
    # The owner cannot read the rows of the partition by its own name; through the table it can.
    with db.connect(user="relay_daemon") as relay:
        relay.execute("select pgtrickle.relay_housekeeping()")
    assert db.one("select problem from pgtrickle.pgt_outbox_config") is None
    assert db.one("select payload -> 'full_refresh' from pgtrickle.outbox_sales "
                  "order by id desc limit 1") is True


def test_a_transaction_that_began_before_the_outbox_writes_and_is_recorded(db):
    db.execute("create table orders (id int primary key, n int)")
    db.execute("""
        create function again() returns trigger language plpgsql as $$ begin
          update orders set n = n + 1 where id = new.id; return null; end $$;
        create trigger again after insert on orders for each row execute function again()""")
    with db.connect(autocommit=False) as writer:
        writer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        writer.execute("select 1")
        db.execute("select pgtrickle.enable_outbox('orders')")
        writer.execute("insert into orders values (1, 1)")
        writer.execute("insert into orders select k, 1 from generate_series(2, 99) k")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    Replay(db, "orders").check(strict=False)


def test_a_forged_setting_hides_no_truncate(shop):
    db = shop
    db.execute("insert into shop.sales values (1, 1)")
    with db.connect(user="cashier") as writer:
        for value in ("yes", "1", "on"):
            writer.execute("select set_config('pgtrickle_capture.t1', %s, false)", (value,))
        writer.execute("truncate shop.sales_1")
    assert ids(db) == [("INSERT", 1), ("DELETE", 1)]


def test_a_capture_function_records_no_other_table(shop):
    db = shop
    with db.connect() as superuser:
        for what, event, timing in (("insert", "insert", "referencing new table as new_rows for each "
                                     "statement"), ("row", "insert", "for each row")):
            superuser.execute(f"create trigger forged_{what} after {event} on shop.other {timing} "
                              f"execute function pgtrickle_internal.capture_1_{what}()")
    with db.connect(user="shopkeeper") as owner:
        owner.execute("insert into shop.other values (7, 1)")
    assert ids(db) == []


def test_a_writer_has_no_other_way_into_an_outbox(shop):
    db = shop
    refused = psycopg.errors.InsufficientPrivilege
    with db.connect(user="cashier") as writer:
        writer.execute("insert into shop.sales values (1, 1)")
        for statement in (
                "insert into pgtrickle.outbox_sales (payload) values ('{}')",
                "insert into pgtrickle.outbox_sales (id, payload) values (1000, '{}')",
                "select setval('pgtrickle.outbox_sales_id_seq', 1)",
                "select nextval('pgtrickle.outbox_sales_id_seq')",
                "lock pgtrickle.outbox_sales in row exclusive mode",
                "lock pgtrickle.outbox_sales in access share mode",
                "select * from pgtrickle.outbox_sales",
                "truncate pgtrickle.outbox_sales",
                "set role pgtrickle_capture",
                "create trigger t after insert on shop.other for each row "
                "execute function pgtrickle_internal.capture_1_row()",
                "select pgtrickle_internal.capture_relation(1, 'shop.sales', 'FULL', null)",
                "select pgtrickle_internal.capture_missed(1, 'nothing')"):
            with pytest.raises(refused), writer.transaction():
                writer.execute(statement)
    assert ids(db) == [("INSERT", 1)]


def test_the_capture_role_may_insert_and_nothing_else(db):
    db.execute("create table orders (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    assert db.execute(
        "select (select count(*) from pg_auth_members m where m.member = r.oid), "
        "rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls "
        "from pg_roles r where rolname = 'pgtrickle_capture'") == [
            (0, False, False, False, False, False)]
    assert db.execute(
        "select p.proname from pg_proc p where p.proowner = 'pgtrickle_capture'::regrole "
        "and p.proname !~ '^capture_[0-9]+_(row|insert|update|delete|end|truncate)$'") == []
    assert db.execute("select relname from pg_class where relowner = 'pgtrickle_capture'::regrole"
                      ) == []
    with db.connect() as connection:
        connection.execute("set role pgtrickle_capture")
        for column in ("id", "pgt_id", "created_at", "refresh_id", "headers"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"insert into pgtrickle.outbox_orders ({column}, payload) "
                                   "values (default, '{}')")
        for statement in ("delete from pgtrickle.outbox_orders",
                          "update pgtrickle.outbox_orders set payload = '{}'",
                          "select payload from pgtrickle.outbox_orders",
                          "select * from pgtrickle.pgt_outbox_config",
                          "create table pgtrickle.mine ()", "select * from orders"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


# The application's statement succeeds ------------------------------------------------------------

def test_values_that_jsonb_does_not_accept_are_left_out_and_named(db):
    db.execute("create table notes (id int primary key, j json, n int, list json[])")
    db.execute("select pgtrickle.enable_outbox('notes')")
    db.execute("insert into notes values (1, '{\"a\": 1}', 5, array['[1]'::json])")
    for number, value in enumerate(("\"\\\\u0000\"", "\"\\\\ud800\"", "1e400000"), 2):
        db.execute(f"insert into notes values ({number}, E'{value}', 5)")
    db.execute("insert into notes select n, E'\"\\\\u0000\"', 6 from generate_series(10, 80) n")
    db.execute("update notes set n = n + 1")
    rows = db.execute("select r.row_data from pgtrickle.outbox_notes o cross join lateral "
                      "pgtrickle.outbox_rows('notes', o.id) r order by o.id, r.row_num")
    assert rows[0] == ({"id": 1, "j": {"a": 1}, "n": 5, "list": [[1]]},)
    for number in (2, 3, 4):
        assert rows[number - 1] == ({"id": number, "j": None, "n": 5, "list": None,
                                     "__pgtrickle_omitted": ["j"]},)
    assert len(rows) == 4 + 71 + 2 * 75


def test_a_writer_s_settings_make_no_statement_fail(db):
    db.execute("create type mood as enum ('calm', 'it''s \\ wild')")
    db.execute("create table odd (id int primary key, m mood, \"back\\slash\" text)")
    db.execute("select pgtrickle.enable_outbox('odd', inline_threshold_rows => 60)")
    for setting in ("standard_conforming_strings = off", "array_nulls = off",
                    "transform_null_equals = on", "quote_all_identifiers = on",
                    "backslash_quote = off", "default_transaction_isolation = 'serializable'",
                    "plan_cache_mode = force_custom_plan", "plpgsql.extra_errors = 'all'",
                    "check_function_bodies = off"):
        with db.connect() as writer:
            writer.execute(f"set {setting}")
            writer.execute("insert into odd select n, (enum_range(null::mood))[2], 'x' "
                           "from generate_series(1, 3) n")
            writer.execute("insert into odd select n, 'calm' from generate_series(4, 99) n")
            writer.execute("update odd set m = 'calm' where id < 3")
            writer.execute("update odd set \"back\\slash\" = 'y'")
            writer.execute("delete from odd")
    Replay(db, "odd").check()


def test_an_inbox_of_ours_can_have_an_outbox(db):
    db.execute("select pgtrickle.create_inbox('mail')")
    db.execute("insert into pgtrickle.inbox_mail (event_id, payload) values ('a', '{}')")
    db.execute("select pgtrickle.enable_outbox('pgtrickle.inbox_mail')")
    db.execute("select pgtrickle.outbox_full_refresh('pgtrickle.inbox_mail')")
    db.execute("insert into pgtrickle.inbox_mail (event_id, payload) values ('b', '{}')")
    Replay(db, "pgtrickle.inbox_mail").check()
    db.execute("select pgtrickle.disable_outbox('pgtrickle.inbox_mail')")


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_generated_columns_make_no_statement_fail(spied, capture):
    db = spied
    kind = "virtual" if db.server.version >= 18 else "stored"
    db.execute("create table made (id int primary key, m mood, "
               f"twice int generated always as (id * 2) {kind})")
    db.execute(f"select pgtrickle.enable_outbox('made', capture => '{capture}')")
    db.execute("insert into made values (1, 'calm')")
    db.execute("update made set m = 'wild'")
    db.execute("delete from made")
    assert db.one("select count(*) from pgtrickle.outbox_made") == 3


def test_values_that_grow_in_json_make_no_statement_fail(db):
    db.execute("create table wide (id int primary key, bits varbit)")
    db.execute("create table narrow (id int primary key, bits varbit)")
    db.execute("insert into narrow select n, repeat('0', 30000000)::varbit "
               "from generate_series(1, 12) n")
    db.execute("select pgtrickle.enable_outbox('wide')")
    db.execute("insert into wide select * from narrow")
    assert db.one("select inserted_count from pgtrickle.outbox_wide") == 12
