"""Change feeds: who may make, read, clean and drop one, and that nothing else writes to it."""

import psycopg
import pytest

from support.feeds import make_feed, wait_rows
from support.groups import session
from support.postgres import refusal


@pytest.fixture
def land(db):
    """A table of `keeper`, who administers; `chief` administers and owns nothing; `reader` does neither."""
    db.login("keeper", "pgtrickle_admin")
    db.login("chief", "pgtrickle_admin")
    db.login("reader")
    db.execute("create schema keeper authorization keeper")
    db.execute("grant usage on schema keeper to chief")
    with session(db, "keeper") as connection:
        connection.execute("create table keeper.t (id int primary key, secret text)")
    return db


def create(db, role="keeper", notices=None):
    with session(db, role) as connection:
        if notices is not None:
            connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        return connection.execute("select pgtrickle.create_change_feed('keeper.t')").fetchone()[0]


def test_the_owner_of_the_table_reads_the_feed_and_lets_others_read_it(land, relay):
    feed = create(land)
    view = land.one("select output_view from pgtrickle.change_feeds")
    with relay:
        land.execute("insert into keeper.t values (1, 'x')")
        wait_rows(land, feed, 1)
    for role in ("keeper", "chief"):
        with session(land, role) as connection:
            for name in (feed, view):
                assert connection.execute(f"select count(*) from {name}").fetchone() == (1,)
    with session(land, "reader") as connection:
        assert "permission denied" in refusal(connection, f"select * from {feed}")
        assert "permission denied" in refusal(connection, f"select * from {view}")
        with session(land, "keeper") as keeper:
            keeper.execute(f"grant select on {feed} to reader")
        assert connection.execute(f"select count(*) from {feed}").fetchone() == (1,)
        for call in ("create_change_feed('keeper.t')", "drop_change_feed('keeper.t')",
                     "cleanup_change_feed('keeper.t', interval '0')"):
            assert "permission denied" in refusal(connection, f"select pgtrickle.{call}")


@pytest.mark.parametrize("call, message", [
    ("drop_change_feed('keeper.t')", "must be owner of the table of change feed feed_t"),
    ("cleanup_change_feed('keeper.t', interval '0')", "must be owner of the table of change feed feed_t"),
    ("create_change_feed('keeper.t')", "must be owner of table keeper.t")])
def test_an_administrator_who_does_not_own_the_table_changes_no_feed(land, call, message):
    feed = create(land)
    with session(land, "chief") as connection:
        assert message in refusal(connection, f"select pgtrickle.{call}")
    assert land.execute("select feed from pgtrickle.change_feeds") == [(feed,)]


@pytest.mark.parametrize("call", [
    "feed_drop(1, null)", "feed_drop(1, '\\x00')", "feed_clean(1, null, interval '0')",
    "feed_create(1, null, interval '1 day', false)"])
def test_what_functions_call_asks_for_a_pass(land, call):
    create(land)
    with session(land, "chief") as connection:
        assert "this is not the pass" in refusal(connection, f"select pgtrickle_internal.{call}")


@pytest.mark.parametrize("call", [
    "feed_remove(f) from pgtrickle_internal.change_feeds f",
    "feed_delete(f, interval '0', null) from pgtrickle_internal.change_feeds f",
    "feed_was_set('feed:keeper.t', 0)", "purge_feeds('{}', 1)", "remove_relay('feed:keeper.t')"])
def test_what_runs_without_a_check_is_called_by_no_role(land, call):
    create(land)
    for role in ("chief", "relay_daemon"):
        with session(land, role) as connection:
            assert "permission denied" in refusal(connection, f"select pgtrickle_internal.{call}")


WRITE = ("select outbox_id from pgtrickle.relay_write_feed('feed_t', 'feeds', 'feed:keeper.t', %s, %s, "
         "null, null, '{9}', '{1}', '{I}', '{null}', '{\"{}\"}', '{null}')")


