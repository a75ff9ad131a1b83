"""The pg-inbox sink: outboxes into inbox tables, here and in another database."""

import json
import re

import pytest

from support.inboxes import count, wait_count
from support.pipelines import insert_rows, set_outbox, wait_settled
from support.postgres import PostgresServer
from support.proxy import FaultProxy
from support.relay import run_command
from support.waiting import eventually
from support.writers import bulk, wait_trouble


def to_inbox(database, table="orders", inbox="shop", **options):
    """A pipeline's configuration: the outbox of `table` into an inbox of `database`."""
    sink = {"type": "pg-inbox", "inbox_name": inbox}
    if database is not None:
        sink["url"] = database.relay_dsn
    sink |= options.pop("sink", {})
    sink = {key: value for key, value in sink.items() if value is not None}
    return {"stream_table": table, "sink": sink, "message": "row", **options}


def events(db, **options):
    """An outbox of events `e`, and a pipeline `p` from it into the inbox `shop` here."""
    db.execute("select pgtrickle.create_outbox('e')")
    set_outbox(db, "p", to_inbox(None, "e", **options))


def publish(db, payload, **arguments):
    names = "".join(f", {name} => %({name})s" for name in arguments)
    return db.one(f"select pgtrickle.publish('e', %(payload)s::jsonb{names})",
                  {"payload": json.dumps(payload), **arguments})


def dead_letters(db, pipeline="p"):
    return db.execute("select error_class, error_code, error_message, convert_from(payload, 'UTF8')"
                      " from pgtrickle.relay_dlq where pipeline = %s and resolved_at is null"
                      " order by id", (pipeline,))


# What arrives -----------------------------------------------------------------------------------


def test_each_column_has_what_the_documentation_says(db, there, relay, orders):
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    set_outbox(db, "p", to_inbox(there, headers={"source-system": "shop",
                                                 "traceparent": traceparent}))
    with relay:
        db.execute("insert into orders values (1, 'Zoë', 12.50)")
        wait_count(there, 1, relay)
    row = there.execute("select to_jsonb(i) from pgtrickle.inbox_shop i")[0][0]
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", row["event_id"])
    assert row["event_type"] == "insert" and row["source"] == "p"
    assert row["aggregate_id"] == db.one("select '1'")
    assert row["payload"]["new"] == {"id": 1, "name": "Zoë", "amount": 12.5}
    assert there.one("select payload::text from pgtrickle.inbox_shop").find("12.50") > 0
    assert row["headers"] == {"pgtrickle-stream-table": "orders", "source-system": "shop",
                              "pgtrickle-outbox-id": str(row["payload"]["sequence"]),
                              "traceparent": traceparent}
    assert row["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (row["processed"], row["retry_count"], row["error"]) == (False, 0, None)


def test_an_event_arrives_as_it_was_published(db, relay):
    events(db)
    with relay:
        publish(db, {"total": 1}, event_type="order.placed", key="o-1",
                headers=json.dumps({"trace_id": "t-7"}))
        wait_count(db, 1, relay)
    assert db.execute("select event_type, aggregate_id, payload, trace_id, headers ->> 'trace_id' "
                      "from pgtrickle.inbox_shop") == [
        ("order.placed", "o-1", {"total": 1}, "t-7", "t-7")]


def test_payloads_are_the_same_json_values(db, relay):
    events(db)
    values = ['1234567890123456789012345678901234567890.12345', '"a\\"b\\\\c\\u00e9\\ud83d\\ude00"',
              '{"deep": [[[[{}]]]], "big": 1e300, "neg": -0.0}', "null", "true", '""']
    with relay:
        for value in values:
            db.execute(f"select pgtrickle.publish('e', $x${value}$x$)")
        wait_count(db, len(values), relay)
    assert [row[0] for row in db.execute(
        "select i.payload = o.payload from pgtrickle.inbox_shop i join pgtrickle.outbox_e o "
        "on o.id = (i.headers ->> 'pgtrickle-outbox-id')::bigint")] == [True] * len(values)


def test_ten_thousand_messages_arrive_once_each_in_order(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there))
    with relay:
        for first in range(1, 10001, 2500):
            bulk(db, first, 2500)
        wait_count(there, 10000, relay)
        assert relay.metric("duplicates_total", pipeline="p") in (0, None)
    assert [row[0] for row in there.execute("select (payload #>> '{new,id}')::int from "
                                            "pgtrickle.inbox_shop order by received_at, ctid")] \
        == list(range(1, 10001))


