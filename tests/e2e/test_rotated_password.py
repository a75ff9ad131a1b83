"""A database password that was changed is read again, without a restart of the relay."""

import psycopg

from support.pipelines import SLOW_FACTOR, insert_rows, make_table, set_outbox
from support.relay import Relay
from support.waiting import eventually

WAIT = 30 * SLOW_FACTOR


def test_a_rotated_password_is_read_at_the_next_attempt(own_pg_server, own_db, relay_bin, tmp_path):
    db = own_db
    db.execute("create role rotated login password 'first' in role pgtrickle_relay")
    place = db.relay_dsn.split("@", 1)[1]
    url = tmp_path / "url"
    url.write_text(f"postgresql://rotated:first@{place}\n")
    password = tmp_path / "password"
    password.write_text("first\n")
    config = tmp_path / "relay.toml"
    config.write_text("[global]\n"
                      f'postgres_url = "postgresql://rotated:${{file:{password}}}@{place}"\n')
    make_table(db)
    # The sink has a session of its own, with the same password from a file.
    set_outbox(db, "copies", {"stream_table": "orders", "sink": {
        "type": "pg-inbox", "inbox_name": "copies",
        "url": f"postgresql://rotated:${{file:{password}}}@{place}"}})
    db.execute("select pgtrickle.create_inbox('copies')")
    db.execute("alter system set password_encryption = 'scram-sha-256'")

    def stored():
        return db.one("select count(*) from pgtrickle.inbox_copies")

    allowed = {"allow_secret": f"file:{password}"}
    with Relay(None, postgres_url_file=url, **allowed) as by_file, \
            Relay(None, config=config, relay_group_id="other", **allowed) as by_toml:
        for relay in (by_file, by_toml):
            relay.wait_healthy(pipelines=1)
        insert_rows(db, "orders", 1)
        eventually(lambda: stored() >= 1, WAIT, message=by_file.log)
        db.execute("alter role rotated password 'second'")
        with psycopg.connect(db.dsn, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity"
                          " where usename = 'rotated'")
        for relay in (by_file, by_toml):
            eventually(lambda: relay.health()[1]["status"] == "unhealthy", WAIT, message=relay.log)
            eventually(lambda: "28P01" in relay.log(), WAIT, message=relay.log)
        url.write_text(f"postgresql://rotated:second@{place}\n")
        password.write_text("second\n")
        for relay in (by_file, by_toml):
            relay.wait_healthy(pipelines=1, deadline=WAIT)
            assert "second" not in relay.log()
        insert_rows(db, "orders", 2)
        eventually(lambda: stored() >= 2, WAIT, message=by_file.log)
        # Another database is no other password.
        url.write_text(f"postgresql://rotated:second@{place}_other\n")
        with psycopg.connect(db.dsn, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity"
                          " where usename = 'rotated'")
        eventually(lambda: "postgres_url_changed" in by_file.log(), WAIT, message=by_file.log)
        by_file.wait_healthy(pipelines=1, deadline=WAIT)
