-- The problems in this database, for `pgtrickle-relay check`. Nothing here changes anything.

-- What is installed is compared by the program, which knows what it needs: nothing here could be
-- trusted to say so of itself.

-- Whether this server takes writes, and what its settings mean for transactions. The relay's own
-- sessions have another isolation level than these, so what was set is looked up.
create or replace function pgtrickle_internal.check_server()
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
         format('ALTER %s RESET default_transaction_isolation; where that was not meant', case
                  when s.setrole = 0 and s.setdatabase = 0 then 'ROLE ALL'
                  when s.setrole = 0 then format('DATABASE %I', current_database())
                  else format('ROLE %s', s.setrole::regrole)
                       || case when s.setdatabase <> 0
                               then format(' IN DATABASE %I', current_database()) else '' end end)
  from pg_db_role_setting s
  cross join lateral unnest(s.setconfig) c (setting)
  where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
    and c.setting like E'default\\_transaction\\_isolation=%'
    and c.setting not like '%=read committed' and c.setting not like '%=read uncommitted'
  union all
  -- A setting of neither role nor database comes from the server's configuration, or from the URL.
  select null, 'warning',
         format('transactions are %s by default: the relay uses read committed all the same, but '
                'applications that write to a captured table may have to repeat transactions',
                s.reset_val),
         'ALTER SYSTEM RESET default_transaction_isolation; SELECT pg_reload_conf(); where that was '
         'not meant; or look for it in postgresql.conf'
  from pg_settings s
  where s.name = 'default_transaction_isolation'
    and s.reset_val not in ('read committed', 'read uncommitted')
    and not exists (
      select from pg_db_role_setting r, unnest(r.setconfig) c (setting)
      where r.setdatabase in (0, (select d.oid from pg_database d
                                  where d.datname = current_database()))
        and r.setrole in (0, session_user::regrole)
        and c.setting = 'default_transaction_isolation=' || s.reset_val);
$$;

