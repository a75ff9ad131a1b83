"""When stream tables are refreshed, what happens when that fails, and what is told of it."""

from datetime import datetime

import pytest
from support.postgres import refusal
from support.stream_tables import Listener, create, due, orders, refresh, settled, state
from support.waiting import eventually

__all__ = ["orders"]


# What makes it due ---------------------------------------------------------------------------

def test_only_what_has_changed_is_due(orders):
    orders.execute("create table other (id int)")
    create(orders)
    create(orders, "others", "select id from other")
    settled(orders)
    orders.execute("insert into other values (1)")
    assert due(orders) == ["public.others"]
    settled(orders)
    for statement in ("truncate other", "copy other from program 'echo 3'",
                      "merge into other o using (values (4)) v(id) on o.id = v.id "
                      "when not matched then insert values (v.id)",
                      "with x as (delete from other returning 1) select count(*) from x"):
        if "merge" in statement and orders.server.version < 15:
            continue
        orders.execute(statement)
        assert due(orders) == ["public.others"], statement
        settled(orders)


def test_views_are_seen_through(orders):
    orders.execute("create view recent as select * from orders where amount > 5; "
                   "create view again as select region, amount from recent")
    create(orders, "s", "select region, sum(amount) as n from again group by 1")
    settled(orders)
    orders.execute("insert into orders (region, amount) values ('us', 1000)")
    assert due(orders) == ["public.s"]


def test_partitions_old_and_new_are_watched(db):
    db.execute("""create table t (id int, at date) partition by range (at);
                  create table t1 partition of t for values from ('2026-01-01') to ('2026-02-01');
                  create table t2 partition of t for values from ('2026-02-01') to ('2026-03-01')
                    partition by hash (id);
                  create table t2a partition of t2 for values with (modulus 1, remainder 0)""")
    create(db, "s", "select id from t")
    create(db, "leaf", "select id from t2a")
    for change in ("insert into t values (1, '2026-01-05')",
                   "insert into t1 values (2, '2026-01-05')",
                   "insert into t2a values (3, '2026-02-05')",
                   "insert into t values (4, '2026-02-05')",
                   "update t set at = '2026-02-01' where id = 1",
                   "create table t3 partition of t for values from ('2026-03-01') "
                   "to ('2026-04-01')",
                   "insert into t3 values (5, '2026-03-05')",
                   "alter table t detach partition t1",
                   "insert into t1 values (6, '2026-01-06')",
                   "alter table t attach partition t1 for values from ('2026-01-01') "
                   "to ('2026-02-01')", "drop table t3"):
        db.execute(change)
        settled(db)
        for name, source in (("s", "t"), ("leaf", "t2a")):
            assert db.execute(f"select id from {name} order by 1") == db.execute(
                f"select id from {source} order by 1"), (name, change)


def test_inherited_tables_are_watched(db):
    db.execute("create table t (id int); create table child () inherits (t)")
    create(db, "s", "select id from t")
    for change in ("insert into child values (1)", "update t set id = 2", "delete from t"):
        db.execute(change)
        settled(db)
        assert db.execute("select id from s") == db.execute("select id from t"), change


@pytest.mark.parametrize("query", [
    "select now() as at", "select current_date as day, id from t", "select random() as r from t",
    "select * from m", "select relname::text from pg_class", "select id, mine() as x from t",
    "select age(at) as a from t", "select id from v", "select id from t tablesample system (50)"])
def test_what_cannot_be_watched_is_refreshed_at_every_due_time(db, query):
    db.execute("""create table t (id int, at timestamptz);
                  create materialized view m as select 1 as x;
                  create function mine() returns int language sql stable as 'select 1';
                  create view v as select id from t where at > now() - interval '1 day'""")
    create(db, "s", query)
    assert state(db, "s")["always_due"]
    refresh(db, "s")
    assert due(db) == ["public.s"]


@pytest.mark.parametrize("query", [
    "select id, at::date as day, upper(word) as w, sum(id) over () as total from t",
    "select current_user::text as who, id from t",
    "select a.id from t a join t b using (id) where a.word like 'x%' and a.at > '2026-01-01'"])
def test_what_depends_on_its_sources_alone_is_watched(db, query):
    db.execute("create table t (id int, at timestamptz, word text)")
    create(db, "s", query)
    assert not state(db, "s")["always_due"]


