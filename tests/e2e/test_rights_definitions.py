"""Definitions that change between two writes, our roles, tables with parts of other owners, and old
snapshots: no statement fails and no code of another owner runs."""

import contextlib

import psycopg
import pytest

from support import attacks
from support.attacks import SANDBOX, watching
from support.trapped_database import TURNED, harbour, run_as, seen, town


# Definitions that change between two writes, or before a write in its transaction --------------

CHANGES = [
    "alter type mood add value 'new'", "update d set m = 'new' where id = 1",
    "alter type mood rename value 'a' to 'aa'", "alter type mood rename to humour",
    "alter type comp add attribute y text", "insert into d values (2, 1, 'aa', '(1,aa,q)')",
    "begin; alter type comp drop attribute y; update d set n = 5; commit",
    "begin; alter table d drop column n; update d set m = 'b'; alter table d add column n text "
    "default 'q'; alter table d rename n to k; update d set k = 'x'; insert into d (id) values (99);"
    " commit",
    "begin; alter table d rename to e; insert into e (id) values (100); create schema s2; "
    "alter table e set schema s2; insert into s2.e (id) values (101); alter schema s2 rename to s3; "
    "insert into s3.e (id) values (102); commit; alter table s3.e rename to d; "
    "alter table s3.d set schema public",
    "begin; alter table d drop column c; drop type comp cascade; insert into d (id) values (103); "
    "commit",
    "begin; alter table d alter m type text using m::text; drop type humour; "
    "insert into d (id, m) values (104, 'free'); commit",
    "create type humour as enum ('free', 'b', 'aa', 'new', 'a', 'z')",
    "begin; alter table d alter m type humour using m::humour; insert into d (id, m) values "
    "(105, 'z'); commit",
    "begin; alter table d rename id to ident; insert into d (ident) select generate_series(200, 210);"
    " delete from d where ident >= 200; commit",
    "begin; alter table d drop constraint d_pkey; alter table d alter ident type text "
    "using ident::text; insert into d (ident) values ('x'); commit",
    "begin; alter table d owner to mallory; insert into d (ident) values ('y'); commit",
    "begin; create type pair as (a int, b humour); alter table d add p pair, add ps pair[]; "
    "insert into d (ident, p, ps) values ('z', '(1,b)', array['(1,b)'::pair]); commit",
    "begin; alter type pair add attribute c int; insert into d (ident, p) values ('zz', '(1,b,3)'); "
    "commit",
    "reassign owned by mallory to eve", "insert into d (ident) values ('w')",
    "copy (select 1) to '/dev/null'",
    "begin; savepoint s; alter table d add gone int; insert into d (ident, gone) values ('r', 1); "
    "rollback to s; insert into d (ident) values ('s'); commit",
    "begin; insert into d (ident) values ('p'); prepare transaction 'rights'",
    "commit prepared 'rights'",
    "begin; set constraints all immediate; insert into d (ident) values ('c'); commit",
    "begin isolation level serializable; insert into d (ident) values ('i'); commit",
    "truncate d", "insert into d (ident) values ('last')"]


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("large", [False, True])
def test_no_change_of_a_definition_makes_a_statement_fail_or_its_record_wrong(pg_server, capture,
                                                                              large):
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        limit = "inline_threshold_rows => 1, inline_threshold_bytes => 1" if large else \
            "inline_threshold_rows => 1000"
        db.execute(f"""
            create type mood as enum ('a', 'b');
            create type comp as (x int, m mood);
            create table d (id int primary key, n int, m mood, c comp);
            select pgtrickle.enable_outbox('d', {limit}, capture => '{capture}');
            insert into d values (1, 1, 'a', '(1,a)')""")
        with db.connect() as connection:
            for change in CHANGES:
                connection.execute(change)
        outbox = db.one("select format('pgtrickle.%I', outbox_table_name) "
                        "from pgtrickle.pgt_outbox_config where stream_table_name = 'd'")
        entries = db.execute(f"""select o.tg_op, o.inserted_count, o.deleted_count,
            (select jsonb_agg(r.row_data order by r.row_num)
             from pgtrickle.outbox_rows('{outbox.split('.')[1]}', o.id) r where r.row_op = 'INSERT')
            from {outbox} o order by o.id""")
        rows = [row for _, _, _, inserted in entries for row in inserted or []]
        assert {"m": "new", "id": 1, "n": 1, "c": {"m": "a", "x": 1}} in rows, rows
        assert [r["m"] for r in rows if r.get("id") in (104, 105)] == ["free", "z"]
        assert [r["ident"] for r in rows if "ident" in r and isinstance(r["ident"], str)] \
            == ["x", "y", "z", "zz", "w", "s", "p", "c", "i", "last"]
        assert [r["p"] for r in rows if r.get("ident") in ("z", "zz")] == [
            {"a": 1, "b": "b"}, {"a": 1, "b": "b", "c": 3}]
        assert [op for op, *_ in entries][-2:] == ["TRUNCATE", "INSERT"]
    finally:
        db.drop()


