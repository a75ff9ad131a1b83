-- The basis of the database side: the roles, the schemas, and the record of what is installed.
--
--   pgtrickle           what users call and read
--   pgtrickle_internal  tables and functions that only these call and read, and the capture functions
--                       of outboxes
--   pgtrickle_json      how values are written (functions/150_json_values.sql)
--   pgtrickle_changes   change feeds (functions/251_feed_catalog.sql)
--   pgtrickle_gate      the gate, and
--   pgtrickle_streams   what is called through it (functions/010_gate.sql)
--
-- Run by a superuser, or by a role with CREATEROLE that may CREATE in this database
-- (docs/security.md). Objects may belong to the installing role until after/900_ownership.sql hands
-- them to the roles below.

-- Everything here runs with the installing role's rights, so no name is looked up in a schema that
-- other roles may write to.
set search_path = pg_catalog, pg_temp;

do $$
begin
  if current_setting('server_version_num')::int < 140000 then
    raise exception 'pgtrickle needs PostgreSQL 14 or newer; this server is %',
      current_setting('server_version')
      using hint = 'Upgrade the server first.';
  end if;
end $$;

-- Beside an extension. From 0.46 on, pg_trickle owns the schema pgtrickle with four functions and
-- three tables of names that are ours elsewhere, and leaves us the others: see
-- 338_stream_functions.sql and 340_public_views.sql. An extension that owns any other name of ours
-- (pg_trickle 0.28 to 0.45 has outboxes, inboxes and the relay's catalog of its own) leaves no room
-- for this installation.
do $$
declare
  owned record;
begin
  select e.extname, e.extversion, count(*) as n,
         (array_agg(o.name order by o.name))[1:5] as some,
         bool_or(o.owner = to_regrole('pgtrickle_owner')) as was_ours
  into owned
  from pg_depend d
  join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
  cross join lateral (
    select p.proname::text, p.pronamespace, p.proowner from pg_proc p
    where d.classid = 'pg_proc'::regclass and p.oid = d.objid
    union all
    select c.relname::text, c.relnamespace, c.relowner from pg_class c
    where d.classid = 'pg_class'::regclass and c.oid = d.objid) o (name, schema, owner)
  join pg_namespace n on n.oid = o.schema and n.nspname = 'pgtrickle'
  where d.deptype = 'e'
    and (o.name like E'relay\\_%' or o.name = any (array[
      'adopt_outbox', 'change_feeds', 'cleanup_change_feed', 'commit_offset',
      'consumer_heartbeat', 'consumer_lag', 'consumer_rows', 'consumer_snapshot', 'consumers',
      'create_change_feed', 'create_consumer_group', 'create_inbox', 'create_outbox',
      'create_publication', 'delete_relay', 'disable_outbox', 'disable_relay', 'drop_change_feed',
      'drop_consumer_group', 'drop_inbox', 'drop_publication', 'enable_inbox_tracking',
      'enable_outbox', 'enable_relay', 'extend_lease', 'get_relay_config', 'inbox_health',
      'inbox_mark_failed', 'inbox_mark_processed', 'inbox_payload_column', 'inbox_status',
      'list_relay_configs', 'my_change', 'outbox_capture_upkeep', 'outbox_full_refresh',
      'outbox_rows', 'outbox_rows_consumed', 'outbox_status', 'pause_relay', 'pgt_inbox_config',
      'pgt_stream_sources', 'poll_outbox', 'promote_stream_table', 'publish', 'rebind_outbox',
      'reject_offset', 'replay_inbox_messages', 'replay_relay', 'resume_relay', 'seek_offset',
      'set_relay', 'set_relay_inbox', 'set_relay_outbox', 'stream_tables_due', 'take_over_relay',
      'wait_for_consumer']))
  group by 1, 2 order by 1 limit 1;
  if found then
    raise exception 'extension % % owns names that pgtrickle-relay needs in schema pgtrickle: %',
        owned.extname, owned.extversion,
        array_to_string(owned.some, ', ') || case when owned.n > 5
          then format(' and %s more', owned.n - 5) else '' end
      using errcode = 'object_not_in_prerequisite_state',
            detail = 'Nothing was changed.',
            hint = case when owned.was_ours
              then 'The relay had installed them, and they were given to the extension: '
                   'pgtrickle-relay check names the statements that give them back.'
              else 'pg_trickle leaves these names to the relay from 0.46 on: install 0.46 or '
                   'newer, then ALTER EXTENSION pg_trickle UPDATE; and run init again. Or install '
                   'the relay into another database. docs/pg-trickle.md describes both.' end;
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Roles

-- Roles belong to the whole cluster: they may exist already, or an installation into another
-- database may be creating them at this moment.
do $$
declare
  ours constant text[] := array['pgtrickle_owner', 'pgtrickle_relay', 'pgtrickle_publisher',
                                'pgtrickle_consumer', 'pgtrickle_admin', 'pgtrickle_observer',
                                'pgtrickle_capture', 'pgtrickle_sandbox'];
  wanted text;
begin
  foreach wanted in array ours loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception
        when duplicate_object or unique_violation then
          null;
        when insufficient_privilege then
          raise exception 'role "%" may not create roles', current_user
            using errcode = 'insufficient_privilege',
                  hint = format('Let a superuser run: %s GRANT %s TO %I WITH ADMIN OPTION;', (
                    select string_agg(format('CREATE ROLE %I NOLOGIN;', o), ' ')
                    from unnest(ours) o
                    where not exists (select from pg_roles where rolname = o)),
                    array_to_string(ours, ', '), current_user);
      end;
    end if;
  end loop;
end $$;

-- An existing role of one of these names is accepted only if it gives no more rights than one that
-- is created here. The first four own functions that other roles call, superusers among them: a
-- member of one of them can do all that the callers can. So no member is accepted but the
-- installing role and superusers. (This holds for later installations as well: such a member could
-- have prepared what looks like an earlier one.)
do $$
declare
  ours constant text[] := array['pgtrickle_owner', 'pgtrickle_capture', 'pgtrickle_sandbox',
                                'pgtrickle_observer', 'pgtrickle_relay', 'pgtrickle_publisher',
                                'pgtrickle_consumer', 'pgtrickle_admin'];
  r record;
begin
  for r in
    select a.rolname, trim(concat_ws(' ', case when a.rolsuper then 'NOSUPERUSER' end,
      case when a.rolcreaterole then 'NOCREATEROLE' end,
      case when a.rolcreatedb then 'NOCREATEDB' end,
      case when a.rolreplication then 'NOREPLICATION' end,
      case when a.rolbypassrls then 'NOBYPASSRLS' end,
      case when a.rolcanlogin and a.rolname = any (ours[1:4]) then 'NOLOGIN' end)) as lacks
    from pg_roles a where a.rolname = any (ours)
  loop
    if r.lacks <> '' then
      raise exception 'role "%" has rights that it must not have', r.rolname
        using errcode = 'invalid_role_specification',
              hint = format('ALTER ROLE %I %s;', r.rolname, r.lacks);
    end if;
  end loop;

  for r in
    select a.rolname as member, b.rolname as role
    from pg_auth_members m
    join pg_roles a on a.oid = m.member
    join pg_roles b on b.oid = m.roleid
    where a.rolname in ('pgtrickle_capture', 'pgtrickle_sandbox')
  loop
    raise exception 'role "%" runs code of other roles, and must not be a member of "%"', r.member,
        r.role
      using errcode = 'invalid_role_specification',
            hint = format('REVOKE %I FROM %I;', r.role, r.member);
  end loop;

  for r in
    select distinct a.rolname as member, b.rolname as role
    from pg_auth_members m
    join pg_roles a on a.oid = m.member
    join pg_roles b on b.oid = m.roleid
    where b.rolname = any (ours[1:4]) and not a.rolsuper and a.rolname <> all (ours[1:4])
      and a.rolname <> current_user
  loop
    raise exception 'role "%" is a member of "%"', r.member, r.role
      using errcode = 'invalid_role_specification',
            detail = 'It could do here all that the callers of pgtrickle''s functions can.',
            hint = format('REVOKE %I FROM %I CASCADE; or install as that role. It can be granted '
                          'again afterwards.', r.role, r.member);
  end loop;
end $$;

-- Handing objects to a role takes membership in it; a superuser has it anyway.
-- after/900_ownership.sql takes back what is not needed afterwards. pgtrickle_owner writes the
-- functions of pgtrickle_capture, and administrators may do what the relay, publishers and
-- consumers may. From PostgreSQL 16 on, CREATEROLE lets a role grant only roles that it has created.
do $$
declare
  wanted record;
  lacking text[] := '{}';
begin
  for wanted in
    select v.role, v.member
    from (values ('pgtrickle_owner', current_user), ('pgtrickle_observer', current_user),
                 ('pgtrickle_capture', current_user), ('pgtrickle_sandbox', current_user),
                 ('pgtrickle_capture', 'pgtrickle_owner'), ('pgtrickle_relay', 'pgtrickle_admin'),
                 ('pgtrickle_publisher', 'pgtrickle_admin'),
                 ('pgtrickle_consumer', 'pgtrickle_admin')) as v (role, member)
    where case
      when v.member <> current_user then not exists (
        select from pg_auth_members m
        where m.roleid = to_regrole(v.role) and m.member = to_regrole(v.member))
      when current_setting('server_version_num')::int < 160000
        then not pg_has_role(v.role, 'USAGE')
      else not (pg_has_role(v.role, 'USAGE') and pg_has_role(v.role, 'SET')) end
  loop
    begin
      execute format('grant %I to %I', wanted.role, wanted.member);
    exception when insufficient_privilege then
      lacking := lacking || wanted.role::text;
    end;
  end loop;
  if lacking <> '{}' then
    raise exception 'role "%" may not grant %', current_user, array_to_string(lacking, ', ')
      using errcode = 'insufficient_privilege',
            detail = 'Another role created them. This installation has to become a member of some '
                     'and to grant some to others.',
            hint = format('Let a superuser run: GRANT %s TO %I WITH ADMIN OPTION;', (
              select string_agg(distinct l, ', ') from unnest(lacking) l), current_user);
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Schemas

create schema if not exists pgtrickle authorization pgtrickle_owner;
create schema if not exists pgtrickle_internal authorization pgtrickle_owner;
create schema if not exists pgtrickle_json authorization pgtrickle_owner;
create schema if not exists pgtrickle_gate authorization pgtrickle_owner;
create schema if not exists pgtrickle_streams authorization pgtrickle_owner;
create schema if not exists pgtrickle_changes authorization pgtrickle_owner;

-- Schemas that exist already: one of a role that is not trusted could hold objects that this
-- installation would run or take over, and so could a trusted one in which other roles may create.
-- (In pgtrickle_streams, and in pgtrickle_changes beside pg_trickle, other roles have objects of their
-- own; none of them is taken over.)
do $$
declare
  trusted constant oid[] := array(
    select r.oid from pg_roles r
    where r.rolsuper or r.rolname = current_user
       or r.rolname in ('pgtrickle_owner', 'pgtrickle_observer', 'pgtrickle_capture',
                        'pgtrickle_sandbox'));
  s record;
  named text;
begin
  for s in
    select n.oid, n.nspname as name, n.nspowner as owner, n.nspacl as acl,
           exists (select from pg_depend d
                   where d.classid = 'pg_namespace'::regclass and d.objid = n.oid
                     and d.deptype = 'e') as of_extension
    from pg_namespace n
    where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_json', 'pgtrickle_gate',
                        'pgtrickle_streams', 'pgtrickle_changes')
  loop
    if s.owner <> all (trusted) and not s.of_extension then
      raise exception 'schema "%" belongs to role "%"', s.name, pg_get_userbyid(s.owner)
        using errcode = 'insufficient_privilege',
              detail = 'It must belong to a superuser, to pgtrickle_owner, to the installing role '
                       'or to an extension: its owner could act with the rights of this '
                       'installation.',
              hint = format('See what is in it, then DROP SCHEMA %I CASCADE; or rename it.',
                            s.name);
    end if;

    continue when s.name in ('pgtrickle_streams', 'pgtrickle_changes');
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
      select 'pg_proc'::regclass, p.oid, p.proowner from pg_proc p where p.pronamespace = s.oid
      union all
      select 'pg_type'::regclass, t.oid, t.typowner from pg_type t
      where t.typnamespace = s.oid and t.typrelid = 0 and t.typelem = 0
      union all
      select 'pg_operator'::regclass, o.oid, o.oprowner from pg_operator o
      where o.oprnamespace = s.oid
      union all
      select 'pg_collation'::regclass, c.oid, c.collowner from pg_collation c
      where c.collnamespace = s.oid
      union all
      select 'pg_opclass'::regclass, c.oid, c.opcowner from pg_opclass c
      where c.opcnamespace = s.oid
      union all
      select 'pg_conversion'::regclass, c.oid, c.conowner from pg_conversion c
      where c.connamespace = s.oid) o
    where o.owner <> all (trusted)
      and not exists (select from pg_depend d
                      where d.classid = o.class and d.objid = o.id and d.deptype = 'e');
    if named is not null then
      raise exception 'schema "%" holds objects of other roles: %', s.name, named
        using errcode = 'insufficient_privilege',
              detail = 'This installation could run them, or take them for its own.',
              hint = 'Drop them, or move them to another schema.';
    end if;
  end loop;
