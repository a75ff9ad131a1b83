"""What the labs of sinks and of sources share: a broker that fails, and what is said of it."""

import json
import re

from support.pipelines import SLOW_FACTOR, status_row
from support.waiting import eventually


class FailingBroker:
    """Lets `self.broker` fail, and remembers that it has."""

    broker = None
    fault = False  # the broker is down or frozen just now

    def kill(self):
        self.fault = True
        self.broker.kill9()

    def revive(self):
        self.broker.start()
        self.fault = False

    def freeze(self):
        self.fault = True
        self.broker.freeze()

    def thaw(self):
        self.broker.thaw()
        self.fault = False

    def make_good(self):
        """After a test that failed in the middle of a fault."""
        if self.fault:
            try:
                self.broker.thaw()
                self.broker.kill9()
            except Exception:  # whatever state it was in
                pass
            self.broker.start()


def wait_told(relay, db, pipeline, pattern, deadline=30):
    """Waits until health and the database name the trouble, with a remedy."""
    def told():
        entry, stored = relay.pipeline(pipeline), status_row(db, pipeline)
        assert entry["state"] in ("retrying", "misconfigured"), entry
        assert re.search(pattern, str(entry["last_error"]), re.IGNORECASE), entry
        assert stored and stored["last_error"] and stored["remedy"], stored
        return True
    eventually(told, deadline * SLOW_FACTOR, message=lambda: relay.log(40))


def assert_no_secret_is_shown(relay, options):
    """None of those that these options of a sink or source hold is in the log or in health."""
    shown = relay.log(10_000) + json.dumps(relay.health()[1])
    for name, text in options.items():
        if "password" in name or "secret" in name:
            assert text not in shown, "a secret is shown"
