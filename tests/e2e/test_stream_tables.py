"""Stream tables: what users are promised, beside exactness (test_stream_tables_exact.py)."""

import json
from datetime import datetime

import psycopg
import pytest
from support.postgres import install_from_files
from support.waiting import eventually

DEMO_QUERY = """select region, created_at::date as day, sum(amount) as revenue,
                       count(*) as order_count
                from orders group by 1, 2"""


@pytest.fixture
def orders(db):
    """The demo of the documentation: orders, and what they come to by region and day."""
    db.execute("set timezone = 'UTC'")
    db.execute("create table orders (id bigint generated always as identity primary key, "
               "region text, amount numeric(12, 2), created_at timestamptz not null default now())")
    db.execute("insert into orders (region, amount, created_at) values "
               "('europe', 100, '2026-04-27 10:00Z'), ('europe', 50.20, '2026-04-27 11:00Z'), "
               "('asia', 7, '2026-04-27 12:00Z')")
    return db


def create(db, name="revenue_by_region", query=DEMO_QUERY, schedule="1ms", mode="AUTO", key=None):
    db.execute("select pgtrickle.create_stream_table(%s, %s, %s, %s, %s)",
               (name, query, schedule, mode, key))


def refresh(db, name="revenue_by_region"):
    return db.one("select pgtrickle.refresh_stream_table(%s)", (name,))


