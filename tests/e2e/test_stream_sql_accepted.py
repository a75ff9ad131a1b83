"""Names, types and expressions that subscriptions take."""

import pytest
from support.stream_database import (events, failed, stream_db, stream_server,  # noqa: F401
                                     subscribe, triggers)

LONG = "a" * 63
LONG_TOO = "a" * 62 + "b"


@pytest.mark.parametrize("table", ["order", "Users", 'two"quotes', "it's", "with space", "new",
                                   "old", "back\\slash", "größe",
                                   LONG, "%s", "$$", "--x", "events"])
def test_names_of_tables(stream_db, table):
    quoted = '"' + table.replace('"', '""') + '"'
    stream_db.execute(f"create table {quoted} (id int)")
    subscribe(stream_db, table=table, when="new.id > 0", extensions=[("x", "new.id + 1")])
    subscribe(stream_db, "u", table=table, operation="UPDATE", when="new.id / 1 > old.id")
    stream_db.execute(f"insert into {quoted} values (1)")
    stream_db.execute(f"update {quoted} set id = 2")
    assert [(e["tg_table_name"], e["new"], e["old"]) for e in events(stream_db)] == [
        (table, {"id": 1}, None), (table, {"id": 2}, {"id": 1})]
    stream_db.execute("delete from pgstream.subscriptions")
    assert triggers(stream_db, quoted) == []


@pytest.mark.parametrize("column", ["select", "Name", 'two"quotes', "it's", "a.b", "new", "payload",
                                    "event_payload", "tg_op", "back\\slash", LONG])
def test_names_of_columns(stream_db, column):
    quoted = '"' + column.replace('"', '""') + '"'
    stream_db.execute(f"create table t ({quoted} int)")
    subscribe(stream_db, columns=[column], when=f"new.{quoted} > 0",
              extensions=[("x", f"new.{quoted} + 1"),
                          ("y", f"(select max(u.{quoted}) from t u"
                                f" where u.{quoted} = new.{quoted})")])
    stream_db.execute("insert into t values (1)")
    assert failed(stream_db) == []
    assert [(e["new"], e["x"], e["y"]) for e in events(stream_db)] == [({column: 1}, 2, 1)]


@pytest.mark.parametrize("key", ["it's", 'a "quoted" key', "back\\slash", "größe", "*/ drop", "$$",
                                 "two\nlines", "x" * 300])
def test_keys(stream_db, key):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, key, when="new.id > 0")
    stream_db.execute("insert into t values (1)")
    assert [e["tg_name"] for e in events(stream_db)] == [key]
    stream_db.execute("delete from pgstream.subscriptions")
    assert triggers(stream_db) == []


def test_the_same_name_of_a_table_in_two_schemas_and_long_names_with_one_beginning(stream_db):
    tables = [("public", "users"), ("other", "users"), ("public", LONG), ("public", LONG_TOO)]
    stream_db.execute("create schema other")
    for number, (schema, table) in enumerate(tables):
        stream_db.execute(f'create table {schema}."{table}" (id int)')
        subscribe(stream_db, f"k{number}", table, schema=schema)
    for schema, table in tables:
        stream_db.execute(f'insert into {schema}."{table}" values (1)')
    made = events(stream_db)
    assert [(e["tg_name"], e["tg_table_schema"], e["tg_table_name"]) for e in made] == [
        (f"k{number}", schema, table) for number, (schema, table) in enumerate(tables)]
    assert stream_db.one("select count(distinct tgfoid) from pg_trigger"
                         " where tgname = 'pgstream_insert'") == len(tables)


def test_two_streams_and_several_subscriptions_on_one_table(stream_db):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, "a", metadata={"for": "a"})
    subscribe(stream_db, "a", stream=2, when="new.id > 1")
    subscribe(stream_db, "b", when="new.id > 1", extensions=[("n", "new.id")])
    assert len(triggers(stream_db)) == 3
    assert "pgstream_insert" in triggers(stream_db)
    stream_db.execute("insert into t values (1), (2)")
    assert sorted((e["tg_name"], e["new"]["id"]) for e in events(stream_db)) == [
        ("a", 1), ("a", 2), ("b", 2)]
    assert [(e["tg_name"], e["new"]["id"]) for e in events(stream_db, 2)] == [("a", 2)]
    assert stream_db.execute("select distinct metadata from pgstream.events_overflow"
                             " where payload ->> 'tg_name' = 'a' and stream_id = 1") == [
                                 ({"for": "a"},)]


