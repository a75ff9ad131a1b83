"""my_change and wait_for_consumer: a session waits until a consumer has what it wrote."""

import threading

import psycopg
import pytest

from support.groups import commit, drain, make_group, poll, publish, session
from support.pipelines import insert_rows, make_table, set_outbox, to_file
from support.relay import Relay
from support.standby import pair  # noqa: F401
from support.waiting import eventually


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    db.login("teller", "pgtrickle_publisher")
    return db


@pytest.fixture
def teller(shop):
    with shop.connect(user="teller") as connection:
        yield connection


def one(connection, statement, *arguments):
    return connection.execute(statement, arguments).fetchone()[0]


def passed(connection, id, name="g", timeout="0"):
    return one(connection, "select pgtrickle.wait_for_consumer(%s, %s, %s::interval)", name, id, timeout)


# The id of a change --------------------------------------------------------------------------

def test_the_id_is_that_of_the_last_change_of_this_session(shop, teller):
    assert one(teller, "select pgtrickle.my_change('shop')") is None
    mine = one(teller, "select pgtrickle.publish('shop', '1')")
    publish(shop, 5)
    assert one(teller, "select pgtrickle.my_change('shop')") == mine
    assert one(teller, "select pgtrickle.my_change('outbox_shop')") == mine
    assert one(teller, "select pgtrickle.my_change('pgtrickle.outbox_shop')") == mine
    with shop.connect(user="teller") as other:
        assert one(other, "select pgtrickle.my_change('shop')") is None


def test_it_is_known_in_every_state_of_a_transaction(shop, teller):
    mine = one(teller, "select pgtrickle.publish('shop', '1')")
    for begin in ("begin", "begin isolation level repeatable read", "begin isolation level serializable",
                  "begin read only"):
        teller.execute(begin)
        assert one(teller, "select pgtrickle.my_change('shop')") == mine
        if "read only" not in begin:
            teller.execute("savepoint s")
            later = one(teller, "select pgtrickle.publish('shop', '2')")
            assert later > mine and one(teller, "select pgtrickle.my_change('shop')") == later
            teller.execute("rollback to s")
            mine = one(teller, "select pgtrickle.my_change('shop')")
            assert mine == later  # it was rolled back; a consumer passes it all the same
        teller.execute("rollback")
    teller.execute("discard sequences")
    assert one(teller, "select pgtrickle.my_change('shop')") is None


@pytest.mark.parametrize("table", ["orders", '"Ord""ers"', "x" * 63, "\"the-or'ders\""])
def test_tables_are_named_as_everywhere(db, table):
    db.execute(f"create table {table} (id int primary key)")
    outbox = db.one("select pgtrickle.enable_outbox(%s)", (table,))
    db.login("teller", "pgtrickle_publisher")
    db.execute(f"grant insert on {table} to teller")
    with db.connect(user="teller") as teller:
        teller.execute(f"insert into {table} values (1), (2)")
        newest = db.one("select max(id) from pgtrickle." + db.one("select quote_ident(%s)", (outbox,)))
        assert newest == one(teller, "select pgtrickle.my_change(%s)", table)
        assert newest == one(teller, "select pgtrickle.my_change(%s)", f"public.{table}")
        assert newest == one(teller, "select pgtrickle.my_change(%s)", outbox)


def test_it_is_known_of_stream_tables_and_of_keys_that_are_checked_late(db):
    db.execute("create table lines (id int primary key deferrable initially deferred, n int)")
    db.execute("select pgtrickle.enable_outbox('lines')")
    db.execute("select pgtrickle.create_stream_table('total', 'select count(*) as n from lines', null)")
    db.execute("select pgtrickle.enable_outbox('total')")
    with db.connect() as connection:
        with connection.transaction():
            connection.execute("insert into lines values (1, 1)")
            connection.execute("insert into lines values (2, 1)")
        # Such a table is recorded when the transaction commits: the id is right from then on.
        assert one(connection, "select pgtrickle.my_change('lines')") == db.one(
            "select max(id) from pgtrickle.outbox_lines")
        connection.execute("select pgtrickle.refresh_stream_table('total')")
        assert one(connection, "select pgtrickle.my_change('total')") == db.one(
            "select max(id) from pgtrickle.outbox_total")


