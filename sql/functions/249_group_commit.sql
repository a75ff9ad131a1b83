-- What a consumer of a group answers to a poll: that rows are processed, that one cannot be, that
-- it needs more time. And how a group is set back or forward.

create or replace function pgtrickle_internal.raise_lease_lost(group_number int, consumer text)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'consumer "%" has no lease of consumer group "%"', consumer,
      (select g.name from pgtrickle_internal.consumer_groups g
       where g.group_number = raise_lease_lost.group_number)
    using errcode = 'object_not_in_prerequisite_state',
          detail = 'lease_lost: the time that a poll gave is over, or there was none.',
          hint = 'Roll back what you did with the rows, and poll again: they are delivered again, '
                 'perhaps to another consumer. A larger visibility_seconds or extend_lease() gives '
                 'more time.';
end $$;

-- The slots that a consumer holds and whose lease lives, locked.
create or replace function pgtrickle_internal.group_held(group_number int, consumer text)
returns setof pgtrickle_internal.consumer_slots
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.* from pgtrickle_internal.consumer_slots s
    where s.group_number = group_held.group_number and s.holder = group_held.consumer
      and s.until > clock_timestamp()
    order by s.slot for update;
  if not found then
    perform pgtrickle_internal.raise_lease_lost(group_number, consumer);
  end if;
end $$;

