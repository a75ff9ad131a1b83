"""`start: snapshot` of a pipeline: the rows that a table has, then its changes, exact through kills."""

import json
import random
import time

import pytest

from conformance.suite import SINKS, start
from support.pipelines import LONG, SLOW_FACTOR, Lines, make_table, set_outbox, to_file
from support.relay import Relay
from support.snapshots import StockWriters, table_rows
from support.waiting import eventually
from support.writers import dead_letters, wait_trouble

SNAPSHOT = {"start": "snapshot", "message": "row", "key_template": "{{ id }}"}


def fill(db, rows, table="stock"):
    db.execute(f"insert into {table} select i, 'first', i from generate_series(1, %s) i", (rows,))


def stock_table(db, rows=0):
    """A table whose rows are older than its outbox."""
    make_table(db, "stock", outbox=False)
    if LONG:
        db.execute("alter table stock add column bucket int generated always as (id & 255) stored")
    fill(db, rows)
    db.execute("select pgtrickle.enable_outbox('stock')")
    db.execute("analyze stock")


def applied(messages, strict=False, key="id"):
    """The copy that a consumer has which applies row messages in their order."""
    rows = {}
    for message in messages:
        old, new = message["old"], message["new"]
        if strict and message["op"] in ("update", "delete"):
            assert rows.get(old[key]) == old, f"was not so: {message}"
        if strict and message["op"] == "insert":
            assert new[key] not in rows, f"here already: {message}"
        if old:
            rows.pop(old[key], None)
        if new:
            rows[new[key]] = new
    return rows


def wanted(db, table="stock"):
    return {row["id"]: row for row in table_rows(db, table)}


def is_done(db, pipeline="p"):
    return db.one("select count(*) from pgtrickle.relay_consumer_offsets"
                  " where pipeline_id = %s and snapshot is null", (pipeline,)) == 1


def wait_equal(db, copy, deadline=90, message=None):
    eventually(lambda: copy() == wanted(db), deadline * SLOW_FACTOR, interval=0.3, message=message)


def test_rows_come_first_then_changes_and_a_strict_consumer_finds_nothing_wrong(db, tmp_path):
    stock_table(db, 3000)
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("stock", lines.path, delta_max_rows=100, **SNAPSHOT))
    with StockWriters(db, 12, keys=3200), Relay(db.relay_dsn) as relay:
        eventually(lambda: is_done(db), 90 * SLOW_FACTOR, message=lambda: relay.log(40))
        time_after = len(lines.messages()) + 50
        eventually(lambda: len(lines.messages()) > time_after, 60)
    with Relay(db.relay_dsn):
        wait_equal(db, lambda: applied(lines.messages(), strict=True))
    messages = lines.messages()
    first = [m for m in messages if m["metadata"].get("snapshot")]
    assert len(first) > 2000 and {m["op"] for m in first} == {"insert"}
    assert len({m["metadata"]["id"] for m in messages}) == len(messages)
    assert dead_letters(db, "p") == []


@pytest.mark.parametrize("options", [
    {"wire_format": "debezium"}, {"wire_format": "cloudevents"}, {"message": "delta", "key_template": None}])
def test_rows_of_a_snapshot_are_marked_in_every_format(db, tmp_path, options):
    stock_table(db, 3)
    lines = Lines(tmp_path / "out")
    config = {name: value for name, value in {**SNAPSHOT, **options}.items() if value is not None}
    set_outbox(db, "p", to_file("stock", lines.path, **config))
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: is_done(db), 30, message=lambda: relay.log(40))
        db.execute("insert into stock values (4, 'later', 4)")
        eventually(lambda: len(lines.messages()) >= (2 if "message" in options else 4), 30)
    *first, last = lines.messages()
    if options.get("wire_format") == "debezium":
        assert [m["op"] for m in first] == ["r"] * 3 and last["op"] == "c"
        assert {m["source"]["snapshot"] for m in first} == {"true"}
        assert last["source"]["snapshot"] == "false"
    elif options.get("wire_format") == "cloudevents":
        assert all(m["data"]["metadata"]["snapshot"] is True for m in first)
        assert "snapshot" not in last["data"]["metadata"]
    else:
        (page,) = first
        assert [row["id"] for row in page["delta"]["inserted"]] == [1, 2, 3]
        assert page["metadata"]["snapshot"] is True
        assert page["metadata"]["refresh_mode"] == "SNAPSHOT"


