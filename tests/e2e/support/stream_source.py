"""A stream that the relay delivers to a web server, and what was committed and delivered."""

import itertools
import random
import threading

import psycopg
import pytest

from .fixtures import need
from .http_server import HttpServer
from .postgres import PostgresServer, postgres_bin_directory
from .relay import Relay
from .stream_database import install_stream
from .waiting import eventually

WITNESS = "witness"
ALL_EVENTS = "(select * from pgstream.events union all select * from pgstream.events_overflow)"


class Witness:
    """PostgreSQL's own test decoder says what was committed from now on, and in which order."""

    def __init__(self, database):
        self._database = database
        database.execute("select pg_create_logical_replication_slot(%s, 'test_decoding')", (WITNESS,))

    def committed(self):
        """The ids of the rows of `orders`."""
        ids = []
        for (change,) in self._database.execute(
                "select data from pg_logical_slot_peek_changes(%s, null, null)", (WITNESS,)):
            if change.startswith("table public.orders: INSERT: id[integer]:"):
                ids.append(int(change.split("id[integer]:")[1].split()[0]))
        return ids

    def end(self):
        self._database.execute("select pg_drop_replication_slot(%s)", (WITNESS,))


def drop_slot(database):
    """Drops the slot of stream 1 while it is read."""
    def dropped():
        database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots "
                         "where slot_name = 'pgstream_1' and active_pid is not null")
        try:
            database.execute("select pg_drop_replication_slot('pgstream_1')")
        except psycopg.errors.ObjectInUse:
            return False
        return True
    eventually(dropped)


class StreamScene:
    """A PostgreSQL of its own, with a stream of the inserts into `orders`, and a sink."""

    def __init__(self, relay_database, directory, **settings):
        self.server = PostgresServer("stream-source", settings=settings).start()
        self.database = self.server.create_database(template="template0")
        install_stream(self.database.dsn)
        self.committed = Witness(self.database).committed
        self.database.execute("""
            select pgstream.add_stream(1);
            create table public.orders (id int generated always as identity primary key, note text);
            insert into pgstream.subscriptions
              (key, stream_id, operation, schema_name, table_name, column_names)
            values ('orders', 1, 'INSERT', 'public', 'orders', array['id', 'note'])""")
        self.daemon_dsn = self.database.login("stream_daemon", "pgstream_daemon")
        self.database.execute("alter role stream_daemon replication")
        self.sink = HttpServer()
        self.sink.start()
        self.relay_database = relay_database
        self._directory = directory

    def relay(self, sink=None, url=None, rate_limit=0, **options):
        """The relay that runs the stream; `options` are of its source, `sink` is as TOML has it,
        `url` is another way to the database, and `rate_limit` is in messages a second."""
        options = {"failover_after": "1s"} | options
        written = "".join(f", {name} = \"{value}\"" for name, value in options.items())
        sink = sink or ('{ type = "webhook", url = "%s", allow_private = true }'
                        % self.sink.url("/hook"))
        path = self._directory / "stream.toml"
        path.write_text(f"""
[[pipeline]]
name = "stream"
rate_limit = {rate_limit}
source = {{ type = "stream", stream = 1, url = "{url or self.daemon_dsn}"{written} }}
sink = {sink}
""")
        return Relay(self.relay_database.relay_dsn, config=path)

    def insert(self, count=1):
        self.database.execute("insert into public.orders (note) select 'x' "
                              "from generate_series(1, %s)", (count,))

    def deliveries(self):
        """What the sink took, in the order in which it did."""
        return [request.json["new"]["id"] for request in self.sink.requests("/hook")
                if request.status == 200]

    def first_deliveries(self):
        return list(dict.fromkeys(self.deliveries()))

    def wait_delivered(self, count, relay, deadline=30):
        """Waits until so many different events were delivered."""
        eventually(lambda: len(set(self.deliveries())) >= count, deadline,
                   message=lambda: f"{len(set(self.deliveries()))} of {count}\n{relay.log(40)}")

    def stored(self, columns):
        return self.database.execute(f"select {columns} from pgstream.streams where id = 1")[0]

    def slot(self, columns="slot_name"):
        """Of the stream's slot; None where there is none."""
        rows = self.database.execute(f"select {columns} from pg_replication_slots "
                                     "where slot_name = 'pgstream_1'")
        return rows[0] if rows else None

    def wait_slot(self):
        """Waits until there is a slot that can be read from."""
        eventually(lambda: self.slot("confirmed_flush_lsn is not null") == (True,))

    def drop_slot(self):
        drop_slot(self.database)

    def retained(self):
        """How many bytes of the log are kept for the stream."""
        return self.slot("pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint")[0]

    def write_log(self, megabytes):
        for _ in range(megabytes):
            self.database.execute(
                "select pg_logical_emit_message(false, 'load', repeat('x', 1000000))")

    def backlog(self):
        """How many transactions wait there."""
        return self.database.one("select count(*) from pgstream.backlog")

    def wait_all_settled(self):
        """Waits until what is stored says of every event that it was settled."""
        eventually(lambda: self.database.one(
            "select bool_and(pg_visible_in_snapshot(e.xid, s.settled_snapshot) "
            f"or e.xid = any (s.settled_also)) from pgstream.streams s, {ALL_EVENTS} e"), 20)

    def end(self):
        self.sink.stop()
        self.server.stop_immediate()


def lines_of(path):
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def ids_in(path):
    """The ids in the whole lines of what a sink wrote: a killed relay leaves one that is cut off."""
    with open(path, "rb") as file:
        return [int(line.split(b'"id":')[1].split(b",")[0].split(b"}")[0])
                for line in file if line.endswith(b"\n")]


@pytest.fixture
def scene(db, tmp_path):
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    scene = StreamScene(db, tmp_path)
    yield scene
    scene.end()


class CrossingWriters:
    """Transactions that cross: with rollbacks, savepoints, two-phase commit, and events that are
    written before the commit."""

    def __init__(self, database, seed, count=8):
        self._database, self._seed = database, seed
        self._numbers = itertools.count()
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
                with self._database.connect() as connection:
                    while not self._stop.is_set():
                        self._transaction(connection, chance, f"{self._seed}-{k}")
            except psycopg.OperationalError:
                self._stop.wait(0.05)  # the server is being started again

    def _transaction(self, connection, chance, name):
        def insert():
            connection.execute("insert into public.orders (note) select 'x' "
                               "from generate_series(1, %s)", (chance.choice([1, 1, 2, 50]),))
        connection.execute("begin")
        if chance.random() < 0.1:
            connection.execute("set constraints all immediate")
        insert()
        if chance.random() < 0.2:
            self._stop.wait(chance.random() * 0.2)
            insert()
        if chance.random() < 0.2:
            connection.execute("savepoint s")
            insert()
            connection.execute(chance.choice(["rollback to s", "release s"]))
        if chance.random() < 0.1:
            connection.execute("rollback")
        elif chance.random() < 0.1:
            name = f"{name}-{next(self._numbers)}"
            connection.execute(f"prepare transaction '{name}'")
            self._stop.wait(chance.random() * 0.1)
            connection.execute(f"commit prepared '{name}'")
        else:
            connection.execute("commit")
        self._stop.wait(chance.random() * 0.02)

    def commit_prepared(self):
        """Those that a crash has left."""
        for (name,) in self._database.execute("select gid from pg_prepared_xacts "
                                              "where database = current_database()"):
            self._database.execute(f"commit prepared '{name}'")
