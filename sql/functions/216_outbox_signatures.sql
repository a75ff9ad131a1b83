-- What upkeep remembers of a captured table, to find later what the triggers missed.
--
-- Three things change what a consumer should have without a change that a trigger sees: ALTER TABLE
-- changes rows, triggers do not fire for a while, and the database is another one after a dump and
-- restore. The catalog tells each of them:
--
--   columns   names and types, also within composite types, and the labels of enums: another
--             name or type is in every row, though none is written
--   storage   the file of the table, and the version (xmin) of each column's row in pg_attribute.
--             ALTER TABLE that computes values anew changes both; VACUUM FULL, CLUSTER, TRUNCATE and
--             SET TABLESPACE change the file alone, statistics, storage, defaults and NOT NULL the
--             column alone. (VACUUM FULL also clears atthasmissing, where the column's default
--             stays the same row of pg_attrdef.)
--             Also what keeps the key unique: the unique indexes on columns of the key, without nulls,
--             and their constraints. While there is none, the last ones stay: those that are made
--             later are others, and rows with the same key may have followed meanwhile.
--   triggers  the version of each trigger's row in pg_trigger: a trigger that was disabled and enabled
--             again is another version
--   server    the cluster and the database. The versions of rows survive VACUUM FREEZE, standbys and
--             restarts, not pg_upgrade and dump and restore.
--
-- xmin is compared, never calculated with.

-- Which cluster and database this is.
create or replace function pgtrickle_internal.server() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat((select s.system_identifier from pg_control_system() s), '/',
                (select d.oid from pg_database d where d.datname = current_database()));
$$;

-- The versions of the triggers that a relation has for an outbox: its own, then those that it
-- inherits.
create or replace function pgtrickle_internal.triggers_version(number int, rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat_ws('/', md5(string_agg(t.version, ',' order by t.version)
                            filter (where not t.inherited)),
                   md5(string_agg(t.version, ',' order by t.version) filter (where t.inherited)))
  from (select concat_ws(' ', t.tgname, t.tgfoid, t.xmin) as version,
               t.tgparentid <> 0 as inherited
        from pg_trigger t
        where t.tgrelid = rel
          and starts_with(t.tgname, concat('!pgtrickle_', number, '_'))) t;
$$;

-- The signatures of tables with outboxes as they are: of one, or of all.
create or replace function pgtrickle_internal.signatures_now(only_number int default null)
returns table (outbox_number int, columns jsonb, storage jsonb, triggers jsonb)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  -- A subquery for each table, all by index: a plan that joins what is about all tables costs seconds
  -- where there are a thousand.
  select c.outbox_number,
         coalesce(a.named, '{}') || coalesce(case when a.made_by_users then (
           select jsonb_object_agg(p.name, p.value)
           from (
             select 'e' || e.oid, e.enumlabel::text
             from pgtrickle_internal.types_within(r.oid) t join pg_enum e on e.enumtypid = t.type_oid
             union
             select format('p%s.%s', a.attrelid, a.attnum), concat_ws(' ', a.atttypid, a.attname)
             from pgtrickle_internal.types_within(r.oid) t
             join pg_type y on y.oid = t.type_oid and y.typtype = 'c' and y.typrelid <> r.oid
             join pg_attribute a on a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped
           ) p (name, value)) end, '{}'),
         jsonb_build_object('files', m.files, 'columns', coalesce(a.versions, '{}'),
                            'key', coalesce(g.guards, '[]')),
         m.triggers
  from pgtrickle_internal.outbox_config c
  join pg_class r on r.oid = c.stream_table_oid
  cross join lateral (
    select bool_or(a.atttypid >= 16384) as made_by_users,
           -- varchar and text are the same in JSON. A virtual column has no values but its
           -- expression's.
           jsonb_object_agg('c' || a.attnum, concat_ws(' ',
             case a.atttypid when 'varchar'::regtype then 'text'::regtype::oid else a.atttypid end,
             a.attname, case when a.attgenerated = 'v' then d.oid end)) as named,
           jsonb_object_agg(a.attnum, jsonb_build_array(a.xmin::text, a.atthasmissing, d.oid))
             as versions
    from pg_attribute a
    left join pg_attrdef d on a.atthasdef and d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped) a
  cross join lateral (
    select jsonb_object_agg(p.relid, v.version) as triggers,
           md5(string_agg(concat_ws(' ', p.relid, p.relfilenode), ',' order by p.relid)
               filter (where p.is_leaf)) as files
    from (select r.oid as relid, r.relfilenode, true as is_leaf where r.relkind <> 'p'
          union all
          select t.relid, l.relfilenode, t.is_leaf
          from pgtrickle_internal.partition_tree(r.oid) t join pg_class l on l.oid = t.relid
          where r.relkind = 'p') p
    cross join lateral (
      -- As triggers_version() has it; to call it for each relation takes longer than all the rest.
      select concat_ws('/', md5(string_agg(t.version, ',' order by t.version)
                                filter (where not t.inherited)),
                       md5(string_agg(t.version, ',' order by t.version)
                           filter (where t.inherited))) as version
      from (select concat_ws(' ', g.tgname, g.tgfoid, g.xmin) as version,
                   g.tgparentid <> 0 as inherited
            from pg_trigger g
            where g.tgrelid = p.relid
              and starts_with(g.tgname, concat('!pgtrickle_', c.outbox_number, '_'))) t) v) m
  cross join lateral (
    -- REINDEX CONCURRENTLY makes another index, ADD CONSTRAINT ... USING INDEX another constraint.
    select jsonb_agg(distinct o.id) as guards
    from pg_index i
    left join pg_constraint u on u.conrelid = i.indrelid and u.conindid = i.indexrelid
      and u.contype in ('p', 'u')
    cross join lateral (values (i.indexrelid::text), (u.oid::text)) o (id)
    where i.indrelid = r.oid and i.indisunique and i.indisvalid and i.indpred is null
      and i.indexprs is null and o.id is not null
      and (i.indkey::smallint[])[0:i.indnkeyatts - 1] <@ c.key_attnums
      and not exists (
        select from pg_attribute a
        where a.attrelid = r.oid and a.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1])
          and not a.attnotnull)) g
  where c.kind = 'table' and (only_number is null or c.outbox_number = only_number);
