-- The order of what nested statements wrote.
--
-- Whoever applies an outbox row after row, by id, must arrive at the table. Between transactions
-- that comes by itself: a row is recorded while it is locked, so whoever changes it next records
-- that later. Inside one statement it does not: a trigger of the user's that writes to the same
-- table (renumbering neighbours, closing the previous version) is a statement of its own, which
-- ends, and is recorded, before the one that set it off, though it works on rows that the outer one
-- has just written.
--
-- So statements leave marks while they run, in a setting of the transaction, pgtrickle_capture.s<n>
-- (a rollback to a savepoint restores it): a stack, one entry a running statement and operation,
--   <i|u|d><trigger depth>[:<tag>/<first id>];
-- A nested statement tags its outbox row (refresh_id, which tables do not use) for the level
-- outside of it. When the last operation of a level has been recorded, the rows tagged for it are
-- written again behind it, with new ids. That is right whatever the triggers do: the outer
-- statement can only have changed row versions that the nested ones had not yet touched, and at
-- that moment all the rows are locked by this transaction. Where nothing is nested, a mark costs a
-- few microseconds. Nothing outside can be harmed by a forged setting: tags are random, and rows
-- that are committed have none.
--
-- A function with side effects on the table called in the middle of a statement on it
-- (INSERT ... SELECT f(x)) has the same trigger depth and counts as its neighbour: recorded first.

-- The body of the BEFORE STATEMENT trigger.
create or replace function pgtrickle._capture_begin_body(outbox pgtrickle.pgt_outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  marks text := pg_catalog.current_setting({mark}, true);
  depth int := pg_catalog.pg_trigger_depth();
  caller text;
begin
  if depth > 1 then
    -- A foreign key's cascade is recorded together with the statement that set it off.
    get diagnostics caller = pg_context;
    if pg_catalog.regexp_match(pg_catalog.split_part(caller, e'\n', 2),
         '(DELETE FROM|UPDATE) (ONLY )?".*\$[0-9]+ OPERATOR\(pg_catalog\.') is not null then
      depth := depth - 1;
    end if;
  end if;
  marks := pg_catalog.set_config({mark}, pg_catalog.concat(
    marks, pg_catalog.lower(pg_catalog."left"(tg_op, 1)), depth, ';'), true);
  return null;
end $body$, pgtrickle._capture_names(outbox));
$$;

-- The body of the AFTER STATEMENT trigger where rows are recorded one by one.
create or replace function pgtrickle._capture_end_body(outbox pgtrickle.pgt_outbox_config)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle._fill($body$
declare
  marks text := current_setting({mark}, true);
begin
  if position(':' in marks) = 0 and right(marks, 3) = lower(left(tg_op, 1)) || '1;' then
    marks := set_config({mark}, left(marks, -3), true);
  else
    perform pgtrickle._capture_settle({number}, lower(left(tg_op, 1)), null);
  end if;
  return null;
end $body$, pgtrickle._capture_names(outbox));
$$;

-- The depth of a mark, and its tag.
create or replace function pgtrickle._mark_depth(mark text) returns int
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select substring(mark from '^[iud](\d+)')::int; $$;

