-- Retention: deleting the rows of an outbox that are old enough and not needed any more.
--
-- A row goes when it is older than the outbox's retention_hours, is settled (no transaction can
-- still write a smaller id), and lies at or below every position that holds rows back:
--   * an enabled pipeline holds what it has not read, or all from its start where it has no
--     position yet; for ever, as long as a relay of its group shows signs of life, else for
--     retention_hold_hours (168 unless the pipeline says otherwise) after the last one. It may
--     limit that itself by max_hold_hours and max_hold_bytes;
--   * a disabled pipeline, one that was pointed at another outbox, and one that has left its
--     configuration file hold for retention_hold_hours;
--   * a replay that is not finished holds what it has to send, for as long;
--   * a consumer group holds what it has not committed for 168 hours after the last sign of life
--     of one of its consumers; one that waits for its first snapshot needs nothing.
-- Everything up to and including purged_below is gone; it moves in the transaction that deletes.
-- What was deleted in front of a position is counted in its lost_rows, said in a warning, and alerted
-- (257_consumer_signals.sql).
-- Nothing is deleted from a table that was adopted (218_outbox_adopt.sql): it is the application's.

-- The last value that was drawn from a sequence; 0 where none was. Unlike pg_sequence_last_value, which
-- locks the sequence as nextval does, it does not make its transaction look like one that has drawn.
create or replace function pgtrickle_internal.last_drawn(sequence regclass) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  drawn bigint;
begin
  -- That of an adopted table may be in a schema that is closed to us. It is known by its number, which
  -- after a restore may be any relation's.
  if not exists (select from pg_class c where c.oid = sequence and c.relkind = 'S'
                 and c.relnamespace = 'pgtrickle'::regnamespace) then
    return coalesce((select pg_sequence_last_value(c.oid) from pg_class c
                     where c.oid = sequence and c.relkind = 'S'), 0);
  end if;
  execute format('select case when is_called then last_value else 0 end from %s', sequence)
    into drawn;
  return drawn;
end $$;

-- The highest id up to which every row of an outbox is either visible to the next statement or was
-- rolled back. Never waits: while writers are open it answers what earlier looks have settled.
create or replace function pgtrickle_internal.settle_outbox(incarnation uuid, outbox regclass,
                                                            sequence regclass) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  look pgtrickle_internal.outbox_looks;
begin
  insert into pgtrickle_internal.outbox_looks (incarnation) values (settle_outbox.incarnation)
  on conflict do nothing;
  select * into look from pgtrickle_internal.outbox_looks l
  where l.incarnation = settle_outbox.incarnation for update;

  -- A prepared transaction keeps its virtual id until a restart of the server renames it.
  if look.look_to is not null and not exists (
       select from pgtrickle.relay_open_writers(outbox) w
       where w.virtual_transaction = any (look.holders)
          or (w.pid is null and pg_postmaster_start_time() > look.looked_at)) then
    look.settled_to := look.look_to;
    look.look_to := null;
  end if;
  if look.look_to is null then
    -- First the sequence, then the locks: every writer that drew an id up to here is among the holders.
    look.look_to := pgtrickle_internal.last_drawn(sequence);
    look.looked_at := clock_timestamp();
    look.holders := array(select w.virtual_transaction from pgtrickle.relay_open_writers(outbox) w);
    if look.holders = '{}' then
      look.settled_to := look.look_to;
      look.look_to := null;
    end if;
  end if;
  update pgtrickle_internal.outbox_looks l
  set settled_to = look.settled_to, look_to = look.look_to, holders = look.holders,
      looked_at = look.looked_at
  where l.incarnation = look.incarnation;
  return look.settled_to;
end $$;

-- Whether a pipeline's name for an outbox means this one, to it. A name that cannot be resolved now counts
-- as meaning it: rows that a pipeline may need are kept.
create or replace function pgtrickle_internal.names_outbox(outbox_name text, pipeline text,
                                                           incarnation uuid) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce((select c.incarnation = names_outbox.incarnation
                   from pgtrickle_internal.outbox_config c
                   where c.outbox_number = pgtrickle_internal.pipeline_outbox(
                     names_outbox.outbox_name, null, names_outbox.pipeline)), true);
exception when others then
  return true;
end $$;

