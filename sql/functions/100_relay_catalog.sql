-- The catalog of pipelines: what runs from where to where, and whether it is enabled.
--
-- set_relay_outbox, set_relay_inbox and set_relay write it (105_relay_options.sql says what they
-- accept), enable_relay, disable_relay and delete_relay change it, the view relay_pipelines is what
-- the daemon reads. Each change is announced on the channel pgtrickle_relay_config.

-- All pipelines as the daemon reads them: without the options for retention, which works in the
-- database. A configuration that is no object, which only a direct INSERT can store, is the daemon's
-- to refuse. An unchanged row_version (the transaction that wrote the row) means an unchanged row. A
-- time could not show that: a transaction may commit after a later one, and clocks may be set back.
create or replace view pgtrickle.relay_pipelines as
  select name, direction, enabled,
         case jsonb_typeof(config)
           when 'object' then config - array['retention_hours', 'retention_hold_hours',
                                             'max_hold_hours', 'max_hold_bytes']
           else config end as config,
         updated_at, xmin as row_version
  from pgtrickle.relay_config;
comment on view pgtrickle.relay_pipelines is 'All pipelines, as the relay reads them';

do $$
declare
  t record;
begin
  for t in select * from (values
    ('relay_outbox_config', 'forward', 'Forward pipelines: from an outbox to a message system'),
    ('relay_inbox_config', 'reverse', 'Reverse pipelines: from a message system to an inbox'),
    ('relay_bridge_config', 'bridge', 'Pipelines from any source to any sink')
  ) as v (name, direction, says) loop
    execute format('create or replace view pgtrickle.%I as '
                   'select name, enabled, config, outbox_name, created_at, updated_at, '
                   'enabled_changed_at, direction from pgtrickle.relay_config '
                   'where direction = %L with local check option', t.name, t.direction);
    execute format('alter view pgtrickle.%I alter column direction set default %L', t.name,
                   t.direction);
    execute format('comment on view pgtrickle.%I is %L', t.name, t.says);
  end loop;
end $$;

-- Maintains the columns that depend on others: outbox_name, and the timestamps (updated_at moves
-- with any change, enabled_changed_at with `enabled` only).
create or replace function pgtrickle_internal.relay_config_touch() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  new.outbox_name := pgtrickle_internal.relay_outbox_name(new.config);
  if tg_op = 'INSERT' then
    return new;
  end if;
  if new.enabled is distinct from old.enabled then
    new.enabled_changed_at := clock_timestamp();
  end if;
  if row(new.enabled, new.config) is distinct from row(old.enabled, old.config) then
    new.updated_at := clock_timestamp();
  end if;
  return new;
end $$;

-- Notifies pgtrickle_relay_config of a change of one pipeline, unless nothing has changed.
create or replace function pgtrickle_internal.relay_config_notify() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  event text;
  pipeline record;
begin
  if tg_op = 'DELETE' then
    pipeline := old;
    event := 'deleted';
  elsif tg_op = 'INSERT' then
    pipeline := new;
    event := 'created';
  elsif new.enabled <> old.enabled then
    pipeline := new;
    event := case when new.enabled then 'enabled' else 'disabled' end;
  elsif new.config <> old.config then
    pipeline := new;
    event := 'updated';
  else
    return null;
  end if;
  perform pg_notify('pgtrickle_relay_config', jsonb_build_object(
    'direction', pipeline.direction, 'event', event, 'name', pipeline.name,
    'enabled', pipeline.enabled and event <> 'deleted')::text);
  return null;
end $$;

-- Only where they are missing: making a trigger keeps those who change pipelines waiting. They are
-- always on because retention goes by outbox_name, whatever session_replication_role the writer has.
do $$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'pgtrickle.relay_config'::regclass and t.tgname = 'notify'
                   and t.tgenabled = 'A') then
    create or replace trigger touch before insert or update on pgtrickle.relay_config
      for each row execute function pgtrickle_internal.relay_config_touch();
    create or replace trigger notify after insert or update or delete on pgtrickle.relay_config
      for each row execute function pgtrickle_internal.relay_config_notify();
    alter table pgtrickle.relay_config enable always trigger touch, enable always trigger notify;
  end if;
end $$;

-- Wakes the relay for something other than a changed configuration.
create or replace function pgtrickle_internal.relay_control_notify(pipeline text, action text)
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
  select pg_notify('pgtrickle_relay_config', jsonb_build_object(
    'event', 'control', 'name', pipeline, 'action', action)::text);
$$;

