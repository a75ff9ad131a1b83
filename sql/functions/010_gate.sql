-- The gate: how code of a table's owner is run on a user's behalf, with the owner's privileges and
-- no others.
--
-- What must run as a table's owner (the query of a stream table, marking and deleting messages in
-- an adopted inbox, reading a table for a full refresh) is in a function of the owner's in the
-- schema pgtrickle_streams: SECURITY DEFINER, owned by that role, and executable by
-- pgtrickle_sandbox alone.
--
--   a public function (pgtrickle_owner)
--     |  gate_step                        checks before and after
--   pgtrickle_gate.call_as_owner (pgtrickle_sandbox)
--     |
--   pgtrickle_streams.<function> (the table's owner)
--
-- The owner could make that function SECURITY INVOKER at any moment, so pgtrickle_owner never calls
-- it. It calls the gate, which belongs to pgtrickle_sandbox, a role that owns and may do nothing
-- else. A function that was altered so is refused. One that is altered while it is called runs as
-- that role, and an error undoes what it did. It could call the functions of other owners
-- then, so each of them asks for a key that only pgtrickle_owner can hand in. The gate is in a
-- schema that the sandbox itself may not use, so that code running there cannot alter it.

-- ---------------------------------------------------------------------------------------------
-- The gate itself

create or replace function pgtrickle_gate.call_as_owner(
  function_name text, action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format('select * from pgtrickle_streams.%I($1, $2)', function_name)
    using action, arg;
end $$;

do $$
begin
  if (select proowner from pg_catalog.pg_proc
      where oid = 'pgtrickle_gate.call_as_owner(text, text, jsonb)'::regprocedure)
     <> 'pgtrickle_sandbox'::regrole then
    grant create on schema pgtrickle_gate to pgtrickle_sandbox;
    alter function pgtrickle_gate.call_as_owner(text, text, jsonb) owner to pgtrickle_sandbox;
    revoke create on schema pgtrickle_gate from pgtrickle_sandbox;
  end if;
end $$;
revoke all on function pgtrickle_gate.call_as_owner(text, text, jsonb) from public;
grant execute on function pgtrickle_gate.call_as_owner(text, text, jsonb) to pgtrickle_owner;

-- ---------------------------------------------------------------------------------------------
-- Keys: a function of the gate runs only when pgtrickle_owner opened the gate for it

-- A secret that is there stays: functions of the gate were made with it.
insert into pgtrickle_gate.secret (value)
values (pg_catalog.sha256(pg_catalog.convert_to(
  pg_catalog.concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8')))
on conflict do nothing;

-- The key that opens a function of the gate. For pgtrickle_owner only.
create or replace function pgtrickle_internal.gate_key(function_name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (select encode(sha256(s.value || convert_to(function_name, 'UTF8')), 'hex')
          from pgtrickle_gate.secret s);
end $$;

-- The value that a function compares the key with. The key cannot be derived from it.
create or replace function pgtrickle_internal.gate_seal(function_name text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(convert_to(pgtrickle_internal.gate_key(function_name), 'UTF8')), 'hex')
$$;

-- ---------------------------------------------------------------------------------------------
-- A step through the gate

-- Tables that this transaction has written to and whose deferrable triggers may run code of users
-- at COMMIT, with the rights and settings that the session has then: triggers that users made, and
-- exclusion constraints over expressions. What the server itself checks runs as the table's owner.
create or replace function pgtrickle_internal.gate_deferred() returns oid[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ours constant oid := to_regclass('pgtrickle_internal.outbox_deferred');
begin
  if not exists (
      select from pg_trigger t
      where t.tgdeferrable and t.tgrelid is distinct from ours
        and (not t.tgisinternal
             or exists (select from pg_index i
                        where i.indexrelid = t.tgconstrindid
                          and (i.indexprs is not null or i.indpred is not null)))) then
    return '{}';
  end if;
  return array(
    select distinct t.tgrelid
    from pg_locks l
    join pg_trigger t on t.tgrelid = l.relation
    left join pg_index i on i.indexrelid = t.tgconstrindid
    where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and t.tgdeferrable and t.tgrelid is distinct from ours
      and (not t.tgisinternal or i.indexprs is not null or i.indpred is not null)
    order by 1);
end $$;

-- Settings that any role may change and that change no result: how statements are planned, what
-- they may use, and what the session is called and reports.
create or replace function pgtrickle_internal.gate_other_settings() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select array[
    'application_name', 'backend_flush_after', 'client_connection_check_interval',
    'client_min_messages', 'commit_siblings', 'constraint_exclusion', 'cpu_index_tuple_cost',
    'cpu_operator_cost', 'cpu_tuple_cost', 'cursor_tuple_fraction',
    'debug_logical_replication_streaming', 'debug_parallel_query', 'debug_pretty_print',
    'debug_print_parse', 'debug_print_plan', 'debug_print_rewritten',
    'default_statistics_target', 'effective_cache_size', 'effective_io_concurrency',
    'enable_async_append', 'enable_bitmapscan', 'enable_distinct_reordering',
    'enable_gathermerge', 'enable_group_by_reordering', 'enable_hashagg', 'enable_hashjoin',
    'enable_incremental_sort', 'enable_indexonlyscan', 'enable_indexscan', 'enable_material',
    'enable_memoize', 'enable_mergejoin', 'enable_nestloop', 'enable_parallel_append',
    'enable_parallel_hash', 'enable_partition_pruning', 'enable_partitionwise_aggregate',
    'enable_partitionwise_join', 'enable_presorted_aggregate', 'enable_self_join_elimination',
    'enable_seqscan', 'enable_sort', 'enable_tidscan', 'escape_string_warning',
    'file_copy_method', 'force_parallel_mode', 'from_collapse_limit', 'geqo', 'geqo_effort',
    'geqo_generations', 'geqo_pool_size', 'geqo_seed', 'geqo_selection_bias', 'geqo_threshold',
    'gin_fuzzy_search_limit', 'gin_pending_list_limit', 'hash_mem_multiplier',
    'icu_validation_level', 'io_combine_limit', 'jit', 'jit_above_cost', 'jit_expressions',
    'jit_inline_above_cost', 'jit_optimize_above_cost', 'jit_tuple_deforming',
    'join_collapse_limit', 'log_parameter_max_length_on_error', 'logical_decoding_work_mem',
    'maintenance_io_concurrency', 'maintenance_work_mem', 'max_parallel_maintenance_workers',
    'max_parallel_workers', 'max_parallel_workers_per_gather', 'md5_password_warnings',
    'min_parallel_index_scan_size', 'min_parallel_table_scan_size',
    'parallel_leader_participation', 'parallel_setup_cost', 'parallel_tuple_cost',
    'plan_cache_mode', 'plpgsql.print_strict_params', 'random_page_cost',
    'recursive_worktable_factor', 'scram_iterations', 'seq_page_cost',
    'stats_fetch_consistency', 'synchronize_seqscans', 'tcp_keepalives_count',
    'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_user_timeout', 'temp_buffers',
    'trace_notify', 'trace_sort', 'vacuum_buffer_usage_limit', 'vacuum_cost_delay',
    'vacuum_cost_limit', 'vacuum_cost_page_dirty', 'vacuum_cost_page_hit',
    'vacuum_cost_page_miss', 'vacuum_failsafe_age', 'vacuum_freeze_min_age',
    'vacuum_freeze_table_age', 'vacuum_max_eager_freeze_failure_rate',
    'vacuum_multixact_failsafe_age', 'vacuum_multixact_freeze_min_age',
    'vacuum_multixact_freeze_table_age', 'vacuum_truncate', 'wal_sender_timeout',
    'wal_skip_threshold', 'work_mem'];
$$;

-- The state of a session that outlives a function and affects what runs later, grouped by kind.
-- `setting` are those that any role may change and that decide how SQL is read, whether it is
-- durable, how long it may take, and how values are written; `other setting` are the values of all
-- others. SQL cannot see what SET CONSTRAINTS has done, nor list the settings that applications
-- define.
create or replace function pgtrickle_internal.gate_state() returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_build_object(
    'setting', (
      select jsonb_object_agg(name, current_setting(name, true))
      from unnest(array[
        'row_security', 'session_replication_role', 'standard_conforming_strings',
        'backslash_quote', 'transform_null_equals', 'array_nulls', 'quote_all_identifiers',
        'client_encoding', 'exit_on_error', 'check_function_bodies',
        'plpgsql.check_asserts', 'plpgsql.extra_errors', 'plpgsql.extra_warnings',
        'plpgsql.variable_conflict', 'DateStyle', 'IntervalStyle', 'TimeZone',
        'timezone_abbreviations', 'extra_float_digits', 'bytea_output', 'xmlbinary', 'xmloption',
        'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config',
        'transaction_read_only', 'transaction_deferrable', 'default_transaction_isolation',
        'default_transaction_read_only', 'default_transaction_deferrable', 'synchronous_commit',
        'commit_delay', 'statement_timeout', 'lock_timeout', 'transaction_timeout',
        'idle_in_transaction_session_timeout', 'idle_session_timeout', 'password_encryption',
        'createrole_self_grant', 'restrict_nonsystem_relation_kind', 'default_tablespace',
        'temp_tablespaces', 'default_table_access_method', 'default_toast_compression',
        'local_preload_libraries', 'pg_trickle.user_triggers']) name),
    'other setting', array(
      select current_setting(name, true)
      from unnest(pgtrickle_internal.gate_other_settings()) name),
    'cursor', (select jsonb_agg(to_jsonb(c) order by c.name) from pg_cursors c),
    'prepared statement', (
      select jsonb_object_agg(p.name, p.prepare_time) from pg_prepared_statements p),
    'temporary object', (
      select jsonb_agg(jsonb_build_array(d.classid, d.objid) order by d.classid, d.objid)
      from pg_depend d
      where pg_my_temp_schema() <> 0 and d.refobjid = pg_my_temp_schema()
        and d.refclassid = 'pg_namespace'::regclass),
    'deferred trigger', to_jsonb(pgtrickle_internal.gate_deferred()));
end $$;

-- The owner of pgtrickle_streams.<function_name>(text, jsonb); null if there is no such function.
create or replace function pgtrickle_internal.gate_owner(function_name text) returns oid
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p.proowner
    from pg_proc p
    where p.pronamespace = (select n.oid from pg_namespace n where n.nspname = 'pgtrickle_streams')
      and p.proname = function_name
      and p.proargtypes = '25 3802'::oidvector);  -- text, jsonb
end $$;

-- The function as it is at this moment, and what the sandbox owns. Null where the function would run
-- as the sandbox instead of its owner.
create or replace function pgtrickle_internal.gate_identity(function_name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select concat_ws(' ', p.oid, p.xmin, p.ctid, (
             select count(*) from pg_shdepend d
             where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o'
               and d.refobjid = 'pgtrickle_sandbox'::regrole
               and d.dbid = (select b.oid from pg_database b where b.datname = current_database())))
    from pg_proc p
    where p.pronamespace = (select n.oid from pg_namespace n where n.nspname = 'pgtrickle_streams')
      and p.proname = function_name and p.proargtypes = '25 3802'::oidvector and p.prosecdef);
end $$;

-- Raises an error if a step has left something behind that it must not. Runs under a path of its own:
-- `path` is the one that the step left. If the session's user owns the code, only state that would
-- affect our own functions counts.
create or replace function pgtrickle_internal.gate_verify(
  function_name text, owner oid, what text, identity text, before jsonb, path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  after jsonb := pgtrickle_internal.gate_state();
  own constant boolean := owner = (select r.oid from pg_roles r where r.rolname = session_user);
  left_behind text;
  prepared text;
begin
  perform set_config('pgtrickle.gate_key', '', true);
  -- Each notification would come to the session from now on. A LISTEN of this transaction shows
  -- nowhere, so it is undone unseen, and only where the relay's sessions are: they never listen.
  if not own and pg_has_role(session_user, 'pgtrickle_relay', 'member')
     and not exists (select from pg_listening_channels()) then
    unlisten *;
  end if;
  if pgtrickle_internal.gate_identity(function_name) is distinct from identity then
    raise exception 'the code behind % was changed while it ran', what
      using errcode = 'insufficient_privilege';
  elsif path <> 'pg_catalog, pg_temp' then
    left_behind := 'another search_path';
  elsif before -> 'setting' <> after -> 'setting' then
    left_behind := (
      select 'another ' || min(a.key)
      from jsonb_each(after -> 'setting') a where a.value <> before -> 'setting' -> a.key);
  elsif before -> 'other setting' <> after -> 'other setting' and not own then
    left_behind := (
      select 'another ' || min(s.name)
      from unnest(pgtrickle_internal.gate_other_settings()) with ordinality s (name, n)
      where before -> 'other setting' -> s.n::int - 1 <> after -> 'other setting' -> s.n::int - 1);
  elsif before is distinct from after and not own then
    left_behind := (
      select 'a ' || case when k.kind = 'cursor' and after -> 'cursor' @> '[{"is_holdable": true}]'
                          then 'cursor WITH HOLD' else k.kind end
      from unnest(array['deferred trigger', 'temporary object', 'cursor', 'prepared statement'])
             with ordinality k (kind, n)
      where before -> k.kind is distinct from after -> k.kind
        -- If a lock was released, its deferred triggers are gone, too.
        and (k.kind <> 'deferred trigger' or not before -> k.kind @> (after -> k.kind))
      order by k.n limit 1);
  end if;
  if left_behind is not null then
    -- An error undoes everything except these.
    for prepared in
      select p.name from pg_prepared_statements p
      where not coalesce(before -> 'prepared statement', '{}') ? p.name
    loop
      execute format('deallocate %I', prepared);
    end loop;
    raise exception 'the code behind % leaves % behind', what, left_behind
      using errcode = 'insufficient_privilege',
            detail = 'It would take effect with the privileges of the session that ran it.',
            hint = case when left_behind like 'another %'
              then 'ALTER FUNCTION ... SET gives a setting to one function only.' else '' end;
  end if;
  -- The sandbox may drop what it owns and give up what it was granted.
  if to_regprocedure('pgtrickle_gate.call_as_owner(text, text, jsonb)') is null
     or not has_schema_privilege('pgtrickle_sandbox', 'pgtrickle_streams', 'USAGE') then
    raise exception 'the code behind % has removed the gate', what
      using errcode = 'insufficient_privilege';
  end if;
end $$;

-- Runs one step of pgtrickle_streams.<function_name> as `owner`, and makes sure that it leaves
-- nothing behind which would take effect later with the session's rights. An error names `what`.
-- For pgtrickle_owner only.
create or replace function pgtrickle_internal.gate_step(
  function_name text, owner oid, what text, action text, arg jsonb)
returns table (op text, ord bigint, row_data jsonb)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  is_owned_by constant oid := pgtrickle_internal.gate_owner(function_name);
  identity constant text := pgtrickle_internal.gate_identity(function_name);
  before jsonb;
begin
  if is_owned_by is null or is_owned_by <> owner or identity is null then
    raise exception 'the function pgtrickle_streams.% of % is %', quote_ident(function_name), what,
      case when is_owned_by is null then 'gone'
           when is_owned_by = owner then 'not SECURITY DEFINER any more'
           else format('not its owner''s: it belongs to %s, not to %s', is_owned_by::regrole,
                       owner::regrole) end
      using errcode = 'undefined_function',
            hint = 'It is made by create_stream_table, enable_outbox, adopt_outbox and '
                   'enable_inbox_tracking.';
  end if;
  before := pgtrickle_internal.gate_state();
  perform set_config('pgtrickle.gate_key', pgtrickle_internal.gate_key(function_name), true);
  return query select * from pgtrickle_gate.call_as_owner(function_name, action, arg);
  -- The step may have changed the path under which this function itself goes on. Until that is
  -- known, every name is qualified and there is no operator.
  perform pgtrickle_internal.gate_verify(function_name, owner, what, identity, before,
                                         pg_catalog.current_setting('search_path'));
end $$;

-- ---------------------------------------------------------------------------------------------
-- Functions of the gate: made and dropped with the caller's rights

-- A name for a function of the gate that no role can take beforehand.
create or replace function pgtrickle_internal.gate_name(prefix text) returns text
language sql volatile set search_path = pg_catalog, pg_temp
as $$ select prefix || '_' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 20) $$;

-- The source of a function of the gate: asks for the key, takes it away, so that nothing that the
-- body runs can see it, and goes on with the body. `body` is one block of PL/pgSQL,
-- perhaps with options (#variable_conflict) before it.
create or replace function pgtrickle_internal.gate_source(name text, body text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format($source$%s
begin
  if encode(sha256(convert_to(coalesce(current_setting('pgtrickle.gate_key', true), ''), 'UTF8')),
            'hex') <> %L then
    raise exception 'pgtrickle_streams.%% is called by pgtrickle only', %L
      using errcode = 'insufficient_privilege',
            hint = 'If pgtrickle called it, it is from another database: make it again.';
  end if;
  perform set_config('pgtrickle.gate_key', '', true);
  %s;
end $source$,
    coalesce(substring(body from E'^\\s*(?:#[^\\n]*\\n\\s*)+'), ''),
    pgtrickle_internal.gate_seal(name), quote_ident(name),
    regexp_replace(regexp_replace(body, E'^\\s*(?:#[^\\n]*\\n\\s*)+', ''), E'[;\\s]+$', ''))
$$;

-- Lets a role create in pgtrickle_streams, or no longer. A role that is given a function there must
-- be allowed to, unless a superuser gives it. Objects that a role creates there do no harm: no
-- search_path has that schema, names of functions are checked for their owner or cannot be guessed.
create or replace function pgtrickle_internal.gate_lend(role oid, lend boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pg_roles r
             where r.oid = role and r.rolname in ('pgtrickle_owner', 'pgtrickle_admin',
                                                  'pgtrickle_sandbox', 'pgtrickle_capture',
                                                  'pgtrickle_observer')) then
    raise exception '% may not be lent the right to create in pgtrickle_streams', role::regrole
      using errcode = 'invalid_parameter_value';
  end if;
  perform pgtrickle_internal.lock('gate');
  execute format(case when lend then 'grant create on schema pgtrickle_streams to %s'
                      else 'revoke create on schema pgtrickle_streams from %s' end, role::regrole);
end $$;

-- Makes, or makes again, the function pgtrickle_streams.<name>(action text, arg jsonb) with that
-- body. It belongs to `owner`, of whom the caller must be a member, and only the gate may call it.
create or replace function pgtrickle_internal.gate_function(name text, owner oid, body text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  signature constant text := format('pgtrickle_streams.%I(text, jsonb)', name);
  belongs_to constant oid := pgtrickle_internal.gate_owner(name);
  lent boolean := false;
  other oid;
begin
  if octet_length(name) > 63 then
    raise exception 'the name of function % is longer than 63 bytes', signature
      using errcode = 'name_too_long';
  elsif belongs_to <> owner then
    raise exception 'function % is there already and belongs to %', signature, belongs_to::regrole
      using errcode = 'duplicate_function', hint = format('DROP FUNCTION %s;', signature);
  elsif exists (select from pg_roles r
                where r.oid = owner and r.rolname in ('pgtrickle_owner', 'pgtrickle_sandbox',
                                                      'pgtrickle_capture')) then
    raise exception 'what belongs to % has no function of the gate', owner::regrole
      using errcode = 'invalid_parameter_value';
  end if;
  execute format(
    'create or replace function pgtrickle_streams.%I(action text, arg jsonb) '
    'returns table (op text, ord bigint, row_data jsonb) '
    'language plpgsql security definer set search_path = pg_catalog, pg_temp as %L',
    name, pgtrickle_internal.gate_source(name, body));
  for other in
    select distinct a.grantee
    from pg_proc p
    cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    where p.oid = to_regprocedure(signature) and a.grantee <> p.proowner
  loop
    execute format('revoke all on function %s from %s', signature,
                   case other when 0 then 'public' else other::regrole::text end);
  end loop;
  execute format('grant execute on function %s to pgtrickle_sandbox', signature);
  if belongs_to is not null
     or owner = (select r.oid from pg_roles r where r.rolname = current_user) then
    return;
  end if;
  lent := not has_schema_privilege(owner, 'pgtrickle_streams', 'CREATE')
          and not (select r.rolsuper from pg_roles r where r.rolname = current_user);
  if lent then
    perform pgtrickle_internal.gate_lend(owner, true);
  end if;
  execute format('alter function %s owner to %s', signature, owner::regrole);
  if lent then
    perform pgtrickle_internal.gate_lend(owner, false);
  end if;
end $$;

-- Drops a function of the gate where the caller may: its owner's members, and pgtrickle_owner, who
-- owns the schema. Elsewhere it stays, without a caller, and a NOTICE says so.
create or replace function pgtrickle_internal.gate_drop(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if pgtrickle_internal.gate_owner(name) is not null then
    execute format('drop function pgtrickle_streams.%I(text, jsonb)', name);
  end if;
exception when insufficient_privilege or dependent_objects_still_exist then
  raise notice 'function pgtrickle_streams.% stays, and is called no more: %', quote_ident(name),
    sqlerrm;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.gate_seal(text), pgtrickle_internal.gate_owner(text),
  pgtrickle_internal.gate_name(text), pgtrickle_internal.gate_source(text, text),
  pgtrickle_internal.gate_lend(oid, boolean), pgtrickle_internal.gate_function(text, oid, text),
  pgtrickle_internal.gate_drop(text)
  to pgtrickle_admin;
