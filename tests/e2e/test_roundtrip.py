"""Out of PostgreSQL, through a broker, and back: each row in the inbox exactly once.

LONG=1 sends 100,000 messages and kills everything in turn; the short form fewer, and so does a server
that is slow with its messages on disk."""

import json

import pytest

from conformance.suite import BROKERS, SINKS, SOURCES, built, exemptions, has_side, start
from support.pipelines import LONG, SLOW_FACTOR, make_table, set_outbox, status_row
from support.relay import Relay
from support.waiting import eventually

ROWS = 100_000 if LONG else 6_000
NAMES = [name for name in sorted(BROKERS)
         if has_side(BROKERS[name], SOURCES) and BROKERS[name].reads_back]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name))
                                        for name in NAMES])
def broker(request):
    if request.param not in (built(SOURCES) or ()):
        pytest.skip(f"the relay is built without the source {request.param}")
    running = start(request.param, SINKS)
    yield running
    running.close()


def set_inbox(db, name, source, inbox="back"):
    db.execute("select pgtrickle.create_inbox(%s)", (inbox,))
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb)", (name, json.dumps(
        {"source": source, "sink": {"type": "inbox", "inbox_name": inbox},
         "retry": {"min": "50ms", "max": "1s"}})))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


def make_round_trip(db, broker):
    make_table(db)
    set_outbox(db, "out", {"stream_table": "orders", "message": "row", "sink": broker.sink(),
                           "key_template": "{{ amount }}", "retry": {"min": "50ms", "max": "1s"}})
    set_inbox(db, "in", broker.source(**broker.round_trip))


def insert(db, first, count):
    db.execute("insert into orders select i, 'row ' || i, i %% 7"
               " from generate_series(%s::int, %s::int) i", (first, first + count - 1))


def arrived(db):
    return db.one("select count(*) from pgtrickle.inbox_back")


def wait_all(db, rows, deadline):
    """Each row, once; under the id with which it left, so that nothing can be in there twice."""
    eventually(lambda: arrived(db) >= rows, deadline * SLOW_FACTOR, interval=0.2,
               message=lambda: f"{arrived(db)} of {rows}; {status_row(db, 'out')}; "
                               f"{status_row(db, 'in')}")
    assert db.execute("select (payload -> 'new' ->> 'id')::int as n, count(*)"
                      " from pgtrickle.inbox_back group by n having count(*) > 1") == []
    assert db.one("select count(distinct (payload -> 'new' ->> 'id')::int)"
                  " from pgtrickle.inbox_back") == rows
    assert db.execute("select i from generate_series(1, %s) i except"
                      " select (payload -> 'new' ->> 'id')::int from pgtrickle.inbox_back",
                      (rows,)) == []
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def test_each_row_comes_back_exactly_once_with_the_id_with_which_it_left(db, broker, relay):
    make_round_trip(db, broker.fresh())
    with relay:
        insert(db, 1, 300)
        wait_all(db, 300, 60)
        db.execute("update orders set name = name || '!' where id = 1")
        eventually(lambda: arrived(db) == 301, 20 * SLOW_FACTOR)
    ids = [row[0] for row in db.execute("select event_id from pgtrickle.inbox_back")]
    assert all(identity.startswith("out:") for identity in ids)
    mistaken = db.execute("select event_id, payload -> 'metadata' ->> 'id' from"
                          " pgtrickle.inbox_back where event_id <> payload -> 'metadata' ->> 'id'")
    assert mistaken == []


@pytest.mark.timeout(1800)
def test_everything_is_killed_in_turn_and_each_row_comes_back_once(own_pg_server, own_db, broker,
                                                                   relay_bin):
    broker.fresh()
    broker.prepare_durable()
    make_round_trip(own_db, broker)
    relay = Relay(own_db.relay_dsn).start()
    step = ROWS // (30 if broker.slow_on_disk else 6)
    killable = broker.has_server and "broker_killed" not in {**exemptions(broker, SINKS),
                                                             **exemptions(broker, SOURCES)}
    for turn in range(6):
        insert(own_db, turn * step + 1, step)
        goal = turn * step + step // 2
        eventually(lambda: arrived(own_db) > goal, 300 * SLOW_FACTOR, interval=0.05,
                   message=lambda: f"{arrived(own_db)} of more than {goal}; "
                                   f"{status_row(own_db, 'in')}; {relay.log(30)}")
        victim = turn % 3
        if victim == 0:
            relay.kill9()
            relay.start()
        elif victim == 1 and killable:
            broker.kill9()
            broker.start()
        else:
            own_pg_server.restart("kill9")
    wait_all(own_db, step * 6, 600 if LONG else 120)
    relay.wait_healthy(deadline=30)
    relay.stop()
