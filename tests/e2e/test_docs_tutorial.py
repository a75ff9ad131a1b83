"""docs/tutorial.md from top to bottom, in one database: every example, and the output that it expects.

A block `text` is what the block before it prints; `text screen`, `text log` and `text end` are what the
relay prints. `...` stands for anything, and the width of blanks does not matter.
"""

import pathlib
import re

from support.postgres import REPOSITORY
from support.reader import hour  # noqa: F401
from support.waiting import eventually

PAGE = pathlib.Path(REPOSITORY, "docs/tutorial.md")
BLOCK = re.compile(r"^```([\w ]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = {"scripts/setup --build": "installs packages, builds, and installs into /usr/local"}
LOOKS = ("cat ", "curl ", "pgtrickle-relay status", "pgtrickle-relay dlq list", "pgtrickle-relay tail")
PATIENCE = 30


def has(printed, expected):
    """Whether these lines are among those that were printed, in this order."""
    lines = (" ".join(line.split()) for line in printed.splitlines())
    wanted = [re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") for line in expected.splitlines()]
    return all(any(re.fullmatch(pattern, line) for line in lines) for pattern in wanted)


def run(hour, language, block):  # noqa: F811
    if language == "toml":
        (hour.folder / "relay.toml").write_text(hour.example(block))
        return ""
    if language == "sql":
        return hour.sql(block)
    return "".join(hour.shell(block).values())


def see(hour, kind, before, printed, expected):  # noqa: F811
    """Waits until the output is there; commands that only look are run again."""
    def now():
        if kind == "screen":
            return hour.said("config")
        if kind in ("log", "end"):
            return hour.said("config", "err")
        looks = before[1].startswith(LOOKS) and before[0] == "bash"
        return run(hour, *before) if looks else printed
    eventually(lambda: has(now(), expected), PATIENCE,
               message=lambda: f"expected:\n{expected}\nprinted:\n{now()}\n{hour.story()}")


def test_the_tutorial_works_and_prints_what_it_says(hour):  # noqa: F811
    before, printed, seen = None, "", 0
    for language, block in BLOCK.findall(PAGE.read_text()):
        if language.startswith("text"):
            kind = language[len("text "):]
            if kind == "end":
                assert hour.interrupt("config") == 0, hour.story()
            see(hour, kind, before, printed, block)
            seen += 1
        elif not block.startswith(tuple(NOT_RUN)):
            before, printed = (language, block), run(hour, language, block)
    assert seen > 10
    messages = [(m.subject, len(m.json["delta"]["inserted"])) for m in hour.client.messages("pgtrickle")]
    assert messages == [("pgtrickle.orders.insert", 2), ("pgtrickle.orders.update", 1),
                        ("pgtrickle.orders.insert", 1)]
    assert hour.db.execute("select count(*) from pgtrickle.list_relay_configs()").fetchone() == (0,)
    assert hour.db.execute("select count(*) from pgtrickle.pgt_outbox_config").fetchone() == (0,)


def test_the_output_is_compared():
    assert has("a  1\nb 2\n", "a 1\nb 2\n") and has("x 7 ms\n", "x ... ms\n")
    assert not has("a 1\n", "a 2\n") and not has("b\na\n", "a\nb\n") and not has("ab\n", "a\n")
