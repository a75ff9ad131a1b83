"""Another PostgreSQL: inboxes as destination, a table that is only inserted into as source."""

import os
import shutil

import psycopg

from support.database_side import install
from support.postgres import PASSWORD, RELAY_ROLE, PostgresServer
from support.tls import Authority

from .base import Broker, Received


class InboxBroker(Broker):
    """A server of its own with one database; a place is the inbox `pgtrickle.inbox_<place>`, and
    for the source the table `public.<place>`."""

    name = "pg-inbox"
    source_name = "pg-outbox"
    reads_back = False
    deduplicates = True
    has_key = True
    raw_body = False
    max_body = 4_000_000
    refusal = ("23514", "no_poison")

    def __init__(self):
        super().__init__()
        authority = Authority()
        certificate, key = authority.certificate("server")
        self._server = PostgresServer("inbox-broker", settings={"deadlock_timeout": "'200ms'"})
        self._secure(certificate, key)
        self.port = self._server.port
        self._database = None

    def _secure(self, certificate, key):
        """A copy of the key that the server's user may read, and TLS beside plain connections."""
        for path, name in ((certificate, "server.crt"), (key, "server.key")):
            copy = os.path.join(self._server.data, name)
            shutil.copy(path, copy)
            os.chmod(copy, 0o600)
            if self._server._user:
                shutil.chown(copy, self._server._user, self._server._user)
        with open(os.path.join(self._server.data, "postgresql.conf"), "a") as conf:
            conf.write("ssl = on\n")

    # Life and death ----------------------------------------------------------------------------

    def start(self):
        self._server.start()
        if self._database is None:
            self._server.make_template(install)
            self._database = self._server.create_database()
        return self

    def stop(self):
        self._server.stop_immediate()

    def kill9(self):
        self._server.kill9()

    def freeze(self):
        self._server.freeze()

    def thaw(self):
        self._server.thaw()

    def log(self):
        return self._server.log()

    def _query(self, statement, parameters=None):
        with psycopg.connect(self._server.dsn(self._database.name), autocommit=True,
                             connect_timeout=5) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    # Places ------------------------------------------------------------------------------------

    def prepare(self):
        self._query("select pgtrickle.create_inbox(%s)", (self.place,))
        self._query(f"create table public.{self.place} (id bigint generated always as identity "
                    "primary key, event_id text, key text, type text, body bytea)")

    def _url(self, port=None, password=PASSWORD):
        return (f"postgresql://{RELAY_ROLE}:{password}@127.0.0.1:{port or self.port}/"
                f"{self._database.name}")

    # The sink ----------------------------------------------------------------------------------

    def sink(self, port=None, **over):
        return {"type": "pg-inbox", "url": self._url(port), "inbox_name": self.place,
                "operation_timeout": "3s", "connect_timeout": "2s", **over}

    def received(self):
        rows = self._query(
            "select event_id, aggregate_id, event_type, headers, payload::text "
            f"from pgtrickle.inbox_{self.place} order by received_at, ctid")
        # The id and the operation have columns of their own; the other headers are in `headers`.
        return [Received(identity, key, None,
                         {"pgtrickle-id": identity, "pgtrickle-op": op, **(headers or {})},
                         payload.encode())
                for identity, key, op, headers, payload in rows]

    def count(self):
        return self._query(f"select count(*) from pgtrickle.inbox_{self.place}")[0][0]

    def refuse(self):
        self._query(f"alter table pgtrickle.inbox_{self.place} add constraint no_poison "
                    "check (payload #>> '{new,name}' <> 'poison')")
        return {}

    def cure(self):
        self._query(f"alter table pgtrickle.inbox_{self.place} drop constraint no_poison")
        return {}

    def wrong_credentials(self):
        return self.sink(url=self._url(password="wrong-password"))

    def wrong_ca(self):
        return self.sink(url=f"{self._url()}?sslmode=verify-ca&sslrootcert={Authority('other').ca}")

    def unresolvable(self):
        return self.sink(url="postgresql://relay:x@no-such-host.invalid/x")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        # The table belongs to another role than the relay's: it may be read, and no more.
        self._query(f"grant select on public.{self.place} to {RELAY_ROLE}")
        self._query(f"grant select on sequence public.{self.place}_id_seq to {RELAY_ROLE}")
        return {"type": "pg-outbox", "url": self._url(port), "table": f"public.{self.place}",
                "payload_column": "body", "event_id_column": "event_id",
                "event_type_column": "type", "key_column": "key", "poll_interval": "20ms",
                "connect_timeout": "2s", **over}

    def publish(self, messages):
        with psycopg.connect(self._server.dsn(self._database.name)) as connection:
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"insert into public.{self.place} (event_id, key, type, body) "
                    "values (%s, %s, %s, %s)", messages)
