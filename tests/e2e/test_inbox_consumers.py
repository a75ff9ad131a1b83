"""Consumers of inboxes: they mark, fail and replay messages; an id is one message; retention goes on
under load."""

import threading

import psycopg
import psycopg.sql
import pytest

from support.inbox_sql import admin, arrive, ids, inbox
from support.postgres import refusal
from support.waiting import eventually


# Consumers --------------------------------------------------------------------------------------


def test_a_message_is_pending_until_it_is_processed(db, admin, inbox):
    arrive(db, "1", "2")
    assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
    call = "select pgtrickle.inbox_mark_processed('shop', %s)"
    assert admin.execute(call, ("1",)).fetchone()[0] is True
    assert admin.execute(call, ("1",)).fetchone()[0] is False, "it was already"
    assert admin.execute(call, ("9",)).fetchone()[0] is False, "it is not there"
    assert ids(db, "pgtrickle.shop_pending") == ["2"]
    assert db.execute("select event_id, processed from pgtrickle.inbox_shop order by 1") == [
        ("1", True), ("2", False)]


def test_a_message_that_fails_too_often_is_dead_and_can_be_replayed(db, admin, inbox):
    arrive(db, "1", "2")
    for tries in (1, 2, 3):
        assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
        assert admin.execute("select pgtrickle.inbox_mark_failed('shop', '1', 'no stock')"
                             ).fetchone()[0] == tries
    assert ids(db, "pgtrickle.shop_pending") == ["2"]
    assert db.execute("select event_id, error, retry_count from pgtrickle.shop_dlq") == [
        ("1", "no stock", 3)]
    assert admin.execute(
        "select pgtrickle.replay_inbox_messages('shop', array['1', 'x'])").fetchone()[0] == 1
    assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
    assert db.execute("select error, retry_count from pgtrickle.inbox_shop where event_id = '1'") \
        == [(None, 0)]


def test_what_was_processed_does_not_fail_any_more(db, inbox):
    arrive(db, "1")
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    assert db.one("select pgtrickle.inbox_mark_failed('shop', '1', 'late')") is None


def test_status_health_and_stats_count(db, admin, inbox):
    assert db.one("select pgtrickle.inbox_health('shop')")["status"] == "healthy"
    arrive(db, "1", "2", "3", "4")
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    for _ in range(3):
        db.execute("select pgtrickle.inbox_mark_failed('shop', '2', 'x')")
    health = admin.execute("select pgtrickle.inbox_health('shop')").fetchone()[0]
    assert (health["status"], health["pending"], health["dead_letters"]) == ("degraded", 2, 1)
    assert admin.execute("select inbox, table_name, pending, dead_letters, max_retries, "
                         "retention_hours from pgtrickle.inbox_status()").fetchall() == [
        ("shop", "pgtrickle.inbox_shop", 2, 1, 3, 72)]
    assert admin.execute("select event_type, total, processed, pending, dead_letters from "
                         "pgtrickle.shop_stats").fetchall() == [("order", 4, 1, 2, 1)]
    assert len(admin.execute("select * from pgtrickle.inbox_status('inbox_shop')").fetchall()) == 1


def test_what_waits_for_long_is_not_healthy(db, inbox):
    arrive(db, "1", age="10 minutes")
    health = db.one("select pgtrickle.inbox_health('shop')")
    assert health["status"] == "degraded" and 590 < health["oldest_pending_seconds"] < 700
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    assert db.one("select pgtrickle.inbox_health('shop')")["status"] == "healthy"


def test_pending_messages_can_be_taken_by_several_consumers(db, inbox):
    arrive(db, "1", "2")
    take = ("select event_id from pgtrickle.shop_pending order by received_at "
            "limit 1 for update skip locked")
    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as other:
        assert {one.execute(take).fetchone()[0], other.execute(take).fetchone()[0]} == {"1", "2"}


# One id, one message ----------------------------------------------------------------------------


