"""Nothing of ours is looked up by a search_path that others control: not by a function, whichever
role calls it, not by a session of the relay, not by `init`.

What stands in the schema `hostile` (support/hostile_path.py) does what PostgreSQL's own does, and
notes as which role it ran.
"""

import glob
import os

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.hostile_path import OWNER, PATH, shadow, victims
from support.database_side import install_from_files
from support.postgres import REPOSITORY
from support.relay import run_command
from support.waiting import eventually

# Functions that run under their caller's search_path, and why each may. All of them are called
# below under a path on which everything that they use is shadowed.
READS_THE_PATH = "hands its caller's search_path to a function that pins its own; every name, " \
                 "operator and type in it is qualified"
REVIEWED = {
    "pgtrickle.set_relay_outbox(text,jsonb,boolean)": READS_THE_PATH,
    "pgtrickle.set_relay_outbox(text,text,text,jsonb,integer,boolean)": READS_THE_PATH,
    "pgtrickle.set_relay(text,jsonb,boolean)": READS_THE_PATH,
    "pgtrickle.create_stream_table(text,text,text,text,text[])": READS_THE_PATH,
    "pgtrickle.alter_stream_table(text,text,text,boolean,boolean,text,text)": READS_THE_PATH,
    "pgtrickle.enable_outbox(text,integer,text[],integer,bigint,boolean,text)": READS_THE_PATH,
    "pgtrickle.rebind_outbox(text,text)": READS_THE_PATH,
    "pgtrickle.create_publication(text,text[],text)": READS_THE_PATH,
    "pgtrickle.drop_publication(text,boolean)": READS_THE_PATH,
    "pgtrickle.create_change_feed(text,interval,boolean)": READS_THE_PATH,
    "pgtrickle.enable_inbox_tracking(text,text,jsonb,integer,integer)": READS_THE_PATH,
}
PINNED = ("search_path=pg_catalog, pg_temp", 'search_path=""')


def ours():
    """The text of all functions of the database side and of the program's own statements."""
    texts = []
    for pattern in ("sql/*/*.sql", "src/**/*.cc"):
        for path in glob.glob(os.path.join(REPOSITORY, pattern), recursive=True):
            with open(path) as source:
                texts.append(source.read())
    return "\n".join(texts)


@pytest.fixture
def hostile(db):
    """A database in which everything that we use is shadowed, with a table that an administrator
    owns."""
    shadow(db, ours())
    db.login("clerk", "pgtrickle_admin")
    db.execute(f"grant create on database {db.name} to clerk")
    db.execute("""create table public.orders (id int primary key, n int);
                  alter table public.orders owner to clerk;
                  create table public.adopted (id text primary key, body jsonb,
                                               received_at timestamptz, processed_at timestamptz,
                                               error text, retry_count int not null default 0);
                  alter table public.adopted owner to clerk;
                  grant create on schema public to clerk""")
    return db


# The checks -------------------------------------------------------------------------------------

def test_the_trap_works(hostile):
    """What is shadowed runs as the role that looks it up, and is noted."""
    with hostile.connect() as connection:
        connection.execute(f"set search_path = {PATH}")
        for expression in ("1 = 1", "'a'::text", "lower('A')", "format('%s', 'a'::pg_catalog.text)",
                           "'{}'::pg_catalog.jsonb ->> 'a'", "current_setting('search_path')",
                           "array['a'::pg_catalog.text] || 'b'::pg_catalog.text"):
            hostile.execute("delete from hostile.victims")
            connection.execute(f"select {expression}")
            assert {role for role, _ in victims(hostile)} == {"postgres"}, expression


def test_every_function_pins_its_search_path_or_is_reviewed(db):
    unpinned = {name for name, settings in db.execute("""
        select p.oid::regprocedure::text, p.proconfig
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname like 'pgtrickle%'""")
                if not any(setting in PINNED for setting in settings or [])}
    assert unpinned - REVIEWED.keys() == set(), "neither pinned nor reviewed"
    assert REVIEWED.keys() <= unpinned, "pinned by now: take it off the list"


def test_no_function_pins_a_schema_that_others_may_write_to(db):
    assert db.execute("""
        select p.oid::regprocedure::text, c
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        cross join unnest(p.proconfig) c
        where n.nspname like 'pgtrickle%%' and c like 'search_path=%%' and c <> all (%s)""",
                      (list(PINNED),)) == []


