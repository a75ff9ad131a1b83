"""The sinks stdout and file, by the real binary."""

import csv
import glob
import gzip
import io
import json
import os
import re
import subprocess
import threading

import pytest

from support.pipelines import SLOW_FACTOR, Lines, insert_rows, set_outbox, to_file, wait_settled
from support.processes import temporary_directory
from support.waiting import eventually, holds_for
from support.writers import bulk, wait_trouble


def to_stdout(**sink):
    return {"stream_table": "orders", "sink": {"type": "stdout", **sink}}


class SlowReader:
    """Standard output of a relay as a pipe that is read only when asked."""

    def __init__(self):
        self._read, self.write = os.pipe()

    def started(self):
        """To be called once the relay has the other end."""
        os.close(self.write)
        return io.BufferedReader(io.FileIO(self._read))


# Formats -----------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_json_lines_hold_each_body_byte_for_byte(db, relay, tmp_path):
    db.execute("select pgtrickle.create_outbox('events')")
    path = tmp_path / "events.jsonl"
    set_outbox(db, "p", to_file("events", path))
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 3_000_000})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == len(texts))
    stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
    assert path.read_bytes().split(b"\n") == [*stored, b""]


def test_csv_is_read_by_any_csv_reader(db, relay, orders, tmp_path):
    path = tmp_path / "orders.csv"
    set_outbox(db, "p", {**to_file("orders", path, message="row"),
                         "sink": {"type": "file", "path": str(path), "format": "csv"}})
    with relay:
        db.execute("insert into orders values (1, 'comma, \"quote\"\nline', 1)")
        db.execute("delete from orders")
        eventually(lambda: path.exists() and path.read_text().count('""op""') == 2)
    with open(path, newline="") as source:
        inserted, deleted = list(csv.DictReader(source))
    assert list(inserted) == ["id", "subject", "key", "op", "created_at", "body"]
    assert (inserted["op"], deleted["op"]) == ("insert", "delete")
    assert inserted["subject"] == "orders"
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", inserted["id"])
    body = json.loads(inserted["body"])
    assert body["new"]["name"] == 'comma, "quote"\nline'
    assert inserted["created_at"] == body["timestamp"]


def test_pretty_json_is_indented_and_the_same(db, relay, orders, tmp_path):
    path = tmp_path / "orders.json"
    set_outbox(db, "p", {"stream_table": "orders", "sink": {
        "type": "file", "path": str(path), "format": "json_pretty"}})
    with relay:
        insert_rows(db, "orders", 1, 2)
        eventually(lambda: path.exists() and path.read_text().count("\n}\n") == 2)
    text = path.read_text()
    decoder, at, messages = json.JSONDecoder(), 0, []
    while at < len(text):
        message, at = decoder.raw_decode(text, at)
        messages.append(message)
        at += 1
    assert [m["delta"]["inserted"][0]["id"] for m in messages] == [1, 2]
    assert '\n  "stream_table": "orders",\n' in text


# Delivery ----------------------------------------------------------------------------------


def test_a_stop_under_load_and_a_restart_neither_lose_nor_repeat(db, relay, orders, tmp_path):
    lines = Lines(tmp_path / "orders.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, batch_size=20))
    stop = threading.Event()
    committed = []

    def write():
        with db.connect() as connection:
            while not stop.is_set():
                connection.execute("insert into orders values (%s, 'w', 0)", (len(committed) + 1,))
                committed.append(True)

    writer = threading.Thread(target=write, daemon=True)
    relay.start()
    writer.start()
    for level in (200, 400):
        eventually(lambda: len(committed) >= level, 30 * SLOW_FACTOR)
        relay.restart()
    stop.set()
    writer.join(10)
    lines.wait_rows(range(1, len(committed) + 1), deadline=30)
    relay.stop()


@pytest.mark.parametrize("form, torn", [
    ("jsonl", '{"stream_table":"orders","seq'),
    ("json_pretty", '{\n  "stream_table": "orders",\n  "delta": {\n'),
    ("csv", 'p:1-aa:0,orders,orders,insert,,"{""delta"":\n""x'),
])
def test_what_a_crash_tore_is_cut_off(db, relay, orders, tmp_path, form, torn):
    path = tmp_path / "orders"
    set_outbox(db, "p", {"stream_table": "orders", "sink": {
        "type": "file", "path": str(path), "format": form}})
    with relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "p", "orders")
    whole = path.read_text()
    path.write_text(whole + torn)
    with relay:
        insert_rows(db, "orders", 2)
        wait_settled(db, "p", "orders")
    text = path.read_text()
    assert text.startswith(whole) and len(text) > len(whole)
    assert text.count("stream_table") == 2, "the torn message is still there"
    assert text.count("row 1") == 1 and text.count("row 2") == 1


