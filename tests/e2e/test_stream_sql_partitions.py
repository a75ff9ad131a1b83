"""Partitions, events of days without one, publications, and the backlog."""

import re
import threading

import psycopg
from support.postgres import refusal
from support.stream_database import (add_partition, events, failed, partition_work,  # noqa: F401
                                     stream_db, stream_server, subscribe)
from support.waiting import eventually

SETTLE = "update pgstream.streams set settled_snapshot = pg_current_snapshot()"


def partitions(db):
    return [name for name, in db.execute(
        "select inhrelid::regclass::text from pg_inherits"
        " where inhparent = 'pgstream.events'::regclass order by 1")]


def add_event(db, day, stream=1):
    """An event of a day that has gone by."""
    db.execute("insert into pgstream.events (id, payload, stream_id, created_at)"
               " values (gen_random_uuid(), '{}', %s, %s)", (stream, f"{day} 12:00+00"))


def test_partitions_of_the_next_days_by_utc(stream_db):
    stream_db.execute("alter database %s set timezone = 'Pacific/Auckland'" % stream_db.name)
    stream_db.close()
    assert stream_db.one("select pgstream.make_partitions()") == 3
    assert stream_db.one("select pgstream.make_partitions()") == 0
    assert stream_db.one("select pgstream.make_partitions(5)") == 2
    assert partitions(stream_db) == [f"pgstream.events_{day}" for day, in stream_db.execute(
        "select to_char((now() at time zone 'UTC')::date + n, 'YYYYMMDD')"
        " from generate_series(0, 4) n")]
    assert stream_db.execute(
        "select pgstream._partition_of('2026-03-01 23:59:59.999999+00'),"
        " pgstream._partition_of('2026-03-02 00:00+00')") == [
            ("pgstream.events_20260301", "pgstream.events_20260302")]
    bounds = stream_db.one("select pg_get_expr(relpartbound, oid) from pg_class"
                           " where oid = %s::regclass", (partitions(stream_db)[0],))
    assert len(re.findall(r"12:00:00\+1[23]|13:00:00\+13", bounds)) == 2, bounds


def test_a_day_without_a_partition(stream_db):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db)
    stream_db.execute("insert into t values (1)")
    stream_db.execute("select pgstream.make_partitions()")
    stream_db.execute("insert into t values (2)")
    assert [e["new"]["id"] for e in events(stream_db)] == [1, 2]
    assert stream_db.one("select count(*) from pgstream.events_overflow") == 1
    assert stream_db.one("select pgstream.stream_status(1)")["overflow_rows"] == 1
    assert stream_db.one("select pgstream.stream_status(1)")["partitions_ahead"] == 3


def test_what_may_be_much_is_counted_up_to_a_limit(stream_db):
    stream_db.execute("insert into pgstream.events_overflow (id, payload, stream_id)"
                      " select gen_random_uuid(), '{}', 2 from generate_series(1, 10001)")
    stream_db.execute("insert into pgstream.failed_events (stream_id, key, schema_name, table_name,"
                      " operation, in_condition, error_code, error_message)"
                      " select 1, 'k', 's', 't', 'INSERT', false, '22012', ''"
                      " from generate_series(1, 10001)")
    stream_db.execute("insert into pgstream.backlog select 1, n, '7', 1 from generate_series(5, 204) n")
    status = stream_db.one("select pgstream.stream_status(1)")
    assert status["overflow_rows"] == 10000
    assert status["failed_events"] == {"k": 10000}
    assert status["backlog_transactions"] == 200


def test_a_partition_that_goes_while_a_session_writes(stream_db):
    """The end of a transaction or savepoint releases its lock: the session looks for it again."""
    stream_db.execute("create table t (id int)")
    subscribe(stream_db)
    stream_db.execute("select pgstream.make_partitions()")
    today = partitions(stream_db)[0]
    with stream_db.connect() as writer:
        writer.execute("insert into t values (0)")
        writer.execute("begin; set constraints all immediate; savepoint s")
        writer.execute("insert into t values (1)")
        writer.execute("rollback to s")
        stream_db.execute(f"alter table pgstream.events detach partition {today}")
        writer.execute("insert into t values (2)")
        writer.execute("commit")
    assert [e["new"]["id"] for e in events(stream_db)] == [2]
    assert stream_db.one("select count(*) from pgstream.events_overflow") == 1


