"""create_publication and drop_publication: what is published, and what is refused because it would make
statements of the table fail."""

import pytest

from support.postgres import refusal, server_version
from support.stream_tables import create, orders, refresh, settled  # noqa: F401

lists = pytest.mark.skipif(server_version() < 15, reason="PostgreSQL 14 has no column lists and filters")


@pytest.fixture(scope="module")
def land(pg_server):
    """One database for all: each test is a transaction that is rolled back."""
    database = pg_server.create_database()
    database.execute("""
        create table keyed (id int primary key, region text, amount numeric);
        create table bare (id int, n int);
        create table whole (id int, n int); alter table whole replica identity full;
        create table indexed (id int not null, part int not null, n int, unique (part, id));
        alter table indexed replica identity using index indexed_part_id_key;
        create table late (id int primary key deferrable);
        create table nothing (id int primary key); alter table nothing replica identity nothing;
        create table "Qu""oted Ä" (id int primary key);
        create schema app; create table app."to.tals" (id int primary key);
        create view shown as select * from keyed;
        create unlogged table quick (id int primary key);
        create table parted (id int primary key, n int) partition by range (id);
        create table part_1 partition of parted for values from (0) to (100);
        create table loose (id int, n int) partition by range (id);
        create table loose_1 partition of loose for values from (0) to (100);
        alter table loose_1 replica identity full;
        create table parent (id int primary key); create table child () inherits (parent);
        create table made (id int primary key, twice int generated always as (id * 2) stored);
        create type mood as enum ('glad');
        create table moody (m mood primary key);
        create function mine(int) returns boolean immutable language sql as 'select true';
        select pgtrickle.enable_outbox('keyed');
        select pgtrickle.create_stream_table('totals',
          'select region, sum(amount) as revenue from keyed group by 1');
        select pgtrickle.create_stream_table('by_key', 'select id, region from keyed',
          key_columns => array['id'])""")
    yield database
    database.drop()


@pytest.fixture
def session(land):
    with land.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


def made(session, *arguments):
    placeholders = ", ".join(["%s"] * len(arguments))
    return session.execute(f"select pgtrickle.create_publication({placeholders})", arguments).fetchone()[0]


@pytest.mark.parametrize("table, name", [
    ("keyed", "pgtrickle_keyed"), ("public.totals", "pgtrickle_totals"), ("whole", "pgtrickle_whole"),
    ("indexed", "pgtrickle_indexed"), ('Qu"oted Ä', 'pgtrickle_Qu"oted Ä'),
    ('app."to.tals"', "pgtrickle_to.tals"), ("app.to.tals", "pgtrickle_to.tals"), ("parted", "pgtrickle_parted")])
def test_a_table_is_published_under_its_name(session, table, name):
    assert made(session, table) == name
    assert session.execute("select puballtables, pubinsert, pubupdate, pubdelete, pubtruncate "
                           "from pg_publication where pubname = %s", (name,)).fetchall() \
        == [(False, True, True, True, True)]
    assert session.execute("select count(*) from pg_publication_tables where pubname = %s",
                           (name,)).fetchone() == (1,)
    session.execute("select pgtrickle.drop_publication(%s)", (table,))
    assert session.execute("select from pg_publication").rowcount == 0


def test_outboxes_publish_what_is_inserted_and_not_what_retention_deletes(session):
    name = made(session, "pgtrickle.outbox_keyed")
    assert session.execute("select pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication "
                           "where pubname = %s", (name,)).fetchone() == (True, False, False, False)


def test_a_partitioned_table_is_published_as_one(session):
    made(session, "parted")
    assert session.execute("select tablename from pg_publication_tables").fetchall() == [("parted",)]


def test_long_and_taken_names(session):
    long = "n" * 63
    session.execute(f"create table {long} (id int primary key); create table app.keyed (id int primary key); "
                    "create publication pgtrickle_whole for table keyed")
    assert made(session, long) == ("pgtrickle_" + long)[:63]
    assert made(session, "keyed") == "pgtrickle_keyed"
    assert made(session, "app.keyed").startswith("pgtrickle_keyed_")
    assert made(session, "whole").startswith("pgtrickle_whole_")
    assert "has a publication: pgtrickle_keyed" in refusal(session, "select pgtrickle.create_publication('keyed')")


