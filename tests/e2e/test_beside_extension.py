"""Installing beside the pg_trickle extension, and the extension over an installation."""

import os
import pathlib
import re
import subprocess

import pytest

from support.beside import NatsCopy, install_beside, make_totals, members, refresh, sell
from support.bridges import set_bridge, wait_lines
from support.database_side import install
from support.fixtures import need
from support.pipelines import (Lines, insert_rows, make_table, set_outbox, to_file, to_nats,
                               wait_settled)
from support.postgres import REPOSITORY, PostgresServer, postgres_bin_directory, refusal
from support.relay import clean_environment, run_command
from support.replay import Replay
from support.stand_in_extensions import bin_with_extensions
from support.waiting import eventually

STREAM_FUNCTIONS = {"create_stream_table", "alter_stream_table", "drop_stream_table",
                    "refresh_stream_table"}
SHARED_TABLES = {"pgt_stream_tables", "pgt_refresh_history", "pgt_outbox_config"}


def init(db, dsn=None):
    return run_command("init", "--postgres-url", dsn or db.dsn)


def check(db):
    done = run_command("check", "--postgres-url", db.dsn)
    return done.stdout + done.stderr


def functions(db, name):
    return [row[0] for row in db.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'pgtrickle'::regnamespace"
        " and proname = %s order by 1", (name,))]


# Beside 0.46 -------------------------------------------------------------------------------


def test_nothing_of_the_extension_is_touched(extension_db, start_relay, tmp_path):
    db = extension_db
    db.execute("create extension pg_trickle")
    db.execute("grant select on pgtrickle.pgt_stream_tables to public;"
               "comment on function pgtrickle.refresh_stream_table(text) is 'theirs'")
    db.execute("create table t as select 1 as customer, 2 as total")
    db.execute("select pgtrickle.create_stream_table('s', 'select * from t')")
    before = members(db)
    for _ in range(2):
        done = init(db)
        assert done.returncode == 0, done.stderr
        assert members(db) == before
    db.execute("select pgtrickle.enable_outbox('s')")
    make_table(db)
    db.execute("select pgtrickle.create_inbox('letters'); select pgtrickle.create_outbox('events')")
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("orders", lines.path))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        relay.wait_healthy(pipelines=1)
    assert init(db).returncode == 0
    assert members(db) == before
    Replay(db, "orders").check()
    assert db.one("select pgtrickle.outbox_status('s') ->> 'problem'") is None
    assert db.one("select count(*) from pgtrickle.relay_outboxes") == 3
    done = run_command("check", "--postgres-url", db.dsn)
    assert done.returncode == 0, done.stdout


