-- Inboxes: their catalog and their names.
--
--   400_inbox_catalog.sql    this
--   405_inbox_work.sql       what is done in an inbox's table, directly or through the gate
--   410_inbox_create.sql     create_inbox, enable_inbox_tracking
--   411_inbox_drop.sql       drop_inbox
--   412_inbox_relay.sql      what the relay asks when a pipeline starts
--   415_inbox_payload_columns.sql  members of the payload as columns
--   420_inbox_messages.sql   what consumers call: mark, fail, replay; health and status
--   430_inbox_retention.sql  deleting messages that were processed long ago
--   after/800_inboxes.sql    inboxes of earlier versions
--
-- The table of an inbox that create_inbox makes in the schema pgtrickle is ours: it belongs to
-- pgtrickle_owner, and no other role can put a trigger, a rule or a column on it. Every other table
-- is its owner's: whatever reads or writes it may run code of that owner, and so it is done through
-- the gate (010_gate.sql), with that owner's rights.
--
-- An inbox is a table with one row a message, unique by event_id: writing a message that is there
-- already changes nothing. Deduplication lasts as long as the row is kept.

-- What an inbox keeps of a message.
create or replace function pgtrickle_internal.inbox_fields() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select array['event_id', 'event_type', 'source', 'aggregate_id', 'payload', 'headers',
               'received_at', 'processed_at', 'error', 'retry_count', 'trace_id'];
$$;

-- A name of at most 63 bytes: prefix, name and suffix, where they fit; else the name's beginning
-- and 7 hexadecimal digits of its md5.
create or replace function pgtrickle_internal.inbox_relation_name(
  prefix text, name text, suffix text, hashed boolean default false) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when octet_length(prefix || name || suffix) <= 63 and not hashed
              then prefix || name || suffix
              else pgtrickle_internal.cut_to_bytes(prefix || name, 55 - octet_length(suffix)) || '_'
                   || left(md5(name), 7) || suffix end;
$$;

-- The inbox that a name means: the name given to create_inbox, or its table's, alone or qualified,
-- as the server shows it or as one writes it in SQL. No row where there is none.
create or replace function pgtrickle_internal.resolve_inbox(name text)
returns setof pgtrickle.pgt_inbox_config
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[];
begin
  return query select c.* from pgtrickle.pgt_inbox_config c where c.inbox_name = name;
  if found then
    return;
  end if;
  return query
    select c.* from pgtrickle.pgt_inbox_config c
    where c.table_name = name or c.table_schema || '.' || c.table_name = name
    order by c.table_schema <> 'pgtrickle', c.table_schema
    limit 1;
  if found then
    return;
  end if;
  begin
    parts := parse_ident(name);
  exception when invalid_parameter_value then
    return;
  end;
  return query
    select c.* from pgtrickle.pgt_inbox_config c
    where array[c.table_schema, c.table_name] = parts;
end $$;

-- The same, or a clear error.
create or replace function pgtrickle_internal.inbox_named(name text)
returns pgtrickle.pgt_inbox_config
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
  near text;
begin
  select * into inbox from pgtrickle_internal.resolve_inbox(name);
  if inbox.inbox_name is null then
    near := pgtrickle_internal.nearest(name, array(select c.inbox_name from pgtrickle.pgt_inbox_config c));
    raise exception 'there is no inbox "%"', coalesce(name, '(null)')
      using errcode = 'undefined_object',
            hint = case when near is not null then format('Did you mean "%s"?', near)
                        else 'SELECT * FROM pgtrickle.inbox_status() shows those that there are.'
                   end;
  end if;
  return inbox;
end $$;

-- An inbox's table, to be put into a statement as it stands.
create or replace function pgtrickle_internal.inbox_table(inbox pgtrickle.pgt_inbox_config)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select format('%I.%I', inbox.table_schema, inbox.table_name); $$;

-- The table that has the name of an inbox's table now, whether or not it is the one that became
-- the inbox; null where there is none. Asks for no privilege.
create or replace function pgtrickle_internal.inbox_relation(inbox pgtrickle.pgt_inbox_config)
returns regclass
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select c.oid
    from pg_class c
    where c.relnamespace = (select n.oid from pg_namespace n where n.nspname = inbox.table_schema)
      and c.relname = inbox.table_name and c.relkind in ('r', 'p', 'v', 'f'));
end $$;

-- Whether the table of an inbox is ours: the very table that we made or took over, and still
-- pgtrickle_owner's. Every other one is worked on through the gate.
create or replace function pgtrickle_internal.inbox_is_ours(inbox pgtrickle.pgt_inbox_config)
returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return inbox.gate_function is null
    and exists (select from pgtrickle_internal.inbox_tables t where t.relation = inbox.relation)
    and exists (select from pg_class c
                where c.oid = inbox.relation and c.relkind = 'r'
                  and c.relowner = 'pgtrickle_owner'::regrole)
    and inbox.relation = pgtrickle_internal.inbox_relation(inbox);
end $$;

