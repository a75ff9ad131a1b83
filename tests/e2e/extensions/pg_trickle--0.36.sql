-- Stand-in for pg_trickle 0.28 to 0.45: stream tables; outboxes, inboxes and the relay's catalog
-- under the names that pgtrickle-relay uses.

create schema pgtrickle;
grant usage on schema pgtrickle to public;

-- ---------------------------------------------------------------------------------------------
-- Stream tables

create table pgtrickle.pgt_stream_tables (
  pgt_id          bigint generated always as identity primary key,
  pgt_relid       oid not null unique,
  pgt_schema      text not null,
  pgt_name        text not null,
  defining_query  text not null,
  schedule        text,
  refresh_mode    text not null check (refresh_mode in ('AUTO', 'FULL', 'DIFFERENTIAL')),
  status          text not null default 'ACTIVE',
  is_populated    boolean not null default false,
  data_timestamp  timestamptz,
  last_refresh_at timestamptz
);

create table pgtrickle.pgt_refresh_history (
  refresh_id     bigint generated always as identity primary key,
  pgt_id         bigint not null,
  data_timestamp timestamptz not null,
  start_time     timestamptz not null,
  end_time       timestamptz,
  action         text not null check (action in ('FULL', 'DIFFERENTIAL')),
  rows_inserted  bigint,
  rows_deleted   bigint,
  status         text not null check (status in ('RUNNING', 'COMPLETED', 'FAILED')),
  error_message  text
);

create function pgtrickle._named(name text) returns pgtrickle.pgt_stream_tables
language plpgsql stable
as $$
declare
  st pgtrickle.pgt_stream_tables;
begin
  select * into st from pgtrickle.pgt_stream_tables s where s.pgt_relid = to_regclass(name);
  if not found then
    raise exception 'stream table not found: %', name using errcode = 'undefined_object';
  end if;
  return st;
end $$;

-- Writes the difference between the table and its query as a user would: triggers fire.
create function pgtrickle._refresh_differential(st pgtrickle.pgt_stream_tables, out inserted bigint,
                                                out deleted bigint)
language plpgsql
as $$
declare
  stream_table constant text := st.pgt_relid::regclass;
  now_there constant text :=
    'select t as r, t::text as v, row_number() over (partition by t::text) as n '
    'from pg_temp.pgt_now t';
begin
  execute format('create temp table pgt_now on commit drop as %s', st.defining_query);
  execute format(
    'delete from %1$s where ctid in ('
    '  select o.id from (select t.ctid as id, t::text as v,'
    '                           row_number() over (partition by t::text) as n from %1$s t) o'
    '  where not exists (select from (%2$s) w where w.v = o.v and w.n = o.n))',
    stream_table, now_there);
  get diagnostics deleted = row_count;
  execute format(
    'insert into %1$s select (w.r).* from (%2$s) w '
    'where not exists (select from (select t::text as v,'
    '                                      row_number() over (partition by t::text) as n'
    '                               from %1$s t) o where w.v = o.v and w.n = o.n)',
    stream_table, now_there);
  get diagnostics inserted = row_count;
  drop table pg_temp.pgt_now;
end $$;

-- Writes all rows anew, with the triggers that users made switched off meanwhile. Afterwards they
-- fire on ORIGIN, whatever they were before.
create function pgtrickle._refresh_full(st pgtrickle.pgt_stream_tables, out inserted bigint,
                                        out deleted bigint)
language plpgsql
as $$
declare
  stream_table constant text := st.pgt_relid::regclass;
begin
  execute format('alter table %s disable trigger user', stream_table);
  execute format('select count(*) from %s', stream_table) into deleted;
  execute format('truncate %s', stream_table);
  execute format('insert into %s %s', stream_table, st.defining_query);
  get diagnostics inserted = row_count;
  execute format('alter table %s enable trigger user', stream_table);
end $$;

create function pgtrickle.refresh_stream_table(name text) returns void
language plpgsql
as $$
declare
  st constant pgtrickle.pgt_stream_tables := pgtrickle._named(name);
  how constant text := case when st.is_populated and st.refresh_mode <> 'FULL'
                            then 'DIFFERENTIAL' else 'FULL' end;
  started constant timestamptz := clock_timestamp();
  refresh bigint;
  done record;
begin
  insert into pgtrickle.pgt_refresh_history (pgt_id, data_timestamp, start_time, action, status)
  values (st.pgt_id, now(), started, how, 'RUNNING') returning refresh_id into refresh;
  if how = 'FULL' then
    select * into done from pgtrickle._refresh_full(st);
  else
    select * into done from pgtrickle._refresh_differential(st);
  end if;
  update pgtrickle.pgt_refresh_history
  set status = 'COMPLETED', end_time = clock_timestamp(), rows_inserted = done.inserted,
      rows_deleted = done.deleted
  where refresh_id = refresh;
  update pgtrickle.pgt_stream_tables
  set is_populated = true, data_timestamp = now(), last_refresh_at = clock_timestamp()
  where pgt_id = st.pgt_id;
end $$;

create function pgtrickle.create_stream_table(
  name text, query text, schedule text default '1m', refresh_mode text default 'AUTO',
  initialize boolean default true) returns void
language plpgsql
as $$
begin
  execute format('create table %s as %s with no data', name, query);
  insert into pgtrickle.pgt_stream_tables
    (pgt_relid, pgt_schema, pgt_name, defining_query, schedule, refresh_mode)
  select c.oid, n.nspname, c.relname, query, create_stream_table.schedule,
         create_stream_table.refresh_mode
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = name::regclass;
  if initialize then
    perform pgtrickle.refresh_stream_table(name);
  end if;
end $$;

create function pgtrickle.alter_stream_table(
  name text, schedule text default null, refresh_mode text default null, status text default null)
