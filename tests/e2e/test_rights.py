"""Code and expressions of users never run with rights of ours, and none of ours is theirs to use.

Attackers plant code wherever they may, honest users do their work, and planted code must have run
as no role but its planter. support/attacks.py has the cast, what is planted, and the checker.
"""

import contextlib
import json

import psycopg
import pytest

from support import attacks
from support.attacks import SANDBOX, Watch, watching


@pytest.fixture(scope="module")
def land(pg_server):
    """One database for tests that leave each other's objects alone."""
    database = pg_server.create_database()
    attacks.prepare(database)
    yield database
    database.drop()


def run_as(db, role, *statements):
    """Runs statements as a role, each committed at once; the rows of the last one."""
    with db.connect(user=role, options="-c statement_timeout=20s") as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def outbox_of(db, table):
    return db.one("select format('pgtrickle.%%I', outbox_table_name) from pgtrickle.pgt_outbox_config "
                  "where stream_table_oid = %s::regclass", (table,))


def recorded(db, table):
    """The rows that an outbox says were inserted and deleted, as texts, in order."""
    outbox = outbox_of(db, table)
    return [(op, json.dumps(row, sort_keys=True)) for op, row in db.execute(
        f"select r.row_op, r.row_data from {outbox} o "
        "cross join lateral pgtrickle.outbox_rows(%s, o.id) r order by o.id, r.row_num",
        (outbox.removeprefix("pgtrickle.").strip('"'),))]


# Shadowed names ------------------------------------------------------------------------------

# Arguments with which each function that users call does something. A function that is not here
# makes the test fail: say how it is called.
CALLS = {
    "alter_stream_table": dict(name="public.totals", schedule="2s"),
    "create_inbox": dict(name="parcels"),
    "create_outbox": dict(name="jewels"),
    "create_stream_table": dict(name="public.fresh", query="select id from public.treasure"),
    "delete_relay": dict(name="forward"),
    "disable_outbox": dict(name="public.treasure"),
    "disable_relay": dict(name="forward"),
    "drop_inbox": dict(name="mail"),
    "drop_stream_table": dict(name="public.totals"),
    "enable_inbox_tracking": dict(name="found", table_name="public.findable"),
    "enable_outbox": dict(name="public.plain"),
    "enable_relay": dict(name="forward"),
    "get_relay_config": dict(name="forward"),
    "inbox_health": dict(name="post"),
    "inbox_mark_failed": dict(name="post", event_id="a", error="no"),
    "inbox_mark_processed": dict(name="post", event_id="a"),
    "inbox_payload_column": dict(inbox="mail", name="member"),
    "inbox_status": dict(),
    "list_relay_configs": dict(),
    "outbox_capture_upkeep": dict(),
    "outbox_full_refresh": dict(name="public.treasure"),
    "outbox_rows": dict(stream_table="public.treasure", outbox_id=1),
    "outbox_rows_consumed": dict(stream_table="public.treasure", outbox_id=1),
    "outbox_status": dict(name="public.treasure"),
    "pause_relay": dict(name="forward"),
    "publish": dict(outbox="crown", payload="{}", idempotency_key="k"),
    "refresh_stream_table": dict(name="public.totals"),
    "relay_claim_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                 worker="w", start="earliest"),
    "relay_commit_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=1, row_num=0, pgt_id="@uuid"),
    "relay_dlq_discard": dict(id="@dead_letter"),
    "relay_dlq_list": dict(pipeline="forward"),
    "relay_dlq_purge": dict(older_than="1 day"),
    "relay_dlq_retry": dict(id="@dead_letter"),
    "relay_dlq_retry_all": dict(pipeline="forward"),
    "relay_housekeeping": dict(),
    "relay_open_inbox": dict(inbox_name="later", inbox_table=None, max_retries=3, schedule=None,
                             with_dead_letter=True, retention_hours=5),
    "relay_open_writers": dict(outbox="pgtrickle.outbox_treasure"),
    "relay_resolve_outbox": dict(name="public.treasure"),
    "relay_rewind_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=0, row_num=0, pgt_id="@uuid"),
    "replay_inbox_messages": dict(name="post", event_ids="{a,b}"),
    "replay_relay": dict(name="forward", from_id=1),
    "resume_relay": dict(name="forward"),
    "set_relay": dict(name="bridge", config='{"source": {"type": "outbox", "outbox": "treasure"}, '
                                            '"sink": {"type": "stdout"}}'),
    "set_relay_inbox": dict(name="backward", config='{"source_type": "nats", "nats_url": "nats://x", '
                                                    '"inbox_name": "mail"}',
                            inbox="mail", source='{"type": "stdin"}'),
    "set_relay_outbox": dict(name="other", config='{"sink_type": "stdout", '
                                                  '"stream_table": "treasure"}',
                             outbox="treasure", group="g", sink='{"type": "stdout"}'),
    "stream_tables_due": dict(),
}

