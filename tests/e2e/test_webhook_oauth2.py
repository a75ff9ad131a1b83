"""Webhooks with access tokens by OAuth 2.0 client credentials, against a server that checks them."""

import json

import pytest

from support.checks import check, forward, no_problem, the_problem
from support.http_proxy import HttpProxy, basic
from support.pipelines import SLOW_FACTOR, insert_rows, set_outbox, wait_settled
from support.relay import Relay
from support.secrecy import assert_hidden
from support.token_server import AUDIENCE, CLIENT, SCOPE, SECRET, TokenServer
from support.waiting import eventually
from support.writers import dead_letters, wait_trouble


@pytest.fixture
def tokens():
    server = TokenServer()
    yield server
    server.close()


def sink(tokens, path="/hook", token_path="/token", **more):
    return {"type": "webhook", "url": tokens.url(path), "allow_private": True, "timeout": "3s",
            "connect_timeout": "2s", "oauth2_token_url": tokens.url(token_path),
            "oauth2_client_id": CLIENT, "oauth2_client_secret": SECRET, "oauth2_scope": SCOPE,
            "oauth2_audience": AUDIENCE, **more}


def to_hook(tokens, *arguments, **options):
    return {"stream_table": "orders", "sink": sink(tokens, *arguments, **options), "message": "row",
            "retry_min": "10ms", "retry_max": "100ms"}


def wait_taken(tokens, path, count=1, deadline=30):
    eventually(lambda: len(set(tokens.taken(path))) >= count, deadline * SLOW_FACTOR,
               message=lambda: f"{tokens.taken(path)[-5:]} of {count}; asked {len(tokens.asked)}")


def insert_until(db, relay, first, done):
    """Inserts row after row until that is so; returns the last one."""
    last = first - 1

    def one_more():
        nonlocal last
        last += 1
        insert_rows(db, "orders", last)
        return done()
    eventually(one_more, 60 * SLOW_FACTOR, message=relay.log)
    return last


def no_secret(relay, db, tokens):
    assert_hidden(relay, db, SECRET, "abcdefgh" * 4, *tokens.issued)


# What is sent ------------------------------------------------------------------------------


def test_a_token_is_fetched_once_and_sent_with_every_message(db, relay_bin, orders, tokens):
    tokens.echo = 422
    set_outbox(db, "basic", to_hook(tokens, "/basic", "/token/basic",
                                    oauth2_client_secret="${env:CLIENT_SECRET}"))
    set_outbox(db, "body", to_hook(tokens, "/body", "/token/body", oauth2_client_auth="body"))
    with Relay(db.relay_dsn, env={"CLIENT_SECRET": SECRET}, allow_secret="env:CLIENT_SECRET") as relay:
        insert_rows(db, "orders", 1, 2)
        for name in "basic", "body":
            found = eventually(lambda: len(dead_letters(db, name)) == 2 and dead_letters(db, name),
                               30 * SLOW_FACTOR, message=relay.log)
            assert all("you sent Bearer ****" in message for _, _, message, _ in found)
        tokens.echo = None
        insert_rows(db, "orders", 3, 4)
        wait_taken(tokens, "/basic", 2)
        wait_taken(tokens, "/body", 2)
        no_secret(relay, db, tokens)
    assert sorted(path for path, _, _ in tokens.asked) == ["/token/basic", "/token/body"]
    for path, headers, form in tokens.asked:
        assert (form["scope"], form["audience"]) == (SCOPE, AUDIENCE)
        assert ("Authorization" in headers) == (path == "/token/basic")
        assert ("client_secret" in form) == (path == "/token/body")
    assert {status for _, _, status, _ in tokens.arrived} == {200, 422}


