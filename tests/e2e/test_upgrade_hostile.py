"""Upgrades where nothing is kind: settings of the database, sessions that are ended, servers that crash,
transactions that stay open across the upgrade."""

import random

import pytest
from support import earlier_versions as earlier
from support.fixtures import need
from support.manifest import installed_lines, recorded_lines
from support.pipelines import LONG
from support.postgres import PostgresServer, postgres_bin_directory
from support.processes import Process
from support.relay import clean_environment, relay_binary
from support.replay import Replay
from support.waiting import eventually
from test_database_settings import PLAIN, SETTINGS, SINCE_17
from test_upgrade_load import TABLES, Init, Load, events, inserts, keys, moves, old, swaps  # noqa: F401

BACKENDS = ("select pid from pg_stat_activity where datname = current_database() and "
            "application_name = 'pgtrickle-relay command'")


def lacks(db):
    """What an installation makes, and this database lacks, or has otherwise."""
    with db.connect(client_encoding="UTF8") as session:
        return set(recorded_lines()) - set(installed_lines(session))


@pytest.mark.parametrize("version", earlier.VERSIONS)
def test_settings_of_the_database_do_not_stop_an_upgrade(empty_db, relay_bin, tmp_path, version):
    db = empty_db
    earlier.install_version(db.dsn, version)
    earlier.fill(db.dsn, tmp_path / "unused.jsonl")
    before = earlier.counts(db.dsn)
    settings = dict(SETTINGS)
    plain = dict(PLAIN)
    db.execute("load 'plpgsql'")
    if int(db.one("show server_version_num")) >= 170000:
        settings |= SINCE_17
        plain |= {name: "0" for name in SINCE_17}
    for name, value in settings.items():
        db.execute(f"alter database {db.name} set {name} = " + (
            value if name in ("search_path", "DateStyle") else f"'{value}'"))
    db.close()
    earlier.installed(db.dsn)
    with db.connect(options=" ".join(f"-c {name}={value}" for name, value in plain.items())) as session:
        session.execute(f"alter database {db.name} reset all")
    assert earlier.counts(db.dsn) == before
    assert lacks(db) == set()
    with db.connect() as session:
        session.execute("insert into orders values (100, 'x', 1); update keyed set n = n + 1")
    for table in TABLES:
        Replay(db, table).check()


def test_ending_the_session_of_init_at_any_moment_harms_nothing(old):  # noqa: F811
    loads = [Load(old, inserts, 10 ** 6), Load(old, moves, 10 ** 6), Load(old, keys, 10 ** 6),
             Load(old, swaps, 0), Load(old, events, 0), Load(old, inserts, 2 * 10 ** 6, "serializable"),
             Load(old, inserts, 3 * 10 ** 6, prepared=True)]
    dice = random.Random()
    for load in loads:
        load.__enter__()
    try:
        for _ in range(40 if LONG else 3):
            process = Process([relay_binary(), "init"],
                              env=clean_environment({"PGTRICKLE_RELAY_POSTGRES_URL": old.dsn}))
            looks = dice.randrange(1, 60)
            while process.running and looks > 0:
                looks -= 1
                if old.execute(BACKENDS) and looks == 0:
                    old.execute(f"select pg_terminate_backend(pid) from ({BACKENDS}) b")
            eventually(lambda: not process.running, 60)
        done = earlier.installed(old.dsn)
        after = [load.rounds for load in loads]
        eventually(lambda: all(load.rounds > before + 3 for load, before in zip(loads, after)), 60)
    finally:
        for load in loads:
            load.__exit__()
    # A serializable transaction may have to be repeated, with or without an upgrade.
    errors = [error for load in loads for error in load.errors if "could not serialize" not in error]
    assert errors == [], done.stderr
    for table in TABLES:
        Replay(old, table).check()
    earlier.installed(old.dsn)
    assert lacks(old) == set()


@pytest.fixture
def own_server(relay_bin):
    need(postgres_bin_directory(), "a PostgreSQL server (postgresql)")
    server = PostgresServer("upgrade-crashes").start()
    try:
        yield server
    finally:
        server.stop_immediate()


