"""Inboxes in SQL: how they come and go, and what consumers call."""

import uuid

import psycopg
import psycopg.sql
import pytest

from support.inbox_sql import admin, arrive, ids, inbox, opened
from support.postgres import refusal

COLUMNS = ["event_id", "event_type", "source", "aggregate_id", "payload", "headers", "received_at",
           "processed_at", "processed", "error", "retry_count", "trace_id"]


# How they come ----------------------------------------------------------------------------------


def test_an_inbox_has_the_columns_that_are_documented(db, admin):
    made = admin.execute("select pgtrickle.create_inbox('payment_events')").fetchone()[0]
    assert made == "pgtrickle.inbox_payment_events"
    assert [row[0] for row in db.execute(
        "select attname from pg_attribute where attnum > 0 and attrelid = "
        "'pgtrickle.inbox_payment_events'::regclass order by attnum")] == COLUMNS
    assert db.one("select pg_get_userbyid(relowner) from pg_class where oid = "
                  "'pgtrickle.inbox_payment_events'::regclass") == "pgtrickle_owner"
    for view in ("payment_events_pending", "payment_events_dlq", "payment_events_stats"):
        assert admin.execute(f"select count(*) from pgtrickle.{view}").fetchone() == (0,)


def test_all_settings_are_taken(db, admin):
    admin.execute("select pgtrickle.create_inbox('x', max_retries => 7, schedule => '5s', "
                  "with_dead_letter => false, with_stats => false, retention_hours => 24)")
    assert db.execute("select max_retries, schedule, with_dead_letter, with_stats, "
                      "retention_hours, dlq_view, stats_view from pgtrickle.pgt_inbox_config") == [
        (7, "5s", False, False, 24, None, None)]
    assert db.one("select to_regclass('pgtrickle.x_dlq')") is None


@pytest.mark.parametrize("call", ["create_inbox('')", "create_inbox(null)",
                                  "create_inbox('x', max_retries => 0)",
                                  "create_inbox('x', retention_hours => 0)",
                                  "drop_inbox('nowhere')", "inbox_health('nowhere')",
                                  "inbox_mark_processed('nowhere', '1')",
                                  "create_inbox('x', 'no_such_schema')"])
def test_what_cannot_be_is_refused(db, admin, call):
    refusal(admin, f"select pgtrickle.{call}")
    assert db.execute("select * from pgtrickle.pgt_inbox_config") == []


def test_an_unknown_inbox_is_answered_with_the_nearest_one(db, admin, inbox):
    assert 'Did you mean "shop"?' in refusal(admin, "select pgtrickle.inbox_health('shp')")


def test_making_an_inbox_again_changes_nothing_and_says_so(db, inbox):
    arrive(db, "1")
    with db.connect() as connection:
        said = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("select pgtrickle.create_inbox('shop', max_retries => 9)")
    assert said == ['inbox "shop" exists already']
    assert ids(db, inbox) == ["1"]


def test_a_matching_table_becomes_the_inbox(db):
    db.execute("create table pgtrickle.inbox_old (event_id text primary key, payload jsonb, "
               "processed_at timestamptz)")
    arrive_old = "insert into pgtrickle.inbox_old values ('1', '{}', null)"
    db.execute(arrive_old)
    with db.connect() as connection:
        said = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("select pgtrickle.create_inbox('old')")
    assert len(said) == 1 and "becomes the inbox" in said[0]
    assert ids(db, "pgtrickle.old_pending") == ["1"]
    assert db.one("select pgtrickle.inbox_mark_processed('old', '1')") is True
    db.execute("select pgtrickle.drop_inbox('old')")
    assert ids(db, "pgtrickle.inbox_old") == ["1"], "what create_inbox did not make stays"


@pytest.mark.parametrize("columns,says", [
    ("event_id text primary key", "no column for payload"),
    ("event_id text, payload jsonb", '"event_id" is not unique'),
    ("id text primary key, payload jsonb", "no column for event_id")])
def test_a_table_that_cannot_be_an_inbox_is_refused(db, columns, says):
    db.execute(f"create table pgtrickle.inbox_bad ({columns})")
    assert says in refusal(db, "select pgtrickle.create_inbox('bad')")


