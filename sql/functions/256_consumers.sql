-- All consumers: a consumer is a named position in an outbox. Pipelines and groups are kinds of it.

-- How many rows come after a position of a group, for a caller that may see the group.
create or replace function pgtrickle_internal.group_lag(group_number int, sight bytea,
                                                        "position" bigint) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox record;
begin
  perform pgtrickle_internal.require_pass('sight', group_number, sight);
  select c.outbox_table_name as name, c.outbox_sequence as sequence into outbox
  from pgtrickle_internal.consumer_groups g
  join pgtrickle_internal.outbox_config c on c.outbox_number = g.outbox_number
  where g.group_number = group_lag.group_number;
  return (select a.rows from pgtrickle_internal.outbox_rows_after(
            outbox.name, group_lag."position",
            pgtrickle_internal.last_drawn(outbox.sequence::regclass)) a);
end $$;

-- Each role sees the groups that it may use; pgtrickle_relay sees all consumers.
create or replace view pgtrickle.consumers with (security_barrier) as
  select o.pipeline_id as name,
         case when exists (select from pgtrickle_internal.change_feeds f
                           where f.pipeline = o.pipeline_id) then 'feed' else 'pipeline' end as kind,
         coalesce(c.outbox_table_name, o.outbox_name) as outbox, null::int as slot,
         o.last_change_id as "position", null::bigint as offered, o.worker_id as holder,
         null::timestamptz as until, null::int as attempts, s.lag, o.lost_rows,
         greatest(o.updated_at, o.seen_at) as seen_at
  from pgtrickle.relay_consumer_offsets o
  left join pgtrickle_internal.outbox_config c on c.incarnation = o.incarnation
  left join lateral (
    -- A position that is kept under another group is written by the owner of the pipeline.
    select p.lag from pgtrickle.relay_pipeline_status p
    where p.pipeline = o.pipeline_id
      and (p.relay_group_id = o.relay_group_id or p.worker_id = o.worker_id)
    order by p.updated_at desc limit 1) s on true
  where pg_has_role(current_user, 'pgtrickle_relay', 'USAGE')
  union all
  select g.name, 'group', c.outbox_table_name, s.slot, s."position", s.offered, s.holder, s.until,
         s.attempts, pgtrickle_internal.group_lag(s.group_number, g.sight, s."position"),
         s.lost_rows,
         greatest(s.moved_at, m.seen_at)
  from pgtrickle_internal.group_access g
  join pgtrickle_internal.outbox_config c on c.outbox_number = g.outbox_number
  join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
  left join lateral (
    select max(n.seen_at) as seen_at from pgtrickle_internal.consumer_members n
    where n.group_number = g.group_number) m on true;
comment on view pgtrickle.consumers is
  'All consumers of outboxes, pipelines, feeds and groups: position, what is offered to whom, lag, what '
  'retention deleted before it was read';

create or replace function pgtrickle.consumer_lag("group" text default null)
returns setof pgtrickle.consumers
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  return query select c.* from pgtrickle.consumers c
               where c.kind = 'group' and ("group" is null or c.name = "group")
               order by c.name, c.slot;
  if not found and "group" is not null then
    perform pgtrickle_internal.my_group("group");
  end if;
end $$;
comment on function pgtrickle.consumer_lag(text) is
  'The slots of a consumer group, or of all that the caller may see, with their lag';

grant select on pgtrickle.consumers to pgtrickle_consumer;
grant execute on function pgtrickle.consumer_lag(text),
  pgtrickle_internal.group_lag(int, bytea, bigint) to pgtrickle_consumer, pgtrickle_relay;
