"""adopt_outbox: an application's table is read by the same promise as our own outboxes, and nothing
is done to it."""

import json
import random
import re
import threading
import time

import psycopg
import pytest

from support import attacks
from support.database_side import install
from support.pipelines import (LONG, SLOW_FACTOR, Lines, position, set_outbox, status_row)
from support.postgres import refusal
from support.relay import Relay, run_command
from support.trapped_database import land, run_as  # noqa: F401
from support.waiting import eventually, holds_for

WRITERS = 64
SECONDS = 30 if LONG else 6

EVENTS = """
create schema app;
create table app.events (
  id      bigint generated always as identity primary key,
  kind    text,
  about   int,
  body    jsonb not null,
  meta    jsonb,
  at      timestamptz default clock_timestamp(),
  seen_at timestamptz)
"""
COLUMNS = dict(payload="body", key="about", type="kind", headers="meta", created_at="at")


def adopt(db, table="app.events", **arguments):
    """adopt_outbox of a table like app.events; the outbox's name."""
    arguments = {**COLUMNS, **arguments}
    listed = ", ".join(f"{name} => %({name})s" for name in arguments)
    return db.execute(f"select pgtrickle.adopt_outbox(%(t)s, {listed})",
                      {"t": table, **arguments})[0][0]


def write(db, count=1, table="app.events", kind="made"):
    """Rows in one statement; their ids."""
    return [row[0] for row in db.execute(
        f"insert into {table} (kind, about, body) select %s, n, jsonb_build_object('n', n)"
        " from generate_series(1, %s) n returning id", (kind, count))]


class Events(Lines):
    """Events in a file, each in its envelope."""

    def ids(self):
        """The outbox ids in the order of arrival."""
        return [int(re.search(r":(\d+)-[0-9a-f]{8}:", message["id"])[1])
                for message in self.messages()]

    def first_ids(self):
        """The same without repetitions."""
        return list(dict.fromkeys(self.ids()))

    def wait_ids(self, wanted, deadline=15):
        wanted = list(wanted)
        eventually(lambda: len(self.first_ids()) >= len(wanted), deadline * SLOW_FACTOR,
                   interval=0.05,
                   message=lambda: f"{self.path} ends {self.first_ids()[-5:]}, wanted {len(wanted)}"
                                   f" up to {wanted[-5:]}")
        assert self.first_ids() == wanted


def pipe(db, path, outbox="events", name=None, **options):
    """A pipeline from an adopted outbox into a file."""
    set_outbox(db, name or outbox, {
        "outbox": outbox, "event_envelope": True,
        "sink": {"type": "file", "path": str(path)}, **options})
    return Events(path)


@pytest.fixture
def events(db):
    """The table app.events, adopted."""
    db.execute(EVENTS)
    adopt(db)


@pytest.fixture
def lines(db, events, relay_bin, tmp_path):
    """What a running relay sends of it."""
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn) as relay:
        lines.relay = relay
        yield lines


def told(db, pipeline="events"):
    """The last error of a pipeline, with its remedy; empty where it has none."""
    row = status_row(db, pipeline)
    return f"{row['last_error']}\n{row['remedy']}" if row and row["last_error"] else ""


# What is sent -------------------------------------------------------------------------------

def test_a_row_is_sent_as_an_event_with_its_key_type_and_headers(db, lines):
    db.execute("insert into app.events (kind, about, body, meta)"
               " values ('order.placed', 7, %s, %s)",
               ('{"total": 12.30, "who": "Zoë"}', '{"trace": "t1"}'))
    db.execute("insert into app.events (body) values ('[1, null]')")
    lines.wait_ids([1, 2])
    first, second = lines.messages()
    assert {**first, "id": None} == {
        "id": None, "type": "order.placed", "key": "7", "payload": {"total": 12.30, "who": "Zoë"}}
    assert second["payload"] == [1, None]
    with open(lines.path) as text:
        assert "12.30" in text.read()


def test_nothing_is_installed_on_the_table(db):
    facts = """
        select (select count(*) from pg_trigger where tgrelid = c.oid),
               (select count(*) from pg_rewrite where ev_class = c.oid),
               (select count(*) from pg_policy where polrelid = c.oid),
               (select count(*) from pg_index where indrelid = c.oid),
               (select count(*) from pg_attribute where attrelid = c.oid), c.relacl, c.relfilenode,
               c.relowner
        from pg_class c where c.oid = 'app.events'::regclass"""
    db.execute(EVENTS)
    before = db.execute(facts)
    adopt(db)
    assert db.execute(facts) == before


@pytest.mark.parametrize("column, value, sent", [
    ("text", "'{\"a\": 1}'", '{"a": 1}'),
    ("json", "'{\"a\": 1, \"a\": 2}'", {"a": 2}),
    ("json", r"""'{"a": "\u0000"}'""", {"__pgtrickle_omitted": ["*"]}),
    ("numeric", "1.50", 1.5),
    ("bytea", r"'\x00ff'", r"\x00ff"),
    ("mood", "'sad'", "sad"),
    ("interval", "'1 day'", "1 day"),
], ids=["text", "json", "json that jsonb refuses", "numeric", "bytea", "enum", "interval"])
def test_a_payload_of_any_type_is_sent(db, column, value, sent):
    db.execute("create type mood as enum ('sad')")
    db.execute(f"create table t (id bigint generated always as identity primary key, p {column})")
    db.execute("select pgtrickle.adopt_outbox('t', payload => 'p')")
    db.execute(f"insert into t (p) values ({value})")
    assert read(db, "t") == [(1, sent)]


