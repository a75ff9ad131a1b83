"""Looks for secrets in everything that a relay shows."""

import json


def assert_hidden(relay, db, *secrets):
    """None of them, nor a part of ten characters, is in the log, in what the relay serves, or in the
    state and the dead letters that it stores."""
    stored = [row for table in ("relay_pipeline_status", "relay_dlq")
              for (row,) in db.execute(f"select t::text from pgtrickle.{table} t")]
    shown = {"log": relay.log(100_000), "health": json.dumps(relay.health()),
             "metrics": relay.metrics().text, "database": "\n".join(stored)}
    for where, text in shown.items():
        for secret in secrets:
            parts = {secret[at:at + 10] for at in range(max(1, len(secret) - 9))}
            found = [part for part in parts if part in text]
            assert not found, f"{where} shows {found} of a secret"
