"""What an outbox says is what the table has: the same text for a value whatever its writers have set,
and an order in which a consumer that keeps one row for each key ends with the table's rows."""

import os
import random
import tempfile
import threading

import psycopg
import pytest

from support.replay import Replay
from support.waiting import eventually

# Values ----------------------------------------------------------------------------------------

# One value for each type that the server has.
SAMPLES = {
    "bool": "true", "bytea": r"\x00ff5c41", '"char"': "c", "name": "n", "int8": "-9", "int2": "2",
    "int2vector": "1 2", "int4": "4", "regproc": "pg_catalog.now", "text": "näh\\'", "oid": "1",
    "tid": "(0,1)", "xid": "5", "cid": "6", "oidvector": "1 2", "json": '{"a": 1.50}',
    "xml": "<a>x</a>", "point": "(0.1,0.30000000000000004)", "lseg": "[(0.1,0.3),(2,3.7)]",
    "path": "((0.1,0.3),(2,3.7))", "box": "(2,3.7),(0.1,0.3)", "polygon": "((0.1,0.3),(2,3.7))",
    "line": "{0.1,0.3,0.7}", "circle": "<(0.1,0.3),0.7>", "float4": "0.1234567",
    "float8": "0.30000000000000004", "money": "1234.56", "macaddr": "08:00:2b:01:02:03",
    "inet": "10.0.0.1/8", "cidr": "10.0.0.0/8", "macaddr8": "08:00:2b:01:02:03:04:05",
    "aclitem": "postgres=r/postgres", "bpchar": "x ", "varchar": "v", "date": "2026-02-01",
    "time": "01:02:03.4", "timestamp": "2026-02-01 01:02:03.4",
    "timestamptz": "2026-02-01 01:02:03.4+00", "interval": "1 year 2 days 03:04:05.6",
    "timetz": "01:02:03+04:30", "bit": "1", "varbit": "101", "numeric": "1.2300",
    "refcursor": "c", "regprocedure": "pg_catalog.now()", "regoper": "pg_catalog.!!",
    "regoperator": "pg_catalog.+(integer,integer)", "regclass": "pg_catalog.pg_class",
    "regcollation": '"C"', "regtype": "timestamptz", "regrole": "postgres",
    "regnamespace": "pg_catalog", "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "pg_lsn": "0/16B3748", "tsvector": "a:1 b:2", "tsquery": "a & b", "regconfig": "simple",
    "regdictionary": "simple", "regdatabase": "postgres", "jsonb": '{"a": 1.50}', "jsonpath": "$.a",
    "txid_snapshot": "10:20:10,14", "pg_snapshot": "10:20:10,14", "xid8": "7",
    "int4range": "[1,3)", "numrange": "[1.50,2]", "tsrange": '["2026-02-01 01:02:03.4",)',
    "tstzrange": '["2026-02-01 01:02:03.4+00","2026-07-01 01:02:03+00")',
    "daterange": "[2026-02-01,2026-03-01)", "int8range": "[1,3)", "int4multirange": "{[1,3)}",
    "nummultirange": "{[1.50,2]}", "tsmultirange": '{["2026-02-01 01:02:03.4",)}',
    "tstzmultirange": '{["2026-02-01 01:02:03.4+00",)}', "datemultirange": "{[2026-02-01,)}",
    "int8multirange": "{[1,3)}",
}
# PostgreSQL reads no values of these.
UNREADABLE = {"pg_node_tree", "gtsvector", "pg_ndistinct", "pg_dependencies", "pg_mcv_list",
              "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_ddl_command"}

