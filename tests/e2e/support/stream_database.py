"""A database with the database side of postgres-stream, installed from the files of sql/stream."""

import datetime
import glob
import os

import psycopg
import pytest
from psycopg.types.json import Jsonb

from .database_side import FOLDERS
from .fixtures import fresh_database, need
from .postgres import REPOSITORY, PostgresServer, postgres_bin_directory

TEMPLATE = "stream_template"
JSON_VALUES = "functions/080_json_values.sql"
SEEDS = os.path.join(REPOSITORY, "tests", "seeds", "003")


def seed(name):
    """What the manual of postgres-stream shows, as it stands."""
    with open(os.path.join(SEEDS, name)) as text:
        return text.read()


def files():
    """The files in the order in which they run: {name: text}."""
    folder = os.path.join(REPOSITORY, "sql", "stream")
    found = {}
    for path in glob.glob(os.path.join(folder, "*", "*.sql")):
        with open(path) as source:
            found[os.path.relpath(path, folder)] = source.read()
    with open(os.path.join(REPOSITORY, "sql/functions/150_json_values.sql")) as source:
        found[JSON_VALUES] = source.read().replace("pgtrickle_json", "pgstream_json")
    return {name: found[name]
            for name in sorted(found, key=lambda n: (FOLDERS.index(n.split("/")[0]), n))}


def install_stream(dsn):
    """Runs all files in one transaction. Each may run again. Returns the notices."""
    told = []
    with psycopg.connect(dsn) as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        for name, text in files().items():
            try:
                connection.execute(text)
            except psycopg.Error as error:
                raise AssertionError(f"{name} does not install: {error} (position "
                                     f"{error.diag.statement_position}; context: "
                                     f"{error.diag.context})") from error
    return told


@pytest.fixture(scope="session")
def stream_server():
    """One PostgreSQL for the whole session, with a template database for `stream_db`."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("stream").start()
    try:
        with server.connect() as connection:
            connection.execute(f"create database {TEMPLATE}")
        install_stream(server.dsn(TEMPLATE))
        with server.connect(TEMPLATE) as connection:
            connection.execute("select pgstream.add_stream(1), pgstream.add_stream(2)")
        yield server
    finally:
        server.stop_immediate()


@pytest.fixture
def stream_db(stream_server):
    """A fresh database with streams 1 and 2."""
    for database in fresh_database(stream_server, template=TEMPLATE):
        # Privileges on a database do not come with its template.
        database.execute(f"grant create on database {database.name} to pgstream_owner")
        yield database
        for name, in database.execute("select gid from pg_prepared_xacts"
                                      " where database = current_database()"):
            database.execute(f"rollback prepared '{name}'")


def subscribe(session, key="k", table="t", operation="INSERT", columns=("id",), stream=1,
              schema="public", when=None, extensions=(), metadata=None):
    """Inserts a subscription. `extensions` are pairs of json_path and expression."""
    session.execute(
        "insert into pgstream.subscriptions (key, stream_id, operation, schema_name, table_name,"
        " when_clause, column_names, metadata, payload_extensions)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (key, stream, operation, schema, table, when, list(columns),
         Jsonb(metadata) if metadata is not None else None,
         Jsonb([{"json_path": path, "expression": expression} for path, expression in extensions])))


def events(db, stream=1):
    """The payloads of all events of a stream, in their order."""
    return [payload for payload, in db.execute(
        "select payload from (select * from pgstream.events union all"
        " select * from pgstream.events_overflow) e where stream_id = %s order by seq", (stream,))]


def failed(db):
    """(key, error_message) of what is in failed_events, in its order."""
    return db.execute("select key, error_message from pgstream.failed_events order by id")


def triggers(db, table="t"):
    """The names of the triggers of postgres-stream on a table, sorted."""
    return [name for name, in db.execute(
        "select tgname from pg_trigger where tgrelid = %s::regclass and tgname like 'pgstream%%'"
        " order by 1", (table,))]


def add_partition(db, day):
    """Makes the partition of a day (ISO), as make_partitions() did on that day."""
    until = datetime.date.fromisoformat(day) + datetime.timedelta(1)
    name = f"pgstream.events_{day.replace('-', '')}"
    db.execute(f"""
        set role pgstream_owner;
        create table {name} (like pgstream.events including defaults including constraints);
        alter table pgstream.events attach partition {name}
          for values from ('{day} 00:00+00') to ('{until} 00:00+00');
        reset role""")
    return name


def partition_work(db, retention="7 days"):
    """Runs what pgstream.partition_work() names, as the daemon does, until nothing is left or a
    statement does not get its lock. Returns the statements that were run."""
    done = []
    with db.connect() as connection:
        connection.execute("set lock_timeout = '200ms'")
        while work := connection.execute("select pgstream.partition_work(%s)",
                                         (retention,)).fetchall():
            try:
                connection.execute(work[0][0])
            except psycopg.errors.LockNotAvailable:
                break
            done.append(work[0][0])
    return done
