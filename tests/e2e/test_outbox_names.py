"""A name comes to mean another table, or two, under a pipeline that reads by it."""

import json

import pytest

from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for


def last_error(relay, pipeline="p"):
    return relay.pipeline(pipeline)["last_error"] or ""


def test_a_second_table_of_the_name_leaves_a_pipeline_where_its_position_stands(db, relay_bin,
                                                                                tmp_path):
    make_table(db)
    lines, there = Lines(tmp_path / "p.jsonl"), Lines(tmp_path / "q.jsonl")
    config = to_file("orders", lines.path, subject_template="{schema}.{stream_table}",
                     headers={"where": "{schema}"}, wire_format="cloudevents")
    set_outbox(db, "p", config)
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1)
        eventually(lambda: len(lines.messages()) == 1)
    db.execute("create schema archive")
    make_table(db, "archive.orders")
    with Relay(db.relay_dsn) as relay:
        # Its configuration can still be changed, and checked.
        db.execute("select pgtrickle.enable_relay('p')")
        checked = run_command("check", "--postgres-url", db.relay_dsn)
        assert "ambiguous" not in checked.stdout + checked.stderr
        insert_rows(db, "archive.orders", 7)
        insert_rows(db, "orders", 2)
        eventually(lambda: len(lines.messages()) == 2)
        # A pipeline that is new is told; with the schema it knows which.
        db.execute("insert into pgtrickle.relay_outbox_config (name, enabled, config)"
                   " values ('new', true, %s::jsonb)",
                   (json.dumps(to_file("orders", tmp_path / "new.jsonl")
                               | {"source_type": "outbox"}),))
        eventually(lambda: "ambiguous" in last_error(relay, "new"), 20)
        db.execute("select pgtrickle.disable_relay('new')")
        set_outbox(db, "q", config | {"stream_table": "archive.orders",
                                      "sink": {"type": "file", "path": there.path}})
        eventually(lambda: len(there.messages()) == 1)
        # Rows of the other table are not held back for it.
        status = db.one("select pgtrickle.outbox_status('archive.orders')")
        assert [entry["pipeline"] for entry in status["positions"]] == ["q"]
        assert db.execute("select distinct pipeline from pgtrickle_internal.outbox_holders(%s)",
                          (status["incarnation"],)) == [("q",)]
    for found, schema, ids in ((lines, "public", [1, 2]), (there, "archive", [7])):
        messages = found.messages()
        assert [m["streamschema"] for m in messages] == [schema] * len(ids)
        assert [m["streamtable"] for m in messages] == ["orders"] * len(ids)
        assert [m["data"]["delta"]["inserted"][0]["id"] for m in messages] == ids


def make_ordinary(db, name):
    db.execute(f"create table {name} (id int primary key, v text)")


def make_stream(db, name):
    db.execute(f"create table {name}_source (id int primary key, v text)")
    db.execute("select pgtrickle.create_stream_table(%s, %s, '1h')",
               (name, f"select id, v from {name}_source"))


def write(db, name, row, made_as=None):
    """A row into a table, or through its source into a stream table."""
    source = f"{made_as or name}_source"
    if db.one("select to_regclass(%s)", (source,)):
        db.execute(f"insert into {source} values ({row}, 'x')")
        db.execute("select pgtrickle.refresh_stream_table(%s)", (name,))
    else:
        db.execute(f"insert into {name} values ({row}, 'x')")


@pytest.mark.parametrize("make", [make_ordinary, make_stream], ids=["table", "stream table"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "restarted"])
def test_a_pipeline_stops_where_its_table_lost_the_name_to_another(db, relay_bin, tmp_path, make,
                                                                   running):
    make(db, "totals")
    make(db, "green")
    outbox = db.one("select pgtrickle.enable_outbox('totals')")
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("totals", lines.path))
    relay = Relay(db.relay_dsn).start()
    write(db, "totals", 1)
    lines.wait_rows([1])
    if not running:
        relay.stop()
    with db.connect(autocommit=False) as swap:
        swap.execute("alter table totals rename to blue")
        swap.execute("alter table green rename to totals")
        if make is make_ordinary:
            swap.execute("insert into blue values (2, 'x')")
        swap.commit()
    if make is make_stream:
        write(db, "blue", 2, made_as="totals")
    write(db, "blue", 3, made_as="totals")
    if not running:
        relay.start()
    eventually(lambda: f"outbox {outbox} records is called public.blue now" in last_error(relay),
               20)
    assert lines.rows() == [1], "rows of the table that has another name now"

    # An outbox for the other table changes nothing for it, and a new pipeline reads that one.
    second = db.one("select pgtrickle.enable_outbox('totals')")
    assert db.one("select outbox_table_name from pgtrickle.relay_resolve_outbox('totals')") \
        == second
    others = Lines(tmp_path / "others.jsonl")
    set_outbox(db, "new", to_file("totals", others.path))
    write(db, "totals", 10, made_as="green")
    others.wait_rows([10])
    relay.stop()
    relay.start()
    eventually(lambda: "is called public.blue now" in last_error(relay), 20)
    holds_for(lambda: lines.rows() == [1], 0.3)

    # The remedy: the outbox by its own name.
    db.execute("update pgtrickle.relay_outbox_config set config ="
               " jsonb_set(config, '{stream_table}', to_jsonb(%s::text)) where name = 'p'",
               (outbox,))
    lines.wait_rows([1, 2, 3], deadline=25)
    relay.stop()


def test_a_table_that_was_renamed_and_not_replaced_is_read_on(db, relay, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path))
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        db.execute("alter table orders rename to commands")
        insert_rows(db, "commands", 2)
        lines.wait_rows([1, 2])
        # Replaced, the pipeline stops; renamed back, it goes on where it was.
        db.execute("create table orders (id int)")
        insert_rows(db, "commands", 3)
        eventually(lambda: "is another relation" in last_error(relay), 20)
        db.execute("drop table orders; alter table commands rename to orders")
        lines.wait_rows([1, 2, 3], deadline=25)
