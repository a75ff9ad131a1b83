"""What becomes of a message that a webhook's server refuses again and again, and of those around it."""

import hashlib
import json
from collections import Counter

import psycopg
import pytest

from support.http_server import HttpServer
from support.pipelines import SLOW_FACTOR, position, set_outbox, wait_settled
from support.waiting import eventually, holds_for
from support.writers import dead_letters, wait_trouble

POISON = {"status": 500, "contains": '"amount": 666', "answer": "cannot take this"}
QUICK = {"retry_min": "20ms", "retry_max": "100ms"}


@pytest.fixture
def web():
    server = HttpServer().start()
    yield server
    server.stop()


def to_web(server, max_attempts=None, sink=None, **options):
    attempts = {} if max_attempts is None else {"max_attempts": max_attempts}
    return {"stream_table": "orders", "message": "row", "key_template": "{{ name }}", "sink": {
        "type": "webhook", "url": server.url("/hook"), "allow_private": True, "timeout": "5s",
        **attempts, **(sink or {})}, **options}


def insert(db, first, count, keys, poison=()):
    """Rows of `keys` keys in turn, in one transaction; those in `poison` have the amount 666."""
    db.execute("insert into orders select i, 'k' || i %% %s, case when i = any(%s) then 666 else 1 end"
               " from generate_series(%s::bigint, %s::bigint) i order by i",
               (keys, list(poison), first, first + count - 1))


def ids_in(request):
    body = request.json
    return [message["new"]["id"] for message in (body if isinstance(body, list) else [body])]


def accepted(server):
    return [identity for request in server.accepted() for identity in ids_in(request)]


def refusals(server):
    """How often each row was refused."""
    return Counter(identity for request in server.requests() if request.status >= 300
                   for identity in ids_in(request))


def wait_accepted(server, wanted, deadline=60):
    wanted = set(wanted)
    eventually(lambda: set(accepted(server)) >= wanted, deadline * SLOW_FACTOR, interval=0.1,
               message=lambda: f"missing {sorted(wanted - set(accepted(server)))[:20]}")


def wait_letters(db, count, deadline=60):
    return eventually(lambda: len(found := dead_letters(db, "p")) == count and found,
                      deadline * SLOW_FACTOR, message=lambda: dead_letters(db, "p"))


def assert_order(ids, keys):
    for key in range(keys):
        of_key = [identity for identity in ids if identity % keys == key]
        assert of_key == sorted(of_key), f"key {key}"


# max_attempts ------------------------------------------------------------------------------


def test_poison_is_set_aside_after_max_attempts_and_the_order_of_each_key_holds(
        db, web, relay, orders):
    keys, poison = 200, [11, 12, 13, 14, 15]
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 4, **QUICK))
    insert(db, 1, 1000, keys, poison)
    with relay:
        wait_accepted(web, set(range(1, 1001)) - set(poison))
        letters = wait_letters(db, 5)
        wait_settled(db, "p", "orders")
    assert {code for _, code, _, _ in letters} == {"http_500"}
    assert all("cannot take this" in text and "max_attempts" in text for _, _, text, _ in letters)
    assert refusals(web) == {identity: 4 for identity in poison}
    assert sorted(accepted(web)) == sorted(set(range(1, 1001)) - set(poison)), "each once"
    assert_order(accepted(web), keys)
    sequence = [identity for request in web.requests() for identity in ids_in(request)]
    for identity in poison:
        last = max(at for at, other in enumerate(sequence) if other == identity)
        assert last < sequence.index(identity + keys), "a later row of the key did not wait"


@pytest.mark.parametrize("ordering", ["key", "none"])
def test_without_max_attempts_only_what_must_follow_the_poison_waits(
        db, web, relay, orders, ordering):
    web.rules(POISON)
    over = {"ordering": "none"} if ordering == "none" else {}
    # So long that nothing arrives here by the next try of the poison.
    set_outbox(db, "p", to_web(web, retry_min="20m", retry_max="20m", **over))
    insert(db, 1, 1, 10, [1])
    with relay:
        wait_trouble(relay, db, "p", "answered 500")
        held = position(db, "p")
        for first in range(2, 1002, 100):
            insert(db, first, 100, 10)
            others = [i for i in range(2, first + 100) if ordering == "none" or i % 10 != 1]
            wait_accepted(web, others)
        assert sorted(accepted(web)) == others
        assert relay.pipeline("p")["state"] == "retrying"
        assert position(db, "p") == held and dead_letters(db, "p") == []
        web.rules()
    with relay:
        wait_accepted(web, range(1, 1002))
        wait_settled(db, "p", "orders")
    if ordering == "key":
        assert [i for i in dict.fromkeys(accepted(web)) if i % 10 == 1] == list(range(1, 1002, 10))


