"""Alerts about consumers: one that stands still, and one in front of which retention deleted rows."""

import json

import pytest

from support.groups import commit, drain, make_group, poll, publish, session
from support.pipelines import insert_rows, make_table, set_outbox, to_file
from support.relay import Relay
from support.stream_tables import Listener
from support.waiting import eventually


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    return db


def keep_house(db, after="10 minutes"):
    """Whole rounds of housekeeping, until nothing is left to do."""
    with db.connect() as session_of_its_own:
        session_of_its_own.execute("select set_config('pgtrickle.stalled_after', %s, false)", (after,))
        while True:
            report = session_of_its_own.execute("select pgtrickle.relay_housekeeping(10)").fetchone()[0]
            assert report["errors"] == []
            if not report["more"]:
                return


def pass_time(db, hours=1, outbox="outbox_shop"):
    """Lets rows be published, and consumers have moved, so much earlier."""
    db.execute(f"update pgtrickle.{outbox} set created_at = created_at - %s * interval '1 hour'", (hours,))
    for table, column in (("consumer_slots", "moved_at"), ("consumer_groups", "created_at")):
        db.execute(f"update pgtrickle_internal.{table} set {column} = {column} - %s * interval '1 hour'",
                   (hours,))
    db.execute("update pgtrickle.relay_consumer_offsets set updated_at = updated_at - "
               "%s * interval '1 hour'", (hours,))


def die(db):
    pass_time(db, 24 * 8)
    db.execute("update pgtrickle_internal.consumer_slots set until = null, holder = null")
    db.execute("update pgtrickle_internal.consumer_members set alive_until = "
               "alive_until - interval '8 days'")


# Stalled -----------------------------------------------------------------------------------------

def test_a_group_that_stands_still_is_told_once_and_again_after_it_went_on(shop):
    heard = Listener(shop)
    publish(shop, 3)
    keep_house(shop)
    assert heard.alerts() == []
    pass_time(shop)
    for _ in range(3):
        keep_house(shop)
    [alert] = heard.alerts()
    assert (alert["event"], alert["name"], alert["kind"], alert["outbox"], alert["lag"]) == (
        "consumer_stalled", "g", "group", "outbox_shop", 3)
    assert alert["since"] < shop.one("select to_json(clock_timestamp() - interval '59 minutes')")
    with session(shop) as worker:
        commit(worker, poll(worker, batch=1)[-1]["outbox_id"])
        keep_house(shop)
        assert len(heard.alerts()) == 1
        pass_time(shop)
        keep_house(shop)
        assert [alert["lag"] for alert in heard.alerts()] == [3, 2]


def test_a_consumer_without_work_has_not_stalled(shop):
    heard = Listener(shop)
    publish(shop, 3)
    with session(shop) as worker:
        drain(worker)
    with shop.connect(autocommit=False) as connection:
        connection.execute("select pgtrickle.publish('shop', '0')")
        connection.rollback()
    pass_time(shop, 24)
    keep_house(shop)
    assert heard.alerts() == []
    # What has just come has not waited for long, however long it was quiet before.
    publish(shop, 1)
    keep_house(shop)
    assert heard.alerts() == []


def test_one_slot_that_stands_still_is_enough(shop):
    make_group(shop, "wide", slots=4)
    heard = Listener(shop)
    with session(shop) as worker:
        publish(shop, 40)
        drain(worker)
        drain(worker, group="wide")
        keys = shop.execute("select k, hashtextextended(k::text collate \"C\", 0) & 3 from "
                            "generate_series(1, 40) k")
        key = next(k for k, slot in keys if slot == 2)
        publish(shop, 1, key=str(key))
        drain(worker)
    shop.execute("update pgtrickle_internal.consumer_slots s set position = position + 1 from "
                 "pgtrickle_internal.consumer_groups g where g.group_number = s.group_number and "
                 "g.name = 'wide' and s.slot <> 2")
    pass_time(shop)
    keep_house(shop)
    assert [(alert["name"], alert["lag"]) for alert in heard.alerts()] == [("wide", 1)]


def test_a_row_that_is_rejected_or_skipped_is_no_work(shop):
    heard = Listener(shop)
    publish(shop, 2)
    make_group(shop, "late", auto_offset_reset="latest")
    with session(shop) as worker:
        last = poll(worker)[-1]["outbox_id"]
        worker.execute("select pgtrickle.reject_offset('g', 'a', 1, 'no')")
        worker.execute("select pgtrickle.reject_offset('g', 'a', 2, 'no')")
        assert last == 2
    pass_time(shop)
    keep_house(shop)
    assert heard.alerts() == []


def test_a_feed_is_called_a_feed(db):
    make_table(db)
    db.execute("select pgtrickle.create_change_feed('orders')")
    heard = Listener(db)
    insert_rows(db, "orders", 1)
    pass_time(db, outbox="outbox_orders")
    keep_house(db)
    [alert] = heard.alerts()
    [kind] = db.execute("select kind, name from pgtrickle.consumers")
    assert ("consumer_stalled", alert["kind"], alert["name"]) == (alert["event"], *kind)
    assert alert["kind"] == "feed"


