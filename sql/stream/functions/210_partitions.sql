-- The partitions of pgstream.events: a table for each UTC day.
--
-- No step makes a writer wait. A partition is made as a table and attached in the same transaction,
-- and is detached CONCURRENTLY, which no function can do: partition_work() names the statements,
-- and the daemon runs them one by one.

-- Makes the partitions of today and of the next days; returns how many were made.
create or replace function pgstream.make_partitions(days int default 3) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms' set "TimeZone" = 'UTC' set "DateStyle" = 'ISO'
as $$
declare
  today constant date := current_date;
  day date;
  made int := 0;
begin
  for day in select today + n from generate_series(0, days - 1) n loop
    continue when to_regclass(pgstream._partition_of(day)) is not null;
    begin
      execute format('create table %s (like pgstream.events including defaults including '
                     'constraints)', pgstream._partition_of(day));
      execute format('alter table pgstream.events attach partition %s for values from (%L) to (%L)',
                     pgstream._partition_of(day), day::timestamptz, (day + 1)::timestamptz);
      made := made + 1;
    exception when duplicate_table or unique_violation then
      null;  -- Another daemon has made it.
    end;
  end loop;
  return made;
end $$;
comment on function pgstream.make_partitions(int) is
  'Makes the partitions of today and of the next days; returns how many were made';

-- Whether a partition is kept: an event in it is needed, a stream's checkpoint is not past it, or a
-- transaction, which may be a prepared one, has used it.
create or replace function pgstream._is_partition_needed(part regclass, until timestamptz)
returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  stream record;
  needed boolean;
begin
  if exists (select from pgstream.streams s where s.failover_checkpoint_ts < until)
     or exists (select from pg_locks l
                where l.relation = part and l.granted and l.mode <> 'AccessShareLock'
                  and l.pid is distinct from pg_backend_pid()
                  and l.database = (select d.oid from pg_database d
                                    where d.datname = current_database())) then
    return true;
  end if;
  -- For each stream, because the server then looks by index for the few ids of transactions that
  -- may be needed: a partition may have a hundred million events.
  for stream in select s.id, s.settled_snapshot, s.settled_also from pgstream.streams s loop
    execute format(case when stream.settled_snapshot is null
      then 'select exists (select from %1$s e where e.stream_id = $1)'
      else 'select exists (select from %1$s e where e.stream_id = $1 and (e.xid >= $2 '
           'or e.xid = any ($3)) and e.xid <> all ($4)) '
           'or exists (select from pgstream.backlog b join %1$s e using (stream_id, xid) '
           'where b.stream_id = $1)' end, part)
    into needed
    using stream.id, pg_snapshot_xmax(stream.settled_snapshot),
      array(select pg_snapshot_xip(stream.settled_snapshot)), stream.settled_also;
    exit when needed;
  end loop;
  return needed is true;
end $$;

-- The statements that remove what is older than `retention`, in their order. Each is to be run by
-- itself outside of a transaction, by a role that is a member of pgstream_owner, with a short
-- lock_timeout; then this is called again, until nothing is left. What an interruption leaves is
-- continued.
create or replace function pgstream.partition_work(retention interval default '7 days')
returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set "TimeZone" = 'UTC' set "DateStyle" = 'ISO'
as $$
declare
  -- Days of which open transactions could still write are never removed.
  oldest constant date := least((now() - retention)::date, current_date - 1);
  p record;
begin
  for p in
    select c.oid::regclass as part, i.inhrelid is not null as attached,
           i.inhdetachpending as pending, to_date(right(c.relname, 8), 'YYYYMMDD') as day
    from pg_class c
    left join pg_inherits i on i.inhrelid = c.oid and i.inhparent = 'pgstream.events'::regclass
    where c.relnamespace = 'pgstream'::regnamespace and c.relkind = 'r'
      and c.relname ~ '^events_\d{8}$'
      and c.relowner = (select e.relowner from pg_class e
                        where e.oid = 'pgstream.events'::regclass)
    order by c.relname
  loop
    if p.pending then
      return next format('ALTER TABLE pgstream.events DETACH PARTITION %s FINALIZE', p.part);
    elsif p.day < oldest
          and not pgstream._is_partition_needed(p.part, (p.day + 1)::timestamptz) then
      return next case when p.attached
        then format('ALTER TABLE pgstream.events DETACH PARTITION %s CONCURRENTLY', p.part)
        else format('DROP TABLE %s', p.part) end;
    end if;
  end loop;
end $$;
comment on function pgstream.partition_work(interval) is
  'The next statements that remove partitions older than the retention';

-- Runs the first of these statements, for a role that is no member of pgstream_owner; returns how
-- many there were: the caller goes on until there are none. No function can detach CONCURRENTLY, so
-- that writers of events may wait behind this one for 100 ms. One statement at a time, because the
-- lock lasts until the transaction ends, and what is looked at may be large.
create or replace function pgstream.remove_partitions(retention interval default '7 days')
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms'
as $$
declare
  work constant text[] := array(select w from pgstream.partition_work(retention) w);
begin
  if work <> '{}' then
    execute replace(work[1], ' CONCURRENTLY', '');
  end if;
  return cardinality(work);
end $$;
comment on function pgstream.remove_partitions(interval) is
  'Goes on removing partitions older than the retention; writers of events may wait for 100 ms';

-- Deletes old events from events_overflow; returns how many.
create or replace function pgstream.clean_overflow(retention interval default '7 days')
returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  with deleted as (
    delete from pgstream.events_overflow e
    where e.created_at < now() - greatest(retention, '1 day')
      and not exists (
        select from pgstream.streams s
        where s.id = e.stream_id
          and (s.settled_snapshot is null
               or not (pg_visible_in_snapshot(e.xid, s.settled_snapshot)
                       or e.xid = any (s.settled_also))))
      and not exists (select from pgstream.backlog b
                      where b.stream_id = e.stream_id and b.xid = e.xid)
    returning 1)
  select count(*) from deleted;
$$;
comment on function pgstream.clean_overflow(interval) is
  'Deletes events older than the retention that have no partition; returns how many';
