"""Webhooks and SQS through an HTTP proxy, by the real binary against a proxy that keeps what it is asked."""

import json

import pytest

from support import aws_credentials
from support.checks import check, forward, no_problem, the_problem
from support.http_proxy import HttpProxy, basic, names
from support.http_server import HttpServer
from support.pipelines import SLOW_FACTOR, insert_rows, set_outbox
from support.processes import free_port, temporary_directory
from support.relay import Relay
from support.secrecy import assert_hidden
from support.sqs_fixtures import queue_name, server, sqs  # noqa: F401
from support.sqs_server import KEYS, REGION, Inbox
from support.tls import Authority
from support.waiting import eventually
from support.writers import dead_letters, wait_trouble

CREDENTIALS = "relay:pr0xy-secret-word"
PUBLIC = "93.184.216.34"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def secure(authority):
    """A web server with TLS that is known by a name and by a public address."""
    certificate = authority.certificate(
        "server", f"DNS:hooks.example.com,DNS:localhost,IP:127.0.0.1,IP:{PUBLIC}")
    running = HttpServer(tls=certificate).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def plain():
    running = HttpServer().start()
    yield running
    running.stop()


@pytest.fixture
def proxy():
    running = HttpProxy(CREDENTIALS)
    yield running
    running.close()


def to_hook(url, proxy=None, **sink):
    """A pipeline to that address; by the environment's proxy where none is given."""
    sink = {"type": "webhook", "url": url, "timeout": "3s", "connect_timeout": "2s", **sink}
    if proxy:
        sink["proxy"] = proxy
    return {"stream_table": "orders", "sink": sink, "retry_min": "10ms", "retry_max": "100ms"}


def wait_arrived(web, path, count=1):
    return eventually(lambda: len(web.accepted(path)) >= count and web.accepted(path),
                      30 * SLOW_FACTOR, message=lambda: f"nothing at {path}; {web.log()}")


def no_secret(relay, db):
    assert_hidden(relay, db, "pr0xy-secret-word", basic(CREDENTIALS)[6:])


# What the proxy and the server get -----------------------------------------------------------


def test_requests_go_through_the_proxy_whose_credentials_only_it_gets(
        db, relay, orders, authority, secure, plain, proxy):
    private = {"allow_private": True, "tls_ca": authority.ca, "bearer_token": "of-the-server"}
    set_outbox(db, "secure", to_hook(secure.url("/a"), proxy.url(CREDENTIALS), **private))
    set_outbox(db, "plain", to_hook(plain.url("/a"), proxy.url(CREDENTIALS), **private))
    with relay:
        insert_rows(db, "orders", 1)
        requests = wait_arrived(secure, "/a") + wait_arrived(plain, "/a")
        no_secret(relay, db)
    for request in requests:
        assert request.headers["authorization"] == "Bearer of-the-server"
        assert not [name for name in request.headers if name.startswith("proxy")]
    tunnel, = [asked for asked in proxy.asked if asked.method == "CONNECT"]
    assert tunnel.target == f"127.0.0.1:{secure.port}"
    assert "authorization" not in tunnel.headers and "idempotency-key" not in tunnel.headers
    forwarded, = [asked for asked in proxy.asked if asked.method == "POST"]
    assert forwarded.target == plain.url("/a")
    assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {basic(CREDENTIALS)}


def test_the_proxy_is_that_of_the_environment_unless_no_proxy_has_the_host(
        db, relay_bin, orders, authority, secure, plain, proxy):
    private = {"allow_private": True, "tls_ca": authority.ca}
    by_name = secure.url("/by-name").replace("127.0.0.1", "localhost")
    set_outbox(db, "by_name", to_hook(by_name, **private))
    set_outbox(db, "direct", to_hook(secure.url("/direct"), **private))
    set_outbox(db, "none", to_hook(by_name.replace("by-name", "none"), "none", **private))
    set_outbox(db, "plain", to_hook(plain.url("/cgi"), **private))
    env = {"HTTPS_PROXY": proxy.url(CREDENTIALS), "HTTP_PROXY": f"http://127.0.0.1:{free_port()}",
           "NO_PROXY": "example.com, 127.0.0.0/8"}
    with Relay(db.relay_dsn, env=env) as relay:
        insert_rows(db, "orders", 1)
        for web, path in (secure, "/by-name"), (secure, "/direct"), (secure, "/none"), (plain, "/cgi"):
            wait_arrived(web, path)
        no_secret(relay, db)
    assert [asked.target for asked in proxy.asked] == [f"localhost:{secure.port}"]