def test_a_transaction_with_an_old_snapshot(stream_db):
    """It sees no partition that was made after it began, and takes it all the same."""
    stream_db.execute("create table t (id int)")
    subscribe(stream_db)
    with stream_db.connect(autocommit=False) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select 1 from pg_class")
        stream_db.execute("select pgstream.make_partitions()")
        old.execute("insert into t values (1)")
        old.commit()
    assert [e["new"]["id"] for e in events(stream_db)] == [1]


def test_old_partitions_are_removed_when_nothing_needs_them(stream_db):
    old = add_partition(stream_db, "2020-01-01")
    stream_db.execute("select pgstream.make_partitions()")
    add_event(stream_db, "2020-01-01")
    assert partition_work(stream_db) == []  # The stream has settled nothing yet.
    stream_db.execute(SETTLE)
    stream_db.execute("insert into pgstream.backlog select 1, 1, xid, 1 from pgstream.events")
    assert partition_work(stream_db) == []
    stream_db.execute("delete from pgstream.backlog; update pgstream.streams"
                      " set failover_checkpoint_ts = '2020-01-01 13:00+00' where id = 2")
    assert partition_work(stream_db) == []
    stream_db.execute("update pgstream.streams set failover_checkpoint_ts = null")
    assert partition_work(stream_db) == [
        f"ALTER TABLE pgstream.events DETACH PARTITION {old} CONCURRENTLY", f"DROP TABLE {old}"]
    assert len(partitions(stream_db)) == 3


def test_a_large_partition_is_not_read_before_it_is_removed(stream_db):
    old = add_partition(stream_db, "2020-01-01")
    stream_db.execute("insert into pgstream.events (id, payload, stream_id, created_at, xid)"
                      " select gen_random_uuid(), '{}', 1, '2020-01-01 12:00+00', n::text::xid8"
                      " from generate_series(10, 20000) n")
    stream_db.execute("analyze pgstream.events")
    stream_db.execute("update pgstream.streams set settled_snapshot = '100000:100003:100001'")
    stream_db.execute("insert into pgstream.backlog select 1, n, n::text::xid8, 1"
                      " from generate_series(100000, 100100) n")

    def work():
        """What is to be done, and how many events were read to tell."""
        with stream_db.connect(autocommit=False) as session:
            statements = session.execute("select pgstream.partition_work()").fetchall()
            return statements, session.execute(
                "select seq_tup_read + idx_tup_fetch from pg_stat_xact_all_tables"
                " where relid = %s::regclass", (old,)).fetchone()[0]

    statements, read = work()
    assert statements == [(f"ALTER TABLE pgstream.events DETACH PARTITION {old} CONCURRENTLY",)]
    assert read < 10
    for needed in ("100001", "100003", "100100"):
        stream_db.execute("update pgstream.events set xid = %s where xid = '10'", (needed,))
        assert work()[0] == []
        stream_db.execute("update pgstream.events set xid = '10' where xid = %s", (needed,))


def test_the_checkpoint_is_the_first_event_of_the_backlog(stream_db):
    def checkpoint(stream=1):
        return stream_db.execute("select failover_checkpoint_id, failover_checkpoint_ts"
                                 " from pgstream.streams where id = %s", (stream,))[0]

    stream_db.execute("select pgstream.add_stream(2)")
    stream_db.execute("select pgstream.make_partitions()")
    for table, stream in (("events_overflow", 1), ("events", 2), ("events_overflow", 1),
                          ("events", 1)):
        stream_db.execute(f"insert into pgstream.{table} (id, payload, stream_id)"
                          " select gen_random_uuid(), '{}', %s from generate_series(1, 2)", (stream,))
    waiting = stream_db.execute(
        "select id, created_at, xid::text from (select * from pgstream.events"
        " union all select * from pgstream.events_overflow) e where stream_id = 1 order by seq")
    for n, row in ((2, 2), (3, 0), (5, 4)):
        stream_db.execute("insert into pgstream.backlog values (1, %s, %s, 2)", (n, waiting[row][2]))
        assert checkpoint() == waiting[2][:2]
    for n, row in ((2, 0), (3, 4)):
        stream_db.execute("delete from pgstream.backlog where n = %s", (n,))
        assert checkpoint() == waiting[row][:2]
    stream_db.execute("delete from pgstream.backlog where n = 5")
    assert checkpoint() == checkpoint(2) == (None, None)


