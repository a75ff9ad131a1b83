"""What attackers plant, and whether any of it ran with rights that they do not have.

Everything that is planted calls `attack.ran(what)`. That function reports the role as which it runs
to the server's log, which no rollback takes back, and then tries to turn the role into power.

The cast: `boss` is a superuser, `clerk` administers pgtrickle honestly, `mallory` administers
pgtrickle too and owns what she may own, `eve` owns tables and types and has no right of pgtrickle
at all, `app` may write what it is granted.
"""

import contextlib
import re

# Planted code may run as this role: it owns the gate and may do nothing else (the digest shows it).
SANDBOX = "pgtrickle_sandbox"

# The cast and the roles of pgtrickle that each is a member of. Roles belong to the cluster, which
# tests share: no test may give one of these more.
CAST = {"mallory": {"pgtrickle_admin"}, "eve": set(), "app": set(), "boss": set(),
        "clerk": {"pgtrickle_admin"}, "publisher": {"pgtrickle_publisher"}}

RAN = """
create schema attack;
grant usage on schema attack to public;
create function attack.ran(what text) returns boolean language plpgsql volatile
  set search_path = pg_catalog, pg_temp set client_min_messages = error
as $$
declare
  attempt text;
begin
  raise warning 'ATTACK <%> as <%> in <%: %>', what, current_user, session_user,
    left(split_part(regexp_replace(current_query(), '[[:space:]]+', ' ', 'g'), '(', 1), 90);
  -- The check of a domain runs as the role that writes a value of it, a superuser too: it is no
  -- attack on us, and must not end this one.
  if current_user in ('mallory', 'eve', 'app') or what = 'check of a domain' then
    return true;
  end if;
  foreach attempt in array array[
    'alter role mallory superuser', 'alter role eve superuser',
    'grant pgtrickle_owner to mallory', 'grant pgtrickle_owner to eve',
    'insert into pgtrickle.outbox_treasure (id, payload) values (4711, ''{"forged": true}'')',
    'insert into pgtrickle.outbox_treasure (payload) values (''{"forged": true}'')',
    'alter function pgtrickle.publish(text, jsonb, text, text, jsonb, text) security invoker',
    'create table pgtrickle.planted (id int)']
  loop
    begin
      execute attempt;
      raise warning 'ATTACK SUCCEEDED <%> as <%>: %', what, current_user, attempt;
    exception when others then
      null;
    end;
  end loop;
  return true;
end $$;
grant execute on function attack.ran(text) to public;

-- What is planted on tables.
create function attack.row_trigger() returns trigger language plpgsql as $$
begin
  perform attack.ran(tg_argv[0]);
  if tg_when = 'AFTER' then return null; end if;
  if tg_op = 'DELETE' then return old; end if;
  return new;
end $$;
create function attack.statement_trigger() returns trigger language plpgsql as $$
begin
  perform attack.ran(tg_argv[0]);
  return null;
end $$;
create function attack.immutable(what text) returns boolean language plpgsql immutable as
$$ begin return attack.ran(what); end $$;
"""

