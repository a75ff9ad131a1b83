-- Streams and their publications.

-- Whether a stream exists. Subscribers may ask, and see nothing else of it.
create or replace function pgstream._has_stream(stream bigint) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgstream.streams s where s.id = stream);
$$;

-- Makes a stream known, with its publication. To add one that exists is no error. A publication
-- that was dropped is made again, with another oid, by which the daemon knows that changes may have
-- been missed: streams.publication_oid is the daemon's.
create or replace function pgstream.add_stream(stream bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
declare
  publication constant text := concat('pgstream_', stream);
  columns constant text := '(id, payload, metadata, stream_id, created_at, xid, seq)';
begin
  insert into pgstream.streams (id) values (stream) on conflict do nothing;
  perform from pgstream.streams s where s.id = stream for update;
  if not exists (select from pg_publication p where p.pubname = publication) then
    if not has_database_privilege(current_database(), 'CREATE') then
      raise exception 'role "%" may not make a publication in database "%"', current_user,
          current_database()
        using errcode = 'insufficient_privilege',
              hint = format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), current_user);
    end if;
    execute format(
      'create publication %1$I for table pgstream.events %2$s where (stream_id = %3$s), '
      'table pgstream.events_overflow %2$s where (stream_id = %3$s) '
      'with (publish = ''insert'', publish_via_partition_root = true)',
      publication, columns, stream);
  end if;
end $$;
comment on function pgstream.add_stream(bigint) is 'Makes a stream known, with its publication';

-- Forgets a stream that has no subscription, with its backlog. Its events go with their partitions.
create or replace function pgstream.drop_stream(stream bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '200ms'
as $$
begin
  perform from pgstream.streams s where s.id = stream for update;
  if exists (select from pgstream.subscriptions s where s.stream_id = stream) then
    raise exception 'stream % has subscriptions', stream
      using errcode = 'dependent_objects_still_exist',
            hint = format('DELETE FROM pgstream.subscriptions WHERE stream_id = %s;', stream);
  end if;
  execute format('drop publication if exists %I', concat('pgstream_', stream));
  delete from pgstream.streams s where s.id = stream;
end $$;
comment on function pgstream.drop_stream(bigint) is 'Forgets a stream that has no subscription';