# Our roles -----------------------------------------------------------------------------------

def test_our_roles_own_and_may_do_no_more_than_they_are_for(town):
    """A role that runs next to code of users must have nothing that the code could use."""
    assert town.execute("""
        select rolname from pg_roles
        where rolname like 'pgtrickle%' and (rolcanlogin or rolsuper or rolcreaterole
              or rolcreatedb or rolreplication or rolbypassrls)""") == []
    assert set(town.execute("""
        select m.member::regrole::text, m.roleid::regrole::text from pg_auth_members m
        where m.member::regrole::text like 'pgtrickle%'""")) <= {
            ("pgtrickle_admin", "pgtrickle_relay"), ("pgtrickle_admin", "pgtrickle_publisher"),
            ("pgtrickle_admin", "pgtrickle_consumer"),
            ("pgtrickle_observer", "pg_read_all_stats"), ("pgtrickle_owner", "pgtrickle_capture")}
    owned = set(town.execute("""
        select d.refobjid::regrole::text, pg_describe_object(d.classid, d.objid, 0)
        from pg_shdepend d
        where d.deptype = 'o' and d.refclassid = 'pg_authid'::regclass
          and d.dbid = (select oid from pg_database where datname = current_database())
          and d.refobjid::regrole::text in ('pgtrickle_capture', 'pgtrickle_sandbox',
                                            'pgtrickle_relay', 'pgtrickle_publisher',
                                            'pgtrickle_consumer', 'pgtrickle_admin')"""))
    assert {role for role, _ in owned} == {"pgtrickle_capture", "pgtrickle_sandbox"}
    assert [thing for role, thing in owned if role == "pgtrickle_capture"
            and not thing.startswith("function pgtrickle_internal.capture_")] == []
    assert [thing for role, thing in owned if role == "pgtrickle_sandbox"
            and not thing.startswith("function pgtrickle_gate.call_as_")] == []
    # What runs with rights of ours may not be called by PUBLIC.
    assert town.execute("""
        select p.oid::regprocedure::text from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_gate')
          and (p.proacl is null or exists (select from aclexplode(p.proacl) a
                                           where a.grantee = 0))""") == []


def test_the_right_to_attach_capture_functions_follows_the_table(harbour):
    """A new owner makes and attaches partitions; the one before, and administrators, may not."""
    harbour.execute("""
        drop table if exists moved cascade;
        create table moved (id int primary key, n int) partition by range (id);
        create table moved_1 partition of moved for values from (0) to (10);
        grant usage on schema pgtrickle to eve;
        alter table moved owner to mallory; alter table moved_1 owner to mallory""")
    run_as(harbour, "mallory", "select pgtrickle.enable_outbox('moved', capture => 'statement')")
    number = harbour.one("select outbox_number from pgtrickle.pgt_outbox_config "
                         "where stream_table_name = 'moved'")
    run_as(harbour, "mallory",
           "create table moved_2 partition of moved for values from (10) to (20)")
    harbour.execute("alter table moved owner to eve; alter table moved_1 owner to eve; "
                    "alter table moved_2 owner to eve")
    run_as(harbour, "relay_daemon", "select pgtrickle.relay_housekeeping()",
           "select pgtrickle.relay_housekeeping()")
    harbour.execute("select pgtrickle.outbox_capture_upkeep()")
    run_as(harbour, "eve", "create table moved_3 partition of moved for values from (20) to (30)",
           "create table moved_4 (id int primary key, n int)",
           "alter table moved attach partition moved_4 for values from (30) to (40)",
           "insert into moved values (1, 1), (11, 1), (21, 1), (31, 1)",
           "insert into moved_3 values (22, 1)", "update moved_4 set n = 2", "delete from moved")
    seen = {row["id"] for (payload,) in harbour.execute(
        "select payload from pgtrickle.outbox_moved order by id") for row in payload["inserted"]}
    assert seen >= {1, 11, 21, 22, 31}
    harbour.execute("drop table if exists hers; create table hers (id int, n int); "
                    "alter table hers owner to mallory")
    allowed = []
    for what in ("row", "insert", "truncate"):
        for role in ("mallory", "app"):
            if harbour.one("select has_function_privilege(%s, %s, 'execute')",
                           (role, f"pgtrickle_internal.capture_{number}_{what}()")):
                allowed.append((role, what))
    assert allowed == []
    harbour.execute("drop table moved cascade")


