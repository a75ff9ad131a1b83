"""Change feeds: what is in them, and that readers need nothing but a cursor."""

import re
import subprocess

import pytest

from support.feeds import make_feed, rows, wait_rows, wait_written
from support.pipelines import SLOW_FACTOR, status_row
from support.postgres import refusal
from support.waiting import eventually

HOSTILE = ['Größe "x".y-z', "a" * 63, "feed", "out.put_1"]


@pytest.fixture
def totals(db):
    db.execute("create table order_totals (id int primary key, total numeric)")
    return make_feed(db, "public.order_totals")


# What is in a feed ---------------------------------------------------------------------------

def test_the_statements_of_the_design_document_run_as_shown(db, relay):
    db.execute("create table order_totals (id int primary key, total numeric)")
    assert db.one("select pgtrickle.create_change_feed('public.order_totals')") == (
        "pgtrickle_changes.feed_order_totals")
    with relay:
        db.execute("insert into order_totals values (1, 10.50), (2, 20)")
        db.execute("update order_totals set total = 11 where id = 1")
        db.execute("delete from order_totals where id = 2")
        wait_written(db, "order_totals")
    oid = db.one("select 'order_totals'::regclass::oid")
    by_name = db.execute("select * from pgtrickle_changes.feed_order_totals where change_id > 0 "
                         "order by change_id")
    assert by_name == db.execute(f"select * from pgtrickle_changes.output_{oid} where change_id > 0 "
                                 "order by change_id")
    assert db.execute("select change_id, action, row_data from pgtrickle_changes.feed_order_totals "
                      "where change_id > 2 order by change_id") == [
        (3, "U", {"id": 1, "total": 11}), (4, "D", {"id": 2, "total": 20})]
    assert db.one("select pgtrickle.cleanup_change_feed('public.order_totals', "
                  "older_than => interval '1 hour')") == 0
    assert db.one("select pgtrickle.cleanup_change_feed('public.order_totals', "
                  "older_than => interval '0')") == 4


def test_a_row_says_what_changed_and_where_it_comes_from(db, relay, totals):
    with relay:
        db.execute("insert into order_totals values (1, 10.50)")
        db.execute("update order_totals set total = 12345678901234567890.123 where id = 1")
        db.execute("delete from order_totals")
        found = wait_rows(db, totals, 3)
    assert found == [("I", {"id": 1}, {"id": 1, "total": 10.5}, None),
                     ("U", {"id": 1}, {"id": 1, "total": 12345678901234567890.123},
                      {"id": 1, "total": 10.5}),
                     ("D", {"id": 1}, {"id": 1, "total": 12345678901234567890.123}, None)]
    assert db.one(f"select row_data::text from {totals} where change_id = 2").endswith(
        "12345678901234567890.123}")
    assert db.one(f"select count(distinct pk_hash) = 1 and bool_and(created_at >= changed_at) "
                  f"from {totals}")
    assert rows(db, totals, "outbox_id, row_num") == [(1, 1), (2, 1), (3, 1)]


def test_the_refresh_of_a_stream_table_is_named(db, relay):
    db.execute("create table sales (region text, amount int)")
    db.execute("select pgtrickle.create_stream_table('totals', 'select region, sum(amount) as total "
               "from sales group by region', schedule => '1h', key_columns => '{region}')")
    feed = make_feed(db, "totals")
    with relay:
        db.execute("insert into sales values ('eu', 1), ('us', 2)")
        db.execute("select pgtrickle.refresh_stream_table('totals')")
        db.execute("insert into sales values ('eu', 4)")
        db.execute("select pgtrickle.refresh_stream_table('totals')")
        wait_rows(db, feed, 3)
    assert rows(db, feed) == [("I", {"region": "eu"}, {"region": "eu", "total": 1}, None),
                              ("I", {"region": "us"}, {"region": "us", "total": 2}, None),
                              ("U", {"region": "eu"}, {"region": "eu", "total": 5},
                               {"region": "eu", "total": 1})]
    assert db.execute(f"select f.change_id, h.action from {feed} f "
                      "join pgtrickle.pgt_refresh_history h using (refresh_id) order by 1") == [
        (1, "DIFFERENTIAL"), (2, "DIFFERENTIAL"), (3, "DIFFERENTIAL")]


