"""Where the drains of scripts/bench go, and where its sources read: real servers, set up for speed as
a user would for throughput, and counted by their own clients."""

import http.client
import pathlib
import subprocess

from support.kafka_server import KafkaServer
from support.nats_server import NatsServer
from support.rabbitmq_server import RabbitServer
from support.redis_server import RedisServer
from support.sqs_server import KEYS, REGION, SqsServer


class Destination:
    """One running server. A place is a stream, topic, key or queue of it."""

    name = ""
    what = ""          # how the server is set up, for the table
    options = {}       # of the pipeline
    unit = "messages/s"

    def __init__(self, programs):
        """`programs` is the folder of the bench programs."""
        self.programs = pathlib.Path(programs)

    def stop(self):
        self.server.stop()

    def prepare(self, place):
        """Makes the place, empty."""

    def sink(self, place):
        """The sink of a pipeline."""
        raise NotImplementedError

    def limit(self, place):
        """The arguments of the limit program behind the outbox and the batch size."""
        raise NotImplementedError

    def count(self, place):
        raise NotImplementedError

    def source(self, place):
        """The source of a pipeline that reads what sink() or the limit program wrote."""
        raise NotImplementedError

    def limit_source(self, place):
        """The arguments of the limit program that reads it, behind the number of messages."""
        raise NotImplementedError

    def forget(self, place):
        """Gives the memory or disk of a place back."""


class Nats(Destination):
    name, what = "nats", "file stream with ids"

    def __init__(self, programs):
        super().__init__(programs)
        self.server = NatsServer().start()
        self._client = self.server.client().__enter__()

    def prepare(self, place):
        self._client.create_stream(place, f"{place}.>")

    def sink(self, place):
        return {"type": "nats", "url": self.server.url, "subject": f"{place}.orders"}

    def limit(self, place):
        return [self.server.url, f"{place}.orders", place]

    def source(self, place):
        return {"type": "nats", "url": self.server.url, "stream": place, "consumer": "relay"}

    def limit_source(self, place):
        return [self.server.url, place]

    def count(self, place):
        return self._client.count(place)

    def forget(self, place):
        self._client.delete_stream(place)

    def stop(self):
        self._client.close()
        super().stop()


class Kafka(Destination):
    name, what = "kafka", "one partition, acks=all, lz4"

    def __init__(self, programs):
        super().__init__(programs)
        self.server = KafkaServer().start()
        self._readers = {}

    def prepare(self, place):
        self.server.create_topic(place)
        self._readers[place] = self.server.reader(place)

    def sink(self, place):
        return {"type": "kafka", "brokers": f"127.0.0.1:{self.server.port}", "topic": place}

    def limit(self, place):
        return [f"127.0.0.1:{self.server.port}", place, place]

    def source(self, place):
        return {"type": "kafka", "brokers": f"127.0.0.1:{self.server.port}", "topic": place,
                "group_id": f"relay-{place}"}

    def limit_source(self, place):
        return [f"127.0.0.1:{self.server.port}", place]

    def count(self, place):
        return self._readers[place].count()


class Redis(Destination):
    name, what = "redis", "no persistence"

    def __init__(self, programs):
        super().__init__(programs)
        self.server = RedisServer(durable=False).start()
        self._client = self.server.client()

    def sink(self, place):
        return {"type": "redis", "url": self.server.url, "stream_key": place}

    def limit(self, place):
        return [self.server.url, place, place]

    def source(self, place):
        return {"type": "redis", "url": self.server.url, "stream_key": place}

    def limit_source(self, place):
        return [self.server.url, place]

    def count(self, place):
        return self._client.xlen(place)

    def forget(self, place):
        self._client.delete(place)


class RabbitMq(Destination):
    name, what = "rabbitmq", "quorum queue, persistent, mandatory"

    def __init__(self, programs):
        super().__init__(programs)
        self.server = RabbitServer().start()

    def prepare(self, place):
        self.server.queue(place, "quorum", place)

    def sink(self, place):
        return {"type": "rabbitmq", "url": self.server.url, "exchange": place,
                "routing_key": "rows"}

    def limit(self, place):
        return [self.server.url, place, place]

    def source(self, place):
        return {"type": "rabbitmq", "url": self.server.url, "queue": place}

    def limit_source(self, place):
        return [self.server.url, place]

    def count(self, place):
        return self.server.count(place)

    def forget(self, place):
        with self.server.channel() as channel:
            channel.queue_delete(place)


class Sqs(Destination):
    name, what = "sqs", "ElasticMQ, standard queue, ten messages a request"
    options = {"message": "row"}  # with one key all is one after the other, by promise

    def __init__(self, programs):
        super().__init__(programs)
        self.server = SqsServer(java=["-Xms1g", "-Xmx4g"]).start()
        self._urls = {}

    def prepare(self, place):
        self._urls[place] = self.server.queue(place)

    def sink(self, place):
        return {"type": "sqs", "queue_url": self._urls[place], "region": REGION,
                "endpoint": self.server.endpoint, **KEYS}

    def limit(self, place):
        return [self.server.endpoint, self._urls[place], place]

    def source(self, place):
        return {"type": "sqs", "queue_url": self._urls[place], "region": REGION,
                "endpoint": self.server.endpoint, **KEYS}

    def limit_source(self, place):
        return [self.server.endpoint, self._urls[place]]

    def count(self, place):
        return self.server.count(self._urls[place])

    def forget(self, place):
        self.server.client().delete_queue(QueueUrl=self._urls[place])


class HttpProgram:
    """A program of bench/ that serves HTTP at `port` until it is stopped."""

    def __init__(self, *command):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True)
        self.port = int(self._process.stdout.readline())

    def stop(self):
        self._process.stdin.close()
        assert self._process.wait(10) == 0


class Webhook(Destination):
    name, what, unit = "webhook", "one request a row, 16 in flight", "requests/s"
    options = {"message": "row"}  # with one key all is one after the other, by promise

    def __init__(self, programs):
        super().__init__(programs)
        self.server = HttpProgram(self.programs / "http_target")
        self.port = self.server.port
        self._before = 0

    def prepare(self, place):
        self._before = self._posts()

    def sink(self, place):
        return {"type": "webhook", "url": f"http://127.0.0.1:{self.port}/{place}",
                "allow_private": True}

    def limit(self, place):
        return [f"http://127.0.0.1:{self.port}/{place}", place]

    def _posts(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/")
        return int(connection.getresponse().read())

    def count(self, place):
        return self._posts() - self._before


class Inbox(Destination):
    name, what, unit = "pg-inbox", "another database of the same server", "rows/s"

    def __init__(self, programs, database):
        super().__init__(programs)
        self._database = database

    def prepare(self, place):
        self._database.execute("select pgtrickle.create_inbox(%s)", (place,))

    def sink(self, place):
        return {"type": "pg-inbox", "url": self._database.dsn, "inbox_name": place}

    def limit(self, place):
        return [self._database.dsn, f"inbox_{place}", place]

    def count(self, place):
        return self._database.one(f"select count(*) from pgtrickle.inbox_{place}")

    def stop(self):
        self._database.drop()


ALL = (Nats, Kafka, Redis, RabbitMq, Sqs, Webhook, Inbox)