MADE = """
create type mood as enum ('NULL', 'sad', 'a "b"');
create type spell as range (subtype = timestamptz);
create domain reading as float8;
create domain moment as timestamptz;
create type part as (f float8, at timestamptz, d date, b bytea, i interval, m money, mood mood, r reading);
create type whole as (p part, ps part[], s spell);
"""
PART = "row(0.1::float4, '2026-02-01 03:04:05.6+00', '2026-02-01', '\\x00ff', '1 day 02:03', 1.5::numeric::money, 'sad', 1/3.0)::part"
MADE_COLUMNS = {
    "mood": "'sad'", "mood[]": "array[null, 'NULL', 'a \"b\"']::mood[]",
    "spell": "'[2026-02-01 01:02:03+00,)'", "spell[]": "array['[2026-02-01 01:02:03+00,)'::spell, null]",
    "reading": "1/3.0", "reading[]": "array[1/3.0, null]::reading[]", "moment": "'2026-02-01 01:02:03+00'",
    "moment[]": "array['2026-02-01 01:02:03+00']::moment[]", "part": PART,
    "part[]": f"array[{PART}, null]", "part[][]": f"array[[{PART}],[{PART}]]",
    "whole": f"row({PART}, array[{PART}], '[2026-02-01 01:02:03+00,)'::spell)::whole",
}

SETTINGS = {
    "array_nulls": ["on", "off"], "bytea_output": ["hex", "escape"],
    "DateStyle": ["ISO, MDY", "ISO, DMY", "SQL, DMY", "German, DMY", "Postgres, MDY"],
    "extra_float_digits": ["-15", "-3", "0", "1", "3"],
    "IntervalStyle": ["postgres", "postgres_verbose", "sql_standard", "iso_8601"],
    "lc_monetary": ["C", "C.UTF-8"], "quote_all_identifiers": ["on", "off"],
    "TimeZone": ["UTC", "Europe/Berlin", "Asia/Kathmandu", "<+02>-02", "<-0330>+3:30"],
    "standard_conforming_strings": ["on", "off"], "xmlbinary": ["base64", "hex"],
    "xmloption": ["content", "document"], "search_path": ["public", "public, pg_catalog"],
}
SHOWN = ", ".join(f"current_setting('{name}')" for name in SETTINGS)


def choose_settings(chance, connection, local=False):
    chosen = {name: chance.choice(values) for name, values in SETTINGS.items()}
    for name, value in chosen.items():
        connection.execute("select set_config(%s, %s, %s)", (name, value, local))
    return tuple(chosen.values())


def all_types(db):
    """Columns of all types, and one expression for each."""
    types = [row[0] for row in db.execute(
        "select format_type(oid, null) as name from pg_type where typnamespace = 'pg_catalog'::regnamespace "
        "and typtype in ('b', 'r', 'm') and typcategory <> 'A' and oid < 16384 order by oid")]
    aliases = {row[0]: row[1] for row in db.execute(
        "select format_type(oid, null), typname from pg_type where oid < 16384")}
    columns, values = [], []
    for shown in types:
        name = shown if shown in SAMPLES else aliases[shown]
        if name in UNREADABLE or name.startswith("pg_brin"):
            continue
        assert name in SAMPLES, f"say what a value of type {name} looks like"
        literal = "'" + SAMPLES[name].replace("'", "''") + "'"
        columns += [f"{shown}", f"{shown}[]"]
        values += [f"{literal}::{shown}", f"array[{literal}::{shown}, null]"]
    columns += MADE_COLUMNS
    values += MADE_COLUMNS.values()
    return columns, values


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_values_do_not_depend_on_the_settings_of_their_writers(db, capture):
    """All types, as a role without rights, in functions, subtransactions and prepared transactions."""
    db.execute(MADE)
    columns, values = all_types(db)
    listed = ", ".join(f"c{n} {type_}" for n, type_ in enumerate(columns))
    db.execute(f"create table v (id int primary key, {listed})")
    db.execute(f"create table samples as select {', '.join(f'({v})::{t} as c{n}' for n, (v, t) in enumerate(zip(values, columns)))}")
    db.execute("select pgtrickle.enable_outbox('v', capture => %s)", (capture,))
    db.login("scribe")
    db.execute("grant usage on schema public to scribe; grant all on v, samples to scribe;"
               "create function meddle(statement text) returns void language plpgsql "
               "set TimeZone = 'Asia/Tokyo' set DateStyle = 'SQL, MDY' as $$ begin execute statement; end $$")
    chance = random.Random(7)
    with db.connect(user="scribe") as writer, db.connect(user="scribe", autocommit=False) as other:
        for n in range(12):
            have = choose_settings(chance, writer)
            insert = f"insert into v select {n}, * from samples"
            if n % 2:
                writer.execute("select meddle(%s)", (insert,))
            else:
                writer.execute(insert)
            writer.execute(f"insert into v select {n} + k * 100, samples.* from samples, generate_series(1, 3) k")
            assert writer.execute(f"select {SHOWN}").fetchone() == have
            have = choose_settings(chance, other)
            other.commit()
            if n % 3 == 0:
                other.execute("savepoint s")
                choose_settings(chance, other, local=True)
                other.execute(f"delete from v where id = {n}")
                other.execute("rollback to s")
                assert other.execute(f"select {SHOWN}").fetchone() == have
            other.execute(f"update v set id = id + 50 where id % 100 = {n}")
            other.execute(f"delete from v where id = {n + 50}")
            assert other.execute(f"select {SHOWN}").fetchone() == have
            if n % 4 == 0:
                other.execute(f"prepare transaction 'p{n}'")
                other.commit()
                other.autocommit = True
                other.execute(f"commit prepared 'p{n}'")
                other.autocommit = False
            else:
                other.commit()
            assert other.execute(f"select {SHOWN}").fetchone() == have
            other.commit()
    replay = Replay(db, "v")
    written = replay.rows()  # strict: each deleted row is one that was inserted
    assert sum(written.values()) == db.one("select count(*) from v") == 36
    # A full refresh under other settings says the same.
    with db.connect() as admin:
        have = choose_settings(chance, admin)
        admin.execute("select pgtrickle.outbox_full_refresh('public.v')")
        assert admin.execute(f"select {SHOWN}").fetchone() == have
    assert replay.rows() == written


