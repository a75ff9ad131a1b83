"""Consumer groups: who may read what, and that a caller's rights are those of the caller."""

import psycopg
import pytest

from support.groups import commit, make_group, payloads, poll, publish, session
from support.standby import pair  # noqa: F401
from support.waiting import eventually


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    make_group(db, "theirs", owner="other_worker")
    publish(db, 2)
    return db


CALLS = ["select * from pgtrickle.poll_outbox({0}, 'a')", "select pgtrickle.commit_offset({0}, 'a', 1)",
         "select pgtrickle.seek_offset({0}, 'a', 0)", "select pgtrickle.extend_lease({0}, 'a')",
         "select pgtrickle.consumer_heartbeat({0}, 'a')", "select pgtrickle.consumer_lag({0})",
         "select * from pgtrickle.consumer_rows({0}, 1)",
         "select pgtrickle.reject_offset({0}, 'a', 1, '')", "select pgtrickle.drop_consumer_group({0})",
         "begin isolation level repeatable read; select pgtrickle.consumer_snapshot({0}); commit"]


@pytest.mark.parametrize("call", CALLS)
def test_a_group_is_used_by_its_owner_and_by_no_other_consumer(shop, call):
    with session(shop, "other_worker") as owner:
        rows = poll(owner, group="theirs")
        with session(shop) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege,
                               match="belongs to role other_worker") as refused:
                connection.execute(call.format("'theirs'"))
        assert "GRANT other_worker TO worker" in refused.value.diag.message_hint
        commit(owner, rows[-1]["outbox_id"], group="theirs")


@pytest.mark.parametrize("call", CALLS + ["select pgtrickle.create_consumer_group('x', {0})",
                                          "select * from pgtrickle.consumers where name = {0}"])
def test_a_role_that_is_no_consumer_uses_none(shop, call):
    shop.login("groups_stranger", "pgtrickle_publisher")
    with session(shop, "groups_stranger") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(call.format("'g'"))


def test_a_member_of_the_owner_and_an_administrator_use_a_group(shop):
    shop.login("colleague", "pgtrickle_consumer", "worker")
    shop.login("chief", "pgtrickle_admin")
    for role in ("colleague", "chief"):
        with session(shop, role) as connection:
            assert payloads(poll(connection, role)) == [1, 2]
            connection.execute("select pgtrickle.seek_offset('g', 'a', 0)")
    shop.execute("revoke worker from colleague")
    with session(shop, "colleague") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            poll(connection)


def test_each_role_sees_its_own_consumers(shop):
    seen = "select name from pgtrickle.consumers order by 1"
    for role, names in (("worker", ["g"]), ("other_worker", ["theirs"]),
                        ("relay_daemon", ["g", "theirs"])):
        with session(shop, role) as connection:
            assert [name for name, in connection.execute(seen)] == names


def test_a_consumer_reads_no_outbox_that_it_was_not_given(shop):
    """A role that may read an outbox makes the group, also for others: that is the grant."""
    create = "select pgtrickle.create_consumer_group('mine', 'shop', 'earliest')"
    with session(shop) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not read") as refused:
            connection.execute(create)
        assert "owner => 'worker'" in refused.value.diag.message_hint
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from pgtrickle.outbox_shop")
        shop.execute("grant select on pgtrickle.outbox_shop to worker")
        connection.execute(create)
        assert payloads(poll(connection, group="mine")) == [1, 2]


INTERNAL = """
    select p.oid::regprocedure::text, p.proname,
           array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u (t, o)
                 order by o)
    from pg_proc p
    where p.pronamespace = 'pgtrickle_internal'::regnamespace
      and has_function_privilege('worker', p.oid, 'execute') order by 1"""


def test_what_consumers_may_call_inside_asks_for_a_pass(shop):
    """A number of another's group, and no pass, a wrong one or one of another session: refused."""
    number = shop.one("select group_number from pgtrickle_internal.consumer_groups "
                      "where name = 'theirs'")
    harmless = {"my_group", "group_owner", "require_writable", "require_consumer", "group_outbox",
                "require_one_snapshot"}
    functions = shop.execute(INTERNAL)
    assert {name for _, name, _ in functions} > harmless
    with session(shop, "other_worker") as owner, session(shop) as connection:
        stolen = owner.execute("select pass from pgtrickle_internal.group_access").fetchone()[0]
        own = connection.execute("select pass from pgtrickle_internal.group_access").fetchone()[0]
        before = shop.execute("select * from pgtrickle_internal.consumer_slots order by 1, 2")
        values = {"integer": number, "bigint": 1, "text": "a", "oid": 10}
        for signature, name, types in functions:
            if name in harmless:
                continue
            assert "bytea" in types, signature
            for forged in (None, b"", stolen, own):
                arguments = [forged if type == "bytea" else values[type] for type in types]
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not the pass"):
                    connection.execute(
                        f"select pgtrickle_internal.{name}"
                        f"({', '.join(f'%s::{type}' for type in types)})", arguments)
        assert shop.execute("select * from pgtrickle_internal.consumer_slots order by 1, 2") == before


