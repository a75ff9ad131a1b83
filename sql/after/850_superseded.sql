-- Functions of ours that no file creates any more. A statement that began before this may still call
-- them: drop_superseded() drops them when it has ended. Functions of extensions and of other roles are
-- not ours, and those that outboxes have of their own are made and dropped with the outboxes.
do $$
declare
  before constant text[] := current_setting('pgtrickle.functions_before', true)::text[];
begin
  insert into pgtrickle_internal.superseded (object)
  select 'function ' || p.oid::regprocedure
  from pg_catalog.pg_proc p
  where p.pronamespace in ('pgtrickle_internal'::regnamespace, 'pgtrickle_json'::regnamespace,
                           'pgtrickle_gate'::regnamespace)
    and p.proname !~ '^capture_[0-9]+_'
    and concat(p.oid, ' ', p.ctid) = any (before)
    and pg_get_userbyid(p.proowner) in ('pgtrickle_owner', 'pgtrickle_capture',
                                        'pgtrickle_observer', 'pgtrickle_sandbox')
    and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
                      and d.deptype = 'e')
  on conflict do nothing;

  -- What an interrupted upgrade left to be dropped, and this version creates again.
  delete from pgtrickle_internal.superseded s
  where exists (
    select from pg_catalog.pg_proc p
    where s.object = 'function ' || p.oid::regprocedure
      and p.pronamespace in ('pgtrickle_internal'::regnamespace, 'pgtrickle_json'::regnamespace,
                             'pgtrickle_gate'::regnamespace)
      and concat(p.oid, ' ', p.ctid) <> all (before));
end $$;