@pytest.fixture
def small_disk():
    """A file system of 300 KiB."""
    directory = temporary_directory("small-disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", directory],
                          capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk_is_waited_for_and_nothing_is_lost_torn_or_repeated(db, relay, orders,
                                                                        small_disk):
    lines = Lines(os.path.join(small_disk, "orders.jsonl"))
    ballast = os.path.join(small_disk, "ballast")
    with open(ballast, "wb") as full:
        full.write(b"x" * 150_000)
    set_outbox(db, "p", to_file("orders", lines.path))
    with relay:
        for first in range(1, 41):
            bulk(db, first, 1, size=5_000)
        wait_trouble(relay, db, "p", "(?i)no space left", remedy="make room")
        assert relay.pipeline("p")["state"] == "retrying"
        arrived = lines.rows()
        assert arrived == list(range(1, len(arrived) + 1)) and len(arrived) < 40
        assert lines.torn == 0
        os.unlink(ballast)
        lines.wait_rows(range(1, 41), deadline=60)
        assert lines.torn == 0
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def test_files_are_rotated_and_compressed_and_hold_each_row_once(db, relay, orders, tmp_path):
    path = tmp_path / "orders.jsonl"
    set_outbox(db, "p", {"stream_table": "orders", "message": "row", "sink": {
        "type": "file", "path": str(path), "rotate_bytes": "20KiB", "compress_rotated": True}})
    with relay:
        bulk(db, 1, 500, size=100)
        wait_settled(db, "p", "orders")
    rotated = sorted(glob.glob(f"{path}.*"))
    assert len(rotated) > 5
    assert all(re.search(r"\.jsonl\.\d{8}T\d{6}\.\d{3}Z\.gz$", name) for name in rotated)
    texts = [gzip.open(name).read() for name in rotated] + [path.read_bytes()]
    assert all(0 < len(text) <= 20 * 1024 for text in texts)
    rows = [json.loads(line)["new"]["id"] for text in texts for line in text.splitlines()]
    assert rows == list(range(1, 501))


def test_a_file_that_is_moved_away_is_followed(db, relay, orders, tmp_path):
    path = tmp_path / "orders.jsonl"
    set_outbox(db, "p", to_file("orders", path))
    with relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "p", "orders")
        path.rename(tmp_path / "moved")
        insert_rows(db, "orders", 2)
        wait_settled(db, "p", "orders")
    assert Lines(tmp_path / "moved").rows() == [1]
    assert Lines(path).rows() == [2]


def test_a_changed_path_takes_effect_while_rows_flow(db, relay, orders, tmp_path):
    before, after = Lines(tmp_path / "before"), Lines(tmp_path / "after")
    set_outbox(db, "p", to_file("orders", before.path))
    with relay:
        insert_rows(db, "orders", 1, 20)
        before.wait_rows(range(1, 21))
        set_outbox(db, "p", to_file("orders", after.path))
        insert_rows(db, "orders", 21, 200)
        wait_settled(db, "p", "orders")
    assert before.rows() + after.rows() == list(range(1, 221))
    assert after.rows()


# Trouble -----------------------------------------------------------------------------------