def test_ours_are_no_members_and_theirs_are_not_overloaded(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle")
    owned = db.one("select count(*) from pg_depend where deptype = 'e'")
    install(db.dsn)
    assert db.one("select count(*) from pg_depend where deptype = 'e'") == owned
    for name in STREAM_FUNCTIONS:
        assert len(functions(db, name)) == 1
    db.execute("select pgtrickle.create_stream_table('s', 'select 1 as x')")
    db.execute("select pgtrickle.refresh_stream_table('s')")
    assert db.one("select count(*) from pgtrickle.stream_tables_due()") == 0
    assert db.one("select pgtrickle.publish('e', '{}')"
                  " from (select pgtrickle.create_outbox('e')) o") == 1


def test_dropping_the_extension_is_refused(extension_db):
    db = extension_db
    install_beside(db)
    make_totals(db)
    said = refusal(db, "drop extension pg_trickle")
    assert "other objects depend on it" in said and "CASCADE" in said
    assert db.one("select pgtrickle.outbox_status('totals') ->> 'outbox'") == "outbox_totals"


def test_a_role_without_rights_on_the_schema_is_told_what_to_grant(extension_db):
    db = extension_db
    db.execute("create extension pg_trickle")
    dsn = db.login("installer_beside")
    db.execute("alter role installer_beside createrole")
    db.execute(f"grant create on database {db.name} to installer_beside")
    for role in ("owner", "observer", "capture", "sandbox", "relay", "publisher", "admin"):
        db.execute(f"grant pgtrickle_{role} to installer_beside with admin option")
    try:
        before = members(db)
        done = init(db, dsn)
        assert done.returncode != 0
        grant = re.search(r"GRANT USAGE, CREATE ON SCHEMA pgtrickle TO .* WITH GRANT OPTION",
                          done.stderr)
        assert grant, done.stderr
        db.execute(grant[0])
        done = init(db, dsn)
        assert done.returncode == 0, done.stderr
        assert members(db) == before
        make_totals(db)
        sell(db, "a")
        refresh(db)
        Replay(db, "totals").check()
    finally:
        for role in ("owner", "observer", "capture", "sandbox", "relay", "publisher", "admin"):
            db.execute(f"revoke pgtrickle_{role} from installer_beside cascade")


def test_a_dump_carries_both_over(extension_db, extension_pg_server):
    db = extension_db
    shown = subprocess.run([f"{extension_pg_server.bin}/pg_dump", "--version"],
                           capture_output=True, text=True).stdout
    need(f" {extension_pg_server.version}." in shown, "a pg_dump of this server's version")
    install_beside(db)
    make_table(db)
    insert_rows(db, "orders", 1, 3)
    there = extension_pg_server.create_database(template="template0")
    try:
        dumped = subprocess.run([f"{extension_pg_server.bin}/pg_dump", db.dsn],
                                capture_output=True, text=True, check=True)
        restored = subprocess.run(
            [f"{extension_pg_server.bin}/psql", "-v", "ON_ERROR_STOP=1", "-q", there.dsn],
            input=dumped.stdout, capture_output=True, text=True)
        assert restored.returncode == 0, restored.stderr
        assert init(there).returncode == 0
        with there.connect(user="relay_daemon") as relay:
            relay.execute("select pgtrickle.relay_housekeeping()")
        insert_rows(there, "orders", 4, 2)
        Replay(there, "orders").check()
        assert len(functions(there, "create_stream_table")) == 1
    finally:
        there.drop()


# 0.28 to 0.45 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_server():
    """A server on which the relay was never installed: its roles are not there either."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("bare-extensions-pg", bin_directory=bin_with_extensions()).start()
    try:
        yield server
    finally:
        server.stop_immediate()


def everything(db):
    """What init would change: schemas, roles, and what is in pgtrickle."""
    return db.execute("""
        select n.xmin::text, n::text from pg_namespace n where nspname not like 'pg\\_%'
        union all select r.xmin::text, concat(r.rolname, r.rolcreaterole) from pg_authid r
        union all select m.xmin::text, m::text from pg_auth_members m
        union all select p.xmin::text, p::text from pg_proc p where p.oid >= 16384
        union all select '', concat_ws(' ', c.oid, c.relname, c.relowner, c.relacl)
                  from pg_class c where c.oid >= 16384 order by 2""")


def test_an_extension_with_outboxes_of_its_own_is_refused_before_any_change(bare_server):
    db = bare_server.create_database(template="template0")
    db.execute("create extension pg_trickle version '0.36'")
    db.execute("select pgtrickle.set_relay_outbox('p', '{}')")
    before = everything(db)
    done = init(db)
    assert done.returncode != 0
    assert "pg_trickle 0.36 owns names" in done.stderr and "ALTER EXTENSION" in done.stderr
    assert everything(db) == before
    assert db.one("select count(*) from pg_roles where rolname like 'pgtrickle%%'") == 0
    assert db.one("select count(*) from pgtrickle.list_relay_configs()") == 1
    db.execute("alter extension pg_trickle update")
    done = init(db)
    assert done.returncode == 0, done.stderr
    make_totals(db)
    sell(db, "a")
    refresh(db)
    Replay(db, "totals").check()


def test_outbox_tables_of_an_old_extension_are_read_from_another_database(
        db, extension_db, start_relay, tmp_path):
    """As plain tables; the shape is that of pg_trickle 0.28 to 0.45."""
    there = extension_db
    there.execute("create extension pg_trickle version '0.36'")
    there.execute("""
        create table pgtrickle.outbox_totals (
          id bigint generated always as identity primary key, pgt_id uuid not null,
          created_at timestamptz not null default now(), inserted_count bigint not null,
          deleted_count bigint not null, is_claim_check boolean not null default false,
          payload jsonb);
        grant select on pgtrickle.outbox_totals, pgtrickle.outbox_totals_id_seq to relay_daemon""")
    lines = Lines(tmp_path / "out")
    set_bridge(db, "p", {"type": "pg-outbox", "url": there.relay_dsn, "payload_column": "payload",
                         "table": "pgtrickle.outbox_totals"}, lines.path)
    with start_relay(db.relay_dsn):
        for number in range(3):
            there.execute(
                "insert into pgtrickle.outbox_totals"
                " (pgt_id, inserted_count, deleted_count, payload)"
                " values (gen_random_uuid(), 1, 0, jsonb_build_object('v', 1, 'inserted',"
                " jsonb_build_array(jsonb_build_object('n', %s::int)), 'deleted', '[]'::jsonb))",
                (number,))
        found = wait_lines(lines, 3)
    assert [message["payload"]["inserted"][0]["n"] for message in found] == [0, 1, 2]


def test_every_name_of_ours_but_the_shared_ones_is_refused(extension_db):
    """A name that is installed and not in the list of 000_schema.sql would be replaced instead."""
    source = "".join(path.read_text() for path in pathlib.Path(REPOSITORY, "sql").rglob("*.sql")
                     if "pg-trickle.md describes both" in path.read_text())
    listed = set(re.findall(r"'(\w+)'", re.search(
        r"o\.name = any \(array\[(.*?)\]\)", source, re.DOTALL)[1]))
    install(extension_db.dsn)
    names = {row[0] for row in extension_db.execute(
        "select proname from pg_proc where pronamespace = 'pgtrickle'::regnamespace union"
        " select relname from pg_class where relnamespace = 'pgtrickle'::regnamespace"
        " and relkind in ('r', 'v', 'p')")}
    assert {name for name in names if not name.startswith("relay_")} \
        == listed | STREAM_FUNCTIONS | SHARED_TABLES


# The extension over an installation ------------------------------------------------------------


@pytest.fixture
def ours(extension_db):
    """An installation without the extension: an outbox with rows, a stream table, an inbox."""
    db = extension_db
    install(db.dsn)
    make_table(db)
    insert_rows(db, "orders", 1, 3)
    db.execute("select pgtrickle.create_stream_table('sums', 'select sum(amount) as s from orders',"
               " schedule => '100ms')")
    db.execute("select pgtrickle.create_inbox('letters')")
    return db


@pytest.mark.parametrize("version", ["0.36", "0.46", "replacing"])
def test_an_extension_over_ours_fails_and_changes_nothing(ours, version):
    before = everything(ours)
    said = refusal(ours, f"create extension pg_trickle version '{version}'")
    assert "already exists" in said or "is not a member of extension" in said
    assert everything(ours) == before
    insert_rows(ours, "orders", 4)
    Replay(ours, "orders").check()
    assert "extension" not in check(ours)


def test_an_extension_that_makes_calls_ambiguous_is_named(ours, start_relay):
    ours.execute("create extension pg_trickle version 'overloading'")
    said = check(ours)
    assert "create_stream_table is there twice" in said and "pgtrickle-relay init" in said
    assert init(ours).returncode == 0
    assert "there twice" not in check(ours)
    for name in ("create_stream_table", "refresh_stream_table"):
        assert len(functions(ours, name)) == 1
    with start_relay(ours.relay_dsn):
        insert_rows(ours, "orders", 4)
        eventually(lambda: ours.one("select s from sums") == 10)  # refreshed as before
    ours.execute("drop extension pg_trickle")
    assert init(ours).returncode == 0
    assert ours.one("select pgtrickle.refresh_stream_table('sums') ->> 'action'")


def test_objects_that_were_given_to_an_extension_are_named(ours):
    ours.execute("create extension pg_trickle version 'overloading'")
    ours.execute("alter extension pg_trickle add function pgtrickle.rebind_outbox(text, text);"
                 "alter extension pg_trickle add table pgtrickle.relay_dlq")
    said = check(ours)
    remedies = re.findall(r"ALTER EXTENSION pg_trickle DROP [^;]*", said)
    assert len(remedies) == 2, said
    refused = init(ours)
    assert refused.returncode != 0 and "pgtrickle-relay check" in refused.stderr
    for remedy in remedies:
        ours.execute(remedy)
    assert init(ours).returncode == 0
    assert "belongs to extension" not in check(ours)


def test_the_documented_way_to_the_extension_loses_nothing(ours, nats, start_relay):
    """The statements of docs/pg-trickle.md, with rows that are not delivered yet."""
    page = pathlib.Path(REPOSITORY, "docs", "pg-trickle.md").read_text()
    script = re.search(r"```sql\n(BEGIN;\n.*?COMMIT;\n)```", page, re.DOTALL)[1]
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        copy = NatsCopy(client, key="id")
        set_outbox(ours, "p", to_nats("orders", nats))
        with start_relay(ours.relay_dsn):
            copy.wait_equal(ours, "orders")
            wait_settled(ours, "p", "orders")
        insert_rows(ours, "orders", 4, 2)
        kept = "select to_jsonb(o) from pgtrickle.outbox_orders o order by id"
        positions = "select to_jsonb(o) from pgtrickle.relay_consumer_offsets o"
        before = ours.execute(kept), ours.execute(positions)
        done = subprocess.run([f"{ours.server.bin}/psql", "-v", "ON_ERROR_STOP=1", "-q", ours.dsn],
                              input=script, capture_output=True, text=True,
                              env=dict(os.environ, **clean_environment()))
        assert done.returncode == 0, done.stderr
        assert (ours.execute(kept), ours.execute(positions)) == before
        insert_rows(ours, "orders", 6)  # capture goes on at once
        theirs = members(ours)
        done = init(ours)
        assert done.returncode == 0, done.stderr
        assert members(ours) == theirs
        make_totals(ours)
        with start_relay(ours.relay_dsn) as relay:
            insert_rows(ours, "orders", 7)
            copy.wait_equal(ours, "orders")
            sequences = [m.json["sequence"] for m in client.messages("s")]
            assert sequences == sorted(set(sequences)), "each once, in order"
            eventually(lambda: ours.one("select s from sums") == 28)  # our stream table lives on
            sell(ours, "a")
            refresh(ours, full=True)
            relay.wait_healthy(pipelines=1)
        Replay(ours, "orders").check()
        assert "problem" not in [line.split()[0] for line in check(ours).splitlines() if line]
