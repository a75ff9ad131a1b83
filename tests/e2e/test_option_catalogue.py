"""One catalogue of options: SQL and a configuration file accept and refuse the same, in the same words."""

import json
import random
import re
import subprocess

import pytest
from psycopg.types.json import Jsonb

from support.pipelines import LONG, SLOW_FACTOR
from support.relay import clean_environment, relay_binary, run_command

GOOD = {  # values that fit most options of their kind
    "text": ["x", "a b"], "integer": [1, 5, 100, 2.0], "number": [0, 0.5, 3], "boolean": [True, False],
    "duration": ["500ms", "10s", "1m30s", " 5 s ", 3, 0.25, "10", "5S"],
    "bytes": ["8MiB", "256 KB", "10", 512, 1.5, "1.5kb"], "list": ["a", [], ["a", "b"]],
    "map": [{}, {"a": "b"}, {"a": 1, "b": True, "c": 1.5}], "start": ["earliest", "latest", "17", 17, 0],
    "choice": [],
}
BAD = {
    "text": ["", 5, True, 1.5, ["x"], {"a": "b"}],
    "integer": [0, -1, 10**7, 10**15, 10**18, 1.5, "5", True, [1]],
    "number": [-1, 10**10, "1", True, []], "boolean": ["true", "yes", 0, 1, []],
    "duration": [0, "0", "1h", "1d2h", "1us", "soon", "-1s", -1, "s", "1.s", ".5s", "5x", "100000h",
                 "1.5.2s", True, ["1s"]],
    "bytes": [0, "8M", "8 cats", "-1", -5, "KB", "1e3", "4gib", "2TiB", "1b", "kib", "5 i", True,
              {"a": 1}],
    "choice": ["x", "", 5, True], "list": [[1], ["a", 1], 5, True, {"a": "b"}],
    "map": [{"a": [1]}, {"a": {"b": "c"}}, "a", ["a"], 5],
    "start": [-1, 1.5, "first", "", "1" * 18, "1" * 19, True, []],
}
pytestmark = pytest.mark.xdist_group("options")  # one process: what SQL says is asked once
SAME = re.compile(r"there is no option|it must be|is missing|none of|are both set|says something else"
                  r"|could be an option|type '.*' is not known|must be an object")


class Catalogue:
    """The rows that `init` wrote."""

    def __init__(self, db):
        self.types = db.execute("select side, name, aliases, related from pgtrickle.relay_types"
                                " order by side, position")
        self.options = {}
        for side, kind, name, row in db.execute(
                "select side, type, name, to_jsonb(o) from pgtrickle.relay_options o"
                " order by side, type, position"):
            self.options.setdefault((side, kind), []).append(row)


class Generator:
    """Configurations of pipelines: one half of values that fit, the other of anything."""

    def __init__(self, catalogue, seed):
        self._catalogue = catalogue
        self._dice = random.Random(seed)
        self._gentle = False

    def value(self, option):
        good = GOOD[option["kind"]] + option["choices"]
        return self._dice.choice(good if self._gentle else good + BAD[option["kind"]])

    def _spelled(self, side, type, written, option):
        """(inside the end, key): a way to write an option of an end."""
        name = self._dice.choice([option["name"], *option["aliases"]])
        ways = [(True, name)] * 2 + [(False, written.replace("-", "_") + "_" + name)]
        if option["plain"]:
            ways += [(False, option["name"])] * 2
        for _, other, _, related in self._catalogue.types:
            if other == type and related:
                ways += [(False, f"{prefix}_{name}") for prefix in related]
        return self._dice.choice(ways)

    def pipeline(self, focus=None):
        """A configuration with all that is required; in it `focus`, or options of any kind."""
        self._gentle = self._dice.random() < 0.5
        config = {}
        for side in ("source", "sink"):
            types = [each for each in self._catalogue.types if each[0] == side]
            if focus and focus[0] == side:
                types = [each for each in types if each[1] == focus[1]]
            _, type, aliases, _ = self._dice.choice(types)
            written = self._dice.choice([type, type, *aliases])
            inside = {}
            if self._dice.random() < 0.5:
                inside["type"] = written
            else:
                config[f"{side}_type"] = written
            options = self._catalogue.options.get((side, type), [])
            marks = set()
            for option in options:
                wanted = option["required"] or option["one_of"] and option["one_of"] not in marks
                marks.add(option["one_of"])
                if wanted and self._dice.random() < 0.95:
                    self._put(config, inside, side, type, written, option,
                              (GOOD[option["kind"]] + option["choices"])[0])
            more = [focus[2]] if focus and focus[0] == side else [
                option for option in options if self._dice.random() < 1.5 / len(options)]
            for option in more:
                self._put(config, inside, side, type, written, option, self.value(option))
            if not self._gentle and self._dice.random() < 0.1:
                inside[self._dice.choice(["ulr", "nonsense", "batch_size", "headers", "start"])] = "x"
            if inside or self._dice.random() < 0.1:
                config[side] = inside
        for option in self._catalogue.options["pipeline", ""]:
            if focus and focus[2] is option or self._dice.random() < 0.05:
                self._put_in_pipeline(config, option)
        if self._gentle:
            return config
        if self._dice.random() < 0.2:
            config[self._dice.choice(["batch_sise", "topic", "url", "nats_ulr", "kafka_brokers", "retri",
                                      "subject", "pg_inbox_x", "a" * 70])] = "x"
        if self._dice.random() < 0.06:
            config[self._dice.choice(["source", "sink", "retry"])] = self._dice.choice(["x", 5, ["x"]])
        if self._dice.random() < 0.06:
            config[self._dice.choice(["source_type", "sink_type"])] = self._dice.choice(
                ["natz", "kafka", "web-hook", "zzzzzz", "", 5])
        return config

    def _put(self, config, inside, side, type, written, option, value):
        nested, key = self._spelled(side, type, written, option)
        (inside if nested else config)[key] = value

    def _put_in_pipeline(self, config, option):
        value = self.value(option)
        if option["nested"] and self._dice.random() < 0.5:
            group, member = option["nested"].split(".")
            if isinstance(config.setdefault(group, {}), dict):
                config[group][member] = value
        elif option["also_in"] == "sink" and self._dice.random() < 0.3:
            if isinstance(config.setdefault("sink", {}), dict):
                config["sink"][option["name"]] = value
        else:
            config[option["name"]] = value


