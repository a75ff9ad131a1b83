"""Changes of a captured table that no trigger sees: DDL, triggers that do not fire, other databases.

Each becomes one full refresh, at the latest at the next upkeep, or the outbox says what to do. The
relay's own role does the upkeep here unless a test says otherwise; it owns no table.
"""

import json
import threading

import psycopg
import pytest

from support.ddl_consumer import Consumer, upkeep
from support.pipelines import set_outbox, to_file
from support.relay import run_command
from support.waiting import eventually


# ALTER TABLE -----------------------------------------------------------------------------------

CHANGES = [
    "alter table {t} add column extra int default 7",
    "alter table {t} add column later int",
    "alter table {t} alter column amount type numeric(10,1)",
    "alter table {t} alter column extra type int using extra + 1",
    "alter table {t} alter column later type int using id",
    "alter table {t} alter column extra type text",
    "alter table {t} rename column name to title",
    "alter table {t} drop column later",
    "alter type mood rename value 'calm' to 'quiet'",
    "alter type pair rename attribute a to b",
    "alter type pair add attribute c int",
    "begin; alter table {t} add column new int default 1; alter table {t} drop column extra; commit",
]
NO_CHANGES = [
    "alter table {t} alter column amount set statistics 500",
    "alter table {t} alter column title set storage external",
    "alter table {t} alter column amount set not null",
    "alter table {t} alter column amount drop not null",
    "alter table {t} alter column title set default 'x'",
    "alter table {t} alter column title type varchar(80)",
    "alter table {t} alter column title type text",
    "comment on column {t}.title is 'a comment'",
    "create index on {t} (title)",
    "vacuum full {t}",
    "alter table {t} alter column amount set statistics 100",
    "cluster {t} using {t}_pkey",
    "alter type mood add value 'angry'",
    "alter table {t} add constraint positive check (id > 0)",
    "alter table {t} rename to {t}_away; alter table {t}_away rename to {t}",
    "vacuum freeze pg_attribute; vacuum freeze pg_trigger; vacuum full pg_trigger",
    "truncate other; analyze {t}",
    "alter table {t} disable trigger users; alter table {t} enable trigger users",
    "grant select on {t} to relay_daemon",
]


@pytest.mark.parametrize("partitioned", [False, True])
def test_an_alteration_that_changes_values_is_one_full_refresh_and_others_are_none(
        db, partitioned):
    db.execute("create type mood as enum ('calm', 'wild'); create type pair as (a int); "
               "create table other (id int)")
    db.execute("create table t (id int primary key, name varchar(20), amount numeric(10,2), "
               "m mood default 'calm', p pair default row(1)) "
               + ("partition by range (id)" if partitioned else ""))
    if partitioned:
        db.execute("create table t_1 partition of t for values from (0) to (1000)")
        db.execute("create table t_2 partition of t for values from (1000) to (2000)")
    db.execute("""create function nothing() returns trigger language plpgsql as
                    $$ begin return null; end $$;
                  create trigger users after insert on t for each row execute function nothing()""")
    db.execute("select pgtrickle.enable_outbox('t', capture => 'statement')")
    consumer = Consumer(db)
    db.execute("insert into t select n, 'n', n from generate_series(1, 5) n")
    upkeep(db)
    wrong = []
    next_id = 10
    for number, statement in enumerate(CHANGES + NO_CHANGES):
        if partitioned and ("cluster" in statement or "vacuum full {t}" in statement):
            statement = statement.replace("{t}", "t_1")
        statements = statement.format(t="t").split("; ")
        for each in statements:
            db.execute(each)
        write_first = number % 2 == 1
        if write_first:
            db.execute(f"insert into t (id, amount) values ({next_id}, 1)")
        before = len(consumer.reasons())
        upkeep(db)
        refreshes = len(consumer.reasons()) - before
        next_id += 1
        if refreshes != (number < len(CHANGES)) or consumer.problem:
            wrong.append((statement, write_first, consumer.reasons()[before:], consumer.problem))
        if refreshes:
            db.execute(f"insert into t (id, amount) values ({next_id}, 1)")
            consumer.check("t")
        next_id += 1
    assert wrong == []
    assert upkeep(db) == 0
    consumer.check("t")
    assert db.one("select not has_table_privilege('pgtrickle_owner', 't', 'select')")


