-- The state of an outbox: its open writers, its readers and their positions, and which of them keep
-- rows from deletion.

-- The transactions that may have drawn ids of an outbox and not ended, prepared ones included (their
-- pid is null). An INSERT locks the table, then the table's sequence (both ROW EXCLUSIVE), then draws
-- its id, and keeps both locks until its commit is visible. What deletes locks the table alone, and
-- what reads the sequence's last value locks the sequence alone: neither is a writer.
-- started_at is null where it may not be seen. Owned by pgtrickle_observer, which alone may read
-- the activity of others, so that nothing but these columns leaves, and of outboxes only.
create or replace function pgtrickle.relay_open_writers(outbox regclass)
returns table (virtual_transaction text, pid int, prepared text, started_at timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with locks as materialized (
    select * from pg_locks
  ), drawn as materialized (
    select s.virtualtransaction, s.pid
    from locks s
    join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.relation
      and d.refclassid = 'pg_class'::regclass and d.refobjid = outbox and d.deptype in ('a', 'i')
    join pg_class q on q.oid = s.relation and q.relkind = 'S'
    where s.locktype = 'relation' and s.mode = 'RowExclusiveLock' and s.granted
      and s.database = (select d.oid from pg_database d where d.datname = current_database())
  )
  select l.virtualtransaction, l.pid, x.gid, coalesce(a.xact_start, x.prepared)
  from locks l
  left join pg_stat_activity a on a.pid = l.pid
  left join locks t on l.pid is null and t.pid is null and t.locktype = 'transactionid'
    and t.virtualtransaction = l.virtualtransaction and t.mode = 'ExclusiveLock'
    and exists (select from pg_prepared_xacts p where p.transaction = t.transactionid)
  left join pg_prepared_xacts x on x.transaction = t.transactionid
  where l.locktype = 'relation'
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.relation = outbox
    and (exists (select from pg_class c
                 where c.oid = outbox and c.relnamespace = 'pgtrickle'::regnamespace)
         or exists (select from pgtrickle_internal.outbox_adopted k where k.relation = outbox))
    and l.mode = 'RowExclusiveLock'
    and l.granted
    and exists (select from drawn d where d.virtualtransaction = l.virtualtransaction
                                      and d.pid is not distinct from l.pid);
end $$;
comment on function pgtrickle.relay_open_writers(regclass) is
  'Transactions that wrote to an outbox and have not ended';

-- How many rows come after an id: counted up to 100,000, beyond that an upper bound. (VOLATILE: in an
-- adopted table they are counted through the gate.)
create or replace function pgtrickle_internal.outbox_rows_after(outbox_table text, after_id bigint,
                                                                newest bigint, out rows bigint,
                                                                out exact boolean)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  most constant int := 100000;
  last_counted bigint;
  adopted uuid;
begin
  select c.incarnation into adopted from pgtrickle_internal.outbox_config c
  where c.outbox_table_name = outbox_table and c.kind = 'adopted';
  if adopted is not null then
    select c.rows, c.exact into rows, exact
    from pgtrickle.relay_adopted_count(adopted, after_id) c;
    return;
  end if;
  execute format('select count(*), max(id) from '
                 '(select id from pgtrickle.%I where id > $1 order by id limit $2) r', outbox_table)
    into rows, last_counted using after_id, most;
  exact := rows < most;
  if not exact then
    rows := rows + greatest(newest - last_counted, 0);
  end if;
end $$;

-- Who keeps tables and sequences from being read.
create or replace function pgtrickle_internal.locked_by(rels oid[]) returns text
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select format('%s is locked by %s, not judged now', l.relation::regclass,
                   coalesce('session ' || l.pid, 'a prepared transaction'))
     from pg_locks l
     where l.locktype = 'relation' and l.relation = any (rels)
       and l.database = (select d.oid from pg_database d where d.datname = current_database())
       and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       and l.pid is distinct from pg_backend_pid()
     order by l.granted desc, l.mode <> 'AccessExclusiveLock', l.pid
     limit 1),
    'locked by another session, not judged now');
$$;

-- Everything about one outbox that an operator may want to know. What a lock hides is null, and the
-- problem names its holder.
-- The logical replication slots of this database and the WAL that each one keeps, where one of these
-- relations is published: which slot reads which publication is known to its subscriber only.
create or replace function pgtrickle_internal.slots_of_published(rels oid[]) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
             'slot', s.slot_name, 'active', s.active, 'wal_status', s.wal_status,
             'held_wal_bytes', pg_wal_lsn_diff(
               case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                    else pg_current_wal_lsn() end, s.restart_lsn),
             'safe_wal_size', s.safe_wal_size) order by s.slot_name), '[]')
    from pg_replication_slots s
    where s.slot_type = 'logical'
      and s.database = current_database()
      and exists (select from pg_publication_rel r where r.prrelid = any (rels)));
end $$;

create or replace function pgtrickle.outbox_status(name text) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms'
as $$
declare
  outbox record;
  rel regclass;
  delta regclass;
  is_adopted boolean;
  newest bigint;
  row_count bigint;
  is_exact boolean;
  oldest_id bigint;
  oldest_at timestamptz;
  bytes bigint;
  readable boolean;
  readers jsonb;
  writers jsonb;
  holders jsonb;
  near text;
