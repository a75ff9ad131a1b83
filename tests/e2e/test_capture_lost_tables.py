"""A table of an outbox is dropped, renamed or moved by hand: the application's statements go on, and
`check`, outbox_status and /health say that changes are not recorded."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.checks import check, problems
from support.pipelines import make_table, to_file, set_outbox
from support.relay import Relay
from support.replay import Replay
from support.waiting import eventually

OUTBOX = "pgtrickle.outbox_items"
DELTA = "pgtrickle.outbox_delta_rows_items"
LOST = {  # what takes the table away, and what brings it back
    "dropped": (f"drop table {OUTBOX} cascade", None),
    "renamed": (f"alter table {OUTBOX} rename to kept",
                "alter table pgtrickle.kept rename to outbox_items"),
    "moved": (f"alter table {OUTBOX} set schema public",
              "alter table public.outbox_items set schema pgtrickle"),
    "its delta rows dropped": (f"drop table {DELTA}", None),
    "its delta rows renamed": (f"alter table {DELTA} rename to kept",
                               "alter table pgtrickle.kept rename to outbox_delta_rows_items"),
}
SHAPES = {
    "statement": "id int primary key, part int",
    "row": "id int primary key, part int",
    "partitioned": "id int, part int, primary key (id, part)",
    "deferred": "id int, part int, primary key (id) deferrable initially deferred",
}
STATEMENTS = [
    "insert into items values (1, 1)",
    "insert into items select n, n % 2 from generate_series(2, 100) n",
    "insert into items (id, part) select n, 1 from generate_series(101, 2000) n",
    "update items set id = id where id = 1",
    "update items set id = -id",
    "merge into items using (values (-1), (7)) v (n) on id = v.n"
    " when matched then delete when not matched then insert values (v.n, 1)",
    "delete from items where id = 7",
    "with a as (insert into items values (8, 0)) update items set part = 1 - part where id = -2",
    "do $$ begin insert into items values (9, 1); raise exception ''; exception when others then end $$",
    "truncate items",
    "insert into items values (11, 1), (12, 0)",
]


def make_items(db, shape, rows=50):
    """The table `items`, captured; a statement with more than `rows` rows is a claim check."""
    db.execute(f"create table items ({SHAPES[shape]})"
               + (" partition by list (part)" if shape == "partitioned" else ""))
    if shape == "partitioned":
        db.execute("create table items_0 partition of items for values in (0);"
                   "create table items_1 partition of items for values in (1)")
    db.execute("select pgtrickle.enable_outbox('items', inline_threshold_rows => %s, capture => %s)",
               (rows, "row" if shape == "row" else "auto"))
    return Replay(db, "items")


def misses(db):
    return [why for why, in db.execute("select why from pgtrickle_internal.outbox_misses")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("what", LOST)
def test_no_statement_of_the_application_fails(db, shape, what):
    make_items(db, shape)
    db.execute(LOST[what][0])
    statements = STATEMENTS[:]
    if shape == "partitioned":
        statements.insert(-2, "truncate items_1")
    for autocommit in (True, False):
        with db.connect(autocommit=autocommit) as application:
            for statement in statements:
                application.execute(statement)
        assert db.one("select count(*) from items") == 2
        db.execute("truncate items")


@pytest.mark.parametrize("shape", ["statement", "row"])
@pytest.mark.parametrize("what", LOST)
def test_no_nested_statement_of_the_application_fails(db, shape, what):
    make_items(db, shape)
    db.execute("""
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            update items set part = part + 1 where id = new.id;
            insert into items values (-new.id, 0);
            delete from items where id = -new.id;
          end if;
          return new;
        end $$;
        create trigger renumber after insert or update on items
          for each row execute function renumber()""")
    db.execute(LOST[what][0])
    db.execute("insert into items values (1, 1)")
    db.execute("insert into items select n, 1 from generate_series(2, 10) n")
    db.execute("update items set id = id + 100")
    assert db.one("select sum(part) from items") == 30
    assert len(misses(db)) == 1


@pytest.mark.parametrize("shape", ["statement", "row", "deferred"])
@pytest.mark.parametrize("what", LOST)
def test_no_statement_fails_that_waits_while_the_table_goes(db, shape, what):
    make_items(db, shape)
    large = "insert into items select n, {0} from generate_series(1, 100) n"
    if shape == "row" and "delta" in LOST[what][0]:  # the one row that needs it
        db.execute("alter table items add body text")
        db.execute("select pgtrickle.outbox_capture_upkeep()")
        large = ("insert into items select 1, {0}, string_agg(md5(n::text), '') "
                 "from generate_series(1, 40000) n")
    with (db.connect(autocommit=False) as owner, db.connect() as application,
          ThreadPoolExecutor() as pool):
        application.execute(large.format(0))  # with plans
        application.execute("delete from items")
        owner.execute(LOST[what][0])
        statement = pool.submit(application.execute, large.format(1))
        eventually(lambda: db.one("select count(*) from pg_locks where not granted") == 1, 30)
        owner.commit()
        statement.result()
    assert db.one("select min(part) from items") == 1
    assert misses(db) != []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("what", [what for what in LOST if LOST[what][1]])
def test_a_table_that_comes_back_gets_all_rows(db, shape, what):
    replay = make_items(db, shape)
    db.execute("insert into items values (1, 1)")
    lose, bring_back = LOST[what]
    db.execute(lose)
    db.execute("insert into items select n, n % 2 from generate_series(2, 100) n")
    db.execute("delete from items where id < 30")
    missed = misses(db) != []
    assert missed or lose.startswith(f"alter table {DELTA}")  # which row triggers need for large rows
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    db.execute("update items set part = 1 - part")
    db.execute(bring_back)
    db.execute("insert into items values (1000, 1)")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    replay.check(strict=not missed)
    assert replay.config("problem") is None and misses(db) == []
    db.execute("insert into items values (1001, 1)")
    replay.check(strict=not missed)
    assert db.one("select pgtrickle.outbox_status('items')")["recording"] is True


def test_what_is_missed_is_noted_once(db):
    make_items(db, "statement")
    db.execute(LOST["dropped"][0])
    for number in range(20):
        db.execute("insert into items values (%s, 1)", (number,))
    assert misses(db) == ["the table of the outbox was gone"]


def test_it_is_told_and_the_outbox_can_be_made_anew(db, relay_bin, tmp_path):
    make_table(db, "items")
    file = tmp_path / "rows.jsonl"
    set_outbox(db, "rows", to_file("items", file))
    gone = "changes are not recorded"
    db.execute("insert into items values (0, 'a', 0)")
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: file.exists() and file.read_text(), 30)  # the pipeline reads
        db.execute(LOST["dropped"][0])
        db.execute("insert into items values (1, 'a', 1)")
        eventually(lambda: gone in str(relay.health()[1]), 30)
    status = db.one("select pgtrickle.outbox_status('items')")
    assert gone in status["problem"] and f"the table {OUTBOX} is gone" in status["problem"]
    assert "enable_outbox('public.items')" in status["problem"]
    assert status["recording"] is False and status["not_recorded_since"]
    assert (status["rows"], status["held_by"]) == (None, None)
    code, told = check(db)
    assert code != 0
    (message, remedy), = [each for each in problems(told, "") if "outbox_items" in each[0]]
    assert "is gone: its table was dropped" in message and "are not recorded" in message
    db.execute(remedy.partition(": ")[2])
    db.execute("insert into items values (2, 'b', 2)")
    assert db.one(f"select count(*) from {OUTBOX}") == 1
    assert db.one("select pgtrickle.outbox_status('items')")["problem"] is None


@pytest.mark.parametrize("missed", [False, True])
def test_a_lost_table_of_delta_rows_is_told(db, relay_bin, missed):
    make_items(db, "statement")
    db.execute(LOST["its delta rows dropped"][0])
    if missed:
        db.execute("insert into items select n, 1 from generate_series(1, 100) n")
        db.execute("select pgtrickle.outbox_capture_upkeep()")
    found = problems(check(db)[1], "")
    assert any(DELTA in message and "is gone" in message for message, _ in found), found
    status = db.one("select pgtrickle.outbox_status('items')")
    assert status["recording"] is False
    assert f"the table {DELTA} is gone" in status["problem"]
    assert "enable_outbox('public.items')" in status["problem"]