def test_two_pipelines_never_write_into_one_file(db, relay, orders, tmp_path):
    lines = Lines(tmp_path / "orders.jsonl")
    set_outbox(db, "first", to_file("orders", lines.path))
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        set_outbox(db, "second", to_file("orders", lines.path))
        wait_trouble(relay, db, "second", "another writer")
        insert_rows(db, "orders", 2)
        lines.wait_rows([1, 2])


def test_a_path_that_cannot_be_written_is_named_and_the_others_run(db, relay, orders, tmp_path):
    good = Lines(tmp_path / "good.jsonl")
    set_outbox(db, "absent", to_file("orders", tmp_path / "absent" / "x"))
    set_outbox(db, "directory", to_file("orders", tmp_path))
    set_outbox(db, "good", to_file("orders", good.path))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "absent", "absent/x")
        wait_trouble(relay, db, "directory", re.escape(str(tmp_path)))
        for name in ("absent", "directory"):
            assert relay.pipeline(name)["state"] == "misconfigured"
        good.wait_rows([1])


def test_standard_output_holds_messages_and_nothing_else(db, relay, orders):
    set_outbox(db, "p", to_stdout())
    with relay:
        insert_rows(db, "orders", 1, 50)
        eventually(lambda: len(relay.stdout_lines) == 50)
    assert [json.loads(line)["delta"]["inserted"][0]["id"] for line in relay.stdout_lines] == \
        list(range(1, 51))


def test_standard_output_redirected_into_a_file_is_synced_there(db, start_relay, orders, tmp_path):
    set_outbox(db, "p", to_stdout())
    path = tmp_path / "out"
    with open(path, "wb") as out, start_relay(db.relay_dsn, stdout=out):
        insert_rows(db, "orders", 1, 5)
        Lines(path).wait_rows(range(1, 6))


def test_a_slow_reader_of_standard_output_costs_no_memory_and_no_message(db, start_relay, orders):
    set_outbox(db, "p", {**to_stdout(), "message": "row", "batch_bytes": "1MiB"})
    pipe = SlowReader()
    with start_relay(db.relay_dsn, stdout=pipe.write) as relay:
        reader = pipe.started()
        insert_rows(db, "orders", 1)
        assert json.loads(reader.readline())["new"]["id"] == 1
        before = relay.resident_kib()
        for first in range(2, 60_000, 2_000):  # about 30 MB
            bulk(db, first, 2_000, size=300)
        eventually(lambda: relay.pipeline("p")["lag"])
        holds_for(lambda: relay.peak_kib() - before < 25_000, 1.0, 0.1)
        rows = [json.loads(reader.readline())["new"]["id"] for _ in range(60_000)]
        assert rows == list(range(2, 60_002))


def test_a_reader_of_standard_output_that_is_gone_is_told_and_harms_no_other_pipeline(
        db, start_relay, orders, tmp_path):
    good = Lines(tmp_path / "good.jsonl")
    set_outbox(db, "p", to_stdout())
    set_outbox(db, "good", to_file("orders", good.path))
    pipe = SlowReader()
    with start_relay(db.relay_dsn, stdout=pipe.write) as relay:
        reader = pipe.started()
        insert_rows(db, "orders", 1)
        assert json.loads(reader.readline())
        reader.close()
        insert_rows(db, "orders", 2)
        wait_trouble(relay, db, "p", "standard output is gone")
        assert relay.pipeline("p")["state"] == "misconfigured"
        good.wait_rows([1, 2])


def test_a_stop_does_not_wait_for_a_reader_that_does_not_read(db, start_relay, orders):
    set_outbox(db, "p", {**to_stdout(), "message": "row"})
    pipe = SlowReader()
    relay = start_relay(db.relay_dsn, stdout=pipe.write, drain_timeout="2s")
    reader = pipe.started()
    bulk(db, 1, 5_000, size=300)
    eventually(lambda: relay.pipeline("p")["state"] == "running")
    relay.stop(deadline=15)
    reader.close()
