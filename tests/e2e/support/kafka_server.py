"""A throw-away Kafka: one KRaft node from the published Java artifacts.

Where these cannot be had, librdkafka's mock cluster stands in (`server.real` is False and
`server.why_mock` says why): it speaks the protocol, but cannot be killed, frozen or secured.
"""

import os
import shutil
import subprocess
import tempfile

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from . import maven_jars
from .processes import Process, free_port, temporary_directory
from .server import Server
from .waiting import eventually

_VERSION = "3.9.1"
_NAME, _JARS = f"kafka-{_VERSION}", "kafka_jars.txt"
_CLUSTER = "cmVsYXktdGVzdHMta2Fma2"  # 16 bytes in base64, as KRaft wants it
_JAVA = ["-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
_LOG4J = """log4j.rootLogger=WARN, stderr
log4j.logger.kafka=INFO
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %m (%c)%n
"""


# The server --------------------------------------------------------------------------------


class KafkaServer(Server):
    """Kafka on loopback with its own log directory; it keeps ports and data over restarts.

    `port` is what the relay uses: in the clear, or as `sasl` = (user, password) and `tls` = a dict
    with `cert` and `key` (and `ca`: client certificates are then required) say. `internal_port` is
    always in the clear and always reachable, for the tests' own clients. `acl` turns
    authorisation on (then the internal side is a super user).
    """

    patience = 20

    def __init__(self, sasl=None, tls=None, properties=None, acl=False):
        self.why_mock = maven_jars.missing("Kafka", _NAME, _JARS)
        self.real = self.why_mock is None
        self.sasl, self.tls, self.acl = sasl, tls, acl
        self._mock = None
        self._clients = []
        if not self.real:
            if os.environ.get("REQUIRE_ALL") == "1":
                raise RuntimeError(self.why_mock)
            print(f"Kafka is librdkafka's mock cluster: {self.why_mock}")
            if sasl or tls or acl:
                raise NotImplementedError(self.why_mock)
            return
        self.port, self.internal_port, self._controller_port = (free_port() for _ in range(3))
        self.advertised_port = self.port
        self.directory = temporary_directory("kafka")
        self.data = os.path.join(self.directory, "data")
        self.config_path = os.path.join(self.directory, "server.properties")
        self.log_path = os.path.join(self.directory, "kafka.log")
        self._properties = properties or {}
        with open(os.path.join(self.directory, "log4j.properties"), "w") as config:
            config.write(_LOG4J)
        self._write_config()

    def _write_config(self):
        client = {(False, False): "PLAINTEXT", (False, True): "SSL", (True, False): "SASL_PLAINTEXT",
                  (True, True): "SASL_SSL"}[(bool(self.sasl), bool(self.tls))]
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": f"CLIENT://127.0.0.1:{self.port},INTERNAL://127.0.0.1:{self.internal_port},"
                         f"CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{self.advertised_port},"
                                    f"INTERNAL://127.0.0.1:{self.internal_port}",
            "listener.security.protocol.map":
                f"CLIENT:{client},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.data,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            "log.cleaner.dedupe.buffer.size": 2 << 20,
            # After a kill the broker may register again only when its old session has ended.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }
        if self.sasl:
            user, password = self.sasl
            settings |= {
                "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.client.plain.sasl.jaas.config":
                    "org.apache.kafka.common.security.plain.PlainLoginModule required "
                    f'user_{user}="{password}";',
            }
        if self.tls:
            store = self._key_store()
            settings |= {
                "listener.name.client.ssl.keystore.type": "PKCS12",
                "listener.name.client.ssl.keystore.location": store,
                "listener.name.client.ssl.keystore.password": "relay-test",
            }
            if self.tls.get("ca"):
                settings |= {
                    "listener.name.client.ssl.client.auth": "required",
                    "listener.name.client.ssl.truststore.type": "PEM",
                    "listener.name.client.ssl.truststore.location": self.tls["ca"],
                }
        if self.acl:
            settings |= {
                "authorizer.class.name":
                    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        settings |= self._properties
        with open(self.config_path, "w") as config:
            config.writelines(f"{name}={value}\n" for name, value in settings.items())

    def _key_store(self):
        path = os.path.join(self.directory, "keystore.p12")
        if not os.path.exists(path):
            subprocess.run(["openssl", "pkcs12", "-export", "-in", self.tls["cert"], "-inkey",
                            self.tls["key"], "-out", path, "-passout", "pass:relay-test"],
                           check=True, capture_output=True)
        return path

    def _java(self, *arguments):
        return ["java", *_JAVA, f"-Dlog4j.configuration=file:{self.directory}/log4j.properties",
                "-cp", maven_jars.classpath(_NAME, _JARS), *arguments]

    @property
    def brokers(self):
        return f"127.0.0.1:{self.port}"

    def start(self, deadline=60):
        if not self.real:
            self._start_mock()
            return self
        if not os.path.exists(self.data):
            self._format()
        with open(self.log_path, "ab") as log:
            self.process = Process(self._java("kafka.Kafka", self.config_path), stdout=log,
                                   stderr=log, cwd=self.directory)
        self._admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.internal_port}",
                                   "reconnect.backoff.max.ms": 200, "log_level": 0})
        eventually(self._serves, deadline, interval=0.05, message=self.log)
        return self

    def _format(self):
        """A new log directory; nothing in it tells one server from another, so it is made once."""
        template = os.path.join(maven_jars.cache(_NAME), f"formatted-{_CLUSTER}")
        if not os.path.exists(template):
            done = subprocess.run(self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER,
                                             "-c", self.config_path),
                                  capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"storage was not formatted:\n{done.stdout}{done.stderr}"
            fresh = tempfile.mkdtemp(dir=maven_jars.cache(_NAME))
            shutil.copytree(self.data, fresh, dirs_exist_ok=True)
            try:
                os.rename(fresh, template)
            except OSError:  # another process was faster
                shutil.rmtree(fresh)
            return
        shutil.copytree(template, self.data)

    def _serves(self):
        if not self.process.running:
            raise RuntimeError(f"Kafka ended:\n{self.log()}")
        try:
            return bool(self._admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _start_mock(self):
        self._mock = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1:1"})
        broker = next(iter(self._mock.list_topics(timeout=20).brokers.values()))
        self.port = self.internal_port = self.advertised_port = broker.port
        self._admin = AdminClient({"bootstrap.servers": self.brokers})

    def advertise(self, port):
        """Tells clients that come to `port` to come back there; a proxy's port, for example."""
        if port == self.advertised_port:
            return
        self.advertised_port = port
        self._write_config()
        if self.process is not None:
            self.restart()

    def stop(self):
        self._mock = None
        super().stop()

    # What tests do with it -------------------------------------------------------------------

    def create_topic(self, name, partitions=1, **config):
        """A new topic; `max_message_bytes=1000` is its max.message.bytes."""
        if not self.real:
            return name  # the mock makes topics as they are named
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        topic = NewTopic(name, partitions, 1, config=settings)
        eventually(lambda: self._done(self._admin.create_topics([topic])), 30)
        return name

    def _done(self, futures):
        for future in futures.values():
            try:
                future.result(20)
            except KafkaException as error:
                if error.args[0].name() in ("TOPIC_ALREADY_EXISTS",):
                    continue
                raise OSError(str(error)) from error
        return True

    def set_topic(self, name, **config):
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, set_config=settings)
        eventually(lambda: self._done(self._admin.alter_configs([resource])), 30)

    def delete_topic(self, name):
        eventually(lambda: self._done(self._admin.delete_topics([name])), 30)
        eventually(lambda: name not in self._admin.list_topics(timeout=5).topics, 30)

    def remake_topic(self, name):
        """Deletes the topic and makes it again within a moment."""
        topic = NewTopic(name, 1, 1)
        self._admin.delete_topics([name])[name].result(20)

        def made():
            try:
                self._admin.create_topics([topic])[name].result(20)
                return True
            except KafkaException:  # the old one is still there
                return False
        eventually(made, 30, interval=0)

    def add_partitions(self, name, count):
        eventually(lambda: self._done(self._admin.create_partitions([NewPartitions(name, count)])), 30)

    def allow(self, user, topic, *operations):
        """With `acl`: the user may do that with the topic."""
        asked = [part for operation in operations for part in ("--operation", operation)]
        done = subprocess.run(self._java(
            "kafka.admin.AclCommand", "--bootstrap-server", f"127.0.0.1:{self.internal_port}",
            "--add", "--allow-principal", f"User:{user}", "--topic", topic, *asked),
            capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def reader(self, topic):
        return TopicReader(self, topic)

    def producer(self, **config):
        return Producer({"bootstrap.servers": f"127.0.0.1:{self.internal_port}",
                         "linger.ms": 0, "log_level": 0, "message.timeout.ms": 60000, **config})

    def publish(self, topic, messages):
        """Publishes dicts with value and, optionally, key, headers, partition, timestamp."""
        producer = self.producer()
        failed = []
        for message in messages:
            while True:
                try:
                    producer.produce(topic, on_delivery=lambda error, _: error and
                                     failed.append(error), **message)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush(60)
        assert not failed, failed[0]

    def committed(self, group, topic):
        """{partition: committed offset} of a group; a partition without one is left out."""
        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{self.internal_port}",
                             "group.id": group, "log_level": 0})
        try:
            partitions = self._admin.list_topics(topic, timeout=10).topics[topic].partitions
            asked = [TopicPartition(topic, number) for number in partitions]
            try:
                found = consumer.committed(asked, timeout=10)
            except KafkaException as error:
                raise OSError(str(error)) from error
            return {entry.partition: entry.offset for entry in found if entry.offset >= 0}
        finally:
            consumer.close()