def test_columns_that_come_later_do_not_depend_on_them_either(db):
    """At once, by functions that were written for other columns, and after upkeep has written them."""
    db.execute("create table v (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('v')")
    with db.connect() as writer, db.connect() as other:
        other.execute("set timezone = 'Asia/Tokyo'; set extra_float_digits = -15")
        for n, (column, value) in enumerate([("at timestamptz", "now()"), ("f float8", "1/3.0"),
                                             ("s tstzrange", "'[2026-01-01,)'")]):
            writer.execute(f"alter table v add column {column}")
            for _ in range(2):
                name = column.split()[0]
                writer.execute(f"insert into v (id, {name}) values ({n}, {value})")
                other.execute(f"delete from v where id = {n}")
                Replay(db, "v").rows(strict=True)
                db.execute("select pgtrickle.outbox_capture_upkeep()")
        assert other.execute("show timezone").fetchone()[0] == "Asia/Tokyo"


class Settled:
    """The settings of a session, as they must be found again."""

    def __init__(self, connection):
        self.connection = connection

    def assert_are(self, zone, digits="-5"):
        assert self.connection.execute(
            "select current_setting('TimeZone'), current_setting('extra_float_digits')"
        ).fetchone() == (zone, digits)


def test_what_a_session_has_set_is_there_afterwards(db):
    """Whether it was set for the session, the transaction, a function or a savepoint, whatever came of
    it."""
    db.execute("create table v (id int primary key, at timestamptz default now(), f float8 default 0.1)")
    db.execute("select pgtrickle.enable_outbox('v')")
    outbox = Replay(db, "v").outbox
    insert = "insert into v (id) select coalesce(max(id), 0) + 1 from v"
    with db.connect() as session:
        now = Settled(session)
        session.execute("set timezone = 'Asia/Tokyo'; set extra_float_digits = -5")
        for end in ("commit", "rollback"):
            session.execute("begin")
            session.execute(insert)
            session.execute(end)
            now.assert_are("Asia/Tokyo")

            session.execute("begin")
            session.execute("set timezone = 'Europe/Berlin'")
            session.execute(insert)
            now.assert_are("Europe/Berlin")
            session.execute(end)
            now.assert_are("Europe/Berlin" if end == "commit" else "Asia/Tokyo")
            session.execute("set timezone = 'Asia/Tokyo'")

            session.execute("begin")
            session.execute(insert)
            session.execute("set timezone = 'Europe/Berlin'")
            session.execute(insert)
            session.execute(end)
            now.assert_are("Europe/Berlin" if end == "commit" else "Asia/Tokyo")
            session.execute("set timezone = 'Asia/Tokyo'")

            session.execute("begin")
            session.execute("set local timezone = 'Europe/Berlin'")
            session.execute(insert)
            now.assert_are("Europe/Berlin")
            session.execute("savepoint s")
            session.execute("set local timezone = 'America/Lima'")
            session.execute(insert)
            now.assert_are("America/Lima")
            session.execute("rollback to s")
            now.assert_are("Europe/Berlin")
            session.execute(insert)
            session.execute("release s")
            now.assert_are("Europe/Berlin")
            session.execute(end)
            now.assert_are("Asia/Tokyo")

            session.execute("begin")
            session.execute(insert)
            session.execute("reset timezone")
            session.execute(insert)
            session.execute(end)
            now.assert_are(db.one("show timezone") if end == "commit" else "Asia/Tokyo")
            session.execute("set timezone = 'Asia/Tokyo'")

        # Capture itself fails: the error undoes what it had set.
        db.execute(f"alter table pgtrickle.{outbox} add constraint never check (tg_op <> 'DELETE')")
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute("delete from v")
        now.assert_are("Asia/Tokyo")
        session.execute("do $$ begin delete from v; exception when check_violation then null; end $$")
        now.assert_are("Asia/Tokyo")
        session.execute("begin")
        session.execute("set local timezone = 'Europe/Berlin'")
        session.execute("savepoint s")
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute("delete from v")
        session.execute("rollback to s")
        now.assert_are("Europe/Berlin")
        session.execute("commit")
        now.assert_are("Asia/Tokyo")
        db.execute(f"alter table pgtrickle.{outbox} drop constraint never")
        # The conversion fails and is made up for.
        db.execute("alter table v add column j json")
        for value in ('{"a": "\\u0000"}', '{"a": 1}'):
            session.execute("insert into v (id, j) select max(id) + 1, %s from v", (value,))
            now.assert_are("Asia/Tokyo")
            db.execute("select pgtrickle.outbox_capture_upkeep()")


