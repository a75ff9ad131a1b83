"""Databases as earlier versions installed them, with data in every table."""

import gzip
import os
import re
import subprocess

import psycopg
from psycopg.types.json import Jsonb

from .relay import run_command

EARLIER = os.path.join(os.path.dirname(__file__), "..", "earlier")
# The files of sql/, one behind the other: 1 is the last version whose functions were not all pinned
# and whose installer took over what it found, 2 the last one before migrations were numbered, 5 the
# one of migration 5, with adopted outboxes and consumer groups.
VERSIONS = (1, 2, 5)

FILL = """
create table orders (id int primary key, name text, amount numeric);
create table parts (id int, part int, body text, primary key (id, part)) partition by list (part);
create table parts_1 partition of parts for values in (1);
create table parts_2 partition of parts for values in (2);
create table keyed (id int primary key, n int);
create table swapped (id int primary key deferrable initially deferred, n int);
create table adopted (event_id text primary key, payload jsonb, processed_at timestamptz,
                      error text, retry_count int default 0);
select pgtrickle.enable_outbox('orders');
select pgtrickle.enable_outbox('parts', capture => 'statement');
select pgtrickle.enable_outbox('keyed', inline_threshold_rows => 3, capture => 'row');
select pgtrickle.enable_outbox('swapped');
select pgtrickle.create_outbox('events');
select pgtrickle.create_inbox('letters');
select pgtrickle.enable_inbox_tracking('adopted', 'adopted');
insert into orders select i, 'row ' || i, i from generate_series(1, 20) i;
update orders set amount = amount + 1 where id <= 5;
delete from orders where id = 20;
insert into parts select i, 1 + i % 2, 'x' from generate_series(1, 10) i;
update parts set part = 3 - part where id < 4;
insert into keyed select i, i from generate_series(1, 9) i;
insert into swapped values (1, 1), (2, 2);
select pgtrickle.publish('events', '{"a": 1}', idempotency_key => 'one');
select pgtrickle.create_stream_table('totals', 'select id, n from keyed', null, 'AUTO', '{id}');
select pgtrickle.enable_outbox('totals');
select pgtrickle.refresh_stream_table('totals');
insert into pgtrickle.inbox_letters (event_id, payload) values ('a', '{}'), ('b', '{}');
insert into adopted (event_id, payload) values ('c', '{}');
insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, payload, error_class)
values ('default', 'rows', 'm', 'x', 'poison');
insert into pgtrickle.relay_replays (pipeline, from_id, next_id, number, finished_at)
values ('rows', 1, 2, 1, clock_timestamp());
insert into pgtrickle.relay_pipeline_control (pipeline, paused) values ('back', true);
insert into pgtrickle.relay_pipeline_status (relay_group_id, pipeline, state)
values ('default', 'back', 'paused');
insert into pgtrickle.relay_instances (relay_group_id, worker_id) values ('default', 'gone');
"""

FILL_OF_GROUPS = """
select pgtrickle.create_consumer_group('readers', 'events', 'earliest', slots => 4);
select pgtrickle.commit_offset('readers', 'one', (select max(outbox_id)
                                                  from pgtrickle.poll_outbox('readers', 'one')));
select pgtrickle.create_consumer_group('beginners', 'orders', 'latest');
"""

