-- Alerts that are recorded, what has been said of consumers, and how a group knows its outbox again.

create table if not exists pgtrickle_internal.alert_outbox (
  only_row      boolean primary key default true check (only_row),
  outbox_number int not null references pgtrickle_internal.outbox_config on delete cascade
);
comment on table pgtrickle_internal.alert_outbox is
  'The outbox in which alerts are recorded; no row: they are on their channel only';

-- A row is there from when something is found until it is over.
create table if not exists pgtrickle_internal.consumer_episodes (
  event         text not null check (event in ('consumer_stalled', 'consumer_lost_rows')),
  outbox_number int not null references pgtrickle_internal.outbox_config on delete cascade,
  kind          text not null,
  name          text not null,
  relay_group   text not null default '',
  "position"    bigint not null,
  lost_rows     bigint not null default 0,
  since         timestamptz not null default clock_timestamp(),
  told_at       timestamptz,
  primary key (event, outbox_number, kind, name, relay_group)
);
comment on table pgtrickle_internal.consumer_episodes is
  'Consumers that have stalled or lost rows, so that each is told once';
comment on column pgtrickle_internal.consumer_episodes."position" is
  'Where the consumer stood when it began';
comment on column pgtrickle_internal.consumer_episodes.told_at is
  'When the alert was sent; null: it is still to be sent';

alter table pgtrickle_internal.consumer_slots
  add column if not exists mark_id bigint, add column if not exists mark uuid;
comment on column pgtrickle_internal.consumer_slots.mark_id is
  'A row that was committed: if it has another pgt_id than `mark`, the outbox was written anew';
