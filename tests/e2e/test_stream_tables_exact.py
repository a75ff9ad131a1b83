"""Stream tables are exact: whatever happens to the sources, the sum of the deltas is the result."""

import json
import random
import threading
import time
from collections import Counter

import psycopg
import pytest
from support.waiting import eventually

# What is watched: name -> (query, key columns, refresh mode).
QUERIES = {
    "by_customer": ("""select c.id as customer, c.region, count(o.id) as orders,
                              sum(o.amount) as total, min(o.note) as note
                       from customers c left join orders o on o.customer = c.id
                       group by c.id, c.region""", ["customer"], "AUTO"),
    "every_order": ("""select o.id, c.region, o.amount, o.doc, o.place, o.note
                       from orders o join customers c on c.id = o.customer""", ["id"],
                    "DIFFERENTIAL"),
    "duplicates": ("""select c.region, o.note, o.doc, o.place, o.amount
                      from orders o left join customers c on c.id = o.customer""", None, "AUTO"),
    "distincts": ("select distinct c.region, o.note from customers c, orders o "
                  "where o.customer = c.id", None, "DIFFERENTIAL"),
    "same_rows": ("""select region as word from customers
                     union all select note from orders
                     union all select note from orders where amount > 50""", None, "AUTO"),
    "rewritten": ("select region, count(*) as customers from customers group by region", None,
                  "FULL"),
}


def make_sources(db):
    db.execute("""
        create table customers (id int primary key, region text);
        create table orders (id int primary key, customer int, amount numeric, note text,
                             doc json, place point);
        create index on orders (customer);
        insert into customers select i, (array['eu', 'us', null])[1 + i % 3]
        from generate_series(1, 20) i;
        insert into orders select i, 1 + i % 20, i, (array['a', 'b', null])[1 + i % 3],
                                  '{"a": 1}', point(i % 2, 0)
        from generate_series(1, 60) i""")


def random_change(random_):
    """One statement that changes a source at random, with NULLs, equal rows and equal values."""
    order = random_.randrange(1, 120)
    customer = random_.choice([random_.randrange(1, 22), None])
    values = {
        "id": order, "customer": customer,
        "amount": random_.choice([None, "1.0", "1.00", "-0", str(random_.randrange(100))]),
        "note": random_.choice([None, "", "a", "b", "A", "ä'\"\\"]),
        "doc": random_.choice([None, "null", '{"a":1}', '{"a": 1}', '{"a":1,"a":2}', "[1.0]"]),
        "place": random_.choice([None, "(0,0)", "(-0,0)", "(1e-17,0)", "(1,2)"]),
        "region": random_.choice([None, "eu", "us", "asia", ""]),
        "low": order, "high": order + random_.randrange(8),
        "person": random_.randrange(1, 24),
    }
    return random_.choice([
        "insert into orders values (%(id)s, %(customer)s, %(amount)s, %(note)s, %(doc)s, "
        "%(place)s) on conflict (id) do update set note = excluded.note, doc = excluded.doc, "
        "place = excluded.place, amount = excluded.amount, customer = excluded.customer",
        "insert into orders values (%(id)s, %(customer)s, %(amount)s, %(note)s, %(doc)s, "
        "%(place)s) on conflict (id) do update set note = excluded.note, doc = excluded.doc, "
        "place = excluded.place, amount = excluded.amount, customer = excluded.customer",
        "update orders set note = %(note)s, amount = %(amount)s "
        "where id between %(low)s and %(high)s",
        "update orders set doc = %(doc)s, place = %(place)s where id between %(low)s and %(high)s",
        "delete from orders where id between %(low)s and %(high)s",
        "insert into customers values (%(person)s, %(region)s) "
        "on conflict (id) do update set region = excluded.region",
        "delete from customers where id = %(person)s",
    ]), values


