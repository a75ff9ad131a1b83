"""Outboxes on stream tables of the pg_trickle extension: differential and full refreshes."""

import re
import threading

import pytest

from support import relay as relay_process
from support.beside import (RIGHT_MODES, NatsCopy, install_beside, make_totals, modes, refresh,
                            sell)
from support.database_side import install
from support.ddl_consumer import upkeep
from support.fixtures import need
from support.pipelines import SLOW_FACTOR, set_outbox, to_nats
from support.postgres import PostgresServer, postgres_bin_directory
from support.relay import Relay, run_command
from support.replay import Replay
from support.stand_in_extensions import bin_with_extensions
from support.waiting import eventually, holds_for


@pytest.fixture
def beside(extension_db):
    """The relay beside pg_trickle 0.46, with an outbox on the stream table `totals`."""
    install_beside(extension_db)
    make_totals(extension_db)
    return extension_db


@pytest.fixture
def copy(nats):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        yield NatsCopy(client)


def status(db, name="totals"):
    return db.one("select pgtrickle.outbox_status(%s)", (name,))


# Delivered by the relay --------------------------------------------------------------------


def test_each_refresh_reaches_the_consumer(beside, nats, copy, start_relay):
    db = beside
    set_outbox(db, "p", to_nats("totals", nats))
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for turn, full in enumerate([False, True, False, True, True, False]):
            sell(db, f"customer {turn}")
            sell(db, "always")
            refresh(db, full=full)
            assert len(copy.wait_equal(db)) == turn + 2
            eventually(lambda: modes(db) == RIGHT_MODES)
        assert copy.full_refreshes == 3
        relay.wait_healthy(pipelines=1)
    assert status(db)["recording"] and status(db)["problem"] is None


def test_a_full_refresh_is_seen_within_seconds(beside, nats, copy, start_relay):
    db = beside
    set_outbox(db, "p", to_nats("totals", nats))
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for turn in range(5):
            sell(db, f"customer {turn}")
            refresh(db, full=True)
            copy.wait_equal(db, deadline=4 * SLOW_FACTOR)  # upkeep's own turn comes every 10 s


def test_differential_refreshes_before_the_detection_come_out_right(beside):
    """What is recorded between a full refresh and its detection is followed by all rows."""
    db = beside
    sell(db, "a", 1)
    refresh(db)
    replay = Replay(db, "totals")
    sell(db, "b", 1)
    refresh(db, full=True)
    sell(db, "a", 5)
    sell(db, "c", 1)
    refresh(db)  # its triggers fire on ORIGIN
    ops = replay.ops()
    assert ops[-2:] == ["DELETE", "INSERT"], "the difference is recorded, and once"
    assert upkeep(db) == 1
    assert replay.entries()[-1][5]["full_refresh"] and replay.ops()[-1] is None
    replay.check(strict=False)
    refresh(db)
    replay.check(strict=False)
    assert upkeep(db) == 0


def test_a_full_refresh_that_fails_leaves_nothing_to_do(beside):
    db = beside
    sell(db, "a")
    refresh(db)
    before = len(Replay(db, "totals").entries())
    with db.connect(autocommit=False) as session:
        session.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
        session.execute("select pgtrickle.refresh_stream_table('totals')")
        session.rollback()
    assert upkeep(db) == 0 and modes(db) == RIGHT_MODES
    assert len(Replay(db, "totals").entries()) == before


def test_writers_during_full_refreshes(beside, nats, copy, start_relay):
    """Writers to what the stream table reads."""
    db = beside
    set_outbox(db, "p", to_nats("totals", nats))
    stop = threading.Event()

    def write():
        with db.connect() as session:
            number = 0
            while not stop.is_set():
                number += 1
                session.execute("insert into sales values (%s, 1)", (f"writer {number % 50}",))

    writer = threading.Thread(target=write)
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        writer.start()
        try:
            for turn in range(20):
                refresh(db, full=turn % 3 == 0)
        finally:
            stop.set()
            writer.join()
        refresh(db)
        assert len(copy.wait_equal(db)) > 1
        eventually(lambda: modes(db) == RIGHT_MODES)


