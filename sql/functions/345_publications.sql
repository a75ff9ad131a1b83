-- Publications for logical replication: one for a table, with the caller's rights, who owns it.
--
-- A publication of updates and deletes makes the server look at each UPDATE and DELETE of the table: they
-- fail where the table has no replica identity, and where the filter or the column list does not fit it.
-- So a publication is refused that would make an application's statement, or a refresh, fail.
--
-- That a publication is ours says its comment. A dump keeps it.

-- The comment of our publications.
create or replace function pgtrickle_internal.publication_mark() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 'Made by pgtrickle.create_publication()' $$;

-- Our publications, and what they publish; one that publishes nothing has lost its table.
create or replace function pgtrickle_internal.publications_of_ours()
returns table (name name, published oid)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.pubname, r.prrelid
  from pg_publication p
  left join pg_publication_rel r on r.prpubid = p.oid
  where obj_description(p.oid, 'pg_publication') = pgtrickle_internal.publication_mark()
$$;

-- Which columns of a table tell a subscriber its rows apart, and what they are taken from: 'all' columns,
-- 'some', or 'none'. A partition that is attached later has the parent's keys, and nothing else of it.
create or replace function pgtrickle_internal.replica_identity(
  rel regclass, out kind text, out columns int2[])
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  setting "char" := (select case when c.relkind = 'p' then 'd' else c.relreplident end
                     from pg_class c where c.oid = rel);
begin
  if setting = 'f' then
    kind := 'all';
    return;
  end if;
  -- The server takes no deferrable key.
  select x.indkey::int2[] into columns
  from pg_index x
  where x.indrelid = rel and x.indisvalid and x.indimmediate
    and ((setting = 'd' and x.indisprimary) or (setting = 'i' and x.indisreplident));
  kind := case when found then 'some' else 'none' end;
end $$;

-- Raises where updates and deletes of a table, or of a partition of it, would fail if a publication had
-- these columns, and a filter over those.
create or replace function pgtrickle_internal.publication_check_identity(
  source regclass, columns text[], filtered text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  place regclass;
  identity record;
  names text[];
  strays text;
begin
  for place in
    select t.relid from pg_partition_tree(source) t
    union select source
    order by 1
  loop
    identity := pgtrickle_internal.replica_identity(place);
    names := array(select a.attname::text from pg_attribute a
                   where a.attrelid = place and a.attnum = any (identity.columns));
    if identity.kind = 'none' then
      raise exception 'table % has no replica identity: with a publication, its UPDATE and DELETE '
                      'would fail', place
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('ALTER TABLE %s ADD PRIMARY KEY (...)%s', place, case
                when place = source and not exists (
                  select from pg_class c where c.oid = place and c.relkind = 'p')
                then format(', or ALTER TABLE %s REPLICA IDENTITY FULL.', place) else '.' end);
    elsif columns is not null and identity.kind = 'all' then
      raise exception 'table % has REPLICA IDENTITY FULL, which does not go with a list of columns: its '
                      'UPDATE and DELETE would fail', place
        using errcode = 'object_not_in_prerequisite_state',
              hint = case when pgtrickle_internal.stream_is_guarded(place)
                then 'Create the stream table with key_columns, or publish all columns.'
                else format('ALTER TABLE %s REPLICA IDENTITY DEFAULT (with a primary key), or publish '
                            'all columns.', place) end;
    elsif columns is not null and not names <@ columns then
      raise exception 'columns lack %, of the replica identity of %: its UPDATE and DELETE would fail',
        (select string_agg(quote_ident(n), ', ') from unnest(names) n where n <> all (columns)), place
        using errcode = 'object_not_in_prerequisite_state', hint = 'Add them to the list of columns.';
    end if;
    select string_agg(quote_ident(f), ', ') into strays from unnest(filtered) f where f <> all (names);
    if identity.kind = 'some' and strays is not null then
      raise exception '"where" uses %, not of the replica identity of %: its UPDATE and DELETE would '
                      'fail', strays, place
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Filter by %s only; or ALTER TABLE %s REPLICA IDENTITY FULL, which writes '
                            'whole old rows to the WAL.',
                            (select string_agg(quote_ident(n), ', ') from unnest(names) n), place);
    end if;
  end loop;
end $$;