def test_what_logical_replication_applies_is_noticed(db, pg_server):
    """It fires no statement triggers."""
    publisher = pg_server.create_database(template="template0")
    publisher.execute("create table t (id int primary key)")
    publisher.execute("create publication p for table t")
    publisher.execute("select pg_create_logical_replication_slot('stream_tables', 'pgoutput')")
    db.execute("create table t (id int primary key)")
    db.execute(f"create subscription stream_tables connection '{publisher.dsn}' publication p "
               "with (create_slot = false, copy_data = false)")
    try:
        create(db, "s", "select id from t")
        settled(db)
        publisher.execute("insert into t values (1)")
        eventually(lambda: due(db) == ["public.s"])
        settled(db)
        assert db.execute("select id from s") == [(1,)]
    finally:
        db.execute("drop subscription stream_tables")
        publisher.drop()


# Schedules -----------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule, milliseconds", [
    ("500ms", 500), ("2s", 2000), ("5m", 300000), ("1h", 3600000), ("1d", 86400000),
    ("1.5s", 1500), ("1h30m", 5400000), ("10 s", 10000), ("2S", 2000)])
def test_intervals_are_read(db, schedule, milliseconds):
    db.execute("select pgtrickle_internal.schedule_check(%s)", (schedule,))
    assert db.one("select extract(epoch from pgtrickle_internal.schedule_interval(%s))::float8",
                  (schedule,)) * 1000 == milliseconds


@pytest.mark.parametrize("cron, after, zone, expected", [
    ("* * * * *", "2026-04-27 10:00:00Z", "UTC", "2026-04-27 10:01:00+00:00"),
    ("*/15 * * * *", "2026-04-27 10:59:59Z", "UTC", "2026-04-27 11:00:00+00:00"),
    ("5,10-12 8-18/5 * * *", "2026-04-27 08:10:00Z", "UTC", "2026-04-27 08:11:00+00:00"),
    ("5,10-12 8-18/5 * * *", "2026-04-27 08:12:00Z", "UTC", "2026-04-27 13:05:00+00:00"),
    ("0 0 1 * *", "2026-12-15 00:00:00Z", "UTC", "2027-01-01 00:00:00+00:00"),
    ("0 9 * * mon-fri", "2026-05-01 09:00:00Z", "UTC", "2026-05-04 09:00:00+00:00"),
    ("0 9 * * 7", "2026-05-01 09:00:00Z", "UTC", "2026-05-03 09:00:00+00:00"),
    # A day of the month and a day of the week: either is enough.
    ("0 0 13 * fri", "2026-05-01 00:00:00Z", "UTC", "2026-05-08 00:00:00+00:00"),
    ("0 0 29 feb *", "2026-01-01 00:00:00Z", "UTC", "2028-02-29 00:00:00+00:00"),
    ("30 6 * * *", "2026-04-27 00:00:00Z", "Asia/Tokyo", "2026-04-27 21:30:00+00:00"),
    ("59 23 31 12 *", "2026-12-31 23:59:00Z", "UTC", "2027-12-31 23:59:00+00:00"),
    ("0 0 31 2 *", "2026-01-01 00:00:00Z", "UTC", None)])
def test_cron_expressions_name_their_next_moment(db, cron, after, zone, expected):
    moment = db.one("select pgtrickle_internal.cron_next(%s, %s, %s)", (cron, after, zone))
    assert moment == (datetime.fromisoformat(expected) if expected else None)


@pytest.mark.parametrize("cron", ["* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
                                  "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
                                  "a * * * *", ", * * * *", "* * * foo *"])
def test_a_cron_expression_that_means_nothing_is_refused(db, cron):
    assert refusal(db, "select pgtrickle_internal.schedule_check(%s)", (cron,))


def test_a_schedule_holds_the_next_refresh_back(orders):
    create(orders, schedule="1h")
    refresh(orders)
    orders.execute("delete from orders")
    assert due(orders) == []
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', schedule => '1ms')")
    assert due(orders) == ["public.revenue_by_region"]


def test_by_hand_means_never_due(orders):
    create(orders, schedule=None)
    orders.execute("delete from orders")
    assert due(orders) == []
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', schedule => '1ms')")
    assert due(orders) == ["public.revenue_by_region"]
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', schedule => 'manual')")
    assert due(orders) == []
    assert refresh(orders)["deleted"] == 2


