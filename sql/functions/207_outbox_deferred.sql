-- Outboxes of tables whose key is checked at the end of the transaction only (DEFERRABLE).
--
-- Between two statements such a table may have two rows with one key, and then no order of the
-- statements is right for a consumer that keeps one row for each key. Nor is the order in which
-- transactions record: one that takes a key which another one has given free records that before the
-- other commits. So what a transaction has written into such an outbox is written again when the key
-- has been checked, as one outbox row: its net change. A key is deleted there and inserted once at
-- most, and its id is above those of all transactions that it had to wait for.

-- Whether the key of an outbox is checked at the end of the transaction only.
create or replace function pgtrickle_internal.capture_defers(
  outbox pgtrickle_internal.outbox_config) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_and(not i.indimmediate), false)
  from pg_index i
  where i.indrelid = outbox.stream_table_oid and i.indisunique and i.indpred is null
    and i.indexprs is null
    and (select array_agg(a.attname::text) from pg_attribute a
         where a.attrelid = i.indrelid
           and a.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1]))
        <@ outbox.key_columns;
$$;

-- An outbox row has been written for a table with such a key; null: none.
create or replace function pgtrickle_internal.capture_defer(number int, written bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if written is not null and pgtrickle_internal.capture_defers(outbox) then
    execute format('insert into pgtrickle_internal.outbox_deferred (outbox_number, xid, outbox_id, pgt_id) '
                   'select $1, pg_current_xact_id(), o.id, o.pgt_id from pgtrickle.%I o '
                   'where o.id = $2', outbox.outbox_table_name)
      using number, written;
  end if;
end $$;

-- Writes what this transaction has recorded in an outbox since the last full refresh again, as one row.
create or replace function pgtrickle_internal.capture_combine(number int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off set jit = off
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  first_id bigint;
  tags uuid[];
  own bigint[];
  small boolean;
  lost boolean;
  changes constant text := $sql$
    with net as (
      select r, sum(case op when 'INSERT' then 1 else -1 end) as n
      from (
        select 'DELETE' as op, jsonb_array_elements(o.payload -> 'deleted') as r
        from pgtrickle.%1$I o where o.id = any ($1) and not o.is_claim_check
        union all
        select 'INSERT', jsonb_array_elements(o.payload -> 'inserted')
        from pgtrickle.%1$I o where o.id = any ($1) and not o.is_claim_check
        union all
        select d.row_op, d.row_data from pgtrickle.%2$I d where d.outbox_id = any ($1)) c
      group by r
    ), changes as (
      select case when net.n > 0 then 'INSERT' else 'DELETE' end as op, net.r,
             (select array_agg(net.r -> k.name order by k.ord)
              from unnest($2) with ordinality k (name, ord)) as key
      from net cross join lateral generate_series(1, abs(net.n))
    )$sql$;
begin
  with gone as (
    delete from pgtrickle_internal.outbox_deferred f
    where f.outbox_number = number and f.xid = pg_current_xact_id()
    returning f.outbox_id, f.pgt_id
  )
  select min(g.outbox_id), array_agg(g.pgt_id) into first_id, tags from gone g;
  select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if not found then
    return;  -- dropped in this transaction
  end if;
  execute format('select %s or %s', pgtrickle_internal.capture_is_lost(outbox.outbox_table_name),
                 pgtrickle_internal.capture_is_lost(outbox.delta_table_name)) into lost;
  if lost then
    perform pgtrickle_internal.capture_missed(number, 'a table of the outbox was gone');
    return;
  end if;
  execute format($sql$
    with since as (
      select o.id, o.pgt_id, o.payload ? 'full_refresh' as is_full,
             case when o.is_claim_check then null else octet_length(o.payload::text) end as bytes,
             o.inserted_count + o.deleted_count as rows
      from pgtrickle.%I o where o.id >= $1
    )
    select array_agg(s.id), coalesce(sum(s.rows) <= $3 and sum(s.bytes) <= $4 and count(s.bytes) = count(*), false)
    from since s
    where s.pgt_id = any ($2)
      and s.id > coalesce((select max(f.id) from since f where f.is_full), 0)$sql$,
    outbox.outbox_table_name)
    into own, small
    using first_id, tags, outbox.inline_threshold_rows, outbox.inline_threshold_bytes;
  if own is null
     or own = array[pg_sequence_last_value(outbox.outbox_sequence::regclass)] then
    return;  -- a single row, and none has been recorded behind it
  end if;
  if small then
    execute format(changes || $sql$, both_kinds as (
      select coalesce(jsonb_agg(c.r order by c.key) filter (where c.op = 'INSERT'), '[]') as inserted,
             coalesce(jsonb_agg(c.r order by c.key) filter (where c.op = 'DELETE'), '[]') as deleted,
             count(*) filter (where c.op = 'INSERT') as inserted_count,
             count(*) filter (where c.op = 'DELETE') as deleted_count
      from changes c
    )
    insert into pgtrickle.%1$I (inserted_count, deleted_count, tg_op, payload)
    select b.inserted_count, b.deleted_count,
           case 0 when b.deleted_count then 'INSERT' when b.inserted_count then 'DELETE'
                  else 'UPDATE' end,
           jsonb_build_object('v', 1, 'inserted', b.inserted, 'deleted', b.deleted,
                              'refresh_mode', 'DIFFERENTIAL', 'refresh_duration_ms', 0)
    from both_kinds b where b.inserted_count + b.deleted_count > 0$sql$,
      outbox.outbox_table_name, outbox.delta_table_name)
      using own, outbox.key_columns;
  else
    execute format(changes || $sql$, counts as (
      select count(*) filter (where c.op = 'INSERT') as inserted_count,
             count(*) filter (where c.op = 'DELETE') as deleted_count
      from changes c
    ), made as (
      insert into pgtrickle.%1$I (inserted_count, deleted_count, is_claim_check, tg_op, payload)
      select n.inserted_count, n.deleted_count, true,
             case 0 when n.deleted_count then 'INSERT' when n.inserted_count then 'DELETE'
                    else 'UPDATE' end,
             '{"v": 1, "claim_check": true, "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 0}'
      from counts n where n.inserted_count + n.deleted_count > 0
      returning id
    )
    insert into pgtrickle.%2$I (outbox_id, row_num, row_op, row_data)
    select made.id, row_number() over (order by c.key, c.op), c.op, c.r from made, changes c$sql$,
      outbox.outbox_table_name, outbox.delta_table_name)
      using own, outbox.key_columns;
  end if;
  execute format('delete from pgtrickle.%I where outbox_id = any ($1)', outbox.delta_table_name)
    using own;
  execute format('delete from pgtrickle.%I where id = any ($1)', outbox.outbox_table_name)
    using own;
end $$;

-- After the last row that the transaction has recorded: all keys up to there have been checked.
create or replace function pgtrickle_internal.capture_combine_trigger() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_read_only') = 'on' then
    return null;  -- since it wrote: see deferred_missed
  end if;
  if not exists (select from pgtrickle_internal.outbox_deferred f
                 where f.n > new.n and f.outbox_number = new.outbox_number
                   and f.xid = pg_current_xact_id()) then
    perform pgtrickle_internal.capture_combine(new.outbox_number);
  end if;
  return null;
end $$;

do $$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'pgtrickle_internal.outbox_deferred'::regclass
                   and t.tgname = 'combine') then
    create constraint trigger combine after insert on pgtrickle_internal.outbox_deferred
      deferrable initially deferred
      for each row execute function pgtrickle_internal.capture_combine_trigger();
  end if;
  -- Also for what is written under session_replication_role = replica, by subscriptions for one.
  if exists (select from pg_catalog.pg_trigger t
             where t.tgrelid = 'pgtrickle_internal.outbox_deferred'::regclass
               and t.tgname = 'combine' and t.tgenabled <> 'A') then
    alter table pgtrickle_internal.outbox_deferred enable always trigger combine;
  end if;
end $$;

-- Transactions that could not write their rows again because they had become READ ONLY: a full refresh
-- shows their changes. Rows of other transactions are never visible here.
create or replace function pgtrickle_internal.deferred_missed() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  with gone as (
    delete from pgtrickle_internal.outbox_deferred f where f.xid <> pg_current_xact_id()
    returning f.outbox_number
  )
  insert into pgtrickle_internal.outbox_misses (outbox_number, why)
  select distinct g.outbox_number,
         'a transaction that became READ ONLY wrote to a table whose key is checked at its end'
  from gone g
  where exists (select from pgtrickle_internal.outbox_config c where c.outbox_number = g.outbox_number);
end $$;

-- What capture functions call.
grant execute on function pgtrickle_internal.capture_defer(integer, bigint) to pgtrickle_capture;
-- What administrators reach with their own rights, by what they call.
grant execute on function pgtrickle_internal.deferred_missed() to pgtrickle_admin;