def refused(db, statement, parameters=None):
    """The error that a statement ends in: its message and hint."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(statement, parameters)
    return f"{caught.value.diag.message_primary}\n{caught.value.diag.message_hint or ''}"


def state(db, name="revenue_by_region"):
    columns = ("status", "consecutive_errors", "last_error", "always_due")
    row = db.execute(f"select {', '.join(columns)} from pgtrickle.pgt_stream_tables "
                     "where pgt_name = %s", (name,))[0]
    return dict(zip(columns, row))


def due(db, at_once=True):
    """What the daemon is told to refresh; `at_once` lets no refresh of a moment ago hold '1ms' back."""
    if at_once:
        db.execute("""update pgtrickle.pgt_stream_tables set next_due_at = now()
                      where pgt_id in (select pgt_id from pgtrickle.pgt_stream_tables
                                       where schedule = '1ms' for no key update skip locked)""")
    with db.connect(user="relay_daemon") as daemon:
        return [row[0] for row in daemon.execute("select * from pgtrickle.stream_tables_due()")]


def settled(db):
    """Refreshes until nothing is due any more."""
    eventually(lambda: [refresh(db, name) for name in due(db)] == [])


class Listener:
    """Collects the notifications of a channel."""

    def __init__(self, db, channel="pg_trickle_alert"):
        self.payloads = []
        self.connection = db.connect()
        self.connection.add_notify_handler(lambda heard: self.payloads.append(heard.payload))
        self.connection.execute(f"listen {channel}")

    def alerts(self, event=None):
        self.connection.execute("select 1")     # the server sends what has been committed with it
        bodies = [json.loads(payload) for payload in self.payloads]
        return [body for body in bodies if event is None or body.get("event") == event]


# Creating ------------------------------------------------------------------------------------

def test_a_stream_table_is_filled_and_follows_its_query(orders):
    create(orders, key=["region", "day"])
    select = "select region, day::text, revenue::text, order_count from revenue_by_region order by 1"
    assert orders.execute(select) == [("asia", "2026-04-27", "7.00", 1),
                                      ("europe", "2026-04-27", "150.20", 2)]
    orders.execute("select pgtrickle.enable_outbox('revenue_by_region')")
    orders.execute("update orders set amount = 60 where amount = 50.20")
    orders.execute("delete from orders where region = 'asia'")
    done = refresh(orders)
    assert (done["action"], done["inserted"], done["updated"], done["deleted"]) == (
        "DIFFERENTIAL", 0, 1, 1)
    assert orders.execute(select) == [("europe", "2026-04-27", "160.00", 2)]
    # The delta, as an envelope shows it: the old row of a key in `deleted`, the new in `inserted`.
    payload, inserted, deleted = orders.execute(
        "select payload, inserted_count, deleted_count from pgtrickle.outbox_revenue_by_region")[0]
    assert (payload["v"], payload["refresh_mode"], inserted, deleted) == (1, "DIFFERENTIAL", 1, 2)
    assert isinstance(payload["refresh_duration_ms"], int)
    assert payload["inserted"] == [
        {"region": "europe", "day": "2026-04-27", "revenue": 160.00, "order_count": 2}]
    assert payload["deleted"] == [
        {"region": "asia", "day": "2026-04-27", "revenue": 7.00, "order_count": 1},
        {"region": "europe", "day": "2026-04-27", "revenue": 150.20, "order_count": 2}]
    assert refresh(orders)["action"] == "NO_DATA"
    assert orders.one("select count(*) from pgtrickle.outbox_revenue_by_region") == 1


def test_a_stream_table_over_an_inbox_table_is_made_as_documented(db):
    db.execute("create table pgtrickle.inbox_payment_events "
               "(event_id text primary key, payload jsonb, processed boolean default false)")
    db.execute("select pgtrickle._own_and_grant('pgtrickle.inbox_payment_events')")
    db.login("alice", "pgtrickle_admin")
    db.execute("grant create on schema public to alice")
    with db.connect(user="alice") as alice:
        alice.execute("""SELECT pgtrickle.create_stream_table( 'payment_summary',
        $$SELECT customer_id, SUM((payload->>'amount')::numeric) AS total_paid,
                 COUNT(*) AS payment_count
          FROM (SELECT payload->>'customer' AS customer_id, * FROM pgtrickle.inbox_payment_events) e
          WHERE processed = false GROUP BY customer_id$$,
        schedule => '2s', refresh_mode => 'DIFFERENTIAL')""")
    assert not state(db, "payment_summary")["always_due"]
    db.execute("insert into pgtrickle.inbox_payment_events values "
               "('e1', '{\"customer\": \"c\", \"amount\": 12.5}')")
    refresh(db, "payment_summary")
    assert db.one("select total_paid::text from payment_summary") == "12.5"


def test_names_in_the_query_mean_what_they_meant_at_creation(db):
    db.execute("""create schema app; create schema other;
                  create table app.t (id int); insert into app.t values (1);
                  create function app.twice(int) returns int immutable language sql
                    as 'select 2 * $1';
                  create type app.mood as enum ('good', 'bad');
                  create table other.t (id int)""")
    with db.connect() as caller:
        caller.execute("set search_path = app")
        caller.execute("select pgtrickle.create_stream_table('s', "
                       "'select twice(id) as n, ''good''::mood as m from t', null)")
        caller.execute("set search_path = other")
        caller.execute("select pgtrickle.refresh_stream_table('s')")
    assert db.execute("select * from app.s") == [(2, "good")]
    assert "app.twice" in db.one("select defining_query from pgtrickle.pgt_stream_tables")


def test_the_query_gives_the_same_in_every_session(db):
    """What depends on settings (a day in a time zone, say) stays as its creator had it."""
    db.execute("create table t (at timestamptz)")
    db.execute("insert into t values ('2026-04-27 23:30Z')")
    with db.connect() as creator:
        creator.execute("set timezone = 'Asia/Tokyo'")
        creator.execute("select pgtrickle.create_stream_table('s', 'select at, at::date as day from t', null)")
    db.execute("select pgtrickle.enable_outbox('s')")
    with db.connect() as elsewhere:
        elsewhere.execute("set timezone = 'America/New_York'")
        elsewhere.execute("insert into t values ('2026-05-01 20:00Z')")
        done = elsewhere.execute("select pgtrickle.refresh_stream_table('s')").fetchone()[0]
    assert (done["inserted"], done["deleted"]) == (1, 0)
    assert db.one("select payload -> 'inserted' from pgtrickle.outbox_s") == [
        {"at": "2026-05-02T05:00:00+09:00", "day": "2026-05-02"}]


@pytest.mark.parametrize("name, relname", [
    ("plain", "plain"), ("Folded", "folded"), ('"Kept"', "Kept"), ("with-hyphen", "with-hyphen"),
    ('"with.dot"', "with.dot"), ('"a ""quote"""', 'a "quote"'), ("public.qualified", "qualified"),
    ("x" * 63, "x" * 63), ("über", "über")])
def test_names_of_every_kind_work(db, name, relname):
    db.execute('create table t (id int primary key, "Odd ""name"".x" int)')
    create(db, name, "select * from t", key=["id"])
    assert db.one("select pgt_name from pgtrickle.pgt_stream_tables") == relname
    db.execute("insert into t values (1, 2)")
    assert [refresh(db, found)["inserted"] for found in due(db)] == [1]
    db.execute("update t set \"Odd \"\"name\"\".x\" = 3")
    assert refresh(db, name)["updated"] == 1
    db.execute("select pgtrickle.drop_stream_table(%s)", (name,))
    assert db.execute("select pgt_name from pgtrickle.pgt_stream_tables") == []


