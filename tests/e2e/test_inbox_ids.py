"""Ids in inboxes: distinct messages are stored or become dead letters, whatever the table is."""

import collections
import json
import random
import re
import string
import threading

import pytest

from support.inboxes import count
from support.pipelines import LONG, SLOW_FACTOR, position
from support.relay import run_command
from support.waiting import eventually

RAW = b"\x00\xff"


@pytest.fixture
def letters(there):
    """A plain table that sends whatever ids one likes, any number of times."""
    for table in ("letters", "others"):
        there.execute(f"create table {table} (nr bigint generated always as identity primary key, "
                      "id text, type text, key text, body bytea)")
    return there


def send(there, *messages, table="letters"):
    """Messages: (id, body), or (id, body, key), or (id, body, key, type)."""
    with there.connect() as connection, connection.cursor() as cursor:
        for identity, body, *rest in messages:
            key, kind = (*rest, *(None, None)[len(rest):])
            cursor.execute(f"insert into {table} (id, body, key, type) values (%s, %s, %s, %s)",
                           (identity, body if isinstance(body, bytes) else body.encode(), key,
                            kind or "made"))


def receive(db, there, name, table, source="letters", **sink):
    """A pipeline `name` from the letters into a table."""
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => true)",
               (name, json.dumps({
                   "source": {"type": "pg-outbox", "url": there.dsn, "table": f"public.{source}",
                              "id_column": "nr", "payload_column": "body", "key_column": "key",
                              "event_id_column": "id", "event_type_column": "type",
                              "poll_interval": "20ms"},
                   "sink": {"type": "inbox", "inbox_table": table, **sink}})))


def adopt(db, there, name, ddl, **sink):
    """A schema of that name with a table `t`, and a pipeline of that name into it."""
    db.execute(f"create schema {name}; set search_path to {name}; {ddl}; reset search_path")
    db.execute(f"grant usage on schema {name} to pgtrickle_relay; "
               f"grant select, insert on all tables in schema {name} to pgtrickle_relay")
    receive(db, there, name, f"{name}.t", **sink)


def wait_settled(db, there, relay, *names, table="letters"):
    newest = there.one(f"select max(nr) from {table}")
    for name in names:
        eventually(lambda: (position(db, name) or (0,))[0] >= newest, 60 * SLOW_FACTOR,
                   message=lambda: f"{name}: {position(db, name)}\n{relay.log(40)}")


def dead(db, name):
    """(id, code, body) of the dead letters of a pipeline."""
    return [(identity, code, bytes(body)) for identity, code, body in db.execute(
        "select message_id, error_code, payload from pgtrickle.relay_dlq "
        "where pipeline = %s and resolved_at is null order by id", (name,))]


def bodies(db, table):
    """The payloads of a table, as they are written."""
    return [body.encode() for body, in db.execute(
        f"select convert_from(payload, 'UTF8') from {table}")]


# Types ------------------------------------------------------------------------------------------

UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
IDS = ["message-0001", "message-00011", "message-00012", "abc", "abc ", "abc" + 12 * " ", "ABC",
       "7", "007", "1.5", "2", "2.0", UUID, UUID.upper(), "{%s}" % UUID, "\\x61", "a", "red",
       "".join(random.Random(1).choices(string.ascii_letters, k=6000))]
ID_TYPES = {
    "any_text": ("text", 18), "short": ("varchar(12)", 12), "short_domain": ("short", 12),
    "nested": ("shorter", 12), "identifiers": ("uuid", 1), "whole": ("bigint", 2),
    "small": ("smallint", 2), "numbers": ("numeric", 3), "bytes": ("bytea", 18),
    "colours": ("colour", 1)}