def test_generated_columns_that_get_another_expression_are_refreshed(db, pg_server):
    db.execute("create table t (id int primary key, g int generated always as (id * 2) stored)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1), (2)")
    db.execute("alter table t alter column g set expression as (id * 3)"
               if pg_server.version >= 17 else
               "alter table t drop column g, add column g int generated always as (id * 3) stored")
    upkeep(db)
    consumer = Consumer(db)
    assert len(consumer.reasons()) == 1
    assert consumer.check("t")[2]["g"] == 6


@pytest.mark.parametrize("partitioned", [False, True])
def test_alterations_among_writers_leave_a_consumer_with_the_table(db, partitioned):
    db.execute("create table t (id int primary key, n int, v int) "
               + ("partition by range (id)" if partitioned else ""))
    if partitioned:
        db.execute("create table t_1 partition of t for values from (0) to (50)")
        db.execute("create table t_2 partition of t for values from (50) to (100)")
    db.execute("select pgtrickle.enable_outbox('t', capture => 'statement')")
    stop = threading.Event()
    failures = []

    def write(seed):
        with db.connect() as connection:
            n = seed
            while not stop.is_set():
                n += 1
                try:
                    with connection.transaction():
                        connection.execute("insert into t (id, n) values (%s, %s) on conflict (id) "
                                           "do update set n = excluded.n", (n * 7 % 100, n))
                        connection.execute("delete from t where id = %s", (n * 3 % 100,))
                except psycopg.errors.DeadlockDetected:
                    pass
                except psycopg.Error as error:
                    failures.append(str(error))

    def look_after():
        while not stop.is_set():
            upkeep(db)

    threads = [threading.Thread(target=write, args=(n,)) for n in (1, 20, 40)]
    threads.append(threading.Thread(target=look_after))
    for thread in threads:
        thread.start()
    try:
        for round_ in range(6):
            for statement in (f"alter table t add column c{round_} int default {round_}",
                              "alter table t alter column v type int using coalesce(v, 0) + 1",
                              f"alter table t drop column c{round_}"):
                db.execute(statement)
                # One writes on the way in the middle of some.
                db.execute("update t set n = n + 1 where id = 1")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    consumer = Consumer(db)
    eventually(lambda: upkeep(db) == 0, deadline=60)
    assert consumer.problem is None
    consumer.check("t")
    assert len(consumer.reasons()) >= 1


def test_a_table_that_cannot_be_locked_is_not_called_healthy_meanwhile(db):
    db.execute("create table t (id int primary key); select pgtrickle.enable_outbox('t')")
    consumer = Consumer(db)
    db.execute("alter table t add column n int default 3")
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into t values (1)")
        upkeep(db)
        assert "waits" in consumer.problem
        assert db.one("select pgtrickle.outbox_status('t') ->> 'problem'") == consumer.problem
        db.execute("insert into t values (2)")  # No writer queues behind upkeep.
        writer.commit()
    upkeep(db)
    assert consumer.problem is None and len(consumer.reasons()) == 1
    consumer.check("t")


def test_a_large_table_is_left_to_its_owner_until_it_was_refreshed(db):
    db.execute("create table t (id int primary key); select pgtrickle.enable_outbox('t')")
    db.execute("insert into t select generate_series(1, 10)")
    db.execute("alter table t add column n int default 3")
    db.execute("update pg_class set reltuples = 3e6 where oid = 't'::regclass")
    consumer = Consumer(db)
    for _ in range(2):
        upkeep(db)
        assert "columns of the table were changed. SELECT pgtrickle.outbox_full_refresh(" in (
            consumer.problem)
    # Another cause on top keeps the first.
    db.execute("alter table t disable trigger user")
    upkeep(db)
    assert "columns of the table" in consumer.problem and "switched off" in consumer.problem
    assert consumer.reasons() == []
    db.execute("select pgtrickle.outbox_full_refresh('t')")
    assert consumer.problem is None and upkeep(db) == 0
    consumer.check("t")


def test_a_refresh_is_refused_where_its_snapshot_could_be_too_old(db):
    db.execute("create table t (id int primary key); select pgtrickle.enable_outbox('t')")
    for level in ("repeatable read", "serializable"):
        with db.connect(options=f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
                        ) as connection:
            for statement in ("select pgtrickle.outbox_full_refresh('t')",
                              "select pgtrickle.outbox_capture_upkeep()"):
                with pytest.raises(psycopg.Error, match="READ COMMITTED"):
                    connection.execute(statement)


