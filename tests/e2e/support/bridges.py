"""Pipelines from a broker into a file of JSON lines, and what came through them."""

import json

from .pipelines import SLOW_FACTOR
from .waiting import eventually


def set_bridge(db, name, source, path, **options):
    """A pipeline from there into a file of JSON lines {id, type, key, payload}."""
    config = {"source": source, "sink": {"type": "file", "path": str(path)},
              "event_envelope": True, **options}
    db.execute("select pgtrickle.set_relay(%s, %s::jsonb)", (name, json.dumps(config)))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


def wait_lines(lines, count, deadline=20):
    """Waits until that many messages have arrived, and no more; the messages."""
    eventually(lambda: len(lines.messages()) >= count, deadline * SLOW_FACTOR,
               message=lambda: f"{len(lines.messages())} lines of {count}")
    assert len(lines.messages()) == count
    return lines.messages()


def numbers(lines):
    """n of the payloads {"n": 0}, {"n": 1}, ..."""
    return [message["payload"]["n"] for message in lines.messages()]


def wait_numbers(lines, wanted, deadline=30, once=True, in_order=True):
    """Waits until exactly these have arrived, each once and in this order; but for `once`, some may
    have come again, and but for `in_order`, late."""
    wanted = list(wanted)
    eventually(lambda: len(set(numbers(lines))) >= len(wanted), deadline * SLOW_FACTOR,
               interval=0.05, message=lambda: f"{len(numbers(lines))} of {len(wanted)}")
    found = numbers(lines)
    if not once:
        found = list(dict.fromkeys(found))
    assert (found if in_order else sorted(found)) == wanted
