-- What a pipeline's configuration may say: the names of sources and sinks, the options that any
-- pipeline has, and the check that names everything that is wrong at once.
--
-- Options of one backend (nats_url, or url inside {"sink": {...}}) are checked by the relay, which
-- knows their tables; here only that their prefix belongs to the pipeline's source or sink. A value
-- with a reference (${env:NAME}, ${file:/path}) is resolved by the relay and passes as it is.

-- How many letters must be inserted, deleted, replaced or swapped with a neighbour to turn one word
-- into the other. For words of the length of names.
create or replace function pgtrickle._edit_distance(a text, b text) returns int
language plpgsql immutable strict set search_path = pg_catalog, pg_temp
as $$
declare
  n constant int := length(a);
  m constant int := length(b);
  x constant text[] := string_to_array(a, null);
  y constant text[] := string_to_array(b, null);
  before int[];          -- the row before the last one, then the last one
  last int[] := array(select generate_series(0, m));
  row int[];
  best int;
begin
  for i in 1 .. n loop
    row := array[i];
    for j in 1 .. m loop
      best := least(last[j + 1] + 1, row[j] + 1,
                    last[j] + case when x[i] = y[j] then 0 else 1 end);
      if i > 1 and j > 1 and x[i] = y[j - 1] and x[i - 1] = y[j] then
        best := least(best, before[j - 1] + 1);
      end if;
      row := row || best;
    end loop;
    before := last;
    last := row;
  end loop;
  return last[m + 1];
end $$;

