"""The capture functions run under the search_path of the writing session, and look nothing up by it.

In the schema `trap` each function, operator and type of PostgreSQL that can be shadowed is shadowed
by one that raises an error. Writers put it before pg_catalog.
"""

import psycopg
import pytest

from support.replay import Replay

TRAP = """
create schema trap;
set check_function_bodies = off;
create function trap.spring() returns boolean language plpgsql as $$
begin raise exception 'the trap has sprung'; end $$;

do $$
declare
  f record;
begin
  for f in
    select p.proname as name, pg_get_function_arguments(p.oid) as arguments,
           case when p.proretset then 'setof ' else '' end || format_type(p.prorettype, null)
             as result
    from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
  loop
    begin
      execute format('create function trap.%I(%s) returns %s language plpgsql as '
                     '''begin perform trap.spring(); end''', f.name, f.arguments, f.result);
    exception when others then null;  -- internal types cannot be used
    end;
  end loop;

  for f in
    select o.oprname as name, o.oid as number, format_type(nullif(o.oprleft, 0), null) as left_type,
           format_type(o.oprright, null) as right_type, format_type(o.oprresult, null) as result
    from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace
  loop
    begin
      execute format('create function trap.operator_%s(%s) returns %s language plpgsql as '
                     '''begin perform trap.spring(); end''', f.number,
                     concat_ws(', ', f.left_type, f.right_type), f.result);
      execute format('create operator trap.%s (%s rightarg = %s, function = trap.operator_%s)',
                     f.name, 'leftarg = ' || f.left_type || ',', f.right_type, f.number);
    exception when others then null;
    end;
  end loop;

  for f in
    select t.typname as name from pg_type t
    where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typname !~ '^_'
  loop
    execute format('create domain trap.%I as pg_catalog.%I check (trap.spring())', f.name, f.name);
  end loop;
end $$;

-- What takes arguments of any type cannot be written in PL/pgSQL; these are as close as it gets.
create function trap.pg_column_size(record) returns int language plpgsql as
  'begin perform trap.spring(); end';
create function trap.pg_column_size(anyarray) returns int language plpgsql as
  'begin perform trap.spring(); end';
create function trap.concat(text, text, int) returns text language plpgsql as
  'begin perform trap.spring(); end';
create function trap.concat(text, int, text) returns text language plpgsql as
  'begin perform trap.spring(); end';
create aggregate trap.count(*) (sfunc = pg_catalog.int8inc, stype = bigint, initcond = '1000');
create table trap.new_rows (id int);
create table trap.old_rows (id int);
grant usage on schema trap to public;
set check_function_bodies = on;
"""
PATH = "set search_path = trap, pg_catalog, pg_temp"

# Statements for a table (id int, n int, note text) that do not fall into the trap themselves.
WHERE_ID = "where id operator(pg_catalog.=)"
STATEMENTS = [
    "insert into {t} values (1, 1, 'one')",
    "insert into {t} select k, 0, null from pg_catalog.generate_series(2, 9) k",
    "insert into {t} select k, 0, null from pg_catalog.generate_series(10, 99) k",
    "insert into {t} select k, 0, null from pg_catalog.generate_series(100, 999) k",
    f"update {{t}} set n = 7 {WHERE_ID} 1",
    f"update {{t}} set n = 8 {WHERE_ID} 1000",
    "update {t} set n = 8 where id operator(pg_catalog.<) 9",
    f"update {{t}} set note = pg_catalog.repeat('x', 3000000) {WHERE_ID} 2",
    f"delete from {{t}} {WHERE_ID} 2",
    f"delete from {{t}} {WHERE_ID} 3",
    "delete from {t} where id operator(pg_catalog.<) 200",
    "delete from {t}",
]


@pytest.fixture
def trapped(db):
    db.execute(TRAP)
    return db


def write(connection, table):
    for statement in STATEMENTS:
        connection.execute(statement.format(t=table))


def test_the_trap_springs(trapped):
    with trapped.connect() as connection:
        connection.execute(PATH)
        for expression in ("1 = 1", "1 + 1", "1 between 1 and 2", "1 in (1, 2)",
                           "'{}'::pg_catalog.jsonb -> 'a'", "''::text", "'{}'::jsonb",
                           "current_setting('search_path')", "set_config('a.b', '', true)",
                           "pg_trigger_depth()", "cardinality(array[1])", "pg_notify('a', 'b')",
                           "to_jsonb(row(1))", "pg_column_size(row(1))"):
            with pytest.raises(psycopg.errors.RaiseException, match="the trap has sprung"):
                connection.execute(f"select {expression}")


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("partitioned", [False, True])
def test_capture_looks_nothing_up_by_the_path_of_the_writer(trapped, capture, partitioned):
    db = trapped
    db.execute("create table busy (id int primary key, n int, note text)"
               + (" partition by range (id)" if partitioned else ""))
    if partitioned:
        db.execute("create table busy_1 partition of busy for values from (0) to (50); "
                   "create table busy_2 partition of busy for values from (50) to (10000)")
    db.execute("select pgtrickle.enable_outbox('busy', inline_threshold_rows => 200, "
               "notify => true, capture => %s)", (capture,))
    dsn = db.login("writer")
    db.execute("grant select, insert, update, delete on busy to writer")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(PATH)
        write(connection, "public.busy")
        connection.execute("create temp table new_rows (id int)")
        connection.execute("create temp table old_rows (id int)")
        connection.execute("set search_path = pg_temp, trap, pg_catalog")
        write(connection, "public.busy")
    replay = Replay(db, "busy")
    entries = replay.entries()
    assert any(row[4] for row in entries) and not all(row[4] for row in entries)
    replay.check()


def test_nor_does_it_under_the_replication_role_or_where_statements_are_nested(trapped):
    db = trapped
    db.execute("create table busy (id int primary key, n int, note text, "
               "parent int references busy on delete cascade)")
    db.execute("select pgtrickle.enable_outbox('busy')")
    db.execute("""
        create function follow() returns trigger language plpgsql as $$
        begin
          if new.n operator(pg_catalog.=) 1 then
            update public.busy set n = 2 where id operator(pg_catalog.=) new.id;
            delete from public.busy where id operator(pg_catalog.=) new.id;
          end if;
          return null;
        end $$;
        create trigger follow after insert on busy for each row execute function follow()""")
    with db.connect() as connection:
        connection.execute(PATH)
        with connection.transaction():
            write(connection, "public.busy")
            connection.execute("insert into public.busy values (1, 1), (2, 2), (3, 3)")
            connection.execute("insert into public.busy values (4, 4, null, 3), (5, 5, null, 4)")
            connection.execute("delete from public.busy where id operator(pg_catalog.=) 3")
            connection.execute("delete from public.busy")
        connection.execute("set session_replication_role = replica")
        write(connection, "public.busy")
    Replay(db, "busy").check()


def test_names_of_objects_are_written_the_same_under_each_path(db):
    db.execute("create table things (id int primary key, thing regclass)")
    db.execute("create table late (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('things'), pgtrickle.enable_outbox('late')")
    db.execute("alter table late add thing regclass[]")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0
    for path in ("public", "pg_catalog"):
        db.execute(f"set search_path = {path}")
        db.execute("insert into public.things values (%s, 'public.things')", (len(path),))
        db.execute("insert into public.late values (%s, '{public.things}')", (len(path),))
    said = db.execute("select payload #>> '{inserted,0,thing}' from pgtrickle.outbox_things "
                      "union all "
                      "select payload #>> '{inserted,0,thing,0}' from pgtrickle.outbox_late "
                      "where not payload ? 'full_refresh'")
    assert said == [("public.things",)] * 4
