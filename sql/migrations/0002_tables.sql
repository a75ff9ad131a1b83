-- The tables. An installation of a version before migrations were numbered has most of them, and gets
-- here what it lacks.

-- ---------------------------------------------------------------------------------------------
-- Locks

-- Tasks that only one transaction at a time may do. A row here is locked, not an advisory lock: any
-- role may take an advisory lock, and could keep the relays out with it.
create table if not exists pgtrickle_internal.locks (name text primary key);
comment on table pgtrickle_internal.locks is
  'One row for each thing that one transaction at a time may do; locked by lock and try_lock';

-- ---------------------------------------------------------------------------------------------
-- The gate

create table if not exists pgtrickle_gate.secret (
  only_one boolean primary key default true check (only_one),
  value    bytea not null
);
comment on table pgtrickle_gate.secret is
  'What the keys of the gate''s functions are made from; readable by pgtrickle_owner alone';

revoke all on pgtrickle_gate.secret from public;
do $$
begin
  if (select relowner from pg_catalog.pg_class where oid = 'pgtrickle_gate.secret'::regclass)
     <> 'pgtrickle_owner'::regrole then
    alter table pgtrickle_gate.secret owner to pgtrickle_owner;
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Pipelines

create table if not exists pgtrickle.relay_config (
  name               text primary key,
  direction          text not null check (direction in ('forward', 'reverse', 'bridge')),
  enabled            boolean not null default false,
  config             jsonb not null,
  outbox_name        text,
  created_at         timestamptz not null default clock_timestamp(),
  updated_at         timestamptz not null default clock_timestamp(),
  enabled_changed_at timestamptz not null default clock_timestamp()
);
comment on table pgtrickle.relay_config is
  'All pipelines: from an outbox (forward), into an inbox (reverse), from any source to any sink '
  '(bridge); written by set_relay_outbox, set_relay_inbox and set_relay';
comment on column pgtrickle.relay_config.outbox_name is
  'The outbox that the pipeline reads, as its configuration names it';

-- The first version had a table for each direction, under the names that are views now, and a view of
-- all three below relay_pipelines. What roles could do to the tables they can do to the views
-- (functions/100_relay_catalog.sql defines these in full).
do $$
declare
  t record;
  noted record;
begin
  for t in
    select v.*, format('pgtrickle.%I', v.name) as place
    from (values ('relay_outbox_config', 'forward'), ('relay_inbox_config', 'reverse'),
                 ('relay_bridge_config', 'bridge')) as v (name, direction)
    join pg_catalog.pg_class c on c.relname = v.name and c.relkind = 'r'
                              and c.relnamespace = 'pgtrickle'::regnamespace
  loop
    execute format('lock table %s in access exclusive mode', t.place);
    execute format('insert into pgtrickle.relay_config (name, direction, enabled, config, '
                   'outbox_name, created_at, updated_at, enabled_changed_at) '
                   'select name, %L, enabled, config, outbox_name, created_at, updated_at, '
                   'enabled_changed_at from %s', t.direction, t.place);
    execute format('alter table %s rename to %I', t.place, 'former_' || t.name);
    execute format('create view %s as select name, enabled, config, outbox_name, created_at, '
                   'updated_at, enabled_changed_at from pgtrickle.relay_config '
                   'where direction = %L', t.place, t.direction);
    perform pgtrickle_internal.replace_by_view(
      format('pgtrickle.%I', 'former_' || t.name)::regclass, t.place::regclass);
    for noted in
      select a.attname as name, pg_catalog.col_description(a.attrelid, a.attnum) as says
      from pg_catalog.pg_attribute a
      where a.attrelid = format('pgtrickle.%I', 'former_' || t.name)::regclass and a.attnum > 0
    loop
      execute format('comment on column %s.%I is %L', t.place, noted.name, noted.says);
    end loop;
  end loop;
  if to_regclass('pgtrickle._relay_catalog') is not null then
    create or replace view pgtrickle.relay_pipelines as
      select name, direction, enabled,
             config - array['retention_hours', 'retention_hold_hours', 'max_hold_hours',
                            'max_hold_bytes'] as config,
             updated_at, xmin as row_version
      from pgtrickle.relay_config;
    drop view pgtrickle._relay_catalog;
    drop table pgtrickle.former_relay_outbox_config, pgtrickle.former_relay_inbox_config,
      pgtrickle.former_relay_bridge_config;
  end if;
end $$;
drop function if exists pgtrickle_internal.replace_by_view(regclass, regclass);

