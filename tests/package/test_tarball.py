"""The relocatable archive: it runs where none of its libraries is installed."""

import glob
import json
import os
import shutil
import subprocess

import cyclonedx_schema
import pytest

from conftest import host_release
from roots import KEPT, PACKAGES, Root, build
from support.fixtures import need
from support.nats_server import NatsServer
from support.pipelines import LONG, insert_rows, make_table, set_outbox
from support.processes import free_port
from support.relay import get
from support.waiting import eventually

pytestmark = pytest.mark.skipif(not LONG, reason="makes roots: LONG=1")


@pytest.fixture(scope="module")
def archive():
    need(shutil.which("patchelf"), "patchelf")
    build("tarball")
    return glob.glob(os.path.join(PACKAGES, "pgtrickle-relay-*-linux-*.tar.gz"))[0]


@pytest.fixture
def bare_root():
    """A root of the other release, with nothing but what every Debian has."""
    root = Root.copy(25 - host_release(), "clean", ["adduser"])
    yield root
    root.remove()


def test_it_delivers_to_nats_in_a_root_of_another_release(archive, bare_root, db):
    root = bare_root
    subprocess.run(["tar", "-xzf", archive, "-C", root.path("/opt")], check=True)
    home, = glob.glob(root.path("/opt/pgtrickle-relay-*"))
    relay = home[len(root.folder):] + "/bin/pgtrickle-relay"
    # Every library but the C library's is the archive's own.
    used = root.run("ldd", relay).stdout
    assert "not found" not in used
    foreign = [line.split()[0] for line in used.splitlines()
               if "=>" in line and "/opt/" not in line.split("=>")[1]]
    assert {name.split(".")[0] for name in foreign} <= \
        {"libc", "libm", "libresolv", "libpthread", "libdl", "librt"}
    assert not glob.glob(root.path("/usr/lib/*/librdkafka*"))

    make_table(db)
    server, port = NatsServer().start(), free_port()
    process = None
    try:
        set_outbox(db, "orders", {"stream_table": "orders", "subject_template": "orders", "sink": {
            "type": "nats", "url": server.url, "stream": "S", "create_stream": True}})
        process = subprocess.Popen(root.argv(relay, "run", "--postgres-url", db.dsn, "--metrics-addr",
                                             f"127.0.0.1:{port}", read_only=True))
        insert_rows(db, "orders", 1, 3)
        metric = 'pgtrickle_relay_messages_delivered_total{pipeline="orders"}'
        eventually(lambda: any(line.startswith(metric) and float(line.split()[-1]) >= 1
                               for line in get(port, "/metrics")[1].splitlines()), 90)
        with server.client() as client:
            assert client.stream_info("S")["state"]["messages"] >= 1
    finally:
        if process:
            process.terminate()
            assert process.wait(60) == 0
        server.stop()


def test_the_rpm_has_the_same_files_and_offers_none_of_its_libraries(archive):
    need(shutil.which("rpmbuild"), "rpmbuild (rpm)")
    build("rpm")
    rpm, = glob.glob(os.path.join(PACKAGES, "*.rpm"))

    def ask(*what):
        return subprocess.run(["rpm", "-qp", "--nosignature", *what, rpm], check=True, capture_output=True,
                              text=True).stdout.splitlines()

    files = ask("--list")
    for path in ("/usr/bin/pgtrickle-relay", "/usr/bin/postgres-stream",
                 "/usr/lib/systemd/system/pgtrickle-relay.service",
                 "/usr/share/pgtrickle-relay/monitoring/alerts.yml"):
        assert path in files
    assert set(ask("--configfiles")) == {"/etc/pgtrickle-relay/relay.toml",
                                         "/etc/pgtrickle-relay/postgres-stream.yaml"}
    assert [line for line in ask("--provides") if ".so" in line] == []
    assert [line for line in ask("--requires") if ".so" in line] == []
    modes = dict(line.rsplit(" ", 1)[::-1] for line in
                 ask("--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]"))
    assert modes["/etc/pgtrickle-relay/relay.toml"] == "-rw-r----- root:pgtrickle-relay"


def test_the_bill_of_materials_is_valid_and_names_what_is_loaded(archive):
    build("sbom")
    path, = glob.glob(os.path.join(PACKAGES, f"*-debian-{host_release()}.cdx.json"))
    with open(path) as file:
        document = json.load(file)
    tools = os.path.join(KEPT, "tools")
    os.makedirs(tools, exist_ok=True)
    assert cyclonedx_schema.errors(document, tools) == []
    assert cyclonedx_schema.errors(document | {"bomFormat": "SPDX"}, tools) != []
    names = {component["name"] for component in document["components"]}
    assert {"libpq5", "librdkafka1", "libcli11-dev", "libstdc++6", "libc6"} <= names
    assert all(component["version"] and component["purl"] for component in document["components"])
    listed = {component["bom-ref"] for component in document["components"]}
    assert set(document["dependencies"][0]["dependsOn"]) == listed
