-- How a row of a user's table becomes JSON, without running anything that a user wrote.
--
-- to_jsonb() looks up a cast to json for each value whose type is not PostgreSQL's own, and runs it.
-- The owner of the type may have made that cast, at any time, and it would run with the rights of
-- the role that converts the row. So values of types that were made by users or extensions (enums,
-- ranges, base types), also inside arrays, domains and composite types, are written by the output
-- function of their type, which only a superuser can provide. All others go through to_jsonb().
--
-- The functions here only read the catalog and their arguments. They run with the rights of their
-- caller, and every role may call them: the owner of a table does, through the gate.

-- What a type is made of: itself without its domains, whether that is an array, and what the
-- element, again without domains, is:
--   'safe'       to_jsonb() does not look up a cast for it, and does not fail
--   'json'       the same, but jsonb may not accept its text
--   'output'     made by a user or an extension: written by its output function
--   'composite'  made by a user: its attributes are looked at one by one
create or replace function pgtrickle_json.kind(
  type oid, out is_array boolean, out leaf oid, out kind text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  is_array := false;
  leaf := type;
  loop
    select p.typtype, p.typbasetype, p.typrelid,
           case when p.typsubscript = 'array_subscript_handler'::regproc then p.typelem end as element
    into strict t from pg_type p where p.oid = leaf;
    if t.typtype = 'd' then
      leaf := t.typbasetype;
    elsif t.element is not null and not is_array then
      is_array := true;
      leaf := t.element;
    else
      exit;
    end if;
  end loop;
  kind := case when leaf = 'json'::regtype then 'json'
               when leaf < 16384 then 'safe'
               when t.typtype = 'c' then 'composite'
               else 'output' end;
end $$;

-- The composite types, as relations, that the columns of a relation are made of.
create or replace function pgtrickle_json.parts(rel oid) returns oid[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  found_parts oid[] := '{}';
  todo oid[] := array[rel];
  part oid;
begin
  while todo <> '{}' loop
    select coalesce(array_agg(distinct t.typrelid), '{}') into todo
    from pg_attribute a
    cross join lateral pgtrickle_json.kind(a.atttypid) k
    join pg_type t on t.oid = k.leaf
    where a.attrelid = any (todo) and a.attnum > 0 and not a.attisdropped
      and k.kind = 'composite' and t.typrelid <> all (found_parts);
    found_parts := found_parts || todo;
  end loop;
  return found_parts;
end $$;

-- The settings that the text of values depends on, for all types there are. `differs` is the condition
-- under which a session writes them otherwise than `pinned` does. (ISO dates are the same in every
-- order of day and month; a positive extra_float_digits always gives the shortest exact number.)
-- array_nulls is for the arrays that value_sql writes as text and reads again.
create or replace function pgtrickle_json._settings_known()
returns table (name text, pinned text, differs text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select k.name, k.pinned, format(k.differs, format('pg_catalog.current_setting(%L)', k.name))
  from (values
    ('array_nulls', 'on', '%s operator(pg_catalog.<>) ''on'''),
    ('bytea_output', 'hex', '%s operator(pg_catalog.<>) ''hex'''),
    ('DateStyle', 'ISO', 'not pg_catalog.starts_with(%s, ''ISO'')'),
    ('extra_float_digits', '1', '%s operator(pg_catalog.<>) all (''{1,2,3}''::pg_catalog._text)'),
    ('IntervalStyle', 'postgres', '%s operator(pg_catalog.<>) ''postgres'''),
    ('lc_monetary', 'C', '%s operator(pg_catalog.<>) ''C'''),
    ('quote_all_identifiers', 'off', '%s operator(pg_catalog.<>) ''off'''),
    ('TimeZone', 'UTC', '%s operator(pg_catalog.<>) all '
                        '(''{UTC,Etc/UTC,GMT,Etc/GMT}''::pg_catalog._text)')
  ) k (name, pinned, differs);
$$;

-- The settings that values of a relation depend on when they are written as JSON; see _settings_known.
-- to_jsonb() writes dates itself, in ISO, unless they are within a value that is written as text.
-- An output function that is not the server's own may read any of them.
create or replace function pgtrickle_json.settings(rel oid) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  -- Types to check, and types checked: by themselves, and within a value that is written as text.
  todo oid[];
  todo_as_text oid[] := '{}';
  seen oid[] := '{}';
  seen_as_text oid[] := '{}';
  needed text[] := '{}';
begin
  select coalesce(array_agg(distinct a.atttypid), '{}') into todo from pg_attribute a
  where a.attrelid = rel and a.attnum > 0 and not a.attisdropped;
  while todo <> '{}' or todo_as_text <> '{}' loop
    seen := seen || todo;
    seen_as_text := seen_as_text || todo_as_text;
    needed := needed || array(
      select pgtrickle_json._settings_of(w.type, w.as_text)
      from (select unnest(todo), false union all select unnest(todo_as_text), true) w (type, as_text));
    select coalesce(array_agg(distinct p.type) filter (where not p.as_text and p.type <> all (seen)),
                    '{}'),
           coalesce(array_agg(distinct p.type) filter (where p.as_text
                                                         and p.type <> all (seen_as_text)), '{}')
    into todo, todo_as_text
    from (select unnest(todo), false union all select unnest(todo_as_text), true) w (type, as_text)
    cross join lateral (
      select q.type, w.as_text or q.as_text
      from pgtrickle_json._types_of(w.type) q) p (type, as_text);
  end loop;
  return array(select distinct n.name from unnest(needed) n (name) order by n.name);
end $$;

-- The types that a type is made of, and whether their values are written as text within it.
create or replace function pgtrickle_json._types_of(whole oid)
returns table (type oid, as_text boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  select p.typtype, p.typbasetype, p.typelem, p.typrelid into strict t
  from pg_type p where p.oid = whole;
  return query
    select t.typbasetype, false where t.typtype = 'd'
    union all
    select t.typelem, false where t.typelem <> 0;
  if t.typtype = 'r' then
    return query select r.rngsubtype, true from pg_range r where r.rngtypid = whole;
  elsif t.typtype = 'm' then
    return query select r.rngsubtype, true from pg_range r where r.rngmultitypid = whole;
  elsif t.typtype = 'c' then
    return query select a.atttypid, true from pg_attribute a
                 where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped;
  end if;
end $$;

-- The settings that values of one type depend on, apart from the types that it is made of.
create or replace function pgtrickle_json._settings_of(type oid, as_text boolean)
returns setof text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  select p.typelem, f.proname, f.pronamespace into strict t
  from pg_type p join pg_proc f on f.oid = p.typoutput where p.oid = type;
  if t.pronamespace <> 'pg_catalog'::regnamespace then
    return query select k.name from pgtrickle_json._settings_known() k;
  elsif type >= 16384 and t.typelem <> 0 then
    return next 'array_nulls';
  elsif t.proname = 'byteaout' then
    return next 'bytea_output';
  elsif t.proname in ('date_out', 'timestamp_out', 'timestamptz_out') then
    if as_text then
      return next 'DateStyle';
    end if;
    if t.proname = 'timestamptz_out' then
      return next 'TimeZone';
    end if;
  elsif t.proname in ('float4out', 'float8out', 'point_out', 'line_out', 'lseg_out', 'box_out',
                      'path_out', 'poly_out', 'circle_out') then
    return next 'extra_float_digits';
  elsif t.proname = 'interval_out' then
    return next 'IntervalStyle';
  elsif t.proname = 'cash_out' then
    return next 'lc_monetary';
  elsif t.proname ~ '^reg.*out$' then
    return next 'quote_all_identifiers';
  end if;
end $$;

-- Statements of PL/pgSQL that pin settings for as long as values are written, and that put back what
-- the session had: {"pin", "unpin"}. `was` is a variable of type text[], null until something had to
-- be set; `ignored` is one of type text (an assignment costs a tenth of PERFORM). Nothing is sent to the client between the two, and nothing of them outlives the
-- transaction; an error undoes them with the (sub)transaction that it ends.
create or replace function pgtrickle_json.pin_sql(settings text[], was text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('pin', '', 'unpin', '') where settings = '{}'
  union all
  select jsonb_build_object(
    'pin', format(
      'if %1$s then %2$I := array[%3$s]; ignored := pg_catalog.concat(%4$s); end if;', string_agg(k.differs, ' or ' order by s.n),
      was, string_agg(format('pg_catalog.current_setting(%L)', k.name), ', ' order by s.n),
      string_agg(format('pg_catalog.set_config(%L, %L, true)', k.name, k.pinned), ', '
                 order by s.n)),
    'unpin', format(
      'if %1$I is not null then ignored := pg_catalog.concat(%2$s); end if;', was,
      string_agg(format('pg_catalog.set_config(%L, %I[%s], true)', k.name, was, s.n), ', '
                 order by s.n)))
  from unnest(settings) with ordinality s (name, n)
  join pgtrickle_json._settings_known() k using (name)
  having count(*) > 0;
$$;

-- Whether what an old snapshot shows of a relation's columns is what they are now. A REPEATABLE READ
-- transaction reads the catalog as it was when it began, while PostgreSQL works with the columns as
-- they are. These functions tell the present: has_column_privilege() (null: there is no such column),
-- pg_identify_object_as_address() (the column's name), and pg_relation_filenode() (a new one after
-- each rewrite, which a change of type needs; a partitioned table has none, and cannot be known so).
create or replace function pgtrickle_json._is_current(rel oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  last_column int;
begin
  select max(a.attnum) into last_column from pg_attribute a where a.attrelid = rel;
  if last_column is null
     or exists (select from pg_class c
                where c.oid = rel and (c.relkind = 'p'
                                       or pg_relation_filenode(rel) <> c.relfilenode)) then
    return false;
  end if;
  return not exists (
      select from generate_series(last_column + 1, 1600) n
      where has_column_privilege(rel, n::smallint, 'SELECT') is not null)
    and not exists (
      select from pg_attribute a
      where a.attrelid = rel and a.attnum > 0
        and a.attisdropped <> (has_column_privilege(rel, a.attnum, 'SELECT') is null))
    and not exists (
      select from pg_attribute a
      cross join lateral pg_identify_object_as_address('pg_class'::regclass, rel, a.attnum) o
      where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
        and o.object_names[cardinality(o.object_names)] <> a.attname);
end $$;

-- The columns of a table as they are now, by their names and those of their types, whatever the
-- snapshot. Null where that does not tell all: the names of composite types, and of arrays of
-- domains, can come to mean other types.
create or replace function pgtrickle_json.by_name(rel oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set xmlbinary = base64
as $$
begin
  return (
    select md5(table_to_xmlschema(rel::regclass, true, false, '')::text)
    where not exists (
      select from pg_attribute a
      cross join lateral pgtrickle_json.kind(a.atttypid) k
      where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
        and (k.kind = 'composite' or (k.is_array and a.atttypid >= 16384 and k.kind <> 'output'))));
end $$;

-- The columns of a relation, as the catalog shows them: 'plain' where to_jsonb(row) is safe
-- and does not fail, else a digest of the columns; with the settings that it depends on, and whether
-- there is a key that is checked at the end of the transaction (207_outbox_deferred.sql). A
-- partitioned table always has a digest: what is written for it names its columns (see by_name).
create or replace function pgtrickle_json.digest(rel oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  relations oid[];
  settings text[];
  late_key constant text := case when exists (
    select from pg_index i where i.indrelid = rel and i.indisunique and not i.indimmediate)
    then 'deferrable' end;
begin
  -- A fast path for most tables.
  select array_agg(distinct c.setting order by c.setting) filter (where c.setting is not null)
  into settings
  from (
    select a.attrelid, s.setting, s.type is not null and a.attgenerated <> 'v' as simple
    from pg_attribute a
    left join (values
      ('bool'::regtype, null), ('int2'::regtype, null), ('int4'::regtype, null),
      ('int8'::regtype, null), ('numeric'::regtype, null), ('text'::regtype, null),
      ('varchar'::regtype, null), ('bpchar'::regtype, null), ('uuid'::regtype, null),
      ('jsonb'::regtype, null), ('inet'::regtype, null), ('date'::regtype, null),
      ('time'::regtype, null), ('timestamp'::regtype, null), ('text[]'::regtype, null),
      ('int4[]'::regtype, null), ('int8[]'::regtype, null), ('uuid[]'::regtype, null),
      ('tsvector'::regtype, null), ('timestamptz'::regtype, 'TimeZone'),
      ('bytea'::regtype, 'bytea_output'), ('interval'::regtype, 'IntervalStyle'),
      ('float4'::regtype, 'extra_float_digits'), ('float8'::regtype, 'extra_float_digits')
    ) s (type, setting) on s.type = a.atttypid
    where a.attrelid = rel and a.attnum > 0 and not a.attisdropped) c
  join pg_class r on r.oid = c.attrelid and r.relkind <> 'p'
  having bool_and(c.simple);
  if found then
    return concat_ws(' ', 'plain', array_to_string(settings, ','), late_key);
  end if;

  relations := array[rel] || pgtrickle_json.parts(rel);
  settings := pgtrickle_json.settings(rel);
  return (
    select concat_ws(' ',
           case when bool_and(k.kind = 'safe' and a.attgenerated <> 'v') is not false
                     and (select c.relkind from pg_class c where c.oid = rel) is distinct from 'p'
                then 'plain'
                else md5(string_agg(format('%s %s %s %s %s', a.attrelid, a.attnum, a.attname,
                                           a.atttypid, a.attgenerated), ','
                                    order by a.attrelid, a.attnum)) end,
           nullif(array_to_string(settings, ','), ''), late_key)
    from pg_attribute a cross join lateral pgtrickle_json.kind(a.atttypid) k
    where a.attrelid = any (relations) and a.attnum > 0 and not a.attisdropped);
end $$;

-- The same under a snapshot of its own, taken now, where the transaction is READ COMMITTED. (A VOLATILE
-- function gets one for each statement; what is IMMUTABLE or STABLE uses its caller's, which can be
-- older than a lock that the statement has waited for.)
create or replace function pgtrickle_json._digest_now(rel oid) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  return pgtrickle_json.digest(rel);
end $$;

-- What the columns of a relation are at this moment (see digest); null where this transaction cannot
-- know it.
create or replace function pgtrickle_json.shape(rel oid) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  relation oid;
begin
  if current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
    return pgtrickle_json._digest_now(rel);
  end if;
  foreach relation in array array[rel] || pgtrickle_json.parts(rel) loop
    if not pgtrickle_json._is_current(relation) then
      return null;
    end if;
  end loop;
  return pgtrickle_json.digest(rel);
end $$;

-- Whether the columns of a relation are, at this moment, those of `wanted` (see digest) and `named`
-- (see by_name).
--
-- Declared IMMUTABLE so that the planner replaces a call by its result: a statement that asks it costs
-- nothing. A plan whose statement names the relation as a constant of type oid is made again when the
-- relation changes, so the result is never older than the columns. `parts` are the composite types
-- within, named for that alone.
create or replace function pgtrickle_json.fits(rel oid, wanted text, named text,
                                               variadic parts oid[] default '{}') returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  shape constant text := pgtrickle_json.shape(rel);
begin
  return case when shape is not null then shape = wanted
              else named = pgtrickle_json.by_name(rel) end is true;
exception when others then
  return false;
end $$;

-- The expression whose to_jsonb() is what the value of a type is in JSON. `value` is the expression
-- for the value; where all is safe it comes back as it is.
create or replace function pgtrickle_json.value_sql(type oid, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  k constant record := pgtrickle_json.kind(type);
  element text;
begin
  if k.kind in ('safe', 'json') then
    return value;
  elsif k.kind = 'output' then
    -- format() takes the output function. An array is written as text, and read as one of texts.
    -- Where elements are not separated by commas, the array stays text.
    return format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.=) 0 '
                  'then pg_catalog.format(''%%s'', %1$s)%2$s end',
                  value, case when k.is_array and (select t.typdelim = ',' from pg_type t
                                                   where t.oid = k.leaf)
                              then '::pg_catalog._text' else '' end);
  elsif not k.is_array then
    return pgtrickle_json.composite_sql(k.leaf, value);
  end if;
  element := pgtrickle_json.composite_sql(k.leaf, format('(%s)[n]', value));
  if element = format('(%s)[n]', value) then
    return value;
  end if;
  -- An array of several dimensions is written as text.
  return format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.<>) 0 then null '
                'when pg_catalog.array_ndims(%1$s) operator(pg_catalog.>) 1 '
                'then pg_catalog.to_jsonb(pg_catalog.format(''%%s'', %1$s)) else coalesce('
                '(select pg_catalog.jsonb_agg(%2$s order by n) '
                'from pg_catalog.generate_subscripts(%1$s, 1) n), ''[]''::pg_catalog.jsonb) end',
                value, element);
end $$;

-- The same for a value of a composite type.
create or replace function pgtrickle_json.composite_sql(type oid, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  fields record;
begin
  select string_agg(format('%s as %I', f.written, f.name), ', ' order by f.attnum) as listed,
         bool_and(f.written = f.plain) as all_plain
  into fields
  from (select a.attnum, a.attname as name, p.plain,
               pgtrickle_json.value_sql(a.atttypid, p.plain) as written
        from pg_type t
        join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        cross join lateral (select format('(%s).%I', value, a.attname) as plain) p
        where t.oid = type) f;
  if fields.all_plain is not false then
    return value;
  end if;
  return format('case when pg_catalog.num_nulls(%s) operator(pg_catalog.=) 0 then '
                '(select pg_catalog.to_jsonb(f.*) from (select %s) f) end', value, fields.listed);
end $$;

-- The expression for a row of a relation as jsonb. `row` is the name of the row in the statement
-- (of a table, or of a record variable), `whole` what stands for all of it there. Where the row is
-- known to be `small`, its size is not asked.
create or replace function pgtrickle_json.row_sql(rel oid, "row" text, whole text,
                                                  small boolean default false) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  columns record;
begin
  select coalesce(string_agg(format('%s as %I', c.written, c.name), ', ' order by c.attnum)
                    filter (where c.written is not null), '') as listed,
         bool_and(c.written is not distinct from c.plain) as all_plain,
         bool_or(c.kind = 'json') as has_json
  into columns
  from (select a.attnum, a.attname as name, p.plain, k.kind,
               -- Virtual generated columns (PostgreSQL 18) are left out: a trigger does not see them,
               -- and their expressions may fail, which the statement that writes the row does not.
               case when a.attgenerated <> 'v'
                    then pgtrickle_json.value_sql(a.atttypid, p.plain) end as written
        from pg_attribute a
        cross join lateral (select format('%s.%I', "row", a.attname) as plain) p
        cross join lateral pgtrickle_json.kind(a.atttypid) k
        where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
        union all
        -- Within composite types.
        select 0, null, null, k.kind, null
        from pg_attribute a cross join lateral pgtrickle_json.kind(a.atttypid) k
        where a.attrelid = any (pgtrickle_json.parts(rel)) and k.kind = 'json'
          and not a.attisdropped) c;
  if columns.has_json then
    return case when columns.all_plain then format('pgtrickle_json.careful(%s)', whole)
                else format('(select pgtrickle_json.careful(r.*) from (select %s) r)',
                            columns.listed) end;
  elsif columns.all_plain is not false then
    return pgtrickle_json.plain_row_sql(whole, small);
  elsif columns.listed = '' then
    return '''{}''::pg_catalog.jsonb';
  end if;
  return format('(select %s from (select %s) r)', pgtrickle_json.plain_row_sql('r.*', small),
                columns.listed);
end $$;

-- The same where all columns are safe. Values grow: 255 times by decompression, eight times as JSON
-- (a bit string). What is beyond a hundred thousand bytes may be more than jsonb holds.
create or replace function pgtrickle_json.plain_row_sql(whole text, small boolean) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format(case when small then 'pg_catalog.to_jsonb(%1$s)' else 'case when pg_catalog.pg_column_size(%1$s) operator(pg_catalog.<=) 100000 '
                'then pg_catalog.to_jsonb(%1$s) else pgtrickle_json.careful(%1$s) end' end, whole);
$$;

-- A row as jsonb, whatever it holds. A column that jsonb cannot hold (a json value that jsonb does
-- not accept, or, in a row that is too large as a whole, one beyond a megabyte) is null and named in
-- "__pgtrickle_omitted". The values of the row must be safe: see value_sql.
create or replace function pgtrickle_json.careful("row" record) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb("row");
exception when others then
  return pgtrickle_json._omitting("row");
end $$;

-- The columns of a row one by one. json_each() must not look at escapes such as \u0000, which it
-- refuses: marks stand for them meanwhile. (No literal has a backslash: the writer's
-- standard_conforming_strings decides what that means.)
create or replace function pgtrickle_json._omitting("row" record) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  backslash constant text := chr(92);
  for_two constant text := md5(random()::text);
  for_escape constant text := md5(random()::text);
  marked constant json := replace(replace(row_to_json("row")::text, backslash || backslash, for_two),
                                  backslash || 'u', for_escape);
  col record;
  held jsonb := '{}';
  omitted text[] := '{}';
  size bigint := 0;
begin
  for col in
    select replace(j.key, for_two, backslash) as name,
           replace(replace(j.value::text, for_escape, backslash || 'u'), for_two,
                   backslash || backslash) as value
    from json_each(marked) j
  loop
    begin
      size := size + octet_length(col.value);
      if octet_length(col.value) > 1048576 and size > 100000000 then
        raise program_limit_exceeded;
      end if;
      held := held || jsonb_build_object(col.name, col.value::jsonb);
    exception when others then
      held := held || jsonb_build_object(col.name, null);
      omitted := omitted || col.name;
    end;
  end loop;
  return held || jsonb_build_object('__pgtrickle_omitted', omitted);
exception when others then
  return '{"__pgtrickle_omitted": ["*"]}';
end $$;

-- What a payload says of the key, where the key columns of an outbox's table are not called what they
-- were called when the outbox was made: {"key_columns": [...]}, with no names where one was dropped;
-- else {}. `trigger_name`: a relation without that trigger is not the table (after a restore the oid may
-- be any relation's). IMMUTABLE and named by a constant oid for the same reason as fits(); and the names
-- are those of the present under any snapshot.
create or replace function pgtrickle_json.key_marks(rel oid, attnums smallint[], names text[],
                                                    trigger_name text) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  now_named text[];
begin
  if not exists (select from pg_trigger t where t.tgrelid = rel and t.tgname = trigger_name) then
    return '{}';
  end if;
  begin
    -- The name of a dropped column is made up; a privilege on it is null.
    select array_agg(case when has_column_privilege(rel, k.attnum, 'SELECT') is not null
                          then o.object_names[3] end order by k.ord)
    into now_named
    from unnest(attnums) with ordinality k (attnum, ord)
    cross join lateral pg_identify_object_as_address('pg_class'::regclass, rel, k.attnum) o;
  exception when others then
    now_named := null;
  end;
  if now_named = names then
    return '{}';
  elsif cardinality(now_named) = cardinality(attnums)
        and array_position(now_named, null) is null then
    return jsonb_build_object('key_columns', to_jsonb(now_named));
  end if;
  return '{"key_columns": []}';
end $$;
