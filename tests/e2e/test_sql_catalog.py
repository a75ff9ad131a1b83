"""The catalog inside PostgreSQL: pipelines, positions, dead letters, control, roles, setup."""

import json
import os
import random
import re
import subprocess
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.postgres import install_from_files, postgres_bin_directory
from support.waiting import eventually

NATS_SINK = {"stream_table": "orders_stream", "sink_type": "nats",
             "nats_url": "nats://localhost:4222"}


@pytest.fixture
def orders(db):
    """A database with a table to have an outbox on."""
    db.execute("create table orders_stream (id int primary key, v text)")
    return db


def configs(db):
    rows = db.execute("select name, direction, enabled, config from pgtrickle.list_relay_configs()")
    return {name: (direction, enabled, config) for name, direction, enabled, config in rows}


def set_outbox(db, name="p", enabled=None, **changes):
    db.execute("select pgtrickle.set_relay_outbox(%s, %s, %s)",
               (name, Jsonb({**NATS_SINK, **changes}), enabled))


def refusal(db, statement, parameters=None):
    """The error that a statement ends in: its message and hint."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(statement, parameters)
    diagnosis = caught.value.diag
    return f"{diagnosis.message_primary}\n{diagnosis.message_hint or ''}"


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
KAFKA = {"type": "kafka", "brokers": "b"}
FLAT = '{"stream_table":"orders_stream","sink_type":"stdout"}'
REVERSE = '{"source_type":"kafka","kafka_brokers":"b","inbox_name":"x"}'
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
    ("set_relay_inbox('p', 'x', '{\"type\":\"kafka\",\"brokers\":\"b\"}')", False,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x"}}),
    ("set_relay_inbox('p', 'x', '{\"type\":\"kafka\",\"brokers\":\"b\"}'::jsonb, 5, '2s')", False,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x", "max_retries": 5,
                                "schedule": "2s"}}),
    ("set_relay_inbox('p', inbox => 'x', source => '{\"type\":\"kafka\",\"brokers\":\"b\"}', "
     "with_dead_letter => false, retention_hours => 9, enabled => true)", True,
     {"source": KAFKA, "sink": {"type": "inbox", "inbox_name": "x", "with_dead_letter": False,
                                "retention_hours": 9}}),
    ("set_relay('p', '{\"source\":{\"type\":\"kafka\",\"brokers\":\"b\"},"
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
    ({"sink_type": "nat"}, ['no sink "nat"', '"nats"']),
    ({"sink_type": None}, ['"sink_type"', "is missing", "kafka"]),
    ({"sink": {"type": "kafka"}}, ["nats", "kafka", '"sink_type"']),
    ({"stream_table": None}, ['"stream_table"', "is missing"]),
    ({"stream_table": ""}, ["must be a text that is not empty"]),
    ({"stream_table": "${env:TABLE}"}, ["cannot be a reference"]),
    ({"batchsize": 5}, ['no option "batchsize"', '"batch_size"']),
    ({"topic": "x"}, ['no option "topic"', '"nats_topic"']),
    ({"kafka_brokers": "x"}, ['"kafka_brokers" is an option of kafka', "neither"]),
    ({"source_type": "kafka"}, ["forward pipeline cannot have the source", "set_relay()"]),
    ({"batch_size": "many"}, ['"batch_size" must be a whole number of at least 1']),
    ({"batch_size": 0}, ['"batch_size" must be']),
    ({"batch_size": 1.5}, ['"batch_size" must be']),
    ({"batch_bytes": "8 cats"}, ['"batch_bytes" must be a number of bytes']),
    ({"retry": {"mx": 1}}, ['"retry" has mx', '"min" and "max"']),
    ({"retry": {"max": "soon"}}, ['"retry" has max', "number of seconds"]),
    ({"retry_min": "soon"}, ['"retry_min" must be', '"500ms"']),
    ({"on_reject": "drop"}, ['"on_reject" must be one of dlq, park_key, stop, skip']),
    ({"message": "rows"}, ['"message" must be one of delta, row']),
    ({"headers": {"a": 1}}, ['"headers" must be an object of texts']),
    ({"columns": [1]}, ['"columns" must be an array of texts']),
    ({"start": "first"}, ['"start" must be "earliest", "latest"']),
    ({"rate_limit": -1}, ['"rate_limit" must be a number that is not negative']),
    ({"event_envelope": "yes"}, ['"event_envelope" must be true or false']),
    ({"max_hold_bytes": "${env:X}"}, ['"max_hold_bytes" must be a number of bytes']),
    ({"sink": "nats"}, ['"sink" must be an object']),
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
    {"columns": "a"}, {"columns": ["a", "b"]}, {"headers": {"a": "b"}},
    {"batch_size": "${env:SIZE}", "max_in_flight": "${file:/x}"},
    {"message": "row", "ordering": "none", "full_refresh": "skip", "rate_limit": 0.5},
    {"sink_type": "http", "http_url": "x", "webhook_method": "PUT", "nats_url": None},
    {"sink_type": "pg-inbox", "pg_inbox_url": "x", "inbox_table": "y", "nats_url": None},
    {"sink_type": "file", "file_path": "x", "stdout_format": "csv", "nats_url": None},
    {"sink": {"type": "nats", "subject": "x"}},
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
    assert '"source_type"' in said and '"inbox_table" or "inbox_name"' in said
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', '{\"source_type\":\"stdout\"}')")
    assert 'no source "stdout"' in said


def test_options_of_an_outboxs_retention_are_refused_where_there_is_none(db):
    config = {**json.loads(REVERSE), "retention_hours": 5}
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', %s)", (Jsonb(config),))
    assert '"retention_hours" is for pipelines that read an outbox' in said
    assert '"inbox_retention_hours"' in said
    said = refusal(db, "select pgtrickle.set_relay_inbox('p', %s)",
                   (Jsonb({**json.loads(REVERSE), "max_hold_bytes": "1GiB"}),))
    assert '"max_hold_bytes" is for pipelines that read an outbox' in said


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
                 "set_relay('p', '{\"source_type\":\"kafka\",\"sink_type\":\"stdout\"}')"):
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
        assert db.one("select pgtrickle._edit_distance(%s, %s)", (a, b)) == distance(a, b), (a, b)


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


# Deleting

def insert_rows(db, count, table="outbox_orders_stream"):
    db.execute(f"insert into pgtrickle.{table} (payload) "
               "select '{}' from generate_series(1, %s)", (count,))


def report_running(db, name):
    db.execute("insert into pgtrickle.relay_pipeline_status (relay_group_id, pipeline, state) "
               "values ('default', %s, 'running')", (name,))


def incarnation_of(db, name="orders_stream"):
    return db.one("select incarnation from pgtrickle.relay_resolve_outbox(%s)", (name,))


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


# Positions

class Owner:
    """One relay's hold on a position."""

    def __init__(self, db, pipeline="p", group="default", incarnation=None, start="earliest",
                 outbox="orders_stream"):
        self.db = db
        self.key = (group, pipeline, incarnation or incarnation_of(db, outbox))
        row = db.execute("select owner_token, last_change_id, last_row, last_pgt_id, is_new from "
                         "pgtrickle.relay_claim_position(%s, %s, %s, 'w', %s)",
                         (*self.key, start))[0]
        self.token, self.change_id, self.row, self.pgt_id, self.is_new = row

    def commit(self, change_id, row=0, pgt_id=None):
        return self.db.one("select pgtrickle.relay_commit_position(%s, %s, %s, %s, %s, %s, %s)",
                           (*self.key, self.token, change_id, row, pgt_id))

    def rewind(self, change_id, row=0):
        return self.db.one("select pgtrickle.relay_rewind_position(%s, %s, %s, %s, %s, %s)",
                           (*self.key, self.token, change_id, row))

    def position(self):
        return self.db.execute(
            "select last_change_id, last_row from pgtrickle.relay_consumer_offsets "
            "where (relay_group_id, pipeline_id, incarnation) = (%s, %s, %s)", self.key)[0]


