"""Requests as GitHub, Stripe and Slack send them, signed here by what their documentation says."""

import hashlib
import hmac
import json
import time

SECRET = "whsec_of_the-tests"


def _digest(secret, text):
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def github(body, secret=SECRET, event="push", delivery="d-1"):
    return {"Content-Type": "application/json", "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": "sha256=" + _digest(secret, body)}


def stripe(body, secret=SECRET, at=None):
    """`secret`: one, or several as while a secret is being rolled."""
    at = str(int(time.time() if at is None else at))
    secrets = [secret] if isinstance(secret, str) else secret
    marks = [f"v1={_digest(one, at.encode() + b'.' + body)}" for one in secrets]
    return {"Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": ",".join([f"t={at}", "v0=" + "0" * 64, *marks])}


def slack(body, secret=SECRET, at=None):
    at = str(int(time.time() if at is None else at))
    return {"Content-Type": "application/json", "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": "v0=" + _digest(secret, f"v0:{at}:".encode() + body)}


class Provider:
    def __init__(self, name, sign, header, body, identity, kind, key):
        self.name, self.sign, self.header = name, sign, header
        self.body, self.expected = json.dumps(body).encode(), (identity, kind, key)

    def __repr__(self):
        return self.name


PROVIDERS = [
    Provider("github", github, "X-Hub-Signature-256",
             {"ref": "refs/heads/main", "repository": {"id": 1, "full_name": "octo/spoon"}},
             "hooks:d-1", "push", "octo/spoon"),
    Provider("stripe", stripe, "Stripe-Signature",
             {"id": "evt_1", "object": "event", "type": "charge.succeeded",
              "data": {"object": {"id": "ch_1", "amount": 100}}},
             "hooks:evt_1", "charge.succeeded", "ch_1"),
    Provider("slack", slack, "X-Slack-Signature",
             {"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event_time": 1,
              "event": {"type": "message", "channel": "C1", "text": "größer"}},
             "hooks:Ev1", "message", "C1"),
]
