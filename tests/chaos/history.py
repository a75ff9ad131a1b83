"""What was committed and what was delivered, kept as a history, and the judge of both.

Writers count each key's version up by one in each change, so the database's last state says which
versions were committed (also where a writer never learned what became of its commit), and what a
consumer saw must be, for each key, exactly 1, 2, 3 ... up to that state.
"""

import json
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager

from support.postgres import REPOSITORY


class History:
    """Events of one run, in order of time; kept as a file of JSON lines when the run fails."""

    def __init__(self, name, seed):
        self.name, self.seed = name, seed
        self.events = []
        self._lock = threading.Lock()
        self._begin = time.monotonic()

    def note(self, who, what, **details):
        with self._lock:
            self.events.append({"t": round(time.monotonic() - self._begin, 4), "who": who,
                                "what": what, **details})

    def write(self):
        folder = os.environ.get("CHAOS_HISTORY_DIR", os.path.join(REPOSITORY, "build", "chaos"))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{self.name}-{self.seed}.jsonl")
        with open(path, "w") as out:
            for event in self.events:
                out.write(json.dumps(event, default=str) + "\n")
        return path


@contextmanager
def kept_on_failure(name, seed):
    """A History that is written to a file, with the way to replay it, when the block fails."""
    history = History(name, seed)
    try:
        yield history
    except BaseException as error:
        path = history.write()
        if isinstance(error, AssertionError):
            raise AssertionError(
                f"{error}\nhistory: {path}\nagain: CHAOS_SEED={seed}") from error
        raise


def judge(final_versions, deliveries, duplicates_allowed=0):
    """A list of violations, empty when every promise was kept.

    `final_versions`: {key: version} as committed. `deliveries`: (key, version, message id) in order
    of arrival. The first delivery of each change counts for loss and order; what comes again is a
    duplicate.
    """
    problems = []
    seen = {}        # key -> versions in the order of their first delivery
    times = Counter()
    for key, version, identity in deliveries:
        times[(key, version)] += 1
        if times[(key, version)] == 1:
            seen.setdefault(key, []).append(version)
    for key, last in final_versions.items():
        got = seen.get(key, [])
        missing = sorted(set(range(1, last + 1)) - set(got))
        if missing:
            problems.append(f"lost: key {key} versions {missing[:10]} of 1..{last}")
        too_many = sorted(set(got) - set(range(1, last + 1)))
        if too_many:
            problems.append(f"never committed: key {key} versions {too_many[:10]}, last is {last}")
        if got != sorted(got):
            at = next(i for i in range(1, len(got)) if got[i] < got[i - 1])
            problems.append(f"out of order: key {key}: {got[max(0, at - 3):at + 3]}")
    for key in seen.keys() - final_versions.keys():
        problems.append(f"never committed: key {key}, versions {seen[key][:10]}")
    again = sum(count - 1 for count in times.values())
    if duplicates_allowed is not None and again > duplicates_allowed:
        worst = [change for change, count in times.most_common(5) if count > 1]
        problems.append(f"{again} duplicates, {duplicates_allowed} allowed: {worst}")
    return problems


def deliveries_of(messages):
    """(key, version, message id) of each row in native messages (parsed JSON)."""
    found = []
    for message in messages:
        if "delta" in message:
            identity = message["metadata"].get("id")
            rows = sorted(message["delta"]["inserted"], key=lambda row: row["version"])
        else:
            identity = message.get("id")
            rows = [message["new"]] if message.get("new") else []
        found += [(row["key"], row["version"], identity) for row in rows]
    return found


def assert_kept(final_versions, messages, duplicates_allowed=0):
    problems = judge(final_versions, deliveries_of(messages), duplicates_allowed)
    assert not problems, "\n".join(problems[:20])
