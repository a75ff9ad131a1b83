-- Polls: what a consumer of a group is given.
--
-- A consumer leases slots, its share of them while others are alive. A poll leases them for
-- visibility_seconds and returns rows; commit_offset passes them. A poll after an unanswered one
-- returns the same rows again. Nothing here waits for a lock that another consumer, a publisher or
-- housekeeping holds.

-- Notes that a consumer lives; how many of the group do.
create or replace function pgtrickle_internal.group_seen(
  group_number int, consumer text, alive_for interval) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  moment constant timestamptz := clock_timestamp();
  known_until timestamptz;
begin
  select m.alive_until into known_until from pgtrickle_internal.consumer_members m
  where m.group_number = group_seen.group_number and m.consumer = group_seen.consumer;
  if not found then
    delete from pgtrickle_internal.consumer_members m
    where (m.group_number, m.consumer) in (
      select o.group_number, o.consumer from pgtrickle_internal.consumer_members o
      where o.group_number = group_seen.group_number and o.alive_until < moment - interval '1 day'
      limit 100 for update skip locked);
    insert into pgtrickle_internal.consumer_members values (
      group_seen.group_number, group_seen.consumer, moment, moment + alive_for)
    on conflict do nothing;
  elsif known_until < moment + alive_for / 2 then
    update pgtrickle_internal.consumer_members m
    set seen_at = moment, alive_until = moment + alive_for
    where m.ctid = (select o.ctid from pgtrickle_internal.consumer_members o
                    where o.group_number = group_seen.group_number
                      and o.consumer = group_seen.consumer
                    for update skip locked);
  end if;
  return (select 1 + count(*) from pgtrickle_internal.consumer_members m
          where m.group_number = group_seen.group_number and m.consumer <> group_seen.consumer
            and m.alive_until > moment);
end $$;

-- The slots of a group that a poll of the consumer is for, locked: those that wait for its commit;
-- else its share, free ones included.
create or replace function pgtrickle_internal.group_lease(
  group_number int, slots int, consumer text, alive_for interval)
returns setof pgtrickle_internal.consumer_slots
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  moment constant timestamptz := clock_timestamp();
  alive constant int := pgtrickle_internal.group_seen(group_number, consumer, alive_for);
  share constant int := (slots + alive - 1) / alive;
  mine pgtrickle_internal.consumer_slots[];
begin
  select array_agg(s) into mine
  from (select o.* from pgtrickle_internal.consumer_slots o
        where o.group_number = group_lease.group_number and o.holder = group_lease.consumer
        order by o.offered is null, o.slot for update skip locked) s;
  if mine[1].offered is not null then
    return query select s.* from unnest(mine) s where s.offered is not null;
    return;
  end if;
  if cardinality(mine) > share then
    update pgtrickle_internal.consumer_slots o set holder = null, until = null
    where o.group_number = group_lease.group_number
      and o.slot in (select s.slot from unnest(mine[share + 1:]) s);
    mine := mine[:share];
  end if;
  return query select s.* from unnest(mine) s;
  if cardinality(mine) >= share then
    return;
  end if;
  return query
    select o.* from pgtrickle_internal.consumer_slots o
    where o.group_number = group_lease.group_number
      and (o.holder is null or (o.until <= moment and o.holder <> group_lease.consumer))
    order by o.slot limit share - coalesce(cardinality(mine), 0) for update skip locked;
end $$;

