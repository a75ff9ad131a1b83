"""postgres-stream on a server that it cannot use: cause and remedy are in `check`, /health and the log,
and it goes on by itself once the cause is gone."""

import contextlib
import os
import subprocess

import pytest
from support.postgres import PASSWORD, REPOSITORY, PostgresServer
from support.stream_program import (StreamProgram, configure, connection,  # noqa: F401
                                    insert, make_server, run, stream_home,
                                    stream_program_server, subscribe_orders, wait_running,
                                    wait_trouble)
from support.waiting import eventually

MEMORY = {"type": "memory"}
WRONG = "quite-another-one"


def postgres_14():
    done = subprocess.run([os.path.join(REPOSITORY, "scripts/postgres"), "14"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"PostgreSQL 14 cannot be fetched: {done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def database_of(server):
    try:
        yield server.create_database(template="template0")
    finally:
        server.stop_immediate()


@contextlib.contextmanager
def wrong_password():
    with database_of(make_server()) as database:
        # The right one is set later.
        database.login("sender")
        database.execute("alter role sender superuser")
        yield (database, connection(database, username="sender", password=WRONG),
               lambda: database.execute(f"alter role sender password '{WRONG}'"))


@contextlib.contextmanager
def no_replication():
    with database_of(make_server()) as database:
        database.login("sender")
        database.execute(f"alter database {database.name} owner to sender")
        yield (database, connection(database, username="sender"),
               lambda: database.execute("alter role sender replication"))


@contextlib.contextmanager
def wal_level():
    with database_of(make_server(wal_level="replica")) as database:
        def mend():
            database.execute("alter system set wal_level = logical")
            database.server.restart()
        yield database, connection(database), mend


@contextlib.contextmanager
def no_free_slot():
    with database_of(make_server(max_replication_slots=1)) as database:
        database.execute("select pg_create_physical_replication_slot('taken')")
        yield (database, connection(database),
               lambda: database.execute("select pg_drop_replication_slot('taken')"))


@contextlib.contextmanager
def no_sender():
    with database_of(make_server(max_wal_senders=0)) as database:
        def mend():
            database.execute("alter system set max_wal_senders = 10")
            database.server.restart()
        yield database, connection(database), mend


@contextlib.contextmanager
def old_server():
    with database_of(PostgresServer("stream-14", bin_directory=postgres_14()).start()) as database:
        yield database, connection(database), None


@pytest.mark.parametrize("trouble, cause, remedy", [
    (wrong_password, "password authentication failed", "check user and password"),
    (no_replication, " to start ", "ALTER ROLE ... REPLICATION"),
    (wal_level, "wal_level", "ALTER SYSTEM SET wal_level = logical; and restart the server"),
    (no_free_slot, "replication slots are", "SELECT * FROM pg_replication_slots"),
    (no_sender, "max_wal_senders", "raise max_wal_senders, and restart the server"),
    (old_server, "needs PostgreSQL 15 or newer, and this server is 14.", "upgrade the server"),
], ids=lambda value: getattr(value, "__name__", None))
def test_cause_and_remedy_are_told_everywhere(tmp_path, trouble, cause, remedy):
    with trouble() as (database, way, mend):
        configure(tmp_path, database, MEMORY, {"pg_connection": way})
        checked = run(tmp_path, "check")
        assert checked.returncode == 3 and cause in checked.stdout and remedy in checked.stdout, checked
        with StreamProgram(tmp_path) as program:
            program.wait_up()
            health = wait_trouble(program, cause, remedy)
            assert program.health()[1]["status"] != "healthy", health
            eventually(lambda: cause in program.log() and remedy in program.log(), message=program.log)
            for text in (health, program.log(), checked.stdout):
                assert WRONG not in text and PASSWORD not in text
            if mend is None:
                assert database.one("select to_regnamespace('pgstream') is null")
                return
            mend()
            wait_running(program, deadline=60)
            subscribe_orders(database)
            insert(database, 3)
            program.wait_metric("memory_messages", 3, pipeline="stream-1")
            program.wait_healthy()
        assert run(tmp_path, "check").returncode == 0
