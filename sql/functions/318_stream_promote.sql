-- Blue-green: promote_stream_table gives the query of one stream table, `from`, to the table of another,
-- the logical one, which consumers know.
--
--   stream_promote (caller)            both are locked and checked, both owners are shown to agree
--     |
--   stream_promote_into (owner)        their entries in the catalog exchange their tables, and what was
--     |                                the definition of `from` is refreshed once: the difference
--     |                                between the logical table and its new query is one delta
--   stream_drop_parts (caller)         the old definition is dropped, with the table of `from`
--
-- The logical table stays the same relation, with its outbox, triggers, publications, grants and views.
-- The query, its settings, its watched sources and its schedule stay as they are with `from`. All of it
-- is one transaction. What runs code of users runs as the owner of both, through the gate.

-- ---------------------------------------------------------------------------------------------
-- Columns

-- The columns that `wider` has and `rel` lacks, in their order.
create or replace function pgtrickle_internal.stream_added_columns(rel regclass, wider regclass)
returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array(
    select w.attname::text from pg_attribute w
    where w.attrelid = wider and w.attnum > 0 and not w.attisdropped
      and not exists (select from pg_attribute a
                      where a.attrelid = rel and a.attname = w.attname and a.attnum > 0
                        and not a.attisdropped)
    order by w.attnum)
$$;

-- Locks tables so that no other transaction reads them. Waits for a tenth of a second at a time, with
-- all of them free in between, so that readers queue no longer than that behind a reader that stays.
create or replace function pgtrickle_internal.lock_out_readers(rels regclass[], patience interval)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  before constant text := current_setting('lock_timeout');
  until constant timestamptz := clock_timestamp() + patience;
  rel regclass;
begin
  loop
    begin
      perform set_config('lock_timeout', '100ms', true);
      foreach rel in array rels loop
        execute format('lock table only %s in access exclusive mode',
                       pgtrickle_internal.qualified(rel));
      end loop;
      perform set_config('lock_timeout', before, true);
      return;
    exception when lock_not_available then
      null;
    end;
    if clock_timestamp() > until then
      raise exception 'table % is being used by transactions that do not end', rel
        using errcode = 'lock_not_available',
              detail = concat('pids: ', (
                select string_agg(distinct l.pid::text, ', ')
                from pg_locks l
                where l.locktype = 'relation' and l.relation = rel and l.granted
                  and l.database = (select d.oid from pg_database d
                                    where d.datname = current_database())
                  and l.pid <> pg_backend_pid())),
              hint = 'Try again when they have ended.';
    end if;
    perform pg_sleep(0.05 + random() * 0.15);
  end loop;
end $$;

