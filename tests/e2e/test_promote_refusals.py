"""What promote_stream_table refuses, with which remedy; and that a refusal changes nothing."""

import psycopg
import pytest

from support.stream_tables import DEMO_TABLE

NEW_QUERY = "select region, sum(amount) as revenue from orders where amount > 10 group by 1"
OLD_QUERY = "select region, sum(amount) as revenue from orders group by 1"


@pytest.fixture(scope="module")
def land(pg_server):
    """One database for all cases: each is a transaction that is rolled back."""
    database = pg_server.create_database()
    for statement in DEMO_TABLE:
        database.execute(statement)
    for name, query in (("totals", OLD_QUERY), ("green", NEW_QUERY)):
        database.execute("select pgtrickle.create_stream_table(%s, %s)", (name, query))
    yield database
    database.drop()


@pytest.fixture
def session(land):
    with land.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


def everything(session):
    """What a promotion that is refused must leave as it was."""
    return [session.execute(statement).fetchall() for statement in (
        "select pgt_name, pgt_relid, defining_query, schedule, status, key_columns "
        "from pgtrickle.pgt_stream_tables order by 1",
        "select oid, relname, relfilenode from pg_class where relkind in ('r', 'v') "
        "and relnamespace in ('public'::regnamespace, 'pgtrickle_streams'::regnamespace) order by 1",
        "select attrelid, attname from pg_attribute where attrelid::regclass::text "
        "in ('totals', 'green') and attnum > 0 order by 1, 2",
        "select pgt_id, source from pgtrickle.pgt_stream_sources order by 1, 2")]


def refused(session, statement):
    """The message and the hint of the error; the test fails where anything else has changed."""
    before = everything(session)
    session.execute("savepoint before")
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement)
    session.execute("rollback to before")
    assert everything(session) == before
    return f"{error.value.diag.message_primary}\n{error.value.diag.message_hint or ''}"


PROMOTE = "select pgtrickle.promote_stream_table('totals', 'green')"

REFUSED = {
    "null": ("select pgtrickle.promote_stream_table(null, 'green')", "does not exist"),
    "null from": ("select pgtrickle.promote_stream_table('totals', null)", "does not exist"),
    "empty": ("select pgtrickle.promote_stream_table('', 'green')", "invalid stream table name"),
    "unknown": ("select pgtrickle.promote_stream_table('total', 'green')", "does not exist"),
    "unknown from": ("select pgtrickle.promote_stream_table('totals', 'gren')", "does not exist"),
    "same": ("select pgtrickle.promote_stream_table('totals', 'public.totals')", "to itself"),
    "no stream table": ("select pgtrickle.promote_stream_table('orders', 'green')", "does not exist"),
    "from no stream table": ("select pgtrickle.promote_stream_table('totals', 'orders')",
                             "does not exist"),
    "other schema": ("select pgtrickle.promote_stream_table('nowhere.totals', 'green')", "does not exist"),
    "too long": (f"select pgtrickle.promote_stream_table('{'x' * 64}', 'green')", "longer than 63"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_names_are_refused(session, case):
    statement, message = REFUSED[case]
    assert message in refused(session, statement)


BAD_COLUMNS = {
    "missing": ("select region from orders group by 1", "lacks column revenue", "NULL::numeric"),
    "type": ("select region, sum(amount)::float8 as revenue from orders group by 1",
             "column revenue has the type double precision", "revenue::numeric"),
    "typmod": ("select region::varchar(20), sum(amount) as revenue from orders group by 1",
               "column region has the type character varying(20)", "region::text"),
    "collation": ("select region collate \"C\" as region, sum(amount) as revenue from orders group by 1",
                  "column region has the type text", "collation"),
    "order": ("select sum(amount) as revenue, region from orders group by 2",
              "stand in another order", "region, revenue"),
    "new first": ("select 1 as n, region, sum(amount) as revenue from orders group by 2",
                  "stand in another order", "region, revenue"),
    "domain": ("select region, sum(amount) as revenue, 1::posint as n from orders group by 1",
               "column n cannot be added", "base type"),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_columns_that_do_not_fit_are_refused(session, case):
    session.execute("create domain posint as int check (value > 0)")
    query, message, remedy = BAD_COLUMNS[case]
    session.execute("select pgtrickle.drop_stream_table('green')")
    session.execute("select pgtrickle.create_stream_table('green', %s)", (query,))
    said = refused(session, PROMOTE)
    assert message in said and remedy in said


OBSTACLES = {
    "green's outbox": ("select pgtrickle.enable_outbox('green')", "has an outbox of its own",
                       "disable_outbox"),
    "green's publication": ("create publication p for table green", "is published by p", "drop_publication"),
    "green is read": ("select pgtrickle.create_stream_table('above', 'select count(*) from green')",
                      "is read by: public.above", "alter_stream_table"),
    "green has a view": ("create view above as select * from green", "cannot be dropped",
                         "let it read the logical one"),
    "green is suspended": ("select pgtrickle.alter_stream_table('green', suspend => true)",
                           "is suspended", "resume => true"),
    "green's guard": ("drop trigger pgtrickle_guard on green", "no trigger pgtrickle_guard", "again"),
    "green is gone": ("drop table green", "has been dropped", "drop_stream_table"),
    "blue is gone": ("drop table totals", "has been dropped", "drop_stream_table"),
    "blue has a generated column": (
        "alter table totals add g int generated always as (1) stored", "column g of public.totals is generated",
        "Drop it"),
    "blue has a key": (
        "select pgtrickle.drop_stream_table('totals'); select pgtrickle.create_stream_table('totals', "
        f"'{OLD_QUERY}', key_columns => array['region'])", "was created with key_columns (region)",
        "key_columns => '{region}'"),
    "green has a key": (
        "select pgtrickle.drop_stream_table('green'); select pgtrickle.create_stream_table('green', "
        f"'{OLD_QUERY}', key_columns => array['region'])", "with (region)", "without key_columns"),
    "green reads blue": (
        "select pgtrickle.drop_stream_table('green'); select pgtrickle.create_stream_table('green', "
        "'select region, revenue from totals')", "would read itself", "Change the query"),
    "green reads blue through another": (
        "select pgtrickle.drop_stream_table('green'); select pgtrickle.create_stream_table('mid', "
        "'select region, revenue from totals'); select pgtrickle.create_stream_table('green', "
        "'select region, revenue from mid')", "would read itself", "Change the query"),
    "blue reads green": (
        "select pgtrickle.drop_stream_table('totals'); select pgtrickle.create_stream_table('totals', "
        "'select region, revenue from green')", "is read by: public.totals", "alter_stream_table"),
    "the query fails": ("insert into orders (region, amount) values ('x', 0); "
                        "alter table totals add check (region <> 'never'); "
                        "alter table totals add check (revenue > 50) not valid; "
                        "insert into orders (region, amount) values ('small', 20)", "violates check", ""),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_stands_in_the_way_is_named_and_nothing_changes(session, case):
    prepare, message, remedy = OBSTACLES[case]
    for statement in prepare.split("; "):
        session.execute(statement)
    said = refused(session, PROMOTE)
    assert message in said and remedy in said, said
