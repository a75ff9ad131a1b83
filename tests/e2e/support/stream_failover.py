"""A stream whose server has a standby that can take its slot over, and writers that go on after a
failover."""

import itertools
import os
import shutil
import threading
import time

import psycopg

from .postgres import PASSWORD
from .standby import Standby
from .waiting import eventually

SLOT = "standby"


class SlotStandby(Standby):
    """A standby that streams through a slot, and synchronises the logical slots of its primary where
    `synchronises`."""

    def __init__(self, primary, database, synchronises=True):
        self._database, self._synchronises = database, synchronises
        super().__init__(primary)

    def _initialise(self, settings):
        with self._primary.connect() as connection:
            connection.execute("select pg_create_physical_replication_slot(%s, true)", (SLOT,))
        super()._initialise({
            "primary_conninfo": f"'{self._primary.dsn(self._database, port=self.link.port)}'",
            "primary_slot_name": f"'{SLOT}'", "hot_standby_feedback": "on",
            "sync_replication_slots": "on" if self._synchronises else "off", **settings})
        # A base backup has no replication slots.
        for name in os.listdir(os.path.join(self.data, "pg_replslot")):
            shutil.rmtree(os.path.join(self.data, "pg_replslot", name))


class Pair:
    """A primary, which is the scene's server, and a standby."""

    def __init__(self, scene, synchronises=True, waited_for=True):
        self.scene = scene
        self.primary = scene.server
        self.standby = SlotStandby(scene.server, scene.database.name, synchronises).start()
        if waited_for:
            self.wait_for(SLOT)

    def url(self, user="stream_daemon"):
        """Of whichever is the primary."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return (f"postgresql://{user}:{PASSWORD}@{hosts}/{self.scene.database.name}"
                "?target_session_attrs=read-write&connect_timeout=5")

    def wait_for(self, slots):
        self.scene.database.execute(f"alter system set synchronized_standby_slots = '{slots}'")
        self.scene.database.execute("select pg_reload_conf()")

    def on_standby(self, statement, parameters=None):
        with self.standby.connect(self.scene.database.name) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def is_synced(self):
        self.scene.database.execute("select pg_log_standby_snapshot()")
        return self.on_standby("select 1 from pg_replication_slots "
                               "where slot_name = 'pgstream_1' and synced and not temporary")

    def wait_synced(self):
        eventually(self.is_synced, 60, interval=0.2, message=self.standby.log)

    def stop_synchronising(self):
        """The standby's slot stays where it is."""
        self.on_standby("alter system set sync_replication_slots = off")
        self.on_standby("select pg_reload_conf()")
        eventually(lambda: not self.scene.database.execute(
            "select 1 from pg_stat_activity where application_name like '%slotsync worker'"), 20)

    def wait_replayed(self):
        place = self.scene.database.one("select pg_current_wal_insert_lsn()")
        eventually(lambda: self.on_standby("select pg_last_wal_replay_lsn() >= %s::pg_lsn",
                                           (place,))[0][0], 20)

    def fail_over(self):
        """Kills the primary, and promotes the standby; returns when the primary was killed."""
        killed_at = time.monotonic()
        self.primary.kill9()
        self.standby.promote()
        return killed_at

    def committed(self):
        """The notes of the rows that the promoted server has."""
        return {note for (note,) in self.on_standby("select note from public.orders")}

    def end(self):
        self.standby.end()


class Writers:
    """Insert rows with notes of their own, on whichever server is the primary."""

    _instances = itertools.count()

    def __init__(self, url, count=4, pause=0.003):
        self._url, self._pause = url, pause
        self._name = next(self._instances)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(k,)) for k in range(count)]
        self.written = 0

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, k):
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._stop.wait(self._pause):
                        # Each fifth transaction writes a row, waits, and writes another one.
                        n = next(self._numbers)
                        note = f"{self._name}.{k}-{n}"
                        with connection.transaction():
                            self._insert(connection, note)
                            if n % 5 == 0:
                                self._stop.wait(self._pause * 10)
                                self._insert(connection, f"{note}-second")
                        self.written += 1
            except psycopg.Error:
                self._stop.wait(0.05)  # no server is the primary at the moment

    @staticmethod
    def _insert(connection, note):
        connection.execute("insert into public.orders (note) values (%s)", (note,))

    def wait_written(self, count):
        wanted = self.written + count
        eventually(lambda: self.written >= wanted, 30)
