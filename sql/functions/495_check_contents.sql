-- What relays, `check` and `status` ask beside the comparison of what is installed, which the
-- program makes itself (src/schema): rows that each installation has, sequences, and the tables and
-- capture functions that outboxes have of their own. Nothing here changes anything.

-- Rows of ours without which nothing works.
create or replace function pgtrickle_internal.check_rows()
returns table (is_problem boolean, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select true, format('table %s lacks its row%s', t.name, t.row), 'pgtrickle-relay init'
  from (values
    ('pgtrickle_gate.secret', '', exists (select from pgtrickle_gate.secret)),
    ('pgtrickle_internal.housekeeping_round', '',
     exists (select from pgtrickle_internal.housekeeping_round)),
    ('pgtrickle_internal.locks', ' "housekeeping"',
     exists (select from pgtrickle_internal.locks l where l.name = 'housekeeping')),
    ('pgtrickle.relay_types', 's', exists (select from pgtrickle.relay_types)),
    ('pgtrickle.relay_options', 's', exists (select from pgtrickle.relay_options))
  ) t (name, row, is_there)
  where not t.is_there;
$$;

-- Functions of the gate that were made with another secret than the one that is there.
create or replace function pgtrickle_internal.check_gate()
returns table (is_problem boolean, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select true, format('function %s of %s was made with another secret, and refuses to be called',
                      p.oid::regprocedure, g.what), g.remedy
  from (
    select c.reader, format('outbox %s', c.outbox_table_name), case when c.kind = 'adopted'
             then 'its owner calls adopt_outbox() again, with the same arguments'
             else format('pgtrickle-relay init, as a superuser; or SELECT '
                         'pgtrickle.outbox_full_refresh(%L); by the owner of its table',
                         c.outbox_table_name) end
    from pgtrickle_internal.outbox_config c where c.kind in ('table', 'adopted')
    union all
    select c.gate_function, format('inbox %s', c.inbox_name),
           'pgtrickle-relay init, as a superuser; or: ' || pgtrickle_internal.inbox_enabling(c)
    from pgtrickle.pgt_inbox_config c) g (name, what, remedy)
  join pg_proc p on p.proname = g.name and p.pronamespace = 'pgtrickle_streams'::regnamespace
  where exists (select from pgtrickle_gate.secret)
    and strpos(p.prosrc, pgtrickle_internal.gate_seal(g.name)) = 0;
$$;

-- Identity columns of our tables whose sequence would hand out a number that is there already, or has
-- none left: the next INSERT would fail. A table that is locked is looked at the next time.
create or replace function pgtrickle_internal.check_sequences()
returns table (is_problem boolean, message text, remedy text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  set lock_timeout = '50ms'
as $$
declare
  s record;
  highest bigint;
  next_one numeric;
begin
  for s in
    select r.oid::regclass as rel, a.attname, d.objid::regclass as sequence, q.seqmax
    from pg_class r
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = r.oid
      and d.classid = 'pg_class'::regclass and d.deptype = 'i'
    join pg_sequence q on q.seqrelid = d.objid
    join pg_attribute a on a.attrelid = r.oid and a.attnum = d.refobjsubid
    where r.relkind = 'r' and r.relowner = 'pgtrickle_owner'::regrole
      and r.relnamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      -- Without an index that would read all rows.
      and exists (select from pg_index i
                  where i.indrelid = r.oid and i.indisvalid and i.indkey[0] = a.attnum
                    and i.indpred is null)
    order by r.oid
  loop
    next_one := null;
    begin
      -- First the rows: what is inserted meanwhile draws higher numbers.
      execute format('select max(%I) from %s', s.attname, s.rel) into highest;
      execute format('select last_value::numeric + is_called::int from %s', s.sequence)
        into next_one;
      raise sqlstate 'PGT01';
    exception when sqlstate 'PGT01' or lock_not_available or undefined_table then
      null;  -- no lock outlives this block: there may be thousands of tables
    end;
    if next_one <= highest or next_one > s.seqmax then
      return query select true,
        case when next_one > s.seqmax
             then format('sequence %s has given out its last number: inserts fail', s.sequence)
             else format('sequence %s: the next number is %s, and column %s.%I holds %s: inserts fail',
                         s.sequence, next_one, s.rel, s.attname, highest) end,
        format('SELECT pg_catalog.setval(%L, (SELECT pg_catalog.max(%I) FROM %s));',
               s.sequence, s.attname, s.rel);
    end if;
  end loop;
end $$;

-- The tables of outboxes, as far as they exist.
create or replace function pgtrickle_internal.outbox_relations()
returns table (number int, kind text, is_delta boolean, rel oid, name text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.outbox_number, c.kind, t.is_delta, r.oid, format('pgtrickle.%I', r.relname)
  from pgtrickle_internal.outbox_config c
  cross join lateral (values (false, c.outbox_table_name), (true, c.delta_table_name))
    t (is_delta, name)
  join pg_class r on r.relnamespace = 'pgtrickle'::regnamespace and r.relname = t.name
    and r.relkind = 'r'
  where c.kind <> 'adopted';
$$;

-- Tables of outboxes that are not as outbox_create makes them. Takes no lock on them: PostgreSQL's
-- functions that write indexes, constraints, and expressions of columns as text would.
create or replace function pgtrickle_internal.check_outbox_tables()
returns table (is_problem boolean, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with relations as materialized (
    select o.*, r.relowner, r.relpersistence, r.relrowsecurity or r.relforcerowsecurity as secured,
           r.relreplident, r.relacl, r.reltoastrelid
    from pgtrickle_internal.outbox_relations() o join pg_class r on r.oid = o.rel
  ), needed (is_delta, only_kind, name, type, not_null, has, insertable) as (values
    (false, null, 'id', 'bigint', true, 'identity', false),
    (false, null, 'pgt_id', 'uuid', true, 'gen_random_uuid()', false),
    (false, null, 'refresh_id', 'uuid', false, null, false),
    (false, null, 'created_at', 'timestamp with time zone', true, 'clock_timestamp()', false),
    (false, null, 'inserted_count', 'bigint', true, '0', true),
    (false, null, 'deleted_count', 'bigint', true, '0', true),
    (false, null, 'is_claim_check', 'boolean', true, 'false', true),
    (false, null, 'tg_op', 'text', false, null, true),
    (false, null, 'payload', 'jsonb', true, null, true),
    (false, null, 'headers', 'jsonb', false, null, false),
    (false, 'events', 'event_type', 'text', false, null, false),
    (false, 'events', 'event_key', 'text', false, null, false),
    (false, 'events', 'idempotency_key', 'text', false, null, false),
    (true, null, 'outbox_id', 'bigint', true, null, true),
    (true, null, 'row_num', 'bigint', true, null, true),
    (true, null, 'row_op', 'text', true, null, true),
    (true, null, 'row_data', 'jsonb', true, null, true)
  ), columns as materialized (
    select r.rel, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull,
           case when a.attidentity <> '' then 'identity'
                when a.attgenerated <> '' then 'an expression'
                else pg_get_expr(d.adbin, 0) end as has,
           a.attacl, d.oid as expression
    from relations r
    join pg_attribute a on a.attrelid = r.rel and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  ), idempotency as materialized (
    select c.rel, i.indexrelid as index, i.indisvalid
    from columns c
    join pg_index i on i.indrelid = c.rel and i.indisunique and i.indexprs is null
      and i.indpred is not null and i.indkey::text = c.attnum::text
    where c.attname = 'idempotency_key'
  ), found as (
    select true, r.name || ' belongs to ' || r.relowner::regrole,
           format('ALTER TABLE %s OWNER TO pgtrickle_owner;', r.name)
    from relations r where r.relowner <> 'pgtrickle_owner'::regrole
    union all
    select true, r.name || ' is UNLOGGED: a crash of the server empties it',
           format('ALTER TABLE %s SET LOGGED;', r.name)
    from relations r where r.relpersistence <> 'p'
    union all
    select true, r.name || ' has row-level security: rows may be hidden or refused',
           format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;', r.name)
    from relations r where r.secured
    union all
    select false,
           r.name || ' has the replica identity NOTHING: a publication makes its updates fail',
           format('ALTER TABLE %s REPLICA IDENTITY DEFAULT;', r.name)
    from relations r where r.relreplident = 'n'
    union all
    select false, r.name || ' has autovacuum switched off: it grows without bounds',
           format('ALTER TABLE %s RESET (autovacuum_enabled, toast.autovacuum_enabled);', r.name)
    from relations r
    where exists (select from pg_class c, pg_options_to_table(c.reloptions) o
                  where c.oid in (r.rel, r.reltoastrelid)
                    and o.option_name = 'autovacuum_enabled' and not o.option_value::boolean)
    union all
    select true, format('%s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass),
           format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::regclass, i.inhparent::regclass)
    from relations r join pg_inherits i on r.rel in (i.inhrelid, i.inhparent)
    union all
    select t.tgtype & 2 > 0,
           format('%s has a trigger %I: it can make statements of applications fail', r.name,
                  t.tgname),
           format('if it is not yours: DROP TRIGGER %I ON %s;', t.tgname, r.name)
    from relations r join pg_trigger t on t.tgrelid = r.rel and not t.tgisinternal
    union all
    select w.is_instead,
           format('%s has a rule %I: it can keep changes from being recorded', r.name, w.rulename),
           format('if it is not yours: DROP RULE %I ON %s;', w.rulename, r.name)
    from relations r join pg_rewrite w on w.ev_class = r.rel
    union all
    select false, format('%s has a constraint %I: it can make statements of applications fail',
                         r.name, c.conname),
           format('if it is not yours: ALTER TABLE %s DROP CONSTRAINT %I;', r.name, c.conname)
    from relations r
    join pg_constraint c on c.conrelid = r.rel and c.contype in ('c', 'u', 'f', 'x')
    where not (r.is_delta and c.contype = 'c' and exists (
                 select from columns k
                 where k.rel = r.rel and k.attname = 'row_op' and c.conkey = array[k.attnum]))
    union all
    select false, format('%s has an index %s: it can make statements of applications fail', r.name,
                         i.indexrelid::regclass),
           format('if it is not yours: DROP INDEX %s;', i.indexrelid::regclass)
    from relations r
    join pg_index i on i.indrelid = r.rel
      and (i.indisunique or i.indexprs is not null or i.indpred is not null)
    where not exists (select from pg_constraint c where c.conindid = i.indexrelid)
      and i.indexrelid not in (select k.index from idempotency k)
    union all
    select true, r.name || ' has no valid primary key',
           case when i.indexrelid is null then format(
             'ALTER TABLE %s ADD PRIMARY KEY (%s);', r.name,
             case when r.is_delta then 'outbox_id, row_num' else 'id' end)
           else format('REINDEX INDEX %s;', i.indexrelid::regclass) end
    from relations r
    left join pg_index i on i.indrelid = r.rel and i.indisprimary
    where coalesce(not (i.indisvalid and i.indisready), true)
    union all
    select true, r.name || ' has no valid index that keeps idempotency keys unique',
           format('CREATE UNIQUE INDEX ON %s (idempotency_key) WHERE idempotency_key IS NOT NULL;',
                  r.name)
    from relations r
    where r.kind = 'events'
      and not exists (select from idempotency k where k.rel = r.rel and k.indisvalid)
    union all
    select true,
           format('%s: column %s %s', r.name, n.name,
                  case when c.attname is null then 'is missing'
                       else format('is %s, not %s', concat_ws(', ', c.type, case when c.attnotnull
                              then 'NOT NULL' else 'may be null' end, 'default ' || c.has),
                            concat_ws(', ', n.type, case when n.not_null
                              then 'NOT NULL' else 'may be null' end, 'default ' || n.has)) end),
           case when c.attname is null then format('ALTER TABLE %s ADD COLUMN %s %s%s%s;', r.name,
                  n.name, n.type,
                  case when n.has = 'identity' then ' GENERATED BY DEFAULT AS IDENTITY'
                       else ' DEFAULT ' || n.has end,
                  case when n.not_null then ' NOT NULL' end)
             else concat(
               case when c.type <> n.type then format(
                 'ALTER TABLE %s ALTER COLUMN %s TYPE %s; ', r.name, n.name, n.type) end,
               case when c.has is not distinct from n.has then ''
                    when n.has = 'identity' then format(
                      'ALTER TABLE %s ALTER COLUMN %s ADD GENERATED BY DEFAULT AS IDENTITY; ',
                      r.name, n.name)
                    else format('ALTER TABLE %s ALTER COLUMN %s %s; ', r.name, n.name,
                                coalesce('SET DEFAULT ' || n.has, 'DROP DEFAULT')) end,
               case when c.attnotnull <> n.not_null then format(
                 'ALTER TABLE %s ALTER COLUMN %s %s NOT NULL;', r.name, n.name,
                 case when n.not_null then 'SET' else 'DROP' end) end) end
    from relations r
    join needed n on n.is_delta = r.is_delta and coalesce(n.only_kind, r.kind) = r.kind
    left join columns c on c.rel = r.rel and c.attname = n.name
    where (c.type, c.attnotnull, c.has) is distinct from (n.type, n.not_null, n.has)
    union all
    select not x.evaluates,
           format('%s: column %I, which is none of pgtrickle''s, %s', r.name, c.attname,
                  case when x.evaluates then 'runs a function or operator as each row is written'
                       else 'is NOT NULL and has no default' end),
           format('if it is not yours: ALTER TABLE %s DROP COLUMN %I;', r.name, c.attname)
    from columns c
    join relations r on r.rel = c.rel
    cross join lateral (select exists (
      select from pg_depend e
      where e.classid = 'pg_attrdef'::regclass and e.objid = c.expression
        and e.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass))) x (evaluates)
    where not exists (select from needed n where n.is_delta = r.is_delta and n.name = c.attname)
      and (x.evaluates or (c.attnotnull and c.has is null))
    union all
    -- Capture functions run as that role: without the privilege, statements of applications fail.
    select true, format('role pgtrickle_capture lacks %s on %s: statements of applications fail',
                        string_agg(distinct p.privilege, ', '), r.name), 'pgtrickle-relay init'
    from relations r
    join needed n on n.is_delta = r.is_delta
    join columns c on c.rel = r.rel and c.attname = n.name
    cross join lateral (values ('INSERT', n.insertable), ('SELECT', n.name = 'id'))
      p (privilege, is_needed)
    where r.kind = 'table' and p.is_needed
      and not has_column_privilege('pgtrickle_capture', r.rel, c.attnum, p.privilege)
    group by r.name
    union all
    select false, format('%s has %s on %s, which pgtrickle does not give',
                         coalesce('role ' || g.grantee::regrole, 'PUBLIC'),
                         string_agg(distinct g.privilege, ', '), g.name),
           format('if that was not meant: REVOKE %s ON %s FROM %s;',
                  string_agg(distinct g.privilege, ', '), g.name,
                  coalesce(g.grantee::regrole::text, 'PUBLIC'))
    from (
      select r.name, r.relowner, nullif(a.grantee, 0) as grantee, a.privilege_type as privilege,
             null::name as attname
      from relations r cross join lateral aclexplode(r.relacl) a
      union all
      select r.name, r.relowner, nullif(a.grantee, 0),
             format('%s (%I)', a.privilege_type, c.attname), c.attname
      from relations r
      join columns c on c.rel = r.rel
      cross join lateral aclexplode(c.attacl) a
      where a.grantee <> 'pgtrickle_capture'::regrole
    ) g
    where g.grantee is distinct from g.relowner
      and not exists (select from pg_roles o where o.oid = g.grantee and o.rolsuper)
      and (g.grantee is null or g.privilege !~ '^(SELECT|MAINTAIN)')
    group by g.name, g.grantee
    union all
    select true, format('sequence %s: it hands out numbers in advance, in steps or again',
                        s.seqrelid::regclass),
           format('ALTER SEQUENCE %s INCREMENT 1 CACHE 1 NO CYCLE MINVALUE 1 MAXVALUE %s;',
                  s.seqrelid::regclass, 9223372036854775807)
    from relations r
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = r.rel
      and d.classid = 'pg_class'::regclass and d.deptype = 'i'
    join pg_sequence s on s.seqrelid = d.objid
    where (s.seqincrement, s.seqcache, s.seqcycle, s.seqmax)
            <> (1, 1, false, 9223372036854775807)
    union all
    select true, format('sequence %s is UNLOGGED: a crash of the server sets it back, and inserts '
                        'fail', q.oid::regclass),
           format('ALTER SEQUENCE %s SET LOGGED;', q.oid::regclass)
    from relations r
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = r.rel
      and d.classid = 'pg_class'::regclass and d.deptype = 'i'
    join pg_class q on q.oid = d.objid and q.relkind = 'S'
    where q.relpersistence <> r.relpersistence
  )
  select * from found f (is_problem, message, remedy) order by f.message;
$$;

-- Capture functions that are not as capture_define wrote them. The text ends with its own digest.
create or replace function pgtrickle_internal.check_capture_functions()
returns table (is_problem boolean, message text, remedy text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with functions as materialized (
    select p.oid, p.proname, p.proowner, p.prosrc, p.prosecdef, p.proconfig, p.proacl, l.lanname,
           substring(p.proname from '^capture_([0-9]{1,9})_')::int as number,
           p.proname !~ '_begin$' as definer, p.provolatile, p.proisstrict, p.proleakproof
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'pgtrickle_internal'::regnamespace
      and p.proname ~ '^capture_[0-9]{1,9}_[a-z]+$' and p.pronargs = 0
  ), known as materialized (
    select f.*, c.outbox_table_name, r.relowner, w.owner
    from functions f
    join pgtrickle_internal.outbox_config c on c.outbox_number = f.number and c.kind = 'table'
    join pg_class r on r.oid = c.stream_table_oid
    cross join lateral (select case when f.definer then 'pgtrickle_capture'
                                    else 'pgtrickle_owner' end::regrole) w (owner)
  )
  select true, format('function %s of outbox %s belongs to %s', k.oid::regprocedure,
                      k.outbox_table_name, k.proowner::regrole),
         format('ALTER FUNCTION %s OWNER TO %s;', k.oid::regprocedure, k.owner)
  from known k where k.proowner <> k.owner
  union all
  select true, format('function %s of outbox %s: %s', k.oid::regprocedure, k.outbox_table_name,
                      w.what),
         format('pgtrickle-relay init; and then SELECT pgtrickle.outbox_full_refresh(%L); by the '
                'owner of the table, for changes may have been recorded wrongly',
                k.outbox_table_name)
  from known k
  cross join lateral (select concat_ws(', ',
    case when k.prosrc <> pgtrickle_internal.capture_signed(k.proname,
                            regexp_replace(k.prosrc, E'\n-- [0-9a-f]{32}$', ''))
         then 'its body is another one' end,
    case when k.prosecdef <> k.definer
         then 'it is SECURITY ' || case when k.prosecdef then 'DEFINER' else 'INVOKER' end end,
    -- quote_all_identifiers may have been on as it was written.
    case when replace(array_to_string(k.proconfig, ';'), '"', '')
                <> 'search_path=pg_catalog, pg_temp'
           or (k.proconfig is null and k.proname ~ '_truncate$')
         then 'its SET clause is another one' end,
    case when k.lanname <> 'plpgsql' or k.provolatile <> 'v' or k.proisstrict or k.proleakproof
         then 'its language or volatility is another one' end)) w (what)
  where w.what <> ''
  union all
  select false, format('function %s of outbox %s may be executed by %s', k.oid::regprocedure,
                       k.outbox_table_name, coalesce(a.grantee::regrole::text, 'PUBLIC')),
         format('if that was not meant: REVOKE ALL ON FUNCTION %s FROM %s;', k.oid::regprocedure,
                coalesce(a.grantee::regrole::text, 'PUBLIC'))
  from known k
  cross join lateral (
    select distinct nullif(g.grantee, 0)
    from aclexplode(coalesce(k.proacl, acldefault('f', k.proowner))) g) a (grantee)
  where a.grantee is null or a.grantee not in (k.proowner, k.owner, k.relowner)
  order by 2;
$$;

-- All of this; `is_problem` is false where it breaks nothing by itself.
create or replace function pgtrickle.relay_differences()
returns table (is_problem boolean, message text, remedy text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off
as $$
  select * from pgtrickle_internal.check_rows()
  union all select * from pgtrickle_internal.check_gate()
  union all select * from pgtrickle_internal.check_capture_functions()
  union all select * from pgtrickle_internal.check_outbox_tables()
  union all select * from pgtrickle_internal.check_sequences();
$$;
comment on function pgtrickle.relay_differences() is
  'For the relay: what is wrong with rows of the installation, and with tables and functions of '
  'outboxes, with its remedy; changes nothing';

-- What the daemon calls.
grant execute on function pgtrickle.relay_differences() to pgtrickle_relay;
