"""Whatever is done to the sources of a stream table, it equals its query, or says why it cannot."""

import os
import subprocess
import threading

import psycopg
import pytest
from support.ddl_consumer import upkeep
from support.postgres import postgres_bin_directory, refusal
from support.stream_tables import Listener, create, due, orders, refresh, settled, state
from support.waiting import eventually

__all__ = ["orders"]


def until_settled(db):
    """Upkeep, then refreshes until nothing is due that need not be."""
    upkeep(db)

    def nothing_moved():
        always = {row[0] for row in db.execute(
            "select pgt_schema || '.' || pgt_name from pgtrickle.pgt_stream_tables where always_due")}
        names = due(db)
        for name in names:
            refresh(db, name)
        return set(names) <= always

    eventually(nothing_moved, deadline=60)


def equal(db, name, query):
    """Whether the stream table has exactly the rows of its query."""
    both = f"((select t::text from {name} t except all select q::text from ({query}) q) union all " \
           f"(select q::text from ({query}) q except all select t::text from {name} t))"
    return db.execute(f"select * from {both} d") == []


# Each case: what the stream table {n} reads (query), what is there before, and what is done. {s} is a
# schema of its own.
CHANGES = {
    "a view is replaced": ("select * from {s}.v", "", [
        "create or replace view {s}.v as select id, word from {s}.t where id > 1"]),
    "a view behind a view is replaced": (
        "select * from {s}.v2", "create view {s}.v2 as select id from {s}.v", [
            "create or replace view {s}.v as select id, word from {s}.t where id > 1"]),
    "a view is swapped by rename": (
        "select * from {s}.v", "create view {s}.w as select 7 as id, word from {s}.t", [
            "begin; alter view {s}.v rename to v_old; alter view {s}.w rename to v; commit"]),
    "a function is replaced": ("select {s}.f(id) as f from {s}.t", "", [
        "create or replace function {s}.f(int) returns int immutable language sql as 'select 5*$1'"]),
    "a function that a view calls is replaced": (
        "select * from {s}.v2", "create view {s}.v2 as select {s}.f(id) as f from {s}.t", [
            "create or replace function {s}.f(int) returns int immutable language sql as "
            "'select 5*$1'"]),
    "a function that a function calls is replaced": ("select {s}.g(id) as g from {s}.t", "", [
        "create or replace function {s}.f(int) returns int immutable language sql as 'select 5*$1'"]),
    "a function that a parsed body calls is replaced": ("select {s}.h(id) as h from {s}.t", "", [
        "create or replace function {s}.f(int) returns int immutable language sql as 'select 5*$1'"]),
    "the function of an aggregate is replaced": ("select {s}.agg(id) as a from {s}.t", "", [
        "create or replace function {s}.step(int, int) returns int immutable language sql as "
        "'select coalesce($1, 0) + 10 * $2'"]),
    "a source is swapped by rename": (
        "select * from {s}.t", "create table {s}.blue (like {s}.t); "
        "insert into {s}.blue values (9, 'blue')", [
            "begin; alter table {s}.t rename to old; alter table {s}.blue rename to t; commit",
            "insert into {s}.t values (10, 'later')"]),
    "a schema is swapped by rename": (
        "select * from {s}.t", "create schema {s}_b; create table {s}_b.t (like {s}.t); "
        "insert into {s}_b.t values (9, 'blue')", [
            "begin; alter schema {s} rename to {s}_old; alter schema {s}_b rename to {s}; commit",
            "insert into {s}.t values (10, 'later')"]),
    "a source is moved to another schema and replaced": (
        "select * from {s}.t", "create schema {s}_b", [
            "begin; alter table {s}.t set schema {s}_b; create table {s}.t (id int, word text); "
            "insert into {s}.t values (5, 'new'); commit", "insert into {s}.t values (6, 'later')"]),
    "a source is dropped and made again": ("select * from {s}.t2", "", [
        "begin; drop table {s}.t2; create table {s}.t2 (id int); insert into {s}.t2 values (4); commit",
        "insert into {s}.t2 values (5)"]),
    "triggers are off for a while": ("select * from {s}.t", "", [
        "alter table {s}.t disable trigger all; insert into {s}.t values (5, 'off'); "
        "alter table {s}.t enable trigger all"]),
    "triggers stay off": ("select * from {s}.t", "", [
        "alter table {s}.t disable trigger user", "insert into {s}.t values (5, 'off')",
        "insert into {s}.t values (6, 'off')"]),
    "triggers are dropped": ("select * from {s}.t", "", [
        "do $$ declare g name; begin for g in select tgname from pg_trigger where tgrelid = "
        "'{s}.t'::regclass loop execute format('drop trigger %I on {s}.t', g); end loop; end $$; "
        "insert into {s}.t values (5, 'without')", "insert into {s}.t values (6, 'later')"]),
    "triggers are made again by hand": ("select * from {s}.t", "", [
        "do $$ declare g name; begin for g in select tgname from pg_trigger where tgrelid = "
        "'{s}.t'::regclass loop execute format('create or replace trigger %I before truncate on "
        "{s}.t execute function suppress_redundant_updates_trigger()', g); end loop; end $$; "
        "insert into {s}.t values (5, 'without')", "insert into {s}.t values (6, 'later')"]),
    "a source is truncated": ("select * from {s}.t", "", ["truncate {s}.t"]),
    "a source is truncated while triggers are off": ("select * from {s}.t", "", [
        "alter table {s}.t disable trigger all; truncate {s}.t; "
        "alter table {s}.t enable trigger all"]),
    "a partition is truncated while triggers are off": ("select * from {s}.p", "", [
        "alter table {s}.p1 disable trigger all; truncate {s}.p1; "
        "alter table {s}.p1 enable trigger all"]),
    "a partition comes": ("select * from {s}.p", "", [
        "create table {s}.p2 (id int, word text); insert into {s}.p2 values (150, 'here')",
        "alter table {s}.p attach partition {s}.p2 for values from (100) to (200)",
        "insert into {s}.p2 values (151, 'later')", "insert into {s}.p values (152, 'later')"]),
    "a partition goes": ("select * from {s}.p", "", ["alter table {s}.p detach partition {s}.p1"]),
    "a child is added": ("select * from {s}.t", "create table {s}.c (id int, word text)", [
        "insert into {s}.c values (70, 'child'); alter table {s}.c inherit {s}.t",
        "insert into {s}.c values (71, 'later')"]),
    "a child goes": (
        "select * from {s}.t", "create table {s}.c () inherits ({s}.t); "
        "insert into {s}.c values (70, 'child')", ["alter table {s}.c no inherit {s}.t"]),
    "rows come in as replicated ones": ("select * from {s}.t", "", [
        "set session_replication_role = replica; insert into {s}.t values (5, 'replica'); "
        "set session_replication_role = origin", "set session_replication_role = replica; "
        "delete from {s}.t; set session_replication_role = origin"]),
    "a row policy comes": ("select * from {s}.t", "", [
        "alter table {s}.t enable row level security; create policy p on {s}.t using (id > 1)",
        "insert into {s}.t values (5, 'later')"]),
    "a generated column gives something else": ("select * from {s}.gen", "", [
        "alter table {s}.gen drop column twice, add column twice int generated always as (id * 3) "
        "stored"]),
    "a column changes its type without a rewrite": ("select length(code) as n from {s}.t2c", "", [
        "alter table {s}.t2c alter column code type varchar(40)",
        "insert into {s}.t2c values (repeat('x', 30))"]),
    "an enum's label is renamed": ("select mood::text as mood from {s}.moods", "", [
        "alter type {s}.mood rename value 'sad' to 'bad'"]),
    "a column is dropped that the query does not read": ("select id from {s}.t", "", [
        "alter table {s}.t drop column word cascade", "insert into {s}.t values (77)"]),
    "a trigger has a number that is none": ("select id, word from {s}.t", "", [
        "create trigger pgtrickle_dirty_99999999999999 after insert on {s}.t execute function "
        "pgtrickle_internal.source_changed('1'); alter table {s}.t add column more int",
        "insert into {s}.t values (5, 'later')"]),
    "a source is rewritten": ("select * from {s}.t", "", ["vacuum full {s}.t"]),
}


