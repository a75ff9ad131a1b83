-- What is wrong in this database, for `pgtrickle-relay check`. Nothing here changes anything.

-- The functions as init left them, so that one that is missing or was replaced is seen.
create table if not exists pgtrickle._installed_functions (
  name   text primary key,
  digest text not null
);
comment on table pgtrickle._installed_functions is
  'The functions that init installed, with a digest of each; written by init';

-- The functions of the database side as they are now. Those that outboxes and stream tables have of
-- their own are made by functions, not by init.
create or replace function pgtrickle._functions_now() returns table (name text, digest text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.oid::regprocedure::text,
         md5(row(p.prosrc, p.prosecdef, p.proconfig, pg_get_userbyid(p.proowner),
                 pg_get_function_result(p.oid))::text)
  from pg_proc p
  where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_json'::regnamespace,
                           'pgtrickle_gate'::regnamespace)
    and p.proname !~ '^_capture_[0-9]'
    and not exists (select from pg_depend d
                    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e');
$$;

-- What the functions of `init` became since.
create or replace function pgtrickle._check_functions()
returns table (pipeline text, severity text, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select null, 'problem',
         case when n.name is null then format('function %s is missing', i.name)
              else format('function %s is not the one that was installed', i.name) end,
         'install it again: pgtrickle-relay init'
  from pgtrickle._installed_functions i
  left join pgtrickle._functions_now() n on n.name = i.name
  where n.digest is distinct from i.digest
  order by i.name;
$$;

-- Whether this server takes writes, and what its settings mean for transactions. The relay's own
-- sessions have another isolation level than these, so what was set is looked up.
create or replace function pgtrickle._check_server()
returns table (pipeline text, severity text, message text, remedy text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select null, 'problem', 'this server is a standby: nothing can be written here',
         'name the primary in the URL, or all hosts with target_session_attrs=read-write'
  where pg_is_in_recovery()
  union all
  select null, 'warning',
         format('transactions are %s by default%s: the relay uses read committed all the same, but '
                'applications that write to a captured table may have to repeat transactions',
                split_part(c.setting, '=', 2),
                case when s.setrole <> 0 then ' for ' || s.setrole::regrole end),
         format('ALTER %s RESET default_transaction_isolation, where that was not meant',
                case when s.setrole <> 0 then 'ROLE' else 'DATABASE' end)
  from pg_db_role_setting s
  cross join lateral unnest(s.setconfig) c (setting)
  where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
    and c.setting like E'default\\_transaction\\_isolation=%'
    and c.setting not like '%=read committed' and c.setting not like '%=read uncommitted';
$$;

-- Outboxes that are gone, that record wrongly, or that the role may not read; positions beyond what an
-- outbox ever held.
create or replace function pgtrickle._check_outboxes(relay_role name)
returns table (pipeline text, severity text, message text, remedy text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox pgtrickle.pgt_outbox_config;
  rel regclass;
  sequence regclass;
begin
  for outbox in select * from pgtrickle.pgt_outbox_config c order by c.outbox_table_name loop
    rel := to_regclass(format('pgtrickle.%I', outbox.outbox_table_name));
    if rel is null then
      return query select null::text, 'problem',
        format('outbox %s is gone: its table was dropped', outbox.outbox_table_name),
        format('make it anew: SELECT pgtrickle.disable_outbox(%1$L); SELECT '
               'pgtrickle.enable_outbox(%1$L);', outbox.stream_table_name);
      continue;
    end if;
    if not has_table_privilege(relay_role, rel, 'select') then
      return query select null::text, 'problem',
        format('the role %s may not read %s', relay_role, rel),
        format('GRANT SELECT ON %s TO pgtrickle_relay;', rel);
    end if;
    if outbox.problem is not null then
      return query
        select o.pipeline_id, 'problem',
               format('outbox %s: %s', outbox.outbox_table_name, outbox.problem), ''
        from (values (1)) one (n)
        left join (select distinct o.pipeline_id from pgtrickle.relay_consumer_offsets o
                   where o.incarnation = outbox.incarnation) o on true
        order by 1;
    end if;
    if outbox.source_dropped_at is not null then
      return query select null::text, 'warning',
        format('the table of outbox %s was dropped at %s: what was recorded until then is delivered',
               outbox.outbox_table_name, date_trunc('second', outbox.source_dropped_at)),
        'make the table again, or let the outbox go with its last row'::text;
    end if;
    sequence := to_regclass(outbox.outbox_sequence);
    return query
      select o.pipeline_id, 'problem',
             format('its position %s is beyond the newest row of %s, %s: rows were lost by a '
                    'failover or a restore', o.last_change_id, outbox.outbox_table_name, n.newest),
             format('pgtrickle-relay pipelines resume %s --accept-loss', o.pipeline_id)
      from (select pgtrickle._last_drawn(sequence) as newest where sequence is not null) n
      join pgtrickle.relay_consumer_offsets o
        on o.incarnation = outbox.incarnation and o.last_change_id > n.newest
      order by 1;
  end loop;
end $$;

-- Inboxes whose table is gone, stream tables that cannot be refreshed, dead letters, and whether a
-- relay is running.
create or replace function pgtrickle._check_work()
returns table (pipeline text, severity text, message text, remedy text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select null, 'problem', format('the table of inbox %s is gone: %I.%I', i.inbox_name,
                                 i.table_schema, i.table_name),
         format('SELECT pgtrickle.drop_inbox(%L); a pipeline that names it makes it again',
                i.inbox_name)
  from pgtrickle.pgt_inbox_config i
  where not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                    where n.nspname = i.table_schema and c.relname = i.table_name)
  union all
  select null, 'problem',
         format('stream table %I.%I %s: %s', s.pgt_schema, s.pgt_name,
                case s.status when 'SUSPENDED' then 'is suspended' else 'fails to refresh' end,
                coalesce(s.last_error, 'on request')),
         format('SELECT pgtrickle.refresh_stream_table(%L) shows the error; resume it with '
                'alter_stream_table', format('%I.%I', s.pgt_schema, s.pgt_name))
  from pgtrickle.pgt_stream_tables s
  where s.status = 'SUSPENDED' or s.consecutive_errors > 0
  union all
  select d.pipeline, 'problem',
         format('%s messages are in the dead letters, the last since %s: %s', count(*),
                date_trunc('second', max(d.last_failed_at)),
                (array_agg(d.error_message order by d.last_failed_at desc))[1]),
         format('pgtrickle-relay dlq list %s, then retry or discard them', d.pipeline)
  from pgtrickle.relay_dlq d
  where d.resolved_at is null
  group by d.pipeline
  union all
  select null, 'warning', 'no relay is running', 'start one: pgtrickle-relay run'
  where not exists (select from pgtrickle.relay_instances_now() i where i.alive);
$$;

-- Everything that is wrong in this database: `severity` is 'problem' or 'warning', `pipeline` is null
-- where it concerns none. `relay_role` is the role that relays log in as.
create or replace function pgtrickle.relay_check(relay_role name default current_user)
returns table (pipeline text, severity text, message text, remedy text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select * from pgtrickle._check_server()
  union all select * from pgtrickle._check_functions()
  union all select * from pgtrickle._check_outboxes(relay_role)
  union all select * from pgtrickle._check_work();
$$;
comment on function pgtrickle.relay_check(name) is
  'Everything that is wrong in this database, with its remedy; changes nothing';
