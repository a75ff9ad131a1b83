"""A database full of traps: code of users that must not run with rights of ours."""

import psycopg
import pytest

from support import attacks


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


# Arguments with which each function that users call does something. A function that is not here
# makes the test fail: say how it is called.
CALLS = {
    "adopt_outbox": dict(table="public.letters", name="again", payload="body",
                         filter='{"about": 1}'),
    "alter_stream_table": dict(name="public.totals", schedule="2s"),
    "cleanup_change_feed": dict(table="public.fed", older_than="0 s"),
    "create_change_feed": dict(table="public.plain"),
    "create_inbox": dict(name="parcels"),
    "create_outbox": dict(name="jewels"),
    "create_stream_table": dict(name="public.fresh", query="select id from public.treasure"),
    "delete_relay": dict(name="forward"),
    "disable_outbox": dict(name="public.treasure"),
    "disable_relay": dict(name="forward"),
    "drop_change_feed": dict(table="public.fed"),
    "create_publication": dict(table="public.treasure", where="id > 1"),
    "drop_publication": dict(table="public.published"),
    "drop_inbox": dict(name="mail"),
    "drop_stream_table": dict(name="public.totals"),
    "enable_inbox_tracking": dict(name="found", table_name="public.findable"),
    "enable_outbox": dict(name="public.plain"),
    "enable_relay": dict(name="forward"),
    "get_relay_config": dict(name="forward"),
    "commit_offset": dict(group="crowd", consumer="a", last_offset=1),
    "consumer_heartbeat": dict(group="crowd", consumer="a"),
    "consumer_lag": dict(group="crowd"),
    "consumer_rows": dict(group="crowd", outbox_id=1),
    "consumer_snapshot": dict(group="crowd"),
    "create_consumer_group": dict(name="another", outbox="treasure", owner="clerk"),
    "drop_consumer_group": dict(name="crowd"),
    "extend_lease": dict(group="crowd", consumer="a"),
    "poll_outbox": dict(group="crowd", consumer="a"),
    "reject_offset": dict(group="crowd", consumer="a", outbox_id=1, error="no"),
    "seek_offset": dict(group="crowd", consumer="a", new_offset=0),
    "inbox_health": dict(name="post"),
    "inbox_mark_failed": dict(name="post", event_id="a", error="no"),
    "inbox_mark_processed": dict(name="post", event_id="a"),
    "inbox_payload_column": dict(inbox="mail", name="member"),
    "inbox_status": dict(),
    "list_relay_configs": dict(),
    "my_change": dict(outbox="public.treasure"),
    "outbox_capture_upkeep": dict(),
    "outbox_full_refresh": dict(name="public.treasure"),
    "outbox_rows": dict(stream_table="public.treasure", outbox_id=1),
    "outbox_rows_consumed": dict(stream_table="public.treasure", outbox_id=1),
    "outbox_status": dict(name="public.treasure"),
    "pause_relay": dict(name="forward"),
    "promote_stream_table": {"name": "public.totals", "from": "public.sums"},
    "publish": dict(outbox="crown", payload="{}", idempotency_key="k"),
    "rebind_outbox": dict(name="public.treasure"),
    "refresh_stream_table": dict(name="public.totals"),
    "relay_adopted_count": dict(incarnation="@adopted", after=0),
    "relay_adopted_first": dict(incarnation="@adopted", after=0),
    "relay_adopted_commit": dict(relay_group="g", pipeline="forward", incarnation="@adopted",
                                 owner_token="@uuid", change_id=1, mark=None, history="1/1"),
    "relay_adopted_look": dict(relay_group="g", pipeline="forward", incarnation="@adopted",
                               passed=1, passed_mark="@uuid", frontier=1, known="1/1"),
    "relay_adopted_rows": dict(incarnation="@adopted", after=0, until=9, most=9),
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
    "relay_refresh_stream_table": dict(name="public.totals"),
    "relay_commit_snapshot": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=1, mark=None, skipped=None,
                                  skipped_mark=None, progress=None),
    "relay_snapshot_ahead": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                 owner_token="@uuid", ahead='{"id": 1}'),
    "relay_snapshot_changes": dict(incarnation="@incarnation", ids="{1,2,3}", everything=False,
                                   bound='{"id": 1}'),
    "relay_snapshot_claim": dict(incarnation="@incarnation", outbox_id=1, after_row=0, most=9,
                                 max_bytes=9999, everything=False, bound='{"id": 1}'),
    "relay_snapshot_open": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                owner_token="@uuid"),
    "relay_snapshot_page": dict(incarnation="@incarnation", after='{"id": 1}', until=None, most=9,
                                max_bytes=9999, max_record_bytes=9999),
    "relay_snapshot_plan": dict(incarnation="@incarnation", change_id=0, mark=None, skipped=None,
                                skipped_mark=None, max_rows=9, max_bytes=9999),
    "relay_watch_capture": dict(seen=None),
    "relay_outbox_name_holds": dict(incarnation="@incarnation", named_schema="public",
                                    named_table="treasure"),
    "relay_pipeline_outbox": dict(name="public.treasure", relay_group="g", pipeline="forward"),
    "relay_open_inbox": dict(inbox_name="later", inbox_table=None, max_retries=3, schedule=None,
                             with_dead_letter=True, retention_hours=5),
    "relay_check": dict(),
    "relay_differences": dict(),
    "relay_instances_now": dict(),
    "relay_payload_text": dict(payload="abc"),
    "relay_pipelines_now": dict(),
    "relay_open_alerts": dict(),
    "relay_open_writers": dict(outbox="pgtrickle.outbox_treasure"),
    "relay_resolve_outbox": dict(name="public.treasure"),
    "relay_write_feed": dict(feed="feed_fed", relay_group="feeds", pipeline="feed:public.fed",
                             incarnation="@fed", owner_token="@uuid", after_id=None, after_row=None,
                             outbox_ids="{1}", row_nums="{1}", actions="{I}", keys="{null}",
                             new_rows='{"{}"}', old_rows="{null}"),
    "relay_rewind_position": dict(relay_group="g", pipeline="forward", incarnation="@incarnation",
                                  owner_token="@uuid", change_id=0, row_num=0, pgt_id="@uuid"),
    "replay_inbox_messages": dict(name="post", event_ids="{a,b}"),
    "replay_relay": dict(name="forward", from_id=1),
    "resume_relay": dict(name="forward"),
    "set_relay": dict(name="bridge", config='{"source": {"type": "outbox", "outbox": "treasure"}, '
                                            '"sink": {"type": "stdout"}}'),
    "set_relay_inbox": dict(name="backward", config='{"source_type": "nats", '
                                                    '"nats_url": "nats://x", "nats_stream": "s", '
                                                    '"inbox_name": "mail"}',
                            inbox="mail", source='{"type": "stdin"}'),
    "set_relay_outbox": dict(name="other", config='{"sink_type": "stdout", '
                                                  '"stream_table": "treasure"}',
                             outbox="treasure", group="g", sink='{"type": "stdout"}'),
    "stream_tables_due": dict(),
    "take_over_relay": dict(from_group="g", to_group="h"),
    "wait_for_consumer": dict(name="crowd", id=1, timeout="0"),
}

