-- Compiling an expression of a subscription. It becomes the body of a temporary function that is
-- dropped at once: PostgreSQL checks names and types, and writes the expression with every name in it
-- qualified. It evaluates no function that the expression calls, but it reads literals: '{1}'::d[]
-- runs the CHECK constraints of the domain d. So these functions run as the owner of the table, and
-- while that role may create nothing in our schema.

-- The relation that a subscription names.
create or replace function pgstream._relation(in_schema text, named text) returns oid
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = in_schema and c.relname = named;
$$;

-- Replaces in the code of an expression, and not in its literals or quoted names, the arguments of
-- the function it was compiled in: `(new).x` becomes new.x, as triggers have it.
create or replace function pgstream._as_in_trigger(code text, compiled_in text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    case when m.part[1] ~ '^[''"]' then m.part[1]
         else regexp_replace(
           regexp_replace(m.part[1], format('\((?:%s\.)?(new|old)\)\.', compiled_in), '\1.', 'g'),
           format('\m%s\.(new|old)\M', compiled_in), '\1', 'g') end, ''
    order by m.n)
  from regexp_matches(code, '''(?:[^'']|'''')*''|"(?:[^"]|"")*"|[^''"]+', 'g')
    with ordinality m (part, n);
$$;

-- Refuses what a role may not use: the functions, operators, types and tables that `compiled_in`
-- depends on, and their schemas.
create or replace function pgstream._check_privileges(compiled_in oid, rel oid, for_role name)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  grantee constant text := quote_ident(for_role);
  denied record;
begin
  select d.what, d.remedy into denied
  from (
    select 1 as rank, format('function %s', f.oid::regprocedure) as what,
           format('GRANT EXECUTE ON FUNCTION %s TO %s;', f.oid::regprocedure, grantee) as remedy
    from pg_depend d
    left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
    join pg_proc f on f.oid = case when d.refclassid = 'pg_proc'::regclass then d.refobjid
                                   else o.oprcode end
    where d.classid = 'pg_proc'::regclass and d.objid = compiled_in
      and not has_function_privilege(for_role, f.oid, 'EXECUTE')
    union all
    select 0, format('schema %s', n.oid::regnamespace),
           format('GRANT USAGE ON SCHEMA %s TO %s;', n.oid::regnamespace, grantee)
    from pg_depend d
    cross join lateral (
      select f.pronamespace from pg_proc f
      where d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
      union all
      select o.oprnamespace from pg_operator o
      where d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
      union all
      select t.typnamespace from pg_type t
      where d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid and t.typrelid <> rel
      union all
      select c.relnamespace from pg_class c
      where d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid
        and c.oid <> rel) o (namespace)
    join pg_namespace n on n.oid = o.namespace
    where d.classid = 'pg_proc'::regclass and d.objid = compiled_in
      and not has_schema_privilege(for_role, n.oid, 'USAGE')
    union all
    select 2, format('table %s', d.refobjid::regclass),
           format('GRANT SELECT ON %s TO %s;', d.refobjid::regclass, grantee)
    from pg_depend d
    where d.classid = 'pg_proc'::regclass and d.objid = compiled_in
      and d.refclassid = 'pg_class'::regclass and d.refobjid <> rel and d.refobjsubid > 0
      and not has_column_privilege(for_role, d.refobjid, d.refobjsubid::smallint, 'SELECT')) d
  order by d.rank, d.what limit 1;
  if found then
    raise exception 'permission denied for % for role %', denied.what, grantee
      using errcode = 'insufficient_privilege', hint = denied.remedy;
  end if;
end $$;

