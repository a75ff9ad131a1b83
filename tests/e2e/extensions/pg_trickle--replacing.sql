-- Stand-in for a pg_trickle that takes what is there: it replaces instead of creating.

create schema if not exists pgtrickle;
create table if not exists pgtrickle.pgt_stream_tables (pgt_id bigint primary key);
create or replace function pgtrickle.refresh_stream_table(name text) returns void
language sql as $$ select; $$;