end $$;

-- The owner of an extension's schema has to let the installing role create in it, and give others
-- the right to.
do $$
begin
  if exists (select from pg_depend d
             where d.classid = 'pg_namespace'::regclass and d.deptype = 'e'
               and d.objid = 'pgtrickle'::regnamespace)
     and not (has_schema_privilege('pgtrickle', 'CREATE WITH GRANT OPTION')
              and has_schema_privilege('pgtrickle', 'USAGE WITH GRANT OPTION')) then
    raise exception 'schema "pgtrickle" belongs to an extension, and role "%" may not create in it '
        'and grant that right', current_user
      using errcode = 'insufficient_privilege',
            hint = format('Let %s run: GRANT USAGE, CREATE ON SCHEMA pgtrickle TO %I WITH GRANT '
                          'OPTION;', (select n.nspowner::regrole from pg_namespace n
                                      where n.nspname = 'pgtrickle'), current_user);
  end if;
end $$;

-- Remembers which objects exist already. The installing role's default privileges may give other
-- roles rights on new objects; after/900_ownership.sql revokes those.
do $$
begin
  perform set_config('pgtrickle.objects_before', array(
    select c.oid from pg_class c
    where c.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
    union all
    select p.oid from pg_proc p
    where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace,
                             'pgtrickle_json'::regnamespace, 'pgtrickle_gate'::regnamespace)
  )::text, false);
