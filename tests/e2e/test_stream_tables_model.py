"""Stream tables under random work: statements, DDL on their sources, refreshes in between.

What a consumer has that applied every delta equals the query at the end, or the stream table is
suspended and says why. SEED=n repeats a run; LONG=1 runs for longer, over several seeds.
"""

import json
import os
import random
from collections import Counter

import psycopg
import pytest
from support.waiting import eventually

SEEDS = ([int(os.environ["SEED"])] if "SEED" in os.environ
         else list(range(1, 7)) if os.environ.get("LONG") else [20260427])
ROUNDS = 25 if os.environ.get("LONG") else 3

SOURCES = """
    create schema m;
    create type m.mood as enum ('good', 'bad', 'so');
    create table m.customers (id int primary key, region text, tags text[], since timestamptz);
    create table m.orders (id int primary key, customer int, amount numeric, price float8, note text,
                           doc json, docb jsonb, placed timestamptz, took interval, mood m.mood);
    create table m.parts (id int, at int, word text) partition by range (at);
    create table m.parts_0 partition of m.parts for values from (0) to (100);
    create table m.parts_1 partition of m.parts for values from (100) to (200);
    create table m.loose (id int, at int, word text);
    create table m.parent (id int, word text);
    create table m.child () inherits (m.parent);
    create table m.stray (id int, word text);
    create view m.v as select id, customer, amount, note from m.orders where amount is not null;
    create view m.vv as select customer, count(*) as n, sum(amount) as total from m.v group by 1;
    create function m.label(int) returns text immutable language sql as $$ select 'n' || $1 $$;
    create function m.outer_label(int) returns text immutable language plpgsql as
      $$ begin return '<' || m.label($1) || '>'; end $$;
    create function m.parsed_label(x int) returns text immutable language sql
      begin atomic select m.label(x); end;
    create function m.cheap() returns setof m.orders stable language sql as
      $$ select * from m.orders where amount < 10 $$;
    insert into m.customers select i, (array['eu', 'us', null])[1 + i % 3], array['a', null], null
    from generate_series(1, 12) i;
    insert into m.orders
    select i, 1 + i % 14, i, i / 3.0, (array['x', 'y', null])[1 + i % 3], '{"a": 1}', '{"b": [1, 2]}',
           '2026-04-27 20:00Z'::timestamptz + i * interval '7 hours', i * interval '90 min', 'good'
    from generate_series(1, 30) i;
    insert into m.parts select i, i * 4, 'p' from generate_series(0, 40) i"""

