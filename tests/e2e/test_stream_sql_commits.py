"""Each committed change is exactly one event, and what was rolled back is none."""

import itertools
import random
import threading

import psycopg
import pytest
from support.stream_database import (add_partition, events, failed, partition_work,  # noqa: F401
                                     stream_db, stream_server, subscribe)
from support.waiting import eventually

WRITERS, TRANSACTIONS = 32, 25


def insert(connection, number):
    connection.execute("insert into t values (%s, 'x')", (number,))


class Writer(threading.Thread):
    """Transactions of all forms from a seed. `committed` are the ids that were committed."""

    def __init__(self, db, number, stop):
        super().__init__(daemon=True)
        self._db, self._number, self._stop_asked = db, number, stop
        self._random = random.Random(number)
        self.committed, self.error = [], None

    def run(self):
        try:
            with self._db.connect(autocommit=False) as connection:
                connection.execute("set lock_timeout = '3s'; set statement_timeout = '30s'")
                connection.commit()
                for turn in itertools.count():
                    if self._stop_asked.is_set() and turn >= TRANSACTIONS:
                        break
                    first = (turn * WRITERS + self._number) * 10
                    self._random.choice([self._plain, self._rolled_back, self._savepoints,
                                         self._exception_block, self._prepared, self._immediate,
                                         self._copied])(connection, first)
        except psycopg.Error as error:
            self.error = error

    def _plain(self, connection, first):
        for number in range(first, first + self._random.randint(1, 5)):
            insert(connection, number)
        connection.commit()
        self.committed += range(first, number + 1)

    def _rolled_back(self, connection, first):
        insert(connection, first)
        if self._random.random() < 0.5:
            connection.execute("set constraints all immediate")
        connection.rollback()

    def _savepoints(self, connection, first):
        insert(connection, first)
        connection.execute("savepoint a")
        insert(connection, first + 1)
        if self._random.random() < 0.5:
            connection.execute("set constraints all immediate")
        connection.execute("rollback to a")
        insert(connection, first + 2)
        connection.execute("release a")
        connection.commit()
        self.committed += [first, first + 2]

    def _exception_block(self, connection, first):
        connection.execute(f"""
            do $$ begin
              insert into t values ({first}, 'x');
              begin
                insert into t values ({first + 1}, 'x');
                perform 1 / 0;
              exception when division_by_zero then
                insert into t values ({first + 2}, 'x');
              end;
            end $$""")
        connection.commit()
        self.committed += [first, first + 2]

    def _prepared(self, connection, first):
        insert(connection, first)
        name = f"p{self._db.name}_{first}"
        connection.execute(f"prepare transaction '{name}'")
        connection.commit()
        connection.autocommit = True
        if self._random.random() < 0.7:
            connection.execute(f"commit prepared '{name}'")
            self.committed.append(first)
        else:
            connection.execute(f"rollback prepared '{name}'")
        connection.autocommit = False

    def _immediate(self, connection, first):
        connection.execute("set constraints all immediate")
        insert(connection, first)
        connection.execute("set constraints all deferred")
        insert(connection, first + 1)
        connection.commit()
        self.committed += [first, first + 1]

    def _copied(self, connection, first):
        with connection.cursor().copy("copy t from stdin") as copy:
            for number in range(first, first + 5):
                copy.write_row((number, "x"))
        connection.commit()
        self.committed += range(first, first + 5)


def write(db):
    """Starts writers; the event stops them when each has done its number of transactions."""
    stop = threading.Event()
    writers = [Writer(db, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers, stop


def committed(writers, stop):
    """Stops the writers; what they have committed."""
    stop.set()
    for writer in writers:
        writer.join(120)
        assert not writer.is_alive()
        assert writer.error is None, writer.error
    return sorted(number for writer in writers for number in writer.committed)


def delivered(db):
    return sorted(e["new"]["id"] for e in events(db))


@pytest.mark.parametrize("partitions", [True, False], ids=["with partitions", "without partitions"])
def test_writers_of_all_forms(stream_db, partitions):
    stream_db.execute("create table t (id int primary key, name text)")
    if partitions:
        stream_db.execute("select pgstream.make_partitions()")
    subscribe(stream_db)
    expected = committed(*write(stream_db))
    assert len(expected) > WRITERS * TRANSACTIONS / 2
    assert delivered(stream_db) == expected
    assert failed(stream_db) == []
    empty = "events_overflow" if partitions else "events"
    assert stream_db.one(f"select count(*) from pgstream.{empty}") == 0
    # What a transaction did is in the order of seq.
    assert stream_db.execute("""
        select xid from (select xid, (payload -> 'new' ->> 'id')::int as id,
          lag((payload -> 'new' ->> 'id')::int) over (partition by xid order by seq) as before
          from (select * from pgstream.events union all select * from pgstream.events_overflow) e) o
        where before > id""") == []


def test_an_event_takes_no_transaction_id_of_its_own(stream_db):
    """More than 64 of them in a transaction slow down all sessions."""
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, when="new.id / 1 > 0", extensions=[("x", "new.id::text")])
    with stream_db.connect(autocommit=False) as connection:
        def taken():
            return stream_db.one(
                "select s.subxact_count from pg_stat_get_backend_idset() b,"
                " pg_stat_get_backend_subxact(b) s where pg_stat_get_backend_pid(b) = %s",
                (connection.info.backend_pid,))
        counts = stream_db.server.version >= 16  # Older servers do not show the number.
        connection.execute("insert into t select generate_series(1, 20)")
        connection.execute("set constraints all immediate")
        assert not counts or taken() == 0
        connection.execute("savepoint a; insert into t values (1)")
        assert not counts or taken() == 1
        connection.commit()
    assert len(events(stream_db)) == 21


def test_subscriptions_and_partitions_change_while_writers_write(stream_db):
    """A column list changes again and again, partitions come, and an old one goes."""
    stream_db.execute("create table t (id int primary key, name text)")
    subscribe(stream_db)
    add_partition(stream_db, "2020-01-01")
    writers, stop = write(stream_db)
    eventually(lambda: stream_db.one("select count(*) from pgstream.events_overflow") > 0)
    stream_db.execute("select pgstream.make_partitions()")
    for _ in range(8):
        stream_db.execute("update pgstream.subscriptions set column_names ="
                          " case when 'name' = any (column_names) then '{id}' else '{id,name}' end"
                          "::text[]")
        partition_work(stream_db)
    assert all(writer.is_alive() for writer in writers)
    expected = committed(writers, stop)
    assert delivered(stream_db) == expected and failed(stream_db) == []
    assert stream_db.one("select count(*) from pgstream.events") > 0
    partition_work(stream_db)
    assert stream_db.one("select to_regclass('pgstream.events_20200101')") is None
