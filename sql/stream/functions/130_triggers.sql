-- The triggers on subscribed tables, and the functions that they call. These functions run as the
-- subscriber: the trigger function is the table owner's, and so is the right to create triggers.
--
-- Each subscription has a trigger of its own with its condition. Its arguments are the key, the
-- stream, and the revision, which changes with the condition. The function makes no event for a
-- revision that it does not know: so a removed subscription ends at once, before its trigger is
-- dropped, for which the table must be free of readers.

-- The body of the function that a table's triggers for one operation call. The event is written in an
-- assignment: PERFORM would run a query for the call, which takes a tenth of the time of an event.
-- The owner of the function may not write events only after REASSIGN OWNED.
create or replace function pgstream._body(part text, in_schema text, named text, operation text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  branches text;
begin
  select string_agg(format($branch$
    %s tg_argv[2] = %L then
      event_stream := %s;%s%s
      if %s then
        raise datatype_mismatch
          using message = 'columns have other types than the subscription was made for';
      end if;
      event_payload := %s;$branch$, case when s.n = 1 then 'if' else 'elsif' end, s.revision,
                           s.stream_id,
                           case when s.metadata is not null then
                             format(E'\n      event_metadata := %L;', s.metadata) end,
                           case when s.condition_may_fail then format($failed$
      error_message := substring(current_setting('pgstream.failed_conditions', true)
                                 from '%s ([^\n]*)');
      if error_message is not null then
        in_condition := true;
        raise exception using message = error_message;
      end if;$failed$, s.revision) end, s.other_types_sql, s.payload_sql), '' order by s.n)
  into branches
  from (select c.*, u.metadata, row_number() over (order by c.stream_id, c.key) as n
        from pgstream._subscriptions c
        join pgstream.subscriptions u using (stream_id, key, schema_name, table_name, operation)
        where c.schema_name = in_schema and c.table_name = named
          and c.operation = _body.operation) s;
  if branches is null then
    return 'begin return null; end';
  end if;
  return format($body$
declare
  event_stream bigint;
  event_metadata jsonb;
  event_payload jsonb;
  in_condition boolean;
  error_code text;
  error_message text;
  written boolean;
begin
  begin%1$s
    end if;
  exception when others or assert_failure then
    get stacked diagnostics error_code = returned_sqlstate, error_message = message_text;
  end;
  if not has_function_privilege(%6$L::regprocedure, 'EXECUTE') then
    perform pgstream._let_owners_write();
  end if;
  if error_code is not null then
    perform pgstream.%3$I(event_stream, tg_argv[0], tg_op, in_condition is true, error_code,
                          error_message, %4$s, %5$s);
  elsif event_payload is not null then
    written := pgstream.%2$I(event_stream, event_payload, event_metadata);
  end if;
  return null;
end $body$, branches, '_write_' || part, '_keep_' || part,
    case operation when 'DELETE' then 'null' else 'pgstream._image(tg_relid, new)' end,
    case operation when 'INSERT' then 'null' else 'pgstream._image(tg_relid, old)' end,
    format('pgstream.%I(bigint,jsonb,jsonb)', '_write_' || part));
end $$;

-- A condition that may fail is evaluated by a function of the table's owner, as the role that
-- writes: an error there must not make the statement fail. It is noted for the rest of the
-- transaction, and the trigger function keeps the changes for this revision. (A role can forge the
-- note: its own changes are kept then.)
create or replace function pgstream._condition_body(in_schema text, named text, operation text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format($body$
begin
  %s
  end if;
  return false;
exception when others or assert_failure then
  perform set_config('pgstream.failed_conditions', concat(
    current_setting('pgstream.failed_conditions', true), revision, ' ',
    replace(sqlerrm, chr(10), ' '), chr(10)), true);
  return true;
end $body$, string_agg(format('%s revision = %L then return %s;',
                              case when s.n = 1 then 'if' else 'elsif' end, s.revision,
                              s.condition_sql), E'\n  ' order by s.n))
  from (select c.*, row_number() over (order by c.stream_id, c.key) as n
        from pgstream._subscriptions c
        where c.schema_name = in_schema and c.table_name = named
          and c.operation = _condition_body.operation and c.condition_may_fail) s
  having count(*) > 0;
$$;

-- The settings under which a table's values are written.
create or replace function pgstream._pinned_settings(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format(' set %I = %L', k.name, k.pinned), '' order by k.name)
  from pgstream_json._settings_known() k
  where k.name = 'TimeZone' or k.name = any (pgstream_json.settings(rel));
$$;

-- Creates or replaces a function in the name of the owner of a table, where it would change.
create or replace function pgstream._define_for_owner(
  rel oid, name text, arguments text, header text, body text) returns regprocedure
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  table_owner constant oid := (select c.relowner from pg_class c where c.oid = rel);
  known record;
  defined regprocedure;
begin
  select p.oid, p.proowner, p.prosrc into known from pg_proc p
  where p.pronamespace = 'pgstream'::regnamespace and p.proname = name;
  if known.proowner <> table_owner then
    raise exception 'function % does not belong to the owner of table "%"', known.oid::regprocedure,
        rel::regclass
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('Let a superuser run: DROP FUNCTION %s CASCADE; UPDATE '
                          'pgstream.subscriptions SET key = key; in one transaction.',
                          known.oid::regprocedure);
  elsif known.prosrc = body then
    return known.oid;
  end if;
  execute format('create or replace function pgstream.%I(%s) %s as %L', name, arguments, header,
                 body);
  select p.oid into defined from pg_proc p
  where p.pronamespace = 'pgstream'::regnamespace and p.proname = name;
  if known.oid is null then
    execute format('revoke all on function %s from public', defined);
    if table_owner <> current_user::regrole then
      execute format('alter function %s owner to %I', defined, pg_get_userbyid(table_owner));
    end if;
  end if;
  return defined;
end $$;

-- The functions of a table for one operation. They run with the rights of its owner. Neither takes
-- a lock on the table.
create or replace function pgstream._define_functions(rel oid, in_schema text, named text,
                                                      operation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  part constant text := (select t.part from pgstream._tables t
                         where t.schema_name = in_schema and t.table_name = named);
  name constant text := pgstream._function_name(part, operation);
  arguments constant text := case operation when 'INSERT' then 'new record'
    when 'DELETE' then 'old record' else 'new record, old record' end;
  condition_body constant text := pgstream._condition_body(in_schema, named, operation);
  stale record;
begin
  select s.key, s.owner_name into stale from pgstream._subscriptions s
  where s.schema_name = in_schema and s.table_name = named
    and s.operation = _define_functions.operation
    and s.owner_name <> (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel)
  limit 1;
  if found then
    raise exception 'subscription "%" was made for "%", and table "%" has another owner now',
        stale.key, stale.owner_name, rel::regclass
      using errcode = 'object_not_in_prerequisite_state',
            detail = 'Its expressions run with the rights of the owner of the table.',
            hint = format(
              'See its expressions. Then let a superuser run: BEGIN; DROP FUNCTION pgstream.%I() '
              'CASCADE; UPDATE pgstream.subscriptions SET key = key WHERE schema_name = %L AND '
              'table_name = %L AND operation = %L; COMMIT;', name, in_schema, named, operation);
  end if;
  if condition_body is not null then
    execute format('grant execute on function %s to public', pgstream._define_for_owner(
      rel, pgstream._condition_name(part, operation), concat('revision text, ', arguments),
      'returns boolean language plpgsql set search_path = pg_catalog, pg_temp', condition_body));
  end if;
  perform pgstream._define_for_owner(
    rel, name, '',
    format('returns trigger language plpgsql security definer '
           'set search_path = pg_catalog, pg_temp%s', pgstream._pinned_settings(rel)),
    pgstream._body(part, in_schema, named, operation));
end $$;

-- The triggers of ours on a table for one operation, with the revisions in their arguments.
create or replace function pgstream._triggers(function_name text)
returns table (rel oid, name name, revision text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.tgrelid, t.tgname,
         (regexp_match(encode(t.tgargs, 'escape'), E'([0-9a-f]{16})\\\\000$'))[1]
  from pg_trigger t join pg_proc p on p.oid = t.tgfoid
  where p.pronamespace = 'pgstream'::regnamespace and p.proname = function_name
    and t.tgparentid = 0;
$$;

-- The statement that creates the trigger of a subscription, or null where there is one. A partition
-- has the triggers of its table under the same names. Those of a partitioned table get a name that
-- no other table's trigger has: a table that has the short name already can then become its
-- partition.
create or replace function pgstream._trigger_sql(rel oid, compiled pgstream._subscriptions,
                                                 taken text[]) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  part constant text := (select t.part from pgstream._tables t
                         where t.schema_name = compiled.schema_name
                           and t.table_name = compiled.table_name);
  function_name constant text := pgstream._function_name(part, compiled.operation);
  name text := concat('pgstream_', lower(compiled.operation));
begin
  if exists (select from pgstream._triggers(function_name) t
             where t.rel = _trigger_sql.rel and t.revision = compiled.revision) then
    return null;
  elsif name = any (taken)
     or exists (select from pg_class c where c.oid = rel and c.relkind = 'p')
     or exists (select from pg_trigger t
                where t.tgname = name
                  and t.tgrelid in (select rel union all
                                    select p.relid from pg_partition_tree(rel) p)) then
    name := concat(name, '_', compiled.revision);
  end if;
  return format('create constraint trigger %I after %s on %s deferrable initially deferred '
                'for each row %s execute function pgstream.%I(%L, %L, %L)', name,
                compiled.operation, rel::regclass,
                'when (' || case when compiled.condition_may_fail then format(
                  'pgstream.%I(%L, %s)', pgstream._condition_name(part, compiled.operation),
                  compiled.revision, case compiled.operation when 'INSERT' then 'new.*'
                    when 'DELETE' then 'old.*' else 'new.*, old.*' end)
                  else compiled.condition_sql end || ')', function_name, compiled.key,
                compiled.stream_id, compiled.revision);
end $$;

-- Runs statements that lock tables, all or none, and has other sessions wait for 200 ms at most
-- each time that it tries: behind a lock that is waited for, each writer waits. It gives up sooner
-- than PostgreSQL looks for deadlocks, so that no statement of an application fails.
create or replace function pgstream._run_locking(statements text[], patience interval)
returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
declare
  budget constant int := least(200, (select greatest(s.setting::int / 2, 1) from pg_settings s
                                     where s.name = 'deadlock_timeout'));
  give_up_at constant timestamptz := clock_timestamp() + patience;
  started_at timestamptz;
  statement text;
begin
  loop
    begin
      started_at := clock_timestamp();
      foreach statement in array statements loop
        perform set_config('lock_timeout', greatest(1, budget - (
          extract(epoch from clock_timestamp() - started_at) * 1000)::int)::text, true);
        execute statement;
      end loop;
      return true;
    exception when lock_not_available or deadlock_detected then
      if clock_timestamp() >= give_up_at then
        return false;
      end if;
    end;
    perform pg_sleep(0.05 + random() * 0.2);
  end loop;
end $$;

-- Creates the triggers of subscriptions that were compiled just now.
create or replace function pgstream._create_triggers(made pgstream._subscriptions[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  compiled pgstream._subscriptions;
  rel oid;
  rels oid[] := '{}';
  named text[] := '{}';
  statement text;
  statements text[] := '{}';
begin
  foreach compiled in array made loop
    rel := pgstream._relation(compiled.schema_name, compiled.table_name);
    statement := pgstream._trigger_sql(rel, compiled, array(
      select n from unnest(rels, named) t (r, n) where t.r = rel));
    if statement is not null then
      rels := rels || rel;
      named := named || (regexp_match(statement, '^create constraint trigger (\S+) '))[1];
      statements := statements || statement;
    end if;
  end loop;
  if not pgstream._run_locking(statements, '60 s') then
    raise exception 'tables have been in use for 60 s: %',
        (select string_agg(distinct r::regclass::text, ', ') from unnest(rels) r)
      using errcode = 'lock_not_available', detail = 'Nothing was changed.',
            hint = format('Try again. Their writers are: %s.', (
              select string_agg(distinct coalesce(l.pid::text, 'a prepared transaction'), ', ')
              from pg_locks l
              where l.relation = any (rels) and l.granted and l.mode <> 'AccessShareLock'
                and l.pid is distinct from pg_backend_pid()));
  end if;
end $$;

-- Drops the triggers that no subscription needs, where their tables are free. (A table that was
-- renamed has one that is needed until there is another table of its name.) Others stay; they do
-- nothing, and the next change of a subscription to the table tries again.
create or replace function pgstream._drop_triggers(function_name text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  unused record;
begin
  for unused in
    select t.rel, array_agg(format('drop trigger %I on %s', t.name, t.rel::regclass)) as statements
    from pgstream._triggers(function_name) t
    join pg_class c on c.oid = t.rel and pg_has_role(current_user, c.relowner, 'USAGE')
    where not exists (
      select from pgstream._subscriptions s
      where s.revision = t.revision
        and coalesce(pgstream._relation(s.schema_name, s.table_name), t.rel) = t.rel)
    group by t.rel
  loop
    if not pgstream._run_locking(unused.statements, '1 s') then
      raise notice 'table "%" is in use: unused triggers of postgres-stream stay there and do '
        'nothing', unused.rel::regclass;
    end if;
  end loop;
end $$;