-- Raises where the caller may not create a publication of a table: the server says which right is
-- missing, and not how to get it.
create or replace function pgtrickle_internal.publication_check_rights(source regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  owner regrole := (select c.relowner from pg_class c where c.oid = source);
begin
  if not pg_has_role(owner, 'USAGE') then
    raise exception 'must be owner of table % to publish it', source
      using errcode = 'insufficient_privilege',
            hint = case when owner = 'pgtrickle_owner'::regrole
              then 'It is a table of pgtrickle: a superuser can publish it.'
              else format('Call this as a member of %s.', owner) end;
  elsif not has_database_privilege(current_database(), 'CREATE') then
    raise exception 'permission denied to create a publication in database %', current_database()
      using errcode = 'insufficient_privilege',
            hint = format('A superuser, or the owner of the database: GRANT CREATE ON DATABASE %I TO %I;',
                          current_database(), current_user);
  end if;
end $$;

-- A name for the publication of a table: that of one of ours which has lost its table is free again.
create or replace function pgtrickle_internal.publication_free_name(source regclass) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  table_name text := (select c.relname from pg_class c where c.oid = source);
  wanted text := pgtrickle_internal.cut_to_bytes('pgtrickle_' || table_name, 63);
begin
  if exists (select from pgtrickle_internal.publications_of_ours() o
             join pg_publication p on p.pubname = o.name
             where o.name = wanted and o.published is null and pg_has_role(p.pubowner, 'USAGE')) then
    execute format('drop publication %I', wanted);
  elsif exists (select from pg_publication p where p.pubname = wanted) then
    wanted := pgtrickle_internal.cut_to_bytes('pgtrickle_' || table_name, 55) || '_'
              || left(md5(source::text), 7);
  end if;
  return wanted;
end $$;

-- Tables into which rows are only inserted, and from which retention deletes: outboxes and feeds.
create or replace function pgtrickle_internal.publication_inserts_only(source regclass)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = source
      and (n.nspname = 'pgtrickle_changes'
           or (n.nspname = 'pgtrickle' and exists (
             select from pgtrickle_internal.outbox_config o
             where c.relname in (o.outbox_table_name, o.delta_table_name)))))
$$;

-- Creates it. The server's own warning about wal_level names no remedy. `condition` is the caller's
-- text: it is read, and never evaluated here, with the caller's rights.
create or replace function pgtrickle_internal.publication_make(
  name text, source regclass, columns text[], condition text, options text) returns void
language plpgsql
  set search_path = pg_catalog, pg_temp
  set client_min_messages = error
as $$
begin
  execute format('create publication %I for table only %s%s%s with (%s)', name,
    pgtrickle_internal.qualified(source),
    (select format(' (%s)', string_agg(quote_ident(c), ', ')) from unnest(columns) c
     having count(*) > 0),
    case when condition is not null then format(E' where (%s\n)', condition) end, options);
  execute format('comment on publication %I is %L', name, pgtrickle_internal.publication_mark());
end $$;

-- The columns that the filter of a publication uses.
create or replace function pgtrickle_internal.publication_filter_columns(name text, source regclass)
returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  tree text;
begin
  execute 'select r.prqual::text from pg_publication_rel r join pg_publication p on p.oid = r.prpubid '
          'where p.pubname = $1 and r.prrelid = $2' into tree using name, source;
  return array(
    select distinct a.attname::text
    from regexp_matches(tree, E'\\{VAR [^}]*:varattno (-?\\d+)', 'g') m
    join pg_attribute a on a.attrelid = source and a.attnum = m[1]::int);
end $$;

-- What a publication is made of, checked as far as it can be before.
create or replace function pgtrickle_internal.publication_check_arguments(
  source regclass, columns text[], condition text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel pg_class;
  strays text;
begin
  select * into strict rel from pg_class c where c.oid = source;
  if rel.relkind not in ('r', 'p') then
    raise exception '% is not a table', source
      using errcode = 'wrong_object_type', hint = 'Publish the tables that it reads.';
  elsif rel.relnamespace in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) then
    raise exception '% is a table of the system', source using errcode = 'wrong_object_type';
  elsif rel.relpersistence <> 'p' then
    raise exception 'table % is %: its changes are not in the WAL', source,
      case rel.relpersistence when 't' then 'temporary' else 'unlogged' end
      using errcode = 'wrong_object_type', hint = 'Only permanent tables can be published.';
  elsif not rel.relispartition and rel.relkind = 'r'
        and exists (select from pg_inherits i where source in (i.inhrelid, i.inhparent)) then
    raise exception 'table % is part of an inheritance tree', source
      using errcode = 'feature_not_supported',
            hint = 'Partitioned tables are supported, tables with INHERITS are not.';
  elsif current_setting('server_version_num')::int < 150000
        and (columns is not null or condition is not null) then
    raise exception 'PostgreSQL % has no columns and filters of publications',
      current_setting('server_version')
      using errcode = 'feature_not_supported',
            hint = 'Leave out columns and "where"; PostgreSQL 15 has them.';
  elsif columns = '{}' or array_position(columns, null) is not null then
    raise exception 'columns names no column, or null' using errcode = 'invalid_parameter_value',
      hint = 'Leave it out to publish all columns.';
  elsif condition ~ E'^\\s*$' then
    raise exception '"where" is empty' using errcode = 'invalid_parameter_value',
      hint = 'Leave it out to publish all rows.';
  end if;
  select string_agg(quote_ident(c), ', ') into strays
  from unnest(columns) c
  where not exists (select from pg_attribute a
                    where a.attrelid = source and a.attname = c and a.attnum > 0
                      and not a.attisdropped);
  if strays is not null then
    raise exception 'table % has no column %', source, strays using errcode = 'undefined_column';
  elsif exists (select from pgtrickle_internal.publications_of_ours() o where o.published = source)
  then
    raise exception 'table % has a publication: %', source, (
        select string_agg(quote_ident(o.name), ', ') from pgtrickle_internal.publications_of_ours() o
        where o.published = source)
      using errcode = 'duplicate_object',
            hint = format('SELECT pgtrickle.drop_publication(%L); or CREATE PUBLICATION by hand makes '
                          'another one.', source::text);
  end if;
