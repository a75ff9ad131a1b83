"""What the comparison of the installation does not see: rows of ours that are gone, sequences that
stand behind their tables, and tables, triggers and functions that outboxes have of their own. `check`,
`status` and the daemon name each with a remedy that mends it."""

import json
import re
import time

import psycopg
import pytest
from support import earlier_versions
from support.pipelines import insert_rows, make_table
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for
from test_manifest import INIT, causes, check, init

pytestmark = pytest.mark.usefixtures("relay_bin")

PARTS = "pgtrickle.outbox_parts"
DELTA = "pgtrickle.outbox_delta_rows_parts"
NEWS = "pgtrickle.outbox_news"
FUNCTION = "pgtrickle_internal.capture_1_insert()"
SIDE = "statements of applications fail"


@pytest.fixture
def outboxes(db):
    """An outbox of each kind, each with a row."""
    db.login("bystander")
    db.execute("create table parts (id int primary key, name text);"
               "select pgtrickle.enable_outbox('parts');"
               "select pgtrickle.create_outbox('news');"
               "insert into parts values (1, 'bolt');"
               "select pgtrickle.publish('news', '{}')")
    assert db.one("select outbox_number from pgtrickle.relay_outboxes"
                  " where stream_table_name = 'parts'") == 1
    return db


