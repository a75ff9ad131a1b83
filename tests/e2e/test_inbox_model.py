"""Each distinct message is stored once or is in the dead letters, and is acknowledged only then: by
chance, against a model.

Messages from NATS, Redis and webhooks, with equal ids on purpose, go through the real relay into
tables of every shape (support/inbox_shapes.py), while the relay is killed, sessions are ended,
tables are locked, altered and purged, and the database restarts.

A failure prints its seed and what was found. SEED=n runs one round again, ROUNDS=n so many from
there; LONG=1 runs long rounds with more tables; SHAPES=a,b takes these tables only; SOURCES=nats
these brokers; STEPS=n so many steps a round; WITHOUT=conflicts,alter leaves these out.
"""

import os
import random
import shutil

import pytest

from support.fixtures import need
from support.inbox_model import InboxModel, shapes_for
from support.pipelines import LONG
from support.redis_server import RedisServer

TABLES, STEPS, ROUNDS = (14, 60, 40) if LONG else (8, 20, 1)
FIRST_SEED = int(os.environ.get("SEED", "2"))


def _chosen(name):
    return list(filter(None, os.environ.get(name, "").split(",")))


@pytest.fixture
def redis_server():
    need(shutil.which("redis-server"), "redis-server")
    server = RedisServer(durable=False).start()
    yield server
    server.stop()


@pytest.mark.timeout(14400 if LONG or "ROUNDS" in os.environ else 300)
def test_each_distinct_message_is_stored_once_or_is_a_dead_letter(own_pg_server, nats,
                                                                  redis_server, relay_bin):
    brokers = {"nats": nats, "redis": redis_server}
    rounds = int(os.environ.get("ROUNDS", "1" if "SEED" in os.environ else ROUNDS))
    found, figures = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + rounds):
        shapes = shapes_for(random.Random(seed), _chosen("SHAPES"), TABLES)
        model = InboxModel(own_pg_server, brokers, seed, shapes,
                           int(os.environ.get("STEPS", STEPS)), _chosen("SOURCES"),
                           _chosen("WITHOUT"))
        try:
            faults = model.go()
        finally:
            figures.append(model.figures)
            model.close()
        print(f"SEED={seed}: {dict(model.figures)}", flush=True)
        if faults.found:
            found.append(f"SEED={seed}: {' '.join(model._log)}\n{faults}")
            print(found[-1], flush=True)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
