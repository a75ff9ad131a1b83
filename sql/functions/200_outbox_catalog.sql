-- Outboxes: their names, and how their tables are created and dropped.
--
--   200_outbox_catalog.sql   this
--   205_outbox_rows.sql      what is written into an outbox, and how it is read back
--   207_outbox_deferred.sql  tables whose key is checked at the end of the transaction
--   210_outbox_capture.sql   the trigger functions that watch an ordinary table
--   212_outbox_order.sql     the order of what nested statements wrote
--   213_outbox_triggers.sql  the triggers that a table has
--   215_outbox_enable.sql    enable_outbox, disable_outbox
--   216_outbox_refresh.sql   outbox_full_refresh
--   217_outbox_upkeep.sql    partitions that come and go, dropped tables, upgrade
--   218_outbox_adopt.sql     adopt_outbox: tables of applications, read as they are
--   220_outbox_events.sql    create_outbox, publish
--
-- For code that writes a difference into an outbox in its own transaction (stream tables):
--
--   pgtrickle_internal.outbox_append(
--     outbox_table        text,      -- outbox_config.outbox_table_name
--     changes             regclass,  -- a table with exactly what changed:
--                                    --   op text ('INSERT' | 'DELETE'), ord bigint, row_data jsonb
--                                    --   ord: key order; rows of one key may share an ord, the
--                                    --   deleted one then comes first
--     refresh_id          uuid,
--     refresh_mode        text,      -- 'DIFFERENTIAL' | 'FULL'
--     refresh_duration_ms int,
--     full_refresh        boolean)   -- the rows are all rows of the table, every op is 'INSERT'
--   returns bigint                   -- the outbox id; null when nothing changed (nothing was
--                                    -- written then; an empty full refresh is written)
--
--   It chooses inline or claim check, and notifies pgtrickle_outbox_new with the outbox table's
--   name. It runs as pgtrickle_owner, who must be able to read `changes`, and only pgtrickle_owner
--   may call it.

-- The sequence of an outbox: ours are known by their names, that of an adopted table by its number,
-- because its schema may be closed to us.
create or replace function pgtrickle_internal.outbox_sequence(
  outbox pgtrickle_internal.outbox_config) returns regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when outbox.kind = 'adopted' then outbox.outbox_sequence::oid::regclass
              else outbox.outbox_sequence::regclass end;
$$;

-- ---------------------------------------------------------------------------------------------
-- Names

-- The longest beginning of a text that fits into so many bytes, never half a character.
create or replace function pgtrickle_internal.cut_to_bytes(name text, bytes int) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  cut text := left(name, bytes);
begin
  while octet_length(cut) > bytes loop
    cut := left(cut, -1);
  end loop;
  return cut;
end $$;

-- A name of at most 63 bytes that no relation of ours has: prefix and name, cut to fit, and where
-- that is taken 7 hexadecimal digits of md5 of the qualified name instead of the end.
create or replace function pgtrickle_internal.outbox_free_name(
  prefix text, name text, qualified text, in_schema text default 'pgtrickle') returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  found_name text := pgtrickle_internal.cut_to_bytes(prefix || name, 63);
  attempt int := 0;
begin
  while exists (select from pg_class c
                where c.relnamespace = quote_ident(in_schema)::regnamespace and c.relname = found_name)
     or exists (select from pgtrickle_internal.outbox_config c where c.outbox_table_name = found_name) loop
    found_name := pgtrickle_internal.cut_to_bytes(prefix || name, 55) || '_'
      || left(md5(qualified || case when attempt = 0 then '' else attempt::text end), 7);
    attempt := attempt + 1;
  end loop;
  return found_name;
end $$;

-- The parts of a name as SQL reads it; null where it cannot be read.
create or replace function pgtrickle_internal.name_parts(name text) returns text[]
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return parse_ident(name);
exception when others then
  return null;
end $$;

