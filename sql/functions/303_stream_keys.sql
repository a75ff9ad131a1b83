-- The key of a stream table that was made without key_columns, where its query proves one.
--
-- The proof is the server's own: the planner leaves out a left join whose inner side gives each
-- value of the join's columns at most once (stream_key_is_certain). It knows GROUP BY, DISTINCT,
-- DISTINCT ON, set operations, aggregates without GROUP BY and unique indexes (valid, immediate, and
-- where they are partial, implied by the query), and it knows what spoils them: set-returning
-- functions, grouping sets, joins, UNION ALL, children of a table. Nothing of the query is executed,
-- and it is planned with the rights of the stream table's creator.
--
-- Rows with NULL need care: a join never matches them, so a unique index that lets several NULLs in is
-- proof enough for the planner, and none for a key. What is grouped has one row for NULL. So a column
-- that may be NULL is taken only where no such index can be the proof.
--
-- A derived key decides nothing about what is stored: the difference is computed row by row, as
-- without a key, and only then does a row that goes and a row that comes with the same key, each the
-- only one of its kind, become an update. A key that stops being one, because its index was dropped,
-- can therefore neither lose a row nor make a refresh fail; the refresh that finds it out says so to
-- consumers by a full refresh.

-- The outline of a view's query: the text of its parse tree without what is nested in it. A target
-- entry is "(TE ...)", a constant in it "#".
create or replace function pgtrickle_internal.stream_outline(probe regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  -- Names have their braces and parentheses behind a backslash.
  tree text := (select regexp_replace(r.ev_action::text, E'\\\\.', '_', 'g')
                from pg_rewrite r where r.ev_class = probe and r.rulename = '_RETURN');
begin
  tree := substr(tree, strpos(tree, '{QUERY') + 1);
  while strpos(tree, '{') > 0 loop
    tree := regexp_replace(tree, E'\\{CONST [^{}]*\\}', '#', 'g');
    tree := regexp_replace(tree, E'\\{TARGETENTRY ([^{}]*)\\}', E'(TE \\1)', 'g');
    tree := regexp_replace(tree, E'\\{(?!TARGETENTRY |CONST )[^{}]*\\}', '', 'g');
  end loop;
  return tree;
end $$;

-- What the proof of a key needs to know of a view's query:
--   {"grouped": boolean, "columns": [{"name", "equals", "never_null", "constant", "key_of"}, ...]}
-- grouped: GROUP BY, DISTINCT, a set operation or an aggregate stands at the top of it.
-- equals: the operator by which the column's values are equal, null where there is none.
-- never_null: the column of a table that is declared NOT NULL.
-- key_of: the table whose primary key it belongs to.
create or replace function pgtrickle_internal.stream_key_facts(probe regclass) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  outline text := pgtrickle_internal.stream_outline(probe);
begin
  return jsonb_build_object(
    'grouped', outline ~ ':(groupClause|groupingSets|distinctClause|setOperations) (?!<>)'
               or outline ~ ':hasAggs true',
    'columns', (
      select jsonb_agg(jsonb_build_object(
        'name', a.attname, 'equals', pgtrickle_internal.stream_equality(a.atttypid),
        'never_null', coalesce(o.attnotnull and c.relkind in ('r', 'p') and not exists (
          select from pg_constraint n
          where n.conrelid = c.oid and n.contype = 'n' and n.conkey = array[o.attnum]
            and not n.convalidated), false),
        'constant', coalesce(e.expr = '#', false),
        'key_of', (select c.oid::regclass from pg_index x
                   where x.indrelid = c.oid and x.indisprimary
                     and o.attnum = any (x.indkey::smallint[]))) order by a.attnum)
      from pg_attribute a
      left join lateral (
        select trim(m[1]) as expr, m[2]::int as resno, m[3]::oid as rel, m[4]::int as attnum
        from regexp_matches(outline, E'\\(TE :expr ([^()]*):resno (\\d+) [^()]*'
                            ':resorigtbl (\\d+) :resorigcol (\\d+) :resjunk false\\)', 'g') m
      ) e on e.resno = a.attnum
      left join pg_class c on c.oid = e.rel
      left join pg_attribute o on o.attrelid = e.rel and o.attnum = e.attnum
      where a.attrelid = probe and a.attnum > 0 and not a.attisdropped));
end $$;

-- The operator by which values of a type are equal where rows are grouped, or null.
create or replace function pgtrickle_internal.stream_equality(typ oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive base as (
    select typ as oid
    union
    select t.typbasetype from base join pg_type t on t.oid = base.oid and t.typtype = 'd'
  )
  select coalesce(
    (select format('operator(%I.%s)', n.nspname, o.oprname)
     from pg_opclass p
     join pg_am m on m.oid = p.opcmethod and m.amname = 'btree'
     join pg_amop s on s.amopfamily = p.opcfamily and s.amopstrategy = 3
                   and s.amoplefttype = p.opcintype and s.amoprighttype = p.opcintype
     join pg_operator o on o.oid = s.amopopr
     join pg_namespace n on n.oid = o.oprnamespace
     where p.opcdefault and p.opcintype = t.oid),
    case when t.typtype in ('e', 'r', 'm') or t.typcategory = 'A' or t.oid = 'varchar'::regtype
         then 'operator(pg_catalog.=)' end)
  from base join pg_type t on t.oid = base.oid and t.typtype <> 'd'
$$;

-- May a unique index of something that the query reads let several rows with NULL in, or rows that are
-- not in it?
create or replace function pgtrickle_internal.stream_reads_loose_index(reads jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select (reads ->> 'opaque')::boolean or exists (
    select from jsonb_array_elements_text(reads -> 'relations') r
    join pg_index x on x.indrelid = r::oid and x.indisunique
    where x.indpred is not null or x.indexprs is not null
       or exists (select from pg_attribute a
                  where a.attrelid = x.indrelid and a.attnum = any (x.indkey::smallint[])
                    and not a.attnotnull))
$$;

-- Do these columns tell the rows of a query apart, as far as the planner can prove it? A comparison that
-- there is not proves nothing.
create or replace function pgtrickle_internal.stream_key_proven(
  rel regclass, definition text, facts jsonb, keys text[]) returns boolean
language plpgsql
  set search_path = pg_catalog, pg_temp
  set max_parallel_workers_per_gather = 0
  set standard_conforming_strings = on
as $$
declare
  l record;
begin
  select string_agg(format('c%s', i), ', ' order by i) as c,
         string_agg(format('%I as c%s', c ->> 'name', i), ', ' order by i) as stored,
         string_agg(format('o.c%s %s n.c%s', i, c ->> 'equals', i), ' and ' order by i)
           filter (where c ->> 'name' = any (keys)) as matches
  into l
  from jsonb_array_elements(facts -> 'columns') with ordinality as u(c, i);
  return pgtrickle_internal.stream_key_is_certain(
    rel, format('select %s from only %s', l.stored, rel),
    format('select * from (%s) q(%s)', definition, l.c), coalesce(l.matches, 'true'));
exception when syntax_error_or_access_rule_violation then
  return false;
end $$;

-- The key that a query proves, as few columns as tell its rows apart; null where it proves none. `keep`
-- is kept where it still is a key, and columns of primary keys go before others. Where the query gives
-- one row, a constant names it.
create or replace function pgtrickle_internal.stream_derive_key(
  rel regclass, definition text, facts jsonb, reads jsonb, keep text[] default null)
returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  null_is_one boolean := (facts ->> 'grouped')::boolean
                         or not pgtrickle_internal.stream_reads_loose_index(reads);
  usable text[] := array(
    select c ->> 'name' from jsonb_array_elements(facts -> 'columns') with ordinality as u(c, i)
    where c ->> 'equals' is not null and (null_is_one or (c ->> 'never_null')::boolean)
    order by c ->> 'key_of' is null, i);
  keys text[] := usable;
  step int := cardinality(usable);
  behind int;
  fewer text[];
begin
  if keep <@ usable and pgtrickle_internal.stream_key_proven(rel, definition, facts, keep) then
    return keep;
  elsif usable = '{}' or not pgtrickle_internal.stream_key_proven(rel, definition, facts, usable) then
    return null;
  elsif pgtrickle_internal.stream_key_proven(rel, definition, facts, '{}') then
    return (select array[c ->> 'name']
            from jsonb_array_elements(facts -> 'columns') with ordinality as u(c, i)
            where c ->> 'name' = any (usable) and (c ->> 'constant')::boolean
            order by i limit 1);
  end if;
  -- Many columns at a time, then fewer, at last each by itself.
  while step > 1 loop
    step := (step + 1) / 2;
    behind := cardinality(keys);
    while behind > 0 loop
      fewer := keys[:greatest(behind - step, 0)] || keys[behind + 1:];
      if fewer <> '{}' and pgtrickle_internal.stream_key_proven(rel, definition, facts, fewer) then
        keys := fewer;
      end if;
      behind := behind - step;
    end loop;
    exit when step = 1;
    step := least(step, cardinality(keys));
  end loop;
  return array(select c ->> 'name'
               from jsonb_array_elements(facts -> 'columns') with ordinality as u(c, i)
               where c ->> 'name' = any (keys) order by i);
end $$;

-- Says that a stream table has no key, and what could be named as one.
create or replace function pgtrickle_internal.stream_say_keyless(rel regclass, facts jsonb)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  likely text := (
    select string_agg(format('%I (of %s)', c ->> 'name', c ->> 'key_of'), ', ' order by i)
    from jsonb_array_elements(facts -> 'columns') with ordinality as u(c, i)
    where c ->> 'key_of' is not null);
begin
  raise notice 'stream table % has no key: its query does not prove which columns tell its rows apart',
    rel
    using detail = 'A row that changes will be a deleted and an inserted row, never an update.',
          hint = 'Create it with key_columns => ARRAY[...], naming columns that are unique and never '
                 'null in the result. '
                 || coalesce('Columns from primary keys: ' || likely || '.',
                             'Select such columns where it has none: all those of GROUP BY, the '
                             'primary key of a table, or a constant where there is one row only.');
end $$;

-- Stores the derived key of a stream table (null: it has none), while its owner makes or alters it or
-- it is being refreshed. An outbox that has the former key gets this one; its next refresh is a full
-- one.
create or replace function pgtrickle_internal.stream_set_key(id bigint, keys text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  former pgtrickle_internal.stream_tables;
begin
  if not pgtrickle_internal.stream_owner_at_work(id) then
    raise exception 'stream table % is not being changed here', id
      using errcode = 'insufficient_privilege';
  end if;
  select * into strict former from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if former.key_columns is not null and not former.key_derived then
    raise exception 'stream table % was made with key_columns', id
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  update pgtrickle_internal.stream_tables s
  set key_columns = keys, key_derived = keys is not null
  where s.pgt_id = id;
  update pgtrickle_internal.outbox_config o
  set key_columns = keys, key_attnums = '{}'
  where o.stream_table_oid = former.pgt_relid
    and o.key_columns is not distinct from former.key_columns
    and o.key_columns is distinct from keys;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_outline(regclass), pgtrickle_internal.stream_key_facts(regclass),
  pgtrickle_internal.stream_equality(oid), pgtrickle_internal.stream_reads_loose_index(jsonb),
  pgtrickle_internal.stream_key_proven(regclass, text, jsonb, text[]),
  pgtrickle_internal.stream_derive_key(regclass, text, jsonb, jsonb, text[]),
  pgtrickle_internal.stream_say_keyless(regclass, jsonb),
  pgtrickle_internal.stream_set_key(bigint, text[])
  to pgtrickle_admin;
