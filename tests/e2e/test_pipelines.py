"""A pipeline's life: configured in SQL, changed while it runs, paused, replayed, stopped."""

import json
import re
import time

import pytest

from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, message_id,
                               newest_outbox_id, position, set_outbox, status_row, to_file, to_nats,
                               wait_settled)
from support.nats_server import NatsServer
from support.waiting import eventually


@pytest.fixture
def to_lines(db, tmp_path, orders):
    """to_lines(name, **options): a pipeline from `orders` into a file; its Lines."""
    def make(name, **options):
        lines = Lines(tmp_path / f"{name}.jsonl")
        set_outbox(db, name, to_file("orders", lines.path, **options))
        return lines
    return make


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_each_committed_change_arrives_once_in_the_native_envelope(db, relay, to_lines):
    lines = to_lines("changes")
    with relay:
        db.execute("insert into orders values (1, 'one', 10.50), (2, 'two', 20)")
        db.execute("update orders set amount = 11 where id = 1")
        db.execute("delete from orders where id = 2")
        eventually(lambda: len(lines.messages()) == 3)
    inserted, updated, deleted = lines.messages()
    assert set(inserted) == {"stream_table", "sequence", "timestamp", "delta", "metadata"}
    assert inserted["stream_table"] == "orders"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", inserted["timestamp"])
    one, two = ({"id": 1, "name": "one", "amount": 10.5}, {"id": 2, "name": "two", "amount": 20})
    assert inserted["delta"] == {"inserted": [one, two], "deleted": []}
    assert updated["delta"] == {"inserted": [{**one, "amount": 11}], "deleted": [one]}
    assert deleted["delta"] == {"inserted": [], "deleted": [two]}
    assert [m["metadata"]["delta_rows"] for m in (inserted, updated, deleted)] == [2, 2, 1]
    assert inserted["sequence"] < updated["sequence"] < deleted["sequence"]
    outbox_id, digits = re.fullmatch(r"changes:(\d+)-([0-9a-f]{8}):\d+\.[0-9a-f]{4}",
                                     message_id(inserted)).groups()
    assert int(outbox_id) == inserted["sequence"]
    assert len({message_id(m) for m in lines.messages()}) == 3


def test_row_mode_gives_one_message_a_row_with_its_op_key_and_both_states(db, relay, to_lines):
    lines = to_lines("rows", message="row")
    with relay:
        db.execute("insert into orders values (1, 'one', 1), (2, 'two', 2)")
        db.execute("update orders set amount = 3 where id = 1")
        db.execute("delete from orders where id = 2")
        eventually(lambda: len(lines.messages()) == 4)
    messages = lines.messages()
    assert [m["op"] for m in messages] == ["insert", "insert", "update", "delete"]
    assert [m["key"] for m in messages] == [{"id": 1}, {"id": 2}, {"id": 1}, {"id": 2}]
    assert messages[2]["old"]["amount"] == 1 and messages[2]["new"]["amount"] == 3
    assert messages[3]["old"]["name"] == "two"


def test_numbers_of_any_precision_pass_byte_for_byte(db, relay, to_lines):
    lines = to_lines("precise")
    number = "1234567890123456789012345678901234567890.0123456789"
    with relay:
        db.execute(f"insert into orders values (9007199254740993, 'ü \"quoted\" \\ 𝄞', {number})")
        eventually(lambda: lines.messages())
    with open(lines.path) as text:
        line = text.read()
    assert number in line and "9007199254740993" in line
    assert lines.messages()[0]["delta"]["inserted"][0]["name"] == 'ü "quoted" \\ 𝄞'


def test_rolled_back_changes_never_arrive(db, relay, to_lines):
    lines = to_lines("kept")
    with relay:
        with db.connect(autocommit=False) as connection:
            connection.execute("insert into orders values (1, 'no', 1)")
            connection.rollback()
        insert_rows(db, "orders", 2)
        lines.wait_rows([2])


def test_truncate_arrives_as_a_full_refresh_without_rows(db, relay, to_lines):
    lines = to_lines("all")
    with relay:
        insert_rows(db, "orders", 1)
        db.execute("truncate orders")
        eventually(lambda: len(lines.messages()) == 2)
    last = lines.messages()[1]
    assert last["metadata"]["full_refresh"] is True
    assert last["delta"] == {"inserted": [], "deleted": []}