-- What the table of an outbox is called now, where it has lost a name to another relation; null where
-- it has not, or where its table is gone. (After a restore the catalog's oid may be any relation's.)
create or replace function pgtrickle_internal.outbox_lost_name(number int, schema_name text,
                                                               table_name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  now_named text;
begin
  select format('%I.%I', n.nspname, r.relname) into now_named
  from pgtrickle_internal.outbox_config c
  join pg_class r on r.oid = c.stream_table_oid
  join pg_namespace n on n.oid = r.relnamespace
  where c.outbox_number = number and (n.nspname <> schema_name or r.relname <> table_name);
  if now_named is null or not exists (
      select from pg_class x join pg_namespace n on n.oid = x.relnamespace
      where n.nspname = schema_name and x.relname = table_name
        and x.relkind in ('r', 'p', 'v', 'm', 'f')) then
    return null;
  end if;
  return (
    select now_named from pgtrickle_internal.outbox_config c
    where c.outbox_number = number
      and (exists (select from pg_trigger t
                   where t.tgrelid = c.stream_table_oid
                     and t.tgname = format('!pgtrickle_%s_begin', number))
           or exists (select from pgtrickle_internal.stream_tables s
                      where s.pgt_relid = c.stream_table_oid)));
end $$;

-- The outbox that a name means: its own table's name, the name of the table or stream table that it
-- records (alone or with its schema, as the user wrote it or as the server shows it, now or when
-- the outbox was made), or the name given to create_outbox. No row when there is none, an error
-- when several could be meant. An outbox whose table was dropped steps back behind a living one, and
-- one whose table was renamed behind that of the table which has the name now.
create or replace function pgtrickle.relay_resolve_outbox(name text)
returns setof pgtrickle_internal.outbox_config
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[];
  found_numbers int[];
  meant text;
begin
  return query select c.* from pgtrickle_internal.outbox_config c
               where name in (c.outbox_table_name, 'pgtrickle.' || c.outbox_table_name,
                              format('pgtrickle.%I', c.outbox_table_name));
  if found then
    return;
  end if;
  parts := pgtrickle_internal.name_parts(name);

  with names as (
    select c.outbox_number, c.source_dropped_at, c.stream_table_schema as schema_name,
           c.stream_table_name as table_name, true as stored
    from pgtrickle_internal.outbox_config c
    union
    select c.outbox_number, c.source_dropped_at, n.nspname, r.relname, false
    from pgtrickle_internal.outbox_config c
    join pg_class r on r.oid = c.stream_table_oid
    join pg_namespace n on n.oid = r.relnamespace
  ), matches as (
    select distinct n.outbox_number, n.source_dropped_at is not null as dropped,
           w.written is null as folded,
           n.stored and pgtrickle_internal.outbox_lost_name(n.outbox_number, n.schema_name,
                                                            n.table_name) is not null as stale
    from names n
    left join lateral (
      select v.written
      from (values (n.table_name), (quote_ident(n.table_name)),
                   (n.schema_name || '.' || n.table_name),
                   (quote_ident(n.schema_name) || '.' || quote_ident(n.table_name))) v (written)
      where v.written = relay_resolve_outbox.name limit 1) w on true
    where w.written is not null
       or parts = array[n.table_name] or parts = array[n.schema_name, n.table_name]
       or (n.schema_name is null and parts = array['pgtrickle', n.table_name])
  ), best as (
    select m.outbox_number from matches m
    where (m.dropped, m.stale, m.folded) = (select b.dropped, b.stale, b.folded from matches b
                                            order by b.dropped, b.stale, b.folded limit 1)
  )
  select array_agg(distinct b.outbox_number) into found_numbers from best b;

  if cardinality(found_numbers) > 1 then
    select string_agg(format('%s (of %s)', c.outbox_table_name,
                             coalesce(quote_ident(c.stream_table_schema) || '.'
                                      || quote_ident(c.stream_table_name), 'events')), ', '
                      order by c.outbox_table_name)
    into meant from pgtrickle_internal.outbox_config c where c.outbox_number = any (found_numbers);
    raise exception 'the outbox name "%" is ambiguous: %', name, meant
      using errcode = 'ambiguous_alias',
            hint = 'Qualify the table''s name with its schema, or name the outbox table.';
  end if;
  return query select c.* from pgtrickle_internal.outbox_config c
               where c.outbox_number = any (found_numbers);
end $$;
comment on function pgtrickle.relay_resolve_outbox(text) is
  'The outbox that a name means: of a table, a stream table, an event outbox, or an outbox table';

-- The table of an outbox that is gone: its own or that of delta rows; null: both are there.
create or replace function pgtrickle_internal.outbox_lost_table(outbox pgtrickle_internal.outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.name
  from unnest(array[format('pgtrickle.%I', outbox.outbox_table_name),
                    'pgtrickle.' || quote_ident(outbox.delta_table_name)]) with ordinality t (name, ord)
  where outbox.kind <> 'adopted' and t.name is not null and to_regclass(t.name) is null
  order by t.ord limit 1;
$$;

-- How to make an outbox anew that has lost a table; null: it has not.
create or replace function pgtrickle_internal.outbox_anew(outbox pgtrickle_internal.outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('make it anew: SELECT pgtrickle.disable_outbox(%L); SELECT pgtrickle.%s(%L);',
                outbox.outbox_table_name,
                case when outbox.kind = 'events' then 'create_outbox' else 'enable_outbox' end,
                case when outbox.kind = 'events' then outbox.stream_table_name
                     else format('%I.%I', outbox.stream_table_schema, outbox.stream_table_name) end)
  where pgtrickle_internal.outbox_lost_table(outbox) is not null;
$$;

-- The one outbox of a name; an error when there is none.
create or replace function pgtrickle_internal.outbox_named(name text)
returns pgtrickle_internal.outbox_config
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into outbox from pgtrickle.relay_resolve_outbox(name);
  if outbox.outbox_number is null then
    raise exception 'there is no outbox "%"', coalesce(name, '(null)')
      using errcode = 'undefined_object',
            hint = 'SELECT stream_table_name FROM pgtrickle.relay_outboxes shows all; '
                   'enable_outbox() makes one for a table, create_outbox() one for events, '
                   'adopt_outbox() reads a table that is one.';
  end if;
  return outbox;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Tables

-- lz4 where the server was built with it; pglz is the default elsewhere.
create or replace function pgtrickle_internal.compress_with_lz4(outbox_table text, column_name text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('alter table pgtrickle.%I alter column %I set compression lz4', outbox_table,
                 column_name);
exception when feature_not_supported then
  null;
end $$;

-- Raises unless this transaction holds a lock on a table that keeps writers out.
create or replace function pgtrickle_internal.require_quiet(source regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
      select from pg_locks l
      where l.locktype = 'relation' and l.relation = source and l.pid = pg_backend_pid()
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.granted
        and l.mode in ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) then
    raise exception 'table % is not locked by this transaction', source
      using errcode = 'insufficient_privilege',
            hint = 'Call enable_outbox(), disable_outbox() or outbox_full_refresh() as its owner.';
  end if;
end $$;

-- Raises unless the caller has locked a table against writers. A function that runs as
-- pgtrickle_owner cannot see its caller; but only a role with rights on the table can take that lock,
-- and the functions that users call take it after they have checked who owns the table.
create or replace function pgtrickle_internal.require_locked(source regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_quiet(source);
  if exists (select from pgtrickle_internal.outbox_lent_locks k
             where k.xid = pg_current_xact_id_if_assigned()) then
    raise exception 'upkeep has locked tables in this transaction as their owners'
      using errcode = 'insufficient_privilege', hint = 'Call this in a transaction of its own.';
  end if;
end $$;

-- Makes the tables and the catalog row of an outbox; returns the number of the outbox. `source` is
-- null for events. What triggers an outbox on an ordinary table needs is made by its callers.
create or replace function pgtrickle_internal.outbox_create(
  kind text, source regclass, logical_name text, key_columns text[], retention_hours int,
  inline_threshold_rows int, inline_threshold_bytes bigint, notify boolean, capture text)
returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  schema_name text;
  qualified text := logical_name;
  outbox_name text;
  delta_name text;
  view_name text;
  made int;
begin
  if source is not null then
    perform pgtrickle_internal.require_locked(source);
  end if;
  perform pgtrickle_internal.lock('outboxes');
  if source is not null then
    select n.nspname, n.nspname || '.' || logical_name into schema_name, qualified
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = source;
  end if;

  outbox_name := pgtrickle_internal.outbox_free_name('outbox_', logical_name, qualified);
  -- An INSERT locks the table (ROW EXCLUSIVE) before its plan runs and therefore before the
  -- identity draws an id, and keeps the lock until its commit is visible: plpgsql's cached plans
  -- too, which take the locks of all their tables each time before they start. Readers rely on
  -- that; it holds as long as nothing but the INSERT draws ids, and with the sequence's cache at 1.
  execute format($sql$
    create table pgtrickle.%I (
      id             bigint generated by default as identity primary key,
      pgt_id         uuid not null default gen_random_uuid(),
      refresh_id     uuid,
      created_at     timestamptz not null default clock_timestamp(),
      inserted_count bigint not null default 0,
      deleted_count  bigint not null default 0,
      is_claim_check boolean not null default false,
      tg_op          text,
      payload        jsonb not null,
      headers        jsonb)$sql$, outbox_name);
  perform pgtrickle_internal.compress_with_lz4(outbox_name, 'payload');
  if kind = 'events' then
    execute format('alter table pgtrickle.%I add column event_type text, '
                   'add column event_key text, add column idempotency_key text', outbox_name);
    execute format('create unique index on pgtrickle.%I (idempotency_key) '
                   'where idempotency_key is not null', outbox_name);
  else
    delta_name := pgtrickle_internal.outbox_free_name('outbox_delta_rows_', logical_name, qualified);
    execute format($sql$
      create table pgtrickle.%I (
        outbox_id bigint not null,
        row_num   bigint not null,
        row_op    text not null check (row_op in ('INSERT', 'DELETE')),
        row_data  jsonb not null,
        primary key (outbox_id, row_num))$sql$, delta_name);
    perform pgtrickle_internal.compress_with_lz4(delta_name, 'row_data');
    perform pgtrickle_internal.own_and_grant(format('pgtrickle.%I', delta_name)::regclass);
  end if;

  view_name := pgtrickle_internal.outbox_free_name('pgt_outbox_latest_', logical_name, qualified);
  execute format('create view pgtrickle.%I as select * from pgtrickle.%I order by id desc limit 1',
                 view_name, outbox_name);
  execute format('comment on table pgtrickle.%I is %L', outbox_name,
                 format('Outbox of %s: written by pgtrickle, read by relays', qualified));
  perform pgtrickle_internal.own_and_grant(format('pgtrickle.%I', outbox_name)::regclass);
  perform pgtrickle_internal.own_and_grant(format('pgtrickle.%I', view_name)::regclass);

  insert into pgtrickle_internal.outbox_config (
    stream_table_oid, stream_table_schema, stream_table_name, outbox_table_name, outbox_oid,
    outbox_sequence, delta_table_name, latest_view_name, kind, capture, key_columns, key_attnums,
    retention_hours, inline_threshold_rows, inline_threshold_bytes, notify, first_key_columns)
  values (
    source, schema_name, logical_name, outbox_name,
    format('pgtrickle.%I', outbox_name)::regclass,
    pg_get_serial_sequence(format('pgtrickle.%I', outbox_name), 'id'), delta_name, view_name,
    outbox_create.kind, outbox_create.capture, outbox_create.key_columns,
    (select array_agg(a.attnum order by k.ord)
     from unnest(outbox_create.key_columns) with ordinality k (name, ord)
     join pg_attribute a on a.attrelid = source and a.attname = k.name and a.attnum > 0),
    outbox_create.retention_hours, outbox_create.inline_threshold_rows,
    outbox_create.inline_threshold_bytes, outbox_create.notify,
    coalesce(outbox_create.key_columns, '{}'))
  returning outbox_number into made;
  return made;
end $$;

-- Drops an outbox with its rows and its trigger functions. Triggers must be gone before, and the
-- table, where there is one, locked.
create or replace function pgtrickle_internal.outbox_drop(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  f regprocedure;
begin
  if exists (select from pgtrickle_internal.outbox_config c
             where c.outbox_number = number and c.kind = 'adopted') then
    raise exception 'outbox % is an application''s table', number
      using errcode = 'wrong_object_type', hint = 'Call disable_outbox() as its owner.';
  end if;
  perform pgtrickle_internal.require_locked(c.stream_table_oid::regclass)
  from pgtrickle_internal.outbox_config c join pg_class r on r.oid = c.stream_table_oid
  where c.outbox_number = number;
  perform pgtrickle_internal.require_no_feed(c)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  delete from pgtrickle_internal.outbox_config c where c.outbox_number = number returning * into outbox;
  delete from pgtrickle_internal.outbox_misses m where m.outbox_number = number;
  for f in
    select p.oid from pg_proc p
    where p.pronamespace = 'pgtrickle_internal'::regnamespace
      and p.proname ~ ('^capture_' || number || '_[a-z]+$')
  loop
    execute format('drop function %s', f);
  end loop;
  execute format('drop view if exists pgtrickle.%I', outbox.latest_view_name);
  execute format('drop table if exists pgtrickle.%I', outbox.outbox_table_name);
  if outbox.delta_table_name is not null then
    execute format('drop table if exists pgtrickle.%I', outbox.delta_table_name);
  end if;
end $$;

-- What the daemon calls.
grant execute on function pgtrickle.relay_resolve_outbox(text) to pgtrickle_relay;
-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.cut_to_bytes(text, integer), pgtrickle_internal.outbox_named(text),
  pgtrickle_internal.outbox_lost_table(pgtrickle_internal.outbox_config),
  pgtrickle_internal.outbox_anew(pgtrickle_internal.outbox_config),
  pgtrickle_internal.outbox_create(text, regclass, text, text[], integer, integer, bigint, boolean, text),
  pgtrickle_internal.outbox_drop(integer)
  to pgtrickle_admin;
