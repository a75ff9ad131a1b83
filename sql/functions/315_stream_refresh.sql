-- The refresh of a stream table.
--
--   refresh_stream_table (pgtrickle_owner)    locks, looks at the sources, keeps the books,
--     |                                       writes the outbox
--   the gate (010_gate.sql)
--     |
--   pgtrickle_streams.refresh_<id> (creator)  holds the query
--     |
--   stream_work (as the creator)             computes the difference and applies it
--
-- pgtrickle_owner never reads a relation of the creator's: what it needs is handed up as text and
-- jsonb. (A table could have become a view by now, or have a row security policy, and either runs
-- code with the rights of the role that reads it.)

-- Runs one step as the creator of the stream table.
create or replace function pgtrickle_internal.stream_step(
  st pgtrickle_internal.stream_tables, action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select *
    from pgtrickle_internal.gate_step('refresh_' || st.pgt_id, st.pgt_owner,
                                      format('stream table %s.%s', st.pgt_schema, st.pgt_name), action,
                                      arg);
end $$;

-- ---------------------------------------------------------------------------------------------
-- The refresh

-- Where the sources stand, taken before the difference is computed: "seen" is each sequence's
-- value; "states" are their definitions; "writers" are the transactions that hold a writer's lock on
-- a source. A sequence moves
-- before its transaction commits: what such a writer did may be seen as moved, and not in the
-- snapshot. So the stream table is due again when one of them has ended.
create or replace function pgtrickle_internal.stream_look(
  id bigint, out seen jsonb, out writers text[], out states jsonb)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  select coalesce(jsonb_object_agg(s.source::oid::text, s.state), '{}') into states
  from pgtrickle_internal.stream_source_states(id) s;
  select coalesce(jsonb_object_agg(s.source::oid::text, pg_sequence_last_value(s.sequence)), '{}')
  into seen
  from pgtrickle.pgt_stream_sources s where s.pgt_id = id and s.sequence is not null;
  -- A statement of its own, after the sequences were read: a lock is released after its
  -- transaction has become visible.
  writers := array(select * from pgtrickle_internal.stream_writers(id));
end $$;

-- The virtual transactions (of prepared transactions too) of others that may have written to a
-- source and not ended yet.
create or replace function pgtrickle_internal.stream_writers(id bigint) returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select distinct l.virtualtransaction
    from pg_locks l
    where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
      and l.database = (select oid from pg_database where datname = current_database())
      and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                     'AccessExclusiveLock')
      and l.relation in (select m from pgtrickle.pgt_stream_sources s cross join unnest(s.members) m
                         where s.pgt_id = id);
end $$;

-- Hands the rows of the difference to the outbox of the stream table; returns the outbox id. The
-- difference stays.
create or replace function pgtrickle_internal.stream_publish_rows(
  st pgtrickle_internal.stream_tables, outbox text, refresh uuid, mode text, pages bigint,
  started timestamptz) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  named text := format('pgtrickle.%I', 'pgt_changes_' || st.pgt_id);
  from_page bigint := 0;
  per_step constant bigint := 4096;
  outbox_id bigint;
begin
  if to_regclass(named) is null then
    execute format('create unlogged table %s (op text, ord bigint, row_data jsonb)', named);
  end if;
  while from_page < pages loop
    execute format('insert into %s select * from pgtrickle_internal.stream_step($1, $2, $3)', named)
    using st, 'rows', jsonb_build_object('from', from_page, 'to', from_page + per_step);
    from_page := from_page + per_step;
  end loop;
  outbox_id := pgtrickle_internal.outbox_append(
    outbox, named::regclass, refresh, mode,
    (extract(epoch from clock_timestamp() - started) * 1000)::int, mode = 'FULL');
  perform pgtrickle_internal.stream_empty(named::regclass);
  return outbox_id;
end $$;

-- The same, and the difference is no longer needed.
create or replace function pgtrickle_internal.stream_publish(
  st pgtrickle_internal.stream_tables, outbox text, refresh uuid, mode text, pages bigint,
  started timestamptz) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox_id constant bigint := pgtrickle_internal.stream_publish_rows(st, outbox, refresh, mode, pages,
                                                                      started);
begin
  perform pgtrickle_internal.stream_step(st, 'done', '{}');
  return outbox_id;
