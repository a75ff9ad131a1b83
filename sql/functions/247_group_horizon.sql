-- Up to which id a poll may deliver the rows of an outbox (docs/reading-without-skipping.md).
--
-- The order of ids is not the order of commits. A row may be delivered when every smaller id is
-- visible or will never be:
--   * rows that follow the position without a gap need no proof;
--   * else it takes a look: first the sequence's last value, then the transactions that may have
--     drawn an id and not ended. Once none of those is left, everything up to that value is
--     settled.
-- A look is a fact that stays true, so pollers share theirs (consumer_looks). They only insert and
-- delete rows, and skip locked ones: a poll in a transaction that stays open makes no other wait,
-- and neither do polls and retention, which has a row of its own for this (settle_outbox).

-- What the looks at an outbox have settled, by a new one if the sequence has passed it. `newest`
-- was read from the sequence in an earlier statement.
create or replace function pgtrickle_internal.group_look(outbox_number int, outbox regclass,
                                                         newest bigint) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  most constant int := 16;
  rest constant interval := '2 milliseconds';
  has_waited boolean := false;
  looks pgtrickle_internal.consumer_looks[];
  places tid[];
  writers text[];
  was_prepared boolean;
  known record;
  settled bigint;
begin
  -- First the looks, then the writers: a writer that only a newer look knows must not seem gone.
  loop
    select array_agg(l.look), array_agg(l.place) into looks, places
    from (select o as look, o.ctid as place
          from pgtrickle_internal.consumer_looks o
          where o.outbox_number = group_look.outbox_number
          order by o.look_to desc limit 2 * most) l;
    select max(k.looked_at) as looked_at,
           coalesce(max(k.look_to) filter (where k.holders = '{}'), 0) as fact
    into known from unnest(looks) k;
    -- To list all locks of the server costs publishers something, so polls take turns at it.
    exit when (known.looked_at between clock_timestamp() - rest and clock_timestamp()) is not true;
    if has_waited or known.fact >= newest then
      return known.fact;
    end if;
    perform pg_sleep_for(rest);
    has_waited := true;
  end loop;
  select coalesce(array_agg(w.virtual_transaction), '{}'), coalesce(bool_or(w.pid is null), false)
  into writers, was_prepared from pgtrickle.relay_open_writers(outbox) w;

  -- A prepared transaction keeps its virtual id until a restart of the server renames it.
  select max(k.look_to) as newest,
         count(*) filter (where k.holders <> '{}') as pending,
         coalesce(max(k.look_to) filter (where k.holders = '{}'), 0) as fact,
         coalesce(max(k.look_to) filter (
           where not (k.holders && writers)
             and not (was_prepared and k.holders <> '{}'
                      and k.looked_at < pg_postmaster_start_time())), 0) as settled
  into known from unnest(looks) k;
  settled := case when writers = '{}' then greatest(newest, known.settled) else known.settled end;

  if settled > known.fact then
    insert into pgtrickle_internal.consumer_looks (outbox_number, look_to, holders)
    values (group_look.outbox_number, settled, '{}');
    -- What is settled now needs no other row. (Rows that another poll leaves are met again.)
    delete from pgtrickle_internal.consumer_looks l
    where l.ctid = any (array(
      select o.ctid
      from unnest(places) k (place)
      join pgtrickle_internal.consumer_looks o on o.ctid = k.place
      where o.outbox_number = group_look.outbox_number and o.look_to < settled
      for update of o skip locked));
  end if;
  -- The oldest pending look settles first: with more of them none would be found in time.
  if writers <> '{}' and known.pending < most and newest > coalesce(known.newest, 0) then
    insert into pgtrickle_internal.consumer_looks (outbox_number, look_to, holders)
    values (group_look.outbox_number, newest, writers);
  end if;
  return settled;
end $$;

-- Forgets all looks at an outbox. They are taken again.
create or replace function pgtrickle_internal.forget_looks(outbox_number int) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  delete from pgtrickle_internal.consumer_looks l
  where l.ctid = any (array(
    select o.ctid from pgtrickle_internal.consumer_looks o
    where o.outbox_number = forget_looks.outbox_number for update skip locked));
$$;

-- Raises where the rows that slots have committed are not those that the outbox has under their ids.
create or replace function pgtrickle_internal.require_same_rows(
  outbox_table text, slots pgtrickle_internal.consumer_slots[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  s pgtrickle_internal.consumer_slots;
  seen bigint;
  is_other boolean;
begin
  foreach s in array slots loop
    continue when s.mark_id is null or s.mark_id = seen;
    execute format('select o.pgt_id <> $2 from pgtrickle.%I o where o.id = $1', outbox_table)
      into is_other using s.mark_id, s.mark;
    if is_other then
      raise exception 'outbox % was rewound: row % is not the one that a consumer group committed',
          outbox_table, s.mark_id
        using errcode = 'object_not_in_prerequisite_state',
              hint = 'It was restored, or its sequence was set back. seek_offset() sets the group '
                     'to where it should go on.';
    end if;
    seen := s.mark_id;
  end loop;
end $$;

-- The highest id up to which everything behind `passed` may be delivered; `passed` itself where
-- there is nothing. `wanted`: so many ids are enough.
create or replace function pgtrickle_internal.group_horizon(
  outbox_number int, outbox_table text, sequence text, passed bigint, wanted int) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  newest bigint;
  settled bigint;
  last_look bigint;
  run_end bigint;
  run_length bigint;
begin
  -- Groups read outboxes of ours: their sequences are in the schema pgtrickle.
  execute format('select case when s.is_called then s.last_value else 0 end, n.* from %s s, '
                 '(select max(id), count(*) from pgtrickle.%I where id > $1 and id <= $1 + $2) n',
                 sequence::regclass, outbox_table)
    into newest, run_end, run_length using passed, wanted;
  if newest < passed then
    raise exception 'outbox % was rewound: a consumer group stands at %, the last id is %',
        outbox_table, passed, newest
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'It was restored, or its sequence was set back. seek_offset() sets the group '
                   'to where it should go on.';
  elsif newest = passed then
    return passed;
  elsif run_length = run_end - passed and (run_length = wanted or run_end >= newest) then
    return run_end;
  end if;
  select max(l.look_to) filter (where l.holders = '{}'), max(l.look_to) into settled, last_look
  from pgtrickle_internal.consumer_looks l
  where l.outbox_number = group_horizon.outbox_number;
  if last_look > newest and last_look > pgtrickle_internal.last_drawn(sequence::regclass) then
    -- The sequence was set back: what was seen of ids before says nothing of those that come again.
    perform pgtrickle_internal.forget_looks(outbox_number);
    settled := null;
  end if;
  settled := greatest(settled, passed);
  if settled >= newest or settled - passed >= wanted then
    return settled;
  end if;
  execute format('select max(r.id), count(*) from ('
                 '  select n.id, n.id - row_number() over (order by n.id) as run'
                 '  from (select id from pgtrickle.%I where id > $1 order by id limit $2) n) r '
                 'where r.run = $1', outbox_table)
    into run_end, run_length using settled, wanted;
  if run_length >= wanted or run_end >= newest then
    return run_end;
  end if;
  return greatest(run_end, settled, pgtrickle_internal.group_look(
    outbox_number, format('pgtrickle.%I', outbox_table)::regclass, newest));
end $$;