def test_tokens_are_renewed_under_load_without_holding_up_deliveries(db, relay, orders, tokens):
    tokens.lifetime, tokens.delay = 3, 0.3
    set_outbox(db, "p", to_hook(tokens, max_in_flight=8))
    with relay:
        last = insert_until(db, relay, 1, lambda: len(tokens.issued) >= 4)
        wait_taken(tokens, "/hook", last, 60)
        wait_settled(db, "p", "orders")
        assert dead_letters(db, "p") == []
        no_secret(relay, db, tokens)
    assert tokens.most_at_once == 1
    assert tokens.during_renewal > 0
    assert len({token for _, token, status, _ in tokens.arrived if status == 200}) >= 3


def test_a_token_without_a_lifetime_is_used_until_it_is_refused(db, relay, orders, tokens):
    tokens.lifetime = None
    set_outbox(db, "p", to_hook(tokens))
    with relay:
        insert_rows(db, "orders", 1)
        wait_taken(tokens, "/hook", 1)
        tokens.revoked = set(tokens.issued)
        insert_rows(db, "orders", 2, 30)
        wait_taken(tokens, "/hook", 30)
        wait_settled(db, "p", "orders")
        assert relay.pipeline("p")["last_error"] is None and dead_letters(db, "p") == []
        no_secret(relay, db, tokens)
    assert len(tokens.asked) == 2 and tokens.most_at_once == 1
    refused = {identity for _, _, status, identity in tokens.arrived if status == 401}
    assert refused and refused <= set(tokens.taken())


def test_a_second_401_is_a_mistake_in_the_configuration(db, relay, orders, tokens):
    tokens.refuse_all = True
    set_outbox(db, "p", to_hook(tokens, max_in_flight=1) | {"retry_min": "2s", "retry_max": "2s"})
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "answered 401", remedy="oauth2_")
        assert relay.pipeline("p")["state"] == "misconfigured"
        # Each attempt sends the message twice at most, and asks for one token at most.
        assert len(tokens.arrived) <= len(tokens.asked) * 2
        no_secret(relay, db, tokens)
        tokens.refuse_all = False
        wait_taken(tokens, "/hook", 1)
    assert dead_letters(db, "p") == []


# What goes wrong ---------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
GOOD = {"access_token": "t0ken-number-999-abcdefghabcdefgh", "token_type": "Bearer", "expires_in": 60}
WRONG = {
    "html": ((200, {}, "<html>sign in</html>"), "something else than a JSON object"),
    "none": ((200, JSON, json.dumps({"token": GOOD["access_token"]})), "gave no access_token"),
    "lines": ((200, JSON, json.dumps(GOOD | {"access_token": "t0ken\r\nX-Evil: 1"})),
              "no header can carry"),
    "type": ((200, JSON, json.dumps(GOOD | {"token_type": "mac"})), "another type than Bearer"),
    "zero": ((200, JSON, json.dumps(GOOD | {"expires_in": 0})), "expired at once"),
    "soon": ((200, JSON, json.dumps(GOOD | {"expires_in": "soon"})), "no number of seconds"),
    "huge": ((200, JSON, json.dumps(GOOD | {"x": "y" * 5_000_000})), "sent more than any answer"),
    "moved": ((302, {"Location": "/token"}, ""), "answered 302"),
    "broken": ((503, {}, "t0ken-number-999-abcdefgh"), "answered 503"),
    "close": ("close", "asking for an access token: .* gave no answer"),
    "hang": ("hang", "asking for an access token: .* did not answer|is too slow"),
}


def test_each_wrong_answer_is_told_and_nothing_is_sent_until_it_ends(db, relay, orders, tokens):
    for name, (fault, _) in WRONG.items():
        tokens.faults[f"/token/{name}"] = fault
        set_outbox(db, name, to_hook(tokens, f"/{name}/", f"/token/{name}", timeout="1s"))
    set_outbox(db, "client", to_hook(tokens, "/client/", oauth2_client_secret="s3cret-but-another"))
    set_outbox(db, "scope", to_hook(tokens, "/scope/", oauth2_scope="none"))
    with relay:
        insert_rows(db, "orders", 1)
        for name, (_, message) in WRONG.items():
            wait_trouble(relay, db, name, message, deadline=40)
        wait_trouble(relay, db, "client", "answered 401 invalid_client", remedy="oauth2_client_secret")
        wait_trouble(relay, db, "scope", "answered 400 invalid_scope", remedy="oauth2_scope")
        assert tokens.arrived == []
        assert_hidden(relay, db, SECRET, "s3cret-but-another", GOOD["access_token"])
        tokens.faults.clear()
        for name in WRONG:
            wait_taken(tokens, f"/{name}/", deadline=60)
            assert dead_letters(db, name) == []


