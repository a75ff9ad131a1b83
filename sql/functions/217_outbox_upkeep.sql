-- Upkeep of the outboxes on ordinary tables: changes that the triggers missed become one full
-- refresh, and the triggers are repaired.
--
-- Housekeeping calls outbox_capture_upkeep() as pgtrickle_owner, who owns no table of the user's. It
-- locks and reads tables, and enables triggers again, through the gate, as their owners. What needs
-- more of the owner (new triggers) is left as it is and said in outbox_config.problem, with the
-- remedy; a new partition inherits the row trigger of its parent meanwhile. `GRANT <the table's owner>
-- TO pgtrickle_owner` lets housekeeping do all of it; otherwise the owner calls
-- outbox_capture_upkeep() after having changed partitions.
--
-- Order. A writer holds its lock on the table until its commit is visible. The full refresh is written
-- under a lock that waits for all writers, by a statement that begins afterwards; what it says is
-- stored in the same transaction as the table's signature. So each writer is either before it, with a
-- lower id, and in it, or after it, with a higher id.

-- Remembers the partitions of an outbox's table as they are; the transaction has locked the table.
create or replace function pgtrickle_internal.partitions_remember(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_quiet(c.stream_table_oid::regclass)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  perform pgtrickle_internal.partitions_note(number);
end $$;

create or replace function pgtrickle_internal.partitions_note(number int) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle_internal.outbox_partitions k where k.outbox_number = number;
  insert into pgtrickle_internal.outbox_partitions
  select number, p.rel, p.place
  from pgtrickle_internal.outbox_config c
  cross join lateral pgtrickle_internal.capture_places(c.stream_table_oid) p
  where c.outbox_number = number and p.place in ('middle', 'leaf', 'foreign');
end $$;

-- ---------------------------------------------------------------------------------------------
-- Upkeep

-- Up to how many rows (as the planner estimates) and bytes upkeep writes a full refresh by itself.
create or replace function pgtrickle_internal.upkeep_max_rows() returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 1000000::bigint; $$;

create or replace function pgtrickle_internal.upkeep_max_bytes() returns bigint
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 268435456::bigint; $$;

-- Whether all rows of a table are few enough for that; not while another session keeps readers out,
-- as TRUNCATE does: asking for the size of a table takes a lock on it.
create or replace function pgtrickle_internal.upkeep_may_refresh(source regclass) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp set lock_timeout = '20ms'
as $$
begin
  return pgtrickle_internal.estimated_rows(source) <= pgtrickle_internal.upkeep_max_rows()
    and (select coalesce(sum(pg_table_size(p.rel)), 0) <= pgtrickle_internal.upkeep_max_bytes()
         from pgtrickle_internal.capture_places(source) p);
exception when lock_not_available then
  return false;
end $$;

create or replace function pgtrickle_internal.estimated_rows(source regclass) returns numeric
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(case when c.reltuples >= 0 then c.reltuples
                           else pg_relation_size(c.oid) / 40 end), 0)::numeric
  from pgtrickle_internal.capture_places(source) p
  join pg_class c on c.oid = p.rel and c.relkind = 'r';
$$;

-- pg_trigger.tgtype of a trigger as capture_triggers defines it.
create or replace function pgtrickle_internal.trigger_type(definition text) returns smallint
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select ((strpos(definition, ' for each row') > 0)::int
          + 2 * starts_with(e.events, 'before')::int + 4 * (strpos(e.events, 'insert') > 0)::int
          + 8 * (strpos(e.events, 'delete') > 0)::int + 16 * (strpos(e.events, 'update') > 0)::int
          + 32 * (strpos(e.events, 'truncate') > 0)::int)::smallint
  from (select split_part(definition, ' on ', 1)) e (events);
$$;

