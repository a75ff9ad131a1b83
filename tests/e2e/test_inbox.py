"""Inboxes in SQL: how they come and go, and what consumers call."""

import threading
import uuid

import psycopg
import psycopg.sql
import pytest
from support.postgres import install_from_files
from support.waiting import eventually

COLUMNS = ["event_id", "event_type", "source", "aggregate_id", "payload", "headers", "received_at",
           "processed_at", "processed", "error", "retry_count", "trace_id"]


@pytest.fixture
def admin(db):
    """A session of an administrator who is nothing else."""
    with psycopg.connect(db.login("inbox_admin", "pgtrickle_admin"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def inbox(db):
    db.execute("select pgtrickle.create_inbox('shop')")
    return "pgtrickle.inbox_shop"


def arrive(db, *ids, table="pgtrickle.inbox_shop", age="0"):
    for identity in ids:
        db.execute(f"insert into {table} (event_id, event_type, payload, received_at) "
                   "values (%s, 'order', '{}', clock_timestamp() - %s::interval)", (identity, age))


def ids(db, relation):
    return [row[0] for row in db.execute(f"select event_id from {relation} order by event_id")]


def refusal(connection, statement):
    with pytest.raises(psycopg.Error) as raised:
        connection.execute(statement)
    return str(raised.value)


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


def test_nobody_makes_an_inbox_where_he_may_not_create(db, admin):
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


# Views stay -------------------------------------------------------------------------------------


VIEWS = ("pending", "dlq", "stats")


def views_used(db, schema, name, *views):
    """Gives each view rights, an option, a comment, and a view and a function that need it."""
    columns = {"pending": "event_id", "dlq": "event_id", "stats": "event_type"}
    for view in views:
        it = f"{schema}.{name}_{view}"
        db.execute(f"grant select on {it} to app with grant option;"
                   f"grant select ({columns[view]}) on {it} to reporter;"
                   f"alter view {it} set (security_barrier = true);"
                   f"comment on view {it} is 'ours';"
                   f"create view on_{view} as select * from {it};"
                   f"create function rows_{view}() returns bigint language sql "
                   f"begin atomic select count(*) from {it}; end")


def views_are(db, schema, *names):
    return db.execute(
        "select c.oid, c.relname, c.relowner::regrole::text, c.relacl::text, c.reloptions, "
        "obj_description(c.oid), array(select a.attacl::text from pg_attribute a "
        "where a.attrelid = c.oid and a.attacl is not null) from pg_class c "
        "where c.relnamespace = %s::regnamespace and c.relkind = 'v' and c.relname = any (%s) "
        "order by 2", (schema, list(names)))


@pytest.fixture
def app(db):
    for role in ("app", "reporter", "keeper"):
        db.login(role)
    db.execute("grant keeper to reporter")
    yield
    db.execute("drop owned by app, reporter, keeper cascade")


def test_a_limit_that_a_pipeline_changes_leaves_the_views_as_they_are(db, app, inbox):
    views_used(db, "pgtrickle", "shop", *VIEWS)
    names = [f"shop_{view}" for view in VIEWS]
    before = views_are(db, "pgtrickle", *names)
    assert len(before) == 3 and all("app=r*/" in view[3] for view in before)
    arrive(db, "1", "2")
    db.execute("select pgtrickle.inbox_mark_failed('shop', '1')")
    db.execute("select pgtrickle.inbox_payload_column('shop', 'who')")
    opened(db, "shop", None, max_retries=1)
    assert (ids(db, "pgtrickle.shop_pending"), ids(db, "pgtrickle.shop_dlq")) == (["2"], ["1"])
    assert db.execute("select pending, dead_letters from on_stats") == [(1, 1)]
    opened(db, "shop", None, max_retries=4)
    assert db.execute("select rows_pending(), rows_dlq(), rows_stats()") == [(2, 0, 1)]
    install_from_files(db.dsn)
    assert views_are(db, "pgtrickle", *names) == before
    # What is switched off goes, unless something needs it; the others stay.
    assert "other objects depend on it" in refused_opening(db, with_dead_letter=False)
    assert views_are(db, "pgtrickle", *names) == before
    db.execute("drop view on_dlq; drop function rows_dlq()")
    opened(db, "shop", None, with_dead_letter=False)
    assert views_are(db, "pgtrickle", *names) == [v for v in before if v[1] != "shop_dlq"]
    assert db.one("select rows_pending()") == 2
    opened(db, "shop", None, with_dead_letter=True, max_retries=1)
    assert views_are(db, "pgtrickle", "shop_pending", "shop_stats") == [
        v for v in before if v[1] != "shop_dlq"]
    assert ids(db, "pgtrickle.shop_dlq") == ["1"]


def refused_opening(db, **settings):
    with pytest.raises(psycopg.Error) as raised:
        opened(db, "shop", None, **settings)
    return str(raised.value)


def test_tracking_again_leaves_the_views_as_they_are(db, app):
    """Other settings, another mapping, renamed columns, another schema, a table made anew."""
    db.execute("create schema other; create table messages (id text primary key, body jsonb, "
               "done timestamptz, tries int, kind text);"
               "insert into messages values ('1', '{}', null, 1);"
               "alter table messages owner to keeper; grant create on schema public to keeper;"
               "grant usage, create on schema other to app, keeper")
    columns = {"event_id": "id", "payload": "body", "processed_at": "done", "retry_count": "tries"}

    def track(table="messages", limit=1, **changed):
        db.execute("select pgtrickle.enable_inbox_tracking('m', %s, %s, max_retries => %s)",
                   (table, psycopg.types.json.Jsonb({**columns, **changed}), limit))

    track(limit=2)
    names = [f"m_{view}" for view in VIEWS]
    db.execute("alter table messages rename id to event_id")
    assert "messages has no column id" in refusal(db, "select pgtrickle.inbox_mark_processed"
                                                      "('m', '1')")
    columns["event_id"] = "event_id"
    track(limit=2)
    assert ids(db, "m_pending") == ["1"], "the views follow a renamed column"
    views_used(db, "public", "m", *VIEWS)
    db.execute("alter view m_stats owner to reporter;"
               "revoke select on m_dlq from pgtrickle_admin; grant select on m_dlq to public")
    before = views_are(db, "public", *names)
    track()
    assert (ids(db, "m_pending"), ids(db, "m_dlq")) == ([], ["1"])
    db.execute("alter table messages rename tries to attempts; alter table messages add x int")
    track(retry_count="attempts", event_type="kind")
    assert db.execute("select attempts, x from m_dlq") == [(1, None)]
    assert db.execute("select event_id, tries from on_dlq") == [("1", 1)]
    assert views_are(db, "public", *names) == before
    db.execute("alter table messages rename to old; create table messages (like old including all);"
               "alter table messages owner to keeper")
    track(retry_count="attempts")
    assert db.execute("select rows_dlq(), rows_pending()") == [(0, 0)]
    assert views_are(db, "public", *names) == before
    db.execute("alter table messages set schema other")
    track("other.messages", retry_count="attempts")
    assert views_are(db, "other", *names) == before
    assert views_are(db, "public", *names) == []
    # What another role could change at any moment is not taken for a view of the inbox.
    assert [view[2] for view in before] == ["keeper", "keeper", "reporter"]
    db.execute("alter table other.messages owner to app")
    with pytest.raises(psycopg.Error, match="view other.m_stats belongs to reporter"):
        track("other.messages", retry_count="attempts")
    db.execute("alter view other.m_stats owner to app")
    track("other.messages", retry_count="attempts")
    assert {view[2] for view in views_are(db, "other", *names)} == {"app"}
    db.execute("drop function rows_pending(), rows_dlq(); drop view on_pending, on_dlq;"
               "drop view other.m_pending;"
               "alter table other.messages rename to gone;"
               "create table other.messages (body text, event_id text primary key, done date, "
               "event_type varchar(9))")
    said = refusal(db, """select pgtrickle.enable_inbox_tracking('m', 'other.messages',
                          '{"payload": "body", "processed_at": "done"}')""")
    assert "view other.m_stats shows other columns" in said and "DROP VIEW other.m_stats" in said


def test_a_pipeline_cannot_change_the_views_of_an_adopted_table(db):
    db.execute("create table messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz, retry_count int);"
               "select pgtrickle.enable_inbox_tracking('shop', 'messages', retention_hours => 5)")
    said = refused_opening(db, max_retries=7, retention_hours=9)
    assert "are not ours to change" in said
    db.execute(said.split("run: ")[1].split(";")[0])
    opened(db, "shop", None, max_retries=7, retention_hours=9)
    assert db.execute("select max_retries, retention_hours from pgtrickle.pgt_inbox_config") == [
        (7, 9)]


def test_a_view_of_another_table_is_not_taken_for_that_of_an_inbox(db, inbox):
    db.execute("drop view pgtrickle.shop_dlq; create view pgtrickle.shop_dlq as select 1 as one")
    opened(db, "shop", None, max_retries=9)
    assert db.execute("select * from pgtrickle.shop_dlq") == [(1,)]
    name = db.one("select dlq_view from pgtrickle.pgt_inbox_config")
    assert name != "shop_dlq" and ids(db, f"pgtrickle.{name}") == []


def test_an_upgrade_mends_what_works_on_an_adopted_table(db):
    db.execute("create table messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); insert into messages values ('1');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages')")
    name = db.one("select gate_function from pgtrickle.pgt_inbox_config")
    db.execute(f"create or replace function pgtrickle_streams.{name}(action text, arg jsonb) "
               "returns table (op text, ord bigint, row_data jsonb) language plpgsql "
               "security definer set search_path = pg_catalog, pg_temp as $$ begin "
               "row_data := '{\"pending\": 1}'; return next; end $$")
    health = db.one("select pgtrickle.inbox_health('m')")
    assert health["status"] == "degraded" and "an earlier version" in health["problem"]
    assert "enable_inbox_tracking('m'" in health["remedy"]
    install_from_files(db.dsn)
    assert db.one("select pgtrickle.inbox_health('m')")["status"] == "healthy"
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert db.one("select gate_function from pgtrickle.pgt_inbox_config") == name


# Consumers --------------------------------------------------------------------------------------


def test_a_message_is_pending_until_it_is_processed(db, admin, inbox):
    arrive(db, "1", "2")
    assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
    call = "select pgtrickle.inbox_mark_processed('shop', %s)"
    assert admin.execute(call, ("1",)).fetchone()[0] is True
    assert admin.execute(call, ("1",)).fetchone()[0] is False, "it was already"
    assert admin.execute(call, ("9",)).fetchone()[0] is False, "it is not there"
    assert ids(db, "pgtrickle.shop_pending") == ["2"]
    assert db.execute("select event_id, processed from pgtrickle.inbox_shop order by 1") == [
        ("1", True), ("2", False)]


def test_a_message_that_fails_too_often_is_dead_and_can_be_replayed(db, admin, inbox):
    arrive(db, "1", "2")
    for tries in (1, 2, 3):
        assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
        assert admin.execute("select pgtrickle.inbox_mark_failed('shop', '1', 'no stock')"
                             ).fetchone()[0] == tries
    assert ids(db, "pgtrickle.shop_pending") == ["2"]
    assert db.execute("select event_id, error, retry_count from pgtrickle.shop_dlq") == [
        ("1", "no stock", 3)]
    assert admin.execute(
        "select pgtrickle.replay_inbox_messages('shop', array['1', 'x'])").fetchone()[0] == 1
    assert ids(db, "pgtrickle.shop_pending") == ["1", "2"]
    assert db.execute("select error, retry_count from pgtrickle.inbox_shop where event_id = '1'") \
        == [(None, 0)]


def test_what_was_processed_does_not_fail_any_more(db, inbox):
    arrive(db, "1")
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    assert db.one("select pgtrickle.inbox_mark_failed('shop', '1', 'late')") is None


def test_status_health_and_stats_count(db, admin, inbox):
    assert db.one("select pgtrickle.inbox_health('shop')")["status"] == "healthy"
    arrive(db, "1", "2", "3", "4")
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    for _ in range(3):
        db.execute("select pgtrickle.inbox_mark_failed('shop', '2', 'x')")
    health = admin.execute("select pgtrickle.inbox_health('shop')").fetchone()[0]
    assert (health["status"], health["pending"], health["dead_letters"]) == ("degraded", 2, 1)
    assert admin.execute("select inbox, table_name, pending, dead_letters, max_retries, "
                         "retention_hours from pgtrickle.inbox_status()").fetchall() == [
        ("shop", "pgtrickle.inbox_shop", 2, 1, 3, 72)]
    assert admin.execute("select event_type, total, processed, pending, dead_letters from "
                         "pgtrickle.shop_stats").fetchall() == [("order", 4, 1, 2, 1)]
    assert len(admin.execute("select * from pgtrickle.inbox_status('inbox_shop')").fetchall()) == 1


def test_what_waits_for_long_is_not_healthy(db, inbox):
    arrive(db, "1", age="10 minutes")
    health = db.one("select pgtrickle.inbox_health('shop')")
    assert health["status"] == "degraded" and 590 < health["oldest_pending_seconds"] < 700
    db.execute("select pgtrickle.inbox_mark_processed('shop', '1')")
    assert db.one("select pgtrickle.inbox_health('shop')")["status"] == "healthy"


def test_pending_messages_can_be_taken_by_several_consumers(db, inbox):
    arrive(db, "1", "2")
    take = ("select event_id from pgtrickle.shop_pending order by received_at "
            "limit 1 for update skip locked")
    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as other:
        assert {one.execute(take).fetchone()[0], other.execute(take).fetchone()[0]} == {"1", "2"}


# One id, one message ----------------------------------------------------------------------------


# type of the column, what is stored, {what is given: which row it is}
IDS = [
    ("varchar(3)", ["abc"], {"abc": "abc", "abcd": None, "abc ": None, "ABC": None}),
    ("name", ["n" * 63], {"n" * 63: "n" * 63, "n" * 64: None, "n" * 62: None}),
    ("char(3)", ["ab "], {"ab": "ab ", "ab ": "ab ", "abcd": None, "ab     ": "ab ", " ab": None}),
    ("bpchar", ["ab "], {"ab": "ab ", "abc": None}),
    ("text", ["é", "E'\\'"], {"é": "é", "e": None, "E'\\'": "E'\\'", "": None, "%s": None}),
    ("numeric(6,0)", ["7"], {"7": "7", "7.4": None, "6.5": None, "7.0": None, "007": None}),
    ("numeric", ["1.10"], {"1.10": "1.10", "1.1": None, "1.100": None}),
    ("int", ["7"], {"7": "7", "007": None, " 7": None, "+7": None}),
    ("bigint", ["7"], {"7": "7", "07": None}),
    ("float8", ["0.1"], {"0.1": "0.1", "0.10000000000000001": None, "1e-1": None}),
    ("uuid", ["00000000-0000-0000-0000-00000000000a"],
     {spelling: "00000000-0000-0000-0000-00000000000a"
      for spelling in ("00000000-0000-0000-0000-00000000000a",
                       "{00000000-0000-0000-0000-00000000000A}")}),
    ("timestamp(0)", ["2020-01-01 00:00:00"], {"2020-01-01 00:00:00": "2020-01-01 00:00:00",
                                               "2020-01-01 00:00:00.4": None}),
    ('"char"', ["a"], {"a": "a", "ab": None}),
    ("mood", ["sad"], {"sad": "sad"}),
    ("short", ["abc"], {"abc": "abc", "abcd": None}),
    ("shorter", ["abc"], {"abc": "abc", "abcd": None}),
    ("public.citext", ["Abc"], {"Abc": "Abc", "abc": None, "ABC": None}),
    ("text collate folded", ["Abc"], {"Abc": "Abc", "abc": None, "ABC": None}),
    ("varchar(3) collate folded", ["Abc"], {"Abc": "Abc", "abc": None, "Abcd": None}),
    ("text collate \"C\"", ["Abc"], {"Abc": "Abc", "abc": None}),
]


def types_of_ids(db):
    """The types above; those that this server cannot have are left out."""
    db.execute("create type mood as enum ('sad'); create domain short as varchar(3);"
               "create domain shorter as short check (length(value) < 4)")
    missing = set()
    for what, statement in (
            ("citext", "create extension citext"),
            ("folded", "create collation folded (provider = icu, locale = 'und-u-ks-level2', "
                       "deterministic = false)")):
        try:
            db.execute(statement)
        except psycopg.Error:
            missing.add(what)
    return [case for case in IDS if not any(what in case[0] for what in missing)]


def test_an_id_means_the_row_that_has_it_letter_by_letter(db):
    """Not the one that has what the column's type makes of it. Under a unique index of any kind."""
    cases = types_of_ids(db)
    assert len(cases) >= len(IDS) - 3
    for number, (kind, stored, given) in enumerate(cases):
        db.execute(f"create table t{number} (id {kind} primary key, payload jsonb, "
                   "done timestamptz, tries int)")
        for value in stored:
            db.execute(psycopg.sql.SQL("insert into {} (id) values ({})").format(
                psycopg.sql.Identifier(f"t{number}"), value))
        db.execute(f"select pgtrickle.enable_inbox_tracking('t{number}', 't{number}', "
                   """'{"event_id": "id", "processed_at": "done", "retry_count": "tries"}')""")
        for text, row in given.items():
            did = db.execute(
                f"select pgtrickle.inbox_mark_failed('t{number}', %s) is not null,"
                f" pgtrickle.inbox_mark_processed('t{number}', %s)", (text, text))
            changed = db.execute(f"select format('%s', id) from t{number} "
                                 "where done is not null and tries = 1")
            assert (did, changed) == ([(row is not None,) * 2], [(row,)] if row else []), \
                (kind, text)
            assert db.one(f"select pgtrickle.replay_inbox_messages('t{number}', %s)",
                          ([text, text],)) == (1 if row else 0), (kind, text)
            assert db.one(f"select count(*) from t{number} "
                          "where done is not null or tries > 0") == 0


def test_marking_reads_no_more_than_the_index_of_the_id(db):
    db.execute("create domain key as varchar(40)")
    types_of_ids(db)
    kinds = ["text", "varchar(40)", "name", "char(40)", "key", "numeric(9,0)", "int", "uuid",
             "public.citext", "text collate folded"]
    if db.one("select count(*) from pg_extension where extname = 'citext'") == 0:
        kinds.remove("public.citext")
    if db.one("select count(*) from pg_collation where collname = 'folded'") == 0:
        kinds.remove("text collate folded")
    for number, kind in enumerate([*kinds, "text with another index"]):
        table = f"t{number}"
        value = "md5(i::text)::uuid" if kind == "uuid" else "i::text::" + kind.split(" ")[0]
        db.execute(f"create table {table} (event_id {kind.split(' with')[0]}, payload jsonb, "
                   "processed_at timestamptz, retry_count int);"
                   f"insert into {table} select {value} from generate_series(1, 3000) i;"
                   f"create unique index on {table} (event_id"
                   + (' collate "C"' if "another" in kind else "") + f"); analyze {table};"
                   f"select pgtrickle.enable_inbox_tracking('{table}', '{table}')")
        one = db.one(f"select format('%s', event_id) from {table} limit 1")
        with db.connect(autocommit=False) as consumer:
            scans = "select seq_scan from pg_stat_xact_user_tables where relname = %s"
            for call, given in (("inbox_mark_failed", one), ("inbox_mark_processed", one),
                                ("replay_inbox_messages", [one])):
                consumer.execute(f"select pgtrickle.{call}(%s, %s)", (table, given))
            assert consumer.execute(scans, (table,)).fetchone() == (0,), kind
            assert consumer.execute(
                "select idx_scan from pg_stat_xact_user_tables where relname = %s",
                (table,)).fetchone()[0] >= 3


def test_an_id_that_a_child_has_as_well_is_one_message(db):
    """No index spans an inherited table: all rows of the id go the same way."""
    db.execute("create table messages (event_id text primary key, payload jsonb, error text, "
               "processed_at timestamptz, retry_count int);"
               "create table low (extra int, primary key (event_id)) inherits (messages);"
               "create table lowest () inherits (low);"
               "insert into messages values ('1', '{}', null, null, 0), ('2', '{}', null, null, 0);"
               "insert into low values ('1', '{}', null, null, 4), ('3', '{}', null, null, 4);"
               "insert into lowest values ('1');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', max_retries => 9, "
               "  retention_hours => 1)")
    assert db.one("select pgtrickle.inbox_mark_failed('m', '1', 'x')") == 5, "the highest count"
    assert db.execute("select retry_count from messages where event_id = '1' order by 1") == [
        (1,), (1,), (5,)]
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert ids(db, "m_pending") == ["2", "3"]
    assert db.one("select pgtrickle.replay_inbox_messages('m', '{1,3}')") == 4
    assert db.one("select pgtrickle.inbox_health('m')")["pending"] == 5
    # Retention looks at each row.
    db.execute("update only messages set processed_at = now() - interval '2 hours' "
               "where event_id = '1'")
    assert db.one("select pgtrickle.relay_housekeeping()")["inbox_rows"] == 1
    assert db.execute("select tableoid::regclass::text, event_id from messages order by 1, 2") == [
        ("low", "1"), ("low", "3"), ("lowest", "1"), ("messages", "2")]


SHAPES = {
    "partitions": "create table messages ({columns}, primary key (event_id)) "
                  "  partition by range (event_id);"
                  "create table low partition of messages for values from ('0') to ('5');"
                  "create table high partition of messages for values from ('5') to ('a') "
                  "  partition by hash (event_id);"
                  "create table even partition of high for values with (modulus 2, remainder 0);"
                  "create table odd partition of high for values with (modulus 2, remainder 1)",
    "children": "create table messages ({columns}, primary key (event_id));"
                "create table low (extra text default 'x', primary key (event_id)) "
                "  inherits (messages);"
                "create table high () inherits (low)",
}
SHAPE_COLUMNS = ("event_id text, payload jsonb, processed_at timestamptz, error text, "
                 "retry_count int, received_at timestamptz default now()")


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_those_of_all_parts(db, shape):
    db.execute(SHAPES[shape].format(columns=SHAPE_COLUMNS) + ";"
               "select pgtrickle.enable_inbox_tracking('m', 'messages')")
    parts = ("low", "even", "odd") if shape == "partitions" else ("messages", "low", "high")
    if shape == "partitions":
        db.execute("insert into messages select i from generate_series(10, 99) i")
    else:
        for number, part in enumerate(parts):
            db.execute(f"insert into {part} select i from generate_series({number * 30 + 10}, "
                       f"{number * 30 + 39}) i")
    assert all(db.one(f"select count(*) from only {part}") for part in parts)
    db.execute("update messages set processed_at = now() where event_id < '20';"
               "update messages set retry_count = 3 where event_id like '_0'")

    def numbers():
        return db.execute("select pending, dead_letters, total from pgtrickle.inbox_status('m')")

    assert numbers() == [(72, 8, 80)], "not counted by the server yet"
    db.execute("analyze messages" + "".join(f", {part}" for part in parts if part != "messages"))
    assert numbers() == [(72, 8, 90)]
    health = db.one("select pgtrickle.inbox_health('m')")
    assert (health["pending"], health["dead_letters"]) == (72, 8)
    assert db.execute("select total, processed, pending, dead_letters from m_stats") == [
        (90, 10, 72, 8)]


class Load:
    """Consumers of an inbox in threads of their own; what they raise is raised at the end."""

    def __init__(self, db, *works):
        self._db, self._errors, self._alive = db, [], len(works)
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()

    def _run(self, work):
        try:
            with self._db.connect() as connection:
                work(connection)
        except Exception as error:  # noqa: BLE001
            self._errors.append(error)
        finally:
            self._alive -= 1

    @property
    def running(self):
        return self._alive > 0

    def end(self):
        for thread in self._threads:
            thread.join()
        assert self._errors == []


@pytest.mark.parametrize("shape", SHAPES)
def test_retention_under_load_takes_what_was_processed_and_nothing_else(db, shape):
    """Rows are marked, replayed, inserted and moved between the parts meanwhile. The payload of a
    row says which it is, whatever becomes of its id and its place."""
    db.execute(SHAPES[shape].format(columns=SHAPE_COLUMNS) + ";"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', retention_hours => 1)")
    put = {"partitions": ["messages"] * 2, "children": ["messages", "high"]}[shape]
    for digit, part, done in (("1", put[0], "now() - interval '2 hours'"), ("8", put[1], "null")):
        db.execute(f"insert into {part} (event_id, payload, processed_at) "
                   f"select '{digit}' || i, to_jsonb('{digit}' || i), {done} "
                   "from generate_series(100, 149) i")
    pending = {f"8{i}" for i in range(100, 150)}
    marked = {f"9{i}" for i in range(100, 150)}
    replayed = set()
    old_ones = [(f"1{i}",) * 2 for i in range(120, 150)]  # id and payload; the other 20 must go
    all_arrived = threading.Event()

    def relocate(connection, identity, other, here, there):
        """To another part, under another id where that decides; the new id."""
        if shape == "partitions":
            connection.execute("update messages set event_id = %s where event_id = %s",
                               (other, identity))
            return other
        connection.execute(
            f"with gone as (delete from only {here} where event_id = %s "
            "returning event_id, payload, processed_at) "
            f"insert into {there} (event_id, payload, processed_at) table gone", (identity,))
        return identity

    def arrive_and_mark(connection):
        for i in range(100, 150):
            for digit in "059":
                connection.execute("insert into messages (event_id, payload) "
                                   "values (%s, to_jsonb(%s::text))", (f"{digit}{i}",) * 2)
            connection.execute("select pgtrickle.inbox_mark_processed('m', %s)", (f"9{i}",))
            for digit in "05":
                identity = f"{digit}{i}"
                connection.execute("update messages set processed_at = now() - interval '2 hours' "
                                   "where event_id = %s", (identity,))
                if digit == "0":
                    identity = relocate(connection, identity, f"7{i}", "messages", "high")
                old_ones.append((identity, f"{digit}{i}"))
        all_arrived.set()

    def replay(connection):
        """Of what may be deleted: what was still there stays from now on."""
        while old_ones or not all_arrived.is_set():
            if old_ones:
                identity, payload = old_ones.pop()
                if connection.execute("select pgtrickle.replay_inbox_messages('m', %s)",
                                      ([identity],)).fetchone()[0]:
                    replayed.add(payload)

    def move(connection):
        """Pending rows go from part to part, and back."""
        for turn in range(4):
            for i in range(100, 150):
                step = 1 if turn % 2 == 0 else -1
                relocate(connection, *(f"8{i}", f"2{i}")[::step], *("high", "messages")[::step])

    load = Load(db, arrive_and_mark, replay, move)
    eventually(lambda: len(replayed) > 10 or not load.running)
    deleted = 0
    while True:
        last = not load.running
        report = db.one("select pgtrickle.relay_housekeeping(7)")
        deleted += report.get("inbox_rows", 0)
        assert all("moved to another partition" in e["error"] for e in report["errors"]), report
        if last and not report["more"]:
            break
    load.end()
    found = db.execute("select payload #>> '{}', processed_at is null from messages")
    assert len(found) == len(set(found))
    assert {row[0] for row in found if row[1]} == pending | replayed
    assert {row[0] for row in found if not row[1]} == marked
    assert deleted == 50 + 100 - len(replayed)
    assert deleted >= 20 and len(replayed) > 10, "both were tried"


def test_an_inbox_with_a_foreign_table_below_it_is_refused(db):
    """Its server may change other rows than those that we name."""
    db.execute("create table messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); insert into messages values ('1');"
               "select pgtrickle.enable_inbox_tracking('m', 'messages', retention_hours => 1);"
               "create foreign data wrapper far; create server far foreign data wrapper far;"
               "create foreign table kid () inherits (messages) server far")
    problem = "kid is a foreign table, whose rows cannot be told apart"
    assert problem in refusal(db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert problem in db.one("select pgtrickle.relay_housekeeping()")["errors"][0]["error"]
    health = db.one("select pgtrickle.inbox_health('m')")
    assert (health["status"], problem in health["problem"]) == ("refused", True)
    db.execute("alter foreign table kid no inherit messages")
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True


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


# What the relay asks ----------------------------------------------------------------------------


def opened(db, name, table, **settings):
    values = {"max_retries": None, "schedule": None, "with_dead_letter": None,
              "retention_hours": None, "looks_only": False, **settings}
    with psycopg.connect(db.relay_dsn, autocommit=True) as connection:
        return connection.execute(
            "select table_schema, table_name, made from pgtrickle.relay_open_inbox(%s, %s, "
            "%(a)s, %(b)s, %(c)s, %(d)s, %(e)s)".replace("%s", "%(n)s", 1).replace("%s", "%(t)s"),
            {"n": name, "t": table, "a": values["max_retries"], "b": values["schedule"],
             "c": values["with_dead_letter"], "d": values["retention_hours"],
             "e": values["looks_only"]}).fetchone()


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
