"""Where a pipeline begins: `start` earliest, latest, or an id; and what retention took before."""

import random
import threading

import pytest

from support.pipelines import (LONG, Lines, insert_rows, make_table, position, set_outbox, to_file,
                               wait_settled)
from support.relay import Relay
from support.waiting import eventually, holds_for


def begun(db, pipeline="p"):
    """Waits until the pipeline has a position, which is its start."""
    return eventually(lambda: position(db, pipeline), 20)


def last_error(relay, pipeline="p"):
    return relay.pipeline(pipeline)["last_error"] or ""


def skipped(db, pipeline="p"):
    return db.one("select skipped::text from pgtrickle.relay_consumer_offsets"
                  " where pipeline_id = %s", (pipeline,))


def crossing_writers(db):
    """Rows 1 to 20 of which some are committed and others still open; what each open one does."""
    writers = []

    def write(row, *before):
        writer = db.connect(autocommit=False)
        for statement in before:
            writer.execute(statement)
        writer.execute(f"insert into orders values ({row}, 'crossing', {row})")
        writers.append((row, writer))
        return writer

    insert_rows(db, "orders", 1, 2)
    write(3)
    insert_rows(db, "orders", 4)
    nested = write(5, "savepoint a")
    nested.execute("release savepoint a")
    insert_rows(db, "orders", 6, 3)
    undone = write(9)
    undone.execute("savepoint a")
    undone.execute("insert into orders values (10, 'undone', 10)")
    undone.execute("rollback to savepoint a")
    undone.execute("insert into orders values (11, 'crossing', 11)")
    insert_rows(db, "orders", 12)
    prepared = write(13)
    prepared.execute("prepare transaction 'before the start'")
    insert_rows(db, "orders", 14)
    rolled_back = write(15)
    later = write(16)
    insert_rows(db, "orders", 17, 2)

    def end():
        later.execute("prepare transaction 'after the start'")
        db.execute("commit prepared 'after the start'")
        for row, writer in reversed(writers):
            if writer is rolled_back:
                writer.rollback()
            elif writer is prepared:
                db.execute("commit prepared 'before the start'")
            elif writer is not later:
                writer.commit()
            writer.close()
    return [3, 5, 9, 11, 13, 16], end


@pytest.mark.sanitizer
@pytest.mark.parametrize("kill", [False, True], ids=["", "killed"])
def test_latest_delivers_exactly_what_commits_after_the_start(db, relay_bin, tmp_path, kill):
    make_table(db)
    late, end = crossing_writers(db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, start="latest"))
    with Relay(db.relay_dsn) as relay:
        begun(db)
        if kill:
            relay.kill9()
            insert_rows(db, "orders", 21)
            end()
            late = [*late, 21]
            relay.start()
        else:
            end()
        insert_rows(db, "orders", 22)
        lines.wait_rows(sorted([*late, 22]))
        wait_settled(db, "p", "orders")
        assert skipped(db) is None
    # Neither a second start nor a second relay begins anew.
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 23)
        lines.wait_rows(sorted([*late, 22, 23]))


def test_latest_of_an_outbox_without_writers_passes_all_that_is_there(db, relay, tmp_path):
    make_table(db)
    insert_rows(db, "orders", 1, 5)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, start="latest"))
    with relay:
        assert begun(db) == (5, 0)
        insert_rows(db, "orders", 6)
        lines.wait_rows([6])


def test_what_latest_skipped_is_no_backlog_and_retention_may_take_it(db, relay, tmp_path):
    make_table(db)
    insert_rows(db, "orders", 1, 3)
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (4, 'crossing', 4)")
        insert_rows(db, "orders", 5, 3)
        lines = Lines(tmp_path / "out.jsonl")
        set_outbox(db, "p", to_file("orders", lines.path, start="latest"))
        with relay:
            begun(db)
            status = "select pgtrickle.outbox_status('orders')"
            assert db.one(status)["positions"][0]["lag"] == 0
            writer.rollback()
            assert eventually(lambda: relay.pipeline("p")["lag"] == 0)
            db.execute("update pgtrickle.outbox_orders set created_at = now() - interval '3 days'")
            eventually(lambda: [db.execute("select pgtrickle.relay_housekeeping()"),
                                db.one("select count(*) from pgtrickle.outbox_orders")][1] == 0)
            assert db.one(status)["positions"][0]["lost_rows"] == 0
            insert_rows(db, "orders", 8)
            lines.wait_rows([8])


def test_a_claim_check_behind_skipped_rows_is_resumed_where_it_was(db, relay_bin, tmp_path):
    db.execute("create table orders (id bigint primary key, name text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders', inline_threshold_rows => 10)")
    lines = Lines(tmp_path / "out.jsonl")
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (1, 'crossing', 1)")
        insert_rows(db, "orders", 2, 5)
        set_outbox(db, "p", to_file("orders", lines.path, start="latest", delta_max_rows=100,
                                    rate_limit=100, batch_size=1))
        with Relay(db.relay_dsn) as relay:
            begun(db)
            writer.commit()
            db.execute("insert into orders select n, 'many', n from generate_series(10, 10009) n")
            eventually(lambda: position(db, "p")[1] > 0, 20)
            relay.kill9()
        with Relay(db.relay_dsn):
            eventually(lambda: position(db, "p") == (7, 0), 30, message=lambda: position(db, "p"))
    assert sorted(set(lines.rows())) == [1, *range(10, 10010)]