end $$;

create table if not exists pgtrickle.relay_schema_history (
  file         text primary key,
  checksum     text not null,
  version      int not null,
  installed_at timestamptz not null default clock_timestamp()
);

-- Only one installation runs at a time. It locks a table of ours, not an advisory lock: any role may
-- take an advisory lock, and could block every installation with it.
do $$
begin
  lock table pgtrickle.relay_schema_history in share row exclusive mode;
end $$;

do $$
declare
  named text;
begin
  foreach named in array array['pgtrickle', 'pgtrickle_internal', 'pgtrickle_json',
                               'pgtrickle_gate', 'pgtrickle_streams'] loop
    if (select nspowner from pg_namespace where nspname = named) <> 'pgtrickle_owner'::regrole
       and not exists (select from pg_depend
                       where classid = 'pg_namespace'::regclass and deptype = 'e'
                         and objid = (select oid from pg_namespace where nspname = named)) then
      execute format('alter schema %I owner to pgtrickle_owner', named);
    end if;
  end loop;
end $$;

-- Rights on functions are given anew each time: those that an earlier version gave, and this one
-- does not, end here. (The functions that outboxes have of their own are not ours to grant; those that
-- begin with _ are of a version before migrations, see migrations/0002_internal_schema.sql.)
do $$
declare
  r record;
