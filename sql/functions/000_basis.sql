-- What the other files build on: locks by name, and how a relation that is made at run time gets its
-- owner and its grants.

-- Remembers the functions that there are, so that after/850_superseded.sql can tell which of them no
-- file has created again.
do $$
begin
  perform set_config('pgtrickle.functions_before', array(
    select concat(p.oid, ' ', p.ctid) from pg_catalog.pg_proc p
    where p.pronamespace in ('pgtrickle_internal'::regnamespace, 'pgtrickle_json'::regnamespace,
                             'pgtrickle_gate'::regnamespace))::text, false);
end $$;

-- Waits until no other transaction holds the lock of that name, and holds it until the end of this
-- one.
create or replace function pgtrickle_internal.lock(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  loop
    insert into pgtrickle_internal.locks values (lock.name) on conflict do nothing;
    perform from pgtrickle_internal.locks l where l.name = lock.name for update;
    exit when found;  -- else the row has just been deleted
  end loop;
end $$;

-- The same without waiting, for a name that is in the table: false where another transaction holds
-- the lock.
create or replace function pgtrickle_internal.try_lock(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgtrickle_internal.locks l where l.name = try_lock.name for update skip locked;
  return found;
end $$;

-- Gives a relation of ours to pgtrickle_owner and lets the daemon and administrators read it, and
-- the sequences of its columns (pg_sequence_last_value asks for that). For tables and views that
-- are made at run time: outboxes, their claim-check rows, stream tables' side tables. The caller
-- owns the relation, or is a superuser. Doing it twice changes nothing. PUBLIC loses what default
-- privileges gave it on a new relation, and keeps what an administrator gave it later.
create or replace function pgtrickle_internal.own_and_grant(rel regclass,
                                                            is_new boolean default true)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  seq regclass;
begin
  if is_new then
    execute format('revoke all on %s from public', rel);
  end if;
  execute format('grant select on %s to pgtrickle_relay, pgtrickle_admin', rel);
  for seq in
    select d.objid::regclass
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid = rel and d.deptype in ('a', 'i')
  loop
    if is_new then
      execute format('revoke all on sequence %s from public', seq);
    end if;
    execute format('grant select on sequence %s to pgtrickle_relay, pgtrickle_admin', seq);
  end loop;
  if (select relowner from pg_class where oid = rel) <> 'pgtrickle_owner'::regrole then
    execute format('alter table %s owner to pgtrickle_owner', rel);
  end if;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function pgtrickle_internal.lock(text) to pgtrickle_admin;