def test_only_its_owner_creates_in_the_schema(db):
    assert db.execute("""
        select r.rolname, n.nspname from pg_roles r cross join pg_namespace n
        where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_json', 'pgtrickle_gate')
          and not r.rolsuper and r.rolname <> 'pgtrickle_owner'
          and not pg_has_role(r.oid, 'pgtrickle_owner', 'USAGE')
          and has_schema_privilege(r.oid, n.oid, 'CREATE')""") == []


# Functions --------------------------------------------------------------------------------------

FLAT = Jsonb({"stream_table": "public.orders", "sink_type": "stdout"})
PARTS = Jsonb({"type": "stdout"})
REVERSE = Jsonb({"source_type": "kafka", "kafka_brokers": "b", "kafka_topic": "t", "inbox_name": "i"})
QUERY = "select id, n from public.orders"
# In this order; each is one call.
CALLS = [
    ("set_relay_outbox('p', %s)", FLAT),
    ("set_relay_outbox('p', %s, true)", FLAT),
    ("set_relay_outbox('p2', 'public.orders', null, %s)", PARTS),
    ("set_relay_outbox('p2', 'public.orders', 'g', %s, 5, true)", PARTS),
    ("set_relay('b', %s)", Jsonb({"source_type": "outbox", "stream_table": "public.orders",
                                  "sink_type": "stdout", "retention_hours": 7})),
    ("set_relay_inbox('i', %s)", REVERSE),
    ("set_relay_inbox('i2', 'i', %s)", Jsonb({"type": "kafka", "brokers": "b", "topic": "t"})),
    ("set_relay_inbox('i3', 'i', '{\"type\": \"kafka\", \"brokers\": \"b\", \"topic\": \"t\"}')", None),
    ("enable_relay('p')", None), ("disable_relay('p')", None), ("enable_relay('p')", None),
    ("get_relay_config('p')", None), ("list_relay_configs()", None),
    ("pause_relay('p')", None), ("resume_relay('p')", None),
    ("create_stream_table('public.keyed', %s, '1s', 'AUTO', array['id'::pg_catalog.text])", QUERY),
    ("create_stream_table('public.plain', %s, null)", QUERY),
    ("enable_outbox('public.keyed')", None),
    ("set_relay_outbox('s', %s)", Jsonb({"stream_table": "public.keyed", "sink_type": "stdout"})),
    ("refresh_stream_table('public.keyed')", None),
    ("refresh_stream_table('public.plain')", None),
    ("alter_stream_table('public.plain', '5s', 'FULL')", None),
    ("alter_stream_table('public.plain', query => %s)", QUERY),
    ("alter_stream_table('public.plain', suspend => true)", None),
    ("alter_stream_table('public.plain', resume => true, rename_to => 'renamed')", None),
    ("refresh_stream_table('public.renamed')", None),
    ("create_stream_table('public.green', %s)", QUERY),
    ("promote_stream_table('public.renamed', 'public.green')", None),
    ("create_publication('public.keyed', array['id'::pg_catalog.text], 'id > 0')", None),
    ("drop_publication('public.keyed')", None),
    ("stream_tables_due()", None),
    ("drop_stream_table('public.renamed')", None),
    ("create_outbox('events')", None),
    ("publish('events', %s, 'made', 'k', null, 'once')", Jsonb({"a": 1})),
    ("publish('events', %s, 'made', 'k', null, 'once')", Jsonb({"a": 1})),
    ("outbox_status('public.orders')", None), ("outbox_rows('public.orders', 1)", None),
    ("outbox_rows_consumed('public.orders', 1)", None),
    ("replay_relay('p', 1)", None),
    ("relay_open_writers('pgtrickle.outbox_orders')", None),
    ("relay_resolve_outbox('public.orders')", None),
    ("relay_claim_position('g', 'p', '00000000-0000-0000-0000-000000000000', 'w', '1')", None),
    ("relay_commit_position('g', 'p', '00000000-0000-0000-0000-000000000000', null, 1, 0, null)",
     None),
    ("relay_rewind_position('g', 'p', '00000000-0000-0000-0000-000000000000', null, 1)", None),
    ("relay_dlq_list()", None), ("relay_dlq_retry_all('p')", None),
    ("relay_dlq_purge('1 day'::pg_catalog.interval)", None),
    ("relay_housekeeping()", None),
    ("create_inbox('made')", None),
    ("enable_inbox_tracking('adopted', 'public.adopted', %s)",
     Jsonb({"event_id": "id", "payload": "body"})),
    ("inbox_mark_processed('made', 'e1')", None), ("inbox_mark_failed('made', 'e2', 'why')", None),
    ("replay_inbox_messages('made', array['e1'::pg_catalog.text])", None),
    ("inbox_payload_column('made', 'amount')", None),
    ("inbox_status()", None), ("inbox_health('made')", None),
    ("drop_inbox('made')", None),
    ("rebind_outbox('public.orders', 'public.orders')", None),
    ("outbox_full_refresh('public.orders')", None), ("outbox_capture_upkeep()", None),
    ("create_change_feed('public.orders')", None),
    ("cleanup_change_feed('public.orders', '0'::pg_catalog.interval)", None),
    ("relay_housekeeping()", None), ("drop_change_feed('public.orders')", None),
    ("delete_relay('p')", None),
    ("disable_outbox('public.orders')", None),
]


