"""What the suites of sinks and sources share: which brokers there are, and the table of results."""

import importlib
import importlib.util
import os
import pkgutil

import pytest

import conformance
from support.relay import relay_binary, run_command

from .base import Broker

NOT_BROKERS = ("base", "lab", "suite")
SINKS, SOURCES = "sink", "source"
_cases = {SINKS: {}, SOURCES: {}}


def _modules():
    """Those of this package, or, for a backend outside of the tree, the one at CONFORMANCE_MODULE."""
    outside = os.environ.get("CONFORMANCE_MODULE")
    if outside:
        spec = importlib.util.spec_from_file_location("conformance_outside", outside)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return [module]
    names = sorted(info.name for info in pkgutil.iter_modules(conformance.__path__))
    return [importlib.import_module(f"conformance.{name}") for name in names
            if name not in NOT_BROKERS and not name.startswith("_")]


def _load():
    found = {}
    for loaded in _modules():
        for thing in vars(loaded).values():
            if (isinstance(thing, type) and issubclass(thing, Broker)
                    and thing.__module__ == loaded.__name__ and thing.name):
                found[thing.name] = thing
    return found


BROKERS = _load()


def built(side):
    """The names of the sinks or sources that the binary has."""
    if not relay_binary():
        return None
    printed = run_command("options").stdout
    begin = f"## {side.capitalize()} `"
    return {line[len(begin):-1] for line in printed.splitlines() if line.startswith(begin)}


def case(side, name, meaning, sanitizer=()):
    """Marks a test as a case of the suite; it runs for each broker that it applies to, and for those
    in `sanitizer` against the sanitizer builds, too."""
    def mark(test):
        _cases[side][name] = meaning
        return pytest.mark.conformance_case(side, name, sanitizer=sanitizer)(test)
    return mark


def exemptions(broker, side):
    """{case: why it cannot apply to this broker}"""
    return broker.na if side == SINKS else broker.source_na


def parametrize(metafunc):
    """For a test module's pytest_generate_tests: `broker` becomes each one the case applies to."""
    marker = metafunc.definition.get_closest_marker("conformance_case")
    if marker is None or "broker" not in metafunc.fixturenames:
        return
    side = marker.args[0]
    chosen = os.environ.get("CONFORMANCE")
    # The same list for each case, so that pytest can run one broker's cases together; which of them
    # apply is for pytest_collection_modifyitems.
    names = [broker.name for broker in BROKERS.values() if has_side(broker, side)
             and (not chosen or broker.name in chosen.split(","))]
    marks = {name: [pytest.mark.xdist_group(name)] for name in names}
    for name in marker.kwargs["sanitizer"]:
        marks.get(name, []).append(pytest.mark.sanitizer)
    metafunc.parametrize("broker", [pytest.param(name, marks=marks[name]) for name in names],
                         indirect=True, scope="module")


def has_side(broker, side):
    return side == SINKS or broker.source is not Broker.source


def start(name, side):
    """The broker `name`, started; skips where it, or its part of the relay, is not here."""
    broker_class = BROKERS[name]
    wanted = name if side == SINKS else broker_class.source_name or name
    have = built(side)
    if have is None or wanted not in have:
        pytest.skip(f"the relay is built without the {side} {wanted}")
    return broker_class().start()


def note(item, broker, record_property):
    """Records which case of which broker a test is, for the table."""
    side, name = item.get_closest_marker("conformance_case").args
    # Workers of pytest-xdist report to a process that has not seen the cases.
    order = list(_cases[side]).index(name)
    record_property("conformance", [side, broker.name, name, order, _cases[side][name]])
    reason = exemptions(broker, side).get(name)
    if reason:  # known only now that the server runs
        pytest.skip(f"not with this server: {reason}")


PAGE = """# Conformance

Every sink and every source passes the same cases, by the real program against the real server, read with an independent
client. This page is what such a run wrote:
```sh
CONFORMANCE_TABLE=docs/conformance.md scripts/test --e2e -k conformance    # CONFORMANCE=kafka,nats: only these
```
The cases are the tests in `tests/e2e/test_conformance_sinks.py` and `test_conformance_sources.py`; a broker is a module in
`tests/e2e/conformance/`. To add one, write a class after `base.py`: the suite finds it. A case that cannot apply to a broker
is *n/a*, with the reason below the table. The sink `memory` keeps no message that could be read, and is left out. So is `feed`:
it has no server but the relay's own database, and stores changes, not messages; `tests/e2e/test_feeds*.py` are its
cases.

"""


class Table:
    """Collects the outcome of each case; prints `broker x case`, and writes it as a page where the
    environment variable CONFORMANCE_TABLE names a file."""

    WORDS = {"passed": "yes", "failed": "NO", "skipped": "not run", "error": "NO"}

    def __init__(self):
        self._seen = {}
        self._cases = {SINKS: {}, SOURCES: {}}

    def note(self, report):
        found = dict(report.user_properties).get("conformance")
        if not found or (report.when != "call" and report.outcome == "passed"):
            return
        side, broker, name, order, meaning = found
        place = (side, broker, name)
        self._cases[side][name] = (order, meaning)
        if self._seen.get(place) not in ("failed", "error"):
            self._seen[place] = report.outcome

    def lines(self):
        for side, cases in self._cases.items():
            names = [name for name in BROKERS
                     if any(place[:2] == (side, name) for place in self._seen)]
            if not names:
                continue
            yield f"| {side} | " + " | ".join(names) + " |"
            yield "|---" * (len(names) + 1) + "|"
            reasons = []
            for case_name, (_, meaning) in sorted(cases.items(), key=lambda c: c[1]):
                cells = []
                for name in names:
                    reason = exemptions(BROKERS[name], side).get(case_name)
                    if reason:
                        if reason not in reasons:
                            reasons.append(reason)
                        cells.append(f"n/a ({reasons.index(reason) + 1})")
                    else:
                        outcome = self._seen.get((side, name, case_name))
                        cells.append(self.WORDS.get(outcome, "not run"))
                yield f"| {meaning} | " + " | ".join(cells) + " |"
            yield ""
            for number, reason in enumerate(reasons, 1):
                yield f"({number}) {reason}  "
            yield ""

    def finish(self, terminal):
        lines = list(self.lines())
        if not lines:
            return
        terminal.section("conformance")
        for line in lines:
            terminal.write_line(line)
        if os.environ.get("CONFORMANCE_TABLE"):
            with open(os.environ["CONFORMANCE_TABLE"], "w") as out:
                out.write(PAGE + "\n".join(lines).rstrip() + "\n")


_table = Table()


# Hooks: conftest.py imports them.


def pytest_configure(config):
    config.addinivalue_line("markers", "conformance_case(side, name): one case of the conformance"
                                       " suite, run for each broker")


def pytest_collection_modifyitems(config, items):
    kept, left_out = [], []
    for item in items:
        marker = item.get_closest_marker("conformance_case")
        applies = marker is None or marker.args[1] not in exemptions(
            BROKERS[item.callspec.params["broker"]], marker.args[0])
        (kept if applies else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    _table.note(report)


def pytest_terminal_summary(terminalreporter):
    _table.finish(terminalreporter)