# Keys ------------------------------------------------------------------------------------------

KEYS_GONE = {
    "constraint": ("alter table t drop constraint t_pkey", "same key (id)"),
    "column": ("alter table t drop column id; alter table t add column id int default 7",
               "key column id was dropped"),
    "other column": ("alter table t drop constraint t_pkey; alter table t add unique (id); "
                     "alter table t alter column id drop not null, alter column id drop default",
                     "same key (id)"),
    "another key": ("alter table t drop constraint t_pkey; "
                    "alter table t add primary key (id, n)", "same key (id)"),
    "for some rows": ("alter table t drop constraint t_pkey; "
                      "create unique index on t (id) where n > 50", "same key (id)"),
}


@pytest.mark.parametrize("name", KEYS_GONE)
def test_a_key_that_identifies_rows_no_longer_is_a_problem_until_it_is_settled(db, name):
    change, words = KEYS_GONE[name]
    db.execute("create table t (id int default 1 primary key, n int)")
    db.execute("select pgtrickle.enable_outbox('t', capture => 'row')")
    consumer = Consumer(db)
    db.execute("insert into t values (1, 1); " + change)
    upkeep(db)
    assert words in consumer.problem
    assert db.one("select pgtrickle.outbox_status('t') ->> 'problem'") == consumer.problem
    # Whatever else is healed or wrong meanwhile.
    db.execute("alter table t add column extra int default 3; create table child () inherits (t)")
    upkeep(db)
    assert words in consumer.problem and "inherit from public.t" in consumer.problem
    assert len(consumer.reasons()) >= 1 and upkeep(db) == 0
    db.execute("drop table child; insert into t (n) values (8), (9)")
    upkeep(db)
    assert words in consumer.problem and "inherit" not in consumer.problem
    # What it asks for settles it.
    db.execute(consumer.problem.split(words)[1].split(". ", 1)[1].split(" takes the")[0])
    assert consumer.problem is None and upkeep(db) == 0
    assert consumer.reasons()[-1] == "the key of the table was changed"
    keys = ["id", "n"] if "(id, n)" in change else None
    assert consumer.config("key_columns") == keys
    db.execute("update t set n = n + 10 where n = 8")
    for payload, in db.execute("select payload from pgtrickle.outbox_t order by id desc limit 2"):
        assert payload["key_columns"] == (keys or [])


def test_a_partitioned_table_that_loses_its_key_says_so(db):
    db.execute("create table t (id int primary key, n int) partition by range (id); "
               "create table t_1 partition of t for values from (0) to (10); "
               "select pgtrickle.enable_outbox('t')")
    consumer = Consumer(db)
    db.execute("alter table t drop constraint t_pkey; insert into t values (1, 1), (1, 2)")
    upkeep(db)
    assert "same key (id)" in consumer.problem
    db.execute("select pgtrickle.rebind_outbox('outbox_t')")
    assert consumer.problem is None and upkeep(db) == 0
    assert consumer.config("key_columns") is None


def test_a_key_that_was_not_unique_for_a_while_is_one_full_refresh(db):
    db.execute("create table t (id int primary key, n int); select pgtrickle.enable_outbox('t')")
    consumer = Consumer(db)
    lose = "alter table t drop constraint t_pkey; insert into t values (1, 1), (1, 2)"
    again = "delete from t where n = 2; alter table t add primary key (id)"
    for number, looks in enumerate((False, True), 1):
        db.execute("truncate t; " + lose)
        if looks:
            upkeep(db)
            assert "same key (id)" in consumer.problem
            db.execute("vacuum full t")
            upkeep(db)
        db.execute(again)
        upkeep(db)
        assert consumer.problem is None
        assert consumer.reasons() == ["the key of the table was not unique for a while"] * number
        consumer.check("t")
        assert upkeep(db) == 0


