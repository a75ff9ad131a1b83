-- Leases: which relay owns which pipeline, leads a group, or does the housekeeping.
--
-- A relay opens one lease session and holds all its leases through it; each session has a random
-- token of its own. A lease belongs to its session until the session gives it up or is ended: that
-- is the deletion of the session's row, which takes its leases with it. Another relay ends a session
--   * when the relay behind it is gone: the database session is no longer there. Each lease session
--     holds an advisory lock (its mark) whose key comes from its token, and only that database
--     session can release the lock. So a missing mark proves the end, even behind a pooler that keeps
--     the connection, and without the right to see the activity of other roles;
--   * or when it was not renewed for lease_timeout by this database's clock. An existing
--     mark proves nothing, so a lock that another role takes cannot keep a pipeline from its owner.
-- A session can be ended at most once, and a renewal of an ended one changes nothing: there is never
-- a second owner while a first one could still be told that it is the owner.
--
-- The tables are unlogged: a crash or a failover ends every database session, and empties them. So a
-- renewal waits for no disk and no standby, and costs no WAL.
--
-- What fences the writes of a stale owner is the owner_token of the position (110): a new owner
-- writes a new one, and a relay whose lease another one holds cannot.

-- The key of the advisory lock that the database session of a lease session holds.
create or replace function pgtrickle_internal.lease_mark(token uuid) returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select hashtextextended('pgtrickle lease ' || token::text, 0); $$;

-- The advisory locks of this database, by the session that holds them.
create or replace function pgtrickle_internal.lease_marks() returns table (pid int, mark bigint)
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select l.pid, (l.classid::bigint << 32) | l.objid::bigint
  from pg_locks l
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database());
$$;

-- The lease sessions whose relay is there and has renewed in time.
create or replace function pgtrickle_internal.live_lease_sessions()
returns setof pgtrickle.relay_lease_sessions
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  with marks as materialized (
    select * from pgtrickle_internal.lease_marks()
  )
  select s.*
  from pgtrickle.relay_lease_sessions s
  where s.renewed_at + s.lease_timeout >= clock_timestamp()
    and exists (select from marks m
                where m.pid = s.backend_pid and m.mark = pgtrickle_internal.lease_mark(s.token));
$$;

-- The caller's lease session, kept from being ended until this transaction ends; null where it was
-- ended, or belongs to another database session.
create or replace function pgtrickle_internal.own_lease_session(token uuid)
returns pgtrickle.relay_lease_sessions
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select s.* from pgtrickle.relay_lease_sessions s
  where s.token = $1 and s.backend_pid = pg_backend_pid()
  for key share;
$$;

