-- The statement that computes what a refresh changes, as text.
--
-- Exactness. Refreshes of one stream table follow each other (the row in stream_tables is
-- locked first), and no other role writes it (trigger pgtrickle_guard). Under READ COMMITTED one
-- statement sees one snapshot: so one statement runs the query, compares it with what is stored
-- and keeps the signed difference in pgtrickle_streams.diff_<id>:
--
--   n       number of the change, in key order; an update's two rows share it
--   op      D, U or I; X: a key that the query gives more than once
--   sign    -1: a row that goes, +1: a row that comes
--   at      where the row that goes, or is updated, is stored
--   c1 ...  its columns
--
-- Everything after that reads the difference.

-- How two values of a type are told apart, exactly and at the least cost.
--   value   equal values always look the same (money under one locale, which is pinned)
--   text    the same, once a collation that calls different texts equal is out of the way
--   image   equal values may differ (numeric 1.0 and 1.00, float 0 and -0, interval, jsonb), or
--           there is no equality at all (json, xml, point)
create or replace function pgtrickle_internal.told_apart_by(typ oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive base as (
      select typ as oid
      union
      select t.typbasetype from base join pg_type t on t.oid = base.oid and t.typtype = 'd'
    )
    select case
      when t.typtype = 'e' or t.oid in (
        'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype,
        'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype,
        'timetz'::regtype, 'money'::regtype, 'uuid'::regtype, 'bytea'::regtype, 'macaddr'::regtype, 'pg_lsn'::regtype) then 'value'
      when t.oid in ('text'::regtype, 'varchar'::regtype) then 'text'
      else 'image'
    end
    from base join pg_type t on t.oid = base.oid and t.typtype <> 'd');
end $$;

