"""Consumer groups: polls, commits, leases, dead letters."""

import threading

import psycopg
import pytest

from support.groups import (commit, drain, expire, make_group, payloads, poll, publish, session)
from support.waiting import eventually


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    return db


@pytest.fixture
def worker(shop):
    with session(shop) as connection:
        yield connection


def consumers(db, columns="slot, position, offered, holder, attempts, lag, lost_rows", group="g"):
    return db.execute(f"select {columns} from pgtrickle.consumers where name = %s order by slot",
                      (group,))


# Polling and committing ----------------------------------------------------------------------

def test_a_poll_returns_what_was_published_and_a_commit_passes_it(shop, worker):
    id = shop.one("""select pgtrickle.publish('shop', '{"total": 12.30}', 'order.placed', 'o-1',
                     '{"trace": "t"}')""")
    [row] = poll(worker)
    assert (row["outbox_id"], row["event_type"], row["event_key"], row["headers"],
            row["is_claim_check"], row["attempt"]) == (
                id, "order.placed", "o-1", {"trace": "t"}, False, 1)
    assert float(row["payload"]["total"]) == 12.3 and row["pgt_id"] and row["created_at"]
    commit(worker, id)
    assert poll(worker) == []
    assert consumers(shop) == [(0, id, None, "a", 0, 0, 0)]


def test_an_unanswered_poll_gives_the_same_rows_again(shop, worker):
    publish(shop, 3)
    first = poll(worker, batch=2)
    publish(shop, 2, first=4)
    again = poll(worker, batch=100)
    assert payloads(first) == payloads(again) == [1, 2]
    assert [row["attempt"] for row in again] == [2, 2]
    commit(worker, again[-1]["outbox_id"])
    assert drain(worker) == [3, 4, 5]


def test_a_part_of_a_batch_can_be_committed(shop, worker):
    publish(shop, 5)
    rows = poll(worker)
    commit(worker, rows[1]["outbox_id"])
    assert payloads(poll(worker)) == [3, 4, 5]


def test_the_last_commit_can_be_repeated(shop, worker):
    publish(shop, 2)
    last = poll(worker)[-1]["outbox_id"]
    commit(worker, last)
    commit(worker, last)
    commit(worker, last - 1)
    assert consumers(shop, "position") == [(last,)]


def test_a_poll_that_was_rolled_back_never_happened(shop):
    publish(shop, 2)
    with session(shop, autocommit=False) as connection:
        assert payloads(poll(connection)) == [1, 2]
        connection.rollback()
        assert [row["attempt"] for row in poll(connection)] == [1, 1]


def test_rows_are_given_only_once_all_smaller_ids_are_decided(shop, worker):
    with shop.connect(autocommit=False) as slow:
        slow.execute("select pgtrickle.publish('shop', '1')")
        publish(shop, 1, first=2)
        assert poll(worker) == []
        slow.commit()
    assert drain(worker) == [1, 2]
    with shop.connect(autocommit=False) as slow:
        slow.execute("select pgtrickle.publish('shop', '3')")
        publish(shop, 1, first=4)
        assert poll(worker) == []
        slow.rollback()
    assert drain(worker) == [4]


def test_a_prepared_transaction_is_waited_for(shop, worker):
    with shop.connect() as slow:
        slow.execute("begin")
        slow.execute("select pgtrickle.publish('shop', '1')")
        publish(shop, 1, first=2)
        assert poll(worker) == []
        slow.execute("prepare transaction 'of a group'")
    for _ in range(3):
        assert poll(worker) == []
    shop.execute("commit prepared 'of a group'")
    assert drain(worker) == [1, 2]


def test_more_ids_that_were_rolled_back_than_a_batch_has_do_not_look_like_the_end(shop, worker):
    with shop.connect(autocommit=False) as connection:
        connection.execute("select pgtrickle.publish('shop', '0') from generate_series(1, 500)")
        connection.rollback()
    publish(shop, 1)
    assert payloads(poll(worker, batch=3)) == [1]


def test_a_transaction_that_stays_open_holds_up_no_other(shop, worker):
    """A consumer that processes in its transaction keeps neither others nor retention waiting."""
    make_group(shop, "h")
    publish(shop, 3)
    with session(shop, autocommit=False) as busy:
        assert payloads(poll(busy)) == [1, 2, 3]
        worker.execute("set statement_timeout = '5s'")
        assert poll(worker, "b") == []
        assert payloads(poll(worker, "b", "h")) == [1, 2, 3]
        assert shop.one("select pgtrickle.relay_housekeeping()")["errors"] == []
        publish(shop, 1, first=4)


