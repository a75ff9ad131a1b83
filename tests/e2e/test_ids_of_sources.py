"""Ids of sources: two pipelines of each broker into one inbox, with equal ids on purpose.

A place is what a pipeline reads: a stream, a queue, a topic, a receiver. Both places of a broker get
messages with the same ids, some with the same payload and some with another one, and one of the two is
deleted and made again, so that its broker gives out the same numbers once more.
"""

import collections
import http.client
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest

from support import sqs_server
from support.fixtures import need
from support.kafka_server import KafkaServer
from support.nats_client import NatsError
from support.nats_server import NatsServer
from support.pipelines import SLOW_FACTOR
from support.processes import free_port
from support.rabbitmq_server import RabbitServer, available
from support.redis_server import RedisServer
from support.relay import Relay, run_command
from support.sqs_server import KEYS, REGION, SqsServer
from support.waiting import eventually

SAME = "same"  # the payload that messages of both places, and of each life of a place, have


# The brokers -------------------------------------------------------------------------------
# send() publishes what `bodies` says, with ids "k0", "k1", ... (from `first` on) where a publisher gives
# ids, and with the numbers that the broker draws where `anonymous`. waiting() counts what is not acknowledged.


class Nats:
    name, anonymous = "nats", True
    plain = "header:Nats-Msg-Id"

    def __init__(self):
        self.server = NatsServer()

    def make(self, place):
        with self.server.client() as client:
            client.create_stream(place, f"{place}.>", duplicate_window=0.1)

    def drop(self, place):
        with self.server.client() as client:
            client.delete_stream(place)

    def send(self, place, bodies, anonymous=False, first=0):
        with self.server.client() as client:
            for n, body in enumerate(bodies, first):
                client.publish_acknowledged(f"{place}.x", body,
                                            {} if anonymous else {"Nats-Msg-Id": f"k{n}"})

    def source(self, place):
        return {"type": "nats", "url": self.server.url, "stream": place, "consumer": "relay",
                "ack_wait": "1s"}

    def waiting(self, place):
        with self.server.client() as client:
            try:
                info = client._api(f"CONSUMER.INFO.{place}.relay")
            except NatsError as error:
                raise OSError(str(error)) from error
            return info["num_pending"] + info["num_ack_pending"]


class Redis:
    name, anonymous = "redis", False
    plain = "header:name"

    def __init__(self):
        self.server = RedisServer(durable=False)

    def make(self, place):
        pass

    def drop(self, place):
        with self.server.client() as client:
            client.delete(place)

    def send(self, place, bodies, anonymous=False, first=0):
        with self.server.client() as client:
            for n, body in enumerate(bodies, first):
                client.xadd(place, {"payload": body, "name": f"k{n}"}, id=f"{n + 1}-0")

    def source(self, place):
        return {"type": "redis", "url": self.server.url, "stream_key": place, "group": "g",
                "consumer": "c"}

    def waiting(self, place):
        with self.server.client() as client:
            group = next(g for g in client.xinfo_groups(place) if g["name"] == b"g")
            return group["pending"] + client.xlen(place) - (group["entries-read"] or 0)


class Rabbit:
    name, anonymous = "rabbitmq", False
    plain = "header:message-id"

    def __init__(self):
        self.server = RabbitServer()
        self.life = collections.Counter()

    def make(self, place):
        self.life[place] += 1
        self.server.queue(place, "classic")

    def drop(self, place):
        with self.server.channel() as channel:
            channel.queue_delete(place)

    def send(self, place, bodies, anonymous=False, first=0):
        life = self.life[place]
        with self.server.channel() as channel:
            channel.confirm_delivery()
            for n, body in enumerate(bodies, first):
                channel.basic_publish("", place, body, pika.BasicProperties(
                    message_id=key_of(n, life), delivery_mode=2), mandatory=True)

    def source(self, place):
        return {"type": "rabbitmq", "url": self.server.url, "queue": place,
                "queue_type": "classic"}

    def waiting(self, place):
        return self.server.held(place)


