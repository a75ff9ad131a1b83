"""Published Java programs: their jars from a Maven repository, each with its SHA-256, kept in the
user's cache."""

import concurrent.futures
import fcntl
import functools
import hashlib
import os
import shutil
import urllib.request

_HERE = os.path.dirname(os.path.abspath(__file__))
_REPOSITORY = os.environ.get("MAVEN_REPOSITORY", "https://repo1.maven.org/maven2")


def cache(name):
    """The folder in the user's cache where that program's files stay."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                        "pgtrickle-relay-tests", name)


def _wanted(listing):
    """(SHA-256, path in the repository) of each jar."""
    with open(os.path.join(_HERE, listing)) as lines:
        return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def _digest(path):
    with open(path, "rb") as jar:
        return hashlib.sha256(jar.read()).hexdigest()


def _fetch(folder, digest, path):
    target = os.path.join(folder, os.path.basename(path))
    if os.path.exists(target) and _digest(target) == digest:
        return target
    part = f"{target}.part"
    with urllib.request.urlopen(f"{_REPOSITORY}/{path}", timeout=60) as source:
        with open(part, "wb") as sink:
            shutil.copyfileobj(source, sink)
    if _digest(part) != digest:
        raise OSError(f"{path} is not what it was: its SHA-256 differs")
    os.replace(part, target)
    return target


@functools.lru_cache
def classpath(name, listing):
    """All jars of `listing`, fetched into cache(name) where they are not there yet; OSError where
    they cannot be had."""
    folder = cache(name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may begin at once
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jars = list(pool.map(lambda jar: _fetch(folder, *jar), _wanted(listing)))
    return ":".join(jars)


def missing(what, name, listing):
    """Why `what`, made of these jars, cannot run here; None where it can."""
    if not shutil.which("java"):
        return "there is no java (default-jre-headless)"
    try:
        classpath(name, listing)
    except OSError as error:
        return f"{what}'s artifacts cannot be fetched: {error}"
    return None
