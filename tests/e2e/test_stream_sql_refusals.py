"""A subscription that cannot work is refused when it is written, and the table stays as it is."""

import psycopg
import pytest
from support.postgres import refusal
from support.stream_database import (events, stream_db, stream_server, subscribe,  # noqa: F401
                                     triggers)

TABLE = """
create table t (id int primary key, name text, total numeric);
create view seen as select * from t;
create materialized view stored as select * from t;
create foreign data wrapper w;
create server s foreign data wrapper w;
create foreign table far (id int) server s;
"""


def refused(db, **fields):
    """The error of a subscription; asserts that nothing of it is left, and that the table works."""
    with pytest.raises(psycopg.Error) as error:
        subscribe(db, **fields)
    assert db.execute("select 1 from pgstream.subscriptions") == []
    assert db.execute("select 1 from pgstream._subscriptions") == []
    assert db.execute("select 1 from pg_proc where proname ~ '^(pgstream|_publish)'") == []
    assert triggers(db) == []
    db.execute("insert into t values (1); delete from t")
    assert events(db) == []
    return error.value


@pytest.mark.parametrize("fields, said", [
    ({"table": "nowhere"}, 'table "public.nowhere" does not exist'),
    ({"schema": "nowhere"}, 'table "nowhere.t" does not exist'),
    ({"columns": ["id", "nme"]}, 'column "nme" of table "public.t" does not exist'),
    ({"columns": ["ctid"]}, 'column "ctid" of table "public.t" does not exist'),
    ({"columns": ["id", None]}, "column_names of subscription \"k\" must be an array"),
    ({"stream": 77}, "stream 77 does not exist"),
    ({"operation": "TRUNCATE"}, 'operation "TRUNCATE" is not one of INSERT, UPDATE, DELETE'),
    ({"operation": "insert"}, 'operation "insert" is not one of INSERT, UPDATE, DELETE'),
    ({"key": ""}, "a subscription must have a key"),
    ({"table": "seen"}, '"public.seen" is not a table that can be subscribed to'),
    ({"table": "stored"}, '"public.stored" is not a table that can be subscribed to'),
    ({"table": "far"}, '"public.far" is not a table that can be subscribed to'),
    ({"table": "events", "schema": "pgstream"}, "is not a table that can be subscribed to"),
    ({"table": "pg_class", "schema": "pg_catalog", "columns": ["relname"]},
     "is not a table that can be subscribed to"),
])
def test_what_is_unknown_or_no_table(stream_db, fields, said):
    stream_db.execute(TABLE)
    assert said in str(refused(stream_db, **fields))


@pytest.mark.parametrize("expression, code, said", [
    ("new.nme", "42703", "column new.nme does not exist"),
    ("old.id", "42P01", 'missing FROM-clause entry for table "old"'),
    ("new.id +", "42601", 'syntax error at or near ")"'),
    ("", "42601", "syntax error"),
    ("new.id)::text; select (2", "42601", 'syntax error at or near ";"'),
    ("1; end; drop table t; select 1", "42601", 'syntax error at or near ";"'),
    ("1); drop table t; select (1", "42601", 'syntax error at or near ";"'),
    ("1)) x; drop table t; select from t, lateral (select (1", "42601", "is not one expression"),
    ("1), (2", "42601", "syntax error"),
    ("1) from t where (true", "42601", "syntax error"),
    ("1) union select (2", "42601", "syntax error"),
    ("1) language plpgsql as ('x'", "42601", "syntax error"),
    ("new.id /* unclosed", "42601", "unterminated /* comment"),
    ("'unclosed", "42601", "unterminated quoted string"),
    ("$a$ unclosed", "42601", "unterminated dollar-quoted string"),
    ("new.name + 1", "42883", "operator does not exist: text + integer"),
    ("nowhere.f(new.id)", "3F000", 'schema "nowhere" does not exist'),
    ("no_such_function(new.id)", "42883", "function no_such_function(integer) does not exist"),
    ("'x'::no_such_type", "42704", 'type "no_such_type" does not exist'),
    ("count(*)", "42803", "aggregates, window functions and functions that return sets"),
    ("row_number() over ()", "42803",
     "aggregates, window functions and functions that return sets"),
    ("generate_series(1, new.id)", "42803", "functions that return sets are not allowed"),
])
def test_expressions(stream_db, expression, code, said):
    stream_db.execute(TABLE)
    error = refused(stream_db, extensions=[("x", expression)])
    assert error.sqlstate == code, error
    assert said in str(error)


