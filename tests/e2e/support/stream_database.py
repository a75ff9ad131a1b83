"""A database with the database side of postgres-stream, installed from the files of sql/stream."""

import glob
import os

import psycopg
import pytest

from .database_side import FOLDERS
from .fixtures import fresh_database, need
from .postgres import REPOSITORY, PostgresServer, postgres_bin_directory

TEMPLATE = "stream_template"
JSON_VALUES = "functions/080_json_values.sql"


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
    """Runs all files in one transaction. Each may run again."""
    with psycopg.connect(dsn) as connection:
        for name, text in files().items():
            try:
                connection.execute(text)
            except psycopg.Error as error:
                raise AssertionError(f"{name} does not install: {error} (position "
                                     f"{error.diag.statement_position}; context: "
                                     f"{error.diag.context})") from error


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
    yield from fresh_database(stream_server, template=TEMPLATE)
