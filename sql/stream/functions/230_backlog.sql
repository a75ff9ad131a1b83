-- The backlog: the transactions whose events were released from the WAL before they were delivered.

-- Appends transactions in the order of their commits, and records up to where the WAL was read.
-- Only the owner of the stream may: false if that is another daemon now.
create or replace function pgstream.add_to_backlog(stream bigint, instance uuid, xids xid8[],
                                                   counts bigint[], recorded pg_lsn)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set synchronous_commit = on
as $$
declare
  first_n bigint;
begin
  update pgstream.streams s
  set last_n = s.last_n + cardinality(xids), recorded_lsn = greatest(s.recorded_lsn, recorded)
  where s.id = stream and s.owner = instance
  returning s.last_n - cardinality(xids) into first_n;
  if not found then
    return false;
  end if;
  insert into pgstream.backlog (stream_id, n, xid, events)
  select stream, first_n + t.ord, t.xid, t.events
  from unnest(xids, counts) with ordinality t (xid, events, ord);
  return true;
end $$;

-- The first events of the backlog after transaction `after_n`, in the order of commits.
create or replace function pgstream.read_backlog(stream bigint, after_n bigint, transactions int)
returns table (n bigint, seq bigint, id uuid, payload jsonb, metadata jsonb, created_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with next as (
    select b.n, b.xid from pgstream.backlog b
    where b.stream_id = stream and b.n > after_n order by b.n limit transactions)
  select x.n, e.seq, e.id, e.payload, e.metadata, e.created_at
  from next x
  cross join lateral (
    select * from pgstream.events p where p.xid = x.xid and p.stream_id = stream
    union all
    select * from pgstream.events_overflow o where o.xid = x.xid and o.stream_id = stream) e
  order by x.n, e.seq;
$$;

-- Removes what was replayed, up to transaction `up_to_n`.
create or replace function pgstream.settle_backlog(stream bigint, instance uuid, up_to_n bigint)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgstream.streams s where s.id = stream and s.owner = instance for update;
  if not found then
    return false;
  end if;
  delete from pgstream.backlog b where b.stream_id = stream and b.n <= up_to_n;
  return true;
end $$;

comment on function pgstream.add_to_backlog(bigint, uuid, xid8[], bigint[], pg_lsn) is
  'Appends transactions to the backlog of a stream; false if another daemon owns the stream';
comment on function pgstream.read_backlog(bigint, bigint, int) is
  'The first events of the backlog of a stream after one of its transactions';
comment on function pgstream.settle_backlog(bigint, uuid, bigint) is
  'Removes what was replayed from the backlog; false if another daemon owns the stream';
