"""The first hour of a new user: README.md from top to bottom, on fresh servers, in one database.

Every code block is taken out of the file itself and run in order, with a shell or with psql, as it
stands; nothing is prepared beforehand. What each has done is checked by clients that are not ours.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

import psycopg
import pytest

from support.fixtures import need
from support.postgres import REPOSITORY, PostgresServer, postgres_bin_directory
from support.processes import Process, free_port
from support.relay import clean_environment, relay_binary, run_command
from support.waiting import eventually

README = pathlib.Path(REPOSITORY, "README.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# Blocks that are not run, by how they begin, and why.
NOT_RUN = {
    "PostgreSQL  ": "a drawing",
    "scripts/demo": "installs packages and builds; test_quickstart.py runs what it starts",
    "scripts/test": "runs this test",
    "scripts/setup --build": "installs packages, builds, and installs into /usr/local",
}

# Lines that run until they are interrupted: as in a shell of their own.
ENDLESS = ("pgtrickle-relay --config", "pgtrickle-relay tail")


def psql(database, text):
    """Runs statements as psql does, each by itself; what they printed."""
    done = subprocess.run([os.path.join(postgres_bin_directory(), "psql"), "--no-psqlrc", "--quiet",
                           "-v", "ON_ERROR_STOP=1", database], input=text, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


class Hour:
    """A reader at the keyboard: the shell with its variables and its folder, and psql."""

    def __init__(self, folder, postgres, nats):
        self.folder, self.nats = folder, nats
        self.port = free_port()
        # All that is replaced in an example: addresses and ports, and the administrator's password.
        self._replaced = [
            ("postgresql://admin@localhost/mydb", postgres.dsn("mydb")),
            ("@localhost/mydb", f"@127.0.0.1:{postgres.port}/mydb"),
            ("nats://localhost:4222", nats.url),
            ("localhost:9090", f"127.0.0.1:{self.port}"),
        ]
        self._database = postgres.dsn("mydb")
        # The default, 0.0.0.0:9090, may be another test's.
        self._env = clean_environment({
            "PATH": f"{os.path.dirname(relay_binary())}:{os.environ['PATH']}",
            "PGTRICKLE_RELAY_METRICS_ADDR": f"127.0.0.1:{self.port}"})
        del self._env["PGTRICKLE_RELAY_ALLOW_FILE"]
        self._endless = {}

    def example(self, text):
        for written, here in self._replaced:
            text = text.replace(written, here)
        return text

    def sql(self, text):
        """Runs a block with psql; what it printed."""
        return psql(self._database, self.example(text))

    def shell(self, text):
        """Runs a block line by line; what each line printed, by the line without its comment."""
        printed = {}
        for line in text.splitlines():
            command = line.partition(" #")[0].strip()
            if command.startswith("export "):
                self._env |= (self.example(word).split("=", 1) for word in command.split()[1:])
            elif command.startswith(ENDLESS):
                self._begin(command)
            else:
                done = subprocess.run(["bash", "-c", self.example(command)], env=self._env,
                                      cwd=self.folder, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                printed[command] = done.stdout
        return printed

    def _begin(self, command):
        name = command.split()[1].strip("-")
        self._endless[name] = Process(
            ["bash", "-c", "exec " + self.example(command)], env=self._env, cwd=self.folder,
            stdout=open(self.folder / f"{name}.out", "wb"),
            stderr=open(self.folder / f"{name}.err", "wb"))

    def said(self, name, kind="out"):
        """What a line that runs until it is interrupted has printed."""
        return (self.folder / f"{name}.{kind}").read_text()

    def story(self):
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))

    def interrupt(self, name):
        """Ctrl-C; the exit code."""
        process = self._endless.pop(name)
        process.signal(2)
        return process.wait(40)

    def end(self):
        for process in self._endless.values():
            process.kill9()


@pytest.fixture
def hour(relay_bin, nats, tmp_path):
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    need(shutil.which("curl"), "curl")
    postgres = PostgresServer("first-hour").start()
    try:
        with postgres.connect() as connection:
            connection.execute("create database mydb")
        reader = Hour(tmp_path, postgres, nats)
        with psycopg.connect(postgres.dsn("mydb"), autocommit=True) as reader.db, \
                nats.client() as reader.client:
            yield reader
            reader.end()
    finally:
        postgres.stop_immediate()


def rows(hour, statement):
    return hour.db.execute(statement).fetchall()


def changes(hour, stream):
    """[(subject, inserted rows, deleted rows)] of a stream's messages."""
    return [(m.subject, m.json["delta"]["inserted"], m.json["delta"]["deleted"])
            for m in hour.client.messages(stream)] if hour.client.count(stream) else []


# What the blocks do, in the order of the file ------------------------------------------------


