"""A throw-away RabbitMQ server."""

import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass

import pika

from .processes import Process, free_port, temporary_directory
from .server import Server
from .waiting import eventually

# Not the one on the path, which wants to become another user.
_PROGRAMS = "/usr/lib/rabbitmq/bin"


def available():
    return os.access(f"{_PROGRAMS}/rabbitmq-server", os.X_OK)


@dataclass
class Message:
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes
    redelivered: bool

    @property
    def id(self):
        return self.properties.message_id

    @property
    def headers(self):
        return self.properties.headers or {}


class RabbitServer(Server):
    """rabbitmq-server on loopback with a home, a database and a port mapper (epmd) of its own; it
    keeps port and data over restarts. `guest` with the password `guest` may do all.

    `tls` is a dict with `cert`, `key` and `ca`: then `tls_port` serves TLS. `settings` are further
    lines of the configuration.
    """

    def __init__(self, tls=None, settings=()):
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.tls = tls
        self.directory = temporary_directory("rabbitmq")
        self.log_path = os.path.join(self.directory, "rabbitmq.log")
        self._epmd = None
        self._taken = {}  # ids by queue
        config = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", "loopback_users = none",
                  "log.console = true", "log.console.level = warning",
                  "disk_free_limit.absolute = 1MB", *settings]
        if tls:
            config += [f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                       f"ssl_options.cacertfile = {tls['ca']}",
                       f"ssl_options.certfile = {tls['cert']}",
                       f"ssl_options.keyfile = {tls['key']}",
                       "ssl_options.verify = verify_peer",
                       "ssl_options.fail_if_no_peer_cert = false"]
        self._write("rabbitmq.conf", "\n".join(config) + "\n")
        self._write("enabled_plugins", "[].\n")
        self._write("rabbitmq-env.conf", "")
        self._epmd_port = free_port()
        self._env = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": self.directory,
            "ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"relay{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": os.path.join(self.directory, "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.path.join(self.directory, "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.directory, "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": os.path.join(self.directory, "mnesia"),
            "RABBITMQ_LOG_BASE": os.path.join(self.directory, "log"),
            "RABBITMQ_PID_FILE": os.path.join(self.directory, "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none",
        }

    def _write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as file:
            file.write(text)

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    # Life and death ------------------------------------------------------------------------

    def start(self, deadline=90):
        if self._epmd is None:
            self._epmd = Process(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                                 env=self._env, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            eventually(self._epmd_listens, 10)
        with open(self.log_path, "ab") as log:
            self.process = Process([f"{_PROGRAMS}/rabbitmq-server"], env=self._env, stdout=log,
                                   stderr=log, cwd=self.directory)
        eventually(self._answers, deadline, interval=0.1, message=self.log)
        return self

    def _epmd_listens(self):
        socket.create_connection(("127.0.0.1", self._epmd_port), timeout=2).close()
        return True

    def _answers(self):
        if not self.process.running:
            raise RuntimeError(f"rabbitmq-server ended:\n{self.log()}")
        try:
            self.connection().close()
            return True
        except pika.exceptions.AMQPError:
            return False

    def _signal(self, number):
        """To the whole process group that was started: a shell and the Erlang machine."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    def _end(self):
        self._signal(signal.SIGKILL)
        self.process.wait(30)
        eventually(self._port_is_free, 20)
        self.process = None

    def _port_is_free(self):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))
            return True

    def stop(self):
        """An orderly stop; the port mapper goes too."""
        if self.process is not None:
            self.thaw()
            self.process.signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
            self._end()
        if self._epmd is not None:
            self._epmd.kill9()
            self._epmd = None

    def kill9(self):
        self._end()

    def freeze(self):
        self._signal(signal.SIGSTOP)

    def thaw(self):
        self._signal(signal.SIGCONT)

    def evaluate(self, expression):
        """Evaluates an Erlang expression in the broker (rabbitmqctl does the same, but needs
        seconds to start)."""
        with open(os.path.join(self.directory, ".erlang.cookie")) as cookie:
            secret = cookie.read().strip()
        done = subprocess.run(
            ["erl_call", "-sname", self._env["RABBITMQ_NODENAME"], "-c", secret, "-e"],
            input=expression + ".\n", env=self._env, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("{ok"), done.stdout + done.stderr
        return done.stdout

    def set_largest_message(self, size):
        """Brokers look at their limit when a channel is opened: so all connections end. From 4.0 on
        they read it from a persistent term."""
        self.evaluate(f"application:set_env(rabbit, max_message_size, {size}),"
                      f" persistent_term:put(max_message_size, {size}),"
                      " [rabbit_networking:close_connection(Pid, \"a new limit\")"
                      " || Pid <- rabbit_networking:connections()]")

    def set_memory_limit(self, limit):
        """A fraction, or {absolute, "1"}: beyond it the broker takes no messages."""
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")

    def flush_definitions(self):
        """Queues and bindings that were declared are on disk from now on. The broker confirms them
        before: for a moment they do not survive a kill."""
        self.evaluate("ok = mnesia:sync_log()")

    def held(self, queue):
        """How many messages a queue holds, those included that consumers have and did not
        acknowledge."""
        name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
        printed = self.evaluate(f"{{ok, Q}} = rabbit_amqqueue:lookup({name}),"
                                " [{messages, N}] = rabbit_amqqueue:info(Q, [messages]), N")
        return int(re.search(r"(\d+)", printed).group(1))

    # An independent client -----------------------------------------------------------------

    def connection(self, user="guest", password="guest", vhost="/"):
        return pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", self.port, vhost, pika.PlainCredentials(user, password), heartbeat=0,
            socket_timeout=10, blocked_connection_timeout=30))

    @property
    def major_version(self):
        connection = self.connection()
        try:
            return int(connection._impl.server_properties["version"].split(".")[0])
        finally:
            connection.close()

    def channel(self):
        """A channel that ends its connection with itself: `with server.channel() as channel`."""
        return _Channel(self.connection())

    def queue(self, name, kind="quorum", exchange=None, keys=("#",), **arguments):
        """A durable queue; bound to a durable topic exchange, where one is given."""
        with self.channel() as channel:
            channel.queue_declare(name, durable=True,
                                  arguments={"x-queue-type": kind, **arguments})
            if exchange:
                channel.exchange_declare(exchange, "topic", durable=True)
                for key in keys:
                    channel.queue_bind(name, exchange, key)

    def count(self, queue):
        """Messages that are ready in a queue."""
        with self.channel() as channel:
            return channel.queue_declare(queue, passive=True).method.message_count

    def exists(self, queue):
        try:
            self.count(queue)
            return True
        except pika.exceptions.ChannelClosedByBroker:
            return False

    def take(self, queue):
        """Takes all messages that are in a queue out of it, oldest first."""
        found, tag = [], None
        known = self._taken.setdefault(queue, set())
        with self.channel() as channel:
            while True:
                # One by one: what a consumer is sent and does not take comes back in other places.
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                tag = method.delivery_tag
                # An acknowledgement may get lost when its channel closes behind it.
                if not (method.redelivered and properties.message_id in known):
                    found.append(Message(method.exchange, method.routing_key, properties, body,
                                         method.redelivered))
            if tag is not None:
                channel.basic_ack(tag, multiple=True)
        known.update(message.id for message in found)
        return found


class _Channel:
    def __init__(self, connection):
        self._connection = connection

    def __enter__(self):
        return self._connection.channel()

    def __exit__(self, *_):
        if self._connection.is_open:
            self._connection.close()


