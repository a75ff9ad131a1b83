"""Code that the owner of a captured table or an adopted inbox plants there runs with the rights of that
owner or of the writer."""

import contextlib

import psycopg
import pytest

from support import attacks
from support.attacks import SANDBOX, watching
from support.trapped_database import land, make_inbox, run_as


def outbox_of(db, table):
    return db.one("select format('pgtrickle.%%I', outbox_table_name) "
                  "from pgtrickle.pgt_outbox_config where stream_table_oid = %s::regclass", (table,))


# What is planted on a captured table ---------------------------------------------------------

def plant(db, role, name, table):
    run_as(db, role, attacks.TABLE_PLANTS[name].format(t=table, w=f"'{name}'"))


HIDDEN = {"rules"} | {name for name in attacks.TABLE_PLANTS if "instead of the table" in name
                      or "view" in name}


@pytest.mark.parametrize("name", attacks.TABLE_PLANTS)
def test_what_a_table_owner_plants_runs_as_its_writer_at_most(land, name):
    """The owner's own triggers run as the role that writes, as everywhere in PostgreSQL."""
    table = "captured_" + name.replace(" ", "_")
    run_as(land, "mallory", f"create table {table} (id int primary key, n int)",
           f"grant select, insert, update, delete, truncate on {table} to app",
           f"select pgtrickle.enable_outbox('{table}')")
    plant(land, "mallory", name, table)
    outbox = land.one("select format('pgtrickle.%%I', outbox_table_name) "
                      "from pgtrickle.pgt_outbox_config where stream_table_name = %s", (table,))
    with watching(land, "app", SANDBOX, what=name):
        if name not in HIDDEN:
            run_as(land, "app", f"insert into {table} (id, n) values (1, 1), (2, 2)",
                   f"update {table} set n = n + 1", f"delete from {table} where id = 1")
            assert land.execute(f"select tg_op, inserted_count, deleted_count from {outbox} "
                                "order by id") == [("INSERT", 2, 0), ("UPDATE", 2, 2),
                                                   ("DELETE", 0, 1)]
    # What a superuser, an administrator and housekeeping do about it runs none of it.
    with watching(land, SANDBOX, what=name):
        for statement in ("select pgtrickle.outbox_capture_upkeep()",
                          f"select pgtrickle.outbox_full_refresh('{outbox}')",
                          f"select pgtrickle.outbox_status('{outbox}')",
                          f"select pgtrickle.disable_outbox('{outbox}')",
                          f"select pgtrickle.enable_outbox('{table}')",
                          f"select pgtrickle.outbox_full_refresh('{table}')"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, "boss", statement)
        run_as(land, "relay_daemon", "select pgtrickle.relay_housekeeping()")
        with contextlib.suppress(psycopg.Error):
            run_as(land, "mallory", f"select pgtrickle.outbox_full_refresh('{table}')")
    if name not in HIDDEN:
        with watching(land, "app", SANDBOX, what=name):
            run_as(land, "app", f"truncate {table}" if name != "cascade" else "select 1")
    with contextlib.suppress(psycopg.Error):
        land.execute(f"select pgtrickle.disable_outbox('{outbox}')")


def tells_of_truncate(db, table, outbox, deleted):
    """Whether the rows, a full refresh, or at least the catalog says what a TRUNCATE removed.

    Housekeeping may have to say it.
    """
    for _ in range(3):
        if db.one(f"select exists (select from {outbox} where tg_op is distinct from 'INSERT' "
                  "and (deleted_count = %s or payload ? 'full_refresh'))", (deleted,)) \
           or db.one("select problem from pgtrickle.pgt_outbox_config "
                     "where stream_table_name = %s", (table,)):
            return True
        run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
    return False


LEAF_PLANTS = ["policies", "index expression", "index predicate", "statistics",
               "check constraint", "truncate triggers", "deferred constraint trigger"]


