-- adopt_outbox: an application's own table, read as an outbox.
--
-- Reading without skipping stands on what an INSERT does to any table: it locks the table, then
-- draws the id from the table's sequence, and keeps both locks until its commit is visible. So a
-- table whose ids nothing else provides is read like an outbox of ours. Nothing is installed on it,
-- and nothing is written to it. outbox_adopted_problem says what must hold; it is asked in each
-- step that reads.
--
-- The columns and the filter are the owner's. They are read as the owner, by a function in the gate
-- (010_gate.sql). Its actions (`until` and `first` are ids):
--   rows    {after, until, most, bytes}: the rows in order of id, with their times in op; then one
--           without row_data: the id up to which there are no further ones. Ids without rows
--           before the first one are free; behind it a step looks at 100,000 ids, so that it ends
--           soon where the filter matches nothing.
--   first   {after}: the first row that a step finds, or none
--   count   {after}: how many rows a step finds, with the id up to which it looked in row_data
--   ids     {after}: all ids beyond, as a multirange
--   marks   {ids}: rows by their ids, whether the filter wants them or not
--   edge    {after, marked}: in row_data whether there is a row up to an id, the first one beyond
--           it, whether one is between `marked` and the id, and the row `marked`
--   last    {after}: the last row up to an id, whether the filter wants it or not

-- ---------------------------------------------------------------------------------------------
-- What must hold

-- The sequence that a column draws its values from and nothing else: of an identity, or the owned
-- one of a default that is exactly nextval(). Null where there is none. Takes no lock on the table:
-- pg_get_expr would with the table's oid, which only expressions of columns need.
create or replace function pgtrickle_internal.outbox_adopted_sequence(rel oid, attnum smallint) returns oid
language plpgsql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
as $$
begin
  return (
    select s.oid
    from pg_attribute a
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid
      and d.refobjsubid = a.attnum and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    where a.attrelid = rel and a.attnum = outbox_adopted_sequence.attnum
      and case when a.attidentity <> '' then d.deptype = 'i'
               when a.attgenerated <> '' then false
               else pg_get_expr(f.adbin, 0)
                    = format('nextval(%L::regclass)', s.oid::regclass::text) end
    limit 1);
end $$;