# name -> (query, key columns, refresh mode)
QUERIES = {
    "inner_join": ("select o.id, c.region, o.amount, o.docb from m.orders o "
                   "join m.customers c on c.id = o.customer", ["id"], "AUTO"),
    "left_join": ("select c.region, o.note, o.doc, o.took from m.orders o "
                  "left join m.customers c on c.id = o.customer", None, "AUTO"),
    "full_join": ("select c.id as c, o.id as o, o.price from m.orders o "
                  "full join m.customers c on c.id = o.customer and o.amount > 3", None, "AUTO"),
    "aggregates": ("select customer, count(*) as n, sum(amount) as total, max(placed) as last, "
                   "avg(took) as took from m.orders where customer is not null group by 1",
                   ["customer"], "DIFFERENTIAL"),
    "distinct_on": ("select distinct on (customer) customer, id, note from m.orders "
                    "order by customer, id", None, "AUTO"),
    "distincts": ("select distinct note, mood from m.orders", None, "AUTO"),
    "windows": ("select id, row_number() over (partition by customer order by id) as nth, "
               "sum(amount) over (order by id rows 2 preceding) as three from m.orders",
               ["id"], "AUTO"),
    "unions": ("select region as word from m.customers union select note from m.orders "
               "except select 'x'", None, "AUTO"),
    "duplicates": ("select note as word, mood::text as m from m.orders union all "
                   "select region, null from m.customers", None, "AUTO"),
    "recursion": ("with recursive n as (select min(id) as i from m.customers union all "
                  "select i + 1 from n where i < 8) "
                  "select n.i, c.region from n left join m.customers c on c.id = n.i", None, "AUTO"),
    "laterals": ("select c.id, l.id as order_id, l.amount from m.customers c cross join lateral ("
                "select o.id, o.amount from m.orders o where o.customer = c.id "
                "order by o.id desc limit 2) l", None, "AUTO"),
    "subqueries": ("select id, (select count(*) from m.orders o where o.customer = c.id) as n, "
                   "exists (select from m.parts p where p.id = c.id) as has_part "
                   "from m.customers c", ["id"], "AUTO"),
    "cubes": ("select region, note, count(*) as n, grouping(region, note) as g from m.orders o "
                 "join m.customers c on c.id = o.customer group by cube (region, note)", None,
                 "AUTO"),
    "views": ("select vv.customer, vv.n, vv.total, c.region from m.vv join m.customers c "
              "on c.id = vv.customer", ["customer"], "AUTO"),
    "functions": ("select id, m.outer_label(customer) as o, m.parsed_label(customer) as p, "
                  "m.label(id) as l from m.orders", ["id"], "AUTO"),
    "returning_rows": ("select id, amount from m.cheap()", None, "AUTO"),
    "documents": ("select id, doc, docb -> 'b' as b, to_jsonb(tags) as tags, row_to_json(o.*) as whole "
             "from (select o.id, o.doc, o.docb, o.customer from m.orders o) o "
             "left join (select id as c, tags from m.customers) c on c = o.customer", None, "AUTO"),
    "arrays": ("select t.tag, array_agg(c.id order by c.id) as ids, array_agg(distinct c.since) as s "
               "from m.customers c left join lateral unnest(c.tags) t(tag) on true group by 1", None,
               "AUTO"),
    "partitions": ("select at / 50 as bucket, word, count(*) as n from m.parts group by 1, 2", None,
                   "AUTO"),
    "leaf": ("select id, at, word from m.parts_1", None, "AUTO"),
    "children": ("select id, word from m.parent", None, "AUTO"),
    "times": ("select placed, placed::date as day, took, array[placed] as p, "
              "tstzrange(placed, null) as r, price, array[price] as f, amount, "
              "date_trunc('day', placed) as midnight from m.orders", None, "AUTO"),
    "rewritten": ("select mood, count(*) as n from m.orders group by mood", None, "FULL"),
    "chain_1": ("select coalesce(total, 0) as total, n from aggregates", None, "AUTO"),
    "chain_2": ("select n, count(*) as times, sum(total) as total from chain_1 group by 1", ["n"],
                "AUTO"),
    "chain_3": ("select a.customer, c.times from aggregates a left join chain_2 c on c.n = a.n", None,
                "AUTO"),
}

# The creator's settings that decide what a query means; those of writers and refreshers are random.
ZONE = "Asia/Kolkata"
SETTINGS = {
    "DateStyle": ["ISO, MDY", "German, DMY", "SQL, DMY", "Postgres, MDY"],
    "TimeZone": ["UTC", "America/New_York", ZONE], "IntervalStyle": ["sql_standard", "iso_8601"],
    "extra_float_digits": ["-15", "0", "3"], "bytea_output": ["escape", "hex"],
    "quote_all_identifiers": ["on", "off"]}


def random_statement(rnd):
    """A statement that changes a source, with NULLs, equal rows and equal values of another look."""
    pick = rnd.choice
    v = {"id": rnd.randrange(1, 40), "to": rnd.randrange(1, 45), "person": rnd.randrange(1, 16),
         "customer": pick([None, rnd.randrange(1, 16)]), "at": rnd.randrange(0, 200),
         "amount": pick([None, "1.0", "1.00", "0", str(rnd.randrange(40)), "1e-20", "NaN"]),
         "price": pick([None, "0", "-0", "0.1", str(rnd.random()), "Infinity", "1e-300"]),
         "note": pick([None, "", "x", "y", "X", "ä'\"\\", "x "]),
         "doc": pick([None, "null", '{"a":1}', '{"a": 1}', '{"a":1,"a":2}', "[1.0]"]),
         "docb": pick([None, "null", '{"b": [1, 2.0]}', '{"b": [1, 2.00]}', '{"b": "ü"}']),
         "placed": pick([None, "2026-11-01 05:30:00.123456Z", "2026-11-01 06:30Z", "1850-01-01 00:00Z",
                         "infinity", "2026-04-27 18:31Z"]),
         "took": pick([None, "1 day", "24 hours", "-1 day 2:03", "1 mon -3 days 0.000001 s"]),
         "mood": pick([None, "good", "so"]), "region": pick([None, "eu", "us", "asia", ""]),
         "tags": pick([None, "{}", "{a,b}", "{NULL,a}", '{"x y"}'])}
    put = ("insert into m.orders (id, customer, amount, price, note, doc, docb, placed, took, mood) "
           "values (%(id)s, %(customer)s, %(amount)s, %(price)s, %(note)s, %(doc)s, %(docb)s, "
           "%(placed)s, %(took)s, %(mood)s) on conflict (id) do update set (customer, amount, price, "
           "note, doc, docb, placed, took, mood) = (excluded.customer, excluded.amount, "
           "excluded.price, excluded.note, excluded.doc, excluded.docb, excluded.placed, "
           "excluded.took, excluded.mood)")
    return pick([
        put, put, put,
        "update m.orders set note = %(note)s, took = %(took)s where id between %(id)s and %(to)s",
        "update m.orders set amount = %(amount)s, customer = %(customer)s where id = %(id)s",
        "update m.orders set doc = %(doc)s, placed = %(placed)s where id between %(id)s and %(to)s",
        "delete from m.orders where id between %(id)s and %(to)s",
        "with gone as (delete from m.orders where id = %(id)s returning *) "
        "insert into m.orders select * from gone where false",
        "insert into m.customers values (%(person)s, %(region)s, %(tags)s, %(placed)s) "
        "on conflict (id) do update set region = excluded.region, tags = excluded.tags, "
        "since = excluded.since",
        "delete from m.customers where id = %(person)s",
        "update m.customers set id = id + 20 where id = %(person)s",
        "insert into m.parts values (%(id)s, %(at)s, %(note)s), (%(id)s, %(at)s, %(note)s)",
        "update m.parts set at = %(at)s where id = %(person)s",
        "delete from m.parts where at between %(at)s and %(at)s + 30",
        "insert into m.parts_1 select %(id)s, 150, %(note)s",
        "insert into m.parent values (%(id)s, %(note)s)", "insert into m.child values (%(id)s, 'c')",
        "update m.parent set word = %(note)s where id < %(id)s", "delete from only m.parent",
        "truncate m.child"]), v