class Arrived:
    """One record of a topic."""

    def __init__(self, message):
        self.topic, self.partition = message.topic(), message.partition()
        self.offset, self.timestamp = message.offset(), message.timestamp()[1]
        self.key, self.body = message.key(), message.value()
        self.headers = {name: value.decode() for name, value in message.headers() or []}

    @property
    def id(self):
        return self.headers.get("pgtrickle-id")


class TopicReader:
    """Everything that is in a topic, read by confluent-kafka; in the order of each partition."""

    def __init__(self, server, topic):
        self._server, self.topic = server, topic
        self._consumer = Consumer({
            "bootstrap.servers": f"127.0.0.1:{server.internal_port}",
            "group.id": f"reader-{free_port()}", "enable.auto.commit": False, "log_level": 0,
            "auto.offset.reset": "earliest", "reconnect.backoff.max.ms": 200,
            "fetch.wait.max.ms": 20, "fetch.message.max.bytes": 128 << 20})
        self._next = {}
        self._read = []

    def messages(self):
        """All records so far; OSError while the broker is away."""
        try:
            ends = self._ends()
            if ends.keys() - self._next.keys():
                self._next = dict.fromkeys(ends, 0) | self._next
                self._consumer.assign([TopicPartition(self.topic, partition, offset)
                                       for partition, offset in self._next.items()])
            while any(self._next[partition] < end for partition, end in ends.items()):
                message = self._consumer.poll(5)
                if message is None or message.error():
                    raise OSError(f"{self.topic} at {self._next} of {ends}: {message}")
                self._read.append(Arrived(message))
                self._next[message.partition()] = message.offset() + 1
        except KafkaException as error:
            raise OSError(str(error)) from error
        return self._read

    def _ends(self):
        known = self._consumer.list_topics(self.topic, timeout=5).topics[self.topic]
        if known.error:
            return {}
        return {number: self._consumer.get_watermark_offsets(
            TopicPartition(self.topic, number), timeout=5)[1] for number in known.partitions}

    def count(self):
        try:
            return sum(self._ends().values())
        except KafkaException as error:
            raise OSError(str(error)) from error

    def close(self):
        self._consumer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