-- Adds the columns that `wider` has and `rel` lacks. From here to the end of the transaction no other
-- one reads `rel`, nor `wider`, which is about to be dropped.
create or replace function pgtrickle_internal.stream_widen(rel regclass, wider regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  added constant text[] := pgtrickle_internal.stream_added_columns(rel, wider);
begin
  perform pgtrickle_internal.lock_out_readers(array[wider, rel], interval '10 seconds');
  execute format('alter table only %s %s', rel, (
    select string_agg(format('add column %I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                             case when l.oid is not null
                                  then format(' collate %I.%I', n.nspname, l.collname) end),
                      ', ' order by a.attnum)
    from pg_attribute a
    left join pg_collation l on l.oid = a.attcollation and l.collname <> 'default'
    left join pg_namespace n on n.oid = l.collnamespace
    where a.attrelid = wider and a.attname = any (added) and a.attnum > 0 and not a.attisdropped));
end $$;

-- Raises where the columns of `from` cannot be those of the table: the table's own come first, in its
-- order and of its types, and then those that it lacks.
create or replace function pgtrickle_internal.stream_check_columns(rel regclass, wider regclass)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  has record;
  fault record;
begin
  for has in
    select o.*, n.attname as fits_name,
           row(o.atttypid, o.atttypmod, o.attcollation) = row(n.atttypid, n.atttypmod, n.attcollation)
             as fits_type,
           format_type(o.atttypid, o.atttypmod) as is_type,
           format_type(n.atttypid, n.atttypmod) as gives_type,
           exists (select from pg_attribute e
                   where e.attrelid = wider and e.attname = o.attname and e.attnum > 0
                     and not e.attisdropped) as exists_there
    from (select row_number() over (order by a.attnum) as place, a.* from pg_attribute a
          where a.attrelid = rel and a.attnum > 0 and not a.attisdropped) o
    left join (select row_number() over (order by a.attnum) as place, a.* from pg_attribute a
               where a.attrelid = wider and a.attnum > 0 and not a.attisdropped) n
      on n.place = o.place
    order by o.place
  loop
    if has.attgenerated <> '' or has.attidentity <> '' then
      raise exception 'column % of % is generated, and a query cannot give it',
        quote_ident(has.attname), rel
        using errcode = 'datatype_mismatch', hint = 'Drop it: ALTER TABLE ... DROP COLUMN.';
    elsif not has.exists_there then
      raise exception '% lacks column % of %', wider, quote_ident(has.attname), rel
        using errcode = 'datatype_mismatch',
              hint = format('Consumers know it. Select it, at least as NULL::%s, in the query of the '
                            'stream table that is promoted.', has.is_type);
    elsif has.fits_name is distinct from has.attname then
      raise exception 'the columns of % stand in another order than those of %', wider, rel
        using errcode = 'datatype_mismatch',
              hint = format('Select these first, in this order: %s; then those that are new.', (
                select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
                from pg_attribute a
                where a.attrelid = rel and a.attnum > 0 and not a.attisdropped));
    elsif not has.fits_type then
      raise exception 'column % has the type % in %, and % in %', quote_ident(has.attname),
        has.gives_type, wider, has.is_type, rel
        using errcode = 'datatype_mismatch',
              hint = format('Cast it in the query of the stream table that is promoted: %I::%s; a '
                            'collation must be the same, too.', has.attname, has.is_type);
    end if;
  end loop;
  select a.attname, format_type(a.atttypid, a.atttypmod) as type into fault
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid and t.typtype = 'd'
  where a.attrelid = wider and a.attnum > 0
    and a.attname = any (pgtrickle_internal.stream_added_columns(rel, wider))
  order by a.attnum limit 1;
  if found then
    raise exception 'column % cannot be added to %: its type % is a domain', quote_ident(fault.attname),
      rel, fault.type
      using errcode = 'datatype_mismatch',
            detail = 'Its constraints would be checked in every row while readers wait.',
            hint = 'Cast it to the domain''s base type in the query.';
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- What stands in the way

-- The key_columns with which a stream table was created; null: without.
create or replace function pgtrickle_internal.stream_stated_key(st pgtrickle_internal.stream_tables)
returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select case when not st.key_derived then st.key_columns end $$;

-- Raises where a stream table cannot take part in a promotion, or the caller may not let it. `owner`: to
-- whom both have to belong.
create or replace function pgtrickle_internal.stream_check_partner(
  st pgtrickle_internal.stream_tables, owner regrole) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  rel pg_class;
begin
  select * into rel from pg_class c where c.oid = st.pgt_relid;
  if not found then
    raise exception 'the table of stream table %.% has been dropped', st.pgt_schema, st.pgt_name
      using errcode = 'undefined_table',
            hint = format('SELECT pgtrickle.drop_stream_table(%L) removes what is left of it.',
                          format('%I.%I', st.pgt_schema, st.pgt_name));
  elsif not pg_has_role(st.pgt_owner, 'USAGE') or not pg_has_role(rel.relowner, 'USAGE') then
    raise exception 'must be owner of stream table %', st.pgt_relid
      using errcode = 'insufficient_privilege';
  elsif rel.relowner <> owner or st.pgt_owner <> owner then
    raise exception 'stream table % and the other one do not belong to one role', st.pgt_relid
      using errcode = 'insufficient_privilege',
            detail = 'The query runs with the rights of the role that created it.',
            hint = format('Create the one that is promoted as %s, who created the other.',
                          owner);
  elsif not pgtrickle_internal.stream_is_guarded(st.pgt_relid) then
    raise exception '% is not the table of stream table %.%: it has no trigger pgtrickle_guard',
        st.pgt_relid, st.pgt_schema, st.pgt_name
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Drop the stream table and create it again.';
  elsif st.refreshing_xid = pg_current_xact_id() then
    raise exception 'stream table % is being refreshed by this very transaction', st.pgt_relid
      using errcode = 'object_in_use';
  end if;
end $$;

-- Raises where a stream table that is to be promoted does not work, or is needed as what it is: its table
-- will be dropped.
create or replace function pgtrickle_internal.stream_check_dispensable(
  green pgtrickle_internal.stream_tables) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  listed text;
begin
  if green.status = 'SUSPENDED' then
    raise exception 'stream table % is suspended%', green.pgt_relid,
      coalesce(', after ' || green.consecutive_errors || ' failures: ' || green.last_error, '')
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('SELECT pgtrickle.alter_stream_table(%L, resume => true) resumes it.',
                          green.pgt_relid::text);
  elsif exists (select from pgtrickle_internal.outbox_config o
                where o.stream_table_oid = green.pgt_relid) then
    raise exception 'stream table % has an outbox of its own, which would be dropped with it',
        green.pgt_relid
      using errcode = 'object_in_use',
            detail = 'Its consumers would lose what they have not read; the outbox that stays is that '
                     'of the table that it is promoted to.',
            hint = format('When no consumer needs it: SELECT pgtrickle.disable_outbox(%L);',
                          format('%I.%I', green.pgt_schema, green.pgt_name));
  end if;
  select string_agg(quote_ident(p.pubname), ', ' order by p.pubname) into listed
  from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
  where r.prrelid = green.pgt_relid;
  if listed is not null then
    raise exception 'stream table % is published by %', green.pgt_relid, listed
      using errcode = 'object_in_use',
            detail = 'It is dropped, and its subscribers would get no further change.',
            hint = 'Take it out: ALTER PUBLICATION ... DROP TABLE, or pgtrickle.drop_publication().';
  end if;
  select string_agg(format('%I.%I', r.pgt_schema, r.pgt_name), ', ' order by r.pgt_schema, r.pgt_name)
  into listed
  from pgtrickle_internal.stream_tables r
  where r.pgt_id <> green.pgt_id
    and (green.pgt_relid = any (r.reads_through)
         or exists (select from pgtrickle.pgt_stream_sources s
                    where s.pgt_id = r.pgt_id
                      and (s.source = green.pgt_relid or green.pgt_relid = any (s.members))));
  if listed is not null then
    raise exception 'stream table % is read by: %', green.pgt_relid, listed
      using errcode = 'dependent_objects_still_exist',
            hint = 'Let those read the logical table (alter_stream_table with another query), or drop '
                   'them.';
  end if;
end $$;

-- Raises where stream table `green` cannot be promoted to stream table `blue`, or the caller may not
-- let it. Both are locked.
create or replace function pgtrickle_internal.stream_check_promotion(blue_id bigint, green_id bigint)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  blue pgtrickle_internal.stream_tables;
  green pgtrickle_internal.stream_tables;
begin
  select * into strict blue from pgtrickle_internal.stream_tables s where s.pgt_id = blue_id;
  select * into strict green from pgtrickle_internal.stream_tables s where s.pgt_id = green_id;
  perform pgtrickle_internal.stream_check_partner(blue, blue.pgt_owner);
  perform pgtrickle_internal.stream_check_partner(green, blue.pgt_owner);
  perform pgtrickle_internal.stream_check_dispensable(green);
  if pgtrickle_internal.stream_stated_key(blue) is distinct from pgtrickle_internal.stream_stated_key(green)
  then
    raise exception 'stream table % was created with key_columns (%), % with (%)', blue.pgt_relid,
      array_to_string(pgtrickle_internal.stream_stated_key(blue), ', '), green.pgt_relid,
      array_to_string(pgtrickle_internal.stream_stated_key(green), ', ')
      using errcode = 'datatype_mismatch',
            detail = 'They are the primary key of the table, which stays as it is.',
            hint = case when pgtrickle_internal.stream_stated_key(blue) is null
              then 'Create the one that is promoted without key_columns.'
              else format('Create the one that is promoted with key_columns => %L.',
                          pgtrickle_internal.stream_stated_key(blue)) end;
  end if;
  perform pgtrickle_internal.stream_check_columns(blue.pgt_relid, green.pgt_relid);
end $$;

-- ---------------------------------------------------------------------------------------------
-- The promotion

-- Lets the entries of two stream tables exchange their tables. What is known of a table goes with it:
-- its name, its history, since when it is there, and how consumers have its values.
create or replace function pgtrickle_internal.stream_exchange(one bigint, other bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  a pgtrickle_internal.stream_tables;
  b pgtrickle_internal.stream_tables;
begin
  select * into strict a from pgtrickle_internal.stream_tables s where s.pgt_id = one;
  select * into strict b from pgtrickle_internal.stream_tables s where s.pgt_id = other;
  -- No two entries have one table at a time.
  update pgtrickle_internal.stream_tables s set pgt_relid = 0::oid where s.pgt_id = one;
  update pgtrickle_internal.stream_tables s
  set pgt_relid = a.pgt_relid, relid_number = a.relid_number, pgt_schema = a.pgt_schema,
      pgt_name = a.pgt_name, created_at = a.created_at, names_in_values = a.names_in_values
  where s.pgt_id = other;
  update pgtrickle_internal.stream_tables s
  set pgt_relid = b.pgt_relid, relid_number = b.relid_number, pgt_schema = b.pgt_schema,
      pgt_name = b.pgt_name, created_at = b.created_at, names_in_values = b.names_in_values
  where s.pgt_id = one;
  update pgtrickle_internal.refresh_history h
  set pgt_id = case h.pgt_id when one then other else one end
  where h.pgt_id in (one, other);
end $$;

-- Gives the table of stream table `blue` to the definition of `green`, and refreshes it: one delta, the
-- exact difference; where consumers know its rows by another key from now on, all rows. Raises unless
-- this transaction has shown that their owner wants it.
create or replace function pgtrickle_internal.stream_promote_into(blue_id bigint, green_id bigint)
returns jsonb
language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  blue pgtrickle_internal.stream_tables;
  green pgtrickle_internal.stream_tables;
  st pgtrickle_internal.stream_tables;
  refresh constant uuid := gen_random_uuid();
  started constant timestamptz := clock_timestamp();
  added text[];
  done record;
  summary jsonb;
begin
  select * into strict blue from pgtrickle_internal.stream_tables s where s.pgt_id = blue_id;
  select * into strict green from pgtrickle_internal.stream_tables s where s.pgt_id = green_id;
  if blue_id = green_id or blue.pgt_owner <> green.pgt_owner
     or pg_current_xact_id() in (blue.refreshing_xid, green.refreshing_xid)
     or not pgtrickle_internal.stream_owner_at_work(blue_id)
     or not pgtrickle_internal.stream_owner_at_work(green_id) then
    raise exception 'stream tables % and % are not being promoted here', blue_id, green_id
      using errcode = 'insufficient_privilege', hint = 'Call pgtrickle.promote_stream_table().';
  end if;
  update pgtrickle_internal.stream_tables s set refreshing_xid = pg_current_xact_id()
  where s.pgt_id = green_id;
  -- What is behind the query is compared with the table that it has now.
  if pgtrickle_internal.stream_wants_watching(green_id) then
    perform pgtrickle_internal.stream_verify_key(green);
    perform pgtrickle_internal.stream_step(green, 'watch', '{}');
    select * into strict green from pgtrickle_internal.stream_tables s where s.pgt_id = green_id;
  end if;
  added := pgtrickle_internal.stream_added_columns(blue.pgt_relid, green.pgt_relid);

  perform pgtrickle_internal.stream_exchange(blue_id, green_id);
  perform pgtrickle_internal.stream_check_cycle(green_id, '{}');
  update pgtrickle_internal.outbox_config o
  set key_columns = green.key_columns, key_attnums = '{}'
  where o.stream_table_oid = blue.pgt_relid
    and o.key_columns is not distinct from blue.key_columns
    and o.key_columns is distinct from green.key_columns;

  select * into strict st from pgtrickle_internal.stream_tables s where s.pgt_id = green_id;
  st.refresh_mode := 'AUTO';
  select * into done from pgtrickle_internal.stream_refresh(st, refresh, started, green.pgt_relid);
  summary := pgtrickle_internal.stream_succeeded(st, refresh, started, clock_timestamp(), done);
  return summary || jsonb_build_object('columns_added', added);
end $$;

-- Waits until both stream tables are free, checks, promotes, and drops what is left of `from`.
create or replace function pgtrickle_internal.stream_promote(name text, "from" text) returns jsonb
language plpgsql
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
  set standard_conforming_strings = on
as $$
declare
  ids bigint[];
  id bigint;
  summary jsonb;
  leftover regclass;
begin
  perform pgtrickle_internal.require_fresh_snapshots('promote_stream_table()');
  ids := pgtrickle_internal.stream_lock_named(array[name, "from"]);
  if ids[1] = ids[2] then
    raise exception 'stream table "%" cannot be promoted to itself', name
      using errcode = 'invalid_parameter_value',
            hint = 'Create the new query as another stream table, and promote that.';
  end if;
  perform pgtrickle_internal.stream_check_promotion(ids[1], ids[2]);
  foreach id in array ids loop
    execute format('comment on function pgtrickle_streams.%I(text, jsonb) is %L', 'refresh_' || id,
                   pgtrickle_internal.stream_mark());
  end loop;
  summary := pgtrickle_internal.stream_promote_into(ids[1], ids[2]);
  select s.pgt_relid into strict leftover
  from pgtrickle_internal.stream_tables s where s.pgt_id = ids[1];
  perform pgtrickle_internal.lock_out_readers(array[leftover], interval '10 seconds');
  begin
    perform pgtrickle_internal.stream_drop_parts(ids[1]);
  exception when dependent_objects_still_exist then
    raise exception '% cannot be dropped: %', leftover, sqlerrm
      using errcode = 'dependent_objects_still_exist',
            hint = 'Drop what reads the stream table that is promoted, or let it read the logical one.';
  end;
  perform pgtrickle_internal.stream_unlock(ids[2]);
  perform pgtrickle_internal.stream_unmark(ids[2]);
  return summary;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.stream_added_columns(regclass, regclass),
  pgtrickle_internal.lock_out_readers(regclass[], interval),
  pgtrickle_internal.stream_widen(regclass, regclass),
  pgtrickle_internal.stream_check_columns(regclass, regclass),
  pgtrickle_internal.stream_stated_key(pgtrickle_internal.stream_tables),
  pgtrickle_internal.stream_check_partner(pgtrickle_internal.stream_tables, regrole),
  pgtrickle_internal.stream_check_dispensable(pgtrickle_internal.stream_tables),
  pgtrickle_internal.stream_check_promotion(bigint, bigint),
  pgtrickle_internal.stream_promote_into(bigint, bigint),
  pgtrickle_internal.stream_promote(text, text)
  to pgtrickle_admin;
