"""The RabbitMQ sink, by the real binary against a real broker, read with an independent client."""

import itertools
import json
import re

import pika
import pytest

from support import checks
from support.fixtures import need
from support.load import rows_written_through_a_stop
from support.pipelines import SLOW_FACTOR, insert_rows, new_rows, set_outbox, wait_settled
from support.proxy import FaultProxy
from support.rabbitmq_server import RabbitServer, available
from support.tls import Authority
from support.waiting import eventually, holds_for
from support.writers import bulk, dead_letters, wait_trouble

LARGEST = 200_000  # max_message_size of the broker


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server(authority):
    """One broker for the module: each test has queues of its own, and leaves it running."""
    need(available(), "rabbitmq-server")
    certificate, key = authority.certificate("server")
    server = RabbitServer(tls={"cert": certificate, "key": key, "ca": authority.ca},
                          settings=[f"max_message_size = {LARGEST}"]).start()
    yield server
    server.stop()


_numbers = itertools.count(1)


class Place:
    """An exchange and a queue that takes all of it: a quorum queue unless told otherwise."""

    def __init__(self, server, **arguments):
        self.name = f"t{next(_numbers)}"
        self.server = server
        self.arguments = arguments
        self.taken = []
        server.queue(self.name, exchange=self.name, **arguments)

    def sink(self, port=None, **over):
        url = f"amqp://guest:guest@127.0.0.1:{port or self.server.port}"
        return {"type": "rabbitmq", "url": url, "exchange": self.name, "ack_timeout": "3s",
                "connect_timeout": "2s", **over}

    def pipeline(self, port=None, sink=None, **options):
        return {"stream_table": "orders", "sink": self.sink(port, **(sink or {})), **options}

    def messages(self):
        """Everything that has arrived."""
        self.taken += self.server.take(self.name)
        return self.taken

    def rows(self):
        """The ids of all rows that arrived as new, in the queue's order."""
        return [row["id"] for message in self.messages()
                for row in new_rows(json.loads(message.body))]

    def first_arrivals(self):
        """As rows(), without what came again under an id that had arrived already."""
        seen, found = set(), []
        for message in self.messages():
            if message.id not in seen:
                seen.add(message.id)
                found += [row["id"] for row in new_rows(json.loads(message.body))]
        return found

    def wait_rows(self, wanted, deadline=30):
        """Waits until exactly these rows have arrived, in this order, each once."""
        wanted = list(wanted)
        eventually(lambda: len(self.rows()) >= len(wanted), deadline * SLOW_FACTOR, interval=0.1,
                   message=lambda: f"{len(self.rows())} rows of {len(wanted)}")
        assert self.rows() == wanted

    def wait_first_arrivals(self, wanted, deadline=60):
        """Waits until each of these rows has arrived; they came first in this order."""
        wanted = list(wanted)
        eventually(lambda: len(self.first_arrivals()) >= len(wanted), deadline * SLOW_FACTOR,
                   interval=0.2, message=lambda: f"{len(self.first_arrivals())} rows of "
                                                 f"{len(wanted)}")
        assert self.first_arrivals() == wanted


@pytest.fixture
def place(server):
    return Place(server)


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_id_and_headers_are_where_the_documentation_says(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline(message="row", sink={"routing_key": "relay.{op}"},
                                       headers={"source-system": "shop"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1)")
        db.execute("truncate orders")
        eventually(lambda: len(place.messages()) == 2, 20 * SLOW_FACTOR)
    inserted, truncated = place.messages()
    assert inserted.exchange == place.name and inserted.routing_key == "relay.insert"
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", inserted.id)
    body = json.loads(inserted.body)
    assert inserted.headers["pgtrickle-id"] == inserted.id
    assert inserted.headers["pgtrickle-op"] == "insert"
    assert inserted.headers["pgtrickle-stream-table"] == "orders"
    assert inserted.headers["pgtrickle-outbox-id"] == str(body["sequence"])
    assert inserted.headers["source-system"] == "shop"
    assert "pgtrickle-full-refresh" not in inserted.headers
    assert inserted.properties.content_type == "application/json"
    assert inserted.properties.delivery_mode == 2
    assert inserted.properties.type == "insert"
    assert truncated.headers["pgtrickle-full-refresh"] == "true"


def test_bodies_arrive_byte_for_byte(db, place, relay):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", {**place.pipeline(), "stream_table": "events"})
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * (LARGEST - 1000)})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: len(place.messages()) == len(texts), 30 * SLOW_FACTOR)
    stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
    assert [message.body for message in place.messages()] == stored


def test_the_default_exchange_routes_to_the_queue_of_that_name(db, server, place, relay, orders):
    set_outbox(db, "p", {"stream_table": "orders", "sink_type": "rabbitmq",
                         "rabbitmq_url": server.url, "rabbitmq_routing_key": place.name})
    with relay:
        insert_rows(db, "orders", 1)
        place.wait_rows([1])