NAMES = ["with-hyphen", "Capital", 'quo"te', "do.t", "blank here", "ünïcode", "o'clock", "x" * 63,
         "é" * 40, "relay", "percent%s"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_spelling(db, admin, name):
    table = admin.execute("select pgtrickle.create_inbox(%s)", (name,)).fetchone()[0]
    db.execute(f"insert into {table.replace('%', '%%')} (event_id) values (%s)", ("1",))
    call = lambda text, *more: admin.execute(  # noqa: E731
        f"select pgtrickle.{text}", (name, *more)).fetchone()[0]
    assert call("inbox_mark_failed(%s, %s, %s)", "1", "no") == 1
    assert call("inbox_mark_processed(%s, %s)", "1") is True
    assert call("replay_inbox_messages(%s, %s)", ["1", "2"]) == 1
    assert call("inbox_health(%s)")["pending"] == 1
    admin.execute("select pgtrickle.create_inbox(%s)", (name,))
    views, = db.execute("select pending_view, dlq_view, stats_view "
                        "from pgtrickle.pgt_inbox_config")
    assert len(set(views)) == 3 and all(len(view.encode()) <= 63 for view in views)
    admin.execute("select pgtrickle.drop_inbox(%s)", (name,))
    assert db.one("select to_regclass(%s)", (table,)) is None
    assert db.one("select count(*) from pg_views where schemaname = 'pgtrickle' and viewname = "
                  "any (%s)", (list(views),)) == 0


def test_names_that_begin_alike_are_different_inboxes(db):
    first, second = (db.one("select pgtrickle.create_inbox(%s)", ("n" * 70 + end,))
                     for end in "ab")
    assert first != second


def test_an_inbox_in_another_schema_belongs_to_its_maker(db):
    dsn = db.login("shop_owner", "pgtrickle_admin")
    db.execute("create schema shop authorization shop_owner")
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute(
            "select pgtrickle.create_inbox('sales', schema => 'shop')").fetchone()[0] \
            == "shop.inbox_sales"
        connection.execute("insert into shop.inbox_sales (event_id) values ('1')")
        assert connection.execute("select event_id from shop.sales_pending").fetchall() == [("1",)]
        assert connection.execute(
            "select pgtrickle.inbox_mark_processed('sales', '1')").fetchone()[0] is True
        connection.execute("select pgtrickle.drop_inbox('sales')")
    assert db.one("select to_regclass('shop.inbox_sales')") is None


def test_a_role_makes_no_inbox_where_it_may_not_create(db, admin):
    db.execute("create schema closed")
    assert "permission denied" in refusal(
        admin, "select pgtrickle.create_inbox('x', schema => 'closed')")


def test_the_relay_alone_makes_nothing_but_what_pipelines_name(db):
    with psycopg.connect(db.relay_dsn, autocommit=True) as connection:
        assert "permission denied" in refusal(connection, "select pgtrickle.create_inbox('x')")
        assert "permission denied" in refusal(connection, "create table pgtrickle.x ()")


# Tables of one's own ----------------------------------------------------------------------------


def test_a_table_with_other_names_is_tracked(db):
    db.execute("create table messages (id uuid primary key, body jsonb, done timestamptz, "
               "tries int not null default 0, problem text)")
    db.execute("""select pgtrickle.enable_inbox_tracking('mine', 'messages', '{"event_id": "id",
        "payload": "body", "processed_at": "done", "retry_count": "tries", "error": "problem"}',
        max_retries => 2)""")
    identity = str(uuid.uuid4())
    db.execute("insert into messages values (%s, '{}')", (identity,))
    assert db.one("select pgtrickle.inbox_mark_failed('mine', %s, 'oops')",
                  (identity.upper(),)) == 1
    assert db.execute("select id::text from mine_pending") == [(identity,)]
    assert db.one("select pgtrickle.inbox_mark_failed('mine', %s, 'again')", (identity,)) == 2
    assert db.execute("select problem from mine_dlq") == [("again",)]
    assert db.one("select pgtrickle.inbox_health('mine')")["status"] == "degraded"
    assert db.one("select pgtrickle.replay_inbox_messages('mine', array[%s])", (identity,)) == 1
    assert db.one("select pgtrickle.inbox_mark_processed('mine', %s)", (identity,)) is True
    db.execute("select pgtrickle.drop_inbox('mine')")
    assert db.one("select count(*) from messages") == 1


def test_tracking_needs_columns_that_are_there(db):
    db.execute("create table messages (id uuid primary key, body jsonb)")
    said = refusal(db, "select pgtrickle.enable_inbox_tracking('m', 'messages')")
    assert "no column for event_id" in said
    said = refusal(db, """select pgtrickle.enable_inbox_tracking('m', 'messages',
                                 '{"event_id": "nr", "payload": "body"}')""")
    assert 'no column "nr"' in said
    said = refusal(db, """select pgtrickle.enable_inbox_tracking('m', 'messages', '{"i": "id"}')""")
    assert 'no field "i"' in said


def test_tracking_again_changes_the_mapping(db):
    db.execute("create table messages (id text primary key, body jsonb, done timestamptz)")
    mapping = '{"event_id": "id", "payload": "body"%s}'
    db.execute("select pgtrickle.enable_inbox_tracking('m', 'messages', %s)", (mapping % "",))
    assert db.one("select to_regclass('m_pending')") is None
    db.execute("select pgtrickle.enable_inbox_tracking('m', 'messages', %s)",
               (mapping % ', "processed_at": "done"',))
    assert db.one("select to_regclass('m_pending')") is not None


def test_settings_of_create_inbox_survive_tracking(db):
    db.execute("create schema shop;"
               "select pgtrickle.create_inbox('s', schema => 'shop', with_dead_letter => false, "
               "with_stats => false, schedule => '7s');"
               "select pgtrickle.enable_inbox_tracking('s', 'shop.inbox_s', max_retries => 8)")
    assert db.execute("select max_retries, with_dead_letter, with_stats, schedule, made_here "
                      "from pgtrickle.pgt_inbox_config") == [(8, False, False, "7s", True)]
    assert [db.one(f"select to_regclass('shop.s_{view}') is not null")
            for view in ("pending", "dlq", "stats")] == [True, False, False]


def test_a_column_that_a_table_lacks_is_asked_for_only_where_it_is_needed(db):
    db.execute("create table bare (event_id text primary key, payload jsonb);"
               "create table counted (event_id text primary key, payload jsonb, "
               "  processed_at timestamptz, retry_count smallint);"
               "create table uncounted (event_id text primary key, payload jsonb, "
               "  processed_at date, received_at date, error varchar(20));")
    for table in ("bare", "counted", "uncounted"):
        db.execute(f"insert into {table} (event_id) values ('1');"
                   f"select pgtrickle.enable_inbox_tracking('{table}', '{table}')")
    for call in ("inbox_mark_processed('bare', '1')", "inbox_mark_failed('bare', '1', 'x')",
                 "replay_inbox_messages('bare', '{1}')"):
        assert "has no column for" in refusal(db, f"select pgtrickle.{call}")
    assert "has no column for retry_count" in refusal(
        db, "select pgtrickle.inbox_mark_failed('uncounted', '1', 'x')")
    health = db.one("select pgtrickle.inbox_health('bare')")
    assert (health["pending"], health["dead_letters"]) == (None, None)
    # Without a column for the error the try is counted all the same.
    assert [db.one("select pgtrickle.inbox_mark_failed('counted', '1', 'x')")
            for _ in range(3)] == [1, 2, 3]
    assert ids(db, "counted_dlq") == ["1"]
    for table in ("counted", "uncounted"):
        assert db.one(f"select pgtrickle.replay_inbox_messages('{table}', '{{1}}')") == 1
        assert ids(db, f"{table}_pending") == ["1"]
        assert db.one(f"select pgtrickle.inbox_mark_processed('{table}', '1')") is True
        assert db.one(f"select pgtrickle.inbox_health('{table}')")["pending"] == 0


def test_a_count_that_is_null_is_no_failed_try_yet(db):
    """It is pending, counts from one, and dies like every other."""
    db.execute("create table messages (event_id text primary key, payload jsonb, error text, "
               "processed_at timestamptz, received_at timestamptz, retry_count int);"
               "insert into messages values ('1'), ('2');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', max_retries => 2)")

    def numbers():
        health = db.one("select pgtrickle.inbox_health('m')")
        status = db.execute("select pending, dead_letters from pgtrickle.inbox_status('m')")
        assert status == [(health["pending"], health["dead_letters"])]
        assert db.execute("select pending, dead_letters from m_stats") == status
        assert (len(ids(db, "m_pending")), len(ids(db, "m_dlq"))) == status[0]
        return status[0]

    assert numbers() == (2, 0)
    fail = "select pgtrickle.inbox_mark_failed('m', '1', 'x')"
    assert (db.one(fail), numbers(), db.one(fail), numbers()) == (1, (2, 0), 2, (1, 1))
    assert db.execute("select event_id, retry_count from messages order by 1") == [
        ("1", 2), ("2", None)]
    assert db.one("select pgtrickle.replay_inbox_messages('m', '{1,2}')") == 2
    assert numbers() == (2, 0)


# How they go ------------------------------------------------------------------------------------


def test_a_dropped_inbox_takes_its_views_along(db, admin, inbox):
    admin.execute("select pgtrickle.drop_inbox('shop')")
    assert db.execute("select * from pgtrickle.pgt_inbox_config") == []
    assert db.execute("select relname from pg_class where relname like '%shop%'") == []
    admin.execute("select pgtrickle.drop_inbox('shop', if_exists => true)")


def test_a_table_can_be_kept(db, admin, inbox):
    arrive(db, "1")
    admin.execute("select pgtrickle.drop_inbox('shop', keep_table => true)")
    assert ids(db, inbox) == ["1"]
    assert db.one("select to_regclass('pgtrickle.shop_pending')") is None
    admin.execute("select pgtrickle.create_inbox('shop')")
    assert ids(db, "pgtrickle.shop_pending") == ["1"]


def test_retention_deletes_what_was_processed_long_ago_and_nothing_else(db, inbox):
    arrive(db, "old", "new", "waiting", "dead")
    db.execute("update pgtrickle.inbox_shop set received_at = now() - interval '100 h'")
    db.execute("update pgtrickle.inbox_shop set processed_at = now() - interval '80 h' "
               "where event_id = 'old'")
    db.execute("update pgtrickle.inbox_shop set processed_at = now() - interval '60 h' "
               "where event_id = 'new'")
    db.execute("update pgtrickle.inbox_shop set retry_count = 3 where event_id = 'dead'")
    report = db.one("select pgtrickle.relay_housekeeping()")
    assert report["inbox_rows"] == 1 and report["errors"] == []
    assert ids(db, inbox) == ["dead", "new", "waiting"]


def test_retention_goes_in_bounded_steps(db, inbox):
    db.execute("insert into pgtrickle.inbox_shop (event_id, processed_at) "
               "select i::text, now() - interval '80 h' from generate_series(1, 25) i")
    reports = []
    for _ in range(4):
        reports.append(db.one("select pgtrickle.relay_housekeeping(10)"))
    assert [r.get("inbox_rows", 0) for r in reports] == [10, 10, 5, 0]
    assert [r["more"] for r in reports] == [True, True, False, False]


def test_one_broken_inbox_does_not_keep_the_others_from_being_cleaned(db, inbox):
    db.execute("create table messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz)")
    db.execute("select pgtrickle.enable_inbox_tracking('m', 'messages', retention_hours => 1)")
    db.execute("alter table messages rename column processed_at to gone")
    db.execute("insert into pgtrickle.inbox_shop (event_id, processed_at) "
               "values ('1', now() - interval '80 h')")
    report = db.one("select pgtrickle.relay_housekeeping()")
    assert report["inbox_rows"] == 1
    assert [error["what"] for error in report["errors"]] == ["inbox m"]


def test_a_missing_inbox_is_made_by_name_or_exactly_as_written(db):
    assert opened(db, "shop", None) == ("pgtrickle", "inbox_shop", True)
    assert opened(db, "shop", None) == ("pgtrickle", "inbox_shop", False)
    assert opened(db, None, "orders_inbox") == ("pgtrickle", "orders_inbox", True)
    assert opened(db, None, "orders_inbox") == ("pgtrickle", "orders_inbox", False)
    assert db.one("select pgtrickle.inbox_health('orders_inbox')")["status"] == "healthy"


def test_a_table_is_looked_for_in_pgtrickle_then_as_an_inbox_then_as_qualified(db):
    db.execute("create table public.letters (event_id text primary key, payload jsonb)")
    assert opened(db, None, "public.letters") == ("public", "letters", False)
    assert opened(db, None, "letters") == ("pgtrickle", "letters", True)
    assert opened(db, None, "letters") == ("pgtrickle", "letters", False)
    db.execute("select pgtrickle.create_inbox('named')")
    assert opened(db, None, "named") == ("pgtrickle", "inbox_named", False)
    with pytest.raises(psycopg.Error, match="there is no table nowhere.letters"):
        opened(db, None, "nowhere.letters")


def test_only_looking_makes_nothing(db):
    assert opened(db, "shop", None, looks_only=True) is None
    assert db.execute("select * from pgtrickle.pgt_inbox_config") == []


def test_settings_of_a_pipeline_reach_the_inbox(db):
    opened(db, "shop", None, max_retries=5, schedule="9s", retention_hours=10)
    read = ("select max_retries, schedule, with_dead_letter, retention_hours, dlq_view is not null "
            "from pgtrickle.pgt_inbox_config")
    assert db.execute(read) == [(5, "9s", True, 10, True)]
    opened(db, "shop", None)
    assert db.execute(read) == [(5, "9s", True, 10, True)]
    opened(db, "shop", None, max_retries=1, with_dead_letter=False)
    assert db.execute(read) == [(1, "9s", False, 10, False)]
    opened(db, "shop", None, with_dead_letter=True)
    arrive(db, "1")
    db.execute("select pgtrickle.inbox_mark_failed('shop', '1')")
    assert ids(db, "pgtrickle.shop_dlq") == ["1"]


# Members of the payload as columns --------------------------------------------------------------


def test_a_member_of_the_payload_becomes_a_column(db, admin, inbox):
    db.execute("insert into pgtrickle.inbox_shop (event_id, payload) values "
               """('1', '{"who": "ann", "n": {"x": 1}}'), ('2', '[1]'), ('3', null)""")
    for _ in range(2):
        admin.execute("select pgtrickle.inbox_payload_column('shop', 'who')")
    admin.execute("select pgtrickle.inbox_payload_column('shop', 'n')")
    db.execute("insert into pgtrickle.inbox_shop (event_id, payload) values ('4', '{\"who\": 5}')")
    assert db.execute("select who, n from pgtrickle.inbox_shop order by event_id") == [
        ("ann", '{"x": 1}'), (None, None), (None, None), ("5", None)]


def test_a_stream_table_over_an_inbox_may_name_members_of_the_payload(db, admin, inbox):
    db.execute("grant create on schema public to inbox_admin")
    db.execute("select pgtrickle.create_inbox('other')")
    admin.execute("""select pgtrickle.create_stream_table('totals',
        'select customer, region, sum((payload ->> ''amount'')::numeric) as total
           from pgtrickle.inbox_shop where processed = false group by customer, region')""")
    db.execute("""insert into pgtrickle.inbox_shop (event_id, payload) values
        ('1', '{"customer": "a", "region": "eu", "amount": 2}'),
        ('2', '{"customer": "a", "region": "eu", "amount": 3.5}')""")
    db.execute("select pgtrickle.refresh_stream_table('totals')")
    assert db.execute("select customer, region, total::float from totals") == [("a", "eu", 5.5)]
    assert db.one("select count(*) from pg_attribute where attrelid = "
                  "'pgtrickle.inbox_other'::regclass and attname = 'customer'") == 0


@pytest.mark.parametrize("query", [
    "select nothing from own", "select nothing from pgtrickle.inbox_shop, pgtrickle.inbox_other"])
def test_a_column_that_no_single_inbox_can_give_is_missed_as_ever(db, inbox, query):
    db.execute("create table own (id int)")
    db.execute("select pgtrickle.create_inbox('other')")
    said = refusal(db, f"select pgtrickle.create_stream_table('s', '{query}')")
    assert 'column "nothing" does not exist' in said