-- ---------------------------------------------------------------------------------------------
-- Types and options

create table if not exists pgtrickle.relay_types (
  side         text not null check (side in ('source', 'sink')),
  name         text not null,
  position     int not null,
  aliases      text[] not null,
  related      text[] not null,
  reads_outbox boolean not null,
  primary key (side, name)
);
comment on table pgtrickle.relay_types is
  'The types of sources and sinks that the installed program knows (written by init)';
comment on column pgtrickle.relay_types.related is
  'Types whose prefixes the options of this one may have too';

create table if not exists pgtrickle.relay_options (
  side          text not null check (side in ('pipeline', 'retention', 'source', 'sink')),
  type          text not null,
  name          text not null,
  position      int not null,
  aliases       text[] not null,
  kind          text not null,
  minimum       numeric not null,
  maximum       numeric not null,
  choices       text[] not null,
  required      boolean not null,
  secret        boolean not null,
  nested        text not null,
  one_of        text not null,
  also_in       text not null,
  plain         boolean not null,
  no_reference  boolean not null,
  default_value text not null,
  meaning       text not null,
  primary key (side, type, name)
);
comment on table pgtrickle.relay_options is
  'The options of pipelines that the installed program knows (written by init)';
comment on column pgtrickle.relay_options.nested is
  'Where it may stand in the nested form: retry.min';
comment on column pgtrickle.relay_options.one_of is
  'Exactly one option of those of this type with this mark must be given';
comment on column pgtrickle.relay_options.also_in is
  'The end inside which it may stand as well: sink, or outbox_source';
comment on column pgtrickle.relay_options.plain is
  'The flat form has it without the prefix of its type';
comment on column pgtrickle.relay_options.no_reference is
  'The database reads it as well: it cannot be a reference';

-- ---------------------------------------------------------------------------------------------
-- Positions

create table if not exists pgtrickle.relay_consumer_offsets (
  relay_group_id text not null,
  pipeline_id    text not null,
  incarnation    uuid not null,
  last_change_id bigint not null default 0,
  last_row       bigint not null default 0,
  last_pgt_id    uuid,
  owner_token    uuid,
  worker_id      text,
  lost_rows      bigint not null default 0,
  updated_at     timestamptz not null default clock_timestamp(),
  seen_at        timestamptz not null default clock_timestamp(),
  skipped        int8multirange,
  skipped_mark   uuid,
  outbox_name    text,
  primary key (relay_group_id, pipeline_id, incarnation)
);
alter table pgtrickle.relay_consumer_offsets add column if not exists skipped int8multirange;
alter table pgtrickle.relay_consumer_offsets add column if not exists skipped_mark uuid;
alter table pgtrickle.relay_consumer_offsets add column if not exists outbox_name text;
comment on table pgtrickle.relay_consumer_offsets is
  'How far each pipeline of each group has read each outbox; incarnation tells an outbox from a '
  'later one of the same name';
comment on column pgtrickle.relay_consumer_offsets.seen_at is
  'When housekeeping last saw a living relay behind this position (to the hour)';
comment on column pgtrickle.relay_consumer_offsets.lost_rows is
  'Rows that retention deleted although this pipeline had not read them, because it no longer held '
  'them back; at most that many where they were gone before it began';
comment on column pgtrickle.relay_consumer_offsets.outbox_name is
  'By which name the pipeline means this outbox; null: not known';
comment on column pgtrickle.relay_consumer_offsets.skipped is
  'Ids beyond the position that are not delivered: they were published before a start at "latest"';
comment on column pgtrickle.relay_consumer_offsets.skipped_mark is
  'pgt_id of the row that has the highest id of skipped (of a table in another database: any value); '
  'null: that id was still to come';

-- ---------------------------------------------------------------------------------------------
-- Leases

create unlogged table if not exists pgtrickle.relay_lease_sessions (
  token          uuid primary key,
  relay_group_id text not null,
  worker_id      text not null,
  backend_pid    int not null,
  lease_timeout  interval not null check (lease_timeout > interval '0'),
  opened_at      timestamptz not null default clock_timestamp(),
  renewed_at     timestamptz not null default clock_timestamp()
);
comment on table pgtrickle.relay_lease_sessions is
  'The relays that may own something; written by functions only. A row is deleted when its relay '
  'is gone, or did not renew it for lease_timeout';