def test_the_position_of_an_error_points_into_the_expression(stream_db):
    stream_db.execute(TABLE)
    for fields, label in (({"when": "new.id > 0 and new.nme = 1"},
                           'when_clause of subscription "sign*/up"'),
                          ({"extensions": [("a.b", "new.id > 0 and new.nme = 1")]},
                           'json_path "a.b"')):
        diagnostics = refused(stream_db, key="sign*/up", **fields).diag
        at = int(diagnostics.internal_position) - 1
        assert diagnostics.internal_query[at:].startswith("new.nme = 1")
        assert label.replace("*/", "* /") in diagnostics.internal_query


@pytest.mark.parametrize("condition, code, said", [
    ("new.id", "42804", "must be of type boolean, not type integer"),
    ("old.id = 1", "42P01", 'missing FROM-clause entry for table "old"'),
    ("new.id = 1; select true", "42601", 'syntax error at or near ";"'),
    ("true) execute function f(); drop table t; select (true", "42601", "syntax error"),
    ("true)) x; drop table t; select from t, lateral (select (true", "42601",
     "is not one expression"),
    ("exists (select from t)", "0A000", "must not contain a subquery"),
    ("bool_or(new.id = 1)", "42803", "aggregate functions are not allowed"),
])
def test_conditions(stream_db, condition, code, said):
    stream_db.execute(TABLE)
    error = refused(stream_db, when=condition)
    assert error.sqlstate == code, error
    assert said in str(error)


@pytest.mark.parametrize("extensions, said", [
    ('[{"json_path": "%s", "expression": "1"}]' % reserved, f'json_path "{reserved}" is reserved')
    for reserved in ("tg_name", "tg_op", "tg_table_name", "tg_table_schema", "timestamp", "new",
                     "old", "new.id")] + [
    ('[{"json_path": "a", "expression": "1"}, {"json_path": "a", "expression": "2"}]', "collides"),
    ('[{"json_path": "a", "expression": "1"}, {"json_path": "a.b", "expression": "2"}]',
     "collides"),
    ('[{"json_path": "a.b.c", "expression": "1"}, {"json_path": "a.b", "expression": "2"}]',
     "collides"),
    ('[{"json_path": "", "expression": "1"}]', "must be names separated by dots"),
    ('[{"json_path": "a..b", "expression": "1"}]', "must be names separated by dots"),
    ('[{"json_path": "a"}]', 'must have the texts "json_path" and "expression"'),
    ('[{"json_path": "a", "expression": 1}]', 'must have the texts "json_path" and "expression"'),
    ('[{"json_path": "a", "expression": "1", "type": "x"}]', "and no other key"),
    ('["a"]', 'must have the texts "json_path" and "expression"'),
    ('{"json_path": "a", "expression": "1"}', "must be an array"),
])
def test_payload_extensions(stream_db, extensions, said):
    stream_db.execute(TABLE)
    with pytest.raises(psycopg.Error, match=said.replace("(", r"\(")):
        stream_db.execute("insert into pgstream.subscriptions (key, stream_id, operation,"
                          " schema_name, table_name, column_names, payload_extensions)"
                          " values ('k', 1, 'INSERT', 'public', 't', '{id}', %s)", (extensions,))
    assert triggers(stream_db) == []


def test_generated_columns(stream_db):
    """Those that are stored are taken; a trigger does not see the virtual ones of PostgreSQL 18."""
    stream_db.execute(TABLE + "alter table t add twice int generated always as (id * 2) stored")
    if stream_db.server.version >= 18:
        stream_db.execute("alter table t add thrice int generated always as (id * 3) virtual")
        for fields in ({"columns": ["thrice"]}, {"extensions": [("x", "new.thrice")]},
                       {"when": "new.thrice = 3"}):
            assert 'column "thrice" of table "public.t" is a virtual generated column' in str(
                refused(stream_db, **fields))
    subscribe(stream_db, columns=["twice"], extensions=[("x", "new.twice")], when="new.twice = 2")
    stream_db.execute("insert into t values (1)")
    assert [(e["new"], e["x"]) for e in events(stream_db)] == [({"twice": 2}, 2)]


