"""Adopted tables that take long to read leave other pipelines their share of the connections."""

import json
import time

import pytest
from support.adopted_outbox import EVENTS, adopt, pipe, write
from support.pipelines import SLOW_FACTOR
from support.relay import Relay
from support.waiting import eventually

POOL = 4
SLOW = 6
STEP = 3  # seconds that each step takes
LONGEST = 1.0 * SLOW_FACTOR


def slow_down(db, outbox, statement=f"perform pg_sleep({STEP})"):
    """Each step of reading the outbox runs the statement from now on."""
    reader = db.one("select reader from pgtrickle.pgt_outbox_config where stream_table_name = %s",
                    (outbox,))
    made = db.one("select pg_get_functiondef(p.oid) from pg_proc p where p.proname = %s", (reader,))
    slow = made.replace("\n  case action\n", f"\n  {statement};\n  case action\n")
    assert slow != made
    db.execute(slow)


def pipe_slow(db, tmp_path, name, statement):
    """A pipeline of an outbox with a row, whose steps run the statement."""
    db.execute(EVENTS)
    adopt(db, name=name)
    slow_down(db, name, statement)
    pipe(db, tmp_path / f"{name}.jsonl", name)
    write(db)


def causes(relay, pipeline=None):
    """Codes of causes with their errors: of a pipeline, or of the instance."""
    of = relay.pipeline(pipeline) if pipeline else relay.health()[1]
    return {cause["code"]: cause for cause in of.get("causes", [])}


@pytest.mark.alone
def test_slow_adopted_tables_delay_no_other_pipeline_and_are_named(
        db, relay_bin, tmp_path, record_property):
    db.execute(EVENTS)
    db.execute("select pgtrickle.create_outbox('plain')")
    slow = {}
    for number in range(SLOW):
        name = f"slow{number}"
        adopt(db, name=name, filter=json.dumps({"about": number + 1}))
        slow_down(db, name)
        slow[name] = pipe(db, tmp_path / f"{name}.jsonl", name)
    plain = pipe(db, tmp_path / "plain.jsonl", "plain")
    write(db, SLOW)
    with Relay(db.relay_dsn, pool_size=POOL) as relay:
        sessions = ("select count(*) from pg_stat_activity"
                    " where query like '%relay_adopted%' and state = 'active'"
                    " and application_name = 'pgtrickle-relay'")
        eventually(lambda: db.one(sessions) >= POOL // 2)
        longest, most, number = 0, 0, 0
        until = time.monotonic() + 4 * STEP
        while time.monotonic() < until:
            number += 1
            begun = time.monotonic()
            db.execute("select pgtrickle.publish('plain', '1')")
            plain.wait_ids(range(1, number + 1))
            longest = max(longest, time.monotonic() - begun)
            most = max(most, db.one(sessions))
        record_property("longest", round(longest, 3))
        assert longest < LONGEST
        assert most <= POOL // 2
        assert "slow_read" not in causes(relay, "plain")
        eventually(lambda: all("slow_read" in causes(relay, name) for name in slow), 60)
        assert "pg_stat_activity" in causes(relay, "slow0")["slow_read"]["remedy"]
        eventually(lambda: "adopted_reads_wait" in causes(relay), 60)
        for number, lines in enumerate(slow.values(), 1):
            lines.wait_ids([number], 60)


def test_an_adopted_table_is_read_with_a_pool_of_one_session(db, relay_bin, tmp_path):
    db.execute(EVENTS)
    adopt(db)
    db.execute("select pgtrickle.create_outbox('plain')")
    events = pipe(db, tmp_path / "events.jsonl")
    plain = pipe(db, tmp_path / "plain.jsonl", "plain")
    with Relay(db.relay_dsn, pool_size=1):
        for count in range(1, 4):
            write(db)
            db.execute("select pgtrickle.publish('plain', '1')")
            events.wait_ids(range(1, count + 1))
            plain.wait_ids(range(1, count + 1))


def test_code_that_ignores_that_it_is_cancelled_ends_with_its_session(db, relay_bin, tmp_path):
    pipe_slow(db, tmp_path, "stuck", "loop begin perform pg_sleep(1000); "
                                     "exception when query_canceled then null; end; end loop")
    sessions = "select count(*) from pg_stat_activity where application_name = 'pgtrickle-relay'"
    reading = (sessions + " and wait_event = 'PgSleep'"
               " and query_start < clock_timestamp() - interval '2 s'")
    with Relay(db.relay_dsn, pool_size=2):
        eventually(lambda: db.one(reading) > 0, 30)
    eventually(lambda: db.one(sessions) == 0, 30)


def test_an_error_message_of_any_length_costs_little(db, relay_bin, tmp_path):
    pipe_slow(db, tmp_path, "loud",
              "raise exception using message = repeat('m', 20000000), "
              "detail = repeat('d', 20000000), hint = repeat('é', 10000000)")
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: relay.pipeline("loud")["last_error"], 30)
        assert len(relay.pipeline("loud")["last_error"]) < 10000
        assert len(relay.pipeline("loud")["remedy"]) < 5000
        eventually(lambda: db.one("select max(length(last_error)) from pgtrickle.relay_pipeline_status"))
        assert db.one("select max(length(last_error)) from pgtrickle.relay_pipeline_status") < 10000
