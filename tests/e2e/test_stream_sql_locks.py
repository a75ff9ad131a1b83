"""Changing subscriptions beside an application that is at work: who waits, and for how long."""

import threading
import time

import psycopg
import pytest
from support.stream_database import (events, failed, stream_db, stream_server,  # noqa: F401
                                     subscribe, triggers)
from support.waiting import eventually

# A lock is waited for 200 ms at most; the rest is for a busy machine.
LONGEST = 0.2 + 0.8


class Subscriber:
    """Runs a statement on pgstream.subscriptions in a thread; `waits` while it has not ended."""

    def __init__(self, db, action):
        self.error = None
        self.connection = db.connect()
        self.pid = self.connection.info.backend_pid
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action):
        try:
            action(self.connection)
        except psycopg.Error as error:
            self.error = error

    @property
    def waits(self):
        return self._thread.is_alive()

    def end(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.connection.close()
        assert self.error is None, self.error


def lock_waits(db, pid):
    return db.one("select count(*) from pg_locks where pid = %s and not granted", (pid,))


def locks_on(connection, table):
    return {mode for mode, in connection.execute(
        "select mode from pg_locks where pid = pg_backend_pid() and relation = %s::regclass",
        (table,))}


def test_subscribing_beside_an_open_writer_lets_the_others_write(stream_db):
    stream_db.execute("create table t (id int)")
    with stream_db.connect(autocommit=False) as writer:
        writer.execute("insert into t values (0)")
        subscriber = Subscriber(stream_db, lambda c: subscribe(c, when="new.id > 0"))
        longest, tried = 0, 0
        while tried < 5:
            eventually(lambda: lock_waits(stream_db, subscriber.pid), 10, interval=0.001)
            began = time.monotonic()
            stream_db.execute("insert into t values (1)")
            longest = max(longest, time.monotonic() - began)
            eventually(lambda: not lock_waits(stream_db, subscriber.pid), 10, interval=0.001)
            tried += 1
        assert subscriber.waits
        writer.commit()
    subscriber.end()
    assert longest < LONGEST
    stream_db.execute("insert into t values (2)")
    assert [e["new"]["id"] for e in events(stream_db)] == [2]


def test_a_changed_column_list_takes_no_lock(stream_db):
    stream_db.execute("create table t (id int, name text)")
    subscribe(stream_db, when="new.id > 0")
    with stream_db.connect(autocommit=False) as writer, \
            stream_db.connect(autocommit=False) as subscriber:
        writer.execute("insert into t values (1, 'a')")
        subscriber.execute(
            "update pgstream.subscriptions set column_names = '{id,name}', metadata = '{\"a\": 1}',"
            " payload_extensions = '[{\"json_path\": \"x\", \"expression\": \"new.name\"}]'")
        assert locks_on(subscriber, "t") == {"AccessShareLock"}
        subscriber.commit()
        writer.commit()
    assert [(e["new"], e["x"]) for e in events(stream_db)] == [({"id": 1, "name": "a"}, "a")]


def test_a_new_subscription_keeps_readers_and_a_removed_one_keeps_no_session_out(stream_db):
    stream_db.execute("create table t (id int)")
    with stream_db.connect(autocommit=False) as reader:
        reader.execute("select * from t")
        subscribe(stream_db, "a")
        subscribe(stream_db, "b")
        told = []
        with stream_db.connect() as subscriber:
            subscriber.add_notice_handler(lambda d: told.append(d.message_primary))
            subscriber.execute("delete from pgstream.subscriptions where key = 'a'")
        assert told == ['table "public.t" is in use: unused triggers of postgres-stream stay there '
                        "and do nothing"]
        stream_db.execute("insert into t values (1)")
        assert [e["tg_name"] for e in events(stream_db)] == ["b"]
        # The same subscription comes back while its old trigger is still there.
        subscribe(stream_db, "a")
        stream_db.execute("insert into t values (2)")
        assert sorted(e["tg_name"] for e in events(stream_db)) == ["a", "b", "b"]
        stream_db.execute("update pgstream.subscriptions set when_clause = 'new.id > 3'"
                          " where key = 'a'")
        stream_db.execute("insert into t values (3), (4)")
        assert sorted((e["tg_name"], e["new"]["id"]) for e in events(stream_db)[3:]) == [
            ("a", 4), ("b", 3), ("b", 4)]
        assert len(triggers(stream_db)) == 3
        reader.rollback()
    stream_db.execute("update pgstream.subscriptions set key = key")
    assert len(triggers(stream_db)) == 2


def test_many_subscriptions_of_one_statement_hold_no_lock_while_they_wait(stream_db):
    stream_db.execute("create table t (id int); create table busy (id int)")
    rows = ", ".join(f"row(null, '{table}', 1, 'INSERT', 'public', '{table}', null, '{{id}}', null,"
                     " null)::pgstream.subscriptions" for table in ("t", "busy"))
    with stream_db.connect(autocommit=False) as writer:
        writer.execute("insert into busy values (0)")
        subscriber = Subscriber(stream_db, lambda c: c.execute(
            f"select pgstream.set_subscriptions(1, array[{rows}])"))
        longest = 0
        for number in range(8):
            eventually(lambda: lock_waits(stream_db, subscriber.pid), 10, interval=0.001)
            began = time.monotonic()
            stream_db.execute("insert into t values (%s)", (number,))
            longest = max(longest, time.monotonic() - began)
            eventually(lambda: not lock_waits(stream_db, subscriber.pid), 10, interval=0.001)
        assert subscriber.waits and longest < LONGEST
        writer.commit()
    subscriber.end()
    assert triggers(stream_db) == triggers(stream_db, "busy") == ["pgstream_insert"]


def test_subscribers_at_the_same_time_do_not_disturb_each_other(stream_db):
    stream_db.execute("".join(f"create table t{n} (id int);" for n in range(4)))
    subscribers = [Subscriber(stream_db, lambda c, n=n: [
        subscribe(c, f"k{n}", f"t{n}"), subscribe(c, f"u{n}", f"t{n}", operation="UPDATE"),
        c.execute("update pgstream.subscriptions set column_names = '{}' where key = %s",
                  (f"k{n}",)),
        c.execute("delete from pgstream.subscriptions where key = %s", (f"u{n}",))])
        for n in range(4)]
    for subscriber in subscribers:
        subscriber.end()
    for n in range(4):
        stream_db.execute(f"insert into t{n} values (1)")
    assert [(e["tg_name"], e["new"]) for e in events(stream_db)] == [
        (f"k{n}", {}) for n in range(4)]
    assert stream_db.one("select count(*) from pg_namespace n, aclexplode(n.nspacl) a"
                         " where nspname = 'pgstream' and privilege_type = 'CREATE'"
                         " and grantee <> nspowner") == 0


def test_a_change_with_an_old_snapshot_does_not_undo_another_one(stream_db):
    stream_db.execute("create table t (id int)")
    with stream_db.connect(autocommit=False) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1 from pg_class")
        subscribe(stream_db, "a")
        with pytest.raises(psycopg.errors.SerializationFailure):
            subscribe(old, "b")
        old.rollback()
        old.execute("set transaction isolation level repeatable read")
        subscribe(old, "b")
        old.commit()
    stream_db.execute("insert into t values (1)")
    assert sorted(e["tg_name"] for e in events(stream_db)) == ["a", "b"]


@pytest.mark.parametrize("settings", ["", "set session_replication_role = replica;"])
def test_what_makes_no_event(stream_db, settings):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, operation="DELETE")
    with stream_db.connect() as connection:
        connection.execute(settings + "insert into t values (1); truncate t;"
                           "insert into t values (2)")
        if settings:
            connection.execute("delete from t")
    assert events(stream_db) == [] and failed(stream_db) == []