def test_no_column_of_ids_makes_one_message_of_two(db, letters, relay):
    """Each letter has a body of its own: those that were stored or are dead letters are all."""
    for name, (column, _) in ID_TYPES.items():
        adopt(db, letters, name, f"""
            create domain short varchar(12); create domain shorter short;
            create type colour as enum ('red', 'green');
            create table t (event_id {column} primary key, payload bytea)""")
    sent = [(identity, str(number)) for number, identity in enumerate(IDS)]
    send(letters, *sent)
    with relay:
        wait_settled(db, letters, relay, *ID_TYPES)
    for name, (_, stored) in ID_TYPES.items():
        kept = bodies(db, f"{name}.t")
        lost = [body for _, _, body in dead(db, name)]
        assert sorted(kept + lost) == sorted(body.encode() for _, body in sent), name
        assert len(kept) == stored, (name, kept)


# Opening ----------------------------------------------------------------------------------------

GOOD = "event_id text primary key, payload jsonb"
UNFIT = {
    "names": ("create table t (event_id name primary key, payload jsonb)", {}, "cuts", "TYPE text"),
    "rounded": ("create table t (event_id numeric(6,0) primary key, payload jsonb)", {}, "apart",
                "TYPE text"),
    "padded": ("create table t (event_id char(12) primary key, payload jsonb)", {}, "apart",
               "TYPE text"),
    "floats": ("create table t (event_id float8 primary key, payload jsonb)", {}, "apart",
               "TYPE text"),
    "times": ("create domain d timestamp(0); create table t (event_id d primary key, payload "
              "jsonb)", {}, "apart", "TYPE text"),
    "bits": ("create table t (event_id bit(3) primary key, payload jsonb)", {}, "apart",
             "TYPE text"),
    "no_key": ("create table t (event_id text, payload jsonb)", {}, "must be unique",
               "CREATE UNIQUE INDEX"),
    "deferred": ("create table t (event_id text unique deferrable, payload jsonb)", {},
                 "DEFERRABLE", "DROP CONSTRAINT"),
    "deferred_too": (f"create table t ({GOOD}, unique (event_id) deferrable)", {}, "DEFERRABLE",
                     "DROP CONSTRAINT"),
    "partial": ("create table t (event_id text, payload jsonb); "
                "create unique index on t (event_id) where payload is not null", {}, "partial",
                "CREATE UNIQUE INDEX"),
    "expression": ("create table t (event_id text, payload jsonb); "
                   "create unique index on t (lower(event_id))", {}, "must be unique",
                   "CREATE UNIQUE INDEX"),
    "pair": ("create table t (event_id text, n int default 1, payload jsonb, unique (event_id, n))",
             {}, "by itself", "CREATE UNIQUE INDEX"),
    "tenant": (f"create table t ({GOOD}, tenant int not null)", {}, '"tenant"', "SET DEFAULT"),
    "tenant_domain": ("create domain d as int not null; "
                      f"create table t ({GOOD}, tenant d)", {}, '"tenant"', "SET DEFAULT"),
    "computed": (f"create table t ({GOOD}, what text generated always as ('x') stored)",
                 {"column_map": {"event_type": "what"}}, "GENERATED ALWAYS", "column_map"),
    "computed_id": ("create table t (event_id text generated always as ('x') stored unique, "
                    "payload jsonb)", {}, "GENERATED ALWAYS", "column_map"),
    "identity": ("create table t (event_id bigint generated always as identity primary key, "
                 "payload jsonb)", {}, "GENERATED ALWAYS", "column_map"),
    "cut": (f"create table t ({GOOD}, source name)", {}, "cuts", 'column_map = {"source": ""}'),
    "one_letter": (f'create table t ({GOOD}, event_type "char")', {}, "cuts", "TYPE text"),
    "unlogged": (f"create unlogged table t ({GOOD})", {}, "UNLOGGED", "SET LOGGED"),
    "unlogged_part": (f"create table t ({GOOD}) partition by hash (event_id); create unlogged table "
                      "part partition of t for values with (modulus 1, remainder 0)", {}, "UNLOGGED",
                      "SET LOGGED"),
    "rule": (f"create table t ({GOOD}); create rule r as on insert to t do instead nothing", {},
             "rule", "DROP RULE"),
    "update_rule": (f"create table t ({GOOD}); create rule r as on update to t do instead nothing",
                    {}, "ON CONFLICT", ""),
    "joined": (f"create table b ({GOOD}); create view t as select b.* from b, b c", {},
               "takes no messages", ""),
    "material": (f"create table b ({GOOD}); create materialized view t as select * from b", {},
                 "neither a table", "url"),
    "secured": (f"create table t ({GOOD}); alter table t enable row level security", {},
                "row security", "FOR insert"),
    "write_only": (f"create table t ({GOOD}); alter table t enable row level security; "
                   "create policy p on t for insert with check (true)", {}, "row security",
                   "FOR select"),
    "serial": (f"create table t ({GOOD}, nr bigserial)", {}, "sequence",
               "GRANT USAGE ON SEQUENCE"),
}
LOOSE = "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
UNFIT |= {
    "loose": (f"{LOOSE}; create table t (event_id text collate loose primary key, payload jsonb)",
              {}, "nondeterministic", "COLLATE"),
    "loose_index": (f"{LOOSE}; create table t ({GOOD}); "
                    "create unique index i on t (event_id collate loose)", {},
                    "different ids equal", "CREATE UNIQUE INDEX"),
}
FIT = {
    "view": f"create table b ({GOOD}); create view t as select * from b",
    "parted": f"create table t ({GOOD}) partition by hash (event_id); "
              "create table t0 partition of t for values with (modulus 1, remainder 0)",
    "filled": f"create table t ({GOOD}, tenant int not null); "
              "create function f() returns trigger language plpgsql as $$ begin "
              "new.tenant := 1; return new; end $$; "
              "create trigger g before insert on t for each row execute function f()",
    "derived": f"create table t ({GOOD}, event_type text generated always as ('x') stored, "
               "source bigint generated always as identity)",
    "numbered": f"create table t ({GOOD}, nr bigint generated always as identity)",
    "watched": f"create table t ({GOOD}); alter table t enable row level security; "
               "create policy p on t using (true)",
    "domains": "create domain d as jsonb; create domain e as text; "
               "create table t (event_id e primary key, payload d)",
}


