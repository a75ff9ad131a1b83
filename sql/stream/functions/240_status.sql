-- What health shows of a stream.

-- Subscriptions that make no events, or make them for another role than the owner of their table,
-- or by a function that an upgrade could not replace.
create or replace function pgstream.subscription_problems(stream bigint)
returns table (key text, schema_name text, table_name text, operation text, problem text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select s.key, s.schema_name, s.table_name, s.operation, p.problem
  from pgstream.subscriptions s
  left join pgstream._subscriptions c using (stream_id, key, schema_name, table_name, operation)
  left join pgstream._tables t using (schema_name, table_name)
  left join pg_proc f on f.pronamespace = 'pgstream'::regnamespace
                     and f.proname = pgstream._function_name(t.part, s.operation)
  left join pg_class r on r.oid = pgstream._relation(s.schema_name, s.table_name)
  left join lateral (
    select g.tgrelid, g.tgenabled from pg_trigger g
    where g.tgfoid = f.oid and g.tgparentid = 0
      and encode(g.tgargs, 'escape') like concat('%', c.revision, '%')
    order by g.tgrelid = r.oid desc nulls last limit 1) g on true
  cross join lateral (values (case
    when g.tgrelid is null and r.oid is null then 'the table does not exist'
    when g.tgrelid is null then 'the table has no trigger for it: UPDATE the subscription'
    when g.tgenabled = 'D' then 'its trigger is disabled'
    when g.tgrelid is distinct from r.oid
      then format('the table is called %s now', g.tgrelid::regclass)
    when f.proowner <> r.relowner then format(
      'its function %s belongs to "%s", and not to the owner of the table', f.oid::regprocedure,
      pg_get_userbyid(f.proowner))
    when f.prosrc <> pgstream._body(t.part, s.schema_name, s.table_name, s.operation)
      then 'its function is not the one that this version makes: UPDATE the subscription' end))
    p (problem)
  where s.stream_id = stream and p.problem is not null
  order by 1, 2, 3, 4;
$$;
comment on function pgstream.subscription_problems(bigint) is
  'The subscriptions of a stream that make no events, or make them for another role';

-- The daemon asks every few seconds: what may have any number of rows is counted up to 10,000.
create or replace function pgstream.stream_status(stream bigint) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'stream', s.id,
    'on_error', s.on_error,
    'owner', s.owner,
    'subscriptions', (select count(*) from pgstream.subscriptions u where u.stream_id = s.id),
    'problems', (select coalesce(jsonb_agg(to_jsonb(p.*)), '[]')
                 from pgstream.subscription_problems(s.id) p),
    'failed_events', (select coalesce(jsonb_object_agg(f.key, f.n), '{}')
                      from (select e.key, count(*) as n
                            from (select f.key from pgstream.failed_events f
                                  where f.stream_id = s.id limit 10000) e
                            group by e.key) f),
    -- Their numbers have gaps only for moments.
    'backlog_transactions', (select coalesce(max(b.n) - min(b.n) + 1, 0)
                             from pgstream.backlog b where b.stream_id = s.id),
    -- Those of all streams: they have no index by stream.
    'overflow_rows', (select count(*) from (select from pgstream.events_overflow limit 10000) o),
    'partitions_ahead', (
      select count(*) from generate_series(0, 9) n
      where pgstream._has_partition(now() + n * interval '1 day')))
  from pgstream.streams s where s.id = stream;
$$;
comment on function pgstream.stream_status(bigint) is 'What health shows of a stream';
