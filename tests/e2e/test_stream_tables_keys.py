"""Stream tables that were made without key_columns: which key their query proves, and what it is for.

A key may be missing where it could be there; it may never be one that does not tell the rows apart.
"""


import os
import random
from collections import Counter

import psycopg
import pytest
from support.pipelines import Lines, set_outbox, to_file
from support.stream_tables import Listener, refresh
from support.waiting import eventually

ROUNDS = 60 if os.environ.get("LONG") else 2
SEEDS = range(1, 6) if os.environ.get("LONG") else [20260427]

SOURCES = """
    create schema k;
    create collation k.anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create domain k.code as text;
    create type k.mood as enum ('good', 'bad');
    create type k.pair as (a int, b text);
    create table k.customers (id int primary key, email text, region text, tags int[],
                              word text collate k.anycase, mood k.mood, code k.code, n numeric,
                              doc json, b jsonb, f float8, place point, box box, v int2vector);
    create unique index on k.customers (email);
    create unique index on k.customers (region) where n = 7;
    create unique index on k.customers (lower(region), id);
    create table k.orders (id int primary key, customer int, amount numeric, at date, note text);
    create table k.plain (id int not null, other int, both_a int not null, both_b int not null,
                          unique (id) deferrable, unique (both_a, both_b));
    create table k.both (id int primary key, other int not null unique, note text);
    create table k.parent (id int primary key, word text);
    create table k.child () inherits (k.parent);
    create table k.parts (id int, at int, primary key (id, at)) partition by range (at);
    create table k.parts_0 partition of k.parts for values from (0) to (50);
    create table k.parts_1 partition of k.parts for values from (50) to (100);
    create view k.by_region as select region, count(*) as n from k.customers group by region;
    create view k.emails as select email, id from k.customers;
    create view k.seen as select id, amount from k.orders where amount > 2;
    create view k.safe with (security_barrier) as select id, amount from k.orders where amount > 2;
    create materialized view k.stored as select id, email from k.customers;
    create unique index on k.stored (id);
    create function k.all_orders() returns setof k.orders stable language sql as
      'select * from k.orders union all select * from k.orders';
    create function k.twice() returns table (x int) stable language sql
      begin atomic select id from k.orders; end;
    insert into k.customers
    select i, case when i % 3 > 0 then 'e' || i end, (array['eu', 'us', null, ''])[1 + i % 4],
           array[i % 2, null, i], (array['a', 'A', 'b'])[1 + i % 3],
           (array['good', 'bad', null]::k.mood[])[1 + i % 3], 'c' || i % 3, (array[1.0, 1.00, 2])[1 + i % 3],
           '{}', '{"a": 1}', (array['0', '-0', 'NaN'])[1 + i % 3]::float8, point(i % 3, 0),
           box(point(0, i % 3), point(i % 3, 0))
    from generate_series(2, 14) i;
    update k.customers set n = 7, region = null where id in (3, 4);
    insert into k.orders select i, nullif(i % 7, 0), i % 5, '2026-04-01'::date + i % 3, 'n' || i % 2
    from generate_series(1, 25) i;
    insert into k.plain select i, i % 2, i % 4, i / 4 from generate_series(1, 12) i;
    insert into k.both select i, -i, 'n' from generate_series(1, 5) i;
    insert into k.parent select i, 'p' from generate_series(1, 5) i;
    insert into k.child select i, 'c' from generate_series(1, 3) i;
    insert into k.parts select i, i * 4 from generate_series(1, 20) i"""

SINCE_16 = ("partitions", )