def test_an_adopted_table_whose_sequence_is_closed_says_so(db):
    db.login("box_owner", "pgtrickle_admin")
    db.execute("create schema closed authorization box_owner")
    with db.connect(user="box_owner") as owner:
        owner.execute("create table closed.box (id bigint generated always as identity "
                      "primary key, payload jsonb)")
        owner.execute("select pgtrickle.adopt_outbox('closed.box', 'box', payload => 'payload')")
        owner.execute("insert into closed.box (payload) values ('{}')")
        assert one(owner, "select pgtrickle.my_change('box')") == 1
        owner.execute("revoke all on sequence closed.box_id_seq from pgtrickle_owner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not shown") as refused:
            owner.execute("select pgtrickle.my_change('box')")
        assert "RETURNING" in refused.value.diag.message_hint
        owner.execute("grant select on sequence closed.box_id_seq to pgtrickle_owner")
        assert one(owner, "select pgtrickle.my_change('box')") == 1


# Waiting for a group ---------------------------------------------------------------------------

def test_a_wait_ends_when_the_group_is_past_the_change(shop, teller):
    mine = one(teller, "select pgtrickle.publish('shop', '1')")
    publish(shop, 3)
    assert not passed(teller, mine)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(passed(teller, mine, timeout="20s")))
    waiting.start()
    eventually(lambda: shop.one("select count(*) > 0 from pg_stat_activity where usename = 'teller' "
                                "and wait_event = 'PgSleep'"))
    with session(shop) as worker:
        rows = poll(worker)
        assert not answers  # it was given the row, and has not said that it is done
        commit(worker, rows[0]["outbox_id"])
    waiting.join(20)
    assert answers == [True]
    assert not passed(teller, mine + 3)


def test_all_slots_count(shop, teller):
    make_group(shop, "wide", slots=4)
    last = [one(teller, "select pgtrickle.publish('shop', '1', key => %s)", str(key))
            for key in range(40)][-1]
    with session(shop) as first, session(shop) as second:
        commit(first, poll(first, "a", "wide")[-1]["outbox_id"], "a", "wide")
        assert passed(teller, last, "wide")
        last = [one(teller, "select pgtrickle.publish('shop', '1', key => %s)", str(key))
                for key in range(40)][-1]
        # The first gives half of its slots back; each commits its own.
        poll(second, "b", "wide")
        mine = poll(first, "a", "wide")
        commit(first, mine[-1]["outbox_id"], "a", "wide")
        assert drain(second, "b", "wide") and not passed(teller, last, "wide") or drain(
            first, "a", "wide") is not None
        drain(first, "a", "wide")
        drain(second, "b", "wide")
    assert passed(teller, last, "wide")


def test_what_was_rolled_back_or_rejected_or_skipped_is_passed_too(shop, teller):
    teller.execute("begin")
    one(teller, "select pgtrickle.publish('shop', '1')")
    teller.execute("rollback")
    undone = one(teller, "select pgtrickle.my_change('shop')")
    assert not passed(teller, undone)
    with session(shop) as worker:
        drain(worker)
        assert passed(teller, undone)
        bad = one(teller, "select pgtrickle.publish('shop', '2')")
        poll(worker)
        worker.execute("select pgtrickle.reject_offset('g', 'a', %s, 'no')", (bad,))
        commit(worker, bad)
        assert passed(teller, bad)
    before = one(teller, "select pgtrickle.publish('shop', '3')")
    with shop.connect(autocommit=False) as open_writer:
        open_writer.execute("select pgtrickle.publish('shop', '4')")
        skipped = one(teller, "select pgtrickle.publish('shop', '5')")
        make_group(shop, "late", auto_offset_reset="latest")
        open_writer.commit()
    assert passed(teller, before, "late") and not passed(teller, skipped - 1, "late")
    with session(shop) as worker:
        assert drain(worker, group="late") == [4]
    assert passed(teller, skipped, "late")


