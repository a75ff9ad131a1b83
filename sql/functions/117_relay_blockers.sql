-- Sessions that keep the relay from its work by locks on our tables: for operators, in health and
-- `check`.

-- The sessions and prepared transactions that have held for more than two seconds what relays or
-- capture wait for: a lock of a whole table of ours that no row can be written beside, or locks of
-- rows by which relays take turns. A session that waits for a lock itself is not one of them. Where
-- the age of another role's transaction may not be seen, sessions of relays are left out and all
-- others are shown. Owned by pgtrickle_observer, which alone may read the activity of others, so
-- that nothing but these columns leaves.
create or replace function pgtrickle.relay_blockers()
returns table (pid int, prepared text, role text, application text, holds text, seconds float8)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with locks as materialized (
    select * from pg_locks l where l.pid is distinct from pg_backend_pid()
  ), held as (
    select l.pid, l.virtualtransaction,
           string_agg(distinct format('%s on %s', l.mode, l.relation::regclass), ', ') as holds
    from locks l
    join pg_class c on c.oid = l.relation
      and c.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
    where l.locktype = 'relation' and l.granted
      and not exists (select from locks w where w.pid = l.pid and not w.granted)
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and (l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           or (l.mode in ('RowShareLock', 'RowExclusiveLock')
               and c.relname in ('locks', 'housekeeping_round', 'relay_leases',
                                 'relay_lease_sessions', 'relay_consumer_offsets')))
    group by l.pid, l.virtualtransaction
  )
  select h.pid, x.gid, coalesce(a.usename, x.owner)::text, a.application_name, h.holds,
         extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8
  from held h
  left join pg_stat_activity a on a.pid = h.pid
  left join locks t on h.pid is null and t.pid is null and t.locktype = 'transactionid'
    and t.virtualtransaction = h.virtualtransaction and t.mode = 'ExclusiveLock'
  left join pg_prepared_xacts x on x.transaction = t.transactionid
  where coalesce(a.xact_start, x.prepared) < clock_timestamp() - interval '2 seconds'
     or (a.pid is not null and a.xact_start is null
         and not (a.application_name like 'pgtrickle-relay%'
                  and pg_has_role(a.usesysid, 'pgtrickle_relay', 'MEMBER')));
end $$;
comment on function pgtrickle.relay_blockers() is
  'Sessions whose locks on tables of pgtrickle keep relays, retention or capture waiting';

-- What the daemon calls.
grant execute on function pgtrickle.relay_blockers() to pgtrickle_relay;