def test_sixty_columns_and_as_many_extensions(stream_db):
    names = [f"c{n}" for n in range(60)]
    stream_db.execute(f"create table t ({', '.join(f'{name} int' for name in names)})")
    subscribe(stream_db, columns=names, extensions=[(f"x{n}", f"new.c{n} + 1") for n in range(60)]
              + [(f"deep.y{n}", str(n)) for n in range(120)])
    stream_db.execute(f"insert into t values ({', '.join(map(str, range(60)))})")
    [event] = events(stream_db)
    assert event["new"] == {f"c{n}": n for n in range(60)}
    assert [event[f"x{n}"] for n in range(60)] == list(range(1, 61))
    assert event["deep"] == {f"y{n}": n for n in range(120)}


def test_no_columns_and_no_extensions(stream_db):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, columns=[])
    stream_db.execute("insert into t values (1)")
    assert [e["new"] for e in events(stream_db)] == [{}]


def test_old_and_new_rows_of_each_operation(stream_db):
    stream_db.execute("create table t (id int, name text)")
    for operation in ("INSERT", "UPDATE", "DELETE"):
        subscribe(stream_db, operation.lower(), operation=operation, columns=["id", "name"])
    stream_db.execute("insert into t values (1, 'a'); update t set name = 'b'; delete from t")
    one, two = {"id": 1, "name": "a"}, {"id": 1, "name": "b"}
    assert [(e["tg_op"], e["new"], e["old"]) for e in events(stream_db)] == [
        ("INSERT", one, None), ("UPDATE", two, one), ("DELETE", None, two)]


def test_citext_in_a_condition_and_in_the_payload(stream_db):
    stream_db.execute("create extension citext; create table t (id int, mail citext)")
    subscribe(stream_db, columns=["mail"], when="new.mail = 'Anna@x'",
              extensions=[("is", "new.mail = 'ANNA@X'")])
    stream_db.execute("insert into t values (1, 'ANNA@x'), (2, 'bob@x')")
    assert [(e["new"], e["is"]) for e in events(stream_db)] == [({"mail": "ANNA@x"}, True)]
    assert failed(stream_db) == []


@pytest.mark.parametrize("expression, value", [
    ("new.name is distinct from old.name", True), ("nullif(new.name, 'b')", None),
    ("case new.id when 1 then 'one' else 'more' end", "one"), ("new.id in (1, 2)", True),
    ("new.id between 0 and 9 and new.name like 'b%'", True), ("new.day > date '2026-01-01'", True),
    ("new.total * 2 + new.id", 5.5), ("new.name || new.id", "b1"), ("upper(new.name)", "B"),
    ("coalesce(old.total, 0)::int", 2), ("new.tags[1]", "t"), ("new.doc ->> 'a'", "1"),
    ("new.doc -> 'a'", 1), ("extract(year from new.day)", 2026), ("now() > new.day", True),
    ("array_length(new.tags, 1)", 1), ("row_to_json(new) ->> 'name'", "b"), ("null", None),
    ("'new.id (new).id'", "new.id (new).id"), ("E'it''s \\\\ x'", "it's \\ x"),
    ("(select count(*) from t where t.id = new.id and t.name = new.name)", 1),
    ("exists (select from t n where n.id = new.id)", True), ("new.id -- a comment", 1),
    ("interval '1 day' + new.day", "2026-02-02T00:00:00"), ("$x$a$x$", "a"),
    ("position('b' in new.name)", 1), ("new.at at time zone 'UTC'", "2026-02-01T00:00:00"),
])
def test_expressions(stream_db, expression, value):
    stream_db.execute("create table t (id int, name text, total numeric, day date, tags text[],"
                      " doc jsonb, at timestamptz)")
    subscribe(stream_db, operation="UPDATE", extensions=[("x", expression)])
    stream_db.execute("insert into t values (1, 'a', 2.25, '2026-02-01', '{t}', '{\"a\": 1}',"
                      " '2026-02-01 00:00+00'); update t set name = 'b'")
    assert failed(stream_db) == []
    assert [e["x"] for e in events(stream_db)] == [value]


def test_functions_and_types_found_by_the_search_path_of_the_subscriber(stream_db):
    stream_db.execute("""
        create schema app;
        create function app.tenant(int) returns text language sql as $$ select 't' || $1 $$;
        create type app.mood as enum ('sad', 'glad');
        create table public.t (id int, mood app.mood)""")
    with stream_db.connect() as connection:
        connection.execute("set search_path = app")
        subscribe(connection, columns=["id", "mood"], when="new.mood = 'glad'::mood",
                  extensions=[("tenant", "tenant(new.id)"), ("mood", "new.mood"),
                              ("moods", "array[new.mood]")])
    with stream_db.connect() as connection:
        connection.execute("set search_path = public")
        connection.execute("insert into t values (1, 'glad'), (2, 'sad')")
    assert failed(stream_db) == []
    assert [(e["new"], e["tenant"], e["mood"], e["moods"]) for e in events(stream_db)] == [
        ({"id": 1, "mood": "glad"}, "t1", "glad", ["glad"])]
    # Another subscription changes, under another path: the compiled expressions stay.
    with stream_db.connect() as connection:
        connection.execute("set search_path = public")
        subscribe(connection, "other")
        connection.execute("insert into t values (3, 'glad')")
    assert [e["tenant"] for e in events(stream_db) if e["tg_name"] == "k"] == ["t1", "t3"]


