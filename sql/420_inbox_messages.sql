-- What consumers of an inbox call, and how an inbox fares.

-- The type of an inbox's event_id.
create or replace function pgtrickle._inbox_id_type(inbox pgtrickle.pgt_inbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format_type(a.atttypid, a.atttypmod)
  from pg_attribute a
  where a.attrelid = to_regclass(pgtrickle._inbox_table(inbox))
    and a.attname = inbox.columns ->> 'event_id';
$$;

-- Says that a message was processed. True: it was not before.
create or replace function pgtrickle.inbox_mark_processed(name text, event_id text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle._inbox_named(name);
  done constant text := pgtrickle._inbox_needed_column(inbox, 'processed_at');
  error constant text := pgtrickle._inbox_column(inbox, 'error');
  changed bigint;
begin
  execute format('update %s set %s = clock_timestamp() %s where %s = $1::%s and %2$s is null',
                 pgtrickle._inbox_table(inbox), done, ', ' || error || ' = null',
                 pgtrickle._inbox_column(inbox, 'event_id'), pgtrickle._inbox_id_type(inbox))
    using event_id;
  get diagnostics changed = row_count;
  return changed > 0;
end $$;
comment on function pgtrickle.inbox_mark_processed(text, text) is
  'Says that a message of an inbox was processed; false where it was already, or is not there';

-- Counts a failed try. Returns how many there were; null where the message is not there or was
-- processed. At max_retries it is a dead letter: no longer in <name>_pending, but in <name>_dlq.
create or replace function pgtrickle.inbox_mark_failed(name text, event_id text,
                                                       error text default null) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle._inbox_named(name);
  tries int;
begin
  execute format('update %s set %s = %2$s + 1, %s = $2 where %s = $1::%s and %s is null '
                 'returning %2$s',
                 pgtrickle._inbox_table(inbox),
                 pgtrickle._inbox_needed_column(inbox, 'retry_count'),
                 pgtrickle._inbox_needed_column(inbox, 'error'),
                 pgtrickle._inbox_column(inbox, 'event_id'), pgtrickle._inbox_id_type(inbox),
                 pgtrickle._inbox_needed_column(inbox, 'processed_at'))
    into tries using event_id, error;
  return tries;
end $$;
comment on function pgtrickle.inbox_mark_failed(text, text, text) is
  'Counts a failed try to process a message; returns how many there were';

-- Makes messages pending again, processed and dead ones alike. Returns how many there were.
create or replace function pgtrickle.replay_inbox_messages(name text, event_ids text[])
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle._inbox_named(name);
  changed bigint;
begin
  execute format('update %s set %s = null %s %s where %s = any ($1::%s[])',
                 pgtrickle._inbox_table(inbox),
                 pgtrickle._inbox_needed_column(inbox, 'processed_at'),
                 ', ' || pgtrickle._inbox_column(inbox, 'error') || ' = null',
                 ', ' || pgtrickle._inbox_column(inbox, 'retry_count') || ' = 0',
                 pgtrickle._inbox_column(inbox, 'event_id'), pgtrickle._inbox_id_type(inbox))
    using event_ids;
  get diagnostics changed = row_count;
  return changed;
end $$;
comment on function pgtrickle.replay_inbox_messages(text, text[]) is
  'Makes messages of an inbox pending again, with no failed tries';

-- How many messages wait and are dead, and since when. Looks at what is not processed only.
create or replace function pgtrickle._inbox_counts(
  inbox pgtrickle.pgt_inbox_config, out pending bigint, out dead_letters bigint,
  out oldest_pending_at timestamptz, out last_received_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  received constant text := coalesce(pgtrickle._inbox_column(inbox, 'received_at'),
                                     'null::timestamptz');
  dead constant text := format('coalesce(%s, false)', pgtrickle._inbox_is_dead(inbox));
begin
  if inbox.columns ? 'processed_at' then
    execute format('select count(*) filter (where not %1$s), count(*) filter (where %1$s), '
                   'min(%2$s) filter (where not %1$s), max(%2$s) from %3$s where %4$s is null',
                   dead, received, pgtrickle._inbox_table(inbox),
                   pgtrickle._inbox_column(inbox, 'processed_at'))
      into pending, dead_letters, oldest_pending_at, last_received_at;
  end if;
end $$;

-- All inboxes, or one. `total` is the planner's estimate.
create or replace function pgtrickle.inbox_status(name text default null)
returns table (inbox text, table_name text, pending bigint, dead_letters bigint, total bigint,
               oldest_pending_at timestamptz, max_retries int, retention_hours int)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if inbox_status.name is not null then
    perform pgtrickle._inbox_named(inbox_status.name);
  end if;
  return query
    select c.inbox_name, pgtrickle._inbox_table(c), n.pending, n.dead_letters,
           greatest(r.reltuples, 0)::bigint, n.oldest_pending_at, c.max_retries,
           nullif(c.retention_hours, 2147483647)
    from pgtrickle.pgt_inbox_config c
    join pg_class r on r.oid = to_regclass(pgtrickle._inbox_table(c))
    cross join lateral pgtrickle._inbox_counts(c) n
    where inbox_status.name is null
       or c.inbox_name = (select f.inbox_name from pgtrickle._resolve_inbox(inbox_status.name) f)
    order by c.inbox_name;
end $$;
comment on function pgtrickle.inbox_status(text) is
  'All inboxes, or one: what waits in them, what failed, how long messages are kept';

-- healthy: nothing failed and nothing waits long. degraded: there are dead letters, or the oldest
-- pending message is older than five minutes. missing: the table is gone.
create or replace function pgtrickle.inbox_health(name text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox constant pgtrickle.pgt_inbox_config := pgtrickle._inbox_named(name);
  counts record;
  waited float8;
begin
  if to_regclass(pgtrickle._inbox_table(inbox)) is null then
    return jsonb_build_object('inbox', inbox.inbox_name, 'status', 'missing',
                              'table', pgtrickle._inbox_table(inbox));
  end if;
  select * into counts from pgtrickle._inbox_counts(inbox);
  waited := extract(epoch from clock_timestamp() - counts.oldest_pending_at);
  return jsonb_build_object(
    'inbox', inbox.inbox_name, 'table', pgtrickle._inbox_table(inbox),
    'status', case when counts.dead_letters > 0 or waited > 300 then 'degraded' else 'healthy' end,
    'pending', counts.pending, 'dead_letters', counts.dead_letters,
    'oldest_pending_seconds', coalesce(greatest(waited, 0), 0), 'max_retries', inbox.max_retries);
end $$;
comment on function pgtrickle.inbox_health(text) is
  'How an inbox fares: healthy, degraded (dead letters, or a message that waits for more than five '
  'minutes) or missing, and the numbers behind it';
