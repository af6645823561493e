"""The speed of kernels rests on vectorised loops, lost without a sound by a check, a branch, a short row.

So what LLVM made of the loops is looked at, whatever the width of this machine's registers.
"""

import re

import pytest

from effdyn import derive, solve
from effdyn.solve.ensembles.lane_kernel import lane_kernel

SQUARE_ROOTS = r"call [^\n]*<\d+ x double> @llvm\.sqrt\.v\d+f64"
"""Of several numbers at once: there is one in each arc sine."""


def compiled(source):
    """Return what LLVM made of a kernel, after optimisation; one from the cache has kept its machine code only."""
    module: dict = {}
    exec(source.replace("cache=True, ", ""), module)
    return module["kernel"].inspect_llvm()


@pytest.fixture(scope="module")
def dynamics():
    return derive.TeacherStudent(activation="erf").dynamics()


def test_the_gathered_arc_sines_become_simd_instructions(dynamics):
    assert re.search(SQUARE_ROOTS, compiled(solve.kernel(dynamics).source)), "not vectorised"


def test_lanes_become_simd_instructions(dynamics):
    code = compiled(lane_kernel(dynamics, {"K": 1, "M": 1}).source)
    assert re.search(SQUARE_ROOTS, code), "not vectorised"
    assert len(re.findall(r"fmul [^\n]*<\d+ x double>", code)) > 20, "the arithmetic around the arc sines is not"


def test_a_branch_in_the_loop_would_be_noticed(dynamics):
    """Python's check for division by zero, which ``error_model="numpy"`` leaves out."""
    source = lane_kernel(dynamics, {"K": 1, "M": 1}).source.replace(
        'error_model="numpy", fastmath={"reassoc"', 'fastmath={"reassoc"'
    )
    assert not re.search(SQUARE_ROOTS, compiled(source))
