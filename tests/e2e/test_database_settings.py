"""What ALTER DATABASE ... SET and ALTER ROLE ... SET give to every session stops nothing of ours:
not `init`, the relay, housekeeping, refreshes or the commands."""

import json
import re

import psycopg
import pytest

from support.pipelines import Lines
from support.relay import Relay, run_command
from support.waiting import eventually

SETTINGS = {
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "100ms", "lock_timeout": "1ms", "idle_session_timeout": "300ms",
    "idle_in_transaction_session_timeout": "1ms",
    "search_path": "nowhere", "TimeZone": "America/St_Johns", "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard", "standard_conforming_strings": "off", "row_security": "off",
    "client_encoding": "LATIN1", "session_replication_role": "replica",
    "synchronous_commit": "off", "jit": "on", "jit_above_cost": "0", "bytea_output": "escape",
    "extra_float_digits": "-10", "quote_all_identifiers": "on", "array_nulls": "off",
    "transform_null_equals": "on", "xmloption": "document", "lc_messages": "C",
    "check_function_bodies": "off", "default_table_access_method": "heap",
    "plpgsql.extra_errors": "all", "plpgsql.variable_conflict": "use_column",
    "enable_seqscan": "off", "plan_cache_mode": "force_generic_plan",
    "default_toast_compression": "pglz"}
SINCE_17 = {"transaction_timeout": "100ms"}
# What this test's own session needs; all else stays as it is set for the database. It holds from the
# connection's start: the limits of 100 ms would end a session that a busy machine lets wait.
PLAIN = {"statement_timeout": "0", "lock_timeout": "0", "idle_session_timeout": "0",
         "idle_in_transaction_session_timeout": "0", "jit": "off",
         "default_transaction_read_only": "off"}
EVERYWHERE = "São Paulo, 東京"


@pytest.fixture
def hostile(empty_db):
    """A session in a database, without the relay's schema, for which all of this is set."""
    settings = dict(SETTINGS)
    empty_db.execute("load 'plpgsql'")
    if int(empty_db.one("show server_version_num")) >= 170000:
        settings |= SINCE_17
    for name, value in settings.items():
        quoted = value if name == "search_path" or name == "DateStyle" else f"'{value}'"
        empty_db.execute(f"alter database {empty_db.name} set {name} = {quoted}")
    empty_db.close()
    plain = PLAIN | {name: "0" for name in SINCE_17 if name in settings}
    with empty_db.connect(options=" ".join(f"-c {name}={value}" for name, value in plain.items()),
                          client_encoding="UTF8") as session:
        yield Hostile(empty_db, session)


class Hostile:
    def __init__(self, database, session):
        self.dsn, self.relay_dsn = database.dsn, database.relay_dsn
        self.execute = lambda *what: session.execute(*what)

    def one(self, *what):
        return self.execute(*what).fetchone()[0]

    def set_relay(self, name, config):
        self.execute("select pgtrickle.set_relay(%s, %s::jsonb, true)", (name, json.dumps(config)))


def complaints(relay):
    return [line for line in relay.log_lines
            if "WARN" in line or "ERROR" in line if "secret_in_arguments" not in line]


