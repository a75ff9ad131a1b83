"""A table changes after it was subscribed to: its writers go on, and no change of it is lost."""

import subprocess

import psycopg
import pytest
from support.fixtures import need
from support.stream_database import (events, failed, stream_db, stream_server,  # noqa: F401
                                     subscribe, triggers)

TABLE = "create table t (id int primary key, name text, total int)"
FAILING = """;
create function asserting() returns int language plpgsql as 'begin assert false; return 1; end';
create function raising() returns int language plpgsql as
  'begin raise exception using errcode = ''01000'', message = E''two\nlines''; end';
"""


def names(db):
    return [(e["tg_name"], e["new"]) for e in events(db)]


def test_a_renamed_column(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, columns=["id", "name"], when="new.name = 'x'")
    stream_db.execute("alter table t rename name to title")
    stream_db.execute("insert into t values (1, 'x'), (2, 'y')")
    assert events(stream_db) == []
    assert failed(stream_db) == [("k", 'record "new" has no field "name"')]
    assert stream_db.one("select pgstream.retry_failed()") == 0
    assert len(failed(stream_db)) == 1
    stream_db.execute("update pgstream.subscriptions set column_names = '{id,title}',"
                      " when_clause = 'new.title = ''x'''")
    assert stream_db.one("select pgstream.retry_failed()") == 1
    assert names(stream_db) == [("k", {"id": 1, "title": "x"})]
    assert failed(stream_db) == []


def test_a_dropped_column(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, columns=["id", "name"], extensions=[("t", "new.total")])
    stream_db.execute("alter table t drop name, drop total")
    stream_db.execute("insert into t values (1)")
    assert len(failed(stream_db)) == 1
    stream_db.execute("update pgstream.subscriptions set column_names = '{id}',"
                      " payload_extensions = null")
    assert stream_db.one("select pgstream.retry_failed()") == 1
    assert names(stream_db) == [("k", {"id": 1})]


def test_a_column_of_a_condition_dropped_with_cascade_is_told(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, when="new.total > 1")
    stream_db.execute("alter table t drop total cascade")
    stream_db.execute("insert into t values (1)")
    assert stream_db.execute("select key, problem from pgstream.subscription_problems(1)") == [
        ("k", "the table has no trigger for it: UPDATE the subscription")]
    stream_db.execute("update pgstream.subscriptions set when_clause = null")
    assert stream_db.execute("select key, problem from pgstream.subscription_problems(1)") == []
    stream_db.execute("insert into t values (2)")
    assert names(stream_db) == [("k", {"id": 2})]


@pytest.mark.parametrize("new_type", ["bigint", "text", "numeric", "mood"])
def test_a_column_with_another_type(stream_db, new_type):
    stream_db.execute(TABLE + "; create type mood as enum ('1', '2')")
    subscribe(stream_db, columns=["id", "total"], extensions=[("t", "new.total::text")])
    stream_db.execute("insert into t values (0, 'x', 1)")
    stream_db.execute(f"alter table t alter total type {new_type} using total::text::{new_type}")
    for number in (1, 2):  # In the session that had planned for the old type, and in a new one.
        stream_db.execute(f"insert into t values ({number}, 'x', '2')")
        stream_db.close()
    assert len(events(stream_db)) + len(failed(stream_db)) == 3
    assert len(failed(stream_db)) == 2
    assert stream_db.one("select pgstream.retry_failed()") == 2
    value = 2 if new_type in ("bigint", "numeric") else "2"
    assert [(e["new"]["total"], e["t"]) for e in events(stream_db)] == [
        (1, "1"), (value, "2"), (value, "2")]
    stream_db.execute("insert into t values (3, 'x', '1')")  # It was compiled again.
    assert failed(stream_db) == []


