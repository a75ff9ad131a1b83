"""Several relays, one database: each pipeline has one owner, and always one."""

import os
import time
from collections import Counter

import pytest

import workload
from history import History, assert_kept
from nemesis import terminate_lease_session
from support.pipelines import (LONG, SLOW_FACTOR, Lines, insert_rows, make_table, position,
                               positions_gone_back, set_outbox, to_file, to_nats, wait_settled,
                               watch_positions)
from support.relay import Relay
from support.waiting import eventually, holds_for


KILLS = int(os.environ.get("KILLS", "50" if LONG else "5"))


def owned(relay):
    return relay.health()[1]["pipelines_owned"]


def shares(relays):
    return [owned(relay) for relay in relays]


def outbox_id(message):
    """`<pipeline>:<outbox_id>-...` is what each message id begins with."""
    return int(message.id.partition(":")[2].partition("-")[0])


def sent_again(messages):
    """The first arrival of each message that arrived more than once."""
    times = Counter(message.id for message in messages)
    first = {message.id: message for message in reversed(messages)}
    return [first[identity] for identity, count in times.items() if count > 1]


@pytest.fixture
def pipelines(db, tmp_path):
    """Six pipelines over one table, each into its own file: {name: Lines}."""
    make_table(db)
    files = {f"p{number}": Lines(tmp_path / f"p{number}.jsonl") for number in range(6)}
    for name, lines in files.items():
        set_outbox(db, name, to_file("orders", lines.path))
    return files


def test_two_relays_share_the_pipelines_evenly_and_deliver_each_row_once(db, pipelines, relay_bin):
    with Relay(db.relay_dsn) as one:
        eventually(lambda: owned(one) == 6, 10)
        insert_rows(db, "orders", 1, 20)
        with Relay(db.relay_dsn) as two:
            eventually(lambda: shares([one, two]) == [3, 3], 15 * SLOW_FACTOR,
                       message=lambda: f"{shares([one, two])}\n{one.log(40)}\n{two.log(40)}")
            insert_rows(db, "orders", 21, 20)
            for lines in pipelines.values():
                lines.wait_rows(range(1, 41))
        # A graceful stop hands over at once, not after a lease has run out.
        begin = time.monotonic()
        eventually(lambda: owned(one) == 6, 10)
        assert time.monotonic() - begin < 3 * SLOW_FACTOR
        insert_rows(db, "orders", 41, 5)
        for lines in pipelines.values():
            lines.wait_rows(range(1, 46))


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_kill_9_of_an_owner_is_made_good_within_seconds(db, pipelines, relay_bin):
    relays, takeovers, rows = [Relay(db.relay_dsn), Relay(db.relay_dsn)], [], 0
    with relays[0], relays[1]:
        for turn in range(KILLS):
            eventually(lambda: shares(relays) == [3, 3], 20 * SLOW_FACTOR,
                       message=lambda: f"{shares(relays)}\n{relays[0].log(20)}\n{relays[1].log(20)}")
            insert_rows(db, "orders", rows + 1, 3)
            rows += 3
            for name, lines in pipelines.items():
                lines.wait_rows(range(1, rows + 1))
                wait_settled(db, name, "orders")
            victim = relays[turn % 2]
            victim.kill9()
            begin = time.monotonic()
            insert_rows(db, "orders", rows + 1, 1)
            rows += 1
            for lines in pipelines.values():
                lines.wait_rows(range(1, rows + 1))
            takeovers.append(time.monotonic() - begin)
            victim.start().wait_up()
    print(f"{KILLS} takeovers after kill -9: median {sorted(takeovers)[KILLS // 2]:.2f} s, "
          f"longest {max(takeovers):.2f} s")
    assert max(takeovers) < 2 * SLOW_FACTOR + 1


