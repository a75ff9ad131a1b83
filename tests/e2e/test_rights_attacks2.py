"""Attacks on outboxes by administrators without rights on the table, and by outboxes on applications."""

import threading

import psycopg
import pytest

from support.waiting import eventually


def outbox(db, table="treasure"):
    return db.execute("select coalesce(tg_op, 'FULL'), inserted_count, deleted_count "
                      f"from pgtrickle.outbox_{table} order by id")


@pytest.fixture
def cast(db):
    """heather owns a table with an outbox and two rows; mallory administers pgtrickle and may refer to it."""
    for role, *member_of in (("heather", "pgtrickle_admin"), ("mallory", "pgtrickle_admin")):
        db.login(role, *member_of)
    db.execute("grant create on schema public to heather, mallory")
    with db.connect(user="heather") as heather:
        heather.execute("create table treasure (id int primary key, n int)")
        heather.execute("select pgtrickle.enable_outbox('treasure')")
        heather.execute("insert into treasure values (1, 1), (2, 2)")
        heather.execute("grant select, references on treasure to mallory")
    with db.connect(user="mallory") as mallory:
        mallory.execute("create table mine (id int primary key, n int)")
    return db


@pytest.mark.parametrize("op", ["DELETE", "INSERT"])
def test_no_administrator_says_of_rows_of_another_owner_that_they_are_gone(cast, op):
    with cast.connect(user="heather") as heather:  # so that housekeeping has to lock the table
        heather.execute("""alter table treasure disable trigger "!pgtrickle_1_insert";
                       alter table treasure enable trigger "!pgtrickle_1_insert" """)
    with cast.connect(user="mallory", autocommit=False) as mallory:
        mallory.execute("select pgtrickle.relay_housekeeping()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), mallory.transaction():
            mallory.execute("select pgtrickle_internal.capture_relation(1, 'treasure', %s, %s)", (op, op))
    assert outbox(cast) == [("INSERT", 2, 0), ("FULL", 2, 0)]


def test_a_lock_on_a_table_does_not_give_its_outbox_away(cast):
    with cast.connect(user="mallory", autocommit=False) as mallory:
        mallory.execute("create table refers (id int references treasure)")
        mallory.execute("lock table mine in share row exclusive mode")
        for to in ("mine", "treasure"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), mallory.transaction():
                mallory.execute("select pgtrickle_internal.outbox_rebind(1, %s, array['id'], 24, 100, 1000, "
                                "false, 'row')", (to,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), mallory.transaction():
            mallory.execute("select pgtrickle_internal.outbox_owner_says(1, true)")


def test_the_outbox_of_a_dropped_table_stays_with_its_owner(cast):
    with cast.connect(user="heather") as heather, cast.connect(user="mallory") as mallory:
        heather.execute("drop table treasure")
        mallory.execute("create table treasure (id int primary key)")
        for attempt in ("rebind_outbox('outbox_treasure', 'mine')", "rebind_outbox('treasure')",
                        "enable_outbox('treasure')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
                mallory.execute(f"select pgtrickle.{attempt}")
        mallory.execute("drop table treasure")
        heather.execute("create table treasure (id int primary key, n int)")
        assert heather.execute("select pgtrickle.enable_outbox('treasure')").fetchall() == [
            ("outbox_treasure",)]
        # And goes with the table where that gets another owner.
        cast.execute("alter table treasure owner to mallory")
        mallory.execute("select pgtrickle.rebind_outbox('outbox_treasure', 'mine')")
        mallory.execute("insert into mine values (7, 7)")
    assert outbox(cast)[-1] == ("INSERT", 1, 0)
    assert cast.one("select stream_table_name from pgtrickle.pgt_outbox_config") == "mine"


def test_a_transaction_that_becomes_read_only_commits_and_is_sent_as_a_full_refresh(db):
    db.execute("create table late (id int primary key deferrable)")
    db.execute("select pgtrickle.enable_outbox('late')")
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into late values (1)")
        writer.execute("insert into late values (2)")
        writer.execute("set transaction read only")
    assert outbox(db, "late") == [("INSERT", 1, 0), ("INSERT", 1, 0)]
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert outbox(db, "late")[2:] == [("FULL", 2, 0)]
    assert db.execute("select * from pgtrickle_internal.outbox_deferred") == []


def test_replicated_changes_of_a_table_with_a_deferrable_key_are_combined(db):
    db.execute("create table late (id int primary key deferrable)")
    db.execute("select pgtrickle.enable_outbox('late')")
    with db.connect(autocommit=False) as worker:
        worker.execute("set local session_replication_role = replica")
        worker.execute("insert into late values (1)")
        worker.execute("update late set id = 2")
    assert outbox(db, "late") == [("INSERT", 1, 0)]
    assert db.execute("select * from pgtrickle_internal.outbox_deferred") == []


@pytest.mark.parametrize("prepare, call", [
    ("", "disable_outbox('t')"),
    ("create table other (id int primary key)", "rebind_outbox('t', 'other')"),
    ("create table child () inherits (t)", "outbox_capture_upkeep()")])
def test_dropping_triggers_is_no_deadlock_for_a_reader_that_goes_on_to_write(db, prepare, call):
    db.execute("create table t (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('t')")
    if prepare:
        db.execute(prepare)
    with db.connect() as admin, db.connect(autocommit=False) as app, db.connect() as reader:
        app.execute("select count(*) from t")
        ended = threading.Event()

        def administer():
            admin.execute(f"select pgtrickle.{call}")
            ended.set()
        thread = threading.Thread(target=administer, daemon=True)
        thread.start()
        eventually(lambda: ended.is_set() or db.one(
            "select true from pg_stat_activity where pid = %s and state = 'active' "
            "and (wait_event_type = 'Lock' or wait_event = 'PgSleep')", (admin.info.backend_pid,)))
        reader.execute("set statement_timeout = '10s'")
        reader.execute("select count(*) from t")
        app.execute("insert into t values (1)")
        app.commit()
        assert ended.wait(60)
        thread.join()


def test_no_administrator_makes_changes_that_were_missed_forgotten(cast):
    cast.execute("select pgtrickle_internal.capture_missed(1, 'a test')")
    with cast.connect(user="mallory", autocommit=False) as mallory:
        mallory.execute("create table refers (id int references treasure)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), mallory.transaction():
            mallory.execute("select pgtrickle_internal.outbox_refreshed(1)")
        mallory.execute("select pgtrickle_internal.upkeep_want(1, null), pgtrickle_internal.upkeep_to_row(1)")
    assert cast.execute("select wanted, capture from pgtrickle_internal.outbox_signatures "
                        "join pgtrickle.pgt_outbox_config using (outbox_number)") == [
                            ("a test", "statement")]
    cast.execute("select pgtrickle.outbox_capture_upkeep()")
    assert outbox(cast) == [("INSERT", 2, 0), ("FULL", 2, 0)]


def test_an_old_snapshot_is_not_sent_as_the_newest_state(cast):
    with cast.connect(user="mallory", autocommit=False) as mallory:
        mallory.execute("set transaction isolation level repeatable read")
        mallory.execute("select 1 from treasure")
        cast.execute("delete from treasure")
        mallory.execute("create table refers (id int references treasure)")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            mallory.execute("select pgtrickle_internal.capture_relation(1, 'treasure', 'FULL', null)")
        mallory.rollback()
    assert outbox(cast) == [("INSERT", 2, 0), ("DELETE", 0, 2)]


def test_a_restored_outbox_is_not_bound_to_a_table_that_a_former_owner_prepared(cast):
    with cast.connect(user="heather") as heather:
        heather.execute("create table decoy (id int primary key, n int)")
        heather.execute("""create trigger "!pgtrickle_1_begin" before insert on decoy for each statement
                       execute function pgtrickle_internal.capture_1_begin()""")
    cast.execute("alter table treasure rename to renamed")
    # What a dump and restore does to the catalog.
    cast.execute("update pgtrickle.pgt_outbox_config set stream_table_oid = 1")
    cast.execute("update pgtrickle_internal.outbox_signatures set server = 'another'")
    cast.execute("select pgtrickle.outbox_capture_upkeep()")
    problem = cast.one("select problem from pgtrickle.pgt_outbox_config")
    assert "have the triggers" in problem and "decoy" in problem and "renamed" in problem
    cast.execute('drop trigger "!pgtrickle_1_begin" on decoy')
    cast.execute("select pgtrickle.outbox_capture_upkeep()")
    assert cast.execute("select stream_table_oid::regclass::text, problem "
                        "from pgtrickle.pgt_outbox_config") == [("renamed", None)]
    assert outbox(cast)[-1] == ("FULL", 2, 0)
