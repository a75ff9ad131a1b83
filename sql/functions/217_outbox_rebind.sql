-- Outboxes whose table has been replaced: dropped and created again, restored, or renamed.

-- How many rows of an outbox each pipeline that has a position, and each consumer group, has not
-- delivered; where there is none, all rows, of no pipeline. `exact` as in outbox_rows_after. None of an outbox whose table was dropped.
create or replace function pgtrickle_internal.outbox_undelivered(number int)
returns table (pipeline text, rows bigint, exact boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox pgtrickle_internal.outbox_config;
  newest bigint;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if to_regclass(outbox.outbox_sequence) is null
     or to_regclass(format('pgtrickle.%I', outbox.outbox_table_name)) is null then
    return;  -- it was dropped by hand, with its rows
  end if;
  newest := coalesce(pg_sequence_last_value(outbox.outbox_sequence::regclass), 0);
  return query
    select p.pipeline_id, r.rows, r.exact
    from (select distinct o.pipeline_id, o.last_change_id
          from pgtrickle.relay_consumer_offsets o where o.incarnation = outbox.incarnation
          union all
          select g.name, min(s."position")
          from pgtrickle_internal.consumer_groups g
          join pgtrickle_internal.consumer_slots s on s.group_number = g.group_number
          where g.outbox_number = number group by g.group_number
          union all
          select null, 0
          where not exists (select from pgtrickle.relay_consumer_offsets o
                            where o.incarnation = outbox.incarnation)
            and not exists (select from pgtrickle_internal.consumer_groups g
                            where g.outbox_number = number)) p
    cross join lateral pgtrickle_internal.outbox_rows_after(outbox.outbox_table_name, p.last_change_id,
                                                            newest) r
    where r.rows > 0
    order by 1;
end $$;

-- Says, or takes back, that the owner of what an outbox records is at work in this transaction: by a
-- comment on the function that reads the table, which belongs to that role, also when the table is
-- gone. No other role can write it.
create or replace function pgtrickle_internal.outbox_owner_says(number int, says boolean)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if pgtrickle_internal.gate_owner(outbox.reader) is not null then
    execute format('comment on function pgtrickle_streams.%I(text, jsonb) is %s', outbox.reader,
                   case when says then quote_literal(pgtrickle_internal.outbox_mark()) else 'null' end);
  end if;
exception when insufficient_privilege then
  raise exception 'must be owner of the table that outbox "%" recorded', outbox.outbox_table_name
    using errcode = 'insufficient_privilege',
          detail = format('It belonged to %s.', pgtrickle_internal.gate_owner(outbox.reader)::regrole),
          hint = format('SELECT pgtrickle.disable_outbox(%L) drops the outbox with its rows.',
                        outbox.outbox_table_name);
end $$;

create or replace function pgtrickle_internal.outbox_mark() returns text
language sql set search_path = pg_catalog, pg_temp
as $$ select 'Outbox: changed by transaction ' || pg_current_xact_id() $$;

-- Raises unless that was said. An outbox without such a function (of an inbox) is a superuser's.
create or replace function pgtrickle_internal.require_outbox_owner(
  outbox pgtrickle_internal.outbox_config) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  reader constant oid := to_regprocedure(format('pgtrickle_streams.%I(text, jsonb)', outbox.reader));
begin
  if not (case
       when reader is null then (select r.rolsuper from pg_roles r where r.rolname = session_user)
       else obj_description(reader, 'pg_proc') is not distinct from pgtrickle_internal.outbox_mark()
            and not exists (
              select from pg_class c join pg_proc p on p.oid = reader and p.proowner <> c.relowner
              where c.oid = outbox.stream_table_oid) end) then
    raise exception 'must be owner of the table that outbox "%" records', outbox.outbox_table_name
      using errcode = 'insufficient_privilege';
  end if;
end $$;

-- Lets an outbox record another table from now on, with its name and these options; the caller has
-- locked the table against writers, and makes the triggers. Rows, positions and incarnation stay.
create or replace function pgtrickle_internal.outbox_rebind(
  number int, source regclass, key_columns text[], retention_hours int, inline_threshold_rows int,
  inline_threshold_bytes bigint, notify boolean, capture text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  former pgtrickle_internal.outbox_config;
begin
  perform pgtrickle_internal.require_locked(source);
  perform pgtrickle_internal.lock('outboxes');
  select * into strict former
  from pgtrickle_internal.outbox_config c where c.outbox_number = number and c.kind = 'table';
  perform pgtrickle_internal.require_outbox_owner(former);
  if exists (select from pg_class c where c.oid = former.stream_table_oid) then
    perform pgtrickle_internal.require_locked(former.stream_table_oid::regclass);
  end if;
  update pgtrickle_internal.outbox_config c
  set stream_table_oid = source, stream_table_schema = n.nspname, stream_table_name = r.relname,
      key_columns = outbox_rebind.key_columns,
      key_attnums = pgtrickle_internal.attnums(source, outbox_rebind.key_columns),
      retention_hours = outbox_rebind.retention_hours,
      inline_threshold_rows = outbox_rebind.inline_threshold_rows,
      inline_threshold_bytes = outbox_rebind.inline_threshold_bytes,
      notify = outbox_rebind.notify, capture = outbox_rebind.capture,
      source_dropped_at = null, problem = null
  from pg_class r join pg_namespace n on n.oid = r.relnamespace
  where c.outbox_number = number and r.oid = source;
  -- What kept the former key unique means nothing to another one.
  update pgtrickle_internal.outbox_signatures s set storage = s.storage - 'key'
  from pgtrickle_internal.outbox_config c
  where c.outbox_number = number and s.outbox_number = number
    and (c.stream_table_oid, c.key_attnums)
        is distinct from (former.stream_table_oid, former.key_attnums);
end $$;

create or replace function pgtrickle_internal.attnums(source oid, columns text[]) returns smallint[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array_agg(a.attnum order by k.ord)
  from unnest(columns) with ordinality k (name, ord)
  left join pg_attribute a on a.attrelid = source and a.attname = k.name and a.attnum > 0
    and not a.attisdropped;
$$;

-- The number of the outbox whose table had a table's name, and was dropped; null where there is none.
-- It is an error where its rows cannot be followed by those of the table, and are not delivered yet.
create or replace function pgtrickle_internal.outbox_former(source regclass, kind text) returns int
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  former pgtrickle_internal.outbox_config;
  missing record;
begin
  select c.* into former
  from pgtrickle_internal.outbox_config c
  join pg_class r on r.oid = source and r.relname = c.stream_table_name
  join pg_namespace n on n.oid = r.relnamespace and n.nspname = c.stream_table_schema
  where c.kind not in ('events', 'adopted')
    and not exists (select from pg_class t where t.oid = c.stream_table_oid)
  order by c.outbox_number desc limit 1;
  if former.kind = 'table' and outbox_former.kind = 'table' then
    return former.outbox_number;
  elsif former.outbox_number is not null then
    select * into missing from pgtrickle_internal.outbox_undelivered(former.outbox_number) limit 1;
    if found then
      raise exception 'the outbox %, of a table of this name that was dropped, holds % rows that % '
                      'has not delivered', former.outbox_table_name, missing.rows,
                      coalesce(case when pgtrickle_internal.group_owner(missing.pipeline) is null
                                    then 'pipeline ' else 'consumer group ' end
                               || quote_ident(missing.pipeline), 'a relay')
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Let them be delivered, or give them up: '
                            'SELECT pgtrickle.disable_outbox(%L);', former.outbox_table_name);
    end if;
  end if;
  return null;
end $$;

-- Makes an outbox record a table that is locked, and begins with all its rows.
create or replace function pgtrickle_internal.outbox_take_over(
  number int, source regclass, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.outbox_begin_capture(number, source);
  perform pgtrickle_internal.capture_relation(number, source, 'FULL', null, reason);
  perform pgtrickle_internal.outbox_judge(number);
end $$;

-- The relation that has the name now which the table of an outbox had when the outbox was made.
create or replace function pgtrickle_internal.outbox_namesake(number int) returns regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select r.oid
  from pgtrickle_internal.outbox_config c
  join pg_namespace n on n.nspname = c.stream_table_schema
  join pg_class r on r.relnamespace = n.oid and r.relname = c.stream_table_name
    and r.relkind in ('r', 'p', 'f', 'v', 'm')
  where c.outbox_number = number;
$$;

-- Binds an outbox to another table: the one that has the name now which its table had when the outbox
-- was made, or the one that is named. What it has recorded stays, and is followed by a full refresh.
-- Bound to the table that it records already, it takes that one's name, and where the key identifies
-- rows no longer, that one's primary key (with a full refresh), or none.
create or replace function pgtrickle.rebind_outbox(name text, to_table text default null)
returns text
language plpgsql
as $$
begin
  return pgtrickle_internal.outbox_rebind_to(name, case when to_table is not null then
    pgtrickle_internal.outbox_source(to_table, pg_catalog.current_setting('search_path')) end);
end $$;
comment on function pgtrickle.rebind_outbox(text, text) is
  'Lets an outbox record the table that has its table''s name now, or another; nothing is dropped';

create or replace function pgtrickle_internal.outbox_rebind_to(name text, wanted regclass)
returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox constant pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(name);
  number constant int := outbox.outbox_number;
  former constant regclass := (select c.oid from pg_class c where c.oid = outbox.stream_table_oid);
  source constant regclass := coalesce(wanted, pgtrickle_internal.outbox_namesake(number));
  keys text[] := outbox.key_columns;
  anew boolean := source is distinct from former;
  rel regclass;
begin
  if outbox.kind <> 'table' then
    raise exception 'outbox "%" does not record a table', name using errcode = 'wrong_object_type';
  elsif source is null then
    raise exception 'there is no table %.%', quote_ident(outbox.stream_table_schema),
      quote_ident(outbox.stream_table_name) using errcode = 'undefined_table';
  elsif exists (select from pgtrickle_internal.outbox_config c
                where c.stream_table_oid = source and c.outbox_number <> number) then
    raise exception 'table % has an outbox of its own', source
      using errcode = 'duplicate_object',
            hint = 'SELECT pgtrickle.disable_outbox() drops it with its rows.';
  elsif exists (select from pgtrickle_internal.stream_tables s where s.pgt_relid = source) then
    raise exception '% is a stream table', source using errcode = 'wrong_object_type';
  end if;
  perform pgtrickle_internal.require_fresh_snapshots('rebind_outbox()');
  if former is not null then
    perform pgtrickle_internal.outbox_check_owner(former);
    perform pgtrickle_internal.lock_against_writers(former, readers_too => source is distinct from former);
  end if;
  if source is distinct from former then
    perform pgtrickle_internal.outbox_check_source(source);
    perform pgtrickle_internal.lock_against_writers(source);
    if array_position(pgtrickle_internal.attnums(source, keys), null) is not null then
      keys := pgtrickle_internal.primary_key(source);
    end if;
    if former is not null then
      for rel in select p.rel from pgtrickle_internal.capture_places(former) p loop
        perform pgtrickle_internal.capture_detach(number, rel);
      end loop;
    end if;
  elsif (select f.key_fault is not null from pgtrickle_internal.upkeep_findings(number) f) then
    anew := true;
    keys := pgtrickle_internal.primary_key(source);
  end if;
  if former is not null then
    perform pgtrickle_internal.outbox_make_reader(number, former);  -- the table may have another owner now
  end if;
  perform pgtrickle_internal.outbox_owner_says(number, true);
  perform pgtrickle_internal.outbox_rebind(
    number, source, keys, outbox.retention_hours, outbox.inline_threshold_rows,
    outbox.inline_threshold_bytes, outbox.notify,
    case when source is distinct from former and outbox.capture = 'statement'
         then pgtrickle_internal.outbox_capture_kind(source, 'auto') else outbox.capture end);
  perform pgtrickle_internal.outbox_owner_says(number, false);
  if anew then
    perform pgtrickle_internal.outbox_take_over(number, source, case
      when source = former then 'the key of the table was changed'
      else format('the outbox records %s instead of %s', source,
                  coalesce(former::text, 'a dropped table')) end);
  else
    perform pgtrickle_internal.outbox_judge(number);
  end if;
  return outbox.outbox_table_name;
end $$;

-- An outbox whose table is gone, or which finds itself in another database. After a dump and restore
-- the table has another oid, and still our triggers: it is bound to that one. An outbox whose table
-- was dropped stays until its rows are gone: retention and readers come first. True where there was
-- something to do.
create or replace function pgtrickle_internal.upkeep_dropped(number int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  found_rel oid;
  found_tables regclass[];
  anew constant text := (
    select format('%I.%I', c.stream_table_schema, c.stream_table_name)
    from pgtrickle_internal.outbox_config c where c.outbox_number = number);
  empty boolean;
  noted boolean;
begin
  select * into strict outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if not (select f.gone from pgtrickle_internal.upkeep_findings(number) f) then
    return false;
  end if;
  select (array_agg(t.tgrelid
            order by n.nspname = outbox.stream_table_schema
                       and c.relname = outbox.stream_table_name desc,
                     pg_partition_root(c.oid) is null desc, pg_partition_root(c.oid) = c.oid desc))[1],
         case when not bool_or(n.nspname = outbox.stream_table_schema
                               and c.relname = outbox.stream_table_name)
              then array_agg(distinct coalesce(pg_partition_root(c.oid), c.oid)::regclass) end
  into found_rel, found_tables
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
  join pg_namespace n on n.oid = c.relnamespace
  where t.tgname = format('!pgtrickle_%s_begin', number)
    -- Any role can give a trigger that name; only the owner of the table may attach the function.
    and t.tgfoid = to_regprocedure(format('pgtrickle_internal.capture_%s_begin()', number))
    and t.tgparentid = 0 and outbox.kind = 'table'
    and ((n.nspname, c.relname) = (outbox.stream_table_schema, outbox.stream_table_name)
         or exists (select from pgtrickle_internal.outbox_signatures s
                    where s.outbox_number = number and s.server <> pgtrickle_internal.server()));
  if cardinality(found_tables) > 1 then
    -- A former owner of the table may have given them to another one.
    return pgtrickle_internal.outbox_note(number, format(
      'upkeep needs to know the table after the restore: %s have the triggers of this outbox. Drop '
      'those of all but one', array_to_string(found_tables, ', ')));
  elsif found_rel is not null then
    perform pgtrickle_internal.outbox_restored(number, found_rel);
    return true;
  elsif outbox.source_dropped_at is null then
    update pgtrickle_internal.outbox_config c
    set source_dropped_at = clock_timestamp(), stream_table_oid = null
    where c.outbox_number = number;
  end if;
  execute format('select not exists (select from pgtrickle.%I)', outbox.outbox_table_name)
    into empty;
  if outbox.source_dropped_at is not null and empty
     and not exists (select from pgtrickle_internal.change_feeds f where f.outbox_number = number) then
    perform pgtrickle_internal.outbox_drop(number);
    return true;
  end if;
  noted := pgtrickle_internal.outbox_note(number, case when pgtrickle_internal.outbox_namesake(number) is not null
    then format('not recorded: %s, for the table that had this name was dropped. SELECT '
                'pgtrickle.enable_outbox(%L) records it, behind what this outbox still holds', anew,
                anew) end);
  return noted or outbox.source_dropped_at is null;
end $$;

-- Binds an outbox to its table after a restore, where oids, positions of columns and versions of rows
-- are others, and asks for a full refresh.
create or replace function pgtrickle_internal.outbox_restored(number int, source oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle_internal.outbox_config c set stream_table_oid = null
  where c.stream_table_oid = source and c.outbox_number <> number;
  update pgtrickle_internal.outbox_config c
  set stream_table_oid = source, source_dropped_at = null,
      key_attnums = pgtrickle_internal.attnums(source, c.key_columns),
      outbox_oid = format('pgtrickle.%I', c.outbox_table_name)::regclass
  where c.outbox_number = number;
  perform pgtrickle_internal.capture_generate(number);
  perform pgtrickle_internal.partitions_note(number);
  insert into pgtrickle_internal.outbox_signatures
    (outbox_number, server, columns, storage, triggers, wanted)
  select number, pgtrickle_internal.server(), n.columns, n.storage, n.triggers,
         'the database was restored or upgraded'
  from pgtrickle_internal.signatures_now(number) n
  on conflict (outbox_number) do update
  set server = excluded.server, columns = excluded.columns,
      storage = pgtrickle_internal.storage_kept(outbox_signatures.storage, excluded.storage),
      triggers = excluded.triggers, wanted = excluded.wanted;
  perform pgtrickle_internal.outbox_judge(number);
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.outbox_undelivered(integer),
  pgtrickle_internal.outbox_owner_says(integer, boolean), pgtrickle_internal.outbox_mark(),
  pgtrickle_internal.outbox_rebind(integer, regclass, text[], integer, integer, bigint, boolean, text),
  pgtrickle_internal.attnums(oid, text[]), pgtrickle_internal.outbox_former(regclass, text),
  pgtrickle_internal.outbox_take_over(integer, regclass, text),
  pgtrickle_internal.outbox_namesake(integer), pgtrickle_internal.outbox_rebind_to(text, regclass),
  pgtrickle_internal.upkeep_dropped(integer)
  to pgtrickle_admin;