def init(hour, block):
    hour.shell(block)
    assert rows(hour, "select to_regrole('pgtrickle_relay') is not null,"
                      " to_regprocedure('pgtrickle.enable_relay(text)') is not null") == [(True, True)]


def role(hour, block):
    hour.sql(block)
    url = hour.example("postgresql://relay:secret@localhost/mydb")
    with psycopg.connect(url) as relay:
        assert relay.execute("select current_user").fetchone() == ("relay",)


def capture_a_table(hour, block):
    hour.sql(block)
    assert rows(hour, "select payload::jsonb -> 'inserted' from pgtrickle.outbox_orders") \
        == [([{"id": 1, "region": "europe", "amount": 99.5}],)]


def capture_a_stream_table(hour, block):
    hour.sql(block)
    assert rows(hour, "select region, revenue::float, order_count from revenue_by_region") \
        == [("europe", 99.5, 1)]
    assert rows(hour, "select count(*) from pgtrickle.outbox_revenue_by_region") == [(0,)]


def publish(hour, block):
    hour.sql(block)
    outbox, = rows(hour, "select outbox_table_name from pgtrickle.pgt_outbox_config"
                         " where stream_table_name = 'billing'")[0]
    assert rows(hour, f"select count(*) from pgtrickle.{outbox}") == [(1,)]


def send_by_sql(hour, block):
    hour.sql(block)
    assert rows(hour, "select name, enabled from pgtrickle.list_relay_configs()") \
        == [("orders-to-nats", True)]


def send_by_file(hour, block):
    (hour.folder / "relay.toml").write_text(hour.example(block))


def receive(hour, block):
    hour.sql(block)
    assert rows(hour, "select name, enabled from pgtrickle.list_relay_configs() order by 1") \
        == [("nats-to-orders-inbox", True), ("orders-to-nats", True)]


def run(hour, block):
    hour.shell(block)
    # What was captured before the relay was there, and what is now.
    eventually(lambda: changes(hour, "pgtrickle"), 20, message=hour.story)
    hour.sql("insert into orders values (2, 'europe', 0.50), (3, 'asia', 7)")
    eventually(lambda: len(changes(hour, "pgtrickle")) == 2, 20, message=hour.story)
    assert changes(hour, "pgtrickle") == [
        ("pgtrickle.orders.insert", [{"id": 1, "region": "europe", "amount": 99.5}], []),
        ("pgtrickle.orders.insert", [{"id": 2, "region": "europe", "amount": 0.5},
                                     {"id": 3, "region": "asia", "amount": 7}], [])]
    eventually(lambda: len(changes(hour, "revenue")) == 2, 20, message=hour.story)
    assert sorted(changes(hour, "revenue")) == [
        ("revenue.asia", [{"region": "asia", "revenue": 7, "order_count": 1}], []),
        ("revenue.europe", [{"region": "europe", "revenue": 100, "order_count": 2}],
         [{"region": "europe", "revenue": 99.5, "order_count": 1}])]
    event = eventually(lambda: hour.said("config"), 20, message=hour.story)
    assert json.loads(event) == {"invoice": 42}

    eventually(lambda: "commands" in (hour.client._api("STREAM.NAMES")["streams"] or []), 20)
    assert hour.client.stream_info("commands")["config"]["subjects"] == ["commands.>"]
    hour.client.publish_acknowledged("commands.ship", b'{"order": 1}')
    eventually(lambda: rows(hour, "select to_regclass('pgtrickle.orders_inbox') is not null")[0][0])
    eventually(lambda: rows(hour, "select event_type, payload from pgtrickle.orders_inbox")
               == [("commands.ship", {"order": 1})], 20, message=hour.story)


def look(hour, block):
    pipelines = ["billing-to-stdout", "nats-to-orders-inbox", "orders-to-nats", "revenue-to-nats"]
    printed = hour.shell(block)
    check = printed["pgtrickle-relay check --config relay.toml"]
    status = printed["pgtrickle-relay status"]
    for name in pipelines:
        assert name in check and name in status, name
    assert "No relay is running" not in status
    health = json.loads(printed["curl localhost:9090/health"])
    assert health["status"] == "healthy" and health["pipelines_owned"] == 4
    assert 'pgtrickle_relay_messages_delivered_total{pipeline="revenue-to-nats"}' \
        in printed["curl localhost:9090/metrics"]

    def shown():
        hour.db.execute("update orders set amount = amount + 1 where id = 3")
        return hour.said("tail").count("\n") >= 1
    eventually(shown, 20, interval=0.2, message=hour.story)
    subject, _, message = hour.said("tail").splitlines()[0].partition("  ")
    assert subject == "pgtrickle.orders.update"
    assert [row["id"] for row in json.loads(message)["delta"]["inserted"]] == [3]
    hour.interrupt("tail")


