"""Probes are answered whatever the database, other clients and other endpoints do."""

import contextlib
import fcntl
import json
import os
import resource
import socket
import subprocess
import time

import pytest

from support.http_attack import Attack
from support.pipelines import SLOW_FACTOR, insert_rows, make_table, set_outbox, to_file
from support.processes import Process, free_port
from support.relay import Relay, get
from support.waiting import eventually

LIVE = "/health/live"
PROBES = [LIVE, "/health", "/health/ready", "/metrics"]
CLIENTS = [("idle", 5000, LIVE), ("used-idle", 600, LIVE), ("slow", 600, LIVE),
           ("slow-body", 256, "/api/dlq"), ("deaf", 300, "/metrics"), ("pipelining", 256, LIVE),
           ("pipelining", 256, "/metrics"), ("storm", 2000, LIVE), ("asking", 100, "/api/dlq"),
           ("asking", 100, "/api/pipelines/rows")]

pytestmark = pytest.mark.alone  # it measures


def exchange(port, path, pause=0.0):
    """(answer, seconds) of one request on a connection of its own; it is sent `pause` seconds after
    that was opened."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        time.sleep(pause)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer, f"{path}: the connection ended without an answer"
    return answer, time.monotonic() - start


def probe(port, path, pause=0.0):
    """(status, seconds)"""
    answer, took = exchange(port, path, pause)
    return int(answer.split()[1]), took


def answers_at_once(port, statuses=(200,), paths=PROBES, times=25, pause=0.0):
    """Each path is answered, and within 100 ms but for a few times that the machine was busy."""
    for path in paths:
        answers = [probe(port, path, pause) for _ in range(times)]
        allowed = (200,) if path in (LIVE, "/metrics") else statuses
        assert {status for status, _ in answers} <= set(allowed), (path, answers)
        seconds = sorted(took for _, took in answers)
        assert seconds[-1 - max(1, times // 10)] < 0.1 * SLOW_FACTOR, (path, seconds)
        assert seconds[-1] < 1 * SLOW_FACTOR, (path, seconds)


@pytest.fixture
def rows(db, tmp_path):
    make_table(db)
    set_outbox(db, "rows", to_file("orders", tmp_path / "rows.jsonl"))


@pytest.fixture
def relay(relay, rows):
    with relay:
        relay.wait_healthy(pipelines=1)
        yield relay


@pytest.mark.parametrize("kind, connections, path", CLIENTS, ids=lambda value: str(value))
def test_probes_are_answered_whatever_other_clients_do(relay, kind, connections, path):
    memory = relay.resident_kib()
    with Attack(kind, relay.port, connections, path):
        answers_at_once(relay.port)
        assert relay.resident_kib() - memory < 64 * 1024
    assert relay.get("/api/dlq")[0] == 200
    eventually(lambda: relay.health()[0] == 200)


@contextlib.contextmanager
def frozen(server):
    """A PostgreSQL server that stands still with all its backends."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def test_probes_are_answered_while_the_database_is_frozen_and_many_ask_for_its_data(
        own_pg_server, own_db, relay_bin, tmp_path):
    make_table(own_db)
    for number in range(10):
        set_outbox(own_db, f"rows{number}", to_file("orders", tmp_path / f"{number}.jsonl"))
    with Relay(own_db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=10)
        insert_rows(own_db, "orders", 1, 1000)
        with frozen(own_pg_server), Attack("asking", relay.port, 100, "/api/dlq"):
            end = time.monotonic() + 20 * SLOW_FACTOR
            while probe(relay.port, "/health")[0] == 200 and time.monotonic() < end:
                answers_at_once(relay.port, (200, 503), times=5)
            answers_at_once(relay.port, (503,))
            answer, took = exchange(relay.port, "/api/dlq")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503") and b"\r\nRetry-After: " in head
            assert json.loads(body)["error"] and took < 6 * SLOW_FACTOR
        relay.wait_healthy(pipelines=10, deadline=30)


def test_clients_without_the_token_keep_no_operator_from_changing_something(
        db, relay_bin, rows):
    with Relay(db.relay_dsn, admin_token="t0ken") as relay:
        relay.wait_healthy(pipelines=1)
        with Attack("asking", relay.port, 200, "/api/dlq?limit=1000"):
            for _ in range(5):
                status, text = relay.get("/api/pipelines/rows/pause", method="POST",
                                         headers={"Authorization": "Bearer t0ken"})
                assert status == 200, text


def test_probes_are_answered_while_the_process_has_no_descriptor_left(relay):
    highest = max(int(name) for name in os.listdir(f"/proc/{relay.pid}/fd"))
    before = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
    # No number below the limit is free but those that others give back.
    resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    with Attack("idle", relay.port, 100):
        answers_at_once(relay.port, (200, 503))
        answers_at_once(relay.port, (200, 503), pause=0.002)  # a prober on a busy machine
    resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, before)
    relay.wait_healthy(pipelines=1)


def test_an_unread_log_holds_up_neither_health_nor_the_control_thread(
        db, relay_bin, rows):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    port = free_port()
    process = Process([relay_bin, "--postgres-url", db.relay_dsn, "--metrics-addr",
                       f"127.0.0.1:{port}"], stderr=writing, stdout=subprocess.DEVNULL)
    os.close(writing)
    try:
        eventually(lambda: get(port, "/health")[0] == 200, 15)
        # Each of them is logged, and the pipe holds few lines.
        for number in range(100):
            set_outbox(db, f"more{number}", to_file("orders", f"/nowhere/{number}"))
        answers_at_once(port, (200, 503))
        eventually(lambda: len(json.loads(get(port, "/health")[1])["pipelines"]) > 100, 15)
    finally:
        process.kill9()
        os.close(reading)
