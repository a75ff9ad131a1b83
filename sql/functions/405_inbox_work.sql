-- What is done in the table of an inbox: marking, failing, replaying, counting, deleting. The same
-- code runs as pgtrickle_owner where the table is ours, and in a function of its owner's, through
-- the gate, where it is not.

-- The part of the block below that says which rows are those of `arg`: it sets `is_wanted`, a
-- condition.
--
-- A message is the row whose id reads, letter by letter, as the one that is given. The type of the
-- column may take several texts for one value: it cuts (name, varchar(3)), rounds (numeric(6,0)) or
-- folds (citext, some collations). So its index finds the row, under the index's own operator and
-- collation, and the text decides. Two types have spellings: a uuid is found by any of them, and
-- blanks at the end of a char(n) mean nothing. Ids are written as literals of the type below
-- domains, without its length: a literal is read by the type's input function, a parameter would be
-- cast, by whatever cast the type's owner made.
create or replace function pgtrickle_internal.inbox_id_code() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $function$
  select $code$
declare
  id text := quote_ident(columns ->> 'event_id');
  id_column record;
  id_type record;
  id_index record;
  is_equal text;
  compared_as oid;
  shown text;
  given text;
begin
  select a.attrelid as rel, a.attnum as nr, a.attcollation as collation, a.atttypid as type
  into id_column
  from pg_attribute a
  where a.attrelid = to_regclass(place) and a.attname = columns ->> 'event_id';
  if not found then
    raise exception '% has no column %', place, id
      using errcode = 'undefined_column', hint = 'Call pgtrickle.enable_inbox_tracking() again.';
  end if;
  loop
    select y.typtype, y.typbasetype, y.typnamespace = 'pg_catalog'::regnamespace as of_server
    into id_type from pg_type y where y.oid = id_column.type;
    exit when id_type.typtype <> 'd';
    id_column.type := id_type.typbasetype;
  end loop;
  select i.indclass[0] as class, i.indcollation[0] as collation into id_index
  from pg_index i
  where i.indrelid = id_column.rel and i.indkey[0] = id_column.nr and i.indnkeyatts = 1
    and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
  order by i.indisprimary desc, i.indexrelid limit 1;
  if not id_type.of_server then
    select format('operator(%I.%s)', n.nspname, p.oprname),
           case when t.typtype <> 'p' then t.oid end
    into is_equal, compared_as
    from pg_opclass c
    join pg_type t on t.oid = c.opcintype
    join pg_amop e on e.amopfamily = c.opcfamily and e.amoplefttype = c.opcintype
                  and e.amoprighttype = c.opcintype and e.amopstrategy = 3
    join pg_operator p on p.oid = e.amopopr
    join pg_namespace n on n.oid = p.oprnamespace
    where c.oid = id_index.class;
  end if;
  shown := format(E'format(\'%%s\', %s)', id);
  given := arg ->> 'event_id';
  if id_column.type = 'bpchar'::regtype then
    shown := format(E'rtrim(%s, \' \')', shown);
    given := rtrim(given, ' ');
  end if;
  if arg ? 'event_ids' then
    given := array(
      select case id_column.type when 'bpchar'::regtype then rtrim(e, ' ') else e end
      from jsonb_array_elements_text(arg -> 'event_ids') e);
  end if;
  if id_index.collation <> id_column.collation then
    id := id || (select format(' collate %I.%I', n.nspname, k.collname)
                 from pg_collation k join pg_namespace n on n.oid = k.collnamespace
                 where k.oid = id_index.collation);
  end if;
  is_wanted := format(
    case when arg ? 'event_ids' then '%s %s any (%L::%s[])' else '%s %s %L::%s' end,
    id, coalesce(is_equal, '='), given,
    format_type(coalesce(compared_as, id_column.type), -1));
  if id_column.type <> 'uuid'::regtype
     and (id_column.type not in ('text'::regtype, 'varchar'::regtype)
          or id_index.collation is distinct from id_column.collation
          or id_column.collation not in ('"default"'::regcollation, '"C"'::regcollation)) then
    is_wanted := is_wanted || format(
      case when arg ? 'event_ids' then ' and %s collate "C" = any (%L)'
           else ' and %s collate "C" = %L' end, shown, given);
  end if;
end;
$code$
$function$;

