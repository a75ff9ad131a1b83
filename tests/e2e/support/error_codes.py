"""The codes that the two programs can print, read from the source.

A code is a literal at a place where an error gets its code, or where a line of the log gets its event.
Codes that come from a server as they are, such as SQLSTATEs, are not literals and are not listed.
"""

import collections
import re
from pathlib import Path

from .postgres import REPOSITORY

SOURCE = Path(REPOSITORY) / "src"

TOKEN = re.compile(
    r"""(?P<skipped>//[^\n]*|/\*.*?\*/|R"(?P<mark>\w*)\(.*?\)(?P=mark)")"""
    r"""|(?P<text>"(?:[^"\\\n]|\\.)*")|'(?:[^'\\\n]|\\.)+'"""
    r"""|(?P<name>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)|\d[\w']*|\S""", re.DOTALL)
CODE = re.compile(r'"([a-z][a-z0-9_]*)"')
CONSTANT = re.compile(r"std::string_view (k\w+) = \"([a-z][a-z0-9_]*)\";")

# Which argument of which function or type is a code. An argument that follows an ErrorClass is one anyway.
ARGUMENT = {
    0: {"misconfigured", "rejected", "transient", "sighting", "seen.add", "refusals_.get",
        "log::warn", "log::error", "log::failure"},
    1: {"fail", "make", "error", "give_up", "problem", "config::problem", "report", "rejected",
        "Known", "Refusal", "Finding"},
    2: {"wrong_value"},
}


class Bracket:
    """An open bracket: what stands before it, and how far its arguments are."""

    def __init__(self, before):
        self.callee = "".join(before[-3:]) if before[-2:-1] == ["."] else before[-1] if before else ""
        self.argument = 0
        self.has_class = False  # its first argument is an ErrorClass

    def has_code(self, before):
        if self.argument == 1 and self.has_class:
            return True
        if before[-1] == "," and ("ErrorClass::" in before[-2] or re.fullmatch(r"[45]\d\d", before[-2])):
            return True  # a row of a table of errors, or an answer by HTTP with its status
        return self.callee in ARGUMENT.get(self.argument, ())


def codes_in(text, constants):
    """Yields the codes in a file of C++."""
    brackets, before = [Bracket([])], ["", "", ""]
    for match in TOKEN.finditer(text):
        token = match[0]
        if match["skipped"]:
            continue
        if token in "([{":
            # std::string(kName) stands for kName.
            brackets.append(brackets[-1] if before[-1] == "std::string" else Bracket(before))
        elif token in ")]}":
            if len(brackets) > 1:
                brackets.pop()
        elif token == ",":
            brackets[-1].argument += 1
        elif "ErrorClass::" in token and brackets[-1].argument == 0:
            brackets[-1].has_class = True
        else:
            literal = CODE.fullmatch(token)
            code = literal[1] if literal else constants.get(token)
            given = before[-1] == "=" and before[-2] == "code" and before[-3] == "."
            at = before[:-2] if before[-2:] == ["std::string", "("] else before
            if code and (given or brackets[-1].has_code(at)) and before[-1] != "return":
                yield code
        before = [*before[-9:], token]


def codes_of_the_source():
    """Each code, with the files that it is in."""
    files = sorted([*SOURCE.rglob("*.cc"), *SOURCE.rglob("*.h")])
    texts = {file: file.read_text() for file in files}
    constants = {name: code for text in texts.values() for name, code in CONSTANT.findall(text)}
    found = collections.defaultdict(set)
    for file, text in texts.items():
        for code in codes_in(text, constants):
            found[code].add(str(file.relative_to(SOURCE)))
    return found


if __name__ == "__main__":
    for code, places in sorted(codes_of_the_source().items()):
        print(code, *sorted(places))
