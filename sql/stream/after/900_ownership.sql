-- Owners of everything that the files before this one created, and who may use it.

do $$
declare
  owner constant name := current_setting('pgstream.owner');
  r record;
begin
  for r in
    select case c.relkind when 'S' then 'sequence' else 'table' end as kind, c.oid::regclass as name
    from pg_class c
    where c.relnamespace = 'pgstream'::regnamespace and c.relkind in ('r', 'p', 'S', 'v')
      and pg_get_userbyid(c.relowner) <> owner
      and not exists (select from pg_depend d  -- the sequence of an identity column
                      where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid
                        and d.deptype = 'i')
  loop
    execute format('alter %s %s owner to %I', r.kind, r.name, owner);
  end loop;
  for r in
    select p.oid::regprocedure as name, p.proowner, p.pronamespace, p.proname,
           p.pronamespace = 'pgstream_json'::regnamespace
             or p.proname in ('_has_stream', '_image', '_let_owners_write')
             -- The owner of a table runs these, who need not be a subscriber.
             or p.proname in ('_as_in_trigger', '_check_privileges', '_compile', '_cannot_fail',
                              '_calls', '_check_columns', '_object_sql', '_columns_of',
                              '_column_numbers', '_extensions', '_other_types_sql',
                              '_compile_subscription') as for_all
    from pg_proc p
    where p.pronamespace in ('pgstream'::regnamespace, 'pgstream_json'::regnamespace)
      and p.proname !~ '^_(publish_after|condition_of)_(insert|update|delete)_on_'
  loop
    if pg_get_userbyid(r.proowner) <> owner then
      execute format('alter routine %s owner to %I', r.name, owner);
    end if;
    execute format('revoke all on routine %s from public', r.name);
    if to_regrole('pgstream_subscriber') is not null then  -- granted below, maybe to fewer than before
      execute format('revoke all on routine %s from pgstream_subscriber', r.name);
    end if;
    if r.for_all then
      execute format('grant execute on routine %s to public', r.name);
    end if;
  end loop;
end $$;

-- What the installing role's default privileges gave to other roles.
do $$
declare
  r record;
begin
  for r in
    select distinct o.kind, o.name, a.grantee::regrole as grantee
    from (
      select case c.relkind when 'S' then 'sequence' else 'table' end as kind,
             c.oid::regclass::text as name, c.relacl as acl, c.relowner as owner
      from pg_class c
      where c.relnamespace = 'pgstream'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
      union all
      select 'routine', p.oid::regprocedure::text, p.proacl, p.proowner
      from pg_proc p
      where p.pronamespace in ('pgstream'::regnamespace, 'pgstream_json'::regnamespace)
        and p.proname !~ '^_(publish|condition|write|keep)_') o
    cross join lateral aclexplode(o.acl) a
    where a.grantee <> o.owner and a.grantee <> 0
      and pg_get_userbyid(a.grantee) not like E'pgstream\\_%'
  loop
    execute format('revoke all on %s %s from %s', r.kind, r.name, r.grantee);
  end loop;
end $$;

-- Trigger functions call functions of ours as the owners of their tables.
grant usage on schema pgstream, pgstream_json to public;

do $$
begin
  if to_regrole('pgstream_subscriber') is null or to_regrole('pgstream_daemon') is null then
    return;
  end if;
  grant select, insert, update, delete on pgstream.subscriptions to pgstream_subscriber;
  grant select on pgstream._tables to pgstream_subscriber;
  grant select, insert, delete on pgstream._subscriptions to pgstream_subscriber;
  grant select, update, delete on pgstream.failed_events to pgstream_subscriber;
  -- These run as the subscriber.
  grant execute on function
    pgstream._relation(text, text),
    pgstream._compile_as_owner(oid, pgstream.subscriptions, text),
    pgstream._compile_all(pgstream.subscriptions[], pgstream.subscriptions[], text),
    pgstream._define_all(pgstream.subscriptions[], pgstream.subscriptions[]),
    pgstream._function_name(text, text), pgstream._condition_name(text, text),
    pgstream._condition_body(text, text, text),
    pgstream._define_for_owner(oid, text, text, text, text), pgstream._body(text, text, text, text),
    pgstream._pinned_settings(oid), pgstream._define_functions(oid, text, text, text),
    pgstream._triggers(text), pgstream._trigger_sql(oid, pgstream._subscriptions, text[]),
    pgstream._run_locking(text[], interval),
    pgstream._create_triggers(pgstream._subscriptions[]), pgstream._drop_triggers(text),
    pgstream._require_owner(oid), pgstream._checked_table(pgstream.subscriptions),
    pgstream._apply(pgstream.subscriptions[], pgstream.subscriptions[]),
    pgstream._may_write(text, text, name), pgstream._may_delete(text, text, name),
    pgstream._differ(pgstream.subscriptions, pgstream.subscriptions),
    pgstream._failed_payload(pgstream.failed_events, pgstream._subscriptions),
    pgstream.retry_failed(),
    pgstream.set_subscriptions(bigint, pgstream.subscriptions[])
    to pgstream_subscriber;

  grant select on pgstream.events, pgstream.events_overflow, pgstream.subscriptions,
    pgstream.failed_events to pgstream_daemon;
  grant select, insert, delete on pgstream.backlog to pgstream_daemon;
  grant select, update on pgstream.streams to pgstream_daemon;
  grant select, insert, update, delete on pgstream.dead_letters to pgstream_daemon;
  grant execute on function
    pgstream.add_stream(bigint), pgstream.make_partitions(int), pgstream.partition_work(interval),
    pgstream.remove_partitions(interval), pgstream.clean_overflow(interval),
    pgstream.subscription_problems(bigint), pgstream.stream_status(bigint)
    to pgstream_daemon;
end $$;

-- Making a publication takes CREATE on the database.
do $$
declare
  owner constant name := current_setting('pgstream.owner');
begin
  if not has_database_privilege(owner, current_database(), 'CREATE') then
    execute format('grant create on database %I to %I', current_database(), owner);
  end if;
  if not has_database_privilege(owner, current_database(), 'CREATE') then
    raise notice 'publications of streams cannot be made yet'
      using hint = format('Let the owner of the database run: GRANT CREATE ON DATABASE %I TO %I;',
                          current_database(), owner);
  end if;
end $$;