def test_refused_rows_that_are_due_again_do_not_keep_the_others_from_being_sent(
        db, web, relay, orders):
    # By the time that all of them were refused, the first are due again.
    poison, total = range(1, 41), 400
    web.rules({**POISON, "delay": 0.05})
    set_outbox(db, "p", to_web(web, sink={"max_in_flight": 1}, **QUICK))
    insert(db, 1, total, 1000, poison)
    with relay:
        wait_accepted(web, set(range(1, total + 1)) - set(poison), deadline=30)
        before = refusals(web)
        eventually(lambda: all(refusals(web)[row] > before[row] for row in poison),
                   60 * SLOW_FACTOR, message=lambda: refusals(web))
        insert(db, total + 1, 100, 1000)
        wait_accepted(web, range(total + 1, total + 101), deadline=30)
        web.rules()
        wait_settled(db, "p", "orders")
    assert sorted(set(accepted(web))) == list(range(1, total + 101))


def test_a_relay_killed_at_poison_loses_nothing_and_sets_aside_nothing_else(
        db, web, relay, orders):
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 6, retry_min="30ms", retry_max="60ms"))
    poison, total = [5, 250], 600
    with relay:
        for first in range(1, total, 200):
            insert(db, first, 200, 20, poison)
            seen = len(web.requests())
            eventually(lambda: len(web.requests()) >= seen + 10, 30 * SLOW_FACTOR)
            relay.kill9()
            relay.start()
        wait_accepted(web, set(range(1, total + 1)) - set(poison))
        letters = wait_letters(db, 2)
        wait_settled(db, "p", "orders")
    assert sorted(json.loads(payload)["new"]["id"] for _, _, _, payload in letters) == poison
    assert set(accepted(web)).isdisjoint(poison)
    assert_order(list(dict.fromkeys(accepted(web))), 20)


def test_a_dead_letter_that_is_refused_again_has_had_its_try_and_holds_nothing_up(
        db, web, relay, orders):
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 2, **QUICK))
    insert(db, 1, 5, 5, [3])
    with relay:
        (letter, *_), = wait_letters(db, 1)
        before = refusals(web)[3]
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        eventually(lambda: db.one("select attempts from pgtrickle.relay_dlq where id = %s"
                                  " and retry_requested_at is null", (letter,)) == 2,
                   20 * SLOW_FACTOR)
        assert refusals(web)[3] == before + 1
        insert(db, 6, 5, 5)
        wait_accepted(web, [1, 2, 4, 5, 6, 7, 8, 9, 10])
        web.rules()
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        wait_accepted(web, [3])
        eventually(lambda: dead_letters(db, "p") == [], 20 * SLOW_FACTOR)


def test_the_poison_of_an_array_is_found_after_max_attempts(db, web, relay, orders):
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 3, sink={"batch": True, "batch_max_messages": 50}, **QUICK))
    insert(db, 1, 200, 200, [37])
    with relay:
        wait_accepted(web, set(range(1, 201)) - {37})
        wait_letters(db, 1)
        wait_settled(db, "p", "orders")
    assert sorted(accepted(web)) == [i for i in range(1, 201) if i != 37], "each once"
    whole = [request for request in web.requests() if 37 in ids_in(request)][:3]
    assert len({(request.id, request.body) for request in whole}) == 1, "a resend keeps the cut"


@pytest.mark.parametrize("rule", [{"status": 503}, {"status": 429}, {"cut": True}],
                         ids=["503", "429", "cut"])
def test_a_server_that_takes_nothing_uses_up_no_attempts(db, web, relay, orders, rule):
    web.rules(rule)
    set_outbox(db, "p", to_web(web, 1, **QUICK))
    insert(db, 1, 3, 3)
    with relay:
        eventually(lambda: len(web.requests()) >= 8, 30 * SLOW_FACTOR)
        assert dead_letters(db, "p") == []
        web.rules()
        wait_accepted(web, [1, 2, 3])
    assert dead_letters(db, "p") == []


def test_on_reject_stop_stops_at_what_was_refused_max_attempts_times(db, web, relay, orders):
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 3, on_reject="stop", **QUICK))
    insert(db, 1, 6, 6, [3])
    with relay:
        relay.wait_state("p", "stopped", deadline=30 * SLOW_FACTOR)
        assert accepted(web) == [1, 2] and refusals(web) == {3: 3}
        web.rules()
        db.execute("select pgtrickle.resume_relay('p')")
        wait_accepted(web, range(1, 7))
    assert accepted(web) == [1, 2, 3, 4, 5, 6]


