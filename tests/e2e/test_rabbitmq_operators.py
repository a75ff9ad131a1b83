"""What operators of RabbitMQ expect of a client: heartbeats, and queues and exchanges that are theirs."""

import itertools
import json
import re

import pika
import pytest

from support import checks
from support.bridges import set_bridge, wait_lines
from support.fixtures import need
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, status_row,
                               wait_settled)
from support.rabbitmq_server import RabbitServer, available
from support.relay import Relay
from support.stuck_inbox import StuckInbox
from support.waiting import eventually, holds_for
from support.writers import wait_trouble

_numbers = itertools.count(1)
LIMITED = ("limited", "secret-of-limited")  # may read and write, and configure nothing


@pytest.fixture(scope="module")
def server():
    """One broker for the module: each test has a queue and an exchange of its own."""
    need(available(), "rabbitmq-server")
    server = RabbitServer().start()
    user, password = (f'<<"{text}">>' for text in LIMITED)
    server.evaluate(
        f'ok = rabbit_auth_backend_internal:add_user({user}, {password}, <<"test">>),'
        f' ok = rabbit_auth_backend_internal:set_permissions({user}, <<"/">>, <<"^$">>, <<".*">>,'
        ' <<".*">>, <<"test">>)')
    yield server
    server.stop()


@pytest.fixture
def place(server):
    """The name of a queue, bound to an exchange of the same name."""
    name = f"o{next(_numbers)}"
    server.queue(name, "classic", name)
    return name


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "out.jsonl")


def ends(server, **over):
    return {"type": "rabbitmq", "url": server.url, "connect_timeout": "2s",
            "operation_timeout": "2s", **over}


def publish(server, exchange, *bodies):
    with server.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(exchange, "k", json.dumps(body).encode(),
                                  pika.BasicProperties(message_id=f"m{body}", delivery_mode=2))


def heartbeats(server, pipeline):
    """{process of the connection: its heartbeat in seconds}, of the connections of a pipeline that
    have one."""
    printed = server.evaluate(
        "lists:flatten([io_lib:format(\"~p ~p ~p;\", [P, proplists:get_value(timeout, I),"
        " proplists:get_value(client_properties, I)])"
        " || P <- rabbit_networking:connections(),"
        " I <- [rabbit_networking:connection_info(P, [timeout, client_properties])]])")
    named = [part for part in printed.split(";") if f"pgtrickle-relay {pipeline}" in part]
    found = {}
    for part in named:
        match = re.search(r"(<[\d.]+>)\s+(\d+)", part)
        if match and int(match.group(2)) > 0:
            found[match.group(1)] = int(match.group(2))
    return found


# Heartbeats --------------------------------------------------------------------------------------


def test_heartbeats_are_agreed_on_and_keep_idle_connections(db, server, place, relay, orders, lines):
    set_outbox(db, "out", {"stream_table": "orders", "sink": ends(
        server, exchange=place, heartbeat="1s")})
    set_bridge(db, "in", ends(server, queue=place, heartbeat="2s"), lines.path)
    with relay:
        insert_rows(db, "orders", 1)
        wait_lines(lines, 1)
        before = eventually(lambda: heartbeats(server, "out"), 60 * SLOW_FACTOR)
        reading = eventually(lambda: heartbeats(server, "in"), 60 * SLOW_FACTOR)
        assert set(before.values()) == {1} and set(reading.values()) == {2}
        # The broker ends a connection on which it hears nothing for two intervals.
        holds_for(lambda: heartbeats(server, "out") == before
                  and heartbeats(server, "in") == reading, 5, interval=0.5)
        for name in ("out", "in"):
            assert relay.metric("delivery_errors_total", pipeline=name) == 0
            assert relay.pipeline(name)["last_error"] is None


def test_by_default_there_are_heartbeats_and_0_means_none(db, server, place, relay, lines, tmp_path):
    set_bridge(db, "usual", ends(server, queue=place), lines.path)
    set_bridge(db, "none", ends(server, queue=place, heartbeat=0), tmp_path / "none.jsonl")
    with relay:
        eventually(lambda: set(heartbeats(server, "usual").values()) == {30}, 60 * SLOW_FACTOR)
        relay.wait_healthy(pipelines=2)
        assert heartbeats(server, "none") == {}