def test_a_changed_key_is_a_delete_and_an_insert_and_so_is_a_change_without_a_key(db, relay):
    db.execute("create table pairs (a int, b text, n int, primary key (b, a)); "
               "create table loose (n int)")
    pairs, loose = make_feed(db, "pairs"), make_feed(db, "loose")
    with relay:
        db.execute("insert into pairs values (1, 'x', 1)")
        db.execute("update pairs set a = 2")
        db.execute("insert into loose values (1), (1)")
        db.execute("update loose set n = 2")
        wait_written(db, "pairs")
        wait_written(db, "loose")
    assert rows(db, pairs, "action, pk, row_data") == [
        ("I", {"a": 1, "b": "x"}, {"a": 1, "b": "x", "n": 1}),
        ("D", {"a": 1, "b": "x"}, {"a": 1, "b": "x", "n": 1}),
        ("I", {"a": 2, "b": "x"}, {"a": 2, "b": "x", "n": 1})]
    assert rows(db, loose, "action, pk, row_data") == [
        ("I", None, {"n": 1})] * 2 + [("D", None, {"n": 1})] * 2 + [("I", None, {"n": 2})] * 2


def test_a_full_refresh_is_one_row_and_its_rows_follow_only_where_asked_for(db, relay):
    db.execute("create table brief (id int primary key); create table whole (id int primary key)")
    brief, whole = make_feed(db, "brief"), make_feed(db, "whole", full_refresh_rows=True)
    with relay:
        for table in ("brief", "whole"):
            db.execute(f"insert into {table} values (1), (2)")
            db.execute(f"select pgtrickle.outbox_full_refresh('{table}')")
            db.execute(f"truncate {table}")
            db.execute(f"insert into {table} values (3)")
            wait_written(db, table)
    assert rows(db, brief, "action, row_data") == [
        ("I", {"id": 1}), ("I", {"id": 2}), ("F", None), ("F", None), ("I", {"id": 3})]
    assert rows(db, whole, "action, row_data") == [
        ("I", {"id": 1}), ("I", {"id": 2}), ("F", {"rows": 2}), ("I", {"id": 1}), ("I", {"id": 2}),
        ("F", {"rows": 0}), ("I", {"id": 3})]


@pytest.mark.parametrize("full_refresh_rows", [False, True])
def test_a_large_change_is_written_in_several_transactions_in_order(db, relay, full_refresh_rows):
    db.execute("create table big (id int primary key, n int)")
    db.execute("select pgtrickle.enable_outbox('big', inline_threshold_rows => 100)")
    feed = make_feed(db, "big", full_refresh_rows=full_refresh_rows)
    with relay:
        db.execute("insert into big select i, 0 from generate_series(1, 12000) i")
        db.execute("update big set n = 1")
        db.execute("select pgtrickle.outbox_full_refresh('big')")
        wait_written(db, "big")
    assert db.execute(f"select outbox_id, action, count(*) from {feed} group by 1, 2 order by 1, 2") == [
        (1, "I", 12000), (2, "U", 12000), (3, "F", 1)] + [(3, "I", 12000)] * full_refresh_rows
    assert db.one(f"select count(distinct xmin::text) > 4 and max(change_id) = count(*) from {feed}")
    # The order of change_id is that of the outbox; the row F comes before its rows.
    assert db.one(f"select bool_and(place > before) from (select (outbox_id, row_num) as place, "
                  f"lag((outbox_id, row_num)) over (order by change_id) as before from {feed}) f "
                  "where before is not null")