def test_a_key_that_stays_unique_or_never_was_is_no_fault(db):
    db.execute("create table t (id int primary key, n int); select pgtrickle.enable_outbox('t')")
    db.execute("create table own (id int, n int); "
               "select pgtrickle.enable_outbox('own', key_columns => '{id}')")
    for change in ("reindex table concurrently t", "create unique index t_again on t (id)",
                   "alter table t drop constraint t_pkey, add primary key using index t_again",
                   "alter table t rename column id to number",
                   "create unique index on t (n, number) include (n)",
                   "reindex table concurrently t", "cluster t using t_again", "vacuum full t",
                   "alter table own add column extra int"):
        db.execute(change)
        upkeep(db)
        for outbox in ("outbox_t", "outbox_own"):
            consumer = Consumer(db, outbox)
            assert consumer.problem is None, change
            assert all("key" not in reason for reason in consumer.reasons())
    db.execute("alter table own drop column id")
    upkeep(db)
    assert "key column id was dropped" in Consumer(db, "outbox_own").problem


def test_what_is_wrong_with_an_outbox_is_in_health_check_and_status_of_its_pipelines(
        db, relay, tmp_path):
    db.execute("create table t (id int primary key, n int); select pgtrickle.enable_outbox('t'); "
               "create table other (id int primary key); select pgtrickle.enable_outbox('other')")
    set_outbox(db, "p", to_file("t", tmp_path / "p"))
    set_outbox(db, "q", to_file("other", tmp_path / "q"))

    def health():
        report = relay.health()[1]
        return report["status"], {each["name"]: each["outbox_problem"] for each in
                                  report["pipelines"] if "outbox_problem" in each}

    def command(*arguments):
        return json.loads(run_command(*arguments, "--json", "--postgres-url", db.relay_dsn).stdout)

    def check():
        return [(each["pipeline"], f"{each['message']}. {each['remedy']}")
                for each in command("check")["findings"] if not each["ok"]]

    def status():
        return {each["pipeline"]: each["outbox_problem"] for each in
                command("status")["pipelines"] if each["outbox_problem"]}

    with relay:
        relay.wait_healthy(pipelines=2)
        db.execute("insert into t values (1, 1); insert into other values (1)")
        assert health() == ("healthy", {}) and check() == [] and status() == {}
        db.execute("alter table t drop constraint t_pkey")
        eventually(lambda: health()[0] == "degraded", 60, message=relay.log)
        problem = Consumer(db).problem
        assert "same key (id)" in problem
        assert health()[1] == {"p": {"outbox": "outbox_t", "problem": problem}}
        assert check() == [("p", f"outbox outbox_t: {problem}")]
        eventually(lambda: status() == {"p": f"outbox_t: {problem}"}, 30)
        db.execute("select pgtrickle.rebind_outbox('outbox_t')")
        relay.wait_healthy(pipelines=2, deadline=60)
        assert health() == ("healthy", {}) and check() == [] and status() == {}


# Triggers --------------------------------------------------------------------------------------

TRIGGERS = {
    "disabled all for a load": (
        "alter table t disable trigger all", "alter table t enable trigger all"),
    "disabled user for a load": (
        "alter table t disable trigger user", "alter table t enable trigger user"),
    "still disabled": ("alter table t disable trigger user", "select 1"),
    "enabled for replicas only": (
        'alter table t enable replica trigger "!pgtrickle_1_insert"', "select 1"),
    "dropped": ('drop trigger "!pgtrickle_1_insert" on t', "select 1"),
    "replaced": (
        'create or replace trigger "!pgtrickle_1_insert" after insert on t for each statement '
        'execute function nothing()', "select 1"),
    "functions dropped": ("drop function pgtrickle_internal.capture_1_insert() cascade", "select 1"),
    "in one transaction": (
        "begin; alter table t disable trigger user", "alter table t enable trigger user; commit"),
}


@pytest.mark.parametrize("kind", TRIGGERS)
def test_triggers_that_did_not_fire_for_a_while_are_restored_and_refreshed(db, kind):
    db.execute("""create table t (id int primary key);
                  create function nothing() returns trigger language plpgsql as
                    $$ begin return null; end $$;
                  select pgtrickle.enable_outbox('t')""")
    consumer = Consumer(db)
    db.execute("insert into t values (1)")
    off, on = TRIGGERS[kind]
    for statement in (*off.split("; "), "insert into t values (2)", *on.split("; ")):
        db.execute(statement)
    if kind in ("dropped", "replaced", "functions dropped"):
        upkeep(db)  # New triggers are made by the owner.
        assert "upkeep needs the owner" in consumer.problem
        db.execute("select pgtrickle.outbox_capture_upkeep()")
    else:
        upkeep(db)
    assert consumer.reasons() == ["triggers of the outbox had been switched off"]
    assert consumer.problem is None and upkeep(db) == 0
    db.execute("insert into t values (3)")
    consumer.check("t")
    assert db.one("select count(*) from pg_trigger where tgname = '!pgtrickle_1_insert' "
                  "and tgenabled = 'O'") == 1