def make_sources(db, s):
    db.execute(f"""
        create schema {s};
        create table {s}.t (id int, word text);
        insert into {s}.t values (1, 'one'), (2, 'two'), (2, 'two');
        create table {s}.t2 (id int);
        create table {s}.t2c (code varchar(20));
        create table {s}.gen (id int, twice int generated always as (id * 2) stored);
        insert into {s}.gen values (4);
        create type {s}.mood as enum ('good', 'sad');
        create table {s}.moods (mood {s}.mood); insert into {s}.moods values ('sad');
        create view {s}.v as select id, word from {s}.t;
        create table {s}.p (id int, word text) partition by range (id);
        create table {s}.p1 partition of {s}.p for values from (0) to (100);
        insert into {s}.p values (1, 'part');
        create function {s}.f(int) returns int immutable language sql as 'select 2 * $1';
        create function {s}.g(int) returns int immutable language plpgsql as
          $$ begin return {s}.f($1); end $$;
        create function {s}.h(x int) returns int immutable language sql
          begin atomic select {s}.f(x); end;
        create function {s}.step(int, int) returns int immutable language sql as
          'select coalesce($1, 0) + $2';
        create aggregate {s}.agg(int) (sfunc = {s}.step, stype = int);""")


FOR_READERS = ["a view is replaced", "a source is swapped by rename", "triggers are off for a while",
               "triggers stay off", "triggers are dropped", "a partition comes", "a child is added",
               "rows come in as replicated ones", "a row policy comes"]


