"""A throw-away PostgreSQL server, and fresh databases with the relay's schema in them."""

import glob
import os
import re
import shutil
import signal
import subprocess

import psycopg

from . import attacks
from .processes import Process, free_port, has_ended, signal_all, temporary_directory
from .waiting import eventually

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SUPERUSER = "postgres"
PASSWORD = "s3cret-for-tests"
RELAY_ROLE = "relay_daemon"
TEMPLATE = "relay_template"


def postgres_bin_directory():
    """PG_BIN, or the newest server that is installed; None where there is none."""
    if os.environ.get("PG_BIN"):
        return os.environ["PG_BIN"]
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    if not found:
        return None
    newest = max(found, key=lambda path: int(re.search(r"postgresql/(\d+)", path).group(1)))
    return os.path.dirname(newest)


def server_version():
    """The major version of the server that tests run; 0 where there is none."""
    directory = postgres_bin_directory()
    if not directory:
        return 0
    shown = subprocess.run([f"{directory}/postgres", "--version"], capture_output=True, text=True,
                           check=True).stdout
    return int(re.search(r"(\d+)", shown).group(1))


class PostgresServer:
    """PostgreSQL on loopback in its own directory, run as user `postgres` when we are root."""

    _all = []

    @staticmethod
    def remove_ended():
        """Removes the files of the servers that do not run: they may be in memory."""
        for server in [server for server in PostgresServer._all if server.process is None]:
            server.remove()

    def __init__(self, label="pg", settings=None, bin_directory=None):
        self.bin = bin_directory or postgres_bin_directory()
        assert self.bin, "no PostgreSQL server is installed"
        self._user = SUPERUSER if os.geteuid() == 0 else None
        self.directory = temporary_directory(label, self._user, os.environ.get("TEST_DATABASES"))
        self.data = os.path.join(self.directory, "data")
        self.sockets = self.directory
        self.port = free_port()
        self.log_path = os.path.join(self.directory, "server.log")
        self.process = None
        self._frozen = []
        self.starts = 0
        self._database_number = 0
        self._initialise(settings or {})
        PostgresServer._all.append(self)

    def _initialise(self, settings):
        password_file = os.path.join(self.directory, "password")
        with open(password_file, "w") as out:
            out.write(PASSWORD + "\n")
        os.chmod(password_file, 0o644)
        argv = [f"{self.bin}/initdb", "-D", self.data, "-U", SUPERUSER, "--encoding=UTF8",
                "--locale=C.UTF-8", "--auth-host=scram-sha-256", "--auth-local=trust",
                f"--pwfile={password_file}", "--no-sync"]
        options = {}
        if self._user:
            options = {"user": self._user, "group": self._user, "extra_groups": []}
        done = subprocess.run(argv, capture_output=True, text=True, cwd=self.directory, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        values = {
            "listen_addresses": "'127.0.0.1'",
            "port": self.port,
            "unix_socket_directories": f"'{self.sockets}'",
            # Processes are killed here, never the machine, which keeps what they wrote.
            "fsync": "off",
            "wal_level": "logical",
            "max_prepared_transactions": 50,
            "max_connections": 100,
            "max_wal_senders": 10,
            "max_replication_slots": 10,
            "shared_buffers": "'128MB'",
            "max_wal_size": "'1GB'",
            "log_min_messages": "warning",
            "log_line_prefix": "'%m [%p] %q%u@%d %a '",
            **settings,
        }
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for name, value in values.items():
                conf.write(f"{name} = {value}\n")

    # Life and death ------------------------------------------------------------------------

    def start(self, deadline=60, env=None):
        with open(self.log_path, "ab") as log:
            self.process = Process([f"{self.bin}/postgres", "-D", self.data], stdout=log,
                                   stderr=log, user=self._user, cwd=self.directory, env=env)
        try:
            eventually(lambda: self._accepts() or not self.process.running, deadline,
                       message=self.log)
        except AssertionError:
            self.process.kill9()
            raise
        assert self.process.running, f"PostgreSQL does not start:\n{self.log()}"
        self.starts += 1
        return self

    def _accepts(self):
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
            return True
        except psycopg.OperationalError:
            return False

    def _end(self, number, deadline):
        if self.process is None:
            return
        self.process.thaw()
        self.process.signal(number)
        try:
            self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.signal(signal.SIGQUIT)
            self.process.wait(30)
        self.process = None

    def stop(self):
        """Fast shutdown: sessions are ended, a checkpoint is written."""
        self._end(signal.SIGINT, 60)

    def stop_immediate(self):
        """Immediate shutdown: as a crash; the next start recovers from the WAL."""
        self._end(signal.SIGQUIT, 30)

    def remove(self):
        """Removes the files of a server that has ended, for good."""
        assert self.process is None
        shutil.rmtree(self.directory, ignore_errors=True)
        PostgresServer._all.remove(self)

    def kill9(self):
        """kill -9 of the postmaster. Returns when its children have noticed and ended: until then
        they answer queries, and commit."""
        children = self._stop_and_list_children()
        self.process.kill9()
        self.process = None
        eventually(lambda: all(has_ended(pid) for pid in children), 30, interval=0.01)

    def freeze(self):
        """SIGSTOP to the postmaster and all its children, until thaw()."""
        self._frozen = self._stop_and_list_children()
        signal_all(self._frozen, signal.SIGSTOP)

    def thaw(self):
        self.process.thaw()
        signal_all(self._frozen, signal.SIGCONT)
        self._frozen = []

    def _stop_and_list_children(self):
        self.process.freeze()  # it starts no more of them
        return self.process.children()

    def restart(self, mode="fast"):
        {"fast": self.stop, "immediate": self.stop_immediate, "kill9": self.kill9}[mode]()
        self.start()

    def log(self):
        try:
            with open(self.log_path, errors="replace") as log:
                return log.read()[-8000:]
        except OSError:
            return ""

    # Connections ---------------------------------------------------------------------------

    def dsn(self, database, user=SUPERUSER, password=PASSWORD, host="127.0.0.1", port=None):
        return f"postgresql://{user}:{password}@{host}:{port or self.port}/{database}"

    def connect(self, database="postgres", autocommit=True, **options):
        return psycopg.connect(self.dsn(database), autocommit=autocommit, **options)

    @property
    def version(self):
        with self.connect() as connection:
            return connection.info.server_version // 10000

    # Databases -----------------------------------------------------------------------------

    def make_template(self, install):
        """Creates the template database, `install(dsn)`s into it, and adds the login roles."""
        with self.connect() as connection:
            connection.execute(f"create database {TEMPLATE}")
        install(self.dsn(TEMPLATE))
        with self.connect() as connection:
            connection.execute(
                f"create role {RELAY_ROLE} login password '{PASSWORD}' in role pgtrickle_relay")

    def create_database(self, template=TEMPLATE, options=""):
        self._database_number += 1
        name = f"t{self._database_number}"
        with self.connect() as connection:
            # Where there is a choice, copying files takes half the time of logging their pages.
            strategy = "strategy file_copy" if connection.info.server_version >= 150000 else ""
            connection.execute(f"create database {name} template {template} {strategy} {options}")
        return Database(self, name)


class TlsServer(PostgresServer):
    """One with TLS: its certificate is of the authority, for localhost and 127.0.0.1, and has expired
    where `days` is negative."""

    def __init__(self, authority, days=2):
        super().__init__("tls-pg", settings={"ssl": "on"})
        self.ca = authority.ca
        for path in authority.certificate("postgres", days=days):
            copy = os.path.join(self.data, "server.key" if path.endswith(".key") else "server.crt")
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o600)
            if self._user:
                shutil.chown(copy, self._user, self._user)


