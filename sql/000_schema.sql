-- The ground that everything else stands on: the schema pgtrickle, the roles, the record of what
-- is installed, and how a table that is made later gets its owner and its grants.
--
-- Run by a superuser, or by a role with CREATEROLE that may CREATE in this database. Every file
-- may be run again at any time. Objects may belong to whoever installs until the last file
-- (900_grants.sql) hands all of them to pgtrickle_owner and sets every privilege.

do $$
begin
  if current_setting('server_version_num')::int < 140000 then
    raise exception 'pgtrickle needs PostgreSQL 14 or newer; this server is %',
      current_setting('server_version')
      using hint = 'Upgrade the server first.';
  end if;
end $$;

-- Roles belong to the whole cluster: they may be there already, or be made at this very moment by
-- an installation into another database.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['pgtrickle_owner', 'pgtrickle_capture', 'pgtrickle_relay',
                                'pgtrickle_publisher', 'pgtrickle_admin',
                                'pgtrickle_observer'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception when duplicate_object or unique_violation then
        null;
      end;
    end if;
  end loop;

  -- Handing objects to a role takes membership in it; a superuser has it anyway.
  foreach wanted in array array['pgtrickle_owner', 'pgtrickle_capture', 'pgtrickle_observer'] loop
    if not pg_catalog.pg_has_role(current_user, wanted, 'USAGE') then
      begin
        execute format('grant %I to %I', wanted, current_user);
      exception when insufficient_privilege then
        raise exception 'role "%" may not become a member of "%"', current_user, wanted
          using errcode = 'insufficient_privilege',
                hint = format('Let an administrator run: GRANT %I TO %I WITH ADMIN OPTION;',
                              wanted, current_user);
      end;
    end if;
  end loop;
end $$;

create schema if not exists pgtrickle;

do $$
begin
  if not exists (select from pg_catalog.pg_depend
                 where classid = 'pg_catalog.pg_namespace'::regclass
                   and objid = 'pgtrickle'::regnamespace
                   and deptype = 'e')
     and (select nspowner from pg_catalog.pg_namespace where nspname = 'pgtrickle')
         <> 'pgtrickle_owner'::regrole then
    alter schema pgtrickle owner to pgtrickle_owner;
  end if;
end $$;

grant usage, create on schema pgtrickle to pgtrickle_owner;
grant usage on schema pgtrickle to pgtrickle_relay, pgtrickle_publisher, pgtrickle_admin,
  pgtrickle_capture;
-- pgtrickle_owner writes the functions of pgtrickle_capture.
grant pgtrickle_capture to pgtrickle_owner;

comment on schema pgtrickle is
  'Outboxes, stream tables and relay pipelines (pgtrickle-relay)';

create table if not exists pgtrickle.relay_schema_history (
  file         text primary key,
  checksum     text not null,
  version      int not null,
  installed_at timestamptz not null default clock_timestamp()
);

comment on table pgtrickle.relay_schema_history is
  'Which file of the database side was installed when, with its checksum';

-- What is done by one transaction at a time. A row here is locked, not an advisory lock: any role
-- may take an advisory lock, and could keep everybody out with it.
create table if not exists pgtrickle._locks (name text primary key);
comment on table pgtrickle._locks is
  'One row for each thing that one transaction at a time may do; locked by _lock and _try_lock';
insert into pgtrickle._locks values ('housekeeping') on conflict do nothing;

-- Waits until no other transaction holds the lock of that name, and holds it until the end of this
-- one.
create or replace function pgtrickle._lock(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgtrickle._locks values (_lock.name) on conflict do nothing;
  perform from pgtrickle._locks l where l.name = _lock.name for update;
end $$;

-- The same without waiting, for a name that is in the table: false where another transaction holds
-- the lock.
create or replace function pgtrickle._try_lock(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgtrickle._locks l where l.name = _try_lock.name for update skip locked;
  return found;
end $$;

-- Gives a relation of ours to pgtrickle_owner and lets the daemon and administrators read it, and
-- the sequences of its columns (pg_sequence_last_value asks for that). For tables and views that
-- are made at run time: outboxes, their claim-check rows, stream tables' side tables. The caller
-- owns the relation, or is a superuser. Doing it twice changes nothing.
create or replace function pgtrickle._own_and_grant(rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  seq regclass;
begin
  execute format('revoke all on %s from public', rel);
  execute format('grant select on %s to pgtrickle_relay, pgtrickle_admin', rel);
  for seq in
    select d.objid::regclass
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid = rel and d.deptype in ('a', 'i')
  loop
    execute format('revoke all on sequence %s from public', seq);
    execute format('grant select on sequence %s to pgtrickle_relay, pgtrickle_admin', seq);
  end loop;
  if (select relowner from pg_class where oid = rel) <> 'pgtrickle_owner'::regrole then
    execute format('alter table %s owner to pgtrickle_owner', rel);
  end if;
end $$;
