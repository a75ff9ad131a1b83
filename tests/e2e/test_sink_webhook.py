"""The webhook sink, by the real binary against a real HTTP server with faults on command."""

import base64
import hashlib
import hmac
import json
import re
import time

import pytest

from support.http_server import HttpServer
from support.pipelines import SLOW_FACTOR, insert_rows, new_rows, set_outbox, wait_settled
from support.tls import Authority
from support.waiting import eventually, holds_for
from support.writers import Writer, bulk, dead_letters, wait_trouble

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()


@pytest.fixture
def web():
    server = HttpServer().start()
    yield server
    server.stop()


def to_web(server, path="/hook", table="orders", port=None, **options):
    sink = {"type": "webhook", "url": server.url(path, port), "allow_private": True,
            "timeout": "3s", "connect_timeout": "2s", **options.pop("sink", {})}
    return {"stream_table": table, "sink": sink, **options}


def rows(server, path="/hook"):
    """Ids of the rows that were accepted, in order of arrival."""
    found = []
    for request in server.accepted(path):
        body = request.json
        for message in body if isinstance(body, list) else [body]:
            found += [row["id"] for row in new_rows(message)]
    return found


def wait_rows(server, wanted, path="/hook", deadline=30):
    wanted = list(wanted)
    eventually(lambda: set(rows(server, path)) >= set(wanted), deadline * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{len(rows(server, path))} rows of {len(wanted)}; {server.log()}")
    return rows(server, path)


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_a_request_carries_id_headers_and_the_envelope(db, web, relay, orders):
    set_outbox(db, "p", to_web(web, "/hook/{stream_table}/{op}", message="row",
                               headers={"X-Source": "shop"},
                               sink={"request_headers": {"X-Static": "{yes}"}}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1.10)")
        request, = eventually(lambda: web.requests())
    assert (request.method, request.path) == ("POST", "/hook/orders/insert")
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", request.id)
    headers = request.headers
    assert headers["pgtrickle-id"] == request.id
    assert headers["webhook-id"] == request.id.replace(".", "%2E")
    assert headers["pgtrickle-op"] == "insert"
    assert headers["pgtrickle-stream-table"] == "orders"
    assert headers["pgtrickle-outbox-id"] == str(request.json["sequence"])
    assert headers["content-type"] == "application/json"
    assert (headers["x-source"], headers["x-static"]) == ("shop", "{yes}")
    assert re.fullmatch(r"pgtrickle-relay/\d+\.\d+\.\d+", headers["user-agent"])
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert "webhook-signature" not in headers and "expect" not in headers
    assert request.json["new"]["amount"] == 1.10


def test_a_user_agent_that_is_configured_is_the_only_one(db, web, relay, orders):
    set_outbox(db, "p", to_web(web, "/p/{op}", sink={"request_headers": {"user-agent": "shop/2"}}))
    set_outbox(db, "q", to_web(web, "/q/{op}", headers={"User-Agent": "{stream_table}/3"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1.10)")
        requests = eventually(lambda: len(web.requests()) == 2 and web.requests())
    assert sorted((request.path, request.headers["user-agent"]) for request in requests) == [
        ("/p/insert", "shop/2"), ("/q/insert", "orders/3")]


def test_values_in_the_url_are_percent_encoded(db, web, relay, orders):
    set_outbox(db, "p", to_web(web, "/hook?name={{ name }}", message="row", sink={"method": "PUT"}))
    with relay:
        db.execute("insert into orders values (1, 'a b/ü&x=?#', 0)")
        request, = eventually(lambda: web.requests())
    assert request.method == "PUT"
    assert request.path == "/hook?name=a%20b%2F%C3%BC%26x%3D%3F%23"


def test_the_signature_is_that_of_standard_webhooks(db, web, relay, orders):
    set_outbox(db, "p", to_web(web, sink={"signature_secret": f"{SECRET} other-secret"}))
    with relay:
        insert_rows(db, "orders", 1)
        request, = eventually(lambda: web.requests())
        assert "other-secret" not in relay.log() and SECRET not in relay.log()
    identity = request.headers["webhook-id"]
    assert "." not in identity, "the dot delimits what is signed"
    text = f"{identity}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = [
        "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        for key in (b"a secret of thirty-two bytes....", b"other-secret")]
    assert request.headers["webhook-signature"] == " ".join(expected)


def test_bodies_arrive_byte_for_byte(db, web, relay):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", {"outbox": "events", "sink": {
        "type": "webhook", "url": web.url("/hook"), "allow_private": True}})
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 2_000_000})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: len(web.accepted()) == len(texts), 20 * SLOW_FACTOR)
    stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
    assert [request.body for request in web.accepted()] == stored


