-- Recording all rows of a table at once: a full refresh, and partitions that are removed.

-- Records the problem of an outbox in the catalog; null: it has none. True if that is a change.
create or replace function pgtrickle_internal.outbox_note(number int, what text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  said constant text := pgtrickle_internal.outbox_note_gap(number, what);
begin
  update pgtrickle_internal.outbox_config c set problem = said
  where c.outbox_number = number and c.problem is distinct from said;
  return found;
end $$;

-- Raises in a transaction whose snapshot may be older than a lock that it waits for: it would record
-- the rows of then.
create or replace function pgtrickle_internal.require_fresh_snapshots(what text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception '% needs a READ COMMITTED transaction, not %', what,
      upper(current_setting('transaction_isolation'))
      using errcode = 'active_sql_transaction',
            hint = 'BEGIN ISOLATION LEVEL READ COMMITTED';
  end if;
end $$;

-- Writes all rows of a relation as one claim check; the transaction has locked it against writers.
-- With 'FULL' the rows are all that there are, and `reason` says why they are sent. They are read as
-- the owner of the outbox's table. Returns the outbox id, null when there was no row to say.
--
-- For administrators, whose rights on the table it cannot see: of a relation that is part of the table
-- it can say all rows, and of one that has left it that they are gone.
create or replace function pgtrickle_internal.capture_relation(
  number int, rel regclass, op text, tg_op text, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  made bigint;
begin
  if op is distinct from 'FULL' and (op is distinct from 'DELETE' or exists (
      select from pgtrickle_internal.outbox_config c
      cross join lateral pgtrickle_internal.partition_tree(c.stream_table_oid) t
      where c.outbox_number = number and t.relid = rel)) then
    raise exception '% cannot be recorded as %', rel, coalesce(op, 'null')
      using errcode = 'insufficient_privilege';
  end if;
  made := pgtrickle_internal.capture_rows_of(number, rel, op, tg_op, reason);
  if op = 'FULL' then
    perform pgtrickle_internal.outbox_refreshed(number);
  end if;
  return made;
end $$;

-- The same without that check. For pgtrickle_owner only.
create or replace function pgtrickle_internal.capture_rows_of(
  number int, rel regclass, op text, tg_op text, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  made bigint;
  n bigint;
  keys text;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  perform pgtrickle_internal.require_fresh_snapshots('recording all rows of a table');
  perform pgtrickle_internal.require_quiet(rel);
  if op = 'FULL' and rel <> outbox.stream_table_oid or not pgtrickle_internal.capture_admits(number, rel)
  then
    raise exception '% is not recorded in the outbox of "%"', rel, outbox.stream_table_name
      using errcode = 'wrong_object_type';
  end if;
  select coalesce('order by ' || string_agg(format('r.j -> %L', k), ', '), '') into keys
  from unnest(outbox.key_columns) k;
  execute format(
    'insert into pgtrickle.%I (tg_op, is_claim_check, payload) values ($1, true, $2) returning id',
    outbox.outbox_table_name)
    into made
    using tg_op, '{"v": 1, "claim_check": true, "refresh_duration_ms": 0}'::jsonb
      || case when op = 'FULL' then '{"full_refresh": true, "refresh_mode": "FULL"}'
              else '{"refresh_mode": "DIFFERENTIAL"}' end::jsonb
      || case when reason is null then '{}' else jsonb_build_object('reason', reason) end
      || case when outbox.key_attnums is null
                and coalesce(outbox.first_key_columns, '{}') = '{}' then '{}'
              else pgtrickle_json.key_marks(
                outbox.stream_table_oid, outbox.key_attnums, outbox.first_key_columns,
                format('!pgtrickle_%s_begin', outbox.outbox_number)) end;
  execute format(
    'insert into pgtrickle.%I (outbox_id, row_num, row_op, row_data) '
    'select $1, row_number() over (%s), $2, r.j from pgtrickle_internal.outbox_read($3, $4, ''rows'') r (j)',
    outbox.delta_table_name, keys)
    using made, case op when 'FULL' then 'INSERT' else op end, outbox, rel;
  get diagnostics n = row_count;
  if n = 0 and op <> 'FULL' then
    execute format('delete from pgtrickle.%I where id = $1', outbox.outbox_table_name) using made;
    return null;
  end if;
  execute format('update pgtrickle.%I set inserted_count = $2, deleted_count = $3 where id = $1',
                 outbox.outbox_table_name)
    using made, case op when 'DELETE' then 0 else n end, case op when 'DELETE' then n else 0 end;
  if outbox.notify then
    perform pg_notify('pgtrickle_outbox_new', outbox.outbox_table_name);
  end if;
  return made;
end $$;

-- Forgets why a full refresh was needed: it has been written, by a transaction that has locked the
-- table. For pgtrickle_owner only.
create or replace function pgtrickle_internal.outbox_refreshed(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_quiet(c.stream_table_oid::regclass)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  delete from pgtrickle_internal.outbox_misses m where m.outbox_number = number;
  update pgtrickle_internal.outbox_signatures s set wanted = null
  where s.outbox_number = number and s.wanted is not null;
end $$;

-- Records all rows of the table anew: a consumer that reads on from there has the table, whatever went
-- before. Writers wait meanwhile. Returns the outbox id.
create or replace function pgtrickle.outbox_full_refresh(name text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(name);
begin
  if outbox.kind <> 'table' then
    raise exception 'outbox "%" does not record a table', name
      using errcode = 'wrong_object_type',
            hint = 'A stream table has refresh_stream_table().';
  elsif not exists (select from pg_class c where c.oid = outbox.stream_table_oid) then
    raise exception 'the table of outbox "%" was dropped', name using errcode = 'undefined_table';
  end if;
  perform pgtrickle_internal.require_fresh_snapshots('outbox_full_refresh()');
  perform pgtrickle_internal.outbox_check_owner(outbox.stream_table_oid);
  return pgtrickle_internal.outbox_heal(outbox.outbox_number, true);
end $$;
comment on function pgtrickle.outbox_full_refresh(text) is
  'Records all rows of an outbox''s table as a full refresh; writers wait while it reads';

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.outbox_note(integer, text), pgtrickle_internal.require_fresh_snapshots(text),
  pgtrickle_internal.capture_relation(integer, regclass, text, text, text)
  to pgtrickle_admin;