def test_a_seek_and_a_dropped_group_are_seen_by_a_wait(shop, teller):
    publish(shop, 3)
    with session(shop) as worker:
        drain(worker)
        assert passed(teller, 3)
        worker.execute("select pgtrickle.seek_offset('g', 'a', 1)")
        assert not passed(teller, 3)
        errors = []

        def wait():
            try:
                passed(teller, 3, timeout="20s")
            except psycopg.errors.UndefinedObject as gone:
                errors.append(gone)
        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: shop.one("select count(*) > 0 from pg_stat_activity where "
                                    "usename = 'teller' and wait_event = 'PgSleep'"))
        worker.execute("select pgtrickle.drop_consumer_group('g')")
    waiting.join(20)
    assert errors


# Waiting for a pipeline ------------------------------------------------------------------------

def test_a_wait_for_a_pipeline_ends_with_its_delivery(db, relay, tmp_path):
    make_table(db)
    path = tmp_path / "orders"
    set_outbox(db, "p", to_file("orders", path, filter="id > 1"))
    db.login("teller", "pgtrickle_publisher")
    db.execute("grant insert on orders to teller")
    with relay, db.connect(user="teller") as teller:
        for id in range(1, 30):
            teller.execute("insert into orders values (%s, 'x', 1)", (id,))
            mine = one(teller, "select pgtrickle.my_change('orders')")
            assert passed(teller, mine, "p", "20s")
            # The filter leaves the first row out: it is passed all the same.
            assert (path.read_text().count("\n") if path.exists() else 0) == id - 1
        db.execute("select pgtrickle.disable_relay('p')")
        assert passed(teller, mine, "p")
        insert_rows(db, "orders", 30)
        notices = []
        teller.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert not passed(teller, mine + 1, "p", "60s")
        assert "disabled" in notices[0]
        db.execute("select pgtrickle.enable_relay('p')")
        assert passed(teller, mine + 1, "p", "20s")


def test_the_position_of_a_relay_group_that_is_gone_is_not_waited_for(db, relay_bin, tmp_path):
    make_table(db)
    set_outbox(db, "p", to_file("orders", tmp_path / "p"))
    insert_rows(db, "orders", 1)
    for group in ("old", "new"):
        with Relay(db.relay_dsn, "--relay-group-id", group) as relay:
            eventually(lambda: passed(db.connect(), 1, "p"), 30)
            relay.alive()
            if group == "old":
                continue
            # While both count as living, the slower one is waited for.
            db.execute("update pgtrickle.relay_instances set heartbeat_at = clock_timestamp() - "
                       "interval '11 minutes' where relay_group_id = 'old'")
            insert_rows(db, "orders", 2)
            assert passed(db.connect(), 2, "p", "20s")
    db.execute("update pgtrickle.relay_instances set heartbeat_at = clock_timestamp()")
    assert not passed(db.connect(), 2, "p")


def test_a_pipeline_that_has_not_begun_is_waited_for(db, relay, tmp_path):
    make_table(db)
    insert_rows(db, "orders", 1)
    set_outbox(db, "p", to_file("orders", tmp_path / "p"))
    with db.connect() as connection:
        assert not passed(connection, 1, "p")
        with relay:
            assert passed(connection, 1, "p", "30s")


# What is refused -------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, code, says", [
    ("null, 1", "22004", "name of the consumer is null"),
    ("'g', null", "22004", "id to wait for is null"),
    ("'g', 1, null", "22023", "timeout must be"),
    ("'g', 1, '-1 second'", "22023", "timeout must be"),
    ("'g', 1, '61 seconds'", "22023", "timeout must be"),
    ("'g', 1, '1 year'", "22023", "timeout must be"),
    ("'g', 0", "22023", "no id 0"),
    ("'g', -9223372036854775808", "22023", "no id"),
    ("'g', 1000000000", "22023", "the last one is 1"),
    ("'nobody', 1", "42704", 'no consumer "nobody"'),
    ("'', 1", "42704", 'no consumer ""'),
    ("'shop', 1", "42704", 'no consumer "shop"'),
])
def test_bad_input_of_a_wait_is_refused(shop, teller, arguments, code, says):
    publish(shop, 1)
    with pytest.raises(psycopg.Error, match=says) as refused:
        teller.execute(f"select pgtrickle.wait_for_consumer({arguments})")
    assert refused.value.sqlstate == code
    assert refused.value.diag.message_hint or "null" in says


