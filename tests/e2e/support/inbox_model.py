"""What must be in tables and dead letters, whatever happens to the relay and the database.

Every message that was published is in the table once or is in the dead letters; what is in neither
is not acknowledged to its broker; and a table holds nothing that was not published.
"""

import collections
import json
import random
import re
import time

import psycopg

from . import inbox_shapes, inbox_traffic
from .pipelines import LONG, SLOW_FACTOR
from .relay import Relay
from .waiting import comes_true, eventually

# What an operator may have set for the relay's role. None of it may lose or refuse a message.
SETTINGS = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'", "lock_timeout = '60ms'",
    "statement_timeout = '1500ms'", "synchronous_commit = off", "bytea_output = 'escape'",
    "standard_conforming_strings = off", "client_encoding = 'latin1'", "array_nulls = off",
    "search_path = app, public", "datestyle = 'German'", "timezone = 'Asia/Kathmandu'",
    "extra_float_digits = -15", "lc_messages = 'C'", "escape_string_warning = off",
    "idle_session_timeout = '300ms'", "transform_null_equals = on", "plan_cache_mode = "
    "'force_generic_plan'", "enable_seqscan = off", "xmloption = 'document'"]
TAG = re.compile(rb"m\d{5}x")
COMPANY_SECONDS = 5
LONGEST_SURE_ID = 900  # what certainly fits into an index
# Each row that is refused while there is no other to compare it with is a dead letter after 60 s.
PATIENCE, LONG_PATIENCE = 300 * SLOW_FACTOR, 600 * SLOW_FACTOR


class Table:
    """An adopted table, or an inbox of ours."""

    def __init__(self, db, shape, name, tracked):
        self.db, self.shape, self.name = db, shape, name
        self.place = inbox_shapes.make(db, shape, name)
        self.inbox = name if shape.created else None
        if tracked and not shape.created:
            try:
                db.execute("select pgtrickle.enable_inbox_tracking(%s, %s, retention_hours => 1)",
                           (name, self.place))
                self.inbox = name
            except psycopg.Error:
                pass  # such a table is no inbox
        self.target = {"inbox_name": name} if self.inbox else {"inbox_table": self.place}
        self.altered = False     # in a way that may have refused a message
        self.retyped = False     # the payloads have other letters than before
        self.undo = []           # statements that undo what was altered
        self.history = []        # (message, id given), to be published again
        self.purged = set()      # tags that retention may have deleted
        self.foreign = set()     # ids of rows that another application may have written

    def columns(self):
        return dict(self.db.execute(
            "select attname, format_type(atttypid, null) from pg_attribute where attrelid = "
            "%s::regclass and attnum > 0 and not attisdropped", (self.place,)))

    def rows(self):
        """(id, type, key, payload as bytes, processed, headers) of each row."""
        columns = self.columns()
        payload = "payload" if columns.get("payload") == "bytea" else (
            "convert_to(payload::text, 'UTF8')")
        wanted = ["event_id::text"] + [f"{name}::text" if name in columns else "null"
                                       for name in ("event_type", "aggregate_id")]
        done = "processed_at is not null" if "processed_at" in columns else "false"
        return self.db.execute(f"select {', '.join(wanted)}, {payload}, {done}, "
                               f"{'headers::text' if 'headers' in columns else 'null'} "
                               f"from {self.place}")


class Faults:
    """What was found, one entry a kind."""

    def __init__(self):
        self.found = collections.OrderedDict()

    def add(self, kind, lane, text):
        entry = self.found.setdefault((kind, lane), [0, text])
        entry[0] += 1

    def __str__(self):
        return "\n".join(f"- {kind}: {lane} ({count} times): {text}"
                         for (kind, lane), (count, text) in self.found.items())


