-- Outboxes of earlier versions.

-- The first version let pgtrickle_owner read tables of users.
do $$
declare
  granted record;
begin
  for granted in
    select format('%I.%I', n.nspname, c.relname) as name
    from pgtrickle_internal.outbox_config o
    cross join lateral pgtrickle_internal.capture_places(o.stream_table_oid) p
    join pg_catalog.pg_class c on c.oid = p.rel
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    cross join lateral aclexplode(c.relacl) a
    where o.kind = 'table' and a.grantee = 'pgtrickle_owner'::regrole
      and a.privilege_type = 'SELECT'
  loop
    begin
      execute format('revoke select on %s from pgtrickle_owner', granted.name);
    exception when insufficient_privilege then
      raise notice 'REVOKE SELECT ON % FROM pgtrickle_owner; is for its owner: it is needed no more',
        granted.name;
    end;
  end loop;
end $$;

-- Functions that read tables as their owners, where they look for capture functions under a former
-- name, were made with another secret of the gate, or cannot read pages. Where the installing role may not act for the
-- owner, the outbox records on, and its `problem` says what the owner can do.
do $$
declare
  outbox record;
begin
  for outbox in
    select c.outbox_number as number, c.stream_table_oid::regclass as source
    from pgtrickle_internal.outbox_config c
    join pg_catalog.pg_class r on r.oid = c.stream_table_oid
    left join pg_catalog.pg_proc p on p.proname = c.reader
      and p.pronamespace = 'pgtrickle_streams'::regnamespace
    where (c.kind = 'table' and p.prosrc ~ '_capture_[0-9]')
       or (c.kind = 'table' and strpos(p.prosrc, pgtrickle_internal.gate_seal(c.reader)) = 0)
       or (c.kind = 'table' and p.prosrc !~ '''beyond''')
       or (c.kind = 'stream_table' and p.prosrc is null)
  loop
    begin
      perform pgtrickle_internal.outbox_make_reader(outbox.number, outbox.source);
    exception when insufficient_privilege then
      raise notice 'the rows of % cannot be read anew until its owner has called '
                   'outbox_full_refresh()', outbox.source;
    end;
  end loop;
end $$;
