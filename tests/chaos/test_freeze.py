"""An owner that is frozen in mid-backlog and thaws when another relay has taken over sends nothing
behind what that one sent; frozen alone, it goes on where it was and loses nothing.

Two relays have one pipeline each in a file of their own, alike but for a header that names them: so
each message says who sent it. LONG=1: 20 freezes for each sink, FREEZES=n: that many."""

import itertools
import json
import os
import random
import time
from collections import Counter

import pytest

from conformance.suite import SINKS, start
from support.pipelines import LONG, SLOW_FACTOR, newest_outbox_id, position
from support.processes import temporary_directory
from support.relay import Relay
from support.waiting import eventually

SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
FREEZES = int(os.environ.get("FREEZES", "20" if LONG else "1"))
LEASE = "3s"
ROWS_A_STATEMENT = 20
# Rows of the backlog: what takes a sink a second or so.
ROWS = {"kafka": 10000, "redis": 10000, "nats": 10000, "pg-inbox": 10000, "file": 10000,
        "rabbitmq": 4000, "webhook": 2000, "sqs": 2000}
# What documentation allows to come late: nothing, from a process that was stopped by a signal.
LATE = 0
TURNS = itertools.count()


class Freezes:
    """One broker, the backlogs, and a pair of relays for each turn."""

    def __init__(self, db, broker):
        self.db, self.broker = db, broker
        self.rows = ROWS[broker.name]
        self.table = f"backlog_{self.rows}"
        self._fill()

    def _fill(self):
        if self.db.one("select to_regclass(%s)", (self.table,)):
            return
        self.db.execute(f"create table {self.table} (id bigint primary key, filler text)")
        self.db.execute("select pgtrickle.enable_outbox(%s)", (self.table,))
        self.db.execute(f"""do $$ begin
            for batch in 0..{self.rows // ROWS_A_STATEMENT - 1} loop
              insert into {self.table} select batch * {ROWS_A_STATEMENT} + n, repeat('x', 200)
              from generate_series(1, {ROWS_A_STATEMENT}) n;
            end loop; end $$""")
        self.newest = newest_outbox_id(self.db, self.table)

    def begin(self):
        """A place of its own for the next turn, and a group, which begins at the first row."""
        self.broker.fresh()
        if self.broker.name == "nats":
            # It hardly deduplicates: what is sent twice is seen twice.
            with self.broker._server.client() as client:
                client._api(f"STREAM.DELETE.{self.broker.place}")
                client.create_stream(self.broker.place, f"{self.broker.place}.>",
                                     duplicate_window=0.1)
        if self.broker.name == "sqs":
            self.broker.prepare_unordered()
        self.group = f"turn-{next(TURNS)}"
        self.newest = newest_outbox_id(self.db, self.table)

    def relay(self, name, **options):
        path = os.path.join(temporary_directory("freeze", None), f"{name}.toml")
        with open(path, "w") as out:
            out.write(f'[[pipeline]]\nname = "p"\nmessage = "row"\n'
                      f'source = {{ type = "outbox", stream_table = "{self.table}" }}\n'
                      f'headers = {{ relay = "{name}" }}\n'
                      f"sink = {toml(self.broker.sink())}\n")
        return Relay(self.db.relay_dsn, config=path, relay_group_id=self.group,
                     lease_timeout=LEASE, **options)

    def settled(self):
        return (position(self.db, "p", self.group) or (0, 0))[0] >= self.newest

    def wait_settled(self, relay):
        eventually(self.settled, 120 * SLOW_FACTOR, interval=0.02,
                   message=lambda: f"{position(self.db, 'p', self.group)}\n{relay.log(40)}")

    def arrived(self):
        """(who sent it, id of the row) in the order of arrival."""
        return [(received.headers.get("relay"), json.loads(received.body)["new"]["id"])
                for received in self.broker.received()]

    def wait_arrived(self, relay):
        """The same, when all has been read: reading from some brokers takes several calls."""
        eventually(lambda: len(self.broker.received()) >= self.broker.count() > 0,
                   60 * SLOW_FACTOR, message=lambda: relay.log(40))
        return self.arrived()

    def wait_underway(self, relay, chance):
        """Waits until messages flow, and for a moment that chance decides."""
        eventually(lambda: self.broker.count() > 0, 30 * SLOW_FACTOR, interval=0.002,
                   message=lambda: f"{relay.pipeline('p')}\n{relay.log(40)}")
        time.sleep(chance.uniform(0, 0.15))

    def dead_letters(self):
        return self.db.one("select count(*) from pgtrickle.relay_dlq")


def toml(options):
    """Options as one inline table."""
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items()) + " }"


@pytest.fixture(scope="module")
def backlogs(pg_server):
    """One database, whose outboxes every turn reads from the first row on."""
    database = pg_server.create_database()
    yield database
    database.drop()