create unlogged table if not exists pgtrickle.relay_leases (
  kind           text not null check (kind in ('pipeline', 'leader', 'housekeeping')),
  relay_group_id text not null,
  name           text not null,
  token          uuid not null references pgtrickle.relay_lease_sessions on delete cascade,
  taken_at       timestamptz not null default clock_timestamp(),
  primary key (kind, relay_group_id, name)
);
create index if not exists relay_leases_token on pgtrickle.relay_leases (token);
comment on table pgtrickle.relay_leases is
  'Who owns what; written by functions only. Pipelines and leadership belong to a group, '
  'housekeeping to the database';

-- ---------------------------------------------------------------------------------------------
-- Dead letters

create table if not exists pgtrickle.relay_dlq (
  id                 bigint generated always as identity primary key,
  relay_group_id     text not null,
  pipeline           text not null,
  message_id         text not null,
  subject            text,
  key                text,
  op                 text,
  payload            bytea,
  content_type       text,
  headers            jsonb,
  outbox_id          bigint,
  error_class        text,
  error_code         text,
  error_message      text,
  attempts           int not null default 1,
  first_failed_at    timestamptz not null default clock_timestamp(),
  last_failed_at     timestamptz not null default clock_timestamp(),
  retry_requested_at timestamptz,
  resolved_at        timestamptz,
  resolution         text
);
comment on table pgtrickle.relay_dlq is
  'Messages that could not be delivered; resolved_at is null while something is left to do';
drop index if exists pgtrickle.relay_dlq_unresolved;
drop index if exists pgtrickle.relay_dlq_unresolved_id;
create unique index if not exists relay_dlq_unresolved_message
  on pgtrickle.relay_dlq (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''),
                          coalesce(md5(key), ''), coalesce(md5(op), ''))
  where resolved_at is null;
create index if not exists relay_dlq_retry_requested
  on pgtrickle.relay_dlq (pipeline, id)
  where resolved_at is null and retry_requested_at is not null;
drop index if exists pgtrickle.relay_dlq_pipeline_key;
create index if not exists relay_dlq_pipeline_key_digest
  on pgtrickle.relay_dlq (relay_group_id, pipeline, md5(key)) where resolved_at is null;
create index if not exists relay_dlq_resolved
  on pgtrickle.relay_dlq (resolved_at) where resolved_at is not null;

-- ---------------------------------------------------------------------------------------------
-- Relays and requests to them

create table if not exists pgtrickle.relay_instances (
  relay_group_id   text not null,
  worker_id        text not null,
  hostname         text,
  pid              int,
  lock_backend_pid int,
  version          text,
  started_at       timestamptz not null default clock_timestamp(),
  heartbeat_at     timestamptz not null default clock_timestamp(),
  primary key (relay_group_id, worker_id)
);
comment on table pgtrickle.relay_instances is 'The relays that run, with their heartbeats';

create table if not exists pgtrickle.relay_pipeline_status (
  relay_group_id text not null,
  pipeline       text not null,
  worker_id      text,
  state          text not null check (state in ('starting', 'idle', 'running', 'retrying', 'paused',
                                                'misconfigured', 'stopped', 'standby')),
  error_class    text,
  last_error     text,
  remedy         text,
  last_change_id bigint,
  lag            bigint,
  since          timestamptz not null default clock_timestamp(),
  updated_at     timestamptz not null default clock_timestamp(),
  primary key (relay_group_id, pipeline)
);
comment on table pgtrickle.relay_pipeline_status is
  'How each pipeline fares: owner, state since when, last error and its remedy, position and lag';

create table if not exists pgtrickle.relay_pipeline_control (
  pipeline    text primary key,
  paused      boolean not null default false,
  accept_loss boolean not null default false,
  updated_at  timestamptz not null default clock_timestamp()
);
comment on table pgtrickle.relay_pipeline_control is
  'What operators asked: accept_loss is for one start, and the relay takes it back';

create table if not exists pgtrickle.relay_replays (
  id           bigint generated always as identity primary key,
  pipeline     text not null,
  from_id      bigint not null,
  to_id        bigint,
  next_id      bigint not null,
  number       int not null,
  requested_at timestamptz not null default clock_timestamp(),
  finished_at  timestamptz,
  error        text,
  unique (pipeline, number)
);
comment on table pgtrickle.relay_replays is
  'Rows that a pipeline sends a second time on request; their message ids end in :r<number>';

-- ---------------------------------------------------------------------------------------------
-- Outboxes

