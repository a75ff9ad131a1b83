"""What /metrics and /health say, to people and to Prometheus."""

import json
import os
import shutil
import subprocess
import urllib.parse

import pytest

from support.fixtures import need
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, to_file,
                               to_nats, wait_settled)
from support.processes import Process, free_port
from support.relay import clean_environment, get, run_command
from support.waiting import eventually

# The four names that are public, with the one label that they carry.
PUBLIC = ["messages_delivered_total", "consumer_lag", "delivery_errors_total"]
HISTOGRAM = "delivery_duration_seconds"
OTHERS = ["messages_received_total", "bytes_total", "duplicates_total", "rejected_total",
          "dlq_messages", "retries_total", "pipeline_state", "owned", "position",
          "source_connected", "sink_connected"]


@pytest.fixture
def lines(db, relay, tmp_path):
    """A running relay with the pipeline `rows` from `orders` into a file."""
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    with relay:
        relay.wait_healthy(pipelines=1)
        yield lines


# Metrics -----------------------------------------------------------------------------------


def test_the_public_metrics_exist_at_zero_before_anything_was_delivered(relay, lines):
    eventually(lambda: relay.metric("consumer_lag", pipeline="rows") == 0)  # unknown before
    metrics = relay.metrics()
    for name in PUBLIC:
        assert metrics.find(f"pgtrickle_relay_{name}") == [({"pipeline": "rows"}, 0.0)]
    assert metrics.value(f"pgtrickle_relay_{HISTOGRAM}_count") == 0
    buckets = metrics.find(f"pgtrickle_relay_{HISTOGRAM}_bucket")
    assert all(set(labels) == {"pipeline", "le"} for labels, _ in buckets)
    assert "0.01" in [labels["le"] for labels, _ in buckets]
    assert 'pgtrickle_relay_delivery_duration_seconds_bucket{pipeline="rows",le="0.01"} 0' \
        in metrics.text


@pytest.mark.sanitizer
def test_metrics_count_what_was_delivered(db, relay, lines):
    insert_rows(db, "orders", 1, 5)
    db.execute("insert into orders select g, 'x', 1 from generate_series(10, 19) g")
    wait_settled(db, "rows", "orders")
    relay.wait_metric("messages_delivered_total", 6, pipeline="rows")
    relay.wait_metric("end_to_end_seconds_count", 6, pipeline="rows")
    relay.wait_metric("consumer_lag", 0, pipeline="rows")
    metrics = relay.metrics()
    assert metrics.value(f"pgtrickle_relay_{HISTOGRAM}_count", pipeline="rows") > 0
    assert 0 < metrics.value("pgtrickle_relay_end_to_end_seconds_sum", pipeline="rows") < 60
    size = os.path.getsize(lines.path)
    assert size * 0.5 < metrics.value("pgtrickle_relay_bytes_total", pipeline="rows") <= size * 1.5
    assert metrics.value("pgtrickle_relay_owned", pipeline="rows") == 1
    assert metrics.value("pgtrickle_relay_delivery_errors_total", pipeline="rows") == 0
    for name in OTHERS:
        assert metrics.find(f"pgtrickle_relay_{name}"), name
    assert metrics.find("pgtrickle_relay_build_info")
    assert metrics.find("pgtrickle_relay_pool_connections")


def test_errors_and_lag_are_counted_while_a_broker_is_away(db, relay, lines):
    set_outbox(db, "lost", {"stream_table": "orders", "subject_template": "x",
                            "sink": {"type": "nats", "url": f"nats://127.0.0.1:{free_port()}"}})
    insert_rows(db, "orders", 1, 7)
    eventually(lambda: (relay.metric("delivery_errors_total", pipeline="lost") or 0) > 0,
               20 * SLOW_FACTOR)
    eventually(lambda: relay.metric("consumer_lag", pipeline="lost") == 7)
    assert relay.metric("sink_connected", pipeline="lost") == 0
    assert relay.metric("delivery_errors_total", pipeline="rows") == 0


def test_a_deleted_pipeline_leaves_the_metrics(db, relay, lines):
    db.execute("select pgtrickle.delete_relay('rows')")
    eventually(lambda: not relay.metrics().find("pgtrickle_relay_owned", pipeline="rows"))


