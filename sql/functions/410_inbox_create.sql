-- How inboxes are created.

-- The statements that make an inbox's table.
create or replace function pgtrickle_internal.inbox_table_script(qualified text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format($script$
    create table %1$s (
      event_id     text primary key,
      event_type   text,
      source       text,
      aggregate_id text,
      payload      jsonb,
      headers      jsonb,
      received_at  timestamptz not null default clock_timestamp(),
      processed_at timestamptz,
      processed    boolean generated always as (processed_at is not null) stored,
      error        text,
      retry_count  int not null default 0,
      trace_id     text);
    create index on %1$s (received_at) where processed_at is null;
    create index on %1$s (processed_at) where processed_at is not null;
    create index on %1$s (retry_count) where processed_at is null and retry_count > 0;
    comment on table %1$s is
      'Inbox: messages that arrived, one row each, unique by event_id (create_inbox)';
  $script$, qualified);
$$;

-- The condition of a dead letter: it failed as often as max_retries allows.
create or replace function pgtrickle_internal.inbox_is_dead(inbox pgtrickle.pgt_inbox_config)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when inbox.with_dead_letter and inbox.columns ? 'retry_count'
              then format('%s >= %s', pgtrickle_internal.inbox_column(inbox, 'retry_count'),
                          inbox.max_retries)
              else 'false' end;
$$;

-- The views of an inbox and what they show, where it has the columns that they need.
create or replace function pgtrickle_internal.inbox_views(inbox pgtrickle.pgt_inbox_config)
returns table (name text, query text)
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  source constant text := pgtrickle_internal.inbox_table(inbox);
  done constant text := pgtrickle_internal.inbox_column(inbox, 'processed_at');
  received constant text := coalesce(pgtrickle_internal.inbox_column(inbox, 'received_at'),
                                     'null::timestamptz');
  type constant text := coalesce(pgtrickle_internal.inbox_column(inbox, 'event_type'), 'null::text');
  dead constant text := pgtrickle_internal.inbox_is_dead(inbox);
begin
  return query
    select v.name, v.query
    from (values
      (inbox.pending_view,
       format('select * from %s where %s is null and not coalesce(%s, false)', source, done, dead)),
      (inbox.dlq_view,
       format('select * from %s where %s is null and %s', source, done, dead)),
      (inbox.stats_view,
       format($view$
         select %1$s as event_type, count(*) as total, count(%2$s) as processed,
                count(*) filter (where %2$s is null and not coalesce(%3$s, false)) as pending,
                count(*) filter (where %2$s is null and %3$s) as dead_letters,
                min(%4$s) filter (where %2$s is null and not coalesce(%3$s, false))
                  as oldest_pending_at,
                max(%4$s) as last_received_at,
                extract(epoch from avg(%2$s::timestamptz - %4$s::timestamptz))::float8
                  as average_processing_seconds
         from %5$s group by 1$view$, type, done, dead, received, source))) v (name, query)
    where v.name is not null;
end $$;

-- The view of an inbox that has this name: one in the schema of its table, over its table. Null
-- where there is none.
create or replace function pgtrickle_internal.inbox_view(
  inbox pgtrickle.pgt_inbox_config, name text) returns regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select v.oid
  from pg_class v
  join pg_namespace n on n.oid = v.relnamespace
  where n.nspname = inbox.table_schema and v.relkind = 'v' and v.relname = name
    and exists (select
                from pg_rewrite w
                join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                where w.ev_class = v.oid and d.refclassid = 'pg_class'::regclass
                  and d.refobjid = inbox.relation);
$$;

-- The name that a view of an inbox shall have: that of the one it has, else <name>_pending and so
-- on, or, where that is taken, the same with 7 hexadecimal digits.
create or replace function pgtrickle_internal.inbox_view_name(
  inbox pgtrickle.pgt_inbox_config, suffix text, view regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  name text := pgtrickle_internal.inbox_relation_name('', inbox.inbox_name, suffix);
begin
  if view is not null then
    return (select c.relname from pg_class c where c.oid = view);
  elsif exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = inbox.table_schema and c.relname = name) then
    return pgtrickle_internal.inbox_relation_name('', inbox.inbox_name, suffix, true);
  end if;
  return name;
end $$;

-- Names the views that an inbox shall have; `old` is the inbox as it is in the catalog.
create or replace function pgtrickle_internal.inbox_name_views(
  inbox pgtrickle.pgt_inbox_config, old pgtrickle.pgt_inbox_config)
returns pgtrickle.pgt_inbox_config
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  counts_tries constant boolean := inbox.with_dead_letter and inbox.columns ? 'retry_count';
begin
  inbox.pending_view := null;
  inbox.dlq_view := null;
  inbox.stats_view := null;
  if inbox.columns ? 'processed_at' then
    inbox.pending_view := pgtrickle_internal.inbox_view_name(
      inbox, '_pending', pgtrickle_internal.inbox_view(old, old.pending_view));
    if counts_tries then
      inbox.dlq_view := pgtrickle_internal.inbox_view_name(
        inbox, '_dlq', pgtrickle_internal.inbox_view(old, old.dlq_view));
    end if;
    if inbox.with_stats then
      inbox.stats_view := pgtrickle_internal.inbox_view_name(
        inbox, '_stats', pgtrickle_internal.inbox_view(old, old.stats_view));
    end if;
  end if;
  return inbox;
end $$;

-- Gives a view the names that columns of its table have now, where the table was renamed a column.
create or replace function pgtrickle_internal.follow_inbox_columns(view regclass, rel regclass)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  renamed record;
begin
  -- A view shows the columns in the table's order. One that it shows cannot be dropped alone.
  for renamed in
    with shown as (
      select a.attname, row_number() over (order by a.attnum) as n
      from pg_attribute a where a.attrelid = view and a.attnum > 0
    ), stored as (
      select a.attname, row_number() over (order by a.attnum) as n
      from pg_attribute a where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
    )
    select v.attname as old, t.attname as new
    from shown v join stored t using (n)
    where v.attname not in (select s.attname from stored s)
      and t.attname not in (select s.attname from shown s)
  loop
    execute format('alter view %s rename column %I to %I', view, renamed.old, renamed.new);
  end loop;
end $$;

-- Makes a view of an inbox, or has `view` show what it shall show now. That one keeps its rights,
-- its options, its comment, whatever depends on it, and its owner, who is the table's or a member
-- of that role: any other could change the view at any moment.
create or replace function pgtrickle_internal.put_inbox_view(
  inbox pgtrickle.pgt_inbox_config, view regclass, name text, query text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  qualified constant text := format('%I.%I', inbox.table_schema, name);
  owner constant oid := (select c.relowner from pg_class c where c.oid = inbox.relation);
  former constant oid := pgtrickle_internal.gate_owner(
    (select f.gate_function from pgtrickle_internal.find_inbox(inbox.inbox_name) f));
  belongs_to constant oid := (select c.relowner from pg_class c where c.oid = view);
begin
  if view is null then
    execute format('create view %s as %s', qualified, query);
    execute format('grant select on %s to pgtrickle_relay, pgtrickle_admin', qualified);
  elsif not pg_has_role(belongs_to, owner, 'MEMBER') and belongs_to is distinct from former then
    raise exception 'view % belongs to %, not to the owner of its table', view, belongs_to::regrole
      using errcode = 'insufficient_privilege',
            hint = format('ALTER VIEW %s OWNER TO %s;', view, owner::regrole);
  else
    if view::text <> qualified then
      execute format('alter view %s set schema %I', view, inbox.table_schema);
    end if;
    if name in (inbox.pending_view, inbox.dlq_view) then
      perform pgtrickle_internal.follow_inbox_columns(view, inbox.relation);
    end if;
    execute format('create or replace view %s%s as %s', qualified, (
                     select format(' with (%s)', array_to_string(c.reloptions, ', '))
                     from pg_class c where c.oid = view and c.reloptions is not null), query);
  end if;
  if owner <> coalesce(belongs_to, (select r.oid from pg_roles r where r.rolname = current_user))
     and (view is null or belongs_to = former) then
    perform pgtrickle_internal.give_inbox_view(qualified, owner);
  end if;
exception when invalid_table_definition then
  raise exception 'view % shows other columns than inbox "%" has now', qualified, inbox.inbox_name
    using errcode = 'invalid_table_definition', detail = sqlerrm,
          hint = format('DROP VIEW %s; its rights and what depends on it are to be made again.',
                        qualified);
end $$;

-- Has an inbox the views that it shall have; `old` is the inbox as it is in the catalog. Those that
-- it shall have no longer are dropped, unless something depends on them.
create or replace function pgtrickle_internal.build_inbox_views(
  inbox pgtrickle.pgt_inbox_config, old pgtrickle.pgt_inbox_config) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  for v in
    select s.name, s.query,
           pgtrickle_internal.inbox_view(old, case s.name when inbox.pending_view then old.pending_view
                                                  when inbox.dlq_view then old.dlq_view
                                                  else old.stats_view end) as view
    from pgtrickle_internal.inbox_views(inbox) s
  loop
    perform pgtrickle_internal.put_inbox_view(inbox, v.view, v.name, v.query);
  end loop;
  -- What was kept is not dropped.
  old.pending_view := nullif(old.pending_view, inbox.pending_view);
  old.dlq_view := nullif(old.dlq_view, inbox.dlq_view);
  old.stats_view := nullif(old.stats_view, inbox.stats_view);
  execute pgtrickle_internal.inbox_drop_views_script(old);
end $$;

-- Writes an inbox into the catalog, over what stands there under its name or about a table that is
-- gone. For pgtrickle_owner only.
create or replace function pgtrickle_internal.store_inbox(inbox pgtrickle.pgt_inbox_config)
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
  delete from pgtrickle.pgt_inbox_config c
  where c.inbox_name = inbox.inbox_name
     or (c.table_schema = inbox.table_schema and c.table_name = inbox.table_name
         and not exists (select from pg_class r where r.oid = c.relation));
  insert into pgtrickle.pgt_inbox_config select inbox.*;
$$;

-- Writes an inbox whose table is not ours into the catalog. Its table's owner has agreed to it: the
-- function that works on the table is there, belongs to that owner and is made for this inbox.
create or replace function pgtrickle_internal.register_inbox(inbox pgtrickle.pgt_inbox_config)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
      select
      from pg_class c
      join pg_proc p on p.proowner = c.relowner and p.proname = inbox.gate_function
      where c.oid = inbox.relation and c.oid = pgtrickle_internal.inbox_relation(inbox)
        and p.pronamespace = (select n.oid from pg_namespace n
                              where n.nspname = 'pgtrickle_streams')
        and p.prosrc = pgtrickle_internal.gate_source(inbox.gate_function,
                                                      pgtrickle_internal.inbox_gate_body(inbox))) then
    raise exception 'the owner of % has not made it the inbox "%"',
      pgtrickle_internal.inbox_table(inbox), inbox.inbox_name
      using errcode = 'insufficient_privilege',
            hint = 'Call pgtrickle.enable_inbox_tracking().';
  elsif exists (select from pgtrickle.pgt_inbox_config c
                join pg_class r on r.oid = c.relation
                where c.inbox_name = inbox.inbox_name and c.relation <> inbox.relation
                  and (c.table_schema, c.table_name)
                      <> (inbox.table_schema, inbox.table_name)) then
    raise exception 'inbox "%" exists already, and is another table', inbox.inbox_name
      using errcode = 'duplicate_object';
  end if;
  perform pgtrickle_internal.store_inbox(inbox);
end $$;

-- Makes the function that works on the table of an inbox as its owner; returns its name. The caller
-- is the owner, a member of it, or a superuser.
create or replace function pgtrickle_internal.make_inbox_function(inbox pgtrickle.pgt_inbox_config)
returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  owner constant oid := (select c.relowner from pg_class c where c.oid = inbox.relation);
  old constant text := (select f.gate_function from pgtrickle_internal.find_inbox(inbox.inbox_name) f);
  made constant text := case when pgtrickle_internal.gate_owner(old) = owner then old
                             else pgtrickle_internal.gate_name('inbox') end;
begin
  perform pgtrickle_internal.gate_function(made, owner, pgtrickle_internal.inbox_gate_body(inbox));
  if old <> made then
    perform pgtrickle_internal.gate_drop(old);
  end if;
  return made;
end $$;

-- Gives the views of an inbox to the owner of its table, so that they read it with that owner's
-- rights. Where that owner may not create in the schema they stay the caller's, who is a member of
-- it.
create or replace function pgtrickle_internal.give_inbox_view(view text, owner oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('alter view %s owner to %s', view, owner::regrole);
exception when insufficient_privilege then
  null;
end $$;

-- Makes what an inbox needs, with the rights of the caller: the table (unless it is there), the
-- views, the rights of the relay, and the function that works on the table as its owner. A table of
-- pgtrickle_owner needs no such function, and must hold nothing that is not ours.
create or replace function pgtrickle_internal.build_inbox(inbox pgtrickle.pgt_inbox_config)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  qualified constant text := pgtrickle_internal.inbox_table(inbox);
  owner oid;
  old pgtrickle.pgt_inbox_config;
  foreign_part text;
begin
  if pgtrickle_internal.inbox_relation(inbox) is null then
    execute pgtrickle_internal.inbox_table_script(qualified);
    execute format('revoke all on %s from public', qualified);
  end if;
  inbox.relation := pgtrickle_internal.inbox_relation(inbox);
  select c.relowner into owner from pg_class c where c.oid = inbox.relation and c.relkind <> 'v';
  if owner is null then
    raise exception '% is no table', qualified using errcode = 'wrong_object_type';
  end if;
  inbox.columns := pgtrickle_internal.inbox_columns(inbox.relation, inbox.columns);
  select * into old from pgtrickle_internal.find_inbox(inbox.inbox_name) f;
  inbox := pgtrickle_internal.inbox_name_views(inbox, old);
  perform pgtrickle_internal.build_inbox_views(inbox, old);
  execute format('grant select, insert on %s to pgtrickle_relay', qualified);
  execute format('grant select on %s to pgtrickle_admin', qualified);
  if inbox.table_schema <> 'pgtrickle' then
    execute format('grant usage on schema %I to pgtrickle_relay', inbox.table_schema);
  end if;
  if owner <> 'pgtrickle_owner'::regrole then
    inbox.gate_function := pgtrickle_internal.make_inbox_function(inbox);
    perform pgtrickle_internal.register_inbox(inbox);
    return;
  end if;
  foreign_part := pgtrickle_internal.inbox_foreign_part(inbox.relation);
  if foreign_part is not null then
    raise exception '% cannot be an inbox: it belongs to pgtrickle_owner, but not all of it: %',
      qualified, foreign_part
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('Give it to another role: ALTER TABLE %s OWNER TO ...;', qualified);
  end if;
  inbox.gate_function := null;
  insert into pgtrickle_internal.inbox_tables values (inbox.relation) on conflict do nothing;
  perform pgtrickle_internal.store_inbox(inbox);
end $$;

-- The same for an inbox in the schema pgtrickle, where only pgtrickle_owner makes anything. The
-- caller chooses the names and the settings only: of our tables, those of inboxes alone have the
-- columns that are asked for.
create or replace function pgtrickle_internal.build_own_inbox(inbox pgtrickle.pgt_inbox_config)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  inbox.table_schema := 'pgtrickle';
  inbox.columns := '{}';
  inbox.made_here := pgtrickle_internal.inbox_relation(inbox) is null;
  if exists (select from pgtrickle.pgt_inbox_config c join pg_class r on r.oid = c.relation
             where c.inbox_name = inbox.inbox_name) then
    raise exception 'inbox "%" exists already', inbox.inbox_name
      using errcode = 'duplicate_object';
  end if;
  perform pgtrickle_internal.build_inbox(inbox);
end $$;

create or replace function pgtrickle_internal.check_inbox_settings(
  name text, max_retries int, schedule text, retention_hours int) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(name, '') = '' or name ~ '[[:cntrl:]]' then
    raise exception 'an inbox needs a name, without control characters'
      using errcode = 'invalid_parameter_value';
  elsif max_retries < 1 then
    raise exception 'max_retries must be 1 or more' using errcode = 'invalid_parameter_value';
  elsif retention_hours < 1 then
    raise exception 'retention_hours must be 1 or more' using errcode = 'invalid_parameter_value';
  end if;
end $$;

-- Gives an inbox that is there other settings; what is null stays.
create or replace function pgtrickle_internal.change_inbox(
  name text, max_retries int, schedule text, with_dead_letter boolean, with_stats boolean,
  retention_hours int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  old pgtrickle.pgt_inbox_config;
  new pgtrickle.pgt_inbox_config;
begin
  select * into old from pgtrickle.pgt_inbox_config c where c.inbox_name = name for update;
  new := old;
  new.max_retries := coalesce(change_inbox.max_retries, old.max_retries);
  new.schedule := coalesce(change_inbox.schedule, old.schedule);
  new.with_dead_letter := coalesce(change_inbox.with_dead_letter, old.with_dead_letter);
  new.with_stats := coalesce(change_inbox.with_stats, old.with_stats);
  new.retention_hours := coalesce(change_inbox.retention_hours, old.retention_hours);
  if new is not distinct from old then
    return;
  end if;
  if row(new.max_retries, new.with_dead_letter, new.with_stats)
       is distinct from row(old.max_retries, old.with_dead_letter, old.with_stats) then
    if not pgtrickle_internal.inbox_is_ours(old) then
      raise exception 'the views of inbox "%" are not ours to change', name
        using errcode = 'object_not_in_prerequisite_state',
              hint = case
                when row(new.with_dead_letter, new.with_stats)
                       is not distinct from row(old.with_dead_letter, old.with_stats)
                  then pgtrickle_internal.inbox_enabling(new)
                else 'Drop the inbox with its table kept, and make it again with these settings.'
                end;
    end if;
    perform pgtrickle_internal.build_inbox(new);
  else
    perform pgtrickle_internal.store_inbox(new);
  end if;
end $$;

-- Makes the inbox <schema>.inbox_<name>. In another schema than pgtrickle its table and views
-- belong to the caller, who must be able to create there.
create or replace function pgtrickle.create_inbox(
  name text, schema text default 'pgtrickle', max_retries int default 3,
  schedule text default '1s', with_dead_letter boolean default true,
  with_stats boolean default true, retention_hours int default 72) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
  rel regclass;
begin
  perform pgtrickle_internal.check_inbox_settings(name, max_retries, schedule, retention_hours);
  perform pgtrickle_internal.lock('inbox ' || name);
  select * into inbox from pgtrickle_internal.find_inbox(name) f;
  if inbox.inbox_name is not null and pgtrickle_internal.inbox_relation(inbox) is not null then
    if inbox.table_schema <> schema then
      raise exception 'inbox "%" exists already, in the schema "%"', name, inbox.table_schema
        using errcode = 'duplicate_object';
    end if;
    raise notice 'inbox "%" exists already', name;
    return pgtrickle_internal.inbox_table(inbox);
  end if;

  inbox.inbox_name := name;
  inbox.table_schema := schema;
  inbox.table_name := pgtrickle_internal.inbox_relation_name('inbox_', name, '');
  inbox.columns := '{}';
  inbox.max_retries := max_retries;
  inbox.schedule := schedule;
  inbox.with_dead_letter := with_dead_letter;
  inbox.with_stats := with_stats;
  inbox.retention_hours := retention_hours;
  inbox.created_at := clock_timestamp();
  inbox.relation := null;
  inbox.gate_function := null;
  rel := pgtrickle_internal.inbox_relation(inbox);
  inbox.made_here := rel is null;
  if rel is not null then
    raise notice 'table % exists already and becomes the inbox "%"', rel, name;
  end if;
  if schema = 'pgtrickle' and (rel is null or (select c.relowner = 'pgtrickle_owner'::regrole
                                               from pg_class c where c.oid = rel)) then
    perform pgtrickle_internal.build_own_inbox(inbox);
  else
    perform pgtrickle_internal.build_inbox(inbox);
  end if;
  return pgtrickle_internal.inbox_table(inbox);
end $$;
comment on function pgtrickle.create_inbox(text, text, int, text, boolean, boolean, int) is
  'Makes the inbox <schema>.inbox_<name>, with the views <name>_pending, <name>_dlq, <name>_stats; '
  'returns its table''s name';

-- An inbox by exactly its name, for functions that run with their caller's rights.
create or replace function pgtrickle_internal.find_inbox(name text)
returns setof pgtrickle.pgt_inbox_config
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$ select c.* from pgtrickle.pgt_inbox_config c where c.inbox_name = name; $$;

-- Makes a table of the caller's an inbox: the relay may write it, and the functions for consumers
-- work on it. `columns` says which column holds what where names differ: {"event_id": "id",
-- "payload": "body"}; event_id must be unique. `table_name` is resolved under the caller's
-- search_path. Called again, it changes the settings, and takes over a table that has changed hands
-- or was made anew; the views stay and show what they shall show now.
create or replace function pgtrickle.enable_inbox_tracking(
  name text, table_name text, columns jsonb default '{}', max_retries int default 3,
  retention_hours int default null) returns void
language plpgsql
as $$
declare
  rel constant pg_catalog.regclass := table_name::pg_catalog.regclass;
begin
  perform pgtrickle_internal.track_inbox(name, rel, coalesce(columns, '{}'), max_retries, retention_hours);
end $$;
comment on function pgtrickle.enable_inbox_tracking(text, text, jsonb, int, int) is
  'Makes an existing table an inbox; columns: {"event_id": "<column>", ...} where names differ';

-- Without a retention nothing is ever deleted from such a table.
create or replace function pgtrickle_internal.track_inbox(name text, rel regclass, columns jsonb,
                                                          max_retries int, retention_hours int)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
  old pgtrickle.pgt_inbox_config;
begin
  perform pgtrickle_internal.check_inbox_settings(name, max_retries, null, retention_hours);
  perform pgtrickle_internal.lock('inbox ' || name);
  select * into old from pgtrickle_internal.find_inbox(name) f;
  select n.nspname, c.relname into inbox.table_schema, inbox.table_name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = rel;
  if old.relation <> rel and exists (select from pg_class c where c.oid = old.relation)
     and row(old.table_schema, old.table_name)
         <> row(inbox.table_schema, inbox.table_name) then
    raise exception 'inbox "%" exists already, and is another table', name
      using errcode = 'duplicate_object';
  end if;
  inbox.inbox_name := name;
  inbox.columns := columns;
  inbox.made_here := coalesce(old.relation = rel and old.made_here, false);
  inbox.max_retries := coalesce(max_retries, 3);
  inbox.retention_hours := coalesce(retention_hours, 2147483647);
  inbox.schedule := old.schedule;
  inbox.with_dead_letter := coalesce(old.with_dead_letter, true);
  inbox.with_stats := coalesce(old.with_stats, true);
  inbox.created_at := coalesce(old.created_at, clock_timestamp());
  perform pgtrickle_internal.build_inbox(inbox);
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.inbox_table_script(text),
  pgtrickle_internal.inbox_is_dead(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_views(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_view(pgtrickle.pgt_inbox_config, text),
  pgtrickle_internal.inbox_view_name(pgtrickle.pgt_inbox_config, text, regclass),
  pgtrickle_internal.inbox_name_views(pgtrickle.pgt_inbox_config, pgtrickle.pgt_inbox_config),
  pgtrickle_internal.follow_inbox_columns(regclass, regclass),
  pgtrickle_internal.put_inbox_view(pgtrickle.pgt_inbox_config, regclass, text, text),
  pgtrickle_internal.build_inbox_views(pgtrickle.pgt_inbox_config, pgtrickle.pgt_inbox_config),
  pgtrickle_internal.register_inbox(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.make_inbox_function(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.give_inbox_view(text, oid),
  pgtrickle_internal.build_inbox(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.build_own_inbox(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.check_inbox_settings(text, integer, text, integer),
  pgtrickle_internal.find_inbox(text),
  pgtrickle_internal.track_inbox(text, regclass, jsonb, integer, integer)
  to pgtrickle_admin;
