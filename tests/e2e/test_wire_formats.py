"""The formats `debezium` and `cloudevents`, as they arrive, judged by what their documents say."""

import base64
import csv
import json
import re
from datetime import datetime
from decimal import Decimal

import pytest

from conformance.suite import BROKERS, SINKS, start
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, set_outbox, to_file, to_nats,
                               wait_settled)
from support.waiting import eventually

DIGITS = "1234567890123456789012345678901234567890.12345678901234567890"


@pytest.fixture
def stream(nats):
    """A stream `s` over relay.>, and a client for it."""
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        yield client


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


def wait_lines(lines, count):
    return eventually(lambda: lines.messages() if len(lines.messages()) >= count else None,
                      20 * SLOW_FACTOR, message=lambda: lines.messages())


# Debezium: https://debezium.io/documentation/reference/stable/connectors/postgresql.html --------


def check_debezium(event):
    """What a consumer of Debezium's change events (JSON without schemas) relies on."""
    assert set(event) >= {"before", "after", "source", "op", "ts_ms"}
    assert event["op"] in ("c", "u", "d", "r", "t")
    before, after = event["before"] is not None, event["after"] is not None
    assert (before, after) == {"c": (False, True), "u": (True, True), "d": (True, False),
                               "r": (False, True), "t": (False, False)}[event["op"]]
    assert isinstance(event["ts_ms"], int)
    source = event["source"]
    for name in ("version", "connector", "name", "db", "schema", "table", "snapshot", "sequence"):
        assert isinstance(source[name], str) and source[name], name
    assert isinstance(source["ts_ms"], int)
    assert source["snapshot"] == ("true" if event["op"] in "rt" else "false")
    assert all(isinstance(part, str) for part in json.loads(source["sequence"]))
    return event


@pytest.mark.sanitizer
def test_debezium_tells_what_happened_to_each_row(db, relay, orders, lines):
    set_outbox(db, "feed", to_file("orders", lines.path, wire_format="debezium"))
    with relay:
        db.execute("insert into orders values (1, 'a', 1), (2, 'b', 2)")
        db.execute("update orders set amount = amount + 1")
        db.execute("delete from orders where id = 1")
        db.execute("update orders set id = 3 where id = 2")
        db.execute("truncate orders")
        found = wait_lines(lines, 8)
    events = [check_debezium(event) for event in found]
    one, two = {"id": 1, "name": "a", "amount": 1}, {"id": 2, "name": "b", "amount": 2}
    told = [(event["op"], event["before"], event["after"]) for event in events]
    more, two_more = {**one, "amount": 2}, {**two, "amount": 3}
    assert told == [("c", None, one), ("c", None, two),
                    ("u", one, more), ("u", two, two_more),
                    ("d", more, None),
                    ("d", two_more, None), ("c", None, {**two_more, "id": 3}),
                    ("t", None, None)]
    for event in events:
        assert event["source"]["name"] == "feed" and event["source"]["connector"] == "pgtrickle"
        assert (event["source"]["db"], event["source"]["schema"], event["source"]["table"]) \
            == (db.name, "public", "orders")
        assert abs(event["ts_ms"] / 1000 - datetime.now().timestamp()) < 120
    order = [tuple(map(int, json.loads(event["source"]["sequence"]))) for event in events]
    assert order == sorted(order)
    assert len({event["source"]["id"] for event in events}) == len(events)


def test_debezium_reads_the_rows_of_a_full_refresh(db, relay, lines):
    db.execute("create table t (id int primary key, v int)")
    db.execute("insert into t select i, i from generate_series(1, 3) i")
    db.execute("select pgtrickle.create_stream_table('snapshot', 'select id, v from t',"
               " refresh_mode => 'FULL')")
    db.execute("select pgtrickle.enable_outbox('snapshot')")
    set_outbox(db, "feed", to_file("snapshot", lines.path, wire_format="debezium"))
    with relay:
        db.execute("select pgtrickle.refresh_stream_table('snapshot')")
        found = wait_lines(lines, 3)
    assert [(check_debezium(event)["op"], event["after"]["id"]) for event in found[:3]] \
        == [("r", 1), ("r", 2), ("r", 3)]


