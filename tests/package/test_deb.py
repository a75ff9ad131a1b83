"""The Debian package: in clean roots, as a new user would install, upgrade and remove it."""

import hashlib
import os
import shutil
import subprocess
import time

import pytest

from roots import PACKAGES, Booted, build
from conftest import host_release
from support import earlier_versions
from support.fixtures import need
from support.pipelines import LONG
from support.processes import free_port
from support.relay import get
from support.waiting import eventually

CONFIGURATION = "/etc/pgtrickle-relay/relay.toml"


class Service:
    """The unit's command, as its user, without rights; systemd itself does not run in a root."""

    def __init__(self, root, port):
        self.root, self.port = root, port
        account = root.run("id", "-u", "pgtrickle-relay").stdout.strip()
        group = root.run("id", "-g", "pgtrickle-relay").stdout.strip()
        with open(root.path("/lib/systemd/system/pgtrickle-relay.service")) as unit:
            command = next(line for line in unit if line.startswith("ExecStart=")).split("=", 1)[1].split()
        self.log = open(root.path("/tmp/service.log"), "w+")
        self.process = subprocess.Popen(
            root.argv("setpriv", f"--reuid={account}", f"--regid={group}", "--clear-groups",
                      "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
                      *command, read_only=True),
            stdout=subprocess.PIPE, stderr=self.log, text=True)

    def said(self):
        with open(self.log.name) as log:
            return log.read()

    def wait_healthy(self):
        eventually(lambda: get(self.port, "/health/ready")[0] == 200, 60, message=self.said)

    def reload(self):
        self.process.send_signal(1)

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


def configure(root, url, port):
    """What README.Debian says: the database, named in the configuration."""
    path = root.path(CONFIGURATION)
    with open(path) as file:
        text = file.read()
    text = text.replace('metrics_addr = "127.0.0.1:9090"', f'metrics_addr = "127.0.0.1:{port}"')
    text = text.replace("[global]\n", f'[global]\npostgres_url = "{url}"\n', 1)
    with open(path, "r+") as file:  # the same file, with its owner and mode
        file.write(text)


def pipeline_to_screen(db):
    db.execute("create table orders (id int primary key, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    db.execute("""select pgtrickle.set_relay_outbox('orders-to-screen',
        config => '{"stream_table": "orders", "sink_type": "stdout"}'::jsonb)""")
    db.execute("select pgtrickle.enable_relay('orders-to-screen')")


def earlier_package(deb, folder):
    """The same files as version 0.0.9, with another line in the configuration's comments."""
    tree = folder / "earlier"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text("\n".join(f"Version: 0.0.9-1~deb{line.split('~deb')[1]}"
                                 if line.startswith("Version:") else line
                                 for line in control.read_text().splitlines()) + "\n")
    shipped = tree / CONFIGURATION.lstrip("/")
    shipped.write_text(shipped.read_text() + "# of an earlier version\n")
    sums = tree / "DEBIAN" / "md5sums"
    digest = hashlib.md5(shipped.read_bytes()).hexdigest()
    sums.write_text("\n".join(f"{digest}  {line.split('  ')[1]}"
                              if line.endswith(CONFIGURATION.lstrip("/")) else line
                              for line in sums.read_text().splitlines()) + "\n")
    earlier = folder / "earlier.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, earlier], check=True,
                   stdout=subprocess.DEVNULL)
    return earlier


# What is in it -----------------------------------------------------------------------------


def test_lintian_has_nothing_to_say(deb_here):
    need(shutil.which("lintian"), "lintian")
    changes = [os.path.join(os.path.dirname(deb_here), name)
               for name in os.listdir(os.path.dirname(deb_here)) if name.endswith(".changes")]
    ran = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", *changes],
                         capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_both_units_are_hardened_and_valid(unpacked):
    need(shutil.which("systemd-analyze"), "systemd-analyze (systemd)")
    folder = unpacked / "lib" / "systemd" / "system"
    units = sorted(os.listdir(folder))
    assert units == ["pgtrickle-relay.service", "postgres-stream.service"]
    for unit in units:
        # At most 1.5 of 10.
        ran = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15",
                              folder / unit], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout
    # A unit of the same content whose programs are at their places.
    for unit in units:
        text = (folder / unit).read_text().replace("/usr/bin/", f"{unpacked}/usr/bin/")
        copy = unpacked / unit
        copy.write_text(text)
        ran = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
        complaints = [line for line in ran.stderr.splitlines() if unit in line]
        assert complaints == []


def test_two_builds_are_equal_byte_for_byte(deb_here):
    def digests():
        folder = os.path.join(PACKAGES, f"debian-{host_release()}")
        return {name: hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest()
                for name in os.listdir(folder) if name.endswith((".deb", ".dsc", ".xz", ".gz"))}

    first = digests()
    assert any(name.endswith(".deb") for name in first)
    build("deb", environment={"REBUILD": "1"})  # in another temporary folder
    assert digests() == first


# Its life ----------------------------------------------------------------------------------


