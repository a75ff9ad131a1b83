"""Feeds under faults: a reader with nothing but `change_id > :last ... LIMIT 7` sees each change once, in
order, whatever happens to writers, relays and sessions.

FEEDS_SECONDS says for how long they are killed.
"""

import os
import random
import threading
import time
from collections import Counter

import pytest

from support.background import Background
from support.feeds import Cursor, FeedFollower, make_feed, wait_written
from support.indexes import Turmoil
from support.pipelines import SLOW_FACTOR
from support.relay import Relay
from support.waiting import eventually

SECONDS = float(os.environ.get("FEEDS_SECONDS", "10"))
LEASE = "1s"


class Writers:
    """Threads that insert rows (writer, n): single ones, several in a transaction, behind savepoints,
    prepared, rolled back. `committed`: what was committed; the n of a writer count up."""

    def __init__(self, db, count):
        self.committed, self._db, self._stop = [], db, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        chance, n = random.Random(number), 0
        with self._db.connect() as connection:
            while not self._stop.is_set():
                count, how = chance.randint(1, 4), chance.random()
                connection.execute("begin")
                for i in range(count):
                    connection.execute("insert into t values (%s, %s)", (number, n + i))
                if chance.random() < 0.2:
                    connection.execute("savepoint s; insert into t select -1, g from "
                                       "generate_series(1, 3) g; rollback to s")
                connection.execute(f"select pg_sleep({chance.random() * 0.05})")
                if how < 0.15:
                    connection.execute("rollback")
                    continue
                if how < 0.3:
                    connection.execute(f"prepare transaction 'feed {number}'")
                    end = "rollback" if how < 0.2 else "commit"
                    connection.execute(f"{end} prepared 'feed {number}'")
                    if end == "rollback":
                        continue
                else:
                    connection.execute("commit")
                self.committed += [(number, n + i) for i in range(count)]
                n += count

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Reader(Background):
    """Polls with the naive cursor all the time."""

    def __init__(self, db, feed):
        super().__init__()
        self.seen, self.cursor, self._db = [], Cursor(feed), db

    def _run(self):
        with self._db.connect() as connection:
            while not self._stop.is_set():
                self.seen += self.cursor.read(connection)


class Harm:
    """What is done to two relays that compete for the pipelines."""

    def __init__(self, db, relays):
        self._db, self._relays, self.done = db, relays, Counter()
        self._chance = random.Random(5)

    def _owner(self):
        """The relay behind the position of a feed now, or any."""
        owner = str(self._db.one("select worker_id from pgtrickle.relay_consumer_offsets limit 1"))
        return next((each for each in self._relays if str(each.pid) in owner), self._relays[0])

    def kill(self):
        relay = self._owner()
        relay.kill9()
        relay.start()

    def freeze(self):
        """For longer than the lease, so that the other relay writes before the first one thaws."""
        relay = self._owner()
        relay.freeze()
        time.sleep(self._chance.choice([0.3, 2.0]))
        relay.thaw()

    def terminate(self):
        self._db.execute("select pg_terminate_backend(pid) from pg_stat_activity "
                         "where usename = 'relay_daemon' and datname = current_database() "
                         "and random() < 0.5")

    def for_seconds(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(0.1, 0.6))
            name = self._chance.choice(["kill", "freeze", "freeze", "terminate"])
            getattr(self, name)()
            self.done[name] += 1


@pytest.fixture
def two_relays(relay_bin, db):
    relays = [Relay(db.relay_dsn, lease_timeout=LEASE) for _ in range(2)]
    yield relays
    for relay in relays:
        relay.kill9()


def check(reader, writers):
    """Nothing lost, nothing twice, in order."""
    changes = [(row["writer"], row["n"]) for _, action, _, row, *_ in reader.seen]
    ids = [change[0] for change in reader.seen]
    places = [change[5:7] for change in reader.seen]
    print(f"{len(writers.committed)} changes committed, {len(changes)} seen")
    assert Counter(changes) == Counter(writers.committed)
    assert ids == list(range(1, len(ids) + 1)), "change_ids follow each other without a gap"
    assert places == sorted(places)
    last = {}
    for writer, n in changes:
        assert last.get(writer, -1) < n
        last[writer] = n


@pytest.mark.parametrize("harmed", [False, True])
def test_a_naive_cursor_skips_nothing(db, two_relays, harmed):
    db.execute("create table t (writer int, n int, primary key (writer, n))")
    feed = make_feed(db, "t")
    for relay in two_relays:
        relay.start()
    with Reader(db, feed) as reader:
        writers = Writers(db, 24)
        try:
            if harmed:
                harm = Harm(db, two_relays)
                harm.for_seconds(SECONDS)
                print(dict(harm.done))
            else:
                eventually(lambda: len(writers.committed) > 2000, 60 * SLOW_FACTOR)
        finally:
            writers.end()
        wait_written(db, "t", 120)
        eventually(lambda: len(reader.seen) >= db.one(f"select count(*) from {feed}"), 60 * SLOW_FACTOR)
    check(reader, writers)