def test_progress_is_told_and_an_instance_goes_on_where_another_ended(db, tmp_path):
    stock_table(db, 2000)
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("stock", lines.path, delta_max_rows=50, rate_limit=400,
                                **SNAPSHOT))
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: 0 < (relay.metrics().value("pgtrickle_relay_snapshot_rows") or 0) < 2000,
                   30 * SLOW_FACTOR, message=lambda: relay.log(40))
        assert "snapshot" in json.dumps(relay.pipeline("p"))
        db.execute("select pgtrickle.pause_relay('p')")
        eventually(lambda: relay.pipeline("p")["state"] == "paused", 30)
        db.execute("delete from stock where id in (1, 2000)")
        db.execute("select pgtrickle.resume_relay('p')")
    before = len(lines.messages())
    assert before < 2000
    db.execute("select pgtrickle.set_relay_outbox('p', config => %s::jsonb)", (json.dumps(
        to_file("stock", lines.path, delta_max_rows=50, **SNAPSHOT)),))
    with Relay(db.relay_dsn):
        wait_equal(db, lambda: applied(lines.messages()))
        assert len(lines.messages()) < 2000 + 150  # it did not begin again
        eventually(lambda: is_done(db), 10)


def test_truncate_and_full_refresh_in_a_snapshot(db, tmp_path):
    stock_table(db, 1000)
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("stock", lines.path, delta_max_rows=50, rate_limit=300,
                                message="delta", start="snapshot"))

    def copy():
        rows = {}
        for message in lines.messages():
            if message["metadata"].get("full_refresh"):
                rows = {} if message["metadata"].get("part", 0) <= 1 else rows
            for row in message["delta"]["deleted"]:
                rows.pop(row["id"], None)
            for row in message["delta"]["inserted"]:
                rows[row["id"]] = row
        return rows
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: lines.messages(), 30, message=lambda: relay.log(40))
        db.execute("truncate stock")
        fill(db, 500)
        db.execute("update stock set amount = 0 where id % 2 = 0")
        db.execute("select pgtrickle.outbox_full_refresh('stock')")
        db.execute("delete from stock where id > 400")
        wait_equal(db, copy, message=lambda: relay.log(40))


def test_a_stream_table_and_its_changes(db, tmp_path):
    db.execute("create table sold (item int, n int)")
    db.execute("insert into sold select i % 500, i from generate_series(1, 2000) i")
    db.execute("select pgtrickle.create_stream_table('stock', 'select item as id, sum(n) as n "
               "from sold group by item', null, key_columns => '{id}')")
    db.execute("select pgtrickle.enable_outbox('stock')")
    db.execute("select pgtrickle.refresh_stream_table('stock')")
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("stock", lines.path, delta_max_rows=20, **SNAPSHOT))
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: lines.messages(), 30, message=lambda: relay.log(40))
        db.execute("delete from sold where item % 3 = 0")
        db.execute("insert into sold select i, 1 from generate_series(400, 700) i")
        db.execute("select pgtrickle.refresh_stream_table('stock')")
        wait_equal(db, lambda: applied(lines.messages(), strict=True), message=lambda: relay.log(40))


HOSTILE = '''
    create type public.mood as enum ('low', 'high');
    create collation public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table public."Wei rd, k.x" (
      "k.x, k.y" text collate public.nocase, "x" public.mood, d timestamptz, note text,
      primary key ("k.x, k.y", "x", d));
    insert into public."Wei rd, k.x"
    select 'Name ' || chr(65 + i % 26), (enum_range(null::public.mood))[1 + i % 2],
           '2020-01-01'::timestamptz + i * interval '1 second', repeat('x', i % 50)
    from generate_series(1, 500) i;'''


def test_keys_of_several_columns_and_hostile_names_types_and_collations(db, tmp_path):
    db.execute(HOSTILE)
    name = 'public."Wei rd, k.x"'
    db.execute("select pgtrickle.enable_outbox(%s)", (name,))
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file(name, lines.path, delta_max_rows=7, start="snapshot", message="row"))

    def copy():
        rows = {}
        for message in lines.messages():
            for row, is_new in ((message["old"], False), (message["new"], True)):
                if row:
                    key = (row["k.x, k.y"], row["x"], row["d"])
                    rows.pop(key, None)
                    if is_new:
                        rows[key] = row
        return sorted(row["note"] for row in rows.values())
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: lines.messages(), 30, message=lambda: relay.log(40))
        db.execute(f"""update {name} set note = 'new' where "x" = 'high'""")
        db.execute(f"delete from {name} where note = 'new' and d < '2020-01-01 00:02'")
        eventually(lambda: copy() == sorted(note for note, in db.execute(
            f"select note from {name}")), 60 * SLOW_FACTOR, interval=0.3,
            message=lambda: relay.log(40))


