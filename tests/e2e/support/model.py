"""Two databases that see the same statements, one of them with outboxes, and a consumer.

`Model` runs operations, in the database with outboxes and in the one without, and says with `Fault`
where they differ: in the result of a statement, or between a table and what a consumer made of the
outbox. An operation is a tuple of plain values, so that a list of them can be run again.
"""

import collections
import re
import threading

import psycopg
from psycopg import pq

from .model_expected import expected_rows
from .waiting import comes_true

OWNER, WRITER = "model_owner", "model_writer"
LOCK_TIMEOUT = "150ms"

# What the server writes that checks, whatever databases and roles have set.
PINNED = {
    "extra_float_digits": "1", "datestyle": "ISO, YMD", "intervalstyle": "postgres",
    "bytea_output": "hex", "timezone": "UTC", "lc_monetary": "C", "quote_all_identifiers": "off",
    "search_path": "pg_catalog, pg_temp", "xmlbinary": "base64", "xmloption": "content",
    "standard_conforming_strings": "on", "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off", "array_nulls": "on", "row_security": "off",
}


# What upkeep heals by a full refresh, whatever the statement was: docs/outboxes.md, "Order".
HEALED = ["a foreign key of the table may have changed rows that the same statement inserted"]


class Fault(AssertionError):
    """Something that must not be. `kind` stays the same while the operations are shrunk."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def quoted(*names):
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def connect_checker(server, database):
    connection = psycopg.connect(server.dsn(database), autocommit=True, prepare_threshold=None)
    for name, value in PINNED.items():
        connection.execute("select set_config(%s, %s, false)", (name, value))
    return connection


# Sessions ----------------------------------------------------------------------------------------

class Session:
    """One connection of the application."""

    def __init__(self, server, database, user):
        self.connection = psycopg.connect(
            server.dsn(database, user=user), autocommit=True, prepare_threshold=None,
            options=f"-c lock_timeout={LOCK_TIMEOUT} -c client_min_messages=notice")
        self.notices = []
        self.connection.add_notice_handler(lambda d: self.notices.append(d.message_primary))

    @property
    def pid(self):
        return self.connection.info.backend_pid

    @property
    def status(self):
        return self.connection.info.transaction_status

    def run(self, sql, data=None):
        """What an application can see of a statement, as a value to compare."""
        self.notices.clear()
        result = self._outcome(sql, data)
        return (*result, tuple(self.notices))

    def _outcome(self, sql, data):
        try:
            with self.connection.cursor() as cursor:
                if data is not None:
                    with cursor.copy(sql) as copy:
                        copy.write(data)
                    return "ok", cursor.rowcount, None
                return self._results(sql)
        except psycopg.Error as error:
            if error.diag.sqlstate is None:
                return "broken", str(error), None
            return "error", error.diag.sqlstate, error.diag.message_primary

    def _results(self, sql):
        # As the simple protocol has it, and values as texts: nothing is converted here.
        result = self.connection.pgconn.exec_(sql.encode())
        if result.status == pq.ExecStatus.FATAL_ERROR:
            sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
            message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
            # Numbers in messages are oids, which differ.
            return ("error", (sqlstate or b"").decode(),
                    re.sub(r"\d+", "n", (message or b"").decode(errors="replace")))
        rows = sorted(tuple(result.get_value(row, column) or b"\0null"
                            for column in range(result.nfields))
                      for row in range(result.ntuples))
        return "ok", (result.command_status or b"").decode(), tuple(rows)

    def close(self):
        self.connection.close()


class Side:
    """One of the two databases, with the application's sessions."""

    def __init__(self, server, database, users):
        self.server, self.database = server, database
        self.users = users
        self.sessions = {}
        self.checker = connect_checker(server, database.name)

    def session(self, name):
        session = self.sessions.get(name)
        if session is None or session.connection.closed or session.connection.broken:
            session = self.sessions[name] = Session(self.server, self.database.name,
                                                    self.users[name])
        return session

    def rows(self, sql, *parameters):
        return self.checker.execute(sql, parameters or None).fetchall()

    def waits(self, pid):
        return bool(self.rows("select from pg_catalog.pg_locks where pid = %s and not granted", pid))

    def close(self):
        for session in self.sessions.values():
            session.close()
        self.checker.close()
        self.database.drop()