# What is damaged; what is said of it, as a problem.
PROBLEMS = [
    # Rows that each installation has.
    ("delete from pgtrickle_gate.secret", "table pgtrickle_gate.secret lacks its row"),
    ("delete from pgtrickle_internal.locks",
     'table pgtrickle_internal.locks lacks its row "housekeeping"'),
    ("delete from pgtrickle_internal.housekeeping_round",
     "table pgtrickle_internal.housekeeping_round lacks its row"),
    ("delete from pgtrickle.relay_types", "table pgtrickle.relay_types lacks its rows"),
    ("delete from pgtrickle.relay_options", "table pgtrickle.relay_options lacks its rows"),
    ("update pgtrickle.relay_options set maximum = maximum + 1 where (side, type, name) ="
     " (select side, type, name from pgtrickle.relay_options limit 1)",
     "table pgtrickle.relay_options: rows that are not this program's: 1"),
    ("delete from pgtrickle.relay_options where side = 'sink' and type = 'kafka'",
     "table pgtrickle.relay_options: rows that are not this program's: "),
    ("insert into pgtrickle.relay_types values ('sink', 'mine', 99, '{}', '{}', false)",
     "table pgtrickle.relay_types: rows that are not this program's: 1"),
    # Sequences.
    (f"select setval('{PARTS}_id_seq', 1, false)",
     f"sequence {PARTS}_id_seq: the next number is 1, and column {PARTS}.id holds 1"),
    (f"select setval('{PARTS}_id_seq', 9223372036854775807)",
     f"sequence {PARTS}_id_seq has given out its last number: inserts fail"),
    ("select setval('pgtrickle_internal.outbox_config_outbox_number_seq', 1)",
     "sequence pgtrickle_internal.outbox_config_outbox_number_seq: the next number is 2, and column"
     " pgtrickle_internal.outbox_config.outbox_number holds 2"),
    (f"alter sequence {PARTS}_id_seq cache 10", f"sequence {PARTS}_id_seq: it hands out numbers"),
    (f"alter sequence {PARTS}_id_seq set unlogged", f"sequence {PARTS}_id_seq is UNLOGGED"),
    # Capture functions.
    (f"create or replace function {FUNCTION} returns trigger language plpgsql security definer"
     " as 'begin return null; end'",
     f"function {FUNCTION} of outbox outbox_parts: its body is another one"),
    ("do $$ begin execute replace(pg_get_functiondef('pgtrickle_internal.capture_1_row'::regproc),"
     " 'begin', 'begin '); end $$",
     "function pgtrickle_internal.capture_1_row() of outbox outbox_parts: its body is another one"),
    (f"alter function {FUNCTION} security invoker",
     f"function {FUNCTION} of outbox outbox_parts: it is SECURITY INVOKER"),
    ("alter function pgtrickle_internal.capture_1_begin() security definer",
     "function pgtrickle_internal.capture_1_begin() of outbox outbox_parts: it is SECURITY DEFINER"),
    (f"alter function {FUNCTION} set search_path = public",
     f"function {FUNCTION} of outbox outbox_parts: its SET clause is another one"),
    ("alter function pgtrickle_internal.capture_1_truncate() reset all",
     "function pgtrickle_internal.capture_1_truncate() of outbox outbox_parts: its SET clause"),
    (f"alter function {FUNCTION} immutable",
     f"function {FUNCTION} of outbox outbox_parts: its language or volatility"),
    (f"alter function {FUNCTION} owner to bystander",
     f"function {FUNCTION} of outbox outbox_parts belongs to bystander"),
    ("alter function pgtrickle_internal.capture_1_begin() owner to pgtrickle_capture",
     "function pgtrickle_internal.capture_1_begin() of outbox outbox_parts belongs to"
     " pgtrickle_capture"),
    # Tables of outboxes.
    (f"alter table {PARTS} owner to bystander", f"{PARTS} belongs to bystander"),
    (f"alter table {PARTS} set unlogged", f"{PARTS} is UNLOGGED"),
    (f"alter table {DELTA} set unlogged", f"{DELTA} is UNLOGGED"),
    (f"alter table {PARTS} enable row level security, force row level security",
     f"{PARTS} has row-level security"),
    (f"create table public.child () inherits ({PARTS})", f"public.child inherits from {PARTS}"),
    (f"create rule mine as on insert to {PARTS} do instead nothing", f"{PARTS} has a rule mine"),
    (f"create function public.f() returns trigger language plpgsql as 'begin return null; end';"
     f"create trigger mine before insert on {PARTS} for each row execute function public.f()",
     f"{PARTS} has a trigger mine"),
    (f"alter table {PARTS} drop constraint outbox_parts_pkey",
     f"{PARTS} has no valid primary key"),
    (f"update pg_index set indisvalid = false where indexrelid = '{DELTA}_pkey'::regclass",
     f"{DELTA} has no valid primary key"),
    (f"drop index {NEWS}_idempotency_key_idx", f"{NEWS} has no valid index that keeps"),
    (f"alter table {PARTS} drop column refresh_id cascade",
     f"{PARTS}: column refresh_id is missing"),
    (f"alter table {PARTS} alter column created_at drop default",
     f"{PARTS}: column created_at is timestamp with time zone, NOT NULL, not timestamp with time"
     " zone, NOT NULL, default clock_timestamp()"),
    (f"update {PARTS} set headers = '{{}}'; alter table {PARTS} alter column headers set not null",
     f"{PARTS}: column headers is jsonb, NOT NULL, not jsonb, may be null"),
    (f"alter table {PARTS} alter column id drop identity",
     f"{PARTS}: column id is bigint, NOT NULL, not bigint, NOT NULL, default identity"),
    (f"alter table {DELTA} alter column row_num type int",
     f"{DELTA}: column row_num is integer, NOT NULL, not bigint, NOT NULL"),
    (f"alter table {PARTS} add column mine text not null default '';"
     f"alter table {PARTS} alter column mine drop default",
     f"{PARTS}: column mine, which is none of pgtrickle's, is NOT NULL and has no default"),
    (f"revoke insert (payload, tg_op), select (id) on {PARTS} from pgtrickle_capture",
     f"role pgtrickle_capture lacks INSERT, SELECT on {PARTS}: {SIDE}"),
    (f"revoke all on {DELTA} from pgtrickle_capture",
     f"role pgtrickle_capture lacks INSERT on {DELTA}: {SIDE}"),
]
# What is said as a warning.
WARNINGS = [
    (f"grant select on {PARTS} to public", f"PUBLIC has SELECT on {PARTS}"),
    (f"grant insert on {PARTS} to bystander", f"role bystander has INSERT on {PARTS}"),
    (f"grant update (payload), insert (id) on {PARTS} to bystander",
     f"role bystander has INSERT (id), UPDATE (payload) on {PARTS}"),
    (f"grant execute on function {FUNCTION} to bystander",
     f"function {FUNCTION} of outbox outbox_parts may be executed by bystander"),
    (f"alter table {PARTS} replica identity nothing", f"{PARTS} has the replica identity NOTHING"),
    (f"alter table {PARTS} set (toast.autovacuum_enabled = no)",
     f"{PARTS} has autovacuum switched off"),
    ("create function public.f() returns trigger language plpgsql as 'begin return null; end';"
     f"create trigger mine after insert on {PARTS} for each row execute function public.f()",
     f"{PARTS} has a trigger mine"),
    (f"alter table {PARTS} add constraint mine check (id < 100)",
     f"{PARTS} has a constraint mine: it can make {SIDE[:26]}"),
    (f"create unique index mine on {NEWS} (event_type)", f"{NEWS} has an index pgtrickle.mine"),
    ("create function public.f() returns int language sql as 'select 1';"
     f"alter table {PARTS} add column mine int default public.f()",
     f"{PARTS}: column mine, which is none of pgtrickle's, runs a function or operator"),
]


