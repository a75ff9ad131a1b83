-- Tables of applications that are read as outboxes (adopt_outbox).

alter table pgtrickle_internal.outbox_config
  drop constraint if exists outbox_config_kind_check,
  drop constraint if exists outbox_config_capture_check,
  add constraint outbox_config_kind_check
    check (kind in ('stream_table', 'table', 'events', 'adopted')),
  add constraint outbox_config_capture_check
    check (capture in ('statement', 'row', 'refresh', 'publish', 'adopted'));
comment on column pgtrickle_internal.outbox_config.capture is
  'statement: one outbox row a statement; row: one a changed row; refresh: by a stream table''s '
  'refresh; publish: by publish(); adopted: by nothing of ours, it is an application''s table';

create table if not exists pgtrickle_internal.outbox_adopted (
  outbox_number int primary key references pgtrickle_internal.outbox_config on delete cascade,
  relation      oid not null,
  owner         oid not null,
  schema_name   text not null,
  table_name    text not null,
  sequence      oid not null,
  trust_ids     boolean not null,
  columns       text[] not null,
  attnums       smallint[] not null,
  types         oid[] not null,
  definition    jsonb not null
);
comment on table pgtrickle_internal.outbox_adopted is
  'Tables of applications that are read as outboxes: what adopt_outbox was told, and what it found';
comment on column pgtrickle_internal.outbox_adopted.owner is
  'Who adopted it: it is read as this role, and not at all when the table has another owner';
comment on column pgtrickle_internal.outbox_adopted.columns is
  'The columns that are read, the id first';
comment on column pgtrickle_internal.outbox_adopted.definition is
  'The columns by what they are read as, and the filter';

-- relay_open_writers, which belongs to pgtrickle_observer, asks which tables are adopted.
grant select (relation) on pgtrickle_internal.outbox_adopted to pgtrickle_observer;

-- By what a position in an adopted outbox knows its table again: see outbox_adopted_judge.
alter table pgtrickle.relay_consumer_offsets
  add column if not exists marked_id bigint,
  add column if not exists history text;
comment on column pgtrickle.relay_consumer_offsets.marked_id is
  'Of an adopted outbox: the row that last_pgt_id is of, the last one up to last_change_id; null: '
  'last_change_id';
comment on column pgtrickle.relay_consumer_offsets.history is
  'Of an adopted outbox: the files that the table and its sequence had when it was read';
