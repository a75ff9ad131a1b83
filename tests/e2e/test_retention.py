"""Retention: old rows go, and never one that a reader still needs."""

import random
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

OUTBOX = "pgtrickle.outbox_t"


@pytest.fixture
def box(db):
    """A database with an outbox of table t; it has no reader yet."""
    db.execute("create table t (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('t')")
    return db


def rows(db, count, hours_old=48, claim_rows=0):
    """Adds outbox rows of that age; with `claim_rows` each is a claim check of so many."""
    ids = [row[0] for row in db.execute(
        f"insert into {OUTBOX} (created_at, inserted_count, is_claim_check, payload) "
        "select clock_timestamp() - %s * interval '1 hour', %s, %s, '{\"v\":1}' "
        "from generate_series(1, %s) returning id",
        (hours_old, claim_rows, claim_rows > 0, count))]
    if claim_rows:
        db.execute("insert into pgtrickle.outbox_delta_rows_t "
                   "select o, r, 'INSERT', '{}' from unnest(%s::bigint[]) o, "
                   "generate_series(1, %s) r", (ids, claim_rows))
    return ids


def left(db):
    return [row[0] for row in db.execute(f"select id from {OUTBOX} order by id")]


def delta_rows_left(db):
    return db.one("select count(*) from pgtrickle.outbox_delta_rows_t")


def step(db, max_rows=10000):
    report = db.one("select pgtrickle.relay_housekeeping(%s)", (max_rows,))
    assert report["errors"] == []
    return report


def clean(db, max_rows=10000):
    """Housekeeping until there is nothing more to do."""
    reports = [step(db, max_rows)]
    while reports[-1]["more"]:
        reports.append(step(db, max_rows))
        assert len(reports) < 1000
    return reports


def purged_below(db):
    return db.one("select purged_below from pgtrickle.pgt_outbox_config")


def pipeline(db, name="p", enabled=True, **options):
    db.execute("select pgtrickle.set_relay_outbox(%s, %s, %s)",
               (name, Jsonb({"stream_table": "t", "sink_type": "stdout", **options}), enabled))


def position(db, at, name="p", group="default", row=0):
    incarnation = db.one("select incarnation from pgtrickle.pgt_outbox_config")
    token = db.one("select owner_token from pgtrickle.relay_claim_position(%s, %s, %s, 'w', "
                   "'earliest')", (group, name, incarnation))
    assert db.one("select pgtrickle.relay_commit_position(%s, %s, %s, %s, %s, %s, null)",
                  (group, name, incarnation, token, at, row))


def heartbeat(db, group="default", hours_ago=0.0):
    db.execute("insert into pgtrickle.relay_instances (relay_group_id, worker_id, heartbeat_at) "
               "values (%s, 'w', clock_timestamp() - %s * interval '1 hour') "
               "on conflict (relay_group_id, worker_id) do update "
               "set heartbeat_at = excluded.heartbeat_at", (group, hours_ago))


def age(db, hours):
    """Moves everything that has been recorded of pipelines into the past."""
    moved = f"- interval '{hours} hours'"
    db.execute(f"""
        alter table pgtrickle.relay_config disable trigger touch;
        update pgtrickle.relay_config set updated_at = updated_at {moved},
          enabled_changed_at = enabled_changed_at {moved};
        alter table pgtrickle.relay_config enable trigger touch;
        update pgtrickle.relay_consumer_offsets set updated_at = updated_at {moved},
          seen_at = seen_at {moved};
        update pgtrickle.relay_instances set heartbeat_at = heartbeat_at {moved};
        update pgtrickle.relay_pipeline_status set updated_at = updated_at {moved};
        update pgtrickle.relay_replays set requested_at = requested_at {moved}""")


# What goes

def test_old_rows_without_a_reader_are_deleted_and_young_ones_stay(box):
    old, young = rows(box, 5), rows(box, 3, hours_old=1)
    clean(box)
    assert left(box) == young
    assert purged_below(box) == old[-1]
    assert box.execute("select last_drained_count, last_drained_at > now() - interval '1 minute' "
                       "from pgtrickle.pgt_outbox_config") == [(5, True)]


def test_a_young_row_protects_the_older_ones_behind_it(box):
    rows(box, 2)
    young = rows(box, 1, hours_old=1)
    behind = rows(box, 2)
    clean(box)
    assert left(box) == young + behind, "what is gone is always everything up to one id"