# type of the column, what is stored, {what is given: which row it is}
IDS = [
    ("varchar(3)", ["abc"], {"abc": "abc", "abcd": None, "abc ": None, "ABC": None}),
    ("name", ["n" * 63], {"n" * 63: "n" * 63, "n" * 64: None, "n" * 62: None}),
    ("char(3)", ["ab "], {"ab": "ab ", "ab ": "ab ", "abcd": None, "ab     ": "ab ", " ab": None}),
    ("bpchar", ["ab "], {"ab": "ab ", "abc": None}),
    ("text", ["é", "E'\\'"], {"é": "é", "e": None, "E'\\'": "E'\\'", "": None, "%s": None}),
    ("numeric(6,0)", ["7"], {"7": "7", "7.4": None, "6.5": None, "7.0": None, "007": None}),
    ("numeric", ["1.10"], {"1.10": "1.10", "1.1": None, "1.100": None}),
    ("int", ["7"], {"7": "7", "007": None, " 7": None, "+7": None}),
    ("bigint", ["7"], {"7": "7", "07": None}),
    ("float8", ["0.1"], {"0.1": "0.1", "0.10000000000000001": None, "1e-1": None}),
    ("uuid", ["00000000-0000-0000-0000-00000000000a"],
     {spelling: "00000000-0000-0000-0000-00000000000a"
      for spelling in ("00000000-0000-0000-0000-00000000000a",
                       "{00000000-0000-0000-0000-00000000000A}")}),
    ("timestamp(0)", ["2020-01-01 00:00:00"], {"2020-01-01 00:00:00": "2020-01-01 00:00:00",
                                               "2020-01-01 00:00:00.4": None}),
    ('"char"', ["a"], {"a": "a", "ab": None}),
    ("mood", ["sad"], {"sad": "sad"}),
    ("short", ["abc"], {"abc": "abc", "abcd": None}),
    ("shorter", ["abc"], {"abc": "abc", "abcd": None}),
    ("public.citext", ["Abc"], {"Abc": "Abc", "abc": None, "ABC": None}),
    ("text collate folded", ["Abc"], {"Abc": "Abc", "abc": None, "ABC": None}),
    ("varchar(3) collate folded", ["Abc"], {"Abc": "Abc", "abc": None, "Abcd": None}),
    ("text collate \"C\"", ["Abc"], {"Abc": "Abc", "abc": None}),
]


def types_of_ids(db):
    """The types above; those that this server cannot have are left out."""
    db.execute("create type mood as enum ('sad'); create domain short as varchar(3);"
               "create domain shorter as short check (length(value) < 4)")
    missing = set()
    for what, statement in (
            ("citext", "create extension citext"),
            ("folded", "create collation folded (provider = icu, locale = 'und-u-ks-level2', "
                       "deterministic = false)")):
        try:
            db.execute(statement)
        except psycopg.Error:
            missing.add(what)
    return [case for case in IDS if not any(what in case[0] for what in missing)]


def test_an_id_means_the_row_that_has_it_letter_by_letter(db):
    """Not the one that has what the column's type makes of it. Under a unique index of any kind."""
    cases = types_of_ids(db)
    assert len(cases) >= len(IDS) - 3
    for number, (kind, stored, given) in enumerate(cases):
        db.execute(f"create table t{number} (id {kind} primary key, payload jsonb, "
                   "done timestamptz, tries int)")
        for value in stored:
            db.execute(psycopg.sql.SQL("insert into {} (id) values ({})").format(
                psycopg.sql.Identifier(f"t{number}"), value))
        db.execute(f"select pgtrickle.enable_inbox_tracking('t{number}', 't{number}', "
                   """'{"event_id": "id", "processed_at": "done", "retry_count": "tries"}')""")
        for text, row in given.items():
            did = db.execute(
                f"select pgtrickle.inbox_mark_failed('t{number}', %s) is not null,"
                f" pgtrickle.inbox_mark_processed('t{number}', %s)", (text, text))
            changed = db.execute(f"select format('%s', id) from t{number} "
                                 "where done is not null and tries = 1")
            assert (did, changed) == ([(row is not None,) * 2], [(row,)] if row else []), \
                (kind, text)
            assert db.one(f"select pgtrickle.replay_inbox_messages('t{number}', %s)",
                          ([text, text],)) == (1 if row else 0), (kind, text)
            assert db.one(f"select count(*) from t{number} "
                          "where done is not null or tries > 0") == 0


def test_marking_reads_no_more_than_the_index_of_the_id(db):
    db.execute("create domain key as varchar(40)")
    types_of_ids(db)
    kinds = ["text", "varchar(40)", "name", "char(40)", "key", "numeric(9,0)", "int", "uuid",
             "public.citext", "text collate folded"]
    if db.one("select count(*) from pg_extension where extname = 'citext'") == 0:
        kinds.remove("public.citext")
    if db.one("select count(*) from pg_collation where collname = 'folded'") == 0:
        kinds.remove("text collate folded")
    for number, kind in enumerate([*kinds, "text with another index"]):
        table = f"t{number}"
        value = "md5(i::text)::uuid" if kind == "uuid" else "i::text::" + kind.split(" ")[0]
        db.execute(f"create table {table} (event_id {kind.split(' with')[0]}, payload jsonb, "
                   "processed_at timestamptz, retry_count int);"
                   f"insert into {table} select {value} from generate_series(1, 3000) i;"
                   f"create unique index on {table} (event_id"
                   + (' collate "C"' if "another" in kind else "") + f"); analyze {table};"
                   f"select pgtrickle.enable_inbox_tracking('{table}', '{table}')")
        one = db.one(f"select format('%s', event_id) from {table} limit 1")
        with db.connect(autocommit=False) as consumer:
            scans = "select seq_scan from pg_stat_xact_user_tables where relname = %s"
            for call, given in (("inbox_mark_failed", one), ("inbox_mark_processed", one),
                                ("replay_inbox_messages", [one])):
                consumer.execute(f"select pgtrickle.{call}(%s, %s)", (table, given))
            assert consumer.execute(scans, (table,)).fetchone() == (0,), kind
            assert consumer.execute(
                "select idx_scan from pg_stat_xact_user_tables where relname = %s",
                (table,)).fetchone()[0] >= 3


