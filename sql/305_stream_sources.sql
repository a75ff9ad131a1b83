-- What the query of a stream table reads, and how a change there is noticed.
--
-- Each table that is read has a sequence pgtrickle.dirty_<oid>. A statement trigger on it, on its
-- partitions and on the tables that it is a partition of, moves that sequence. A sequence that has
-- not moved since the last refresh, and no writer that was at work then and has ended since, means
-- that nothing has changed: nothing is computed.

-- ---------------------------------------------------------------------------------------------
-- What a query reads

-- What the view of a query reads, views inside it expanded, as
--   {"relations": [oid, ...], "functions": ["schema.name(types)", ...], "always_due": boolean}
-- always_due: the result may change without any watched table changing. It is so where the query
-- reads a foreign table, a materialized view, the system catalog or a table with row security, or
-- calls something whose result depends on more than its arguments (now(), random(), or a function
-- of the user's own that is not IMMUTABLE).
--
-- All this is taken from the parse trees of the rules, because pg_depend leaves out what belongs
-- to the system.
create or replace function pgtrickle._stream_discover(probe regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive rule as (
    select r.ev_class, r.ev_action::text as tree
    from pg_rewrite r where r.ev_class = probe and r.rulename = '_RETURN'
    union
    select r.ev_class, r.ev_action::text
    from rule
    cross join lateral regexp_matches(rule.tree, ':relid (\d+)', 'g') as m
    join pg_class c on c.oid = m[1]::oid and c.relkind = 'v' and c.oid <> rule.ev_class
    join pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
  ), relation as (
    select distinct c.oid, c.relkind, c.relrowsecurity,
           n.nspname in ('pg_catalog', 'information_schema', 'pg_toast') as is_system
    from rule
    cross join lateral regexp_matches(rule.tree, ':relid (\d+)', 'g') as m
    join pg_class c on c.oid = m[1]::oid and c.oid <> probe
    join pg_namespace n on n.oid = c.relnamespace
  ), function as (
    select distinct p.oid, p.provolatile, n.nspname = 'pg_catalog' as is_system,
           format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) as signature
    from rule
    cross join lateral
      regexp_matches(rule.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') as m
    join pg_proc p on p.oid = m[1]::oid
    join pg_namespace n on n.oid = p.pronamespace
  )
  select jsonb_build_object(
    'relations', coalesce((select jsonb_agg(oid::bigint order by oid) from relation
                           where not is_system), '[]'),
    'functions', coalesce((select jsonb_agg(signature order by signature) from function
                           where not is_system), '[]'),
    'always_due',
      exists (select from relation
              where relkind not in ('r', 'p', 'v') or relrowsecurity
                 or (is_system and relkind <> 'v'))
      or not exists (select from relation)
      or exists (select from function
                 where (not is_system and provolatile <> 'i')
                    or provolatile = 'v'
                    or oid in ('now()'::regprocedure, 'transaction_timestamp()'::regprocedure,
                               'statement_timestamp()'::regprocedure,
                               'age(timestamptz)'::regprocedure, 'age(timestamp)'::regprocedure))
      -- current_date and the like; from 9 on it is current_user and the like.
      or exists (select from rule
                 where tree ~ 'SQLVALUEFUNCTION :op [0-8] ' or tree ~ 'TABLESAMPLECLAUSE'))
$$;

-- The tables by whose triggers a change in rel can show itself: rel, what inherits from it or is a
-- partition of it, and what it is itself a partition or child of (a statement that names the
-- parent fires the parent's triggers only).
create or replace function pgtrickle._source_members(rel regclass) returns regclass[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive below as (
      select rel::oid as oid
      union
      select i.inhrelid from below join pg_inherits i on i.inhparent = below.oid
    ), above as (
      select rel::oid as oid
      union
      select i.inhparent from above join pg_inherits i on i.inhrelid = above.oid
    )
    select array_agg(oid::regclass order by oid)
    from (select oid from below union select oid from above) as member);
end $$;

-- A text that changes when what the query of a stream table reads is altered, replaced or dropped.
create or replace function pgtrickle._stream_fingerprint(id bigint) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select md5(string_agg(part, E'\n' order by part))
    from (
      select concat_ws(' ', s.source::text, c.relkind, c.relrowsecurity,
        (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid::regtype, a.atttypmod,
                                     a.attcollation), ',' order by a.attnum)
         from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
        case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end)
      from pgtrickle.pgt_stream_sources s
      left join pg_class c on c.oid = s.source
      where s.pgt_id = id
      union all
      select concat_ws(' ', f, p.provolatile, p.prosrc, pg_get_function_sqlbody(p.oid))
      from pgtrickle.pgt_stream_tables t
      cross join unnest(t.functions) as f
      -- Not to_regprocedure(): it asks for USAGE on the schema.
      left join (pg_proc p
                 join pg_namespace n on n.oid = p.pronamespace and n.nspname <> 'pg_catalog')
        on f = format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes))
      where t.pgt_id = id
    ) as parts(part));
