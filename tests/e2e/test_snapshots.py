"""consumer_snapshot: what a REPEATABLE READ transaction reads, and then exactly what is not in it."""

import random
import time

import psycopg
import pytest

from support.groups import make_group, poll, session
from support.pipelines import LONG, make_table
from support.snapshots import Copy, StockWriters, follow, table_rows, take_copy
from support.standby import pair  # noqa: F401
from support.waiting import eventually

REPEATABLE = "begin isolation level repeatable read"
SNAPSHOT = "select pgtrickle.consumer_snapshot('g')"


@pytest.fixture
def stock(db):
    make_table(db, "stock")
    db.execute("insert into stock select i, 'first', 0 from generate_series(1, 20) i")
    make_group(db, outbox="stock", auto_offset_reset="snapshot")
    db.execute("grant select on stock to worker")
    return db


@pytest.fixture
def worker(stock):
    with session(stock) as connection:
        yield connection


def test_a_hundred_snapshots_under_twelve_writers_begin_exact_copies(stock, worker):
    """Each copy is replayed strictly as it grows, and equals the table at the end."""
    chance = random.Random(1)
    groups = [f"g{i}" for i in range(100)]
    for group in groups:
        make_group(stock, group, outbox="stock", auto_offset_reset="snapshot")
    copies = {}
    followed = 0
    with StockWriters(stock, 12) as writers:
        for group in groups:
            copies[group] = take_copy(worker, group, between=lambda: time.sleep(
                chance.random() * 0.02))
            again = chance.choice(list(copies))
            followed += follow(worker, again, copies[again], polls=2)
            if chance.random() < 0.2:
                copies[again] = take_copy(worker, again)
        eventually(lambda: sum(w.commits for w in writers.writers) > 500, 60)
    wanted = Copy(table_rows(stock)).rows
    for group in groups:
        followed += follow(worker, group, copies[group])
        assert copies[group].rows == wanted, group
    assert followed > 100


def test_a_group_that_begins_with_a_snapshot_delivers_nothing_before(stock, worker):
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState,
                       match="begins with a snapshot") as refused:
        poll(worker)
    assert "consumer_snapshot('g')" in refused.value.diag.message_hint
    copy = take_copy(worker, "g")
    assert len(copy.rows) == 20 and poll(worker) == []
    stock.execute("delete from stock where id = 1")
    assert follow(worker, "g", copy) == 1 and len(copy.rows) == 19


def test_an_open_writer_is_on_the_side_of_the_changes(stock, worker):
    with stock.connect(autocommit=False) as slow:
        slow.execute("insert into stock values (100, 'slow', 1)")
        stock.execute("insert into stock values (101, 'quick', 1)")
        copy = take_copy(worker, "g")
        assert 101 in copy.rows and 100 not in copy.rows
        assert poll(worker) == []  # 101 is in the copy
        slow.commit()
    assert follow(worker, "g", copy) == 1
    assert copy.rows == Copy(table_rows(stock)).rows


def test_a_prepared_transaction_is_on_the_side_of_the_changes(stock, worker):
    with stock.connect() as slow:
        slow.execute("begin; insert into stock values (100, 'slow', 1); prepare transaction 'of a copy'")
    stock.execute("delete from stock where id = 1")
    copy = take_copy(worker, "g")
    stock.execute("commit prepared 'of a copy'")
    assert follow(worker, "g", copy) == 1
    assert copy.rows == Copy(table_rows(stock)).rows


def test_a_snapshot_that_is_rolled_back_never_happened(stock, worker):
    worker.execute(REPEATABLE)
    worker.execute(SNAPSHOT)
    worker.execute("rollback")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        poll(worker)


def test_a_group_that_has_begun_can_be_set_to_a_snapshot(stock, worker):
    make_group(stock, "old", outbox="stock", auto_offset_reset="earliest")
    assert len(poll(worker, group="old")) == 1
    copy = take_copy(worker, "old")
    stock.execute("update stock set amount = 7")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no lease"):
        worker.execute("select pgtrickle.commit_offset('old', 'a', 1)")
    assert follow(worker, "old", copy) == 1
    assert copy.rows == Copy(table_rows(stock)).rows


