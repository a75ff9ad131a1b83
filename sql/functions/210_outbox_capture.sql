-- The trigger functions that record the changes of an ordinary table in its outbox.
--
-- Each outbox has functions of its own, pgtrickle_internal.capture_<number>_<what>, written by
-- capture_generate() with every name and constant in place: nothing is looked up and nothing is
-- planned while an application waits. They are attached by capture_attach():
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
-- They belong to pgtrickle_capture, a role that may insert into outboxes and do nothing else, and
-- convert rows by expressions that run no code of users (150_json_values.sql). Most tables have
-- plain columns: to_jsonb(row) does. For others the expression names the columns. Whether the
-- columns are still what the function was written for is asked by a comparison that the planner
-- computes once (pgtrickle_json.fits); where they are not, the queries are written anew for each
-- statement, which takes a millisecond, until upkeep has written the functions again.
--
-- Only the table's owner may attach them, and each looks at the table that it was called for: on
-- any other it does nothing.
--
-- They run under the search_path of the role that writes, because pinning it costs each statement. So
-- no name is looked up by it: each function, operator and type is qualified, and constructs that
-- hide an operator (BETWEEN, IN, IS DISTINCT FROM, CASE x WHEN) are not used. Tables with values
-- whose text depends on the search_path (regclass) have functions that pin it. Other settings that
-- the text of values depends on are compared, and pinned and put back only where they differ: a
-- deleted row is the one that was inserted, whatever its writers have set. No literal in them has a
-- backslash, which standard_conforming_strings could turn into something else.

