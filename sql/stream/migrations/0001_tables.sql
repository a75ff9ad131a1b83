-- The tables of postgres-stream.

create sequence if not exists pgstream.events_seq;

-- The events, by UTC day (functions/210_partitions.sql). Within a transaction they are in the order
-- of `seq`.
create table if not exists pgstream.events (
  id uuid not null,
  payload jsonb not null,
  metadata jsonb,
  stream_id bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  xid xid8 not null default pg_current_xact_id(),
  lsn pg_lsn not null default pg_current_wal_insert_lsn(),
  seq bigint not null default nextval('pgstream.events_seq'),
  primary key (created_at, id)
) partition by range (created_at);
create index if not exists events_xid_seq on pgstream.events (xid, seq);

-- Events of days that have no partition.
create table if not exists pgstream.events_overflow (
  like pgstream.events including defaults including constraints,
  primary key (created_at, id)
);
create index if not exists events_overflow_xid_seq on pgstream.events_overflow (xid, seq);

create table if not exists pgstream.streams (
  id bigint primary key,
  on_error text not null default 'keep' check (on_error in ('keep', 'raise', 'log')),
  next_maintenance_at timestamptz not null default now(),
  failover_checkpoint_id uuid,
  failover_checkpoint_ts timestamptz,
  recorded_lsn pg_lsn,
  settled_snapshot pg_snapshot,
  settled_also xid8[] not null default '{}',
  round_snapshot pg_snapshot,
  round_seq bigint not null default -1,
  last_n bigint not null default 0,
  slot_name name,
  publication_oid oid,
  system_identifier bigint,
  timeline int,
  owner uuid
);

-- Users cast row(...) to this type: it gets no further columns.
create table if not exists pgstream.subscriptions (
  id uuid not null default gen_random_uuid() primary key,
  key text not null,
  stream_id bigint not null,
  operation text not null,
  schema_name text not null,
  table_name text not null,
  when_clause text,
  column_names text[],
  metadata jsonb,
  payload_extensions jsonb default '[]',
  unique (stream_id, key, schema_name, table_name, operation)
);

-- The tables that are or were subscribed to. `part` is the part of the names of functions that
-- stands for the table.
create table if not exists pgstream._tables (
  schema_name text not null,
  table_name text not null,
  part text not null unique,
  primary key (schema_name, table_name)
);

-- One row, which each change of subscriptions updates: one at a time, and none with a snapshot that
-- does not show the change before it.
create table if not exists pgstream._changes (
  only_row boolean primary key default true check (only_row),
  n bigint not null default 0
);
insert into pgstream._changes default values on conflict do nothing;

-- What a subscription was compiled to, and for which owner of the table.
create table if not exists pgstream._subscriptions (
  stream_id bigint not null,
  key text not null,
  schema_name text not null,
  table_name text not null,
  operation text not null,
  owner_name name not null,
  revision text not null,
  condition_sql text,
  condition_may_fail boolean not null,
  columns text[] not null,
  payload_sql text not null,
  other_types_sql text not null,
  primary key (stream_id, key, schema_name, table_name, operation)
);

-- The transactions that wait to be replayed, in the order of their commits.
create table if not exists pgstream.backlog (
  stream_id bigint not null references pgstream.streams (id) on delete cascade,
  n bigint not null,
  xid xid8 not null,
  events bigint not null,
  primary key (stream_id, n)
);

-- The columns are those of pgtrickle.relay_dlq: the same code of the daemon writes both.
create table if not exists pgstream.dead_letters (
  id bigint generated always as identity primary key,
  relay_group_id text not null,
  pipeline text not null,
  message_id text not null,
  subject text,
  key text,
  op text,
  payload bytea,
  content_type text,
  headers jsonb,
  outbox_id bigint,
  error_class text,
  error_code text,
  error_message text,
  attempts int not null default 1,
  first_failed_at timestamptz not null default clock_timestamp(),
  last_failed_at timestamptz not null default clock_timestamp(),
  retry_requested_at timestamptz,
  resolved_at timestamptz,
  resolution text
);
create unique index if not exists dead_letters_unresolved
  on pgstream.dead_letters (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''),
                            coalesce(md5(key), ''), coalesce(md5(op), ''))
  where resolved_at is null;

-- Changes whose event could not be made.
create table if not exists pgstream.failed_events (
  id bigint generated always as identity primary key,
  stream_id bigint not null,
  key text not null,
  schema_name text not null,
  table_name text not null,
  operation text not null,
  new_row jsonb,
  old_row jsonb,
  happened_at timestamptz not null default now(),
  failed_at timestamptz not null default clock_timestamp(),
  attempts int not null default 1,
  in_condition boolean not null,
  error_code text not null,
  error_message text not null
);
create index if not exists failed_events_of_subscription
  on pgstream.failed_events (stream_id, key, schema_name, table_name, operation, id);