def test_a_renamed_trigger_records_nothing_twice(db):
    db.execute("create table t (id int primary key); select pgtrickle.enable_outbox('t')")
    db.execute('alter trigger "!pgtrickle_1_insert" on t rename to mine')
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    before = db.one("select count(*) from pgtrickle.outbox_t")
    db.execute("insert into t values (1)")
    assert db.one("select count(*) from pgtrickle.outbox_t") == before + 1


def test_a_load_under_the_replication_role_is_recorded(db):
    db.execute("create table t (id int primary key); select pgtrickle.enable_outbox('t')")
    db.execute("set session_replication_role = replica")
    db.execute("insert into t select generate_series(1, 5)")
    db.execute("reset session_replication_role")
    assert upkeep(db) == 0
    Consumer(db).check("t")


def test_a_partition_loaded_with_its_triggers_off_is_refreshed(db):
    db.execute("create table t (id int primary key) partition by range (id)")
    db.execute("create table t_1 partition of t for values from (0) to (10)")
    db.execute("select pgtrickle.enable_outbox('t', capture => 'statement')")
    consumer = Consumer(db)
    # All in the transaction that makes the partition.
    with db.connect(autocommit=False) as loader:
        loader.execute("create table t_2 partition of t for values from (10) to (20)")
        loader.execute("alter table t_2 disable trigger all")
        loader.execute("insert into t_2 values (11)")
        loader.execute("alter table t_2 enable trigger all")
        loader.commit()
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    consumer.check("t")
    # One that is made and filled in one transaction needs no refresh.
    before = len(consumer.reasons())
    with db.connect(autocommit=False) as loader:
        loader.execute("create table t_3 partition of t for values from (20) to (30)")
        loader.execute("insert into t_3 values (21)")
        loader.execute("insert into t values (22)")
        loader.commit()
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert len(consumer.reasons()) == before
    # Detached, written to and attached again between two passes.
    db.execute("alter table t detach partition t_1")
    db.execute("alter table t_1 disable trigger all; insert into t_1 values (1); "
               "alter table t_1 enable trigger all")
    db.execute("alter table t attach partition t_1 for values from (0) to (10)")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    consumer.check("t")
    # A detached one that was altered or loaded meanwhile is not told by its rows.
    db.execute("alter table t detach partition t_2; alter table t_2 drop constraint t_2_pkey; "
               "update t_2 set id = 99")
    db.execute("alter table t_2 disable trigger all; update t_2 set id = 98; "
               "alter table t_2 enable trigger all")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    consumer.check("t")
    assert consumer.problem is None


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_a_partition_truncated_under_an_older_snapshot_is_refreshed(db, capture):
    db.execute("create table t (id int primary key) partition by range (id); "
               "create table t_1 partition of t for values from (0) to (10)")
    db.execute("select pgtrickle.enable_outbox('t', capture => %s)", (capture,))
    consumer = Consumer(db)
    for number, level in enumerate(("repeatable read", "serializable"), 1):
        db.execute("insert into t values (1)")
        with db.connect(autocommit=False) as other:
            other.execute(f"set transaction isolation level {level}")
            other.execute("select from t")
            db.execute("insert into t values (2); delete from t where id = 1")
            other.execute("truncate t_1")
            other.commit()
        assert consumer.rows() == {2: {"id": 2}}  # Nothing was deleted twice, or unseen.
        upkeep(db)
        assert consumer.check("t") == {} and consumer.problem is None
        assert len(consumer.reasons()) == number and "TRUNCATE of public.t_1" in consumer.reasons()[-1]
        # The whole table is as empty to every snapshot.
        db.execute("insert into t values (3)")
        with db.connect(autocommit=False) as other:
            other.execute(f"set transaction isolation level {level}")
            other.execute("select from t")
            db.execute("insert into t values (4)")
            other.execute("truncate t")
            other.commit()
        assert consumer.check("t") == {} and upkeep(db) == 0
    # A READ COMMITTED transaction sees the rows, and records them.
    db.execute("insert into t values (5); truncate t_1")
    assert consumer.check("t") == {} and upkeep(db) == 0
