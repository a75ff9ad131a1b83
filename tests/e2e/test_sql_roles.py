"""What each role may do with the catalog; installing it again."""

import os
import re
import subprocess

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.catalog_sql import (FLAT, REVERSE, Owner, configs, dead_letter, insert_rows, orders,
                                 set_outbox)
from support.database_side import install_from_files
from support.postgres import postgres_bin_directory
from support.waiting import eventually


# Privileges

def may(dsn, statement):
    with psycopg.connect(dsn) as connection:
        try:
            connection.execute(statement)
            return True
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            connection.rollback()


@pytest.fixture
def running(orders):
    """A database with a pipeline that has rows, a position, a dead letter and a replay."""
    set_outbox(orders, enabled=True)
    insert_rows(orders, 3)
    Owner(orders)
    dead_letter(orders)
    orders.execute("select pgtrickle.pause_relay('p'); select pgtrickle.replay_relay('p', 1)")
    return orders


DAEMON_MAY = [
    "select * from pgtrickle.relay_pipelines",
    "select * from pgtrickle.list_relay_configs()",
    "select * from pgtrickle.relay_resolve_outbox('orders_stream')",
    "select * from pgtrickle.pgt_outbox_config",
    "select * from pgtrickle.relay_schema_history",
    "select * from pgtrickle.outbox_orders_stream",
    "select pg_sequence_last_value(outbox_sequence::regclass) from pgtrickle.pgt_outbox_config",
    "select * from pgtrickle.relay_open_writers('pgtrickle.outbox_orders_stream')",
    "select pgtrickle.outbox_status('orders_stream')",
    "select * from pgtrickle.relay_claim_position('g', 'p', gen_random_uuid(), 'w', 'earliest')",
    "select pgtrickle.relay_commit_position('g', 'p', gen_random_uuid(), null, 1, 0, null)",
    "select pgtrickle.relay_rewind_position('g', 'p', gen_random_uuid(), null, 1)",
    "insert into pgtrickle.relay_instances (relay_group_id, worker_id) values ('g', 'w')",
    "update pgtrickle.relay_instances set heartbeat_at = now()",
    "delete from pgtrickle.relay_instances",
    "insert into pgtrickle.relay_pipeline_status (relay_group_id, pipeline, state) "
    "values ('g', 'p', 'idle')",
    "update pgtrickle.relay_pipeline_status set state = 'running'",
    "delete from pgtrickle.relay_pipeline_status",
    "update pgtrickle.relay_pipeline_control set accept_loss = false",
    "update pgtrickle.relay_replays set next_id = next_id + 1",
    "insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id) values ('g', 'p', 'm') "
    "on conflict (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''), "
    "coalesce(md5(key), ''), coalesce(md5(op), '')) where resolved_at is null do update "
    "set attempts = 5",
    "update pgtrickle.relay_dlq set resolved_at = now(), resolution = 'delivered'",
    "select pgtrickle.relay_housekeeping()",
    "select pgtrickle.pause_relay('p')",
    "select pgtrickle.resume_relay('p')",
    "select pgtrickle.replay_relay('p', 1)",
    "select pgtrickle.relay_dlq_retry_all('p')",
    "select pgtrickle.relay_dlq_purge('1 day')",
    "listen pgtrickle_relay_config",
]
DAEMON_MAY_NOT = [
    "delete from pgtrickle.outbox_orders_stream",
    "update pgtrickle.outbox_orders_stream set payload = '{}'",
    "insert into pgtrickle.outbox_orders_stream (payload) values ('{}')",
    "truncate pgtrickle.outbox_orders_stream",
    "select nextval('pgtrickle.outbox_orders_stream_id_seq')",
    "update pgtrickle.relay_consumer_offsets set last_change_id = 0",
    "delete from pgtrickle.relay_consumer_offsets",
    "update pgtrickle.pgt_outbox_config set purged_below = 0",
    "update pgtrickle.relay_outbox_config set enabled = false",
    "delete from pgtrickle.relay_dlq",
    "delete from pgtrickle.relay_replays",
    "insert into pgtrickle.relay_schema_history (file, checksum, version) values ('x', 'x', 1)",
    "select pgtrickle.delete_relay('p')",
    f"select pgtrickle.set_relay_inbox('q', '{REVERSE}')",
    "select pgtrickle_internal.store_relay('q', 'reverse', '{}', true)",
    "select pgtrickle_internal.purge_outbox(gen_random_uuid(), 1, false)",
    "select * from orders_stream",
    "create table pgtrickle.mine (x int)",
    "set role pgtrickle_owner",
]


@pytest.mark.parametrize("statement", DAEMON_MAY)
def test_the_daemon_s_role_may(running, statement):
    assert may(running.relay_dsn, statement)


@pytest.mark.parametrize("statement", DAEMON_MAY_NOT)
def test_the_daemon_s_role_may_not(running, statement):
    assert not may(running.relay_dsn, statement)


