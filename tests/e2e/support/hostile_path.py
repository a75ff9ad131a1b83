"""A schema in which a role without rights shadows what is looked up by search_path.

Each function and operator there does what PostgreSQL's own does, and notes as which role it ran.
Types are domains whose check notes the same. So whatever is taken over goes on working, commits,
and is seen afterwards.
"""

OWNER = "hostile_owner"

# What PL/pgSQL cannot take arguments for (any, anyelement), in the forms that our functions use.
POLYMORPHIC = """
create function hostile.format(text, text) returns text language plpgsql as
  'begin perform hostile.ran(''format''); return pg_catalog.format($1, $2); end';
create function hostile.format(text, text, text) returns text language plpgsql as
  'begin perform hostile.ran(''format''); return pg_catalog.format($1, $2, $3); end';
create function hostile.format(text, name) returns text language plpgsql as
  'begin perform hostile.ran(''format''); return pg_catalog.format($1, $2); end';
create function hostile.format(text, regclass) returns text language plpgsql as
  'begin perform hostile.ran(''format''); return pg_catalog.format($1, $2); end';
create function hostile.concat(text, text) returns text language plpgsql as
  'begin perform hostile.ran(''concat''); return pg_catalog.concat($1, $2); end';
create function hostile.to_jsonb(text) returns jsonb language plpgsql as
  'begin perform hostile.ran(''to_jsonb''); return pg_catalog.to_jsonb($1); end';
create function hostile.cardinality(text[]) returns int language plpgsql as
  'begin perform hostile.ran(''cardinality''); return pg_catalog.cardinality($1); end';
create function hostile.jsonb_build_object(text, text) returns jsonb language plpgsql as
  'begin perform hostile.ran(''jsonb_build_object''); '
  'return pg_catalog.jsonb_build_object($1, $2); end';
create function hostile.append_text(text[], text) returns text[] language plpgsql as
  'begin perform hostile.ran(''||''); return pg_catalog.array_append($1, $2); end';
create operator hostile.|| (leftarg = text[], rightarg = text, function = hostile.append_text);
create function hostile.join_texts(text[], text[]) returns text[] language plpgsql as
  'begin perform hostile.ran(''||''); return pg_catalog.array_cat($1, $2); end';
create operator hostile.|| (leftarg = text[], rightarg = text[], function = hostile.join_texts);
create function hostile.same_texts(text[], text[]) returns boolean language plpgsql as
  'begin perform hostile.ran(''=''); return $1 operator(pg_catalog.=) $2; end';
create operator hostile.= (leftarg = text[], rightarg = text[], function = hostile.same_texts);
create function hostile.other_texts(text[], text[]) returns boolean language plpgsql as
  'begin perform hostile.ran(''<>''); return $1 operator(pg_catalog.<>) $2; end';
create operator hostile.<> (leftarg = text[], rightarg = text[], function = hostile.other_texts);
"""

# The names of functions, and the types of operators, that the database side and the relay use.
SCHEMA = f"""
do $$ begin
  if not exists (select from pg_roles where rolname = '{OWNER}') then
    create role {OWNER};
  end if;
end $$;
create schema hostile authorization {OWNER};
set role {OWNER};
set check_function_bodies = off;
grant usage on schema hostile to public;
create table hostile.victims (role name, what text);
grant insert on hostile.victims to public;
create function hostile.ran(what text) returns boolean language plpgsql as
  'begin insert into hostile.victims values (current_user, what); return true; end';

do $$
declare
  f record;
begin
  for f in
    select p.proname as name, oidvectortypes(p.proargtypes) as arguments,
           format_type(p.prorettype, null) as result, p.proretset,
           (select string_agg('$' || n, ', ' order by n) from generate_series(1, p.pronargs) n)
             as passed
    from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.provariadic = 0
      and p.proallargtypes is null and p.prorettype not in ('internal'::regtype, 'cstring'::regtype)
      and exists (select from names n where n.name = p.proname)
      and not exists (select from unnest(p.proargtypes) a join pg_type t on t.oid = a
                      where t.typtype = 'p')
  loop
    begin
      execute format('create function hostile.%I(%s) returns %s%s language plpgsql as %L',
        f.name, f.arguments, case when f.proretset then 'setof ' else '' end, f.result,
        format(case when f.proretset
                    then 'begin perform hostile.ran(%L); return query select pg_catalog.%I(%s); end'
                    when f.result = 'void'
                    then 'begin perform hostile.ran(%L); perform pg_catalog.%I(%s); end'
                    else 'begin perform hostile.ran(%L); return pg_catalog.%I(%s); end' end,
               f.name, f.name, f.passed));
    exception when others then null;  -- pseudo-types and the like
    end;
  end loop;

  for f in
    select o.oid as number, o.oprname as name, format_type(nullif(o.oprleft, 0), null) as left_type,
           format_type(o.oprright, null) as right_type, format_type(o.oprresult, null) as result
    from pg_operator o
    where o.oprnamespace = 'pg_catalog'::regnamespace
      and o.oprright = any (array['text', 'name', 'int2', 'int4', 'int8', 'oid', 'regclass', 'bool',
        'json', 'jsonb', 'char', 'uuid', 'timestamptz', 'interval', 'numeric', 'xid8', 'xid',
        'bytea', 'text[]', 'pg_lsn', 'date', 'float8']::regtype[])
  loop
    begin
      execute format('create function hostile.operator_%s(%s) returns %s language plpgsql as %L',
        f.number, concat_ws(', ', f.left_type, f.right_type), f.result,
        format('begin perform hostile.ran(%L); return %s operator(pg_catalog.%s) %s; end', f.name,
               case when f.left_type is not null then '$1' end, f.name,
               case when f.left_type is not null then '$2' else '$1' end));
      execute format('create operator hostile.%s (%s rightarg = %s, function = '
                     'hostile.operator_%s)', f.name, 'leftarg = ' || f.left_type || ',',
                     f.right_type, f.number);
    exception when others then null;
    end;
  end loop;

  for f in
    select t.typname as name from pg_type t
    where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typname !~ '^_'
      and t.typname in (select n.name from names n)
  loop
    execute format('create domain hostile.%I as pg_catalog.%I check (hostile.ran(%L))', f.name,
                   f.name, f.name);
  end loop;
end $$;
{POLYMORPHIC}
reset role;
reset check_function_bodies;
"""

# Before pg_catalog, which is more than a schema behind it could shadow.
PATH = "hostile, pg_catalog, public"


def shadow(db, text):
    """Makes the schema `hostile`; shadows each function and type that is named in `text`."""
    with db.connect() as connection:
        connection.execute("create temp table names (name text)")
        connection.execute("grant select on names to public")
        connection.execute("insert into names select distinct m[1] from "
                           r"regexp_matches(%s, '[a-z_][a-z0-9_]*', 'g') m", (text,))
        connection.execute(SCHEMA)


def victims(db):
    """Which roles ran what is shadowed, and what: all but the schema's owner."""
    return db.execute("select distinct role::text, what from hostile.victims where role <> %s "
                      "order by 1, 2", (OWNER,))
