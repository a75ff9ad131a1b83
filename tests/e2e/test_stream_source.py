"""The source `stream`: every committed event, in the order of the commits, whatever becomes of the
sink, of the replication slot and of the publication."""

import os
import shutil

import pytest
from support.standby import Standby
from support.stream_source import ALL_EVENTS, ids_in, lines_of, scene  # noqa: F401
from support.waiting import eventually


def test_what_was_committed_comes(scene):  # noqa: F811
    scene.insert()
    with scene.relay() as relay:
        scene.wait_delivered(1, relay)
        scene.insert(5)
        scene.wait_delivered(6, relay)
        assert scene.deliveries() == [1, 2, 3, 4, 5, 6]


def test_a_stopped_daemon_goes_on_where_it_was(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(3)
        scene.wait_delivered(3, relay)
    scene.insert(3)
    with scene.relay() as relay:
        scene.wait_delivered(6, relay)
        scene.insert(3)
        scene.wait_delivered(9, relay)
    assert scene.deliveries() == list(range(1, 10))


def test_an_outage_of_the_sink_holds_no_log_back(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        scene.sink.rules({"status": 503})
        scene.insert(100)
        for _ in range(10):
            scene.insert()
        scene.write_log(20)
        eventually(lambda: scene.retained() < 1000000, 20)
        # The first one may be settled while it is recorded; then it is deleted a moment later.
        eventually(lambda: scene.database.one("select sum(events) from pgstream.backlog") == 110)
        assert scene.database.execute(
            "select (e.payload -> 'new' ->> 'id')::int, e.created_at = s.failover_checkpoint_ts "
            f"from pgstream.streams s join {ALL_EVENTS} e on e.id = s.failover_checkpoint_id"
        ) == [(2, True)]
        scene.sink.rules()
        scene.wait_delivered(111, relay)
        eventually(lambda: scene.backlog() == 0)
        assert scene.stored("failover_checkpoint_id, failover_checkpoint_ts") == (None, None)
        scene.insert(3)
        scene.wait_delivered(114, relay)
        eventually(lambda: scene.retained() < 1000000, 20)
    assert scene.deliveries() == list(range(1, 115))


def test_a_slow_sink_holds_no_log_back(scene):  # noqa: F811
    scene.sink.rules({"delay": 0.02})
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        for _ in range(300):
            scene.insert()
        scene.write_log(20)
        eventually(lambda: scene.retained() < 1000000, 20)
        scene.sink.rules()
        scene.wait_delivered(301, relay)
    assert scene.deliveries() == list(range(1, 302))


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_dropped_slot_is_made_anew_and_nothing_is_missing(scene, running):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        if running:
            scene.drop_slot()
            scene.insert(5)
            scene.wait_delivered(10, relay)
    if not running:
        scene.drop_slot()
        scene.insert(5)
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(15, relay)
        assert "slot_lost" in relay.log() or running
    assert scene.first_deliveries() == list(range(1, 16))


def test_an_invalidated_slot_is_made_anew_and_nothing_is_missing(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
    scene.database.execute("select pg_drop_replication_slot('witness')")
    scene.database.execute("alter system set max_slot_wal_keep_size = '1MB'")
    scene.database.execute("select pg_reload_conf()")
    scene.insert(5)
    for _ in range(5):
        scene.write_log(20)
        scene.database.execute("select pg_switch_wal()")
        scene.database.execute("checkpoint")
    eventually(lambda: scene.slot("wal_status") == ("lost",), 10, message=lambda: scene.slot("*"))
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(15, relay)
        eventually(lambda: "it was invalidated" in relay.log())
    assert scene.first_deliveries() == list(range(1, 16))


def test_changes_while_there_was_no_publication_are_not_missing(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
    scene.database.execute("drop publication pgstream_1")
    scene.insert(5)
    scene.database.execute("select pgstream.add_stream(1)")
    scene.insert(5)
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(20, relay)
    assert scene.first_deliveries() == list(range(1, 21))


def test_a_publication_that_is_dropped_under_the_stream(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        scene.database.execute("drop publication pgstream_1")
        scene.insert(5)
        scene.wait_delivered(10, relay)
        scene.insert(5)
        scene.wait_delivered(15, relay)
    assert scene.first_deliveries() == list(range(1, 16))


def test_events_come_while_a_new_slot_waits_for_an_open_transaction(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
    scene.drop_slot()
    other = scene.server.create_database(template="template0")
    with other.connect() as writer, scene.database.connect() as late:
        writer.execute("begin; select pg_current_xact_id()")
        late.execute("begin; insert into public.orders (note) values ('late')")  # 6
        scene.insert(3)
        with scene.relay() as relay:
            scene.wait_delivered(8, relay)
            scene.insert(3)
            scene.wait_delivered(11, relay)
            late.execute("commit")
            scene.wait_delivered(12, relay)
            pid = writer.info.backend_pid
            eventually(lambda: f"session {pid} in database {other.name}"
                       in str(relay.pipeline("stream")["last_error"]),
                       message=lambda: relay.pipeline("stream"))
            assert scene.slot("confirmed_flush_lsn") in (None, (None,))
            writer.execute("commit")
            scene.wait_slot()
            scene.insert(3)
            scene.wait_delivered(15, relay)
            eventually(lambda: relay.pipeline("stream")["healthy"])
    assert sorted(scene.first_deliveries()) == list(range(1, 16))


def test_a_new_slot_that_was_waited_for_long_is_taken(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
    scene.drop_slot()
    other = scene.server.create_database(template="template0")
    with other.connect() as writer:
        writer.execute("begin; select pg_current_xact_id()")
        with scene.relay() as relay:
            # Longer than a statement of the daemon may take.
            eventually(lambda: scene.database.execute(
                "select 1 from pg_stat_activity where backend_type = 'walsender'"
                " and clock_timestamp() - backend_start > '32 s'"), 60, message=relay.log)
            writer.execute("commit")
            eventually(lambda: scene.slot("active and confirmed_flush_lsn is not null") == (True,),
                       30, message=relay.log)
            scene.insert()
            scene.wait_delivered(2, relay)
            assert relay.log(1000).count("does not continue the stream") == 1


def test_each_round_that_a_new_slot_waits_through_adds_to_the_backlog(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
    scene.drop_slot()
    other = scene.server.create_database(template="template0")
    with other.connect() as writer:
        writer.execute("begin; select pg_current_xact_id()")
        scene.sink.rules({"status": 503})
        with scene.relay() as relay:
            for count in range(1, 4):
                scene.insert()
                eventually(lambda: scene.backlog() == count, 20, message=relay.log)
            scene.sink.rules()
            scene.wait_delivered(4, relay)
            writer.execute("commit")
            scene.wait_slot()
            scene.insert()
            scene.wait_delivered(5, relay)
    assert scene.first_deliveries() == [1, 2, 3, 4, 5]


def test_a_slot_that_is_lost_twice_in_an_outage(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
    scene.sink.rules({"status": 503})
    for count in (1, 2):
        scene.drop_slot()
        scene.insert()
        with scene.relay() as relay:
            eventually(lambda: scene.backlog() == count, 20, message=relay.log)
            scene.wait_slot()
    scene.sink.rules()
    with scene.relay() as relay:
        scene.wait_delivered(3, relay)
    assert scene.first_deliveries() == [1, 2, 3]


def test_another_server_is_not_read_from(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
    scene.database.execute("update pgstream.streams set system_identifier = 42")
    scene.insert(5)
    with scene.relay() as relay:
        eventually(lambda: relay.pipeline("stream")["error_code"] == "another_system", 20,
                   message=relay.log)
        assert "--resend" in relay.pipeline("stream")["remedy"]
    assert scene.deliveries() == list(range(1, 6))


def test_a_transaction_of_many_events_needs_little_memory(scene, tmp_path):  # noqa: F811
    out = tmp_path / "out.jsonl"
    with scene.relay(sink=f'{{ type = "file", path = "{out}" }}') as relay:
        scene.insert()
        eventually(lambda: out.exists() and lines_of(out) == 1, 20)
        scene.insert(300000)
        scene.insert()
        eventually(lambda: lines_of(out) == 300002, 60, interval=0.5)
        assert relay.peak_kib() < 64 << 10


def test_a_stream_is_read_without_replication(scene):  # noqa: F811
    scene.database.execute("alter role stream_daemon noreplication")
    scene.insert()
    with scene.relay(reader="table") as relay:
        scene.wait_delivered(1, relay)
        with scene.database.connect() as late:
            late.execute("begin; insert into public.orders (note) values ('late')")
            scene.insert(3)
            scene.wait_delivered(4, relay)
            late.execute("commit")
            scene.wait_delivered(5, relay)
    scene.insert(3)
    with scene.relay(reader="table") as relay:
        scene.wait_delivered(8, relay)
    assert scene.slot() is None
    assert sorted(scene.deliveries()) == list(range(1, 9))


def test_another_reader_takes_over_with_nothing_missing(scene):  # noqa: F811
    for count, reader in enumerate(("table", "wal", "table", "wal"), 1):
        scene.insert(5)
        with scene.relay(reader=reader) as relay:
            scene.wait_delivered(10 * count - 5, relay)
            scene.sink.rules({"status": 503})
            scene.insert(5)
        scene.sink.rules()
        with scene.relay(reader=reader) as relay:
            scene.wait_delivered(10 * count, relay)
    assert scene.first_deliveries() == list(range(1, 41))


@pytest.mark.parametrize("slot", ["new", "kept"])
def test_a_round_that_another_reader_completed_is_not_read_again(scene, slot):  # noqa: F811
    if slot == "kept":
        with scene.relay():
            scene.wait_slot()
    with scene.relay(reader="table") as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        scene.wait_all_settled()
        scene.sink.rules({"status": 503})
        scene.insert(5)
        eventually(lambda: scene.stored("round_snapshot is not null") == (True,))
    scene.sink.rules()
    with scene.relay(reader="wal") as relay:
        scene.wait_delivered(10, relay)
        scene.insert(5)
        scene.wait_delivered(15, relay)
        scene.wait_all_settled()
    with scene.relay(reader="table") as relay:
        scene.insert(5)
        scene.wait_delivered(20, relay)
    assert scene.deliveries() == list(range(1, 21))


def test_a_backlog_comes_once_when_the_table_is_read_instead(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        scene.wait_all_settled()
        scene.sink.rules({"status": 503})
        for _ in range(20):
            scene.insert()
        eventually(lambda: scene.backlog() == 20)
    with scene.relay(reader="table", poll_interval="10ms") as relay:
        scene.insert()
        eventually(lambda: scene.stored("round_snapshot is not null") == (True,))
        scene.sink.rules()
        scene.wait_delivered(22, relay)
        scene.insert()
        scene.wait_delivered(23, relay)
        eventually(lambda: scene.backlog() == 0)
    assert scene.deliveries() == list(range(1, 24))


def test_a_kill_within_a_long_round_sends_little_of_it_again(scene, tmp_path):  # noqa: F811
    out = tmp_path / "out.jsonl"
    scene.insert(300000)
    with scene.relay(sink=f'{{ type = "file", path = "{out}" }}', rate_limit=50000,
                     reader="table") as relay:
        eventually(lambda: out.exists() and lines_of(out) > 150000, 60, interval=0.05)
        relay.kill9()
        relay.start()
        eventually(lambda: lines_of(out) >= 300000 and len(set(ids_in(out))) == 300000, 60, interval=0.5)
    assert len(ids_in(out)) - 300000 < 60000


def test_a_cancelled_statement_loses_nothing(scene, tmp_path):  # noqa: F811
    out = tmp_path / "out.jsonl"
    scene.insert(100000)
    with scene.relay(sink=f'{{ type = "file", path = "{out}" }}', rate_limit=20000,
                     reader="table") as relay:
        for count in range(1, 10):
            eventually(lambda: out.exists() and lines_of(out) >= count * 10000, 60, interval=0.05)
            scene.database.execute("select pg_cancel_backend(pid) from pg_stat_activity "
                                   "where state = 'active' and query like '%order by seq'")
        eventually(lambda: relay.pipeline("stream")["lag"] == 0, 60)
    assert sorted(ids_in(out)) == list(range(1, 100001))


@pytest.fixture
def standby(scene):  # noqa: F811
    standby = Standby(scene.server)
    # A base backup has no replication slots.
    for name in os.listdir(os.path.join(standby.data, "pg_replslot")):
        shutil.rmtree(os.path.join(standby.data, "pg_replslot", name))
    standby.start()
    yield standby
    standby.end()


def wait_for_standby(scene, standby):  # noqa: F811
    place = scene.database.one("select pg_current_wal_lsn()")
    with standby.connect(scene.database.name) as connection:
        eventually(lambda: connection.execute("select pg_last_wal_replay_lsn() >= %s",
                                              (place,)).fetchone()[0], 20)


@pytest.mark.parametrize("sink", ["up", "down"])
def test_after_a_promotion_nothing_that_the_standby_has_is_missing(scene, standby, sink):  # noqa: F811
    host = f"127.0.0.1:{scene.server.port}"
    url = scene.daemon_dsn.replace(host, f"{host},127.0.0.1:{standby.port}")
    url += "?target_session_attrs=read-write"
    with scene.relay(url=url) as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        if sink == "down":
            scene.sink.rules({"status": 503})
            scene.insert(20)
            eventually(lambda: scene.backlog() == 1)
        scene.insert(5)
        wait_for_standby(scene, standby)
        scene.server.kill9()
        standby.promote()
        scene.sink.rules()
        with standby.connect(scene.database.name) as new:
            new.execute("insert into public.orders (note) select 'new' from generate_series(1, 5)")
            ids = [row[0] for row in new.execute("select id from public.orders order by id")]
        scene.wait_delivered(len(ids), relay, 60)
        with standby.connect(scene.database.name) as new:
            new.execute("insert into public.orders (note) values ('new')")
        scene.wait_delivered(len(ids) + 1, relay)
    assert set(ids) <= set(scene.deliveries())


ADD_OLD_PARTITION = """
    create table pgstream.events_20200101 (like pgstream.events including defaults);
    alter table pgstream.events attach partition pgstream.events_20200101
      for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');
    alter table pgstream.events_20200101 owner to pgstream_owner"""


def wait_old_partition_removed(scene, relay, deadline):  # noqa: F811
    eventually(lambda: scene.database.one("select to_regclass('pgstream.events_20200101')") is None,
               deadline, message=relay.log)
    assert " partitions: " not in relay.log()


def test_old_partitions_are_removed_by_a_role_of_few_rights(scene):  # noqa: F811
    scene.database.execute(ADD_OLD_PARTITION)
    scene.insert()
    with scene.relay() as relay:
        scene.wait_delivered(1, relay)
        wait_old_partition_removed(scene, relay, 20)


@pytest.mark.parametrize("reader", ["wal", "table"])
def test_maintenance_comes_when_the_stream_says_so(scene, reader):  # noqa: F811
    with scene.relay(reader=reader) as relay:
        due = "next_maintenance_at > now() + interval '9 minutes'"
        eventually(lambda: scene.stored(due) == (True,), 20, message=relay.log)
        scene.insert()
        scene.wait_delivered(1, relay)
        scene.database.execute(ADD_OLD_PARTITION)
        scene.database.execute("update pgstream.streams set next_maintenance_at = now()")
        wait_old_partition_removed(scene, relay, 60)
        eventually(lambda: scene.stored(due) == (True,))
