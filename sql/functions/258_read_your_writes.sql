-- Read your writes: a session waits until a consumer has what the session wrote.

-- The id of the last row that this session wrote into an outbox, by whatever means; null where it has
-- written none. What was rolled back counts too: a consumer passes its id as any other.
create or replace function pgtrickle.my_change(outbox text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  meant constant pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(outbox);
begin
  return currval(pgtrickle_internal.outbox_sequence(meant));
exception when object_not_in_prerequisite_state then
  return null;
when insufficient_privilege then
  raise exception 'the ids of adopted outbox "%" are not shown to pgtrickle', outbox
    using errcode = 'insufficient_privilege',
          hint = format('INSERT ... RETURNING has the id. Or: GRANT SELECT ON SEQUENCE %s TO '
                        'pgtrickle_owner;', pgtrickle_internal.outbox_sequence(meant));
end $$;
comment on function pgtrickle.my_change(text) is
  'The id of this session''s last change in an outbox, for wait_for_consumer(); null: it made none';

-- The outboxes that a consumer reads, and up to where it is past everything in each of them; null
-- where it has no position yet. No row: there is no such consumer, or it reads no outbox of this
-- database. `stopped`: nothing moves it.
--
-- Of a pipeline the positions of the relay groups count that live, and all of them where none does.
create or replace function pgtrickle_internal.consumer_passed(consumer text)
returns table (outbox_number int, passed bigint, stopped boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
    select g.outbox_number,
           min(pgtrickle_internal.position_passes(c.outbox_table_name, s."position", g.skipped)),
           false
    from pgtrickle_internal.consumer_groups g
    join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
    join pgtrickle_internal.outbox_config c on c.outbox_number = g.outbox_number
    where g.name = consumer
    group by g.outbox_number;
  if found then
    return;
  end if;
  return query
    with positions as (
      select c.outbox_number,
             pgtrickle_internal.position_passes(
               c.outbox_table_name, o.last_change_id - (o.last_row > 0)::int, o.skipped) as passed,
             coalesce(p.config ? 'group' or p.config -> 'source' ? 'group', false) or exists (
               select from pgtrickle.relay_instances i
               where i.relay_group_id = o.relay_group_id
                 and i.heartbeat_at > clock_timestamp() - interval '10 minutes') as lives,
             p.enabled
      from pgtrickle.relay_consumer_offsets o
      join pgtrickle_internal.outbox_config c on c.incarnation = o.incarnation
      left join pgtrickle.relay_config p on p.name = o.pipeline_id
      where o.pipeline_id = consumer
        and coalesce(pgtrickle_internal.names_outbox(p.outbox_name, p.name, o.incarnation), true))
    select p.outbox_number,
           coalesce(min(p.passed) filter (where p.lives), min(p.passed)),
           bool_and(p.enabled is false)
    from positions p group by p.outbox_number;
  if found then
    return;
  end if;
  return query
    select pgtrickle_internal.pipeline_outbox(p.outbox_name, null, p.name), null::bigint,
           not p.enabled
    from pgtrickle.relay_config p where p.name = consumer and p.outbox_name is not null;
end $$;

-- Raises where a wait for a consumer to pass an id can have no answer.
create or replace function pgtrickle_internal.require_waitable(name text, id bigint,
                                                               timeout interval) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  most constant interval := '1 minute';
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'wait_for_consumer must run in a READ COMMITTED transaction'
      using errcode = 'feature_not_supported',
            detail = 'The snapshot of this transaction is fixed: neither the wait nor what follows '
                     'it would see what the consumer has done.',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED; or call it without BEGIN.';
  elsif name is null then
    raise exception 'the name of the consumer is null' using errcode = 'null_value_not_allowed';
  elsif id is null then
    raise exception 'the id to wait for is null' using errcode = 'null_value_not_allowed',
      hint = 'my_change() is null where the session has written nothing into that outbox.';
  elsif id < 1 then
    raise exception 'there is no id %', id using errcode = 'invalid_parameter_value',
      hint = 'The ids of an outbox begin at 1; my_change() and publish() return them.';
  elsif (timeout between interval '0' and most) is not true then
    raise exception 'timeout must be 0 to 1 minute, not %', coalesce(timeout::text, 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'A statement that waits for longer would hold up VACUUM. Call it again.';
  end if;
end $$;

create or replace function pgtrickle.wait_for_consumer(
  name text, id bigint, timeout interval default '10 seconds') returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  until timestamptz;
  pause interval := '4 milliseconds';
  outbox pgtrickle_internal.outbox_config;
  at record;
begin
  perform pgtrickle_internal.require_waitable(name, id, timeout);
  until := clock_timestamp() + timeout;
  loop
    begin
      select * into strict at from pgtrickle_internal.consumer_passed(name);
    exception when no_data_found then
      raise exception 'there is no consumer "%" that reads an outbox of this database', name
        using errcode = 'undefined_object',
              hint = 'It is the name of a consumer group or of a pipeline.';
    when too_many_rows then
      raise exception 'pipeline "%" has positions in several outboxes', name
        using errcode = 'object_not_in_prerequisite_state',
              hint = 'pgtrickle.consumers shows them. A configuration file pointed it at another '
                     'outbox: give the pipeline another name.';
    end;
    exit when at.passed >= id;
    if outbox.outbox_number is null then
      select * into outbox from pgtrickle_internal.outbox_config c
      where c.outbox_number = at.outbox_number;
      perform pgtrickle_internal.require_to_come(outbox, id);
    end if;
    if at.stopped then
      raise notice 'consumer "%" is disabled: it will not pass %', name, id
        using hint = format('SELECT pgtrickle.enable_relay(%L);', name);
      return false;
    end if;
    if clock_timestamp() >= until then
      return false;
    end if;
    perform pg_sleep_for(least(pause, until - clock_timestamp()));
    pause := least(pause * 2, interval '50 milliseconds');
  end loop;
  return true;
end $$;
comment on function pgtrickle.wait_for_consumer(text, bigint, interval) is
  'Waits until a pipeline or consumer group is past an id of its outbox; false: it was not in time';

-- Raises where no consumer of an outbox can pass an id while this transaction waits: its own
-- transaction has to commit first, or the id has not been drawn.
create or replace function pgtrickle_internal.require_to_come(
  outbox pgtrickle_internal.outbox_config, id bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  newest bigint;
begin
  if outbox.outbox_number is null or pg_is_in_recovery() then
    return;  -- what a standby has not seen yet may come
  end if;
  newest := pgtrickle_internal.last_drawn(pgtrickle_internal.outbox_sequence(outbox));
  if id > newest then
    raise exception 'there is no id % in outbox %: the last one is %', id,
        outbox.outbox_table_name, newest
      using errcode = 'invalid_parameter_value',
            hint = 'my_change() and publish() return the id of a change.';
  elsif exists (
      select from pg_locks l
      where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.relation = case when outbox.kind = 'adopted' then outbox.outbox_oid
                              else to_regclass(format('pgtrickle.%I', outbox.outbox_table_name)) end)
  then
    raise exception 'this transaction has written into outbox % and has not ended',
        outbox.outbox_table_name
      using errcode = 'object_not_in_prerequisite_state',
            detail = 'No consumer sees a change before it has committed.',
            hint = 'COMMIT, then wait.';
  end if;
end $$;

grant execute on function
  pgtrickle.my_change(text), pgtrickle.wait_for_consumer(text, bigint, interval)
  to pgtrickle_publisher, pgtrickle_consumer;
