"""An outside failure harms no other pipeline, is reported clearly, and is recovered from."""

import re
import resource
import subprocess
import time

import pytest

from support.fixtures import need
from support.nats_server import NatsServer
from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, status_row,
                               to_file, to_nats, wait_settled)
from support.postgres import RELAY_ROLE
from support.processes import free_port
from support.proxy import DOWN, FaultProxy
from support.relay import Relay
from support.tls import Authority
from support.waiting import eventually, holds_for


def trouble_is_named(relay, db, pipeline, *words):
    """Waits until /health, relay_pipeline_status and the log name the pipeline's trouble."""
    pattern = re.compile("|".join(words), re.IGNORECASE)

    def told():
        entry = relay.pipeline(pipeline)
        assert entry["state"] in ("retrying", "misconfigured"), entry
        assert pattern.search(entry["last_error"] or ""), entry
        stored = status_row(db, pipeline)
        assert stored and pattern.search(stored["last_error"] or ""), stored
        assert stored["remedy"], stored
        lines = [line for line in relay.log_lines if pipeline in line and pattern.search(line)]
        assert lines, "the log says nothing of it"
        return entry
    return eventually(told, 20 * SLOW_FACTOR, message=lambda: relay.log(60))


@pytest.mark.sanitizer
def test_bad_neighbours_are_named_with_cause_and_remedy_and_the_healthy_one_never_notices(
        db, orders, start_relay, tmp_path):
    absent = free_port()
    server = NatsServer(user="relay", password="right").start()
    lines = Lines(tmp_path / "healthy.jsonl")
    try:
        with server.client() as client:
            client.create_stream("s", "relay.>")
        set_outbox(db, "wrong-password", to_nats("orders", server, sink={"password": "wr0ng-one"}))
        set_outbox(db, "unreachable", {"stream_table": "orders", "sink": {
            "type": "nats", "url": f"nats://127.0.0.1:{absent}"}, "subject_template": "relay.x"})
        set_outbox(db, "bad-template", to_nats("orders", server, "relay.{nonsense}"))
        set_outbox(db, "no-stream", to_nats("orders", server, "unbound.subject",
                                             sink={"create_stream": False}))
        set_outbox(db, "healthy", to_file("orders", lines.path))
        with start_relay(db.relay_dsn) as relay:
            relay.wait_up()
            insert_rows(db, "orders", 1)
            trouble_is_named(relay, db, "wrong-password", "auth")
            trouble_is_named(relay, db, "unreachable", str(absent))
            trouble_is_named(relay, db, "bad-template", "nonsense")
            trouble_is_named(relay, db, "no-stream", "stream", "unbound.subject")
            assert relay.pipeline("bad-template")["state"] == "misconfigured"
            assert relay.pipeline("unreachable")["state"] == "retrying"
            slowest = 0.0
            for identity in range(2, 30):
                begin = time.monotonic()
                insert_rows(db, "orders", identity)
                eventually(lambda: len(lines.rows()) == identity, interval=0.005)
                slowest = max(slowest, time.monotonic() - begin)
            assert slowest < 0.5 * SLOW_FACTOR, "the healthy pipeline noticed"
            assert relay.pipeline("healthy")["state"] in ("running", "idle")
            status, health = relay.health()
            assert status == 200 and health["status"] == "degraded"
            assert "wr0ng-one" not in relay.log(10000) + str(health)
            assert db.one("select count(*) from pgtrickle.relay_dlq") == 0
            errors = [line for line in relay.log_lines if "unreachable" in line]
            assert len(errors) < 10, "a repeating error is logged once, then counted"
    finally:
        server.stop()


def test_an_unreachable_broker_that_comes_is_used_at_once(db, orders, start_relay):
    server = NatsServer()
    set_outbox(db, "rows", to_nats("orders", server, "relay.rows", sink={"create_stream": False},
                                   retry={"min": "50ms", "max": "500ms"}))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1, 3)
        relay.wait_state("rows", "retrying")
        server.start()
        try:
            with server.client() as client:
                client.create_stream("s", "relay.>")
                eventually(lambda: client.count("s") == 3, 35 * SLOW_FACTOR)
                relay.wait_healthy()
        finally:
            server.stop()


def test_a_host_that_does_not_resolve_is_named(db, orders, start_relay):
    set_outbox(db, "lost", {"stream_table": "orders", "subject_template": "relay.x", "sink": {
        "type": "nats", "url": "nats://no-such-host.invalid:4222"}})
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        trouble_is_named(relay, db, "lost", "no-such-host.invalid")


