"""Installation and upgrade: with few rights, at the same time, onto earlier versions, and what
remains of them."""

import gzip
import os
import re
import subprocess

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support import earlier_versions as earlier
from support.fixtures import need
from support.function_table import documented_table, function_table
from support.postgres import PASSWORD, Database, PostgresServer
from support.relay import relay_binary, run_command
from support.waiting import eventually

# The files of sql/, one behind the other, of the last version whose functions were not all pinned,
# and whose installer took over what it found.
EARLIER = os.path.join(os.path.dirname(__file__), "earlier", "schema-1.sql.gz")


@pytest.fixture(scope="module")
def relay_binary_is_here():
    need(relay_binary(), "the relay's binary (RELAY_BIN or build/<preset>/pgtrickle-relay)")


def init(dsn):
    return run_command("init", "--postgres-url", dsn)


def installed(dsn):
    done = init(dsn)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_documented_functions_are_those_that_an_installation_makes(db):
    """After a change of functions, owners or grants: scripts/function-table."""
    with db.connect() as connection:
        assert documented_table() == function_table(connection)


# As a role with few rights ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def managed_server():
    """A server of the kind that is rented: its user owns databases and creates roles, and is no
    superuser."""
    server = PostgresServer("managed").start()
    with server.connect() as connection:
        connection.execute(f"create role managed login createrole createdb password '{PASSWORD}'")
    yield server
    server.stop_immediate()


