-- What a pipeline's configuration may say: the types of sources and sinks, the options of each and
-- those that any pipeline has, and the check that names everything that is wrong at once.
--
-- The rows of both tables are the program's own tables: `init` writes them, and so the check here
-- accepts and refuses what the program accepts and refuses in a file, in the same words. A value
-- with a well-formed reference (${env:NAME}, ${file:/path}) is resolved by the relay and passes as it
-- is, unless the option is a map, which no text stands for.
--
-- Letters, digits and control characters are those of ASCII, whatever the database's locale: hence
-- COLLATE "C" wherever a text is folded or matched.

-- How many letters must be inserted, deleted, replaced or swapped with a neighbour to turn one word
-- into the other. For words of the length of names.
create or replace function pgtrickle_internal.edit_distance(a text, b text) returns int
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

-- The first candidate that is most similar to `name`; null if none is similar enough: one typo in a
-- short word, one in three letters of a long one. Case does not count, nor - against _.
create or replace function pgtrickle_internal.nearest(name text, candidates text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select c
  from (select c, at, pgtrickle_internal.edit_distance(
                        replace(lower(name collate "C"), '-', '_'),
                        replace(lower(left(c, 64) collate "C"), '-', '_')) as distance
        from unnest(candidates) with ordinality u (c, at)
        where length(name) <= 64
          and abs(length(c) - length(name)) <= greatest(1, length(name) / 3)) near
  where distance <= greatest(1, length(name) / 3) and distance < length(c)
  order by distance, at
  limit 1;
$$;

-- The type of a pipeline's 'source' or 'sink'; null where the configuration does not say.
create or replace function pgtrickle_internal.relay_type(config jsonb, side text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select coalesce(config #>> array[side, 'type'], config ->> (side || '_type')); $$;

-- A type of source or sink by its name or alias; null where there is none.
create or replace function pgtrickle_internal.relay_find_type(side text, name text)
returns pgtrickle.relay_types
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select t.* from pgtrickle.relay_types t
  where t.side = relay_find_type.side and relay_find_type.name = any (t.aliases || t.name);
$$;

-- What a configuration gives for an option of its source, under any name of the option and in either
-- form; null where it gives nothing or an empty text.
create or replace function pgtrickle_internal.relay_source_option(config jsonb, option text)
returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select given.value
  from pgtrickle_internal.relay_find_type(
         'source', coalesce(pgtrickle_internal.relay_type(config, 'source'), 'outbox')) t
  join pgtrickle.relay_options o
    on o.side = t.side and o.type = t.name and o.name = relay_source_option.option
  cross join unnest(o.aliases || o.name) u (name)
  cross join lateral (
    select config #>> array['source', u.name]
    union all select config ->> u.name where o.plain and u.name = o.name
    union all
    select config ->> (replace(prefix, '-', '_') || '_' || u.name)
    from unnest(t.aliases || t.related || t.name) prefix
  ) given (value)
  where given.value <> ''
  limit 1;
$$;

-- The outbox that a pipeline reads, as its configuration names it; null where it reads none.
create or replace function pgtrickle_internal.relay_outbox_name(config jsonb) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select case coalesce(pgtrickle_internal.relay_type(config, 'source'), 'outbox')
           when 'outbox'
             then coalesce(pgtrickle_internal.relay_source_option(config, 'stream_table'),
                           pgtrickle_internal.relay_source_option(config, 'outbox'))
           when 'alerts' then 'outbox_pg_trickle_alert' end;
$$;

-- The milliseconds of a duration ('500ms', '1m30s', or a number of seconds), or the bytes of a size
-- ('8MiB', '256 KB', or a number); null where the value is neither a number nor such a text of at most
-- 200 characters. Fractions are rounded up.
create or replace function pgtrickle_internal.relay_amount(kind text, value jsonb) returns numeric
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  txt constant text collate "C" := lower((value #>> '{}') collate "C");
  number constant text := E'(\\d+(?:\\.\\d+)?)[ \t]*';
  amount numeric;
begin
  if jsonb_typeof(value) not in ('number', 'string')
     or jsonb_typeof(value) = 'string' and length(txt) > 200 then
    return null;
  elsif txt ~ (E'^[ \t]*' || number || '$') then
    amount := btrim(txt, E' \t')::numeric * case kind when 'duration' then 1000 else 1 end;
  elsif kind = 'bytes' and txt ~ (E'^[ \t]*' || number || E'([kmgt]i?)?b[ \t]*$') then
    select part[1]::numeric * case part[2]
             when 'k' then 1e3 when 'm' then 1e6 when 'g' then 1e9 when 't' then 1e12
             when 'ki' then 1024 when 'mi' then 1048576 when 'gi' then 1073741824
             when 'ti' then 1099511627776 else 1 end
    into amount
    from regexp_match(txt, number || '([kmgt]i?)?b') part;
  elsif kind = 'duration' and txt ~ (E'^[ \t]*(' || number || E'(us|ms|s|m|h|d)[ \t]*)+$') then
    select sum(part[1]::numeric * case part[2]
             when 'us' then 0.001 when 'ms' then 1 when 's' then 1000 when 'm' then 60000
             when 'h' then 3600000 else 86400000 end)
    into amount
    from regexp_matches(txt, number || '(us|ms|s|m|h|d)', 'g') part;
  end if;
  if amount > 9e18 then
    return null;
  end if;
  return case when abs(amount - round(amount)) <= 0.000001 then round(amount) else ceil(amount) end;
end $$;

-- A limit of an option, with its unit.
create or replace function pgtrickle_internal.relay_quantity(kind text, value numeric) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when kind <> 'duration' then trim_scale(value)::text
              when value <> 0 and value < 1 then trim_scale(value * 1000) || 'ms'
              else trim_scale(value) || 's' end;
$$;

-- What the values of an option are.
create or replace function pgtrickle_internal.relay_expected(option pgtrickle.relay_options)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case option.kind
    when 'text' then 'a text'
    when 'integer' then 'a whole number' || range
    when 'number' then 'a number' || range
    when 'boolean' then 'true or false'
    when 'duration' then format('a duration%s (such as "500ms", "10s", "5m", or a number of seconds)',
                                range)
    when 'bytes' then format('a size%s (such as "256KB", "8MiB", or a number of bytes)', range)
    when 'choice' then 'one of ' || array_to_string(option.choices, ', ')
    when 'list' then 'a list of texts'
    when 'map' then 'an object of texts'
    when 'start' then 'earliest, latest, snapshot, or the id to begin with' end
  from (select case
          when option.maximum < 1e18
            then format(' from %s to %s', pgtrickle_internal.relay_quantity(option.kind, option.minimum),
                        pgtrickle_internal.relay_quantity(option.kind, option.maximum))
          when option.minimum > 0
            then ' of at least ' || pgtrickle_internal.relay_quantity(option.kind, option.minimum)
          when option.minimum = 0 then ' that is not negative' else '' end) r (range);
$$;

-- Whether a value, which is not null, fits its option.
create or replace function pgtrickle_internal.relay_fits(
  option pgtrickle.relay_options, value jsonb) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  type constant text := jsonb_typeof(value);
  txt constant text collate "C" := value #>> '{}';
  number constant numeric := case when type = 'number' then txt::numeric end;
  whole constant numeric := case when number = trunc(number) then number end;  -- 5.0 is one, too
  amount numeric;
begin
  case option.kind
    when 'text' then
      return type = 'string';
    when 'boolean' then
      return type = 'boolean';
    when 'integer' then
      return coalesce(whole between option.minimum and option.maximum
                      and whole between -9223372036854775808 and 9223372036854775807, false);
    when 'number' then
      return coalesce(number between option.minimum and option.maximum, false);
    when 'duration', 'bytes' then
      amount := pgtrickle_internal.relay_amount(option.kind, value)
                / case option.kind when 'duration' then 1000.0 else 1 end;
      return coalesce(amount between option.minimum and option.maximum, false);
    when 'choice' then
      return type = 'string' and txt = any (option.choices);
    when 'list' then
      return type = 'string'
             or type = 'array' and not exists (select from jsonb_array_elements(value) v
                                               where jsonb_typeof(v) <> 'string');
    when 'map' then
      -- A number must fit into a double.
      return type = 'object'
             and not exists (select from jsonb_each(value) v
                             where case jsonb_typeof(v.value)
                                     when 'number' then abs((v.value #>> '{}')::numeric) > 1.79e308
                                     else jsonb_typeof(v.value) not in ('string', 'boolean') end);
    when 'start' then
      return type = 'string' and txt ~ E'^(earliest|latest|snapshot|\\d{1,18})$'
             or coalesce(whole between 0 and 999999999999999999, false);
  end case;
end $$;

-- A value as a message may quote it: no secret, nothing that looks like a URL, nothing long.
create or replace function pgtrickle_internal.relay_shown(
  option pgtrickle.relay_options, value jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case
    when jsonb_typeof(value) = 'object' then 'an object'
    when jsonb_typeof(value) = 'array' then 'a list'
    when jsonb_typeof(value) = 'string'
     and (option.secret or octet_length(value #>> '{}') > 40 or value #>> '{}' like '%://%')
      then 'a text'
    when option.secret then 'a ' || jsonb_typeof(value)
    else value::text end;
$$;

-- Whether a text holds a reference, and the error in the first one that is malformed. $${ stands for
-- ${ itself.
create or replace function pgtrickle_internal.relay_reference(
  value text, out is_there boolean, out problem text)
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $function$
declare
  rest text collate "C" := value;
  at int;
  reference text collate "C";
  forms constant text := '. References are ${env:NAME} and ${file:/path}, in files also ${NAME} and '
                         '${NAME:-default}; $${ stands for ${ itself.';
begin
  is_there := false;
  loop
    at := strpos(rest, '${');
    exit when at = 0;
    if at > 1 and substr(rest, at - 1, 1) = '$' then
      rest := substr(rest, at + 2);
      continue;
    end if;
    is_there := true;
    rest := substr(rest, at + 2);
    reference := left(rest, strpos(rest, '}') - 1);
    if strpos(rest, '}') = 0 then
      problem := 'a reference that begins with ${ has no }' || forms;
    elsif reference like 'file:%' and reference not like 'file:/%' then
      problem := format('${%s}: the path must begin with /. Give the path of a file that the relay '
                        'may read.', reference);
    elsif reference like 'env:%' or reference like 'file:%' then
      rest := substr(rest, length(reference) + 2);
      continue;
    else
      reference := split_part(reference, ':-', 1);
      problem := case when reference ~ '^[A-Za-z_][A-Za-z0-9_]*$'
        then format('${%1$s} is not a reference here; plain names work in files only. '
                    'Write ${env:%1$s}, or $${ for ${ itself.', reference)
        else format('${%s} is not a reference%s', left(reference, 60), forms) end;
    end if;
    return;
  end loop;
end $function$;

-- The errors in the references of a configuration.
create or replace function pgtrickle_internal.relay_reference_problems(config jsonb) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  with recursive parts (place, value) as (
    select '', config
    union all
    select case when p.place = '' then m.name else p.place || m.behind end, m.value
    from parts p
    cross join lateral (
      select e.key, '.' || e.key, e.value
      from jsonb_each(case jsonb_typeof(p.value) when 'object' then p.value else '{}' end) e
      union all
      select '', format('[%s]', e.at - 1), e.value
      from jsonb_array_elements(case jsonb_typeof(p.value) when 'array' then p.value else '[]' end)
           with ordinality e (value, at)
    ) m (name, behind, value)
  )
  select coalesce(array_agg(format('key %s: %s', p.place, r.problem) order by p.place), '{}')
  from parts p
  cross join lateral pgtrickle_internal.relay_reference(p.value #>> '{}') r
  where jsonb_typeof(p.value) = 'string' and p.value #>> '{}' like '%${%' and r.problem <> '';
$$;

-- The error in the value of an option; null if it is valid.
create or replace function pgtrickle_internal.relay_value_problem(option pgtrickle.relay_options,
                                                                  value jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  type constant text := jsonb_typeof(value);
  near text;
begin
  if type = 'string' and value #>> '{}' like '%${%' and option.no_reference then
    return format('%s cannot be a reference: the database has to know it', option.name);
  elsif option.kind <> 'map' and type = 'string'
        and (pgtrickle_internal.relay_reference(value #>> '{}')).is_there then
    return null;
  elsif pgtrickle_internal.relay_fits(option, value) then
    return null;
  end if;
  if option.kind = 'choice' and type = 'string' then
    near := pgtrickle_internal.nearest(value #>> '{}', option.choices);
  end if;
  return format('%s is %s; it must be %s', option.name, pgtrickle_internal.relay_shown(option, value),
                pgtrickle_internal.relay_expected(option))
         || case when near is not null then format('. Did you mean "%s"?', near)
                 when option.kind = 'text' and type in ('number', 'boolean')
                 then '. Put it into quotes.' else '' end;
end $$;

-- All errors in options of one side: those of an end (of a type), or of the pipeline. `given` is an
-- array of {"key", "place", "value", "prefix"}, one for each option as it was written; `place` is
-- where the side stands, `prefix` what the flat form has in front of names that are not plain.
create or replace function pgtrickle_internal.relay_options_problems(
  side text, type text, given jsonb, place text) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  problems text[] := '{}';
  known jsonb := '{}';  -- by the option's name: how it was given first
  one record;
  option pgtrickle.relay_options;
  near text;
  own_names text[];
  all_names text[];
  problem text;
begin
  for one in
    select g ->> 'key' as key, g ->> 'place' as place, g -> 'value' as value,
           coalesce(g ->> 'prefix', '') as prefix
    from jsonb_array_elements(given) with ordinality e (g, at)
    order by e.at
  loop
    select o.* into option from pgtrickle.relay_options o
    where o.side = relay_options_problems.side and o.type = relay_options_problems.type
      and one.key = any (o.aliases || o.name);
    if not found then
      select coalesce(array_agg(w.name order by o.position, u.at), '{}'),
             coalesce(array_agg(w.name order by o.position) filter (where u.at = 1), '{}')
      into all_names, own_names
      from pgtrickle.relay_options o
      cross join unnest(array[o.name] || o.aliases) with ordinality u (n, at)
      cross join lateral (
        select case when o.plain and u.at = 1 then '' else one.prefix end || u.n) w (name)
      where o.side = relay_options_problems.side and o.type = relay_options_problems.type;
      near := pgtrickle_internal.nearest(one.prefix || one.key, all_names);
      problems := problems || format('%s: there is no option %s. %s%s', one.place,
        to_jsonb(left(one.prefix || one.key, 64)), coalesce('Did you mean "' || near || '"? ', ''),
        case when own_names = '{}' then 'There are no options here.'
             else format('Known here: %s.', array_to_string(own_names, ', ')) end);
      continue;
    elsif jsonb_typeof(one.value) = 'null' then
      continue;
    end if;
    if known ? option.name then
      if known #> array[option.name, 'value'] <> one.value then
        problems := problems || case when known #>> array[option.name, 'key'] = one.key
          then format('%s: %s says something else than at %s. Give it once.', one.place, one.key,
                      known #>> array[option.name, 'place'])
          else format('%s: "%s" says something else than "%s" (%s); both mean the same. Give one of '
                      'them.', one.place, one.key, known #>> array[option.name, 'key'],
                      known #>> array[option.name, 'place']) end;
      end if;
      continue;
    end if;
    known := known || jsonb_build_object(option.name, jsonb_build_object(
      'key', one.key, 'place', one.place, 'value', one.value));
    problem := pgtrickle_internal.relay_value_problem(option, one.value);
    if problem is not null then
      problems := problems || format('%s: %s', one.place, problem);
    end if;
  end loop;

  problems := problems || array(
    select format('%s: "%s" is missing%s', coalesce(known #>> array[o.name, 'place'], place), o.name,
                  case when o.meaning = '' then '' else format('. Set it: %s.', o.meaning) end)
    from pgtrickle.relay_options o
    where o.side = relay_options_problems.side and o.type = relay_options_problems.type
      and o.required and coalesce(known #> array[o.name, 'value'], '""') = '""'
    order by o.position);

  problems := problems || array(
    select case when cardinality(m.given) = 0
             then format('%s: none of %s is set. Set one of them: %s.', place,
                         array_to_string(m.names, ', '), m.meaning)
             else format('%s: %s are both set. Give one of them.', place,
                         array_to_string(m.given, ' and ')) end
    from (select array_agg(o.name order by o.position) as names,
                 (array_agg(o.meaning order by o.position))[1] as meaning,
                 array_remove(array_agg(case when coalesce(known #> array[o.name, 'value'], '""')
                                                  <> '""' then o.name end order by o.position),
                              null) as given
          from pgtrickle.relay_options o
          where o.side = relay_options_problems.side and o.type = relay_options_problems.type
            and o.one_of <> ''
          group by o.one_of order by min(o.position)) m
    where cardinality(m.given) <> 1);
  return problems;
end $$;

-- The error in the type of an end of a pipeline of this direction; null if it is valid.
create or replace function pgtrickle_internal.relay_type_problem(
  direction text, side text, type text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  known constant pgtrickle.relay_types := pgtrickle_internal.relay_find_type(side, type);
  wanted constant text := case when direction = 'forward' and side = 'source' then 'outbox'
                               when direction = 'reverse' and side = 'sink' then 'pg-inbox' end;
  names text[];
  near text;
begin
  if known.name = coalesce(wanted, known.name)
     and not (direction = 'reverse' and side = 'source' and known.name = 'outbox') then
    return null;
  elsif known.name is not null then
    return format('a %s pipeline cannot have the %s "%s"; use pgtrickle.set_relay() for it',
                  direction, side, type);
  end if;
  names := array(select t.name from pgtrickle.relay_types t
                 where t.side = relay_type_problem.side order by t.position);
  near := pgtrickle_internal.nearest(type, array(
    select n from pgtrickle.relay_types t, unnest(array[t.name] || t.aliases) with ordinality u (n, at)
    where t.side = relay_type_problem.side order by t.position, u.at));
  return format('%s type ''%s'' is not known. %sknown are %s and %s', side, type,
                coalesce('did you mean ''' || near || '''? ', ''),
                array_to_string(names[:cardinality(names) - 1], ', '), names[cardinality(names)]);
end $$;

-- What a key of the flat form means for an end: how well it fits (0: not at all), and the name of
-- the option. `written` is the type as the configuration has it.
create or replace function pgtrickle_internal.relay_match(
  key text, side text, written text, out rank int, out option text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(max(m.rank), 0), (array_agg(m.option order by m.rank desc, m.at))[1]
  from (
    select 3 as rank, key as option, 0 as at
    from pgtrickle_internal.relay_find_type(side, written) t
    join pgtrickle.relay_options o on o.side = t.side and o.type = t.name
    where o.plain and o.name = key
    union all
    select p.rank, substr(key, length(p.prefix) + 1), p.at
    from (
      select case when u.at <= 1 + cardinality(t.aliases) then 2 else 1 end, u.at::int,
             replace(u.name, '-', '_') || '_'
      from pgtrickle_internal.relay_find_type(side, written) t,
           unnest(array[t.name] || t.aliases || t.related) with ordinality u (name, at)
    ) p (rank, at, prefix)
    where starts_with(key, p.prefix) and length(key) > length(p.prefix)
  ) m;
$$;

-- The names of the options of an end in the flat form, or, with `only_plain`, those of them that
-- need no prefix.
create or replace function pgtrickle_internal.relay_flat_names(
  side text, written text, only_plain boolean) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(case when only_plain then u.name
                                 else replace(written, '-', '_') || '_' || u.name end
                            order by o.position, u.at), '{}')
  from pgtrickle_internal.relay_find_type(side, written) t
  join pgtrickle.relay_options o on o.side = t.side and o.type = t.name,
       unnest(array[o.name] || o.aliases) with ordinality u (name, at)
  where not only_plain or o.plain and u.at = 1;
$$;

-- The error that says that neither the pipeline nor an end of these types has this option.
create or replace function pgtrickle_internal.relay_unknown_option(key text, source text, sink text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  unknown constant text := format('key %s: there is no option %s of pipelines, nor of %s or %s. ',
                                  key, to_jsonb(left(key, 64)), source, sink);
  sink_names constant text[] := pgtrickle_internal.relay_flat_names('sink', sink, false);
  source_names constant text[] := pgtrickle_internal.relay_flat_names('source', source, false);
  sink_prefix constant text := replace(sink, '-', '_') || '_';
  source_prefix constant text := replace(source, '-', '_') || '_';
  plain text[];
  known text[];
  near text;
begin
  if sink_prefix || key = any (sink_names) then
    return unknown || format('It is an option of %s: write it "%s", or put it inside "sink".', sink,
                             sink_prefix || key);
  elsif source_prefix || key = any (source_names) then
    return unknown || format('It is an option of %s: write it "%s", or put it inside "source".',
                             source, source_prefix || key);
  end if;
  plain := pgtrickle_internal.relay_flat_names('source', source, true);
  plain := plain || array(select n from unnest(pgtrickle_internal.relay_flat_names('sink', sink, true)) n
                          where n <> all (plain));
  known := plain || array['source', 'sink', 'source_type', 'sink_type', 'retry']
           || array(select o.name from pgtrickle.relay_options o
                    where o.side in ('pipeline', 'retention') order by o.side, o.position);
  near := pgtrickle_internal.nearest(key, known || source_names || sink_names);
  return unknown || case when near is not null then format('Did you mean "%s"?', near)
    else format('An option of %s is written "%s...", or inside "sink"; one of the pipeline is one of '
                '%s.', sink, sink_prefix, array_to_string(known, ', ')) end;
end $$;

-- The members of a group of the nested form: "min, max" of retry.
create or replace function pgtrickle_internal.relay_group_members(nested_group text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(split_part(o.nested, '.', 2), ', ' order by o.position)
  from pgtrickle.relay_options o
  where o.side = 'pipeline' and split_part(o.nested, '.', 1) = nested_group;
$$;

-- All errors in a pipeline's configuration; an empty array if it is valid.
create or replace function pgtrickle_internal.relay_problems(
  name text, direction text, config jsonb) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  problems text[] := '{}';
  written jsonb := '{}';  -- the types of source and sink, as the configuration has them
  given jsonb := '{"source": [], "sink": [], "pipeline": [], "retention": []}';
  nested_groups constant text[] := array(
    select distinct split_part(o.nested, '.', 1) from pgtrickle.relay_options o
    where o.side = 'pipeline' and o.nested <> '');
  source_matches record;
  sink_matches record;
  lifted record;
  one record;
  which text;  -- source or sink
  target text;
  meant text;
  implied text;
  source pgtrickle.relay_types;  -- null while it is not known
  sink pgtrickle.relay_types;
begin
  if name is null or name = '' then
    problems := problems || 'a pipeline needs a name'::text;
  elsif length(name) > 200 then
    problems := problems || format('its name has %s characters; 200 are allowed', length(name));
  elsif name collate "C" ~ E'[\\x01-\\x1f\\x7f]' or name <> btrim(name) then
    problems := problems || 'its name has control characters, or blanks at an end'::text;
  end if;
  if config is null or jsonb_typeof(config) <> 'object' then
    return problems || format('the configuration must be a JSON object, not %s',
                              coalesce(jsonb_typeof(config), 'null'));
  elsif config::text like '%${%' then
    problems := problems || pgtrickle_internal.relay_reference_problems(config);
  end if;

  foreach which in array array['source', 'sink'] loop
    -- The nested form of the end, and its type in either form.
    if coalesce(jsonb_typeof(config -> which), 'null') not in ('object', 'null') then
      problems := problems || format('key %1$s: %1$s must be an object. Write it as {"%1$s": {"type": '
                                     '..., ...}}.', which);
    end if;
    for one in
      select 'key ' || which || '.type' as place, config #> array[which, 'type'] as value
      where jsonb_typeof(config -> which) = 'object'
      union all select 'key ' || which || '_type', config -> (which || '_type')
    loop
      if coalesce(jsonb_typeof(one.value), 'null') = 'null' then
        continue;
      elsif jsonb_typeof(one.value) <> 'string' or one.value = '""' then
        problems := problems || format('%s: the type must be the name of a source or sink', one.place);
      elsif not written ? which then
        written := written || jsonb_build_object(which, one.value);
      elsif coalesce((pgtrickle_internal.relay_find_type(which, written ->> which)).name, written ->> which)
            <> coalesce((pgtrickle_internal.relay_find_type(which, one.value #>> '{}')).name,
                        one.value #>> '{}') then
        problems := problems || format('%s: type says %s here and %s elsewhere. Give it once.',
                                       one.place, one.value, written -> which);
      end if;
    end loop;

    -- The type may be left out if the direction implies it, or a plain option of an outbox or inbox.
    implied := case which when 'source' then 'outbox' else 'pg-inbox' end;
    if not written ? which
       and (direction = case which when 'source' then 'forward' else 'reverse' end
            or config ?| pgtrickle_internal.relay_flat_names(which, implied, true)) then
      written := written || jsonb_build_object(which, implied);
    end if;
    if not written ? which then
      problems := problems || format('the type of the %1$s is missing. Set "%1$s_type", or "type" '
                                     'inside "%1$s".', which);
    else
      problems := problems || array(
        select p from pgtrickle_internal.relay_type_problem(direction, which, written ->> which) p
        where p is not null);
    end if;
    given := jsonb_set(given, array[which], coalesce((
      select jsonb_agg(jsonb_build_object('key', e.key, 'place', format('key %s.%s', which, e.key),
                                          'value', e.value))
      from jsonb_each(case jsonb_typeof(config -> which) when 'object' then config -> which
                      else '{}' end) e
      where e.key <> 'type'), '[]'));
  end loop;

  source := pgtrickle_internal.relay_find_type('source', written ->> 'source');
  sink := pgtrickle_internal.relay_find_type('sink', written ->> 'sink');
  for one in
    select e.key, e.value from jsonb_each(config) e
    where e.key not in ('source', 'sink', 'source_type', 'sink_type')
  loop
    if one.key = any (nested_groups) then
      if jsonb_typeof(one.value) not in ('object', 'null') then
        problems := problems || format('key %1$s: %1$s must be an object. Its members are %2$s.',
          one.key, pgtrickle_internal.relay_group_members(one.key));
        continue;
      end if;
      for lifted in
        select o.name, n.key, n.value
        from jsonb_each(case jsonb_typeof(one.value) when 'object' then one.value else '{}' end) n
        left join pgtrickle.relay_options o
          on o.side = 'pipeline' and o.nested = one.key || '.' || n.key
      loop
        if lifted.name is null then
          problems := problems || format('key %1$s.%2$s: there is no option %3$s in %1$s. Known here: '
            '%4$s.', one.key, lifted.key, to_jsonb(left(lifted.key, 64)),
            pgtrickle_internal.relay_group_members(one.key));
        else
          given := jsonb_insert(given, '{pipeline,-1}', jsonb_build_object(
            'key', lifted.name, 'place', format('key %s.%s', one.key, lifted.key),
            'value', lifted.value), true);
        end if;
      end loop;
      continue;
    end if;

    meant := one.key;
    select o.side into target from pgtrickle.relay_options o
    where o.side in ('pipeline', 'retention') and o.name = one.key;
    if target = 'retention' and (source.name in ('outbox', 'alerts')) is not true then
      problems := problems || format(
        'key %1$s: %1$s is for pipelines that read an outbox of this database%2$s', one.key,
        case when sink.name = 'pg-inbox' and one.key = 'retention_hours'
             then '. The inbox''s is written "inbox_retention_hours".' else '' end);
      continue;
    elsif target is null then
      source_matches := pgtrickle_internal.relay_match(one.key, 'source', written ->> 'source');
      sink_matches := pgtrickle_internal.relay_match(one.key, 'sink', written ->> 'sink');
      if source_matches.rank = 0 and sink_matches.rank = 0 then
        -- While a type is not known, it is unknown which end the key belongs to.
        if source.name is not null and sink.name is not null then
          problems := problems || pgtrickle_internal.relay_unknown_option(
            one.key, written ->> 'source', written ->> 'sink');
        end if;
        continue;
      elsif source_matches.rank = sink_matches.rank then
        problems := problems || format(
          'key %s: %1$s could be an option of the source and of the sink. Use the nested form: '
          '{"source": {"type": %s, ...}, "sink": {"type": %s, "%s": ...}}.', one.key,
          written -> 'source', written -> 'sink', sink_matches.option);
        continue;
      end if;
      target := case when source_matches.rank > sink_matches.rank then 'source' else 'sink' end;
      meant := case target when 'source' then source_matches.option else sink_matches.option end;
    end if;
    given := jsonb_insert(given, array[target, '-1'], jsonb_build_object(
      'key', meant, 'place', 'key ' || one.key, 'value', one.value,
      'prefix', left(one.key, length(one.key) - length(meant))), true);
  end loop;

  -- Options of the pipeline that were written into an end. One that the end has too stays there, and
  -- the end names its contradictions: the pipeline takes the first value alone.
  for lifted in
    select e.side, g.value as entry, o.name,
           exists (select from pgtrickle.relay_options own
                   where own.side = e.side and own.type = e.type and own.name = o.name) as stays,
           exists (select from jsonb_array_elements(given -> e.side) with ordinality f (value, at)
                   where f.at < g.at and f.value ->> 'key' = o.name
                     and jsonb_typeof(f.value -> 'value') <> 'null') as repeated
    from (values ('sink', sink.name, false), ('source', source.name, source.reads_outbox)
         ) e (side, type, reads_outbox),
         jsonb_array_elements(given -> e.side) with ordinality g (value, at),
         pgtrickle.relay_options o
    where o.side = 'pipeline' and o.name = g.value ->> 'key'
      and (o.also_in = e.side or o.also_in = 'outbox_source' and e.reads_outbox)
  loop
    if not (lifted.stays and lifted.repeated) then
      given := jsonb_insert(given, '{pipeline,-1}', lifted.entry, true);
    end if;
    if not lifted.stays then
      given := jsonb_set(given, array[lifted.side], coalesce((
        select jsonb_agg(g) from jsonb_array_elements(given -> lifted.side) g
        where g ->> 'key' <> lifted.name), '[]'));
    end if;
  end loop;

  if source.name is not null then
    problems := problems || pgtrickle_internal.relay_options_problems('source', source.name,
                                                                      given -> 'source', 'source');
  end if;
  if sink.name is not null then
    problems := problems || pgtrickle_internal.relay_options_problems('sink', sink.name, given -> 'sink',
                                                                      'sink');
  end if;
  return problems || pgtrickle_internal.relay_options_problems('pipeline', '', given -> 'pipeline', '')
                  || pgtrickle_internal.relay_options_problems('retention', '', given -> 'retention', '');
end $$;

-- Raises one error that names all problems of a pipeline, if it has any.
create or replace function pgtrickle_internal.check_relay(name text, direction text, config jsonb)
returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  problems constant text[] := pgtrickle_internal.relay_problems(name, direction, config);
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

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.relay_type(jsonb, text), pgtrickle_internal.relay_outbox_name(jsonb),
  pgtrickle_internal.check_relay(text, text, jsonb)
  to pgtrickle_admin;
