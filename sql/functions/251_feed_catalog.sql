-- Change feeds: how they are created, cleaned and dropped.
--
--   251_feed_catalog.sql   this
--   252_feed_write.sql     what the relay writes them with
--   253_feed_upkeep.sql    retention
--
-- A feed is a table in the schema pgtrickle_changes with one row for each change of another table. A
-- pipeline of the relay writes it from the outbox of that table. The feed belongs to pgtrickle_owner;
-- the table's owner may read it and let others read it.

-- The feeds that the current role may clean and drop, each with a pass (246_group_catalog.sql).
create or replace view pgtrickle_internal.feed_access with (security_barrier) as
  select f.feed_number,
         sha256(s.value || timestamptz_send(transaction_timestamp())
                || convert_to(concat_ws(' ', 'feed', f.feed_number, pg_backend_pid()),
                              'UTF8')) as pass
  from pgtrickle_internal.change_feeds f
  join pgtrickle_internal.outbox_config c on c.outbox_number = f.outbox_number
  left join pg_class r on r.oid = c.stream_table_oid
  cross join pgtrickle_gate.secret s
  where pg_has_role(current_user, 'pgtrickle_admin', 'USAGE')
    and (r.oid is null or pg_has_role(current_user, r.relowner, 'USAGE'));
comment on view pgtrickle_internal.feed_access is
  'The change feeds that the current role may clean and drop, each with a pass';

create or replace view pgtrickle.change_feeds as
  select c.stream_table_schema as table_schema, c.stream_table_name as table_name,
         format('pgtrickle_changes.%I', f.feed_name) as feed,
         format('pgtrickle_changes.%I', f.view_name) as output_view, f.retention,
         f.full_refresh_rows, m.last_change_id, f.cleaned_to, f.pipeline,
         c.outbox_table_name as outbox, f.created_at
  from pgtrickle_internal.change_feeds f
  join pgtrickle_internal.change_feed_marks m on m.feed_number = f.feed_number
  join pgtrickle_internal.outbox_config c on c.outbox_number = f.outbox_number;
comment on view pgtrickle.change_feeds is
  'All change feeds: table, retention, last change_id, and up to which change_id rows were deleted';

-- The feed that a name means: that of the table, of its outbox, or the feed's own name. No row where
-- there is none.
create or replace function pgtrickle_internal.feed_known(name text)
returns setof pgtrickle_internal.change_feeds
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select f.* from pgtrickle_internal.change_feeds f
  where name in (f.feed_name, 'pgtrickle_changes.' || f.feed_name,
                 format('pgtrickle_changes.%I', f.feed_name));
  if not found then
    return query
    select f.* from pgtrickle_internal.change_feeds f
    join pgtrickle.relay_resolve_outbox(name) c on c.outbox_number = f.outbox_number;
  end if;
end $$;

-- The same, and the pass that lets the caller clean and drop it; an error where there is no such feed,
-- or where the caller may not.
create or replace function pgtrickle_internal.my_feed(name text, out feed pgtrickle_internal.change_feeds,
                                                      out pass bytea)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  select * into feed from pgtrickle_internal.feed_known(name);
  if feed.feed_number is null then
    raise exception 'there is no change feed of "%"', coalesce(name, '(null)')
      using errcode = 'undefined_object',
            hint = 'SELECT table_name, feed FROM pgtrickle.change_feeds shows all; '
                   'create_change_feed() makes one.';
  end if;
  select a.pass into pass from pgtrickle_internal.feed_access a
  where a.feed_number = feed.feed_number;
  if pass is null then
    raise exception 'must be owner of the table of change feed %', feed.feed_name
      using errcode = 'insufficient_privilege',
            hint = 'Let the owner of the table call this; it needs pgtrickle_admin.';
  end if;
end $$;

create or replace function pgtrickle.create_change_feed(
  "table" text, retention interval default '7 days', full_refresh_rows boolean default false)
