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

-- The three that users may read are views there, with the privileges that the tables had, and none by
-- default privileges of the installing role.
do $$
declare
  v record;
  granted record;
begin
  for v in
    select substr(m, 5) as named, m as shown
    from unnest(current_setting('pgtrickle.moved')::text[]) m where m like E'pgt\\_%'
  loop
    execute format('create view pgtrickle.%I as select * from pgtrickle_internal.%I', v.shown,
                   v.named);
    for granted in
      select distinct a.grantee
      from pg_catalog.pg_class c cross join pg_catalog.aclexplode(c.relacl) a
      where c.oid = format('pgtrickle.%I', v.shown)::regclass and a.grantee not in (0, c.relowner)
    loop
      execute format('revoke all on pgtrickle.%I from %s', v.shown, granted.grantee::regrole);
    end loop;
    for granted in
      select a.grantee, a.privilege_type as privilege, a.is_grantable
      from pg_catalog.pg_class c cross join pg_catalog.aclexplode(c.relacl) a
      where c.oid = format('pgtrickle_internal.%I', v.named)::regclass
        and a.grantee not in (0, c.relowner)
        and a.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    loop
      execute format('grant %s on pgtrickle.%I to %s%s', granted.privilege, v.shown,
                     granted.grantee::regrole,
                     case when granted.is_grantable then ' with grant option' else '' end);
    end loop;
    -- after/900_ownership.sql takes it for an object that was there before.
    perform set_config('pgtrickle.objects_before',
                       (current_setting('pgtrickle.objects_before')::oid[]
                        || format('pgtrickle.%I', v.shown)::regclass::oid)::text, false);
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
