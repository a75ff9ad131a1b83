-- Positions: how far each pipeline of each group has been settled in an outbox.
--
-- Only the owner of a pipeline moves its position. Each new owner writes a new random token, which it
-- cannot while another relay holds the lease of the pipeline (115); a commit with another token
-- changes nothing and learns so. A position never goes back
-- except by relay_rewind_position, which says what it does.
--
-- Positions are ordered by (last_change_id, last_row). With last_row 0 every outbox row up to and
-- including last_change_id is settled; with another the reader is in the middle of a claim check,
-- and retention keeps last_change_id itself as well.

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
  primary key (relay_group_id, pipeline_id, incarnation)
);
comment on table pgtrickle.relay_consumer_offsets is
  'How far each pipeline of each group has read each outbox; incarnation tells an outbox from a '
  'later one of the same name';
comment on column pgtrickle.relay_consumer_offsets.seen_at is
  'When housekeeping last saw a living relay behind this position (to the hour)';
comment on column pgtrickle.relay_consumer_offsets.lost_rows is
  'Rows that retention deleted although this pipeline had not read them, because it no longer held '
  'them back';

-- Where a new position begins: 'earliest' (all that is kept), 'latest' (what comes from now on), or
-- the id of the first row to deliver.
create or replace function pgtrickle._first_position(incarnation uuid, start text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox record;
begin
  -- The lock lets a batch of retention end first, and keeps the next one until the position is
  -- stored, so that no row is deleted in front of a new reader unseen.
  select c.purged_below, c.outbox_sequence into outbox
  from pgtrickle.pgt_outbox_config c
  where c.incarnation = _first_position.incarnation
  for share;
  if start = 'earliest' then
    return coalesce(outbox.purged_below, 0);
  elsif start ~ '^\d{1,18}$' then
    return greatest(start::bigint - 1, 0);
  elsif start is distinct from 'latest' then
    raise exception 'a pipeline cannot start at "%"', coalesce(start, '(null)')
      using errcode = 'invalid_parameter_value',
            hint = 'It is "earliest", "latest", or the id of the first row to deliver.';
  elsif outbox.outbox_sequence is null then
    raise exception 'a pipeline cannot start at "latest": there is no outbox of incarnation %',
        incarnation
      using errcode = 'undefined_object', hint = 'Resolve the outbox again: it was made anew.';
  end if;
  return coalesce(pg_sequence_last_value(outbox.outbox_sequence::regclass), 0);
end $$;

-- Takes ownership of a position, and makes it where there is none. The previous owner is fenced from
-- now on. Raises where `start` of a new position cannot be understood, and where another relay holds
-- the lease of the pipeline: a stale owner must not fence the one that replaced it.
create or replace function pgtrickle.relay_claim_position(relay_group text, pipeline text,
                                                          incarnation uuid, worker text, start text)
returns table (owner_token uuid, last_change_id bigint, last_row bigint, last_pgt_id uuid,
               is_new boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  token constant uuid := gen_random_uuid();
  holder text;
begin
  select s.worker_id into holder
  from pgtrickle.relay_leases l
  join pgtrickle.relay_lease_sessions s on s.token = l.token
  where l.kind = 'pipeline' and l.relay_group_id = relay_group and l.name = pipeline;
  if holder <> worker then
    raise exception 'pipeline "%" of group "%" is owned by another relay: %', pipeline,
        relay_group, holder
      using errcode = 'object_in_use';
  end if;
  loop
    return query
      update pgtrickle.relay_consumer_offsets o
      set owner_token = token, worker_id = worker, seen_at = clock_timestamp()
      where o.relay_group_id = relay_group and o.pipeline_id = pipeline
        and o.incarnation = relay_claim_position.incarnation
      returning token, o.last_change_id, o.last_row, o.last_pgt_id, false;
    exit when found;
    return query
      insert into pgtrickle.relay_consumer_offsets as o
        (relay_group_id, pipeline_id, incarnation, last_change_id, owner_token, worker_id)
      values (relay_group, pipeline, relay_claim_position.incarnation,
              pgtrickle._first_position(relay_claim_position.incarnation, start), token, worker)
      on conflict do nothing
      returning token, o.last_change_id, o.last_row, o.last_pgt_id, true;
    exit when found;
  end loop;
end $$;
comment on function pgtrickle.relay_claim_position(text, text, uuid, text, text) is
  'For the relay: takes ownership of a pipeline''s position';

-- Moves a position forward. False: the caller is no longer the owner (or the pipeline was deleted),
-- nothing was changed, and it must stop. A position that is not ahead changes nothing and is true.
create or replace function pgtrickle.relay_commit_position(relay_group text, pipeline text,
                                                           incarnation uuid, owner_token uuid,
                                                           change_id bigint, row_num bigint,
                                                           pgt_id uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = change_id, last_row = row_num, last_pgt_id = pgt_id,
      updated_at = clock_timestamp()
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_commit_position.incarnation
    and o.owner_token = relay_commit_position.owner_token
    and (o.last_change_id, o.last_row) < (change_id, row_num);
  if found then
    return true;
  end if;
  return exists (
    select from pgtrickle.relay_consumer_offsets o
    where o.relay_group_id = relay_group and o.pipeline_id = pipeline
      and o.incarnation = relay_commit_position.incarnation
      and o.owner_token = relay_commit_position.owner_token);
end $$;
comment on function pgtrickle.relay_commit_position(text, text, uuid, uuid, bigint, bigint, uuid) is
  'For the relay: moves a pipeline''s position forward; false when another instance owns it';

-- Sets a position wherever it is asked to, back too: after an outbox was rewound by a failover, or
-- when the user accepted a loss. False: the caller is not the owner.
create or replace function pgtrickle.relay_rewind_position(relay_group text, pipeline text,
                                                           incarnation uuid, owner_token uuid,
                                                           change_id bigint,
                                                           row_num bigint default 0,
                                                           pgt_id uuid default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = change_id, last_row = row_num, last_pgt_id = pgt_id, lost_rows = 0,
      updated_at = clock_timestamp()
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_rewind_position.incarnation
    and o.owner_token = relay_rewind_position.owner_token;
  return found;
end $$;
comment on function
  pgtrickle.relay_rewind_position(text, text, uuid, uuid, bigint, bigint, uuid) is
  'For the relay: sets a pipeline''s position, even back; false when another instance owns it';
