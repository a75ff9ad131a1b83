-- The types of sources and sinks that SQL accepts: those of the relay, as in sql/105_relay_options.sql,
-- and lineq. `init` of a program that is built with this file installs it behind the relay's own.
create or replace function pgtrickle._relay_types()
returns table (name text, backend text, is_source boolean, is_sink boolean)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  values ('nats',      'nats',      true,  true),
         ('kafka',     'kafka',     true,  true),
         ('webhook',   'webhook',   true,  true),
         ('http',      'webhook',   true,  true),
         ('redis',     'redis',     true,  true),
         ('rabbitmq',  'rabbitmq',  true,  true),
         ('sqs',       'sqs',       true,  true),
         ('pg-inbox',  'pg-inbox',  false, true),
         ('inbox',     'pg-inbox',  false, true),
         ('pg_inbox',  'pg-inbox',  false, true),
         ('outbox',    'outbox',    true,  false),
         ('pg-outbox', 'pg-outbox', true,  false),
         ('pg_outbox', 'pg-outbox', true,  false),
         ('stdout',    'file',      false, true),
         ('file',      'file',      true,  true),
         ('stdin',     'file',      true,  false),
         ('lineq',     'lineq',     true,  true);
$$;