def test_it_goes_with_the_stream_table(session):
    made(session, "totals")
    session.execute("select pgtrickle.drop_stream_table('totals')")
    assert session.execute("select from pg_publication").rowcount == 0


def test_one_that_lost_its_table_is_replaced_or_dropped(session):
    made(session, "whole")
    session.execute("drop table whole; create table whole (id int primary key)")
    assert made(session, "whole") == "pgtrickle_whole"
    session.execute("drop table whole")
    session.execute("select pgtrickle.drop_publication('whole')")
    assert session.execute("select from pg_publication").rowcount == 0


@lists
def test_columns_and_filters_within_the_identity_are_taken(session):
    made(session, "keyed", ["id", "region"], "id > 10 -- not the first")
    made(session, "whole", None, "n > 1 and id is not null")
    made(session, "indexed", ["id", "part", "n"], "part = 1")
    made(session, "parted", ["id"], "id % 2 = 0")
    made(session, "by_key", ["id"])
    made(session, "totals", None, "revenue > 0")
    session.execute("""
        insert into keyed values (1, 'a', 1), (20, 'a', 1); update keyed set region = 'b'; delete from keyed;
        insert into whole values (1, 1); update whole set n = 2; delete from whole;
        insert into indexed values (1, 1, 1); update indexed set n = 2; delete from indexed;
        insert into parted values (1, 1); update parted set n = 2; delete from parted""")


