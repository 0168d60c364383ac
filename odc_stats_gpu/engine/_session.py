"""What a process keeps between tiles: plugin, store, device, open task databases."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

from odc_stats_gpu import __version__
from odc_stats_gpu.engine._device import Device, open_device
from odc_stats_gpu.engine._fetch import local_database
from odc_stats_gpu.engine._gpus import own_gpu
from odc_stats_gpu.engine._job import TaskJob
from odc_stats_gpu.engine._limits import Limits, read_limits
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.ingest import TilePlan, plan_tile
from odc_stats_gpu.model import (
    OutputProduct,
    Plugin,
    Product,
    RunConfig,
    RunInfo,
    Task,
    TileIndex,
    set_read_access,
)
from odc_stats_gpu.output import Store, open_store
from odc_stats_gpu.plugins import load_plugin
from odc_stats_gpu.tasks import TaskDb

_SOFTWARE = ("odc-stats-gpu", "numpy", "numba", "rasterio", "xarray", "odc-geo")


_KEPT = 8
"""Databases open at the same time."""


@dataclass(slots=True)
class _Databases:
    """Each version of a database is opened once and kept, the latest few."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while one is read: another thread may make it close."""
    opened: dict[str, tuple[str, TaskDb]] = field(default_factory=dict)
    """By address, with what tells the version; the longest unused first."""

    def get(self, address: str, *, fresh: bool) -> TaskDb:
        """`fresh`: look whether it was replaced meanwhile."""
        with self.lock:
            known, database = self.opened.pop(address, ("", None))
            if database is None or fresh:
                path = local_database(address)
                version = _version(path)
                if database is not None and version != known:
                    database.close()
                    database = None
                if database is None:
                    known, database = version, TaskDb.open(path)
            self.opened[address] = (known, database)
            while len(self.opened) > _KEPT:
                self.opened.pop(next(iter(self.opened)))[1].close()
            return database


def _version(path: str) -> str:
    """What changes when another file takes this one's place."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - a path as text
    except (OSError, ValueError):
        return path  # to open it will tell
    return f"{path} {stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


_databases = _Databases()
_current: dict[str, Session] = {}
_making = threading.Lock()
"""Held while one is made: two threads must not get two devices."""


def open_database(address: str) -> TaskDb:
    """The task database, opened once per process and fetched if need be.

    Raises ConfigError, DataError or StoreError.
    """
    return _databases.get(address, fresh=False)


class Session:
    """A validated configuration with what it names; raises ConfigError as soon as one is wrong."""

    def __init__(self, config: RunConfig, device: Device | None = None) -> None:
        """`device`: to plan with; None: the one that computes."""
        set_read_access(unsigned=config.aws_unsigned, requester_pays=config.requester_pays)
        self.config = config
        self.stored: dict[str, int] = {}
        """Per product: pixels of the tile along the side of a block of its files."""
        self._planned: TilePlan | None = None
        self.halvings = 0
        """How often blocks had to be halved because device memory ran out."""
        self.limits: Limits = read_limits(config.memory_limit)
        self.threads = config.threads if config.threads > 0 else self.limits.cpus
        self.plugin: Plugin = load_plugin(
            _plugin_name(config), _plugin_config(config), numerics=config.numerics
        )
        self.product = _product(config, self.plugin)
        self.location = self.product.expand_location(config.output_location)
        if not self.location:
            raise ConfigError(
                "no output location", "give --location DIR or output_location in the configuration"
            )
        acl = config.s3_acl or ("public-read" if config.s3_public else None)
        self.store: Store = open_store(self.location, acl=acl)
        self.device, self.why_cpu = (device, "") if device else open_device(config.device)

    @cached_property
    def info(self) -> RunInfo:
        """What metadata says of this run."""
        software = {}
        for name in _SOFTWARE:
            try:
                software[name] = __version__ if name == "odc-stats-gpu" else version(name)
            except PackageNotFoundError:
                continue
        return RunInfo(software, self.device.name, self.config.hash)

    @cached_property
    def gpu(self) -> str:
        """UUID of the GPU that computes; empty without one."""
        return "" if self.device.on_host else own_gpu()

    def check_products(self, products: Mapping[str, Product]) -> None:
        """Ask the plugin about every input product: unknown bands and classes are found here."""
        for product in products.values():
            self.plugin.inputs(product)
        if products:
            self.plugin.output_bands(products)

    def task(self, job: TaskJob) -> Task:
        """The task of a job; raises ConfigError, DataError or StoreError.

        A run keeps to the database as it was at the start; a message from a queue means the one
        that is at its address now.
        """
        if job.task is not None:
            return job.task
        with _databases.lock:
            return _databases.get(job.filedb, fresh=job.guarded).task(
                TileIndex.parse(job.tile),
                self.product,
                resolution=self.config.resolution,
                dataset_filters=self.config.dataset_filters,
            )

    def plan_ahead(self, job: TaskJob) -> None:
        """Read and plan a tile that may be made next; from another thread than the one at work."""
        task = self.task(job)
        self._planned = plan_tile(task, self.plugin, threads=self.threads)

    def plan(self, task: Task) -> TilePlan:
        """What reading the tile takes: made ahead, when the task is still the same, or now."""
        planned, self._planned = self._planned, None
        if planned is not None and planned.task == task:
            return planned
        return plan_tile(task, self.plugin, threads=self.threads)


def session_for(config: RunConfig) -> Session:
    """The session of that configuration, kept for the next tile of the same run."""
    key = config.model_dump_json()
    with _making:
        if key not in _current:
            _current.clear()
            _current[key] = Session(config)
        return _current[key]


def _plugin_name(config: RunConfig) -> str:
    if not config.plugin:
        raise ConfigError("no plugin given", "give --plugin gm-ls or plugin in the configuration")
    return config.plugin


def _plugin_config(config: RunConfig) -> dict[str, object]:
    """The plugin's own keys, and those that real configurations write one level too high."""
    out = dict(config.plugin_config)
    for key in ("transform_code", "area_of_interest"):
        value = getattr(config, key)
        if value is not None:
            out.setdefault(key, value)
    return out


def _product(config: RunConfig, plugin: Plugin) -> OutputProduct:
    """The product block with the plugin's defaults filled in."""
    given = config.product.model_dump(exclude_defaults=True) if config.product else {}
    defaults = {
        "name": plugin.name,
        "short_name": plugin.short_name,
        "version": plugin.version,
        "product_family": plugin.product_family,
    }
    return OutputProduct(**{**defaults, **given})
