"""Values that no user means to write: SQL, a configuration file and the JSON Schema of both judge them alike."""

import json
import random
import re

import jsonschema
import pytest
from psycopg.types.json import Jsonb
from support.database_side import install
from support.pipelines import LONG
from support.postgres import refusal
from support.relay import run_command
from test_option_catalogue import (GOOD, SAME, Catalogue, disagreements, problems_in_sql, told_by_program,
                                   told_by_sql, toml)
from test_option_schema import is_sayable, printed_schema

pytestmark = pytest.mark.xdist_group("options")  # one process: what SQL says is asked once
ENDS = {"source": {"type": "stdin"}, "sink": {"type": "stdout"}}

LONGEST = "0." + "12" * 99  # of 200 characters

EXTREME = [
    "", " ", "\t", "\n", "é" * 50, "１０", "10KB", "ſ", "İ", "10MİB", "x" * 5000, "\u0001", "\u0085",
    "1s" * 100, "1s" * 101, LONGEST, LONGEST + "1", "1" * 18, "1" * 19, "9" * 250, " 10s ", "10s\n",
    "\n10s", "1 s 2 ms", "1.5.5s", ".5s", "5.", "+1", "-1", "0x10", "1_000", "1e3", "true", "null",
    "Latest", "earliest ", "$", "$$", "${", "a ${", "${}", "$${", "$${env:A}", "$$${env:A}",
    "${file:x}", "${a b}", "a$${b", "{", "}", "'", '"', "\\", "%", "%s", "😀",
    0, 1, 2, -1, 1.0, 17.0, 0.0, 2.5, 2e-9, 5e-10, 0.001, 1e15, 1e16, 1e18, 1e19, 1e300, 10**18 - 1,
    10**18, 2**63 - 1, -2**63, True, False, [], {}, [[]], [["a"]], ["a", 1], ["a", "a"], [""],
    ["${"], {"a": []}, {"a": {"b": 1}}, {"a": 1.0}, {"": ""}, {"a": "${"}, {"a": 2**63 - 1},
    {"a": 1e300}, {"a" * 300: "é"},
]


def kinds(catalogue):
    """One option of each kind, range and place; with LONG all of them."""
    found = {}
    for (side, type), rows in catalogue.options.items():
        for row in rows if side != "retention" else ():
            alike = (row["kind"], row["minimum"], row["maximum"], row["also_in"], side == "pipeline")
            found.setdefault((alike, LONG and (side, type, row["name"])), (side, type, row))
    return list(found.values())


def with_value(catalogue, side, type, option, value):
    """A pipeline in which this option alone is strange."""
    config = {which: dict(end) for which, end in ENDS.items()}
    if side == "pipeline":
        return {**config, option["name"]: value}
    rows = catalogue.options[side, type]
    config[side] = {"type": type}
    marks = {option["one_of"]}
    for row in rows:
        if row is not option and (row["required"] or row["one_of"] not in marks):
            marks.add(row["one_of"])
            config[side][row["name"]] = (GOOD[row["kind"]] + row["choices"])[0]
    config[side][option["name"]] = value
    return config


@pytest.fixture(scope="module")
def extremes(pg_server, tmp_path_factory):
    """[(configuration, problems as SQL says them, as the program does)]: some, or with LONG all."""
    db = pg_server.create_database()
    try:
        catalogue = Catalogue(db)
        configs = [with_value(catalogue, *where, value) for where in kinds(catalogue) for value in EXTREME]
        configs = configs if LONG else random.Random(0).sample(configs, 800)
        told = told_by_program(tmp_path_factory.mktemp("extremes") / "relay.toml", configs)
        return list(zip(configs, problems_in_sql(db, configs), told, strict=True))
    finally:
        db.drop()


def judges():
    schema = printed_schema()
    return (jsonschema.Draft202012Validator(schema),
            jsonschema.Draft202012Validator({"$ref": "#/$defs/config", "$defs": schema["$defs"]}))


def has_braces(config):
    """Whether a text may hold a reference. Of one that is malformed, each says how it goes on."""
    return "${" in json.dumps(config)


def test_sql_and_files_judge_extreme_values_alike(extremes):
    configs, problems, told = zip(*(each for each in extremes if not has_braces(each[0])))
    found = list(disagreements(configs, told, told_by_sql(problems)))
    assert not found, f"{len(found)}: " + json.dumps(found[:5], indent=1)
    for config, by_sql, by_program in extremes:
        # Apart from what is wrong with it as a template or a URL, and from what the database reads
        # itself: it resolves no reference, and no escape of one.
        if has_braces(config) and not any("cannot be a reference" in each for each in by_sql):
            told = [each for each in by_program if SAME.search(each) or "${" in each]
            assert bool(told) == bool(by_sql), (config, by_program, by_sql)
    accepted = sum(not problems for _, problems, _ in extremes)
    assert min(accepted, len(extremes) - accepted) > 50