class Replay:
    """Adds up the deltas of one stream table, as a consumer who knows nothing else would."""

    def __init__(self, connection, name, key):
        self.connection = connection
        self.name = name
        self.key = key
        self.position = 0
        self.rows = Counter(self._stored())
        self.deltas = 0

    def _stored(self):
        return [row[0] for row in
                self.connection.execute(f"select to_jsonb(t.*)::text from {self.name} t")]

    def advance(self):
        """Applies what is new and compares with the table as the same snapshot shows it."""
        with self.connection.transaction():
            self.connection.execute("set transaction isolation level repeatable read")
            new = self.connection.execute(
                f"""select o.id, o.payload ? 'full_refresh', r.row_op, r.row_data::text
                    from pgtrickle.outbox_{self.name} o
                    left join lateral pgtrickle.outbox_rows(%s, o.id) r on true
                    where o.id > %s order by o.id, r.row_num""",
                (self.name, self.position)).fetchall()
            stored = Counter(self._stored())
        for outbox_id, full, op, row in new:
            if outbox_id != self.position:
                self.position = outbox_id
                self.deltas += 1
                if full:
                    self.rows.clear()
            if op == "INSERT":
                self.rows[row] += 1
            elif op == "DELETE":
                self.rows[row] -= 1
                assert self.rows[row] >= 0, f"{self.name}: a row went that was not there: {row}"
        self.rows = +self.rows
        assert self.rows == stored, f"{self.name}: the deltas do not add up to the table"
        if self.key:
            keys = [tuple(json.loads(row)[k] for k in self.key) for row in stored.elements()]
            assert len(keys) == len(set(keys))


def work_together(count, work):
    """Runs `work(number)` in so many threads; the first error is raised here."""
    errors = []

    def run(number):
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def refresh(connection, name):
    done = connection.execute("select pgtrickle.refresh_stream_table(%s)", (name,)).fetchone()[0]
    assert done["action"] != "FAILED", done
    return done


@pytest.mark.parametrize("seed", [20260427])
def test_the_deltas_add_up_to_the_result_while_four_writers_change_the_sources(db, seed):
    make_sources(db)
    for name, (query, key, mode) in QUERIES.items():
        db.execute("select pgtrickle.create_stream_table(%s, %s, null, %s, %s)",
                   (name, query, mode, key))
        db.execute("select pgtrickle.enable_outbox(%s)", (name,))
    reader = db.connect()
    replays = {name: Replay(reader, name, key) for name, (_, key, _) in QUERIES.items()}
    random_ = random.Random(seed)
    changes = 0

    for round_number in range(10):
        writing = threading.Event()
        writing.set()
        seeds = [random_.random() for _ in range(4)]

        def write(number):
            own = random.Random(seeds[number])
            with db.connect(autocommit=False) as connection:
                for _ in range(25):
                    for _ in range(own.randrange(1, 4)):
                        try:
                            with connection.transaction():
                                connection.execute(*random_change(own))
                                if own.random() < 0.1:
                                    raise psycopg.Rollback()
                        except psycopg.errors.DeadlockDetected:
                            break
                    if own.random() < 0.1:
                        connection.rollback()
                    else:
                        connection.commit()

        def write_or_refresh(number):
            if number < 4:
                write(number)
            elif number < 6:
                own = random.Random(number + seeds[0])
                with db.connect() as connection:
                    while writing.is_set():
                        refresh(connection, own.choice(list(QUERIES)))
            else:
                work_together(4, write)
                writing.clear()

        # Two refreshers beside the four writers, both sometimes at the same stream table.
        work_together(7, lambda n: write_or_refresh(n) if n >= 4 else None)
        changes += 100
        for name, (query, _, _) in QUERIES.items():
            replays[name].advance()
            refresh(reader, name)
            replays[name].advance()
            expected = Counter(row[0] for row in reader.execute(
                f"select to_jsonb(q.*)::text from ({query}) q"))
            assert replays[name].rows == expected, f"round {round_number}: {name}"
            images = reader.execute(
                f"""select count(*) from (
                      (select q::text from ({query}) q except all select t::text from {name} t)
                      union all
                      (select t::text from {name} t except all select q::text from ({query}) q)
                    ) d""").fetchone()[0]
            assert images == 0, f"round {round_number}: {name} differs from its query"

    assert changes == 1000
    assert all(replay.deltas > 3 for replay in replays.values())
    reader.close()