# Every function, operator, type and catalog of PostgreSQL that can be shadowed, by one that attacks.
SHADOWS = """
set check_function_bodies = off;
create schema trap;
grant usage on schema trap to public;
create function trap.spring(what text) returns boolean language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  perform attack.ran('shadow: ' || what);
  raise exception 'shadowed: %', what;
end $$;

do $$
declare
  f record;
begin
  for f in
    select p.proname as name, pg_get_function_arguments(p.oid) as arguments,
           case when p.proretset then 'setof ' else '' end || format_type(p.prorettype, null)
             as result
    from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
      and p.prorettype <> 'trigger'::regtype
      and p.proname !~ '^(pg_stat_get|pg_catalog|RI_|bt|hash|gist|gin|brin|spg|int[248]|float[48])'
  loop
    begin
      execute format('create function trap.%I(%s) returns %s language plpgsql as %L', f.name,
                     f.arguments, f.result, format('begin perform trap.spring(%L); end', f.name));
    exception when others then null;  -- internal types cannot be used
    end;
  end loop;

  for f in
    select o.oprname as name, o.oid as number, format_type(nullif(o.oprleft, 0), null) as left_type,
           format_type(o.oprright, null) as right_type, format_type(o.oprresult, null) as result
    from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace
  loop
    begin
      execute format('create function trap.operator_%s(%s) returns %s language plpgsql as %L',
                     f.number, concat_ws(', ', f.left_type, f.right_type), f.result,
                     format('begin perform trap.spring(%L); end', 'operator ' || f.name));
      execute format('create operator trap.%s (%s rightarg = %s, function = trap.operator_%s)',
                     f.name, 'leftarg = ' || f.left_type || ',', f.right_type, f.number);
    exception when others then null;
    end;
  end loop;

  for f in
    select t.typname as name from pg_type t
    where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typname !~ '^_'
  loop
    execute format('create domain trap.%I as pg_catalog.%I check (trap.spring(%L))', f.name, f.name,
                   'type ' || f.name);
  end loop;

  for f in
    select c.relname as name from pg_class c
    where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v')
      and c.relname !~ '^pg_(stat|shadow|user|authid|largeobject|subscription$|hba|file)'
  loop
    begin
      execute format('create view trap.%I as select * from pg_catalog.%I where trap.spring(%L)',
                     f.name, f.name, 'catalog ' || f.name);
      execute format('grant select on trap.%I to public', f.name);
    exception when others then null;
    end;
  end loop;

  -- Functions that take "any" cannot be written in PL/pgSQL: shadow the calls that are likely.
  for f in
    select n.name, string_agg(a.type, ', ' order by a.place) as arguments
    from (values ('format', 'text'), ('concat', 'text'), ('concat_ws', 'text'),
                 ('jsonb_build_object', 'jsonb'), ('jsonb_build_array', 'jsonb'),
                 ('json_build_object', 'json'), ('num_nulls', 'integer')) n (name, result)
    cross join (
      select 'one' as form, 1 as place, 'text' as type union all
      select two || '2', 1, 'text' from unnest(array['text', 'name', 'regclass', 'integer',
        'bigint', 'oid', 'jsonb', 'boolean', 'regtype', 'timestamptz']) two union all
      select two || '2', 2, two from unnest(array['text', 'name', 'regclass', 'integer',
        'bigint', 'oid', 'jsonb', 'boolean', 'regtype', 'timestamptz']) two union all
      select two || three || '3', 1, 'text'
      from unnest(array['text', 'name', 'regclass', 'integer']) two,
           unnest(array['text', 'name', 'regclass', 'integer']) three union all
      select two || three || '3', 2, two
      from unnest(array['text', 'name', 'regclass', 'integer']) two,
           unnest(array['text', 'name', 'regclass', 'integer']) three union all
      select two || three || '3', 3, three
      from unnest(array['text', 'name', 'regclass', 'integer']) two,
           unnest(array['text', 'name', 'regclass', 'integer']) three union all
      select 'four', p, 'text' from generate_series(1, 4) p
    ) a
    group by n.name, a.form
  loop
    begin
      execute format('create function trap.%I(%s) returns text language plpgsql as %L', f.name,
                     f.arguments, format('begin perform trap.spring(%L); end', f.name));
    exception when others then null;
    end;
  end loop;
end $$;
create aggregate trap.count(*) (sfunc = pg_catalog.int8inc, stype = bigint, initcond = '1000');
-- Ours are shadowed too: a schema before pgtrickle in the path.
do $$
declare
  f record;
begin
  for f in
    select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments
    from pg_proc p
    where p.pronamespace in ('pgtrickle'::regnamespace, 'pgtrickle_internal'::regnamespace)
      and p.prokind = 'f'
      and p.prorettype <> 'trigger'::regtype and p.proargmodes is null
  loop
    begin
      execute format('create function trap.%I(%s) returns text language plpgsql as %L', f.name,
                     f.arguments, format('begin perform trap.spring(%L); end', 'ours ' || f.name));
    exception when others then null;
    end;
  end loop;
end $$;
set check_function_bodies = on;
alter schema trap owner to mallory;
"""