def test_a_name_in_two_schemas_has_to_be_qualified(db):
    db.execute("create schema app; create table t (id int)")
    create(db, "s", "select * from t")
    create(db, "app.s", "select * from t")
    assert "is ambiguous" in refused(db, "select pgtrickle.refresh_stream_table('s')")
    assert refresh(db, "app.s")["stream_table"] == "app.s"


@pytest.mark.parametrize("arguments, message", [
    ("'s', 'select 1 as x', '1s', 'IMMEDIATE'", "IMMEDIATE is not supported"),
    ("'s', 'select 1 as x', '1s', 'SOMETIMES'", "Use AUTO, DIFFERENTIAL or FULL"),
    ("'s', 'select 1 as x', 'often'", "cannot read schedule 'often'"),
    ("'s', 'select 1 as x', '0s'", "not between"),
    ("'s', 'select 1 as x', '61 * * * *'", '"61" is not within 0 to 59'),
    ("'s', 'select 1 as x', '1s', 'AUTO', '{y}'", "Its columns are: x."),
    ("'s', 'select null::int as x', '1s', 'AUTO', '{x}'", "are null in some row"),
    ("'s', 'select x from unnest(array[1, 1]) x', '1s', 'AUTO', '{x}'", "do not tell the rows"),
    ("'s', 'select 1 as x; drop table t'", "must be one SELECT"),
    ("'s', 'delete from t'", "must be one SELECT"),
    ("'s', 'select * from nowhere'", 'relation "nowhere" does not exist'),
    ("'s', 'select * from fleeting'", "temporary table"),
    ("'t', 'select 1 as x'", "relation public.t already exists"),
    ("'a.b.c', 'select 1 as x'", "Write name or schema.name"),
    ("'nowhere.s', 'select 1 as x'", 'schema "nowhere" does not exist'),
])
def test_what_cannot_be_made_is_refused_with_the_way_out(db, arguments, message):
    db.execute("create table t (id int); create temporary table fleeting (id int)")
    assert message in refused(db, f"select pgtrickle.create_stream_table({arguments})")
    assert db.execute("select * from pgtrickle.pgt_stream_tables") == []
    assert db.one("select count(*) from pg_class where relname ~ '^(pgt_probe|diff_)'") == 0


def test_a_query_may_end_in_semicolon_and_comment(db):
    db.execute("create table t (id int)")
    create(db, "s", "select id from t ;\n ")
    create(db, "commented", "select id from t -- all of them")
    assert refresh(db, "commented")["action"] == "NO_DATA"


def test_creating_neither_waits_behind_an_open_writer_nor_lets_others_queue(db):
    db.execute("create table t (id int)")
    with db.connect(autocommit=False) as writer:
        writer.execute("insert into t values (1)")
        with db.connect() as creator, db.connect() as other:
            creator.execute("begin")
            creator.execute("select pgtrickle.create_stream_table('s', 'select id from t', '1ms')")
            creator.execute("commit")
            other.execute("set statement_timeout = '2s'")
            other.execute("insert into t values (2)")
        # Not watched yet: refreshed whenever the schedule says so, and watched as soon as it can be.
        assert state(db, "s")["always_due"]
        eventually(lambda: "public.s" in due(db))
        refresh(db, "s")
        writer.commit()
    eventually(lambda: "public.s" in due(db))
    refresh(db, "s")
    assert not state(db, "s")["always_due"]
    assert db.one("select count(*) from s") == 2


def test_installing_again_keeps_stream_tables_working(orders):
    create(orders, key=["region", "day"])
    install_from_files(orders.dsn)
    orders.execute("delete from orders where region = 'asia'")
    assert refresh(orders)["deleted"] == 1


# Refreshing ----------------------------------------------------------------------------------

def test_a_stream_table_is_written_by_its_refresh_only(orders):
    create(orders)
    for statement in ("insert into revenue_by_region default values",
                      "update revenue_by_region set revenue = 0", "delete from revenue_by_region",
                      "truncate revenue_by_region"):
        assert "written by its refresh only" in refused(orders, statement)


def test_a_refresh_under_an_old_snapshot_is_refused(orders):
    create(orders)
    for level in ("repeatable read", "serializable"):
        with orders.connect(autocommit=False) as connection:
            connection.execute(f"set transaction isolation level {level}")
            with pytest.raises(psycopg.Error, match="READ COMMITTED"):
                connection.execute("select pgtrickle.refresh_stream_table('revenue_by_region')")


