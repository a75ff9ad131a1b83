"""A throw-away Redis server."""

import os

import redis

from .processes import Process, free_port, temporary_directory
from .server import Server
from .waiting import eventually


class RedisServer(Server):
    """redis-server on loopback; it keeps port and data over restarts.

    `durable` writes each command to the disk before it is answered. `password` is the default
    user's. `tls` is a dict with `cert`, `key` and `ca`; clients then need no certificate unless
    `tls["clients"]`, and the client here takes any of the server's where `tls["unverified"]`. `settings` are further lines of the configuration.
    """

    def __init__(self, durable=True, password=None, tls=None, settings=()):
        self.port = free_port()
        self.directory = temporary_directory("redis")
        self.log_path = os.path.join(self.directory, "redis.log")
        self.config_path = os.path.join(self.directory, "redis.conf")
        self.password, self.tls = password, tls
        lines = ["bind 127.0.0.1", f"dir {self.directory}", "daemonize no", 'save ""',
                 "databases 16", f"appendonly {'yes' if durable else 'no'}",
                 "appendfsync always", *settings]
        if password:
            lines.append(f"requirepass {password}")
        if tls:
            lines += ["port 0", f"tls-port {self.port}", f"tls-cert-file {tls['cert']}",
                      f"tls-key-file {tls['key']}", f"tls-ca-cert-file {tls['ca']}",
                      f"tls-auth-clients {'yes' if tls.get('clients') else 'no'}"]
        else:
            lines.append(f"port {self.port}")
        with open(self.config_path, "w") as config:
            config.write("\n".join(lines) + "\n")

    @property
    def url(self):
        """The address, without credentials."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    def start(self, deadline=20):
        with open(self.log_path, "ab") as log:
            self.process = Process(["redis-server", self.config_path], stdout=log, stderr=log)
        eventually(self._answers, deadline, message=self.log)
        return self

    def _answers(self):
        if not self.process.running:
            raise RuntimeError(f"redis-server ended:\n{self.log()}")
        try:
            with self.client() as client:
                return client.ping()
        except redis.RedisError:
            return False

    def client(self, **options):
        """A new independent client, as the default user unless told otherwise."""
        options.setdefault("password", self.password)
        if self.tls:
            options |= {"ssl": True, "ssl_ca_certs": self.tls["ca"]}
            if self.tls.get("unverified"):
                options |= {"ssl_cert_reqs": "none"}
            if self.tls.get("clients"):
                options |= {"ssl_certfile": self.tls["cert"], "ssl_keyfile": self.tls["key"]}
        return redis.Redis("127.0.0.1", self.port, socket_timeout=30, **options)

    def entries(self, key):
        """All entries of a stream, oldest first, as (entry id, {field: bytes})."""
        found, start = [], "-"
        with self.client() as client:
            while True:
                part = client.xrange(key, min=start, count=5000)
                found += [(entry.decode(), {name.decode(): value for name, value in fields.items()})
                          for entry, fields in part]
                if len(part) < 5000:
                    return found
                start = "(" + found[-1][0]

    def count(self, key):
        with self.client() as client:
            return client.xlen(key)