# What is called in a REPEATABLE READ transaction.
ONE_SNAPSHOT = {"consumer_snapshot", "relay_snapshot_changes", "relay_snapshot_claim",
                "relay_snapshot_page", "relay_snapshot_plan"}

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
           "report": '{"errors": [], "warnings": []}', "feed": "feed_fed", "table_name": "fed"}
BY_TYPE = {"text": "x", "integer": 1, "bigint": 1, "boolean": True, "jsonb": "{}", "text[]": "{x}",
           "uuid": "@uuid", "regclass": "public.treasure", "oid": "@treasure", "interval": "1 s",
           "regclass[]": "{public.treasure}", "smallint": 1, "numeric": 1, "json": "{}", "record": None, "xid8": "1",
           "timestamp with time zone": "2030-01-01", "pgtrickle_internal.outbox_config": "@outbox",
           "pgtrickle_internal.change_feeds": "@feed", "pgtrickle.pgt_inbox_config": "@inbox", "pgtrickle_internal.stream_tables": "@stream"}

FUNCTIONS = """
select n.nspname, p.proname, p.oid::regprocedure::text, p.prorettype::regtype::text,
       array(select (p.proargnames)[i] from generate_series(1, p.pronargs) i),
       array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u (t, o)
             order by o),
       p.pronargs - p.pronargdefaults
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname like 'pgtrickle%' and p.prokind = 'f' order by 1, 2, 3
"""


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
                type_ = "pgtrickle_internal.outbox_config"
            elif "." not in type_:
                type_ = {"integer": "pg_catalog.int4", "bigint": "pg_catalog.int8",
                         "text[]": "pg_catalog.text[]", "bigint[]": "pg_catalog.int8[]",
                         "smallint": "pg_catalog.int2",
                         "boolean": "pg_catalog.bool",
                         "timestamp with time zone": "pg_catalog.timestamptz"
                         }.get(type_, "pg_catalog." + type_)
            arguments.append(f'"{name}" => %s::{type_}' if name else f"%s::{type_}")
        self.statement = (f'select * from "{self.schema}"."{self.name}"({", ".join(arguments)})'
                          if self.returns != "record" else
                          f'select "{self.schema}"."{self.name}"({", ".join(arguments)})')

    @property
    def public(self):
        return self.schema == "pgtrickle"

    def call(self, connection):
        """Calls it and takes all back; its SQLSTATE, '00000' where it succeeded."""
        try:
            with connection.transaction(force_rollback=True):
                if self.name in ONE_SNAPSHOT:
                    connection.execute("set transaction isolation level repeatable read")
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
        create table letters (id bigint generated always as identity primary key, about int,
                              body jsonb);
        insert into letters (about, body) values (1, '{"a": 1}');
        create table findable (event_id text primary key, payload jsonb, processed_at timestamptz,
                               error text, retry_count int);
        create table post (like findable including all);
        create table fed (like plain including all);
        insert into post (event_id) values ('a');
        grant usage on schema pgtrickle, pgtrickle_internal, pgtrickle_streams, pgtrickle_gate
          to app;
        select pgtrickle.adopt_outbox('letters', payload => 'body');
        select pgtrickle.create_inbox('mail');
        select pgtrickle.enable_inbox_tracking('post', 'public.post');
        select pgtrickle.create_stream_table('totals', 'select id, n from treasure');
        select pgtrickle.create_stream_table('sums', 'select id, n + 1 as n from treasure');
        create table published (id int primary key);
        select pgtrickle.create_publication('published');
        select pgtrickle.set_relay_outbox('forward',
          '{"sink_type": "stdout", "stream_table": "treasure"}', true);
        select pgtrickle.create_change_feed('fed');
        update pgtrickle.relay_consumer_offsets
        set owner_token = '00000000-0000-0000-0000-000000000001' where relay_group_id = 'feeds';
        select pgtrickle.create_consumer_group('crowd', 'treasure', 'earliest');
        select from pgtrickle.poll_outbox('crowd', 'a', visibility_seconds => 3600);
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
        "@adopted": town.one("select incarnation::text from pgtrickle.pgt_outbox_config "
                             "where kind = 'adopted'"),
        "@fed": town.one("select incarnation::text from pgtrickle.pgt_outbox_config "
                         "where stream_table_name = 'fed'"),
        "@feed": town.one("select f::text from pgtrickle_internal.change_feeds f"),
        "@uuid": "00000000-0000-0000-0000-000000000001",
        "@dead_letter": town.one("select id from pgtrickle.relay_dlq"),
        "@treasure": town.one("select 'public.treasure'::regclass::oid"),
        "@outbox": town.one("select c::text from pgtrickle.pgt_outbox_config c "
                            "where stream_table_name = 'treasure'"),
        "@inbox": town.one("select c::text from pgtrickle.pgt_inbox_config c "
                           "where inbox_name = 'post'"),
        "@stream": town.one("select c::text from pgtrickle.pgt_stream_tables c "
                            "where pgt_name = 'totals'")}
    return [Function(row, stand_ins) for row in town.execute(FUNCTIONS)
            if row[3] != "trigger"]


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
        grant usage on schema pgtrickle, pgtrickle_internal, pgtrickle_streams, pgtrickle_gate
          to app, eve;
        create schema app authorization app""")
    yield db
    db.drop()


def seen(connection):
    """The state of the treasure in this transaction, seen with all rights."""
    try:
        return connection.execute("select * from attack.treasure() order by 1, 2").fetchall()
    except psycopg.Error as error:
        return [("error", str(error))]


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