# The consumer ------------------------------------------------------------------------------------

class Consumer:
    """Reads one outbox as docs/reading-without-skipping.md says, and applies it by key.

    Beside that it keeps the rows as a multiset: a deleted row that was never inserted as it is, to
    the letter, is a fault at once.
    """

    def __init__(self, side, number):
        self.side = side
        self.number = number
        (self.name, self.outbox, self.delta, self.sequence, self.started) = side.rows(
            "select stream_table_name, outbox_table_name, delta_table_name, outbox_sequence, "
            "incarnation from pgtrickle.pgt_outbox_config where outbox_number = %s", number)[0]
        self.position = 0
        self.by_key = {}
        self.rows = collections.Counter()
        # Why there may be a full refresh, and rows may differ until it comes; None: neither.
        self.excuse = None
        self.doubt = None
        self.entries = self.refreshes = 0

    def start_with(self, rows):
        for row, key in rows:
            self._insert(row, key)

    def _insert(self, row, key):
        self.rows[row] += 1
        self.by_key[key if key is not None else (row, self.rows[row])] = row

    def _delete(self, row, key):
        if self.rows[row] <= 0:
            self._doubt("deleted row", f"was never inserted so: {row}")
        elif self.rows[row] == 1:
            del self.rows[row]
        else:
            self.rows[row] -= 1
        if key is not None:
            self.by_key.pop(key, None)
        else:
            self.by_key.pop((row, self.rows[row] + 1), None)

    def _doubt(self, kind, text):
        self.doubt = self.doubt or Fault(kind, f"outbox {self.outbox}, row {self.at}: {text}")
        if self.excuse is None:
            raise self.doubt

    def read(self):
        """Takes all that is final. Stops at a gap that an open transaction may still fill."""
        last = self.side.rows("select coalesce(pg_sequence_last_value(%s::regclass), 0)",
                              self.sequence)[0][0]
        open_writers = self.side.rows(
            "select from pgtrickle.relay_open_writers(%s::regclass)",
            quoted("pgtrickle", self.outbox))
        entries = self.side.rows(
            f"select id, is_claim_check, payload ->> 'v', payload ? 'full_refresh', inserted_count,"
            f" deleted_count, tg_op, payload ->> 'reason' from pgtrickle.{quoted(self.outbox)} "
            "where id > %s and id <= %s order by id", self.position, last)
        if open_writers:
            final = [e for n, e in enumerate(entries) if e[0] == self.position + n + 1]
        else:
            final = entries
        if final:
            changes = self._changes(final[0][0], final[-1][0])
            for entry in final:
                self._apply(entry, changes.get(entry[0], []))
        self.position = last if not open_writers else self.position + len(final)

    def _changes(self, first, last):
        found = collections.defaultdict(list)
        for id, op, row, key in self.side.rows(
                f"""select o.id, r.row_op, r.row_data::text,
                           (select jsonb_agg(coalesce(r.row_data -> k, '"?"') order by n)
                            from unnest(c.key_columns) with ordinality u (k, n))::text
                    from pgtrickle.{quoted(self.outbox)} o
                    cross join lateral pgtrickle.outbox_rows(%s, o.id) r
                    join pgtrickle.pgt_outbox_config c on c.outbox_number = %s
                    where o.id between %s and %s order by o.id, r.row_num""",
                self.outbox, self.number, first, last):
            found[id].append((op, row, key))
        return found

    def _apply(self, entry, changes):
        self.at, _, version, full, inserted, deleted, tg_op, reason = entry
        self.entries += 1
        counts = collections.Counter(op for op, _, _ in changes)
        if version != "1" or (counts["INSERT"], counts["DELETE"]) != (inserted, deleted):
            raise Fault("counts", f"outbox {self.outbox}, row {self.at}: {entry} has {counts}")
        if full:
            if self.excuse is None and tg_op != "TRUNCATE" and reason not in HEALED:
                raise Fault("needless full refresh", f"of outbox {self.outbox}, row {self.at}: {reason}")
            self.by_key.clear()
            self.rows.clear()
            self.refreshes += 1
            self.doubt = None
        for op, row, key in changes:
            (self._insert if op == "INSERT" else self._delete)(row, key)

    def compare(self, expected):
        """expected: the rows of the table. A fault where the consumer has others."""
        expected = collections.Counter(expected)
        have = collections.Counter(self.by_key.values())
        if self.doubt:
            raise self.doubt
        for kind, rows in (("rows by key", have), ("rows", self.rows)):
            if rows != expected:
                raise Fault(kind, f"of outbox {self.outbox} differ from the table's.\n"
                            f"  only in the table: {list((expected - rows).elements())[:4]}\n"
                            f"  only at the consumer: {list((rows - expected).elements())[:4]}")
        self.excuse = None