# Arguments of functions that functions call, by name and by type.
BY_NAME = {"name": "treasure", "rel": "public.treasure", "source": "public.treasure",
           "outbox_table": "outbox_treasure", "number": 1, "id": 1, "member": "public.treasure",
           "incarnation": "@incarnation", "config": '{"sink_type": "stdout"}', "kind": "table",
           "direction": "forward", "capture": "statement", "place": "table", "schedule": "1s",
           "timezone": "UTC", "query": "select id from public.treasure", "mode": "AUTO",
           "refresh_mode": "AUTO", "work": "public.plain", "probe": "public.treasure",
           "action": "apply", "logical_name": "another", "delta_table": "outbox_delta_rows_treasure",
           "changes": "public.findable", "keys": "{id}", "key_columns": "{id}", "tg_op": "UPDATE",
           "what": "insert", "op": "FULL", "sequence": "pgtrickle.outbox_treasure_id_seq",
           "statement": "select 1", "definition": "select 1", "columns": "{}", "caller_path": "trap",
           "trigger_path": "trap", "cron": "* * * * *", "field": "event_id",
           "report": '{"errors": [], "warnings": []}'}
BY_TYPE = {"text": "x", "integer": 1, "bigint": 1, "boolean": True, "jsonb": "{}", "text[]": "{x}",
           "uuid": "@uuid", "regclass": "public.treasure", "oid": "@treasure", "interval": "1 s",
           "smallint": 1, "numeric": 1, "json": "{}", "record": None, "xid8": "1",
           "timestamp with time zone": "2030-01-01", "pgtrickle.pgt_outbox_config": "@outbox",
           "pgtrickle.pgt_inbox_config": "@inbox", "pgtrickle.pgt_stream_tables": "@stream"}

FUNCTIONS = """
select n.nspname, p.proname, p.oid::regprocedure::text, p.prorettype::regtype::text,
       array(select (p.proargnames)[i] from generate_series(1, p.pronargs) i),
       array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u (t, o)
             order by o),
       p.pronargs - p.pronargdefaults
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname like 'pgtrickle%' and p.prokind = 'f' order by 1, 2, 3
"""

# Functions of single outboxes and stream tables: tested by what they are for.
GENERATED = ("_capture_", "refresh_")