def test_the_client_is_told_of_no_setting(db):
    """TimeZone, DateStyle and IntervalStyle are reported to clients, and to poolers between."""
    db.execute("create table v (id int primary key, at timestamptz, r tstzrange, i interval)")
    db.execute("select pgtrickle.enable_outbox('v')")
    with db.connect() as session, tempfile.TemporaryDirectory() as folder:
        session.execute("set timezone = 'Asia/Tokyo'; set datestyle = German; set intervalstyle = iso_8601")
        path = os.path.join(folder, "trace")
        with open(path, "w") as trace:
            session.pgconn.trace(trace.fileno())
            session.execute("insert into v values (1, now(), '[2026-01-01,)', '1 day')")
            session.execute("set timezone = 'Asia/Seoul'")  # this one is reported
            session.pgconn.untrace()
        with open(path) as trace:
            told = [line for line in trace if "ParameterStatus" in line]
        assert len(told) == 1 and "Asia/Seoul" in told[0]


def test_virtual_generated_columns_are_left_out(db):
    """A trigger does not see them, and to read one can be an error where to write the row is none."""
    if db.server.version < 18:
        db.execute("create table v (id int primary key, n int)")
        db.execute("select pgtrickle.enable_outbox('v')")
        assert db.one("select count(*) from pg_attribute where attgenerated = 'v'") == 0
        return
    for capture in ("statement", "row"):
        db.execute("select pgtrickle.disable_outbox('v', if_exists => true)")
        db.execute("drop table if exists v")
        db.execute("create table v (id int primary key, n int, half int generated always as (100 / n) virtual)")
        with db.connect() as owner:
            notices = []
            owner.add_notice_handler(lambda diag: notices.append(diag.message_primary))
            name = owner.execute("select pgtrickle.enable_outbox('v', capture => %s)", (capture,)).fetchone()[0]
            assert any("half" in notice for notice in notices)
        db.execute("create table if not exists w (id int, half int generated always as (id / 2) virtual)")
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            db.execute("select pgtrickle.enable_outbox('w', key_columns => '{half}')")
        # A column that comes later is recorded at once.
        db.execute("alter table v add column later text default 'x'")
        db.execute("insert into v (id, n) values (1, 5), (2, 0)")
        db.execute("update v set n = 7 where id = 1")
        rows = [row for row, in db.execute(
            f"select jsonb_array_elements(payload -> 'inserted') from pgtrickle.{name} order by id")]
        assert rows == [{"id": 1, "n": 5, "later": "x"}, {"id": 2, "n": 0, "later": "x"},
                        {"id": 1, "n": 7, "later": "x"}]
        # Nor is it an error in a full refresh, which leaves them out too.
        db.execute("select pgtrickle.outbox_full_refresh('v')")
        assert sorted(Replay(db, "v").rows()) == ['{"n": 0, "id": 2, "later": "x"}',
                                                  '{"n": 7, "id": 1, "later": "x"}']


