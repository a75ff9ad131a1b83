"""Positions, dead letters, control and status of pipelines, in SQL."""

import random
import uuid

import psycopg
import pytest

from support.catalog_sql import (REVERSE, Owner, dead_letter, incarnation_of, insert_rows, orders,
                                 report_running, set_outbox)
from support.postgres import refusal


def test_a_position_never_goes_back(orders):
    set_outbox(orders)
    owner = Owner(orders)
    dice = random.Random(3)
    highest = (0, 0)
    for _ in range(200):
        wanted = (dice.randint(0, 30), dice.randint(0, 3))
        assert owner.commit(*wanted) is True
        highest = max(highest, wanted)
        assert owner.position() == highest


def test_a_commit_keeps_the_mark_of_the_highest_position_only(orders):
    set_outbox(orders)
    owner = Owner(orders)
    mark, other = uuid.uuid4(), uuid.uuid4()
    owner.commit(5, 0, mark)
    owner.commit(4, 0, other)
    owner.commit(5, 0, other)
    assert Owner(orders).pgt_id == mark


def test_who_has_been_taken_over_from_commits_nothing_and_learns_it(orders):
    set_outbox(orders)
    first = Owner(orders)
    assert first.is_new and first.commit(5)
    second = Owner(orders)
    assert not second.is_new and second.change_id == 5
    assert first.commit(9) is False
    assert first.commit(3) is False
    assert first.rewind(1) is False
    assert second.position() == (5, 0)
    assert second.commit(6) is True


def test_only_a_rewind_goes_back(orders):
    set_outbox(orders)
    owner = Owner(orders)
    owner.commit(9)
    assert owner.rewind(4, 2) is True
    assert owner.position() == (4, 2)


def test_a_deleted_pipeline_is_fenced(orders):
    set_outbox(orders)
    owner = Owner(orders)
    orders.execute("select pgtrickle.delete_relay('p')")
    assert owner.commit(1) is False


@pytest.mark.parametrize("start, expected", [("earliest", 0), ("latest", 7), ("3", 2), ("0", 0),
                                             ("100", 7)])
def test_a_new_position_begins_where_start_says(orders, start, expected):
    set_outbox(orders)
    insert_rows(orders, 7)
    assert Owner(orders, start=start).change_id == expected
    assert Owner(orders, start="earliest").change_id == expected, "only a new one begins anew"


@pytest.mark.parametrize("start", ["first", "-1", "", None, "1.5"])
def test_a_start_that_means_nothing_is_refused(orders, start):
    set_outbox(orders)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        Owner(orders, start=start)


def test_an_outbox_made_again_and_another_group_inherit_no_position(orders):
    set_outbox(orders)
    Owner(orders).commit(5)
    assert Owner(orders, group="blue").change_id == 0
    assert Owner(orders, incarnation=uuid.uuid4()).change_id == 0


def test_of_many_claims_at_once_exactly_one_can_commit(orders):
    set_outbox(orders)
    incarnation = incarnation_of(orders)
    claim = ("select owner_token from pgtrickle.relay_claim_position('default', 'p', %s, 'w', "
             "'earliest')")
    connections = [orders.connect() for _ in range(8)]
    try:
        for connection in connections:
            connection.pgconn.send_query(claim.replace("%s", f"'{incarnation}'").encode())
        tokens = []
        for connection in connections:
            tokens.append(connection.pgconn.get_result().get_value(0, 0).decode())
            while connection.pgconn.get_result():
                pass
    finally:
        for connection in connections:
            connection.close()
    won = [orders.one("select pgtrickle.relay_commit_position('default', 'p', %s, %s, %s, 0, null)",
                      (incarnation, token, number)) for number, token in enumerate(tokens, 1)]
    assert won.count(True) == 1


def listed(db, *arguments):
    marks = ", ".join(["%s"] * len(arguments))
    return db.execute(f"select id, pipeline, attempts, error_message, payload_bytes, resolution "
                      f"from pgtrickle.relay_dlq_list({marks})", arguments)


