-- What an extension and this installation have of each other, for relay_check. An extension that is
-- made over this installation fails at the first name that both have, and changes nothing; but
-- objects can be given to it (ALTER EXTENSION ... ADD), and DROP EXTENSION drops what it owns.
create or replace function pgtrickle_internal.check_beside()
returns table (pipeline text, severity text, message text, remedy text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select null::text, 'problem'::text,
         format('%s belongs to extension %s: DROP EXTENSION would drop it, and init does not '
                'replace it', o.what, e.extname),
         format('ALTER EXTENSION %I DROP %s; then pgtrickle-relay init', e.extname, o.what)
  from (
    select d.refobjid as extension, format('FUNCTION %s', p.oid::regprocedure) as what
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
      and n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_json', 'pgtrickle_gate')
    join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    where p.proowner in ('pgtrickle_owner'::regrole, 'pgtrickle_capture'::regrole,
                         'pgtrickle_sandbox'::regrole, 'pgtrickle_observer'::regrole)
    union all
    select d.refobjid, format('%s %s', case c.relkind when 'v' then 'VIEW' else 'TABLE' end,
                              c.oid::regclass)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
      and n.nspname in ('pgtrickle', 'pgtrickle_internal')
    join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    where c.relowner = 'pgtrickle_owner'::regrole and c.relkind in ('r', 'p', 'v')) o
  join pg_extension e on e.oid = o.extension
  union all
  select null::text, 'problem'::text,
         format('function %s is there twice, once of extension %s: calls are ambiguous', p.proname,
                string_agg(distinct e.extname, ', ')),
         'install again: pgtrickle-relay init'::text
  from pg_proc p
  join pg_proc q on q.pronamespace = p.pronamespace and q.proname = p.proname and q.oid <> p.oid
  join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = q.oid and d.deptype = 'e'
  join pg_extension e on e.oid = d.refobjid
  where p.pronamespace = (select n.oid from pg_namespace n where n.nspname = 'pgtrickle')
    and p.proowner = 'pgtrickle_owner'::regrole
    and p.proname in ('create_stream_table', 'alter_stream_table', 'drop_stream_table',
                      'refresh_stream_table', 'promote_stream_table')
    and not exists (select from pg_depend m
                    where m.classid = 'pg_proc'::regclass and m.objid = p.oid and m.deptype = 'e')
  group by p.proname;
end $$;