REFUSED = {
    "null": ("null", 'no table "(null)"', "schema"),
    "unknown": ("'nowhere'", 'no table "nowhere"', "schema"),
    "no name": ("''", 'no table ""', "schema"),
    "view": ("'shown'", "shown is not a table", "that it reads"),
    "unlogged": ("'quick'", "quick is unlogged", "permanent"),
    "temporary": ("'brief'", "brief is temporary", "permanent"),
    "inheritance": ("'parent'", "inheritance tree", "Partitioned"),
    "system table": ("'pg_class'", "is a table of the system", ""),
    "no identity": ("'bare'", "bare has no replica identity", "ADD PRIMARY KEY"),
    "deferrable key": ("'late'", "late has no replica identity", "REPLICA IDENTITY FULL"),
    "identity nothing": ("'nothing'", "nothing has no replica identity", "REPLICA IDENTITY FULL"),
    "partitions without": ("'loose'", "loose has no replica identity", "ADD PRIMARY KEY"),
}
LISTS_REFUSED = {
    "no columns": ("'keyed', '{}'", "names no column", "all columns"),
    "null column": ("'keyed', '{id,null}'", "or null", "all columns"),
    "unknown column": ("'keyed', '{id,other}'", "has no column other", ""),
    "column twice": ("'keyed', '{id,id}'", "duplicate", ""),
    "without key": ("'keyed', '{region}'", "columns lack id", "Add them"),
    "without part of key": ("'indexed', '{id,n}'", "columns lack part", "Add them"),
    "list and full": ("'whole', '{id}'", "REPLICA IDENTITY FULL, which does not go", "DEFAULT"),
    "list of a stream table": ("'totals', '{region}'", "does not go with a list", "key_columns"),
    "filter beyond key": ("'keyed', null, 'amount > 3'", '"where" uses amount', "Filter by id only"),
    "filter beyond part": ("'parted', null, 'n > 3'", '"where" uses n', "Filter by id only"),
    "filter beyond key of a stream table": ("'by_key', null, 'region = ''a'''", '"where" uses region',
                                            "Filter by id only"),
    "empty filter": ("'keyed', null, '  '", '"where" is empty', "all rows"),
    "bad filter": ("'keyed', null, 'id >'", "syntax error", ""),
    "unknown in filter": ("'keyed', null, 'nope > 1'", 'column "nope" does not exist', ""),
    "no boolean": ("'keyed', null, 'id'", "must be type boolean", ""),
    "function of a user": ("'keyed', null, 'public.mine(id)'", "invalid publication WHERE", ""),
    "volatile function": ("'keyed', null, 'id > random()'", "invalid publication WHERE", ""),
    "type of a user": ("'moody', null, 'm = ''glad''::public.mood'", "invalid publication WHERE", ""),
    "subquery": ("'keyed', null, 'id in (select 1)'", "WHERE", ""),
    "another statement": ("'keyed', null, 'id > 1); drop table bare; select (1'", "syntax error", ""),
    "another option": ("'keyed', null, 'id > 1) with (publish = ''insert'''", "syntax error", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_published_is_refused(session, case):
    arguments, message, remedy = REFUSED[case]
    session.execute("create temp table brief (id int primary key)")
    said = refusal(session, f"select pgtrickle.create_publication({arguments})")
    assert message in said and remedy in said, said


@lists
@pytest.mark.parametrize("case", LISTS_REFUSED)
def test_lists_and_filters_that_would_make_statements_fail_are_refused(session, case):
    arguments, message, remedy = LISTS_REFUSED[case]
    said = refusal(session, f"select pgtrickle.create_publication({arguments})")
    assert message in said and remedy in said, said


if server_version() < 15:
    def test_lists_and_filters_are_refused_before_15(session):
        assert "has no columns and filters" in refusal(
            session, "select pgtrickle.create_publication('keyed', '{id}')")


def test_dropping_what_is_not_there(session):
    session.execute("create publication pgtrickle_whole for table whole")
    session.execute("select pgtrickle.drop_publication('whole', true)")
    for name in "whole", "nowhere":
        session.execute("savepoint s")
        assert "has no publication of pgtrickle" in refusal(
            session, f"select pgtrickle.drop_publication('{name}')")
        session.execute("rollback to s")
    assert session.execute("select pubname from pg_publication").fetchall() == [("pgtrickle_whole",)]


def test_each_missing_right_is_named(land):
    land.login("pub_owner", "pgtrickle_admin")
    land.login("pub_other", "pgtrickle_admin")
    land.execute("create table owned (id int primary key); alter table owned owner to pub_owner")
    with land.connect(user="pub_owner") as owner, land.connect(user="pub_other") as other:
        assert "must be owner of table owned" in refusal(
            other, "select pgtrickle.create_publication('owned')").replace("public.", "")
        said = refusal(owner, "select pgtrickle.create_publication('owned')")
        assert f"GRANT CREATE ON DATABASE {land.name} TO pub_owner" in said
        said = refusal(owner, "select pgtrickle.create_publication('pgtrickle.outbox_keyed')")
        assert "must be owner" in said and "a superuser can" in said
        land.execute(f"grant create on database {land.name} to pub_owner")
        owner.execute("select pgtrickle.create_publication('owned')")
        assert "must be owner of publication" in refusal(other, "select pgtrickle.drop_publication('owned')")
        owner.execute("select pgtrickle.drop_publication('owned')")
    land.execute(f"revoke create on database {land.name} from pub_owner; drop table owned")


@lists
def test_a_filter_by_hand_that_suspends_a_stream_table_is_named(orders):  # noqa: F811
    create(orders, "totals", "select region, sum(amount) as revenue from orders group by 1", key=["region"])
    orders.execute("create publication rich for table totals where (revenue > 100)")
    orders.execute("update orders set amount = amount + 1")
    said = refresh(orders, "totals")["error"]
    assert "cannot update table" in said and "published by rich" in said and "replica identity" in said
    orders.execute("drop publication rich")
    settled(orders)


def test_a_server_without_logical_wal_is_warned_of(own_pg_server):
    own_pg_server.stop()
    with open(f"{own_pg_server.data}/postgresql.conf", "a") as configuration:
        configuration.write("wal_level = replica\n")
    own_pg_server.start()
    db = own_pg_server.create_database()
    db.execute("create table t (id int primary key)")
    with db.connect() as session:
        notices = []
        session.add_notice_handler(lambda diag: notices.append((diag.message_primary, diag.message_hint)))
        session.execute("select pgtrickle.create_publication('t')")
    ((said, remedy),) = notices
    assert "wal_level is replica" in said and "ALTER SYSTEM SET wal_level = logical" in remedy
