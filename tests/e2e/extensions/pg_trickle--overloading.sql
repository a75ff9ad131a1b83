-- Stand-in for a pg_trickle that finds its schema there, and makes functions of other arguments.

create function pgtrickle.create_stream_table(
  name text, query text, schedule text default '1m', refresh_mode text default 'AUTO',
  initialize boolean default true) returns void
language sql as $$ select; $$;
create function pgtrickle.refresh_stream_table(name name) returns void
language sql as $$ select; $$;