def test_a_frozen_broker_is_noticed_while_nothing_happens(db, server, place, relay, orders, lines):
    set_outbox(db, "out", {"stream_table": "orders", "sink": ends(
        server, exchange=place, heartbeat="1s")})
    quiet = place + "-quiet"
    server.queue(quiet, "classic")
    set_bridge(db, "in", ends(server, queue=quiet, heartbeat="1s"), lines.path)
    with relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "out", "orders")
        relay.wait_healthy(pipelines=2)
        server.freeze()
        try:
            for name in ("out", "in"):
                relay.wait_state(name, "retrying", deadline=30 * SLOW_FACTOR)
            assert relay.metric("sink_connected", pipeline="out") == 0
            eventually(lambda: "sent nothing for 2 s" in relay.log(1000), 60 * SLOW_FACTOR,
                       message=relay.log)
        finally:
            server.thaw()
        relay.wait_healthy(pipelines=2, deadline=40 * SLOW_FACTOR)
        publish(server, "", 7)  # unroutable: the broker takes it and drops it
        with server.channel() as channel:
            channel.basic_publish("", quiet, b"8", pika.BasicProperties(message_id="m8"))
        wait_lines(lines, 1)
        insert_rows(db, "orders", 2)
        wait_settled(db, "out", "orders")


def test_heartbeats_go_on_while_the_database_keeps_both_threads(db, server, place, relay, orders):
    """The sender of one pipeline waits for its position to be stored, the reader of another one for
    an inbox that takes nothing."""
    set_outbox(db, "out", {"stream_table": "orders", "sink": ends(
        server, exchange=place, heartbeat="1s")})
    queue = place + "-in"
    server.queue(queue, "classic", queue)
    source = ends(server, queue=queue, heartbeat="1s", prefetch=10)
    with StuckInbox(db, source) as inbox, relay, db.connect(autocommit=False) as blocker:
        insert_rows(db, "orders", 1)
        wait_settled(db, "out", "orders")
        publish(server, queue, 1)
        eventually(lambda: inbox.count() == 1, 60 * SLOW_FACTOR)
        inbox.lock()
        blocker.execute("lock table pgtrickle.relay_consumer_offsets in access exclusive mode")
        before = heartbeats(server, "out"), heartbeats(server, "in")
        assert all(before)
        insert_rows(db, "orders", 2)
        publish(server, queue, *range(2, 40))
        eventually(lambda: server.count(place) == 2, 60 * SLOW_FACTOR)
        holds_for(lambda: (heartbeats(server, "out"), heartbeats(server, "in")) == before, 5,
                  interval=0.5)
        blocker.rollback()
        inbox.unlock()
        wait_settled(db, "out", "orders")
        eventually(lambda: inbox.count() == 39, 30 * SLOW_FACTOR)
        assert server.count(place) == 2


def test_a_heartbeat_that_amqp_cannot_say_is_refused(db, server, place, relay, lines):
    set_bridge(db, "p", ends(server, queue=place, heartbeat="1500ms"), lines.path)
    with relay:
        wait_trouble(relay, db, "p", "heartbeat: .*1500 ms", remedy="whole seconds")


# What is there already ----------------------------------------------------------------------------


def test_what_exists_is_used_as_it_is_without_the_right_to_make_it(db, server, place, relay, orders,
                                                                    lines):
    """A queue with a type and limits of its operator's, an exchange of another type, and a user who
    may configure nothing; `declare` is on, as it is by default."""
    theirs = place + "-theirs"
    server.queue(theirs, "quorum", **{"x-delivery-limit": 5, "x-max-length": 100})
    with server.channel() as channel:
        channel.exchange_declare(theirs, "fanout", durable=False)
        channel.queue_bind(theirs, theirs, "")
    login = {"user": LIMITED[0], "password": LIMITED[1]}
    set_outbox(db, "out", {"stream_table": "orders", "message": "row",
                           "sink": ends(server, exchange=theirs, **login)})
    set_bridge(db, "in", ends(server, queue=theirs, **login), lines.path)
    with relay:
        insert_rows(db, "orders", 1, 3)
        wait_lines(lines, 3)
        eventually(lambda: server.held(theirs) == 0, 15 * SLOW_FACTOR)
        relay.wait_healthy(pipelines=2)


def test_what_is_absent_and_may_not_be_made_is_named(db, server, place, relay, orders, lines):
    login = {"user": LIMITED[0], "password": LIMITED[1]}
    set_outbox(db, "out", {"stream_table": "orders", "sink": ends(
        server, exchange=place + "-gone", **login)})
    set_bridge(db, "in", ends(server, queue=place + "-gone", **login), lines.path)
    with relay:
        for name in ("out", "in"):
            wait_trouble(relay, db, name, f"declaring .*'{place}-gone'.*ACCESS_REFUSED",
                         remedy="permission")
        assert LIMITED[1] not in relay.log(1000)


