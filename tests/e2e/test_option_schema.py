"""`options --json`: a JSON Schema that accepts what the program accepts, by an independent validator."""

import copy
import functools
import json
import pathlib
import random
import re
import subprocess
import sys
import tomllib

import jsonschema
import pytest

from conformance.suite import BROKERS
from support.pipelines import LONG
from support.postgres import REPOSITORY
from support.relay import run_command
from test_docs_values import PAGES, statements
from test_option_catalogue import SAME, Catalogue, judged, problems_in_sql, told_by_program

pytestmark = pytest.mark.xdist_group("options")  # one process: what SQL says is asked once
SEEDS = pathlib.Path(REPOSITORY) / "tests/seeds"
AMOUNTS = {  # texts whose range a schema does not check
    "duration": r"\s*\d+(\.\d+)?\s*|(\s*\d+(\.\d+)?\s*(us|ms|s|m|h|d)\s*)+",
    "size": r"\s*\d+(\.\d+)?\s*(([kmgt]i?)?b\s*)?",
}


@functools.cache
def printed_schema():
    printed = run_command("options", "--json")
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout)


@pytest.fixture
def schema(relay_bin):
    return printed_schema()


@pytest.fixture
def of_files(schema):
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def of_sql(schema):
    return jsonschema.Draft202012Validator({"$ref": "#/$defs/config", "$defs": schema["$defs"]})


def refusals(validator, config):
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
            for error in validator.iter_errors(config)]


def test_it_is_a_schema(schema):
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert len(json.dumps(schema)) < 400_000


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_it_accepts_every_file_that_the_documents_show(of_files):
    texts = [text for page in PAGES for text in blocks(page, "toml")]
    texts += [path.read_text() for path in SEEDS.glob("*/*.toml")]
    for text in texts:
        config = tomllib.loads(text)
        if not {"global", "pipeline"} & set(config):  # a part of a pipeline
            config = {"pipeline": [{"name": "p", "source": {"type": "stdin"}, "sink": {"type": "stdout"},
                                    **config}]}
        assert refusals(of_files, config) == [], text
    assert len(texts) > 15


@pytest.fixture
def stored(db):
    """Runs calls of set_relay_...; what they would store is returned, and not stored."""
    db.execute("create table stored (config jsonb); grant insert on stored to public")
    for function in ("set_relay(name text, direction text, config jsonb, enabled boolean, caller_path text)",
                     "store_relay(name text, direction text, config jsonb, enabled boolean)"):
        db.execute(f"""
            create or replace function pgtrickle_internal.{function} returns void language sql
            set search_path = pg_catalog, pg_temp as $$ insert into public.stored values (config) $$""")

    def run(text):
        for statement in statements(f"```sql\n{text}\n```"):
            if re.search(r"pgtrickle\.set_relay\w*\(", statement):
                db.execute(statement)
        return [config for config, in db.execute("with gone as (delete from stored returning config)"
                                                 " select config from gone")]
    return run


def test_it_accepts_every_configuration_in_sql_that_the_documents_show(schema, of_sql, stored):
    texts = [text for page in PAGES for text in blocks(page, "sql")]
    texts += [path.read_text() for path in SEEDS.glob("*/*.sql")]
    configs = [config for text in texts for config in stored(text)]
    known = set(schema["$defs"]["common"]["properties"])
    for text in (text for page in PAGES for text in blocks(page, "json")):
        if "..." not in text and set(part := json.loads(text)) <= known:
            configs.append({"source": {"type": "stdin"}, "sink": {"type": "stdout"}, **part})
    for config in configs:
        assert refusals(of_sql, config) == [], config
    assert len(configs) > 15


def is_sayable(problem):
    """Whether a schema can say it. It cannot compare the amounts that texts stand for."""
    amount = re.search(r'is (".*"); it must be a (duration|size)', problem, re.S)
    return not (amount and re.fullmatch(AMOUNTS[amount[2]], json.loads(amount[1]).lower(), re.A))


def with_nulls_and_references(config, dice):
    """The same with some values replaced by what counts as not given, and by what the relay resolves."""
    config = copy.deepcopy(config)
    if dice.random() < 0.2:
        config[dice.choice(["retention_hours", "max_hold_bytes"])] = dice.choice(
            [5, 1.5, 0, -1, "1GiB", "${env:ANY}", None])
    for members in [config, *(each for each in config.values() if isinstance(each, dict))]:
        for key in members:
            if dice.random() < 0.15:
                members[key] = dice.choice([None, "${env:ANY}", "a ${file:/any} b"])
    return config


def disagreements(validator, wrapped, configs, told):
    for config, problems in zip(configs, told, strict=True):
        # Of two values of one option SQL reads the first; a schema reads both.
        two_values = any("says something else than" in problem for problem in problems)
        if two_values or problems and not any(map(is_sayable, problems)):
            continue
        if validator.is_valid(wrapped(config)) != (not problems):
            yield {"config": config, "problems": problems,
                   "schema": refusals(validator, wrapped(config))}


def compare(validator, configs, told, wrapped=lambda config: config):
    found = list(disagreements(validator, wrapped, configs, told))
    assert not found, f"{len(found)} of {len(configs)}: " + json.dumps(found[:5], indent=1)
    # Both kinds were tried.
    assert min(sum(map(bool, told)), sum(not each for each in told)) > len(configs) / 20


@pytest.mark.parametrize("seed", range(10 if LONG else 1))
def test_it_accepts_and_refuses_what_sql_does(db, of_sql, seed):
    compare(of_sql, *judged(db, seed))


