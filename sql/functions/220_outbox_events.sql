-- Outboxes for application events: create_outbox and publish.

create or replace function pgtrickle.create_outbox(name text, retention_hours int default 24,
                                                   notify boolean default false) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  made int;
begin
  if coalesce(name, '') = '' then
    raise exception 'an outbox needs a name' using errcode = 'invalid_parameter_value';
  elsif coalesce(retention_hours, 0) < 1 then
    raise exception 'retention_hours must be 1 or more' using errcode = 'invalid_parameter_value';
  elsif exists (select from pgtrickle.relay_resolve_outbox(name)) then
    raise exception 'there is already an outbox "%"', name using errcode = 'duplicate_object';
  end if;
  made := pgtrickle_internal.outbox_create('events', null, name, null, retention_hours, 1, 1, notify,
                                           'publish');
  if name = 'pg_trickle_alert' then
    insert into pgtrickle_internal.alert_outbox (outbox_number) values (made)
    on conflict do nothing;
  end if;
  return (select c.outbox_table_name from pgtrickle_internal.outbox_config c
          where c.outbox_number = made);
end $$;
comment on function pgtrickle.create_outbox(text, int, boolean) is
  'Makes an outbox for events that applications publish(); returns its table''s name';

-- Publishes one event, in the caller's transaction. With an idempotency key that the outbox still
-- has, it writes nothing and returns the id of the first event; only publishers of that same key
-- ever wait for each other.
create or replace function pgtrickle.publish(
  outbox text, payload jsonb, event_type text default null, key text default null,
  headers jsonb default null, idempotency_key text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  target pgtrickle_internal.outbox_config;
  made bigint;
begin
  select * into target from pgtrickle_internal.outbox_config c
  where c.kind = 'events' and c.stream_table_name = publish.outbox;
  if not found then
    target := pgtrickle_internal.outbox_named(publish.outbox);
    if target.kind <> 'events' then
      raise exception 'outbox "%" %: no event can be published there', publish.outbox,
                      case target.kind when 'adopted' then 'is a table that applications write to'
                           else 'records the changes of a table' end
        using errcode = 'wrong_object_type',
              hint = 'pgtrickle.create_outbox() makes an outbox for events.';
    end if;
  end if;
  if target.stream_table_name = 'pg_trickle_alert' and exists (
      select from pgtrickle_internal.alert_outbox a
      where a.outbox_number = target.outbox_number) then
    raise exception 'outbox "%" records alerts of pgtrickle: no event can be published there',
        outbox
      using errcode = 'wrong_object_type',
            hint = 'pgtrickle.create_outbox() makes an outbox for events.';
  end if;
  if payload is null then
    raise exception 'an event needs a payload' using errcode = 'null_value_not_allowed';
  elsif jsonb_typeof(headers) <> 'object' then
    raise exception 'headers must be a JSON object' using errcode = 'invalid_parameter_value';
  end if;

  if idempotency_key is null then
    execute format('insert into pgtrickle.%I (payload, event_type, event_key, headers) '
                   'values ($1, $2, $3, $4) returning id', target.outbox_table_name)
      into made using payload, event_type, key, headers;
  else
    -- The insert waits for a transaction that has the same key and has not ended. The row that it
    -- then found may be gone again (retention) before it is read: once more.
    loop
      execute format('select id from pgtrickle.%I where idempotency_key = $1',
                     target.outbox_table_name) into made using idempotency_key;
      if made is not null then
        return made;
      end if;
      execute format('insert into pgtrickle.%I (payload, event_type, event_key, headers, '
                     'idempotency_key) values ($1, $2, $3, $4, $5) '
                     'on conflict (idempotency_key) where idempotency_key is not null do nothing '
                     'returning id', target.outbox_table_name)
        into made using payload, event_type, key, headers, idempotency_key;
      exit when made is not null;
    end loop;
  end if;
  if target.notify then
    perform pg_notify('pgtrickle_outbox_new', target.outbox_table_name);
  end if;
  return made;
end $$;
comment on function pgtrickle.publish(text, jsonb, text, text, jsonb, text) is
  'Publishes one event into an outbox of create_outbox(), in the caller''s transaction';

grant execute on function
  pgtrickle.publish(text, jsonb, text, text, jsonb, text)
  to pgtrickle_publisher;