def test_writers_to_a_table_whose_triggers_are_switched_all_the_time(beside, nats, copy,
                                                                     start_relay):
    """Changes between the switchings are recorded; at the end the copy equals the table."""
    db = beside
    db.execute("create table t (customer int primary key, total int);"
               "select pgtrickle.enable_outbox('t')")
    set_outbox(db, "p", to_nats("t", nats))
    stop = threading.Event()

    def write(seed):
        with db.connect() as session:
            number = seed
            while not stop.is_set():
                number += 1
                session.execute("insert into t values (%s, 1)"
                                " on conflict (customer) do update set total = t.total + 1",
                                (number % 97,))
                session.execute("delete from t where customer = %s", (number * 7 % 97,))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for writer in writers:
            writer.start()
        try:
            for turn in range(12):
                db.execute(f"""
                    begin;
                    alter table t disable trigger user;
                    truncate t;
                    insert into t select n, {turn} from generate_series(0, 96, 2) n;
                    alter table t enable trigger user;
                    commit""")
                eventually(lambda: modes(db, "t") == RIGHT_MODES, 20 * SLOW_FACTOR)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert copy.wait_equal(db, "t")
        assert copy.full_refreshes >= 12
    Replay(db, "t").check(strict=False)


# Locks ---------------------------------------------------------------------------------------


def test_an_open_full_refresh_waits_for_nothing_of_ours_and_holds_up_no_upkeep(beside):
    db = beside
    db.execute("create table other (id int primary key); select pgtrickle.enable_outbox('other')")
    # A full refresh that is left to the owner is asked for at every look.
    db.execute("update pgtrickle_internal.outbox_signatures set wanted = 'it is large'"
               " where outbox_number = 1")
    sell(db, "a")
    refresh(db)
    with db.connect(autocommit=False) as session, db.connect(user="relay_daemon") as relay:
        session.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
        session.execute("select pgtrickle.refresh_stream_table('totals')")  # not committed
        relay.execute("set statement_timeout = '5s'")
        db.execute("alter table other disable trigger user")
        seen, = relay.execute("select pgtrickle.relay_watch_capture(null)").fetchone()
        report, = relay.execute("select pgtrickle.relay_housekeeping()").fetchone()
        assert seen is None and report["errors"] == []
        assert "recording" in status(db)
        assert "it is large" in run_command("check", "--postgres-url", db.dsn).stdout
        assert modes(db, "other") == RIGHT_MODES, "the other table is looked after"
        assert db.one("select count(*) from pg_locks where not granted") == 0
        session.commit()
        seen, = relay.execute("select pgtrickle.relay_watch_capture(null)").fetchone()
        assert seen is None
    assert modes(db) == RIGHT_MODES
    Replay(db, "totals").check(strict=False)


def test_restoring_waits_for_a_lock_and_says_so(beside, nats, copy, start_relay):
    db = beside
    set_outbox(db, "p", to_nats("totals", nats))
    sell(db, "a")
    refresh(db)
    with start_relay(db.relay_dsn) as relay:
        copy.wait_equal(db)
        with db.connect(autocommit=False) as holder, db.connect() as writer:
            holder.execute("select pgtrickle.alter_stream_table('totals', refresh_mode => 'FULL')")
            holder.execute("select pgtrickle.refresh_stream_table('totals')")
            holder.execute("alter table totals disable trigger user")
            relay.freeze()  # until the lock is there
            holder.commit()
            holder.execute("lock table totals in row exclusive mode")
            assert "not recorded: triggers" in status(db)["problem"]
            relay.thaw()
            told = eventually(lambda: "since" in status(db)["problem"] and status(db)["problem"],
                              20 * SLOW_FACTOR)
            assert "not recorded, since" in told and "until the table can be locked" in told
            assert status(db)["recording"] is False and status(db)["not_recorded_since"]
            eventually(lambda: "not recorded" in str(relay.health()[1]), 15 * SLOW_FACTOR)
            checked = run_command("check", "--postgres-url", db.dsn)
            assert "not recorded, since" in checked.stdout + checked.stderr
            # Others may write meanwhile, and wait for no more than a tenth of a second.
            writer.execute("set statement_timeout = '2s'")
            writer.execute("insert into totals values ('by hand', 1)")
            holder.commit()
        eventually(lambda: modes(db) == RIGHT_MODES, 30 * SLOW_FACTOR)
        assert "by hand" in copy.wait_equal(db)
        eventually(lambda: status(db)["problem"] is None and status(db)["recording"])
        assert status(db)["not_recorded_since"] is None