STEPS = {
    "pgtrickle-relay init": init,
    "CREATE ROLE relay": role,
    "CREATE TABLE orders": capture_a_table,
    "SELECT pgtrickle.create_stream_table('revenue_by_region'": capture_a_stream_table,
    "SELECT pgtrickle.create_outbox('billing')": publish,
    "SELECT pgtrickle.set_relay_outbox('orders-to-nats'": send_by_sql,
    "[global]": send_by_file,
    "SELECT pgtrickle.set_relay_inbox('nats-to-orders-inbox'": receive,
    "export RELAY_PASSWORD": run,
    "pgtrickle-relay check": look,
}


def test_the_readme_from_top_to_bottom_works_on_fresh_servers(hour):
    steps = dict(STEPS)
    for _, block in BLOCK.findall(README.read_text()):
        if block.startswith(tuple(NOT_RUN)):
            continue
        beginning = next((b for b in steps if block.startswith(b)), None)
        assert beginning, f"a block of README.md that no step runs:\n{block}"
        assert beginning == next(iter(steps)), f"{beginning} stands before {next(iter(steps))}"
        steps.pop(beginning)(hour, block)
    assert not steps, f"README.md has no block for {list(steps)}"
    assert hour.interrupt("config") == 0, hour.story()


# The guides ------------------------------------------------------------------------------------

GUIDES = ("outboxes.md", "inbox.md", "stream-tables.md", "configuration.md")
GUIDES_NOT_RUN = {"SELECT id, pipeline, subject FROM pgtrickle.relay_dlq": "has ids to be filled in"}


def test_the_sql_of_the_guides_runs_in_one_database(db):
    # The tables of the reader.
    db.execute("""
        create table orders (id bigint primary key, region text, amount numeric, created_at timestamptz);
        create schema audit;
        create table audit.entries (entry_id bigint not null unique, what text);
        create schema app;
        create table app.events (id bigint generated always as identity primary key, kind text,
                                 customer_id int, body jsonb, meta jsonb, at timestamptz);
        create schema tide;
        create table tide.tide_outbox_messages (
          id bigint generated always as identity primary key, outbox_name text, payload jsonb,
          headers jsonb, created_at timestamptz)""")
    for guide in GUIDES:
        for language, block in BLOCK.findall((README.parent / "docs" / guide).read_text()):
            if language == "sql" and not block.startswith(tuple(GUIDES_NOT_RUN)):
                psql(db.dsn, block)
    assert {row[0] for row in db.execute(
        "select stream_table_name from pgtrickle.pgt_outbox_config where source_dropped_at is null")} \
        == {"entries", "orders", "billing", "revenue_by_region", "events"}
    assert db.execute("select inbox_name from pgtrickle.pgt_inbox_config") == [("payment_events",)]
    assert {row[0] for row in db.execute("select pgt_name from pgtrickle.pgt_stream_tables")} \
        == {"payment_summary", "revenue_by_region"}
    assert db.execute("select * from pgtrickle.list_relay_configs()") == [], "made, and deleted"


def test_the_examples_of_the_backends_are_valid(db, tmp_path):
    db.execute("create table orders (id bigint primary key);"
               "create table orders_stream (id bigint primary key);"
               "create table fraud_alerts (id bigint primary key)")
    ends = {"source": 'source = { type = "outbox", stream_table = "orders" }',
            "sink": 'sink = { type = "stdout" }'}
    pipelines, made = [], 0
    for page in sorted((README.parent / "docs" / "backends").glob("*.md")):
        for language, block in BLOCK.findall(page.read_text()):
            if language == "sql":
                psql(db.dsn, block)
                made += block.count("enable_relay")
            elif language == "toml" and block.startswith("[["):
                pipelines.append(block)
            elif language == "toml":
                there = ends | {block.partition(" ")[0]: block}
                pipelines.append(f'[[pipeline]]\nname = "{len(pipelines)}"\n'
                                 + "\n".join(there.values()))
    assert db.one("select count(*) from pgtrickle.list_relay_configs() where enabled") == made > 10
    assert len(pipelines) > 10
    (tmp_path / "all.toml").write_text("\n".join(pipelines))
    names = ("KAFKA", "RABBITMQ", "REDIS")
    env = {f"{name}_PASSWORD": "long enough" for name in names}
    env |= {"HOOKS_TOKEN": "long enough", "WEBHOOK_SECRET": "long enough",
            "SHOP_URL": "postgresql://shop/shop"}
    # Without a database it looks at the file alone, and connects to nothing.
    url = f"postgresql://relay@127.0.0.1:{free_port()}/none"
    done = run_command("check", "--config", tmp_path / "all.toml", "--json",
                       env=env | {"PGTRICKLE_RELAY_POSTGRES_URL": url})
    problems = [finding for finding in json.loads(done.stdout)["findings"] if not finding["ok"]]
    assert [finding["pipeline"] for finding in problems] == [""], done.stdout
