"""A throw-away NATS server with JetStream."""

import json
import os
import socket

from .processes import Process, free_port, temporary_directory
from .server import Server
from .waiting import eventually


class NatsServer(Server):
    """nats-server on loopback with its own store; it keeps port and store over restarts.

    `user`/`password` or `token` ask for authentication; `tls` is a dict with `cert`, `key` and
    optionally `ca` (client certificates are then required). `domain` is that of JetStream.
    """

    def __init__(self, user=None, password=None, token=None, tls=None, max_payload=None,
                 domain=None, extra=""):
        self.port = free_port()
        self.directory = temporary_directory("nats")
        self.config_path = os.path.join(self.directory, "nats.conf")
        self.log_path = os.path.join(self.directory, "nats.log")
        self.user, self.password, self.token, self.tls = user, password, token, tls
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f'server_name: "relay-test-{self.port}"',
            f'jetstream {{ store_dir: "{self.directory}/store", max_mem: 64MB, max_file: 8GB'
            f'{f", domain: {domain}" if domain else ""} }}',
        ]
        if max_payload:
            lines.append(f"max_payload: {max_payload}")
        if user:
            lines.append(f"authorization {{ user: {json.dumps(user)}, "
                         f"password: {json.dumps(password)} }}")
        if token:
            lines.append(f"authorization {{ token: {json.dumps(token)} }}")
        if tls:
            ca = f'ca_file: "{tls["ca"]}", verify: true, ' if tls.get("ca") else ""
            lines.append(f'tls {{ cert_file: "{tls["cert"]}", key_file: "{tls["key"]}", {ca}'
                         "timeout: 5 }")
        lines.append(extra)
        with open(self.config_path, "w") as config:
            config.write("\n".join(lines) + "\n")

    @property
    def url(self):
        """The address, without credentials."""
        return f"{'tls' if self.tls else 'nats'}://127.0.0.1:{self.port}"

    def start(self, deadline=20):
        with open(self.log_path, "ab") as log:
            self.process = Process(["nats-server", "-c", self.config_path], stdout=log, stderr=log)
        eventually(self._accepts, deadline, message=self.log)
        return self

    def _accepts(self):
        if not self.process.running:
            raise RuntimeError(f"nats-server ended:\n{self.log()}")
        # A real NATS server greets with INFO; JetStream is recovered before it listens.
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
            return probe.recv(5) == b"INFO "

    def has_leaf(self):
        """Whether another server has connected to it as a leaf node."""
        return "Leafnode connection created" in self.log()

    def client(self, **options):
        """A new independent client, with this server's credentials unless others are given."""
        from .nats_client import NatsClient
        options.setdefault("user", self.user)
        options.setdefault("password", self.password)
        options.setdefault("token", self.token)
        return NatsClient("127.0.0.1", self.port, **options)
