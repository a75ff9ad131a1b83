"""The pg-outbox source over a plain table of another database."""

import base64
import json
import random
import re
import threading

import psycopg

import pytest

from support.pipelines import SLOW_FACTOR, status_row
from support.waiting import eventually, holds_for


@pytest.fixture
def there(pg_server):
    """A database of another owner, without the relay's schema."""
    database = pg_server.create_database(template="template0")
    yield database
    database.drop()


BY_ID = "id bigint generated always as identity primary key"
BY_XID = "id bigint primary key, xid xid8 not null default pg_current_xact_id()"


@pytest.fixture(params=["id", "xid"])
def way(request, there):
    """A table `letters`, read by its ids or by its transactions."""
    there.execute("create sequence s")
    keys = BY_ID if request.param == "id" else BY_XID.replace(
        "primary key", "primary key default nextval('s')", 1)
    there.execute(f"create table letters ({keys}, body jsonb, what text, who text, extra jsonb)")
    return request.param


def from_table(there, way="id", **options):
    source = {"type": "pg-outbox", "url": there.dsn, "table": "public.letters",
              "payload_column": "body", "poll_interval": "10ms"}
    if way == "xid":
        source["xid_column"] = "xid"
    source |= options.pop("source", {})
    return {"source": {k: v for k, v in source.items() if v is not None},
            "sink": {"type": "inbox", "inbox_name": "shop"}, **options}


def set_relay(db, config, name="p"):
    db.execute("select pgtrickle.create_inbox('shop')")
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => true)",
               (name, json.dumps(config)))


def write(there, *values, table="letters"):
    for value in values:
        there.execute(f"insert into {table} (body) values (%s)", (json.dumps(value),))


def arrived(db):
    return [row[0] for row in db.execute(
        "select payload from pgtrickle.inbox_shop order by received_at, ctid")]


def wait_arrived(db, wanted, relay, deadline=30):
    wanted = list(wanted)
    eventually(lambda: len(arrived(db)) >= len(wanted), deadline * SLOW_FACTOR,
               message=lambda: f"{len(arrived(db))} of {len(wanted)}\n{relay.log(30)}")
    assert arrived(db) == wanted


def position(db):
    return db.execute("select last_change_id, last_row from pgtrickle.relay_consumer_offsets")


def test_rows_arrive_in_order_once_each_across_restarts(db, there, relay, way):
    set_relay(db, from_table(there, way))
    with relay:
        write(there, *range(1, 20))
        wait_arrived(db, range(1, 20), relay)
        relay.stop()
        write(there, *range(20, 30))
        relay.start()
        wait_arrived(db, range(1, 30), relay)
        assert relay.metric("duplicates_total", pipeline="p") in (0, None)
    assert len(position(db)) == 1


def test_columns_become_what_the_options_say(db, there, relay, way):
    set_relay(db, from_table(there, way, source={
        "event_id_column": "who", "event_type_column": "what", "key_column": "what",
        "headers_column": "extra"}))
    with relay:
        there.execute("""insert into letters (body, what, who, extra)
                         values ('{"n": 1.50}', 'made', 'me-1', '{"trace_id": "t", "n": "2"}')""")
        wait_arrived(db, [{"n": 1.5}], relay)
    assert db.execute("select event_id, event_type, aggregate_id, trace_id, headers ->> 'n', "
                      "payload::text from pgtrickle.inbox_shop") == [
        ("me-1", "made", "made", "t", "2", '{"n": 1.50}')]


def test_without_a_payload_column_it_is_the_row(db, there, relay, way):
    set_relay(db, from_table(there, way, source={"payload_column": None}))
    with relay:
        write(there, {"a": 1})
        eventually(lambda: arrived(db))
    row, = arrived(db)
    assert row["body"] == {"a": 1} and row["id"] == 1 and row["what"] is None
    identity = db.one("select event_id from pgtrickle.inbox_shop")
    assert re.match(r"p:1-[0-9a-f]{8}:", identity)


