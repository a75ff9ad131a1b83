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
-- for changes that come without a statement: the apply workers of logical replication, and rows
-- that a partitioned table's statement puts into partitions which have no triggers yet. `begin`
-- leaves a mark (212_outbox_order.sql) by which `row` knows that the statement will record the row.
--
-- Thresholds count rows and the bytes of the rows as jsonb in memory: a jsonb value ends at 256 MB,
-- and the application's statement must not fail there.

-- Puts values into a text with {names}.
create or replace function pgtrickle._fill(template text, vars jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  filled text := template;
  v record;
begin
  for v in select * from jsonb_each_text(vars) loop
    filled := replace(filled, '{' || v.key || '}', v.value);
  end loop;
  return filled;
end $$;

-- What the bodies of an outbox's functions have in common.
create or replace function pgtrickle._capture_names(outbox pgtrickle.pgt_outbox_config)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'number', outbox.outbox_number,
    'outbox', format('pgtrickle.%I', outbox.outbox_table_name),
    'delta', format('pgtrickle.%I', outbox.delta_table_name),
    'mark', format('%L', 'pgtrickle_capture.s' || outbox.outbox_number),
    'truncate_mark', format('%L', 'pgtrickle_capture.t' || outbox.outbox_number),
    'notify', case when outbox.notify
                   then format('perform pg_notify(''pgtrickle_outbox_new'', %L);',
                               outbox.outbox_table_name)
                   else '' end);
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
    select jsonb_object_agg(c.key, case when octet_length(c.value::text) <= 1048576
                                        then c.value::jsonb end)
           || jsonb_build_object('__pgtrickle_omitted', jsonb_agg(c.key) filter (
                where octet_length(c.value::text) > 1048576))
    from json_each(row_to_json(whole)) c);
end $$;

