"""Owners of inbox tables: tables that change hands, members of the owner, retention, upgrades."""

import pytest

from support.adopted_inboxes import (adopt, arrive, gate_function, housekeeping, mallory, shared,
                                     shared_db)
from support.database_side import install_from_files
from support.postgres import refusal


# Owners -----------------------------------------------------------------------------------------


def test_a_table_that_changed_hands_is_refused_until_its_owner_agrees(db, mallory):
    adopt(db)
    arrive(db, "1", processed="100 hours")
    db.login("heir")
    db.execute("alter table mallory.messages owner to heir")
    said = refusal(db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert "belongs to heir now, and to mallory when it became the inbox" in said
    assert "belongs to heir" in housekeeping(db)["errors"][0]["error"]
    health = db.one("select pgtrickle.inbox_health('m')")
    assert health["status"] == "refused"
    remedy = health["remedy"].split("run: ")[1]
    with db.connect() as connection:
        said = []
        connection.add_notice_handler(lambda notice: said.append(
            (notice.severity, notice.message_primary, notice.message_hint)))
        rows = connection.execute("select * from pgtrickle.inbox_status()").fetchall()
    assert [r[:4] for r in rows] == [("m", "mallory.messages", None, None)]
    assert said == [("WARNING", health["problem"], health["remedy"])]
    db.execute("grant usage on schema mallory to heir")
    db.execute(remedy)
    assert db.one("select pgtrickle.inbox_health('m')")["status"] == "healthy"
    assert housekeeping(db)["inbox_rows"] == 1


def test_a_member_of_the_owner_makes_its_table_an_inbox(db):
    db.login("clerk", "pgtrickle_admin")
    db.login("shop_group")
    db.execute("grant shop_group to clerk; create schema shop authorization shop_group;"
               "create table shop.messages (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); alter table shop.messages owner to shop_group")
    with db.connect(user="clerk") as clerk:
        clerk.execute("select pgtrickle.enable_inbox_tracking('m', 'shop.messages')")
        clerk.execute("insert into shop.messages values ('1')")
        assert clerk.execute("select pgtrickle.inbox_mark_processed('m', '1')").fetchone()[0]
        assert db.one("select relowner::regrole::text from pg_class "
                      "where relname = 'm_pending'") == "shop_group"
        clerk.execute("select pgtrickle.drop_inbox('m')")
    assert not db.one("select has_schema_privilege('shop_group', 'pgtrickle_streams', 'create')")
    assert db.one("select count(*) from pg_proc where pronamespace = "
                  "'pgtrickle_streams'::regnamespace") == 0
    db.execute("drop schema shop cascade; revoke shop_group from clerk")


def test_our_owner_needs_no_right_on_an_adopted_table(shared):
    db, mallory = shared
    adopt(db)
    assert db.one("select relacl::text from pg_class where oid = 'mallory.messages'::regclass"
                  ).count("pgtrickle_owner") == 0
    assert not db.one("select has_schema_privilege('pgtrickle_owner', 'mallory', 'create')")


def test_an_advisory_lock_of_others_keeps_no_inbox_from_being_made(db, mallory):
    mallory.execute("select pg_advisory_lock(hashtextextended('pgtrickle inbox shop', 0))")
    db.execute("set lock_timeout = '2s'")
    db.execute("select pgtrickle.create_inbox('shop')")
    with db.connect(user="relay_daemon") as daemon:
        daemon.execute("set lock_timeout = '2s'")
        mallory.execute("select pg_advisory_lock(hashtextextended('pgtrickle inbox post', 0))")
        daemon.execute("select pgtrickle.relay_open_inbox('post', null, null, null, null, null)")


# Retention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["partitions", "children"])
def test_retention_never_mistakes_a_row_of_one_part_for_that_of_another(db, kind):
    columns = "event_id int, payload jsonb, processed_at timestamptz"
    if kind == "partitions":
        db.execute(f"create table messages ({columns}, primary key (event_id)) "
                   "partition by range (event_id);"
                   "create table low partition of messages for values from (0) to (50);"
                   "create table high partition of messages for values from (50) to (100)")
    else:
        db.execute(f"create table messages ({columns}, primary key (event_id));"
                   "create table high () inherits (messages)")
    adopt(db, retention=1, table="messages")
    first, second = ("low", "high") if kind == "partitions" else ("messages", "high")
    db.execute(f"insert into {first} select i, '{{}}', now() - interval '2 hours' "
               "from generate_series(0, 49) i")
    db.execute(f"insert into {second} select i, '{{}}', null from generate_series(50, 99) i")
    db.execute("select pgtrickle.relay_housekeeping(20)")
    assert db.execute("select count(processed_at), count(*) from messages") == [(30, 80)]
    for _ in range(3):
        db.execute("select pgtrickle.relay_housekeeping(20)")
    assert db.execute("select count(processed_at), count(*) from messages") == [(0, 50)]


# Earlier versions -------------------------------------------------------------------------------


def as_before(db):
    """The inbox `m` as an earlier version left it."""
    adopt(db)
    db.execute(f"drop function {gate_function(db)}(text, jsonb);"
               "update pgtrickle.pgt_inbox_config set relation = null, gate_function = null;"
               "grant select, update, delete on mallory.messages to pgtrickle_owner;"
               "delete from pgtrickle_internal.inbox_tables")


def test_an_upgrade_makes_what_an_adopted_inbox_needs(db, mallory):
    as_before(db)
    db.execute("select pgtrickle.create_inbox('shop');"
               "delete from pgtrickle_internal.inbox_tables;"
               "update pgtrickle.pgt_inbox_config set relation = null")
    arrive(db, "1")
    install_from_files(db.dsn)
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert db.one("select relacl::text from pg_class where oid = 'mallory.messages'::regclass"
                  ).count("pgtrickle_owner") == 0
    assert db.one("select pgtrickle.inbox_health('shop')")["status"] == "healthy"
    db.execute("select pgtrickle.drop_inbox('shop'); select pgtrickle.drop_inbox('m')")


def test_an_upgrade_takes_over_a_table_in_our_schema(db):
    db.execute("create table pgtrickle.inbox_old (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); insert into pgtrickle.inbox_old values ('1');"
               "select pgtrickle.create_inbox('old')")
    assert gate_function(db, "old") is not None
    install_from_files(db.dsn)
    assert db.one("select relowner::regrole::text from pg_class "
                  "where relname = 'inbox_old'") == "pgtrickle_owner"
    assert db.one("select pgtrickle.inbox_mark_processed('old', '1')") is True
    assert db.one("select count(*) from pg_proc where pronamespace = "
                  "'pgtrickle_streams'::regnamespace") == 0


def test_an_upgrade_takes_no_forged_row_for_the_owners_word(db, mallory):
    as_before(db)
    db.execute("revoke all on mallory.messages from pgtrickle_owner")
    install_from_files(db.dsn)
    assert db.one("select gate_function from pgtrickle.pgt_inbox_config") is None
    assert "enable_inbox_tracking" in db.one("select pgtrickle.inbox_health('m')")["remedy"]


def test_an_upgrade_by_a_role_that_is_no_member_of_the_owner_says_what_is_missing(db, mallory):
    as_before(db)
    arrive(db, "1")
    dsn = db.login("installer")
    roles = db.one("select string_agg(quote_ident(rolname), ', ') from pg_roles "
                   "where rolname like 'pgtrickle\\_%'")
    db.execute(f"alter role installer createrole; grant create on database {db.name} to installer;"
               f"grant {roles} to installer with admin option")
    try:
        install_from_files(dsn)
    finally:
        db.execute(f"alter role installer nocreaterole; revoke {roles} from installer cascade")
    health = db.one("select pgtrickle.inbox_health('m')")
    assert health["status"] == "refused"
    assert "the function that works on mallory.messages as its owner is missing" \
        in health["problem"]
    db.execute(health["remedy"].split("run: ")[1])
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