create table if not exists pgtrickle_internal.outbox_config (
  outbox_number          int generated by default as identity primary key,
  stream_table_oid       oid unique,
  stream_table_schema    text,
  stream_table_name      text not null,
  outbox_table_name      text not null unique,
  outbox_oid             oid,
  outbox_sequence        text not null,
  delta_table_name       text,
  latest_view_name       text not null,
  incarnation            uuid not null unique default gen_random_uuid(),
  kind                   text not null check (kind in ('stream_table', 'table', 'events')),
  capture                text not null
                         check (capture in ('statement', 'row', 'refresh', 'publish')),
  key_columns            text[],
  key_attnums            smallint[],
  retention_hours        int not null default 24,
  inline_threshold_rows  int not null default 10000,
  inline_threshold_bytes bigint not null default 1048576,
  notify                 boolean not null default false,
  purged_below           bigint not null default 0,
  last_drained_at        timestamptz,
  last_drained_count     bigint,
  last_consumed_id       bigint,
  last_consumed_at       timestamptz,
  source_dropped_at      timestamptz,
  problem                text,
  created_at             timestamptz not null default clock_timestamp(),
  columns_digest         text,
  reader                 text,
  first_key_columns      text[]
);
alter table pgtrickle_internal.outbox_config add column if not exists columns_digest text;
alter table pgtrickle_internal.outbox_config add column if not exists reader text;
alter table pgtrickle_internal.outbox_config add column if not exists first_key_columns text[];
update pgtrickle_internal.outbox_config c set first_key_columns = coalesce(c.key_columns, '{}')
where c.first_key_columns is null;
comment on table pgtrickle_internal.outbox_config is
  'All outboxes: what each one records, how, and under which names';
comment on column pgtrickle_internal.outbox_config.stream_table_name is
  'The name in subjects and envelopes: the table''s name when the outbox was made (a rename of the '
  'table does not change it), or the name given to create_outbox';
comment on column pgtrickle_internal.outbox_config.incarnation is
  'Differs for an outbox that was dropped and made again, so that it inherits no position';
comment on column pgtrickle_internal.outbox_config.first_key_columns is
  'What the key columns were called when the outbox was made. A row whose payload has no key_columns '
  'has them under these names';
comment on column pgtrickle_internal.outbox_config.key_attnums is
  'The key columns as the table numbers them, to follow renames';
comment on column pgtrickle_internal.outbox_config.capture is
  'statement: one outbox row a statement; row: one a changed row; refresh: by a stream table''s '
  'refresh; publish: by publish()';
comment on column pgtrickle_internal.outbox_config.source_dropped_at is
  'Since when the table is known to be gone; the outbox goes when its rows are gone';
comment on column pgtrickle_internal.outbox_config.problem is
  'What keeps this outbox from equalling its table, and what to do; null when all is well';
comment on column pgtrickle_internal.outbox_config.columns_digest is
  'The columns that the capture functions were written for (pgtrickle_json.digest)';
comment on column pgtrickle_internal.outbox_config.reader is
  'The function in pgtrickle_streams that reads the table as its owner';

-- Transactions in which upkeep has locked tables as their owners: the lock then says nothing about the
-- caller. A row is deleted by the next such transaction.
create table if not exists pgtrickle_internal.outbox_lent_locks (
  xid xid8 primary key
);

-- The rows that open transactions have written into outboxes of tables whose key is checked at the end
-- of the transaction only. Rows outlive their transaction only where it became READ ONLY.
create unlogged table if not exists pgtrickle_internal.outbox_deferred (
  n             bigint generated always as identity primary key,
  outbox_number int not null,
  xid           xid8 not null,
  outbox_id     bigint not null,
  pgt_id        uuid not null
);

-- Changes that could not be recorded: upkeep makes a full refresh of each outbox that is named here, or
-- says in its `problem` what to do. Rows are only added by the transactions of applications, so that
-- none of them waits or fails.
create table if not exists pgtrickle_internal.outbox_misses (
  outbox_number int not null,
  why           text not null,
  missed_at     timestamptz not null default clock_timestamp(),
  id            bigint generated always as identity primary key
);

-- Outboxes whose whole table a transaction is truncating at this moment: the parts need no record
-- then. A row lives as long as the statement.
create table if not exists pgtrickle_internal.outbox_truncations (
  outbox_number int not null,
  xid           xid8 not null,
  primary key (outbox_number, xid)
);

create table if not exists pgtrickle_internal.outbox_signatures (
  outbox_number int primary key references pgtrickle_internal.outbox_config on delete cascade,
  server        text not null,
  columns       jsonb not null,
  storage       jsonb not null,
  triggers      jsonb not null,
  wanted        text
);
comment on table pgtrickle_internal.outbox_signatures is
  'What the tables of outboxes were when the outboxes last equalled them';
