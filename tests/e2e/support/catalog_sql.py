"""The catalog of pipelines as SQL sees it."""

import pytest
from psycopg.types.json import Jsonb

NATS_SINK = {"stream_table": "orders_stream", "sink_type": "nats",
             "nats_url": "nats://localhost:4222"}
FLAT = '{"stream_table":"orders_stream","sink_type":"stdout"}'
REVERSE = '{"source_type":"kafka","kafka_brokers":"b","kafka_topic":"t","inbox_name":"x"}'


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


def insert_rows(db, count, table="outbox_orders_stream"):
    db.execute(f"insert into pgtrickle.{table} (payload) "
               "select '{}' from generate_series(1, %s)", (count,))


def report_running(db, name):
    db.execute("insert into pgtrickle.relay_pipeline_status (relay_group_id, pipeline, state) "
               "values ('default', %s, 'running')", (name,))


def incarnation_of(db, name="orders_stream"):
    return db.one("select incarnation from pgtrickle.relay_resolve_outbox(%s)", (name,))


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