def test_a_refresh_sees_its_own_transaction_and_is_undone_with_it(orders):
    create(orders, key=["region", "day"])
    settled(orders)
    with orders.connect(autocommit=False) as connection:
        connection.execute("delete from orders where region = 'asia'")
        done = connection.execute(
            "select pgtrickle.refresh_stream_table('revenue_by_region')").fetchone()[0]
        assert done["deleted"] == 1
        connection.rollback()
    assert orders.one("select count(*) from revenue_by_region") == 2
    assert refresh(orders)["action"] == "NO_DATA"


def test_user_triggers_see_what_happened(orders):
    create(orders, key=["region", "day"])
    orders.execute("""
        create table audit (n serial, op text, old_row jsonb, new_row jsonb, level text);
        create function note() returns trigger language plpgsql as $$ begin
          insert into audit (op, old_row, new_row, level)
          values (tg_op, case when tg_level = 'ROW' and tg_op <> 'INSERT' then to_jsonb(old) end,
                  case when tg_level = 'ROW' and tg_op <> 'DELETE' then to_jsonb(new) end, tg_level);
          return null; end $$;
        create trigger note after insert or update or delete on revenue_by_region
          for each row execute function note();
        delete from orders where region = 'asia';
        update orders set amount = 1 where amount = 100;
        insert into orders (region, amount, created_at) values ('us', 3, '2026-04-27 10:00Z')""")
    refresh(orders)
    assert [(op, (old or {}).get("revenue"), (new or {}).get("revenue")) for op, old, new in
            orders.execute("select op, old_row, new_row from audit order by n")] == [
        ("DELETE", 7.00, None), ("UPDATE", 150.20, 51.20), ("INSERT", None, 3.00)]


@pytest.mark.parametrize("setting, heard", [(None, True), ("auto", True), ("on", True),
                                            ("off", False)])
def test_user_triggers_can_be_switched_off_for_refreshes(orders, setting, heard):
    create(orders, key=["region", "day"])
    orders.execute("""
        create table audit (op text);
        create function note() returns trigger language plpgsql as
          $$ begin insert into audit values (tg_name); return null; end $$;
        create trigger ordinary after delete on revenue_by_region
          for each row execute function note();
        create trigger always after delete on revenue_by_region
          for each row execute function note();
        create trigger disabled after delete on revenue_by_region
          for each row execute function note();
        alter table revenue_by_region enable always trigger always;
        alter table revenue_by_region disable trigger disabled""")
    before = orders.execute("select tgname, tgenabled from pg_trigger order by oid")
    with orders.connect() as connection:
        if setting:
            connection.execute(f"set pg_trickle.user_triggers = '{setting}'")
        connection.execute("delete from orders where region = 'asia'")
        connection.execute("select pgtrickle.refresh_stream_table('revenue_by_region')")
    assert orders.execute("select op from audit order by 1") == (
        [("always",), ("ordinary",)] if heard else [])
    assert orders.execute("select tgname, tgenabled from pg_trigger order by oid") == before


def test_a_full_refresh_writes_everything_anew_and_says_so(orders):
    create(orders, mode="FULL")
    orders.execute("select pgtrickle.enable_outbox('revenue_by_region')")
    orders.execute("""
        create function fail() returns trigger language plpgsql as
          $$ begin raise exception 'heard'; end $$;
        create trigger never after insert or delete on revenue_by_region
          for each row execute function fail();
        delete from orders where region = 'asia'""")
    listener = Listener(orders, "pgtrickle_refresh")
    done = refresh(orders)
    assert (done["action"], done["inserted"], done["deleted"]) == ("FULL", 1, 2)
    payload, inserted, deleted = orders.execute(
        "select payload, inserted_count, deleted_count from pgtrickle.outbox_revenue_by_region")[0]
    assert payload["full_refresh"] is True and payload["refresh_mode"] == "FULL"
    assert payload["inserted"] == [
        {"region": "europe", "day": "2026-04-27", "revenue": 150.20, "order_count": 2}]
    assert (payload["deleted"], inserted, deleted) == ([], 1, 0)
    assert listener.alerts() == [{"stream_table": "revenue_by_region", "schema": "public",
                                  "mode": "FULL", "rows": 1}]


def test_readers_never_wait_for_a_full_refresh_nor_see_it_half_done(orders):
    create(orders, mode="FULL")
    with orders.connect(autocommit=False) as refresher:
        refresher.execute("delete from orders where region = 'asia'")
        refresher.execute("select pgtrickle.refresh_stream_table('revenue_by_region')")
        with orders.connect() as reader:
            reader.execute("set statement_timeout = '2s'")
            assert reader.execute("select count(*) from revenue_by_region").fetchone()[0] == 2


