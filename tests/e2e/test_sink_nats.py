"""The NATS JetStream sink, by the real binary against a real server, read with an independent client."""

import json
import re

import pytest

from support.load import rows_written_through_a_stop
from support.nats_server import NatsServer
from support.nats_tool import add_stream
from support.pipelines import SLOW_FACTOR, insert_rows, new_rows, set_outbox, to_nats, wait_settled
from support.relay import run_command
from support.tls import Authority
from support.waiting import eventually
from support.writers import Writer, dead_letters, wait_trouble


@pytest.fixture
def stream(nats):
    """A stream `s` over relay.>, and a client for it."""
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        yield client


def rows(client, stream="s"):
    """The ids of all rows that arrived as new, in the stream's order."""
    return [row["id"] for message in client.messages(stream) for row in new_rows(message.json)]


def wait_rows(client, wanted, deadline=30, stream="s"):
    """Waits until exactly these rows are in the stream, in this order, each once."""
    wanted = list(wanted)
    eventually(lambda: client.count(stream) >= 1 and len(rows(client, stream)) >= len(wanted),
               deadline * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{client.count(stream)} messages, wanted {len(wanted)} rows")
    assert rows(client, stream) == wanted


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_id_and_headers_are_where_the_documentation_says(db, nats, relay, orders, stream):
    set_outbox(db, "p", to_nats("orders", nats, "relay.{op}", message="row",
                                headers={"source-system": "shop"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1)")
        db.execute("truncate orders")
        eventually(lambda: stream.count("s") == 2)
    inserted, truncated = stream.messages("s")
    assert inserted.subject == "relay.insert"
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", inserted.id)
    assert inserted.headers["pgtrickle-id"] == inserted.id
    assert inserted.headers["pgtrickle-op"] == "insert"
    assert inserted.headers["pgtrickle-stream-table"] == "orders"
    assert inserted.headers["pgtrickle-outbox-id"] == str(inserted.json["sequence"])
    assert inserted.headers["source-system"] == "shop"
    assert "Pgtrickle-Full-Refresh" not in inserted.headers
    assert truncated.headers["Pgtrickle-Full-Refresh"] == "true"


def test_bodies_arrive_byte_for_byte(db, nats, relay, stream):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", to_nats("events", nats, "relay.events"))
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 900_000})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: stream.count("s") == len(texts), 20 * SLOW_FACTOR)
    stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
    assert [message.data for message in stream.messages("s")] == stored


def test_values_that_are_no_legal_token_are_escaped_reversibly(db, nats, relay, orders, stream):
    set_outbox(db, "p", to_nats("orders", nats, "relay.{{ name }}", message="row"))
    names = {"a.b": "a%2Eb", "c d": "c%20d", "*": "%2A", ">": "%3E", "100%": "100%25", "": "%",
             "Zürich": "Zürich", "tab\t": "tab%09"}
    with relay:
        for identity, name in enumerate(names):
            db.execute("insert into orders values (%s, %s, 0)", (identity, name))
        eventually(lambda: stream.count("s") == len(names))
    assert [m.subject for m in stream.messages("s")] == [f"relay.{t}" for t in names.values()]


def test_a_prefix_with_an_ending_wildcard_publishes_to_prefix_and_table(db, nats, relay, orders,
                                                                        stream):
    set_outbox(db, "p", {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                         "nats_subject": "relay.>"})
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(stream, [1])
    assert stream.messages("s")[0].subject == "relay.orders"


def test_any_other_wildcard_is_a_configuration_error(db, nats, relay, orders):
    set_outbox(db, "p", {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                         "nats_subject": "relay.*.x"})
    with relay:
        relay.wait_state("p", "misconfigured")
        wait_trouble(relay, db, "p", "wildcard")


def test_the_stream_is_made_where_it_is_told(db, nats, relay, orders):
    set_outbox(db, "p", to_nats("orders", nats, "made.{stream_table}", sink={
        "stream": "made", "create_stream": True, "stream_subjects": ["made.>"]}))
    with relay, nats.client() as client:
        insert_rows(db, "orders", 1, 3)
        wait_settled(db, "p", "orders")
        assert client.stream_info("made")["config"]["subjects"] == ["made.>"]
        assert rows(client, "made") == [1, 2, 3]


def test_a_stream_that_is_named_is_made_for_what_the_template_can_become(db, nats, relay, orders):
    set_outbox(db, "p", {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                         "nats_stream": "fresh", "subject_template": "fresh.{stream_table}.{op}"})
    with relay, nats.client() as client:
        insert_rows(db, "orders", 1, 3)
        wait_settled(db, "p", "orders")
        assert client.stream_info("fresh")["config"]["subjects"] == ["fresh.*.*"]
        assert rows(client, "fresh") == [1, 2, 3]


def test_a_stream_is_made_where_none_takes_the_subject(db, nats, relay, orders):
    set_outbox(db, "p", {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                         "nats_subject": "sales.>"})
    set_outbox(db, "q", {"stream_table": "orders", "sink_type": "nats", "nats_url": nats.url,
                         "nats_subject": "sales.>"})
    with relay, nats.client() as client:
        insert_rows(db, "orders", 1, 3)
        wait_settled(db, "p", "orders")
        wait_settled(db, "q", "orders")
        assert client.stream_info("sales")["config"]["subjects"] == ["sales.>"]
        assert sorted(rows(client, "sales")) == [1, 1, 2, 2, 3, 3]


