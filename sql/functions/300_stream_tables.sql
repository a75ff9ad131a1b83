-- Stream tables: how they are kept, and their catalog.
--
-- A stream table is an ordinary table that holds the result of a query. It belongs to the role that
-- created it, and so does everything that runs the query: for each stream table a function
-- pgtrickle_streams.refresh_<id>, SECURITY DEFINER, made by its creator, with the query in its
-- body. No other role can change it, and the query runs with its creator's privileges.
--
-- It is called through the gate (010_gate.sql), which keeps a creator from acting with our
-- privileges.
--
--   300_stream_tables.sql      this; names, and the writers of the catalog
--   302_stream_create.sql      create_stream_table, alter_stream_table, drop_stream_table
--   303_stream_keys.sql        the key that a query proves
--   305_stream_sources.sql     what a query reads, and how a change there is noticed
--   310_stream_difference.sql  the statement that computes the difference
--   312_stream_work.sql        what a refresh does as the creator
--   315_stream_refresh.sql     refresh_stream_table
--   318_stream_promote.sql     promote_stream_table
--   320_stream_schedule.sql    schedules, cron, which stream tables are due
--   330_stream_alerts.sql      the channels pg_trickle_alert and pgtrickle_refresh

-- ---------------------------------------------------------------------------------------------
-- Names

-- Splits a name as regclass does ('sales', 'app.sales', '"My Sales"'); a single name that is no
-- SQL identifier ('daily-sales') stands for itself.
create or replace function pgtrickle_internal.stream_split_name(
  name text, out schema_name text, out table_name text)
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[];
begin
  begin
    parts := parse_ident(name);
  exception when invalid_parameter_value then
    if name is null or name = '' or name ~ '[."]' then
      raise exception 'invalid stream table name: %', coalesce(quote_literal(name), 'null')
        using errcode = 'invalid_name',
              hint = 'Write name or schema.name, with special characters in double quotes.';
    end if;
    parts := array[name];
  end;
  if cardinality(parts) > 2 then
    raise exception 'invalid stream table name: %', quote_literal(name)
      using errcode = 'invalid_name', hint = 'Write name or schema.name.';
  end if;
  table_name := parts[cardinality(parts)];
  schema_name := case cardinality(parts) when 2 then parts[1] end;
  if octet_length(table_name) > 63 then
    raise exception 'stream table name "%" is longer than 63 bytes', table_name
      using errcode = 'name_too_long';
  end if;
end $$;

-- The id of the stream table of that name, null where there is none; an error where the name
-- stands for several. A stream table is found by the name that its table has now.
create or replace function pgtrickle_internal.stream_find(name text) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  wanted record;
  ids bigint[];
  names text;
begin
  wanted := pgtrickle_internal.stream_split_name(name);
  select array_agg(t.pgt_id), string_agg(format('%I.%I', t.in_schema, t.now_named), ', ')
  into ids, names
  from (
    select s.pgt_id, coalesce(n.nspname, s.pgt_schema) as in_schema,
           coalesce(c.relname, s.pgt_name) as now_named
    from pgtrickle_internal.stream_tables s
    left join pg_class c on c.oid = s.pgt_relid
    left join pg_namespace n on n.oid = c.relnamespace
  ) t
  where t.now_named = wanted.table_name
    and (wanted.schema_name is null or t.in_schema = wanted.schema_name);
  if cardinality(ids) > 1 then
    raise exception 'stream table name "%" is ambiguous: %', name, names
      using errcode = 'ambiguous_alias', hint = 'Name its schema too.';
  end if;
  return ids[1];
end $$;

-- The same, where there has to be one.
create or replace function pgtrickle_internal.stream_id(name text) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  id bigint := pgtrickle_internal.stream_find(name);
begin
  if id is null then
    raise exception 'stream table "%" does not exist', name
      using errcode = 'undefined_table',
            hint = 'SELECT pgt_schema, pgt_name FROM pgtrickle.pgt_stream_tables lists them.';
  end if;
  return id;
end $$;

