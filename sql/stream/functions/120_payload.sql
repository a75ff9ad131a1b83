-- The payload of a subscription as an expression. These functions run as the owner of the table.

-- The expression for a JSON object. Items are {"path": [...], "sql": expression}; none is the
-- beginning of another one. A function takes 50 pairs: more are concatenated.
create or replace function pgstream._object_sql(items jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with item as (
    select array(select jsonb_array_elements_text(i.value -> 'path')) as path,
           i.value ->> 'sql' as sql, i.n
    from jsonb_array_elements(items) with ordinality i (value, n)),
  pair as (
    select min(i.n) as n, i.path[1] as key,
           case when bool_or(cardinality(i.path) = 1) then min(i.sql)
                else pgstream._object_sql(jsonb_agg(
                  jsonb_build_object('path', i.path[2:], 'sql', i.sql) order by i.n)) end as sql
    from item i group by i.path[1]),
  call as (
    select p.nth, format('jsonb_build_object(%s)',
                         string_agg(format('%L, %s', p.key, p.sql), ', ' order by p.n)) as sql
    from (select *, (row_number() over (order by n) - 1) / 50 as nth from pair) p
    group by p.nth)
  select coalesce(string_agg(c.sql, ' || ' order by c.nth), '''{}''::jsonb') from call c;
$$;

-- The columns of one of the two rows as items of _object_sql.
create or replace function pgstream._columns_of(rel oid, named text[], "row" text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_agg(jsonb_build_object('path', array["row", a.attname::text], 'sql',
                pgstream_json.value_sql(a.atttypid, format('%s.%I', "row", a.attname)))
              order by a.attnum),
    jsonb_build_array(jsonb_build_object('path', array["row"], 'sql', '''{}''::jsonb')))
  from pg_attribute a
  where a.attrelid = rel and a.attnum > 0 and not a.attisdropped and a.attname = any (named);
$$;

-- Refuses columns that the table does not have; returns the numbers of those that it has.
create or replace function pgstream._column_numbers(rel oid, named text[], label text)
returns smallint[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  numbers smallint[];
  missing text;
begin
  if named is null or array_position(named, null) is not null or array_ndims(named) > 1 then
    raise exception '% must be an array of the names of columns', label
      using errcode = 'null_value_not_allowed', hint = 'An empty array is allowed.';
  end if;
  select n.name into missing from unnest(named) n (name)
  where not exists (select from pg_attribute a
                    where a.attrelid = rel and a.attname = n.name and a.attnum > 0
                      and not a.attisdropped) limit 1;
  if found then
    raise exception '%: column "%" of table "%" does not exist', label, missing, rel::regclass
      using errcode = 'undefined_column';
  end if;
  select coalesce(array_agg(a.attnum), '{}') into numbers from pg_attribute a
  where a.attrelid = rel and a.attname = any (named);
  perform pgstream._check_columns(rel, numbers, label);
  return numbers;
end $$;

-- Checks the form of payload_extensions; returns them with their paths as arrays.
create or replace function pgstream._extensions(extensions jsonb, label text)
returns table (path text[], expression text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  reserved constant text[] := '{tg_name,tg_op,tg_table_name,tg_table_schema,timestamp,new,old}';
  item jsonb;
  paths text[] := '{}';
  earlier text;
begin
  if jsonb_typeof(extensions) <> 'array' then
    raise exception '% must be an array of {"json_path", "expression"}', label
      using errcode = 'invalid_parameter_value';
  end if;
  for item in select e.value from jsonb_array_elements(extensions) e loop
    if jsonb_typeof(item) <> 'object'
       or jsonb_typeof(item -> 'json_path') is distinct from 'string'
       or jsonb_typeof(item -> 'expression') is distinct from 'string'
       or (select count(*) from jsonb_object_keys(item)) <> 2 then
      raise exception '%: an element must have the texts "json_path" and "expression", and no '
          'other key', label
        using errcode = 'invalid_parameter_value', detail = left(item::text, 200);
    end if;
    path := string_to_array(item ->> 'json_path', '.');
    if path = '{}' or '' = any (path) then
      raise exception '%: json_path "%" must be names separated by dots', label,
          item ->> 'json_path'
        using errcode = 'invalid_parameter_value';
    elsif path[1] = any (reserved) then
      raise exception '%: json_path "%" is reserved', label, item ->> 'json_path'
        using errcode = 'reserved_name',
              hint = format('Each payload has these keys: %s.', array_to_string(reserved, ', '));
    end if;
    foreach earlier in array paths loop
      if starts_with(concat(earlier, '.'), concat(item ->> 'json_path', '.'))
         or starts_with(concat(item ->> 'json_path', '.'), concat(earlier, '.')) then
        raise exception '%: json_path "%" collides with "%"', label, item ->> 'json_path', earlier
          using errcode = 'duplicate_object';
      end if;
    end loop;
    paths := paths || (item ->> 'json_path');
    expression := item ->> 'expression';
    return next;
  end loop;
end $$;

-- The condition under which columns have another type than the one that they were compiled for.
-- What is then in the function could convert their values by a cast that a third role made.
create or replace function pgstream._other_types_sql(rel oid, operation text, columns smallint[])
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(format('pg_typeof(%s.%I) <> %L::regtype', r.name, a.attname,
                                    format_type(a.atttypid, null)), ' or '
                             order by a.attnum), 'false')
  from pg_attribute a
  cross join (select case operation when 'DELETE' then 'old' else 'new' end) r (name)
  where a.attrelid = rel and a.attnum = any (columns);
$$;

-- Compiles one subscription. `path` is the search_path of the subscriber.
create or replace function pgstream._compile_subscription(
  rel oid, subscription pgstream.subscriptions, path text)
returns pgstream._subscriptions
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  of_it constant text := format('of subscription "%s"', subscription.key);
  compiled pgstream._subscriptions;
  columns smallint[] := pgstream._column_numbers(rel, subscription.column_names,
                                                 concat('column_names ', of_it));
  items jsonb;
  extension record;
  made record;
  label text;
begin
  compiled.stream_id := subscription.stream_id;
  compiled.key := subscription.key;
  compiled.schema_name := subscription.schema_name;
  compiled.table_name := subscription.table_name;
  compiled.operation := subscription.operation;
  compiled.owner_name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel);
  compiled.condition_may_fail := false;
  if trim(subscription.when_clause) <> '' then
    made := pgstream._compile(rel, subscription.operation, subscription.when_clause, path,
                              concat('when_clause ', of_it));
    if made.type <> 'boolean'::regtype then
      raise exception 'when_clause % must be of type boolean, not type %', of_it,
          format_type(made.type, null)
        using errcode = 'datatype_mismatch';
    elsif made.tree ~ '\{SUBLINK' then
      raise exception 'when_clause % must not contain a subquery', of_it
        using errcode = 'feature_not_supported',
              detail = 'It is evaluated with the rights of the role that writes to the table.';
    end if;
    compiled.condition_sql := made.code;
    compiled.condition_may_fail := not pgstream._cannot_fail(made.tree);
  end if;

  items := jsonb_build_array(
    jsonb_build_object('path', array['tg_name'], 'sql', quote_literal(subscription.key)),
    jsonb_build_object('path', array['tg_op'], 'sql', quote_literal(subscription.operation)),
    jsonb_build_object('path', array['tg_table_name'], 'sql',
                       quote_literal(subscription.table_name)),
    jsonb_build_object('path', array['tg_table_schema'], 'sql',
                       quote_literal(subscription.schema_name)),
    jsonb_build_object('path', array['timestamp'], 'sql',
                       '(extract(epoch from now()) * 1000)::bigint'))
    || case subscription.operation when 'DELETE' then '[{"path": ["new"], "sql": "null"}]'
       else pgstream._columns_of(rel, subscription.column_names, 'new') end
    || case subscription.operation when 'INSERT' then '[{"path": ["old"], "sql": "null"}]'
       else pgstream._columns_of(rel, subscription.column_names, 'old') end;
  for extension in
    select * from pgstream._extensions(coalesce(subscription.payload_extensions, '[]'),
                                       concat('payload_extensions ', of_it))
  loop
    label := format('expression of json_path "%s" %s', array_to_string(extension.path, '.'), of_it);
    made := pgstream._compile(rel, subscription.operation, extension.expression, path, label);
    columns := columns || made.columns;
    items := items || jsonb_build_object(
      'path', extension.path,
      'sql', pgstream_json.value_sql(made.type, format('(%s)', made.code)));
  end loop;
  compiled.payload_sql := pgstream._object_sql(items);
  compiled.columns := array(select distinct a.attname from pg_attribute a
                            where a.attrelid = rel and a.attnum = any (columns));
  compiled.other_types_sql := pgstream._other_types_sql(rel, subscription.operation, columns);
  compiled.revision := left(md5(concat_ws(E'\n', subscription.stream_id, subscription.key,
    subscription.schema_name, subscription.table_name, subscription.operation,
    compiled.condition_sql)), 16);
  return compiled;
end $$;

-- Compiles one subscription as the owner of its table: another role that changes it does not run what
-- its expressions run.
create or replace function pgstream._compile_as_owner(
  rel oid, subscription pgstream.subscriptions, path text)
returns pgstream._subscriptions
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  table_owner constant name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel);
  name constant text := 'pgstream_' || replace(gen_random_uuid()::text, '-', '');
  compiled pgstream._subscriptions;
begin
  if table_owner = current_user then
    return pgstream._compile_subscription(rel, subscription, path);
  end if;
  execute format(
    'create function pg_temp.%s(oid, pgstream.subscriptions, text) returns pgstream._subscriptions '
    'language plpgsql security definer set search_path = pg_catalog, pg_temp as %L', name,
    'begin return pgstream._compile_subscription($1, $2, $3); end');
  execute format('alter function pg_temp.%s owner to %I', name, table_owner);
  begin
    execute format('select x.* from pg_temp.%s($1, $2, $3) x', name)
    into compiled using rel, subscription, path;
  exception when insufficient_privilege then
    if sqlerrm !~ ' schema [^ ]+$' then
      raise;
    end if;
    raise exception '% for role %', sqlerrm, quote_ident(table_owner)
      using errcode = 'insufficient_privilege',
            hint = format('GRANT USAGE ON SCHEMA %I TO %I;',
                          substring(sqlerrm from ' schema ([^ ]+)$'), table_owner);
  end;
  execute format('drop function pg_temp.%s', name);
  return compiled;
end $$;