def test_a_feed_begins_with_what_commits_after_its_creation(db, relay):
    db.execute("create table t (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1)")
    with db.connect(autocommit=False) as slow:
        slow.execute("insert into t values (2)")
        db.execute("insert into t values (3)")
        feed = make_feed(db, "t")
        db.execute("insert into t values (4)")
        slow.commit()
    db.execute("insert into t values (5)")
    with relay:  # which reads for the first time now
        wait_rows(db, feed, 3)
        assert rows(db, feed, "row_data->'id'") == [(2,), (4,), (5,)]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(db, relay, name):
    quoted = '"' + name.replace('"', '""') + '"'
    db.execute(f"create schema if not exists \"S.x\"; create table \"S.x\".{quoted} (id int primary key, "
               f"{quoted} text); create table {quoted} (id int primary key)")
    feeds = [make_feed(db, f'"S.x".{quoted}'), make_feed(db, f"public.{quoted}")]
    assert len(set(feeds)) == 2 and all(len(feed.encode()) < 18 + 2 + 63 + 4 for feed in feeds)
    with relay:
        db.execute(f"insert into \"S.x\".{quoted} values (1, 'x')")
        db.execute(f"insert into {quoted} values (2)")
        assert wait_rows(db, feeds[0], 1)[0][2] == {"id": 1, name: "x"}
        assert wait_rows(db, feeds[1], 1)[0][2] == {"id": 2}
        relay.wait_healthy(2)
    assert db.one(f"select pgtrickle.cleanup_change_feed('public.{quoted}', interval '0')") == 1
    db.execute(f"select pgtrickle.drop_change_feed('\"S.x\".{quoted}')")
    assert db.execute("select table_schema from pgtrickle.change_feeds") == [("public",)]


# Its life ------------------------------------------------------------------------------------

def test_a_feed_follows_its_table_through_renames(db, relay, totals):
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
        db.execute("alter table order_totals rename to totals_of_orders; create schema shop; "
                   "alter table totals_of_orders set schema shop")
        db.execute("create table order_totals (id int primary key)")
        other = make_feed(db, "public.order_totals")
        db.execute("insert into shop.totals_of_orders values (2, 2); "
                   "insert into public.order_totals values (3)")
        assert wait_rows(db, totals, 2)[1][1] == {"id": 2}
        assert wait_rows(db, other, 1)[0][1] == {"id": 3}
    assert other != totals
    db.execute("select pgtrickle.drop_change_feed('shop.totals_of_orders')")
    assert db.execute("select feed from pgtrickle.change_feeds") == [(other,)]


def test_the_feed_of_a_dropped_table_stays_until_it_is_empty(db, relay, totals):
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
        db.execute("drop table order_totals")
        eventually(lambda: db.one("select pgtrickle.relay_housekeeping()")["errors"] == [])
        assert rows(db, totals, "action") == [("I",)]
        db.execute("create table order_totals (id int primary key)")
        assert make_feed(db, "order_totals") == totals
        db.execute("insert into order_totals values (2)")
        assert [row[0] for row in wait_rows(db, totals, 3)] == ["I", "F", "I"]
    db.execute("drop table order_totals")
    db.execute("select pgtrickle.cleanup_change_feed('order_totals', interval '0')")
    db.execute("update pgtrickle.outbox_order_totals set created_at = created_at - interval '2 days'")

    def gone():
        db.execute("select pgtrickle.relay_housekeeping()")
        return db.execute("select 1 from pgtrickle.change_feeds") == []
    eventually(gone)
    assert db.execute("select 1 from pgtrickle.relay_config") == []
    assert db.one("select count(*) from pg_class where relnamespace = 'pgtrickle_changes'::regnamespace "
                  "and relkind in ('r', 'v')") == 0


def test_dropping_a_feed_removes_its_pipeline_and_keeps_the_outbox(db, relay, totals):
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
        db.execute("select pgtrickle.drop_change_feed('order_totals')")
        eventually(lambda: not relay.lists("feed:public.order_totals"))
        db.execute("insert into order_totals values (2, 2)")
    assert db.execute("select 1 from pgtrickle.consumers") == []
    assert db.one("select count(*) from pgtrickle.outbox_order_totals") == 2
    db.execute("select pgtrickle.drop_change_feed('order_totals', if_exists => true)")
    assert "there is no change feed" in refusal(db, "select pgtrickle.drop_change_feed('order_totals')")


