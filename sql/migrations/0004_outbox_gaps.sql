-- Outboxes whose triggers were off when upkeep looked, and could not be switched on.
create table if not exists pgtrickle_internal.outbox_gaps (
  outbox_number int primary key references pgtrickle_internal.outbox_config on delete cascade,
  seen_at       timestamptz not null default clock_timestamp()
);
comment on table pgtrickle_internal.outbox_gaps is
  'Outboxes that do not record every change at present, and since when that is known';