# Who owns what, who is a member of what, and who may do what.
DIGEST = """
select 'role ' || r.rolname, concat_ws(' ', r.rolsuper, r.rolinherit, r.rolcreaterole,
                                       r.rolcreatedb, r.rolcanlogin, r.rolreplication,
                                       r.rolbypassrls)
from pg_roles r
union all
select format('member %s of %s', m.member::regrole, m.roleid::regrole), m.admin_option::text
from pg_auth_members m
union all
select 'settings of ' || s.setrole::regrole::text, s.setconfig::text from pg_db_role_setting s
union all
select 'schema ' || n.nspname, concat_ws(' ', n.nspowner::regrole, n.nspacl)
from pg_namespace n where n.nspname like 'pgtrickle%'
union all
select 'relation ' || c.oid::regclass, concat_ws(' ', c.relkind, c.relowner::regrole, c.relacl)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname like 'pgtrickle%' and c.relkind in ('r', 'p', 'v', 'm', 'S')
union all
select 'column ' || c.oid::regclass || '.' || a.attname, a.attacl::text
from pg_attribute a join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname like 'pgtrickle%' and a.attacl is not null
union all
select 'function ' || p.oid::regprocedure,
       concat_ws(' ', p.proowner::regrole, p.prosecdef, p.proacl, p.proconfig, md5(p.prosrc))
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname like 'pgtrickle%'
union all
select format('trigger %s of %s', t.tgname, t.tgrelid::regclass), t.tgfoid::regprocedure::text
from pg_trigger t join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname like 'pgtrickle%' and not t.tgisinternal
union all
select 'rule of ' || r.ev_class::regclass, r.rulename
from pg_rewrite r join pg_class c on c.oid = r.ev_class
join pg_namespace n on n.oid = c.relnamespace
where n.nspname like 'pgtrickle%' and c.relkind <> 'v'
"""

# What no new object may look like, whatever honest calls made.
STRANGERS = """
select 'owned by ' || p.proowner::regrole, p.oid::regprocedure::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_gate') and p.proowner::regrole::text not like 'pgtrickle%'
union all
select 'owned by ' || c.relowner::regrole, c.oid::regclass::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_gate') and c.relowner::regrole::text not like 'pgtrickle%'
union all
select format('%s to %s', a.privilege_type, coalesce(nullif(a.grantee, 0)::regrole::text, 'public')),
       c.oid::regclass::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join aclexplode(c.relacl) a
where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_gate') and c.relname not like 'inbox%'
  and (a.grantee = 0 or a.grantee::regrole::text not like 'pgtrickle%')
union all
select format('%s to %s', a.privilege_type, coalesce(nullif(a.grantee, 0)::regrole::text, 'public')),
       p.oid::regprocedure::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
cross join aclexplode(p.proacl) a
where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_gate') and p.proname !~ '^capture_[0-9]+_'
  and (a.grantee = 0 or a.grantee::regrole::text not like 'pgtrickle%')
"""

# Takes back what an attack achieved, so that it speaks in one test only.
UNDO = """
alter role mallory nosuperuser;
alter role eve nosuperuser;
revoke pgtrickle_owner from mallory, eve;
alter function pgtrickle.publish(text, jsonb, text, text, jsonb, text) security definer;
drop table if exists pgtrickle.planted;
"""

_RAN = re.compile(r"ATTACK <(.*)> as <(\w+)> in <(.*)>")
# Objects that honest calls drop: those of an outbox, an inbox or a stream table but the treasure's.
_GOES_WITH_ITS_TABLE = re.compile(
    r"(relation|function|column|trigger .* of|rule of) pgtrickle(_streams|_internal)?\."
    r"(?!.*(treasure|crown|capture_1_|_internal\.(outbox|inbox)_))\"?"
    r"(outbox_|pgt_outbox_latest_|pgt_changes_|inbox_|dirty_|diff_|refresh_\d|capture_\d)")