end $$;

-- After something behind the query was altered: it must still fit, and a derived key is derived again.
-- Returns the key.
create or replace function pgtrickle_internal.stream_verify_key(st pgtrickle_internal.stream_tables)
returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  arg constant jsonb := case when st.key_derived then jsonb_build_object('key', st.key_columns)
                             else '{}' end;
  found_now jsonb;
  keys text[];
begin
  select s.row_data -> 'key' into found_now from pgtrickle_internal.stream_step(st, 'verify', arg) s;
  if not st.key_derived then
    return st.key_columns;
  elsif found_now <> 'null' then
    keys := array(select jsonb_array_elements_text(found_now));
  end if;
  if keys is distinct from st.key_columns then
    perform pgtrickle_internal.stream_set_key(st.pgt_id, keys);
    raise notice 'the key of stream table %.% is now: %', st.pgt_schema, st.pgt_name,
      coalesce(array_to_string(keys, ', '), 'none');
  end if;
  return keys;
end $$;

-- The refresh itself. Everything that it does is undone when it fails. `promoted`: the table that the
-- query had until it was promoted to this one (318_stream_promote.sql), null at other refreshes.
-- Columns that this one lacks are added between the computing and the writing of the difference, so
-- that readers wait for the writing only.
create or replace function pgtrickle_internal.stream_refresh(
  st pgtrickle_internal.stream_tables, refresh uuid, started timestamptz, promoted regclass,
  out summary jsonb, out action text, out taken_at timestamptz, out outbox_id bigint)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  looked record;
  outbox record;
  through regclass[];
  mode text := case st.refresh_mode when 'FULL' then 'FULL' else 'DIFFERENTIAL' end;
  names text := pgtrickle_internal.stream_names_in_values(st.pgt_relid);
  -- A promotion has looked at what the query reads before it began.
  watch_again boolean := promoted is null and pgtrickle_internal.stream_wants_watching(st.pgt_id);
  widens constant boolean := pgtrickle_internal.stream_added_columns(st.pgt_relid, promoted) <> '{}';