def test_retention_hours_are_those_of_the_outbox(box):
    ids = rows(box, 2, hours_old=10)
    clean(box)
    assert left(box) == ids
    box.execute("update pgtrickle.pgt_outbox_config set retention_hours = 9")
    clean(box)
    assert left(box) == []


def test_batches_are_bounded_and_say_that_there_is_more(box):
    rows(box, 25)
    reports = clean(box, max_rows=10)
    assert [report["deleted"] for report in reports] == [10, 10, 5, 0]
    assert [report["more"] for report in reports] == [True, True, True, False]


def test_one_call_deletes_from_one_outbox_and_all_get_their_turn(box):
    box.execute("create table u (id int primary key)")
    box.execute("select pgtrickle.enable_outbox('u')")
    rows(box, 3)
    box.execute("insert into pgtrickle.outbox_u (created_at, payload) "
                "select now() - interval '2 days', '{}' from generate_series(1, 3)")
    reports = clean(box)
    assert sorted(r["outbox"] for r in reports if r["deleted"]) == ["outbox_t", "outbox_u"]


def test_claim_checks_go_together_with_their_rows(box):
    first, second = rows(box, 2, claim_rows=10)
    third = rows(box, 1, hours_old=1, claim_rows=10)
    report = step(box, max_rows=15)
    assert (left(box), report["deleted"], report["delta_rows"]) == ([second] + third, 1, 10)
    assert box.one("select min(outbox_id) from pgtrickle.outbox_delta_rows_t") == second
    clean(box, max_rows=15)
    assert left(box) == third and delta_rows_left(box) == 10
    assert purged_below(box) == second > first


def test_a_huge_claim_check_is_deleted_in_slices_once_no_reader_needs_it(box):
    rows(box, 1, claim_rows=100)
    reports = clean(box, max_rows=30)
    assert [report["delta_rows"] for report in reports] == [30, 30, 30, 10]
    assert left(box) == [] and delta_rows_left(box) == 0


# What stays

def test_an_enabled_pipeline_holds_what_it_has_not_read(box):
    ids = rows(box, 6)
    pipeline(box)
    position(box, ids[2])
    clean(box)
    assert left(box) == ids[3:]


def test_in_the_middle_of_a_claim_check_its_row_is_kept(box):
    ids = rows(box, 3, claim_rows=4)
    pipeline(box)
    position(box, ids[1], row=2)
    clean(box)
    assert left(box) == ids[1:] and delta_rows_left(box) == 8


def test_the_slowest_of_all_pipelines_and_groups_decides(box):
    ids = rows(box, 9)
    for name in ("p", "q"):
        pipeline(box, name)
    position(box, ids[6], "p")
    position(box, ids[3], "p", group="blue")
    position(box, ids[5], "q")
    clean(box)
    assert left(box) == ids[4:]


@pytest.mark.parametrize("start, kept_from", [("earliest", 0), ("latest", 6), (4, 3)])
def test_a_pipeline_that_has_not_begun_holds_everything_from_its_start(box, start, kept_from):
    ids = rows(box, 6)
    pipeline(box, start=start)
    clean(box)
    assert left(box) == ids[kept_from:]


def test_a_group_that_has_not_begun_holds_everything_while_it_lives(box):
    ids = rows(box, 4)
    pipeline(box)
    position(box, ids[3])
    heartbeat(box, "blue")
    clean(box)
    assert left(box) == ids
    position(box, ids[1], group="blue")
    clean(box)
    assert left(box) == ids[2:]


def test_a_pipeline_that_was_never_enabled_holds_nothing(box):
    rows(box, 4)
    pipeline(box, enabled=False)
    clean(box)
    assert left(box) == []


def test_a_replay_holds_what_it_has_yet_to_send(box):
    ids = rows(box, 6)
    pipeline(box)
    position(box, ids[5])
    box.execute("select pgtrickle.replay_relay('p', %s)", (ids[2],))
    clean(box)
    assert left(box) == ids[2:]
    box.execute("update pgtrickle.relay_replays set next_id = %s", (ids[4],))
    clean(box)
    assert left(box) == ids[4:]
    box.execute("update pgtrickle.relay_replays set finished_at = now()")
    clean(box)
    assert left(box) == []