def test_the_table_of_another_owner_is_looked_after_as_its_owner(beside):
    db = beside
    db.login("shop")
    db.execute("create table kept (customer text primary key, total int);"
               "alter table kept owner to shop; select pgtrickle.enable_outbox('kept')")
    db.execute("alter table kept disable trigger user; insert into kept values ('a', 1);"
               "alter table kept enable trigger user")
    assert modes(db, "kept")["row"] == "O"
    assert upkeep(db) == 1
    assert modes(db, "kept") == RIGHT_MODES
    Replay(db, "kept").check()


def test_a_table_with_another_owner_says_who_has_to_act(beside):
    db = beside
    db.login("shop")
    db.execute("alter table totals owner to shop")
    sell(db, "a")
    refresh(db, full=True)
    assert upkeep(db) == 1
    assert "upkeep needs the owner of public.totals" in status(db)["problem"]
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 1  # as a superuser
    assert status(db)["problem"] is None and modes(db) == RIGHT_MODES
    Replay(db, "totals").check()


def test_an_event_trigger_of_the_extension_sees_the_restoring_and_does_not_break_it(beside):
    db = beside
    db.execute("""
        create table ddl_seen (tag text, by name);
        grant insert on ddl_seen to public;
        create function watch_ddl() returns event_trigger language plpgsql as $$
        begin
          insert into public.ddl_seen
          select command_tag, current_user from pg_event_trigger_ddl_commands();
        end $$;
        create event trigger watch_ddl on ddl_command_end execute function watch_ddl()""")
    db.login("shop")
    db.execute("alter table totals owner to shop")
    db.execute("select pgtrickle.outbox_capture_upkeep(); truncate ddl_seen")
    sell(db, "a")
    refresh(db, full=True)
    assert upkeep(db) == 1
    assert status(db)["problem"] is None
    assert modes(db) == RIGHT_MODES
    assert ("ALTER TABLE", "shop") in db.execute("select * from ddl_seen")
    Replay(db, "totals").check()


# Triggers that users switch off ------------------------------------------------------------------


@pytest.mark.parametrize("which", ["user", "all", '"!pgtrickle_1_insert"'])
def test_triggers_that_are_off_are_never_silent(beside, which):
    """Without a relay: the status and `check` say it. Upkeep switches them on, with all rows."""
    db = beside
    db.execute(f"alter table totals disable trigger {which}")
    db.execute("insert into totals values ('unseen', 1)")
    told = status(db)
    assert told["recording"] is False and "not recorded" in told["problem"]
    checked = run_command("check", "--postgres-url", db.dsn)
    assert re.search("triggers are missing or switched off", checked.stdout + checked.stderr)
    assert upkeep(db) == 1
    assert status(db)["recording"] and status(db)["problem"] is None
    assert modes(db) == RIGHT_MODES
    Replay(db, "totals").check()


def test_the_watch_costs_little_and_locks_no_table(beside):
    db = beside
    with db.connect(autocommit=False, user="relay_daemon") as relay:
        assert relay.execute("select pgtrickle.relay_watch_capture(null)").fetchone() == (None,)
        assert db.execute(
            "select l.relation::regclass::text from pg_locks l"
            " join pg_class c on c.oid = l.relation where l.pid = %s and c.relnamespace not in"
            " ('pg_catalog'::regnamespace, 'pgtrickle_internal'::regnamespace)",
            (relay.info.backend_pid,)) == []


# Crashes -------------------------------------------------------------------------------------


@pytest.fixture
def own_beside():
    """Such a database on a server of the test's own."""
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("own-extensions-pg", bin_directory=bin_with_extensions()).start()
    try:
        server.make_template(install)
        db = server.create_database(template="template0")
        install_beside(db)
        make_totals(db)
        yield db
    finally:
        relay_process.end_all_quietly()
        server.stop_immediate()


@pytest.mark.parametrize("killed", ["relay", "postgres"])
def test_a_kill_between_a_full_refresh_and_its_detection(own_beside, nats, copy, killed):
    db = own_beside
    set_outbox(db, "p", to_nats("totals", nats))
    relay = Relay(db.relay_dsn)
    for turn in range(3):
        relay.start()
        sell(db, f"before {turn}")
        refresh(db)
        copy.wait_equal(db)
        relay.freeze()  # it sees nothing of what follows
        sell(db, f"full {turn}")
        refresh(db, full=True)
        sell(db, f"after {turn}")
        refresh(db)
        assert modes(db)["row"] == "O"
        if killed == "postgres":
            db.server.restart("kill9")
        relay.kill9()
    with relay:
        assert len(copy.wait_equal(db, deadline=60)) == 9
        eventually(lambda: modes(db) == RIGHT_MODES)