def test_numbers_of_any_precision_and_all_texts_are_those_of_the_table(db, relay, orders, lines):
    text = 'ü 𝄞 \u2028 \\ " \n \t / '
    for number, wire_format in enumerate(("debezium", "cloudevents")):
        set_outbox(db, wire_format, to_file("orders", f"{lines.path}{number}", message="row",
                                            wire_format=wire_format))
    with relay:
        db.execute("insert into orders values (1, %s, %s)", (text, Decimal(DIGITS)))
        raw = [eventually(lambda: open(f"{lines.path}{number}").read(), 20 * SLOW_FACTOR)
               for number in range(2)]
    for line in raw:
        assert f'"amount": {DIGITS}' in line
    assert json.loads(raw[0])["after"]["name"] == text
    assert json.loads(raw[1])["data"]["new"]["name"] == text


def test_debezium_keys_are_objects_of_the_key_columns(db, relay, tmp_path):
    db.execute("create table places (country text, city text, people int,"
               " primary key (country, city))")
    db.execute("select pgtrickle.enable_outbox('places')")
    path = tmp_path / "places.csv"
    set_outbox(db, "feed", to_file("places", path, wire_format="debezium",
                                   sink={"type": "file", "path": str(path), "format": "csv"}))
    with relay:
        db.execute("insert into places values ('fr', 'Saint-\"É\"', 1)")
        eventually(lambda: path.exists() and path.read_text().count("\n") == 2)
    with open(path, newline="") as source:
        line, = csv.DictReader(source)
    assert json.loads(line["key"]) == {"country": "fr", "city": 'Saint-"É"'}
    assert check_debezium(json.loads(line["body"]))["op"] == "c"


def test_an_applications_events_pass_through_debezium_unchanged(db, relay, nats, stream):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "feed", to_nats("events", nats, "relay.x", wire_format="debezium"))
    with relay:
        db.execute("select pgtrickle.publish('events', '{\"a\": 1.00}', event_type => 'paid')")
        eventually(lambda: stream.count("s") == 1)
    assert stream.messages("s")[0].data == b'{"a": 1.00}'


def test_tombstones_are_refused_where_the_sink_has_no_messages_without_a_body(
        db, relay, orders, nats, lines):
    set_outbox(db, "nats", to_nats("orders", nats, wire_format="debezium", tombstones=True))
    set_outbox(db, "file", to_file("orders", lines.path, wire_format="debezium", tombstones=True))
    with relay:
        for name in ("nats", "file"):
            entry = relay.wait_state(name, "misconfigured")
            assert "without a body" in entry["last_error"]


# CloudEvents 1.0: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md -----------


ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
URI_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;.*)?")


def check_attributes(attributes):
    """The rules for context attributes: names, types, what is required."""
    for name, value in attributes.items():
        assert ATTRIBUTE.fullmatch(name), name
        assert isinstance(value, (str, int, bool)), name
        if isinstance(value, str):
            assert value, f"{name} is empty"
            assert not re.search("[\0-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]", value), name
    assert attributes["specversion"] == "1.0"
    assert attributes["id"] and attributes["type"]
    assert URI_REFERENCE.fullmatch(attributes["source"])
    if "time" in attributes:
        assert RFC3339.fullmatch(attributes["time"])
        datetime.fromisoformat(attributes["time"].replace("Z", "+00:00"))
    if "datacontenttype" in attributes:
        assert MEDIA_TYPE.fullmatch(attributes["datacontenttype"])
    return attributes


def check_structured(text):
    """An event in the JSON event format; its parsed object."""
    event = json.loads(text, object_pairs_hook=no_name_twice)
    assert not ("data" in event and "data_base64" in event)
    check_attributes({name: value for name, value in event.items()
                      if name not in ("data", "data_base64")})
    if "data_base64" in event:
        base64.b64decode(event["data_base64"], validate=True)
    return event


def no_name_twice(pairs):
    assert len({name for name, _ in pairs}) == len(pairs), f"a name twice: {pairs}"
    return dict(pairs)