-- What the triggers of tables lack, as far as partitions are known: of one outbox, or of all. `state`
-- is pg_trigger.tgenabled, null where the trigger is missing or is defined otherwise: for other
-- events or columns, or with a condition.
create or replace function pgtrickle_internal.trigger_faults(only_number int default null)
returns table (outbox_number int, rel oid, what text, fires "char", state "char")
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with relations as materialized (
    select c as outbox, r.oid as rel,
           case when r.relkind = 'p' then 'root' when r.relispartition then 'part'
                else 'table' end as place
    from pgtrickle_internal.outbox_config c join pg_class r on r.oid = c.stream_table_oid
    where c.kind = 'table' and (only_number is null or c.outbox_number = only_number)
    union all
    select c, k.relid, k.place
    from pgtrickle_internal.outbox_config c
    join pgtrickle_internal.outbox_partitions k on k.outbox_number = c.outbox_number
    join pg_class r on r.oid = k.relid and r.relispartition
    where only_number is null or c.outbox_number = only_number
  )
  select (r.outbox).outbox_number, r.rel, w.what, w.fires, t.tgenabled
  from relations r
  cross join lateral pgtrickle_internal.capture_triggers(r.outbox, r.place) w
  left join (pg_trigger t
             join pg_proc f on f.oid = t.tgfoid and f.pronamespace = 'pgtrickle_internal'::regnamespace)
    on t.tgrelid = r.rel and t.tgname = w.trigger_name
    and f.proname = format('capture_%s_%s', (r.outbox).outbox_number, case
          when w.what like 'truncat%' then 'truncate' else w.what end)::name
    and t.tgtype = pgtrickle_internal.trigger_type(w.definition)
    and t.tgqual is null and t.tgattr = '' and not t.tgdeferrable
    and (t.tgoldtable is not null) = (strpos(w.definition, ' old table ') > 0)
    and (t.tgnewtable is not null) = (strpos(w.definition, ' new table ') > 0)
    and t.tgargs = convert_to(coalesce(substring(w.definition from '[(]''(.*)''[)]$'), ''), 'UTF8')
                   || case when t.tgnargs > 0 then decode('00', 'hex') else '' end
  where t.tgenabled is distinct from w.fires;
$$;

