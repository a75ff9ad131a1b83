-- The functions that the relay calls when a pipeline into an inbox starts.

-- For the relay: the table that a pipeline writes to, made where it is absent (unless looks_only).
-- By inbox_name it is the inbox of that name. By inbox_table it is the table of that name in
-- pgtrickle, else the inbox of that name, else a table qualified by its schema, else a new inbox
-- whose table has exactly that name. The other arguments are create_inbox's; those that are null
-- leave an inbox as it is.
create or replace function pgtrickle.relay_open_inbox(
  inbox_name text, inbox_table text, max_retries int, schedule text, with_dead_letter boolean,
  retention_hours int, looks_only boolean default false)
returns table (table_schema text, table_name text, columns jsonb, made boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  name constant text := coalesce(relay_open_inbox.inbox_name, relay_open_inbox.inbox_table);
  exact constant boolean := relay_open_inbox.inbox_name is null;
  inbox pgtrickle.pgt_inbox_config;
  rel regclass;
begin
  perform pgtrickle_internal.check_inbox_settings(name, max_retries, schedule, retention_hours);
  if exact then
    rel := to_regclass(format('pgtrickle.%I', name));
    if rel is null then
      select * into inbox from pgtrickle_internal.resolve_inbox(name);
    end if;
    if rel is null and inbox.inbox_name is null then
      rel := pgtrickle_internal.try_regclass(name);
    end if;
    if rel is not null then
      select i.* into inbox
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pgtrickle.pgt_inbox_config i
        on i.table_schema = n.nspname and i.table_name = c.relname
      where c.oid = rel;
    end if;
  else
    select * into inbox from pgtrickle_internal.find_inbox(name);
    rel := to_regclass(format('pgtrickle.%I', pgtrickle_internal.inbox_relation_name('inbox_', name, '')));
  end if;

  made := false;
  if inbox.inbox_name is not null and pgtrickle_internal.inbox_relation(inbox) is not null then
    if not looks_only then
      perform pgtrickle_internal.change_inbox(inbox.inbox_name, max_retries, schedule, with_dead_letter,
                                              null, retention_hours);
    end if;
  elsif rel is not null then
    select n.nspname, c.relname, '{}'::jsonb
      into inbox.table_schema, inbox.table_name, inbox.columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel;
  elsif looks_only then
    return;
  else
    inbox := pgtrickle_internal.make_inbox(name, exact, max_retries, schedule, with_dead_letter,
                                           retention_hours);
    made := true;
  end if;
  return query select inbox.table_schema, inbox.table_name, inbox.columns, made;
end $$;
comment on function
  pgtrickle.relay_open_inbox(text, text, int, text, boolean, int, boolean) is
  'For the relay: finds the table that a pipeline writes to; makes the inbox where it is absent';

-- Whether a name reads as schema.table in SQL.
create or replace function pgtrickle_internal.is_qualified_name(name text) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(parse_ident(name)) > 1;
exception when others then
  return false;
end $$;

create or replace function pgtrickle_internal.make_inbox(
  name text, exact boolean, max_retries int, schedule text, with_dead_letter boolean,
  retention_hours int) returns pgtrickle.pgt_inbox_config
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  if exact and (octet_length(name) > 63) then
    raise exception 'the name of table "%" is longer than 63 bytes', name
      using errcode = 'name_too_long';
  elsif exact and pgtrickle_internal.is_qualified_name(name) then
    raise exception 'there is no table %', name
      using errcode = 'undefined_object',
            hint = 'Only tables without a schema in their name are made, in the schema pgtrickle; '
                   'make this one, or check its name.';
  end if;
  perform pgtrickle_internal.lock('inbox ' || name);
  select * into inbox from pgtrickle_internal.find_inbox(name);
  if inbox.inbox_name is not null and pgtrickle_internal.inbox_relation(inbox) is not null then
    return inbox;  -- another relay was faster
  end if;
  inbox.inbox_name := name;
  inbox.table_schema := 'pgtrickle';
  inbox.table_name := case when exact then name
                           else pgtrickle_internal.inbox_relation_name('inbox_', name, '') end;
  inbox.columns := '{}';
  inbox.made_here := true;
  inbox.max_retries := coalesce(max_retries, 3);
  inbox.schedule := schedule;
  inbox.with_dead_letter := coalesce(with_dead_letter, true);
  inbox.with_stats := true;
  inbox.retention_hours := coalesce(retention_hours, 72);
  inbox.created_at := clock_timestamp();
  inbox.relation := null;
  inbox.gate_function := null;
  perform pgtrickle_internal.build_own_inbox(inbox);
  select * into inbox from pgtrickle_internal.find_inbox(name);
  return inbox;
end $$;

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_open_inbox(text, text, integer, text, boolean, integer, boolean)
  to pgtrickle_relay;
