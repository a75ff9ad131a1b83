"""adopt_outbox: an application's table is read by the same promise as our own outboxes, and nothing
is done to it."""

import json
import random
import threading
import time

import pytest
from support.adopted_outbox import (  # noqa: F401
    EVENTS, adopt, deliver, events, lines, pipe, stopped, told, write)
from support.database_side import install
from support.pipelines import LONG, SLOW_FACTOR, position
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for

WRITERS = 64
SECONDS = 30 if LONG else 6


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
            eventually(lambda: len(lines.messages()) > delivered, 60 * SLOW_FACTOR, interval=0.02,
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
        deliver(db, lines)
        db.execute("update app.events set seen_at = now()")
        db.execute("delete from app.events where id < 3")
    with Relay(db.relay_dsn):
        lines.wait_ids([1, 2, 3] + write(db, 2))
        db.execute("delete from app.events")
        db.execute("vacuum full app.events")
        lines.wait_ids([1, 2, 3, 4, 5] + write(db, 2))
    assert lines.ids() == [1, 2, 3, 4, 5, 6, 7]


def test_an_event_that_was_delivered_and_is_another_now_stops_the_pipeline(db, stopped):
    """So looks a failover that lost rows."""
    db.execute("update app.events set body = '\"other\"' where id = 3")
    with Relay(db.relay_dsn):
        eventually(lambda: "row 3 is not the one that was passed" in told(db))
        db.execute("select pgtrickle.resume_relay('events', accept_loss => true)")
        eventually(lambda: stopped.ids() == [1, 2, 3, 1, 2, 3])


def test_rows_that_were_truncated_before_they_were_delivered_are_told_of(db, stopped):
    write(db, 5)
    db.execute("truncate app.events")
    assert write(db, 2) == [9, 10]
    with Relay(db.relay_dsn):
        eventually(lambda: "was truncated before they were delivered" in told(db))
        holds_for(lambda: stopped.ids() == [1, 2, 3], 0.3)
        db.execute("select pgtrickle.resume_relay('events', accept_loss => true)")
        stopped.wait_ids([1, 2, 3, 9, 10])


def test_a_truncate_after_everything_was_delivered_stops_nothing(db, lines):
    deliver(db, lines)
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
    deliver(db, lines)
    db.execute("truncate app.events restart identity")
    assert write(db) == [1]
    eventually(lambda: "was rewound: its newest id is 1, and 3 was passed" in told(db), 20)


BEGUN_AGAIN = {
    "truncated in one transaction": "begin; truncate app.events restart identity; {insert}; commit",
    "truncated": "truncate app.events restart identity; {insert}",
    "deleted and restarted": "delete from app.events;"
                             "alter table app.events alter id restart; {insert}",
    "deleted and set back": "delete from app.events;"
                            "select setval('app.events_id_seq', 1, false); {insert}",
}


@pytest.mark.parametrize("case", BEGUN_AGAIN)
def test_a_table_that_has_counted_beyond_the_position_again_stops_the_pipeline(db, lines, case):
    deliver(db, lines)
    insert = ("insert into app.events (body) select to_jsonb('again ' || n)"
              " from generate_series(1, 5) n")
    db.execute(BEGUN_AGAIN[case].format(insert=insert))
    eventually(lambda: "was rewound: row 3 is not the one that was passed" in told(db), 20)
    done = run_command("resume", "events", "--accept-loss", "--postgres-url", db.dsn)
    assert done.returncode == 0, done.stderr
    eventually(lambda: [message["payload"] for message in lines.messages()][3:]
               == [f"again {n}" for n in range(1, 6)], 20)


def test_a_table_that_is_written_anew_is_read_on_while_writers_overlap(db, events, relay_bin,
                                                                       tmp_path):
    db.execute("create table app.turns (n int)")
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn), db.connect(autocommit=False) as one, \
            db.connect(autocommit=False) as other:
        lines.wait_ids(write(db, 2))
        db.execute("vacuum full app.events")
        write(one)
        for turn in range(4, 12):  # one of the two is always open
            write(other)
            one.commit()
            one, other = other, one
            eventually(lambda: max(lines.first_ids()) >= turn - 1, 10)
        one.commit()
        lines.wait_ids(range(1, 12))


def test_a_lock_on_adopted_tables_holds_up_no_other_pipeline(db, relay_bin, tmp_path):
    db.execute(EVENTS)
    db.execute("select pgtrickle.create_outbox('plain')")
    for number in range(12):
        adopt(db, name=f"part{number}", filter=json.dumps({"about": number}))
        pipe(db, tmp_path / f"part{number}.jsonl", f"part{number}")
    lines = pipe(db, tmp_path / "plain.jsonl", "plain")
    with Relay(db.relay_dsn) as relay, db.connect(autocommit=False) as owner:
        relay.wait_healthy(pipelines=13)
        write(owner, 12)
        owner.execute("lock table app.events in access exclusive mode")
        for number in range(1, 4):
            db.execute("select pgtrickle.publish('plain', '1')")
            lines.wait_ids(range(1, number + 1), 8)


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


# What shows it, and what ends it ------------------------------------------------------------

def test_it_shows_as_other_outboxes_do_and_retention_leaves_its_rows(db, lines):
    deliver(db, lines)
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


@pytest.mark.parametrize("lock, unread", [
    ("lock table app.old in access exclusive mode", "old"),
    ("alter sequence app.old_id_seq cache 1", "old"),
    ("lock table app.events in access exclusive mode", "events"),
    ("lock table pgtrickle.outbox_plain in access exclusive mode", "plain")])
def test_check_and_status_wait_for_no_lock(db, events, relay_bin, tmp_path, lock, unread):
    db.execute("create table app.old (id bigserial primary key, payload jsonb);"
               "insert into app.old (payload) values ('1');"
               "select pgtrickle.adopt_outbox('app.old', 'old', trust_ids => true);"
               "select pgtrickle.create_outbox('plain'); select pgtrickle.publish('plain', '1')")
    write(db)
    names = ("old", "events", "plain")
    for name in names:
        pipe(db, tmp_path / f"{name}.jsonl", name)
    with Relay(db.relay_dsn):
        for name in names:
            eventually(lambda: position(db, name))
    with db.connect(autocommit=False) as owner:
        holder = owner.info.backend_pid
        owner.execute(lock)
        begun = time.monotonic()
        told = run_command("check", "--postgres-url", db.relay_dsn).stdout
        status = {name: db.one("select pgtrickle.outbox_status(%s)", (name,))
                  for name in names}
        assert time.monotonic() - begun < 20 * SLOW_FACTOR
    assert "no relay is running" in told and "no answer in time" not in told, told
    for name, each in status.items():
        if name == unread:
            assert f"is locked by session {holder}, not judged now" in each["problem"]
            assert each["rows"] is None and each["positions"][0]["lag"] is None
        else:
            assert each["problem"] is None and each["rows"] == 1
        assert each["positions"][0]["pipeline"] == name


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
