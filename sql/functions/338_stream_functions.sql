-- The functions that users call for stream tables. Those of a name that an extension owns are not
-- made: its own stay as they are, and ours beside them, with other arguments, would make calls
-- ambiguous. What exists of our stream tables is refreshed by the relay all the same.

do $do$
declare
  f record;
  theirs boolean;
  ours regprocedure;
begin
  for f in select * from (values
    ('create_stream_table', $sql$
create or replace function pgtrickle.create_stream_table(
  name text, query text, schedule text default '1s', refresh_mode text default 'AUTO',
  key_columns text[] default null) returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.stream_create(
    name, query, schedule, refresh_mode, key_columns,
    pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;

comment on function pgtrickle.create_stream_table(text, text, text, text, text[]) is
  'Creates a table that holds the result of a query, fills it, and has it refreshed on a schedule '
  '(''500ms'', ''2s'', ''5m'', ''1h'', a cron expression, or ''manual''). refresh_mode is AUTO, '
  'DIFFERENTIAL or FULL. key_columns name what tells the rows apart, so that a change becomes an '
  'UPDATE; without them, what the query proves is taken (GROUP BY, DISTINCT, a primary or unique '
  'key). The query runs with the privileges of the caller of this function.';
$sql$),

    ('alter_stream_table', $sql$
create or replace function pgtrickle.alter_stream_table(
  name text, schedule text default null, refresh_mode text default null,
  suspend boolean default null, resume boolean default null, rename_to text default null,
  query text default null) returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.stream_alter(
    name, schedule, refresh_mode, suspend, resume, rename_to, query,
    pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;

comment on function pgtrickle.alter_stream_table(text, text, text, boolean, boolean, text, text) is
  'Changes a stream table; what is null stays. schedule => ''manual'' takes it off the schedule. '
  'suspend => true stops refreshing it, resume => true goes on and forgets past failures. '
  'rename_to and query need its owner; a new query must give the same columns.';
$sql$),

    ('promote_stream_table', $sql$
create or replace function pgtrickle.promote_stream_table(name text, "from" text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return pgtrickle_internal.stream_promote(name, "from");
end $$;

comment on function pgtrickle.promote_stream_table(text, text) is
  'Gives stream table `name` the query, schedule and refresh mode of stream table `from`, and drops '
  '`from`. The table stays the same: its consumers get the difference as one change. Columns that '
  'only `from` has are added. Needs the owner of both.';
$sql$),

    ('drop_stream_table', $sql$
create or replace function pgtrickle.drop_stream_table(name text, if_exists boolean default false)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.stream_drop(name, if_exists);
end $$;

comment on function pgtrickle.drop_stream_table(text, boolean) is
  'Drops a stream table with its outbox. Needs its owner.';
$sql$),

    ('refresh_stream_table', $sql$
create or replace function pgtrickle.refresh_stream_table(name text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return pgtrickle.relay_refresh_stream_table(name);
end $$;

comment on function pgtrickle.refresh_stream_table(text) is
  'Refreshes a stream table now, in this transaction. A refresh that fails undoes what it did, is '
  'recorded, warned of and returned as {"action": "FAILED", "error": ...}; three in a row suspend '
  'the stream table.';

grant execute on function pgtrickle.refresh_stream_table(text) to pgtrickle_relay;
$sql$)) as t (name, definition)
  loop
    theirs := exists (
      select from pg_catalog.pg_proc p
      join pg_catalog.pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
        and d.deptype = 'e'
      where p.pronamespace = 'pgtrickle'::regnamespace and p.proname = f.name);
    if not theirs then
      execute f.definition;
      continue;
    end if;
    -- Of the time before the extension.
    for ours in
      select p.oid from pg_catalog.pg_proc p
      where p.pronamespace = 'pgtrickle'::regnamespace and p.proname = f.name
        and p.proowner = 'pgtrickle_owner'::regrole
        and not exists (select from pg_catalog.pg_depend d
                        where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                          and d.deptype = 'e')
    loop
      execute format('drop function %s', ours);
    end loop;
  end loop;
end $do$;