-- The candidate most similar to `name`; null if none is similar enough.
create or replace function pgtrickle._nearest(name text, candidates text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select c
  from (select c, pgtrickle._edit_distance(lower(left(name, 64)), lower(left(c, 64))) as distance
        from unnest(candidates) c
        where abs(length(c) - length(name)) <= greatest(2, length(name) / 3)) near
  where distance <= greatest(2, length(name) / 3)
  order by distance, c
  limit 1;
$$;

-- The types of sources and sinks. Names of one backend may stand for each other.
create or replace function pgtrickle._relay_types()
returns table (name text, backend text, is_source boolean, is_sink boolean)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  values ('nats',      'nats',      true,  true),
         ('kafka',     'kafka',     true,  true),
         ('webhook',   'webhook',   true,  true),
         ('http',      'webhook',   true,  true),
         ('redis',     'redis',     true,  true),
         ('rabbitmq',  'rabbitmq',  true,  true),
         ('sqs',       'sqs',       true,  true),
         ('pg-inbox',  'pg-inbox',  false, true),
         ('inbox',     'pg-inbox',  false, true),
         ('pg_inbox',  'pg-inbox',  false, true),
         ('outbox',    'outbox',    true,  false),
         ('pg-outbox', 'pg-outbox', true,  false),
         ('pg_outbox', 'pg-outbox', true,  false),
         ('stdout',    'file',      false, true),
         ('file',      'file',      true,  true),
         ('stdin',     'file',      true,  false);
$$;

-- The keys that a pipeline may have whatever its source and sink are; `minimum` is the smallest
-- number, `choices` the allowed texts.
create or replace function pgtrickle._relay_options()
returns table (key text, kind text, minimum numeric, choices text[])
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  values ('source',               'object',   null::numeric, null::text[]),
         ('sink',                 'object',   null, null),
         ('source_type',          'name',     null, null),
         ('sink_type',            'name',     null, null),
         ('start',                'start',    null, null),
         ('batch_size',           'integer',  1,    null),
         ('batch_bytes',          'bytes',    1,    null),
         ('max_in_flight',        'integer',  1,    null),
         ('retry',                'retry',    null, null),
         ('retry_min',            'duration', 0,    null),
         ('retry_max',            'duration', 0,    null),
         ('on_reject',            'choice',   null, '{dlq,park_key,stop,skip}'),
         ('max_record_bytes',     'bytes',    1,    null),
         ('id_prefix',            'text',     null, null),
         ('message',              'choice',   null, '{delta,row}'),
         ('delta_max_rows',       'integer',  1,    null),
         ('wire_format',          'choice',   null, '{native,debezium,cloudevents}'),
         ('cloudevents_mode',     'choice',   null, '{structured,binary}'),
         ('cloudevents_source',   'text',     null, null),
         ('tombstones',           'boolean',  null, null),
         ('subject_template',     'text',     null, null),
         ('key_template',         'text',     null, null),
         ('headers',              'map',      null, null),
         ('filter',               'text',     null, null),
         ('columns',              'list',     null, null),
         ('ordering',             'choice',   null, '{key,none}'),
         ('full_refresh',         'choice',   null, '{forward,skip}'),
         ('event_envelope',       'boolean',  null, null),
         ('rate_limit',           'number',   0,    null),
         ('retention_hours',      'integer',  0,    null),
         ('retention_hold_hours', 'hours',    0,    null),
         ('max_hold_hours',       'hours',    0,    null),
         ('max_hold_bytes',       'size',     1,    null);
$$;

-- The keys that only a pipeline from an outbox of this database has.
create or replace function pgtrickle._relay_outbox_keys() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select array['stream_table', 'outbox', 'group']; $$;

-- The options that only retention, here in the database, obeys.
create or replace function pgtrickle._relay_retention_keys() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select array['retention_hours', 'retention_hold_hours', 'max_hold_hours', 'max_hold_bytes']; $$;

-- The type of a pipeline's 'source' or 'sink'; null where the configuration does not say.
create or replace function pgtrickle._relay_type(config jsonb, side text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select coalesce(config #>> array[side, 'type'], config ->> (side || '_type')); $$;

-- The outbox that a pipeline reads, as its configuration names it; null where it reads none.
create or replace function pgtrickle._relay_outbox_name(config jsonb) returns text
language sql immutable security definer set search_path = pg_catalog, pg_temp
as $$
  select case when coalesce(pgtrickle._relay_type(config, 'source'), 'outbox') = 'outbox'
              then coalesce(config ->> 'stream_table', config ->> 'outbox',
                            config #>> '{source,stream_table}', config #>> '{source,outbox}') end;
$$;

-- A byte count from a number or a text such as '10GiB' or '256 KB'; null where it is neither.
create or replace function pgtrickle._relay_bytes(value jsonb) returns numeric
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when part is null then null
              else part[1]::numeric * case lower(coalesce(part[2], 'b'))
                when 'b' then 1 when '' then 1
                when 'kb' then 1e3 when 'mb' then 1e6 when 'gb' then 1e9 when 'tb' then 1e12
                when 'kib' then 1024 when 'mib' then 1048576 when 'gib' then 1073741824
                else 1099511627776 end end
  from (select regexp_match(value #>> '{}', E'^\\s*(\\d+(?:\\.\\d+)?)\\s*([kmgt]?i?b?)\\s*$', 'i')
       ) p (part)
  where jsonb_typeof(value) in ('number', 'string')
    and coalesce(part[2], '') !~* '^[kmgt]i?$|^i';
$$;

-- The error in the value of an option; null if it is valid.
create or replace function pgtrickle._relay_value_problem(kind text, minimum numeric,
                                                          choices text[], value jsonb)
returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  type constant text := jsonb_typeof(value);
  txt constant text := value #>> '{}';
  number constant numeric := case when type = 'number' then txt::numeric end;
  at_least constant text := case when minimum > 0 then format(' of at least %s', minimum)
                                 when minimum = 0 then ' that is not negative' else '' end;
  of_text boolean;
begin
  -- Retention works here and cannot resolve references; the relay resolves all others.
  if type = 'string' and txt like '%${%' and kind not in ('hours', 'size', 'name') then
    return null;
  end if;
  case kind
    when 'text', 'name' then
      return case when type <> 'string' then 'must be a text' end;
    when 'boolean' then
      return case when type <> 'boolean' then 'must be true or false' end;
    when 'object' then
      return case when type <> 'object' then 'must be an object' end;
    when 'integer' then
      return case when number is null or number <> trunc(number) or number < minimum
                       or number > 9223372036854775807
                  then format('must be a whole number%s', at_least) end;
    when 'number' then
      return case when number is null or number < minimum
                  then format('must be a number%s', at_least) end;
    when 'hours' then
      return case when number is null or number < minimum
                  then format('must be a number of hours%s', at_least) end;
    when 'bytes', 'size' then
      return case when coalesce(pgtrickle._relay_bytes(value), -1) < minimum
                  then 'must be a number of bytes, or a text such as "8MiB"' end;
    when 'duration' then
      return case when number >= minimum then null
                  when type = 'string' and txt ~ E'^\\s*\\d+(\\.\\d+)?\\s*(us|ms|s|m|h|d)\\s*$' then null
                  else 'must be a number of seconds, or a text such as "500ms"' end;
    when 'choice' then
      return case when type <> 'string' or txt <> all (choices)
                  then format('must be one of %s', array_to_string(choices, ', ')) end;
    when 'start' then
      return case when type = 'string' and txt ~ E'^(earliest|latest|\\d{1,18})$' then null
                  when number = trunc(number) and number between 0 and 9223372036854775807 then null
                  else 'must be "earliest", "latest", or the id to begin with' end;
    when 'list' then
      if type = 'array' then
        select bool_and(jsonb_typeof(v) = 'string') into of_text from jsonb_array_elements(value) v;
      else
        of_text := type = 'string';
      end if;
      return case when not of_text then 'must be an array of texts' end;
    when 'map' then
      if type = 'object' then
        select bool_and(jsonb_typeof(v.value) = 'string') into of_text from jsonb_each(value) v;
      else
        of_text := false;
      end if;
      return case when not of_text then 'must be an object of texts' end;
    when 'retry' then
      if type = 'object' then
        return (select format('has %s: %s', quote_ident(v.key),
                              coalesce(pgtrickle._relay_value_problem('duration', 0, null, v.value),
                                       'only "min" and "max" are known'))
                from jsonb_each(value) v
                where v.key not in ('min', 'max')
                   or pgtrickle._relay_value_problem('duration', 0, null, v.value) is not null
                limit 1);
      end if;
      return 'must be an object {"min": "100ms", "max": "30s"}';
  end case;
end $$;

-- The error in the type of a pipeline's source or sink; null if it is valid.
create or replace function pgtrickle._relay_type_problem(direction text, config jsonb, side text)
returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  type constant text := pgtrickle._relay_type(config, side);
  flat constant text := config ->> (side || '_type');
  allowed constant text[] := array(
    select t.name from pgtrickle._relay_types() t
    where case when direction = 'forward' and side = 'source' then t.backend = 'outbox'
               when direction = 'reverse' and side = 'sink' then t.backend = 'pg-inbox'
               when direction = 'reverse' then t.is_source and t.backend <> 'outbox'
               else case side when 'source' then t.is_source else t.is_sink end end);
  near text;
begin
  if type is null then
    return case when direction = 'forward' and side = 'source' then null
                when direction = 'reverse' and side = 'sink' then null
                else format('"%s_type" (or "type" inside "%s") is missing; it is one of %s',
                            side, side, array_to_string(allowed, ', ')) end;
  elsif flat <> type then
    return format('"%s_type" says %s and the "type" inside "%s" says %s', side, flat, side, type);
  elsif type = any (allowed) then
    return null;
  elsif exists (select from pgtrickle._relay_types() t
                where t.name = type
                  and case side when 'source' then t.is_source else t.is_sink end) then
    return format('a %s pipeline cannot have the %s "%s" (%s); use pgtrickle.set_relay() for it',
                  direction, side, type, array_to_string(allowed, ', '));
  end if;
  near := pgtrickle._nearest(type, allowed);
  return format('there is no %s "%s"%s (known: %s)', side, type,
                coalesce(format('; did you mean "%s"?', near), ''), array_to_string(allowed, ', '));
end $$;

-- The error in one top-level key; null if it is valid. `used` are the backends of the
-- pipeline's source and sink; `side` is the one of them that is a message system, `side_type` its
-- type.
create or replace function pgtrickle._relay_key_problem(key text, value jsonb, used text[],
                                                        side text, side_type text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  option record;
  owner text;
  known text[];
  near text;
  problem text;
begin
  select * into option from pgtrickle._relay_options() o where o.key = _relay_key_problem.key;
  if key = any (pgtrickle._relay_retention_keys()) and 'outbox' <> all (used) then
    return format('"%s" is for pipelines that read an outbox of this database', key)
           || case when key = 'retention_hours' and 'pg-inbox' = any (used)
                   then '; the inbox''s is written "inbox_retention_hours"' else '' end;
  end if;
  if option.key is not null then
    problem := pgtrickle._relay_value_problem(option.kind, option.minimum, option.choices, value);
    return format('"%s" %s', key, problem)
           where problem is not null;
  end if;
  if key = any (pgtrickle._relay_outbox_keys()) then
    return case when 'outbox' <> all (used) and ('pg-outbox' <> all (used) or key = 'group')
                then format('"%s" is for pipelines that read an outbox of this database', key)
                when jsonb_typeof(value) <> 'string' or value #>> '{}' = ''
                then format('"%s" must be a text that is not empty', key)
                when value #>> '{}' like '%${%'
                then format('"%s" cannot be a reference: retention has to know it here', key) end;
  end if;
  -- <backend>_x; the longest name that fits (pg_inbox_ before inbox_) is that of its backend.
  select t.backend into owner
  from pgtrickle._relay_types() t
  where starts_with(key, replace(t.name, '-', '_') || '_')
  order by length(t.name) desc
  limit 1;
  if owner = any (used) then
    return null;
  elsif owner is not null then
    return format('"%s" is an option of %s, which is neither the source nor the sink here', key,
                  owner);
  end if;
  known := array(select o.key from pgtrickle._relay_options() o)
           || case when 'outbox' = any (used) then pgtrickle._relay_outbox_keys()
                   when 'pg-inbox' = any (used) then array['inbox_table', 'inbox_name']
                   else '{}' end;
  near := pgtrickle._nearest(key, known);
  return format('there is no option "%s"; ', key) || case
    when near is not null then format('did you mean "%s"?', near)
    else format('an option of %s is written "%s_%s", or inside "%s" (known here: %s)',
                side_type, replace(side_type, '-', '_'), key, side,
                array_to_string(known, ', ')) end;
end $$;

-- All errors in a pipeline's configuration; an empty array if it is valid.
create or replace function pgtrickle._relay_problems(name text, direction text, config jsonb)
returns text[]
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  problems text[] := '{}';
  used text[];
  sink constant jsonb := config -> 'sink';
  side constant text := case direction when 'reverse' then 'source' else 'sink' end;
begin
  if name is null or name = '' then
    problems := problems || 'a pipeline needs a name'::text;
  elsif length(name) > 200 then
    problems := problems || format('its name has %s characters; 200 are allowed', length(name));
  elsif name ~ '[[:cntrl:]]' or name <> btrim(name) then
    problems := problems || 'its name has control characters, or blanks at an end'::text;
  end if;
  if config is null or jsonb_typeof(config) <> 'object' then
    return problems || format('the configuration must be a JSON object, not %s',
                              coalesce(jsonb_typeof(config), 'null'));
  end if;

  problems := problems || array_remove(array[
    pgtrickle._relay_type_problem(direction, config, 'source'),
    pgtrickle._relay_type_problem(direction, config, 'sink')], null);

  used := array(
    select t.backend from pgtrickle._relay_types() t
    where t.name in (coalesce(pgtrickle._relay_type(config, 'source'),
                              case direction when 'forward' then 'outbox' end),
                     coalesce(pgtrickle._relay_type(config, 'sink'),
                              case direction when 'reverse' then 'inbox' end)));
  problems := problems || array(
    select p
    from (select pgtrickle._relay_key_problem(
                   k.key, k.value, used, side,
                   coalesce(pgtrickle._relay_type(config, side), '<type>')) as p
          from jsonb_each(config) k order by k.key) keys
    where p is not null);

  if 'outbox' = any (used) and coalesce(pgtrickle._relay_outbox_name(config), '') = '' then
    problems := problems || '"stream_table" (or "outbox" inside "source") is missing: the table '
                            'or outbox to read'::text;
  elsif config #>> '{source,stream_table}' like '%${%'
     or config #>> '{source,outbox}' like '%${%' then
    problems := problems || 'the outbox cannot be a reference: retention has to know it here'::text;
  end if;
  if direction = 'reverse' and not (
       config ?| array['inbox_table', 'inbox_name', 'pg_inbox_inbox_table', 'pg_inbox_inbox_name',
                       'pg_inbox_table', 'pg_inbox_name']
       or coalesce(sink, '{}') ?| array['inbox_table', 'inbox_name', 'table', 'name']) then
    problems := problems || '"inbox_table" or "inbox_name" is missing: where the messages go'::text;
  end if;
  return problems;
end $$;

-- Raises one error that names all problems of a pipeline, if it has any.
create or replace function pgtrickle._check_relay(name text, direction text, config jsonb)
returns void
language plpgsql immutable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  problems constant text[] := pgtrickle._relay_problems(name, direction, config);
begin
  if cardinality(problems) > 0 then
    raise exception 'pipeline "%"%', coalesce(name, ''), case cardinality(problems)
        when 1 then ': ' || problems[1]
        else format(' has %s problems:', cardinality(problems))
             || E'\n  - ' || array_to_string(problems, E'\n  - ') end
      using errcode = 'invalid_parameter_value',
            hint = 'Nothing was changed. Correct the configuration and call again.';
  end if;
end $$;
