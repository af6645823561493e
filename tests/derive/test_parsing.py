"""Formulas and sources can be read by several threads at once."""

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from effdyn.derive.parsing import parsed, parsed_expression

SOURCE = "\n".join(f"x{n} = (a + b*{n})*(c[{n}*N + i]**2 - f(d, {n}))" for n in range(300))


@pytest.fixture
def restless():
    """Every collection of garbage hands over to another thread, as it may: without this it is one in thousands."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def callback(*_):
        sum(range(20))

    sys.setswitchinterval(1e-6)
    gc.set_threshold(200)
    gc.callbacks.append(callback)
    yield
    gc.callbacks.remove(callback)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_threads_may_parse_at_once():
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(parsed, [SOURCE] * 60))
    assert all(len(tree.body) == 300 for tree in trees)


def test_statements_and_expressions():
    assert ast.dump(parsed("x = y + 1")) == ast.dump(ast.parse("x = y + 1"))
    assert ast.unparse(parsed_expression("y+1")) == "y + 1"
    with pytest.raises(SyntaxError):
        parsed_expression("y +")
