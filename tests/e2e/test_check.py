"""`pgtrickle-relay check`: what is broken is named with its remedy, and nothing is changed by looking."""

import json
import re
import types

import pytest

from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from support.relay import Relay, run_command
from support.standby import Standby
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("relay_bin")

NO_RELAY = "no relay is running"


def check(db):
    """(exit code, what is not good)"""
    done = run_command("check", "--json", env={
        "PGTRICKLE_RELAY_POSTGRES_URL": db.relay_dsn})
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, [each for each in findings if not each["ok"] or each["warning"]]


@pytest.fixture
def delivered(db, tmp_path):
    """A database with a pipeline that has delivered three rows and whose relay has ended."""
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        wait_settled(db, "rows", "orders")
    return db


# What is broken; whose finding it is, its words, and those of its remedy; what ends it.
BREAKAGES = [
    ("do $$ begin perform setval((select outbox_sequence from pgtrickle.pgt_outbox_config)"
     "::regclass, 1); end $$",
     "rows", "its position 3 is beyond the newest row of outbox_orders, 1",
     "resume rows --accept-loss",
     "do $$ begin perform setval((select outbox_sequence from pgtrickle.pgt_outbox_config)"
     "::regclass, 3); end $$"),
    ("create table kept as select * from pgtrickle.relay_schema_history;"
     " update pgtrickle.relay_schema_history set checksum = 'older' where file like '%positions%'",
     None, "another version than this program: 1 of", "pgtrickle-relay init",
     "update pgtrickle.relay_schema_history h set checksum = k.checksum from kept k"
     " where k.file = h.file"),
    ("update pgtrickle.pgt_outbox_config set problem = 'something is wrong. DO THIS'",
     "rows", "outbox outbox_orders: something is wrong", "DO THIS",
     "update pgtrickle.pgt_outbox_config set problem = null"),
    ("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, error_message)"
     " select 'default', 'rows', i, 'no such customer' from generate_series(1, 3) i",
     "rows", "3 messages are in the dead letters", "dlq list rows",
     "delete from pgtrickle.relay_dlq"),
    ("select pgtrickle.create_inbox('mail'); drop table pgtrickle.inbox_mail cascade",
     None, "the table of inbox mail is gone", "drop_inbox('mail')",
     "select pgtrickle.drop_inbox('mail')"),
    ("create table public.base (id int primary key, n int);"
     " select pgtrickle.create_stream_table('share', 'select id, 1 / n as part from public.base');"
     " insert into public.base values (1, 0);"
     " do $$ begin perform pgtrickle.refresh_stream_table('share');"
     " exception when others then null; end $$;"
     " update pgtrickle.pgt_stream_tables set consecutive_errors = 1,"
     " last_error = 'division by zero'",
     None, "stream table public.share fails to refresh: division by zero",
     "refresh_stream_table", "select pgtrickle.drop_stream_table('share')"),
]


def test_what_is_broken_in_the_database_is_named_with_its_remedy(delivered):
    db = delivered
    good = check(db)
    assert good[0] == 0 and [each["message"] for each in good[1]] == [NO_RELAY]
    for statement, pipeline, message, remedy, undo in BREAKAGES:
        db.execute(statement)
        code, found = check(db)
        assert code in (1, 3), found
        (told,) = [each for each in found if message in each["message"]] or [found]
        assert told["pipeline"] == (pipeline or "") and remedy in told["remedy"], told
        assert check(db) == (code, found), "looking changed something"
        db.execute(undo)
        assert check(db) == good, message