def test_a_pass_is_worth_nothing_in_the_next_transaction(shop):
    with session(shop) as connection:
        number, own = connection.execute(
            "select group_number, pass from pgtrickle_internal.group_access").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not the pass"):
            connection.execute("select pgtrickle_internal.group_fetch(%s, %s, 'a', 1, 1)",
                               (number, own))


def test_code_of_another_role_does_not_use_the_groups_of_its_caller(shop):
    """A definer function of interloper's acts as interloper, also in the session of a superuser."""
    shop.login("interloper", "pgtrickle_consumer")
    shop.execute("create schema interloper authorization interloper")
    with session(shop, "interloper") as interloper:
        interloper.execute("""
            create function interloper.steal() returns setof bigint language sql security definer
            as $$ select outbox_id from pgtrickle.poll_outbox('g', 'a') $$;
            create view interloper.stolen as select * from pgtrickle_internal.group_access;
            grant usage on schema interloper to public;""")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to role worker"):
        shop.execute("select interloper.steal()")
    with session(shop) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to role worker"):
            connection.execute("select interloper.steal()")


def test_a_condition_of_the_reader_sees_no_hidden_row(shop):
    with session(shop) as connection:
        connection.execute("""
            create function pg_temp.tell(name text) returns boolean language plpgsql cost 0.0001
            as $$ begin raise notice 'saw %', name; return true; end $$""")
        told = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        connection.execute("select 1 from pgtrickle_internal.group_access a where pg_temp.tell(a.name)")
        connection.execute("select 1 from pgtrickle.consumers c where pg_temp.tell(c.name)")
        assert set(told) == {"saw g"}


def test_functions_that_shadow_those_of_postgresql_are_not_called(shop):
    with session(shop) as connection:
        connection.execute("""
            create function pg_temp.clock_timestamp() returns timestamptz language plpgsql
            as $$ begin raise exception 'shadowed'; end $$;
            create function pg_temp.sha256(bytea) returns bytea language sql as $$ select $1 $$;
            set search_path = pg_temp, pg_catalog, public""")
        rows = poll(connection)
        commit(connection, rows[-1]["outbox_id"])


def test_a_table_with_row_security_is_not_shown_to_whom_it_hides_rows_from(db):
    db.login("keeper", "pgtrickle_admin")
    db.login("worker", "pgtrickle_consumer")
    db.execute("grant create on schema public to keeper")
    with session(db, "keeper") as keeper:
        keeper.execute("create table secrets (id int primary key)")
        keeper.execute("select pgtrickle.enable_outbox('secrets')")
        create = "select pgtrickle.create_consumer_group(%s, 'secrets', 'earliest', owner => %s)"
        keeper.execute(create, ("early", "worker"))
        keeper.execute("insert into secrets values (1)")
        keeper.execute("alter table secrets enable row level security")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security") as refused:
            keeper.execute(create, ("late", "worker"))
        assert "BYPASSRLS" in refused.value.diag.message_hint
        keeper.execute(create, ("own", "keeper"))
        assert len(poll(keeper, group="own")) == 1
    with session(db) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security"):
            poll(connection, group="early")
    db.execute("alter role worker bypassrls")
    try:
        with session(db) as connection:
            assert len(poll(connection, group="early")) == 1
    finally:
        db.execute("alter role worker nobypassrls")


def test_the_owner_of_a_group_must_be_a_role(shop):
    with pytest.raises(psycopg.errors.UndefinedObject, match='role "nobody" does not exist'):
        shop.execute("select pgtrickle.create_consumer_group('x', 'shop', owner => 'nobody')")
    with pytest.raises(psycopg.errors.UndefinedObject, match="does not exist"):
        shop.execute("select pgtrickle.create_consumer_group('x', 'shop', owner => null)")


def test_a_group_on_a_standby_is_refused_and_can_be_looked_at(pair):  # noqa: F811
    primary, standby = pair
    db = primary.create_database()
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    publish(db, 1)

    def lag_there():
        try:
            with psycopg.connect(standby.dsn(db.name)) as connection:
                return connection.execute("select lag from pgtrickle.consumer_lag('g')").fetchone()
        except psycopg.Error:
            return None  # what makes the database has not arrived
    eventually(lambda: lag_there() == (1,), 30)
    with psycopg.connect(standby.dsn(db.name), autocommit=True) as connection:
        for call in CALLS:
            if "consumer_lag" not in call and "consumer_rows" not in call:
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="standby") as refused:
                    connection.execute(call.format("'g'"))
                assert "primary" in refused.value.diag.message_hint
    db.drop()
