"""Alerts: events of pipelines whose source is `alerts`, beside the notifications of their channel."""

import json

import psycopg
import pytest

from support.groups import drain, make_group, session
from support.pipelines import status_row
from support.relay import Relay, run_command
from support.stream_tables import Listener, orders, refresh
from support.stream_tables import create as create_due
from support.waiting import eventually

__all__ = ["orders"]

OUTBOX = "pgtrickle.outbox_pg_trickle_alert"


def create(db, *arguments, **options):
    """A stream table that is refreshed by hand."""
    create_due(db, *arguments, schedule=None, **options)


def to_file(path, **options):
    return {"source": {"type": "alerts"}, "sink": {"type": "file", "path": str(path)}, **options}


def set_alerts(db, path, name="alerts", **options):
    db.execute("select pgtrickle.set_relay(%s, %s::jsonb, true)",
               (name, json.dumps(to_file(path, **options))))


def delivered(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(path, event):
    return [alert for alert in delivered(path) if alert["event"] == event]


def recorded(db, columns="event_type, event_key"):
    return db.execute(f"select {columns} from {OUTBOX} order by id")


def break_query(db):
    db.execute("create or replace function picky(bigint) returns boolean language plpgsql as "
               "$$ begin raise exception 'no answer'; end $$")


def fragile(db):
    """A stream table whose query can be broken."""
    db.execute("create function picky(bigint) returns boolean language sql as 'select true'")
    create(db, "fragile", "select id from orders where picky(id)", key=["id"])


# What is sent --------------------------------------------------------------------------------

def test_the_alerts_of_a_stream_table_arrive_at_a_sink(orders, relay, tmp_path):
    create(orders, key=["region", "day"])
    fragile(orders)
    path = tmp_path / "alerts.jsonl"
    set_alerts(orders, path)
    heard = Listener(orders)
    with relay:
        orders.execute("insert into orders (region, amount) values ('asia', 1)")
        refresh(orders)
        break_query(orders)
        for _ in range(3):
            orders.execute("select pgtrickle.relay_refresh_stream_table('fragile')")
        orders.execute("select pgtrickle.alter_stream_table('fragile', resume => true)")
        eventually(lambda: named(path, "resumed"), 30)
    for event in ("refresh_completed", "refresh_failed", "auto_suspended", "resumed",
                  "reinitialize_needed"):
        assert named(path, event) == heard.alerts(event) != [], event
    assert [alert["stream_table"] for alert in named(path, "auto_suspended")] == ["public.fragile"]
    assert len(named(path, "refresh_failed")) == 3
    [done] = [alert for alert in named(path, "refresh_completed")
              if alert["stream_table"] == "public.revenue_by_region" and alert["rows_inserted"]]
    assert done["changes"]["affected_pks"] and done["data_timestamp"]
    assert {(kind, key) for kind, key in recorded(orders) if kind == "resumed"} == {
        ("resumed", "public.fragile")}


def test_alerts_are_filtered_by_event_and_by_table(orders, relay, tmp_path):
    create(orders, key=["region", "day"])
    create(orders, "other", "select id from orders", key=["id"])
    failures, others = tmp_path / "failures", tmp_path / "others"
    set_alerts(orders, failures, "failures", filter="event in ('resumed', 'auto_suspended')")
    set_alerts(orders, others, "others", filter="stream_table = 'public.other'")
    with relay:
        refresh(orders)
        refresh(orders, "other")
        orders.execute("select pgtrickle.alter_stream_table('other', suspend => true)")
        orders.execute("select pgtrickle.alter_stream_table('other', resume => true)")
        orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', suspend => true)")
        orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', resume => true)")
        eventually(lambda: len(delivered(failures)) == 2 and len(delivered(others)) == 2, 30)
    assert [alert["stream_table"] for alert in delivered(failures)] == [
        "public.other", "public.revenue_by_region"]
    assert [alert["event"] for alert in delivered(others)] == ["refresh_completed", "resumed"]


def test_an_alert_raised_while_no_relay_runs_is_delivered_later(orders, relay, tmp_path):
    create(orders, key=["region", "day"])
    path = tmp_path / "alerts.jsonl"
    set_alerts(orders, path)
    refresh(orders)
    with relay:
        eventually(lambda: len(named(path, "refresh_completed")) == 1, 30)


def test_of_two_relays_one_sends_and_the_other_takes_over(orders, relay_bin, tmp_path):
    create(orders, key=["region", "day"])
    path = tmp_path / "alerts.jsonl"
    set_alerts(orders, path)
    with Relay(orders.relay_dsn) as first, Relay(orders.relay_dsn) as second:
        refresh(orders)
        eventually(lambda: len(named(path, "refresh_completed")) == 1, 30)
        owner = status_row(orders, "alerts")["worker_id"]
        eventually(lambda: orders.one("select count(*) from pgtrickle.relay_instances_now() "
                                      "where alive") == 2, 30)
        next(one for one in (first, second)
             if one.health()[1]["instance"] == owner).kill9()
        refresh(orders)
        eventually(lambda: len(named(path, "refresh_completed")) >= 2, 30)
        refresh(orders)
        eventually(lambda: len(named(path, "refresh_completed")) >= 3, 30)
    assert len({json.dumps(alert) for alert in named(path, "refresh_completed")}) == 3


def test_a_pipeline_of_a_file_makes_the_outbox_when_it_first_runs(orders, relay_bin, tmp_path):
    create(orders, key=["region", "day"])
    path, config = tmp_path / "alerts.jsonl", tmp_path / "relay.toml"
    config.write_text(f"""[[pipeline]]
name = "watch"
source = {{ type = "alerts" }}
sink = {{ type = "file", path = "{path}" }}
""")
    looked = run_command("--postgres-url", orders.relay_dsn, "--config", str(config), "check")
    assert "makes pgtrickle.outbox_pg_trickle_alert when it first runs" in looked.stdout
    assert orders.one("select count(*) from pgtrickle_internal.alert_outbox") == 0
    with Relay(orders.relay_dsn, "--config", str(config)):
        eventually(lambda: orders.one("select count(*) from pgtrickle_internal.alert_outbox") == 1, 30)
        refresh(orders)
        eventually(lambda: len(named(path, "refresh_completed")) == 1, 30)


def test_a_group_reads_alerts_without_a_relay(orders):
    create(orders, key=["region", "day"])
    refresh(orders)
    orders.execute("select pgtrickle.create_outbox('pg_trickle_alert')")
    make_group(orders, "ops", "pg_trickle_alert")
    refresh(orders)
    with session(orders) as worker:
        assert [alert["event"] for alert in drain(worker, group="ops")] == ["refresh_completed"]


# What it must not harm ---------------------------------------------------------------------------

def test_without_a_reader_nothing_is_recorded(orders):
    create(orders, key=["region", "day"])
    refresh(orders)
    assert orders.one("select to_regclass(%s)", (OUTBOX,)) is None


def test_a_refresh_waits_for_no_lock_on_the_outbox_of_alerts_and_survives_its_loss(orders):
    create(orders, key=["region", "day"])
    orders.execute("select pgtrickle.create_outbox('pg_trickle_alert')")
    heard = Listener(orders)
    with orders.connect(autocommit=False) as other:
        other.execute(f"lock table {OUTBOX}")
        assert refresh(orders)["action"] in ("NO_DATA", "DIFFERENTIAL")
    assert recorded(orders) == []
    orders.execute(f"drop table {OUTBOX} cascade")
    assert refresh(orders)["action"] in ("NO_DATA", "DIFFERENTIAL")
    assert len(heard.alerts("refresh_completed")) == 2  # the channel has them all the same


def test_no_alert_is_of_a_publisher(orders):
    orders.execute("select pgtrickle.create_outbox('pg_trickle_alert')")
    orders.login("teller", "pgtrickle_publisher")
    with orders.connect(user="teller") as teller:
        for name in ("pg_trickle_alert", "outbox_pg_trickle_alert"):
            with pytest.raises(psycopg.errors.WrongObjectType, match="alerts"):
                teller.execute("select pgtrickle.publish(%s, '{}')", (name,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            teller.execute("select pgtrickle.relay_open_alerts()")


def test_an_outbox_of_that_name_that_is_not_ours_goes_on_as_it_was(orders, tmp_path):
    orders.execute("select pgtrickle.create_outbox('pg_trickle_alert')")
    orders.execute("delete from pgtrickle_internal.alert_outbox")  # as before the upgrade
    assert orders.one("select pgtrickle.publish('pg_trickle_alert', '{}')") == 1
    with pytest.raises(psycopg.errors.DuplicateObject, match="another one has its name"):
        set_alerts(orders, tmp_path / "x")
    orders.execute("select pgtrickle.disable_outbox('pg_trickle_alert')")
    set_alerts(orders, tmp_path / "x")


def test_a_table_of_that_name_is_not_taken_for_the_outbox(orders, tmp_path):
    orders.execute("create table pg_trickle_alert (id int primary key)")
    set_alerts(orders, tmp_path / "x")
    orders.execute("select pgtrickle.enable_outbox('pg_trickle_alert')")
    orders.execute("insert into pg_trickle_alert values (1)")
    assert recorded(orders, "payload") == []


def test_a_retention_of_alerts_is_set_with_the_pipeline(orders, tmp_path):
    set_alerts(orders, tmp_path / "x", retention_hours=5)
    assert orders.one("select retention_hours from pgtrickle_internal.outbox_config "
                      "where stream_table_name = 'pg_trickle_alert'") == 5
    with pytest.raises(psycopg.Error, match="stream_table"):
        set_alerts(orders, tmp_path / "x", stream_table="orders")


def test_an_alert_fits_into_a_notification_whatever_it_says(db):
    heard = Listener(db)
    db.execute("select pgtrickle.create_outbox('pg_trickle_alert')")
    db.execute("select pgtrickle_internal.alert('consumer_stalled', repeat('k', 30000), "
               "jsonb_build_object('name', repeat('ü', 20000), 'lag', 5))")
    [alert] = heard.alerts("consumer_stalled")
    assert alert["lag"] == 5 and len(heard.payloads[0].encode()) <= 7900
    [(whole,)] = recorded(db, "payload")
    assert len(whole["name"]) == 20000
