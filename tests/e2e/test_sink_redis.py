"""The Redis Streams sink, by the real binary against a real server, read with an independent client."""

import json
import re
import shutil

import pytest

from support.fixtures import need
from support.load import rows_written_through_a_stop
from support.pipelines import SLOW_FACTOR, insert_rows, new_rows, set_outbox, wait_settled
from support.redis_server import RedisServer
from support.tls import Authority
from support.waiting import eventually
from support.writers import Writer, bulk, dead_letters, wait_trouble


@pytest.fixture
def server():
    need(shutil.which("redis-server"), "redis-server")
    server = RedisServer().start()
    yield server
    server.stop()


def to_redis(server, stream_key="s", port=None, sink=None, **options):
    """A pipeline's configuration: the outbox of `orders` to a stream."""
    url = f"redis://127.0.0.1:{port}" if port else server.url
    return {"stream_table": "orders",
            "sink": {"type": "redis", "url": url, "stream_key": stream_key, **(sink or {})},
            **options}


def rows(server, key="s"):
    """The ids of all rows that arrived as new, in the stream's order."""
    return [row["id"] for _, fields in server.entries(key)
            for row in new_rows(json.loads(fields["payload"]))]


def first_arrivals(server, key="s"):
    """As rows(), without what came again under an id that had arrived already."""
    seen, found = set(), []
    for _, fields in server.entries(key):
        if fields["pgtrickle_id"] not in seen:
            seen.add(fields["pgtrickle_id"])
            found += [row["id"] for row in new_rows(json.loads(fields["payload"]))]
    return found


def wait_rows(server, wanted, deadline=30, key="s"):
    """Waits until exactly these rows are in the stream, in this order, each once."""
    wanted = list(wanted)
    eventually(lambda: server.count(key) and len(rows(server, key)) >= len(wanted),
               deadline * SLOW_FACTOR, interval=0.1)
    assert rows(server, key) == wanted


def wait_first_arrivals(server, wanted, deadline=60, key="s"):
    """Waits until each of these rows is in the stream; they came first in this order."""
    wanted = list(wanted)
    eventually(lambda: len(first_arrivals(server, key)) >= len(wanted), deadline * SLOW_FACTOR,
               interval=0.2, message=lambda: f"{len(first_arrivals(server, key))} rows of "
                                             f"{len(wanted)}")
    assert first_arrivals(server, key) == wanted


class StatementWriter(Writer):
    """Inserts a hundred rows a statement."""

    def __init__(self, db, first):
        super().__init__(db)
        self.committed = first - 1

    def _run(self):
        with self._db.connect() as connection:
            while not self._stop.is_set():
                first = self.committed + 1
                connection.execute(
                    "insert into orders select i, 'w', i from generate_series(%s::bigint,"
                    " %s::bigint) i", (first, first + 99))
                self.committed = first + 99


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_id_and_headers_are_the_fields_that_the_documentation_names(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, "relay.{op}", message="row",
                                 headers={"source-system": "shop"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1)")
        db.execute("truncate orders")
        wait_settled(db, "p", "orders")
    (_, inserted), = server.entries("relay.insert")
    assert re.fullmatch(rb"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", inserted["pgtrickle_id"])
    body = json.loads(inserted["payload"])
    assert body["new"]["name"] == "a"
    assert inserted["pgtrickle_op"] == b"insert"
    assert inserted["pgtrickle_stream_table"] == b"orders"
    assert inserted["pgtrickle_outbox_id"] == str(body["sequence"]).encode()
    assert inserted["source-system"] == b"shop"
    assert "pgtrickle_full_refresh" not in inserted
    (_, truncated), = server.entries("relay.refresh")
    assert truncated["pgtrickle_full_refresh"] == b"true"


def test_bodies_arrive_byte_for_byte(db, server, relay):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", {**to_redis(server), "stream_table": "events"})
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 5_000_000})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: server.count("s") == len(texts), 30 * SLOW_FACTOR)
    stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
    assert [fields["payload"] for _, fields in server.entries("s")] == stored


