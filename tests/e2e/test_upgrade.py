"""Upgrades: onto each earlier version with data in every table, interrupted, and refused."""

import hashlib
import os
import re
import subprocess

import psycopg
import pytest
from support import earlier_versions as earlier
from support.pipelines import LONG
from support.postgres import PASSWORD, REPOSITORY, PostgresServer
from support.processes import Process
from support.relay import clean_environment, relay_binary, run_command
from support.waiting import eventually

MIGRATIONS = os.path.join(REPOSITORY, "sql", "migrations")


@pytest.fixture(scope="module")
def server():
    """A server on which a role without SUPERUSER may install, too."""
    server = PostgresServer("upgrade").start()
    with server.connect() as connection:
        connection.execute(f"create role managed login createrole createdb password '{PASSWORD}'")
    yield server
    server.stop_immediate()


class Case:
    """A database on a server of its own roles, installed and used by one role."""

    def __init__(self, server, name, user):
        self.server, self.user, self.name = server, user, f"{name}_{user}"
        with psycopg.connect(server.dsn("postgres", user=user), autocommit=True) as connection:
            connection.execute(f"drop database if exists {self.name} with (force)")
            connection.execute(f"create database {self.name}")
        self.dsn = server.dsn(self.name, user=user)

    def execute(self, statement, parameters=None):
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def ends_well(self):
        """Another init leaves what a fresh one makes, and all rows."""
        earlier.installed(self.dsn)
        assert earlier.counts(self.dsn) == self.before
        return self.equals_a_fresh_one()

    def equals_a_fresh_one(self):
        """Once emptied: definitions, and what init writes."""
        earlier.empty(self.dsn)
        fresh = Case(self.server, "fresh", self.user)
        earlier.installed(fresh.dsn)
        mine, wanted = earlier.dump(self.server, self.dsn), earlier.dump(self.server, fresh.dsn)
        assert set(mine) - set(wanted) == set() and set(wanted) - set(mine) == set()
        assert len(mine) == len(wanted)
        mine, wanted = earlier.written(self.dsn), earlier.written(fresh.dsn)
        for what, rows in wanted.items():
            assert mine[what] == rows, what
        return True


ROLES = ("owner", "capture", "sandbox", "observer", "relay", "publisher", "consumer",
         "admin")


@pytest.fixture(params=[(version, user) for version in earlier.VERSIONS
                        for user in ("managed", "postgres") if version < 5 or user == "managed"],
                ids=lambda p: f"from-{p[0]}-as-{p[1]}")
def case(request, server, relay_bin, tmp_path):
    """An earlier version with data in every table."""
    version, user = request.param
    with server.connect() as connection:  # the other role's installations
        for role in ROLES:
            if connection.execute("select from pg_roles where rolname = %s",
                                  (f"pgtrickle_{role}",)).rowcount:
                connection.execute(f"revoke pgtrickle_{role} from managed cascade"
                                   if user == "postgres" else
                                   f"grant pgtrickle_{role} to managed with admin option")
    case = Case(server, "upgraded", user)
    earlier.install_version(case.dsn, version)
    case.out = tmp_path / "out.jsonl"
    earlier.fill(case.dsn, case.out)
    case.before = earlier.counts(case.dsn)
    return case


def goes_on(case, start_relay):
    """The relay of the new version delivers what was pending, and what is written now."""
    case.execute("insert into orders values (100, 'new', 1)")
    with psycopg.connect(case.server.dsn("postgres"), autocommit=True) as connection:
        if not connection.execute("select from pg_roles where rolname = 'upgrade_daemon'").rowcount:
            connection.execute(f"create role upgrade_daemon login password '{PASSWORD}'")
        connection.execute("grant pgtrickle_relay to upgrade_daemon")
    rows = case.execute("select sum(inserted_count + deleted_count) from pgtrickle.outbox_orders "
                        "where id > (select min(id) from pgtrickle.outbox_orders)")[0][0]
    relay = start_relay(re.sub("//[a-z]+:", "//upgrade_daemon:", case.dsn))
    last = case.execute("select max(id) from pgtrickle.outbox_orders")[0][0]
    eventually(lambda: case.execute(
        "select last_change_id from pgtrickle.relay_consumer_offsets where pipeline_id = 'rows'"
    )[0][0] == last, 30, message=lambda: relay.log(40))
    relay.stop()
    assert rows > 0 and case.out.stat().st_size > 0
    return True