def test_without_a_payload_column_the_whole_row_is_sent(db):
    db.execute("create table t (id int generated always as identity primary key, a text, b date)")
    db.execute("select pgtrickle.adopt_outbox('t', payload => null)")
    db.execute("insert into t (a, b) values ('x', '2020-02-29')")
    assert read(db, "t") == [(1, {"id": 1, "a": "x", "b": "2020-02-29"})]


def read(db, outbox, after=0, columns="id, payload"):
    """What the relay reads behind an id."""
    return db.execute(
        f"select {columns} from pgtrickle.relay_adopted_rows((select incarnation"
        " from pgtrickle.pgt_outbox_config where stream_table_name = %s), %s,"
        " 9223372036854775807, 1000) where pgt_id is not null order by id", (outbox, after))


def test_a_filter_gives_one_outbox_for_each_of_its_values(db):
    db.execute(EVENTS)
    adopt(db, name="orders", filter=json.dumps({"kind": "order"}))
    adopt(db, name="others", filter=json.dumps({"kind": ["bill", None], "about": 1}))
    db.execute("insert into app.events (kind, about, body) values ('order', 1, '1'),"
               " ('bill', 1, '2'), ('bill', 2, '3'), (null, 1, '4'), ('it''s', 1, '5')")
    adopt(db, name="quoted", filter=json.dumps({"kind": "it's"}))
    assert [read(db, name) for name in ("orders", "others", "quoted")] == [
        [(1, 1)], [(2, 2), (4, 4)], [(5, 5)]]


def test_the_messages_of_pg_tide_are_read_by_outbox(extension_db, relay_bin, tmp_path):
    db = extension_db
    db.execute("create extension pg_tide")
    install(db.dsn)
    for name in ("orders", "bills"):
        db.execute("select pgtrickle.adopt_outbox('tide.tide_outbox_messages', name => %s,"
                   " headers => 'headers', created_at => 'created_at', filter => %s)",
                   (name, json.dumps({"outbox_name": name})))
    orders = pipe(db, tmp_path / "orders.jsonl", "orders")
    bills = pipe(db, tmp_path / "bills.jsonl", "bills")
    with Relay(db.relay_dsn):
        db.execute("select tide.outbox_publish(case n % 3 when 0 then 'orders' when 1 then 'bills'"
                   " else 'unread' end, to_jsonb(n)) from generate_series(1, 300) n")
        orders.wait_ids(range(3, 301, 3))
        bills.wait_ids(range(1, 301, 3))
        assert [message["payload"] for message in orders.messages()] == list(range(3, 301, 3))


# The promise --------------------------------------------------------------------------------

def test_a_row_that_commits_late_is_waited_for_and_keeps_its_place(db, lines):
    with db.connect(autocommit=False) as late:
        write(late)
        write(db, 2)
        holds_for(lambda: lines.ids() == [], 0.5)
        eventually(lambda: [w["pid"] for w in db.one(
            "select pgtrickle.outbox_status('events')")["open_writers"]] == [late.info.backend_pid])
        late.commit()
    lines.wait_ids([1, 2, 3])


def test_a_writer_that_goes_on_holds_back_only_what_it_must(db, lines):
    with db.connect(autocommit=False) as early, db.connect(autocommit=False) as late:
        write(early)
        write(late)
        early.commit()
        lines.wait_ids([1])
        late.rollback()


def test_an_unrelated_open_transaction_delays_nothing(db, lines):
    db.execute("create table unrelated (x int)")
    with db.connect(autocommit=False) as unrelated:
        unrelated.execute("insert into unrelated values (1)")
        unrelated.execute("select count(*) from app.events")
        lines.wait_ids(write(db, 3))


