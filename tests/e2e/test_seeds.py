"""The examples of the public documents (../seeds) run as they stand.

Nothing is prepared that a reader would not: the tables that the examples read are made with nothing
but a query, no topic, stream, key or schedule is made, and where an error names a remedy, that is
what is done.
"""

import http.server
import json
import os
import pathlib
import re
import ssl
import subprocess
import threading

import pytest

from support.kafka_server import KafkaServer
from support.nats_tool import add_stream
from support.pipelines import insert_rows, make_table, wait_settled
from support.processes import Process, free_port
from support.relay import Relay, clean_environment, get, relay_binary, run_command
from support.tls import Authority
from support.waiting import eventually

SEEDS = pathlib.Path(__file__).parent.parent / "seeds"


def example(name, **values):
    """The text of an example with what REPLACED allows replaced, and nothing else."""
    text = (SEEDS / name).read_text()
    for written, key in REPLACED:
        if key in values:
            text = text.replace(written, values[key])
    return text


# Host, port, credentials, CA and allow_private: all that may be replaced.
REPLACED = [
    ("postgres://user:pass@localhost/mydb", "postgres_url"),
    ("postgres://relay:password@localhost:5432/mydb", "postgres_url"),
    ("nats://localhost:4222", "nats_url"),
    ("0.0.0.0:9090", "metrics_addr"),
    ("http://localhost:9090", "metrics_url"),
    ("kafka:9092", "kafka"),
    ('url = "https://hooks.example.com/fraud"', "webhook_url_and_ca"),
]


def run_sql(db, text):
    """Runs an example's statements as an administrator; the rows of the last one."""
    with db.connect() as connection:
        cursor = connection.execute(text)
        rows = cursor.fetchall()
        while cursor.nextset():
            rows = cursor.fetchall()
        return rows


def run_shell(text, folder, env=None):
    """An example of the shell, with our binary in PATH, as a Relay-like process and its log."""
    env = clean_environment({"PATH": f"{os.path.dirname(relay_binary())}:{os.environ['PATH']}",
                             **(env or {})})
    # `exec` hands the signals that we send to the program itself.
    return Process(["bash", "-c", "exec " + text], env=env, cwd=folder,
                   stdout=open(folder / "stdout", "wb"), stderr=open(folder / "stderr", "wb"))


class AtPort:
    """Health and metrics of a relay that a shell example has started."""

    def __init__(self, port, folder):
        self.port, self._folder = port, folder
        self.metrics_url = f"http://127.0.0.1:{port}"

    def health(self):
        return json.loads(get(self.port, "/health")[1])

    def pipeline(self, name):
        return {entry["name"]: entry for entry in self.health()["pipelines"]}[name]

    def lists(self, name):
        return any(entry["name"] == name for entry in self.health()["pipelines"])

    def log(self):
        return (self._folder / "stderr").read_text()


def stop(process):
    process.signal(15)
    assert process.wait(40) == 0


@pytest.fixture
def revenue(db, relay_bin):
    """The stream tables of the first document: revenue_by_region, order_view and fraud_alerts."""
    db.execute("""
        create table orders (id bigint primary key, region text, day date, amount numeric(12,2));
        select pgtrickle.create_stream_table('revenue_by_region',
          'select region, day, sum(amount) as revenue, count(*) as order_count
             from orders group by region, day');
        select pgtrickle.create_stream_table('order_view', 'select id, region, amount from orders');
        select pgtrickle.create_stream_table('fraud_alerts',
          'select id, amount from orders where amount > 1000000')""")


def wait_remedy(at, pipeline, beginning):
    """Waits until /health tells how to mend the pipeline, and returns that."""
    def told():
        entry = at.pipeline(pipeline)
        return (entry.get("remedy") or "").startswith(beginning) and entry["remedy"]
    return eventually(told, 20, message=at.log)


def wait_running(at, *pipelines):
    """Waits until these are not in trouble any more: what was mended is looked at again by itself."""
    eventually(lambda: all(at.pipeline(name)["state"] in ("idle", "running")
                           for name in pipelines), 40, message=at.log)


