"""Writes a CycloneDX document from lines "kind <tab> package <tab> version <tab> architecture <tab> source".

Kind: loaded, compiled-in, or development. Of the last, only the source is used: the licence that
docs/dependencies.md names for a development package is that of its libraries.

python3 cyclonedx.py VERSION DEBIAN_RELEASE EPOCH DEPENDENCIES.md <lines
"""

import datetime
import json
import re
import sys
import uuid

version, release, epoch, table = sys.argv[1:]
OURS = f"pkg:deb/debian/pgtrickle-relay@{version}?distro=debian-{release}"
# The identifiers of SPDX that docs/dependencies.md uses.
NAMED = {"PostgreSQL", "MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "CC0-1.0", "BSL-1.0", "Zlib"}


def licences(lines):
    """Licence by source package."""
    sources = {line[1]: line[4] for line in lines}
    found = {}
    with open(table) as file:
        for line in file:
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 5:
                continue
            packages = re.findall(r"[a-z][a-z0-9.+-]*-dev", cells[2])
            named = cells[3].split(", ")
            for package, licence in zip(packages, named * len(packages) if len(named) == 1 else named):
                if package in sources:
                    found[sources[package]] = {"CC0": "CC0-1.0"}.get(licence, licence)
    return found


def component(kind, package, package_version, architecture, source):
    purl = f"pkg:deb/debian/{package}@{package_version.replace('+', '%2B')}" \
           f"?arch={architecture}&distro=debian-{release}"
    made = {"type": "library", "bom-ref": purl, "name": package, "version": package_version,
            "purl": purl, "scope": "required",
            "properties": [{"name": "pgtrickle-relay:linkage", "value": kind}]}
    if LICENCES.get(source) in NAMED:
        made["licenses"] = [{"license": {"id": LICENCES[source]}}]
    return made


LINES = [line.rstrip("\n").split("\t") for line in sys.stdin]
LICENCES = licences(LINES)
components = sorted((component(*line) for line in LINES if line[0] != "development"),
                    key=lambda one: one["bom-ref"])
text = json.dumps([one["bom-ref"] for one in components])
document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "serialNumber": "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_URL, OURS + text)),
    "version": 1,
    "metadata": {
        "timestamp": datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        .strftime("%Y-%m-%dT%H:%M:%SZ"),
        "component": {"type": "application", "bom-ref": OURS, "name": "pgtrickle-relay",
                      "version": version, "purl": OURS,
                      "licenses": [{"license": {"id": "Apache-2.0"}}]},
    },
    "components": components,
    "dependencies": [{"ref": OURS, "dependsOn": [one["bom-ref"] for one in components]}]
    + [{"ref": one["bom-ref"]} for one in components],
}
json.dump(document, sys.stdout, indent=1)
print()
