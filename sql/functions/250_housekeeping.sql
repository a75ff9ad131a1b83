-- Housekeeping: periodic work that a relay calls for, in short transactions.

insert into pgtrickle_internal.locks values ('housekeeping') on conflict do nothing;
insert into pgtrickle_internal.housekeeping_round default values on conflict do nothing;

-- One bounded step of housekeeping; {"more": true} when the next one should follow soon. A step
-- deletes from one outbox at most and looks at no more than 100, so that it holds few locks, and
-- not for long; upkeep is done as a round begins. What fails for one outbox is reported in "errors"
-- and keeps nothing else from being done. "warnings" are readers that will stop holding rows back
-- within a day; "lost" are rows that were deleted in front of one.
create or replace function pgtrickle.relay_housekeeping(max_rows int default 10000) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms'
as $$
declare
  report jsonb := '{"more": false, "upkeep": 0, "deleted": 0, "delta_rows": 0, "lost": [], '
                  '"warnings": [], "errors": []}';
  inbox_rows_left boolean;
  feed_rows_left boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'housekeeping must run in a READ COMMITTED transaction'
      using errcode = 'invalid_transaction_state',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED; or, in a scheduler''s session, '
                   'SET default_transaction_isolation TO ''read committed'';';
  end if;
  if not pgtrickle_internal.try_lock('housekeeping') then
    return report || '{"busy": true}';
  end if;
  if (select r.after_table = '' from pgtrickle_internal.housekeeping_round r) then
    report := pgtrickle_internal.finish_upgrade(pgtrickle_internal.upkeep(report));
    perform pgtrickle_internal.refresh_signs_of_life();
    perform pgtrickle_internal.prune_relay_records();
    perform pgtrickle_internal.prune_episodes();
    select i.done, i.more into report, inbox_rows_left
    from pgtrickle_internal.purge_inboxes(report, greatest(max_rows, 1)) i;
    select f.done, f.more into report, feed_rows_left
    from pgtrickle_internal.purge_feeds(report, greatest(max_rows, 1)) f;
    update pgtrickle_internal.housekeeping_round r
    set again = r.again or inbox_rows_left or feed_rows_left;
  end if;
  return pgtrickle_internal.tell_of_consumers(
    pgtrickle_internal.purge_next_outbox(report, greatest(max_rows, 1)));
end $$;
comment on function pgtrickle.relay_housekeeping(int) is
  'For the relay: one step of retention and upkeep; "more" in its answer asks for the next soon';