-- Puts values into a text with {names}; what looks like a name within a value stays as it is.
create or replace function pgtrickle_internal.fill(template text, vars jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(t.text_before || coalesce(vars ->> m.found[1], ''), '' order by t.ord)
  from regexp_split_to_table(template, E'\\{[a-z_]+\\}') with ordinality t (text_before, ord)
  left join regexp_matches(template, E'\\{([a-z_]+)\\}', 'g') with ordinality m (found, ord)
    using (ord);
$$;

-- The expression for what a payload says of the key (pgtrickle_json.key_marks): the planner replaces it by
-- its result, so that a statement of the application's does not pay for it.
create or replace function pgtrickle_internal.capture_key_marks(
  outbox pgtrickle_internal.outbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when outbox.stream_table_oid is null
                or (outbox.key_attnums is null and coalesce(outbox.first_key_columns, '{}') = '{}')
              then ''
              else format(' operator(pg_catalog.||) pgtrickle_json.key_marks(%L::pg_catalog.oid, '
                          '%L::pg_catalog._int2, %L::pg_catalog._text, %L)', outbox.stream_table_oid,
                          outbox.key_attnums, coalesce(outbox.first_key_columns, '{}'),
                          format('!pgtrickle_%s_begin', outbox.outbox_number)) end;
$$;

-- The expression for a payload with these expressions for parts of it: {"<path>": expression}.
create or replace function pgtrickle_internal.capture_payload(
  outbox pgtrickle_internal.outbox_config, parts jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  expression text := '''{"v": 1, "inserted": [], "deleted": [], "refresh_mode": "DIFFERENTIAL", '
                     '"refresh_duration_ms": 0}''::pg_catalog.jsonb'
                     || pgtrickle_internal.capture_key_marks(outbox);
  part record;
begin
  for part in select * from jsonb_each_text(parts) loop
    expression := format('pg_catalog.jsonb_set((%s), ''{%s}'', %s)', expression, part.key,
                         part.value);
  end loop;
  return expression;
end $$;

-- The expression for whether something is noted, or must be, about the order of nested statements and
-- of the parts of one (212_outbox_order.sql); null: no.
create or replace function pgtrickle_internal.capture_is_noted(
  outbox pgtrickle_internal.outbox_config) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('pg_catalog.current_setting(%L, true) operator(pg_catalog.<>) ''''',
                'pgtrickle_capture.s' || outbox.outbox_number);
$$;

-- Whether a statement with this tg_op is noted by a + while it runs (212_outbox_order.sql).
create or replace function pgtrickle_internal.capture_counts(
  outbox pgtrickle_internal.outbox_config, tg_op text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select tg_op <> 'INSERT' and outbox.capture = 'statement' and outbox.key_columns is not null;
$$;

-- The expression for whether a table of an outbox is gone. It waits for a transaction that is dropping
-- or renaming it, by asking what can be updated, which is 0 where the table is gone then.
create or replace function pgtrickle_internal.capture_is_lost(table_name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('(pg_catalog.pg_relation_is_updatable(pg_catalog.to_regclass(%1$L), false) '
                'operator(pg_catalog.>) 0 and pg_catalog.to_regclass(%1$L) is not null) is not true',
                format('pgtrickle.%I', table_name));
$$;

-- What the bodies of an outbox's functions have in common.
--
-- Partitions inherit the row trigger, and it must leave alone the rows of statements on the parent.
-- So statements on a partitioned table say that they run: a stack of trigger depths, in a setting
-- of the transaction. (A foreign key's cascade begins one deeper than it ends.) Any role can write a
-- setting. So this one begins with the time of the client's statement, and counts for that one only: a
-- value that was left in the session hides no change from the outbox.
create or replace function pgtrickle_internal.capture_names(outbox pgtrickle_internal.outbox_config)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'number', outbox.outbox_number,
    'outbox', format('pgtrickle.%I', outbox.outbox_table_name),
    'delta', format('pgtrickle.%I', outbox.delta_table_name),
    'noted', quote_literal('pgtrickle_capture.s' || outbox.outbox_number),
    'unseen', quote_literal('a transaction wrote to the table that does not see its columns'),
    -- A table of the outbox that is dropped or renamed does not stop the application.
    'without_outbox', format(
      'if %s then perform pgtrickle_internal.capture_missed(%s, '
      '''the table of the outbox was gone''); return null; end if;',
      pgtrickle_internal.capture_is_lost(outbox.outbox_table_name), outbox.outbox_number),
    'no_delta', pgtrickle_internal.capture_is_lost(outbox.delta_table_name),
    'miss_delta', format('perform pgtrickle_internal.capture_missed(%s, '
                         '''the table of delta rows was gone'');', outbox.outbox_number),
    'is_noted', pgtrickle_internal.capture_is_noted(outbox),
    'defer', format(case when pgtrickle_internal.capture_defers(outbox)
                         then 'if written is not null then perform pgtrickle_internal.capture_defer(%s, '
                              'written); end if;'
                         else '' end, outbox.outbox_number),
    'claim_check', quote_literal('{"v": 1, "claim_check": true, "refresh_mode": "DIFFERENTIAL", '
                                 '"refresh_duration_ms": 0}') || '::pg_catalog.jsonb'
                   || pgtrickle_internal.capture_key_marks(outbox),
    'notify', case when outbox.notify
                   then format('perform pg_catalog.pg_notify(''pgtrickle_outbox_new'', %L);',
                               outbox.outbox_table_name)
                   else '' end,
    'enter', case when p.partitioned then format(
      'caller := pg_catalog.set_config(%L, pg_catalog.concat(case when %s '
      'then pg_catalog.current_setting(%L, true) else %s end, pg_catalog.pg_trigger_depth(), '';''), '
      'true);', p.name, p.is_of_now, p.name, p.stamp) else '' end,
    'leave', case when p.partitioned then format(
      'perform pg_catalog.set_config(%1$L, pg_catalog.regexp_replace('
      'pg_catalog.current_setting(%1$L, true), ''[0-9]+;$'', ''''), true);', p.name)
      else '' end,
    'skip', case when outbox.capture = 'statement' then concat(
      'if pg_catalog.current_setting(''session_replication_role'') '
      'operator(pg_catalog.<>) ''replica''',
      case when p.partitioned then format(
        ' and %s and coalesce((pg_catalog.regexp_match(pg_catalog.current_setting(%L, true), '
        '''([0-9]{1,9});$''))[1]::int, 0) operator(pg_catalog.>=) pg_catalog.pg_trigger_depth()',
        p.is_of_now, p.name) end,
      ' then return null; end if;') else '' end)
  from (
    select q.partitioned, q.name, q.stamp,
           format('pg_catalog.starts_with(pg_catalog.current_setting(%L, true), %s)', q.name,
                  q.stamp) as is_of_now
    from (
      select outbox.capture = 'statement' and exists (
               select from pg_class c
               where c.oid = outbox.stream_table_oid and c.relkind = 'p') as partitioned,
             'pgtrickle_capture.p' || outbox.outbox_number as name,
             'pg_catalog.concat(pg_catalog.encode(pg_catalog.timestamptz_send('
             'pg_catalog.statement_timestamp()), ''hex''), '':'')' as stamp) q) p;
$$;

-- What the bodies of an outbox's functions ask about the relation that they were called for:
-- `is_table`, whether it is the outbox's table; `is_part`, whether it is one of its partitions, which
-- have the same columns; `is_shape`, whether the table's columns are what the body was written for.
-- And the settings under which values are written: `pin` and `unpin` those that the table's columns
-- depend on, `pin_all` and `unpin_all` all, for other columns.
create or replace function pgtrickle_internal.capture_questions(
  outbox pgtrickle_internal.outbox_config) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'is_table', format('tg_relid operator(pg_catalog.=) %L::pg_catalog.oid', source),
    'is_part', format('pg_catalog.pg_partition_root(tg_relid::pg_catalog.regclass) '
                      'operator(pg_catalog.=) %L::pg_catalog.oid', source),
    'is_shape', format('pgtrickle_json.fits(%L::pg_catalog.oid, %L, %L%s)', source,
                       pgtrickle_json.digest(source), coalesce(pgtrickle_json.by_name(source), ''),
                       (select string_agg(format(', %L::pg_catalog.oid', p.rel), '' order by p.ord)
                        from unnest(pgtrickle_json.parts(source)) with ordinality p (rel, ord))))
    || pgtrickle_json.pin_sql(pgtrickle_json.settings(source), 'was')
    || (select jsonb_build_object('pin_all', a.sql -> 'pin', 'unpin_all', a.sql -> 'unpin')
        from (select pgtrickle_json.pin_sql(array_agg(k.name order by k.name), 'was') as sql
              from pgtrickle_json._settings_known() k) a)
  from (select coalesce(outbox.stream_table_oid, 0)::oid as source) s;
$$;

-- Whether an outbox records a relation that its functions do not know: one that was a partition of
-- its table until a moment ago, or its table after a restore, which has another oid then.
create or replace function pgtrickle_internal.capture_admits(number int, rel oid) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from pgtrickle_internal.outbox_partitions k
                 where k.outbox_number = number and k.relid = rel)
    or exists (
      select from pgtrickle_internal.outbox_config c
      join pg_class r on r.oid = coalesce(pg_partition_root(rel)::oid, rel)
      join pg_namespace n on n.oid = r.relnamespace
      where c.outbox_number = number
        and (c.stream_table_oid in (r.oid, rel)
             or (r.relname = c.stream_table_name and n.nspname = c.stream_table_schema
                 and not exists (
                   select from pg_trigger t
                   where t.tgrelid = c.stream_table_oid
                     and t.tgname = format('!pgtrickle_%s_begin', number)))));
end $$;

-- Notes that a change could not be recorded: once for each reason, until a full refresh is written. One
-- that this statement sees is written after this transaction, which has the table locked; with an
-- older snapshot it may have been written.
create or replace function pgtrickle_internal.capture_missed(number int, why text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  insert into pgtrickle_internal.outbox_misses (outbox_number, why)
  select number, why
  where current_setting('transaction_isolation') <> 'read committed'
     or not exists (select from pgtrickle_internal.outbox_misses m
                    where m.outbox_number = number and m.why = capture_missed.why);
$$;

-- The queries that record the rows of a statement, for a relation with the columns of `rel`. `parts`
-- is {"inserted": name of the transition table of new rows, "deleted": that of old rows}, either or
-- both.
--   arrays   inserted and deleted rows, as two arrays
--   few      the same, of up to 50 rows; null in place of a row so large that too much could be built
--   size     the bytes of all rows; one beyond the threshold is not built
--   delta    writes the rows of claim check $1
create or replace function pgtrickle_internal.capture_queries(
  outbox pgtrickle_internal.outbox_config, rel oid, parts jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with part as (
    select v.ord, v.op, parts ->> v.kind as source,
           pgtrickle_json.row_sql(rel, 'x', 'x.*') as "row",
           pgtrickle_json.row_sql(rel, 'x', 'x.*', true) as small_row
    from (values ('inserted', 'INSERT', 1), ('deleted', 'DELETE', 2)) v (kind, op, ord)
  )
  select jsonb_build_object(
    'arrays', 'select ' || string_agg(
      case when p.source is null then '''{}''::pg_catalog._jsonb'
           else format('array(select %s from %I x)', p."row", p.source) end, ', ' order by p.ord),
    'few', 'select ' || string_agg(
      case when p.source is null then '''{}''::pg_catalog._jsonb'
           else format('array(select case when pg_catalog.pg_column_size(x.*) '
                       'operator(pg_catalog.<=) 2000 then %s end from %I x)', p.small_row,
                       p.source) end, ', ' order by p.ord),
    'size', 'select ' || string_agg(
      format('(select pg_catalog.sum(case when pg_catalog.pg_column_size(x.*) '
             'operator(pg_catalog.>) %s then %s else pg_catalog.pg_column_size(%s) end) '
             'from %I x)', outbox.inline_threshold_bytes, outbox.inline_threshold_bytes + 1,
             p."row", p.source), ' operator(pg_catalog.+) ' order by p.ord)
      filter (where p.source is not null),
    'delta', format(
      'insert into pgtrickle.%I (outbox_id, row_num, row_op, row_data) '
      'select $1, pg_catalog.row_number() over (order by %s r.row_op), r.row_op, r.row_data '
      'from (%s) r (row_op, row_data)', outbox.delta_table_name,
      -- From the jsonb: a key column that was renamed meanwhile must not break a statement.
      (select string_agg(format('r.row_data operator(pg_catalog.->) %L::pg_catalog.text,', o.k), ' '
                         order by o.n)
       from unnest(outbox.key_columns) with ordinality o (k, n)),
      string_agg(format('select %L::pg_catalog.text, %s from %I x', p.op, p."row", p.source),
                 ' union all ' order by p.ord) filter (where p.source is not null)))
  from part p;
$$;

-- The same for a statement that is being recorded, by what the catalog says of the columns at this
-- moment; null where this transaction cannot know that, for it began before.
create or replace function pgtrickle_internal.capture_queries_now(number int, rel oid, parts jsonb)
returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if outbox.outbox_number is null or pgtrickle_json.shape(rel) is null then
    return null;
  end if;
  return pgtrickle_internal.capture_queries(outbox, rel, parts);
end $$;

-- The query that gives a row, its parameter, as an array of one; null where this transaction cannot
-- know the columns.
create or replace function pgtrickle_internal.capture_row_query_now(rel oid) returns text
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select format('select array[%s]', pgtrickle_json.row_sql(rel, '($1)', '$1'))
  where pgtrickle_json.shape(rel) is not null;
$$;

-- The statement that records a single row, and nothing where there are more rows, where the row is so
-- large that its size must be measured first, or where the statement is nested in another or a part of
-- one with several: one condition about a row, for one that does not look at rows is another step of
-- the plan. An UPDATE has that step: without it, each new row would meet each old one. Where it
-- records the row of an UPDATE or DELETE, it also removes the + of that, which is then all that is
-- noted. (A nested statement that finds just that is not the one: a statement within it that had no
-- rows has left no note.)
create or replace function pgtrickle_internal.capture_one_row(
  outbox pgtrickle_internal.outbox_config, tg_op text, parts jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with part as (
    select v.kind, v.ord, v.alias, parts ->> v.kind as source
    from (values ('inserted', 1, 'new_row'), ('deleted', 2, 'old_row')) v (kind, ord, alias)
    where parts ? v.kind
  )
  select format(
    'insert into pgtrickle.%I (%s, tg_op, payload) select %s, %L, %s from %s '
    'where %s case when %s operator(pg_catalog.<=) %s%s then %s else false end',
    outbox.outbox_table_name, string_agg(p.kind || '_count', ', ' order by p.ord),
    string_agg('1', ', '), tg_op,
    pgtrickle_internal.capture_payload(outbox, jsonb_object_agg(
      p.kind || ',0', pgtrickle_json.row_sql(outbox.stream_table_oid, p.alias, p.alias || '.*',
                                             true))),
    string_agg(format('%I as %s', p.source, p.alias), ', ' order by p.ord),
    case when count(*) = 2 then format('not exists (select from %I offset 1) and', min(p.source))
         else '' end,
    string_agg(format('pg_catalog.pg_column_size(%s.*)', p.alias), ' operator(pg_catalog.+) '
               order by p.ord),
    least(16384, outbox.inline_threshold_bytes / 255),
    case when count(*) = 1 then format(' and not exists (select from %I offset 1)', min(p.source))
         else '' end,
    case when pgtrickle_internal.capture_counts(outbox, tg_op)
         then format('case when pg_catalog.current_setting(%1$L, true) operator(pg_catalog.=) %2$L '
                     'and pg_catalog.pg_trigger_depth() operator(pg_catalog.=) 1 '
                     'then pg_catalog.set_config(%1$L, %3$L, true) is not null else false end',
                     'pgtrickle_capture.s' || outbox.outbox_number, '+', '')
         else format('pg_catalog.pg_trigger_depth() operator(pg_catalog.<=) 1 and (%s) is not true',
                     pgtrickle_internal.capture_is_noted(outbox)) end)
  from part p;
$$;

-- The body of an AFTER STATEMENT trigger. `parts` as for capture_queries.
--
-- Most statements have one row and are not nested: for them it is one INSERT with as little in it as
-- can be, and "return new", which is null here, for null would be an expression. A statement that
-- names columns is reached, and then only planned, where the columns are what they were.
create or replace function pgtrickle_internal.capture_statement_body(
  outbox pgtrickle_internal.outbox_config, tg_op text, parts jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.fill($body$
declare
  fits boolean;
  inserted pg_catalog._jsonb;
  deleted pg_catalog._jsonb;
  queries pg_catalog.jsonb;
  written bigint;
  total bigint;
  bytes bigint;
  was pg_catalog._text;
  ignored pg_catalog.text;
  {declare_part}
begin
  {without_outbox}
  {if_one_row}
  {end_change}
  fits := ({is_table} or {is_part}) and {is_shape};
  if fits is not true and ({is_table} or {is_part}) is not true
     and not pgtrickle_internal.capture_admits({number}, tg_relid) then
    return new;
  end if;

  if fits then
    {pin}
  else
    {pin_all}
  end if;
  select pg_catalog.count(*) into total from (select from {transition} limit {enough_rows}) r;
  if fits and total operator(pg_catalog.>) 0 and total operator(pg_catalog.<=) {few} then
    {few_rows} into inserted, deleted;
    if pg_catalog.array_position(inserted, null) is null
       and pg_catalog.array_position(deleted, null) is null then
      bytes := pg_catalog.pg_column_size(inserted) operator(pg_catalog.+)
               pg_catalog.pg_column_size(deleted);
    end if;
  end if;
  if total operator(pg_catalog.>) 0
     and (bytes operator(pg_catalog.<=) {max_bytes}) is not true then
    bytes := null;
    if fits then
      queries := {queries};
    else
      queries := pgtrickle_internal.capture_queries_now({number}, tg_relid, {parts});
    end if;
    if queries is null then
      perform pgtrickle_internal.capture_missed({number}, {unseen});
      total := 0;
    elsif total operator(pg_catalog.<=) {max_rows} then
      execute queries operator(pg_catalog.->>) 'size' into bytes;
    end if;
    if bytes operator(pg_catalog.<=) {max_bytes} then
      execute queries operator(pg_catalog.->>) 'arrays' into inserted, deleted;
    end if;
  end if;

  if bytes operator(pg_catalog.<=) {max_bytes} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    values (pg_catalog.cardinality(inserted), pg_catalog.cardinality(deleted), {op}, {payload})
    returning id into written;
  elsif total operator(pg_catalog.>) 0 and {no_delta} then
    {miss_delta}
  elsif total operator(pg_catalog.>) 0 then
    select pg_catalog.count(*) into total from {transition};
    insert into {outbox} (inserted_count, deleted_count, tg_op, is_claim_check, payload)
    values ({claim_counts}, {op}, true, {claim_check})
    returning id into written;
    execute queries operator(pg_catalog.->>) 'delta' using written;
  end if;
  if fits then
    {unpin}
  else
    {unpin_all}
  end if;

  if written is not null then
    {notify}
  end if;
  {leave}
  if pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 1 or {is_noted} then
    if {no_delta} then
      {miss_delta}
    else
      perform pgtrickle_internal.capture_settle({number}, written, {part});
    end if;
  end if;
  {defer}
  return new;
end $body$,
    q.common || jsonb_build_object(
      'if_one_row', case when pgtrickle_internal.capture_defers(outbox) then '' else pgtrickle_internal.fill($body$
  if {is_table} and {is_shape} then
    {pin}
    {one_row};
    if found then
      {unpin}
      {notify}
      {leave}
      return new;
    end if;
  end if;$body$, q.common || jsonb_build_object(
        'one_row', pgtrickle_internal.capture_one_row(outbox, tg_op, parts))) end,
      'declare_part', case when q.counts then 'is_part boolean := true;' else '' end,
      'part', case when q.counts then 'is_part' else 'true' end,
      -- A foreign key's cascade began deeper than it ends, and is no part of the statement around it.
      'end_change', case when q.counts then pgtrickle_internal.fill($body$
  if pg_catalog.pg_trigger_depth() operator(pg_catalog.=) 1 then
    ignored := pg_catalog.current_setting({noted}, true);
    is_part := pg_catalog.starts_with(ignored, '+');
    if is_part then
      ignored := pg_catalog.set_config({noted}, pg_catalog.substr(ignored, 2), true);
    end if;
  end if;$body$, q.common) else '' end,
      'few_rows', q.queries ->> 'few',
      'queries', quote_literal(q.queries - 'few') || '::pg_catalog.jsonb',
      'parts', quote_literal(parts),
      'transition', (select quote_ident(min(t.value)) from jsonb_each_text(parts) t),
      'claim_counts', concat_ws(', ', case when parts ? 'inserted' then 'total' else '0' end,
                                case when parts ? 'deleted' then 'total' else '0' end),
      'payload', (select pgtrickle_internal.capture_payload(outbox, jsonb_object_agg(
                    k, format('pg_catalog.to_jsonb(%I)', k))) from jsonb_object_keys(parts) k),
      'op', quote_literal(tg_op),
      'few', least(50, outbox.inline_threshold_rows),
      'max_rows', outbox.inline_threshold_rows,
      'enough_rows', outbox.inline_threshold_rows + 1,
      'max_bytes', outbox.inline_threshold_bytes))
  from (select pgtrickle_internal.capture_queries(outbox, outbox.stream_table_oid, parts) as queries,
               pgtrickle_internal.capture_names(outbox) || pgtrickle_internal.capture_questions(outbox)
                 as common,
               pgtrickle_internal.capture_counts(outbox, tg_op) as counts) q;
$$;

-- The body of the AFTER ROW trigger: one outbox row. Where statements are recorded it leaves their
-- rows to them.
create or replace function pgtrickle_internal.capture_row_body(
  outbox pgtrickle_internal.outbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.fill($body$
declare
  inserted pg_catalog._jsonb := '{}';
  deleted pg_catalog._jsonb := '{}';
  query pg_catalog.text;
  written bigint;
  was pg_catalog._text;
  ignored pg_catalog.text;
begin
  {skip}
  {without_outbox}
  if ({is_table} or {is_part}) and {is_shape} then
    {pin}
    if tg_op operator(pg_catalog.<>) 'INSERT' then
      deleted := array[{old_json}];
    end if;
    if tg_op operator(pg_catalog.<>) 'DELETE' then
      inserted := array[{new_json}];
    end if;
    {unpin}
  elsif {is_table} or {is_part} or pgtrickle_internal.capture_admits({number}, tg_relid) then
    query := pgtrickle_internal.capture_row_query_now(tg_relid);
    if query is null then
      perform pgtrickle_internal.capture_missed({number}, {unseen});
      return null;
    end if;
    {pin_all}
    if tg_op operator(pg_catalog.<>) 'INSERT' then
      execute query into deleted using old;
    end if;
    if tg_op operator(pg_catalog.<>) 'DELETE' then
      execute query into inserted using new;
    end if;
    {unpin_all}
  else
    return null;
  end if;

  if pg_catalog.pg_column_size(inserted) operator(pg_catalog.+) pg_catalog.pg_column_size(deleted)
     operator(pg_catalog.<=) {max_bytes} then
    insert into {outbox} (inserted_count, deleted_count, tg_op, payload)
    values (pg_catalog.cardinality(inserted), pg_catalog.cardinality(deleted), tg_op, {payload})
    returning id into written;
  elsif {no_delta} then
    {miss_delta}
    return null;
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
    perform pgtrickle_internal.capture_adopt({number}, written);
  end if;
  {defer}
  return null;
end $body$,
    pgtrickle_internal.capture_names(outbox) || pgtrickle_internal.capture_questions(outbox)
    || jsonb_build_object(
      'max_bytes', outbox.inline_threshold_bytes,
      'old_json', pgtrickle_json.row_sql(outbox.stream_table_oid, 'old', 'old'),
      'new_json', pgtrickle_json.row_sql(outbox.stream_table_oid, 'new', 'new'),
      'payload', pgtrickle_internal.capture_payload(
        outbox, '{"inserted": "pg_catalog.to_jsonb(inserted)", '
        '"deleted": "pg_catalog.to_jsonb(deleted)"}')));
$$;

-- The body of the TRUNCATE triggers. Argument 'whole': the table is empty now, recorded as a full
-- refresh without rows. Argument 'part' (a partition alone): its rows were deleted, and are
-- recorded before they are gone. A TRUNCATE of the whole reaches its parts too, after it was marked.
create or replace function pgtrickle_internal.capture_truncate_body(
  outbox pgtrickle_internal.outbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.fill($body$
begin
  if ({is_table} or {is_part}) is not true
     and not pgtrickle_internal.capture_admits({number}, tg_relid) then
    return null;
  end if;
  {without_outbox}
  if tg_argv[0] = 'part' then
    if {no_delta} then
      {miss_delta}
    else
      perform pgtrickle_internal.capture_truncated_part({number}, tg_relid);
    end if;
    return null;
  elsif tg_when = 'BEFORE' then
    perform pgtrickle_internal.capture_truncates_whole({number}, true);
    return null;
  end if;
  insert into {outbox} (tg_op, payload)
  values ('TRUNCATE', '{"v": 1, "inserted": [], "deleted": [], "full_refresh": true, '
                      '"refresh_mode": "FULL", "refresh_duration_ms": 0}');
  {notify}
  perform pgtrickle_internal.capture_truncates_whole({number}, false);
  return null;
end $body$, pgtrickle_internal.capture_names(outbox) || pgtrickle_internal.capture_questions(outbox));
$$;

create or replace function pgtrickle_internal.capture_truncates_whole(number int, begins boolean)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if begins then
    insert into pgtrickle_internal.outbox_truncations values (number, pg_current_xact_id())
    on conflict do nothing;
  else
    delete from pgtrickle_internal.outbox_truncations t
    where t.outbox_number = number and t.xid = pg_current_xact_id();
  end if;
end $$;

-- Records the rows of a partition that is about to be truncated alone. Where they cannot be read the
-- statement goes on, and upkeep makes a full refresh. TRUNCATE removes rows that an older snapshot does
-- not see.
create or replace function pgtrickle_internal.capture_truncated_part(number int, rel regclass)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pgtrickle_internal.outbox_truncations t
             where t.outbox_number = number and t.xid = pg_current_xact_id()) then
    return;
  end if;
  perform pgtrickle_internal.require_fresh_snapshots('it');
  perform pgtrickle_internal.capture_defer(
    number, pgtrickle_internal.capture_rows_of(number, rel, 'DELETE', 'TRUNCATE'));
exception when others then
  perform pgtrickle_internal.capture_missed(number, format('TRUNCATE of %s could not be recorded (%s)', rel,
                                                           sqlerrm));
end $$;

-- ---------------------------------------------------------------------------------------------
-- Writing them

-- The text of a trigger function, with a digest of it at the end by which check_capture_functions
-- finds that another text was put in its place.
create or replace function pgtrickle_internal.capture_signed(name text, body text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select format(E'%s\n-- %s', body, md5(name || body)); $$;

-- One trigger function. It belongs to pgtrickle_capture, where it runs as its owner (`definer`), and
-- to pgtrickle_owner where it runs as the role that writes. The owner of the table may attach it,
-- which making and attaching partitions needs too; every other role may not, or it could write into
-- the outbox.
create or replace function pgtrickle_internal.capture_define(
  outbox pgtrickle_internal.outbox_config, what text, definer boolean, options text, body text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  name constant text := format('pgtrickle_internal.%I()',
                               'capture_' || outbox.outbox_number || '_' || what);
  grantee regrole;
begin
  execute format('create or replace function %s returns trigger language plpgsql %s %s as %L', name,
                 case when definer then 'security definer' else '' end, options,
                 pgtrickle_internal.capture_signed(
                   'capture_' || outbox.outbox_number || '_' || what, body));
  if definer and (select p.proowner from pg_proc p where p.oid = name::regprocedure)
                 <> 'pgtrickle_capture'::regrole then
    grant create on schema pgtrickle_internal to pgtrickle_capture;
    execute format('alter function %s owner to pgtrickle_capture', name);
    revoke create on schema pgtrickle_internal from pgtrickle_capture;
  end if;
  execute format('revoke all on function %s from public', name);
  for grantee in
    select distinct a.grantee from pg_proc p cross join lateral aclexplode(p.proacl) a
    where p.oid = name::regprocedure and a.grantee not in (0, p.proowner)
      and a.grantee is distinct from (select c.relowner from pg_class c
                                      where c.oid = outbox.stream_table_oid)
  loop
    execute format('revoke all on function %s from %s', name, grantee);
  end loop;
  select c.relowner into grantee from pg_class c where c.oid = outbox.stream_table_oid;
  if found then
    execute format('grant execute on function %s to %s', name, grantee);
  end if;
end $$;

-- Lets the capture functions of an outbox write to its tables, and to no other table.
create or replace function pgtrickle_internal.capture_grant(outbox pgtrickle_internal.outbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('grant insert (inserted_count, deleted_count, is_claim_check, tg_op, payload), '
                 'select (id) on pgtrickle.%I to pgtrickle_capture', outbox.outbox_table_name);
  execute format('grant insert (outbox_id, row_num, row_op, row_data) on pgtrickle.%I '
                 'to pgtrickle_capture', outbox.delta_table_name);
end $$;

-- Writes the trigger functions of one outbox again, from its catalog row and the columns of its table.
create or replace function pgtrickle_internal.capture_generate(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  pinned constant text := 'set search_path = pg_catalog, pg_temp';
  how text := '';
begin
  perform pgtrickle_internal.lock('outboxes');
  update pgtrickle_internal.outbox_config c
  set columns_digest = pgtrickle_json.digest(c.stream_table_oid),
      reader = coalesce(c.reader, pgtrickle_internal.gate_name('outbox'))
  where c.outbox_number = number
  returning * into strict outbox;
  if pgtrickle_internal.capture_depends_on_path(outbox.stream_table_oid) then
    how := pinned;
  end if;
  perform pgtrickle_internal.capture_grant(outbox);
  perform pgtrickle_internal.capture_define(outbox, 'begin', false, '',
                                            pgtrickle_internal.capture_begin_body(outbox));
  perform pgtrickle_internal.capture_define(outbox, 'row', true, how, pgtrickle_internal.capture_row_body(outbox));
  perform pgtrickle_internal.capture_define(outbox, 'truncate', true, pinned,
                                            pgtrickle_internal.capture_truncate_body(outbox));
  if outbox.capture = 'row' then
    perform pgtrickle_internal.capture_define(outbox, 'end', true, '',
                                              pgtrickle_internal.capture_end_body(outbox));
    return;
  end if;
  perform pgtrickle_internal.capture_define(outbox, 'insert', true, how, pgtrickle_internal.capture_statement_body(
    outbox, 'INSERT', '{"inserted": "new_rows"}'));
  perform pgtrickle_internal.capture_define(outbox, 'update', true, how, pgtrickle_internal.capture_statement_body(
    outbox, 'UPDATE', '{"inserted": "new_rows", "deleted": "old_rows"}'));
  perform pgtrickle_internal.capture_define(outbox, 'delete', true, how, pgtrickle_internal.capture_statement_body(
    outbox, 'DELETE', '{"deleted": "old_rows"}'));
end $$;

-- What capture functions call.
grant execute on function
  pgtrickle_internal.capture_admits(integer, oid),
  pgtrickle_internal.capture_missed(integer, text),
  pgtrickle_internal.capture_queries_now(integer, oid, jsonb),
  pgtrickle_internal.capture_row_query_now(oid),
  pgtrickle_internal.capture_truncates_whole(integer, boolean),
  pgtrickle_internal.capture_truncated_part(integer, regclass)
  to pgtrickle_capture;
-- What administrators reach with their own rights, by what they call.
grant execute on function pgtrickle_internal.capture_generate(integer) to pgtrickle_admin;
