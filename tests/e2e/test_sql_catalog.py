"""The catalog inside PostgreSQL: pipelines, positions, dead letters, control, roles, setup."""

import json
import random

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.catalog_sql import (FLAT, NATS_SINK, REVERSE, Owner, configs, dead_letter, insert_rows,
                                 orders, report_running, set_outbox)
from support.postgres import refusal
from support.waiting import eventually


# Setting pipelines

def test_the_documented_calls_store_pipelines_that_wait_to_be_enabled(orders):
    orders.execute("""SELECT pgtrickle.set_relay_outbox(
        'orders-to-nats',
        config => '{"stream_table": "orders_stream", "sink_type": "nats",
                    "nats_url": "nats://localhost:4222", "nats_stream": "pgtrickle",
                    "subject_template": "pgtrickle.{stream_table}.{op}"}'::jsonb)""")
    orders.execute("""SELECT pgtrickle.set_relay_inbox(
        'nats-to-orders-inbox',
        config => '{"source_type": "nats", "nats_url": "nats://localhost:4222",
                    "nats_stream": "commands", "nats_consumer": "relay-consumer",
                    "inbox_table": "orders_inbox"}'::jsonb)""")
    stored = configs(orders)
    assert stored["orders-to-nats"][:2] == ("forward", False)
    assert stored["orders-to-nats"][2]["subject_template"] == "pgtrickle.{stream_table}.{op}"
    assert stored["nats-to-orders-inbox"][:2] == ("reverse", False)
    orders.execute("SELECT pgtrickle.enable_relay('orders-to-nats')")
    assert configs(orders)["orders-to-nats"][1] is True


SINK = {"type": "stdout"}
FROM_ORDERS = {"type": "outbox", "outbox": "orders_stream"}
KAFKA = {"type": "kafka", "brokers": "b", "topic": "t"}
FLAT_JSON, REVERSE_JSON = json.loads(FLAT), json.loads(REVERSE)
OVERLOADS = [
    (f"set_relay_outbox('p', '{FLAT}')", False, FLAT_JSON),
    (f"set_relay_outbox('p', '{FLAT}', true)", True, FLAT_JSON),
    (f"set_relay_outbox('p', '{FLAT}', null)", False, FLAT_JSON),
    (f"set_relay_outbox(name => 'p', config => '{FLAT}', enabled => true)", True, FLAT_JSON),
    ("set_relay_outbox('p', 'orders_stream', null, '{\"type\":\"stdout\"}')", False,
     {"source": FROM_ORDERS, "sink": SINK}),
    ("set_relay_outbox('p', 'orders_stream', 'g', '{\"type\":\"stdout\"}', 5, true)", True,
     {"source": {**FROM_ORDERS, "group": "g"}, "sink": SINK, "retention_hours": 5}),
    ("set_relay_outbox('p', outbox => 'orders_stream', \"group\" => 'g', "
     "sink => '{\"type\":\"stdout\"}'::jsonb, enabled => true)", True,
     {"source": {**FROM_ORDERS, "group": "g"}, "sink": SINK}),
    (f"set_relay_inbox('p', '{REVERSE}')", False, REVERSE_JSON),
    (f"set_relay_inbox('p', '{REVERSE}', true)", True, REVERSE_JSON),
    (f"set_relay_inbox('p', '{REVERSE}', null)", False, REVERSE_JSON),
    (f"set_relay_inbox('p', '{REVERSE}'::jsonb, 'true')", True, REVERSE_JSON),
    ("set_relay_inbox('p', 'x', '{\"type\":\"kafka\",\"brokers\":\"b\",\"topic\":\"t\"}')", False,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x"}}),
    ("set_relay_inbox('p', 'x', '{\"type\":\"kafka\",\"brokers\":\"b\",\"topic\":\"t\"}'::jsonb, 5, '2s')", False,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x", "max_retries": 5,
                                "schedule": "2s"}}),
    ("set_relay_inbox('p', inbox => 'x', source => '{\"type\":\"kafka\",\"brokers\":\"b\",\"topic\":\"t\"}', "
     "with_dead_letter => false, retention_hours => 9, enabled => true)", True,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x", "with_dead_letter": False,
                                "retention_hours": 9}}),
    ("set_relay('p', '{\"source\":{\"type\":\"kafka\",\"brokers\":\"b\",\"topic\":\"t\"},"
     "\"sink\":{\"type\":\"stdout\"}}')", False, {"source": KAFKA, "sink": SINK}),
]