-- The pipelines of the catalog that read an outbox.
create or replace function pgtrickle_internal.outbox_pipelines(incarnation uuid)
returns table (pipeline text, enabled boolean, config jsonb, updated_at timestamptz,
               enabled_changed_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  -- A cheap comparison finds the candidates, then the exact one decides.
  return query
  with names as (
    select lower(replace(m.name, '"', '')) as name
    from pgtrickle_internal.outbox_config o
    left join pg_class r on r.oid = o.stream_table_oid
    left join pg_namespace n on n.oid = r.relnamespace
    cross join lateral unnest(array[
      o.stream_table_name, o.stream_table_schema || '.' || o.stream_table_name,
      o.outbox_table_name, 'pgtrickle.' || o.outbox_table_name,
      'pgtrickle.' || o.stream_table_name, r.relname, n.nspname || '.' || r.relname]) m (name)
    where m.name is not null and o.incarnation = outbox_pipelines.incarnation
  ), candidates as materialized (
    select c.*
    from pgtrickle.relay_config c
    where lower(replace(c.outbox_name, '"', '')) = any (array(select n.name from names n))
  )
  select c.name, c.enabled, c.config, c.updated_at, c.enabled_changed_at
  from candidates c
  where pgtrickle_internal.names_outbox(c.outbox_name, c.name, outbox_pipelines.incarnation);
end $$;

-- All readers that need rows of an outbox: the rows after needs_after. `holds`: whether they are kept
-- for it; `until`: how long they are kept if the reader shows no other sign of life.
create or replace function pgtrickle_internal.outbox_holders(incarnation uuid)
returns table (relay_group_id text, pipeline text, needs_after bigint, why text,
               until timestamptz, holds boolean, max_hold_hours numeric, max_hold_bytes numeric)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with pipelines as materialized (
    select p.pipeline, p.enabled, p.config, p.updated_at, p.enabled_changed_at
    from pgtrickle_internal.outbox_pipelines(outbox_holders.incarnation) p
  ), groups as materialized (
    select i.relay_group_id, max(i.heartbeat_at) as heartbeat_at
    from pgtrickle.relay_instances i group by 1
  ), positions as materialized (
    select o.relay_group_id, o.pipeline_id, o.updated_at, o.seen_at,
           case when o.last_row > 0 then o.last_change_id - 1
                when o.skipped is null then o.last_change_id
                else pgtrickle_internal.position_passes(c.outbox_table_name, o.last_change_id, o.skipped)
                end as needs_after
    from pgtrickle.relay_consumer_offsets o
    join pgtrickle_internal.outbox_config c using (incarnation)
    where o.incarnation = outbox_holders.incarnation
  ), claims (relay_group_id, pipeline, needs_after, why, sign_of_life, config) as (
    -- Positions, by what became of their pipelines.
    select o.relay_group_id, o.pipeline_id, o.needs_after,
           case when p.enabled then 'has not read them'
                when p.pipeline is not null then 'is disabled'
                when c.name is not null then 'read them before it was pointed at another outbox'
                else 'has not read them (not in the catalog)' end,
           case when p.enabled
                then greatest(o.updated_at, o.seen_at, p.enabled_changed_at, g.heartbeat_at,
                              -- Under a group of its own it lives in any relay.
                              case when pgtrickle_internal.relay_source_option(p.config, 'group') <> ''
                                   then (select max(a.heartbeat_at) from groups a) end)
                when p.pipeline is not null then greatest(o.updated_at, p.enabled_changed_at)
                when c.name is not null then greatest(o.updated_at, c.updated_at)
                when s.state <> 'stopped'
                then greatest(o.updated_at, o.seen_at, s.updated_at, g.heartbeat_at)
                else greatest(o.updated_at, o.seen_at, s.updated_at) end,
           coalesce(p.config, c.config)
    from positions o
    left join pipelines p on p.pipeline = o.pipeline_id
    left join pgtrickle.relay_config c on c.name = o.pipeline_id
    left join groups g on g.relay_group_id = o.relay_group_id
    left join pgtrickle.relay_pipeline_status s
      on s.relay_group_id = o.relay_group_id and s.pipeline = o.pipeline_id
    union all
    -- Enabled pipelines that a group has yet to begin: one that lives, or any where none has begun.
    select g.relay_group_id, p.pipeline,
           case when p.config ->> 'start' ~ E'^\\d{1,18}$'
                then greatest((p.config ->> 'start')::bigint - 1, 0) else 0 end,
           'has not begun to read', greatest(p.updated_at, p.enabled_changed_at, g.heartbeat_at),
           p.config
    from pipelines p
    left join groups g on g.heartbeat_at > clock_timestamp() - interval '10 minutes'
    where p.enabled
      and (p.config ->> 'start' in ('latest', 'snapshot')) is not true
      and not exists (select from positions o
                      where o.pipeline_id = p.pipeline
                        and (g.relay_group_id is null or o.relay_group_id = g.relay_group_id
                             or pgtrickle_internal.relay_source_option(p.config, 'group') <> ''))
    union all
    select null, r.pipeline, r.next_id - 1, format('replays them (:r%s)', r.number),
           r.requested_at, p.config
    from pgtrickle.relay_replays r
    left join pipelines p on p.pipeline = r.pipeline
    where r.finished_at is null
      and (p.pipeline is not null
           or exists (select from positions o where o.pipeline_id = r.pipeline))
    union all
    select null, g.name, min(s."position"), 'has not read them (consumer group)',
           greatest(g.created_at, max(s.moved_at), max(s.until),
                    (select max(m.alive_until) from pgtrickle_internal.consumer_members m
                     where m.group_number = g.group_number)), null
    from pgtrickle_internal.outbox_config c
    join pgtrickle_internal.consumer_groups g on g.outbox_number = c.outbox_number
    join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
    where c.incarnation = outbox_holders.incarnation and not g.awaits_snapshot
    group by g.group_number
  ), dated as (
    select c.*, c.sign_of_life
                + coalesce((c.config ->> 'retention_hold_hours')::float8, 168) * interval '1 hour'
                as until
    from claims c
  )
  select d.relay_group_id, d.pipeline, d.needs_after, d.why, d.until,
         d.until > clock_timestamp(), (d.config ->> 'max_hold_hours')::numeric,
         pgtrickle_internal.relay_amount('bytes', d.config -> 'max_hold_bytes')
  from dated d;
end $$;

-- Whether the first row after an id is older than the outbox keeps its rows.
create or replace function pgtrickle_internal.outbox_has_old_row(incarnation uuid, after_id bigint)
returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox record;
  is_old boolean;
begin
  select c.outbox_table_name, c.purged_below, c.retention_hours into outbox
  from pgtrickle_internal.outbox_config c
  where c.incarnation = outbox_has_old_row.incarnation and c.kind <> 'adopted';
  if outbox.outbox_table_name is null then
    return false;
  end if;
  execute format('select created_at < clock_timestamp() - $2 * interval ''1 hour'' '
                 'from pgtrickle.%I where id > $1 order by id limit 1', outbox.outbox_table_name)
    into is_old using greatest(after_id, outbox.purged_below), outbox.retention_hours;
  return coalesce(is_old, false);
end $$;

-- About how many bytes the living rows of an outbox take; null where nothing is known of them.
create or replace function pgtrickle_internal.outbox_live_bytes(outbox_table text, delta_table text)
returns numeric
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select sum(pg_total_relation_size(rel) * pg_stat_get_live_tuples(rel)::numeric
             / nullif(pg_stat_get_live_tuples(rel) + pg_stat_get_dead_tuples(rel), 0))
  from unnest(array[to_regclass(format('pgtrickle.%I', outbox_table)),
                    to_regclass(format('pgtrickle.%I', delta_table))]::oid[]) rel;
$$;

-- The highest id that the holders of an outbox let go, of those up to `candidate`; `lossy` when a
-- holder's own limit (max_hold_hours, max_hold_bytes) made it let go what it has not read;
-- `warnings` of holders that will let go within a day.
create or replace function pgtrickle_internal.outbox_released_to(
  outbox pgtrickle_internal.outbox_config, candidate bigint, out released_to bigint,
  out lossy boolean, out warnings jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  holder record;
  let_go bigint;
begin
  released_to := candidate;
  lossy := false;
  warnings := '[]';
  for holder in
    select * from pgtrickle_internal.outbox_holders(outbox.incarnation) h
    where h.holds and h.needs_after < candidate
  loop
    if holder.until < clock_timestamp() + interval '1 day' then
      warnings := warnings || jsonb_build_object(
        'outbox', outbox.outbox_table_name, 'group', holder.relay_group_id,
        'pipeline', holder.pipeline, 'why', holder.why, 'needs_after', holder.needs_after,
        'until', holder.until);
    end if;
    let_go := holder.needs_after;
    if holder.max_hold_bytes is not null
       and pgtrickle_internal.outbox_live_bytes(outbox.outbox_table_name, outbox.delta_table_name)
           > holder.max_hold_bytes then
      let_go := candidate;
    elsif holder.max_hold_hours is not null then
      execute format('select coalesce(max(id), 0) from pgtrickle.%I '
                     'where id > $1 and id <= $2 '
                     'and created_at < clock_timestamp() - $3::float8 * interval ''1 hour''',
                     outbox.outbox_table_name)
        into let_go using outbox.purged_below, candidate, holder.max_hold_hours;
      let_go := greatest(let_go, holder.needs_after);
    end if;
    lossy := lossy or let_go > holder.needs_after;
    released_to := least(released_to, let_go);
  end loop;
end $$;

-- Counts, for every position that `deleted_to` passes, the rows that its reader will miss.
create or replace function pgtrickle_internal.count_lost_rows(
  outbox pgtrickle_internal.outbox_config, deleted_to bigint) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  reader record;
  missed bigint;
  lost jsonb := '[]';
begin
  for reader in
    select o.relay_group_id, o.pipeline_id, o.last_change_id, o.lost_rows, o.skipped
    from pgtrickle.relay_consumer_offsets o
    where o.incarnation = outbox.incarnation and o.last_change_id < deleted_to
  loop
    execute format('select count(*) from pgtrickle.%I where id > $1 and id <= $2 '
                   'and (id <@ $3) is not true', outbox.outbox_table_name)
      into missed using greatest(reader.last_change_id, outbox.purged_below), deleted_to,
                        reader.skipped;
    continue when missed = 0;
    update pgtrickle.relay_consumer_offsets o set lost_rows = o.lost_rows + missed
    where o.incarnation = outbox.incarnation and o.relay_group_id = reader.relay_group_id
      and o.pipeline_id = reader.pipeline_id;
    if reader.lost_rows = 0 then
      raise warning 'pgtrickle.%: deleting rows that pipeline "%" of group "%" has not read',
        outbox.outbox_table_name, reader.pipeline_id, reader.relay_group_id
        using hint = 'It held them back for as long as it may (retention_hold_hours, '
                     'max_hold_hours, max_hold_bytes).';
    end if;
    perform pgtrickle_internal.note_lost_rows(
      outbox.outbox_number, 'pipeline', reader.pipeline_id, reader.relay_group_id,
      reader.last_change_id, missed);
    lost := lost || jsonb_build_object('group', reader.relay_group_id,
                                       'pipeline', reader.pipeline_id, 'rows', missed);
  end loop;
  return lost || pgtrickle_internal.count_lost_rows_of_groups(outbox, deleted_to);
end $$;

-- The same for the slots of consumer groups.
create or replace function pgtrickle_internal.count_lost_rows_of_groups(
  outbox pgtrickle_internal.outbox_config, deleted_to bigint) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  reader record;
  missed bigint;
  lost jsonb := '[]';
begin
  for reader in
    select g.group_number, g.name, g.slots, s.slot, s."position", s.lost_rows,
           coalesce(g.skipped, '{}') + s.rejected as not_read,
           min(s."position") over (partition by g.group_number) as group_position
    from pgtrickle_internal.consumer_groups g
    join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
    where g.outbox_number = outbox.outbox_number and s."position" < deleted_to
      and not g.awaits_snapshot
    order by g.group_number, s.slot
  loop
    execute format('select count(*) from pgtrickle.%I o where o.id > $1 and o.id <= $2 '
                   'and not o.id <@ $3 and %s = $4', outbox.outbox_table_name,
                   pgtrickle_internal.group_slot_of(reader.slots))
      into missed using greatest(reader."position", outbox.purged_below), deleted_to,
                        reader.not_read, reader.slot;
    continue when missed = 0;
    update pgtrickle_internal.consumer_slots s set lost_rows = s.lost_rows + missed
    where s.group_number = reader.group_number and s.slot = reader.slot;
    if reader.lost_rows = 0 then
      raise warning 'pgtrickle.%: deleting rows that consumer group "%" has not read',
        outbox.outbox_table_name, reader.name
        using hint = 'None of its consumers has shown a sign of life for 168 hours.';
    end if;
    perform pgtrickle_internal.note_lost_rows(
      outbox.outbox_number, 'group', reader.name, '', reader.group_position, missed);
    lost := lost || jsonb_build_object('group', null, 'pipeline', reader.name, 'rows', missed);
  end loop;
  return lost;
end $$;

-- The id up to which the next batch of an outbox may be deleted; null if none may. A batch is made
-- of the oldest settled rows, as far as all of them are old and they are together, rows of claim
-- checks included, not more than max_rows (but one always fits).
create or replace function pgtrickle_internal.next_purge(
  outbox pgtrickle_internal.outbox_config, max_rows int, out cut bigint, out lossy boolean,
  out warnings jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  settled_to bigint;
begin
  lossy := false;
  warnings := '[]';
  settled_to := pgtrickle_internal.settle_outbox(
    outbox.incarnation, format('pgtrickle.%I', outbox.outbox_table_name)::regclass,
    outbox.outbox_sequence::regclass);
  execute format(
    'select max(id) from ('
    '  select id, row_number() over w as number, sum(weight) over w as weight,'
    '         bool_or(created_at >= clock_timestamp() - $3 * interval ''1 hour'') over w as young'
    '  from (select id, created_at,'
    '               1 + case when is_claim_check then coalesce(inserted_count, 0)'
    '                   + coalesce(deleted_count, 0) else 0 end as weight'
    '        from pgtrickle.%I where id > $1 and id <= $2 order by id limit $4) oldest'
    '  window w as (order by id)) batch '
    'where not young and (weight <= $4 or number = 1)', outbox.outbox_table_name)
    into cut using outbox.purged_below, settled_to, outbox.retention_hours, max_rows;
  if cut is not null then
    select r.released_to, r.lossy, r.warnings into cut, lossy, warnings
    from pgtrickle_internal.outbox_released_to(outbox, cut) r;
  end if;
  if cut <= outbox.purged_below then
    cut := null;
  end if;
end $$;

-- Deletes one batch of an outbox. A claim check goes with its outbox row; of one that alone is more
-- than a batch the rest, which no reader can reach any more, goes in the next ones. Returns what was
-- done: {"deleted", "delta_rows", "more", "lost", "warnings"}.
create or replace function pgtrickle_internal.purge_outbox(incarnation uuid, max_rows int,
                                                           delta_left boolean) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  cut bigint;
  lossy boolean := false;
  warnings jsonb := '[]';
  deleted bigint := 0;
  delta_rows bigint := 0;
  lost jsonb := '[]';
begin
  select * into outbox from pgtrickle_internal.outbox_config c
  where c.incarnation = purge_outbox.incarnation for update skip locked;
  if outbox.outbox_table_name is null or outbox.retention_hours is null then
    return '{"deleted": 0, "delta_rows": 0, "more": false, "lost": [], "warnings": []}';
  end if;

  if pgtrickle_internal.outbox_has_old_row(outbox.incarnation, outbox.purged_below) then
    select n.cut, n.lossy, n.warnings into cut, lossy, warnings
    from pgtrickle_internal.next_purge(outbox, max_rows) n;
  end if;
  if cut is not null then
    lost := pgtrickle_internal.count_lost_rows(outbox, cut);
    execute format('delete from pgtrickle.%I where id > $1 and id <= $2', outbox.outbox_table_name)
      using outbox.purged_below, cut;
    get diagnostics deleted = row_count;
    update pgtrickle_internal.outbox_config c
    set purged_below = cut, last_drained_at = clock_timestamp(), last_drained_count = deleted
    where c.incarnation = outbox.incarnation;
  end if;

  if outbox.delta_table_name is not null and (cut is not null or delta_left) then
    execute format('delete from pgtrickle.%1$I where (outbox_id, row_num) in ('
                   '  select outbox_id, row_num from pgtrickle.%1$I where outbox_id <= $1'
                   '  order by outbox_id, row_num limit $2)', outbox.delta_table_name)
      using coalesce(cut, outbox.purged_below), max_rows;
    get diagnostics delta_rows = row_count;
    update pgtrickle_internal.outbox_looks l set delta_left = delta_rows >= max_rows
    where l.incarnation = outbox.incarnation;
  end if;
  return jsonb_build_object(
    'deleted', deleted, 'delta_rows', delta_rows, 'lost', lost, 'warnings', warnings,
    -- After a loss the next batch waits for the next pass, so that its cause is looked at anew.
    'more', (deleted > 0 and not lossy) or delta_rows >= max_rows);
end $$;