@pytest.mark.parametrize("name", ["null", "''", "'nothing'", "'public.nothing'", "'a.b.c.d'", "'\"'"])
def test_an_outbox_that_is_none_has_no_change(shop, teller, name):
    with pytest.raises(psycopg.errors.UndefinedObject, match="there is no outbox"):
        teller.execute(f"select pgtrickle.my_change({name})")


def test_a_fixed_snapshot_is_refused_with_the_reason(shop, teller):
    publish(shop, 1)
    for level in ("repeatable read", "serializable"):
        teller.execute(f"begin isolation level {level}")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="READ COMMITTED") as refused:
            passed(teller, 1)
        assert "snapshot" in refused.value.diag.message_detail
        teller.execute("rollback")


def test_a_transaction_does_not_wait_for_its_own_commit(shop, teller):
    teller.execute("begin")
    mine = one(teller, "select pgtrickle.publish('shop', '1')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not ended") as refused:
        passed(teller, mine, timeout="1 minute")
    assert "COMMIT" in refused.value.diag.message_hint
    teller.execute("rollback")
    teller.execute("begin")
    teller.execute("savepoint s")
    one(teller, "select pgtrickle.publish('shop', '1')")
    teller.execute("rollback to s")
    assert not passed(teller, mine)
    teller.execute("commit")


def test_a_pipeline_without_an_outbox_is_none_to_wait_for(shop, teller, tmp_path):
    shop.execute("select pgtrickle.set_relay_inbox('in', 'mail', '{\"type\": \"stdin\"}'::jsonb)")
    with pytest.raises(psycopg.errors.UndefinedObject, match='"in"'):
        passed(teller, 1, "in")


# Who may ask ---------------------------------------------------------------------------------

def test_a_publisher_waits_for_any_consumer_and_sees_nothing_else(shop, teller):
    publish(shop, 1)
    assert passed(teller, 1) is False
    for hidden in ("pgtrickle.consumers", "pgtrickle_internal.consumer_slots", "pgtrickle.outbox_shop",
                   "pgtrickle.relay_consumer_offsets", "pgtrickle_internal.consumer_passed('g')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            teller.execute(f"select * from {hidden}")
    shop.login("waiting_stranger")
    with shop.connect(user="waiting_stranger") as stranger:
        for call in ("wait_for_consumer('g', 1)", "my_change('shop')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute(f"select pgtrickle.{call}")
    with session(shop) as worker:
        assert passed(worker, 1) is False


def test_functions_that_shadow_those_of_postgresql_are_not_called_by_a_wait(shop, teller):
    publish(shop, 1)
    shop.execute("create schema trap")
    shop.execute("grant usage on schema trap to public")
    for shadow in ("currval(regclass) returns bigint", "clock_timestamp() returns timestamptz",
                   "pg_sleep_for(interval) returns void", "min(bigint) returns bigint"):
        shop.execute(f"create function trap.{shadow} language plpgsql as "
                     "$$ begin raise exception 'trapped'; end $$")
    teller.execute("set search_path = trap, pg_catalog")
    mine = one(teller, "select pgtrickle.publish('shop', '1')")
    assert one(teller, "select pgtrickle.my_change('shop')") == mine
    assert passed(teller, 1, timeout="10ms") is False


# On a standby --------------------------------------------------------------------------------

def test_a_wait_on_a_standby_is_for_what_can_be_seen_there(pair):  # noqa: F811
    primary, standby = pair
    db = primary.create_database()
    db.execute("select pgtrickle.create_outbox('shop')")
    make_group(db)
    publish(db, 2)

    def there(id, timeout):
        try:
            with psycopg.connect(standby.dsn(db.name), autocommit=True) as connection:
                return passed(connection, id, timeout=timeout)
        except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction,
                psycopg.OperationalError):
            return None  # what makes the database has not arrived
    eventually(lambda: there(2, "0") is False, 30)
    with session(db) as worker:
        drain(worker)
    assert there(2, "30s") is True
    with psycopg.connect(standby.dsn(db.name), autocommit=True) as connection:
        assert one(connection, "select pgtrickle.my_change('shop')") is None
    db.drop()