def test_the_relay_tells_of_a_pipeline_whose_sink_is_gone(db, relay_bin, tmp_path):
    make_table(db)
    path = tmp_path / "orders"
    set_outbox(db, "p", to_file("orders", path))
    db.execute("select pgtrickle.set_relay('alerts', %s::jsonb, true)", (json.dumps({
        "source": {"type": "alerts"}, "sink": {"type": "file", "path": str(tmp_path / "alerts")},
        "filter": "event = 'consumer_stalled' and name = 'p'"}),))

    def told():
        alerts = tmp_path / "alerts"
        return [json.loads(line) for line in alerts.read_text().splitlines()] if alerts.exists() else []
    with Relay(db.relay_dsn, "--stalled-after", "2s"):
        insert_rows(db, "orders", 1)
        eventually(lambda: path.exists() and path.read_text().count("\n") == 1, 30)
        path.unlink()
        path.mkdir()  # no file can be written there
        db.execute("select pgtrickle.pause_relay('p')")
        db.execute("select pgtrickle.resume_relay('p')")
        insert_rows(db, "orders", 2, 2)
        eventually(lambda: len(told()) == 1, 60)
    [alert] = told()
    assert (alert["kind"], alert["relay_group"], alert["outbox"]) == (
        "pipeline", "default", "outbox_orders")


def test_a_disabled_pipeline_and_a_former_one_have_not_stalled(db, relay, tmp_path):
    make_table(db)
    make_table(db, "parcels")
    set_outbox(db, "p", to_file("orders", tmp_path / "p"))
    set_outbox(db, "q", to_file("orders", tmp_path / "q"))
    with relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: db.one("select count(*) from pgtrickle.relay_consumer_offsets "
                                  "where last_change_id = 1") == 2, 30)
    heard = Listener(db)
    insert_rows(db, "orders", 2)
    db.execute("select pgtrickle.disable_relay('p')")
    set_outbox(db, "q", to_file("parcels", tmp_path / "q"))
    pass_time(db, outbox="outbox_orders")
    keep_house(db)
    assert heard.alerts() == []
    db.execute("select pgtrickle.enable_relay('p')")
    keep_house(db)
    assert [(alert["name"], alert["lag"]) for alert in heard.alerts()] == [("p", 1)]


def test_an_outbox_whose_table_is_gone_or_locked_keeps_no_other_from_being_told(shop):
    shop.execute("select pgtrickle.create_outbox('gone'), pgtrickle.create_outbox('locked')")
    make_group(shop, "a", "gone")
    make_group(shop, "b", "locked")
    for outbox in ("gone", "locked", "shop"):
        publish(shop, 1, outbox=outbox)
    heard = Listener(shop)
    pass_time(shop)
    shop.execute("drop table pgtrickle.outbox_gone cascade")
    with shop.connect(autocommit=False) as other:
        other.execute("lock table pgtrickle.outbox_locked")
        with shop.connect() as keeper:
            keeper.execute("set lock_timeout = '500ms'")  # as housekeeping has it
            keeper.execute("select pgtrickle_internal.note_stalled('10 minutes')")
            keeper.execute("select pgtrickle_internal.tell_of_consumers('{\"more\": false, \"errors\": []}')")
    assert [alert["name"] for alert in heard.alerts()] == ["g"]


def test_a_threshold_that_is_none_is_not_taken_and_stops_nothing(shop):
    heard = Listener(shop)
    publish(shop, 1)
    pass_time(shop)
    keep_house(shop, "soon")
    assert len(heard.alerts()) == 1


# Lost rows ---------------------------------------------------------------------------------------

def test_rows_deleted_in_front_of_a_dead_group_are_told_once_and_counted(shop):
    heard = Listener(shop)
    publish(shop, 35)
    die(shop)
    keep_house(shop)  # four batches
    lost = heard.alerts("consumer_lost_rows")
    assert [(alert["name"], alert["kind"], alert["outbox"], alert["lost_rows"]) for alert in lost] == [
        ("g", "group", "outbox_shop", 35)]
    # More of the same is not told again; what comes after the group has gone on is.
    publish(shop, 5)
    die(shop)
    keep_house(shop)
    assert len(heard.alerts("consumer_lost_rows")) == 1
    publish(shop, 2)
    with session(shop) as worker:
        drain(worker)
    keep_house(shop)
    publish(shop, 3)
    die(shop)
    keep_house(shop)
    assert [alert["lost_rows"] for alert in heard.alerts("consumer_lost_rows")] == [35, 3]


def test_rows_deleted_in_front_of_a_pipeline_are_told(db, relay, tmp_path):
    make_table(db)
    set_outbox(db, "p", to_file("orders", tmp_path / "p", max_hold_hours=1))
    with relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: db.one("select last_change_id from pgtrickle.relay_consumer_offsets") == 1, 30)
    heard = Listener(db)
    insert_rows(db, "orders", 2, 4)
    pass_time(db, 30, "outbox_orders")
    keep_house(db)
    [alert] = heard.alerts("consumer_lost_rows")
    assert (alert["name"], alert["kind"], alert["relay_group"], alert["lost_rows"]) == (
        "p", "pipeline", "default", 4)


def test_what_was_told_of_a_consumer_goes_with_it(shop):
    publish(shop, 5)
    die(shop)
    keep_house(shop)
    assert shop.one("select count(*) from pgtrickle_internal.consumer_episodes") > 0
    shop.execute("select pgtrickle.drop_consumer_group('g')")
    keep_house(shop)
    assert shop.one("select count(*) from pgtrickle_internal.consumer_episodes") == 0
