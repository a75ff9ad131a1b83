-- What versions before migrations were numbered have installed; a new database has none of it. What only
-- pgtrickle-relay itself uses moves from pgtrickle to pgtrickle_internal: tables, and the functions that
-- triggers call. These keep their identity (oid), so that no table of an application is locked and no
-- trigger is missing for a moment. All other functions of pgtrickle_internal are new; those that they
-- replace are dropped later, by drop_superseded().
--
-- A statement of an application that is inside a function of the earlier version when this commits
-- goes on with the body of that version, which calls its helper functions and writes to tables by
-- their former names. So these functions stay, and views have those names, until every transaction of
-- that moment has ended.

-- What stays only until the transactions have ended that were open when an upgrade committed.
create table if not exists pgtrickle_internal.superseded (
  n         int generated always as identity primary key,
  object    text not null unique,
  waits_for text[]
);
comment on table pgtrickle_internal.superseded is
  'Objects of an earlier version that statements which began under it may still use; '
  'drop_superseded() drops them';
comment on column pgtrickle_internal.superseded.object is
  'What to drop, as DROP wants it: function pgtrickle._lock(text)';
comment on column pgtrickle_internal.superseded.waits_for is
  'The virtual transactions that may still use it; null: drop_superseded() has not looked yet';

-- What users made on objects that this version replaces cannot follow them: a foreign key, a
-- trigger or a publication needs a table, and a view or a function would have to be created again.
-- Nothing of it is dropped here: the error names each object, and the statements that save it.
do $$
declare
  gone constant oid[] := array(
    select c.oid from pg_catalog.pg_class c
    where c.relnamespace = 'pgtrickle'::regnamespace
      and (c.relkind = 'r' and c.relname in ('relay_outbox_config', 'relay_inbox_config',
                                             'relay_bridge_config', '_installed_functions')
           or c.relkind = 'v' and c.relname = '_relay_catalog'));
  found record;
