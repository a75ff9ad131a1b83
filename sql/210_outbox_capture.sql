-- The trigger functions that record the changes of an ordinary table in its outbox.
--
-- Each outbox has functions of its own, pgtrickle._capture_<number>_<what>, written by
-- _capture_generate() with every name and constant in place: nothing is looked up and nothing is
-- planned while an application waits. They are attached by _capture_attach():
--
--   capture 'statement'            capture 'row'
--     begin     BEFORE STATEMENT     begin     BEFORE STATEMENT
--     insert    AFTER STATEMENT      end       AFTER STATEMENT
--     update    AFTER STATEMENT      row       AFTER ROW
--     delete    AFTER STATEMENT      truncate
--     row       AFTER ROW
--     truncate
--
-- A statement gives one outbox row for each operation, from the transition tables. `row` is there
-- for changes that come without a statement: the apply workers of logical replication (and all
-- else under session_replication_role = replica, where the statement triggers are silent), and rows
-- of partitions that have no statement triggers yet. `begin` and `end` are about order
-- (212_outbox_order.sql), and on partitioned tables about what the statement itself will record.
--
-- Thresholds count rows and the bytes of the rows as jsonb in memory: a jsonb value ends at 256 MB,
-- and the application's statement must not fail there.
--
-- They run as pgtrickle_owner under the search_path of whoever writes, for pinning it costs each
-- statement. So nothing is looked up by it: each function, operator and type is qualified, and what
-- hides an operator (BETWEEN, IN, IS DISTINCT FROM, CASE x WHEN) is not used. Tables with values
-- whose text depends on the search_path (regclass) have functions that pin it.