@pytest.mark.parametrize("name", LEAF_PLANTS)
def test_what_the_owner_of_a_partition_plants_runs_as_its_writer_at_most(land, name):
    """A TRUNCATE of a partition, one that is detached, and one that is attached with rows."""
    table = "tree_" + name.replace(" ", "_")
    word = f"'partition: {name}'"
    run_as(land, "mallory", f"create table {table} (id int primary key, n int) "
           "partition by range (id)",
           f"create table {table}_1 partition of {table} for values from (0) to (10)",
           f"create table {table}_2 partition of {table} for values from (10) to (20)",
           f"grant all on {table}, {table}_1, {table}_2 to app",
           "set client_min_messages = error",
           f"select pgtrickle.enable_outbox('{table}', capture => 'statement')",
           *(attacks.TABLE_PLANTS[name].format(t=f"{table}_{n}", w=word) for n in (1, 2)),
           f"create table {table}_3 (id int primary key, n int)",
           attacks.TABLE_PLANTS[name].format(t=f"{table}_3", w=word))
    outbox = outbox_of(land, table)
    with watching(land, "app", SANDBOX, what=word.strip("'")):
        run_as(land, "app", f"insert into {table} values (1, 1), (11, 1)")
        run_as(land, "app", f"truncate {table}_1")
        assert tells_of_truncate(land, table, outbox, deleted=1)
    with watching(land, SANDBOX, what=word.strip("'")):
        run_as(land, "mallory", f"insert into {table}_3 values (21, 1)",
               f"alter table {table} detach partition {table}_2")
        with contextlib.suppress(psycopg.Error):
            run_as(land, "mallory", f"alter table {table} attach partition {table}_3 "
                   "for values from (20) to (30)")
        for role in ("relay_daemon", "boss", "mallory"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, role, "select pgtrickle.relay_housekeeping()")
        for role in ("boss", "mallory"):
            with contextlib.suppress(psycopg.Error):
                run_as(land, role, "select pgtrickle.outbox_capture_upkeep()")
    land.execute(f"drop table {table}, {table}_2 cascade; drop table if exists {table}_3 cascade")


UNREADABLE = {
    "row security": "alter table {p} enable row level security; "
                    "create policy h on {p} using (false)",
    "forced row security": "alter table {p} enable row level security; "
                           "alter table {p} force row level security; "
                           "create policy h on {p} using (id > 5)",
    "no grant to our roles": "revoke all on {p} from pgtrickle_owner, public",
    "another owner": "revoke all on {p} from pgtrickle_owner; alter table {p} owner to eve",
    "an owner who may not read": "revoke all on {p} from pgtrickle_owner, mallory",
}


@pytest.mark.parametrize("why", UNREADABLE)
def test_truncate_of_a_partition_succeeds_whatever_may_be_read(land, why):
    """It is recorded: by the rows, or by what tells a reader that rows are gone."""
    table = "unreadable_" + why.replace(" ", "_")
    run_as(land, "mallory", "set client_min_messages = error",
           f"create table {table} (id int primary key) partition by range (id)",
           f"create table {table}_1 partition of {table} for values from (0) to (10)",
           f"grant all on {table}, {table}_1 to app",
           f"select pgtrickle.enable_outbox('{table}', capture => 'statement')",
           f"insert into {table} values (1), (9)")
    outbox = outbox_of(land, table)
    land.execute(UNREADABLE[why].format(p=f"{table}_1"))
    run_as(land, "app", f"truncate {table}_1")
    assert tells_of_truncate(land, table, outbox, deleted=2)