class Sqs:
    name, anonymous = "sqs", False
    plain = "header:MessageDeduplicationId"

    def __init__(self):
        self.server = SqsServer()
        self.urls = {}

    def make(self, place):
        self.urls[place] = self.server.queue(f"{place}.fifo", VisibilityTimeout=2)

    def drop(self, place):
        self.server.client().delete_queue(QueueUrl=self.urls[place])

    def send(self, place, bodies, anonymous=False, first=0):
        for n, body in enumerate(bodies, first):
            self.server.client().send_message(
                QueueUrl=self.urls[place], MessageBody=body.decode(), MessageGroupId="g",
                MessageDeduplicationId=f"k{n}")

    def source(self, place):
        return {"type": "sqs", "queue_url": self.urls[place], "region": REGION,
                "endpoint": self.server.endpoint, "wait": "1s", "visibility_timeout": "2s",
                "timeout": "3s", **KEYS}

    def waiting(self, place):
        return self.server.count(self.urls[place])


class Kafka:
    name, anonymous = "kafka", False
    plain = "header:name"

    def __init__(self):
        self.server = KafkaServer()
        self.sent = collections.Counter()

    def make(self, place):
        self.sent[place] = 0
        self.server.create_topic(place)

    def drop(self, place):
        self.server.delete_topic(place)

    def send(self, place, bodies, anonymous=False, first=0):
        self.server.publish(place, [{"value": body, "headers": {"name": f"k{n}"}}
                                    for n, body in enumerate(bodies, first)])
        self.sent[place] += len(bodies)

    def source(self, place):
        return {"type": "kafka", "brokers": self.server.brokers, "topic": place,
                "group_id": f"g-{place}"}

    def waiting(self, place):
        return self.sent[place] - self.server.committed(f"g-{place}", place).get(0, 0)


class Webhook:
    """The relay is the server, so that a place is a port; it never ends."""
    name, anonymous = "webhook", False
    plain = "header:Idempotency-Key"
    server = None

    def __init__(self):
        self.ports = collections.defaultdict(free_port)
        self.sender = ThreadPoolExecutor(8)
        self.unanswered = collections.Counter()
        self.life = collections.Counter()

    def make(self, place):
        self.life[place] += 1

    def drop(self, place):
        pass

    def send(self, place, bodies, anonymous=False, first=0):
        for n, body in enumerate(bodies, first):
            self.unanswered[place] += 1
            self.sender.submit(self._send, place, body, key_of(n, self.life[place]))

    def _send(self, place, body, key):
        """Until it is answered with 200, as a client that wants to be safe."""
        def answered():
            client = http.client.HTTPConnection("127.0.0.1", self.ports[place], timeout=30)
            try:
                client.request("POST", "/inbox", body, {"Content-Type": "application/json",
                                                        "Idempotency-Key": key})
                return client.getresponse().status == 200
            except http.client.HTTPException as error:
                raise OSError(str(error)) from error
            finally:
                client.close()
        eventually(answered, 60 * SLOW_FACTOR, interval=0.1)
        self.unanswered[place] -= 1

    def source(self, place):
        return {"type": "webhook", "listen": f"127.0.0.1:{self.ports[place]}"}

    def waiting(self, place):
        return self.unanswered[place]


def key_of(n, life):
    """An id that is its publisher's: it ends with no queue, and so is used once."""
    return f"k{n}" if life == 1 else f"k{n}.{life}"


KINDS = (Nats, Redis, Rabbit, Sqs, Kafka, Webhook)


@pytest.fixture(scope="module")
def brokers():
    need(shutil.which("nats-server"), "nats-server")
    need(shutil.which("redis-server"), "redis-server")
    need(available(), "rabbitmq-server")
    need(sqs_server.missing() is None, "SQS")
    made = [kind() for kind in KINDS]
    need(next(b for b in made if b.name == "kafka").server.real, "a real Kafka")
    with ThreadPoolExecutor(len(made)) as starting:
        list(starting.map(lambda broker: broker.server and broker.server.start(), made))
    yield made
    for broker in made:
        if broker.server:
            broker.server.stop()