begin
  if not pgtrickle_internal.stream_is_guarded(st.pgt_relid) then
    raise exception '% is not the table of stream table %.%: it has no trigger pgtrickle_guard',
        st.pgt_relid, st.pgt_schema, st.pgt_name
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Drop the stream table and create it again.';
  elsif watch_again then
    st.key_columns := pgtrickle_internal.stream_verify_key(st);
  end if;
  select o.outbox_table_name, o.outbox_number, o.key_columns, o.key_attnums,
         pgtrickle_internal.attnums(st.pgt_relid, o.key_columns) as attnums_now
  into outbox
  from pgtrickle_internal.outbox_config o where o.stream_table_oid = st.pgt_relid;

  -- The rows that a consumer has are written differently now, or another column has the name of their
  -- key now, and no difference shows that.
  if outbox.outbox_table_name is not null
     and (st.names_in_values <> names or outbox.attnums_now is distinct from outbox.key_attnums) then
    mode := 'FULL';
  end if;

  looked := pgtrickle_internal.stream_look(st.pgt_id);
  taken_at := clock_timestamp();
  select s.row_data into summary
  from pgtrickle_internal.stream_step(
    st, case mode when 'FULL' then 'full' else 'apply' end,
    jsonb_build_object('keep', outbox.outbox_table_name is not null, 'opaque', st.opaque,
                       'order_by', to_jsonb(outbox.key_columns), 'write', not widens,
                       'key', case when st.key_derived then to_jsonb(st.key_columns) end)) s;
  -- enable_outbox and disable_outbox lock the table as the step above does: which one there is now
  -- is certain.
  if outbox.outbox_table_name is distinct from (
       select o.outbox_table_name from pgtrickle_internal.outbox_config o
       where o.stream_table_oid = st.pgt_relid) then
    raise exception 'the outbox of stream table %.% came or went meanwhile', st.pgt_schema,
        st.pgt_name
      using errcode = 'serialization_failure';
  end if;
  through := array(select jsonb_array_elements_text(summary -> 'through'))::regclass[];
  perform pgtrickle_internal.stream_check_cycle(st.pgt_id, through);
  action := case when mode = 'FULL' then 'FULL'
                 when summary @> '{"inserted": 0, "updated": 0, "deleted": 0}' then 'NO_DATA'
                 else 'DIFFERENTIAL' end;
  if outbox.outbox_table_name is not null and action <> 'NO_DATA' then
    outbox_id := case when widens
      then pgtrickle_internal.stream_publish_rows(st, outbox.outbox_table_name, refresh, mode,
                                                  (summary ->> 'pages')::bigint, started)
      else pgtrickle_internal.stream_publish(st, outbox.outbox_table_name, refresh, mode,
                                             (summary ->> 'pages')::bigint, started) end;
  end if;
  if widens then
    perform pgtrickle_internal.stream_step(st, 'widen', jsonb_build_object('like', promoted::oid::bigint));
    perform pgtrickle_internal.stream_step(st, 'write', jsonb_build_object('mode', mode));
    names := pgtrickle_internal.stream_names_in_values(st.pgt_relid);
    outbox.attnums_now := pgtrickle_internal.attnums(st.pgt_relid, outbox.key_columns);
  end if;
  if outbox.attnums_now is distinct from outbox.key_attnums then
    update pgtrickle_internal.outbox_config o set key_attnums = outbox.attnums_now
    where o.outbox_number = outbox.outbox_number;
  end if;

  update pgtrickle.pgt_stream_sources s
  set seen = (looked.seen ->> s.source::oid::text)::bigint, relfilenode = c.relfilenode,
      state = looked.states ->> s.source::oid::text
  from pg_class c
  where s.pgt_id = st.pgt_id and c.oid = s.source
    and (s.seen is distinct from (looked.seen ->> s.source::oid::text)::bigint
         or s.relfilenode is distinct from c.relfilenode
         or s.state is distinct from looked.states ->> s.source::oid::text);
  update pgtrickle_internal.stream_tables s
  set pending_writers = looked.writers, is_populated = true, data_timestamp = taken_at,
      reads_through = case when s.opaque then through else '{}' end, names_in_values = names
  where s.pgt_id = st.pgt_id;
  -- Last, because it takes a lock on the sources until the end. It begins with having seen
  -- nothing, so that what changed since the look is found by the next refresh.
  if watch_again then
    perform pgtrickle_internal.stream_step(st, 'watch', jsonb_build_object('through', through));
  end if;
end $$;

-- Whether what the query reads has changed, or is not watched although it could be.
create or replace function pgtrickle_internal.stream_wants_watching(id bigint) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select pgtrickle_internal.stream_fingerprint(id) is distinct from t.fingerprint
        or t.names_in_values <> pgtrickle_internal.stream_names_in_values(t.pgt_relid)
        or exists (select from pgtrickle.pgt_stream_sources s
                   join pg_class c on c.oid = s.source and c.relkind in ('r', 'p')
                   where s.pgt_id = id
                     and ((not s.tracked
                         and (c.relowner = 'pgtrickle_owner'::regrole
                              or has_table_privilege(t.pgt_owner, s.source, 'TRIGGER')))
                          or pgtrickle_internal.source_members(s.source) <> s.members
                          -- Restored, with the number that the source had elsewhere.
                          or s.sequence <> to_regclass('pgtrickle.dirty_' || s.source::oid)
                          or (s.tracked
                              and to_regclass('pgtrickle.dirty_' || s.source::oid) is null)
                          or (s.tracked and exists (
                            select from unnest(s.members) m
                            join pg_class r on r.oid = m
                            cross join lateral pgtrickle_internal.source_triggers_missing(
                              m, s.source, case when r.relowner = 'pgtrickle_owner'::regrole
                                                then r.relowner else t.pgt_owner::oid end) w
                            where w.plain or w.by_row))))
    from pgtrickle_internal.stream_tables t where t.pgt_id = id);
end $$;

