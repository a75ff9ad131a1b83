"""Streaming from a logical slot: what is committed comes whole, once and in the order of the
commits, and what cannot work is refused with its remedy."""

import json
import subprocess
import threading

import psycopg
import pytest
from support.postgres import PostgresServer
from support.processes import Process
from support.replication import Replica, Stream, count_kinds, probe, probe_binary
from support.waiting import eventually, holds_for


@pytest.fixture(scope="module")
def server():
    server = PostgresServer("replication", settings={"wal_sender_timeout": "'2s'"}).start()
    yield server
    server.stop_immediate()


@pytest.fixture
def database(server):
    database = server.create_database(template="template0")
    database.execute("create table orders (id bigint primary key, note text, amount numeric)")
    database.execute("create publication p for all tables")
    yield database
    for (slot,) in database.execute("select slot_name from pg_replication_slots "
                                    "where database = current_database() and not temporary"):
        eventually(lambda slot=slot: dropped(database, slot))
    database.drop()


def dropped(database, slot):
    try:
        database.execute("select pg_drop_replication_slot(%s)", (slot,))
        return True
    except psycopg.errors.ObjectInUse:
        return False


def make_slot(database, name="s"):
    name = f"{name}_{database.name}"
    assert "snapshot" in probe(database.dsn, "create", name)
    return name


def table_of(database, columns="id, note, amount"):
    """The rows of `orders` as texts, by id."""
    names = [name.strip() for name in columns.split(",")]
    texts = ", ".join(f"{name}::text" for name in names)
    return {row[0]: dict(zip(names, row))
            for row in database.execute(f"select {texts} from orders")}


def test_each_kind_of_change_arrives_as_it_was_made(database):
    database.execute("alter table orders alter note set storage external")
    slot = make_slot(database)
    long = "x" * 9000
    with Stream(database.dsn, slot, "p", "messages", "confirm") as stream:
        database.execute("insert into orders values (1, %s, 1.50), (2, null, null)", (long,))
        database.execute("update orders set amount = 2 where id = 1")
        database.execute("update orders set id = 3 where id = 1")
        database.execute("delete from orders where id = 2")
        database.execute("select pg_logical_emit_message(true, 'audit', 'é\"')")
        database.execute("select pg_logical_emit_message(false, 'now', 'n')")
        database.execute("truncate orders restart identity")
        eventually(lambda: stream.changes("truncate"))
    inserted = stream.changes("insert")
    assert inserted[0]["new"] == {"id": "1", "note": long, "amount": "1.50"}
    assert inserted[1]["new"] == {"id": "2", "note": None, "amount": None}
    plain, moved = stream.changes("update")
    unchanged = {"unchanged": True}
    assert (plain["before"], plain["new"]) == ("none", {"id": "1", "note": unchanged, "amount": "2"})
    assert (moved["before"], moved["old"]["id"], moved["new"]["id"]) == ("key", "1", "3")
    assert [event["old"]["id"] for event in stream.changes("delete")] == ["2"]
    assert [event["content"] for event in stream.changes("message")] == ['é"']
    assert [event["content"] for event in stream.outside if event.get("kind") == "message"] == ["n"]
    truncated = stream.changes("truncate")[0]
    assert (truncated["tables"], truncated["restart"]) == (["public.orders"], True)


def test_the_old_row_comes_where_the_table_says_so(database):
    database.execute("alter table orders replica identity full")
    slot = make_slot(database)
    with Stream(database.dsn, slot, "p") as stream:
        database.execute("insert into orders values (1, 'a', 1)")
        database.execute("update orders set note = 'b'")
        database.execute("delete from orders")
        eventually(lambda: stream.changes("delete"))
    update, removal = stream.changes("update", "delete")
    assert (update["before"], update["old"]["note"], update["new"]["note"]) == ("row", "a", "b")
    assert (removal["before"], removal["old"]["note"]) == ("row", "b")


def test_values_come_in_binary_form_where_asked_for(database):
    slot = make_slot(database)
    with Stream(database.dsn, slot, "p", "binary") as stream:
        database.execute("insert into orders values (258, 'a', null)")
        eventually(lambda: stream.changes("insert"))
    assert stream.changes("insert")[0]["new"] == {
        "id": {"binary": "0000000000000102"}, "note": {"binary": "61"}, "amount": None}