def test_application_events_arrive_as_they_were_published(db, nats, relay):
    with nats.client() as client:
        client.create_stream("events", "shop.>")
        db.execute("select pgtrickle.create_outbox('shop')")
        set_outbox(db, "shop", to_nats("shop", nats, "shop.{event_type}"))
        with relay:
            db.execute("select pgtrickle.publish('shop', '{\"total\": 12.30}'::jsonb,"
                       " event_type => 'order.paid', key => 'o-1',"
                       " headers => '{\"traceparent\": \"00-abc\"}'::jsonb)")
            eventually(lambda: client.count("events") == 1)
        message = client.messages("events")[0]
    assert message.subject == "shop.order.paid" or message.headers["pgtrickle-op"] == "order.paid"
    assert message.json == {"total": 12.30}
    assert b"12.30" in message.data
    assert message.headers["traceparent"] == "00-abc"


def test_stdout_is_a_sink(db, relay, orders):
    set_outbox(db, "screen", {"stream_table": "orders", "sink_type": "stdout"})
    with relay:
        insert_rows(db, "orders", 1, 3)
        eventually(lambda: len(relay.stdout_lines) == 3)
    assert [json.loads(line)["delta"]["inserted"][0]["id"] for line in relay.stdout_lines] \
        == [1, 2, 3]


