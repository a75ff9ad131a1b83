"""What administrators of pgtrickle may not do to outboxes and inboxes of other owners, what a changed
function of the gate cannot do, and what an owner's code leaves in a session."""

import contextlib
import re

import psycopg
import pytest

from support import attacks
from support.trapped_database import TURNED, functions, land, make_inbox, run_as, seen, town


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
from pgtrickle_internal.outbox_config c where c.stream_table_name = 'treasure'
union all
select 'of ' || c.relname, concat_ws(' ', c.relowner::regrole, c.relacl)
from pg_class c where c.relnamespace = any ('{pgtrickle,pgtrickle_internal}'::regnamespace[])
  and c.relname in ('outbox_treasure', 'outbox_delta_rows_treasure', 'outbox_treasure_id_seq',
                    'relay_schema_history', 'outbox_config', 'relay_consumer_offsets')
union all
select 'outbox of ' || c.stream_table_name, '' from pgtrickle_internal.outbox_config c
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
CHAINS = [[f"select pgtrickle_internal.{first}({inbox})", then] for inbox in FORGED
          for first in ("build_own_inbox", "build_inbox", "register_inbox")
          for then in ("select pgtrickle_internal.drop_own_inbox('forged', false)",
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
CHAINS += [[f"select pgtrickle_internal.capture_relation(1, '{rel}', '{op}', null)"]
           for rel in ("public.mine", "public.secret", "pg_catalog.pg_authid", "public.mine_view")
           for op in ("FULL", "DELETE", "INSERT")]
CHAINS += [["select pgtrickle_internal.outbox_append('outbox_treasure', 'public.mine', gen_random_uuid(), "
            "'FULL', 0, true)"],
           ["select pgtrickle_internal.outbox_create('table', 'public.treasure_2', 'treasure_2', null, 24, "
            "1, 1, false, 'statement')"],
           ["select pgtrickle.publish('treasure', '{}')"],
           ["select pgtrickle.disable_outbox('treasure')"],
           ["select pgtrickle.outbox_full_refresh('treasure')"]]
CHAINS += [[f"select pgtrickle_internal.{f}(c) from pgtrickle_internal.outbox_config c"]
           for f in ("upkeep_keys", "upkeep_dropped", "upkeep_partitions", "upkeep_triggers")]
CHAINS += [["""select pgtrickle_internal.upkeep_dropped(jsonb_populate_record(c,
                 '{"stream_table_oid": 1, "stream_table_name": "mine"}')::pgtrickle_internal.outbox_config)
               from pgtrickle_internal.outbox_config c"""],
           ["""select pgtrickle_internal.upkeep_keys(jsonb_populate_record(c,
                 '{"key_columns": ["x"], "key_attnums": [2]}'))
               from pgtrickle_internal.outbox_config c"""]]


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
