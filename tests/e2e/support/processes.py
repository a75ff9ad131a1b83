"""Child processes that never outlive the tests, and free ports."""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from .waiting import eventually

_GUARD_PROGRAM = r"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
alive = set()
for line in sys.stdin:
    pid = int(line)
    alive.add(pid) if pid > 0 else alive.discard(-pid)
for pid in alive:
    for sig in (signal.SIGCONT, signal.SIGKILL):
        try:
            os.kill(pid, sig)
        except OSError:
            pass
"""


class _Guard:
    """A tiny process that kills what is left when this one is gone, however it went."""

    def __init__(self):
        self._process = None

    def tell(self, line):
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _GUARD_PROGRAM], stdin=subprocess.PIPE, text=True)
            atexit.register(self._process.stdin.close)
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


_guard = _Guard()
_directories = []


def _remove_directories():
    for directory in _directories:
        shutil.rmtree(directory, ignore_errors=True)


atexit.register(_remove_directories)


def _stat(pid):
    """(state, parent) of a process, as the kernel says; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else (state, int(parent))


def _parent(pid):
    return (_stat(pid) or (None, None))[1]


def has_ended(pid):
    return _stat(pid) is None


def signal_all(pids, number):
    """Signals those of the processes that still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Process:
    """A child process: started, signalled and reaped by its own pid only."""

    def __init__(self, argv, *, env=None, stdout=None, stderr=None, stdin=subprocess.DEVNULL,
                 user=None, cwd=None):
        options = {}
        if user is not None and os.geteuid() == 0:
            options = {"user": user, "group": user, "extra_groups": []}
        self._popen = subprocess.Popen(
            argv, env=env, stdout=stdout, stderr=stderr, stdin=stdin, cwd=cwd,
            start_new_session=True, **options)
        self.pid = self._popen.pid
        _guard.tell(self.pid)

    def poll(self):
        """The exit code, or None while it runs."""
        code = self._popen.poll()
        if code is not None:
            self._forget()
        return code

    @property
    def running(self):
        return self.poll() is None

    def signal(self, number):
        if self.running:
            os.kill(self.pid, number)

    def wait(self, timeout):
        """The exit code; raises subprocess.TimeoutExpired."""
        code = self._popen.wait(timeout)
        self._forget()
        return code

    def kill9(self):
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait(30)

    def children(self):
        """The processes that this one has started and that run."""
        return [int(name) for name in os.listdir("/proc")
                if name.isdigit() and _parent(name) == self.pid]

    def freeze(self):
        """Returns when it has stopped: until then it goes on, and may start processes."""
        self.signal(signal.SIGSTOP)
        eventually(lambda: (_stat(self.pid) or "T")[0] == "T", interval=0.001)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def _forget(self):
        if self.pid is not None and not getattr(self, "_gone", False):
            self._gone = True
            _guard.tell(-self.pid)


_PORTS = range(15000, 32000)  # below the range from which clients draw theirs
_ports_given = set()


def _own_ports():
    """The ports of this worker. A server listens some time after its port was found free, and closes
    it while it restarts: two workers that drew from one range would meet there."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return _PORTS[number::count]


def free_port():
    """A port on 127.0.0.1 that is free now, and that no other worker of this run takes."""
    generator = random.Random(os.urandom(8))
    while True:
        port = generator.choice(_own_ports())
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port


def temporary_directory(label, user=None, parent=None):
    """A directory that goes when the tests end; owned by `user` where we may give it away. `parent`:
    where, if not among other temporary files."""
    path = tempfile.mkdtemp(prefix=f"relay-{label}-", dir=parent)
    _directories.append(path)
    if user is not None and os.geteuid() == 0:
        shutil.chown(path, user, user)
    else:
        os.chmod(path, 0o755)
    return path