def test_the_checkpoint_costs_no_more_where_a_large_transaction_waits(stream_db):
    def rows_read(statement, parameters=None):
        with stream_db.connect(autocommit=False) as session:
            session.execute(statement, parameters)
            return session.execute(
                "select sum(seq_tup_read + idx_tup_fetch)::int from pg_stat_xact_all_tables"
                " where schemaname = 'pgstream' and relname like 'events%'").fetchone()[0]

    stream_db.execute("select pgstream.make_partitions()")
    stream_db.execute("insert into pgstream.events (id, payload, stream_id)"
                      " select gen_random_uuid(), '{}', 1 from generate_series(1, 20000)")
    first, xid = stream_db.execute("select id, xid::text from pgstream.events order by seq limit 1")[0]
    add = "insert into pgstream.backlog values (1, %s, %s, 20000)"
    for analyzed in (False, True):
        if analyzed:
            stream_db.execute("analyze pgstream.events")
        assert rows_read(add, (1, xid)) < 10
        assert stream_db.one("select failover_checkpoint_id from pgstream.streams where id = 1") == first
        assert rows_read(add, (2 + analyzed, xid)) == 0  # the first one is the same as before
        assert rows_read("delete from pgstream.backlog where n = 1") < 10
        assert stream_db.one("select failover_checkpoint_id from pgstream.streams where id = 1") == first
        stream_db.execute("delete from pgstream.backlog")


def test_a_stream_that_begins_anew_elsewhere_continues_no_round(stream_db):
    stream_db.execute("update pgstream.streams set system_identifier = 42, round_seq = 7,"
                      " settled_snapshot = '3:3:', round_snapshot = '5:5:'")
    assert stream_db.one("select pgstream.daemon_go_on(1, false)")
    assert stream_db.execute("select round_snapshot, round_seq from pgstream.streams"
                             " where id = 1") == [(None, -1)]


def test_without_concurrently_one_statement_runs_at_a_time(stream_db):
    old = [add_partition(stream_db, day) for day in ("2020-01-01", "2020-01-02")]
    stream_db.execute("select pgstream.make_partitions()")
    stream_db.execute(SETTLE)
    assert stream_db.one("select pgstream.remove_partitions()") == 2
    assert old[0] not in partitions(stream_db) and old[1] in partitions(stream_db)
    assert [stream_db.one("select pgstream.remove_partitions()") for _ in range(4)] == [2, 1, 1, 0]
    assert len(partitions(stream_db)) == 3
    assert stream_db.one("select to_regclass(%s)", (old[1],)) is None


def test_an_event_that_was_settled_later_than_the_snapshot(stream_db):
    add_partition(stream_db, "2020-01-01")
    stream_db.execute(SETTLE)
    add_event(stream_db, "2020-01-01")
    assert partition_work(stream_db) == []
    stream_db.execute("update pgstream.streams set settled_also ="
                      " array(select xid from pgstream.events) where id = 1")
    assert len(partition_work(stream_db)) == 2


def test_young_partitions_stay_whatever_the_retention(stream_db):
    stream_db.execute("select pgstream.make_partitions()")
    stream_db.execute(SETTLE)
    assert partition_work(stream_db, "-30 days") == []
    assert len(partitions(stream_db)) == 3