def test_a_table_that_cannot_take_messages_is_refused_when_it_is_opened(db, letters, relay):
    for name, (ddl, sink, _, _) in UNFIT.items():
        adopt(db, letters, name, ddl, **sink)
    for name, ddl in FIT.items():
        adopt(db, letters, name, ddl)
    send(letters, ("a", "1"), ("b", "2"))
    done = run_command("check", "--postgres-url", db.relay_dsn)
    with relay:
        wait_settled(db, letters, relay, *FIT)
        for name in FIT:
            assert f"{name}: pg-inbox answers" in done.stdout, done.stdout
            assert count(db, f"{name}.t") == 2, name
            assert dead(db, name) == []
        for name, (_, _, says, remedy) in UNFIT.items():
            entry = relay.wait_state(name, "misconfigured")
            told, = [line for line in (done.stdout + done.stderr).splitlines()
                     if re.search(rf"(^|\s){name}: opening the inbox", line)]
            assert says in entry["last_error"] and says in told, (name, entry, done.stdout)
            stored = eventually(lambda: db.one("select remedy from pgtrickle.relay_pipeline_status "
                                               "where pipeline = %s", (name,)))
            assert remedy in stored, (name, stored)
            assert dead(db, name) == [], name


# Conflicts --------------------------------------------------------------------------------------

PAYLOAD = "event_id text primary key, payload jsonb, event_type text, aggregate_id text"
MIXED = [("a", '{"n": 1}', "k"), ("a", '{"n": 1}', "k"), ("a", '{"n":1.0}', "k"),
         ("a", '{"n": 2}', "k"), ("b", "3", "k"), ("b", "3", "K"), ("b", "3", "k", "other"),
         ("c", RAW, "k"), ("c", RAW, "k"), ("c", RAW + RAW, "k")]