# name -> (query, the key that it proves)
QUERIES = {
    # What is grouped has one row for NULL.
    "grouped": ("select region, count(*) as n from k.customers group by region", ["region"]),
    "grouped_by_two": ("select at, customer, sum(amount) as total, count(*) as n from k.orders "
                       "group by 1, 2", ["at", "customer"]),
    "grouped_by_more_than_shown": ("select customer, count(*) as n from k.orders group by customer, at",
                                   None),
    "grouped_by_an_expression": ("select customer % 3 as third, count(*) as n from k.orders group by 1",
                                 ["third"]),
    "grouped_join": ("select c.region, sum(o.amount) as total from k.orders o join k.customers c "
                     "on c.id = o.customer group by c.region", ["region"]),
    "grouped_by_a_unique_null": ("select c.email, count(*) as n from k.customers c left join k.orders o "
                                 "on o.customer = c.id group by c.email", ["email"]),
    "dependent": ("select c.id, c.region, count(*) as n from k.customers c join k.orders o "
                  "on o.customer = c.id group by c.id", ["id"]),
    "having": ("select word, max(n) as most from k.customers group by word having count(*) > 1",
               ["word"]),
    "enum_and_domain": ("select mood, code, count(*) as n from k.customers group by 1, 2",
                        ["mood", "code"]),
    "arrays_and_jsonb": ("select tags, b, min(id) as first from k.customers group by 1, 2",
                         ["tags", "b"]),
    "numbers": ("select n, f, count(*) as times from k.customers group by 1, 2", ["n", "f"]),
    "rollup": ("select region, count(*) as n from k.customers group by rollup (region)", None),
    "cube": ("select region, mood, count(*) as n, grouping(region, mood) as g from k.customers "
             "group by cube (region, mood)", None),
    "grouping_sets": ("select at, customer, count(*) as n from k.orders "
                      "group by grouping sets ((at), (customer), ())", None),
    "grouped_and_unnested": ("select region, unnest(array[1, 2]) as i, count(*) as n from k.customers "
                             "group by region", None),
    "grouped_inside": ("select region, n from (select region, count(*) as n from k.orders o "
                       "join k.parent p on p.id = o.customer join k.customers c on c.id = p.id "
                       "group by region) g where n > 0", None),
    "grouped_view": ("select * from k.by_region", None),
    "grouped_inside_without_null": (
        "select customer, n from (select o.customer, count(*) as n from k.orders o group by 1) g "
        "where n > 0", ["customer"]),
    "two_grouped": ("select a.region, b.n from k.by_region a join k.by_region b using (region)", None),
    # DISTINCT and set operations.
    "distinct": ("select distinct region, mood from k.customers", ["region", "mood"]),
    "distinct_of_grouped": ("select distinct region, count(*) as n from k.customers group by region",
                            ["region"]),
    "distinct_on": ("select distinct on (customer) customer, id, note from k.orders "
                    "order by customer, id", ["customer"]),
    "distinct_on_hidden": ("select distinct on (customer) id, note from k.orders order by customer, id",
                           None),
    "distinct_unnested": ("select distinct unnest(tags) as tag from k.customers", ["tag"]),
    "union": ("select region as word from k.customers union select note from k.orders", ["word"]),
    "union_all": ("select id from k.orders union all select id from k.parent", None),
    "except": ("select id from k.orders except select id from k.parent", ["id"]),
    "intersect_all": ("select note from k.orders intersect all select note from k.orders", None),
    # Primary and unique keys.
    "primary": ("select note, id, amount from k.orders", ["id"]),
    "primary_where": ("select id, amount from k.orders where amount > 1 and note is not null", ["id"]),
    "primary_hidden": ("select customer, amount from k.orders", None),
    "primary_changed": ("select id + 0 as id from k.orders", None),
    "unique_null": ("select email, region from k.customers", None),
    "unique_null_in_a_view": ("select email from k.emails", None),
    "unique_and_primary": ("select email, id from k.customers", ["id"]),
    "unique_before_primary": ("select other, note, b.id from k.both b", ["id"]),
    "unique_of_two": ("select both_a, both_b, other from k.plain", ["both_a", "both_b"]),
    "unique_with_a_constant": ("select both_b, other from k.plain where both_a = 1", ["both_b"]),
    "deferrable": ("select id, other from k.plain", None),
    "partial": ("select region, n from k.customers where n = 7", None),
    "in_a_view": ("select * from k.seen", ["id"]),
    "behind_a_barrier": ("select * from k.safe", None),
    "with_a_query": ("with big as (select * from k.orders where amount > 2) select id, note from big",
                     None),
    "grouped_with_a_query": ("with big as (select * from k.orders where amount > 2) "
                             "select customer, count(*) as n from big group by 1", ["customer"]),
    "stored": ("select id, email from k.stored", None),
    "children": ("select id, word from k.parent", None),
    "only_the_parent": ("select id, word from only k.parent", ["id"]),
    "leaf": ("select id, at from k.parts_0", ["id", "at"]),
    "partitions": ("select id, at from k.parts", ["id", "at"]),
    # Joins.
    "many_to_one": ("select o.id, c.region from k.orders o left join k.customers c on c.id = o.customer",
                    ["id"]),
    "one_to_many": ("select c.id, o.amount from k.customers c left join k.orders o on o.customer = c.id",
                    None),
    "inner_one_to_many": ("select c.id, o.note from k.customers c, k.orders o where o.customer = c.id",
                          None),
    "nullable_side": ("select c.id, c.region from k.orders o left join k.customers c "
                      "on c.id = o.customer", None),
    "full": ("select c.id, o.id as o from k.customers c full join k.orders o on o.customer = c.id", None),
    "crossed": ("select o.id from k.orders o, generate_series(1, 2)", None),
    "crossed_by_rows": ("select o.id, generate_series(1, 2) as i from k.orders o", None),
    "lateral": ("select c.id, l.amount from k.customers c left join lateral (select amount from "
                "k.orders o where o.customer = c.id limit 2) l on true", None),
    "semi": ("select id from k.customers c where exists (select from k.orders o where o.customer = c.id)",
             None),
    # One row, functions, recursion.
    "one_row": ("select count(*) as n, sum(amount) as total from k.orders", None),
    "one_named_row": ("select count(*) as n, 'all' as name from k.orders", ["name"]),
    "one_or_none": ("select 'all' as name, count(*) as n from k.orders having count(*) > 3", ["name"]),
    "function": ("select id, note from k.all_orders()", None),
    "parsed_function": ("select x from k.twice()", ["x"]),
    "recursive": ("with recursive r as (select 1 as i union all select i + 1 from r where i < 5) "
                  "select i from r", None),
    "windows": ("select id, row_number() over (order by id) as nth from k.orders", None),
    "constant": ("select 1 as one, note from k.orders", None),
    "no_equality": ("select doc, place from k.customers", None),
    "an_equality_of_no_order": ("select id, v from k.customers", ["id"]),
    "boxes": ("select distinct box::text as b, id from k.customers", ["b", "id"]),
    "limited": ("select id from k.orders order by id limit 3", None),
    "odd_names": ('select note as "Odd (""{\\name}"").", count(*) as "#" from k.orders group by 1',
                  ['Odd ("{\\name}").']),
}

