-- enable_outbox and disable_outbox: an outbox for a table or a stream table.
--
-- They run with the caller's rights, who must own the table and be a pgtrickle_admin: triggers are
-- made by the table's owner, the outbox and what the triggers call belong to pgtrickle_owner.

-- The relation that a user means: as regclass reads it, else the name as it stands (with hyphens,
-- capitals, quotes), else a schema and a name around the first dot. Under the caller's search_path.
create or replace function pgtrickle._outbox_source(name text) returns regclass
language plpgsql stable
as $$
declare
  dot int := pg_catalog.strpos(name, '.');
  attempt text;
  found_rel regclass;
begin
  foreach attempt in array array[
    name, pg_catalog.quote_ident(name),
    case when dot > 0 then pg_catalog.format('%I.%I', pg_catalog."left"(name, dot - 1),
                                             pg_catalog.substr(name, dot + 1)) end]
  loop
    begin
      found_rel := pg_catalog.to_regclass(attempt);
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
create or replace function pgtrickle._types_within(source regclass)
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

-- A column whose values would be turned into JSON by a function that its type's owner wrote: that
-- function would run inside the capture trigger. Casts in C come from extensions and are harmless.
create or replace function pgtrickle._column_with_json_cast(source regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.column_name
  from pgtrickle._types_within(source) t
  join pg_cast c on c.castsource = t.type_oid and c.casttarget = 'json'::regtype
  join pg_proc f on f.oid = c.castfunc
  join pg_language l on l.oid = f.prolang
  where l.lanname not in ('c', 'internal')
  limit 1;
$$;

-- Whether values of a table are written differently under different search_paths: names of objects,
-- and types whose output is not the server's own.
create or replace function pgtrickle._capture_depends_on_path(source regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgtrickle._types_within(source) t
    join pg_type p on p.oid = t.type_oid
    join pg_proc f on f.oid = p.typoutput
    where f.pronamespace <> 'pg_catalog'::regnamespace or f.proname ~ '^reg.*out$');
$$;

-- Raises what keeps a relation from having an outbox.
create or replace function pgtrickle._outbox_check_source(source regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel pg_class;
  casting text;
begin
  select * into strict rel from pg_class c where c.oid = source;
  if rel.relkind not in ('r', 'p') then
    raise exception '% is not a table', source
      using errcode = 'wrong_object_type',
            hint = 'An outbox records the changes of a table or a stream table.';
  elsif rel.relpersistence = 't' then
    raise exception '% is a temporary table', source using errcode = 'wrong_object_type';
  elsif rel.relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     or exists (select from pgtrickle.pgt_outbox_config c
                where rel.relnamespace = 'pgtrickle'::regnamespace
                  and rel.relname in (c.outbox_table_name, c.delta_table_name)) then
    raise exception '% is a table of the system', source using errcode = 'wrong_object_type';
  elsif not rel.relispartition and rel.relkind = 'r'
     and exists (select from pg_inherits i where source in (i.inhrelid, i.inhparent)) then
    raise exception '% is part of an inheritance tree', source
      using errcode = 'feature_not_supported',
            hint = 'Partitioned tables are supported, tables with INHERITS are not.';
  elsif not pg_has_role(rel.relowner, 'USAGE') then
    raise exception 'must be owner of table %', source
      using errcode = 'insufficient_privilege',
            hint = 'The outbox''s triggers are made by the table''s owner.';
  end if;
  casting := pgtrickle._column_with_json_cast(source);
  if casting is not null then
    raise exception 'column % of % has a type with a cast to json that is not written in C',
                    casting, source
      using errcode = 'feature_not_supported',
            hint = 'It would run inside the outbox''s trigger. Drop it, or use another type.';
  end if;
end $$;

-- Locks a table, and with it all its partitions, against writers. Waits for a tenth of a second at
-- a time, so that one open writer does not make all others queue behind us.
create or replace function pgtrickle._lock_against_writers(
  source regclass, patience interval default '30 seconds') returns void
language plpgsql
as $$
declare
  before constant text := pg_catalog.current_setting('lock_timeout');
  until constant timestamptz := pg_catalog.clock_timestamp() + patience;
  ignored text;
begin
  loop
    begin
      ignored := pg_catalog.set_config('lock_timeout', '100ms', true);
      execute pg_catalog.format('lock table %s in share row exclusive mode',
                                pgtrickle._qualified(source));
      ignored := pg_catalog.set_config('lock_timeout', before, true);
      return;
    exception when lock_not_available then
      null;
    end;
    if pg_catalog.clock_timestamp() > until then
      raise exception 'table % is being written to by transactions that do not end', source
        using errcode = 'lock_not_available',
              detail = pg_catalog.concat('pids: ', (
                select pg_catalog.string_agg(distinct l.pid::text, ', ')
                from pg_catalog.pg_locks l
                where l.locktype = 'relation' and l.relation = source and l.granted
                  and l.pid <> pg_catalog.pg_backend_pid())),
              hint = 'Try again when they have ended.';
    end if;
    perform pg_catalog.pg_sleep(0.05 + pg_catalog.random() * 0.15);
  end loop;
end $$;

-- ---------------------------------------------------------------------------------------------
-- What users call

create or replace function pgtrickle.enable_outbox(
  name text, retention_hours int default 24, key_columns text[] default null,
  inline_threshold_rows int default 10000, inline_threshold_bytes bigint default 1048576,
  notify boolean default false, capture text default 'auto') returns text
language plpgsql
as $$
declare
  source regclass := pgtrickle._outbox_source(name);
  kind text := 'table';
  keys text[] := key_columns;
  how text := capture;
  made int;
  outbox pgtrickle.pgt_outbox_config;
  place record;
begin
  perform pgtrickle._outbox_check_source(source);
  perform pgtrickle._outbox_check_options(source, retention_hours, inline_threshold_rows,
                                          inline_threshold_bytes, keys, how);
  if exists (select from pgtrickle.pgt_outbox_config c where c.stream_table_oid = source) then
    raise exception 'table % already has an outbox', source
      using errcode = 'duplicate_object',
            hint = pg_catalog.format('pgtrickle.disable_outbox(%L) drops it with its rows.', name);
  end if;
  if pg_catalog.to_regclass('pgtrickle.pgt_stream_tables') is not null then
    execute 'select ''stream_table'', coalesce($2, s.key_columns) '
            'from pgtrickle.pgt_stream_tables s where s.pgt_relid = $1'
      into kind, keys using source, keys;
    kind := coalesce(kind, 'table');
    keys := coalesce(keys, key_columns);
  end if;
  keys := coalesce(keys, pgtrickle._primary_key(source));
  if kind = 'stream_table' and how <> 'auto' then
    raise exception '% is a stream table: its refresh writes the outbox', source
      using errcode = 'invalid_parameter_value', hint = 'Leave capture out.';
  end if;
  how := case when kind = 'stream_table' then 'refresh'
              when how <> 'auto' then how
              when exists (select from pg_catalog.pg_class c
                           where c.oid = source and c.relispartition)
                or pgtrickle._merge_mixes_rows(source) then 'row'
              else 'statement' end;
  if how = 'statement' and pgtrickle._merge_mixes_rows(source) then
    raise warning 'a MERGE into % that inserts and updates is recorded wrongly', source
      using detail = 'This server gives statement triggers on partitioned tables the row inserted '
                     'last in place of the new versions of updated ones.',
            hint = 'Use capture => ''auto'' or ''row'' if MERGE is used on this table.';
  end if;

  if kind = 'table' then
    if exists (select from pg_catalog.pg_class c
               where c.oid = source and c.relpersistence = 'u') then
      raise warning '% is unlogged: a crash empties it, and no outbox can say so', source;
    end if;
    perform pgtrickle._lock_against_writers(source);
  end if;
  made := pgtrickle._outbox_create(
    kind, source, (select r.relname from pg_catalog.pg_class r where r.oid = source), keys,
    retention_hours, inline_threshold_rows, inline_threshold_bytes, notify, how);
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = made;
  if kind = 'table' then
    perform pgtrickle._capture_generate(outbox.outbox_number);
    for place in select * from pgtrickle._capture_places(source) loop
      perform pgtrickle._capture_attach(outbox, place.rel, place.place);
      if place.place in ('root', 'leaf') then
        perform pgtrickle._grant_reading(place.rel);
      end if;
    end loop;
    perform pgtrickle._partitions_remember(outbox.outbox_number);
  end if;
  return outbox.outbox_table_name;
end $$;
comment on function pgtrickle.enable_outbox(text, int, text[], int, bigint, boolean, text) is
  'Makes an outbox that records each change of a table or stream table; returns its table''s name';

-- Whether the transition tables of a MERGE cannot be trusted: on partitioned tables a row that is
-- updated behind an inserted one comes as that inserted row once more (seen with 15.18, 16.14, 17.10
-- and 18.4; not with 15.20). Row triggers get the right rows.
create or replace function pgtrickle._merge_mixes_rows(source regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select v.num >= 150000 and v.num not between 150020 and 159999
         and exists (select from pg_class c where c.oid = source and c.relkind = 'p')
  from (select current_setting('server_version_num')::int) v (num);
$$;

-- The columns of a table's primary key, in its order; null without one.
create or replace function pgtrickle._primary_key(source regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array_agg(a.attname::text order by k.ord)
  from pg_index i
  cross join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, ord)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  where i.indrelid = source and i.indisprimary;
$$;

create or replace function pgtrickle._outbox_check_options(
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
end $$;

create or replace function pgtrickle.disable_outbox(name text, if_exists boolean default false)
returns void
language plpgsql
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  place record;
begin
  select * into outbox from pgtrickle.relay_resolve_outbox(name);
  if outbox.outbox_number is null and if_exists then
    raise notice 'there is no outbox "%", skipping', name;
    return;
  elsif outbox.outbox_number is null then
    outbox := pgtrickle._outbox_named(name);
  end if;
  if exists (select from pg_catalog.pg_class c where c.oid = outbox.stream_table_oid) then
    if not (select pg_catalog.pg_has_role(c.relowner, 'USAGE') from pg_catalog.pg_class c
            where c.oid = outbox.stream_table_oid) then
      raise exception 'must be owner of table %', outbox.stream_table_oid::pg_catalog.regclass
        using errcode = 'insufficient_privilege';
    end if;
    if outbox.kind = 'table' then
      perform pgtrickle._lock_against_writers(outbox.stream_table_oid);
      for place in select * from pgtrickle._capture_places(outbox.stream_table_oid) loop
        perform pgtrickle._capture_detach(outbox.outbox_number, place.rel);
        if place.place in ('root', 'leaf') then
          execute pg_catalog.format('revoke select on %s from pgtrickle_owner',
                                    pgtrickle._qualified(place.rel));
        end if;
      end loop;
    end if;
  end if;
  perform pgtrickle._outbox_drop(outbox.outbox_number);
end $$;
comment on function pgtrickle.disable_outbox(text, boolean) is
  'Drops an outbox with its rows, and the triggers that fed it';
