-- When a stream table is refreshed: schedules, cron expressions, and which ones are due.

-- ---------------------------------------------------------------------------------------------
-- Cron expressions: minute hour day-of-month month day-of-week

-- The values of one field: *, a value, a range a-b, each with a step /n, and lists of these. Names
-- stand for the numbers from low on.
create or replace function pgtrickle_internal.cron_field(
  field text, low int, high int, names text[]) returns int[]
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  item text;
  m text[];
  from_ int;
  to_ int;
  step int;
  named int[] := '{}';
begin
  foreach item in array string_to_array(lower(field), ',') loop
    m := regexp_match(item, E'^(?:(\\*)|(\\d{1,2}|[a-z]{3})(?:-(\\d{1,2}|[a-z]{3}))?)(?:/(\\d{1,3}))?$');
    if m is null then
      raise exception 'cron field "%": cannot read "%"', field, item
        using errcode = 'invalid_parameter_value';
    end if;
    step := coalesce(m[4]::int, 1);
    if m[1] is not null then
      from_ := low;
      to_ := high;
    else
      from_ := coalesce(array_position(names, m[2]) + low - 1,
                        case when m[2] ~ E'^\\d+$' then m[2]::int end);
      to_ := case when m[3] is null and m[4] is null then from_
                  when m[3] is null then high
                  else coalesce(array_position(names, m[3]) + low - 1,
                                case when m[3] ~ E'^\\d+$' then m[3]::int end) end;
    end if;
    if from_ is null or to_ is null or from_ < low or to_ > high or from_ > to_ or step < 1 then
      raise exception 'cron field "%": "%" is not within % to %', field, item, low, high
        using errcode = 'invalid_parameter_value';
    end if;
    named := named || array(select generate_series(from_, to_, step));
  end loop;
  return array(select distinct v from unnest(named) v order by v);
end $$;

