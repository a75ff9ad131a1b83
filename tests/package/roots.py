"""Roots of Debian releases for tests: made, copied and entered by packaging/lib/roots.sh."""

import os
import shutil
import subprocess
import tempfile

from support.postgres import REPOSITORY
from support.waiting import eventually

PACKAGES = os.path.join(REPOSITORY, "build", "packages")
# Where roots and tools stay once they were fetched, as in packaging/lib/common.sh.
KEPT = os.environ.get("RELAY_PACKAGE_KEPT") or f"/var/tmp/pgtrickle-relay-{os.getuid()}"
HELPERS = ". packaging/lib/common.sh; . packaging/lib/roots.sh; . packaging/lib/runtime.sh; "


def helper(*words, environment=None, **options):
    """Calls a function of the builders; a CompletedProcess."""
    return subprocess.run(["bash", "-euo", "pipefail", "-c", HELPERS + '"$@"', "helper", *map(str, words)],
                          cwd=REPOSITORY, env=os.environ | (environment or {}), text=True, **options)


def build(*targets, release=None, environment=None):
    """scripts/package; fails with what it said."""
    chosen = ["--release", str(release)] if release else []
    ran = subprocess.run(["scripts/package", *chosen, *targets], cwd=REPOSITORY, capture_output=True,
                         text=True, env=os.environ | (environment or {}))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class Root:
    """A folder with a system, in which commands can be run."""

    def __init__(self, folder):
        self.folder = str(folder)

    @classmethod
    def copy(cls, release, name, packages):
        made = helper("root", release, name, *packages, stdout=subprocess.PIPE, check=True).stdout.strip()
        folder = tempfile.mkdtemp(prefix="root-", dir=os.path.dirname(made))
        helper("copy_of", made, folder, check=True)
        return cls(folder)

    def remove(self):
        shutil.rmtree(self.folder)

    def path(self, path):
        return os.path.join(self.folder, path.lstrip("/"))

    def argv(self, *words, read_only=False, user=None, environment=()):
        """The arguments that run a command there."""
        mode = ["--read-only"] if read_only else []
        mode += ["--user", user] if user else []
        mode += [word for variable in environment for word in ("--env", variable)]
        return ["bash", "-c", f"cd {REPOSITORY}; {HELPERS}" + 'become=exec; inside "$@"', "inside", self.folder, *mode,
                *map(str, words)]

    def run(self, *words, check=True, read_only=False, timeout=600, **options):
        ran = subprocess.run(self.argv(*words, read_only=read_only), capture_output=True, text=True,
                             timeout=timeout, **options)
        assert not check or ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return ran

    def install(self, deb, *options):
        shutil.copy(deb, self.path("/tmp/package.deb"))
        self.run("apt-get", "update", "-qq")
        return self.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *options,
                        "/tmp/package.deb")

    def files(self):
        """What is there, beside what the package manager notes of itself."""
        own = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/tmp", "/proc", "/dev",
               "/run", "/etc/resolv.conf", "/etc/hosts", "/etc/passwd-", "/etc/group-", "/etc/shadow-",
               "/etc/gshadow-", "/etc/ld.so.cache")
        found = set()
        for folder, folders, files in os.walk(self.folder):
            for name in folders + files:
                path = os.path.join(folder, name)[len(self.folder):]
                if not any(path == start or path.startswith(start + "/") for start in own):
                    found.add(path)
        return found

    def text(self, path):
        with open(self.path(path)) as file:
            return file.read()


class Booted:
    """A root with systemd as its first process, in a container of systemd-nspawn on this machine's network."""

    def __init__(self, root):
        self._log = open(root.path("/tmp/boot.log"), "w+")
        # The unified hierarchy, also where this machine has the older ones beside it: systemd of Debian 13
        # knows no other.
        self._container = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={root.folder}", "--boot"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        try:
            eventually(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip()
                       in ("running", "degraded"), 120, message=self.said)
        except BaseException:
            self.end()
            raise

    def said(self):
        with open(self._log.name, errors="replace") as log:
            return log.read()

    def run(self, *words, check=True):
        with open(f"/proc/{self._container.pid}/task/{self._container.pid}/children") as file:
            first = file.read().split()
        assert first or not check, self.said()
        ran = subprocess.run(["nsenter", f"--target={(first or ['0'])[0]}", "--all", "env", "-i",
                              "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *words],
                             capture_output=True, text=True, timeout=120)
        assert not check or ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return ran

    def end(self):
        self._container.terminate()
        try:
            self._container.wait(90)
        except subprocess.TimeoutExpired:
            self._container.kill()
            self._container.wait()
        self._log.close()
