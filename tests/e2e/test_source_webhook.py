"""The webhook receiver, by the real binary, with clients of the standard library."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
import uuid

import pytest

from support.pipelines import LONG, SLOW_FACTOR
from support.processes import free_port
from support.proxy import FaultProxy
from support.relay import Relay
from support.tls import Authority
from support.waiting import eventually, holds_for
from support.writers import dead_letters, wait_trouble

TABLE = "pgtrickle.inbox_hooks"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def port():
    return free_port()


def set_receiver(db, port, name="hooks", options=None, **over):
    """A reverse pipeline from a receiver at `port` into the inbox `hooks`."""
    config = {"source": {"type": "webhook", "listen": f"127.0.0.1:{port}", **(options or {})},
              "sink": {"type": "inbox", "inbox_name": "hooks"}, **over}
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => true)",
               (name, json.dumps(config)))


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def wait_listening(port, relay):
    eventually(lambda: listens(port), 20 * SLOW_FACTOR, message=lambda: relay.log(40))


def send(port, body=b'{"n":1}', path="/inbox", headers=None, method="POST", tls=None, timeout=40):
    """(status, headers, parsed JSON body) of one request on a connection of its own."""
    if tls:
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls)
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        client.request(method, path, body=body, headers=JSON if headers is None else headers)
        response = client.getresponse()
        text = response.read()
        return response.status, dict(response.getheaders()), json.loads(text) if text else None
    finally:
        client.close()


def status(*arguments, **options):
    return send(*arguments, **options)[0]


def raw(port, data, timeout=20, half_close=False):
    """All that comes back for these bytes until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := client.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def raw_status(port, data, **options):
    answer = raw(port, data, **options)
    return int(answer.split(b" ", 2)[1]) if answer else None


def rows(db, columns="event_id", order="received_at, event_id"):
    if db.one("select to_regclass(%s)", (TABLE,)) is None:
        return []  # the first message makes it
    return db.execute(f"select {columns} from {TABLE} order by {order}")


# What becomes of a request ----------------------------------------------------------------------


