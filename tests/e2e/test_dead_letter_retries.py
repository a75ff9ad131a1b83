"""Dead letters that are sent again: by the owner, within the rate limit, in order, in turn with live
traffic."""

import json
import time

import pytest

from support.http_server import HttpServer
from support.pipelines import SLOW_FACTOR, make_table, set_outbox
from support.relay import Relay
from support.waiting import eventually, holds_for


@pytest.fixture
def web():
    server = HttpServer().start()
    yield server
    server.stop()


def to_web(server, **options):
    return {"stream_table": "orders", "message": "row", "sink": {
        "type": "webhook", "url": server.url("/hook"), "allow_private": True, "timeout": "3s",
        "connect_timeout": "2s"}, **options}


def add_letters(db, server, count, keys=None):
    """Dead letters with the bodies {"letter": 1}, ...; all of them are to be sent again."""
    for number in range(1, count + 1):
        db.execute("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, subject,"
                   " key, payload, content_type, headers, error_class)"
                   " values ('default', 'p', %s, %s, %s, %s, 'application/json', '{}',"
                   " 'rejected')", (f"p:{number}", server.url("/hook"),
                                    (keys or {}).get(number, str(number)),
                                    json.dumps({"letter": number}).encode()))
    db.execute("select pgtrickle.relay_dlq_retry_all('p')")


def letters(server):
    return [request.json["letter"] for request in server.accepted() if b"letter" in request.body]


def open_letters(db):
    """{number: (attempts, whether it is to be sent again)} of those that are not resolved."""
    return {int(number): (attempts, wanted) for number, attempts, wanted in db.execute(
        "select substr(message_id, 3), attempts, retry_requested_at is not null"
        " from pgtrickle.relay_dlq where resolved_at is null")}


def test_retries_and_live_traffic_share_the_rate_limit_in_turn(db, orders, web, relay):
    rate, live, retried = 20, 60, 30
    set_outbox(db, "p", to_web(web, rate_limit=rate))
    with relay:
        relay.wait_healthy(pipelines=1)
        db.execute("insert into orders select i, 'x', i from generate_series(1, %s) i", (live,))
        begin = time.monotonic()
        add_letters(db, web, retried)
        eventually(lambda: open_letters(db) == {}, 30 * SLOW_FACTOR, message=relay.log)
        eventually(lambda: len(web.accepted()) == live + retried, 30 * SLOW_FACTOR)
        took = time.monotonic() - begin
    assert took >= 0.9 * (live + retried) / rate
    assert letters(web) == list(range(1, retried + 1))
    sent = [b"letter" in request.body for request in web.accepted()]
    assert sent[sent.index(True):].index(False) < 5, "live traffic waited for the dead letters"


def test_an_owner_that_was_frozen_beyond_its_lease_sends_no_dead_letter(db, web, relay_bin):
    make_table(db)
    set_outbox(db, "p", to_web(web, rate_limit=10))
    web.rules({"delay": 0.1})
    frozen = Relay(db.relay_dsn, lease_timeout="1s").start()
    frozen.wait_healthy(pipelines=1)
    add_letters(db, web, 30)
    eventually(lambda: len(letters(web)) >= 3, 20, interval=0.005)
    frozen.freeze()
    with Relay(db.relay_dsn, lease_timeout="1s") as owner:
        eventually(lambda: owner.health()[1]["pipelines_owned"] == 1, 20)
        eventually(lambda: open_letters(db) == {}, 30)
        before = web.requests()
        frozen.thaw()
        eventually(lambda: any("leases_lost" in line or "takeover" in line or "fenced" in line
                               for line in frozen.log_lines), 20, message=frozen.log)
        holds_for(lambda: len(web.requests()) <= len(before) + 1, 1.5)  # what was under way
        frozen.stop()
    assert len(letters(web)) <= 32, "each was sent once, but what was under way"


def test_a_retry_while_the_endpoint_is_down_counts_no_attempt_and_is_made_when_it_is_back(
        db, orders, web, relay):
    set_outbox(db, "p", to_web(web, retry={"min": "20ms", "max": "100ms"}))
    with relay:
        relay.wait_healthy(pipelines=1)
        web.stop()
        add_letters(db, web, 3)
        entry = relay.wait_state("p", "retrying")
        assert entry["last_error"]
        eventually(lambda: relay.metric("retries_total", pipeline="p") >= 3, 20)
        assert open_letters(db) == {number: (1, True) for number in (1, 2, 3)}
        web.start()
        eventually(lambda: open_letters(db) == {}, 20, message=relay.log)
        assert letters(web) == [1, 2, 3]


def test_with_park_key_a_retried_letter_waits_for_those_before_it(db, orders, web, relay):
    set_outbox(db, "p", to_web(web, on_reject="park_key"))
    web.rules({"contains": '"letter": 2}', "status": 400})
    with relay:
        relay.wait_healthy(pipelines=1)
        add_letters(db, web, 6, keys={1: "a", 2: "a", 3: "a", 4: "b", 5: "b", 6: "a"})
        eventually(lambda: open_letters(db) == {2: (2, False), 3: (2, False), 6: (2, False)}, 20,
                   message=lambda: db.execute("select id, error_code, error_message from pgtrickle.relay_dlq"))
        assert sorted(letters(web)) == [1, 4, 5] and letters(web).index(4) < letters(web).index(5)
        # One whose predecessor is left alone is not sent, and says why.
        db.execute("select pgtrickle.relay_dlq_retry(id) from pgtrickle.relay_dlq"
                   " where message_id = 'p:3'")
        eventually(lambda: open_letters(db)[3] == (3, False), 20)
        assert "'a'" in repr(db.one("select array_agg(distinct key) from pgtrickle.relay_dlq"
                                    " where error_code = 'parked'"))
        assert sorted(letters(web)) == [1, 4, 5]
        web.rules()
        db.execute("select pgtrickle.relay_dlq_retry_all('p')")
        eventually(lambda: open_letters(db) == {}, 20)
        assert [number for number in letters(web) if number in (1, 2, 3, 6)] == [1, 2, 3, 6]


def test_distinct_messages_of_one_id_are_distinct_dead_letters(db, relay, tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "in").write_text("".join(
        json.dumps({"id": "x", "n": n}) + "\n" for n in (1, 2, 2, 3, 1)))
    db.execute("create table public.refusing (event_id text primary key, payload jsonb,"
               " constraint never check (payload is null));"
               " grant select, insert on public.refusing to pgtrickle_relay")
    db.execute("select pgtrickle.set_relay('p', %s::jsonb)", (json.dumps({
        "source": {"type": "file", "path": str(tmp_path / "in")},
        "sink": {"type": "pg-inbox", "inbox_table": "public.refusing"}}),))
    db.execute("select pgtrickle.enable_relay('p')")

    def told():
        return sorted((json.loads(payload)["n"], attempts) for payload, attempts in db.execute(
            "select convert_from(payload, 'UTF8'), attempts from pgtrickle.relay_dlq"
            " where message_id = 'p:x' and resolved_at is null"))
    with relay:
        eventually(lambda: told() == [(1, 2), (2, 2), (3, 1)], 15 * SLOW_FACTOR, message=told)
        db.execute("alter table public.refusing drop constraint never")
        db.execute("select pgtrickle.relay_dlq_retry_all('p')")
        eventually(lambda: db.one("select count(*) from public.refusing") == 3)
