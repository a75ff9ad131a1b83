"""Reading an outbox never skips a row that commits late, and waits only for transactions that publish.
"""

import random
import threading
import time
from bisect import bisect_left

import pytest

from support.pipelines import (LONG, SLOW_FACTOR, Arrivals, Lines, insert_rows, make_table,
                               set_outbox, to_file, to_nats, wait_settled)
from support.relay import Relay
from support.waiting import eventually, holds_for

WRITERS = 64
SECONDS = 60 if LONG else 15

# Stops a writer after its outbox row has drawn its id and before the row is written: a BEFORE
# trigger on the outbox runs exactly there.
STOP_AFTER_THE_ID_IS_DRAWN = """
create function stop_here() returns trigger language plpgsql as $$
begin
  if current_setting('test.stop_on', true) <> '' then
    perform pg_advisory_xact_lock(current_setting('test.stop_on')::bigint);
  end if;
  if current_setting('test.pause', true) <> '' then
    perform pg_sleep(current_setting('test.pause')::float);
  end if;
  return new;
end $$;
create trigger stop_here before insert on pgtrickle.{outbox}
  for each row execute function stop_here();
"""


def outbox_of(db, table):
    return db.one("select outbox_table_name from pgtrickle.pgt_outbox_config"
                  " where stream_table_name = %s", (table,))


def let_writers_be_stopped(db, table):
    db.execute(STOP_AFTER_THE_ID_IS_DRAWN.format(outbox=outbox_of(db, table)))


