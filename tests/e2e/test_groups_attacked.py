"""Attacks on consumer groups: nothing committed is skipped, whatever happens to group and outbox meanwhile."""

import random
import subprocess
import threading
import time

import psycopg
import pytest

from support.groups import commit, drain, expire, make_group, payloads, poll, publish, session
from support.pipelines import LONG
from support.waiting import eventually

SECONDS = 30 if LONG else 6


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    return db


SIGNATURES = {
    "create_consumer_group": "name text, outbox text, auto_offset_reset text DEFAULT 'latest'::text, "
                             "slots integer DEFAULT 1, max_attempts integer DEFAULT 5, "
                             "owner name DEFAULT CURRENT_USER",
    "drop_consumer_group": "name text, if_exists boolean DEFAULT false",
    "poll_outbox": "\"group\" text, consumer text, batch_size integer DEFAULT 100, "
                   "visibility_seconds integer DEFAULT 30, wait_seconds integer DEFAULT 0",
    "commit_offset": "\"group\" text, consumer text, last_offset bigint",
    "seek_offset": "\"group\" text, consumer text, new_offset bigint",
    "extend_lease": "\"group\" text, consumer text, extension_seconds integer DEFAULT 30",
    "consumer_heartbeat": "\"group\" text, consumer text",
    "consumer_lag": "\"group\" text DEFAULT NULL::text",
    "reject_offset": "\"group\" text, consumer text, outbox_id bigint, error text",
    "my_change": "outbox text",
    "wait_for_consumer": "name text, id bigint, timeout interval DEFAULT '00:00:10'::interval",
}


@pytest.mark.parametrize("function", SIGNATURES)
def test_a_function_takes_what_it_was_announced_with(db, function):
    found = db.execute("select pg_get_function_arguments(oid) from pg_proc where proname = %s "
                       "and pronamespace = 'pgtrickle'::regnamespace", (function,))
    assert [arguments.split(", OUT ")[0].split(", TABLE")[0] for (arguments,) in found] == [
        SIGNATURES[function]]


# A checker of its own ------------------------------------------------------------------------

class Publisher(threading.Thread):
    """Publishes in transactions that cross each other: with savepoints, some rolled back, some prepared."""

    def __init__(self, db, number, stop):
        super().__init__()
        self.committed, self._db, self._number, self._halt = set(), db, number, stop
        self.left_open = None

    def run(self):
        chance, n = random.Random(self._number), 0
        with self._db.connect() as connection:
            while not self._halt.is_set():
                written = set()
                connection.execute("begin")
                for step in range(chance.randint(1, 4)):
                    n += 1
                    value = f"{self._number}:{n}"
                    connection.execute("savepoint s")
                    connection.execute("select pgtrickle.publish('shop', to_jsonb(%s::text), key => %s)",
                                       (value, None if chance.random() < 0.2 else value[-1]))
                    if chance.random() < 0.3:
                        connection.execute("rollback to s")
                    else:
                        written.add(value)
                    if chance.random() < 0.3:
                        time.sleep(chance.random() * 0.02)
                end = chance.random()
                if end < 0.2:
                    connection.execute("rollback")
                elif end < 0.3 and self.left_open is None and self._number == 0:
                    # It stays open until all else has ended.
                    connection.execute(f"prepare transaction '{self._db.name}'")
                    self.left_open = written
                else:
                    connection.execute("commit")
                    self.committed |= written


class Reader(threading.Thread):
    """Polls, and answers as it likes: all, a part, not at all, with a rollback, or with a seek back."""

    def __init__(self, db, name, stop):
        super().__init__()
        self.committed, self.errors = set(), []
        self._db, self._name, self._halt = db, name, stop

    def run(self):
        chance = random.Random(self._name)
        with session(self._db, autocommit=False) as connection:
            while not self._halt.is_set():
                try:
                    self._step(connection, chance)
                except psycopg.errors.ObjectNotInPrerequisiteState as late:
                    connection.rollback()
                    if "lease_lost" not in (late.diag.message_detail or ""):
                        self.errors.append(late)
                except psycopg.errors.DeadlockDetected:
                    connection.rollback()  # a seek beside an open transaction: as if the lease were lost
                except psycopg.errors.InvalidParameterValue as beyond:
                    connection.rollback()
                    # The slots of the last rows were lost, others were kept.
                    if "was given rows up to" not in str(beyond):
                        self.errors.append(beyond)
                except psycopg.Error as error:
                    connection.rollback()
                    self.errors.append(error)

    def _step(self, connection, chance):
        rows = poll(connection, self._name, batch=chance.choice([1, 3, 50]),
                    visibility=chance.choice([1, 30]))
        if chance.random() < 0.5:
            connection.commit()
        how = chance.random()
        if not rows or how < 0.1:
            connection.commit()
        elif how < 0.2:
            connection.rollback()
        elif how < 0.25:
            connection.commit()  # two transactions with polled slots that both seek would deadlock
            # Behind all slots: a seek moves the whole group, and what it passes is not delivered.
            lowest = connection.execute(
                "select min(position) from pgtrickle.consumer_lag('g')").fetchone()[0]
            back = max(lowest - chance.randint(0, 50), 0)
            connection.execute("select pgtrickle.seek_offset('g', %s, %s)", (self._name, back))
            connection.commit()
        else:
            kept = rows[:chance.randint(1, len(rows))] if how < 0.4 else rows
            commit(connection, kept[-1]["outbox_id"], self._name)
            connection.commit()
            self.committed |= set(payloads(kept))