create or replace function pgtrickle_internal.group_commit(number int, pass bytea, consumer text,
                                                           last_offset bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  held pgtrickle_internal.consumer_slots[];
  offered_to bigint;
  committed uuid;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  select array_agg(h), max(coalesce(h.offered, h."position")) into held, offered_to
  from pgtrickle_internal.group_held(number, consumer) h;
  if last_offset > offered_to then
    raise exception 'consumer "%" cannot commit %: it was given rows up to % only', consumer,
        last_offset, offered_to
      using errcode = 'invalid_parameter_value',
            hint = 'Commit the outbox_id of the last row that you have processed. seek_offset() '
                   'skips rows.';
  end if;
  execute format('select o.pgt_id from pgtrickle.%I o where o.id = $1', (
    select c.outbox_table_name
    from pgtrickle_internal.consumer_groups g
    join pgtrickle_internal.outbox_config c on c.outbox_number = g.outbox_number
    where g.group_number = number)) into committed using last_offset;
  -- Where all rows of a slot are committed, what was looked at behind them is passed as well.
  update pgtrickle_internal.consumer_slots s
  set "position" = n.passed,
      offered = null, delivered = null, attempts = 0, moved_at = clock_timestamp(),
      mark_id = case when committed is null then s.mark_id else last_offset end,
      mark = coalesce(committed, s.mark),
      rejected = case when upper(h.rejected) <= n.passed + 1 then '{}' else h.rejected end
  from unnest(held) h
  cross join lateral (
    select case when last_offset >= h.delivered then h.offered else last_offset end) n (passed)
  where s.group_number = number and s.slot = h.slot and h.offered is not null
    and n.passed > h."position";
end $$;

create or replace function pgtrickle.commit_offset("group" text, consumer text, last_offset bigint)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  if last_offset is null then
    raise exception 'last_offset is null: there is nothing to commit'
      using errcode = 'null_value_not_allowed',
            hint = 'Commit the outbox_id of the last row that you have processed.';
  end if;
  mine := pgtrickle_internal.my_group("group");
  perform pgtrickle_internal.group_commit(mine.number, mine.pass, consumer, last_offset);
end $$;
comment on function pgtrickle.commit_offset(text, text, bigint) is
  'Says that all rows of a poll up to this outbox_id are processed; an error after the lease';

create or replace function pgtrickle_internal.group_reject(
  number int, pass bytea, consumer text, outbox_id bigint, error text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  g record;
  of_slot int;
  s pgtrickle_internal.consumer_slots;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  select n.name, n.slots, c.kind, c.outbox_table_name as outbox_table into g
  from pgtrickle_internal.consumer_groups n
  join pgtrickle_internal.outbox_config c on c.outbox_number = n.outbox_number
  where n.group_number = number;
  execute format('select %s from pgtrickle.%I o where o.id = $1',
                 pgtrickle_internal.group_slot_of(g.slots), g.outbox_table)
    into of_slot using outbox_id;
  select h.* into s from pgtrickle_internal.group_held(number, consumer) h
  where h.slot = of_slot and outbox_id > h."position" and outbox_id <= h.delivered;
  if s.slot is null then
    raise exception 'row % was not given to consumer "%", or is committed already', outbox_id,
        consumer
      using errcode = 'invalid_parameter_value',
            hint = 'Reject a row of the last poll, before you commit it.';
  elsif outbox_id <@ s.rejected then
    return;
  end if;
  perform pgtrickle_internal.group_dead_letter(g.name, g.outbox_table, g.kind, outbox_id,
                                               s.attempts, 'rejected', error);
  update pgtrickle_internal.consumer_slots o
  set rejected = o.rejected + int8multirange(int8range(outbox_id, outbox_id, '[]'))
  where o.group_number = number and o.slot = s.slot;
end $$;

create or replace function pgtrickle.reject_offset("group" text, consumer text, outbox_id bigint,
                                                   error text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  if outbox_id is null then
    raise exception 'outbox_id is null: there is nothing to reject'
      using errcode = 'null_value_not_allowed';
  end if;
  mine := pgtrickle_internal.my_group("group");
  perform pgtrickle_internal.group_reject(mine.number, mine.pass, consumer, outbox_id, error);
end $$;
comment on function pgtrickle.reject_offset(text, text, bigint, text) is
  'Makes a dead letter (relay_dlq) of one row of the last poll: it is not delivered again';

create or replace function pgtrickle_internal.group_seek(number int, pass bytea, new_offset bigint)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  newest bigint;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  -- The lock keeps retention from passing the new position until it is stored.
  select c.* into outbox from pgtrickle_internal.outbox_config c
  where c.outbox_number = (select g.outbox_number from pgtrickle_internal.consumer_groups g
                           where g.group_number = number)
  for share;
  newest := pgtrickle_internal.last_drawn(outbox.outbox_sequence::regclass);
  if new_offset < outbox.purged_below or new_offset > newest then
    raise exception 'there is no offset % in outbox %', new_offset, outbox.outbox_table_name
      using errcode = 'invalid_parameter_value',
            hint = format('It has offsets from %s (all rows that are kept) to %s (the last id).',
                          outbox.purged_below, newest);
  end if;
  -- A seek is how a group goes on after the outbox was set back.
  perform pgtrickle_internal.forget_looks(outbox.outbox_number);
  perform from pgtrickle_internal.consumer_slots s where s.group_number = number
  order by s.slot for update;
  update pgtrickle_internal.consumer_slots s
  set "position" = new_offset, offered = null, delivered = null, attempts = 0, rejected = '{}',
      holder = null, until = null, mark_id = null, mark = null, moved_at = clock_timestamp()
  where s.group_number = number;
  update pgtrickle_internal.consumer_groups g set skipped = null, awaits_snapshot = false
  where g.group_number = number and (g.skipped is not null or g.awaits_snapshot);
end $$;

create or replace function pgtrickle.seek_offset("group" text, consumer text, new_offset bigint)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  if new_offset is null then
    raise exception 'new_offset is null' using errcode = 'null_value_not_allowed',
      hint = 'The group goes on with the row behind new_offset; 0 is the beginning.';
  end if;
  mine := pgtrickle_internal.my_group("group");
  perform pgtrickle_internal.group_seek(mine.number, mine.pass, new_offset);
end $$;
comment on function pgtrickle.seek_offset(text, text, bigint) is
  'Sets a whole consumer group to an offset, back or forward: all its leases end';

create or replace function pgtrickle_internal.group_extend(number int, pass bytea, consumer text,
                                                           extension_seconds int)
returns timestamptz
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  extended timestamptz;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  extended := clock_timestamp() + make_interval(secs => extension_seconds);
  perform pgtrickle_internal.group_held(number, consumer);
  update pgtrickle_internal.consumer_slots s set until = greatest(s.until, extended)
  where s.group_number = number and s.holder = group_extend.consumer;
  perform pgtrickle_internal.group_seen(number, consumer, make_interval(secs => extension_seconds));
  return extended;
end $$;

create or replace function pgtrickle.extend_lease("group" text, consumer text,
                                                  extension_seconds int default 30)
returns timestamptz
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  if (extension_seconds between 1 and 43200) is not true then
    raise exception 'extension_seconds must be 1 to 43200, not %',
        coalesce(extension_seconds::text, 'null')
      using errcode = 'invalid_parameter_value';
  end if;
  mine := pgtrickle_internal.my_group("group");
  return pgtrickle_internal.group_extend(mine.number, mine.pass, consumer, extension_seconds);
end $$;
comment on function pgtrickle.extend_lease(text, text, int) is
  'Keeps the rows of the last poll for this long from now; returns until when';

create or replace function pgtrickle_internal.group_heartbeat(number int, pass bytea, consumer text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  perform pgtrickle_internal.group_seen(number, consumer, '1 minute');
end $$;

create or replace function pgtrickle.consumer_heartbeat("group" text, consumer text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  mine := pgtrickle_internal.my_group("group");
  perform pgtrickle_internal.group_heartbeat(mine.number, mine.pass, consumer);
end $$;
comment on function pgtrickle.consumer_heartbeat(text, text) is
  'Says that a consumer lives, for a minute: it keeps its share of the slots, but no rows';

grant execute on function
  pgtrickle.commit_offset(text, text, bigint), pgtrickle.reject_offset(text, text, bigint, text),
  pgtrickle.seek_offset(text, text, bigint), pgtrickle.extend_lease(text, text, int),
  pgtrickle.consumer_heartbeat(text, text),
  pgtrickle_internal.group_commit(int, bytea, text, bigint),
  pgtrickle_internal.group_reject(int, bytea, text, bigint, text),
  pgtrickle_internal.group_seek(int, bytea, bigint),
  pgtrickle_internal.group_extend(int, bytea, text, int),
  pgtrickle_internal.group_heartbeat(int, bytea, text)
  to pgtrickle_consumer;
