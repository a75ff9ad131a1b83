"""What arrives is what was written, and the application notices nothing: by chance, against a model.

The same statements run in a database with outboxes and in one without. Each must have the same
result in both; and a consumer that applies the outboxes by key must arrive at the tables, with
every deleted row being, to the letter, one that was inserted before.

A failure prints its seed and the fewest operations found that lead to it, for which it searches
SHRINK=seconds. SEED=n runs one round again, ROUNDS=n more of them, LONG=1 runs 10,000 statements,
FEATURES=a,b only some parts (support/model_statements.py).
"""

import os
from collections import Counter

import pytest

from support.model_run import Run
from support.model_statements import FEATURES
from support.pipelines import LONG
from support.postgres import RELAY_ROLE

ROUNDS, OPERATIONS = (52, 240) if LONG else (3, 90)
FIRST_SEED = int(os.environ.get("SEED", "1"))
SHRINK_SECONDS = int(os.environ.get("SHRINK", "600" if LONG else "60"))


@pytest.mark.timeout(7200 if LONG else 300)
def test_a_consumer_of_the_outboxes_has_the_tables_and_statements_do_not_notice(pg_server):
    features = set(filter(None, os.environ.get("FEATURES", "").split(","))) or FEATURES
    rounds = int(os.environ.get("ROUNDS", "1" if "SEED" in os.environ else ROUNDS))
    figures = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + rounds):
        run = Run(pg_server, RELAY_ROLE, seed, OPERATIONS, features)
        fault = run.go()
        figures.update(run.figures)
        if fault is not None:
            fewest = run.shrink(fault, SHRINK_SECONDS)
            pytest.fail(f"SEED={seed}: {run.last_fault}\n" + "\n".join(map(repr, fewest)),
                        pytrace=False)
    statements = sum(figures[kind] for kind in ("sql", "copy", "race"))
    print(f"{rounds} rounds, {statements} statements of applications: {dict(figures)}")
    assert statements > rounds * OPERATIONS / 2 and figures["tables compared"] > rounds