CONFLICTS = {
    # name: (columns, options of the sink, rows, conflicts, dead letters)
    "by_value": (PAYLOAD, {}, 7, 4, 0),
    "as_text": (PAYLOAD.replace("jsonb", "text"), {}, 8, 5, 0),
    "as_json": (PAYLOAD.replace("jsonb", "json"), {}, 8, 5, 0),
    "as_bytes": (PAYLOAD.replace("jsonb", "bytea"), {}, 8, 5, 0),
    "payload_only": ("event_id text primary key, payload jsonb", {}, 5, 2, 0),
    "refusing": (PAYLOAD, {"on_id_conflict": "reject"}, 3, 4, 4),
    "careless": (PAYLOAD, {"on_id_conflict": "ignore"}, 3, 4, 0),
    "no_room": (PAYLOAD.replace("event_id text", "event_id varchar(9)"), {}, 3, 4, 4),
    "one_by_one": (PAYLOAD, {"rows_per_statement": 1}, 7, 4, 0),
}


def conflicts_are_counted(relay, name, conflicts, again):
    """Messages that come once more may meet a conflict once more."""
    told = relay.metric("id_conflicts_total", pipeline=name)
    assert told == conflicts or again and told >= conflicts, (name, told)
    return True


def test_an_id_that_another_message_has_is_kept_and_told(db, letters, relay):
    for name, (columns, sink, *_) in CONFLICTS.items():
        adopt(db, letters, name, f"create table t ({columns})", **sink)
    send(letters, *MIXED)
    with relay:
        for again in range(2):
            wait_settled(db, letters, relay, *CONFLICTS)
            for name, (_, _, rows, conflicts, lost) in CONFLICTS.items():
                assert count(db, f"{name}.t") == rows, (name, again, relay.log(20))
                assert len(dead(db, name)) == lost, (name, again, dead(db, name))
                assert {code for _, code, _ in dead(db, name)} <= {"id_conflict"}
                eventually(lambda: conflicts_are_counted(relay, name, conflicts, again))
                lines = [line for line in relay.log_lines
                         if f"[{name}] id_conflict: " in line]
                assert len(lines) == (1 if rows > 3 else 0), (name, lines)
                assert not lines or f'"{name}"."t" has the id a already' in lines[0]
            # All of them once more: what was stored under a longer id is known by it.
            send(letters, *MIXED)
    assert {bytes(body) for _, _, body in dead(db, "refusing")} == {b'{"n": 2}', b"3", RAW + RAW}
    longer = [row[0] for row in db.execute("select event_id from by_value.t "
                                           "where event_id like 'a~%' and payload->>'n' = '2'")]
    assert len(longer) == 1 and len(longer[0]) == len("a~") + 16


def test_two_sources_with_equal_ids_lose_nothing_in_one_inbox(db, letters, relay):
    db.execute("select pgtrickle.create_inbox('shop')")
    for name, table in (("one", "letters"), ("two", "others")):
        send(letters, *[(str(n), json.dumps({"from": name})) for n in range(200)], table=table)
        receive(db, letters, name, "inbox_shop", table)
    with relay:
        wait_settled(db, letters, relay, "one")
        wait_settled(db, letters, relay, "two", table="others")
    assert collections.Counter(row[0] for row in db.execute(
        "select payload ->> 'from' from pgtrickle.inbox_shop")) == {"one": 200, "two": 200}
    assert dead(db, "one") == dead(db, "two") == []


# Triggers ---------------------------------------------------------------------------------------

TRIGGER = """create function f() returns trigger language plpgsql
             set search_path from current as $$ begin {} end $$;
             create trigger g before insert on t for each row execute function f()"""
CHILD = "create table child (unique (event_id)) inherits (t);"
TRIGGERS = {
    # name: (what the trigger does, further tables, rows in t, dead letters)
    "drops": ("if new.payload in ('2', '3') then return null; end if; return new;", "", 4, 2),
    "writes_elsewhere": ("insert into log values (new.event_id); return null;",
                         "create table log (id text); grant insert on log to pgtrickle_relay;",
                         0, 6),
    "routes": ("insert into child select new.*; return null;",
               CHILD + "grant insert on child to pgtrickle_relay;", 6, 0),
    "marks": ("new.payload := '{\"seen\": true}'; return new;", "", 6, 0),
    "renames": ("new.event_id := 'x-' || new.event_id; return new;", "", 6, 0),
    "makes_one": ("new.event_id := 'the same'; return new;", "", 1, 6),
    "lowers": ("new.event_id := lower(new.event_id); return new;", "", 5, 2),
}