def test_the_pipeline_of_a_feed_is_seen_and_stopped_like_any_other(db, relay, totals):
    name = "feed:public.order_totals"
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
        relay.wait_healthy(1)
        assert relay.pipeline(name)["name"] == name
        eventually(lambda: status_row(db, name)["state"] in ("running", "idle"), 20 * SLOW_FACTOR)
        assert db.execute("select name, enabled from pgtrickle.list_relay_configs()") == [(name, True)]
        eventually(lambda: db.execute("select name, kind, outbox, lag from pgtrickle.consumers") == [
            (name, "feed", "outbox_order_totals", 0)], 20 * SLOW_FACTOR)
        db.execute("select pgtrickle.disable_relay(%s)", (name,))
        eventually(lambda: not relay.lists(name) or relay.pipeline(name)["state"] == "stopped")
        db.execute("insert into order_totals values (2, 2)")
        db.execute("select pgtrickle.enable_relay(%s)", (name,))
        wait_rows(db, totals, 2)
        # What was written is passed over when it is sent again.
        db.execute("select pgtrickle.replay_relay(%s, 1)", (name,))
        eventually(lambda: db.one("select finished_at from pgtrickle.relay_replays"))
        assert len(rows(db, totals)) == 2


def test_a_feed_goes_on_after_a_dump_was_restored(db, relay, start_relay, totals, pg_server):
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
    restored = pg_server.create_database(template="template0")
    try:
        restored.execute("create table before_it (id int)")  # so that numbers of tables differ
        dump = subprocess.run([f"{pg_server.bin}/pg_dump", db.dsn], capture_output=True)
        if b"server version mismatch" in dump.stderr:
            pytest.skip("pg_dump is older than the server")
        assert dump.returncode == 0, dump.stderr
        done = subprocess.run([f"{pg_server.bin}/psql", "-q", "-v", "ON_ERROR_STOP=1", "-d",
                               restored.dsn], input=dump.stdout, capture_output=True)
        assert done.returncode == 0, done.stderr
        with start_relay(restored.relay_dsn):
            restored.execute("select pgtrickle.outbox_capture_upkeep()")
            restored.execute("insert into order_totals values (2, 2)")
            # The restored outbox begins with a full refresh.
            found = wait_rows(restored, totals, 3, columns="change_id, action, row_data->'id'")
            assert found == [(1, "I", 1), (2, "F", None), (3, "I", 2)]
            oid = restored.one("select 'order_totals'::regclass::oid")

            def renamed():
                restored.execute("select pgtrickle.relay_housekeeping()")
                return restored.one("select output_view from pgtrickle.change_feeds") == (
                    f"pgtrickle_changes.output_{oid}")
            eventually(renamed)
    finally:
        restored.drop()


def test_housekeeping_deletes_what_is_older_than_the_retention(db, relay):
    db.execute("create table t (id int primary key)")
    feed = make_feed(db, "t", retention="2 days")
    with relay:
        db.execute("insert into t select generate_series(1, 30)")
        wait_rows(db, feed, 30)
    db.execute(f"update {feed} set created_at = created_at - interval '3 days' where change_id <= 25")
    deleted = []
    while (report := db.one("select pgtrickle.relay_housekeeping(10)")).get("feed_rows"):
        deleted.append(report["feed_rows"])
        assert report["errors"] == []
    assert deleted == [10, 10, 5]
    assert [id for (id,) in rows(db, feed, "change_id")] == [26, 27, 28, 29, 30]
    assert db.execute("select cleaned_to, last_change_id from pgtrickle.change_feeds") == [(25, 30)]


