"""Capture beside triggers of the application: the order of nested writes."""

import contextlib
import threading

import psycopg
import pytest

from support.replay import Replay
from support.waiting import eventually


# Triggers of the user's ------------------------------------------------------------------------

NEIGHBOUR_TRIGGERS = {
    "after row": """
        create function renumber() returns trigger language plpgsql as $$ begin
          update items set pos = pos + 1 where list = new.list and pos >= new.pos and id <> new.id;
          return null; end $$;
        create trigger renumber after insert on items for each row execute function renumber()""",
    "before row": """
        create function renumber() returns trigger language plpgsql as $$ begin
          update items set pos = pos + 1 where list = new.list and pos >= new.pos;
          return new; end $$;
        create trigger renumber before insert on items for each row execute function renumber()""",
    "after statement": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            insert into items select id + 1000, list, pos from added;
            update items set pos = -pos where id in (select id from added);
          end if; return null; end $$;
        create trigger "0" after insert on items referencing new table as added
          for each statement execute function renumber()""",
    "before statement": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            update items set pos = pos + 100; delete from items where pos > 300;
          end if; return null; end $$;
        create trigger renumber before insert on items for each statement
          execute function renumber()""",
    "three levels": """
        create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() > 3 then return null; end if;
          if new.pos < 3 then update items set pos = pos + 1 where list = new.list;
          elsif new.pos < 5 then delete from items where id = new.id - 1;
            update items set list = list + 1 where id = new.id; end if;
          return null; end $$;
        create trigger renumber after insert or update on items for each row
          execute function renumber()""",
}


@pytest.mark.parametrize("capture", ["auto", "row"])
@pytest.mark.parametrize("kind", NEIGHBOUR_TRIGGERS)
def test_user_triggers_that_write_to_the_same_table_are_recorded_in_their_order(db, kind, capture):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => %s)", (capture,))
    db.execute(NEIGHBOUR_TRIGGERS[kind])
    db.execute("insert into items select n, n % 2, n from generate_series(1, 6) n")
    db.execute("insert into items values (11, 0, 2), (12, 1, 2), (13, 0, 2)")
    with contextlib.suppress(psycopg.errors.CardinalityViolation):  # the server's own limit
        db.execute("insert into items values (11, 0, 1), (14, 0, 1) on conflict (id) "
                   "do update set pos = 0")
    db.execute("update items set pos = pos where id % 2 = 0")
    replay = Replay(db, "items")
    replay.check()


def replay_by_key(db, table, key):
    """As a consumer that keeps the last row of each key, and forgets a key when it is deleted.

    An update is recognised by its key, as a row with that key among deleted and inserted ones.
    """
    replay = Replay(db, table)
    have = {}
    for _, _, _, _, _, payload in replay.entries():
        inserted = {row[key]: row for row in payload["inserted"]}
        for row in payload["deleted"]:
            if row[key] not in inserted:
                have.pop(row[key], None)
        have.update(inserted)
    return have


BY_KEY_TRIGGERS = {
    "replaces a row before": ("before insert", """
        delete from items where id = new.id; return new;"""),
    "closes the previous version before": ("before insert", """
        update items set pos = -pos where list = new.list and pos > 0 and id <> new.id;
        return new;"""),
    "gives a freed key away": ("after update", """
        if old.id <> new.id and pg_trigger_depth() = 1 then
          insert into items values (old.id, -1, 0); end if;
        return null;"""),
}


@pytest.mark.parametrize("capture", ["auto", "row"])
@pytest.mark.parametrize("kind", BY_KEY_TRIGGERS)
def test_a_consumer_that_applies_rows_by_key_is_right_too(db, kind, capture):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', capture => %s)", (capture,))
    when, body = BY_KEY_TRIGGERS[kind]
    db.execute(f"""create function meddle() returns trigger language plpgsql as $$ begin
        {body} end $$;
        create trigger meddle {when} on items for each row execute function meddle()""")
    db.execute("insert into items values (1, 0, 1)")
    db.execute("insert into items values (2, 0, 2), (3, 0, 3), (4, 0, 4)")
    if kind == "replaces a row before":
        db.execute("insert into items values (1, 0, 5), (7, 1, 5)")
        db.execute("insert into items values (7, 0, 6), (8, 1, 7), (2, 2, 2)")
    db.execute("update items set id = id + 10 where id in (1, 3)")
    Replay(db, "items").check()
    rows = db.execute("select to_jsonb(x.*) from items x")
    assert replay_by_key(db, "items", "id") == {row["id"]: row for row, in rows}