@pytest.mark.sanitizer
def test_cloudevents_carry_rows_and_deltas(db, relay, orders, nats, stream):
    for mode in ("row", "delta"):
        set_outbox(db, f"feed/{mode} ü", to_nats("orders", nats, f"relay.{mode}", message=mode,
                                                 wire_format="cloudevents"))
    with relay:
        db.execute("insert into orders values (1, 'a', 1), (2, 'b', 2)")
        db.execute("update orders set amount = 3 where id = 1")
        db.execute("truncate orders")
        eventually(lambda: stream.count("s") == 7)
    found = {mode: [m for m in stream.messages("s") if m.subject == f"relay.{mode}"]
             for mode in ("row", "delta")}
    for messages in found.values():
        for message in messages:
            event = check_structured(message.data)
            assert message.headers["content-type"] == "application/cloudevents+json"
            assert event["id"] == message.id == event["data"]["metadata"]["id"]
            assert event["streamtable"] == "orders"
            assert event["time"] == event["data"]["timestamp"]
    rows = [m.json for m in found["row"]]
    assert [event["type"] for event in rows] == ["pgtrickle.insert", "pgtrickle.insert",
                                                 "pgtrickle.update", "pgtrickle.refresh"]
    assert [event["subject"] for event in rows] == ["1", "2", "1", "orders"]
    assert rows[0]["source"] == "/pgtrickle/feed%2Frow%20%C3%BC"
    assert rows[2]["data"]["old"]["amount"] == 1 and rows[2]["data"]["new"]["amount"] == 3
    deltas = [m.json for m in found["delta"]]
    assert [event["type"] for event in deltas] == ["pgtrickle.insert", "pgtrickle.update",
                                                   "pgtrickle.refresh"]
    assert [row["id"] for row in deltas[0]["data"]["delta"]["inserted"]] == [1, 2]


def test_cloudevents_in_binary_mode_have_attributes_in_headers(db, relay, orders, nats, stream):
    set_outbox(db, "feed", to_nats("orders", nats, "relay.x", message="row",
                                   wire_format="cloudevents", cloudevents_mode="binary",
                                   cloudevents_source="https://example.com/shop",
                                   key_template="{{ name }}",
                                   headers={"ce-type": "com.example.{stream_table}.{op}"}))
    set_outbox(db, "native", to_nats("orders", nats, "relay.native", message="row",
                                     id_prefix="feed", key_template="{{ name }}"))
    with relay:
        db.execute("insert into orders values (1, %s, 1)", ('ü "100%"',))
        eventually(lambda: stream.count("s") == 2)
    by_subject = {message.subject: message for message in stream.messages("s")}
    message = by_subject["relay.x"]
    attributes = {name[3:]: text for name, text in message.headers.items()
                  if name.startswith("ce-")}
    assert all(re.fullmatch(r"[\x21-\x7e]*", text) for text in attributes.values())
    decoded = check_attributes({name: percent_decoded(text) for name, text in attributes.items()})
    assert decoded["type"] == "com.example.orders.insert"
    assert decoded["source"] == "https://example.com/shop"
    assert decoded["subject"] == decoded["partitionkey"] == 'ü "100%"'
    assert decoded["id"] == message.id
    assert message.headers["content-type"] == "application/json"
    native = by_subject["relay.native"].json
    assert {**message.json, "metadata": None} == {**native, "metadata": None}


def percent_decoded(text):
    return re.sub(b"%([0-9A-F]{2})", lambda m: bytes([int(m.group(1), 16)]),
                  text.encode()).decode()


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_an_applications_event_becomes_a_cloudevent(db, relay, nats, stream, mode):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "feed", to_nats("events", nats, "relay.x", wire_format="cloudevents",
                                   cloudevents_mode=mode))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with relay:
        db.execute("select pgtrickle.publish('events', '{\"a\": 1.00}', event_type => 'order.paid',"
                   " key => 'k 1', headers => %s::jsonb)", (json.dumps(
                       {"traceparent": trace}),))
        eventually(lambda: stream.count("s") == 1)
    message = stream.messages("s")[0]
    if mode == "structured":
        event = check_structured(message.data)
        assert message.data.endswith(b'"data":{"a": 1.00}}')
    else:
        event = check_attributes({name[3:]: percent_decoded(text) for name, text
                                  in message.headers.items() if name.startswith("ce-")})
        assert message.data == b'{"a": 1.00}'
    assert event["type"] == "order.paid"
    assert event["subject"] == event["partitionkey"] == "k 1"
    assert event["traceparent"] == trace
    assert event["id"] == message.id
    assert message.headers["traceparent"] == trace


def test_binary_mode_is_refused_where_there_are_no_headers(db, relay, orders, lines):
    set_outbox(db, "feed", to_file("orders", lines.path, wire_format="cloudevents",
                                   cloudevents_mode="binary"))
    with relay:
        entry = relay.wait_state("feed", "misconfigured")
        assert "binary" in entry["last_error"]


def test_a_source_that_is_no_uri_is_refused(db, relay, orders, nats):
    set_outbox(db, "feed", to_nats("orders", nats, wire_format="cloudevents",
                                   cloudevents_source="not a uri"))
    with relay:
        assert "not a uri" in relay.wait_state("feed", "misconfigured")["last_error"]