-- Stores a row of an outbox as a dead letter of a group. Nothing where the row is gone.
create or replace function pgtrickle_internal.group_dead_letter(
  group_name text, outbox_table text, kind text, id bigint, attempts int, code text, error text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  execute format($sql$
    insert into pgtrickle.relay_dlq as d (
      relay_group_id, pipeline, message_id, key, payload, content_type, headers, outbox_id,
      error_class, error_code, error_message, attempts)
    select 'consumer group', $2, format('%%s:%%s', $3, o.id), %s,
           convert_to(o.payload::text, 'UTF8'), 'application/json', o.headers, o.id, 'poison', $4,
           $5, $6
    from pgtrickle.%I o where o.id = $1
    on conflict (relay_group_id, pipeline, md5(message_id), (coalesce(md5(payload), '')),
                 (coalesce(md5(key), '')), (coalesce(md5(op), ''))) where resolved_at is null
    do update set attempts = d.attempts + excluded.attempts, last_failed_at = clock_timestamp(),
                  error_code = excluded.error_code, error_message = excluded.error_message$sql$,
    case kind when 'events' then 'o.event_key' else 'null' end, outbox_table)
    using id, group_name, outbox_table, code, error, greatest(attempts, 1);
end $$;

-- The slot that a row `o` of an outbox belongs to, as an expression. Rows without a key have no
-- order.
create or replace function pgtrickle_internal.group_slot_of(slots int) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return case when slots = 1 then '0' else format(
    '((coalesce(hashtextextended(o.event_key collate "C", 0), hashint8extended(o.id, 0)) '
    '& %s)::int)',
    slots - 1) end;
end $$;

-- The statement that reads rows for slots. $1: the position of each slot, null where it is another
-- consumer's; $2: the lowest of them; $3: the last id; $4: how many rows; $5: ids not to be read;
-- $6: the attempts of each slot.
create or replace function pgtrickle_internal.group_statement(outbox_table text, kind text,
                                                              slots int) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    'select %1$s as slot, o.id, o.pgt_id, o.created_at, o.inserted_count, o.deleted_count, '
    'o.is_claim_check, o.payload, %2$s, o.headers, ($6::int[])[1 + %1$s] + 1 from pgtrickle.%3$I o '
    'where o.id > $2 and o.id <= $3 and o.id > ($1::bigint[])[1 + %1$s] '
    'and ($5 is null or not o.id <@ $5) order by o.id limit $4',
    pgtrickle_internal.group_slot_of(slots),
    case kind when 'events' then 'o.event_type, o.event_key' else 'null::text, null::text' end,
    outbox_table);
end $$;