-- Ends the lease sessions whose relay is gone or did not renew in time, but the caller's own. One
-- that is being renewed, or takes something, at this moment is left alone. Here and below leases are
-- deleted by name: under session_replication_role = replica no foreign key does it.
create or replace function pgtrickle_internal.end_lease_sessions(own_token uuid)
returns table (relay_group_id text, worker_id text, expired boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with marks as materialized (
    select * from pgtrickle_internal.lease_marks()
  ), ended as (
    select s.token
    from pgtrickle.relay_lease_sessions s
    where s.token <> own_token
      and (s.renewed_at + s.lease_timeout < clock_timestamp()
           or not exists (select from marks m
                          where m.pid = s.backend_pid and m.mark = pgtrickle_internal.lease_mark(s.token)))
    for update skip locked
  ), leases as (
    delete from pgtrickle.relay_leases l using ended e where l.token = e.token
  )
  delete from pgtrickle.relay_lease_sessions s
  using ended e
  where s.token = e.token
  returning s.relay_group_id, s.worker_id, s.renewed_at + s.lease_timeout < clock_timestamp();
end $$;

-- Opens a lease session for this database session. An earlier one of the same worker ends: its
-- process has stopped everything that it owned.
create or replace function pgtrickle.relay_open_leases(relay_group text, worker text,
                                                       lease_timeout interval) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  token constant uuid := gen_random_uuid();
begin
  if not pg_try_advisory_lock(pgtrickle_internal.lease_mark(token)) then
    raise exception 'the mark of a new lease session is taken'
      using errcode = 'lock_not_available', hint = 'Try again: each session has another mark.';
  end if;
  with earlier as (
    delete from pgtrickle.relay_lease_sessions s
    where s.relay_group_id = relay_group and s.worker_id = worker
    returning s.token
  )
  delete from pgtrickle.relay_leases l using earlier e where l.token = e.token;
  insert into pgtrickle.relay_lease_sessions
    (token, relay_group_id, worker_id, backend_pid, lease_timeout)
  values (token, relay_group, worker, pg_backend_pid(), relay_open_leases.lease_timeout);
  return token;
end $$;
comment on function pgtrickle.relay_open_leases(text, text, interval) is
  'For the relay: opens the lease session through which it owns pipelines';

-- Renews a lease session with all its leases, and ends those of relays that are gone. Returns the
-- relays of the group: 'live' ones (the caller among them), those whose session this call ended
-- ('gone', or 'expired'), and 'older' ones: of a version that owns by advisory locks, beside which
-- nothing is taken. `ends_in_ms` says of a live one after how many milliseconds its leases end
-- unless it renews them. Returns nothing when the caller's session was ended: it owns nothing any more.
create or replace function pgtrickle.relay_renew_leases(token uuid)
returns table (worker_id text, state text, ends_in_ms bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  mine pgtrickle.relay_lease_sessions;
  ended record;
  some_ended boolean := false;
begin
  update pgtrickle.relay_lease_sessions s set renewed_at = clock_timestamp()
  where s.token = relay_renew_leases.token and s.backend_pid = pg_backend_pid()
  returning s.* into mine;
  if mine.token is null then
    return;
  end if;
  for ended in select * from pgtrickle_internal.end_lease_sessions(mine.token) loop
    some_ended := true;
    if ended.relay_group_id = mine.relay_group_id then
      worker_id := ended.worker_id;
      state := case when ended.expired then 'expired' else 'gone' end;
      return next;
    end if;
  end loop;
  if some_ended then
    perform pg_notify('pgtrickle_relay_config', '{"event":"released"}');
  end if;
  delete from pgtrickle.relay_instances i
  where i.relay_group_id = mine.relay_group_id
    and i.heartbeat_at < clock_timestamp() - mine.lease_timeout
    and not exists (select from pgtrickle.relay_lease_sessions s
                    where s.relay_group_id = i.relay_group_id and s.worker_id = i.worker_id);
  return query
    select s.worker_id, 'live',
           ceil(1000 * extract(epoch from s.renewed_at + s.lease_timeout - clock_timestamp()))::bigint
    from pgtrickle.relay_lease_sessions s
    where s.relay_group_id = mine.relay_group_id
    union all
    select i.worker_id, 'older', null from pgtrickle_internal.older_relays(mine.relay_group_id) i;
end $$;
comment on function pgtrickle.relay_renew_leases(uuid) is
  'For the relay: renews its leases; no row when they were taken from it';

-- The relays of a group that run a version which owns by advisory locks.
create or replace function pgtrickle_internal.older_relays(relay_group text)
returns table (worker_id text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
    select i.worker_id from pgtrickle.relay_instances i
    where i.relay_group_id = relay_group and i.lock_backend_pid is not null
      and i.heartbeat_at > clock_timestamp() - interval '5 seconds';
end $$;

-- Takes free leases out of `names`, up to the given number, and returns them.
create or replace function pgtrickle.relay_take_leases(token uuid, kind text, names text[],
                                                       most int) returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  mine pgtrickle.relay_lease_sessions;
  lease_group text;
  wanted text;
  taken int := 0;
begin
  select case when relay_take_leases.kind = 'housekeeping' then '' else s.relay_group_id end
  into lease_group
  from pgtrickle.relay_lease_sessions s where s.token = relay_take_leases.token;
  if kind <> 'housekeeping' and exists (select from pgtrickle_internal.older_relays(lease_group)) then
    return;
  end if;
  -- Always in the same order, so that two relays that want the same leases never deadlock.
  for wanted in
    select n.name from unnest(names) n (name)
    where not exists (select from pgtrickle.relay_leases l
                      where l.kind = relay_take_leases.kind and l.relay_group_id = lease_group
                        and l.name = n.name)
    order by n.name collate "C"
  loop
    exit when taken >= most;
    if mine.token is null then
      mine := pgtrickle_internal.own_lease_session(token);
      exit when mine.token is null;
    end if;
    insert into pgtrickle.relay_leases (kind, relay_group_id, name, token)
    values (relay_take_leases.kind, lease_group, wanted, mine.token)
    on conflict do nothing;
    if found then
      taken := taken + 1;
      return next wanted;
    end if;
  end loop;
end $$;
comment on function pgtrickle.relay_take_leases(uuid, text, text[], int) is
  'For the relay: takes leases that are free';

-- Gives leases up and tells the other relays that they are free.
create or replace function pgtrickle.relay_release_leases(token uuid, kind text, names text[])
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  mine constant pgtrickle.relay_lease_sessions := pgtrickle_internal.own_lease_session(token);
begin
  delete from pgtrickle.relay_leases l
  where l.token = mine.token and l.kind = relay_release_leases.kind and l.name = any (names);
  if found then
    perform pg_notify('pgtrickle_relay_config', '{"event":"released"}');
  end if;
end $$;
comment on function pgtrickle.relay_release_leases(uuid, text, text[]) is
  'For the relay: gives up leases of its own';

-- Ends the caller's lease session: everything that it held is free at once.
create or replace function pgtrickle.relay_close_leases(token uuid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle.relay_lease_sessions s
  where s.token = relay_close_leases.token and s.backend_pid = pg_backend_pid();
  if found then
    delete from pgtrickle.relay_leases l where l.token = relay_close_leases.token;
    perform pg_advisory_unlock(pgtrickle_internal.lease_mark(token));
    perform pg_notify('pgtrickle_relay_config', '{"event":"released"}');
  end if;
end $$;
comment on function pgtrickle.relay_close_leases(uuid) is
  'For the relay: gives up everything that it owns';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_open_leases(text, text, interval), pgtrickle.relay_renew_leases(uuid),
  pgtrickle.relay_take_leases(uuid, text, text[], integer),
  pgtrickle.relay_release_leases(uuid, text, text[]), pgtrickle.relay_close_leases(uuid)
  to pgtrickle_relay;
