-- What the query of a stream table reads, and how a change there is noticed.
--
-- Each table that is read has a sequence pgtrickle.dirty_<oid>. A statement trigger on it, on its
-- partitions and on the tables that it is a partition of, moves that sequence. A sequence that has
-- not moved since the last refresh, and no writer that was at work then and has ended since, means
-- that nothing has changed: nothing is computed.

-- ---------------------------------------------------------------------------------------------
-- What a query reads

-- What the view of a query reads, views and the bodies of functions inside it expanded, as
--   {"relations": [oid, ...], "functions": ["schema.name(types)", ...], "always_due": boolean,
--    "opaque": boolean}
-- always_due: the result may change without any watched table changing. It is so where the query
-- reads a foreign table, a materialized view, the system catalog or a table with row security, or
-- calls something whose result depends on more than its arguments (now(), random(), or a function
-- of the user's own that is not IMMUTABLE).
-- opaque: it calls a function whose body is a text (PL/pgSQL, or SQL without BEGIN ATOMIC), which
-- may call others.
--
-- All this is taken from the parse trees of the rules and functions, because pg_depend leaves out
-- what belongs to the system.
create or replace function pgtrickle_internal.stream_discover(probe regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive part as (
    select 'view' as kind, r.ev_class as oid, r.ev_action::text as tree
    from pg_rewrite r where r.ev_class = probe and r.rulename = '_RETURN'
    union
    select inner_part.*
    from part
    cross join lateral (
      select 'view', r.ev_class, r.ev_action::text
      from regexp_matches(part.tree, E':relid (\\d+)', 'g') as m
      join pg_class c on c.oid = m[1]::oid and c.relkind = 'v'
      join pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
      union all
      select 'function', p.oid, concat_ws(' ', p.prosqlbody::text, (
               select format(':funcid %s :funcid %s :funcid %s :funcid %s', a.aggtransfn::oid,
                             a.aggfinalfn::oid, a.aggmtransfn::oid, a.aggmfinalfn::oid)
               from pg_aggregate a where a.aggfnoid = p.oid))
      from regexp_matches(part.tree, E':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') as m
      join pg_proc p on p.oid = m[1]::oid
      where p.pronamespace <> 'pg_catalog'::regnamespace
    ) as inner_part
  ), relation as (
    select distinct c.oid, c.relkind, c.relrowsecurity,
           n.nspname in ('pg_catalog', 'information_schema', 'pg_toast') as is_system
    from part
    cross join lateral regexp_matches(part.tree, E':relid (\\d+)', 'g') as m
    join pg_class c on c.oid = m[1]::oid and c.oid <> probe
    join pg_namespace n on n.oid = c.relnamespace
  ), function as (
    select distinct p.oid, p.provolatile, n.nspname = 'pg_catalog' as is_system,
           format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) as signature,
           p.prokind <> 'a' and p.prosqlbody is null
             and l.lanname not in ('internal', 'c') as is_opaque
    from part
    cross join lateral
      regexp_matches(part.tree, E':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') as m
    join pg_proc p on p.oid = m[1]::oid
    join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang
  )
  select jsonb_build_object(
    'relations', coalesce((select jsonb_agg(oid::bigint order by oid) from relation
                           where not is_system), '[]'),
    'functions', coalesce((select jsonb_agg(signature order by signature) from function
                           where not is_system), '[]'),
    'opaque', exists (select from function where not is_system and is_opaque),
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
      or exists (select from part
                 where tree ~ 'SQLVALUEFUNCTION :op [0-8] ' or tree ~ 'TABLESAMPLECLAUSE'))
$$;

-- The tables by whose triggers a change in rel can show itself: rel, what inherits from it or is a
-- partition of it, and what it is itself a partition or child of (a statement that names the
-- parent fires the parent's triggers only).
create or replace function pgtrickle_internal.source_members(rel regclass) returns regclass[]
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

-- What may have proved a derived key: unique indexes, NOT NULL, and that no other table inherits from
-- this one.
create or replace function pgtrickle_internal.stream_key_guards(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    (select string_agg(concat_ws(' ', x.indkey, x.indclass, x.indcollation, x.indimmediate, x.indisvalid,
                                 x.indpred is null, md5(x.indexprs::text)),
                       ',' order by x.indkey::text, x.indexrelid)
     from pg_index x where x.indrelid = rel and x.indisunique),
    (select string_agg(a.attnum::text, ',' order by a.attnum)
     from pg_attribute a where a.attrelid = rel and a.attnum > 0 and a.attnotnull),
    (select count(*) from pg_inherits i where i.inhparent = rel))
$$;

-- A text that changes when what the query of a stream table reads is altered, replaced, dropped, or
-- may be read by others than before. Written under settings of its own, to be the same in every
-- session.
create or replace function pgtrickle_internal.stream_fingerprint(id bigint) returns text
language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set DateStyle = 'ISO'
  set IntervalStyle = 'postgres'
  set TimeZone = 'UTC'
  set quote_all_identifiers = off
as $$
declare
  parts text[];
  st pgtrickle_internal.stream_tables;
begin
  select * into strict st from pgtrickle_internal.stream_tables t where t.pgt_id = id;
  with source as (
    select s.source, s.members, c.*
    from pgtrickle.pgt_stream_sources s left join pg_class c on c.oid = s.source
    where s.pgt_id = id
  ), reader as (
    -- A table behind a view is read as the view's owner.
    select st.pgt_owner::oid as role union select s.relowner from source s where s.relkind = 'v'
  )
  select array_agg(concat_ws(' ', s.source::text, s.relkind, s.relrowsecurity,
      s.relforcerowsecurity, s.relowner, s.relacl, s.reloptions, n.nspacl,
      (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid::regtype, a.atttypmod,
                                   a.attcollation, a.attacl,
                                   case when a.attgenerated <> '' then pg_get_expr(d.adbin, a.attrelid)
                                   end,
                                   (select string_agg(e.enumlabel, ',' order by e.enumsortorder)
                                    from pg_enum e where e.enumtypid = a.atttypid)),
                         ',' order by a.attnum)
       from pg_attribute a
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where a.attrelid = s.oid and a.attnum > 0 and not a.attisdropped),
      (select string_agg(md5(r.ev_action::text), ',' order by r.rulename)
       from pg_rewrite r where r.ev_class = s.oid),
      (select string_agg(concat_ws(' ', r.role, has_any_column_privilege(r.role, s.oid, 'SELECT')),
                         ',' order by r.role)
       from reader r join pg_roles o on o.oid = r.role),
      exists (select from pg_subscription_rel b where b.srrelid = any (s.members)),
      case when st.key_derived then pgtrickle_internal.stream_key_guards(s.oid) end))
  into parts
  from source s left join pg_namespace n on n.oid = s.relnamespace;

  parts := parts || array(
    select concat_ws(' ', f, p.provolatile, p.proisstrict, p.prosecdef, p.proacl, p.proconfig,
                     p.probin, p.prosrc, md5(p.prosqlbody::text), a.*::text)
    from unnest(st.functions) as f
    -- Not to_regprocedure(): it asks for USAGE on the schema.
    left join (pg_proc p
               join pg_namespace n on n.oid = p.pronamespace and n.nspname <> 'pg_catalog')
      on f = format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes))
    left join pg_aggregate a on a.aggfnoid = p.oid);

  -- Any function may be called by one whose body cannot be followed.
  if st.opaque then
    parts := parts || (
      select string_agg(concat_ws(' ', p.oid, p.xmin), ',' order by p.oid)
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where p.oid >= 16384 and n.nspname !~ '^pg(trickle|_temp|_toast)');
  end if;
  return (select md5(string_agg(p, E'\n' order by p)) from unnest(parts) as p);
