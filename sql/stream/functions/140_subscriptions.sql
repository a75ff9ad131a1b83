-- What happens when rows of pgstream.subscriptions change: the triggers on it.
--
--   1_prepare  as pgstream_owner: one change at a time, the functions that write events, and CREATE
--              on the schema for the owners of the tables, who will own the trigger functions
--   2_apply    as the subscriber: checks, compiles, creates functions and triggers
--   3_finish   as pgstream_owner: takes CREATE back

-- The functions of table owners that serve a table, and whether a trigger uses them.
create or replace function pgstream._functions_of(in_schema text, named text)
returns table (function regprocedure, owner oid, is_used boolean)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.oid, p.proowner, exists (
    select from pg_depend d
    where d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid
      and d.classid = 'pg_trigger'::regclass)
  from pgstream._tables t
  cross join unnest(array['INSERT', 'UPDATE', 'DELETE']) operation
  join pg_proc p on p.proname in (pgstream._function_name(t.part, operation),
                                  pgstream._condition_name(t.part, operation))
  where t.schema_name = in_schema and t.table_name = named
    and p.pronamespace = 'pgstream'::regnamespace;
$$;

-- Who may write events of a table: its owner, and the owner of functions that its triggers use.
-- (They may be an earlier owner's.)
create or replace function pgstream._owners(in_schema text, named text) returns oid[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct o.oid), '{}')
  from (
    select c.relowner from pg_class c where c.oid = pgstream._relation(in_schema, named)
    union all
    select f.owner from pgstream._functions_of(in_schema, named) f where f.is_used) o (oid);
$$;

