"""Python's own parser, one thread at a time.

CPython 3.11 counts the depth of the tree it builds in one place for all threads. Where a collection of garbage lets
another thread parse meanwhile, either may end with ``SystemError: AST constructor recursion depth mismatch``:
https://github.com/python/cpython/issues/106905.
"""

import ast
import threading

_parsing = threading.Lock()


def parsed(text: str) -> ast.Module:
    """Return the syntax tree of Python statements."""
    with _parsing:
        return ast.parse(text)


def parsed_expression(text: str) -> ast.expr:
    """Return the syntax tree of one expression."""
    with _parsing:
        return ast.parse(text, mode="eval").body