def nats_rows(client, stream, subject=None):
    return [(m.subject, m.json) for m in client.messages(stream, subject)]


# The first document ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka():
    # Kafka's own default. Other tests turn it off.
    server = KafkaServer(properties={"auto.create.topics.enable": "true"}).start()
    yield server
    server.stop()


class Hook:
    """An HTTPS server that takes every request, and what it was sent: [(path, headers, body)]."""

    def __init__(self):
        authority = Authority()
        requests = self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append((self.path, dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.certificate("hook"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.replacement = (f'url = "https://127.0.0.1:{self._server.server_port}/fraud",'
                            f' tls_ca = "{authority.ca}", allow_private = true')

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def test_the_file_runs_by_its_command_to_kafka_nats_and_a_webhook(
        db, nats, kafka, revenue, tmp_path):
    port = free_port()
    at = AtPort(port, tmp_path)
    run_sql(db, example("000/enable_outbox.sql"))
    with nats.client() as client, Hook() as hook, kafka.reader("revenue-deltas") as topic:
        (tmp_path / "relay.toml").write_text(example(
            "000/relay.toml", postgres_url=db.relay_dsn, nats_url=nats.url,
            kafka=f"127.0.0.1:{kafka.port}", webhook_url_and_ca=hook.replacement,
            metrics_addr=f"127.0.0.1:{port}"))
        process = run_shell(example("000/run.sh"), tmp_path)
        try:
            eventually(lambda: get(port, "/health/ready")[0] == 200, 15, message=at.log)
            # The document enables one outbox of three; the relay may not enable the others itself.
            for pipeline, table in (("orders-to-nats", "order_view"),
                                    ("alerts-to-webhook", "fraud_alerts")):
                remedy = wait_remedy(at, pipeline, "SELECT pgtrickle.enable_outbox")
                assert remedy == f"SELECT pgtrickle.enable_outbox('{table}');"
                eventually(lambda: remedy in at.log(), message=at.log)
                checked = run_command("check", "--config", tmp_path / "relay.toml")
                assert remedy.lower().rstrip(";") in checked.stdout.lower()
                run_sql(db, remedy)
            wait_running(at, "orders-to-nats", "alerts-to-webhook", "revenue-to-kafka")
            db.execute("insert into orders values (1, 'europe', '2026-04-27', 2000000.50)")
            eventually(lambda: client.count("orders") == 1, 20, message=at.log)
            (subject, message), = nats_rows(client, "orders")
            assert subject == "orders.order_view"
            assert message["delta"]["inserted"] == [
                {"id": 1, "region": "europe", "amount": 2000000.5}]

            eventually(lambda: topic.count() == 1, 20, message=at.log)
            record, = topic.messages()
            assert json.loads(record.body)["delta"]["inserted"] == [
                {"region": "europe", "day": "2026-04-27", "revenue": 2000000.5, "order_count": 1}]

            eventually(lambda: len(hook.requests) == 1, 20, message=at.log)
            path, headers, body = hook.requests[0]
            assert path == "/fraud" and headers["Idempotency-Key"]
            assert json.loads(body)["delta"]["inserted"] == [{"id": 1, "amount": 2000000.5}]
            for name in ("revenue-to-kafka", "orders-to-nats", "alerts-to-webhook"):
                assert at.pipeline(name)["state"] in ("idle", "running"), at.pipeline(name)
        finally:
            stop(process)


def test_a_delta_has_the_envelope_that_is_shown(db, nats, revenue, tmp_path):
    shown = json.loads((SEEDS / "000/envelope.json").read_text())
    run_sql(db, example("000/enable_outbox.sql"))
    (tmp_path / "relay.toml").write_text(
        f'[global]\npostgres_url = "{db.relay_dsn}"\n'
        + example("000/subject_routing.toml", nats_url=nats.url))
    with nats.client() as client:
        with Relay(None, "--config", tmp_path / "relay.toml") as relay:
            relay.wait_healthy(pipelines=1)
            db.execute("insert into orders values (1, 'europe', '2026-04-27', 149800)")
            eventually(lambda: client.count("revenue") == 1, 20, message=relay.log)
            db.execute("insert into orders values (2, 'europe', '2026-04-27', 400.50)")
            eventually(lambda: client.count("revenue") == 2, 20, message=relay.log)
        message = client.messages("revenue")[-1]
    body = message.json
    assert set(body) == set(shown)
    assert set(body["delta"]) == set(shown["delta"])
    assert set(shown["metadata"]) <= set(body["metadata"])
    assert body["stream_table"] == "revenue_by_region"
    assert isinstance(body["sequence"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    for side in ("inserted", "deleted"):
        assert [set(row) for row in body["delta"][side]] == [set(shown["delta"][side][0])]
    assert body["delta"]["deleted"] == [
        {"region": "europe", "day": "2026-04-27", "revenue": 149800.00, "order_count": 1}]
    assert body["delta"]["inserted"] == [
        {"region": "europe", "day": "2026-04-27", "revenue": 150200.50, "order_count": 2}]
    assert b"150200.50" in message.data, "numbers as PostgreSQL writes them"
    assert body["metadata"]["refresh_mode"] == "DIFFERENTIAL"
    assert body["metadata"]["refresh_duration_ms"] >= 0
    assert body["metadata"]["delta_rows"] == 2


def test_each_region_goes_to_its_own_subject_with_only_its_rows(db, nats, revenue, tmp_path):
    run_sql(db, example("000/enable_outbox.sql"))
    (tmp_path / "relay.toml").write_text(
        f'[global]\npostgres_url = "{db.relay_dsn}"\n'
        + example("000/subject_routing.toml", nats_url=nats.url))
    with nats.client() as client:
        with Relay(None, "--config", tmp_path / "relay.toml") as relay:
            db.execute("insert into orders values (1, 'europe', '2026-04-27', 1),"
                       " (2, 'asia', '2026-04-27', 2)")
            eventually(lambda: client.count("revenue") == 2, 20, message=relay.log)
        rows = dict(nats_rows(client, "revenue"))
    assert set(rows) == {"revenue.europe", "revenue.asia"}
    for region in ("europe", "asia"):
        assert [row["region"] for row in rows[f"revenue.{region}"]["delta"]["inserted"]] == [region]


def test_instances_of_the_group_in_the_file_stand_in_for_each_other(db, nats, revenue, tmp_path):
    # The example's [global] alone: the address comes from the environment.
    (tmp_path / "relay.toml").write_text(
        example("000/high_availability.toml") + example("000/subject_routing.toml",
                                                        nats_url=nats.url))
    env = {"PGTRICKLE_RELAY_POSTGRES_URL": db.relay_dsn}
    run_sql(db, example("000/enable_outbox.sql"))
    with nats.client() as client:
        first = Relay(None, "--config", tmp_path / "relay.toml", env=env)
        second = Relay(None, "--config", tmp_path / "relay.toml", env=env)
        with first, second:
            eventually(lambda: sorted(r.health()[1]["pipelines_owned"] for r in (first, second))
                       == [0, 1], 20)
            assert {row[0] for row in db.execute(
                "select relay_group_id from pgtrickle.relay_instances")} == {"relay-primary"}
            db.execute("insert into orders values (1, 'europe', '2026-04-27', 1)")
            eventually(lambda: client.count("revenue") == 1, 20)
            leader = first if first.health()[1]["pipelines_owned"] else second
            leader.kill9()
            db.execute("insert into orders values (2, 'asia', '2026-04-27', 1)")
            eventually(lambda: client.count("revenue") == 2, 20)
        assert [subject for subject, _ in nats_rows(client, "revenue")] \
            == ["revenue.europe", "revenue.asia"]


def test_payments_from_kafka_are_a_table_and_a_stream_table(db, kafka, tmp_path):
    run_sql(db, example("000/inbox.sql"))
    (tmp_path / "relay.toml").write_text(
        f'[global]\npostgres_url = "{db.relay_dsn}"\n'
        + example("000/inbox.toml", kafka=f"127.0.0.1:{kafka.port}"))
    payments = [("a", 10.25), ("b", 3), ("a", 0.5)]
    kafka.publish("payment-events", [
        {"key": customer, "value": json.dumps({"customer_id": customer, "amount": amount})}
        for customer, amount in payments])
    with Relay(None, "--config", tmp_path / "relay.toml") as relay:
        eventually(lambda: db.one("select count(*) from pgtrickle.inbox_payment_events") == 3, 30,
                   message=relay.log)
        eventually(lambda: db.execute(
            "select customer_id, total_paid::float, payment_count from payment_summary order by 1")
            == [("a", 10.75, 2), ("b", 3.0, 1)], 20, message=relay.log)
        eventually(lambda: relay.pipeline("payments-from-kafka")["state"] in ("idle", "running"))


def test_the_metrics_that_are_shown_exist_under_exactly_these_names_and_labels(
        db, nats, revenue, tmp_path):
    run_sql(db, example("000/enable_outbox.sql"))
    (tmp_path / "relay.toml").write_text(
        f'[global]\npostgres_url = "{db.relay_dsn}"\n'
        + example("000/subject_routing.toml", nats_url=nats.url))
    shown = [line.rsplit(" ", 1)[0].replace("revenue-to-kafka", "regional-revenue")
             for line in (SEEDS / "000/metrics.txt").read_text().splitlines()
             if line and not line.startswith("#")]
    assert len(shown) == 4
    with Relay(None, "--config", tmp_path / "relay.toml") as relay:
        relay.wait_healthy(pipelines=1)
        page = relay.metrics().text.splitlines()
        for series in shown:
            assert any(line.startswith(series + " ") for line in page), series


# The second document -----------------------------------------------------------------------


@pytest.fixture
def orders_stream(db, relay_bin):
    db.execute("""
        create table orders (id bigint primary key, total numeric);
        select pgtrickle.create_stream_table('orders_stream', 'select id, total from orders')""")


def test_the_forward_pipeline_is_registered_run_and_managed_by_the_sql_that_is_shown(
        db, nats, orders_stream, tmp_path):
    port = free_port()
    at = AtPort(port, tmp_path)
    with nats.client() as client:
        run_sql(db, example("001/forward.sql", nats_url=nats.url))
        process = run_shell(example("001/run.sh", postgres_url=db.relay_dsn,
                                    metrics_addr=f"127.0.0.1:{port}"), tmp_path)
        try:
            eventually(lambda: at.health()["pipelines_owned"] == 1, 15, message=at.log)
            for number, (statement, op) in enumerate((
                    ("insert into orders values (1, 10)", "insert"),
                    ("update orders set total = 11", "update"),
                    ("delete from orders", "delete")), start=1):
                db.execute(statement)
                eventually(lambda: client.count("pgtrickle") == number, 20, message=at.log)
                assert client.messages("pgtrickle")[-1].subject == f"pgtrickle.orders_stream.{op}"

            told = subprocess.run(
                ["bash", "-c", example("001/health.sh", metrics_url=at.metrics_url)],
                capture_output=True, text=True)
            health = json.loads(told.stdout)
            assert health["status"] == "healthy" and health["pipelines_owned"] == 1
            assert isinstance(health["uptime_seconds"], int)

            assert {row[0] for row in db.execute(
                "select relay_group_id from pgtrickle.relay_instances")} == {"dc1-relay"}
            for line in at.log().splitlines():
                json.loads(line)

            # list, disable, delete
            assert db.execute("select name, enabled from pgtrickle.list_relay_configs()") \
                == [("orders-to-nats", True)]
            run_sql(db, example("001/manage.sql"))
            eventually(lambda: not at.lists("orders-to-nats"))
            assert db.execute("select * from pgtrickle.list_relay_configs()") == []
            assert at.health()["pipelines_owned"] == 0
        finally:
            stop(process)


def test_the_reverse_pipeline_of_the_sql_that_is_shown_fills_its_inbox_once(
        db, nats, orders_stream):
    with nats.client() as client:
        run_sql(db, example("001/forward.sql", nats_url=nats.url))
        run_sql(db, example("001/reverse.sql", nats_url=nats.url))
        assert sorted(row[0] for row in db.execute(
            "select name from pgtrickle.list_relay_configs()")) \
            == ["nats-to-orders-inbox", "orders-to-nats"]
        with Relay(db.relay_dsn) as relay:
            # The relay makes the stream of the sink. The document says nothing about that of the
            # source.
            remedy = wait_remedy(relay, "nats-to-orders-inbox", "name a stream that is there; or")
            assert add_stream(client, remedy, nats) == ("commands", ["commands.>"])
            wait_running(relay, "nats-to-orders-inbox")
            eventually(lambda: db.one("select to_regclass('pgtrickle.orders_inbox')"), 20,
                       message=relay.log)
            client.publish_acknowledged("commands.place", b'{"order": 1}', {"Nats-Msg-Id": "c1"})
            client.publish_acknowledged("commands.place", b'{"order": 2}', {"Nats-Msg-Id": "c2"})
            eventually(lambda: db.execute(
                "select split_part(event_id, ':id:', 2), event_type, payload"
                " from pgtrickle.orders_inbox order by 1")
                == [("c1", "commands.place", {"order": 1}), ("c2", "commands.place", {"order": 2})],
                20, message=relay.log)
            db.execute("insert into orders values (1, 10)")
            eventually(lambda: client.count("pgtrickle") == 1, 20, message=relay.log)


def test_every_environment_variable_and_flag_of_the_table_is_known_with_its_default(db, relay_bin):
    table = (SEEDS / "001/environment.md").read_text()
    rows = re.findall(r"^(PGTRICKLE_\w+) \|\n(--[a-z-]+) \|\n(\S+) \|", table, re.MULTILINE)
    assert len(rows) == 5
    shown = subprocess.run([relay_binary(), "run", "--help"], capture_output=True, text=True).stdout
    for variable, flag, default in rows:
        assert variable in shown and flag in shown, variable
        assert default == "(required)" or default in shown, default


@pytest.mark.parametrize("variable", ["{stream_table}", "{op}", "{outbox_id}", "{refresh_id}"])
def test_every_template_variable_of_the_table_renders(db, nats, relay, variable):
    assert variable in (SEEDS / "001/templates.md").read_text()
    db.execute("create table base (id bigint primary key);"
               "select pgtrickle.create_stream_table('orders', 'select id from base')")
    config = {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
              "nats_stream": "pgtrickle", "subject_template": f"pgtrickle.{variable}"}
    db.execute("select pgtrickle.set_relay_outbox('p', config => %s::jsonb)", (json.dumps(config),))
    db.execute("select pgtrickle.enable_relay('p')")
    with nats.client() as client:
        with relay:
            db.execute("insert into base values (1)")
            eventually(lambda: client.count("pgtrickle") == 1, 20, message=relay.log)
        message = client.messages("pgtrickle")[0]
    outbox = db.one("select outbox_table_name from pgtrickle.pgt_outbox_config")
    outbox_id, refresh_id = db.execute(f"select id, refresh_id from pgtrickle.{outbox}")[0]
    assert message.subject == "pgtrickle." + {
        "{stream_table}": "orders", "{op}": "insert", "{outbox_id}": str(outbox_id),
        "{refresh_id}": str(refresh_id)}[variable]


def test_the_example_of_a_rendered_subject(db, nats, relay):
    make_table(db)
    with nats.client() as client:
        config = {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                  "subject_template": "pgtrickle.{stream_table}.{op}"}
        db.execute("select pgtrickle.set_relay_outbox('p', config => %s::jsonb)",
                   (json.dumps(config),))
        db.execute("select pgtrickle.enable_relay('p')")
        with relay:
            insert_rows(db, "orders", 1)
            wait_settled(db, "p", "orders")
        assert client.messages("pgtrickle")[0].subject == "pgtrickle.orders.insert"