def test_added_columns_change_nothing(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    stream_db.execute("alter table t add more text default 'm'")
    stream_db.execute("insert into t values (1)")
    assert names(stream_db) == [("k", {"id": 1})]


def test_a_renamed_table(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, when="new.total > 1", operation="UPDATE")
    stream_db.execute("alter table t rename to u; create schema s; alter table u set schema s")
    stream_db.execute("insert into s.u values (1, 'x', 1); update s.u set total = 2")
    assert [(e["tg_table_name"], e["new"]) for e in events(stream_db)] == [("t", {"id": 1})]
    assert stream_db.execute("select problem from pgstream.subscription_problems(1)") == [
        ("the table is called s.u now",)]
    stream_db.execute("update pgstream.subscriptions set table_name = 'u', schema_name = 's'")
    stream_db.execute("update s.u set total = 3")
    assert [e["tg_table_name"] for e in events(stream_db)] == ["t", "u"]
    assert len(triggers(stream_db, "s.u")) == 1


def test_a_table_that_another_one_has_replaced(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    stream_db.execute("create table next (id int, more text); begin; alter table t rename to past;"
                      "alter table next rename to t; commit")
    stream_db.execute("insert into t values (1); insert into past values (2)")
    assert [e["new"]["id"] for e in events(stream_db)] == [2]
    assert stream_db.execute("select problem from pgstream.subscription_problems(1)") == [
        ("the table is called public.past now",)]
    stream_db.execute("update pgstream.subscriptions set key = key")
    stream_db.execute("insert into t values (3); insert into past values (4)")
    assert [e["new"]["id"] for e in events(stream_db)] == [2, 3]
    assert stream_db.execute("select problem from pgstream.subscription_problems(1)") == []
    assert triggers(stream_db, "past") == []


def test_a_dropped_table(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    stream_db.execute("drop table t")
    assert stream_db.execute("select problem from pgstream.subscription_problems(1)") == [
        ("the table does not exist",)]
    stream_db.execute(TABLE)
    stream_db.execute("insert into t values (1)")
    stream_db.execute("update pgstream.subscriptions set key = key")
    stream_db.execute("insert into t values (2)")
    assert names(stream_db) == [("k", {"id": 2})]
    stream_db.execute("drop table t; delete from pgstream.subscriptions")
    assert stream_db.execute("select 1 from pgstream._subscriptions") == []


def test_restored_from_a_dump(stream_server, stream_db):
    shown = subprocess.run([f"{stream_server.bin}/pg_dump", "--version"], check=True,
                           capture_output=True, text=True).stdout
    need(f" {stream_server.version}." in shown, "a pg_dump of this server's version")
    stream_db.execute("create type mood as enum ('sad', 'glad');"
                      "create table t (id int primary key, mood mood, at timestamptz)")
    subscribe(stream_db, columns=["id", "mood", "at"], when="new.id / 1 > 0",
              extensions=[("m", "new.mood::text")])
    subscribe(stream_db, "two", stream=2)
    stream_db.execute("select pgstream.make_partitions()")
    stream_db.execute("insert into t values (1, 'glad', now())")
    copy = stream_server.create_database("template0")
    try:
        # Other oids than in the original.
        copy.execute("create table other (id int); create type another as enum ('a')")
        dumped = subprocess.run([f"{stream_server.bin}/pg_dump", stream_db.dsn], check=True,
                                capture_output=True, text=True).stdout
        subprocess.run([f"{stream_server.bin}/psql", "-qX", "-v", "ON_ERROR_STOP=1", copy.dsn],
                       input=dumped, check=True, capture_output=True, text=True)
        copy.execute("insert into t values (2, 'sad', now())")
        assert failed(copy) == []
        assert [(e["new"]["id"], e["m"]) for e in events(copy)] == [(1, "glad"), (2, "sad")]
        assert [e["new"] for e in events(copy, 2)] == [{"id": 1}, {"id": 2}]
        assert copy.execute("select * from pgstream.subscription_problems(1)") == []
        copy.execute("delete from pgstream.subscriptions where key = 'two'")
        subscribe(copy, "three", columns=["mood"])
        copy.execute("insert into t values (3, 'sad', now())")
        assert [e["tg_name"] for e in events(copy)][-2:] == ["k", "three"]
    finally:
        copy.drop()


@pytest.mark.parametrize("expression", ["10 / new.total", "current_setting('app.not_set')",
                                        "(select id from t)", "new.name::int", "asserting()",
                                        "raising()"])
def test_an_expression_that_fails(stream_db, expression):
    stream_db.execute(TABLE + FAILING)
    subscribe(stream_db, "good")
    subscribe(stream_db, extensions=[("x", expression)])
    stream_db.execute("insert into t values (1, 'x', 0), (2, 'y', 0)")
    assert [name for name, _ in names(stream_db)] == ["good", "good"]
    assert [key for key, _ in failed(stream_db)] == ["k", "k"]
    stream_db.execute("update pgstream.subscriptions set payload_extensions ="
                      " '[{\"json_path\": \"x\", \"expression\": \"7\"}]' where key = 'k'")
    happened = stream_db.one("select (extract(epoch from happened_at) * 1000)::bigint"
                             " from pgstream.failed_events limit 1")
    assert stream_db.one("select pgstream.retry_failed()") == 2
    assert names(stream_db)[2:] == [("k", {"id": 1}), ("k", {"id": 2})]
    assert abs(events(stream_db)[2]["timestamp"] - happened) <= 1
    assert failed(stream_db) == []


@pytest.mark.parametrize("condition", ["10 / new.total > 1", "new.name::int = 1",
                                       "current_setting('app.not_set') = 'x'",
                                       "new.name like concat('x', chr(92))", "asserting() = 1",
                                       "raising() = 1"])
def test_a_condition_that_fails(stream_db, condition):
    stream_db.execute(TABLE + FAILING)
    subscribe(stream_db, "good")
    subscribe(stream_db, when=condition)
    stream_db.execute("insert into t values (1, 'xx', 0)")
    stream_db.execute("update t set total = 1")
    assert names(stream_db) == [("good", {"id": 1})]
    assert [key for key, _ in failed(stream_db)] == ["k"]
    assert stream_db.one("select pgstream.retry_failed()") == 0
    stream_db.execute("update pgstream.subscriptions set when_clause = 'new.id > 0'"
                      " where key = 'k'")
    assert stream_db.one("select pgstream.retry_failed()") == 1
    assert names(stream_db)[1:] == [("k", {"id": 1})]


def test_a_change_whose_mended_condition_is_not_met_makes_no_event(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, when="10 / new.total > 1")
    stream_db.execute("insert into t values (1, 'x', 0)")
    stream_db.execute("insert into t values (2, 'x', 2)")
    assert names(stream_db) == [("k", {"id": 2})]
    stream_db.execute("update pgstream.subscriptions set when_clause ="
                      " 'new.total <> 0 and 10 / new.total > 1'")
    assert stream_db.one("select pgstream.retry_failed()") == 0
    assert failed(stream_db) == [] and len(events(stream_db)) == 1


def test_other_changes_of_a_transaction_whose_condition_failed_are_kept_beside_it(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, when="10 / new.total > 1")
    stream_db.execute("insert into t values (1, 'x', 0), (2, 'x', 2), (3, 'x', 100)")
    assert events(stream_db) == [] and len(failed(stream_db)) == 2
    stream_db.execute("update pgstream.subscriptions set when_clause ="
                      " 'new.total <> 0 and 10 / new.total > 1'")
    assert stream_db.one("select pgstream.retry_failed()") == 1
    assert names(stream_db) == [("k", {"id": 2})] and failed(stream_db) == []


def test_on_error_raise_and_log(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, extensions=[("x", "10 / new.total")])
    stream_db.execute("update pgstream.streams set on_error = 'raise' where id = 1")
    with pytest.raises(psycopg.Error) as error:
        stream_db.execute("insert into t values (1, 'x', 0)")
    assert error.value.sqlstate == "22012"
    assert error.value.diag.message_primary == 'subscription "k" of stream 1: division by zero'
    assert stream_db.execute("select 1 from t") == []
    stream_db.execute("update pgstream.streams set on_error = 'log' where id = 1")
    with stream_db.connect() as connection:
        told = []
        connection.add_notice_handler(lambda d: told.append((d.severity, d.message_primary)))
        connection.execute("insert into t values (1, 'x', 0)")
    assert told == [("WARNING", 'subscription "k" of stream 1: division by zero')]
    assert failed(stream_db) == [] and events(stream_db) == []


@pytest.mark.alone  # it takes gigabytes of memory
def test_a_row_that_fits_no_json(stream_db):
    stream_db.execute("create table t (id int primary key, name text)")
    subscribe(stream_db, columns=["id", "name"])
    stream_db.execute("insert into t values (1, repeat('x', 270000000))")
    assert stream_db.one("select id from t") == 1
    assert [key for key, _ in failed(stream_db)] == ["k"]
    assert stream_db.one("select new_row from pgstream.failed_events") == {
        "id": 1, "name": None, "__pgtrickle_omitted": ["name"]}
    assert stream_db.one("select pgstream.retry_failed()") == 0
    assert failed(stream_db) == [("k", 'column "name" is not in the row that was kept')]


def test_a_column_renamed_between_failure_and_retry_is_not_guessed(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db, columns=["name"], extensions=[("x", "10 / new.total")])
    stream_db.execute("insert into t values (1, 'x', 0)")
    stream_db.execute("alter table t rename name to title")
    stream_db.execute("update pgstream.subscriptions set column_names = '{title}',"
                      " payload_extensions = null")
    assert stream_db.one("select pgstream.retry_failed()") == 0
    assert failed(stream_db) == [("k", 'column "title" is not in the row that was kept')]


def test_a_removed_subscription_makes_no_event_of_an_open_transaction(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    with stream_db.connect(autocommit=False) as writer:
        writer.execute("insert into t values (1)")
        stream_db.execute("delete from pgstream.subscriptions")
        writer.commit()
    assert events(stream_db) == [] and failed(stream_db) == []
    assert triggers(stream_db) == ["pgstream_insert"]  # The open writer kept it.
    subscribe(stream_db, "next")
    assert len(triggers(stream_db)) == 1
    stream_db.execute("insert into t values (2)")
    assert names(stream_db) == [("next", {"id": 2})]


def test_a_function_that_is_not_the_one_of_this_version(stream_db):
    stream_db.execute(TABLE)
    subscribe(stream_db)
    stream_db.execute("create or replace function pgstream._publish_after_insert_on_t()"
                      " returns trigger language plpgsql security definer"
                      " as 'begin return null; end'")
    problems = "select problem from pgstream.subscription_problems(1)"
    assert stream_db.execute(problems) == [
        ("its function is not the one that this version makes: UPDATE the subscription",)]
    stream_db.execute("update pgstream.subscriptions set key = key")
    assert stream_db.execute(problems) == []
    stream_db.execute("insert into t values (1)")
    assert names(stream_db) == [("k", {"id": 1})]
