-- Housekeeping of change feeds: old rows are deleted, the view keeps the number of the table, and a
-- feed whose table was dropped goes when it is empty.

-- Deletes at most max_rows rows, over all feeds, and adds what it did to a report of
-- relay_housekeeping. True in `more`: there are more.
create or replace function pgtrickle_internal.purge_feeds(report jsonb, max_rows int,
                                                          out done jsonb, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  feed pgtrickle_internal.change_feeds;
  left_over bigint := max_rows;
  deleted bigint;
begin
  done := report;
  for feed in select * from pgtrickle_internal.change_feeds f order by random() loop
    begin
      continue when not pgtrickle_internal.feed_is_ours(feed.feed_name);
      perform pgtrickle_internal.feed_follow_table(feed);
      deleted := pgtrickle_internal.feed_delete(feed, feed.retention, left_over);
      left_over := left_over - deleted;
      perform pgtrickle_internal.feed_end(feed);
    exception when others then
      done := pgtrickle_internal.report_error(done, 'change feed ' || feed.feed_name, sqlerrm);
    end;
    exit when left_over <= 0;
  end loop;
  more := left_over <= 0;
  if left_over < max_rows then
    done := done || jsonb_build_object('feed_rows', max_rows - left_over);
  end if;
end $$;

-- After a restore, or when the outbox records another table, the table has another number.
create or replace function pgtrickle_internal.feed_follow_table(feed pgtrickle_internal.change_feeds)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  wanted text;
begin
  select 'output_' || c.stream_table_oid into wanted
  from pgtrickle_internal.outbox_config c where c.outbox_number = feed.outbox_number;
  if wanted is null or wanted = feed.view_name
     or to_regclass(format('pgtrickle_changes.%I', wanted)) is not null
     or not pgtrickle_internal.feed_is_ours(feed.view_name) then
    return;
  end if;
  execute format('alter view pgtrickle_changes.%I rename to %I', feed.view_name, wanted);
  update pgtrickle_internal.change_feeds f set view_name = wanted
  where f.feed_number = feed.feed_number;
end $$;

-- Drops a feed that has no rows left, nor has the outbox of its table, which was dropped.
create or replace function pgtrickle_internal.feed_end(feed pgtrickle_internal.change_feeds)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  outbox_table text;
  empty boolean;
begin
  select c.outbox_table_name into outbox_table from pgtrickle_internal.outbox_config c
  where c.outbox_number = feed.outbox_number and c.source_dropped_at is not null;
  if outbox_table is null or to_regclass(format('pgtrickle.%I', outbox_table)) is null then
    return;
  end if;
  execute format('select not exists (select from pgtrickle.%I) '
                 'and not exists (select from pgtrickle_changes.%I)', outbox_table, feed.feed_name)
    into empty;
  if empty then
    perform pgtrickle_internal.feed_remove(feed);
  end if;
end $$;
