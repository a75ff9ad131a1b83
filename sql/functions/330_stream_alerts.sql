-- The alerts of stream tables: JSON on the channel pg_trickle_alert, and pgtrickle_refresh after a
-- full refresh. A notification is sent when its transaction commits, and is limited by the server
-- to 8,000 bytes; it is made to fit, never refused.

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

-- Sends one alert about a stream table.
create or replace function pgtrickle_internal.stream_alert(event text, id bigint, details jsonb)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('pg_trickle_alert', pgtrickle_internal.alert_text(
    jsonb_build_object('event', event, 'stream_table', (
      select t.pgt_schema || '.' || t.pgt_name
      from pgtrickle_internal.stream_tables t where t.pgt_id = id))
    || details));
end $$;

-- Notifies listeners that every row was written again: the user's triggers, which would have told
-- them, were off.
create or replace function pgtrickle_internal.stream_full_refresh_notice(id bigint, rows_ bigint)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('pgtrickle_refresh', (
    select jsonb_build_object('stream_table', t.pgt_name, 'schema', t.pgt_schema,
                              'mode', 'FULL', 'rows', rows_)::text
    from pgtrickle_internal.stream_tables t where t.pgt_id = id));
end $$;