def test_a_poll_waits_for_rows(shop):
    taken = []

    def wait():
        with session(shop) as connection:
            taken.extend(payloads(poll(connection, wait=20)))
    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: shop.one("select count(*) > 0 from pg_stat_activity where usename = 'worker' "
                                "and wait_event = 'PgSleep'"))
    publish(shop, 1)
    thread.join(15)
    assert taken == [1]


# Leases --------------------------------------------------------------------------------------

def test_a_second_consumer_of_one_slot_stands_by(shop, worker):
    publish(shop, 2)
    last = poll(worker, "a")[-1]["outbox_id"]
    assert poll(worker, "b") == []
    commit(worker, last, "a")
    publish(shop, 1, first=3)
    assert poll(worker, "b") == []
    assert payloads(poll(worker, "a")) == [3]


def test_a_late_commit_is_an_error_and_the_next_consumer_gets_the_rows(shop, worker):
    publish(shop, 2)
    last = poll(worker, "a")[-1]["outbox_id"]
    expire(shop)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no lease") as late:
        commit(worker, last, "a")
    assert "lease_lost" in late.value.diag.message_detail
    assert "poll again" in late.value.diag.message_hint
    assert [row["attempt"] for row in poll(worker, "b")] == [2, 2]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        commit(worker, last, "a")
    commit(worker, last, "b")
    assert poll(worker, "b") == []


def test_a_lease_can_be_extended_while_it_lives(shop, worker):
    publish(shop, 1)
    last = poll(worker, visibility=1)[-1]["outbox_id"]
    until = worker.execute("select pgtrickle.extend_lease('g', 'a', 3600)").fetchone()[0]
    assert consumers(shop, "until") == [(until,)]
    eventually(lambda: shop.one("select clock_timestamp() > %s - interval '3597 seconds'", (until,)))
    commit(worker, last)
    expire(shop)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no lease"):
        worker.execute("select pgtrickle.extend_lease('g', 'a')")


def test_slots_are_shared_by_the_consumers_that_live(shop, worker):
    make_group(shop, "many", slots=8)

    def held():
        return dict(shop.execute("select holder, count(*)::int from pgtrickle.consumers "
                                 "where name = 'many' and holder is not null group by 1"))
    poll(worker, "a", "many")
    assert held() == {"a": 8}
    assert poll(worker, "b", "many") == []
    poll(worker, "a", "many")
    poll(worker, "b", "many")
    assert held() == {"a": 4, "b": 4}
    expire(shop, "many")
    for _ in range(2):
        poll(worker, "b", "many")
    assert held() == {"b": 8}


def test_a_heartbeat_keeps_the_share_of_a_consumer(shop, worker):
    make_group(shop, "two", slots=2)
    poll(worker, "a", "two")
    worker.execute("select pgtrickle.consumer_heartbeat('two', 'b')")
    poll(worker, "a", "two")
    assert consumers(shop, "holder", "two") == [("a",), (None,)]


def test_keys_are_given_in_order_over_several_slots(shop, worker):
    make_group(shop, "many", slots=4)
    for n in range(200):
        shop.execute("select pgtrickle.publish('shop', %s::text::jsonb, key => %s)",
                     (n, f"k{n % 7}" if n % 10 else None))
    poll(worker, "a", "many", batch=1), poll(worker, "b", "many", batch=1)
    taken = {"a": [], "b": []}

    def turn():
        before = sum(map(len, taken.values()))
        for name in taken:
            if rows := poll(worker, name, "many", batch=9):
                taken[name] += rows
                commit(worker, rows[-1]["outbox_id"], name, "many")
        return sum(map(len, taken.values())) > before
    while turn():
        pass
    everything = taken["a"] + taken["b"]
    assert sorted(payloads(everything)) == list(range(200)) and taken["a"] and taken["b"]
    for n in range(7):
        of_key = payloads(row for row in everything if row["event_key"] == f"k{n}")
        assert of_key == sorted(of_key)


# Dead letters --------------------------------------------------------------------------------