def test_a_cron_moment_that_passes_while_nothing_changed_is_past(orders):
    create(orders, schedule="0 3 * * *")
    refresh(orders)
    past = "update pgtrickle.pgt_stream_tables set next_due_at = now() - interval '1 minute'"
    orders.execute(past)
    assert due(orders) == []
    orders.execute("delete from orders")
    assert due(orders) == [], "the moment had passed before the change"
    orders.execute(past)
    assert due(orders) == ["public.revenue_by_region"]


def test_refreshes_take_a_quarter_of_the_time_at_most(db):
    db.execute("create table t (id int)")
    create(db, "s", "select id from t union all select 1 from pg_sleep(0.3)", "1ms")
    refresh(db, "s")
    db.execute("insert into t values (1)")
    held_back = db.one("select extract(epoch from next_due_at - last_refresh_at) * 1000 "
                       "/ last_duration_ms from pgtrickle.pgt_stream_tables")
    assert 3.9 < held_back < 4.1
    assert due(db, at_once=False) == []
    eventually(lambda: due(db, at_once=False) == ["public.s"])


# Failures, alerts ----------------------------------------------------------------------------

def test_three_failures_in_a_row_suspend_one_stream_table_and_no_other(orders):
    orders.execute("create table divisors (n int)")
    create(orders, "quotients", "select 1 / n as q from divisors")
    create(orders, key=["region", "day"])
    settled(orders)
    orders.execute("insert into divisors values (0)")
    orders.execute("delete from orders where region = 'asia'")
    listener = Listener(orders)
    for attempt in (1, 2, 3):
        assert state(orders, "quotients")["status"] == "ACTIVE"
        eventually(lambda: "public.quotients" in due(orders))
        done = refresh(orders, "quotients")
        assert (done["action"], done["error"]) == ("FAILED", "division by zero")
        assert done["consecutive_errors"] == attempt
    assert state(orders, "quotients")["status"] == "SUSPENDED"
    assert refresh(orders)["deleted"] == 1
    assert "public.quotients" not in due(orders)
    assert "after 3 failures: division by zero" in refusal(
        orders, "select pgtrickle.refresh_stream_table('quotients')")

    orders.execute("delete from divisors")
    orders.execute("insert into divisors values (1)")
    orders.execute("select pgtrickle.alter_stream_table('quotients', resume => true)")
    eventually(lambda: "public.quotients" in due(orders))
    assert refresh(orders, "quotients")["inserted"] == 1
    assert state(orders, "quotients")["consecutive_errors"] == 0
    told = [(a["event"], a.get("error"), a.get("consecutive_errors")) for a in listener.alerts()
            if a["stream_table"] == "public.quotients" and a["event"] != "stale_data"]
    assert told[:5] == [("refresh_failed", "division by zero", None)] * 3 + [
        ("auto_suspended", None, 3), ("resumed", None, None)]
    assert told[5][0] == "refresh_completed"
    history = orders.execute("select action, error from pgtrickle.pgt_refresh_history "
                             "where stream_table = 'public.quotients' order by started_at desc")
    assert history[:4] == [("DIFFERENTIAL", None)] + [("FAILED", "division by zero")] * 3


def test_a_refresh_that_is_cancelled_or_runs_out_of_time_is_a_failure_like_another(db):
    db.execute("create table t (id int)")
    create(db, "s", "select id from t where id > 0 or pg_sleep(60) is null")
    db.execute("insert into t values (0)")
    with db.connect() as impatient:
        impatient.execute("set statement_timeout = '300ms'")
        done = impatient.execute("select pgtrickle.refresh_stream_table('s')").fetchone()[0]
    assert (done["action"], done["consecutive_errors"]) == ("FAILED", 1)
    assert "timeout" in state(db, "s")["last_error"]


def test_a_refresh_that_loses_a_race_for_a_lock_is_no_reason_to_suspend(orders):
    create(orders, key=["region", "day"])
    with orders.connect(autocommit=False) as other, orders.connect() as daemon:
        other.execute("lock table revenue_by_region in exclusive mode")
        daemon.execute("set lock_timeout = '50ms'")
        for _ in range(4):
            done = daemon.execute(
                "select pgtrickle.refresh_stream_table('revenue_by_region')").fetchone()[0]
            assert (done["action"], done["suspended"]) == ("FAILED", False)
    assert refresh(orders)["action"] == "NO_DATA"