def mend(db, remedy):
    if INIT in remedy:
        init(db.dsn)
    for statement in re.findall(r"((?:ALTER|SELECT|CREATE|DROP|REVOKE|REINDEX)\b.*?;)(?= |$)",
                                remedy):
        db.execute(statement)


@pytest.mark.parametrize("is_problem, damage, message",
                         [(True, *each) for each in PROBLEMS]
                         + [(False, *each) for each in WARNINGS],
                         ids=lambda value: value[:70] if isinstance(value, str) else "")
def test_check_names_it_and_its_remedy_mends_it(outboxes, is_problem, damage, message):
    outboxes.execute(damage)
    code, found = check(outboxes.relay_dsn)
    (told,) = [each for each in found if each.startswith(message)] or [sorted(found)]
    problem, remedy = found[told]
    assert problem == is_problem and code == (3 if is_problem else 0), (told, code)
    mend(outboxes, remedy)
    for _ in range(3):  # what was dropped or given away with it has remedies of its own
        code, found = check(outboxes.relay_dsn)
        if not found:
            break
        mend(outboxes, next(iter(found.values()))[1])
    assert (code, found) == (0, {}), remedy
    # And all works again.
    outboxes.execute("insert into parts values (2, 'nut'); select pgtrickle.publish('news', '{}')")
    assert outboxes.one(f"select count(*) from {PARTS} where payload #>> '{{inserted,0,id}}' = '2'"
                        ) == 1


def test_what_administrators_do_to_outboxes_is_no_difference(outboxes):
    outboxes.execute(
        f"create index mine on {PARTS} (created_at); comment on table {PARTS} is 'mine';"
        f"alter table {PARTS} set (autovacuum_vacuum_scale_factor = 0.01, fillfactor = 90);"
        f"alter table {PARTS} alter column payload set statistics 10;"
        f"alter table {PARTS} alter column payload set storage external;"
        f"alter table {PARTS} add column ticket text, add column seen boolean default false;"
        f"alter table {PARTS} replica identity full; create statistics mine on id, tg_op from {PARTS};"
        f"grant select on {PARTS} to bystander; create view mine as select * from {PARTS}")
    assert check(outboxes.relay_dsn) == (0, {})


def test_functions_that_have_another_secret_are_named_and_made_again(outboxes):
    outboxes.execute("create table letters (event_id text primary key, payload jsonb, processed_at"
                     " timestamptz, error text, retry_count int default 0);"
                     "select pgtrickle.enable_inbox_tracking('letters', 'letters');"
                     "insert into letters (event_id, payload) values ('a', '{}');"
                     "update pgtrickle_gate.secret set value = 'another'")
    with pytest.raises(psycopg.Error, match="is called by pgtrickle only"):
        outboxes.execute("select pgtrickle.inbox_mark_processed('letters', 'a')")
    code, found = check(outboxes.relay_dsn)
    assert code == 3 and all("was made with another secret" in each for each in found)
    assert [each for each in found if " of outbox outbox_parts " in each]
    assert [each for each in found if " of inbox letters " in each]
    init(outboxes.dsn)
    assert check(outboxes.relay_dsn) == (0, {})
    outboxes.execute("select pgtrickle.inbox_mark_processed('letters', 'a');"
                     "select pgtrickle.outbox_full_refresh('parts')")


@pytest.mark.parametrize("version", earlier_versions.VERSIONS)
def test_an_upgrade_leaves_no_difference(empty_db, version, tmp_path):
    earlier_versions.install_version(empty_db.dsn, version)
    earlier_versions.fill(empty_db.dsn, str(tmp_path / "out"))
    init(empty_db.dsn)
    assert empty_db.execute("select message from pgtrickle.relay_differences()") == []
    status = run_command("status", "--json", "--postgres-url", empty_db.dsn)
    assert json.loads(status.stdout)["database_side"] == []