# Order -----------------------------------------------------------------------------------------

def rows_by_key(db, table, key="id"):
    """As a consumer that keeps one row for each key: it removes what was deleted, and puts what was
    inserted, outbox row by outbox row, in the order of outbox_rows()."""
    have = {}
    for id, _, _, _, _, payload in Replay(db, table).entries():
        if payload.get("full_refresh"):
            have.clear()
        for op, row in db.execute("select row_op, row_data from pgtrickle.outbox_rows(%s, %s) "
                                  "order by row_num", (table, id)):
            if op == "DELETE":
                have.pop(row[key], None)
            else:
                have[row[key]] = row
    return have


def assert_is_the_table(db, table):
    rows = db.execute(f"select to_jsonb(x.*) from {table} x")
    assert rows_by_key(db, table) == {row["id"]: row for row, in rows}
    Replay(db, table).check()


# What one statement does to (1, 'a'), (2, 'b'), (3, 'c').
STATEMENTS = {
    "an insert that ends before the delete it follows": """
        with d as (delete from t where id in (1, 2) returning id),
             i as (insert into t select id, 'new' from d limit 1) select""",
    "an insert that ends before the update it follows": """
        with u as (update t set id = id + 10 where id in (1, 2) returning id),
             i as (insert into t select id - 10, 'new' from u limit 1) select""",
    "an update that ends before the delete it follows": """
        with d as (delete from t where id in (1, 2) returning id),
             u as (update t set id = d.id from (select id from d limit 1) d where t.id = 3) select""",
    "a delete that the insert waits for": """
        with d as (delete from t where id = 1 returning id) insert into t select id, 'new' from d""",
    "the same row again": """
        with d as (delete from t where id in (1, 2) returning *),
             i as (insert into t select * from d limit 1) select""",
    "all three": """
        with d as (delete from t where id in (1, 2) returning id),
             u as (update t set id = d.id from (select id from d limit 1) d where t.id = 3
                   returning 3 as id),
             i as (insert into t select id, 'new' from u limit 1) select""",
    "merge": """
        merge into t using (values (1, 'del'), (3, 'move'), (7, 'x')) s (id, what) on t.id = s.id
        when matched and what = 'del' then delete
        when matched then update set id = 1
        when not matched then insert values (3, 'new')""",
    "on conflict": """
        insert into t values (1, 'x'), (4, 'y') on conflict (id) do update set id = t.id + 10""",
    "shift": "update t set id = id + 10",
    "shift by one": "update t set id = s.id + 1 from (select id from t order by id desc) s where t.id = s.id",
}


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_a_statement_that_gives_a_key_away_and_takes_it(db, capture):
    for nested in (False, True):
        for name, statement in STATEMENTS.items():
            if "merge" in name and db.server.version < 15:
                continue
            db.execute("select pgtrickle.disable_outbox('t', if_exists => true)")
            db.execute("drop table if exists t cascade")
            db.execute("create table t (id int primary key, v text)")
            db.execute("select pgtrickle.enable_outbox('t', capture => %s)", (capture,))
            db.execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
            if nested:  # within a trigger of another statement on the table
                body = statement.strip()
                body = body[:-6] + "select 1 into found_one" if body.endswith("select") else body
                db.execute(f"""create or replace function again() returns trigger language plpgsql as $$
                    declare found_one int; begin
                      if pg_trigger_depth() = 1 then {body}; end if; return null; end $$""")
                db.execute("create trigger again after insert on t for each row execute function again()")
                statement = "insert into t values (20, 'outer')"
            try:
                db.execute(statement)
            except psycopg.errors.UniqueViolation:
                assert name == "shift by one", name  # the server checks row by row
            try:
                assert_is_the_table(db, "t")
                db.execute("update t set v = v || '!'")
                assert_is_the_table(db, "t")
            except AssertionError as error:
                raise AssertionError(f"{name}, {'nested' if nested else 'alone'}: {error}") from None
    # Nothing of it is left in a session.
    db.execute("insert into t values (100, 'x')")
    number = db.one("select outbox_number from pgtrickle.pgt_outbox_config")
    setting = f"coalesce(current_setting('pgtrickle_capture.s{number}', true), '')"
    assert db.one(f"select {setting}") == ""