@pytest.mark.parametrize("maker, cases", [("owner", list(CHANGES)), ("reader", FOR_READERS)])
def test_a_stream_table_follows_whatever_is_done_to_its_sources(db, maker, cases):
    """As made by the sources' owner, and by a role that may only read and watch them."""
    db.login("maker", "pgtrickle_admin")
    db.execute("grant create on schema public to maker")
    listener = Listener(db)
    made = {}
    for number, case in enumerate(cases):
        query, before, _ = CHANGES[case]
        s = f"s{number}"
        make_sources(db, s)
        if before:
            db.execute(before.format(s=s))
        db.execute(f"grant usage on schema {s} to maker; "
                   f"grant select, trigger on all tables in schema {s} to maker; "
                   f"alter default privileges in schema {s} grant select, trigger on tables to maker")
        made[case] = (f"stream{number}", query.format(s=s), s)
    with db.connect(user="maker" if maker == "reader" else "postgres") as connection:
        for name, query, _ in made.values():
            connection.execute("select pgtrickle.create_stream_table(%s, %s, '1ms')", (name, query))
    until_settled(db)
    steps = max(len(changes) for _, _, changes in CHANGES.values())
    for step in range(steps):
        for case in cases:
            changes = CHANGES[case][2]
            if step < len(changes):
                with db.connect() as connection:
                    connection.execute(changes[step].format(s=made[case][2]))
        until_settled(db)
        wrong = []
        for case, (name, query, _) in made.items():
            visible = query
            if case == "a row policy comes" and maker == "reader":
                visible = f"{query} where id > 1"
            now_ = state(db, name)
            if now_["status"] != "ACTIVE" or not equal(db, name, visible):
                wrong.append((case, step, now_))
        assert wrong == []
    told = {alert["stream_table"] for alert in listener.alerts("reinitialize_needed")}
    for case in ("a view is replaced", "a source is swapped by rename", "a row policy comes"):
        assert f"public.{made[case][0]}" in told, case
    if maker == "owner":
        still = [case for case, (name, _, _) in made.items() if state(db, name)["always_due"]]
        assert still == ["a row policy comes"]


# Cycles --------------------------------------------------------------------------------------