def test_a_late_commit_is_not_skipped(db, there, relay, way):
    set_relay(db, from_table(there, way))
    with relay:
        write(there, "first")
        wait_arrived(db, ["first"], relay)
        with there.connect(autocommit=False) as slow:
            slow.execute("""insert into letters (body) values ('"late"')""")
            write(there, "early")
            holds_for(lambda: arrived(db) == ["first"], 0.5)
            slow.commit()
        wait_arrived(db, ["first", "late", "early"] if way == "id" else
                     ["first", "late", "early"], relay)


def test_what_was_rolled_back_holds_nothing_up(db, there, relay, way):
    set_relay(db, from_table(there, way))
    with relay:
        for number in range(5):
            with there.connect(autocommit=False) as connection:
                connection.execute("insert into letters (body) values ('0')")
                connection.rollback()
            write(there, number)
        wait_arrived(db, range(5), relay)


def test_many_writers_with_rollbacks_and_delays(db, there, relay, way):
    set_relay(db, from_table(there, way))
    committed, lock = [], threading.Lock()

    def work(worker):
        with there.connect(autocommit=False) as connection:
            for number in range(40):
                name = f"{worker}-{number}"
                connection.execute("insert into letters (body) values (%s)", (json.dumps(name),))
                connection.execute("select pg_sleep(random() * 0.01)")
                if number % 4 == 3:
                    connection.rollback()
                else:
                    connection.commit()
                    with lock:
                        committed.append(name)
    with relay:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        eventually(lambda: len(arrived(db)) >= len(committed), 30 * SLOW_FACTOR)
    assert sorted(arrived(db)) == sorted(committed)
    assert relay.process is None or db.one("select count(*) from pgtrickle.relay_dlq") == 0


def test_start_latest_and_a_large_row(db, there, relay, way):
    write(there, "old")
    set_relay(db, from_table(there, way, start="latest", max_record_bytes="1KiB"))
    with relay:
        eventually(lambda: position(db))
        write(there, "x" * 5000, "new")
        wait_arrived(db, ["new"], relay)
        assert "max_record_bytes" in eventually(
            lambda: db.one("select error_message from pgtrickle.relay_dlq"))


def crossing_writers(there):
    """Rows 1 to 12, of which 1, 4, 6, 7 and 12 are committed, 5 and 11 were rolled back, and the
    others are still open. Gives what ends them."""
    writers = {}

    def begin(row):
        writers[row] = there.connect(autocommit=False)
        writers[row].execute("insert into letters (body) values (%s)", (json.dumps(row),))
        return writers[row]

    write(there, 1)
    begin(2)
    begin(3).execute("savepoint a")
    write(there, 4)
    begin(5).rollback()
    write(there, 6, 7)
    for row in (8, 9, 10, 11):
        begin(row)
    writers[3].execute("release savepoint a")
    writers[8].execute("prepare transaction 'before the start'")
    writers[11].rollback()
    write(there, 12)

    def end():
        writers[9].execute("prepare transaction 'after the start'")
        there.execute("commit prepared 'after the start'")
        writers[2].commit()
        writers[10].rollback()
        there.execute("commit prepared 'before the start'")
        writers[3].commit()
        for writer in writers.values():
            writer.close()
    return [2, 3, 8, 9], end


@pytest.mark.parametrize("kill", [False, True], ids=["", "killed"])
def test_latest_delivers_exactly_what_commits_after_the_start(db, there, relay, way, kill):
    late, end = crossing_writers(there)
    set_relay(db, from_table(there, way, start="latest", batch_size=1))
    with relay:
        eventually(lambda: position(db))
        if kill:
            relay.kill9()
        write(there, 13)
        end()
        write(there, 14)
        if kill:
            relay.start()
        wanted = sorted([*late, 13, 14])
        eventually(lambda: set(wanted) <= set(arrived(db)), 20 * SLOW_FACTOR,
                   message=lambda: f"{arrived(db)} {relay.log(20)}")
        # A second start changes nothing, and what was skipped is forgotten.
        relay.stop()
        write(there, 15)
        relay.start()
        eventually(lambda: 15 in arrived(db), 20 * SLOW_FACTOR)
        assert sorted(arrived(db)) == [*wanted, 15]
        eventually(lambda: db.one("select skipped is null from pgtrickle.relay_consumer_offsets"))