@pytest.mark.skipif(not LONG, reason="makes a root: LONG=1")
def test_a_new_user_sees_the_first_delta_reloads_stops_and_purges(clean_root, deb, empty_db):
    db, root, port = empty_db, clean_root, free_port()
    # The libraries that it depends on stay after a purge: they are there before, too.
    root.install(deb)
    root.run("dpkg", "--purge", "pgtrickle-relay")
    before, accounts = root.files(), root.text("/etc/passwd") + root.text("/etc/group")
    begin = time.monotonic()
    root.install(deb)
    stat = root.run("stat", "-c", "%U:%G:%a", CONFIGURATION).stdout.strip()
    assert stat == "root:pgtrickle-relay:640"
    root.run("pgtrickle-relay", "init", "--postgres-url", db.dsn)
    pipeline_to_screen(db)
    configure(root, db.dsn, port)
    assert root.run("stat", "-c", "%U:%G:%a", CONFIGURATION).stdout.strip() == stat

    service = Service(root, port)
    try:
        service.wait_healthy()
        db.execute("insert into orders values (1, 9.5)")
        line = service.process.stdout.readline()
        assert '"orders"' in line and "9.5" in line
        assert time.monotonic() - begin < 300  # what a new user is promised
        service.reload()
        eventually(lambda: "reading" in service.said() or "reload" in service.said(), 20)
        assert service.stop() == 0, service.said()
    finally:
        service.end()

    root.run("dpkg", "--purge", "pgtrickle-relay")
    assert root.files() - before == set()
    assert root.text("/etc/passwd") + root.text("/etc/group") == accounts
    assert root.run("dpkg-query", "--status", "pgtrickle-relay", check=False).returncode != 0


@pytest.mark.skipif(not LONG, reason="makes a root: LONG=1")
def test_an_upgrade_keeps_configuration_and_positions(clean_root, deb, empty_db, tmp_path):
    """From a package of an earlier version, over a database side of an earlier version."""
    db, root, port = empty_db, clean_root, free_port()
    root.install(earlier_package(deb, tmp_path))
    configure(root, db.dsn, port)
    configured = root.text(CONFIGURATION)
    earlier_versions.install_version(db.dsn, earlier_versions.VERSIONS[-1])
    db.execute("create table orders (id int primary key, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    db.execute("""select pgtrickle.set_relay_outbox('orders-to-screen',
        '{"source": {"type": "outbox", "outbox": "orders"}, "sink": {"type": "stdout"}}'::jsonb, true)""")
    db.execute("insert into orders values (1, 9.5)")
    db.execute("""insert into pgtrickle.relay_consumer_offsets
          (relay_group_id, pipeline_id, incarnation, last_change_id, last_pgt_id)
        select 'default', 'orders-to-screen', c.incarnation, o.id, o.pgt_id
        from pgtrickle.pgt_outbox_config c, pgtrickle.outbox_orders o
        where c.outbox_table_name = 'outbox_orders'""")

    root.install(deb, "-o", "Dpkg::Options::=--force-confold")
    assert "0.0.9" not in root.run("dpkg-query", "--show", "--showformat=${Version}",
                                   "pgtrickle-relay").stdout
    assert root.text(CONFIGURATION) == configured
    assert root.run("stat", "-c", "%G:%a", CONFIGURATION).stdout.strip() == "pgtrickle-relay:640"
    root.run("pgtrickle-relay", "init", "--postgres-url", db.dsn)
    db.execute("insert into orders values (2, 7.25)")
    service = Service(root, port)
    try:
        service.wait_healthy()
        line = service.process.stdout.readline()
        assert "7.25" in line and "9.5" not in line
        assert service.stop() == 0
    finally:
        service.end()


@pytest.mark.skipif(not LONG, reason="makes a root: LONG=1")
def test_a_mode_that_an_administrator_chose_stays(clean_root, deb):
    root = clean_root
    root.install(deb)
    root.run("chmod", "600", CONFIGURATION)
    root.run("dpkg-reconfigure", "pgtrickle-relay")
    assert root.run("stat", "-c", "%G:%a", CONFIGURATION).stdout.strip() == "pgtrickle-relay:600"


@pytest.mark.skipif(not LONG, reason="makes a root: LONG=1")
def test_systemd_starts_reloads_and_stops_the_unit(clean_root, deb, empty_db):
    need(shutil.which("systemd-nspawn"), "systemd-nspawn (systemd-container)")
    db, root, port, unit = empty_db, clean_root, free_port(), "pgtrickle-relay"
    root.install(deb)
    root.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "systemd-sysv")
    root.run("pgtrickle-relay", "init", "--postgres-url", db.dsn)
    pipeline_to_screen(db)
    configure(root, db.dsn, port)
    booted = Booted(root)
    try:
        def state(*names):
            return booted.run("systemctl", "show", "--value", "--property=" + ",".join(names), unit).stdout.split()

        def journal():
            return booted.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout

        assert state("ActiveState") == ["inactive"]  # the installation enables nothing
        booted.run("systemctl", "enable", "--now", unit)
        eventually(lambda: get(port, "/health/ready")[0] == 200, 60, message=journal)
        process = state("MainPID")
        db.execute("insert into orders values (1, 9.5)")
        eventually(lambda: "9.5" in journal(), 60, message=journal)
        before = len(journal())
        booted.run("systemctl", "reload", unit)
        eventually(lambda: "reload" in journal()[before:], 60, message=journal)
        db.execute("insert into orders values (2, 7.25)")
        eventually(lambda: "7.25" in journal(), 60, message=journal)
        assert state("MainPID") == process
        booted.run("systemctl", "stop", unit)
        assert state("ActiveState", "Result") in (["inactive", "success"], ["success", "inactive"])
    finally:
        booted.end()
