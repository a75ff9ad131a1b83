-- Capture of the first version does not know the + with which a statement of this version begins its
-- note (212_outbox_order.sql). A session learns of replaced functions one after the other, so it may run
-- the one that begins a statement in this version, and the one that ends it in the first. This comes
-- before all that this installation replaces, and sessions learn of it in that order.
do $$
declare
  reader record;
begin
  for reader in
    select pg_catalog.pg_get_functiondef(p.oid) as definition
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'pgtrickle' and p.proname = '_notes_read'
      and pg_catalog.strpos(p.prosrc, 'ltrim(') = 0
  loop
    execute pg_catalog.regexp_replace(
      reader.definition, 'current_setting\(''pgtrickle_capture[^)]*\)', 'ltrim(\&, ''+'')');
  end loop;
end $$;
