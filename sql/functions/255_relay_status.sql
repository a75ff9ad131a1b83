-- The state of relays and pipelines at this moment, even when no relay runs to report it.

-- The relays that have reported, and whether each one is alive now.
create or replace function pgtrickle.relay_instances_now()
returns table (relay_group_id text, worker_id text, hostname text, pid int, version text,
               started_at timestamptz, heartbeat_at timestamptz, alive boolean)
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select i.relay_group_id, i.worker_id, i.hostname, i.pid, i.version, i.started_at, i.heartbeat_at,
         s.token is not null
         or (i.lock_backend_pid is not null
             and i.heartbeat_at > clock_timestamp() - interval '5 seconds')
  from pgtrickle.relay_instances i
  left join pgtrickle_internal.live_lease_sessions() s
    on s.relay_group_id = i.relay_group_id and s.worker_id = i.worker_id;
$$;
comment on function pgtrickle.relay_instances_now() is
  'The relays that have reported, and whether each one is alive at this moment';

-- The rows of an outbox behind a position, as far as they can be counted. No outbox has none.
create or replace function pgtrickle_internal.pipeline_lag(
  outbox_table text, outbox_sequence text, position_id bigint, skipped int8multirange,
  out rows bigint, out exact boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
begin
  if outbox_table is null then
    return;
  elsif exists (select from pgtrickle_internal.outbox_config c
                where c.outbox_table_name = outbox_table and c.kind = 'adopted') then
    -- Counting rows of an application would let its code delay the status of all pipelines.
    rows := greatest(pgtrickle_internal.last_drawn(outbox_sequence::oid) - position_id, 0);
    exact := rows = 0;
    return;
  end if;
  select lag.rows, lag.exact into rows, exact
  from pgtrickle_internal.outbox_rows_after(
    outbox_table, pgtrickle_internal.position_passes(outbox_table, position_id, skipped),
    pgtrickle_internal.last_drawn(outbox_sequence::regclass)) lag;
exception when undefined_table or lock_not_available then
  null;  -- an outbox that was dropped by hand, or is locked, has no lag to show
end $$;

-- All pipelines, and the present state of each one. `state` is what its owner reports, or
-- 'disabled', or 'unowned' where no live relay owns it. `lag` of a pipeline that reads an outbox of
-- this database is counted now, exactly where lag_exact says so; that of another is what its owner
-- counted last, and null without an owner. `since` is when the state began, as far as that is known.
create or replace function pgtrickle.relay_pipelines_now()
returns table (pipeline text, direction text, enabled boolean, relay_group_id text, state text,
               owner text, since timestamptz, "position" bigint, lag bigint, lag_exact boolean,
               dead_letters bigint, error_class text, last_error text, remedy text,
               outbox_problem text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  with owners as materialized (
    select l.relay_group_id, l.name, s.worker_id
    from pgtrickle_internal.live_lease_sessions() s
    join pgtrickle.relay_leases l on l.token = s.token and l.kind = 'pipeline'
  ), known as (
    select coalesce(c.name, s.pipeline) as name, c.direction, coalesce(c.enabled, true) as enabled,
           c.config, c.updated_at as configured_at, c.enabled_changed_at, s.relay_group_id as group_id,
           s as said, o.worker_id as owner
    from pgtrickle.relay_pipeline_status s
    left join owners o on o.relay_group_id = s.relay_group_id and o.name = s.pipeline
    full join pgtrickle.relay_config c on c.name = s.pipeline
  )
  select k.name, k.direction, k.enabled, k.group_id,
         case when k.owner is not null and k.owner = (k.said).worker_id then (k.said).state
              when k.owner is not null then 'starting'
              when not k.enabled then 'disabled'
              else 'unowned' end,
         k.owner,
         case when k.owner is not null then (k.said).since
              when not k.enabled then k.enabled_changed_at
              else coalesce(i.heartbeat_at, (k.said).updated_at, k.configured_at) end,
         coalesce(p.last_change_id, (k.said).last_change_id),
         case when p.incarnation is not null then lag.rows
              when k.owner is not null then (k.said).lag end,
         coalesce(lag.exact, p.incarnation is null and k.owner is not null),
         (select count(*) from pgtrickle.relay_dlq d
          where d.pipeline = k.name and d.resolved_at is null
            and (k.group_id is null or d.relay_group_id = k.group_id)),
         case when k.owner is not null then (k.said).error_class end,
         case when k.owner is not null then (k.said).last_error end,
         case when k.owner is not null then (k.said).remedy
              when not k.enabled then format('pgtrickle-relay pipelines enable %s', k.name) end,
         p.outbox_table_name || ': ' || p.problem
  from known k
  left join pgtrickle.relay_instances i
    on i.relay_group_id = k.group_id and i.worker_id = (k.said).worker_id
  -- A pipeline that was given another outbox has positions of both: the one that moved last counts.
  left join lateral (
    select o.incarnation, o.last_change_id, o.skipped, c.outbox_table_name, c.outbox_sequence,
           c.problem
    from pgtrickle.relay_consumer_offsets o
    join pgtrickle_internal.outbox_config c on c.incarnation = o.incarnation
    where o.pipeline_id = k.name
      and (k.group_id is null
           or o.relay_group_id in (k.group_id, pgtrickle_internal.relay_source_option(k.config, 'group')))
    order by o.updated_at desc limit 1) p on true
  left join lateral pgtrickle_internal.pipeline_lag(
    p.outbox_table_name, p.outbox_sequence, p.last_change_id, p.skipped) lag
    on p.incarnation is not null;
$$;
comment on function pgtrickle.relay_pipelines_now() is
  'All pipelines, and how each one fares at this moment: owner, state, position, lag, last error';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_instances_now(), pgtrickle.relay_pipelines_now()
  to pgtrickle_relay;
