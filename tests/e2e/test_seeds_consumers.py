"""The statements of the report on downstream consumers (../seeds/004) run as they stand.

Approach A is the alerts, B and C are change feeds, D is publications; E, an outbox with delivery, is
what pipelines and groups are. `:cursor` and the like are a client's variables.
"""

import json
import re

import pytest

from support.stream_tables import Listener
from support.waiting import eventually
from test_seeds import SEEDS


def example(name, **variables):
    text = (SEEDS / "004" / name).read_text()
    for variable, value in variables.items():
        text = text.replace(f":{variable}", str(value))
    return text


def statements(name, **variables):
    return [part for part in example(name, **variables).split(";\n") if part.strip()]


@pytest.fixture
def totals(db):
    """The stream table that the report speaks of, with the primary key that it shows."""
    db.execute("create table orders (id int primary key, customer int, amount numeric)")
    db.execute("insert into orders select i, i % 60, 1 from generate_series(1, 120) i")
    db.execute("select pgtrickle.create_stream_table('order_totals', 'select customer, sum(amount) as total "
               "from orders group by customer', null, key_columns => array['customer'])")
    return db


def refresh(db):
    db.execute("select pgtrickle.refresh_stream_table('order_totals')")


# What already exists -------------------------------------------------------------------------

def test_each_alert_has_the_fields_that_are_shown(totals):
    shown = {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in
             re.findall(r"^\| `(\w+)` \| (.*?) \|", example("alerts.md"), re.MULTILINE)}
    heard = Listener(totals)
    totals.execute("create function picky(int) returns boolean language sql as 'select true'")
    totals.execute("select pgtrickle.create_stream_table('fragile', 'select id from orders where picky(id)', "
                   "'1s', key_columns => array['id'])")
    refresh(totals)
    totals.execute("create or replace function picky(int) returns boolean language plpgsql as "
                   "$$ begin raise exception 'no answer'; end $$")
    totals.execute("update pgtrickle.pgt_stream_tables set dirty_since = clock_timestamp() - "
                   "interval '1 hour' where pgt_name = 'fragile'")
    totals.execute("select * from pgtrickle.stream_tables_due()")
    for _ in range(3):
        totals.execute("select pgtrickle.relay_refresh_stream_table('fragile')")
    totals.execute("select pgtrickle.alter_stream_table('fragile', resume => true)")
    for event, fields in shown.items():
        alerts = heard.alerts(event)
        assert alerts and all(fields <= set(alert) for alert in alerts), (event, alerts)
    assert len(shown) == 6


def test_a_publication_of_the_stream_table_is_made_as_it_is_shown(totals):
    (create,) = statements("replication.sql")
    totals.execute(create)
    assert totals.execute("select pubname, tablename from pg_publication_tables") == [
        ("my_pub", "order_totals")]
    refresh(totals)  # it can still be written


# Approach A --------------------------------------------------------------------------------

def test_the_notification_has_the_shape_that_is_shown(totals):
    shown = json.loads(example("notify.json"))
    heard = Listener(totals)
    totals.execute("delete from orders where customer < 3")
    totals.execute("insert into orders select 1000 + i, 100 + i, 1 from generate_series(1, 42) i")
    totals.execute("update orders set amount = 2 where customer between 10 and 16")
    refresh(totals)
    [alert] = heard.alerts("refresh_completed")
    assert set(shown) <= set(alert) and set(shown["changes"]) == set(alert["changes"])
    for field in ("event", "stream_table", "action"):
        assert alert[field] == shown[field]
    changes = alert["changes"]
    assert {key: changes[key] for key in ("inserted", "updated", "deleted")} == {
        key: shown["changes"][key] for key in ("inserted", "updated", "deleted")}
    assert sorted(changes["affected_pks"]) == sorted(
        [*range(101, 143), *range(10, 17), *range(3)]) and changes["truncated"] is False
    assert isinstance(alert["duration_ms"], int) and alert["data_timestamp"]


def test_a_notification_that_is_too_long_is_truncated_and_says_so(totals):
    heard = Listener(totals)
    totals.execute("insert into orders select 10000 + i, 10000000 + i, 1 from generate_series(1, 5000) i")
    refresh(totals)
    [alert] = heard.alerts("refresh_completed")
    assert alert["changes"]["inserted"] == 5000 and alert["changes"]["truncated"] is True
    assert 100 < len(alert["changes"]["affected_pks"]) < 5000
    assert len(heard.payloads[0].encode()) < 8000


# Approaches B, C and D -----------------------------------------------------------------------

def test_the_change_feed_is_made_read_and_cleaned_as_it_is_shown(totals, relay):
    create, read, clean = statements("change_feed.sql", cursor=0)
    with relay:
        totals.execute(create)
        totals.execute("insert into orders values (1000, 1000, 5)")
        refresh(totals)
        eventually(lambda: totals.execute(read), 30)
        oid = totals.one("select 'order_totals'::regclass::oid")
        (buffer,) = statements("output_buffer.sql", last_seen_id=0)
        assert totals.execute(buffer.replace("12345", str(oid))) == totals.execute(read)
        totals.execute(clean)


def test_the_publication_is_made_by_the_function_that_is_shown(totals):
    (create,) = statements("publication.sql")
    totals.execute(create)
    assert totals.execute("select tablename from pg_publication_tables") == [("order_totals",)]
    refresh(totals)
