"""The tool that runs PTX on the CPU: what instructions mean, and what it catches."""

from __future__ import annotations

import numpy as np
import pytest
from ptxhost import PtxKernel, UnknownPtxError, translate

HEAD = """
.version 8.0
.target sm_75
.address_size 64
{shared}
.visible .entry k(
	.param .u64 k_param_0, .param .u64 k_param_1, .param .u64 k_param_2, .param .u64 k_param_3,
	.param .u64 k_param_4, .param .u64 k_param_5, .param .u64 k_param_6
)
{{
	.reg .pred 	%p<9>;
	.reg .b16 	%rs<9>;
	.reg .b32 	%r<30>;
	.reg .f32 	%f<30>;
	.reg .b64 	%rd<30>;
	ld.param.u64 	%rd1, [k_param_4];
	cvta.to.global.u64 	%rd2, %rd1;
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd3, %r1, 4;
	add.s64 	%rd4, %rd2, %rd3;
{body}
	ret;
}}
"""
"""A kernel of a contiguous uint32 array; %rd4: address of the thread's element, %r1 its number."""


def kernel(body, shared=""):
    return PtxKernel(HEAD.format(body=body, shared=shared))


def compute(body, values, dtype=np.uint32, **options):
    """%r2 (also as %f2) is a thread's element; what the body leaves in %r3 takes its place."""
    array = np.array(values, dtype)
    whole = f"ld.global.u32 %r2, [%rd4]; mov.b32 %f2, %r2; {body} st.global.u32 [%rd4], %r3;"
    kernel(whole)(1, array.size, array, **options)
    return array.tolist()


ONES = 0xFFFFFFFF
BRANCH = """
and.b32 %r4, %r2, 1; setp.eq.b32 %p1, %r4, 1; @!%p1 bra $A; mov.u32 %r3, 7; bra.uni $B;
$A:
mov.u32 %r3, 8;
$B:
"""
INSERT = """
mov.u64 %rd9, 5; cvt.u64.u32 %rd8, %r2; bfi.b64 %rd9, %rd8, %rd9, 32, 32; shr.u64 %rd9, %rd9, 32;
cvt.u32.u64 %r3, %rd9;
"""


@pytest.mark.parametrize(
    ("body", "given", "expected"),
    [
        ("shl.b32 %r3, %r2, 33;", [7], [0]),
        ("shr.s32 %r3, %r2, 40;", [1 << 31, 5], [0xFFFFFFFF, 0]),
        ("shr.u32 %r3, %r2, 31;", [1 << 31], [1]),
        ("mul.hi.u32 %r3, %r2, -1;", [3], [2]),
        ("mul.hi.s32 %r3, %r2, -1;", [3], [0xFFFFFFFF]),
        ("mul.wide.s32 %rd9, %r2, -2; shr.u64 %rd9, %rd9, 32; cvt.u32.u64 %r3, %rd9;", [1], [ONES]),
        ("mad.lo.s32 %r3, %r2, 3, -1;", [0, 5], [0xFFFFFFFF, 14]),
        ("prmt.b32 %r3, %r2, 0x77665544, 4180;", [0x33221100], [0x11005544]),
        ("popc.b32 %r3, %r2;", [0xF0F0, 0], [8, 0]),
        ("cvt.u16.u32 %rs1, %r2; cvt.s32.s16 %r3, %rs1;", [0x18000, 0x7FFF], [0xFFFF8000, 0x7FFF]),
        ("setp.lt.s32 %p1, %r2, 0; selp.b32 %r3, 1, 2, %p1;", [0xFFFFFFFF, 1], [1, 2]),
        ("setp.lt.u32 %p1, %r2,5; xor.pred %p1, %p1,-1; selp.b32 %r3, 1, 2, %p1;", [4, 9], [2, 1]),
        ("cvt.rn.f32.s32 %f3, %r2; mov.b32 %r3, %f3;", [16777217, ONES], [0x4B800000, 0xBF800000]),
        (BRANCH, [1, 2], [7, 8]),
        (INSERT, [9], [9]),
        ("mov.b32 {%rs1, %rs2}, %r2; mov.b32 %r3, {%rs2, %rs1};", [0x12000], [0x20000001]),
        ("mov.b32 {_, %rs2}, %r2; cvt.u32.u16 %r3, %rs2;", [0x00012000], [1]),
        ("div.u32 %r3, %r2, 7;", [50], [7]),
        ("max.s32 %r3, %r2, 0;", [0xFFFFFFF0, 5], [0, 5]),
    ],
)  # fmt: skip
def test_integers(body, given, expected):
    assert compute(body, given) == expected


ONE_IF = "selp.f32 %f3, 0f3F800000, 0f00000000, %p1;"


@pytest.mark.parametrize(
    ("body", "given", "expected"),
    [
        ("fma.rn.f32 %f3, %f2, %f2, 0fBF800000;", [1 + 2**-12], [2**-11 + 2**-24]),
        ("mul.f32 %f3, %f2, %f2; add.f32 %f3, %f3, 0fBF800000;", [1 + 2**-12], [2**-11]),
        ("add.ftz.f32 %f3, %f2, 0f00000000;", [1e-39, 1e-37], [0, 1e-37]),
        ("add.f32 %f3, %f2, 0f00000000;", [1e-39], [1e-39]),
        ("max.f32 %f3, %f2, 0f40000000;", [np.nan, 3], [2, 3]),
        ("setp.gtu.f32 %p1, %f2, 0f40000000;" + ONE_IF, [np.nan, 1, 3], [1, 0, 1]),
        ("setp.gt.f32 %p1, %f2, 0f40000000;" + ONE_IF, [np.nan, 1, 3], [0, 0, 1]),
        ("cvt.rzi.s32.f32 %r4, %f2;cvt.rn.f32.s32 %f3, %r4;", [-1.9, 1e20, np.nan], [-1, 2**31, 0]),
        ("rsqrt.approx.ftz.f32 %f3, %f2;", [4, 0], [0.5, np.inf]),
    ],
)  # fmt: skip
def test_floats(body, given, expected):
    got = compute(f"{body} mov.b32 %r3, %f3;", np.float32(given).view(np.uint32), rough=False)
    np.testing.assert_array_equal(np.uint32(got).view(np.float32), np.float32(expected))