end $$;

-- The definition of each source and of the triggers that watch it, as a text that costs little to
-- write: who wrote the rows of the catalog. Where a trigger does not fire for replicated rows,
-- because only the table's owner could say so, the server's count of changes is part of it.
create or replace function pgtrickle_internal.stream_source_states(only_id bigint default null)
returns table (pgt_id bigint, source regclass, state text)
language plpgsql stable
  set search_path = pg_catalog, pg_temp
  -- A few triggers by their names, rather than all of pg_trigger for each source.
  set enable_seqscan = off
  set enable_hashjoin = off
as $$
begin
  return query
    select s.pgt_id, s.source, concat_ws(' ', c.xmin, t.written)
    from pgtrickle.pgt_stream_sources s
    join pg_class c on c.oid = s.source
    cross join lateral (
      select string_agg(
               concat_ws(' ', g.tgrelid, g.xmin, g.tgenabled,
                 case when g.tgenabled <> 'A' and g.tgtype & 1 = 0 then
                   pg_stat_get_tuples_inserted(g.tgrelid) + pg_stat_get_tuples_updated(g.tgrelid)
                   + pg_stat_get_tuples_deleted(g.tgrelid) end),
               ',' order by g.tgrelid, g.tgname) as written
      from unnest(s.members) m
      -- By its table first, which is what the index is for.
      cross join lateral (select r.tgrelid, r.tgname, r.tgenabled, r.tgtype, r.xmin
                          from pg_trigger r where r.tgrelid = m::oid offset 0) g
      where g.tgname in ('pgtrickle_dirty_' || s.source::oid,
                         'pgtrickle_dirty_row_' || s.source::oid)) t
    where only_id is null or s.pgt_id = only_id;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Noticing a change

