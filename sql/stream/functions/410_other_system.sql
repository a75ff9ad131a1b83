-- A stream whose database is on another system than before: a restored dump, or an upgraded
-- server.

-- Lets a stream go on after its operator has decided: with what is not known to be settled
-- (`resend`), or with what comes from now on. False: it is on the system that it was read from,
-- and nothing changes. Where transaction ids have begun anew, as after a dump, they say nothing
-- about the events that were restored: those to be sent get the id of this transaction, and the
-- others one that every snapshot sees.
create or replace function pgstream.daemon_go_on(stream bigint, resend boolean) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  here constant bigint := (select c.system_identifier from pg_control_system() c);
  seen constant xid8 := '3';
  s pgstream.streams;
  begun_anew boolean;
  wanted xid8[] := '{}';
begin
  select * into s from pgstream.streams t where t.id = stream for update;
  if not found or s.system_identifier is null or s.system_identifier = here then
    return false;
  end if;
  s.settled_snapshot := coalesce(s.settled_snapshot, '1:1:');
  begun_anew := pg_snapshot_xmax(s.settled_snapshot) > pg_snapshot_xmax(pg_current_snapshot());
  if begun_anew then
    if resend then
      wanted := array(
        select distinct e.xid
        from (select x.xid from pgstream.events x where x.stream_id = stream
              union all select x.xid from pgstream.events_overflow x where x.stream_id = stream) e
        where not (pg_visible_in_snapshot(e.xid, s.settled_snapshot)
                   or e.xid = any (s.settled_also))
           or exists (select from pgstream.backlog b
                      where b.stream_id = stream and b.xid = e.xid));
    end if;
    update pgstream.events e
    set xid = case when e.xid in (select unnest(wanted)) then pg_current_xact_id() else seen end
    where e.stream_id = stream;
    update pgstream.events_overflow e
    set xid = case when e.xid in (select unnest(wanted)) then pg_current_xact_id() else seen end
    where e.stream_id = stream;
  end if;
  if begun_anew or not resend then
    delete from pgstream.backlog b where b.stream_id = stream;
    s.settled_snapshot := pg_current_snapshot();
    s.settled_also := '{}';
    s.round_snapshot := null;
    s.round_seq := -1;
  end if;
  update pgstream.streams t
  set settled_snapshot = s.settled_snapshot, settled_also = s.settled_also,
      round_snapshot = s.round_snapshot, round_seq = s.round_seq, recorded_lsn = null,
      slot_name = null, publication_oid = null, system_identifier = null, timeline = null
  where t.id = stream;
  return true;
end $$;
comment on function pgstream.daemon_go_on(bigint, boolean) is
  'For the daemon: lets a stream go on that is on another system than before';

do $$
begin
  if to_regrole('pgstream_daemon') is not null then
    grant execute on function pgstream.daemon_go_on(bigint, boolean) to pgstream_daemon;
  end if;
end $$;