@pytest.mark.parametrize("ending", ["commit", "prepared"])
def test_a_writer_that_commits_after_the_refresh_has_looked_is_not_forgotten(db, ending):
    """Its trigger moved the sequence before the refresh looked; its row was not in the snapshot."""
    db.execute("create table t (id int primary key)")
    db.execute("select pgtrickle.create_stream_table('s', 'select id from t', '1ms')")
    daemon = db.connect(user="relay_daemon")

    def due():
        return [row[0] for row in daemon.execute("select * from pgtrickle.stream_tables_due()")]

    def settle():
        assert due() == ["public.s"]
        refresh(daemon, "s")

    eventually(lambda: settle() or True)
    with db.connect(autocommit=False) as late:
        late.execute("insert into t values (1)")
        eventually(lambda: settle() or True)          # moved, but not to be seen
        assert db.one("select count(*) from s") == 0
        assert not any(due() for _ in range(20)), "no sequence moved, and no writer has ended"
        if ending == "prepared":
            late.execute("prepare transaction 'late'")
            late.commit()
            # Whether the server names the prepared transaction as before depends on its version.
            for name in due():
                refresh(daemon, name)
            assert db.one("select count(*) from s") == 0
            assert not any(due() for _ in range(20))
            db.execute("commit prepared 'late'")
        else:
            late.commit()
    eventually(lambda: settle() or True)
    assert db.one("select count(*) from s") == 1
    daemon.close()


def test_values_that_are_equal_but_not_the_same_are_told_apart(db):
    """1.0 and 1.00 are equal, and a consumer of JSON sees two texts; with a key, a derived one and none."""
    db.execute("""
        create collation folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table t (id int primary key, n numeric, f float8, i interval, j jsonb, c char(5),
                        w text collate folded, d date);
        insert into t values (1, 1.0, 0, '24 hours', '{"a": 1.0}', 'x', 'word', '2026-04-27')""")
    for name, query, key in (("keyed", "select * from t", ["id"]), ("derived", "select * from t", None),
                             ("unkeyed", "select * from t union all select * from t where false", None)):
        db.execute("select pgtrickle.create_stream_table(%s, %s, null, 'AUTO', %s)", (name, query, key))
    for change in ("n = 1.00", "f = '-0'", "i = '1 day'", "j = '{\"a\": 1.00}'", "w = 'WORD'",
                   "d = null"):
        db.execute(f"update t set {change}")
        for name in ("keyed", "derived", "unkeyed"):
            done = refresh(db.connect(), name)
            changed = (done["inserted"], done["updated"], done["deleted"])
            assert changed == ((1, 0, 1) if name == "unkeyed" else (0, 1, 0)), (name, change)
            assert (db.execute(f"select t::text from {name} t")
                    == db.execute("select t::text from t t"))
            assert refresh(db.connect(), name)["action"] == "NO_DATA"


def test_exactly_as_many_equal_rows_go_as_went(db):
    db.execute("create table t (id serial, word text, doc json)")
    db.execute("insert into t (word, doc) select w, '{}' from unnest(array['x', 'x', 'x', 'x', "
               "'y', 'y', null, null, null]) w")
    db.execute("select pgtrickle.create_stream_table('s', 'select word, doc from t', null)")
    db.execute("select pgtrickle.enable_outbox('s')")

    def counts():
        return dict(db.execute("select word, count(*) from s group by word"))

    assert counts() == {"x": 4, "y": 2, None: 3}
    db.execute("delete from t where id in (1, 2, 3, 5, 7, 8)")
    done = refresh(db.connect(), "s")
    assert (done["inserted"], done["updated"], done["deleted"]) == (0, 0, 6)
    assert counts() == {"x": 1, "y": 1, None: 1}
    assert db.execute("select row_op, row_data ->> 'word', count(*) "
                      "from pgtrickle.outbox_rows('s', 1) group by 1, 2 order by 2") == [
        ("DELETE", "x", 3), ("DELETE", "y", 1), ("DELETE", None, 2)]
    db.execute("insert into t (word, doc) values ('x', '{}'), ('x', '{}'), ('z', null)")
    refresh(db.connect(), "s")
    assert counts() == {"x": 3, "y": 1, "z": 1, None: 1}


@pytest.mark.parametrize("query", [
    "select id, word from t union all select id, word from t where id > 1",
    "select id, word from t union all select id, upper(word) from t where id > 1"])
