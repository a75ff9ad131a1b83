-- The basis of the database side of postgres-stream: its roles and schemas.
--
--   pgstream       what users call and read, and what the triggers on their tables call
--   pgstream_json  how values are written (sql/functions/150_json_values.sql under this name)
--
--   pgstream_owner       owns all of it; no role logs in as it
--   pgstream_daemon      what the daemon needs
--   pgstream_subscriber  may subscribe to tables of its own
--
-- Where the installing role may not create roles, everything belongs to the installing role, and
-- only it and superusers can subscribe and run the daemon.

set search_path = pg_catalog, pg_temp;

do $$
begin
  if current_setting('server_version_num')::int < 150000 then
    raise exception 'postgres-stream needs PostgreSQL 15 or newer; this server is %',
      current_setting('server_version')
      using hint = 'Upgrade the server first.';
  end if;
end $$;

do $$
declare
  wanted text;
begin
  foreach wanted in array array['pgstream_owner', 'pgstream_daemon', 'pgstream_subscriber'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
  if not pg_has_role(current_user, 'pgstream_owner', 'USAGE') then
    execute format('grant pgstream_owner to %I', current_user);
  end if;
  perform set_config('pgstream.owner', 'pgstream_owner', true);
exception
  when insufficient_privilege then
    perform set_config('pgstream.owner', current_user, true);
    raise notice 'roles cannot be created or granted: everything belongs to "%"', current_user
      using hint = 'To have separate roles, let an administrator run: CREATE ROLE pgstream_owner; '
                   'CREATE ROLE pgstream_daemon; CREATE ROLE pgstream_subscriber; and grant the '
                   'first to the installing role.';
  when duplicate_object or unique_violation then
    raise exception 'the roles are being created by another installation'
      using errcode = 'lock_not_available', hint = 'Try again.';
end $$;

-- Roles that exist already must give no more rights than those that are created here. A member of
-- pgstream_owner can do what the callers of its functions can, superusers among them.
do $$
declare
  r record;
begin
  for r in
    select a.rolname, trim(concat_ws(' ', case when a.rolsuper then 'NOSUPERUSER' end,
      case when a.rolcreaterole then 'NOCREATEROLE' end,
      case when a.rolbypassrls then 'NOBYPASSRLS' end,
      case when a.rolcanlogin and a.rolname = 'pgstream_owner' then 'NOLOGIN' end)) as lacks
    from pg_roles a where a.rolname in ('pgstream_owner', 'pgstream_daemon', 'pgstream_subscriber')
  loop
    if r.lacks <> '' then
      raise exception 'role "%" has rights that it must not have', r.rolname
        using errcode = 'invalid_role_specification',
              hint = format('ALTER ROLE %I %s;', r.rolname, r.lacks);
    end if;
  end loop;
  for r in
    select a.rolname from pg_auth_members m join pg_roles a on a.oid = m.member
    where m.roleid = to_regrole('pgstream_owner') and not a.rolsuper and a.rolname <> current_user
      and current_setting('pgstream.owner') = 'pgstream_owner'
  loop
    raise exception 'role "%" is a member of "pgstream_owner"', r.rolname
      using errcode = 'invalid_role_specification',
            hint = format('REVOKE pgstream_owner FROM %I CASCADE; or install as that role.',
                          r.rolname);
  end loop;
end $$;

do $$
begin
  if to_regnamespace('pgstream') is null then
    execute format('create schema pgstream authorization %I', current_setting('pgstream.owner'));
  end if;
  if to_regnamespace('pgstream_json') is null then
    execute format('create schema pgstream_json authorization %I',
                   current_setting('pgstream.owner'));
  end if;
end $$;

-- A schema of a role that is not trusted, or one in which other roles may create, could hold
-- objects that this installation would run or take over. Trigger functions belong to the owners of
-- their tables.
do $$
declare
  trusted constant oid[] := array(
    select r.oid from pg_roles r
    where r.rolsuper or r.rolname in (current_user, current_setting('pgstream.owner')));
  s record;
  named text;
begin
  for s in
    select n.oid, n.nspname as name, n.nspowner as owner, n.nspacl as acl
    from pg_namespace n where n.nspname in ('pgstream', 'pgstream_json')
  loop
    if s.owner <> all (trusted) then
      raise exception 'schema "%" belongs to role "%"', s.name, pg_get_userbyid(s.owner)
        using errcode = 'insufficient_privilege',
              detail = 'Its owner could act with the rights of this installation.',
              hint = format('See what is in it, then DROP SCHEMA %I CASCADE; or rename it.',
                            s.name);
    end if;
    select string_agg(distinct case when a.grantee = 0 then 'PUBLIC'
                                    else quote_ident(pg_get_userbyid(a.grantee)) end, ', ')
    into named
    from aclexplode(s.acl) a
    where a.privilege_type = 'CREATE' and a.grantee <> all (trusted) and a.grantee <> s.owner;
    if named is not null then
      raise exception 'others may create objects in schema "%": %', s.name, named
        using errcode = 'insufficient_privilege',
              hint = format('REVOKE CREATE ON SCHEMA %I FROM %s CASCADE;', s.name, named);
    end if;
    select string_agg(format('%s (%s)', pg_describe_object(o.class, o.id, 0),
                             pg_get_userbyid(o.owner)), ', ' order by o.class, o.id)
    into named
    from (
      select 'pg_class'::regclass as class, c.oid as id, c.relowner as owner
      from pg_class c where c.relnamespace = s.oid and c.relkind not in ('i', 'I', 't')
      union all
      select 'pg_proc'::regclass, p.oid, p.proowner from pg_proc p
      where p.pronamespace = s.oid
        and p.proname !~ '^_(publish_after|condition_of)_(insert|update|delete)_on_'
      union all
      select 'pg_type'::regclass, t.oid, t.typowner from pg_type t
      where t.typnamespace = s.oid and t.typrelid = 0 and t.typelem = 0
      union all
      select 'pg_operator'::regclass, o.oid, o.oprowner from pg_operator o
      where o.oprnamespace = s.oid) o
    where o.owner <> all (trusted);
    if named is not null then
      raise exception 'schema "%" contains objects of other roles: %', s.name, named
        using errcode = 'insufficient_privilege',
              hint = 'Drop them, or move them to another schema.';
    end if;
  end loop;
end $$;
