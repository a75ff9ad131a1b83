"""rate_limit, headers and key_template with every broker that is here."""

import json
import time

import pytest

from conformance.suite import BROKERS, SINKS, start
from support.pipelines import SLOW_FACTOR, insert_rows, make_table, set_outbox, wait_settled
from support.waiting import eventually

NAMES = sorted(BROKERS)
WITH_HEADERS = [name for name in NAMES if BROKERS[name].has_headers]
WITH_KEYS = [name for name in NAMES if BROKERS[name].has_key]
RATE = 20


def each(names):
    """A test with `broker` as each of these."""
    return pytest.mark.parametrize("broker", [pytest.param(name, marks=pytest.mark.xdist_group(name))
                                              for name in names], indirect=True, scope="module")


@pytest.fixture(scope="module")
def broker(request):
    running = start(request.param, SINKS)
    yield running
    running.close()


@pytest.fixture
def orders(db, broker):
    make_table(db)
    broker.fresh()


def pipeline(broker, **options):
    return {"stream_table": "orders", "sink": broker.sink(), "message": "row", **options}


def wait_count(broker, count):
    eventually(lambda: broker.count() >= count, 30 * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{broker.count()} of {count}; {broker.log()[-1000:]}")
    found = broker.received()
    assert len(found) == count
    return found


def headers_of(message):
    return {name.lower(): text for name, text in message.headers.items()}


@each(NAMES)
def test_a_rate_limit_is_kept(db, broker, orders, relay):
    set_outbox(db, "p", pipeline(broker, rate_limit=RATE))
    db.execute("insert into orders select i, 'x', i from generate_series(1, 1000) i")
    with relay:
        eventually(lambda: broker.count() > 0, 20 * SLOW_FACTOR)
        begin, before = time.monotonic(), broker.count()
        eventually(lambda: broker.count() >= before + 3 * RATE, 30 * SLOW_FACTOR, interval=0.05)
        took, arrived = time.monotonic() - begin, broker.count() - before
        # A second's worth may come at once; then it is the rate.
        assert arrived / took < 2 * RATE
        db.execute("select pgtrickle.disable_relay('p')")


@each(NAMES)
def test_a_rate_limit_that_is_lifted_lets_all_through_in_order(db, broker, orders, relay):
    set_outbox(db, "p", pipeline(broker, rate_limit=5, key_template="one"))
    with relay:
        insert_rows(db, "orders", 1, 200)
        eventually(lambda: broker.count() > 0, 20 * SLOW_FACTOR)
        set_outbox(db, "p", pipeline(broker, key_template="one"))
        wait_settled(db, "p", "orders")
        found = wait_count(broker, 200)
    if broker.ordered:
        assert [json.loads(message.body)["new"]["id"] for message in found] == [*range(1, 201)]


@each(WITH_HEADERS)
def test_headers_are_rendered_for_each_row(db, broker, orders, relay):
    set_outbox(db, "p", pipeline(broker, headers={
        "fixed": "shop", "from-column": "order {{ id }}", "nothing": "{{ name }}",
        "all": "{stream_table}/{op}"}))
    with relay:
        db.execute("insert into orders values (1, null, 1), (2, 'b', 2)")
        found = wait_count(broker, 2)
    by_row = {json.loads(message.body)["new"]["id"]: headers_of(message) for message in found}
    for row, name in ((1, "_null"), (2, "b")):
        got = {header: by_row[row].get(header)
               for header in ("fixed", "from-column", "nothing", "all")}
        assert got == {"fixed": "shop", "from-column": f"order {row}", "nothing": name,
                       "all": "orders/insert"}


@each(WITH_HEADERS)
def test_headers_of_an_event_go_along_and_those_of_the_configuration_go_first(db, broker, orders,
                                                                              relay):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", pipeline(broker, stream_table="events", headers={"tenant": "configured"}))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with relay:
        db.execute("select pgtrickle.publish('events', '{}', event_type => 'paid', key => 'k',"
                   " headers => %s::jsonb)", (json.dumps(
                       {"traceparent": trace, "tenant": "theirs", "count": 3, "absent": None,
                        "pgtrickle-id": "forged"}),))
        message, = wait_count(broker, 1)
    got = headers_of(message)
    assert got["traceparent"] == trace
    assert got["tenant"] == "configured"
    assert got["count"] == "3"
    assert "absent" not in got
    assert message.id != "forged" and got["pgtrickle-id"] == message.id


@each(WITH_HEADERS)
def test_a_full_refresh_is_told_in_a_header(db, broker, orders, relay):
    set_outbox(db, "p", pipeline(broker))
    with relay:
        insert_rows(db, "orders", 1)
        db.execute("truncate orders")
        found = wait_count(broker, 2)
    told = {headers_of(message)["pgtrickle-op"]: headers_of(message).get("pgtrickle-full-refresh")
            for message in found}
    assert told == {"insert": None, "refresh": "true"}


@each(WITH_KEYS)
def test_the_key_is_that_of_the_row_or_of_the_template(db, broker, orders, relay):
    set_outbox(db, "p", pipeline(broker))
    with relay:
        db.execute("insert into orders values (1, 'a', 10)")
        wait_count(broker, 1)
        set_outbox(db, "p", pipeline(broker, key_template="{{ name }}-{stream_table}"))
        wait_settled(db, "p", "orders")

        def templated():
            db.execute("update orders set amount = amount + 1")
            return broker.received()[-1].key == "a-orders"
        eventually(templated, 30 * SLOW_FACTOR, interval=0.2)
    assert broker.received()[0].key == "1"


@each(NAMES)
def test_rows_of_one_key_keep_their_order_whatever_the_key_is_made_of(db, broker, orders, relay):
    if not broker.ordered:
        pytest.skip(f"{broker.name} has no order to look at")
    set_outbox(db, "p", pipeline(broker, key_template="{{ name }}", batch_size=7))
    with relay:
        for turn in range(40):
            db.execute("insert into orders select %s * 5 + i, 'key ' || i, %s"
                       " from generate_series(1, 5) i", (turn, turn))
        found = wait_count(broker, 200)
    rows = [json.loads(message.body)["new"] for message in found]
    for key in range(1, 6):
        turns = [row["amount"] for row in rows if row["name"] == f"key {key}"]
        assert turns == [*range(40)]
