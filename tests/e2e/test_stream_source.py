"""The source `stream`: every committed event once, in the order of the commits, while the sink takes
them and when it did not."""

import json
import os
import random
import threading

import pytest
from support.relay import Relay
from support.stream_database import stream_db, stream_server  # noqa: F401
from support.waiting import eventually


@pytest.fixture
def orders(stream_db):  # noqa: F811
    stream_db.execute(f"grant create on database {stream_db.name} to pgstream_owner")
    stream_db.execute("alter table pgstream.events owner to pgstream_owner; alter table pgstream.events_overflow owner to pgstream_owner; alter table pgstream.streams owner to pgstream_owner; alter table pgstream.backlog owner to pgstream_owner; alter sequence pgstream.events_seq owner to pgstream_owner")
    stream_db.execute("""
        create table public.orders (id int generated always as identity primary key, note text);
        insert into pgstream.subscriptions
          (key, stream_id, operation, schema_name, table_name, column_names)
        values ('orders', 1, 'INSERT', 'public', 'orders', array['id', 'note'])""")
    yield stream_db
    for (slot,) in stream_db.execute("select slot_name from pg_replication_slots "
                                     "where database = current_database()"):
        stream_db.execute("select pg_drop_replication_slot(%s)", (slot,))


def config(database, tmp_path, **options):
    path = tmp_path / "relay.toml"
    out = tmp_path / "out.jsonl"
    more = "\n".join(f"{name} = {value}" for name, value in options.items())
    path.write_text(f"""
[[pipeline]]
name = "stream"
source = {{ type = "stream", stream = 1, url = "{database.dsn}" }}
sink = {{ type = "file", path = "{out}" }}
{more}
""")
    return path, out


def ids(out):
    if not os.path.exists(out):
        return []
    with open(out) as lines:
        return [json.loads(line)["new"]["id"] for line in lines]


def state(database, relay, out):
    tables = ("streams", "backlog", "events", "events_overflow", "failed_events")
    rows = {t: database.execute(f"select * from pgstream.{t} limit 5") for t in tables}
    return f"{relay.log(40)}\n{rows}\n{ids(out)[:50]} {out.read_text()[:500] if out.exists() else None}"


def test_what_was_committed_comes(orders, db, tmp_path):
    path, out = config(orders, tmp_path)
    orders.execute("insert into public.orders (note) values ('before')")
    with Relay(db.relay_dsn, config=path) as relay:
        eventually(lambda: ids(out) == [1], 20, message=lambda: state(orders, relay, out))
        orders.execute("insert into public.orders (note) select 'x' from generate_series(1, 5)")
        eventually(lambda: ids(out) == [1, 2, 3, 4, 5, 6], 20, message=lambda: state(orders, relay, out))
