"""The source `stream`: every committed event, in the order of the commits, whatever becomes of the
sink, of the replication slot and of the publication."""

import pytest
from support.stream_source import CrossingWriters, scene  # noqa: F401
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


def retained(scene):  # noqa: F811
    return scene.slot("pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint")[0]


def write_log(scene, megabytes):  # noqa: F811
    for _ in range(megabytes):
        scene.database.execute("select pg_logical_emit_message(false, 'load', repeat('x', 1000000))")


def test_an_outage_of_the_sink_holds_no_log_back(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        scene.sink.rules({"status": 503})
        scene.insert(100)
        for _ in range(10):
            scene.insert()
        write_log(scene, 20)
        eventually(lambda: retained(scene) < 1000000, 20)
        assert scene.database.one("select sum(events) from pgstream.backlog") == 110
        scene.sink.rules()
        scene.wait_delivered(111, relay)
        eventually(lambda: scene.database.one("select count(*) from pgstream.backlog") == 0)
        scene.insert(3)
        scene.wait_delivered(114, relay)
        eventually(lambda: retained(scene) < 1000000, 20)
    assert scene.deliveries() == list(range(1, 115))


def test_a_slow_sink_holds_no_log_back(scene):  # noqa: F811
    scene.sink.rules({"delay": 0.02})
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        for _ in range(300):
            scene.insert()
        write_log(scene, 20)
        eventually(lambda: retained(scene) < 1000000, 20)
        scene.sink.rules()
        scene.wait_delivered(301, relay)
    assert scene.deliveries() == list(range(1, 302))


def drop_slot(scene):  # noqa: F811
    scene.database.execute("select pg_terminate_backend(active_pid) from pg_replication_slots "
                           "where slot_name = 'pgstream_1' and active_pid is not null")
    scene.database.execute("select pg_drop_replication_slot('pgstream_1')")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_dropped_slot_is_made_anew_and_nothing_is_missing(scene, running):  # noqa: F811
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        if running:
            eventually(lambda: drop_slot(scene) or True, 10)
            scene.insert(5)
            scene.wait_delivered(10, relay)
    if not running:
        drop_slot(scene)
        scene.insert(5)
    with scene.relay() as relay:
        scene.insert(5)
        scene.wait_delivered(15, relay)
        assert "slot_lost" in relay.log() or running
    assert scene.first_deliveries() == list(range(1, 16))