def test_a_large_difference_becomes_a_claim_check(db):
    db.execute("create table t (id int primary key, word text)")
    create(db, "s", "select * from t", key=["id"])
    db.execute("select pgtrickle.enable_outbox('s')")
    db.execute("insert into t select i, 'word ' || i from generate_series(1, 100000) i")
    assert refresh(db, "s")["inserted"] == 100000
    db.execute("update t set word = 'changed' where id <= 20000")
    assert refresh(db, "s")["updated"] == 20000
    assert db.execute("select is_claim_check, inserted_count, deleted_count from pgtrickle.outbox_s "
                      "order by id") == [(True, 100000, 0), (True, 20000, 20000)]
    # In key order, the deleted row of a key directly before its inserted one.
    assert db.execute("select row_num, row_op, row_data from pgtrickle.outbox_rows('s', 2) "
                      "order by row_num limit 4") == [
        (1, "DELETE", {"id": 1, "word": "word 1"}), (2, "INSERT", {"id": 1, "word": "changed"}),
        (3, "DELETE", {"id": 2, "word": "word 2"}), (4, "INSERT", {"id": 2, "word": "changed"})]
    assert db.one("select count(distinct row_num) from pgtrickle.outbox_rows('s', 2)") == 40000


def test_without_a_key_the_rows_of_an_outbox_key_stand_together(db):
    db.execute("create table t (id int, word text)")
    db.execute("insert into t select i, 'old' from generate_series(1, 30) i")
    create(db, "s", "select * from t")
    db.execute("select pgtrickle.enable_outbox('s', key_columns => '{id}', "
               "inline_threshold_rows => 1)")
    db.execute("update t set word = 'new'")
    refresh(db, "s")
    rows = db.execute("select row_op, (row_data ->> 'id')::int from pgtrickle.outbox_rows('s', 1) "
                      "order by row_num")
    assert rows == [(op, i) for i in range(1, 31) for op in ("DELETE", "INSERT")]


def test_a_before_trigger_that_swallows_a_row_makes_the_refresh_fail(orders):
    create(orders, key=["region", "day"])
    orders.execute("""
        create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger swallow before delete on revenue_by_region
          for each row execute function swallow();
        delete from orders where region = 'asia'""")
    done = refresh(orders)
    assert done["action"] == "FAILED" and "could not be written" in done["error"]


def test_a_refresh_waits_for_the_one_before_it(orders):
    create(orders, key=["region", "day"])
    with orders.connect(autocommit=False) as first, orders.connect() as second:
        first.execute("select pgtrickle.refresh_stream_table('revenue_by_region')")
        second.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("select pgtrickle.refresh_stream_table('revenue_by_region')")
        # Whoever asks what is due does not wait, and is not sent to the same table.
        assert due(orders) == []
        first.commit()
        assert second.execute("select pgtrickle.refresh_stream_table('revenue_by_region') "
                              "->> 'action'").fetchone()[0] == "NO_DATA"


