-- Upkeep of the outboxes on ordinary tables: partitions that come and go, tables that were dropped,
-- triggers that somebody switched off, columns that were renamed.
--
-- Housekeeping calls outbox_capture_upkeep() as pgtrickle_owner, who owns no table of the user's.
-- What needs the table's owner (new triggers, locks, reading) is then left as it is and said in
-- pgt_outbox_config.problem, with the remedy; nothing is lost meanwhile, for a partition inherits
-- the row trigger of its parent. `GRANT <the table's owner> TO pgtrickle_owner` lets housekeeping
-- do all of it; otherwise the owner calls outbox_capture_upkeep() after having changed partitions.

-- The partitions that are known to have their triggers.
create table if not exists pgtrickle._outbox_partitions (
  outbox_number int not null references pgtrickle.pgt_outbox_config on delete cascade,
  relid         oid not null,
  place         text not null,
  primary key (outbox_number, relid)
);

-- Remembers the partitions of an outbox's table as they are; the transaction has locked the table.
create or replace function pgtrickle._partitions_remember(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle._require_locked(c.stream_table_oid::regclass)
  from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  perform pgtrickle._partitions_note(number);
end $$;

create or replace function pgtrickle._partitions_note(number int) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle._outbox_partitions k where k.outbox_number = number;
  insert into pgtrickle._outbox_partitions
  select number, p.rel, p.place
  from pgtrickle.pgt_outbox_config c
  cross join lateral pgtrickle._capture_places(c.stream_table_oid) p
  where c.outbox_number = number and p.place in ('middle', 'leaf');
end $$;

-- ---------------------------------------------------------------------------------------------
-- Upkeep

-- Up to how many rows (as the planner estimates) upkeep writes a full refresh by itself.
create or replace function pgtrickle._upkeep_max_rows() returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 1000000::bigint; $$;

create or replace function pgtrickle._estimated_rows(source regclass) returns numeric
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(case when c.reltuples >= 0 then c.reltuples
                           else pg_relation_size(c.oid) / 40 end), 0)::numeric
  from pgtrickle._capture_places(source) p
  join pg_class c on c.oid = p.rel and c.relkind = 'r';
$$;

