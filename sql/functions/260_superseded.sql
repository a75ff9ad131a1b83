-- Objects of an earlier version that statements which began under it may still use: dropped when all
-- of those have ended. `init` calls this after it has committed, and housekeeping goes on with it.

-- The transactions that are open in this database, by their virtual ids: whatever may run a function
-- of ours. Prepared transactions run none any more.
create or replace function pgtrickle_internal.open_transactions() returns text[]
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(l.virtualtransaction order by l.virtualtransaction), '{}')
  from pg_locks l
  left join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.granted
    and l.pid <> pg_backend_pid()
    and coalesce(a.datid = (select d.oid from pg_database d
                            where d.datname = current_database()), true)
    and coalesce(a.backend_type, 'client backend')
        not in ('autovacuum worker', 'walsender', 'checkpointer', 'startup');
$$;

-- What statements of an earlier version have made since the upgrade: capture functions under its names.
-- A new one gets the name of this version. One that is there under both names is dropped, or has the
-- body of this version until upkeep has made its triggers again. Then the capture functions of up to 20
-- outboxes are written anew that still call what is superseded. False where there were none of either.
create or replace function pgtrickle_internal.rebuild_superseded_capture() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  f record;
  number int;
  found_one boolean := false;
begin
  for f in
    select p.oid, p.oid::regprocedure as signature, substr(p.proname, 2) as name,
           to_regprocedure(format('pgtrickle_internal.%I()', substr(p.proname, 2))) as present
    from pg_proc p
    where p.pronamespace = 'pgtrickle'::regnamespace and p.proname ~ '^_capture_[0-9]+_'
      and p.prosrc ~ 'pgtrickle[.]_'
  loop
    if f.present is null then
      execute format('alter function %s rename to %I', f.signature, f.name);
      execute format('alter function pgtrickle.%I() set schema pgtrickle_internal', f.name);
    elsif exists (select from pg_trigger t where t.tgfoid = f.oid) then
      execute replace(pg_get_functiondef(f.present), 'FUNCTION ' || f.present,
                      'FUNCTION ' || f.signature);
    else
      execute format('drop function %s', f.signature);
    end if;
    found_one := true;
  end loop;
  for number in
    select distinct c.outbox_number
    from pg_proc p
    join pgtrickle_internal.outbox_config c
      on c.outbox_number = substring(p.proname from '^capture_([0-9]+)_')::int
    where p.pronamespace = 'pgtrickle_internal'::regnamespace and p.proname ~ '^capture_[0-9]+_'
      and p.prosrc ~ 'pgtrickle[.]_capture_[a-z]'
    order by 1
    limit 20
  loop
    perform pgtrickle_internal.capture_generate(number);
    found_one := true;
  end loop;
  return found_one;
end $$;

-- A function of the name under which refreshes that the installing role could not change call
-- stream_work(); false where there is none of them.
create or replace function pgtrickle_internal.keep_stream_work() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  former constant regprocedure :=
    to_regprocedure('pgtrickle._stream_work(bigint, text, jsonb, text, text, jsonb)');
begin
  if former is null or not exists (
       select from pg_proc p
       where p.pronamespace = (select n.oid from pg_namespace n
                               where n.nspname = 'pgtrickle_streams')
         and p.prosrc ~ E'pgtrickle\\._stream_work\\(') then
    return false;
  end if;
  if (select l.lanname <> 'sql' from pg_proc p join pg_language l on l.oid = p.prolang
      where p.oid = former) then
    drop function pgtrickle._stream_work(bigint, text, jsonb, text, text, jsonb);
    create function pgtrickle._stream_work(bigint, text, jsonb, text, text, jsonb)
    returns table (op text, ord bigint, row_data jsonb)
    language sql set search_path = pg_catalog, pg_temp
    as 'select * from pgtrickle_internal.stream_work($1, $2, $3, $4, $5, $6)';
    revoke all on function pgtrickle._stream_work(bigint, text, jsonb, text, text, jsonb)
      from public;
    grant execute on function pgtrickle._stream_work(bigint, text, jsonb, text, text, jsonb)
      to pgtrickle_admin;
  end if;
  return true;
end $$;

-- Drops what is superseded as far as that may be done now. `left_behind` says how many objects are
-- left, `waits_for` for which transactions: those that were open when nothing new could begin to use
-- them, and still are. `more` asks for another call. What is left when it does not is in use by an
-- object of a user.
create or replace function pgtrickle_internal.drop_superseded(
  out left_behind bigint, out waits_for text[], out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
declare
  open_now text[];
  item pgtrickle_internal.superseded;
begin
  left_behind := 0;
  waits_for := '{}';
  more := false;
  if not exists (select from pgtrickle_internal.superseded) then
    return;
  end if;
  lock table pgtrickle_internal.superseded in share row exclusive mode;
  if pgtrickle_internal.rebuild_superseded_capture() then
    update pgtrickle_internal.superseded s set waits_for = null;
    more := true;
  else
    open_now := pgtrickle_internal.open_transactions();
    update pgtrickle_internal.superseded s
    set waits_for = case when s.waits_for is null then open_now
                         else array(select unnest(s.waits_for) intersect select unnest(open_now))
                    end
    where s.waits_for is distinct from '{}';
    waits_for := array(select distinct w
                       from pgtrickle_internal.superseded s cross join unnest(s.waits_for) w);
    more := waits_for <> '{}';
  end if;
  if not more then
    for item in select * from pgtrickle_internal.superseded s order by s.n loop
      continue when item.object like 'function pgtrickle._stream_work(%'
                and pgtrickle_internal.keep_stream_work();
      begin
        execute 'drop ' || regexp_replace(item.object, '^(function|view|cast)', E'\\1 if exists');
        delete from pgtrickle_internal.superseded s where s.n = item.n;
      exception when dependent_objects_still_exist then
        raise notice '% stays: %', item.object, sqlerrm;
      end;
    end loop;
  end if;
  left_behind := (select count(*) from pgtrickle_internal.superseded);
end $$;

-- The same as a step of housekeeping: what fails is reported, and keeps nothing else from being done.
create or replace function pgtrickle_internal.finish_upgrade(report jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.drop_superseded();
  return report;
exception
  when lock_not_available then
    return report;
  when others then
    return pgtrickle_internal.report_error(report, 'dropping what an upgrade has replaced', sqlerrm);
end $$;