$$;

-- Whether rows are written otherwise now: each name, type and label must be what it was, and nothing
-- be new but labels.
create or replace function pgtrickle_internal.columns_changed(old jsonb, new jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select old <> new
         and (not new @> old
              or exists (select from jsonb_object_keys(new) k
                         where not starts_with(k, 'e') and not old ? k));
$$;

-- Whether ALTER TABLE has computed values anew; see above.
create or replace function pgtrickle_internal.storage_rewritten(old jsonb, new jsonb)
returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select old -> 'files' <> new -> 'files'
         and exists (
           select from jsonb_each(old -> 'columns') o
           join jsonb_each(new -> 'columns') n on n.key = o.key
           where o.value <> n.value
             and not (o.value -> 1 = 'true' and n.value -> 1 = 'false'
                      and o.value -> 2 <> 'null' and o.value -> 2 = n.value -> 2));
$$;

-- Whether rows with the same key may have followed: of what kept the key unique, nothing is left.
create or replace function pgtrickle_internal.key_unguarded(old jsonb, new jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(old -> 'key' <> '[]', false)
         and not exists (select from jsonb_array_elements_text(old -> 'key') k
                         where new -> 'key' ? k);
$$;

-- What is stored of the storage: see above about the key.
create or replace function pgtrickle_internal.storage_kept(old jsonb, new jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when new -> 'key' = '[]' and old -> 'key' <> '[]'
              then new || jsonb_build_object('key', old -> 'key') else new end;
$$;

-- Whether triggers of a relation that is still there are not those that they were.
create or replace function pgtrickle_internal.triggers_touched(old jsonb, new jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select old <> new
         and exists (select from jsonb_each(old) o join jsonb_each(new) n on n.key = o.key
                     where o.value <> n.value);
$$;

-- Whether a table that has left the partition tree of an outbox has the triggers of its own that it
-- had there, with the columns of the root: then all its changes were recorded until now.
create or replace function pgtrickle_internal.recorded_since_detached(number int, rel oid, root oid)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select split_part(s.triggers ->> rel::text, '/', 1)
           = split_part(pgtrickle_internal.triggers_version(number, rel), '/', 1)
         and not exists (
           select from pg_attribute a
           full join (select * from pg_attribute b where b.attrelid = root) b
             on b.attname = a.attname and b.atttypid = a.atttypid
           where coalesce(a.attrelid, rel) = rel and coalesce(a.attnum, b.attnum) > 0
             and not coalesce(a.attisdropped, b.attisdropped)
             and (a.attnum is null or b.attnum is null or b.attisdropped <> a.attisdropped))
  from pgtrickle_internal.outbox_signatures s where s.outbox_number = number;
$$;

-- Remembers what the table of an outbox is now. The transaction has locked it against writers, and
-- reads its rows later, if it does.
create or replace function pgtrickle_internal.signature_store(number int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_quiet(c.stream_table_oid::regclass)
  from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  insert into pgtrickle_internal.outbox_signatures as s
    (outbox_number, server, columns, storage, triggers)
  select n.outbox_number, pgtrickle_internal.server(), n.columns, n.storage, n.triggers
  from pgtrickle_internal.signatures_now(number) n
  on conflict (outbox_number) do update
  set server = excluded.server, columns = excluded.columns,
      storage = pgtrickle_internal.storage_kept(s.storage, excluded.storage),
      triggers = excluded.triggers;
end $$;

-- Whether the signatures of an outbox differ by what changes no value.
create or replace function pgtrickle_internal.signature_drifted(
  stored pgtrickle_internal.outbox_signatures, columns jsonb, storage jsonb, triggers jsonb)
returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select (stored.columns <> columns
          or stored.storage <> pgtrickle_internal.storage_kept(stored.storage, storage))
         and not pgtrickle_internal.columns_changed(stored.columns, columns)
         and not pgtrickle_internal.storage_rewritten(stored.storage, storage)
         and not pgtrickle_internal.triggers_touched(stored.triggers, triggers)
         and (storage -> 'key' = '[]' or not pgtrickle_internal.key_unguarded(stored.storage, storage));
$$;

-- Remembers the signature of an outbox where it has drifted: what is stored is what was compared. An
-- outbox of an earlier version has none yet.
create or replace function pgtrickle_internal.signature_follow(number int) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  insert into pgtrickle_internal.outbox_signatures as s
    (outbox_number, server, columns, storage, triggers)
  select n.outbox_number, pgtrickle_internal.server(), n.columns,
         pgtrickle_internal.storage_kept(o.storage, n.storage), n.triggers
  from pgtrickle_internal.signatures_now(number) n
  left join pgtrickle_internal.outbox_signatures o on o.outbox_number = n.outbox_number
  where o.outbox_number is null
     or (o.server = pgtrickle_internal.server()
         and pgtrickle_internal.signature_drifted(o, n.columns, n.storage, n.triggers))
  on conflict (outbox_number) do update
  set columns = excluded.columns, storage = excluded.storage;
$$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.server(), pgtrickle_internal.triggers_version(integer, oid),
  pgtrickle_internal.signatures_now(integer), pgtrickle_internal.columns_changed(jsonb, jsonb),
  pgtrickle_internal.storage_rewritten(jsonb, jsonb),
  pgtrickle_internal.key_unguarded(jsonb, jsonb), pgtrickle_internal.storage_kept(jsonb, jsonb),
  pgtrickle_internal.triggers_touched(jsonb, jsonb),
  pgtrickle_internal.recorded_since_detached(integer, oid, oid),
  pgtrickle_internal.signature_store(integer),
  pgtrickle_internal.signature_drifted(pgtrickle_internal.outbox_signatures, jsonb, jsonb, jsonb),
  pgtrickle_internal.signature_follow(integer)
  to pgtrickle_admin;
