"""A delta of millions of rows: bounded memory, and resumed in its middle."""

import os
import re

import pytest

from support.pipelines import LONG, Lines, position, set_outbox, status_row, to_file, to_nats, \
    wait_settled
from support.relay import Relay
from support.waiting import eventually

ROWS = int(os.environ.get("CLAIM_CHECK_ROWS", "5000000" if LONG else "300000"))
LIMIT_KIB = 64 * 1024


@pytest.fixture
def big(db):
    """A table whose one statement has written a claim-check delta of ROWS rows."""
    db.execute("create table big (id bigint primary key, note text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('big')")
    db.execute("insert into big select g, 'row number ' || g, g * 1.5"
               " from generate_series(1, %s) g", (ROWS,))
    outbox = db.one("select outbox_table_name from pgtrickle.pgt_outbox_config")
    assert db.execute(f"select is_claim_check, inserted_count from pgtrickle.{outbox}") \
        == [(True, ROWS)]


def assert_complete(messages):
    """The parts together are the delta: each row once, in order, cut into bounded parts."""
    expected = 1
    for number, message in enumerate(messages, start=1):
        rows = [row["id"] for row in message["delta"]["inserted"]]
        assert rows == list(range(expected, expected + len(rows)))
        assert 0 < len(rows) <= 1000
        expected += len(rows)
        assert message["metadata"]["part"] == number
        assert bool(message["metadata"].get("final")) == (number == len(messages))
    assert expected == ROWS + 1


@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_a_huge_delta_flows_in_bounded_memory(db, big, relay_bin, tmp_path):
    lines = Lines(tmp_path / "big.jsonl")
    set_outbox(db, "big", to_file("big", lines.path))
    with Relay(db.relay_dsn) as relay:
        wait_settled(db, "big", "big", deadline=1200 if LONG else 120)
        peak = relay.peak_kib()
        messages = lines.messages()
    print(f"{ROWS} rows in {len(messages)} messages, peak memory {peak / 1024:.1f} MiB")
    assert_complete(messages)
    assert peak < LIMIT_KIB


@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_a_huge_delta_is_resumed_in_its_middle_after_a_kill(db, big, nats, relay_bin):
    with nats.client() as client:
        client.create_stream("s", "relay.>", duplicate_window=600)
        set_outbox(db, "big", to_nats("big", nats, "relay.big"))
        relay = Relay(db.relay_dsn).start()
        wanted = ROWS // 1000
        eventually(lambda: client.count("s") > wanted // 3
                   and (position(db, "big") or (0, 0))[1] > 0, 120, interval=0.005)
        relay.kill9()
        stored, (settled_id, settled_row) = client.count("s"), position(db, "big")
        assert settled_id == 0 or status_row(db, "big"), "no state after a kill"
        assert 0 < settled_row < ROWS, "killed too late or too early to show anything"
        with Relay(db.relay_dsn) as relay:
            wait_settled(db, "big", "big", deadline=1200 if LONG else 120)
            peak = relay.peak_kib()
            repeated = relay.metric("duplicates_total", pipeline="big") or 0
        assert_complete([message.json for message in client.messages("s")])
    print(f"killed with {stored} of {wanted} parts stored and {settled_row} rows settled; "
          f"{repeated:.0f} parts sent again; peak memory {peak / 1024:.1f} MiB")
    assert repeated <= stored - settled_row // 1000 + 1, "began again before where it had settled"
    assert peak < LIMIT_KIB


def test_rows_of_a_claim_check_that_are_gone_are_dead_letters(db, relay, tmp_path):
    """Deleted by hand, or by retention that waited for long enough: wherever they are missing."""
    gone = {"first": (1, 2, 3), "middle": (7, 11, 12, 13), "last": (39, 40), "whole": range(1, 41),
            "none": ()}
    for name in gone:
        db.execute(f"create table {name} (id int primary key);"
                   f"select pgtrickle.enable_outbox('{name}', inline_threshold_rows => 2);"
                   f"insert into {name} select generate_series(1, 40)")
        db.execute(f"delete from pgtrickle.outbox_delta_rows_{name} where row_num = any (%s)",
                   (list(gone[name]),))
        set_outbox(db, name, to_file(name, tmp_path / name))
    with relay:
        for name in gone:
            wait_settled(db, name, name)
    for name, missing in gone.items():
        arrived = Lines(tmp_path / name).rows()
        assert arrived == [row for row in range(1, 41) if row not in missing], name
        told = [row[0] for row in db.execute(
            "select error_message from pgtrickle.relay_dlq where pipeline = %s and error_code ="
            " 'claim_check_rows_missing' order by id", (name,))]
        ranges = [tuple(map(int, re.search(r"from (\d+) to (\d+) are", text).groups()))
                  for text in told]
        assert sorted(row for first, last in ranges for row in range(first, last + 1)) \
            == sorted(missing), (name, told)
