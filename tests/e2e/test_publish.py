"""Application outboxes: create_outbox and publish."""

import json
import threading

import psycopg
import pytest

from support.waiting import eventually


@pytest.fixture
def shop(db):
    db.execute("select pgtrickle.create_outbox('shop')")
    return "outbox_shop"


def events(db, columns="id, payload, event_type, event_key, headers, idempotency_key"):
    return db.execute(f"select {columns} from pgtrickle.outbox_shop order by id")


def test_an_event_is_stored_as_it_was_published(db, shop):
    id = db.one("""select pgtrickle.publish('shop', '{"total": 12.30, "who": "Zoë"}',
                   event_type => 'order.placed', key => 'o-1', headers => '{"trace": "t1"}')""")
    assert events(db) == [(id, {"total": 12.30, "who": "Zoë"}, "order.placed", "o-1",
                           {"trace": "t1"}, None)]
    row = db.execute("select inserted_count, deleted_count, is_claim_check, pgt_id is not null, "
                     "payload::text from pgtrickle.outbox_shop")[0]
    assert row[:4] == (0, 0, False, True) and "12.30" in row[4]


def test_an_event_lives_and_dies_with_its_transaction(db, shop):
    with db.connect(autocommit=False) as connection:
        connection.execute("select pgtrickle.publish('shop', '1')")
        connection.rollback()
        connection.execute("select pgtrickle.publish('shop', '2')")
        connection.commit()
    assert [row[0] for row in events(db, "payload")] == [2]


def test_an_event_can_be_prepared(db, shop):
    with db.connect() as connection:
        connection.execute("begin")
        connection.execute("select pgtrickle.publish('shop', '1', idempotency_key => 'k')")
        connection.execute("prepare transaction 'publishing'")
    db.execute("commit prepared 'publishing'")
    assert [row[0] for row in events(db, "payload")] == [1]


def test_a_repeated_idempotency_key_returns_the_first_id_and_writes_nothing(db, shop):
    first = db.one("select pgtrickle.publish('shop', '1', idempotency_key => 'k')")
    again = db.one("select pgtrickle.publish('shop', '2', idempotency_key => 'k')")
    other = db.one("select pgtrickle.publish('shop', '3', idempotency_key => 'l')")
    assert first == again != other
    assert [row[0] for row in events(db, "payload")] == [1, 3]


def test_an_idempotency_key_is_of_one_outbox(db, shop):
    db.execute("select pgtrickle.create_outbox('other')")
    db.execute("select pgtrickle.publish('shop', '1', idempotency_key => 'k')")
    db.execute("select pgtrickle.publish('other', '1', idempotency_key => 'k')")
    assert db.one("select count(*) from pgtrickle.outbox_other") == 1


def test_concurrent_publishers_of_one_key_publish_once(db, shop):
    start = threading.Barrier(8)
    ids = []

    def publish():
        with db.connect() as connection:
            for round in range(20):
                start.wait()
                ids.append((round, connection.execute(
                    "select pgtrickle.publish('shop', %s, idempotency_key => %s)",
                    (json.dumps(round), f"k{round}")).fetchone()[0]))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 160 and len(set(ids)) == 20
    assert sorted(row[0] for row in events(db, "id")) == sorted(id for _, id in set(ids))


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_key_waits_for_the_open_transaction_that_has_it(db, shop, ending):
    ids = []
    with db.connect(autocommit=False) as first, db.connect() as second, db.connect() as third:
        ids.append(first.execute("select pgtrickle.publish('shop', '1', idempotency_key => 'k')")
                   .fetchone()[0])
        waiting = threading.Thread(target=lambda: ids.append(second.execute(
            "select pgtrickle.publish('shop', '2', idempotency_key => 'k')").fetchone()[0]))
        waiting.start()
        eventually(lambda: db.one("select count(*) from pg_locks where not granted"))
        third.execute("set statement_timeout = '5s'")
        third.execute("select pgtrickle.publish('shop', '3', idempotency_key => 'another')")
        third.execute("select pgtrickle.publish('shop', '4')")
        getattr(first, ending)()
        waiting.join()
    if ending == "commit":
        assert ids[0] == ids[1]
    else:
        assert db.execute("select id, payload from pgtrickle.outbox_shop "
                          "where idempotency_key = 'k'") == [(ids[1], 2)]