def call_all(connection, calls):
    for call, parameter in calls:
        connection.execute(f"select pgtrickle.{call}", (parameter,) if parameter else None)
        if call.startswith("set_relay_outbox('p', %s)"):
            connection.execute("insert into public.orders values (1, 1), (2, 2)")
            assert connection.execute("select from pgtrickle.outbox_orders").rowcount > 0


@pytest.mark.parametrize("role", ["postgres", "clerk"])
def test_what_users_call_looks_nothing_up_by_their_path(hostile, role):
    with hostile.connect(user=role) as connection:
        # Their own temporary objects are not in the way either.
        connection.execute("create temp table pgt_outbox_config (x int); "
                           "create temp table pg_class (x int)")
        connection.execute(f"set search_path = pg_temp, {PATH}")
        call_all(connection, CALLS)
    assert victims(hostile) == []
    assert hostile.one("select count(*) from public.keyed") == 2


def test_each_reviewed_function_is_among_those_that_are_called():
    called = {call.split("(")[0] for call, _ in CALLS}
    assert {name.split(".")[1].split("(")[0] for name in REVIEWED} <= called


def test_names_that_the_user_writes_are_read_under_the_users_path(hostile):
    """Which is what the path is handed on for."""
    hostile.execute("create schema desk authorization clerk")
    with hostile.connect(user="clerk") as connection:
        connection.execute("create table desk.letters (id int primary key)")
        connection.execute("set search_path = desk, hostile, pg_catalog")
        connection.execute("select pgtrickle.set_relay_outbox('p', %s)",
                           (Jsonb({"stream_table": "letters", "sink_type": "stdout"}),))
        connection.execute("select pgtrickle.create_stream_table('digest', "
                           "'select id from letters')")
    assert hostile.one("select stream_table_schema from pgtrickle.pgt_outbox_config") == "desk"
    assert hostile.one("select count(*) from desk.digest") == 0
    assert victims(hostile) == []


def test_the_calls_of_the_relays_role_look_nothing_up_by_its_path(hostile):
    with hostile.connect() as superuser:
        call_all(superuser, CALLS[:3])
        superuser.execute("select pgtrickle.create_stream_table('public.keyed', 'select id, n "
                          "from public.orders', '1ms', 'AUTO', '{id}')")
    with hostile.connect(user="relay_daemon") as connection:
        connection.execute(f"set search_path = {PATH}")
        for call in ("relay_housekeeping()", "stream_tables_due()", "list_relay_configs()",
                     "refresh_stream_table('public.keyed')", "outbox_status('public.orders')",
                     "relay_open_inbox('letters', null, null, null, null, null, false)",
                     "pause_relay('p')",
                     "relay_claim_position('g', 'p', '00000000-0000-0000-0000-000000000000', 'w', "
                     "'earliest')"):
            connection.execute(f"select pgtrickle.{call}")
    assert victims(hostile) == []


# The relay's own sessions -------------------------------------------------------------------------

