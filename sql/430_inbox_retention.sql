-- Retention of inboxes: messages go when they were processed longer than retention_hours ago. What
-- waits or is dead stays. With a row goes the memory that its message was here.

-- Deletes at most max_rows such messages, over all inboxes, and adds what it did to a report of
-- relay_housekeeping. True in `more`: there are more.
create or replace function pgtrickle._purge_inboxes(report jsonb, max_rows int,
                                                    out done jsonb, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
  left_over int := max_rows;
  deleted bigint;
  total bigint := 0;
begin
  done := report;
  for inbox in
    select c.* from pgtrickle.pgt_inbox_config c
    where c.columns ? 'processed_at' and c.retention_hours < 2147483647
      and to_regclass(pgtrickle._inbox_table(c)) is not null
    order by random()
  loop
    begin
      execute format('delete from %1$s where ctid = any (array('
                     '  select ctid from %1$s '
                     '  where %2$s < clock_timestamp() - $1 * interval ''1 hour'''
                     '  order by %2$s limit $2 for update skip locked))',
                     pgtrickle._inbox_table(inbox),
                     pgtrickle._inbox_column(inbox, 'processed_at'))
        using inbox.retention_hours, left_over;
      get diagnostics deleted = row_count;
      total := total + deleted;
      left_over := left_over - deleted;
    exception when others then
      done := pgtrickle._report_error(done, 'inbox ' || inbox.inbox_name, sqlerrm);
    end;
    exit when left_over <= 0;
  end loop;
  more := left_over <= 0;
  if total > 0 then
    done := done || jsonb_build_object('inbox_rows', total);
  end if;
end $$;