# PostgreSQL --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill9"])
def test_a_restart_of_postgresql_under_load_loses_nothing(own_pg_server, own_db, nats, start_relay,
                                                        mode):
    make_table(own_db)
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(own_db, "rows", to_nats("orders", nats, "relay.rows"))
    with start_relay(own_db.relay_dsn) as relay:
        for turn in range(3):
            insert_rows(own_db, "orders", turn * 100 + 1, 100)  # acknowledged commits only
            own_pg_server.restart(mode)
        insert_rows(own_db, "orders", 301)
        wait_settled(own_db, "rows", "orders")
        relay.wait_healthy()
    with nats.client() as client:
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 302))


def test_a_postgresql_that_is_away_makes_the_relay_unhealthy_and_is_named(own_pg_server, own_db,
                                                                        start_relay, tmp_path):
    make_table(own_db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(own_db, "rows", to_file("orders", lines.path))
    with start_relay(own_db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        own_pg_server.stop()
        status, health = eventually(
            lambda: relay.health() if relay.health()[0] == 503 else None, 15 * SLOW_FACTOR)
        assert health["status"] == "unhealthy"
        assert relay.get("/health/live")[0] == 200
        assert relay.get("/health/ready")[0] == 503
        own_pg_server.start()
        relay.wait_healthy(pipelines=1, deadline=30)
        insert_rows(own_db, "orders", 1)
        lines.wait_rows([1])


def test_a_relay_started_before_postgresql_waits_for_it(own_pg_server, own_db, start_relay,
                                                        tmp_path):
    make_table(own_db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(own_db, "rows", to_file("orders", lines.path))
    own_pg_server.stop()
    with start_relay(own_db.relay_dsn) as relay:
        relay.wait_up()
        assert relay.health()[0] == 503
        own_pg_server.start()
        insert_rows(own_db, "orders", 1)
        lines.wait_rows([1], deadline=30)


def test_sessions_terminated_at_random_lose_and_repeat_nothing_in_nats(
        db, orders, nats, start_relay):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows"))
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for turn in range(20):
            insert_rows(db, "orders", turn * 10 + 1, 10)
            db.execute("select pg_terminate_backend(pid) from pg_stat_activity"
                       " where usename = %s and datname = current_database() and random() < 0.5",
                       (RELAY_ROLE,))
        wait_settled(db, "rows", "orders")
        relay.wait_healthy()
    with nats.client() as client:
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 201))


def test_a_wrong_database_password_is_named_and_never_shown(db, start_relay):
    dsn = db.relay_dsn.replace(":s3cret-for-tests@", ":not-the-password@")
    with start_relay(dsn) as relay:
        relay.wait_up()
        eventually(lambda: "password authentication failed" in relay.log()
                   or "authentication" in str(relay.health()[1]).lower())
        assert relay.health()[0] == 503
        assert "not-the-password" not in relay.log() + str(relay.health())


def test_a_postgresql_that_goes_silent_is_given_up_and_reached_again(own_pg_server, own_db,
                                                                    start_relay, tmp_path):
    make_table(own_db)
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(own_db, "rows", to_file("orders", lines.path))
    with FaultProxy(own_pg_server.port) as link:
        dsn = own_pg_server.dsn(own_db.name, user=RELAY_ROLE, port=link.port)
        with start_relay(dsn) as relay:
            insert_rows(own_db, "orders", 1)
            lines.wait_rows([1])
            link.stall(DOWN)
            insert_rows(own_db, "orders", 2)
            # A cut without any announcement: it must show in health, whatever the threads do, and
            # health must answer all the while.
            slowest = 0.0

            def told():
                nonlocal slowest
                begin = time.monotonic()
                status = relay.health()[1]["status"]
                slowest = max(slowest, time.monotonic() - begin)
                return status != "healthy"
            eventually(told, 30 * SLOW_FACTOR)
            holds_for(told, 3)
            assert slowest < 2 * SLOW_FACTOR
            link.cut_once()
            link.restore()
            lines.wait_rows([1, 2], deadline=60)
            relay.wait_healthy(deadline=30)


# NATS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stop", "kill9"])
def test_a_restart_of_the_broker_under_load_loses_and_repeats_nothing(db, orders, nats, start_relay,
                                                                    mode):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows"))
    with start_relay(db.relay_dsn) as relay:
        for turn in range(3):
            insert_rows(db, "orders", turn * 200 + 1, 100)
            nats.restart(mode)
            insert_rows(db, "orders", turn * 200 + 101, 100)
        wait_settled(db, "rows", "orders", deadline=45)
        relay.wait_healthy()
    with nats.client() as client:
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 601))
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.mark.sanitizer
def test_a_frozen_broker_is_waited_for_and_told_in_health(db, orders, nats, start_relay, tmp_path):
    lines = Lines(tmp_path / "other.jsonl")
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows",
                                   sink={"ack_timeout": "1s"}))
    set_outbox(db, "other", to_file("orders", lines.path))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "rows", "orders")
        nats.freeze()
        insert_rows(db, "orders", 2, 50)
        lines.wait_rows(range(1, 52))  # the neighbour goes on
        eventually(lambda: relay.pipeline("rows")["state"] == "retrying", 30 * SLOW_FACTOR)
        assert relay.health()[1]["status"] == "degraded"
        nats.thaw()
        wait_settled(db, "rows", "orders", deadline=45)
        relay.wait_healthy(deadline=30)
    with nats.client() as client:
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 52))
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.mark.parametrize("bytes_until_cut", [1, 700, 5000, 33333])
def test_a_connection_cut_within_the_bytes_loses_and_repeats_nothing(db, orders, nats, start_relay,
                                                                    bytes_until_cut):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    with FaultProxy(nats.port) as link:
        set_outbox(db, "rows", to_nats("orders", nats, "relay.rows",
                                       sink={"url": f"nats://127.0.0.1:{link.port}"}))
        with start_relay(db.relay_dsn):
            insert_rows(db, "orders", 1)
            wait_settled(db, "rows", "orders")
            link.cut_after(bytes_until_cut)
            insert_rows(db, "orders", 2, 200)
            wait_settled(db, "rows", "orders", deadline=45)
    with nats.client() as client:
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 202))