def has_rows(connection, table):
    there = connection.execute("select to_regclass(%s) is not null", (table,)).fetchone()[0]
    return there and connection.execute(f"select count(*) from {table}").fetchone()[0] > 0


# What the owner of a database may set for all sessions in it, the relay's too.
PATHS = [f"search_path = {PATH}"]
SETTINGS = ["default_transaction_isolation = serializable", "default_transaction_read_only = on",
            "standard_conforming_strings = off", "quote_all_identifiers = on", "array_nulls = off",
            "lock_timeout = 1", "statement_timeout = 1", "idle_session_timeout = 300",
            "idle_in_transaction_session_timeout = 1", "extra_float_digits = -10"]
# At the start of a session: a statement that sets them could itself end by a timeout of 1 ms.
PLAIN = " ".join(f"-c {setting}" for setting in (
    "search_path=public", "default_transaction_isolation=read\\ committed",
    "default_transaction_read_only=off", "standard_conforming_strings=on",
    "quote_all_identifiers=off", "lock_timeout=0", "statement_timeout=0",
    "idle_session_timeout=0", "idle_in_transaction_session_timeout=0"))


def pipelines(there, out):
    """From an outbox and a plain table; to a file, an inbox, and a plain table elsewhere."""
    outbox = {"type": "outbox", "outbox": "public.orders"}
    only_these = {name: "" for name in ("event_type", "source", "aggregate_id", "headers",
                                        "trace_id")}
    return {
        "file": {"source": outbox, "sink": {"type": "file", "path": str(out)}},
        "inbox": {"source": outbox, "sink": {"type": "inbox", "inbox_name": "orders"}},
        "plain-inbox": {"source": outbox, "sink": {
            "type": "inbox", "url": there.relay_dsn, "inbox_table": "public.arrived",
            "column_map": {"event_id": "id", "payload": "body", **only_these}}},
        "letters": {"source": {"type": "pg-outbox", "url": there.relay_dsn,
                               "table": "public.letters", "id_column": "id",
                               "payload_column": "payload"},
                    "sink": {"type": "inbox", "inbox_name": "letters"}, "start": "earliest"}}


@pytest.mark.parametrize("settings", [PATHS, SETTINGS], ids=["search_path", "others"])
def test_the_relays_sessions_do_not_depend_on_what_is_set_for_a_database(
        hostile, start_relay, there, tmp_path, settings):
    shadow(there, ours())
    there.execute("""
        create domain public.message_id as text;
        create table public.letters (id bigint generated always as identity primary key,
                                     payload jsonb);
        create table public.arrived (id public.message_id primary key, body jsonb);
        grant select on public.letters, public.letters_id_seq to relay_daemon;
        grant select, insert on public.arrived to relay_daemon""")
    for database in (hostile, there):
        for setting in settings:
            database.execute(f"alter database {database.name} set {setting}")
        database.close()
    out = tmp_path / "out.jsonl"
    with hostile.connect(options=PLAIN) as here, there.connect(options=PLAIN) as remote:
        for name, config in pipelines(there, out).items():
            here.execute("select pgtrickle.set_relay(%s, %s, true)", (name, Jsonb(config)))
        here.execute("insert into public.orders select k, k from generate_series(1, 50) k")
        remote.execute("insert into public.letters (payload) values ('{\"a\": 1}')")
        start_relay(hostile.relay_dsn)
        eventually(lambda: out.exists() and out.read_text(), 20)
        eventually(lambda: has_rows(here, "pgtrickle.inbox_orders"), 20)
        eventually(lambda: has_rows(here, "pgtrickle.inbox_letters"), 20)
        eventually(lambda: has_rows(remote, "public.arrived"), 20)
        for command in (["status"], ["list"], ["dlq", "list"], ["check"]):
            run_command(*command, "--postgres-url", hostile.relay_dsn)
        for connection in (here, remote):
            assert connection.execute("select distinct role::text, what from hostile.victims "
                                      "where role <> %s", (OWNER,)).fetchall() == []


# init ---------------------------------------------------------------------------------------------

def init(database, dsn=None):
    return run_command("init", "--postgres-url", dsn or database.dsn)


