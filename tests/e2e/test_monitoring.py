"""The alert rules and the dashboard that are shipped, against a real Prometheus and a real relay."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest

from support.fixtures import need
from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from support.postgres import REPOSITORY
from support.processes import Process, free_port
from support.relay import clean_environment, get
from support.waiting import eventually

FOLDER = os.path.join(REPOSITORY, "packaging", "monitoring")
RULES = os.path.join(FOLDER, "alerts.yml")
DASHBOARD = os.path.join(FOLDER, "dashboard.json")
# What a browser fills in; the interval is what Grafana makes of a scrape interval of half a second.
VARIABLES = {"$__rate_interval": "10s", "$job": ".*", "$pipeline": ".*"}


def panels():
    with open(DASHBOARD) as file:
        return json.load(file)["panels"]


def dashboard_expressions():
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]


def filled(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


class Prometheus:
    """A server that scrapes one relay and evaluates the shipped rules."""

    def __init__(self, folder, relay_port):
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text("global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
                          f"rule_files: ['{RULES}']\n"
                          "scrape_configs:\n"
                          "  - job_name: pgtrickle-relay\n"
                          f"    static_configs: [{{targets: ['127.0.0.1:{relay_port}']}}]\n")
        with open(folder / "prometheus.log", "wb") as log:
            self.process = Process(["prometheus", f"--config.file={config}",
                                    f"--storage.tsdb.path={folder}/tsdb",
                                    f"--web.listen-address=127.0.0.1:{self.port}"],
                                   env=clean_environment(), stdout=log, stderr=log)

    def _get(self, path):
        status, text = get(self.port, path)
        assert status == 200, text
        return json.loads(text)["data"]

    def query(self, expression):
        """The samples that answer an expression; Prometheus's own error where it is not valid."""
        path = "/api/v1/query?query=" + urllib.parse.quote(expression)
        return [(sample["metric"], float(sample["value"][1])) for sample in self._get(path)["result"]]

    def rules(self):
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def alerts(self):
        """Name and pipeline of what is pending or fires."""
        return {(alert["labels"]["alertname"], alert["labels"].get("pipeline"))
                for alert in self._get("/api/v1/alerts")["alerts"]}


@pytest.fixture
def prometheus(relay, tmp_path):
    need(shutil.which("prometheus"), "prometheus")
    server = Prometheus(tmp_path, relay.port)
    yield server
    server.process.kill9()


def test_the_rules_report_what_they_should_and_nothing_else():
    need(shutil.which("promtool"), "promtool (prometheus)")
    for arguments in (["check", "rules", RULES],
                      ["test", "rules", os.path.join(FOLDER, "alerts_test.yml")]):
        ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_described_where_its_runbook_says():
    with open(RULES) as file:
        links = re.findall(r"runbook: (\S+)#(\S+)", file.read())
    with open(os.path.join(REPOSITORY, "docs", "monitoring.md")) as file:
        headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").strip().lower()).replace(" ", "-")
                    for line in file if line.startswith("#")}
    assert len(links) > 15
    assert {(page, link) for page, link in links if page != "docs/monitoring.md"
            or link not in headings} == set()


def test_prometheus_answers_every_expression_of_the_dashboard_and_evaluates_every_rule(
        db, relay, prometheus, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    expressions = dashboard_expressions()
    assert len(expressions) > 20
    with relay:
        relay.wait_healthy(pipelines=1)
        inserted = 0

        def unanswered():
            # Rates need what is delivered while Prometheus looks.
            nonlocal inserted
            inserted += 1
            insert_rows(db, "orders", inserted)
            return [(title, expression) for title, expression in expressions
                    if not prometheus.query(filled(expression))]

        eventually(lambda: not unanswered(), 60, interval=0.5, message=lambda: unanswered())
        wait_settled(db, "rows", "orders")
        outbox = prometheus.query('pgtrickle_relay_owned{pipeline="rows"}')
        assert [value for _, value in outbox] == [1]
        # A quotient of two rates could be NaN and still be an answer.
        records = filled(dict(expressions)["Records in a batch"])
        eventually(lambda: all(value == value for _, value in prometheus.query(records)), 60, interval=0.5)
        rules = eventually(lambda: [r for r in prometheus.rules() if r["lastEvaluation"] > "2000"], 30)
        assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
        assert prometheus.alerts() == set()


def test_a_pipeline_in_trouble_raises_its_alert_and_no_other_pipelines(db, relay, prometheus, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "good", to_file("orders", lines.path))
    set_outbox(db, "away", {"stream_table": "orders", "subject_template": "x",
                            "sink": {"type": "nats", "url": f"nats://127.0.0.1:{free_port()}"}})
    with relay:
        insert_rows(db, "orders", 1, 4)
        eventually(lambda: ("RelayPipelineRetrying", "away") in prometheus.alerts(), 60)
        wait_settled(db, "good", "orders")
        assert {pipeline for _, pipeline in prometheus.alerts()} == {"away"}
    # The relay has ended.
    eventually(lambda: ("RelayAllDown", None) in prometheus.alerts(), 60)


@pytest.fixture
def exposed(tmp_path):
    """Serves the text of a file as /metrics: (port, file)."""
    page = tmp_path / "metrics"
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietFiles, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, page
    server.shutdown()
    server.server_close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_lag_that_is_not_known_is_found_at_the_owner_only(exposed, tmp_path):
    """A relay shows NaN while the source does not tell, and promtool cannot be given that."""
    need(shutil.which("prometheus"), "prometheus")
    port, page = exposed
    page.write_text("".join(f'pgtrickle_relay_consumer_lag{{pipeline="{name}"}} {lag}\n'
                            f'pgtrickle_relay_owned{{pipeline="{name}"}} {owned}\n'
                            for name, lag, owned in [("unknown", "NaN", 1), ("none", 0, 1),
                                                     ("elsewhere", "NaN", 0)]))
    prometheus = Prometheus(tmp_path, port)
    try:
        eventually(lambda: prometheus.query('pgtrickle_relay_owned{pipeline="elsewhere"}'), 45)
        eventually(lambda: ("RelayLagUnknown", "unknown") in prometheus.alerts(), 30)
        assert {pipeline for name, pipeline in prometheus.alerts() if name == "RelayLagUnknown"} \
            == {"unknown"}
    finally:
        prometheus.process.kill9()