def test_nested_writes_keep_their_order_among_concurrent_writers(db):
    """The outer statement waits for a row between its nested ones and its end."""
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("insert into items select n, 0, n from generate_series(1, 5) n")
    db.execute("create function audit() returns trigger language plpgsql as $$ begin "
               "insert into items values (old.id + 100, 1, old.pos) on conflict do nothing; "
               "return new; end $$")
    db.execute("create trigger audit before update on items for each row "
               "when (old.id < 100) execute function audit()")
    with db.connect(autocommit=False) as first, db.connect() as second:
        first.execute("delete from items where id = 3")
        waiting = threading.Thread(
            target=second.execute, args=("update items set pos = 0 where id <= 5",))
        waiting.start()
        eventually(lambda: db.one("select count(*) from pg_locks where not granted"))
        first.execute("update items set pos = 77 where id = 5")
        first.commit()
        waiting.join()
    assert db.one("select count(*) from items where pos = 0") == 4
    Replay(db, "items").check()


def test_a_nested_write_around_another_one_without_rows_is_recorded_in_order(db):
    """In a statement that may both insert and update."""
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("""create function renumber() returns trigger language plpgsql as $$ begin
          if pg_trigger_depth() = 1 then
            update items set pos = pos + 1 where list = new.list and id <> new.id;
          else
            delete from items where id = -new.id;
          end if; return null; end $$;
        create trigger renumber after insert or update on items for each row
          execute function renumber()""")
    replay = Replay(db, "items")
    for statement in ("insert into items values (1, 0, 10), (2, 0, 20)",
                      "insert into items values (3, 1, 10), (4, 1, 20)",
                      "insert into items values (3, 2, 30), (5, 2, 20)"):
        db.execute(statement + " on conflict (id) do update set pos = excluded.pos, list = excluded.list")
        replay.check()


def test_a_failed_nested_write_leaves_the_order_intact(db):
    db.execute("create table items (id int primary key, list int, pos int)")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("""create function risky() returns trigger language plpgsql as $$ begin
        begin update items set pos = pos + 1 where id <> new.id; perform 1 / (new.pos - 2);
        exception when division_by_zero then null; end;
        return null; end $$;
        create trigger risky after insert on items for each row execute function risky()""")
    db.execute("insert into items values (1, 0, 1), (2, 0, 2), (3, 0, 3)")
    Replay(db, "items").check()


WRITES_BEFORE = {
    "another table's trigger": "insert into source values (1)",
    "its own trigger": "insert into items values (1, 100), (5, 5)",
}


@pytest.mark.parametrize("then", ["update", "cascade"])
@pytest.mark.parametrize("first", WRITES_BEFORE)
def test_what_triggers_wrote_in_earlier_statements_stays_before_later_ones(db, first, then):
    db.execute("""create table source (id int);
        create table parents (id int primary key); insert into parents values (1);
        create table items (id int primary key, n int,
                            parent int default 1 references parents on update cascade)""")
    db.execute("select pgtrickle.enable_outbox('items')")
    db.execute("""create function feed() returns trigger language plpgsql as $$ begin
          insert into items values (new.id, 1); return null; end $$;
        create trigger feed after insert on source for each row execute function feed();
        create function again() returns trigger language plpgsql as $$ begin
          if new.n = 100 then update items set n = 101 where id = new.id; end if;
          return null; end $$;
        create trigger again after insert on items for each row execute function again()""")
    later = {"update": "update items set n = n + 1",
             "cascade": "update parents set id = id + 1"}[then]
    with db.connect() as connection:
        connection.execute("begin")
        connection.execute(WRITES_BEFORE[first])
        connection.execute(later)
        connection.execute("select 1")
        connection.execute(later)
        connection.execute("commit")
    Replay(db, "items").check()
    db.execute("delete from items; delete from parents; insert into parents values (1)")
    db.execute(f"do $$ begin {WRITES_BEFORE[first]}; {later}; {later}; end $$")
    Replay(db, "items").check()


def test_a_cascade_with_triggers_on_the_child_is_recorded_in_order(db):
    db.execute("create table parents (id int primary key)")
    db.execute("create table children (id int primary key, n int default 0, "
               "parent int references parents on update cascade on delete set null)")
    db.execute("select pgtrickle.enable_outbox('children')")
    db.execute("""create function touch() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() = 1 then
          update children set n = n + 1 where parent is not distinct from new.parent; end if;
        return null; end $$;
        create trigger touch after update on children for each row execute function touch()""")
    db.execute("insert into parents values (1), (2)")
    db.execute("insert into children select n, 0, n % 2 + 1 from generate_series(1, 6) n")
    db.execute("update parents set id = id + 10")
    db.execute("delete from parents where id = 11")
    Replay(db, "children").check()


def test_a_nested_claim_check_moves_with_its_rows(db):
    db.execute("create table items (id int primary key, pos int)")
    db.execute("select pgtrickle.enable_outbox('items', inline_threshold_rows => 3)")
    db.execute("""create function shift() returns trigger language plpgsql as $$ begin
        update items set pos = pos + 1; return null; end $$;
        create trigger shift after insert on items for each row execute function shift()""")
    db.execute("insert into items select n, n from generate_series(1, 6) n")
    Replay(db, "items").check()
    assert db.one("select count(*) from pgtrickle.outbox_delta_rows_items d where not exists "
                  "(select from pgtrickle.outbox_items o where o.id = d.outbox_id)") == 0