returns void
language plpgsql
as $$
declare
  st constant pgtrickle.pgt_stream_tables := pgtrickle._named(name);
begin
  update pgtrickle.pgt_stream_tables s
  set schedule = coalesce(alter_stream_table.schedule, s.schedule),
      refresh_mode = coalesce(alter_stream_table.refresh_mode, s.refresh_mode),
      status = coalesce(alter_stream_table.status, s.status)
  where s.pgt_id = st.pgt_id;
end $$;

create function pgtrickle.drop_stream_table(name text) returns void
language plpgsql
as $$
declare
  st constant pgtrickle.pgt_stream_tables := pgtrickle._named(name);
begin
  execute format('drop table %s', st.pgt_relid::regclass);
  delete from pgtrickle.pgt_stream_tables where pgt_id = st.pgt_id;
end $$;

-- ---------------------------------------------------------------------------------------------
-- What 0.46 no longer has: outboxes, inboxes, and the relay's catalog. Functions only record what
-- they were called with.

create table pgtrickle.pgt_outbox_config (
  stream_table_oid  oid primary key,
  stream_table_name text not null,
  outbox_table_name text not null,
  retention_hours   int not null default 24
);
create table pgtrickle.pgt_inbox_config (
  inbox_name      text primary key,
  schema_name     text not null default 'pgtrickle',
  retention_hours int not null default 72
);
create table pgtrickle.relay_outbox_config (
  name    text primary key,
  enabled boolean not null default false,
  config  jsonb not null
);
create table pgtrickle.relay_inbox_config (
  name    text primary key,
  enabled boolean not null default false,
  config  jsonb not null
);
create table pgtrickle.relay_consumer_offsets (
  relay_group_id text not null,
  pipeline_id    text not null,
  last_change_id bigint not null default 0,
  worker_id      text,
  updated_at     timestamptz not null default now(),
  primary key (relay_group_id, pipeline_id)
);

create function pgtrickle.enable_outbox(name text, retention_hours int default 24) returns void
language sql
as $$
  insert into pgtrickle.pgt_outbox_config
  select c.oid, c.relname, 'outbox_' || c.relname, $2 from pg_class c where c.oid = $1::regclass;
$$;
create function pgtrickle.disable_outbox(name text, if_exists boolean default false) returns void
language sql
as $$ delete from pgtrickle.pgt_outbox_config where stream_table_oid = $1::regclass; $$;
create function pgtrickle.outbox_status(name text) returns jsonb
language sql stable
as $$
  select to_jsonb(c) from pgtrickle.pgt_outbox_config c where c.stream_table_oid = $1::regclass;
$$;

create function pgtrickle.set_relay_outbox(name text, config jsonb, enabled boolean default true)
returns void
language sql
as $$
  insert into pgtrickle.relay_outbox_config values ($1, $3, $2)
  on conflict on constraint relay_outbox_config_pkey
  do update set enabled = excluded.enabled, config = excluded.config;
$$;
create function pgtrickle.set_relay_inbox(name text, config jsonb, enabled boolean default true)
returns void
language sql
as $$
  insert into pgtrickle.relay_inbox_config values ($1, $3, $2)
  on conflict on constraint relay_inbox_config_pkey
  do update set enabled = excluded.enabled, config = excluded.config;
$$;
create function pgtrickle.enable_relay(name text) returns void
language sql
as $$
  update pgtrickle.relay_outbox_config c set enabled = true where c.name = $1;
  update pgtrickle.relay_inbox_config c set enabled = true where c.name = $1;
$$;
create function pgtrickle.disable_relay(name text) returns void
language sql
as $$
  update pgtrickle.relay_outbox_config c set enabled = false where c.name = $1;
  update pgtrickle.relay_inbox_config c set enabled = false where c.name = $1;
$$;
create function pgtrickle.delete_relay(name text) returns void
language sql
as $$
  delete from pgtrickle.relay_outbox_config c where c.name = $1;
  delete from pgtrickle.relay_inbox_config c where c.name = $1;
$$;
create function pgtrickle.list_relay_configs()
returns table (name text, direction text, enabled boolean, config jsonb)
language sql stable
as $$
  select c.name, 'forward', c.enabled, c.config from pgtrickle.relay_outbox_config c
  union all
  select c.name, 'reverse', c.enabled, c.config from pgtrickle.relay_inbox_config c;
$$;
create function pgtrickle.get_relay_config(name text)
returns table (name text, direction text, enabled boolean, config jsonb)
language sql stable
as $$ select * from pgtrickle.list_relay_configs() c where c.name = $1; $$;

create function pgtrickle.create_inbox(name text, schema text default 'pgtrickle') returns void
language sql
as $$ insert into pgtrickle.pgt_inbox_config values ($1, $2); $$;
create function pgtrickle.drop_inbox(name text, if_exists boolean default false) returns void
language sql
as $$ delete from pgtrickle.pgt_inbox_config where inbox_name = $1; $$;
create function pgtrickle.enable_inbox_tracking(name text, "table" text) returns void
language sql
as $$
  insert into pgtrickle.pgt_inbox_config
  select $1, n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = $2::regclass;
$$;
create function pgtrickle.inbox_health(name text) returns jsonb
language sql stable
as $$ select to_jsonb(c) from pgtrickle.pgt_inbox_config c where c.inbox_name = $1; $$;
create function pgtrickle.inbox_status(name text default null)
returns setof pgtrickle.pgt_inbox_config
language sql stable
as $$
  select * from pgtrickle.pgt_inbox_config c where c.inbox_name = coalesce($1, c.inbox_name);
$$;
create function pgtrickle.replay_inbox_messages(name text, event_ids text[]) returns bigint
language sql
as $$ select 0::bigint; $$;