@pytest.mark.parametrize("how", ["init", "files"])
def test_init_looks_nothing_up_by_a_path_that_others_set(empty_db, relay_bin, how):
    shadow(empty_db, ours())
    empty_db.execute(f"alter database {empty_db.name} set search_path = {PATH}")
    for _ in range(2):
        if how == "init":
            done = init(empty_db)
            assert done.returncode == 0, done.stderr
        else:
            install_from_files(empty_db.dsn)
    empty_db.close()
    empty_db.execute("set search_path = pg_catalog")
    assert victims(empty_db) == []


def test_a_function_in_public_does_not_take_init_over(empty_db, relay_bin):
    """Under the path that sessions have by default: format(text, text) fits better than the
    server's own format(text, variadic "any")."""
    empty_db.execute("""
        create table public.ran_as (role name);
        create function public.format(text, text) returns text language plpgsql as
          'begin insert into public.ran_as values (current_user);
           return pg_catalog.format($1, $2); end'""")
    for _ in range(2):
        assert init(empty_db).returncode == 0
    assert empty_db.execute("select distinct role from public.ran_as") == []


MALLORY = "mallory_of_paths"
PREPARED = """
    create table pgtrickle.relay_schema_history (file text primary key, checksum text, version int,
                                                 installed_at timestamptz);
    create function pgtrickle.publish(name text) returns void language sql as '';
    create type pgtrickle.mood as enum ('good');
    create function public.same(text, text) returns boolean language sql as 'select true';
    create operator pgtrickle.= (leftarg = text, rightarg = text, function = public.same)"""


@pytest.fixture
def mallory(empty_db):
    """A role that may create schemas in the database, and in public, and nothing else."""
    empty_db.login(MALLORY)
    empty_db.execute(f"grant create on database {empty_db.name} to {MALLORY}; "
                     f"grant create on schema public to {MALLORY}")
    with empty_db.connect(user=MALLORY) as connection:
        yield connection


@pytest.mark.parametrize("schema", ["pgtrickle", "pgtrickle_internal", "pgtrickle_json",
                                    "pgtrickle_gate", "pgtrickle_streams"])
def test_a_schema_of_another_role_is_refused(empty_db, relay_bin, mallory, schema):
    mallory.execute(f"create schema {schema}")
    done = init(empty_db)
    assert done.returncode != 0
    assert f'schema "{schema}" belongs to role "{MALLORY}"' in done.stderr
    assert f"DROP SCHEMA {schema} CASCADE" in done.stderr
    mallory.execute(f"drop schema {schema}")
    assert init(empty_db).returncode == 0


def test_objects_of_another_role_in_a_schema_of_ours_are_refused(empty_db, relay_bin, mallory):
    """Also where the schema itself is a superuser's, who let others create there."""
    empty_db.execute("create schema pgtrickle; "
                     f"grant create, usage on schema pgtrickle to {MALLORY}")
    mallory.execute(PREPARED)
    refused = init(empty_db)
    assert refused.returncode != 0
    assert f'others may create objects in schema "pgtrickle": {MALLORY}' in refused.stderr
    empty_db.execute(f"revoke create on schema pgtrickle from {MALLORY}")
    for kind, ended_by in (
            ("table", "drop table pgtrickle.relay_schema_history"),
            ("function", "drop function pgtrickle.publish"), ("type", "drop type pgtrickle.mood"),
            ("operator", "drop operator pgtrickle.= (text, text)")):
        refused = init(empty_db)
        assert refused.returncode != 0
        assert 'schema "pgtrickle" holds objects of other roles' in refused.stderr
        assert f"{kind} pgtrickle." in refused.stderr and MALLORY in refused.stderr
        mallory.execute(ended_by)
    done = init(empty_db)
    assert done.returncode == 0, done.stderr


def test_a_trigger_that_waits_in_a_table_made_beforehand_never_runs(empty_db, relay_bin, mallory):
    mallory.execute("""
        create schema pgtrickle;
        create table public.ran_as (role name);
        grant insert on public.ran_as to public;
        create table pgtrickle.relay_schema_history (file text primary key, checksum text not null,
          version int not null, installed_at timestamptz not null default clock_timestamp());
        create function pgtrickle.take_over() returns trigger language plpgsql as
          'begin insert into public.ran_as values (current_user); return new; end';
        create trigger take_over before insert on pgtrickle.relay_schema_history
          for each row execute function pgtrickle.take_over()""")
    assert init(empty_db).returncode != 0
    assert empty_db.execute("select * from public.ran_as") == []