def test_a_missing_inbox_is_made_with_the_settings_of_the_pipeline(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there, sink={"max_retries": 7, "retention_hours": 5,
                                              "with_dead_letter": False, "schedule": "3s"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(there, 1, relay)
    assert there.execute("select inbox_name, max_retries, schedule, with_dead_letter, "
                         "retention_hours from pgtrickle.pgt_inbox_config") == [
        ("shop", 7, "3s", False, 5)]


@pytest.mark.parametrize("name", ['odd-"name.s', "Größe", "x" * 63])
def test_inbox_tables_of_any_name(db, relay, orders, name):
    set_outbox(db, "p", to_inbox(None, inbox=None, sink={"inbox_table": name}))
    with relay:
        insert_rows(db, "orders", 1)
        quoted = db.one("select format('pgtrickle.%%I', %s::text)", (name,))
        wait_count(db, 1, relay, quoted)


# Duplicates -------------------------------------------------------------------------------------


def test_what_is_there_already_is_a_duplicate_and_stays_as_it_is(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there))
    with relay:
        bulk(db, 1, 50)
        wait_count(there, 50, relay)
        wait_settled(db, "p", "orders")
        there.execute("delete from pgtrickle.inbox_shop where payload #>> '{new,id}' in ('7', '8')")
        there.execute("update pgtrickle.inbox_shop set processed_at = now()")
        relay.stop()
        db.execute("update pgtrickle.relay_consumer_offsets set last_change_id = 0, last_row = 0, "
                   "last_pgt_id = null")
        relay.start()
        wait_count(there, 50, relay)
        eventually(lambda: relay.metric("duplicates_total", pipeline="p") == 48,
                   message=lambda: relay.metrics().text)
        assert relay.metric("rejected_total", pipeline="p") in (0, None)
    assert there.one("select count(*) from pgtrickle.inbox_shop where processed_at is null") == 2


def test_of_messages_that_a_trigger_gives_one_id_the_others_are_dead_letters(db, relay):
    db.execute("create table notes (id uuid primary key, body jsonb)")
    db.execute("grant select, insert on notes to pgtrickle_relay")
    db.execute("select pgtrickle.create_outbox('e')")
    with relay:
        identity = "3f0d4a9e-64c4-4cb3-9f1a-000000000001"
        db.execute("""create function raise_id() returns trigger language plpgsql as $$
                      begin new.id := '%s'; return new; end $$""" % identity)
        db.execute("alter table notes alter id type text using id::text")
        db.execute("create trigger t before insert on notes for each row "
                   "execute function raise_id()")
        for number in range(5):
            publish(db, number)
        set_outbox(db, "p", to_inbox(None, "e", inbox=None, sink={
            "inbox_table": "public.notes", "column_map": {"event_id": "id", "payload": "body"}}))
        wait_count(db, 1, relay, "notes")
        wait_settled(db, "p", "e")
    assert db.execute("select id, body from notes") == [(identity, 0)]
    assert {"1", "2", "3", "4"} <= {payload for *_, payload in dead_letters(db)}


# Tables of one's own ----------------------------------------------------------------------------


def test_a_table_with_other_columns_by_a_map(db, relay):
    db.execute("create schema app")
    db.execute("create table app.messages (nr bigint generated always as identity, "
               'id text primary key, "Body" text, what varchar(20), subj text)')
    db.execute("grant usage on schema app to pgtrickle_relay")
    db.execute("grant select, insert on app.messages to pgtrickle_relay")
    db.execute("select pgtrickle.create_outbox('e')")
    set_outbox(db, "p", to_inbox(None, "e", inbox=None, subject_template="s.{event_type}", sink={
        "inbox_table": "app.messages",
        "column_map": {"event_id": "id", "payload": "Body", "event_type": "what",
                       "subject": "subj", "headers": ""}}))
    with relay:
        publish(db, {"a": 1}, event_type="made")
        wait_count(db, 1, relay, "app.messages")
    assert db.execute('select "Body"::jsonb, what, subj from app.messages') == [
        ({"a": 1}, "made", "s.made")]


def test_a_tracked_table_needs_no_map(db, relay):
    db.execute("create table messages (id text primary key, body bytea)")
    db.execute("select pgtrickle.enable_inbox_tracking('mine', 'messages', "
               """'{"event_id": "id", "payload": "body"}')""")
    db.execute("select pgtrickle.create_outbox('e')")
    set_outbox(db, "p", to_inbox(None, "e", inbox="mine"))
    with relay:
        publish(db, {"a": "ü"})
        wait_count(db, 1, relay, "messages")
    assert bytes(db.one("select body from messages")).decode() == '{"a": "ü"}'


@pytest.mark.parametrize("ddl,columns,says,remedy", [
    ("create table t (id text primary key, payload jsonb)", {}, 'no column "event_id"',
     "column_map"),
    ("create table t (event_id text primary key, payload jsonb)", {"event_type": "kind"},
     'no column "kind"', "column_map"),
    ("create table t (event_id text primary key, payload jsonb); "
     "revoke all on t from pgtrickle_relay", {}, "may not write", "GRANT SELECT, INSERT"),
    ("create table t (event_id text, payload jsonb)", {}, "must be unique",
     "CREATE UNIQUE INDEX")])
def test_what_is_no_inbox_is_said_with_its_remedy(db, relay, orders, ddl, columns, says, remedy):
    db.execute("grant usage on schema public to pgtrickle_relay")
    db.execute(ddl)
    if "revoke" not in ddl:
        db.execute("grant select, insert on t to pgtrickle_relay")
    set_outbox(db, "p", to_inbox(None, inbox=None,
                                 sink={"inbox_table": "public.t", "column_map": columns}))
    insert_rows(db, "orders", 1)
    with relay:
        wait_trouble(relay, db, "p", says, remedy)
        assert dead_letters(db) == []


@pytest.mark.parametrize("sink,says", [
    ({"column_map": {"nonsense": "x"}}, "nonsense"),
    ({"column_map": {"payload": ""}}, "cannot be left out")])
def test_a_wrong_configuration_is_refused_with_its_reason(db, relay, orders, sink, says):
    set_outbox(db, "p", to_inbox(None, sink=sink))
    with relay:
        entry = relay.wait_state("p", "misconfigured")
        assert says in entry["last_error"], entry


# Poison -----------------------------------------------------------------------------------------


def test_one_poison_message_among_ten_thousand(db, there, relay, orders):
    there.execute("select pgtrickle.create_inbox('shop')")
    there.execute("alter table pgtrickle.inbox_shop add constraint no_poison "
                  "check (payload #>> '{new,name}' <> 'poison')")
    set_outbox(db, "p", to_inbox(there))
    with relay:
        bulk(db, 1, 7000)
        db.execute("insert into orders values (7001, 'poison', 0)")
        bulk(db, 7002, 2999)
        wait_count(there, 9999, relay)
        wait_settled(db, "p", "orders")
        (error_class, code, message, payload), = eventually(lambda: dead_letters(db))
        assert (error_class, code) == ("rejected", "23514") and "no_poison" in message
        assert json.loads(payload)["new"]["id"] == 7001
        relay.wait_metric("rejected_total", 1, pipeline="p")
        before = db.execute("select last_change_id from pgtrickle.relay_consumer_offsets")
        there.execute("alter table pgtrickle.inbox_shop drop constraint no_poison")
        db.execute("select pgtrickle.relay_dlq_retry_all('p')")
        wait_count(there, 10000, relay)
        eventually(lambda: dead_letters(db) == [])
        assert db.execute("select last_change_id from pgtrickle.relay_consumer_offsets") == before
    assert there.one("select count(distinct payload #>> '{new,id}') from pgtrickle.inbox_shop") \
        == 10000


def test_many_poison_messages_are_found_each(db, relay):
    db.execute("create table strict (event_id text primary key, payload jsonb, "
               "amount numeric generated always as ((payload ->> 'amount')::numeric) stored)")
    db.execute("grant select, insert on strict to pgtrickle_relay")
    db.execute("select pgtrickle.create_outbox('e')")
    set_outbox(db, "p", to_inbox(None, "e", inbox=None, sink={"inbox_table": "public.strict"}))
    db.execute("select pgtrickle.publish('e', jsonb_build_object('amount', "
               "case when i % 10 = 0 then 'much' else i::text end)) from generate_series(1, 200) i")
    with relay:
        wait_count(db, 180, relay, "strict")
        eventually(lambda: len(dead_letters(db)) == 20)
    assert {letter[1] for letter in dead_letters(db)} == {"22P02"}


def test_a_trigger_that_raises_refuses_one_message(db, relay):
    db.execute("select pgtrickle.create_inbox('shop')")
    db.execute("""create function no_seven() returns trigger language plpgsql as $$ begin
        if new.payload = '7' then raise exception 'seven is not welcome'; end if;
        return new; end $$""")
    db.execute("create trigger t before insert on pgtrickle.inbox_shop for each row "
               "execute function no_seven()")
    events(db)
    with relay:
        for number in range(1, 11):
            publish(db, number)
        wait_count(db, 9, relay)
        (error_class, code, message, payload), = eventually(lambda: dead_letters(db))
        assert (error_class, code, payload) == ("rejected", "P0001", "7")
        assert "seven is not welcome" in message


# Trouble ----------------------------------------------------------------------------------------


def test_a_wrong_password_and_an_unknown_host_stop_one_pipeline_only(db, there, relay, orders):
    set_outbox(db, "good", to_inbox(there))
    set_outbox(db, "bad", to_inbox(None, sink={
        "url": there.relay_dsn.replace("s3cret-for-tests", "not-it")}))
    set_outbox(db, "lost", to_inbox(None, sink={
        "url": "postgresql://u:hidden-word@no-such-host.invalid/x"}))
    with relay:
        insert_rows(db, "orders", 1, 5)
        wait_count(there, 5, relay)
        wait_trouble(relay, db, "bad", "password authentication failed", "check user and password")
        eventually(lambda: "no-such-host.invalid" in str(relay.pipeline("lost")["last_error"]),
                   message=relay.log)
        assert "hidden-word" not in relay.log() and "not-it" not in relay.log()
        assert dead_letters(db, "bad") == dead_letters(db, "lost") == []


def test_a_database_without_our_schema_says_what_to_do(db, empty_db, relay, orders):
    set_outbox(db, "p", to_inbox(None, sink={"url": empty_db.dsn}))
    insert_rows(db, "orders", 1)
    with relay:
        wait_trouble(relay, db, "p", "is not installed there", "init")


def test_a_plain_table_in_a_database_without_our_schema_is_enough(db, empty_db, relay, orders):
    empty_db.execute("create table arrivals (event_id text primary key, payload jsonb)")
    set_outbox(db, "p", to_inbox(None, inbox=None, sink={"url": empty_db.dsn,
                                                         "inbox_table": "public.arrivals"}))
    with relay:
        insert_rows(db, "orders", 1, 3)
        wait_count(empty_db, 3, relay, "arrivals")


def test_an_inbox_that_is_dropped_is_made_again(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(there, 1, relay)
        there.execute("select pgtrickle.drop_inbox('shop')")
        insert_rows(db, "orders", 2, 2)
        wait_count(there, 2, relay)
        assert dead_letters(db) == []


def test_a_cut_connection_loses_and_doubles_nothing(db, there, pg_server, relay, orders):
    with FaultProxy(pg_server.port) as proxy:
        url = there.relay_dsn.replace(f":{pg_server.port}/", f":{proxy.port}/")
        set_outbox(db, "p", to_inbox(None, sink={"url": url}))
        with relay:
            for round_number in range(5):
                proxy.cut_after(20_000 * (round_number + 1))
                bulk(db, round_number * 1000 + 1, 1000)
                wait_count(there, (round_number + 1) * 1000, relay)
    assert dead_letters(db) == []
    assert there.one("select count(distinct payload #>> '{new,id}') from pgtrickle.inbox_shop") \
        == 5000


def test_a_stalled_connection_ends_and_goes_on(db, there, pg_server, relay, orders):
    with FaultProxy(pg_server.port) as proxy:
        url = there.relay_dsn.replace(f":{pg_server.port}/", f":{proxy.port}/")
        set_outbox(db, "p", to_inbox(None, sink={"url": url, "operation_timeout": "1s",
                                                 "connect_timeout": "1s"}))
        with relay:
            insert_rows(db, "orders", 1)
            wait_count(there, 1, relay)
            proxy.stall()
            insert_rows(db, "orders", 2, 2)
            relay.wait_state("p", "retrying")
            proxy.restore()
            wait_count(there, 3, relay)


def test_a_lock_on_the_inbox_is_waited_for_and_a_stop_does_not_wait(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there, sink={"operation_timeout": "1s"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(there, 1, relay)
        with there.connect(autocommit=False) as blocker:
            blocker.execute("lock table pgtrickle.inbox_shop in share mode")
            insert_rows(db, "orders", 2)
            relay.wait_state("p", "retrying")
            relay.stop(deadline=20)
        relay.start()
        wait_count(there, 2, relay)


def test_the_server_of_the_inbox_is_restarted_under_load(db, relay, orders):
    server = PostgresServer("inbox-pg").start()
    try:
        from support.database_side import install
        server.make_template(install)
        there = server.create_database()
        set_outbox(db, "p", to_inbox(there))
        with relay:
            for round_number, mode in enumerate(("immediate", "kill9", "fast")):
                bulk(db, round_number * 2000 + 1, 1000)
                eventually(lambda: count(there) >= round_number * 2000, 30)
                server.restart(mode)
                bulk(db, round_number * 2000 + 1001, 1000)
            wait_count(there, 6000, relay, deadline=60)
        assert dead_letters(db) == []
        assert there.one("select count(distinct payload #>> '{new,id}') "
                         "from pgtrickle.inbox_shop") == 6000
    finally:
        server.stop_immediate()


def test_a_relay_that_is_killed_writes_nothing_twice(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there))
    written = 0
    for _ in range(5):
        relay.start()
        bulk(db, written + 1, 2000)
        eventually(lambda: count(there) > written, 20, interval=0.001)
        relay.kill9()
        written += 2000
    with relay:
        wait_count(there, written, relay)
    assert there.one("select count(distinct payload #>> '{new,id}') from pgtrickle.inbox_shop") \
        == written


def test_commits_are_durable_whatever_the_role_says(db, there, relay, orders):
    """A role that has synchronous_commit off by default: the inbox's commits are not."""
    there.execute("alter database %s set synchronous_commit = off" % there.name)
    there.execute("select pgtrickle.create_inbox('shop')")
    there.execute("alter table pgtrickle.inbox_shop add column setting text "
                  "default current_setting('synchronous_commit')")
    there.execute("create function settled() returns trigger language plpgsql as $$ begin "
                  "new.setting := current_setting('synchronous_commit'); return new; end $$")
    there.execute("create trigger t before insert on pgtrickle.inbox_shop for each row "
                  "execute function settled()")
    set_outbox(db, "p", to_inbox(there))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(there, 1, relay)
    assert there.one("select setting from pgtrickle.inbox_shop") == "on"


def test_fifty_pipelines_share_the_relays_connections(db, relay, orders):
    for number in range(50):
        set_outbox(db, f"p{number}", to_inbox(None, inbox=f"i{number}"))
    with relay:
        insert_rows(db, "orders", 1, 3)
        for number in range(50):
            wait_count(db, 3, relay, f"pgtrickle.inbox_i{number}", deadline=60)
        assert db.one("select count(*) from pg_stat_activity where datname = current_database() "
                      "and usename = 'relay_daemon'") <= 10


# Looking ----------------------------------------------------------------------------------------


def test_check_says_whether_the_inbox_answers_and_makes_nothing(db, there, relay_bin, orders):
    set_outbox(db, "p", to_inbox(there))
    done = run_command("check", "--postgres-url", db.relay_dsn)
    assert done.returncode == 0, done.stdout
    assert "p: pg-inbox answers" in done.stdout
    assert there.execute("select * from pgtrickle.pgt_inbox_config") == []


def test_a_sleeping_pipeline_holds_no_connection_to_the_other_database(db, there, relay, orders):
    set_outbox(db, "p", to_inbox(there))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(there, 1, relay)
        relay.stop()
    eventually(lambda: there.one("select count(*) from pg_stat_activity where "
                                 "datname = current_database() and usename = 'relay_daemon'") == 0)
