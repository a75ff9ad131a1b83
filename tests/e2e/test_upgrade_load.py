"""Upgrades while applications write: no statement fails or waits for long, no change is lost."""

import json
import random
import subprocess
import threading
import time

import psycopg
import pytest
from support import earlier_versions as earlier
from support.background import Background
from support.pipelines import Lines, set_outbox, to_file, wait_settled
from support.relay import clean_environment, relay_binary, run_command
from support.replay import Replay
from support.waiting import eventually

TABLES = ("orders", "parts", "keyed", "swapped")

MORE = """
create table others (id int primary key);
create function follow() returns trigger language plpgsql as $$
begin
  insert into orders values (new.id, 'followed', 0);
  update keyed set n = n + 1 where id = 1;
  return null;
end $$;
create trigger follow after insert on others for each row execute function follow();
create table slow (id int primary key);
select pgtrickle.enable_outbox('slow', capture => 'statement');
create function linger() returns trigger language plpgsql as $$
begin
  perform pg_sleep(0.3);
  return null;
end $$;
create trigger linger after insert on slow for each row execute function linger();
"""


@pytest.fixture
def old(request, empty_db, relay_bin, tmp_path):
    """A database of the version before, or of the one that a test asks for, with data."""
    earlier.install_version(empty_db.dsn, getattr(request, "param", 2))
    earlier.fill(empty_db.dsn, tmp_path / "unused.jsonl")
    empty_db.execute("set client_min_messages = error")
    empty_db.execute(MORE)
    return empty_db


def inserts(n):
    yield "insert into orders values (%s, 'x', 1)", (n,)
    yield "update orders set amount = amount + 1 where id = %s", (n,)
    if n % 3 == 0:
        yield "delete from orders where id = %s", (n,)


def moves(n):
    yield "insert into parts select %s, 1 + %s %% 2, 'x'", (n, n)
    yield "update parts set part = 3 - part where id = %s", (n,)
    if n % 3 == 0:
        yield "delete from parts where id = %s", (n,)


def keys(n):
    yield "insert into keyed values (%s, 1)", (n,)
    yield "update keyed set id = -id where id = %s", (n,)
    yield "insert into keyed select %s + i, i from generate_series(1, 5) i", (n * 10 + 10 ** 7,)


def swaps(n):
    yield "update swapped set id = 3 - id, n = %s", (n,)


def nested(n):
    yield "insert into others values (%s)", (n,)


def events(n):
    yield "select pgtrickle.publish('events', '{}', idempotency_key => %s)", (f"k{n}",)


def naps(n):
    yield "insert into slow values (%s)", (n,)


class Load(Background):
    """An application that runs statements, each round in one transaction, `prepared` in two phases."""

    def __init__(self, db, statements, first, isolation="read committed", prepared=False):
        super().__init__()
        self._db, self._statements, self._prepared = db, statements, prepared
        self._isolation = isolation
        self.number, self.rounds, self.errors, self.longest = first, 0, [], 0

    def _run(self):
        with self._db.connect() as connection:
            connection.execute(f"set default_transaction_isolation = '{self._isolation}'")
            while not self._stop.is_set():
                self.number += 1
                try:
                    began = time.monotonic()
                    self._round(connection)
                    self.longest = max(self.longest, time.monotonic() - began)
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    connection.execute("rollback")
                self.rounds += 1

    def _round(self, connection):
        connection.execute("begin")
        for statement, values in self._statements(self.number):
            connection.execute(statement, values)
        if self._prepared:
            name = f"two_phases_{self.number}"
            connection.execute(f"prepare transaction '{name}'")
            connection.execute(f"commit prepared '{name}'")
        else:
            connection.execute("rollback" if random.random() < 0.1 else "commit")


@pytest.mark.parametrize("old", earlier.VERSIONS, indirect=True)
def test_an_upgrade_under_load_loses_nothing_and_fails_nothing(old, start_relay, tmp_path):
    loads = [Load(old, inserts, 10 ** 6), Load(old, inserts, 2 * 10 ** 6, "repeatable read"),
             Load(old, inserts, 3 * 10 ** 6, prepared=True), Load(old, moves, 10 ** 6),
             Load(old, keys, 10 ** 6), Load(old, swaps, 0), Load(old, nested, 4 * 10 ** 6),
             Load(old, events, 0), Load(old, events, 10 ** 6, prepared=True), Load(old, naps, 0)]
    for load in loads:
        load.__enter__()
    try:
        eventually(lambda: all(load.rounds > 2 for load in loads), 30)
        done = earlier.installed(old.dsn)
        after = [load.rounds for load in loads]
        eventually(lambda: all(load.rounds > before + 3 for load, before in zip(loads, after)), 30)
    finally:
        for load in loads:
            load.__exit__()
    assert [error for load in loads for error in load.errors] == [], done.stderr
    assert old.execute("select object from pgtrickle_internal.superseded") == [], done.stderr
    for table in (*TABLES, "slow"):
        Replay(old, table).check()
    assert old.one("select count(*) from pgtrickle.outbox_events where idempotency_key ~ '^k'") > 0
    # The real relay delivers all of it.
    login = old.login("upgrade_load", "pgtrickle_relay")
    files = {}
    for table in (*TABLES, "slow"):
        files[table] = tmp_path / f"{table}.jsonl"
        set_outbox(old, f"all_{table}", to_file(table, files[table], start="earliest"))
    relay = start_relay(login)
    for table in files:
        wait_settled(old, f"all_{table}", table)
    relay.stop()
    for table, path in files.items():
        changes = {"inserted": 0, "deleted": 0}
        for message in Lines(path).messages():
            for kind in changes:
                changes[kind] += len(message["delta"][kind])
        assert changes == dict(zip(changes, old.execute(
            "select sum(inserted_count)::int, sum(deleted_count)::int from pgtrickle."
            + Replay(old, table).outbox)[0])), table


