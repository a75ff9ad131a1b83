-- Snapshot, then changes: a consumer reads the table in a REPEATABLE READ transaction, and the polls
-- of its group give exactly what is not in it.
--
-- The transaction has one snapshot, and a change and its outbox row commit together. So the ids
-- that the snapshot shows are those of the changes that the table in it has. The group starts at
-- an id up to which everything was decided before the snapshot, and skips the visible ids beyond
-- it. Writers are not locked, and no WAL is held.

-- An id up to which every row of an outbox is visible in the snapshot of this transaction, or will
-- never be: facts that committed before the snapshot was taken.
create or replace function pgtrickle_internal.settled_in_snapshot(
  outbox pgtrickle_internal.outbox_config) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select greatest(
    outbox.purged_below, 0,
    (select l.settled_to from pgtrickle_internal.outbox_looks l
     where l.incarnation = outbox.incarnation),
    (select max(l.look_to) from pgtrickle_internal.consumer_looks l
     where l.outbox_number = outbox.outbox_number and l.holders = '{}'));
$$;

-- Raises unless an outbox records a table, which alone has rows to begin with.
create or replace function pgtrickle_internal.require_table(
  outbox pgtrickle_internal.outbox_config) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if outbox.kind not in ('table', 'stream_table') then
    raise exception 'outbox "%" holds events of an application: there is no table to begin with',
        outbox.stream_table_name
      using errcode = 'feature_not_supported', hint = 'Start at "earliest" or "latest".';
  end if;
end $$;

-- Raises unless all statements of this transaction see one snapshot, and it may write.
create or replace function pgtrickle_internal.require_one_snapshot(what text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
    raise exception '% needs a REPEATABLE READ transaction, not %', what,
        upper(current_setting('transaction_isolation'))
      using errcode = 'active_sql_transaction',
            detail = 'Each statement of another transaction sees the table as it is by then.',
            hint = 'BEGIN ISOLATION LEVEL REPEATABLE READ; then call it and read the table, and '
                   'COMMIT;';
  elsif current_setting('transaction_read_only')::boolean then
    raise exception '% cannot run in a READ ONLY transaction: it stores the position', what
      using errcode = 'read_only_sql_transaction',
            hint = 'BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE;';
  end if;
end $$;

-- Sets a group to the snapshot of this transaction; returns its position.
create or replace function pgtrickle_internal.group_snapshot(number int, pass bytea)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  g pgtrickle_internal.consumer_groups;
  outbox pgtrickle_internal.outbox_config;
  first record;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  perform pgtrickle_internal.require_one_snapshot('consumer_snapshot()');
  select * into strict g from pgtrickle_internal.consumer_groups n where n.group_number = number;
  -- The lock keeps retention from passing the position until it is stored.
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.outbox_number = g.outbox_number
  for share;
  perform pgtrickle_internal.require_table(outbox);
  perform pgtrickle_internal.require_no_hidden_rows(outbox.outbox_number, g.name, g.owner::oid);
  if exists (select from pg_locks l
             where l.pid = pg_backend_pid() and l.locktype = 'relation'
               and l.mode = 'RowExclusiveLock'
               and l.database = (select d.oid from pg_database d
                                 where d.datname = current_database())
               and l.relation = to_regclass(format('pgtrickle.%I', outbox.outbox_table_name))) then
    raise exception 'this transaction has changed "%": it cannot take a snapshot of it',
        outbox.stream_table_name
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Take the snapshot in a transaction that does not write to the table.';
  end if;
  if pgtrickle_json.shape(outbox.stream_table_oid) is null then
    -- It was truncated or written anew: to this transaction it is empty.
    raise serialization_failure;
  end if;
  select * into first from pgtrickle_internal.latest_position(
    outbox, pgtrickle_internal.settled_in_snapshot(outbox));
  perform from pgtrickle_internal.consumer_slots s where s.group_number = number
  order by s.slot for update;
  update pgtrickle_internal.consumer_slots s
  set "position" = first.change_id, offered = null, delivered = null, attempts = 0,
      rejected = '{}', holder = null, until = null, lost_rows = 0, moved_at = clock_timestamp()
  where s.group_number = number;
  update pgtrickle_internal.consumer_groups n
  set skipped = first.skipped, awaits_snapshot = false
  where n.group_number = number;
  return first.change_id;
exception when serialization_failure then
  raise exception 'consumer group "%", its outbox or its table was changed since this '
      'transaction began', g.name
    using errcode = 'serialization_failure',
          hint = 'ROLLBACK, and take the snapshot again in a new transaction.';
end $$;

create or replace function pgtrickle.consumer_snapshot("group" text) returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_writable();
  perform pgtrickle_internal.require_one_snapshot('consumer_snapshot()');
  mine := pgtrickle_internal.my_group("group");
  return pgtrickle_internal.group_snapshot(mine.number, mine.pass);
end $$;
comment on function pgtrickle.consumer_snapshot(text) is
  'Sets a consumer group to this REPEATABLE READ transaction: its polls give the changes that what '
  'the transaction reads does not have; returns the position';

grant execute on function
  pgtrickle.consumer_snapshot(text), pgtrickle_internal.require_one_snapshot(text),
  pgtrickle_internal.group_snapshot(int, bytea)
  to pgtrickle_consumer;
