"""postgres-stream: how much memory and how much of the log it takes, and how long others wait."""

import json
import threading
import time

import pytest
from support.pipelines import LONG, SLOW_FACTOR
from support.stream_program import (StreamProgram, configure, end_database,  # noqa: F401
                                    insert, make_server, stream_home, stream_program_server,
                                    subscribe_orders, wait_running)
from support.waiting import eventually, holds_for

pytestmark = pytest.mark.alone  # it measures

MEBIBYTE = 1 << 20
MILLION = 1_000_000


def lines_of(path):
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def median_wait(program, before=None):
    """(events, seconds): how many events were delivered since, and the bound below which half of
    their waits were, as /metrics shows them."""
    counts = {}
    for labels, value in program.metrics().find("postgres_stream_end_to_end_seconds_bucket"):
        counts[float(labels["le"])] = value
    if before is None:
        return counts
    news = {bound: value - before.get(bound, 0) for bound, value in counts.items()}
    whole = news[max(news)]
    return whole, min(bound for bound, value in news.items() if value >= whole / 2)


@pytest.mark.timeout(600)
def test_a_transaction_of_a_million_events(stream_home, tmp_path, record_property):  # noqa: F811
    """In little memory; what is committed behind it comes when it has passed, and /metrics shows how
    long that took."""
    out = tmp_path / "out.jsonl"
    configure(tmp_path, stream_home, {"type": "file", "path": str(out)})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home)
        program.wait_metric("messages_delivered_total", 1, pipeline="stream-1")
        before = median_wait(program)
        stream_home.execute("begin; insert into orders (note) select 'x' from generate_series(1, %s);"
                            "set constraints all immediate" % MILLION)
        committed = time.monotonic()
        stream_home.execute("commit")
        # One of the others: its event waits until the large transaction has passed.
        stream_home.execute("insert into orders (note) values ('behind')")
        eventually(lambda: lines_of(out) == MILLION + 2, 180 * SLOW_FACTOR, interval=0.5,
                   message=program._story)
        waited = time.monotonic() - committed
        with open(out, "rb") as file:
            file.seek(-2000, 2)
            assert json.loads(file.read().splitlines()[-1])["new"]["note"] == "behind"
        program.wait_metric("messages_delivered_total", MILLION + 2, pipeline="stream-1")
        events, median = median_wait(program, before)
        peak = program.peak_kib()
        report = (f"{MILLION} events in one transaction: the next one waited {waited:.1f} s, half of all "
                  f"less than {median:.0f} s by the metric; {peak / 1024:.0f} MiB of memory at most")
        print(report)
        record_property("report", report)
        assert events == MILLION + 1
        assert peak < 64 * 1024
        # It is over: the next event does not wait.
        before = median_wait(program)
        insert(stream_home)
        program.wait_metric("messages_delivered_total", MILLION + 3, pipeline="stream-1")
        assert median_wait(program, before)[1] <= 1 * SLOW_FACTOR


MEGABYTES_A_SECOND = 4
SECONDS = 600 if LONG else 60


class OtherWriter(threading.Thread):
    """Writes log that is none of the stream's, at a rate."""

    def __init__(self, database):
        super().__init__(daemon=True)
        self._database, self._end, self.written = database, threading.Event(), 0

    def run(self):
        with self._database.connect() as session:
            began = time.monotonic()
            while not self._end.is_set():
                session.execute("select pg_logical_emit_message(false, 'other', repeat('x', 400000))")
                self.written += 400000
                ahead = self.written / (MEGABYTES_A_SECOND * 1e6) - (time.monotonic() - began)
                self._end.wait(max(0, ahead))

    def end(self):
        self._end.set()
        self.join()


@pytest.mark.timeout(SECONDS + 240)
def test_an_idle_stream_holds_little_log(stream_home, tmp_path, record_property):  # noqa: F811
    """Beside a database that writes 4 MB/s: the server keeps the log of 30 s for the slot at most."""
    configure(tmp_path, stream_home, {"type": "memory"})
    other = stream_home.server.create_database(template="template0")
    kept = []
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home)
        program.wait_metric("memory_messages", 1, pipeline="stream-1")
        writer = OtherWriter(other)
        writer.start()

        def sample():
            kept.append(stream_home.one(
                "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint "
                "from pg_replication_slots where slot_name = 'pgstream_1'"))
            return kept[-1] < 30 * MEGABYTES_A_SECOND * 1e6
        holds_for(sample, SECONDS, interval=0.5)
        writer.end()
        # The writer did write, and the slot did move, over and over.
        assert writer.written > 0.8 * SECONDS * MEGABYTES_A_SECOND * 1e6
        assert max(kept) < writer.written / 1.5
        report = (f"{SECONDS} s idle beside {writer.written / SECONDS / 1e6:.1f} MB/s: "
                  f"{max(kept) / 1e6:.0f} MB of log held at most")
        print(report)
        record_property("report", report)
        insert(stream_home)
        program.wait_metric("memory_messages", 2, pipeline="stream-1")
    other.drop()
