"""An acknowledgement needs a commit that waited for the synchronous standby."""

import threading

import pytest

from support.database_side import install
from support.fixtures import need
from support.postgres import PostgresServer, postgres_bin_directory
from support.processes import free_port
from support.proxy import FaultProxy
from support.relay import Relay
from support.standby import Standby
from support.waiting import eventually, holds_for
from support.webhook_receiver import send, set_receiver, wait_listening

TABLE = "pgtrickle.inbox_{}"


@pytest.fixture
def pair():
    """A primary whose commits wait for a standby: (primary, standby)."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    primary = PostgresServer("primary").start()
    standby = None
    try:
        primary.make_template(install)
        standby = Standby(primary).start()
        yield primary, standby
    finally:
        if standby:
            standby.end()
        primary.stop_immediate()


class Sender:
    """Posts one message again and again, with one id, until it was answered with 200."""

    def __init__(self, port, identity, body):
        self.identity, self.answered = identity, False
        self._stop = threading.Event()
        self._arguments = (port, body)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        port, body = self._arguments
        while not self._stop.wait(0.02):
            try:
                status, _, _ = send(port, body, headers={"Content-Type": "application/json",
                                                         "Idempotency-Key": self.identity})
            except OSError:
                continue
            if status == 200:
                self.answered = True
                return

    def stop(self):
        self._stop.set()

    def wait(self, relay):
        eventually(lambda: self.answered, 30, message=lambda: relay.log(40))


def waiting(admin):
    """The relay's sessions that wait for the standby: {(pid, when its statement began)}."""
    return set(admin.execute(
        "select pid, query_start from pg_stat_activity where usename = 'relay_daemon' "
        "and wait_event = 'SyncRep' and (query ilike '%%insert into%%' or query = 'commit' "
        "or query like '%%pg_logical_emit_message%%')").fetchall())


def end_waits(admin, function, times, settled):
    """Ends that many statements, or sessions, that wait for the standby, once each."""
    seen = set()

    def once_more():
        assert not settled(), "acknowledged before it was on the standby"
        for wait in waiting(admin) - seen:
            admin.execute(f"select {function}(%s)", (wait[0],))
            seen.add(wait)
        return len(seen) >= times
    eventually(once_more, 40, message=lambda: f"{len(seen)} waits were ended; {settled()}")


def test_nothing_is_acknowledged_before_the_standby_has_it(pair, relay_bin):
    primary, standby = pair
    db = primary.create_database()
    # A role whose commits are not to be durable: those of the relay are.
    db.execute("alter role relay_daemon set synchronous_commit = off")
    db.execute("select pgtrickle.create_inbox('strict')")
    db.execute("alter table pgtrickle.inbox_strict add check (payload ->> 'n' <> 'poison')")
    ports = {"hooks": free_port(), "strict": free_port()}
    for name, port in ports.items():
        set_receiver(db, port, name, sink={"type": "inbox", "inbox_name": name})
    standby.become_synchronous()
    # It meets the standby first, as after a failover.
    way = FaultProxy(standby.port)
    relay = Relay(db.relay_dsn.replace(f":{primary.port}/", f":{way.port}/")).start()
    eventually(lambda: "25006" in relay.log(), 20, message=relay.log)
    assert "target_session_attrs" in relay.log()
    way.target_port = primary.port  # for new sessions
    for port in ports.values():
        wait_listening(port, relay)
    first = Sender(ports["hooks"], "first", b'{"n": "first"}')
    first.wait(relay)

    with primary.connect() as admin:
        standby.link.stall()
        row = Sender(ports["hooks"], "row", b'{"n": "row"}')
        letter = Sender(ports["strict"], "letter", b'{"n": "poison"}')

        def settled():
            return row.answered or letter.answered
        end_waits(admin, "pg_cancel_backend", 6, settled)
        end_waits(admin, "pg_terminate_backend", 6, settled)
        relay.kill9()
        relay = Relay(db.relay_dsn).start()
        end_waits(admin, "pg_cancel_backend", 4, settled)
        # The relay itself goes on meanwhile, and keeps what it owns.
        since = db.one("select clock_timestamp()")
        eventually(lambda: db.one("select max(heartbeat_at) from pgtrickle.relay_instances")
                   > since, 20, message=relay.log)
        # Its rows are there, and committed, on the primary.
        assert db.execute("select event_id from pgtrickle.inbox_hooks order by 1") == [
            ("hooks:first",), ("hooks:row",)]
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 1
        holds_for(lambda: not settled(), 1)
        # It comes back: what waited for it is acknowledged.
        standby.link.restore()
        row.wait(relay)
        letter.wait(relay)
        # And this time it does not.
        standby.link.stall()
        lost = Sender(ports["hooks"], "lost", b'{"n": "lost"}')
        end_waits(admin, "pg_cancel_backend", 3, lambda: lost.answered)
        assert db.one("select count(*) from pgtrickle.inbox_hooks") == 3
        assert not lost.answered
    lost.stop()
    relay.kill9()
    standby.link.cut()
    primary.kill9()
    standby.promote()
    with standby.connect(db.name) as there:
        # (What was not acknowledged may have come through before the link stalled.)
        assert there.execute("select event_id from pgtrickle.inbox_hooks "
                             "where event_id <> 'hooks:lost' order by 1").fetchall() \
            == [("hooks:first",), ("hooks:row",)]
        assert there.execute("select message_id from pgtrickle.relay_dlq").fetchall() \
            == [("strict:letter",)]
    primary.start()
