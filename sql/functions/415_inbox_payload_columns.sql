-- Members of the payload as columns of an inbox, so that queries name them like any column.

-- Gives an inbox of create_inbox the column `name`: the member of that name of each payload, as
-- text, null where there is none. Every row is written again once. Doing it twice changes nothing.
create or replace function pgtrickle.inbox_payload_column(inbox text, name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  target constant pgtrickle.pgt_inbox_config := pgtrickle_internal.inbox_named(inbox);
  rel constant regclass := target.relation;
begin
  if not target.made_here or not pgtrickle_internal.inbox_is_ours(target) then
    raise exception 'the table of inbox "%" was not made by create_inbox', inbox
      using errcode = 'wrong_object_type',
            hint = format('ALTER TABLE %s ADD ...;', pgtrickle_internal.inbox_table(target));
  end if;
  if exists (select from pg_attribute a
             where a.attrelid = rel and a.attname = inbox_payload_column.name
               and not a.attisdropped) then
    return;
  end if;
  execute format('alter table %s add column %I text generated always as (%I ->> %L) stored', rel,
                 name, target.columns ->> 'payload', name);
end $$;
comment on function pgtrickle.inbox_payload_column(text, text) is
  'Adds a column to an inbox that shows a member of each payload, as text';

-- A query over an inbox asks for a column that is not there: `said` is PostgreSQL's word on it.
-- Where the query names exactly one inbox of create_inbox, that gets the column out of its payload.
-- True: the query can be tried again.
create or replace function pgtrickle_internal.offer_payload_column(query text, said text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant text := (regexp_match(said, '"([^"]+)"'))[1];
  inboxes text[];
begin
  select array_agg(c.inbox_name) into inboxes
  from pgtrickle.pgt_inbox_config c
  where c.made_here and pgtrickle_internal.inbox_is_ours(c) and strpos(query, c.table_name) > 0;
  if wanted is null or cardinality(inboxes) is distinct from 1
     or exists (select from pg_attribute a join pgtrickle.pgt_inbox_config c
                  on a.attrelid = c.relation
                where c.inbox_name = inboxes[1] and a.attname = wanted and not a.attisdropped) then
    return false;
  end if;
  perform pgtrickle.inbox_payload_column(inboxes[1], wanted);
  raise notice 'inbox "%" has a column "%" now, which is this member of its payload', inboxes[1],
    wanted;
  return true;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function pgtrickle_internal.offer_payload_column(text, text) to pgtrickle_admin;