class Function:
    """One function of ours, and a call of it with plausible arguments."""

    def __init__(self, row, stand_ins):
        self.schema, self.name, self.signature, self.returns, names, types, required = row
        arguments, self.values = [], []
        for position, (name, type_) in enumerate(zip(names, types)):
            if self.public:
                value = CALLS[self.name].get(name, KeyError)
                if value is KeyError:
                    assert position >= required, f"CALLS says nothing about {name} of {self.name}"
                    continue
            elif name in BY_NAME and type_ in ("text", "regclass", "integer", "bigint", "uuid",
                                               "jsonb", "text[]"):
                value = BY_NAME[name]
                if type_ in ("integer", "bigint") and not isinstance(value, int):
                    value = 1
            else:
                value = BY_TYPE.get(type_)
            if isinstance(value, str) and value.startswith("@"):
                value = stand_ins[value]
            self.values.append(value)
            if type_ == "record":
                type_ = "pgtrickle.pgt_outbox_config"
            elif "." not in type_:
                type_ = {"integer": "pg_catalog.int4", "bigint": "pg_catalog.int8",
                         "text[]": "pg_catalog.text[]", "smallint": "pg_catalog.int2",
                         "boolean": "pg_catalog.bool",
                         "timestamp with time zone": "pg_catalog.timestamptz"
                         }.get(type_, "pg_catalog." + type_)
            arguments.append(f'"{name}" => %s::{type_}' if name else f"%s::{type_}")
        self.statement = (f'select * from "{self.schema}"."{self.name}"({", ".join(arguments)})'
                          if self.returns != "record" else
                          f'select "{self.schema}"."{self.name}"({", ".join(arguments)})')

    @property
    def public(self):
        return self.schema == "pgtrickle" and not self.name.startswith("_")

    def call(self, connection):
        """Calls it and takes all back; its SQLSTATE, '00000' where it succeeded."""
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(self.statement, self.values)
            return "00000"
        except psycopg.Error as error:
            return error.sqlstate or str(error)


@pytest.fixture(scope="module")
def town(pg_server):
    """A database with one of everything, and everything of PostgreSQL shadowed in schema trap."""
    db = pg_server.create_database()
    attacks.prepare(db)
    db.execute("""
        insert into treasure values (1, 1);
        create table plain (id int primary key, note text);
        create table findable (event_id text primary key, payload jsonb, processed_at timestamptz,
                               error text, retry_count int);
        create table post (like findable including all);
        insert into post (event_id) values ('a');
        grant usage on schema pgtrickle, pgtrickle_streams, pgtrickle_gate to app;
        select pgtrickle.create_inbox('mail');
        select pgtrickle.enable_inbox_tracking('post', 'public.post');
        select pgtrickle.create_stream_table('totals', 'select id, n from treasure');
        select pgtrickle.set_relay_outbox('forward',
          '{"sink_type": "stdout", "stream_table": "treasure"}', true);
        insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, payload, error_class)
          values ('g', 'forward', 'm', '', 'poison');
        update pgtrickle.pgt_outbox_config set inline_threshold_rows = 5""")
    attacks.shadow(db)
    yield db
    db.drop()


@pytest.fixture(scope="module")
def functions(town):
    town.execute("set search_path = pg_catalog")
    stand_ins = {
        "@incarnation": town.one("select incarnation::text from pgtrickle.pgt_outbox_config "
                                 "where stream_table_name = 'treasure'"),
        "@uuid": "00000000-0000-0000-0000-000000000001",
        "@dead_letter": town.one("select id from pgtrickle.relay_dlq"),
        "@treasure": town.one("select 'public.treasure'::regclass::oid"),
        "@outbox": town.one("select c::text from pgtrickle.pgt_outbox_config c "
                            "where stream_table_name = 'treasure'"),
        "@inbox": town.one("select c::text from pgtrickle.pgt_inbox_config c "
                           "where inbox_name = 'post'"),
        "@stream": town.one("select c::text from pgtrickle.pgt_stream_tables c")}
    return [Function(row, stand_ins) for row in town.execute(FUNCTIONS)
            if row[3] != "trigger" and not (row[0] == "pgtrickle" and row[1].startswith("_capture_")
                                            and row[1].split("_")[2].isdigit())]


def test_the_trap_springs(town):
    with town.connect(user="boss") as connection:
        connection.execute("set search_path = trap, pg_catalog")
        for expression in ("1 = 1", "'a'::text", "current_setting('role')", "format('%s', 1)",
                           "'a' || 'b'", "count(*) from pg_class", "1 in (1)", "'1'::regclass",
                           "pg_trigger_depth()"):
            with watching_escalations(town) as found:
                with contextlib.suppress(psycopg.Error):
                    connection.execute("select " + expression.replace("%", "%%"))
            assert found or "count" in expression, expression