def test_a_renewal_that_fails_leaves_the_token_in_use(db, relay, orders, tokens):
    tokens.lifetime = 8
    set_outbox(db, "p", to_hook(tokens))
    with relay:
        insert_rows(db, "orders", 1)
        wait_taken(tokens, "/hook", 1)
        tokens.faults["/token"] = (500, {}, "")
        # That is two seconds before the token ends.
        last = insert_until(db, relay, 2, lambda: len(tokens.asked) >= 2)
        tokens.faults.clear()
        last = insert_until(db, relay, last + 1, lambda: len(tokens.issued) >= 2)
        wait_taken(tokens, "/hook", last, 60)
        assert "oauth2_not_renewed" in relay.log(10_000)
        assert dead_letters(db, "p") == []
        no_secret(relay, db, tokens)


def test_check_asks_for_a_token_and_tells_what_is_wrong(db, relay_bin, orders, tokens):
    forward(db, "good", sink(tokens))
    forward(db, "client", sink(tokens, oauth2_client_secret="another"))
    forward(db, "half", {**sink(tokens), "oauth2_client_id": None})
    forward(db, "both", sink(tokens, bearer_token="x"))
    forward(db, "header", sink(tokens, request_headers={"authorization": "x"}))
    forward(db, "clear", sink(tokens, allow_private=False) | {"url": "https://hooks.example.com/"})
    code, told = check(db)
    assert code == 3
    no_problem(told, "good")
    the_problem(told, "client", "answered 401 invalid_client", "oauth2_client_secret")
    the_problem(told, "half", "belong together", "set all three")
    for name in "both", "header":
        the_problem(told, name, "other credentials", "take away")
    the_problem(told, "clear", "unencrypted", "write https")
    assert tokens.taken() == [None] or tokens.taken() == ["pgtrickle-relay-check"]
    assert "s3cret" not in str(told)


# The way to the token endpoint -------------------------------------------------------------


def test_the_token_endpoint_is_behind_the_proxy_and_the_guard_too(db, relay, orders, tokens):
    proxy = HttpProxy("relay:pr0xy-secret-word")
    via = {"proxy": proxy.url("relay:pr0xy-secret-word")}
    try:
        set_outbox(db, "proxied", to_hook(tokens, "/proxied", **via))
        guarded = {"url": "https://93.184.216.34/hook", "allow_private": False}
        for name, host, more in (("inside", "localhost", {}), ("inside_proxied", "10.1.2.3", via)):
            set_outbox(db, name, to_hook(tokens, oauth2_token_url=f"https://{host}/token",
                                         **more) | {"sink": sink(
                                             tokens, oauth2_token_url=f"https://{host}/token",
                                             **more) | guarded})
        with relay:
            insert_rows(db, "orders", 1)
            wait_taken(tokens, "/proxied")
            for name in "inside", "inside_proxied":
                wait_trouble(relay, db, name, "asking for an access token: .*not a public address",
                             remedy="allow_private")
            no_secret(relay, db, tokens)
    finally:
        proxy.close()
    assert {asked.target for asked in proxy.asked} == {tokens.url("/token"), tokens.url("/proxied")}
    assert all(asked.headers["proxy-authorization"] == basic("relay:pr0xy-secret-word")
               for asked in proxy.asked)
    assert not [name for _, headers, _ in tokens.asked for name in headers if "proxy" in name.lower()]
