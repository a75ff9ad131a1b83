"""`postgres-stream quickstart`, for a user who has nothing but the program."""

import json
import re
import signal
import subprocess

import pytest

from support.quickstart import Quickstart, folder, reachable_tmp  # noqa: F401
from support.relay import get
from support.stream_program import run, stream_binary
from support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("relay_bin"), pytest.mark.timeout(180)]


def start(folder, *arguments):  # noqa: F811
    return Quickstart(folder, *arguments, program=stream_binary())


def ids(quickstart):
    return [event["new"]["id"] for event in quickstart.messages()]


def verified(url):
    """The users that have verified their address, in order."""
    rows = subprocess.run(["psql", url, "-Atc",
                           "select id from users where email_verified order by id"],
                          capture_output=True, text=True, check=True)
    return [int(line) for line in rows.stdout.split()]


def test_it_shows_the_events_of_the_manual_through_an_outage_and_leaves_nothing(folder):  # noqa: F811
    quickstart = start(folder, "--rate", 20, "--outage", 3)
    quickstart.wait_messages(4)
    url = re.search(r"psql (postgresql://\S+)", quickstart.said).group(1)
    port = int(re.search(r"http://127.0.0.1:(\d+)/health", quickstart.said).group(1))
    assert json.loads(get(port, "/health")[1])["status"] == "healthy"
    eventually(lambda: "the sink is down" in quickstart.said, 30)
    shown = set(ids(quickstart))
    missed = eventually(lambda: set(verified(url)) - shown, 10)
    eventually(lambda: 'failover_active{pipeline="stream-1"} 1' in get(port, "/metrics")[1], 10)
    eventually(lambda: "the sink is up again" in quickstart.said, 10)
    eventually(lambda: missed <= set(ids(quickstart)), 20, message=lambda: quickstart.said)
    quickstart.process.signal(signal.SIGINT)
    assert quickstart.process.wait(30) == 0
    assert ids(quickstart) == sorted(set(ids(quickstart)))
    for event in quickstart.messages():
        assert (event["tg_name"], event["tg_op"], event["tg_table_name"], event["old"]) == (
            "user-signup", "INSERT", "users", None)
        assert set(event["new"]) == {"id", "email", "created_at"}
    assert f"{len(ids(quickstart))} events delivered" in quickstart.said
    quickstart.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_still_starts_it_leaves_nothing_behind(folder, number):  # noqa: F811
    quickstart = start(folder)
    eventually(lambda: list(quickstart.temporary.iterdir()), 30, interval=0.001)
    quickstart.process.signal(number)
    assert quickstart.process.wait(60) in (0, 128 + number, -number)
    quickstart.assert_nothing_is_left()


def test_it_ends_by_itself_and_asks_for_no_configuration(folder):  # noqa: F811
    done = run(folder, "quickstart", "--duration", "2", "--directory", str(folder / "new"),
               timeout=120)
    assert done.returncode == 0 and "events delivered" in done.stderr, done
    assert list(folder.iterdir()) == []
    refused = run(folder, "quickstart", "--rate", "0")
    assert refused.returncode == 2 and "from 1 to 100000" in refused.stderr
