"""Configuring pipelines in SQL as users do, and reading what they delivered."""

import json
import os
import time

from .background import Background
from .waiting import eventually

# Sanitizer builds are slower; what is bound by time is stretched by this, and only there.
SLOW_FACTOR = float(os.environ.get("SLOW_FACTOR", "1"))
LONG = os.environ.get("LONG") == "1"


def set_outbox(db, name, config, enable=True):
    """set_relay_outbox, and enable_relay unless told otherwise."""
    db.execute("select pgtrickle.set_relay_outbox(%s, config => %s::jsonb)",
               (name, json.dumps(config)))
    if enable:
        db.execute("select pgtrickle.enable_relay(%s)", (name,))


def to_file(table, path, **options):
    """A pipeline's configuration: the outbox of `table` into a file of JSON lines."""
    return {"stream_table": table, "sink": {"type": "file", "path": str(path)}, **options}


def to_nats(table, server, subject="relay.{stream_table}", **options):
    """A pipeline's configuration: the outbox of `table` to NATS, with the server's credentials."""
    sink = {"type": "nats", "url": server.url}
    if server.user:
        sink |= {"user": server.user, "password": server.password}
    if server.token:
        sink["token"] = server.token
    sink |= options.pop("sink", {})
    return {"stream_table": table, "sink": sink, "subject_template": subject, **options}


def make_table(db, name="orders", outbox=True):
    """An ordinary table (id, name, amount) with an outbox."""
    db.execute(f"create table {name} (id bigint primary key, name text, amount numeric)")
    if outbox:
        db.execute("select pgtrickle.enable_outbox(%s)", (name,))


def insert_rows(db, name, first, count=1):
    """`count` rows with ids from `first`, each in a transaction of its own."""
    for identity in range(first, first + count):
        db.execute(f"insert into {name} values (%s, %s, %s)",
                   (identity, f"row {identity}", identity))


def status_row(db, pipeline, group="default"):
    """The pipeline's row of relay_pipeline_status as a dict, or None."""
    rows = db.execute(
        "select to_jsonb(s) from pgtrickle.relay_pipeline_status s"
        " where pipeline = %s and relay_group_id = %s", (pipeline, group))
    return rows[0][0] if rows else None


def position(db, pipeline, group="default"):
    """(last_change_id, last_row) of the pipeline, or None where it has none yet."""
    rows = db.execute(
        "select last_change_id, last_row from pgtrickle.relay_consumer_offsets"
        " where pipeline_id = %s and relay_group_id = %s order by updated_at desc",
        (pipeline, group))
    return rows[0] if rows else None


def newest_outbox_id(db, table):
    """The highest id that a committed row of the table's outbox has (0: none)."""
    outbox = db.one("select outbox_table_name from pgtrickle.relay_outboxes"
                    " where stream_table_name = %s", (table,))
    return db.one(f'select coalesce(max(id), 0) from pgtrickle."{outbox}"')


def wait_settled(db, pipeline, table, deadline=30, group="default"):
    """Waits until the pipeline's position has reached the newest committed row of the outbox."""
    newest = newest_outbox_id(db, table)
    eventually(lambda: (position(db, pipeline, group) or (-1, 0))[0] >= newest,
               deadline * SLOW_FACTOR,
               message=lambda: f"position {position(db, pipeline, group)} of {newest}; "
                               f"status {status_row(db, pipeline, group)}")
    return newest


def watch_positions(db):
    """From now on records every position that goes backwards; see positions_gone_back."""
    db.execute("""
        create table position_regressions (pipeline text, was text, became text, at timestamptz);
        create function note_regression() returns trigger language plpgsql security definer
          set search_path = public, pg_temp as $$
        begin
          insert into position_regressions values (new.pipeline_id,
            old.last_change_id || ':' || old.last_row, new.last_change_id || ':' || new.last_row,
            clock_timestamp());
          return null;
        end $$;
        create trigger note_regression after update on pgtrickle.relay_consumer_offsets
          for each row
          when ((new.last_change_id, new.last_row) < (old.last_change_id, old.last_row))
          execute function note_regression()""")


def positions_gone_back(db):
    return db.execute("select * from position_regressions")


def new_rows(message):
    """The rows that a native message says are there now (inserted ones, or a row message's new)."""
    if "delta" in message:
        return message["delta"]["inserted"]
    return [message["new"]] if message.get("new") is not None else []


def message_id(message):
    return message["metadata"]["id"] if "metadata" in message else message.get("id")


class Lines:
    """The JSON lines of a file sink. A line torn by a kill is counted, not returned."""

    def __init__(self, path):
        self.path = str(path)
        self.torn = 0

    def messages(self):
        self.torn = 0
        found = []
        try:
            with open(self.path, "rb") as lines:
                for line in lines:
                    try:
                        found.append(json.loads(line))
                    except ValueError:
                        self.torn += 1
        except FileNotFoundError:
            pass
        return found

    def rows(self, column="id"):
        """The values of one column over all rows that arrived as new, in order of arrival."""
        return [row[column] for message in self.messages() for row in new_rows(message)]

    def wait_rows(self, wanted, column="id", deadline=15):
        """Waits until exactly these values have arrived, in this order."""
        wanted = list(wanted)
        eventually(lambda: len(self.rows(column)) >= len(wanted), deadline * SLOW_FACTOR,
                   interval=0.05, message=lambda: f"{self.path} ends {self.rows(column)[-5:]},"
                                                  f" wanted {len(wanted)} rows")
        assert self.rows(column) == wanted


class Arrivals(Background):
    """Follows a file of JSON lines and notes when each line was there."""

    def __init__(self, path):
        super().__init__()
        self._path = str(path)
        self.lines = []  # (time.time() at arrival, bytes)

    def _run(self):
        rest, source = b"", None
        while True:
            ending = self._stop.is_set()
            if source is None:
                try:
                    source = open(self._path, "rb", buffering=0)
                except FileNotFoundError:
                    pass
            data = source.read(1 << 20) if source else b""
            if data:
                now = time.time()
                *lines, rest = (rest + data).split(b"\n")
                self.lines += [(now, line) for line in lines if line]
            elif ending:
                return
            else:
                self._stop.wait(0.002)

    def messages(self):
        """(arrival, parsed message) pairs."""
        return [(at, json.loads(line)) for at, line in list(self.lines)]
