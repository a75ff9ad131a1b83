"""scripts/package itself: what it says where something is missing, and the targets that need no build."""

import glob
import hashlib
import os
import re
import shutil
import subprocess

import pytest

from roots import PACKAGES, build
from support.fixtures import need
from support.postgres import REPOSITORY

# Each target's tool, and what has to be named where it is missing.
TOOLS = [("deb", "dh", "debhelper"), ("tarball", "patchelf", "patchelf"), ("image", "buildah", "buildah"),
         ("rpm", "rpmbuild", "rpm"), ("brew", "ruby", "ruby"), ("chart", "pip", "python3-pip")]


def without(tool, folder):
    """A PATH with everything of this machine but one program."""
    for directory in os.environ["PATH"].split(":"):
        if not os.path.isdir(directory):
            continue
        for name in os.listdir(directory):
            link = folder / name
            if name != tool and not link.is_symlink():
                link.symlink_to(os.path.join(directory, name))
    return str(folder)


@pytest.mark.parametrize("target, tool, package", TOOLS, ids=[target for target, _, _ in TOOLS])
def test_a_target_without_its_tool_names_the_package(tmp_path, target, tool, package):
    path = tmp_path / "bin"
    path.mkdir()
    # Where tools are kept is another place too: what was fetched before is not there.
    ran = subprocess.run(["scripts/package", target], cwd=REPOSITORY, capture_output=True, text=True,
                         env=os.environ | {"PATH": without(tool, path), "REBUILD": "1",
                                           "RELAY_PACKAGE_KEPT": str(tmp_path / "kept")})
    assert ran.returncode == 1
    assert f"apt-get install {package}" in ran.stderr
    assert f"not built: {target}" in ran.stderr


def test_an_unknown_target_is_refused_with_those_that_there_are():
    ran = subprocess.run(["scripts/package", "msi"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 2 and "'msi'" in ran.stderr and "tarball" in ran.stderr
    ran = subprocess.run(["scripts/package", "--release", "11"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 2 and "12 or 13" in ran.stderr


def test_the_formula_is_ruby_and_names_the_archive_of_the_sources():
    need(shutil.which("ruby"), "ruby")
    build("brew")
    with open(os.path.join(PACKAGES, "pgtrickle-relay.rb")) as file:
        formula = file.read()
    archive = os.path.join(PACKAGES, re.search(r'/([^/"]+\.tar\.gz)"', formula).group(1))
    with open(archive, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == re.search(r'sha256 "(.*)"', formula).group(1)
    names = subprocess.run(["tar", "-tzf", archive], check=True, capture_output=True, text=True).stdout
    for needed in ("CMakeLists.txt", "packaging/etc/relay.toml", "src/apps/pgtrickle-relay/main.cc"):
        assert f"/{needed}\n" in names


def test_versions_agree():
    with open(os.path.join(REPOSITORY, "CMakeLists.txt")) as file:
        version = re.search(r"VERSION (\S+)", file.read().split("project(")[1]).group(1)
    with open(os.path.join(REPOSITORY, "packaging/debian/changelog")) as file:
        assert f"({version}-" in file.readline()
    with open(os.path.join(REPOSITORY, "packaging/chart/pgtrickle-relay/Chart.yaml")) as file:
        assert f"appVersion: {version}\n" in file.read()


def test_the_files_for_administrators_are_valid_configurations(tmp_path):
    """As shipped, and with every commented line in force."""
    binary = os.environ.get("RELAY_BIN") or next(
        iter(glob.glob(os.path.join(REPOSITORY, "build", "release", "pgtrickle-relay"))), None)
    need(binary, "the relay's binary")
    with open(os.path.join(REPOSITORY, "packaging/etc/relay.toml")) as file:
        text = file.read()
    keys = re.sub(r"^# (?=\[\[|[a-z_]+ = )", "", text, flags=re.M)
    assert keys.count("\n[[pipeline]]") == 1 and "\npostgres_url" in keys
    password = tmp_path / "password"
    password.write_text("a-password-1")
    configuration = tmp_path / "relay.toml"
    configuration.write_text(keys.replace("/etc/pgtrickle-relay/password", str(password))
                             .replace("@localhost/", "@127.0.0.1:1/"))
    ran = subprocess.run([binary, "check", "--config", configuration], capture_output=True, text=True)
    # The one thing that is wrong is that no server is there.
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "relay.toml:" not in ran.stdout + ran.stderr