-- Passes the row of each slot that has been delivered max_attempts times without a commit: it
-- becomes a dead letter. (It was delivered alone at last: see group_fetch.) Returns the slots as
-- they are then.
create or replace function pgtrickle_internal.group_bury(
  group_name text, outbox_table text, kind text, max_attempts int,
  mine pgtrickle_internal.consumer_slots[]) returns pgtrickle_internal.consumer_slots[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  s pgtrickle_internal.consumer_slots;
  kept pgtrickle_internal.consumer_slots[] := '{}';
begin
  foreach s in array mine loop
    if s.attempts >= max_attempts and s.offered is not null then
      if not s.delivered <@ s.rejected then
        perform pgtrickle_internal.group_dead_letter(
          group_name, outbox_table, kind, s.delivered, s.attempts, 'max_attempts',
          format('it was delivered %s times and not committed', s.attempts));
        raise warning 'row % of outbox % is a dead letter of consumer group "%" now', s.delivered,
          outbox_table, group_name
          using detail = format('It was delivered %s times and not committed.', s.attempts),
                hint = 'pgtrickle.relay_dlq has it.';
      end if;
      update pgtrickle_internal.consumer_slots o
      set "position" = s.delivered, offered = null, delivered = null, attempts = 0,
          moved_at = clock_timestamp()
      where o.group_number = s.group_number and o.slot = s.slot
      returning o.* into s;
    end if;
    kept := kept || s;
  end loop;
  return kept;
end $$;

-- One poll. The caller has a pass of the group. Returns the columns of group_statement. (Generic plans:
-- those for the values at hand are no better, and planning took a tenth of a poll.)
create or replace function pgtrickle_internal.group_fetch(
  number int, pass bytea, consumer text, batch_size int, visibility_seconds int)
returns setof record
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  alive_for constant interval := make_interval(secs => visibility_seconds);
  g record;
  mine pgtrickle_internal.consumer_slots[];
  worst pgtrickle_internal.consumer_slots;
  again boolean;  -- the same rows once more
  tried int;
  some_rejected boolean;
  most int := batch_size;
  positions bigint[];
  attempts int[];
  not_read int8multirange;
  passed bigint;
  bound bigint;
  entry record;
  last_of bigint[];
  got int := 0;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  select n.name, n.owner, n.slots, n.max_attempts, n.skipped, n.awaits_snapshot,
         c.outbox_number, c.kind,
         c.outbox_table_name as outbox_table, c.outbox_sequence as sequence into g
  from pgtrickle_internal.consumer_groups n
  join pgtrickle_internal.outbox_config c on c.outbox_number = n.outbox_number
  where n.group_number = number;
  if g.awaits_snapshot then
    raise exception 'consumer group "%" begins with a snapshot, which has not been taken', g.name
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT '
                          'pgtrickle.consumer_snapshot(%L); then read the table, and COMMIT;',
                          g.name);
  end if;
  if g.kind <> 'events' then
    perform pgtrickle_internal.require_no_hidden_rows(g.outbox_number, g.name, g.owner::oid);
  end if;

  select array_agg(l) into mine
  from pgtrickle_internal.group_lease(number, g.slots, consumer, alive_for) l;
  if mine is null then
    return;
  end if;
  perform pgtrickle_internal.require_same_rows(g.outbox_table, mine);
  select coalesce(bool_or(m.holder = group_fetch.consumer and m.offered is not null), false),
         max(m.attempts), bool_or(m.rejected <> '{}')
  into again, tried, some_rejected from unnest(mine) m;
  if tried >= g.max_attempts then
    mine := pgtrickle_internal.group_bury(g.name, g.outbox_table, g.kind, g.max_attempts, mine);
    again := exists (select from unnest(mine) m where m.holder = group_fetch.consumer
                                                  and m.offered is not null);
  end if;
  if again then
    mine := array(select m from unnest(mine) m where m.offered is not null);
  end if;
  -- Rows that were delivered too often come one by one, to find the one that cannot be processed.
  if tried > 0 and tried >= g.max_attempts / 2 then
    select m.* into worst from unnest(mine) m
    where m.attempts > 0 and m.attempts >= g.max_attempts / 2
    order by m.attempts desc, m.slot limit 1;
  end if;
  if worst.slot is not null then
    -- A commit answers this poll alone: what earlier ones offered of other slots is offered anew
    -- later.
    update pgtrickle_internal.consumer_slots o set offered = null, delivered = null
    where o.group_number = number and o.offered is not null and o.slot <> worst.slot
      and o.slot in (select m.slot from unnest(mine) m);
    mine := array[worst];
  end if;
  if worst.slot is not null or g.max_attempts = 1 then
    most := 1;
  end if;

  select array_agg(m."position" order by n), array_agg(m.attempts order by n), min(m."position"),
         max(m.offered)
  into positions, attempts, passed, bound
  from generate_series(0, g.slots - 1) n left join unnest(mine) m on m.slot = n;
  not_read := g.skipped;
  if some_rejected then
    select range_agg(r) + coalesce(g.skipped, '{}') into not_read
    from unnest(mine) m cross join lateral unnest(m.rejected) r;
  end if;
  loop
    if not again then
      bound := pgtrickle_internal.group_horizon(
        g.outbox_number, g.outbox_table, g.sequence, passed,
        least(most::bigint * g.slots / cardinality(mine), 50000)::int);
      exit when bound <= passed;
    end if;
    for entry in execute pgtrickle_internal.group_statement(g.outbox_table, g.kind, g.slots)
      using positions, passed, bound, most, nullif(not_read, '{}'), attempts
    loop
      got := got + 1;
      last_of[1 + entry.slot] := entry.id;
      return next entry;
    end loop;
    if got = most then
      bound := entry.id;
    end if;
    exit when got > 0;
    passed := bound;
    again := false;
  end loop;
  perform pgtrickle_internal.group_offer(mine, consumer, alive_for, bound, last_of);
end $$;