-- Puts values into a text with {names}; what looks like a name within a value stays as it is.
create or replace function pgtrickle._fill(template text, vars jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(t.text_before || coalesce(vars ->> m.found[1], ''), '' order by t.ord)
  from regexp_split_to_table(template, '\{[a-z_]+\}') with ordinality t (text_before, ord)
  left join regexp_matches(template, '\{([a-z_]+)\}', 'g') with ordinality m (found, ord)
    using (ord);
$$;

-- The expression for a payload with these expressions for parts of it: {"<path>": expression}.
create or replace function pgtrickle._capture_payload(parts jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  expression text := '''{"v": 1, "inserted": [], "deleted": [], "refresh_mode": "DIFFERENTIAL", '
                     '"refresh_duration_ms": 0}''::pg_catalog.jsonb';
  part record;
begin
  for part in select * from jsonb_each_text(parts) loop
    expression := format('pg_catalog.jsonb_set(%s, ''{%s}'', %s)', expression, part.key,
                         part.value);
  end loop;
  return expression;
end $$;

-- The expression for whether something is noted about the order of nested statements; null: no.
create or replace function pgtrickle._capture_is_noted(outbox pgtrickle.pgt_outbox_config)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('pg_catalog.current_setting(%L, true) operator(pg_catalog.<>) ''''',
                'pgtrickle_capture.s' || outbox.outbox_number);
$$;

-- What the bodies of an outbox's functions have in common.
--
-- Partitions inherit the row trigger, and it must leave alone the rows of statements on the parent.
-- So statements on a partitioned table say that they run: a stack of trigger depths, in a setting
-- of the transaction. (A foreign key's cascade begins one deeper than it ends.)
create or replace function pgtrickle._capture_names(outbox pgtrickle.pgt_outbox_config)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'number', outbox.outbox_number,
    'outbox', format('pgtrickle.%I', outbox.outbox_table_name),
    'delta', format('pgtrickle.%I', outbox.delta_table_name),
    'noted', quote_literal('pgtrickle_capture.s' || outbox.outbox_number),
    'is_noted', pgtrickle._capture_is_noted(outbox),
    'claim_check', quote_literal('{"v": 1, "claim_check": true, "refresh_mode": "DIFFERENTIAL", '
                                 '"refresh_duration_ms": 0}'),
    'truncate_mark', quote_literal('pgtrickle_capture.t' || outbox.outbox_number),
    'notify', case when outbox.notify
                   then format('perform pg_catalog.pg_notify(''pgtrickle_outbox_new'', %L);',
                               outbox.outbox_table_name)
                   else '' end,
    'enter', case when p.partitioned then format(
      'caller := pg_catalog.set_config(%1$L, pg_catalog.concat('
      'pg_catalog.current_setting(%1$L, true), pg_catalog.pg_trigger_depth(), '';''), true);',
      p.running) else '' end,
    'leave', case when p.partitioned then format(
      'perform pg_catalog.set_config(%1$L, pg_catalog.regexp_replace('
      'pg_catalog.current_setting(%1$L, true), ''[0-9]+;$'', ''''), true);', p.running)
      else '' end,
    'skip', case when outbox.capture = 'statement' then concat(
      'if pg_catalog.current_setting(''session_replication_role'') '
      'operator(pg_catalog.<>) ''replica''',
      case when p.partitioned then format(
        ' and coalesce((pg_catalog.regexp_match(pg_catalog.current_setting(%L, true), '
        '''([0-9]+);$''))[1]::int, 0) operator(pg_catalog.>=) pg_catalog.pg_trigger_depth()',
        p.running) end,
      ' then return null; end if;') else '' end)
  from (select outbox.capture = 'statement' and exists (
                 select from pg_class c
                 where c.oid = outbox.stream_table_oid and c.relkind = 'p') as partitioned,
               'pgtrickle_capture.p' || outbox.outbox_number as running) p;
$$;

-- The expression for one row as jsonb. What is beyond a megabyte, compressed, may be more than
-- jsonb holds.
create or replace function pgtrickle._row_json(whole text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('case when pg_catalog.pg_column_size(%1$s) operator(pg_catalog.<=) 1000000 '
                'then pg_catalog.to_jsonb(%1$s) else pgtrickle._capture_huge_row(%1$s) end', whole);
$$;

-- One row as jsonb, whatever its size: where jsonb cannot hold it, columns beyond a megabyte are
-- null and named in "__pgtrickle_omitted".
create or replace function pgtrickle._capture_huge_row(whole record) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(whole);
exception when program_limit_exceeded then
  return (
    select jsonb_object_agg(c.key, case when not c.is_huge then c.value::jsonb end)
           || jsonb_build_object('__pgtrickle_omitted', jsonb_agg(c.key) filter (where c.is_huge))
    from (select j.key, j.value, octet_length(j.value::text) > 1048576 as is_huge
          from json_each(row_to_json(whole)) j offset 0) c);
end $$;

-- The pieces of SQL that record a statement. `parts` are its transition tables: {"inserted": name
-- of the table of new rows, "deleted": name of the table of old rows}, either or both.
--
-- one_row and few_rows write nothing where a row is so large that with decompression (255 times at
-- most) too much could be built: `size` measures first. one_row writes nothing either where there
-- are more rows, or where the statement is nested in another: one condition about a row, for one
-- that does not look at rows would be another step of the plan.
create or replace function pgtrickle._capture_statement_sql(
  outbox pgtrickle.pgt_outbox_config, tg_op text, parts jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with part as (
    select k.kind, parts ->> k.kind as source, k.ord, outbox.inline_threshold_bytes as bytes
    from (values ('inserted', 1), ('deleted', 2)) k (kind, ord)
    where parts ? k.kind
  ), counts as (
    select string_agg(case when parts ? k then '1' else '0' end, ', ' order by n) as one,
           string_agg(case when parts ? k then format('pg_catalog.cardinality(s.%I)', k)
                           else '0' end, ', ' order by n) as several,
           string_agg(case when parts ? k then 'total' else '0' end, ', ' order by n) as total
    from (values ('inserted', 1), ('deleted', 2)) v (k, n)
  ), pieces as (
    select
      string_agg(format('%I as %I', source, kind), ', ' order by ord) as one_from,
      string_agg(format('pg_catalog.pg_column_size(%I.*)', kind), ' operator(pg_catalog.+) '
                 order by ord) as one_size,
      string_agg(format('array(select case when pg_catalog.pg_column_size(x.*) '
                        'operator(pg_catalog.<=) 16384 then pg_catalog.to_jsonb(x.*) end '
                        'from %I x) as %I', source, kind), ', ' order by ord) as few_arrays,
      string_agg(format('pg_catalog.array_position(s.%I, null) is null', kind), ' and '
                 order by ord) as few_conditions,
      string_agg(format('pg_catalog.pg_column_size(s.%I)', kind), ' operator(pg_catalog.+) '
                 order by ord) as few_size,
      string_agg(format('array(select %s from %I x) as %I', pgtrickle._row_json('x.*'), source,
                        kind), ', ' order by ord) as all_arrays,
      string_agg(format('(select pg_catalog.sum(case when pg_catalog.pg_column_size(x.*) '
                        'operator(pg_catalog.>) %s then %s else pg_catalog.pg_column_size(%s) end) '
                        'from %I x)', bytes, bytes + 1, pgtrickle._row_json('x.*'), source),
                 ' operator(pg_catalog.+) ' order by ord) as size,
      string_agg(format('select %L, %s from %I x',
                        case kind when 'inserted' then 'INSERT' else 'DELETE' end,
                        pgtrickle._row_json('x.*'), source),
                 ' union all ' order by ord) as delta_rows,
      min(source) as transition,
      min(bytes) as bytes
    from part
  ), payload as (
    select pgtrickle._capture_payload(jsonb_object_agg(
             kind || ',0', format('pg_catalog.to_jsonb(%I.*)', kind))) as one,
           pgtrickle._capture_payload(jsonb_object_agg(
             kind, format('pg_catalog.to_jsonb(s.%I)', kind))) as several
    from part
  )
  select jsonb_build_object(
    'one_row', format(
      'select %s, %L, %s from %s where %s operator(pg_catalog.<=) case when '
      'pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 1 or %s '
      'or exists (select from %I offset 1) then 0 else %s end',
      c.one, tg_op, y.one, p.one_from, p.one_size, pgtrickle._capture_is_noted(outbox),
      p.transition, least(16384, p.bytes / 255)),
    'few_rows', format('select %s, %L, %s from (select %s offset 0) s where %s '
                       'and %s operator(pg_catalog.<=) %s',
                       c.several, tg_op, y.several, p.few_arrays, p.few_conditions, p.few_size,
                       p.bytes),
    'all_rows', format('select %s, %L, %s from (select %s offset 0) s', c.several, tg_op,
                       y.several, p.all_arrays),
    'size', p.size,
    'transition', quote_ident(p.transition),
    'claim_counts', c.total,
    'delta_rows', format('select * from (%s) d (row_op, row_data)', p.delta_rows),
    -- From the jsonb: a key column that was renamed meanwhile must not break a statement.
    'order', 'order by ' || (select coalesce(string_agg(
                               format('r.row_data operator(pg_catalog.->) %L::pg_catalog.text', k),
                               ', ' order by n) || ', ', '')
                             from unnest(outbox.key_columns) with ordinality o (k, n))
             || 'r.row_op',
    'op', quote_literal(tg_op),
    'few', least(50, outbox.inline_threshold_rows),
    'max_rows', outbox.inline_threshold_rows,
    'enough_rows', outbox.inline_threshold_rows + 1,
    'max_bytes', p.bytes)
  from pieces p, counts c, payload y;
$$;

-- The body of an AFTER STATEMENT trigger. Most statements have one row and are not nested: for them
-- it is one INSERT with as little in it as can be, and "return new", which is null here, for null
-- would be an expression.
create or replace function pgtrickle._capture_statement_body(
  outbox pgtrickle.pgt_outbox_config, tg_op text, parts jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  written bigint;
  total bigint;
  bytes bigint;
begin
  insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
  {one_row};
  if found then
    {notify}
    {leave}
    return new;
  end if;

  select pg_catalog.count(*) into total from (select from {transition} limit {enough_rows}) r;
  if total operator(pg_catalog.>) 0 and total operator(pg_catalog.<=) {few} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    {few_rows}
    returning id into written;
  end if;
  if written is null and total operator(pg_catalog.>) 0 then
    if total operator(pg_catalog.<=) {max_rows} then
      select {size} into bytes;
    end if;
    if bytes operator(pg_catalog.<=) {max_bytes} then
      insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
      {all_rows}
      returning id into written;
    else
      select pg_catalog.count(*) into total from {transition};
      insert into {outbox} (inserted_count, deleted_count, tg_op, is_claim_check, payload)
      values ({claim_counts}, {op}, true, {claim_check})
      returning id into written;
      insert into {delta} (outbox_id, row_num, row_op, row_data)
      select written, pg_catalog.row_number() over ({order}), r.row_op, r.row_data
      from ({delta_rows}) r;
    end if;
  end if;

  if written is not null then
    {notify}
  end if;
  {leave}
  if pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 1 or {is_noted} then
    perform pgtrickle._capture_settle({number}, written);
  end if;
  return new;
end $body$, pgtrickle._capture_statement_sql(outbox, tg_op, parts)
            || pgtrickle._capture_names(outbox));
$$;

-- The body of the AFTER ROW trigger: one outbox row. Where statements are recorded it leaves their
-- rows to them.
create or replace function pgtrickle._capture_row_body(outbox pgtrickle.pgt_outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  inserted pg_catalog.jsonb[] := '{}';
  deleted pg_catalog.jsonb[] := '{}';
  written bigint;
begin
  {skip}
  if tg_op operator(pg_catalog.<>) 'INSERT' then
    deleted := array[{old_json}];
  end if;
  if tg_op operator(pg_catalog.<>) 'DELETE' then
    inserted := array[{new_json}];
  end if;

  if pg_catalog.pg_column_size(inserted) operator(pg_catalog.+) pg_catalog.pg_column_size(deleted)
     operator(pg_catalog.<=) {max_bytes} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    values (pg_catalog.cardinality(inserted), pg_catalog.cardinality(deleted), tg_op, {payload})
    returning id into written;
  else
    insert into {outbox} (inserted_count, deleted_count, tg_op, is_claim_check, payload)
    values (pg_catalog.cardinality(inserted), pg_catalog.cardinality(deleted), tg_op, true,
            {claim_check})
    returning id into written;
    insert into {delta} (outbox_id, row_num, row_op, row_data)
    select written, pg_catalog.row_number() over (order by r.row_op), r.row_op, r.row_data
    from (select 'DELETE', pg_catalog.unnest(deleted)
          union all select 'INSERT', pg_catalog.unnest(inserted)) r (row_op, row_data);
  end if;
  {notify}
  if pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 1 then
    perform pgtrickle._capture_adopt({number}, written);
  end if;
  return null;
end $body$,
    jsonb_build_object('max_bytes', outbox.inline_threshold_bytes,
                       'old_json', pgtrickle._row_json('old'),
                       'new_json', pgtrickle._row_json('new'),
                       'payload', pgtrickle._capture_payload(
                         '{"inserted": "pg_catalog.to_jsonb(inserted)", '
                         '"deleted": "pg_catalog.to_jsonb(deleted)"}'))
    || pgtrickle._capture_names(outbox));
$$;

-- The body of the TRUNCATE triggers. Argument 'whole': the table is empty now, said by a full
-- refresh without rows. Argument 'part' (a partition alone): its rows were deleted, and are
-- recorded before they are gone. A TRUNCATE of the whole reaches its parts too, after the mark.
create or replace function pgtrickle._capture_truncate_body(outbox pgtrickle.pgt_outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  whole text := current_setting({truncate_mark}, true);
begin
  if tg_argv[0] = 'part' then
    if whole is distinct from 'yes' then
      perform pgtrickle._capture_relation({number}, tg_relid, 'DELETE', 'TRUNCATE');
    end if;
    return null;
  elsif tg_when = 'BEFORE' then
    whole := set_config({truncate_mark}, 'yes', true);
    return null;
  end if;
  insert into {outbox} (tg_op, payload)
  values ('TRUNCATE', '{"v": 1, "inserted": [], "deleted": [], "full_refresh": true, '
                      '"refresh_mode": "FULL", "refresh_duration_ms": 0}');
  {notify}
  whole := set_config({truncate_mark}, '', true);
  return null;
end $body$, pgtrickle._capture_names(outbox));
$$;

-- ---------------------------------------------------------------------------------------------
-- Writing them

-- One trigger function. Administrators may attach it (enable_outbox does, as the table's owner);
-- others may not, or any table's owner could write into any outbox.
create or replace function pgtrickle._capture_define(number int, what text, options text, body text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  name text := format('pgtrickle.%I', '_capture_' || number || '_' || what);
begin
  execute format('create or replace function %s() returns trigger language plpgsql %s as %L', name,
                 options, body);
  execute format('revoke all on function %s() from public', name);
  execute format('grant execute on function %s() to pgtrickle_admin', name);
end $$;

-- Writes the trigger functions of one outbox anew, from its catalog row.
create or replace function pgtrickle._capture_generate(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  pinned constant text := 'security definer set search_path = pg_catalog, pg_temp';
  how text := 'security definer';
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  if pgtrickle._capture_depends_on_path(outbox.stream_table_oid) then
    how := pinned;
  end if;
  perform pgtrickle._capture_define(number, 'begin', '', pgtrickle._capture_begin_body(outbox));
  perform pgtrickle._capture_define(number, 'row', how, pgtrickle._capture_row_body(outbox));
  perform pgtrickle._capture_define(number, 'truncate', pinned || ' set row_security = off',
                                    pgtrickle._capture_truncate_body(outbox));
  if outbox.capture = 'row' then
    perform pgtrickle._capture_define(number, 'end', 'security definer',
                                      pgtrickle._capture_end_body(outbox));
    return;
  end if;
  perform pgtrickle._capture_define(number, 'insert', how, pgtrickle._capture_statement_body(
    outbox, 'INSERT', '{"inserted": "new_rows"}'));
  perform pgtrickle._capture_define(number, 'update', how, pgtrickle._capture_statement_body(
    outbox, 'UPDATE', '{"inserted": "new_rows", "deleted": "old_rows"}'));
  perform pgtrickle._capture_define(number, 'delete', how, pgtrickle._capture_statement_body(
    outbox, 'DELETE', '{"deleted": "old_rows"}'));
end $$;
