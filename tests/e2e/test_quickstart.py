"""`quickstart`, for a user who has nothing but the program."""

import json
import os
import re
import signal
import subprocess

import pytest

from support.quickstart import Quickstart, folder, reachable_tmp  # noqa: F401
from support.relay import get, run_command
from support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("relay_bin"), pytest.mark.timeout(180)]


def test_it_shows_live_deltas_sums_up_and_leaves_nothing_behind(folder):  # noqa: F811
    quickstart = Quickstart(folder, "--rate", 50)
    quickstart.wait_messages(4)
    quickstart.process.signal(signal.SIGINT)
    assert quickstart.process.wait(30) == 0
    for message in quickstart.messages():
        assert message["stream_table"] == "revenue_by_region"
        rows = message["delta"]["inserted"] + message["delta"]["deleted"]
        assert rows and all({"region", "day", "revenue", "order_count"} <= set(row)
                            for row in rows)
    summary = re.search(r"(\d+) orders written .*?, (\d+) deltas delivered .*?(\d+) errors",
                        quickstart.said, re.DOTALL)
    assert summary, quickstart.said
    orders, deltas, errors = map(int, summary.groups())
    assert orders > 0 and deltas == len(quickstart.messages()) and errors == 0
    assert re.search(r"half within [\d.]+ m?s, 99 of 100 within [\d.]+ m?s", quickstart.said)
    quickstart.assert_nothing_is_left()


def test_it_shows_where_to_look_around_and_that_is_true(folder):  # noqa: F811
    quickstart = Quickstart(folder)
    quickstart.wait_messages()
    url = re.search(r"psql (postgresql://\S+)", quickstart.said).group(1)
    port = int(re.search(r"http://127.0.0.1:(\d+)/health", quickstart.said).group(1))
    rows = subprocess.run(["psql", url, "-Atc", "select count(*) > 0 from orders"],
                          capture_output=True, text=True)
    assert rows.stdout.strip() == "t", rows.stderr
    assert json.loads(get(port, "/health")[1])["status"] == "healthy"
    assert 'pipeline="revenue-to-screen"' in get(port, "/metrics")[1]
    quickstart.process.signal(signal.SIGTERM)
    assert quickstart.process.wait(30) == 0
    quickstart.assert_nothing_is_left()


def test_it_ends_by_itself_after_its_duration_and_runs_a_second_time(folder):  # noqa: F811
    for _ in range(2):
        done = run_command("quickstart", "--duration", 2, timeout=120,
                           env={"TMPDIR": str(folder)})
        assert done.returncode == 0, done.stderr
        assert "deltas delivered" in done.stderr
    assert os.listdir(folder) == []


def test_two_run_side_by_side(folder):  # noqa: F811
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    both = Quickstart(folder / "one"), Quickstart(folder / "two")
    for quickstart in both:
        quickstart.wait_messages()
    for quickstart in both:
        quickstart.process.signal(signal.SIGINT)
        assert quickstart.process.wait(30) == 0
        quickstart.assert_nothing_is_left()


def test_interrupted_while_it_still_starts_it_leaves_nothing_behind(folder):  # noqa: F811
    quickstart = Quickstart(folder)
    eventually(lambda: os.listdir(quickstart.temporary), 30, interval=0.001)
    quickstart.process.signal(signal.SIGINT)
    assert quickstart.process.wait(60) in (0, 130)
    quickstart.assert_nothing_is_left()


def test_the_data_goes_to_the_directory_that_is_named_and_never_over_something(folder):  # noqa: F811
    taken = folder / "taken"
    taken.mkdir()
    (taken / "precious").write_text("keep")
    refused = run_command("quickstart", "--directory", taken, "--duration", 1, timeout=60)
    assert refused.returncode == 1 and str(taken) in refused.stderr
    assert (taken / "precious").read_text() == "keep"
    done = run_command("quickstart", "--directory", folder / "new", "--duration", 1, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (folder / "new").exists()
