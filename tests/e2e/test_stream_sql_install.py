"""Installing the database side of postgres-stream."""

import psycopg
import pytest
from support.stream_database import (events, files, install_stream, stream_db,  # noqa: F401
                                     stream_server, subscribe)


def state(db):
    return db.execute("""
        select 'f', p.oid::regprocedure::text, p.proowner::regrole::text, p.proacl::text, p.prosrc
        from pg_proc p where p.pronamespace::regnamespace::text in ('pgstream', 'pgstream_json')
        union all
        select 't', c.oid::regclass::text, c.relowner::regrole::text, c.relacl::text,
               c.relkind::text
        from pg_class c where c.relnamespace::regnamespace::text = 'pgstream'
        union all
        select 'c', conrelid::regclass::text || conname, '', '', pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'pgstream'::regnamespace
        order by 1, 2""")


def test_installing_again_changes_nothing(stream_db):
    stream_db.execute("create table t (id int)")
    subscribe(stream_db, when="new.id / 1 > 0")
    stream_db.execute("select pgstream.make_partitions()")
    before = state(stream_db)
    install_stream(stream_db.dsn)
    assert state(stream_db) == before
    stream_db.execute("insert into t values (1)")
    assert len(events(stream_db)) == 1


def test_all_belongs_to_pgstream_owner_and_nothing_to_everyone(stream_db):
    rows = state(stream_db)
    assert {owner for kind, _, owner, _, _ in rows if kind in "ft"} == {"pgstream_owner"}
    for_all = {name for kind, name, _, acl, _ in rows
               if kind == "f" and acl and "{=X/" in acl.replace(",", "{")}
    compiling = {"_as_in_trigger", "_check_privileges", "_compile", "_cannot_fail", "_calls",
                 "_check_columns", "_object_sql", "_columns_of", "_column_numbers", "_extensions",
                 "_other_types_sql", "_compile_subscription"}
    assert {name.split(".")[1].split("(")[0] for name in for_all if name.startswith("pgstream.")} == (
        {"_has_stream", "_image", "_let_owners_write"} | compiling)
    assert [name for kind, name, _, acl, _ in rows if kind == "t" and acl and "{=" in acl] == []


def test_no_name_is_in_the_schemas_of_the_relay(stream_db):
    assert stream_db.execute("select nspname from pg_namespace"
                             " where nspname like 'pgtrickle%'") == []


def test_a_server_below_15_is_refused(stream_db):
    text = files()["before/000_schemas.sql"].replace("150000", "990000")
    with pytest.raises(psycopg.Error, match="postgres-stream needs PostgreSQL 15 or newer"):
        stream_db.execute(text)


def test_without_the_right_to_make_roles_all_belongs_to_the_installing_role(stream_server):
    db = stream_server.create_database("template0")
    try:
        db.login("tenant")
        db.execute(f"alter database {db.name} owner to tenant")
        told = install_stream(stream_server.dsn(db.name, user="tenant"))
        assert 'roles cannot be created or granted: everything belongs to "tenant"' in told
        with db.connect(user="tenant") as tenant:
            tenant.execute("select pgstream.add_stream(1), pgstream.make_partitions()")
            tenant.execute("create schema mine; create table mine.t (id int)")
            subscribe(tenant, schema="mine", when="new.id / 1 > 0",
                      extensions=[("who", "current_user::text")])
            tenant.execute("insert into mine.t values (1)")
        assert [e["who"] for e in events(db)] == ["tenant"]
        install_stream(stream_server.dsn(db.name, user="tenant"))
    finally:
        db.drop()


@pytest.mark.parametrize("planted, said", [
    ("create schema pgstream authorization intruder",
     'schema "pgstream" belongs to role "intruder"'),
    ("create schema pgstream; grant create on schema pgstream to intruder",
     'others may create objects in schema "pgstream": intruder'),
    ("create schema pgstream; create table pgstream.streams (id int);"
     " alter table pgstream.streams owner to intruder", "contains objects of other roles"),
])
def test_a_schema_of_a_role_that_is_not_trusted(stream_server, planted, said):
    db = stream_server.create_database("template0")
    try:
        db.login("intruder")
        db.execute(planted)
        with pytest.raises(AssertionError, match=said):
            install_stream(db.dsn)
    finally:
        db.drop()


def test_a_member_of_the_owning_role_is_refused(stream_server):
    db = stream_server.create_database("template0")
    try:
        db.login("member_of_owner", "pgstream_owner")
        with pytest.raises(AssertionError, match='"member_of_owner" is a member of'):
            install_stream(db.dsn)
        db.execute("revoke pgstream_owner from member_of_owner")
        install_stream(db.dsn)
    finally:
        db.execute("revoke pgstream_owner from member_of_owner")
        db.drop()


@pytest.mark.parametrize("attribute, opposite", [("superuser", "NOSUPERUSER"),
                                                 ("login", "NOLOGIN")])
def test_an_owning_role_with_an_attribute_is_refused(stream_server, attribute, opposite):
    db = stream_server.create_database("template0")
    try:
        db.execute(f"alter role pgstream_owner {attribute}")
        with pytest.raises(AssertionError, match='role "pgstream_owner" has rights'):
            install_stream(db.dsn)
    finally:
        db.execute(f"alter role pgstream_owner {opposite}")
        db.drop()