def test_a_replay_works_in_a_snapshot(db, tmp_path):
    stock_table(db, 2000)
    db.execute("insert into stock values (5000, 'replayed', 1)")
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("stock", lines.path, delta_max_rows=50, rate_limit=400,
                                **SNAPSHOT))
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: lines.messages(), 30, message=lambda: relay.log(40))
        db.execute("select pgtrickle.replay_relay('p', 1, 1)")
        eventually(lambda: [m for m in lines.messages() if m["metadata"]["id"].endswith(":r1")], 30,
                   message=lambda: relay.log(40))
        assert not is_done(db)


@pytest.mark.parametrize("make, outbox, pattern, remedy", [
    ("create table stock (id int); select pgtrickle.enable_outbox('stock')", "stock",
     "no unique key", "primary key"),
    ("select pgtrickle.create_outbox('stock')", "stock", "holds events", "earliest"),
    ("create table stock (id int primary key); alter table stock enable row level security;"
     "alter table stock force row level security; create role stock_keeper; alter table stock owner to stock_keeper;"
     "create policy p on stock using (id > 1); insert into stock values (1);"
     "select pgtrickle.enable_outbox('stock')", "stock", "row-level security", ""),
])
def test_what_has_no_snapshot_says_why(db, tmp_path, make, outbox, pattern, remedy):
    try:
        db.execute(make)
        key = "outbox" if "create_outbox" in make else "stream_table"
        config = to_file(outbox, tmp_path / "out", start="snapshot")
        config[key] = config.pop("stream_table")
        set_outbox(db, "p", config)
        with Relay(db.relay_dsn) as relay:
            wait_trouble(relay, db, "p", pattern, remedy)
    finally:
        db.drop()
        with db.server.connect() as connection:
            connection.execute("drop role if exists stock_keeper")


def test_a_plan_reads_no_change_again_for_each_gap_among_those_that_were_delivered(db):
    """One read the outbox to its end for each gap."""
    stock_table(db)
    for i in range(2000):
        db.execute("insert into stock values (%s, 'x', 1)", (i,))
    with db.connect(autocommit=False) as session:
        session.execute("set transaction isolation level repeatable read")
        ids, = session.execute(
            "select p.ids from pgtrickle.pgt_outbox_config c, lateral (select range_agg(int8range(o.id, o.id, '[]')) "
            "as known, max(o.id) as last from pgtrickle.outbox_stock o where o.id % 2 = 0) k, "
            "pgtrickle.relay_snapshot_plan(c.incarnation, 0, null, k.known, (select o.pgt_id from "
            "pgtrickle.outbox_stock o where o.id = k.last), 5000, 1000000000) p").fetchone()
        read, = session.execute("select idx_tup_fetch from pg_stat_xact_user_tables "
                                "where relname = 'outbox_stock'").fetchone()
    assert ids == list(range(1, 2000, 2))
    assert read < 20_000


# Killed at random ------------------------------------------------------------------------------

@pytest.mark.timeout(7200 if LONG else 300)
@pytest.mark.parametrize("kind", ["file", "pg-inbox", "nats", "kafka", "redis", "rabbitmq", "sqs",
                                  "webhook"])
def test_the_copy_equals_the_table_through_kills_of_relay_and_postgresql(own_db, kind):
    """Under writers. LONG: a million rows."""
    db, chance = own_db, random.Random(kind)
    broker = start(kind, SINKS)
    try:
        broker.fresh()
        is_slow = broker.slow_on_disk or kind == "webhook"  # its receiver is
        rows = 1_000_000 if LONG else 2_000 if is_slow else 4_000
        stock_table(db, rows)
        sink = broker.sink(**broker.large_load if LONG else {})
        set_outbox(db, "p", {"stream_table": "stock", "sink": sink, "delta_max_rows": 250, **SNAPSHOT})
        relay = Relay(db.relay_dsn).start()
        kills = 0
        with StockWriters(db, 6, keys=rows + 100, pause=0.05):
            while kills < 6 or (not LONG and kills < 12 and not is_done(db)):
                time.sleep(chance.uniform(0.2, 1.5))
                kills += 1
                if chance.random() < 0.6:
                    relay.kill9()
                    relay = Relay(db.relay_dsn).start()
                else:
                    db.server.kill9()
                    db.server.start()

            def is_copied():
                broker.drain()
                return is_done(db)
            eventually(is_copied, (1800 if LONG else 200) * SLOW_FACTOR, message=lambda: relay.log(40))

        def copy():
            return applied(json.loads(message.body) for message in broker.received())
        wait_equal(db, copy, 600 if LONG else 120, message=lambda: relay.log(40))
        assert dead_letters(db, "p") == []
        print(f"\n{kind}: {rows} rows, {kills} kills, {broker.count()} messages")
        relay.stop()
    finally:
        broker.close()