-- ---------------------------------------------------------------------------------------------
-- The catalog's writers: called by the functions below, which run as their caller

-- Is anything there already by a name that the parts of stream table `id` would have? Those who may
-- create stream tables could take names before the id is given out.
create or replace function pgtrickle_internal.stream_names_taken(id bigint) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  streams constant oid := (select n.oid from pg_namespace n where n.nspname = 'pgtrickle_streams');
begin
  return exists (select from pg_proc p
                 where p.pronamespace = streams and p.proname = 'refresh_' || id)
      or exists (select from pg_class c
                 where c.relnamespace = streams and c.relname = 'diff_' || id)
      or exists (select from pg_type t
                 where t.typnamespace = streams and t.typname in ('diff_' || id, '_diff_' || id));
end $$;

-- What the owner of a table, or of a refresh function, writes as its comment. No other role can: by
-- it the functions below, which cannot see their caller, know that the owner is at work in this
-- transaction.
create or replace function pgtrickle_internal.stream_mark() returns text
language sql set search_path = pg_catalog, pg_temp
as $$ select 'Stream table: changed by transaction ' || pg_current_xact_id() $$;

-- Is the owner of a stream table making or altering it in this transaction, or is it being
-- refreshed?
create or replace function pgtrickle_internal.stream_owner_at_work(id bigint) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgtrickle_internal.stream_tables s
    left join pg_proc p on p.oid = to_regprocedure(
      format('pgtrickle_streams.%I(text, jsonb)', 'refresh_' || s.pgt_id))
    where s.pgt_id = stream_owner_at_work.id
      and (s.refreshing_xid = pg_current_xact_id()
           or (s.changing_xid = pg_current_xact_id() and p.proowner = s.pgt_owner
               and obj_description(p.oid, 'pg_proc') = pgtrickle_internal.stream_mark())))
$$;

