"""Code and expressions of users never run with rights of ours, and none of ours is theirs to use.

Attackers plant code wherever they may, honest users do their work, and planted code must have run
as no role but its planter. support/attacks.py has the cast, what is planted, and the checker.
"""

import contextlib
import re

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
    connection = session(db, role)
    for statement in statements:
        cursor = connection.execute(statement)
    return cursor.fetchall() if cursor.description else []


def session(db, role):
    """A session of a role that is kept for later calls; nothing waits in it for more than 20 s."""
    kept = vars(db).setdefault("sessions", {})
    if role not in kept or kept[role].closed:
        kept[role] = db.connect(user=role, options="-c statement_timeout=20s")
    return kept[role]


def outbox_of(db, table):
    return db.one("select format('pgtrickle.%%I', outbox_table_name) "
                  "from pgtrickle.pgt_outbox_config where stream_table_oid = %s::regclass", (table,))


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
    "rebind_outbox": dict(name="public.treasure"),
    "refresh_stream_table": dict(name="public.totals"),
    "relay_blockers": dict(),
    "relay_close_leases": dict(token="@uuid"),
    "relay_open_leases": dict(relay_group="g", worker="w", lease_timeout="5 s"),
    "relay_release_leases": dict(token="@uuid", kind="pipeline", names="{forward}"),
    "relay_renew_leases": dict(token="@uuid"),
    "relay_take_leases": dict(token="@uuid", kind="pipeline", names="{forward}", most=1),
    "relay_claim_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                 worker="w", start="earliest"),
    "relay_commit_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=1, row_num=0, pgt_id="@uuid"),
    "relay_dlq_discard": dict(id="@dead_letter"),
    "relay_dlq_list": dict(pipeline="forward"),
    "relay_dlq_purge": dict(older_than="1 day"),
    "relay_dlq_retry": dict(id="@dead_letter"),
    "relay_dlq_retry_all": dict(pipeline="forward"),
    "relay_first_position": dict(incarnation="@incarnation", start="earliest"),
    "relay_housekeeping": dict(),
    "relay_outbox_name_holds": dict(incarnation="@incarnation", named_schema="public",
                                    named_table="treasure"),
    "relay_pipeline_outbox": dict(name="public.treasure", relay_group="g", pipeline="forward"),
    "relay_open_inbox": dict(inbox_name="later", inbox_table=None, max_retries=3, schedule=None,
                             with_dead_letter=True, retention_hours=5),
    "relay_check": dict(),
    "relay_instances_now": dict(),
    "relay_payload_text": dict(payload="abc"),
    "relay_pipelines_now": dict(),
    "relay_open_writers": dict(outbox="pgtrickle.outbox_treasure"),
    "relay_resolve_outbox": dict(name="public.treasure"),
    "relay_rewind_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=0, row_num=0, pgt_id="@uuid"),
    "replay_inbox_messages": dict(name="post", event_ids="{a,b}"),
    "replay_relay": dict(name="forward", from_id=1),
    "resume_relay": dict(name="forward"),
    "set_relay": dict(name="bridge", config='{"source": {"type": "outbox", "outbox": "treasure"}, '
                                            '"sink": {"type": "stdout"}}'),
    "set_relay_inbox": dict(name="backward", config='{"source_type": "nats", '
                                                    '"nats_url": "nats://x", '
                                                    '"inbox_name": "mail"}',
                            inbox="mail", source='{"type": "stdin"}'),
    "set_relay_outbox": dict(name="other", config='{"sink_type": "stdout", '
                                                  '"stream_table": "treasure"}',
                             outbox="treasure", group="g", sink='{"type": "stdout"}'),
    "stream_tables_due": dict(),
    "take_over_relay": dict(from_group="g", to_group="h"),
}

