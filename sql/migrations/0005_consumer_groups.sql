-- Consumer groups: applications that read an outbox themselves.

create table if not exists pgtrickle_internal.consumer_groups (
  group_number  int generated always as identity primary key,
  name          text not null unique,
  outbox_number int not null references pgtrickle_internal.outbox_config on delete cascade,
  owner         regrole not null,
  slots         int not null check (slots in (1, 2, 4, 8, 16, 32, 64)),
  max_attempts  int not null check (max_attempts > 0),
  skipped       int8multirange,
  created_at    timestamptz not null default clock_timestamp()
);
create index if not exists consumer_groups_by_outbox
  on pgtrickle_internal.consumer_groups (outbox_number);
comment on table pgtrickle_internal.consumer_groups is
  'Consumer groups: named positions in outboxes that applications poll';
comment on column pgtrickle_internal.consumer_groups.owner is
  'Members of this role use the group, and administrators';
comment on column pgtrickle_internal.consumer_groups.skipped is
  'Ids that are not delivered: they were published before a start at "latest"';

create table if not exists pgtrickle_internal.consumer_slots (
  group_number int not null references pgtrickle_internal.consumer_groups on delete cascade,
  slot         int not null,
  "position"   bigint not null,
  offered      bigint,
  delivered    bigint,
  attempts     int not null default 0,
  rejected     int8multirange not null default '{}',
  holder       text,
  until        timestamptz,
  lost_rows    bigint not null default 0,
  moved_at     timestamptz not null default clock_timestamp(),
  primary key (group_number, slot)
) with (fillfactor = 50);
comment on table pgtrickle_internal.consumer_slots is
  'The position of each slot of a group, and which consumer has leased it';
comment on column pgtrickle_internal.consumer_slots.offered is
  'Up to which id the last poll has decided; null where nothing waits for a commit';
comment on column pgtrickle_internal.consumer_slots.delivered is
  'The last row of this slot that the poll returned: a commit up to it passes all that is offered';
comment on column pgtrickle_internal.consumer_slots.attempts is
  'How often the first row behind the position has been delivered';
comment on column pgtrickle_internal.consumer_slots.rejected is
  'Ids behind the position that are dead letters';

create table if not exists pgtrickle_internal.consumer_members (
  group_number int not null references pgtrickle_internal.consumer_groups on delete cascade,
  consumer     text not null,
  seen_at      timestamptz not null,
  alive_until  timestamptz not null,
  primary key (group_number, consumer)
) with (fillfactor = 70);
comment on table pgtrickle_internal.consumer_members is
  'The consumers of each group: those that are alive share its slots';

-- Each row stays true for ever: when the sequence of the outbox stood at look_to, the transactions
-- in `holders` might have drawn smaller ids. Rows are inserted and deleted only, so that no poll
-- waits for another one. They can be taken again at any time.
create unlogged table if not exists pgtrickle_internal.consumer_looks (
  outbox_number int not null,
  look_to       bigint not null,
  holders       text[] not null,
  looked_at     timestamptz not null default clock_timestamp()
);
create index if not exists consumer_looks_newest
  on pgtrickle_internal.consumer_looks (outbox_number, look_to);