def test_an_index_stays_equal_to_a_table_through_everything(db, two_relays):
    """Changed keys, TRUNCATE, full refreshes and large changes, with relays and sessions killed at random.
    The index is what an independent reader makes of the feed."""
    turmoil, harm = Turmoil(db, "t"), Harm(db, two_relays)
    db.execute("select pgtrickle.enable_outbox('t', inline_threshold_rows => 200)")
    feed = make_feed(db, "t", full_refresh_rows=True)
    for relay in two_relays:
        relay.start()
    with FeedFollower(db, feed, limit=50) as follower:
        with turmoil:
            harm.for_seconds(SECONDS)
        wait_written(db, "t", 120)
        last = db.one(f"select max(change_id) from {feed}")
        eventually(lambda: follower.cursor.last >= last, 120 * SLOW_FACTOR)
        print(dict(harm.done), dict(follower.actions))
        eventually(lambda: follower.index.rows == follower.index.of_table(db, "t", ["id"]), 10)
    assert all(follower.actions[action] for action in "IUDF")


def test_a_crash_of_the_server_loses_nothing_that_was_read(own_db, relay_bin):
    own_db.execute("create table t (writer int, n int, primary key (writer, n))")
    feed = make_feed(own_db, "t")
    seen, cursor, committed = [], Cursor(feed), 0
    with Relay(own_db.relay_dsn, lease_timeout=LEASE):
        for _ in range(3):
            own_db.execute("insert into t select 0, g from generate_series(%s::int, %s::int) g",
                           (committed, committed + 499))
            committed += 500
            eventually(lambda: seen.extend(cursor.read(own_db._connection)) or cursor.last > committed - 300,
                       60 * SLOW_FACTOR)
            own_db.server.restart("kill9")
            own_db.execute("select 1")
        eventually(lambda: seen.extend(cursor.read(own_db._connection)) or cursor.last >= committed,
                   60 * SLOW_FACTOR)
    assert [row["n"] for _, _, _, row, *_ in seen] == list(range(committed))


def test_two_groups_of_relays_do_not_write_one_feed_by_turns(db, relay_bin):
    db.execute("create table t (id int primary key)")
    feed = make_feed(db, "t")
    with Relay(db.relay_dsn) as first:
        db.execute("insert into t values (1)")
        eventually(lambda: db.one(f"select count(*) from {feed}") == 1, 30 * SLOW_FACTOR)
        owner = "select owner_token from pgtrickle.relay_consumer_offsets"
        token = db.one(owner)
        with Relay(db.relay_dsn, relay_group_id="other") as second:
            eventually(lambda: "owned by another relay" in str(
                second.pipeline("feed:public.t")["last_error"]), 30 * SLOW_FACTOR)
            db.execute("insert into t values (2)")
            eventually(lambda: db.one(f"select count(*) from {feed}") == 2, 30 * SLOW_FACTOR)
            assert db.one(owner) == token
            first.stop()
            db.execute("insert into t values (3)")
            eventually(lambda: db.one(f"select count(*) from {feed}") == 3, 60 * SLOW_FACTOR)
            first.start()


def test_a_subscription_to_a_feed_gets_each_change_once(own_pg_server, own_db, relay_bin):
    own_db.execute("create table t (writer int, n int, primary key (writer, n))")
    feed = make_feed(own_db, "t")
    own_db.execute(f"create publication changes for table {feed} with (publish = 'insert')")
    there = own_pg_server.create_database()
    there.execute(f"create table {feed} (change_id bigint primary key, refresh_id uuid, action char(1), "
                  "pk jsonb, pk_hash bigint, row_data jsonb, old_data jsonb, created_at timestamptz, "
                  "changed_at timestamptz, outbox_id bigint, row_num bigint)")
    own_db.execute("select pg_create_logical_replication_slot('copy', 'pgoutput')")
    there.execute(f"create subscription copy connection '{own_db.dsn}' publication changes "
                  "with (create_slot = false, slot_name = 'copy')")
    with Relay(own_db.relay_dsn):
        own_db.execute("insert into t select 0, g from generate_series(1, 3000) g")
        own_db.execute("update t set n = -n where n % 3 = 0")
        wait_written(own_db, "t")
        # What retention deletes here stays there.
        own_db.execute("select pgtrickle.cleanup_change_feed('t', interval '0')")
        eventually(lambda: there.one(f"select count(*) from {feed}") == 5000, 60 * SLOW_FACTOR)
    assert there.one(f"select array_agg(change_id order by change_id) = array(select g::bigint from "
                     f"generate_series(1, 5000) g) from {feed}")
    there.execute("drop subscription copy")