def test_a_pipeline_from_a_file_holds_by_its_position(box):
    ids = rows(box, 4)
    position(box, ids[1], "from-file")
    clean(box)
    assert left(box) == ids[2:]


@pytest.mark.parametrize("hours, kept", [(167, True), (169, False)])
def test_a_disabled_pipeline_holds_for_a_week(box, hours, kept):
    ids = rows(box, 4, hours_old=400)
    pipeline(box)
    position(box, ids[1])
    box.execute("select pgtrickle.disable_relay('p')")
    heartbeat(box)
    age(box, hours)
    heartbeat(box)
    clean(box)
    assert left(box) == (ids[2:] if kept else [])


@pytest.mark.parametrize("hours, kept", [(4, True), (6, False)])
def test_how_long_it_holds_is_the_pipeline_s_option(box, hours, kept):
    ids = rows(box, 4)
    pipeline(box, retention_hold_hours=5)
    position(box, ids[1])
    age(box, hours)
    clean(box)
    assert left(box) == (ids[2:] if kept else [])


def test_an_enabled_pipeline_holds_for_ever_while_its_group_lives(box):
    ids = rows(box, 4, hours_old=4000)
    pipeline(box)
    position(box, ids[1])
    age(box, 3000)
    heartbeat(box)
    clean(box)
    assert left(box) == ids[2:]


def test_a_quiet_pipeline_does_not_look_dead_when_its_relay_has_stopped_for_a_day(box):
    pipeline(box)
    position(box, 0)
    age(box, 1000)
    heartbeat(box)
    step(box)
    box.execute("delete from pgtrickle.relay_instances")
    age(box, 24)
    ids = rows(box, 3)
    clean(box)
    assert left(box) == ids


def test_a_pipeline_pointed_elsewhere_lets_go_after_its_time(box):
    ids = rows(box, 3)
    pipeline(box)
    position(box, ids[0])
    box.execute("create table u (id int primary key)")
    pipeline(box, stream_table="u")
    heartbeat(box)
    clean(box)
    assert left(box) == ids[1:]
    age(box, 169)
    heartbeat(box)
    clean(box)
    assert left(box) == []


def test_max_hold_hours_limits_what_an_enabled_pipeline_holds(box):
    rows(box, 3, hours_old=100)
    ids = rows(box, 3, hours_old=30)
    pipeline(box, max_hold_hours=50)
    position(box, 0)
    clean(box)
    assert left(box) == ids


def test_max_hold_bytes_lets_go_one_batch_a_pass(box):
    ids = rows(box, 30)
    pipeline(box, max_hold_bytes=1)
    position(box, 0)
    box.execute(f"analyze {OUTBOX}")
    report = step(box, max_rows=10)
    assert left(box) == ids[10:] and report["more"] is False
    pipeline(box, max_hold_bytes="1GiB")
    clean(box)
    assert left(box) == ids[10:]


def test_what_is_deleted_in_front_of_a_reader_is_counted_and_said(box):
    ids = rows(box, 5)
    pipeline(box, retention_hold_hours=1)
    position(box, ids[1])
    age(box, 2)
    with box.connect() as connection:
        said = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        report = connection.execute("select pgtrickle.relay_housekeeping()").fetchone()[0]
    assert report["lost"] == [{"group": "default", "pipeline": "p", "rows": 3}]
    assert len(said) == 1 and 'pipeline "p"' in said[0]
    assert box.one("select lost_rows from pgtrickle.relay_consumer_offsets") == 3
    shown = box.one("select pgtrickle.outbox_status('t')")
    assert shown["positions"][0]["lost_rows"] == 3
    assert shown["purged_below"] == ids[4] > shown["positions"][0]["position"]


def test_before_a_reader_lets_go_there_are_warnings(box):
    ids = rows(box, 5)
    pipeline(box, retention_hold_hours=12)
    position(box, ids[1])
    warnings = step(box)["warnings"]
    assert [(w["pipeline"], w["needs_after"]) for w in warnings] == [("p", ids[1])]
    pipeline(box, retention_hold_hours=100)
    assert step(box)["warnings"] == []


