"""A subscriber on a server of its own stays equal to a published stream table; slots that keep WAL are
named."""

import psycopg
import pytest

from support.checks import check, warnings
from support.postgres import PostgresServer
from support.relay import Relay
from support.stream_tables import create, refresh, settled
from support.waiting import eventually

OLD_QUERY = "select region, sum(amount) as revenue from sales group by 1"
NEW_QUERY = "select region, sum(amount) as revenue, count(*) as n from sales where amount > 10 group by 1"


@pytest.fixture(scope="module")
def subscriber():
    server = PostgresServer("subscriber").start()
    yield server
    server.stop_immediate()


@pytest.fixture
def copy(subscriber, db):
    """An empty database of the subscriber, where each test subscribes."""
    with subscriber.connect() as connection:
        connection.execute(f"create database {db.name}")
    with psycopg.connect(subscriber.dsn(db.name), autocommit=True) as connection:
        yield connection
        for (name,) in connection.execute("select subname from pg_subscription").fetchall():
            connection.execute(f"drop subscription {name}")


def subscribe(copy, db, publication):
    copy.execute(f"create subscription {publication}_{db.name} connection '{db.dsn}' "
                 f"publication {publication}")


def equal(db, copy, table="totals"):
    rows = f"select to_jsonb(t.*)::text from {table} t order by 1"
    return db.execute(rows) == copy.execute(rows).fetchall()


@pytest.mark.parametrize("key", [None, ["region"]])
def test_a_subscriber_stays_equal(db, copy, key):
    db.execute("create table sales (id int primary key, region text, amount numeric)")
    db.execute("insert into sales select i, 'r' || i % 7, i from generate_series(1, 100) i")
    create(db, "totals", OLD_QUERY, key=key)
    publication = db.one("select pgtrickle.create_publication('totals')")
    copy.execute("create table totals (region text primary key, revenue numeric)")
    subscribe(copy, db, publication)
    eventually(lambda: equal(db, copy), 60)
    db.execute("select pgtrickle.enable_outbox('totals')")
    (slot,) = db.one("select pgtrickle.outbox_status('totals') -> 'replication_slots'")
    assert slot["active"] and slot["held_wal_bytes"] >= 0 and slot["slot"].startswith(publication)
    for statement in ("update sales set amount = amount + 1 where id % 3 = 0",
                      "update sales set region = 'new' where region = 'r1'", "delete from sales where id < 20"):
        db.execute(statement)
        assert refresh(db, "totals")["action"] == "DIFFERENTIAL"
    eventually(lambda: equal(db, copy), 60)

    db.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
    db.execute("delete from sales where id % 2 = 0")
    assert refresh(db, "totals")["action"] == "FULL"
    eventually(lambda: equal(db, copy), 60)

    # The subscriber gets the column first, as docs/consumers.md says.
    copy.execute("alter table totals add n bigint")
    create(db, "green", NEW_QUERY, key=key)
    assert db.one("select pgtrickle.promote_stream_table('totals', 'green')")["columns_added"] == ["n"]
    db.execute("insert into sales values (1000, 'last', 50)")
    settled(db)
    eventually(lambda: equal(db, copy), 60)
    assert db.one("select revenue from totals where region = 'last'") == 50

    db.execute("truncate sales")
    settled(db)
    eventually(lambda: equal(db, copy) and db.execute("table totals") == [], 60)


def test_a_part_of_the_rows_and_columns(db, copy):
    if db.server.version < 15:
        pytest.skip("PostgreSQL 14 has no column lists and filters")
    db.execute("create table sales (id int primary key, region text, amount numeric)")
    create(db, "big", "select id, region, amount from sales", key=["id"])
    publication = db.one("select pgtrickle.create_publication('big', array['id', 'region'], 'id > 10')")
    copy.execute("create table big (id int primary key, region text)")
    subscribe(copy, db, publication)
    db.execute("insert into sales select i, 'r', i from generate_series(1, 20) i")
    settled(db)
    db.execute("update sales set id = id + 100 where id in (5, 15); update sales set region = 's' where id = 12")
    settled(db)
    rows = "select id, region from big where id > 10 order by 1"
    eventually(lambda: db.execute(rows) == copy.execute(rows).fetchall(), 60)
    assert copy.execute("select count(*) from big where id <= 10").fetchone() == (0,)


def test_the_outbox_is_published_without_what_retention_deletes(db, copy):
    db.execute("create table sales (id int primary key)")
    outbox = db.one("select pgtrickle.enable_outbox('sales')")
    publication = db.one("select pgtrickle.create_publication(%s)", (f"pgtrickle.{outbox}",))
    copy.execute(f"create schema pgtrickle; create table pgtrickle.{outbox} (id bigint primary key, "
                 "pgt_id uuid, refresh_id uuid, created_at timestamptz, inserted_count bigint, "
                 "deleted_count bigint, is_claim_check boolean, tg_op text, payload jsonb, headers jsonb)")
    subscribe(copy, db, publication)
    db.execute("insert into sales values (1)")
    count = f"select count(*) from pgtrickle.{outbox}"
    eventually(lambda: copy.execute(count).fetchone() == (1,), 60)
    db.execute(f"delete from pgtrickle.{outbox}")
    db.execute("insert into sales values (2)")
    eventually(lambda: copy.execute(count).fetchone() == (2,), 60)


def test_slots_that_keep_wal_are_named_with_the_remedy(db):
    db.execute("create table sales (id int primary key, note text)")
    slot = f"idle_{db.name}"
    db.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    other = db.server.create_database()
    other.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (f"other_{db.name}",))
    limit = ["--idle-slot-wal-limit", "16MiB"]  # reading alone writes some, where pages have checksums
    try:
        _, told = check(db, *limit)
        assert not any("replication slot" in said for said, _ in warnings(told, ""))
        with Relay(db.relay_dsn, *limit) as relay:
            relay.wait_up()
            db.execute("insert into sales select i, repeat('x', 1000) from generate_series(1, 15000) i")

            def named():
                return [cause for cause in relay.health()[1].get("causes", [])
                        if cause["code"] == "slot_holds_wal"]
            (cause,) = eventually(named, 60)
            assert slot in cause["message"] and "no subscriber is connected" in cause["message"]
            assert f"pg_drop_replication_slot('{slot}')" in cause["remedy"]
            assert relay.health()[1]["status"] == "degraded"
            _, told = check(db, *limit)
            ((said, remedy),) = [each for each in warnings(told, "") if "replication slot" in each[0]]
            assert slot in said and "pg_drop_replication_slot" in remedy
            db.execute("select pg_drop_replication_slot(%s)", (slot,))
            eventually(lambda: relay.health()[1]["status"] == "healthy", 60)
    finally:
        db.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                   "where slot_name = %s", (slot,))
        other.execute("select pg_drop_replication_slot(%s)", (f"other_{db.name}",))
        other.drop()
