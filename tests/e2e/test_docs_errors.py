"""docs/troubleshooting.md names each code that the programs can print, once, with what to do."""

import collections
import pathlib
import re

from support.error_codes import codes_in, codes_of_the_source
from support.postgres import REPOSITORY

PAGE = pathlib.Path(REPOSITORY, "docs/troubleshooting.md").read_text()
ROW = re.compile(r"^\| `([a-z][a-z0-9_]*)` \|(.*)\|(.*)\|$", re.MULTILINE)


def rows_of(text):
    return ROW.findall(text.partition("\n## By error code\n")[2])


def test_every_code_has_one_row_and_every_row_a_code():
    rows = rows_of(PAGE)
    repeated = [code for code, count in collections.Counter(code for code, *_ in rows).items() if count > 1]
    assert not repeated, f"more than one row: {repeated}"
    source, page = codes_of_the_source(), {code for code, *_ in rows}
    missing = {code: sorted(source[code]) for code in source.keys() - page}
    assert not missing, f"docs/troubleshooting.md has no row for {missing}"
    assert not page - source.keys(), "no such code in src/"


def test_every_row_says_what_it_means_and_what_to_do():
    for code, meaning, remedy in rows_of(PAGE):
        assert meaning.strip() and remedy.strip(), code
    tables = PAGE.partition("\n## By error code\n")[2]
    written = [line for line in tables.splitlines() if line.startswith("| ")]
    assert len(written) == len(rows_of(PAGE)) + tables.count("| code | meaning | what to do |")


def test_each_way_to_give_an_error_its_code_is_found():
    found = codes_in('''
        return fail(ErrorClass::transient, "one", fmt::format("text", "argument"), "remedy");
        return fail(lasts ? ErrorClass::transient : ErrorClass::rejected, "two", "text");
        Error error{ErrorClass::rejected, "three", {}, {}, {}};
        return misconfigured(some ? "four" : "five", "text", "remedy");
        constexpr std::array kKnown = {Known{NUMBER, ErrorClass::rejected, "six", "remedy"}};
        error.code = "seven";
        problems.push_back(problem(node.place(), "eight", "it is wrong"));
        return Refusal{404, "nine", "nothing is here"};
        log::warn("ten", pipeline, "text {}", "eleven");
        return fail(ErrorClass::fenced, std::string(kTwelve), "text");
        seen.add("thirteen", fmt::format("text"), "remedy");
        // return fail(ErrorClass::transient, "comment", "text");
        if (error.code == "compared") names.add("added");
        log::info("told", "", "text");
        ''', {"kTwelve": "twelve"})
    assert list(found) == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
                           "twelve", "thirteen"]


def test_the_source_has_about_as_many_codes_as_it_had():
    # An extractor that finds nothing would agree with an empty page.
    assert len(codes_of_the_source()) > 300