def test_a_stream_table_over_a_stream_table_follows_it(orders):
    create(orders, key=["region", "day"])
    create(orders, "total", "select sum(revenue) as revenue from revenue_by_region")
    settled(orders)
    orders.execute("insert into orders (region, amount) values ('us', 1000)")
    settled(orders)
    assert orders.one("select revenue::text from total") == "1157.20"


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
                   "create table t3 partition of t for values from ('2026-03-01') to ('2026-04-01')",
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
    db.execute("select pgtrickle._schedule_check(%s)", (schedule,))
    assert db.one("select extract(epoch from pgtrickle._schedule_interval(%s))::float8",
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
    moment = db.one("select pgtrickle._cron_next(%s, %s, %s)", (cron, after, zone))
    assert moment == (datetime.fromisoformat(expected) if expected else None)


@pytest.mark.parametrize("cron", ["* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
                                  "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
                                  "a * * * *", ", * * * *", "* * * foo *"])
def test_a_cron_expression_that_means_nothing_is_refused(db, cron):
    assert refused(db, "select pgtrickle._schedule_check(%s)", (cron,))


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
    assert "after 3 failures: division by zero" in refused(
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
    assert 0.1 < alert["staleness_seconds"] < 30


# DDL -----------------------------------------------------------------------------------------

def test_ddl_on_a_source_that_does_not_matter_is_told_and_survived(orders):
    create(orders, key=["region", "day"])
    listener = Listener(orders)
    orders.execute("alter table orders add column remark text")
    orders.execute("alter table orders rename column amount to price")
    orders.execute("alter table orders rename column price to amount")
    orders.execute("delete from orders where region = 'asia'")
    assert refresh(orders)["deleted"] == 1
    assert [a["stream_table"] for a in listener.alerts("reinitialize_needed")] == [
        "public.revenue_by_region"]
    orders.execute("insert into orders (region, amount) values ('us', 1)")
    assert refresh(orders)["inserted"] == 1
    assert len(listener.alerts("reinitialize_needed")) == 1


def test_ddl_that_changes_the_columns_of_the_query_fails_clearly(orders):
    create(orders, "copied", "select region, amount from orders")
    orders.execute("alter table orders alter column amount type float8")
    done = refresh(orders, "copied")
    assert done["action"] == "FAILED"
    assert "now gives (region text, amount double precision)" in done["error"]
    orders.execute("alter table orders drop column region")
    assert 'column orders.region does not exist' in refresh(orders, "copied")["error"]


def test_a_source_dropped_and_made_again_is_watched_again(db):
    db.execute("create table t (id int)")
    create(db, "s", "select id from t")
    settled(db)
    db.execute("drop table t")
    assert refresh(db, "s")["action"] == "FAILED"
    db.execute("create table t (id int); insert into t values (1)")
    refresh(db, "s")
    settled(db)
    db.execute("insert into t values (2)")
    assert due(db) == ["public.s"]


def test_a_view_that_was_replaced_counts_as_it_is_now(orders):
    orders.execute("create view v as select region from orders")
    create(orders, "s", "select region from v")
    orders.execute("create table more (region text); "
                   "create or replace view v as select region from more")
    refresh(orders, "s")
    orders.execute("insert into more values ('moon')")
    settled(orders)
    assert orders.execute("select region from s") == [("moon",)]


def test_sources_can_be_altered_freely(orders):
    """A stream table is not in the way of its sources' DDL."""
    create(orders, "s", "select region from orders")
    orders.execute("alter table orders drop column region")


# alter, drop ---------------------------------------------------------------------------------

def test_a_renamed_stream_table_goes_on_under_its_new_name(orders):
    create(orders, key=["region", "day"])
    orders.execute("select pgtrickle.enable_outbox('revenue_by_region')")
    orders.execute("select pgtrickle.alter_stream_table('revenue_by_region', "
                   "rename_to => 'Revenue, by region')")
    orders.execute("delete from orders where region = 'asia'")
    (name,) = due(orders)
    assert refresh(orders, name)["stream_table"] == 'public."Revenue, by region"'
    orders.execute('alter table "Revenue, by region" rename to by_hand')
    orders.execute("delete from orders")
    assert refresh(orders, "by_hand")["deleted"] == 1
    assert orders.one("select pgt_name from pgtrickle.pgt_stream_tables") == "by_hand"
    assert orders.one("select count(*) from pgtrickle.outbox_revenue_by_region") == 2
    assert "does not exist" in refused(orders, "select pgtrickle.refresh_stream_table("
                                               "'revenue_by_region')")


def test_query_and_mode_can_be_altered(orders):
    create(orders, key=["region", "day"])
    alter = "select pgtrickle.alter_stream_table('revenue_by_region', "
    orders.execute(alter + "query => %s)", (DEMO_QUERY.replace("group by", "where amount > 60 group by"),))
    done = refresh(orders)
    assert (done["updated"], done["deleted"]) == (1, 1)
    assert "gives other columns" in refused(orders, alter + "query => 'select 1 as x')")
    orders.execute(alter + "refresh_mode => 'FULL')")
    assert refresh(orders)["action"] == "FULL"
    assert "not supported" in refused(orders, alter + "refresh_mode => 'immediate')")
    assert "not both" in refused(orders, alter + "suspend => true, resume => true)")


def test_dropping_leaves_nothing_behind(orders):
    def ours():
        return orders.execute("""
            select relname from pg_class where relnamespace in
              ('pgtrickle_streams'::regnamespace, 'public'::regnamespace) and relkind in ('r', 'S')
            union all select tgname from pg_trigger where not tgisinternal
            union all select proname from pg_proc
              where pronamespace = 'pgtrickle_streams'::regnamespace order by 1""")
    before = ours()
    create(orders, key=["region", "day"])
    create(orders, "kept", "select region from orders")
    orders.execute("select pgtrickle.enable_outbox('revenue_by_region')")
    orders.execute("delete from orders where region = 'asia'")
    refresh(orders)
    orders.execute("select pgtrickle.drop_stream_table('revenue_by_region')")
    assert orders.execute("select * from pgtrickle.pgt_outbox_config") == []
    # The other one still notices.
    settled(orders)
    orders.execute("delete from orders")
    assert due(orders) == ["public.kept"]
    orders.execute("select pgtrickle.drop_stream_table('public.kept')")
    assert ours() == before
    orders.execute("select pgtrickle.drop_stream_table('kept', if_exists => true)")
    assert "does not exist" in refused(orders, "select pgtrickle.drop_stream_table('kept')")
    assert orders.one("select to_regclass('pgtrickle.pgt_changes_1')") is None


def test_a_table_dropped_by_hand_harms_no_other_and_can_be_made_again(orders):
    create(orders)
    create(orders, "other", "select region from orders")
    orders.execute("drop table revenue_by_region")
    assert due(orders) == ["public.other"]
    assert "has been dropped" in refused(
        orders, "select pgtrickle.refresh_stream_table('revenue_by_region')")
    orders.execute("select pgtrickle.drop_stream_table('revenue_by_region')")
    create(orders)
    orders.execute("drop table revenue_by_region")
    create(orders)
    assert orders.one("select count(*) from pgtrickle.pgt_stream_tables "
                      "where pgt_name = 'revenue_by_region'") == 1


# Privileges ----------------------------------------------------------------------------------

@pytest.fixture
def alice(db):
    """An ordinary administrator of stream tables: a creator whom nobody else has to trust."""
    db.login("alice", "pgtrickle_admin")
    db.execute("grant create on schema public to alice")
    with db.connect(user="alice") as connection:
        yield connection


def test_an_administrator_without_superuser_can_do_everything(db, alice):
    db.execute("create table secret (id int); create table t (id int)")
    alice.execute("create table mine (id int primary key)")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from mine', '1ms', 'AUTO', "
                  "'{id}')")
    alice.execute("select pgtrickle.enable_outbox('s')")
    alice.execute("insert into mine values (1)")
    assert due(db) == ["public.s"]
    with db.connect(user="relay_daemon") as daemon:
        assert daemon.execute("select pgtrickle.refresh_stream_table('public.s') ->> 'inserted'"
                              ).fetchone() == ("1",)
    alice.execute("select pgtrickle.alter_stream_table('s', '2s', 'FULL', rename_to => 's2')")
    alice.execute("select pgtrickle.refresh_stream_table('s2')")
    alice.execute("select pgtrickle.drop_stream_table('s2')")
    assert alice.execute("select * from pgtrickle.pgt_stream_tables").fetchall() == []


def test_the_query_runs_with_its_creators_privileges_whoever_refreshes(db, alice):
    db.execute("create table secret (id int); insert into secret values (1)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        alice.execute("select pgtrickle.create_stream_table('s', 'select id from secret')")
    db.execute("grant select on secret to alice")
    alice.execute("select pgtrickle.create_stream_table('s', "
                  "'select id, current_user::text as who from secret', '1ms')")
    assert db.execute("select id, who from s") == [(1, "alice")]
    db.execute("insert into secret values (2)")
    with db.connect(user="relay_daemon") as daemon:
        daemon.execute("select pgtrickle.refresh_stream_table('public.s')")
    assert db.execute("select id, who from s order by 1") == [(1, "alice"), (2, "alice")]
    db.execute("revoke select on secret from alice")
    db.execute("insert into secret values (3)")
    assert "permission denied for table secret" in refresh(db, "s")["error"]


def test_a_source_that_may_be_read_but_not_watched_is_still_followed(db, alice):
    db.execute("create table theirs (id int); grant select on theirs to alice")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from theirs', '1ms')")
    assert state(db, "s")["always_due"]
    db.execute("insert into theirs values (1)")
    settled_once = refresh(db, "s")
    assert settled_once["inserted"] == 1
    db.execute("grant trigger on theirs to alice")
    refresh(db, "s")
    assert not state(db, "s")["always_due"]


EVIL = """
    create function evil() returns text language plpgsql volatile as $$
    declare done text := '';
    begin
      done := done || current_user;
      begin
        update pgtrickle.pgt_stream_tables set status = 'SUSPENDED';
        done := done || ' +catalog';
      exception when others then null; end;
      begin
        perform 1 from secret; done := done || ' +secret';
      exception when others then null; end;
      begin
        alter function pgtrickle_gate.call_as_creator(bigint, text, jsonb) security invoker;
        done := done || ' +gate';
      exception when others then null; end;
      begin
        perform pgtrickle_gate.call_as_creator(1, 'apply', '{}'); done := done || ' +call';
      exception when others then null; end;
      begin
        perform pgtrickle_streams.refresh_1('apply', '{"keep": true}');
        done := done || ' +other';
      exception when others then null; end;
      begin
        create table pgtrickle.planted (id int); done := done || ' +planted';
      exception when others then null; end;
      begin
        perform pg_catalog.set_config('role', 'pgtrickle_owner', false); done := done || ' +role';
      exception when others then null; end;
      raise exception 'I was %', done;
    end $$"""


@pytest.fixture
def victim(db):
    """Somebody else's stream table, which is the first one (refresh_1)."""
    db.execute("create table secret (id int); insert into secret values (1)")
    create(db, "victims", "select id from secret")
    return db


def test_a_malicious_query_acts_as_its_creator_and_not_as_us(victim, alice):
    alice.execute("create table t (id int)")
    alice.execute(EVIL)
    alice.execute("select pgtrickle.create_stream_table('s', 'select evil() as x from t', null)")
    alice.execute("insert into t values (1)")
    assert refresh(victim, "s")["error"] == "I was alice"


def test_a_refresh_function_turned_around_finds_itself_powerless(victim, alice):
    """Its owner may make it run as its caller: the caller is a role that may do nothing."""
    alice.execute("create table t (id int)")
    alice.execute(EVIL)
    alice.execute("grant execute on function evil() to public; grant usage on schema public to public")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from t', null)")
    alice.execute("""create or replace function pgtrickle_streams.refresh_2(action text, arg jsonb)
                     returns table (op text, ord bigint, row_data jsonb) language plpgsql as
                     $$ begin perform public.evil(); end $$;
                     grant execute on function pgtrickle_streams.refresh_2(text, jsonb) to public""")
    assert refresh(victim, "s")["error"] == "I was pgtrickle_sandbox"
    # A refresh function answers to a refresh of its own stream table only.
    with pytest.raises(psycopg.Error, match="permission denied"):
        alice.execute("select pgtrickle_streams.refresh_1('apply', '{}')")
    with pytest.raises(psycopg.Error, match="permission denied"):
        alice.execute("select pgtrickle_gate.call_as_creator(1, 'apply', '{}')")
    with victim.connect() as superuser:
        with pytest.raises(psycopg.Error, match="is not being refreshed here"):
            superuser.execute("select pgtrickle_streams.refresh_1('apply', '{}')")


@pytest.mark.parametrize("leave, what", [
    ("insert into public.deferring values (1)", "a deferred trigger"),
    ("perform set_config('search_path', 'public', false)", "another search_path"),
    ("execute 'declare kept cursor with hold for select 1'", "a cursor WITH HOLD"),
    ("execute 'prepare planted as select 1'", "a prepared statement")])
def test_nothing_is_left_behind_to_run_as_whoever_refreshes(db, alice, leave, what):
    alice.execute(f"""
        create table t (id int);
        create table deferring (id int);
        create function noted() returns trigger language plpgsql as $$ begin return null; end $$;
        create constraint trigger noted after insert on deferring initially deferred
          for each row execute function noted();
        create function leave() returns int language plpgsql volatile as
          $$ begin {leave}; return 1; end $$""")
    alice.execute("select pgtrickle.create_stream_table('s', 'select leave() as x from t', null)")
    alice.execute("insert into t values (1)")
    assert f"leaves {what} behind" in refresh(db, "s")["error"]


def test_what_is_not_granted_is_refused(db, alice):
    alice.execute("create table t (id int)")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from t', null)")
    outsider = psycopg.connect(db.login("outsider"), autocommit=True)
    for statement in ("pgtrickle.create_stream_table('x', 'select 1 as x')",
                      "pgtrickle.refresh_stream_table('s')", "pgtrickle.stream_tables_due()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            outsider.execute(f"select {statement}")
    outsider.close()
    bob = psycopg.connect(db.login("bob", "pgtrickle_admin"), autocommit=True)
    for statement in ("drop_stream_table('s')", "alter_stream_table('s', rename_to => 'x')",
                      "alter_stream_table('s', query => 'select 2 as id')"):
        with pytest.raises(psycopg.Error, match="must be owner|permission denied"):
            bob.execute(f"select pgtrickle.{statement}")
    bob.close()