# On each broker ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(request):
    running = start(request.param, SINKS)
    yield running
    running.close()


def each(*names):
    return pytest.mark.parametrize(
        "broker", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names
                   if name in BROKERS], indirect=True, scope="module")


PREFIXES = {"nats": "ce-", "kafka": "ce_", "webhook": "ce-", "rabbitmq": "cloudEvents:"}


def received(broker, count):
    eventually(lambda: broker.count() >= count, 30 * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{broker.count()} of {count}; {broker.log()[-1000:]}")
    found = broker.received()
    assert len(found) == count
    return found


@each(*PREFIXES)
def test_the_attributes_of_binary_cloudevents_are_where_the_binding_says(db, relay, broker, orders):
    broker.fresh()
    set_outbox(db, "feed", {"stream_table": "orders", "sink": broker.sink(), "message": "row",
                            "wire_format": "cloudevents", "cloudevents_mode": "binary"})
    prefix = PREFIXES[broker.name]
    with relay:
        insert_rows(db, "orders", 1)
        message, = received(broker, 1)
    names = {name.lower(): text for name, text in message.headers.items()}
    attributes = {name[len(prefix):]: text for name, text in names.items()
                  if name.startswith(prefix.lower())}
    assert check_attributes(attributes)["id"] == message.id
    assert attributes["type"] == "pgtrickle.insert" and attributes["subject"] == "1"
    assert json.loads(message.body)["new"]["id"] == 1


@each(*sorted(BROKERS))
@pytest.mark.parametrize("wire_format", ["debezium", "cloudevents"])
def test_each_broker_carries_each_format(db, relay, broker, orders, wire_format):
    broker.fresh()
    set_outbox(db, "feed", {"stream_table": "orders", "sink": broker.sink(), "message": "row",
                            "wire_format": wire_format, "key_template": "one"})
    with relay:
        db.execute("insert into orders values (1, 'a', 1)")
        db.execute("delete from orders")
        found = received(broker, 2)
    check = check_debezium if wire_format == "debezium" else lambda event: check_structured(
        json.dumps(event))
    bodies = [check(json.loads(message.body)) for message in found]
    told = sorted(body.get("op") or body["data"]["op"] for body in bodies)
    assert told == (["c", "d"] if wire_format == "debezium" else ["delete", "insert"])


@each("kafka")
def test_a_tombstone_ends_the_key_of_a_deleted_row(db, relay, broker, orders):
    broker.fresh()
    set_outbox(db, "feed", {"stream_table": "orders", "sink": broker.sink(),
                            "wire_format": "debezium", "tombstones": True})
    with relay:
        db.execute("insert into orders values (1, 'a', 1), (2, 'b', 2)")
        db.execute("delete from orders where id = 1")
        found = received(broker, 4)
    assert [message.key for message in found] == ['{"id":1}', '{"id":2}', '{"id":1}', '{"id":1}']
    assert [json.loads(message.body)["op"] for message in found[:3]] == ["c", "c", "d"]
    assert found[3].body is None
    assert len({message.id for message in found}) == 4


# All of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire_format", ["native", "debezium", "cloudevents"])
def test_ids_and_bodies_are_the_same_when_they_are_sent_again(db, orders, start_relay, nats, stream,
                                                              wire_format):
    insert_rows(db, "orders", 1, 5)
    db.execute("update orders set amount = 0")
    for turn in (1, 2):
        set_outbox(db, f"feed{turn}", to_nats("orders", nats, f"relay.{turn}", message="row",
                                              wire_format=wire_format, id_prefix="x",
                                              batch_size=turn * 2,
                                              cloudevents_source="/shop"))
    # Two pipelines of one id prefix stand for one that sends everything again; the subject is part
    # of the id, and so is left out of the comparison.
    with start_relay(db.relay_dsn):
        for turn in (1, 2):
            wait_settled(db, f"feed{turn}", "orders")
    bodies = {turn: [re.sub(rb"x:[0-9a-f:.-]+|feed\d", b"", message.data)
                     for message in stream.messages("s", f"relay.{turn}")] for turn in (1, 2)}
    assert len(bodies[1]) == 10
    assert bodies[1] == bodies[2]


def test_an_unknown_format_is_refused_with_the_known_ones(db, orders):
    with pytest.raises(Exception, match="native, debezium, cloudevents"):
        set_outbox(db, "feed", {"stream_table": "orders", "sink_type": "stdout",
                                "wire_format": "avro"})
