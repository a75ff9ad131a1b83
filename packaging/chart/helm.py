#!/usr/bin/env python3
"""Helm without its program: what the chart is checked with. The package of PyPI brings Helm's own code.

helm.py lint CHART [VALUES.json]       exits with 1 if Helm warns of anything
helm.py template CHART [VALUES.json]   prints the manifests of the release `prod`, in the namespace `relays`
helm.py package CHART FOLDER           prints the path of the archive
"""

import json
import os
import shutil
import subprocess
import sys

PACKAGE = "helm-python-sdk==0.2.2"  # Helm 4.2


def helm():
    """The module; it is fetched once, into a folder that stays."""
    folder = os.path.join(os.environ["KEPT"], "tools", PACKAGE.replace("==", "-"))
    if not os.path.isdir(folder):
        if not shutil.which("pip"):
            sys.exit("package: pip is not here: apt-get install python3-pip")
        print(f"package: fetching {PACKAGE}", file=sys.stderr)
        subprocess.run(["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target",
                        folder + ".part", PACKAGE], check=True)
        os.replace(folder + ".part", folder)
    sys.path.insert(0, folder)
    import helm_python
    return helm_python


def read(path):
    if path is None:
        return {}
    with open(path) as file:
        return json.load(file)


def lint(chart, values=None):
    report = helm().lint(chart, read(values), strict=True)
    for message in report["messages"]:
        print(f"{message['path']}: {message['error']}")
    return 1 if report["errors"] or any(message["severity"] > 1 for message in report["messages"]) else 0


def template(chart, values=None):
    module = helm()
    with module.Chart.load(chart) as loaded:
        try:
            loaded.validate_schema(read(values))
            manifests = loaded.render(read(values), name="prod", namespace="relays")
        except module.HelmError as error:
            print(error, file=sys.stderr)
            return 1
    for path, text in sorted(manifests.items()):
        if text.strip() and path.endswith(".yaml"):
            print(f"---\n# Source: {path}\n{text}")
    return 0


def package(chart, folder):
    print(helm().package(chart, destination=folder))
    return 0


if __name__ == "__main__":
    sys.exit({"lint": lint, "template": template, "package": package}[sys.argv[1]](*sys.argv[2:]))