def in_order(members):
    """As jsonb keeps them: of two values of one option the first one counts."""
    return sorted(members.items(), key=lambda member: (len(member[0].encode()), member[0].encode()))


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in in_order(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def told_by_program(path, configs):
    """[the problems of each pipeline], from a file that no command accepts: nothing is started."""
    with open(path, "w") as file:
        file.write('[global]\nno_such_setting = 1\n')
        for number, config in enumerate(configs):
            file.write(f'[[pipeline]]\nname = "p{number}"\n')
            for key, value in in_order(config):
                file.write(f"{toml(key)} = {toml(value)}\n")
    done = run_command("status", "--config", path, timeout=60 * SLOW_FACTOR)
    assert done.returncode != 0 and "no_such_setting" in done.stderr, done.stderr[-2000:]
    told = [[] for _ in configs]
    for number, message, remedy in re.findall(
            r"^error: pipeline p(\d+): (.*?)\n(?:  remedy: (.*?)\n)?(?=error: |\Z)", done.stderr,
            re.M | re.S):
        told[int(number)].append(plain(re.sub(r"^\S+?:\d+:\d+(, source|, sink)?: ", "", message), remedy))
    return told


def problems_in_sql(db, configs):
    return [problems for problems, in db.execute(
        "select pgtrickle_internal.relay_problems('p', 'bridge', c) from"
        " jsonb_array_elements(%s) with ordinality u (c, at) order by at", (Jsonb(configs),))]


def told_by_sql(problems):
    return [[plain(re.sub(r"^(key \S+|source|sink|): ", "", message), "") for message in each]
            for each in problems]


_judged = {}


def judged(db, seed):
    """1,000 configurations, with one for each option, and what SQL says of each: asked once a process."""
    if seed not in _judged:
        catalogue = Catalogue(db)
        generator = Generator(catalogue, seed)
        configs = [generator.pipeline((side, type, option)) for (side, type), rows in
                   catalogue.options.items() if side != "retention" for option in rows]
        # Two values of an option that the sink shares with the pipeline.
        configs.append({"source": {"type": "stdin"}, "webhook_max_in_flight": 100,
                        "sink": {"type": "webhook", "url": "https://h", "max_in_flight": 1}})
        while len(configs) < 1000:
            configs.append(generator.pipeline())
        _judged[seed] = configs, problems_in_sql(db, configs)
    return _judged[seed]


def plain(message, remedy):
    """A problem without what depends on the form: places, how a value was written, lists of all."""
    text = f"{message}. {remedy}" if remedy else message
    text = re.sub(r"(\w+ is ).*(; it must be)", r"\1...\2", text, flags=re.S)
    text = re.sub(r"(one of the pipeline is one of) .*", r"\1", text)
    text = re.sub(r"(the type of the \w+ is missing).*", r"\1", text)
    text = re.sub(r"(\w+ must be an object\b|Use the nested form).*", r"\1", text)
    text = re.sub(r"//\S+@", "//...@", text)  # a password, for the program
    # Which of two values is the other one depends on the order of the keys.
    text = re.sub(r".*says something else than.*", "two values", text, flags=re.S)
    text = re.sub(r"type says .* here and .* elsewhere", "two types", text)
    return text.strip().rstrip(".")


def disagreements(configs, told_by_program, told_by_sql):
    for config, by_program, by_sql in zip(configs, told_by_program, told_by_sql, strict=True):
        # Only the program knows what several options mean together.
        by_program = [problem for problem in by_program if SAME.search(problem) or problem in by_sql]
        if sorted(by_program) != sorted(by_sql):
            yield {"config": config, "program": by_program, "sql": by_sql}


@pytest.mark.parametrize("seed", range(10 if LONG else 1))
def test_sql_and_files_accept_and_refuse_the_same_in_the_same_words(db, tmp_path, seed):
    configs, problems = judged(db, seed)
    told = told_by_sql(problems)
    found = list(disagreements(configs, told_by_program(tmp_path / "relay.toml", configs), told))
    assert not found, f"{len(found)} of {len(configs)}: " + json.dumps(found[:5], indent=1)
    assert min(sum(map(bool, told)), sum(not each for each in told)) > 100  # both kinds were tried
    assert not [each for problems in told for each in problems if re.search("mean [\"']{2}", each)]


def test_the_catalogue_in_the_database_is_that_of_the_program(db):
    printed = subprocess.run([relay_binary(), "options"], env=clean_environment(), check=True,
                             capture_output=True, text=True).stdout
    catalogue = Catalogue(db)
    for (side, type), rows in catalogue.options.items():
        title = {"pipeline": "Options of any pipeline", "source": f"Source `{type}`", "sink":
                 f"Sink `{type}`"}.get(side, "Options of pipelines in SQL")
        part = printed.split(f"## {title}")[1].split("\n## ")[0]
        assert [row["name"] for row in rows] == re.findall(r"^\| `(\w+)`", part, re.M)[0:], title