def test_a_proxy_may_itself_speak_tls(db, relay, orders, authority, secure):
    proxy = HttpProxy(CREDENTIALS, tls=authority.certificate("proxy"))
    try:
        private = {"allow_private": True}
        set_outbox(db, "p", to_hook(secure.url("/tls"), proxy.url(CREDENTIALS), tls_ca=authority.ca,
                                    **private))
        set_outbox(db, "q", to_hook(secure.url("/untrusted"), proxy.url(CREDENTIALS), **private))
        with relay:
            insert_rows(db, "orders", 1)
            wait_arrived(secure, "/tls")
            wait_trouble(relay, db, "q", f"the proxy https://127.0.0.1:{proxy.port} shows a"
                         " certificate that is not trusted", remedy="tls_ca")
        assert secure.requests("/untrusted") == []
    finally:
        proxy.close()


# The guard ---------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_the_checked_address_and_the_name_is_verified(
        db, relay_bin, orders, authority, secure, plain, proxy):
    proxy.routes = {f"{PUBLIC}:443": secure.port, f"{PUBLIC}:80": plain.port}
    via = proxy.url(CREDENTIALS)
    for name, url in {
            "name": "https://hooks.example.com/guarded", "other": "https://other.example.com/guarded",
            "plain": "http://hooks.example.com/guarded", "address": f"https://{PUBLIC}/literal",
            "inside": "https://inside.example.com/guarded", "loopback": "https://localhost/guarded",
            "metadata": "http://169.254.169.254/guarded", "number": "http://2130706433/guarded",
            "mapped": "https://[::ffff:10.0.0.1]/guarded",
            "absent": "https://no-such-host.invalid/guarded", "slow": "https://slow.example.com/"}.items():
        set_outbox(db, name, to_hook(url, via, tls_ca=authority.ca))
    env = names(hooks_example_com=PUBLIC, other_example_com=PUBLIC, inside_example_com="10.1.2.3",
                slow_example_com="slow")
    with Relay(db.relay_dsn, env=env) as relay:
        insert_rows(db, "orders", 1)
        assert wait_arrived(secure, "/guarded")[0].headers["host"] == "hooks.example.com"
        assert wait_arrived(plain, "/guarded")[0].headers["host"] == "hooks.example.com"
        wait_arrived(secure, "/literal")
        wait_trouble(relay, db, "other", "certificate that is not trusted")
        for name in ("inside", "loopback", "metadata", "number", "mapped"):
            wait_trouble(relay, db, name, "not a public address", remedy="allow_private")
        for name in ("absent", "slow"):
            wait_trouble(relay, db, name, "no such name", remedy="allow_private")
        no_secret(relay, db)
    assert {asked.target for asked in proxy.asked} == {f"{PUBLIC}:443", f"{PUBLIC}:80"}
    assert {asked.method for asked in proxy.asked} == {"CONNECT"}


def test_the_environment_of_the_proxy_does_not_lift_the_guard(db, relay_bin, orders, plain, proxy):
    set_outbox(db, "p", to_hook(plain.url("/lifted")))
    set_outbox(db, "q", to_hook(plain.url("/lifted")))
    env = {"http_proxy": proxy.url(CREDENTIALS)}
    with Relay(db.relay_dsn, env=env) as relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "not a public address", remedy="allow_private")
    with Relay(db.relay_dsn, env={**env, "no_proxy": "*"}) as relay:
        wait_trouble(relay, db, "q", "not a public address", remedy="allow_private")
    assert proxy.asked == [] and plain.requests("/lifted") == []


# What goes wrong ---------------------------------------------------------------------------


FAULTS = [(403, "answered 403 instead of connecting", "let the proxy's operator allow CONNECT"),
          (407, "does not accept the credentials", "user and password in proxy"),
          (502, "answered 502 instead of connecting", "look at the proxy's log"),
          ("close", "gave no answer through the proxy", "tried again"),
          ("garbage", "through the proxy", "tried again"),
          ("hang", "did not answer within .* through the proxy", "look at the proxy")]


def test_each_fault_of_a_proxy_is_told_and_ends(db, relay, orders, authority, secure, plain):
    proxies = {str(fault): HttpProxy(CREDENTIALS) for fault, _, _ in FAULTS}
    private = {"allow_private": True, "tls_ca": authority.ca, "timeout": "1s"}
    try:
        for fault, _, _ in FAULTS:
            proxies[str(fault)].fault = fault
            set_outbox(db, f"p{fault}", to_hook(
                secure.url(f"/fault-{fault}"), proxies[str(fault)].url(CREDENTIALS), **private))
        set_outbox(db, "plain407", to_hook(plain.url("/fault-plain"),
                                           proxies["407"].url(CREDENTIALS), **private))
        with relay:
            insert_rows(db, "orders", 1)
            for fault, message, remedy in FAULTS:
                wait_trouble(relay, db, f"p{fault}", message, remedy=remedy, deadline=40)
            wait_trouble(relay, db, "plain407", FAULTS[1][1], remedy=FAULTS[1][2])
            assert relay.pipeline("p407")["state"] == "misconfigured"
            no_secret(relay, db)
            for proxy in proxies.values():
                proxy.fault = None
            for fault, _, _ in FAULTS:
                wait_arrived(secure, f"/fault-{fault}")
                assert dead_letters(db, f"p{fault}") == []
            wait_arrived(plain, "/fault-plain")
    finally:
        for proxy in proxies.values():
            proxy.close()


