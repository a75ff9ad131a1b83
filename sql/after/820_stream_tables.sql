-- Stream tables of earlier versions: the functions that refresh them call stream_work() by the name
-- that it had. Where the installing role may not act for the owner, drop_superseded() leaves something
-- of that name behind.
do $$
declare
  refresh record;
begin
  for refresh in
    select p.oid, s.pgt_schema, s.pgt_name
    from pgtrickle_internal.stream_tables s
    join pg_catalog.pg_proc p on p.proname = 'refresh_' || s.pgt_id
      and p.pronamespace = 'pgtrickle_streams'::regnamespace and p.proowner = s.pgt_owner
    join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    where p.pronargdefaults = 0 and p.prosupport = 0 and not p.proleakproof and p.prosecdef
      and p.prosrc ~ E'^\\s*begin\\s+return query select \\* from pgtrickle\\._stream_work\\('
  loop
    begin
      execute replace(pg_catalog.pg_get_functiondef(refresh.oid),
                      'return query select * from pgtrickle._stream_work(',
                      'return query select * from pgtrickle_internal.stream_work(');
    exception when insufficient_privilege then
      raise notice 'stream table %.% is refreshed as by an earlier version: %', refresh.pgt_schema,
          refresh.pgt_name, sqlerrm
        using hint = 'A superuser who runs init changes that.';
    end;
  end loop;
end $$;
