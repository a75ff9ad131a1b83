-- From here on this installation waits for no lock for long: a transaction that has used one of our
-- tables, and stays open, must not make all others queue behind this one. It gives up sooner than
-- PostgreSQL looks for deadlocks, so that of two that wait for each other it is this installation
-- that fails, and never a statement of an application. `init` then begins again.
do $$
begin
  perform set_config('lock_timeout', concat(least(200, (
    select greatest(s.setting::int / 2, 1) from pg_settings s where s.name = 'deadlock_timeout')), 'ms'), true);
end $$;
