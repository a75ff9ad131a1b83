"""Published Java programs: their jars, fetched by Maven from the repositories that it is configured
for, each compared with its SHA-256, and kept in the user's cache."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile

_HERE = os.path.dirname(os.path.abspath(__file__))
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>pgtrickle.relay.tests</groupId><artifactId>jars</artifactId><version>1</version>
<packaging>pom</packaging>
<build><plugins><plugin>
<groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId>
<configuration><artifactItems>
{items}
</artifactItems></configuration>
</plugin></plugins></build>
</project>
"""
_ITEM = ("<artifactItem><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
         "</artifactItem>")


def cache(name):
    """The folder in the user's cache where that program's files stay."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                        "pgtrickle-relay-tests", name)


def _wanted(listing):
    """(SHA-256, path in a repository) of each jar."""
    with open(os.path.join(_HERE, listing)) as lines:
        return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def _is_there(folder, digest, path):
    try:
        with open(os.path.join(folder, os.path.basename(path)), "rb") as jar:
            return hashlib.sha256(jar.read()).hexdigest() == digest
    except FileNotFoundError:
        return False


def _item(path):
    """A path is group/by/parts/artifact/version/artifact-version.jar."""
    *group, artifact, version, _ = path.split("/")
    return _ITEM.format(".".join(group), artifact, version)


def _fetch(folder, paths):
    if not shutil.which("mvn"):
        raise OSError("there is no mvn (maven)")
    with tempfile.TemporaryDirectory() as project:
        with open(os.path.join(project, "pom.xml"), "w") as pom:
            pom.write(_POM.format(items="\n".join(map(_item, paths))))
        done = subprocess.run(["mvn", "--batch-mode", "--quiet", f"{_PLUGIN}:copy",
                               f"-DoutputDirectory={folder}"], cwd=project, capture_output=True,
                              text=True, timeout=600)
    if done.returncode != 0:
        raise OSError(f"mvn failed: {(done.stdout + done.stderr).strip()[-500:]}")


@functools.lru_cache
def classpath(name, listing):
    """All jars of `listing`, fetched into cache(name) where they are not there yet; OSError where
    they cannot be had."""
    folder = cache(name)
    os.makedirs(folder, exist_ok=True)
    wanted = _wanted(listing)
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may begin at once
        absent = [path for digest, path in wanted if not _is_there(folder, digest, path)]
        if absent:
            _fetch(folder, absent)
        for digest, path in wanted:
            if not _is_there(folder, digest, path):
                raise OSError(f"{path} is not what it was: its SHA-256 differs")
    return ":".join(os.path.join(folder, os.path.basename(path)) for _, path in wanted)


def missing(what, name, listing):
    """Why `what`, made of these jars, cannot run here; None where it can."""
    if not shutil.which("java"):
        return "there is no java (default-jre-headless)"
    try:
        classpath(name, listing)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{what}'s artifacts cannot be fetched: {error}"
    return None
