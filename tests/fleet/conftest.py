from __future__ import annotations

import importlib.util
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    "crd_schemas", Path(__file__).with_name("crd_schemas.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
SCHEMAS = _module.SCHEMAS
VERSIONS = ("1.31", kubernetes_validate.latest_version())


@pytest.fixture(scope="session")
def kubernetes_dir():
    return ROOT / "deploy" / "kubernetes"


@pytest.fixture
def job():
    """A job file as YAML gives it."""
    return {
        "name": "gm-ls-2019",
        "queue": "gm-ls",
        "image": "odc-stats-gpu:gpu",
        "region": "ap-southeast-2",
        "bucket": "dest",
        "config": {
            "plugin": "gm-ls",
            "plugin_config": {"bands": ["red"], "mask_band": "fmask", "cloud_classes": ["cloud"]},
            "product": {"name": "gm", "version": "3.0.0"},
        },
    }


@pytest.fixture(scope="session")
def validate():
    """Strictly: the API's schema, unknown keys refused; custom resources by our table."""

    def check(manifest):
        schema = SCHEMAS.get((manifest["apiVersion"], manifest["kind"]))
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(manifest)
            if manifest["kind"] == "ScaledJob":
                inner = {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {"name": "inner"},
                    "spec": manifest["spec"]["jobTargetRef"],
                }
                check(inner)
            return
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)

    return check