-- What is written with the values of a table and can change without a row being written: labels of
-- enums, attributes of composite types.
create or replace function pgtrickle_internal.stream_names_in_values(rel regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select md5(coalesce(string_agg(concat_ws(' ', t.column_name, n.names), ',' order by t.column_name,
                                                                                  n.names), ''))
  from pgtrickle_internal.types_within(rel) t
  cross join lateral (
    select string_agg(e.enumlabel, ',' order by e.enumsortorder) as names
    from pg_enum e where e.enumtypid = t.type_oid
    union all
    select string_agg(a.attname, ',' order by a.attnum)
    from pg_type y join pg_attribute a on a.attrelid = y.typrelid
    where y.oid = t.type_oid and y.typtype = 'c' and y.typrelid <> rel and a.attnum > 0
      and not a.attisdropped) n
  where n.names is not null
$$;

-- Records a table that its creator has just made. The row stays marked as being changed by this
-- transaction, which is what lets stream_set_sources fill in the rest.
create or replace function pgtrickle_internal.stream_register(
  rel regclass, original_query text, defining_query text, schedule text, refresh_mode text,
  key_columns text[], timezone text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  kind "char";
  owner_ oid;
  schema_ text;
  name_ text;
  id bigint;
begin
  select c.relkind, c.relowner, n.nspname, c.relname into kind, owner_, schema_, name_
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel;
  if kind is distinct from 'r' or schema_ like E'pg\\_%' or schema_ like 'pgtrickle%' then
    raise exception '% cannot be a stream table', rel using errcode = 'wrong_object_type';
  elsif obj_description(rel, 'pg_class') is distinct from pgtrickle_internal.stream_mark() then
    raise exception 'table % was not made for a stream table by this transaction', rel
      using errcode = 'insufficient_privilege';
  end if;
  delete from pgtrickle_internal.stream_tables s
  where s.pgt_schema = schema_ and s.pgt_name = name_
    and not exists (select from pg_class c where c.oid = s.pgt_relid);
  loop
    id := nextval(pg_get_serial_sequence('pgtrickle_internal.stream_tables', 'pgt_id'));
    exit when not pgtrickle_internal.stream_names_taken(id);
  end loop;
  insert into pgtrickle_internal.stream_tables
    (pgt_id, pgt_relid, pgt_schema, pgt_name, pgt_owner, original_query, defining_query, schedule,
     refresh_mode, key_columns, timezone, period, next_due_at, changing_xid, relid_number,
     names_in_values)
  overriding system value values
    (id, rel, schema_, name_, owner_, original_query, defining_query, schedule,
     refresh_mode, key_columns, timezone,
     pgtrickle_internal.schedule_period(schedule, timezone),
     case when schedule is not null then clock_timestamp() end, pg_current_xact_id(), rel::oid,
     pgtrickle_internal.stream_names_in_values(rel));
  return id;
end $$;

-- Marks a stream table as being changed by this transaction, and waits for a refresh to end.
create or replace function pgtrickle_internal.stream_lock(id bigint) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  update pgtrickle_internal.stream_tables set changing_xid = pg_current_xact_id() where pgt_id = id
$$;

-- Ends what stream_register or stream_lock began, and takes over the table's present name.
create or replace function pgtrickle_internal.stream_unlock(
  id bigint, populated timestamptz default null) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  update pgtrickle_internal.stream_tables s
  set changing_xid = null,
      pgt_schema = n.nspname,
      pgt_name = c.relname,
      is_populated = is_populated or populated is not null,
      data_timestamp = coalesce(populated, data_timestamp),
      last_refresh_at = coalesce(populated, last_refresh_at)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where s.pgt_id = id and c.oid = s.pgt_relid and s.changing_xid = pg_current_xact_id()
$$;

-- Binds the outboxes of stream tables to their tables again after a restore into another database:
-- pgt_relid was restored by name, the number that the outbox knows was not.
create or replace function pgtrickle_internal.stream_rebind() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  restored record;
begin
  for restored in
    with moved as materialized (
      select s.pgt_id, s.pgt_relid, s.relid_number, s.pgt_schema, s.pgt_name
      from pgtrickle_internal.stream_tables s
      where s.relid_number <> s.pgt_relid::oid
      for update of s
    ), bound as materialized (
      -- Upkeep may have taken the number away already.
      select m.pgt_id, m.pgt_relid, c.outbox_number, c.outbox_table_name
      from moved m
      left join pgtrickle_internal.outbox_config c
        on c.kind = 'stream_table'
       and (c.stream_table_oid = m.relid_number
            or (c.stream_table_oid is null and c.stream_table_schema = m.pgt_schema
                and c.stream_table_name = m.pgt_name))
    ), unbound as (
      -- A number may be that of another stream table by now, and no two outboxes share one.
      update pgtrickle_internal.outbox_config c set stream_table_oid = null
      from bound b where c.outbox_number = b.outbox_number
    )
    select * from bound
  loop
    update pgtrickle_internal.stream_tables s set relid_number = restored.pgt_relid::oid
    where s.pgt_id = restored.pgt_id;
    update pgtrickle_internal.outbox_config c
    set stream_table_oid = restored.pgt_relid::oid, source_dropped_at = null,
        outbox_oid = to_regclass(format('pgtrickle.%I', c.outbox_table_name))::oid
    where c.outbox_number = restored.outbox_number;
  end loop;
end $$;

-- Is a relation the table that a stream table was made with? After a restore its number may be that
-- of any other.
create or replace function pgtrickle_internal.stream_is_guarded(rel regclass) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from pg_trigger t
                 where t.tgrelid = rel and t.tgfoid = 'pgtrickle_internal.stream_guard()'::regprocedure);
end $$;

-- Takes over the name that a stream table was given by hand.
create or replace function pgtrickle_internal.stream_follow_name(id bigint) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
  update pgtrickle_internal.stream_tables s
  set pgt_schema = n.nspname, pgt_name = c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where s.pgt_id = id and c.oid = s.pgt_relid
    and (s.pgt_schema, s.pgt_name) <> (n.nspname, c.relname)
    and pgtrickle_internal.stream_is_guarded(s.pgt_relid)
$$;

-- Is this transaction refreshing the stream table? Code that runs as its creator asks before it
-- does anything, so that it runs for a refresh and for no other caller.
create or replace function pgtrickle_internal.stream_is_refreshing(id bigint) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select exists (select from pgtrickle_internal.stream_tables
                   where pgt_id = id and refreshing_xid = pg_current_xact_id_if_assigned()));
