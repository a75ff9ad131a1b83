-- Tables of pgtrickle_internal that users read, under the names by which the documentation shows them.
-- Where an extension owns such a name, it keeps it.

do $$
declare
  v record;
begin
  for v in select * from (values
    ('pgt_outbox_config', 'outbox_config',
     'All outboxes: what each one records, how, and under which names'),
    ('relay_outboxes', 'outbox_config',
     'All outboxes, under a name that no extension has'),
    ('pgt_stream_tables', 'stream_tables', 'Stream tables: definition, schedule and state'),
    ('pgt_refresh_history', 'refresh_history',
     'Refreshes of the last three days: DIFFERENTIAL, FULL, NO_DATA (nothing had changed) or FAILED')
  ) as t (name, shows, says) loop
    continue when exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_class'::regclass and d.deptype = 'e'
        and d.objid = to_regclass('pgtrickle.' || v.name));
    execute format('create or replace view pgtrickle.%I as select * from pgtrickle_internal.%I',
                   v.name, v.shows);
    execute format('comment on view pgtrickle.%I is %L', v.name, v.says);
  end loop;
end $$;