# What one statement does to (1, 1, 'root'), (2, 1, 'child'), (3, null, 'other').
CASCADES = {
    "the cascade deletes what was inserted": """
        with d as (delete from t where id = 1 returning id)
        insert into t select 9, d.id, 'new' from d""",
    "it deletes the row that was deleted and inserted again": """
        with d as (delete from t where id = 1 returning *)
        insert into t select * from d""",
    "it leaves the row that was inserted again": """
        with d as (delete from t where id = 1 returning *)
        insert into t select id, null, v from d""",
    "it deletes one, and leaves one that is the same again": """
        with d as (delete from t where id in (1, 3) returning *)
        insert into t select id, case id when 3 then null else 1 end, v from d""",
    "it changes what was inserted": """
        with u as (update t set id = 10 where id = 1 returning id)
        insert into t select 9, 1, 'new' from u""",
    "merge": """
        merge into t using (values (1), (9)) s (id) on t.id = s.id
        when matched then delete when not matched then insert values (9, 1, 'new')""",
}


@pytest.mark.parametrize("capture", ["statement", "row"])
def test_a_cascade_within_the_table_after_several_parts(db, capture):
    for name, statement in CASCADES.items():
        if name == "merge" and db.server.version < 15:
            continue
        db.execute("select pgtrickle.disable_outbox('t', if_exists => true)")
        db.execute("drop table if exists t cascade")
        db.execute("create table t (id int primary key, parent int references t "
                   "on delete cascade on update cascade, v text)")
        db.execute("select pgtrickle.enable_outbox('t', capture => %s)", (capture,))
        db.execute("insert into t values (1, 1, 'root'), (2, 1, 'child'), (3, null, 'other')")
        db.execute(statement)
        db.execute("update t set v = v || '!'")
        db.execute("select pgtrickle.outbox_capture_upkeep()")
        rows = db.execute("select to_jsonb(x.*) from t x")
        assert rows_by_key(db, "t") == {row["id"]: row for row, in rows}, name


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("when", ["deferred", "immediate"])
def test_keys_that_are_checked_at_the_end_of_the_transaction(db, when, capture):
    """Rows change their keys at random: within a transaction two rows may have the same one."""
    db.execute(f"create table t (id int primary key deferrable initially {when}, v text)")
    db.execute("select pgtrickle.enable_outbox('t', capture => %s, inline_threshold_rows => 4)", (capture,))
    db.execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')")
    chance = random.Random(when + capture)
    moved = 0
    with db.connect(autocommit=False) as session:
        def run(statement):
            session.execute("savepoint s")
            try:
                session.execute(statement)
            except (psycopg.errors.UniqueViolation, psycopg.errors.ObjectInUse):  # TRUNCATE
                session.execute("rollback to s")
        for _ in range(60):
            session.execute("set constraints all deferred")
            for _ in range(chance.randint(1, 5)):
                a, b = chance.sample(range(1, 8), 2)
                run(chance.choice([
                    f"update t set id = {b} where ctid = (select min(ctid) from t where id = {a})",
                    f"update t set id = {b} where v = (select v from t where id = {a} limit 1)",
                    f"update t set id = case id when {a} then {b} else {a} end where id in ({a}, {b})",
                    "update t set id = id % 7 + 1",
                    f"delete from t where ctid = (select max(ctid) from t where id = {a})",
                    f"insert into t values ({a}, 'n{chance.random()}')",
                    f"update t set v = v || '.' where id = {a}",
                    "truncate t" if chance.random() < 0.2 else "select",
                    "set constraints all immediate" if chance.random() < 0.2 else "select",
                ]))
            # End with keys that can be committed, most of the time.
            if chance.random() < 0.8:
                run("delete from t where ctid not in (select max(ctid) from t group by id)")
            try:
                session.commit()
                moved += 1
            except psycopg.errors.UniqueViolation:
                session.rollback()
    assert moved > 30
    assert_is_the_table(db, "t")
    assert db.one("select count(*) from pgtrickle_internal.outbox_deferred") == 0


