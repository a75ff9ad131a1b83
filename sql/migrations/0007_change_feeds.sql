-- Change feeds: tables of the changes of other tables, for readers that speak SQL.

create table if not exists pgtrickle_internal.change_feeds (
  feed_number       int generated always as identity primary key,
  outbox_number     int not null unique references pgtrickle_internal.outbox_config,
  feed_name         text not null unique,
  view_name         text not null unique,
  pipeline          text not null unique,
  retention         interval not null check (retention > interval '0'),
  full_refresh_rows boolean not null,
  cleaned_to        bigint not null default 0,
  created_at        timestamptz not null default clock_timestamp()
);
comment on table pgtrickle_internal.change_feeds is
  'Change feeds: which outbox each one follows, and its table and view in the schema pgtrickle_changes';
comment on column pgtrickle_internal.change_feeds.pipeline is
  'The pipeline that writes the feed; its position is kept under the group "feeds"';
comment on column pgtrickle_internal.change_feeds.full_refresh_rows is
  'Whether the row F of a full refresh is followed by all rows of the table';
comment on column pgtrickle_internal.change_feeds.cleaned_to is
  'Rows up to this change_id were deleted, by retention or by cleanup_change_feed()';

-- In a table of its own: a cleanup that a user leaves open must not keep the writer waiting.
create table if not exists pgtrickle_internal.change_feed_marks (
  feed_number    int primary key references pgtrickle_internal.change_feeds on delete cascade,
  outbox_id      bigint not null,
  row_num        bigint not null,
  last_change_id bigint not null default 0
) with (fillfactor = 50);
comment on table pgtrickle_internal.change_feed_marks is
  'How far each change feed is written: it moves in the transaction that writes, and its lock is what '
  'makes the change_ids follow the order of commits';

-- It gets another argument.
drop function if exists pgtrickle_internal.outbox_free_name(text, text, text);
