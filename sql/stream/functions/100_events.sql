-- Writing events: for each subscribed table one function that writes an event, and one that keeps a
-- change whose event could not be made. They take finished jsonb and evaluate nothing. Only the
-- owner of the table may execute them, because its trigger functions call them.
--
-- They do not pin the search_path, which would cost each event: every name in them is qualified.

-- The id of an event, a UUID of version 7.
do $$
begin
  execute format(
    'create or replace function pgstream._event_id(at timestamptz) returns uuid language sql '
    'volatile as %L',
    case when current_setting('server_version_num')::int >= 180000
         then 'select pg_catalog.uuidv7()'
         -- 48 bits of milliseconds and the version, then 72 bits of a random UUID with its variant.
         else 'select pg_catalog.encode(pg_catalog.overlay('
              'pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), pg_catalog.substring('
              'pg_catalog.int8send(pg_catalog.floor(pg_catalog.date_part(''epoch'', at) '
              'operator(pg_catalog.*) 1000)::pg_catalog.int8 operator(pg_catalog.*) 256 '
              'operator(pg_catalog.+) 112), 2), 1, 7), ''hex'')::pg_catalog.uuid' end);
end $$;

-- The day of a point in time in UTC, for which `events` has a partition: days since 2000-01-01.
create or replace function pgstream._day(at timestamptz) returns text
language sql immutable
as $$
  select (pg_catalog.timezone('0'::pg_catalog.interval, at)::pg_catalog.date
    operator(pg_catalog.-) '2000-01-01'::pg_catalog.date)::pg_catalog.text;
$$;

-- The name of the partition for a point in time.
create or replace function pgstream._partition_of(at timestamptz) returns text
language sql stable
as $$
  select pg_catalog.concat('pgstream.events_', pg_catalog.to_char(pg_catalog.timezone('UTC', at),
                                                                  'YYYYMMDD'));
$$;

-- Whether `events` has a partition for a point in time. What answers is the catalog cache, not a
-- snapshot: an old transaction sees no partition that is being detached.
create or replace function pgstream._has_partition(at timestamptz) returns boolean
language sql stable
as $$
  select coalesce(pg_catalog.pg_partition_root(
    pg_catalog.to_regclass(pgstream._partition_of(at)))::pg_catalog.oid
      operator(pg_catalog.=) 'pgstream.events'::pg_catalog.regclass::pg_catalog.oid, false);
$$;

-- The beginning of a text that fits into so many bytes.
create or replace function pgstream._cut(whole text, bytes int) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select left(whole, n) from generate_series(length(whole), 0, -1) n
  where octet_length(left(whole, n)) <= bytes limit 1;
$$;

-- What stands for a table in the names of its functions: its name, with a digest where that is too
-- long, or taken by a table of another schema.
create or replace function pgstream._assign_part(in_schema text, named text) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  digest constant text := '_' || left(md5(format('%I.%I', in_schema, named)), 7);
  longest constant int := 63 - length('_publish_after_insert_on_');
  assigned text;
begin
  select t.part into assigned from pgstream._tables t
  where t.schema_name = in_schema and t.table_name = named;
  if found then
    return assigned;
  end if;
  assigned := named;
  if octet_length(named) > longest
     or exists (select from pgstream._tables t where t.part = named) then
    assigned := pgstream._cut(named, longest - length(digest)) || digest;
  end if;
  insert into pgstream._tables (schema_name, table_name, part) values (in_schema, named, assigned);
  return assigned;
end $$;

