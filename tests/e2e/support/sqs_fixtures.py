"""The fixtures of the tests of the SQS sink and source."""

import os

import pytest

from . import sqs_server
from .fixtures import need
from .sqs_server import SqsServer


@pytest.fixture(scope="module")
def server():
    need(sqs_server.missing() is None, f"SQS ({sqs_server.missing()})")
    running = SqsServer().start()
    yield running
    running.stop()


@pytest.fixture
def sqs(server):
    """The server, with no faults left over from another test."""
    server.faults()
    if server.process is None:
        server.start()
    return server


_names = iter(range(1_000_000))


def queue_name(suffix=""):
    """A name that no queue has had."""
    return f"q{os.getpid()}-{next(_names)}{suffix}"