def test_quoted_identifiers_are_no_difference(outboxes):
    with outboxes.connect() as session:
        session.execute("set quote_all_identifiers = on; create table quoted (id int primary key);"
                        "select pgtrickle.enable_outbox('quoted')")
        assert session.execute("select message from pgtrickle.relay_differences()").fetchall() == []
    assert check(outboxes.relay_dsn) == (0, {})


def test_a_locked_table_keeps_it_waiting_for_a_moment_only(outboxes):
    """A table that is locked is looked at the next time."""
    outboxes.execute(f"select setval('{PARTS}_id_seq', 1, false)")
    with outboxes.connect(autocommit=False) as other:
        other.execute(f"lock table {PARTS} in access exclusive mode")
        began = time.monotonic()
        assert outboxes.execute("select message from pgtrickle.relay_differences()") == []
        assert time.monotonic() - began < 5
    assert check(outboxes.relay_dsn)[0] == 3


def test_it_keeps_no_lock_on_a_table_of_an_outbox(outboxes):
    with outboxes.connect(autocommit=False) as session:
        session.execute("select * from pgtrickle.relay_differences()")
        held = session.execute("select relation::regclass::text from pg_locks l"
                               " where pid = pg_backend_pid() and relation is not null").fetchall()
    assert not {name for (name,) in held if name.startswith("pgtrickle.outbox_")}


def test_the_daemon_and_status_name_it(db, tmp_path):
    make_table(db)
    insert_rows(db, "orders", 1)
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy()
        number = db.one("select outbox_number from pgtrickle.relay_outboxes")
        db.execute(f"alter function pgtrickle_internal.capture_{number}_update() immutable;"
                   "select pg_notify('pgtrickle_relay_config', '{\"event\":\"installed\"}')")
        (cause,) = eventually(lambda: causes(relay), 60)
        assert "its language or volatility is another one" in cause["message"]
        status = run_command("status", "--json", "--postgres-url", db.relay_dsn)
        (told,) = json.loads(status.stdout)["database_side"]
        assert told["message"] in cause["message"] and INIT in told["remedy"]
        init(db.dsn)
        eventually(lambda: not causes(relay), 60)


def test_a_role_without_rights_is_told_so_and_sees_the_rest(outboxes):
    dsn = outboxes.login("bystander")
    outboxes.execute("drop function pgtrickle.relay_dlq_retry(bigint)")
    code, found = check(dsn)
    assert code == 3 and "function pgtrickle.relay_dlq_retry(bigint) is missing" in found


# Triggers of captured tables ----------------------------------------------------------------------

# What is done to a trigger. Each lets changes pass that the outbox does not have.
REDEFINED = [
    "create or replace trigger \"!pgtrickle_1_insert\" after insert on parts"
    " referencing new table as new_rows for each statement when (false)"
    " execute function pgtrickle_internal.capture_1_insert()",
    "create or replace trigger \"!pgtrickle_1_update\" after delete on parts"
    " referencing old table as old_rows for each statement"
    " execute function pgtrickle_internal.capture_1_update()",
    "create or replace trigger \"!pgtrickle_1_row\" after update of id on parts"
    " for each row execute function pgtrickle_internal.capture_1_row();"
    " alter table parts enable replica trigger \"!pgtrickle_1_row\"",
    "create or replace trigger \"!pgtrickle_1_truncate\" after truncate on parts"
    " for each statement execute function pgtrickle_internal.capture_1_truncate('part');"
    " alter table parts enable always trigger \"!pgtrickle_1_truncate\"",
]


@pytest.mark.parametrize("statement", REDEFINED, ids=lambda text: text[27:60])
def test_a_trigger_that_is_defined_otherwise_is_named_and_made_again(outboxes, statement):
    before = outboxes.execute("select pg_get_triggerdef(oid), tgenabled from pg_trigger"
                              " where tgrelid = 'parts'::regclass order by 1")
    outboxes.execute(statement)
    code, found = check(outboxes.relay_dsn)
    (told,) = [each for each in found if "triggers are missing or switched off" in each]
    assert code != 0 and found[told][0] and "outbox_capture_upkeep()" in found[told][1]
    assert outboxes.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert outboxes.execute("select pg_get_triggerdef(oid), tgenabled from pg_trigger"
                            " where tgrelid = 'parts'::regclass order by 1") == before
    assert outboxes.one(f"select payload ->> 'full_refresh' from {PARTS} order by id desc") == "true"
    assert check(outboxes.relay_dsn) == (0, {})
