"""A small `kubectl kustomize` where there is none: as much of it as deploy/kubernetes uses."""

from __future__ import annotations

import yaml

FIELDS = {
    "apiVersion", "kind", "resources", "components", "patches", "images", "namespace",
    "configMapGenerator", "generatorOptions",
}  # fmt: skip


def build(folder, found=()):
    """Manifests of a folder; a component changes those `found` before it."""
    doc = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(doc) <= FIELDS, f"{folder}: this reader knows no {set(doc) - FIELDS}"
    out = list(found)
    for name in doc.get("resources", ()):
        path = folder / name
        out += build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    options = doc.get("generatorOptions", {})
    for item in doc.get("configMapGenerator", ()):
        assert options.get("disableNameSuffixHash")
        data = {name: (folder / name).read_text() for name in item["files"]}
        meta = {"name": item["name"], "labels": dict(options["labels"])}
        out.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    for name in doc.get("components", ()):
        out = build(folder / name, out)
    for patch in doc.get("patches", ()):
        for manifest in out:
            target = {"kind": manifest["kind"], "name": manifest["metadata"]["name"]}
            if target == patch["target"]:
                for operation in yaml.safe_load(patch["patch"]):
                    apply(manifest, **operation)
    for manifest in out:
        if "namespace" in doc and manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = doc["namespace"]
        for image in doc.get("images", ()):
            retag(manifest, image)
    return out


def apply(manifest, op, path, value):
    """One JSON patch operation: add or replace."""
    *way, last = (p.replace("~1", "/") for p in path.strip("/").split("/"))
    place = manifest
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    if last == "-":
        place.append(value)
    else:
        assert op == "add" or last in place, f"{path} is not there to be replaced"
        place[last] = value


def retag(node, image):
    """Another tag for an image, wherever it stands in a container."""
    if isinstance(node, dict):
        name = node.get("image")
        if isinstance(name, str) and name.partition(":")[0] == image["name"]:
            node["image"] = f"{image['name']}:{image['newTag']}"
        for value in node.values():
            retag(value, image)
    elif isinstance(node, list):
        for value in node:
            retag(value, image)
