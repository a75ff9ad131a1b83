"""Everything goes wrong, at random, while writers write: what was committed arrives, in order."""

import os
import random
import time

import pytest

import workload
from history import assert_kept, kept_on_failure
from nemesis import Nemesis, terminate_backends, terminate_lease_session
from support.pipelines import (LONG, Lines, set_outbox, status_row, to_file, to_nats, wait_settled)
from support.postgres import RELAY_ROLE
from support.proxy import DOWN, UP, FaultProxy
from support.relay import Relay

SECONDS = float(os.environ.get("CHAOS_SECONDS", "300" if LONG else "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def run(name, db, faults, writers_dsn, pipelines, read, duplicates_allowed, relays):
    """Load and faults for SECONDS; then all must settle, and the judge has the last word."""
    with kept_on_failure(name, SEED) as history:
        for relay in relays:
            relay.start()
        with workload.Writers(writers_dsn, history, count=3, seed=SEED, pause=0.01):
            faults_done = Nemesis(history, SEED, faults).run(SECONDS)
        for relay in relays:
            if not relay.running:
                relay.start()
        try:
            for pipeline in pipelines:
                wait_settled(db, pipeline, workload.TABLE, deadline=90)
        except AssertionError as error:
            stories = "\n\n".join(relay.log(60) for relay in relays)
            raise AssertionError(f"did not recover: {error}\n{stories}") from error
        final = workload.final_versions(db)
        for relay in relays:
            relay.stop()
        for messages, allowed in zip(read(), duplicates_allowed):
            assert_kept(final, messages, allowed)
        print(f"{faults_done} faults, {sum(final.values())} changes, seed {SEED}")
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 0, \
            "a fault of the world must never send a message to the dead letters"


@pytest.mark.timeout(900)
def test_faults_of_relay_and_broker_lose_nothing_and_duplicate_nothing(db, nats, relay_bin):
    workload.make_counters(db)
    with nats.client() as client:
        client.create_stream("chaos", "relay.>", duplicate_window=1200)
    with FaultProxy(nats.port) as link:
        config = to_nats(workload.TABLE, nats, "relay.row", message="row",
                         sink={"url": f"nats://127.0.0.1:{link.port}"})
        set_outbox(db, "rows", config)
        relay = Relay(db.relay_dsn)

        def kill_relay(chance):
            relay.kill9()
            relay.start()

        def restart_relay(chance):
            relay.restart()

        def freeze_relay(chance):
            relay.freeze()
            time.sleep(chance.uniform(0.1, 2))
            relay.thaw()

        def freeze_broker(chance):
            nats.freeze()
            time.sleep(chance.uniform(0.1, 3))
            nats.thaw()

        def for_a_while(harm):
            def fault(chance):
                harm(chance)
                time.sleep(chance.uniform(0.1, 2))
                link.restore()
            return fault

        def change_configuration(chance):
            config["batch_size"] = chance.choice((1, 7, 100, 1000))
            set_outbox(db, "rows", config)

        def pause(chance):
            db.execute("select pgtrickle.pause_relay('rows')")
            time.sleep(chance.uniform(0, 1))
            db.execute("select pgtrickle.resume_relay('rows')")

        def disable(chance):
            db.execute("select pgtrickle.disable_relay('rows')")
            time.sleep(chance.uniform(0, 1))
            db.execute("select pgtrickle.enable_relay('rows')")

        faults = [
            ("a changed configuration", change_configuration),
            ("pause and resume", pause),
            ("disable and enable", disable),
            ("kill -9 of the relay", kill_relay),
            ("restart of the relay", restart_relay),
            ("freeze of the relay", freeze_relay),
            ("restart of the broker", lambda chance: nats.restart()),
            ("freeze of the broker", freeze_broker),
            ("cut", for_a_while(lambda chance: link.cut())),
            ("stall", for_a_while(lambda chance: link.stall())),
            ("one-way cut, up", for_a_while(lambda chance: link.stall(UP))),
            ("one-way cut, down", for_a_while(lambda chance: link.stall(DOWN))),
            ("slow link", for_a_while(lambda chance: link.slow(20000))),
            ("cut within the bytes",
             for_a_while(lambda chance: link.cut_after(chance.randrange(1, 50000)))),
            ("terminate the relay's backends", lambda chance: terminate_backends(db, chance)),
            ("terminate the lease session", lambda chance: terminate_lease_session(db)),
        ]

        def read():
            with nats.client() as client:
                yield [message.json for message in client.messages("chaos")]

        run("relay-and-broker", db, faults, db.dsn, ["rows"], read, [0], [relay])


@pytest.mark.timeout(900)
def test_faults_of_postgresql_and_its_network_lose_nothing(own_pg_server, own_db, nats, relay_bin,
                                                          tmp_path):
    db = own_db
    workload.make_counters(db)
    lines = Lines(tmp_path / "out.jsonl")
    with nats.client() as client:
        client.create_stream("chaos", "relay.>", duplicate_window=1200)
    set_outbox(db, "rows", to_nats(workload.TABLE, nats, "relay.row", message="row"))
    set_outbox(db, "file", to_file(workload.TABLE, lines.path))
    with FaultProxy(own_pg_server.port) as link:
        relay = Relay(own_pg_server.dsn(db.name, user=RELAY_ROLE, port=link.port))

        def for_a_while(harm):
            def fault(chance):
                harm(chance)
                time.sleep(chance.uniform(0.1, 2))
                link.restore()
            return fault

        faults = [
            ("fast restart", lambda chance: own_pg_server.restart("fast")),
            ("immediate restart", lambda chance: own_pg_server.restart("immediate")),
            ("kill -9 of the postmaster", lambda chance: own_pg_server.restart("kill9")),
            ("terminate backends", lambda chance: terminate_backends(db, chance)),
            ("terminate the lease session", lambda chance: terminate_lease_session(db)),
            ("cut", for_a_while(lambda chance: link.cut())),
            ("stall", for_a_while(lambda chance: link.stall())),
            ("one-way cut, up", for_a_while(lambda chance: link.stall(UP))),
            ("one-way cut, down", for_a_while(lambda chance: link.stall(DOWN))),
        ]

        def read():
            with nats.client() as client:
                yield [message.json for message in client.messages("chaos")]
            yield lines.messages()

        run("postgresql", db, faults, db.dsn, ["rows", "file"], read, [0, None], [relay])


@pytest.mark.timeout(900)
def test_three_relays_under_kills_and_freezes_lose_nothing(db, nats, relay_bin):
    workload.make_counters(db)
    with nats.client() as client:
        client.create_stream("chaos", "relay.>", duplicate_window=1200)
    names = [f"p{number}" for number in range(4)]
    for name in names:
        set_outbox(db, name, to_nats(workload.TABLE, nats, f"relay.{name}", message="row"))
    relays = [Relay(db.relay_dsn) for _ in range(3)]

    def kill(chance):
        victim = chance.choice(relays)
        victim.kill9()
        time.sleep(chance.uniform(0, 2))
        victim.start()

    def freeze(chance):
        victim = chance.choice(relays)
        victim.freeze()
        time.sleep(chance.uniform(0.5, 8))
        victim.thaw()

    faults = [("kill -9 of a relay", kill), ("freeze of a relay", freeze),
              ("restart of a relay", lambda chance: chance.choice(relays).restart()),
              ("terminate the relays' backends", lambda chance: terminate_backends(db, chance))]

    def read():
        with nats.client() as client:
            for name in names:
                yield [message.json for message in client.messages("chaos", f"relay.{name}")]

    run("three-relays", db, faults, db.dsn, names, read, [0] * len(names), relays)
    assert all(status_row(db, name)["state"] != "misconfigured" for name in names)