-- Writes a full refresh because of `reason`, or, where the table is large, asks for one.
create or replace function pgtrickle._upkeep_refresh(outbox pgtrickle.pgt_outbox_config,
                                                     reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if pgtrickle._estimated_rows(outbox.stream_table_oid) <= pgtrickle._upkeep_max_rows() then
    perform pgtrickle.outbox_full_refresh(outbox.outbox_table_name);
  else
    raise warning 'outbox "%": %', outbox.stream_table_name, reason;
    perform pgtrickle._outbox_note(outbox.outbox_number, format(
      '%s. SELECT pgtrickle.outbox_full_refresh(%L) records all rows anew (writers wait meanwhile)',
      reason, outbox.outbox_table_name));
  end if;
end $$;

-- The outboxes on tables, and what there is to do for them. All quick: it runs every few seconds
-- over all outboxes, and mostly finds nothing.
drop function if exists pgtrickle._upkeep_findings();  -- earlier versions returned something else
create or replace function pgtrickle._upkeep_findings()
returns table (number int, gone boolean, partitions boolean, triggers boolean, keys boolean,
               columns boolean, owner boolean, missed boolean)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with outboxes as (
    -- After a restore the oid may be another table's: the table is the one that has our triggers,
    -- or at least the name.
    select c, c.outbox_number, c.stream_table_oid, r.relkind, r.oid is null as gone
    from pgtrickle.pgt_outbox_config c
    left join pg_namespace n on n.nspname = c.stream_table_schema
    left join pg_class r on r.oid = c.stream_table_oid
      and (c.kind = 'stream_table' or (r.relname = c.stream_table_name and r.relnamespace = n.oid)
           or exists (select from pg_trigger t
                      where t.tgrelid = r.oid
                        and t.tgname = format('!pgtrickle_%s_begin', c.outbox_number)))
    where c.kind <> 'events'
  ), partition_changes as (
    select distinct coalesce(p.outbox_number, k.outbox_number) as outbox_number
    from (select o.outbox_number, t.relid::oid, o.stream_table_oid as root
          from outboxes o cross join lateral pg_partition_tree(o.stream_table_oid) t
          where o.relkind = 'p' and (o.c).kind = 'table' and t.relid <> o.stream_table_oid) p
    full join pgtrickle._outbox_partitions k using (outbox_number, relid)
    where p.relid is null or k.relid is null
  ), wanted as (
    select o.outbox_number, p.rel, t.trigger_name, t.fires
    from outboxes o
    cross join lateral (
      select o.stream_table_oid as rel,
             case when o.relkind = 'p' then 'root'
                  when (select r.relispartition from pg_class r where r.oid = o.stream_table_oid)
                  then 'part' else 'table' end as place
      union all
      select k.relid, k.place from pgtrickle._outbox_partitions k
      where k.outbox_number = o.outbox_number
        and exists (select from pg_class r where r.oid = k.relid and r.relispartition)
    ) p
    cross join lateral pgtrickle._capture_triggers(o.c, p.place) t
    where not o.gone and (o.c).kind = 'table'
  )
  select o.outbox_number, o.gone,
         exists (select from partition_changes p where p.outbox_number = o.outbox_number),
         exists (select from wanted w
                 where w.outbox_number = o.outbox_number
                   and not exists (select from pg_trigger t
                                   where t.tgrelid = w.rel and t.tgname = w.trigger_name
                                     and t.tgenabled = w.fires)),
         exists (select from unnest((o.c).key_columns, (o.c).key_attnums) k (name, attnum)
                 where not exists (select from pg_attribute a
                                   where a.attrelid = o.stream_table_oid and a.attnum = k.attnum
                                     and a.attname = k.name)),
         -- The capture functions were written for other columns; only those that are not plain
         -- need to know. Or their text depends on the search_path now.
         (o.c).kind = 'table' and not o.gone
           and ((o.c).columns_digest is distinct from 'plain' or exists (
                  select from pg_attribute a
                  where a.attrelid = o.stream_table_oid and a.attnum > 0
                    and (a.atttypid >= 16384
                         or a.atttypid in ('json'::regtype, 'json[]'::regtype))))
           and (o.c).columns_digest is distinct from pgtrickle_json.digest(o.stream_table_oid)
         or (o.c).kind = 'table' and not o.gone and exists (
           select from pg_attribute a join pg_type t on t.oid = a.atttypid
           where a.attrelid = o.stream_table_oid and (t.oid >= 16384 or t.typname ~ '^_?reg'))
           and exists (
           select from pg_proc f
           where f.pronamespace = 'pgtrickle'::regnamespace and f.proconfig is null
             and f.proname = format('_capture_%s_row', o.outbox_number))
           and pgtrickle._capture_depends_on_path(o.stream_table_oid),
         -- The table belongs to another role now, which may not attach the capture functions.
         (o.c).kind = 'table' and not o.gone and exists (
           select from pg_proc f
           join pg_class r on r.oid = o.stream_table_oid
           where f.pronamespace = 'pgtrickle'::regnamespace
             and f.proname = format('_capture_%s_row', o.outbox_number)
             and not exists (select from aclexplode(f.proacl) a where a.grantee = r.relowner)),
         exists (select from pgtrickle._outbox_misses m where m.outbox_number = o.outbox_number)
  from outboxes o;
$$;

-- Whether a partition has rows, as the owner of the table sees it; where it cannot be read: true.
create or replace function pgtrickle._partition_has_rows(number int, rel regclass) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  return (select r.answer::boolean from pgtrickle._outbox_read(outbox, rel, 'any') r (answer));
exception when others then
  return true;
end $$;

-- A partition was attached, detached or dropped.
create or replace function pgtrickle._upkeep_partitions(outbox pgtrickle.pgt_outbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  source regclass := outbox.stream_table_oid;
  p record;
  reasons text[] := '{}';
begin
  perform pgtrickle._lock_against_writers(source, '1 second');
  perform pgtrickle._outbox_make_reader(outbox.outbox_number, source);
  -- Gone from the tree. While it still exists its statement triggers went on recording: its rows
  -- are as the outbox has them, and are deleted now. A row trigger went with the parent.
  for p in
    select k.relid, k.place from pgtrickle._outbox_partitions k
    where k.outbox_number = outbox.outbox_number
      and k.relid not in (select t.rel from pgtrickle._capture_places(source) t)
  loop
    if not exists (select from pg_class c where c.oid = p.relid) then
      reasons := reasons || case p.place when 'leaf' then array['a partition was dropped']
                                         else '{}' end;
      continue;
    end if;
    perform pgtrickle._lock_against_writers(p.relid, '1 second');
    if p.place = 'leaf' then
      if outbox.capture = 'statement'
         and pgtrickle._estimated_rows(p.relid) <= pgtrickle._upkeep_max_rows() then
        perform pgtrickle._capture_relation(outbox.outbox_number, p.relid, 'DELETE', 'DELETE');
      else
        reasons := reasons || format('partition %s was detached', p.relid::regclass);
      end if;
    end if;
    perform pgtrickle._capture_detach(outbox.outbox_number, p.relid);
  end loop;

  -- New in the tree. One that was made as a partition was empty then, and all its rows have been
  -- recorded since. (Rows of the catalog say so: its columns and its place in the tree were made by
  -- one command.) One that was attached may have brought rows along.
  for p in
    select t.rel, t.place from pgtrickle._capture_places(source) t
    where t.place <> 'root' and t.rel not in (
      select k.relid from pgtrickle._outbox_partitions k
      where k.outbox_number = outbox.outbox_number)
  loop
    perform pgtrickle._capture_attach(outbox, p.rel, p.place);
    if p.place = 'leaf' then
      if not exists (
        select from pg_inherits i
        join pg_attribute a on a.attrelid = i.inhrelid and a.attname = 'tableoid'
        where i.inhrelid = p.rel and a.xmin = i.xmin) then
        if pgtrickle._partition_has_rows(outbox.outbox_number, p.rel) then
          reasons := reasons || format('partition %s was attached with rows', p.rel);
        end if;
      end if;
    end if;
  end loop;
  perform pgtrickle._partitions_remember(outbox.outbox_number);
  if reasons <> '{}' then
    perform pgtrickle._upkeep_refresh(outbox, array_to_string(reasons, ', '));
  end if;
end $$;

-- Triggers are missing, switched off, or fire at the wrong time.
create or replace function pgtrickle._upkeep_triggers(outbox pgtrickle.pgt_outbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  source regclass := outbox.stream_table_oid;
  place record;
  missed boolean := false;
begin
  perform pgtrickle._lock_against_writers(source, '1 second');
  for place in select * from pgtrickle._capture_places(source) loop
    missed := missed or exists (
      select from pgtrickle._capture_triggers(outbox, place.place) w
      left join pg_trigger t on t.tgrelid = place.rel and t.tgname = w.trigger_name
      where coalesce(t.tgenabled, 'D') = 'D' or (t.tgenabled = 'R' and w.fires <> 'R')
         or (w.what = 'row' and t.tgenabled = 'O'
             and exists (select from pg_subscription_rel s
                         where s.srrelid = place.rel)));
    perform pgtrickle._capture_attach(outbox, place.rel, place.place);
  end loop;
  if missed then
    perform pgtrickle._upkeep_refresh(outbox, 'triggers of the outbox had been switched off');
  end if;
end $$;

-- A table whose outbox stays until its rows are gone: retention and readers come first.
create or replace function pgtrickle._upkeep_dropped(number int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  found_rel oid;
  empty boolean;
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  if exists (
      select from pg_class r join pg_namespace n on n.oid = r.relnamespace
      where r.oid = outbox.stream_table_oid
        and (outbox.kind = 'stream_table'
             or (r.relname = outbox.stream_table_name and n.nspname = outbox.stream_table_schema)
             or exists (select from pg_trigger t
                        where t.tgrelid = r.oid
                          and t.tgname = format('!pgtrickle_%s_begin', number)))) then
    return false;
  end if;
  -- After a dump and restore the table has another oid, and still our triggers.
  select t.tgrelid into found_rel
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
  join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = outbox.stream_table_schema and c.relname = outbox.stream_table_name
    and t.tgname = format('!pgtrickle_%s_begin', outbox.outbox_number)
    -- Any role can give a trigger that name; only the owner of the table may attach the function.
    and t.tgfoid = to_regprocedure(format('pgtrickle._capture_%s_begin()', outbox.outbox_number));
  if found_rel is not null then
    update pgtrickle.pgt_outbox_config c
    set stream_table_oid = found_rel, source_dropped_at = null,
        outbox_oid = format('pgtrickle.%I', c.outbox_table_name)::regclass
    where c.outbox_number = outbox.outbox_number;
    perform pgtrickle._capture_generate(outbox.outbox_number);
    perform pgtrickle._partitions_note(outbox.outbox_number);
    return true;
  end if;
  if outbox.source_dropped_at is null then
    update pgtrickle.pgt_outbox_config c
    set source_dropped_at = clock_timestamp(), stream_table_oid = null
    where c.outbox_number = outbox.outbox_number;
    return true;
  end if;
  execute format('select not exists (select from pgtrickle.%I)', outbox.outbox_table_name)
    into empty;
  if empty then
    perform pgtrickle._outbox_drop(outbox.outbox_number);
  end if;
  return empty;
end $$;

-- Follows key columns that were renamed; one that was dropped keeps its old name, and is a problem.
create or replace function pgtrickle._upkeep_keys(number int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  dropped text;
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  select o.name into dropped
  from unnest(outbox.key_columns, outbox.key_attnums) o (name, attnum)
  join pg_attribute a on a.attrelid = outbox.stream_table_oid and a.attnum = o.attnum
    and a.attisdropped
  limit 1;
  if found and outbox.problem is null then
    return pgtrickle._outbox_note(number, format(
      'key column %I was dropped: rows are recorded without a key. disable_outbox and enable_outbox '
      'make an outbox with another key', dropped));
  end if;
  update pgtrickle.pgt_outbox_config c
  set key_columns = k.names
  from (select array_agg(coalesce(a.attname::text, o.name) order by o.ord) as names
        from unnest(outbox.key_columns, outbox.key_attnums) with ordinality o (name, attnum, ord)
        left join pg_attribute a on a.attrelid = outbox.stream_table_oid and a.attnum = o.attnum
          and not a.attisdropped) k
  where c.outbox_number = outbox.outbox_number and c.key_columns <> k.names;
  if found and outbox.kind = 'table' then
    perform pgtrickle._capture_generate(outbox.outbox_number);
    return true;
  end if;
  return found;
end $$;

-- What earlier versions had: whole rows of the catalog as arguments, which a caller could forge.
drop function if exists pgtrickle._upkeep_dropped(pgtrickle.pgt_outbox_config);
drop function if exists pgtrickle._upkeep_keys(pgtrickle.pgt_outbox_config);

-- What an outbox has missed, which is its `problem` from now on.
create or replace function pgtrickle._upkeep_misses(number int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  reasons text;
begin
  with gone as (
    delete from pgtrickle._outbox_misses m where m.outbox_number = number returning m.why
  )
  select string_agg(distinct g.why, '; ') into reasons from gone g;
  -- It stays in the catalog until a full refresh takes it back.
  perform pgtrickle._outbox_note(number, format(
    '%s. SELECT pgtrickle.outbox_full_refresh(%L) records all rows anew (writers wait meanwhile)',
    reasons, (select c.outbox_table_name from pgtrickle.pgt_outbox_config c
              where c.outbox_number = number)));
  return reasons;
end $$;

-- Sets right whatever changed about the tables of outboxes since the last time; returns how many
-- outboxes there was something to do for. What cannot be done is said in their `problem`.
create or replace function pgtrickle.outbox_capture_upkeep() returns int
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  f record;
  outbox pgtrickle.pgt_outbox_config;
  changed int := 0;
  did boolean;
begin
  for f in
    select u.* from pgtrickle._upkeep_findings() u
    where u.gone or u.partitions or u.triggers or u.keys or u.columns or u.owner
       or u.missed
  loop
    select * into outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = f.number;
    continue when outbox.outbox_number is null;
    -- By itself: what fails below does not undo it.
    begin
      if f.columns or f.owner then
        perform pgtrickle._capture_generate(outbox.outbox_number);
        changed := changed + 1;
      end if;
    exception when others then
      raise notice 'outbox "%" is looked at again next time: %', outbox.stream_table_name, sqlerrm;
    end;
    begin
      did := false;
      if f.gone then
        did := pgtrickle._upkeep_dropped(outbox.outbox_number);
      else
        if f.keys then
          did := pgtrickle._upkeep_keys(outbox.outbox_number);
        end if;
        if f.partitions then
          perform pgtrickle._upkeep_partitions(outbox);
          did := true;
        elsif f.triggers then
          perform pgtrickle._upkeep_triggers(outbox);
          did := true;
        end if;
        if f.missed then
          perform pgtrickle._upkeep_refresh(outbox, pgtrickle._upkeep_misses(f.number));
          did := true;
        end if;
        if outbox.problem ~ '^upkeep (needs|failed)' and outbox.problem = (
          select c.problem from pgtrickle.pgt_outbox_config c
          where c.outbox_number = f.number) then
          perform pgtrickle._outbox_note(f.number, null);
        end if;
      end if;
      changed := changed + did::int;
    exception
      when insufficient_privilege then
        changed := changed + pgtrickle._outbox_note(outbox.outbox_number, format(
          'upkeep needs the owner of %s: let it run SELECT pgtrickle.outbox_capture_upkeep(), or '
          'GRANT %s TO pgtrickle_owner (%s)', outbox.stream_table_oid::regclass,
          (select c.relowner::regrole from pg_class c
           where c.oid = outbox.stream_table_oid), sqlerrm))::int;
      when lock_not_available then
        raise notice 'outbox "%" is looked at again next time: %', outbox.stream_table_name,
          sqlerrm;
      when others then  -- of this outbox alone
        changed := changed + pgtrickle._outbox_note(outbox.outbox_number, format(
          'upkeep failed: %s', sqlerrm))::int;
    end;
  end loop;
  return changed;
end $$;
comment on function pgtrickle.outbox_capture_upkeep() is
  'Gives new partitions their triggers, follows dropped and renamed tables and columns';

-- ---------------------------------------------------------------------------------------------
-- Upgrade

-- What earlier versions had.
drop function if exists pgtrickle._grant_reading(regclass);
drop function if exists pgtrickle._column_with_json_cast(regclass);
drop function if exists pgtrickle._row_json(text);
drop function if exists pgtrickle._capture_huge_row(record);
drop function if exists pgtrickle._capture_statement_sql(pgtrickle.pgt_outbox_config, text, jsonb);
drop function if exists pgtrickle._capture_define(int, text, text, text);

-- They let pgtrickle_owner read tables of users.
do $$
declare
  granted record;
begin
  for granted in
    select format('%I.%I', n.nspname, c.relname) as name
    from pgtrickle.pgt_outbox_config o
    cross join lateral pgtrickle._capture_places(o.stream_table_oid) p
    join pg_catalog.pg_class c on c.oid = p.rel
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    cross join lateral aclexplode(c.relacl) a
    where o.kind = 'table' and a.grantee = 'pgtrickle_owner'::regrole
      and a.privilege_type = 'SELECT'
  loop
    begin
      execute format('revoke select on %s from pgtrickle_owner', granted.name);
    exception when insufficient_privilege then
      raise notice 'REVOKE SELECT ON % FROM pgtrickle_owner; is for its owner: it is needed no more',
        granted.name;
    end;
  end loop;
end $$;

-- Writes all trigger functions anew, as this version writes them. Tables are not touched: triggers
-- that a new version wants otherwise are set right by upkeep.
create or replace function pgtrickle._rebuild_capture() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  number int;
begin
  for number in
    select c.outbox_number from pgtrickle.pgt_outbox_config c where c.kind = 'table'
    order by c.outbox_number
  loop
    perform pgtrickle._capture_generate(number);
  end loop;
end $$;

do $$
begin
  perform pgtrickle._rebuild_capture();
end $$;

-- What enable_outbox, disable_outbox, outbox_full_refresh and upkeep call with the caller's rights.
do $$
declare
  f regprocedure;
begin
  for f in
    select p.oid from pg_catalog.pg_proc p
    where p.pronamespace = 'pgtrickle'::regnamespace and p.proname = any (array[
      '_outbox_source', '_outbox_enable', '_outbox_check_source', '_outbox_check_options',
      '_outbox_capture_kind', '_outbox_begin_capture', '_outbox_make_reader',
      '_outbox_name_reader',
      '_outbox_reader_body', '_types_within', '_capture_depends_on_path',
      '_primary_key', '_merge_mixes_rows', '_qualified', '_outbox_named', '_lock_against_writers',
      '_outbox_create', '_outbox_drop', '_outbox_note', '_partitions_remember',
      '_capture_generate', '_capture_places', '_capture_triggers', '_capture_attach',
      '_capture_detach', '_capture_relation', '_estimated_rows', '_upkeep_max_rows',
      '_upkeep_refresh', '_upkeep_findings', '_upkeep_partitions', '_upkeep_triggers',
      '_upkeep_dropped', '_upkeep_keys', '_upkeep_misses', '_partition_has_rows'])
  loop
    execute pg_catalog.format('grant execute on function %s to pgtrickle_admin', f);
  end loop;
  -- What the capture functions call.
  for f in
    select p.oid from pg_catalog.pg_proc p
    where p.pronamespace = 'pgtrickle'::regnamespace and p.proname = any (array[
      '_capture_settle', '_capture_adopt', '_capture_admits', '_capture_missed',
      '_capture_queries_now', '_capture_row_query_now', '_capture_truncates_whole',
      '_capture_truncated_part'])
  loop
    execute pg_catalog.format('grant execute on function %s to pgtrickle_capture', f);
  end loop;
end $$;