def test_an_id_that_a_child_has_as_well_is_one_message(db):
    """No index spans an inherited table: all rows of the id go the same way."""
    db.execute("create table messages (event_id text primary key, payload jsonb, error text, "
               "processed_at timestamptz, retry_count int);"
               "create table low (extra int, primary key (event_id)) inherits (messages);"
               "create table lowest () inherits (low);"
               "insert into messages values ('1', '{}', null, null, 0), ('2', '{}', null, null, 0);"
               "insert into low values ('1', '{}', null, null, 4), ('3', '{}', null, null, 4);"
               "insert into lowest values ('1');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', max_retries => 9, "
               "  retention_hours => 1)")
    assert db.one("select pgtrickle.inbox_mark_failed('m', '1', 'x')") == 5, "the highest count"
    assert db.execute("select retry_count from messages where event_id = '1' order by 1") == [
        (1,), (1,), (5,)]
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert ids(db, "m_pending") == ["2", "3"]
    assert db.one("select pgtrickle.replay_inbox_messages('m', '{1,3}')") == 4
    assert db.one("select pgtrickle.inbox_health('m')")["pending"] == 5
    # Retention looks at each row.
    db.execute("update only messages set processed_at = now() - interval '2 hours' "
               "where event_id = '1'")
    assert db.one("select pgtrickle.relay_housekeeping()")["inbox_rows"] == 1
    assert db.execute("select tableoid::regclass::text, event_id from messages order by 1, 2") == [
        ("low", "1"), ("low", "3"), ("lowest", "1"), ("messages", "2")]


SHAPES = {
    "partitions": "create table messages ({columns}, primary key (event_id)) "
                  "  partition by range (event_id);"
                  "create table low partition of messages for values from ('0') to ('5');"
                  "create table high partition of messages for values from ('5') to ('a') "
                  "  partition by hash (event_id);"
                  "create table even partition of high for values with (modulus 2, remainder 0);"
                  "create table odd partition of high for values with (modulus 2, remainder 1)",
    "children": "create table messages ({columns}, primary key (event_id));"
                "create table low (extra text default 'x', primary key (event_id)) "
                "  inherits (messages);"
                "create table high () inherits (low)",
}
SHAPE_COLUMNS = ("event_id text, payload jsonb, processed_at timestamptz, error text, "
                 "retry_count int, received_at timestamptz default now()")


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_those_of_all_parts(db, shape):
    db.execute(SHAPES[shape].format(columns=SHAPE_COLUMNS) + ";"
               "select pgtrickle.enable_inbox_tracking('m', 'messages')")
    parts = ("low", "even", "odd") if shape == "partitions" else ("messages", "low", "high")
    if shape == "partitions":
        db.execute("insert into messages select i from generate_series(10, 99) i")
    else:
        for number, part in enumerate(parts):
            db.execute(f"insert into {part} select i from generate_series({number * 30 + 10}, "
                       f"{number * 30 + 39}) i")
    assert all(db.one(f"select count(*) from only {part}") for part in parts)
    db.execute("update messages set processed_at = now() where event_id < '20';"
               "update messages set retry_count = 3 where event_id like '_0'")

    def numbers():
        return db.execute("select pending, dead_letters, total from pgtrickle.inbox_status('m')")

    assert numbers() == [(72, 8, 80)], "not counted by the server yet"
    db.execute("analyze messages" + "".join(f", {part}" for part in parts if part != "messages"))
    assert numbers() == [(72, 8, 90)]
    health = db.one("select pgtrickle.inbox_health('m')")
    assert (health["pending"], health["dead_letters"]) == (72, 8)
    assert db.execute("select total, processed, pending, dead_letters from m_stats") == [
        (90, 10, 72, 8)]


