"""A tiny archive, its task database, and the command as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from odc_stats_gpu.demo import write_archive
from odc_stats_gpu.tasks import Eo3Source, save_tasks

CONFIG = """\
plugin: gm-ls
plugin_config: {resampling: bilinear, bands: ["blue", "red", "green", "nir", "swir1", "swir2"],
  rgb_bands: ["red", "green", "blue"], mask_band: fmask, cloud_classes: ["shadow", "cloud"],
  filters: [0, 0], aux_names: {smad: sdev, emad: edev, bcmad: bcdev, count: count}}
product: {name: ga_ls8c_nbart_gm_cyear_3, short_name: ga_ls8c_nbart_gm_cyear_3, version: 3.0.0,
  product_family: geomedian}
max_processing_time: 3600
job_queue_max_lease: 300
renew_safety_margin: 60
future_poll_interval: 2
s3_acl: public-read
cog_opts: {zlevel: 9, overrides: {rgba: {compress: JPEG, jpeg_quality: 90}}}
"""


@dataclass(frozen=True)
class Mini:
    """Where the test data is."""

    folder: object
    """The archive."""
    db: str
    config: str
    tiles: tuple
    """Tile indexes, the ones wholly covered first."""


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    top = tmp_path_factory.mktemp("mini")
    archive = write_archive(
        top / "archive", kind="landsat", tile_pixels=64, dates=4, tile_counts=(2, 1)
    )
    (x0, y0), (x1, _) = archive.tiles[0], archive.tiles[-1]
    save_tasks(
        Eo3Source(archive.folder), grid=archive.grid, output=top / "mini.db",
        tiles=((x0, x1 + 1), (y0, y0 + 1)),
    )  # fmt: skip
    (top / "cfg.yaml").write_text(CONFIG)
    tiles = tuple(f"2021--P1Y/{x}/{y}" for x, y in archive.tiles)
    return Mini(archive.folder, str(top / "mini.db"), str(top / "cfg.yaml"), tiles)


@pytest.fixture
def command():
    """Start the command as a process; keyword arguments are environment variables."""

    def start(*args, **env):
        return subprocess.Popen(
            [sys.executable, "-m", "odc_stats_gpu", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "COLUMNS": "60", **env},
        )  # fmt: skip

    return start


@pytest.fixture
def finish(command):
    """Run the command to its end: exit code, stdout, stderr."""

    def run(*args, **env):
        process = command(*args, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run


@pytest.fixture
def here(capsys):
    """Run the command in this process (imports are paid once): exit code, stdout, stderr."""
    from odc_stats_gpu.cli import main

    def run(*args):
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run