def managed_database(server, name):
    with psycopg.connect(server.dsn("postgres", user="managed"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server.dsn(name, user="managed")


def install_earlier(dsn):
    with gzip.open(EARLIER, "rt", encoding="utf-8") as source, psycopg.connect(dsn) as connection:
        connection.execute(source.read())


RELATIONS = """
    select n.nspname, c.relname, c.relkind::text, c.relowner::regrole::text,
           array(select a::text from unnest(c.relacl) a order by 1),
           array(select format('%I %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod),
                               a.attnotnull, a.attacl)
                 from pg_attribute a
                 where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by 1)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname like 'pgtrickle%' and c.relkind in ('r', 'v', 'S', 'm', 'p')
    order by 1, 2"""
FUNCTIONS = """
    select n.nspname, p.oid::regprocedure::text, p.proowner::regrole::text, p.prosecdef,
           p.proconfig, md5(p.prosrc), array(select a::text from unnest(p.proacl) a order by 1)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname like 'pgtrickle%' order by 1, 2"""
SCHEMAS = """
    select n.nspname, n.nspowner::regrole::text,
           array(select a::text from unnest(n.nspacl) a order by 1)
    from pg_namespace n where n.nspname like 'pgtrickle%' order by 1"""
TRIGGERS = """
    select t.tgrelid::regclass::text, t.tgname, t.tgfoid::regprocedure::text, t.tgenabled::text
    from pg_trigger t join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname like 'pgtrickle%' and not t.tgisinternal order by 1, 2"""


def contents(dsn):
    with psycopg.connect(dsn) as connection:
        return {what: connection.execute(query).fetchall()
                for what, query in (("relations", RELATIONS), ("functions", FUNCTIONS),
                                    ("schemas", SCHEMAS), ("triggers", TRIGGERS))}


def differences(one, other):
    return {what: (sorted(set(map(str, one[what])) - set(map(str, other[what]))),
                   sorted(set(map(str, other[what])) - set(map(str, one[what]))))
            for what in one if one[what] != other[what]}


def test_an_upgraded_installation_equals_a_fresh_one(managed_server, relay_bin):
    """Here as the user of a rented server; the earlier version was installed by the same one."""
    fresh = managed_database(managed_server, "fresh")
    upgraded = managed_database(managed_server, "upgraded")
    install_earlier(upgraded)
    installed(upgraded)
    installed(fresh)
    assert differences(contents(upgraded), contents(fresh)) == {}
    assert "up to date" in installed(fresh).stdout
    assert differences(contents(upgraded), contents(fresh)) == {}


def test_the_user_of_a_rented_server_installs_uses_and_upgrades_it(managed_server, relay_bin,
                                                                   start_relay, tmp_path):
    dsn = managed_database(managed_server, "app")
    install_earlier(dsn)
    out = tmp_path / "out.jsonl"
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("create table orders (id int primary key)")
        owner.execute("select pgtrickle.enable_outbox('orders')")
        owner.execute("insert into orders values (1)")
        installed(dsn)
        owner.execute("insert into orders values (2)")
        owner.execute(f"create role daemon login password '{PASSWORD}' in role pgtrickle_relay")
        owner.execute("create table letters (id int primary key)")
        owner.execute("select pgtrickle.create_stream_table('digest', 'select id from letters', "
                      "'10ms', 'AUTO', '{id}')")
        owner.execute("select pgtrickle.create_inbox('received')")
        for name, table, sink in (("file", "orders", {"type": "file", "path": str(out)}),
                                  ("inbox", "digest", {"type": "inbox", "inbox_name": "received"})):
            owner.execute("select pgtrickle.set_relay_outbox(%s, %s, true)", (name, Jsonb(
                {"source": {"type": "outbox", "outbox": table}, "sink": sink})))
        owner.execute("insert into letters values (1)")
        start_relay(managed_server.dsn("app", user="daemon"))
        eventually(lambda: out.exists() and len(out.read_text().splitlines()) == 2, 20)
        eventually(lambda: owner.execute("select count(*) from pgtrickle.inbox_received"
                                         ).fetchone()[0] == 1, 20)
        owner.execute("select pgtrickle.inbox_mark_processed('received', event_id) "
                      "from pgtrickle.inbox_received")
        # It is a member of what it needs for the next installation, and of nothing else.
        assert owner.execute("""
            select rolname from pg_roles
            where rolname like 'pgtrickle%' and pg_has_role(current_user, oid, 'USAGE')
              and rolname not in ('pgtrickle_owner', 'pgtrickle_capture')""").fetchall() == []
        assert owner.execute("""
            select r.rolname from pg_roles r
            where r.rolname in ('pgtrickle_capture', 'pgtrickle_sandbox')
              and exists (select from pg_auth_members m where m.member = r.oid)""").fetchall() == []


def test_a_member_of_the_owner_is_refused_by_the_installation_of_another_role(managed_server,
                                                                              relay_bin):
    """It could do all that callers of the functions can, superusers among them."""
    name = "of_superuser"
    installed(managed_database(managed_server, "before"))
    with managed_server.connect() as connection:
        connection.execute(f"create database {name}")
    done = init(managed_server.dsn(name))
    assert done.returncode != 0
    assert re.search('role "managed" is a member of "(pgtrickle_[a-z]+)".*'
                     r'REVOKE \1 FROM managed CASCADE', done.stderr, re.DOTALL)
    with managed_server.connect(name) as connection:
        # Nor where that member has made it look like an earlier installation.
        connection.execute("create schema pgtrickle authorization pgtrickle_owner; "
                           "create table pgtrickle.relay_schema_history (file text); "
                           "alter table pgtrickle.relay_schema_history owner to pgtrickle_owner")
        assert "is a member of" in init(managed_server.dsn(name)).stderr
        connection.execute("drop schema pgtrickle cascade")
        for role in ("owner", "capture", "sandbox", "observer"):
            connection.execute(f"revoke pgtrickle_{role} from managed cascade")
    installed(managed_server.dsn(name))
    with managed_server.connect() as connection:
        for role in ("owner", "capture", "sandbox", "observer"):
            connection.execute(f"grant pgtrickle_{role} to managed with admin option")


# Where another role has created our roles ---------------------------------------------------------

@pytest.fixture(scope="module")
def prepared_server(relay_binary_is_here):
    """A server on which a superuser has installed."""
    server = PostgresServer("prepared").start()
    installed(server.dsn("postgres"))
    yield server
    server.stop_immediate()


@pytest.mark.parametrize("granted", ["", "with inherit true, set false"], ids=["none", "no-set"])
@pytest.mark.parametrize("attribute", ["createrole", "nocreaterole"])
@pytest.mark.parametrize("version", [None, 1, 2], ids=["fresh", "from-1", "from-2"])
def test_one_statement_of_a_superuser_lets_another_role_install(prepared_server, version, attribute,
                                                                granted):
    """Before PostgreSQL 16 CREATEROLE is enough, and a membership has no options."""
    server = prepared_server
    ours = "pgtrickle_owner, pgtrickle_capture, pgtrickle_sandbox, pgtrickle_observer"
    with server.connect() as superuser:
        superuser.execute(f"create role other login {attribute} password '{PASSWORD}'")
        superuser.execute("create database others owner other")
        try:
            if version:
                earlier.install_version(server.dsn("others"), version)
            if granted and server.version >= 16:
                superuser.execute(f"grant {ours} to other {granted}")
            done = init(server.dsn("others", user="other"))
            if attribute == "nocreaterole" or server.version >= 16:
                assert done.returncode != 0 and 'role "other" may not grant pgtrickle_owner' in \
                    done.stderr
                superuser.execute(re.search("Let a superuser run: (GRANT .* TO other WITH ADMIN "
                                            "OPTION;)\n", done.stderr)[1])
                done = init(server.dsn("others", user="other"))
            assert done.returncode == 0, done.stderr
            assert "up to date" in init(server.dsn("others", user="other")).stdout
        finally:
            superuser.execute("drop database others with (force)")
            superuser.execute(f"revoke {ours} from other cascade; drop role other")


def test_a_role_that_may_not_create_roles_is_told_who_may():
    server = PostgresServer("bare").start()
    try:
        with server.connect() as superuser:
            superuser.execute(f"create role other login password '{PASSWORD}'; ")
            superuser.execute("create database others owner other")
            superuser.execute("create role pgtrickle_relay nologin")
            done = init(server.dsn("others", user="other"))
            assert done.returncode != 0 and 'role "other" may not create roles' in done.stderr
            superuser.execute(re.search("Let a superuser run: (.*)\n", done.stderr)[1])
            installed(server.dsn("others", user="other"))
    finally:
        server.stop_immediate()


# On a server that had none of the roles -----------------------------------------------------------

@pytest.fixture(scope="module")
def first_installations(relay_binary_is_here):
    """Two in each of two databases at the same time: the server, and how each of them ended."""
    server = PostgresServer("first").start()
    try:
        with server.connect() as connection:
            for name in ("a", "b"):
                connection.execute(f"create database {name}")
        running = [subprocess.Popen([relay_binary(), "init", "--postgres-url", server.dsn(name)],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for name in ("a", "b", "a", "b")]
        outcomes = [(process.communicate(timeout=60), process.returncode) for process in running]
        yield server, outcomes
    finally:
        server.stop_immediate()


@pytest.fixture
def first(first_installations):
    """One of the databases."""
    server, _ = first_installations
    database = Database(server, "a")
    yield database
    database.close()


def test_first_installations_at_the_same_time_all_end_well(first_installations):
    server, outcomes = first_installations
    for said, code in outcomes:
        assert code == 0, said
    assert sum("installed (" in said[0] for said, _ in outcomes) == 2
    assert contents(server.dsn("a")) == contents(server.dsn("b"))


def test_a_role_that_has_rights_of_its_own_is_refused(first):
    for grant, undo in (
            ("alter role pgtrickle_owner login", "ALTER ROLE pgtrickle_owner NOLOGIN;"),
            ("alter role pgtrickle_capture superuser", "ALTER ROLE pgtrickle_capture NOSUPERUSER;"),
            ("alter role pgtrickle_relay bypassrls", "ALTER ROLE pgtrickle_relay NOBYPASSRLS;"),
            ("grant pg_read_all_data to pgtrickle_sandbox",
             "REVOKE pg_read_all_data FROM pgtrickle_sandbox;")):
        first.execute(grant)
        done = init(first.dsn)
        assert done.returncode != 0 and undo in done.stderr, done.stderr
        first.execute(undo)
    installed(first.dsn)


def test_default_privileges_of_the_installing_role_give_nothing_away(first_installations):
    database = first_installations[0].create_database(template="template0")
    database.login("reporting")
    for what in ("tables", "sequences", "functions"):
        database.execute(f"alter default privileges grant all on {what} to reporting")
    try:
        installed(database.dsn)
        assert database.execute("""
            select c.relname from pg_class c where c.relnamespace::regnamespace::text ~ '^pgtrickle'
              and exists (select from aclexplode(c.relacl) a where a.grantee = 'reporting'::regrole)
            union all
            select p.proname from pg_proc p where p.pronamespace::regnamespace::text ~ '^pgtrickle'
              and exists (select from aclexplode(p.proacl) a where a.grantee = 'reporting'::regrole)
            """) == []
        # What is granted afterwards stays.
        database.execute("grant select on pgtrickle.relay_dlq to reporting; "
                         "grant execute on function pgtrickle.relay_dlq_list to reporting")
        installed(database.dsn)
        assert database.one("select has_table_privilege('reporting', 'pgtrickle.relay_dlq', "
                            "'select') and has_function_privilege('reporting', 'pgtrickle.relay_dlq_list("
                            "text, int, boolean)', 'execute')")
    finally:
        for what in ("tables", "sequences", "functions"):
            database.execute(f"alter default privileges revoke all on {what} from reporting")
        database.drop()
