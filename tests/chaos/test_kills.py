"""kill -9 of the relay at random moments under load: nothing lost, and nothing twice where the
broker deduplicates."""

import os
import random
import time

import pytest

import workload
from history import assert_kept, kept_on_failure
from support.pipelines import (LONG, SLOW_FACTOR, Lines, positions_gone_back, set_outbox, to_file,
                               to_nats, wait_settled, watch_positions)
from support.relay import Relay
from support.waiting import eventually

KILLS = int(os.environ.get("KILLS", "50" if LONG else "10"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


@pytest.mark.timeout(900)
def test_kill_9_at_random_moments_loses_nothing_and_duplicates_nothing_in_nats(
        db, nats, relay_bin, tmp_path):
    chance = random.Random(SEED)
    workload.make_counters(db)
    watch_positions(db)
    lines = Lines(tmp_path / "out.jsonl")
    with nats.client() as client:
        client.create_stream("chaos", "relay.>", duplicate_window=600)
    set_outbox(db, "nats-delta", to_nats(workload.TABLE, nats, "relay.delta"))
    set_outbox(db, "nats-row", to_nats(workload.TABLE, nats, "relay.row.{op}", message="row"))
    set_outbox(db, "file", to_file(workload.TABLE, lines.path, message="row"))

    with kept_on_failure("kills", SEED) as history:
        relay = Relay(db.relay_dsn)
        with workload.Writers(db.dsn, history, seed=SEED) as writers:
            for number in range(KILLS):
                delivered = len(lines.messages())
                relay.start()
                if chance.random() < 0.8:  # mostly in full work, sometimes already while starting
                    eventually(lambda: len(lines.messages()) > delivered, 20 * SLOW_FACTOR,
                               interval=0.01, message=relay.log)
                time.sleep(chance.expovariate(1 / 0.2))  # the moment is chance: that is the test
                relay.kill9()
                history.note("nemesis", f"kill {number}")
        with relay:
            for pipeline in ("nats-delta", "nats-row", "file"):
                wait_settled(db, pipeline, workload.TABLE, deadline=60)
        final = workload.final_versions(db)
        assert sum(final.values()) > 50 * KILLS, "hardly any load"
        assert positions_gone_back(db) == []
        with nats.client() as client:
            for subject in ("relay.delta", "relay.row.>"):
                assert_kept(final, [m.json for m in client.messages("chaos", subject)],
                            duplicates_allowed=0)
        assert_kept(final, lines.messages(), duplicates_allowed=None)
        print(f"{KILLS} kills, {writers.commits} commits, {sum(final.values())} changes,"
              f" seed {SEED}")