_SUCCEEDED = re.compile(r"ATTACK SUCCEEDED <(.*)> as <(\w+)>: (.*)")


# What the owner of a table plants on it. {t} is the table (id, n), {w} the text that it reports.
TABLE_PLANTS = {
    "row trigger before": """create trigger evil before insert or update or delete on {t}
        for each row execute function attack.row_trigger({w})""",
    "row trigger after": """create trigger evil after insert or update or delete on {t}
        for each row execute function attack.row_trigger({w})""",
    "row trigger that always fires": """create trigger evil after insert or update or delete on {t}
        for each row execute function attack.row_trigger({w});
        alter table {t} enable always trigger evil""",
    "statement trigger before": """create trigger "  evil" before insert or update or delete on {t}
        for each statement execute function attack.statement_trigger({w})""",
    "statement trigger after": """create trigger evil after insert or update or delete on {t}
        for each statement execute function attack.statement_trigger({w})""",
    "truncate triggers": """create trigger evil before truncate on {t}
        for each statement execute function attack.statement_trigger({w});
        create trigger evil_too after truncate on {t}
        for each statement execute function attack.statement_trigger({w})""",
    "deferred constraint trigger": """create constraint trigger evil
        after insert or update or delete on {t} deferrable initially deferred
        for each row execute function attack.row_trigger({w})""",
    "condition of a trigger": """create trigger evil before update on {t}
        for each row when (attack.ran({w})) execute function attack.row_trigger({w})""",
    "default": "alter table {t} add d boolean default attack.ran({w})",
    "generated column": """alter table {t} add g boolean
        generated always as (attack.immutable({w})) stored""",
    "index expression": "create index on {t} ((attack.immutable({w})))",
    "index predicate": "create index on {t} (id) where attack.immutable({w})",
    "check constraint": "alter table {t} add check (attack.ran({w}))",
    "domain of a column": """create domain {t}_d as int check (attack.ran({w}));
        alter table {t} add d {t}_d default 1""",
    "policies": """alter table {t} enable row level security;
        alter table {t} force row level security;
        create policy evil on {t} using (attack.ran({w})) with check (attack.ran({w}))""",
    "rules": """create rule evil_1 as on insert to {t} do also select attack.ran({w});
        create rule evil_2 as on update to {t} do also select attack.ran({w});
        create rule evil_3 as on delete to {t} do also select attack.ran({w})""",
    "cascade": """create table {t}_child (id int, foreign key (id) references {t} on delete cascade);
        create trigger evil before delete on {t}_child for each row
        execute function attack.row_trigger({w});
        create trigger evil_too after delete on {t}_child for each statement
        execute function attack.statement_trigger({w})""",
    "child": """create table {t}_child () inherits ({t});
        create trigger evil before insert or update or delete on {t}_child for each row
        execute function attack.row_trigger({w});
        alter table {t}_child add check (attack.ran({w}))""",
    "statistics": "create statistics {t}_s on (attack.immutable({w})), id from {t}",
    "view instead of the table": """alter table {t} rename to {t}_away;
        create view {t} as select a.*, attack.ran({w}) as evil from {t}_away a;
        create trigger evil instead of insert or update or delete on {t} for each row
        execute function attack.row_trigger({w})""",
    "view with rules instead of the table": """alter table {t} rename to {t}_away;
        create view {t} as select a.* from {t}_away a where attack.ran({w});
        create rule evil as on delete to {t} do instead select attack.ran({w});
        create rule evil_too as on update to {t} do instead select attack.ran({w})""",
    "view over a table of the same schema": """alter table {t} rename to {t}_away;
        create view {t} with (security_barrier) as
        select a.* from {t}_away a, lateral (select attack.ran({w}) offset 0) x""",
    "materialized view instead of the table": """alter table {t} rename to {t}_away;
        create materialized view {t} as select a.*, attack.ran({w}) as evil from {t}_away a""",
    "partition instead of the table": """alter table {t} rename to {t}_away;
        create table {t} (like {t}_away including defaults) partition by range (id);
        create table {t}_p partition of {t} default;
        create trigger evil before insert or update or delete on {t} for each row
        execute function attack.row_trigger({w})""",
}