def test_a_stream_that_is_not_to_be_made_is_an_error_with_the_command_that_makes_it(
        db, nats, relay, orders):
    named = {"stream": "it's", "create_stream": False}
    set_outbox(db, "named", to_nats("orders", nats, "a.{op}.{stream_table}", sink=named))
    set_outbox(db, "unnamed", to_nats("orders", nats, "b.{op}", sink={"create_stream": False}))
    set_outbox(db, "plain", to_nats("orders", nats, "{stream_table}"))
    with relay, nats.client() as client:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "named", "no stream 'it's'", remedy="nats stream add")
        wait_trouble(relay, db, "unnamed", "no JetStream stream takes", remedy="nats stream add b")
        wait_trouble(relay, db, "plain", "no JetStream stream takes", remedy="add orders")
        assert [(relay.pipeline(name)["state"], add_stream(
                    client, relay.pipeline(name)["remedy"], nats))
                for name in ("named", "unnamed", "plain")] == [
            ("misconfigured", ("it's", ["a.*.*"])), ("misconfigured", ("b", ["b.*"])),
            ("misconfigured", ("orders", ["orders"]))]
        insert_rows(db, "orders", 2)  # what waits goes on by itself, within 30 seconds
        for name in ("named", "unnamed", "plain"):
            db.execute("select pgtrickle.pause_relay(%s)", (name,))
            db.execute("select pgtrickle.resume_relay(%s)", (name,))
        for stream in ("it's", "b", "orders"):
            wait_rows(client, [1, 2], stream=stream)


# Faults ------------------------------------------------------------------------------------


def test_the_second_server_of_the_list_serves(db, nats, relay, orders, stream):
    set_outbox(db, "p", to_nats("orders", nats, sink={"url": f"nats://127.0.0.1:1,{nats.url}"}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(stream, [1])


def test_tls_is_verified_and_a_wrong_authority_is_named_while_others_run(db, relay, orders):
    authority, other = Authority(), Authority("another CA")
    certificate, key = authority.certificate("server")
    server = NatsServer(tls={"cert": certificate, "key": key}).start()
    try:
        with server.client(tls_ca=authority.ca) as client:
            client.create_stream("s", "relay.>")
            set_outbox(db, "trusted", to_nats("orders", server, sink={"tls_ca": authority.ca}))
            set_outbox(db, "wrong-ca", to_nats("orders", server, sink={"tls_ca": other.ca}))
            set_outbox(db, "no-ca", to_nats("orders", server))
            with relay:
                insert_rows(db, "orders", 1)
                for name in ("wrong-ca", "no-ca"):
                    wait_trouble(relay, db, name, "certificate .* not trusted", remedy="tls_ca")
                wait_rows(client, [1])
                assert relay.pipeline("trusted")["last_error"] is None
    finally:
        server.stop()


def test_a_changed_subject_takes_effect_while_rows_flow(db, nats, relay, orders, stream):
    set_outbox(db, "p", to_nats("orders", nats, "relay.before"))
    with relay:
        with Writer(db) as writer:
            writer.wait(100)
            set_outbox(db, "p", to_nats("orders", nats, "relay.after"))
            eventually(lambda: stream.messages("s")[-1].subject == "relay.after")
            writer.wait(writer.committed + 50)
        wait_rows(stream, range(1, writer.committed + 1))
    subjects = [message.subject for message in stream.messages("s")]
    assert subjects == sorted(subjects, reverse=True)


def test_a_stop_under_load_is_clean_and_leaves_no_duplicate(db, nats, relay, orders, stream):
    set_outbox(db, "p", to_nats("orders", nats))
    written = rows_written_through_a_stop(db, relay)
    wait_rows(stream, written)
    assert relay.metric("duplicates_total", pipeline="p") in (None, 0)
    relay.stop()


def test_a_full_stream_is_waited_for(db, nats, relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>", max_msgs=10, discard="new")
        set_outbox(db, "p", to_nats("orders", nats))
        with relay:
            insert_rows(db, "orders", 1, 25)
            wait_trouble(relay, db, "p", "maximum messages exceeded")
            assert rows(client) == list(range(1, 11))
            client.update_stream("s", max_msgs=100)
            wait_rows(client, range(1, 26), 60)
    assert dead_letters(db, "p") == []


def test_a_user_without_the_permission_is_told_which_one(db, relay, orders):
    users = ('authorization { users: [ { user: all, password: p }, { user: relay, password: p, '
             'permissions: { publish: ["$JS.API.>"], subscribe: ">" } } ] }')
    server = NatsServer(extra=users).start()
    try:
        with server.client(user="all", password="p") as client:
            client.create_stream("s", "relay.>")
            set_outbox(db, "p", to_nats("orders", server, sink={"user": "relay", "password": "p"}))
            with relay:
                insert_rows(db, "orders", 1)
                wait_trouble(relay, db, "p", "(?i)permission")
                assert relay.pipeline("p")["state"] == "misconfigured"
    finally:
        server.stop()


def test_check_makes_no_stream(db, nats, orders):
    set_outbox(db, "rows", to_nats("orders", nats, "fresh.rows", sink={
        "stream": "fresh", "create_stream": True, "stream_subjects": ["fresh.>"]}))
    done = run_command("check", "--postgres-url", db.relay_dsn)
    assert done.returncode == 0, done.stdout + done.stderr
    with nats.client() as client, pytest.raises(Exception, match="not found"):
        client.stream_info("fresh")


def test_subject_and_subject_template_that_differ_are_a_mistake(db, nats, orders, relay):
    set_outbox(db, "rows", to_nats("orders", nats, "a.{op}", sink={"subject": "b.>"}))
    with relay:
        wait_trouble(relay, db, "rows", "subject_template and subject differ", "give one of them")
