"""The schema of CycloneDX 1.5. From a package of PyPI."""

import glob
import json
import os
import subprocess
import zipfile

import jsonschema

PACKAGE = "cyclonedx-python-lib==11.6.0"


def errors(document, kept):
    """What is wrong with a document. `kept`: the folder in which the package stays once it was fetched."""
    wheels = os.path.join(kept, "cyclonedx_python_lib-*.whl")
    if not glob.glob(wheels):
        subprocess.run(["pip", "download", "--quiet", "--no-deps", "--dest", kept, PACKAGE], check=True)
    archive = zipfile.ZipFile(glob.glob(wheels)[0])

    def read(name):
        return json.loads(archive.read("cyclonedx/schema/_res/" + name))

    schema = read("bom-1.5.SNAPSHOT.schema.json")
    # The others are referred to by their names beside this one, whatever they call themselves.
    beside = schema["$id"].rsplit("/", 1)[0]
    store = {f"{beside}/{name}": read(name) for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")}
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=store)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
            for error in jsonschema.Draft7Validator(schema, resolver=resolver).iter_errors(document)]