def replaced(table):
    """Blue and green: a table that takes another one's place, with other rows."""
    return (f"begin; create table m.green (like m.{table} including all); "
            f"insert into m.green select * from m.{table} where id % 3 > 0; "
            f"alter table m.{table} rename to was; alter table m.green rename to {table}; "
            "drop table m.was cascade; " + (VIEWS if table == "orders" else "") + "commit")


VIEWS = """
    create or replace view m.v as select id, customer, amount, note from m.orders
      where amount is not null;
    create or replace view m.vv as select customer, count(*) as n, sum(amount) as total from m.v
      group by 1;
    create or replace function m.cheap() returns setof m.orders stable language sql as
      $$ select * from m.orders where amount < 10 $$; """

QUIET = ("update m.orders set note = 'quiet' where id % 4 = 0; delete from m.customers where id = 5; "
         "insert into m.parts values (1, 42, 'quiet'); insert into m.parent values (8, 'quiet'); "
         "insert into m.child values (9, 'quiet')")
ALL_TRIGGERS = ("do $$ declare t record; begin for t in select tgrelid::regclass as rel, tgname from "
                "pg_trigger where tgname like 'pgtrickle_dirty%%' and tgparentid = 0 and tgrelid in "
                "(select oid from pg_class where relnamespace = 'm'::regnamespace) loop "
                "execute format('{}', t.rel, t.tgname); end loop; end $$; ")

# What is done to the sources themselves. Each may fail as a whole, and then does nothing.
ALTERATIONS = [
    "create or replace view m.v as select id, customer, amount, note from m.orders where id > 5",
    "create or replace view m.v as select id, customer, amount * 2 as amount, note from m.orders",
    "create or replace view m.vv as select customer, count(*) + 1 as n, sum(amount) as total from m.v "
    "group by 1",
    "begin; alter view m.v rename to v_was; create view m.v as select id, customer, amount, note "
    "from m.orders where id < 20; commit",
    VIEWS,
    "create or replace function m.label(int) returns text immutable language sql as "
    "$$ select 'm' || $1 $$",
    "create or replace function m.label(int) returns text immutable language plpgsql as "
    "$$ begin return $1 * 2; end $$",
    replaced("customers"), replaced("orders"),
    "begin; drop table m.parent cascade; create table m.parent (id int, word text); "
    "insert into m.parent values (1, 'again'); create table m.child () inherits (m.parent); commit",
    "alter table m.stray inherit m.parent", "alter table m.stray no inherit m.parent",
    "insert into m.stray values (3, 'stray')",
    ALL_TRIGGERS.format("alter table %s disable trigger %I") + QUIET + ";"
    + ALL_TRIGGERS.format("alter table %s enable trigger %I"),
    ALL_TRIGGERS.format("alter table %s disable trigger %I") + QUIET,
    ALL_TRIGGERS.format("drop trigger %2$I on %1$s") + QUIET,
    "alter table m.orders disable trigger all; " + QUIET,
    "set session_replication_role = replica; " + QUIET + "; set session_replication_role = origin",
    "truncate m.parts_0", "truncate m.customers", "truncate m.parent",
    "alter table m.parts detach partition m.parts_1", "insert into m.parts_1 values (2, 177, 'apart')",
    "alter table m.parts attach partition m.parts_1 for values from (100) to (200)",
    "alter table m.parts attach partition m.loose for values from (200) to (300)",
    "alter table m.parts detach partition m.loose",
    "insert into m.loose values (2, 250, 'loose')", "create table m.parts_d partition of m.parts default",
    "drop table m.parts_d",
    "alter table m.orders add column extra int default 7", "alter table m.orders drop column extra",
    "alter table m.orders alter column note type varchar(100)",
    "alter table m.orders alter column note type text",
    "alter table m.orders rename column note to remark",
    "alter table m.orders rename column remark to note",
    "alter type m.mood rename value 'good' to 'fine'", "alter type m.mood rename value 'fine' to 'good'",
    "alter table m.customers enable row level security", "vacuum full m.orders",
    "alter table m.customers disable row level security", "revoke select on m.orders from public",
    "begin; alter schema m rename to was; create schema n; alter schema n rename to m2; "
    "alter schema was rename to m; drop schema m2; commit"]


