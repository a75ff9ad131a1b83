"""Promotions among writers, refreshes and alterations, with relay and PostgreSQL killed: the table equals
its query, and what consumers made of the deltas equals the table.

PROMOTE_SECONDS says for how long."""

import json
import os
import random
import time

import psycopg
import pytest

from support.background import Background
from support.feeds import FeedFollower, make_feed
from support.groups import WORKER, make_group
from support.pipelines import LONG, set_outbox, to_file
from support.postgres import PostgresServer
from support.replay import Replay
from support.stream_tables import create
from support.waiting import eventually

SECONDS = float(os.environ.get("PROMOTE_SECONDS", "60" if LONG else "5"))
# Each one may be promoted to a table that has the columns of an earlier one.
QUERIES = ["select region, sum(amount) as revenue from sales group by 1",
           "select region, sum(amount) as revenue from sales where amount > 10 group by 1",
           "select region, max(amount) as revenue from sales group by 1",
           "select region, sum(amount) as revenue, count(*) as n from sales group by 1",
           "select region, sum(amount) as revenue, count(*) as n from sales where id % 2 = 0 group by 1"]
# What may be said where several do the same: the stream table is gone, another one has more columns
# by now, a reader does not end.
EXPECTED = (psycopg.errors.UndefinedTable, psycopg.errors.DatatypeMismatch, psycopg.errors.DuplicateTable,
            psycopg.errors.LockNotAvailable, psycopg.errors.ObjectInUse)


def make_sales(db):
    db.execute("create table sales (id int primary key, region text, amount numeric)")
    create(db, "totals", QUERIES[0], key=None)
    db.execute("select pgtrickle.enable_outbox('totals')")


def write(session, chance):
    one, other = chance.randrange(200), chance.randrange(9)
    session.execute(chance.choice([
        f"insert into sales values ({one}, 'r{other}', {other * 7}) on conflict (id) do update set amount = 3",
        f"update sales set region = 'r{other}' where id % 17 = {one % 17}",
        f"update sales set amount = amount + 1 where id % 5 = {one % 5}",
        f"delete from sales where id = {one}"]))


class Attempts(Background):
    """Does one thing after the other at random, until the end; unexpected errors are kept."""

    def __init__(self, db, number):
        super().__init__()
        self._db, self._green = db, f"green_{number}"
        self._chance = random.Random(number)
        self.promoted, self.unexpected = 0, []

    def _run(self):
        with self._db.connect() as session:
            session.execute("set statement_timeout = '60s'")
            while not self._stop.is_set():
                try:
                    self._act(session)
                except EXPECTED:
                    pass
                except psycopg.Error as error:
                    self.unexpected.append(repr(error))

    def _act(self, session):
        deed = self._chance.random()
        if deed < 0.3:
            session.execute("select pgtrickle.drop_stream_table(%s, true)", (self._green,))
            session.execute("select pgtrickle.create_stream_table(%s, %s, '1ms')",
                            (self._green, self._chance.choice(QUERIES)))
            session.execute("select pgtrickle.promote_stream_table('totals', %s)", (self._green,))
            self.promoted += 1
        elif deed < 0.4:
            session.execute("select pgtrickle.promote_stream_table('totals', %s)",
                            (f"green_{self._chance.randrange(20)}",))
            self.promoted += 1
        elif deed < 0.6:
            session.execute("select pgtrickle.refresh_stream_table(%s)",
                            (self._chance.choice(["totals", self._green]),))
        elif deed < 0.7:
            session.execute("select pgtrickle.alter_stream_table('totals', schedule => %s)",
                            (self._chance.choice(["1ms", "1s", "manual"]),))
        elif deed < 0.75:
            session.execute("select pgtrickle.alter_stream_table('totals', query => %s)",
                            (self._chance.choice(QUERIES),))
        elif deed < 0.8:
            session.execute("select count(*) from totals")
        else:
            write(session, self._chance)


def is_its_query(db):
    query = db.one("select original_query from pgtrickle.pgt_stream_tables where pgt_name = 'totals'")
    rows = "select to_jsonb(x.*)::text from ({}) x order by 1"
    return db.execute(rows.format("table totals")) == db.execute(rows.format(query))


@pytest.mark.alone
def test_twenty_at_once_end_in_no_deadlock_and_no_wrong_row(db):
    make_sales(db)
    attempts = [Attempts(db, number) for number in range(20)]
    for each in attempts:
        each.__enter__()
    time.sleep(SECONDS)
    for each in attempts:
        each._stop.set()
    for each in attempts:
        each.__exit__()
    assert [error for each in attempts for error in each.unexpected] == []
    assert sum(each.promoted for each in attempts) > 0
    db.execute("select pgtrickle.refresh_stream_table('totals')")
    assert is_its_query(db)
    Replay(db, "totals").check()
    # One outbox, of one and the same table, and nothing left behind.
    names = [name for name, in db.execute("select pgt_name from pgtrickle.pgt_stream_tables order by 1")]
    assert db.one("select count(*) from pg_proc where pronamespace = 'pgtrickle_streams'::regnamespace "
                  "and proname like 'refresh%'") \
        == len(names)
    assert db.one("select count(*) from pg_class where relnamespace = 'pgtrickle_streams'::regnamespace "
                  "and relkind = 'r'") == len(names)


# Copies ---------------------------------------------------------------------------------------------