def test_the_two_swaps(db):
    db.execute("create table t (id int primary key deferrable initially deferred, v text)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1, 'a'), (2, 'b')")
    with db.connect(autocommit=False) as session:
        session.execute("update t set id = 2 where v = 'a'")
        session.execute("update t set id = 1 where v = 'b'")
        session.commit()
        session.execute("update t set id = 1 where v = 'a'")  # a second row 1, for a while
        session.execute("update t set id = 9 where v = 'a'")
        session.commit()
    assert_is_the_table(db, "t")
    # What came of it in the end, as one change.
    assert [len(row[5]["inserted"]) for row in Replay(db, "t").entries()] == [2, 2, 1]


def test_a_key_that_another_transaction_gives_free(db):
    """The one that takes it has recorded that first, and waits for the other at its commit."""
    db.execute("create table t (id int primary key deferrable initially deferred, v text)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1, 'a')")
    with db.connect(autocommit=False) as giver, db.connect(autocommit=False) as taker:
        giver.execute("insert into t values (5, 'x')")
        taker.execute("insert into t values (1, 'b')")
        giver.execute("delete from t where id = 1")
        committing = threading.Thread(target=taker.commit)
        committing.start()
        eventually(lambda: db.one("select count(*) from pg_locks where not granted"))
        giver.commit()
        committing.join()
    assert_is_the_table(db, "t")


def test_a_key_becomes_deferrable(db):
    db.execute("create table t (id int primary key, v text)")
    db.execute("select pgtrickle.enable_outbox('t')")
    db.execute("insert into t values (1, 'a'), (2, 'b')")
    for definition in ("deferrable initially deferred", ""):
        db.execute(f"alter table t drop constraint t_pkey, add constraint t_pkey primary key (id) {definition}")
        db.execute("select pgtrickle.outbox_capture_upkeep()")
        with db.connect(autocommit=False) as session:
            session.execute("update t set id = id + 1 where id = 1" if definition else "update t set id = id + 10")
            session.execute("update t set id = 1 where v = 'b'")
            session.commit()
        assert_is_the_table(db, "t")


# What enable_outbox says -------------------------------------------------------------------------

def test_enabling_says_what_lastval_means_from_now_on(db):
    db.execute("create table plain (id int primary key)")
    db.execute("create table serials (id serial primary key)")
    db.execute("create table identities (id int generated always as identity primary key)")
    db.execute('create schema "odd name"')
    db.execute('create table "odd name".defaults (id int primary key default nextval(\'serials_id_seq\'))')
    with db.connect() as owner:
        notices = []
        owner.add_notice_handler(lambda diag: notices.append((diag.message_primary, diag.message_hint)))
        owner.execute("select pgtrickle.enable_outbox('plain')")
        assert notices == []
        for table, sequence in (("serials", "public.serials_id_seq"),
                                ("identities", "public.identities_id_seq"),
                                ('"odd name".defaults', "public.serials_id_seq")):
            notices.clear()
            owner.execute("select pgtrickle.enable_outbox(%s)", (table,))
            (said, hint), = notices
            assert "lastval()" in said
            assert "lastInsertId()" in hint and "RETURNING" in hint
            assert f"currval('{sequence}')" in hint
