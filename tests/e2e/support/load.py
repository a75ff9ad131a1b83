"""A sink under load, and a stop in the middle."""

from .waiting import eventually
from .writers import Writer


def rows_written_through_a_stop(db, relay):
    """Stops the relay and starts it again while rows are written to `orders`; their ids. The relay
    runs on, to deliver them to the end."""
    with Writer(db) as writer:
        relay.start()
        writer.wait(300)
        relay.stop()
        relay.start()
        eventually(lambda: relay.metric("messages_delivered_total", pipeline="p"))
        writer.wait(600)
    return range(1, writer.committed + 1)