def test_a_request_is_in_the_table_when_it_is_answered(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        for n in range(20):
            assert status(port, b'{"n":%d}' % n, headers={**JSON, "Idempotency-Key": f"k{n}"}) == 200
            assert db.one(f"select payload ->> 'n' from {TABLE} where event_id = %s",
                          (f"hooks:k{n}",)) == str(n)


def test_ids_types_and_headers_are_what_the_documentation_says(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        assert status(port, path="/inbox/orders?token=s3cr3t", headers={
            **JSON, "Idempotency-Key": "a", "webhook-id": "b", "X-Event-Type": "paid",
            "Authorization": "Bearer s3cr3t", "Cookie": "s3cr3t", "X-Shop": "7"}) == 200
        assert status(port, path="/inbox/orders", headers={**JSON, "webhook-id": "c"}) == 200
        assert status(port) == 200
        first, second, third = rows(db, "event_id, event_type, headers::text", "received_at")
    assert first[:2] == ("hooks:a", "paid")
    assert json.loads(first[2])["x-shop"] == "7" and "s3cr3t" not in first[2]
    assert second[:2] == ("hooks:c", "orders")
    assert third[1] == "inbox" and str(uuid.UUID(third[0])) == third[0]


def test_the_mapping_may_say_otherwise(db, relay, port):
    set_receiver(db, port, options={
        "id_from": "json:/id", "event_type_from": "template:{subject}!{header:X-Kind}",
        "aggregate_id_from": "json:/customer"})
    with relay:
        wait_listening(port, relay)
        assert status(port, b'{"id":5,"customer":"ann"}', headers={**JSON, "X-Kind": "k"}) == 200
        assert rows(db, "event_id, event_type, aggregate_id") == [("5", "/inbox!k", "ann")]


def test_a_duplicate_is_answered_with_200_and_stored_once(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        for _ in range(3):
            assert status(port, b'{"n":0}', headers={**JSON, "Idempotency-Key": "k"}) == 200
        assert rows(db, "event_id, payload ->> 'n'") == [("hooks:k", "0")]


def test_bodies_need_not_be_json(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        assert status(port, b"\xff\x00text", headers={"Content-Type": "text/plain"}) == 200
        assert status(port, b"", headers={"Content-Type": "text/plain"}) == 200
        assert status(port, b"[1]", headers={}) == 200
        stored = [row[0] for row in rows(db, "payload", "received_at")]
    assert base64.b64decode(stored[0]["raw_base64"]) == b"\xff\x00text"
    assert stored[0]["content_type"] == stored[1]["content_type"] == "text/plain"
    assert stored[2] == [1]


def test_an_id_of_any_length_tells_duplicates(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        long_id = "".join(hashlib.sha512(b"%d" % n).hexdigest() for n in range(60))
        for _ in range(2):
            assert status(port, headers={**JSON, "Idempotency-Key": long_id}) == 200
        hashed = hashlib.sha256(f"hooks:{long_id}".encode()).hexdigest()
        assert rows(db) == [(f"sha256:{hashed}",)]


def test_a_message_in_the_dead_letters_counts_as_settled(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        assert status(port, headers={**JSON, "Idempotency-Key": "good"}) == 200
        db.execute(f"alter table {TABLE} add constraint no_poison "
                   "check (payload ->> 'n' <> 'poison')")
        assert status(port, b'{"n":"poison"}', headers={**JSON, "Idempotency-Key": "bad"}) == 200
        (letter,) = dead_letters(db, "hooks")
        assert letter[1] == "23514" and "poison" in letter[3]
        assert rows(db) == [("hooks:good",)]


def test_a_sender_that_comes_again_is_told_that_its_message_is_a_dead_letter(db, relay, port):
    """Though it never waits for as long as it takes to see that no retry helps."""
    set_receiver(db, port, options={"response_timeout": "1s"}, retry_max="300ms")
    with relay:
        wait_listening(port, relay)
        assert status(port, headers={**JSON, "Idempotency-Key": "good"}) == 200
        db.execute(f"""create function refuse() returns trigger language plpgsql as $$ begin
            if new.payload ->> 'n' = 'poison' then
              raise exception 'not now' using errcode = 'HV000';
            end if;
            return new; end $$""")
        db.execute(f"create trigger t before insert on {TABLE} for each row execute "
                   "function refuse()")

        def is_settled():
            answer = status(port, b'{"n":"poison"}', headers={**JSON, "Idempotency-Key": "bad"})
            assert answer in (200, 503)
            return answer == 200
        eventually(is_settled, 25 * SLOW_FACTOR, message=lambda: relay.log(40))
        (letter,) = dead_letters(db, "hooks")
        assert letter[1] == "HV000" and "poison" in letter[3]
        assert rows(db) == [("hooks:good",)]


# Answer codes -----------------------------------------------------------------------------------


def head(extra="", path="/inbox"):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()


CLOSE = "Connection: close\r\n"


def test_each_mistake_has_its_own_code_and_a_json_error(db, relay, port):
    set_receiver(db, port, options={"max_body_bytes": "1KiB", "max_header_bytes": "1KiB"})
    with relay:
        wait_listening(port, relay)
        assert status(port, path="/elsewhere") == 404
        assert status(port, path="/inboxes") == 404
        code, headers, body = send(port, method="GET", body=None)
        assert (code, headers["Allow"]) == (405, "POST, PUT") and body["error"]
        assert send(port, method="HEAD", body=None)[0] == 405
        code, _, body = send(port, b"{nonsense")
        assert (code, body["error"]) == (400, "not_json")
        assert status(port, b"") == 400
        assert status(port, b"x" * 1025, headers={}) == 413
        assert status(port, b"x" * 1024, headers={}) == 200
        assert status(port, headers={**JSON, "Content-Encoding": "gzip"}) == 415
        assert status(port, headers={**JSON, "X-Long": "x" * 2000}) == 431
        assert raw_status(port, head(CLOSE)) == 411
        assert raw_status(port, head("Content-Length: 5000000\r\n")) == 413
        assert raw_status(port, head("Transfer-Encoding: gzip\r\n" + CLOSE)) in (400, 501)
        assert raw_status(port, b"POST /inbox HTTP/1.1\r\nContent-Length: 0\r\n"
                          b"Connection: close\r\n\r\n") == 400
        assert len(rows(db)) == 1


@pytest.mark.parametrize("data", [
    b"nonsense\r\n\r\n",
    b"POST /inbox HTTP/9.9\r\nHost: x\r\n\r\n",
    head("Content-Length: 5\r\nContent-Length: 6\r\n"),
    head("Content-Length: -1\r\n"),
    head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
    head("bad header\r\n"),
    head("X-A: a\x01b\r\n"),
    head("Transfer-Encoding: chunked\r\n") + b"zz\r\nabc\r\n0\r\n\r\n",
    head("Transfer-Encoding: chunked\r\n") + b"3\r\nabcde\r\n0\r\n\r\n",
    head(CLOSE + "Content-Length: 2\r\n", path="/inbox/%zz") + b"{}",
], ids=range(10))
def test_what_is_no_http_is_answered_with_400(db, relay, port, data):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        assert raw_status(port, data) == 400
        assert rows(db) == []
        assert status(port) == 200


def test_the_largest_body_is_taken(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        body = json.dumps("x" * (10 * 1024 * 1024 - 2)).encode()
        assert len(body) == 10 * 1024 * 1024
        assert status(port, body) == 200
        assert status(port, body + b" ") == 413
        assert rows(db, "length(payload #>> '{}')") == [(len(body) - 2,)]


# Connections ------------------------------------------------------------------------------------


def read_response(stream):
    line = stream.readline()
    length = 0
    while (header := stream.readline()) not in (b"\r\n", b""):
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    stream.read(length)
    return int(line.split()[1])


def test_requests_of_a_connection_are_answered_one_after_the_other(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(b"".join(
                head(f"Idempotency-Key: {n}\r\nContent-Length: 2\r\n") + b"{}" for n in range(50)))
            stream = client.makefile("rb")
            assert [read_response(stream) for _ in range(50)] == [200] * 50
            client.sendall(head("Transfer-Encoding: chunked\r\n") + b"1\r\n[\r\n1\r\n]\r\n0\r\n\r\n")
            assert read_response(stream) == 200
        assert len(rows(db)) == 51


def test_a_client_may_ask_before_it_sends_its_body(db, relay, port):
    set_receiver(db, port, options={"max_body_bytes": "1KiB"})
    with relay:
        wait_listening(port, relay)
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(head("Expect: 100-continue\r\nContent-Length: 2\r\n"))
            stream = client.makefile("rb")
            assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert stream.readline() == b"\r\n"
            client.sendall(b"{}")
            assert read_response(stream) == 200
        refused = raw(port, head("Expect: 100-continue\r\nContent-Length: 2000\r\n"))
        assert refused.startswith(b"HTTP/1.1 413")


def test_a_client_that_is_slow_loses_its_connection(db, relay, port):
    set_receiver(db, port, options={"idle_timeout": "500ms", "request_timeout": "500ms"})
    with relay:
        wait_listening(port, relay)
        began = time.monotonic()
        assert raw(port, b"") == b""
        assert raw_status(port, b"POST /inb") == 408
        assert raw_status(port, head("Content-Length: 10\r\n") + b"{") == 408
        assert raw_status(port, head("Content-Length: 10\r\n") + b"{", half_close=True) is None
        assert time.monotonic() - began < 10 * SLOW_FACTOR
        assert rows(db) == []


def test_a_client_that_drips_bytes_is_cut_off(db, relay, port):
    set_receiver(db, port, options={"request_timeout": "1s"})
    with relay:
        wait_listening(port, relay)
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.settimeout(0.05)
            client.sendall(b"POST /inbox HTTP/1.1\r\nX: ")
            began = time.monotonic()
            answer = b""
            while not answer and time.monotonic() - began < 15 * SLOW_FACTOR:
                client.sendall(b"x")
                try:
                    answer = client.recv(100)
                except TimeoutError:
                    pass
            assert answer.startswith(b"HTTP/1.1 408")


def test_one_connection_too_many_is_told_so(db, relay, port):
    set_receiver(db, port, options={"max_connections": 3})
    with relay:
        wait_listening(port, relay)
        held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(3)]
        try:
            eventually(lambda: status(port) == 503, 10)
        finally:
            for client in held:
                client.close()
        eventually(lambda: status(port) == 200, 10)


# Who may write ----------------------------------------------------------------------------------


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("options, right, wrong", [
    ({"auth": "bearer", "bearer_token": "s3cr3t"}, {"Authorization": "Bearer s3cr3t"},
     [{"Authorization": "Bearer s3cr3"}, {"Authorization": "s3cr3t"}]),
    ({"auth": "basic", "user": "ann", "password": "s3cr3t"}, basic("ann", "s3cr3t"),
     [basic("ann", "other"), basic("bob", "s3cr3t"), {"Authorization": "Basic %%%"}]),
    ({"auth": "header", "auth_header": "X-Key", "auth_value": "s3cr3t"}, {"x-key": "s3cr3t"},
     [{"x-key": "S3CR3T"}, {"x-kez": "s3cr3t"}]),
], ids=["bearer", "basic", "header"])
def test_only_who_knows_the_secret_may_write(db, relay_bin, port, options, right, wrong):
    set_receiver(db, port, options=options)
    with Relay(db.relay_dsn, log_level="debug") as relay:
        wait_listening(port, relay)
        assert status(port, headers={**JSON, **right}) == 200
        for headers in [{}, *wrong]:
            code, answered, body = send(port, headers={**JSON, **headers})
            assert (code, body["error"]) == (401, "unauthorised")
            if options["auth"] in ("bearer", "basic"):
                assert answered["WWW-Authenticate"].lower().startswith(options["auth"])
        assert len(rows(db)) == 1
        assert "s3cr3t" not in rows(db, "headers::text")[0][0]
        assert "s3cr3t" not in relay.log(10000) and "401" in relay.log()
        assert "s3cr3t" not in json.dumps(relay.health())


def signed(key, body, at=None, identity=None):
    identity = identity or str(uuid.uuid4())
    at = str(int(time.time()) if at is None else at)
    digest = hmac.new(key, f"{identity}.{at}.".encode() + body, hashlib.sha256).digest()
    return {**JSON, "webhook-id": identity, "webhook-timestamp": at,
            "webhook-signature": "v1," + base64.b64encode(digest).decode()}


def test_a_signature_covers_id_time_and_body(db, relay, port):
    key = b"0123456789abcdef01234567"
    secret = "whsec_" + base64.b64encode(key).decode()
    set_receiver(db, port, options={"auth": "hmac", "signature_secret": secret})
    with relay:
        wait_listening(port, relay)
        body = b'{"n":1}'
        good = signed(key, body, identity="m1")
        assert status(port, body, headers=good) == 200
        for name in ("Idempotency-Key", "pgtrickle-id"):  # no signature covers these
            assert status(port, body, headers={**good, name: "another"}) == 200
        several = {**good, "webhook-signature": "v1a,x v1,x " + good["webhook-signature"]}
        assert status(port, body, headers=several) == 200
        for headers in ({**good, "webhook-id": "m2"}, {**good, "webhook-signature": "v1,x"},
                        {**good, "webhook-timestamp": str(int(time.time()) + 1)}, JSON,
                        signed(b"other", body), signed(key, body, time.time() // 1 - 400),
                        signed(key, b'{"n":2}'), signed(key, body, int(time.time()) + 400)):
            assert status(port, body, headers=headers) == 401, headers
        assert rows(db) == [("hooks:m1",)]
        assert secret not in relay.log(10000)


def test_it_receives_over_tls_and_knows_its_clients(db, relay, port):
    authority, stranger = Authority(), Authority("a stranger")
    certificate, key = authority.certificate("server")
    set_receiver(db, port, options={"tls_cert": certificate, "tls_key": key,
                                    "tls_ca": authority.ca})
    known = ssl.create_default_context(cafile=authority.ca)
    known.load_cert_chain(*authority.certificate("client"))
    unknown = ssl.create_default_context(cafile=authority.ca)
    unknown.load_cert_chain(*stranger.certificate("client"))
    relay.argv += ["--allow-secret", f"file:{key}"]
    with relay:
        wait_listening(port, relay)
        assert status(port, tls=known) == 200
        for wrong in (unknown, ssl.create_default_context(cafile=authority.ca)):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
                send(port, tls=wrong)
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            send(port)
        assert len(rows(db)) == 1
        # Many over one connection, the last one large.
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=known)
        for body in (b"{}", b"[]", json.dumps("x" * 3_000_000).encode()):
            client.request("POST", "/inbox", body=body, headers=JSON)
            response = client.getresponse()
            assert response.status == 200 and response.read()
        client.close()


# Configuration ----------------------------------------------------------------------------------


def test_an_address_in_use_is_a_configuration_error(db, relay, port):
    set_receiver(db, port)
    with socket.create_server(("127.0.0.1", port)):
        with relay:
            wait_trouble(relay, db, "hooks", f"127.0.0.1:{port}", remedy="listen")
            assert relay.pipeline("hooks")["state"] == "misconfigured"


def test_a_secret_that_is_missing_is_a_configuration_error(db, relay, port):
    set_receiver(db, port, options={"auth": "bearer"})
    with relay:
        wait_trouble(relay, db, "hooks", "needs bearer_token", remedy="bearer_token")


def test_the_flat_form(db, relay, port):
    db.execute("select pgtrickle.set_relay_inbox('hooks', config => %s::jsonb, enabled => true)",
               (json.dumps({"source_type": "webhook", "webhook_listen": f"127.0.0.1:{port}",
                            "webhook_path": "/in", "inbox_name": "hooks"}),))
    with relay:
        wait_listening(port, relay)
        assert status(port, path="/in") == 200
        assert len(rows(db)) == 1


def test_the_toml_form_with_a_secret_by_reference(db, relay_bin, port, tmp_path):
    (tmp_path / "relay.toml").write_text(f"""
[global]
postgres_url = "{db.relay_dsn}"

[[pipeline]]
name = "hooks"
source = {{ type = "webhook", listen = "127.0.0.1:{port}", auth = "bearer", bearer_token = "${{TOKEN}}" }}
sink = {{ type = "inbox", inbox_name = "hooks" }}
""")
    with Relay(None, "--config", tmp_path / "relay.toml", env={"TOKEN": "s3cr3t"}) as relay:
        wait_listening(port, relay)
        assert status(port) == 401
        assert status(port, headers={**JSON, "Authorization": "Bearer s3cr3t"}) == 200
        assert "s3cr3t" not in relay.log(10000)


def test_a_changed_and_a_disabled_pipeline_give_their_port_back(db, relay, port):
    other = free_port()
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        set_receiver(db, other)
        wait_listening(other, relay)
        assert status(other) == 200
        assert not listens(port)
        db.execute("select pgtrickle.disable_relay('hooks')")
        eventually(lambda: not listens(other), 10)


def test_an_idle_receiver_goes_on_listening(db, relay, port):
    set_receiver(db, port)
    with relay:
        wait_listening(port, relay)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            relay.wait_state("hooks", "idle", deadline=20)
            holds_for(lambda: listens(port), 4)
            client.sendall(head("Content-Length: 2\r\n") + b"{}")
            assert read_response(client.makefile("rb")) == 200


# Trouble ----------------------------------------------------------------------------------------


def test_without_its_destination_it_answers_503_and_recovers(db, own_pg_server, own_db, relay, port):
    """The inbox is in another server than the relay's own database."""
    config = {"source": {"type": "webhook", "listen": f"127.0.0.1:{port}",
                         "response_timeout": "1s"},
              "sink": {"type": "inbox", "inbox_name": "hooks", "url": own_db.relay_dsn}}
    db.execute("select pgtrickle.set_relay_inbox('hooks', config => %s::jsonb, enabled => true)",
               (json.dumps(config),))
    with relay:
        wait_listening(port, relay)
        assert status(port, headers={**JSON, "Idempotency-Key": "before"}) == 200
        own_pg_server.stop_immediate()
        took = []
        for n in range(6):
            began = time.monotonic()
            code, headers, body = send(port, headers={**JSON, "Idempotency-Key": f"during{n}"})
            took.append(time.monotonic() - began)
            assert code == 503 and int(headers["Retry-After"]) > 0 and body["error"]
        assert took[0] > 0.9 and took[-1] < 0.9, took
        own_pg_server.start()
        eventually(lambda: status(port, headers={**JSON, "Idempotency-Key": "after"}) == 200,
                   60 * SLOW_FACTOR, message=lambda: relay.log(40))
    stored = {row[0] for row in rows(own_db)}
    assert {"hooks:before", "hooks:during0", "hooks:after"} <= stored


def turned_away(port):
    """Whether a request is answered, and with: come again later."""
    code, headers, body = send(port)
    return code == 503 and int(headers["Retry-After"]) > 0 and body["error"] == "unavailable"


def test_without_the_relays_database_it_answers_503_and_recovers(own_pg_server, own_db, relay_bin,
                                                                 port):
    set_receiver(own_db, port, options={"response_timeout": "1s"})
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        for stop in (own_pg_server.stop_immediate, own_pg_server.kill9):
            eventually(lambda: status(port) == 200, 60 * SLOW_FACTOR,
                       message=lambda: relay.log(40))
            stop()
            holds_for(lambda: turned_away(port), 4, interval=0.02)
            own_pg_server.start()
        began = time.monotonic()
        eventually(lambda: status(port) == 200, 60 * SLOW_FACTOR, interval=0.02,
                   message=lambda: relay.log(40))
        print(f"200 again {time.monotonic() - began:.2f} s after PostgreSQL was")


def test_a_pipeline_that_goes_away_with_the_database_gives_its_port_back(
        own_pg_server, own_db, relay_bin, port):
    """What is decided while the relay cannot know it holds when it does."""
    set_receiver(own_db, port)
    with Relay(own_db.relay_dsn) as relay, FaultProxy(own_pg_server.port) as proxy:
        wait_listening(port, relay)
        relay.stop()
        through = Relay(own_db.relay_dsn.replace(str(own_pg_server.port), str(proxy.port)))
        with through:
            wait_listening(port, through)
            proxy.cut()
            eventually(lambda: turned_away(port), 20 * SLOW_FACTOR)
            own_db.execute("select pgtrickle.disable_relay('hooks')")
            proxy.restore()
            eventually(lambda: not listens(port), 30 * SLOW_FACTOR)


def test_while_another_relay_owns_the_pipeline_one_without_the_database_accepts_nothing(
        own_pg_server, own_db, relay_bin, port):
    """Each listens at an address of its own, as on hosts of their own."""
    other = free_port()
    config = {"source": {"type": "webhook", "listen": "127.0.0.1:${env:HOOKS_PORT}"},
              "sink": {"type": "inbox", "inbox_name": "hooks"}}
    own_db.execute("select pgtrickle.set_relay_inbox('hooks', config => %s::jsonb, enabled => true)",
                   (json.dumps(config),))
    with FaultProxy(own_pg_server.port) as proxy:
        dsn = own_db.relay_dsn.replace(str(own_pg_server.port), str(proxy.port))
        with Relay(dsn, env={"HOOKS_PORT": str(port)}, allow_secret="env:HOOKS_PORT") as first:
            wait_listening(port, first)
            assert status(port) == 200
            with Relay(own_db.relay_dsn, env={"HOOKS_PORT": str(other)},
                       allow_secret="env:HOOKS_PORT") as second:
                second.wait_up()
                proxy.cut()
                wait_listening(other, second)
                assert status(other, headers={**JSON, "Idempotency-Key": "second"}) == 200
                holds_for(lambda: turned_away(port), 2, interval=0.05)
                proxy.restore()
                eventually(lambda: not listens(port), 30 * SLOW_FACTOR,
                           message=lambda: first.log(40))
                assert status(other) == 200
    assert len(rows(own_db)) == 3


def test_what_waits_is_bounded_and_a_stop_answers_it(own_pg_server, own_db, relay_bin, port):
    """A table that nobody may write to for a while holds everything up."""
    set_receiver(own_db, port, options={"max_waiting": 4, "response_timeout": "60s"})
    codes = []

    def client(n):
        try:
            codes.append(status(port, headers={**JSON, "Idempotency-Key": f"w{n}"}))
        except (OSError, http.client.HTTPException):
            codes.append(None)
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        assert status(port) == 200
        blocker = own_db.connect(autocommit=False)
        blocker.execute(f"lock table {TABLE} in access exclusive mode")
        threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: status(port, timeout=2) == 503, 20)
        assert set(codes) <= {503}  # one of them may have come after this request
        stopper = threading.Thread(target=relay.stop)
        stopper.start()
        for thread in threads:
            thread.join(60)
        blocker.rollback()
        blocker.close()
        stopper.join(60)
    assert codes == [503] * 4


# Load -------------------------------------------------------------------------------------------


class Load:
    """Many connections that send one request after the other, until told to end. What was answered
    with 200 is in `confirmed`, everything that was sent in `sent`."""

    def __init__(self, port, connections):
        self.port, self.connections = port, connections
        self.sent, self.confirmed, self.codes = set(), set(), {}
        self.ending = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    async def _all(self):
        await asyncio.gather(*(self._client(n) for n in range(self.connections)))

    async def _client(self, number):
        count = 0
        while not self.ending:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                while not self.ending:
                    count += 1
                    identity = f"{number}-{count}"
                    # Every third that fails is sent once more; the others stay as they are.
                    if await self._one(reader, writer, identity) != 200:
                        await asyncio.sleep(0.05)
                        if count % 3 == 0:
                            await self._one(reader, writer, identity)
            except (OSError, asyncio.IncompleteReadError, IndexError, ValueError):
                pass
            finally:
                writer.close()

    async def _one(self, reader, writer, identity):
        body = json.dumps({"id": identity}).encode()
        writer.write(head(f"Idempotency-Key: {identity}\r\nContent-Type: application/json\r\n"
                          f"Content-Length: {len(body)}\r\n") + body)
        self.sent.add(identity)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        code = int(answer.split()[1])
        length = next(int(line.split(b":")[1]) for line in answer.split(b"\r\n")
                      if line.lower().startswith(b"content-length"))
        await reader.readexactly(length)
        self.codes[code] = self.codes.get(code, 0) + 1
        if code == 200:
            self.confirmed.add(identity)
        return code

    def start(self):
        self._thread.start()
        return self

    def end(self):
        self.ending = True
        self._thread.join(90)
        assert not self._thread.is_alive()

    def check(self, db):
        stored = db.execute("select substr(event_id, length('hooks:') + 1), payload ->> 'id'"
                            f" from {TABLE}")
        assert all(identity == inside for identity, inside in stored)
        identities = [identity for identity, _ in stored]
        assert len(identities) == len(set(identities))
        assert not self.confirmed - set(identities), "answered with 200, and not in the table"
        assert not set(identities) - self.sent
        print(f"{self.codes} answers, {len(identities)} rows, {len(self.confirmed)} confirmed")


def seconds_of_load(load, seconds):
    before = len(load.confirmed)
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end and len(load.confirmed) > before + 256,
               seconds + 60 * SLOW_FACTOR, message=lambda: load.codes)


def test_every_200_is_in_the_table_when_postgresql_restarts_under_256_connections(
        own_pg_server, own_db, relay_bin, port):
    set_receiver(own_db, port, options={"response_timeout": "5s"})
    with Relay(own_db.relay_dsn) as relay:
        wait_listening(port, relay)
        load = Load(port, 256).start()
        seconds_of_load(load, 30 if LONG else 3)
        own_pg_server.restart("immediate")
        seconds_of_load(load, 30 if LONG else 3)
        load.end()
        load.check(own_db)
        together = own_db.one(f"select count(*)::float8 / count(distinct xmin::text) from {TABLE}")
        print(f"{together:.1f} requests a transaction")
        assert together > 2, "concurrent requests share a transaction"


def test_every_200_is_in_the_table_when_the_relay_is_killed(db, relay_bin, port):
    set_receiver(db, port)
    relay = Relay(db.relay_dsn).start()
    wait_listening(port, relay)
    load = Load(port, 64).start()
    for _ in range(10 if LONG else 3):
        seconds_of_load(load, 0.5)
        relay.kill9()
        relay.start()
    seconds_of_load(load, 0.5)
    load.end()
    load.check(db)
    relay.stop()
