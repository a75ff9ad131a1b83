"""The webhook receiver with the signatures and the handshakes of GitHub, Stripe and Slack. The tests
sign by themselves; the worked examples of the providers are in the unit tests."""

import json
import time
import urllib.parse

import pytest

from support import signed_webhooks
from support.signed_webhooks import PROVIDERS, SECRET
from support.webhook_receiver import port, rows, send, set_receiver, status, wait_listening  # noqa: F401
from support.writers import dead_letters, wait_trouble

ALL = pytest.mark.parametrize("provider", PROVIDERS, ids=str)


def receive(db, port, name, secret=SECRET, **options):
    set_receiver(db, port, options={"auth": name, "signature_secret": secret, **options})


def headers_but(headers, **changed):
    """The headers with other values, by name with _ for -; None leaves one out."""
    wanted = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    kept = {name: wanted.pop(name.lower(), value) for name, value in headers.items()}
    return {name: value for name, value in (kept | wanted).items() if value is not None}


@ALL
def test_an_event_has_its_providers_id_type_and_key_and_is_stored_once(db, relay, port, provider):
    receive(db, port, provider.name)
    with relay:
        wait_listening(port, relay)
        for _ in range(3):  # the provider sends it again, signed anew
            headers = provider.sign(provider.body)
            forged = {"Idempotency-Key": "x", "pgtrickle-id": "x", "webhook-id": "x",
                      "X-Event-Type": "x"}
            assert status(port, provider.body, headers={**headers, **forged}) == 200
        stored, = rows(db, "event_id, event_type, aggregate_id, payload, headers::text")
        assert stored[:3] == provider.expected
        assert stored[3] == json.loads(provider.body)
        assert headers[provider.header] not in stored[4]
        assert SECRET not in relay.log(10_000)


@ALL
def test_a_signature_that_is_not_right_is_refused_with_one_answer(db, relay, port, provider):
    """Missing, malformed, doubled, of another length, of another secret, of other bytes, too old."""
    receive(db, port, provider.name)
    body, good = provider.body, provider.sign(provider.body)
    name = provider.header.replace("-", "_")
    right = good[provider.header]
    wrong = [(body, headers_but(good, **{name: value})) for value in (
        None, "", " ", right[:-1], right + "0", right.upper(), right + "," + right,
        "x" + right, right.partition("=")[2], "=" * 200, "\u00ff" * 64,
        right.replace("v1=", "v0=").replace("v0=", "v2=").replace("sha256=", "sha1="))]
    wrong += [(body + b" ", good), (body.replace(b" ", b""), good), (b"{}", good), (b"", good),
              (body, provider.sign(body, secret="other")), (body, provider.sign(body, secret="")),
              (body, {**good, "Authorization": f"Bearer {SECRET}", provider.header: SECRET})]
    if provider.name != "github":  # which signs no time
        now = int(time.time())
        wrong += [(body, provider.sign(body, at=now - 400)), (body, provider.sign(body, at=now + 400)),
                  (body, provider.sign(body, at=0)), (body, provider.sign(body, at=-now))]
    if provider.name == "slack":
        for value in (None, "", "x", str(int(time.time()) + 7), "9" * 30):
            wrong.append((body, headers_but(good, X_Slack_Request_Timestamp=value)))
    with relay:
        wait_listening(port, relay)
        answers = {json.dumps(send(port, text, headers=headers)[::2]) for text, headers in wrong}
        assert answers == {json.dumps([401, {"error": "unauthorised",
                                             "message": "authentication is missing or wrong"}])}
        assert rows(db) == []
        assert status(port, body, headers=provider.sign(body)) == 200
        log = relay.log(10_000)
        assert "signature_secret" in log and "clock" in log
        assert SECRET not in log and right not in log


@ALL
def test_two_secrets_are_right_while_one_replaces_the_other(db, relay, port, provider):
    receive(db, port, provider.name, secret="old-secret new-secret")
    with relay:
        wait_listening(port, relay)
        for secret, code in (("old-secret", 200), ("new-secret", 200), ("older-secret", 401)):
            headers = provider.sign(provider.body, secret=secret)
            assert status(port, provider.body, headers=headers) == code, secret
        if provider.name == "stripe":  # Stripe signs with both for a while
            headers = provider.sign(provider.body, secret=["gone-secret", "new-secret"])
            assert status(port, provider.body, headers=headers) == 200
        assert len(rows(db)) == 1