def test_an_administrator_manages_pipelines_of_tables_that_are_their_own(db):
    admin = db.login("relay_admin_login", "pgtrickle_admin")
    db.execute("create schema desk authorization relay_admin_login")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create table desk.orders_stream (id int primary key)")
        connection.execute("set search_path = desk")
        for call in [f"set_relay_outbox('p', '{FLAT}')",
                     "set_relay_outbox('p2', 'orders_stream', null, '{\"type\":\"stdout\"}', 5)",
                     f"set_relay_inbox('i', '{REVERSE}')",
                     "set_relay_inbox('i2', 'x', '{\"type\":\"stdin\"}')",
                     "set_relay('b', '{\"source_type\":\"stdin\",\"sink_type\":\"stdout\"}')",
                     "enable_relay('p')", "disable_relay('p')", "pause_relay('p')",
                     "get_relay_config('p')", "outbox_status('orders_stream')",
                     "relay_housekeeping()", "delete_relay('p')"]:
            connection.execute(f"select pgtrickle.{call}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from pgtrickle.relay_inbox_config")


def test_everybody_else_may_nothing(running):
    stranger = running.login("relay_stranger_login")
    for statement in ("select * from pgtrickle.relay_pipelines",
                      "select * from pgtrickle.list_relay_configs()",
                      "select pgtrickle.enable_relay('p')",
                      "select * from pgtrickle.outbox_orders_stream",
                      "select pgtrickle.relay_housekeeping()"):
        assert not may(stranger, statement)


def test_no_function_is_everybody_s_and_every_definer_pins_its_search_path(db):
    rows = db.execute("""
        select p.oid::regprocedure::text, p.prosecdef, p.proconfig::text,
               coalesce(p.proacl, acldefault('f', p.proowner))::text, r.rolname
        from pg_proc p join pg_roles r on r.oid = p.proowner
        where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)""")
    assert rows
    for name, definer, settings, privileges, owner in rows:
        assert not re.search(r"[{,]=", privileges), f"{name} is executable by PUBLIC"
        assert not definer or "search_path=" in (settings or ""), f"{name} pins no search_path"
        assert owner.startswith("pgtrickle_"), f"{name} belongs to {owner}"


def test_all_that_users_call_is_described(db):
    rows = db.execute("""
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'pgtrickle'::regnamespace
          and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
          and obj_description(p.oid, 'pg_proc') is null""")
    assert rows == []


def test_the_owner_of_it_all_is_harmless(db):
    assert db.execute("""
        select rolname from pg_roles
        where rolname in ('pgtrickle_owner', 'pgtrickle_relay', 'pgtrickle_publisher',
                          'pgtrickle_consumer', 'pgtrickle_admin', 'pgtrickle_observer')
          and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolbypassrls
               or rolreplication)""") == []
    assert db.execute("""
        select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid
        where m.member = 'pgtrickle_owner'::regrole and r.rolname not like 'pgtrickle\\_%'""") == []


# Installation

def schema_dump(db):
    done = subprocess.run([os.path.join(postgres_bin_directory(), "pg_dump"), "--schema-only",
                           db.dsn], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(("--", "\\"))]


def test_installing_again_changes_nothing(empty_db):
    install_from_files(empty_db.dsn)
    first = schema_dump(empty_db)
    install_from_files(empty_db.dsn)
    assert schema_dump(empty_db) == first


def test_installing_again_keeps_pipelines_outboxes_and_grants(running):
    before = (configs(running), running.execute("select * from pgtrickle.outbox_orders_stream"),
              running.execute("select * from pgtrickle.relay_consumer_offsets"))
    install_from_files(running.dsn)
    assert before == (configs(running),
                      running.execute("select * from pgtrickle.outbox_orders_stream"),
                      running.execute("select * from pgtrickle.relay_consumer_offsets"))
    assert may(running.relay_dsn, "select * from pgtrickle.outbox_orders_stream")
    insert_rows(running, 1)


def test_a_role_that_is_no_superuser_installs_it_on_a_server_that_never_had_it(own_bare_server):
    with own_bare_server.connect() as connection:
        connection.execute("create role managed login createrole password 's3cret-for-tests'")
        connection.execute("create database app")
        connection.execute("grant create on database app to managed")
    dsn = own_bare_server.dsn("app", user="managed")
    install_from_files(dsn)
    install_from_files(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema own; create table own.orders (id int primary key)")
        connection.execute("select pgtrickle.set_relay_outbox('p', %s, true)",
                           (Jsonb({"stream_table": "own.orders", "sink_type": "stdout"}),))
        connection.execute("insert into own.orders values (1)")
        rows = connection.execute("select pgtrickle.outbox_status('own.orders')").fetchone()[0]
        assert rows["rows"] == 1


@pytest.fixture
def own_bare_server():
    from support.postgres import PostgresServer
    server = PostgresServer("bare-pg").start()
    yield server
    server.stop_immediate()


def test_instances_are_forgotten_after_a_month(db):
    db.execute("insert into pgtrickle.relay_instances (relay_group_id, worker_id, heartbeat_at) "
               "values ('g', 'old', now() - interval '31 days'), ('g', 'new', now())")
    db.execute("select pgtrickle.relay_housekeeping()")
    eventually(lambda: db.execute("select worker_id from pgtrickle.relay_instances") == [("new",)])