# Each in turn, in one database: what is broken, what is said of it, and how much of the remedy's SQL is
# run (a remedy that is a command is `init`).
MENDED = [
    ("revoke select on pgtrickle.outbox_orders from pgtrickle_relay", "may not read", 1),
    ("revoke usage on schema pgtrickle from pgtrickle_relay",
     ("permission denied for schema", "role pgtrickle_relay lacks USAGE on schema pgtrickle"), 0),
    ("drop function pgtrickle.relay_dlq_discard(bigint);"
     " alter function pgtrickle.relay_dlq_retry(bigint) owner to current_user;"
     " create or replace function pgtrickle.pause_relay(name text) returns void language sql"
     " security definer set search_path = pg_catalog, pg_temp as 'select 1'",
     ("function pgtrickle.relay_dlq_discard(bigint) is missing",
      "function pgtrickle.relay_dlq_retry(bigint): owner is postgres, not pgtrickle_owner",
      "function pgtrickle.pause_relay(text): the body differs"), 0),
    ("drop table pgtrickle.relay_dlq cascade",
     ("table pgtrickle.relay_dlq is missing", 'relation "pgtrickle.relay_dlq" does not exist'), 0),
    ("alter table orders disable trigger user", "triggers are missing or switched off", 1),
    ("do $$ declare t name; begin for t in select tgname from pg_trigger"
     " where tgrelid = 'orders'::regclass and not tgisinternal"
     " loop execute format('drop trigger %I on orders', t); end loop; end $$",
     "triggers are missing or switched off", 1),
    ("drop table orders; create table orders (id bigint primary key, name text, amount numeric)",
     "its table was dropped, and public.orders is another one", 1),
    ("alter table orders rename to old_orders;"
     " create table orders (id bigint primary key, name text, amount numeric)",
     "for the table that had this name is now public.old_orders", 1),
    ("drop table pgtrickle.outbox_orders cascade", "outbox outbox_orders is gone", 2),
    ("do $$ begin execute format('alter database %I set default_transaction_isolation = serializable',"
     " current_database()); end $$", "serializable by default", 1),
]
STATEMENT = re.compile(r"GRANT [^;]+;|SELECT pgtrickle\.\w+\([^)]*\)|ALTER DATABASE [^;]+;")


def test_each_remedy_removes_its_finding(delivered):
    db = delivered
    for breakage, words, statements in MENDED:
        db.execute(breakage)
        found = check(db)[1]
        for each in words if isinstance(words, tuple) else (words,):
            told = [one for one in found if each in one["message"]]
            assert told, (each, found)
        remedy = told[0]["remedy"]
        if statements:
            to_run = STATEMENT.findall(remedy)
            assert len(to_run) >= statements, remedy
            for statement in to_run[:statements]:
                db.execute(statement)
        else:
            assert "pgtrickle-relay init" in remedy
            assert run_command("init", "--postgres-url", db.dsn).returncode == 0
        code, left = check(db)
        assert code == 0 and [each["message"] for each in left] == [NO_RELAY], (breakage, left)
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        insert_rows(db, "orders", 10, 1)
        wait_settled(db, "rows", "orders")
        assert check(db) == (0, [])


def test_a_standby_that_only_reads_is_named(own_pg_server):
    db = own_pg_server.create_database()
    standby = Standby(own_pg_server).start()
    try:
        there = types.SimpleNamespace(
            relay_dsn=db.relay_dsn.replace(f":{own_pg_server.port}/", f":{standby.port}/"))
        code, found = check(there)
        assert code == 1 and "this server is a standby" in found[0]["message"]
        assert "target_session_attrs=read-write" in found[0]["remedy"]
    finally:
        standby.end()


def test_another_isolation_level_is_a_warning(delivered):
    """However it was set: for the database is one of the cases above."""
    for told, set_it, reset in (
            ("by default for relay_daemon", "alter role relay_daemon set {}",
             "ALTER ROLE relay_daemon RESET"),
            ("serializable by default: ", "alter system set {}", "ALTER SYSTEM RESET")):
        setting = "default_transaction_isolation = serializable"
        delivered.execute(set_it.format(setting))
        delivered.execute("select pg_reload_conf()")
        try:
            code, found = eventually(lambda: next(
                (one for one in [check(delivered)] if len(one[1]) > 1), None), 10)
            assert code == 0
            (said,) = [each for each in found if told in each["message"] and each["warning"]]
            assert said["remedy"].startswith(reset)
        finally:
            delivered.execute(set_it.replace("set {}", "reset default_transaction_isolation"))
            delivered.execute("select pg_reload_conf()")


def test_a_running_relay_and_no_problem_is_all_good(delivered):
    with Relay(delivered.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        assert check(delivered) == (0, [])