begin
  for r in
    select p.oid::regprocedure as name, g.grantee::regrole as role
    from pg_proc p
    cross join lateral (select distinct a.grantee from aclexplode(p.proacl) a
                        where a.grantee <> p.proowner and a.grantee <> 0) g
    where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      and p.proname !~ '^capture_[0-9]'
      and (p.pronamespace <> 'pgtrickle'::regnamespace or p.proname !~ '^_')
      and pg_get_userbyid(g.grantee) like E'pgtrickle\\_%'
      and not exists (select from pg_depend d
                      where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                        and d.deptype = 'e')
  loop
    execute format('revoke all on routine %s from %s', r.name, r.role);
  end loop;
end $$;

grant usage, create on schema pgtrickle, pgtrickle_internal to pgtrickle_owner;
grant usage on schema pgtrickle to pgtrickle_relay, pgtrickle_publisher, pgtrickle_consumer,
  pgtrickle_admin, pgtrickle_capture;
grant usage on schema pgtrickle_internal to pgtrickle_relay, pgtrickle_consumer, pgtrickle_admin,
  pgtrickle_capture, pgtrickle_observer;

do $$
begin
  if not exists (select from pg_depend d
                 where d.classid = 'pg_namespace'::regclass and d.deptype = 'e'
                   and d.objid = 'pgtrickle'::regnamespace) then
    comment on schema pgtrickle is 'Outboxes, stream tables and relay pipelines (pgtrickle-relay)';
  end if;