def test_promtool_finds_nothing_to_complain_about(db, relay, lines):
    need(shutil.which("promtool"), "promtool (prometheus)")
    insert_rows(db, "orders", 1, 3)
    wait_settled(db, "rows", "orders")
    checked = subprocess.run(["promtool", "check", "metrics"], input=relay.metrics().text,
                             capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_real_prometheus_scrapes_it(db, relay, lines, tmp_path):
    need(shutil.which("prometheus"), "prometheus")
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 500ms}\n"
                      "scrape_configs:\n"
                      "  - job_name: relay\n"
                      f"    static_configs: [{{targets: ['127.0.0.1:{relay.port}']}}]\n")
    insert_rows(db, "orders", 1, 4)
    with open(tmp_path / "prometheus.log", "wb") as log:
        prometheus = Process(["prometheus", f"--config.file={config}",
                              f"--storage.tsdb.path={tmp_path}/tsdb",
                              f"--web.listen-address=127.0.0.1:{port}"],
                             env=clean_environment(), stdout=log, stderr=log)

    def query(expression):
        status, text = get(port, "/api/v1/query?query=" + urllib.parse.quote(expression))
        assert status == 200, text
        return [(r["metric"], float(r["value"][1])) for r in json.loads(text)["data"]["result"]]

    try:
        delivered = eventually(
            lambda: [value for _, value in query(
                'pgtrickle_relay_messages_delivered_total{pipeline="rows"}') if value == 4], 45)
        assert delivered == [4]
        assert query('up{job="relay"}')[0][1] == 1
        assert query("histogram_quantile(0.5, sum by (le)"
                     " (pgtrickle_relay_delivery_duration_seconds_bucket))")
    finally:
        prometheus.kill9()


# Health ------------------------------------------------------------------------------------


def test_health_names_each_pipeline_with_state_owner_lag_and_progress(db, relay, lines):
    insert_rows(db, "orders", 1)
    lines.wait_rows([1])
    status, body = relay.health()
    assert status == 200 and body["status"] == "healthy"
    assert body["pipelines_owned"] == 1 and body["uptime_seconds"] >= 0
    (entry,) = body["pipelines"]
    assert {"name", "state", "owner", "lag", "last_progress_at", "last_error"} <= set(entry)
    assert entry["name"] == "rows" and entry["state"] in ("idle", "running")
    assert entry["last_progress_at"] and not entry["last_error"]
    eventually(lambda: relay.pipeline("rows")["lag"] == 0)


def test_live_and_ready_answer_separately(relay, lines):
    assert relay.get("/health/live")[0] == 200
    assert relay.get("/health/ready")[0] == 200
    assert relay.get("/nothing/here")[0] == 404
    assert relay.get("/health", method="DELETE")[0] in (404, 405)


def test_drained_says_202_while_something_waits_and_200_when_nothing_does(db, relay, lines):
    eventually(lambda: relay.get("/health/drained")[0] == 200)
    db.execute("select pgtrickle.pause_relay('rows')")
    relay.wait_state("rows", "paused")
    insert_rows(db, "orders", 1)
    eventually(lambda: relay.get("/health/drained")[0] == 202)
    db.execute("select pgtrickle.resume_relay('rows')")
    eventually(lambda: relay.get("/health/drained")[0] == 200)


def test_a_pipeline_that_has_work_and_makes_no_progress_is_not_healthy(db, nats, relay, lines):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(db, "stuck", to_nats("orders", nats, "relay.rows", sink={"ack_timeout": "1s"}))
    insert_rows(db, "orders", 1)
    wait_settled(db, "stuck", "orders")
    nats.freeze()
    insert_rows(db, "orders", 2)
    eventually(lambda: relay.health()[1]["status"] == "degraded", 40 * SLOW_FACTOR)
    nats.thaw()
    relay.wait_healthy(deadline=40)


def test_without_the_schema_it_stays_up_names_init_and_starts_by_itself_once_init_has_run(
        pg_server, empty_db, start_relay, tmp_path):
    # The role exists in the cluster; this database knows nothing of the relay yet.
    with start_relay(empty_db.relay_dsn) as relay:
        relay.wait_up()
        status, body = eventually(lambda: relay.health() if "init" in str(relay.health()[1])
                                  else None)
        assert status == 503 and body["status"] == "unhealthy"
        assert relay.get("/health/ready")[0] == 503
        eventually(lambda: "pgtrickle-relay init" in relay.log())
        assert run_command("init", "--postgres-url", empty_db.dsn).returncode == 0
        relay.wait_healthy(deadline=30)
        make_table(empty_db)
        lines = Lines(tmp_path / "out.jsonl")
        set_outbox(empty_db, "rows", to_file("orders", lines.path))
        insert_rows(empty_db, "orders", 1)
        lines.wait_rows([1])


def test_json_logs_are_json_with_time_level_pipeline_and_event(db, start_relay, tmp_path):
    make_table(db)
    set_outbox(db, "bad", to_file("orders", tmp_path / "x.jsonl", subject_template="{nonsense}"))
    with start_relay(db.relay_dsn, log_format="json") as relay:
        relay.wait_state("bad", "misconfigured")
        entries = [json.loads(line) for line in relay.log_lines]
    about = [entry for entry in entries if entry.get("pipeline") == "bad"]
    assert about and all("time" in entry and "level" in entry for entry in entries)
    assert any("event" in entry for entry in about)


def test_nothing_is_logged_per_message_at_info(db, relay, lines):
    insert_rows(db, "orders", 1, 20)
    wait_settled(db, "rows", "orders")
    before = len(relay.log_lines)
    insert_rows(db, "orders", 21, 300)
    wait_settled(db, "rows", "orders")
    assert len(relay.log_lines) - before < 10