comment on column pgtrickle_internal.outbox_signatures.wanted is
  'Why a full refresh is needed that upkeep leaves to the owner of the table';

-- The partitions that are known to have their triggers.
create table if not exists pgtrickle_internal.outbox_partitions (
  outbox_number int not null references pgtrickle_internal.outbox_config on delete cascade,
  relid         oid not null,
  place         text not null,
  primary key (outbox_number, relid)
);

-- The last look at who was writing to an outbox: once none of the holders is left, everything up to
-- look_to is settled. delta_left: rows of claim checks that are gone wait to be deleted.
create table if not exists pgtrickle_internal.outbox_looks (
  incarnation uuid primary key,
  settled_to  bigint not null default 0,
  look_to     bigint,
  holders     text[],
  looked_at   timestamptz,
  delta_left  boolean not null default false
);

-- ---------------------------------------------------------------------------------------------
-- Housekeeping

-- The state of the round through all outboxes: the last one visited, and whether work is left.
create table if not exists pgtrickle_internal.housekeeping_round (
  only_one    boolean primary key default true check (only_one),
  after_table text not null default '',
  again       boolean not null default false
);

-- ---------------------------------------------------------------------------------------------
-- Stream tables

create table if not exists pgtrickle_internal.stream_tables (
  pgt_id             bigint generated always as identity primary key,
  pgt_relid          regclass not null unique,
  pgt_schema         text not null,
  pgt_name           text not null,
  pgt_owner          regrole not null,
  original_query     text not null,
  defining_query     text not null,
  schedule           text,
  refresh_mode       text not null,
  key_columns        text[],
  timezone           text not null,
  status             text not null default 'ACTIVE',
  is_populated       boolean not null default false,
  always_due         boolean not null default false,
  functions          text[] not null default '{}',
  fingerprint        text,
  consecutive_errors int not null default 0,
  last_error         text,
  last_refresh_at    timestamptz,
  last_duration_ms   bigint,
  data_timestamp     timestamptz,
  period             interval,
  next_due_at        timestamptz,
  dirty_since        timestamptz,
  stale_alerted_at   timestamptz,
  pending_writers    text[] not null default '{}',
  refreshing_xid     xid8,
  changing_xid       xid8,
  created_at         timestamptz not null default clock_timestamp(),
  relid_number       oid,
  opaque             boolean not null default false,
  reads_through      regclass[] not null default '{}',
  names_in_values    text,
  key_derived        boolean not null default false,
  constraint stream_tables_mode check (refresh_mode in ('AUTO', 'DIFFERENTIAL', 'FULL')),
  constraint stream_tables_status check (status in ('ACTIVE', 'SUSPENDED'))
) with (fillfactor = 60);
alter table pgtrickle_internal.stream_tables
  add column if not exists relid_number oid,
  add column if not exists opaque boolean not null default false,
  add column if not exists reads_through regclass[] not null default '{}',
  add column if not exists names_in_values text,
  add column if not exists key_derived boolean not null default false;
update pgtrickle_internal.stream_tables set relid_number = pgt_relid::oid, fingerprint = null
where relid_number is null;
comment on table pgtrickle_internal.stream_tables is
  'Stream tables: definition, schedule and state (written by create_stream_table and by refreshes)';
comment on column pgtrickle_internal.stream_tables.defining_query is
  'The query as it runs: every name qualified';
comment on column pgtrickle_internal.stream_tables.always_due is
  'Something that the query reads cannot be watched: refreshed at every due time';
comment on column pgtrickle_internal.stream_tables.dirty_since is
  'When a change was first noticed that the stream table does not show yet';
comment on column pgtrickle_internal.stream_tables.pending_writers is
  'Transactions that were writing to a source when the last refresh looked';
comment on column pgtrickle_internal.stream_tables.refreshing_xid is
  'The transaction that is refreshing the stream table; never visible to another';
comment on column pgtrickle_internal.stream_tables.changing_xid is
  'The transaction that is making or altering the stream table; never visible to another';
comment on column pgtrickle_internal.stream_tables.relid_number is
  'pgt_relid as a number: after a restore pgt_relid names the table as before, and this does not';
comment on column pgtrickle_internal.stream_tables.opaque is
  'The query calls functions whose bodies cannot be followed: any changed function may concern it';