@pytest.fixture(scope="module")
def freezes(request, backlogs):
    broker = start(request.param, SINKS)
    yield Freezes(backlogs, broker)
    broker.close()


def each(names):
    """Runs a test for each of these sinks; what belongs to one sink runs in one worker."""
    return pytest.mark.parametrize("freezes", [
        pytest.param(name, marks=pytest.mark.xdist_group(f"freeze-{name}"))
        for name in sorted(names)], indirect=True)


# A file is locked: the new owner waits until the frozen one has let go of it.
behind_a_fence = each(set(ROWS) - {"file"})
# One sink of each way to send: by calls of ours, by a library's threads, in requests, into a file.
alone = each(ROWS if LONG else {"redis", "kafka", "webhook", "file"})


def late(arrivals):
    """What the frozen relay sent and arrived behind the first message of the other one."""
    senders = [sender for sender, _ in arrivals]
    if "new" not in senders:
        return []
    fence = senders.index("new")
    return [row for sender, row in arrivals[fence:] if sender == "old"]


def freeze_once(freezes, chance):
    """One owner is frozen, replaced, and thawed; (sent by the old owner, late messages)."""
    freezes.begin()
    with freezes.relay("old") as old:
        freezes.wait_underway(old, chance)
        old.freeze()
        try:
            new = freezes.relay("new").start()
            eventually(lambda: new.wait_up() and new.health()[1]["pipelines_owned"] == 1,
                       30 * SLOW_FACTOR, interval=0.01, message=lambda: new.log(40))
            if chance.random() < 0.5:  # else it thaws while the new owner is at work
                freezes.wait_settled(new)
        finally:
            old.thaw()
        freezes.wait_settled(new)
        eventually(lambda: old.health()[1]["pipelines_owned"] == 0, 20 * SLOW_FACTOR,
                   message=lambda: old.log(40))
        old.stop()
        new.stop()
        arrivals = freezes.wait_arrived(new)
    missing = set(range(1, freezes.rows + 1)) - {row for _, row in arrivals}
    assert not missing, f"{len(missing)} lost: {sorted(missing)[:10]}"
    assert freezes.dead_letters() == 0
    sent = sum(1 for sender, _ in arrivals if sender == "old")
    if freezes.broker.ordered and freezes.broker.name not in ("webhook", "sqs", "file"):
        by_new = [row for sender, row in arrivals if sender == "new"]
        assert list(dict.fromkeys(by_new)) == sorted(set(by_new)), "the new owner's messages are not in order"
    return sent, late(arrivals)


@behind_a_fence
@pytest.mark.timeout(1800)
def test_an_owner_that_thaws_sends_nothing_behind_the_new_owner(freezes, relay_bin):
    chance = random.Random(SEED)
    sent, tardy = [], []
    while len(sent) < FREEZES:
        count, behind = freeze_once(freezes, chance)
        if 0 < count < freezes.rows or behind:  # else it was frozen too early, or too late
            sent.append(count)
            tardy.append(len(behind))
    print(f"{freezes.broker.name}: {FREEZES} freezes, seed {SEED}, sent before {sent}, late {tardy}")
    assert max(tardy) <= LATE


def freeze_alone(freezes, chance):
    """One owner is frozen and goes on; (for how long each time, rows in the order of arrival)."""
    freezes.begin()
    frozen = []
    with freezes.relay("old") as old:
        freezes.wait_underway(old, chance)
        for seconds in (4, 0.5):  # longer and shorter than the lease
            old.freeze()
            try:
                if freezes.broker.count() < freezes.rows:
                    frozen.append(seconds)
                    time.sleep(seconds)  # how long it is frozen is the case
            finally:
                old.thaw()
            time.sleep(chance.uniform(0, 0.1))
        freezes.wait_settled(old)
        old.stop()
        return frozen, [row for _, row in freezes.wait_arrived(old)]


@alone
@pytest.mark.timeout(1800)
def test_an_owner_that_was_frozen_alone_goes_on_in_order(freezes, relay_bin):
    """Nothing takes over: what was dropped when the lease ran out is sent again."""
    chance = random.Random(SEED)
    frozen = []
    while not frozen:  # else all had been sent before it was frozen
        frozen, rows = freeze_alone(freezes, chance)
        first = list(dict.fromkeys(rows))
        assert sorted(first) == list(range(1, freezes.rows + 1))
        if freezes.broker.name not in ("webhook", "sqs"):  # messages of different keys side by side
            assert first == sorted(first), "first deliveries are not in order"
    again = sum(times - 1 for times in Counter(rows).values())
    print(f"{freezes.broker.name}: {again} of {freezes.rows} sent again, frozen {frozen} s, seed {SEED}")
    assert freezes.dead_letters() == 0