def letters(db):
    return db.execute("select pipeline, convert_from(payload, 'UTF8'), key, error_code, error_message, "
                      "attempts, outbox_id from pgtrickle.relay_dlq order by id")


def test_a_rejected_row_is_a_dead_letter_and_does_not_come_again(shop, worker):
    publish(shop, 3)
    rows = poll(worker)
    for _ in range(2):
        worker.execute("select pgtrickle.reject_offset('g', 'a', %s, 'no such customer')",
                       (rows[1]["outbox_id"],))
    assert letters(shop) == [("g", "2", "k", "rejected", "no such customer", 1,
                              rows[1]["outbox_id"])]
    assert payloads(poll(worker)) == [1, 3]
    commit(worker, rows[-1]["outbox_id"])
    assert poll(worker) == []
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="was not given"):
        worker.execute("select pgtrickle.reject_offset('g', 'a', %s, '')", (rows[0]["outbox_id"],))


def test_a_row_that_no_consumer_can_process_is_found_and_becomes_a_dead_letter(shop, worker):
    publish(shop, 10)
    taken = []
    for _ in range(200):
        rows = poll(worker, batch=4)
        if not rows:
            break
        if 6 not in payloads(rows):  # a worker dies of row 6
            taken += payloads(rows)
            commit(worker, rows[-1]["outbox_id"])
    assert taken == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert [letter[:4] + letter[5:6] for letter in letters(shop)] == [("g", "6", "k", "max_attempts", 5)]


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_only_the_row_that_failed_becomes_a_dead_letter(shop, worker, attempts):
    make_group(shop, "few", max_attempts=attempts, slots=4)
    for n in range(12):
        publish(shop, 1, key=str(n), first=n)
    taken = []
    for _ in range(200):
        rows = poll(worker, "a", "few")
        if not rows:
            break
        if 6 not in payloads(rows):
            taken += payloads(rows)
            commit(worker, rows[-1]["outbox_id"], "a", "few")
    assert [letter[1] for letter in letters(shop)] == ["6"]
    assert sorted(set(taken)) == [n for n in range(12) if n != 6] and len(taken) == 11


def test_no_relay_sends_the_dead_letter_of_a_group(shop, worker):
    publish(shop, 1)
    worker.execute("select pgtrickle.reject_offset('g', 'a', %s, 'x')",
                   (poll(worker)[0]["outbox_id"],))
    id = shop.one("select id from pgtrickle.relay_dlq")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="of a consumer group"):
        shop.execute("select pgtrickle.relay_dlq_retry(%s)", (id,))
    shop.execute("select pgtrickle.relay_dlq_discard(%s)", (id,))


# Where a group stands ------------------------------------------------------------------------

def test_a_new_group_begins_with_what_commits_after_it(shop, worker):
    publish(shop, 3)
    with shop.connect(autocommit=False) as slow:
        slow.execute("select pgtrickle.publish('shop', '4')")
        publish(shop, 1, first=5)
        make_group(shop, "late", auto_offset_reset="latest")
        slow.commit()
    publish(shop, 1, first=6)
    assert drain(worker, group="late") == [4, 6]


def test_a_group_can_be_set_back_and_forward(shop, worker):
    publish(shop, 4)
    poll(worker)
    ids = [row[0] for row in shop.execute("select id from pgtrickle.outbox_shop order by id")]
    worker.execute("select pgtrickle.seek_offset('g', 'a', %s)", (ids[2],))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no lease"):
        commit(worker, ids[3])
    assert drain(worker) == [4]
    worker.execute("select pgtrickle.seek_offset('g', 'a', 0)")
    assert drain(worker) == [1, 2, 3, 4]


def test_lag_is_shown_for_one_group_and_for_all(shop, worker):
    make_group(shop, "two", slots=2)
    publish(shop, 5)
    lag = "select name, slot, lag from pgtrickle.consumer_lag({})"
    assert worker.execute(lag.format("'g'")).fetchall() == [("g", 0, 5)]
    assert worker.execute(lag.format("")).fetchall() == [("g", 0, 5), ("two", 0, 5), ("two", 1, 5)]
    drain(worker)
    assert worker.execute(lag.format("'g'")).fetchall() == [("g", 0, 0)]


