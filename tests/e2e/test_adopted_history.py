"""A position in an adopted outbox survives whatever leaves the table's history as it is, and stops its
pipeline where ids up to it may be those of other rows."""

import json

import pytest
from support.adopted_outbox import (  # noqa: F401
    EVENTS, adopt, events, pipe, reached, stopped, told, write)
from support.pipelines import position
from support.relay import Relay
from support.waiting import eventually, holds_for

REWRITTEN = {
    "vacuum full": "vacuum full app.events",
    "cluster": "cluster app.events using events_pkey",
    "alter table": "alter table app.events alter seen_at type timestamp",
}


def roll_back(db, count=1):
    """Ids that no row ever has."""
    with db.connect(autocommit=False) as writer:
        write(writer, count)
        writer.rollback()


def pass_gap(db, passed):
    """Moves the position from row 3 to an id behind it that no row has."""
    if passed > 3:
        with Relay(db.relay_dsn):
            roll_back(db, passed - 3)
            reached(db, passed)


def goes_on(db, lines, known):
    """A relay that is started now sends the next rows and nothing else."""
    with Relay(db.relay_dsn):
        lines.wait_ids(known + write(db, 2))
        assert told(db) == ""
    assert lines.ids() == lines.first_ids()


def stops(db, lines, said):
    """A relay that is started now says what is wrong, and sends no row."""
    before = lines.ids()
    with Relay(db.relay_dsn):
        eventually(lambda: said in told(db), message=lambda: told(db) or lines.ids())
        holds_for(lambda: lines.ids() == before, 0.3)


# The history is the same ------------------------------------------------------------------------

@pytest.mark.parametrize("case", REWRITTEN)
def test_ids_that_were_rolled_back_are_not_missed_when_the_table_is_written_anew(
        db, stopped, case):
    with Relay(db.relay_dsn):
        roll_back(db, 2)
        reached(db, 5)
        db.execute("delete from app.events")
        db.execute(REWRITTEN[case])
        stopped.wait_ids([1, 2, 3] + write(db))
        reached(db, 6)
        roll_back(db)
        reached(db, 7)
    db.execute("delete from app.events")
    db.execute(REWRITTEN[case])
    goes_on(db, stopped, [1, 2, 3, 6])


def test_ids_that_the_filter_leaves_out_are_not_missed_when_the_table_is_written_anew(
        db, relay_bin, tmp_path):
    db.execute(EVENTS)
    adopt(db, filter=json.dumps({"kind": "made"}))
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        lines.wait_ids(write(db, 2))
        write(db, 3, kind="noise")
        reached(db, 5)
        db.execute("delete from app.events")
        db.execute("vacuum full app.events")
        lines.wait_ids([1, 2] + write(db))


def test_an_idle_pipeline_stores_that_its_table_was_written_anew(db, stopped):
    with Relay(db.relay_dsn):
        reached(db, 3)
        db.execute("vacuum full app.events")
        eventually(lambda: db.one(
            "select split_part(history, '/', 1)::oid = pg_relation_filenode('app.events')"
            " from pgtrickle.relay_consumer_offsets"))
    db.execute("delete from app.events")
    roll_back(db)
    goes_on(db, stopped, [1, 2, 3])


def test_ids_that_were_passed_just_before_a_relay_stops_are_stored(db, stopped):
    with Relay(db.relay_dsn) as relay:
        with db.connect(autocommit=False) as writer:
            roll_back(db)
            reached(db, 4)
            write(writer)
            eventually(lambda: "held_back_by" in relay.pipeline("events"))
            writer.rollback()
        eventually(lambda: "held_back_by" not in relay.pipeline("events"), interval=0.01)
    assert position(db, "events") == (5, 0)


def test_a_rewritten_table_with_rows_that_were_passed_goes_on(db, stopped):
    roll_back(db, 2)
    db.execute("vacuum full app.events")
    goes_on(db, stopped, [1, 2, 3])


@pytest.mark.parametrize("change", [
    "alter sequence app.events_id_seq cache 10; alter sequence app.events_id_seq cache 1",
    "alter sequence app.events_id_seq rename to numbers",
    "alter sequence app.events_id_seq start with 1000",
    "alter sequence app.events_id_seq restart with 1000",
])
@pytest.mark.parametrize("deleted", ["false", "true"], ids=["with rows", "without rows"])
def test_a_sequence_that_is_altered_and_not_set_back_stops_nothing(db, stopped, change, deleted):
    db.execute(f"delete from app.events where {deleted}")
    for statement in change.split(";"):
        db.execute(statement)
    goes_on(db, stopped, [1, 2, 3])


def test_a_table_whose_files_are_all_new_goes_on_where_the_row_at_the_position_is_there(
        db, stopped):
    db.execute("vacuum full app.events")
    db.execute("alter sequence app.events_id_seq cache 1")
    goes_on(db, stopped, [1, 2, 3])


# It is another one ------------------------------------------------------------------------------

COUNTED_BEYOND = {
    "truncated": "truncate app.events restart identity",
    "deleted and restarted": "delete from app.events; alter sequence app.events_id_seq restart",
    "column restarted": "delete from app.events; alter table app.events alter id restart",
}


