"""The program postgres-stream as a process, and what it needs."""

import json
import os
import subprocess

import pytest

from . import relay as relay_process
from .fixtures import need
from .postgres import PASSWORD, PostgresServer, postgres_bin_directory
from .processes import free_port
from .relay import Relay, clean_environment, relay_binary
from .waiting import eventually


def stream_binary():
    """postgres-stream beside the relay."""
    relay = relay_binary()
    return relay and os.path.join(os.path.dirname(relay), "postgres-stream")


class StreamProgram(Relay):
    """`postgres-stream` in a directory with its config.yaml."""

    prefix = "postgres_stream_"

    def __init__(self, directory, *arguments, env=None):
        port = free_port()
        super().__init__(None, *arguments, binary=stream_binary(), metrics_port=port,
                         metrics_addr=None, cwd=directory,
                         env={"POSTGRES_STREAM__METRICS_ADDR": f"127.0.0.1:{port}"} | (env or {}))


def run(directory, *arguments, env=None, timeout=60):
    """Runs postgres-stream as a command; a CompletedProcess with text stdout and stderr."""
    return subprocess.run([stream_binary(), *arguments], env=clean_environment(env), cwd=directory,
                          capture_output=True, text=True, timeout=timeout)


def connection(database, **over):
    """`pg_connection` of a database, as superuser unless told otherwise."""
    return {"host": "127.0.0.1", "port": database.server.port, "name": database.name,
            "username": "postgres", "password": PASSWORD} | over


def write_config(directory, configuration):
    """JSON is YAML."""
    (directory / "config.yaml").write_text(json.dumps(configuration, indent=1))


def configure(directory, database, sink, stream=None, **over):
    write_config(directory, {
        "stream": {"id": 1, "pg_connection": connection(database)} | (stream or {}),
        "sink": sink} | over)


def subscribe_orders(database, stream=1):
    """The table `orders`, whose inserts are events of the stream."""
    database.execute("create table if not exists public.orders "
                     "(id int generated always as identity primary key, note text)")
    database.execute(
        "insert into pgstream.subscriptions (key, stream_id, operation, schema_name, table_name,"
        " column_names) values ('orders', %s, 'INSERT', 'public', 'orders', array['id', 'note'])",
        (stream,))


def insert(database, count=1):
    database.execute("insert into public.orders (note) select 'x' from generate_series(1, %s)",
                     (count,))


def wait_running(program, name="stream-1", deadline=30):
    """Waits until the stream is read, and nothing waits."""
    return program.wait_state(name, "idle", "running", deadline=deadline)


def wait_trouble(program, *words, deadline=30):
    """Waits until /health shows an error that has all the words, in itself or in its remedy."""
    def told():
        program.alive_or_stop_waiting()
        text = program.get("/health")[1]
        return all(word in text for word in words) and text
    return eventually(told, deadline, message=program._story)


def make_server(**settings):
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    need(stream_binary() and os.access(stream_binary(), os.X_OK), "postgres-stream")
    return PostgresServer("stream-program", settings=settings).start()


@pytest.fixture(scope="session")
def stream_program_server():
    server = make_server()
    yield server
    server.stop_immediate()


def end_database(database):
    relay_process.end_all_quietly()
    for (slot,) in database.execute("select slot_name from pg_replication_slots"
                                    " where database = current_database()"):
        database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots"
                         " where slot_name = %s and active_pid is not null", (slot,))
        eventually(lambda: not database.one("select active from pg_replication_slots"
                                            " where slot_name = %s", (slot,)))
        database.execute("select pg_drop_replication_slot(%s)", (slot,))
    database.drop()


@pytest.fixture
def stream_home(stream_program_server):
    """A fresh database without any schema of ours."""
    database = stream_program_server.create_database(template="template0")
    yield database
    end_database(database)