returns text
language plpgsql
as $$
begin
  return pgtrickle_internal.feed_enable(
    pgtrickle_internal.outbox_source("table", pg_catalog.current_setting('search_path')), "table",
    retention, full_refresh_rows);
end $$;
comment on function pgtrickle.create_change_feed(text, interval, boolean) is
  'Makes a table in pgtrickle_changes to which the relay writes each change of a table; returns its name';

-- The same for the table that the name means.
create or replace function pgtrickle_internal.feed_enable(
  source regclass, name text, retention interval, full_refresh_rows boolean) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  number int;
  shown_pass bytea;
  feed text;
begin
  perform pgtrickle_internal.outbox_check_source(source);
  perform pgtrickle_internal.feed_check_retention(retention);
  if full_refresh_rows is null then
    raise exception 'full_refresh_rows must be true or false, not null'
      using errcode = 'invalid_parameter_value';
  elsif current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'create_change_feed() must run in a READ COMMITTED transaction'
      using errcode = 'invalid_transaction_state',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED; a feed begins with what commits later.';
  end if;
  select f.feed_name into feed
  from pgtrickle_internal.change_feeds f
  join pgtrickle_internal.outbox_config c on c.outbox_number = f.outbox_number
  where c.stream_table_oid = source;
  if feed is not null then
    raise exception 'table % already has a change feed: pgtrickle_changes.%', source, quote_ident(feed)
      using errcode = 'duplicate_object',
            hint = format('pgtrickle.drop_change_feed(%L) drops it with its rows.', name);
  end if;
  if not exists (select from pgtrickle_internal.outbox_config c
                 where c.stream_table_oid = source) then
    perform pgtrickle_internal.outbox_enable(source, name, 24, null, 10000, 1048576, false, 'auto');
  end if;
  select c.outbox_number, a.pass into number, shown_pass
  from pgtrickle_internal.outbox_config c
  left join pgtrickle_internal.outbox_access a on a.outbox_number = c.outbox_number
  where c.stream_table_oid = source;
  -- The outbox of a dropped table goes on with the table that has its name now, and so does its feed.
  select format('pgtrickle_changes.%I', f.feed_name) into feed
  from pgtrickle_internal.change_feeds f where f.outbox_number = number;
  if feed is not null then
    raise notice 'change feed % goes on with this table, retention and options as before', feed;
    return feed;
  end if;
  feed := pgtrickle_internal.feed_create(number, shown_pass, retention, full_refresh_rows);
  perform pgtrickle_internal.feed_say_who_reads(source, feed);
  return feed;
end $$;

