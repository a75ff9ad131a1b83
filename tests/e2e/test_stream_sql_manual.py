"""The statements of the manual of postgres-stream (tests/seeds/003) run as they stand."""

import datetime
import json

from support.stream_database import (events, seed, stream_db, stream_server,  # noqa: F401
                                     subscribe, triggers)

TABLES = """
create table users (id bigint generated always as identity primary key, email text,
                    email_verified boolean, created_at timestamptz default now());
create table orders (id bigint generated always as identity primary key, user_id bigint,
                     total numeric);
"""


def run(db, name):
    db.execute(seed(name))


def test_the_first_subscription_and_its_event(stream_db):
    stream_db.execute(TABLES)
    run(stream_db, "subscribe.sql")
    before = datetime.datetime.now(datetime.timezone.utc)
    run(stream_db, "insert_user.sql")
    shown = json.loads(seed("payload.json"))
    [payload] = events(stream_db)
    assert payload.keys() == shown.keys()
    assert payload["new"].keys() == shown["new"].keys()
    assert payload["new"]["email"] == shown["new"]["email"]
    assert payload["new"]["id"] == 1
    assert datetime.datetime.fromisoformat(payload["new"]["created_at"]) >= before
    assert abs(payload["timestamp"] / 1000 - before.timestamp()) < 60
    for same in ("tg_name", "tg_op", "tg_table_name", "tg_table_schema", "old"):
        assert payload[same] == shown[same]


def test_a_user_that_does_not_meet_the_condition_makes_no_event(stream_db):
    stream_db.execute(TABLES)
    run(stream_db, "subscribe.sql")
    stream_db.execute("insert into users (email, email_verified) values ('a', false), ('b', null)")
    assert events(stream_db) == []


def test_names_and_timing_of_the_trigger_and_its_function(stream_db):
    stream_db.execute(TABLES)
    run(stream_db, "subscribe.sql")
    definition = stream_db.one("select pg_get_triggerdef(oid) from pg_trigger"
                               " where tgrelid = 'users'::regclass and not tgisinternal")
    assert definition.startswith(
        "CREATE CONSTRAINT TRIGGER pgstream_insert AFTER INSERT ON public.users DEFERRABLE "
        "INITIALLY DEFERRED FOR EACH ROW WHEN ((new.email_verified = true)) EXECUTE FUNCTION "
        "pgstream._publish_after_insert_on_users('user-signup'"), definition
    assert stream_db.one("select prosecdef from pg_proc"
                         " where proname = '_publish_after_insert_on_users'")


def test_payload_extensions(stream_db):
    stream_db.execute(TABLES)
    run(stream_db, "extensions.sql")
    stream_db.execute("insert into orders (user_id, total) values (123, 99.99)")
    shown = json.loads(seed("extended_payload.json"))
    [payload] = events(stream_db)
    assert {key: payload[key] for key in shown} == {**shown, "new": {**shown["new"], "id": 1}}


def test_the_type_has_the_columns_of_the_manual_in_its_order(stream_db):
    assert [name for name, in stream_db.execute(
        "select attname::text from pg_attribute where attnum > 0 and not attisdropped"
        " and attrelid = 'pgstream.subscriptions'::regclass order by attnum")] == [
            "id", "key", "stream_id", "operation", "schema_name", "table_name", "when_clause",
            "column_names", "metadata", "payload_extensions"]


def helper(db, *subscriptions, stream=1, function="set_subscriptions"):
    """Calls the helper with (key, operation, table, when, columns)."""
    rows = ", ".join(["row(null, %s, null, %s, 'public', %s, %s, %s, null, '[]')"
                      "::pgstream.subscriptions"] * len(subscriptions))
    db.execute(f"select {function}({stream}, array[{rows}]::pgstream.subscriptions[])",
               [value for subscription in subscriptions for value in subscription])


def test_the_helper_of_the_manual(stream_db):
    stream_db.execute(TABLES)
    run(stream_db, "set_subscriptions.sql")
    signup = ("signup", "INSERT", "users", "new.email_verified", ["id"])
    order = ("order", "INSERT", "orders", None, ["id", "total"])
    helper(stream_db, signup, order)
    rows = "select key, xmin from pgstream.subscriptions order by key"
    versions = stream_db.execute(rows)
    created = stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'"
                                " order by oid")
    helper(stream_db, signup, order)
    assert stream_db.execute(rows) == versions
    assert stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'"
                             " order by oid") == created

    stream_db.execute("insert into users (email_verified) values (true), (false)")
    stream_db.execute("insert into orders (total) values (5)")
    assert [(e["tg_name"], e["new"]) for e in events(stream_db)] == [
        ("signup", {"id": 1}), ("order", {"id": 1, "total": 5})]

    helper(stream_db, (*order[:4], ["total"]))
    stream_db.execute("insert into users (email_verified) values (true)")
    stream_db.execute("insert into orders (total) values (6)")
    assert [(e["tg_name"], e["new"]) for e in events(stream_db)][2:] == [("order", {"total": 6})]
    assert triggers(stream_db, "users") == []


def test_set_subscriptions_changes_only_what_differs(stream_db):
    stream_db.execute(TABLES)
    subscribe(stream_db, "other", "users", stream=2)
    wanted = [("a", "INSERT", "users", "new.id > 0", ["id"]),
              ("a", "UPDATE", "users", None, ["id"]), ("b", "INSERT", "orders", None, ["id"])]
    helper(stream_db, *wanted, function="pgstream.set_subscriptions")
    versions = dict(stream_db.execute("select key || operation, xmin::text"
                                      " from pgstream.subscriptions where stream_id = 1"))
    created = stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'"
                                " order by oid")
    wanted[2] = (*wanted[2][:4], ["id", "total"])
    helper(stream_db, *wanted, function="pgstream.set_subscriptions")
    changed = dict(stream_db.execute("select key || operation, xmin::text"
                                     " from pgstream.subscriptions where stream_id = 1"))
    assert {key for key in versions if changed[key] != versions[key]} == {"bINSERT"}
    assert stream_db.execute("select oid from pg_trigger where tgname like 'pgstream%'"
                             " order by oid") == created
    helper(stream_db, wanted[0], function="pgstream.set_subscriptions")
    assert stream_db.execute("select stream_id, key, operation from pgstream.subscriptions"
                             " order by 1") == [(1, "a", "INSERT"), (2, "other", "INSERT")]
    helper(stream_db, function="pgstream.set_subscriptions")
    assert stream_db.execute("select key from pgstream.subscriptions") == [("other",)]
