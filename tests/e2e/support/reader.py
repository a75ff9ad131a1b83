"""A reader of the documentation, who runs its examples as they stand, in a shell and in psql."""

import os
import shutil
import subprocess

import psycopg
import pytest

from .fixtures import need
from .postgres import PostgresServer, postgres_bin_directory
from .processes import Process, free_port
from .relay import clean_environment, relay_binary

# Lines that run until they are interrupted: as in a shell of their own.
ENDLESS = ("pgtrickle-relay --config", "pgtrickle-relay tail")


def psql(database, text):
    """Runs statements as psql does, each by itself; what they printed."""
    done = subprocess.run([os.path.join(postgres_bin_directory(), "psql"), "--no-psqlrc", "--quiet",
                           "-v", "ON_ERROR_STOP=1", database], input=text, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


class Reader:
    """A reader at the keyboard: the shell with its variables and its folder, and psql."""

    def __init__(self, folder, postgres, nats):
        self.folder, self.nats = folder, nats
        self.port = free_port()
        # All that is replaced in an example: addresses and ports, and the administrator's password.
        self._replaced = [
            ("postgresql://admin@localhost/mydb", postgres.dsn("mydb")),
            ("@localhost/mydb", f"@127.0.0.1:{postgres.port}/mydb"),
            ("nats://localhost:4222", nats.url),
            ("localhost:9090", f"127.0.0.1:{self.port}"),
        ]
        self._database = postgres.dsn("mydb")
        # The default, 0.0.0.0:9090, may be another test's.
        self._env = clean_environment({
            "PATH": f"{os.path.dirname(relay_binary())}:{os.environ['PATH']}",
            "PGTRICKLE_RELAY_METRICS_ADDR": f"127.0.0.1:{self.port}"})
        del self._env["PGTRICKLE_RELAY_ALLOW_FILE"]
        self._endless = {}

    def example(self, text):
        for written, here in self._replaced:
            text = text.replace(written, here)
        return text

    def sql(self, text):
        """Runs a block with psql; what it printed."""
        return psql(self._database, self.example(text))

    def shell(self, text):
        """Runs a block line by line; what each line printed, by the line without its comment."""
        printed = {}
        for line in text.splitlines():
            command = line.partition(" #")[0].strip()
            if command.startswith("export "):
                self._env |= (self.example(word).split("=", 1) for word in command.split()[1:])
            elif command.startswith(ENDLESS) and "--count" not in command:
                self._begin(command)
            else:
                done = subprocess.run(["bash", "-c", self.example(command)], env=self._env,
                                      cwd=self.folder, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                printed[command] = done.stdout
        return printed

    def _begin(self, command):
        name = command.split()[1].strip("-")
        self._endless[name] = Process(
            ["bash", "-c", "exec " + self.example(command)], env=self._env, cwd=self.folder,
            stdout=open(self.folder / f"{name}.out", "wb"),
            stderr=open(self.folder / f"{name}.err", "wb"))

    def said(self, name, kind="out"):
        """What a line that runs until it is interrupted has printed."""
        return (self.folder / f"{name}.{kind}").read_text()

    def story(self):
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))

    def interrupt(self, name):
        """Ctrl-C; the exit code."""
        process = self._endless.pop(name)
        process.signal(2)
        return process.wait(40)

    def end(self):
        for process in self._endless.values():
            process.kill9()


@pytest.fixture
def hour(relay_bin, nats, tmp_path):
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    need(shutil.which("curl"), "curl")
    postgres = PostgresServer("first-hour").start()
    try:
        with postgres.connect() as connection:
            connection.execute("create database mydb")
        reader = Reader(tmp_path, postgres, nats)
        with psycopg.connect(postgres.dsn("mydb"), autocommit=True) as reader.db, \
                nats.client() as reader.client:
            yield reader
            reader.end()
    finally:
        postgres.stop_immediate()
