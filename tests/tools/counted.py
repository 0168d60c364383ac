"""A device whose memory is counted: the code around CUDA kernels runs, the kernels do not.

Arrays are host memory of the type that selects the CUDA kernels. Whatever is allocated as such an
array counts as long as it lives: stacks, uploads, results of kernels, and what NumPy makes of them
in passing. Results are zeros.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from odc_stats_gpu.engine._cuda_device import LANES
from odc_stats_gpu.kernels import SimulatedDeviceArray, _cuda_launch


@dataclass
class Count:
    """Bytes alive now, and at the highest of each lane: what one frees, no other one gets."""

    live: Counter = field(default_factory=Counter)
    peaks: Counter = field(default_factory=Counter)
    known: set = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
    here: threading.local = field(default_factory=threading.local)

    @property
    def peak(self):
        return sum(self.peaks.values())

    @property
    def now(self):
        return sum(self.live.values())

    def add(self, array):
        while isinstance(array.base, np.ndarray):
            array = array.base
        key, size, lane = id(array), array.nbytes, getattr(self.here, "lane", None)
        with self.lock:
            if key in self.known:
                return
            self.known.add(key)
            self.live[lane] += size
            self.peaks[lane] = max(self.peaks[lane], self.live[lane])
        weakref.finalize(array, self.drop, key, size, lane)

    def drop(self, key, size, lane):
        with self.lock:
            self.known.discard(key)
            self.live[lane] -= size


class CountedDevice:
    """As the engine's devices; `on_request(n)` is called before the n-th array is made."""

    name, on_host = "counted", False

    def __init__(self, on_request=lambda _: None):
        self.on_request, self.requests, self.released = on_request, 0, []
        self.count, self.number = Count(), None

    def request(self):
        with self.count.lock:
            self.requests += 1
            number = self.requests
        self.on_request(number)

    def empty(self, shape, dtype):
        self.request()
        return np.zeros(shape, dtype).view(SimulatedDeviceArray)

    def upload(self, array):
        self.request()
        return np.array(array).view(SimulatedDeviceArray)

    def to_host(self, ds):
        return ds.map(lambda band: band.copy(data=np.array(band.data)), keep_attrs=True)

    def lane(self, number):
        lane = copy.copy(self)
        lane.number, lane.request = number % LANES, self.request
        return lane

    @contextmanager
    def active(self):
        before = getattr(self.count.here, "lane", None)
        self.count.here.lane = self.number
        try:
            yield
        finally:
            self.count.here.lane = before

    def memory(self):
        return None

    def exhausted(self, error):
        return isinstance(error, MemoryError)

    def release(self):
        self.released.append(self.count.now)


def counting(monkeypatch, device):
    """Count from now on what `device` and the CUDA kernels allocate."""

    def born(self, _parent):
        device.count.add(self)

    monkeypatch.setattr(SimulatedDeviceArray, "__array_finalize__", born)
    monkeypatch.setattr(_cuda_launch, "simulate", lambda *_: None)
    monkeypatch.setattr(
        _cuda_launch._Simulated,
        "empty",
        lambda _, shape, dtype: np.zeros(shape, dtype).view(SimulatedDeviceArray),
    )