-- Writes what a poll has decided for its slots: rows up to `bound` are offered, or passed where a
-- slot has none; `last_of`: the last row of each slot.
create or replace function pgtrickle_internal.group_offer(
  mine pgtrickle_internal.consumer_slots[], consumer text, alive_for interval, bound bigint,
  last_of bigint[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle_internal.consumer_slots o
  set holder = group_offer.consumer, until = clock_timestamp() + alive_for,
      "position" = case when w.last is null then greatest(m."position", bound)
                        else m."position" end,
      offered = case when w.last is not null then bound end, delivered = w.last,
      attempts = case when w.last is null then 0 else m.attempts + 1 end,
      rejected = case when w.last is null and upper(m.rejected) <= bound + 1 then '{}'
                      else m.rejected end,
      moved_at = case when w.last is null and m."position" < bound then clock_timestamp()
                      else m.moved_at end
  from unnest(mine) m
  cross join lateral (select last_of[1 + m.slot]) w (last)
  where o.group_number = m.group_number and o.slot = m.slot
    -- An idle poll writes nothing.
    and (w.last is not null or m.offered is not null or m."position" < bound
         or m.holder is distinct from group_offer.consumer
         or m.until < clock_timestamp() + alive_for / 2);
end $$;

-- Whether a consumer has a slot now.
create or replace function pgtrickle_internal.group_has_slot(number int, pass bytea, consumer text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  return exists (select from pgtrickle_internal.consumer_slots s
                 where s.group_number = number and s.holder = group_has_slot.consumer);
end $$;

create or replace function pgtrickle.poll_outbox(
  "group" text, consumer text, batch_size int default 100, visibility_seconds int default 30,
  wait_seconds int default 0)
returns table (outbox_id bigint, pgt_id uuid, created_at timestamptz, inserted_count bigint,
               deleted_count bigint, is_claim_check boolean, payload jsonb, event_type text,
               event_key text, headers jsonb, attempt int)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
  pause interval := '4 milliseconds';
  until timestamptz;
begin
  perform pgtrickle_internal.require_consumer(consumer);
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'poll_outbox must run in a READ COMMITTED transaction'
      using errcode = 'feature_not_supported',
            detail = 'A snapshot that was taken before the poll hides rows that it would pass.',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
  elsif (batch_size between 1 and 10000) is not true then
    raise exception 'batch_size must be 1 to 10000, not %', coalesce(batch_size::text, 'null')
      using errcode = 'invalid_parameter_value';
  elsif (visibility_seconds between 1 and 43200) is not true then
    raise exception 'visibility_seconds must be 1 to 43200, not %',
        coalesce(visibility_seconds::text, 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'So long the rows are yours; extend_lease() extends it.';
  elsif (wait_seconds between 0 and 20) is not true then
    raise exception 'wait_seconds must be 0 to 20, not %', coalesce(wait_seconds::text, 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'A statement that waits for longer would hold up VACUUM. Poll again.';
  end if;
  mine := pgtrickle_internal.my_group("group");
  until := clock_timestamp() + make_interval(secs => wait_seconds);
  loop
    return query
      select p.id, p.pgt_id, p.created_at, p.inserted_count, p.deleted_count, p.is_claim_check,
             p.payload, p.event_type, p.event_key, p.headers, p.attempt
      from pgtrickle_internal.group_fetch(mine.number, mine.pass, consumer, batch_size,
                                         visibility_seconds)
        as p (slot int, id bigint, pgt_id uuid, created_at timestamptz, inserted_count bigint,
              deleted_count bigint, is_claim_check boolean, payload jsonb, event_type text,
              event_key text, headers jsonb, attempt int);
    exit when found or clock_timestamp() >= until;
    if pause = '4 milliseconds'
       and not pgtrickle_internal.group_has_slot(mine.number, mine.pass, consumer) then
      -- The others learn of this consumer when its transaction has ended, and give slots back then.
      until := least(until, clock_timestamp() + interval '1 second');
    end if;
    perform pg_sleep_for(least(pause, until - clock_timestamp()));
    pause := least(pause * 2, interval '50 milliseconds');
  end loop;
end $$;
comment on function pgtrickle.poll_outbox(text, text, int, int, int) is
  'The next rows of a consumer group, leased to the consumer: see docs/consumers.md';

create or replace function pgtrickle_internal.group_rows(number int, pass bytea, outbox_id bigint)
returns table (row_num bigint, row_op text, row_data jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  g record;
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  select n.name, n.owner, c.outbox_number, c.outbox_table_name into g
  from pgtrickle_internal.consumer_groups n
  join pgtrickle_internal.outbox_config c on c.outbox_number = n.outbox_number
  where n.group_number = number;
  perform pgtrickle_internal.require_no_hidden_rows(g.outbox_number, g.name, g.owner::oid);
  return query select * from pgtrickle.outbox_rows(g.outbox_table_name, group_rows.outbox_id);
end $$;

create or replace function pgtrickle.consumer_rows("group" text, outbox_id bigint)
returns table (row_num bigint, row_op text, row_data jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  mine constant record := pgtrickle_internal.my_group("group");
begin
  return query select * from pgtrickle_internal.group_rows(mine.number, mine.pass, outbox_id);
end $$;
comment on function pgtrickle.consumer_rows(text, bigint) is
  'The changed rows of one row of a poll, of a claim check too: deleted before inserted';

grant execute on function
  pgtrickle.poll_outbox(text, text, int, int, int), pgtrickle.consumer_rows(text, bigint),
  pgtrickle_internal.group_rows(int, bytea, bigint),
  pgtrickle_internal.group_fetch(int, bytea, text, int, int),
  pgtrickle_internal.group_has_slot(int, bytea, text)
  to pgtrickle_consumer;
