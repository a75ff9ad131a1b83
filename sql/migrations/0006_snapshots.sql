-- Snapshots: what a reader is given of the rows that a table has already.

alter table pgtrickle_internal.consumer_groups
  add column if not exists awaits_snapshot boolean not null default false;
comment on column pgtrickle_internal.consumer_groups.awaits_snapshot is
  'Nothing is delivered until consumer_snapshot() is called';

alter table pgtrickle.relay_consumer_offsets add column if not exists snapshot jsonb;
comment on column pgtrickle.relay_consumer_offsets.snapshot is
  'How far the rows are delivered that the table had at the start (start: snapshot); null: all are';