-- Lets capture handle tables that were created, dropped or changed.
create or replace function pgtrickle_internal.upkeep(report jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  changed int;
begin
  -- First: it binds the outboxes of restored stream tables to their tables again.
  if to_regprocedure('pgtrickle_internal.stream_upkeep()') is not null then
    execute 'select pgtrickle_internal.stream_upkeep()';
  end if;
  if to_regprocedure('pgtrickle.outbox_capture_upkeep()') is not null then
    execute 'select pgtrickle.outbox_capture_upkeep()' into changed;
  end if;
  return report || jsonb_build_object('upkeep', coalesce(changed, 0));
exception when others then
  return pgtrickle_internal.report_error(report, 'capture upkeep', sqlerrm);
end $$;

-- Goes on with the round until an outbox had something to delete, and puts what it did into report.
create or replace function pgtrickle_internal.purge_next_outbox(report jsonb, max_rows int)
returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  round pgtrickle_internal.housekeeping_round;
  outbox record;
  done jsonb;
begin
  select * into round from pgtrickle_internal.housekeeping_round;
  for outbox in
    select c.incarnation, c.outbox_table_name, c.outbox_sequence, c.purged_below,
           coalesce(l.delta_left, false) as delta_left
    from pgtrickle_internal.outbox_config c
    left join pgtrickle_internal.outbox_looks l on l.incarnation = c.incarnation
    where c.outbox_table_name > round.after_table and c.kind <> 'adopted'
    order by c.outbox_table_name
    limit 100
  loop
    round.after_table := outbox.outbox_table_name;
    begin
      -- Mostly there is nothing: the newest row is gone already, or has never been.
      continue when not outbox.delta_left
        and pgtrickle_internal.last_drawn(outbox.outbox_sequence::regclass) <= outbox.purged_below;
      done := pgtrickle_internal.purge_outbox(outbox.incarnation, max_rows, outbox.delta_left);
      report := jsonb_set(report, '{warnings}', report -> 'warnings' || (done -> 'warnings'));
      if (done ->> 'deleted')::bigint > 0 or (done ->> 'delta_rows')::bigint > 0 then
        round.again := round.again or (done ->> 'more')::boolean;
        report := report || (done - 'warnings')
          || jsonb_build_object('outbox', outbox.outbox_table_name);
        exit;
      end if;
    exception when others then
      report := pgtrickle_internal.report_error(report, outbox.outbox_table_name, sqlerrm);
    end;
  end loop;

  if exists (select from pgtrickle_internal.outbox_config c
             where c.outbox_table_name > round.after_table and c.kind <> 'adopted') then
    report := report || '{"more": true}';
  else
    report := report || jsonb_build_object('more', round.again);
    round.after_table := '';
    round.again := false;
  end if;
  update pgtrickle_internal.housekeeping_round r
  set after_table = round.after_table, again = round.again;
  return report;
end $$;

create or replace function pgtrickle_internal.report_error(report jsonb, what text, error text)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_set(report, '{errors}',
                   report -> 'errors' || jsonb_build_object('what', what, 'error', error));
$$;

-- Marks, at most every hour, the positions behind which a relay lives: a pipeline that had nothing
-- to read for a long time must not look dead when its relay stops for an hour.
create or replace function pgtrickle_internal.refresh_signs_of_life() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  update pgtrickle.relay_consumer_offsets o set seen_at = clock_timestamp()
  where (o.relay_group_id, o.pipeline_id, o.incarnation) in (
    select p.relay_group_id, p.pipeline_id, p.incarnation
    from pgtrickle.relay_consumer_offsets p
    left join pgtrickle.relay_config c on c.name = p.pipeline_id
    left join pgtrickle.relay_pipeline_status s
      on s.relay_group_id = p.relay_group_id and s.pipeline = p.pipeline_id
    where p.seen_at < clock_timestamp() - interval '1 hour'
      and coalesce(c.enabled, s.state <> 'stopped')
      and exists (select from pgtrickle.relay_instances i
                  where i.heartbeat_at > clock_timestamp() - interval '10 minutes'
                    and (i.relay_group_id = p.relay_group_id
                         or pgtrickle_internal.relay_source_option(c.config, 'group') <> ''))
    for update of p skip locked);
$$;

-- Deletes old records: instances, status of pipelines that are not in the catalog and finished
-- replays after 30 days (but not the last replay of a pipeline, whose number must not come again),
-- and looks at outboxes that are gone.
create or replace function pgtrickle_internal.prune_relay_records() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle.relay_instances i
  where i.heartbeat_at < clock_timestamp() - interval '30 days';
  delete from pgtrickle.relay_pipeline_status s
  where s.updated_at < clock_timestamp() - interval '30 days'
    and not exists (select from pgtrickle.relay_config c where c.name = s.pipeline);
  delete from pgtrickle.relay_replays r
  where r.finished_at < clock_timestamp() - interval '30 days'
    and exists (select from pgtrickle.relay_replays n
                where n.pipeline = r.pipeline and n.number > r.number);
  delete from pgtrickle_internal.outbox_looks l
  where not exists (select from pgtrickle_internal.outbox_config c where c.incarnation = l.incarnation);
  delete from pgtrickle_internal.consumer_looks l
  where not exists (select from pgtrickle_internal.outbox_config c
                    where c.outbox_number = l.outbox_number);
end $$;

-- What the daemon calls.
grant execute on function pgtrickle.relay_housekeeping(integer) to pgtrickle_relay;
