-- What a refresh does as the creator of the stream table.

-- Turns the user's own triggers on a stream table off, or on again as they were: returns what
-- turns them on again. Our own triggers, and those of constraints, stay.
create or replace function pgtrickle_internal.stream_triggers_off(rel regclass) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  trigger record;
  restore text[] := '{}';
begin
  for trigger in
    select t.tgname, t.tgenabled from pg_trigger t
    where t.tgrelid = rel and not t.tgisinternal and t.tgenabled <> 'D'
      and t.tgfoid not in ('pgtrickle_internal.source_changed()'::regprocedure,
                           'pgtrickle_internal.stream_guard()'::regprocedure)
  loop
    execute format('alter table %s disable trigger %I', rel, trigger.tgname);
    restore := restore || format(
      'alter table %s enable %strigger %I', rel,
      case trigger.tgenabled when 'A' then 'always ' when 'R' then 'replica ' else '' end,
      trigger.tgname);
  end loop;
  return restore;
end $$;

-- Where several equal rows go, the difference knows the place of one only: finds the others'.
create or replace function pgtrickle_internal.stream_place_duplicates(
  id bigint, rel regclass, layout jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ours text;
  theirs text;
begin
  select string_agg(format('c%s::text collate "C"', i), ', ' order by i),
         string_agg(format('%I::text collate "C"', name), ', ' order by i)
  into ours, theirs
  from pgtrickle_internal.stream_layout_rows(layout);
  execute format(
    'with gone as ('
    '  select ctid as here, row, row_number() over (partition by row) as nth '
    '  from (select ctid, array[%s] as row from pgtrickle_streams.%I where sign = -1) d), '
    'stored as ('
    '  select at, row, row_number() over (partition by row) as nth '
    '  from (select ctid as at, array[%s] as row from only %s) s '
    '  where row in (select row from gone where nth > 1)) '
    'update pgtrickle_streams.%I d set at = stored.at from gone join stored using (row, nth) '
    'where d.ctid = gone.here and exists (select from gone g where g.row = gone.row and g.nth > 1)',
    ours, 'diff_' || id, theirs, rel, 'diff_' || id);
end $$;

-- Empties the difference: cheaply where it was small, and giving the space back where it was not.
create or replace function pgtrickle_internal.stream_empty(work regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_relation_size(work) > 1024 * 1024 then
    execute format('truncate %s', work);
  else
    execute format('delete from %s', work);
  end if;
end $$;

-- Runs a statement that writes to the stream table; returns how many rows it wrote. Triggers fire
-- under the search_path that their creator is used to: the statement must mean the same under any.
create or replace function pgtrickle_internal.stream_write(statement text, trigger_path text)
returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  written bigint;
begin
  perform set_config('search_path', trigger_path, true);
  execute statement;
  get diagnostics written = row_count;
  return written;
end $$;

-- Writes the difference to the stream table; an error where a row was not there, or a trigger of
-- the user's took one away: what is stored and what was published must be the same.
create or replace function pgtrickle_internal.stream_apply(
  id bigint, rel regclass, layout jsonb, counts record, trigger_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  written bigint := 0;
  work text := format('pgtrickle_streams.%I', 'diff_' || id);
  l record;
begin
  select string_agg(format('%I', name), ', ' order by i) as names,
         string_agg('c' || i, ', ' order by i) as c,
         string_agg(format('%I = d.c%s', name, i), ', ' order by i) as assigned
  into l
  from pgtrickle_internal.stream_layout_rows(layout);
  if counts.deleted > 0 then
    written := written + pgtrickle_internal.stream_write(format(
      'delete from only %s s using %s d where s.ctid operator(pg_catalog.=) d.at '
      '  and d.op operator(pg_catalog.=) ''D''::pg_catalog."char"', rel, work), trigger_path);
  end if;
  if counts.updated > 0 then
    written := written + pgtrickle_internal.stream_write(format(
      'update only %s s set %s from %s d where s.ctid operator(pg_catalog.=) d.at '
      '  and d.op operator(pg_catalog.=) ''U''::pg_catalog."char" '
      '  and d.sign operator(pg_catalog.>) 0', rel, l.assigned, work), trigger_path);
  end if;
  if counts.inserted > 0 then
    written := written + pgtrickle_internal.stream_write(format(
      'insert into %s (%s) select %s from %s '
      'where op operator(pg_catalog.=) ''I''::pg_catalog."char" order by n',
      rel, l.names, l.c, work), trigger_path);
  end if;
  if written <> counts.deleted + counts.updated + counts.inserted then
    raise exception 'the difference could not be written to % as it was computed', rel
      using errcode = 'triggered_data_change_violation',
            hint = 'Look for a BEFORE trigger that returns NULL, or rows written past the guard.';
  end if;
end $$;

-- The first keys of the difference, as a JSON array; a key of several columns is an array itself.
create or replace function pgtrickle_internal.stream_affected_keys(
  id bigint, layout jsonb, up_to int) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  key text;
  listed jsonb;
begin
  select case when count(*) > 1
              then format('jsonb_build_array(%s)', string_agg(l.c, ', ' order by l.key))
              else min(l.c) end
  into key
  from (select r.key, format('to_jsonb(c%s)', r.i) as c from pgtrickle_internal.stream_layout_rows(layout) r
        where r.key is not null) l;
  if key is null then
    return '[]';
  end if;
  execute format(
    'select coalesce(jsonb_agg(k order by n), ''[]'') from ('
    '  select n, %s as k from pgtrickle_streams.%I '
    '  where op <> ''U'' or sign > 0 order by n limit %s) d', key, 'diff_' || id, up_to)
  into listed;
  return listed;
end $$;

-- How many rows of a difference are of which kind.
create or replace function pgtrickle_internal.stream_counts(
  work regclass, out inserted bigint, out updated bigint, out deleted bigint, out repeated bigint,
  out unplaced bigint)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('select count(*) filter (where op = ''I''), '
                 '       count(*) filter (where op = ''U'' and sign > 0), '
                 '       count(*) filter (where op = ''D''), '
                 '       count(*) filter (where op = ''X''), '
                 '       count(*) filter (where sign < 0 and at is null) '
                 'from %s', work) into inserted, updated, deleted, repeated, unplaced;
end $$;

-- Writes the difference to the stream table. The user's triggers fire, unless the session has switched
-- them off.
create or replace function pgtrickle_internal.stream_write_difference(
  id bigint, rel regclass, layout jsonb, counts record, trigger_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  restore text[] := '{}';
  step text;
begin
  if counts.unplaced > 0 then
    perform pgtrickle_internal.stream_place_duplicates(id, rel, layout);
  end if;
  if current_setting('pg_trickle.user_triggers', true) = 'off' then
    restore := pgtrickle_internal.stream_triggers_off(rel);
  end if;
  perform pgtrickle_internal.stream_apply(id, rel, layout, counts, trigger_path);
  foreach step in array restore loop
    execute step;
  end loop;
end $$;

-- Computes the difference and applies it. arg: "order_by", "keep" when its rows are asked for
-- afterwards, and "write": false when it is applied later.
create or replace function pgtrickle_internal.stream_differential(
  id bigint, rel regclass, query text, layout jsonb, trigger_path text, arg jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  work regclass := format('pgtrickle_streams.%I', 'diff_' || id)::regclass;
  statement text := pgtrickle_internal.stream_diff_statement(
    id, rel, query, layout,
    array(select jsonb_array_elements_text(nullif(arg -> 'order_by', 'null'))));
  opaque boolean := (arg ->> 'opaque')::boolean;
  write boolean := coalesce((arg ->> 'write')::boolean, true);
  locked regclass[] := pgtrickle_internal.stream_locked(opaque);
  total bigint;
  counts record;
  summary jsonb;
begin
  execute statement;
  get diagnostics total = row_count;
  -- Before triggers on the stream table read whatever they like.
  summary := jsonb_build_object('through', array(
    select unnest(pgtrickle_internal.stream_locked(opaque)) except select unnest(locked)));
  if total = 0 then
    return summary || '{"inserted": 0, "updated": 0, "deleted": 0, "keys": [], "pages": 0}';
  end if;
  counts := pgtrickle_internal.stream_counts(work);
  if counts.repeated > 0 then
    execute format('delete from %s where op <> ''X''', work);
    raise exception 'key_columns (%) do not tell the rows of the query apart: % is there twice',
      (select string_agg(name, ', ' order by key) from pgtrickle_internal.stream_layout_rows(layout)
       where key is not null),
      pgtrickle_internal.stream_affected_keys(id, layout, 1) -> 0
      using errcode = 'unique_violation',
            hint = 'Drop the stream table and create it with other key_columns, or without.';
  end if;
  if write then
    perform pgtrickle_internal.stream_write_difference(id, rel, layout, counts, trigger_path);
  end if;
  summary := summary || jsonb_build_object(
    'inserted', counts.inserted, 'updated', counts.updated, 'deleted', counts.deleted,
    'keys', pgtrickle_internal.stream_affected_keys(id, layout, 1000),
    'pages', pg_relation_size(work) / current_setting('block_size')::int);
  if write and not (arg ->> 'keep')::boolean then
    perform pgtrickle_internal.stream_empty(work);
  end if;
  return summary;
end $$;

-- Replaces all rows of the stream table by those that `statement` inserts; the user's triggers are
-- off. Rows are deleted, not truncated: readers see the old rows until the new ones are committed, and
-- wait for nothing.
create or replace function pgtrickle_internal.stream_overwrite(
  rel regclass, statement text, out gone bigint, out come bigint)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  restore constant text[] := pgtrickle_internal.stream_triggers_off(rel);
  step text;
begin
  execute format('delete from only %s', rel);
  get diagnostics gone = row_count;
  execute statement;
  get diagnostics come = row_count;
  foreach step in array restore loop
    execute step;
  end loop;
end $$;

-- The statement that writes all rows of the difference, where it is all that the query gives.
create or replace function pgtrickle_internal.stream_insert_kept(
  id bigint, rel regclass, layout jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('insert into %s (%s) select %s from pgtrickle_streams.%I', rel,
                string_agg(format('%I', name), ', ' order by i),
                string_agg('c' || i, ', ' order by i), 'diff_' || id)
  from pgtrickle_internal.stream_layout_rows(layout)
$$;

-- Writes the table anew. With "write": false, which needs "keep", that is left to stream_write_later.
create or replace function pgtrickle_internal.stream_rewrite(
  id bigint, rel regclass, query text, layout jsonb, arg jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  work regclass := format('pgtrickle_streams.%I', 'diff_' || id)::regclass;
  opaque boolean := (arg ->> 'opaque')::boolean;
  locked regclass[] := pgtrickle_internal.stream_locked(opaque);
  l record;
  written record;
  statement text;
begin
  select string_agg(format('%I', name), ', ' order by i) as names,
         string_agg('c' || i, ', ' order by i) as c,
         string_agg('c' || i, ', ' order by key) filter (where key is not null) as key_order
  into l
  from pgtrickle_internal.stream_layout_rows(layout);
  statement := format('insert into %s (%s) %s', rel, l.names, query);
  if (arg ->> 'keep')::boolean then
    execute format('insert into %s (n, op, sign, %s) '
                   'select row_number() over (%s), ''I'', 1, q.* from (%s) q(%s)',
                   work, l.c, 'order by ' || l.key_order, query, l.c);
    statement := pgtrickle_internal.stream_insert_kept(id, rel, layout);
  end if;
  if coalesce((arg ->> 'write')::boolean, true) then
    written := pgtrickle_internal.stream_overwrite(rel, statement);
  else
    execute format('select (select count(*) from only %s) as gone, (select count(*) from %s) as come',
                   rel, work) into written;
  end if;
  -- User triggers are off.
  return jsonb_build_object(
    'inserted', written.come, 'updated', 0, 'deleted', written.gone, 'keys', '[]'::jsonb,
    'through', array(select unnest(pgtrickle_internal.stream_locked(opaque)) except select unnest(locked)),
    'pages', pg_relation_size(work) / current_setting('block_size')::int);
end $$;

-- Writes what a step with "write": false has computed.
create or replace function pgtrickle_internal.stream_write_later(
  id bigint, rel regclass, layout jsonb, trigger_path text, mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  work regclass := format('pgtrickle_streams.%I', 'diff_' || id)::regclass;
begin
  if mode = 'FULL' then
    perform pgtrickle_internal.stream_overwrite(
      rel, pgtrickle_internal.stream_insert_kept(id, rel, layout));
  else
    perform pgtrickle_internal.stream_write_difference(
      id, rel, layout, pgtrickle_internal.stream_counts(work), trigger_path);
  end if;
  perform pgtrickle_internal.stream_empty(work);
end $$;

-- What the query reads now, and the facts about its key; after DDL on a source it must still give the
-- stream table's columns.
create or replace function pgtrickle_internal.stream_verify(
  rel regclass, query text, out reads jsonb, out facts jsonb)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  probe regclass := pgtrickle_internal.stream_probe(
    query, (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.oid = rel),
    'pg_catalog, pg_temp');
  gives text := (pgtrickle_internal.stream_columns(probe)).types;
  has text := (pgtrickle_internal.stream_columns(rel)).types;
begin
  reads := pgtrickle_internal.stream_discover(probe);
  facts := pgtrickle_internal.stream_key_facts(probe);
  execute format('drop view %s', probe);
  if gives <> has then
    raise exception 'a source was altered: the query now gives (%), stream table % has (%)',
      gives, rel, has
      using errcode = 'datatype_mismatch', hint = 'Drop the stream table and create it again.';
  end if;
end $$;

-- One step of a refresh; called by pgtrickle_streams.refresh_<id>, which hands in what its creator
-- wrote into it.
--   verify        after DDL on a source: does the query still fit? Where arg has a derived "key", one row
--                 with the "key" that there is now
--   apply, full   computes the difference, or all rows, and writes them; one row with a summary
--   rows          those of the pages arg.from to arg.to of the difference, one for each row
--   widen         adds the columns that the table arg.like has beside those of the stream table
--   write         writes what apply or full (arg.mode) has computed with "write": false
--   done          the rows are no longer needed
--   watch         watches what the query reads now
--
-- Whatever the session has set, values are written as here: rows without a key are compared and
-- stored by their text.
create or replace function pgtrickle_internal.stream_work(
  id bigint, query text, layout jsonb, trigger_path text, action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql
  set search_path = pg_catalog, pg_temp
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
declare
  rel regclass;
  verified record;
  derived constant text[] := array(select jsonb_array_elements_text(nullif(arg -> 'key', 'null')));
  listed text;
  lacking text[];
begin
  if not pgtrickle_internal.stream_is_refreshing(id) then
    raise exception 'stream table % is not being refreshed here', id
      using errcode = 'insufficient_privilege', hint = 'Call pgtrickle.refresh_stream_table().';
  end if;
  select s.pgt_relid into strict rel from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if derived <> '{}' then
    layout := pgtrickle_internal.stream_layout_keyed(layout, derived);
  end if;
  case action
    when 'verify' then
      verified := pgtrickle_internal.stream_verify(rel, query);
      if derived <> '{}' then
        row_data := jsonb_build_object('key', pgtrickle_internal.stream_derive_key(
          rel, query, verified.facts, verified.reads, derived));
        return next;
      end if;
    when 'watch' then
      perform pgtrickle_internal.stream_track(
        id, (pgtrickle_internal.stream_verify(rel, query)).reads || coalesce(arg, '{}'), interval '0');
    when 'apply', 'full' then
      execute format('lock table only %s in row exclusive mode', rel);
      perform set_config('pgtrickle.refreshing', rel::oid::text, true);
      row_data := case action
        when 'apply' then
          pgtrickle_internal.stream_differential(id, rel, query, layout, trigger_path, arg)
        else pgtrickle_internal.stream_rewrite(id, rel, query, layout, arg)
      end;
      perform set_config('pgtrickle.refreshing', '', true);
      return next;
    when 'widen' then
      perform pgtrickle_internal.stream_widen(rel, (arg ->> 'like')::oid::regclass);
    when 'write' then
      perform set_config('pgtrickle.refreshing', rel::oid::text, true);
      perform pgtrickle_internal.stream_write_later(id, rel, layout, trigger_path, arg ->> 'mode');
      perform set_config('pgtrickle.refreshing', '', true);
    when 'rows' then
      select string_agg(format('d.c%s as %I', i, name), ', ' order by i) into listed
      from pgtrickle_internal.stream_layout_rows(layout);
      -- Consumers do not have the columns that are about to be added.
      lacking := array(select name from pgtrickle_internal.stream_layout_rows(layout)
                       except select unnest((pgtrickle_internal.stream_columns(rel)).names));
      return query execute format(
        'select case when d.sign < 0 then ''DELETE'' else ''INSERT'' end, d.n, %s '
        'from pgtrickle_streams.%I d cross join lateral (select %s) x '
        'where d.ctid >= %L and d.ctid < %L',
        case when lacking = '{}' then 'to_jsonb(x.*)'
             else format('case when d.sign < 0 then to_jsonb(x.*) - %L::text[] else to_jsonb(x.*) end',
                         lacking) end,
        'diff_' || id, listed,
        format('(%s,0)', arg ->> 'from'), format('(%s,0)', arg ->> 'to'));
    when 'done' then
      perform pgtrickle_internal.stream_empty(format('pgtrickle_streams.%I', 'diff_' || id)::regclass);
  end case;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_triggers_off(regclass),
  pgtrickle_internal.stream_place_duplicates(bigint, regclass, jsonb),
  pgtrickle_internal.stream_empty(regclass), pgtrickle_internal.stream_write(text, text),
  pgtrickle_internal.stream_apply(bigint, regclass, jsonb, record, text),
  pgtrickle_internal.stream_affected_keys(bigint, jsonb, integer),
  pgtrickle_internal.stream_counts(regclass),
  pgtrickle_internal.stream_write_difference(bigint, regclass, jsonb, record, text),
  pgtrickle_internal.stream_overwrite(regclass, text),
  pgtrickle_internal.stream_insert_kept(bigint, regclass, jsonb),
  pgtrickle_internal.stream_write_later(bigint, regclass, jsonb, text, text),
  pgtrickle_internal.stream_differential(bigint, regclass, text, jsonb, text, jsonb),
  pgtrickle_internal.stream_rewrite(bigint, regclass, text, jsonb, jsonb),
  pgtrickle_internal.stream_verify(regclass, text),
  pgtrickle_internal.stream_work(bigint, text, jsonb, text, text, jsonb)
  to pgtrickle_admin;