def test_a_changed_table_is_described_again(database):
    slot = make_slot(database)
    database.execute("create type mood as enum ('good')")
    with Stream(database.dsn, slot, "p") as stream:
        with database.connect(autocommit=False) as session:
            session.execute("insert into orders values (1, 'a', 1)")
            session.execute("alter table orders add feeling mood default 'good'")
            session.execute('alter table orders rename note to "Note ""2"""')
            session.execute("insert into orders values (2, 'b', 2)")
            session.execute("alter table orders drop amount")
            session.execute("insert into orders values (3, 'c')")
        eventually(lambda: len(stream.changes("insert")) == 3)
    assert [event["new"] for event in stream.changes("insert")] == [
        {"id": "1", "note": "a", "amount": "1"},
        {"id": "2", 'Note "2"': "b", "amount": "2", "feeling": "good"},
        {"id": "3", 'Note "2"': "c", "feeling": "good"}]


def test_transactions_come_whole_and_in_the_order_of_their_commits(database):
    slot = make_slot(database)
    with Stream(database.dsn, slot, "p") as stream:
        with database.connect(autocommit=False) as first, \
                database.connect(autocommit=False) as second:
            first.execute("insert into orders values (1)")
            second.execute("insert into orders values (2)")
            first.execute("savepoint a")
            first.execute("insert into orders values (3)")
            first.execute("rollback to a")
            second.execute("prepare transaction 'two'")
            second.commit()
            first.execute("insert into orders values (4)")
            first.commit()
        database.execute("insert into orders values (5)")
        database.execute("commit prepared 'two'")
        eventually(lambda: len(stream.changes("insert")) == 4)
    assert [event["new"]["id"] for event in stream.changes("insert")] == ["1", "4", "5", "2"]


WRITERS, TRANSACTIONS = 6, 40


def write(database, number):
    """Random-looking transactions on keys of its own; every fifth is rolled back."""
    with database.connect(autocommit=False) as session:
        for step in range(TRANSACTIONS):
            for row in range(1 + step % 4):
                key = number * 1000 + (step * 7 + row * 3) % 50
                session.execute("insert into orders values (%s, %s, %s) on conflict (id) do update "
                                "set note = excluded.note, amount = excluded.amount",
                                (key, "x" * (step * 97 % 5000), step))
            if step % 3 == 0:
                session.execute("delete from orders where id = %s", (number * 1000 + step % 50,))
            session.rollback() if step % 5 == 4 else session.commit()


