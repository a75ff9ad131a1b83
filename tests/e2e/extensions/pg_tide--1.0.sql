-- Stand-in for pg_tide: one table that holds the messages of all outboxes.

create schema tide;
grant usage on schema tide to public;

create table tide.tide_outbox_messages (
  id          bigint generated always as identity primary key,
  outbox_name text not null,
  payload     jsonb not null,
  headers     jsonb,
  created_at  timestamptz not null default clock_timestamp()
);

create function tide.outbox_publish(name text, payload jsonb, headers jsonb default null)
returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
  insert into tide.tide_outbox_messages (outbox_name, payload, headers)
  values ($1, $2, $3) returning id;
$$;