def test_latest_is_exact_among_many_writers_kills_and_owners(db, relay_bin, tmp_path):
    """Each writer's row says when its transaction was begun and ended, seen from outside."""
    make_table(db)
    stop, started, failures = threading.Event(), threading.Event(), []
    before, after, undecided, never = set(), set(), set(), set()
    writers = 12

    def write(number):
        random_ = random.Random(number)
        try:
            with db.connect(autocommit=False) as writer:
                for row in range(number, 1_000_000, writers):
                    if stop.is_set():
                        return
                    writer.execute(f"insert into orders values ({row}, 'x', 1)")
                    if enabled.is_set() and not started.is_set() and random_.random() < 0.3:
                        started.wait(20)  # drawn before the start, committed after it
                    if random_.random() < 0.3:
                        stop.wait(random_.random() * 0.1)
                    was_started, fate = started.is_set(), random_.random()
                    if fate < 0.15:
                        writer.rollback()
                        never.add(row)
                        continue
                    if fate < 0.3:
                        writer.execute(f"prepare transaction 'w{row}'")
                        stop.wait(random_.random() * 0.05)
                        was_started = started.is_set()
                        db.connect().execute(f"commit prepared 'w{row}'")
                    else:
                        writer.commit()
                    if was_started:
                        after.add(row)
                    elif not enabled.is_set():
                        before.add(row)
                    else:
                        undecided.add(row)
        except Exception as error:
            failures.append(error)

    enabled = threading.Event()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(before) > 200 or failures)
    names = [f"p{n}" for n in range(3 if not LONG else 20)]
    lines = {name: Lines(tmp_path / f"{name}.jsonl") for name in names}
    for name in names:
        set_outbox(db, name, to_file("orders", lines[name].path, start="latest"), enable=False)
    # From here on a commit may be on either side of the start.
    enabled.set()
    relays = [Relay(db.relay_dsn).start()]
    for name in names:
        db.execute("select pgtrickle.enable_relay(%s)", (name,))
    for name in names:
        begun(db, name)
    relays[0].kill9()
    started.set()
    relays.append(Relay(db.relay_dsn).start())
    eventually(lambda: len(after) > 150 or failures, 30)
    relays.append(Relay(db.relay_dsn).start())
    relays[1].kill9()
    eventually(lambda: len(after) > 300 or failures, 30)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    for name in names:
        wait_settled(db, name, "orders")
    relays[2].stop()
    for name in names:
        rows = set(lines[name].rows())
        assert not rows & before, "published before the start"
        assert not rows & never
        assert not after - rows, "published after the start"
        assert rows <= after | undecided


def test_ids_that_a_failover_draws_again_are_not_skipped(db, relay_bin, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "out.jsonl")
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into orders values (1, 'crossing', 1)")
        insert_rows(db, "orders", 2, 5)
        set_outbox(db, "p", to_file("orders", lines.path, start="latest"))
        with Relay(db.relay_dsn):
            begun(db)
        assert skipped(db) == "{[2,7)}"
        writer.rollback()
    # What a standby that lagged has of it: the first rows, and a sequence that was not so far.
    db.execute("delete from pgtrickle.outbox_orders where id > 3")
    db.execute("select setval('pgtrickle.outbox_orders_id_seq', 3)")
    db.execute("delete from orders where id > 3")
    insert_rows(db, "orders", 100, 6)
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: "rewound" in last_error(relay), 20)
        db.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
        eventually(lambda: set(range(100, 106)) <= set(lines.rows()), 20)


# ---- an id

def purge(db, count):
    """Lets retention delete the first rows."""
    db.execute("update pgtrickle.outbox_orders set created_at = now() - interval '3 days'"
               " where id <= %s", (count,))
    eventually(lambda: [db.execute("select pgtrickle.relay_housekeeping()"),
                        db.one("select purged_below from pgtrickle.pgt_outbox_config")][1] == count,
               20)


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted"])
def test_an_id_below_what_retention_took_stops_the_pipeline_and_says_so(db, relay_bin, tmp_path,
                                                                        restart):
    make_table(db)
    insert_rows(db, "orders", 1, 10)
    purge(db, 6)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, start=2))
    with Relay(db.relay_dsn) as relay:
        def complains():
            error = last_error(relay)
            return "row 2 of outbox outbox_orders" in error and "rows up to 6 are gone" in error
        eventually(complains, 20)
        if restart:
            relay.kill9()
            relay.start()
            eventually(complains, 20)
        assert relay.health()[1]["status"] != "healthy"
        holds_for(lambda: lines.rows() == [], 0.3)
        db.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
        lines.wait_rows([7, 8, 9, 10])
        assert db.one("select lost_rows from pgtrickle.relay_consumer_offsets") == 0


@pytest.mark.parametrize("start, wanted", [(7, [7, 8, 9, 10, 11, 1000]), (1000, [1000]), (11, [11, 1000]),
                                           ("earliest", [7, 8, 9, 10, 11, 1000])], ids=str)
def test_an_id_that_is_there_or_to_come_is_the_first_to_be_delivered(db, relay, tmp_path, start,
                                                                     wanted):
    make_table(db)
    insert_rows(db, "orders", 1, 10)
    purge(db, 6)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("orders", lines.path, start=start))
    with relay:
        begun(db)
        insert_rows(db, "orders", 11)
        db.execute("select setval('pgtrickle.outbox_orders_id_seq', 999)")
        insert_rows(db, "orders", 1000)
        lines.wait_rows(wanted)
        assert not last_error(relay)
