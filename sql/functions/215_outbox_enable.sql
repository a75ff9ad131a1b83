-- enable_outbox and disable_outbox: an outbox for a table or a stream table.
--
-- They run with the caller's rights, who must own the table and be a pgtrickle_admin: triggers are
-- made by the table's owner, the outbox belongs to pgtrickle_owner, and what the triggers call to
-- pgtrickle_capture.

-- The relation that a user names: as regclass reads it, else the name as it stands (with hyphens,
-- capitals, quotes), else a schema and a name around the first dot. Under the caller's search_path,
-- which only this function uses.
create or replace function pgtrickle_internal.outbox_source(name text, caller_path text)
returns regclass
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  dot int := strpos(name, '.');
  attempt text;
  found_rel regclass;
begin
  foreach attempt in array array[
    name, quote_ident(name),
    case when dot > 0 then format('%I.%I', left(name, dot - 1), substr(name, dot + 1)) end]
  loop
    begin
      perform set_config('search_path', caller_path, true);
      found_rel := pg_catalog.to_regclass(attempt);
      perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    exception when others then
      found_rel := null;
    end;
    if found_rel is not null then
      return found_rel;
    end if;
  end loop;
  raise exception 'there is no table "%"', coalesce(name, '(null)')
    using errcode = 'undefined_table',
          hint = 'Qualify the name with its schema if the schema is not in the search_path.';
end $$;

-- The types of a table's columns and of the row itself, and those that they are made of.
create or replace function pgtrickle_internal.types_within(source regclass)
returns table (column_name text, type_oid oid)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive types (column_name, type_oid) as (
    select a.attname::text, a.atttypid from pg_attribute a
    where a.attrelid = source and a.attnum > 0 and not a.attisdropped
    union
    select '(the row itself)', c.reltype from pg_class c where c.oid = source
    union
    select t.column_name, part.type_oid
    from types t
    join pg_type p on p.oid = t.type_oid
    cross join lateral (
      select p.typbasetype where p.typtype = 'd'
      union all
      select p.typelem where p.typelem <> 0
      union all
      select r.rngsubtype from pg_range r where p.oid in (r.rngtypid, r.rngmultitypid)
      union all
      select a.atttypid from pg_attribute a
      where p.typtype = 'c' and a.attrelid = p.typrelid and a.attnum > 0 and not a.attisdropped
    ) part (type_oid)
  )
  select t.column_name, t.type_oid from types t;
$$;

-- Whether values of a table are written differently under different search_paths: names of objects,
-- and types whose output is not the server's own.
create or replace function pgtrickle_internal.capture_depends_on_path(source regclass)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgtrickle_internal.types_within(source) t
    join pg_type p on p.oid = t.type_oid
    join pg_proc f on f.oid = p.typoutput
    where f.pronamespace <> 'pg_catalog'::regnamespace or f.proname ~ '^reg.*out$');
$$;

