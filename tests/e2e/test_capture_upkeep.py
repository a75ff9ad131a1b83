"""Outboxes of tables: enabling and disabling, refreshes, upkeep."""

import threading

import psycopg
import pytest

from support.replay import Replay, events, orders
from support.waiting import eventually


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
    assert db.one("select count(*) from pg_proc where proname ~ 'capture_[0-9]'") == 0
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
    from support.database_side import install_from_files
    db.execute("insert into orders values (1, 'eu', 1)")
    install_from_files(db.dsn)
    db.execute("insert into orders values (2, 'eu', 2)")
    orders.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0
