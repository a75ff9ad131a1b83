"""A sink under load: a slow link, and a stop in the middle."""

from .pipelines import SLOW_FACTOR
from .proxy import UP
from .waiting import eventually
from .writers import Writer, bulk


def assert_a_slow_link_grows_no_memory(db, relay, proxy, kib=25_000):
    """The pipeline `p` delivers the rows of `orders` through `proxy`, one a message, and has
    delivered the first one."""
    before = relay.resident_kib()
    proxy.slow(100_000)
    for first in range(2, 60_000, 2_000):  # about 30 MB of messages
        bulk(db, first, 2_000, size=300)
    eventually(lambda: proxy.forwarded[UP] > 500_000, 60 * SLOW_FACTOR)
    assert relay.peak_kib() - before < kib
    assert relay.pipeline("p")["lag"] > 0
    proxy.restore()


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
