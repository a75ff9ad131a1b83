-- How a stream table is created, altered and dropped. Everything here runs as the caller, who
-- becomes, or has to be, the owner of what is made and changed.

-- ---------------------------------------------------------------------------------------------
-- Making the parts, as the creator

-- Refuses an unknown refresh mode, and explains why IMMEDIATE is not supported.
create or replace function pgtrickle_internal.stream_check_mode(mode text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if upper(mode) = 'IMMEDIATE' then
    raise exception 'refresh mode IMMEDIATE is not supported'
      using errcode = 'feature_not_supported',
            detail = 'A stream table is refreshed after a change has been committed.',
            hint = 'Use AUTO or DIFFERENTIAL with a short schedule, such as ''100ms''.';
  elsif mode is null or upper(mode) not in ('AUTO', 'DIFFERENTIAL', 'FULL') then
    raise exception 'unknown refresh mode %', coalesce(quote_literal(mode), 'null')
      using errcode = 'invalid_parameter_value', hint = 'Use AUTO, DIFFERENTIAL or FULL.';
  end if;
  return upper(mode);
end $$;

-- Makes a view of the query, whose names, and no others, are looked up under the caller's
-- search_path. The view is dropped once everything that can be learned from it is known: kept, it
-- would stand in the way of every ALTER of a source.
-- A column that the query's inbox lacks is taken out of its payload.
create or replace function pgtrickle_internal.stream_probe(
  query text, in_schema text, caller_path text) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  probe text := format('%I.%I', in_schema, 'pgt_probe_' || md5(gen_random_uuid()::text));
  body text := regexp_replace(query, E'[;\\s]+$', '');
  statement text := format(E'create view %s as (\n%s\n)', probe, body);
begin
  loop
    begin
      perform set_config('search_path', caller_path, true);
      execute statement;
      perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
      return probe::regclass;
    exception
      when undefined_column then
        if not pgtrickle_internal.offer_payload_column(body, sqlerrm) then
          raise;
        end if;
      when syntax_error then
        raise exception 'the query of a stream table must be one SELECT: %', sqlerrm
          using errcode = 'syntax_error';
      when invalid_table_definition then
        raise exception 'this cannot be the query of a stream table: %', sqlerrm
          using errcode = 'invalid_table_definition',
                hint = 'It must have a column, and may not read a temporary table.';
    end;
  end loop;
end $$;

-- The columns of a table or view: names in order, and their types as one text to compare.
create or replace function pgtrickle_internal.stream_columns(
  rel regclass, out names text[], out types text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array_agg(attname::text order by attnum),
         string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', '
                    order by attnum)
  from pg_attribute
  where attrelid = rel and attnum > 0 and not attisdropped
$$;

-- The query of a view as text that means the same in every session: a literal was read under its
-- creator's settings, and is written under those that the query always runs with.
create or replace function pgtrickle_internal.stream_definition(probe regclass) returns text
language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set DateStyle = 'ISO'
  set IntervalStyle = 'postgres'
  set extra_float_digits = 1
  set bytea_output = 'hex'
  set standard_conforming_strings = on
  set quote_all_identifiers = off
as $$
begin
  return regexp_replace(pg_get_viewdef(probe, false), E';\\s*$', '');
end $$;

-- Fills a new stream table, under the settings with which it will be refreshed.
create or replace function pgtrickle_internal.stream_fill(rel regclass, definition text)
returns void
language plpgsql
  set search_path = pg_catalog, pg_temp
  set row_security = on
  set DateStyle = 'ISO'
  set IntervalStyle = 'postgres'
  set extra_float_digits = 1
  set bytea_output = 'hex'
  set standard_conforming_strings = on
  set quote_all_identifiers = off
  set transform_null_equals = off
  set array_nulls = on
  set xmlbinary = 'base64'
  set xmloption = 'content'
as $$
begin
  execute format('insert into %s %s', rel, definition);
end $$;

-- Makes (or replaces) the function that runs the query as its creator. The settings that decide what
-- a query means (the time zone, the order of day and month, the locale) stay as they are now, for
-- ever; those that only decide how values are written are the same for all stream tables
-- (stream_work). The comment shows the catalog's writers that the owner is at work. The query runs under an empty search_path,
-- as a materialized view's does; triggers on the stream table run under trigger_path.
create or replace function pgtrickle_internal.stream_make_function(
  id bigint, definition text, layout jsonb, trigger_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  setting text;
  pinned text := '';
  -- When the function is made again, what it was first made with counts.
  known text[] := (select p.proconfig from pg_proc p
                   where p.oid = to_regprocedure(
                     format('pgtrickle_streams.%I(text, jsonb)', 'refresh_' || id)));
  memory bigint := greatest(pg_size_bytes(current_setting('work_mem')), 64 * 1024 * 1024);
begin
  foreach setting in array array['TimeZone', 'DateStyle', 'lc_monetary', 'lc_numeric', 'lc_time',
                                 'default_text_search_config'] loop
    pinned := pinned || format(E'\n  set %I = %L', setting, coalesce(
      (select substr(k, length(setting) + 2) from unnest(known) k
       where lower(split_part(k, '=', 1)) = lower(setting)),
      current_setting(setting)));
  end loop;
  execute format(
    $make$
create %s function pgtrickle_streams.%I(action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set row_security = on
  set jit = off
  set work_mem = %L%s
as %L
    $make$,
    case when known is null then '' else 'or replace' end,
    'refresh_' || id, (memory / 1024) || 'kB', pinned,
    format(E'\nbegin\n  return query select * from pgtrickle_internal.stream_work('
           '%s, %L, %L, %L, action, arg);\nend ', id, definition, layout, trigger_path));
  execute format('comment on function pgtrickle_streams.%I(text, jsonb) is %L', 'refresh_' || id,
                 pgtrickle_internal.stream_mark());
  execute format('revoke all on function pgtrickle_streams.%I(text, jsonb) from public',
                 'refresh_' || id);
  execute format('grant execute on function pgtrickle_streams.%I(text, jsonb) to pgtrickle_sandbox',
                 'refresh_' || id);
end $$;

-- Takes that comment away when the work is done: what else runs in this transaction is not the
-- owner's.
create or replace function pgtrickle_internal.stream_unmark(id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('comment on function pgtrickle_streams.%I(text, jsonb) is null', 'refresh_' || id);
end $$;

-- Makes the work table of the refresh: the signed difference, columns by position.
create or replace function pgtrickle_internal.stream_make_diff(id bigint, rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create unlogged table pgtrickle_streams.%I '
    '(n bigint not null, op "char" not null, sign int not null, at tid, %s)',
    'diff_' || id,
    (select string_agg(format('c%s %s%s', a.position, format_type(a.atttypid, a.atttypmod),
                              case when a.collname is not null
                                   then format(' collate %I.%I', a.nspname, a.collname) end),
                       ', ' order by a.position)
     from (select row_number() over (order by t.attnum) as position, t.atttypid, t.atttypmod,
                  l.collname, n.nspname
           from pg_attribute t
           left join pg_collation l on l.oid = t.attcollation and l.collname <> 'default'
           left join pg_namespace n on n.oid = l.collnamespace
           where t.attrelid = rel and t.attnum > 0 and not t.attisdropped) a));
  execute format('revoke all on pgtrickle_streams.%I from public', 'diff_' || id);
end $$;

-- A stream table shows what its query gives, and nothing else: the refresh may write it.
create or replace function pgtrickle_internal.stream_guard() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('pgtrickle.refreshing', true) is distinct from tg_relid::text then
    raise exception 'stream table "%.%" is written by its refresh only', tg_table_schema,
      tg_table_name
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Change the tables that its query reads.';
  end if;
  return null;
end $$;

-- Makes key_columns the primary key; without them, replication needs the whole row.
create or replace function pgtrickle_internal.stream_make_key(rel regclass, keys text[])
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  listed text := (select string_agg(format('%I', k), ', ' order by o)
                  from unnest(keys) with ordinality as u(k, o));
  said text;
begin
  if keys is null then
    execute format('alter table %s replica identity full', rel);
    return;
  end if;
  execute format('alter table %s add primary key (%s)', rel, listed);
exception
  when unique_violation then
    get stacked diagnostics said = pg_exception_detail;
    raise exception 'key_columns (%) do not tell the rows of the query apart: %', listed, said
      using errcode = 'unique_violation',
            hint = 'Name columns that are unique in the result, or leave key_columns out.';
  when not_null_violation then
    raise exception 'key_columns (%) are null in some row of the query', listed
      using errcode = 'not_null_violation',
            hint = 'Name columns that are never null, or leave key_columns out.';
end $$;

-- ---------------------------------------------------------------------------------------------
-- create

-- The schema in which a search_path has things created; null where there is none.
create or replace function pgtrickle_internal.schema_under(path text) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('search_path', path, true);
  return pg_catalog.current_schema();
end $$;

create or replace function pgtrickle_internal.stream_create(
  name text, query text, schedule text, refresh_mode text, key_columns text[], caller_path text)
returns void
language plpgsql
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
#variable_conflict use_variable
declare
  mode text := pgtrickle_internal.stream_check_mode(refresh_mode);
  wanted record := pgtrickle_internal.stream_split_name(name);
  full_name text;
  probe regclass;
  rel regclass;
  definition text;
  columns text[];
  facts jsonb;
  derived text[];
  strays text;
  id bigint;
  sources jsonb;
  taken_at timestamptz;
  locked regclass[];
  through regclass[];
begin
  perform pgtrickle_internal.schedule_check(schedule);
  if pgtrickle_internal.schedule_is_manual(schedule) then
    schedule := null;
  end if;
  perform pgtrickle_internal.source_sequences_sweep();
  if wanted.schema_name is null then
    wanted.schema_name := pgtrickle_internal.schema_under(caller_path);
    if wanted.schema_name is null then
      raise exception 'no schema to create stream table "%" in', name
        using errcode = 'invalid_schema_name', hint = 'Set search_path, or name a schema.';
    end if;
  end if;
  full_name := format('%I.%I', wanted.schema_name, wanted.table_name);
  if to_regclass(full_name) is not null then
    raise exception 'relation % already exists', full_name using errcode = 'duplicate_table';
  end if;

  probe := pgtrickle_internal.stream_probe(query, wanted.schema_name, caller_path);
  definition := pgtrickle_internal.stream_definition(probe);
  columns := (pgtrickle_internal.stream_columns(probe)).names;
  sources := pgtrickle_internal.stream_discover(probe);
  facts := pgtrickle_internal.stream_key_facts(probe);

  select string_agg(format('%I', k), ', ') into strays
  from unnest(key_columns) k where k <> all (columns) or k is null;
  if strays is not null or cardinality(key_columns) = 0 then
    raise exception 'key_columns: % is no column of the query', coalesce(strays, 'the empty list')
      using errcode = 'undefined_column',
            hint = format('Its columns are: %s.', array_to_string(columns, ', '));
  end if;

  execute format('create table %s (like %s)', full_name, probe);
  rel := full_name::regclass;
  execute format('drop view %s', probe);
  execute format('comment on table %s is %L', full_name, pgtrickle_internal.stream_mark());

  id := pgtrickle_internal.stream_register(rel, query, definition, schedule, mode, key_columns,
                                           current_setting('TimeZone'));
  taken_at := clock_timestamp();
  locked := pgtrickle_internal.stream_locked((sources ->> 'opaque')::boolean);
  perform pgtrickle_internal.stream_fill(rel, definition);
  through := array(select unnest(pgtrickle_internal.stream_locked((sources ->> 'opaque')::boolean))
                   except select unnest(locked || rel));
  perform pgtrickle_internal.stream_make_key(rel, key_columns);
  if key_columns is null then
    derived := pgtrickle_internal.stream_derive_key(rel, definition, facts, sources);
  end if;
  execute format('analyze %s', full_name);
  perform pgtrickle_internal.stream_make_diff(id, rel);
  perform pgtrickle_internal.stream_make_function(
    id, definition, pgtrickle_internal.stream_layout(rel, key_columns), caller_path);
  if derived is not null then
    perform pgtrickle_internal.stream_set_key(id, derived);
  elsif key_columns is null then
    perform pgtrickle_internal.stream_say_keyless(rel, facts);
  end if;
  execute format('create trigger pgtrickle_guard before insert or update or delete or truncate '
                 'on %s for each statement execute function pgtrickle_internal.stream_guard()', rel);
  execute format('comment on table %s is %L', full_name,
                 'Stream table: see pgtrickle_internal.stream_tables');
  -- Last, because it takes a lock on the sources; whatever changed since the fill is found by the
  -- first refresh, which has seen nothing yet.
  perform pgtrickle_internal.stream_track(
    id, sources || jsonb_build_object('through', through), interval '10 seconds');
  perform pgtrickle_internal.stream_unlock(id, taken_at);
  perform pgtrickle_internal.stream_unmark(id);
end $$;

-- ---------------------------------------------------------------------------------------------
-- alter

-- Locks the stream tables of these names for a change, after it has waited for refreshes of them to
-- end; returns their ids. While it waits, a promotion may give a name to another stream table: then
-- it locks that one.
create or replace function pgtrickle_internal.stream_lock_named(names text[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[];
begin
  loop
    ids := array(select pgtrickle_internal.stream_id(n)
                 from unnest(names) with ordinality u (n, o) order by o);
    begin
      -- In one order, for others do the same.
      perform pgtrickle_internal.stream_lock(i) from (select distinct u.i from unnest(ids) u (i)
                                                      order by 1) l (i);
      if ids = array(select pgtrickle_internal.stream_id(n)
                     from unnest(names) with ordinality u (n, o) order by o) then
        return ids;
      end if;
      raise sqlstate 'PT001';
    exception when sqlstate 'PT001' then
      null;  -- the locks are undone
    end;
  end loop;
end $$;

-- Replaces the query: it has to give the same columns.
create or replace function pgtrickle_internal.stream_alter_query(
  id bigint, query text, caller_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  st pgtrickle_internal.stream_tables;
  probe regclass;
  definition text;
  was record;
  now_ record;
  sources jsonb;
  facts jsonb;
  derived text[];
begin
  select * into strict st from pgtrickle_internal.stream_tables where pgt_id = id;
  probe := pgtrickle_internal.stream_probe(query, st.pgt_schema, caller_path);
  definition := pgtrickle_internal.stream_definition(probe);
  was := pgtrickle_internal.stream_columns(st.pgt_relid);
  now_ := pgtrickle_internal.stream_columns(probe);
  if was.types <> now_.types then
    raise exception 'the new query gives other columns (%) than stream table %.% has (%)',
      now_.types, st.pgt_schema, st.pgt_name, was.types
      using errcode = 'datatype_mismatch', hint = 'Drop the stream table and create it again.';
  end if;
  sources := pgtrickle_internal.stream_discover(probe);
  facts := pgtrickle_internal.stream_key_facts(probe);
  execute format('drop view %s', probe);
  -- An outbox that is being enabled just now gets the key that is derived.
  execute format('lock table only %s in row exclusive mode', st.pgt_relid);
  perform pgtrickle_internal.stream_make_function(
    id, definition,
    pgtrickle_internal.stream_layout(st.pgt_relid, case when not st.key_derived then st.key_columns end),
    caller_path);
  if st.key_derived or st.key_columns is null then
    derived := pgtrickle_internal.stream_derive_key(st.pgt_relid, definition, facts, sources,
                                                    st.key_columns);
    perform pgtrickle_internal.stream_set_key(id, derived);
    if derived is null then
      perform pgtrickle_internal.stream_say_keyless(st.pgt_relid, facts);
    end if;
  end if;
  perform pgtrickle_internal.stream_store(id, null, null, null, query, definition);
  perform pgtrickle_internal.stream_track(id, sources, interval '10 seconds');
  perform pgtrickle_internal.stream_unmark(id);
end $$;

create or replace function pgtrickle_internal.stream_alter(
  name text, schedule text, refresh_mode text, suspend boolean, resume boolean, rename_to text,
  query text, caller_path text) returns void
language plpgsql
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
#variable_conflict use_variable
declare
  id bigint;
  mode text := case when refresh_mode is not null
                    then pgtrickle_internal.stream_check_mode(refresh_mode) end;
  target record;
  rel regclass;
begin
  if suspend and resume then
    raise exception 'a stream table is suspended or resumed, not both'
      using errcode = 'invalid_parameter_value';
  end if;
  perform pgtrickle_internal.schedule_check(schedule);
  if schedule is not null and pgtrickle_internal.schedule_is_manual(schedule) then
    schedule := 'manual';
  end if;
  id := (pgtrickle_internal.stream_lock_named(array[name]))[1];
  if rename_to is not null then
    target := pgtrickle_internal.stream_split_name(rename_to);
    select s.pgt_relid into rel from pgtrickle_internal.stream_tables s where s.pgt_id = id;
    if target.schema_name <> (select n.nspname from pg_class c
                              join pg_namespace n on n.oid = c.relnamespace where c.oid = rel) then
      raise exception 'a stream table is renamed within its schema'
        using errcode = 'invalid_name',
              hint = 'ALTER TABLE ... SET SCHEMA moves it to another one.';
    end if;
    execute format('alter table %s rename to %I', rel, target.table_name);
  end if;
  if query is not null then
    perform pgtrickle_internal.stream_alter_query(id, query, caller_path);
  end if;
  perform pgtrickle_internal.stream_store(
    id, schedule, mode,
    case when suspend or not resume then 'SUSPENDED' when resume or not suspend then 'ACTIVE' end,
    null, null);
  perform pgtrickle_internal.stream_unlock(id);
end $$;

-- ---------------------------------------------------------------------------------------------
-- drop

create or replace function pgtrickle_internal.stream_drop(name text, if_exists boolean) returns void
language plpgsql
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  id bigint := pgtrickle_internal.stream_find(name);
  rel regclass;
begin
  if id is null and if_exists then
    raise notice 'stream table "%" does not exist, skipping', name;
    return;
  end if;
  id := (pgtrickle_internal.stream_lock_named(array[name]))[1];
  select s.pgt_relid into rel from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if exists (select from pgtrickle_internal.outbox_config o where o.stream_table_oid = rel) then
    perform pgtrickle.disable_outbox(
      (select format('%I.%I', s.pgt_schema, s.pgt_name)
       from pgtrickle_internal.stream_tables s where s.pgt_id = id), true);
  end if;
  perform pgtrickle_internal.publication_drop_of(rel);
  perform pgtrickle_internal.stream_drop_parts(id);
end $$;

-- Drops the table of a stream table, and all that belongs to its definition.
create or replace function pgtrickle_internal.stream_drop_parts(id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  rel regclass;
  orphan regclass;
begin
  select s.pgt_relid into rel from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if exists (select from pg_class c where c.oid = rel) then
    execute format('drop table %s', rel);
  end if;
  execute format('drop table if exists pgtrickle_streams.%I', 'diff_' || id);
  execute format('drop function if exists pgtrickle_streams.%I(text, jsonb)', 'refresh_' || id);
  for orphan in select * from pgtrickle_internal.stream_unregister(id) loop
    perform pgtrickle_internal.stream_untrack(orphan);
  end loop;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_check_mode(text), pgtrickle_internal.stream_probe(text, text, text),
  pgtrickle_internal.stream_columns(regclass), pgtrickle_internal.stream_definition(regclass),
  pgtrickle_internal.stream_fill(regclass, text),
  pgtrickle_internal.stream_make_function(bigint, text, jsonb, text),
  pgtrickle_internal.stream_unmark(bigint),
  pgtrickle_internal.stream_make_diff(bigint, regclass), pgtrickle_internal.stream_guard(),
  pgtrickle_internal.stream_make_key(regclass, text[]), pgtrickle_internal.schema_under(text),
  pgtrickle_internal.stream_create(text, text, text, text, text[], text),
  pgtrickle_internal.stream_alter_query(bigint, text, text),
  pgtrickle_internal.stream_alter(text, text, text, boolean, boolean, text, text, text),
  pgtrickle_internal.stream_lock_named(text[]),
  pgtrickle_internal.stream_drop(text, boolean), pgtrickle_internal.stream_drop_parts(bigint)
  to pgtrickle_admin;
