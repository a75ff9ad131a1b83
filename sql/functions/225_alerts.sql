-- Alerts: JSON on the channel pg_trickle_alert, and in an outbox once it is there.
--
-- A notification is sent when its transaction commits, is limited by the server to 8,000 bytes (it is
-- made to fit, never refused), and is lost where no session listens. So alerts are also events of
-- the outbox "pg_trickle_alert" from when that is made: by create_outbox(), or by the first pipeline
-- whose source is `alerts`. What holds for outboxes then holds for alerts.

-- The text of an alert, at most 7,900 bytes: keys are left out first, then what is long is cut.
create or replace function pgtrickle_internal.alert_text(alert jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  room constant int := 7900;
  keys jsonb := alert #> '{changes,affected_pks}';
  longest text;
  kept int;
begin
  while octet_length(alert::text) > room loop
    kept := coalesce(jsonb_array_length(keys), 0);
    if kept > 0 then
      kept := least(kept - 1, (kept * (room - 500.0) / octet_length(alert::text))::int);
      keys := (select coalesce(jsonb_agg(k order by o), '[]')
               from jsonb_array_elements(keys) with ordinality as u(k, o) where o <= kept);
      alert := jsonb_set(jsonb_set(alert, '{changes,affected_pks}', keys),
                         '{changes,truncated}', 'true');
    else
      select key into longest from jsonb_each_text(alert)
      order by octet_length(value) desc limit 1;
      alert := jsonb_set(alert, array[longest], to_jsonb(
        left(alert ->> longest, char_length(alert ->> longest) / 2) || '...'));
    end if;
  end loop;
  return alert::text;
end $$;

-- Sends one alert, when the caller's transaction commits. `key`: the stream table or consumer that it
-- is about.
create or replace function pgtrickle_internal.alert(event text, key text, details jsonb)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '500ms'
as $$
declare
  alert constant jsonb := jsonb_build_object('event', event) || details;
  outbox text;
begin
  perform pg_notify('pg_trickle_alert', pgtrickle_internal.alert_text(alert));
  select c.outbox_table_name into outbox
  from pgtrickle_internal.alert_outbox a
  join pgtrickle_internal.outbox_config c on c.outbox_number = a.outbox_number;
  if outbox is null then
    return;
  end if;
  begin
    execute format('insert into pgtrickle.%I (payload, event_type, event_key) values ($1, $2, $3)',
                   outbox) using alert, event, key;
  exception when others then
    -- What it tells of must not fail because it cannot be recorded.
    raise warning 'alert % of % is not recorded in outbox %: %', event, key, outbox, sqlerrm;
  end;
end $$;

-- Makes the outbox of alerts where it is missing.
create or replace function pgtrickle.relay_open_alerts() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  made text;
begin
  if exists (select from pgtrickle_internal.alert_outbox) then
    return;
  end if;
  perform pgtrickle_internal.lock('outboxes');
  if exists (select from pgtrickle_internal.alert_outbox) then
    return;
  end if;
  begin
    made := pgtrickle.create_outbox('pg_trickle_alert');
  exception when duplicate_object then
  end;
  -- Pipelines know the outbox by this name.
  if made is distinct from 'outbox_pg_trickle_alert' then
    raise exception 'the outbox of alerts cannot be made: another one has its name'
      using errcode = 'duplicate_object',
            hint = 'Rename the table pg_trickle_alert and make its outbox anew, or call '
                   'disable_outbox(''pg_trickle_alert'').';
  end if;
end $$;
comment on function pgtrickle.relay_open_alerts() is
  'For the relay: makes the outbox in which alerts are recorded, where it is missing';

-- What the daemon calls.
grant execute on function pgtrickle.relay_open_alerts() to pgtrickle_relay;
