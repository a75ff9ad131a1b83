"""The HTTP API: all clients read; a client with the token pauses, resumes, replays, and settles dead
letters."""

import json

import pytest

from support.nats_server import NatsServer
from support.pipelines import (Lines, insert_rows, make_table, position, set_outbox, to_file,
                               to_nats, wait_settled)
from support.relay import Relay
from support.waiting import eventually, holds_for

TOKEN = "t0ken-of-the-operator"
ALLOWED = {"Authorization": f"Bearer {TOKEN}"}

CHANGES = ["/api/pipelines/rows/pause", "/api/pipelines/rows/resume", "/api/pipelines/rows/replay",
           "/api/dlq/1/retry", "/api/dlq/1/discard", "/api/dlq/retry"]


def post(relay, path, body=None, headers=ALLOWED):
    """(status, parsed answer)."""
    status, text = relay.get(path, method="POST", headers=headers,
                             body=None if body is None else json.dumps(body))
    return status, json.loads(text)


@pytest.fixture
def lines(db, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    return lines


@pytest.fixture
def relay(relay_bin, db, lines):
    with Relay(db.relay_dsn, env={"PGTRICKLE_RELAY_ADMIN_TOKEN": TOKEN}) as relay:
        relay.wait_healthy(pipelines=1)
        yield relay


# Reading -----------------------------------------------------------------------------------


def test_everybody_reads_pipelines_and_one_of_them(relay):
    status, text = relay.get("/api/pipelines")
    assert status == 200 and [entry["name"] for entry in json.loads(text)] == ["rows"]
    status, text = relay.get("/api/pipelines/rows")
    assert status == 200 and json.loads(text)["state"] in ("starting", "idle", "running")
    status, text = relay.get("/api/pipelines/no-such")
    assert status == 404 and "no-such" in json.loads(text)["error"]


# Who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGES)
def test_without_the_token_nothing_changes(db, relay, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
                    {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer "}):
        status, answer = post(relay, path, {"from": 1, "pipeline": "rows"}, headers)
        assert status == 401 and answer["error"], headers
        assert TOKEN not in json.dumps(answer)
    assert not db.one("select exists (select from pgtrickle.relay_pipeline_control)")
    assert not db.one("select exists (select from pgtrickle.relay_replays)")


@pytest.mark.parametrize("path", CHANGES)
def test_without_a_configured_token_no_client_changes_anything(db, lines, path):
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for headers in ({}, ALLOWED, {"Authorization": "Bearer "}):
            status, answer = post(relay, path, {"from": 1, "pipeline": "rows"}, headers)
            assert status == 403 and "--admin-token" in answer["remedy"]


def test_the_token_is_in_no_log_and_no_answer(relay):
    post(relay, "/api/pipelines/rows/pause")
    post(relay, "/api/pipelines/rows/resume")
    shown = relay.log(100000) + relay.get("/health")[1] + relay.get("/api/pipelines")[1] \
        + relay.metrics().text
    assert TOKEN not in shown


# Pipelines ---------------------------------------------------------------------------------


def test_pause_and_resume(db, relay, lines):
    assert post(relay, "/api/pipelines/rows/pause") == (200, {"ok": True})
    relay.wait_state("rows", "paused")
    insert_rows(db, "orders", 1)
    holds_for(lambda: lines.rows() == [], 0.3)
    assert post(relay, "/api/pipelines/rows/resume") == (200, {"ok": True})
    lines.wait_rows([1])


def test_replay_sends_a_range_again_and_moves_no_position(db, relay, lines):
    insert_rows(db, "orders", 1, 4)
    lines.wait_rows([1, 2, 3, 4])
    wait_settled(db, "rows", "orders")
    before = position(db, "rows")
    second = lines.messages()[1]["sequence"]
    status, answer = post(relay, "/api/pipelines/rows/replay", {"from": second, "to": second + 1})
    assert status == 200 and isinstance(answer["replay"], int)
    lines.wait_rows([1, 2, 3, 4, 2, 3])
    assert position(db, "rows") == before
    status, _ = relay.get(f"/api/pipelines/rows/replay?from={second + 2}", method="POST",
                          headers=ALLOWED)
    assert status == 200
    lines.wait_rows([1, 2, 3, 4, 2, 3, 4])


def test_what_cannot_be_done_is_refused_with_its_reason(relay):
    for path, body, status, word in [
            ("/api/pipelines/no-such/pause", None, 404, "no-such"),
            ("/api/pipelines/rows/replay", None, 400, "from"),
            ("/api/pipelines/rows/replay", {"from": "x"}, 400, "from"),
            ("/api/pipelines/rows/replay", {"from": 1, "until": 2}, 400, "until"),
            ("/api/pipelines/rows/replay", {"from": 5, "to": 4}, 400, "4"),
            ("/api/pipelines/rows/replay", {"from": 1000000}, 400, "newest"),
            ("/api/pipelines/rows/explode", None, 404, "explode"),
            ("/api/dlq/999999/retry", None, 404, "999999"),
            ("/api/dlq/retry", None, 400, "pipeline")]:
        answered, answer = post(relay, path, body)
        assert answered == status and word in answer["error"], (path, body, answered, answer)
    broken = relay.get("/api/pipelines/rows/replay", method="POST", headers=ALLOWED, body="{")
    assert broken[0] == 400
    assert relay.get("/api/pipelines/rows", method="DELETE", headers=ALLOWED)[0] == 405


# Dead letters ------------------------------------------------------------------------------


def test_dead_letters_are_listed_retried_and_discarded(db, relay_bin):
    make_table(db)
    server = NatsServer(max_payload=4096).start()
    try:
        with server.client() as client:
            client.create_stream("s", "relay.>")
        set_outbox(db, "rows", to_nats("orders", server, "relay.rows", message="row"))
        db.execute("insert into orders values (1, repeat('a', 9000), 1), (2, repeat('b', 9000), 2)")
        with Relay(db.relay_dsn, admin_token=TOKEN) as relay:
            relay.wait_up()

            def letters(query=""):
                status, text = relay.get("/api/dlq" + query)
                assert status == 200, text
                return json.loads(text)
            first, second = eventually(lambda: len(letters()) == 2 and letters())
            assert first["pipeline"] == "rows" and first["subject"] == "relay.rows"
            assert first["error_class"] == "rejected" and first["error_message"]
            assert "payload" not in first and "aaaa" not in json.dumps(first)
            assert letters("?pipeline=rows&limit=1") == [first]
            assert letters("?pipeline=other") == []
            assert relay.get("/api/dlq?limit=none")[0] == 400

            assert post(relay, f"/api/dlq/{first['id']}/retry") == (200, {"ok": True})
            eventually(lambda: letters()[0]["attempts"] > first["attempts"])
            assert post(relay, f"/api/dlq/{first['id']}/discard") == (200, {"ok": True})
            eventually(lambda: [letter["id"] for letter in letters()] == [second["id"]])
            assert post(relay, f"/api/dlq/{first['id']}/retry")[0] == 409
            assert post(relay, "/api/dlq/retry", {"pipeline": "rows"}) \
                == (200, {"ok": True, "count": 1})
    finally:
        server.stop()


# Without the database ----------------------------------------------------------------------


def test_while_the_database_is_away_the_api_says_so_and_health_still_answers(
        own_pg_server, own_db, relay_bin):
    with Relay(own_db.relay_dsn, admin_token=TOKEN) as relay:
        relay.wait_healthy()
        own_pg_server.stop_immediate()
        eventually(lambda: relay.get("/health")[0] == 503)
        status, answer = post(relay, "/api/pipelines/rows/pause")
        assert status == 503 and answer["error"]
        assert relay.get("/api/dlq")[0] == 503
        assert relay.get("/health/live")[0] == 200
        own_pg_server.start()
        relay.wait_healthy(deadline=30)
        assert relay.get("/api/dlq")[0] == 200