-- Raises an error if a relation cannot have an outbox.
create or replace function pgtrickle_internal.outbox_check_source(source regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel pg_class;
begin
  select * into strict rel from pg_class c where c.oid = source;
  if rel.relkind not in ('r', 'p') then
    raise exception '% is not a table', source
      using errcode = 'wrong_object_type',
            hint = 'An outbox records the changes of a table or a stream table.';
  elsif rel.relpersistence = 't' then
    raise exception '% is a temporary table', source using errcode = 'wrong_object_type';
  elsif rel.relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     or exists (select from pgtrickle_internal.outbox_config c
                where rel.relnamespace = 'pgtrickle'::regnamespace
                  and rel.relname in (c.outbox_table_name, c.delta_table_name)) then
    raise exception '% is a table of the system', source using errcode = 'wrong_object_type';
  elsif not rel.relispartition and rel.relkind = 'r'
     and exists (select from pg_inherits i where source in (i.inhrelid, i.inhparent)) then
    raise exception '% is part of an inheritance tree', source
      using errcode = 'feature_not_supported',
            hint = 'Partitioned tables are supported, tables with INHERITS are not.';
  end if;
  perform pgtrickle_internal.outbox_check_owner(source);
end $$;

create or replace function pgtrickle_internal.outbox_check_owner(source regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if not pgtrickle_internal.has_owners_rights(source) then
    raise exception 'must be owner of table %', source
      using errcode = 'insufficient_privilege',
            hint = 'The outbox''s triggers are made by the table''s owner.';
  end if;
end $$;

create or replace function pgtrickle_internal.has_owners_rights(rel regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$ select pg_has_role(c.relowner, 'USAGE') from pg_class c where c.oid = rel; $$;

-- Locks a table, and with it all its partitions, against writers, and where triggers will be dropped
-- against readers too: a lock that is made stronger later is a deadlock for a reader that goes on to
-- write. Waits for a tenth of a second at
-- a time, so that one open writer does not make all others queue behind us; and not at all while it
-- holds another table's lock, so that no application can be in a deadlock with us. With an outbox of
-- the table, which pgtrickle_owner alone may give, it is done as the table's owner.
create or replace function pgtrickle_internal.lock_against_writers(
  source regclass, patience interval default '30 seconds',
  outbox pgtrickle_internal.outbox_config default null, readers_too boolean default false)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  before constant text := current_setting('lock_timeout');
  timeout constant text := case when exists (
    select from pg_locks l
    where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.relation <> source
      and l.mode in ('ShareRowExclusiveLock', 'AccessExclusiveLock')) then '1ms' else '100ms' end;
  until constant timestamptz := clock_timestamp() + patience;
begin
  loop
    begin
      perform set_config('lock_timeout', timeout, true);
      if outbox.outbox_number is null then
        execute format('lock table %s in %s mode', pgtrickle_internal.qualified(source),
                       case when readers_too then 'access exclusive'
                            else 'share row exclusive' end);
      else
        perform pgtrickle_internal.outbox_lock_as_owner(outbox, source);
      end if;
      perform set_config('lock_timeout', before, true);
      return;
    exception when lock_not_available then
      null;
    end;
    if clock_timestamp() > until then
      raise exception 'table % is being % by transactions that do not end', source,
        case when readers_too then 'used' else 'written to' end
        using errcode = 'lock_not_available',
              detail = concat('pids: ', (
                select string_agg(distinct l.pid::text, ', ')
                from pg_locks l
                where l.locktype = 'relation' and l.relation = source and l.granted
                  and l.pid <> pg_backend_pid())),
              hint = 'Try again when they have ended.';
    end if;
    perform pg_sleep(0.05 + random() * 0.15);
  end loop;
end $$;

-- Locks a table as its owner. The lock says nothing about the caller's rights then: see
-- require_locked.
create or replace function pgtrickle_internal.outbox_lock_as_owner(
  outbox pgtrickle_internal.outbox_config, source regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle_internal.outbox_lent_locks k where k.xid <> pg_current_xact_id();
  insert into pgtrickle_internal.outbox_lent_locks values (pg_current_xact_id()) on conflict do nothing;
  perform pgtrickle_internal.outbox_read(outbox, source, 'lock');
end $$;

-- ---------------------------------------------------------------------------------------------
-- The functions that users call

create or replace function pgtrickle.enable_outbox(
  name text, retention_hours int default 24, key_columns text[] default null,
  inline_threshold_rows int default 10000, inline_threshold_bytes bigint default 1048576,
  notify boolean default false, capture text default 'auto') returns text
language plpgsql
as $$
begin
  return pgtrickle_internal.outbox_enable(
    pgtrickle_internal.outbox_source(name, pg_catalog.current_setting('search_path')), name,
    retention_hours, key_columns, inline_threshold_rows, inline_threshold_bytes, notify, capture);
end $$;

-- The same for the table that the name means.
create or replace function pgtrickle_internal.outbox_enable(
  source regclass, name text, retention_hours int, key_columns text[], inline_threshold_rows int,
  inline_threshold_bytes bigint, notify boolean, capture text) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  keys text[] := key_columns;
  how text := capture;
  made int;
  former int;
begin
  perform pgtrickle_internal.outbox_check_source(source);
  perform pgtrickle_internal.outbox_check_options(source, retention_hours, inline_threshold_rows,
                                                  inline_threshold_bytes, keys, how);
  if exists (select from pgtrickle_internal.outbox_config c where c.stream_table_oid = source) then
    raise exception 'table % already has an outbox', source
      using errcode = 'duplicate_object',
            hint = format('pgtrickle.disable_outbox(%L) drops it with its rows.', name);
  end if;
  perform from pgtrickle_internal.stream_tables s where s.pgt_relid = source;
  if found and how <> 'auto' then
    raise exception '% is a stream table: its refresh writes the outbox', source
      using errcode = 'invalid_parameter_value', hint = 'Leave capture out.';
  elsif found then
    how := 'refresh';
  else
    how := pgtrickle_internal.outbox_capture_kind(source, how);
  end if;
  perform pgtrickle_internal.lock_against_writers(source);
  -- The key of a stream table is what it is while the table is locked.
  keys := coalesce(keys,
                   (select s.key_columns from pgtrickle_internal.stream_tables s where s.pgt_relid = source),
                   pgtrickle_internal.primary_key(source));
  former := pgtrickle_internal.outbox_former(source, case how when 'refresh' then 'stream_table'
                                                      else 'table' end);
  if former is not null then
    -- Pipelines that read it go on: they deliver what it holds, and then all rows of this table.
    perform pgtrickle_internal.require_fresh_snapshots('enable_outbox() on a table that was made anew');
    perform pgtrickle_internal.outbox_owner_says(former, true);
    perform pgtrickle_internal.outbox_rebind(former, source, keys, retention_hours, inline_threshold_rows,
                                             inline_threshold_bytes, notify, how);
    perform pgtrickle_internal.outbox_owner_says(former, false);
    perform pgtrickle_internal.outbox_take_over(former, source, 'the table was made anew');
    return (select c.outbox_table_name from pgtrickle_internal.outbox_config c
            where c.outbox_number = former);
  end if;
  made := pgtrickle_internal.outbox_create(
    case how when 'refresh' then 'stream_table' else 'table' end, source,
    (select r.relname from pg_class r where r.oid = source),
    keys, retention_hours, inline_threshold_rows, inline_threshold_bytes, notify, how);
  if how <> 'refresh' then
    perform pgtrickle_internal.outbox_begin_capture(made, source);
    perform pgtrickle_internal.outbox_say_what_changes(source);
  else
    perform pgtrickle_internal.outbox_make_reader(made, source);
  end if;
  return (select c.outbox_table_name from pgtrickle_internal.outbox_config c
          where c.outbox_number = made);
end $$;

-- How the changes of an ordinary table are captured: as requested, or as fits the table. Warns of
-- changes that cannot be recorded correctly.
create or replace function pgtrickle_internal.outbox_capture_kind(source regclass, asked text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel pg_class;
begin
  select * into strict rel from pg_class c where c.oid = source;
  if asked = 'statement' and pgtrickle_internal.merge_mixes_rows(source) then
    raise warning 'a MERGE into % that inserts and updates is recorded wrongly', source
      using detail = 'This server gives statement triggers on partitioned tables the row inserted '
                     'last in place of the new versions of updated ones.',
            hint = 'Use capture => ''auto'' or ''row'' if MERGE is used on this table.';
  end if;
  if pgtrickle_internal.has_foreign_parts(source) then
    if asked = 'statement' then
      raise exception '% has partitions that are foreign tables: a statement on it that wrote to one '
                      'would fail, for PostgreSQL has no transition rows of foreign tables', source
        using errcode = 'invalid_parameter_value', hint = 'Use capture => ''auto'' or ''row''.';
    end if;
    raise warning '% has partitions that are foreign tables: what is changed by their server, or by a '
                  'TRUNCATE of one of them, is not recorded', source;
  end if;
  if rel.relpersistence = 'u' then
    raise warning '% is unlogged: a crash empties it, and no outbox can say so', source;
  end if;
  return case when asked <> 'auto' then asked
              when rel.relispartition or pgtrickle_internal.merge_mixes_rows(source)
                or pgtrickle_internal.has_foreign_parts(source) then 'row'
              else 'statement' end;
end $$;

-- Tells by NOTICE what an application may notice of the outbox on its table, and what the outbox
-- leaves out.
create or replace function pgtrickle_internal.outbox_say_what_changes(source regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  sequences text;
  left_out text;
begin
  select string_agg(format('currval(%L)', format('%I.%I', n.nspname, s.relname)), ', '
                    order by n.nspname, s.relname)
  into sequences
  from pg_class s
  join pg_namespace n on n.oid = s.relnamespace
  where s.relkind = 'S'
    and (exists (select from pg_depend d  -- of an identity column
                 where d.classid = 'pg_class'::regclass and d.objid = s.oid
                   and d.refclassid = 'pg_class'::regclass and d.refobjid = source
                   and d.deptype = 'i')
         or exists (select from pg_attrdef f
                    join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
                      and d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid
                    where f.adrelid = source));
  if sequences is not null then
    raise notice 'lastval() after an insert into % is the id of the outbox row from now on', source
      using hint = format('PDO''s lastInsertId() without an argument calls lastval(), for one. Use '
                          'RETURNING, or %s.', sequences);
  end if;
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into left_out
  from pg_attribute a
  where a.attrelid = source and a.attgenerated = 'v' and not a.attisdropped;
  if left_out is not null then
    raise notice 'the outbox of % leaves out its virtual generated columns: %', source, left_out
      using hint = 'A STORED generated column is recorded.';
  end if;
end $$;

-- Creates the functions and triggers that record the changes of a table. The table is locked against
-- writers.
create or replace function pgtrickle_internal.outbox_begin_capture(number int, source regclass)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  place record;
begin
  perform pgtrickle_internal.capture_generate(number);
  perform pgtrickle_internal.outbox_make_reader(number, source);
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  for place in select * from pgtrickle_internal.capture_places(source) loop
    perform pgtrickle_internal.capture_attach(outbox, place.rel, place.place);
  end loop;
  perform pgtrickle_internal.partitions_remember(number);
  perform pgtrickle_internal.signature_store(number);
end $$;
comment on function pgtrickle.enable_outbox(text, int, text[], int, bigint, boolean, text) is
  'Makes an outbox that records each change of a table or stream table; returns its table''s name';

-- Whether the transition tables of a MERGE cannot be trusted: on partitioned tables a row that is
-- updated behind an inserted one comes as that inserted row once more (seen with 15.18, 16.14, 17.10
-- and 18.4; not with 15.20). Row triggers get the right rows.
create or replace function pgtrickle_internal.merge_mixes_rows(source regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select v.num >= 150000 and v.num not between 150020 and 159999
         and exists (select from pg_class c where c.oid = source and c.relkind = 'p')
  from (select current_setting('server_version_num')::int) v (num);
$$;

create or replace function pgtrickle_internal.has_foreign_parts(source regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgtrickle_internal.capture_places(source) p where p.place = 'foreign');
$$;

-- The columns of a table's primary key, in its order; null without one.
create or replace function pgtrickle_internal.primary_key(source regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array_agg(a.attname::text order by k.ord)
  from pg_index i
  cross join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, ord)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  where i.indrelid = source and i.indisprimary;
$$;

create or replace function pgtrickle_internal.outbox_check_options(
  source regclass, retention_hours int, inline_threshold_rows int, inline_threshold_bytes bigint,
  key_columns text[], capture text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  unknown text;
begin
  if coalesce(retention_hours, 0) < 1 then
    raise exception 'retention_hours must be 1 or more' using errcode = 'invalid_parameter_value';
  elsif coalesce(inline_threshold_rows, 0) not between 1 and 1000000 then
    raise exception 'inline_threshold_rows must be between 1 and 1000000'
      using errcode = 'invalid_parameter_value';
  elsif coalesce(inline_threshold_bytes, 0) not between 1 and 134217728 then
    raise exception 'inline_threshold_bytes must be between 1 and 134217728 (128 MiB)'
      using errcode = 'invalid_parameter_value',
            hint = 'A jsonb value ends at 256 MiB.';
  elsif coalesce(capture, '') not in ('auto', 'statement', 'row') then
    raise exception 'capture must be ''auto'', ''statement'' or ''row'''
      using errcode = 'invalid_parameter_value';
  elsif capture = 'statement' and exists (select from pg_class c
                                          where c.oid = source and c.relispartition) then
    raise exception '% is a partition: statements on its parent fire no statement triggers here',
                    source
      using errcode = 'invalid_parameter_value', hint = 'Use capture => ''auto'' or ''row''.';
  end if;
  select k into unknown from unnest(key_columns) k
  where not exists (select from pg_attribute a
                    where a.attrelid = source and a.attname = k and a.attnum > 0
                      and not a.attisdropped)
  limit 1;
  if found then
    raise exception 'key column "%" is not a column of %', unknown, source
      using errcode = 'undefined_column';
  end if;
  select k into unknown from unnest(key_columns) k
  join pg_attribute a on a.attrelid = source and a.attname = k and a.attgenerated = 'v'
  limit 1;
  if found then
    raise exception 'key column "%" of % is a virtual generated column, which is not recorded',
                    unknown, source
      using errcode = 'invalid_parameter_value', hint = 'Make it STORED, or take another key.';
  end if;
end $$;

create or replace function pgtrickle.disable_outbox(name text, if_exists boolean default false)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  place record;
  lost record;
begin
  select * into outbox from pgtrickle.relay_resolve_outbox(name);
  if outbox.outbox_number is null and if_exists then
    raise notice 'there is no outbox "%", skipping', name;
    return;
  elsif outbox.outbox_number is null then
    outbox := pgtrickle_internal.outbox_named(name);
  end if;
  if outbox.kind = 'adopted' then
    perform pgtrickle_internal.outbox_adopted_disable(outbox);
    return;
  end if;
  if exists (select from pg_class c where c.oid = outbox.stream_table_oid) then
    if not (select pg_has_role(c.relowner, 'USAGE') from pg_class c
            where c.oid = outbox.stream_table_oid) then
      raise exception 'must be owner of table %', outbox.stream_table_oid::regclass
        using errcode = 'insufficient_privilege';
    end if;
    perform pgtrickle_internal.lock_against_writers(outbox.stream_table_oid,
                                                    readers_too => outbox.kind = 'table');
    if outbox.kind = 'table' then
      for place in select * from pgtrickle_internal.capture_places(outbox.stream_table_oid) loop
        perform pgtrickle_internal.capture_detach(outbox.outbox_number, place.rel);
      end loop;
    end if;
  end if;
  for lost in select * from pgtrickle_internal.outbox_undelivered(outbox.outbox_number) loop
    raise warning '% rows of % are dropped that %', lost.rows, outbox.outbox_table_name,
      case when lost.pipeline is null then 'no pipeline has read'
           when pgtrickle_internal.group_owner(lost.pipeline) is null
           then format('pipeline "%s" has not delivered', lost.pipeline)
           else format('consumer group "%s" has not committed', lost.pipeline) end;
  end loop;
  perform pgtrickle_internal.outbox_drop(outbox.outbox_number);
  perform pgtrickle_internal.gate_drop(outbox.reader);
end $$;
comment on function pgtrickle.disable_outbox(text, boolean) is
  'Drops an outbox with its rows, and the triggers that fed it; warns of rows not delivered. An adopted '
  'table is left as it is';

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.outbox_source(text, text), pgtrickle_internal.types_within(regclass),
  pgtrickle_internal.capture_depends_on_path(regclass),
  pgtrickle_internal.outbox_check_source(regclass),
  pgtrickle_internal.outbox_check_owner(regclass), pgtrickle_internal.has_owners_rights(regclass),
  pgtrickle_internal.lock_against_writers(regclass, interval, pgtrickle_internal.outbox_config, boolean),
  pgtrickle_internal.outbox_enable(regclass, text, integer, text[], integer, bigint, boolean, text),
  pgtrickle_internal.outbox_capture_kind(regclass, text),
  pgtrickle_internal.outbox_say_what_changes(regclass),
  pgtrickle_internal.outbox_begin_capture(integer, regclass),
  pgtrickle_internal.merge_mixes_rows(regclass), pgtrickle_internal.has_foreign_parts(regclass),
  pgtrickle_internal.primary_key(regclass),
  pgtrickle_internal.outbox_check_options(regclass, integer, integer, bigint, text[], text)
  to pgtrickle_admin;