-- The five fields as arrays of values; an error says which one cannot be read.
create or replace function pgtrickle_internal.cron_parse(
  cron text, out minutes int[], out hours int[], out days int[], out months int[],
  out weekdays int[], out by_day boolean, out by_weekday boolean)
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[] := regexp_split_to_array(btrim(cron), E'\\s+');
begin
  if cardinality(fields) <> 5 then
    raise exception 'a cron expression has 5 fields, "%" has %', cron, cardinality(fields)
      using errcode = 'invalid_parameter_value',
            hint = 'minute hour day-of-month month day-of-week, as in ''*/5 8-18 * * mon-fri''.';
  end if;
  minutes := pgtrickle_internal.cron_field(fields[1], 0, 59, '{}');
  hours := pgtrickle_internal.cron_field(fields[2], 0, 23, '{}');
  days := pgtrickle_internal.cron_field(fields[3], 1, 31, '{}');
  months := pgtrickle_internal.cron_field(
    fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
  -- 0 and 7 are both Sunday.
  weekdays := array(select distinct v % 7 from unnest(pgtrickle_internal.cron_field(
    fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}')) v);
  by_day := fields[3] !~ E'^\\*';
  by_weekday := fields[5] !~ E'^\\*';
end $$;

-- The first moment after `after` that the expression names, in that time zone; null when there is
-- none within eight years. Where both a day of the month and a day of the week are given, either
-- is enough.
create or replace function pgtrickle_internal.cron_next(cron text, after timestamptz, timezone text)
returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  c record := pgtrickle_internal.cron_parse(cron);
  today date := (after at time zone timezone)::date;
  day date;
  on_day boolean;
  on_weekday boolean;
  moment timestamptz;
begin
  for ahead in 0 .. 8 * 366 loop
    day := today + ahead;
    on_day := extract(day from day)::int = any (c.days);
    on_weekday := extract(dow from day)::int = any (c.weekdays);
    if extract(month from day)::int = any (c.months)
       and (case when c.by_day and c.by_weekday then on_day or on_weekday
                 else on_day and on_weekday end) then
      select min(t.at) into moment
      from unnest(c.hours) h cross join unnest(c.minutes) m
      cross join lateral (select (day + make_time(h, m, 0)) at time zone timezone as at) t
      where t.at > after;
      if moment is not null then
        return moment;
      end if;
    end if;
  end loop;
  return null;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Schedules

-- The interval of a schedule such as '500ms', '2s', '1.5m' or '1h30m'; null when it is none.
create or replace function pgtrickle_internal.schedule_interval(schedule text) returns interval
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when btrim(lower(schedule)) ~ E'^(\\d+(\\.\\d+)?\\s*(ms|s|m|h|d)\\s*)+$' then (
      select sum(part[1]::numeric * case part[2] when 'ms' then 1 when 's' then 1000
                                                 when 'm' then 60000 when 'h' then 3600000
                                                 else 86400000 end)
             * interval '1 millisecond'
      from regexp_matches(lower(schedule), E'(\\d+(?:\\.\\d+)?)\\s*(ms|s|m|h|d)', 'g') as part)
    end);
end $$;

-- Whether a stream table with this schedule is refreshed by hand.
create or replace function pgtrickle_internal.schedule_is_manual(schedule text) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return schedule is null or lower(btrim(schedule)) = 'manual';
end $$;

-- Refuses a schedule that cannot be read.
create or replace function pgtrickle_internal.schedule_check(schedule text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  every interval := pgtrickle_internal.schedule_interval(schedule);
begin
  if pgtrickle_internal.schedule_is_manual(schedule) then
    return;
  elsif every is not null then
    if every < interval '1 millisecond' or every > interval '366 days' then
      raise exception 'schedule % is not between 1ms and 366d', quote_literal(schedule)
        using errcode = 'invalid_parameter_value';
    end if;
  elsif schedule ~ E'\\S\\s+\\S' then
    perform pgtrickle_internal.cron_parse(schedule);
  else
    raise exception 'cannot read schedule %', quote_literal(schedule)
      using errcode = 'invalid_parameter_value',
            hint = 'Use an interval (500ms, 2s, 5m, 1h), a cron expression, or ''manual''.';
  end if;
end $$;

-- The next due time after `after` by the schedule alone.
create or replace function pgtrickle_internal.schedule_next(
  schedule text, after timestamptz, timezone text) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when schedule is null then null
      when pgtrickle_internal.schedule_interval(schedule) is not null
        then after + pgtrickle_internal.schedule_interval(schedule)
      else pgtrickle_internal.cron_next(schedule, after, timezone)
    end);
end $$;

-- The time between two due times; for a cron expression, between its next two.
create or replace function pgtrickle_internal.schedule_period(schedule text, timezone text)
returns interval
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when schedule is not null then coalesce(
    pgtrickle_internal.schedule_interval(schedule),
    pgtrickle_internal.schedule_next(schedule, pgtrickle_internal.schedule_next(schedule, now(), timezone),
                                     timezone)
    - pgtrickle_internal.schedule_next(schedule, now(), timezone))
  end
$$;

-- When a stream table may be refreshed again: by its schedule, and so that its refreshes take at
-- most a quarter of the time.
create or replace function pgtrickle_internal.stream_next_due(
  schedule text, timezone text, started timestamptz, ended timestamptz) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when schedule is not null then
      greatest(pgtrickle_internal.schedule_next(schedule, started, timezone), ended + 3 * (ended - started))
    end);
end $$;

-- ---------------------------------------------------------------------------------------------
-- What is due

-- The stream tables whose sources have moved, or were altered, since their last refresh; see
-- stream_look.
create or replace function pgtrickle_internal.stream_moved() returns setof bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.pgt_id
    from pgtrickle.pgt_stream_sources s
    left join pg_class c on c.oid = s.source
    left join pg_class q on q.oid = s.sequence
    left join pgtrickle_internal.stream_source_states() n on n.pgt_id = s.pgt_id and n.source = s.source
    where case
      when c.oid is null or c.relfilenode is distinct from s.relfilenode then true
      when s.state <> n.state then true
      when s.sequence is null then false
      when q.oid is null or pg_sequence_last_value(q.oid) is distinct from s.seen then true
      when c.relkind = 'p' or c.relhassubclass
        then pgtrickle_internal.source_members(s.source) is distinct from s.members
      else false
    end
    union
    select t.pgt_id
    from pgtrickle_internal.stream_tables t
    where case when t.pending_writers = '{}' then false
               else exists (select unnest(t.pending_writers)
                            except select * from pgtrickle_internal.stream_writers(t.pgt_id)) end;
end $$;

-- Writes down what has become dirty. Rows that a refresh holds just now are left to the next call.
create or replace function pgtrickle_internal.stream_note_dirty(present timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle_internal.stream_tables t set dirty_since = present
  where t.pgt_id in (
    select o.pgt_id from pgtrickle_internal.stream_tables o
    where o.dirty_since is null and not o.always_due and o.status = 'ACTIVE'
      and o.schedule is not null
      and o.pgt_id in (select * from pgtrickle_internal.stream_moved())
    for no key update skip locked);
end $$;

-- A cron expression names moments: one that passes while nothing is dirty is past.
create or replace function pgtrickle_internal.stream_pass_moments(present timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle_internal.stream_tables t
  set next_due_at = pgtrickle_internal.schedule_next(t.schedule, present, t.timezone)
  where t.pgt_id in (
    select o.pgt_id from pgtrickle_internal.stream_tables o
    where o.next_due_at <= present and o.dirty_since is null and not o.always_due
      and o.status = 'ACTIVE' and pgtrickle_internal.schedule_interval(o.schedule) is null
    for no key update skip locked);
end $$;

-- Alerts about what has been dirty for twice its schedule; again after ten times that, at least a
-- minute.
create or replace function pgtrickle_internal.stream_alert_stale(present timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  stale record;
begin
  for stale in
    update pgtrickle_internal.stream_tables t set stale_alerted_at = present
    where t.pgt_id in (
      select o.pgt_id from pgtrickle_internal.stream_tables o
      where o.status = 'ACTIVE' and o.schedule is not null
        and (o.dirty_since is not null or o.always_due)
        and present - coalesce(o.dirty_since, o.data_timestamp) > 2 * o.period
        and present >= coalesce(
              o.stale_alerted_at + greatest(10 * o.period, interval '1 minute'), '-infinity')
      for no key update skip locked)
    returning t.pgt_id, present - coalesce(t.dirty_since, t.data_timestamp) as since
  loop
    perform pgtrickle_internal.stream_alert('stale_data', stale.pgt_id, jsonb_build_object(
      'staleness_seconds', round(extract(epoch from stale.since)::numeric, 3)));
  end loop;
end $$;

-- What is not looked at every time: names that tables have taken since, and stream tables whose
-- query reads something that is not what it was. Those are due then, and their refresh looks closer.
create or replace function pgtrickle_internal.stream_upkeep() returns int
language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  changed int;
begin
  perform pgtrickle_internal.stream_rebind();
  perform pgtrickle_internal.stream_follow_name(o.pgt_id)
  from (select s.pgt_id
        from pgtrickle_internal.stream_tables s
        join pg_class c on c.oid = s.pgt_relid
        join pg_namespace n on n.oid = c.relnamespace
        where (s.pgt_schema, s.pgt_name) <> (n.nspname, c.relname)
        for no key update of s skip locked) o;
  update pgtrickle_internal.stream_tables t set dirty_since = clock_timestamp()
  where t.pgt_id in (
    select o.pgt_id from pgtrickle_internal.stream_tables o
    where o.dirty_since is null and not o.always_due and o.status = 'ACTIVE'
      and o.schedule is not null and pgtrickle_internal.stream_wants_watching(o.pgt_id)
    for no key update skip locked);
  get diagnostics changed = row_count;
  return changed;
end $$;

create or replace function pgtrickle.stream_tables_due() returns table (name text)
language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set standard_conforming_strings = on
as $$
declare
  present timestamptz := clock_timestamp();
begin
  perform pgtrickle_internal.stream_note_dirty(present);
  perform pgtrickle_internal.stream_pass_moments(present);
  perform pgtrickle_internal.stream_alert_stale(present);
  return query
    select format('%I.%I', n.nspname, c.relname)
    from pgtrickle_internal.stream_tables t
    join pg_class c on c.oid = t.pgt_relid
    join pg_namespace n on n.oid = c.relnamespace
    where t.status = 'ACTIVE' and t.next_due_at <= present
      and (t.dirty_since is not null or t.always_due)
    order by t.next_due_at
    for share of t skip locked;
end $$;

comment on function pgtrickle.stream_tables_due() is
  'The stream tables to refresh now: something that they show has changed, their schedule says so, '
  'and their refreshes have not taken more than a quarter of the time. The relay calls it; it also '
  'sends the alerts about stale data.';

-- What the daemon calls.
grant execute on function pgtrickle.stream_tables_due() to pgtrickle_relay;
-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.cron_field(text, integer, integer, text[]),
  pgtrickle_internal.cron_parse(text), pgtrickle_internal.schedule_interval(text),
  pgtrickle_internal.schedule_is_manual(text), pgtrickle_internal.schedule_check(text)
  to pgtrickle_admin;