-- One block of PL/pgSQL. It finds `place` (the table, as it stands in a statement), `columns`
-- (field -> column), `action` and `arg`, and returns one row. It uses nothing of ours: the owner of
-- a table need not be able to see the schema pgtrickle.
create or replace function pgtrickle_internal.inbox_code() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $function$
  select replace($code$
declare
  done constant text := quote_ident(columns ->> 'processed_at');
  tries constant text := quote_ident(columns ->> 'retry_count');
  problem constant text := quote_ident(columns ->> 'error');
  received constant text := coalesce(quote_ident(columns ->> 'received_at'), 'null::timestamptz');
  dead constant text := coalesce('coalesce(' || tries || ' >= $1, false)', 'false');
  is_wanted text;
  changed bigint;
  failed int;
  counts record;
  cutoff timestamptz;
  tables oid[];
  places tid[];
begin
  if action in ('processed', 'failed', 'replay') then
    <set is_wanted>
  end if;
  case action
    when 'processed' then
      execute format('update %1$s set %2$s = clock_timestamp() %3$s where %4$s and %2$s is null',
                     place, done, ', ' || problem || ' = null', is_wanted);
      get diagnostics changed = row_count;
    when 'failed' then
      execute format('update %1$s set %2$s = coalesce(%2$s, 0) + 1 %3$s '
                     'where %4$s and %5$s is null returning %2$s',
                     place, tries, ', ' || problem || ' = $1', is_wanted, done)
        into failed using arg ->> 'error';
      get diagnostics changed = row_count;
      if changed > 1 then
        execute format('select max(%s) from %s where %s and %s is null', tries, place, is_wanted,
                       done) into failed;
      end if;
    when 'replay' then
      execute format('update %s set %s = null %s %s where %s', place, done,
                     ', ' || problem || ' = null', ', ' || tries || ' = 0', is_wanted);
      get diagnostics changed = row_count;
    when 'counts' then
      execute format('select count(*) filter (where not %1$s) as pending, '
                     'count(*) filter (where %1$s) as dead_letters, '
                     'min(%2$s) filter (where not %1$s)::timestamptz as oldest_pending_at, '
                     'max(%2$s)::timestamptz as last_received_at '
                     'from %3$s where %4$s is null', dead, received, place, done)
        into counts using (arg ->> 'max_retries')::int;
      row_data := to_jsonb(counts);
    when 'purge' then
      cutoff := clock_timestamp() - make_interval(hours => (arg ->> 'hours')::int);
      execute format('select array_agg(x.o), array_agg(x.i) from ('
                     '  select tableoid as o, ctid as i from %1$s where %2$s < $1 '
                     '  order by %2$s limit $2 for update skip locked) x', place, done)
        into tables, places using cutoff, (arg ->> 'rows')::bigint;
      -- A ctid alone repeats in partitions and children. All of them at once let the server fetch
      -- the rows by place instead of reading the table.
      execute format('delete from %1$s t using unnest($1, $2) g (o, i) '
                     'where t.ctid = any ($2) and t.tableoid = g.o and t.ctid = g.i '
                     '  and t.%2$s < $3', place, done)
        using tables, places, cutoff;
      get diagnostics changed = row_count;
  end case;
  row_data := coalesce(row_data, jsonb_build_object('changed', changed, 'tries', failed));
  return next;
end
$code$, '<set is_wanted>', pgtrickle_internal.inbox_id_code());
$function$;

do $$
begin
  execute format(
    'create or replace function pgtrickle_internal.inbox_work('
    '  place text, columns jsonb, action text, arg jsonb) '
    'returns table (op text, ord bigint, row_data jsonb) '
    'language plpgsql set search_path = pg_catalog, pg_temp as %L', pgtrickle_internal.inbox_code());
end $$;