-- Whether an expression never raises an error, as far as its parse tree tells: it has only nodes
-- and functions that do not. (Leakproof functions raise none that depend on their arguments.) Nor does
-- it have a literal that runs code of a user when it is read: the role that creates the trigger reads
-- it.
create or replace function pgstream._cannot_fail(tree text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select not exists (
      select from regexp_matches(tree, '\{([A-Z]+)', 'g') m
      where m[1] <> all ('{QUERY,FROMEXPR,TARGETENTRY,VAR,PARAM,CONST,FIELDSELECT,FUNCEXPR,OPEXPR,'
                         'DISTINCTEXPR,NULLIFEXPR,SCALARARRAYOPEXPR,BOOLEXPR,NULLTEST,BOOLEANTEST,'
                         'CASE,CASEEXPR,WHEN,CASEWHEN,CASETESTEXPR,COALESCE,COALESCEEXPR,'
                         'RELABELTYPE,ARRAY,ARRAYEXPR,SQLVALUEFUNCTION}'))
    and not exists (
      select from regexp_matches(tree, ':(?:funcid|opfuncid) (\d+)', 'g') m
      join pg_proc p on p.oid = m[1]::oid
      where not p.proleakproof
        and not (p.pronamespace = 'pg_catalog'::regnamespace
                 and p.proname ~ '^(numeric_(eq|ne|lt|le|gt|ge)|enum_(eq|ne))$'))
    and not exists (
      select from regexp_matches(tree, ':consttype (\d+)', 'g') m
      join pg_type t on t.oid = m[1]::oid
      left join pg_type e on e.oid = t.typelem
      where t.typnamespace <> 'pg_catalog'::regnamespace
        and coalesce(e.typtype, t.typtype) not in ('b', 'e'));
$$;

-- The functions and operators that an expression calls, in the order of its parse tree.
create or replace function pgstream._calls(tree text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(m.call[1] order by m.n), '{}')
  from regexp_matches(tree, ':(?:funcid|opno) (\d+)', 'g') with ordinality m (call, n);
$$;

-- Compiles an expression over the rows `new` and `old` of a relation, with names looked up by
-- `path`.
--   code      the expression as it stands in a trigger function
--   type      of its value
--   columns   of the relation that it reads
--   tree      the parse tree
-- An error of PostgreSQL's is passed on as it is: its position points into the expression, and
-- `label` is in the statement that it shows.
create or replace function pgstream._compile(
  rel oid, operation text, expression text, path text, label text,
  out code text, out type oid, out columns smallint[], out tree text)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  name constant text := 'pgstream_' || replace(gen_random_uuid()::text, '-', '');
  relation constant text := format('%s', rel::regclass);
  rows constant text[] := case operation when 'INSERT' then '{new}' when 'DELETE' then '{old}'
                                         else '{new,old}' end;
  from_rows constant text := (select string_agg(format('%s %s', relation, r), ', ')
                              from unnest(rows) r);
  arguments constant text := (select string_agg(format('%s %s', r, relation), ', ')
                              from unnest(rows) r);
  comment constant text := format('/* %s */', replace(replace(label, '/*', '/ *'), '*/', '* /'));
  signature constant text := format('pg_temp.%s(%s)', name, array_to_string(
    array_fill(relation, array[cardinality(rows)]), ', '));
  -- EXPLAIN, because opening a cursor for it neither plans nor evaluates, and takes one statement
  -- only.
  check_one constant text := format(
    E'%s explain select from %s, lateral (select (\n%s\n)) x', comment, from_rows, expression);
  compile constant text := format(
    E'%s create function pg_temp.%s(%s) returns pg_catalog.record return (\n%s\n)', comment, name,
    arguments, expression);
  parsed refcursor;
  compiled_in oid;
begin
  -- Up to the end of the next block, nothing but these texts is looked up by the user's path.
  perform set_config('search_path', path, true);
  begin
    open parsed for execute check_one;
    close parsed;
  exception when invalid_cursor_definition then
    raise exception using errcode = 'syntax_error',
      message = pg_catalog.concat(label, ' is not one expression');
  end;
  execute compile;
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  compiled_in := to_regprocedure(signature);
  select p.prosqlbody::text into tree from pg_proc p where p.oid = compiled_in;
  if 'true' in ((regexp_match(tree, ':hasAggs (\w+)'))[1],
                (regexp_match(tree, ':hasWindowFuncs (\w+)'))[1],
                (regexp_match(tree, ':hasTargetSRFs (\w+)'))[1]) then
    raise exception '%: aggregates, window functions and functions that return sets are not '
        'allowed', label
      using errcode = 'grouping_error', hint = 'Put them into a subquery: (SELECT ...).';
  end if;
  code := pgstream._as_in_trigger(
    regexp_replace(pg_get_function_sqlbody(compiled_in), '^RETURN ', ''), name);
  select coalesce(array_agg(distinct d.refobjsubid::smallint), '{}') into columns
  from pg_depend d
  where d.classid = 'pg_proc'::regclass and d.objid = compiled_in
    and d.refclassid = 'pg_class'::regclass and d.refobjid = rel and d.refobjsubid > 0;
  perform pgstream._check_columns(rel, columns, label);
  perform pgstream._check_privileges(compiled_in, rel, (
    select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel));

  -- What is written without naming an operator finds another one without the user's path, or none.
  execute format('create or replace function pg_temp.%s(%s) returns record %s return (%s)', name,
                 arguments, comment, code);
  if pgstream._calls(tree) <> pgstream._calls((
      select p.prosqlbody::text from pg_proc p where p.oid = compiled_in)) then
    raise exception '%: IS DISTINCT FROM, NULLIF and CASE ... WHEN cannot compare by operators '
        'outside of pg_catalog', label
      using errcode = 'feature_not_supported', hint = 'Compare by = and IS NULL, or cast to text.';
  end if;

  execute format('create view pg_temp.%s as %s select (%s) as value from %s', name, comment, code,
                 from_rows);
  select a.atttypid into type from pg_attribute a
  where a.attrelid = to_regclass('pg_temp.' || name) and a.attnum = 1;
  execute format('drop view pg_temp.%s', name);
  execute format('drop function %s', signature);
end $$;

-- Refuses columns that a deferred trigger does not see.
create or replace function pgstream._check_columns(rel oid, columns smallint[], label text)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  named text;
begin
  select a.attname into named from pg_attribute a
  where a.attrelid = rel and a.attnum = any (columns) and a.attgenerated = 'v' limit 1;
  if found then
    raise exception '%: column "%" of table "%" is a virtual generated column', label, named,
        rel::regclass
      using errcode = 'feature_not_supported', detail = 'A trigger does not see its value.',
            hint = 'Make it STORED, or write its expression instead.';
  end if;
end $$;
