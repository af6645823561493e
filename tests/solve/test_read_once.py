"""Elements that loops read several times are read once: where they stay the same, and nowhere else."""

import textwrap

import pytest

from effdyn.solve.kernels.read_once import NAME, read_once


def rewritten(text: str) -> str:
    text = textwrap.dedent(text).strip("\n")
    return "\n".join(read_once(text.splitlines(), NAME.findall(text)))


def unchanged(text: str) -> bool:
    return rewritten(text) == textwrap.dedent(text).strip("\n")


def test_an_element_has_its_name_where_it_stays_the_same() -> None:
    """C[i, k] is the same for all u, and is read before that loop."""
    found = rewritten(
        """
        for i in range(K):
            for k in range(i, K):
                s1 = 0.0
                for u in range(N):
                    s1 += work[C + i*N + k]*work[C + i*N + k]*work[C + k*N + u]
                out[p] = s1
                p += 1
        """
    )
    assert found.splitlines()[2:6] == [
        "        s1 = 0.0",
        "        C_ik = work[C + i*N + k]",
        "        for u in range(N):",
        "            s1 += C_ik*C_ik*work[C + k*N + u]",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "for u in range(N):\n    work[row + u] = work[C + u]",  # read once
        "t1 = work[c]*work[c]",  # in no loop
        "for u in range(N):\n    work[C + u] += work[C + u]*work[C + u]",  # changes
        "for u in range(N):\n    for v in range(N):\n        work[C + v] = 1.0\n    s += work[C + u]*work[C + u]",
        "for u in range(N):\n    at += 1\n    s += work[row + at]*work[row + at]",  # is elsewhere each time
        "for u in range(N):\n    f1 = work[gather + u]*work[gather + u]",
        "for u in range(N):\n    fill(work, C)\n    s += work[C + u]*work[C + u]",  # may change
        "for u in range(N):\n    if u == 0:\n        s += par[a + u]*par[a + u]",
    ],
)
def test_what_changes_or_is_read_once_stays(text: str) -> None:
    assert unchanged(text)


def test_an_element_written_in_a_loop_around_has_its_name_inside() -> None:
    found = rewritten(
        """
        for i in range(K):
            work[row + i] = 2.0
            for u in range(N):
                s += work[row + i]*work[row + i]
        """
    )
    assert "        row_i = work[row + i]\n        s += row_i*row_i" in found


def test_names_mean_one_element_each() -> None:
    """Elements at K + n and at n are two, and a name that has a meaning is not taken."""
    found = rewritten(
        """
        C_n = 1.0
        for n in range(M):
            s += work[C + K + n]*work[C + K + n]*work[C + n]*work[C + n]*C_n
        """
    )
    assert "s += C_n_*C_n_*C_n__*C_n__*C_n" in found


def test_loops_inside_of_what_is_left_alone_are_read_once() -> None:
    found = rewritten(
        """
        if stage == 0:
            call(
                work, par,
            )
            for u in range(N):
                s += par[a + u]*par[a + u]  # a remark
        """
    )
    assert found.splitlines()[-3:] == [
        "    for u in range(N):",
        "        a_u = par[a + u]",
        "        s += a_u*a_u  # a remark",
    ]
