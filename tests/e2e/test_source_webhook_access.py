"""The webhook receiver: who may write to it, and its configuration."""

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
import uuid

import pytest

from support.processes import free_port
from support.relay import Relay
from support.tls import Authority
from support.waiting import eventually, holds_for
from support.webhook_receiver import (JSON, head, listens, port, read_response, rows, send,
                                      set_receiver, status, wait_listening)
from support.writers import wait_trouble


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
        eventually(lambda: "401" in relay.log(), message=relay.log)
        assert "s3cr3t" not in relay.log(10000)
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
