"""An option is one row: one is added to the example's table, and is there in SQL, files, the schema and
the page of all options. Part of `scripts/test --example`, for it builds the program."""

import json
import os
import pathlib
import shutil
import subprocess

import jsonschema
import pytest
from psycopg.types.json import Jsonb
from support.database_side import install
from support.postgres import REPOSITORY, refusal
from support.relay import clean_environment

ROOT = pathlib.Path(REPOSITORY)
MEMBER = ("  ConnectionOptions connection;\n  std::size_t max_message_bytes = 0;",
          "  ConnectionOptions connection;\n  std::size_t max_message_bytes = 0;\n"
          "  std::int64_t colours = 0;")
ROW = ("     fills<&SinkOptions::max_message_bytes>},",
       """     fills<&SinkOptions::max_message_bytes>},
    {{.name = "colours", .type = FieldType::integer, .default_text = "3", .meaning = "how many colours",
      .aliases = "colors", .min = 1, .max = 7},
     fills<&SinkOptions::colours>},""")


def add(path, change):
    text = path.read_text()
    assert text.count(change[0]) == 1
    path.write_text(text.replace(*change))


@pytest.fixture(scope="module")
def program():
    """The example's program with one member and one row more."""
    build = ROOT / "build" / "added-option"  # beside build/example, for the paths in the compiler's cache
    source = ROOT / "build" / "added-option-source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "examples" / "backend", source)
    add(source / "lineq" / "options.h", MEMBER)
    add(source / "lineq" / "options.cc", ROW)
    environment = {**os.environ, "CCACHE_BASEDIR": REPOSITORY, "CCACHE_NOHASHDIR": "1"}
    for argv in (["cmake", "-S", source, "-B", build, "-G", "Ninja", f"-DRELAY_SOURCES={REPOSITORY}",
                  "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DRELAY_WERROR=ON"],
                 ["cmake", "--build", build, "--target", "relay-with-lineq"]):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return build / "relay-with-lineq"


def run(program, *arguments):
    return subprocess.run([program, *arguments], env=clean_environment(), capture_output=True, text=True)


@pytest.mark.timeout(1500)  # where no compiler cache helps
def test_an_option_that_is_added_is_everywhere(empty_db, program, tmp_path):
    db = empty_db
    done = run(program, "init", "--postgres-url", db.dsn)
    assert done.returncode == 0, done.stderr
    schema = json.loads(run(program, "options", "--json").stdout)
    of_sql = jsonschema.Draft202012Validator({"$ref": "#/$defs/config", "$defs": schema["$defs"]})
    of_files = jsonschema.Draft202012Validator(schema)
    file = tmp_path / "relay.toml"
    for key, value, problem in (
            ("colours", 7, None), ("colors", 1, None),
            ("colours", 8, "colours is 8; it must be a whole number from 1 to 7"),
            ("colors", "red", 'colours is "red"; it must be a whole number from 1 to 7'),
            ("colour", 5, 'there is no option "colour". Did you mean "colours"?')):
        config = {"source": {"type": "stdin"},
                  "sink": {"type": "lineq", "url": "lineq://127.0.0.1:1", key: value}}
        file.write_text('[[pipeline]]\nname = "p"\nsource = {type = "stdin"}\n'
                        f'sink = {{type = "lineq", url = "lineq://127.0.0.1:1", {key} = {json.dumps(value)}}}\n')
        told = run(program, "check", "--config", file, "--postgres-url", db.dsn)
        told = " ".join((told.stdout + told.stderr).split())
        assert of_sql.is_valid(config) == of_files.is_valid(
            {"pipeline": [{"name": "p", **config}]}) == (problem is None)
        if problem is None:
            db.execute("select pgtrickle.set_relay('p', %s)", (Jsonb(config),))
            assert "there is no option" not in told and "it must be" not in told
        else:
            assert problem in refusal(db, "select pgtrickle.set_relay('p', %s)", (Jsonb(config),))
            assert all(part in told for part in problem.split(". ")), told
    assert "| `colours` (also `colors`) | integer | `3` | how many colours |" in run(program, "options").stdout
    assert db.execute("select kind, minimum, maximum, aliases, meaning, default_value"
                      " from pgtrickle.relay_options where name = 'colours'") == [
                          ("integer", 1, 7, ["colors"], "how many colours", "3")]


def test_the_program_of_the_tests_does_not_have_it(empty_db):
    install(empty_db.dsn)
    assert empty_db.execute("select from pgtrickle.relay_options where name = 'colours'") == []