def test_what_a_trigger_drops_is_a_dead_letter(db, letters, relay):
    for name, (body, tables, _, _) in TRIGGERS.items():
        adopt(db, letters, name, f"create table t ({PAYLOAD}); {tables} {TRIGGER.format(body)}")
    adopt(db, letters, "part", f"create table t ({PAYLOAD}) partition by list (event_id); "
          "create table rest partition of t default; create table e partition of t for values in "
          "('e'); " + TRIGGER.format("return null;").replace("on t ", "on e "))
    sent = [("A", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("a", "5"), ("e", "6")]
    send(letters, *sent)
    with relay:
        wait_settled(db, letters, relay, "part", *TRIGGERS)
    assert (count(db, "part.t"), dead(db, "part")) == (5, [("e", "row_dropped", b"6")])
    for name, (_, _, rows, lost) in TRIGGERS.items():
        letters_of = dead(db, name)
        assert count(db, f"{name}.t") == rows, (name, letters_of)
        assert len(letters_of) == lost, (name, letters_of)
        assert {code for _, code, _ in letters_of} <= {"row_dropped", "id_conflict"}, letters_of
        if name not in ("marks", "renames"):
            stored = {row[0].encode() for row in db.execute(f"select payload::text from {name}.t")}
            assert stored | {body for _, _, body in letters_of} == {b.encode() for _, b in sent}
    assert [code for _, code, _ in dead(db, "drops")] == ["row_dropped"] * 2


# Rows that are not seen -------------------------------------------------------------------------


def test_a_message_is_stored_whose_id_had_a_row_that_was_deleted_before_it_was_compared(db, letters, relay):
    """One session writes the row, and holds the insert up until another one waits for the table."""
    adopt(db, letters, "p", f"create table t ({PAYLOAD})")
    with relay, db.connect(autocommit=False) as writer, db.connect(autocommit=False) as locker:
        relay.wait_state("p", "idle", "running")
        writer.execute("insert into p.t values ('a', '1')")
        send(letters, ("a", "2"))

        def waits(what):
            return db.one("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                          f"and datname = current_database() and query ~ '{what}'") == 1
        eventually(lambda: waits("^insert into"), message=lambda: relay.log(20))
        deleting = threading.Thread(target=lambda: (
            locker.execute("lock table p.t; delete from p.t"), locker.commit()))
        deleting.start()
        eventually(lambda: waits("^lock table"))
        writer.commit()
        deleting.join()
        wait_settled(db, letters, relay, "p")
        assert dead(db, "p") == []
        assert db.execute("select event_id, payload::text from p.t") == [("a", "2")]
        assert relay.metric("duplicates_total", pipeline="p") == 0


def test_a_message_whose_row_is_hidden_is_a_dead_letter(db, letters, relay):
    adopt(db, letters, "p", f"create table t ({PAYLOAD}); alter table t enable row level security; "
          "create policy w on t for insert with check (true); "
          "create policy r on t for select using (aggregate_id is distinct from 'hidden')")
    send(letters, ("a", "1"), ("b", "2"))
    with relay:
        wait_settled(db, letters, relay, "p")
        db.execute("update p.t set aggregate_id = 'hidden' where event_id = 'a'")
        send(letters, ("a", "1"), ("b", "2"))
        wait_settled(db, letters, relay, "p")
    assert (count(db, "p.t"), dead(db, "p")) == (2, [("a", "id_conflict", b"1")])


# Every shape of table ---------------------------------------------------------------------------

BYTES = "event_id text primary key, payload bytea, aggregate_id text"
RAISES = TRIGGER.format("if new.payload = '3' then raise 'no three'; end if; return new;")
SHAPES = {
    # name: (how the table is made, whether each message is stored)
    "plain": (f"create table t ({BYTES})", True),
    "viewed": (f"create table b ({BYTES}); create view t as select * from b", False),
    "parted": (f"create table t ({BYTES}) partition by hash (event_id);"
               "create table t0 partition of t for values with (modulus 2, remainder 0);"
               "create table t1 partition of t for values with (modulus 2, remainder 1)", True),
    "inherited": (f"create table t ({BYTES}); create table child () inherits (t)", True),
    "routed": (f"create table t ({BYTES}); {CHILD} grant insert on child to pgtrickle_relay;"
               + TRIGGER.format("insert into child select new.*; return null;"), False),
    "short": (f"create table t ({BYTES.replace('text primary', 'varchar(5) primary')})", False),
    "checked": ("create domain d as text check (value <> 'i3');"
                f"create table t ({BYTES.replace('text primary', 'd primary')})", False),
    "raising": (f"create table t ({BYTES}); {RAISES}", False),
    "raising_late": (f"create table t ({BYTES});" + RAISES.replace(
        "create trigger g before insert on t",
        "create constraint trigger g after insert on t initially deferred"), False),
    "dropping": (f"create table t ({BYTES});" + TRIGGER.format(
        "if new.payload = '3' then return null; end if; return new;"), False),
    "lowering": (f"create table t ({BYTES});" + TRIGGER.format(
        "new.event_id := lower(new.event_id); return new;"), False),
    "foreign_key": ("create table k (id text primary key); insert into k values ('k1'); "
                    f"create table t ({BYTES} references k deferrable initially deferred);"
                    "grant select on k to pgtrickle_relay", False),
    "watched": (f"create table t ({BYTES}); alter table t enable row level security; "
                "create policy p on t using (true)", True),
}


@pytest.mark.parametrize("seed", range(40 if LONG else 1))
def test_each_distinct_message_is_stored_once_or_dead(db, letters, relay, seed):
    """Two sources with equal ids into tables of every shape, through kills of the relay."""
    rng = random.Random(seed)
    for name, (ddl, _) in SHAPES.items():
        adopt(db, letters, name, ddl)
        receive(db, letters, f"{name}_too", f"{name}.t", "others")
    sent = set()
    for _ in range(5 if LONG else 2):
        relay.start()
        for table in ("letters", "others"):
            messages = [(rng.choice("iI") + str(rng.randrange(9))
                         + rng.choice(["", "", " ", "-long"]),
                         str(rng.randrange(6)), rng.choice(["k1", "k2"]))
                        for _ in range(150 if LONG else 50)]
            sent |= {(identity, key, body.encode()) for identity, body, key in messages}
            send(letters, *messages, table=table)
        eventually(lambda: count(db, "plain.t") > 0)
        relay.kill9()
    with relay:
        for name in SHAPES:
            wait_settled(db, letters, relay, name)
            wait_settled(db, letters, relay, f"{name}_too", table="others")
    longer = r"~[0-9a-f]{16}$"
    for name, (_, complete) in SHAPES.items():
        stored = db.execute(f"select regexp_replace(event_id, '{longer}', ''), aggregate_id, "
                            f"payload from {name}.t")
        lost = {(re.sub(longer, "", identity), key, bytes(body)) for identity, key, body in
                db.execute("select message_id, key, payload from pgtrickle.relay_dlq "
                           "where pipeline in (%s, %s)", (name, f"{name}_too"))}
        kept = collections.Counter((identity, key, bytes(body)) for identity, key, body in stored)
        assert name == "lowering" or set(kept.values()) == {1}, (name, kept.most_common(2))
        if name == "lowering":
            assert {(i.lower(), *rest) for i, *rest in kept.keys() | lost} \
                == {(i.lower(), *rest) for i, *rest in sent}
        else:
            assert kept.keys() | lost == sent, (name, sent - kept.keys() - lost)
        assert not complete or not lost, (name, lost)
