"""The webhook receiver, by the real binary, with clients of the standard library."""

import base64
import hashlib
import json
import socket
import time
import uuid

import pytest

from support.pipelines import SLOW_FACTOR
from support.waiting import eventually
from support.webhook_receiver import (JSON, TABLE, head, port, read_response, rows, send,
                                      set_receiver, status, wait_listening)
from support.writers import dead_letters


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
