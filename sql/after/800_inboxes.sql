-- Inboxes of earlier versions: which table each one is, which tables are ours, and the functions
-- that work on the others as their owners.

update pgtrickle.pgt_inbox_config c
set relation = pgtrickle_internal.inbox_relation(c)
where c.relation is null;

-- Tables in the schema pgtrickle are handed to pgtrickle_owner (900_ownership.sql): the function that
-- worked on one with its former owner's rights is not needed any more.
do $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  for inbox in
    select c.*
    from pgtrickle.pgt_inbox_config c
    join pg_catalog.pg_class r on r.oid = c.relation
    where r.relnamespace = 'pgtrickle'::regnamespace
      and (r.relowner <> 'pgtrickle_owner'::regrole or c.gate_function is not null)
      and pgtrickle_internal.inbox_foreign_part(c.relation) is null
  loop
    begin
      perform pgtrickle_internal.own_and_grant(inbox.relation);
      update pgtrickle.pgt_inbox_config c set gate_function = null
      where c.inbox_name = inbox.inbox_name;
      perform pgtrickle_internal.gate_drop(inbox.gate_function);
    exception when insufficient_privilege then
      raise notice 'inbox "%" cannot be used: %', inbox.inbox_name, sqlerrm;
    end;
  end loop;
end $$;

-- A table of pgtrickle_owner in the schema pgtrickle is ours where it holds nothing that is not,
-- and has the columns that tell an inbox from our other tables.
insert into pgtrickle_internal.inbox_tables
select c.relation
from pgtrickle.pgt_inbox_config c
join pg_catalog.pg_class r on r.oid = c.relation
where c.table_schema = 'pgtrickle' and r.relowner = 'pgtrickle_owner'::regrole
  and c.columns @> '{"event_id": "event_id", "payload": "payload"}'
  and pgtrickle_internal.inbox_foreign_part(c.relation) is null
on conflict do nothing;

-- The owner of another table agreed to it being an inbox when pgtrickle_owner was allowed to write
-- to it. What pgtrickle_owner was allowed then, it needs no more. Where the installing role may not
-- act for that owner, the inbox is refused until the owner, or a superuser, enables it again; it is
-- named here, in inbox_health, in inbox_status and by housekeeping.
do $$
declare
  inbox pgtrickle.pgt_inbox_config;
  remedy text;
begin
  for inbox in
    select c.*
    from pgtrickle.pgt_inbox_config c
    join pg_catalog.pg_class r on r.oid = c.relation
    cross join pg_catalog.aclexplode(r.relacl) a
    where c.gate_function is null and r.relowner <> 'pgtrickle_owner'::regrole
      and a.grantee = 'pgtrickle_owner'::regrole and a.privilege_type = 'UPDATE'
  loop
    begin
      inbox.gate_function := pgtrickle_internal.make_inbox_function(inbox);
      update pgtrickle.pgt_inbox_config c set gate_function = inbox.gate_function
      where c.inbox_name = inbox.inbox_name;
      execute pg_catalog.format('revoke select, update, delete on %s from pgtrickle_owner',
                                inbox.relation);
    exception when insufficient_privilege then
      remedy := (pgtrickle_internal.inbox_problem(inbox)).remedy;
      raise notice 'inbox "%" cannot be used: %', inbox.inbox_name, sqlerrm using hint = remedy;
    end;
  end loop;
end $$;

-- What works on a table as its owner is that of this version where the installing role may act for
-- that owner. Elsewhere it goes on as it was, and inbox_health says so.
do $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  for inbox in
    select c.*
    from pgtrickle.pgt_inbox_config c
    join pg_catalog.pg_class r on r.oid = c.relation
    where pgtrickle_internal.inbox_is_outdated(c) and r.oid = pgtrickle_internal.inbox_relation(c)
      and r.relowner = pgtrickle_internal.gate_owner(c.gate_function)
  loop
    begin
      perform pgtrickle_internal.make_inbox_function(inbox);
    exception when insufficient_privilege then
      raise notice 'inbox "%" works as by an earlier version: %', inbox.inbox_name, sqlerrm
        using hint = pgtrickle_internal.inbox_enabling(inbox);
    end;
  end loop;
end $$;
