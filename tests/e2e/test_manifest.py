"""What is installed is compared with what the program needs: `check`, `status` and the daemon name
each difference with its remedy, and a database side of a later version is refused."""

import json
import os
import re

import psycopg
import pytest
from support.manifest import installed_lines, recorded_lines, recorded_objects
from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for
from test_install import install_earlier, managed_database, managed_server  # noqa: F401

pytestmark = pytest.mark.usefixtures("relay_bin")

OLDER = "the database side has version 0, and this program needs"
NEWER = "the database side has version 99, and this program knows"
INIT = "pgtrickle-relay init"
RETRY = "function pgtrickle.relay_dlq_retry(bigint)"
DLQ = "pgtrickle.relay_dlq"
LEASES = "pgtrickle.relay_leases"
NAMED = "it can make statements of the relay fail"


def check(dsn):
    """(exit code, {message: (is a problem, remedy)} of what is not good, apart from no relay)"""
    done = run_command("check", "--json", env={"PGTRICKLE_RELAY_POSTGRES_URL": dsn})
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {
        each["message"]: (not each["ok"], each["remedy"]) for each in findings
        if (not each["ok"] or each["warning"]) and each["message"] != "no relay is running"}


def init(dsn):
    done = run_command("init", "--postgres-url", dsn)
    assert done.returncode == 0, done.stdout + done.stderr


# The manifest -------------------------------------------------------------------------------------

def test_the_manifest_is_what_an_installation_makes(db):
    """On every version of PostgreSQL. After a change of sql/: scripts/manifest."""
    with db.connect() as connection:
        assert installed_lines(connection) == recorded_lines()


def test_it_covers_every_schema_and_role_of_an_installation(db):
    """Those that are missing here are to be added at the top of src/schema/installed.sql."""
    made = db.execute(
        "select 'schema ' || nspname from pg_namespace where nspname like 'pgtrickle%'"
        " union select 'role ' || rolname from pg_roles where rolname like 'pgtrickle%'")
    covered = {line.split("\t")[0] for line in recorded_lines()}
    assert {title for (title,) in made} <= covered


