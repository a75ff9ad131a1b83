-- What happens when rows of pgstream.subscriptions change: the triggers on it.
--
--   1_prepare  as pgstream_owner: one change at a time, and the functions that write events
--   2_compile  as the subscriber: checks, and compiles as the owners of the tables. This may run code
--              of these owners (110_expressions.sql)
--   3_open     as pgstream_owner: CREATE on the schema for the owners of the tables
--   4_define   as the subscriber: the trigger functions, which belong to these owners. Nothing that a
--              user made runs
--   5_close    as pgstream_owner: takes CREATE back
--   6_apply    as the subscriber: creates and drops triggers

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
  end loop;
end $$;

create or replace function pgstream._open(removed pgstream.subscriptions[],
                                          added pgstream.subscriptions[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  owner regrole;
begin
  for owner in
    select distinct c.relowner from unnest(removed || added) s
    join pg_class c on c.oid = pgstream._relation(s.schema_name, s.table_name)
  loop
    execute format('grant create on schema pgstream to %s', owner);
  end loop;
end $$;

create or replace function pgstream._subscriptions_close() returns trigger
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

-- Compiles what a statement has added to pgstream.subscriptions, and forgets what it has removed.
create or replace function pgstream._compile_all(removed pgstream.subscriptions[],
                                                 added pgstream.subscriptions[], path text)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  s pgstream.subscriptions;
  rel oid;
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
    insert into pgstream._subscriptions
    select c.* from pgstream._compile_as_owner(rel, s, path) c;
  end loop;
end $$;

-- Makes the trigger functions follow the rows.
create or replace function pgstream._define_all(removed pgstream.subscriptions[],
                                                added pgstream.subscriptions[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  for t in
    select distinct c.schema_name, c.table_name, c.operation,
           pgstream._relation(c.schema_name, c.table_name) as rel
    from unnest(coalesce(removed, '{}') || coalesce(added, '{}')) c
    join pgstream._tables k using (schema_name, table_name)
    where pgstream._relation(c.schema_name, c.table_name) is not null
    order by 1, 2, 3
  loop
    perform pgstream._define_functions(t.rel, t.schema_name, t.table_name, t.operation);
  end loop;
end $$;

-- Makes the triggers follow the rows.
create or replace function pgstream._apply(removed pgstream.subscriptions[],
                                           added pgstream.subscriptions[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  perform pgstream._create_triggers(array(
    select c from unnest(coalesce(added, '{}')) with ordinality
      s (id, key, stream_id, operation, schema_name, table_name, when_clause, column_names, metadata,
         payload_extensions, n)
    join pgstream._subscriptions c using (stream_id, key, schema_name, table_name, operation)
    order by s.n));
  for t in
    select distinct k.part, c.operation
    from unnest(coalesce(removed, '{}') || coalesce(added, '{}')) c
    join pgstream._tables k using (schema_name, table_name)
    order by 1, 2
  loop
    perform pgstream._drop_triggers(pgstream._function_name(t.part, t.operation));
  end loop;
end $$;

-- The triggers on the table, one set for each operation. `2_compile` has the search_path of the
-- statement, by which the expressions of subscriptions are understood: all names in it are
-- qualified.
do $$
declare
  rows_of constant text :=
    '(select pg_catalog.array_agg(row(r.*)::pgstream.subscriptions) from %s r)';
  pinned constant text := 'set search_path = pg_catalog, pg_temp';
  operation record;
  step record;
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
    for step in
      select * from (values
        (1, 'prepare', 'security definer ' || pinned, '_prepare(%s, %s)'),
        (2, 'compile', '', '_compile_all(%s, %s, coalesce((select pg_catalog.string_agg('
           'pg_catalog.quote_ident(p), '', '') from pg_catalog.unnest('
           'pg_catalog.current_schemas(false)) p), ''''))'),
        (3, 'open', 'security definer ' || pinned, '_open(%s, %s)'),
        (4, 'define', pinned, '_define_all(%s, %s)'),
        (6, 'apply', pinned, '_apply(%s, %s)')) s (n, name, header, call)
    loop
      execute format($definition$
        create or replace function pgstream._subscriptions_%s_%s() returns trigger
        language plpgsql %s as %L
      $definition$, operation.name, step.name, step.header, format(
        'begin perform pgstream.%s; return null; end',
        format(step.call, operation.removed, operation.added)));
      execute format('create or replace trigger "%4$s_%3$s_%1$s" after %1$s '
                     'on pgstream.subscriptions %2$s for each statement '
                     'execute function pgstream._subscriptions_%1$s_%3$s()',
                     operation.name, operation.tables, step.name, step.n);
    end loop;
    execute format('create or replace trigger "5_close_%1$s" after %1$s on pgstream.subscriptions '
                   'for each statement execute function pgstream._subscriptions_close()',
                   operation.name);
  end loop;
end $$;

-- What an earlier version, which had other steps, has left.
do $$
declare
  statement text;
begin
  for statement in
    select s.text from (
      select 1 as n, format('drop trigger %I on pgstream.subscriptions', t.tgname) as text
      from pg_trigger t
      where t.tgrelid = 'pgstream.subscriptions'::regclass and t.tgname ~ '^(2_apply|3_finish)_'
      union all
      select 2, format('drop function %s', p.oid::regprocedure) from pg_proc p
      where p.pronamespace = 'pgstream'::regnamespace
        and (p.proname = '_subscriptions_finish' or p.proname = '_apply' and p.pronargs = 3)) s
    order by s.n
  loop
    execute statement;
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
