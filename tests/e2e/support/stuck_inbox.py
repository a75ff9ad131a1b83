"""A pipeline from a broker into an inbox whose table another transaction has locked."""

import json
from math import isnan

from .inboxes import count
from .pipelines import SLOW_FACTOR, status_row
from .relay import run_command
from .waiting import eventually, holds_for

TABLE = "pgtrickle.inbox_shop"


class StuckInbox:
    """The pipeline `in`, and a lock on its table: while that is held, no message gets in."""

    def __init__(self, db, source, **options):
        self._db = db
        db.execute("select pgtrickle.create_inbox('shop')")
        config = {"source": source, "sink": {"type": "inbox", "inbox_name": "shop"},
                  "retry": {"min": "50ms", "max": "500ms"}, **options}
        db.execute("select pgtrickle.set_relay_inbox('in', config => %s::jsonb)",
                   (json.dumps(config),))
        db.execute("select pgtrickle.enable_relay('in')")
        self._locker = db.connect(autocommit=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._locker.close()

    def lock(self):
        self._locker.cursor().execute(f"lock table {TABLE} in access exclusive mode")

    def unlock(self):
        self._locker.rollback()

    def count(self):
        return count(self._db)

    def wait_lag(self, relay, wanted, deadline=20):
        """Waits until every place that shows the lag shows this one. None: it is not known."""
        def shown():
            metric = relay.metric("consumer_lag", pipeline="in")
            return (relay.pipeline("in")["lag"], None if metric is None or isnan(metric) else metric,
                    (status_row(self._db, "in") or {}).get("lag"))
        eventually(lambda: shown() == (wanted,) * 3, deadline * SLOW_FACTOR,
                   message=lambda: f"{shown()}, not {wanted}\n{relay.log(20)}")

    def hold(self, relay, lag, seconds):
        """For that long the lag stays known and the same."""
        holds_for(lambda: relay.pipeline("in")["lag"] == lag, seconds, interval=0.1)

    def wait_all(self, relay, wanted, deadline=60):
        """After the lock is gone: all is stored once, and nothing waits any more."""
        eventually(lambda: self.count() >= wanted, deadline * SLOW_FACTOR,
                   message=lambda: f"{self.count()} of {wanted}\n{relay.log(20)}")
        assert self.count() == wanted
        self.wait_lag(relay, 0)
        assert self._db.one("select count(*) from pgtrickle.relay_dlq") == 0

    def assert_read_once(self, relay, wanted):
        """Since the relay was started, each of that many messages was delivered to it once."""
        relay.wait_metric("messages_received_total", wanted, pipeline="in")
        assert relay.metric("duplicates_total", pipeline="in") == 0


def lists_show(db, lag):
    """Whether `status` and `pipelines list` print this lag."""
    for command in (["status"], ["pipelines", "list"]):
        printed = run_command(*command, "--postgres-url", db.relay_dsn)
        assert printed.returncode == 0, printed.stderr
        assert str(lag) in printed.stdout.split(), printed.stdout
    return True
