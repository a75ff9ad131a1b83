"""The container image: its archive is unpacked as an engine would, and run with a read-only root."""

import glob
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from roots import PACKAGES, Root, build
from support.fixtures import need
from support.pipelines import LONG, insert_rows, make_table, set_outbox
from support.processes import free_port
from support.relay import get
from support.waiting import eventually

pytestmark = pytest.mark.skipif(not LONG and not os.environ.get("PACKAGE_IMAGE"),
                                reason="LONG=1, or PACKAGE_IMAGE with the release of Debian")


def unpack(archive, folder):
    """The configuration of the image in an OCI archive, whose layers are unpacked into the folder."""
    with tarfile.open(archive) as tar:
        def blob(digest):
            return tar.extractfile("blobs/" + digest.replace(":", "/"))

        index = json.load(tar.extractfile("index.json"))
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            subprocess.run(["tar", "-xz", "-C", folder], input=blob(layer["digest"]).read(), check=True)
        return json.load(blob(manifest["config"]["digest"]))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    need(shutil.which("buildah"), "buildah")
    build("image", release=int(os.environ.get("PACKAGE_IMAGE", "13")))
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)  # as engines make the root
    archive, = glob.glob(os.path.join(PACKAGES, "*-image.tar"))
    root = Root(folder)
    root.configuration = unpack(archive, folder)["config"]
    return root


def command(image, *words):
    """The arguments that start the image's entry point as its user, with nothing writable but /tmp."""
    user, group = image.configuration["User"].split(":")
    return image.argv(*image.configuration["Entrypoint"], *words, read_only=True, user=f"{user}:{group}",
                      environment=image.configuration["Env"])


def run(image, *words, **options):
    return subprocess.run(command(image, *words), capture_output=True, text=True, timeout=240, **options)


def test_it_is_small_has_no_user_root_and_says_what_it_is(image):
    size = sum(os.lstat(os.path.join(folder, name)).st_size
               for folder, _, files in os.walk(image.folder) for name in files)
    assert size <= 120_000_000
    assert image.configuration["User"] == "65532:65532"
    assert image.configuration["Entrypoint"] == ["/usr/bin/pgtrickle-relay"]
    assert image.configuration["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    # It has no program that changes the user, and no package manager.
    assert [name for folder, _, files in os.walk(image.folder) for name in files
            if os.lstat(os.path.join(folder, name)).st_mode & 0o6000] == []
    assert not os.path.exists(image.path("/usr/bin/apt")) and not os.path.exists(image.path("/usr/bin/bash"))


def test_check_and_run_work_with_a_read_only_root(image, db):
    make_table(db)
    set_outbox(db, "screen", {"stream_table": "orders", "sink_type": "stdout"})
    checked = run(image, "check", "--postgres-url", db.dsn)
    assert "no relay is running" in (checked.stdout + checked.stderr).lower()
    port = free_port()
    process = subprocess.Popen(command(image, "run", "--postgres-url", db.dsn, "--metrics-addr",
                                       f"127.0.0.1:{port}"), stdout=subprocess.PIPE, text=True)
    try:
        eventually(lambda: get(port, "/health/ready")[0] == 200, 60)
        insert_rows(db, "orders", 1)
        assert '"orders"' in process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_quickstart_shows_deltas_with_a_read_only_root(image):
    ran = run(image, "quickstart", "--duration", "8")
    assert ran.returncode == 0, ran.stderr
    assert "revenue_by_region" in ran.stdout
