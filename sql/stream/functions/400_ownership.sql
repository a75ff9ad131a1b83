-- Which daemon owns a stream.
--
-- A daemon takes part through a session of its own, which has a random token. The session's row says
-- whether it owns the stream; a unique index allows one owner. Another daemon ends a session by deleting
-- its row
--   * when the database session is gone, which an advisory lock proves: only that session can release it;
--   * or when the session was not renewed for its lease_timeout by this server's clock.
-- A renewal of a deleted session changes nothing: the daemon learns that it owns nothing any more. What
-- keeps a stale owner from writing is the token in pgstream.streams.

create or replace function pgstream._daemon_mark(token uuid) returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select hashtextextended('pgstream daemon ' || token::text, 0); $$;

-- The sessions of a stream whose daemon is there.
create or replace function pgstream._marked_daemons(stream text) returns setof pgstream.daemon_sessions
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select s.* from pgstream.daemon_sessions s
  where s.stream = $1 and exists (
    select from pg_locks l
    where l.locktype = 'advisory' and l.objsubid = 1 and l.granted and l.pid = s.backend_pid
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and (l.classid::bigint << 32) | l.objid::bigint = pgstream._daemon_mark(s.token));
$$;

-- Takes part in a stream. An earlier session of the same worker ends.
create or replace function pgstream.daemon_open_leases(stream text, worker text, lease_timeout interval)
returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  token constant uuid := gen_random_uuid();
begin
  if not pg_try_advisory_lock(pgstream._daemon_mark(token)) then
    raise exception 'the mark of a new session is taken'
      using errcode = 'lock_not_available', hint = 'Try again: each session has another mark.';
  end if;
  delete from pgstream.daemon_sessions s
  where s.stream = daemon_open_leases.stream and s.worker_id = worker;
  insert into pgstream.daemon_sessions (token, stream, worker_id, backend_pid, lease_timeout)
  values (token, stream, worker, pg_backend_pid(), daemon_open_leases.lease_timeout);
  return token;
end $$;
comment on function pgstream.daemon_open_leases(text, text, interval) is
  'For the daemon: takes part in a stream';

-- Renews a session, and ends those of other daemons of its stream that are gone or did not renew in time.
-- Returns the daemons of the stream: 'live' ones, with the milliseconds until their session runs out, and
-- those whose session this call ended ('gone', 'expired'). Returns nothing where the caller's session was
-- ended.
create or replace function pgstream.daemon_renew_leases(token uuid)
returns table (worker_id text, state text, ends_in_ms bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  mine text;
begin
  update pgstream.daemon_sessions s set renewed_at = clock_timestamp()
  where s.token = daemon_renew_leases.token and s.backend_pid = pg_backend_pid()
  returning s.stream into mine;
  if not found then
    return;
  end if;
  return query
    with dead as (
      -- One that is renewed at this moment is locked, and left alone.
      select s.token from pgstream.daemon_sessions s
      where s.stream = mine and s.token <> daemon_renew_leases.token
        and (s.renewed_at + s.lease_timeout < clock_timestamp()
             or s.token not in (select m.token from pgstream._marked_daemons(mine) m))
      for update skip locked)
    delete from pgstream.daemon_sessions s using dead d where s.token = d.token
    returning s.worker_id, case when s.renewed_at + s.lease_timeout < clock_timestamp()
                                then 'expired' else 'gone' end, null::bigint;
  if found then
    perform pg_notify('pgstream_daemon', mine);
  end if;
  delete from pgstream.daemon_instances i
  where i.relay_group_id = mine and i.heartbeat_at < clock_timestamp() - interval '1 minute';
  return query
    select s.worker_id, 'live',
           ceil(1000 * extract(epoch from s.renewed_at + s.lease_timeout - clock_timestamp()))::bigint
    from pgstream.daemon_sessions s where s.stream = mine;
end $$;
comment on function pgstream.daemon_renew_leases(uuid) is
  'For the daemon: renews its session; no row when that was ended';

-- Makes the caller's session the owner of its stream where there is none; returns the stream then. The
-- other arguments are those of the relay's leases, which have several kinds and names.
create or replace function pgstream.daemon_take_leases(token uuid, kind text, names text[], most int)
returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    update pgstream.daemon_sessions s set owns = true
    where s.token = daemon_take_leases.token and s.backend_pid = pg_backend_pid()
      and s.stream = any (names) and most > 0
      and not exists (select from pgstream.daemon_sessions o where o.stream = s.stream and o.owns)
    returning s.stream;
exception when unique_violation then
  return;  -- Another daemon took it at the same moment.
end $$;
comment on function pgstream.daemon_take_leases(uuid, text, text[], int) is
  'For the daemon: takes its stream if that is free';

create or replace function pgstream.daemon_release_leases(token uuid, kind text, names text[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgstream.daemon_sessions s set owns = false
  where s.token = daemon_release_leases.token and s.backend_pid = pg_backend_pid() and s.owns;
  if found then
    perform pg_notify('pgstream_daemon', names[1]);
  end if;
end $$;
comment on function pgstream.daemon_release_leases(uuid, text, text[]) is
  'For the daemon: gives up its stream';

create or replace function pgstream.daemon_close_leases(token uuid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  mine text;
begin
  delete from pgstream.daemon_sessions s
  where s.token = daemon_close_leases.token and s.backend_pid = pg_backend_pid()
  returning s.stream into mine;
  if found then
    perform pg_advisory_unlock(pgstream._daemon_mark(token));
    perform pg_notify('pgstream_daemon', mine);
  end if;
end $$;
comment on function pgstream.daemon_close_leases(uuid) is
  'For the daemon: takes part no longer';

-- Ends the database sessions that earlier owners of the caller's stream left, such as that of a daemon
-- that is frozen, whose walsender would keep the slot. They are the caller's role's sessions with that
-- application name. Runs as the caller: it can end what the caller could end.
create or replace function pgstream.daemon_end_earlier(token uuid, application text) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select count(pg_terminate_backend(a.pid))
  from pg_stat_activity a
  where a.datname = current_database() and a.usename = current_user
    and a.application_name = application and a.pid <> pg_backend_pid()
    and exists (select from pgstream.daemon_sessions s
                where s.token = $1 and s.backend_pid = pg_backend_pid() and s.owns);
$$;
comment on function pgstream.daemon_end_earlier(uuid, text) is
  'For the daemon: ends the sessions that earlier owners of its stream left';

do $$
begin
  if to_regrole('pgstream_daemon') is not null then
    grant select on pgstream.daemon_sessions, pgstream.daemon_installed to pgstream_daemon;
    grant select, insert, update, delete on pgstream.daemon_instances to pgstream_daemon;
    grant execute on function
      pgstream.daemon_open_leases(text, text, interval), pgstream.daemon_renew_leases(uuid),
      pgstream.daemon_take_leases(uuid, text, text[], int),
      pgstream.daemon_release_leases(uuid, text, text[]), pgstream.daemon_close_leases(uuid),
      pgstream.daemon_end_earlier(uuid, text)
      to pgstream_daemon;
  end if;
end $$;
