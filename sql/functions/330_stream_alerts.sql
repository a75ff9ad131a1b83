-- The alerts of stream tables (225_alerts.sql sends them), and pgtrickle_refresh after a full refresh.

-- Sends one alert about a stream table.
create or replace function pgtrickle_internal.stream_alert(event text, id bigint, details jsonb)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  name constant text := (select t.pgt_schema || '.' || t.pgt_name
                         from pgtrickle_internal.stream_tables t where t.pgt_id = id);
begin
  perform pgtrickle_internal.alert(event, name,
                                   jsonb_build_object('stream_table', name) || details);
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