def test_an_upgrade_loses_nothing_and_equals_a_fresh_installation(case, start_relay):
    before = case.before
    done = earlier.installed(case.dsn)
    assert done.stderr == "" or "stay" not in done.stderr, done.stderr
    assert earlier.counts(case.dsn) == before
    assert goes_on(case, start_relay)
    case.execute("update keyed set n = n + 1")
    assert case.execute("select pgtrickle.refresh_stream_table('totals') ->> 'action'") == [
        ("DIFFERENTIAL",)]
    case.execute("select pgtrickle.outbox_full_refresh('keyed')")
    case.execute("select pgtrickle.inbox_mark_processed('letters', 'a'), "
                 "pgtrickle.inbox_mark_processed('adopted', 'c')")
    assert case.execute("select pgtrickle.outbox_capture_upkeep()") == [(0,)]
    assert case.execute("select problem from pgtrickle.pgt_outbox_config "
                        "where problem is not null") == []
    assert "up to date" in earlier.installed(case.dsn).stdout
    assert case.equals_a_fresh_one()


def printed_files(dsn):
    """[(name, text)] of what init runs in one transaction, and what it runs afterwards."""
    text = run_command("init", "--dry-run", "--postgres-url", dsn).stdout
    first, after = text.split("-- In transactions of their own")
    head, first = first.split("begin;\n", 1)
    first, rest = first.rsplit("commit;\n", 1)
    assert head.startswith("--") and not rest.strip()
    parts = re.split(r"^-- ((?:before|migrations|functions|after)/\S+\.sql)\n", first, flags=re.M)
    return list(zip(parts[1::2], parts[2::2])), after


@pytest.mark.parametrize("case", [(2, "postgres")], indirect=True, ids=["from-2"])
def test_an_upgrade_that_is_interrupted_at_any_file_begins_again(case):
    files, _ = printed_files(case.dsn)
    assert len(files) > 40
    for end in range(1, len(files) + 1, 1 if LONG else 4):
        connection = psycopg.connect(case.dsn)
        for name, text in files[:end]:
            connection.execute(text)
        connection.close()
        assert earlier.counts(case.dsn) == case.before
        assert case.execute("select to_regclass('pgtrickle_internal.locks')") == [(None,)]
    assert case.ends_well()


@pytest.mark.parametrize("case", [(2, "postgres")], indirect=True, ids=["from-2"])
@pytest.mark.parametrize("rebuilt", [0, 2])
def test_an_upgrade_that_ends_after_its_commit_is_finished_by_the_next(case, rebuilt, start_relay):
    """Before all capture functions are written anew, and before anything is dropped."""
    files, _ = printed_files(case.dsn)
    with psycopg.connect(case.dsn) as connection:
        for name, text in files:
            connection.execute(text)
    last = 0
    for _ in range(rebuilt):
        last = case.execute("select pgtrickle_internal.rebuild_capture(%s)", (last,))[0][0]
    assert earlier.counts(case.dsn) == case.before
    # Until then everything works, with the old functions.
    before = case.execute("select count(*) from pgtrickle.outbox_parts")[0][0]
    case.execute("insert into parts values (77, 1, 'y'); update parts set part = 2 where id = 77; "
                 "update swapped set id = 3 - id; insert into keyed values (77, 1); "
                 "truncate parts_1; select pgtrickle.publish('events', '{}')")
    assert case.execute("select count(*) from pgtrickle.outbox_parts")[0][0] > before
    assert goes_on(case, start_relay)
    earlier.installed(case.dsn)
    assert case.execute("select object from pgtrickle_internal.superseded") == []
    assert case.equals_a_fresh_one()