# What is there in each table that the fill writes, under names of every version.
COUNTS = {
    "orders": "select count(*), sum(inserted_count + deleted_count) from pgtrickle.outbox_orders",
    "parts": "select count(*), sum(inserted_count + deleted_count) from pgtrickle.outbox_parts",
    "keyed": "select count(*), sum(inserted_count + deleted_count) from pgtrickle.outbox_keyed",
    "claim checks": "select count(*) from pgtrickle.outbox_delta_rows_totals",
    "events": "select count(*), min(idempotency_key) from pgtrickle.outbox_events",
    "outboxes": "select outbox_table_name, incarnation, stream_table_oid, purged_below "
                "from pgtrickle.pgt_outbox_config order by 1",
    "stream tables": "select pgt_name, pgt_relid, schedule from pgtrickle.pgt_stream_tables",
    "refreshes": "select refresh_id, action from pgtrickle.pgt_refresh_history order by 1",
    "inboxes": "select inbox_name, table_schema, table_name from pgtrickle.pgt_inbox_config order by 1",
    "letters": "select event_id, processed_at from pgtrickle.inbox_letters order by 1",
    "dead letters": "select id, message_id, payload from pgtrickle.relay_dlq",
    "positions": "select pipeline_id, incarnation, last_change_id from pgtrickle.relay_consumer_offsets "
                 "order by 1",
    "replays": "select pipeline, number, next_id from pgtrickle.relay_replays",
    "control": "select pipeline, paused from pgtrickle.relay_pipeline_control",
    "pipelines": "select * from pgtrickle.list_relay_configs() order by 1",
}

EMPTY = """
select pgtrickle.disable_outbox(t) from unnest(array['orders', 'parts', 'keyed', 'swapped', 'totals',
                                                     'events']) t;
select pgtrickle.drop_stream_table('totals');
select pgtrickle.drop_inbox(i) from unnest(array['letters', 'adopted']) i;
select pgtrickle.delete_relay(name) from pgtrickle.list_relay_configs();
drop table orders, parts, keyed, swapped, adopted;
select pgtrickle_internal.source_sequences_sweep();
"""


def install_version(dsn, version):
    """As the role of the dsn."""
    path = os.path.join(EARLIER, f"schema-{version}.sql.gz")
    with gzip.open(path, "rt", encoding="utf-8") as source, psycopg.connect(dsn) as connection:
        connection.execute(source.read())


def fill(dsn, out):
    """Data in every table; the pipeline `rows` writes the outbox of orders into the file `out`, and
    has delivered its first row."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(FILL)
        if owner.execute("select to_regclass('pgtrickle_internal.consumer_groups')").fetchone()[0]:
            owner.execute(FILL_OF_GROUPS)
        owner.execute("select pgtrickle.set_relay_outbox('rows', %s, true)", (Jsonb(
            {"source": {"type": "outbox", "outbox": "orders"},
             "sink": {"type": "file", "path": str(out)}}),))
        owner.execute("select pgtrickle.set_relay_inbox('back', %s)", (Jsonb(
            {"source": {"type": "stdin"}, "sink": {"type": "inbox", "inbox_name": "letters"}}),))
        owner.execute("select pgtrickle.set_relay('across', %s)", (Jsonb(
            {"source": {"type": "stdin"}, "sink": {"type": "stdout"}}),))
        owner.execute("""
            insert into pgtrickle.relay_consumer_offsets
              (relay_group_id, pipeline_id, incarnation, last_change_id, last_pgt_id)
            select 'default', 'rows', c.incarnation, o.id, o.pgt_id
            from pgtrickle.pgt_outbox_config c, pgtrickle.outbox_orders o
            where c.outbox_table_name = 'outbox_orders' order by o.id limit 1""")


def empty(dsn):
    """Takes away all that the fill has made."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        for statement in EMPTY.split(";\n"):
            owner.execute(statement)


def counts(dsn):
    with psycopg.connect(dsn) as connection:
        return {what: connection.execute(query).fetchall() for what, query in COUNTS.items()}