class Consumer:
    """Applies the deltas of a stream table: by key, or as a multiset where it has none."""

    def __init__(self, reader, name, key):
        self.name, self.key, self.position = name, key, 0
        self.rows = Counter(row[0] for row in
                            reader.execute(f"select to_jsonb(t.*)::text from {name} t"))

    def follow(self, reader):
        deltas = reader.execute(
            f"""select o.id, o.payload ? 'full_refresh', r.row_op, r.row_data::text
                from pgtrickle.outbox_{self.name} o
                left join lateral pgtrickle.outbox_rows(%s, o.id) r on true
                where o.id > %s order by o.id, r.row_num""", (self.name, self.position)).fetchall()
        for outbox_id, full, op, row in deltas:
            if outbox_id != self.position:
                self.position = outbox_id
                if full:
                    self.rows.clear()
            if op == "INSERT":
                self.rows[row] += 1
            elif op == "DELETE":
                self.rows[row] -= 1
                assert self.rows[row] >= 0, f"{self.name}: a row went that was not there: {row}"
        self.rows = +self.rows
        if self.key:
            keys = Counter(tuple(json.loads(row)[k] for k in self.key)
                           for row in self.rows.elements())
            assert not keys or max(keys.values()) == 1, f"{self.name}: a key is there twice"


