"""Waiting for a condition with a deadline; nothing in these tests sleeps a fixed time."""

import time


def eventually(predicate, deadline=10.0, interval=0.02, message=None):
    """Calls `predicate` until it returns something true, and returns that.

    An AssertionError, OSError or LookupError inside counts as "not yet". After `deadline` seconds
    it fails and shows what the predicate last said; `message` (text or callable) is added.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            last = predicate()
            if last:
                return last
        except (AssertionError, OSError, LookupError) as error:
            last = error
        if time.monotonic() >= end:
            note = message() if callable(message) else message
            raise AssertionError(
                f"not so within {deadline} s: {note or predicate}; last seen: {last!r}")
        time.sleep(interval)


def comes_true(predicate, within, interval=0.02):
    """Waits at most `within` seconds for `predicate`: for what need not happen. Whether it did."""
    end = time.monotonic() + within
    while not (value := predicate()) and time.monotonic() < end:
        time.sleep(interval)
    return bool(value)


def holds_for(predicate, seconds, interval=0.02):
    """Checks that `predicate` stays true for `seconds`: for what must NOT happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = predicate()
        assert value, f"did not hold: {predicate}; saw {value!r}"
        time.sleep(interval)