# Everything that a dump would have, for servers that are newer than the pg_dump of this machine.
DEFINITIONS = """
with ours as (select oid, nspname from pg_namespace where nspname like 'pgtrickle%'),
acl (class, id, acl) as (
  select 'pg_class'::regclass::oid, c.oid, c.relacl from pg_class c
  union all select 'pg_proc'::regclass, p.oid, p.proacl from pg_proc p
  union all select 'pg_namespace'::regclass, n.oid, n.nspacl from pg_namespace n),
granted as (select class, id, (select string_agg(g::text, ' ' order by g::text) from unnest(acl) g) g
            from acl)
select 'schema', n.nspname, s.nspowner::regrole::text, g.g
from ours n join pg_namespace s on s.oid = n.oid left join granted g on g.id = n.oid
  and g.class = 'pg_namespace'::regclass
union all
select 'relation ' || c.relkind::text, c.oid::regclass::text, c.relowner::regrole::text,
       concat_ws(' ', g.g, c.relpersistence, c.reloptions, obj_description(c.oid, 'pg_class'))
from pg_class c join ours n on n.oid = c.relnamespace
left join granted g on g.id = c.oid and g.class = 'pg_class'::regclass
where c.relkind in ('r', 'p', 'v', 'm', 'S')
union all
select 'column', c.oid::regclass::text, a.attname,
       concat_ws(' ', (select count(*) from pg_attribute b where b.attrelid = c.oid and b.attnum > 0
                         and b.attnum <= a.attnum and not b.attisdropped),
                 format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attacl,
                 pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
from pg_class c join ours n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind in ('r', 'p', 'v', 'm')
union all
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(k.oid)
from pg_constraint k join ours n on n.oid = k.connamespace
union all
select 'index', indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
from pg_index i join pg_class c on c.oid = i.indexrelid join ours n on n.oid = c.relnamespace
union all
select 'view', c.oid::regclass::text, '', pg_get_viewdef(c.oid)
from pg_class c join ours n on n.oid = c.relnamespace where c.relkind = 'v'
union all
select 'sequence', s.seqrelid::regclass::text, '', concat_ws(' ', s.seqtypid::regtype, s.seqcache,
                                                            s.seqincrement, s.seqcycle)
from pg_sequence s join pg_class c on c.oid = s.seqrelid join ours n on n.oid = c.relnamespace
union all
select 'trigger', tgrelid::regclass::text, tgname, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
from pg_trigger t join pg_class c on c.oid = t.tgrelid join ours n on n.oid = c.relnamespace
where not tgisinternal
union all
select 'function', p.oid::regprocedure::text, p.proowner::regrole::text,
       concat_ws(' ', g.g, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'))
from pg_proc p join ours n on n.oid = p.pronamespace
left join granted g on g.id = p.oid and g.class = 'pg_proc'::regclass
union all
select 'cast', castsource::regtype::text, casttarget::regtype::text, castcontext::text
from pg_cast where castsource >= 16384
"""


def dump(server, dsn):
    """The definitions of our schemas: from the catalog, and as pg_dump writes them where it can."""
    with psycopg.connect(dsn) as connection:
        connection.execute("set search_path = pg_catalog")
        lines = [" | ".join(map(str, row)) for row in connection.execute(DEFINITIONS)]
        version = connection.info.server_version // 10000
    says = subprocess.run([f"{server.bin}/pg_dump", "--version"], capture_output=True, text=True,
                          check=True).stdout
    if int(re.search(r"(\d+)", says)[1]) < version:
        return lines
    done = subprocess.run([f"{server.bin}/pg_dump", "-s", "-d", dsn, "--schema=pgtrickle*"],
                          capture_output=True, text=True, check=True)
    return lines + [line for line in done.stdout.splitlines()
                    if line and not line.startswith(("--", "\\"))]


WRITTEN = {
    "types": "select * from pgtrickle.relay_types order by 1, 2",
    "options": "select * from pgtrickle.relay_options order by 1, 2, 3",
    "files": "select file, checksum, version from pgtrickle.relay_schema_history order by 1",
    "migrations": "select number, name, checksum, program from pgtrickle_internal.migrations order by 1",
    "superseded": "select object from pgtrickle_internal.superseded",
    "round": "select only_one from pgtrickle_internal.housekeeping_round",
}


def written(dsn):
    """What init writes into tables."""
    with psycopg.connect(dsn) as connection:
        return {what: connection.execute(query).fetchall() for what, query in WRITTEN.items()}


def init(dsn):
    return run_command("init", env={"PGTRICKLE_RELAY_POSTGRES_URL": dsn})


def installed(dsn):
    done = init(dsn)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