class Model:
    def __init__(self, db, seed):
        self.db, self.random = db, random.Random(seed)
        self.statements, self.failed, self.suspended, self.log = 0, 0, 0, []
        db.execute(SOURCES)
        self.creator = db.connect()
        self.creator.execute(f"set timezone = '{ZONE}'; set datestyle = 'German'; "
                             "set intervalstyle = 'sql_standard'; set extra_float_digits = -15")
        for name, (query, key, mode) in QUERIES.items():
            self.creator.execute("select pgtrickle.create_stream_table(%s, %s, '1ms', %s, %s)",
                                 (name, query, mode, key))
            self.creator.execute("select pgtrickle.enable_outbox(%s)", (name,))
        self.reader = db.connect()
        self.reader.execute(f"set timezone = '{ZONE}'")
        self.daemon = db.connect(user="relay_daemon")
        self.consumers = {name: Consumer(self.reader, name, key)
                          for name, (_, key, _) in QUERIES.items()}

    def close(self):
        for connection in (self.creator, self.reader, self.daemon):
            connection.close()

    def do(self, connection, statement, parameters=None):
        self.statements += 1
        self.log.append((statement, parameters))
        try:
            connection.execute(statement, parameters)
        except psycopg.Error as error:
            self.failed += 1
            self.log.append(("failed", str(error).splitlines()[0]))
            if connection.autocommit:
                connection.execute("rollback")
            return False
        return True

    def session(self, autocommit):
        connection = self.db.connect(autocommit=True)
        for setting, values in SETTINGS.items():
            connection.execute("select set_config(%s, %s, false)",
                               (setting, self.random.choice(values)))
        connection.execute("set lock_timeout = '2s'")
        connection.autocommit = autocommit
        return connection

    def transaction(self):
        """Some statements with savepoints, in a transaction that commits or not; a refresh meanwhile."""
        with self.session(autocommit=False) as writer:
            for _ in range(self.random.randrange(1, 6)):
                statement = random_statement(self.random)
                writer.execute("savepoint s")
                undo = not self.do(writer, *statement) or self.random.random() < 0.15
                writer.execute("rollback to s" if undo else "release s")
            if self.random.random() < 0.2:
                self.refresh_one()
            if self.random.random() < 0.15:
                self.log.append(("rollback", None))
                writer.rollback()

    def alter(self):
        with self.session(autocommit=True) as other:
            self.do(other, self.random.choice(ALTERATIONS))

    def refresh_one(self):
        name = self.random.choice(list(QUERIES))
        with self.session(autocommit=True) as refresher:
            try:
                refresher.execute("select pgtrickle.refresh_stream_table(%s)", (name,))
            except psycopg.errors.ObjectNotInPrerequisiteState:
                pass    # suspended

    def pass_(self):
        """One pass of what is due; true when all that is left would be due anyway."""
        self.db.execute("update pgtrickle.pgt_stream_tables set next_due_at = now()")
        names = [row[0] for row in self.daemon.execute("select * from pgtrickle.stream_tables_due()")]
        for name in names:
            self.daemon.execute("select pgtrickle.refresh_stream_table(%s)", (name,))
        always = {row[0] for row in self.db.execute(
            "select pgt_schema || '.' || pgt_name from pgtrickle.pgt_stream_tables where always_due")}
        return set(names) <= always

    def check(self):
        """After upkeep and refreshes each consumer has what the query gives, or is told why not."""
        report = self.daemon.execute("select pgtrickle.relay_housekeeping()").fetchone()[0]
        assert report["errors"] == [], report
        eventually(self.pass_, deadline=120)
        # What is refreshed always may have passed its sources, as may the others.
        eventually(self.pass_, deadline=120)
        for name, (query, _, _) in QUERIES.items():
            consumer = self.consumers[name]
            consumer.follow(self.reader)
            stored = Counter(row[0] for row in self.reader.execute(
                f"select to_jsonb(t.*)::text from {name} t"))
            assert consumer.rows == stored, f"{name}: the deltas do not add up to the table"
            status, error = self.db.execute(
                "select status, last_error from pgtrickle.pgt_stream_tables where pgt_name = %s",
                (name,))[0]
            if status == "SUSPENDED":
                assert error, name
                with pytest.raises(psycopg.Error):      # the cause is still there
                    self.reader.execute(f"select * from ({query}) q")
                self.suspended += 1
                continue
            different = self.reader.execute(
                f"""(select 'extra', t::text from {name} t except all
                       select 'extra', q::text from ({query}) q)
                    union all
                    (select 'missing', q::text from ({query}) q except all
                       select 'missing', t::text from {name} t)""").fetchall()
            assert different == [], f"{name} differs from its query"

    def mend(self):
        """The operator: sources that were renamed come back, and what was suspended goes on."""
        with self.db.connect() as operator:
            for statement in ("alter table m.orders rename column remark to note", VIEWS,
                              "create table m.parts_1 (id int, at int, word text)"):
                try:
                    operator.execute(statement)
                except psycopg.Error:
                    operator.execute("rollback")
        for (name,) in self.db.execute("select pgt_name from pgtrickle.pgt_stream_tables "
                                       "where status = 'SUSPENDED' order by pgt_id"):
            self.db.execute("select pgtrickle.alter_stream_table(%s, resume => true)", (name,))


@pytest.mark.parametrize("seed", SEEDS)
def test_consumers_have_what_the_queries_give(db, seed):
    model = Model(db, seed)
    try:
        for _ in range(ROUNDS):
            for _ in range(model.random.randrange(4, 12)):
                model.transaction()
                if model.random.random() < 0.4:
                    model.alter()
                if model.random.random() < 0.3:
                    model.refresh_one()
            model.check()
            if model.random.random() < 0.5:
                model.mend()
        model.mend()
        model.check()
    except BaseException:
        print(f"SEED={seed}, {model.statements} statements, the last of them:")
        for entry in model.log[-60:]:
            print("   ", *entry)
        raise
    finally:
        model.close()
    assert db.execute("select pgt_name, last_error from pgtrickle.pgt_stream_tables "
                      "where status = 'SUSPENDED'") == []
    deltas = sum(consumer.position for consumer in model.consumers.values())
    print(f"SEED={seed}: {model.statements} statements, {model.failed} of them refused, "
          f"{deltas} deltas, {model.suspended} times suspended with the cause")
    assert model.failed < model.statements / 3 and deltas > model.statements / 3
