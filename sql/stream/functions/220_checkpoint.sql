-- The checkpoint of a stream: the first event of the backlog, which is sent first when the sink
-- takes events again. Null while nothing waits there. It moves with the backlog, in the same
-- transaction.
create or replace function pgstream._move_checkpoint() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  stream bigint;
  begins xid8;
  first record;
begin
  -- Most changes leave the first transaction where it is.
  for stream in
    select c.stream_id from changed c group by c.stream_id
    having (min(c.n) > (select min(b.n) from pgstream.backlog b where b.stream_id = c.stream_id))
           is not true
  loop
    begins := (select b.xid from pgstream.backlog b where b.stream_id = stream
               order by b.n limit 1);
    -- One event of each table by its index: without these limits the server may read and sort all
    -- events of the transaction.
    select e.id, e.created_at into first
    from ((select x.id, x.created_at, x.seq from pgstream.events x
           where x.xid = begins and x.stream_id = stream order by x.seq limit 1)
          union all
          (select o.id, o.created_at, o.seq from pgstream.events_overflow o
           where o.xid = begins and o.stream_id = stream order by o.seq limit 1)) e
    order by e.seq limit 1;
    update pgstream.streams s
    set failover_checkpoint_id = first.id, failover_checkpoint_ts = first.created_at
    where s.id = stream and s.failover_checkpoint_id is distinct from first.id;
  end loop;
  return null;
end $$;

create or replace trigger move_checkpoint_on after insert on pgstream.backlog
  referencing new table as changed
  for each statement execute function pgstream._move_checkpoint();
create or replace trigger move_checkpoint_off after delete on pgstream.backlog
  referencing old table as changed
  for each statement execute function pgstream._move_checkpoint();