class Init:
    """`init` in the background."""

    def __init__(self, dsn):
        environment = clean_environment({"PGTRICKLE_RELAY_POSTGRES_URL": dsn})
        self._process = subprocess.Popen([relay_binary(), "init"], env=environment, text=True,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def running(self):
        return self._process.poll() is None

    def end(self):
        said = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, said
        return said[1]


def committed(db):
    return db.one("select to_regclass('pgtrickle_internal.superseded')") is not None


def test_a_statement_inside_a_function_of_before_ends_as_it_began(old):
    """It waits in the body of the capture function, and goes on with that body after the upgrade."""
    with old.connect(autocommit=False) as holder, old.connect() as application:
        application.execute("insert into others values (1000)")  # compiled, and yet not all of it
        holder.execute("lock table pgtrickle.outbox_orders in share mode")  # init may go on
        ended = []

        def write():
            try:
                application.execute("insert into others values (1001)")
                ended.append(None)
            except psycopg.Error as error:
                ended.append(error)
        writer = threading.Thread(target=write)
        writer.start()
        eventually(lambda: old.one(
            "select count(*) from pg_locks where not granted "
            "and relation = 'pgtrickle.outbox_orders'::regclass") == 1)
        upgrade = Init(old.dsn)
        eventually(lambda: committed(old), 30)
        assert old.one("select count(*) from pgtrickle_internal.superseded") > 300
        holder.rollback()
        writer.join(30)
        assert ended == [None]
        assert upgrade.end() == ""
    assert old.execute("select object from pgtrickle_internal.superseded") == []
    Replay(old, "orders").check()
    Replay(old, "keyed").check()


@pytest.mark.parametrize("old", [1], indirect=True)
def test_capture_that_ends_a_statement_as_before_knows_how_it_begins_now(old):
    """A session learns of replaced functions one after the other."""
    with old.connect(autocommit=False) as holder, old.connect(autocommit=False) as application:
        holder.execute("select 1")  # what it might use is kept
        upgrade = Init(old.dsn)
        eventually(lambda: committed(old), 30)
        number = old.one("select outbox_number from pgtrickle_internal.outbox_config "
                         "where stream_table_name = 'swapped'")
        setting = f"pgtrickle_capture.s{number}"
        application.execute("select set_config(%s, '+', true)", (setting,))
        application.execute("select pgtrickle._capture_settle(%s, null)", (number,))
        assert application.execute("select current_setting(%s)", (setting,)).fetchone() == ("",)
        holder.rollback()
        application.rollback()
        upgrade.end()


def test_an_init_behind_a_long_transaction_keeps_no_other_session_waiting(old):
    """A publisher has used the catalog and stays open. Others publish, and init waits its turn."""
    with old.connect(autocommit=False) as publisher, old.connect() as others:
        publisher.execute("select pgtrickle.publish('events', '{}')")
        upgrade = Init(old.dsn)
        longest = 0
        for _ in range(60):
            began = time.monotonic()
            others.execute("select pgtrickle.publish('events', '{}'), pg_sleep(0.05)")
            longest = max(longest, time.monotonic() - began)
        assert longest < 1 and upgrade.running and not committed(old)
        publisher.commit()
        upgrade.end()
    assert committed(old)


def housekeeping(db):
    """A whole round of it."""
    eventually(lambda: not db.one("select (pgtrickle.relay_housekeeping() ->> 'more')::boolean"))


def test_what_a_long_transaction_may_use_is_dropped_by_housekeeping_later(old):
    with old.connect(autocommit=False) as long:
        long.execute("select 1")
        upgrade = Init(old.dsn)
        assert "stay until transactions have ended" in upgrade.end()
        assert old.one("select count(*) from pgtrickle_internal.superseded") > 300
        housekeeping(old)
        assert old.one("select count(*) from pgtrickle_internal.superseded") > 300
    housekeeping(old)
    assert old.execute("select object from pgtrickle_internal.superseded") == []


def superseded_findings(dsn):
    """What check says of objects of an earlier version: [(message, remedy)]."""
    done = run_command("check", "--json", env={"PGTRICKLE_RELAY_POSTGRES_URL": dsn})
    return [(each["message"], each["remedy"]) for each in json.loads(done.stdout)["findings"]
            if "earlier version" in each["message"] or "differences" in each["message"]]


def test_check_says_in_one_line_what_waits_for_which_session(old):
    login = old.login("upgrade_check", "pgtrickle_relay")
    with old.connect(autocommit=False, application_name="nightly") as long:
        pid = long.execute("select pg_backend_pid()").fetchone()[0]
        Init(old.dsn).end()
        count = old.one("select count(*) from pgtrickle_internal.superseded")
        for dsn in (old.dsn, login):
            (message, remedy), = superseded_findings(dsn)
            assert message == (f"{count} objects of an earlier version stay until transactions "
                               "have ended that began before the upgrade: "
                               f"session {pid} of role postgres (nightly)")
            assert remedy.endswith(f"to end them: SELECT pg_terminate_backend({pid});")
    (message, remedy), = superseded_findings(old.dsn)
    assert message.endswith("(none is open any more)") and "housekeeping then drops them" in remedy
    housekeeping(old)
    assert superseded_findings(old.dsn) == []


def test_check_names_what_uses_an_object_of_an_earlier_version(old):
    old.execute("create view uses as select pgtrickle._nearest('a', '{}')")
    assert "1 objects of an earlier version stay" in Init(old.dsn).end()
    assert superseded_findings(old.dsn) == [
        ("1 objects of an earlier version stay, for others use them: rule _RETURN on view "
         "public.uses", "SELECT object FROM pgtrickle_internal.superseded; alter or drop what uses "
         "them, and a relay's housekeeping drops them, or pgtrickle-relay init")]
    old.execute("drop view uses")
    housekeeping(old)
    assert superseded_findings(old.dsn) == []


@pytest.mark.parametrize("old", [5], indirect=True)
def test_a_relay_of_this_version_delivers_before_and_after_init(old, start_relay, tmp_path):
    """So the relays can be replaced first, and no pipeline stops."""
    set_outbox(old, "early", to_file("orders", tmp_path / "out.jsonl", start="earliest"))
    relay = start_relay(old.login("upgrade_first", "pgtrickle_relay"))
    wait_settled(old, "early", "orders", 60)
    eventually(lambda: "schema_differs" in str(relay.health()[1]), 60, message=lambda: relay.log(40))
    earlier.installed(old.dsn)
    old.execute("insert into orders values (1000, 'after', 1)")
    wait_settled(old, "early", "orders", 60)
    eventually(lambda: relay.health()[1]["status"] == "healthy", 60,
               message=lambda: f"{relay.health()} {relay.log(40)}")
    assert "after" in (tmp_path / "out.jsonl").read_text()
    relay.stop()


def test_a_relay_of_this_version_waits_for_init_and_goes_on(old, start_relay, tmp_path):
    """On the schema before it takes part in nothing, says what to do, and leaves the pipelines to
    the relays of the version before."""
    set_outbox(old, "waits", to_file("orders", tmp_path / "out.jsonl", start="earliest"))
    written = {table: old.execute(f"select * from pgtrickle.{table}") for table in (
        "relay_instances", "relay_lease_sessions", "relay_leases", "relay_pipeline_status",
        "relay_consumer_offsets", "relay_dlq")}
    login = old.login("upgrade_early", "pgtrickle_relay")
    relay = start_relay(login)
    eventually(lambda: relay.health()[1].get("error_code") == "older_schema", 20,
               message=lambda: relay.log(40))
    status, health = relay.health()
    assert status == 503 and health["status"] == "unhealthy" and health["pipelines"] == []
    assert "the database side has version" in health["last_error"]
    assert health["remedy"].startswith("run `pgtrickle-relay init` of this program's version")
    assert health["last_error"] in run_command("status", "--postgres-url", login).stdout
    # It has tried again, and written nothing meanwhile.
    attempts = old.one("select pg_stat_get_db_sessions(oid) from pg_database "
                       "where datname = current_database()")
    eventually(lambda: old.one("select pg_stat_get_db_sessions(oid) from pg_database "
                               "where datname = current_database()") >= attempts + 2, 20)
    for table, rows in written.items():
        assert old.execute(f"select * from pgtrickle.{table}") == rows, table
    earlier.installed(old.dsn)
    eventually(lambda: (tmp_path / "out.jsonl").exists(), 60, message=lambda: relay.log(40))
    wait_settled(old, "waits", "orders")
    relay.stop()
