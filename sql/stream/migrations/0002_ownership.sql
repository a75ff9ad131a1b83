-- Which daemon owns which stream, and what is installed.

-- The sessions through which daemons own streams (functions/400_ownership.sql). They end with their
-- database sessions, so a restart of the server may empty the table.
create unlogged table if not exists pgstream.daemon_sessions (
  token uuid primary key,
  stream text not null,
  worker_id text not null,
  backend_pid int not null,
  lease_timeout interval not null,
  renewed_at timestamptz not null default clock_timestamp(),
  owns boolean not null default false,
  unique (stream, worker_id)
);
create unique index if not exists daemon_sessions_owner on pgstream.daemon_sessions (stream) where owns;

-- The daemons that take part, for looking at.
create unlogged table if not exists pgstream.daemon_instances (
  relay_group_id text not null,
  worker_id text not null,
  hostname text not null,
  pid int not null,
  version text not null,
  started_at timestamptz not null,
  heartbeat_at timestamptz not null,
  primary key (relay_group_id, worker_id)
);

-- The program that installed the database side last: one row.
create table if not exists pgstream.daemon_installed (
  only_row boolean primary key default true check (only_row),
  schema_version int not null,
  checksum text not null,
  program text not null,
  installed_at timestamptz not null default now()
);
