"""`pgtrickle-relay check`: what is broken is named with its remedy, and nothing is changed by looking."""

import json

import pytest

from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from support.relay import Relay, run_command

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


BREAKAGES = {
    "the outbox may not be read": (
        "revoke select on pgtrickle.outbox_orders from pgtrickle_relay",
        None, "may not read pgtrickle.outbox_orders",
        "GRANT SELECT ON pgtrickle.outbox_orders TO pgtrickle_relay;"),
    "the outbox was dropped": (
        "drop table pgtrickle.outbox_orders cascade",
        None, "outbox outbox_orders is gone", "enable_outbox('orders')"),
    "the position is ahead of the sequence": (
        "do $$ begin perform setval((select outbox_sequence from pgtrickle.pgt_outbox_config)"
        "::regclass, 1); end $$",
        "rows", "its position 3 is beyond the newest row of outbox_orders, 1",
        "resume rows --accept-loss"),
    "a function is missing": (
        "drop function pgtrickle.relay_dlq_discard(bigint)",
        None, "function pgtrickle.relay_dlq_discard(bigint) is missing", "pgtrickle-relay init"),
    "a function was replaced": (
        "create or replace function pgtrickle.pause_relay(name text) returns void language sql"
        " security definer set search_path = pg_catalog, pg_temp as 'select 1'",
        None, "function pgtrickle.pause_relay(text) is not the one that was installed",
        "pgtrickle-relay init"),
    "the database side is older": (
        "update pgtrickle.relay_schema_history set checksum = 'older'"
        " where file like '%positions%'",
        None, "another version than this program: 1 of", "pgtrickle-relay init"),
    "an outbox has a problem": (
        "update pgtrickle.pgt_outbox_config set problem = 'something is wrong'",
        "rows", "outbox outbox_orders: something is wrong", ""),
    "messages are in the dead letters": (
        "insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, error_message)"
        " select 'default', 'rows', i, 'no such customer' from generate_series(1, 3) i",
        "rows", "3 messages are in the dead letters", "dlq list rows"),
    "the table of an inbox was dropped": (
        "select pgtrickle.create_inbox('mail'); drop table pgtrickle.inbox_mail cascade",
        None, "the table of inbox mail is gone", "drop_inbox('mail')"),
    "a stream table fails": (
        "create table public.base (id int primary key, n int);"
        " select pgtrickle.create_stream_table('share', 'select id, 1 / n as part from public.base');"
        " insert into public.base values (1, 0);"
        " do $$ begin perform pgtrickle.refresh_stream_table('share');"
        " exception when others then null; end $$;"
        " update pgtrickle.pgt_stream_tables set consecutive_errors = 1,"
        " last_error = 'division by zero'",
        None, "stream table public.share fails to refresh: division by zero",
        "refresh_stream_table"),
}


@pytest.mark.parametrize("kind", BREAKAGES)
def test_what_is_broken_in_the_database_is_named_with_its_remedy(delivered, kind):
    db = delivered
    code, found = check(db)
    assert code == 0 and [each["message"] for each in found] == [NO_RELAY]
    statement, pipeline, message, remedy = BREAKAGES[kind]
    db.execute(statement)
    code, found = check(db)
    assert code in (1, 3), found
    (told,) = [each for each in found if message in each["message"]] or [found]
    assert told["pipeline"] == (pipeline or "") and remedy in told["remedy"], told
    assert check(db) == (code, found), "looking changed something"


def test_another_isolation_level_is_a_warning(delivered):
    delivered.execute("do $$ begin execute format('alter database %I set "
                      "default_transaction_isolation = serializable', current_database()); end $$")
    code, found = check(delivered)
    assert code == 0
    assert any("serializable by default" in each["message"] and each["warning"] for each in found)


def test_a_running_relay_and_no_problem_is_all_good(delivered):
    with Relay(delivered.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        assert check(delivered) == (0, [])
