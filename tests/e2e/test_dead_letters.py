"""Messages that a broker refuses: dead letters, retries, and the choices of on_reject."""

import pytest

from support.nats_server import NatsServer
from support.pipelines import insert_rows, position, set_outbox, status_row, to_nats, wait_settled
from support.relay import Relay
from support.waiting import eventually, holds_for


def dead(db, pipeline=None):
    rows = db.execute(
        "select to_jsonb(d) from pgtrickle.relay_dlq d where resolved_at is null"
        " and (%s::text is null or pipeline = %s) order by outbox_id", (pipeline, pipeline))
    return [row[0] for row in rows]


@pytest.fixture
def small_nats():
    server = NatsServer(max_payload=4096).start()
    with server.client() as client:
        client.create_stream("s", "relay.>")
    yield server
    server.stop()


def allow_large_payloads(server):
    with open(server.config_path) as config:
        text = config.read()
    with open(server.config_path, "w") as config:
        config.write(text.replace("max_payload: 4096", "max_payload: 1048576"))
    server.restart()


@pytest.mark.sanitizer
def test_exactly_the_poisonous_message_is_set_aside_and_its_neighbours_go_on(
        db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row"))
    db.execute("insert into orders values (1, 'a', 1), (2, repeat('b', 10000), 2), (3, 'c', 3)")
    insert_rows(db, "orders", 4)
    with relay, small_nats.client() as client:
        wait_settled(db, "rows", "orders")
        assert [m.json["new"]["id"] for m in client.messages("s")] == [1, 3, 4]
        (letter,) = dead(db)
        assert letter["pipeline"] == "rows" and letter["error_class"] == "rejected"
        assert letter["subject"] == "relay.rows" and letter["error_message"]
        assert letter["attempts"] >= 1
        relay.wait_metric("dlq_messages", 1, pipeline="rows")
        relay.wait_healthy()  # the pipeline makes progress


def test_a_retried_dead_letter_is_sent_as_it_was_and_moves_no_position(
        db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row"))
    db.execute("insert into orders values (1, repeat('b', 10000), 2)")
    with relay:
        eventually(lambda: dead(db))
        (letter,) = dead(db)
        # Before the cause is gone, a retry fails again and is counted.
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter["id"],))
        eventually(lambda: dead(db)[0]["attempts"] > letter["attempts"])
        allow_large_payloads(small_nats)
        before = position(db, "rows")
        # The relay reconnects and then learns of the new limit.
        insert_rows(db, "orders", 2)
        with small_nats.client() as client:
            eventually(lambda: client.count("s") == 1, 20)
            db.execute("select pgtrickle.relay_dlq_retry_all('rows')")
            eventually(lambda: client.count("s") == 2, 20)
            retried = client.messages("s")[1]
        eventually(lambda: not dead(db))
        assert retried.json["new"]["id"] == 1
        assert retried.id == letter["message_id"] and retried.subject == letter["subject"]
        assert position(db, "rows") > before
        assert db.one("select resolution from pgtrickle.relay_dlq where id = %s", (letter["id"],))


def test_a_row_without_the_column_of_the_template_is_set_aside_alone(db, nats, relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        db.execute("alter table orders add column region text")
        db.execute("insert into orders values (1, 'a', 1, 'eu')")
        db.execute("alter table orders drop column region")
        db.execute("insert into orders values (2, 'b', 2)")
        db.execute("alter table orders add column region text")
        db.execute("insert into orders values (3, 'c', 3, 'us')")
        set_outbox(db, "rows", to_nats("orders", nats, "relay.{{ region }}", message="row"))
        with relay:
            wait_settled(db, "rows", "orders")
        subjects = [m.subject for m in client.messages("s")]
    recorded = ["relay.eu", "relay.us"]
    # Columns have changed: if upkeep has found that already, a full refresh follows, and nothing else.
    refresh = ["relay._null", "relay._null", "relay.us"]
    assert len(subjects) >= 2 and subjects == (recorded + refresh)[:len(subjects)]
    (letter,) = dead(db)
    assert "region" in letter["error_message"]


def test_on_reject_stop_sends_nothing_after_the_poison(db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row",
                                   on_reject="stop"))
    db.execute("insert into orders values (1, 'a', 1)")
    db.execute("insert into orders values (2, repeat('b', 10000), 2)")
    db.execute("insert into orders values (3, 'c', 3)")
    with relay, small_nats.client() as client:
        eventually(lambda: (status_row(db, "rows") or {}).get("last_error"))
        holds_for(lambda: client.count("s") <= 1, 1)
        assert [m.json["new"]["id"] for m in client.messages("s")] == [1]
        allow_large_payloads(small_nats)
    with Relay(db.relay_dsn), small_nats.client() as client:
        eventually(lambda: client.count("s") == 3, 20)
        assert [m.json["new"]["id"] for m in client.messages("s")] == [1, 2, 3]


def test_on_reject_skip_drops_the_poison_and_counts_it(db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row",
                                   on_reject="skip"))
    db.execute("insert into orders values (1, 'a', 1), (2, repeat('b', 10000), 2), (3, 'c', 3)")
    with relay, small_nats.client() as client:
        wait_settled(db, "rows", "orders")
        assert [m.json["new"]["id"] for m in client.messages("s")] == [1, 3]
        relay.wait_metric("rejected_total", 1, pipeline="rows")
    assert not dead(db)


def test_on_reject_park_key_holds_later_messages_of_that_key_behind_it(
        db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row",
                                   on_reject="park_key"))
    db.execute("insert into orders values (1, 'a', 1)")
    db.execute("insert into orders values (2, repeat('b', 10000), 2)")
    db.execute("update orders set name = 'b' where id = 2")
    db.execute("update orders set name = 'bb' where id = 2")  # small itself: only parked
    db.execute("update orders set name = 'aa' where id = 1")
    with relay, small_nats.client() as client:
        wait_settled(db, "rows", "orders")
        assert [m.json["new"]["name"] for m in client.messages("s")] == ["a", "aa"]
        assert [letter["error_code"] for letter in dead(db)][1:] == ["parked", "parked"]
        insert_rows(db, "orders", 3)
        db.execute("update orders set name = 'bbb' where id = 2")  # after the relay knows
        wait_settled(db, "rows", "orders")
        assert [m.json["key"]["id"] for m in client.messages("s")] == [1, 1, 3]
        assert len(dead(db)) == 4


def test_a_discarded_dead_letter_is_resolved_and_never_sent(db, small_nats, relay, orders):
    set_outbox(db, "rows", to_nats("orders", small_nats, "relay.rows", message="row"))
    db.execute("insert into orders values (1, repeat('b', 10000), 2)")
    with relay, small_nats.client() as client:
        eventually(lambda: dead(db))
        db.execute("select pgtrickle.relay_dlq_discard(%s)", (dead(db)[0]["id"],))
        assert not dead(db)
        holds_for(lambda: client.count("s") == 0, 0.5)