def test_an_unresolved_message_is_stored_once_and_counts_its_attempts(orders):
    first = dead_letter(orders)
    assert dead_letter(orders, error="still too large") == first
    assert listed(orders) == [(first, "p", 2, "still too large", 2, None)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        orders.execute("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, "
                       "payload) values ('default', 'p', 'p:1', '\\x00ff')")
    assert dead_letter(orders, payload=b"another message of that id") != first


def test_after_it_was_resolved_the_same_message_is_a_new_dead_letter(orders):
    first = dead_letter(orders)
    orders.execute("select pgtrickle.relay_dlq_discard(%s)", (first,))
    second = dead_letter(orders)
    assert second != first
    assert [row[0] for row in listed(orders)] == [second]
    assert [(row[0], row[5]) for row in listed(orders, "p", 10, True)] == [
        (first, "discarded"), (second, None)]


def test_the_list_is_by_pipeline_and_bounded(orders):
    letters = [dead_letter(orders, message=f"p:{n}") for n in range(5)]
    dead_letter(orders, pipeline="q")
    assert [row[0] for row in listed(orders, "p", 3)] == letters[:3]
    assert len(listed(orders)) == 6


def test_a_retry_is_asked_for_and_left_to_the_owner(orders):
    set_outbox(orders)
    first, second = dead_letter(orders), dead_letter(orders, message="p:2")
    orders.execute("select pgtrickle.relay_dlq_retry(%s)", (first,))
    asked = "select id from pgtrickle.relay_dlq where retry_requested_at is not null order by id"
    assert orders.execute(asked) == [(first,)]
    assert orders.one("select pgtrickle.relay_dlq_retry_all('p')") == 2
    assert orders.execute(asked) == [(first,), (second,)]
    assert len(listed(orders)) == 2, "asking resolves nothing"


@pytest.mark.parametrize("function", ["relay_dlq_retry", "relay_dlq_discard"])
def test_unknown_and_resolved_dead_letters_are_refused(orders, function):
    assert "there is no dead letter 99" in refusal(orders, f"select pgtrickle.{function}(99)")
    letter = dead_letter(orders)
    orders.execute("select pgtrickle.relay_dlq_discard(%s)", (letter,))
    assert "resolved already: discarded" in refusal(
        orders, f"select pgtrickle.{function}({letter})")


def test_purging_deletes_only_what_was_resolved_long_enough_ago(orders):
    old, fresh, unresolved = (dead_letter(orders, message=f"p:{n}") for n in range(3))
    for letter in (old, fresh):
        orders.execute("select pgtrickle.relay_dlq_discard(%s)", (letter,))
    orders.execute("update pgtrickle.relay_dlq set resolved_at = resolved_at - interval '2 days', "
                   "last_failed_at = last_failed_at - interval '9 days' where id <> %s", (fresh,))
    assert orders.one("select pgtrickle.relay_dlq_purge('1 day')") == 1
    assert [row[0] for row in listed(orders, None, 10, True)] == [fresh, unresolved]


# Control

def control(db):
    return db.execute("select pipeline, paused, accept_loss from pgtrickle.relay_pipeline_control")


def test_pause_and_resume_are_recorded(orders):
    set_outbox(orders)
    orders.execute("select pgtrickle.pause_relay('p')")
    assert control(orders) == [("p", True, False)]
    orders.execute("select pgtrickle.resume_relay('p')")
    assert control(orders) == [("p", False, False)]
    orders.execute("select pgtrickle.resume_relay('p', accept_loss => true)")
    assert control(orders) == [("p", False, True)]


def test_a_pipeline_from_a_file_is_controlled_once_a_relay_reported_it(orders):
    assert "does not exist" in refusal(orders, "select pgtrickle.pause_relay('from-file')")
    report_running(orders, "from-file")
    orders.execute("select pgtrickle.pause_relay('from-file')")
    orders.execute("select pgtrickle.replay_relay('from-file', 5)")
    assert "configuration file" in refusal(orders, "select pgtrickle.disable_relay('from-file')")


def test_replays_are_numbered_for_each_pipeline_and_numbers_never_come_again(orders):
    set_outbox(orders, enabled=True)
    set_outbox(orders, "q", enabled=True)
    insert_rows(orders, 9)
    for name, start, end in [("p", 1, 3), ("p", 2, None), ("q", 4, 99)]:
        orders.execute("select pgtrickle.replay_relay(%s, %s, %s)", (name, start, end))
    asked = ("select pipeline, number, from_id, to_id, next_id from pgtrickle.relay_replays "
             "order by id")
    assert orders.execute(asked) == [("p", 1, 1, 3, 1), ("p", 2, 2, 9, 2), ("q", 1, 4, 9, 4)]
    orders.execute("update pgtrickle.relay_replays set finished_at = now() - interval '90 days'")
    orders.execute("select pgtrickle.relay_housekeeping()")
    assert orders.execute(asked) == [("p", 2, 2, 9, 2), ("q", 1, 4, 9, 4)]
    orders.execute("select pgtrickle.delete_relay('p')")
    set_outbox(orders)
    orders.execute("select pgtrickle.replay_relay('p', 1)")
    assert orders.execute(asked)[-1][:2] == ("p", 3)


def test_a_replay_of_what_is_not_there_is_refused(orders):
    set_outbox(orders)
    insert_rows(orders, 5)
    orders.execute("update pgtrickle.pgt_outbox_config set purged_below = 2")
    for arguments, expected in [("2", "no longer kept"), ("6", "newest row"), ("0", "at least 1"),
                                ("null", "at least 1"), ("4, 3", "not smaller")]:
        assert expected in refusal(orders, f"select pgtrickle.replay_relay('p', {arguments})")
    orders.execute(f"select pgtrickle.set_relay_inbox('in', '{REVERSE}')")
    assert "reads no outbox" in refusal(orders, "select pgtrickle.replay_relay('in', 1)")


# Status of an outbox

def status(db, name="orders_stream"):
    return db.one("select pgtrickle.outbox_status(%s)", (name,))


def test_the_lag_is_counted_in_rows_and_not_in_ids(orders):
    set_outbox(orders, enabled=True)
    insert_rows(orders, 10)
    orders.execute("delete from pgtrickle.outbox_orders_stream where id between 5 and 8")
    Owner(orders).commit(3)
    shown = status(orders)
    assert (shown["rows"], shown["last_id"], shown["oldest_id"]) == (6, 10, 1)
    reader = shown["positions"][0]
    assert (reader["pipeline"], reader["position"], reader["lag"], reader["lag_exact"]) == (
        "p", 3, 3, True)


def test_a_long_backlog_is_bounded_from_above_instead_of_counted(orders):
    set_outbox(orders, enabled=True)
    Owner(orders)
    insert_rows(orders, 120_000)
    shown = status(orders)
    assert (shown["rows"], shown["rows_exact"]) == (120_000, False)
    assert (shown["positions"][0]["lag"], shown["positions"][0]["lag_exact"]) == (120_000, False)


def test_open_writers_are_shown_with_pid_and_age_even_to_the_relay(orders):
    set_outbox(orders)
    with orders.connect(autocommit=False) as writer, psycopg.connect(orders.relay_dsn) as relay:
        insert_rows(writer, 1)
        shown = relay.execute("select pgtrickle.outbox_status('orders_stream')").fetchone()[0]
        assert [w["pid"] for w in shown["open_writers"]] == [writer.info.backend_pid]
        assert shown["open_writers"][0]["age_seconds"] >= 0
        writer.execute("prepare transaction 'in doubt'")
        relay.rollback()
        shown = relay.execute("select pgtrickle.outbox_status('orders_stream')").fetchone()[0]
        assert [(w["pid"], w["prepared"]) for w in shown["open_writers"]] == [(None, "in doubt")]
    orders.execute("rollback prepared 'in doubt'")
    assert status(orders)["open_writers"] == []


def test_who_only_looks_or_vacuums_is_no_open_writer(orders):
    set_outbox(orders)
    with orders.connect(autocommit=False) as reader:
        reader.execute("select * from pgtrickle.outbox_orders_stream")
        reader.execute("lock table pgtrickle.outbox_orders_stream in share update exclusive mode")
        assert status(orders)["open_writers"] == []


def test_the_status_of_an_unknown_outbox_names_the_nearest(orders):
    set_outbox(orders)
    assert 'Did you mean "orders_stream"?' in refusal(
        orders, "select pgtrickle.outbox_status('order_stream')")