CHANGES = """
    insert into k.orders values (%(id)s, %(small)s, %(n)s, '2026-04-02', %(note)s)
      on conflict (id) do update set customer = excluded.customer, amount = excluded.amount,
                                     note = excluded.note;
    delete from k.orders where id = %(id)s + 3;
    update k.customers set email = null, region = %(note)s, n = %(n)s + 3 where id = %(small)s;
    update k.customers set word = upper(word), n = 7, f = '-0', region = null where id = %(small)s + 2;
    update k.customers set doc = '{"a": 2}', place = point(1, 1) where id = %(small)s + 4;
    insert into k.child values (%(small)s, %(note)s);
    insert into k.parts values (%(id)s, %(id)s) on conflict do nothing;
    delete from k.parent where id = %(small)s;
    update k.both set note = %(note)s, other = %(id)s + 100 where id = %(small)s;
    update k.plain set other = %(n)s where both_a = %(small)s - 1"""


def keys_of(db):
    return dict(db.execute("select pgt_name, key_columns from pgtrickle.pgt_stream_tables"))


def repeated(db, name, key):
    listed = ", ".join('"' + column.replace('"', '""') + '"' for column in key)
    return db.execute(f"select count(*) from q.{name} group by {listed} having count(*) > 1")


@pytest.fixture
def model(db):
    db.execute(SOURCES)
    db.execute("create schema q")
    for name, (query, key) in QUERIES.items():
        db.execute("select pgtrickle.create_stream_table(%s, %s, null)", (f"q.{name}", query))
        if key:
            db.execute("select pgtrickle.enable_outbox(%s)", (f"q.{name}",))
    return db