-- Forgets old refreshes of one stream table, a few at a time.
create or replace function pgtrickle_internal.stream_history_prune(id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle_internal.refresh_history h
  where h.refresh_id in (select o.refresh_id from pgtrickle_internal.refresh_history o
                         where o.pgt_id = id and o.started_at < now() - interval '3 days'
                         order by o.started_at limit 100);
end $$;

-- Writes history and state after a refresh, and notifies listeners.
create or replace function pgtrickle_internal.stream_succeeded(
  st pgtrickle_internal.stream_tables, refresh uuid, started timestamptz, ended timestamptz,
  done record) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  took bigint := extract(epoch from ended - started) * 1000;
  inserted bigint := done.summary -> 'inserted';
  updated bigint := done.summary -> 'updated';
  deleted bigint := done.summary -> 'deleted';
begin
  insert into pgtrickle_internal.refresh_history
    (refresh_id, pgt_id, stream_table, action, started_at, duration_ms, data_timestamp,
     rows_inserted, rows_updated, rows_deleted, outbox_id)
  values (refresh, st.pgt_id, format('%s.%s', st.pgt_schema, st.pgt_name), done.action, started,
          took, done.taken_at, inserted, updated, deleted, done.outbox_id);
  perform pgtrickle_internal.stream_history_prune(st.pgt_id);
  perform pgtrickle_internal.stream_alert('refresh_completed', st.pgt_id, jsonb_build_object(
    'action', done.action,
    'rows_inserted', inserted + updated,
    'rows_deleted', deleted + updated,
    'duration_ms', took,
    'changes', jsonb_build_object(
      'inserted', inserted, 'updated', updated, 'deleted', deleted,
      'affected_pks', done.summary -> 'keys',
      'truncated', st.key_columns is not null and done.action <> 'NO_DATA'
                   and jsonb_array_length(done.summary -> 'keys') < inserted + updated + deleted),
    'data_timestamp', done.taken_at));
  if done.action = 'FULL' then
    perform pgtrickle_internal.stream_full_refresh_notice(st.pgt_id, inserted);
  end if;
  update pgtrickle_internal.stream_tables s
  set refreshing_xid = null, consecutive_errors = 0, last_error = null, dirty_since = null,
      stale_alerted_at = null, last_refresh_at = started, last_duration_ms = took,
      next_due_at = pgtrickle_internal.stream_next_due(s.schedule, s.timezone, started, ended)
  where s.pgt_id = st.pgt_id;
  return jsonb_build_object('stream_table', format('%I.%I', st.pgt_schema, st.pgt_name),
                            'action', done.action, 'inserted', inserted, 'updated', updated,
                            'deleted', deleted, 'duration_ms', took);
end $$;

-- The same after a refresh that failed. Three in a row suspend the stream table, or one that found it
-- reading itself; one that lost a race for a lock does not count.
create or replace function pgtrickle_internal.stream_failed(
  st pgtrickle_internal.stream_tables, refresh uuid, started timestamptz, ended timestamptz,
  state text, message text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  took bigint := extract(epoch from ended - started) * 1000;
  counts boolean := state not in ('55P03', '40P01', '40001');
  errors int := st.consecutive_errors + counts::int;
  suspend boolean := counts and errors >= 3 or state = '42P19';
begin
  insert into pgtrickle_internal.refresh_history
    (refresh_id, pgt_id, stream_table, action, started_at, duration_ms, error)
  values (refresh, st.pgt_id, format('%s.%s', st.pgt_schema, st.pgt_name), 'FAILED', started,
          took, message);
  perform pgtrickle_internal.stream_history_prune(st.pgt_id);
  perform pgtrickle_internal.stream_alert('refresh_failed', st.pgt_id, jsonb_build_object(
    'action', case st.refresh_mode when 'FULL' then 'FULL' else 'DIFFERENTIAL' end,
    'error', message));
  if suspend then
    perform pgtrickle_internal.stream_alert('auto_suspended', st.pgt_id, jsonb_build_object(
      'consecutive_errors', errors, 'reason', message));
  end if;
  update pgtrickle_internal.stream_tables s
  set refreshing_xid = null, consecutive_errors = errors, last_error = message,
      dirty_since = coalesce(dirty_since, started),
      status = case when suspend then 'SUSPENDED' else status end,
      next_due_at = pgtrickle_internal.stream_next_due(s.schedule, s.timezone, started, ended)
  where s.pgt_id = st.pgt_id;
  raise warning 'refresh of stream table %.% failed: %', st.pgt_schema, st.pgt_name, message;
  return jsonb_build_object('stream_table', format('%I.%I', st.pgt_schema, st.pgt_name),
                            'action', 'FAILED', 'error', message, 'consecutive_errors', errors,
                            'suspended', suspend);
end $$;

-- Marks the stream table of that name as being refreshed by this transaction, after it has waited for
-- what others do with it. A promotion may have given the name to another one meanwhile, or taken it.
create or replace function pgtrickle_internal.stream_begin_refresh(name text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  id bigint;
begin
  loop
    id := pgtrickle_internal.stream_id(name);
    update pgtrickle_internal.stream_tables s set refreshing_xid = pg_current_xact_id()
    where s.pgt_id = id and s.refreshing_xid is distinct from pg_current_xact_id();
    if found then
      if pgtrickle_internal.stream_find(name) = id then
        return id;
      end if;
      update pgtrickle_internal.stream_tables s set refreshing_xid = null where s.pgt_id = id;
    elsif exists (select from pgtrickle_internal.stream_tables s where s.pgt_id = id) then
      raise exception 'stream table "%" is being refreshed by this very transaction', name
        using errcode = 'object_in_use';
    end if;
  end loop;
end $$;

-- What the error of a refresh adds where a publication does not let the table's rows be updated or
-- deleted: the server's message names neither the publication nor a remedy.
create or replace function pgtrickle_internal.stream_publications_said(
  rel regclass, state text, detail text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select format('. %s It is published by %s: the filter and the column list of a publication may use '
                  'columns of the replica identity only', detail,
                  string_agg(quote_ident(p.pubname), ', ' order by p.pubname))
    from pg_publication_tables p
    join pg_class c on c.oid = rel and c.relname = p.tablename
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = p.schemaname
    where state = '42P10'
    having count(*) > 0), '')
$$;

create or replace function pgtrickle.relay_refresh_stream_table(name text) returns jsonb
language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  id bigint;
  st pgtrickle_internal.stream_tables;
  refresh uuid := gen_random_uuid();
  started timestamptz;
  done record;
  state text;
  message text;
  detail text;
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'a stream table is refreshed in a READ COMMITTED transaction, not in %',
      upper(current_setting('transaction_isolation'))
      using errcode = 'active_sql_transaction',
            detail = 'An older snapshot would undo what later refreshes have stored.',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED; or, in a scheduler''s session, '
                   'SET default_transaction_isolation TO ''read committed'';';
  end if;
  perform pgtrickle_internal.stream_rebind();
  id := pgtrickle_internal.stream_begin_refresh(name);
  select * into strict st from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if st.status = 'SUSPENDED' then
    raise exception 'stream table "%" is suspended%', name,
      coalesce(', after ' || st.consecutive_errors || ' failures: ' || st.last_error, '')
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('SELECT pgtrickle.alter_stream_table(%L, resume => true) resumes it.',
                          name);
  end if;
  if not exists (select from pg_class c where c.oid = st.pgt_relid) then
    raise exception 'the table of stream table %.% has been dropped', st.pgt_schema, st.pgt_name
      using errcode = 'undefined_table',
            hint = format('SELECT pgtrickle.drop_stream_table(%L) removes what is left of it.',
                          name);
  end if;
  started := clock_timestamp();
  perform pgtrickle_internal.stream_follow_name(id);
  select * into strict st from pgtrickle_internal.stream_tables s where s.pgt_id = id;
  if st.fingerprint is not null and pgtrickle_internal.stream_fingerprint(id) <> st.fingerprint then
    perform pgtrickle_internal.stream_alert('reinitialize_needed', id, '{}');
  end if;

  for attempt in 1 .. 3 loop
    state := null;
    begin
      select * into done from pgtrickle_internal.stream_refresh(st, refresh, started, null);
    exception when others or query_canceled then
      get stacked diagnostics state = returned_sqlstate, message = message_text,
                              detail = pg_exception_detail;
      message := message || pgtrickle_internal.stream_publications_said(st.pgt_relid, state, detail);
    end;
    exit when state is distinct from '40001';
  end loop;
  if state is not null then
    return pgtrickle_internal.stream_failed(st, refresh, started, clock_timestamp(), state, message);
  end if;
  return pgtrickle_internal.stream_succeeded(st, refresh, started, clock_timestamp(), done);
end $$;

comment on function pgtrickle.relay_refresh_stream_table(text) is
  'For the relay: refreshes a stream table, as refresh_stream_table does';

-- What the daemon calls.
grant execute on function pgtrickle.relay_refresh_stream_table(text) to pgtrickle_relay;