create or replace function pgtrickle._mark_tag(mark text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select substring(mark from ':(.*)$'); $$;

-- The marks of an outbox's running statements, outermost first.
create or replace function pgtrickle._marks_read(number int) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_to_array(rtrim(coalesce(current_setting('pgtrickle_capture.s' || number, true), ''),
                               ';'), ';');
$$;

create or replace function pgtrickle._marks_write(number int, marks text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('pgtrickle_capture.s' || number,
                     array_to_string(marks, ';') || case when marks <> '{}' then ';' else '' end,
                     true);
end $$;

-- Which mark of the level around `depth` holds its tag, or is to hold it; null at the outermost.
create or replace function pgtrickle._mark_around(marks text[], depth int) returns int
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  with outer_marks as (
    select i, marks[i] as mark, pgtrickle._mark_depth(marks[i]) as at
    from generate_subscripts(marks, 1) i
    where pgtrickle._mark_depth(marks[i]) < depth
  )
  select o.i from outer_marks o
  where o.at = (select l.at from outer_marks l order by l.i desc limit 1)
  order by pgtrickle._mark_tag(o.mark) is null, o.i desc
  limit 1;
$$;

-- Tags the outbox rows `ids` for the level around `depth`; returns the marks as they are then.
create or replace function pgtrickle._capture_tag(outbox_table text, marks text[], depth int,
                                                  ids bigint[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  around int := pgtrickle._mark_around(marks, depth);
  tag text;
begin
  if around is null or coalesce(cardinality(ids), 0) = 0 then
    return marks;
  end if;
  tag := pgtrickle._mark_tag(marks[around]);
  if tag is null then
    tag := gen_random_uuid() || '/' || ids[1];
    marks[around] := marks[around] || ':' || tag;
  end if;
  execute format('update pgtrickle.%I set refresh_id = $1 where id = any ($2)', outbox_table)
    using split_part(tag, '/', 1)::uuid, ids;
  return marks;
end $$;

-- Writes the rows with a tag again, behind everything written so far, in their order; returns
-- their new ids. They keep what they say, pgt_id included.
create or replace function pgtrickle._capture_move(outbox_table text, delta_table text, tag text)
returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[];
begin
  execute format($sql$
    with gone as (
      delete from pgtrickle.%1$I where refresh_id = $1 and id >= $2 returning *
    ), again as (
      insert into pgtrickle.%1$I (pgt_id, created_at, inserted_count, deleted_count, is_claim_check,
                                  tg_op, payload, headers)
      select pgt_id, created_at, inserted_count, deleted_count, is_claim_check, tg_op, payload,
             headers
      from gone order by id
      returning id, pgt_id
    ), rows_too as (
      update pgtrickle.%2$I d set outbox_id = again.id
      from gone join again using (pgt_id)
      where gone.is_claim_check and d.outbox_id = gone.id
    )
    select array_agg(id order by id) from again$sql$, outbox_table, delta_table)
    into ids using split_part(tag, '/', 1)::uuid, split_part(tag, '/', 2)::bigint;
  return ids;
end $$;

-- A statement's operation has been recorded (as `written`; null: nothing was): takes its mark away,
-- and when it was the last of its level, brings what was nested in the level behind it.
create or replace function pgtrickle._capture_settle(number int, op text, written bigint)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  marks text[] := pgtrickle._marks_read(number);
  mine int := (select max(i) from generate_subscripts(marks, 1) i where left(marks[i], 1) = op);
  neighbour int;
  depth int;
  tag text;
begin
  if mine is null then
    return;
  end if;
  select * into outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  depth := pgtrickle._mark_depth(marks[mine]);
  tag := pgtrickle._mark_tag(marks[mine]);
  marks := marks[:mine - 1] || marks[mine + 1:];
  if written is not null then
    marks := pgtrickle._capture_tag(outbox.outbox_table_name, marks, depth, array[written]);
  end if;
  if tag is not null then
    neighbour := (select max(i) from generate_subscripts(marks, 1) i
                  where pgtrickle._mark_depth(marks[i]) = depth);
    if neighbour is not null then
      marks[neighbour] := marks[neighbour] || ':' || tag;
    else
      marks := pgtrickle._capture_tag(
        outbox.outbox_table_name, marks, depth,
        pgtrickle._capture_move(outbox.outbox_table_name, outbox.delta_table_name, tag));
    end if;
  end if;
  perform pgtrickle._marks_write(number, marks);
end $$;

-- A row has been recorded by itself, as `written`: belongs to the level around, if there is one.
create or replace function pgtrickle._capture_adopt(number int, written bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  marks text[] := pgtrickle._marks_read(number);
begin
  perform pgtrickle._marks_write(number, pgtrickle._capture_tag(
    (select c.outbox_table_name from pgtrickle.pgt_outbox_config c where c.outbox_number = number),
    marks, pg_trigger_depth(), array[written]));
end $$;
