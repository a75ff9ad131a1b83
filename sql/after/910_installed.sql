-- What is installed now, for the check that it still is: see 500_relay_check.sql.
delete from pgtrickle_internal.installed_functions i
where not exists (select from pgtrickle_internal.functions_now() n where n.name = i.name);

insert into pgtrickle_internal.installed_functions as i (name, digest)
select n.name, n.digest from pgtrickle_internal.functions_now() n
on conflict (name) do update set digest = excluded.digest where i.digest <> excluded.digest;