def test_no_setting_of_a_database_stops_anything(hostile, relay_bin, tmp_path):
    for _ in range(2):
        done = run_command("init", "--postgres-url", hostile.dsn)
        assert done.returncode == 0, done.stderr
    hostile.execute("create table public.orders (id int primary key, note text)")
    hostile.execute("select pgtrickle.enable_outbox('public.orders')")
    hostile.execute("select pgtrickle.create_stream_table('public.notes',"
                    " 'select note, count(*) as n from public.orders group by note',"
                    " schedule => '200ms')")
    hostile.execute("select pgtrickle.create_inbox('orders')")
    lines, notes = Lines(tmp_path / "orders.jsonl"), Lines(tmp_path / "notes.jsonl")
    hostile.set_relay("file", {"source": {"type": "outbox", "outbox": "public.orders"},
                               "sink": {"type": "file", "path": lines.path}})
    hostile.set_relay("notes", {"source": {"type": "outbox", "stream_table": "public.notes"},
                                "sink": {"type": "file", "path": notes.path}})
    # Retention finds the readers of an outbox by the name that a trigger keeps.
    assert hostile.one("select count(*) from pgtrickle.relay_config where outbox_name is null") == 0
    first = Relay(hostile.relay_dsn, lease_timeout="2s").start()
    with Relay(hostile.relay_dsn, lease_timeout="2s") as second:
        eventually(lambda: first.pipeline("file") and second.pipeline("file"), 15)
        hostile.set_relay("inbox", {"source": {"type": "outbox", "outbox": "public.orders"},
                                    "sink": {"type": "inbox", "inbox_name": "orders"}})
        for row in range(1, 4):
            hostile.execute("insert into public.orders values (%s, %s)", (row, EVERYWHERE))
        eventually(lambda: lines.rows() == [1, 2, 3], 15)
        eventually(lambda: hostile.one("select count(*) from pgtrickle.inbox_orders") == 3, 15)
        eventually(lambda: notes.rows("n")[-1:] == [3], 15)
        assert notes.rows("note")[-1] == EVERYWHERE
        commands(hostile)
        # Another relay takes over what a dead one had, and a deleted pipeline ends.
        assert complaints(first) == []
        first.kill9()
        hostile.execute("insert into public.orders values (4, 'x')")
        eventually(lambda: lines.rows() == [1, 2, 3, 4], 15, message=second.log)
        eventually(lambda: notes.rows("note")[-1:] == ["x"], 15, message=second.log)
        housekeeping(hostile)
        hostile.execute("select pgtrickle.delete_relay('file')")
        eventually(lambda: not second.lists("file"), 15)
        eventually(lambda: hostile.one(
            "select count(*) from pgtrickle.relay_leases l where name = 'file' or not exists"
            " (select from pgtrickle.relay_lease_sessions s where s.token = l.token)") == 0, 15)
        assert [line for line in complaints(second) if "takeover" not in line] == []


def commands(hostile):
    for command in (["status"], ["dlq", "list"], ["pipelines", "list"], ["pipelines", "show", "file"],
                    ["pipelines", "pause", "file"], ["pipelines", "resume", "file"], ["check"]):
        done = run_command(*command, "--postgres-url", hostile.relay_dsn)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def housekeeping(hostile):
    """The relay does it; a scheduler's session is told what to set, and can."""
    eventually(lambda: hostile.one("select heartbeat_at > clock_timestamp() - interval '3 s'"
                                   " from pgtrickle.relay_instances limit 1"))
    for call in ("relay_housekeeping()", "refresh_stream_table('public.notes')"):
        with pytest.raises(psycopg.Error) as refused:
            hostile.execute(f"select pgtrickle.{call}")
        assert "default_transaction_isolation" in refused.value.diag.message_hint
        hostile.execute("begin isolation level read committed")
        hostile.execute(f"select pgtrickle.{call}")
        hostile.execute("commit")


# A comment, a quoted name, and a literal with all its lines, with or without E before it.
TOKEN = re.compile(r"""--[^\n]*|"[^"]*"|[eE]'(?:[^'\\]|\\.|'')*'(?:\s*\n\s*'(?:[^'\\]|\\.|'')*')*"""
                   r"""|'(?:[^']|'')*'""", re.DOTALL)


def test_no_function_has_a_literal_that_standard_conforming_strings_changes(db):
    assert [TOKEN.findall(text) for text in (r"E'\s' 'a\s'", "-- it's\n''")] == [
        [r"E'\s'", r"'a\s'"], ["-- it's", "''"]]
    bodies = db.execute("select oid::regprocedure::text, prosrc from pg_proc"
                        " where pronamespace::regnamespace::text like 'pgtrickle%'")
    assert len(bodies) > 200
    assert [(name, literal) for name, body in bodies for literal in TOKEN.findall(body)
            if literal.startswith("'") and "\\" in literal] == []