begin
  with recursive dependent (class, id, part, depth, shown) as (
    select 'pg_class'::regclass::oid, t.id, 0, 0, false from unnest(gone) t (id)
    union
    select case when w.ev_class is null then d.classid else 'pg_class'::regclass end,
           coalesce(w.ev_class, d.objid), d.objsubid, o.depth + 1,
           -- What else belongs to an object goes and comes with it.
           d.deptype = 'n' or d.deptype = 'a' and o.id = any (gone)
    from dependent o
    join pg_catalog.pg_depend d on d.refclassid = o.class and d.refobjid = o.id
    left join pg_catalog.pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
      and w.rulename = '_RETURN'
    where o.depth < 100 and coalesce(w.ev_class, d.objid) <> o.id
      and coalesce(w.ev_class, d.objid) is distinct from to_regclass('pgtrickle.relay_pipelines')),
  object as (
    select o.class, o.id, max(o.part) as part, max(o.depth) as depth
    from dependent o
    where o.shown and o.id <> all (gone)
      and not exists (select from pg_catalog.pg_constraint c
                      where o.class = 'pg_constraint'::regclass and c.oid = o.id
                        and c.conrelid = any (gone) and c.contype in ('p', 'n'))
      and not exists (select from pg_catalog.pg_trigger t
                      where o.class = 'pg_trigger'::regclass and t.oid = o.id
                        and (t.tgisinternal
                             or t.tgrelid = any (gone) and t.tgname in ('touch', 'notify')))
      and not exists (select from pg_catalog.pg_attrdef a
                      where o.class = 'pg_attrdef'::regclass and a.oid = o.id
                        and a.adrelid = any (gone))
    group by o.class, o.id),
  named as (
    select o.depth, pg_catalog.pg_describe_object(o.class, o.id, o.part) as name, i.type,
           i.identity, o.id, substring(i.identity from '^(.*) (?:on|in) ') as first,
           substring(i.identity from ' (?:on|in publication) (.*)$') as second
    from object o cross join lateral pg_catalog.pg_identify_object(o.class, o.id, 0) i
    union all
    select 0, format('column %I of table %s', a.attname, a.attrelid::regclass), 'table column', '',
           0, a.attname, a.attrelid::regclass::text
    from pg_catalog.pg_attribute a
    where a.attrelid = any (gone) and a.attnum > 0 and not a.attisdropped
      and exists (select from pg_catalog.pg_class c
                  where c.oid = a.attrelid and c.relname like E'relay\\_%')
      and a.attname not in ('name', 'enabled', 'config', 'outbox_name', 'created_at',
                            'updated_at', 'enabled_changed_at')
    union all
    select 1, format('row security of table %s', c.oid::regclass), 'row security', '', 0, null,
           c.oid::regclass::text
    from pg_catalog.pg_class c where c.oid = any (gone) and c.relrowsecurity),
  -- The statement that takes it away, and the one that makes it again: views are saved by pg_dump,
  -- with their owners, privileges and comments.
  step as (
    select n.*,
           case when n.type in ('view', 'materialized view', 'function', 'procedure', 'rule',
                                'trigger', 'policy', 'index', 'domain')
                  then format('DROP %s %s;', upper(n.type), n.identity)
                when n.type = 'table constraint'
                  then format('ALTER TABLE %s DROP CONSTRAINT %s;', n.second, n.first)
                when n.type = 'publication relation'
                  then format('ALTER PUBLICATION %s DROP TABLE %s;', n.second, n.first)
                when n.type = 'statistics object' then format('DROP STATISTICS %s;', n.identity)
                when n.type = 'table column'
                  then format('-- save its values, then: ALTER TABLE %s DROP COLUMN %I;', n.second,
                              n.first)
                when n.type = 'row security'
                  then format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY;', n.second)
                else format('-- alter or drop %s', n.name) end as takes_away,
           case n.type
             when 'function' then f.definition
             when 'procedure' then f.definition
             when 'rule' then rtrim(pg_catalog.pg_get_ruledef(n.id), ';')
             when 'trigger' then moved.named
             when 'index' then moved.named
             when 'table constraint'
               then format('ALTER TABLE %s ADD CONSTRAINT %s %s', n.second, n.first, moved.named)
             when 'publication relation'
               then format('ALTER PUBLICATION %s ADD TABLE %s', n.second, moved.named)
           end as makes_again
    from named n
    -- Only a table can have these: relay_config has the pipelines of all three.
    cross join lateral (
      select regexp_replace(
        case n.type when 'trigger' then pg_catalog.pg_get_triggerdef(n.id)
                    when 'index' then pg_catalog.pg_get_indexdef(n.id)
                    when 'table constraint' then pg_catalog.pg_get_constraintdef(n.id)
                    when 'publication relation' then n.first end,
        'pgtrickle[.]relay_(outbox|inbox|bridge)_config', 'pgtrickle.relay_config')) moved (named)
    left join lateral (
      select concat(rtrim(pg_catalog.pg_get_functiondef(p.oid), E'\n'),
                    format(E';\nALTER ROUTINE %s OWNER TO %s', n.identity, p.proowner::regrole),
                    case when p.proacl is not null
                      then format(E';\nREVOKE ALL ON ROUTINE %s FROM PUBLIC', n.identity) end,
                    (select string_agg(format(E';\nGRANT EXECUTE ON ROUTINE %s TO %s', n.identity,
                       case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end), '')
                     from pg_catalog.aclexplode(p.proacl) a where a.grantee <> p.proowner))
      from pg_catalog.pg_proc p
      where n.type in ('function', 'procedure') and p.oid = n.id) f (definition) on true)
  select string_agg(s.name, ', ' order by s.depth, s.name) as names,
         'pg_dump --schema-only' || string_agg(format(' --table=%L', s.identity), ''
           order by s.depth) filter (where s.type in ('view', 'materialized view'))
           || E' --file=saved.sql\n' as saves,
         string_agg(s.takes_away, E'\n' order by s.depth desc, s.name) as takes_away,
         string_agg(s.makes_again || E';\n', '' order by s.depth, s.name) as makes_again
  into found
  from step s;
  if found.names is not null then
    raise exception 'objects that this version replaces are used by others: %', found.names
      using errcode = 'dependent_objects_still_exist',
            detail = 'Nothing was changed.',
            hint = concat(E'save and remove what is named, run init, and create it again:\n',
                          found.saves, found.takes_away, E'\npgtrickle-relay init\n',
                          case when found.saves is not null then E'psql --file=saved.sql\n' end,
                          found.makes_again,
                          '-- pgtrickle.relay_config is the table that has all pipelines; '
                          'pg_dump --schema-only shows the definition of what is not listed');
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Tables

-- The program knows by itself what must be installed.
drop table if exists pgtrickle._installed_functions;

do $$
declare
  -- Three had names that the extension pg_trickle owns from its version 0.46 on.
  moved constant text[] := array(
    select c.relname from pg_catalog.pg_class c
    where c.relnamespace = 'pgtrickle'::regnamespace and c.relkind = 'r'
      and (c.relname like E'\\_%'
           or c.relname in ('pgt_outbox_config', 'pgt_stream_tables', 'pgt_refresh_history'))
      and c.relowner = 'pgtrickle_owner'::regrole
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
                        and d.deptype = 'e')
    order by c.relname);
  former text;
  named text;
  part record;
