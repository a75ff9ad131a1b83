"""A failover to a standby that lagged: what had been delivered and is gone is told, and what is there
is delivered."""

from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, to_file,
                               wait_settled)
from support.proxy import FaultProxy
from support.relay import Relay
from support.standby import pair
from support.waiting import eventually

WAIT = 40 * SLOW_FACTOR


def cause(relay, pipeline):
    causes = relay.pipeline(pipeline).get("causes", []) if relay.lists(pipeline) else []
    return next((each for each in causes if each["code"] == "delivered_rows_gone"), None)


def test_what_had_been_delivered_and_is_gone_is_counted(pair, relay_bin, tmp_path):
    primary, standby = pair
    db = primary.create_database()
    files = {}
    for name in ("orders", "quiet"):
        make_table(db, name)
        files[name] = Lines(tmp_path / f"{name}.jsonl")
        set_outbox(db, name, to_file(name, files[name].path))
    way = FaultProxy(primary.port)
    with Relay(db.relay_dsn.replace(f":{primary.port}/", f":{way.port}/")) as relay:
        relay.wait_healthy(pipelines=2)
        for name in ("orders", "quiet"):
            insert_rows(db, name, 1, 10)
            wait_settled(db, name, name)
        with primary.connect() as admin:
            eventually(lambda: admin.execute(
                "select bool_and(replay_lsn >= pg_current_wal_lsn()) from pg_stat_replication"
            ).fetchone()[0], WAIT)
        standby.link.stall()
        insert_rows(db, "orders", 11, 7)
        wait_settled(db, "orders", "orders")
        files["orders"].wait_rows(range(1, 18))
        standby.link.cut()
        primary.kill9()
        standby.promote()
        # New rows have the numbers of those that are gone.
        with standby.connect(db.name) as there:
            for identity in (101, 102, 103):
                there.execute("insert into orders values (%s, 'new', 1)", (identity,))
            there.commit()
        way.target_port = standby.port
        relay.wait_state("orders", "idle", "running", deadline=WAIT)
        found = eventually(lambda: cause(relay, "orders"), WAIT, message=relay.log)
        assert found["message"].startswith("7 rows of outbox outbox_orders that had been delivered")
        assert "between 11 and 17" in found["message"] and found["remedy"]
        eventually(lambda: relay.health()[1]["status"] == "degraded", WAIT)  # it is in its group again
        relay.wait_metric("delivered_rows_gone_total", 7, pipeline="orders")
        assert relay.metric("delivered_rows_gone_total", pipeline="quiet") == 0
        assert cause(relay, "quiet") is None
        # Nothing that is there was skipped.
        eventually(lambda: set(files["orders"].rows()) == {*range(1, 18), 101, 102, 103}, WAIT,
                   message=relay.log)
        with standby.connect(db.name) as there:
            there.execute("select pgtrickle.resume_relay('orders')")
            there.commit()
        eventually(lambda: relay.health()[1]["status"] == "healthy", WAIT, message=relay.log)
        said = eventually(lambda: len(lines := [line for line in relay.log_lines
                                                if "delivered_rows_gone" in line]) > 1 and lines, WAIT)
        assert len(said) == 2 and "WARN" in said[0] and "recovered" in said[1], said
        relay.wait_metric("delivered_rows_gone_total", 7, pipeline="orders")
    primary.start()
