"""The sink memory: it counts what it takes, and says so."""

from support.pipelines import insert_rows, set_outbox, wait_settled
from support.waiting import eventually


def to_memory(**sink):
    return {"stream_table": "orders", "message": "row", "sink": {"type": "memory", **sink}}


def report(relay):
    return relay.pipeline("p")["sink_report"]


def test_it_counts_each_message_and_shows_the_last_ids(db, relay, orders):
    set_outbox(db, "p", to_memory(keep=3))
    insert_rows(db, "orders", 1, 20)
    with relay:
        wait_settled(db, "p", "orders")
        relay.wait_metric("memory_messages", 20, pipeline="p")
        shown = report(relay)
        assert shown["state"] == "counting"
        assert shown["numbers"]["memory_messages"] == 20
        assert shown["numbers"]["memory_bytes"] == relay.metric("bytes_total", pipeline="p")
        rows = [int(message_id.split(":")[1].split("-")[0]) for message_id in shown["latest"]]
        assert len(rows) == 3 and rows == sorted(rows) and rows[-1] == relay.metric(
            "position", pipeline="p")
        eventually(lambda: "messages are counted and dropped" in relay.log(), message=relay.log)


def test_it_ends_its_numbers_with_the_pipeline(db, relay, orders):
    set_outbox(db, "p", to_memory(keep=0))
    insert_rows(db, "orders", 1)
    with relay:
        wait_settled(db, "p", "orders")
        relay.wait_metric("memory_messages", 1, pipeline="p")
        assert "latest" not in report(relay)
        db.execute("select pgtrickle.delete_relay('p')")
        eventually(lambda: relay.metric("memory_messages", pipeline="p") is None, 20)
