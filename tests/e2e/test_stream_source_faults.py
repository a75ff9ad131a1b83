"""The source `stream` under faults: outages of the sink, and kills of the daemon and of PostgreSQL."""

import json
import os
import random
import threading
import time

import psycopg
import pytest
from support.http_server import HttpServer
from support.postgres import PostgresServer
from support.relay import Relay
from support.stream_database import install_stream
from support.waiting import eventually

SEEDS = [int(seed) for seed in os.environ.get("STREAM_SEEDS", "1,2").split(",")]
SECONDS = float(os.environ.get("STREAM_SECONDS", "20"))


@pytest.fixture
def stream():
    server = PostgresServer("stream-faults").start()
    database = server.create_database(template="template0")
    install_stream(database.dsn)
    database.execute(f"grant create on database {database.name} to pgstream_owner")
    database.execute("alter table pgstream.events owner to pgstream_owner; alter table pgstream.events_overflow owner to pgstream_owner; alter table pgstream.streams owner to pgstream_owner; alter table pgstream.backlog owner to pgstream_owner; alter sequence pgstream.events_seq owner to pgstream_owner")
    database.execute("""
        select pgstream.add_stream(1);
        create table public.orders (id int generated always as identity primary key, note text);
        insert into pgstream.subscriptions
          (key, stream_id, operation, schema_name, table_name, column_names)
        values ('orders', 1, 'INSERT', 'public', 'orders', array['id', 'note'])""")
    database.execute("select pg_create_logical_replication_slot('witness', 'test_decoding')")
    yield server, database
    server.stop_immediate()


class Writers:
    """Transactions that cross, with rollbacks and savepoints."""

    def __init__(self, database, seed, count=8):
        self._database, self._seed = database, seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(k,)) for k in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, k):
        chance = random.Random(f"{self._seed}-{k}")
        while not self._stop.is_set():
            try:
                with self._database.connect(autocommit=False) as connection:
                    while not self._stop.is_set():
                        self._transaction(connection, chance)
            except psycopg.Error:
                time.sleep(0.05)

    def _transaction(self, connection, chance):
        def insert():
            connection.execute("insert into public.orders (note) select 'n' "
                               "from generate_series(1, %s)", (chance.choice([1, 1, 2, 50]),))
        if chance.random() < 0.1:
            connection.execute("set constraints all immediate")
        insert()
        if chance.random() < 0.2:
            time.sleep(chance.random() * 0.2)
            insert()
        if chance.random() < 0.2:
            connection.execute("savepoint s")
            insert()
            connection.execute("rollback to s" if chance.random() < 0.5 else "release s")
        if chance.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()
        time.sleep(chance.random() * 0.02)


def committed(database):
    """The ids in the order of the commits, as PostgreSQL's own test decoder tells them."""
    ids = []
    for (text,) in database.execute("select data from pg_logical_slot_peek_changes('witness', null, null)"):
        if text.startswith("table public.orders: INSERT: id[integer]:"):
            ids.append(int(text.split("id[integer]:")[1].split()[0]))
    return ids


def delivered(sink):
    return [request.json["new"]["id"] for request in sink.requests("/hook") if request.status == 200]


def config(database, sink, tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text(f"""
[[pipeline]]
name = "stream"
source = {{ type = "stream", stream = 1, url = "{database.dsn}", failover_after = "1s" }}
sink = {{ type = "webhook", url = "{sink.url('/hook')}", allow_private = true, envelope="payload" }}
""".replace(', envelope="payload"', ""))
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_missing_and_first_deliveries_are_in_commit_order(stream, db, tmp_path, seed):
    server, database = stream
    sink = HttpServer()
    sink.start()
    path = config(database, sink, tmp_path)
    chance = random.Random(seed)
    told = []
    relay = Relay(db.relay_dsn, config=path)
    relay.start()
    # What is committed before there is a slot is read by rounds, in the order of each row only.
    database.execute("insert into public.orders (note) values ('first')")
    eventually(lambda: delivered(sink), 20)
    end = time.monotonic() + SECONDS
    with Writers(database, seed):
        while time.monotonic() < end:
            time.sleep(chance.random() * 2)
            action = chance.choice(["sink", "slow", "up", "relay", "server", "none"])
            told.append(action)
            if action == "sink":
                sink.rules({"status": 503})
            elif action == "slow":
                sink.rules({"delay": 0.01})
            elif action == "up":
                sink.rules()
            elif action == "relay":
                relay.kill9()
                relay.start()
            elif action == "server":
                server.kill9()
                server.start()
    sink.rules()
    wanted = committed(database)
    try:
        eventually(lambda: set(delivered(sink)) >= set(wanted), 120, interval=0.5)
    finally:
        got = delivered(sink)
        first = list(dict.fromkeys(got))
        print(seed, told, len(wanted), "wanted", len(got), "delivered")
        if first != wanted:
            print("missing", sorted(set(wanted) - set(first))[:20])
            print(database.execute("select * from pgstream.streams"), database.execute("select count(*), min(n), max(n) from pgstream.backlog"))
            print(relay.log(60))
            json.dump([first, wanted, got, told], open(f"/tmp/stream_seed_{seed}.json", "w"))
            at = next((i for i, (a, b) in enumerate(zip(first, wanted)) if a != b), None)
            if at is not None:
                print("differs at", at, first[at - 3:at + 10], wanted[at - 3:at + 10])
    assert first == wanted
    relay.stop()
    sink.stop()