-- The outboxes on tables, and what there is to do for them: for one, or for all. It runs every few
-- seconds over all outboxes, and mostly finds nothing.
--
--   gone        the table was dropped, or the database is another one
--   partitions  came or went
--   triggers    are not as they should be
--   keys        columns of the key were renamed
--   functions   were written for other columns or another owner, or are missing
--   to_row      statement triggers cannot record the table (any more)
--   missed      something could not be recorded
--   drifted     the signature differs by what changes no value
--   reasons     why a full refresh is needed
--   key_fault   why the key does not identify rows any more
--   standing    what upkeep cannot repair: the `problem`
create or replace function pgtrickle_internal.upkeep_findings(only_number int default null)
returns table (number int, gone boolean, partitions boolean, triggers boolean, keys boolean,
               functions boolean, to_row boolean, missed boolean, drifted boolean, reasons text[],
               key_fault text, standing text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  -- Materialized: a plan that calls the functions again for each outbox takes minutes.
  with outboxes as materialized (
    -- After a restore the oid may be another table's: the table is the one that has our triggers,
    -- or at least the name.
    select c, c.outbox_number, c.kind = 'table' as is_table, c.stream_table_oid as source, r.relkind,
           r.oid is null or coalesce(c.kind = 'table' and s.server <> v.server, false) as gone, s,
           (r.relname, r.relnamespace) <> (c.stream_table_name::name, n.oid) as renamed,
           n.oid as schema_oid,
           r.relowner, r.relispartition
    from pgtrickle_internal.outbox_config c
    cross join (select pgtrickle_internal.server()) v (server)
    left join pgtrickle_internal.outbox_signatures s on s.outbox_number = c.outbox_number
    left join pg_namespace n on n.nspname = c.stream_table_schema
    left join pg_class r on r.oid = c.stream_table_oid
      and (c.kind = 'stream_table' or s.server = v.server
           or (r.relname = c.stream_table_name and r.relnamespace = n.oid)
           or exists (select from pg_trigger t
                      where t.tgrelid = r.oid
                        and t.tgname = format('!pgtrickle_%s_begin', c.outbox_number)))
    where c.kind not in ('events', 'adopted') and (only_number is null or c.outbox_number = only_number)
  ), partition_changes as materialized (
    select distinct coalesce(p.outbox_number, k.outbox_number) as outbox_number
    from (select o.outbox_number, t.relid
          from outboxes o cross join lateral pgtrickle_internal.partition_tree(o.source) t
          where o.relkind = 'p' and o.is_table and t.relid <> o.source) p
    full join (select k.* from pgtrickle_internal.outbox_partitions k
               where only_number is null or k.outbox_number = only_number) k
      using (outbox_number, relid)
    where p.relid is null or k.relid is null
  ), signatures as materialized (
    select * from pgtrickle_internal.signatures_now(only_number)
  ), faults as materialized (
    select f.outbox_number,
           bool_or(coalesce(f.state, 'D') = 'D' or (f.state = 'R' and f.fires <> 'R')
                   or (f.what = 'row' and f.state = 'O'
                       and exists (select from pg_subscription_rel s
                                   where s.srrelid = f.rel))) as lost
    from pgtrickle_internal.trigger_faults(only_number) f group by f.outbox_number
  ), children as materialized (
    select i.inhparent, string_agg(i.inhrelid::regclass::text, ', ' order by i.inhrelid) as names
    from pg_inherits i
    where i.inhparent in (select o.source from outboxes o where o.is_table and o.relkind = 'r')
    group by i.inhparent
  )
  select o.outbox_number, o.gone,
         not o.gone and p.outbox_number is not null,
         not o.gone and f.outbox_number is not null,
         coalesce(keys.renamed, false),
         o.is_table and not o.gone and (
           -- Written for other columns.
           (o.c).columns_digest is distinct from pgtrickle_json.digest(o.source)
           -- Their text depends on the search_path now.
           or (exists (
                 select from pg_attribute a join pg_type t on t.oid = a.atttypid
                 where a.attrelid = o.source and (t.oid >= 16384 or t.typname ~ '^_?reg'))
               and exists (
                 select from pg_proc f
                 where f.pronamespace = 'pgtrickle_internal'::regnamespace and f.proconfig is null
                   and f.proname = format('capture_%s_row', o.outbox_number)::name)
               and pgtrickle_internal.capture_depends_on_path(o.source))
           -- Missing, or the table belongs to another role now, which may not attach them.
           or exists (
             select from unnest(array['begin', 'row', 'truncate']
                                || case (o.c).capture when 'row' then array['end']
                                   else array['insert', 'update', 'delete'] end) w (what)
             where not exists (
               select from pg_proc f cross join lateral aclexplode(f.proacl) a
               where f.pronamespace = 'pgtrickle_internal'::regnamespace and a.grantee = o.relowner
                 and f.proname = format('capture_%s_%s', o.outbox_number, w.what)::name))),
         o.is_table and not o.gone and (o.c).capture = 'statement'
           and (o.relispartition
                or (o.relkind = 'r' and exists (
                      select from pg_inherits i where o.source in (i.inhrelid, i.inhparent)))
                or (o.relkind = 'p' and exists (
                      select from pgtrickle_internal.partition_tree(o.source) t
                      where t.relkind = 'f'))),
         exists (select from pgtrickle_internal.outbox_misses m where m.outbox_number = o.outbox_number),
         o.is_table and not o.gone
           and ((o.s).outbox_number is null
                or (((o.s).columns <> now.columns or (o.s).storage <> now.storage)
                    and pgtrickle_internal.signature_drifted(o.s, now.columns, now.storage, now.triggers))),
         array_remove(array[
           case when (o.s).columns <> now.columns
                     and pgtrickle_internal.columns_changed((o.s).columns, now.columns)
                then 'the columns of the table were changed' end,
           case when (o.s).storage <> now.storage
                     and pgtrickle_internal.storage_rewritten((o.s).storage, now.storage)
                then 'ALTER TABLE computed values anew' end,
           case when (o.s).storage <> now.storage and now.storage -> 'key' <> '[]'
                     and pgtrickle_internal.key_unguarded((o.s).storage, now.storage)
                then 'the key of the table was not unique for a while' end,
           case when f.lost or ((o.s).triggers <> now.triggers
                                and pgtrickle_internal.triggers_touched((o.s).triggers, now.triggers))
                then 'triggers of the outbox had been switched off' end,
           case when (o.s).wanted is not null and not o.gone
                     and pgtrickle_internal.upkeep_may_refresh(o.source) then (o.s).wanted end], null),
         fault.of_key,
         nullif(concat_ws(
           '. ',
           pgtrickle_internal.outbox_anew(o.c),
           case when o.renamed and not o.gone and r.oid is not null then format(
             'not recorded: %s, for the table that had this name is now %s. %s',
             r.oid::regclass, o.source::regclass,
             case when o.is_table then format(
                    'SELECT pgtrickle.rebind_outbox(%L, %L) records the one that has the name now, '
                    'SELECT pgtrickle.rebind_outbox(%L, %L) goes on with the other',
                    (o.c).outbox_table_name, pgtrickle_internal.qualified(r.oid),
                    (o.c).outbox_table_name, pgtrickle_internal.qualified(o.source))
                  else format(
                    'Disable the outbox %s, and enable that of the stream table that has the name '
                    'now', (o.c).outbox_table_name) end) end,
           case when children.names is not null then format(
             'not recorded: rows of tables that inherit from %s (%s). End that by ALTER TABLE ... '
             'NO INHERIT, or record them by outboxes of their own and do not rely on this one for '
             'them', o.source::regclass, children.names) end,
           fault.of_key,
           case when o.is_table and not o.gone and reader.is_former then format(
             'the rows of %s cannot be read anew: the function that reads them is of an earlier '
             'version. SELECT pgtrickle.outbox_full_refresh(%L) by the owner of the table makes it '
             'again', o.source::regclass, (o.c).outbox_table_name) end,
           case when (o.s).wanted is not null then format(
             '%s. SELECT pgtrickle.outbox_full_refresh(%L) records all rows anew (writers wait '
             'meanwhile)', (o.s).wanted, (o.c).outbox_table_name) end), '')
  from outboxes o
  left join partition_changes p on p.outbox_number = o.outbox_number
  left join faults f on f.outbox_number = o.outbox_number
  left join signatures now on now.outbox_number = o.outbox_number
  left join pg_class r on o.renamed
    and r.relnamespace = o.schema_oid and r.relname = (o.c).stream_table_name
    and r.relkind in ('r', 'p', 'f', 'v', 'm')
  left join children on children.inhparent = o.source
  cross join lateral (
    select exists (select from pg_proc p
                   where p.proname = (o.c).reader::name and p.prosrc ~ '_capture_[0-9]'
                     and p.pronamespace = 'pgtrickle_streams'::regnamespace) as is_former) reader
  left join lateral (
    select bool_or(a.attname <> k.name and not a.attisdropped) as renamed,
           min(k.name) filter (where a.attisdropped) as dropped
    from unnest((o.c).key_columns, (o.c).key_attnums) k (name, attnum)
    join pg_attribute a on a.attrelid = o.source and a.attnum = k.attnum) keys on not o.gone
  cross join lateral (
    select case
             when keys.dropped is not null then format(
               'key column %I was dropped: rows are recorded without a key', keys.dropped)
             when (o.s).storage <> now.storage and now.storage -> 'key' = '[]'
                  and pgtrickle_internal.key_unguarded((o.s).storage, now.storage) then format(
               'several rows may have the same key (%s): its unique index or a NOT NULL was dropped',
               (select string_agg(quote_ident(k), ', ') from unnest((o.c).key_columns) k))
           end || case
             when o.is_table then format(
               '. SELECT pgtrickle.rebind_outbox(%L, %L) takes the primary key that the table has '
               'now, or none, and records all rows anew', (o.c).outbox_table_name,
               pgtrickle_internal.qualified(o.source))
             else '. disable_outbox and enable_outbox make an outbox with another key' end
    ) fault (of_key);
$$;

-- Records the state of an outbox in the catalog.
create or replace function pgtrickle_internal.outbox_judge(number int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return pgtrickle_internal.outbox_note(number, (
    select f.standing from pgtrickle_internal.upkeep_findings(number) f));
end $$;

-- Remembers that a full refresh is wanted, and why.
create or replace function pgtrickle_internal.upkeep_want(number int, reasons text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  missed text[];
begin
  with gone as (
    delete from pgtrickle_internal.outbox_misses m where m.outbox_number = number returning m.why
  )
  select array_agg(g.why) into missed from gone g;
  update pgtrickle_internal.outbox_signatures s
  set wanted = (select string_agg(distinct r, '; ')
                from unnest(reasons || missed || string_to_array(s.wanted, '; ')) r)
  where s.outbox_number = number;
end $$;

-- Whether a partition has rows, as the owner of the table sees it; where it cannot be read: true.
create or replace function pgtrickle_internal.partition_has_rows(number int, rel regclass)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  return (select r.answer::boolean from pgtrickle_internal.outbox_read(outbox, rel, 'any') r (answer));
exception when others then
  return true;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Repairing one outbox

-- Keeps writers out of a relation of an outbox until the transaction ends: with the caller's rights,
-- or, for pgtrickle_owner alone, with those of the table's owner.
create or replace function pgtrickle_internal.outbox_hold(
  outbox pgtrickle_internal.outbox_config, rel regclass, patience interval) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.lock_against_writers(
    rel, patience, case when not pgtrickle_internal.has_owners_rights(rel) then outbox end);
end $$;

-- Sets right the triggers of all relations of an outbox's table. Without the owner's rights, triggers
-- that are there are enabled again, and it is an error where one is missing.
create or replace function pgtrickle_internal.upkeep_attach(outbox pgtrickle_internal.outbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  source constant regclass := outbox.stream_table_oid;
  place record;
  fault record;
begin
  if pgtrickle_internal.has_owners_rights(source) then
    for place in select * from pgtrickle_internal.capture_places(source) loop
      perform pgtrickle_internal.capture_attach(outbox, place.rel, place.place);
    end loop;
    return;
  end if;
  for fault in select * from pgtrickle_internal.trigger_faults(outbox.outbox_number) loop
    if fault.state is null then
      raise exception 'must be owner of table % to make its triggers', fault.rel::regclass
        using errcode = 'insufficient_privilege';
    end if;
    perform pgtrickle_internal.outbox_enable_trigger(outbox, fault.rel, fault.what, fault.fires);
  end loop;
end $$;

create or replace function pgtrickle_internal.outbox_enable_trigger(
  outbox pgtrickle_internal.outbox_config, rel oid, what text, fires "char") returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.gate_step(
    outbox.reader, (select c.relowner from pg_class c where c.oid = outbox.stream_table_oid),
    format('the outbox of %I.%I', outbox.stream_table_schema, outbox.stream_table_name), 'enable',
    jsonb_build_object('relation', rel::bigint, 'trigger', what, 'fires', fires));
end $$;

-- Whether a partition is new since a moment when it was empty, and has recorded all its rows since.
-- Rows of the catalog say so: its columns, its place in the tree and the row trigger that it inherits
-- were made by one command, and the trigger was not touched later (its dependencies are written with
-- it, and stay as they are).
create or replace function pgtrickle_internal.partition_began_empty(number int, rel oid)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_inherits i
    join pg_attribute a on a.attrelid = i.inhrelid and a.attname = 'tableoid' and a.xmin = i.xmin
    join pg_trigger t on t.tgrelid = i.inhrelid and t.xmin = i.xmin
      and t.tgname = format('!pgtrickle_%s_row', number)
    join pg_depend d on d.classid = 'pg_trigger'::regclass and d.objid = t.oid
      and d.xmin = t.xmin and d.cmin::text::bigint >= t.cmin::text::bigint
    where i.inhrelid = rel);
$$;

-- Partitions were attached, detached or dropped. Returns why a full refresh is needed.
create or replace function pgtrickle_internal.upkeep_partitions(
  outbox pgtrickle_internal.outbox_config) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  number constant int := outbox.outbox_number;
  source constant regclass := outbox.stream_table_oid;
  p record;
  reasons text[] := '{}';
begin
  for p in
    select k.relid, k.place from pgtrickle_internal.outbox_partitions k
    where k.outbox_number = number
      and k.relid not in (select t.rel from pgtrickle_internal.capture_places(source) t)
  loop
    if not exists (select from pg_class c where c.oid = p.relid) then
      reasons := reasons || case p.place when 'leaf' then array['a partition was dropped']
                                         when 'foreign' then array['a partition was dropped']
                                         else '{}' end;
      continue;
    end if;
    -- Its statement triggers went on recording: its rows are as the outbox has them, and are deleted
    -- now. A row trigger went with the parent.
    perform pgtrickle_internal.outbox_hold(outbox, p.relid, '1 second');
    if p.place = 'leaf' and outbox.capture = 'statement'
       and pgtrickle_internal.recorded_since_detached(number, p.relid, source)
       and pgtrickle_internal.estimated_rows(p.relid) <= pgtrickle_internal.upkeep_max_rows() then
      perform pgtrickle_internal.capture_relation(number, p.relid, 'DELETE', 'DELETE');
    elsif p.place <> 'middle' then
      reasons := reasons || format('partition %s was detached', p.relid::regclass);
    end if;
    perform pgtrickle_internal.capture_detach(number, p.relid);
  end loop;

  for p in
    select t.rel, t.place from pgtrickle_internal.capture_places(source) t
    where t.place in ('leaf', 'foreign') and t.rel not in (
      select k.relid from pgtrickle_internal.outbox_partitions k where k.outbox_number = number)
  loop
    if not pgtrickle_internal.partition_began_empty(number, p.rel)
       and pgtrickle_internal.partition_has_rows(number, p.rel) then
      reasons := reasons || format('partition %s was attached with rows', p.rel);
    end if;
  end loop;
  perform pgtrickle_internal.partitions_remember(number);
  return reasons;
end $$;

-- Follows key columns that were renamed; one that was dropped keeps its old name.
create or replace function pgtrickle_internal.upkeep_keys(number int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  update pgtrickle_internal.outbox_config c
  set key_columns = k.names
  from (select array_agg(coalesce(a.attname::text, o.name) order by o.ord) as names
        from unnest(outbox.key_columns, outbox.key_attnums) with ordinality o (name, attnum, ord)
        left join pg_attribute a on a.attrelid = outbox.stream_table_oid and a.attnum = o.attnum
          and not a.attisdropped) k
  where c.outbox_number = outbox.outbox_number and c.key_columns <> k.names;
  if found and outbox.kind = 'table' then
    perform pgtrickle_internal.capture_generate(outbox.outbox_number);
    return true;
  end if;
  return found;
end $$;

-- From now on each row is recorded by itself. The triggers are attached by the caller, who has locked
-- the table.
create or replace function pgtrickle_internal.upkeep_to_row(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_quiet(c.stream_table_oid::regclass)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if not exists (select from pgtrickle_internal.upkeep_findings(number) f where f.to_row) then
    return;
  end if;
  update pgtrickle_internal.outbox_config c set capture = 'row'
  where c.outbox_number = number and c.kind = 'table' and c.capture = 'statement';
  perform pgtrickle_internal.capture_generate(number);
end $$;

-- Locks the table of an outbox against writers, sets right what there is to set right, and writes one
-- full refresh where that is needed, or was `asked` for. Returns its outbox id.
create or replace function pgtrickle_internal.outbox_heal(number int, asked boolean) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  f record;
  reasons text[];
  made bigint;
begin
  perform pgtrickle_internal.outbox_hold(c, c.stream_table_oid,
                                         case when asked then interval '30 seconds' else '1 second' end)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  -- As it is now that it is locked.
  select * into strict f from pgtrickle_internal.upkeep_findings(number);
  reasons := f.reasons || array(select distinct m.why from pgtrickle_internal.outbox_misses m
                                where m.outbox_number = number);
  if f.to_row then
    reasons := reasons || 'statement triggers do not record this table any more'::text;
    perform pgtrickle_internal.upkeep_to_row(number);
  elsif f.functions then
    perform pgtrickle_internal.capture_generate(number);
  end if;
  if f.keys then
    perform pgtrickle_internal.upkeep_keys(number);
  end if;
  if (select pgtrickle_internal.has_owners_rights(c.stream_table_oid)
      from pgtrickle_internal.outbox_config c where c.outbox_number = number) then
    perform pgtrickle_internal.outbox_make_reader(number, c.stream_table_oid)
    from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  end if;
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if f.partitions then
    reasons := reasons || pgtrickle_internal.upkeep_partitions(outbox);
  end if;
  if f.to_row or f.triggers or f.partitions then
    perform pgtrickle_internal.upkeep_attach(outbox);
  end if;
  -- Before the rows are read: what changes meanwhile (the label of an enum) is found next time.
  perform pgtrickle_internal.signature_store(number);
  if asked or (reasons <> '{}' and pgtrickle_internal.upkeep_may_refresh(outbox.stream_table_oid)) then
    made := pgtrickle_internal.capture_relation(number, outbox.stream_table_oid, 'FULL', null,
                                                nullif(array_to_string(reasons, '; '), ''));
  elsif reasons <> '{}' then
    raise warning 'outbox "%": %', outbox.stream_table_name, array_to_string(reasons, '; ');
    perform pgtrickle_internal.upkeep_want(number, reasons);
  end if;
  perform pgtrickle_internal.outbox_judge(number);
  return made;
end $$;

-- Sets right whatever changed about the tables of outboxes since the last time; returns how many
-- outboxes there was something to do for. What cannot be done is said in their `problem`. After two
-- seconds the rest waits for the next time, and says so, for tables stay locked until the end.
create or replace function pgtrickle.outbox_capture_upkeep() returns int
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return pgtrickle_internal.outbox_upkeep(null);
end $$;
comment on function pgtrickle.outbox_capture_upkeep() is
  'Sets right the triggers of outboxes, and records by a full refresh what went past them';

-- The same for one outbox, or for all (null).
create or replace function pgtrickle_internal.outbox_upkeep(only_number int) returns int
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  until timestamptz;  -- from the first table on that may be locked, however long the look took
  f record;
  outbox pgtrickle_internal.outbox_config;
  changed int := 0;
  changes int;
begin
  perform pgtrickle_internal.require_fresh_snapshots('outbox_capture_upkeep()');
  if to_regprocedure('pgtrickle_internal.stream_rebind()') is not null then
    execute 'select pgtrickle_internal.stream_rebind()';
  end if;
  perform pgtrickle_internal.deferred_missed();
  for f in
    select u.*, c.problem from pgtrickle_internal.upkeep_findings(only_number) u
    join pgtrickle_internal.outbox_config c on c.outbox_number = u.number
    where u.gone or u.partitions or u.triggers or u.keys or u.functions or u.to_row or u.missed
       or u.drifted or u.reasons <> '{}' or c.problem is distinct from u.standing
  loop
    select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = f.number;
    continue when outbox.outbox_number is null;
    changes := 0;
    -- In a block of its own, so that a failure below does not undo it.
    begin
      if f.drifted then
        perform pgtrickle_internal.signature_follow(outbox.outbox_number);
      end if;
      if f.functions then
        perform pgtrickle_internal.capture_generate(outbox.outbox_number);
        changes := changes + 1;
      end if;
    exception when others then
      raise notice 'outbox "%" is looked at again next time: %', outbox.stream_table_name, sqlerrm;
    end;
    begin
      -- The table has another owner now, perhaps.
      if f.functions and pgtrickle_internal.has_owners_rights(outbox.stream_table_oid) then
        perform pgtrickle_internal.outbox_make_reader(outbox.outbox_number, outbox.stream_table_oid);
      end if;
    exception when others then
      raise notice 'outbox "%": %', outbox.stream_table_name, sqlerrm;
    end;
    begin
      if f.gone and pgtrickle_internal.upkeep_dropped(outbox.outbox_number) then
        changes := changes + 1;
        select u.* into f from pgtrickle_internal.upkeep_findings(outbox.outbox_number) u;
        select * into outbox from pgtrickle_internal.outbox_config c
        where c.outbox_number = outbox.outbox_number;
      end if;
      if outbox.outbox_number is null or f.gone then
        null;
      elsif pgtrickle_internal.outbox_lost_table(outbox) is not null then
        changes := changes + pgtrickle_internal.outbox_judge(f.number)::int;
      elsif outbox.kind = 'stream_table' then
        changes := f.keys::int;
        if f.keys then
          perform pgtrickle_internal.upkeep_keys(f.number);
        end if;
        changes := changes + pgtrickle_internal.outbox_judge(f.number)::int;
      elsif f.partitions or f.triggers or f.keys or f.to_row or f.missed or f.reasons <> '{}' then
        until := coalesce(until, clock_timestamp() + interval '2 seconds');
        if clock_timestamp() > until then
          changes := changes + pgtrickle_internal.outbox_note(f.number, format(
            'upkeep waits for its turn: %s', array_to_string(f.reasons, '; ')))::int;
        else
          perform pgtrickle_internal.outbox_heal(f.number, false);
          changes := changes + 1;
        end if;
      else
        changes := changes + pgtrickle_internal.outbox_judge(f.number)::int;
      end if;
    exception
      when insufficient_privilege or undefined_function then  -- the reader is a former owner's
        changes := changes + pgtrickle_internal.outbox_note(outbox.outbox_number, format(
          'upkeep needs the owner of %s: let it run SELECT pgtrickle.outbox_capture_upkeep(), or '
          'GRANT %s TO pgtrickle_owner (%s)', outbox.stream_table_oid::regclass,
          (select c.relowner::regrole from pg_class c
           where c.oid = outbox.stream_table_oid), sqlerrm))::int;
      when lock_not_available then
        changes := changes + pgtrickle_internal.outbox_note(outbox.outbox_number, format(
          'upkeep waits until the table can be locked: %s', sqlerrm))::int;
      when others then  -- of this outbox alone
        changes := changes + pgtrickle_internal.outbox_note(outbox.outbox_number, format(
          'upkeep failed: %s', sqlerrm))::int;
    end;
    changed := changed + (changes > 0)::int;
  end loop;
  return changed;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Upgrade

-- Writes the trigger functions of the first outbox after that number anew, as this version writes
-- them; returns its number, null where there is none. Tables are not touched: triggers that a new
-- version wants otherwise are set right by upkeep. An outbox whose table was dropped keeps no other
-- from that. `init` calls it for one outbox after the other, each in a transaction of its own.
create or replace function pgtrickle_internal.rebuild_capture(after int) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  number constant int := (
    select min(c.outbox_number) from pgtrickle_internal.outbox_config c
    where c.kind = 'table' and c.outbox_number > after
      and to_regclass(format('pgtrickle.%I', c.outbox_table_name)) is not null);
begin
  -- After a restore, the table of the same name that has the outbox's triggers counts: its functions
  -- must be of this version before upkeep has bound it.
  update pgtrickle_internal.outbox_config c set stream_table_oid = r.oid
  from pg_class r
  join pg_namespace n on n.oid = r.relnamespace
  where c.outbox_number = number and c.kind = 'table'
    and n.nspname = c.stream_table_schema and r.relname = c.stream_table_name
    and r.oid <> c.stream_table_oid
    and exists (select from pg_trigger t
                join pg_proc f on f.oid = t.tgfoid  -- only the table's owner could attach it
                  and f.pronamespace = 'pgtrickle_internal'::regnamespace
                  and f.proname = format('capture_%s_begin', c.outbox_number)
                where t.tgrelid = r.oid
                  and t.tgname = format('!pgtrickle_%s_begin', c.outbox_number)
                  and not exists (select from pg_trigger o
                                  where o.tgrelid = c.stream_table_oid and o.tgname = t.tgname))
    and not exists (select from pgtrickle_internal.outbox_config o
                    where o.stream_table_oid = r.oid);
  if number is not null then
    perform pgtrickle_internal.capture_generate(number);
  end if;
  return number;
exception
  when lock_not_available or deadlock_detected or internal_error then
    raise;  -- another session is at it: to be called again
  when others then  -- of this outbox alone; the functions that it has go on
    perform pgtrickle_internal.outbox_note(number, format(
      'its capture functions are those of an earlier version: %s', sqlerrm));
    return number;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.partitions_remember(integer), pgtrickle_internal.upkeep_max_rows(),
  pgtrickle_internal.upkeep_max_bytes(), pgtrickle_internal.upkeep_may_refresh(regclass),
  pgtrickle_internal.estimated_rows(regclass), pgtrickle_internal.trigger_type(text),
  pgtrickle_internal.trigger_faults(integer),
  pgtrickle_internal.upkeep_findings(integer), pgtrickle_internal.outbox_judge(integer),
  pgtrickle_internal.upkeep_want(integer, text[]),
  pgtrickle_internal.partition_has_rows(integer, regclass),
  pgtrickle_internal.outbox_hold(pgtrickle_internal.outbox_config, regclass, interval),
  pgtrickle_internal.upkeep_attach(pgtrickle_internal.outbox_config),
  pgtrickle_internal.partition_began_empty(integer, oid),
  pgtrickle_internal.upkeep_partitions(pgtrickle_internal.outbox_config),
  pgtrickle_internal.upkeep_keys(integer), pgtrickle_internal.upkeep_to_row(integer),
  pgtrickle_internal.outbox_heal(integer, boolean), pgtrickle_internal.outbox_upkeep(integer)
  to pgtrickle_admin;