# Types of columns of an adopted inbox, whose casts and checks its owner wrote.
INBOX_TYPES = """
create type {t}_id as enum ('a', 'b', 'c');
create domain {t}_when as timestamptz check (attack.ran({w}));
create domain {t}_count as int check (attack.ran({w}));
create domain {t}_note as text check (attack.ran({w}));
create type {t}_body as (j jsonb);
create function {t}_f(text) returns {t}_id language plpgsql as
  $f$ begin perform attack.ran({w}); return enum_first(null::{t}_id); end $f$;
create function {t}_f(jsonb) returns {t}_body language plpgsql as
  $f$ begin perform attack.ran({w}); return row($1); end $f$;
create cast (jsonb as {t}_body) with function {t}_f(jsonb) as assignment;
create cast (text as {t}_id) with function {t}_f(text) as implicit;
create function {t}_equals({t}_id, {t}_id) returns boolean language plpgsql as
  $f$ begin return attack.ran({w}); end $f$;
create operator = (leftarg = {t}_id, rightarg = {t}_id, function = {t}_equals);
"""

# Types that mention a type of eve's, as columns: an enum alone, and inside everything.
TYPE_COLUMNS = {
    "enum": "mood", "array": "mood[]", "domain": "mood_domain", "domain over array": "moods_domain",
    "composite": "feeling", "array of composite": "feeling[]", "domain over composite":
    "feeling_domain", "range": "mood_range", "multirange": "mood_multirange",
    "composite in composite": "nest", "table row": "diary", "domain over text": "note"}
VALUES = {
    "mood": "'sad'", "mood[]": "'{sad,happy}'", "mood_domain": "'sad'", "moods_domain": "'{sad}'",
    "feeling": "'(1,sad)'", "feeling[]": "array['(1,sad)'::eve.feeling]", "feeling_domain":
    "'(1,sad)'", "mood_range": "'[sad,happy]'", "mood_multirange": "'{[sad,happy]}'",
    "nest": "'(\"(1,sad)\",\"{\"\"(2,happy)\"\"}\")'", "diary": "'(1,sad)'", "note": "'x'"}
TYPES = """
create schema eve authorization eve;
grant usage on schema eve to public;
set role eve;
create type eve.mood as enum ('sad', 'happy');
create domain eve.mood_domain as eve.mood;
create domain eve.moods_domain as eve.mood[];
create type eve.feeling as (n int, m eve.mood);
create domain eve.feeling_domain as eve.feeling;
create type eve.mood_range as range (subtype = eve.mood, multirange_type_name = mood_multirange);
create type eve.nest as (f eve.feeling, fs eve.feeling[]);
create table eve.diary (n int, m eve.mood);
create domain eve.note as text;
reset role;
"""
# Casts that eve makes, after columns of her types are captured.
CASTS = """
set role eve;
do $$
declare
  source text;
  target text;
  context text;
  name text;
begin
  foreach source in array array['mood', 'feeling', 'mood_range', 'mood_multirange', 'nest', 'diary']
  loop
    foreach target in array array['json', 'jsonb', 'text', 'varchar', 'bytea', 'record', 'int',
                                  'boolean', 'timestamptz', 'uuid'] loop
      name := format('eve.%I', source || '_to_' || target);
      begin
        execute format('create function %s(eve.%I) returns %s language plpgsql as '
                       '$f$ begin perform attack.ran(%L); return %s; end $f$', name, source,
                       target, format('cast from %s to %s', source, target),
                       case when target in ('json', 'jsonb', 'text', 'varchar')
                            then '''"evil"''' else 'null' end);
        execute format('create cast (eve.%I as %s) with function %s(eve.%I) as implicit', source,
                       target, name, source);
      exception when others then null;
      end;
      name := format('eve.%I', target || '_to_' || source);
      begin
        execute format('create function %s(%s) returns eve.%I language plpgsql as '
                       '$f$ begin perform attack.ran(%L); return null; end $f$', name, target,
                       source, format('cast from %s to %s', target, source));
        execute format('create cast (%s as eve.%I) with function %s(%s) as implicit', target,
                       source, name, target);
      exception when others then null;
      end;
    end loop;
  end loop;
end $$;
alter domain eve.mood_domain add check (attack.ran('check of a domain'));
alter domain eve.note add check (attack.ran('check of a domain'));
reset role;
"""


