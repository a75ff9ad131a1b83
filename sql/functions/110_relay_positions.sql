-- Positions: how far each pipeline of each group has been settled in an outbox.
--
-- Only the owner of a pipeline moves its position. Each new owner writes a new random token, which is
-- impossible while another relay holds the lease of the pipeline (115). A commit with an old token
-- changes nothing and returns false. Only relay_rewind_position moves a position back.
--
-- Positions are ordered by (last_change_id, last_row). With last_row 0 every outbox row up to and
-- including last_change_id is settled; with another the reader is in the middle of a claim check,
-- and retention keeps last_change_id itself as well.
--
-- A position that began at 'latest' also has the ids beyond it that were published before (`skipped`),
-- until it has passed them: a transaction that commits later may have drawn a smaller id.

-- The highest id up to which a position needs no row any more: its own, and beyond it the ids that it
-- skips with the gaps between them. The caller knows which gaps may still be filled.
create or replace function pgtrickle_internal.position_passes(
  outbox_table text, last_change_id bigint, skipped int8multirange) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  run int8range;
  passed bigint := last_change_id;
  needed boolean;
begin
  -- Nothing is deleted from an adopted table: it is enough to be on the safe side.
  if exists (select from pgtrickle_internal.outbox_config c
             where c.outbox_table_name = outbox_table and c.kind = 'adopted') then
    return last_change_id;
  end if;
  for run in select r from unnest(skipped) r where upper(r) > last_change_id loop
    execute format('select exists (select from pgtrickle.%I where id > $1 and id < $2)',
                   outbox_table) into needed using passed, lower(run);
    exit when needed;
    passed := greatest(passed, upper(run) - 1);
  end loop;
  return passed;
end $$;

-- Takes ownership of a position, and makes it where there is none. The previous owner is fenced from
-- now on. Raises where `start` of a new position cannot be understood, and where another relay holds
-- the lease of the pipeline: a stale owner must not fence the one that replaced it. `skipping`: what a
-- new position skips in a table of another database, where only the caller can know it;
-- `skipping_mark`: any value where the highest of it was drawn there already.
create or replace function pgtrickle.relay_claim_position(
  relay_group text, pipeline text, incarnation uuid, worker text, start text,
  outbox_name text default null, skipping int8multirange default null,
  skipping_mark uuid default null)
returns table (owner_token uuid, last_change_id bigint, last_row bigint, last_pgt_id uuid,
               is_new boolean, skipped int8multirange, skipped_mark uuid)
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
  holder := coalesce(holder, pgtrickle_internal.feed_writer_elsewhere(
    relay_group, pipeline, relay_claim_position.incarnation, worker));
  if holder <> worker then
    raise exception 'pipeline "%" of group "%" is owned by another relay: %', pipeline,
        relay_group, holder
      using errcode = 'object_in_use';
  end if;
  loop
    return query
      update pgtrickle.relay_consumer_offsets o
      set owner_token = token, worker_id = worker, seen_at = clock_timestamp(),
          outbox_name = coalesce(relay_claim_position.outbox_name, o.outbox_name)
      where o.relay_group_id = relay_group and o.pipeline_id = pipeline
        and o.incarnation = relay_claim_position.incarnation
      returning token, o.last_change_id, o.last_row, o.last_pgt_id, false, o.skipped,
                o.skipped_mark;
    exit when found;
    -- The first position must survive a crash of the server: else the pipeline would begin at a later
    -- one.
    if current_setting('synchronous_commit') = 'off' then
      perform set_config('synchronous_commit', 'on', true);
    end if;
    return query
      insert into pgtrickle.relay_consumer_offsets as o
        (relay_group_id, pipeline_id, incarnation, last_change_id, last_pgt_id, lost_rows, skipped,
         skipped_mark, outbox_name, owner_token, worker_id, snapshot, history)
      select relay_group, pipeline, relay_claim_position.incarnation, f.change_id, f.mark,
             f.lost_rows, coalesce(f.skipped, skipping), coalesce(f.skipped_mark, skipping_mark),
             relay_claim_position.outbox_name, token, worker,
             case when start = 'snapshot' then '{}'::jsonb end,
             (select pgtrickle_internal.outbox_adopted_history(k)
              from pgtrickle_internal.outbox_adopted k
              join pgtrickle_internal.outbox_config c on c.outbox_number = k.outbox_number
              where c.incarnation = relay_claim_position.incarnation)
      from pgtrickle.relay_first_position(relay_claim_position.incarnation, start) f
      on conflict do nothing
      returning token, o.last_change_id, o.last_row, o.last_pgt_id, true, o.skipped,
                o.skipped_mark;
    exit when found;
  end loop;
end $$;
comment on function
  pgtrickle.relay_claim_position(text, text, uuid, text, text, text, int8multirange, uuid) is
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
      skipped = case when upper(o.skipped) > change_id + 1 then o.skipped end,
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
-- when the user accepted a loss. What it skips is forgotten unless `keep_skipped`: ids of a rewound
-- outbox are drawn again. A snapshot that is under way begins again. False: the caller is not the
-- owner.
create or replace function pgtrickle.relay_rewind_position(relay_group text, pipeline text,
                                                           incarnation uuid, owner_token uuid,
                                                           change_id bigint,
                                                           row_num bigint default 0,
                                                           pgt_id uuid default null,
                                                           keep_skipped boolean default false)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = change_id, last_row = row_num, last_pgt_id = pgt_id, lost_rows = 0,
      marked_id = null, history = null,
      snapshot = case when o.snapshot is not null then '{"all": true}'::jsonb end,
      skipped = case when keep_skipped and upper(o.skipped) > change_id + 1 then o.skipped end,
      updated_at = clock_timestamp()
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_rewind_position.incarnation
    and o.owner_token = relay_rewind_position.owner_token;
  if not found then
    return false;
  end if;
  perform pgtrickle_internal.feed_was_set(pipeline, change_id);
  return true;
end $$;
comment on function
  pgtrickle.relay_rewind_position(text, text, uuid, uuid, bigint, bigint, uuid, boolean) is
  'For the relay: sets a pipeline''s position, even back; false when another instance owns it';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_claim_position(text, text, uuid, text, text, text, int8multirange, uuid),
  pgtrickle.relay_commit_position(text, text, uuid, uuid, bigint, bigint, uuid),
  pgtrickle.relay_rewind_position(text, text, uuid, uuid, bigint, bigint, uuid, boolean)
  to pgtrickle_relay;