def test_no_login_keeps_an_installation_out(empty_db, relay_bin, mallory):
    """The lock of an installation was an advisory lock once."""
    mallory.execute("begin; "
                    "select pg_advisory_xact_lock(hashtextextended('pgtrickle-relay init', 0))")
    for _ in range(2):
        done = init(empty_db)
        assert done.returncode == 0, done.stderr
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        mallory.execute("lock table pgtrickle.relay_schema_history in share row exclusive mode")


# Functions that administrators may call about what is not theirs -----------------------------------

@pytest.fixture
def admins(db):
    """Alice has a stream table; Bob is another administrator, who owns nothing of it."""
    db.login("alice", "pgtrickle_admin")
    db.login("bob", "pgtrickle_admin")
    db.execute("grant create on schema public to alice")
    with db.connect(user="alice") as alice:
        alice.execute("create table orders (id int primary key); create table letters (id int)")
        alice.execute("select pgtrickle.create_stream_table('digest', 'select id from orders', "
                      "'1s')")
        alice.execute("select pgtrickle.enable_outbox('orders')")
    with db.connect(autocommit=False, user="bob") as bob:
        yield bob


def refused(connection, *statements, match="insufficient|permission denied|only the owner|is not"):
    with pytest.raises(psycopg.Error, match=match):
        for statement in statements:
            connection.execute(statement)
    connection.rollback()


def test_an_administrator_makes_no_stream_table_of_anothers_table(admins):
    """Its outbox would wait for refreshes, and record nothing."""
    refused(admins, "select pgtrickle_internal.stream_register('public.letters', 'q', 'q', '1s', 'AUTO', "
            "null, 'UTC')", match="was not made for a stream table")
    refused(admins, "select pgtrickle_internal.stream_mark()",
            "comment on table public.letters is 'mine'", match="must be owner")


def test_an_administrator_does_not_change_what_anothers_stream_table_reads(db, admins):
    lock = "select pgtrickle_internal.stream_lock(1)"
    refused(admins, lock, "select pgtrickle_internal.stream_set_sources(1, '[]', false, '{}')",
            match="is not being changed here")
    refused(admins, lock, "select pgtrickle_internal.stream_store(1, null, null, null, 'forged', 'forged')",
            match="only the owner")
    refused(admins, "select pgtrickle.alter_stream_table('digest', query => 'select 1 as id')",
            match="permission denied|must be owner")
    # What any administrator may do.
    admins.execute("select pgtrickle.alter_stream_table('digest', suspend => true)")
    admins.commit()
    assert db.one("select status from pgtrickle.pgt_stream_tables") == "SUSPENDED"


def test_an_administrator_puts_no_trigger_on_what_is_not_an_inbox(admins):
    """It would keep all writers waiting until the transaction ends."""
    for table in ("pgtrickle.outbox_orders", "pgtrickle.pgt_outbox_config", "pgtrickle.relay_dlq",
                  "public.orders"):
        refused(admins, f"select pgtrickle_internal.source_trigger_on_ours('{table}', '{table}'::regclass)",
                match="permission denied for table")


def test_an_administrator_puts_one_trigger_on_an_inbox_and_no_more(db, admins):
    db.execute("select pgtrickle.create_inbox('letters')")
    refused(admins, "select pgtrickle_internal.source_trigger_on_ours('pgtrickle.inbox_letters', 12345)",
            match="permission denied for table")
    admins.execute("select pgtrickle_internal.source_trigger_on_ours('pgtrickle.inbox_letters', "
                   "'pgtrickle.inbox_letters'::regclass)")


def test_no_retention_below_nothing_is_stored(admins):
    for hours in ("-1", "null"):
        refused(admins, f"select pgtrickle_internal.set_outbox_retention('orders', {hours})",
                match="retention_hours must be")


def test_the_observer_shows_writers_of_tables_of_ours_only(db, admins):
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (1)")
        look = "select count(*) from pgtrickle.relay_open_writers('{}')"
        assert admins.execute(look.format("pgtrickle.outbox_orders")).fetchone() == (1,)
        assert admins.execute(look.format("public.orders")).fetchone() == (0,)


