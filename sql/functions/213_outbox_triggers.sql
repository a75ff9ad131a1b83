-- The triggers that a table has for its outbox, and how they are attached. Run by the table's owner.

-- A relation's name with its schema, as SQL wants it.
create or replace function pgtrickle_internal.qualified(rel regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('%I.%I', n.nspname, c.relname)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel;
$$;

-- The triggers that a relation has for an outbox, and when each fires, as pg_trigger.tgenabled
-- says: O not under session_replication_role = replica, R only there, A always. `place` is table,
-- root, middle, leaf or foreign (of a partition tree), or part (a partition with its own outbox).
--
-- Their names begin with ! so that ours come before the user's, whose triggers may write again.
-- A row trigger on a partitioned table is inherited by each partition from the moment it exists,
-- so that no change of a new partition is missed; where the partition has statement triggers of
-- its own, the row trigger has nothing left to do.
create or replace function pgtrickle_internal.capture_triggers(
  outbox pgtrickle_internal.outbox_config, place text)
returns table (what text, trigger_name text, fires "char", inherited boolean, definition text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.what, format('!pgtrickle_%s_%s', outbox.outbox_number, t.what), t.fires, t.inherited,
         t.definition || format(' execute function pgtrickle_internal.%I(%s)',
           'capture_' || outbox.outbox_number || '_' || case when t.what like 'truncat%'
                                                              then 'truncate' else t.what end,
           t.argument)
  from (values
    ('begin', case outbox.capture when 'row' then 'A' else 'O' end::"char", false, true, '',
     'before insert or update or delete on %s for each statement'),
    ('insert', 'O', false, outbox.capture = 'statement', '',
     'after insert on %s referencing new table as new_rows for each statement'),
    ('update', 'O', false, outbox.capture = 'statement', '',
     'after update on %s referencing old table as old_rows new table as new_rows '
     'for each statement'),
    ('delete', 'O', false, outbox.capture = 'statement', '',
     'after delete on %s referencing old table as old_rows for each statement'),
    ('end', 'A', false, outbox.capture = 'row', '',
     'after insert or update or delete on %s for each statement'),
    ('row', case when outbox.capture = 'statement' and place in ('table', 'leaf')
                 then 'R' else 'A' end::"char",
     place in ('leaf', 'middle', 'foreign'), true, '',
     'after insert or update or delete on %s for each row'),
    ('truncating', 'A', false, place = 'root', quote_literal('whole'),
     'before truncate on %s for each statement'),
    ('truncate', 'A', false, place in ('table', 'root', 'part'), quote_literal('whole'),
     'after truncate on %s for each statement'),
    ('truncate', 'A', false, place = 'leaf', quote_literal('part'),
     'before truncate on %s for each statement')
  ) as t (what, fires, inherited, wanted, argument, definition)
  -- A foreign table has the row trigger that it inherits: PostgreSQL has no transition rows for it.
  where t.wanted and (place <> 'foreign' or t.what = 'row');
$$;

-- The triggers of a relation that call functions of an outbox, whatever their names, and those with
-- names of an outbox's triggers; not those that it inherits.
create or replace function pgtrickle_internal.capture_triggers_of(number int, rel regclass)
returns setof name
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.tgname
  from pg_trigger t join pg_proc f on f.oid = t.tgfoid
  where t.tgrelid = rel and t.tgparentid = 0 and not t.tgisinternal
    and (starts_with(t.tgname, format('!pgtrickle_%s_', number))
         or (f.pronamespace = 'pgtrickle_internal'::regnamespace
             and f.proname ~ format('^capture_%s_[a-z]+$', number)));
$$;

-- Drops a trigger of ours. That keeps readers out: where the lock that is held does not do so yet, it
-- gives up sooner than PostgreSQL looks for deadlocks, and no reader queues behind it for long.
create or replace function pgtrickle_internal.capture_drop_trigger(trigger_name text, rel regclass)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  before constant text := current_setting('lock_timeout');
begin
  perform set_config('lock_timeout', '100ms', true);
  execute format('drop trigger %I on %s', trigger_name, pgtrickle_internal.qualified(rel));
  perform set_config('lock_timeout', before, true);
end $$;

-- Attaches the triggers of an outbox to one relation, or repairs existing ones.
create or replace function pgtrickle_internal.capture_attach(
  outbox pgtrickle_internal.outbox_config, rel regclass, place text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  t record;
begin
  for t in select * from pgtrickle_internal.capture_triggers(outbox, place) loop
    if not t.inherited then
      execute pg_catalog.format('create or replace trigger %I ', t.trigger_name)
        || pg_catalog.format(t.definition, pgtrickle_internal.qualified(rel));
    end if;
    execute pg_catalog.format('alter table %s enable %s trigger %I', pgtrickle_internal.qualified(rel),
                              case t.fires when 'R' then 'replica' when 'A' then 'always'
                                           else '' end,
                              t.trigger_name);
  end loop;
  for t in
    select o.trigger_name
    from pgtrickle_internal.capture_triggers_of(outbox.outbox_number, rel) o (trigger_name)
    where o.trigger_name not in (select w.trigger_name
                                 from pgtrickle_internal.capture_triggers(outbox, place) w)
  loop
    perform pgtrickle_internal.capture_drop_trigger(t.trigger_name, rel);
  end loop;
end $$;

-- Drops the triggers of an outbox on one relation.
create or replace function pgtrickle_internal.capture_detach(number int, rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  name text;
begin
  for name in
    select o.trigger_name from pgtrickle_internal.capture_triggers_of(number, rel) o (trigger_name)
  loop
    perform pgtrickle_internal.capture_drop_trigger(name, rel);
  end loop;
end $$;

-- A partitioned table and its partitions, or a table alone. Unlike pg_partition_tree() it locks none of
-- them: those locks last until the end of the transaction, and an ALTER of the table would wait
-- for them while upkeep waits for the table.
create or replace function pgtrickle_internal.partition_tree(root oid)
returns table (relid oid, relkind "char", is_leaf boolean)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive tree (relid, relkind) as (
    select c.oid, c.relkind from pg_class c where c.oid = root
    union all
    select c.oid, c.relkind
    from tree t
    join pg_inherits i on i.inhparent = t.relid and t.relkind = 'p'
    join pg_class c on c.oid = i.inhrelid and c.relispartition
  )
  select t.relid, t.relkind, t.relkind <> 'p' from tree t;
$$;

-- The place of each relation of a source in its partition tree.
create or replace function pgtrickle_internal.capture_places(source regclass)
returns table (rel regclass, place text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.relid, case when p.relid = source then 'root' when p.relkind = 'f' then 'foreign'
                       when p.is_leaf then 'leaf' else 'middle' end
  from pg_class c cross join lateral pgtrickle_internal.partition_tree(c.oid) p
  where c.oid = source and c.relkind = 'p'
  union all
  select c.oid, case when c.relispartition then 'part' else 'table' end
  from pg_class c where c.oid = source and c.relkind = 'r';
$$;

-- ---------------------------------------------------------------------------------------------
-- Reading the table

-- The actions of an outbox's reader (outbox_config.reader). It runs as the owner of the table, who
-- alone may read it:
--   rows    all rows of arg.relation as jsonb; those of a table's children by INHERITS are not its own
--   any     one row: whether arg.relation has any, as jsonb
--   page    the rows behind the key arg.after, up to arg.until, in order of the key, at most arg.most
--   beyond  the numbers (ord) of those of arg.rows, from 1, whose keys are beyond arg.bound
--   lock    keeps writers out of arg.relation until the transaction ends
--   enable  lets arg.trigger, one of the outbox's, fire as arg.fires says (pg_trigger.tgenabled)
-- arg.relation is the oid of a table that has the outbox's triggers, or is a stream table. A key is an
-- object with the columns arg.key, and arg.operators is the schema of their operators. It is an error where row security
-- would hide rows, where a partition belongs to another role (whose index expressions would run as the
-- owner of the table), and where this transaction is too old to know the columns.
create or replace function pgtrickle_internal.outbox_reader_body(number int) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select format($body$
declare
  rel constant regclass := (arg ->> 'relation')::oid;
  name constant text := (select format('%%I.%%I', n.nspname, c.relname)
                         from pg_class c join pg_namespace n on n.oid = c.relnamespace
                         where c.oid = rel);
  only_ constant text := (select case when c.relkind = 'r' then 'only ' else '' end
                          from pg_class c where c.oid = rel);
  row_security_was constant text := current_setting('row_security');
  strange text;
  k record;
  bounds record;
begin
  if not exists (select from pg_trigger t
                 join pg_proc f on f.oid = t.tgfoid
                 where t.tgrelid = rel and f.pronamespace = 'pgtrickle_internal'::regnamespace
                   and f.proname ~ '^(capture_%s_[a-z]+|stream_guard)$') then
    raise exception '%% has no triggers of the outbox', rel;
  end if;
  select format('%%s belongs to %%s, and not to %%s', p.oid::regclass, p.relowner::regrole,
                current_user)
  into strange
  from pg_class p
  where p.oid in (
      with recursive tree (relid) as (
        select rel::oid
        union
        select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.relid
        join pg_class c on c.oid = i.inhrelid and c.relispartition)
      select t.relid from tree t)
    and p.relowner <> (select r.oid from pg_roles r where r.rolname = current_user)
  limit 1;
  if strange is not null then
    raise exception '%%', strange using errcode = 'insufficient_privilege';
  end if;
  if action = 'page' then
    -- From here on no TRUNCATE and no rewriting can take rows away that the snapshot has.
    execute format('lock table %%s%%s in access share mode', only_, name);
  end if;
  if action in ('rows', 'any', 'page') and pgtrickle_json.shape(rel) is null then
    raise exception 'this transaction began before the columns of %% were changed', rel
      using errcode = case action when 'page' then 'serialization_failure'
                                  else 'object_not_in_prerequisite_state' end;
  end if;
  perform set_config('row_security', 'off', true);
  -- How keys are written in a statement: x is the table, k an object with a key.
  select string_agg(format('x.%%I', a.attname), ', ' order by n) as of_table,
         string_agg(format('k.%%I', a.attname), ', ' order by n) as of_object,
         string_agg(format('x.%%I using operator(%%I.<)', a.attname, arg ->> 'operators'), ', '
                    order by n) as in_order,
         string_agg(format('%%I %%s%%s', a.attname, format_type(a.atttypid, a.atttypmod),
                           (select format(' collate %%I.%%I', s.nspname, c.collname)
                            from pg_collation c join pg_namespace s on s.oid = c.collnamespace
                            where c.oid = a.attcollation)), ', ' order by n) as fields
  into k
  from jsonb_array_elements_text(arg -> 'key') with ordinality u (field, n)
  join pg_attribute a on a.attrelid = rel and a.attname = u.field;
  case action
    when 'page' then
      -- Subqueries, so that the index of the key is used.
      select string_agg(format('(select k.%%I from jsonb_to_record($1) as k(%%s))', u.field, k.fields),
                        ', ' order by n) as "after",
             string_agg(format('(select k.%%I from jsonb_to_record($2) as k(%%s))', u.field, k.fields),
                        ', ' order by n) as "until"
      into bounds
      from jsonb_array_elements_text(arg -> 'key') with ordinality u (field, n);
      return query execute format(
        'select null::text, null::bigint, %%s from %%s%%s x where true%%s%%s order by %%s limit %%s',
        pgtrickle_json.row_sql(rel, 'x', 'x.*'), only_, name,
        case when arg -> 'after' <> 'null' then format(' and row(%%s) operator(%%I.>) row(%%s)',
                                                       k.of_table, arg ->> 'operators', bounds.after) end,
        case when arg -> 'until' <> 'null' then format(' and row(%%s) operator(%%I.<=) row(%%s)',
                                                       k.of_table, arg ->> 'operators', bounds.until) end,
        k.in_order, (arg ->> 'most')::bigint)
        using arg -> 'after', arg -> 'until';
    when 'beyond' then
      return query execute format(
        'select null::text, e.n, null::jsonb '
        'from jsonb_array_elements($1) with ordinality e (j, n) '
        'cross join lateral jsonb_to_record(e.j) as x(%%s) '
        'cross join jsonb_to_record($2) as k(%%s) where row(%%s) operator(%%I.>) row(%%s)',
        k.fields, k.fields, k.of_table, arg ->> 'operators', k.of_object)
        using arg -> 'rows', arg -> 'bound';
    when 'rows' then
      return query execute format('select null::text, null::bigint, %%s from %%s%%s x',
                                  pgtrickle_json.row_sql(rel, 'x', 'x.*'), only_, name);
    when 'any' then
      return query execute format('select null::text, null::bigint, '
                                  'to_jsonb(exists (select from %%s%%s))', only_, name);
    when 'lock' then
      execute format('lock table %%s in share row exclusive mode', name);
    when 'enable' then
      execute format('alter table %%s enable %%s trigger %%I', name,
                     case arg ->> 'fires' when 'R' then 'replica' when 'A' then 'always'
                                          else '' end,
                     '!pgtrickle_%s_' || (arg ->> 'trigger'));
  end case;
  perform set_config('row_security', row_security_was, true);
end $body$, number, number);
$$;

-- Makes the function by which the rows of an outbox's table are read, with the caller's rights, who
-- must have those of the table's owner.
create or replace function pgtrickle_internal.outbox_make_reader(number int, source regclass)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  owner constant oid := (select c.relowner from pg_class c where c.oid = source);
  reader text := (select c.reader from pgtrickle_internal.outbox_config c
                  where c.outbox_number = number);
begin
  if owner = 'pgtrickle_owner'::regrole then
    return;  -- an inbox of ours: see outbox_read
  elsif reader is null then
    reader := pgtrickle_internal.outbox_name_reader(number);
  elsif pgtrickle_internal.gate_owner(reader) <> owner then
    -- The table has another owner than it had.
    perform pgtrickle_internal.gate_drop(reader);
    reader := pgtrickle_internal.outbox_name_reader(number);
  end if;
  perform pgtrickle_internal.gate_function(reader, owner, pgtrickle_internal.outbox_reader_body(number));
end $$;

-- Gives the reader of an outbox another name, where a function of that name is there that is not the
-- table's owner's.
create or replace function pgtrickle_internal.outbox_name_reader(number int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle_internal.outbox_config c set reader = pgtrickle_internal.gate_name('outbox')
  from pg_class r
  where c.outbox_number = number and r.oid = c.stream_table_oid
    and pgtrickle_internal.gate_owner(c.reader) is distinct from r.relowner;
  return (select c.reader from pgtrickle_internal.outbox_config c where c.outbox_number = number);
end $$;

-- Reads a relation of an outbox's table, as the owner of the table; see outbox_reader_body. In a table
-- of pgtrickle_owner, an inbox, there is no code of other roles.
create or replace function pgtrickle_internal.outbox_read(
  outbox pgtrickle_internal.outbox_config, rel oid, action text) returns setof jsonb
language plpgsql set search_path = pg_catalog, pg_temp
  -- As capture writes values: see pgtrickle_json._settings_known().
  set array_nulls = on set bytea_output = hex set DateStyle = ISO set extra_float_digits = 1
  set IntervalStyle = postgres set lc_monetary = 'C' set quote_all_identifiers = off
  set TimeZone = 'UTC'
as $$
declare
  source pg_class;
begin
  select * into strict source from pg_class c where c.oid = outbox.stream_table_oid;
  if source.relowner = 'pgtrickle_owner'::regrole and source.relkind = 'r' and action = 'rows' then
    return query execute format('select %s from only %s x',
                                pgtrickle_json.row_sql(source.oid, 'x', 'x.*'),
                                source.oid::regclass);
    return;
  end if;
  return query
    select g.row_data
    from pgtrickle_internal.gate_step(
      outbox.reader, source.relowner,
      format('the outbox of %I.%I', outbox.stream_table_schema, outbox.stream_table_name),
      action, jsonb_build_object('relation', rel::bigint)) g;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.qualified(regclass),
  pgtrickle_internal.capture_triggers(pgtrickle_internal.outbox_config, text),
  pgtrickle_internal.capture_triggers_of(integer, regclass),
  pgtrickle_internal.capture_drop_trigger(text, regclass),
  pgtrickle_internal.capture_attach(pgtrickle_internal.outbox_config, regclass, text),
  pgtrickle_internal.capture_detach(integer, regclass), pgtrickle_internal.partition_tree(oid),
  pgtrickle_internal.capture_places(regclass), pgtrickle_internal.outbox_reader_body(integer),
  pgtrickle_internal.outbox_make_reader(integer, regclass),
  pgtrickle_internal.outbox_name_reader(integer)
  to pgtrickle_admin;