def test_a_stream_that_appears_later_is_found(db, orders, nats, start_relay):
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows", sink={"create_stream": False}))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1, 3)
        relay.wait_state("rows", "misconfigured", "retrying")
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 0, \
            "no stream for a subject is not the message's fault"
        with nats.client() as client:
            client.create_stream("s", "relay.>")
            eventually(lambda: client.count("s") == 3, 40 * SLOW_FACTOR)  # tried again every 30 s


# TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def tls_nats(authority):
    cert, key = authority.certificate("server")
    server = NatsServer(tls={"cert": cert, "key": key}).start()
    with server.client(tls_ca=authority.ca) as client:
        client.create_stream("s", "relay.>")
    yield server
    server.stop()


def test_tls_with_the_right_ca_delivers(db, orders, tls_nats, authority, start_relay):
    set_outbox(db, "rows", to_nats("orders", tls_nats, "relay.rows", sink={"tls_ca": authority.ca}))
    with start_relay(db.relay_dsn):
        insert_rows(db, "orders", 1, 20)
        wait_settled(db, "rows", "orders")
    with tls_nats.client(tls_ca=authority.ca) as client:
        assert client.count("s") == 20


def test_tls_with_a_wrong_ca_sends_nothing_and_says_why(db, orders, tls_nats, authority,
                                                      start_relay, tmp_path):
    lines = Lines(tmp_path / "other.jsonl")
    set_outbox(db, "wrong-ca", to_nats("orders", tls_nats, "relay.rows",
                                       sink={"tls_ca": Authority("another").ca}))
    set_outbox(db, "system-ca", to_nats("orders", tls_nats, "relay.rows"))
    set_outbox(db, "other", to_file("orders", lines.path))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        for name in ("wrong-ca", "system-ca"):
            trouble_is_named(relay, db, name, "certificate", "tls", "ssl")
    with tls_nats.client(tls_ca=authority.ca) as client:
        assert client.count("s") == 0
    assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def test_tls_with_a_certificate_for_another_name_sends_nothing(db, orders, authority, start_relay):
    cert, key = authority.certificate("elsewhere", "DNS:elsewhere.example")
    server = NatsServer(tls={"cert": cert, "key": key}).start()
    try:
        set_outbox(db, "wrong-name", to_nats("orders", server, "relay.rows",
                                             sink={"tls_ca": authority.ca}))
        with start_relay(db.relay_dsn) as relay:
            insert_rows(db, "orders", 1)
            trouble_is_named(relay, db, "wrong-name", "certificate", "tls", "ssl", "host")
    finally:
        server.stop()