begin
  perform set_config('pgtrickle.moved', moved::text, true);
  if moved = '{}' then
    return;
  end if;
  -- All at once, for no transaction that waits for one of them may hold another one.
  execute format('lock table %s in access exclusive mode',
                 (select string_agg(format('pgtrickle.%I', m), ', ') from unnest(moved) m));
  foreach former in array moved loop
    named := regexp_replace(former, '^(pgt)?_', '');
    execute format('alter table pgtrickle.%I set schema pgtrickle_internal', former);
    execute format('alter table pgtrickle_internal.%I rename to %I', former, named);
    for part in
      select c.conname as name from pg_catalog.pg_constraint c
      where c.conrelid = format('pgtrickle_internal.%I', named)::regclass
        and starts_with(c.conname, former || '_')
    loop
      execute format('alter table pgtrickle_internal.%I rename constraint %I to %I', named,
                     part.name, regexp_replace(part.name, '^(pgt)?_', ''));
    end loop;
    for part in
      select distinct c.relname as name, c.relkind
      from pg_catalog.pg_class c
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
        and d.refclassid = 'pg_catalog.pg_class'::regclass
        and d.refobjid = format('pgtrickle_internal.%I', named)::regclass
        and d.deptype in ('a', 'i')
      where c.relkind in ('i', 'S') and starts_with(c.relname, former || '_')
    loop
      execute format('alter %s pgtrickle_internal.%I rename to %I',
                     case part.relkind when 'i' then 'index' else 'sequence' end, part.name,
                     regexp_replace(part.name, '^(pgt)?_', ''));
    end loop;
  end loop;
end $$;

-- Gives a view to pgtrickle_owner, and to other roles what they could do to the table whose name it
-- takes: with the table and with single columns, as far as a view allows it. Default privileges of
-- the installing role give nothing. For migrations only; 0002_tables.sql drops it.
create or replace function pgtrickle_internal.replace_by_view(former regclass, present regclass)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  granted record;
begin
  execute format('alter view %s owner to pgtrickle_owner', present);
  for granted in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end as role
    from pg_class c cross join aclexplode(c.relacl) a
    where c.oid = present and a.grantee <> c.relowner
  loop
    execute format('revoke all on %s from %s', present, granted.role);
  end loop;
  for granted in
    select a.privilege_type || l.columns as privilege, a.is_grantable,
           case a.grantee when 0 then 'public' else a.grantee::regrole::text end as role
    from (select c.relacl as acl, '' as columns from pg_class c where c.oid = former
          union all
          select b.attacl, format(' (%I)', b.attname) from pg_attribute b
          where b.attrelid = former and b.attnum > 0 and not b.attisdropped) l
    cross join aclexplode(l.acl) a
    where a.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
      and a.grantee <> (select c.relowner from pg_class c where c.oid = former)
      and a.grantee <> 'pgtrickle_owner'::regrole
  loop
    execute format('grant %s on %s to %s%s', granted.privilege, present, granted.role,
                   case when granted.is_grantable then ' with grant option' else '' end);
  end loop;
  -- after/900_ownership.sql takes it for an object that was there before.
  perform set_config('pgtrickle.objects_before',
                     (current_setting('pgtrickle.objects_before')::oid[] || present::oid)::text,
                     false);
end $$;

-- The three that users may read are views there.
do $$
declare
  v record;
begin
  for v in
    select substr(m, 5) as named, m as shown
    from unnest(current_setting('pgtrickle.moved')::text[]) m where m like E'pgt\\_%'
  loop
    execute format('create view pgtrickle.%I as select * from pgtrickle_internal.%I', v.shown,
                   v.named);
    perform pgtrickle_internal.replace_by_view(format('pgtrickle_internal.%I', v.named)::regclass,
                                               format('pgtrickle.%I', v.shown)::regclass);
  end loop;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Functions of an earlier version

do $$
declare
  f record;
begin
  for f in
    select p.oid::regprocedure as signature, p.proname as name,
           p.prorettype = 'trigger'::regtype as by_trigger
    from pg_catalog.pg_proc p
    where p.pronamespace = 'pgtrickle'::regnamespace and p.proname like E'\\_%'
      and pg_catalog.pg_get_userbyid(p.proowner) in ('pgtrickle_owner', 'pgtrickle_capture',
                                                     'pgtrickle_observer', 'pgtrickle_sandbox')
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
                        and d.deptype = 'e')
    order by p.oid
  loop
    if f.by_trigger then
      execute format('alter function %s rename to %I', f.signature, substr(f.name, 2));
      execute format('alter function pgtrickle.%I() set schema pgtrickle_internal',
                     substr(f.name, 2));
    else
      insert into pgtrickle_internal.superseded (object) values ('function ' || f.signature)
      on conflict do nothing;
    end if;
  end loop;
end $$;

-- For their statements: the tables under their former names. A row of a view goes where a row of the
-- table is wanted.
do $$
declare
  t record;
begin
  for t in
    select m as former, regexp_replace(m, '^(pgt)?_', '') as named
    from unnest(current_setting('pgtrickle.moved')::text[]) m
  loop
    if t.former like E'\\_%' then
      execute format('create view pgtrickle.%I as select * from pgtrickle_internal.%I', t.former,
                     t.named);
      execute format('alter view pgtrickle.%I owner to pgtrickle_owner', t.former);
    end if;
    execute format('create cast (pgtrickle.%I as pgtrickle_internal.%I) with inout as implicit',
                   t.former, t.named);
    insert into pgtrickle_internal.superseded (object)
    values (format('cast (pgtrickle.%I as pgtrickle_internal.%I)', t.former, t.named));
    if t.former like E'\\_%' then
      insert into pgtrickle_internal.superseded (object)
      values (format('view pgtrickle.%I', t.former));
    end if;
  end loop;
end $$;
