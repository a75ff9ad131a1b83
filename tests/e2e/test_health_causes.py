"""What makes a relay degraded beside its pipelines' own errors: named with cause and remedy, once."""

import psycopg

from support.http_server import HttpServer
from support.pipelines import (SLOW_FACTOR, insert_rows, make_table, set_outbox, status_row,
                               to_file, wait_settled)
from support.waiting import eventually, holds_for

WAIT = 30 * SLOW_FACTOR


def causes(relay):
    """{(pipeline or "", code): cause} of /health; each with a message and a remedy."""
    body = relay.health()[1]
    found = {("", each["code"]): each for each in body.get("causes", [])}
    for entry in body["pipelines"]:
        for each in entry.get("causes", []):
            found[entry["name"], each["code"]] = each
    assert all(each["message"] and each["remedy"] and each["since"] for each in found.values())
    return found


def housekeeping(db):
    """What a relay does every few seconds, now: it finds out what is wrong with outboxes."""
    db.execute("select pgtrickle.relay_housekeeping()")
    return True


def lines_about(relay, event, subject, text=""):
    label = f"[{subject}] {event}: " if subject else f" {event}: "
    return [line for line in relay.log_lines if label in line and text in line]


def test_each_cause_is_named_once_with_its_remedy_and_its_end_once(db, start_relay, tmp_path):
    for name in ("marked", "unread", "dropped", "refused", "few", "paused"):
        make_table(db, name)
    for name in ("marked", "dropped", "paused"):
        set_outbox(db, name, to_file(name, tmp_path / f"{name}.jsonl"))
    for name in ("refused", "few"):  # a row that lacks the column is rejected
        set_outbox(db, name, to_file(name, tmp_path / f"{name}.jsonl",
                                     subject_template="{{ nothing }}"))
    insert_rows(db, "dropped", 1)  # as long as it has rows, the outbox stays
    db.execute("create table public.base (id int primary key, n int)")
    db.execute("select pgtrickle.create_stream_table('share',"
               " 'select id, 1 / n as part from public.base', '100ms')")
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=5)
        assert causes(relay) == {}
        for name in ("marked", "unread"):
            db.execute(f"alter table {name} drop constraint {name}_pkey")
        db.execute("drop table dropped")
        insert_rows(db, "refused", 1, 6)
        insert_rows(db, "few", 1, 4)
        db.execute("select pgtrickle.pause_relay('paused')")
        relay.wait_state("paused", "paused")  # until then it delivers
        insert_rows(db, "paused", 1, 2)
        db.execute("insert into public.base values (1, 0)")
        wanted = {("marked", "outbox_problem"), ("", "outbox_problem"),
                  ("dropped", "outbox_source_dropped"), ("refused", "all_rejected"),
                  ("paused", "paused_with_work"), ("", "refresh_failed")}
        eventually(lambda: housekeeping(db) and set(causes(relay)) == wanted, WAIT,
                   message=lambda: f"{causes(relay)}\n{relay.log(60)}")
        found = causes(relay)
        assert relay.health()[1]["status"] == "degraded"
        assert "may have the same key" in found["marked", "outbox_problem"]["message"]
        assert "dlq retry --all refused" in found["refused", "all_rejected"]["remedy"]
        assert "resume paused" in found["paused", "paused_with_work"]["remedy"]
        assert "public.share" in found["", "refresh_failed"]["message"]
        assert "division by zero" in found["", "refresh_failed"]["message"]
        for name in ("marked", "dropped", "refused", "paused"):
            eventually(lambda: (status_row(db, name) or {}).get("last_error"), WAIT)
            assert status_row(db, name)["remedy"]
        for outbox, value in (("outbox_marked", 1), ("outbox_unread", 1), ("outbox_dropped", 1)):
            relay.wait_metric("outbox_problem", value, outbox=outbox)
        # What is done by the remedies ends them.
        for name in ("marked", "unread"):
            db.execute(f"alter table {name} add primary key (id)")
        db.execute("select pgtrickle.delete_relay('dropped')")
        db.execute("select pgtrickle.disable_outbox('outbox_dropped')")
        db.execute("select pgtrickle.relay_dlq_discard(id) from pgtrickle.relay_dlq")
        db.execute("select pgtrickle.resume_relay('paused')")
        db.execute("update public.base set n = 1")
        db.execute("select pgtrickle.alter_stream_table('share', resume => true)")
        eventually(lambda: housekeeping(db) and causes(relay) == {}, WAIT,
                   message=lambda: f"{causes(relay)}\n{relay.log(60)}")
        for subject, event in (("marked", "outbox_problem"), ("outbox_unread", "outbox_problem"),
                               ("dropped", "outbox_source_dropped"), ("refused", "all_rejected"),
                               ("paused", "paused_with_work"), ("public.share", "refresh_failed")):
            # The log follows health within a moment.
            eventually(lambda: len(lines_about(relay, event, subject)) == 2, WAIT, message=relay.log)
            told, ended = lines_about(relay, event, subject)
            assert "Remedy: " in told and "recovered after" in ended, (told, ended)
        relay.wait_metric("outbox_problem", 0, outbox="outbox_marked")


def test_a_pool_without_a_free_session_is_named(db, start_relay, tmp_path):
    make_table(db)
    set_outbox(db, "rows", to_file("orders", tmp_path / "rows.jsonl"))
    with start_relay(db.relay_dsn, pool_size=1) as relay:
        relay.wait_healthy(pipelines=1)
        insert_rows(db, "orders", 1)
        wait_settled(db, "rows", "orders")
        with psycopg.connect(db.dsn) as other:
            # The one session waits for the table, and with it every pipeline that needs a session.
            other.execute("lock table pgtrickle.outbox_orders in access exclusive mode")
            eventually(lambda: ("", "no_free_session") in causes(relay), WAIT,
                       message=lambda: f"{relay.health()}\n{relay.log(60)}")
            assert "pool_size" in causes(relay)["", "no_free_session"]["remedy"]
        eventually(lambda: causes(relay) == {}, WAIT, message=relay.log)


def test_connected_means_that_the_last_attempt_succeeded(db, start_relay, tmp_path):
    make_table(db)
    server = HttpServer()  # no request is sent when this sink is opened
    server.start()
    set_outbox(db, "rows", {"stream_table": "orders", "sink": {
        "type": "webhook", "url": server.url("/hook"), "allow_private": True}})

    def connected():
        return relay.metric("sink_connected", pipeline="rows")

    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        insert_rows(db, "orders", 1)
        wait_settled(db, "rows", "orders")
        assert connected() == 1
        server.kill9()
        insert_rows(db, "orders", 2)
        eventually(lambda: connected() == 0, WAIT)
        holds_for(lambda: connected() == 0, 1)
        server.start()
        wait_settled(db, "rows", "orders")
        assert connected() == 1
        relay.wait_metric("source_connected", 1, pipeline="rows")
    server.stop()
