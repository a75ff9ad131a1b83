"""Captured tables that become partitions, have foreign partitions, or inherit."""

import psycopg
import pytest

from support.ddl_consumer import Consumer, upkeep


def test_a_captured_table_that_becomes_a_partition_is_recorded_by_row(db):
    db.execute("create table t (id int primary key, n int); select pgtrickle.enable_outbox('t')")
    consumer = Consumer(db)
    db.execute("insert into t values (1, 1)")
    db.execute("create table whole (id int, n int) partition by range (id)")
    db.execute("alter table whole attach partition t for values from (0) to (100)")
    db.execute("insert into whole values (2, 2)")
    db.execute("update whole set n = 5")
    upkeep(db)
    if consumer.problem:  # New triggers are made by the owner.
        assert "upkeep needs the owner" in consumer.problem
        db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert consumer.config("capture") == "row" and len(consumer.reasons()) == 1
    db.execute("insert into whole values (3, 3); update whole set n = 6 where id < 3; "
               "delete from t where id = 1")
    consumer.check("t")
    # Its root is captured too, and it leaves again.
    db.execute("select pgtrickle.enable_outbox('whole', key_columns => '{id}')")
    db.execute("select pgtrickle.outbox_full_refresh('whole')")
    db.execute("update whole set n = 7")
    db.execute("alter table whole detach partition t")
    db.execute("insert into t values (4, 4)")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    consumer.check("t")
    Consumer(db, "outbox_whole").check("whole")
    assert db.one("select pgtrickle.outbox_capture_upkeep()") == 0


def test_a_captured_partitioned_table_that_becomes_a_partition_is_recorded_by_row(db):
    db.execute("create table t (id int primary key, n int) partition by range (id)")
    db.execute("create table t_1 partition of t for values from (0) to (50)")
    db.execute("select pgtrickle.enable_outbox('t', capture => 'statement')")
    consumer = Consumer(db)
    db.execute("create table whole (id int, n int) partition by range (id)")
    db.execute("alter table whole attach partition t for values from (0) to (100)")
    db.execute("insert into whole values (2, 2)")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert consumer.config("capture") == "row"
    db.execute("insert into whole values (3, 3); update t set n = n + 1; delete from t_1 "
               "where id = 2; truncate t_1; insert into t values (4, 4)")
    consumer.check("t")
    db.execute("truncate whole")
    consumer.check("t")


def test_rows_of_foreign_partitions_are_recorded_by_row(db):
    try:
        db.execute("create extension postgres_fdw")
    except psycopg.errors.UndefinedFile as error:  # It wants the libpq of its own version.
        pytest.skip(str(error))
    db.execute(f"create server here foreign data wrapper postgres_fdw options (host '127.0.0.1', "
               f"port '{db.server.port}', dbname '{db.name}')")
    db.execute("create user mapping for public server here options (user 'postgres', "
               "password 's3cret-for-tests')")
    db.execute("create table far (id int, n int)")
    db.execute("create table t (id int, n int) partition by range (id)")
    db.execute("create table t_1 partition of t for values from (0) to (10)")
    db.execute("create table u (id int, n int) partition by range (id)")
    db.execute("select pgtrickle.enable_outbox('u', capture => 'statement', key_columns => '{id}')")
    foreign = ("create foreign table {t}_2 partition of {t} for values from (10) to (20) "
               "server here options (table_name 'far')")
    db.execute(foreign.format(t="t"))
    with pytest.raises(psycopg.Error, match="foreign tables"):
        db.execute("select pgtrickle.enable_outbox('t', capture => 'statement')")
    db.execute("select pgtrickle.enable_outbox('t', key_columns => '{id}')")
    db.execute("insert into t values (1, 1), (11, 1); update t set n = n + 1; "
               "delete from t where id = 1")
    consumer = Consumer(db)
    assert consumer.config("capture") == "row"
    consumer.check("t")
    # Attached later: upkeep changes how the table is captured.
    db.execute("truncate far; " + foreign.format(t="u"))
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    db.execute("insert into u values (12, 1)")
    late = Consumer(db, "outbox_u")
    assert late.config("capture") == "row" and late.problem is None
    late.check("u")


def test_children_by_inherits_are_said_and_the_tables_own_rows_stay_exact(db):
    db.execute("create table t (id int primary key, n int); select pgtrickle.enable_outbox('t')")
    consumer = Consumer(db)
    db.execute("insert into t values (1, 1)")
    db.execute("create table child () inherits (t)")
    db.execute("insert into child values (2, 2); update t set n = n + 1")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    assert "not recorded" in consumer.problem and "child" in consumer.problem
    db.execute("update t set n = n + 1; insert into t values (3, 3); delete from t where id = 2")
    consumer.check("only t")
    db.execute("select pgtrickle.outbox_full_refresh('t')")
    assert "not recorded" in consumer.problem  # It lasts until the children are gone.
    db.execute("insert into child values (9, 9)")
    consumer.check("only t")
    db.execute("alter table child no inherit t")
    upkeep(db)
    assert consumer.problem is None
    consumer.check("t")


def test_a_captured_table_that_inherits_is_recorded_through_its_parent(db):
    db.execute("create table base (id int, n int); create table t (id int primary key, n int)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1, 1), (2, 2)")
    db.execute("alter table t inherit base")
    db.execute("update base set n = 9")
    db.execute("select pgtrickle.outbox_capture_upkeep()")
    db.execute("delete from base where id = 1; update base set n = 10")
    consumer = Consumer(db)
    consumer.check("t")
    assert consumer.problem is None