-- One word of a command for a shell, which users may copy.
create or replace function pgtrickle_internal.shell_word(word text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when word ~ '^[A-Za-z0-9_./:][A-Za-z0-9_./:-]*$' then word
              else '''' || replace(word, '''', E'''\\''''') || '''' end;
$$;

-- A `problem` of an outbox: what is wrong, and what to do, which is its second sentence.
create or replace function pgtrickle_internal.split_problem(
  problem text, out what text, out remedy text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select w.what, coalesce(nullif(substr(problem, length(w.what) + 3), ''), 'as it says')
  from (select split_part(problem, '. ', 1)) w (what);
$$;

-- Outboxes that are gone, that record wrongly, or that the role may not read; positions beyond what an
-- outbox ever held.
create or replace function pgtrickle_internal.check_outboxes(relay_role name)
returns table (pipeline text, severity text, message text, remedy text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  outbox pgtrickle_internal.outbox_config;
  rel regclass;
  sequence regclass;
begin
  for outbox in select * from pgtrickle_internal.outbox_config c order by c.outbox_table_name loop
    if outbox.kind = 'adopted' then
      return query
        select o.pipeline_id, 'problem',
               format('outbox %s: %s', outbox.outbox_table_name, f.message), f.remedy
        from pgtrickle_internal.outbox_adopted_findings() f
        left join (select distinct o.pipeline_id from pgtrickle.relay_consumer_offsets o
                   where o.incarnation = outbox.incarnation) o on true
        where f.number = outbox.outbox_number
        order by 1;
      continue;
    end if;
    rel := to_regclass(format('pgtrickle.%I', outbox.outbox_table_name));
    if rel is null then
      return query select null::text, 'problem',
        format('outbox %s is gone: its table was dropped%s', outbox.outbox_table_name,
               case outbox.kind when 'table' then ', and changes since then are not recorded'
                                else '' end),
        pgtrickle_internal.outbox_anew(outbox);
      continue;
    end if;
    if to_regclass('pgtrickle.' || quote_ident(outbox.delta_table_name)) is null then
      return query select null::text, 'problem',
        format('pgtrickle.%I, a table of outbox %s, is gone: large changes are not recorded',
               outbox.delta_table_name, outbox.outbox_table_name),
        format('make the outbox anew: SELECT pgtrickle.disable_outbox(%L), and then as it was made',
               outbox.outbox_table_name)
      where outbox.delta_table_name is not null;
    end if;
    if not has_table_privilege(relay_role, rel, 'select') then
      return query select null::text, 'problem',
        format('the role %s may not read %s', relay_role, rel),
        format('GRANT SELECT ON %s TO pgtrickle_relay;', rel);
    end if;
    if outbox.problem is not null then
      return query
        select o.pipeline_id, 'problem',
               format('outbox %s: %s', outbox.outbox_table_name, t.what), t.remedy
        from pgtrickle_internal.split_problem(outbox.problem) t
        left join (select distinct o.pipeline_id from pgtrickle.relay_consumer_offsets o
                   where o.incarnation = outbox.incarnation) o on true
        order by 1;
    end if;
    if outbox.source_dropped_at is not null then
      return query select null::text, 'warning',
        format('the table of outbox %s was dropped at %s: what was recorded until then is delivered',
               outbox.outbox_table_name, date_trunc('second', outbox.source_dropped_at)),
        format('for a table of that name that is made again: SELECT pgtrickle.enable_outbox(%L); '
               'else nothing: the outbox goes when its last row was delivered and its time is over',
               format('%I.%I', outbox.stream_table_schema, outbox.stream_table_name));
    end if;
    sequence := to_regclass(outbox.outbox_sequence);
    return query
      select o.pipeline_id, 'problem',
             format('its position %s is beyond the newest row of %s, %s: rows were lost by a '
                    'failover or a restore', o.last_change_id, outbox.outbox_table_name, n.newest),
             format('pgtrickle-relay pipelines resume %s --accept-loss',
                    pgtrickle_internal.shell_word(o.pipeline_id))
      from (select pgtrickle_internal.last_drawn(sequence) as newest where sequence is not null) n
      join pgtrickle.relay_consumer_offsets o
        on o.incarnation = outbox.incarnation and o.last_change_id > n.newest
      order by 1;
  end loop;
end $$;

-- Outboxes that do not record their table as it is now, and of which upkeep has not said so (yet):
-- perhaps no relay is running.
create or replace function pgtrickle_internal.check_capture()
returns table (pipeline text, severity text, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select null, case when f.gone and n.table_name is null then 'warning' else 'problem' end,
         format('outbox %s %s', c.outbox_table_name, case
           when f.gone and n.restored then 'is not bound to its table: the database was restored'
           when f.gone and n.table_name is not null then format(
             'records nothing: its table was dropped, and %s is another one', n.table_name)
           when f.gone then 'records nothing: its table was dropped'
           when w.why <> '' then 'does not record its table as it is: ' || w.why
           else 'has a problem: ' || t.what end),
         case
           when f.gone and n.table_name is not null and not n.restored then format(
             'SELECT pgtrickle.enable_outbox(%L) records that one, behind what this outbox holds',
             n.table_name)
           when f.gone and not n.restored then
             'nothing, where that was meant: what was recorded until then is delivered'
           when f.gone or w.why <> '' then
             'start a relay, which sets it right within seconds, or let the owner of the table run '
             'SELECT pgtrickle.outbox_capture_upkeep();'
           else t.remedy end
  from pgtrickle_internal.upkeep_findings() f
  join pgtrickle_internal.outbox_config c on c.outbox_number = f.number
  cross join lateral (
    select pgtrickle_internal.qualified(m.rel),
           exists (select from pg_trigger t
                   where t.tgrelid = m.rel and t.tgname = format('!pgtrickle_%s_begin', f.number))
    from (select pgtrickle_internal.outbox_namesake(f.number)) m (rel)) n (table_name, restored)
  cross join lateral (
    select concat_ws('; ',
      case when f.triggers then 'triggers are missing or switched off' end,
      case when f.functions then 'functions of its triggers are missing, or are of other columns' end,
      case when f.partitions then 'partitions came or went' end,
      case when f.keys then 'columns of the key were renamed' end,
      case when f.missed then 'something could not be recorded' end,
      nullif(array_to_string(f.reasons, '; '), ''))) w (why)
  cross join lateral pgtrickle_internal.split_problem(f.standing) t
  where c.problem is null and c.source_dropped_at is null
    and to_regclass(format('pgtrickle.%I', c.outbox_table_name)) is not null
    and (f.gone or w.why <> '' or f.standing is not null)
  order by c.outbox_table_name;
$$;

-- Inboxes whose table is gone, stream tables that cannot be refreshed, dead letters, and whether a
-- relay is running.
create or replace function pgtrickle_internal.check_work()
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
  from pgtrickle_internal.stream_tables s
  where s.status = 'SUSPENDED' or s.consecutive_errors > 0
  union all
  select d.pipeline, 'problem',
         format('%s messages are in the dead letters, the last since %s: %s', count(*),
                date_trunc('second', max(d.last_failed_at)),
                (array_agg(d.error_message order by d.last_failed_at desc))[1]),
         format('pgtrickle-relay dlq list %s, then retry or discard them',
                pgtrickle_internal.shell_word(d.pipeline))
  from pgtrickle.relay_dlq d
  where d.resolved_at is null
  group by d.pipeline
  union all
  select null, 'warning', 'no relay is running', 'start one: pgtrickle-relay run'
  where not exists (select from pgtrickle.relay_instances_now() i where i.alive);
$$;

-- All problems in this database, apart from the objects of the database side themselves: `severity`
-- is 'problem' or 'warning', `pipeline` is null where it concerns none. `relay_role` is the role that
-- relays log in as.
create or replace function pgtrickle.relay_check(relay_role name default current_user)
returns table (pipeline text, severity text, message text, remedy text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select * from pgtrickle_internal.check_server()
  union all select * from pgtrickle_internal.check_beside()
  union all select * from pgtrickle_internal.check_outboxes(relay_role)
  union all select * from pgtrickle_internal.check_capture()
  union all select * from pgtrickle_internal.check_work();
$$;
comment on function pgtrickle.relay_check(name) is
  'What is wrong with outboxes, inboxes, stream tables and pipelines here, with its remedy; '
  'changes nothing. `pgtrickle-relay check` also looks at what is installed';

-- What the daemon calls.
grant execute on function pgtrickle.relay_check(name) to pgtrickle_relay;