# Arguments of functions that functions call, by name and by type.
BY_NAME = {"name": "treasure", "rel": "public.treasure", "source": "public.treasure",
           "outbox_table": "outbox_treasure", "number": 1, "id": 1, "member": "public.treasure",
           "incarnation": "@incarnation", "config": '{"sink_type": "stdout"}', "kind": "table",
           "direction": "forward", "capture": "statement", "place": "table", "schedule": "1s",
           "timezone": "UTC", "query": "select id from public.treasure", "mode": "AUTO",
           "refresh_mode": "AUTO", "work": "public.plain", "probe": "public.treasure",
           "action": "apply", "logical_name": "another",
           "delta_table": "outbox_delta_rows_treasure",
           "changes": "public.findable", "keys": "{id}", "key_columns": "{id}", "tg_op": "UPDATE",
           "what": "insert", "op": "FULL", "sequence": "pgtrickle.outbox_treasure_id_seq",
           "statement": "select 1", "definition": "select 1", "columns": "{}",
           "caller_path": "trap",
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


# What is in this schema reads the catalog and its arguments with its caller's rights: every role
# may call it.
PURE = "pgtrickle_json"


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


# Where mallory gets her code in: a schema before pg_catalog, and one behind it whose functions
# match better than those with "any" or with implicit casts.
PATHS = ["trap, pg_catalog, pgtrickle", "pg_catalog, trap"]


@pytest.mark.parametrize("role", ["boss", "clerk", "relay_daemon", "publisher", "app"])
def test_no_function_looks_names_up_by_its_callers_path(town, functions, role):
    differs = []
    with watching(town), town.connect(user=role) as connection:
        connection.execute("set statement_timeout = '5s'")
        usual = [f.call(connection) for f in functions]
        for path in PATHS:
            connection.execute(f"set search_path = {path}")
            differs += [f"{f.signature} ended in {state}, not {before}, under {path}"
                        for f, before, state in zip(functions, usual,
                                                    [f.call(connection) for f in functions])
                        if state != before]
    assert not differs, "\n".join(differs)


def test_a_login_without_rights_calls_no_function_of_ours(town, functions):
    with town.connect(user="app") as connection:
        called = {f.signature: f.call(connection) for f in functions if f.schema != PURE}
    assert {name: state for name, state in called.items() if state != "42501"} == {}
    assert town.execute("""
        select p.oid::regprocedure::text from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = %s and p.prosecdef""", (PURE,)) == []


# What is planted on a captured table ---------------------------------------------------------

def plant(db, role, name, table):
    run_as(db, role, attacks.TABLE_PLANTS[name].format(t=table, w=f"'{name}'"))


HIDDEN = {"rules"} | {name for name in attacks.TABLE_PLANTS if "instead of the table" in name
                      or "view" in name}


@pytest.mark.parametrize("name", attacks.TABLE_PLANTS)
def test_what_a_table_owner_plants_runs_as_its_writer_at_most(land, name):
    """The owner's own triggers run as the role that writes, as everywhere in PostgreSQL."""
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
    if name not in HIDDEN:
        with watching(land, "app", SANDBOX, what=name):
            run_as(land, "app", f"truncate {table}" if name != "cascade" else "select 1")
    with contextlib.suppress(psycopg.Error):
        land.execute(f"select pgtrickle.disable_outbox('{outbox}')")


def tells_of_truncate(db, table, outbox, deleted):
    """Whether the rows, a full refresh, or at least the catalog says what a TRUNCATE removed.

    Housekeeping may have to say it.
    """
    for _ in range(3):
        if db.one(f"select exists (select from {outbox} where tg_op is distinct from 'INSERT' "
                  "and (deleted_count = %s or payload ? 'full_refresh'))", (deleted,)) \
           or db.one("select problem from pgtrickle.pgt_outbox_config "
                     "where stream_table_name = %s", (table,)):
            return True
        run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
    return False


LEAF_PLANTS = ["policies", "index expression", "index predicate", "statistics",
               "check constraint", "truncate triggers", "deferred constraint trigger"]


@pytest.mark.parametrize("name", LEAF_PLANTS)
def test_what_the_owner_of_a_partition_plants_runs_as_its_writer_at_most(land, name):
    """A TRUNCATE of a partition, one that is detached, and one that is attached with rows."""
    table = "tree_" + name.replace(" ", "_")
    word = f"'partition: {name}'"
    run_as(land, "mallory", f"create table {table} (id int primary key, n int) "
           "partition by range (id)",
           f"create table {table}_1 partition of {table} for values from (0) to (10)",
           f"create table {table}_2 partition of {table} for values from (10) to (20)",
           f"grant all on {table}, {table}_1, {table}_2 to app",
           "set client_min_messages = error",
           f"select pgtrickle.enable_outbox('{table}', capture => 'statement')",
           *(attacks.TABLE_PLANTS[name].format(t=f"{table}_{n}", w=word) for n in (1, 2)),
           f"create table {table}_3 (id int primary key, n int)",
           attacks.TABLE_PLANTS[name].format(t=f"{table}_3", w=word))
    outbox = outbox_of(land, table)
    with watching(land, "app", SANDBOX, what=word.strip("'")):
        run_as(land, "app", f"insert into {table} values (1, 1), (11, 1)")
        run_as(land, "app", f"truncate {table}_1")
        assert tells_of_truncate(land, table, outbox, deleted=1)
    with watching(land, SANDBOX, what=word.strip("'")):
        run_as(land, "mallory", f"insert into {table}_3 values (21, 1)",
               f"alter table {table} detach partition {table}_2")
        with contextlib.suppress(psycopg.Error):
            run_as(land, "mallory", f"alter table {table} attach partition {table}_3 "
                   "for values from (20) to (30)")
        for role in ("relay_daemon", "boss", "mallory"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, role, "select pgtrickle.relay_housekeeping()")
        for role in ("boss", "mallory"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, role, "select pgtrickle.outbox_capture_upkeep()")
    land.execute(f"drop table {table}, {table}_2 cascade; drop table if exists {table}_3 cascade")


UNREADABLE = {
    "row security": "alter table {p} enable row level security; "
                    "create policy h on {p} using (false)",
    "forced row security": "alter table {p} enable row level security; "
                           "alter table {p} force row level security; "
                           "create policy h on {p} using (id > 5)",
    "no grant to our roles": "revoke all on {p} from pgtrickle_owner, public",
    "another owner": "revoke all on {p} from pgtrickle_owner; alter table {p} owner to eve",
    "an owner who may not read": "revoke all on {p} from pgtrickle_owner, mallory",
}


@pytest.mark.parametrize("why", UNREADABLE)
def test_truncate_of_a_partition_succeeds_whatever_may_be_read(land, why):
    """It is recorded: by the rows, or by what tells a reader that rows are gone."""
    table = "unreadable_" + why.replace(" ", "_")
    run_as(land, "mallory", "set client_min_messages = error",
           f"create table {table} (id int primary key) partition by range (id)",
           f"create table {table}_1 partition of {table} for values from (0) to (10)",
           f"grant all on {table}, {table}_1 to app",
           f"select pgtrickle.enable_outbox('{table}', capture => 'statement')",
           f"insert into {table} values (1), (9)")
    outbox = outbox_of(land, table)
    land.execute(UNREADABLE[why].format(p=f"{table}_1"))
    run_as(land, "app", f"truncate {table}_1")
    assert tells_of_truncate(land, table, outbox, deleted=2)


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
        for statement in MARKS:
            with contextlib.suppress(psycopg.Error):
                run_as(db, role, statement.format(t=table))
    for by in (f"'{table}', null", f"null, 'public.{table}'", f"null, '{table}'"):
        with contextlib.suppress(psycopg.Error):
            run_as(db, "relay_daemon",
                   f"select pgtrickle.relay_open_inbox({by}, 4, null, true, 1)")
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


FORGERIES = ["junk", "9;", "1;9;", "99999999999999;", "-1;", "yes", "1", "[]", "null", "\\",
             '{"2": ["x"]}', "{}|junk", "{}|99999999999999", "|", "{}|2|2|2",
             '{"99999999999": ["00000000-0000-0000-0000-000000000001", 1]}',
             '{"2": ["00000000-0000-0000-0000-000000000001", "1"], "3": [null, null]}|2']
WRITES = ["insert into others values (40)", "insert into plain values (1, 1)",
          "insert into plain values (2, 1), (3, 1)",
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
        rows = [sorted((*row, *(str(sorted(map(str, payload.get(part, []))))
                                for part in ("inserted", "deleted")))
                 for *row, payload in connection.execute(
                     "select tg_op, inserted_count, deleted_count, is_claim_check, payload "
                     f"from pgtrickle.{outbox} where created_at >= transaction_timestamp() "
                     "order by id").fetchall())
                for outbox in ("outbox_plain", "outbox_by_row", "outbox_tree")]
    return failed, rows


# Every setting that our functions read or write: the known names, and those in their sources.
SETTINGS = """
select 'pgtrickle_capture.' || k || outbox_number as name
from pgtrickle.pgt_outbox_config c, unnest(array['s', 'p', 't']) k
where c.kind = 'table'
union select 'pgtrickle.refreshing'
union
select lower(m[1]) from pg_proc p, regexp_matches(
  p.prosrc, '(pgtrickle[a-z_]*\\.[a-z_]+[0-9]*)''', 'g') m
where p.pronamespace = 'pgtrickle'::regnamespace and p.proname ~ '^_capture_[0-9]+_'
"""


def forged_settings(db):
    """[({settings of one kind}, a forged value)]."""
    kinds = {}
    for (name,) in db.execute(SETTINGS):
        kinds.setdefault(name.rstrip("0123456789"), []).append(name)
    return [(kind, names, value) for kind, names in sorted(kinds.items()) for value in FORGERIES]


def test_no_setting_forged_before_hides_or_doubles_a_change_or_makes_a_statement_fail(harbour):
    """As an earlier user of a pooled session may have left it, or the owner of the database."""
    wrong = []
    with harbour.connect() as connection:
        honest = outcome(connection)
        assert honest[0] == [] and all(honest[1])
        for kind, names, value in forged_settings(harbour):
            failed, rows = outcome(connection, [("select set_config(%s, %s, false)", (name, value))
                                                for name in names])
            wrong += [f"{kind} = {value}: {error}" for error in failed]
            if not failed:
                wrong += [f"{kind} = {value}: {set(ours) ^ set(theirs)}"
                          for ours, theirs in zip(honest[1], rows) if ours != theirs]
    assert not wrong, "\n".join(wrong)


def test_no_setting_forged_in_a_statement_hides_another_change(harbour):
    """A function that the statement calls forges the settings after our BEFORE trigger has run."""
    harbour.execute("""
        create or replace function app.forge(value text, names text[]) returns int
        language plpgsql as $$
        declare n text;
        begin
          foreach n in array names loop perform set_config(n, value, true); end loop;
          return 0;
        end $$;
        grant execute on function app.forge to public; grant usage on schema app to public""")
    wrong = []
    with harbour.connect() as connection:
        for kind, names, value in forged_settings(harbour):
            with connection.transaction(force_rollback=True):
                connection.execute("set local session authorization app")
                for table in ("tree", "plain", "by_row"):
                    with contextlib.suppress(psycopg.Error), connection.transaction():
                        connection.execute(f"insert into {table} select 207 + app.forge(%s, %s), 1",
                                           (value, names))
                # What follows is honest.
                connection.execute("reset session authorization")
                for table, statement in (("tree", "insert into tree_2 values (250, 1)"),
                                         ("tree", "insert into tree_eve values (150, 1)"),
                                         ("tree", "truncate tree_eve"),
                                         ("plain", "insert into others values (51)"),
                                         ("plain", "truncate plain")):
                    # What cannot be recorded is noted, for upkeep to heal.
                    count = (f"select (select count(*) from pgtrickle.outbox_{table}), "
                             "(select count(*) from pgtrickle._outbox_misses)")
                    before = connection.execute(count).fetchone()
                    try:
                        with connection.transaction():
                            connection.execute(statement)
                        if connection.execute(count).fetchone() == before:
                            wrong.append(f"{kind} = {value} hides {statement}")
                    except psycopg.Error as error:
                        wrong.append(f"{kind} = {value}, {statement}: {error}"[:150])
    assert not wrong, "\n".join(wrong)


# What administrators of pgtrickle may not do to the outbox of another owner --------------------

# The superuser's outbox, its table, our catalogs, and the treasure's place in them.
TREASURE = """
select 'rows', (select count(*)::text from pgtrickle.outbox_treasure)
union all select 'delta rows', (select count(*)::text from pgtrickle.outbox_delta_rows_treasure)
union all select 'schema history', (select count(*)::text from pgtrickle.relay_schema_history)
union all
select 'catalog', row(c.stream_table_oid, c.outbox_table_name, c.delta_table_name, c.capture,
                      c.key_columns, c.kind, c.source_dropped_at, c.incarnation,
                      c.purged_below)::text
from pgtrickle.pgt_outbox_config c where c.stream_table_name = 'treasure'
union all
select 'of ' || c.relname, concat_ws(' ', c.relowner::regrole, c.relacl)
from pg_class c where c.relnamespace = 'pgtrickle'::regnamespace
  and c.relname in ('outbox_treasure', 'outbox_delta_rows_treasure', 'outbox_treasure_id_seq',
                    'relay_schema_history', 'pgt_outbox_config', 'relay_consumer_offsets')
union all
select 'outbox of ' || c.stream_table_name, '' from pgtrickle.pgt_outbox_config c
where c.stream_table_name = 'treasure_2'
union all
select 'trigger on ' || t.tgrelid::regclass, t.tgname || ' ' || t.tgenabled::text
from pg_trigger t where t.tgrelid::regclass::text in
  ('public.treasure', 'pgtrickle.outbox_treasure', 'pgtrickle.outbox_delta_rows_treasure')
union all
select 'last id', last_value::text from pgtrickle.outbox_treasure_id_seq
"""

# A catalog row of an inbox that says that its table is another table of ours.
FORGED_INBOX = """row('forged', 'pgtrickle', '{table}', '{columns}'::jsonb, true, 3, null, true, true,
  1, null, null, null, now())::pgtrickle.pgt_inbox_config"""
FORGED = [FORGED_INBOX.format(table=table, columns=columns) for table, columns in (
    ("outbox_treasure", '{"event_id": "id", "payload": "payload", "processed_at": "created_at"}'),
    ("relay_schema_history", '{"event_id": "file", "payload": "checksum", "error": "version", '
                             '"processed_at": "installed_at"}'))]
CHAINS = [[f"select pgtrickle.{first}({inbox})", then] for inbox in FORGED
          for first in ("_build_own_inbox", "_build_inbox", "_register_inbox")
          for then in ("select pgtrickle._drop_own_inbox('forged', false)",
                       "select pgtrickle.drop_inbox('forged')",
                       "select pgtrickle.inbox_mark_processed('forged', '1')",
                       "select pgtrickle.replay_inbox_messages('forged', array['1', '2'])",
                       "select pgtrickle.inbox_payload_column('forged', 'x')",
                       "select pgtrickle.relay_housekeeping()",
                       "insert into pgtrickle.outbox_treasure (id, payload) values (4711, '{}')")]
CHAINS += [[f"select pgtrickle.create_inbox('{name}')"] for name in ("treasure", "outbox_treasure")]
CHAINS += [["select pgtrickle.enable_inbox_tracking('forged', 'pgtrickle.outbox_treasure', "
            "'{\"event_id\": \"id\"}')"],
           ["select pgtrickle.relay_open_inbox(null, 'outbox_treasure', 3, null, true, 1)",
            "select pgtrickle.relay_open_inbox(null, 'outbox_treasure', 4, null, true, 1)"]]
CHAINS += [[f"select pgtrickle._capture_relation(1, '{rel}', '{op}', null)"]
           for rel in ("public.mine", "public.secret", "pg_catalog.pg_authid", "public.mine_view")
           for op in ("FULL", "DELETE", "INSERT")]
CHAINS += [["select pgtrickle._outbox_append('outbox_treasure', 'public.mine', gen_random_uuid(), "
            "'FULL', 0, true)"],
           ["select pgtrickle._outbox_create('table', 'public.treasure_2', 'treasure_2', null, 24, "
            "1, 1, false, 'statement')"],
           ["select pgtrickle.publish('treasure', '{}')"],
           ["select pgtrickle.disable_outbox('treasure')"],
           ["select pgtrickle.outbox_full_refresh('treasure')"]]
CHAINS += [[f"select pgtrickle.{f}(c) from pgtrickle.pgt_outbox_config c"]
           for f in ("_upkeep_keys", "_upkeep_dropped", "_upkeep_partitions", "_upkeep_triggers")]
CHAINS += [["""select pgtrickle._upkeep_dropped(jsonb_populate_record(c,
                 '{"stream_table_oid": 1, "stream_table_name": "mine"}')::pgtrickle.pgt_outbox_config)
               from pgtrickle.pgt_outbox_config c"""],
           ["""select pgtrickle._upkeep_keys(jsonb_populate_record(c,
                 '{"key_columns": ["x"], "key_attnums": [2]}'))
               from pgtrickle.pgt_outbox_config c"""]]


def test_no_function_lets_an_administrator_touch_the_outbox_of_another_owner(town, functions):
    """Every function with the treasure's arguments, and chains of calls with forged records."""
    town.execute("set search_path = public")
    run_as(town, "mallory", "create table if not exists mine (op text, ord bigint, row_data jsonb)",
           "insert into mine values ('INSERT', 1, '{\"forged\": true}')",
           "create or replace view mine_view as select * from mine",
           "grant select on mine, mine_view to pgtrickle_owner")
    town.execute("create table if not exists secret (id int); "
                 "create table if not exists treasure_2 (id int)")
    town.execute("create or replace function attack.treasure() returns table (what text, is_ text) "
                 "language sql security definer set search_path = pg_catalog "
                 f"as $t$ {TREASURE} order by 1, 2 $t$")
    unchanged, touched = town.execute("select * from attack.treasure() order by 1, 2"), []
    calls = [([f.statement], [f.values]) for f in functions
             if f.name not in ("set_relay", "set_relay_outbox", "delete_relay")]
    calls += [(chain, [None] * len(chain)) for chain in CHAINS]
    for role in ("mallory", "relay_daemon", "publisher"):
        with town.connect(user=role, options="-c statement_timeout=10s") as connection:
            for statements, values in calls:
                # What a call did shows to the superuser inside the same transaction only.
                with connection.transaction(force_rollback=True):
                    done = []
                    for statement, value in zip(statements, values):
                        with contextlib.suppress(psycopg.Error), connection.transaction():
                            connection.execute(statement, value)
                            done.append(statement)
                    after = seen(connection) if done else unchanged
                    if after != unchanged:
                        calls_made = "; ".join(re.sub(r"(?s)%s.*|row\(.*?pgt_inbox_config", "...", call)
                                               for call in done)
                        touched.append(f"{role}: {calls_made}: {set(after) ^ set(unchanged)}"[:400])
                # No rollback gives a drawn id back.
                unchanged = town.execute("select * from attack.treasure() order by 1, 2")
    assert not touched, "\n".join(touched)


def seen(connection):
    """The state of the treasure in this transaction, seen with all rights."""
    try:
        return connection.execute("select * from attack.treasure() order by 1, 2").fetchall()
    except psycopg.Error as error:
        return [("error", str(error))]


# The gate ------------------------------------------------------------------------------------

TURNED = """
create or replace function pgtrickle_streams.refresh_{id}(action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb) language plpgsql as $f$
begin
  perform attack.ran('refresh function');
  begin
    {deed};
  exception when others then null;
  end;
  return query select 'x'::text, 1::bigint,
    '{{"inserted": 0, "updated": 0, "deleted": 0, "keys": [], "pages": 0}}'::jsonb;
end $f$
"""
DEEDS = ["drop owned by current_user", "drop owned by current_user cascade",
         "reassign owned by current_user to mallory", "alter role current_user login password 'x'",
         "drop function pgtrickle_gate.call_as_creator(bigint, text, jsonb)",
         "alter function pgtrickle_gate.call_as_creator(bigint, text, jsonb) owner to mallory",
         "perform pgtrickle_streams.refresh_1('apply', '{{}}')",
         "alter default privileges grant execute on functions to mallory",
         "create table pgtrickle.planted (id int)", "create table pgtrickle_gate.planted (id int)"]


def test_a_function_that_its_owner_turned_around_cannot_harm_the_gate(pg_server):
    """Made SECURITY INVOKER it runs as the gate's owner: a role that must have nothing to lose."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("select pgtrickle.create_stream_table('honest', 'select id from treasure', "
                   "null)")
        run_as(db, "mallory", "create table src (id int)",
               "select pgtrickle.create_stream_table('hers', 'select id from src', null)")
        db.execute("insert into treasure values (1)")
        harm = []
        for deed in DEEDS:
            for role in ("relay_daemon", "boss"):
                with db.connect() as connection, connection.transaction(force_rollback=True):
                    connection.execute(TURNED.format(id=2, deed=deed.format()))
                    before = dict(connection.execute(attacks.DIGEST))
                    connection.execute(f"set local session authorization {role}")
                    connection.execute("select pgtrickle.refresh_stream_table('hers')")
                    connection.execute("reset session authorization")
                    after = dict(connection.execute(attacks.DIGEST))
                    changed = {name for name in before | after
                               if before.get(name) != after.get(name)}
                    honest = connection.execute("select pgtrickle.refresh_stream_table('honest') "
                                                "->> 'inserted'").fetchone()
                    if changed or honest != ("1",):
                        harm.append(f"{deed} by a refresh of {role}: {changed}, {honest}")
        assert not harm, "\n".join(harm)
    finally:
        db.drop()


# What is left in a session -------------------------------------------------------------------

LEAVE = """
create or replace function {schema}.leave() returns boolean language plpgsql volatile as $$
begin
  begin {deed}; exception when others then null; end;
  return true;
end $$
"""
LEFTOVERS = {
    "temporary table": "create temp table if not exists treasure (id int)",
    "temporary view": "create temp view treasure_v as select 1 as id",
    "temporary function": "create function pg_temp.f() returns int language sql as 'select 1'",
    "prepared statement": "execute 'prepare planted as select 1'",
    "cursor": "execute 'declare planted cursor with hold for select 1'",
    "search_path": "perform set_config('search_path', 'mallory_own, public', false)"}
RESIDUE = """
select 'relation', c.relname::text from pg_class c where c.relnamespace = pg_my_temp_schema()
union all select 'function', p.proname from pg_proc p where p.pronamespace = pg_my_temp_schema()
union all select 'prepared', name from pg_prepared_statements where from_sql
union all select 'cursor', name from pg_cursors where is_holdable
union all select 'search_path', current_setting('search_path')
"""


@pytest.mark.parametrize("what", LEFTOVERS)
def test_nothing_of_an_owner_stays_in_the_session_that_used_its_object(land, what):
    """A refresh, marking a message, purging, a full refresh: none leaves something for later."""
    n = list(LEFTOVERS).index(what)
    run_as(land, "mallory", LEAVE.format(schema="mallory_own", deed=LEFTOVERS[what]),
           f"create table left_{n} (id int)",
           f"select pgtrickle.create_stream_table('stream_left_{n}', "
           f"'select id, mallory_own.leave() as x from left_{n}', null)",
           f"insert into left_{n} values (1)")
    make_inbox(land, f"inbox_left_{n}")
    run_as(land, "mallory", f"alter table inbox_left_{n} add check (mallory_own.leave())",
           f"create table tree_left_{n} (id int primary key) partition by range (id)",
           f"create table tree_left_{n}_1 partition of tree_left_{n} for values from (0) to (9)",
           f"select pgtrickle.enable_outbox('tree_left_{n}')",
           f"insert into tree_left_{n} values (1)",
           f"alter table tree_left_{n}_1 enable row level security, force row level security",
           f"create policy p on tree_left_{n}_1 using (mallory_own.leave())",
           f"grant all on tree_left_{n}_1 to app")
    left = {}
    try:
        for role, statement in (
                ("boss", f"select pgtrickle.refresh_stream_table('stream_left_{n}')"),
                ("boss", f"select pgtrickle.inbox_mark_processed('inbox_left_{n}', 'a')"),
                ("relay_daemon", "select pgtrickle.relay_housekeeping()"),
                ("boss", f"select pgtrickle.outbox_full_refresh('tree_left_{n}')"),
                ("app", f"truncate tree_left_{n}_1")):
            with land.connect(user=role) as connection:
                before = set(connection.execute(RESIDUE).fetchall())
                with contextlib.suppress(psycopg.Error):
                    connection.execute(statement)
                residue = set(connection.execute(RESIDUE).fetchall()) - before
                if residue:
                    left[f"{role}: {statement}"] = residue
    finally:
        land.execute("delete from pgtrickle.pgt_inbox_config where inbox_name = %s",
                     (f"inbox_left_{n}",))
    assert left == {}


# Definitions that change between two writes, or before a write in its transaction --------------

CHANGES = [
    "alter type mood add value 'new'", "update d set m = 'new' where id = 1",
    "alter type mood rename value 'a' to 'aa'", "alter type mood rename to humour",
    "alter type comp add attribute y text", "insert into d values (2, 1, 'aa', '(1,aa,q)')",
    "begin; alter type comp drop attribute y; update d set n = 5; commit",
    "begin; alter table d drop column n; update d set m = 'b'; alter table d add column n text "
    "default 'q'; alter table d rename n to k; update d set k = 'x'; insert into d (id) values (99);"
    " commit",
    "begin; alter table d rename to e; insert into e (id) values (100); create schema s2; "
    "alter table e set schema s2; insert into s2.e (id) values (101); alter schema s2 rename to s3; "
    "insert into s3.e (id) values (102); commit; alter table s3.e rename to d; "
    "alter table s3.d set schema public",
    "begin; alter table d drop column c; drop type comp cascade; insert into d (id) values (103); "
    "commit",
    "begin; alter table d alter m type text using m::text; drop type humour; "
    "insert into d (id, m) values (104, 'free'); commit",
    "create type humour as enum ('free', 'b', 'aa', 'new', 'a', 'z')",
    "begin; alter table d alter m type humour using m::humour; insert into d (id, m) values "
    "(105, 'z'); commit",
    "begin; alter table d rename id to ident; insert into d (ident) select generate_series(200, 210);"
    " delete from d where ident >= 200; commit",
    "begin; alter table d drop constraint d_pkey; alter table d alter ident type text "
    "using ident::text; insert into d (ident) values ('x'); commit",
    "begin; alter table d owner to mallory; insert into d (ident) values ('y'); commit",
    "begin; create type pair as (a int, b humour); alter table d add p pair, add ps pair[]; "
    "insert into d (ident, p, ps) values ('z', '(1,b)', array['(1,b)'::pair]); commit",
    "begin; alter type pair add attribute c int; insert into d (ident, p) values ('zz', '(1,b,3)'); "
    "commit",
    "reassign owned by mallory to eve", "insert into d (ident) values ('w')",
    "copy (select 1) to '/dev/null'",
    "begin; savepoint s; alter table d add gone int; insert into d (ident, gone) values ('r', 1); "
    "rollback to s; insert into d (ident) values ('s'); commit",
    "begin; insert into d (ident) values ('p'); prepare transaction 'rights'",
    "commit prepared 'rights'",
    "begin; set constraints all immediate; insert into d (ident) values ('c'); commit",
    "begin isolation level serializable; insert into d (ident) values ('i'); commit",
    "truncate d", "insert into d (ident) values ('last')"]


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("large", [False, True])
def test_no_change_of_a_definition_makes_a_statement_fail_or_its_record_wrong(pg_server, capture,
                                                                              large):
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        limit = "inline_threshold_rows => 1, inline_threshold_bytes => 1" if large else \
            "inline_threshold_rows => 1000"
        db.execute(f"""
            create type mood as enum ('a', 'b');
            create type comp as (x int, m mood);
            create table d (id int primary key, n int, m mood, c comp);
            select pgtrickle.enable_outbox('d', {limit}, capture => '{capture}');
            insert into d values (1, 1, 'a', '(1,a)')""")
        with db.connect() as connection:
            for change in CHANGES:
                connection.execute(change)
        outbox = db.one("select format('pgtrickle.%I', outbox_table_name) "
                        "from pgtrickle.pgt_outbox_config where stream_table_name = 'd'")
        entries = db.execute(f"""select o.tg_op, o.inserted_count, o.deleted_count,
            (select jsonb_agg(r.row_data order by r.row_num)
             from pgtrickle.outbox_rows('{outbox.split('.')[1]}', o.id) r where r.row_op = 'INSERT')
            from {outbox} o order by o.id""")
        rows = [row for _, _, _, inserted in entries for row in inserted or []]
        assert {"m": "new", "id": 1, "n": 1, "c": {"m": "a", "x": 1}} in rows, rows
        assert [r["m"] for r in rows if r.get("id") in (104, 105)] == ["free", "z"]
        assert [r["ident"] for r in rows if "ident" in r and isinstance(r["ident"], str)] \
            == ["x", "y", "z", "zz", "w", "s", "p", "c", "i", "last"]
        assert [r["p"] for r in rows if r.get("ident") in ("z", "zz")] == [
            {"a": 1, "b": "b"}, {"a": 1, "b": "b", "c": 3}]
        assert [op for op, *_ in entries][-2:] == ["TRUNCATE", "INSERT"]
    finally:
        db.drop()


# Our roles -----------------------------------------------------------------------------------

def test_our_roles_own_and_may_do_no_more_than_they_are_for(town):
    """A role that runs next to code of users must have nothing that the code could use."""
    assert town.execute("""
        select rolname from pg_roles
        where rolname like 'pgtrickle%' and (rolcanlogin or rolsuper or rolcreaterole
              or rolcreatedb or rolreplication or rolbypassrls)""") == []
    assert set(town.execute("""
        select m.member::regrole::text, m.roleid::regrole::text from pg_auth_members m
        where m.member::regrole::text like 'pgtrickle%'""")) <= {
            ("pgtrickle_admin", "pgtrickle_relay"), ("pgtrickle_admin", "pgtrickle_publisher"),
            ("pgtrickle_observer", "pg_read_all_stats"), ("pgtrickle_owner", "pgtrickle_capture")}
    owned = set(town.execute("""
        select d.refobjid::regrole::text, pg_describe_object(d.classid, d.objid, 0)
        from pg_shdepend d
        where d.deptype = 'o' and d.refclassid = 'pg_authid'::regclass
          and d.dbid = (select oid from pg_database where datname = current_database())
          and d.refobjid::regrole::text in ('pgtrickle_capture', 'pgtrickle_sandbox',
                                            'pgtrickle_relay', 'pgtrickle_publisher',
                                            'pgtrickle_admin')"""))
    assert {role for role, _ in owned} == {"pgtrickle_capture", "pgtrickle_sandbox"}
    assert [thing for role, thing in owned if role == "pgtrickle_capture"
            and not thing.startswith("function pgtrickle._capture_")] == []
    assert [thing for role, thing in owned if role == "pgtrickle_sandbox"
            and not thing.startswith("function pgtrickle_gate.call_as_")] == []
    # What runs with rights of ours is never for everybody to call.
    assert town.execute("""
        select p.oid::regprocedure::text from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('pgtrickle', 'pgtrickle_gate')
          and (p.proacl is null or exists (select from aclexplode(p.proacl) a
                                           where a.grantee = 0))""") == []


def test_the_right_to_attach_capture_functions_follows_the_table(harbour):
    """A new owner makes and attaches partitions; the one before, and administrators, may not."""
    harbour.execute("""
        drop table if exists moved cascade;
        create table moved (id int primary key, n int) partition by range (id);
        create table moved_1 partition of moved for values from (0) to (10);
        grant usage on schema pgtrickle to eve;
        alter table moved owner to mallory; alter table moved_1 owner to mallory""")
    run_as(harbour, "mallory", "select pgtrickle.enable_outbox('moved', capture => 'statement')")
    number = harbour.one("select outbox_number from pgtrickle.pgt_outbox_config "
                         "where stream_table_name = 'moved'")
    run_as(harbour, "mallory",
           "create table moved_2 partition of moved for values from (10) to (20)")
    harbour.execute("alter table moved owner to eve; alter table moved_1 owner to eve; "
                    "alter table moved_2 owner to eve")
    run_as(harbour, "relay_daemon", "select pgtrickle.relay_housekeeping()",
           "select pgtrickle.relay_housekeeping()")
    harbour.execute("select pgtrickle.outbox_capture_upkeep()")
    run_as(harbour, "eve", "create table moved_3 partition of moved for values from (20) to (30)",
           "create table moved_4 (id int primary key, n int)",
           "alter table moved attach partition moved_4 for values from (30) to (40)",
           "insert into moved values (1, 1), (11, 1), (21, 1), (31, 1)",
           "insert into moved_3 values (22, 1)", "update moved_4 set n = 2", "delete from moved")
    seen = {row["id"] for (payload,) in harbour.execute(
        "select payload from pgtrickle.outbox_moved order by id") for row in payload["inserted"]}
    assert seen >= {1, 11, 21, 22, 31}
    harbour.execute("drop table if exists hers; create table hers (id int, n int); "
                    "alter table hers owner to mallory")
    allowed = []
    for what in ("row", "insert", "truncate"):
        for role in ("mallory", "app"):
            if harbour.one("select has_function_privilege(%s, %s, 'execute')",
                           (role, f"pgtrickle._capture_{number}_{what}()")):
                allowed.append((role, what))
    assert allowed == []
    harbour.execute("drop table moved cascade")


# A table of the superuser's with parts of others -------------------------------------------------

def test_the_owner_of_a_partition_runs_nothing_as_the_owner_of_the_table(pg_server):
    """What a reader's plan evaluates (indexes, statistics), and what a purge fires."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create table bt (id int primary key, n int) partition by range (id);
            create table bt_1 partition of bt for values from (0) to (10);
            create table bt_2 partition of bt for values from (10) to (20);
            create table box (event_id text primary key, payload jsonb, processed_at timestamptz,
                              error text, retry_count int) partition by list (event_id);
            create table box_1 partition of box default;
            alter table bt_1 owner to mallory; alter table bt_2 owner to mallory;
            alter table box_1 owner to mallory;
            set client_min_messages = error;
            select pgtrickle.enable_outbox('bt', capture => 'statement');
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into bt values (1, 1), (11, 1);
            insert into box (event_id, retry_count) values ('a', 0), ('b', 0), ('c', 0)""")
        with watching(db, SANDBOX):
            for table in ("bt_1", "bt_2", "box_1"):
                run_as(db, "mallory",
                       f"create index on {table} ((attack.immutable('index of a partition')))",
                       f"create index on {table} ({'n' if table != 'box_1' else 'error'}) "
                       "where attack.immutable('predicate of a partition')",
                       f"create statistics s_{table} on (attack.immutable('statistics')), "
                       f"{'id' if table != 'box_1' else 'event_id'} from {table}",
                       f"create trigger evil before update or delete on {table} for each row "
                       "execute function attack.row_trigger('trigger of a partition')")
            run_as(db, "mallory", "truncate bt_1")
            for role in ("clerk", "relay_daemon", "boss"):
                for statement in ("select pgtrickle.inbox_mark_failed('box', 'a', 'no')",
                                  "select pgtrickle.inbox_mark_processed('box', 'b')",
                                  "select pgtrickle.replay_inbox_messages('box', '{b}')",
                                  "select pgtrickle.inbox_health('box')",
                                  "select pgtrickle.relay_housekeeping()",
                                  "select pgtrickle.outbox_capture_upkeep()"):
                    with contextlib.suppress(psycopg.Error):
                        run_as(db, role, statement)
            run_as(db, "mallory", "update box_1 set processed_at = now() - interval '9 hours'")
            with contextlib.suppress(psycopg.Error):
                run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
            db.execute("alter table bt detach partition bt_2")
            for role in ("relay_daemon", "mallory"):
                with contextlib.suppress(psycopg.Error):
                    run_as(db, role, "select pgtrickle.relay_housekeeping()")
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_the_owner_of_a_type_runs_nothing_as_the_owner_of_an_inbox(pg_server):
    """A check that a domain gets after the superuser's table became an inbox."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create schema eve authorization eve; grant usage on schema eve to public;
            set role eve;
            create domain eve.id as text; create domain eve.note as text;
            create domain eve.count as int; create domain eve.moment as timestamptz;
            reset role;
            create table box (event_id eve.id primary key, payload jsonb, processed_at eve.moment,
                              error eve.note, retry_count eve.count default 0);
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into box (event_id) values ('a'), ('b'), ('c')""")
        run_as(db, "eve", *(f"alter domain eve.{domain} add check (attack.ran('of a {domain}'))"
                            for domain in ("id", "note", "count", "moment")))
        with watching(db, SANDBOX):
            for role in ("clerk", "relay_daemon"):
                for statement in ("select pgtrickle.inbox_mark_failed('box', 'a', 'no')",
                                  "select pgtrickle.inbox_mark_processed('box', 'b')",
                                  "select pgtrickle.replay_inbox_messages('box', '{b}')",
                                  "select pgtrickle.inbox_health('box')",
                                  "select pgtrickle.relay_housekeeping()"):
                    with contextlib.suppress(psycopg.Error):
                        run_as(db, role, statement)
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_no_function_of_the_sandbox_outlives_the_call_that_made_it(pg_server):
    """Otherwise its maker could drop the gate later, where nothing looks."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        run_as(db, "mallory", "create table src (id int)",
               "grant create, usage on schema mallory_own to public",
               "select pgtrickle.create_stream_table('hers', 'select id from src', null)")
        db.execute("alter default privileges in schema mallory_own grant execute on functions "
                   "to public")
        run_as(db, "mallory", TURNED.format(id=1, deed="""
            create function mallory_own.later() returns void language plpgsql security definer as
              'begin drop owned by pgtrickle_sandbox; end'"""))
        run_as(db, "boss", "select pgtrickle.refresh_stream_table('hers')")
        before = db.execute(attacks.DIGEST)
        with contextlib.suppress(psycopg.Error):
            run_as(db, "mallory", "select mallory_own.later()")
        assert set(db.execute(attacks.DIGEST)) == set(before)
        assert db.one("select count(*) from pg_proc p "
                      "join pg_namespace n on n.oid = p.pronamespace where p.proowner = 'pgtrickle_sandbox'::regrole "
                      "and n.nspname <> 'pgtrickle_gate'") == 0
    finally:
        db.drop()


# Snapshots that are older than the table's columns ---------------------------------------------

@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_write_under_an_old_snapshot_succeeds_and_runs_no_cast(pg_server, isolation):
    """The columns, their types' casts and our catalog changed after the snapshot was taken."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute(attacks.TYPES)
        db.execute("""
            create table d (id int primary key, n int);
            create table by_row (like d including all);
            create table tree (like d including all) partition by range (id);
            create table tree_1 partition of tree for values from (0) to (10);
            alter table d owner to boss; alter table by_row owner to boss;
            alter table tree owner to boss; alter table tree_1 owner to boss;
            set client_min_messages = error;
            select pgtrickle.enable_outbox('d'),
                   pgtrickle.enable_outbox('by_row', capture => 'row'),
                   pgtrickle.enable_outbox('tree', capture => 'statement');
            insert into tree values (1, 1);
            grant all on d, by_row, tree, tree_1 to app""")
        db.execute(attacks.CASTS)
        with watching(db) as watch:
            first, second = (db.connect(user="app", options="-c lock_timeout=5s")
                             for _ in range(2))
            with first, second:
                for connection in (first, second):
                    connection.execute(f"begin isolation level {isolation}")
                    connection.execute("select count(*) from pg_class")
                # What housekeeping does all the time, and a migration at any time.
                db.execute("""
                    update pgtrickle.pgt_outbox_config set last_drained_at = clock_timestamp();
                    alter table d add m eve.mood default 'sad';
                    alter table by_row add m eve.mood default 'sad';
                    alter table tree add m eve.mood default 'sad'""")
                for id_, connection in enumerate((first, second)):
                    connection.execute(f"insert into d (id) values ({id_})")
                    connection.execute(f"insert into by_row (id) values ({id_})")
                    connection.execute(f"insert into tree (id) values ({id_ + 5})")
                second.execute("rollback")
                first.execute("truncate tree_1")
                first.execute("commit")
            assert watch.ran() == set()
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_a_table_that_references_an_inbox_runs_nothing_as_its_owner(pg_server):
    """Up to PostgreSQL 17 AFTER triggers of a cascade run as the role that deletes."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create table box (event_id text primary key, payload jsonb, processed_at timestamptz,
                              error text, retry_count int default 0);
            grant references on box to mallory;
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into box (event_id, processed_at) values ('a', now() - interval '9 hours')""")
        run_as(db, "mallory", "create table hers (event_id text references box on delete cascade)",
               "create trigger evil after delete on hers for each row "
               "execute function attack.row_trigger('cascade')",
               "create trigger evil_too after delete on hers for each statement "
               "execute function attack.statement_trigger('cascade')",
               "insert into hers values ('a')")
        with watching(db, SANDBOX):
            run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
            run_as(db, "clerk", "select pgtrickle.relay_housekeeping()")
    finally:
        db.execute(attacks.UNDO)
        db.drop()