@contextlib.contextmanager
def watching_escalations(db):
    """Collects what ran as another role than its planter."""
    watch, found = Watch(db), []
    yield found
    found.extend(watch.escalations("mallory"))


def test_each_function_that_users_call_is_classified_and_its_call_does_something(town, functions):
    public = {function.name for function in functions if function.public}
    assert public <= CALLS.keys(), f"not classified: {sorted(public - CALLS.keys())}"
    with town.connect(user="boss") as connection:
        failed = {f.signature: f.call(connection) for f in functions if f.public}
    assert {name: state for name, state in failed.items() if state != "00000"} == {}


# Where mallory gets her code in: a schema before pg_catalog, and one behind it whose functions match
# better than those with "any" or with implicit casts.
PATHS = ["trap, pg_catalog, pgtrickle", "pg_catalog, trap"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", ["boss", "clerk", "relay_daemon", "publisher", "app"])
def test_no_function_looks_names_up_by_its_callers_path(town, functions, role, path):
    with watching(town), town.connect(user=role) as connection:
        connection.execute("set statement_timeout = '5s'")
        usual = {f.signature: f.call(connection) for f in functions}
        connection.execute(f"set search_path = {path}")
        trapped = {f.signature: f.call(connection) for f in functions}
    assert {name: (usual[name], state) for name, state in trapped.items()
            if state != usual[name]} == {}


def test_a_login_without_rights_calls_no_function_of_ours(town, functions):
    with town.connect(user="app") as connection:
        called = {f.signature: f.call(connection) for f in functions}
    assert {name: state for name, state in called.items() if state != "42501"} == {}


# What is planted on a captured table ---------------------------------------------------------

def plant(db, role, name, table):
    run_as(db, role, attacks.TABLE_PLANTS[name].format(t=table, w=f"'{name}'"))


HIDDEN = {"rules"} | {name for name in attacks.TABLE_PLANTS if "instead of the table" in name
                      or "view" in name}


@pytest.mark.parametrize("name", attacks.TABLE_PLANTS)
def test_what_a_table_owner_plants_runs_as_its_writer_at_most(land, name):
    """The owner's own triggers run as the role that writes: that is PostgreSQL's, and no more is."""
    table = "captured_" + name.replace(" ", "_")
    run_as(land, "mallory", f"create table {table} (id int primary key, n int)",
           f"grant select, insert, update, delete, truncate on {table} to app",
           f"select pgtrickle.enable_outbox('{table}')")
    plant(land, "mallory", name, table)
    outbox = land.one("select format('pgtrickle.%%I', outbox_table_name) "
                      "from pgtrickle.pgt_outbox_config where stream_table_name = %s", (table,))
    with watching(land, "app", SANDBOX, what=name):
        if name not in HIDDEN:
            run_as(land, "app", f"insert into {table} (id, n) values (1, 1), (2, 2)",
                   f"update {table} set n = n + 1", f"delete from {table} where id = 1")
            assert land.execute(f"select tg_op, inserted_count, deleted_count from {outbox} "
                                "order by id") == [("INSERT", 2, 0), ("UPDATE", 2, 2),
                                                   ("DELETE", 0, 1)]
    # What a superuser, an administrator and housekeeping do about it runs none of it.
    with watching(land, SANDBOX, what=name):
        for statement in ("select pgtrickle.outbox_capture_upkeep()",
                          f"select pgtrickle.outbox_full_refresh('{outbox}')",
                          f"select pgtrickle.outbox_status('{outbox}')",
                          f"select pgtrickle.disable_outbox('{outbox}')",
                          f"select pgtrickle.enable_outbox('{table}')",
                          f"select pgtrickle.outbox_full_refresh('{table}')"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, "boss", statement)
        run_as(land, "relay_daemon", "select pgtrickle.relay_housekeeping()")
        with contextlib.suppress(psycopg.Error):
            run_as(land, "mallory", f"select pgtrickle.outbox_full_refresh('{table}')")
    if name in HIDDEN:
        return
    with watching(land, "app", SANDBOX, what=name):
        run_as(land, "app", f"truncate {table}" if name != "cascade" else "select 1")


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("owner", ["boss", "mallory"])
def test_no_cast_of_a_type_in_a_captured_table_runs_at_a_write(pg_server, owner, capture):
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute(attacks.TYPES)
        db.execute("grant create on schema eve to mallory")
        columns = {f"c{n}": column for n, column in enumerate(attacks.TYPE_COLUMNS.values())}
        definition = ", ".join(f"{name} eve.{column}" for name, column in columns.items())
        run_as(db, owner, f"create table typed (id int primary key, {definition})",
               "grant insert, select, update, delete, truncate on typed to app",
               f"select pgtrickle.enable_outbox('typed', capture => '{capture}')")
        db.execute(attacks.CASTS)
        values = ", ".join(attacks.VALUES[column] for column in columns.values())
        for writer in ("app", "boss"):
            # The check of a domain runs as the role that writes a value of it.
            with watching(db, writer) as watch:
                with db.connect(user=writer) as connection:
                    connection.execute(f"insert into typed values (1, {values}), (2, {values})")
                    connection.execute("update typed set c0 = 'happy' where id = 1")
                    connection.execute("delete from typed where id = 1")
                    connection.execute("insert into typed (id) values (3)")
                assert {what for what, *_ in watch.ran()} <= {"check of a domain"}
            with watching(db):
                run_as(db, owner, "select pgtrickle.outbox_full_refresh('typed')")
                run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
                run_as(db, owner, "truncate typed")
        outbox = outbox_of(db, "typed")
        row = db.one(f"select payload -> 'inserted' -> 0 from {outbox} order by id limit 1")
        rows = db.execute(f"select row_data from {outbox} o, pgtrickle.outbox_rows('typed', o.id) "
                          "order by o.id, row_num")
        assert rows[0][0] == row and row["id"] == 1 and row["c0"] == "sad", rows
        assert row["c1"] in (["sad", "happy"], "{sad,happy}"), row
    finally:
        db.drop()


# What is planted on an adopted inbox ---------------------------------------------------------

MARKS = ["select pgtrickle.inbox_mark_processed('{t}', 'a')",
         "select pgtrickle.inbox_mark_failed('{t}', 'b', 'no')",
         "select pgtrickle.replay_inbox_messages('{t}', '{{a,b}}')",
         "select pgtrickle.inbox_mark_processed('{t}', 'a')",
         "select pgtrickle.inbox_mark_processed('{t}', 'c')",
         "select pgtrickle.inbox_health('{t}')", "select pgtrickle.inbox_status('{t}')",
         "select pgtrickle.inbox_status()"]


def make_inbox(db, table, types=None):
    """A table of mallory's that is an inbox, with three messages and the shortest retention."""
    id_, when, count, note, body = types or ("text", "timestamptz", "int", "text", "jsonb")
    run_as(db, "mallory", f"""create table {table} (
             id int generated always as identity, n int, event_id {id_} primary key,
             payload {body}, processed_at {when}, error {note}, retry_count {count} default 0)""",
           f"alter table {table} add unique (id)",
           f"select pgtrickle.enable_inbox_tracking('{table}', 'public.{table}', "
           "retention_hours => 1)",
           f"insert into {table} (event_id) values ('a'), ('b'), ('c')")


def use_inbox(db, table):
    """What administrators, the relay and housekeeping do with an inbox; failing is allowed."""
    for role in ("boss", "clerk"):
        with db.connect(user=role, options="-c statement_timeout=20s") as connection:
            for statement in MARKS:
                with contextlib.suppress(psycopg.Error):
                    connection.execute(statement.format(t=table))
    with db.connect(user="relay_daemon") as connection:
        for by in (f"'{table}', null", f"null, 'public.{table}'", f"null, '{table}'"):
            with contextlib.suppress(psycopg.Error):
                connection.execute(f"select pgtrickle.relay_open_inbox({by}, 4, null, true, 1)")
    with contextlib.suppress(psycopg.Error):    # the owner says that it was long ago
        run_as(db, "mallory", f"update {table} set processed_at = now() - interval '9 hours'")
    for role in ("relay_daemon", "boss"):
        run_as(db, role, "select pgtrickle.relay_housekeeping()")


@pytest.mark.parametrize("name", sorted(attacks.TABLE_PLANTS) + ["types"])
def test_what_an_inbox_owner_plants_runs_as_the_owner(land, name):
    table = "adopted_" + name.replace(" ", "_")
    word = f"'inbox: {name}'"
    if name == "types":
        run_as(land, "mallory", attacks.INBOX_TYPES.format(t=table, w=word))
        make_inbox(land, table, [f"{table}_{kind}" for kind in ("id", "when", "count", "note",
                                                                "body")])
    else:
        make_inbox(land, table)
        run_as(land, "mallory", attacks.TABLE_PLANTS[name].replace("references {t}",
                                                                   "references {t} (id)")
               .format(t=table, w=word))
    try:
        with watching(land, SANDBOX, what=f"inbox: {name}"):
            use_inbox(land, table)
    finally:
        land.execute("delete from pgtrickle.pgt_inbox_config where inbox_name = %s", (table,))


def test_an_honest_adopted_inbox_is_marked_and_purged_whatever_is_planted_on_others(land):
    make_inbox(land, "honest")
    use_inbox(land, "honest")
    assert land.execute("select * from honest") == []


# What a role gets at that may write a captured table, or owns it ------------------------------

@pytest.fixture(scope="module")
def harbour(pg_server):
    """Captured tables of the superuser's and of mallory's that app may write."""
    db = pg_server.create_database()
    attacks.prepare(db)
    db.execute("""
        create table plain (id int primary key, n int);
        create table by_row (like plain including all);
        create table tree (like plain including all) partition by range (id);
        create table tree_1 partition of tree for values from (0) to (100);
        create table tree_eve partition of tree for values from (100) to (200);
        alter table tree_eve owner to eve;
        set client_min_messages = error;
        select pgtrickle.enable_outbox('plain'),
               pgtrickle.enable_outbox('by_row', capture => 'row'),
               pgtrickle.enable_outbox('tree', capture => 'statement');
        create table tree_2 partition of tree for values from (200) to (300);
        grant all on plain, by_row, tree, tree_1, tree_2, tree_eve, treasure to app;
        -- The triggers of others that write to captured tables.
        create table others (id int);
        grant all on others to app;
        create function follow() returns trigger language plpgsql security definer as $$
        begin
          insert into plain values (new.id, 0);
          insert into by_row values (new.id, 0);
          update plain set n = 1 where id = new.id;
          return null;
        end $$;
        create trigger follow after insert on others for each row execute function follow();
        grant usage on schema pgtrickle, pgtrickle_streams, pgtrickle_gate to app, eve;
        create schema app authorization app""")
    yield db
    db.drop()


OUTBOXES = ["outbox_treasure", "outbox_plain", "outbox_by_row", "outbox_tree", "outbox_crown"]


@pytest.mark.parametrize("role", ["app", "eve", "mallory", "publisher", "relay_daemon"])
def test_no_role_of_users_writes_or_locks_an_outbox(harbour, role):
    allowed = []
    with harbour.connect(user=role) as connection:
        for outbox in OUTBOXES:
            attempts = [f"insert into pgtrickle.{outbox} (id, payload) values (4711, '{{}}')",
                        f"insert into pgtrickle.{outbox} (payload) values ('{{}}')",
                        f"insert into pgtrickle.{outbox} (pgt_id, payload) "
                        "values (gen_random_uuid(), '{}')",
                        f"update pgtrickle.{outbox} set payload = '{{}}'",
                        f"delete from pgtrickle.{outbox}", f"truncate pgtrickle.{outbox}",
                        f"select setval('pgtrickle.{outbox}_id_seq', 1)",
                        f"select nextval('pgtrickle.{outbox}_id_seq')",
                        f"select id from pgtrickle.{outbox} for key share",
                        f"drop table pgtrickle.{outbox} cascade",
                        f"create trigger t after insert on pgtrickle.{outbox} for each row "
                        "execute function attack.row_trigger('x')",
                        f"create table app.child () inherits (pgtrickle.{outbox})",
                        f"create table app.reference (id bigint references pgtrickle.{outbox})",
                        f"create rule r as on insert to pgtrickle.{outbox} do nothing",
                        f"comment on table pgtrickle.{outbox} is 'x'"]
            attempts += [f"lock table pgtrickle.{outbox} in {mode} mode" for mode in (
                "row share", "row exclusive", "share update exclusive", "share",
                "share row exclusive", "exclusive", "access exclusive")]
            for attempt in attempts:
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    with connection.transaction(force_rollback=True):
                        connection.execute(attempt)
                        allowed.append(attempt)
    assert allowed == []


ALL_TRIGGERS = """
select p.oid::regproc::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname like 'pgtrickle%' and p.prorettype = 'trigger'::regtype
"""


@pytest.mark.parametrize("role", ["app", "eve", "mallory"])
def test_no_trigger_function_of_an_outbox_serves_another_table(harbour, role):
    """Attached to a table of the attacker's, it writes into no outbox."""
    def counts():
        return {o: harbour.one(f"select count(*) from pgtrickle.{o}") for o in OUTBOXES}

    schema = "app" if role == "app" else "public"
    harbour.execute(f"drop table if exists {schema}.mine")
    run_as(harbour, role, f"create table {schema}.mine (id int, n int)")
    before, wrote = counts(), set()
    with harbour.connect(user=role) as connection:
        for (function,) in harbour.execute(ALL_TRIGGERS):
            for timing in ("after insert on {} for each row",
                           "after insert on {} referencing new table as new_rows for each statement",
                           "before truncate on {}", "after truncate on {}"):
                for argument in ("whole", "part"):
                    with contextlib.suppress(psycopg.Error):
                        with connection.transaction():
                            connection.execute(f"create trigger evil {timing.format(schema + '.mine')}"
                                               f" execute function {function}('{argument}')")
                            connection.execute(f"insert into {schema}.mine values (4711, 1)")
                            connection.execute(f"truncate {schema}.mine")
                    connection.execute(f"drop trigger if exists evil on {schema}.mine")
                    if counts() != before:
                        wrote.add(function)
                        before = counts()
    assert wrote == set()


FORGERIES = ["junk", "9;", "1;9;", "99999999999999;", "-1;", "yes", "no", "whole", "1", "0", "[]",
             "{}", "null", '{"2": ["x"]}', '{"2": null}', "{}|junk", "{}|99999999999999", "|", "||",
             '{"3": ["00000000-0000-0000-0000-000000000001", 1]}|1', "{}|2|2|2",
             '{"99999999999": ["00000000-0000-0000-0000-000000000001", 1]}', "''", "\\",
             '{"2": ["00000000-0000-0000-0000-000000000001", "1"], "3": [null, null]}|2']
WRITES = ["insert into plain values (1, 1)", "insert into plain values (2, 1), (3, 1)",
          "update plain set n = 2", "insert into by_row values (1, 1), (2, 2)",
          "update by_row set n = 2", "insert into tree values (1, 1), (101, 1), (201, 1)",
          "insert into tree_1 values (2, 1)", "insert into tree_2 values (202, 1)",
          "insert into tree_eve values (102, 1)", "update tree set n = 2",
          "update tree_2 set n = 3", "insert into others values (50)", "delete from tree_1",
          "truncate tree_eve", "truncate tree_1", "delete from by_row", "truncate plain"]


def outcome(connection, prepare=()):
    """What the writes leave in the outboxes, all taken back again; and which statements failed."""
    failed = []
    with connection.transaction(force_rollback=True):
        for statement, values in prepare:
            connection.execute(statement, values)
        connection.execute("set local session authorization app")
        for statement in WRITES:
            try:
                with connection.transaction():
                    connection.execute(statement)
            except psycopg.Error as error:
                failed.append(f"{statement}: {error.diag.message_primary}")
        connection.execute("reset session authorization")
        rows = [connection.execute(
            f"select tg_op, inserted_count, deleted_count, payload from pgtrickle.{outbox} "
            "where created_at >= transaction_timestamp() order by id").fetchall()
            for outbox in ("outbox_plain", "outbox_by_row", "outbox_tree")]
    return failed, rows


# Every setting that our functions read or write: by name as they are written, and as they are found.
SETTINGS = """
select 'pgtrickle_capture.' || k || outbox_number as name
from pgtrickle.pgt_outbox_config c, unnest(array['s', 'p', 't', 'x']) k
where c.kind = 'table'
union select 'pgtrickle.refreshing'
union
select lower(m[1]) from pg_proc p, regexp_matches(
  p.prosrc, '(pgtrickle[a-z_]*\\.[a-z_]+[0-9]*)''', 'g') m
where p.pronamespace = 'pgtrickle'::regnamespace and p.proname ~ '^_capture_[0-9]+_'
"""


def test_no_setting_forged_before_hides_or_doubles_a_change_or_makes_a_statement_fail(harbour):
    """As an earlier user of a pooled session may have left it, or the owner of the database."""
    settings = [name for (name,) in harbour.execute(SETTINGS)]
    with harbour.connect() as connection:
        honest = outcome(connection)
        assert honest[0] == [] and all(honest[1])
        wrong = {}
        for forged in FORGERIES:
            prepare = [("select set_config(%s, %s, false)", (name, forged)) for name in settings]
            failed, rows = outcome(connection, prepare)
            if failed:
                wrong[forged] = failed
            elif rows != honest[1]:
                wrong[forged] = [str(len(ours)) + " rows became " + str(len(theirs)) for ours, theirs
                                 in zip(honest[1], rows) if ours != theirs]
    assert wrong == {}


def test_no_setting_forged_in_a_statement_hides_another_change(harbour):
    """A function that the statement calls forges the settings after our BEFORE trigger has run."""
    settings = [name for (name,) in harbour.execute(SETTINGS)]
    harbour.execute("""
        create or replace function app.forge(value text, names text[]) returns int
        language plpgsql as $$
        declare n text;
        begin
          foreach n in array names loop perform set_config(n, value, true); end loop;
          return 0;
        end $$;
        grant execute on function app.forge to public; grant usage on schema app to public""")
    wrong = {}
    with harbour.connect() as connection:
        for forged in FORGERIES:
            with connection.transaction(force_rollback=True):
                connection.execute("set local session authorization app")
                for table in ("tree", "plain", "by_row"):
                    with contextlib.suppress(psycopg.Error), connection.transaction():
                        connection.execute(f"insert into {table} select 207 + app.forge(%s, %s), 1",
                                           (forged, settings))
                # What follows is honest.
                connection.execute("reset session authorization")
                for table, statement in (("tree", "insert into tree_2 values (250, 1)"),
                                         ("tree", "insert into tree_eve values (150, 1)"),
                                         ("tree", "truncate tree_eve"),
                                         ("plain", "insert into others values (51)"),
                                         ("plain", "truncate plain")):
                    count = f"select count(*) from pgtrickle.outbox_{table}"
                    before = connection.execute(count).fetchone()
                    try:
                        with connection.transaction():
                            connection.execute(statement)
                        if connection.execute(count).fetchone() == before:
                            wrong.setdefault(forged, []).append(f"hidden: {statement}")
                    except psycopg.Error as error:
                        wrong.setdefault(forged, []).append(f"{statement}: {error}"[:150])
    assert wrong == {}
