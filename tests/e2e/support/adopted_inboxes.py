"""Inboxes over tables of a role that we do not trust."""

import contextlib

import pytest

PLACE = "mallory.messages"

ATTACK = """
    create table mallory.seen (who text, what text);
    grant insert on mallory.seen to public;
    create function mallory.attack(what text) returns boolean language plpgsql volatile as $$
    begin
      insert into mallory.seen values (current_user, what);
      begin
        execute 'grant all on all tables in schema pgtrickle to mallory';
      exception when others then null; end;
      begin
        execute 'create or replace function pgtrickle_internal.inbox_table('
                'inbox pgtrickle.pgt_inbox_config) returns text language sql as '
                '''select null::text''';
      exception when others then null; end;
      begin
        execute format('grant %I to mallory', current_user);
      exception when others then null; end;
      begin
        execute 'alter role mallory superuser';
      exception when others then null; end;
      return true;
    end $$;
    -- Said to be immutable, and not.
    create function mallory.lie(value text) returns text language plpgsql immutable as $$
    begin perform mallory.attack('lie'); return value; end $$;
    create function mallory.fire() returns trigger language plpgsql as $$
    begin
      perform mallory.attack('trigger');
      return case when tg_op = 'DELETE' then old else new end;
    end $$;"""


@contextlib.contextmanager
def table_of_mallory(db):
    """A session of mallory, who owns the schema mallory, the table and what attacks."""
    db.login("mallory")
    db.execute("create schema mallory authorization mallory; grant usage on schema mallory to "
               "public; grant create on schema public to mallory")
    with db.connect(user="mallory") as connection:
        connection.execute(ATTACK)
        connection.execute(
            "create table mallory.sink (x boolean);"
            "create table mallory.messages (event_id text primary key, payload jsonb, "
            "processed_at timestamptz, error text, retry_count int not null default 0, "
            "received_at timestamptz default now())")
        yield connection
    db.execute("alter role mallory nosuperuser")


@pytest.fixture
def mallory(db):
    with table_of_mallory(db) as connection:
        yield connection


@pytest.fixture(scope="module")
def shared_db(pg_server):
    """A database for the many tests that leave nothing but what mallory owns."""
    database = pg_server.create_database()
    yield database
    database.drop()


@pytest.fixture
def shared(shared_db):
    with table_of_mallory(shared_db) as connection:
        yield shared_db, connection
    shared_db.execute("drop owned by mallory cascade; delete from pgtrickle.pgt_inbox_config")


def adopt(db, retention=72, table=PLACE, name="m"):
    db.execute("select pgtrickle.enable_inbox_tracking(%s, %s, retention_hours => %s)",
               (name, table, retention))


def arrive(db, *ids, processed=None):
    for identity in ids:
        db.execute("insert into mallory.messages (event_id, processed_at) "
                   "values (%s, now() - %s::interval)", (identity, processed))


def housekeeping(db):
    with db.connect(user="relay_daemon") as daemon:
        return daemon.execute("select pgtrickle.relay_housekeeping()").fetchone()[0]


def gate_function(db, name="m"):
    return db.one("select format('pgtrickle_streams.%%I', gate_function) "
                  "from pgtrickle.pgt_inbox_config where inbox_name = %s", (name,))