@pytest.mark.parametrize("call, enabled, config", OVERLOADS, ids=[call for call, _, _ in OVERLOADS])
def test_each_way_of_writing_the_arguments_finds_its_form(orders, call, enabled, config):
    orders.execute(f"select pgtrickle.{call}")
    assert configs(orders)["p"][1:] == (enabled, config)
    assert orders.one("select pgtrickle.get_relay_config('p')") == config


def test_setting_an_existing_pipeline_keeps_its_state_unless_told(orders):
    set_outbox(orders)
    orders.execute("select pgtrickle.enable_relay('p')")
    set_outbox(orders, batch_size=5)
    assert configs(orders)["p"][1] is True
    set_outbox(orders, enabled=False)
    assert configs(orders)["p"][1] is False


def test_a_table_without_an_outbox_gets_one_and_keeps_the_one_it_has(orders):
    set_outbox(orders)
    first = orders.one("select incarnation from pgtrickle.relay_resolve_outbox('orders_stream')")
    assert first
    set_outbox(orders, "q")
    assert first == orders.one(
        "select incarnation from pgtrickle.relay_resolve_outbox('orders_stream')")


def test_a_table_is_found_in_the_search_path_of_the_caller(db):
    db.execute("create schema shop; create table shop.orders_stream (id int primary key)")
    assert "there is no outbox and no table" in refusal(
        db, "select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(NATS_SINK),))
    db.execute("set search_path = shop")
    set_outbox(db)
    assert db.one("select stream_table_schema from pgtrickle.pgt_outbox_config") == "shop"


def test_a_name_that_means_another_table_here_than_for_the_relay_is_refused(orders):
    set_outbox(orders)
    orders.execute("create schema shop; create table shop.orders_stream (id int primary key); "
                   "set search_path = shop")
    said = refusal(orders, "select pgtrickle.set_relay_outbox('q', %s)", (Jsonb(NATS_SINK),))
    assert "public.orders_stream" in said and "Qualify" in said
    set_outbox(orders, "q", stream_table="shop.orders_stream")
    set_outbox(orders, stream_table="public.orders_stream")
    assert sorted(configs(orders)) == ["p", "q"]


def test_a_missing_table_is_named_with_the_remedy_and_nothing_is_stored(db):
    said = refusal(db, "select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(NATS_SINK),))
    assert '"orders_stream"' in said and "Create the table" in said
    assert configs(db) == {}


def test_retention_hours_of_a_pipeline_become_those_of_its_outbox_and_stay_away_from_the_relay(
        orders):
    set_outbox(orders, retention_hours=5, retention_hold_hours=10)
    assert orders.one("select retention_hours from pgtrickle.pgt_outbox_config") == 5
    seen = orders.one("select config from pgtrickle.relay_pipelines")
    assert not {"retention_hours", "retention_hold_hours"} & seen.keys()


WRONG = [
    ({"sink_type": "nat"}, ["sink type 'nat' is not known", "did you mean 'nats'"]),
    ({"sink_type": None}, ["the type of the sink is missing", '"sink_type"']),
    ({"sink": {"type": "kafka"}}, ['type says "nats" here and "kafka" elsewhere']),
    ({"stream_table": None}, ["none of stream_table, outbox is set"]),
    ({"stream_table": ""}, ["none of stream_table, outbox is set"]),
    ({"stream_table": "${env:TABLE}"}, ["stream_table cannot be a reference"]),
    ({"source": {"type": "outbox", "outbox": "x"}}, ["stream_table and outbox are both set"]),
    ({"batchsize": 5}, ['no option "batchsize"', '"batch_size"']),
    ({"topic": "x"}, ['no option "topic"', 'An option of nats is written "nats_..."']),
    ({"subject": "x"}, ['no option "subject"', 'write it "nats_subject"']),
    ({"nats_ulr": "x"}, ['no option "nats_ulr"', 'Did you mean "nats_url"? Known here: nats_url, ']),
    ({"kafka_brokers": "x"}, ['no option "kafka_brokers" of pipelines, nor of outbox or nats']),
    ({"nats_create_stream": "x"}, ['create_stream is "x"; it must be true or false']),
    ({"source_type": "kafka"}, ["forward pipeline cannot have the source", "set_relay()"]),
    ({"sink_type": "webhook", "nats_url": None}, ['"url" is missing']),
    ({"batch_size": "many"}, ['batch_size is "many"; it must be a whole number from 1 to 1000000']),
    ({"batch_size": 0}, ["batch_size is 0; it must be"]),
    ({"batch_size": 2_000_000}, ["batch_size is 2000000; it must be"]),
    ({"batch_size": 1.5}, ["batch_size is 1.5; it must be"]),
    ({"batch_bytes": "8 cats"}, ['batch_bytes is "8 cats"; it must be a size', '"8MiB"']),
    ({"retry": {"mx": 1}}, ['no option "mx" in retry', "min, max"]),
    ({"retry": {"max": "soon"}}, ['key retry.max: retry_max is "soon"', "number of seconds"]),
    ({"retry_min": "soon"}, ['retry_min is "soon"', '"500ms"']),
    ({"on_reject": "drop"}, ['on_reject is "drop"; it must be one of dlq, park_key, stop, skip']),
    ({"message": "rows"}, ["one of delta, row", 'Did you mean "row"?']),
    ({"headers": {"a": [1]}}, ["headers is an object; it must be an object of texts"]),
    ({"columns": [1]}, ["columns is a list; it must be a list of texts"]),
    ({"start": "first"}, ['start is "first"; it must be earliest, latest']),
    ({"rate_limit": -1}, ["rate_limit is -1; it must be a number from 0 to 1000000000"]),
    ({"event_envelope": "yes"}, ['event_envelope is "yes"; it must be true or false']),
    ({"max_hold_bytes": "${env:X}"}, ["max_hold_bytes cannot be a reference"]),
    ({"sink": "nats"}, ["sink must be an object"]),
    ({"sink_type": "inbox", "nats_url": None}, ["none of inbox_name, inbox_table is set"]),
    ({"sink_type": "inbox", "nats_url": None, "inbox_name": "a", "inbox_table": "b"},
     ["inbox_name and inbox_table are both set"]),
    ({"nats_url": "a", "sink": {"url": "b"}}, ["key nats_url: url says something else"]),
]


@pytest.mark.parametrize("changes, expected", WRONG, ids=[json.dumps(c) for c, _ in WRONG])
def test_what_is_wrong_is_named_with_what_is_allowed(orders, changes, expected):
    config = {k: v for k, v in {**NATS_SINK, **changes}.items() if v is not None}
    said = refusal(orders, "select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(config),))
    assert 'pipeline "p"' in said
    for part in expected:
        assert part in said
    assert configs(orders) == {}


def test_all_problems_are_named_at_once(orders):
    said = refusal(orders, "select pgtrickle.set_relay_outbox('p', %s)",
                   (Jsonb({"sink_type": "nats", "batchsize": 5, "on_reject": "drop"}),))
    assert "3 problems" in said
    for part in ("stream_table", "batchsize", "on_reject"):
        assert part in said


RIGHT = [
    {"batch_bytes": "8MiB", "max_record_bytes": 5, "retry": {"min": "100ms", "max": 30}},
    {"start": 17}, {"start": "17"}, {"start": "latest"},
    {"columns": "a"}, {"columns": ["a", "b"]}, {"headers": {"a": "b", "c": 1}},
    {"batch_size": "${env:SIZE}", "max_in_flight": "${file:/x}"},
    {"message": "row", "ordering": "none", "full_refresh": "skip", "rate_limit": 0.5},
    {"sink_type": "http", "http_url": "x", "webhook_method": "PUT", "nats_url": None},
    {"sink_type": "pg-inbox", "pg_inbox_url": "x", "inbox_table": "y", "nats_url": None},
    {"sink_type": "file", "file_path": "x", "stdout_format": "csv", "nats_url": None},
    {"sink": {"type": "nats", "subject": "x"}},
    {"sink_type": "jetstream", "jetstream_stream": "x"},
    {"max_hold_bytes": "10GiB", "max_hold_hours": 0.5, "retention_hold_hours": 3},
]


@pytest.mark.parametrize("changes", RIGHT, ids=[json.dumps(c) for c in RIGHT])
def test_what_is_allowed_is_stored_as_it_was_written(orders, changes):
    config = {k: v for k, v in {**NATS_SINK, **changes}.items() if v is not None}
    orders.execute("select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(config),))
    assert orders.one("select pgtrickle.get_relay_config('p')") == config


@pytest.mark.parametrize("config, expected", [
    ("[]", "must be a JSON object, not array"), ("null", "not null"),
    ('"x"', "not string")])
def test_a_configuration_that_is_no_object_is_refused(orders, config, expected):
    for function in ("set_relay_outbox", "set_relay_inbox", "set_relay"):
        assert expected in refusal(orders, f"select pgtrickle.{function}('p', '{config}'::jsonb)")


def test_reverse_pipelines_need_a_source_and_an_inbox(db):
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', '{}')")
    assert '"source_type"' in said and "none of inbox_name, inbox_table is set" in said
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', '{\"source_type\":\"stdout\"}')")
    assert "source type 'stdout' is not known" in said


def test_options_of_an_outboxs_retention_are_refused_where_there_is_none(db):
    config = {**json.loads(REVERSE), "retention_hours": 5}
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', %s)", (Jsonb(config),))
    assert "retention_hours is for pipelines that read an outbox" in said
    assert '"inbox_retention_hours"' in said
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', %s)",
                   (Jsonb({**json.loads(REVERSE), "max_hold_bytes": "1GiB"}),))
    assert "max_hold_bytes is for pipelines that read an outbox" in said


@pytest.mark.parametrize("name, expected", [
    ("", "needs a name"), (None, "needs a name"), ("x" * 201, "201 characters"),
    ("a\nb", "control characters"), (" a", "blanks")])
def test_names_that_no_log_could_show_are_refused(orders, name, expected):
    assert expected in refusal(orders, "select pgtrickle.set_relay_outbox(%s, %s)",
                               (name, Jsonb(NATS_SINK)))


@pytest.mark.parametrize("name", ["x" * 200, 'we"ird', "Größe", "a.b-c:d", "o'clock"])
def test_other_names_pass(orders, name):
    set_outbox(orders, name)
    orders.execute("select pgtrickle.enable_relay(%s)", (name,))
    assert configs(orders)[name][1] is True


def test_a_name_is_one_pipeline_whatever_its_direction(orders):
    set_outbox(orders)
    for call in (f"set_relay_inbox('p', '{REVERSE}')",
                 "set_relay('p', '{\"source_type\":\"stdin\",\"sink_type\":\"stdout\"}')"):
        said = refusal(orders, f"select pgtrickle.{call}")
        assert "exists already, as a forward pipeline" in said and "delete_relay" in said


def test_two_sessions_cannot_give_one_name_to_two_pipelines(orders):
    with orders.connect(autocommit=False) as one, orders.connect() as other:
        one.execute("select pgtrickle.set_relay_outbox('p', %s)", (Jsonb(NATS_SINK),))
        other.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(f"select pgtrickle.set_relay_inbox('p', '{REVERSE}')")
        one.commit()
        with pytest.raises(psycopg.errors.DuplicateObject):
            other.execute(f"select pgtrickle.set_relay_inbox('p', '{REVERSE}')")


@pytest.mark.parametrize("function", ["enable_relay", "disable_relay", "delete_relay",
                                      "pause_relay", "resume_relay", "get_relay_config"])
def test_an_unknown_pipeline_is_an_error_that_names_the_nearest(orders, function):
    set_outbox(orders, "orders-to-nats")
    said = refusal(orders, f"select pgtrickle.{function}('order-to-nast')")
    assert "does not exist" in said and 'Did you mean "orders-to-nats"?' in said
    assert "list_relay_configs" in refusal(orders, f"select pgtrickle.{function}('zzz')")


def test_the_nearest_name_is_measured_as_it_should_be(db):
    def distance(a, b):
        rows = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
        for i in range(1, len(a) + 1):
            for j in range(1, len(b) + 1):
                rows[i, j] = min(rows[i - 1, j] + 1, rows[i, j - 1] + 1,
                                 rows[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
                if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                    rows[i, j] = min(rows[i, j], rows[i - 2, j - 2] + 1)
        return rows[len(a), len(b)]
    dice = random.Random(7)
    for _ in range(100):
        a, b = ("".join(dice.choices("abcä", k=dice.randint(0, 9))) for _ in range(2))
        assert db.one("select pgtrickle_internal.edit_distance(%s, %s)", (a, b)) == distance(a, b), (a, b)


# Telling of changes

class Listener:
    """Listens to the channel on which the database side talks to the relay."""

    def __init__(self, db):
        self._db = db
        self._connection = db.connect()
        self._heard = []
        self._connection.add_notify_handler(
            lambda notification: self._heard.append(json.loads(notification.payload)))
        self._connection.execute("listen pgtrickle_relay_config")

    def heard(self):
        """What has been told since the last call, in order."""
        self._db.execute("select pg_notify('pgtrickle_relay_config', '\"that is all\"')")

        def ended():
            self._connection.execute("select 1")
            return "that is all" in self._heard
        eventually(ended)
        heard, self._heard = self._heard[:-1], []
        return heard

    def close(self):
        self._connection.close()


@pytest.fixture
def listener(orders):
    listening = Listener(orders)
    yield listening
    listening.close()


def test_each_change_of_a_pipeline_is_told_once(orders, listener):
    def told(event, enabled):
        return {"direction": "forward", "event": event, "name": "p", "enabled": enabled}
    set_outbox(orders)
    set_outbox(orders)
    set_outbox(orders, batch_size=7)
    orders.execute("select pgtrickle.enable_relay('p')")
    orders.execute("select pgtrickle.enable_relay('p')")
    orders.execute("select pgtrickle.disable_relay('p')")
    orders.execute("select pgtrickle.delete_relay('p')")
    assert listener.heard() == [
        told("created", False), told("updated", False), told("enabled", True),
        told("disabled", False), told("deleted", False)]


def test_what_is_asked_of_a_running_pipeline_is_told_as_control(orders, listener):
    set_outbox(orders)
    insert_rows(orders, 3)
    letter = dead_letter(orders)
    listener.heard()
    for call, action in [("pause_relay('p')", "pause"), ("resume_relay('p')", "resume"),
                         ("replay_relay('p', 1)", "replay"),
                         (f"relay_dlq_retry({letter})", "dlq_retry"),
                         ("relay_dlq_retry_all('p')", "dlq_retry"),
                         (f"relay_dlq_discard({letter})", "dlq_discard")]:
        orders.execute(f"select pgtrickle.{call}")
        assert listener.heard() == [{"event": "control", "name": "p", "action": action}]


def test_deleting_a_pipeline_forgets_all_but_its_dead_letters_and_replays(orders):
    set_outbox(orders, enabled=True)
    set_outbox(orders, "other", enabled=True)
    insert_rows(orders, 5)
    for name in ("p", "other"):
        Owner(orders, pipeline=name).commit(2)
        orders.execute("select pgtrickle.pause_relay(%s)", (name,))
        orders.execute("select pgtrickle.replay_relay(%s, 1, 2)", (name,))
        report_running(orders, name)
        dead_letter(orders, pipeline=name)
    orders.execute("select pgtrickle.delete_relay('p')")
    left = {table: [row[0] for row in orders.execute(
                f"select {column} from pgtrickle.{table}")]
            for table, column in [("relay_consumer_offsets", "pipeline_id"),
                                  ("relay_pipeline_status", "pipeline"),
                                  ("relay_pipeline_control", "pipeline")]}
    assert set(map(tuple, left.values())) == {("other",)}
    assert orders.execute("select pipeline, error from pgtrickle.relay_replays order by 1") == [
        ("other", None), ("p", "pipeline deleted")]
    assert orders.execute("select pipeline, resolution from pgtrickle.relay_dlq order by 1") == [
        ("other", None), ("p", "pipeline deleted")]