def test_nats_messages_carry_the_id_and_headers(db, nats, relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        set_outbox(db, "rows", to_nats("orders", nats, "relay.{stream_table}.{op}", message="row"))
        with relay:
            insert_rows(db, "orders", 1)
            db.execute("truncate orders")
            eventually(lambda: client.count("s") == 2)
        first, full = client.messages("s")
    assert first.subject == "relay.orders.insert"
    assert first.headers["Nats-Msg-Id"] == first.headers["pgtrickle-id"]
    assert first.headers["pgtrickle-op"] == "insert"
    assert first.headers["pgtrickle-stream-table"] == "orders"
    assert first.headers["pgtrickle-outbox-id"] == str(first.json["sequence"])
    assert full.headers["Pgtrickle-Full-Refresh"] == "true"


def test_two_pipelines_over_one_outbox_each_deliver_everything_under_their_own_ids(
        db, nats, relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        for name in ("a", "b"):
            set_outbox(db, name, to_nats("orders", nats, f"relay.{name}"))
        with relay:
            insert_rows(db, "orders", 1, 10)
            eventually(lambda: client.count("s") == 20)
        ids = [message.id for message in client.messages("s")]
    assert len(set(ids)) == 20


def test_a_pipeline_that_starts_at_latest_leaves_out_what_was_there(db, relay, to_lines):
    everything = to_lines("everything")
    insert_rows(db, "orders", 1, 3)
    with relay:
        everything.wait_rows([1, 2, 3])
        newest = to_lines("newest", start="latest")
        relay.wait_state("newest", "idle", "running")
        eventually(lambda: position(db, "newest"))
        insert_rows(db, "orders", 4, 2)
        newest.wait_rows([4, 5])
        everything.wait_rows([1, 2, 3, 4, 5])


def test_ten_thousand_rows_arrive_in_order_across_batch_borders(db, nats, relay, to_lines):
    lines = to_lines("small-batches", batch_size=77)
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        set_outbox(db, "nats", to_nats("orders", nats, "relay.rows", batch_size=333))
        with db.connect() as connection, connection.pipeline():
            for identity in range(1, 10001):
                connection.execute("insert into orders values (%s, 'x', 1)", (identity,))
        with relay:
            lines.wait_rows(range(1, 10001), deadline=60)
            eventually(lambda: client.count("s") == 10000, 30)
        rows = [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")]
    assert rows == list(range(1, 10001))


@pytest.mark.parametrize("name", ["with-hyphen", "Kapital", "quo\"ted", "dot.ted", "ünïcode",
                                  "x" * 63])
def test_unusual_table_names_flow(db, relay, tmp_path, name):
    quoted = '"' + name.replace('"', '""') + '"'
    db.execute(f"create table {quoted} (id int primary key)")
    db.execute("select pgtrickle.enable_outbox(%s)", (quoted,))
    lines = Lines(tmp_path / "out.jsonl")
    set_outbox(db, "odd", to_file(name if name != "dot.ted" else quoted, lines.path))
    with relay:
        db.execute(f"insert into {quoted} values (1)")
        lines.wait_rows([1])
    assert lines.messages()[0]["stream_table"] == name


# Changed while it runs ---------------------------------------------------------------------


@pytest.mark.sanitizer
def test_a_new_pipeline_runs_within_a_second_of_being_enabled(db, relay, to_lines):
    first = to_lines("first")
    with relay:
        insert_rows(db, "orders", 1)
        first.wait_rows([1])
        second = to_lines("second")
        begin = time.monotonic()
        second.wait_rows([1])
        assert time.monotonic() - begin < 1 * SLOW_FACTOR


def owner_token(db, pipeline):
    return db.one("select owner_token from pgtrickle.relay_consumer_offsets where pipeline_id = %s",
                  (pipeline,))


def test_a_change_takes_effect_within_a_second_and_touches_only_that_pipeline(
        db, relay, to_lines, tmp_path):
    changed, other = to_lines("changed"), to_lines("other")
    with relay:
        insert_rows(db, "orders", 1)
        changed.wait_rows([1])
        other.wait_rows([1])
        wait_settled(db, "other", "orders")
        token = owner_token(db, "other")
        assert token
        elsewhere = Lines(tmp_path / "elsewhere.jsonl")
        set_outbox(db, "changed", to_file("orders", elsewhere.path), enable=False)
        begin = time.monotonic()
        # Rows until one arrives there: the first ones may still go the old way.
        identity = 1

        def arrived_elsewhere():
            nonlocal identity
            identity += 1
            insert_rows(db, "orders", identity)
            return elsewhere.rows()
        eventually(arrived_elsewhere, 5 * SLOW_FACTOR)
        assert time.monotonic() - begin < 1 * SLOW_FACTOR
        eventually(lambda: len(changed.rows()) + len(elsewhere.rows()) == identity)
        assert changed.rows() + elsewhere.rows() == list(range(1, identity + 1))
        other.wait_rows(range(1, identity + 1))
        assert owner_token(db, "other") == token, "the other pipeline was restarted"


def test_a_disabled_pipeline_stops_within_a_second_and_goes_on_where_it_stopped(
        db, relay, to_lines):
    lines, other = to_lines("switched"), to_lines("other")
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        wait_settled(db, "switched", "orders")
        db.execute("select pgtrickle.disable_relay('switched')")
        eventually(lambda: not relay.lists("switched"), 1 * SLOW_FACTOR)
        insert_rows(db, "orders", 2, 3)
        other.wait_rows([1, 2, 3, 4])
        assert lines.rows() == [1]
        db.execute("select pgtrickle.enable_relay('switched')")
        lines.wait_rows([1, 2, 3, 4])


def test_a_deleted_pipeline_leaves_no_position_and_a_new_one_of_that_name_begins_anew(
        db, relay, to_lines, tmp_path):
    lines = to_lines("gone")
    with relay:
        insert_rows(db, "orders", 1, 2)
        lines.wait_rows([1, 2])
        db.execute("select pgtrickle.delete_relay('gone')")
        eventually(lambda: not relay.lists("gone"), 2 * SLOW_FACTOR)
        eventually(lambda: position(db, "gone") is None)
        again = Lines(tmp_path / "again.jsonl")
        set_outbox(db, "gone", to_file("orders", again.path))
        again.wait_rows([1, 2])


def test_a_pipeline_whose_lease_could_not_be_given_up_runs_again_when_it_is_enabled(
        db, relay, to_lines):
    lines = to_lines("kept")
    release = "execute on function pgtrickle.relay_release_leases"
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        db.execute(f"revoke {release} from pgtrickle_relay")
        db.execute("select pgtrickle.disable_relay('kept')")
        eventually(lambda: "relay_release_leases" in relay.log(), message=relay.log)
        db.execute(f"grant {release} to pgtrickle_relay")
        db.execute("select pgtrickle.enable_relay('kept')")
        insert_rows(db, "orders", 2)
        lines.wait_rows([1, 2])


def test_a_pipeline_pointed_at_another_outbox_does_not_inherit_a_position(db, relay, to_lines,
                                                                          tmp_path):
    lines = to_lines("moved")
    make_table(db, "others")
    insert_rows(db, "others", 100, 2)
    with relay:
        insert_rows(db, "orders", 1, 5)
        lines.wait_rows(range(1, 6))
        elsewhere = Lines(tmp_path / "others.jsonl")
        set_outbox(db, "moved", to_file("others", elsewhere.path), enable=False)
        elsewhere.wait_rows([100, 101])


def test_a_change_for_the_worse_stops_only_that_pipeline_and_its_repair_loses_nothing(
        db, relay, to_lines):
    lines, other = to_lines("broken"), to_lines("other")
    good = to_file("orders", lines.path)
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        set_outbox(db, "broken", {**good, "subject_template": "x.{nonsense}"}, enable=False)
        relay.wait_state("broken", "misconfigured")
        insert_rows(db, "orders", 2, 2)
        other.wait_rows([1, 2, 3])
        assert lines.rows() == [1]
        set_outbox(db, "broken", good, enable=False)
        lines.wait_rows([1, 2, 3])
        relay.wait_healthy()


def test_a_notification_that_was_missed_is_made_good_by_the_next_look(db, relay, to_lines):
    lines = to_lines("listed")
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        # Changed behind the triggers' back: no NOTIFY is sent at all.
        db.execute("begin; set local session_replication_role = replica;"
                   "update pgtrickle.relay_outbox_config set enabled = false; commit")
        eventually(lambda: not relay.lists("listed"), 10 * SLOW_FACTOR)


# Paused and replayed -----------------------------------------------------------------------


def test_a_paused_pipeline_keeps_its_position_and_resumes_from_there(db, relay, to_lines):
    lines, other = to_lines("paused"), to_lines("other")
    with relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        db.execute("select pgtrickle.pause_relay('paused')")
        relay.wait_state("paused", "paused", deadline=2 * SLOW_FACTOR)
        insert_rows(db, "orders", 2, 3)
        other.wait_rows([1, 2, 3, 4])
        assert lines.rows() == [1]
        relay.wait_healthy()  # paused on purpose is not ill
        db.execute("select pgtrickle.resume_relay('paused')")
        lines.wait_rows([1, 2, 3, 4])


def test_a_state_that_a_lock_kept_from_the_database_is_written_when_the_lock_is_gone(db, relay,
                                                                                     to_lines):
    names = ("locked", "free")
    for name in names:
        to_lines(name)
    with relay:
        eventually(lambda: all((status_row(db, name) or {}).get("state") == "idle"
                               for name in names))
        with db.connect(autocommit=False) as other:
            other.execute("select from pgtrickle.relay_pipeline_status where pipeline = 'locked'"
                          " for update")
            for name in names:
                db.execute("select pgtrickle.pause_relay(%s)", (name,))
                relay.wait_state(name, "paused")
            eventually(lambda: status_row(db, "free")["state"] == "paused")
            assert status_row(db, "locked")["state"] == "idle"
            other.rollback()
        eventually(lambda: status_row(db, "locked")["state"] == "paused")


def test_a_pause_outlives_the_relay(db, start_relay, to_lines):
    lines = to_lines("paused")
    with start_relay(db.relay_dsn) as one:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        db.execute("select pgtrickle.pause_relay('paused')")
        one.wait_state("paused", "paused")
    with start_relay(db.relay_dsn) as two:
        insert_rows(db, "orders", 2)
        two.wait_state("paused", "paused")
        assert lines.rows() == [1]


def test_a_replay_sends_the_range_again_under_new_ids_and_does_not_move_the_position(
        db, nats, relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
        set_outbox(db, "rows", to_nats("orders", nats, "relay.rows"))
        with relay:
            insert_rows(db, "orders", 1, 5)
            wait_settled(db, "rows", "orders")
            before = position(db, "rows")
            first = client.messages("s")
            from_id, to_id = first[1].json["sequence"], first[3].json["sequence"]
            db.execute("select pgtrickle.replay_relay('rows', %s, %s)", (from_id, to_id))
            eventually(lambda: client.count("s") == 8)
            eventually(lambda: db.one("select finished_at is not null"
                                      " from pgtrickle.relay_replays order by id desc limit 1"))
            assert position(db, "rows") == before
            insert_rows(db, "orders", 6)
            eventually(lambda: client.count("s") == 9)
        messages = client.messages("s")
    again = messages[5:8]
    assert [m.id for m in again] == [f"{m.id}:r1" for m in first[1:4]]
    assert [m.json["delta"] for m in again] == [m.json["delta"] for m in first[1:4]]


# Options -----------------------------------------------------------------------------------


def test_a_filter_and_columns_let_through_what_they_say(db, relay, to_lines):
    lines = to_lines("some", filter="amount > 10 and name in ('a','b')", columns=["id", "amount"],
                     message="row")
    with relay:
        db.execute("insert into orders values (1,'a',5), (2,'a',20), (3,'c',30), (4,'b',40)")
        wait_settled(db, "some", "orders")
        lines.wait_rows([2, 4])
    assert lines.messages()[0]["new"] == {"id": 2, "amount": 20}


def test_a_batch_that_was_filtered_out_whole_moves_the_position(db, relay, to_lines):
    lines = to_lines("none", filter="amount > 1000000")
    with relay:
        insert_rows(db, "orders", 1, 20)
        wait_settled(db, "none", "orders")
    assert lines.messages() == []


def test_a_rate_limit_is_kept_and_memory_does_not_grow_with_the_backlog(db, relay, to_lines):
    lines = to_lines("slow", rate_limit=20, message="row")
    db.execute("insert into orders select g, repeat('x', 200), 1 from generate_series(1, 5000) g")
    with relay:
        begin = time.monotonic()
        eventually(lambda: len(lines.messages()) >= 40, 20)
        assert time.monotonic() - begin > 1
        assert relay.resident_kib() < 64 * 1024 * SLOW_FACTOR


def test_secrets_are_resolved_from_environment_and_file_and_never_shown(
        db, start_relay, orders, tmp_path):
    secret = "pa55-word-that-must-not-show"
    server = NatsServer(user="relay", password=secret).start()
    try:
        with server.client() as client:
            client.create_stream("s", "relay.>")
        (tmp_path / "secret").write_text(secret + "\n")
        for name, reference in (("by-env", "${env:NATS_SECRET}"),
                                ("by-file", f"${{file:{tmp_path}/secret}}"),
                                ("missing", "${env:NOT_SET_ANYWHERE}")):
            set_outbox(db, name, to_nats("orders", server, f"relay.{name}",
                                         sink={"password": reference}))
        with start_relay(db.relay_dsn, "--allow-secret", "env:N*", "--allow-secret",
                         f"file:{tmp_path}/*", env={"NATS_SECRET": secret},
                         log_level="debug") as relay:
            insert_rows(db, "orders", 1)
            with server.client() as client:
                eventually(lambda: client.count("s") == 2)
            missing = relay.wait_state("missing", "misconfigured")
            assert "NOT_SET_ANYWHERE" in missing["last_error"]
            shown = json.dumps(relay.health()) + relay.get("/api/pipelines")[1] \
                + relay.get("/api/pipelines/by-env")[1] + relay.metrics().text
            stored = json.dumps(
                db.execute("select to_jsonb(s) from pgtrickle.relay_pipeline_status s"))
            with open(f"/proc/{relay.pid}/cmdline") as command:
                assert secret not in shown + stored + relay.log(100000) + command.read()
    finally:
        server.stop()


# Stopping ----------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_sigterm_under_load_ends_cleanly_in_time_and_nothing_is_sent_twice(
        db, nats, start_relay, to_lines):
    lines = to_lines("file")
    with nats.client() as client:
        # A window so short that JetStream forgives nothing.
        client.create_stream("s", "relay.>", duplicate_window=0.1)
        set_outbox(db, "nats", to_nats("orders", nats, "relay.rows"))
        with db.connect() as connection, connection.pipeline():
            for identity in range(1, 5001):
                connection.execute("insert into orders values (%s, 'x', 1)", (identity,))
        for _ in range(3):
            relay = start_relay(db.relay_dsn)
            before = client.count("s")
            eventually(lambda: client.count("s") > before or before == 5000, 20 * SLOW_FACTOR,
                       interval=0.002)
            begin = time.monotonic()
            relay.stop()
            assert time.monotonic() - begin < 10 * SLOW_FACTOR
        with start_relay(db.relay_dsn):
            for name in ("file", "nats"):
                wait_settled(db, name, "orders")
        assert [m.json["delta"]["inserted"][0]["id"] for m in client.messages("s")] \
            == list(range(1, 5001))
    lines.wait_rows(range(1, 5001))


def test_sigterm_with_a_dead_broker_still_ends_within_the_drain_timeout(
        db, nats, start_relay, orders):
    with nats.client() as client:
        client.create_stream("s", "relay.>")
    set_outbox(db, "nats", to_nats("orders", nats, "relay.rows"))
    with start_relay(db.relay_dsn, drain_timeout="2s") as relay:
        insert_rows(db, "orders", 1)
        wait_settled(db, "nats", "orders")
        nats.freeze()
        insert_rows(db, "orders", 2, 10)
        eventually(lambda: relay.metric("consumer_lag", pipeline="nats"))
        begin = time.monotonic()
        relay.stop()
        assert time.monotonic() - begin < 6 * SLOW_FACTOR
        nats.thaw()
    with start_relay(db.relay_dsn), nats.client() as client:
        wait_settled(db, "nats", "orders")
        assert newest_outbox_id(db, "orders") == client.messages("s")[-1].json["sequence"]
        assert client.count("s") == 11