end $$;
comment on schema pgtrickle_internal is
  'What pgtrickle-relay uses itself; nothing here is for users';

comment on table pgtrickle.relay_schema_history is
  'Which file of the database side was installed when, with its checksum';

-- pgtrickle_streams holds functions and work tables of other roles, pgtrickle_gate the gate alone.
revoke all on schema pgtrickle_streams, pgtrickle_gate from public;
grant usage, create on schema pgtrickle_streams to pgtrickle_owner, pgtrickle_admin;
grant usage on schema pgtrickle_streams to pgtrickle_sandbox;
grant usage, create on schema pgtrickle_gate to pgtrickle_owner;
comment on schema pgtrickle_streams is
  'Functions and work tables that belong to the owners of stream tables, inboxes and outboxes';
comment on schema pgtrickle_gate is
  'The gate through which the functions in pgtrickle_streams are called';

revoke all on schema pgtrickle_json from public, pgtrickle_capture;
grant usage on schema pgtrickle_json to public;
comment on schema pgtrickle_json is
  'Pure functions that write rows as JSON, for every role (pgtrickle-relay)';

-- pg_trickle may own this schema: it keeps the changes of its sources there.
do $$
begin
  grant usage, create on schema pgtrickle_changes to pgtrickle_owner;
  grant usage on schema pgtrickle_changes to public;
exception when insufficient_privilege then
  raise notice 'schema pgtrickle_changes belongs to another role: change feeds cannot be made until '
    'it has run GRANT USAGE, CREATE ON SCHEMA pgtrickle_changes TO pgtrickle_owner';
end $$;

-- The numbered changes of tables that were made (sql/migrations). Each is made once.
create table if not exists pgtrickle_internal.migrations (
  number     int primary key,
  name       text not null,
  checksum   text not null,
  program    text not null,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table pgtrickle_internal.migrations is
  'Which migration was applied when, by which version of the program, with its checksum';