def test_an_exchange_is_made_where_it_is_absent(db, server, place, relay, orders):
    made = place.name + "-made"
    set_outbox(db, "p", place.pipeline(sink={"exchange": made, "exchange_type": "fanout",
                                             "mandatory": False}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "p", "orders")
    with server.channel() as channel:
        channel.exchange_declare(made, "fanout", durable=True)


def test_an_exchange_that_shall_not_be_made_is_asked_for(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline(sink={"exchange": "absent", "declare": False}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "'absent'.*NOT_FOUND", remedy="make what is missing")
        assert relay.pipeline("p")["state"] == "misconfigured"


def test_an_exchange_of_another_type_is_used_as_it_is(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline(sink={"exchange_type": "fanout"}))
    with relay:
        insert_rows(db, "orders", 1)
        place.wait_rows([1])


# What the broker does not take ---------------------------------------------------------------


def test_what_no_queue_takes_waits_for_one_with_a_clear_error(db, server, place, relay, orders):
    set_outbox(db, "p", place.pipeline(message="row", sink={
        "exchange": place.name + "-x", "routing_key": "relay.{{ name }}"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1)")
        wait_trouble(relay, db, "p", f"routing key 'relay.a'.*'{place.name}-x'", remedy="bind")
        assert relay.pipeline("p")["state"] == "misconfigured"
        with server.channel() as channel:
            channel.queue_bind(place.name, place.name + "-x", "relay.*")
        place.wait_rows([1])
    assert dead_letters(db, "p") == []


def test_without_mandatory_the_broker_drops_what_no_queue_takes(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline(sink={"exchange": place.name + "-y", "mandatory": False}))
    with relay:
        insert_rows(db, "orders", 1, 3)
        wait_settled(db, "p", "orders")
    assert dead_letters(db, "p") == []


def test_a_full_queue_is_waited_for_in_order(db, server, relay, orders):
    place = Place(server, **{"x-max-length": 10, "x-overflow": "reject-publish"},
                  kind="classic")
    set_outbox(db, "p", place.pipeline(message="row", key_template="one"))
    with relay:
        bulk(db, 1, 200)
        wait_trouble(relay, db, "p", "refuses a message", remedy="full")
        # Room comes a little at a time, while the relay tries.
        place.wait_first_arrivals(range(1, 201), 120)
    assert dead_letters(db, "p") == []


def test_what_amqp_cannot_carry_is_set_aside_alone(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline(message="row", sink={"routing_key": "r.{{ name }}"}))
    with relay:
        for identity, name in ((1, "a"), (2, "x" * 300), (3, "b")):
            db.execute("insert into orders values (%s, %s, 0)", (identity, name))
        place.wait_rows([1, 3])
        eventually(lambda: [letter[1] for letter in dead_letters(db, "p")]
                   == ["routing_key_too_long"])


# Faults ------------------------------------------------------------------------------------


def test_a_connection_that_ended_while_nothing_was_sent_is_replaced_unseen(db, server, place, relay,
                                                                           orders):
    with FaultProxy(server.port) as proxy:
        set_outbox(db, "p", place.pipeline(port=proxy.port))
        with relay:
            insert_rows(db, "orders", 1)
            place.wait_rows([1])
            proxy.cut_once()
            insert_rows(db, "orders", 2)
            place.wait_rows([1, 2])
            assert relay.metric("delivery_errors_total", pipeline="p") == 0


def test_a_broker_without_memory_is_waited_for(db, server, place, relay, orders):
    set_outbox(db, "p", place.pipeline())
    with relay:
        insert_rows(db, "orders", 1)
        place.wait_rows([1])
        server.set_memory_limit('{absolute, "1"}')
        try:
            insert_rows(db, "orders", 2, 5)
            holds_for(lambda: relay.running and dead_letters(db, "p") == [], 2)
        finally:
            server.set_memory_limit("0.6")
        place.wait_first_arrivals(range(1, 7), 60)
    assert dead_letters(db, "p") == []


def test_the_second_broker_of_the_list_serves(db, server, place, relay, orders):
    set_outbox(db, "p", place.pipeline(sink={"url": f"amqp://127.0.0.1:1,{server.url}"}))
    with relay:
        insert_rows(db, "orders", 1)
        place.wait_rows([1])


def test_tls_is_verified_and_a_wrong_authority_is_named_while_others_run(db, server, authority,
                                                                         place, relay, orders):
    url = f"amqps://127.0.0.1:{server.tls_port}"
    set_outbox(db, "trusted", place.pipeline(message="row",
                                             sink={"url": url, "tls_ca": authority.ca}))
    set_outbox(db, "wrong-ca", place.pipeline(sink={"url": url, "tls_ca": Authority("other").ca}))
    set_outbox(db, "no-ca", place.pipeline(sink={"url": url}))
    set_outbox(db, "not-tls", place.pipeline(sink={"url": f"amqps://127.0.0.1:{server.port}",
                                                   "tls_ca": authority.ca}))
    with relay:
        bulk(db, 1, 2000, size=300)
        for name in ("wrong-ca", "no-ca"):
            wait_trouble(relay, db, name, "certificate .* not trusted", remedy="tls_ca")
            assert relay.pipeline(name)["state"] == "misconfigured"
        wait_trouble(relay, db, "not-tls", "connecting")
        place.wait_rows(range(1, 2001))
        assert relay.pipeline("trusted")["last_error"] is None


def test_the_name_in_the_certificate_is_verified(db, relay, orders):
    authority = Authority()
    certificate, key = authority.certificate("server", "DNS:elsewhere.example")
    server = RabbitServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    try:
        for name in ("127.0.0.1", "localhost"):
            set_outbox(db, name, {"stream_table": "orders", "sink": {
                "type": "rabbitmq", "url": f"amqps://{name}:{server.tls_port}",
                "tls_ca": authority.ca}})
        with relay:
            insert_rows(db, "orders", 1)
            wait_trouble(relay, db, "127.0.0.1", "certificate .* not trusted: .*IP")
            wait_trouble(relay, db, "localhost", "certificate .* not trusted: .*hostname")
    finally:
        server.stop()


def test_wrong_credentials_and_an_absent_vhost_are_told(db, place, relay, orders):
    set_outbox(db, "password", place.pipeline(sink={"password": "guessed"}))
    set_outbox(db, "vhost", place.pipeline(sink={"vhost": "nowhere"}))
    set_outbox(db, "right", place.pipeline())
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "password", "logging in.*ACCESS_REFUSED", remedy="password")
        wait_trouble(relay, db, "vhost", "nowhere", remedy="virtual host")
        for name in ("password", "vhost"):
            assert relay.pipeline(name)["state"] == "misconfigured"
        place.wait_rows([1])
        assert "guessed" not in relay.log(1000)


def test_a_stop_under_load_is_clean(db, place, relay, orders):
    set_outbox(db, "p", place.pipeline())
    written = rows_written_through_a_stop(db, relay)
    place.wait_rows(written)
    relay.stop()


# Looking ----------------------------------------------------------------------------------------


def has_exchange(server, name):
    try:
        with server.channel() as channel:
            channel.exchange_declare(name, passive=True)
        return True
    except pika.exceptions.ChannelClosedByBroker:
        return False


def test_check_names_what_is_absent_and_makes_nothing(db, server, orders):
    at = {"type": "rabbitmq", "url": server.url}
    server.queue("there", exchange="events", keys=("orders",))
    checks.forward(db, "no_queue", at | {"routing_key": "gone"})
    checks.forward(db, "queue", at | {"routing_key": "there"})
    checks.forward(db, "template", at | {"routing_key": "gone-{op}"})
    checks.forward(db, "dropped", at | {"routing_key": "gone", "mandatory": False})
    checks.forward(db, "no_exchange", at | {"exchange": "gone", "declare": False})
    checks.forward(db, "exchange", at | {"exchange": "events"})
    checks.forward(db, "other_type", at | {"exchange": "events", "exchange_type": "fanout"})
    checks.forward(db, "made", at | {"exchange": "made"})
    checks.reverse(db, "read_gone", at | {"queue": "gone", "declare": False})
    checks.reverse(db, "read_made", at | {"queue": "made"})
    checks.reverse(db, "read_there", at | {"queue": "there", "bind": {"gone": "#"}})
    code, told = checks.check(db)
    assert code == 3
    checks.the_problem(told, "no_queue", "no queue 'gone'", "rabbitmqadmin declare queue name=gone")
    checks.the_problem(told, "no_exchange", "no exchange 'gone'",
                "rabbitmqadmin declare exchange name=gone")
    assert any("'events'" in message and "used as it is" in remedy
               for message, remedy in checks.warnings(told, "other_type"))
    checks.the_problem(told, "read_gone", "no queue 'gone'", "rabbitmqadmin declare queue name=gone")
    checks.the_problem(told, "read_there", "no exchange 'gone'", "rabbitmqadmin declare exchange")
    checks.no_problem(told, "queue", "template", "dropped", "exchange", "made", "read_made",
                      "other_type")
    assert any("are dropped" in message for message, _ in checks.warnings(told, "dropped"))
    assert any("no queue is bound to it yet" in message for message, _ in checks.warnings(told, "made"))
    assert any("'made' is made by the relay" in note for note in checks.notes(told, "read_made"))
    assert not server.exists("gone") and not server.exists("made") and server.count("there") == 0
    assert not has_exchange(server, "gone") and not has_exchange(server, "made")
