"""Each broker killed with -9 under load, and away for a while: nothing lost, the order of each key
kept, nothing in the dead letters, nothing twice where the broker deduplicates, and messages flow
again soon after it is back, with the retry settings that a pipeline has when it names none.

LONG=1: away for 20 seconds, and several times for less."""

import json
import os
import random
import time

import pytest

import workload
from conformance.suite import BROKERS, SINKS, exemptions, start
from history import deliveries_of, judge, kept_on_failure
from support.pipelines import (LONG, SLOW_FACTOR, positions_gone_back, set_outbox, status_row,
                               wait_settled, watch_positions)
from support.relay import Relay
from support.waiting import eventually

SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
KILLS = int(os.environ.get("KILLS", "10" if LONG else "2"))
LONGEST = 20.0 if LONG else 2.0  # seconds that the broker is away
RECOVERY = 3.0 * SLOW_FACTOR  # seconds from its return to the next message in it
NAMES = sorted(name for name, broker in BROKERS.items()
               if broker.has_server and "broker_killed" not in exemptions(broker, SINKS))


@pytest.fixture(scope="module", params=NAMES)
def broker(request):
    running = start(request.param, SINKS)
    yield running
    running.close()


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_broker_killed_under_load_costs_nothing(db, broker, relay_bin):
    reason = exemptions(broker, SINKS).get("broker_killed")
    if reason:
        pytest.skip(f"not with this server: {reason}")
    chance = random.Random(SEED)
    workload.make_counters(db)
    watch_positions(db)
    broker.fresh()
    broker.prepare_durable()
    set_outbox(db, "p", {"stream_table": workload.TABLE, "message": "row", "sink": broker.sink()})
    recoveries = []
    with kept_on_failure(f"sinks-{broker.name}", SEED) as history:
        relay = Relay(db.relay_dsn).start()
        with workload.Writers(db.dsn, history, count=2, seed=SEED, pause=0.01) as writers:
            for number in range(KILLS):
                arrived = broker.count()
                eventually(lambda: broker.count() > arrived, 60 * SLOW_FACTOR, interval=0.05,
                           message=lambda: f"{status_row(db, 'p')}\n{relay.log(30)}")
                time.sleep(chance.expovariate(1 / 0.2))  # the moment is chance: that is the test
                broker.kill9()
                away = LONGEST if number == 0 else chance.uniform(0.2, LONGEST)
                history.note("nemesis", f"kill {number}", away=away)
                time.sleep(away)
                broker.start()
                recoveries.append(seconds_to_the_next_message(broker, db, relay))
        wait_settled(db, "p", workload.TABLE, deadline=120)
        final = workload.final_versions(db)
        eventually(lambda: len(broker.received()) == broker.count(), 300 * SLOW_FACTOR)
        deliveries = deliveries_of([json.loads(message.body) for message in broker.received()])
        if not broker.ordered:
            deliveries.sort()
        problems = judge(final, deliveries, 0 if broker.deduplicates else None)
        assert not problems, "\n".join(problems[:20])
        assert positions_gone_back(db) == []
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 0
        relay.wait_healthy(deadline=30)
        relay.stop()
        print(f"{broker.name}: {KILLS} kills, {writers.commits} commits, {len(deliveries)} deliveries"
              f" of {sum(final.values())} changes, seed {SEED}, recovered after"
              f" {', '.join(f'{seconds:.1f}' for seconds in recoveries)} s")
        assert max(recoveries) <= RECOVERY


def seconds_to_the_next_message(broker, db, relay):
    back = time.monotonic()
    arrived = broker.count()
    eventually(lambda: broker.count() > arrived, 60 * SLOW_FACTOR, interval=0.02,
               message=lambda: f"{status_row(db, 'p')}\n{relay.log(30)}")
    return time.monotonic() - back