end $$;

-- ---------------------------------------------------------------------------------------------
-- Noticing a change

-- Moves the sequence of the source that the first argument names. 'counted' as second argument:
-- the server's own count of this transaction's changes to the table can be trusted to say that a
-- statement changed nothing (an UPDATE without a match, a poller's DELETE).
--
-- The sequence is named by a number, so that a trigger made by anybody can move nothing else.
create or replace function pgtrickle._source_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  moved regclass;
begin
  if tg_argv[1] = 'counted' and tg_op <> 'TRUNCATE' and current_setting('track_counts') = 'on'
     and pg_stat_get_xact_tuples_inserted(tg_relid) = 0
     and pg_stat_get_xact_tuples_updated(tg_relid) = 0
     and pg_stat_get_xact_tuples_deleted(tg_relid) = 0 then
    return null;
  end if;
  moved := to_regclass('pgtrickle.dirty_' || tg_argv[0]::bigint);
  if moved is not null then
    perform nextval(moved);
  end if;
  return null;
end $$;

-- Keeps the sequence of a source from being dropped while it is being taken into use.
create or replace function pgtrickle._source_sequence_lock(source oid) returns void
language sql set search_path = pg_catalog, pg_temp
as $$ select pgtrickle._lock('source ' || source) $$;

-- The sequence of a source; made when it is not there.
create or replace function pgtrickle._source_sequence(source regclass) returns regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  named text := format('pgtrickle.%I', 'dirty_' || source::oid);
begin
  perform pgtrickle._source_sequence_lock(source);
  if to_regclass(named) is null then
    execute format('create sequence %s cache 1', named);
    -- Whoever begins to use it has seen nothing yet.
    perform nextval(named::regclass);
    perform pgtrickle._own_and_grant(named::regclass);
  end if;
  return named::regclass;
end $$;

-- Drops the sequences that no stream table reads and no trigger moves any more. Not in the
-- transaction that stops using one: stream_tables_due() reads it until that has committed.
create or replace function pgtrickle._source_sequences_sweep() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  unused record;
begin
  for unused in
    select c.oid, c.relname, substring(c.relname from '\d+$')::oid as source
    from pg_class c
    where c.relnamespace = 'pgtrickle'::regnamespace and c.relkind = 'S'
      and c.relname ~ '^dirty_\d+$'
      and not exists (select from pgtrickle.pgt_stream_sources s where s.sequence = c.oid)
  loop
    perform pgtrickle._source_sequence_lock(unused.source);
    if not exists (select from pgtrickle.pgt_stream_sources s where s.sequence = unused.oid)
       and not exists (select from pg_trigger t
                       where t.tgname in ('pgtrickle_dirty_' || unused.source,
                                          'pgtrickle_dirty_row_' || unused.source)) then
      execute format('drop sequence if exists pgtrickle.%I', unused.relname);
      delete from pgtrickle._locks l where l.name = 'source ' || unused.source;
    end if;
  end loop;
end $$;

-- Makes the triggers of one source on one of its members, as the creator of a stream table; they
-- may be there already. Does it wait for a lock, it says so by lock_not_available.
create or replace function pgtrickle._source_trigger(member regclass, source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  c record;
  args text[];
  plain text := 'pgtrickle_dirty_' || source;
  by_row text := 'pgtrickle_dirty_row_' || source;
  is_owner boolean;
begin
  select r.relkind, r.relowner,
         r.relkind = 'r' and m.amname = 'heap'
           and not exists (select from pg_inherits i where i.inhparent = r.oid) as counted
  into strict c
  from pg_class r left join pg_am m on m.oid = r.relam
  where r.oid = member;
  is_owner := pg_has_role(c.relowner, 'USAGE');
  args := array[source::text, case when c.counted then 'counted' else 'any' end];
  if not exists (
      select from pg_trigger t
      where t.tgrelid = member and t.tgname = plain
        and t.tgfoid = 'pgtrickle._source_changed()'::regprocedure
        and t.tgargs = convert_to(args[1], 'UTF8') || '\x00'::bytea
                       || convert_to(args[2], 'UTF8') || '\x00'::bytea) then
    execute format('create or replace trigger %I after insert or update or delete or truncate '
                   'on %s for each statement execute function pgtrickle._source_changed(%L, %L)',
                   plain, member, args[1], args[2]);
    if is_owner then
      execute format('alter table %s enable always trigger %I', member, plain);
    end if;
  end if;
  -- Logical replication applies row changes without firing statement triggers.
  if exists (select from pg_subscription_rel s where s.srrelid = member)
     and not exists (select from pg_trigger t where t.tgrelid = member and t.tgname = by_row) then
    execute format('create or replace trigger %I after insert or update or delete '
                   'on %s for each row execute function pgtrickle._source_changed(%L, %L)',
                   by_row, member, args[1], 'any');
    execute format('alter table %s enable replica trigger %I', member, by_row);
  end if;
end $$;

-- The same on an inbox of ours, on which administrators may not make triggers. No other table of
-- ours gets one: making it would keep all writers of an outbox waiting.
create or replace function pgtrickle._source_trigger_on_ours(member regclass, source oid)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if member <> all (pgtrickle._source_members(source)) or not exists (
       select from pgtrickle.pgt_inbox_config i
       where i.made_here and member = to_regclass(format('%I.%I', i.table_schema, i.table_name)))
  then
    raise exception 'permission denied for table %', member
      using errcode = 'insufficient_privilege';
  end if;
  perform pgtrickle._source_trigger(member, source);
end $$;

-- Makes the triggers of one source on all its members, or none; true when the source is watched
-- from now on. An open writer is waited for briefly and again, for `patience` in all, so that no
-- other writer queues behind us.
create or replace function pgtrickle._source_watch(source regclass, patience interval)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  waited_since timestamptz := clock_timestamp();
  lock_timeout_was text := current_setting('lock_timeout');
  members regclass[] := pgtrickle._source_members(source);
  member regclass;
begin
  if exists (select from unnest(members) m join pg_class c on c.oid = m
             where c.relkind not in ('r', 'p')) then
    return false;
  end if;
  perform pgtrickle._source_sequence(source);
  loop
    begin
      perform set_config('lock_timeout', '100ms', true);
      foreach member in array members loop
        if (select c.relowner from pg_class c where c.oid = member)
           = 'pgtrickle_owner'::regrole then
          perform pgtrickle._source_trigger_on_ours(member, source);
        else
          perform pgtrickle._source_trigger(member, source);
        end if;
      end loop;
      perform set_config('lock_timeout', lock_timeout_was, true);
      return true;
    exception
      when lock_not_available or deadlock_detected then
        if clock_timestamp() - waited_since >= patience then
          raise notice '% is in use and not watched yet', source
            using detail = 'Until it is, stream tables over it are refreshed at every due time.';
          return false;
        end if;
        perform pg_sleep(0.02 + random() * 0.1);
      when insufficient_privilege or wrong_object_type then
        raise notice '% cannot be watched: %', source, sqlerrm
          using detail = 'Stream tables over it are refreshed at every due time.';
        return false;
    end;
  end loop;
end $$;

-- Records what a stream table reads. Only while this transaction refreshes it, or its owner makes
-- or changes it.
create or replace function pgtrickle._stream_set_sources(
  id bigint, sources jsonb, always_due boolean, functions text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if not pgtrickle._stream_owner_at_work(id) then
    raise exception 'stream table % is not being changed here', id
      using errcode = 'insufficient_privilege';
  end if;
  delete from pgtrickle.pgt_stream_sources s where s.pgt_id = id;
  insert into pgtrickle.pgt_stream_sources (pgt_id, source, members, sequence, tracked, relfilenode)
  select id, (e ->> 'source')::oid::regclass, members.list,
         to_regclass(format('pgtrickle.%I', 'dirty_' || (e ->> 'source'))),
         (e ->> 'tracked')::boolean, c.relfilenode
  from jsonb_array_elements(sources) e
  join pg_class c on c.oid = (e ->> 'source')::oid
  cross join lateral (
    select case when c.relkind in ('r', 'p') then pgtrickle._source_members(c.oid)
                else '{}' end as list) members;
  update pgtrickle.pgt_stream_tables s
  set always_due = always_due
        or exists (select from pgtrickle.pgt_stream_sources o
                   where o.pgt_id = id and not o.tracked),
      functions = functions,
      pending_writers = '{}'
  where s.pgt_id = id;
  update pgtrickle.pgt_stream_tables s
  set fingerprint = pgtrickle._stream_fingerprint(id)
  where s.pgt_id = id;
end $$;

-- Watches everything that a query reads, as the creator of the stream table.
create or replace function pgtrickle._stream_track(id bigint, reads jsonb, patience interval)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  source record;
  listed jsonb := '[]';
  watched boolean;
begin
  for source in
    select c.oid, c.relkind
    from jsonb_array_elements_text(reads -> 'relations') r join pg_class c on c.oid = r::oid
    order by c.oid
  loop
    watched := case
      when source.relkind in ('r', 'p') then pgtrickle._source_watch(source.oid, patience)
      else source.relkind = 'v'
    end;
    listed := listed || jsonb_build_object('source', source.oid::bigint, 'tracked', watched);
  end loop;
  perform pgtrickle._stream_set_sources(
    id, listed, (reads ->> 'always_due')::boolean,
    array(select jsonb_array_elements_text(reads -> 'functions')));
end $$;

-- Takes our triggers off a table that no stream table reads any more, where the caller may do so
-- and nobody is using it; a trigger that stays moves a sequence, and harms nothing.
create or replace function pgtrickle._stream_untrack(rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  trigger record;
  lock_timeout_was text := current_setting('lock_timeout');
begin
  for trigger in
    select t.tgname
    from pg_trigger t
    where t.tgrelid = rel and t.tgfoid = 'pgtrickle._source_changed()'::regprocedure
      and not exists (select from pgtrickle.pgt_stream_sources s
                      where s.source = substring(t.tgname from '\d+$')::oid)
  loop
    begin
      perform set_config('lock_timeout', '500ms', true);
      execute format('drop trigger %I on %s', trigger.tgname, rel);
    exception when lock_not_available or deadlock_detected or insufficient_privilege then
      raise notice 'trigger % stays on %: %', trigger.tgname, rel, sqlerrm;
    end;
    perform set_config('lock_timeout', lock_timeout_was, true);
  end loop;
end $$;