-- What on a table could run code of other roles when pgtrickle_owner reads or writes it; null if
-- there is nothing.
create or replace function pgtrickle_internal.inbox_foreign_part(rel regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select part from (
    select 'it is no ordinary table of its own' as part
    from pg_class c
    where c.oid = rel
      and (c.relkind <> 'r' or c.relispartition or c.relhassubclass
           or exists (select from pg_inherits i where i.inhrelid = rel))
    union all
    select format('rule %I', r.rulename) from pg_rewrite r where r.ev_class = rel
    union all
    select 'row security' from pg_class c where c.oid = rel and c.relrowsecurity
    union all
    select format('trigger %I', t.tgname)
    from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    join pg_namespace n on n.oid = p.pronamespace
    where t.tgrelid = rel and not t.tgisinternal
      and n.nspname not in ('pgtrickle', 'pgtrickle_internal')
      and pg_get_userbyid(p.proowner) not in ('pgtrickle_owner', 'pgtrickle_capture')
    union all
    select format('column %I of type %s', a.attname, format_type(a.atttypid, a.atttypmod))
    from pg_attribute a join pg_type y on y.oid = a.atttypid
    where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
      and y.typnamespace <> 'pg_catalog'::regnamespace
    union all
    -- Defaults, generated columns, checks and indexes that use what is not the server's own.
    select pg_describe_object(d.refclassid, d.refobjid, 0)
    from pg_depend d
    where d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass,
                           'pg_opclass'::regclass)
      and (d.classid, d.objid) in (
        select 'pg_attrdef'::regclass::oid, f.oid from pg_attrdef f where f.adrelid = rel
        union all
        select 'pg_constraint'::regclass, k.oid from pg_constraint k where k.conrelid = rel
        union all
        select 'pg_class'::regclass, i.indexrelid from pg_index i where i.indrelid = rel)
  ) as parts
  limit 1;
$$;

-- The column of an inbox that holds a field, quoted; null where the table has none.
create or replace function pgtrickle_internal.inbox_column(
  inbox pgtrickle.pgt_inbox_config, field text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select quote_ident(inbox.columns ->> field); $$;

-- The same, or a clear error.
create or replace function pgtrickle_internal.inbox_needed_column(inbox pgtrickle.pgt_inbox_config,
                                                                  field text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if inbox.columns ->> field is null then
    raise exception 'the table of inbox "%" has no column for %', inbox.inbox_name, field
      using errcode = 'undefined_column',
            hint = 'Name one in enable_inbox_tracking().';
  end if;
  return quote_ident(inbox.columns ->> field);
end $$;

-- Which columns of a table hold what, where `wanted` (field -> column) says so and by the fields'
-- own names elsewhere. An error where the table cannot be an inbox.
create or replace function pgtrickle_internal.inbox_columns(rel regclass, wanted jsonb)
returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  unknown text;
  columns jsonb;
begin
  select k into unknown
  from jsonb_object_keys(wanted) k where k <> all (pgtrickle_internal.inbox_fields()) limit 1;
  if unknown is not null then
    raise exception 'an inbox has no field "%"', unknown
      using errcode = 'invalid_parameter_value',
            hint = format('Known are %s.', array_to_string(pgtrickle_internal.inbox_fields(), ', '));
  end if;
  select k into unknown
  from jsonb_each_text(wanted) as w (k, v)
  where v is not null
    and not exists (select from pg_attribute a where a.attrelid = rel and a.attname = v
                    and a.attnum > 0 and not a.attisdropped)
  limit 1;
  if unknown is not null then
    raise exception '% has no column "%"', rel, wanted ->> unknown
      using errcode = 'undefined_column';
  end if;
  select jsonb_object_agg(f, a.attname) into columns
  from unnest(pgtrickle_internal.inbox_fields()) f
  join pg_attribute a
    on a.attrelid = rel and a.attnum > 0 and not a.attisdropped
   and a.attname = case when wanted ? f then wanted ->> f else f end;
  for unknown in select f from unnest(array['event_id', 'payload']) f
                 where columns is null or not columns ? f loop
    raise exception '% cannot be an inbox: it has no column for %', rel, unknown
      using errcode = 'undefined_column', hint = 'Name one: {"' || unknown || '": "<column>"}.';
  end loop;
  -- Values of these are computed: a cast that a type's owner made would run.
  select format('"%s" has type %s', a.attname, format_type(a.atttypid, a.atttypmod)) into unknown
  from unnest(array['processed_at', 'received_at', 'retry_count', 'error']) f
  join pg_attribute a on a.attrelid = rel and a.attname = columns ->> f
  join pg_type y on y.oid = a.atttypid
  where y.typnamespace <> 'pg_catalog'::regnamespace and y.typtype <> 'd'
  limit 1;
  if unknown is not null then
    raise exception '% cannot be an inbox: %', rel, unknown
      using errcode = 'datatype_mismatch', hint = 'Use a type of PostgreSQL''s own.';
  end if;
  if not exists (
       select from pg_index i
       join pg_attribute a on a.attrelid = i.indrelid and a.attname = columns ->> 'event_id'
       where i.indrelid = rel and i.indisunique and i.indisvalid and i.indpred is null
         and i.indexprs is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum) then
    raise exception '% cannot be an inbox: "%" is not unique', rel, columns ->> 'event_id'
      using errcode = 'invalid_table_definition',
            hint = format('ALTER TABLE %s ADD PRIMARY KEY (%I);', rel, columns ->> 'event_id');
  end if;
  return columns;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.inbox_relation_name(text, text, text, boolean),
  pgtrickle_internal.inbox_named(text), pgtrickle_internal.inbox_table(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_relation(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_is_ours(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_foreign_part(regclass),
  pgtrickle_internal.inbox_column(pgtrickle.pgt_inbox_config, text),
  pgtrickle_internal.inbox_needed_column(pgtrickle.pgt_inbox_config, text),
  pgtrickle_internal.inbox_columns(regclass, jsonb)
  to pgtrickle_admin;