def test_the_schema_judges_them_as_sql_and_the_program_do(extremes):
    of_files, of_sql = judges()
    for config, by_sql, by_program in extremes:
        if by_sql and not any(map(is_sayable, by_sql)):
            continue  # the range of a text
        if any("is a text; it must be a" in each for each in by_sql) and LONGEST + "1" not in str(config):
            continue  # the same, of a text that is too long to be shown
        assert of_sql.is_valid(config) == (not by_sql), (config, by_sql)
        if bool(by_program) == bool(by_sql):
            assert of_files.is_valid({"pipeline": [{"name": "p", **config}]}) == (not by_program), (
                config, by_program)


# One option twice ---------------------------------------------------------------------------------

NATS = {"source": {"type": "stdin"}, "sink_type": "nats"}
TWICE = [  # whether it is accepted, and the configuration
    (True, {**NATS, "nats_url": "a", "jetstream_url": "a"}),
    (False, {**NATS, "nats_url": "a", "jetstream_url": "b"}),
    (True, {**NATS, "sink": {"url": "a"}, "nats_url": "a"}),
    (False, {**NATS, "sink": {"url": "a"}, "nats_url": "b"}),
    (True, {**NATS, "sink": {"url": "a", "type": "jetstream"}}),
    (False, {**NATS, "sink": {"url": "a", "type": "kafka"}}),
    (True, {**NATS, "nats_url": "a", "max_in_flight": 5, "sink": {"max_in_flight": 5.0}}),
    (False, {**NATS, "nats_url": "a", "max_in_flight": 5, "sink": {"max_in_flight": 6}}),
    (False, {**NATS, "nats_url": "a", "max_in_flight": 5, "nats_max_in_flight": 6}),
    (True, {**ENDS, "retry_min": 1, "retry": {"min": 1.0}}),
    (False, {**ENDS, "retry_min": 1, "retry": {"min": 1.5}}),
    (False, {**ENDS, "retry_min": 1, "retry": {"min": "1"}}),
    (True, {**ENDS, "headers": {"a": 1, "b": "c"}, "sink": {"type": "stdout", "headers": {"b": "c", "a": 1.0}}}),
    (False, {**ENDS, "headers": {"a": 1}, "sink": {"type": "stdout", "headers": {"a": "1"}}}),
    (False, {**ENDS, "headers": {"a": 1}, "sink": {"type": "stdout", "headers": {}}}),
    (False, {**ENDS, "columns": ["a", "b"], "source": {"type": "stdin", "columns": ["a"]}}),
    (True, {"source": {"type": "outbox", "table": "t"}, "stream_table": "t", "sink": {"type": "stdout"}}),
    (False, {"source": {"type": "outbox", "table": "t"}, "stream_table": "u", "sink": {"type": "stdout"}}),
    (False, {"source": {"type": "outbox", "table": "t", "outbox": "t"}, "sink": {"type": "stdout"}}),
    (True, {"source": {"type": "outbox", "table": "t", "start": 17}, "start": 17.0, "sink": {"type": "stdout"}}),
    (False, {"source": {"type": "stdin"}, "sink": {"type": "webhook"}, "http_url": ""}),
    (True, {"source": {"type": "stdin"}, "sink": {"type": "webhook"}, "http_url": "https://h"}),
    (False, {"source_type": "stdin", "sink_type": "stdout", "source": {"type": "file", "path": "x"}}),
]


@pytest.mark.parametrize("accepted, config", TWICE, ids=[json.dumps(config) for _, config in TWICE])
def test_an_option_that_is_given_twice_must_say_the_same(db, tmp_path, accepted, config):
    problems = problems_in_sql(db, [config])[0]
    assert (not problems) == accepted, problems
    assert (not told_by_program(tmp_path / "relay.toml", [config])[0]) == accepted


# What SQL does with a configuration that it accepts ------------------------------------------------

SPELLINGS = [
    {"stream_table": "orders"}, {"outbox": "orders"}, {"source": {"type": "outbox", "table": "orders"}},
    {"source_type": "outbox", "outbox_table": "orders"}, {"outbox_stream_table": "orders"},
    {"outbox_outbox": "orders"}, {"stream_table": "", "outbox": "orders"},
    {"source": {"table": "", "outbox": "orders"}},
]


