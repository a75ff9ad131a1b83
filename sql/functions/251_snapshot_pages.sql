-- `start: snapshot` of a pipeline: the rows that a table has, and then its changes, exact, without a
-- lock, and resumable.
--
-- The rows are read in pages, in order of a unique key. Each page is of its own moment: the relay
-- opens a REPEATABLE READ transaction and asks for three things that are of one snapshot:
--   relay_snapshot_plan     the changes that it shows and that were not delivered yet
--   relay_snapshot_changes, relay_snapshot_claim
--                           those of them whose keys are in pages that were delivered before; the
--                           others are in the pages to come
--   relay_snapshot_page     the next page
-- They are delivered in this order. So what was delivered is always the table as that snapshot
-- shows it, up to the last key, and no change comes before the page of its key, or twice.
--
-- With the position is stored how far that has come (relay_consumer_offsets.snapshot):
--   after  the last key that is settled
--   ahead  the last key that was perhaps delivered: it is stored before a page is handed out. After
--          a restart changes are delivered up to there, for a row of a page that was handed out may
--          have been deleted since
--   all    the snapshot began once more: its rows may be anywhere at the consumer, so all changes
--          are delivered
--   key, rows, total
--          the columns of the key, how many rows are settled, and about how many there are

-- By which unique key pages of a table are read, as outbox_ask takes it: {"key", "operators",
-- "columns"}. Raises where there is none.
create or replace function pgtrickle_internal.snapshot_key(
  outbox pgtrickle_internal.outbox_config) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  source pg_class;
  k record;
begin
  perform pgtrickle_internal.require_table(outbox);
  select * into source from pg_class c where c.oid = outbox.stream_table_oid;
  if source.oid is null then
    raise exception 'the table of outbox "%" was dropped', outbox.stream_table_name
      using errcode = 'undefined_table', hint = 'Start at "earliest".';
  end if;
  select array_agg(a.attname::text order by n) as columns,
         array_agg(distinct s.nspname::text) as operators,
         string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
                    order by n) as written
  into k
  from pg_index i
  cross join generate_series(0, i.indnkeyatts - 1) n
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[n]
  join pg_opclass c on c.oid = i.indclass[n]
  join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = 5
                and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
  join pg_operator o on o.oid = m.amopopr
  join pg_namespace s on s.oid = o.oprnamespace
  where i.indrelid = source.oid and i.indisunique and i.indisvalid and i.indpred is null
    and i.indexprs is null
    and not exists (select from pg_attribute b
                    where b.attrelid = i.indrelid and not b.attnotnull
                      and b.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1]))
  group by i.indexrelid, i.indisprimary
  having count(distinct s.nspname) = 1
  order by i.indisprimary desc, count(*), i.indexrelid
  limit 1;
  if k.columns is null then
    raise exception 'table "%" has no unique key, by which it could be read in pages',
        outbox.stream_table_name
      using errcode = 'feature_not_supported',
            detail = 'A snapshot that is interrupted goes on behind its last key.',
            hint = case outbox.kind
              when 'table' then 'Add a primary key, or a unique index over NOT NULL columns. Or '
                                'start at "latest" and copy the table yourself.'
              else 'Create the stream table with key_columns. Or start at "latest" and copy the '
                   'table yourself.' end;
  elsif pgtrickle_internal.gate_owner(outbox.reader) is distinct from source.relowner then
    raise exception 'table "%" cannot be read: its outbox has no function of its owner for that',
        outbox.stream_table_name
      using errcode = 'feature_not_supported',
            hint = case when source.relowner = 'pgtrickle_owner'::regrole
                        then 'It is a table of pgtrickle itself. Start at "earliest" or "latest".'
                        else format('Run "pgtrickle-relay init" as a superuser or as %s.',
                                    source.relowner::regrole) end;
  end if;
  return jsonb_build_object('key', k.columns, 'operators', k.operators[1], 'columns', k.written);