def test_the_status_names_who_holds_rows_back(box):
    ids = rows(box, 5)
    pipeline(box)
    pipeline(box, "q")
    position(box, ids[1])
    position(box, ids[4], "q")
    clean(box)
    held_by = box.one("select pgtrickle.outbox_status('t')")["held_by"]
    assert [(h["pipeline"], h["group"], h["needs_after"]) for h in held_by] == [
        ("p", "default", ids[1])]
    assert held_by[0]["why"] == "has not read them"


# Rows that are not settled

def test_nothing_goes_above_an_id_that_may_still_be_written(box):
    with box.connect(autocommit=False) as writer:
        late = writer.execute(
            f"insert into {OUTBOX} (created_at, payload) "
            "values (now() - interval '2 days', '{}') returning id").fetchone()[0]
        rows(box, 3)
        clean(box)
        assert len(left(box)) == 3 and purged_below(box) == 0
        writer.commit()
    assert late in left(box)
    clean(box)
    assert left(box) == []


def test_nothing_goes_above_a_prepared_transaction_not_even_after_it_was_prepared(box):
    with box.connect(autocommit=False) as writer:
        writer.execute(f"insert into {OUTBOX} (payload) values ('{{}}')")
        rows(box, 3)
        clean(box)
        writer.execute("prepare transaction 'in doubt'")
    clean(box)
    clean(box)
    assert len(left(box)) == 3
    box.execute("rollback prepared 'in doubt'")
    clean(box)
    assert left(box) == []


def test_a_prepared_transaction_protects_across_a_restart_of_the_server(own_pg_server, own_db):
    box = own_db
    box.execute("create table t (id int primary key)")
    box.execute("select pgtrickle.enable_outbox('t')")
    with box.connect(autocommit=False) as writer:
        writer.execute(f"insert into {OUTBOX} (payload) values ('{{}}')")
        rows(box, 3)
        clean(box)
        writer.execute("prepare transaction 'in doubt'")
    box.close()
    own_pg_server.restart()
    clean(box)
    clean(box)
    assert len(left(box)) == 3
    box.execute("commit prepared 'in doubt'")
    assert len(left(box)) == 4
    box.execute(f"update {OUTBOX} set created_at = now() - interval '2 days'")
    clean(box)
    assert left(box) == []


def test_newer_writers_do_not_keep_settled_rows_from_going(box):
    with box.connect(autocommit=False) as one, box.connect(autocommit=False) as other:
        one.execute(f"insert into {OUTBOX} (payload) values ('{{}}')")
        rows(box, 3)
        clean(box)
        assert len(left(box)) == 3
        other.execute(f"insert into {OUTBOX} (payload) values ('{{}}')")
        one.rollback()
        clean(box)
        assert left(box) == [], "the second writer began after the look"
        other.rollback()


def test_a_claim_of_a_new_reader_waits_for_a_batch_and_begins_behind_it(box):
    ids = rows(box, 3)
    incarnation = box.one("select incarnation from pgtrickle.pgt_outbox_config")
    claim = ("select last_change_id from pgtrickle.relay_claim_position("
             f"'default', 'p', '{incarnation}', 'w', 'earliest')")
    with box.connect(autocommit=False) as keeper, box.connect() as reader:
        keeper.execute("select pgtrickle.relay_housekeeping()")
        reader.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            reader.execute(claim)
        keeper.commit()
        assert reader.execute(claim).fetchone()[0] == ids[2] == purged_below(box)


def test_deleting_does_not_look_like_writing(box):
    rows(box, 3)
    with box.connect(autocommit=False) as keeper:
        assert keeper.execute("select pgtrickle.relay_housekeeping()").fetchone()[0]["deleted"] == 3
        assert box.execute(
            f"select pid from pgtrickle.relay_open_writers('{OUTBOX}')") == []
        keeper.rollback()
    with box.connect(autocommit=False) as deleter:
        deleter.execute(f"delete from {OUTBOX}")
        assert box.execute(f"select pid from pgtrickle.relay_open_writers('{OUTBOX}')") == []
        deleter.execute(f"insert into {OUTBOX} (payload) values ('{{}}')")
        assert box.execute(f"select pid from pgtrickle.relay_open_writers('{OUTBOX}')") == [
            (deleter.info.backend_pid,)]
        deleter.rollback()


# Housekeeping

def test_only_one_housekeeper_works_at_a_time(box):
    with box.connect(autocommit=False) as keeper:
        keeper.execute("select pgtrickle.relay_housekeeping()")
        report = box.one("select pgtrickle.relay_housekeeping()")
        assert report["busy"] is True and report["more"] is False


