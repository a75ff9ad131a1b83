-- Consumer groups: who may use them, and how they are created and dropped.
--
--   246_group_catalog.sql   this
--   247_group_horizon.sql   up to which id rows may be delivered
--   248_group_poll.sql      poll_outbox, consumer_rows
--   249_group_commit.sql    commit_offset, reject_offset, seek_offset, extend_lease, heartbeat
--   249_group_snapshot.sql  consumer_snapshot
--   256_consumers.sql       the view of all consumers, consumer_lag
--
-- A group is a named position in an outbox, or several: a group of n slots has n positions, and a
-- row belongs to the slot that its key hashes to. Consumers lease slots, not rows, so that rows of
-- one key are delivered in order whatever the number of consumers.
--
-- A function that runs as pgtrickle_owner cannot see its caller. What users call therefore runs
-- with the caller's rights and reads a view that shows each role the groups that it may use, with
-- a pass: a digest that is valid in this session and this transaction only. The functions that run
-- as pgtrickle_owner ask for the pass.

-- The groups that the current role may see. `pass` is to use them, and null where it may not;
-- `sight` is for what any of them shows. security_barrier: no condition of the reader runs on
-- hidden rows.
create or replace view pgtrickle_internal.group_access with (security_barrier) as
  select g.group_number, g.name, g.outbox_number, g.owner, g.skipped,
         case when pg_has_role(current_user, g.owner::oid, 'USAGE')
                or pg_has_role(current_user, 'pgtrickle_admin', 'USAGE')
              then sha256(s.value || timestamptz_send(transaction_timestamp())
                          || convert_to(concat_ws(' ', 'group', g.group_number,
                                                  pg_backend_pid()), 'UTF8')) end as pass,
         sha256(s.value || timestamptz_send(transaction_timestamp())
                || convert_to(concat_ws(' ', 'sight', g.group_number, pg_backend_pid()),
                              'UTF8')) as sight
  from pgtrickle_internal.consumer_groups g
  cross join pgtrickle_gate.secret s
  where pg_has_role(current_user, g.owner::oid, 'USAGE')
     or pg_has_role(current_user, 'pgtrickle_relay', 'USAGE');
comment on view pgtrickle_internal.group_access is
  'The consumer groups that the current role may see, with a pass for those that it may use';

-- The outboxes that the current role may read, and in which it may therefore create groups.
create or replace view pgtrickle_internal.outbox_access with (security_barrier) as
  select c.outbox_number,
         sha256(s.value || timestamptz_send(transaction_timestamp())
                || convert_to(concat_ws(' ', 'outbox', c.outbox_number, pg_backend_pid()),
                              'UTF8')) as pass
  from pgtrickle_internal.outbox_config c
  cross join pgtrickle_gate.secret s
  where has_table_privilege(
    current_user, to_regclass(format('pgtrickle.%I', c.outbox_table_name))::oid, 'SELECT');
comment on view pgtrickle_internal.outbox_access is
  'The outboxes that the current role may read, each with a pass';

grant select on pgtrickle_internal.group_access, pgtrickle_internal.outbox_access
  to pgtrickle_consumer;

-- Raises unless `pass` is the one that a view above shows to a role with the right.
create or replace function pgtrickle_internal.require_pass(what text, number int, pass bytea)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if pass is distinct from (
      select sha256(s.value || timestamptz_send(transaction_timestamp())
                    || convert_to(concat_ws(' ', what, number, pg_backend_pid()), 'UTF8'))
      from pgtrickle_gate.secret s) then
    raise exception 'this is not the pass of % %', what, number
      using errcode = 'insufficient_privilege',
            hint = 'Call the functions of schema pgtrickle.';
  end if;
end $$;