-- Stores a pipeline whose configuration is valid. A new one is disabled unless `enabled` says
-- otherwise; an existing one keeps its state unless `enabled` is given. A name belongs to one
-- pipeline, whatever its direction.
create or replace function pgtrickle_internal.store_relay(name text, direction text, config jsonb,
                                                          enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  taken text;
begin
  perform pgtrickle_internal.require_no_feed_pipeline(name, config);
  perform pgtrickle_internal.check_relay(name, direction, config);
  perform pgtrickle_internal.lock('pipeline ' || name);
  select c.direction into taken from pgtrickle.relay_config c where c.name = store_relay.name;
  if taken <> direction then
    raise exception 'pipeline "%" exists already, as a % pipeline', name, taken
      using errcode = 'duplicate_object',
            hint = format('Choose another name, or drop it first: '
                          'SELECT pgtrickle.delete_relay(%L);', name);
  elsif exists (select from pgtrickle_internal.consumer_groups g
                where g.name = store_relay.name) then
    raise exception 'there is already a consumer group "%"', name
      using errcode = 'duplicate_object', hint = 'Choose another name.';
  end if;
  insert into pgtrickle.relay_config as t (name, direction, enabled, config)
  values (store_relay.name, store_relay.direction, coalesce(store_relay.enabled, false),
          store_relay.config)
  on conflict on constraint relay_config_pkey do update
  set config = excluded.config, enabled = coalesce(store_relay.enabled, t.enabled);
end $$;

-- Raises a clear error unless there is such a pipeline in the catalog, or, with `also_from_files`,
-- one that a running relay has reported (pipelines of configuration files are known only so).
create or replace function pgtrickle_internal.require_relay(name text,
                                                            also_from_files boolean default false)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  reported boolean;
  near text;
begin
  if exists (select from pgtrickle.relay_config c where c.name = require_relay.name) then
    return;
  end if;
  reported := exists (select from pgtrickle.relay_pipeline_status s
                      where s.pipeline = require_relay.name);
  if reported and also_from_files then
    return;
  elsif reported then
    raise exception 'pipeline "%" is not in the catalog: it comes from a configuration file', name
      using errcode = 'undefined_object', hint = 'Change the file, and send SIGHUP to the relay.';
  end if;
  near := pgtrickle_internal.nearest(name, array(select c.name from pgtrickle.relay_config c));
  raise exception 'pipeline "%" does not exist', coalesce(name, '(null)')
    using errcode = 'undefined_object',
          hint = case when near is null
                      then 'SELECT * FROM pgtrickle.list_relay_configs() shows those that do.'
                      else format('Did you mean "%s"?', near) end;
end $$;

-- Makes or changes a pipeline that may read an outbox, with its caller's rights: a table whose
-- outbox is missing gets one, as if the caller had called enable_outbox. Only the name of
-- the outbox is looked up under `caller_path`.
create or replace function pgtrickle_internal.set_relay(
  name text, direction text, config jsonb, enabled boolean, caller_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.check_relay(name, direction, config);
  if pgtrickle_internal.relay_type(config, 'source') = 'alerts' then
    perform pgtrickle.relay_open_alerts();
  end if;
  if pgtrickle_internal.relay_outbox_name(config) is not null then
    perform pgtrickle_internal.ensure_outbox(pgtrickle_internal.relay_outbox_name(config),
                                             (config ->> 'retention_hours')::numeric::int, caller_path);
  end if;
  perform pgtrickle_internal.store_relay(name, direction, config, enabled);
end $$;

-- Makes or changes a forward pipeline. It runs under its caller's search_path, to hand it on: it
-- looks nothing up by it.
create or replace function pgtrickle.set_relay_outbox(name text, config jsonb,
                                                      enabled boolean default null) returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.set_relay(name, 'forward'::pg_catalog.text, config, enabled,
                                       pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;
comment on function pgtrickle.set_relay_outbox(text, jsonb, boolean) is
  'Makes or changes a pipeline from an outbox to a sink; a new one waits for enable_relay';

-- A forward pipeline's configuration from separate values.
create or replace function pgtrickle_internal.relay_outbox_parts(
  outbox text, "group" text, sink jsonb, retention_hours int) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'source', jsonb_build_object('type', 'outbox', 'outbox', outbox, 'group', "group"),
    'sink', sink, 'retention_hours', retention_hours));
$$;

-- The same, in separate arguments. `sink` has no default on purpose: a JSON literal without a cast
-- must find the form that it is meant for.
create or replace function pgtrickle.set_relay_outbox(name text, outbox text, "group" text,
                                                      sink jsonb, retention_hours int default null,
                                                      enabled boolean default null) returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.set_relay(
    name, 'forward'::pg_catalog.text,
    pgtrickle_internal.relay_outbox_parts(outbox, "group", sink, retention_hours), enabled,
    pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;
comment on function pgtrickle.set_relay_outbox(text, text, text, jsonb, int, boolean) is
  'Makes or changes a pipeline from an outbox to a sink, {"type": ..., ...}; "group" is the name '
  'under which its position is kept (null: the relay''s group)';

-- Makes or changes a reverse pipeline.
create or replace function pgtrickle.set_relay_inbox(name text, config jsonb,
                                                     enabled boolean default null) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.store_relay(name, 'reverse', config, enabled);
$$;
comment on function pgtrickle.set_relay_inbox(text, jsonb, boolean) is
  'Makes or changes a pipeline from a message system to an inbox; a new one waits for enable_relay';

-- The same, in separate arguments; what is null is left to the inbox's defaults.
create or replace function pgtrickle.set_relay_inbox(name text, inbox text, source jsonb,
                                                     max_retries int default null,
                                                     schedule text default null,
                                                     with_dead_letter boolean default null,
                                                     retention_hours int default null,
                                                     enabled boolean default null) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle.set_relay_inbox(
    name,
    jsonb_strip_nulls(jsonb_build_object(
      'source', source,
      'sink', jsonb_build_object('type', 'inbox', 'inbox_name', inbox, 'max_retries', max_retries,
                                 'schedule', schedule, 'with_dead_letter', with_dead_letter,
                                 'retention_hours', retention_hours))),
    enabled);
$$;
comment on function
  pgtrickle.set_relay_inbox(text, text, jsonb, int, text, boolean, int, boolean) is
  'Makes or changes a pipeline from a source, {"type": ..., ...}, to an inbox';

-- The form for literals without casts: with three of them PostgreSQL cannot choose between the other
-- two forms, but prefers text. ('name', '{...}', null) means the form with the configuration.
create or replace function pgtrickle.set_relay_inbox(name text, inbox text, source text,
                                                     max_retries int default null,
                                                     schedule text default null,
                                                     with_dead_letter boolean default null,
                                                     retention_hours int default null,
                                                     enabled boolean default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if inbox ~ E'^\\s*\\{' then
    perform pgtrickle.set_relay_inbox(name, inbox::jsonb, source::boolean);
  else
    perform pgtrickle.set_relay_inbox(name, inbox, source::jsonb, max_retries, schedule,
                                      with_dead_letter, retention_hours, enabled);
  end if;
end $$;
comment on function
  pgtrickle.set_relay_inbox(text, text, text, int, text, boolean, int, boolean) is
  'Makes or changes a pipeline from a source, {"type": ..., ...}, to an inbox';

-- Makes or changes a pipeline from any source to any sink. From an outbox it does what
-- set_relay_outbox does.
create or replace function pgtrickle.set_relay(name text, config jsonb,
                                               enabled boolean default null) returns void
language plpgsql
as $$
begin
  perform pgtrickle_internal.set_relay(name, 'bridge'::pg_catalog.text, config, enabled,
                                       pg_catalog.current_setting('search_path'::pg_catalog.text));
end $$;
comment on function pgtrickle.set_relay(text, jsonb, boolean) is
  'Makes or changes a pipeline from any source to any sink: {"source": {...}, "sink": {...}}';

-- What a name means under a search_path; null where it means nothing or is malformed. Under that
-- path to_regclass alone is called.
create or replace function pgtrickle_internal.try_regclass(name text,
                                                           path text default 'pg_catalog, pg_temp')
returns regclass
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('search_path', path, true);
  return pg_catalog.to_regclass(name);
exception when others then
  return null;
end $$;

-- Makes sure that an outbox of this name is there: a table without one gets it, with its default
-- options. `retention_hours`, when given, is the outbox's from now on. Under the caller's
-- search_path the name must not mean another table than the one whose outbox the relay would find.
create or replace function pgtrickle_internal.ensure_outbox(outbox text, retention_hours int,
                                                            caller_path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  here constant regclass := pgtrickle_internal.try_regclass(outbox, caller_path);
  known record;
begin
  select r.outbox_table_name, r.kind, s.oid::regclass as source,
         to_regclass(format('pgtrickle.%I', r.outbox_table_name)) as table_itself
  into known
  from pgtrickle.relay_resolve_outbox(outbox) r
  left join pg_class s on s.oid = r.stream_table_oid;
  if known.source <> here and known.table_itself <> here then
    raise exception 'the outbox "%" is that of %, but here the name means %', outbox, known.source,
        here
      using errcode = 'ambiguous_alias', hint = 'Qualify the table''s name with its schema.';
  end if;
  -- An outbox can outlive its table; one that was made again under the name gets its own.
  if known.outbox_table_name is null
     or (known.kind not in ('events', 'adopted') and known.source is null and here is not null) then
    if here is null then
      raise exception 'there is no outbox and no table "%"', outbox
        using errcode = 'undefined_table',
              hint = 'Create the table or stream table first, or qualify its name with its schema; '
                     'pgtrickle.create_outbox() makes an outbox for application events.';
    end if;
    perform pgtrickle.enable_outbox((
      select format('%I.%I', n.nspname, c.relname)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = here));
  end if;
  if retention_hours is not null then
    perform pgtrickle_internal.set_outbox_retention(outbox, retention_hours);
  end if;
end $$;

-- Stores how long an outbox keeps its rows. An administrator of pipelines sets it for any outbox.
create or replace function pgtrickle_internal.set_outbox_retention(outbox text, retention_hours int)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if retention_hours is null or retention_hours < 0 then
    raise exception 'retention_hours must be 0 or more' using errcode = 'invalid_parameter_value';
  end if;
  update pgtrickle_internal.outbox_config c
  set retention_hours = set_outbox_retention.retention_hours
  where c.incarnation = (select r.incarnation from pgtrickle.relay_resolve_outbox(outbox) r)
    and c.retention_hours is distinct from set_outbox_retention.retention_hours;
end $$;

create or replace function pgtrickle_internal.switch_relay(name text, enabled boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_relay(name);
  update pgtrickle.relay_config c set enabled = switch_relay.enabled
  where c.name = switch_relay.name and c.enabled <> switch_relay.enabled;
end $$;

create or replace function pgtrickle.enable_relay(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select pgtrickle_internal.switch_relay(name, true); $$;
comment on function pgtrickle.enable_relay(text) is 'Lets a pipeline run';

create or replace function pgtrickle.disable_relay(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select pgtrickle_internal.switch_relay(name, false); $$;
comment on function pgtrickle.disable_relay(text) is
  'Stops a pipeline; it keeps its position, and for a time the rows that it has not read';

-- Deletes a pipeline: its configuration, positions, status and pending requests. Its dead letters are
-- kept for inspection, resolved as 'pipeline deleted'; so are its replays, unfinished ones as failed.
-- (The numbers of replays are part of message ids, and must not be used again.)
create or replace function pgtrickle.delete_relay(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_relay(name);
  perform pgtrickle_internal.require_no_feed_pipeline(name);
  perform pgtrickle_internal.remove_relay(name);
end $$;
comment on function pgtrickle.delete_relay(text) is
  'Deletes a pipeline with its positions and status; its dead letters stay, marked as resolved';

create or replace function pgtrickle_internal.remove_relay(name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgtrickle.relay_config c where c.name = remove_relay.name;
  delete from pgtrickle_internal.locks l where l.name = 'pipeline ' || remove_relay.name;
  delete from pgtrickle.relay_consumer_offsets o where o.pipeline_id = remove_relay.name;
  delete from pgtrickle.relay_pipeline_status s where s.pipeline = remove_relay.name;
  delete from pgtrickle.relay_pipeline_control s where s.pipeline = remove_relay.name;
  update pgtrickle.relay_replays r
  set finished_at = clock_timestamp(), error = 'pipeline deleted'
  where r.pipeline = remove_relay.name and r.finished_at is null;
  update pgtrickle.relay_dlq d
  set resolved_at = clock_timestamp(), resolution = 'pipeline deleted', retry_requested_at = null
  where d.pipeline = remove_relay.name and d.resolved_at is null;
end $$;

create or replace function pgtrickle.get_relay_config(name text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_relay(name);
  return (select c.config from pgtrickle.relay_config c where c.name = get_relay_config.name);
end $$;
comment on function pgtrickle.get_relay_config(text) is 'A pipeline''s configuration as it was set';

create or replace function pgtrickle.list_relay_configs()
returns table (name text, direction text, enabled boolean, config jsonb)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select c.name, c.direction, c.enabled, c.config from pgtrickle.relay_config c order by c.name;
$$;
comment on function pgtrickle.list_relay_configs() is 'All pipelines of the catalog';

-- What the daemon calls.
grant execute on function
  pgtrickle.enable_relay(text), pgtrickle.disable_relay(text), pgtrickle.get_relay_config(text),
  pgtrickle.list_relay_configs()
  to pgtrickle_relay;
-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.store_relay(text, text, jsonb, boolean),
  pgtrickle_internal.set_relay(text, text, jsonb, boolean, text),
  pgtrickle_internal.relay_outbox_parts(text, text, jsonb, integer),
  pgtrickle_internal.try_regclass(text, text),
  pgtrickle_internal.ensure_outbox(text, integer, text),
  pgtrickle_internal.set_outbox_retention(text, integer)
  to pgtrickle_admin;