# What is made -------------------------------------------------------------------------------------


def arguments(server, kind, name):
    """The arguments of a queue or an exchange, as Erlang writes them."""
    module = {"queue": "rabbit_amqqueue", "exchange": "rabbit_exchange"}[kind]
    resource = f'rabbit_misc:r(<<"/">>, {kind}, <<"{name}">>)'
    return server.evaluate(f"{{ok, X}} = {module}:lookup({resource}),"
                           f" lists:flatten(io_lib:format(\"~0p\", [{module}:info(X, [arguments])]))"
                           ).replace('\\"', '"')


def test_arguments_reach_what_is_made_with_their_types(db, server, place, relay, orders, lines):
    made = place + "-made"
    source = ends(server, queue=made, delivery_limit=3, dead_letter_exchange=place,
                  dead_letter_routing_key="dead", bind={place: "#"},
                  arguments={"x-max-length": 7, "x-overflow": "reject-publish",
                             "x-single-active-consumer": True, "x-note": "12"})
    set_bridge(db, "in", source, lines.path)
    set_outbox(db, "out", {"stream_table": "orders", "sink": ends(
        server, exchange=made, mandatory=False, arguments={"alternate-exchange": place})})
    with relay:
        eventually(lambda: server.exists(made), 60 * SLOW_FACTOR)
        found = arguments(server, "queue", made)
        for wanted in ('{<<"x-queue-type">>,longstr,<<"quorum">>}',
                       '{<<"x-dead-letter-exchange">>,longstr,<<"%s">>}' % place,
                       '{<<"x-dead-letter-routing-key">>,longstr,<<"dead">>}',
                       '{<<"x-overflow">>,longstr,<<"reject-publish">>}',
                       '{<<"x-single-active-consumer">>,bool,true}',
                       '{<<"x-note">>,longstr,<<"12">>}'):
            assert wanted in found, (wanted, found)
        assert re.search(r'<<"x-max-length">>,\w+,7}', found), found
        assert re.search(r'<<"x-delivery-limit">>,\w+,3}', found), found
        insert_rows(db, "orders", 1)
        wait_settled(db, "out", "orders")
        assert f'{{<<"alternate-exchange">>,longstr,<<"{place}">>}}' in arguments(
            server, "exchange", made)
        wait_lines(lines, 1)  # by way of the alternate exchange


def test_a_quorum_queue_that_is_made_has_no_limit_of_deliveries(db, server, place, relay_bin, lines):
    made = place + "-unlimited"
    set_bridge(db, "in", ends(server, queue=made), lines.path)
    with Relay(db.relay_dsn):
        eventually(lambda: server.exists(made), 60 * SLOW_FACTOR)
        # From 4.0 on a queue without the argument drops a message that comes back for the 21st time.
        said = re.search(r'<<"x-delivery-limit">>,\w+,-1}', arguments(server, "queue", made))
        assert bool(said) == (server.major_version >= 4)
    with server.channel() as channel:
        channel.basic_publish("", made, b'{"n": 1}')
        for _ in range(30):
            method, _, _ = eventually(
                lambda: (got := channel.basic_get(made))[0] and got, 10 * SLOW_FACTOR)
            channel.basic_nack(method.delivery_tag)
    with Relay(db.relay_dsn):
        wait_lines(lines, 1)


@pytest.mark.parametrize("options, message, remedy", [
    ({"arguments": {"x-max-length": "seven"}}, "declaring the queue '{}'.*x-max-length", "without quotes"),
    ({"arguments": {"x-overflow": "drop-all"}}, "declaring the queue '{}'.*x-overflow", "arguments"),
    ({"arguments": {"x-queue-type": "classic"}}, "x-queue-type", "queue_type"),
    ({"queue_type": "classic", "delivery_limit": 3}, "delivery_limit", "quorum"),
    ({"queue_type": "stream", "dead_letter_exchange": "x"}, "streams", "queue_type"),
    ({"dead_letter_routing_key": "x"}, "dead_letter_exchange", "set dead_letter_exchange"),
    ({"arguments": {"": 1}}, "1 to 128 bytes", "name"),
])
def test_wrong_arguments_are_named_with_a_remedy(db, server, place, relay, lines, options, message,
                                                 remedy):
    queue = place + "-wrong"
    set_bridge(db, "p", ends(server, queue=queue, **options), lines.path)
    with relay:
        wait_trouble(relay, db, "p", message.format(queue), remedy=remedy)
        assert relay.pipeline("p")["state"] == "misconfigured"
    assert not server.exists(queue)
    assert status_row(db, "p")["remedy"]