def test_a_position_never_goes_back(orders):
    set_outbox(orders)
    owner = Owner(orders)
    dice = random.Random(3)
    highest = (0, 0)
    for _ in range(200):
        wanted = (dice.randint(0, 30), dice.randint(0, 3))
        assert owner.commit(*wanted) is True
        highest = max(highest, wanted)
        assert owner.position() == highest


def test_a_commit_keeps_the_mark_of_the_highest_position_only(orders):
    set_outbox(orders)
    owner = Owner(orders)
    mark, other = uuid.uuid4(), uuid.uuid4()
    owner.commit(5, 0, mark)
    owner.commit(4, 0, other)
    owner.commit(5, 0, other)
    assert Owner(orders).pgt_id == mark


def test_who_has_been_taken_over_from_commits_nothing_and_learns_it(orders):
    set_outbox(orders)
    first = Owner(orders)
    assert first.is_new and first.commit(5)
    second = Owner(orders)
    assert not second.is_new and second.change_id == 5
    assert first.commit(9) is False
    assert first.commit(3) is False
    assert first.rewind(1) is False
    assert second.position() == (5, 0)
    assert second.commit(6) is True


def test_only_a_rewind_goes_back(orders):
    set_outbox(orders)
    owner = Owner(orders)
    owner.commit(9)
    assert owner.rewind(4, 2) is True
    assert owner.position() == (4, 2)


