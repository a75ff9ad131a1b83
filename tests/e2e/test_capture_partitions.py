"""Capture on partitioned tables."""

import psycopg
import pytest

from support.replay import Replay, events


def test_a_merge_that_inserts_before_it_updates_is_recorded_as_it_was(db):
    if db.server.version < 15:
        return  # no MERGE
    db.execute("create table stock (id int primary key, n int) partition by range (id)")
    db.execute("create table stock_1 partition of stock default")
    db.execute("select pgtrickle.enable_outbox('stock')")
    stock = Replay(db, "stock")
    db.execute("insert into stock values (2, 0), (4, 0)")
    db.execute("merge into stock t using generate_series(1, 5) s (id) on t.id = s.id"
               " when matched then update set n = t.n + 1"
               " when not matched then insert values (s.id, 9)")
    stock.check()


def test_statements_on_the_parent_are_recorded_once_for_all_partitions(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("update events set body = 'y' where part % 2 = 0")
    db.execute("delete from events where part % 5 = 0")
    assert [row[1:4] for row in events.entries()] == [
        ("INSERT", 40, 0), ("UPDATE", 20, 20), ("DELETE", 0, 8)]
    events.check()


def test_rows_that_move_between_partitions_are_updates(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("update events set part = (part + 13) % 40")
    assert events.ops() == ["INSERT", "UPDATE"]
    db.execute("insert into events values (3, 16, 'z') on conflict (id, part) "
               "do update set body = excluded.body")
    events.check()


def test_statements_on_a_partition_are_recorded(db, events):
    db.execute("insert into events_1 values (1, 1, 'x'), (2, 2, 'x')")
    db.execute("insert into events_2 (id, part, body) values (3, 12, 'x')")
    db.execute("insert into events_3 values (4, 22, 'x'), (5, 33, 'x')")
    db.execute("update events_3 set part = part + 5 where id = 4")
    db.execute("update events_3a set body = 'leaf'")
    db.execute("delete from events_1 where id = 1")
    with db.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("copy events_3b from stdin") as copy:
            copy.write_row((9, 39, "copied"))
    assert len(events.entries()) == 7
    events.check()


def test_truncating_one_partition_deletes_its_rows(db, events):
    db.execute("insert into events select n, n, 'x' from generate_series(0, 39) n")
    db.execute("truncate events_2")
    db.execute("truncate events_3")
    assert [row[3] for row in events.entries()] == [0, 10, 10, 10]
    events.check()
    db.execute("truncate events")
    assert events.entries()[-1][5]["full_refresh"] and len(events.entries()) == 5
    db.execute("insert into events values (1, 1, 'again')")
    db.execute("truncate events_1")
    events.check()


def test_a_new_partition_is_recorded_from_its_first_row(db, events):
    db.execute("create table events_4 partition of events for values from (40) to (50)")
    db.execute("insert into events_4 values (1, 41, 'direct'), (2, 42, 'direct')")
    db.execute("insert into events values (3, 43, 'by the parent'), (4, 4, 'by the parent')")
    db.execute("update events set part = 44 where id = 4")
    events.check()
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0
    before = len(events.entries())
    db.execute("insert into events_4 values (5, 45, 'direct'), (6, 46, 'direct')")
    assert len(events.entries()) == before + 1
    db.execute("truncate events_4")
    events.check()


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_attached_detached_and_dropped_partitions_are_followed(db, capture):
    db.execute("create table events (id int, part int) partition by range (part)")
    db.execute("create table events_1 partition of events for values from (0) to (10)")
    db.execute("select pgtrickle.enable_outbox('events', capture => %s)", (capture,))
    events = Replay(db, "events")
    upkeep = "select pgtrickle.outbox_capture_upkeep()"
    db.execute("insert into events select n, n % 10 from generate_series(1, 30) n")
    db.execute("create table events_2 (id int, part int)")
    db.execute("insert into events_2 select n, 10 + n % 10 from generate_series(1, 30) n")
    db.execute("alter table events attach partition events_2 for values from (10) to (20)")
    db.execute("delete from events where part = 12")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    db.execute("insert into events_2 values (99, 19)")
    db.execute("alter table events detach partition events_1")
    db.execute("update events_1 set id = -1")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    assert db.one("select count(*) from pg_trigger where tgrelid = 'events_1'::regclass") == 0
    db.execute("alter table events attach partition events_1 for values from (0) to (10)")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    db.execute("drop table events_2")
    assert db.one(upkeep) == 1
    events.check(strict=False)
    assert db.one(upkeep) == 0
    assert events.config("problem") is None


def test_an_outbox_on_one_partition_records_what_reaches_it(db):
    db.execute("create table events (id int, part int) partition by range (part)")
    db.execute("create table events_1 partition of events for values from (0) to (10)")
    db.execute("create table events_2 partition of events for values from (10) to (20)")
    db.execute("select pgtrickle.enable_outbox('events_1')")
    db.execute("insert into events select n, n from generate_series(0, 19) n")
    db.execute("update events set part = part - 5 where part >= 5")
    db.execute("insert into events_1 values (50, 5)")
    one = Replay(db, "events_1")
    assert one.config("capture") == "row"
    one.check()
    db.execute("select pgtrickle.enable_outbox('events')")
    db.execute("select pgtrickle.outbox_full_refresh('events')")
    db.execute("delete from events where id = 3")
    db.execute("truncate events")
    one.check()
    Replay(db, "events").check()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is a partition"):
        db.execute("select pgtrickle.enable_outbox('events_2', capture => 'statement')")
