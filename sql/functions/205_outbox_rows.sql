-- The rows of an outbox: how they are written, and how they are read back.
--
-- The payload, version 1:
--   {"v": 1, "inserted": [...], "deleted": [...], "refresh_mode": ..., "refresh_duration_ms": ...}
-- and beyond a threshold of rows or bytes the claim check
--   {"v": 1, "claim_check": true, "refresh_mode": ..., "refresh_duration_ms": ...}
-- with the rows in the outbox's table of delta rows. "full_refresh": true says that the rows are
-- all rows that there are. "key_columns": [...] are the names under which these rows have the key, where
-- they are not those of when the outbox was made; empty: the rows have lost their key.

-- Writes a difference into an outbox; 200_outbox_catalog.sql describes it.
create or replace function pgtrickle_internal.outbox_append(
  outbox_table text, changes regclass, refresh_id uuid, refresh_mode text, refresh_duration_ms int,
  full_refresh boolean) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  inserted bigint;
  deleted bigint;
  bytes bigint;
  payload jsonb;
  made bigint;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.outbox_table_name = outbox_table;
  execute format('select count(*) filter (where op = ''INSERT''), '
                 'count(*) filter (where op = ''DELETE'') from %s', changes)
    into inserted, deleted;
  if inserted + deleted = 0 and not coalesce(full_refresh, false) then
    return null;
  end if;

  payload := jsonb_build_object('v', 1, 'refresh_mode', refresh_mode,
                                'refresh_duration_ms', refresh_duration_ms)
    || case when full_refresh then '{"full_refresh": true}'::jsonb else '{}' end
    || case when coalesce(outbox.key_columns, '{}') <> outbox.first_key_columns
            then jsonb_build_object('key_columns', coalesce(outbox.key_columns, '{}')) else '{}' end;
  -- The size in memory, not the compressed one on disk, is what a jsonb value must not exceed.
  if inserted + deleted <= outbox.inline_threshold_rows then
    execute format('select coalesce(sum(octet_length(row_data::text)), 0) from %s', changes)
      into bytes;
  end if;

  if bytes <= outbox.inline_threshold_bytes then
    execute format(
      'insert into pgtrickle.%I (refresh_id, inserted_count, deleted_count, payload) '
      'select $1, $2, $3, $4 || jsonb_build_object('
      '  ''inserted'', coalesce(jsonb_agg(row_data order by ord) '
      '                         filter (where op = ''INSERT''), ''[]''), '
      '  ''deleted'', coalesce(jsonb_agg(row_data order by ord) '
      '                        filter (where op = ''DELETE''), ''[]'')) '
      'from %s returning id', outbox_table, changes)
      into made using refresh_id, inserted, deleted, payload;
  else
    execute format(
      'insert into pgtrickle.%I (refresh_id, inserted_count, deleted_count, is_claim_check, '
      '                          payload) '
      'values ($1, $2, $3, true, $4) returning id', outbox_table)
      into made using refresh_id, inserted, deleted, payload || '{"claim_check": true}';
    execute format(
      'insert into pgtrickle.%I (outbox_id, row_num, row_op, row_data) '
      'select $1, row_number() over (order by ord, op), op, row_data from %s',
      outbox.delta_table_name, changes)
      using made;
  end if;
  perform pg_notify('pgtrickle_outbox_new', outbox_table);
  return made;
end $$;

-- The rows of one outbox row, inline or claim check, in the order in which they are to be applied.
create or replace function pgtrickle.outbox_rows(stream_table text, outbox_id bigint)
returns table (row_num bigint, row_op text, row_data jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(stream_table);
  claim_check boolean;
begin
  if outbox.kind in ('events', 'adopted') then
    raise exception 'outbox "%" holds events, which have no rows', stream_table
      using errcode = 'wrong_object_type',
            hint = case outbox.kind when 'adopted' then 'Read the adopted table.'
                        else format('Read payload from pgtrickle.%I.', outbox.outbox_table_name) end;
  end if;
  execute format('select is_claim_check from pgtrickle.%I where id = $1', outbox.outbox_table_name)
    into claim_check using outbox_id;
  if claim_check then
    return query execute format(
      'select row_num, row_op, row_data from pgtrickle.%I where outbox_id = $1 order by row_num',
      outbox.delta_table_name) using outbox_id;
  elsif claim_check is not null then
    return query execute format(
      'select row_number() over (order by r.kind, r.ord), r.row_op, r.row_data '
      'from pgtrickle.%I o '
      'cross join lateral ('
      '  select 1, ''DELETE'', d.* from jsonb_array_elements(o.payload -> ''deleted'') '
      '    with ordinality d '
      '  union all '
      '  select 2, ''INSERT'', i.* from jsonb_array_elements(o.payload -> ''inserted'') '
      '    with ordinality i) r (kind, row_op, row_data, ord) '
      'where o.id = $1 order by 1', outbox.outbox_table_name) using outbox_id;
  end if;
end $$;
comment on function pgtrickle.outbox_rows(text, bigint) is
  'The rows of one outbox row, inline or claim check, deleted before inserted';

-- Records that one reader is done with a claim check. Deletes nothing: another reader may still need
-- it, and retention knows all readers.
create or replace function pgtrickle.outbox_rows_consumed(stream_table text, outbox_id bigint)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(stream_table);
begin
  update pgtrickle_internal.outbox_config c
  set last_consumed_id = outbox_id, last_consumed_at = clock_timestamp()
  where c.outbox_number = outbox.outbox_number;
end $$;
comment on function pgtrickle.outbox_rows_consumed(text, bigint) is
  'Says that a reader is done with the rows of a claim check; deletes nothing';

-- What the daemon calls.
grant execute on function
  pgtrickle.outbox_rows(text, bigint), pgtrickle.outbox_rows_consumed(text, bigint)
  to pgtrickle_relay;
