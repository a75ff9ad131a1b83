"""The fixtures that all end-to-end and chaos tests share."""

import os
import shutil

import pytest

from . import relay as relay_process
from .database_side import install
from .nats_server import NatsServer
from .pipelines import make_table
from .postgres import PostgresServer, postgres_bin_directory
from .relay import Relay, relay_binary
from .stand_in_extensions import bin_with_extensions


def need(present, what):
    """Skips the test where something cannot be had (REQUIRE_ALL=1 turns skips into failures)."""
    if not present:
        pytest.skip(f"{what} is not here")


@pytest.fixture(scope="session")
def pg_server():
    """One PostgreSQL for the whole session; tests that stop or kill it use `own_pg_server`."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer().start()
    try:
        server.make_template(install)
        yield server
    finally:
        server.stop_immediate()


@pytest.fixture(scope="module", autouse=True)
def files_of_ended_servers():
    """Goes after the fixtures of the module, so that no server of theirs starts again."""
    yield
    PostgresServer.remove_ended()


def fresh_database(server, **options):
    """A database, until the test and its relays have ended."""
    database = server.create_database(**options)
    yield database
    relay_process.end_all_quietly()
    database.drop()


@pytest.fixture
def db(pg_server):
    """A fresh database with the relay's schema."""
    yield from fresh_database(pg_server)


@pytest.fixture
def empty_db(pg_server):
    """A fresh database without the relay's schema."""
    yield from fresh_database(pg_server, template="template0")


@pytest.fixture
def orders(db):
    """The table `orders` (id, name, amount), with an outbox."""
    make_table(db)


@pytest.fixture
def there(pg_server):
    """Another database with the relay's schema."""
    database = pg_server.create_database()
    yield database
    database.drop()


@pytest.fixture
def own_pg_server():
    """A PostgreSQL of the test's own, to stop, kill and restart."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("own-pg").start()
    try:
        server.make_template(install)
        yield server
    finally:
        relay_process.end_all_quietly()
        server.stop_immediate()
        server.remove()


@pytest.fixture
def own_db(own_pg_server):
    return own_pg_server.create_database()


@pytest.fixture(scope="session")
def extension_pg_server():
    """A PostgreSQL where stand-ins for pg_trickle and pg_tide can be created as extensions."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("extensions-pg", bin_directory=bin_with_extensions()).start()
    try:
        server.make_template(install)
        yield server
    finally:
        server.stop_immediate()


@pytest.fixture
def extension_db(extension_pg_server):
    """A fresh database on that server, without the relay's schema and without extensions."""
    yield from fresh_database(extension_pg_server, template="template0")


@pytest.fixture
def nats():
    """A NATS server with JetStream of the test's own."""
    need(shutil.which("nats-server"), "nats-server")
    server = NatsServer().start()
    yield server
    server.stop()


@pytest.fixture
def relay_bin():
    """Skips where the relay is not built."""
    need(relay_binary(), "the relay's binary (RELAY_BIN or build/<preset>/pgtrickle-relay)")
    return relay_binary()


@pytest.fixture
def relay(relay_bin, db):
    """A relay on `db` as its unprivileged role, not yet started: `with relay:` or relay.start()."""
    process = Relay(db.relay_dsn)
    yield process
    if process.running:
        process.stop()


@pytest.fixture
def start_relay(relay_bin):
    """Starts relays: start_relay(dsn, *arguments, **options) -> Relay."""
    def start(*arguments, **options):
        return Relay(*arguments, **options).start()
    return start


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for argv, log in relay_process.stories():
            report.sections.append((f"log of {argv}", log))
    skipped_on_purpose = hasattr(report, "wasxfail")
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1" and not skipped_on_purpose:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL=1 allows no skip: {reason}"


@pytest.fixture(autouse=True)
def no_relay_outlives_its_test():
    relay_process.forget()
    yield
    relay_process.end_all_quietly()