class InboxModel:
    """One round on a database of its own."""

    def __init__(self, server, brokers, seed, shapes, steps, sources=None, without=()):
        self.random = random.Random(seed)
        self.server, self.seed, self.steps = server, seed, steps
        self.without = set(without)
        self.db = server.create_database()
        self.db.execute("create schema app; grant usage on schema app to pgtrickle_relay, public;"
                        "create extension citext schema public;"
                        "create collation public.nocase (provider = icu, "
                        "locale = 'und-u-ks-level2', deterministic = false)")
        self.tables = [Table(self.db, shape, f"t{n}", self.random.random() < 0.5)
                       for n, shape in enumerate(shapes)]
        self.lanes = []
        for table in self.tables:
            for _ in range(self.random.randint(2, 3)):
                kind = self.random.choice(sources or list(inbox_traffic.LANES))
                typed = table.shape.ids != "text"
                modes = ["from", "from", "relay"] if typed else ["broker", "from", "relay", "none"]
                self.lanes.append(inbox_traffic.LANES[kind](
                    f"{seed}_{len(self.lanes) + 1}", table, self.random.choice(modes),
                    brokers.get(kind)))
        if self.random.random() < 0.5 and "settings" not in self.without:
            self.setting = self.random.choice(SETTINGS)
            self.db.execute(f"alter role relay_daemon in database {self.db.name} "
                            f"set {self.setting}")
        else:
            self.setting = ""
        self.relay = Relay(self.db.relay_dsn)
        self.former = []         # relays that were overtaken, and may still run
        self.faults = Faults()
        self.figures = collections.Counter()
        self._tags = 0
        self._locks = []
        self._log = [self.setting] if self.setting else []

    # A round -------------------------------------------------------------------------------------

    def go(self):
        for lane in self.lanes:
            try:
                self.db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, "
                                "enabled => true)", (lane.name, json.dumps(lane.config())))
            except psycopg.Error as error:
                self.faults.add("a pipeline cannot be configured", repr(lane), str(error))
        self.relay.start()
        self.relay.wait_up()
        for step in range(self.steps):
            # What one step found out by chance changes nothing in the steps behind it.
            self.random = random.Random(f"{self.seed} {step}")
            self._step(self.random.choices(
                [self.burst, self.crash, self.stop, self.terminate, self.lock, self.unlock,
                 self.alter, self.heal_tables, self.consume, self.purge, self.restart_database,
                 self.make_again, self.foreign_row, self.settle, self.read_only, self.deadlock,
                 self.retry, self.take_over],
                [40, 5, 4, 5, 4, 4, 6, 4, 6, 5, 1.5, 4, 4, 10, 2, 3, 3, 3])[0])
        self._step(self.heal)
        self._step(self.wait_drained)
        self._step(self.check_all)
        self._step(self.retry_dead_letters)
        return self.faults

    def _step(self, operation):
        if operation.__name__ in self.without:
            return
        self._log.append(operation.__name__)
        self.figures[operation.__name__] += 1
        operation()
        if not self.relay.running:
            self.faults.add("the relay ended", "-", self.relay.log(30))
            self.relay.start()
        if operation != self.burst or self.random.random() < 0.2:
            self.check_acknowledged()

    def close(self):
        for lane in self.lanes:
            lane.close()
        self.unlock()
        for relay in [self.relay, *self.former]:
            if relay.running:
                relay.kill9()
        self.db.drop()

    # Traffic -------------------------------------------------------------------------------------

    def new_message(self, lane):
        self._tags += 1
        while True:
            message = inbox_traffic.message(f"m{self._tags:05d}x", self.random,
                                            0.02 if lane.table.shape.slow else 0.12)
            # Of an empty body, the key tells which it is.
            if message.body or lane.table.shape.name != "few_columns":
                return message

    def burst(self):
        for lane in self.random.sample(self.lanes, self.random.randint(1, len(self.lanes))):
            items = [self._item(lane) for _ in range(self.random.randint(1, 30))]
            lane.table.history += items
            lane.publish(items)
            self.figures["messages"] += len(items)

    def _item(self, lane):
        """A message and its id: new, one that was published, or one of the two."""
        chance = self.random.random()
        if "conflicts" in self.without:
            message = self.new_message(lane)
            return message, inbox_traffic.own_id(lane.table.shape.ids, self._tags, message.tag)
        given = inbox_traffic.ids(self.random, lane.table.shape.ids)
        if isinstance(lane, inbox_traffic.NatsLane):
            given = given.replace(b"\n", b"").replace(b"\r", b"")
        history = lane.table.history
        if history and chance < 0.2:
            message, given = self.random.choice(history)
            # Where a body is stored with its content type, it has to have the same one.
            if message.content_type == "application/json" or lane.mode == "none":
                return message, given
            same = [p for p in lane.publications if p.message is message]
            if same:
                return message, same[0].given
        if history and chance < 0.35:
            return self.new_message(lane), self.random.choice(history)[1]
        if history and chance < 0.38 and lane.table.shape.ids == "text" and lane.mode == "from" \
                and lane.table.shape.name not in ("id_citext", "id_nocase"):
            message, other = self.random.choice(history)
            if message.content_type == "application/json":
                return message, (b"other-%d-of-" % self.random.randrange(9)
                                 + other.strip()[:20])
        return self.new_message(lane), given

    def settle(self):
        """Lets the relay work for a while."""
        comes_true(lambda: all(lane.drained() for lane in self.lanes), 1, interval=0.05)

    # What happens --------------------------------------------------------------------------------

    def crash(self):
        self.relay.kill9()
        self.relay.start()

    def stop(self):
        self.relay.stop()
        self.relay.start()

    def terminate(self):
        """Ends sessions of the relay, or cancels what they do."""
        what = self.random.choice(["terminate", "cancel"])
        self.db.execute(
            f"select pg_{what}_backend(pid) from pg_stat_activity where usename = 'relay_daemon' "
            "and pid <> pg_backend_pid() and datname = current_database() and random() < 0.6")

    def lock(self):
        table = self.random.choice(self.tables)
        session = self.db.connect(autocommit=False)
        try:
            session.execute("set lock_timeout = '2s'")
            session.execute(f"lock table {table.place} in access exclusive mode")
            self._locks.append(session)
        except psycopg.Error:
            session.close()

    def unlock(self):
        for session in self._locks:
            try:
                session.rollback()
            except psycopg.Error:
                pass
            session.close()
        self._locks.clear()

    def restart_database(self):
        self._locks.clear()
        self.server.restart(self.random.choice(["fast", "immediate", "kill9"]))

    def make_again(self):
        """Deletes a stream of which all is settled, and makes it anew."""
        lane = self.random.choice(self.lanes)
        if hasattr(lane, "make_again") and lane.drained():
            self._check_presence(lane.acknowledged(), "acknowledged, and nowhere")
            lane.make_again()

    def foreign_row(self):
        """Another application writes a row with an id that a message brings, and may take it
        back."""
        lane = self._lane_of_sure_ids()
        if lane is None:
            return
        given = b"foreign-%d" % self.random.randrange(20)
        lane.table.foreign.add(given)
        message = self.new_message(lane)
        with self.db.connect(autocommit=False) as session:
            try:
                session.execute("set lock_timeout = '2s'")
                session.execute(
                    f"insert into {lane.table.place} (event_id, payload) values (%s, %s)",
                    (given.decode(), '{"t":"foreign"}'))
            except psycopg.Error:
                session.rollback()
                return
            lane.publish([(message, given)])
            time.sleep(self.random.random() * 0.05)
            session.rollback() if self.random.random() < 0.5 else session.commit()

    def deadlock(self):
        """Another application writes what the relay writes, in another order."""
        lane = self._lane_of_sure_ids()
        if lane is None:
            return
        first, second = (b"lock-%d-%d" % (self._tags, n) for n in (1, 2))
        with self.db.connect(autocommit=False) as session:
            write = (f"insert into {lane.table.place} (event_id, payload) "
                     "values (%s, '{\"t\":\"foreign\"}')")
            try:
                session.execute("set lock_timeout = '3s'")
                session.execute(write, (second.decode(),))
                lane.publish([(self.new_message(lane), given) for given in (first, second)])
                self._wait_until_blocked_by(session)
                session.execute(write, (first.decode(),))
            except psycopg.Error:
                pass
            session.rollback()

    def _wait_until_blocked_by(self, session):
        """Waits until the relay waits for that session, or does something else meanwhile."""
        blocked = "select count(*) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        comes_true(lambda: self.db.one(blocked, (session.info.backend_pid,)), 0.2, interval=0.01)

    def _lane_of_sure_ids(self):
        lanes = [lane for lane in self.lanes
                 if lane.mode == "from" and not lane.table.shape.refusable
                 and lane.table.shape.ids == "text"]
        return self.random.choice(lanes) if lanes and not self._locks else None

    def read_only(self):
        """For a while, what the relay opens is read-only."""
        name = f"alter role relay_daemon in database {self.db.name}"
        self.db.execute(f"{name} set default_transaction_read_only = on")
        self.terminate()
        self.burst()
        self.settle()
        self.db.execute(f"{name} reset default_transaction_read_only")

    def retry(self):
        """Tries the dead letters of a pipeline again."""
        if self._locks:
            return
        self._check_reasons(self._letters())
        self.db.execute("select pgtrickle.relay_dlq_retry_all(%s)",
                        (self.random.choice(self.lanes).name,))

    def take_over(self):
        """Another relay takes over from one that is frozen or killed, and that may thaw later."""
        for relay in self.former:
            relay.thaw()
            relay.kill9() if self.random.random() < 0.5 else self._end(relay)
        self.former.clear()
        old, self.relay = self.relay, Relay(self.db.relay_dsn)
        self.relay.start()
        self.relay.wait_up()
        if self.random.random() < 0.5:
            old.freeze()
            self.db.execute("select pg_terminate_backend(pid) from pg_locks "
                            "where locktype = 'advisory' and random() < 0.8")
            self.former.append(old)
        else:
            old.kill9()

    def _end(self, relay):
        try:
            relay.stop()
        except AssertionError as error:
            self.faults.add("a relay does not end", "-", str(error)[:2000])

    def consume(self):
        """Marks messages, and looks whether it is these that were marked."""
        table = self._inbox()
        if table is None:
            return
        rows = self._quietly(table.rows) or []
        for row in self.random.sample(rows, min(5, len(rows))):
            def mark():
                return self.db.one("select pgtrickle.inbox_mark_processed(%s, %s)",
                                   (table.name, row[0]))
            def marked():
                return self.db.execute(f"select event_id::text from {table.place} "
                                       "where processed_at is not null")
            before = self._quietly(marked)
            done = self._quietly(mark)
            after = self._quietly(marked)
            if before is None or done is None or after is None:
                continue
            new = {r[0] for r in after} - {r[0] for r in before}
            if new - {row[0]} or (done and row[0] not in {r[0] for r in after}):
                self.faults.add("inbox_mark_processed marks another row", table.shape.name,
                                f"asked for {row[0]!r}, marked {new!r}")
        if rows and self.random.random() < 0.5:
            chosen = [row[0] for row in self.random.sample(rows, min(3, len(rows)))]
            self._quietly(lambda: self.db.execute(
                "select pgtrickle.inbox_mark_failed(%s, %s, 'no')", (table.name, chosen[0])))
            self._quietly(lambda: self.db.execute(
                "select pgtrickle.replay_inbox_messages(%s, %s)", (table.name, chosen)))

    def purge(self):
        """Lets some processed rows be old; housekeeping may delete them, and no others."""
        table = self._inbox()
        if table is None:
            return
        rows = self._quietly(table.rows) or []
        by_id = collections.defaultdict(set)  # in a table and its children, an id may be twice
        for row in rows:
            by_id[row[0]].add(self._tag(table, row))
        for row in rows:
            tag = self._tag(table, row)
            if self.random.random() < 0.3 and row[0] is not None and tag:
                # What is said of a tag holds for all of its rows.
                self._quietly(lambda: self.db.execute(
                    f"update {table.place} set processed_at = now() - interval '100 hours' "
                    "where event_id::text = %s", (row[0],)))
                table.purged |= by_id[row[0]]
        waits = {self._tag(table, row) for row in self._quietly(table.rows) or [] if not row[4]}
        self._quietly(lambda: self.db.execute("select pgtrickle.relay_housekeeping()"))
        left = {self._tag(table, row) for row in self._quietly(table.rows) or []}
        if left and waits - left:
            self.faults.add("retention deleted what waits", table.shape.name,
                            f"{len(waits - left)} of {len(waits)}")

    def _inbox(self):
        tables = [t for t in self.tables
                  if t.inbox and "processed_at" in (self._quietly(t.columns) or {})]
        return self.random.choice(tables) if tables and not self._locks else None

    def _quietly(self, operation):
        """The result; None where the database refused."""
        try:
            self.db.execute("set lock_timeout = '2s'")
            return operation()
        except psycopg.Error:
            return None

    def alter(self):
        """Changes a table under the relay; `heal_tables` takes back what may refuse messages."""
        table = self.random.choice(self.tables)
        if table.shape.created or self._locks:
            return
        t, base = table.place, table.name
        changes = [
            ("alter table {t} add column c{i} int", None),
            ("alter table {t} add column c{i} text not null default 'x'", None),
            ("alter table {t} add column c{i} int not null", "alter table {t} drop column c{i}"),
            ("alter table {t} rename column event_type to other",
             "alter table {t} rename column other to event_type"),
            ("alter table {t} rename column payload to other",
             "alter table {t} rename column other to payload"),
            ("alter table {t} rename to other", "alter table app.other rename to {b}"),
            ("revoke insert on {t} from pgtrickle_relay",
             "grant insert on {t} to pgtrickle_relay"),
            ("revoke select on {t} from pgtrickle_relay",
             "grant select on {t} to pgtrickle_relay"),
            ("alter table {t} drop column trace_id", None),
            ("create index on {t} (event_type)", None),
            ("vacuum full {t}", None),
            ("alter table {t} alter payload type text using payload::text", None),
            ("create rule r{i} as on insert to {t} do also nothing", "drop rule r{i} on {t}"),
            ("alter table {t} enable row level security",
             "alter table {t} disable row level security"),
            ("alter table {t} disable trigger user", None),
            ("alter table {t} alter headers set not null",
             "alter table {t} alter headers drop not null"),
        ]
        change, undo = self.random.choice(changes)
        self._tags += 1
        fill = lambda text: text.replace("{t}", t).replace("{b}", base).replace(
            "{i}", str(self._tags))
        if ("security" in change and "row_security" in table.shape.name) or (
                "payload type" in change and len(table.shape.statements) > 1):
            return
        if "rename to other" in change and any("app.other" in u for other in self.tables
                                               for u in other.undo):
            return
        if self._quietly(lambda: self.db.execute(fill(change))) is None:
            return
        self._log.append(fill(change))
        table.retyped = table.retyped or "payload type" in change
        if undo:
            table.altered = True
            table.undo.append(fill(undo))

    def heal_tables(self):
        self.unlock()
        for table in self.tables:
            while table.undo:
                statement = table.undo[-1]
                if self._quietly(lambda: self.db.execute(statement)) is None:
                    break
                table.undo.pop()

    def heal(self):
        self.heal_tables()
        for table in self.tables:
            assert not table.undo, f"SEED={self.seed}: {table.undo} cannot be undone"
        for relay in self.former:
            relay.thaw()
            self._end(relay)
        self.former.clear()
        # A pipeline that takes its table for a mistake looks again after half a minute.
        if any(table.altered for table in self.tables):
            self.stop() if self.random.random() < 0.5 else self.crash()

    # The judgement -------------------------------------------------------------------------------

    def wait_drained(self):
        """Waits until each pipeline has settled everything, or says why it does not."""
        self.relay.wait_up()
        open_lanes = list(self.lanes)
        # In some long rounds, what is refused alone waits for its minute.
        alone = LONG and self.random.random() < 0.2
        next_company = time.monotonic() + COMPANY_SECONDS

        def done():
            nonlocal next_company
            states = {entry["name"]: entry for entry in self.relay.health()[1]["pipelines"]}
            for lane in list(open_lanes):
                if self._may_stand_still(lane, states.get(lane.name)) or lane.drained():
                    open_lanes.remove(lane)
            if not alone and time.monotonic() > next_company:
                next_company = time.monotonic() + COMPANY_SECONDS
                for lane in open_lanes:
                    if states.get(lane.name, {}).get("last_error"):
                        self._accompany(lane)
            return not open_lanes
        try:
            eventually(done, LONG_PATIENCE if any(table.shape.slow for table in self.tables)
                       else PATIENCE, interval=0.2)
        except AssertionError:
            for lane in open_lanes:
                entry = self.relay.pipeline(lane.name) if self.relay.lists(lane.name) else {}
                self.faults.add("blocked for ever", repr(lane),
                                f"{entry.get('state')}: {entry.get('error_code')} "
                                f"{entry.get('last_error')}")

    def _accompany(self, lane):
        """A message that nothing refuses: a refused one that is compared with it is believed."""
        self._tags += 1
        tag = f"m{self._tags:05d}x"
        lane.publish_beside((
            inbox_traffic.Message(tag, b'{"t":"%s"}' % tag.encode(), "ok", tag, "application/json"),
            inbox_traffic.own_id(lane.table.shape.ids, self._tags, tag)))
        self.figures["company"] += 1

    def _may_stand_still(self, lane, entry):
        if entry is None or not entry["last_error"]:
            return False
        if lane.table.shape.refusable and entry["state"] == "misconfigured":
            return True
        settled = lane.acknowledged() if lane.table.shape.may_wait else []
        return lane.table.shape.may_wait and all(
            p.message.kind == "a.poison" for p in set(lane.publications) - set(settled))

    def check_acknowledged(self):
        """What a broker takes for settled is settled."""
        acknowledged = [p for lane in self.lanes for p in lane.acknowledged()]
        self._check_presence(acknowledged, "acknowledged, and nowhere")

    def _check_presence(self, publications, kind):
        """Checks that these, whose acknowledgement was seen before, are rows or dead letters."""
        if self._locks:
            return None
        letters = self._letters()
        by_table = collections.defaultdict(list)
        for publication in publications:
            by_table[publication.lane.table].append(publication)
        for table, wanted in by_table.items():
            rows = self._quietly(table.rows)
            if rows is None:
                continue
            stored = collections.Counter(self._tag(table, row) for row in rows)
            keys = collections.defaultdict(dict)
            for publication in wanted:
                keys[publication.message.tag][publication.identity] = publication
            for tag, identities in keys.items():
                dead = letters.get((table.name, tag), {})
                if tag in table.purged:
                    continue
                if stored[tag] + len(dead) < len(identities):
                    sample = list(identities.values())[-1]
                    self.faults.add(kind, repr(sample.lane), self._story(
                        sample, f"{stored[tag]} rows, {len(dead)} dead letters for "
                        f"{len(identities)} messages {list(identities)}", tag, rows, table))
        return letters

    def _story(self, publication, what, tag, rows, table):
        same = [(self._tag(table, row) or "?", row[0]) for row in rows
                if row[0] and publication.given.decode("utf-8", "replace").strip() in row[0]][:6]
        return (f"id {publication.given[:60]!r}, type {publication.message.kind}, body "
                f"{publication.message.body[:80]!r}: {what}; rows with such an id: {same}")

    def _letters(self):
        """{(table, tag): {(pipeline, message id): ...}} of the dead letters that are unresolved."""
        names = {lane.name: lane.table.name for lane in self.lanes}
        found = collections.defaultdict(dict)
        for number, pipeline, identity, key, body, code, text in self.db.execute(
                "select id, pipeline, message_id, key, payload, error_code, error_message "
                "from pgtrickle.relay_dlq where resolved_at is null"):
            tag = self._tag_of(bytes(body or b""), key)
            found[(names[pipeline], tag)][(pipeline, identity, number)] = (code, text, body)
        return found

    def _tag_of(self, body, key):
        found = TAG.search(body) or TAG.search((key or "").encode())
        return found.group().decode() if found else None

    def _tag(self, table, row):
        body = bytes(row[3]) if row[3] is not None else b""
        return self._tag_of(inbox_traffic.raw_body(body) or body, row[2])

    def check_all(self):
        """All that was published, and all that is there."""
        self.check_acknowledged()
        still = {lane for lane in self.lanes if not lane.drained()}
        letters = self._check_presence(
            [p for lane in self.lanes if lane not in still for p in lane.publications
             if lane.is_taken(p)], "settled, and nowhere")
        for table in self.tables:
            self._check_table(table)
        self._check_reasons(letters or {})
        self._check_letters(letters or {})

    def _check_table(self, table):
        publications = [p for lane in self.lanes if lane.table is table
                        for p in lane.publications]
        by_tag = collections.defaultdict(list)
        for publication in publications:
            by_tag[publication.message.tag].append(publication)
        stored = collections.defaultdict(list)
        for row in table.rows():
            stored[self._tag(table, row)].append(row)
            self.figures["rows"] += 1
        for tag, rows in stored.items():
            if tag is None or tag not in by_tag:
                strange = [r for r in rows if b"foreign" not in bytes(r[3] or b"")
                           and b"child" not in bytes(r[3] or b"")]
                if strange:
                    self.faults.add("a row that was never published", table.shape.name,
                                    repr(strange[0])[:300])
                continue
            identities = {p.identity for p in by_tag[tag]}
            # The id of a row that retention deleted is free: a message that was stored under a
            # longer id for its sake may come to be stored under its own.
            freed = any(p.identity in identities for p in publications
                        if p.message.tag in table.purged)
            if self._copies(table, rows) > len(identities) and not freed:
                self.faults.add("stored more than once", repr(by_tag[tag][0].lane),
                                f"{len(rows)} rows for {len(identities)} messages: "
                                f"{[r[0] for r in rows]}, ids {[p.given for p in by_tag[tag]]}")
            for row in rows:
                self._check_row(table, by_tag[tag][0], row)

    def _copies(self, table, rows):
        """How many rows are one message's, of an equal payload.

        Text is compared letter by letter. Where the column was jsonb before, what had been stored
        has the letters of jsonb, and a message that comes again with its own is another one."""
        if not table.retyped:
            return len(rows)
        return max(collections.Counter(bytes(row[3] or b"") for row in rows).values())

    def _check_reasons(self, letters):
        """A message for which the model knows no reason is no dead letter."""
        for table in self.tables:
            by_tag = collections.defaultdict(list)
            for lane in self.lanes:
                for publication in lane.publications if lane.table is table else []:
                    by_tag[publication.message.tag].append(publication)
            stored = {self._tag(table, row) for row in self._quietly(table.rows) or []}
            for (name, tag), found in letters.items():
                if name != table.name or tag in stored or tag in table.purged:
                    continue
                for publication in by_tag[tag]:
                    # The message may have been published under another id as well.
                    if self._is_sure(table, publication, by_tag) and any(
                            pipeline == publication.lane.name
                            and publication.lane.may_be(publication, identity)
                            for pipeline, identity, _ in found):
                        code, text, _ = next(iter(found.values()))
                        self.faults.add("a dead letter without a reason", repr(publication.lane),
                                        f"id {publication.given[:60]!r}, body "
                                        f"{publication.message.body[:60]!r}: {code} {text[:200]}")
                        break

    def _is_sure(self, table, publication, by_tag):
        """Whether nothing excuses the table from having the message."""
        shape = table.shape
        same = {tag for tag, published in by_tag.items()
                for p in published if p.identity == publication.identity}
        return (shape.strict and not table.altered and publication.message.kind == "ok"
                and len(publication.given) < (40 if shape.name == "id_varchar" else
                                              LONGEST_SURE_ID)
                and not (shape.before and (len(same) > 1 or publication.given in table.foreign))
                and not (publication.message.body == b"" and "not_null" in shape.name)
                and publication.lane.is_taken(publication))

    def _check_row(self, table, publication, row):
        body = bytes(row[3]) if row[3] is not None else b""
        message = publication.message
        if table.shape.unwrap and row[3] is not None:
            body = table.shape.unwrap(body.decode()).encode()
        if table.shape.name == "payload_char":
            body = body.rstrip(b" ")
        if not self._same_body(body, message.body):
            self.faults.add("another payload is stored", repr(publication.lane),
                            f"{message.body[:120]!r} became {body[:120]!r}")
        if table.shape.same_type and row[1] is not None and row[1].rstrip() != message.kind:
            self.faults.add("another type is stored", repr(publication.lane),
                            f"{message.kind!r} became {row[1]!r}")
        if row[2] is not None and row[2].rstrip() != message.key:
            self.faults.add("another key is stored", repr(publication.lane),
                            f"{message.key!r} became {row[2]!r}")

        try:
            headers = json.loads(row[5] or "{}")
            assert not headers or message.kind in (headers.get("event-type"),
                                                   headers.get("event_type"))
        except (ValueError, AssertionError):
            self.faults.add("other headers are stored", repr(publication.lane), repr(row[5])[:200])

    def _same_body(self, stored, published):
        if stored == published or inbox_traffic.raw_body(stored) == published:
            return True
        try:
            return self.db.one("select %s::jsonb = %s::jsonb",
                               (stored.decode(), published.decode()))
        except (psycopg.Error, UnicodeDecodeError, ValueError):
            return False

    def _check_letters(self, letters):
        bodies = {p.message.tag: p for lane in self.lanes for p in lane.publications}
        for (table, tag), found in letters.items():
            self.figures["dead letters"] += len(found)
            for (pipeline, identity, _), (_, _, body) in found.items():
                if tag not in bodies:
                    self.faults.add("a dead letter that was never published", pipeline,
                                    f"{identity!r} {bytes(body or b'')[:100]!r}")
                elif bytes(body or b"") != bodies[tag].message.body:
                    self.faults.add("a dead letter with another payload",
                                    repr(bodies[tag].lane), f"{bytes(body)[:100]!r}")

    def retry_dead_letters(self):
        """What a trigger refused is stored when the trigger is gone and it is tried again."""
        letters = self._letters()
        for table in self.tables:
            if not table.shape.name.startswith(("raises", "returns_null", "divides")):
                continue
            lanes = [lane for lane in self.lanes if lane.table is table]
            self.db.execute(f"drop trigger t on {table.place}")
            for lane in lanes:
                self.db.execute("select pgtrickle.relay_dlq_retry_all(%s)", (lane.name,))
            tags = {tag for (name, tag) in letters if name == table.name} - table.purged

            def left():
                """What is no row, and not a dead letter for its id's sake either: another message
                has it, or no index takes it."""
                dead = self._letters()
                return {tag: dead.get((table.name, tag), {}) for tag in
                        tags - {self._tag(table, row) for row in table.rows()}
                        if not any(code == "id_conflict" or len(identity) >= LONGEST_SURE_ID
                                   for (_, identity, _), (code, _, _) in
                                   dead.get((table.name, tag), {}).items())}
            try:
                eventually(lambda: not left(), 20 * SLOW_FACTOR, interval=0.1)
            except AssertionError:
                for tag, found in left().items():
                    self.faults.add("a dead letter that cannot be retried", table.shape.name,
                                    f"{tag} {str(found)[:300]}")


def shapes_for(random_, names, count):
    """The shapes of these names; else an inbox of ours and others by chance."""
    known = {shape.name: shape for shape in inbox_shapes.SHAPES}
    if names:
        return [known[name] for name in names]
    others = random_.sample([shape for shape in inbox_shapes.SHAPES[1:] if LONG or not shape.slow],
                            count - 1)
    return [known["created"], *others]