begin
  select * into outbox from pgtrickle.relay_resolve_outbox(name);
  if outbox.outbox_table_name is null then
    near := pgtrickle_internal.nearest(name, array(
      select c.stream_table_name from pgtrickle_internal.outbox_config c));
    raise exception 'there is no outbox "%"', coalesce(name, '(null)')
      using errcode = 'undefined_object',
            hint = case when near is null
                        then format('SELECT pgtrickle.enable_outbox(%L) makes one.', name)
                        else format('Did you mean "%s"?', near) end;
  end if;
  is_adopted := outbox.kind = 'adopted';
  if is_adopted then
    rel := (select c.oid from pg_class c where c.oid = outbox.outbox_oid);
    select concat(f.message, '. ', f.remedy) into outbox.problem
    from pgtrickle_internal.outbox_adopted_findings() f where f.number = outbox.outbox_number;
  else
    rel := to_regclass(format('pgtrickle.%I', outbox.outbox_table_name));
    delta := to_regclass('pgtrickle.' || quote_ident(outbox.delta_table_name));
  end if;
  readable := is_adopted or rel is not null;
  if readable then
    begin
      -- First what waits for a lock of its own; the locks of the others are kept for what follows.
      bytes := pg_total_relation_size(rel) + coalesce(pg_total_relation_size(delta), 0);
      if is_adopted then
        newest := pgtrickle_internal.last_drawn(outbox.outbox_sequence::oid);
      else
        newest := coalesce(pg_sequence_last_value(outbox.outbox_sequence::regclass), 0);
        execute format('select id, created_at from pgtrickle.%I order by id limit 1',
                       outbox.outbox_table_name) into oldest_id, oldest_at;
      end if;
      select a.rows, a.exact into row_count, is_exact
      from pgtrickle_internal.outbox_rows_after(outbox.outbox_table_name, 0, newest) a;
    exception when lock_not_available then
      readable := false;
      outbox.problem := concat_ws('. ', outbox.problem, pgtrickle_internal.locked_by(
        array[rel, delta, case when is_adopted then outbox.outbox_sequence::oid
                               else to_regclass(outbox.outbox_sequence) end]::oid[]));
    end;
  elsif outbox.kind <> 'table' then
    outbox.problem := 'its table is gone. ' || (
      select pgtrickle_internal.outbox_anew(c) from pgtrickle_internal.outbox_config c
      where c.outbox_number = outbox.outbox_number);
  end if;

  select coalesce(jsonb_agg(jsonb_build_object(
           'group', o.relay_group_id, 'pipeline', o.pipeline_id, 'enabled', c.enabled,
           'position', o.last_change_id, 'row', o.last_row, 'lag', lag.rows,
           'lag_exact', lag.exact, 'lost_rows', o.lost_rows, 'worker', o.worker_id,
           'updated_at', o.updated_at) order by o.pipeline_id, o.relay_group_id), '[]')
  into readers
  from pgtrickle.relay_consumer_offsets o
  left join pgtrickle.relay_config c on c.name = o.pipeline_id
  left join lateral (
    select a.* from pgtrickle_internal.outbox_rows_after(
      outbox.outbox_table_name,
      pgtrickle_internal.position_passes(outbox.outbox_table_name, o.last_change_id, o.skipped),
      newest) a
    where readable) lag on true
  where o.incarnation = outbox.incarnation;

  select coalesce(jsonb_agg(jsonb_build_object(
           'pid', w.pid, 'prepared', w.prepared, 'since', w.started_at,
           'age_seconds', round(extract(epoch from clock_timestamp() - w.started_at), 3))
         order by w.started_at), '[]')
  into writers
  from pgtrickle.relay_open_writers(rel) w;

  if readable then
    select coalesce(jsonb_agg(jsonb_build_object(
             'group', h.relay_group_id, 'pipeline', h.pipeline, 'why', h.why,
             'needs_after', h.needs_after, 'until', h.until) order by h.needs_after), '[]')
    into holders
    from pgtrickle_internal.outbox_holders(outbox.incarnation) h
    where h.holds and pgtrickle_internal.outbox_has_old_row(outbox.incarnation, h.needs_after);
  end if;

  return jsonb_build_object(
    'stream_table', outbox.stream_table_name, 'schema', outbox.stream_table_schema,
    'outbox', outbox.outbox_table_name, 'table', (
      select format('%I.%I', k.schema_name, k.table_name) from pgtrickle_internal.outbox_adopted k
      where k.outbox_number = outbox.outbox_number), 'kind', outbox.kind, 'capture', outbox.capture,
    'incarnation', outbox.incarnation, 'key_columns', outbox.key_columns,
    'problem', outbox.problem, 'source_dropped_at', outbox.source_dropped_at,
    'rows', row_count, 'rows_exact', is_exact, 'last_id', newest, 'oldest_id', oldest_id,
    'oldest_created_at', oldest_at,
    'oldest_age_seconds', round(extract(epoch from clock_timestamp() - oldest_at), 3),
    'size_bytes', bytes,
    -- Nothing is deleted from an adopted table.
    'retention_hours', case when outbox.kind <> 'adopted' then outbox.retention_hours end,
    'purged_below', outbox.purged_below,
    'last_drained_at', outbox.last_drained_at, 'last_drained_count', outbox.last_drained_count,
    'positions', readers, 'held_by', holders, 'open_writers', writers,
    'replication_slots', pgtrickle_internal.slots_of_published(
      array[outbox.stream_table_oid, outbox.outbox_oid]))
    || case when outbox.kind = 'table' and outbox.source_dropped_at is null
            then pgtrickle_internal.outbox_recording(outbox.outbox_number, outbox.problem)
            else '{}' end;
end $$;
comment on function pgtrickle.outbox_status(text) is
  'One outbox: rows, age, size, positions and lag, who holds rows back, who writes now';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_open_writers(regclass), pgtrickle.outbox_status(text)
  to pgtrickle_relay;
grant execute on function pgtrickle.relay_open_writers(regclass) to pgtrickle_owner;