class GroupCopy(Background):
    """A copy that a consumer of a group keeps, in one transaction with its position."""

    def __init__(self, db):
        super().__init__()
        self._db = db
        db.execute("create table copy (region text primary key, data jsonb not null)")
        make_group(db, outbox="totals")
        db.execute(f"grant all on copy to {WORKER}")

    def _run(self):
        while not self._stop.is_set():
            try:
                with self._db.connect(user=WORKER) as session:
                    while not self._stop.is_set():
                        with session.transaction():
                            self._step(session)
            except psycopg.Error:
                time.sleep(0.05)  # the server is killed from time to time

    def _step(self, session):
        rows = session.execute("select outbox_id, payload, is_claim_check from "
                               "pgtrickle.poll_outbox('g', 'copier', 50, 5, 1)").fetchall()
        for _, payload, is_claim_check in rows:
            assert not is_claim_check
            if payload.get("full_refresh"):
                session.execute("delete from copy")
            for row in payload["deleted"]:
                session.execute("delete from copy where region = %s", (row["region"],))
            for row in payload["inserted"]:
                session.execute("insert into copy values (%s, %s)", (row["region"], json.dumps(row)))
        if rows:
            session.execute("select pgtrickle.commit_offset('g', 'copier', %s)", (rows[-1][0],))


class SubscriptionCopy:
    """A copy that a subscription keeps, on a server of its own that is killed, too."""

    def __init__(self, db):
        publication = db.one("select pgtrickle.create_publication('totals')")
        self.server = PostgresServer("subscriber").start()
        with self.server.connect() as session:
            # The column that a promotion adds is there first, as docs/consumers.md says.
            session.execute("create table totals (region text primary key, revenue numeric, n bigint)")
            session.execute(f"create subscription copy connection '{db.dsn}' publication {publication}")
            # PostgreSQL's own first copy does not survive every kill of the publisher.
            eventually(lambda: session.execute("select srsubstate from pg_subscription_rel").fetchone() == ("r",), 60)

    def rows(self):
        with self.server.connect() as session:
            return {row["region"]: row for row, in session.execute("select to_jsonb(t.*) from totals t")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop_immediate()


def copy_of(path):
    """The rows by key, as the messages of a pipeline leave them."""
    rows = {}
    for line in path.read_text().splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # the relay was killed while it wrote the line, and has sent it again
        if message["metadata"].get("full_refresh"):
            rows.clear()
        for row in message["delta"]["deleted"]:
            rows.pop(row["region"], None)
        rows |= {row["region"]: row for row in message["delta"]["inserted"]}
    return rows


def disturb(db, chance, step, columns):
    """Something that a consumer must follow: key changes, TRUNCATE, full refreshes, promotions."""
    deed = step % 6
    if deed == 1:
        db.execute("truncate sales")
    elif deed == 3:
        db.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
        db.execute("select pgtrickle.refresh_stream_table('totals')")
        db.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'AUTO')")
    elif deed == 5:
        db.execute("select pgtrickle.drop_stream_table('green', true)")
        query = chance.choice(QUERIES[:3] if columns == 2 else QUERIES[3:])
        db.execute("select pgtrickle.create_stream_table('green', %s, '1ms')", (query,))
        db.execute("select pgtrickle.promote_stream_table('totals', 'green')")
    for _ in range(5):
        write(db, chance)


def kill(servers, relays, chance, start):
    if chance.random() < 0.6:
        chance.choice(servers).restart("kill9")
    else:
        relays.pop().kill9()
        relays.append(start())


@pytest.mark.alone
def test_copies_stay_equal_while_relay_and_server_are_killed(own_pg_server, own_db, tmp_path, start_relay):
    db, chance = own_db, random.Random(4)
    make_sales(db)
    path = tmp_path / "out"
    set_outbox(db, "p", to_file("totals", path))
    feed = make_feed(db, "totals", full_refresh_rows=True)
    relays = [start_relay(db.relay_dsn)]
    until = time.monotonic() + 2 * SECONDS
    step = columns = 0
    with GroupCopy(db), SubscriptionCopy(db) as subscription, FeedFollower(db, feed) as follower:
        servers = [own_pg_server, subscription.server]
        while time.monotonic() < until or step < 18:
            columns = 2 if step < 9 else 3
            try:
                disturb(db, chance, step, columns)
                step += 1
            except psycopg.OperationalError:
                pass
            if step % 3 == 2 and chance.random() < 0.7:
                kill(servers, relays, chance, lambda: start_relay(db.relay_dsn))
        # The last TRUNCATE may be all that was committed, for a kill ends what follows it.
        db.execute("insert into sales values (200, 'r1', 7) on conflict (id) do update set amount = 3")
        eventually(lambda: db.one("select pgtrickle.refresh_stream_table('totals')")["action"] == "NO_DATA", 60)
        assert is_its_query(db)
        wanted = {row["region"]: row for row, in db.execute("select to_jsonb(t.*) from totals t")}
        assert set(next(iter(wanted.values()))) == {"region", "revenue", "n"}
        eventually(lambda: copy_of(path) == wanted, 60, message=lambda: (copy_of(path), wanted))
        eventually(lambda: dict(db.execute("select region, data from copy")) == wanted, 60)
        eventually(lambda: subscription.rows() == wanted, 60, message=subscription.server.log)
        eventually(lambda: follower.index.rows == follower.index.of_table(db, "totals", ["region"]), 60)
        assert all(follower.actions[action] for action in "IDF")
