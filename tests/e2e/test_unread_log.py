"""A relay whose standard error is a pipe that is not read goes on delivering."""

import fcntl
import os
import signal
import threading

import pytest

from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file
from support.processes import Process, free_port
from support.relay import clean_environment, get, relay_binary
from support.waiting import eventually


@pytest.fixture
def unread(db, relay_bin):
    """A relay at its noisiest, and the pipe that its log goes to."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    port = free_port()
    process = Process([relay_binary(), "--postgres-url", db.relay_dsn, "--log-level", "debug",
                       "--metrics-addr", f"127.0.0.1:{port}"],
                      env=clean_environment(), stderr=writing)
    os.close(writing)
    yield process, reading, port
    process.kill9()
    os.close(reading)


def test_a_log_that_is_not_read_stops_no_pipeline_and_says_what_is_missing(db, unread, tmp_path):
    process, reading, port = unread
    make_table(db)
    pipelines = {name: Lines(tmp_path / f"{name}.jsonl") for name in ("a", "b", "c")}
    for name, lines in pipelines.items():
        set_outbox(db, name, to_file("orders", lines.path))
    for row in range(1, 6):
        insert_rows(db, "orders", row)
        for lines in pipelines.values():
            lines.wait_rows(range(1, row + 1))
    # Each change is a line at least, and each longer than the last: more than is kept of a log.
    for number in range(60):
        set_outbox(db, f"wrong{number}", {"stream_table": "orders", "sink": {
            "type": "file", "path": f"/no/such/folder/{number}/" + "x" * 30000}})
    eventually(lambda: b"wrong59" in get(port, "/health")[1].encode(), 60)
    insert_rows(db, "orders", 6)
    for lines in pipelines.values():
        lines.wait_rows(range(1, 7))
    text = read_on(reading)
    eventually(lambda: b"lines of this log were dropped" in b"".join(text), 60,
               message=lambda: b"".join(text)[-2000:])
    process.signal(signal.SIGTERM)
    assert process.wait(40) == 0


def read_on(reading):
    text = []
    source = os.dup(reading)

    def run():
        while data := os.read(source, 65536):
            text.append(data)
        os.close(source)
    threading.Thread(target=run, daemon=True).start()
    return text