@pytest.fixture
def lines(db, relay_bin, tmp_path):
    """A table `orders` whose outbox flows into a file of a running relay."""
    make_table(db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        yield lines


def in_background(function):
    failure = []

    def run():
        try:
            function()
        except Exception as error:
            failure.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.failure = failure
    return thread


@pytest.mark.sanitizer
def test_a_row_that_commits_late_is_waited_for_and_keeps_its_place(db, lines):
    with db.connect(autocommit=False) as late:
        late.execute("insert into orders values (2, 'late', 2)")
        insert_rows(db, "orders", 3, 5)
        holds_for(lambda: lines.rows() == [1], 0.5)
        late.commit()
    lines.wait_rows([1, 2, 3, 4, 5, 6, 7])


def test_a_row_that_is_rolled_back_leaves_a_gap_that_holds_nothing_up(db, lines):
    with db.connect(autocommit=False) as late:
        late.execute("insert into orders values (2, 'never', 2)")
        insert_rows(db, "orders", 3)
        holds_for(lambda: lines.rows() == [1], 0.3)
        late.rollback()
    lines.wait_rows([1, 3])
    insert_rows(db, "orders", 4)
    lines.wait_rows([1, 3, 4])


def test_a_writer_stopped_between_drawing_its_id_and_writing_is_waited_for(db, lines):
    let_writers_be_stopped(db, "orders")
    with db.connect() as gate:
        gate.execute("select pg_advisory_lock(42)")

        def stopped():
            with db.connect() as writer:
                writer.execute("set test.stop_on = '42'")
                writer.execute("insert into orders values (2, 'stopped', 2)")
        thread = in_background(stopped)
        eventually(lambda: db.one("select count(*) from pg_locks where locktype = 'advisory'"
                                  " and not granted and objid = 42"))
        insert_rows(db, "orders", 3, 5)
        holds_for(lambda: lines.rows() == [1], 0.5)
        gate.execute("select pg_advisory_unlock(42)")
    thread.join(10)
    assert not thread.failure
    lines.wait_rows([1, 2, 3, 4, 5, 6, 7])


def test_a_prepared_transaction_is_waited_for(db, lines):
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (2, 'prepared', 2)")
        writer.execute("prepare transaction 'late'")
    insert_rows(db, "orders", 3)
    holds_for(lambda: lines.rows() == [1], 0.5)
    db.execute("commit prepared 'late'")
    lines.wait_rows([1, 2, 3])


def test_a_prepared_transaction_that_is_rolled_back_holds_nothing_up(db, lines):
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (2, 'prepared', 2)")
        writer.execute("prepare transaction 'never'")
    insert_rows(db, "orders", 3)
    holds_for(lambda: lines.rows() == [1], 0.3)
    db.execute("rollback prepared 'never'")
    lines.wait_rows([1, 3])


# Advisory locks that any login may take, and statements that delete: neither hides a writer.

RETENTION_LOCKS = """
select pg_advisory_xact_lock(hashtextextended('pgtrickle retention', 0)),
       pg_advisory_xact_lock_shared(hashtextextended('pgtrickle retention', 0)),
       pg_advisory_xact_lock(hashtextextended('pgtrickle housekeeping', 0))
"""
HOUSEKEEPING = "select pgtrickle.relay_housekeeping()"
LATE = "insert into orders values (2, 'late', 2)"


@pytest.mark.parametrize("statements", [
    (RETENTION_LOCKS, LATE),
    (LATE, RETENTION_LOCKS),
    (HOUSEKEEPING, LATE),
    (LATE, HOUSEKEEPING),
    ("savepoint s", LATE, "rollback to s", HOUSEKEEPING, LATE),
    ("delete from pgtrickle.{outbox} where id < 0", LATE),
], ids=["locks of retention, then writing", "writing, then locks of retention",
        "housekeeping, then writing", "writing, then housekeeping",
        "writing, undone, housekeeping, writing", "deleting, then writing"])
def test_no_writer_can_hide_from_the_reader(db, lines, statements):
    db.execute("update pgtrickle.pgt_outbox_config set retention_hours = 0")
    with db.connect(autocommit=False) as late:
        for statement in statements:
            late.execute(statement.format(outbox=outbox_of(db, "orders")))
        insert_rows(db, "orders", 3, 5)
        holds_for(lambda: lines.rows() == [1], 0.5)
        late.commit()
    lines.wait_rows([1, 2, 3, 4, 5, 6, 7])


def test_no_writer_can_hide_from_retention(db, relay_bin):
    make_table(db)
    db.execute("update pgtrickle.pgt_outbox_config set retention_hours = 0")
    with db.connect(autocommit=False) as writer:
        writer.execute("select pg_advisory_xact_lock_shared("
                       "hashtextextended('pgtrickle retention', 0))")
        writer.execute("insert into orders values (1, 'late', 1)")
        insert_rows(db, "orders", 2)
        db.execute(HOUSEKEEPING)
        writer.execute(HOUSEKEEPING)
        writer.commit()
    assert db.one("select purged_below from pgtrickle.pgt_outbox_config") == 0
    assert db.one(f"select count(*) from pgtrickle.{outbox_of(db, 'orders')}") == 2


def test_a_deletion_delays_nothing(db, lines):
    with db.connect(autocommit=False) as deleter:
        deleter.execute(f"delete from pgtrickle.{outbox_of(db, 'orders')} where id < 0")
        with db.connect(autocommit=False) as undone:
            undone.execute("insert into orders values (2, 'undone', 2)")
            insert_rows(db, "orders", 3)
            undone.rollback()
        lines.wait_rows([1, 3])


def test_an_unrelated_open_transaction_delays_nothing(db, lines):
    db.execute("create table unrelated (x int)")
    with db.connect(autocommit=False) as open_one, db.connect(autocommit=False) as snapshot:
        open_one.execute("insert into unrelated values (1)")
        open_one.execute("lock table unrelated in access exclusive mode")
        snapshot.execute("set transaction isolation level repeatable read")
        snapshot.execute("select count(*) from orders")
        begin = time.monotonic()
        insert_rows(db, "orders", 2, 10)
        lines.wait_rows(range(1, 12))
        assert time.monotonic() - begin < 2 * SLOW_FACTOR


def test_a_reader_of_the_outbox_table_delays_nothing(db, lines):
    with db.connect(autocommit=False) as reader:
        reader.execute(f"select count(*) from pgtrickle.{outbox_of(db, 'orders')}")
        insert_rows(db, "orders", 2, 3)
        lines.wait_rows(range(1, 5))


def test_vacuum_and_analyze_of_the_outbox_delay_nothing(db, lines):
    db.execute(f"vacuum analyze pgtrickle.{outbox_of(db, 'orders')}")
    insert_rows(db, "orders", 2, 3)
    lines.wait_rows(range(1, 5))


def test_who_waits_for_a_slow_publisher_is_told_its_age_and_pid(db, lines):
    with db.connect(autocommit=False) as late:
        late.execute("insert into orders values (2, 'late', 2)")
        pid = late.info.backend_pid
        insert_rows(db, "orders", 3)
        status = eventually(lambda: (lambda text: text if str(pid) in text else None)(
            str(db.one("select pgtrickle.outbox_status('orders')"))))
        assert str(pid) in status
        late.commit()
    lines.wait_rows([1, 2, 3])


class Crowd:
    """64 writers of every kind; each remembers when its transactions published and ended."""

    def __init__(self, db, seconds, seed):
        self._db, self._end, self._seed = db, time.monotonic() + seconds, seed
        self.published = []  # (first write, commit returned, [ids]); ids empty after a rollback
        self.errors = []
        self._lock = threading.Lock()
        self._next = 0
        self._threads = [threading.Thread(target=self._guarded, args=(number,), daemon=True)
                         for number in range(WRITERS)]

    def run(self):
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def _ids(self, count):
        with self._lock:
            self._next += count
            return list(range(self._next - count + 1, self._next + 1))

    def _guarded(self, number):
        try:
            with self._db.connect(autocommit=False) as connection:
                self._write(connection, number, random.Random(self._seed + number))
        except Exception as error:
            self.errors.append(repr(error))

    def _write(self, connection, number, chance):
        kinds = [self._plain, self._plain, self._plain, self._several, self._savepoint,
                 self._rolled_back, self._copied, self._prepared, self._stopped]
        while time.monotonic() < self._end:
            kind = self._slow if number == 0 else chance.choice(kinds)
            # COPY, savepoints and the rest differ only in how they write; all is timed alike.
            began = time.time()
            ids = kind(connection, chance)
            ended = time.time()
            with self._lock:
                self.published.append((began, ended, ids))
            time.sleep(chance.random() * 0.05)  # writers with random delays are the load itself

    @staticmethod
    def _insert(connection, ids, note):
        connection.execute("insert into orders select unnest(%s::bigint[]), %s, 1", (ids, note))

    def _plain(self, connection, chance):
        ids = self._ids(1)
        self._insert(connection, ids, "plain")
        connection.commit()
        return ids

    def _several(self, connection, chance):
        ids = []
        for _ in range(chance.randint(2, 4)):
            more = self._ids(chance.randint(1, 5))
            self._insert(connection, more, "several")
            ids += more
            time.sleep(chance.random() * 0.02)
        connection.commit()
        return ids

    def _savepoint(self, connection, chance):
        ids = self._ids(1)
        self._insert(connection, ids, "before")
        connection.execute("savepoint s")
        self._insert(connection, self._ids(2), "undone")
        connection.execute("rollback to savepoint s")
        more = self._ids(1)
        self._insert(connection, more, "after")
        connection.commit()
        return ids + more

    def _rolled_back(self, connection, chance):
        self._insert(connection, self._ids(2), "never")
        time.sleep(chance.random() * 0.05)
        connection.rollback()
        return []

    def _copied(self, connection, chance):
        ids = self._ids(chance.randint(1, 50))
        with connection.cursor().copy("copy orders from stdin") as copy:
            for identity in ids:
                copy.write_row((identity, "copied", 1))
        connection.commit()
        return ids

    def _prepared(self, connection, chance):
        ids = self._ids(1)
        self._insert(connection, ids, "prepared")
        name = f"p{ids[0]}"
        connection.execute(f"prepare transaction '{name}'")
        time.sleep(chance.random() * 0.1)
        connection.autocommit = True
        undone = chance.random() < 0.3
        connection.execute(f"{'rollback' if undone else 'commit'} prepared '{name}'")
        connection.autocommit = False
        return [] if undone else ids

    def _stopped(self, connection, chance):
        ids = self._ids(1)
        connection.execute("select set_config('test.pause', %s, true)",
                           (f"{chance.random() * 0.2:.3f}",))
        self._insert(connection, ids, "stopped")
        connection.commit()
        return ids

    def _slow(self, connection, chance):
        ids = self._ids(1)
        self._insert(connection, ids, "slow")
        time.sleep(chance.uniform(0.3, 1.5))
        connection.commit()
        return ids


def longest_wait(published, arrivals):
    """(worst excess in seconds, its id): how much longer a row was held back than the longest
    publishing transaction that was open meanwhile. `arrivals`: {id: time}."""
    worst = (-1.0, None)
    slow = sorted((began, ended) for began, ended, _ in published if ended - began > 0.05)
    starts = [began for began, _ in slow]
    longest = max((ended - began for began, ended in slow), default=0)
    for began, ended, ids in published:
        for identity in ids:
            arrived = arrivals[identity]
            held = arrived - ended
            if held <= 0.05:
                continue
            near = slow[bisect_left(starts, ended - longest):bisect_left(starts, arrived)]
            open_meanwhile = max((e - b for b, e in near if e > ended), default=0.05)
            worst = max(worst, (held - open_meanwhile, identity))
    return worst


@pytest.mark.alone
@pytest.mark.timeout(SECONDS * 4 + 240)
def test_64_concurrent_writers_of_every_kind_and_each_row_arrives_once_in_order_without_delay(
        db, nats, relay_bin, tmp_path):
    seed = random.SystemRandom().randrange(1 << 30)
    make_table(db)
    db.execute("create table unrelated (x int)")
    let_writers_be_stopped(db, "orders")
    lines = Lines(tmp_path / "out.jsonl")
    with nats.client() as client:
        client.create_stream("promise", "relay.>")
    set_outbox(db, "file", to_file("orders", lines.path))
    set_outbox(db, "nats", to_nats("orders", nats, "relay.rows"))
    crowd = Crowd(db, SECONDS, seed)
    with Relay(db.relay_dsn) as relay, Arrivals(lines.path) as following, \
            db.connect(autocommit=False) as unrelated:
        relay.wait_healthy(pipelines=2)
        unrelated.execute("insert into unrelated values (1)")
        unrelated.execute("select count(*) from orders")
        crowd.run()
        for pipeline in ("file", "nats"):
            wait_settled(db, pipeline, "orders", deadline=60)
        unrelated.rollback()

    committed = [row[0] for row in db.execute(
        f"select id from pgtrickle.{outbox_of(db, 'orders')} order by id")]
    rows = {row[0] for row in db.execute("select id from orders")}
    assert len(committed) > 20 * SECONDS, "hardly any load"
    assert rows == {identity for _, _, ids in crowd.published for identity in ids}
    print(f"{len(committed)} outbox rows, {len(rows)} rows, seed {seed}")

    with nats.client() as client:
        stored = client.messages("promise")
    in_nats = [message.json for message in stored]
    for name, messages in (("file", lines.messages()), ("nats", in_nats)):
        sequences = [message["sequence"] for message in messages]
        assert sequences == committed, \
            f"{name}, seed {seed}: {first_difference(sequences, committed)}"
        arrived = [row["id"] for message in messages for row in message["delta"]["inserted"]]
        assert len(arrived) == len(rows) and set(arrived) == rows, name

    at_file = {row["id"]: at for at, message in following.messages()
               for row in message["delta"]["inserted"]}
    at_nats = {row["id"]: message.time for message, body in zip(stored, in_nats)
               for row in body["delta"]["inserted"]}
    for name, arrivals in (("file", at_file), ("nats", at_nats)):
        excess, identity = longest_wait(crowd.published, arrivals)
        print(f"{name}: held back at most {max(excess, 0):.2f} s longer than the longest publisher")
        assert excess < 0.75 * SLOW_FACTOR, f"{name}: row {identity}, seed {seed}"


def first_difference(got, wanted):
    for index, (left, right) in enumerate(zip(got, wanted)):
        if left != right:
            return f"at {index}: got {got[index:index + 4]}, wanted {wanted[index:index + 4]}"
    return f"got {len(got)}, wanted {len(wanted)}"