def test_a_batch_is_an_array_whose_id_stays_when_it_is_sent_again(db, web, relay, orders):
    web.rules({"status": 503, "times": 3})
    set_outbox(db, "p", to_web(web, message="row", sink={"batch": True, "batch_max_messages": 10}))
    bulk(db, 1, 95)
    with relay:
        found = wait_rows(web, range(1, 96))
    assert sorted(found) == list(range(1, 96))
    requests = web.requests()
    refused = [(r.id, r.body) for r in requests if r.status == 503]
    again = {r.id: r.body for r in requests if r.status == 200}
    assert refused and all(again[identity] == body for identity, body in refused)
    for request in requests:
        ids = [message["metadata"]["id"] for message in request.json]
        assert len(set(ids)) == len(ids) <= 10
        digest = hashlib.sha256("".join(f"{identity}\n" for identity in ids).encode()).hexdigest()
        assert request.id == f"batch-{digest[:32]}"


def test_the_poison_of_a_batch_is_found_and_set_aside_alone(db, web, relay, orders):
    web.rules({"status": 422, "contains": '"poison"', "answer": "no poison, please"})
    set_outbox(db, "p", to_web(web, message="row", sink={"batch": True}))
    db.execute("insert into orders select i, case when i = 37 then 'poison' else 'x' end, i"
               " from generate_series(1, 100) i")
    with relay:
        wait_rows(web, [i for i in range(1, 101) if i != 37])
        (_, code, message, _), = eventually(lambda: dead_letters(db, "p"))
    assert sorted(rows(web)) == [i for i in range(1, 101) if i != 37]
    assert code == "http_422" and "no poison, please" in message


# Faults ------------------------------------------------------------------------------------


def test_order_of_a_key_holds_while_the_server_answers_503_at_random(db, web, relay, orders):
    web.rules({"status": 503, "probability": 0.15})
    set_outbox(db, "p", to_web(web, message="row", key_template="{{ name }}", retry_min="10ms",
                               retry_max="50ms"))
    with relay:
        with Writer(db, keys=7) as writer:
            writer.wait(700)
        wait_rows(web, range(1, writer.committed + 1), deadline=60)
    by_key = {}
    for identity in rows(web):
        by_key.setdefault(identity % 7, []).append(identity)
    assert all(found == sorted(set(found)) for found in by_key.values())
    assert dead_letters(db, "p") == []


def test_too_many_requests_is_honoured_as_long_as_the_server_says(db, web, relay, orders):
    web.rules({"status": 429, "times": 1, "headers": {"Retry-After": "2"}})
    set_outbox(db, "p", to_web(web, retry_min="10ms", retry_max="50ms"))
    with relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: web.requests())
        began = time.monotonic()
        wait_rows(web, [1])
        assert time.monotonic() - began > 1.5
    assert [request.status for request in web.requests()] == [429, 200]


def test_server_errors_are_tried_again_with_the_same_id(db, web, relay, orders):
    web.rules({"status": 500, "times": 1}, {"status": 502, "times": 1}, {"status": 408, "times": 1})
    set_outbox(db, "p", to_web(web, retry_min="10ms"))
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(web, [1])
    assert [request.status for request in web.requests()] == [500, 502, 408, 200]
    assert len({request.id for request in web.requests()}) == 1
    assert dead_letters(db, "p") == []


@pytest.mark.parametrize("status, remedy", [(401, "credentials"), (403, "permissions"),
                                            (404, "path"), (302, "redirections")])
def test_what_is_no_messages_fault_stops_the_pipeline(db, web, relay, orders, status, remedy):
    web.rules({"status": status, "times": 1})
    set_outbox(db, "p", to_web(web, retry_max="200ms"))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", f"answered {status}", remedy=remedy)
        assert dead_letters(db, "p") == []
        wait_rows(web, [1], deadline=60)


def test_statuses_mean_what_the_configuration_says(db, web, relay, orders):
    web.rules({"status": 404, "times": 1}, {"status": 418, "times": 1}, {"status": 500, "times": 1})
    set_outbox(db, "p", to_web(web, sink={"success": ["2xx", "404"], "retry_on_status": "418",
                                          "misconfigured_on_status": []}, retry_min="10ms"))
    with relay:
        insert_rows(db, "orders", 1, 3)
        eventually(lambda: len(web.requests()) == 4)
        (_, code, _, payload), = eventually(lambda: dead_letters(db, "p"))
        wait_settled(db, "p", "orders")
    assert [request.status for request in web.requests()] == [404, 418, 500, 200]
    assert code == "http_500"