-- What is wrong with the table itself, or with what its ids are drawn from, and what to do about
-- it; null: nothing is.
create or replace function pgtrickle_internal.outbox_adopted_problem(
  adopted pgtrickle_internal.outbox_adopted, reader text, out message text, out remedy text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  named constant text := format('%I.%I', adopted.schema_name, adopted.table_name);
  rel record;
  col record;
  seq record;
begin
  select c.*, n.nspname into rel
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = adopted.relation;
  if rel.oid is null then
    message := format('the table %s was dropped', named);
    remedy := 'disable_outbox() ends the outbox; adopt_outbox() then makes one of another table';
  elsif (rel.nspname, rel.relname) <> (adopted.schema_name::name, adopted.table_name::name) then
    message := format('the table %s is called %I.%I now', named, rel.nspname, rel.relname);
    remedy := 'rename it back, or call adopt_outbox() for it again, with the same name for the '
              'outbox';
  elsif rel.relkind <> 'r' then
    message := format('%s is %s', named, case rel.relkind
      when 'v' then 'a view' when 'm' then 'a materialized view' when 'f' then 'a foreign table'
      when 'p' then 'a partitioned table' else 'no table' end);
    remedy := 'adopt an ordinary table';
  elsif rel.relpersistence <> 'p' then
    message := format('%s is %s table: its rows do not survive', named,
                      case rel.relpersistence when 't' then 'a temporary' else 'an unlogged' end);
    remedy := format('ALTER TABLE %s SET LOGGED;', named);
    if rel.relpersistence = 't' then
      remedy := 'adopt an ordinary table';
    end if;
  elsif rel.relispartition
     or exists (select from pg_inherits i where rel.oid in (i.inhrelid, i.inhparent)) then
    message := format('%s is a partition, or part of an inheritance tree', named);
    remedy := 'adopt an ordinary table';
  elsif rel.relforcerowsecurity then
    message := format('row security of %s hides rows from its owner, as whom it is read', named);
    remedy := format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY;', named);
  elsif adopted.owner <> rel.relowner or pgtrickle_internal.gate_owner(reader) <> rel.relowner then
    -- (REASSIGN OWNED gives the function to the new owner together with the table.)
    message := format('%s belongs to %s now, and was adopted by %s', named, rel.relowner::regrole,
                      adopted.owner::regrole);
    remedy := 'let the new owner call adopt_outbox() again, with the same name for the outbox';
  elsif not has_schema_privilege(rel.relowner, rel.relnamespace, 'USAGE')
     or not has_table_privilege(rel.relowner, rel.oid, 'SELECT') then
    message := format('%s, the owner of %s, may not read it', rel.relowner::regrole, named);
    remedy := format('GRANT USAGE ON SCHEMA %I TO %s; GRANT SELECT ON %s TO %2$s;',
                     adopted.schema_name, rel.relowner::regrole, named);
  end if;
  if message is not null then
    return;
  end if;

  select k.name, a.attname, a.attisdropped, a.atttypid, k.type into col
  from unnest(adopted.columns, adopted.attnums, adopted.types) k (name, attnum, type)
  left join pg_attribute a on a.attrelid = rel.oid and a.attnum = k.attnum
  where a.attname is distinct from k.name::name or a.atttypid <> k.type
  limit 1;
  if found then
    message := format('the column %I of %s %s', col.name, named, case
      when col.attisdropped is not false then 'was dropped'
      when col.attname <> col.name::name then format('is called %I now', col.attname)
      else format('is of type %s now, not %s', format_type(col.atttypid, null),
                  format_type(col.type, null)) end);
    remedy := 'change it back, or call adopt_outbox() again, with the same name for the outbox';
    return;
  end if;

  select q.*, q.seqrelid::regclass as name into seq
  from pg_sequence q where q.seqrelid = adopted.sequence;
  if pgtrickle_internal.outbox_adopted_sequence(rel.oid, adopted.attnums[1])
       is distinct from adopted.sequence then
    message := format('the ids of %s come from another sequence than before, or from none', named);
    remedy := 'give the column its sequence back; or call disable_outbox(), then adopt_outbox(), '
              'which begin anew';
  elsif (select c.relpersistence from pg_class c where c.oid = seq.seqrelid) <> 'p' then
    message := format('the sequence %s of %s is unlogged: a crash of the server sets it back, and '
                      'rows would be skipped', seq.name, named);
    remedy := format('ALTER SEQUENCE %s SET LOGGED;', seq.name);
  elsif seq.seqcache <> 1 then
    message := format('the sequence %s of %s gives ids out in advance (CACHE %s): rows would be '
                      'skipped', seq.name, named, seq.seqcache);
    -- It waits for all who have drawn ids, and sessions discard those that they hold.
    remedy := format('ALTER SEQUENCE %s CACHE 1;', seq.name);
  elsif seq.seqincrement <> 1 or seq.seqcycle or seq.seqmin < 1 then
    message := format('the sequence %s of %s does not count 1, 2, 3: rows would be skipped',
                      seq.name, named);
    remedy := format('ALTER SEQUENCE %s INCREMENT 1 MINVALUE 1 NO CYCLE;', seq.name);
  elsif not adopted.trust_ids and exists (
      select from pg_attribute a
      where a.attrelid = rel.oid and a.attnum = adopted.attnums[1] and a.attidentity <> 'a') then
    message := format('an INSERT may bring its own %I of %s: a row whose id was passed already '
                      'would be skipped', adopted.columns[1], named);
    remedy := format('ALTER TABLE %s ALTER COLUMN %I SET GENERATED ALWAYS (a serial column is '
                     'first given an identity in place of its default); or pass trust_ids => true '
                     'where no application ever names the column', named, adopted.columns[1]);
  elsif not exists (
      select from pg_index i
      where i.indrelid = rel.oid and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = adopted.attnums[1]) then
    message := format('%s has no unique index on %I', named, adopted.columns[1]);
    remedy := format('CREATE UNIQUE INDEX CONCURRENTLY ON %s (%I);', named, adopted.columns[1]);
  elsif reader is not null
    and not has_sequence_privilege('pgtrickle_relay', adopted.sequence, 'SELECT') then
    message := format('the relay may not read the sequence %s of %s', seq.name, named);
    remedy := format('GRANT SELECT ON SEQUENCE %s TO pgtrickle_owner, pgtrickle_relay;', seq.name);
  elsif exists (select from pg_subscription_rel s where s.srrelid = rel.oid) then
    message := format('%s is filled by a subscription, with ids of another server', named);
    remedy := 'adopt the table on that server';
  end if;
end $$;

-- Raises where the table can not be read without skipping rows. For pgtrickle_owner only.
create or replace function pgtrickle_internal.outbox_adopted_require(
  adopted pgtrickle_internal.outbox_adopted, outbox pgtrickle_internal.outbox_config) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  problem record;
begin
  select * into problem from pgtrickle_internal.outbox_adopted_problem(adopted, outbox.reader);
  if problem.message is not null then
    raise exception 'outbox "%": %', outbox.stream_table_name, problem.message
      using errcode = 'object_not_in_prerequisite_state', hint = problem.remedy;
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- The function that reads

-- One column as text, by the output function of its type.
create or replace function pgtrickle_internal.outbox_adopted_text(named text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when named is null then 'null::text'
              else format('case when t.%1$I is not null then format(''%%s'', t.%1$I) end', named)
         end;
$$;

-- A row as one jsonb value: {"payload", "headers", "key", "type"}.
create or replace function pgtrickle_internal.outbox_adopted_row_sql(rel oid, reads jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  has_json boolean;
  payload text := 'null::jsonb';
  headers text := 'null::jsonb';
  col record;
begin
  has_json := exists (
    select from pg_attribute a cross join lateral pgtrickle_json.kind(a.atttypid) k
    where a.attrelid = any (rel || pgtrickle_json.parts(rel)) and a.attnum > 0
      and not a.attisdropped and k.kind = 'json');
  for col in
    select k.role, pgtrickle_json.value_sql(a.atttypid, format('t.%I', a.attname)) as written
    from (values ('payload'), ('headers')) k (role)
    join pg_attribute a on a.attrelid = rel and a.attname = reads ->> k.role and a.attnum > 0
  loop
    if col.role = 'payload' then
      payload := col.written;
    else
      headers := col.written;
    end if;
  end loop;
  if reads ->> 'payload' is null then
    payload := pgtrickle_json.row_sql(rel, 't', 't.*');
  end if;
  return format('(select %s from (select %s as payload, %s as headers, %s as key, %s as type) r)',
                case when has_json then 'pgtrickle_json.careful(r.*)'
                     else pgtrickle_json.plain_row_sql('r.*', false) end,
                payload, headers, pgtrickle_internal.outbox_adopted_text(reads ->> 'key'),
                pgtrickle_internal.outbox_adopted_text(reads ->> 'type'));
end $$;

-- When a row was created, as text; a time without a zone is one of UTC.
create or replace function pgtrickle_internal.outbox_adopted_time_sql(rel oid, column_name text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select format(case when a.atttypid <> 'timestamp'::regtype then 't.%I::text'
                                      else '(t.%I at time zone ''UTC'')::text' end, a.attname)
                   from pg_attribute a where a.attrelid = rel and a.attname = column_name),
                  'null::text');
$$;

-- The condition of a filter: {"column": value}, where the value may be null or a list of values.
create or replace function pgtrickle_internal.outbox_adopted_filter_sql(filter jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg('(' || (
           select coalesce(string_agg(
                    case when v = 'null' then format('t.%I is null', f.name)
                         else format('t.%I = %L', f.name, v #>> '{}') end,
                    ' or ' order by n), 'false')
           from jsonb_array_elements(case jsonb_typeof(f.value) when 'array' then f.value
                                          else jsonb_build_array(f.value) end)
                  with ordinality l (v, n)) || ')', ' and ' order by f.name), 'true')
  from jsonb_each(filter) f (name, value);
$$;

-- The body of the function. The block has a label, so that no column has the name of a variable.
create or replace function pgtrickle_internal.outbox_adopted_body(rel oid, reads jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return format($body$
#variable_conflict use_column
<<step>>
declare
  row_security_was constant text := current_setting('row_security');
  after constant bigint := (arg ->> 'after')::bigint;
  until bigint := coalesce((arg ->> 'until')::bigint, 9223372036854775807);
  most constant bigint := (arg ->> 'most')::bigint;
  room constant bigint := (arg ->> 'bytes')::bigint;
  marked constant bigint := (arg ->> 'marked')::bigint;
  wanted bigint[];
  first bigint;
  taken bigint := 0;
  bytes bigint := 0;
  one record;
begin
  -- Where policies apply, an error, not fewer rows.
  perform set_config('row_security', 'off', true);
  if action in ('rows', 'first', 'count') then
    step.first := (select t.%1$s from only %2$s t where t.%1$s > step.after
                   order by t.%1$s limit 1);
    if step.first is not null then
      step.until := step.first - 1 + least(step.until - step.first + 1, 100000);
    end if;
  end if;
  case action
    when 'rows' then
      for one in
        select t.%1$s::bigint as id, %5$s as at, %3$s as j from only %2$s t
        where t.%1$s > step.after and t.%1$s <= step.until and %4$s order by t.%1$s
      loop
        op := one.at;
        ord := one.id;
        row_data := one.j;
        return next;
        taken := taken + 1;
        bytes := bytes + pg_column_size(one.j);
        if taken >= most or bytes >= room then
          until := one.id;
          exit;
        end if;
      end loop;
      op := null;
      ord := until;
      row_data := null;
      return next;
    when 'first' then
      ord := (select t.%1$s from only %2$s t
              where t.%1$s > step.after and t.%1$s <= step.until and %4$s
              order by t.%1$s limit 1);
      return next;
    when 'count' then
      ord := (select count(*) from only %2$s t
              where t.%1$s > step.after and t.%1$s <= step.until and %4$s);
      row_data := to_jsonb(until);
      return next;
    when 'ids' then
      row_data := (select to_jsonb(range_agg(int8range(t.%1$s, t.%1$s + 1::bigint))::text)
                   from only %2$s t where t.%1$s > step.after and %4$s);
      return next;
    when 'marks' then
      wanted := array(select w::bigint from jsonb_array_elements_text(arg -> 'ids') w);
      return query select null::text, t.%1$s::bigint, %3$s from only %2$s t
                   where t.%1$s = any (step.wanted) order by t.%1$s;
    when 'edge' then
      row_data := jsonb_build_object(
        'before', exists (select from only %2$s t where t.%1$s <= step.after),
        'first', (select t.%1$s from only %2$s t where t.%1$s > step.after
                  order by t.%1$s limit 1),
        'between', exists (select from only %2$s t
                           where t.%1$s > step.marked and t.%1$s <= step.after),
        'row', (select %3$s from only %2$s t where t.%1$s = step.marked));
      return next;
    when 'last' then
      return query select null::text, t.%1$s::bigint, %3$s from only %2$s t
                   where t.%1$s <= step.after order by t.%1$s desc limit 1;
  end case;
  perform set_config('row_security', row_security_was, true);
end
$body$,
    quote_ident(reads ->> 'id'), pgtrickle_internal.qualified(rel),
    pgtrickle_internal.outbox_adopted_row_sql(rel, reads),
    pgtrickle_internal.outbox_adopted_filter_sql(reads -> 'filter'),
    pgtrickle_internal.outbox_adopted_time_sql(rel, reads ->> 'created_at'));
end $$;

-- Calls that function. For pgtrickle_owner only.
create or replace function pgtrickle_internal.outbox_adopted_step(
  adopted pgtrickle_internal.outbox_adopted, outbox pgtrickle_internal.outbox_config, action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql volatile set search_path = pg_catalog, pg_temp
  -- As capture writes values: see pgtrickle_json._settings_known().
  set array_nulls = on set bytea_output = hex set DateStyle = ISO set extra_float_digits = 1
  set IntervalStyle = postgres set lc_monetary = 'C' set quote_all_identifiers = off
  set TimeZone = 'UTC'
as $$
begin
  return query
    select g.op, g.ord, g.row_data
    from pgtrickle_internal.gate_step(
      outbox.reader, pgtrickle_internal.gate_owner(outbox.reader),
      format('the adopted outbox of %I.%I', adopted.schema_name, adopted.table_name),
      action, arg) g;
end $$;

-- ---------------------------------------------------------------------------------------------
-- adopt_outbox

-- Raises where the caller may not adopt the table. Returns the description of what is adopted.
create or replace function pgtrickle_internal.outbox_adopted_describe(rel regclass, reads jsonb,
                                                       trust_ids boolean)
returns pgtrickle_internal.outbox_adopted
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  adopted pgtrickle_internal.outbox_adopted;
  source record;
  col record;
begin
  select c.*, n.nspname into source
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel;
  if source.oid is null then
    raise exception 'there is no such table' using errcode = 'undefined_table';
  elsif not pgtrickle_internal.has_owners_rights(rel) then
    raise exception 'must be owner of table %', rel
      using errcode = 'insufficient_privilege', hint = 'An outbox is read as the table''s owner.';
  elsif source.nspname in ('pg_catalog', 'information_schema') or source.nspname like E'pg\\_toast%'
     or source.nspname ~ '^pgtrickle(_|$)' then
    raise exception '% is a table of the system', rel using errcode = 'wrong_object_type';
  end if;
  for col in
    select d.role, d.name, a.attnum, a.atttypid, k.leaf, k.is_array, t.typtype, a.attgenerated
    from (select e.key, e.value from jsonb_each_text(reads - 'filter') e
          where e.value is not null
          union all
          select 'filter', f from jsonb_object_keys(reads -> 'filter') f) d (role, name)
    left join pg_attribute a
      on a.attrelid = rel and a.attname = d.name and a.attnum > 0 and not a.attisdropped
    left join lateral pgtrickle_json.kind(a.atttypid) k on a.attnum is not null
    left join pg_type t on t.oid = k.leaf
    order by d.role <> 'id', d.role, d.name
  loop
    if col.attnum is null then
      raise exception '% has no column "%"', rel, col.name
        using errcode = 'undefined_column', hint = format('Say which column is the %s.', col.role);
    elsif col.role = 'id' and col.atttypid not in ('int8'::regtype, 'int4'::regtype) then
      raise exception 'column "%" of % is of type %, not bigint or integer', col.name, rel,
          format_type(col.atttypid, null)
        using errcode = 'datatype_mismatch',
              hint = 'The id must be drawn from a sequence of the column.';
    elsif col.role = 'headers' and col.atttypid not in ('jsonb'::regtype, 'json'::regtype) then
      raise exception 'column "%" of % is of type %, not jsonb or json', col.name, rel,
          format_type(col.atttypid, null)
        using errcode = 'datatype_mismatch', hint = 'Headers are a JSON object.';
    elsif col.role = 'created_at'
      and col.atttypid not in ('timestamptz'::regtype, 'timestamp'::regtype) then
      raise exception 'column "%" of % is of type %, not a timestamp', col.name, rel,
          format_type(col.atttypid, null)
        using errcode = 'datatype_mismatch', hint = 'Leave created_at out.';
    elsif col.role = 'filter' and (col.is_array or col.typtype = 'c'
                                   or (col.leaf >= 16384 and col.typtype <> 'e')) then
      raise exception 'column "%" of % is of type %, by which rows cannot be chosen', col.name, rel,
          format_type(col.atttypid, null)
        using errcode = 'datatype_mismatch',
              hint = 'A filter compares columns of PostgreSQL''s own types, and enums.';
    end if;
    adopted.columns := adopted.columns || col.name;
    adopted.attnums := adopted.attnums || col.attnum;
    adopted.types := adopted.types || col.atttypid;
  end loop;
  adopted.relation := rel;
  adopted.owner := source.relowner;
  adopted.schema_name := source.nspname;
  adopted.table_name := source.relname;
  adopted.trust_ids := trust_ids;
  adopted.definition := reads;
  adopted.sequence := pgtrickle_internal.outbox_adopted_sequence(rel, adopted.attnums[1]);
  if adopted.sequence is null and source.relkind = 'r' then
    raise exception 'column "%" of % does not draw its values from a sequence of its own',
        adopted.columns[1], rel
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('Rows whose ids come from elsewhere may be skipped. '
                          'ALTER TABLE %s ADD COLUMN outbox_id bigint GENERATED ALWAYS AS IDENTITY '
                          'UNIQUE makes one: adopt it with id => ''outbox_id''.', rel);
  end if;
  return adopted;
end $$;

-- Stores an adopted outbox; `number` is that of one that is adopted again, else null. It cannot see
-- its caller, so the owner of the table must have said in this transaction, by a comment that no
-- other role can write, that the function reads it.
create or replace function pgtrickle_internal.outbox_adopted_store(
  number int, name text, adopted pgtrickle_internal.outbox_adopted, reader text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  made int := number;
  outbox_name text;
  attempt int := 0;
begin
  if obj_description(to_regprocedure(format('pgtrickle_streams.%I(text, jsonb)', reader)),
                     'pg_proc') is distinct from pgtrickle_internal.outbox_mark()
     or pgtrickle_internal.gate_owner(reader) is distinct from (select c.relowner from pg_class c
                                                                where c.oid = adopted.relation) then
    raise exception 'must be owner of table %', adopted.relation::regclass
      using errcode = 'insufficient_privilege';
  end if;
  -- What the caller says is looked up again: it may be another owner's.
  select c.relowner, c.relname, n.nspname,
         pgtrickle_internal.outbox_adopted_sequence(c.oid, adopted.attnums[1])
  into strict adopted.owner, adopted.table_name, adopted.schema_name, adopted.sequence
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = adopted.relation;
  perform pgtrickle_internal.lock('outboxes');
  if made is null and exists (select from pgtrickle.relay_resolve_outbox(name)) then
    raise exception 'there is already an outbox "%"', name
      using errcode = 'duplicate_object', hint = 'Give this one another name.';
  elsif made is null then
    outbox_name := pgtrickle_internal.cut_to_bytes('adopted_' || name, 63);
    while exists (select from pgtrickle_internal.outbox_config c where c.outbox_table_name = outbox_name)
       or to_regclass(format('pgtrickle.%I', outbox_name)) is not null loop
      outbox_name := pgtrickle_internal.cut_to_bytes('adopted_' || name, 55) || '_'
        || left(md5(name || attempt::text), 7);
      attempt := attempt + 1;
    end loop;
    insert into pgtrickle_internal.outbox_config (
      stream_table_name, outbox_table_name, outbox_oid, outbox_sequence, latest_view_name, kind,
      capture, retention_hours, reader, first_key_columns)
    values (name, outbox_name, adopted.relation, adopted.sequence::text, outbox_name, 'adopted',
            'adopted', 0, outbox_adopted_store.reader, '{}')
    returning outbox_number into made;
  else
    if not exists (select from pgtrickle_internal.outbox_adopted k
                   where k.outbox_number = made and k.relation = adopted.relation
                     and k.attnums[1] = adopted.attnums[1] and k.sequence = adopted.sequence) then
      raise exception 'outbox "%" is of another table, or of another id', name
        using errcode = 'duplicate_object',
              hint = format('SELECT pgtrickle.disable_outbox(%L); ends it. Pipelines begin the new '
                            'one anew.', name);
    end if;
    update pgtrickle_internal.outbox_config c set reader = outbox_adopted_store.reader
    where c.outbox_number = made;
    delete from pgtrickle_internal.outbox_adopted k where k.outbox_number = made;
  end if;
  adopted.outbox_number := made;
  insert into pgtrickle_internal.outbox_adopted select adopted.*;
  return made;
end $$;

create or replace function pgtrickle.adopt_outbox(
  "table" regclass, name text default null, id text default 'id', payload text default 'payload',
  key text default null, type text default null, headers text default null,
  created_at text default null, filter jsonb default null, trust_ids boolean default false)
returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  adopted pgtrickle_internal.outbox_adopted;
  outbox pgtrickle_internal.outbox_config;
  owner oid;
  reader text;
  former text;
begin
  if jsonb_typeof(filter) <> 'object' or exists (
      select from jsonb_each(filter) f (k, v)
      cross join lateral jsonb_array_elements(case jsonb_typeof(f.v) when 'array' then f.v
                                                   else jsonb_build_array(f.v) end) e (v)
      where jsonb_typeof(e.v) in ('object', 'array')) then
    raise exception 'filter must be an object of columns and their values'
      using errcode = 'invalid_parameter_value', hint = 'For example {"outbox_name": "orders"}.';
  end if;
  adopted := pgtrickle_internal.outbox_adopted_describe("table", jsonb_build_object(
    'id', id, 'payload', payload, 'key', key, 'type', type, 'headers', headers,
    'created_at', created_at, 'filter', coalesce(filter, '{}')), coalesce(trust_ids, false));
  name := coalesce(name, adopted.table_name);
  if name = '' then
    raise exception 'an outbox needs a name' using errcode = 'invalid_parameter_value';
  end if;
  select * into outbox from pgtrickle.relay_resolve_outbox(name);
  if outbox.kind <> 'adopted' then
    raise exception 'there is already an outbox "%"', name
      using errcode = 'duplicate_object', hint = 'Give this one another name.';
  end if;
  owner := (select c.relowner from pg_class c where c.oid = "table");
  former := outbox.reader;
  reader := pgtrickle_internal.gate_name('adopted');
  perform pgtrickle_internal.outbox_adopted_refuse(adopted);

  perform pgtrickle_internal.gate_function(reader, owner,
                                           pgtrickle_internal.outbox_adopted_body("table", adopted.definition));
  execute format('comment on function pgtrickle_streams.%I(text, jsonb) is %L', reader,
                 pgtrickle_internal.outbox_mark());
  perform pgtrickle_internal.outbox_adopted_store(outbox.outbox_number, name, adopted, reader);
  execute format('comment on function pgtrickle_streams.%I(text, jsonb) is null', reader);
  execute format('grant select on sequence %s to pgtrickle_owner, pgtrickle_relay',
                 pgtrickle_internal.qualified(adopted.sequence));
  if former <> reader then
    perform pgtrickle_internal.gate_drop(former);
  end if;
  -- Whatever the owner's columns and filter have against being read is said now.
  perform pgtrickle_internal.outbox_adopted_try(name);
  return name;
end $$;
comment on function pgtrickle.adopt_outbox(regclass, text, text, text, text, text, text, text,
                                           jsonb, boolean) is
  'Reads a table of an application as an outbox; nothing is written to the table';

-- Raises what keeps a table from being adopted.
create or replace function pgtrickle_internal.outbox_adopted_refuse(adopted pgtrickle_internal.outbox_adopted)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  problem record;
begin
  select * into problem from pgtrickle_internal.outbox_adopted_problem(adopted, null);
  if problem.message is not null then
    raise exception '%', problem.message
      using errcode = 'object_not_in_prerequisite_state', hint = problem.remedy;
  end if;
end $$;

-- Reads one row of an adopted outbox, and shows nothing of it. Raises where the table has rows that
-- its sequence did not number: positions would be ahead of the sequence.
create or replace function pgtrickle_internal.outbox_adopted_try(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox constant pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(name);
  adopted pgtrickle_internal.outbox_adopted;
  beyond bigint;
begin
  select * into strict adopted from pgtrickle_internal.outbox_adopted k
  where k.outbox_number = outbox.outbox_number;
  perform pgtrickle_internal.outbox_adopted_require(adopted, outbox);
  beyond := (select (g.row_data ->> 'first')::bigint
             from pgtrickle_internal.outbox_adopted_step(
               adopted, outbox, 'edge',
               jsonb_build_object('after', pgtrickle_internal.last_drawn(adopted.sequence))) g limit 1);
  if beyond > pgtrickle_internal.last_drawn(adopted.sequence) then
    raise exception 'a row of %.% has the %, %, which its sequence has not given out yet',
        quote_ident(adopted.schema_name), quote_ident(adopted.table_name), adopted.columns[1],
        beyond
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('SELECT setval(%L, (SELECT max(%I) FROM %I.%I));',
                          pgtrickle_internal.qualified(adopted.sequence), adopted.columns[1],
                          adopted.schema_name, adopted.table_name);
  end if;
  perform from pgtrickle_internal.outbox_adopted_step(adopted, outbox, 'rows',
                                       '{"after": 0, "most": 1, "bytes": 1}');
end $$;

-- Ends an adopted outbox. The table's owner must have said that (see outbox_adopted_store), unless
-- the function that reads the table is gone.
create or replace function pgtrickle_internal.outbox_adopted_drop(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.outbox_number = number and c.kind = 'adopted';
  if obj_description(to_regprocedure(format('pgtrickle_streams.%I(text, jsonb)', outbox.reader)),
                     'pg_proc') is distinct from pgtrickle_internal.outbox_mark()
     and pgtrickle_internal.gate_owner(outbox.reader) is not null then
    raise exception 'must be owner of the table of outbox "%"', outbox.stream_table_name
      using errcode = 'insufficient_privilege';
  end if;
  delete from pgtrickle_internal.outbox_config c where c.outbox_number = number;
end $$;

-- disable_outbox of an adopted outbox.
create or replace function pgtrickle_internal.outbox_adopted_disable(outbox pgtrickle_internal.outbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  owner constant oid := pgtrickle_internal.gate_owner(outbox.reader);
  drawn_from constant oid := (select k.sequence from pgtrickle_internal.outbox_adopted k
                              where k.outbox_number = outbox.outbox_number);
begin
  if not pg_has_role(owner, 'USAGE') then
    raise exception 'must be owner of the table of outbox "%"', outbox.stream_table_name
      using errcode = 'insufficient_privilege';
  elsif owner is not null then
    execute format('comment on function pgtrickle_streams.%I(text, jsonb) is %L', outbox.reader,
                   pgtrickle_internal.outbox_mark());
  end if;
  perform pgtrickle_internal.outbox_adopted_drop(outbox.outbox_number);
  perform pgtrickle_internal.gate_drop(outbox.reader);
  if exists (select from pg_class s where s.oid = drawn_from and s.relkind = 'S'
             and pg_has_role(s.relowner, 'USAGE'))
     and not exists (select from pgtrickle_internal.outbox_adopted k where k.sequence = drawn_from) then
    execute format('revoke select on sequence %s from pgtrickle_owner, pgtrickle_relay',
                   pgtrickle_internal.qualified(drawn_from));
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- What the relay reads

-- An adopted outbox by its incarnation, where its table can be read without skipping rows; an error
-- otherwise.
create or replace function pgtrickle_internal.outbox_adopted_open(
  incarnation uuid, out outbox pgtrickle_internal.outbox_config, out adopted pgtrickle_internal.outbox_adopted)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  select c.* into outbox from pgtrickle_internal.outbox_config c
  where c.incarnation = outbox_adopted_open.incarnation and c.kind = 'adopted';
  select k.* into adopted from pgtrickle_internal.outbox_adopted k
  where k.outbox_number = outbox.outbox_number;
  if adopted.outbox_number is null then
    raise exception 'there is no adopted outbox of incarnation %', incarnation
      using errcode = 'undefined_object', hint = 'Resolve the outbox again: it was made anew.';
  end if;
  perform pgtrickle_internal.outbox_adopted_require(adopted, outbox);
end $$;

-- The mark of a row: a digest of what is sent. It tells a row from another one that has its id
-- after a failover, and is a part of message ids.
create or replace function pgtrickle_internal.outbox_adopted_mark(id bigint, row_data jsonb)
returns uuid language sql immutable set search_path = pg_catalog, pg_temp
as $$ select md5(concat(id, ' ', row_data::text))::uuid $$;

-- The rows of an adopted outbox with after < id <= until, as those of an outbox of events: at most
-- `most`, and not many more bytes than `bytes`. Their pgt_id is the mark.
-- The last one, with the highest id and without pgt_id, is no row: it says up to which id there are
-- no others, and in event_key of which history that is true (see outbox_adopted_judge). Without it
-- the history has just changed, and the position must be looked at (relay_adopted_look).
-- `passed` and `mark` are the row that the caller has read last: an error where another row has its
-- id now. `known` is the history that the caller has read until now; null: any.
create or replace function pgtrickle.relay_adopted_rows(
  incarnation uuid, after bigint, until bigint, most bigint, bytes bigint default 8388608,
  passed bigint default null, mark uuid default null, known text default null)
returns table (id bigint, pgt_id uuid, created_at timestamptz, payload jsonb, headers jsonb,
               event_type text, event_key text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  -- The relay's sessions plan each statement again, which would take longer than everything else.
  set plan_cache_mode = force_generic_plan set lock_timeout = '1s'
as $$
#variable_conflict use_variable
declare
  a record;
  judged record;
  history text;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  history := pgtrickle_internal.outbox_adopted_history(a.adopted);
  if known <> history then
    select * into judged from pgtrickle_internal.outbox_adopted_judge(
      a.adopted, a.outbox, after, passed, mark, false, known);
    if judged.rewound is not null or judged.lost > 0 or judged.undecided then
      return;
    end if;
    history := judged.history;
  end if;
  return query
    select g.ord,
           case when g.row_data is not null
                then pgtrickle_internal.outbox_adopted_mark(g.ord, g.row_data) end,
           case when g.row_data is not null then coalesce(g.op::timestamptz, 'infinity') end,
           case when g.row_data -> '__pgtrickle_omitted' @> '["payload"]'
                then '{"__pgtrickle_omitted": ["*"]}' else g.row_data -> 'payload' end,
           case jsonb_typeof(g.row_data -> 'headers') when 'object' then g.row_data -> 'headers'
                end,
           g.row_data ->> 'type',
           case when g.row_data is null then history else g.row_data ->> 'key' end
    from pgtrickle_internal.outbox_adopted_step(
      a.adopted, a.outbox, 'rows', jsonb_build_object(
        'after', after, 'until', until, 'most', most, 'bytes', bytes)) g
    where g.ord > after and g.ord <= until;
  -- Looked at behind the rows: what is there now was there, or was not yet another one, when they were
  -- read.
  if exists (select from pgtrickle_internal.outbox_adopted_step(
               a.adopted, a.outbox, 'marks', jsonb_build_object('ids', jsonb_build_array(passed))) g
             where mark is not null and g.ord = passed
               and pgtrickle_internal.outbox_adopted_mark(g.ord, g.row_data) <> mark) then
    raise exception 'outbox "%" was rewound: row % is not the one that was passed',
        (a.outbox).stream_table_name, passed
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Resume the pipeline with --accept-loss: it delivers everything that the table '
                   'holds.';
  elsif known is not null
    and (pgtrickle_internal.last_drawn((a.adopted).sequence) < after
         or pgtrickle_internal.outbox_adopted_history(a.adopted) <> history) then
    raise exception 'the table of outbox "%" was changed while it was read',
        (a.outbox).stream_table_name
      using errcode = 'serialization_failure';
  end if;
end $$;
comment on function pgtrickle.relay_adopted_rows(uuid, bigint, bigint, bigint, bigint, bigint,
                                                 uuid, text) is
  'For the relay: rows of an adopted outbox, read as the owner of its table';

-- The first row of an adopted outbox that a reading step behind an id finds; 0: none.
create or replace function pgtrickle.relay_adopted_first(incarnation uuid, after bigint)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan set lock_timeout = '1s'
as $$
declare
  a record;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  return coalesce((select g.ord from pgtrickle_internal.outbox_adopted_step(
                     a.adopted, a.outbox, 'first', jsonb_build_object('after', after)) g
                   where g.ord > after limit 1), 0);
end $$;
comment on function pgtrickle.relay_adopted_first(uuid, bigint) is
  'For the relay: the first row of an adopted outbox behind an id';

-- How many rows of an adopted outbox come behind an id: counted as far as a step reads, beyond that
-- every id is taken for a row. Nothing is known of a table that cannot be read.
create or replace function pgtrickle.relay_adopted_count(
  incarnation uuid, after bigint, out rows bigint, out exact boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan set lock_timeout = '1s'
as $$
declare
  a record;
  newest bigint;
  counted record;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  -- Locks the table before the sequence, as TRUNCATE does.
  select g.ord, (g.row_data #>> '{}')::bigint as until into counted
  from pgtrickle_internal.outbox_adopted_step(a.adopted, a.outbox, 'count',
                               jsonb_build_object('after', after)) g limit 1;
  newest := pgtrickle_internal.last_drawn((a.adopted).sequence);
  rows := counted.ord + greatest(newest - counted.until, 0);
  exact := newest <= counted.until;
exception when others then
  rows := greatest(coalesce(newest, after) - after, 0);
  exact := false;
end $$;
comment on function pgtrickle.relay_adopted_count(uuid, bigint) is
  'For the relay: how many rows of an adopted outbox come behind an id';

-- ---------------------------------------------------------------------------------------------
-- Whether a position still means what it meant
--
-- A position says that every row up to an id, `passed`, was delivered, or is not wanted, or will
-- never be there. That holds while the table keeps its history: while its sequence is not set back.
-- Rows may be deleted at any time. By two things a history is known again:
--   marked, mark  the row that was the last one up to `passed`, and its digest (0 and null: there
--                 was none). No row up to `passed` can come any more. So a row between `marked` and
--                 `passed` is one of another history, and so is another row with the id `marked`.
--   history       the files of the table and of its sequence. TRUNCATE, VACUUM FULL, CLUSTER and
--                 forms of ALTER TABLE give the table a new one. TRUNCATE RESTART IDENTITY and most
--                 forms of ALTER SEQUENCE give the sequence a new one. setval does not, nor does a
--                 failover.
-- A sequence that stands before `passed` was set back. Beyond that, a new file says only that the
-- table must be looked at:
--   - The row `marked` is there, and the same: the history is the same, and nothing was truncated.
--   - The table is new, and rows up to `passed` are there: it was not truncated.
--   - The table is new, and no such rows are there: it was written anew, or truncated. The ids
--     between `passed` and the first row behind it are those of rows that may have been truncated.
--     If there are no such ids, nothing is lost in either case.
--   - The sequence is new: if it was restarted and has counted beyond `passed` again, the rows up
--     to `passed` would be skipped. If there are none, nothing is skipped.
--   - Both are new: this is taken for a TRUNCATE ... RESTART IDENTITY.
-- In doubt the pipeline stops.

create or replace function pgtrickle_internal.outbox_adopted_history(
  adopted pgtrickle_internal.outbox_adopted) returns text
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select concat(pg_relation_filenode(adopted.relation), '/', pg_relation_filenode(adopted.sequence))
$$;

-- rewound: why ids up to `passed` may be those of other rows now. lost: how many rows behind
-- `passed` may have been truncated. undecided: to be asked again when open transactions have ended.
-- history: the one that was looked at. `last`: `marked` was the last row up to `passed`, wanted or
-- not. For pgtrickle_owner only.
create or replace function pgtrickle_internal.outbox_adopted_judge(
  adopted pgtrickle_internal.outbox_adopted, outbox pgtrickle_internal.outbox_config,
  passed bigint, marked bigint, mark uuid, last boolean, known text,
  out rewound text, out lost bigint, out undecided boolean, out history text)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  asked constant jsonb := jsonb_build_object('after', passed, 'marked', marked);
  edge jsonb;
  newest bigint;
  mark_now uuid;
  table_is_new boolean;
  sequence_is_new boolean;
  is_written_to boolean;
begin
  lost := 0;
  undecided := false;
  -- Locks the table before the sequence, as TRUNCATE does; then both keep their files.
  edge := (select g.row_data
           from pgtrickle_internal.outbox_adopted_step(adopted, outbox, 'edge', asked) g limit 1);
  newest := pgtrickle_internal.last_drawn(adopted.sequence);
  history := pgtrickle_internal.outbox_adopted_history(adopted);
  if jsonb_typeof(edge -> 'row') = 'object' then
    mark_now := pgtrickle_internal.outbox_adopted_mark(marked, edge -> 'row');
  end if;
  if newest < passed then
    rewound := format('its newest id is %s, and %s was passed', newest, passed);
  elsif mark_now <> mark then
    rewound := format('row %s is not the one that was passed', marked);
  elsif last and (edge ->> 'between')::boolean then
    rewound := format('a row between %s and %s is there that was not there when they were passed',
                      marked, passed);
  end if;
  if rewound is not null or known is null or known = history or mark_now = mark then
    return;
  end if;
  table_is_new := split_part(known, '/', 1) <> split_part(history, '/', 1);
  sequence_is_new := split_part(known, '/', 2) <> split_part(history, '/', 2);
  -- What open transactions have written is not to be seen yet. They are looked for before the rows.
  is_written_to := exists (select from pgtrickle.relay_open_writers(adopted.relation));
  edge := (select g.row_data
           from pgtrickle_internal.outbox_adopted_step(adopted, outbox, 'edge', asked) g limit 1);
  if sequence_is_new and (table_is_new or (edge ->> 'before')::boolean) then
    rewound := 'its sequence was restarted or altered, and the last row that was passed is gone';
  elsif sequence_is_new then
    undecided := is_written_to;
  elsif not (edge ->> 'before')::boolean then
    lost := greatest(coalesce((edge ->> 'first')::bigint, newest + 1) - passed - 1, 0);
    undecided := is_written_to and lost > 0;
  end if;
end $$;

-- What the relay must know of a position when it begins to read, or has lost a session: as
-- outbox_adopted_judge. `passed` and `passed_mark` are the row that it has read last, `frontier`
-- the id up to which it has passed, and `known` the history: they count where they are ahead of
-- what is stored. `marked` and `mark` are then of the row by which it goes on.
create or replace function pgtrickle.relay_adopted_look(
  relay_group text, pipeline text, incarnation uuid, passed bigint, passed_mark uuid,
  frontier bigint, known text, out up_to bigint, out marked bigint, out mark uuid,
  out stored_history text, out history text, out newest bigint, out rewound text, out lost bigint,
  out undecided boolean, out skipped_are_there boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan set lock_timeout = '1s'
as $$
#variable_conflict use_variable
declare
  a record;
  stored pgtrickle.relay_consumer_offsets;
  judged record;
  is_stored boolean;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  select * into stored from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_adopted_look.incarnation;
  is_stored := coalesce(greatest(passed, frontier) <= stored.last_change_id, false);
  if is_stored then
    up_to := stored.last_change_id;
    marked := coalesce(stored.marked_id, stored.last_change_id);
    mark := stored.last_pgt_id;
    known := stored.history;
  else
    up_to := greatest(passed, frontier);
    marked := passed;
    mark := passed_mark;
  end if;
  stored_history := stored.history;
  select * into judged from pgtrickle_internal.outbox_adopted_judge(
    a.adopted, a.outbox, up_to, marked, mark, is_stored and stored.marked_id is not null, known);
  history := judged.history;
  rewound := judged.rewound;
  lost := judged.lost;
  undecided := judged.undecided;
  newest := pgtrickle_internal.last_drawn((a.adopted).sequence);
  -- The application may have deleted them.
  skipped_are_there := stored.skipped is null or stored.skipped_mark is null
    or (newest >= upper(stored.skipped) - 1
        and not exists (
          select from pgtrickle_internal.outbox_adopted_step(
            a.adopted, a.outbox, 'marks',
            jsonb_build_object('ids', jsonb_build_array(upper(stored.skipped) - 1))) g
          where g.ord = upper(stored.skipped) - 1
            and pgtrickle_internal.outbox_adopted_mark(g.ord, g.row_data) <> stored.skipped_mark));
end $$;
comment on function pgtrickle.relay_adopted_look(text, text, uuid, bigint, uuid, bigint, text) is
  'For the relay: whether a position in an adopted outbox still means what it meant';

-- Moves a position in an adopted outbox forward, and stores by what its history is known again:
-- with the mark of the row `change_id`, which is not read again; without a mark the last row up to
-- there is looked up. Null: the sequence was set back. False: the caller is no longer the owner. A
-- position that is not ahead changes nothing and is true.
create or replace function pgtrickle.relay_adopted_commit(
  relay_group text, pipeline text, incarnation uuid, owner_token uuid, change_id bigint, mark uuid,
  history text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan set lock_timeout = '1s'
as $$
#variable_conflict use_variable
declare
  a record;
  found_id bigint;
  found_mark uuid;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  if mark is null then
    select g.ord, pgtrickle_internal.outbox_adopted_mark(g.ord, g.row_data)
    into found_id, found_mark
    from pgtrickle_internal.outbox_adopted_step(
      a.adopted, a.outbox, 'last', jsonb_build_object('after', change_id)) g
    where g.ord <= change_id limit 1;
  end if;
  if pgtrickle_internal.last_drawn((a.adopted).sequence) < change_id then
    return null;
  end if;
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = change_id, last_row = 0, history = relay_adopted_commit.history,
      last_pgt_id = coalesce(mark, found_mark),
      marked_id = case when mark is null then coalesce(found_id, 0) else change_id end,
      skipped = case when upper(o.skipped) > change_id + 1 then o.skipped end,
      updated_at = clock_timestamp()
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_adopted_commit.incarnation
    and o.owner_token = relay_adopted_commit.owner_token and o.last_change_id <= change_id;
  return found or exists (
    select from pgtrickle.relay_consumer_offsets o
    where o.relay_group_id = relay_group and o.pipeline_id = pipeline
      and o.incarnation = relay_adopted_commit.incarnation
      and o.owner_token = relay_adopted_commit.owner_token);
end $$;
comment on function
  pgtrickle.relay_adopted_commit(text, text, uuid, uuid, bigint, uuid, text) is
  'For the relay: moves a pipeline''s position in an adopted outbox forward';

-- Where reading an adopted outbox at 'latest' begins: see latest_position.
create or replace function pgtrickle_internal.outbox_adopted_latest(
  incarnation uuid, settled bigint, out change_id bigint, out mark uuid, out skipped int8multirange,
  out skipped_mark uuid)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  a record;
begin
  select * into a from pgtrickle_internal.outbox_adopted_open(incarnation);
  change_id := settled;
  skipped := (select (g.row_data #>> '{}')::int8multirange
              from pgtrickle_internal.outbox_adopted_step(
                a.adopted, a.outbox, 'ids', jsonb_build_object('after', settled)) g limit 1);
  -- Rows that are there give marks, by which a failover that lost them is seen.
  select max(m.mark::text) filter (where m.ord = settled),
         max(m.mark::text) filter (where m.ord > settled)
  into mark, skipped_mark
  from (select g.ord, pgtrickle_internal.outbox_adopted_mark(g.ord, g.row_data) as mark
        from pgtrickle_internal.outbox_adopted_step(
          a.adopted, a.outbox, 'marks',
          jsonb_build_object('ids', jsonb_build_array(settled, upper(skipped) - 1))) g) m;
end $$;

-- The adopted outboxes that cannot be read, and what to do, for `check` and outbox_status.
create or replace function pgtrickle_internal.outbox_adopted_findings()
returns table (number int, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select c.outbox_number, p.message, p.remedy
  from pgtrickle_internal.outbox_config c
  join pgtrickle_internal.outbox_adopted k on k.outbox_number = c.outbox_number
  cross join lateral pgtrickle_internal.outbox_adopted_problem(k, c.reader) p
  where p.message is not null;
$$;

-- What adopt_outbox and disable_outbox call with the caller's rights.
grant execute on function
  pgtrickle_internal.outbox_adopted_sequence(oid, smallint),
  pgtrickle_internal.outbox_adopted_problem(pgtrickle_internal.outbox_adopted, text),
  pgtrickle_internal.outbox_adopted_text(text),
  pgtrickle_internal.outbox_adopted_time_sql(oid, text),
  pgtrickle_internal.outbox_adopted_row_sql(oid, jsonb),
  pgtrickle_internal.outbox_adopted_filter_sql(jsonb),
  pgtrickle_internal.outbox_adopted_body(oid, jsonb),
  pgtrickle_internal.outbox_adopted_describe(regclass, jsonb, boolean),
  pgtrickle_internal.outbox_adopted_store(int, text, pgtrickle_internal.outbox_adopted, text),
  pgtrickle_internal.outbox_adopted_refuse(pgtrickle_internal.outbox_adopted),
  pgtrickle_internal.outbox_adopted_try(text), pgtrickle_internal.outbox_adopted_drop(int),
  pgtrickle_internal.outbox_adopted_disable(pgtrickle_internal.outbox_config)
  to pgtrickle_admin;

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_adopted_rows(uuid, bigint, bigint, bigint, bigint, bigint, uuid, text),
  pgtrickle.relay_adopted_look(text, text, uuid, bigint, uuid, bigint, text),
  pgtrickle.relay_adopted_commit(text, text, uuid, uuid, bigint, uuid, text),
  pgtrickle.relay_adopted_first(uuid, bigint), pgtrickle.relay_adopted_count(uuid, bigint)
  to pgtrickle_relay;