@pytest.mark.parametrize("slots", [1, 8])
def test_nothing_is_skipped_by_crossing_transactions_seeks_and_half_answers(db, slots):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db, slots=slots, max_attempts=1000)
    stop_publishers, stop_readers = threading.Event(), threading.Event()
    publishers = [Publisher(db, number, stop_publishers) for number in range(4)]
    readers = [Reader(db, f"r{number}", stop_readers) for number in range(4)]
    for thread in publishers + readers:
        thread.start()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        db.execute("select pgtrickle.relay_housekeeping()")
        time.sleep(0.2)
    stop_publishers.set()
    for thread in publishers:
        thread.join()
    wanted = set().union(*(publisher.committed for publisher in publishers))
    left_open = publishers[0].left_open
    try:
        if left_open is not None:
            db.execute(f"commit prepared '{db.name}'")
            wanted |= left_open
        eventually(lambda: set().union(*(reader.committed for reader in readers)) >= wanted, 60,
                   message=lambda: str(wanted - set().union(*(r.committed for r in readers))))
    finally:
        stop_readers.set()
        for thread in readers:
            thread.join()
    assert [reader.errors for reader in readers] == [[], [], [], []]
    assert set().union(*(reader.committed for reader in readers)) == wanted and len(wanted) > 50


# What is done to the outbox --------------------------------------------------------------------

