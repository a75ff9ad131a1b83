-- The order of the changes that nested statements make.
--
-- A consumer that applies an outbox row after row, by id, must end up with the contents of the table.
-- Between transactions this holds without further measures: a row is recorded while it is locked,
-- so the next change to it is recorded later. Inside one statement it does not: a trigger of the
-- user's that writes to the same table (renumbering neighbours, closing the previous version) is a
-- statement of its own, which ends, and is recorded, before the one that set it off, though it
-- works on rows that the outer one has just written.
--
-- So what a nested statement recorded is written again, with new ids, behind the statement around
-- it when that one is recorded. That is right whatever the triggers do: the outer statement can
-- only have changed row versions that the nested ones had not touched, and at that moment all the
-- rows are locked by this transaction. It is done from the first nested row on that needs it: one
-- that deletes a row which the outer statement inserted, or inserts a key which that one deleted.
-- The others stay where they are, so that a consumer that applies deltas by key is right too (a trigger
-- BEFORE INSERT that deletes the row with the same key has done so before).
--
-- The trigger depth shows which statement is nested in which. A statement that is recorded at depth 2
-- or more (1 is a statement of the client's) notes its outbox row under its depth: the row gets a
-- random tag (refresh_id, which tables do not use otherwise), and the transaction's setting
-- pgtrickle_capture.s<number of the outbox> (a rollback to a savepoint restores it) says
--   {"<depth>": ["<tag>", <first id>], ...}|<depth>|<depth>...
-- A statement that begins at depth d finishes what was noted deeper: that belonged to an earlier
-- statement at d. It is noted under d from now on, and forgotten at depth 1. (The beginning only
-- appends |d; the next statement that reads the setting does the work.) A statement recorded at depth d looks
-- at what is noted deeper than d, and leaves it noted there, for an INSERT ... ON CONFLICT or a
-- MERGE is recorded in several parts. Where nothing is nested the setting stays empty
-- and all this costs two microseconds.
--
-- The parts of one statement that is no nested one need an order too: PostgreSQL ends them in its own
-- (a MERGE: inserts, updates, deletes), and a part that inserts a key must come behind the one that
-- deletes or changes the row which had that key. For each UPDATE or DELETE of the client's that has begun
-- and not ended the setting begins with a +, so a part that is recorded before another one is known by
-- that, and noted. A third element of a note is the id of the first part of the statement that is being
-- recorded at that depth.
--
-- What a foreign key's cascade deletes or changes in the same table comes after all parts, and yet is in
-- the same transition table as what a part deletes or changes itself. So where the table has a foreign
-- key that cascades, and a row that one part inserts is what another one deletes, no order of the two is
-- known to be right: upkeep makes a full refresh.
--
-- Any role can write the setting. A forged one harms no other role: only rows whose random tag it
-- knows, and that were written since the transaction began, are written again, unchanged; one that
-- cannot be read counts as empty.
--
-- A function called in the middle of a statement on the table (INSERT ... SELECT f(x)) which itself
-- writes to the table has the statement's depth and counts as a neighbour: recorded first.

-- The body of the BEFORE STATEMENT trigger. It runs with the rights of the role that writes. PL/pgSQL
-- prepares each expression anew in each transaction, which is most of what it costs: where nothing is
-- noted an INSERT evaluates two, and an UPDATE or DELETE three, the last of which counts it.
create or replace function pgtrickle_internal.capture_begin_body(
  outbox pgtrickle_internal.outbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.fill($body$
declare
  noted pg_catalog.text;
  depth int;
  caller pg_catalog.text;
begin
  {enter}
  {if_alone}
  noted := pg_catalog.current_setting({noted}, true);
  depth := pg_catalog.pg_trigger_depth();
  if depth operator(pg_catalog.=) 1 then
    noted := pg_catalog.set_config({noted}, pg_catalog.concat(
      pg_catalog.substring(noted, '^[+]*') {and_counts}), true);
    return new;
  end if;
  -- A foreign key's cascade is recorded at the end of the statement that set it off.
  get diagnostics caller = pg_context;
  if pg_catalog.regexp_match(pg_catalog.split_part(caller, pg_catalog.chr(10), 2),
       '(DELETE FROM|UPDATE) (ONLY )?".*[$][0-9]+ OPERATOR[(]pg_catalog[.]') is not null then
    depth := depth operator(pg_catalog.-) 1;
  end if;
  if depth operator(pg_catalog.=) 1 then
    noted := pg_catalog.set_config({noted}, pg_catalog.substring(noted, '^[+]*'), true);
  elsif pg_catalog.split_part(noted, '|', -1) operator(pg_catalog.<>) depth::pg_catalog.text then
    noted := pg_catalog.set_config({noted}, pg_catalog.concat(noted, '|', depth), true);
  end if;
  return new;
end $body$, n.names || case when pgtrickle_internal.capture_counts(outbox, 'UPDATE')
    then jsonb_build_object(
      'if_alone', pgtrickle_internal.fill($body$if {is_noted} then
    null;
  elsif tg_op operator(pg_catalog.=) 'INSERT' then
    return new;
  elsif (case when pg_catalog.pg_trigger_depth() operator(pg_catalog.=) 1
              then pg_catalog.set_config({noted}, '+', true) is not null
              else true end) then
    return new;
  end if;$body$, n.names),
      'and_counts', ', case when tg_op operator(pg_catalog.<>) ''INSERT'' then ''+'' end')
    else jsonb_build_object(
      'if_alone', pgtrickle_internal.fill($body$if ({is_noted}) is not true then
    return new;
  end if;$body$, n.names),
      'and_counts', '') end)
  from (select pgtrickle_internal.capture_names(outbox) as names) n;
$$;

-- The body of the AFTER STATEMENT trigger where rows are recorded one by one.
create or replace function pgtrickle_internal.capture_end_body(
  outbox pgtrickle_internal.outbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.fill($body$
begin
  if {is_noted} then
    if {no_delta} then
      {miss_delta}
    else
      perform pgtrickle_internal.capture_settle({number}, null, false);
    end if;
  end if;
  return new;
end $body$, pgtrickle_internal.capture_names(outbox));
$$;

-- Gives rows that are noted under some depths one tag. Returns the note: tag and first id.
create or replace function pgtrickle_internal.notes_join(
  outbox_table text, notes jsonb, first_depth int) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  tags uuid[];
  first_id bigint;
begin
  select array_agg((n.value ->> 0)::uuid order by n.key::int), min((n.value ->> 1)::bigint)
  into tags, first_id
  from jsonb_each(notes) n where n.key::int >= first_depth;
  if cardinality(tags) > 1 then
    execute format('update pgtrickle.%I set refresh_id = $1 where refresh_id = any ($2) '
                   'and id >= $3 and created_at >= transaction_timestamp()', outbox_table)
      using tags[1], tags[2:], first_id;
  end if;
  return jsonb_build_array(tags[1], first_id);
end $$;

-- The notes of this transaction, brought up to date: without what deeper statements had noted
-- before a statement began.
create or replace function pgtrickle_internal.notes_read(outbox pgtrickle_internal.outbox_config)
returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[] := string_to_array(
    ltrim(current_setting('pgtrickle_capture.s' || outbox.outbox_number, true), '+'), '|');
  notes jsonb := coalesce(nullif(parts[1], ''), '{}');
  depth int;
  joined jsonb;
begin
  if exists (select from jsonb_each(notes) n
             where not (n.key::int > 0 and (n.value ->> 0)::uuid is not null
                        and (n.value ->> 1)::bigint > 0
                        and coalesce((n.value ->> 2)::bigint, 1) > 0)) then
    return '{}';
  end if;
  foreach depth in array coalesce(parts[2:], '{}')::int[] loop
    if exists (select from jsonb_object_keys(notes) k where k::int > depth) then
      joined := pgtrickle_internal.notes_join(outbox.outbox_table_name, notes, depth);
      select coalesce(jsonb_object_agg(n.key, n.value), '{}') into notes
      from jsonb_each(notes) n where n.key::int < depth;
      notes := notes || jsonb_build_object(depth::text, joined);
    elsif notes ? depth::text then
      notes := notes #- array[depth::text, '2'];
    end if;
  end loop;
  return notes;
end $$;

-- The same where the setting may be forged: what cannot be read counts as empty.
create or replace function pgtrickle_internal.notes_of_session(
  outbox pgtrickle_internal.outbox_config) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('pgtrickle_capture.s' || outbox.outbox_number, true) <> '' then
    return pgtrickle_internal.notes_read(outbox);
  end if;
  return '{}';
exception when data_exception then
  return '{}';
end $$;

create or replace function pgtrickle_internal.notes_write(
  outbox pgtrickle_internal.outbox_config, notes jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config(s.name, concat(substring(current_setting(s.name, true) from '^[+]*'),
                                    nullif(notes, '{}')), true)
  from (select 'pgtrickle_capture.s' || outbox.outbox_number) s (name);
end $$;

-- Notes an outbox row under the depth at which it was recorded; at the outermost one only where
-- another part of the statement is still to be recorded.
create or replace function pgtrickle_internal.notes_add(
  outbox pgtrickle_internal.outbox_config, notes jsonb, written bigint) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  depth text := pg_trigger_depth();
  note jsonb := coalesce(notes -> depth, jsonb_build_array(gen_random_uuid(), written));
begin
  if written is null or (depth = '1' and starts_with(
       current_setting('pgtrickle_capture.s' || outbox.outbox_number, true), '+') is not true) then
    return notes;
  elsif note -> 2 is null then
    note := note || to_jsonb(written);
  end if;
  execute format('update pgtrickle.%I set refresh_id = $1 where id = $2', outbox.outbox_table_name)
    using (note ->> 0)::uuid, written;
  return notes || jsonb_build_object(depth, note);
end $$;

-- The first of the noted rows that must come behind a row recorded after it: behind `written`, or
-- where rows are recorded one by one (null) behind any that is not noted so deep. `parts` are no nested
-- statements: what one of them deletes was there before all of them. The planner
-- cannot know how many rows are in payloads: nested loops could take hours.
create or replace function pgtrickle_internal.capture_misplaced(
  outbox pgtrickle_internal.outbox_config, note jsonb, written bigint, parts boolean) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off set jit = off
as $$
declare
  misplaced bigint;
begin
  execute format($sql$
    with entries as (
      select o.id, o.is_claim_check, o.payload, o.refresh_id is not distinct from $1 as nested
      from pgtrickle.%1$I o
      where o.id >= $2 and o.created_at >= transaction_timestamp()
        and (o.refresh_id = $1 or $3 is null or o.id = $3)
    ), changes as (
      select e.id, e.nested, c.op, c.r,
             (select jsonb_agg(c.r -> k) from unnest($4::text[]) k) as key
      from entries e
      cross join lateral (
        select 'DELETE', jsonb_array_elements(e.payload -> 'deleted') where not e.is_claim_check
        union all
        select 'INSERT', jsonb_array_elements(e.payload -> 'inserted') where not e.is_claim_check
        union all
        select d.row_op, d.row_data from pgtrickle.%2$I d
        where e.is_claim_check and d.outbox_id = e.id) c (op, r)
    ), nested as (
      select * from changes where nested
    ), around as (
      select * from changes where not nested
    )
    select least(
      (select min(n.id) from nested n join around a on n.r = a.r
       where n.op = 'DELETE' and a.op = 'INSERT' and n.id < a.id and not $5),
      (select min(n.id) from nested n join around a on n.key = a.key
       where n.op = 'INSERT' and a.op = 'DELETE' and n.id < a.id))$sql$,
    outbox.outbox_table_name, outbox.delta_table_name)
    into misplaced
    using (note ->> 0)::uuid, (note ->> 1)::bigint, written, outbox.key_columns, parts;
  return misplaced;
end $$;

-- Whether a foreign key's cascade may have deleted or changed a row that a noted part of the statement
-- has inserted: `written` deletes one that is the same.
create or replace function pgtrickle_internal.capture_cascaded(
  outbox pgtrickle_internal.outbox_config, note jsonb, written bigint) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off set jit = off
as $$
declare
  found_one boolean;
begin
  if not exists (select from pg_constraint f
                 where f.conrelid = outbox.stream_table_oid and f.contype = 'f'
                   and (f.confdeltype in ('c', 'n', 'd') or f.confupdtype in ('c', 'n', 'd'))) then
    return false;
  end if;
  execute format($sql$
    select exists (
      select i.r
      from pgtrickle.%1$I o
      cross join lateral (
        select jsonb_array_elements(o.payload -> 'inserted') where not o.is_claim_check
        union all
        select d.row_data from pgtrickle.%2$I d
        where o.is_claim_check and d.outbox_id = o.id and d.row_op = 'INSERT') i (r)
      where o.id >= $2 and o.refresh_id = $1 and o.created_at >= transaction_timestamp()
      intersect
      select x.r
      from pgtrickle.%1$I o
      cross join lateral (
        select jsonb_array_elements(o.payload -> 'deleted') where not o.is_claim_check
        union all
        select d.row_data from pgtrickle.%2$I d
        where o.is_claim_check and d.outbox_id = o.id and d.row_op = 'DELETE') x (r)
      where o.id = $3)$sql$,
    outbox.outbox_table_name, outbox.delta_table_name)
    into found_one using (note ->> 0)::uuid, (note ->> 1)::bigint, written;
  return found_one;
end $$;

-- The reason for a full refresh if the order of the parts of a statement is unknown.
create or replace function pgtrickle_internal.cascade_of_parts() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 'a foreign key of the table may have changed rows that the same statement inserted'; $$;

-- Writes noted rows again, those from an id on, behind everything written so far, in their order.
-- They keep what they say, pgt_id included. Returns their ids.
create or replace function pgtrickle_internal.capture_move(
  outbox pgtrickle_internal.outbox_config, note jsonb, from_id bigint) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  moved bigint[];
begin
  execute format($sql$
    with gone as (
      delete from pgtrickle.%1$I
      where refresh_id = $1 and id >= $2 and created_at >= transaction_timestamp()
      returning *
    ), again as (
      insert into pgtrickle.%1$I (pgt_id, refresh_id, created_at, inserted_count, deleted_count,
                                  is_claim_check, tg_op, payload, headers)
      select pgt_id, refresh_id, created_at, inserted_count, deleted_count, is_claim_check, tg_op,
             payload, headers
      from gone order by id
      returning id, pgt_id
    ), rows_of_claim_checks as (
      update pgtrickle.%2$I d set outbox_id = again.id
      from gone join again using (pgt_id)
      where gone.is_claim_check and d.outbox_id = gone.id
    )
    select array_agg(id order by id) from again$sql$,
    outbox.outbox_table_name, outbox.delta_table_name)
    into moved using (note ->> 0)::uuid, from_id;
  return moved;
end $$;

-- Why the order of nested statements is not known: a REPEATABLE READ transaction that began before the
-- outbox was made does not see it.
create or replace function pgtrickle_internal.began_before() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select 'a transaction wrote to the table that began before the outbox was made'; $$;

-- A statement, or a part of one, has been recorded as `written` (null: it had no rows): brings what
-- was nested in it behind it, and of the parts of the same statement (where it `is_part` of one) those
-- that took keys which it has given free.
create or replace function pgtrickle_internal.capture_settle(
  number int, written bigint, is_part boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  depth constant int := pg_trigger_depth();
  outbox pgtrickle_internal.outbox_config;
  notes jsonb;
  part jsonb;
  nested jsonb;
  misplaced bigint;
  around bigint[] := array[written];
begin
  select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if not found then
    perform pgtrickle_internal.capture_missed(number, pgtrickle_internal.began_before());
    return;
  end if;
  notes := pgtrickle_internal.notes_of_session(outbox);
  part := notes -> depth::text;
  if is_part and written is not null and part -> 2 is not null then
    part := part - 1;
    misplaced := pgtrickle_internal.capture_misplaced(outbox, part, written, true);
    if misplaced is not null and pgtrickle_internal.capture_cascaded(outbox, part, written) then
      perform pgtrickle_internal.capture_missed(number, pgtrickle_internal.cascade_of_parts());
    elsif misplaced is not null then
      around := around || pgtrickle_internal.capture_move(outbox, part, misplaced);
    end if;
  end if;
  if exists (select from jsonb_object_keys(notes) k where k::int > depth) then
    nested := pgtrickle_internal.notes_join(outbox.outbox_table_name, notes, depth + 1);
    if written is not null or outbox.capture = 'row' then
      foreach written in array around loop
        misplaced := pgtrickle_internal.capture_misplaced(outbox, nested, written, false);
        if misplaced is not null then
          perform pgtrickle_internal.capture_move(outbox, nested, misplaced);
        end if;
      end loop;
      written := around[1];
    end if;
    select coalesce(jsonb_object_agg(n.key, n.value), '{}') into notes
    from jsonb_each(notes) n where n.key::int <= depth;
    notes := notes || jsonb_build_object((depth + 1)::text, nested);
  end if;
  perform pgtrickle_internal.notes_write(outbox, pgtrickle_internal.notes_add(outbox, notes, written));
end $$;

-- One row has been recorded by itself, as `written`, inside another statement.
create or replace function pgtrickle_internal.capture_adopt(number int, written bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  outbox pgtrickle_internal.outbox_config;
begin
  select * into outbox from pgtrickle_internal.outbox_config c where c.outbox_number = number;
  if not found then
    perform pgtrickle_internal.capture_missed(number, pgtrickle_internal.began_before());
    return;
  end if;
  perform pgtrickle_internal.notes_write(
    outbox, pgtrickle_internal.notes_add(outbox, pgtrickle_internal.notes_of_session(outbox), written));
end $$;

-- What capture functions call.
grant execute on function
  pgtrickle_internal.capture_settle(integer, bigint, boolean),
  pgtrickle_internal.capture_adopt(integer, bigint)
  to pgtrickle_capture;