# A table of the superuser's with parts of others -------------------------------------------------

def test_the_owner_of_a_partition_runs_nothing_as_the_owner_of_the_table(pg_server):
    """What a reader's plan evaluates (indexes, statistics), and what a purge fires."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create table bt (id int primary key, n int) partition by range (id);
            create table bt_1 partition of bt for values from (0) to (10);
            create table bt_2 partition of bt for values from (10) to (20);
            create table box (event_id text primary key, payload jsonb, processed_at timestamptz,
                              error text, retry_count int) partition by list (event_id);
            create table box_1 partition of box default;
            alter table bt_1 owner to mallory; alter table bt_2 owner to mallory;
            alter table box_1 owner to mallory;
            set client_min_messages = error;
            select pgtrickle.enable_outbox('bt', capture => 'statement');
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into bt values (1, 1), (11, 1);
            insert into box (event_id, retry_count) values ('a', 0), ('b', 0), ('c', 0)""")
        with watching(db, SANDBOX):
            for table in ("bt_1", "bt_2", "box_1"):
                run_as(db, "mallory",
                       f"create index on {table} ((attack.immutable('index of a partition')))",
                       f"create index on {table} ({'n' if table != 'box_1' else 'error'}) "
                       "where attack.immutable('predicate of a partition')",
                       f"create statistics s_{table} on (attack.immutable('statistics')), "
                       f"{'id' if table != 'box_1' else 'event_id'} from {table}",
                       f"create trigger evil before update or delete on {table} for each row "
                       "execute function attack.row_trigger('trigger of a partition')")
            run_as(db, "mallory", "truncate bt_1")
            for role in ("clerk", "relay_daemon", "boss"):
                for statement in ("select pgtrickle.inbox_mark_failed('box', 'a', 'no')",
                                  "select pgtrickle.inbox_mark_processed('box', 'b')",
                                  "select pgtrickle.replay_inbox_messages('box', '{b}')",
                                  "select pgtrickle.inbox_health('box')",
                                  "select pgtrickle.relay_housekeeping()",
                                  "select pgtrickle.outbox_capture_upkeep()"):
                    with contextlib.suppress(psycopg.Error):
                        run_as(db, role, statement)
            run_as(db, "mallory", "update box_1 set processed_at = now() - interval '9 hours'")
            with contextlib.suppress(psycopg.Error):
                run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
            db.execute("alter table bt detach partition bt_2")
            for role in ("relay_daemon", "mallory"):
                with contextlib.suppress(psycopg.Error):
                    run_as(db, role, "select pgtrickle.relay_housekeeping()")
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_the_owner_of_a_type_runs_nothing_as_the_owner_of_an_inbox(pg_server):
    """A check that a domain gets after the superuser's table became an inbox."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create schema eve authorization eve; grant usage on schema eve to public;
            set role eve;
            create domain eve.id as text; create domain eve.note as text;
            create domain eve.count as int; create domain eve.moment as timestamptz;
            reset role;
            create table box (event_id eve.id primary key, payload jsonb, processed_at eve.moment,
                              error eve.note, retry_count eve.count default 0);
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into box (event_id) values ('a'), ('b'), ('c')""")
        run_as(db, "eve", *(f"alter domain eve.{domain} add check (attack.ran('of a {domain}'))"
                            for domain in ("id", "note", "count", "moment")))
        with watching(db, SANDBOX):
            for role in ("clerk", "relay_daemon"):
                for statement in ("select pgtrickle.inbox_mark_failed('box', 'a', 'no')",
                                  "select pgtrickle.inbox_mark_processed('box', 'b')",
                                  "select pgtrickle.replay_inbox_messages('box', '{b}')",
                                  "select pgtrickle.inbox_health('box')",
                                  "select pgtrickle.relay_housekeeping()"):
                    with contextlib.suppress(psycopg.Error):
                        run_as(db, role, statement)
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_no_function_of_the_sandbox_outlives_the_call_that_made_it(pg_server):
    """Otherwise its maker could drop the gate later, where nothing looks."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        run_as(db, "mallory", "create table src (id int)",
               "grant create, usage on schema mallory_own to public",
               "select pgtrickle.create_stream_table('hers', 'select id from src', null)")
        db.execute("alter default privileges in schema mallory_own grant execute on functions "
                   "to public")
        run_as(db, "mallory", TURNED.format(id=1, deed="""
            create function mallory_own.later() returns void language plpgsql security definer as
              'begin drop owned by pgtrickle_sandbox; end'"""))
        run_as(db, "boss", "select pgtrickle.refresh_stream_table('hers')")
        before = db.execute(attacks.DIGEST)
        with contextlib.suppress(psycopg.Error):
            run_as(db, "mallory", "select mallory_own.later()")
        assert set(db.execute(attacks.DIGEST)) == set(before)
        assert db.one("select count(*) from pg_proc p "
                      "join pg_namespace n on n.oid = p.pronamespace where p.proowner = 'pgtrickle_sandbox'::regrole "
                      "and n.nspname <> 'pgtrickle_gate'") == 0
    finally:
        db.drop()


# Snapshots that are older than the table's columns ---------------------------------------------

@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_write_under_an_old_snapshot_succeeds_and_runs_no_cast(pg_server, isolation):
    """The columns, their types' casts and our catalog changed after the snapshot was taken."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute(attacks.TYPES)
        db.execute("""
            create table d (id int primary key, n int);
            create table by_row (like d including all);
            create table tree (like d including all) partition by range (id);
            create table tree_1 partition of tree for values from (0) to (10);
            alter table d owner to boss; alter table by_row owner to boss;
            alter table tree owner to boss; alter table tree_1 owner to boss;
            set client_min_messages = error;
            select pgtrickle.enable_outbox('d'),
                   pgtrickle.enable_outbox('by_row', capture => 'row'),
                   pgtrickle.enable_outbox('tree', capture => 'statement');
            insert into tree values (1, 1);
            grant all on d, by_row, tree, tree_1 to app""")
        db.execute(attacks.CASTS)
        with watching(db) as watch:
            first, second = (db.connect(user="app", options="-c lock_timeout=5s")
                             for _ in range(2))
            with first, second:
                for connection in (first, second):
                    connection.execute(f"begin isolation level {isolation}")
                    connection.execute("select count(*) from pg_class")
                # What housekeeping does all the time, and a migration at any time.
                db.execute("""
                    update pgtrickle.pgt_outbox_config set last_drained_at = clock_timestamp();
                    alter table d add m eve.mood default 'sad';
                    alter table by_row add m eve.mood default 'sad';
                    alter table tree add m eve.mood default 'sad'""")
                for id_, connection in enumerate((first, second)):
                    connection.execute(f"insert into d (id) values ({id_})")
                    connection.execute(f"insert into by_row (id) values ({id_})")
                    connection.execute(f"insert into tree (id) values ({id_ + 5})")
                second.execute("rollback")
                first.execute("truncate tree_1")
                first.execute("commit")
            assert watch.ran() == set()
    finally:
        db.execute(attacks.UNDO)
        db.drop()


def test_a_table_that_references_an_inbox_runs_nothing_as_its_owner(pg_server):
    """Up to PostgreSQL 17 AFTER triggers of a cascade run as the role that deletes."""
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute("""
            create table box (event_id text primary key, payload jsonb, processed_at timestamptz,
                              error text, retry_count int default 0);
            grant references on box to mallory;
            select pgtrickle.enable_inbox_tracking('box', 'public.box', retention_hours => 1);
            insert into box (event_id, processed_at) values ('a', now() - interval '9 hours')""")
        run_as(db, "mallory", "create table hers (event_id text references box on delete cascade)",
               "create trigger evil after delete on hers for each row "
               "execute function attack.row_trigger('cascade')",
               "create trigger evil_too after delete on hers for each statement "
               "execute function attack.statement_trigger('cascade')",
               "insert into hers values ('a')")
        with watching(db, SANDBOX):
            run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
            run_as(db, "clerk", "select pgtrickle.relay_housekeeping()")
    finally:
        db.execute(attacks.UNDO)
        db.drop()