def test_a_group_is_made_and_set_in_one_transaction(stock):
    with stock.connect() as connection:
        connection.execute(REPEATABLE)
        connection.execute("select pgtrickle.create_consumer_group('mine', 'stock', 'snapshot')")
        connection.execute("select pgtrickle.consumer_snapshot('mine')")
        copy = Copy(table_rows(connection))
        connection.execute("commit")
        stock.execute("delete from stock where id < 5")
        follow(connection, "mine", copy)
        assert copy.rows == Copy(table_rows(stock)).rows


def test_a_stream_table_has_snapshots_too(stock, worker):
    stock.execute("create table sold (item text, n int)")
    stock.execute("insert into sold select 'i' || i % 3, i from generate_series(1, 30) i")
    stock.execute("select pgtrickle.create_stream_table('totals', 'select item as id, sum(n) as n "
                  "from sold group by item', null, key_columns => '{id}')")
    stock.execute("select pgtrickle.enable_outbox('totals')")
    stock.execute("select pgtrickle.refresh_stream_table('totals')")
    make_group(stock, "sums", outbox="totals", auto_offset_reset="snapshot")
    stock.execute("grant select on totals to worker")
    copy = take_copy(worker, "sums", "totals")
    assert len(copy.rows) == 3
    stock.execute("delete from sold where item = 'i1'; insert into sold values ('i2', 1), ('i4', 1)")
    stock.execute("select pgtrickle.refresh_stream_table('totals')")
    assert follow(worker, "sums", copy) == 1
    assert copy.rows == Copy(table_rows(stock, "totals")).rows


def test_writers_and_retention_do_not_wait_for_a_snapshot(stock, worker):
    worker.execute(REPEATABLE)
    worker.execute(SNAPSHOT)
    stock.execute("set statement_timeout = '5s'")
    stock.execute("update stock set amount = amount + 1")
    assert stock.one("select pgtrickle.relay_housekeeping()")["errors"] == []
    worker.execute("commit")


def test_a_group_without_its_snapshot_holds_no_rows_back(stock):
    stock.execute("update stock set amount = 1")
    stock.execute("update pgtrickle.outbox_stock set created_at = clock_timestamp() - interval '9 days'")
    stock.execute("select pgtrickle.relay_housekeeping()")
    assert stock.one("select count(*) from pgtrickle.outbox_stock") == 0
    assert stock.one("select sum(lost_rows) from pgtrickle.consumers where name = 'g'") == 0


def test_what_changed_since_the_transaction_began_is_a_serialization_failure(stock, worker):
    take_copy(worker, "g")
    worker.execute(REPEATABLE)
    worker.execute("select 1")
    with session(stock) as other:
        stock.execute("delete from stock where id = 1")
        poll(other)
    with pytest.raises(psycopg.errors.SerializationFailure) as refused:
        worker.execute(SNAPSHOT)
    assert "new transaction" in refused.value.diag.message_hint
    worker.execute("rollback")
    take_copy(worker, "g")


def test_a_table_that_was_written_anew_since_the_transaction_began_gives_no_snapshot(stock, worker):
    worker.execute(REPEATABLE)
    worker.execute("select 1")
    stock.execute("alter table stock alter amount type bigint")
    with pytest.raises(psycopg.errors.SerializationFailure, match="its table was changed"):
        worker.execute(SNAPSHOT)
    worker.execute("rollback")
    assert len(take_copy(worker, "g").rows) == 20


