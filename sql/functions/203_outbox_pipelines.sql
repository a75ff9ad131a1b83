-- The outbox that a pipeline reads: the one that it names, or, once it has a position, that of the
-- position.
--
-- The meaning of a name can change while a pipeline runs. If a table of the same name in another
-- schema gets an outbox, the name is ambiguous: the pipeline stays with the outbox of its position.
-- If a table is renamed and another one gets its name, the pipeline would deliver the one under the
-- name of the other: it stops.

-- Whether a name, with its parts as SQL reads them, is one of a table's.
create or replace function pgtrickle_internal.is_name_of(name text, parts text[], schema_name text,
                                                         table_name text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select name in (table_name, quote_ident(table_name), schema_name || '.' || table_name,
                  quote_ident(schema_name) || '.' || quote_ident(table_name))
      or parts in (array[table_name], array[schema_name, table_name]);
$$;

-- Whether a name is that of an outbox's own table.
create or replace function pgtrickle_internal.is_outbox_table(name text, outbox_table text)
returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select name in (outbox_table, 'pgtrickle.' || outbox_table,
                  format('pgtrickle.%I', outbox_table));
$$;

-- The number of the outbox that a pipeline reads under a name: the one that its position stands on, if
-- it has one of the name (of the group; of any group where none is given), else the one that the name
-- means. Null where there is none, an error when several could be meant.
create or replace function pgtrickle_internal.pipeline_outbox(
  name text, relay_group text, pipeline text) returns int
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  parts constant text[] := pgtrickle_internal.name_parts(name);
  numbers int[];
begin
  select array_agg(distinct c.outbox_number) into numbers
  from pgtrickle.relay_consumer_offsets o
  join pgtrickle_internal.outbox_config c on c.incarnation = o.incarnation
  left join pg_class r on r.oid = c.stream_table_oid
  left join pg_namespace n on n.oid = r.relnamespace
  where o.pipeline_id = pipeline and (relay_group is null or o.relay_group_id = relay_group)
    and c.source_dropped_at is null
    and (o.outbox_name = name
         or (o.outbox_name is null
             and (pgtrickle_internal.is_name_of(name, parts, c.stream_table_schema, c.stream_table_name)
                  or pgtrickle_internal.is_name_of(name, parts, n.nspname, r.relname))));
  if cardinality(numbers) = 1 and not exists (
      select from pgtrickle_internal.outbox_config c
      where pgtrickle_internal.is_outbox_table(name, c.outbox_table_name)) then
    return numbers[1];
  end if;
  return (select c.outbox_number from pgtrickle.relay_resolve_outbox(name) c);
end $$;

-- The outbox that a pipeline reads. `named_schema` and `named_table`: the table that its name means, for
-- relay_outbox_name_holds; null where the name is that of an outbox itself.
create or replace function pgtrickle.relay_pipeline_outbox(
  name text, relay_group text, pipeline text, out incarnation uuid, out named_schema text,
  out named_table text)
returns setof record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  parts constant text[] := pgtrickle_internal.name_parts(name);
begin
  return query
  select c.incarnation, w.schema_name, w.table_name
  from pgtrickle_internal.outbox_config c
  left join pg_class r on r.oid = c.stream_table_oid
  left join pg_namespace n on n.oid = r.relnamespace
  left join lateral (
    select v.schema_name, v.table_name
    from (values (1, c.stream_table_schema, c.stream_table_name::text),
                 (2, n.nspname::text, r.relname::text)) v (ord, schema_name, table_name)
    where pgtrickle_internal.is_name_of(name, parts, v.schema_name, v.table_name)
    union all
    select case cardinality(parts) when 1 then c.stream_table_schema else parts[1] end,
           parts[cardinality(parts)]
    where cardinality(parts) in (1, 2)
    limit 1
  ) w on c.kind not in ('events', 'adopted') and not pgtrickle_internal.is_outbox_table(name, c.outbox_table_name)
  where c.outbox_number = pgtrickle_internal.pipeline_outbox(name, relay_group, pipeline);
end $$;
comment on function pgtrickle.relay_pipeline_outbox(text, text, text) is
  'For the relay: the outbox that a pipeline reads';

-- True; an error where the table of an outbox has lost the name by which a pipeline means it to another
-- relation. It is asked in each statement that reads rows, under the same snapshot, so that nothing
-- that the table recorded after the name changed hands is delivered under it.
create or replace function pgtrickle.relay_outbox_name_holds(incarnation uuid, named_schema text,
                                                             named_table text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
  -- The relay's sessions plan each statement again, which would take longer than everything else.
  set plan_cache_mode = force_generic_plan
as $$
declare
  outbox record;
  now_named text;
begin
  -- Nearly always the table still has the name.
  if exists (select from pgtrickle_internal.outbox_config c
             join pg_class r on r.oid = c.stream_table_oid
             join pg_namespace n on n.oid = r.relnamespace
             where c.incarnation = relay_outbox_name_holds.incarnation
               and r.relname = named_table and n.nspname = named_schema) then
    return true;
  end if;
  select c.outbox_number, c.outbox_table_name into outbox
  from pgtrickle_internal.outbox_config c
  where c.incarnation = relay_outbox_name_holds.incarnation;
  now_named := pgtrickle_internal.outbox_lost_name(outbox.outbox_number, named_schema, named_table);
  if now_named is not null then
    raise exception 'the table that outbox % records is called % now, and %.% is another relation',
        outbox.outbox_table_name, now_named, quote_ident(named_schema), quote_ident(named_table)
      using errcode = 'object_not_in_prerequisite_state',
            hint = format('To go on with %s, name the outbox %s in the pipeline. To go on with the '
                          'other relation, give it an outbox of its own (enable_outbox) and name '
                          'that one. Or rename the tables back.', now_named,
                          outbox.outbox_table_name);
  end if;
  return true;
end $$;
comment on function pgtrickle.relay_outbox_name_holds(uuid, text, text) is
  'For the relay: raises where a name that meant an outbox''s table means another relation now';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_pipeline_outbox(text, text, text),
  pgtrickle.relay_outbox_name_holds(uuid, text, text)
  to pgtrickle_relay;