end $$;

-- Asks the reader of an outbox (outbox_reader_body) about keys, as the owner of the table.
create or replace function pgtrickle_internal.outbox_ask(
  outbox pgtrickle_internal.outbox_config, action text, arg jsonb)
returns table (ord bigint, row_data jsonb)
language plpgsql volatile set search_path = pg_catalog, pg_temp
  -- As capture writes values: see pgtrickle_json._settings_known().
  set array_nulls = on set bytea_output = hex set DateStyle = ISO set extra_float_digits = 1
  set IntervalStyle = postgres set lc_monetary = 'C' set quote_all_identifiers = off
  set TimeZone = 'UTC'
as $$
begin
  return query
    select g.ord, g.row_data
    from pgtrickle_internal.gate_step(
      outbox.reader, (select c.relowner from pg_class c where c.oid = outbox.stream_table_oid),
      format('the outbox of %I.%I', outbox.stream_table_schema, outbox.stream_table_name), action,
      arg || pgtrickle_internal.snapshot_key(outbox)
        || jsonb_build_object('relation', outbox.stream_table_oid::bigint)) g;
end $$;

-- The outbox of an incarnation, for a step of a snapshot.
create or replace function pgtrickle_internal.snapshot_outbox(incarnation uuid)
returns pgtrickle_internal.outbox_config
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
    raise exception 'a step of a snapshot needs a REPEATABLE READ transaction'
      using errcode = 'active_sql_transaction', hint = 'BEGIN ISOLATION LEVEL REPEATABLE READ;';
  end if;
  select * into outbox from pgtrickle_internal.outbox_config c
  where c.incarnation = snapshot_outbox.incarnation;
  if outbox.outbox_number is null then
    raise exception 'there is no outbox of incarnation %', incarnation
      using errcode = 'undefined_object', hint = 'Resolve the outbox again: it was made anew.';
  end if;
  perform pgtrickle_internal.require_table(outbox);
  return outbox;
end $$;

-- How far a snapshot is, as a relay begins to work on it, and what the position skips; null where
-- none is under way, or the caller does not own the position. Where the key of the table is another
-- one than before, it begins again.
create or replace function pgtrickle.relay_snapshot_open(
  relay_group text, pipeline text, incarnation uuid, owner_token uuid) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  stored pgtrickle.relay_consumer_offsets;
  known jsonb;
  key text;
  total bigint;
begin
  select * into stored from pgtrickle.relay_consumer_offsets o
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_snapshot_open.incarnation
    and o.owner_token = relay_snapshot_open.owner_token
  for update;
  known := stored.snapshot;
  if known is null then
    return null;
  end if;
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.incarnation = relay_snapshot_open.incarnation;
  key := pgtrickle_internal.snapshot_key(outbox) ->> 'columns';
  if known ->> 'key' is distinct from key then
    select sum(greatest(r.reltuples, 0))::bigint into total
    from pgtrickle_internal.partition_tree(outbox.stream_table_oid) t
    join pg_class r on r.oid = t.relid and r.relkind = 'r';
    known := jsonb_build_object('key', key, 'rows', 0, 'total', coalesce(total, 0))
             || case when known = '{}' then '{}' else '{"all": true}' end::jsonb;
    update pgtrickle.relay_consumer_offsets o set snapshot = known
    where o.relay_group_id = relay_group and o.pipeline_id = pipeline
      and o.incarnation = relay_snapshot_open.incarnation;
  end if;
  return known || jsonb_build_object('skipped', stored.skipped::text,
                                     'skipped_mark', stored.skipped_mark);
end $$;
comment on function pgtrickle.relay_snapshot_open(text, text, uuid, uuid) is
  'For the relay: how far the snapshot of a pipeline is; null where none is under way';

