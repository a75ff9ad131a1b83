"""Pipelines into inboxes, in each form that they can be written in, from start to end."""

import json
import pathlib
import re

import pytest

from support.inboxes import count, wait_count
from support.pipelines import SLOW_FACTOR, insert_rows, make_table, status_row
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for

SEEDS = pathlib.Path(__file__).parent.parent / "seeds"


@pytest.fixture
def there(there):
    """Another database with the relay's schema: where messages come from."""
    make_table(there)
    return there


def source(there, **over):
    return {"type": "pg-outbox", "url": there.relay_dsn, "outbox": "orders",
            "poll_interval": "20ms", **over}


def set_inbox(db, config, name="in", enable=True):
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => %s)",
               (name, json.dumps(config), enable))


# Forms ------------------------------------------------------------------------------------------


def test_the_flat_form(db, there, relay):
    set_inbox(db, {"source_type": "pg-outbox", "pg_outbox_url": there.relay_dsn,
                   "pg_outbox_outbox": "orders", "inbox_table": "orders_inbox"}, enable=False)
    with relay:
        insert_rows(there, "orders", 1)
        holds_for(lambda: count(db, "pgtrickle.orders_inbox") == 0, 0.5)
        db.execute("select pgtrickle.enable_relay('in')")
        wait_count(db, 1, relay, "pgtrickle.orders_inbox")
    assert db.execute("select name, direction, enabled from pgtrickle.list_relay_configs()") == [
        ("in", "reverse", True)]


def test_the_typed_form_gives_the_inbox_its_settings(db, there, relay):
    db.execute("select pgtrickle.set_relay_inbox('in', 'shop', %s::jsonb, max_retries => 5, "
               "schedule => '2s', with_dead_letter => false, retention_hours => 24, "
               "enabled => true)", (json.dumps(source(there)),))
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
    assert db.execute("select max_retries, schedule, with_dead_letter, retention_hours "
                      "from pgtrickle.pgt_inbox_config") == [(5, "2s", False, 24)]


def test_the_toml_form(db, there, relay_bin, tmp_path):
    (tmp_path / "relay.toml").write_text(f"""
[global]
postgres_url = "{db.relay_dsn}"

[[pipeline]]
name = "in"
message = "row"
source = {{ type = "pg-outbox", url = "${{THERE}}", outbox = "orders", poll_interval = "20ms" }}
sink = {{ type = "inbox", inbox_name = "shop" }}
""")
    with Relay(None, "--config", tmp_path / "relay.toml", env={"THERE": there.relay_dsn}) as relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        entry = relay.pipeline("in")
        assert entry["state"] in ("idle", "running")


def test_a_pipeline_that_names_only_its_inbox_is_a_reverse_one(db, there, relay):
    set_inbox(db, {"source": source(there), "inbox_name": "shop"})
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)


# The documents' example -------------------------------------------------------------------------


def test_a_stream_table_over_an_inbox_is_made_as_shown_and_kept_up_to_date(db, there, relay):
    there.execute("select pgtrickle.create_outbox('payments')")
    db.execute((SEEDS / "000/inbox.sql").read_text())
    set_inbox(db, {"source": source(there, outbox="payments"),
                   "sink": {"type": "inbox", "inbox_name": "payment_events"}})

    def pay(customer, amount):
        there.execute("select pgtrickle.publish('payments', %s::jsonb, 'paid', %s)",
                      (json.dumps({"customer_id": customer, "amount": amount}), customer))

    def summary():
        return db.execute("select customer_id, total_paid::float, payment_count "
                          "from payment_summary order by 1")
    with relay:
        pay("ann", 10)
        pay("bob", 5.5)
        pay("ann", 2.25)
        eventually(lambda: summary() == [("ann", 12.25, 2), ("bob", 5.5, 1)], 30 * SLOW_FACTOR,
                   message=lambda: (summary(), relay.log(30)))
        identity = db.one("select event_id from pgtrickle.inbox_payment_events "
                          "where payload ->> 'customer_id' = 'bob'")
        db.execute("select pgtrickle.inbox_mark_processed('payment_events', %s)", (identity,))
        eventually(lambda: summary() == [("ann", 12.25, 2)], 30 * SLOW_FACTOR, message=summary)


# Steering ---------------------------------------------------------------------------------------


def test_a_changed_pipeline_takes_effect_within_a_second_or_so(db, there, relay):
    set_inbox(db, {"source": source(there), "sink": {"type": "inbox", "inbox_name": "shop"}})
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        set_inbox(db, {"source": source(there), "sink": {"type": "inbox", "inbox_name": "next"}})
        eventually(lambda: "pipeline_changed" in relay.log(), 10)
        insert_rows(there, "orders", 10, 3)
        wait_count(db, 3, relay, "pgtrickle.inbox_next")
        assert count(db) == 1
        db.execute("select pgtrickle.disable_relay('in')")
        eventually(lambda: not relay.lists("in"), 10)
        before = count(db, "pgtrickle.inbox_next")
        insert_rows(there, "orders", 20)
        holds_for(lambda: count(db, "pgtrickle.inbox_next") == before, 0.7)
        db.execute("select pgtrickle.enable_relay('in')")
        wait_count(db, before + 1, relay, "pgtrickle.inbox_next")


