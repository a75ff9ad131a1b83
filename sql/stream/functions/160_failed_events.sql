-- Changes whose event could not be made: pgstream.failed_events.

alter table pgstream.failed_events enable row level security;
drop policy if exists of_own_tables on pgstream.failed_events;
create policy of_own_tables on pgstream.failed_events
  using (pgstream._may_write(schema_name, table_name, null));
do $$
begin
  if to_regrole('pgstream_daemon') is not null then
    drop policy if exists counted on pgstream.failed_events;
    create policy counted on pgstream.failed_events for select to pgstream_daemon using (true);
  end if;
end $$;

-- The payload of a failed event; null where its condition is not met. The rows come from the images
-- that were kept: each column that the subscription reads must be in them, under the name that it
-- has now.
create or replace function pgstream._failed_payload(failed pgstream.failed_events,
                                                    compiled pgstream._subscriptions)
returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
  set array_nulls = 'on' set bytea_output = 'hex' set "DateStyle" = 'ISO'
  set extra_float_digits = 1 set "IntervalStyle" = 'postgres' set lc_monetary = 'C'
  set quote_all_identifiers = 'off' set "TimeZone" = 'UTC'
as $$
declare
  relation constant text := format('%I.%I', failed.schema_name, failed.table_name);
  images constant jsonb := coalesce(failed.new_row, failed.old_row);
  missing text;
  matches boolean;
  payload jsonb;
begin
  select c.name into missing from unnest(compiled.columns) c (name)
  where not images ? c.name or images -> '__pgtrickle_omitted' ? c.name;
  if found then
    raise exception 'column "%" is not in the row that was kept', missing
      using errcode = 'undefined_column';
  end if;
  execute format(
    'select %s, %s from jsonb_populate_record(null::%s, $1) new, '
    'jsonb_populate_record(null::%s, $2) old',
    case when failed.in_condition then coalesce(compiled.condition_sql, 'true') else 'true' end,
    compiled.payload_sql, relation, relation)
  into matches, payload using failed.new_row, failed.old_row;
  return case when matches then payload || jsonb_build_object('timestamp', floor(
                extract(epoch from failed.happened_at) * 1000)::bigint) end;
end $$;

-- Makes the events of failed changes, and returns how many. Run it as the owner of the tables,
-- after the cause is gone: expressions run with the rights of the caller, so changes of tables of
-- other owners are left. Subscriptions whose table has changed are compiled again first.
create or replace function pgstream.retry_failed() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  s record;
  failed pgstream.failed_events;
  compiled pgstream._subscriptions;
  payload jsonb;
  made bigint := 0;
begin
  for s in
    select f.stream_id, f.key, f.schema_name, f.table_name, f.operation, u.metadata, t.part
    from (select distinct e.stream_id, e.key, e.schema_name, e.table_name, e.operation
          from pgstream.failed_events e) f
    join pgstream.subscriptions u using (stream_id, key, schema_name, table_name, operation)
    join pgstream._tables t using (schema_name, table_name)
    join pg_class c on c.oid = pgstream._relation(f.schema_name, f.table_name)
                   and pg_get_userbyid(c.relowner) = current_user
    order by f.stream_id, f.key
  loop
    begin
      update pgstream.subscriptions u set key = u.key
      where (u.stream_id, u.key, u.schema_name, u.table_name, u.operation)
            = (s.stream_id, s.key, s.schema_name, s.table_name, s.operation);
    exception when others then
      raise notice 'subscription "%" of stream %: %', s.key, s.stream_id, sqlerrm;
      continue;
    end;
    select c.* into compiled from pgstream._subscriptions c
    where (c.stream_id, c.key, c.schema_name, c.table_name, c.operation)
          = (s.stream_id, s.key, s.schema_name, s.table_name, s.operation);
    for failed in
      select e.* from pgstream.failed_events e
      where (e.stream_id, e.key, e.schema_name, e.table_name, e.operation)
            = (s.stream_id, s.key, s.schema_name, s.table_name, s.operation)
      order by e.id for update skip locked
    loop
      begin
        payload := pgstream._failed_payload(failed, compiled);
        if payload is not null then
          execute format('select pgstream.%I($1, $2, $3)', '_write_' || s.part)
          using s.stream_id, payload, s.metadata;
          made := made + 1;
        end if;
        delete from pgstream.failed_events e where e.id = failed.id;
      exception when others or assert_failure then
        update pgstream.failed_events e
        set attempts = e.attempts + 1, failed_at = clock_timestamp(), error_code = sqlstate,
            error_message = sqlerrm
        where e.id = failed.id;
      end;
    end loop;
  end loop;
  if exists (select from pgstream.failed_events) then
    raise notice '% failed events are left', (select count(*) from pgstream.failed_events)
      using hint = 'See error_message in pgstream.failed_events. Those of other owners'' tables '
                   'are retried by their owners.';
  end if;
  return made;
end $$;