def test_a_stream_table_that_would_read_itself_is_suspended_and_says_how(db):
    """Through a view, a chain, a parsed function and a function whose body is a text."""
    db.execute("""
        create table t (id int);
        create view v as select id from t;
        create function parsed() returns setof int stable begin atomic select id from t; end;
        create function text_() returns setof int stable language plpgsql as
          $$ begin return query select id from public.t; end $$;""")
    queries = {"v": "select id from v", "parsed": "select id from parsed() as id",
               "text_": "select id from text_() as id"}
    for name, query in queries.items():
        create(db, f"first_{name}", query)
        create(db, f"second_{name}", f"select id + 1 as id from first_{name}")
        create(db, f"third_{name}", f"select id from second_{name}")
    create(db, "narcissus", "select id from v")
    listener = Listener(db)
    assert "would read itself: public.first_v reads public.third_v" in refusal(
        db, "select pgtrickle.alter_stream_table('first_v', query => 'select id from third_v')")
    db.execute("""
        create or replace view v as select id from t union all select id from third_v
          union all select id from narcissus;
        create or replace function parsed() returns setof int stable
          begin atomic select id from third_parsed; end;
        create or replace function text_() returns setof int stable language plpgsql as
          $$ begin return query select id from public.third_text_; end $$;
        insert into t values (1)""")
    upkeep(db)
    for name in queries:
        eventually(lambda: f"public.first_{name}" in due(db))
        done = refresh(db, f"first_{name}")
        assert done["suspended"], done
        assert done["error"] == (
            f"the stream table would read itself: public.first_{name} reads "
            f"public.third_{name} reads public.second_{name} reads public.first_{name}")
        assert state(db, f"first_{name}")["status"] == "SUSPENDED"
        assert state(db, f"second_{name}")["status"] == "ACTIVE"
    assert "narcissus reads public.narcissus" in refresh(db, "narcissus")["error"]
    reasons = [a.get("reason", "") for a in listener.alerts("auto_suspended")]
    assert len(reasons) == 4 and all("would read itself" in reason for reason in reasons)
    # Mended, it goes on.
    db.execute("create or replace view v as select id from t")
    db.execute("select pgtrickle.alter_stream_table('first_v', resume => true)")
    assert refresh(db, "first_v")["inserted"] == 1


def test_what_a_stream_tables_triggers_read_is_no_cycle(db):
    db.execute("create table t (id int); create function f() returns int stable language sql as "
               "'select count(*)::int from public.t'")
    create(db, "s", "select id, f() as n from t")
    create(db, "total", "select count(*) as n from s")
    db.execute("create function look() returns trigger language plpgsql as "
               "$$ begin perform n from public.total; return null; end $$; "
               "create trigger look after insert on s for each row execute function look(); "
               "insert into t values (1)")
    for _ in range(3):
        assert refresh(db, "s")["action"] != "FAILED"
        assert refresh(db, "total")["action"] != "FAILED"


# Settings ------------------------------------------------------------------------------------

STRANGE = {
    "DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-15", "bytea_output": "escape", "quote_all_identifiers": "on",
    "standard_conforming_strings": "off", "backslash_quote": "off", "transform_null_equals": "on",
    "array_nulls": "off", "xmlbinary": "hex", "escape_string_warning": "off",
    "search_path": '"$user", public'}
OTHER = dict(STRANGE, DateStyle="SQL, MDY", IntervalStyle="iso_8601", TimeZone="America/New_York",
             extra_float_digits="0", standard_conforming_strings="on")


def session(db, settings):
    connection = db.connect()
    for name, value in settings.items():
        connection.execute("select set_config(%s, %s, false)", (name, value))
    return connection


VALUES = r"""select id, at, array[at] as ats, tstzrange(at, null) as r, i, array[i, null] as is_, f,
                   array[f] as fs, b, m, t, "Odd", row(at, f)::pair as p,
                   '01/02/2024'::date as d, '01/02/2024 10:00'::timestamptz as tz,
                   '-1 2:03:04'::interval as literal, 'a\b' as slash
            from odd"""