def test_functions_that_the_owner_of_the_table_may_not_call(stream_db):
    stream_db.execute(TABLE)
    stream_db.login("shopkeeper")
    stream_db.execute("""
        alter table t owner to shopkeeper;
        create schema auth;
        create function auth.user_id() returns int language sql as 'select 7';
        revoke all on function auth.user_id() from public;
        create table public.secret (n int)""")
    for fields in ({"extensions": [("user", "auth.user_id()")]}, {"when": "auth.user_id() = 7"}):
        error = refused(stream_db, **fields)
        assert error.diag.message_primary == "permission denied for schema auth for role shopkeeper"
        assert error.diag.message_hint == "GRANT USAGE ON SCHEMA auth TO shopkeeper;"
    stream_db.execute("grant usage on schema auth to shopkeeper")
    for fields in ({"extensions": [("user", "auth.user_id()")]}, {"when": "auth.user_id() = 7"}):
        error = refused(stream_db, **fields)
        assert error.diag.message_hint == "GRANT EXECUTE ON FUNCTION auth.user_id() TO shopkeeper;"
    error = refused(stream_db, extensions=[("n", "(select max(n) from secret)")])
    assert error.diag.message_hint == "GRANT SELECT ON public.secret TO shopkeeper;"
    stream_db.execute("grant execute on function auth.user_id() to shopkeeper;"
                      "grant select on secret to shopkeeper")
    subscribe(stream_db, when="auth.user_id() = 7",
              extensions=[("user", "auth.user_id()"), ("n", "(select max(n) from secret)")])
    stream_db.execute("insert into t values (1)")
    assert [(e["user"], e["n"]) for e in events(stream_db)] == [(7, None)]


@pytest.mark.parametrize("expression", ["new.mail is distinct from 'A'::citext",
                                        "nullif(new.mail, 'A'::citext) is null",
                                        "case new.mail when 'A' then true else false end"])
def test_comparisons_that_would_find_another_operator(stream_db, expression):
    """They name no operator, and that of citext is in public: they would compare as texts."""
    stream_db.execute("create extension citext; create table t (id int, mail citext)")
    for fields in ({"when": expression}, {"extensions": [("x", expression)]}):
        with pytest.raises(psycopg.Error, match="cannot compare by operators outside of"):
            subscribe(stream_db, **fields)
    assert triggers(stream_db) == []


def test_one_bad_subscription_of_many_leaves_all_as_they_are(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, "a")
    before = stream_db.execute("select * from pgstream.subscriptions")
    created = stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'")
    rows = ", ".join(f"row(null, '{key}', 1, 'INSERT', 'public', 't', '{when}', '{{id}}', null,"
                     " null)::pgstream.subscriptions"
                     for key, when in (("b", "new.id = 1"), ("c", "new.nme = 1")))
    assert "new.nme" in refusal(stream_db, f"select pgstream.set_subscriptions(1, array[{rows}])")
    assert stream_db.execute("select * from pgstream.subscriptions") == before
    assert stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'") == created


def test_null_instead_of_subscriptions(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    for bad in ("null", "array[null]::pgstream.subscriptions[]"):
        assert "must not be null" in refusal(stream_db,
                                             f"select pgstream.set_subscriptions(1, {bad})")
    assert "must not be null" in refusal(
        stream_db, "select pgstream.set_subscriptions(null, '{}')")
    assert triggers(stream_db) == ["pgstream_insert"]


def test_truncating_the_subscriptions(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    said = refusal(stream_db, "truncate pgstream.subscriptions")
    assert "cannot be truncated" in said and "DELETE FROM pgstream.subscriptions" in said
    stream_db.execute("delete from pgstream.subscriptions")
    assert triggers(stream_db) == []
