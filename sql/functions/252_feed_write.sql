-- How the relay writes change feeds.
--
-- One call is one statement and one transaction. It locks the position of the pipeline, which it finds
-- only with the token of the owner, then the mark of the feed; both until its commit. So one call
-- follows the other, change_ids are drawn in the order of commits, and an owner that was replaced, or
-- thaws after it was frozen, writes nothing. The mark says up to which row the feed is written: rows
-- that are sent again, after an answer was lost, are passed over.
--
-- A change of the outbox is known by the id of the outbox row and a number in it: 0 is the row F of a
-- full refresh, the others are numbered from 1. Its relay sends them in that order without a gap, from
-- the position that it owns on.

-- Writes rows. Returns up to which row the feed is written now; null: the caller is not the owner.
-- `after_id` and `after_row` are the answer of the caller's last call, or null. Where the feed is not as
-- far as that, the database was set back (a failover): nothing is written, and the answer says so.
create or replace function pgtrickle.relay_write_feed(
  feed text, relay_group text, pipeline text, incarnation uuid, owner_token uuid, after_id bigint,
  after_row bigint, outbox_ids bigint[], row_nums bigint[], actions text[], keys text[],
  new_rows text[], old_rows text[], out outbox_id bigint, out row_num bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  known record;
  mark pgtrickle_internal.change_feed_marks;
  known_rows int;
begin
  select f.feed_number, f.full_refresh_rows, c.outbox_table_name into known
  from pgtrickle_internal.change_feeds f
  join pgtrickle_internal.outbox_config c on c.outbox_number = f.outbox_number
  where f.feed_name = feed and f.pipeline = relay_write_feed.pipeline
    and c.incarnation = relay_write_feed.incarnation;
  if known.feed_number is null or not pgtrickle_internal.feed_is_ours(feed) then
    raise exception 'the change feed pgtrickle_changes.% of pipeline "%" is gone', feed, pipeline
      using errcode = 'undefined_table',
            hint = format('SELECT pgtrickle.drop_change_feed(%L, if_exists => true); then '
                          'create_change_feed() makes it anew.', feed);
  end if;
  perform from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id = relay_group and o.pipeline_id = relay_write_feed.pipeline
    and o.incarnation = relay_write_feed.incarnation
    and o.owner_token = relay_write_feed.owner_token
  for update;
  if not found then
    return;
  end if;
  select * into mark from pgtrickle_internal.change_feed_marks m
  where m.feed_number = known.feed_number for update;
  select count(*) into known_rows
  from unnest(outbox_ids, row_nums) g (id, num)
  where (g.id, g.num) <= (mark.outbox_id, mark.row_num);

  if (mark.outbox_id, mark.row_num) < (after_id, after_row)
     or known_rows = cardinality(outbox_ids) then
    outbox_id := mark.outbox_id;
    row_num := mark.row_num;
    return;
  end if;
  -- A row of a feed is durable once it can be read, as far as the server can say.
  if current_setting('synchronous_commit') in ('off', 'local') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  execute format($sql$
    with known as materialized (
      select o.id, o.refresh_id, o.created_at, o.inserted_count
      from pgtrickle.%I o
      where o.id in (select distinct g.id from unnest($1) g (id))
    )
    insert into pgtrickle_changes.%I
      (change_id, refresh_id, action, pk, pk_hash, row_data, old_data, changed_at, outbox_id, row_num)
    select $7 + g.ord, k.refresh_id, g.action, g.pk::jsonb,
           jsonb_hash_extended(coalesce(g.pk, g.new_row, g.old_row)::jsonb, 0),
           case when g.action = 'F' and $9 then jsonb_build_object('rows', k.inserted_count)
                else coalesce(g.new_row, g.old_row)::jsonb end,
           case when g.new_row is not null then g.old_row::jsonb end,
           k.created_at, g.id, g.num
    from unnest($1, $2, $3, $4, $5, $6) with ordinality g (id, num, action, pk, new_row, old_row, ord)
    left join known k on k.id = g.id
    where g.ord > $8$sql$, known.outbox_table_name, feed)
    using outbox_ids, row_nums, actions, keys, new_rows, old_rows,
          mark.last_change_id - known_rows, known_rows, known.full_refresh_rows;
  outbox_id := outbox_ids[cardinality(outbox_ids)];
  row_num := row_nums[cardinality(row_nums)];
  update pgtrickle_internal.change_feed_marks m
  set outbox_id = relay_write_feed.outbox_id, row_num = relay_write_feed.row_num,
      last_change_id = mark.last_change_id + cardinality(outbox_ids) - known_rows
  where m.feed_number = known.feed_number;
end $$;
comment on function pgtrickle.relay_write_feed(
  text, text, text, uuid, uuid, bigint, bigint, bigint[], bigint[], text[], text[], text[], text[]) is
  'For the relay: writes changes into a change feed; null when another instance owns its pipeline';

-- After a position of a feed's pipeline was set by the operator, rows are missing in the feed, or come
-- again: readers are told to read the table anew.
create or replace function pgtrickle_internal.feed_was_set(pipeline text, last_change_id bigint)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  feed pgtrickle_internal.change_feeds;
  mark pgtrickle_internal.change_feed_marks;
begin
  select * into feed from pgtrickle_internal.change_feeds f where f.pipeline = feed_was_set.pipeline;
  if feed.feed_number is null or not pgtrickle_internal.feed_is_ours(feed.feed_name) then
    return;
  end if;
  select * into mark from pgtrickle_internal.change_feed_marks m
  where m.feed_number = feed.feed_number for update;
  -- The outbox may draw later ids again.
  execute format('update pgtrickle_changes.%I set outbox_id = null, row_num = null '
                 'where outbox_id > $1', feed.feed_name) using feed_was_set.last_change_id;
  update pgtrickle_internal.change_feed_marks m
  set outbox_id = feed_was_set.last_change_id, row_num = 9223372036854775807,
      last_change_id = mark.last_change_id + 1
  where m.feed_number = feed.feed_number;
  execute format('insert into pgtrickle_changes.%I (change_id, action) values ($1, ''F'')',
                 feed.feed_name) using mark.last_change_id + 1;
end $$;

-- The relay that writes a feed under the lease of another group; null where there is none. The position
-- of a feed belongs to no group of relays, so their leases do not keep them apart.
create or replace function pgtrickle_internal.feed_writer_elsewhere(
  relay_group text, pipeline text, incarnation uuid, worker text) returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select s.worker_id
  from pgtrickle_internal.change_feeds f
  join pgtrickle.relay_consumer_offsets o
    on o.relay_group_id = relay_group and o.pipeline_id = f.pipeline
       and o.incarnation = feed_writer_elsewhere.incarnation and o.worker_id <> worker
  join pgtrickle.relay_leases l on l.kind = 'pipeline' and l.name = f.pipeline
  join pgtrickle_internal.live_lease_sessions() s
    on s.token = l.token and s.worker_id = o.worker_id
  where f.pipeline = feed_writer_elsewhere.pipeline
  limit 1;
$$;

-- What the daemon calls.
grant execute on function pgtrickle.relay_write_feed(
  text, text, text, uuid, uuid, bigint, bigint, bigint[], bigint[], text[], text[], text[], text[])
  to pgtrickle_relay;
