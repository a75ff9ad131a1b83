-- The running relays, the state of each pipeline, and the requests of operators to a running
-- pipeline: pause, resume, replay.
--
-- Pipelines from configuration files are controlled by name like those of the catalog, once a relay
-- has reported them.

create or replace function pgtrickle_internal.set_relay_control(name text, paused boolean,
                                                                accept_loss boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgtrickle_internal.require_relay(name, also_from_files => true);
  insert into pgtrickle.relay_pipeline_control as c (pipeline, paused, accept_loss)
  values (name, paused, accept_loss)
  on conflict (pipeline) do update
    set paused = excluded.paused, accept_loss = excluded.accept_loss,
        updated_at = clock_timestamp();
  perform pgtrickle_internal.relay_control_notify(name, case when paused then 'pause' else 'resume' end);
end $$;

create or replace function pgtrickle.pause_relay(name text) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select pgtrickle_internal.set_relay_control(name, true, false); $$;
comment on function pgtrickle.pause_relay(text) is
  'Pauses a pipeline: it keeps its place, and its rows are kept for it';

create or replace function pgtrickle.resume_relay(name text, accept_loss boolean default false)
returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ select pgtrickle_internal.set_relay_control(name, false, coalesce(accept_loss, false)); $$;
comment on function pgtrickle.resume_relay(text, boolean) is
  'Lets a paused pipeline go on; with accept_loss also one that found rows gone';

-- Asks for the rows from_id to to_id (default: the newest now) of a pipeline's outbox to be sent
-- again, under ids of their own. Returns its id in relay_replays, which shows its progress.
create or replace function pgtrickle.replay_relay(name text, from_id bigint,
                                                  to_id bigint default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  pipeline record;
  outbox record;
  newest bigint;
  replay_id bigint;
begin
  perform pgtrickle_internal.require_relay(name, also_from_files => true);
  if from_id is null or from_id < 1 or to_id < from_id then
    raise exception 'a replay goes from an id (at least 1) to one that is not smaller; not % to %',
        coalesce(from_id::text, '(null)'), coalesce(to_id::text, 'the newest')
      using errcode = 'invalid_parameter_value';
  end if;
  select c.direction, c.outbox_name into pipeline
  from pgtrickle.relay_config c where c.name = replay_relay.name;
  if pipeline.direction is not null then
    if pipeline.outbox_name is null then
      raise exception 'pipeline "%" reads no outbox of this database', name
        using errcode = 'object_not_in_prerequisite_state',
              hint = 'Only rows of an outbox can be replayed.';
    end if;
    -- Locked, so that retention deletes nothing between this look and the replay's being stored.
    select c.purged_below, c.outbox_table_name, pgtrickle_internal.outbox_sequence(c) as sequence into outbox
    from pgtrickle_internal.outbox_config c
    where c.outbox_number = pgtrickle_internal.pipeline_outbox(pipeline.outbox_name, null, name)
    for share;
    if outbox.outbox_table_name is null then
      raise exception 'pipeline "%" has no outbox: "%" is gone', name, pipeline.outbox_name
        using errcode = 'undefined_table',
              hint = format('SELECT pgtrickle.enable_outbox(%L);', pipeline.outbox_name);
    elsif from_id <= outbox.purged_below then
      raise exception 'rows up to % of %.% are no longer kept', outbox.purged_below, 'pgtrickle',
          outbox.outbox_table_name
        using errcode = 'invalid_parameter_value',
              hint = format('Replay from %s on.', outbox.purged_below + 1);
    end if;
    newest := coalesce(pg_sequence_last_value(outbox.sequence), 0);
    if from_id > newest then
      raise exception 'the newest row of %.% is %', 'pgtrickle', outbox.outbox_table_name, newest
        using errcode = 'invalid_parameter_value',
              hint = 'Replay from that id, or from a smaller one.';
    end if;
    to_id := least(to_id, newest);
  end if;
  perform pgtrickle_internal.lock('pipeline ' || name);
  insert into pgtrickle.relay_replays (pipeline, from_id, to_id, next_id, number)
  values (name, replay_relay.from_id, replay_relay.to_id, replay_relay.from_id,
          1 + coalesce((select max(r.number) from pgtrickle.relay_replays r
                        where r.pipeline = name), 0))
  returning id into replay_id;
  perform pgtrickle_internal.relay_control_notify(name, 'replay');
  return replay_id;
end $$;
comment on function pgtrickle.replay_relay(text, bigint, bigint) is
  'Asks for rows that were sent already to be sent again, under ids of their own';

-- What the daemon calls.
grant execute on function
  pgtrickle.pause_relay(text), pgtrickle.resume_relay(text, boolean),
  pgtrickle.replay_relay(text, bigint, bigint)
  to pgtrickle_relay;