@pytest.mark.parametrize("case", COUNTED_BEYOND)
@pytest.mark.parametrize("passed", [3, 5], ids=["at a row", "behind a gap"])
def test_a_sequence_that_has_counted_beyond_the_position_again_stops_the_pipeline(
        db, stopped, case, passed):
    """The row at the position is not there in the new history."""
    pass_gap(db, passed)
    db.execute(COUNTED_BEYOND[case])
    write(db, 2)
    roll_back(db)  # row 3
    write(db, 4)
    stops(db, stopped, "was rewound: its sequence was restarted or altered"
          if passed == 3 else "was rewound: a row between 3 and 5 is there")


def test_a_sequence_that_was_set_back_is_seen_by_a_row_in_a_gap_that_was_passed(db, stopped):
    with Relay(db.relay_dsn):
        roll_back(db, 2)
        reached(db, 5)
    db.execute("delete from app.events; select setval('app.events_id_seq', 1, false)")
    write(db, 2)
    roll_back(db)
    write(db, 4)
    stops(db, stopped, "was rewound: a row between 3 and 5 is there")


def test_a_sequence_that_is_set_back_below_ids_that_were_passed_stops_the_pipeline(db, stopped):
    with Relay(db.relay_dsn):
        roll_back(db, 4)
        reached(db, 7)
        db.execute("select setval('app.events_id_seq', 5)")
        eventually(lambda: "its newest id is 5, and 7 was passed" in told(db))


def test_a_restarted_sequence_is_seen_while_the_first_new_rows_are_open(db, stopped):
    db.execute("truncate app.events restart identity")
    with db.connect(autocommit=False) as writer:
        write(writer, 2)
        roll_back(db, 4)
        stops(db, stopped, "was rewound: its sequence was restarted or altered")


def test_rows_of_a_restarted_sequence_that_commit_late_are_waited_for(db, stopped):
    db.execute("delete from app.events; alter sequence app.events_id_seq restart")
    with db.connect(autocommit=False) as writer, Relay(db.relay_dsn):
        write(writer, 2)
        roll_back(db, 2)
        holds_for(lambda: "rewound" not in told(db), 0.5)
        writer.commit()
        eventually(lambda: "was rewound: its sequence was restarted or altered" in told(db))


def test_a_dump_of_the_rows_that_is_restored_stops_the_pipeline(db, stopped):
    db.execute("create table app.dump as select * from app.events")
    with Relay(db.relay_dsn):
        stopped.wait_ids([1, 2, 3] + write(db, 3))
        reached(db, 6)
    db.execute("truncate app.events")
    db.execute("insert into app.events overriding system value select * from app.dump")
    db.execute("select setval('app.events_id_seq', 3)")
    stops(db, stopped, "was rewound: its newest id is 3, and 6 was passed")


# Rows were truncated ----------------------------------------------------------------------------

@pytest.mark.parametrize("passed", [3, 5], ids=["at a row", "behind a gap"])
def test_truncated_rows_are_counted_from_where_the_pipeline_stood(db, stopped, passed):
    pass_gap(db, passed)
    write(db, 4)
    db.execute("truncate app.events")
    write(db, 1)
    stops(db, stopped, f"up to 4 rows of outbox adopted_events behind {passed} are gone")
    with Relay(db.relay_dsn):
        db.execute("select pgtrickle.resume_relay('events', accept_loss => true)")
        stopped.wait_ids([1, 2, 3, passed + 5])
    goes_on(db, stopped, [1, 2, 3, passed + 5])


def test_a_table_that_is_truncated_before_a_new_pipeline_delivered_anything_is_told_of(
        db, events, relay_bin, tmp_path):  # noqa: F811
    lines = pipe(db, tmp_path / "events.jsonl")
    with Relay(db.relay_dsn):
        eventually(lambda: position(db, "events"))
    write(db, 3)
    db.execute("truncate app.events")
    stops(db, lines, "up to 3 rows")


def test_each_pipeline_is_told_of_what_it_has_not_read_itself(db, events, relay_bin, tmp_path):  # noqa: F811
    names = ("ahead", "behind", "later")
    arrived = {name: pipe(db, tmp_path / f"{name}.jsonl", name=name) for name in names}
    with Relay(db.relay_dsn) as relay:
        for name in names:
            arrived[name].wait_ids([1, 2, 3] if position(db, "ahead") else write(db, 3))
            reached(db, 3, name)
        db.execute("select pgtrickle.disable_relay('behind')")
        eventually(lambda: "behind" not in {
            pipeline["name"] for pipeline in relay.health()[1]["pipelines"]})
        more = write(db, 3)
        for name in ("ahead", "later"):
            arrived[name].wait_ids([1, 2, 3] + more)
            reached(db, 6, name)
        db.execute("truncate app.events")
        last = write(db)
        for name in ("ahead", "later"):
            arrived[name].wait_ids([1, 2, 3] + more + last)
        db.execute("select pgtrickle.enable_relay('behind')")
        eventually(lambda: "up to 3 rows" in told(db, "behind"))
        assert told(db, "ahead") == told(db, "later") == ""