class Crowd:
    """64 writers of every kind, into app.events."""

    def __init__(self, db, seconds, seed):
        self._db, self._end, self._seed = db, time.monotonic() + seconds, seed
        self.errors = []
        self._threads = [threading.Thread(target=self._guarded, args=(number,), daemon=True)
                         for number in range(WRITERS)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def _guarded(self, number):
        try:
            with self._db.connect(autocommit=False) as connection:
                chance = random.Random(self._seed + number)
                kinds = [self._plain, self._plain, self._several, self._savepoint, self._caught,
                         self._rolled_back, self._copied, self._prepared, self._slow_payload]
                while time.monotonic() < self._end:
                    kind = self._slow if number == 0 else chance.choice(kinds)
                    kind(connection, chance, number)
                    time.sleep(chance.random() * 0.05)  # random delays are the load itself
        except Exception as error:
            self.errors.append(repr(error))

    @staticmethod
    def _plain(connection, chance, number):
        write(connection, chance.randint(1, 5))
        connection.commit()

    @staticmethod
    def _several(connection, chance, number):
        for _ in range(chance.randint(2, 4)):
            write(connection)
            time.sleep(chance.random() * 0.02)
        connection.commit()

    @staticmethod
    def _savepoint(connection, chance, number):
        write(connection)
        connection.execute("savepoint s")
        write(connection, 2)
        connection.execute("rollback to savepoint s")
        write(connection)
        connection.commit()

    @staticmethod
    def _caught(connection, chance, number):
        connection.execute("""do $$ begin
            insert into app.events (body) values ('1');
            begin
              insert into app.events (body) values ('2');
              perform 1 / 0;
            exception when division_by_zero then
              insert into app.events (body) values ('3');
            end; end $$""")
        connection.commit()

    @staticmethod
    def _rolled_back(connection, chance, number):
        write(connection, 2)
        time.sleep(chance.random() * 0.05)
        connection.rollback()

    @staticmethod
    def _copied(connection, chance, number):
        with connection.cursor().copy("copy app.events (kind, body) from stdin") as copy:
            for n in range(chance.randint(1, 50)):
                copy.write_row(("copied", str(n)))
        connection.commit()

    @staticmethod
    def _prepared(connection, chance, number):
        write(connection)
        name = f"p{number}"
        connection.execute(f"prepare transaction '{name}'")
        time.sleep(chance.random() * 0.1)
        connection.autocommit = True
        ending = "rollback" if chance.random() < 0.3 else "commit"
        connection.execute(f"{ending} prepared '{name}'")
        connection.autocommit = False

    @staticmethod
    def _slow_payload(connection, chance, number):
        # The id is drawn before the payload is there.
        connection.execute("insert into app.events (body) select to_jsonb(slow(%s))",
                           (chance.random() * 0.2,))
        connection.commit()

    @staticmethod
    def _slow(connection, chance, number):
        write(connection)
        time.sleep(chance.uniform(0.3, 1.0))
        connection.commit()


@pytest.mark.alone
def test_64_hostile_writers_and_a_relay_that_is_killed_and_each_row_arrives_once_in_order(
        db, events, relay_bin, tmp_path):
    seed = random.SystemRandom().randrange(1 << 30)
    chance = random.Random(seed)
    db.execute("""create table unrelated (x int);
        create function slow(seconds float) returns int language plpgsql as
          $$ begin perform pg_sleep(seconds); return 1; end $$;
        create function draw_first() returns trigger language plpgsql as
          $$ begin if new.body = '1' then perform pg_sleep(random() * 0.05); end if;
             return new; end $$;
        create trigger draw_first before insert on app.events for each row
          execute function draw_first()""")
    lines = pipe(db, tmp_path / "events.jsonl")
    crowd = Crowd(db, SECONDS, seed)
    relay = Relay(db.relay_dsn)
    with db.connect(autocommit=False) as unrelated:
        unrelated.execute("insert into unrelated values (1)")
        crowd.start()
        for _ in range(3):
            relay.start()
            delivered = len(lines.messages())
            eventually(lambda: len(lines.messages()) > delivered, 20 * SLOW_FACTOR, interval=0.02,
                       message=relay.log)
            time.sleep(chance.random())  # the moment of the kill is chance
            relay.kill9()
        with relay:
            crowd.join()
            wanted = [row[0] for row in db.execute("select id from app.events order by id")]
            assert len(wanted) > 20 * SECONDS
            lines.wait_ids(wanted, 30)
    again = len(lines.ids()) - len(wanted)
    print(f"{len(wanted)} rows, {again} of them sent again, seed {seed}")
    assert len({message["id"] for message in lines.messages()}) == len(wanted)


# What is sent again, and what is not --------------------------------------------------------

def test_delivered_rows_may_be_deleted_and_marked(db, events, relay_bin, tmp_path):
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        lines.wait_ids(write(db, 3))
        eventually(lambda: position(db, "events") == (3, 0))
        db.execute("update app.events set seen_at = now()")
        db.execute("delete from app.events where id < 3")
    with Relay(db.relay_dsn):
        lines.wait_ids([1, 2, 3] + write(db, 2))
        db.execute("delete from app.events")
        db.execute("vacuum full app.events")
        lines.wait_ids([1, 2, 3, 4, 5] + write(db, 2))
    assert lines.ids() == [1, 2, 3, 4, 5, 6, 7]


def test_an_event_that_was_delivered_and_is_another_now_stops_the_pipeline(
        db, events, relay_bin, tmp_path):
    """So looks a failover that lost rows."""
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        lines.wait_ids(write(db, 3))
        eventually(lambda: position(db, "events") == (3, 0))
    db.execute("update app.events set body = '\"other\"' where id = 3")
    with Relay(db.relay_dsn):
        eventually(lambda: "row 3 is not the one that was passed" in told(db))
        db.execute("select pgtrickle.resume_relay('events', accept_loss => true)")
        eventually(lambda: lines.ids() == [1, 2, 3, 1, 2, 3])


def test_rows_that_were_truncated_before_they_were_delivered_are_told_of(
        db, events, relay_bin, tmp_path):
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        lines.wait_ids(write(db, 3))
        eventually(lambda: position(db, "events") == (3, 0))
    write(db, 5)
    db.execute("truncate app.events")
    assert write(db, 2) == [9, 10]
    with Relay(db.relay_dsn):
        eventually(lambda: "was truncated before they were delivered" in told(db))
        holds_for(lambda: lines.ids() == [1, 2, 3], 0.3)
        db.execute("select pgtrickle.resume_relay('events', accept_loss => true)")
        lines.wait_ids([1, 2, 3, 9, 10])


def test_a_truncate_after_everything_was_delivered_stops_nothing(db, lines):
    lines.wait_ids(write(db, 3))
    eventually(lambda: position(db, "events") == (3, 0))
    db.execute("truncate app.events")
    lines.wait_ids([1, 2, 3] + write(db, 2))


def test_a_table_that_is_written_anew_under_load_loses_nothing(db, events, relay_bin, tmp_path):
    both = [pipe(db, tmp_path / f"{name}.jsonl", name=name) for name in ("one", "two")]
    failed = []

    def work(number):
        try:
            with db.connect() as writer:
                for _ in range(60):
                    write(writer, 3)
        except Exception as error:
            failed.append(error)
    with Relay(db.relay_dsn):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            db.execute("delete from app.events where id <= (select min(last_change_id)"
                       " from pgtrickle.relay_consumer_offsets)")
            db.execute("vacuum full app.events")
        for thread in threads:
            thread.join()
        assert not failed
        for lines in both:
            lines.wait_ids(range(1, 721), 30)
        assert told(db, "one") == told(db, "two") == ""


def test_a_table_that_begins_to_count_again_stops_the_pipeline(db, lines):
    lines.wait_ids(write(db, 3))
    eventually(lambda: position(db, "events") == (3, 0))
    db.execute("truncate app.events restart identity")
    assert write(db) == [1]
    eventually(lambda: "was rewound: its newest id is 1, and 3 was passed" in told(db), 20)


def test_a_pipeline_can_begin_at_latest_and_rows_can_be_sent_again(db, events, relay_bin, tmp_path):
    write(db, 3)
    with db.connect(autocommit=False) as late:
        write(late)
        write(db, 2)
        lines = pipe(db, tmp_path / "events.jsonl", start="latest")
        with Relay(db.relay_dsn):
            eventually(lambda: position(db, "events"))
            late.commit()
            lines.wait_ids([4] + write(db))
            db.execute("select pgtrickle.replay_relay('events', 2, 3)")
            eventually(lambda: lines.ids() == [4, 7, 2, 3])


def test_a_filter_that_matches_nothing_moves_the_position_on(db, relay_bin, tmp_path):
    db.execute(EVENTS)
    db.execute("insert into app.events (kind, body) select 'noise', '1'"
               " from generate_series(1, 1000000)")
    adopt(db, name="seldom", filter=json.dumps({"kind": "seldom"}))
    lines = pipe(db, tmp_path / "seldom.jsonl", "seldom")
    with Relay(db.relay_dsn):
        eventually(lambda: (position(db, "seldom") or (0,))[0] == 1000000, 20 * SLOW_FACTOR)
        db.execute("insert into app.events (kind, body) values ('noise', '1'), ('seldom', '2')")
        lines.wait_ids([1000002])
    reads = """select max(x) from (select count(*) as x from pgtrickle.relay_adopted_rows(
        (select incarnation from pgtrickle.pgt_outbox_config), 0, 9223372036854775807, 10)) r"""
    assert db.one(reads) == 1, "one step reads 100,000 ids at most"


# What is refused ----------------------------------------------------------------------------

REFUSED = {
    "ids from elsewhere": (
        "create table t (id bigint primary key, payload jsonb)", {}, "does not draw its values"),
    "ids by another function": (
        "create sequence s; create table t (id bigint primary key default nextval('s') * 2,"
        " payload jsonb); alter sequence s owned by t.id", {}, "does not draw its values"),
    "a sequence of its own that nothing owns": (
        "create sequence s; create table t (id bigint primary key default nextval('s'),"
        " payload jsonb)", {}, "does not draw its values"),
    "ids that an insert may bring": (
        "create table t (id bigint generated by default as identity primary key, payload jsonb)",
        {}, "SET GENERATED ALWAYS"),
    "a serial": (
        "create table t (id bigserial primary key, payload jsonb)", {}, "trust_ids => true"),
    "a cache": (
        "create table t (id bigint generated always as identity (cache 10) primary key,"
        " payload jsonb)", {}, "CACHE 1"),
    "an increment": (
        "create table t (id bigint generated always as identity (increment 2) primary key,"
        " payload jsonb)", {}, "INCREMENT 1"),
    "a descending sequence": (
        "create table t (id bigint generated always as identity (increment -1) primary key,"
        " payload jsonb)", {}, "INCREMENT 1"),
    "a cycle": (
        "create table t (id int generated always as identity (cycle) primary key, payload jsonb)",
        {}, "NO CYCLE"),
    "a smallint": (
        "create table t (id smallint generated always as identity primary key, payload jsonb)",
        {}, "not bigint or integer"),
    "no index": (
        "create table t (id bigint generated always as identity, payload jsonb)", {},
        "CREATE UNIQUE INDEX"),
    "a partial index": (
        "create table t (id bigint generated always as identity, payload jsonb);"
        "create unique index on t (id) where id > 5", {}, "CREATE UNIQUE INDEX"),
    "a row with an id beyond the sequence": (
        "create table t (id bigint generated always as identity primary key, payload jsonb);"
        "insert into t overriding system value values (7, '1')", {}, "setval"),
    "a view": ("create view t as select 1 as id, '1'::jsonb as payload", {}, "is a view"),
    "a partitioned table": (
        "create table t (id bigint generated by default as identity, payload jsonb)"
        " partition by range (id)", {"trust_ids": True}, "is a partitioned table"),
    "a partition": (
        "create table p (id bigint primary key, payload jsonb) partition by range (id);"
        "create sequence s; create table t partition of p for values from (0) to (9);"
        "alter table t alter id set default nextval('s'); alter sequence s owned by t.id",
        {"trust_ids": True}, "is a partition"),
    "a table with children": (
        "create table t (id bigint generated always as identity primary key, payload jsonb);"
        "create table child () inherits (t)", {}, "inheritance tree"),
    "an unlogged table": (
        "create unlogged table t (id bigint generated always as identity primary key,"
        " payload jsonb)", {}, "SET LOGGED"),
    "a foreign table": (
        "create foreign data wrapper w; create server s foreign data wrapper w;"
        "create foreign table t (id bigint, payload jsonb) server s", {}, "is a foreign table"),
    "rows that only row security shows": (
        "create table t (id bigint generated always as identity primary key, payload jsonb);"
        "alter table t enable row level security, force row level security", {}, "NO FORCE ROW"),
    "a column that is not there": (
        "create table t (id bigint generated always as identity primary key)", {},
        'no column "payload"'),
    "headers of text": (
        "create table t (id bigint generated always as identity primary key, payload text)",
        {"headers": "payload"}, "not jsonb or json"),
    "a time that is none": (
        "create table t (id bigint generated always as identity primary key, payload text)",
        {"created_at": "payload"}, "not a timestamp"),
    "a filter by a type of a user": (
        "create type pair as (a int, b int);"
        "create table t (id bigint generated always as identity primary key, payload text, p pair)",
        {"filter": '{"p": "(1,2)"}'}, "cannot be chosen"),
    "a filter that is no object": (
        "create table t (id bigint generated always as identity primary key, payload text)",
        {"filter": '["x"]'}, "must be an object"),
    "a filter whose value does not fit": (
        "create table t (id bigint generated always as identity primary key, payload text, n int)",
        {"filter": '{"n": "many"}'}, "invalid input syntax"),
    "a name that is taken": (
        "create table t (id bigint generated always as identity primary key, payload text);"
        "select pgtrickle.create_outbox('t')", {}, "already an outbox"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_without_skipping_is_refused(db, case):
    made, arguments, said = REFUSED[case]
    db.execute("set client_min_messages = error")
    db.execute(made)
    listed = "".join(f", {name} => %({name})s" for name in arguments)
    assert said in refusal(db, f"select pgtrickle.adopt_outbox('t'{listed})", arguments)
    assert db.one("select count(*) from pgtrickle.pgt_outbox_config where kind = 'adopted'") == 0
    assert db.one("select count(*) from pg_proc"
                  " where pronamespace = 'pgtrickle_streams'::regnamespace") == 0


def test_a_temporary_table_is_refused(db):
    with db.connect() as session:
        session.execute("create temp table t (id bigint generated always as identity primary key,"
                        " payload jsonb)")
        assert "temporary" in refusal(session, "select pgtrickle.adopt_outbox('t')")


def test_a_table_that_a_subscription_fills_is_refused(db, there):
    for database in (db, there):
        database.execute("create table t (id bigint generated always as identity primary key,"
                         " payload jsonb)")
    there.execute("create publication p for table t")
    db.execute(f"create subscription s connection '{there.dsn}' publication p"
               " with (connect = false)")
    db.execute("insert into pg_subscription_rel select s.oid, 't'::regclass, 'r', null"
               " from pg_subscription s")
    assert "subscription" in refusal(db, "select pgtrickle.adopt_outbox('t')")
    db.execute("delete from pg_subscription_rel")
    db.execute("alter subscription s set (slot_name = none)")
    db.execute("drop subscription s")


def test_a_serial_is_adopted_where_its_owner_says_that_only_the_default_fills_it(
        db, relay_bin, tmp_path):
    db.execute("create table t (id serial primary key, payload jsonb)")
    db.execute("select pgtrickle.adopt_outbox('t', trust_ids => true)")
    lines = pipe(db, tmp_path / "t.jsonl", "t")
    with Relay(db.relay_dsn):
        db.execute("insert into t (payload) values ('1'), ('2')")
        lines.wait_ids([1, 2])


# What is altered later ----------------------------------------------------------------------

ALTERED = {
    "cache": ("alter sequence {t}_id_seq cache 10", "CACHE 10",
              "alter sequence {t}_id_seq cache 1"),
    "increment": ("alter sequence {t}_id_seq increment 5", "does not count",
                  "alter sequence {t}_id_seq increment 1"),
    "cycle": ("alter sequence {t}_id_seq cycle", "does not count",
              "alter sequence {t}_id_seq no cycle"),
    "renamed column": ("alter table {t} rename body to text", "is called text now",
                       "alter table {t} rename text to body"),
    "type of a column": ("alter table {t} alter kind type varchar(9)",
                         "is of type character varying", "alter table {t} alter kind type text"),
    "dropped column": ("alter table {t} drop meta", "was dropped",
                       "alter table {t} add meta jsonb; select pgtrickle.adopt_outbox('{t}',"
                       " payload => 'body', key => 'about', type => 'kind', headers => 'meta')"),
    "renamed table": ("alter table {t} rename to {n}_2", "is called app.{n}_2 now",
                      "alter table {t}_2 rename to {n}"),
    "identity by default": (
        "alter table {t} alter id set generated by default", "may bring its own id",
        "alter table {t} alter id set generated always"),
    "dropped index": ("alter table {t} drop constraint {n}_pkey", "no unique index",
                      "alter table {t} add primary key (id)"),
    "forced row security": ("alter table {t} enable row level security, force row level security",
                            "hides rows", "alter table {t} no force row level security"),
    "unlogged": ("alter table {t} set unlogged", "an unlogged", "alter table {t} set logged"),
    "rights of the owner": ("revoke select on {t} from holder", "may not read it",
                            "grant select on {t} to holder"),
    "owner": ("alter table {t} owner to newcomer", "belongs to newcomer now",
              "select pgtrickle.adopt_outbox('{t}', payload => 'body', key => 'about',"
              " type => 'kind', headers => 'meta')"),
    "reader": ("alter function pgtrickle_streams.{reader}(text, jsonb) security invoker",
               "not SECURITY DEFINER any more",
               "select pgtrickle.adopt_outbox('{t}', payload => 'body', key => 'about',"
               " type => 'kind', headers => 'meta')"),
}


def test_a_pipeline_whose_table_is_altered_stops_and_goes_on_when_that_is_mended(
        db, relay_bin, tmp_path):
    db.login("newcomer")
    db.login("holder")
    db.execute("create schema app; grant usage on schema app to newcomer, holder")
    tables = {case: f"app.t_{number}" for number, case in enumerate(ALTERED)}
    arrived = {}
    for case, table in tables.items():
        db.execute(f"create table {table} (id bigint generated always as identity primary key,"
                   " kind text, about int, body jsonb, meta jsonb)")
        name = table.partition(".")[2]
        db.execute(f"alter table {table} owner to holder")
        adopt(db, table, created_at=None)
        arrived[case] = pipe(db, tmp_path / f"{name}.jsonl", name)
        write(db, 2, table)
    with Relay(db.relay_dsn) as relay:
        for lines in arrived.values():
            lines.wait_ids([1, 2])

        def fill(case, text):
            name = tables[case].partition(".")[2]
            return text.format(t=tables[case], n=name, reader=db.one(
                "select reader from pgtrickle.pgt_outbox_config where stream_table_name = %s",
                (name,)))
        for case, (change, _, _) in ALTERED.items():
            db.execute(fill(case, change))
            db.execute(f"insert into {tables[case]}{'_2' if case == 'renamed table' else ''}"
                       " (about) values (3)")
        for case, (_, said, _) in ALTERED.items():
            name = tables[case].partition(".")[2]
            eventually(lambda: fill(case, said) in told(db, name), 20 * SLOW_FACTOR,
                       message=lambda: f"{case}: {told(db, name)!r}")
            if case != "reader":
                assert fill(case, said) in db.one("select pgtrickle.outbox_status(%s)",
                                                  (name,))["problem"]
        assert {relay.pipeline(table.partition('.')[2])["state"] for table in tables.values()} == {
            "misconfigured"}
        for case, (_, _, mending) in ALTERED.items():
            db.execute(fill(case, mending))
            db.execute("select pgtrickle.resume_relay(%s)", (tables[case].partition(".")[2],))
        for case, lines in arrived.items():
            write(db, 1, tables[case])
            ids = [row[0] for row in db.execute(f"select id from {tables[case]} order by id")]
            lines.wait_ids(ids, 20)


def test_ids_that_were_drawn_in_advance_are_not_used_once_the_cache_is_gone(db, lines):
    lines.wait_ids(write(db))
    with db.connect() as hoarder:
        db.execute("alter sequence app.events_id_seq cache 10")
        assert write(hoarder) == [2]
        db.execute("alter sequence app.events_id_seq cache 1")
        assert write(db) == [12]
        lines.wait_ids([1, 2, 12], 20)
        assert write(hoarder) == [13], "PostgreSQL has changed: cached ids outlive ALTER SEQUENCE"
        lines.wait_ids([1, 2, 12, 13])


def test_a_sequence_that_is_exchanged_stops_the_pipeline(db, lines):
    lines.wait_ids(write(db, 3))
    db.execute("alter table app.events alter id drop identity")
    db.execute("alter table app.events alter id add generated always as identity (start 4)")
    eventually(lambda: "come from another sequence" in told(db), 20)
    write(db)
    assert "is of another table, or of another id" in refusal(
        db, "select pgtrickle.adopt_outbox('app.events', payload => 'body')")


def test_a_table_that_is_dropped_stops_the_pipeline(db, lines):
    lines.wait_ids(write(db, 3))
    db.execute("drop table app.events")
    eventually(lambda: "the table app.events was dropped" in told(db), 20)
    assert "disable_outbox" in told(db)
    found = [line for line in db.execute("select * from pgtrickle.relay_check('relay_daemon')")
             if "app.events" in line[2]]
    assert [(pipeline, severity) for pipeline, severity, _, _ in found] == [("events", "problem")]
    db.execute("select pgtrickle.disable_outbox('events')")
    assert db.one("select count(*) from pgtrickle.pgt_outbox_config") == 0


# What shows it, and what ends it ------------------------------------------------------------

def test_it_shows_as_other_outboxes_do_and_retention_leaves_its_rows(db, lines):
    lines.wait_ids(write(db, 3))
    eventually(lambda: position(db, "events") == (3, 0))
    db.execute("update app.events set at = now() - interval '1 year'")
    for _ in range(3):
        report = db.one("select pgtrickle.relay_housekeeping()")
        assert report["deleted"] == 0 and report["errors"] == []
    assert db.one("select count(*) from app.events") == 3
    status = db.one("select pgtrickle.outbox_status('events')")
    assert {key: status[key] for key in ("outbox", "table", "kind", "rows", "rows_exact", "last_id",
                                         "retention_hours", "problem", "held_by")} == {
        "outbox": "adopted_events", "table": "app.events", "kind": "adopted", "rows": 3,
        "rows_exact": True, "last_id": 3, "retention_hours": None, "problem": None, "held_by": []}
    assert [(reader["pipeline"], reader["position"], reader["lag"])
            for reader in status["positions"]] == [("events", 3, 0)]
    assert db.execute("select pipeline, state, lag from pgtrickle.relay_pipelines_now()")[0][2] == 0
    assert lines.relay.pipeline("events")["state"] in ("running", "idle")
    check = run_command("check", "--postgres-url", db.relay_dsn)
    assert "adopted_events" in check.stdout, check.stdout + check.stderr


def test_disable_outbox_leaves_the_table_as_it_was(db, events):
    write(db, 2)
    acl = "select relacl from pg_class where oid = 'app.events_id_seq'::regclass"
    adopt(db, name="second")
    db.execute("select pgtrickle.disable_outbox('events')")
    assert db.one("select has_sequence_privilege('pgtrickle_relay', 'app.events_id_seq', 'select')")
    db.execute("select pgtrickle.disable_outbox('second')")
    assert "pgtrickle" not in str(db.one(acl))
    assert db.one("select count(*) from pg_proc"
                  " where pronamespace = 'pgtrickle_streams'::regnamespace") == 0
    assert db.one("select count(*) from app.events") == 2


def test_it_survives_another_init(db, lines):
    install(db.dsn)
    lines.wait_ids(write(db, 2))


def test_a_table_can_be_adopted_and_have_an_outbox_of_ours(db, relay_bin, tmp_path):
    db.execute(EVENTS)
    adopt(db, name="read")
    db.execute("select pgtrickle.enable_outbox('app.events')")
    lines = pipe(db, tmp_path / "read.jsonl", "read")
    with Relay(db.relay_dsn):
        lines.wait_ids(write(db, 2))
    assert db.one("select count(*) from pgtrickle.outbox_events") == 1


# Rights -------------------------------------------------------------------------------------

def evil_table(land, name, plant=""):
    """A table of mallory's whose values, domain and policies are code of hers."""
    land.execute("grant create on schema public to mallory")
    run_as(land, "mallory",
           f"create domain {name}_d as text check (attack.ran('check of a domain'))",
           f"create type {name}_e as enum ('a', 'b')",
           f"create function {name}_json({name}_e) returns json language plpgsql as"
           " $$ begin perform attack.ran('cast'); return '1'; end $$",
           f"create cast ({name}_e as json) with function {name}_json({name}_e)",
           f"create table {name} (id bigint generated always as identity primary key,"
           f" kind {name}_d, body {name}_e default 'a', about int)",
           f"create function {name}_eq(int, int) returns boolean language plpgsql as"
           " $$ begin perform attack.ran('operator'); return true; end $$",
           f"alter table {name} enable row level security",
           f"create policy p on {name} using (attack.ran('policy'))")


def drain(land, outbox):
    """Reads an outbox as the relay's role does, in every way."""
    incarnation = land.one("select incarnation from pgtrickle.pgt_outbox_config"
                           " where stream_table_name = %s", (outbox,))
    rows = run_as(land, "relay_daemon",
                  f"select pgtrickle.relay_adopted_first('{incarnation}', 0)",
                  f"select pgtrickle.relay_adopted_marks('{incarnation}', array[1])",
                  f"select pgtrickle.relay_adopted_count('{incarnation}', 0)",
                  f"select * from pgtrickle.relay_first_position('{incarnation}', 'latest')",
                  f"select pgtrickle.outbox_status('{outbox}')",
                  "select * from pgtrickle.relay_check()",
                  f"select id, payload from pgtrickle.relay_adopted_rows('{incarnation}', 0,"
                  " 1000000, 100) where pgt_id is not null")
    return rows


def test_code_of_the_owner_gains_nothing(land):  # noqa: F811
    evil_table(land, "lure")
    run_as(land, "mallory",
           "select pgtrickle.adopt_outbox('lure', payload => 'body', key => 'kind',"
           " filter => '{\"about\": 1}')",
           "insert into lure (kind, about) values ('x', 1), ('y', 2)")
    with attacks.watching(land, attacks.SANDBOX):
        assert drain(land, "lure") == [(1, "a")]


def test_an_owner_who_rewrites_the_function_that_reads_gains_nothing(land):  # noqa: F811
    evil_table(land, "rewritten")
    run_as(land, "mallory",
           "select pgtrickle.adopt_outbox('rewritten', payload => 'body', key => 'kind')")
    reader = land.one("select reader from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'rewritten'")
    for definer in ("security definer", "security invoker"):
        run_as(land, "mallory", f"""
            create or replace function pgtrickle_streams.{reader}(action text, arg jsonb)
            returns table (op text, ord bigint, row_data jsonb) language plpgsql {definer}
            set search_path = pg_catalog, pg_temp as $f$
            begin
              perform attack.ran('reader');
              return query select null::text, 1::bigint, case action
                when 'ids' then '"{{[1,2)}}"' else '{{"payload": 1}}' end::jsonb;
            end $f$""")
        with attacks.watching(land, attacks.SANDBOX):
            if definer == "security definer":
                assert drain(land, "rewritten") == [(1, 1)]
            else:
                with pytest.raises(psycopg.Error, match="SECURITY DEFINER"):
                    drain(land, "rewritten")


def test_only_its_owner_may_adopt_a_table_and_end_that(land):  # noqa: F811
    land.execute("create table ledger (id bigint generated always as identity primary key,"
                 " payload jsonb)")
    land.execute("grant all on ledger to mallory")
    with pytest.raises(psycopg.Error, match="must be owner of table public.ledger"):
        run_as(land, "mallory", "select pgtrickle.adopt_outbox('ledger')")
    with pytest.raises(psycopg.Error, match="permission denied"):
        run_as(land, "eve", "select pgtrickle.adopt_outbox('ledger')")
    land.execute("select pgtrickle.adopt_outbox('ledger')")
    number = land.one("select outbox_number from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'ledger'")
    for call in ("select pgtrickle.disable_outbox('ledger')",
                 f"select pgtrickle_internal.outbox_adopted_drop({number})",
                 f"select pgtrickle_internal.outbox_drop({number})"):
        with pytest.raises(psycopg.Error, match="owner|application"):
            run_as(land, "mallory", call)
    assert land.one("select count(*) from pgtrickle.pgt_outbox_config"
                    " where stream_table_name = 'ledger'") == 1


def test_an_administrator_cannot_store_an_outbox_that_its_owner_did_not_adopt(land):  # noqa: F811
    land.execute("create table vault (id bigint generated always as identity primary key,"
                 " payload jsonb); select pgtrickle.adopt_outbox('vault')")
    with pytest.raises(psycopg.Error, match="must be owner of table"):
        run_as(land, "mallory", """
            select pgtrickle_internal.outbox_adopted_store(null, 'stolen', k, c.reader)
            from pgtrickle_internal.outbox_adopted k
            join pgtrickle.pgt_outbox_config c using (outbox_number)
            where c.stream_table_name = 'vault'""")


def test_the_relay_and_administrators_get_no_right_on_the_table(land):  # noqa: F811
    land.execute("create schema closed; create table closed.box (id bigint generated always as"
                 " identity primary key, payload jsonb);"
                 "select pgtrickle.adopt_outbox('closed.box'); insert into closed.box (payload)"
                 " values ('1')")
    for role in ("pgtrickle_relay", "pgtrickle_owner", "pgtrickle_sandbox", "pgtrickle_admin"):
        assert land.one("select count(*) from unnest(array['select', 'insert', 'update', 'delete',"
                        " 'truncate', 'references', 'trigger']) p"
                        " where has_table_privilege(%s, 'closed.box', p)", (role,)) == 0, role
    assert drain(land, "box") == [(1, 1)]


def test_an_open_writer_of_any_other_table_is_not_shown(land):  # noqa: F811
    land.execute("create table private (id bigint generated always as identity primary key)")
    with land.connect(autocommit=False) as writer:
        writer.execute("insert into private default values")
        assert run_as(land, "relay_daemon",
                      "select * from pgtrickle.relay_open_writers('private')") == []
