"""Retention and consumer groups: what a living group needs stays; a dead one lets go, and it is said."""

import psycopg
import pytest

from support.groups import commit, drain, expire, make_group, payloads, poll, publish, session


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    return db


def age(db):
    """Makes all rows older than retention keeps them."""
    db.execute("update pgtrickle.outbox_shop set created_at = created_at - interval '2 days' "
               "where created_at > clock_timestamp() - interval '1 day'")


def die(db, days=8):
    """Lets the consumers of all groups have been silent for so long."""
    for change in ("consumer_groups set created_at = created_at", "consumer_slots set until = null, "
                   "holder = null, moved_at = moved_at", "consumer_members set alive_until = alive_until"):
        db.execute(f"update pgtrickle_internal.{change} - %s * interval '1 day'", (days,))


def clean(db):
    lost = []
    for _ in range(10):
        report = db.one("select pgtrickle.relay_housekeeping()")
        assert report["errors"] == []
        lost += report["lost"]
    return lost


def left(db):
    return [row[0] for row in db.execute("select payload from pgtrickle.outbox_shop order by id")]


def lost_rows(db, name="g"):
    return [row[0] for row in db.execute("select lost_rows from pgtrickle.consumers where name = %s "
                                         "order by slot", (name,))]


def test_retention_never_passes_a_living_group(shop):
    publish(shop, 6)
    with session(shop) as worker:
        commit(worker, poll(worker, batch=2)[-1]["outbox_id"])
        age(shop)
        assert clean(shop) == [] and left(shop) == [3, 4, 5, 6]
        poll(worker)
        die(shop, days=6)
        assert clean(shop) == [] and left(shop) == [3, 4, 5, 6]
        assert drain(worker) == [3, 4, 5, 6]
    age(shop)
    assert clean(shop) == [] and left(shop) == []
    assert lost_rows(shop) == [0]


def test_the_slot_that_is_behind_holds_the_rows(shop):
    make_group(shop, "many", slots=4)
    with session(shop) as worker:
        drain(worker)
        publish(shop, 20)
        drain(worker)
        age(shop)
        assert clean(shop) == [] and len(left(shop)) == 20
        drain(worker, group="many")
    assert clean(shop) == [] and left(shop) == []


def test_a_group_that_no_consumer_uses_lets_go_after_its_time_and_says_what_it_lost(shop):
    make_group(shop, "many", slots=4)
    for n in range(1, 9):
        publish(shop, 1, key=str(n), first=n)
    with session(shop) as worker:
        commit(worker, poll(worker, batch=3)[-1]["outbox_id"])
    age(shop)
    warnings = shop.one("select pgtrickle.relay_housekeeping()")["warnings"]
    assert warnings == [] and len(left(shop)) == 8
    die(shop)
    assert clean(shop) and left(shop) == []
    assert lost_rows(shop) == [5] and sum(lost_rows(shop, "many")) == 8
    publish(shop, 1, first=9)
    with session(shop) as worker:
        assert drain(worker) == drain(worker, group="many") == [9]


def test_a_heartbeat_keeps_the_rows_of_a_group(shop):
    publish(shop, 2)
    age(shop)
    die(shop)
    with session(shop) as worker:
        worker.execute("select pgtrickle.consumer_heartbeat('g', 'a')")
        assert clean(shop) == [] and left(shop) == [1, 2]


def test_what_is_in_the_way_of_retention_is_shown(shop):
    publish(shop, 1)
    age(shop)
    [holder] = shop.one("select pgtrickle.outbox_status('shop')")["held_by"]
    assert holder["pipeline"] == "g" and "consumer group" in holder["why"]


def test_a_group_cannot_be_set_back_to_rows_that_are_gone(shop):
    publish(shop, 3)
    with session(shop) as worker:
        drain(worker)
        age(shop)
        clean(shop)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no offset 0") as refused:
            worker.execute("select pgtrickle.seek_offset('g', 'a', 0)")
        assert "from 3" in refused.value.diag.message_hint
        expire(shop)
        publish(shop, 1, first=4)
        assert payloads(poll(worker)) == [4]


def test_a_group_survives_a_crash_of_the_server(own_db, own_pg_server):
    """What polls noted for each other is gone then, and taken anew."""
    own_db.execute("select pgtrickle.create_outbox('shop')")
    make_group(own_db)
    with session(own_db) as worker:
        publish(own_db, 3)
        with own_db.connect(autocommit=False) as undone:
            undone.execute("select pgtrickle.publish('shop', '0')")
            undone.rollback()
        assert drain(worker) == [1, 2, 3]
        publish(own_db, 2, first=4)
        assert payloads(poll(worker)) == [4, 5]
    with own_db.connect() as slow:
        slow.execute("begin")
        slow.execute("select pgtrickle.publish('shop', '6')")
        slow.execute("prepare transaction 'over a crash'")
    own_pg_server.kill9()
    own_pg_server.start()
    publish(own_db, 1, first=7)
    with session(own_db) as worker:
        assert drain(worker) == [4, 5]
        own_db.execute("commit prepared 'over a crash'")
        assert drain(worker) == [6, 7]
