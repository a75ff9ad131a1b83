-- What is said of consumers: alerts about one that has stalled, and about rows that retention deleted
-- in front of one. Housekeeping looks when a round has ended. Each is told once: what it is about
-- stays in consumer_episodes until it is over.

-- All consumers whose position should move when their outbox has rows behind it, a row a slot.
-- A disabled pipeline is none of them, nor is one that was pointed at another outbox.
create or replace view pgtrickle_internal.consumer_standing as
  select 'pipeline' as kind, o.pipeline_id as name, o.relay_group_id as relay_group,
         k.outbox_number, 1 as slots, 0 as slot, o.last_change_id - (o.last_row > 0)::int as "position",
         coalesce(o.skipped, '{}') as not_read, o.updated_at as moved_at
  from pgtrickle.relay_consumer_offsets o
  join pgtrickle_internal.outbox_config k on k.incarnation = o.incarnation
  left join pgtrickle.relay_config c on c.name = o.pipeline_id
  left join pgtrickle.relay_pipeline_status s
    on s.relay_group_id = o.relay_group_id and s.pipeline = o.pipeline_id
  where coalesce(c.enabled, s.state is distinct from 'stopped')
    and coalesce(pgtrickle_internal.names_outbox(c.outbox_name, c.name, k.incarnation), true)
  union all
  select 'group', g.name, '', g.outbox_number, g.slots, s.slot, s."position",
         coalesce(g.skipped, '{}') + s.rejected, greatest(s.moved_at, g.created_at)
  from pgtrickle_internal.consumer_groups g
  join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number;
comment on view pgtrickle_internal.consumer_standing is
  'Where each consumer stands that should move, slot by slot, and since when';

-- Since when a consumer that is behind has had a row to read; null where it has none. Rows of other
-- slots are passed over, up to a bound. Rows of an application are not looked at.
create or replace function pgtrickle_internal.consumer_work_since(
  outbox pgtrickle_internal.outbox_config, at pgtrickle_internal.consumer_standing)
returns timestamptz
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  since timestamptz;
begin
  if outbox.kind = 'adopted' then
    return at.moved_at;
  end if;
  execute format(
    'select o.created_at '
    'from (select * from pgtrickle.%I n where n.id > $1 order by n.id limit 100000) o '
    'where not o.id <@ $2 and %s = $3 order by o.id limit 1',
    outbox.outbox_table_name, pgtrickle_internal.group_slot_of(at.slots))
    into since using at."position", at.not_read, at.slot;
  return case when since is not null then greatest(since, at.moved_at) end;
end $$;

