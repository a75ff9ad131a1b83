"""What goes wrong, when: a schedule of faults that a seed determines."""

import random
import time


class Nemesis:
    """Runs faults at random until its time is over; each is undone before the next begins.

    A fault is a function fault(chance) that does harm and repairs it. `chance` is a random.Random.
    """

    def __init__(self, history, seed, faults, pause=(0.2, 1.5)):
        self._history, self._faults, self._pause = history, faults, pause
        self._chance = random.Random(seed)

    def run(self, seconds):
        end = time.monotonic() + seconds
        done = 0
        while time.monotonic() < end:
            time.sleep(self._chance.uniform(*self._pause))  # how long things go well is chance, too
            name, fault = self._chance.choice(self._faults)
            self._history.note("nemesis", name)
            fault(self._chance)
            self._history.note("nemesis", f"{name}: over")
            done += 1
        return done


def terminate_backends(db, chance, share=0.5):
    """pg_terminate_backend of some of the relay's sessions."""
    for (pid,) in db.execute("select pid from pg_stat_activity where usename = 'relay_daemon'"
                             " and datname = current_database()"):
        if chance.random() < share:
            db.execute("select pg_terminate_backend(%s)", (pid,))


def terminate_lease_session(db):
    """Ends the database sessions behind leases; how many there were."""
    return len(db.execute(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a"
        " where a.pid in (select backend_pid from pgtrickle.relay_lease_sessions)"
        " and a.usename = 'relay_daemon' and a.datname = current_database()"))