-- The columns of a stream table, in the order of its difference, as a JSON array:
--   i        1, 2, ...
--   name     of the column in the stream table
--   type
--   by       how its values are told apart
--   key      its place in the key, or null
--   equals   the operator by which the values of key_columns are equal; null in a derived key
-- Everything below is written from this; it is computed once, and kept in the refresh function.
create or replace function pgtrickle_internal.stream_layout(rel regclass, keys text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(jsonb_build_object(
    'i', u.i, 'name', u.attname, 'type', format_type(u.atttypid, u.atttypmod),
    'by', pgtrickle_internal.told_apart_by(u.atttypid),
    'key', array_position(keys, u.attname::text),
    'equals', case when u.attname = any (keys) then (
      select format('operator(%I.%s)', n.nspname, o.oprname)
      from pg_index x
      cross join generate_series(0, x.indnkeyatts - 1) as k
      join pg_opclass c on c.oid = x.indclass[k]
      join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = 3
                    and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
      join pg_operator o on o.oid = m.amopopr
      join pg_namespace n on n.oid = o.oprnamespace
      where x.indrelid = rel and x.indisprimary and x.indkey[k] = u.attnum) end) order by u.i)
  from (select row_number() over (order by a.attnum) as i, a.*
        from pg_attribute a
        where a.attrelid = rel and a.attnum > 0 and not a.attisdropped) u
$$;

-- The same with a derived key, which is known when the refresh begins.
create or replace function pgtrickle_internal.stream_layout_keyed(layout jsonb, keys text[])
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(l || jsonb_build_object('key', array_position(keys, l ->> 'name')) order by o)
  from jsonb_array_elements(layout) with ordinality as u(l, o)
$$;

-- The same as rows.
create or replace function pgtrickle_internal.stream_layout_rows(layout jsonb)
returns table (i int, name text, type text, by text, key int, equals text)
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from jsonb_to_recordset(layout)
    as l(i int, name text, type text, by text, key int, equals text);
end $$;

-- Is the planner sure that the query gives each key once? It leaves out a left join when it is.
create or replace function pgtrickle_internal.stream_key_is_certain(
  rel regclass, stored text, query text, matches text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  plan json;
begin
  execute format('explain (format json, costs off) select 1 from (%s) o left join (%s) n on %s',
                 stored, query, matches) into plan;
  return plan #> '{0,Plan,Plans}' is null
     and plan #>> '{0,Plan,Relation Name}' = (select relname from pg_class where oid = rel);
end $$;

-- The statement that fills the difference. order_by: columns that bring related rows of a stream
-- table without key next to each other. With a derived key, which tells that by itself, the row that
-- goes and the row that comes are an update where they are the only ones of their key. A column that
-- the table lacks will be added, and is null in every stored row.
create or replace function pgtrickle_internal.stream_diff_statement(
  id bigint, rel regclass, query text, layout jsonb, order_by text[]) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  l record;
  stored text;
  fresh text;
  matches text;
  has constant text[] := (pgtrickle_internal.stream_columns(rel)).names;
begin
  -- Records are compared by image (*<>), the rest more cheaply.
  select string_agg('c' || i, ', ' order by i) as c,
         string_agg(case when name = any (has) then format('%I as c%s', name, i)
                         else format('null::%s as c%s', type, i) end, ', ' order by i) as stored,
         string_agg(format(case when by = 'value' then 'o.c%s is distinct from n.c%s'
                                else 'o.c%s is distinct from n.c%s collate "C"' end, i, i),
                    ' or ' order by i)
           filter (where by = 'text' or (by = 'value' and key is null)) as differ,
         string_agg('o.c' || i, ', ' order by i) filter (where by = 'image') as o,
         string_agg('n.c' || i, ', ' order by i) filter (where by = 'image') as n,
         string_agg(format('case when s.sign < 0 then o%s else n%s end', i, i), ', '
                    order by i) as signed,
         string_agg(format('o.c%s as o%s, n.c%s as n%s', i, i, i, i), ', ' order by i) as both_,
         string_agg(format('o.c%s %s n.c%s', i, equals, i), ' and ' order by i)
           filter (where equals is not null) as matches,
         string_agg(format('n.c%s', i), ', ' order by key)
           filter (where key is not null) as partition,
         string_agg(format('coalesce(o.c%s, n.c%s)', i, i), ', ' order by key)
           filter (where key is not null) as key_order,
         -- What cannot be grouped by its own equality is grouped by its text.
         string_agg(format(case when by = 'value' then 'c%s as g%s'
                                else '(c%s::text collate "C") as g%s' end, i, i), ', '
                    order by i) as grouped,
         string_agg('g' || i, ', ' order by i) as g,
         string_agg(case when by = 'value' then 'g' || i else format('g%s::%s', i, type) end, ', '
                    order by i) as ungrouped,
         coalesce(string_agg('g' || i, ', ' order by key) filter (where key is not null),
                  string_agg('g' || i, ', ' order by array_position(order_by, name))
                    filter (where name = any (order_by))) as wanted_order,
         count(key) > 0 as pairs
  into l
  from pgtrickle_internal.stream_layout_rows(layout);

  stored := format('select ctid as at, %s from only %s', l.stored, rel);
  fresh := format('select * from (%s) q(%s)', query, l.c);

  if l.matches is null then
    return format(
      'insert into pgtrickle_streams.%I (n, op, sign, at, %s) '
      'select n, %s, sign(total), %s, %s '
      'from (select %s as n, * from ('
      '        select sum(s) as total, min(at) as at, %s from ('
      '          select 1 as s, null::tid as at, %s from (%s) f '
      '          union all '
      '          select -1, at, %s from (%s) o) u '
      '        group by %s having sum(s) <> 0) d) d '
      'cross join lateral generate_series(1, abs(total)::bigint) as copy '
      '%s order by n, sign(total)',
      'diff_' || id, l.c,
      case when l.pairs
           then 'case when count(*) over k = 2 and sum(sign(total)) over k = 0 then ''U'' '
                     'when total > 0 then ''I'' else ''D'' end'
           else 'case when total > 0 then ''I'' else ''D'' end' end,
      case when l.pairs
           then 'case when count(*) over k = 2 and sum(sign(total)) over k = 0 '
                     'then min(at) filter (where total < 0) over k '
                     'when total < 0 and copy = 1 then at end'
           else 'case when total < 0 and copy = 1 then at end' end,
      l.ungrouped,
      case when l.wanted_order is null then 'row_number() over ()'
           else format('dense_rank() over (order by %s)', l.wanted_order) end,
      l.g, l.grouped, fresh, l.grouped, stored, l.g,
      case when l.pairs then 'window k as (partition by n)' else '' end);
  end if;

  matches := l.matches;
  if pgtrickle_internal.stream_key_is_certain(rel, stored, fresh, matches) then
    fresh := format('select 1 as copies, f.* from (%s) f', fresh);
  else
    fresh := format('select count(*) over (partition by %s) as copies, n.* from (%s) n',
                    l.partition, fresh);
  end if;
  return format(
    'insert into pgtrickle_streams.%I (n, op, sign, at, %s) '
    'select n, op, s.sign, at, %s '
    'from (select row_number() over (order by %s) as n, '
    '             case when n.copies > 1 then ''X'' when o.at is null then ''I'' '
    '                  when n.copies is null then ''D'' else ''U'' end as op, '
    '             o.at, %s '
    '      from (%s) o full join (%s) n on %s '
    '      where %s) d '
    'join (values (-1), (1)) as s(sign) '
    '  on (s.sign = -1 and op in (''D'', ''U'')) or (s.sign = 1 and op <> ''D'') '
    'order by n, s.sign',
    'diff_' || id, l.c, l.signed, l.key_order, l.both_, stored, fresh, matches,
    concat_ws(' or ', 'o.at is null or n.copies is null or n.copies > 1', l.differ,
              'row(' || l.o || ')::record *<> row(' || l.n || ')::record'));
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.told_apart_by(oid), pgtrickle_internal.stream_layout(regclass, text[]),
  pgtrickle_internal.stream_layout_keyed(jsonb, text[]),
  pgtrickle_internal.stream_layout_rows(jsonb),
  pgtrickle_internal.stream_key_is_certain(regclass, text, text, text),
  pgtrickle_internal.stream_diff_statement(bigint, regclass, text, jsonb, text[])
  to pgtrickle_admin;
