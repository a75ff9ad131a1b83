"""The schemas of Kubernetes's objects, strict: an unknown field is an error. From a package of PyPI."""

import glob
import json
import os
import re
import subprocess
import zipfile

import jsonschema

PACKAGE = "kubernetes-validate==1.37.0"


class KubernetesSchemas:
    def __init__(self, kept):
        """`kept`: the folder in which the package stays once it was fetched."""
        wheels = os.path.join(kept, "kubernetes_validate-*.whl")
        if not glob.glob(wheels):
            subprocess.run(["pip", "download", "--quiet", "--no-deps", "--dest", kept, PACKAGE], check=True)
        self._archive = zipfile.ZipFile(glob.glob(wheels)[0])
        self._definitions = {}

    def _read(self, version, name):
        return json.loads(self._archive.read(
            f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/{name}"))

    def errors(self, manifest, version):
        """What a server of this version would say of the object; [] if it takes it."""
        if version not in self._definitions:
            self._definitions[version] = self._read(version, "_definitions.json")
        group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", manifest["apiVersion"])
        schema = self._read(version, f"{manifest['kind'].lower()}-{group}.json")
        definitions = self._definitions[version]
        store = {"_definitions.json": definitions, definitions.get("$id", "_definitions.json"): definitions}
        resolver = jsonschema.RefResolver(schema.get("$id", ""), schema, store=store)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
                for error in jsonschema.Draft7Validator(schema, resolver=resolver).iter_errors(manifest)]