def test_partitions_come_and_go_beside_open_and_prepared_transactions(stream_db):
    """No commit waits for a lock of maintenance; what others hold up is done later."""
    stream_db.execute("create table t (id int)")
    subscribe(stream_db)
    old = add_partition(stream_db, "2020-01-01")
    add_event(stream_db, "2020-01-01")
    stream_db.execute(SETTLE)
    stream_db.execute("select pgstream.make_partitions(1)")
    stop, waited, written = threading.Event(), [], []

    def write():
        with stream_db.connect() as connection:
            connection.execute("set lock_timeout = '30ms'")
            while not stop.is_set():
                try:
                    connection.execute("insert into t values (1)")
                    written.append(1)
                except psycopg.Error as error:
                    waited.append(error)

    with stream_db.connect(autocommit=False) as open_writer, stream_db.connect() as preparing:
        open_writer.execute("insert into t values (2)")
        open_writer.execute("set constraints all immediate")
        preparing.execute("begin; insert into t values (3);"
                          f"prepare transaction 'p{stream_db.name}'")
        threads = [threading.Thread(target=write, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert stream_db.one("select pgstream.make_partitions()") == 2
        assert partition_work(stream_db) == []  # It waited for the two, and gave up.
        assert stream_db.one("select inhdetachpending from pg_inherits"
                             " where inhrelid = %s::regclass", (old,))
        before = len(written)
        eventually(lambda: len(written) > before + 50)
        assert partition_work(stream_db) == [
            f"ALTER TABLE pgstream.events DETACH PARTITION {old} FINALIZE", f"DROP TABLE {old}"]
        before = len(written)
        eventually(lambda: len(written) > before + 50)
        open_writer.commit()
        preparing.execute(f"commit prepared 'p{stream_db.name}'")
        stop.set()
        for thread in threads:
            thread.join(30)
    assert waited == []
    assert len(events(stream_db)) == len(written) + 2 and failed(stream_db) == []


def test_a_prepared_transaction_keeps_the_partition_that_it_has_written_to(stream_db):
    old = add_partition(stream_db, "2020-01-01")
    with stream_db.connect() as connection:
        connection.execute("begin; insert into pgstream.events (id, payload, stream_id, created_at)"
                           " values (gen_random_uuid(), '{}', 1, '2020-01-01 12:00+00');"
                           f" prepare transaction 'p{stream_db.name}'")
    stream_db.execute(SETTLE)
    assert partition_work(stream_db) == [] and old in partitions(stream_db)
    stream_db.execute(f"commit prepared 'p{stream_db.name}'")
    assert partition_work(stream_db) == []  # The stream has not settled it.
    stream_db.execute(SETTLE)
    assert len(partition_work(stream_db)) == 2


def test_the_overflow_is_cleaned(stream_db):
    stream_db.execute("insert into pgstream.events_overflow (id, payload, stream_id, created_at)"
                      " select gen_random_uuid(), '{}', 1, now() - n * interval '1 day'"
                      " from unnest(array[0, 20]) n")
    assert stream_db.one("select pgstream.clean_overflow()") == 0
    stream_db.execute(SETTLE)
    assert stream_db.one("select pgstream.clean_overflow()") == 1
    assert stream_db.one("select count(*) from pgstream.events_overflow") == 1


def published(db, slot, stream):
    """The ids in the payloads that a slot delivers to a stream, and the tables they come from."""
    ids, names, tables = [], {}, set()
    for data, in db.execute("select data from pg_logical_slot_get_binary_changes(%s, null, null,"
                            " 'proto_version', '1', 'publication_names', %s)",
                            (slot, f"pgstream_{stream}")):
        if data[:1] == b"R":
            names[data[1:5]] = data[5:].split(b"\0")[1].decode()
        elif data[:1] == b"I":
            tables.add(names[data[1:5]])
            ids += [int(number) for number in re.findall(rb'"new": \{"id": (\d+)\}', data)]
    return ids, tables


def test_the_publication_of_a_stream_has_its_events_and_no_others(stream_db):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db)
    subscribe(stream_db, stream=2, when="new.id > 1")
    for stream in (1, 2):
        stream_db.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')",
                          (f"{stream_db.name}_{stream}",))
    try:
        stream_db.execute("insert into t values (1)")  # No partition yet.
        stream_db.execute("select pgstream.make_partitions()")
        stream_db.execute("insert into t values (2), (3)")
        assert published(stream_db, f"{stream_db.name}_1", 1) == (
            [1, 2, 3], {"events", "events_overflow"})
        assert published(stream_db, f"{stream_db.name}_2", 2)[0] == [2, 3]
    finally:
        for stream in (1, 2):
            stream_db.execute("select pg_drop_replication_slot(%s)",
                              (f"{stream_db.name}_{stream}",))


def test_streams_and_their_publications(stream_db):
    def publication():
        stream_db.execute("select pgstream.add_stream(5)")
        return stream_db.one("select oid from pg_publication where pubname = 'pgstream_5'")

    made = publication()
    assert publication() == made
    stream_db.execute("drop publication pgstream_5")
    assert publication() != made
    assert stream_db.execute("select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot"
                             " from pg_publication where pubname = 'pgstream_5'") == [
                                 (True, False, False, False, True)]
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, stream=5)
    assert "stream 5 has subscriptions" in refusal(stream_db, "select pgstream.drop_stream(5)")
    stream_db.execute("delete from pgstream.subscriptions")
    stream_db.execute("select pgstream.drop_stream(5)")
    assert stream_db.execute("select 1 from pg_publication where pubname = 'pgstream_5'") == []
    assert stream_db.execute("select 1 from pgstream.streams where id = 5") == []
