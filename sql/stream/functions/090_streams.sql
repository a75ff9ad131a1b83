-- Streams.

-- Whether a stream exists. Subscribers may ask, and see nothing else of it.
create or replace function pgstream._has_stream(stream bigint) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgstream.streams s where s.id = stream);
$$;
grant execute on function pgstream._has_stream(bigint) to public;

-- Makes a stream known, and its publication. To add one that exists is no error.
create or replace function pgstream.add_stream(stream bigint) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgstream.streams (id) values (stream) on conflict do nothing;
end $$;