def test_an_outbox_that_is_dropped_while_it_is_polled(shop):
    publish(shop, 2)
    with session(shop, autocommit=False) as worker, shop.connect(autocommit=False) as other:
        assert payloads(poll(worker)) == [1, 2]
        with shop.connect() as impatient:
            impatient.execute("set lock_timeout = '300ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                impatient.execute("select pgtrickle.disable_outbox('shop')")
        commit(worker, 2)
        worker.commit()
        other.execute("select pgtrickle.disable_outbox('shop')")
        assert poll(worker) == []  # it waits for nothing
        worker.commit()
        other.commit()
        with pytest.raises(psycopg.errors.UndefinedObject, match="no consumer group"):
            poll(worker)
        worker.rollback()
        # An outbox of the same name is another one.
        shop.execute("select pgtrickle.create_outbox('shop')")
        make_group(shop)
        publish(shop, 1, first=7)
        assert payloads(poll(worker)) == [7]


def test_an_outbox_of_a_table_that_is_disabled_and_enabled_again_has_no_old_group(db):
    db.execute("create table orders (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    make_group(db, outbox="orders")
    db.execute("insert into orders values (1)")
    with session(db) as worker:
        assert len(poll(worker)) == 1
        db.execute("select pgtrickle.disable_outbox('orders')")
        db.execute("select pgtrickle.enable_outbox('orders')")
        with pytest.raises(psycopg.errors.UndefinedObject, match="no consumer group"):
            commit(worker, 1)
        make_group(db, outbox="orders")
        db.execute("insert into orders values (2)")
        assert [row["payload"]["inserted"] for row in poll(worker)] == [[{"id": 2}]]


def test_a_table_that_is_emptied_under_a_group(shop):
    publish(shop, 5)
    with session(shop) as worker:
        assert payloads(poll(worker, batch=2)) == [1, 2]
        shop.execute("truncate pgtrickle.outbox_shop")
        assert poll(worker) == []
        publish(shop, 3, first=6)
        assert drain(worker) == [6, 7, 8]
        shop.execute("truncate pgtrickle.outbox_shop restart identity")
        publish(shop, 1)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was rewound"):
            poll(worker)
        worker.execute("select pgtrickle.seek_offset('g', 'a', 0)")
        assert drain(worker) == [1]
        publish(shop, 2, first=2)
        assert drain(worker) == [2, 3]


def test_what_was_seen_of_ids_says_nothing_of_those_that_come_again(shop):
    make_group(shop, "behind")
    with session(shop) as worker:
        with shop.connect(autocommit=False) as slow:
            slow.execute("select pgtrickle.publish('shop', '0')")
            publish(shop, 9)
            assert poll(worker) == []
        drain(worker)
        shop.execute("truncate pgtrickle.outbox_shop restart identity")
        worker.execute("select pgtrickle.seek_offset('behind', 'a', 0)")
        with shop.connect(autocommit=False) as slow:
            slow.execute("select pgtrickle.publish('shop', '1')")
            publish(shop, 1, first=2)
            assert poll(worker, group="behind") == []
            slow.commit()
        assert drain(worker, group="behind") == [1, 2]


def test_a_group_that_stands_at_the_beginning_of_an_outbox_set_back_skips_nothing(shop):
    publish(shop, 9)
    make_group(shop, "reader")
    with session(shop) as worker:
        drain(worker, group="reader")
        with shop.connect(autocommit=False) as slow:
            slow.execute("select pgtrickle.publish('shop', '0')")
            publish(shop, 1)
            assert poll(worker, group="reader") == []
        drain(worker, group="reader")
        shop.execute("truncate pgtrickle.outbox_shop restart identity")
        # "g" has never polled.
        with shop.connect(autocommit=False) as slow:
            slow.execute("select pgtrickle.publish('shop', '1')")
            publish(shop, 1, first=2)
            assert poll(worker) == []
            slow.commit()
        assert drain(worker) == [1, 2]


@pytest.mark.parametrize("slots", [1, 8])
def test_an_outbox_that_was_set_back_and_has_grown_beyond_the_group_is_seen(shop, slots):
    make_group(shop, "many", slots=slots)
    shop.execute("select pgtrickle.publish('shop', to_jsonb(i), key => i::text) "
                 "from generate_series(1, 5) i")
    with session(shop) as worker:
        assert drain(worker, group="many") == [1, 2, 3, 4, 5]
        # As from a dump of this table alone: rows 4 and 5 are gone, and their ids are drawn again.
        shop.execute("delete from pgtrickle.outbox_shop where id > 3")
        shop.execute("alter table pgtrickle.outbox_shop alter column id restart with 4")
        shop.execute("select pgtrickle.publish('shop', to_jsonb(i), key => i::text) "
                     "from generate_series(14, 20) i")
        for _ in range(2):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was rewound") as said:
                poll(worker, group="many")
            assert "seek_offset" in said.value.diag.message_hint
        worker.execute("select pgtrickle.seek_offset('many', 'a', 3)")
        assert sorted(drain(worker, group="many")) == list(range(14, 21))


def test_rows_that_are_deleted_by_hand_are_passed(shop):
    publish(shop, 6)
    with session(shop) as worker:
        poll(worker, batch=3)
        shop.execute("delete from pgtrickle.outbox_shop where id in (2, 3, 4)")
        assert payloads(poll(worker)) == [1]
        commit(worker, 1)
        assert drain(worker) == [5, 6]


def test_a_group_goes_on_after_a_dump_was_restored(shop, pg_server):
    publish(shop, 4)
    with session(shop) as worker:
        commit(worker, poll(worker, batch=2)[-1]["outbox_id"])
        poll(worker, batch=1)
    copy = pg_server.create_database(template="template0")
    try:
        dump = subprocess.run([f"{pg_server.bin}/pg_dump", shop.dsn], capture_output=True)
        if b"server version mismatch" in dump.stderr:
            pytest.skip("pg_dump is older than the server")
        done = subprocess.run([f"{pg_server.bin}/psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.dsn],
                              input=dump.stdout, capture_output=True)
        assert done.returncode == 0, done.stderr
        with session(copy) as worker:
            expire(copy)
            publish(copy, 1, first=5)
            assert drain(worker, "b") == [3, 4, 5]
    finally:
        copy.drop()


# Clocks --------------------------------------------------------------------------------------

def test_times_in_the_future_give_no_consumer_more_than_its_rows(shop):
    """As after the clock of the server was set back by a day."""
    publish(shop, 2)
    with session(shop) as worker:
        poll(worker, "a")
        shop.execute("update pgtrickle_internal.consumer_slots set until = until + interval '1 day'")
        shop.execute("update pgtrickle_internal.consumer_members set alive_until = alive_until + "
                     "interval '1 day', seen_at = seen_at + interval '1 day'")
        shop.execute("update pgtrickle_internal.consumer_looks set looked_at = looked_at + interval '1 day'")
        assert poll(worker, "b") == []
        commit(worker, 2, "a")
        publish(shop, 2, first=3)
        assert drain(worker, "a") == [3, 4]
        # Another consumer takes over when the operator sets the group back to where it stands.
        publish(shop, 1, first=5)
        worker.execute("select pgtrickle.seek_offset('g', 'b', 4)")
        shop.execute("update pgtrickle_internal.consumer_members set alive_until = clock_timestamp()")
        assert drain(worker, "b") == [5]


def test_a_look_from_the_future_is_no_reason_to_wait_or_to_skip(shop):
    with shop.connect(autocommit=False) as slow:
        slow.execute("select pgtrickle.publish('shop', '1')")
        publish(shop, 1, first=2)
        with session(shop) as worker:
            assert poll(worker) == []
            shop.execute("update pgtrickle_internal.consumer_looks set looked_at = looked_at + "
                         "interval '1 day'")
            assert poll(worker) == []
            slow.commit()
            assert drain(worker) == [1, 2]
