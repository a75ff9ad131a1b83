-- The first position of a new reader of an outbox: see 110_relay_positions.sql.

-- An id up to which every row of an outbox is visible to the next statement, or will never be. Waits a
-- moment for the transactions that may have drawn smaller ids; where they stay open, earlier looks
-- answer.
create or replace function pgtrickle_internal.settled_soon(outbox pgtrickle_internal.outbox_config)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  rel constant regclass := case when outbox.kind = 'adopted' then outbox.outbox_oid::regclass
                                else format('pgtrickle.%I', outbox.outbox_table_name)::regclass end;
  until constant timestamptz := clock_timestamp() + interval '200 milliseconds';
  -- First the sequence, then the locks: each transaction that drew an id up to here is a holder.
  drawn constant bigint := pgtrickle_internal.last_drawn(pgtrickle_internal.outbox_sequence(outbox));
  holders constant text[] := array(
    select w.virtual_transaction from pgtrickle.relay_open_writers(rel) w);
begin
  loop
    -- A holder that is gone may have become a prepared transaction.
    if not exists (select from pgtrickle.relay_open_writers(rel) w
                   where w.virtual_transaction = any (holders) or w.pid is null) then
      return drawn;
    end if;
    exit when clock_timestamp() > until;
    perform pg_sleep(0.005);
  end loop;
  return greatest(outbox.purged_below, (select l.settled_to from pgtrickle_internal.outbox_looks l
                                        where l.incarnation = outbox.incarnation), 0);
end $$;

-- Where reading at 'latest' begins: everything that has committed at this moment is passed, and
-- everything that commits later is delivered, whatever its id.
create or replace function pgtrickle_internal.latest_position(
  outbox pgtrickle_internal.outbox_config, settled bigint, out change_id bigint, out mark uuid,
  out skipped int8multirange, out skipped_mark uuid)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if outbox.kind = 'adopted' then
    select l.change_id, l.mark, l.skipped, l.skipped_mark
    into change_id, mark, skipped, skipped_mark
    from pgtrickle_internal.outbox_adopted_latest(outbox.incarnation, settled) l;
    return;
  end if;
  -- One statement, so that all of it is of one moment.
  execute format($sql$
    select (select range_agg(int8range(run.first_id, run.last_id + 1))
            from (select min(r.id) as first_id, max(r.id) as last_id
                  from (select o.id, o.id - row_number() over (order by o.id) as run
                        from pgtrickle.%1$I o where o.id > $1) r
                  group by r.run) run),
           (select o.pgt_id from pgtrickle.%1$I o where o.id > $1 order by o.id desc limit 1)$sql$,
    outbox.outbox_table_name)
    into skipped, skipped_mark using settled;
  -- A row that is there gives the position a mark, by which a failover that lost rows is seen.
  execute format('select o.id, o.pgt_id from pgtrickle.%I o where o.id <= $1 '
                 'order by o.id desc limit 1', outbox.outbox_table_name)
    into change_id, mark using settled;
  change_id := coalesce(change_id, settled);
end $$;

-- Where a new position begins: at 'earliest' (all that is kept), at 'latest' (what commits from now
-- on), at 'snapshot' (the same, for a reader that delivers the rows of the table first), or with the
-- id of the first row to deliver. `lost_rows`: so many ids from there on were
-- deleted by retention, at most. An outbox that is not in the catalog is another database's.
create or replace function pgtrickle.relay_first_position(
  incarnation uuid, start text, out change_id bigint, out mark uuid, out skipped int8multirange,
  out skipped_mark uuid, out lost_rows bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  settled bigint;
  newest bigint;
begin
  lost_rows := 0;
  if start in ('latest', 'snapshot') then
    if current_setting('transaction_isolation') <> 'read committed' then
      raise exception 'a start at "%" must run in a READ COMMITTED transaction', start
        using errcode = 'invalid_transaction_state';
    end if;
    select * into outbox from pgtrickle_internal.outbox_config c
    where c.incarnation = relay_first_position.incarnation;
    if outbox.outbox_number is null then
      raise exception 'a pipeline cannot start at "%": there is no outbox of incarnation %',
          start, incarnation
        using errcode = 'undefined_object', hint = 'Resolve the outbox again: it was made anew.';
    end if;
    if start = 'snapshot' then
      perform pgtrickle_internal.snapshot_key(outbox);
    end if;
    settled := pgtrickle_internal.settled_soon(outbox);
  elsif start <> 'earliest' and start !~ E'^\\d{1,18}$' or start is null then
    raise exception 'a pipeline cannot start at "%"', coalesce(start, '(null)')
      using errcode = 'invalid_parameter_value',
            hint = 'It is "earliest", "latest", "snapshot", or the id of the first row to '
                   'deliver.';
  end if;

  -- The lock lets a batch of retention end first, and keeps the next one until the position is
  -- stored, so that no row is deleted in front of a new reader unseen.
  select * into outbox from pgtrickle_internal.outbox_config c
  where c.incarnation = relay_first_position.incarnation
  for share;
  if start = 'earliest' then
    change_id := coalesce(outbox.purged_below, 0);
  elsif start in ('latest', 'snapshot') then
    select l.change_id, l.mark, l.skipped, l.skipped_mark
    into change_id, mark, skipped, skipped_mark
    from pgtrickle_internal.latest_position(outbox, settled) l;
  else
    change_id := greatest(start::bigint - 1, 0);
    lost_rows := greatest(outbox.purged_below - change_id, 0);
    if outbox.outbox_number is not null then
      -- A position never stands beyond what was drawn: rows up to `start` will come and are skipped.
      newest := pgtrickle_internal.last_drawn(pgtrickle_internal.outbox_sequence(outbox));
      if change_id > newest then
        skipped := int8multirange(int8range(newest + 1, change_id + 1));
        change_id := newest;
      end if;
    end if;
  end if;
end $$;
comment on function pgtrickle.relay_first_position(uuid, text) is
  'For the relay: where a reader of an outbox that has no position begins';

-- What the daemon calls.
grant execute on function pgtrickle.relay_first_position(uuid, text) to pgtrickle_relay;