@pytest.mark.parametrize("begin, call, state, message, hint", [
    (None, SNAPSHOT, "25001", "REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
    ("begin isolation level read committed", SNAPSHOT, "25001", "REPEATABLE READ", "BEGIN ISOLATION"),
    (REPEATABLE + " read only", SNAPSHOT, "25006", "READ ONLY", "READ WRITE"),
    (REPEATABLE, "select pgtrickle.consumer_snapshot(null)", "42704", r"\(null\)", "create_consumer"),
    (REPEATABLE, "select pgtrickle.consumer_snapshot('no one')", "42704", "no consumer group",
     "create_consumer"),
    (REPEATABLE, "select pgtrickle.consumer_snapshot('events')", "0A000", "holds events", "earliest"),
    (REPEATABLE, "update stock set amount = 1 where id = 1; " + SNAPSHOT, "55000", "has changed",
     "does not write"),
])
def test_bad_input_has_an_error_with_a_remedy(stock, begin, call, state, message, hint):
    stock.execute("select pgtrickle.create_outbox('happened')")
    make_group(stock, "events", outbox="happened")
    stock.execute("grant update on stock to worker")
    with session(stock) as connection:
        if begin:
            connection.execute(begin)
        with pytest.raises(psycopg.Error, match=message) as refused:
            connection.execute(call)
    assert refused.value.sqlstate == state and hint in refused.value.diag.message_hint


def test_an_outbox_of_events_has_no_group_that_begins_with_a_snapshot(stock):
    stock.execute("select pgtrickle.create_outbox('happened')")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="holds events"):
        make_group(stock, "events", outbox="happened", auto_offset_reset="snapshot")


def test_a_table_with_row_security_gives_no_snapshot_to_whom_it_hides_rows(stock, worker):
    stock.execute("alter table stock enable row level security")
    worker.execute(REPEATABLE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security") as refused:
        worker.execute(SNAPSHOT)
    assert "BYPASSRLS" in refused.value.diag.message_hint


def test_names_with_capitals_quotes_and_hyphens_have_snapshots(db):
    name = 'My-"Stock" O\'Neil'
    quoted = '"' + name.replace('"', '""') + '"'
    db.execute(f"create table {quoted} (id int primary key)")
    db.execute("select pgtrickle.enable_outbox(%s)", (quoted,))
    make_group(db, name, outbox=quoted, auto_offset_reset="snapshot")
    db.execute(f"grant select on {quoted} to worker")
    with session(db) as connection:
        copy = take_copy(connection, name, quoted)
        db.execute(f"insert into {quoted} values (1)")
        assert follow(connection, name, copy) == 1 and copy.rows == {1: {"id": 1}}


def test_a_million_rows_are_read_as_fast_as_copy_reads_them(db):
    """The position takes a moment. LONG: a million rows; figures are printed."""
    rows = 1_000_000 if LONG else 20_000
    make_table(db, "stock")
    db.execute("insert into stock select i, 'n' || i, i from generate_series(1, %s) i", (rows,))
    db.execute("vacuum analyze stock")
    make_group(db, outbox="stock", auto_offset_reset="snapshot")
    db.execute("grant select on stock to worker")

    def copy_out(connection):
        begun = time.monotonic()
        with connection.cursor().copy("copy stock to stdout") as copy:
            size = sum(len(data) for data in copy)
        return time.monotonic() - begun, size
    with StockWriters(db, 4), session(db) as connection:
        copy_out(connection)
        plain, positions, both = [], [], []
        for _ in range(3):
            plain.append(copy_out(connection)[0])
            begun = time.monotonic()
            connection.execute(REPEATABLE)
            connection.execute("select 1")
            asked = time.monotonic()
            connection.execute(SNAPSHOT)
            positions.append(time.monotonic() - asked)
            assert copy_out(connection)[1] > rows * 5
            both.append(time.monotonic() - begun)
            connection.execute("commit")
    print(f"\n{rows} rows: position {[round(p * 1000) for p in positions]} ms, "
          f"COPY / snapshot and COPY {sorted(plain)[1] / sorted(both)[1]:.2f}")


def test_a_standby_gives_no_snapshot(pair):  # noqa: F811
    primary, standby = pair
    db = primary.create_database()
    make_table(db, "stock")
    make_group(db, outbox="stock", auto_offset_reset="snapshot")

    def refused():
        try:
            with psycopg.connect(standby.dsn(db.name), autocommit=True) as connection:
                connection.execute(REPEATABLE)
                connection.execute(SNAPSHOT)
        except psycopg.Error as error:
            return error.sqlstate == "25006" and "primary" in (error.diag.message_hint or "")
    eventually(refused, 30)
    db.drop()
