"""The pg-outbox source: the outbox of another database, into an inbox of the relay's own."""

import json
import re

import pytest

from support.database_side import install
from support.inboxes import count, wait_count
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, status_row)
from support.postgres import PostgresServer
from support.proxy import FaultProxy
from support.waiting import eventually
from support.writers import bulk


@pytest.fixture
def orders(there):
    make_table(there)


def set_relay(db, name, config, function="set_relay_inbox"):
    db.execute(f"select pgtrickle.{function}(%s, config => %s::jsonb)", (name, json.dumps(config)))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


def from_outbox(there, outbox="orders", url=None, **options):
    source = {"type": "pg-outbox", "url": url or there.relay_dsn, "outbox": outbox,
              "poll_interval": "20ms"}
    source |= options.pop("source", {})
    return {"source": {k: v for k, v in source.items() if v is not None},
            "sink": {"type": "inbox", "inbox_name": "shop"}, "message": "row", **options}


def ids(db):
    return [row[0] for row in db.execute(
        "select coalesce(payload #>> '{new,id}', payload #>> '{old,id}')::int "
        "from pgtrickle.inbox_shop order by received_at, ctid")]


def position(there):
    return there.one("select max(last_change_id) from pgtrickle.relay_consumer_offsets")


def wait_trouble(relay, db, name, pattern, deadline=20):
    def told():
        stored = status_row(db, name)
        assert stored and re.search(pattern, str(stored["last_error"])), stored
        return stored
    return eventually(told, deadline * SLOW_FACTOR, message=lambda: relay.log(40))


def test_changes_there_arrive_here_in_order(db, there, relay, orders):
    set_relay(db, "p", from_outbox(there))
    with relay:
        insert_rows(there, "orders", 1, 3)
        there.execute("update orders set name = 'new' where id = 2")
        there.execute("delete from orders where id = 1")
        wait_count(db, 5, relay)
        assert relay.pipeline("p")["state"] in ("idle", "running")
    rows = db.execute("select event_type, aggregate_id, source, event_id from pgtrickle.inbox_shop "
                      "order by received_at, ctid")
    assert [row[:3] for row in rows] == [("insert", "1", "p"), ("insert", "2", "p"),
                                         ("insert", "3", "p"), ("update", "2", "p"),
                                         ("delete", "1", "p")]
    assert all(re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", row[3]) for row in rows)


def test_events_of_an_application_outbox_arrive_as_they_were_published(db, there, relay):
    there.execute("select pgtrickle.create_outbox('sales')")
    set_relay(db, "p", from_outbox(there, "sales"))
    with relay:
        there.execute("""select pgtrickle.publish('sales', '{"n": 1.50}', 'sold', 'k',
                                                  '{"trace_id": "t"}')""")
        wait_count(db, 1, relay)
    assert db.execute("select event_type, aggregate_id, payload::text, trace_id "
                      "from pgtrickle.inbox_shop") == [("sold", "k", '{"n": 1.50}', "t")]


def test_the_flat_form_names_the_outbox_without_a_prefix(db, there, relay, orders):
    set_relay(db, "p", {"source_type": "pg-outbox", "pg_outbox_url": there.relay_dsn,
                        "outbox": "orders", "inbox_name": "shop"})
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)


def test_the_position_is_kept_where_retention_needs_it(db, there, relay, orders):
    set_relay(db, "p", from_outbox(there))
    with relay:
        insert_rows(there, "orders", 1, 5)
        wait_count(db, 5, relay)
        eventually(lambda: position(there) == 5)
        relay.stop()
        bulk(there, 6, 5)
        relay.start()
        wait_count(db, 10, relay)
        assert relay.metric("duplicates_total", pipeline="p") in (0, None)
    assert db.one("select count(*) from pgtrickle.relay_consumer_offsets") == 0
    group, = there.execute("select relay_group_id from pgtrickle.relay_consumer_offsets")[0]
    assert re.fullmatch(r"default@\d+-\d+", group)


def test_two_databases_that_read_one_outbox_by_pipelines_of_one_name_get_all_of_it(
        db, there, relay, relay_bin, pg_server, orders):
    from support.relay import Relay
    other = pg_server.create_database()
    try:
        for database in (db, other):
            set_relay(database, "p", from_outbox(there))
        with relay, Relay(other.relay_dsn) as second:
            insert_rows(there, "orders", 1, 20)
            wait_count(db, 20, relay)
            wait_count(other, 20, second)
    finally:
        other.drop()


def test_any_sink_can_take_it(db, there, relay, orders, tmp_path):
    set_relay(db, "p", {"source": from_outbox(there)["source"], "message": "row",
                        "sink": {"type": "file", "path": str(tmp_path / "out")}}, "set_relay")
    with relay:
        insert_rows(there, "orders", 1, 3)
        eventually(lambda: len(Lines(tmp_path / "out").messages()) == 3)


def test_start_latest_leaves_out_what_was_there(db, there, relay, orders):
    insert_rows(there, "orders", 1, 5)
    set_relay(db, "p", from_outbox(there, start="latest"))
    with relay:
        eventually(lambda: position(there) == 5)
        insert_rows(there, "orders", 6)
        wait_count(db, 1, relay)
    assert ids(db) == [6]


def test_a_large_delta_comes_in_parts(db, there, relay):
    there.execute("create table orders (id bigint primary key, name text, amount numeric)")
    there.execute("select pgtrickle.enable_outbox('orders', inline_threshold_rows => 100)")
    set_relay(db, "p", from_outbox(there))
    with relay:
        bulk(there, 1, 5000)
        wait_count(db, 5000, relay)
    assert ids(db) == list(range(1, 5001))