# The pipelines -----------------------------------------------------------------------------


def set_pipeline(db, name, source, inbox, **options):
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => true)",
               (name, json.dumps({"source": source, **options,
                                  "sink": {"type": "inbox", "inbox_name": inbox}})))


def stored(db, inbox):
    """How often each payload of each pipeline is in the inbox."""
    return collections.Counter(db.execute(
        f"select source, payload #>> '{{}}' from pgtrickle.inbox_{inbox}"))


class Both:
    """Two places of each broker, the pipelines from them, and what was published."""

    def __init__(self, db, brokers, relay):
        self.db, self.brokers, self.relay = db, brokers, relay
        self.expected = {broker.name: collections.Counter() for broker in brokers}
        self.round = 0
        for broker in brokers:
            db.execute("select pgtrickle.create_inbox(%s)", (broker.name,))
            for place in self.places(broker):
                broker.make(place)
                set_pipeline(db, place, broker.source(place), broker.name)

    @staticmethod
    def places(broker):
        return f"{broker.name}-a", f"{broker.name}-b"

    def send(self, broker, places, first=0):
        """The same ids everywhere; equal payloads and different ones."""
        for place in places:
            own = f"{place}.{self.round}"
            for anonymous in (False, True) if broker.anonymous else (False,):
                payloads = [SAME, f"{own}.{anonymous}", SAME]
                broker.send(place, [json.dumps(p).encode() for p in payloads], anonymous, first)
                self.expected[broker.name].update((place, p) for p in payloads)

    def each(self, act):
        with ThreadPoolExecutor(len(self.brokers)) as acting:
            list(acting.map(act, self.brokers))

    def publish(self, first=0):
        self.round += 1
        self.each(lambda broker: self.send(broker, self.places(broker), first))

    def make_again(self):
        """Deletes the first place of each broker, and makes it again with the same ids in it."""
        self.round += 1

        def again(broker):
            place = self.places(broker)[0]
            broker.drop(place)
            broker.make(place)
            self.send(broker, [place])
        self.each(again)

    def wait_stored(self):
        for broker in self.brokers:
            wanted = self.expected[broker.name]
            eventually(lambda: stored(self.db, broker.name).total() >= wanted.total(),
                       60 * SLOW_FACTOR, interval=0.05, message=lambda: self.story(broker))
            assert stored(self.db, broker.name) == wanted, self.story(broker)

    def wait_acknowledged(self, *names):
        """At all brokers, or at those."""
        for broker in self.brokers:
            if names and broker.name not in names:
                continue
            for place in self.places(broker):
                eventually(lambda: broker.waiting(place) == 0, 60 * SLOW_FACTOR, interval=0.1,
                           message=lambda: f"{place}: {broker.waiting(place)} are waiting")

    def story(self, broker):
        found, wanted = stored(self.db, broker.name), self.expected[broker.name]
        return f"{broker.name}: missing {wanted - found}, too often {found - wanted}\n" \
               f"{self.relay.log(60)}"


def test_equal_ids_of_two_sources_and_of_two_lives_of_a_source_are_different_messages(
        db, brokers, relay_bin):
    relay = Relay(db.relay_dsn, pool_size=16)
    both = Both(db, brokers, relay)
    with relay:
        both.publish()
        both.wait_stored()
        both.wait_acknowledged("kafka")  # docs/backends/kafka.md: only then it tells two lives apart
        both.make_again()  # while the relay reads it
        both.wait_stored()
        both.wait_acknowledged()
    both.make_again()  # while no relay does
    with relay:
        both.wait_stored()
        both.wait_acknowledged()
        kill_before_acknowledging(both)
    with relay:
        both.wait_acknowledged()
        both.wait_stored()
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def stored_of(both, place):
    table = place.split("-")[0]
    return both.db.one(f"select count(*) from pgtrickle.inbox_{table} where source = %s", (place,))


