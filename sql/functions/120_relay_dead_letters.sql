-- Dead letters: messages that no retry can deliver, with everything that is needed to send them
-- again.
--
-- The relay writes them, in the transaction that moves the position past them. While one is
-- unresolved it is the only one of its message: storing it again raises its attempts. Messages from
-- brokers may share an id: those of another payload, key or operation are other messages. A retry is
-- asked for here and done by the relay that owns the pipeline; it never moves the position.

-- A payload in readable form.
create or replace function pgtrickle.relay_payload_text(payload bytea) returns text
language plpgsql immutable strict set search_path = pg_catalog, pg_temp
as $$
begin
  return convert_from(payload, 'UTF8');
exception when others then
  return payload::text;
end $$;
comment on function pgtrickle.relay_payload_text(bytea) is
  E'The text of a payload that is UTF-8; else \\x and hexadecimal digits';

-- Raises a clear error unless there is such a dead letter and it is unresolved.
create or replace function pgtrickle_internal.require_dead_letter(id bigint) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  letter record;
begin
  select d.id, d.resolved_at, d.resolution into letter
  from pgtrickle.relay_dlq d where d.id = require_dead_letter.id;
  if letter.id is null then
    raise exception 'there is no dead letter %', coalesce(id::text, '(null)')
      using errcode = 'undefined_object',
            hint = 'SELECT * FROM pgtrickle.relay_dlq_list() shows the unresolved ones.';
  elsif letter.resolved_at is not null then
    raise exception 'dead letter % is resolved already: % at %', id, letter.resolution,
        letter.resolved_at
      using errcode = 'object_not_in_prerequisite_state';
  end if;
end $$;

-- Dead letters without their payloads, for lists.
create or replace view pgtrickle.relay_dead_letters as
  select id, relay_group_id, pipeline, message_id, subject, key, op,
         octet_length(payload) as payload_bytes, content_type, headers, outbox_id, error_class,
         error_code, error_message, attempts, first_failed_at, last_failed_at, retry_requested_at,
         resolved_at, resolution
  from pgtrickle.relay_dlq;
comment on view pgtrickle.relay_dead_letters is 'Dead letters without their payloads';

-- Unresolved dead letters, the oldest first.
create or replace function pgtrickle.relay_dlq_list(pipeline text default null,
                                                    lim int default 100,
                                                    include_resolved boolean default false)
returns setof pgtrickle.relay_dead_letters
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select *
  from pgtrickle.relay_dead_letters d
  where (relay_dlq_list.pipeline is null or d.pipeline = relay_dlq_list.pipeline)
    and (include_resolved or d.resolved_at is null)
  order by d.id
  limit lim;
$$;
comment on function pgtrickle.relay_dlq_list(text, int, boolean) is
  'Dead letters, the oldest first; unresolved ones only, unless include_resolved';

-- Asks for one dead letter to be sent again.
create or replace function pgtrickle.relay_dlq_retry(id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  of_pipeline text;
begin
  perform pgtrickle_internal.require_dead_letter(id);
  if exists (select from pgtrickle.relay_dlq d
             where d.id = relay_dlq_retry.id and d.relay_group_id = 'consumer group') then
    raise exception 'dead letter % is of a consumer group, to which no relay delivers', id
      using errcode = 'feature_not_supported',
            hint = 'Process its payload, then relay_dlq_discard() it. Or seek_offset() sets the '
                   'group back to before its outbox_id.';
  end if;
  update pgtrickle.relay_dlq d set retry_requested_at = clock_timestamp()
  where d.id = relay_dlq_retry.id and d.resolved_at is null
  returning d.pipeline into of_pipeline;
  perform pgtrickle_internal.relay_control_notify(of_pipeline, 'dlq_retry');
end $$;
comment on function pgtrickle.relay_dlq_retry(bigint) is
  'Asks the relay to send one dead letter again';

-- Asks for all unresolved dead letters of a pipeline to be sent again; says how many they are.
create or replace function pgtrickle.relay_dlq_retry_all(pipeline text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  asked bigint;
begin
  update pgtrickle.relay_dlq d set retry_requested_at = clock_timestamp()
  where d.pipeline = relay_dlq_retry_all.pipeline and d.resolved_at is null
    and d.relay_group_id <> 'consumer group';
  get diagnostics asked = row_count;
  if asked = 0 then
    perform pgtrickle_internal.require_relay(pipeline, also_from_files => true);
  else
    perform pgtrickle_internal.relay_control_notify(pipeline, 'dlq_retry');
  end if;
  return asked;
end $$;
comment on function pgtrickle.relay_dlq_retry_all(text) is
  'Asks the relay to send all unresolved dead letters of a pipeline again; returns how many';

-- Resolves a dead letter without sending it.
create or replace function pgtrickle.relay_dlq_discard(id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  of_pipeline text;
begin
  perform pgtrickle_internal.require_dead_letter(id);
  update pgtrickle.relay_dlq d
  set resolved_at = clock_timestamp(), resolution = 'discarded', retry_requested_at = null
  where d.id = relay_dlq_discard.id and d.resolved_at is null
  returning d.pipeline into of_pipeline;
  perform pgtrickle_internal.relay_control_notify(of_pipeline, 'dlq_discard');
end $$;
comment on function pgtrickle.relay_dlq_discard(bigint) is 'Gives up one dead letter';

-- Deletes dead letters that were resolved longer ago than that; unresolved ones are never deleted.
create or replace function pgtrickle.relay_dlq_purge(older_than interval) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  purged bigint;
begin
  if older_than is null or older_than < interval '0' then
    raise exception 'older_than must be an interval that is not negative'
      using errcode = 'invalid_parameter_value';
  end if;
  delete from pgtrickle.relay_dlq d where d.resolved_at <= clock_timestamp() - older_than;
  get diagnostics purged = row_count;
  return purged;
end $$;
comment on function pgtrickle.relay_dlq_purge(interval) is
  'Deletes dead letters that were resolved longer ago than that; returns how many';

-- What the daemon calls.
grant execute on function
  pgtrickle.relay_payload_text(bytea), pgtrickle.relay_dlq_list(text, integer, boolean),
  pgtrickle.relay_dlq_retry(bigint), pgtrickle.relay_dlq_retry_all(text),
  pgtrickle.relay_dlq_discard(bigint), pgtrickle.relay_dlq_purge(interval)
  to pgtrickle_relay;
