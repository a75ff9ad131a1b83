"""PostgreSQL with stand-ins for the extensions pg_trickle and pg_tide, to be tested beside.

A server finds its share directory relative to where its program is. So a copy of the program, with
links to all else that is installed, loads extensions from a directory of its own.
"""

import glob
import os
import re
import shutil
import subprocess

from .postgres import REPOSITORY, SUPERUSER, postgres_bin_directory
from .processes import temporary_directory

CONTROL_AND_SCRIPTS = os.path.join(REPOSITORY, "tests", "e2e", "extensions")
COPIED = ("postgres", "initdb")  # a link would be followed to where the original is


def bin_with_extensions():
    """The bin directory of such a copy of the server that the tests run on."""
    installed = os.path.realpath(postgres_bin_directory())
    share = share_directory(installed)
    root = os.path.commonpath([installed, share])
    copy = temporary_directory("extensions")
    os.chmod(copy, 0o755)

    bin_copy = os.path.join(copy, os.path.relpath(installed, root))
    share_copy = os.path.join(copy, os.path.relpath(share, root))
    extensions_copy = os.path.join(share_copy, "extension")
    os.makedirs(bin_copy)
    os.makedirs(extensions_copy)
    link_all(installed, bin_copy, but=COPIED)
    for program in COPIED:
        shutil.copy2(os.path.join(installed, program), bin_copy)
    link_all(os.path.dirname(installed), os.path.dirname(bin_copy))  # libraries
    link_all(share, share_copy)
    link_all(os.path.join(share, "extension"), extensions_copy)
    for path in glob.glob(os.path.join(CONTROL_AND_SCRIPTS, "*")):
        shutil.copy(path, extensions_copy)
        os.chmod(os.path.join(extensions_copy, os.path.basename(path)), 0o644)
    return bin_copy


def link_all(source, destination, but=()):
    """Links to all entries of a directory, except those that the destination has."""
    for name in os.listdir(source):
        link = os.path.join(destination, name)
        if name not in but and not os.path.lexists(link):
            os.symlink(os.path.join(source, name), link)


def share_directory(bin_directory):
    """What initdb says of its share directory."""
    as_user = {"user": SUPERUSER, "group": SUPERUSER, "extra_groups": []} \
        if os.geteuid() == 0 else {}
    said = subprocess.run([os.path.join(bin_directory, "initdb"), "--show", "-D", "/nowhere"],
                          capture_output=True, text=True, cwd="/", **as_user)
    found = re.search(r"^share_path=(.*)$", said.stdout + said.stderr, re.MULTILINE)
    assert found, said.stdout + said.stderr
    return os.path.realpath(found[1])