def kill_before_acknowledging(both):
    """What the relay has of each place is stored, and no broker hears of it."""
    places = [place for broker in both.brokers for place in both.places(broker)]
    before = {place: stored_of(both, place) for place in places}
    lock = both.db.connect(autocommit=False)
    for broker in both.brokers:
        lock.execute(f"lock table pgtrickle.inbox_{broker.name} in exclusive mode")
    both.publish(first=100)

    def blocked():
        return dict(both.db.execute(
            "select relation::regclass::text, count(*) from pg_locks"
            " where not granted and relation is not null group by 1"))
    eventually(lambda: all(blocked().get(f"pgtrickle.inbox_{broker.name}", 0) >= 2
                           for broker in both.brokers), 60 * SLOW_FACTOR,
               message=lambda: f"{blocked()}\n{both.relay.log(60)}")
    for broker in both.brokers:
        if broker.server:
            broker.server.freeze()
    try:
        lock.rollback()
        lock.close()
        eventually(lambda: all(stored_of(both, place) > before[place] for place in places),
                   60 * SLOW_FACTOR, message=lambda: [
                       place for place in places if stored_of(both, place) == before[place]])
        both.relay.kill9()
    finally:
        for broker in both.brokers:
            if broker.server:
                broker.server.thaw()


def test_id_from_takes_an_id_as_it_is_for_all_sources(db, brokers, relay):
    """Of several places it is then one message."""
    for broker in brokers:
        db.execute("select pgtrickle.create_inbox(%s)", (f"plain_{broker.name}",))
        for place in (f"{broker.name}-p1", f"{broker.name}-p2"):
            broker.make(place)
            set_pipeline(db, place, {**broker.source(place), "id_from": broker.plain,
                                    "event_type_from": "template:same"},
                         f"plain_{broker.name}")
            broker.send(place, [b'"one"', b'"two"'])
    with relay:
        for broker in brokers:
            for place in (f"{broker.name}-p1", f"{broker.name}-p2"):
                eventually(lambda: broker.waiting(place) == 0, 60 * SLOW_FACTOR, interval=0.1)
            assert db.execute(f"select event_id, payload from pgtrickle.inbox_plain_{broker.name}"
                              " order by 1") == [("k0", "one"), ("k1", "two")], broker.name


def test_an_id_that_its_publisher_uses_again_for_another_message_swallows_none(db, brokers, relay):
    need("on_id_conflict" in run_command("options").stdout, "the inbox's rule for such ids")
    givers = [broker for broker in brokers if broker.name in ("nats", "rabbitmq", "webhook")]

    def payloads(broker):
        return sorted(row[0] for row in db.execute(
            f"select payload #>> '{{}}' from pgtrickle.inbox_again_{broker.name}"))

    for broker in givers:
        db.execute("select pgtrickle.create_inbox(%s)", (f"again_{broker.name}",))
        broker.make(f"{broker.name}-c")
        set_pipeline(db, f"{broker.name}-c", broker.source(f"{broker.name}-c"),
                     f"again_{broker.name}")
    with relay:
        for n, body in enumerate(("first", "second", "second")):
            for broker in givers:
                if n == 1 and broker.name == "rabbitmq":
                    broker.drop("rabbitmq-c")
                    broker.server.queue("rabbitmq-c", "classic")
                if broker.name == "nats":  # behind the window in which the stream drops it
                    with broker.server.client() as client:
                        eventually(lambda: broker.send("nats-c", [json.dumps(body).encode()])
                                   or client.count("nats-c") > n, interval=0.15)
                else:
                    broker.send(f"{broker.name}-c", [json.dumps(body).encode()])
            for broker in givers:
                wanted = sorted({"first", body})
                eventually(lambda: payloads(broker) == wanted, 30 * SLOW_FACTOR,
                           message=lambda: f"{broker.name}: {payloads(broker)}\n{relay.log(40)}")
                eventually(lambda: broker.waiting(f"{broker.name}-c") == 0, 30 * SLOW_FACTOR)
    for broker in givers:
        assert payloads(broker) == ["first", "second"], broker.name