def test_on_reject_park_key_parks_the_key_of_what_was_refused_max_attempts_times(
        db, web, relay, orders):
    web.rules(POISON)
    set_outbox(db, "p", to_web(web, 3, on_reject="park_key", **QUICK))
    insert(db, 1, 40, 10, [3])
    with relay:
        letters = wait_letters(db, 4)
        wait_accepted(web, [i for i in range(1, 41) if i % 10 != 3])
        wait_settled(db, "p", "orders")
    assert [code for _, code, _, _ in letters] == ["http_500", "parked", "parked", "parked"]
    assert_order(accepted(web), 10)


@pytest.mark.parametrize("value", [0, -1, 1.5, 10**9, "many"])
def test_max_attempts_that_cannot_be_are_refused(db, web, orders, value):
    with pytest.raises(psycopg.Error, match="max_attempts"):
        set_outbox(db, "p", to_web(web, sink={"max_attempts": value}))


# 410 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
def test_gone_stops_the_pipeline_until_an_operator_resumes_it(db, web, relay, orders, batch):
    web.rules({"status": 410, "answer": "unsubscribed"})
    set_outbox(db, "p", to_web(web, sink={"batch": batch, "max_in_flight": 1}, **QUICK))
    insert(db, 1, 5, 5)
    with relay:
        entry = relay.wait_state("p", "stopped", deadline=30 * SLOW_FACTOR)
        assert "answered 410: unsubscribed" in str(entry["last_error"])
        wait_trouble(relay, db, "p", "answered 410", remedy="pipelines resume p")
        assert relay.health()[1]["status"] != "healthy"
        insert(db, 6, 5, 5)
        holds_for(lambda: len(web.requests()) == 1, 1)
        db.execute("select pgtrickle.resume_relay('p')")
        eventually(lambda: len(web.requests()) == 2, 20 * SLOW_FACTOR)
        relay.wait_state("p", "stopped", deadline=30 * SLOW_FACTOR)
        web.rules()
        db.execute("select pgtrickle.resume_relay('p')")
        wait_accepted(web, range(1, 11))
        relay.wait_state("p", "idle", "running", deadline=30 * SLOW_FACTOR)
    assert dead_letters(db, "p") == []


def test_gone_can_mean_what_the_configuration_says(db, web, relay, orders):
    web.rules({"status": 410, "times": 1})
    set_outbox(db, "p", to_web(web, sink={"pause_on_status": []}))
    insert(db, 1, 2, 2)
    with relay:
        (_, code, _, _), = wait_letters(db, 1)
    assert code == "http_410"


def test_gone_for_a_dead_letter_stops_the_pipeline_and_keeps_the_letter(db, web, relay, orders):
    web.rules({"status": 422, "times": 1})
    set_outbox(db, "p", to_web(web, **QUICK))
    insert(db, 1, 1, 1)
    with relay:
        (letter, *_), = wait_letters(db, 1)
        web.rules({"status": 410})
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        relay.wait_state("p", "stopped", deadline=30 * SLOW_FACTOR)
        web.rules()
        db.execute("select pgtrickle.resume_relay('p')")
        wait_accepted(web, [1])
        eventually(lambda: dead_letters(db, "p") == [], 20 * SLOW_FACTOR)


# Formats -----------------------------------------------------------------------------------


def test_an_array_of_cloudevents_has_the_content_type_of_a_batch(db, web, relay, orders):
    for batch, path in ((True, "/array"), (False, "/single")):
        set_outbox(db, path[1:], to_web(web, sink={"batch": batch, "url": web.url(path)},
                                        wire_format="cloudevents"))
    insert(db, 1, 3, 3)
    with relay:
        eventually(lambda: len(web.accepted("/array")) and len(web.accepted("/single")) == 3,
                   20 * SLOW_FACTOR)
    arrays = web.accepted("/array")
    assert {request.headers["content-type"] for request in arrays} == {
        "application/cloudevents-batch+json"}
    assert all(event["specversion"] == "1.0" for request in arrays for event in request.json)
    assert {request.headers["content-type"] for request in web.accepted("/single")} == {
        "application/cloudevents+json"}


def test_ids_with_dots_and_percent_signs_stay_different_without_a_dot(db, web, relay, orders):
    for name in ("a.b", "a%2Eb"):
        set_outbox(db, hashlib.sha256(name.encode()).hexdigest()[:8],
                   to_web(web, id_prefix=name))
    insert(db, 1, 2, 2)
    with relay:
        eventually(lambda: len(web.accepted()) == 4, 20 * SLOW_FACTOR)
    requests = web.accepted()
    ids = {request.headers["webhook-id"] for request in requests}
    assert len(ids) == 4 and not any("." in identity for identity in ids)
    for request in requests:
        plain = request.id.replace("%", "%25").replace(".", "%2E")
        assert request.headers["webhook-id"] == plain