-- The body of the function of the gate that works on the table of an inbox. With it, the table's
-- owner agrees to what is in `agreed`.
create or replace function pgtrickle_internal.inbox_gate_body(inbox pgtrickle.pgt_inbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format(E'declare\n  place constant text := %L;\n  columns constant jsonb := %L;\n'
                '  agreed constant jsonb := %L;\nbegin\n%s;\nend',
                pgtrickle_internal.inbox_table(inbox), inbox.columns,
                jsonb_build_object('inbox', inbox.inbox_name, 'made_here', inbox.made_here),
                btrim(pgtrickle_internal.inbox_code(), E'\n'));
$$;

-- What keeps us from changing rows of an inbox's table. It belongs to another role than the owner
-- of the table, and would run as that owner when a row is changed: index expressions and triggers
-- of a partition or child, checks of the domains of the columns that are written. Or it is a
-- foreign table: where that stands for several tables, its server changes rows of all of them that
-- have the same place. Null where there is nothing.
create or replace function pgtrickle_internal.inbox_other_owner(
  inbox pgtrickle.pgt_inbox_config, owner oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive tree as (
      select inbox.relation::oid as oid
      union
      select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.oid
    ), domains as (
      select a.attname, a.atttypid as oid from pg_attribute a
      where a.attrelid = inbox.relation and a.attnum > 0 and not a.attisdropped
        and (a.attgenerated <> ''
             or a.attname in (select v from jsonb_each_text(inbox.columns) c (k, v)
                              where k in ('event_id', 'processed_at', 'retry_count', 'error',
                                          'received_at')))
      union
      select d.attname, t.typbasetype from domains d join pg_type t on t.oid = d.oid
      where t.typtype = 'd'
    )
    select found.what from (
      select format('%s belongs to %s', c.oid::regclass, c.relowner::regrole) as what
      from tree join pg_class c on c.oid = tree.oid where c.relowner <> owner
      union all
      select format('%s is a foreign table, whose rows cannot be told apart', c.oid::regclass)
      from tree join pg_class c on c.oid = tree.oid where c.relkind = 'f'
      union all
      select format('the type of column "%s" belongs to %s', d.attname, t.typowner::regrole)
      from domains d join pg_type t on t.oid = d.oid
      where t.typtype = 'd' and t.typowner <> owner
        and not exists (select from pg_roles r where r.oid = t.typowner and r.rolsuper)
    ) found limit 1);
end $$;

-- A table of another role than `owner` from which rows go, or are changed, when one goes from `rel`:
-- before PostgreSQL 18 its AFTER triggers run as the role that deletes. Null where there is none.
create or replace function pgtrickle_internal.inbox_cascade(rel regclass, owner oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('server_version_num')::int >= 180000 then
    return null;
  end if;
  return (
    with recursive reached as (
      select rel::oid as oid
      union
      select n.oid
      from reached r
      cross join lateral (
        select i.inhrelid from pg_inherits i where i.inhparent = r.oid
        union all
        select k.conrelid from pg_constraint k
        where k.contype = 'f' and k.confrelid = r.oid and k.confdeltype in ('c', 'n', 'd')) n (oid)
    )
    select format('triggers of %s, which refers to it and belongs to %s,', c.oid::regclass,
                  c.relowner::regrole)
    from reached r join pg_class c on c.oid = r.oid
    where c.relowner <> owner limit 1);
end $$;

-- What enables an inbox whose table is not ours again, with the settings that it has.
create or replace function pgtrickle_internal.inbox_enabling(inbox pgtrickle.pgt_inbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('Let %s or a superuser run: SELECT pgtrickle.enable_inbox_tracking(%L, %L, '
                'columns => %L, max_retries => %s, retention_hours => %s);',
                c.relowner::regrole, inbox.inbox_name, pgtrickle_internal.inbox_table(inbox), inbox.columns,
                inbox.max_retries,
                coalesce(nullif(inbox.retention_hours, 2147483647)::text, 'null'))
  from pg_class c where c.oid = pgtrickle_internal.inbox_relation(inbox);
$$;

-- Why the table of an inbox that is not ours cannot be worked on, and what mends it. Nulls where it
-- can.
create or replace function pgtrickle_internal.inbox_problem(
  inbox pgtrickle.pgt_inbox_config, out problem text, out remedy text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  rel constant regclass := pgtrickle_internal.inbox_relation(inbox);
  owner constant oid := (select c.relowner from pg_class c where c.oid = rel);
  made_by constant oid := pgtrickle_internal.gate_owner(inbox.gate_function);
begin
  problem := format('inbox "%s" cannot be used: ', inbox.inbox_name) || case
    when rel is null then format('its table %s is gone', pgtrickle_internal.inbox_table(inbox))
    when rel is distinct from inbox.relation
      then format('%s is another table than the one that became the inbox', rel)
    when made_by is null then format('the function that works on %s as its owner is missing', rel)
    when made_by <> owner
      then format('%s belongs to %s now, and to %s when it became the inbox', rel, owner::regrole,
                  made_by::regrole)
    else pgtrickle_internal.inbox_other_owner(inbox, owner)
  end;
  remedy := case
    when problem is null then null
    when rel is null then format('SELECT pgtrickle.drop_inbox(%L) removes what is left of it.',
                                 inbox.inbox_name)
    when made_by = owner and rel = inbox.relation
      then format('Take it off the table, or give it to %s where it belongs to another role.',
                  owner::regrole)
    else pgtrickle_internal.inbox_enabling(inbox)
  end;
end $$;

-- Whether the function that works on the table of an inbox is that of an earlier version: it works
-- as it did then.
create or replace function pgtrickle_internal.inbox_is_outdated(inbox pgtrickle.pgt_inbox_config)
returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from pg_proc p
    where p.pronamespace = (select n.oid from pg_namespace n where n.nspname = 'pgtrickle_streams')
      and p.proname = inbox.gate_function
      and p.prosrc <> pgtrickle_internal.gate_source(inbox.gate_function,
                                                     pgtrickle_internal.inbox_gate_body(inbox)));
end $$;

-- A trigger on the table, or on a part of it, that a step of ours would leave to be run at COMMIT
-- with the session's rights; null where there is none.
create or replace function pgtrickle_internal.inbox_deferred(rel regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive tree as (
      select rel::oid as oid
      union
      select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.oid
    )
    select format('trigger %I on %s', t.tgname, t.tgrelid::regclass)
    from tree
    join pg_trigger t on t.tgrelid = tree.oid
    left join pg_index x on x.indexrelid = t.tgconstrindid
    where t.tgdeferrable
      and (not t.tgisinternal or x.indexprs is not null or x.indpred is not null)
    limit 1);
end $$;

-- The statement by which the owner of the table does the same.
create or replace function pgtrickle_internal.inbox_owner_statement(
  inbox pgtrickle.pgt_inbox_config, action text, arg jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  place constant text := pgtrickle_internal.inbox_table(inbox);
  id constant text := pgtrickle_internal.inbox_column(inbox, 'event_id');
  done constant text := pgtrickle_internal.inbox_column(inbox, 'processed_at');
  tries constant text := pgtrickle_internal.inbox_column(inbox, 'retry_count');
  problem constant text := pgtrickle_internal.inbox_column(inbox, 'error');
  ids constant text := (
    select string_agg(quote_nullable(i), ', ')
    from jsonb_array_elements_text(
      coalesce(arg -> 'event_ids', jsonb_build_array(arg -> 'event_id'))) i);
  is_wanted constant text := format('%1$s IN (%2$s) AND %1$s::text COLLATE "C" IN (%2$s)', id, ids);
begin
  return case action
    when 'processed' then
      format('UPDATE %1$s SET %2$s = now()%3$s WHERE %4$s AND %2$s IS NULL;', place, done,
             ', ' || problem || ' = NULL', is_wanted)
    when 'failed' then
      format('UPDATE %1$s SET %2$s = coalesce(%2$s, 0) + 1%3$s WHERE %4$s AND %5$s IS NULL;',
             place, tries, ', ' || problem || format(' = %L', arg ->> 'error'), is_wanted, done)
    when 'replay' then
      format('UPDATE %s SET %s = NULL%s%s WHERE %s;', place, done,
             ', ' || problem || ' = NULL', ', ' || tries || ' = 0', is_wanted)
    when 'purge' then
      format('DELETE FROM %s WHERE %s < now() - interval ''%s hours'';', place, done,
             arg ->> 'hours')
  end;
end $$;

-- Raises where deleting messages would run code of another role than the owner of the table.
create or replace function pgtrickle_internal.inbox_refuse_cascade(
  inbox pgtrickle.pgt_inbox_config, action text, owner oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  code constant text := case when action = 'purge'
                             then pgtrickle_internal.inbox_cascade(inbox.relation, owner) end;
begin
  if code is not null then
    raise exception '% would run with the rights of %', code, owner::regrole
      using errcode = 'insufficient_privilege',
            hint = 'Make the foreign key ON DELETE NO ACTION, or keep the messages: '
                   'retention_hours => null.';
  end if;
end $$;

-- Does one action in the table of an inbox: as pgtrickle_owner where the table is ours, else
-- through the gate. For pgtrickle_owner only.
create or replace function pgtrickle_internal.inbox_step(
  inbox pgtrickle.pgt_inbox_config, action text, arg jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  place constant text := pgtrickle_internal.inbox_table(inbox);
  owner oid;
  found_problem record;
  deferred text;
  answer jsonb;
begin
  if pgtrickle_internal.inbox_is_ours(inbox) then
    perform pgtrickle_internal.inbox_refuse_cascade(inbox, action, 'pgtrickle_owner'::regrole);
    select w.row_data into answer
    from pgtrickle_internal.inbox_work(place, inbox.columns, action, arg) w;
    return answer;
  end if;
  found_problem := pgtrickle_internal.inbox_problem(inbox);
  if found_problem.problem is not null then
    raise exception '%', found_problem.problem
      using errcode = 'object_not_in_prerequisite_state', hint = found_problem.remedy;
  end if;
  select c.relowner into strict owner from pg_class c where c.oid = inbox.relation;
  deferred := case when action <> 'counts'
                        and owner <> (select r.oid from pg_roles r where r.rolname = session_user)
                   then pgtrickle_internal.inbox_deferred(inbox.relation) end;
  if deferred is not null then
    raise exception '% would run at COMMIT with the rights of this session', deferred
      using errcode = 'insufficient_privilege',
            hint = format('Let %s run: %s', owner::regrole,
                          pgtrickle_internal.inbox_owner_statement(inbox, action, arg));
  end if;
  perform pgtrickle_internal.inbox_refuse_cascade(inbox, action, owner);
  select s.row_data into answer
  from pgtrickle_internal.gate_step(inbox.gate_function, owner, format('inbox "%s"', inbox.inbox_name),
                                    action, arg) s;
  return answer;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.inbox_id_code(), pgtrickle_internal.inbox_code(),
  pgtrickle_internal.inbox_gate_body(pgtrickle.pgt_inbox_config)
  to pgtrickle_admin;