# Security ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0",
                                  "2130706433", "169.254.169.254", "10.1.2.3", "[fe80::1]"])
def test_addresses_that_are_not_public_are_refused_unless_allowed(db, web, relay, orders, host):
    config = to_web(web)
    config["sink"]["url"] = f"http://{host}:{web.port}/hook"
    config["sink"]["allow_private"] = False
    set_outbox(db, "p", config)
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "not a public address", remedy="allow_private")
        assert relay.pipeline("p")["state"] == "misconfigured"
    assert web.requests() == []


def test_a_redirection_is_not_followed(db, web, relay, orders):
    web.rules({"path": "/hook", "status": 307, "headers": {"Location": web.url("/elsewhere")}})
    set_outbox(db, "p", to_web(web))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "answered 307")
    assert web.requests("/elsewhere") == []


def test_tls_is_verified_and_a_wrong_authority_is_named_while_others_run(db, relay, orders):
    authority, other = Authority(), Authority("another CA")
    server = HttpServer(tls=authority.certificate("server")).start()
    try:
        set_outbox(db, "trusted", to_web(server, "/hook/t", sink={"tls_ca": authority.ca}))
        set_outbox(db, "wrong-ca", to_web(server, "/hook/w", sink={"tls_ca": other.ca}))
        set_outbox(db, "no-ca", to_web(server, "/hook/n"))
        with relay:
            insert_rows(db, "orders", 1)
            for name in ("wrong-ca", "no-ca"):
                wait_trouble(relay, db, name, "certificate that is not trusted", remedy="tls_ca")
            wait_rows(server, [1], "/hook/t")
            assert relay.pipeline("trusted")["last_error"] is None
    finally:
        server.stop()


@pytest.mark.parametrize("credentials", [
    {"bearer_token": "topsecret-token"}, {"user": "relay", "password": "topsecret-token"},
    {"request_headers": {"Authorization": "Key topsecret-token"}}])
def test_credentials_are_sent_and_never_shown(db, relay, orders, credentials):
    basic = base64.b64encode(b"relay:topsecret-token").decode()
    wanted = {"bearer_token": "Bearer topsecret-token", "user": f"Basic {basic}",
              "request_headers": "Key topsecret-token"}[next(iter(credentials))]
    server = HttpServer(authorization=wanted).start()
    try:
        server.rules({"status": 422, "times": 1, "answer": "you sent topsecret-token"})
        set_outbox(db, "p", to_web(server, sink=credentials))
        with relay:
            insert_rows(db, "orders", 1, 2)
            wait_rows(server, [2])
            (_, _, message, _), = eventually(lambda: dead_letters(db, "p"))
            assert "you sent ***" in message
            assert "topsecret" not in relay.log(10_000)
    finally:
        server.stop()


def test_credentials_of_the_url_are_taken_out_of_it(db, relay, orders):
    basic = base64.b64encode(b"relay:topsecret-token").decode()
    server = HttpServer(authorization=f"Basic {basic}").start()
    try:
        config = to_web(server)
        config["sink"]["url"] = server.url("/hook").replace("//", "//relay:topsecret-token@")
        set_outbox(db, "p", config)
        with relay:
            insert_rows(db, "orders", 1)
            wait_rows(server, [1])
            assert "topsecret" not in relay.log(10_000)
    finally:
        server.stop()


def test_an_endless_answer_is_cut_off(db, web, relay, orders):
    web.rules({"answer": "x" * 5_000_000, "times": 1})
    set_outbox(db, "p", to_web(web))
    with relay:
        insert_rows(db, "orders", 1, 2)
        assert wait_rows(web, [1, 2]) == [1, 2]
        assert relay.peak_kib() < 200_000


def test_a_name_that_does_not_exist_waits_while_others_run(db, web, relay, orders):
    away = to_web(web)
    away["sink"]["url"] = "https://no-such-host.invalid/hook"
    set_outbox(db, "away", away)
    set_outbox(db, "here", to_web(web))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "away", "no such name", remedy="name resolution")
        wait_rows(web, [1])
    assert dead_letters(db, "away") == []


def test_a_slow_server_does_not_grow_memory_and_a_stop_is_quick(db, web, relay, orders):
    web.rules({"delay": 0.1})
    set_outbox(db, "p", to_web(web, message="row", batch_bytes="1MiB", sink={"max_in_flight": 1}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(web, [1])
        before = relay.resident_kib()
        for first in range(2, 40_000, 2_000):
            bulk(db, first, 2_000, size=300)
        holds_for(lambda: relay.peak_kib() - before < 40_000, 2)
        began = time.monotonic()
    assert time.monotonic() - began < 35