def seconds_of_work(pid):
    """What a process has had of the processors, however many others want them."""
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rsplit(") ", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_it_is_read_without_any_privilege_and_quickly(db):
    db.login("stranger")
    with db.connect(user="stranger") as stranger:
        assert installed_lines(stranger) == recorded_lines()
        before = seconds_of_work(stranger.info.backend_pid)
        for _ in range(10):
            installed_lines(stranger)
        assert (seconds_of_work(stranger.info.backend_pid) - before) / 10 < 0.2


# Without a difference -----------------------------------------------------------------------------

def test_a_database_in_use_has_no_difference(db, tmp_path):
    for table in ("orders", "parts"):
        make_table(db, table)
    db.execute("select pgtrickle.create_outbox('events');"
               "select pgtrickle.create_inbox('mail');"
               "create table letters (id int primary key, n int);"
               "select pgtrickle.create_stream_table('digest', 'select n, count(*) from letters"
               " group by n', '1s', 'AUTO', '{n}')")
    set_outbox(db, "rows", to_file("orders", tmp_path / "rows.jsonl"))
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        insert_rows(db, "orders", 1, 3)
        wait_settled(db, "rows", "orders")
        assert check(db.relay_dsn) == (0, {})
        assert not [line for line in relay.log_lines if " schema: " in line]


def test_the_user_of_a_rented_server_has_none(managed_server):  # noqa: F811
    """Neither in a fresh installation nor in an upgraded one."""
    fresh = managed_database(managed_server, "manifest_fresh")
    init(fresh)
    upgraded = managed_database(managed_server, "manifest_upgraded")
    install_earlier(upgraded)
    init(upgraded)
    for dsn in (fresh, upgraded):
        with psycopg.connect(dsn) as owner:
            owner.execute("grant pgtrickle_relay to managed")
        assert check(dsn) == (0, {})


def test_what_users_add_without_harm_is_none(db):
    db.login("reporting")
    db.execute("create index mine on pgtrickle.relay_dlq (subject);"
               "create view pgtrickle.failures as select * from pgtrickle.relay_dlq;"
               "alter table pgtrickle.relay_dlq add column ticket text,"
               " add column seen boolean not null default false;"
               "grant select on pgtrickle.relay_dlq to reporting;"
               "grant execute on function pgtrickle.relay_dlq_retry to reporting;"
               "grant usage on schema pgtrickle to reporting")
    assert check(db.relay_dsn) == (0, {})


# Differences --------------------------------------------------------------------------------------

# What is damaged; what is said of it. The remedies that are named mend each of them.
PROBLEMS = [
    (f"alter table {DLQ} drop column attempts cascade", f"column {DLQ}.attempts is missing"),
    ("alter table pgtrickle.relay_instances alter column version type varchar(100)",
     "column pgtrickle.relay_instances.version: type is character varying(100), not text"),
    (f"alter table {DLQ} alter column attempts set default 7",
     f"column {DLQ}.attempts: default is 7, not "),
    (f"alter table {DLQ} alter column subject set not null",
     f"column {DLQ}.subject: not null is yes, not none"),
    (f"alter table {DLQ} add column mine text not null",
     f"unexpected column {DLQ}.mine: it is NOT NULL and has no default"),
    (f"drop table {DLQ} cascade", f"table {DLQ} is missing"),
    (f"alter table {DLQ} enable row level security",
     f"table {DLQ}: row security is enabled, not none"),
    ("alter table pgtrickle.relay_replays set unlogged",
     "table pgtrickle.relay_replays: it is UNLOGGED: a crash of the server empties it"),
    ("alter table pgtrickle.pgt_stream_sources disable trigger all",
     "constraint pgtrickle.pgt_stream_sources.pgt_stream_sources_pgt_id_fkey: its triggers are"
     " disabled"),
    (f"alter table {LEASES} drop constraint relay_leases_kind_check, add constraint"
     " relay_leases_kind_check check (kind in ('pipeline', 'leader', 'housekeeping')) not valid",
     f"constraint {LEASES}.relay_leases_kind_check: it is NOT VALID"),
    (f"update pg_index set indisvalid = false where indexrelid = '{DLQ}_resolved'::regclass",
     f"index {DLQ}_resolved: its index is invalid"),
    (f"update pg_index set indisvalid = false where indexrelid = '{DLQ}_pkey'::regclass",
     f"constraint {DLQ}.relay_dlq_pkey: its index is invalid"),
    ("update pg_index set indisvalid = false where indexrelid ="
     " 'pgtrickle_internal.outbox_config_pkey'::regclass",  # others refer to it
     "constraint pgtrickle_internal.outbox_config.outbox_config_pkey: its index is invalid"),
    (f"create table public.theirs () inherits ({DLQ})",
     f"table {DLQ}: rows of public.theirs show in it, which inherits from it"),
    (f"drop {RETRY}", f"{RETRY} is missing"),
    ("create or replace function pgtrickle.pause_relay(name text) returns void language sql"
     " security definer set search_path = pg_catalog, pg_temp as 'select 1'",
     "function pgtrickle.pause_relay(text): the body differs"),
    ("drop function pgtrickle.pause_relay; create function pgtrickle.pause_relay(name text)"
     " returns int language sql as 'select 1'",
     "function pgtrickle.pause_relay(text): result is integer, not void"),
    (f"alter {RETRY} security invoker", f"{RETRY}: security is invoker, not definer"),
    (f"alter {RETRY} reset all", f"{RETRY}: the SET clause is none, not search_path="),
    (f"alter {RETRY} owner to current_user", f"{RETRY}: owner is postgres, not pgtrickle_owner"),
    (f"alter {RETRY} owner to pgtrickle_capture",
     f"{RETRY}: owner is pgtrickle_capture, not pgtrickle_owner"),
    (f"revoke execute on {RETRY} from pgtrickle_relay",
     f"role pgtrickle_relay lacks EXECUTE on {RETRY}"),
    (f"revoke insert on {DLQ} from pgtrickle_relay",
     f"role pgtrickle_relay lacks INSERT on table {DLQ}"),
    (f"revoke insert on {DLQ} from pgtrickle_owner",
     f"role pgtrickle_owner lacks INSERT on its table {DLQ}"),
    ("revoke usage on schema pgtrickle from pgtrickle_publisher",
     "role pgtrickle_publisher lacks USAGE on schema pgtrickle"),
    ("revoke pgtrickle_relay from pgtrickle_admin",
     "role pgtrickle_admin: member of is pgtrickle_consumer,pgtrickle_publisher, not "),
    ("drop trigger notify on pgtrickle.relay_config",
     "trigger pgtrickle.relay_config.notify is missing"),
    ("alter table pgtrickle.relay_config disable trigger notify",
     "trigger pgtrickle.relay_config.notify: fires is never, not always"),
    ("create or replace view pgtrickle.relay_pipelines as select name, direction, enabled, config,"
     " updated_at, xmin as row_version from pgtrickle.relay_config where false",
     "view pgtrickle.relay_pipelines: the definition differs"),
    ("drop view pgtrickle.relay_pipelines cascade", "view pgtrickle.relay_pipelines is missing"),
]
# What is added; what is said of it as a warning.
ADDITIONS = [
    (f"create function public.mine() returns trigger language plpgsql as 'begin return new; end';"
     f"create trigger mine before insert on {DLQ} for each row execute function public.mine()",
     f"unexpected trigger {DLQ}.mine on {DLQ}: {NAMED}"),
    (f"create rule mine as on delete to {DLQ} do instead nothing",
     f"unexpected rule {DLQ}.mine on {DLQ}: {NAMED}"),
    (f"alter table {DLQ} add constraint mine check (attempts < 1000)",
     f"unexpected constraint {DLQ}.mine on {DLQ}: {NAMED}"),
    (f"create unique index mine on {DLQ} (subject)",
     f"unexpected index pgtrickle.mine on {DLQ}: {NAMED}"),
    ("create function pgtrickle.relay_dlq_retry(text) returns void language sql as 'select 1'",
     "unexpected function pgtrickle.relay_dlq_retry(text) of role postgres: left by an earlier"),
    (f"grant execute on {RETRY} to public",
     f"PUBLIC has EXECUTE on {RETRY}, which an installation does not give"),
    (f"grant update (subject) on {DLQ} to pgtrickle_publisher",
     f"role pgtrickle_publisher has UPDATE on column {DLQ}.subject, which an installation"),
    *[(f"grant {privilege} on {thing} to bystander",
       f"role bystander has {privilege.upper()} on {where or thing}, which an installation")
      for privilege, thing, where in (
          ("create", "schema pgtrickle", None), ("create", "schema pgtrickle_internal", None),
          ("create", "schema pgtrickle_json", None), ("usage", "schema pgtrickle_gate", None),
          ("select", "table pgtrickle_gate.secret", None), ("trigger", f"table {DLQ}", None),
          ("references", f"table {DLQ}", None),
          ("update", "table pgtrickle.relay_consumer_offsets", None),
          ("delete", "table pgtrickle.relay_leases", None),
          ("update", "table pgtrickle_internal.outbox_config", None),
          ("execute", "function pgtrickle_internal.gate_key(text)", None))],
    ("grant select (value) on pgtrickle_gate.secret to bystander",
     "role bystander has SELECT on column pgtrickle_gate.secret.value, which an installation"),
    (f"alter table {DLQ} set (autovacuum_enabled = off)",
     f"table {DLQ}: autovacuum is switched off"),
    (f"alter table {DLQ} set (toast.autovacuum_enabled = false)",
     f"table {DLQ}: autovacuum is switched off"),
    (f"alter table {DLQ} replica identity nothing",
     f"table {DLQ}: its replica identity is NOTHING"),
    ("create table public.parent (file text not null, checksum text not null, version int not null,"
     " installed_at timestamptz not null); alter table pgtrickle.relay_schema_history inherit"
     " public.parent",
     "table pgtrickle.relay_schema_history: its rows show in public.parent, its parent"),
    ("alter function pgtrickle.relay_dlq_retry depends on extension plpgsql",
     f"{RETRY}: it is dropped with extension plpgsql"),
    ("create function public.mine() returns int language sql as 'select 1';"
     f"alter table {DLQ} add column mine int default public.mine()",
     f"unexpected column {DLQ}.mine: statements of the relay run its default"),
]


def mend(db, remedy):
    """Does what a remedy says: init, and the SQL behind it."""
    if INIT in remedy:
        # What init cannot do, such as with a changed result type, the SQL behind it can.
        run_command("init", "--postgres-url", db.dsn)
    for statement in re.findall(r"(?:enough|yours|meant|fails|default, or): (.*;)"
                                r"|^((?:ALTER|REINDEX) .*;)$", remedy):
        found = check(db.relay_dsn)[1]
        if any(remedy == one for _, one in found.values()):
            db.execute("".join(statement))


@pytest.mark.parametrize("is_problem, damage, message",
                         [(True, *each) for each in PROBLEMS]
                         + [(False, *each) for each in ADDITIONS],
                         ids=lambda value: value[:60] if isinstance(value, str) else "")
def test_check_names_it_and_its_remedy_mends_it(db, is_problem, damage, message):
    db.login("bystander")
    db.execute(damage)
    try:
        code, found = check(db.relay_dsn)
        (told,) = [each for each in found if each.startswith(message)] or [found]
        problem, remedy = found[told]
        assert problem == is_problem and code == (3 if is_problem else 0), (told, code)
        for _ in range(5):  # what a DROP ... CASCADE took with it has remedies of its own
            if not found:
                break
            mend(db, next(iter(found.values()))[1])
            code, found = check(db.relay_dsn)
        assert (code, found) == (0, {}), (remedy, found)
    finally:  # roles are the whole server's
        db.execute("grant pgtrickle_relay to pgtrickle_admin")


def test_a_not_null_that_is_gone_or_not_validated_is_named(db, pg_server):
    """From PostgreSQL 18 on it can be NOT VALID."""
    damage, message = "", f"column {DLQ}.attempts: not null is none, not yes"
    if pg_server.version >= 18:
        damage = ", add constraint relay_dlq_attempts_not_null not null attempts not valid"
        message = f"column {DLQ}.attempts: its NOT NULL is not validated"
    db.execute(f"alter table {DLQ} alter column attempts drop not null{damage}")
    code, found = check(db.relay_dsn)
    assert code == 3 and set(found) == {message}
    mend(db, found[message][1])
    assert check(db.relay_dsn) == (0, {})


def test_what_is_damaged_cannot_hide_itself(db):
    """Not by a search_path of the relay's role, nor by functions and tables that shadow those of
    PostgreSQL there."""
    role = db.relay_dsn.split("//")[1].split(":")[0]
    db.execute(f"create schema evil; grant usage on schema evil to {role};"
               "create function evil.format(text, variadic \"any\") returns text language internal"
               " immutable as 'text_format';"
               "create function evil.encode(bytea, text) returns text language sql as $$select ''$$;"
               "create table evil.pg_proc as select * from pg_proc;"
               f"grant select on evil.pg_proc to {role};"
               f"alter role {role} in database {db.name} set search_path = evil, pg_catalog;"
               f"alter {RETRY} security invoker")
    code, found = check(db.relay_dsn)
    assert code == 3 and set(found) == {f"{RETRY}: security is invoker, not definer"}


def test_a_role_that_has_too_many_rights_is_a_warning(own_db):
    for grant, message in (
            ("alter role pgtrickle_capture login",
             "role pgtrickle_capture: attributes is LOGIN, not none"),
            ("grant pg_read_all_data to pgtrickle_sandbox",
             "role pgtrickle_sandbox: member of is pg_read_all_data, not none"),
            ("create role intruder; grant pgtrickle_owner to intruder",
             "role pgtrickle_owner can be assumed by intruder, which can do what each caller of its"
             " functions can")):
        own_db.execute(grant)
        code, found = check(own_db.relay_dsn)
        assert code == 0 and not found[message][0], found
        (statement,) = re.findall(r"(?:ALTER|REVOKE) .*;", found[message][1])
        own_db.execute(statement)
        assert check(own_db.relay_dsn) == (0, {})


def test_what_makes_ids_is_compared(db):
    """A sequence that hands out ids in advance would make a reader skip rows."""
    (sequence,) = db.execute(f"select pg_get_serial_sequence('{DLQ}', 'id')")[0]
    db.execute(f"alter sequence {sequence} cache 20 increment 2")
    code, found = check(db.relay_dsn)
    told = {message for message in found if sequence in message}
    assert code == 3 and told == {f"sequence {sequence}: cache is 20, not 1",
                                  f"sequence {sequence}: increment is 2, not 1"}
    for message in told:
        mend(db, found[message][1])
    assert check(db.relay_dsn) == (0, {})


def test_an_index_and_a_constraint_are_made_again(db):
    objects = recorded_objects()
    index = next(name for kind, name, _ in objects if kind == "index")
    constraint, table = next((name, attributes["table"]) for kind, name, attributes in objects
                             if kind == "constraint" and "CHECK" in attributes["definition"])
    db.execute(f"drop index {index}")
    db.execute(f"alter table {table} drop constraint {constraint[len(table) + 1:]}")
    code, found = check(db.relay_dsn)
    assert code == 3 and set(found) == {f"index {index} is missing",
                                        f"constraint {constraint} is missing"}
    for _, remedy in found.values():
        mend(db, remedy)
    assert check(db.relay_dsn) == (0, {})


def test_many_differences_are_counted(db):
    for n in range(30):
        db.execute(f"create function pgtrickle.added_{n}() returns int language sql as 'select 1'")
    code, found = check(db.dsn)
    assert code == 0 and len(found) < 30
    assert "10 more differences of the database side, 0 problems in all" in found


def test_an_earlier_version_is_named_and_not_what_it_lacks(empty_db):
    """No remedy for a single object: one could drop what init would keep."""
    install_earlier(empty_db.dsn)
    code, found = check(empty_db.dsn)
    (told,) = found
    assert code == 3 and OLDER in told and INIT in found[told][1] and "DROP" not in found[told][1]
    init(empty_db.dsn)
    assert check(empty_db.dsn) == (0, {})


# The daemon ---------------------------------------------------------------------------------------

def causes(relay):
    return [each for each in relay.health()[1].get("causes", [])
            if each["code"] == "schema_differs"]


@pytest.fixture
def rows(db, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    return lines


def test_the_daemon_works_without_what_it_does_not_need_and_says_what_differs(db, rows):
    db.execute(f"drop {RETRY}; drop function pgtrickle.relay_dlq_purge;"
               "create function pgtrickle.mine() returns int language sql as 'select 1'")
    with Relay(db.relay_dsn) as relay:
        (cause,) = eventually(lambda: causes(relay), 10)
        assert f"{RETRY} is missing" in cause["message"] and INIT in cause["remedy"]
        assert relay.health()[1]["status"] == "degraded"
        insert_rows(db, "orders", 1, 2)
        rows.wait_rows([1, 2])
        for message in (f"{RETRY} is missing", "unexpected function pgtrickle.mine()"):
            (line,) = [line for line in relay.log_lines if message in line and " schema: " in line]
            assert "Remedy: " in line
        status = run_command("status", "--json", "--postgres-url", db.relay_dsn)
        assert [each["message"] for each in json.loads(status.stdout)["database_side"]
                if each["message"] == f"{RETRY} is missing"]
        status = run_command("status", "--postgres-url", db.relay_dsn).stdout
        assert "PROBLEM function" in status
        init(db.dsn)
        eventually(lambda: not causes(relay) and relay.health()[1]["status"] == "healthy", 10)


def test_the_daemon_names_what_is_damaged_while_it_runs(db, rows):
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        db.execute("revoke execute on function pgtrickle.relay_commit_position"
                   " from pgtrickle_relay")
        insert_rows(db, "orders", 1)
        (cause,) = eventually(lambda: causes(relay), 15)
        assert "role pgtrickle_relay lacks EXECUTE on function pgtrickle.relay_commit_position" in \
            cause["message"]
        init(db.dsn)
        eventually(lambda: relay.health()[1]["status"] == "healthy", 30)
        wait_settled(db, "rows", "orders")


def test_the_daemon_waits_for_init_with_an_earlier_version(empty_db):
    install_earlier(empty_db.dsn)
    login = empty_db.login("daemon_of_now", "pgtrickle_relay")
    with Relay(login) as relay:
        eventually(lambda: OLDER in (relay.health()[1].get("last_error") or ""), 10)
        assert INIT in relay.health()[1]["remedy"]
        assert len([line for line in relay.log_lines if OLDER in line]) == 1
        init(empty_db.dsn)
        relay.wait_healthy()
        assert causes(relay) == []


# A later version ----------------------------------------------------------------------------------

def make_newer(db):
    """Returns the version from before."""
    version = db.one("select max(version) from pgtrickle.relay_schema_history")
    db.execute("update pgtrickle.relay_schema_history set version = 99")
    return version


def test_a_later_version_is_refused_by_every_command_that_relies_on_it(db, rows):
    make_newer(db)
    code, found = check(db.relay_dsn)
    (told,) = [message for message in found if NEWER in message]
    assert code == 3 and "use the program of the version that installed it" in found[told][1]
    assert NEWER in run_command("status", "--postgres-url", db.relay_dsn).stdout
    insert_rows(db, "orders", 1)
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: NEWER in (relay.health()[1].get("last_error") or ""), 10)
        assert relay.health()[1]["status"] == "unhealthy"
        holds_for(lambda: not rows.rows(), 0.5)


def test_the_daemon_stops_its_pipelines_when_a_later_version_is_installed(db, rows):
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        before = make_newer(db)
        db.execute("select pg_notify('pgtrickle_relay_config', '{\"event\":\"installed\"}')")
        eventually(lambda: NEWER in (relay.health()[1].get("last_error") or ""), 10)
        insert_rows(db, "orders", 1)
        holds_for(lambda: not rows.rows(), 0.5)
        db.execute("update pgtrickle.relay_schema_history set version = %s", (before,))
        rows.wait_rows([1])
        relay.wait_healthy(pipelines=1)
