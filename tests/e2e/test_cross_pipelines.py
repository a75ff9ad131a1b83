"""Any source feeds any sink: set_relay() from one broker to another."""

import json

import pytest

from conformance.suite import BROKERS, SINKS, SOURCES, built, has_side, start
from support.pipelines import SLOW_FACTOR, make_table, status_row
from support.waiting import eventually

# Each source once and each sink once, no two of them next to each other by kind.
PAIRS = [("kafka", "webhook"), ("nats", "redis"), ("redis", "rabbitmq"), ("rabbitmq", "sqs"),
         ("sqs", "kafka"), ("webhook", "nats"), ("file", "nats"), ("nats", "file"),
         ("rabbitmq", "kafka"), ("redis", "nats")]


@pytest.fixture(scope="module")
def brokers():
    """name -> a running broker, started when first asked for."""
    running = {}

    def get(name, side):
        if name not in BROKERS:
            pytest.skip(f"no tests of {name} here")
        if not has_side(BROKERS[name], side):
            pytest.skip(f"the tests of {name} have no {side}")
        have = built(side) or ()
        wanted = name if side == SINKS else BROKERS[name].source_name or name
        if wanted not in have:
            pytest.skip(f"the relay is built without the {side} {wanted}")
        if name not in running:
            running[name] = start(name, side)
        return running[name]
    yield get
    for broker in running.values():
        broker.close()


def set_bridge(db, name, source, sink, **options):
    db.execute("select pgtrickle.set_relay(%s, config => %s::jsonb)", (name, json.dumps(
        {"source": source, "sink": sink, "retry": {"min": "50ms", "max": "1s"}, **options})))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


@pytest.mark.parametrize("source,sink", PAIRS, ids=["-to-".join(pair) for pair in PAIRS])
def test_messages_pass_from_one_broker_to_another(db, brokers, relay, source, sink):
    origin, target = brokers(source, SOURCES).fresh(), brokers(sink, SINKS).fresh()
    set_bridge(db, "bridge", origin.source(), target.sink())
    sent = [(f"e{n}", f"k{n % 3}", "order.paid", json.dumps({"n": n, "t": "ü"}).encode())
            for n in range(300)]
    with relay:
        origin.publish(sent[:100])
        eventually(lambda: target.count() >= 100, 40 * SLOW_FACTOR, interval=0.1,
                   message=lambda: f"{target.count()}; {status_row(db, 'bridge')}")
        relay.kill9()
        origin.publish(sent[100:200])
        relay.start()
        origin.publish(sent[200:])
        bodies = eventually(lambda: all_there(target, 300), 60 * SLOW_FACTOR, interval=0.1,
                            message=lambda: f"{target.count()}; {status_row(db, 'bridge')}")
    assert {body["n"] for body in bodies} == set(range(300))
    assert all(body == {"n": body["n"], "t": "ü"} for body in bodies)
    if target.has_headers or target.deduplicates:
        assert {message.id for message in target.received()} == {m[0] for m in sent}
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def all_there(target, count):
    found = [json.loads(message.body) for message in target.received()]
    bodies = [body.get("payload", body) for body in found]
    return bodies if len({body["n"] for body in bodies}) >= count else None


def test_one_source_feeds_two_pipelines_of_different_sinks_at_once(db, brokers, relay):
    make_table(db)
    names = [name for name in ("nats", "kafka", "redis", "rabbitmq", "webhook", "sqs", "file")
             if name in BROKERS and name in (built(SINKS) or ())]
    targets = {name: brokers(name, SINKS).fresh() for name in names}
    for name, target in targets.items():
        db.execute("select pgtrickle.set_relay_outbox(%s, config => %s::jsonb)", (name, json.dumps(
            {"stream_table": "orders", "message": "row", "sink": target.sink()})))
        db.execute("select pgtrickle.enable_relay(%s)", (name,))
    with relay:
        db.execute("insert into orders select i, 'x', i from generate_series(1, 500) i")
        for name, target in targets.items():
            eventually(lambda: target.count() >= 500, 60 * SLOW_FACTOR, interval=0.1,
                       message=lambda: f"{name}: {target.count()}; {status_row(db, name)}")
            assert {json.loads(m.body)["new"]["id"] for m in target.received()} \
                == set(range(1, 501))
        relay.wait_healthy(pipelines=len(names))