-- The body of an AFTER STATEMENT trigger. `parts` are its transition tables: {"inserted": name of
-- the table of new rows, "deleted": name of the table of old rows}, either or both.
--
-- First comes the usual statement, a few rows and not nested: one INSERT. A row that is large on
-- disk, or any row beyond the hundredth, leaves it writing nothing; then rows are counted and
-- measured before anything is built.
create or replace function pgtrickle._capture_statement_body(
  outbox pgtrickle.pgt_outbox_config, tg_op text, parts jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  few constant int := least(100, outbox.inline_threshold_rows);
  body text := $body$
declare
  marks text := current_setting({mark}, true);
  written bigint;
  total bigint;
  bytes bigint;
begin
  if marks = {own_mark} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    {few_rows};
    if found then
      {notify}
      marks := set_config({mark}, '', true);
      return null;
    end if;
  else
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    {few_rows}
    returning id into written;
  end if;

  if written is null then
    select count(*) into total from (select from {transition} limit {max_rows} + 1) r;
    if total between 1 and {max_rows} then
      select {size} into bytes;
    end if;
    if bytes <= {max_bytes} then
      insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
      {all_rows}
      returning id into written;
    elsif total > 0 then
      select count(*) into total from {transition};
      insert into {outbox} (inserted_count, deleted_count, tg_op, is_claim_check, payload)
      values ({claim_counts}, {op}, true,
              '{"v": 1, "claim_check": true, "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 0}')
      returning id into written;
      insert into {delta} (outbox_id, row_num, row_op, row_data)
      select written, row_number() over ({order}), r.row_op, r.row_data
      from ({delta_rows}) r;
    end if;
  end if;

  if written is not null then
    {notify}
  end if;
  if position(':' in marks) = 0 and right(marks, 3) = {own_mark} then
    marks := set_config({mark}, left(marks, -3), true);
  else
    perform pgtrickle._capture_settle({number}, {own_op}, written);
  end if;
  return null;
end $body$;
  kind text;
  source text;
  counts text := '';
  payload text := '''{"v": 1, "inserted": [], "deleted": [], "refresh_mode": "DIFFERENTIAL", '
                  '"refresh_duration_ms": 0}''::jsonb';
  few_arrays text[] := '{}';
  all_arrays text[] := '{}';
  few_conditions text[] := '{}';
  few_sizes text[] := '{}';
  sizes text[] := '{}';
  delta_rows text[] := '{}';
  order_by text := '';
begin
  foreach kind in array array['inserted', 'deleted'] loop
    source := parts ->> kind;
    if source is null then
      counts := counts || '0, ';
      continue;
    end if;
    counts := counts || format('cardinality(s.%I), ', kind);
    payload := format('jsonb_set(%s, ''{%s}'', to_jsonb(s.%I))', payload, kind, kind);
    -- A row of half a megabyte on disk is at most a few megabytes as jsonb; a hundred fit memory.
    few_arrays := few_arrays || format(
      'array(select case when pg_column_size(x.*) <= 500000 then to_jsonb(x.*) end '
      'from %I x limit %s) as %I', source, few + 1, kind);
    few_conditions := few_conditions || format(
      'cardinality(s.%I) between 1 and %s and array_position(s.%I, null) is null', kind, few, kind);
    few_sizes := few_sizes || format('pg_column_size(s.%I)', kind);
    all_arrays := all_arrays || format('array(select to_jsonb(x.*) from %I x) as %I', source, kind);
    sizes := sizes || format(
      '(select sum(case when pg_column_size(x.*) <= 16777216 then pg_column_size(to_jsonb(x.*)) '
      'else 1000000000 end) from %I x)', source);
    delta_rows := delta_rows || format(
      'select %L, case when pg_column_size(x.*) <= 16777216 then to_jsonb(x.*) '
      'else pgtrickle._capture_huge_row(x.*) end from %I x',
      case kind when 'inserted' then 'INSERT' else 'DELETE' end, source);
  end loop;
  -- Key columns are taken from the jsonb: a column renamed meanwhile must not break a statement.
  select coalesce(string_agg(format('r.row_data -> %L', k), ', ') || ', ', '') into order_by
  from unnest(outbox.key_columns) k;

  return pgtrickle._fill(body, jsonb_build_object(
    'few_rows', format(
      'select %s%L, %s from (select %s offset 0) s where %s and %s <= %s', counts, tg_op, payload,
      array_to_string(few_arrays, ', '), array_to_string(few_conditions, ' and '),
      array_to_string(few_sizes, ' + '), outbox.inline_threshold_bytes),
    'all_rows', format('select %s%L, %s from (select %s offset 0) s', counts, tg_op, payload,
                       array_to_string(all_arrays, ', ')),
    'size', array_to_string(sizes, ' + '),
    'transition', format('%I', coalesce(parts ->> 'inserted', parts ->> 'deleted')),
    'claim_counts', case when parts ? 'inserted' then 'total' else '0' end || ', '
                    || case when parts ? 'deleted' then 'total' else '0' end,
    'delta_rows', format('select * from (%s) d (row_op, row_data)',
                         array_to_string(delta_rows, ' union all ')),
    'order', case when order_by = '' and cardinality(delta_rows) = 1 then ''
                  else 'order by ' || order_by || 'r.row_op' end,
    'op', quote_literal(tg_op),
    'own_op', quote_literal(lower(left(tg_op, 1))),
    'own_mark', quote_literal(lower(left(tg_op, 1)) || '1;'),
    'max_rows', outbox.inline_threshold_rows,
    'max_bytes', outbox.inline_threshold_bytes) || pgtrickle._capture_names(outbox));
end $$;

-- The body of the AFTER ROW trigger: one outbox row. Captured statements record their rows
-- themselves, except where capture is 'row'.
create or replace function pgtrickle._capture_row_body(outbox pgtrickle.pgt_outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  marks text := current_setting({mark}, true);
  inserted jsonb[] := '{}';
  deleted jsonb[] := '{}';
  written bigint;
begin
  {skip}
  if tg_op <> 'INSERT' then
    deleted := array[case when pg_column_size(old) <= 16777216 then to_jsonb(old)
                          else pgtrickle._capture_huge_row(old) end];
  end if;
  if tg_op <> 'DELETE' then
    inserted := array[case when pg_column_size(new) <= 16777216 then to_jsonb(new)
                           else pgtrickle._capture_huge_row(new) end];
  end if;

  if pg_column_size(inserted) + pg_column_size(deleted) <= {max_bytes} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    values (cardinality(inserted), cardinality(deleted), tg_op, jsonb_build_object(
              'v', 1, 'inserted', inserted, 'deleted', deleted,
              'refresh_mode', 'DIFFERENTIAL', 'refresh_duration_ms', 0))
    returning id into written;
  else
    insert into {outbox} (inserted_count, deleted_count, tg_op, is_claim_check, payload)
    values (cardinality(inserted), cardinality(deleted), tg_op, true,
            '{"v": 1, "claim_check": true, "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 0}')
    returning id into written;
    insert into {delta} (outbox_id, row_num, row_op, row_data)
    select written, row_number() over (order by r.row_op), r.row_op, r.row_data
    from (select 'DELETE', unnest(deleted) union all select 'INSERT', unnest(inserted))
         r (row_op, row_data);
  end if;
  {notify}
  if marks <> '' then
    perform pgtrickle._capture_adopt({number}, written);
  end if;
  return null;
end $body$,
    jsonb_build_object(
      'max_bytes', outbox.inline_threshold_bytes,
      'skip', case when outbox.capture = 'statement' then $skip$
  -- The last mark is the innermost: its statement is at this depth, or a foreign key's cascade.
  if marks <> '' and substring(marks from '([0-9]+)[^;]*;$')::int >= pg_trigger_depth() then
    return null;
  end if;$skip$ else '' end) || pgtrickle._capture_names(outbox));
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
  definer constant text := 'security definer set search_path = pg_catalog, pg_temp';
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  perform pgtrickle._capture_define(number, 'begin', '', pgtrickle._capture_begin_body(outbox));
  perform pgtrickle._capture_define(number, 'row', definer, pgtrickle._capture_row_body(outbox));
  perform pgtrickle._capture_define(number, 'truncate', definer || ' set row_security = off',
                                    pgtrickle._capture_truncate_body(outbox));
  if outbox.capture = 'row' then
    perform pgtrickle._capture_define(number, 'end', definer, pgtrickle._capture_end_body(outbox));
    return;
  end if;
  perform pgtrickle._capture_define(number, 'insert', definer, pgtrickle._capture_statement_body(
    outbox, 'INSERT', '{"inserted": "new_rows"}'));
  perform pgtrickle._capture_define(number, 'update', definer, pgtrickle._capture_statement_body(
    outbox, 'UPDATE', '{"inserted": "new_rows", "deleted": "old_rows"}'));
  perform pgtrickle._capture_define(number, 'delete', definer, pgtrickle._capture_statement_body(
    outbox, 'DELETE', '{"deleted": "old_rows"}'));
end $$;