def test_a_server_that_crashes_during_an_upgrade_has_the_old_or_the_new_one(own_server, tmp_path):
    """As after a power cut: no session ends its transaction. (Where the postmaster alone is killed,
    sessions roll back, and PostgreSQL itself may not start again: of an unlogged table that was made in
    such a transaction it finds the file, empty, where recovery wants to make it.)"""
    db = own_server.create_database(template="template0")
    earlier.install_version(db.dsn, 2)
    earlier.fill(db.dsn, tmp_path / "unused.jsonl")
    before = earlier.counts(db.dsn)
    dice = random.Random()
    for crash in range(12 if LONG else 3):
        process = Process([relay_binary(), "init"],
                          env=clean_environment({"PGTRICKLE_RELAY_POSTGRES_URL": db.dsn}))
        looks = dice.randrange(1, 120)
        while process.running and looks > 0:
            looks -= 1
            db.execute(BACKENDS)
        db.close()
        own_server.restart("immediate")
        eventually(lambda: not process.running, 60)
        assert earlier.counts(db.dsn) == before
        with db.connect() as session:
            session.execute("insert into orders values (%s, 'x', 1)", (1000 + crash,))
            session.execute("delete from orders where id = %s", (1000 + crash,))
        before = earlier.counts(db.dsn)
    earlier.installed(db.dsn)
    assert earlier.counts(db.dsn) == before
    assert lacks(db) == set()
    Replay(db, "orders").check()


@pytest.mark.parametrize("isolation, prepared", [
    ("read committed", False), ("repeatable read", True), ("serializable", False)])
def test_a_transaction_that_wrote_before_and_writes_on_fails_in_nothing(old, isolation, prepared):  # noqa: F811
    """init waits for it, or goes past it: both are well."""
    with old.connect(autocommit=False) as application, old.connect() as others:
        application.execute(f"set transaction isolation level {isolation}")
        application.execute("declare rows cursor for select * from pgtrickle.outbox_orders")
        application.execute("fetch 1 from rows")
        application.execute("insert into orders values (5000, 'before', 1)")
        application.execute("savepoint here; update keyed set n = n + 1")
        upgrade = Init(old.dsn)
        for number in range(30):
            others.execute("insert into orders values (%s, 'meanwhile', 1)", (6000 + number,))
            others.execute("select pg_sleep(0.02)")
        application.execute("insert into orders values (5001, 'meanwhile', 1)")
        application.execute("rollback to here; update keyed set id = -id where id < 4")
        application.execute("insert into parts values (5000, 1, 'x'); update parts set part = 2 where id = 5000")
        application.execute("fetch all from rows")
        if prepared:
            application.execute("close rows")
            application.execute("prepare transaction 'across'")
            others.execute("insert into orders values (7000, 'later', 1)")
            others.execute("commit prepared 'across'")
        else:
            application.commit()
        upgrade.end()
    for table in TABLES:
        Replay(old, table).check()
    earlier.installed(old.dsn)
    assert lacks(old) == set()
    assert old.one("select count(*) from orders where id >= 5000") == 31 + prepared


ENCODINGS = [("encoding 'SQL_ASCII' locale 'C'", None), ("encoding 'SQL_ASCII' locale 'C'", 2),
             ("encoding 'LATIN1' locale 'C'", None), ("encoding 'EUC_JP' locale 'C'", 1),
             ("locale_provider icu icu_locale 'tr-TR'", 2)]


@pytest.mark.parametrize("options, version", ENCODINGS)
def test_a_database_of_another_encoding_is_installed_and_upgraded(pg_server, relay_bin, tmp_path, options,
                                                                  version):
    need(pg_server.version >= 15 or "icu" not in options, "databases with an ICU locale (PostgreSQL 15)")
    db = pg_server.create_database(template="template0", options=options)
    try:
        if version:
            earlier.install_version(db.dsn, version)
            earlier.fill(db.dsn, tmp_path / "unused.jsonl")
            before = earlier.counts(db.dsn)
        earlier.installed(db.dsn)
        assert lacks(db) == set()
        if version:
            assert earlier.counts(db.dsn) == before
    finally:
        db.drop()