-- The consumers that have had a row to read, and have not moved, for this long.
create or replace function pgtrickle_internal.consumers_stalled(after interval)
returns table (kind text, name text, relay_group text, outbox_number int, "position" bigint,
               since timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  at pgtrickle_internal.consumer_standing;
  outbox pgtrickle_internal.outbox_config;
  newest bigint;
  work_since timestamptz;
begin
  for at in select s.* from pgtrickle_internal.consumer_standing s
            where s.moved_at < clock_timestamp() - after
            order by s.outbox_number
  loop
    begin
      if outbox.outbox_number is distinct from at.outbox_number then
        newest := null;
        select * into outbox from pgtrickle_internal.outbox_config c
        where c.outbox_number = at.outbox_number;
        newest := pgtrickle_internal.last_drawn(pgtrickle_internal.outbox_sequence(outbox));
      end if;
      continue when (newest > at."position") is not true;
      work_since := pgtrickle_internal.consumer_work_since(outbox, at);
    exception when undefined_table or lock_not_available then
      continue;  -- outbox_status says what is wrong with it
    end;
    if work_since < clock_timestamp() - after then
      return query select at.kind, at.name, at.relay_group, at.outbox_number, at."position",
                          work_since;
    end if;
  end loop;
end $$;

-- Notes that retention deletes rows in front of a consumer.
create or replace function pgtrickle_internal.note_lost_rows(
  outbox_number int, kind text, name text, relay_group text, "position" bigint, rows bigint)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  insert into pgtrickle_internal.consumer_episodes as e
    (event, outbox_number, kind, name, relay_group, "position", lost_rows)
  values ('consumer_lost_rows', outbox_number, kind, name, relay_group, "position", rows)
  on conflict (event, outbox_number, kind, name, relay_group) do update
  set lost_rows = excluded.lost_rows
                  + case when e."position" = excluded."position" then e.lost_rows else 0 end,
      since = case when e."position" = excluded."position" then e.since else excluded.since end,
      told_at = case when e."position" = excluded."position" then e.told_at end,
      "position" = excluded."position";
$$;

-- Notes which consumers have stalled, and forgets those that go on.
create or replace function pgtrickle_internal.note_stalled(after interval) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  with stalled as materialized (
    select s.kind, s.name, s.relay_group, s.outbox_number, min(s."position") as "position",
           min(s.since) as since
    from pgtrickle_internal.consumers_stalled(after) s
    group by 1, 2, 3, 4
  ), noted as (
    insert into pgtrickle_internal.consumer_episodes
      (event, outbox_number, kind, name, relay_group, "position", since)
    select 'consumer_stalled', s.outbox_number, s.kind, s.name, s.relay_group, s."position", s.since
    from stalled s
    on conflict do nothing
  )
  delete from pgtrickle_internal.consumer_episodes e
  where e.event = 'consumer_stalled'
    and not exists (select from stalled s
                    where (s.outbox_number, s.kind, s.name, s.relay_group)
                          = (e.outbox_number, e.kind, e.name, e.relay_group));
end $$;

-- How long a consumer may stand still while it has rows to read. A relay sets it for its session.
create or replace function pgtrickle_internal.stalled_after() returns interval
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(nullif(current_setting('pgtrickle.stalled_after', true), '')::interval,
                  '10 minutes');
exception when others then
  raise warning 'pgtrickle.stalled_after is no interval: %',
    current_setting('pgtrickle.stalled_after', true);
  return '10 minutes';
end $$;

-- Sends the alerts that are due. What a round has deleted is told together, when it has ended or has
-- taken a minute.
create or replace function pgtrickle_internal.tell_of_consumers(report jsonb) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  round_ended constant boolean := not (report ->> 'more')::boolean;
  found record;
begin
  if round_ended then
    perform pgtrickle_internal.note_stalled(pgtrickle_internal.stalled_after());
  end if;
  for found in
    update pgtrickle_internal.consumer_episodes e set told_at = clock_timestamp()
    from pgtrickle_internal.outbox_config c
    where c.outbox_number = e.outbox_number and e.told_at is null
      and (round_ended or e.since < clock_timestamp() - interval '1 minute')
    returning e.*, c.outbox_table_name as outbox, c.outbox_sequence
  loop
    perform pgtrickle_internal.alert(found.event, found.name, jsonb_strip_nulls(jsonb_build_object(
      'name', found.name,
      'kind', case when found.kind = 'pipeline'
                        and exists (select from pgtrickle_internal.change_feeds f
                                    where f.pipeline = found.name) then 'feed'
                   else found.kind end,
      'relay_group', nullif(found.relay_group, ''),
      'outbox', found.outbox, 'since', found.since,
      'lost_rows', case found.event when 'consumer_lost_rows' then found.lost_rows end,
      'lag', case found.event when 'consumer_stalled' then (
        select l.rows from pgtrickle_internal.pipeline_lag(
          found.outbox, found.outbox_sequence, found."position", null) l) end)));
  end loop;
  return report;
exception when others then
  return pgtrickle_internal.report_error(report, 'alerts about consumers', sqlerrm);
end $$;

-- Forgets what was told of consumers that are gone, or have gone on since rows were lost.
create or replace function pgtrickle_internal.prune_episodes() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  delete from pgtrickle_internal.consumer_episodes e
  where e.event = 'consumer_lost_rows' and e.told_at is not null
    and not exists (
      select from pgtrickle.relay_consumer_offsets o
      join pgtrickle_internal.outbox_config c on c.incarnation = o.incarnation
      where e.kind = 'pipeline' and o.pipeline_id = e.name and o.relay_group_id = e.relay_group
        and c.outbox_number = e.outbox_number and o.last_change_id = e."position"
      union all
      select from pgtrickle_internal.consumer_groups g
      join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
      where e.kind = 'group' and g.name = e.name and g.outbox_number = e.outbox_number
      group by g.group_number having min(s."position") = e."position");
$$;