end $$;

create or replace function pgtrickle_internal.publication_create(
  source regclass, columns text[], condition text) returns text
language plpgsql
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  inserts_only constant boolean := pgtrickle_internal.publication_inserts_only(source);
  options constant text := concat(
    'publish = ', case when inserts_only then '''insert'''
                       else '''insert, update, delete, truncate''' end,
    (select ', publish_via_partition_root = true' from pg_class c
     where c.oid = source and c.relkind = 'p'));
  name text;
begin
  perform pgtrickle_internal.publication_check_arguments(source, columns, condition);
  perform pgtrickle_internal.publication_check_rights(source);
  if not inserts_only then
    perform pgtrickle_internal.publication_check_identity(source, columns, '{}');
  end if;
  name := pgtrickle_internal.publication_free_name(source);
  perform pgtrickle_internal.publication_make(name, source, columns, condition, options);
  -- From here on the table is locked against another replica identity.
  if not inserts_only then
    perform pgtrickle_internal.publication_check_identity(
      source, columns, case when condition is null then '{}'
                            else pgtrickle_internal.publication_filter_columns(name, source) end);
  end if;
  if current_setting('wal_level') <> 'logical' then
    raise warning 'wal_level is %: no subscriber can read publication %', current_setting('wal_level'),
      quote_ident(name)
      using hint = 'ALTER SYSTEM SET wal_level = logical; and restart the server.';
  end if;
  return name;
end $$;

create or replace function pgtrickle.create_publication(
  "table" text, columns text[] default null, "where" text default null) returns text
language plpgsql
as $$
begin
  return pgtrickle_internal.publication_create(
    pgtrickle_internal.outbox_source(
      "table", pg_catalog.current_setting('search_path'::pg_catalog.text)),
    columns, "where");
end $$;
comment on function pgtrickle.create_publication(text, text[], text) is
  'Creates the publication pgtrickle_<table> for logical replication; returns its name. Refuses what '
  'would make an UPDATE or DELETE of the table fail. Needs the owner of the table, with CREATE on the '
  'database.';

-- Drops our publications of a table that goes. One of another role stays, empty.
create or replace function pgtrickle_internal.publication_drop_of(rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  name name;
begin
  for name in select o.name from pgtrickle_internal.publications_of_ours() o where o.published = rel loop
    begin
      execute format('drop publication %I', name);
    exception when insufficient_privilege then
      raise notice 'publication % stays, and publishes nothing: %', quote_ident(name), sqlerrm;
    end;
  end loop;
end $$;

create or replace function pgtrickle_internal.publication_drop(
  "table" text, if_exists boolean, caller_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  source regclass;
  found_name name;
begin
  begin
    source := pgtrickle_internal.outbox_source("table", caller_path);
  exception when undefined_table then
    null;  -- it was dropped, and its publication is empty
  end;
  select o.name into found_name
  from pgtrickle_internal.publications_of_ours() o
  where case when source is not null then o.published = source
             else o.published is null
                  and o.name = pgtrickle_internal.cut_to_bytes('pgtrickle_' || "table", 63) end;
  if found_name is not null then
    execute format('drop publication %I', found_name);
  elsif if_exists then
    raise notice 'table "%" has no publication of pgtrickle, skipping', "table";
  else
    raise exception 'table "%" has no publication of pgtrickle', coalesce("table", '(null)')
      using errcode = 'undefined_object',
            hint = 'SELECT * FROM pg_publication_tables shows all publications; those that were made '
                   'by hand are dropped by DROP PUBLICATION.';
  end if;
end $$;

create or replace function pgtrickle.drop_publication("table" text, if_exists boolean default false)
returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.publication_drop(
    "table", if_exists, pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;
comment on function pgtrickle.drop_publication(text, boolean) is
  'Drops the publication that create_publication() made for a table. Needs its owner.';

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.publication_mark(), pgtrickle_internal.publications_of_ours(),
  pgtrickle_internal.replica_identity(regclass),
  pgtrickle_internal.publication_check_identity(regclass, text[], text[]),
  pgtrickle_internal.publication_check_rights(regclass),
  pgtrickle_internal.publication_free_name(regclass),
  pgtrickle_internal.publication_inserts_only(regclass),
  pgtrickle_internal.publication_make(text, regclass, text[], text, text),
  pgtrickle_internal.publication_filter_columns(text, regclass),
  pgtrickle_internal.publication_check_arguments(regclass, text[], text),
  pgtrickle_internal.publication_create(regclass, text[], text),
  pgtrickle_internal.publication_drop_of(regclass),
  pgtrickle_internal.publication_drop(text, boolean, text)
  to pgtrickle_admin;