def test_pipelines_and_groups_are_in_one_view_and_share_their_names(shop):
    config = '{"stream_table": "shop", "sink_type": "stdout"}'
    shop.execute("select pgtrickle.set_relay_outbox('p', %s::jsonb)", (config,))
    incarnation = shop.one("select incarnation from pgtrickle.pgt_outbox_config")
    shop.execute("select pgtrickle.relay_claim_position('default', 'p', %s, 'w', 'earliest')",
                 (incarnation,))
    assert shop.execute("select name, kind, outbox from pgtrickle.consumers order by 1") == [
        ("g", "group", "outbox_shop"), ("p", "pipeline", "outbox_shop")]
    with pytest.raises(psycopg.errors.DuplicateObject):
        shop.execute("select pgtrickle.create_consumer_group('p', 'shop')")
    with pytest.raises(psycopg.errors.DuplicateObject, match='consumer group "g"'):
        shop.execute("select pgtrickle.set_relay_outbox('g', %s::jsonb)", (config,))


def test_a_group_goes_with_its_outbox_and_can_be_dropped(shop, worker):
    make_group(shop, "h")
    worker.execute("select pgtrickle.drop_consumer_group('h')")
    worker.execute("select pgtrickle.drop_consumer_group('h', if_exists => true)")
    with pytest.raises(psycopg.errors.UndefinedObject, match='no consumer group "h"'):
        worker.execute("select pgtrickle.drop_consumer_group('h')")
    publish(shop, 3)
    told = []
    with shop.connect() as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        connection.execute("select pgtrickle.disable_outbox('shop')")
    assert told == ['3 rows of outbox_shop are dropped that consumer group "g" has not committed']
    with pytest.raises(psycopg.errors.UndefinedObject, match='no consumer group "g"'):
        poll(worker)


# The kinds of outboxes -----------------------------------------------------------------------

def test_a_group_reads_the_changes_of_a_table(db):
    db.execute("create table t (id int primary key, n int)")
    db.execute("select pgtrickle.enable_outbox('t', inline_threshold_rows => 2)")
    make_group(db, outbox="t")
    db.execute("insert into t values (1, 1)")
    db.execute("insert into t select i, i from generate_series(2, 5) i")
    with session(db) as connection:
        one, many = poll(connection)
        rows = connection.execute("select row_op, row_data from pgtrickle.consumer_rows('g', %s)",
                                  (many["outbox_id"],)).fetchall()
    assert one["payload"]["inserted"] == [{"id": 1, "n": 1}] and one["inserted_count"] == 1
    assert many["is_claim_check"] and many["inserted_count"] == 4
    assert rows == [("INSERT", {"id": i, "n": i}) for i in range(2, 6)]
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="1 slot"):
        make_group(db, "two", outbox="t", slots=2)


def test_a_group_reads_a_stream_table(db):
    db.execute("create table t (id int primary key, n int)")
    db.execute("select pgtrickle.create_stream_table('s', 'select sum(n) as n from t')")
    db.execute("select pgtrickle.enable_outbox('s')")
    make_group(db, outbox="s")
    db.execute("insert into t values (1, 1)")
    db.execute("select pgtrickle.refresh_stream_table('s')")
    with session(db) as connection:
        assert [row["payload"]["inserted"] for row in poll(connection)][-1] == [{"n": 1}]


def test_a_group_on_an_adopted_table_is_refused(db):
    db.execute("create table letters (id bigint generated always as identity primary key, body jsonb)")
    db.execute("select pgtrickle.adopt_outbox('letters', payload => 'body')")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="adopted") as refused:
        make_group(db, outbox="letters")
    assert "pipeline" in refused.value.diag.message_hint


# Bad input -----------------------------------------------------------------------------------