create or replace function pgtrickle_internal.feed_check_retention(retention interval) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if (retention > interval '0' and retention <= interval '100 years') is not true then
    raise exception 'retention must be more than 0 and at most 100 years, not %',
        coalesce(quote_literal(retention::text), 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'It is how long rows stay in the feed: ''7 days'', for example.';
  end if;
end $$;

-- Whether the owner of a table is itself subject to the table's row security.
create or replace function pgtrickle_internal.hides_rows_from_owner(source oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.relrowsecurity and c.relforcerowsecurity and not (o.rolsuper or o.rolbypassrls)
  from pg_class c join pg_roles o on o.oid = c.relowner where c.oid = source;
$$;

-- Tells the owner of a table with row security what a feed means for it.
create or replace function pgtrickle_internal.feed_say_who_reads(source regclass, feed text)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if pgtrickle_internal.hides_rows_from_owner(source) then
    raise notice 'row security of % may hide rows from its owner: only pgtrickle_admin may read %', source,
        feed;
  elsif (select c.relrowsecurity from pg_class c where c.oid = source) then
    raise notice 'the row security of % does not apply to %: who may read it sees the changes of all '
        'rows', source, feed;
  end if;
end $$;

-- A name that no other pipeline, group or feed has, as readable as it can be.
create or replace function pgtrickle_internal.feed_pipeline_name(schema_name text, table_name text,
                                                                 number int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := left('feed:' || btrim(regexp_replace(
    schema_name || '.' || table_name, '[[:cntrl:]]', '_', 'g')), 180);
begin
  if exists (select from pgtrickle.relay_config c where c.name = wanted)
     or exists (select from pgtrickle_internal.consumer_groups g where g.name = wanted) then
    return wanted || ':' || number;
  end if;
  return wanted;
end $$;

-- Creates the feed of an outbox and enables its pipeline; returns the name of its table.
create or replace function pgtrickle_internal.feed_create(
  number int, pass bytea, retention interval, full_refresh_rows boolean) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  made pgtrickle_internal.change_feeds;
begin
  perform pgtrickle_internal.require_pass('outbox', number, pass);
  perform pgtrickle_internal.feed_check_retention(retention);
  perform pgtrickle_internal.lock('outboxes');
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.outbox_number = number and c.kind in ('table', 'stream_table');
  made.feed_name := pgtrickle_internal.outbox_free_name(
    'feed_', outbox.stream_table_name, outbox.stream_table_schema || '.' || outbox.stream_table_name,
    'pgtrickle_changes');
  made.view_name := pgtrickle_internal.outbox_free_name(
    'output_', outbox.stream_table_oid::text, outbox.stream_table_oid::text, 'pgtrickle_changes');
  made.pipeline := pgtrickle_internal.feed_pipeline_name(outbox.stream_table_schema,
                                                         outbox.stream_table_name, number);
  perform pgtrickle_internal.feed_create_table(made, outbox);
  insert into pgtrickle_internal.change_feeds (outbox_number, feed_name, view_name, pipeline,
                                               retention, full_refresh_rows)
  values (number, made.feed_name, made.view_name, made.pipeline, feed_create.retention,
          feed_create.full_refresh_rows)
  returning feed_number into made.feed_number;
  perform pgtrickle_internal.feed_begin(made, outbox);
  return format('pgtrickle_changes.%I', made.feed_name);
end $$;

-- The table of a feed and its view.
create or replace function pgtrickle_internal.feed_create_table(
  feed pgtrickle_internal.change_feeds, outbox pgtrickle_internal.outbox_config) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  rel text;
begin
  execute format($sql$
    create table pgtrickle_changes.%I (
      change_id  bigint primary key,
      refresh_id uuid,
      action     char(1) not null check (action in ('I', 'U', 'D', 'F')),
      pk         jsonb,
      pk_hash    bigint,
      row_data   jsonb,
      old_data   jsonb,
      created_at timestamptz not null default now(),
      changed_at timestamptz,
      outbox_id  bigint,
      row_num    bigint,
      unique (outbox_id, row_num))$sql$, feed.feed_name);
  execute format('comment on table pgtrickle_changes.%I is %L', feed.feed_name,
                 format('Change feed of %s.%s: written by pgtrickle-relay', outbox.stream_table_schema,
                        outbox.stream_table_name));
  execute format('create view pgtrickle_changes.%I as select * from pgtrickle_changes.%I',
                 feed.view_name, feed.feed_name);
  foreach rel in array array[feed.feed_name, feed.view_name] loop
    perform pgtrickle_internal.own_and_grant(format('pgtrickle_changes.%I', rel)::regclass);
    if not pgtrickle_internal.hides_rows_from_owner(outbox.stream_table_oid) then
      execute format('grant select on pgtrickle_changes.%I to %I with grant option', rel,
                     (select pg_get_userbyid(c.relowner) from pg_class c
                      where c.oid = outbox.stream_table_oid));
    end if;
  end loop;
end $$;

-- The position of a new feed, and the pipeline that writes it. The position is stored here, not when a
-- relay first reads: the feed begins with what commits after its creation, whenever that is.
create or replace function pgtrickle_internal.feed_begin(
  feed pgtrickle_internal.change_feeds, outbox pgtrickle_internal.outbox_config) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  first record;
  config constant jsonb := jsonb_build_object(
    'source', jsonb_build_object('type', 'outbox', 'outbox', outbox.outbox_table_name,
                                 'group', 'feeds'),
    'sink', jsonb_build_object('type', 'feed', 'feed', feed.feed_name),
    'message', 'row', 'on_reject', 'stop', 'max_record_bytes', '1GiB');
begin
  select * into first from pgtrickle.relay_first_position(outbox.incarnation, 'latest');
  insert into pgtrickle_internal.change_feed_marks (feed_number, outbox_id, row_num)
  values (feed.feed_number, first.change_id, 0);
  delete from pgtrickle.relay_consumer_offsets o where o.pipeline_id = feed.pipeline;
  insert into pgtrickle.relay_consumer_offsets
    (relay_group_id, pipeline_id, incarnation, last_change_id, last_pgt_id, skipped, skipped_mark,
     outbox_name)
  values ('feeds', feed.pipeline, outbox.incarnation, first.change_id, first.mark, first.skipped,
          first.skipped_mark, outbox.outbox_table_name);
  perform pgtrickle_internal.check_relay(feed.pipeline, 'forward', config);
  perform pgtrickle_internal.lock('pipeline ' || feed.pipeline);
  insert into pgtrickle.relay_config (name, direction, enabled, config)
  values (feed.pipeline, 'forward', true, config);
end $$;

create or replace function pgtrickle.drop_change_feed("table" text, if_exists boolean default false)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  if if_exists and not exists (select from pgtrickle_internal.feed_known("table")) then
    raise notice 'there is no change feed of "%", skipping', coalesce("table", '(null)');
    return;
  end if;
  mine := pgtrickle_internal.my_feed("table");
  perform pgtrickle_internal.feed_drop((mine.feed).feed_number, mine.pass);
end $$;
comment on function pgtrickle.drop_change_feed(text, boolean) is
  'Drops a change feed with its rows and its pipeline; the outbox of the table stays';

create or replace function pgtrickle_internal.feed_drop(number int, pass bytea) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_pass('feed', number, pass);
  perform pgtrickle_internal.feed_remove(f) from pgtrickle_internal.change_feeds f
  where f.feed_number = number;
end $$;

-- First the mark, then the table: in the order of the writer.
create or replace function pgtrickle_internal.feed_remove(feed pgtrickle_internal.change_feeds)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgtrickle_internal.change_feed_marks m where m.feed_number = feed.feed_number for update;
  if pgtrickle_internal.feed_is_ours(feed.view_name) then
    execute format('drop view pgtrickle_changes.%I', feed.view_name);
  end if;
  if pgtrickle_internal.feed_is_ours(feed.feed_name) then
    execute format('drop table pgtrickle_changes.%I', feed.feed_name);
  end if;
  delete from pgtrickle_internal.change_feeds f where f.feed_number = feed.feed_number;
  perform pgtrickle_internal.remove_relay(feed.pipeline);
end $$;

-- Whether a relation of that name in pgtrickle_changes can be one that was made here. Another owner of
-- the schema, an extension, could have put one there with triggers of its own.
create or replace function pgtrickle_internal.feed_is_ours(name text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where n.nspname = 'pgtrickle_changes' and c.relname = name
                   and c.relowner = 'pgtrickle_owner'::regrole);
$$;

create or replace function pgtrickle.cleanup_change_feed("table" text, older_than interval)
returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  if (older_than >= interval '0' and older_than <= interval '100 years') is not true then
    raise exception 'older_than must be between 0 and 100 years, not %',
        coalesce(quote_literal(older_than::text), 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'Rows that are older go: interval ''1 hour'', for example.';
  end if;
  mine := pgtrickle_internal.my_feed("table");
  return pgtrickle_internal.feed_clean((mine.feed).feed_number, mine.pass, older_than);
end $$;
comment on function pgtrickle.cleanup_change_feed(text, interval) is
  'Deletes the rows of a change feed that are older; returns how many';

create or replace function pgtrickle_internal.feed_clean(number int, pass bytea, older_than interval)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_pass('feed', number, pass);
  return (select pgtrickle_internal.feed_delete(f, older_than, null)
          from pgtrickle_internal.change_feeds f where f.feed_number = number);
end $$;

-- Deletes the first rows of a feed that are older, at most so many (null: all); returns how many.
create or replace function pgtrickle_internal.feed_delete(
  feed pgtrickle_internal.change_feeds, older_than interval, most bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  before constant timestamptz := clock_timestamp() - older_than;
  last_old bigint;
  deleted bigint;
begin
  -- Rows are older the smaller their change_id is: the walk ends at the first that stays.
  execute format(
    'select coalesce((select f.change_id - 1 from (select * from pgtrickle_changes.%1$I '
    '                 where change_id > $3 order by change_id limit $2) f '
    '                 where f.created_at >= $1 order by f.change_id limit 1), '
    '                (select max(f.change_id) from (select change_id from pgtrickle_changes.%1$I '
    '                 where change_id > $3 order by change_id limit $2) f))', feed.feed_name)
    into last_old using before, most, feed.cleaned_to;
  execute format('delete from pgtrickle_changes.%I where change_id <= $1', feed.feed_name)
    using last_old;
  get diagnostics deleted = row_count;
  if deleted > 0 then
    update pgtrickle_internal.change_feeds f set cleaned_to = last_old
    where f.feed_number = feed.feed_number and f.cleaned_to < last_old;
  end if;
  return deleted;
end $$;

-- Raises where an outbox that is to be dropped has a feed.
create or replace function pgtrickle_internal.require_no_feed(outbox pgtrickle_internal.outbox_config)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pgtrickle_internal.change_feeds f
             where f.outbox_number = outbox.outbox_number) then
    raise exception 'the outbox % has a change feed', outbox.outbox_table_name
      using errcode = 'dependent_objects_still_exist',
            hint = format('SELECT pgtrickle.drop_change_feed(%L); drops it with its rows.',
                          outbox.outbox_table_name);
  end if;
end $$;

-- Raises where a pipeline is that of a feed: its configuration belongs to the feed.
create or replace function pgtrickle_internal.require_no_feed_pipeline(name text, config jsonb default null)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  feed text;
begin
  select f.feed_name into feed from pgtrickle_internal.change_feeds f where f.pipeline = name;
  if feed is not null then
    raise exception 'pipeline "%" writes a change feed and is not set or deleted by itself', name
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('SELECT pgtrickle.drop_change_feed(%L); drops both. disable_relay() and '
                          'pause_relay() stop it for a time.', feed);
  elsif coalesce(config #>> '{sink,type}', config ->> 'sink_type') = 'feed' then
    raise exception 'pipeline "%" cannot write a change feed', name
      using errcode = 'invalid_parameter_value',
            hint = 'SELECT pgtrickle.create_change_feed(''the table''); makes a feed with its pipeline.';
  end if;
end $$;

grant select on pgtrickle_internal.feed_access to pgtrickle_admin;
-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.feed_known(text), pgtrickle_internal.my_feed(text),
  pgtrickle_internal.feed_enable(regclass, text, interval, boolean),
  pgtrickle_internal.feed_check_retention(interval),
  pgtrickle_internal.hides_rows_from_owner(oid),
  pgtrickle_internal.feed_say_who_reads(regclass, text),
  pgtrickle_internal.feed_create(int, bytea, interval, boolean),
  pgtrickle_internal.feed_drop(int, bytea), pgtrickle_internal.feed_clean(int, bytea, interval)
  to pgtrickle_admin;