-- Moves the sequence of the source that the first argument names. 'counted' as second argument:
-- the server's own count of this transaction's changes to the table can be trusted to say that a
-- statement changed nothing (an UPDATE without a match, a poller's DELETE).
--
-- The sequence is named by a number, so that a trigger of any role can move no other object.
create or replace function pgtrickle_internal.source_changed() returns trigger
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
create or replace function pgtrickle_internal.source_sequence_lock(source oid) returns void
language sql set search_path = pg_catalog, pg_temp
as $$ select pgtrickle_internal.lock('source ' || source) $$;

-- The sequence of a source; made when it is not there.
create or replace function pgtrickle_internal.source_sequence(source regclass) returns regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  named text := format('pgtrickle.%I', 'dirty_' || source::oid);
begin
  perform pgtrickle_internal.source_sequence_lock(source);
  if to_regclass(named) is null then
    execute format('create sequence %s cache 1', named);
    -- A stream table that begins to use it has seen none of its changes.
    perform nextval(named::regclass);
    perform pgtrickle_internal.own_and_grant(named::regclass);
  end if;
  return named::regclass;
end $$;

-- Drops the sequences that no stream table reads and no trigger moves any more. Not in the
-- transaction that stops using one: stream_tables_due() reads it until that has committed.
create or replace function pgtrickle_internal.source_sequences_sweep() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  unused record;
begin
  for unused in
    select c.oid, c.relname, substring(c.relname from E'\\d+$')::oid as source
    from pg_class c
    where c.relnamespace = 'pgtrickle'::regnamespace and c.relkind = 'S'
      and c.relname ~ E'^dirty_\\d+$'
      and not exists (select from pgtrickle.pgt_stream_sources s where s.sequence = c.oid)
  loop
    perform pgtrickle_internal.source_sequence_lock(unused.source);
    if not exists (select from pgtrickle.pgt_stream_sources s where s.sequence = unused.oid)
       and not exists (select from pg_trigger t
                       where t.tgname in ('pgtrickle_dirty_' || unused.source,
                                          'pgtrickle_dirty_row_' || unused.source)) then
      execute format('drop sequence if exists pgtrickle.%I', unused.relname);
      delete from pgtrickle_internal.locks l where l.name = 'source ' || unused.source;
    end if;
  end loop;
end $$;

-- Does a member lack a trigger of its source, or is one of another kind than `owner`, who makes them,
-- can make it? ALWAYS: what is written under session_replication_role = replica counts as well.
create or replace function pgtrickle_internal.source_triggers_missing(
  member regclass, source oid, maker oid, out plain boolean, out by_row boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  select not exists (
           select from pg_trigger t
           where t.tgrelid = member and t.tgname = 'pgtrickle_dirty_' || source
             and t.tgfoid = 'pgtrickle_internal.source_changed()'::regprocedure
             and t.tgenabled = any (case when c.is_owner then '{A}' else '{O,A}' end::"char"[])
             and t.tgargs = convert_to(source::text, 'UTF8') || E'\\x00'::bytea
                            || convert_to(c.counts, 'UTF8') || E'\\x00'::bytea),
         exists (select from pg_subscription_rel s where s.srrelid = member)
         and not exists (
           select from pg_trigger t
           where t.tgrelid = member and t.tgname = 'pgtrickle_dirty_row_' || source
             and t.tgfoid = 'pgtrickle_internal.source_changed()'::regprocedure and t.tgenabled = 'R')
  into plain, by_row
  from (select pg_has_role(maker, r.relowner, 'USAGE') as is_owner,
               pgtrickle_internal.source_counts(r.oid) as counts
        from pg_class r where r.oid = member) c;
end $$;

-- 'counted' where the server's count of a transaction's changes covers all that a statement on the
-- table does, else 'any'.
create or replace function pgtrickle_internal.source_counts(member regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when r.relkind = 'r' and m.amname = 'heap'
                     and not exists (select from pg_inherits i where i.inhparent = r.oid)
                then 'counted' else 'any' end
    from pg_class r left join pg_am m on m.oid = r.relam
    where r.oid = member);
end $$;

-- Makes the triggers of one source on one of its members, as the creator of a stream table; they
-- may exist already. Raises lock_not_available if it would have to wait for a lock.
create or replace function pgtrickle_internal.source_trigger(member regclass, source oid)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  plain text := 'pgtrickle_dirty_' || source;
  by_row text := 'pgtrickle_dirty_row_' || source;
  me constant oid := (select r.oid from pg_roles r where r.rolname = current_user);
  missing record := pgtrickle_internal.source_triggers_missing(member, source, me);
begin
  if missing.plain then
    execute format('create or replace trigger %I after insert or update or delete or truncate '
                   'on %s for each statement execute function pgtrickle_internal.source_changed(%L, %L)',
                   plain, member, source, pgtrickle_internal.source_counts(member));
    if (select pg_has_role(r.relowner, 'USAGE') from pg_class r where r.oid = member) then
      execute format('alter table only %s enable always trigger %I', member, plain);
    end if;
  end if;
  -- Logical replication applies row changes without firing statement triggers.
  if missing.by_row then
    execute format('create or replace trigger %I after insert or update or delete '
                   'on %s for each row execute function pgtrickle_internal.source_changed(%L, %L)',
                   by_row, member, source, 'any');
    execute format('alter table %s enable replica trigger %I', member, by_row);
  end if;
end $$;

-- The same on an inbox of ours, on which administrators may not make triggers. No other table of
-- ours gets one: making it would keep all writers of an outbox waiting.
create or replace function pgtrickle_internal.source_trigger_on_ours(member regclass, source oid)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if member <> all (pgtrickle_internal.source_members(source)) or not exists (
       select from pgtrickle.pgt_inbox_config i
       where i.made_here and member = to_regclass(format('%I.%I', i.table_schema, i.table_name)))
  then
    raise exception 'permission denied for table %', member
      using errcode = 'insufficient_privilege';
  end if;
  perform pgtrickle_internal.source_trigger(member, source);
end $$;

-- Makes the triggers of one source on all its members, or none; true when the source is watched
-- from now on. An open writer is waited for briefly and again, for `patience` in all, so that no
-- other writer queues behind us.
create or replace function pgtrickle_internal.source_watch(source regclass, patience interval)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  waited_since timestamptz := clock_timestamp();
  lock_timeout_was text := current_setting('lock_timeout');
  members regclass[] := pgtrickle_internal.source_members(source);
  member regclass;
begin
  if exists (select from unnest(members) m join pg_class c on c.oid = m
             where c.relkind not in ('r', 'p')) then
    return false;
  end if;
  perform pgtrickle_internal.source_sequence(source);
  loop
    begin
      perform set_config('lock_timeout', '100ms', true);
      foreach member in array members loop
        if (select c.relowner from pg_class c where c.oid = member)
           = 'pgtrickle_owner'::regrole then
          perform pgtrickle_internal.source_trigger_on_ours(member, source);
        else
          perform pgtrickle_internal.source_trigger(member, source);
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

-- The stream tables that this transaction has locked, which it does when it reads them; nothing
-- where that is not `wanted`.
create or replace function pgtrickle_internal.stream_locked(wanted boolean) returns regclass[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if wanted is not true then
    return '{}';
  end if;
  return array(
    select distinct l.relation::regclass
    from pg_locks l join pgtrickle_internal.stream_tables t on t.pgt_relid = l.relation
    where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.granted
      and l.database = (select d.oid from pg_database d where d.datname = current_database()));
end $$;

-- Refuses a stream table that reads itself through others: each of its refreshes would make it due
-- again. `through`: stream tables that functions of its query were just seen to read.
create or replace function pgtrickle_internal.stream_check_cycle(id bigint, through regclass[])
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  way text;
begin
  with recursive reads as (
    select s.pgt_id as reader, t.pgt_id as read
    from pgtrickle.pgt_stream_sources s
    join pgtrickle_internal.stream_tables t
      on t.pgt_relid = s.source
      or (t.pgt_relid = any (s.members)
          and exists (select from pg_inherits i where i.inhrelid = t.pgt_relid))
    union
    select r.pgt_id, t.pgt_id
    from pgtrickle_internal.stream_tables r
    join pgtrickle_internal.stream_tables t
      on t.pgt_relid = any (r.reads_through || case when r.pgt_id = id then through end)
  ), reach as (
    select r.read, array[id, r.read] as path from reads r where r.reader = id
    union all
    select r.read, h.path || r.read
    from reach h join reads r on r.reader = h.read
    where h.read <> id and not r.read = any (h.path[2:])
  )
  select (select string_agg(format('%I.%I', t.pgt_schema, t.pgt_name), ' reads ' order by p.o)
          from unnest(h.path) with ordinality p(step, o)
          join pgtrickle_internal.stream_tables t on t.pgt_id = p.step)
  into way
  from reach h where h.read = id
  order by cardinality(h.path) limit 1;
  if way is not null then
    raise exception 'the stream table would read itself: %', way
      using errcode = 'invalid_recursion',
            hint = 'Change the query, or the view or function through which it does.';
  end if;
end $$;

-- Records what a stream table reads. Only while this transaction refreshes it, or its owner makes
-- or changes it.
create or replace function pgtrickle_internal.stream_set_sources(
  id bigint, sources jsonb, always_due boolean, functions text[], opaque boolean default false,
  through jsonb default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if not pgtrickle_internal.stream_owner_at_work(id) then
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
    select case when c.relkind in ('r', 'p') then pgtrickle_internal.source_members(c.oid)
                else '{}' end as list) members;
  update pgtrickle.pgt_stream_sources s
  set state = n.state
  from pgtrickle_internal.stream_source_states(id) n
  where s.pgt_id = id and s.source = n.source;
  update pgtrickle_internal.stream_tables s
  set always_due = always_due
        or exists (select from pgtrickle.pgt_stream_sources o
                   where o.pgt_id = id and not o.tracked),
      functions = functions,
      opaque = opaque,
      reads_through = case when through is null then s.reads_through else array(
        select t.pgt_relid from pgtrickle_internal.stream_tables t
        where t.pgt_relid::text in (select jsonb_array_elements_text(through))
          and has_any_column_privilege(s.pgt_owner, t.pgt_relid, 'SELECT')) end,
      pending_writers = '{}'
  where s.pgt_id = id;
  perform pgtrickle_internal.stream_check_cycle(id, '{}');
  update pgtrickle_internal.stream_tables s
  set fingerprint = pgtrickle_internal.stream_fingerprint(id)
  where s.pgt_id = id;
end $$;

-- Watches everything that a query reads, as the creator of the stream table.
create or replace function pgtrickle_internal.stream_track(
  id bigint, reads jsonb, patience interval) returns void
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
      when source.relkind in ('r', 'p') then pgtrickle_internal.source_watch(source.oid, patience)
      else source.relkind = 'v'
    end;
    listed := listed || jsonb_build_object('source', source.oid::bigint, 'tracked', watched);
  end loop;
  perform pgtrickle_internal.stream_set_sources(
    id, listed, (reads ->> 'always_due')::boolean,
    array(select jsonb_array_elements_text(reads -> 'functions')),
    (reads ->> 'opaque')::boolean, reads -> 'through');
  -- Sequences that were restored from a dump are named by numbers of another database.
  for source in
    select distinct t.tgrelid
    from pgtrickle.pgt_stream_sources s
    join pg_trigger t on t.tgrelid = any (s.members)
                     and t.tgfoid = 'pgtrickle_internal.source_changed()'::regprocedure
    where s.pgt_id = id and s.tracked
      and not exists (select from pgtrickle.pgt_stream_sources o
                      where t.tgname in ('pgtrickle_dirty_' || o.source::oid,
                                         'pgtrickle_dirty_row_' || o.source::oid))
  loop
    perform pgtrickle_internal.stream_untrack(source.tgrelid);
  end loop;
end $$;

-- Drops our triggers on a table that no stream table reads any more, if the caller may do so and no
-- transaction is using the table; a trigger that stays moves a sequence, and does no harm.
create or replace function pgtrickle_internal.stream_untrack(rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  trigger record;
  lock_timeout_was text := current_setting('lock_timeout');
begin
  for trigger in
    select t.tgname
    from pg_trigger t
    where t.tgrelid = rel and t.tgfoid = 'pgtrickle_internal.source_changed()'::regprocedure
      and t.tgparentid = 0
      and not exists (select from pgtrickle.pgt_stream_sources s
                      where s.source::oid::text = substring(t.tgname from E'\\d+$'))
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

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_discover(regclass), pgtrickle_internal.source_members(regclass),
  pgtrickle_internal.source_changed(), pgtrickle_internal.source_sequence(regclass),
  pgtrickle_internal.source_sequences_sweep(),
  pgtrickle_internal.source_triggers_missing(regclass, oid, oid),
  pgtrickle_internal.source_counts(regclass), pgtrickle_internal.source_trigger(regclass, oid),
  pgtrickle_internal.source_trigger_on_ours(regclass, oid),
  pgtrickle_internal.source_watch(regclass, interval), pgtrickle_internal.stream_locked(boolean),
  pgtrickle_internal.stream_set_sources(bigint, jsonb, boolean, text[], boolean, jsonb),
  pgtrickle_internal.stream_track(bigint, jsonb, interval),
  pgtrickle_internal.stream_untrack(regclass)
  to pgtrickle_admin;
