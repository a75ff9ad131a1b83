"""The RabbitMQ source, by the real binary against a real broker that pika publishes to."""

import itertools
import json
import re

import pika
import pytest

from support.bridges import set_bridge, wait_lines
from support.fixtures import need
from support.pipelines import SLOW_FACTOR, Lines
from support.rabbitmq_server import RabbitServer, available
from support.tls import Authority
from support.waiting import eventually
from support.writers import wait_trouble

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server(authority):
    """One broker for the module: each test has a queue of its own."""
    need(available(), "rabbitmq-server")
    certificate, key = authority.certificate("server")
    server = RabbitServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    yield server
    server.stop()


@pytest.fixture
def queue(server):
    name = f"s{next(_numbers)}"
    server.queue(name, "classic", name)
    return name


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


def set_pipeline(db, name, server, queue, path, source=None, **options):
    """A pipeline from a queue into a file of JSON lines {id, type, key, payload}."""
    source = {"type": "rabbitmq", "url": server.url, "queue": queue, **(source or {})}
    set_bridge(db, name, source, path, **options)


def publish(server, exchange, *bodies, key="k", ids=True, **properties):
    with server.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(
                exchange, key, json.dumps(body).encode(),
                pika.BasicProperties(message_id=f"m{body}" if ids else None, delivery_mode=2,
                                     **properties), mandatory=True)


def wait_acknowledged(server, queue):
    eventually(lambda: server.held(queue) == 0, 15 * SLOW_FACTOR)


def test_ids_types_and_keys_are_what_the_documentation_says(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"aggregate_id_from": "header:customer"})
    with relay:
        publish(server, queue, 1, key="order.paid", headers={"customer": 7})
        message, = wait_lines(lines, 1)
        wait_acknowledged(server, queue)
    assert message == {"id": "p:m1", "type": "order.paid", "key": "7", "payload": 1}


def test_a_message_without_an_id_gets_a_new_one_and_a_warning(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path)
    with relay:
        publish(server, queue, 1, 2, ids=False)
        first, second = wait_lines(lines, 2)
        assert first["id"] != second["id"]
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                            first["id"])
        eventually(lambda: relay.log().count("no message-id") == 1)


def test_queue_and_bindings_are_made_where_they_are_absent(db, server, queue, relay, lines):
    made = queue + "-made"
    set_pipeline(db, "p", server, made, lines.path, {"bind": {queue: "a.*, b.#"}})
    with relay:
        eventually(lambda: server.exists(made), 20 * SLOW_FACTOR)
        eventually(lambda: relay.metric("source_connected", pipeline="p") == 1, 20 * SLOW_FACTOR)
        for number, key in enumerate(("a.x", "a.x.y", "b.x.y", "c")):
            publish(server, queue, number, key=key)
        assert [m["payload"] for m in wait_lines(lines, 2)] == [0, 2]


def test_a_queue_that_shall_not_be_made_is_asked_for(db, server, relay, lines):
    set_pipeline(db, "p", server, "absent", lines.path, {"declare": False})
    with relay:
        wait_trouble(relay, db, "p", "no queue 'absent'", remedy="declare")
        assert relay.pipeline("p")["state"] == "misconfigured"


def test_the_broker_hands_out_no_more_than_the_prefetch_count(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"prefetch": 10}, rate_limit=20)
    publish(server, queue, *range(60))
    with relay:
        eventually(lambda: len(lines.messages()) > 5, 20 * SLOW_FACTOR)
        # Ready are all but those that were handed out and those that are done.
        assert server.count(queue) >= 60 - 10 - len(lines.messages()) - 10
        wait_lines(lines, 60, 30)
        wait_acknowledged(server, queue)
    assert [m["payload"] for m in lines.messages()] == list(range(60))


def test_a_queue_that_is_deleted_is_made_again(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, {"bind": {queue: "#"}})
    with relay:
        publish(server, queue, 1)
        wait_lines(lines, 1)
        with server.channel() as channel:
            channel.queue_delete(queue)
        eventually(lambda: server.exists(queue), 20 * SLOW_FACTOR)
        eventually(lambda: relay.pipeline("p")["last_error"] is None, 20 * SLOW_FACTOR)
        publish(server, queue, 2)
        assert [m["payload"] for m in wait_lines(lines, 2)] == [1, 2]


def test_what_was_not_settled_comes_again_when_the_relay_was_killed(db, server, queue, relay, lines):
    set_pipeline(db, "p", server, queue, lines.path, rate_limit=50)
    publish(server, queue, *range(100))
    relay.start()
    eventually(lambda: len(lines.messages()) >= 20, 20 * SLOW_FACTOR)
    relay.kill9()
    relay.start()
    eventually(lambda: {m["payload"] for m in lines.messages()} == set(range(100)),
               30 * SLOW_FACTOR)
    wait_acknowledged(server, queue)
    relay.stop()


def test_it_reads_over_tls_and_names_a_wrong_authority(db, server, queue, authority, relay, lines):
    url = f"amqps://127.0.0.1:{server.tls_port}"
    set_pipeline(db, "p", server, queue, lines.path, {"url": url, "tls_ca": authority.ca})
    set_pipeline(db, "wrong", server, queue, lines.path + ".wrong",
                 {"url": url, "tls_ca": Authority("other").ca})
    with relay:
        publish(server, queue, 1, 2, 3)
        wait_lines(lines, 3)
        wait_trouble(relay, db, "wrong", "certificate .* not trusted", remedy="tls_ca")
