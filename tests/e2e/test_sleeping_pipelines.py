"""A pipeline that has nothing to do ends its threads and connections, and nothing is lost on it."""

import time

import pytest

from support.adopted_outbox import EVENTS, adopt, pipe, write
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, to_file,
                               to_nats)
from support.waiting import eventually, holds_for


def asleep(relay, *pipelines):
    """Idle, with the connections given up; their last attempts succeeded."""
    metrics, health = relay.metrics(), relay.health()[1]
    idle = {entry["name"] for entry in health["pipelines"]
            if entry["state"] == "idle" and entry.get("asleep")}
    return all(name in idle
               and metrics.value("pgtrickle_relay_source_connected", pipeline=name) == 1
               for name in pipelines)


def fall_asleep(relay, *pipelines):
    eventually(lambda: asleep(relay, *pipelines), 15 * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{relay.health()}\n{relay.log(30)}")


def owner_tokens(db):
    """{pipeline: owner_token}: a new one each time that a pipeline's source was opened."""
    return dict(db.execute("select pipeline_id, owner_token from pgtrickle.relay_consumer_offsets"))


@pytest.fixture
def lines(db, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    return lines


def test_a_row_wakes_a_sleeping_pipeline(db, lines, relay):
    with relay:
        fall_asleep(relay, "rows")
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])


def test_a_writer_that_takes_its_time_finds_the_pipeline_awake_when_it_commits(db, lines, relay):
    # The sequence moves when the id is drawn, and never again: that one wake-up must be enough.
    with relay:
        fall_asleep(relay, "rows")
        with db.connect(autocommit=False) as late:
            late.execute("insert into orders values (1, 'late', 1)")
            holds_for(lambda: lines.rows() == [], 3.5, interval=0.1)
            late.commit()
        lines.wait_rows([1], deadline=5)


def test_a_writer_that_rolls_back_lets_the_pipeline_sleep_again(db, lines, relay):
    with relay:
        fall_asleep(relay, "rows")
        with db.connect(autocommit=False) as late:
            late.execute("insert into orders values (1, 'never', 1)")
            eventually(lambda: not asleep(relay, "rows"))
            late.rollback()
        fall_asleep(relay, "rows")
        insert_rows(db, "orders", 2)
        lines.wait_rows([2])


def test_an_outbox_made_anew_while_its_pipeline_sleeps_is_read_from_its_beginning(
        db, lines, relay):
    with relay:
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        relay.restart()  # with nothing to do it sleeps at once
        fall_asleep(relay, "rows")
        db.execute("select pgtrickle.disable_outbox('orders')")
        db.execute("select pgtrickle.enable_outbox('orders')")
        insert_rows(db, "orders", 4)
        lines.wait_rows([1, 2, 3, 4], deadline=40)  # looked at again within 30 s


def test_a_dropped_outbox_of_a_sleeping_pipeline_is_reported(db, lines, relay):
    with relay:
        fall_asleep(relay, "rows")
        db.execute("select pgtrickle.disable_outbox('orders')")
        entry = relay.wait_state("rows", "misconfigured")
        assert "orders" in str(entry["last_error"])
        assert relay.health()[1]["status"] == "degraded"


def test_a_locked_outbox_delays_no_other(db, lines, relay, tmp_path):
    make_table(db, "locked")
    others = Lines(tmp_path / "locked.jsonl")
    set_outbox(db, "locked", to_file("locked", others.path))
    with relay:
        fall_asleep(relay, "rows", "locked")
        with db.connect(autocommit=False) as dropping:
            dropping.execute("select pgtrickle.disable_outbox('locked')")
            for identity in range(1, 6):
                insert_rows(db, "orders", identity)
                lines.wait_rows(range(1, identity + 1), deadline=1)
            dropping.rollback()
        insert_rows(db, "locked", 1)
        others.wait_rows([1])


@pytest.mark.parametrize("change", ["alter sequence app.events_id_seq start with 7",
                                    "alter sequence app.events_id_seq restart with 1000"])
