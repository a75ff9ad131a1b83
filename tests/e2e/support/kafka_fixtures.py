"""The fixtures of the tests of Kafka's sink and source: brokers, and topics that were never used."""

import time

import pytest

from .fixtures import need
from .kafka_server import KafkaServer


@pytest.fixture(scope="module")
def shared_kafka():
    server = KafkaServer().start()
    yield server
    server.stop()


@pytest.fixture
def own_kafka():
    """A broker of the test's own, to kill, freeze and cut."""
    server = KafkaServer()
    need(server.real, f"a real Kafka ({server.why_mock})")
    server.start()
    yield server
    server.stop()


_topics = iter(range(1_000_000))


def fresh_topic(server, partitions=1, **config):
    return server.create_topic(f"t{next(_topics)}-{time.monotonic_ns()}", partitions, **config)


@pytest.fixture
def topic(shared_kafka):
    return fresh_topic(shared_kafka)