def test_readers_are_told_when_rows_are_missing(db, relay, totals):
    """Retention of the outbox has passed the feed: after the loss is accepted there is a row F."""
    name = "feed:public.order_totals"
    with relay:
        db.execute("insert into order_totals values (1, 1)")
        wait_rows(db, totals, 1)
    db.execute("insert into order_totals values (2, 2)")
    db.execute("delete from pgtrickle.outbox_order_totals")
    db.execute("update pgtrickle_internal.outbox_config set purged_below = 2")
    db.execute("update pgtrickle.relay_consumer_offsets set lost_rows = 1")
    with relay.restart():
        eventually(lambda: "are gone" in str(relay.pipeline(name)["last_error"]), 30 * SLOW_FACTOR)
        db.execute("select pgtrickle.resume_relay(%s, accept_loss => true)", (name,))
        db.execute("insert into order_totals values (3, 3)")
        assert [row[0] for row in wait_rows(db, totals, 3, deadline=60)] == ["I", "F", "I"]


# Bad input -----------------------------------------------------------------------------------

@pytest.mark.parametrize("call, message", [
    ("create_change_feed(null)", "there is no table"),
    ("create_change_feed('nowhere')", "there is no table \"nowhere\"\nQualify"),
    ("create_change_feed('seen')", "is not a table\nAn outbox records"),
    ("create_change_feed('far')", "is not a table\nAn outbox records"),
    ("create_change_feed('order_totals')", "already has a change feed: pgtrickle_changes.feed_order_totals"
                                           "\npgtrickle.drop_change_feed"),
    ("create_change_feed('t', null)", "retention must be more than 0.*not null\n.*7 days"),
    ("create_change_feed('t', interval '-1 day')", "retention must be more than 0"),
    ("create_change_feed('t', interval '0')", "retention must be more than 0"),
    ("create_change_feed('t', interval '1000000000 days')", "at most 100 years"),
    ("create_change_feed('t', full_refresh_rows => null)", "must be true or false"),
    ("cleanup_change_feed('order_totals', null)", "older_than must be between.*null\n.*1 hour"),
    ("cleanup_change_feed('order_totals', interval '-1 s')", "older_than must be between"),
    ("cleanup_change_feed('t', interval '1 s')", "there is no change feed of \"t\"\nSELECT"),
    ("cleanup_change_feed(null, interval '1 s')", "there is no change feed of"),
    ("drop_change_feed(null)", "there is no change feed of"),
    ("drop_change_feed('t')", "there is no change feed of \"t\"\nSELECT"),
    ("disable_outbox('order_totals')", "has a change feed\nSELECT pgtrickle.drop_change_feed"),
    ("delete_relay('feed:public.order_totals')", "writes a change feed.*\n.*drop_change_feed"),
    ("set_relay_outbox('feed:public.order_totals', '{\"outbox\": \"t\", \"sink_type\": \"stdout\"}')",
     "writes a change feed"),
    ("set_relay_outbox('p', '{\"stream_table\": \"order_totals\", \"sink_type\": \"feed\", "
     "\"feed\": \"feed_order_totals\"}')", "cannot write a change feed\nSELECT pgtrickle.create_change"),
])
def test_bad_input_is_refused_with_a_remedy(db, totals, call, message):
    db.execute("create table t (id int); create view seen as select 1 as id; "
               "create foreign data wrapper w; create server s foreign data wrapper w; "
               "create foreign table far (id int) server s")
    assert re.search(message, refusal(db, f"select pgtrickle.{call}"))
    assert db.execute("select 1 from pgtrickle.change_feeds") == [(1,)]


def test_a_feed_of_a_partitioned_table_and_of_one_partition(db, relay):
    db.execute("create table parts (id int primary key) partition by range (id); "
               "create table low partition of parts for values from (0) to (10); "
               "create table high partition of parts for values from (10) to (20)")
    feed = make_feed(db, "parts")
    with relay:
        db.execute("insert into parts values (1), (11)")
        db.execute("update parts set id = 12 where id = 1")
        wait_written(db, "parts")
    assert rows(db, feed, "action, pk") == [("I", {"id": 1}), ("I", {"id": 11}),
                                            ("D", {"id": 1}), ("I", {"id": 12})]


def test_a_feed_begins_in_a_read_committed_transaction_only(db):
    db.execute("create table t (id int)")
    with db.connect(autocommit=False) as connection:
        connection.execute("set transaction isolation level repeatable read")
        assert "READ COMMITTED" in refusal(connection, "select pgtrickle.create_change_feed('t')")