-- The role that a group belongs to; null where there is no such group.
create or replace function pgtrickle_internal.group_owner(group_name text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select g.owner::text from pgtrickle_internal.consumer_groups g where g.name = group_name;
$$;

-- The number of a group and its pass, for a caller that may use it; else an error.
create or replace function pgtrickle_internal.my_group(group_name text, out number int,
                                                       out pass bytea)
language plpgsql stable set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  belongs_to text;
begin
  select a.group_number, a.pass into number, pass
  from pgtrickle_internal.group_access a where a.name = group_name;
  if pass is not null then
    return;
  end if;
  belongs_to := pgtrickle_internal.group_owner(group_name);
  if belongs_to is null then
    raise exception 'there is no consumer group "%"', coalesce(group_name, '(null)')
      using errcode = 'undefined_object',
            hint = 'SELECT name FROM pgtrickle.consumers shows all that you may use; '
                   'create_consumer_group() makes one.';
  end if;
  raise exception 'consumer group "%" belongs to role %', group_name, belongs_to
    using errcode = 'insufficient_privilege',
          hint = format('GRANT %s TO %I; lets you use it. Or have a group made for you: '
                        'create_consumer_group(..., owner => %L).', belongs_to, current_user,
                        current_user);
end $$;

-- Raises where polls cannot run.
create or replace function pgtrickle_internal.require_writable() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_is_in_recovery() then
    raise exception 'consumer groups cannot be used on a standby'
      using errcode = 'read_only_sql_transaction',
            hint = 'Connect to the primary (target_session_attrs=read-write).';
  end if;
end $$;

-- Raises unless a consumer has a name that can be told from others.
create or replace function pgtrickle_internal.require_consumer(consumer text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_writable();
  if coalesce(consumer, '') = '' or length(consumer) > 200 then
    raise exception 'a consumer needs a name of 1 to 200 characters'
      using errcode = 'invalid_parameter_value',
            hint = 'Give each worker a name of its own, such as its host name and process id.';
  end if;
end $$;

-- The table whose row security hides rows from a role that the outbox would show it; null where
-- there is none. (After a restore the catalog's oid may be any relation's, so the name counts as
-- well.)
create or replace function pgtrickle_internal.group_hidden_rows(outbox_number int, owner oid)
returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', n.nspname, r.relname)
  from pgtrickle_internal.outbox_config c
  join pg_class r on r.oid = c.stream_table_oid
                  or (r.relname = c.stream_table_name
                      and r.relnamespace = to_regnamespace(quote_ident(c.stream_table_schema)))
  join pg_namespace n on n.oid = r.relnamespace
  where c.outbox_number = group_hidden_rows.outbox_number
    and c.kind in ('table', 'stream_table') and r.relrowsecurity
    and not exists (select from pg_roles o
                    where o.oid = group_hidden_rows.owner and (o.rolsuper or o.rolbypassrls))
    and (r.relforcerowsecurity or not pg_has_role(group_hidden_rows.owner, r.relowner, 'USAGE'))
  limit 1;
$$;

-- Raises where a role would see rows of a table through its outbox that row security hides.
create or replace function pgtrickle_internal.require_no_hidden_rows(
  outbox_number int, group_name text, owner oid) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  hidden constant text := pgtrickle_internal.group_hidden_rows(outbox_number, owner);
begin
  if hidden is not null then
    raise exception 'consumer group "%" would show role % rows that row security of table % '
        'may hide from it', group_name, owner::regrole, hidden
      using errcode = 'insufficient_privilege',
            hint = 'Let the group belong to a role with BYPASSRLS, or to the owner of the table.';
  end if;
end $$;

-- The number of the outbox that a name means; an error where groups cannot read it.
create or replace function pgtrickle_internal.group_outbox(name text, slots int) returns int
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox constant pgtrickle_internal.outbox_config := pgtrickle_internal.outbox_named(name);
begin
  if outbox.kind = 'adopted' then
    raise exception 'outbox "%" is an adopted table, which consumer groups cannot read', name
      using errcode = 'feature_not_supported',
            hint = 'A pipeline can read it (set_relay_outbox), also into an inbox of this '
                   'database.';
  elsif outbox.kind <> 'events' and slots > 1 then
    raise exception 'outbox "%" holds changes of a table: its consumer groups have 1 slot', name
      using errcode = 'feature_not_supported',
            detail = 'One row of it can hold changes of many keys.',
            hint = 'Leave out slots: further consumers stand by. Or publish() the events of each '
                   'key into an outbox of create_outbox().';
  end if;
  return outbox.outbox_number;
end $$;

-- Creates a group. The caller has checked the arguments.
create or replace function pgtrickle_internal.group_create(
  outbox_number int, pass bytea, name text, start text, slots int, max_attempts int, owner oid)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
  first record;
  made int;
begin
  perform pgtrickle_internal.require_pass('outbox', outbox_number, pass);
  perform pgtrickle_internal.require_no_hidden_rows(outbox_number, name, owner);
  perform pgtrickle_internal.lock('pipeline ' || name);
  if exists (select from pgtrickle_internal.consumer_groups g where g.name = group_create.name)
     or exists (select from pgtrickle.relay_config c where c.name = group_create.name) then
    raise exception 'there is already a consumer group or a pipeline "%"', name
      using errcode = 'duplicate_object', hint = 'Choose another name.';
  end if;
  select * into strict outbox from pgtrickle_internal.outbox_config c
  where c.outbox_number = group_create.outbox_number;
  if start <> 'snapshot' then
    select * into first from pgtrickle.relay_first_position(outbox.incarnation, start);
  else
    perform pgtrickle_internal.require_table(outbox);
    if current_setting('transaction_isolation') = 'read committed' then
      -- A snapshot need not look at the ids before this one.
      insert into pgtrickle_internal.consumer_looks (outbox_number, look_to, holders)
      values (outbox.outbox_number, pgtrickle_internal.settled_soon(outbox), '{}');
    end if;
    select pgtrickle_internal.settled_in_snapshot(outbox) as change_id,
           null::int8multirange as skipped into first;
  end if;
  insert into pgtrickle_internal.consumer_groups (name, outbox_number, owner, slots, max_attempts,
                                                  skipped, awaits_snapshot)
  values (group_create.name, group_create.outbox_number, group_create.owner, group_create.slots,
          group_create.max_attempts, first.skipped, start = 'snapshot')
  returning group_number into made;
  insert into pgtrickle_internal.consumer_slots (group_number, slot, "position")
  select made, n, first.change_id from generate_series(0, group_create.slots - 1) n;
end $$;

create or replace function pgtrickle.create_consumer_group(
  name text, outbox text, auto_offset_reset text default 'latest', slots int default 1,
  max_attempts int default 5, owner name default current_user) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  number int;
  shown_pass bytea;
  owner_oid oid;
begin
  perform pgtrickle_internal.require_writable();
  if coalesce(name, '') = '' or length(name) > 200 then
    raise exception 'a consumer group needs a name of 1 to 200 characters'
      using errcode = 'invalid_parameter_value';
  elsif (slots in (1, 2, 4, 8, 16, 32, 64)) is not true then
    raise exception 'slots must be 1, 2, 4, 8, 16, 32 or 64, not %', coalesce(slots::text, 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'It is how many consumers can work at once. It cannot be changed later.';
  elsif (max_attempts between 1 and 1000) is not true then
    raise exception 'max_attempts must be 1 to 1000, not %', coalesce(max_attempts::text, 'null')
      using errcode = 'invalid_parameter_value',
            hint = 'After so many deliveries without a commit a row becomes a dead letter.';
  elsif (auto_offset_reset in ('latest', 'earliest', 'snapshot')) is not true then
    raise exception 'auto_offset_reset must be ''latest'', ''earliest'' or ''snapshot'', not %',
        coalesce(quote_literal(auto_offset_reset), 'null')
      using errcode = 'invalid_parameter_value';
  end if;
  number := pgtrickle_internal.group_outbox(outbox, slots);
  select a.pass into shown_pass from pgtrickle_internal.outbox_access a
  where a.outbox_number = number;
  if shown_pass is null then
    raise exception 'role "%" may not read outbox "%"', current_user, outbox
      using errcode = 'insufficient_privilege',
            hint = format('Let a role that may (pgtrickle_admin) create the group, with '
                          'owner => %L.', current_user);
  end if;
  select r.oid into owner_oid from pg_roles r where r.rolname = owner;
  if owner_oid is null then
    raise exception 'role "%" does not exist', coalesce(owner::text, '(null)')
      using errcode = 'undefined_object', hint = 'The owner of a group is a role.';
  elsif not pg_has_role(owner_oid, 'pgtrickle_consumer', 'USAGE') then
    raise notice 'role "%" cannot poll yet: GRANT pgtrickle_consumer TO %;', owner,
      quote_ident(owner);
  end if;
  perform pgtrickle_internal.group_create(number, shown_pass, name, auto_offset_reset, slots,
                                          max_attempts, owner_oid);
end $$;
comment on function pgtrickle.create_consumer_group(text, text, text, int, int, name) is
  'Makes a group of consumers that poll an outbox: see docs/consumers.md';

create or replace function pgtrickle_internal.group_drop(number int, pass bytea) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_pass('group', number, pass);
  delete from pgtrickle_internal.consumer_groups g where g.group_number = number;
end $$;

create or replace function pgtrickle.drop_consumer_group(name text, if_exists boolean default false)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  mine record;
begin
  perform pgtrickle_internal.require_writable();
  if if_exists and pgtrickle_internal.group_owner(name) is null then
    raise notice 'there is no consumer group "%"', coalesce(name, '(null)');
    return;
  end if;
  mine := pgtrickle_internal.my_group(name);
  perform pgtrickle_internal.group_drop(mine.number, mine.pass);
end $$;
comment on function pgtrickle.drop_consumer_group(text, boolean) is
  'Drops a consumer group with its positions; its dead letters stay';

grant execute on function
  pgtrickle.create_consumer_group(text, text, text, int, int, name),
  pgtrickle.drop_consumer_group(text, boolean),
  pgtrickle_internal.group_owner(text), pgtrickle_internal.my_group(text),
  pgtrickle_internal.require_writable(), pgtrickle_internal.require_consumer(text),
  pgtrickle_internal.group_outbox(text, int),
  pgtrickle_internal.group_create(int, bytea, text, text, int, int, oid),
  pgtrickle_internal.group_drop(int, bytea)
  to pgtrickle_consumer;
grant execute on function pgtrickle_internal.group_owner(text), pgtrickle_internal.my_group(text)
  to pgtrickle_relay;
