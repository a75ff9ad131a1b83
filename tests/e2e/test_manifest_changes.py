"""Each kind of change that ALTER, DROP, GRANT, REVOKE and CREATE OR REPLACE allow, made to some objects
of each kind of the manifest: what is read from the catalogs differs then."""

import re

import psycopg
import pytest
from support.manifest import installed_lines, recorded_lines, recorded_objects

# Of each kind, objects at equal distances in the manifest. All would take half an hour.
SAMPLES = {"function": 12, "column": 8, "table": 5, "constraint": 6, "view": 2, "sequence": 2,
           "index": 3, "trigger": 2, "schema": 3, "role": 2}

# Changes of an object: {name}, {table} that it is a part of, {part} of the name behind that table, and
# the other attributes of its line.
CHANGES = {
    "table": [
        "alter table {name} owner to bystander", "alter table {name} enable row level security",
        "alter table {name} force row level security", "alter table {name} rename to other",
        "alter table {name} replica identity nothing", "alter table {name} set schema public",
        "alter table {name} set (autovacuum_enabled = off)", "drop table {name} cascade",
        "alter table {name} add column other int", "create table child () inherits ({name})",
        "create rule other as on insert to {name} do instead nothing",
        "create policy other on {name} using (false)",
        "alter table {name} add constraint other check (1 = 1)",
        "revoke insert on {name} from pgtrickle_owner", "revoke all on {name} from {reader}",
        "grant {privilege} on {name} to {role}"],
    "view": [
        "alter view {name} owner to bystander", "alter view {name} set (security_barrier = {other_barrier})",
        "alter view {name} rename to other", "alter view {name} set schema public",
        "drop view {name} cascade", "grant {privilege} on {name} to {role}",
        "create rule other as on insert to {name} do instead nothing"],
    "column": [
        "alter table {table} drop column {part} cascade",
        "alter table {table} rename column {part} to other",
        "alter table {table} alter column {part} {opposite_of_not_null} not null",
        "grant {privilege} ({part}) on {table} to {role}"],
    "constraint": ["alter table {table} drop constraint {part} cascade",
                   "alter table {table} rename constraint {part} to other"],
    "index": ["drop index {name}", "alter index {name} rename to other",
              "update pg_index set indisvalid = false where indexrelid = '{name}'::regclass",
              "update pg_index set indisready = false where indexrelid = '{name}'::regclass"],
    "trigger": ["drop trigger {part} on {table}", "alter table {table} disable trigger {part}",
                "alter table {table} enable trigger {part}",
                "alter table {table} enable replica trigger {part}",
                "alter trigger {part} on {table} rename to other"],
    "sequence": [
        "alter sequence {name} cache 5", "alter sequence {name} increment 2",
        "alter sequence {name} cycle", "alter sequence {name} maxvalue 100000",
        "alter sequence {name} minvalue -5", "alter sequence {name} start 10",
        "alter sequence {name} rename to other", "alter sequence {name} as smallint",
        "grant update on sequence {name} to {role}"],
    "function": [
        "alter function {name} owner to bystander", "alter function {name} leakproof",
        "alter function {name} security {opposite_of_security}", "drop function {name} cascade",
        "alter function {name} {opposite_of_volatility}",
        "alter function {name} set search_path = public",
        "alter function {name} set work_mem = '1GB'", "alter function {name} rename to other",
        "alter function {name} set schema public", "alter function {name} parallel restricted",
        "alter function {name} depends on extension plpgsql",
        "revoke execute on function {name} from {owner}",
        "grant execute on function {name} to pgtrickle_publisher with grant option",
        "do $do$ begin execute regexp_replace(pg_get_functiondef('{name}'::regprocedure),"
        " '([$]function[$])', '\\1 '); end $do$"],
    "schema": ["alter schema {name} owner to bystander", "alter schema {name} rename to other",
               "grant create on schema {name} to {role}",
               "revoke usage on schema {name} from pgtrickle_owner"],
    "role": ["alter role {name} superuser", "alter role {name} createrole",
             "alter role {name} createdb", "alter role {name} replication",
             "alter role {name} bypassrls", "alter role {name} noinherit",
             "alter role {name} rename to other"],
}
HARMFUL = ("insert", "update", "references")


def statements(kind, name, attributes):
    table = attributes.get("table")
    values = {
        "name": name, "table": table, "owner": attributes.get("owner"),
        "reader": "pgtrickle_admin" if "grants pgtrickle_admin" in attributes else "pgtrickle_owner",
        "other_barrier": "security_barrier=true" not in attributes.get("options", ""),
        "part": name[len(table) + 1:] if table else "",
        "opposite_of_not_null": "drop" if "not null" in attributes else "set",
        "opposite_of_security": "invoker" if attributes.get("security") == "definer" else "definer",
        "opposite_of_volatility": "stable" if attributes.get("volatility") != "stable" else "volatile"}
    for text in CHANGES[kind]:
        for privilege in HARMFUL if "{privilege}" in text else ("",):
            for role in ("public", "bystander", "pgtrickle_publisher") if "{role}" in text else ("",):
                yield text.format(**values, privilege=privilege, role=role)


def sample(kind):
    of_kind = [(name, attributes) for k, name, attributes in recorded_objects()
               if k == kind and ("view" not in attributes)
               # What is in these belongs to stream tables and feeds, which look at each object.
               and name not in ("pgtrickle_streams", "pgtrickle_changes")]
    step = max(1, len(of_kind) // SAMPLES[kind])
    return of_kind[::step][:SAMPLES[kind]]


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_no_change_of_an_object_goes_unseen(db, kind):
    db.login("bystander")
    recorded = recorded_lines()
    unseen, seen = [], 0
    with db.connect(autocommit=False) as session:
        session.execute("set client_min_messages = error; set search_path = public")
        session.commit()
        for name, attributes in sample(kind):
            for statement in statements(kind, name, attributes):
                try:
                    session.execute(statement)
                except psycopg.Error as error:  # a dependency, or no change of that kind there
                    assert re.search("depend|inherit|identity|primary key|must be|less than|greater"
                                     "|cannot|NULL|not null", str(error)), (statement, error)
                    session.rollback()
                    continue
                if installed_lines(session) == recorded:
                    unseen.append(statement)
                seen += 1
                session.rollback()
    assert unseen == [] and seen >= len(CHANGES[kind])
