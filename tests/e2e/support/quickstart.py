"""`quickstart` of either program, which leaves nothing behind."""

import glob
import json
import os
import pathlib
import re
import shutil
import tempfile

import pytest

from .processes import Process
from .relay import clean_environment, relay_binary
from .waiting import eventually


class Quickstart:
    """A running one: what it prints, and what it must not leave behind."""

    def __init__(self, folder, *arguments, program=None):
        self._out, self._errors = folder / "out", folder / "errors"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(mode=0o777)
        self.temporary.chmod(0o777)
        env = clean_environment({"TMPDIR": str(self.temporary)})
        with open(self._out, "wb") as out, open(self._errors, "wb") as errors:
            self.process = Process([program or relay_binary(), "quickstart", *map(str, arguments)], env=env,
                                   stdout=out, stderr=errors)

    @property
    def said(self):
        return self._errors.read_text()

    def messages(self):
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True)
                if line.endswith("\n")]

    def wait_messages(self, count=1):
        eventually(lambda: len(self.messages()) >= count, 90, message=lambda: self.said)

    def assert_nothing_is_left(self):
        assert os.listdir(self.temporary) == []
        assert not processes_in(self.temporary)


def processes_in(directory):
    """The processes whose command line names a place below `directory`."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                if f"{directory}/pgtrickle-quickstart".encode() in file.read():
                    found.append(path)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def reachable_tmp():
    """A directory that the user postgres may enter, which pytest's own is not."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="relay-quickstart-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(reachable_tmp, request):
    path = reachable_tmp / re.sub(r"\W", "-", request.node.name)
    path.mkdir()
    return path
