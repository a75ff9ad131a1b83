-- The same table four times: without a trigger, with a subscription, with a deferred trigger that is
-- written by hand, and with the trigger that the manual of the peer shows.
create table users_bare (id bigint generated always as identity primary key, email text,
                         email_verified boolean, created_at timestamptz not null default now());
create table users_ours (like users_bare including all);
create table users_hand (like users_bare including all);
create table users_peer (like users_bare including all);

insert into pgstream.subscriptions (key, stream_id, operation, schema_name, table_name, when_clause,
                                    column_names)
values ('user-signup', 1, 'INSERT', 'public', 'users_ours', 'new.email_verified = true',
        array['id', 'email', 'created_at']);

create function write_by_hand() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgstream.events (id, payload, stream_id) values (
    gen_random_uuid(),
    jsonb_build_object(
      'tg_name', 'user-signup', 'tg_op', tg_op, 'tg_table_name', tg_table_name,
      'tg_table_schema', tg_table_schema, 'timestamp', (extract(epoch from now()) * 1000)::bigint,
      'new', jsonb_build_object('id', new.id, 'email', new.email, 'created_at', new.created_at),
      'old', null),
    1);
  return null;
end $$;
create constraint trigger by_hand after insert on users_hand deferrable initially deferred
for each row when (new.email_verified = true) execute function write_by_hand();

-- The peer's table gives its events their ids.
alter table pgstream.events alter id set default gen_random_uuid();
create function write_as_peer() returns trigger as $$
declare
  v_jsonb_output jsonb := '[]'::jsonb;
  v_base_payload jsonb := jsonb_build_object(
    'tg_op', tg_op,
    'tg_table_name', tg_table_name,
    'tg_table_schema', tg_table_schema,
    'timestamp', (extract(epoch from now()) * 1000)::bigint
  );
begin
  if new.email_verified = true then
    v_jsonb_output := v_jsonb_output || (jsonb_build_object(
      'tg_name', 'user-signup',
      'new', jsonb_build_object('id', new.id, 'email', new.email, 'created_at', new.created_at),
      'old', null
    ) || v_base_payload || '{}'::jsonb);
  end if;

  if jsonb_array_length(v_jsonb_output) > 0 then
    insert into pgstream.events (payload, stream_id)
    select elem, 1
    from jsonb_array_elements(v_jsonb_output) as t(elem);
  end if;

  return new;
end;
$$ language plpgsql
set search_path = ''
security definer;
create constraint trigger pgstream_insert after insert on users_peer deferrable initially deferred
for each row when ((new.email_verified = true)) execute procedure write_as_peer();