@pytest.mark.parametrize("capture", ["statement", "row"])
@pytest.mark.parametrize("owner", ["boss", "mallory"])
def test_no_cast_of_a_type_in_a_captured_table_runs_at_a_write(pg_server, owner, capture):
    db = pg_server.create_database()
    try:
        attacks.prepare(db)
        db.execute(attacks.TYPES)
        db.execute("grant create on schema eve to mallory")
        columns = {f"c{n}": column for n, column in enumerate(attacks.TYPE_COLUMNS.values())}
        definition = ", ".join(f"{name} eve.{column}" for name, column in columns.items())
        run_as(db, owner, f"create table typed (id int primary key, {definition})",
               "grant insert, select, update, delete, truncate on typed to app",
               f"select pgtrickle.enable_outbox('typed', capture => '{capture}')")
        db.execute(attacks.CASTS)
        values = ", ".join(attacks.VALUES[column] for column in columns.values())
        for writer in ("app", "boss"):
            # The check of a domain runs as the role that writes a value of it.
            with watching(db, writer) as watch:
                with db.connect(user=writer) as connection:
                    connection.execute(f"insert into typed values (1, {values}), (2, {values})")
                    connection.execute("update typed set c0 = 'happy' where id = 1")
                    connection.execute("delete from typed where id = 1")
                    connection.execute("insert into typed (id) values (3)")
                assert {what for what, *_ in watch.ran()} <= {"check of a domain"}
            with watching(db):
                run_as(db, owner, "select pgtrickle.outbox_full_refresh('typed')")
                run_as(db, "relay_daemon", "select pgtrickle.relay_housekeeping()")
                run_as(db, owner, "truncate typed")
        outbox = outbox_of(db, "typed")
        row = db.one(f"select payload -> 'inserted' -> 0 from {outbox} order by id limit 1")
        rows = db.execute(f"select row_data from {outbox} o, pgtrickle.outbox_rows('typed', o.id) "
                          "order by o.id, row_num")
        assert rows[0][0] == row and row["id"] == 1 and row["c0"] == "sad", rows
        assert row["c1"] in (["sad", "happy"], "{sad,happy}"), row
    finally:
        db.drop()


# What is planted on an adopted inbox ---------------------------------------------------------

MARKS = ["select pgtrickle.inbox_mark_processed('{t}', 'a')",
         "select pgtrickle.inbox_mark_failed('{t}', 'b', 'no')",
         "select pgtrickle.replay_inbox_messages('{t}', '{{a,b}}')",
         "select pgtrickle.inbox_mark_processed('{t}', 'a')",
         "select pgtrickle.inbox_mark_processed('{t}', 'c')",
         "select pgtrickle.inbox_health('{t}')", "select pgtrickle.inbox_status('{t}')",
         "select pgtrickle.inbox_status()"]


def use_inbox(db, table):
    """What administrators, the relay and housekeeping do with an inbox; failing is allowed."""
    for role in ("boss", "clerk"):
        for statement in MARKS:
            with contextlib.suppress(psycopg.Error):
                run_as(db, role, statement.format(t=table))
    for by in (f"'{table}', null", f"null, 'public.{table}'", f"null, '{table}'"):
        with contextlib.suppress(psycopg.Error):
            run_as(db, "relay_daemon",
                   f"select pgtrickle.relay_open_inbox({by}, 4, null, true, 1)")
    with contextlib.suppress(psycopg.Error):    # the owner says that it was long ago
        run_as(db, "mallory", f"update {table} set processed_at = now() - interval '9 hours'")
    for role in ("relay_daemon", "boss"):
        run_as(db, role, "select pgtrickle.relay_housekeeping()")


@pytest.mark.parametrize("name", sorted(attacks.TABLE_PLANTS) + ["types"])
def test_what_an_inbox_owner_plants_runs_as_the_owner(land, name):
    table = "adopted_" + name.replace(" ", "_")
    word = f"'inbox: {name}'"
    if name == "types":
        run_as(land, "mallory", attacks.INBOX_TYPES.format(t=table, w=word))
        make_inbox(land, table, [f"{table}_{kind}" for kind in ("id", "when", "count", "note",
                                                                "body")])
    else:
        make_inbox(land, table)
        run_as(land, "mallory", attacks.TABLE_PLANTS[name].replace("references {t}",
                                                                   "references {t} (id)")
               .format(t=table, w=word))
    try:
        with watching(land, SANDBOX, what=f"inbox: {name}"):
            use_inbox(land, table)
    finally:
        land.execute("delete from pgtrickle.pgt_inbox_config where inbox_name = %s", (table,))


def test_an_honest_adopted_inbox_is_marked_and_purged_whatever_is_planted_on_others(land):
    make_inbox(land, "honest")
    use_inbox(land, "honest")
    assert land.execute("select * from honest") == []