def test_a_copy_made_from_the_snapshot_and_the_stream_equals_the_table_under_writers(database):
    database.execute("alter table orders alter note set storage external")
    database.execute("insert into orders select i, repeat('y', 3000), i from generate_series(1, 100) i")
    writers = [threading.Thread(target=write, args=(database, number))
               for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    slot = f"copy_{database.name}"
    maker = Process([probe_binary(), database.dsn, "create", slot], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE)
    try:
        made = json.loads(maker._popen.stdout.readline())
        with database.connect(autocommit=False) as reader:
            reader.execute("set transaction isolation level repeatable read")
            reader.execute(f"set transaction snapshot '{made['snapshot']}'")
            rows = reader.execute("select id::text, note, amount::text from orders").fetchall()
    finally:
        maker._popen.stdin.close()
        maker.wait(20)
    replica = Replica("id")
    replica.rows = {row[0]: dict(zip(("id", "note", "amount"), row)) for row in rows}
    with Stream(database.dsn, slot, "p", "confirm") as stream:
        for writer in writers:
            writer.join()
        database.execute("insert into orders values (-1)")
        eventually(lambda: any(event["new"]["id"] == "-1" for event in stream.changes("insert")), 30)
    replica.take(stream.changes("insert", "update", "delete", "truncate"))
    assert replica.rows == table_of(database)


def test_what_was_confirmed_does_not_come_again_and_all_else_does(database):
    slot = make_slot(database)
    database.execute("insert into orders values (1)")
    with Stream(database.dsn, slot, "p", "confirm") as stream:
        eventually(lambda: len(stream.changes("insert")) == 1)
        eventually(lambda: database.one(
            "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s",
            (stream.transactions[0][-1]["end"], slot)))
    database.execute("insert into orders values (2)")
    with Stream(database.dsn, slot, "p") as stream:
        eventually(lambda: len(stream.changes("insert")) == 1)
    with Stream(database.dsn, slot, "p") as stream:
        eventually(lambda: len(stream.changes("insert")) == 1)
    assert [event["new"]["id"] for event in stream.changes("insert")] == ["2"]


def test_a_session_without_changes_stays(database):
    slot = make_slot(database)
    session = "select pid from pg_stat_replication where application_name = 'replication_probe'"
    with Stream(database.dsn, slot, "p") as stream:
        pid = eventually(lambda: database.one(session))
        holds_for(lambda: database.one(session) == pid, 5)  # wal_sender_timeout is 2 s
        assert stream.error is None


def test_a_large_transaction_is_streamed_in_little_memory(database):
    slot = make_slot(database)
    database.execute("insert into orders select i, repeat('x', 100), i "
                     "from generate_series(1, 200000) i")
    peak = 0
    with Stream(database.dsn, slot, "p", "confirm") as stream:
        eventually(lambda: stream.transactions, 60)
        with open(f"/proc/{stream.process.pid}/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert count_kinds(stream.transactions[0])["insert"] == 200000
    assert peak < 24 * 1024, f"{peak} KiB"


# What cannot work ---------------------------------------------------------------------------------

def test_the_end_of_the_server_ends_the_stream_with_a_transient_error(database):
    own = PostgresServer("replication-end").start()
    try:
        own_database = own.create_database(template="template0")
        own_database.execute("create publication p for all tables")
        slot = make_slot(own_database)
        with Stream(own_database.dsn, slot, "p") as stream:
            own.kill9()
            eventually(lambda: stream.error)
    finally:
        if own.process:
            own.stop_immediate()
    assert stream.error["class"] == "transient"


def test_a_terminated_session_is_a_transient_error(database):
    slot = make_slot(database)
    with Stream(database.dsn, slot, "p") as stream:
        eventually(lambda: database.one("select pg_terminate_backend(active_pid) "
                                        "from pg_replication_slots where slot_name = %s", (slot,)))
        eventually(lambda: stream.error)
    assert stream.error["class"] == "transient"


def test_a_slot_that_another_session_uses_is_named(database):
    slot = make_slot(database)
    with Stream(database.dsn, slot, "p"):
        with Stream(database.dsn, slot, "p") as other:
            eventually(lambda: other.error)
    assert other.error["code"] == "55006"


def test_a_missing_slot_is_named(database):
    with Stream(database.dsn, "nowhere", "p") as stream:
        eventually(lambda: stream.error)
    assert stream.error["code"] == "42704"
    assert "nowhere" in stream.error["error"]


def test_a_role_without_replication_is_refused_with_the_remedy(database):
    dsn = database.login("no_replication")
    refused = probe(dsn, "create", "s")
    assert refused["class"] == "misconfigured"
    assert "REPLICATION" in refused["remedy"]


@pytest.mark.parametrize("settings, remedy", [
    ({"wal_level": "replica"}, "wal_level = logical"),
    ({"max_replication_slots": 0}, "max_replication_slots"),
    ({"max_wal_senders": 0, "wal_level": "logical"}, "max_wal_senders"),
], ids=["wal level", "slots", "senders"])
def test_a_server_that_is_not_set_up_is_refused_with_the_remedy(settings, remedy):
    server = PostgresServer("replication-off", settings=settings).start()
    try:
        refused = probe(server.dsn("postgres"), "create", "s")
    finally:
        server.stop_immediate()
    assert refused["class"] == "misconfigured"
    assert remedy in refused["remedy"], refused


def test_names_are_quoted(database):
    database.execute("""create publication "a""b'c D" for table orders""")
    slot = make_slot(database)
    with Stream(database.dsn, slot, """a"b'c D""") as stream:
        database.execute("insert into orders values (1)")
        eventually(lambda: stream.changes("insert"))
    refused = probe(database.dsn, "create", "Not a slot's name")
    assert refused["code"] == "42602"


def test_the_cluster_is_identified(database):
    system = probe(database.dsn, "system")
    assert system["identifier"] == str(
        database.one("select system_identifier from pg_control_system()"))
    assert system["timeline"] == 1


def test_a_slot_can_be_temporary_and_can_be_dropped(database):
    probe(database.dsn, "create", f"t_{database.name}", "temporary")
    slot = make_slot(database)
    slots = "select slot_name from pg_replication_slots where database = current_database()"
    eventually(lambda: database.execute(slots) == [(slot,)])
    probe(database.dsn, "drop", slot)
    assert database.execute(slots) == []