def test_nulls_references_and_retention_are_read_as_sql_reads_them(db, of_sql):
    dice = random.Random(0)
    configs = [with_nulls_and_references(config, dice)
               for config in dice.sample(judged(db, 0)[0], 1000 if LONG else 150)]
    ends = {"source": {"type": "stdin"}, "sink": {"type": "stdout"}}
    configs += [{**ends, **members} for members in (
        {"ulr": None}, {"stdout_ulr": None}, {"sink": {"type": "stdout", "ulr": None}},
        {"retry": None}, {"retry": {"mni": None}}, {"retry": "${env:ANY}"}, {"retention_hours": None},
        {"headers": "${env:ANY}"}, {"columns": "${env:ANY}"}, {"stdin_format": None}, {"sink_type": None},
        {"sink": {"type": "pg-inbox", "inbox_name": "a", "inbox_table": ""}},
        {"sink": {"type": "pg-inbox", "inbox_name": None, "inbox_table": ""}},
        {"source": {"type": None}, "stream_table": "a"}, {"source": {"type": "stdin", "start": 7}},
        {"source": None, "outbox": "a", "retention_hours": 5},
        {"source": {"type": "outbox", "outbox": "${env:ANY}"}},
        {"source": {"type": "outbox", "outbox": "a", "start": 7}})]
    compare(of_sql, configs, problems_in_sql(db, configs))


def test_it_accepts_and_refuses_what_the_program_does_with_a_file(db, of_files, tmp_path):
    configs = random.Random(0).sample(judged(db, 0)[0], 1000 if LONG else 200)
    # Which texts are wrong for their range alone is told apart with SQL.
    unsayable = re.compile("two values|it must be a (duration|size)")
    sayable = re.compile(f"{SAME.pattern}|two types|the type must be the name")
    compared = [(config, list(filter(sayable.search, problems))) for config, problems in
                zip(configs, told_by_program(tmp_path / "relay.toml", configs), strict=True)
                if not any(map(unsayable.search, problems))]
    compare(of_files, *zip(*compared), lambda config: {"pipeline": [{"name": "p", **config}]})
    assert len(compared) > len(configs) * 0.5


def test_it_refuses_what_no_file_may_hold(of_files):
    ends = {"source": {"type": "stdin"}, "sink": {"type": "stdout"}}
    assert refusals(of_files, {"pipeline": [{"name": "p", **ends}]}) == []
    for members in ({}, {"name": ""}, {"name": " p"}, {"name": "p\n"}, {"name": "p" * 201}, {"name": 5},
                    {"name": "p", "enabled": "yes"}, {"name": "p", "retention_hours": 5}):
        assert refusals(of_files, {"pipeline": [{**ends, **members}]}), members
    for wrong in ({"pipelines": []}, {"pipeline": {}}, {"pipeline": [5]}, {"global": []}):
        assert refusals(of_files, wrong), wrong
    for setting in ({"pool_sise": 8}, {"pool_size": 0}, {"pool_size": "8"}, {"log_level": "loud"},
                    {"drain_timeout": "soon"}, {"config_file": "x"}, {"allow_file": [5]}):
        assert refusals(of_files, {"global": setting}), setting


def test_it_accepts_what_a_file_may_hold(of_files):
    pipeline = {"name": "p é", "enabled": "${ENABLED:-true}", "stream_table": "${TABLE}",
                "sink_type": "stdout", "retry": {"min": "${MIN}"}}
    assert refusals(of_files, {"global": {"postgres_url": "${URL}", "metrics_bind": "x", "pool_size": "${N}",
                                          "allow_file": ["/a/*"], "drain_timeout": 2.5},
                               "pipeline": [pipeline]}) == []
    assert refusals(of_files, {}) == []


def test_an_option_is_one_row_that_shows_everywhere(db, schema, of_sql):
    """Of a backend outside of the tree too (scripts/test --example)."""
    printed = run_command("options").stdout
    checked = set()
    for (side, type), rows in Catalogue(db).options.items():
        if side not in ("source", "sink"):
            continue
        page = printed.split(f"\n## {side.capitalize()} `{type}`\n")[1].split("\n## ")[0]
        options = schema["$defs"][f"{side}.{type}"]["properties"]
        assert [row["name"] for row in rows] == re.findall(r"^\| `(\w+)`", page, re.M)
        assert {row["name"] for row in rows} == set(options)
        for row in rows:
            option = options[row["name"]]
            assert option.get("description", "") == row["meaning"]
            assert option.get("writeOnly", False) == row["secret"]
            shown = option.get("default", "")
            assert (shown if isinstance(shown, str) else json.dumps(shown)) == row["default_value"]
        checked.add((side, type))
    for broker in BROKERS.values():
        assert {("sink", broker.name), ("source", broker.source_name or broker.name)} & checked, broker.name


def test_the_command_of_the_documents_checks_a_file(schema, tmp_path):
    page = (pathlib.Path(REPOSITORY) / "docs/configuration.md").read_text()
    command = re.search(r"```sh\n(python3 -c .*?)```", page, re.DOTALL)[1]
    command = command.replace("python3", sys.executable, 1)
    (tmp_path / "relay.schema.json").write_text(json.dumps(schema))
    for sink, code in (("{ type = 'stdout' }", 0), ("{ type = 'stdout', formta = 'csv' }", 1)):
        (tmp_path / "relay.toml").write_text(
            f"[[pipeline]]\nname = 'p'\nsource = {{ type = 'stdin' }}\nsink = {sink}\n")
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code and ("formta" in done.stderr) == bool(code), done.stderr
