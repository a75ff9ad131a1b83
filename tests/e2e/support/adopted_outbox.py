"""A table of an application that adopt_outbox reads, and what a relay sends of it."""

import re

import pytest

from .pipelines import SLOW_FACTOR, Lines, position, set_outbox, status_row
from .relay import Relay
from .waiting import eventually

EVENTS = """
create schema app;
create table app.events (
  id      bigint generated always as identity primary key,
  kind    text,
  about   int,
  body    jsonb not null,
  meta    jsonb,
  at      timestamptz default clock_timestamp(),
  seen_at timestamptz)
"""
COLUMNS = dict(payload="body", key="about", type="kind", headers="meta", created_at="at")


def adopt(db, table="app.events", **arguments):
    """adopt_outbox of a table like app.events; the outbox's name."""
    arguments = {**COLUMNS, **arguments}
    listed = ", ".join(f"{name} => %({name})s" for name in arguments)
    return db.execute(f"select pgtrickle.adopt_outbox(%(t)s, {listed})",
                      {"t": table, **arguments})[0][0]


def write(db, count=1, table="app.events", kind="made"):
    """Rows in one statement; their ids."""
    return [row[0] for row in db.execute(
        f"insert into {table} (kind, about, body) select %s, n, jsonb_build_object('n', n)"
        " from generate_series(1, %s) n returning id", (kind, count))]


class Events(Lines):
    """Events in a file, each in its envelope."""

    def ids(self):
        """The outbox ids in the order of arrival."""
        return [int(re.search(r":(\d+)-[0-9a-f]{8}:", message["id"])[1])
                for message in self.messages()]

    def first_ids(self):
        """The same without repetitions."""
        return list(dict.fromkeys(self.ids()))

    def wait_ids(self, wanted, deadline=15):
        wanted = list(wanted)
        eventually(lambda: len(self.first_ids()) >= len(wanted), deadline * SLOW_FACTOR,
                   interval=0.05,
                   message=lambda: f"{self.path} ends {self.first_ids()[-5:]}, wanted {len(wanted)}"
                                   f" up to {wanted[-5:]}")
        assert self.first_ids() == wanted


def pipe(db, path, outbox="events", name=None, **options):
    """A pipeline from an adopted outbox into a file."""
    set_outbox(db, name or outbox, {
        "outbox": outbox, "event_envelope": True,
        "sink": {"type": "file", "path": str(path)}, **options})
    return Events(path)


@pytest.fixture
def events(db):
    """The table app.events, adopted."""
    db.execute(EVENTS)
    adopt(db)


@pytest.fixture
def lines(db, events, relay_bin, tmp_path):
    """What a running relay sends of it."""
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn) as relay:
        lines.relay = relay
        yield lines


def reached(db, id, pipeline="events"):
    """Waits until the pipeline's position is that row."""
    eventually(lambda: position(db, pipeline) == (id, 0),
               message=lambda: f"{position(db, pipeline)}, not {id}: {told(db, pipeline)}")


def deliver(db, lines, count=3):
    """The first rows of app.events, written, delivered and passed."""
    lines.wait_ids(write(db, count))
    reached(db, count)


@pytest.fixture
def stopped(db, events, relay_bin, tmp_path):
    """What a relay has sent that stopped when rows 1 to 3 were delivered."""
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        deliver(db, lines)
    return lines


def told(db, pipeline="events"):
    """The last error of a pipeline, with its remedy; empty where it has none."""
    row = status_row(db, pipeline)
    return f"{row['last_error']}\n{row['remedy']}" if row and row["last_error"] else ""