def prepare(db):
    """Roles, attack.ran(), and the treasure: an outbox and a table that are the superuser's."""
    for role, member_of in CAST.items():
        db.login(role, *member_of)
    db.execute("alter role boss superuser")
    db.execute(RAN)
    db.execute("grant all on schema public to mallory, eve")
    db.execute("create schema mallory_own authorization mallory")
    db.execute("grant usage on schema mallory_own to public")
    db.execute("create table treasure (id int primary key, n int)")
    db.execute("select pgtrickle.enable_outbox('treasure')")
    db.execute("select pgtrickle.create_outbox('crown')")


def shadow(db):
    """Shadows all that PostgreSQL and we have, in the schema `trap` of mallory's."""
    with db.connect() as connection:
        connection.execute("begin")
        connection.execute(SHADOWS)
        connection.execute("commit")


class Watch:
    """Looks from its making on for planted code that ran as a role that its planter is not."""

    def __init__(self, db):
        self._db = db
        self._log = db.server.log_path
        self._offset = self._size()
        self.before = dict(db.execute(DIGEST))

    def _size(self):
        with open(self._log, "rb") as log:
            return log.seek(0, 2)

    def _text(self):
        with open(self._log, "rb") as log:
            log.seek(self._offset)
            return log.read().decode(errors="replace")

    def ran(self):
        """{(what, as whom, in whose session and statement)} of all planted code that ran."""
        return set(_RAN.findall(self._text()))

    def escalations(self, *allowed, what=None):
        """What ran as a role that is not among `allowed`, and what it achieved."""
        text, achieved = self._text(), {}
        for name, role, done in _SUCCEEDED.findall(text):
            achieved.setdefault((name, role), set()).add(done)
        return [f"{name} ran as {role} in {where}"
                + "".join(f"; did {done[:40]}" for done in sorted(achieved.get((name, role), ())))
                for name, role, where in sorted(set(_RAN.findall(text)))
                if role not in allowed and what in (None, name)]

    def changes(self):
        """What the catalogs say otherwise than before; new objects are allowed if they are ours."""
        after = dict(self._db.execute(DIGEST))
        changed = [f"{name}: {value} became {after.get(name, 'nothing')}"
                   for name, value in sorted(self.before.items()) if after.get(name) != value
                   and not (name not in after and _GOES_WITH_ITS_TABLE.match(name))]
        changed += [f"new: {name}: {after[name]}" for name in sorted(after.keys() - self.before)
                    if re.match(r"(role|member|settings|schema|rule) ", name)]
        return changed + [" ".join(row) for row in self._db.execute(STRANGERS)]

    def check(self, *allowed, what=None):
        said = self.escalations("mallory", "eve", *allowed, what=what)
        said += [change[:300] for change in self.changes()]
        if said:
            self._db.execute(UNDO)
        assert not said, "\n".join(said)


@contextlib.contextmanager
def watching(db, *allowed, what=None):
    """Fails if code ran as another role than its planter (or one of `allowed`), or rights moved.

    `what` limits this to one planted thing, where other tests planted in the same database.
    """
    watch = Watch(db)
    yield watch
    watch.check(*allowed, what=what)