@pytest.mark.parametrize("seed", SEEDS)
def test_a_derived_key_tells_the_rows_apart_whatever_changes(model, seed):
    version = model.one("select current_setting('server_version_num')::int")
    expected = {name: key for name, (_, key) in QUERIES.items()}
    if version < 160000:
        expected |= {name: None for name in SINCE_16}
    assert keys_of(model) == expected
    keyed = {name: key for name, key in expected.items() if key is not None}
    rnd = random.Random(seed)
    copies = {name: Counter(r for r, in model.execute(f"select to_jsonb(t.*)::text from q.{name} t"))
              for name, (_, key) in QUERIES.items() if key}
    position, updated = dict.fromkeys(QUERIES, 0), Counter()
    for _ in range(ROUNDS):
        for statement in CHANGES.split(";"):
            try:
                model.execute(statement, {"id": rnd.randrange(1, 40), "small": rnd.randrange(1, 9),
                                          "n": rnd.randrange(5), "note": rnd.choice([None, "x", "n1"])})
            except psycopg.errors.UniqueViolation:
                pass
        for name, (query, _) in QUERIES.items():
            done = refresh(model, f"q.{name}")
            assert done["action"] in ("DIFFERENTIAL", "NO_DATA"), (name, done)
            updated[name] += done["updated"]
            assert model.execute(
                f"(select 1, t::text from q.{name} t except all select 1, r::text from ({query}) r) "
                f"union all "
                f"(select 2, r::text from ({query}) r except all select 2, t::text from q.{name} t)") == []
        for name, key in keyed.items():
            assert repeated(model, name, key) == [], name
        for name in copies:
            for at, op, row in model.execute(
                    f"select o.id, r.row_op, r.row_data::text from pgtrickle.outbox_{name} o, "
                    f"pgtrickle.outbox_rows('q.{name}', o.id) r where o.id > %s order by 1, r.row_num",
                    (position[name],)):
                position[name] = at
                copies[name][row] += 1 if op == "INSERT" else -1
                assert copies[name][row] >= 0, (name, row)
            assert +copies[name] == Counter(
                r for r, in model.execute(f"select to_jsonb(t.*)::text from q.{name} t")), name
    print(f"SEED={seed}: {dict(updated)}")
    assert all(updated[name] == 0 for name in QUERIES if name not in keyed)
    for name in ("grouped", "grouped_by_two", "primary", "many_to_one", "one_named_row", "dependent"):
        assert updated[name] > 0, name


def notices_of(db, statement, parameters=None):
    """What a statement says beside its result: the primary message, detail and hint of each notice."""
    heard = []
    with db.connect() as connection:
        connection.add_notice_handler(lambda d: heard.append(
            (d.message_primary, d.message_detail, d.message_hint)))
        connection.execute(statement, parameters)
    return heard


def test_a_query_without_a_provable_key_is_reported_with_possible_key_columns(db):
    db.execute("create table a (id int primary key, b_id int, note text);"
               "create table b (id int primary key, word text)")
    create = "select pgtrickle.create_stream_table(%s, %s, null)"
    said = notices_of(db, create, ("joined", "select a.id, b.word from a join b on b.id = a.b_id"))
    assert said == [(
        "stream table public.joined has no key: its query does not prove which columns tell its rows "
        "apart",
        "A row that changes will be a deleted and an inserted row, never an update.",
        "Create it with key_columns => ARRAY[...], naming columns that are unique and never null in the "
        "result. Columns from primary keys: id (of public.a).")]
    said = notices_of(db, create, ("sums", "select count(*) as n from a group by note"))
    assert "all those of GROUP BY" in said[0][2]
    # The remedy is true.
    db.execute("select pgtrickle.drop_stream_table('joined')")
    assert notices_of(db, create.replace("null)", "null, key_columns => '{id}')"),
                      ("joined", "select a.id, b.word from a join b on b.id = a.b_id")) == []
    assert notices_of(db, create, ("one", "select 1 as all_of_them, count(*) as n from a")) == []
    assert keys_of(db) == {"joined": ["id"], "sums": None, "one": ["all_of_them"]}


LOST = {
    "the constraint is dropped": ("alter table t drop constraint t_pkey", "insert into t values (1, 'b')"),
    "NOT NULL is dropped": ("alter table t drop constraint t_pkey; create unique index on t (id);"
                            "alter table t alter id drop not null", "insert into t values (null), (null)"),
    "a table inherits": ("create table c () inherits (t)", "insert into c values (1, 'b')"),
    "it becomes deferrable": ("alter table t drop constraint t_pkey; "
                              "alter table t add unique (id) deferrable initially deferred",
                              "insert into t values (3, 'b')"),
    "another table takes its name": ("alter table t rename to was; create table t (id int, word text);",
                                     "insert into t values (1, 'a'), (1, 'b')"),
}


