-- Owners of everything that the files before this one created, and the privileges that follow from a
-- rule; what single functions may be called by is granted beside them.
--
--   pgtrickle_owner      owns all of it but what follows; no role logs in as it
--   pgtrickle_capture    owns the functions that capture triggers call, and nothing else
--   pgtrickle_sandbox    owns the gate to other owners' functions, and nothing else
--   pgtrickle_observer   owns functions that show how long others' transactions have been open
--   pgtrickle_relay      the daemon: reads the catalog and the outboxes, writes positions (by
--                        functions only), status, dead letters; changes no pipeline, no outbox row
--   pgtrickle_publisher  publish()
--   pgtrickle_consumer   the functions of consumer groups, on the groups that the caller owns
--   pgtrickle_admin      calls every function that users call, and may do what those three may
--
-- A function in pgtrickle_internal is called by other functions; no role is given it here, but
-- administrators those that their own calls reach with their own rights. docs/security.md lists all
-- functions with owner and grants.

-- The observer gets its functions, and sees the start of other sessions' transactions where the
-- installing role may allow that; elsewhere the age of open writers is not shown, and nothing else
-- changes.
grant usage, create on schema pgtrickle to pgtrickle_observer;

do $$
declare
  f regprocedure;
begin
  for f in
    select p.oid from pg_catalog.pg_proc p
    where p.oid in ('pgtrickle.relay_open_writers(regclass)'::regprocedure,
                    'pgtrickle.relay_blockers()'::regprocedure)
      and p.proowner <> 'pgtrickle_observer'::regrole
  loop
    execute format('alter function %s owner to pgtrickle_observer', f);
  end loop;
  if not pg_catalog.pg_has_role('pgtrickle_observer', 'pg_read_all_stats', 'USAGE') then
    begin
      grant pg_read_all_stats to pgtrickle_observer;
    exception when insufficient_privilege then
      raise notice 'pg_read_all_stats cannot be granted: the age of open writers will not be shown';
    end;
  end if;
end $$;

revoke create on schema pgtrickle from pgtrickle_observer;

-- Ownership, and nothing for PUBLIC. What an extension owns stays as it is, and functions that
-- belong to one of the roles above stay with it. Where an extension owns the schema, what was there
-- before and belongs to another role is no object of ours either.
do $$
declare
  before constant oid[] := current_setting('pgtrickle.objects_before', true)::oid[];
  theirs constant boolean := exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_namespace'::regclass and d.deptype = 'e'
      and d.objid = 'pgtrickle'::regnamespace);
  r record;
begin
  for r in
    select c.oid::regclass as name, c.oid <> all (before) as is_new
    from pg_catalog.pg_class c
    where c.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      and c.relkind in ('r', 'p', 'v', 'm')
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
                        and d.deptype = 'e')
      and not (theirs and c.oid = any (before) and c.relnamespace = 'pgtrickle'::regnamespace
               and pg_get_userbyid(c.relowner) not like E'pgtrickle\\_%')
    order by c.oid
  loop
    perform pgtrickle_internal.own_and_grant(r.name, r.is_new);
  end loop;

  for r in
    select p.oid::regprocedure as name, p.proowner, p.pronamespace, p.proname
    from pg_catalog.pg_proc p
    where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
                        and d.deptype = 'e')
      and not (theirs and p.oid = any (before) and p.pronamespace = 'pgtrickle'::regnamespace
               and pg_get_userbyid(p.proowner) not like E'pgtrickle\\_%')
    order by p.oid
  loop
    if r.proowner not in ('pgtrickle_owner'::regrole, 'pgtrickle_observer'::regrole,
                          'pgtrickle_capture'::regrole, 'pgtrickle_sandbox'::regrole) then
      execute format('alter routine %s owner to pgtrickle_owner', r.name);
    end if;
    execute format('revoke all on routine %s from public', r.name);
    if r.pronamespace = 'pgtrickle'::regnamespace and r.proname !~ '^_' then
      execute format('grant execute on routine %s to pgtrickle_admin', r.name);
    end if;
  end loop;

  for r in
    select p.oid::regprocedure as name
    from pg_catalog.pg_proc p
    where p.pronamespace = 'pgtrickle_json'::regnamespace
      and p.proowner <> 'pgtrickle_owner'::regrole
  loop
    execute format('alter routine %s owner to pgtrickle_owner', r.name);
  end loop;

  for r in
    select t.oid::regtype as name
    from pg_catalog.pg_type t
    left join pg_catalog.pg_class c on c.oid = t.typrelid
    where t.typnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      and t.typowner <> 'pgtrickle_owner'::regrole
      and (t.typtype in ('e', 'd') or c.relkind = 'c')
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid
                        and d.deptype = 'e')
  loop
    execute format('alter type %s owner to pgtrickle_owner', r.name);
  end loop;
end $$;

-- What the installing role's default privileges gave to other roles on what is new.
do $$
declare
  before constant oid[] := current_setting('pgtrickle.objects_before', true)::oid[];
  r record;
begin
  for r in
    select distinct o.kind, o.name, a.grantee
    from (
      select case c.relkind when 'S' then 'sequence' else 'table' end as kind,
             c.oid::regclass::text as name, c.oid, c.relacl as acl, c.relowner as owner
      from pg_catalog.pg_class c
      where c.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace,
                               'pgtrickle_gate'::regnamespace)
        and c.relkind in ('r', 'p', 'v', 'm', 'S')
      union all
      select 'routine', p.oid::regprocedure::text, p.oid, p.proacl, p.proowner
      from pg_catalog.pg_proc p
      where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace,
                               'pgtrickle_json'::regnamespace, 'pgtrickle_gate'::regnamespace)
        and p.proname !~ '^capture_[0-9]') o
    cross join lateral pg_catalog.aclexplode(o.acl) a
    where o.oid <> all (before) and a.grantee <> o.owner and a.grantee <> 0
      and pg_get_userbyid(a.grantee) not like E'pgtrickle\\_%'
  loop
    execute format('revoke all on %s %s from %I', r.kind, r.name, pg_get_userbyid(r.grantee));
  end loop;
end $$;

-- What the daemon writes by itself. Positions and outboxes are not among it.
grant select, insert, update, delete
  on pgtrickle.relay_instances, pgtrickle.relay_pipeline_status to pgtrickle_relay;
grant select, insert, update on pgtrickle.relay_dlq to pgtrickle_relay;
grant update on pgtrickle.relay_pipeline_control, pgtrickle.relay_replays to pgtrickle_relay;

-- The installing role made itself a member of roles to hand objects to them. It stays a member of
-- pgtrickle_owner, whose objects the next installation replaces.
do $$
declare
  handed_to name;
begin
  for handed_to in
    select r.rolname
    from pg_catalog.pg_auth_members m
    join pg_catalog.pg_roles r on r.oid = m.roleid
    join pg_catalog.pg_roles me on me.oid = m.member and me.oid = m.grantor
    where me.rolname = current_user
      and r.rolname in ('pgtrickle_observer', 'pgtrickle_capture', 'pgtrickle_sandbox')
  loop
    execute format('revoke %I from %I', handed_to, current_user);
  end loop;
end $$;
