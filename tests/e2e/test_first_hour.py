"""The first hour of a new user: README.md from top to bottom, on fresh servers, in one database.

Every code block is taken out of the file itself and run in order, with a shell or with psql, as it
stands; nothing is prepared beforehand. What each has done is checked by clients that are not ours.
"""

import json
import pathlib
import re

import psycopg

from support.postgres import REPOSITORY
from support.processes import free_port
from support.reader import hour, psql  # noqa: F401
from support.relay import run_command
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


HOW_TO = ("from-debezium.md", "managed-databases.md", "backup-and-restore.md")


def test_the_sql_of_the_how_to_pages_runs_in_one_database(db):
    db.execute("create table orders (id bigint primary key, region text); create role installer")
    try:
        for page in HOW_TO:
            for language, block in BLOCK.findall((README.parent / "docs/how-to" / page).read_text()):
                if language == "sql":
                    psql(db.dsn, block.replace("DATABASE mydb", f'DATABASE "{db.name}"'))
            if page == HOW_TO[0]:
                assert db.execute("select name, enabled from pgtrickle.list_relay_configs()") \
                    == [("orders-to-kafka", True)]
        assert db.one("select has_database_privilege('installer', current_database(), 'create')")
        assert db.one("select not enabled from pgtrickle.list_relay_configs()")
    finally:
        db.execute("drop owned by installer; drop role installer")


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
            "OAUTH2_CLIENT_SECRET": "long enough",
            "SHOP_URL": "postgresql://shop/shop"}
    # Without a database it looks at the file alone, and connects to nothing.
    url = f"postgresql://relay@127.0.0.1:{free_port()}/none"
    done = run_command("check", "--config", tmp_path / "all.toml", "--json",
                       env=env | {"PGTRICKLE_RELAY_POSTGRES_URL": url})
    problems = [finding for finding in json.loads(done.stdout)["findings"] if not finding["ok"]]
    assert [finding["pipeline"] for finding in problems] == [""], done.stdout
