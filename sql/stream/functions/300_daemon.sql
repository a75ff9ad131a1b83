-- What the daemon calls.

-- Makes the publication of a stream where it is missing. An event of another stream is not sent.
create or replace function pgstream.daemon_publish(stream bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  named constant name := format('pgstream_%s', stream);
  columns constant text := '(id, payload, metadata, stream_id, created_at, xid, seq)';
begin
  if not exists (select from pg_publication p where p.pubname = named) then
    execute format('create publication %1$I for table pgstream.events %2$s where (stream_id = %3$s), '
                   'table pgstream.events_overflow %2$s where (stream_id = %3$s) '
                   'with (publish = ''insert'', publish_via_partition_root = true)',
                   named, columns, stream);
  end if;
end $$;