def test_the_relay_writes_by_the_function_only_and_as_the_owner_of_the_position_only(land):
    feed = create(land)
    incarnation = land.one("select incarnation from pgtrickle.relay_consumer_offsets")
    stale, token = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))
    with session(land, "relay_daemon") as connection:
        assert "permission denied" in refusal(connection, f"insert into {feed} (change_id, action) "
                                                          "values (1, 'I')")
        assert connection.execute(WRITE, (incarnation, stale)).fetchone() == (None,)
        land.execute("update pgtrickle.relay_consumer_offsets set owner_token = %s", (token,))
        assert connection.execute(WRITE, (incarnation, stale)).fetchone() == (None,)
        assert connection.execute(WRITE, (incarnation, token)).fetchone() == (9,)
    assert land.one(f"select count(*) from {feed}") == 1
    for role in ("chief", "keeper"):
        with session(land, role) as connection:
            for statement in (f"insert into {feed} (change_id, action) values (7, 'I')",
                              f"delete from {feed}", f"truncate {feed}",
                              f"update {feed} set action = 'D'",
                              f"create trigger x before insert on {feed} for each row execute function "
                              "suppress_redundant_updates_trigger()"):
                assert "permission denied" in refusal(connection, statement)


def test_a_table_that_another_role_put_in_the_place_of_a_feed_is_not_written_to(land):
    """The owner of the schema, where that is an extension, could do it."""
    feed = create(land)
    incarnation = land.one("select incarnation from pgtrickle.relay_consumer_offsets")
    token = "00000000-0000-0000-0000-000000000001"
    land.execute("update pgtrickle.relay_consumer_offsets set owner_token = %s", (token,))
    land.execute(f"drop table {feed} cascade; create table {feed} (like keeper.t); "
                 f"alter table {feed} owner to keeper")
    with session(land, "relay_daemon") as connection:
        assert "is gone" in refusal(connection, WRITE, (incarnation, token))
    assert land.one("select pgtrickle.relay_housekeeping()")["errors"] == []
    with session(land, "keeper") as connection:
        connection.execute("select pgtrickle.drop_change_feed('keeper.t')")
    assert land.one(f"select to_regclass('{feed}') is not null")


@pytest.mark.parametrize("forced", [False, True])
def test_row_security_of_the_table(land, forced):
    land.execute("alter table keeper.t enable row level security")
    if forced:
        land.execute("alter table keeper.t force row level security")
    notices = []
    feed = create(land, notices=notices)
    assert any("row security" in notice for notice in notices), notices
    with session(land, "keeper") as connection:
        if forced:
            assert land.one("select has_table_privilege('keeper', %s, 'select')", (feed,))
            assert land.one("select not exists (select from pg_class c, aclexplode(c.relacl) a "
                            "where c.oid = %s::regclass and a.grantee = 'keeper'::regrole)", (feed,))
        else:
            connection.execute(f"grant select on {feed} to reader")


def test_a_hostile_value_is_only_stored(land, relay):
    feed = create(land)
    text = "'); drop table keeper.t; -- \\ \" {} \n \u2028 $1 %s"
    with relay:
        land.execute("insert into keeper.t values (1, %s)", (text,))
        assert wait_rows(land, feed, 1)[0][2] == {"id": 1, "secret": text}


def test_nothing_of_a_feed_makes_a_statement_of_the_application_fail(land):
    """A feed adds nothing to the application's transaction but the outbox, whatever becomes of it."""
    feed = create(land)
    land.execute("create role app_of_feeds") if not land.one(
        "select 1 from pg_roles where rolname = 'app_of_feeds'") else None
    land.execute("grant usage on schema keeper to app_of_feeds; grant insert on keeper.t to app_of_feeds")
    with land.connect(autocommit=False) as busy:
        busy.execute(f"lock table {feed} in access exclusive mode")
        with land.connect() as connection:
            connection.execute("set role app_of_feeds; set statement_timeout = '20s'")
            connection.execute("insert into keeper.t values (1, 'x')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select * from pgtrickle.outbox_t")