def test_what_a_proxy_sends_back_shows_no_credentials(db, relay_bin, orders, plain, proxy):
    proxy.fault = "echo"
    set_outbox(db, "env", to_hook(plain.url("/echo"), allow_private=True))
    set_outbox(db, "own", to_hook(plain.url("/echo"), proxy.url(CREDENTIALS)[7:], allow_private=True))
    with Relay(db.relay_dsn, env={"http_proxy": proxy.url(CREDENTIALS)[7:]}) as relay:
        insert_rows(db, "orders", 1)
        for name in "env", "own":
            (_, _, message, _), = eventually(lambda: dead_letters(db, name), 30 * SLOW_FACTOR)
            assert "roxy-Authorization" in message
        no_secret(relay, db)


def test_check_reports_what_is_wrong_with_a_proxy(db, relay_bin, orders, authority, secure, proxy):
    private = {"allow_private": True, "tls_ca": authority.ca}
    closed = free_port()
    forward(db, "good", to_hook(secure.url("/check"), proxy.url(CREDENTIALS), **private)["sink"])
    forward(db, "wrong", to_hook(secure.url("/check"), proxy.url("relay:wrong-word"), **private)["sink"])
    forward(db, "away", to_hook(secure.url("/check"), f"http://127.0.0.1:{closed}", **private)["sink"])
    code, told = check(db)
    assert code == 3
    no_problem(told, "good")
    the_problem(told, "wrong", "does not accept the credentials", "user and password in proxy")
    the_problem(told, "away", f"the proxy http://127.0.0.1:{closed} cannot be reached", "port in proxy")


def test_what_is_no_proxy_is_refused_without_showing_it(db, relay_bin, orders):
    for number, text in enumerate(["socks5://u:pr0xy-secret@h:1", "http://u:pr0xy-secret@h"]):
        forward(db, f"p{number}", to_hook("https://hooks.example.com/", text)["sink"])
    _, told = check(db)
    the_problem(told, "p0", "proxy: it is no address of an HTTP proxy; SOCKS", "http://host:port")
    the_problem(told, "p1", "proxy: it names no port", "http://host:port")
    assert "pr0xy-secret" not in str(told)


# SQS ---------------------------------------------------------------------------------------


def test_sqs_goes_through_the_proxy_in_both_directions(db, sqs, relay, orders, proxy):
    url = sqs.queue(queue_name())
    end = {"type": "sqs", "queue_url": url, "region": REGION, "endpoint": sqs.endpoint,
           "proxy": proxy.url(CREDENTIALS), "timeout": "3s", **KEYS}
    set_outbox(db, "out", {"stream_table": "orders", "sink": end})
    db.execute("select pgtrickle.create_inbox('mail')")
    db.execute("select pgtrickle.set_relay_inbox('in', %s::jsonb)",
               (json.dumps({"source": {**end, "wait": 1},
                            "sink": {"type": "pg-inbox", "inbox_name": "mail"}}),))
    db.execute("select pgtrickle.enable_relay('in')")
    with relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: db.one("select count(*) from pgtrickle.inbox_mail") == 1,
                   30 * SLOW_FACTOR, message=relay.log)
        no_secret(relay, db)
    actions = {asked.headers["x-amz-target"].split(".")[1] for asked in proxy.asked}
    assert {"SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"} <= actions
    assert all(asked.target.startswith(sqs.endpoint) for asked in proxy.asked)


@pytest.mark.parametrize("kind", ["instance", "container", "role"])
def test_metadata_services_are_never_asked_through_a_proxy(db, sqs, relay_bin, orders, proxy, kind):
    service = aws_credentials.MetadataService()
    env, _ = aws_credentials.environment(kind, service, temporary_directory("aws"))
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    set_outbox(db, "p", {"stream_table": "orders", "sink": {
        "type": "sqs", "queue_url": url, "region": REGION, "endpoint": sqs.endpoint}})
    try:
        with Relay(db.relay_dsn, env={**env, "http_proxy": proxy.url(CREDENTIALS)}):
            insert_rows(db, "orders", 1)
            eventually(inbox.read, 30 * SLOW_FACTOR)
    finally:
        service.close()
    by_proxy = {asked.target.removesuffix("/") for asked in proxy.asked}
    # The token service is asked from afar, and so through the proxy.
    assert by_proxy == {sqs.endpoint, service.url} if kind == "role" else by_proxy == {sqs.endpoint}