# The model ---------------------------------------------------------------------------------------

class Model:
    """Runs operations:

    ("sql", session, statement)            in both databases
    ("copy", session, statement, data)     in both
    ("race", session, statement, other, end)   the statement waits for a lock of `other`, whose
                                           transaction is then ended; in both
    ("outbox", statement)                  where the outboxes are, as superuser
    ("excuse", table, why)                 the rows of the table that has this name now, and of the
                                           one that an outbox knows by it, may differ until the
                                           next full refresh
    ("enable", table, arguments)           an outbox for the table
    ("disable", table)
    ("read",)                              the consumers read on
    ("upkeep",)                            housekeeping runs, whatever is open
    ("check", end)                         transactions are ended, housekeeping runs, tables are
                                           compared
    """

    def __init__(self, server, relay_role, users, setup):
        self.server = server
        self.relay_role = relay_role
        self.users = users
        self.captured = Side(server, server.create_database(), users)
        self.plain = Side(server, server.create_database("template0"), users)
        self.consumers = {}
        self.figures = collections.Counter()
        self._relay = None
        for side in (self.captured, self.plain):
            with side.database.connect() as connection:
                connection.execute(setup.replace("{database}", side.database.name))
        self.captured.checker.execute(f"grant pgtrickle_admin to {OWNER}")

    def close(self):
        if self._relay is not None:
            self._relay.close()
        for side in (self.captured, self.plain):
            side.close()

    def run(self, operation):
        self.figures[operation[0]] += 1
        getattr(self, "_" + operation[0])(*operation[1:])

    # Statements

    def _sql(self, session, statement):
        here, there = (side.session(session) for side in (self.captured, self.plain))
        captured = here.run(statement)
        if captured[1] == "40001" and "read/write dependencies" in captured[2]:
            # Documented (docs/outboxes.md, "What an application may notice"): SERIALIZABLE
            # transactions may fail more often. The other database follows.
            self.figures["serialization failures"] += 1
            if there.status != pq.TransactionStatus.IDLE:
                there.run("rollback")
            if here.status != pq.TransactionStatus.IDLE:
                here.run("rollback")
            self._align_sequences()
            return
        self._compare(statement, [captured, there.run(statement)])

    def _align_sequences(self):
        """What was rolled back in one database only has drawn numbers there."""
        for name, last in self.captured.rows(
                "select quote_ident(schemaname) || '.' || quote_ident(sequencename), last_value "
                "from pg_sequences where schemaname in ('app', 'public') and last_value > 0"):
            if self.plain.rows("select to_regclass(%s) is not null", name)[0][0]:
                self.plain.rows("select setval(%s, %s)", name, last)

    def _copy(self, session, statement, data):
        self._compare(statement, [side.session(session).run(statement, data)
                                  for side in (self.captured, self.plain)])

    def _race(self, session, statement, other, end):
        results = []
        for side in (self.captured, self.plain):
            results.append(self._race_on(side, side.session(session), statement,
                                         side.session(other), end))
        for (first, second) in zip(*results):
            self._compare(statement, [first, second])

    def _race_on(self, side, session, statement, other, end):
        session.run("set lock_timeout = '5s'")  # a third transaction may be in the way too
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(session.run(statement)))
        thread.start()
        comes_true(lambda: not thread.is_alive() or side.waits(session.pid), 60, interval=0.002)
        ended = other.run(end)
        thread.join(60)
        if thread.is_alive():
            raise Fault("hangs", statement)
        if session.status == pq.TransactionStatus.INERROR:
            session.run("rollback")
        session.run(f"set lock_timeout = '{LOCK_TIMEOUT}'")
        return outcome[0], ended

    def _compare(self, statement, results):
        captured, plain = results
        self.figures["ok" if plain[0] == "ok" else "error " + str(plain[1])] += 1
        if captured != plain:
            raise Fault("another result", f"{statement}\n  with outbox:    {str(captured)[:600]}\n"
                        f"  without outbox: {str(plain)[:600]}")

    # Outboxes

    def _outbox(self, statement):
        try:
            self.captured.checker.execute(statement)
        except psycopg.Error as error:
            self.figures[f"refused: {error.diag.sqlstate}"] += 1
            self.last_refusal = str(error)

    def _enable(self, table, arguments):
        """Enables an outbox, and lets a consumer start with what the table has at that moment."""
        try:
            with self.captured.checker.transaction():
                self.captured.checker.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
                self.captured.checker.execute(
                    f"select pgtrickle.enable_outbox(%s{arguments})", (table,))
                number, rel = self.captured.rows(
                    "select outbox_number, stream_table_oid from pgtrickle.pgt_outbox_config "
                    "where stream_table_oid = to_regclass(%s)", table)[0]
                if number in self.consumers:
                    # The outbox of a table of that name which is gone goes on with this one.
                    self.consumers[number].excuse = "made anew"
                    return
                consumer = Consumer(self.captured, number)
                consumer.start_with(self._expected(rel, number))
                self.consumers[number] = consumer
        except psycopg.Error as error:
            self.figures[f"enable refused: {error.diag.sqlstate}"] += 1
            self.last_refusal = str(error)

    def _disable(self, table):
        try:
            with self.captured.checker.transaction():
                self.captured.checker.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
                self.captured.checker.execute("select pgtrickle.disable_outbox(%s)", (table,))
        except psycopg.Error as error:
            self.figures[f"disable refused: {error.diag.sqlstate}"] += 1

    def _excuse(self, table, why):
        # ALTER TABLE reaches the tables that inherit from the table, too.
        for number, name, names_now in self.captured.rows(
                "select o.outbox_number, o.stream_table_name, array(select c.relname::text "
                "from pg_class c where c.oid = o.stream_table_oid or c.oid in (select i.inhparent "
                "from pg_inherits i where i.inhrelid = o.stream_table_oid)) "
                "from pgtrickle.pgt_outbox_config o"):
            if number in self.consumers and table in ("*", name, *names_now):
                self.consumers[number].excuse = why

    def _expected(self, rel, number):
        """(row, key) for each row of a table: JSON as text."""
        return expected_rows(self.captured, rel, number)

    def _read(self):
        known = {row[0] for row in self.captured.rows(
            "select outbox_number from pgtrickle.pgt_outbox_config")}
        for number in list(self.consumers):
            if number not in known:
                del self.consumers[number]
            else:
                self.consumers[number].read()

    def _upkeep(self):
        """Housekeeping as the relay does it: as its role, until there is nothing more to do."""
        if self._relay is None or self._relay.closed:
            self._relay = psycopg.connect(
                self.server.dsn(self.captured.database.name, user=self.relay_role),
                autocommit=True, prepare_threshold=None)
            self._relay.execute("set default_transaction_isolation = 'read committed'")
        for _ in range(100):
            report = self._relay.execute("select pgtrickle.relay_housekeeping()").fetchone()[0]
            self.report = report
            if not report["more"]:
                return
        raise Fault("housekeeping never ends", str(report))

    def _check(self, end):
        self._end_transactions(end)
        self._upkeep()
        self._read()
        for number, consumer in self.consumers.items():
            self._check_one(number, consumer)

    def _end_transactions(self, end):
        for name in sorted(self.users):
            self._sql(name, end)
        prepared = [[row[0] for row in side.rows(
            "select gid from pg_prepared_xacts where database = current_database() order by gid")]
            for side in (self.captured, self.plain)]
        names = [sorted(gid.split("@")[0] for gid in side) for side in prepared]
        if names[0] != names[1]:
            raise Fault("another result", f"prepared transactions: {names}")
        for name in names[0]:
            self._finish_prepared("commit", name)

    def _finish_prepared(self, end, name):
        for side in (self.captured, self.plain):
            side.checker.execute(f"{end} prepared '{name}@{side.database.name}'")

    def _prepare(self, session, name):
        self._compare("prepare transaction", [
            (lambda r: r[:2])(side.session(session).run(
                f"prepare transaction '{name}@{side.database.name}'"))
            for side in (self.captured, self.plain)])

    def _check_one(self, number, consumer):
        rel, problem, name, schema = self.captured.rows(
            "select stream_table_oid, problem, stream_table_name, stream_table_schema "
            "from pgtrickle.pgt_outbox_config where outbox_number = %s", number)[0]
        if problem and "owner" in problem.split("(")[0]:
            # The remedy for what housekeeping may not do: the owner, here a superuser, calls it.
            self.figures["problem: needs the owner"] += 1
            self.captured.checker.execute("select pgtrickle.outbox_capture_upkeep()")
            problem = self._problem(number)
        if problem and " takes the primary key" in problem:
            self.figures["problem: the key identifies rows no longer"] += 1
            consumer.excuse = consumer.excuse or "key"
            statement = problem.split(" takes the primary key")[0].rsplit("SELECT ", 1)[1]
            self.captured.checker.execute("select " + statement)
            problem = self._problem(number)
        if problem and "outbox_full_refresh" in problem:
            self.figures["problem: asks for a full refresh"] += 1
            self.captured.checker.execute("select pgtrickle.outbox_full_refresh(%s)",
                                          (consumer.outbox,))
            problem = self._problem(number)
        consumer.read()
        if problem:
            self.figures["problem: " + problem[:60]] += 1
            return
        if rel is None or not self.captured.rows("select from pg_class where oid = %s", rel):
            self.figures["table gone"] += 1
            return
        here = self.captured.rows(
            "select r.oid::bigint, has_now.oid::bigint from pg_class r "
            "left join (select h.oid from pg_class h "
            "  join pg_namespace n on n.oid = h.relnamespace "
            "  where h.relname = %s and n.nspname = %s and h.relkind in ('r', 'p')) has_now on true "
            "where r.oid = %s",
            name, schema, rel)[0]
        if here[1] is not None and here[0] != here[1]:
            raise Fault("renamed and replaced",
                        f"outbox {consumer.outbox} is healthy, and another table is {name} now")
        self.figures["tables compared"] += 1
        consumer.compare([row for row, _ in self._expected(rel, number)])

    def _problem(self, number):
        return self.captured.rows("select problem from pgtrickle.pgt_outbox_config "
                                  "where outbox_number = %s", number)[0][0]

    def check_equal(self):
        """Both databases have the same tables with the same rows."""
        tables = """select n.nspname, c.relname from pg_class c
                    join pg_namespace n on n.oid = c.relnamespace
                    where c.relkind = 'r' and n.nspname in ('public', 'app', 'evil')
                    order by 1, 2"""
        captured, plain = (side.rows(tables) for side in (self.captured, self.plain))
        if captured != plain:
            raise Fault("databases differ", f"{captured} and {plain}")
        for schema, name in plain:
            sql = (f"select x::text collate \"C\" from only {quoted(schema, name)} x order by 1")
            captured, plain = (collections.Counter(side.rows(sql))
                               for side in (self.captured, self.plain))
            if captured != plain:
                raise Fault("databases differ", f"in {schema}.{name}:\n"
                            f"  only with outbox:    {list((captured - plain).elements())[:4]}\n"
                            f"  only without outbox: {list((plain - captured).elements())[:4]}")