@pytest.mark.parametrize("creator, day, moment, interval, since", [
    (STRANGE, "2024-02-01", "2024-02-01 10:00+05:30", "-1 days -02:03:04", "1900-02-01"),
    (OTHER, "2024-01-02", "2024-01-02 10:00-05:00", "-1 days +02:03:04", "1900-01-02")])
def test_a_query_and_its_values_mean_the_same_in_every_session(db, creator, day, moment,
                                                               interval, since):
    db.execute(r"""
        set standard_conforming_strings = on;
        create type pair as (at timestamptz, f float8);
        create table odd (id int, at timestamptz, i interval, f float8, b bytea, m money, t timetz,
                          "Odd" text);
        insert into odd values
          (1, '2026-11-01 05:30:00.123456Z', '-1 day +2:03', 0.1 + 0.2, '\x00ff27', 12.34,
           '10:00+05:30', 'A"b'),
          (1, '1900-01-20 00:00:00Z', '1 mon -1 day -0.000001 s', 1e-300 / 3, '\x5c', -0.01,
           '10:00-12', null)""")
    with session(db, creator) as made:
        made.execute("select pgtrickle.create_stream_table('odds', $q$"
                     + VALUES + "$q$, '1ms')")
        made.execute("select pgtrickle.create_stream_table('keyed', $q$select id, max(at) as at, "
                     "sum(f) as f from odd group by id$q$, '1ms', 'AUTO', '{id}')")
        made.execute("select pgtrickle.enable_outbox('odds')")

    def exact():
        assert db.one("""
            select count(*) from odd o full join odds s
              on row(o.at, o.i, o.f, o.b, o.m, o.t, o."Odd", array[o.at], tstzrange(o.at, null),
                     array[o.i, null], array[o.f], row(o.at, o.f)::pair)::record
                 *= row(s.at, s.i, s.f, s.b, s.m, s.t, s."Odd", s.ats, s.r,
                        s.is_, s.fs, s.p)::record
            where o.id is null or s.id is null""") == 0
        assert db.execute("select distinct d::text, tz = %s, slash, literal = %s from odds",
                          (moment, interval)) == [(day, True, r"a\b", True)]

    exact()
    for number, settings in enumerate((OTHER, STRANGE, {"TimeZone": "UTC"})):
        with session(db, settings) as other:
            other.execute(
                "insert into odd select id, at + %s * interval '1 us', -i, f * 3, b, m * 2, t, "
                "'new' from odd where id = 1", (number + 1,))
            other.execute("delete from odd where ctid = (select min(ctid) from odd)")
            for name in ("odds", "keyed"):
                refresh_one = "select pgtrickle.refresh_stream_table(%s) ->> 'action'"
                assert other.execute(refresh_one, (name,)).fetchone() == ("DIFFERENTIAL",)
                assert other.execute(refresh_one, (name,)).fetchone() == ("NO_DATA",)
        exact()
    # Altered from another session: its literals are what that session reads.
    with session(db, creator) as other:
        other.execute("select pgtrickle.alter_stream_table('keyed', query => $q$select id, "
                      "max(at) as at, sum(f) as f from odd where at::date >= '01/02/1900'::date "
                      "group by id$q$)")
    assert f"'{since}'::date" in db.one(
        "select defining_query from pgtrickle.pgt_stream_tables where pgt_name = 'keyed'")
    assert refresh(db, "keyed")["action"] != "FAILED"


def test_a_default_isolation_level_stops_no_scheduled_refresh(db, start_relay):
    db.execute("create table t (id int)")
    create(db, "s", "select id from t", schedule="100ms")
    db.execute(f"alter database {db.name} set default_transaction_isolation = 'serializable'")
    with start_relay(db.relay_dsn):
        db.execute("insert into t values (1)")
        eventually(lambda: db.execute("select id from s") == [(1,)], deadline=60)
    with db.connect() as by_hand:
        with pytest.raises(psycopg.Error, match="READ COMMITTED") as caught:
            by_hand.execute("select pgtrickle.refresh_stream_table('s')")
        assert "BEGIN ISOLATION LEVEL READ COMMITTED" in caught.value.diag.message_hint
        by_hand.execute("begin isolation level read committed")
        by_hand.execute("select pgtrickle.refresh_stream_table('s')")
        by_hand.execute("commit")


