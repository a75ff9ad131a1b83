"""Fixtures of the tests of packages. What they build stays in build/packages."""

import glob
import os
import shutil
import subprocess

import pytest

from roots import PACKAGES, Root, build
from support.fixtures import need, pg_server, db, empty_db  # noqa: F401
from support.pipelines import LONG

RELEASES = [12, 13]


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: f"debian-{release}")
def release(request):
    """A release of Debian. That of another than this machine's takes long to make."""
    if request.param != host_release() and not LONG:
        pytest.skip("a release other than this machine's: LONG=1")
    return request.param


def host_release():
    with open("/etc/os-release") as file:
        return int(next(line for line in file if line.startswith("VERSION_ID=")).split('"')[1])


@pytest.fixture(scope="session")
def deb(release):
    """The path of the package for the release."""
    need(shutil.which("dh"), "debhelper")
    build("deb", release=release)
    return glob.glob(os.path.join(PACKAGES, f"debian-{release}", "pgtrickle-relay_*.deb"))[0]


@pytest.fixture(scope="session")
def deb_here():
    need(shutil.which("dh"), "debhelper")
    build("deb")
    return glob.glob(os.path.join(PACKAGES, f"debian-{host_release()}", "pgtrickle-relay_*.deb"))[0]


@pytest.fixture(scope="session")
def unpacked(deb_here, tmp_path_factory):
    """The files of the package, as a folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", deb_here, folder], check=True)
    return folder


@pytest.fixture
def clean_root(release, tmp_path):
    """A root that has nothing but the base of the release; it may be changed."""
    need(os.getuid() == 0, "root, to mount and to change the root")
    need(shutil.which("mmdebstrap"), "mmdebstrap")
    root = Root.copy(release, "clean", ["adduser"])
    yield root
    root.remove()




def pytest_collection_modifyitems(items):
    """The first test that needs a package builds it, and a root is downloaded."""
    for item in items:
        item.add_marker(pytest.mark.timeout(3000))