def test_history_ends(orders):
    create(orders)
    orders.execute("insert into pgtrickle.pgt_refresh_history (refresh_id, pgt_id, stream_table, "
                   "action, started_at, duration_ms) select gen_random_uuid(), 1, 's', 'NO_DATA', "
                   "now() - i * interval '1 day', 1 from generate_series(0, 60) i")
    refresh(orders)
    assert orders.one("select count(*) from pgtrickle.pgt_refresh_history") == 4


def test_a_success_in_between_forgets_failures(db):
    db.execute("create table t (n int)")
    create(db, "s", "select 1 / n as q from t")
    for _ in range(3):
        db.execute("insert into t values (0)")
        refresh(db, "s")
        refresh(db, "s")
        db.execute("delete from t")
        refresh(db, "s")
    assert state(db, "s")["status"] == "ACTIVE"


def test_suspended_by_hand_means_not_due(orders):
    create(orders)
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', suspend => true)")
    orders.execute("delete from orders")
    assert due(orders) == []
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', suspend => false)")
    eventually(lambda: due(orders) == ["public.revenue_by_region"])


def test_a_completed_refresh_is_told_with_the_keys_that_changed(orders):
    create(orders, key=["region", "day"])
    orders.execute("create table plain (id int primary key, word text)")
    orders.execute("insert into plain select i, 'x' from generate_series(1, 10) i")
    create(orders, "one_key", "select * from plain", key=["id"])
    listener = Listener(orders)
    orders.execute("delete from orders where region = 'asia'")
    orders.execute("insert into orders (region, amount, created_at) values "
                   "('us', 1, '2026-04-28 10:00Z'), ('europe', 1, '2026-04-27 10:00Z')")
    refresh(orders)
    orders.execute("update plain set word = 'y' where id in (3, 4)")
    refresh(orders, "one_key")
    first, second = listener.alerts("refresh_completed")
    assert datetime.fromisoformat(first.pop("data_timestamp"))
    assert isinstance(first.pop("duration_ms"), int)
    assert first == {
        "event": "refresh_completed", "stream_table": "public.revenue_by_region",
        "action": "DIFFERENTIAL", "rows_inserted": 2, "rows_deleted": 2,
        "changes": {"inserted": 1, "updated": 1, "deleted": 1, "truncated": False,
                    "affected_pks": [["asia", "2026-04-27"], ["europe", "2026-04-27"],
                                     ["us", "2026-04-28"]]}}
    assert second["changes"] == {"inserted": 0, "updated": 2, "deleted": 0, "truncated": False,
                                 "affected_pks": [3, 4]}


@pytest.mark.parametrize("key", ["repeat('ä', 30) || i", "repeat('ä', 1000) || i",
                                 "repeat(md5(i::text), 70) || i"])
def test_alerts_never_exceed_what_a_notification_can_carry(db, key):
    db.execute("create table t (id text primary key)")
    create(db, "s", "select * from t", key=["id"])
    listener = Listener(db)
    db.execute(f"insert into t select {key} from generate_series(1, 3000) i")
    assert refresh(db, "s")["inserted"] == 3000
    (alert,) = listener.alerts("refresh_completed")
    assert len(listener.payloads[0].encode()) <= 7900
    assert alert["changes"]["truncated"] is True and alert["changes"]["inserted"] == 3000
    assert len(alert["changes"]["affected_pks"]) >= (100 if "30" in key else 1)


def test_an_error_of_any_length_is_told(db):
    db.execute("""create table t (id int);
                  create function fail(int) returns int language plpgsql immutable as
                    $$ begin raise exception '%', repeat('ö"', 20000); end $$""")
    create(db, "s", "select fail(id) as x from t")
    listener = Listener(db)
    db.execute("insert into t values (1)")
    refresh(db, "s")
    (alert,) = listener.alerts("refresh_failed")
    assert alert["error"].startswith('ö"ö"') and len(listener.payloads[0].encode()) <= 7900


def test_stale_data_is_told_once(orders):
    create(orders, schedule="50ms")
    settled(orders)
    listener = Listener(orders)
    orders.execute("delete from orders")
    eventually(lambda: due(orders) and listener.alerts("stale_data"))
    for _ in range(5):
        due(orders)
    (alert,) = listener.alerts("stale_data")
    assert alert["stream_table"] == "public.revenue_by_region"
    assert 0.1 <= alert["staleness_seconds"] < 30
