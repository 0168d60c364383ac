"""The array type decides which implementation runs."""

from __future__ import annotations

import numpy as np
import pytest

from odc_stats_gpu.kernels import SimulatedDeviceArray, _dispatch, geomad


class DeviceLike:
    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012 - the protocol's name


def test_arrays_select_their_backend():
    host = np.zeros(3)
    assert _dispatch.backend_of(host) == "cpu"
    assert _dispatch.backend_of(host.view(SimulatedDeviceArray)) == "cuda"
    assert _dispatch.backend_of(host.view(SimulatedDeviceArray)[1:]) == "cuda"
    assert _dispatch.backend_of(DeviceLike()) == "cuda"


def test_a_list_is_not_an_array():
    with pytest.raises(TypeError, match=r"NumPy or CuPy arrays, got builtins\.list"):
        geomad([[1, 2]], 0)


def test_an_implementation_is_imported_when_first_used(monkeypatch):
    monkeypatch.setattr(_dispatch, "_TABLE", {})
    monkeypatch.setattr(_dispatch, "_LOADED", {})
    _dispatch.register("root", cpu="math:sqrt", cuda="no.such.module:sqrt")
    assert _dispatch.implementation("root", np.zeros(1))(9.0) == 3
    with pytest.raises(ModuleNotFoundError):
        _dispatch.implementation("root", DeviceLike())
    _dispatch.register("host only", cpu="math:sqrt")
    with pytest.raises(NotImplementedError, match="host only has no cuda"):
        _dispatch.implementation("host only", DeviceLike())