def test_a_client_certificate_is_shown_where_the_server_asks_for_it(db, orders, authority,
                                                                  start_relay):
    cert, key = authority.certificate("server")
    client_cert, client_key = authority.certificate("client")
    server = NatsServer(tls={"cert": cert, "key": key, "ca": authority.ca}).start()
    as_client = {"tls_ca": authority.ca, "tls_cert": client_cert, "tls_key": client_key}
    try:
        with server.client(**as_client) as client:
            client.create_stream("s", "relay.>")
            set_outbox(db, "rows", to_nats("orders", server, "relay.rows", sink=as_client))
            with start_relay(db.relay_dsn, allow_secret=f"file:{client_key}"):
                insert_rows(db, "orders", 1)
                eventually(lambda: client.count("s") == 1)
    finally:
        server.stop()


# The file ----------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_named_and_used_when_it_can(db, orders, start_relay,
                                                                    tmp_path):
    folder = tmp_path / "not-yet"
    lines = Lines(folder / "out.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1, 3)
        trouble_is_named(relay, db, "rows", "out.jsonl")
        folder.mkdir()
        lines.wait_rows([1, 2, 3], deadline=40)
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 64 KiB, and what gives it more."""
    folder = tmp_path / "small-disk"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", folder],
                              capture_output=True)
        return done.returncode == 0
    need(mount("size=64k"), "the right to mount a file system")
    try:
        yield folder, lambda: mount("remount", "size=16m")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_harms_no_neighbour_tears_no_line_and_is_made_good_when_there_is_room(
        db, orders, start_relay, small_disk, tmp_path):
    folder, make_room = small_disk
    full, other = Lines(folder / "full.jsonl"), Lines(tmp_path / "other.jsonl")
    set_outbox(db, "full", to_file("orders", full.path, retry={"min": "50ms", "max": "500ms"}))
    set_outbox(db, "other", to_file("orders", other.path))
    with start_relay(db.relay_dsn) as relay:
        for first in range(1, 500, 50):
            db.execute("insert into orders select g, repeat('x', 1000), 1"
                       " from generate_series(%s::int, %s::int) g", (first, first + 49))
        trouble_is_named(relay, db, "full", "full.jsonl")
        assert relay.pipeline("full")["state"] == "retrying"
        assert relay.health()[1]["status"] == "degraded"
        other.wait_rows(range(1, 501))
        assert make_room()
        full.wait_rows(range(1, 501))
        assert full.torn == 0
        relay.wait_healthy()
        assert db.one("select count(*) from pgtrickle.relay_dlq") == 0


def test_a_file_that_may_not_grow_stops_its_own_pipeline_only(db, orders, start_relay, tmp_path):
    limited, other = Lines(tmp_path / "limited.jsonl"), Lines(tmp_path / "other.jsonl")
    set_outbox(db, "limited", to_file("orders", limited.path))
    with start_relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
        for first in range(1, 200, 20):
            insert_rows(db, "orders", first, 20)
        trouble_is_named(relay, db, "limited", "limited.jsonl")
        make_table(db, "small")
        set_outbox(db, "other", to_file("small", other.path))
        insert_rows(db, "small", 1, 3)
        other.wait_rows([1, 2, 3])
        resource.prlimit(relay.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        limited.wait_rows(range(1, 201), deadline=40)  # tried again every 30 s
        assert limited.torn == 0


def test_a_line_torn_by_a_kill_does_not_swallow_the_next_one(db, orders, relay_bin, tmp_path):
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    with open(lines.path, "w") as torn:
        torn.write('{"stream_table":"orders","sequ')
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1, 2)
        lines.wait_rows([1, 2])


def test_memory_stays_bounded_while_the_broker_is_away(db, nats, start_relay, orders):
    set_outbox(db, "rows", to_nats("orders", nats, "relay.rows", message="row"))
    nats.stop()
    with start_relay(db.relay_dsn) as relay:
        db.execute("insert into orders select g, repeat('x', 500), 1"
                   " from generate_series(1, 100000) g")
        relay.wait_state("rows", "retrying")
        holds_for(lambda: relay.resident_kib() < 96 * 1024 * SLOW_FACTOR, 2, interval=0.1)
    nats.start()
