"""Key columns that are renamed, swapped or dropped under a running pipeline: each row has its key."""

import pytest

from support.pipelines import Lines, set_outbox, to_file
from support.relay import Relay
from support.waiting import eventually


def last_error(relay, pipeline="p"):
    return relay.pipeline(pipeline)["last_error"] or ""


def keys(lines):
    """(op, key as the message has it) of each row message."""
    return [(m["op"], m["key"]) for m in lines.messages()]


def upkeep(db):
    db.execute("select pgtrickle.outbox_capture_upkeep()")


@pytest.mark.parametrize("captured", ["statement", "row"])
@pytest.mark.parametrize("started", ["before", "after"], ids=lambda when: f"relay started {when}")
def test_each_row_has_the_key_by_the_names_of_its_moment(db, relay_bin, tmp_path, captured, started):
    # `note` looks like the key after the columns have swapped their names.
    db.execute("""create table orders ("the id" int primary key, note int, big text)""")
    db.execute("select pgtrickle.enable_outbox('orders', capture => %s, inline_threshold_rows => 5)",
               (captured,))
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, message="row", full_refresh="skip"))
    relay = Relay(db.relay_dsn)
    if started == "before":
        relay.start()
    db.execute("insert into orders values (1, 91)")
    # Swapped, in a transaction that writes under both names.
    with db.connect(autocommit=False) as swap:
        swap.execute("insert into orders values (2, 92)")
        swap.execute('alter table orders rename "the id" to tmp')
        swap.execute('alter table orders rename note to "the id"')
        swap.execute("alter table orders rename tmp to note")
        swap.execute("insert into orders values (3, 93)")
        swap.commit()
    db.execute('update orders set "the id" = 191 where note = 1')
    upkeep(db)
    db.execute('delete from orders where note = 2')
    db.execute("insert into orders select n, 900 + n from generate_series(10, 19) n")
    upkeep(db)
    # Renamed to what a statement must quote, and back to the first name.
    db.execute("""alter table orders rename note to "q""uo\\te é" """)
    db.execute("insert into orders values (4, 94)")
    upkeep(db)
    db.execute("""alter table orders rename "the id" to other""")
    db.execute("""alter table orders rename "q""uo\\te é" to "the id" """)
    db.execute("insert into orders values (5, 95)")
    upkeep(db)
    db.execute("insert into orders values (6, 96)")
    if started == "after":
        relay.start()
    wanted = [("insert", {"the id": 1}), ("insert", {"the id": 2}), ("insert", {"note": 3}),
              ("update", {"note": 1}), ("delete", {"note": 2}),
              *(("insert", {"note": n}) for n in range(10, 20)),
              ("insert", {'q"uo\\te é': 4}), ("insert", {"the id": 5}), ("insert", {"the id": 6})]
    eventually(lambda: len(keys(lines)) >= len(wanted), 20)
    assert keys(lines) == wanted
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0
    if started == "after":
        # A replay of all of them, by the same names.
        db.execute("select pgtrickle.replay_relay('p', 1)")
        eventually(lambda: len(keys(lines)) >= 2 * len(wanted), 20)
        assert keys(lines)[len(wanted):] == wanted
    relay.stop()


def test_what_an_old_snapshot_cannot_record_comes_under_the_new_name(db, relay, tmp_path):
    db.execute("create table orders (id int primary key, note int)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, message="row"))
    with relay, db.connect(autocommit=False) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1 from pg_class limit 1")
        db.execute("alter table orders rename id to number")
        old.execute("insert into orders values (1, 2)")
        old.commit()
        upkeep(db)
        eventually(lambda: lines.rows("number") == [1])
        assert all(key == {"number": 1} for _, key in keys(lines) if key)


def test_rows_that_have_lost_a_key_column_are_delivered_without_a_key(db, relay, tmp_path):
    db.execute("create table orders (a int, b int, note int, primary key (a, b))")
    db.execute("select pgtrickle.enable_outbox('orders')")
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, message="row", full_refresh="skip"))
    with relay:
        db.execute("insert into orders values (1, 2, 3)")
        db.execute("alter table orders drop column b")
        db.execute("insert into orders values (4, 5)")
        db.execute("update orders set note = 6 where a = 4")
        eventually(lambda: len(keys(lines)) == 4, message=lambda: lines.messages())
        upkeep(db)
        db.execute("delete from orders where a = 4")
        eventually(lambda: len(keys(lines)) == 5)
    assert keys(lines) == [("insert", {"a": 1, "b": 2}), ("insert", None), ("delete", None),
                           ("insert", None), ("delete", None)]
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0
    assert "key column b was dropped" in db.one("select problem from pgtrickle.pgt_outbox_config")


def test_a_stream_table_never_delivers_under_a_key_that_is_another_column(db, relay, tmp_path):
    db.execute("create table source (id int primary key, w int)")
    db.execute("insert into source values (1, 3), (2, 3), (3, 1)")
    db.execute("select pgtrickle.create_stream_table('totals', 'select id, w from source', '1h',"
               " key_columns => array['id'])")
    db.execute("select pgtrickle.enable_outbox('totals')")
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("totals", lines.path))
    refresh = "select pgtrickle.refresh_stream_table('totals')"

    def outbox():
        return db.execute("select payload from pgtrickle.outbox_totals order by id")

    with relay:
        # A key column that is renamed: nothing is written before it has its name again.
        db.execute("alter table totals rename id to number; insert into source values (4, 4)")
        failed = db.one(refresh)
        assert failed["action"] == "FAILED" and 'column "id" of relation "totals"' in failed["error"]
        assert not outbox()
        db.execute("alter table totals rename number to id")
        assert db.one(refresh)["inserted"] == 1
        # Two columns that swap their names: all rows are sent, under the key that they have.
        db.execute("alter table totals rename id to tmp; alter table totals rename w to id;"
                   "alter table totals rename tmp to w; update source set w = 30 + id")
        assert db.one(refresh)["action"] == "FULL"
        db.execute("insert into source values (5, 35)")
        assert db.one(refresh)["action"] == "DIFFERENTIAL"
        eventually(lambda: len(lines.messages()) == 3, 20)
    first, whole, last = (m["delta"] for m in lines.messages())
    assert first["inserted"] == [{"id": 4, "w": 4}]
    assert sorted((r["id"], r["w"]) for r in whole["inserted"]) == [(n, 30 + n) for n in (1, 2, 3, 4)]
    assert outbox()[1][0]["full_refresh"] is True
    assert (last["inserted"], last["deleted"]) == ([{"id": 5, "w": 35}], [])
