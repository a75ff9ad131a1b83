-- Recording all rows of a table at once: full refresh, and partitions that go.

-- Says in the catalog what is wrong with an outbox; null: nothing is. True when that is news.
create or replace function pgtrickle._outbox_note(number int, what text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update pgtrickle.pgt_outbox_config c set problem = what
  where c.outbox_number = number and c.problem is distinct from what;
  return found;
end $$;

-- Writes all rows of a relation as one claim check; the caller has locked it against writers. With
-- 'FULL' the rows are all that there are. Returns the outbox id, null when there was no row to say.
create or replace function pgtrickle._capture_relation(number int, rel regclass, op text,
                                                       tg_op text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = off
as $$
declare
  outbox pgtrickle.pgt_outbox_config;
  made bigint;
  n bigint;
  keys text;
begin
  select * into strict outbox from pgtrickle.pgt_outbox_config c where c.outbox_number = number;
  select coalesce('order by ' || string_agg(format('r.j -> %L', k), ', '), '') into keys
  from unnest(outbox.key_columns) k;
  execute format(
    'insert into pgtrickle.%I (tg_op, is_claim_check, payload) values ($1, true, $2) returning id',
    outbox.outbox_table_name)
    into made
    using tg_op, '{"v": 1, "claim_check": true, "refresh_duration_ms": 0}'::jsonb
      || case when op = 'FULL' then '{"full_refresh": true, "refresh_mode": "FULL"}'
              else '{"refresh_mode": "DIFFERENTIAL"}' end::jsonb;
  execute format(
    'insert into pgtrickle.%I (outbox_id, row_num, row_op, row_data) '
    'select $1, row_number() over (%s), $2, r.j '
    'from (select %s as j from %s x) r',
    outbox.delta_table_name, keys, pgtrickle._row_json('x.*'), pgtrickle._qualified(rel))
    using made, case op when 'FULL' then 'INSERT' else op end;
  get diagnostics n = row_count;
  if n = 0 and op <> 'FULL' then
    execute format('delete from pgtrickle.%I where id = $1', outbox.outbox_table_name) using made;
    return null;
  end if;
  execute format('update pgtrickle.%I set inserted_count = $2, deleted_count = $3 where id = $1',
                 outbox.outbox_table_name)
    using made, case op when 'DELETE' then 0 else n end, case op when 'DELETE' then n else 0 end;
  if outbox.notify then
    perform pg_notify('pgtrickle_outbox_new', outbox.outbox_table_name);
  end if;
  return made;
exception when insufficient_privilege then
  raise exception 'the rows of % cannot be recorded in the outbox of "%": %', rel,
                  outbox.stream_table_name, sqlerrm
    using errcode = 'insufficient_privilege',
          hint = format('GRANT SELECT ON %s TO pgtrickle_owner; GRANT USAGE ON SCHEMA %s TO '
                        'pgtrickle_owner;', rel, (select c.relnamespace::regnamespace
                                                  from pg_class c where c.oid = rel));
end $$;

-- Records all rows of the table anew: whoever reads on from there has the table, whatever went
-- before. Writers wait meanwhile. Returns the outbox id.
create or replace function pgtrickle.outbox_full_refresh(name text) returns bigint
language plpgsql
as $$
declare
  outbox pgtrickle.pgt_outbox_config := pgtrickle._outbox_named(name);
  source regclass := outbox.stream_table_oid;
  could_read boolean;
  made bigint;
begin
  if outbox.kind <> 'table' then
    raise exception 'outbox "%" does not record a table', name
      using errcode = 'wrong_object_type',
            hint = 'A stream table has refresh_stream_table().';
  end if;
  perform pgtrickle._outbox_check_source(source);
  perform pgtrickle._lock_against_writers(source);
  could_read := pg_catalog.has_table_privilege('pgtrickle_owner', source, 'SELECT');
  perform pgtrickle._grant_reading(source);
  made := pgtrickle._capture_relation(outbox.outbox_number, source, 'FULL', null);
  if not could_read then
    execute pg_catalog.format('revoke select on %s from pgtrickle_owner',
                              pgtrickle._qualified(source));
  end if;
  perform pgtrickle._outbox_note(outbox.outbox_number, null);
  return made;
end $$;
comment on function pgtrickle.outbox_full_refresh(text) is
  'Records all rows of an outbox''s table as a full refresh; writers wait while it reads';
