-- Triggers of outboxes that are switched off, and on again: what is not recorded meanwhile, and how
-- a relay sees it sooner than upkeep looks.
--
-- A full refresh of the pg_trickle extension is such a case: it switches all triggers of users off,
-- writes the table anew, and switches them on, in one transaction. Nothing of the extension's own
-- tables is read: that transaction leaves other versions of the rows in pg_trigger, whatever it
-- says elsewhere.

-- Whether a table of an outbox is gone, or its triggers are missing, or do not fire where they
-- should.
create or replace function pgtrickle_internal.outbox_is_off(number int) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgtrickle_internal.trigger_faults(number) f
    where coalesce(f.state, 'D') = 'D' or (f.state = 'R' and f.fires <> 'R'))
    or exists (select from pgtrickle_internal.outbox_config c
               where c.outbox_number = number
                 and pgtrickle_internal.outbox_lost_table(c) is not null);
$$;

-- What is said of an outbox that does not record every change; null where it does.
create or replace function pgtrickle_internal.outbox_off_text(number int) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select 'changes are not recorded'
         || coalesce((select format(', since %s UTC at the latest',
                                    to_char(g.seen_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
                      from pgtrickle_internal.outbox_gaps g where g.outbox_number = number), '')
         || coalesce((select format(': the table %s is gone', pgtrickle_internal.outbox_lost_table(c))
                      from pgtrickle_internal.outbox_config c
                      where c.outbox_number = number
                        and pgtrickle_internal.outbox_lost_table(c) is not null),
                     ': triggers of the outbox are switched off or missing')
  where pgtrickle_internal.outbox_is_off(number);
$$;

-- Notes since when an outbox does not record every change, or that it does. Returns what is to be
-- said of its problem: `what`, behind that.
create or replace function pgtrickle_internal.outbox_note_gap(number int, what text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if not pgtrickle_internal.outbox_is_off(number) then
    delete from pgtrickle_internal.outbox_gaps g where g.outbox_number = number;
    return what;
  end if;
  insert into pgtrickle_internal.outbox_gaps values (number) on conflict do nothing;
  return format('%s. %s', pgtrickle_internal.outbox_off_text(number), coalesce(
    what, 'A running relay switches them on as soon as it can lock the table'));
end $$;

-- For outbox_status: whether every change is recorded, and what it adds to the problem.
create or replace function pgtrickle_internal.outbox_recording(number int, problem text)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'recording', t.off is null,
    'not_recorded_since', case when t.off is not null then (
      select g.seen_at from pgtrickle_internal.outbox_gaps g where g.outbox_number = number) end,
    'problem', coalesce(problem, t.off || '. ' || coalesce(
      (select pgtrickle_internal.outbox_anew(c) from pgtrickle_internal.outbox_config c
       where c.outbox_number = number),
      'A running relay switches them on; without one, let the owner of the table run SELECT '
      'pgtrickle.outbox_capture_upkeep()')))
  from (select pgtrickle_internal.outbox_off_text(number)) t (off);
$$;

-- The outboxes whose triggers are other versions than those that upkeep left. One index scan for
-- each outbox, and no lock on tables of users.
create or replace function pgtrickle_internal.triggers_moved()
returns table (outbox_number int, version text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.outbox_number, v.version
  from pgtrickle_internal.outbox_config c
  join pgtrickle_internal.outbox_signatures s on s.outbox_number = c.outbox_number
  cross join lateral (
    -- As triggers_version() has it.
    select concat_ws('/', md5(string_agg(t.version, ',' order by t.version)
                              filter (where not t.inherited)),
                     md5(string_agg(t.version, ',' order by t.version)
                         filter (where t.inherited)))
    from (select concat_ws(' ', g.tgname, g.tgfoid, g.xmin), g.tgparentid <> 0
          from pg_trigger g
          where g.tgrelid = c.stream_table_oid
            and starts_with(g.tgname, concat('!pgtrickle_', c.outbox_number, '_')))
         t (version, inherited)) v (version)
  where c.kind = 'table' and c.source_dropped_at is null
    and s.triggers ->> c.stream_table_oid::text <> v.version;
$$;

-- Looks whether triggers were switched off or on since upkeep last looked, and lets upkeep look at
-- those outboxes now. `seen` is what the last call returned, null before the first: what upkeep
-- could not set right then. Upkeep tries that again in its own time.
create or replace function pgtrickle.relay_watch_capture(seen jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms'
as $$
declare
  news constant int[] := array(
    select m.outbox_number from pgtrickle_internal.triggers_moved() m
    where seen ->> m.outbox_number::text is distinct from m.version
    order by m.outbox_number);
  number int;
begin
  if news <> '{}' then
    if not pgtrickle_internal.try_lock('housekeeping') then
      return seen;  -- another relay is at it
    end if;
    foreach number in array news loop
      begin
        perform pgtrickle_internal.outbox_upkeep(number);
      exception when others then
        raise notice 'outbox %: %', number, sqlerrm;
      end;
    end loop;
  end if;
  return (select jsonb_object_agg(m.outbox_number, m.version)
          from pgtrickle_internal.triggers_moved() m);
end $$;
comment on function pgtrickle.relay_watch_capture(jsonb) is
  'For the relay, every second: lets upkeep look at once where triggers of outboxes were switched';

-- What the daemon calls.
grant execute on function pgtrickle.relay_watch_capture(jsonb) to pgtrickle_relay;
