"""The program of tests/probes that streams from a logical slot, and what it prints."""

import collections
import json
import os
import signal
import subprocess
import threading

from .processes import Process
from .relay import relay_binary
from .waiting import eventually


def probe_binary():
    return os.path.join(os.path.dirname(relay_binary()), "replication_probe")


def probe(*arguments):
    """Runs one command of the probe; what it printed, as an object."""
    done = subprocess.run([probe_binary(), *arguments], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


class Stream:
    """A running stream. `events` grows while it runs; transactions are lists of their changes."""

    def __init__(self, dsn, slot, publication, *words):
        self._read_end, write_end = os.pipe()
        self.events = []
        self.transactions = []
        self.outside = []  # what came between transactions
        self.process = Process([probe_binary(), dsn, "stream", slot, publication, *words],
                               stdout=write_end)
        os.close(write_end)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        changes = None
        with os.fdopen(self._read_end) as lines:
            for line in lines:
                event = json.loads(line)
                self.events.append(event)
                kind = event.get("kind")
                if kind == "begin":
                    changes = [event]
                elif kind == "commit":
                    self.transactions.append(changes + [event])
                    changes = None
                elif changes is not None:
                    changes.append(event)
                else:
                    self.outside.append(event)

    def __enter__(self):
        eventually(lambda: self.events, 20)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.signal(signal.SIGTERM)
        code = self.process.wait(20)
        self._thread.join(20)
        return code

    def changes(self, *kinds):
        """All changes so far, of committed transactions only, in their order."""
        return [event for transaction in list(self.transactions) for event in transaction
                if event["kind"] in kinds]

    @property
    def error(self):
        """What it ended with, or None."""
        last = self.events[-1] if self.events else {}
        return last if "error" in last else None


class Replica:
    """A table as the changes of a stream make it: its rows by their key."""

    def __init__(self, key):
        self._key = key
        self.rows = {}

    def take(self, events):
        for event in events:
            getattr(self, "_" + event["kind"], lambda _: None)(event)
        return self

    def _insert(self, event):
        key = event["new"][self._key]
        assert key not in self.rows, f"inserted twice: {event}"
        self.rows[key] = event["new"]

    def _update(self, event):
        old_key = event["old"].get(self._key) or event["new"][self._key]
        before = self.rows.pop(old_key)
        self.rows[event["new"][self._key]] = {
            name: before[name] if value == {"unchanged": True} else value
            for name, value in event["new"].items()}

    def _delete(self, event):
        del self.rows[event["old"][self._key]]

    def _truncate(self, _):
        self.rows = {}


def count_kinds(events):
    return collections.Counter(event["kind"] for event in events)