@ALL
def test_a_form_is_refused_with_a_clear_answer_once_its_signature_is_right(db, relay, port, provider):
    receive(db, port, provider.name)
    form = b"command=%2Fdeploy&text=now&payload=" + urllib.parse.quote(provider.body).encode()
    typed = {"Content-Type": "application/x-www-form-urlencoded"}
    with relay:
        wait_listening(port, relay)
        code, _, answer = send(port, form, headers={**provider.sign(form), **typed})
        assert (code, answer["error"]) == (415, "content_type")
        assert status(port, form, headers={**provider.sign(form, secret="other"), **typed}) == 401
        for body, expected in ((b"[1]", "no_event"), (b"{nonsense", "not_json"), (b"", "no_event")):
            code, _, answer = send(port, body, headers=provider.sign(body))
            assert (code, answer["error"]) == (400, expected)
        assert rows(db) == []


def test_a_ping_of_github_is_answered_and_not_stored(db, relay, port):
    receive(db, port, "github")
    body = b'{"zen": "Design for failure.", "hook_id": 1, "hook": {"type": "Repository"}}'
    headers = signed_webhooks.github(body, event="ping")
    with relay:
        wait_listening(port, relay)
        assert send(port, body, headers=headers)[::2] == (200, {"status": "pong"})
        assert status(port, body, headers={**headers, "X-Hub-Signature-256": "sha256=00"}) == 401
        # An event is no ping because a header that no signature covers says so.
        event = PROVIDERS[0].body
        assert status(port, event, headers=signed_webhooks.github(event, event="ping")) == 200
        assert rows(db, "event_id, event_type") == [("hooks:d-1", "ping")]


def test_a_challenge_of_slack_is_answered_and_not_stored(db, relay, port):
    receive(db, port, "slack")
    challenge = 'a"b\\\u00fc\n3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P'
    body = json.dumps({"token": "t", "challenge": challenge, "type": "url_verification"}).encode()
    with relay:
        wait_listening(port, relay)
        for _ in range(20):  # more than would fit if an answered one were still counted
            answer = send(port, body, headers=signed_webhooks.slack(body))
            assert answer[::2] == (200, {"challenge": challenge})
        code, _, answer = send(port, body, headers=signed_webhooks.slack(body, secret="other"))
        assert code == 401 and "challenge" not in answer
        assert rows(db) == []


def test_the_mapping_goes_before_what_the_provider_says(db, relay, port):
    receive(db, port, "github", id_from="json:/after", aggregate_id_from="json:/repository/id",
            event_type_from="header:X-GitHub-Event")
    body = b'{"after": "6dcb09b5", "repository": {"id": 7, "full_name": "a/b"}}'
    with relay:
        wait_listening(port, relay)
        assert status(port, body, headers=signed_webhooks.github(body)) == 200
        assert rows(db, "event_id, event_type, aggregate_id") == [("6dcb09b5", "push", "7")]


def test_a_secret_with_spaces_is_a_configuration_error(db, relay, port):
    """Its words would each be a secret, and the short ones can be guessed."""
    receive(db, port, "github", secret="It's a Secret to Everybody")
    with relay:
        wait_trouble(relay, db, "hooks", "fewer than 8 characters", remedy="without spaces")
        assert "Everybody" not in relay.log(10_000)


def test_a_signed_body_with_strange_ids_is_stored_or_refused_and_stops_nothing(db, relay, port):
    receive(db, port, "stripe")
    strange = [b'{"id": ""}', b'{"id": null}', b'{"id": {"id": 1}}', b'{"id": 12345678901}',
               b'{"id": "\\u0000"}', b'{"id": "a\\u0000b", "type": "\\u0000"}', b'{"id": "\\ud800"}',
               '{"id": "größer 𝄞", "type": "ü"}'.encode(), b'{"id": "a", "id": "b"}',
               b'{"id": "' + b"x" * 5000 + b'", "type": "' + b"t" * 5000 + b'"}',
               b'{"id": "k", "data": {"object": {"id": "' + b"k" * 100_000 + b'"}}}',
               b'{"data": ' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"id": "\xff"}', b'\xef\xbb\xbf{"id": "1"}',
               b'{"id": "open', b'{"id": "1"}{"id": "2"}', b"{}", b' \n{"id": "spaced"} ', b"{]"]
    with relay:
        wait_listening(port, relay)
        codes = {}
        for body in strange:
            codes[body[:60]] = status(port, body, headers=signed_webhooks.stripe(body))
        assert set(codes.values()) == {200, 400}, codes
        body = PROVIDERS[1].body
        assert status(port, body, headers=signed_webhooks.stripe(body)) == 200
        ids = [row[0] for row in rows(db)]
        assert {"hooks:12345678901", "hooks:größer 𝄞", "hooks:spaced",
                "hooks:evt_1"} <= set(ids)
        stored = len(ids) + len(dead_letters(db, "hooks"))
        assert stored == list(codes.values()).count(200) + 1, (codes, ids)
