"""A throw-away SQS: ElasticMQ on loopback, and boto3 as the client that knows nothing of the relay.

It keeps its queues in memory: `start` after a kill makes them again, empty. With `durable` it keeps
queues and messages on disk, which is slower. What it then forgets when it is killed is which
deduplication ids it has had.
"""

import os

import botocore.exceptions

from . import maven_jars
from .pipelines import LONG
from .processes import Process, free_port, temporary_directory
from .proxy import FaultProxy
from .server import Server
from .sqs_faults import FaultyDoor
from .waiting import eventually

REGION = "eu-west-1"
KEYS = {"access_key_id": "AKIATESTTESTTESTTEST", "secret_access_key": "a-secret-of-the-tests"}
_NAME, _JARS = "elasticmq-1.7.1", "elasticmq_jars.txt"
# A million messages need more than a gigabyte.
_JAVA = ["-Xms128m", f"-Xmx{6 if LONG else 1}g", "-XX:+UseSerialGC", "-Xshare:auto"]
_CONFIG = """include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {own_port}, sqs-limits = strict }}
rest-stats.enabled = false
aws {{ region = "{region}", accountId = "123456789012" }}
"""
_DURABLE = """
queues-storage {{ enabled = true, path = "{directory}/queues.conf" }}
messages-storage {{ enabled = true, uri = "jdbc:h2:{directory}/messages;WRITE_DELAY=0" }}
"""


def missing():
    """Why there can be no SQS; None where there can."""
    return maven_jars.missing("ElasticMQ", _NAME, _JARS)


class SqsServer(Server):
    """ElasticMQ; `queue(name)` makes queues and gives their URL."""

    def __init__(self, durable=False, java=_JAVA):
        self._own_port = self.port = free_port()
        # ElasticMQ serves before it has its queues and messages back: `port` opens when it has.
        self._gate = FaultProxy(self._own_port) if durable else None
        if self._gate:
            self.port = self._gate.port
        self.directory = temporary_directory("sqs")
        self.log_path = os.path.join(self.directory, "log")
        self._config = os.path.join(self.directory, "elasticmq.conf")
        with open(self._config, "w") as config:
            config.write(_CONFIG.format(port=self.port, own_port=self._own_port, region=REGION))
            if durable:
                config.write(_DURABLE.format(directory=self.directory))
        self._java = java
        self._queues = {}
        self._door = None
        self._client = None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        if self._gate:
            self._gate.cut()
        with open(self.log_path, "ab") as log:
            begin = log.tell()
            self.process = Process(["java", *self._java, f"-Dconfig.file={self._config}", "-cp",
                                    maven_jars.classpath(_NAME, _JARS), "org.elasticmq.server.Main"],
                                   stdout=log, stderr=log)
        if self._gate:
            eventually(lambda: self._restored(begin), 60, message=self.log)
            self._gate.restore()
        eventually(lambda: self.client().list_queues() is not None, 60, message=self.log)
        if not self._gate:
            for name, attributes in self._queues.items():
                self.client().create_queue(QueueName=name, Attributes=attributes)
        return self

    def _restored(self, begin):
        """Whether it says so of each queue, in its log behind `begin`."""
        with open(self.log_path, "rb") as log:
            log.seek(begin)
            said = log.read().decode(errors="replace")
        return "ElasticMQ server" in said and all(
            f"messages in queue {name}\n" in said for name in self._queues)

    def stop(self):
        if self.process is not None:
            self.process.thaw()
            self.kill9()
        if self._door is not None:
            self._door.close()
            self._door = None

    def client(self):
        import boto3
        from botocore.config import Config
        if self._client is None:
            self._client = boto3.client(
                "sqs", endpoint_url=self.endpoint, region_name=REGION,
                aws_access_key_id="other", aws_secret_access_key="other",
                config=Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=10))
        return _OsErrors(self._client)

    def queue(self, name, **attributes):
        """Makes a queue (a name ending in .fifo: a FIFO queue); its URL."""
        texts = {key: str(value) for key, value in attributes.items()}
        if name.endswith(".fifo"):
            texts["FifoQueue"] = "true"
        self._queues[name] = texts
        return self.client().create_queue(QueueName=name, Attributes=texts)["QueueUrl"]

    def count(self, url):
        """Messages in the queue, those in work included."""
        return sum(self.counts(url))

    def counts(self, url):
        """Messages that a reader could have now, and those in work."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.client().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return tuple(int(got[name]) for name in names)

    def faults(self, *faults):
        """What goes wrong from now on at `relay_port`: see sqs_faults.py."""
        if faults and self._door is None:
            self._door = FaultyDoor(self.port)
        if self._door is not None:
            self._door.faults = list(faults)
            self._door.requests.clear()

    def limit(self, largest):
        """From now on each queue's MaximumMessageSize is so many bytes, at `relay_port`: ElasticMQ
        has no such attribute, and takes up to 1 MiB."""
        self.faults({"action": "GetQueueAttributes",
                     "attributes": {"MaximumMessageSize": str(largest)}},
                    {"action": "SendMessageBatch", "largest": largest})

    def requests(self):
        """The sizes of the entries of each SendMessageBatch since `limit`."""
        return list(self._door.requests)

    @property
    def relay_port(self):
        """Where a relay has to connect: to the server, or to the door before it that has faults."""
        return self._door.port if self._door is not None and self._door.faults else self.port


class _OsErrors:
    """A boto3 client whose connection errors are OSErrors, as `eventually` expects."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        call = getattr(self._client, name)

        def checked(*arguments, **options):
            try:
                return call(*arguments, **options)
            except botocore.exceptions.BotoCoreError as error:
                raise OSError(str(error)) from error
        return checked


class Inbox:
    """Takes messages out of a queue and keeps them, in the order in which they came. A message whose
    deletion did not get through comes again, with the same MessageId: it is kept once."""

    def __init__(self, server, url):
        self._server, self._url = server, url
        self._known = set()
        self.messages = []

    def read(self):
        """What came so far: boto3's messages, each with `attributes` as plain texts. While messages
        keep coming it returns after a thousand new ones, or after as many as it had before."""
        client = self._server.client()
        for _ in range(max(100, len(self.messages) // 10)):
            got = client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=10, AttributeNames=["All"],
                MessageAttributeNames=["All"], VisibilityTimeout=20).get("Messages", [])
            if not got:
                break
            for message in got:
                if message["MessageId"] in self._known:
                    continue
                self._known.add(message["MessageId"])
                message["attributes"] = {name: value["StringValue"] for name, value
                                         in message.get("MessageAttributes", {}).items()}
                self.messages.append(message)
            done = client.delete_message_batch(QueueUrl=self._url, Entries=[
                {"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]}
                for i, message in enumerate(got)])
            assert not done.get("Failed"), done["Failed"]
        return self.messages