def test_a_publisher_may_publish_and_nothing_else(db, shop):
    with psycopg.connect(db.login("some_service", "pgtrickle_publisher"),
                         autocommit=True) as connection:
        connection.execute("select pgtrickle.publish('shop', '1')")
        for forbidden in ["select * from pgtrickle.outbox_shop",
                          "insert into pgtrickle.outbox_shop (payload) values ('1')",
                          "delete from pgtrickle.outbox_shop",
                          "select pgtrickle.create_outbox('mine')",
                          "select pgtrickle.disable_outbox('shop')"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)
    with psycopg.connect(db.login("ordinary_role"), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select pgtrickle.publish('shop', '1')")


def test_what_cannot_be_published_is_refused_clearly(db, shop):
    db.execute("create table orders (id int)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    for call, message in [("publish('orders', '1')", "records the changes of a table"),
                          ("publish('outbox_orders', '1')", "records the changes of a table"),
                          ("publish('nowhere', '1')", "there is no outbox \"nowhere\""),
                          ("publish('shop', null)", "needs a payload"),
                          ("publish('shop', '1', headers => '[]')", "headers must be"),
                          ("outbox_rows('shop', 1)", "holds events")]:
        with pytest.raises(psycopg.Error, match=message):
            db.execute(f"select pgtrickle.{call}")


def test_create_outbox_refuses_what_is_taken_or_has_no_name(db, shop):
    for call, message in [("create_outbox('shop')", "already an outbox"),
                          ("create_outbox('')", "needs a name"),
                          ("create_outbox('x', retention_hours => 0)", "retention_hours")]:
        with pytest.raises(psycopg.Error, match=message):
            db.execute(f"select pgtrickle.{call}")


@pytest.mark.parametrize("name", ["shop-events", "Shop.Events", 'a "b"', "e" * 80, "naïve " * 20])
def test_names_of_all_kinds_work(db, name):
    outbox = db.one("select pgtrickle.create_outbox(%s)", (name,))
    assert len(outbox.encode()) <= 63
    db.execute("select pgtrickle.publish(%s, '1')", (name,))
    db.execute("select pgtrickle.publish(%s, '1')", (outbox,))
    assert db.one("select outbox_table_name from pgtrickle.relay_resolve_outbox(%s)",
                  (name,)) == outbox
    db.execute("select pgtrickle.disable_outbox(%s)", (name,))
    assert db.one("select count(*) from pgtrickle.pgt_outbox_config") == 0


def test_notify_is_sent_only_where_it_was_asked_for(db, shop):
    db.execute("select pgtrickle.create_outbox('loud', notify => true)")
    heard = []
    with db.connect() as connection:
        connection.add_notify_handler(lambda note: heard.append(note.payload))
        connection.execute("listen pgtrickle_outbox_new")
        connection.execute("select pgtrickle.publish('shop', '1')")
        connection.execute("select pgtrickle.publish('loud', '1')")
        connection.execute("notify pgtrickle_outbox_new, 'end'")
        eventually(lambda: connection.execute("select 1") and heard[-1:] == ["end"])
    assert heard == ["outbox_loud", "end"]


def test_an_event_outbox_and_a_table_of_one_name_do_not_disturb_each_other(db, shop):
    db.execute("create table shop (id int)")
    assert db.one("select pgtrickle.enable_outbox('shop')").startswith("outbox_shop_")
    db.execute("insert into shop values (1)")
    db.execute("select pgtrickle.publish('shop', '1')")
    assert len(events(db)) == 1
    assert db.one("select kind from pgtrickle.relay_resolve_outbox('public.shop')") == "table"
    with pytest.raises(psycopg.errors.AmbiguousAlias):
        db.execute("select * from pgtrickle.relay_resolve_outbox('shop')")