def test_a_frozen_owner_is_replaced_and_sends_and_commits_nothing_when_it_thaws(
        db, nats, relay_bin):
    workload.make_counters(db, keys=50)
    watch_positions(db)
    history = History("frozen", 1)
    with nats.client() as client:
        # The broker hardly deduplicates: what is sent twice is seen twice.
        client.create_stream("s", "relay.>", duplicate_window=0.1)
        set_outbox(db, "frozen",
                   to_nats(workload.TABLE, nats, "relay.x", message="row", batch_size=20))
        with Relay(db.relay_dsn, ha_mode="leader") as one:
            one.wait_state("frozen", "running", "idle")
            with Relay(db.relay_dsn, ha_mode="leader") as two:
                two.wait_up()
                with workload.Writers(db.dsn, history, count=2, keys=50, seed=1):
                    eventually(lambda: client.count("s") > 100, 20 * SLOW_FACTOR)
                    one.freeze()
                    frozen_at = time.time()
                    settled_then, before = position(db, "frozen")[0], client.count("s")
                    eventually(lambda: client.count("s") > before + 50, 30 * SLOW_FACTOR,
                               message=lambda: two.log(60))
                    print(f"takeover from a frozen owner: {time.time() - frozen_at:.1f} s")
                wait_settled(db, "frozen", workload.TABLE)
                settled, count = position(db, "frozen"), client.count("s")
                one.thaw()
                eventually(lambda: owned(one) == 0 and owned(two) == 1, 20 * SLOW_FACTOR)
                holds_for(lambda: client.count("s") == count
                          and position(db, "frozen") == settled, 1)
        messages = client.messages("s")
    assert positions_gone_back(db) == []
    assert_kept(workload.final_versions(db), [message.json for message in messages],
                duplicates_allowed=None)
    # Sent again is only what the position had not passed yet, and it is never far behind.
    again = sent_again(messages)
    print(f"sent again: {len(again)} of {len(messages)}")
    assert [message.id for message in again if outbox_id(message) <= settled_then] == []
    assert [message.id for message in again if message.time < frozen_at - SLOW_FACTOR] == []


def test_losing_the_lease_session_stops_the_pipeline_and_takes_it_again(db, pipelines, relay_bin):
    with Relay(db.relay_dsn) as one:
        insert_rows(db, "orders", 1, 5)
        for lines in pipelines.values():
            lines.wait_rows(range(1, 6))
        assert terminate_lease_session(db) == 1, "one dedicated session holds all leases"
        insert_rows(db, "orders", 6, 5)
        eventually(lambda: owned(one) == 6, 15 * SLOW_FACTOR)
        for lines in pipelines.values():
            lines.wait_rows(range(1, 11))


def test_different_groups_deliver_every_pipeline_independently(db, nats, relay_bin, tmp_path):
    make_table(db)
    with nats.client() as client:
        client.create_stream("both", "relay.>", duplicate_window=0.1)
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows"))
    with Relay(db.relay_dsn, relay_group_id="one"), Relay(db.relay_dsn, relay_group_id="two"):
        insert_rows(db, "orders", 1, 3)
        for group in ("one", "two"):
            wait_settled(db, "rows", "orders", group=group)
    groups = {row[0] for row in db.execute(
        "select relay_group_id from pgtrickle.relay_consumer_offsets where pipeline_id = 'rows'")}
    assert groups == {"one", "two"}


def test_leader_mode_keeps_all_pipelines_on_one_and_a_standby_is_healthy(db, pipelines, relay_bin):
    with Relay(db.relay_dsn, ha_mode="leader") as one:
        eventually(lambda: owned(one) == 6, 10)
        with Relay(db.relay_dsn, ha_mode="leader") as two:
            status = two.wait_healthy()
            assert status["pipelines_owned"] == 0
            holds_for(lambda: shares([one, two]) == [6, 0], 2.5, interval=0.1)
            one.kill9()
            eventually(lambda: owned(two) == 6, 5 * SLOW_FACTOR)
            insert_rows(db, "orders", 1, 3)
            for lines in pipelines.values():
                lines.wait_rows(range(1, 4))
