"""The stand-ins for pg_trickle and pg_tide do what other tests rely on."""

import psycopg
import pytest

from support.postgres import refusal


def members(db, extension, kind):
    """The names of the functions ('pg_proc') or relations ('pg_class') of an extension."""
    name = {"pg_proc": "proname", "pg_class": "relname"}[kind]
    kinds = "and relkind = 'r'" if kind == "pg_class" else ""
    return {row[0] for row in db.execute(
        f"select o.{name} from pg_depend d join pg_extension e on e.oid = d.refobjid"
        f" join {kind} o on o.oid = d.objid and d.classid = '{kind}'::regclass"
        f" where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'"
        f" and e.extname = %s {kinds}", (extension,))}


def schema_owner(db, schema):
    return db.one("select e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid"
                  " where d.classid = 'pg_namespace'::regclass and d.deptype = 'e'"
                  " and d.objid = %s::regnamespace", (schema,))


@pytest.fixture
def trickle(extension_db):
    """A database with the stand-in for pg_trickle 0.46, and a stream table `totals`."""
    db = extension_db
    db.execute("create extension pg_trickle")
    db.execute("create table sales (customer text, amount int)")
    db.execute("insert into sales values ('a', 1), ('b', 2)")
    db.execute("select pgtrickle.create_stream_table('totals',"
               " 'select customer, sum(amount) as total from sales group by 1')")
    db.execute("""
        create table fired (op text, customer text, total numeric);
        create function note() returns trigger language plpgsql as $$
        begin
          insert into fired select tg_op, (coalesce(new, old)).*;
          return null;
        end $$;
        create trigger note after insert or update or delete on totals
          for each row execute function note();
        alter table totals enable always trigger note""")
    return db


def firing_mode(db):
    return db.one("select tgenabled from pg_trigger where tgname = 'note'")


def test_pg_trickle_0_46_owns_stream_tables_and_nothing_else_of_ours(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle")
    assert db.one("select extversion from pg_extension where extname = 'pg_trickle'") == "0.46"
    assert schema_owner(db, "pgtrickle") == "pg_trickle"
    assert {name for name in members(db, "pg_trickle", "pg_proc") if not name.startswith("_")} == {
        "create_stream_table", "alter_stream_table", "drop_stream_table", "refresh_stream_table"}
    assert members(db, "pg_trickle", "pg_class") == {
        "pgt_stream_tables", "pgt_refresh_history", "pgt_outbox_config"}


def test_pg_trickle_0_36_owns_the_outboxes_inboxes_and_relays_too(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle version '0.36'")
    assert {"create_stream_table", "enable_outbox", "set_relay_outbox", "set_relay_inbox",
            "create_inbox"} <= members(db, "pg_trickle", "pg_proc")
    assert {"relay_outbox_config", "relay_inbox_config", "relay_consumer_offsets"} <= members(
        db, "pg_trickle", "pg_class")
    db.execute("select pgtrickle.set_relay_outbox('p', '{}')")
    assert db.execute("select * from pgtrickle.list_relay_configs()") == [
        ("p", "forward", True, {})]


def test_pg_trickle_0_36_can_be_updated_to_0_46(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle version '0.36'")
    db.execute("create table t as select 1 as x")
    db.execute("select pgtrickle.create_stream_table('s', 'select x from t')")
    db.execute("alter extension pg_trickle update to '0.46'")
    assert "enable_outbox" not in members(db, "pg_trickle", "pg_proc")
    db.execute("select pgtrickle.refresh_stream_table('s')")


def test_a_differential_refresh_writes_what_changed_and_fires_triggers(trickle):
    db = trickle
    db.execute("insert into sales values ('b', 3), ('c', 4)")
    db.execute("delete from sales where customer = 'a'")
    db.execute("select pgtrickle.refresh_stream_table('totals')")
    assert db.execute("select * from totals order by 1") == [("b", 5), ("c", 4)]
    assert sorted(db.execute("select op, customer from fired")) == [
        ("DELETE", "a"), ("DELETE", "b"), ("INSERT", "b"), ("INSERT", "c")]
    assert firing_mode(db) == "A"
    assert db.execute(
        "select action, status, rows_inserted, rows_deleted, end_time >= start_time"
        " from pgtrickle.pgt_refresh_history order by refresh_id") == [
            ("FULL", "COMPLETED", 2, 0, True), ("DIFFERENTIAL", "COMPLETED", 2, 2, True)]


def test_a_differential_refresh_counts_equal_rows(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle")
    db.execute("create table t (x int)")
    db.execute("insert into t values (1), (1), (1), (2)")
    db.execute("select pgtrickle.create_stream_table('s', 'select x from t')")
    db.execute("delete from t where ctid = (select min(ctid) from t where x = 1)")
    db.execute("insert into t values (2)")
    db.execute("select pgtrickle.refresh_stream_table('s')")
    assert db.execute("select x from s order by x") == [(1,), (1,), (2,), (2,)]
    assert db.execute("select rows_inserted, rows_deleted from pgtrickle.pgt_refresh_history"
                      " where action = 'DIFFERENTIAL'") == [(1, 1)]


def test_a_full_refresh_fires_no_trigger_and_leaves_triggers_at_origin(trickle):
    db = trickle
    db.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
    db.execute("insert into sales values ('c', 4)")
    db.execute("select pgtrickle.refresh_stream_table('totals')")
    assert db.execute("select * from totals order by 1") == [("a", 1), ("b", 2), ("c", 4)]
    assert db.execute("select * from fired") == []
    assert firing_mode(db) == "O"
    assert db.execute("select action, status, rows_inserted, rows_deleted"
                      " from pgtrickle.pgt_refresh_history order by refresh_id desc limit 1") == [
                          ("FULL", "COMPLETED", 3, 2)]


def test_a_stream_table_that_is_dropped_is_gone(trickle):
    trickle.execute("select pgtrickle.drop_stream_table('totals')")
    assert trickle.one("select to_regclass('totals')") is None
    assert "not found" in refusal(trickle, "select pgtrickle.refresh_stream_table('totals')")


def test_pg_tide_publishes_into_one_table_for_all_outboxes(extension_db):
    db = extension_db
    db.execute("create extension pg_tide")
    assert schema_owner(db, "tide") == "pg_tide"
    first = db.one("select tide.outbox_publish('orders', '{\"x\": 1}', '{\"trace\": \"t\"}')")
    second = db.one("select tide.outbox_publish('other', '{}')")
    assert second == first + 1
    assert db.execute("select outbox_name, payload, headers from tide.tide_outbox_messages"
                      " order by id") == [("orders", {"x": 1}, {"trace": "t"}),
                                          ("other", {}, None)]


def test_the_other_server_has_none_of_them(empty_db):
    with pytest.raises(psycopg.Error):
        empty_db.execute("create extension pg_tide")
