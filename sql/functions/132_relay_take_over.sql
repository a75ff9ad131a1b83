-- How a group of relays takes over the positions of another group. Without them it would read every
-- outbox from the start.

-- The pipelines of a group that have a position, or unresolved dead letters, in this database.
create or replace function pgtrickle_internal.pipelines_of_group(relay_group text, name text)
returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select o.pipeline_id from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id = relay_group and (name is null or o.pipeline_id = name)
  union
  select d.pipeline from pgtrickle.relay_dlq d
  where d.relay_group_id = relay_group and (name is null or d.pipeline = name)
    and d.resolved_at is null;
$$;

-- Raises an error if a relay runs a pipeline that is to be taken over: any pipeline of
-- `from_group`, and in `to_group` one that is to get a position. The caller has locked the
-- positions, and a relay takes the lease of a pipeline before it claims its position: what begins
-- after this look waits for the caller.
create or replace function pgtrickle_internal.refuse_running_groups(from_group text, to_group text,
                                                                    name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  running record;
  older text;
begin
  select s.relay_group_id, l.name as pipeline, s.worker_id into running
  from pgtrickle_internal.live_lease_sessions() s
  join pgtrickle.relay_leases l on l.token = s.token and l.kind = 'pipeline'
  where (refuse_running_groups.name is null or l.name = refuse_running_groups.name)
    and (s.relay_group_id = from_group
         or (s.relay_group_id = to_group
             and l.name in (select pgtrickle_internal.pipelines_of_group(from_group, l.name)))
         -- A pipeline may name the group of its position itself.
         or exists (select from pgtrickle.relay_consumer_offsets o
                    where o.relay_group_id in (from_group, to_group) and o.pipeline_id = l.name
                      and o.worker_id = s.worker_id))
  order by s.relay_group_id <> from_group, l.name collate "C"
  limit 1;
  if running.pipeline is not null then
    raise exception 'pipeline "%" runs in group "%": %', running.pipeline, running.relay_group_id,
        running.worker_id
      using errcode = 'object_in_use',
            hint = format('Stop the relays of group "%s", or disable the pipeline: SELECT '
                          'pgtrickle.disable_relay(%L);', running.relay_group_id, running.pipeline);
  end if;
  select g.relay_group into older
  from unnest(array[from_group, to_group]) g (relay_group)
  where exists (select from pgtrickle_internal.older_relays(g.relay_group)) limit 1;
  if older is not null then
    raise exception 'relays of an earlier version run in group "%"', older
      using errcode = 'object_in_use', hint = 'Stop them first.';
  end if;
end $$;

-- Gives a group the unresolved dead letters of a pipeline in another group, and says how many. One
-- that it has already stays where it is.
create or replace function pgtrickle_internal.take_over_dead_letters(from_group text, to_group text,
                                                                     pipeline text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  moved bigint;
begin
  update pgtrickle.relay_dlq d set relay_group_id = to_group
  where d.relay_group_id = from_group and d.pipeline = take_over_dead_letters.pipeline
    and d.resolved_at is null
    and not exists (select from pgtrickle.relay_dlq e
                    where e.relay_group_id = to_group and e.pipeline = d.pipeline
                      and e.resolved_at is null and e.message_id = d.message_id
                      and e.payload is not distinct from d.payload
                      and e.key is not distinct from d.key and e.op is not distinct from d.op);
  get diagnostics moved = row_count;
  return moved;
end $$;

-- Gives a group one position of another, unless its own is as far. True: it moved. Ids that both
-- skip stay skipped.
create or replace function pgtrickle_internal.take_over_position(
  theirs pgtrickle.relay_consumer_offsets, to_group text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  ours pgtrickle.relay_consumer_offsets;
  skipping int8multirange;
begin
  select * into ours from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id = to_group and o.pipeline_id = theirs.pipeline_id
    and o.incarnation = theirs.incarnation;
  if ours.pipeline_id is null then
    insert into pgtrickle.relay_consumer_offsets
      (relay_group_id, pipeline_id, incarnation, last_change_id, last_row, last_pgt_id, lost_rows,
       skipped, skipped_mark, outbox_name, marked_id, history, snapshot)
    values (to_group, theirs.pipeline_id, theirs.incarnation, theirs.last_change_id,
            theirs.last_row, theirs.last_pgt_id, theirs.lost_rows, theirs.skipped,
            theirs.skipped_mark, theirs.outbox_name, theirs.marked_id, theirs.history,
            theirs.snapshot)
    on conflict do nothing;
    if not found then
      raise exception 'pipeline "%" of group "%" begins at this moment', theirs.pipeline_id, to_group
        using errcode = 'object_in_use',
              hint = format('Stop the relays of group "%s" first.', to_group);
    end if;
    return true;
  elsif (ours.last_change_id, ours.last_row) >= (theirs.last_change_id, theirs.last_row) then
    return false;
  end if;
  skipping := coalesce(theirs.skipped, '{}') + coalesce(ours.skipped, '{}');
  if coalesce(upper(skipping) <= theirs.last_change_id + 1, true) then
    skipping := null;
  end if;
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = theirs.last_change_id, last_row = theirs.last_row,
      last_pgt_id = theirs.last_pgt_id, lost_rows = theirs.lost_rows,
      marked_id = theirs.marked_id, history = theirs.history, snapshot = theirs.snapshot,
      skipped = skipping,
      skipped_mark = case when skipping is null then null
                          when upper(ours.skipped) > coalesce(upper(theirs.skipped), 0)
                          then ours.skipped_mark else theirs.skipped_mark end,
      owner_token = null, updated_at = clock_timestamp(), seen_at = clock_timestamp()
  where o.relay_group_id = to_group and o.pipeline_id = theirs.pipeline_id
    and o.incarnation = theirs.incarnation;
  return true;
end $$;

-- Lets a group go on where another one ended: with its positions, and its unresolved dead letters. Of
-- one pipeline where `name` is given, else of all. Refused while relays run them. A position of
-- to_group moves forward to that of from_group or stays ('kept'), and never goes back. The positions
-- of from_group stay too; a relay of it that was away commits to them no more before it has claimed
-- them again. One row for each position; `result` is null for a pipeline with dead letters only.
create or replace function pgtrickle.take_over_relay(from_group text, to_group text,
                                                     name text default null)
returns table (pipeline text, outbox text, result text, taken_position bigint,
               "position" bigint, dead_letters bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  theirs pgtrickle.relay_consumer_offsets;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'positions are taken over in a READ COMMITTED transaction'
      using errcode = 'invalid_transaction_state';
  elsif from_group is null or to_group is null or from_group = to_group then
    raise exception 'group "%" cannot take over from group "%"', coalesce(to_group, '(null)'),
        coalesce(from_group, '(null)')
      using errcode = 'invalid_parameter_value', hint = 'Name two groups.';
  end if;
  perform from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id in (from_group, to_group)
    and (take_over_relay.name is null or o.pipeline_id = take_over_relay.name)
  order by o.relay_group_id, o.pipeline_id, o.incarnation
  for update;
  perform pgtrickle_internal.refuse_running_groups(from_group, to_group, take_over_relay.name);

  for pipeline in
    select p from pgtrickle_internal.pipelines_of_group(from_group, take_over_relay.name) p
    order by p collate "C"
  loop
    dead_letters := pgtrickle_internal.take_over_dead_letters(from_group, to_group, pipeline);
    outbox := null;
    result := null;
    taken_position := null;
    position := null;
    for theirs in
      update pgtrickle.relay_consumer_offsets o set owner_token = null
      where o.relay_group_id = from_group and o.pipeline_id = take_over_relay.pipeline
      returning o.*
    loop
      result := case when pgtrickle_internal.take_over_position(theirs, to_group)
                     then 'taken' else 'kept' end;
      outbox := coalesce((select c.outbox_table_name from pgtrickle_internal.outbox_config c
                          where c.incarnation = theirs.incarnation), theirs.outbox_name);
      taken_position := theirs.last_change_id;
      position := (select o.last_change_id from pgtrickle.relay_consumer_offsets o
                   where o.relay_group_id = to_group and o.pipeline_id = theirs.pipeline_id
                     and o.incarnation = theirs.incarnation);
      return next;
      dead_letters := 0;
    end loop;
    if result is null then
      return next;
    end if;
  end loop;
  if not found then
    raise exception 'group "%" has nothing to take over%', from_group,
        coalesce(format(': no position and no dead letter of pipeline "%s"',
                        take_over_relay.name), '')
      using errcode = 'undefined_object',
            hint = coalesce((select 'Groups with positions: '
                                    || string_agg(distinct o.relay_group_id, ', ')
                             from pgtrickle.relay_consumer_offsets o), 'There is no position yet.');
  end if;
end $$;
comment on function pgtrickle.take_over_relay(text, text, text) is
  'Lets a group of relays go on at the positions of another one, whose relays do not run';

-- What the daemon calls.
grant execute on function pgtrickle.take_over_relay(text, text, text) to pgtrickle_relay;