# Outboxes ------------------------------------------------------------------------------------

def follow(db, name, rows, position=0):
    """What a consumer has that had `rows` after outbox id `position`."""
    rows = dict(rows)
    for op, row in db.execute(
            f"select r.row_op, r.row_data from pgtrickle.outbox_{name} o "
            "cross join lateral pgtrickle.outbox_rows(%s, o.id) r where o.id > %s "
            "order by o.id, r.row_num", (name, position)):
        if op == "INSERT":
            rows[row["id"]] = row["word"]
        else:
            assert rows.pop(row["id"]) == row["word"]
    return rows


@pytest.mark.parametrize("first", ["refresh", "enable_outbox"])
def test_an_outbox_enabled_during_a_refresh_misses_nothing(db, first):
    db.execute("create table t (id int primary key, word text); insert into t values (1, 'a')")
    create(db, "s", "select id, word from t", key=["id"])
    db.execute("insert into t values (2, 'b')")
    statements = {"refresh": "select pgtrickle.refresh_stream_table('s')",
                  "enable_outbox": "select pgtrickle.enable_outbox('s')"}
    second = "refresh" if first == "enable_outbox" else "enable_outbox"
    answers = []
    with db.connect(autocommit=False) as one, db.connect() as two:
        one.execute(statements[first])
        stored = dict(one.execute("select id, word from s").fetchall())
        thread = threading.Thread(
            target=lambda: answers.append(two.execute(statements[second]).fetchone()[0]))
        thread.start()
        eventually(lambda: db.one("select count(*) from pg_locks where not granted "
                                  "and relation = 's'::regclass") == 1)
        one.commit()
        thread.join(60)
    assert answers and (second != "refresh" or answers[0]["action"] == "DIFFERENTIAL"), answers
    db.execute("update t set word = 'c' where id = 1")
    refresh(db, "s")
    assert follow(db, "s", stored) == {1: "c", 2: "b"}


def restore(db, server):
    """The database as pg_dump writes it, in a new one where no number is what it was."""
    binaries = postgres_bin_directory()
    dump = subprocess.run([os.path.join(binaries, "pg_dump"), db.dsn], capture_output=True,
                          check=True)
    restored = server.create_database(template="template0")
    restored.execute("create table in_the_way (id int)")
    done = subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", restored.dsn], input=dump.stdout,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return restored


