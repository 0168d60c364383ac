"""Kernels compiled ahead: found by what a launch asks for, taken as they are, else compiled."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import sass
from numba.cuda import codegen, dispatcher
from numba.cuda.typing.typeof import Purpose, typeof

from odc_stats_gpu import kernels
from odc_stats_gpu.kernels import SimulatedDeviceArray, _cuda_ahead, _cuda_launch, compile_ahead
from odc_stats_gpu.kernels.geomedian import cuda as geomedian

TARGETS = [(7, 5), (9, 0)]


class CompilerUsedError(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One small kernel for two targets."""
    keep = dispatcher.get_current_device, codegen.CUDACodeLibrary._ensure_cc
    place = tmp_path_factory.mktemp("cubins")
    for one in compile_ahead.wanted(TARGETS, "count_true int16 C"):
        compile_ahead.compile_one(one, place)
    dispatcher.get_current_device, codegen.CUDACodeLibrary._ensure_cc = keep
    return place


@pytest.fixture
def wanted(folder, monkeypatch):
    """The kernel, declared anew as a worker on an H100 does, with no compiler."""
    monkeypatch.setenv("ODC_STATS_CUBINS", str(folder))
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda _, cc: cc or (9, 0, "a"))
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda _: None)

    def compiler(*_, **__):
        raise CompilerUsedError

    monkeypatch.setattr(dispatcher._Kernel, "__init__", compiler)
    (found,) = compile_ahead.wanted(TARGETS, "count_true int16 C")
    return found


def test_nothing_is_compiled_again(wanted):
    found = wanted.dispatcher.compile(wanted.types)
    assert found.argument_types == wanted.types
    assert wanted.dispatcher.overloads[wanted.types] is found
    machine = {t: bytes(c.code) for t, c in found.library._cubin_cache.items()}
    assert set(machine) == {(7, 5, ""), (9, 0, "a")}
    assert machine[7, 5, ""] != machine[9, 0, "a"]
    for cubin in machine.values():
        assert found.entry_name.encode() in cubin
        code = sass.disassemble(cubin)
        assert any(i.opcode.startswith("STG") for i in code), "it writes its result"
    assert not found.library.llvm_strs


def test_a_device_of_another_target_compiles(wanted, monkeypatch):
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda _, cc: cc or (8, 7, ""))
    with pytest.raises(CompilerUsedError):
        wanted.dispatcher.compile(wanted.types)


def test_a_device_that_refuses_compiles(wanted, monkeypatch, caplog):
    def refuse(_):
        raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")

    monkeypatch.setattr(dispatcher._Kernel, "bind", refuse)
    caplog.set_level("DEBUG", _cuda_ahead.__name__)
    with pytest.raises(CompilerUsedError):
        wanted.dispatcher.compile(wanted.types)
    assert "NO_BINARY" in caplog.text
    assert {r.levelname for r in caplog.records} == {"DEBUG"}


def test_a_broken_file_compiles(wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("ODC_STATS_CUBINS", str(tmp_path))
    (tmp_path / wanted.file).write_bytes(b"half a fi")
    (again,) = compile_ahead.wanted(TARGETS, "count_true int16 C")
    with pytest.raises(CompilerUsedError):
        again.dispatcher.compile(again.types)


def test_other_sources_or_versions_have_other_files(wanted, monkeypatch):
    before = wanted.file
    monkeypatch.setattr(_cuda_ahead, "_everything", lambda: "other sources")
    assert wanted.file != before


def test_without_the_folder_numba_is_as_ever(monkeypatch):
    monkeypatch.delenv("ODC_STATS_CUBINS", raising=False)
    (found,) = compile_ahead.wanted(TARGETS, "count_true int16 C")
    assert type(found.dispatcher._cache) is dispatcher.NullCache


@pytest.fixture
def launched(monkeypatch):
    """File names that launches on a device would look for."""
    names = []

    def look(function, _grid, _block, arguments, _shared):
        types = tuple(
            typeof(np.asarray(a) if isinstance(a, np.ndarray) else a, Purpose.argument)
            for a in arguments
        )
        variant = variants.get(id(function), "")
        names.append(
            _cuda_ahead.entry(function.py_func, variant, types, function.targetoptions)
        )  # fmt: skip

    variants = {}
    real = geomedian.compiled

    def compiled(bands, lanes, kind, on_chip):
        function = real(bands, lanes, kind, on_chip)
        variants[id(function)] = geomedian.variant_name(lanes, on_chip)
        return function

    monkeypatch.setattr(geomedian, "compiled", compiled)
    monkeypatch.setattr(_cuda_launch, "simulate", look)
    return names


def device(array):
    return array.view(SimulatedDeviceArray)


@pytest.fixture(scope="module")
def files():
    return {one.file: one.name for one in compile_ahead.wanted(TARGETS)}


@pytest.mark.parametrize("kind", ["int16", "uint16"])
@pytest.mark.parametrize("bands", [6, 10])
def test_a_launch_of_the_geomedian_asks_for_a_file_that_is_written(bands, kind, launched, files):
    stack = np.zeros((bands, 5, 4, 6), kind)
    kernels.geomad(device(stack), -999 if kind == "int16" else 0)
    kernels.geomad(device(stack)[..., 1:], [0] * bands)
    whole, part = [files[name] for name in launched]
    assert whole == f"geomad {bands} {kind} C 1 lanes on chip"
    assert part == f"geomad {bands} {kind} A 1 lanes on chip"


@pytest.mark.parametrize("kind", ["int16", "uint16"])
def test_launches_of_the_others_ask_for_files_that_are_written(kind, launched, files):
    image = device(np.zeros((3, 20, 24), kind))
    flags = device(np.zeros((2, 20, 24), np.uint8))
    lattice = kernels.refine(lambda x, y: (0.7 * x + 3, 0.7 * y + 2), (9, 8))
    for method in ("nearest", "bilinear", "cubic", "average"):
        kernels.warp(image, 0, lattice, method)
    kernels.warp(flags, 0, lattice, "nearest")
    kernels.nearest_onto(image, device(np.arange(5)), device(np.arange(5)))
    kernels.decode_enum(flags, [2, 3])
    kernels.mask_where(image, flags[0] == 1, 0)
    kernels.clean_mask(flags == 1, [("opening", 2), ("dilation", 5)])
    kernels.first_valid(image, 0)
    kernels.any_true(flags == 1)
    kernels.count_true(flags == 1)
    missing = [k for k, name in enumerate(launched) if name not in files]
    assert len(launched) >= 12
    assert not missing


def test_the_command_names_targets_it_does_not_know(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compile_ahead"])
    with pytest.raises(SystemExit) as caught:
        compile_ahead.main(["out", "--targets", "9.9"])
    assert caught.value.code == 2
    assert "unknown target '9.9', known: 7.5 8.0" in capsys.readouterr().err


def test_the_command_compiles_in_processes_of_its_own(tmp_path, capsys):
    compile_ahead.main(
        [str(tmp_path), "--targets", "8.9", "--only", "any_true int16 C", "--jobs", "1"]
    )
    assert "1 kernels" in capsys.readouterr().out
    (written,) = tmp_path.iterdir()
    assert list(_cuda_ahead.load(written).library._cubin_cache) == [(8, 9, "")]
