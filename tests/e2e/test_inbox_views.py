"""The views of inboxes: what pipelines, tracking and upgrades leave as it is."""

import psycopg
import psycopg.sql
import pytest

from support.database_side import install_from_files
from support.inbox_sql import arrive, ids, inbox, opened
from support.postgres import refusal


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