comment on column pgtrickle_internal.stream_tables.reads_through is
  'The stream tables that such functions were seen to read';
comment on column pgtrickle_internal.stream_tables.key_derived is
  'key_columns were found in the query, not given: they pair rows that changed, and guard nothing';
comment on column pgtrickle_internal.stream_tables.names_in_values is
  'The labels and attributes by which consumers have its values (stream_names_in_values)';

create table if not exists pgtrickle.pgt_stream_sources (
  pgt_id      bigint not null references pgtrickle_internal.stream_tables on delete cascade,
  source      regclass not null,
  members     regclass[] not null,
  sequence    regclass,
  tracked     boolean not null,
  seen        bigint,
  relfilenode oid,
  state       text,
  primary key (pgt_id, source)
) with (fillfactor = 60);
alter table pgtrickle.pgt_stream_sources add column if not exists state text;
create index if not exists pgt_stream_sources_source on pgtrickle.pgt_stream_sources (source);
comment on table pgtrickle.pgt_stream_sources is
  'What each stream table reads: tables with their partitions, and the views in between';
comment on column pgtrickle.pgt_stream_sources.seen is
  'The value of the sequence that the last refresh has taken into account';
comment on column pgtrickle.pgt_stream_sources.state is
  'The definition of the source and of the triggers that watch it, as the last refresh found them';

create table if not exists pgtrickle_internal.refresh_history (
  refresh_id     uuid primary key,
  pgt_id         bigint not null,
  stream_table   text not null,
  action         text not null,
  started_at     timestamptz not null,
  duration_ms    bigint not null,
  data_timestamp timestamptz,
  rows_inserted  bigint not null default 0,
  rows_updated   bigint not null default 0,
  rows_deleted   bigint not null default 0,
  outbox_id      bigint,
  error          text
);
create index if not exists refresh_history_by_table
  on pgtrickle_internal.refresh_history (pgt_id, started_at);
comment on table pgtrickle_internal.refresh_history is
  'Refreshes of the last three days: DIFFERENTIAL, FULL, NO_DATA (nothing had changed) or FAILED';

-- ---------------------------------------------------------------------------------------------
-- Inboxes

create table if not exists pgtrickle.pgt_inbox_config (
  inbox_name      text primary key,
  table_schema    text not null,
  table_name      text not null,
  columns         jsonb not null,
  made_here       boolean not null,
  max_retries     int not null default 3,
  schedule        text,
  with_dead_letter boolean not null default true,
  with_stats      boolean not null default true,
  retention_hours int not null default 72,
  pending_view    text,
  dlq_view        text,
  stats_view      text,
  created_at      timestamptz not null default clock_timestamp(),
  unique (table_schema, table_name)
);
alter table pgtrickle.pgt_inbox_config
  add column if not exists relation regclass,
  add column if not exists gate_function text;
comment on table pgtrickle.pgt_inbox_config is
  'All inboxes: which table each one is, and how its messages are retried and kept';
comment on column pgtrickle.pgt_inbox_config.columns is
  'Which column of the table holds what: {"event_id": "id", "payload": "body", ...}';
comment on column pgtrickle.pgt_inbox_config.made_here is
  'The table was made by create_inbox, and goes with drop_inbox';
comment on column pgtrickle.pgt_inbox_config.schedule is
  'Accepted for pg_trickle''s sake: the views here are always fresh';
comment on column pgtrickle.pgt_inbox_config.relation is
  'The table itself: another one under the same name is not this inbox';
comment on column pgtrickle.pgt_inbox_config.gate_function is
  'The function in pgtrickle_streams that works on the table with its owner''s rights; null where '
  'the table is ours';

create table if not exists pgtrickle_internal.inbox_tables (relation regclass primary key);
comment on table pgtrickle_internal.inbox_tables is
  'The inbox tables of pgtrickle_owner: no other role could put code of its own on them';

-- ---------------------------------------------------------------------------------------------
-- Functions of the first version whose arguments or results were others
drop function if exists pgtrickle.relay_claim_position(text, text, uuid, text, text);
drop function if exists pgtrickle.relay_claim_position(text, text, uuid, text, text, text, int8multirange);
drop function if exists pgtrickle.relay_rewind_position(text, text, uuid, uuid, bigint, bigint, uuid);
drop function if exists pgtrickle_json.shape(oid, oid[]);
drop function if exists pgtrickle_gate.call_as_creator(bigint, text, jsonb);
drop function if exists pgtrickle.relay_renew_leases(uuid);
