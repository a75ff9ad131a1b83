-- Retention of inboxes: messages are deleted when they were processed longer than retention_hours
-- ago. Pending and dead ones stay. Once a row is deleted, its message would be accepted again. An
-- inbox that cannot be purged is reported, with the statement that mends it or that its table's
-- owner can run.

-- Deletes at most max_rows such messages, over all inboxes, and adds what it did to a report of
-- relay_housekeeping. True in `more`: there are more.
create or replace function pgtrickle_internal.purge_inboxes(report jsonb, max_rows int,
                                                            out done jsonb, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
  left_over int := max_rows;
  deleted bigint;
  total bigint := 0;
  purge jsonb;
  problem text;
  remedy text;
begin
  done := report;
  for inbox in
    select c.* from pgtrickle.pgt_inbox_config c
    where c.columns ? 'processed_at' and c.retention_hours < 2147483647
      and pgtrickle_internal.inbox_relation(c) is not null
    order by random()
  loop
    purge := jsonb_build_object('hours', inbox.retention_hours, 'rows', left_over);
    begin
      deleted := pgtrickle_internal.inbox_step(inbox, 'purge', purge) ->> 'changed';
      -- An error that the code of a table's owner raises does not hold up other inboxes.
      deleted := least(greatest(coalesce(deleted, 0), 0), left_over);
      total := total + deleted;
      left_over := left_over - deleted;
    exception when others then
      get stacked diagnostics problem = message_text, remedy = pg_exception_hint;
      if sqlstate = '42501' and remedy = '' then  -- what the gate refuses
        remedy := 'Let the owner of the table run: '
                  || pgtrickle_internal.inbox_owner_statement(inbox, 'purge', purge);
      end if;
      done := pgtrickle_internal.report_error(done, 'inbox ' || inbox.inbox_name,
                                              concat_ws('; ', problem, nullif(remedy, '')));
    end;
    exit when left_over <= 0;
  end loop;
  more := left_over <= 0;
  if total > 0 then
    done := done || jsonb_build_object('inbox_rows', total);
  end if;
end $$;