create or replace function pgstream._prepare(removed pgstream.subscriptions[],
                                             added pgstream.subscriptions[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
  owners oid[];
  owner oid;
  unused regprocedure;
begin
  update pgstream._changes set n = n + 1;
  for t in
    select distinct c.schema_name, c.table_name from unnest(removed || added) c
    where pgstream._relation(c.schema_name, c.table_name) is not null
       or exists (select from pgstream._tables k
                  where k.schema_name = c.schema_name and k.table_name = c.table_name)
    order by 1, 2
  loop
    -- Those of a table of this name that was dropped, and belonged to another role.
    for unused in
      select f.function from pgstream._functions_of(t.schema_name, t.table_name) f
      where not f.is_used
        and f.owner is distinct from (
          select c.relowner from pg_class c
          where c.oid = pgstream._relation(t.schema_name, t.table_name))
    loop
      execute format('drop function %s', unused);
    end loop;
    owners := pgstream._owners(t.schema_name, t.table_name);
    perform pgstream._define_writers(pgstream._assign_part(t.schema_name, t.table_name),
                                     t.schema_name, t.table_name, owners);
    foreach owner in array owners loop
      execute format('grant create on schema pgstream to %s', owner::regrole);
    end loop;
  end loop;
end $$;

create or replace function pgstream._subscriptions_finish() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  grantee oid;
begin
  for grantee in
    select a.grantee from pg_namespace n cross join lateral aclexplode(n.nspacl) a
    where n.nspname = 'pgstream' and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner
      and a.grantee <> 0
  loop
    execute format('revoke create on schema pgstream from %s', grantee::regrole);
  end loop;
  return null;
end $$;

create or replace function pgstream._subscriptions_truncate() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'pgstream.subscriptions cannot be truncated: the triggers on tables would stay'
    using errcode = 'feature_not_supported', hint = 'DELETE FROM pgstream.subscriptions;';
end $$;
create or replace trigger refuse_truncate before truncate on pgstream.subscriptions
  for each statement execute function pgstream._subscriptions_truncate();

-- Refuses who may not subscribe to a table.
create or replace function pgstream._require_owner(rel oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  table_owner constant oid := (select c.relowner from pg_class c where c.oid = rel);
begin
  if not pg_has_role(current_user, table_owner, 'USAGE') then
    raise exception 'must be owner of table "%"', rel::regclass
      using errcode = 'insufficient_privilege',
            hint = format('Let "%s", a member of that role, or a superuser change its '
                          'subscriptions.', pg_get_userbyid(table_owner));
  end if;
end $$;

-- The table of a subscription that was added or changed; what cannot have one is refused.
create or replace function pgstream._checked_table(subscription pgstream.subscriptions) returns oid
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel constant oid := pgstream._relation(subscription.schema_name, subscription.table_name);
  kind "char";
begin
  if subscription.operation <> all ('{INSERT,UPDATE,DELETE}') then
    raise exception 'subscription "%": operation "%" is not one of INSERT, UPDATE, DELETE',
        subscription.key, subscription.operation
      using errcode = 'invalid_parameter_value';
  elsif subscription.key = '' then
    raise exception 'a subscription must have a key' using errcode = 'invalid_parameter_value';
  elsif not pgstream._has_stream(subscription.stream_id) then
    raise exception 'subscription "%": stream % does not exist', subscription.key,
        subscription.stream_id
      using errcode = 'undefined_object',
            hint = format('Start the daemon of that stream, or run: '
                          'SELECT pgstream.add_stream(%s);', subscription.stream_id);
  elsif rel is null then
    raise exception 'subscription "%": table "%.%" does not exist', subscription.key,
        subscription.schema_name, subscription.table_name
      using errcode = 'undefined_table';
  end if;
  perform pgstream._require_owner(rel);
  select c.relkind into kind from pg_class c where c.oid = rel;
  if kind not in ('r', 'p')
     or exists (select from pg_class c where c.oid = rel and c.relpersistence = 't')
     or subscription.schema_name in ('pg_catalog', 'pgstream') then
    raise exception 'subscription "%": "%" is not a table that can be subscribed to',
        subscription.key, rel::regclass
      using errcode = 'wrong_object_type', detail = case
        when kind in ('v', 'm') then 'It is a view.'
        when kind = 'f' then 'It is a foreign table.'
        else 'It is a temporary table, or one of PostgreSQL or of postgres-stream.' end,
        hint = 'Subscribe to an ordinary or a partitioned table.';
  end if;
  return rel;
end $$;

-- Makes triggers and functions follow the rows: `removed` are the old rows of a statement, `added`
-- the new ones.
create or replace function pgstream._apply(removed pgstream.subscriptions[],
                                           added pgstream.subscriptions[], path text)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  s pgstream.subscriptions;
  rel oid;
  compiled pgstream._subscriptions;
  made pgstream._subscriptions[] := '{}';
  t record;
begin
  foreach s in array coalesce(removed, '{}') loop
    rel := pgstream._relation(s.schema_name, s.table_name);
    if rel is not null then
      perform pgstream._require_owner(rel);
    end if;
    delete from pgstream._subscriptions c
    where (c.stream_id, c.key, c.schema_name, c.table_name, c.operation)
          = (s.stream_id, s.key, s.schema_name, s.table_name, s.operation);
    if not found and exists (
        select from pgstream._subscriptions c
        where (c.stream_id, c.key, c.schema_name, c.table_name, c.operation)
              = (s.stream_id, s.key, s.schema_name, s.table_name, s.operation)) then
      raise exception 'subscription "%" belongs to the owner of a table that does not exist any '
          'more', s.key
        using errcode = 'insufficient_privilege';
    end if;
  end loop;
  foreach s in array coalesce(added, '{}') loop
    rel := pgstream._checked_table(s);
    compiled := pgstream._compile_subscription(rel, s, path);
    insert into pgstream._subscriptions select compiled.*;
    made := made || compiled;
  end loop;
  for t in
    select distinct c.schema_name, c.table_name, c.operation, k.part,
           pgstream._relation(c.schema_name, c.table_name) as rel
    from unnest(coalesce(removed, '{}') || coalesce(added, '{}')) c
    join pgstream._tables k using (schema_name, table_name)
    where pgstream._relation(c.schema_name, c.table_name) is not null
    order by 1, 2, 3
  loop
    perform pgstream._define_functions(t.rel, t.schema_name, t.table_name, t.operation);
  end loop;
  perform pgstream._create_triggers(made);
  for t in
    select distinct k.part, c.operation
    from unnest(coalesce(removed, '{}') || coalesce(added, '{}')) c
    join pgstream._tables k using (schema_name, table_name)
    order by 1, 2
  loop
    perform pgstream._drop_triggers(pgstream._function_name(t.part, t.operation));
  end loop;
end $$;

-- The triggers on the table, one set for each operation. `2_apply` has the search_path of the
-- statement, by which the expressions of subscriptions are understood: all names in it are
-- qualified.
do $$
declare
  rows_of constant text :=
    '(select pg_catalog.array_agg(row(r.*)::pgstream.subscriptions) from %s r)';
  operation record;
begin
  for operation in
    select o.name, o.tables,
           case when o.removed is null then 'null' else format(rows_of, o.removed) end as removed,
           case when o.added is null then 'null' else format(rows_of, o.added) end as added
    from (values
      ('insert', 'referencing new table as added', null, 'added'),
      ('update', 'referencing old table as removed new table as added', 'removed', 'added'),
      ('delete', 'referencing old table as removed', 'removed', null)
    ) o (name, tables, removed, added)
  loop
    execute format($definition$
      create or replace function pgstream._subscriptions_%s_prepare() returns trigger
      language plpgsql security definer set search_path = pg_catalog, pg_temp as %L
    $definition$, operation.name, format(
      'begin perform pgstream._prepare(%s, %s); return null; end', operation.removed,
      operation.added));
    execute format($definition$
      create or replace function pgstream._subscriptions_%s_apply() returns trigger
      language plpgsql as %L
    $definition$, operation.name, format(
      'begin perform pgstream._apply(%s, %s, pg_catalog.current_setting(''search_path'')); '
      'return null; end', operation.removed, operation.added));
    execute format('create or replace trigger "1_prepare_%1$s" after %1$s '
                   'on pgstream.subscriptions %2$s for each statement '
                   'execute function pgstream._subscriptions_%1$s_prepare()',
                   operation.name, operation.tables);
    execute format('create or replace trigger "2_apply_%1$s" after %1$s '
                   'on pgstream.subscriptions %2$s for each statement '
                   'execute function pgstream._subscriptions_%1$s_apply()',
                   operation.name, operation.tables);
    execute format('create or replace trigger "3_finish_%1$s" after %1$s on pgstream.subscriptions '
                   'for each statement execute function pgstream._subscriptions_finish()',
                   operation.name);
  end loop;
end $$;

-- Who may write what a subscription was compiled to: the roles that may change its table. After a
-- table was dropped, members of its last owner may delete the row.
create or replace function pgstream._may_write(in_schema text, named text, owner_name name)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_class c
                 where c.oid = pgstream._relation(in_schema, named)
                   and pg_has_role(current_user, c.relowner, 'USAGE')
                   and (owner_name is null or pg_get_userbyid(c.relowner) = owner_name));
$$;
create or replace function pgstream._may_delete(in_schema text, named text, owner_name name)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when pgstream._relation(in_schema, named) is not null
              then pgstream._may_write(in_schema, named, null)
              else coalesce(pg_has_role(current_user, to_regrole(quote_ident(owner_name)), 'USAGE'),
                            true) end;
$$;
alter table pgstream._subscriptions enable row level security;
drop policy if exists seen on pgstream._subscriptions;
create policy seen on pgstream._subscriptions for select using (true);
drop policy if exists added on pgstream._subscriptions;
create policy added on pgstream._subscriptions for insert
  with check (pgstream._may_write(schema_name, table_name, owner_name));
drop policy if exists removed on pgstream._subscriptions;
create policy removed on pgstream._subscriptions for delete
  using (pgstream._may_delete(schema_name, table_name, owner_name));

-- Whether two subscriptions with one key are to be compiled differently.
create or replace function pgstream._differ(one pgstream.subscriptions,
                                            other pgstream.subscriptions) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select (one.when_clause, one.column_names, one.metadata, one.payload_extensions)
         is distinct from
         (other.when_clause, other.column_names, other.metadata, other.payload_extensions);
$$;

-- Sets all subscriptions of a stream. Those that are the same stay as they are, and so do the
-- triggers of all others whose condition is the same. `id` and `stream_id` of the elements are not
-- looked at.
create or replace function pgstream.set_subscriptions(p_stream_id bigint,
                                                      p_subscriptions pgstream.subscriptions[])
returns void
language plpgsql volatile
as $$
begin
  if p_stream_id is null or p_subscriptions is null
     or pg_catalog.array_position(p_subscriptions, null) is not null then
    raise exception 'subscriptions must not be null'
      using errcode = 'null_value_not_allowed',
            hint = 'An empty array removes all subscriptions of the stream.';
  end if;
  delete from pgstream.subscriptions s
  where s.stream_id operator(pg_catalog.=) p_stream_id
    and not exists (
      select from pg_catalog.unnest(p_subscriptions) w
      where w.key operator(pg_catalog.=) s.key
        and w.schema_name operator(pg_catalog.=) s.schema_name
        and w.table_name operator(pg_catalog.=) s.table_name
        and w.operation operator(pg_catalog.=) s.operation);
  merge into pgstream.subscriptions s
  using pg_catalog.unnest(p_subscriptions) w
  on s.stream_id operator(pg_catalog.=) p_stream_id and w.key operator(pg_catalog.=) s.key
     and w.schema_name operator(pg_catalog.=) s.schema_name
     and w.table_name operator(pg_catalog.=) s.table_name
     and w.operation operator(pg_catalog.=) s.operation
  when matched
    and pgstream._differ(s, w) then update set
    when_clause = w.when_clause, column_names = w.column_names, metadata = w.metadata,
    payload_extensions = w.payload_extensions
  when not matched then insert
    (key, stream_id, operation, schema_name, table_name, when_clause, column_names, metadata,
     payload_extensions)
  values (w.key, p_stream_id, w.operation, w.schema_name, w.table_name, w.when_clause,
          w.column_names, w.metadata, w.payload_extensions);
end $$;