@pytest.mark.parametrize("by", ["upkeep", "refresh"])
def test_a_dump_restored_without_installing_again_works(db, pg_server, by):
    db.execute("create table t (id int primary key, word text); insert into t values (1, 'a'); "
               "create table u (id int, word text) partition by range (id); "
               "create table u1 partition of u for values from (0) to (100); "
               "create view v as select * from u")
    create(db, "one", "select id, word from t", key=["id"])
    create(db, "two", "select id, word from v")
    create(db, "three", "select id, word from one")
    create(db, "never", "select id from t")
    names = ("one", "two", "three")
    for name in names:
        db.execute("select pgtrickle.enable_outbox(%s)", (name,))
    db.execute("insert into u values (5, 'u'); insert into t values (3, 'd')")
    settled(db)
    db.execute("insert into t values (4, 'dumped, not refreshed')")
    restored = restore(db, pg_server)
    try:
        # The worst of numbers: each outbox knows the one that another stream table has now.
        restored.execute("""
            create temporary table n as
              select s.pgt_id, c.outbox_number, o.pgt_relid as number
              from pgtrickle.pgt_stream_tables s
              join pgtrickle.pgt_outbox_config c on c.stream_table_name = s.pgt_name
              join pgtrickle.pgt_stream_tables o on o.pgt_id = 1 + s.pgt_id % 3;
            update pgtrickle.pgt_outbox_config c set stream_table_oid = null;
            update pgtrickle.pgt_outbox_config c set stream_table_oid = n.number::oid
              from n where n.outbox_number = c.outbox_number;
            update pgtrickle.pgt_stream_tables s set relid_number = n.number::oid
              from n where n.pgt_id = s.pgt_id""")
        positions = {name: restored.one(f"select max(id) from pgtrickle.outbox_{name}")
                     for name in names}
        before = {name: dict(restored.execute(f"select id, word from {name}")) for name in names}
        if by == "upkeep":
            until_settled(restored)
        for name in names + ("never",):
            assert refresh(restored, name)["action"] != "FAILED"
        restored.execute("update t set word = 'e' where id = 1; insert into u values (6, 'v')")
        until_settled(restored)
        expected = {1: "e", 3: "d", 4: "dumped, not refreshed"}
        for name in names:
            now_ = dict(restored.execute(f"select id, word from {name}"))
            assert now_ == ({5: "u", 6: "v"} if name == "two" else expected), name
            assert follow(restored, name, before[name], positions[name]) == now_, name
        # Nothing of the old numbers is left, and each source is watched once.
        assert restored.execute("""
            select c.relname, count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid
            where t.tgname like 'pgtrickle_dirty%' group by 1 order by 1""") == [
            ("one", 1), ("t", 1), ("u", 1), ("u1", 1)]
        for name in ("three", "never", "two", "one"):
            restored.execute("select pgtrickle.drop_stream_table(%s)", (name,))
    finally:
        restored.drop()


def test_a_number_that_is_another_tables_after_a_restore_is_not_written_to(db):
    db.execute("create table t (id int); create table precious (id int)")
    create(db, "s", "select id from t")
    db.execute("drop table s cascade; update pgtrickle.pgt_stream_tables "
               "set pgt_relid = 'precious'::regclass, relid_number = 'precious'::regclass::oid; "
               "insert into t values (1)")
    upkeep(db)
    done = refresh(db, "precious")
    assert "precious is not the table of stream table public.s" in done["error"]
    assert db.execute("select * from precious") == []


def test_the_catalog_follows_a_stream_table_that_is_renamed(orders):
    create(orders, key=["region", "day"])
    create(orders, "total", "select sum(revenue) as revenue from revenue_by_region")
    orders.execute("select pgtrickle.enable_outbox('revenue_by_region')")
    orders.execute("create schema app; alter table revenue_by_region rename to by_hand; "
                   "alter table by_hand set schema app")
    upkeep(orders)
    assert orders.execute("select pgt_schema, pgt_name from pgtrickle.pgt_stream_tables "
                          "where pgt_id = 1") == [("app", "by_hand")]
    orders.execute("insert into orders (region, amount, created_at) "
                   "values ('us', 1, '2026-04-27 10:00Z')")
    assert refresh(orders, "app.by_hand")["inserted"] == 1
    assert orders.one("select count(*) from pgtrickle.outbox_revenue_by_region") == 1
    # What reads it by its old name says so.
    assert 'relation "public.revenue_by_region" does not exist' in refresh(orders, "total")["error"]
    # Blue and green: two stream tables change names, and each keeps its outbox and its readers.
    create(orders, "app.green", "select region, count(*) as n from orders group by 1")
    orders.execute("select pgtrickle.enable_outbox('app.green')")
    orders.execute("begin; alter table app.by_hand rename to blue; "
                   "alter table app.green rename to by_hand; commit")
    upkeep(orders)
    orders.execute("insert into orders (region, amount, created_at) "
                   "values ('mars', 1, '2026-04-27 10:00Z')")
    assert refresh(orders, "app.blue")["inserted"] == 1
    assert refresh(orders, "app.by_hand")["inserted"] == 1
    assert orders.one("select count(*) from pgtrickle.outbox_revenue_by_region") == 2
    assert orders.execute("select payload -> 'inserted' from pgtrickle.outbox_green") == [
        ([{"region": "mars", "n": 1}],)]