def test_a_relay_killed_before_it_delivered_anything_skips_the_same_rows(db, there, relay, way):
    late, end = crossing_writers(there)
    set_relay(db, from_table(there, way, start="latest"))
    for row in (13, 14, 15):
        with relay:
            eventually(lambda: position(db))
            write(there, row)
            relay.kill9()
    end()
    with relay:
        eventually(lambda: len(arrived(db)) >= len(late) + 3, 20 * SLOW_FACTOR,
                   message=lambda: f"{arrived(db)} {relay.log(20)}")
        write(there, 16)
        eventually(lambda: 16 in arrived(db), 20 * SLOW_FACTOR)
    assert sorted(arrived(db)) == sorted([*late, 13, 14, 15, 16])


@pytest.mark.parametrize("start, wanted", [(7, [*range(7, 13), 1000]), (13, [1000]), (14, [1000]),
                                           (1000, [1000])], ids=str)
def test_an_id_is_the_first_to_be_delivered(db, there, relay, start, wanted):
    there.execute(f"create table letters ({BY_ID}, body jsonb)")
    write(there, *range(1, 13))
    set_relay(db, from_table(there, start=start))
    with relay:
        eventually(lambda: position(db), message=relay.log)
        there.execute("select setval('letters_id_seq', 999)")
        write(there, 1000)
        wait_arrived(db, wanted, relay)


def test_numbers_that_a_failover_draws_again_are_not_skipped(db, there, relay, way):
    write(there, 1, 2)
    with there.connect(autocommit=False) as writer:
        writer.execute("insert into letters (body) values ('3')")
        write(there, 4, 5, 6)
        set_relay(db, from_table(there, way, start="latest"))
        with relay:
            eventually(lambda: position(db))
    if way == "xid":
        # As if the server's numbers had been ahead by a million when the pipeline began.
        db.execute("update pgtrickle.relay_consumer_offsets set skipped = skipped "
                   "+ int8multirange(int8range(upper(skipped), upper(skipped) + 1000000))")
    else:
        there.execute("delete from letters where id > 2; select setval('letters_id_seq', 2)")
    with relay:
        eventually(lambda: "rewound" in str(relay.pipeline("p")["last_error"]), 20,
                   message=relay.log)
        db.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
        write(there, 100)
        eventually(lambda: 100 in arrived(db), 30)


def test_bytes_that_are_no_json_are_kept(db, there, relay):
    there.execute(f"create table letters ({BY_ID}, body bytea)")
    set_relay(db, from_table(there))
    with relay:
        there.execute("insert into letters (body) values ('{\"a\": 1}'), ('\\xff00'), ('{')")
        wait_arrived(db, [{"a": 1}, {"raw_base64": "/wA=",
                                     "content_type": "application/octet-stream"},
                          {"raw_base64": "ew==", "content_type": "application/octet-stream"}],
                     relay)