POLL = "select * from pgtrickle.poll_outbox('g', 'a', {})"
BAD = [
    ("select * from pgtrickle.poll_outbox(null, 'a')", "42704", "no consumer group"),
    ("select * from pgtrickle.poll_outbox('unknown', 'a')", "42704", "no consumer group"),
    ("select * from pgtrickle.poll_outbox('g', null)", "22023", "needs a name"),
    ("select * from pgtrickle.poll_outbox('g', '')", "22023", "needs a name"),
    (POLL.format("batch_size => 0"), "22023", "1 to 10000, not 0"),
    (POLL.format("batch_size => 1000000000"), "22023", "1 to 10000"),
    (POLL.format("batch_size => null"), "22023", "not null"),
    (POLL.format("visibility_seconds => 0"), "22023", "1 to 43200"),
    (POLL.format("visibility_seconds => null"), "22023", "not null"),
    (POLL.format("wait_seconds => 21"), "22023", "0 to 20"),
    ("select pgtrickle.commit_offset('g', 'a', null)", "22004", "null"),
    ("select pgtrickle.commit_offset('g', 'nobody', 1)", "55000", "no lease"),
    ("select pgtrickle.commit_offset('g', 'a', 1000000000)", "22023", "up to"),
    ("select pgtrickle.reject_offset('g', 'a', null, 'x')", "22004", "null"),
    ("select pgtrickle.reject_offset('g', 'a', 4711, 'x')", "22023", "was not given"),
    ("select pgtrickle.seek_offset('g', 'a', null)", "22004", "null"),
    ("select pgtrickle.seek_offset('g', 'a', -1)", "22023", "no offset"),
    ("select pgtrickle.seek_offset('g', 'a', 1000000000)", "22023", "no offset"),
    ("select pgtrickle.extend_lease('g', 'a', 0)", "22023", "1 to 43200"),
    ("select pgtrickle.extend_lease('g', 'nobody')", "55000", "no lease"),
    ("select pgtrickle.consumer_heartbeat(null, 'a')", "42704", "no consumer group"),
    ("select * from pgtrickle.consumer_lag('unknown')", "42704", "no consumer group"),
    ("select pgtrickle.drop_consumer_group(null)", "42704", "no consumer group"),
    ("select pgtrickle.create_consumer_group('x', 'unknown')", "42704", "no outbox"),
    ("select pgtrickle.create_consumer_group('x', null)", "42704", "no outbox"),
    ("select pgtrickle.create_consumer_group(null, 'shop')", "22023", "needs a name"),
    ("select pgtrickle.create_consumer_group('x', 'shop', 'middle')", "22023", "must be"),
    ("select pgtrickle.create_consumer_group('x', 'shop', null)", "22023", "must be"),
    ("select pgtrickle.create_consumer_group('x', 'shop', slots => 3)", "22023", "not 3"),
    ("select pgtrickle.create_consumer_group('x', 'shop', slots => null)", "22023", "null"),
    ("select pgtrickle.create_consumer_group('x', 'shop', max_attempts => 0)", "22023", "not 0"),
]


@pytest.mark.parametrize("statement,code,says", BAD)
def test_bad_input_is_refused_and_harms_no_other_consumer(shop, worker, statement, code, says):
    publish(shop, 2)
    rows = poll(worker)
    with pytest.raises(psycopg.Error) as refused:
        worker.execute(statement)
    assert refused.value.sqlstate == code and says in str(refused.value), refused.value
    commit(worker, rows[-1]["outbox_id"])
    assert poll(worker) == []


def test_a_repeatable_read_poll_is_refused(shop):
    publish(shop, 1)
    with session(shop, autocommit=False) as connection:
        for level in ("repeatable read", "serializable"):
            connection.execute(f"set transaction isolation level {level}")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="READ COMMITTED") as refused:
                poll(connection)
            assert "snapshot" in refused.value.diag.message_detail
            connection.rollback()
        assert payloads(poll(connection)) == [1]


@pytest.mark.parametrize("name", ["it's", 'a "quoted" group', "Ünïcode $1 %s", "x" * 200, "g; drop"])
def test_names_with_quotes_are_names(shop, name):
    make_group(shop, name, slots=2)
    publish(shop, 2)
    with session(shop) as connection:
        rows = poll(connection, name, name)
        assert payloads(rows) == [1, 2]
        connection.execute("select pgtrickle.reject_offset(%s, %s, %s, %s)",
                           (name, name, rows[0]["outbox_id"], name))
        commit(connection, rows[-1]["outbox_id"], name, name)
        assert drain(connection, name, name) == []
        connection.execute("select pgtrickle.drop_consumer_group(%s)", (name,))


def test_a_rewound_outbox_is_said_and_not_waited_for(shop, worker):
    publish(shop, 5)
    drain(worker)
    shop.execute("delete from pgtrickle.outbox_shop where id > 2")
    shop.execute("alter table pgtrickle.outbox_shop alter column id restart with 3")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was rewound"):
        poll(worker)