def test_a_deleted_pipeline_is_fenced(orders):
    set_outbox(orders)
    owner = Owner(orders)
    orders.execute("select pgtrickle.delete_relay('p')")
    assert owner.commit(1) is False


@pytest.mark.parametrize("start, expected", [("earliest", 0), ("latest", 7), ("3", 2), ("0", 0),
                                             ("100", 7)])
def test_a_new_position_begins_where_start_says(orders, start, expected):
    set_outbox(orders)
    insert_rows(orders, 7)
    assert Owner(orders, start=start).change_id == expected
    assert Owner(orders, start="earliest").change_id == expected, "only a new one begins anew"


@pytest.mark.parametrize("start", ["first", "-1", "", None, "1.5"])
def test_a_start_that_means_nothing_is_refused(orders, start):
    set_outbox(orders)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        Owner(orders, start=start)


def test_an_outbox_made_again_and_another_group_inherit_no_position(orders):
    set_outbox(orders)
    Owner(orders).commit(5)
    assert Owner(orders, group="blue").change_id == 0
    assert Owner(orders, incarnation=uuid.uuid4()).change_id == 0


def test_of_many_claims_at_once_exactly_one_can_commit(orders):
    set_outbox(orders)
    incarnation = incarnation_of(orders)
    claim = ("select owner_token from pgtrickle.relay_claim_position('default', 'p', %s, 'w', "
             "'earliest')")
    connections = [orders.connect() for _ in range(8)]
    try:
        for connection in connections:
            connection.pgconn.send_query(claim.replace("%s", f"'{incarnation}'").encode())
        tokens = []
        for connection in connections:
            tokens.append(connection.pgconn.get_result().get_value(0, 0).decode())
            while connection.pgconn.get_result():
                pass
    finally:
        for connection in connections:
            connection.close()
    won = [orders.one("select pgtrickle.relay_commit_position('default', 'p', %s, %s, %s, 0, null)",
                      (incarnation, token, number)) for number, token in enumerate(tokens, 1)]
    assert won.count(True) == 1


# Dead letters

STORE = """insert into pgtrickle.relay_dlq as d
      (relay_group_id, pipeline, message_id, subject, payload, error_class, error_message)
    values ('default', %s, %s, 's', %s, 'rejected', %s)
    on conflict (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''),
                 coalesce(md5(key), ''), coalesce(md5(op), '')) where resolved_at is null do update
      set attempts = d.attempts + 1, error_message = excluded.error_message,
          last_failed_at = clock_timestamp()
    returning id"""


def dead_letter(db, pipeline="p", message="p:1", payload=b"\x00\xff", error="too large"):
    return db.one(STORE, (pipeline, message, payload, error))


def listed(db, *arguments):
    marks = ", ".join(["%s"] * len(arguments))
    return db.execute(f"select id, pipeline, attempts, error_message, payload_bytes, resolution "
                      f"from pgtrickle.relay_dlq_list({marks})", arguments)


