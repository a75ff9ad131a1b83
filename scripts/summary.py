#!/usr/bin/env python3
"""Sums the results that scripts/test left: "N passed, N failed, N skipped" as the last line.

Names each test that failed, so that the end of a long log says what to look at. Unit tests count by
their cases; a unit program that ended without a report counts as one failure. Exits with 1 where
anything failed, or where REQUIRE_ALL=1 and anything was skipped.
"""

import os
import pathlib
import sys
import xml.etree.ElementTree as xml


def cases(path):
    """(passed, failed, skipped) of a JUnit-like file."""
    passed = failed = skipped = 0
    for case in xml.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("result") in ("skipped", "suppressed"):
            skipped += 1
        elif case.get("status") != "disabled":
            passed += 1
    return passed, failed, skipped


def failed_cases(path):
    """(name, the first lines of why) of each failure in a JUnit-like file."""
    for case in xml.parse(path).getroot().iter("testcase"):
        for problem in (case.find("failure"), case.find("error")):
            if problem is not None:
                why = problem.get("message") or problem.text or ""
                name = f"{case.get('classname', '')}::{case.get('name')}"
                yield name, why.strip().splitlines()[:6]


def unit_results(folder):
    reports = {path.stem: cases(path) for path in (folder / "unit").glob("*.xml")}
    programs = folder / "ctest.xml"
    if programs.exists():
        for case in xml.parse(programs).getroot().iter("testcase"):
            name = case.get("name")
            ended_badly = case.get("status") != "run"
            if name not in reports or (ended_badly and reports[name][1] == 0):
                reports[name] = (0, 1, 0) if ended_badly else (1, 0, 0)
    return reports


def main(folder):
    totals = dict(unit_results(folder))
    for path in (folder / "pytest").glob("*.xml"):
        totals[f"pytest {path.stem}"] = cases(path)
    for name, (passed, failed, skipped) in sorted(totals.items()):
        print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped")
    for path in sorted(folder.rglob("*.xml")):
        for name, why in failed_cases(path):
            print(f"FAILED {name}", *why, sep="\n    ")
    passed, failed, skipped = (sum(part) for part in zip(*totals.values(), (0, 0, 0)))
    if os.environ.get("REQUIRE_ALL") == "1":
        failed, skipped = failed + skipped, 0
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
