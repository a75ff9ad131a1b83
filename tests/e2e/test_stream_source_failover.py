"""The source `stream` over a failover of its server: with a slot that the standby has synchronised,
without one, and with one that lags. PostgreSQL 17 and newer (tests/e2e/conftest.py)."""

import os
import random

import psycopg
import pytest
from support.stream_failover import SLOT, Pair, Writers
from support.stream_source import scene  # noqa: F401
from support.waiting import comes_true, eventually, holds_for

SEEDS = [int(seed) for seed in os.environ.get("STREAM_SEEDS", "1,2").split(",")]
# The row of the stream is stored every half second, and a settled snapshot every second.
LAST_SECOND = 1.0
LAST_ROUND = 2.0


@pytest.fixture
def make_pair(scene):  # noqa: F811
    pairs = []

    def make(**options):
        pairs.append(Pair(scene, **options))
        return pairs[-1]
    yield make
    for pair in pairs:
        pair.end()


def source_report(relay):
    return relay.pipeline("stream")["source_report"]


def causes(relay):
    return {cause["code"]: cause for cause in relay.pipeline("stream").get("causes", [])}


def taken(scene):  # noqa: F811
    """(note, when it came) of each delivery, in order."""
    return [(request.json["new"]["note"], request.at) for request in scene.sink.accepted("/hook")]


def wait_all_delivered(scene, pair, relay):  # noqa: F811
    """The writers have ended: every event that the promoted server has committed is delivered."""
    def missing():
        return pair.committed() - {note for note, _ in taken(scene)}
    eventually(lambda: not missing(), 60, interval=0.2,
               message=lambda: f"{len(missing())} missing: {sorted(missing())[:20]}\n{relay.log(40)}")


def count_again(scene, killed_at, seconds):  # noqa: F811
    """How many events came again after the failover that had come more than so many seconds before
    it."""
    first, again = {}, set()
    for note, at in taken(scene):
        if first.setdefault(note, at) < killed_at - seconds and at > killed_at:
            again.add(note)
    return len(again)


def out_of_order(scene, pair):  # noqa: F811
    """Of each writer, which waits for its commits: first deliveries that came before an earlier
    one's."""
    committed, last, found = pair.committed(), {}, []
    for note in dict.fromkeys(note for note, _ in taken(scene)):
        if note in committed:
            writer, n = note.split("-")[:2]
            if int(n) < last.get(writer, -1):
                found.append(note)
            last[writer] = int(n)
    return found


def went_on(relay):
    """What is told of the failover, in health and in the log."""
    note = eventually(lambda: source_report(relay).get("note"), 30, message=relay.log)
    assert note in relay.log(1000)
    return note