def test_one_field_a_column(db, server, relay):
    db.execute("create table orders (id bigint primary key, name text, amount numeric, tags jsonb)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    set_outbox(db, "p", to_redis(server, message="row", sink={"field_mode": "columns"}))
    with relay:
        db.execute("insert into orders values (1, 'a \"quoted\" ü', 10.50, '{\"a\": [1, 2]}'),"
                   " (2, null, null, null)")
        db.execute("delete from orders where id = 1")
        wait_settled(db, "p", "orders")
    columns = [{name: value.decode() for name, value in fields.items()
                if not name.startswith("pgtrickle_")} for _, fields in server.entries("s")]
    assert columns == [{"id": "1", "name": 'a "quoted" ü', "amount": "10.50",
                        "tags": '{"a": [1, 2]}'},
                       {"id": "2"},
                       {"id": "1", "name": 'a "quoted" ü', "amount": "10.50",
                        "tags": '{"a": [1, 2]}'}]
    assert [fields["pgtrickle_op"] for _, fields in server.entries("s")] == [
        b"insert", b"insert", b"delete"]


def test_one_field_a_column_of_a_delta_is_a_configuration_error(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, sink={"field_mode": "columns"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "cannot hold a delta", remedy="row")
        assert relay.pipeline("p")["state"] == "misconfigured"
    assert server.count("s") == 0 and dead_letters(db, "p") == []


def test_streams_are_trimmed_to_about_maxlen(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, message="row", sink={"maxlen": 1000}))
    with relay:
        bulk(db, 1, 5000)
        eventually(lambda: relay.metric("messages_delivered_total", pipeline="p") == 5000,
                   30 * SLOW_FACTOR)
    assert 1000 <= server.count("s") < 1500
    assert rows(server)[-1] == 5000


def test_the_database_of_the_url_takes_the_messages(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, sink={"url": server.url + "/3"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "p", "orders")
    assert server.count("s") == 0
    with server.client(db=3) as client:
        assert client.xlen("s") == 1


# Faults ------------------------------------------------------------------------------------


def test_what_the_server_refuses_for_lack_of_memory_is_waited_for_in_order(db, server, relay,
                                                                           orders):
    set_outbox(db, "p", to_redis(server, message="row", key_template="one"))
    with relay, server.client() as client:
        insert_rows(db, "orders", 1)
        wait_rows(server, [1])
        with StatementWriter(db, 2) as writer:
            for _ in range(20):  # full, and free again, while messages flow
                client.config_set("maxmemory", 1)
                writer.wait(writer.committed + 20)
                client.config_set("maxmemory", 0)
                writer.wait(writer.committed + 20)
        wait_first_arrivals(server, range(1, writer.committed + 1))
    assert dead_letters(db, "p") == []


def test_a_full_server_is_told_and_waited_for(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server))
    with relay, server.client() as client:
        client.config_set("maxmemory", 1)
        insert_rows(db, "orders", 1, 5)
        wait_trouble(relay, db, "p", "OOM", remedy="maxmemory")
        client.config_set("maxmemory", 0)
        wait_rows(server, range(1, 6))
    assert dead_letters(db, "p") == []


def test_a_replica_is_passed_over_for_the_master(db, server, relay, orders):
    replica = RedisServer(settings=[f"replicaof 127.0.0.1 {server.port}"]).start()
    try:
        set_outbox(db, "p", to_redis(server, sink={"url": f"{replica.url},{server.url}"}))
        set_outbox(db, "alone", to_redis(replica))
        with relay:
            insert_rows(db, "orders", 1)
            wait_rows(server, [1])
            wait_trouble(relay, db, "alone", "is a replica", remedy="master")
    finally:
        replica.stop()


def test_the_second_server_of_the_list_serves(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, sink={"url": f"redis://127.0.0.1:1,{server.url}"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(server, [1])


def test_tls_is_verified_and_a_wrong_authority_is_named_while_others_run(db, relay, orders):
    authority, other = Authority(), Authority("another CA")
    certificate, key = authority.certificate("server")
    server = RedisServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    try:
        set_outbox(db, "trusted", to_redis(server, sink={"tls_ca": authority.ca}))
        set_outbox(db, "wrong-ca", to_redis(server, sink={"tls_ca": other.ca}))
        set_outbox(db, "no-ca", to_redis(server))
        set_outbox(db, "plain", to_redis(server, port=server.port,
                                         sink={"connect_timeout": "1s"}))
        with relay:
            bulk(db, 1, 2000, size=300)
            for name in ("wrong-ca", "no-ca"):
                wait_trouble(relay, db, name, "certificate .* not trusted", remedy="tls_ca")
            wait_trouble(relay, db, "plain", "Redis at")
            wait_rows(server, range(1, 2001))
            assert relay.pipeline("trusted")["last_error"] is None
    finally:
        server.stop()


def test_the_name_in_the_certificate_is_verified(db, relay, orders):
    authority = Authority()
    certificate, key = authority.certificate("server", "DNS:elsewhere.example")
    server = RedisServer(tls={"cert": certificate, "key": key, "ca": authority.ca})
    server.tls = dict(server.tls)
    server._answers = lambda: "Ready to accept" in server.log()
    server.start()
    try:
        set_outbox(db, "address", to_redis(server, sink={"tls_ca": authority.ca}))
        set_outbox(db, "name", to_redis(server, sink={
            "tls_ca": authority.ca, "url": f"rediss://localhost:{server.port}"}))
        with relay:
            insert_rows(db, "orders", 1)
            wait_trouble(relay, db, "address", "certificate .* not trusted: .*[Ii][Pp]")
            wait_trouble(relay, db, "name", "certificate .* not trusted: .*hostname")
    finally:
        server.process.kill9()


def test_a_client_certificate_is_shown(db, relay, orders):
    authority = Authority()
    certificate, key = authority.certificate("server")
    mine, my_key = authority.certificate("client")
    server = RedisServer(tls={"cert": certificate, "key": key, "ca": authority.ca,
                              "clients": True}).start()
    try:
        set_outbox(db, "p", to_redis(server, sink={
            "tls_ca": authority.ca, "tls_cert": mine, "tls_key": my_key}))
        set_outbox(db, "without", to_redis(server, sink={"tls_ca": authority.ca}))
        relay.argv += ["--allow-secret", f"file:{my_key}"]
        with relay:
            insert_rows(db, "orders", 1)
            wait_rows(server, [1])
            wait_trouble(relay, db, "without", "certificate")
    finally:
        server.stop()


def test_credentials_are_used_and_wrong_ones_are_told(db, relay, orders):
    server = RedisServer(password="secret").start()
    try:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "writer", "on", ">w:@/word", "~s", "+@all")
        set_outbox(db, "in-url", to_redis(server, sink={
            "url": f"redis://writer:w%3A%40%2Fword@127.0.0.1:{server.port}"}))
        set_outbox(db, "default-user", to_redis(server, "t", sink={"password": "secret"}))
        set_outbox(db, "wrong", to_redis(server, "t", sink={"password": "guessed"}))
        set_outbox(db, "none", to_redis(server, "t"))
        set_outbox(db, "other-key", to_redis(server, "t", sink={
            "user": "writer", "password": "w:@/word"}))
        with relay:
            insert_rows(db, "orders", 1)
            wait_rows(server, [1])
            wait_rows(server, [1], key="t")
            wait_trouble(relay, db, "wrong", "AUTH.*WRONGPASS", remedy="password")
            wait_trouble(relay, db, "none", "NOAUTH", remedy="password")
            wait_trouble(relay, db, "other-key", "NOPERM", remedy="ACL")
            for name in ("wrong", "none", "other-key"):
                assert relay.pipeline(name)["state"] == "misconfigured"
            assert "guessed" not in relay.log(1000) and "w:@/word" not in relay.log(1000)
    finally:
        server.stop()


def test_exactly_what_a_key_forbids_is_set_aside_and_can_be_sent_later(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, "relay.{{ name }}", message="row", key_template="one"))
    with relay, server.client() as client:
        client.set("relay.poison", "a text")
        db.execute("insert into orders select i, case i when 5000 then 'poison' else 'good' end, i"
                   " from generate_series(1, 10000) i")
        eventually(lambda: server.count("relay.good") >= 9999, 60 * SLOW_FACTOR)
        assert rows(server, "relay.good") == [i for i in range(1, 10001) if i != 5000]
        eventually(lambda: len(dead_letters(db, "p")) == 1)
        (letter, code, message, payload), = dead_letters(db, "p")
        assert code == "wrong_type" and "relay.poison" in message
        assert json.loads(payload)["new"]["id"] == 5000
        client.delete("relay.poison")
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        wait_rows(server, [5000], key="relay.poison")
        eventually(lambda: dead_letters(db, "p") == [])


def test_a_stop_under_load_is_clean(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server))
    written = rows_written_through_a_stop(db, relay)
    wait_rows(server, written)
    relay.stop()


def test_a_silent_server_does_not_hold_up_a_stop(db, server, relay, orders):
    set_outbox(db, "p", to_redis(server, sink={"response_timeout": "60s"}))
    relay.start()
    insert_rows(db, "orders", 1)
    wait_rows(server, [1])
    server.freeze()
    insert_rows(db, "orders", 2)
    eventually(lambda: relay.pipeline("p")["lag"] or relay.metric(
        "messages_delivered_total", pipeline="p") == 1)
    relay.stop(deadline=40)
    server.thaw()