def test_a_derived_key_that_is_no_key_any_more_is_given_up(db):
    """Nothing is lost, no refresh fails; consumers get all rows anew, without a key."""
    for number, (what, (ddl, rows)) in enumerate(LOST.items()):
        schema = f"s{number}"
        db.execute(f"create schema {schema}; set search_path = {schema};"
                   "create table t (id int primary key, word text); insert into t values (1, 'a');")
        db.execute("select pgtrickle.create_stream_table('s', 'select id, word from t', null)")
        db.execute("select pgtrickle.enable_outbox('s')")
        db.execute("insert into t values (2, 'x'); update t set word = 'c' where id = 1")
        done = refresh(db, f"{schema}.s")
        assert (done["inserted"], done["updated"]) == (1, 1), what
        db.execute(ddl)
        db.execute(rows)
        outbox = db.one("select outbox_table_name from pgtrickle.pgt_outbox_config "
                        "where stream_table_schema = %s", (schema,))
        assert refresh(db, f"{schema}.s")["action"] == "FULL", what
        assert db.execute(f"select payload -> 'key_columns', payload -> 'full_refresh' from "
                          f"pgtrickle.{outbox} order by id") == [(None, None), ([], True)], what
        assert db.execute("select * from s except all select * from t") == [], what
        assert db.execute("select key_columns, key_derived from pgtrickle.pgt_stream_tables "
                          "where pgt_schema = %s", (schema,)) == [(None, False)], what
        # It goes on as any without a key does.
        db.execute("update t set word = 'd'")
        assert refresh(db, f"{schema}.s")["action"] == "DIFFERENTIAL", what
        assert db.execute("select * from s except all select * from t") == [], what


def test_a_derived_key_stays_where_another_index_proves_it(db):
    db.execute("create table t (id int primary key, word text); insert into t values (1, 'a')")
    db.execute("select pgtrickle.create_stream_table('s', 'select id, word from t', null)")
    db.execute("begin; alter table t drop constraint t_pkey; create unique index on t (id); commit;"
               "update t set word = 'b'")
    assert refresh(db, "s")["updated"] == 1
    assert keys_of(db) == {"s": ["id"]}


def test_another_query_has_another_derived_key(db):
    db.execute("create table t (id int primary key, other int not null unique, word text);"
               "insert into t values (1, 5, 'a'), (2, 6, 'a')")
    alter = "select pgtrickle.alter_stream_table('s', query => %s)"
    db.execute("select pgtrickle.create_stream_table('s', 'select id, other, word from t', null)")
    db.execute("select pgtrickle.enable_outbox('s')")

    def key():
        keys = db.execute("select t.key_columns, o.key_columns from pgtrickle.pgt_stream_tables t "
                          "join pgtrickle.pgt_outbox_config o on o.stream_table_oid = t.pgt_relid")
        assert keys[0][0] == keys[0][1]
        return keys[0][0]

    # The same key, though `other` would be one as well.
    db.execute(alter, ("select id, other, word || '!' as word from t",))
    assert key() == ["id"] and refresh(db, "s")["updated"] == 2
    db.execute(alter, ("select 1 + id - 1 as id, other, word from t",))
    assert key() == ["other"]
    with db.connect(user="relay_daemon") as daemon:     # upkeep changes nothing of it
        daemon.execute("select pgtrickle.relay_housekeeping()")
    assert key() == ["other"] and refresh(db, "s")["action"] == "FULL"
    db.execute("update t set word = 'z' where id = 1")
    assert refresh(db, "s")["updated"] == 1
    said = notices_of(db, alter, ("select id, other, word from t union all select 9, 9, 'u'",))
    assert "has no key" in said[0][0] and key() is None
    assert refresh(db, "s")["action"] == "FULL"
    db.execute(alter, ("select id, other, word from t",))
    assert key() == ["id"] and refresh(db, "s")["action"] == "FULL"
    assert [payload.get("key_columns") for payload, in db.execute(
        "select payload from pgtrickle.outbox_s order by id")] == [None, ["other"], ["other"], [], None]


