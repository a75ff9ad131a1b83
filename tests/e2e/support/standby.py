"""A streaming standby of a throw-away PostgreSQL server."""

import os
import subprocess

import pytest

from .database_side import install
from .fixtures import need
from .postgres import PostgresServer, postgres_bin_directory
from .proxy import FaultProxy
from .waiting import eventually


@pytest.fixture
def pair():
    """(primary, standby), both running."""
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


class Standby(PostgresServer):
    """A standby of `primary`, which is stopped for the copy and started again. The two talk through
    `link`, a proxy that can stall or cut. Not started."""

    def __init__(self, primary, label="standby"):
        self._primary = primary
        self.link = FaultProxy(primary.port)
        super().__init__(label)

    def _initialise(self, settings):
        self._primary.stop()
        # Both directories belong to the server's user, and stay so.
        subprocess.run(["cp", "-a", self._primary.data, self.data], check=True)
        self._primary.start()
        values = {"port": self.port, "unix_socket_directories": f"'{self.sockets}'",
                  "hot_standby": "on", "synchronous_standby_names": "''",
                  "primary_conninfo": f"'{self._primary.dsn('postgres', port=self.link.port)}'",
                  **settings}
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for name, value in values.items():
                conf.write(f"{name} = {value}\n")
        with open(os.path.join(self.data, "standby.signal"), "w"):
            pass

    def become_synchronous(self):
        """From now on each commit of the primary waits for this standby."""
        with self._primary.connect() as connection:
            connection.execute("alter system set synchronous_standby_names = '*'")
            connection.execute("select pg_reload_conf()")
            eventually(lambda: connection.execute(
                "select 1 from pg_stat_replication where sync_state = 'sync'").fetchone(), 30,
                message=self.log)

    def promote(self):
        """It is a primary of its own when this returns."""
        with self.connect() as connection:
            connection.execute("select pg_promote()")
            eventually(lambda: connection.execute(
                "select not pg_is_in_recovery()").fetchone()[0], 30, message=self.log)

    def end(self):
        self.link.cut()
        self.stop_immediate()