def test_approximations_err_as_the_manual_allows():
    x = np.random.default_rng(0).uniform(0.1, 9, 1000).astype(np.float32)
    got = compute("rsqrt.approx.f32 %f3, %f2; mov.b32 %r3, %f3;", x.view(np.uint32), rough=True)
    error = np.uint32(got).view(np.float32) * np.sqrt(x.astype(np.float64)) - 1
    assert 2**-25 < np.abs(error).mean() < np.abs(error).max() < 2**-22
    exact = compute("rsqrt.approx.f32 %f3, %f2; mov.b32 %r3, %f3;", x.view(np.uint32), rough=False)
    assert exact != got


SHARED = ".extern .shared .align 4 .b8 words[];"
PUT = "mov.u64 %rd5, words; add.s64 %rd5, %rd5, %rd3; st.shared.u32 [%rd5], %r1;"
NEXT = """
xor.b32 %r4, %r1, {other}; mul.wide.u32 %rd6, %r4, 4; mov.u64 %rd7, words; add.s64 %rd6, %rd6, %rd7;
"""
GET = "ld.shared.u32 %r3, [%rd6]; st.global.u32 [%rd4], %r3;"


@pytest.mark.parametrize(
    ("between", "other", "race"),
    [
        ("", 1, True),
        ("bar.warp.sync -1;", 1, False),
        ("bar.warp.sync 3;", 1, True),
        ("bar.warp.sync -1;", 32, True),
        ("bar.sync 0;", 32, False),
        ("shfl.sync.bfly.b32 %r9|%p1, %r1, 1, 31, -1;", 1, True),
    ],
)
def test_races(between, other, race):
    array = np.zeros(64, np.uint32)
    run = kernel(PUT + NEXT.format(other=other) + between + GET, SHARED)
    if race:
        with pytest.raises(RuntimeError, match="race, "):
            run(1, 64, array, shared=256)
    else:
        run(1, 64, array, shared=256)
        np.testing.assert_array_equal(array, np.arange(64) ^ other)


def test_lanes_that_write_the_same_together_are_no_race():
    array = np.zeros(32, np.uint32)
    same = """
    mov.u64 %rd5, words; mov.u32 %r3, {value}; st.shared.u32 [%rd5], %r3; ld.shared.u32 %r4, [%rd5];
    """
    kernel(same.format(value="9"), SHARED)(1, 32, array, shared=4)
    with pytest.raises(RuntimeError, match="race, write after"):
        kernel(same.format(value="%r1"), SHARED)(1, 32, array, shared=4)
    # a lane that lags would write the old number again
    twice = same.format(value="9") + same.format(value="8")
    with pytest.raises(RuntimeError, match="race, write after"):
        kernel(twice, SHARED)(1, 32, array, shared=4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("st.global.u32 [%rd4+4], %r1;", "outside all arrays: 4 bytes"),
        ("ld.global.u32 %r3, [%rd2+-4];", "outside all arrays"),
        ("st.global.u32 [%rd4+2], %r1;", "misaligned in global memory"),
        ("mov.u64 %rd5, words; st.shared.u32 [%rd5+16], %r1;", "outside shared memory: 4 bytes"),
        ("mov.u64 %rd5, words; ld.shared.u32 %r3, [%rd5+2];", "misaligned in shared memory"),
        ("setp.eq.s32 %p1, %r1, 0; @%p1 bra $E; bar.sync 0;\n$E:\n", "left block 1"),
        ("setp.eq.s32 %p1, %r1, 0; @%p1 bra $E; bar.warp.sync -1;\n$E:\n bar.sync 0;", "deadlock"),
    ],
)  # fmt: skip
def test_mistakes_are_reported(body, message):
    array = np.zeros(32, np.uint32)
    with pytest.raises(RuntimeError, match=message):
        kernel(body, SHARED)(2, 32, array, shared=16)


def test_what_is_unknown_is_refused_by_name():
    for text in (
        "tanh.approx.f32 %f3, %f2;",
        "add.sat.s32 %r3, %r2, %r1;",
        "ld.local.u32 %r3, [%rd4];",
    ):
        with pytest.raises(UnknownPtxError, match=text.split()[0].replace(".", r"\.")):
            translate(HEAD.format(body=text, shared=""))
    with pytest.raises(UnknownPtxError, match="local"):
        translate(HEAD.format(body="", shared=".local .align 4 .b8 depot[8];"))


def test_arguments_have_to_fill_the_parameters():
    with pytest.raises(TypeError, match="don't fill"):
        kernel("")(1, 32, np.zeros((2, 2), np.uint32))


def test_static_shared_memory_lies_before_the_dynamic_one():
    both = ".shared .align 4 .b8 fixed[12];" + SHARED
    program = translate(HEAD.format(body="mov.u64 %rd5, fixed; mov.u64 %rd6, words;", shared=both))
    assert program.static_shared == 16
    assert "16u" in program.source