class Load:
    """Consumers of an inbox in threads of their own; what they raise is raised at the end."""

    def __init__(self, db, *works):
        self._db, self._errors, self._alive = db, [], len(works)
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()

    def _run(self, work):
        try:
            with self._db.connect() as connection:
                work(connection)
        except Exception as error:  # noqa: BLE001
            self._errors.append(error)
        finally:
            self._alive -= 1

    @property
    def running(self):
        return self._alive > 0

    def end(self):
        for thread in self._threads:
            thread.join()
        assert self._errors == []


@pytest.mark.parametrize("shape", SHAPES)
def test_retention_under_load_takes_what_was_processed_and_nothing_else(db, shape):
    """Rows are marked, replayed, inserted and moved between the parts meanwhile. The payload of a
    row says which it is, whatever becomes of its id and its place."""
    db.execute(SHAPES[shape].format(columns=SHAPE_COLUMNS) + ";"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', retention_hours => 1)")
    put = {"partitions": ["messages"] * 2, "children": ["messages", "high"]}[shape]
    for digit, part, done in (("1", put[0], "now() - interval '2 hours'"), ("8", put[1], "null")):
        db.execute(f"insert into {part} (event_id, payload, processed_at) "
                   f"select '{digit}' || i, to_jsonb('{digit}' || i), {done} "
                   "from generate_series(100, 149) i")
    pending = {f"8{i}" for i in range(100, 150)}
    marked = {f"9{i}" for i in range(100, 150)}
    replayed = set()
    old_ones = [(f"1{i}",) * 2 for i in range(120, 150)]  # id and payload; the other 20 must go
    all_arrived = threading.Event()

    def relocate(connection, identity, other, here, there):
        """To another part, under another id where that decides; the new id."""
        if shape == "partitions":
            connection.execute("update messages set event_id = %s where event_id = %s",
                               (other, identity))
            return other
        connection.execute(
            f"with gone as (delete from only {here} where event_id = %s "
            "returning event_id, payload, processed_at) "
            f"insert into {there} (event_id, payload, processed_at) table gone", (identity,))
        return identity

    def arrive_and_mark(connection):
        for i in range(100, 150):
            for digit in "059":
                connection.execute("insert into messages (event_id, payload) "
                                   "values (%s, to_jsonb(%s::text))", (f"{digit}{i}",) * 2)
            connection.execute("select pgtrickle.inbox_mark_processed('m', %s)", (f"9{i}",))
            for digit in "05":
                identity = f"{digit}{i}"
                connection.execute("update messages set processed_at = now() - interval '2 hours' "
                                   "where event_id = %s", (identity,))
                if digit == "0":
                    identity = relocate(connection, identity, f"7{i}", "messages", "high")
                old_ones.append((identity, f"{digit}{i}"))
        all_arrived.set()

    def replay(connection):
        """Of what may be deleted: what was still there stays from now on."""
        while old_ones or not all_arrived.is_set():
            if old_ones:
                identity, payload = old_ones.pop()
                if connection.execute("select pgtrickle.replay_inbox_messages('m', %s)",
                                      ([identity],)).fetchone()[0]:
                    replayed.add(payload)

    def move(connection):
        """Pending rows go from part to part, and back."""
        for turn in range(4):
            for i in range(100, 150):
                step = 1 if turn % 2 == 0 else -1
                relocate(connection, *(f"8{i}", f"2{i}")[::step], *("high", "messages")[::step])

    load = Load(db, arrive_and_mark, replay, move)
    eventually(lambda: len(replayed) > 10 or not load.running)
    deleted = 0
    while True:
        last = not load.running
        report = db.one("select pgtrickle.relay_housekeeping(7)")
        deleted += report.get("inbox_rows", 0)
        assert all("moved to another partition" in e["error"] for e in report["errors"]), report
        if last and not report["more"]:
            break
    load.end()
    found = db.execute("select payload #>> '{}', processed_at is null from messages")
    assert len(found) == len(set(found))
    assert {row[0] for row in found if row[1]} == pending | replayed
    assert {row[0] for row in found if not row[1]} == marked
    assert deleted == 50 + 100 - len(replayed)
    assert deleted >= 20 and len(replayed) > 10, "both were tried"


def test_an_inbox_with_a_foreign_table_below_it_is_refused(db):
    """Its server may change other rows than those that we name."""
    db.execute("create table messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); insert into messages values ('1');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', retention_hours => 1);"
               "create foreign data wrapper far; create server far foreign data wrapper far;"
               "create foreign table kid () inherits (messages) server far")
    problem = "kid is a foreign table, whose rows cannot be told apart"
    assert problem in refusal(db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert problem in db.one("select pgtrickle.relay_housekeeping()")["errors"][0]["error"]
    health = db.one("select pgtrickle.inbox_health('m')")
    assert (health["status"], problem in health["problem"]) == ("refused", True)
    db.execute("alter foreign table kid no inherit messages")
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