def test_pause_and_resume(db, there, relay):
    set_inbox(db, {"source": source(there), "sink": {"type": "inbox", "inbox_name": "shop"}})
    with relay:
        insert_rows(there, "orders", 1)
        wait_count(db, 1, relay)
        db.execute("select pgtrickle.pause_relay('in')")
        relay.wait_state("in", "paused")
        insert_rows(there, "orders", 2)
        holds_for(lambda: count(db) == 1, 0.7)
        db.execute("select pgtrickle.resume_relay('in')")
        wait_count(db, 2, relay)


def test_one_instance_owns_it_and_another_takes_over(db, there, relay_bin):
    set_inbox(db, {"source": source(there), "sink": {"type": "inbox", "inbox_name": "shop"}})
    first, second = Relay(db.relay_dsn), Relay(db.relay_dsn)
    with first, second:
        eventually(lambda: sorted(r.health()[1]["pipelines_owned"] for r in (first, second))
                   == [0, 1], 20)
        insert_rows(there, "orders", 1, 50)
        wait_count(db, 50, first)
        owner = first if first.health()[1]["pipelines_owned"] else second
        other = second if owner is first else first
        owner.kill9()
        insert_rows(there, "orders", 51, 50)
        wait_count(db, 100, other)
        assert other.health()[1]["pipelines_owned"] == 1
    assert count(db) == 100


def test_health_metrics_and_status_show_it(db, there, relay):
    set_inbox(db, {"source": source(there), "sink": {"type": "inbox", "inbox_name": "shop"}})
    with relay:
        insert_rows(there, "orders", 1, 5)
        wait_count(db, 5, relay)
        entry = eventually(lambda: relay.wait_healthy(pipelines=1)["pipelines"][0])
        assert entry["name"] == "in" and entry["state"] in ("idle", "running")
        eventually(lambda: relay.metric("messages_delivered_total", pipeline="in") == 5)
        relay.wait_metric("messages_received_total", 5, pipeline="in")
        assert relay.metric("delivery_errors_total", pipeline="in") == 0
        relay.wait_metric("source_connected", 1, pipeline="in")
        relay.wait_metric("sink_connected", 1, pipeline="in")
        eventually(lambda: relay.metric("consumer_lag", pipeline="in") == 0)
        eventually(lambda: (status_row(db, "in") or {}).get("state") in ("idle", "running"))
        done = run_command("status", "--postgres-url", db.relay_dsn)
        assert done.returncode == 0 and re.search(r"\bin\b", done.stdout)


def test_a_reverse_pipeline_that_cannot_run_leaves_a_forward_one_alone(db, there, relay, tmp_path):
    make_table(db)
    db.execute("select pgtrickle.set_relay_outbox('out', config => %s::jsonb, enabled => true)",
               (json.dumps({"stream_table": "orders",
                            "sink": {"type": "file", "path": str(tmp_path / "out")}}),))
    set_inbox(db, {"source": source(there, outbox="nowhere"),
                   "sink": {"type": "inbox", "inbox_name": "shop"}})
    with relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text(), 20)
        relay.wait_state("in", "misconfigured")
        assert relay.health()[0] == 200 and relay.health()[1]["status"] == "degraded"
        eventually(lambda: "nowhere" in str(status_row(db, "in")["last_error"]), 20)


# There and back ---------------------------------------------------------------------------------


def test_a_round_trip_with_a_kill_of_everything(own_pg_server, own_db, pg_server, relay_bin):
    """own_db's outbox to an inbox in `there`, by a relay of own_db; and `there`'s outbox on that
    inbox back into own_db, by a relay of its own that pulls."""
    there = pg_server.create_database()
    try:
        make_table(own_db)
        own_db.execute("select pgtrickle.set_relay_outbox('out', config => %s::jsonb, "
                       "enabled => true)",
                       (json.dumps({"stream_table": "orders", "message": "row", "sink": {
                           "type": "inbox", "url": there.relay_dsn, "inbox_name": "shop"}}),))
        there.execute("select pgtrickle.create_inbox('shop')")
        there.execute("select pgtrickle.enable_outbox('pgtrickle.inbox_shop')")
        set_inbox(own_db, {"source": source(there, outbox="pgtrickle.inbox_shop"),
                           "sink": {"type": "inbox", "inbox_name": "back"}, "message": "row",
                           "retry": {"max": "1s"}})
        total = 0
        with Relay(own_db.relay_dsn) as relay:
            for fault in (relay.kill9, lambda: own_pg_server.restart("immediate"), relay.kill9,
                          lambda: own_pg_server.restart("kill9")):
                own_db.execute("insert into orders select i, 'r', i from generate_series("
                               "%s::bigint, %s::bigint) i", (total + 1, total + 5000))
                total += 5000
                fault()
                if not relay.running:
                    relay.start()
            wait_count(own_db, total, relay, "pgtrickle.inbox_back", deadline=120)
            assert count(there) == total
        assert own_db.one("select count(distinct payload #>> '{new,payload,new,id}') "
                          "from pgtrickle.inbox_back") == total
        assert own_db.one("select count(*) from pgtrickle.relay_dlq") == 0
    finally:
        there.drop()
