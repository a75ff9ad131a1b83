-- The functions for consumers of an inbox, and the state of an inbox.

-- Marks a message as processed. True: it was not before.
create or replace function pgtrickle.inbox_mark_processed(name text, event_id text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle_internal.inbox_named(name);
begin
  perform pgtrickle_internal.inbox_needed_column(inbox, 'processed_at');
  return (pgtrickle_internal.inbox_step(inbox, 'processed', jsonb_build_object('event_id', event_id))
          ->> 'changed')::bigint > 0;
end $$;
comment on function pgtrickle.inbox_mark_processed(text, text) is
  'Says that a message of an inbox was processed; false where it was already, or is not there';

-- Counts a failed try, and keeps the error where the table has a column for it. A message whose
-- count is null has not failed yet. Returns how many tries failed; null where the message is not
-- there or was processed. At max_retries it is a dead letter: no longer in <name>_pending, but in
-- <name>_dlq.
create or replace function pgtrickle.inbox_mark_failed(name text, event_id text,
                                                       error text default null) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle_internal.inbox_named(name);
  needed text;
begin
  foreach needed in array array['retry_count', 'processed_at'] loop
    perform pgtrickle_internal.inbox_needed_column(inbox, needed);
  end loop;
  return pgtrickle_internal.inbox_step(
    inbox, 'failed', jsonb_build_object('event_id', event_id, 'error', error)) ->> 'tries';
end $$;
comment on function pgtrickle.inbox_mark_failed(text, text, text) is
  'Counts a failed try to process a message; returns how many there were';

-- Makes messages pending again, processed and dead ones alike. Returns how many there were.
create or replace function pgtrickle.replay_inbox_messages(name text, event_ids text[])
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle_internal.inbox_named(name);
begin
  perform pgtrickle_internal.inbox_needed_column(inbox, 'processed_at');
  return pgtrickle_internal.inbox_step(
    inbox, 'replay', jsonb_build_object('event_ids', coalesce(event_ids, '{}'))) ->> 'changed';
end $$;
comment on function pgtrickle.replay_inbox_messages(text, text[]) is
  'Makes messages of an inbox pending again, with no failed tries';

-- How many messages wait and are dead, and since when. Looks at what is not processed only. Where
-- that cannot be counted, `problem` and `remedy` say why.
create or replace function pgtrickle_internal.inbox_look(
  inbox pgtrickle.pgt_inbox_config, out pending bigint, out dead_letters bigint,
  out oldest_pending_at timestamptz, out problem text, out remedy text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  counts jsonb;
begin
  if not inbox.columns ? 'processed_at' then
    return;
  end if;
  counts := pgtrickle_internal.inbox_step(inbox, 'counts', jsonb_build_object(
    'max_retries', case when inbox.with_dead_letter then inbox.max_retries end));
  pending := counts ->> 'pending';
  dead_letters := counts ->> 'dead_letters';
  oldest_pending_at := counts ->> 'oldest_pending_at';
exception when others then
  get stacked diagnostics problem = message_text, remedy = pg_exception_hint;
end $$;

-- How many rows the planner takes a table to have, with its partitions and children.
create or replace function pgtrickle_internal.inbox_total(rel regclass) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive tree as (
    select rel::oid as oid
    union
    select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.oid
    where not i.inhdetachpending
  )
  select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
  from tree join pg_class c on c.oid = tree.oid
  where c.relkind <> 'p';  -- its number counts the rows of its partitions once more
$$;

-- All inboxes, or one. `total` is the planner's estimate, and no less than what was counted. What
-- cannot be counted is null, and a WARNING says why.
create or replace function pgtrickle.inbox_status(name text default null)
returns table (inbox text, table_name text, pending bigint, dead_letters bigint, total bigint,
               oldest_pending_at timestamptz, max_retries int, retention_hours int)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  one pgtrickle.pgt_inbox_config;
  look record;
begin
  if inbox_status.name is not null then
    perform pgtrickle_internal.inbox_named(inbox_status.name);
  end if;
  for one in
    select c.*
    from pgtrickle.pgt_inbox_config c
    where pgtrickle_internal.inbox_relation(c) is not null
      and (inbox_status.name is null
           or c.inbox_name = (select f.inbox_name
                              from pgtrickle_internal.resolve_inbox(inbox_status.name) f))
    order by c.inbox_name
  loop
    look := pgtrickle_internal.inbox_look(one);
    if look.problem is not null then
      raise warning '%', look.problem using hint = look.remedy;
    end if;
    return query
      select one.inbox_name, pgtrickle_internal.inbox_table(one), look.pending, look.dead_letters,
             greatest(pgtrickle_internal.inbox_total(pgtrickle_internal.inbox_relation(one)),
                      look.pending + look.dead_letters),
             look.oldest_pending_at, one.max_retries, nullif(one.retention_hours, 2147483647);
  end loop;
end $$;
comment on function pgtrickle.inbox_status(text) is
  'All inboxes, or one: what waits in them, what failed, how long messages are kept';

-- healthy: nothing failed and nothing waits long. degraded: there are dead letters, or the oldest
-- pending message is older than five minutes. missing: the table is gone. refused: the table cannot
-- be worked on; "problem" says why and "remedy" what mends it. An inbox that is worked on as by an
-- earlier version is degraded, and has these two as well.
create or replace function pgtrickle.inbox_health(name text) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle_internal.inbox_named(name);
  look record;
  waited float8;
  outdated constant boolean := pgtrickle_internal.inbox_is_outdated(inbox);
begin
  if pgtrickle_internal.inbox_relation(inbox) is null then
    return jsonb_build_object('inbox', inbox.inbox_name, 'status', 'missing',
                              'table', pgtrickle_internal.inbox_table(inbox));
  end if;
  look := pgtrickle_internal.inbox_look(inbox);
  if look.problem is not null then
    return jsonb_build_object(
      'inbox', inbox.inbox_name, 'status', 'refused', 'table', pgtrickle_internal.inbox_table(inbox),
      'problem', look.problem, 'remedy', look.remedy);
  end if;
  waited := extract(epoch from clock_timestamp() - look.oldest_pending_at);
  return jsonb_build_object(
    'inbox', inbox.inbox_name, 'table', pgtrickle_internal.inbox_table(inbox),
    'status', case when look.dead_letters > 0 or waited > 300 or outdated then 'degraded'
                   else 'healthy' end,
    'pending', look.pending, 'dead_letters', look.dead_letters,
    'oldest_pending_seconds', coalesce(greatest(waited, 0), 0), 'max_retries', inbox.max_retries)
    || case when outdated
            then jsonb_build_object(
              'problem', 'the function that works on the table is that of an earlier version',
              'remedy', pgtrickle_internal.inbox_enabling(inbox))
            else '{}' end;
end $$;
comment on function pgtrickle.inbox_health(text) is
  'How an inbox fares: healthy, degraded (dead letters, or a message that waits for more than five '
  'minutes), missing or refused, and the numbers or the reason behind it';