class Database:
    """One database of a server."""

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self._connection = None
        self._connected_at = 0

    @property
    def dsn(self):
        """As superuser."""
        return self.server.dsn(self.name)

    @property
    def relay_dsn(self):
        """As the login role that may do what the daemon needs, and no more."""
        return self.server.dsn(self.name, user=RELAY_ROLE)

    def connect(self, autocommit=True, user=SUPERUSER, **options):
        """A new connection; the caller closes it (or uses it as a context manager)."""
        return psycopg.connect(self.server.dsn(self.name, user=user), autocommit=autocommit,
                               **options)

    def login(self, name, *member_of):
        """Creates (once in the cluster) a login role; returns its dsn for this database."""
        ours = {role for role in member_of if role.startswith("pgtrickle_")}
        assert ours <= attacks.CAST.get(name, ours), \
            f"{name} is of the cast of support/attacks.py: choose another name"
        with self.connect() as connection:
            known = connection.execute("select 1 from pg_roles where rolname = %s",
                                       (name,)).fetchone()
            if not known:
                connection.execute(f"create role {name} login password '{PASSWORD}'")
            for role in member_of:
                connection.execute(f"grant {role} to {name}")
        return self.server.dsn(self.name, user=name)

    def execute(self, statement, parameters=None):
        """Runs a statement as superuser, committed at once; its rows, or [] where it has none."""
        if (self._connection is None or self._connection.closed or self._connection.broken
                or self._connected_at != self.server.starts):
            self.close()
            self._connection, self._connected_at = self.connect(), self.server.starts
        cursor = self._connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def one(self, statement, parameters=None):
        """The first column of the first row, or None."""
        rows = self.execute(statement, parameters)
        return rows[0][0] if rows else None

    def drop(self):
        self.close()
        if self.server.process is None:
            return
        with self.server.connect() as connection:
            connection.execute(f"drop database if exists {self.name} with (force)")

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def refusal(session, statement, parameters=None):
    """The error that a statement ends in: its message and hint."""
    try:
        session.execute(statement, parameters)
    except psycopg.Error as error:
        return f"{error.diag.message_primary}\n{error.diag.message_hint or ''}"
    raise AssertionError(f"not refused: {statement}")