def test_an_outbox_that_cannot_be_cleaned_keeps_no_other_from_it(box):
    box.execute("create table a (id int primary key)")
    box.execute("select pgtrickle.enable_outbox('a')")
    box.execute("insert into pgtrickle.outbox_a (created_at, payload) "
                "values (now() - interval '2 days', '{}')")
    rows(box, 3)
    with box.connect(autocommit=False) as other:
        other.execute("lock table pgtrickle.outbox_a in share mode")
        report = box.one("select pgtrickle.relay_housekeeping()")
    assert [error["what"] for error in report["errors"]] == ["outbox_a"]
    assert report["deleted"] == 3 and left(box) == []


def test_a_step_looks_at_a_hundred_outboxes_and_the_next_goes_on_from_there(box):
    for number in range(120):
        box.execute(f"create table many{number:03} (id int primary key)")
        box.execute(f"select pgtrickle.enable_outbox('many{number:03}')")
    box.execute("insert into pgtrickle.outbox_many110 (created_at, payload) "
                "values (now() - interval '2 days', '{}')")
    rows(box, 1)
    assert [(r["deleted"], r["more"]) for r in clean(box)] == [
        (0, True), (1, True), (1, True), (0, True), (0, False)]


def test_a_snapshot_that_stands_still_is_refused(box):
    with box.connect(autocommit=False) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            connection.execute("select pgtrickle.relay_housekeeping()")


# All together

@pytest.mark.parametrize("seed", range(6))
def test_no_reader_ever_misses_a_row_whatever_the_order_of_events(box, seed):
    """Readers, writers with gaps and housekeeping at random: readers see all that committed."""
    dice = random.Random(seed)
    box.execute("update pgtrickle.pgt_outbox_config set retention_hours = 0")
    names = ["a", "b", "c"]
    for name in names:
        pipeline(box, name)
    incarnation = box.one("select incarnation from pgtrickle.pgt_outbox_config")
    tokens = {}
    settled = {name: 0 for name in names}
    seen = {name: [] for name in names}
    committed = []
    open_writers = []

    def write():
        writer = box.connect(autocommit=False)
        ids = [row[0] for row in writer.execute(
            f"insert into {OUTBOX} (payload) select '{{}}' from generate_series(1, %s) "
            "returning id", (dice.randint(1, 4),))]
        open_writers.append((writer, ids))

    def end():
        if open_writers:
            writer, ids = open_writers.pop(dice.randrange(len(open_writers)))
            if dice.random() < 0.7:
                writer.commit()
                committed.extend(ids)
            else:
                writer.rollback()
            writer.close()

    def read():
        # A reader passes only what is settled: everything below the smallest id still open.
        name = dice.choice(names)
        if name not in tokens:
            tokens[name] = box.one(
                "select owner_token from pgtrickle.relay_claim_position("
                "'g', %s, %s, 'w', 'earliest')", (name, incarnation))
        limit = min([min(ids) for _, ids in open_writers], default=10**9)
        found = [row[0] for row in box.execute(
            f"select id from {OUTBOX} where id > %s and id < %s order by id limit %s",
            (settled[name], limit, dice.randint(1, 6)))]
        if found:
            seen[name] += found
            settled[name] = found[-1]
            assert box.one("select pgtrickle.relay_commit_position('g', %s, %s, %s, %s, 0, null)",
                           (name, incarnation, tokens[name], found[-1]))

    def keep():
        step(box, max_rows=dice.randint(1, 8))

    for _ in range(300):
        dice.choice([write, end, read, read, keep])()
    while open_writers:
        end()
    for name in names:
        rest = [row[0] for row in box.execute(
            f"select id from {OUTBOX} where id > %s order by id", (settled[name],))]
        assert seen[name] + rest == sorted(committed), name
    assert purged_below(box) <= min(settled.values())
    assert box.one("select sum(lost_rows) from pgtrickle.relay_consumer_offsets") in (0, None)


def test_other_incarnations_positions_hold_nothing_here(box):
    ids = rows(box, 2)
    assert box.one("select owner_token from pgtrickle.relay_claim_position("
                   "'g', 'p', %s, 'w', 'earliest')", (uuid.uuid4(),))
    clean(box)
    assert left(box) == [] and purged_below(box) == ids[-1]