def test_a_synced_slot_goes_on_after_a_kill_under_load(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres")) as writers:
            pair.wait_synced()
            writers.wait_written(500)
            killed_at = pair.fail_over()
            writers.wait_written(500)
        wait_all_delivered(scene, pair, relay)
        note = went_on(relay)
        assert "the server was promoted" in note
        with Writers(pair.url("postgres")) as writers:
            writers.wait_written(100)
        wait_all_delivered(scene, pair, relay)
    assert count_again(scene, killed_at, LAST_SECOND) == 0
    # synchronized_standby_slots: nothing was delivered that the standby did not have.
    assert {note for note, _ in taken(scene)} <= pair.committed()


@pytest.mark.parametrize("daemon", ["goes on", "is started again"])
def test_a_synced_slot_goes_on_in_the_order_of_commits(scene, make_pair, daemon):  # noqa: F811
    pair = make_pair()
    relay = scene.relay(url=pair.url()).start()
    scene.insert(5)
    scene.wait_delivered(5, relay)
    pair.wait_synced()
    scene.insert(5)
    scene.wait_delivered(10, relay)
    pair.wait_replayed()
    if daemon != "goes on":
        relay.stop()
    pair.fail_over()
    # An open transaction, which a new slot would wait for.
    with psycopg.connect(pair.url("postgres")) as late:
        late.execute("insert into public.orders (note) values ('late')")
        pair.on_standby("insert into public.orders (note) values ('1'), ('2')")
        if daemon != "goes on":
            relay.start()
        eventually(lambda: ["1", "2"] == [note for note, _ in taken(scene)][-2:], 30,
                   message=relay.log)
        late.commit()
    wait_all_delivered(scene, pair, relay)
    assert "goes on with the synchronised replication slot pgstream_1" in went_on(relay)
    assert source_report(relay)["numbers"]["slot_recoveries_total"] == 0
    assert [note for note, _ in taken(scene)][-3:] == ["1", "2", "late"]
    relay.stop()
    assert pair.on_standby("select timeline from pgstream.streams") == [(2,)]


def test_an_outage_of_the_sink_over_a_failover(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres")) as writers:
            pair.wait_synced()
            writers.wait_written(100)
            scene.sink.rules({"status": 503})
            eventually(lambda: scene.database.one("select count(*) from pgstream.backlog") > 100, 30)
            pair.fail_over()
            writers.wait_written(200)
        scene.sink.rules()
        wait_all_delivered(scene, pair, relay)
        eventually(lambda: pair.on_standby("select count(*) from pgstream.backlog") == [(0,)])
        went_on(relay)


def test_without_a_synced_slot_nothing_is_missing(scene, make_pair):  # noqa: F811
    pair = make_pair(synchronises=False)
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres")) as writers:
            writers.wait_written(500)
            killed_at = pair.fail_over()
            writers.wait_written(500)
        wait_all_delivered(scene, pair, relay)
        assert "had no synchronised slot" in went_on(relay)
        assert source_report(relay)["numbers"]["slot_recoveries_total"] == 1
    assert count_again(scene, killed_at, LAST_ROUND) == 0


def test_a_synced_slot_that_lags_sends_nothing_again(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres")) as writers:
            pair.wait_synced()
            pair.stop_synchronising()
            writers.wait_written(1000)
            killed_at = pair.fail_over()
            writers.wait_written(500)
        wait_all_delivered(scene, pair, relay)
        assert "goes on with the synchronised replication slot" in went_on(relay)
    assert count_again(scene, killed_at, LAST_SECOND) == 0


def test_events_that_the_promoted_server_never_had(scene, make_pair):  # noqa: F811
    """The daemon is ahead of the promoted server, which gives out the same places of the log and the
    same transaction ids again, to other transactions."""
    pair = make_pair(waited_for=False)
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres")) as writers:
            pair.wait_synced()
            writers.wait_written(200)
            pair.standby.link.stall()
            writers.wait_written(1000)
            eventually(lambda: len(taken(scene)) > 900, 30)
            pair.primary.kill9()
            pair.standby.link.cut()
            pair.standby.promote()
            writers.wait_written(500)
        wait_all_delivered(scene, pair, relay)
        went_on(relay)
    assert {note for note, _ in taken(scene)} - pair.committed()


def test_a_slot_that_is_ahead_of_what_is_known_is_made_anew(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        scene.insert(5)
        scene.wait_delivered(5, relay)
        pair.wait_synced()
        scene.insert(5)
        scene.wait_delivered(10, relay)
        pair.wait_replayed()
    pair.fail_over()
    # As if the last row of the stream had not reached the standby.
    pair.on_standby("update pgstream.streams set recorded_lsn = '0/1'")
    pair.on_standby("insert into public.orders (note) values ('new')")
    with scene.relay(url=pair.url()) as relay:
        eventually(lambda: "new" in dict(taken(scene)), 30, message=relay.log)
        assert "ahead of what is known here to be settled" in went_on(relay)
        scene.wait_delivered(11, relay)


def test_a_slot_that_was_copied_with_the_data_directory_is_made_anew(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        pair.wait_synced()
        pair.wait_replayed()
    pair.fail_over()
    # A slot of the same name, which did not come by synchronisation, past an event.
    pair.on_standby("insert into public.orders (note) values ('new')")
    pair.on_standby("select pg_drop_replication_slot('pgstream_1')")
    pair.on_standby("select pg_create_logical_replication_slot('pgstream_1', 'pgoutput')")
    with scene.relay(url=pair.url()) as relay:
        eventually(lambda: "new" in dict(taken(scene)), 30, message=relay.log)
        assert "had no synchronised slot" in went_on(relay)


def test_a_standby_that_is_gone_stops_the_stream_and_health_names_it(scene, make_pair):  # noqa: F811
    pair = make_pair()
    with scene.relay(url=pair.url()) as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        pair.wait_synced()
        eventually(lambda: relay.pipeline("stream")["healthy"], message=relay.log)
        pair.standby.kill9()
        eventually(lambda: not scene.database.one("select active from pg_replication_slots "
                                                  "where slot_name = %s", (SLOT,)))
        scene.insert(3)
        cause = eventually(lambda: causes(relay)["standby_gone"], 30, message=relay.log)
        assert cause["message"].endswith(f"not connected: {SLOT}")
        assert "synchronized_standby_slots" in cause["remedy"]
        assert "standby_gone" in relay.log(1000)
        holds_for(lambda: len(taken(scene)) == 1, 1)
        pair.wait_for("")
        scene.wait_delivered(4, relay)
        eventually(lambda: "standby_gone" not in causes(relay), message=relay.log)


def test_a_stream_that_does_not_wait_for_its_standby_says_so(scene, make_pair):  # noqa: F811
    pair = make_pair(waited_for=False)
    with scene.relay(url=pair.url()) as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        cause = eventually(lambda: causes(relay)["standby_not_waited_for"], 30, message=relay.log)
        assert f"synchronized_standby_slots = '{SLOT}'" in cause["remedy"]
        assert source_report(relay)["numbers"]["synchronising_standbys"] == 1
        pair.wait_for(SLOT)
        eventually(lambda: relay.pipeline("stream")["healthy"], message=relay.log)
        pair.stop_synchronising()
        cause = eventually(lambda: causes(relay)["slot_not_synchronised"], 30, message=relay.log)
        assert "pgstream_1" in cause["message"]


def test_a_server_without_a_standby_has_nothing_to_say(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
        assert scene.slot("failover") == (True,)
        assert not comes_true(lambda: causes(relay), 3)


def test_a_slot_that_standbys_cannot_synchronise_is_altered(scene):  # noqa: F811
    with scene.relay() as relay:
        scene.insert()
        scene.wait_delivered(1, relay)
    scene.drop_slot()
    scene.database.execute("select pg_create_logical_replication_slot('pgstream_1', 'pgoutput')")
    assert scene.slot("failover") == (False,)
    scene.insert()
    with scene.relay() as relay:
        scene.wait_delivered(2, relay)
        eventually(lambda: scene.slot("failover") == (True,))
    assert scene.deliveries() == [1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failover_at_a_random_moment(scene, make_pair, seed):  # noqa: F811
    chance = random.Random(seed)
    waited_for = chance.random() < 0.5
    pair = make_pair(synchronises=chance.random() < 0.8, waited_for=waited_for)
    with scene.relay(url=pair.url()) as relay:
        with Writers(pair.url("postgres"), count=6) as writers:
            synced = comes_true(pair.is_synced, chance.choice([0, 1, 20]), interval=0.2)
            for _ in range(chance.randrange(5)):
                fault = chance.choice(["lag", "stall", "down", "slow", "up", "kill", "unsynced"])
                if fault == "lag":
                    pair.standby.link.slow(chance.choice([20000, 200000]))
                elif fault == "stall":
                    pair.standby.link.stall()
                elif fault == "down":
                    scene.sink.rules({"status": 503})
                elif fault == "slow":
                    scene.sink.rules({"delay": 0.02})
                elif fault == "up":
                    scene.sink.rules()
                    pair.standby.link.restore()
                elif fault == "kill":
                    relay.kill9()
                    relay.start()
                else:
                    pair.on_standby("alter system set sync_replication_slots = off")
                    pair.on_standby("select pg_reload_conf()")
                holds_for(lambda: True, chance.random())
            holds_for(lambda: True, chance.random() * 2)
            if chance.random() < 0.2:
                relay.kill9()
            pair.primary.kill9()
            pair.standby.link.cut()
            pair.standby.promote()
            if not relay.running:
                relay.start()
            writers.wait_written(200)
        scene.sink.rules()
        wait_all_delivered(scene, pair, relay)
    assert out_of_order(scene, pair) == []
    if waited_for and synced:  # while there was no slot, events were read from the table
        assert {note for note, _ in taken(scene)} <= pair.committed()