end $$;

-- Stores schedule, mode, status and query; null leaves what is there. Any administrator may set the
-- first three; the query only its owner.
create or replace function pgtrickle_internal.stream_store(
  id bigint, new_schedule text, new_mode text, new_status text, new_original text,
  new_definition text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  old pgtrickle_internal.stream_tables;
  wanted text;
begin
  select * into strict old from pgtrickle_internal.stream_tables where pgt_id = id for update;
  if (new_original is not null or new_definition is not null)
     and not pgtrickle_internal.stream_owner_at_work(id) then
    raise exception 'only the owner of stream table %.% can change its query', old.pgt_schema,
        old.pgt_name
      using errcode = 'insufficient_privilege';
  end if;
  wanted := case when new_schedule is null then old.schedule
                 when new_schedule <> 'manual' then new_schedule end;
  update pgtrickle_internal.stream_tables
  set schedule = wanted,
      period = pgtrickle_internal.schedule_period(wanted, timezone),
      next_due_at = case
        when wanted is null then null
        when new_schedule is null and new_status is null then next_due_at
        else pgtrickle_internal.schedule_next(wanted, coalesce(last_refresh_at, created_at), timezone)
      end,
      refresh_mode = coalesce(new_mode, refresh_mode),
      status = coalesce(new_status, status),
      consecutive_errors = case when new_status = 'ACTIVE' then 0 else consecutive_errors end,
      original_query = coalesce(new_original, original_query),
      defining_query = coalesce(new_definition, defining_query),
      -- Another query: whatever was seen of the sources counts no more.
      dirty_since = case when new_definition is null then dirty_since
                         else coalesce(dirty_since, clock_timestamp()) end
  where pgt_id = id;
  if new_status = 'ACTIVE' and old.status = 'SUSPENDED' then
    perform pgtrickle_internal.stream_alert('resumed', id, '{}');
  end if;
end $$;

-- Forgets a stream table whose table is gone; returns the sources that no other one reads.
create or replace function pgtrickle_internal.stream_unregister(id bigint) returns setof regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  orphans regclass[];
begin
  if exists (select from pgtrickle_internal.stream_tables s join pg_class c on c.oid = s.pgt_relid
             where s.pgt_id = id) then
    raise exception 'stream table % still exists', id using errcode = 'object_in_use';
  end if;
  select array_agg(distinct m) into orphans
  from pgtrickle.pgt_stream_sources s cross join unnest(s.members) m
  where s.pgt_id = id and s.tracked
    and not exists (select from pgtrickle.pgt_stream_sources o
                    where o.pgt_id <> id and m = any (o.members));
  delete from pgtrickle_internal.stream_tables where pgt_id = id;
  delete from pgtrickle_internal.refresh_history where pgt_id = id;
  execute format('drop table if exists pgtrickle.%I', 'pgt_changes_' || id);
  return query select unnest(orphans);
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_split_name(text), pgtrickle_internal.stream_find(text),
  pgtrickle_internal.stream_id(text), pgtrickle_internal.stream_mark(),
  pgtrickle_internal.stream_register(regclass, text, text, text, text, text[], text),
  pgtrickle_internal.stream_lock(bigint),
  pgtrickle_internal.stream_unlock(bigint, timestamp with time zone),
  pgtrickle_internal.stream_rebind(), pgtrickle_internal.stream_is_refreshing(bigint),
  pgtrickle_internal.stream_is_guarded(regclass),
  pgtrickle_internal.stream_store(bigint, text, text, text, text, text),
  pgtrickle_internal.stream_unregister(bigint)
  to pgtrickle_admin;
