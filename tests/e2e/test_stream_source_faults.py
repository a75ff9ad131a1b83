"""The source `stream` under kills of the daemon and of PostgreSQL and outages of the sink, while
transactions cross."""

import os
import random

import pytest
from support.stream_source import CrossingWriters, scene  # noqa: F401
from support.waiting import eventually, holds_for

SEEDS = [int(seed) for seed in os.environ.get("STREAM_SEEDS", "1,2").split(",")]
FAULTS = int(os.environ.get("STREAM_FAULTS", "12"))


def run(scene, seed, **options):  # noqa: F811
    """Delivers through faults; returns what was committed, in order."""
    chance = random.Random(seed)
    relay = scene.relay(**options).start()
    # What is committed before there is a slot is read by rounds, in the order of each row only.
    scene.insert()
    scene.wait_delivered(1, relay)
    with CrossingWriters(scene.database, seed) as writers:
        for _ in range(FAULTS):
            holds_for(lambda: True, chance.random() * 2)
            fault = chance.choice(["down", "slow", "up", "kill", "kill server", "none"])
            if fault == "down":
                scene.sink.rules({"status": 503})
            elif fault == "slow":
                scene.sink.rules({"delay": 0.01})
            elif fault == "up":
                scene.sink.rules()
            elif fault == "kill":
                relay.kill9()
                relay.start()
            elif fault == "kill server":
                scene.server.kill9()
                scene.server.start()
    writers.commit_prepared()
    scene.sink.rules()
    committed = scene.committed()
    scene.wait_delivered(len(committed), relay, 120)
    relay.stop()
    return committed


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_missing_and_first_deliveries_are_in_commit_order(scene, seed):  # noqa: F811
    committed = run(scene, seed)
    assert scene.first_deliveries() == committed


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_missing_without_replication(scene, seed):  # noqa: F811
    committed = run(scene, seed, reader="table")
    assert sorted(scene.first_deliveries()) == sorted(committed)


def test_a_log_that_the_server_cannot_decode_is_passed(scene):  # noqa: F811
    """An error in decoding comes again at the same place, even when its cause is mended."""
    with scene.relay() as relay:
        scene.wait_slot()
        scene.insert()
        scene.wait_delivered(1, relay)
        alter = "alter publication pgstream_1 set table pgstream.events where (stream_id = 1{})"
        scene.database.execute(alter.format(" and 1 / (stream_id - 1) = 0"))
        scene.insert()
        eventually(lambda: "division by zero" in relay.log(), 120, message=lambda: relay.log(20))
        scene.database.execute(alter.format(""))
        scene.insert()
        scene.wait_delivered(3, relay, 60)
        assert "could not decode" in relay.pipeline("stream")["source_report"]["note"]
    assert scene.first_deliveries() == [1, 2, 3]