def test_a_given_key_is_not_derived_again(db):
    db.execute("create table t (id int primary key, other int not null); insert into t values (1, 5)")
    db.execute("select pgtrickle.create_stream_table('s', 'select id, other from t', null, "
               "key_columns => '{other}')")
    db.execute("select pgtrickle.alter_stream_table('s', query => 'select id, other from t where id > 0')")
    assert keys_of(db) == {"s": ["other"]}
    assert db.one("select count(*) from pg_index where indrelid = 's'::regclass and indisprimary") == 1


def test_user_triggers_and_alerts_see_the_updates_of_a_derived_key(db):
    db.execute("create table t (id int primary key, region text); insert into t values (1, null), (2, 'eu');"
               "create table seen (op text, was text, now text)")
    db.execute("select pgtrickle.create_stream_table('s', 'select region, count(*) as n from t group by 1', "
               "null)")
    db.execute("""create function see() returns trigger language plpgsql as $$
                  begin insert into public.seen values (tg_op, old.n, new.n); return null; end $$;
                  create trigger see after insert or update or delete on s for each row
                  execute function see()""")
    listener = Listener(db)
    db.execute("insert into t values (3, null), (4, 'us'); delete from t where id = 2")
    done = refresh(db, "s")
    assert (done["inserted"], done["updated"], done["deleted"]) == (1, 1, 1)
    assert sorted(db.execute("select op, was, now from seen"), key=str) == [
        ("DELETE", "1", None), ("INSERT", None, "1"), ("UPDATE", "1", "2")]
    assert sorted(listener.alerts("refresh_completed")[0]["changes"]["affected_pks"], key=str) == [
        None, "eu", "us"]


def test_the_relay_delivers_updates_of_counts_without_key_columns(db, relay, tmp_path):
    """As the first example of stream tables is written; a region may be NULL."""
    db.execute("create table orders (id int primary key, region text, amount numeric);"
               "insert into orders values (1, 'eu', 1), (2, null, 2), (3, null, 3)")
    db.execute("select pgtrickle.create_stream_table('counts', 'select region, count(*) as n, "
               "sum(amount) as total from orders group by region', null)")
    db.execute("select pgtrickle.enable_outbox('counts')")
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "p", to_file("counts", lines.path, message="row"))
    with relay:
        db.execute("insert into orders values (4, 'eu', 1), (5, null, 1), (6, 'us', 1)")
        refresh(db, "counts")
        eventually(lambda: len(lines.messages()) == 3, 20)
    assert sorted((m["op"], m["key"]["region"], m["new"]["n"], (m["old"] or {}).get("n"))
                  for m in lines.messages() if m["key"]["region"]) == [
        ("insert", "us", 1, None), ("update", "eu", 2, 1)]
    assert [(m["op"], m["key"], m["new"]["n"], m["old"]["n"]) for m in lines.messages()
            if not m["key"]["region"]] == [("update", {"region": None}, 3, 2)]


def test_a_key_is_derived_and_given_up_with_the_rights_of_the_creator(db):
    """Planning calls an immutable function: it runs as the creator, not as the role that refreshes."""
    db.login("alice", "pgtrickle_admin")
    db.execute("grant create on schema public to alice")
    with db.connect(user="alice") as alice:
        alice.execute("create table mine (id int primary key, word text);"
                      "insert into mine values (1, 'a')")
        alice.execute("""create function who(int) returns int immutable language plpgsql as $$
                         begin
                           if current_user <> 'alice' then raise exception 'as %', current_user; end if;
                           return $1;
                         end $$""")
        alice.execute("select pgtrickle.create_stream_table('s', "
                      "'select id, word from mine where id > who(0)', 'manual')")
        alice.execute("select pgtrickle.enable_outbox('s')")
        assert keys_of(db) == {"s": ["id"]}
        alice.execute("update mine set word = 'b'")
        assert refresh(db, "s")["updated"] == 1
        alice.execute("alter table mine drop constraint mine_pkey; insert into mine values (1, 'c')")
    with db.connect(user="relay_daemon") as daemon:
        done, = daemon.execute("select pgtrickle.refresh_stream_table('s')").fetchone()
        assert done["action"] == "FULL"
        # No other administrator sets the key of a stream table.
        db.login("bob", "pgtrickle_admin")
        with db.connect(user="bob") as bob, pytest.raises(psycopg.errors.InsufficientPrivilege):
            bob.execute("select pgtrickle_internal.stream_set_key((select pgt_id from pgtrickle.pgt_stream_tables), "
                        "'{word}')")
    assert keys_of(db) == {"s": None}