def test_an_altered_sequence_of_an_adopted_table_delays_no_sleeping_pipeline(
        db, lines, relay, tmp_path, change):
    db.execute(EVENTS)
    adopt(db)
    events = pipe(db, tmp_path / "events.jsonl")
    with relay:
        fall_asleep(relay, "rows", "events")
        with db.connect(autocommit=False) as altering:
            altering.execute(change)
            for identity in range(1, 4):
                insert_rows(db, "orders", identity)
                lines.wait_rows(range(1, identity + 1), deadline=2)
            altering.rollback()
        write(db)
        events.wait_ids([1], 20)


def test_a_replay_wakes_a_sleeping_pipeline(db, lines, relay):
    with relay:
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        relay.restart()
        fall_asleep(relay, "rows")
        db.execute("select pgtrickle.replay_relay('rows', 2, 3)")
        eventually(lambda: lines.rows() == [1, 2, 3, 2, 3])
        eventually(lambda: db.one("select finished_at is not null from pgtrickle.relay_replays"))


def test_what_is_asked_of_one_pipeline_wakes_no_other(db, tmp_path, relay):
    names = [f"p{number}" for number in range(20)]
    for number, name in enumerate(names):
        make_table(db, f"t{number}")
        set_outbox(db, name, to_file(f"t{number}", tmp_path / f"{name}.jsonl"))
    with relay:
        relay.wait_healthy(pipelines=20)
        fall_asleep(relay, *names)
        before = owner_tokens(db)
        db.execute("select pgtrickle.pause_relay('p0')")
        relay.wait_state("p0", "paused")
        db.execute("select pgtrickle.resume_relay('p0')")
        db.execute("select pgtrickle.disable_relay('p1')")
        db.execute("select pgtrickle.enable_relay('p1')")
        set_outbox(db, "misconfigured", {"stream_table": "t2", "sink": {
            "type": "file", "path": str(tmp_path / "x"), "compress_rotated": True}})
        relay.wait_state("misconfigured", "misconfigured")
        insert_rows(db, "t3", 1)
        Lines(tmp_path / "p3.jsonl").wait_rows([1])
        holds_for(lambda: all(owner_tokens(db)[name] == before[name] for name in names[4:]), 3,
                  interval=0.2)


def test_a_relay_whose_sweep_lost_its_session_still_wakes_sleeping_pipelines(db, lines, relay):
    with relay:
        fall_asleep(relay, "rows")
        for turn in range(1, 6):
            db.execute("select pg_terminate_backend(pid) from pg_stat_activity"
                       " where application_name = 'pgtrickle-relay sweep'"
                       " and datname = current_database()")
            insert_rows(db, "orders", turn)
            lines.wait_rows(range(1, turn + 1))


def test_a_pipeline_that_must_be_resumed_waits_for_that_and_for_nothing_else(
        db, nats, relay):
    make_table(db)
    with nats.client() as client:
        client.create_stream("s", "relay.>", max_msg_size=2000)
        set_outbox(db, "stops", to_nats("orders", nats, "relay.rows", on_reject="stop"))
        set_outbox(db, "other", to_nats("orders", nats, "relay.other", on_reject="skip"))
        with relay:
            insert_rows(db, "orders", 1)
            db.execute("insert into orders values (2, repeat('x', 5000), 2)")
            insert_rows(db, "orders", 3)
            relay.wait_state("stops", "stopped")
            errors = relay.metric("delivery_errors_total", pipeline="stops")
            db.execute("select pgtrickle.pause_relay('other')")
            relay.wait_state("other", "paused")
            db.execute("select pgtrickle.resume_relay('other')")
            begin = time.monotonic()
            holds_for(lambda: relay.metric("delivery_errors_total", pipeline="stops") == errors, 2,
                      interval=0.1)
            assert time.monotonic() - begin > 1
            client.update_stream("s", max_msg_size=-1)
            db.execute("select pgtrickle.resume_relay('stops')")
            eventually(lambda: [m.json["sequence"] for m in client.messages("s", "relay.rows")]
                       == [1, 2, 3])