def test_whatever_bytes_arrive_are_stored_and_what_is_json_as_json(db, there, relay):
    """Random damage to JSON: what PostgreSQL takes as jsonb is stored as that, all else as base64,
    and nothing becomes a dead letter."""
    chance = random.Random(11)
    whole = json.dumps({"a": [1, 2.5e3, -0.1, True, None], "ü\\": {"t": "x\"\\\n𝄞é"}})
    payloads = [b"1e400000", b"[" * 3000 + b"]" * 3000, b"-1e-400000", b'"\\ud800"', b"",
                whole.encode(), b"1" * 200, b'{"a": 1, "a": 2}', b"\x00", b"\xef\xbb\xbf{}"]
    for _ in range(400):
        damaged = bytearray(whole.encode())
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(damaged))
            damaged[at:at + chance.randint(0, 2)] = bytes(
                chance.choice(b'"\\{}[],:0159.eE+-nul \x00\xff\xc3u') for _ in
                range(chance.randint(0, 2)))
        payloads.append(bytes(damaged))
    there.execute(f"create table letters ({BY_ID}, body bytea)")
    set_relay(db, from_table(there))
    with there.connect() as connection, connection.cursor() as cursor:
        cursor.executemany("insert into letters (body) values (%s)", [(p,) for p in payloads])

    def as_jsonb(payload):
        try:
            return db.one("select convert_from(%s, 'UTF8')::jsonb::text", (payload,))
        except psycopg.Error:
            return None
    with relay:
        eventually(lambda: db.one("select count(*) from pgtrickle.inbox_shop") == len(payloads), 40,
                   message=relay.log)
    stored = [row[0] for row in db.execute(
        "select payload::text from pgtrickle.inbox_shop order by received_at, ctid")]
    kept_as_json = 0
    for payload, text in zip(payloads, stored):
        expected = as_jsonb(payload)
        if expected is None:
            assert base64.b64decode(json.loads(text)["raw_base64"]) == payload
        else:
            kept_as_json += 1
            assert text == expected, payload
    assert 20 < kept_as_json < len(payloads) - 20
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.mark.parametrize("ddl,source,pattern", [
    ("", {"table": "public.nothing"}, "has no table"),
    (f"create table letters ({BY_ID}, body jsonb)", {"payload_column": "text"}, "no column"),
    ("create table letters (id bigint primary key, body jsonb)", {}, "rows could be skipped"),
    (f"create table letters ({BY_ID}, body jsonb); alter table letters alter id set cache 10", {},
     "one by one"),
    ("create table letters (id uuid primary key, body jsonb)", {}, "not an integer"),
    (f"create table letters ({BY_ID}, body jsonb, xid bigint)", {"xid_column": "xid"}, "not xid8")])
def test_what_cannot_be_read_safely_is_refused(db, there, relay, ddl, source, pattern):
    if ddl:
        there.execute(ddl)
    set_relay(db, from_table(there, source=source))
    with relay:
        relay.wait_state("p", "misconfigured")

        def told():
            stored = status_row(db, "p")
            return stored and re.search(pattern, str(stored["last_error"])) and stored["remedy"]
        eventually(told, 20, message=lambda: status_row(db, "p"))


def test_a_table_that_was_rewound_waits_for_a_word(db, there, start_relay):
    there.execute(f"create table letters ({BY_ID}, body jsonb)")
    set_relay(db, from_table(there))
    with start_relay(db.relay_dsn, pool_size=1) as relay:
        write(there, 1, 2, 3)
        wait_arrived(db, [1, 2, 3], relay)
        eventually(lambda: position(db) == [(3, 0)])
        relay.stop()
        there.execute("truncate letters restart identity")
        write(there, 4)
        relay.start()
        relay.wait_state("p", "misconfigured")
        assert "rewound" in relay.pipeline("p")["last_error"]
        db.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
        wait_arrived(db, [1, 2, 3, 4], relay, deadline=60)


def test_a_killed_relay_writes_each_row_once(db, there, relay, way):
    set_relay(db, from_table(there, way))
    for number in range(4):
        relay.start()
        there.execute("insert into letters (body) select to_jsonb(i) from generate_series"
                      "(%s::int, %s::int) i", (number * 500 + 1, number * 500 + 500))
        eventually(lambda: len(arrived(db)) > number * 500, 20, interval=0.001, message=relay.log)
        relay.kill9()
    with relay:
        eventually(lambda: len(arrived(db)) >= 2000, 20)
    assert sorted(arrived(db)) == list(range(1, 2001))


def test_a_lost_position_stops_its_owner_at_once(db, there, relay):
    """A token that is taken away stops the owner at once."""
    there.execute(f"create table letters ({BY_ID}, body jsonb)")
    set_relay(db, from_table(there))
    with relay:
        write(there, 1)
        wait_arrived(db, [1], relay)
        db.execute("update pgtrickle.relay_consumer_offsets set owner_token = gen_random_uuid()")
        write(there, 2)
        wait_arrived(db, [1, 2], relay)
        eventually(lambda: "fenced" in relay.log() or position(db) == [(2, 0)], 20)