def test_dead_letters_stay_here(db, there, relay, orders):
    db.execute("select pgtrickle.create_inbox('shop')")
    db.execute("alter table pgtrickle.inbox_shop add check (payload #>> '{new,name}' <> 'poison')")
    set_relay(db, "p", from_outbox(there))
    with relay:
        insert_rows(there, "orders", 1, 3)
        there.execute("insert into orders values (4, 'poison', 0)")
        insert_rows(there, "orders", 5, 3)
        wait_count(db, 6, relay)
        eventually(lambda: db.one("select count(*) from pgtrickle.relay_dlq") == 1)
        eventually(lambda: position(there) == 7)
    assert there.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.mark.parametrize("source,pattern", [
    ({"outbox": "nowhere"}, 'no outbox "nowhere"|nowhere'),
    ({"id_column": "x"}, "id_column is for a plain table"),
    ({"url": "postgresql://relay_daemon:wrong-word@127.0.0.1:{port}/{name}"},
     "password authentication failed"),
    ({"url": "postgresql://u:wrong-word@no-such-host.invalid/x"}, "no-such-host.invalid")])
def test_trouble_is_said_and_stays_its_own(db, there, relay, orders, source, pattern):
    source = {key: value and value.format(port=there.server.port, name=there.name)
              for key, value in source.items()}
    set_relay(db, "good", from_outbox(there))
    set_relay(db, "bad", from_outbox(there, source=source))
    with relay:
        wait_trouble(relay, db, "bad", pattern)
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        assert "wrong-word" not in relay.log()


def test_a_sink_that_takes_nothing_does_not_hold_back_cleaning_up_there(db, there, relay, orders):
    db.execute("select pgtrickle.create_inbox('shop')")
    set_relay(db, "p", from_outbox(there))
    there.execute("""do $$ begin for i in 1..4000 loop
                       insert into orders values (i, repeat('x', 20000), i);
                     end loop; end $$""")
    snapshots = ("select count(*) from pg_stat_activity where usename = 'relay_daemon' "
                 "and datname = current_database() and backend_xmin is not null")
    with db.connect(autocommit=False) as blocker:
        blocker.execute("lock table pgtrickle.inbox_shop in access exclusive mode")
        with relay:
            eventually(lambda: there.one(snapshots) > 0)
            eventually(lambda: (relay.metric("consumer_lag", pipeline="p") or 0) > 2000)
            eventually(lambda: there.one(snapshots) == 0, message=relay.log)
            blocker.rollback()
            wait_count(db, 4000, relay)
    assert ids(db) == list(range(1, 4001))


def test_an_outbox_made_anew_is_waited_for_and_read_from_its_start(db, there, relay, orders):
    set_relay(db, "p", from_outbox(there))
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        there.execute("select pgtrickle.disable_outbox('orders')")
        wait_trouble(relay, db, "p", "outbox")
        there.execute("select pgtrickle.enable_outbox('orders')")
        insert_rows(there, "orders", 2)
        wait_count(db, 2, relay, deadline=60)


def test_a_cut_connection_loses_nothing(db, there, pg_server, relay, orders):
    with FaultProxy(pg_server.port) as proxy:
        url = there.relay_dsn.replace(f":{pg_server.port}/", f":{proxy.port}/")
        set_relay(db, "p", from_outbox(there, url=url))
        with relay:
            for number in range(4):
                proxy.cut_once()
                bulk(there, number * 500 + 1, 500)
                wait_count(db, number * 500 + 500, relay)
    assert ids(db) == list(range(1, 2001))


def test_a_relay_killed_between_commit_and_acknowledgement_writes_nothing_twice(
        db, there, relay, orders):
    set_relay(db, "p", from_outbox(there))
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        eventually(lambda: position(there) == 1)
        with there.connect(autocommit=False) as blocker:
            blocker.execute("lock table pgtrickle.relay_consumer_offsets in share mode")
            bulk(there, 2, 20)
            wait_count(db, 21, relay)
            relay.kill9()
            # Its session still waits for the lock, and would write the position without it.
            sessions = ("from pg_stat_activity where usename = 'relay_daemon' "
                        "and datname = current_database()")
            there.execute(f"select pg_terminate_backend(pid) {sessions}")
            eventually(lambda: there.one(f"select count(*) {sessions}") == 0)
            blocker.rollback()
        assert position(there) == 1
        relay.start()
        eventually(lambda: position(there) == 2, 20)
        relay.wait_metric("duplicates_total", 20, pipeline="p")
    assert ids(db) == list(range(1, 22))


def test_a_killed_relay_writes_each_message_once(db, there, relay, orders):
    set_relay(db, "p", from_outbox(there))
    for number in range(5):
        relay.start()
        bulk(there, number * 1000 + 1, 1000)
        eventually(lambda: count(db) > number * 1000, 20, interval=0.001, message=relay.log)
        relay.kill9()
    with relay:
        wait_count(db, 5000, relay)
    assert sorted(ids(db)) == list(range(1, 5001))


def test_the_other_server_may_be_away_for_a_while(db, relay):
    server = PostgresServer("remote-pg").start()
    try:
        server.make_template(install)
        there = server.create_database()
        make_table(there)
        set_relay(db, "p", from_outbox(there))
        with relay:
            bulk(there, 1, 1000)
            wait_count(db, 1000, relay)
            server.stop_immediate()
            wait_trouble(relay, db, "p", "PostgreSQL")
            server.start()
            bulk(there, 1001, 1000)
            wait_count(db, 2000, relay, deadline=60)
        assert ids(db) == list(range(1, 2001))
    finally:
        server.stop_immediate()