-- The next changes of a step, of those behind the position and not in `skipped` that this
-- transaction sees: their ids, or the id of one claim check. `complete`: there are no others.
-- `to_`: the position once they are delivered. `intact`: the rows that the position knows are
-- still those that were read.
create or replace function pgtrickle.relay_snapshot_plan(
  incarnation uuid, change_id bigint, mark uuid, skipped int8multirange, skipped_mark uuid,
  max_rows int, max_bytes bigint, out ids bigint[], out is_claim_check boolean,
  out complete boolean, out to_id bigint, out to_mark uuid, out to_skipped int8multirange,
  out to_skipped_mark uuid, out intact boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox constant pgtrickle_internal.outbox_config :=
    pgtrickle_internal.snapshot_outbox(incarnation);
  known constant int8multirange := coalesce(skipped, '{}');
  last_known constant bigint := greatest(upper(known) - 1, 0);
  next record;
  bytes bigint := 0;
  undelivered bigint;
begin
  execute format(
    'select not exists (select from pgtrickle.%1$I o where (o.id = $1 and o.pgt_id <> $2) '
    '                   or (o.id = $3 and o.pgt_id <> $4)) '
    'and ($3 <= $5 or $4 is null or exists (select from pgtrickle.%1$I o where o.id = $3))',
    outbox.outbox_table_name)
    into intact using change_id, mark, last_known, skipped_mark, outbox.purged_below;
  ids := '{}';
  is_claim_check := false;
  complete := true;
  for next in execute format(
    'select o.id, o.is_claim_check or coalesce(o.payload ? ''claim_check'', false) as is_claim, '
    '       octet_length(o.payload::text) as size '
    'from (select f.id from unnest(int8multirange(int8range($1, null, ''()'')) - $2) g (r) '
    '      cross join lateral ('
    '        select i.id from pgtrickle.%1$I i '
    '        where i.id between lower(g.r) and coalesce(upper(g.r) - 1, 9223372036854775807) '
    '        order by i.id limit $3) f '
    '      order by f.id limit $3) n '
    'join pgtrickle.%1$I o on o.id = n.id order by o.id', outbox.outbox_table_name)
    using change_id, known, max_rows + 1
  loop
    if ids <> '{}' and (next.is_claim or cardinality(ids) >= max_rows
                        or bytes + next.size > max_bytes) then
      complete := false;
      undelivered := next.id;
      exit;
    end if;
    ids := ids || next.id;
    bytes := bytes + coalesce(next.size, 0);
    if next.is_claim then
      is_claim_check := true;
      complete := false;
      undelivered := next.id + 1;
      exit;
    end if;
  end loop;
  to_skipped := known + coalesce((select range_agg(int8range(i, i, '[]')) from unnest(ids) i), '{}');
  to_id := greatest(change_id, pgtrickle_internal.settled_in_snapshot(outbox));
  if not complete then
    to_id := greatest(change_id, least(to_id, undelivered - 1));
  end if;
  to_skipped := to_skipped - int8multirange(int8range(null, to_id, '(]'));
  if lower(to_skipped) = to_id + 1 then
    to_id := (select upper(r) - 1 from unnest(to_skipped) r limit 1);
    to_skipped := to_skipped - int8multirange(int8range(null, to_id, '(]'));
  end if;
  to_skipped := nullif(to_skipped, '{}');
  execute format('select (select o.pgt_id from pgtrickle.%1$I o where o.id = $1), '
                 '(select o.pgt_id from pgtrickle.%1$I o where o.id = $2)',
                 outbox.outbox_table_name)
    into to_mark, to_skipped_mark using to_id, upper(to_skipped) - 1;
end $$;
comment on function
  pgtrickle.relay_snapshot_plan(uuid, bigint, uuid, int8multirange, uuid, int, bigint) is
  'For the relay: the changes of a step of a snapshot';

-- The numbers, from 1, of those of `rows` that are not to be delivered yet: their keys are beyond
-- `bound`, which is null where no page was delivered.
create or replace function pgtrickle_internal.snapshot_beyond(
  outbox pgtrickle_internal.outbox_config, rows jsonb, bound jsonb) returns bigint[]
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  columns text[];
begin
  if bound is null then
    return array(select generate_series(1, jsonb_array_length(rows)));
  elsif jsonb_array_length(rows) = 0 then
    return '{}';
  end if;
  columns := array(select jsonb_array_elements_text(
    pgtrickle_internal.snapshot_key(outbox) -> 'key'));
  return array(
    select a.ord from pgtrickle_internal.outbox_ask(
      outbox, 'beyond', jsonb_build_object(
        'bound', bound,
        'rows', (select jsonb_agg(
                   (select coalesce(jsonb_object_agg(c, r.j -> c), '{}') from unnest(columns) c)
                   order by r.n)
                 from jsonb_array_elements(rows) with ordinality r (j, n)))) a);
end $$;

-- The rows of a payload, deleted ones first.
create or replace function pgtrickle_internal.payload_rows(payload jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(payload -> 'deleted') = 'array' then payload -> 'deleted'
              else '[]' end
      || case when jsonb_typeof(payload -> 'inserted') = 'array' then payload -> 'inserted'
              else '[]' end;
$$;

-- A payload without the rows with these numbers.
create or replace function pgtrickle_internal.payload_without(payload jsonb, numbers bigint[])
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  with kept as (
    select r.j, r.n, r.n <= jsonb_array_length(payload -> 'deleted') as is_deleted
    from jsonb_array_elements(pgtrickle_internal.payload_rows(payload)) with ordinality r (j, n)
    where r.n <> all (numbers)
  )
  select payload || jsonb_build_object(
    'deleted', coalesce(jsonb_agg(k.j order by k.n) filter (where k.is_deleted), '[]'),
    'inserted', coalesce(jsonb_agg(k.j order by k.n) filter (where not k.is_deleted is true), '[]'))
  from kept k;
$$;

-- Changes without the rows that are in pages to come; those without any other row are left out. A
-- change that lacks rows has another pgt_id, so that its messages never look like those of the
-- whole one.
create or replace function pgtrickle.relay_snapshot_changes(
  incarnation uuid, ids bigint[], everything boolean, bound jsonb)
returns table (id bigint, pgt_id uuid, created_at timestamptz, inserted_count bigint,
               deleted_count bigint, payload jsonb, refresh_id uuid, headers jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox constant pgtrickle_internal.outbox_config :=
    pgtrickle_internal.snapshot_outbox(incarnation);
  dropped bigint[] := '{}';
  passed bigint := 0;
  count int;
  of_this bigint[];
begin
  if not everything then
    execute format(
      'select pgtrickle_internal.snapshot_beyond($1, coalesce(jsonb_agg(r.j order by o.id, r.n), ''[]''), $2) '
      'from pgtrickle.%I o '
      'cross join lateral jsonb_array_elements(pgtrickle_internal.payload_rows(o.payload)) '
      '           with ordinality r (j, n) '
      'where o.id = any ($3)', outbox.outbox_table_name)
      into dropped using outbox, bound, ids;
  end if;
  for id, pgt_id, created_at, inserted_count, deleted_count, payload, refresh_id, headers in
    execute format('select o.id, o.pgt_id, o.created_at, o.inserted_count::bigint, '
                   'o.deleted_count::bigint, o.payload, o.refresh_id, o.headers '
                   'from pgtrickle.%I o where o.id = any ($1) order by o.id',
                   outbox.outbox_table_name) using ids
  loop
    count := jsonb_array_length(pgtrickle_internal.payload_rows(payload));
    of_this := array(select d - passed from unnest(dropped) d where d > passed and d <= passed + count);
    passed := passed + count;
    if of_this <> '{}' and payload ->> 'v' = '1' then
      continue when cardinality(of_this) = count
                and payload -> 'full_refresh' is distinct from 'true';
      payload := pgtrickle_internal.payload_without(payload, of_this);
      inserted_count := jsonb_array_length(payload -> 'inserted');
      deleted_count := jsonb_array_length(payload -> 'deleted');
      pgt_id := md5(concat(pgt_id, bound))::uuid;
    end if;
    return next;
  end loop;
end $$;
comment on function pgtrickle.relay_snapshot_changes(uuid, bigint[], boolean, jsonb) is
  'For the relay: changes whose rows are in pages of a snapshot that were delivered';

-- The same for a part of a claim check: of its rows behind number `after_row`, at most `most` and
-- about max_bytes. `last_row`: the last one of them; `is_last`: there are no more behind it.
create or replace function pgtrickle.relay_snapshot_claim(
  incarnation uuid, outbox_id bigint, after_row bigint, most int, max_bytes bigint,
  everything boolean, bound jsonb)
returns table (id bigint, pgt_id uuid, created_at timestamptz, inserted_count bigint,
               deleted_count bigint, payload jsonb, refresh_id uuid, headers jsonb,
               last_row bigint, is_last boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox constant pgtrickle_internal.outbox_config :=
    pgtrickle_internal.snapshot_outbox(incarnation);
  part jsonb;
  dropped bigint[] := '{}';
begin
  execute format('select o.id, o.pgt_id, o.created_at, o.payload - ''claim_check'', o.refresh_id, '
                 'o.headers from pgtrickle.%I o where o.id = $1', outbox.outbox_table_name)
    into id, pgt_id, created_at, payload, refresh_id, headers using outbox_id;
  execute format(
    'with few as (select d.row_num, d.row_op, d.row_data, '
    '                    sum(octet_length(d.row_data::text)) over (order by d.row_num) as size '
    '             from (select * from pgtrickle.%1$I where outbox_id = $1 and row_num > $2 '
    '                   order by row_num limit $3) d), '
    'part as (select * from few where size <= $4 or row_num = (select min(row_num) from few)) '
    'select jsonb_build_object('
    '  ''deleted'', coalesce(jsonb_agg(row_data order by row_num) filter (where row_op = ''DELETE''), ''[]''), '
    '  ''inserted'', coalesce(jsonb_agg(row_data order by row_num) filter (where row_op = ''INSERT''), ''[]'')), '
    '  max(row_num), not exists (select from pgtrickle.%1$I d where d.outbox_id = $1 '
    '                            and d.row_num > (select max(row_num) from part)) '
    'from part', outbox.delta_table_name)
    into part, last_row, is_last using outbox_id, after_row, most, max_bytes;
  last_row := coalesce(last_row, after_row);
  is_last := coalesce(is_last, true);
  if not everything then
    dropped := pgtrickle_internal.snapshot_beyond(outbox, pgtrickle_internal.payload_rows(part), bound);
  end if;
  if dropped <> '{}' then
    part := pgtrickle_internal.payload_without(part, dropped);
    pgt_id := md5(concat(pgt_id, bound))::uuid;
  end if;
  payload := payload || part;
  inserted_count := jsonb_array_length(part -> 'inserted');
  deleted_count := jsonb_array_length(part -> 'deleted');
  return next;
end $$;
comment on function
  pgtrickle.relay_snapshot_claim(uuid, bigint, bigint, int, bigint, boolean, jsonb) is
  'For the relay: a part of a claim check, as relay_snapshot_changes';

-- The next rows of a table, behind the key `after` and up to `until` (null: no limit), at most
-- `most` and about max_bytes, each with its key. A row beyond max_record_bytes is null. A row without
-- a key, behind the others, says that there are no more.
create or replace function pgtrickle.relay_snapshot_page(
  incarnation uuid, after jsonb, until jsonb, most int, max_bytes bigint, max_record_bytes bigint)
returns table (row_data jsonb, row_key jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox constant pgtrickle_internal.outbox_config :=
    pgtrickle_internal.snapshot_outbox(incarnation);
  columns constant text[] := array(select jsonb_array_elements_text(
    pgtrickle_internal.snapshot_key(outbox) -> 'key'));
  count int := 0;
  bytes bigint := 0;
  size bigint;
begin
  for row_data in
    select a.row_data from pgtrickle_internal.outbox_ask(
      outbox, 'page', jsonb_build_object('after', after, 'until', until, 'most', most)) a
  loop
    count := count + 1;
    size := octet_length(row_data::text);
    if count > 1 and bytes + size > max_bytes then
      return;
    end if;
    bytes := bytes + size;
    row_key := (select jsonb_object_agg(c, row_data -> c) from unnest(columns) c);
    if size > max_record_bytes then
      row_data := null;
      bytes := bytes - size;
    end if;
    return next;
  end loop;
  if count < most then
    row_data := null;
    row_key := null;
    return next;
  end if;
end $$;
comment on function pgtrickle.relay_snapshot_page(uuid, jsonb, jsonb, int, bigint, bigint) is
  'For the relay: the next page of a snapshot, read as the owner of the table';

-- Stores the last key of a page before the page is handed out. False: the caller is not the owner of
-- the position.
create or replace function pgtrickle.relay_snapshot_ahead(
  relay_group text, pipeline text, incarnation uuid, owner_token uuid, ahead jsonb)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  update pgtrickle.relay_consumer_offsets o 
  set snapshot = o.snapshot || jsonb_build_object('ahead', relay_snapshot_ahead.ahead)
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_snapshot_ahead.incarnation
    and o.owner_token = relay_snapshot_ahead.owner_token and o.snapshot is not null;
  return found;
end $$;
comment on function pgtrickle.relay_snapshot_ahead(text, text, uuid, uuid, jsonb) is
  'For the relay: says which rows of a snapshot will be handed out; false: it is not the owner';

-- Moves the position of a pipeline whose snapshot is under way; `progress`: how far that is, null
-- where all rows are delivered. False: the caller is not the owner, and nothing was changed.
create or replace function pgtrickle.relay_commit_snapshot(
  relay_group text, pipeline text, incarnation uuid, owner_token uuid, change_id bigint,
  mark uuid, skipped int8multirange, skipped_mark uuid, progress jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle.relay_consumer_offsets o
  set last_change_id = change_id, last_row = 0, last_pgt_id = mark,
      skipped = relay_commit_snapshot.skipped, skipped_mark = relay_commit_snapshot.skipped_mark,
      snapshot = o.snapshot || progress, updated_at = clock_timestamp()
  where o.relay_group_id = relay_group and o.pipeline_id = pipeline
    and o.incarnation = relay_commit_snapshot.incarnation
    and o.owner_token = relay_commit_snapshot.owner_token
    and o.last_change_id <= change_id and o.snapshot is not null;
  return found;
end $$;
comment on function
  pgtrickle.relay_commit_snapshot(text, text, uuid, uuid, bigint, uuid, int8multirange, uuid,
                                  jsonb) is
  'For the relay: moves the position of a pipeline whose snapshot is under way';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_snapshot_open(text, text, uuid, uuid),
  pgtrickle.relay_snapshot_plan(uuid, bigint, uuid, int8multirange, uuid, int, bigint),
  pgtrickle.relay_snapshot_changes(uuid, bigint[], boolean, jsonb),
  pgtrickle.relay_snapshot_claim(uuid, bigint, bigint, int, bigint, boolean, jsonb),
  pgtrickle.relay_snapshot_page(uuid, jsonb, jsonb, int, bigint, bigint),
  pgtrickle.relay_snapshot_ahead(text, text, uuid, uuid, jsonb),
  pgtrickle.relay_commit_snapshot(text, text, uuid, uuid, bigint, uuid, int8multirange, uuid,
                                  jsonb)
  to pgtrickle_relay;