@pytest.mark.parametrize("case", [(2, "postgres")], indirect=True, ids=["from-2"])
def test_init_that_is_killed_at_any_moment_begins_again(case):
    """Its process, by SIGKILL, after one more step each time."""
    argv = [relay_binary(), "init", "--postgres-url", case.dsn]
    watched = psycopg.connect(case.dsn, autocommit=True)
    for statements in (1, 10, 25, 40, 55, 70, 90, 110, 130):
        process = Process(argv, env=clean_environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
        seen = set()
        while process.running and len(seen) < statements:
            seen |= set(watched.execute(
                "select md5(query) from pg_stat_activity where pid <> pg_backend_pid() and "
                "datname = current_database() and backend_type = 'client backend'").fetchall())
        process.kill9()
        eventually(lambda: watched.execute(
            "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and "
            "datname = current_database() and backend_type = 'client backend'").fetchone()[0] == 0)
        assert earlier.counts(case.dsn) == case.before
    watched.close()
    assert case.ends_well()


@pytest.mark.parametrize("case", [(2, "postgres")], indirect=True, ids=["from-2"])
def test_upgrades_at_the_same_time_all_end_well(case):
    running = [subprocess.Popen([relay_binary(), "init", "--postgres-url", case.dsn], text=True,
                                env=clean_environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT) for _ in range(3)]
    said = [(process.communicate(timeout=60)[0], process.returncode) for process in running]
    assert [code for _, code in said] == [0, 0, 0], said
    assert sum("installed (" in text for text, _ in said) == 1
    assert earlier.counts(case.dsn) == case.before
    assert case.equals_a_fresh_one()


def test_what_belongs_to_others_works_on_where_init_may_not_act_for_them(server, relay_bin):
    """A table and a stream table of another role, upgraded by the user of a rented server."""
    with server.connect() as connection:
        for role in ROLES:
            if connection.execute("select from pg_roles where rolname = %s",
                                  (f"pgtrickle_{role}",)).rowcount:
                connection.execute(f"grant pgtrickle_{role} to managed with admin option")
        connection.execute("drop role if exists alice")
        connection.execute(f"create role alice login password '{PASSWORD}'")
    case = Case(server, "rented", "managed")
    earlier.install_version(case.dsn, 2)
    case.execute("grant create on schema public to alice")
    with server.connect() as connection:
        connection.execute("grant pgtrickle_admin to alice")
    alice = psycopg.connect(server.dsn(case.name, user="alice"), autocommit=True)
    try:
        alice.execute("create table hers (id int primary key, n int); insert into hers values (1, 1);"
                      "select pgtrickle.enable_outbox('hers');"
                      "select pgtrickle.create_stream_table('sums', 'select id, n from hers', null, "
                      "'AUTO', '{id}')")
        done = earlier.installed(case.dsn)
        assert "1 objects of an earlier version stay" in done.stderr
        assert case.execute("select object from pgtrickle_internal.superseded") == [
            ("function pgtrickle._stream_work(bigint,text,jsonb,text,text,jsonb)",)]
        alice.execute("insert into hers values (2, 2)")
        assert case.execute("select pgtrickle.refresh_stream_table('sums') ->> 'action'") == [
            ("DIFFERENTIAL",)]
        case.execute("select pgtrickle.relay_housekeeping()")
        problem = "select problem from pgtrickle.pgt_outbox_config"
        assert "outbox_full_refresh('outbox_hers') by the owner" in case.execute(problem)[0][0]
        alice.execute("select pgtrickle.outbox_full_refresh('hers')")
        assert case.execute(problem) == [(None,)]
        assert case.execute("select tg_op, inserted_count from pgtrickle.outbox_hers order by id") == [
            ("INSERT", 1), (None, 2)]
        # A superuser changes the rest.
        with server.connect(case.name) as connection:
            for role in ROLES:
                connection.execute(f"revoke pgtrickle_{role} from managed cascade")
        case.dsn = server.dsn(case.name)
        assert earlier.installed(case.dsn).stderr == ""
        assert case.execute("select pgtrickle.refresh_stream_table('sums') ->> 'action'") == [
            ("NO_DATA",)]
        assert case.execute("select object from pgtrickle_internal.superseded") == []
    finally:
        alice.close()


# Refused ------------------------------------------------------------------------------------------

def test_a_newer_database_side_is_refused_and_not_changed(db, relay_bin, pg_server):
    db.execute("update pgtrickle.relay_schema_history set version = 99, checksum = 'x'")
    before = earlier.dump(pg_server, db.dsn), earlier.written(db.dsn)
    done = earlier.init(db.dsn)
    assert done.returncode != 0
    assert "the database side has version 99, and this program knows" in done.stderr
    assert "Use the program of the version that installed it" in done.stderr
    assert (earlier.dump(pg_server, db.dsn), earlier.written(db.dsn)) == before


def test_a_migration_that_was_applied_with_another_content_is_refused(db, relay_bin):
    db.execute("update pgtrickle_internal.migrations set checksum = 'x' where number = 1")
    done = earlier.init(db.dsn)
    assert done.returncode != 0 and "migration 1 was applied here with another content" in done.stderr


def test_released_migrations_do_not_change():
    """A released migration is listed in sql/migrations/released.txt with its checksum. One that
    must be corrected is followed by another one."""
    listed = {}
    with open(os.path.join(MIGRATIONS, "released.txt")) as released:
        for line in released:
            if line.strip() and not line.startswith("#"):
                checksum, name = line.split()
                listed[name] = checksum
    present = sorted(name for name in os.listdir(MIGRATIONS) if name.endswith(".sql"))
    assert [int(name[:4]) for name in present] == list(range(1, len(present) + 1))
    assert set(listed) <= set(present)
    for name, checksum in listed.items():
        with open(os.path.join(MIGRATIONS, name), "rb") as source:
            assert hashlib.sha256(source.read()).hexdigest() == checksum, name


def test_a_table_that_was_dropped_is_made_again(db, relay_bin, pg_server):
    before = earlier.dump(pg_server, db.dsn)
    db.execute("drop table pgtrickle.relay_dlq, pgtrickle_internal.outbox_looks cascade")
    earlier.installed(db.dsn)
    assert sorted(earlier.dump(pg_server, db.dsn)) == sorted(before)
    assert "up to date" in earlier.installed(db.dsn).stdout


# Functions that are removed -----------------------------------------------------------------------

def test_functions_that_no_file_creates_are_dropped(db, relay_bin):
    db.execute("""
        create function pgtrickle_internal.former(int) returns int language sql as 'select 1';
        alter function pgtrickle_internal.former(int) owner to pgtrickle_owner;
        create function pgtrickle_json.former(int) returns int language sql as 'select 1';
        alter function pgtrickle_json.former(int) owner to pgtrickle_owner;
        create function pgtrickle.mine(int) returns int language sql as 'select 1';
        create table captured (id int primary key);
        select pgtrickle.enable_outbox('captured')""")
    earlier.installed(db.dsn)
    assert db.execute("""
        select p.oid::regprocedure::text from pg_proc p
        where p.proname in ('former', 'mine') order by 1""") == [("pgtrickle.mine(integer)",)]
    assert db.one("select count(*) from pg_proc where proname ~ '^capture_[0-9]+_'") == 6
    db.execute("insert into captured values (1)")
    assert db.one("select count(*) from pgtrickle.outbox_captured") == 1


def test_a_function_that_a_user_s_view_calls_stays_until_the_view_is_gone(db, relay_bin):
    db.execute("""
        create function pgtrickle_internal.former(int) returns int language sql as 'select 1';
        alter function pgtrickle_internal.former(int) owner to pgtrickle_owner;
        create view uses as select pgtrickle_internal.former(1)""")
    done = earlier.installed(db.dsn)
    assert "1 objects of an earlier version stay" in done.stderr
    assert db.execute("select * from uses") == [(1,)]
    db.execute("drop view uses")
    assert earlier.installed(db.dsn).stderr == ""
    assert db.one("select to_regprocedure('pgtrickle_internal.former(int)')") is None