def test_an_unresolved_message_is_stored_once_and_counts_its_attempts(orders):
    first = dead_letter(orders)
    assert dead_letter(orders, error="still too large") == first
    assert listed(orders) == [(first, "p", 2, "still too large", 2, None)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        orders.execute("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, "
                       "payload) values ('default', 'p', 'p:1', '\\x00ff')")
    assert dead_letter(orders, payload=b"another message of that id") != first


def test_after_it_was_resolved_the_same_message_is_a_new_dead_letter(orders):
    first = dead_letter(orders)
    orders.execute("select pgtrickle.relay_dlq_discard(%s)", (first,))
    second = dead_letter(orders)
    assert second != first
    assert [row[0] for row in listed(orders)] == [second]
    assert [(row[0], row[5]) for row in listed(orders, "p", 10, True)] == [
        (first, "discarded"), (second, None)]


def test_the_list_is_by_pipeline_and_bounded(orders):
    letters = [dead_letter(orders, message=f"p:{n}") for n in range(5)]
    dead_letter(orders, pipeline="q")
    assert [row[0] for row in listed(orders, "p", 3)] == letters[:3]
    assert len(listed(orders)) == 6


def test_a_retry_is_asked_for_and_left_to_the_owner(orders):
    set_outbox(orders)
    first, second = dead_letter(orders), dead_letter(orders, message="p:2")
    orders.execute("select pgtrickle.relay_dlq_retry(%s)", (first,))
    asked = "select id from pgtrickle.relay_dlq where retry_requested_at is not null order by id"
    assert orders.execute(asked) == [(first,)]
    assert orders.one("select pgtrickle.relay_dlq_retry_all('p')") == 2
    assert orders.execute(asked) == [(first,), (second,)]
    assert len(listed(orders)) == 2, "asking resolves nothing"


@pytest.mark.parametrize("function", ["relay_dlq_retry", "relay_dlq_discard"])
def test_unknown_and_resolved_dead_letters_are_refused(orders, function):
    assert "there is no dead letter 99" in refusal(orders, f"select pgtrickle.{function}(99)")
    letter = dead_letter(orders)
    orders.execute("select pgtrickle.relay_dlq_discard(%s)", (letter,))
    assert "resolved already: discarded" in refusal(
        orders, f"select pgtrickle.{function}({letter})")


def test_purging_deletes_only_what_was_resolved_long_enough_ago(orders):
    old, fresh, unresolved = (dead_letter(orders, message=f"p:{n}") for n in range(3))
    for letter in (old, fresh):
        orders.execute("select pgtrickle.relay_dlq_discard(%s)", (letter,))
    orders.execute("update pgtrickle.relay_dlq set resolved_at = resolved_at - interval '2 days', "
                   "last_failed_at = last_failed_at - interval '9 days' where id <> %s", (fresh,))
    assert orders.one("select pgtrickle.relay_dlq_purge('1 day')") == 1
    assert [row[0] for row in listed(orders, None, 10, True)] == [fresh, unresolved]


# Control

def control(db):
    return db.execute("select pipeline, paused, accept_loss from pgtrickle.relay_pipeline_control")


def test_pause_and_resume_are_recorded(orders):
    set_outbox(orders)
    orders.execute("select pgtrickle.pause_relay('p')")
    assert control(orders) == [("p", True, False)]
    orders.execute("select pgtrickle.resume_relay('p')")
    assert control(orders) == [("p", False, False)]
    orders.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
    assert control(orders) == [("p", False, True)]


def test_a_pipeline_from_a_file_is_controlled_once_a_relay_reported_it(orders):
    assert "does not exist" in refusal(orders, "select pgtrickle.pause_relay('from-file')")
    report_running(orders, "from-file")
    orders.execute("select pgtrickle.pause_relay('from-file')")
    orders.execute("select pgtrickle.replay_relay('from-file', 5)")
    assert "configuration file" in refusal(orders, "select pgtrickle.disable_relay('from-file')")


def test_replays_are_numbered_for_each_pipeline_and_numbers_never_come_again(orders):
    set_outbox(orders, enabled=True)
    set_outbox(orders, "q", enabled=True)
    insert_rows(orders, 9)
    for name, start, end in [("p", 1, 3), ("p", 2, None), ("q", 4, 99)]:
        orders.execute("select pgtrickle.replay_relay(%s, %s, %s)", (name, start, end))
    asked = ("select pipeline, number, from_id, to_id, next_id from pgtrickle.relay_replays "
             "order by id")
    assert orders.execute(asked) == [("p", 1, 1, 3, 1), ("p", 2, 2, 9, 2), ("q", 1, 4, 9, 4)]
    orders.execute("update pgtrickle.relay_replays set finished_at = now() - interval '90 days'")
    orders.execute("select pgtrickle.relay_housekeeping()")
    assert orders.execute(asked) == [("p", 2, 2, 9, 2), ("q", 1, 4, 9, 4)]
    orders.execute("select pgtrickle.delete_relay('p')")
    set_outbox(orders)
    orders.execute("select pgtrickle.replay_relay('p', 1)")
    assert orders.execute(asked)[-1][:2] == ("p", 3)


def test_a_replay_of_what_is_not_there_is_refused(orders):
    set_outbox(orders)
    insert_rows(orders, 5)
    orders.execute("update pgtrickle.pgt_outbox_config set purged_below = 2")
    for arguments, expected in [("2", "no longer kept"), ("6", "newest row"), ("0", "at least 1"),
                                ("null", "at least 1"), ("4, 3", "not smaller")]:
        assert expected in refusal(orders, f"select pgtrickle.replay_relay('p', {arguments})")
    orders.execute(f"select pgtrickle.set_relay_inbox('in', '{REVERSE}')")
    assert "reads no outbox" in refusal(orders, "select pgtrickle.replay_relay('in', 1)")


# Status of an outbox

def status(db, name="orders_stream"):
    return db.one("select pgtrickle.outbox_status(%s)", (name,))


def test_the_lag_is_counted_in_rows_and_not_in_ids(orders):
    set_outbox(orders, enabled=True)
    insert_rows(orders, 10)
    orders.execute("delete from pgtrickle.outbox_orders_stream where id between 5 and 8")
    Owner(orders).commit(3)
    shown = status(orders)
    assert (shown["rows"], shown["last_id"], shown["oldest_id"]) == (6, 10, 1)
    reader = shown["positions"][0]
    assert (reader["pipeline"], reader["position"], reader["lag"], reader["lag_exact"]) == (
        "p", 3, 3, True)


def test_a_long_backlog_is_bounded_from_above_instead_of_counted(orders):
    set_outbox(orders, enabled=True)
    Owner(orders)
    insert_rows(orders, 120_000)
    shown = status(orders)
    assert (shown["rows"], shown["rows_exact"]) == (120_000, False)
    assert (shown["positions"][0]["lag"], shown["positions"][0]["lag_exact"]) == (120_000, False)


def test_open_writers_are_shown_with_pid_and_age_even_to_the_relay(orders):
    set_outbox(orders)
    with orders.connect(autocommit=False) as writer, psycopg.connect(orders.relay_dsn) as relay:
        insert_rows(writer, 1)
        shown = relay.execute("select pgtrickle.outbox_status('orders_stream')").fetchone()[0]
        assert [w["pid"] for w in shown["open_writers"]] == [writer.info.backend_pid]
        assert shown["open_writers"][0]["age_seconds"] >= 0
        writer.execute("prepare transaction 'in doubt'")
        relay.rollback()
        shown = relay.execute("select pgtrickle.outbox_status('orders_stream')").fetchone()[0]
        assert [(w["pid"], w["prepared"]) for w in shown["open_writers"]] == [(None, "in doubt")]
    orders.execute("rollback prepared 'in doubt'")
    assert status(orders)["open_writers"] == []


def test_who_only_looks_or_vacuums_is_no_open_writer(orders):
    set_outbox(orders)
    with orders.connect(autocommit=False) as reader:
        reader.execute("select * from pgtrickle.outbox_orders_stream")
        reader.execute("lock table pgtrickle.outbox_orders_stream in share update exclusive mode")
        assert status(orders)["open_writers"] == []


def test_the_status_of_an_unknown_outbox_names_the_nearest(orders):
    set_outbox(orders)
    assert 'Did you mean "orders_stream"?' in refusal(
        orders, "select pgtrickle.outbox_status('order_stream')")


# Privileges

def may(dsn, statement):
    with psycopg.connect(dsn) as connection:
        try:
            connection.execute(statement)
            return True
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            connection.rollback()


@pytest.fixture
def running(orders):
    """A database with a pipeline that has rows, a position, a dead letter and a replay."""
    set_outbox(orders, enabled=True)
    insert_rows(orders, 3)
    Owner(orders)
    dead_letter(orders)
    orders.execute("select pgtrickle.pause_relay('p'); select pgtrickle.replay_relay('p', 1)")
    return orders


DAEMON_MAY = [
    "select * from pgtrickle.relay_pipelines",
    "select * from pgtrickle.list_relay_configs()",
    "select * from pgtrickle.relay_resolve_outbox('orders_stream')",
    "select * from pgtrickle.pgt_outbox_config",
    "select * from pgtrickle.relay_schema_history",
    "select * from pgtrickle.outbox_orders_stream",
    "select pg_sequence_last_value(outbox_sequence::regclass) from pgtrickle.pgt_outbox_config",
    "select * from pgtrickle.relay_open_writers('pgtrickle.outbox_orders_stream')",
    "select pgtrickle.outbox_status('orders_stream')",
    "select * from pgtrickle.relay_claim_position('g', 'p', gen_random_uuid(), 'w', 'earliest')",
    "select pgtrickle.relay_commit_position('g', 'p', gen_random_uuid(), null, 1, 0, null)",
    "select pgtrickle.relay_rewind_position('g', 'p', gen_random_uuid(), null, 1)",
    "insert into pgtrickle.relay_instances (relay_group_id, worker_id) values ('g', 'w')",
    "update pgtrickle.relay_instances set heartbeat_at = now()",
    "delete from pgtrickle.relay_instances",
    "insert into pgtrickle.relay_pipeline_status (relay_group_id, pipeline, state) "
    "values ('g', 'p', 'idle')",
    "update pgtrickle.relay_pipeline_status set state = 'running'",
    "delete from pgtrickle.relay_pipeline_status",
    "update pgtrickle.relay_pipeline_control set accept_loss = false",
    "update pgtrickle.relay_replays set next_id = next_id + 1",
    "insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id) values ('g', 'p', 'm') "
    "on conflict (relay_group_id, pipeline, md5(message_id), coalesce(md5(payload), ''), "
    "coalesce(md5(key), ''), coalesce(md5(op), '')) where resolved_at is null do update "
    "set attempts = 5",
    "update pgtrickle.relay_dlq set resolved_at = now(), resolution = 'delivered'",
    "select pgtrickle.relay_housekeeping()",
    "select pgtrickle.pause_relay('p')",
    "select pgtrickle.resume_relay('p')",
    "select pgtrickle.replay_relay('p', 1)",
    "select pgtrickle.relay_dlq_retry_all('p')",
    "select pgtrickle.relay_dlq_purge('1 day')",
    "listen pgtrickle_relay_config",
]
DAEMON_MAY_NOT = [
    "delete from pgtrickle.outbox_orders_stream",
    "update pgtrickle.outbox_orders_stream set payload = '{}'",
    "insert into pgtrickle.outbox_orders_stream (payload) values ('{}')",
    "truncate pgtrickle.outbox_orders_stream",
    "select nextval('pgtrickle.outbox_orders_stream_id_seq')",
    "update pgtrickle.relay_consumer_offsets set last_change_id = 0",
    "delete from pgtrickle.relay_consumer_offsets",
    "update pgtrickle.pgt_outbox_config set purged_below = 0",
    "update pgtrickle.relay_outbox_config set enabled = false",
    "delete from pgtrickle.relay_dlq",
    "delete from pgtrickle.relay_replays",
    "insert into pgtrickle.relay_schema_history (file, checksum, version) values ('x', 'x', 1)",
    "select pgtrickle.delete_relay('p')",
    f"select pgtrickle.set_relay_inbox('q', '{REVERSE}')",
    "select pgtrickle._store_relay('q', 'reverse', '{}', true)",
    "select pgtrickle._purge_outbox(gen_random_uuid(), 1, false)",
    "select * from orders_stream",
    "create table pgtrickle.mine (x int)",
    "set role pgtrickle_owner",
]


@pytest.mark.parametrize("statement", DAEMON_MAY)
def test_the_daemon_s_role_may(running, statement):
    assert may(running.relay_dsn, statement)


@pytest.mark.parametrize("statement", DAEMON_MAY_NOT)
def test_the_daemon_s_role_may_not(running, statement):
    assert not may(running.relay_dsn, statement)


def test_an_administrator_manages_pipelines_of_tables_that_are_their_own(db):
    admin = db.login("relay_admin_login", "pgtrickle_admin")
    db.execute("create schema desk authorization relay_admin_login")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create table desk.orders_stream (id int primary key)")
        connection.execute("set search_path = desk")
        for call in [f"set_relay_outbox('p', '{FLAT}')",
                     "set_relay_outbox('p2', 'orders_stream', null, '{\"type\":\"stdout\"}', 5)",
                     f"set_relay_inbox('i', '{REVERSE}')",
                     "set_relay_inbox('i2', 'x', '{\"type\":\"kafka\"}')",
                     "set_relay('b', '{\"source_type\":\"kafka\",\"sink_type\":\"stdout\"}')",
                     "enable_relay('p')", "disable_relay('p')", "pause_relay('p')",
                     "get_relay_config('p')", "outbox_status('orders_stream')",
                     "relay_housekeeping()", "delete_relay('p')"]:
            connection.execute(f"select pgtrickle.{call}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from pgtrickle.relay_inbox_config")


def test_everybody_else_may_nothing(running):
    stranger = running.login("relay_stranger_login")
    for statement in ("select * from pgtrickle.relay_pipelines",
                      "select * from pgtrickle.list_relay_configs()",
                      "select pgtrickle.enable_relay('p')",
                      "select * from pgtrickle.outbox_orders_stream",
                      "select pgtrickle.relay_housekeeping()"):
        assert not may(stranger, statement)


def test_no_function_is_everybody_s_and_every_definer_pins_its_search_path(db):
    rows = db.execute("""
        select p.oid::regprocedure::text, p.prosecdef, p.proconfig::text,
               coalesce(p.proacl, acldefault('f', p.proowner))::text, r.rolname
        from pg_proc p join pg_roles r on r.oid = p.proowner
        where p.pronamespace = 'pgtrickle'::regnamespace""")
    assert rows
    for name, definer, settings, privileges, owner in rows:
        assert not re.search(r"[{,]=", privileges), f"{name} is executable by PUBLIC"
        assert not definer or "search_path=" in (settings or ""), f"{name} pins no search_path"
        assert owner.startswith("pgtrickle_"), f"{name} belongs to {owner}"


def test_all_that_users_call_is_described(db):
    rows = db.execute("""
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'pgtrickle'::regnamespace and p.proname !~ '^_'
          and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
          and obj_description(p.oid, 'pg_proc') is null""")
    assert rows == []


def test_the_owner_of_it_all_is_harmless(db):
    assert db.execute("""
        select rolname from pg_roles
        where rolname in ('pgtrickle_owner', 'pgtrickle_relay', 'pgtrickle_publisher',
                          'pgtrickle_admin', 'pgtrickle_observer')
          and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolbypassrls
               or rolreplication)""") == []
    assert db.execute("""
        select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid
        where m.member = 'pgtrickle_owner'::regrole and r.rolname not like 'pgtrickle\\_%'""") == []


# Installation

def schema_dump(db):
    done = subprocess.run([os.path.join(postgres_bin_directory(), "pg_dump"), "--schema-only",
                           db.dsn], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(("--", "\\"))]


def test_installing_again_changes_nothing(empty_db):
    install_from_files(empty_db.dsn)
    first = schema_dump(empty_db)
    install_from_files(empty_db.dsn)
    assert schema_dump(empty_db) == first


def test_installing_again_keeps_pipelines_outboxes_and_grants(running):
    before = (configs(running), running.execute("select * from pgtrickle.outbox_orders_stream"),
              running.execute("select * from pgtrickle.relay_consumer_offsets"))
    install_from_files(running.dsn)
    assert before == (configs(running),
                      running.execute("select * from pgtrickle.outbox_orders_stream"),
                      running.execute("select * from pgtrickle.relay_consumer_offsets"))
    assert may(running.relay_dsn, "select * from pgtrickle.outbox_orders_stream")
    insert_rows(running, 1)


def test_a_role_that_is_no_superuser_installs_it_on_a_server_that_never_had_it(own_bare_server):
    with own_bare_server.connect() as connection:
        connection.execute("create role managed login createrole password 's3cret-for-tests'")
        connection.execute("create database app")
        connection.execute("grant create on database app to managed")
    dsn = own_bare_server.dsn("app", user="managed")
    install_from_files(dsn)
    install_from_files(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema own; create table own.orders (id int primary key)")
        connection.execute("select pgtrickle.set_relay_outbox('p', %s, true)",
                           (Jsonb({"stream_table": "own.orders", "sink_type": "stdout"}),))
        connection.execute("insert into own.orders values (1)")
        rows = connection.execute("select pgtrickle.outbox_status('own.orders')").fetchone()[0]
        assert rows["rows"] == 1


@pytest.fixture
def own_bare_server():
    from support.postgres import PostgresServer
    server = PostgresServer("bare-pg").start()
    yield server
    server.stop_immediate()


def test_instances_are_forgotten_after_a_month(db):
    db.execute("insert into pgtrickle.relay_instances (relay_group_id, worker_id, heartbeat_at) "
               "values ('g', 'old', now() - interval '31 days'), ('g', 'new', now())")
    db.execute("select pgtrickle.relay_housekeeping()")
    eventually(lambda: db.execute("select worker_id from pgtrickle.relay_instances") == [("new",)])