def test_conditions_are_evaluated_in_the_session_that_writes(stream_db):
    stream_db.execute("create table t (id int, at timestamptz); grant insert on t to public")
    stream_db.login("writer")
    subscribe(stream_db, "user", when="current_user = 'writer'")
    subscribe(stream_db, "day", when="new.at::date = '2026-01-02'")
    subscribe(stream_db, "tenant", when="current_setting('app.tenant', true) = '7'")
    with stream_db.connect(user="writer") as connection:
        connection.execute("set timezone = 'Pacific/Auckland'; set app.tenant = '7'")
        connection.execute("insert into t values (1, '2026-01-01 20:00+00')")
    stream_db.execute("insert into t values (2, '2026-01-01 20:00+00')")
    assert failed(stream_db) == []
    assert sorted((e["tg_name"], e["new"]["id"]) for e in events(stream_db)) == [
        ("day", 1), ("tenant", 1), ("user", 1)]


def test_partitioned_tables(stream_db):
    stream_db.execute("""
        create table t (id int, part int) partition by list (part);
        create table t1 partition of t for values in (1);
        create table t2 (part int, more text, id int);
        alter table t2 drop more;
        alter table t attach partition t2 for values in (2)""")
    subscribe(stream_db, "one", when="new.id > 0", extensions=[("whole", "to_jsonb(new)")])
    subscribe(stream_db, "leaf", "t1")
    stream_db.execute("create table t3 partition of t for values in (3)")
    stream_db.execute("insert into t values (1, 1), (2, 2), (3, 3)")
    assert failed(stream_db) == []
    made = events(stream_db)
    assert sorted((e["tg_name"], e["tg_table_name"], e["new"]["id"]) for e in made) == [
        ("leaf", "t1", 1), ("one", "t", 1), ("one", "t", 2), ("one", "t", 3)]
    stream_db.execute("delete from pgstream.subscriptions where key = 'one'")
    assert triggers(stream_db, "t2") == [] and len(triggers(stream_db, "t1")) == 1


def test_a_subscribed_table_becomes_a_partition_of_another_one(stream_db):
    """ATTACH gives the partition the triggers of its table, under their names."""
    stream_db.execute("create table t (id int, part int) partition by list (part);"
                      "create table leaf (id int, part int)")
    for operation in ("INSERT", "UPDATE", "DELETE"):
        subscribe(stream_db, "leaf", "leaf", operation=operation)
        subscribe(stream_db, "whole", "t", operation=operation)
    stream_db.execute("alter table t attach partition leaf for values in (1)")
    stream_db.execute("insert into t values (1, 1); update t set id = 2; delete from t")
    assert sorted((e["tg_name"], e["tg_op"]) for e in events(stream_db)) == sorted(
        (key, operation) for key in ("leaf", "whole") for operation in ("INSERT", "UPDATE", "DELETE"))
    assert triggers(stream_db, "leaf")[0] == "pgstream_delete"


def test_values_are_written_the_same_whatever_the_session_has_set(stream_db):
    stream_db.execute("create table t (at timestamptz, spent interval, data bytea, x float8,"
                      " day date, period tstzrange)")
    columns = ["at", "spent", "data", "x", "day", "period"]
    subscribe(stream_db, columns=columns)
    row = ("'2026-01-02 03:04:05+00'", "'1 day 2 hours'", r"'\x00ff'", "0.1::float8 + 0.2",
           "'2026-01-02'", "'[2026-01-02 03:04:05+00,)'")
    with stream_db.connect() as connection:
        for settings in ("", "set timezone = 'Asia/Tokyo'; set intervalstyle = 'iso_8601';"
                             "set bytea_output = 'escape'; set extra_float_digits = 0;"
                             "set datestyle = 'SQL, DMY'; set standard_conforming_strings = off"):
            if settings:
                connection.execute(settings)
            connection.execute(f"insert into t values ({', '.join(row)})".replace(
                r"'\x", r"E'\\x"))
    first, second = events(stream_db)
    assert first["new"] == second["new"]
    assert first["new"]["at"] == "2026-01-02T03:04:05+00:00"
    assert first["new"]["x"] == 0.30000000000000004