@pytest.mark.parametrize("source", SPELLINGS, ids=map(json.dumps, SPELLINGS))
def test_an_outbox_is_found_under_every_spelling(db, source):
    """Otherwise retention would not know that the pipeline needs its rows."""
    db.execute("create table orders (id int primary key)")
    db.execute("select pgtrickle.set_relay_outbox('p', %s, true)",
               (Jsonb({**source, "sink_type": "stdout", "retention_hours": 5.0}),))
    incarnation, = db.execute("select incarnation from pgtrickle.pgt_outbox_config"
                              " where stream_table_name = 'orders' and retention_hours = 5")[0]
    assert db.execute("select pipeline, needs_after from pgtrickle_internal.outbox_holders(%s)",
                      (incarnation,)) == [("p", 0)]


GROUPS = [{"group": "shared"}, {"source": {"group": "shared"}}, {"outbox_group": "shared"}]


@pytest.mark.parametrize("group", GROUPS, ids=map(json.dumps, GROUPS))
def test_a_pipeline_with_a_group_of_its_own_is_seen_under_every_spelling(db, group):
    db.execute("create table orders (id int primary key)")
    db.execute("select pgtrickle.set_relay_outbox('p', %s, true)",
               (Jsonb({"stream_table": "orders", "sink_type": "stdout", **group}),))
    db.execute("""
        insert into pgtrickle.relay_instances (relay_group_id, worker_id) values ('default', 'w');
        insert into pgtrickle.relay_consumer_offsets
          (relay_group_id, pipeline_id, incarnation, last_change_id, updated_at, seen_at)
        select 'shared', 'p', incarnation, 0, now() - interval '30 days', now() - interval '30 days'
        from pgtrickle.pgt_outbox_config;
        alter table pgtrickle.relay_config disable trigger user;
        update pgtrickle.relay_config set enabled_changed_at = now() - interval '30 days'""")
    assert db.execute("select relay_group_id, holds from pgtrickle_internal.outbox_holders("
                      "(select incarnation from pgtrickle.pgt_outbox_config))") == [("shared", True)]


def test_malformed_references_are_refused_where_they_stand(db):
    said = refusal(db, "select pgtrickle.set_relay('p', %s)", (Jsonb({
        **ENDS, "columns": ["a", "${b"], "headers": {"x": "${NAME}", "y": "${file:key}"}, "filter": "${2}",
        "subject_template": "$${kept} ${env:A} ${file:/b}"}),))
    assert "4 problems" in said
    for part in ("key columns[1]: a reference that begins with ${ has no }",
                 "key headers.x: ${NAME} is not a reference here; plain names work in files only. "
                 "Write ${env:NAME}", "key headers.y: ${file:key}: the path must begin with /",
                 "key filter: ${2} is not a reference. References are ${env:NAME}"):
        assert part in said


def said_of_name(path, name):
    path.write_text('[global]\nno_such_setting = 1\n[[pipeline]]\nsource = {type = "stdin"}\n'
                    f'sink = {{type = "stdout"}}\nname = {toml(name)}\n')
    return run_command("status", "--config", path).stderr


def test_a_name_is_as_long_in_a_file_as_in_sql(db, tmp_path, relay_bin):
    of_files, _ = judges()
    for name, accepted in (("é" * 200, True), ("é" * 201, False), ("a\u0085b", True), ("a\u007f", False),
                           ("😀" * 200, True), ("a\u00a0", True), (" ", False)):
        (problems,) = db.execute("select pgtrickle_internal.relay_problems(%s, 'bridge', %s)",
                                 (name, Jsonb(ENDS)))[0]
        assert (not problems) == accepted, (name, problems)
        assert of_files.is_valid({"pipeline": [{"name": name, **ENDS}]}) == accepted, name
        assert ("a pipeline's name" in said_of_name(tmp_path / "relay.toml", name)) != accepted, name


def test_a_database_of_another_locale_judges_alike(db, pg_server):
    """The Turkish lower case of I is no i, and ICU has digits of many scripts."""
    configs = [{**ENDS, "batch_bytes": "10MIB"}, {**ENDS, "batch_bytes": "10 KIB"},
               {**ENDS, "batch_bytes": "١٠"}, {**ENDS, "retry_min": "١s"}, {**ENDS, "BATCH_SIZE": 5},
               {**ENDS, "retry_min": "1MİN"}, {**ENDS, "start": "١"}]
    turkish = pg_server.create_database(
        template="template0", options="locale_provider icu icu_locale 'tr-TR'")
    try:
        install(turkish.dsn)
        there, here = problems_in_sql(turkish, configs), problems_in_sql(db, configs)
        assert there == here
        assert [bool(each) for each in here] == [False, False, True, True, True, True, True]
        assert re.search('Did you mean "batch_size"', here[4][0])
    finally:
        turkish.drop()