-- The name of the function that a table's triggers for one operation call.
create or replace function pgstream._function_name(part text, operation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('_publish_after_%s_on_%s', lower(operation), part);
$$;

-- The name of the function that evaluates conditions of a table's subscriptions.
create or replace function pgstream._condition_name(part text, operation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format('_condition_of_%s_on_%s', lower(operation), part);
$$;

-- Creates a function of ours that the owners of a table may execute, and no other role.
create or replace function pgstream._define(signature text, definition text, owners oid[])
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  grantee regrole;
begin
  execute format('create or replace function %s %s', signature, definition);
  execute format('revoke all on function %s from public', signature);
  for grantee in
    select distinct a.grantee from pg_proc p cross join lateral aclexplode(p.proacl) a
    where p.oid = to_regprocedure(signature) and a.grantee <> all (owners || p.proowner)
      and a.grantee <> 0
  loop
    execute format('revoke all on function %s from %s', signature, grantee);
  end loop;
  foreach grantee in array owners loop
    execute format('grant execute on function %s to %s', signature, grantee);
  end loop;
end $$;

-- Writes the two functions of a table again. Streams that no subscription names are left out: an
-- event for them, of a transaction that ran the older trigger function, is dropped. The first function
-- says whether it wrote the event.
--
-- A transaction looks for the partition once: its first event locks the partition, which stays until
-- the transaction, or the savepoint with the setting, ends. Looking takes a tenth of the time of an
-- event. The id is computed before the INSERT: PL/pgSQL prepares an expression of its own only once.
create or replace function pgstream._define_writers(part text, in_schema text, named text,
                                                    owners oid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  streams constant bigint[] := array(
    select distinct s.stream_id from pgstream.subscriptions s
    where s.schema_name = in_schema and s.table_name = named order by 1);
begin
  perform pgstream._define(
    format('pgstream.%I(bigint, jsonb, jsonb)', '_write_' || part),
    format('returns boolean language plpgsql security definer as %L', format($body$
declare
  at constant pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  id constant pg_catalog.uuid := pgstream._event_id(at);
  is_there boolean := pg_catalog.current_setting('pgstream.partition_of', true)
                      operator(pg_catalog.=) pgstream._day(at)
                      and $1 operator(pg_catalog.=) any (%1$L::pg_catalog._int8);
begin
  if is_there is not true then
    if $1 operator(pg_catalog.<>) all (%1$L::pg_catalog._int8) then
      return false;
    end if;
    is_there := pgstream._has_partition(at);
    if is_there then
      perform pg_catalog.set_config('pgstream.partition_of', pgstream._day(at), true);
    end if;
  end if;
  if is_there then
    insert into pgstream.events (id, payload, metadata, stream_id, created_at)
    values (id, $2, $3, $1, at);
  else
    insert into pgstream.events_overflow (id, payload, metadata, stream_id, created_at)
    values (id, $2, $3, $1, at);
  end if;
  return true;
end $body$, streams)), owners);
  perform pgstream._define(
    format('pgstream.%I(bigint, text, text, boolean, text, text, jsonb, jsonb)', '_keep_' || part),
    format('returns void language plpgsql security definer as %L', format($body$
begin
  if $1 operator(pg_catalog.=) any (%L::pg_catalog._int8) then
    perform pgstream._keep($1, $2, %L, %L, $3, $4, $5, $6, $7, $8);
  end if;
end $body$, streams, in_schema, named)), owners);
end $$;

-- Lets the owners of trigger functions write events where they may not: REASSIGN OWNED gives these
-- functions to another role together with the table, and not what the earlier owner was granted. The
-- trigger function of such a table calls it, so that the statement of an application does not fail.
-- Any role may call it: it grants what follows from who owns the functions. One session at a time
-- does it, for all tables, and is waited for briefly.
create or replace function pgstream._let_owners_write() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '2s'
as $$
declare
  denied record;
begin
  perform pg_advisory_xact_lock(hashtextextended('pgstream writers', 0));
  for denied in
    select w.writer, o.owner
    from pgstream._tables t
    cross join lateral (select f.owner from pgstream._functions_of(t.schema_name, t.table_name) f
                        where f.is_used group by f.owner) o
    cross join lateral unnest(array[
      to_regprocedure(format('pgstream.%I(bigint,jsonb,jsonb)', '_write_' || t.part)),
      to_regprocedure(format('pgstream.%I(bigint,text,text,boolean,text,text,jsonb,jsonb)',
                             '_keep_' || t.part))]) w (writer)
    where not has_function_privilege(o.owner, w.writer, 'EXECUTE')
    order by w.writer
  loop
    execute format('grant execute on function %s to %s', denied.writer, denied.owner::regrole);
  end loop;
exception when lock_not_available or deadlock_detected then
  raise warning 'pgstream: writing the events of a table waits for another session';
end $$;

-- What happens to a change whose event could not be made: streams.on_error decides.
create or replace function pgstream._keep(
  stream bigint, subscription text, in_schema text, named text, operation text,
  in_condition boolean, code text, message text, new_image jsonb, old_image jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  on_error constant text := (select s.on_error from pgstream.streams s where s.id = stream);
  told constant text := format('subscription "%s" of stream %s: %s', subscription, stream, message);
begin
  if on_error = 'raise' then
    raise exception using errcode = code, message = told,
      hint = format('UPDATE pgstream.streams SET on_error = ''keep'' WHERE id = %s; lets '
                    'transactions commit, and keeps such changes in pgstream.failed_events.',
                    stream);
  elsif on_error = 'log' then
    raise warning using errcode = code, message = told;
  else
    insert into pgstream.failed_events
      (stream_id, key, schema_name, table_name, operation, new_row, old_row, in_condition,
       error_code, error_message)
    values (stream, subscription, in_schema, named, operation, new_image, old_image, in_condition,
            code, message);
  end if;
end $$;

-- A row of a user's table as jsonb, whatever its columns are at this moment.
create or replace function pgstream._image(rel oid, "row" record) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  image jsonb;
begin
  if "row" is not distinct from null then
    return null;
  end if;
  execute format('select %s from (select ($1).*) x', pgstream_json.row_sql(rel, 'x', 'x.*'))
  into image using "row";
  return image;
exception when others then
  return '{"__pgtrickle_omitted": ["*"]}';
end $$;
grant execute on function pgstream._image(oid, record) to public;