def test_a_key_that_does_not_tell_the_rows_apart_is_an_error_and_changes_nothing(db, query):
    db.execute("create table t (id int, word text)")
    db.execute("insert into t values (1, 'x')")
    db.execute("select pgtrickle.create_stream_table('s', %s, null, 'AUTO', '{id}')", (query,))
    db.execute("insert into t values (2, 'y')")
    done = db.one("select pgtrickle.refresh_stream_table('s')")
    assert done["action"] == "FAILED" and "do not tell the rows" in done["error"]
    # As well when one of the two is stored already.
    db.execute("update t set id = 1 where id = 1")
    db.execute("delete from t where id = 2")
    refresh(db.connect(), "s")
    db.execute("insert into t values (1, 'x')")
    done = db.one("select pgtrickle.refresh_stream_table('s')")
    assert done["action"] == "FAILED" and "1 is there twice" in done["error"]
    assert db.execute("select * from s") == [(1, "x")]


def test_a_million_unchanged_rows_cost_nothing(db):
    db.execute("create table t (id int primary key, word text, n bigint)")
    db.execute("insert into t select i, 'word ' || i, i from generate_series(1, 1000000) i")
    db.execute("analyze t")
    db.execute("create table beside (id int)")
    took = {}

    def timed(label, statement):
        began = time.monotonic()
        value = db.one(statement)
        took[label] = (time.monotonic() - began) * 1000
        return value

    timed("create", "select pgtrickle.create_stream_table('keyed', 'select * from t', '1ms', "
                    "'AUTO', '{id}')")
    timed("create without key", "select pgtrickle.create_stream_table("
                                "'unkeyed', 'select * from t', '1ms')")
    for name in ("keyed", "unkeyed"):
        assert timed(f"refresh {name}, nothing changed",
                     f"select pgtrickle.refresh_stream_table('{name}')")["action"] == "NO_DATA"
    # A statement that changes nothing, and a change of another table, move nothing.
    with db.connect() as other:
        other.execute("update t set n = 0 where id = -1")
        other.execute("delete from t where id = -1")
        other.execute("insert into beside values (1)")
    db.execute("update pgtrickle.pgt_stream_tables set next_due_at = clock_timestamp()")
    daemon = db.connect(user="relay_daemon")
    began = time.monotonic()
    for _ in range(100):
        assert daemon.execute("select * from pgtrickle.stream_tables_due()").fetchall() == []
    took["stream_tables_due()"] = (time.monotonic() - began) * 10
    assert took["stream_tables_due()"] < took["refresh keyed, nothing changed"] / 10

    db.execute("update t set n = n + 1 where id % 1000 = 0")
    for name in ("keyed", "unkeyed"):
        done = timed(f"refresh {name}, 1,000 changed",
                     f"select pgtrickle.refresh_stream_table('{name}')")
        assert done["updated"] + done["inserted"] == 1000
    print("\nstream tables of 1,000,000 rows, ms: "
          + ", ".join(f"{label} {value:.1f}" for label, value in took.items()))
    daemon.close()


def test_a_thousand_sources_that_did_not_change_are_looked_at_quickly(db):
    db.execute("""
        do $$ begin
          for i in 1..100 loop
            execute format('create table t%s (id int)', i);
            perform pgtrickle.create_stream_table('s' || i, format('select id from t%s', i), '1ms');
          end loop;
        end $$""")
    for i in range(1, 101):
        refresh(db._connection, f"s{i}")
    # What is looked at for each of them, ten times over.
    db.execute("""
        insert into pgtrickle.pgt_stream_sources
        select pgt_id, format('t%s', 1 + (pgt_id + k) % 100)::regclass, members,
               format('pgtrickle.dirty_%s', format('t%s', 1 + (pgt_id + k) % 100)::regclass::oid)
                 ::regclass, true, 1, format('t%s', 1 + (pgt_id + k) % 100)::regclass::oid
        from pgtrickle.pgt_stream_sources, generate_series(1, 9) k
        on conflict do nothing""")
    db.execute("update pgtrickle.pgt_stream_tables set next_due_at = clock_timestamp()")
    assert db.one("select count(*) from pgtrickle.pgt_stream_sources") >= 900
    best = None
    with db.connect(user="relay_daemon") as daemon:
        for _ in range(20):
            began = time.monotonic()
            assert daemon.execute("select * from pgtrickle.stream_tables_due()").fetchall() == []
            best = min(best or 9, time.monotonic() - began)
    print(f"\nstream_tables_due() over 100 stream tables and 1,000 sources: {best * 1000:.1f} ms")
    assert best < 0.1
