"""Functions rewritten so that floating point neither overflows nor cancels where the node of a rule lies far out.

The values are the same; only the way to them changes.
"""

import sympy


def stable(f: sympy.Expr) -> sympy.Expr:
    """Return a function as it is best computed.

    Examples
    --------
    >>> x = sympy.Symbol("x", real=True)
    >>> stable(sympy.log(1 + sympy.exp(x)))
    x/2 + log(1 + exp(-Abs(x))) + Abs(x)/2
    >>> stable(1 / (1 + sympy.exp(-x)))
    tanh(x/2)/2 + 1/2
    >>> stable(sympy.diff(1 / (1 + sympy.exp(-x)), x))
    (1/2 - tanh(x/2)/2)*(tanh(x/2)/2 + 1/2)
    """
    if not f.args:
        return f
    if isinstance(f, sympy.Mul) and (better := _logistic(f)) is not None:  # while numerator and denominator are whole
        return better
    f = f.func(*(stable(a) if isinstance(a, sympy.Expr) else a for a in f.args))
    for kind, rule in RULES:
        if isinstance(f, kind) and (better := rule(f)) is not None:
            return better
    return f


def _softplus(f: sympy.Expr) -> sympy.Expr | None:
    """log(1 + e^g) = max(g, 0) + log(1 + e^(−|g|))."""
    g = _one_plus_exp(f.args[0])
    return None if g is None else (g + sympy.Abs(g)) / 2 + sympy.log(1 + sympy.exp(-sympy.Abs(g)))


def _logistic(f: sympy.Expr) -> sympy.Expr | None:
    """e^(kg) / (1 + e^g)^n = σ(g)^k σ(−g)^(n−k), where σ(g) = (1 + tanh(g/2))/2."""
    for power in sympy.Mul.make_args(f):
        base, exponent = power.as_base_exp()
        g = _one_plus_exp(base)
        if g is None or not (exponent.is_Integer and exponent < 0):
            continue
        rest = sympy.Mul(*(a for a in sympy.Mul.make_args(f) if a is not power))
        tops = [a for a in sympy.Mul.make_args(rest) if isinstance(a, sympy.exp)]
        k = sympy.S.Zero
        for top in tops:
            ratio = sympy.cancel(top.args[0] / g)
            if ratio.is_Integer and 0 < ratio <= -exponent:
                k, rest = ratio, sympy.Mul(*(a for a in sympy.Mul.make_args(rest) if a is not top))
                break
        up, down = ((1 + sign * sympy.tanh(g / 2)) / 2 for sign in (1, -1))
        return stable(rest) * up**k * down ** (-exponent - k)
    return None


def _one_plus_exp(e: sympy.Expr) -> sympy.Expr | None:
    """Return g if e is 1 + exp(g)."""
    if isinstance(e, sympy.Add) and len(e.args) == 2 and sympy.S.One in e.args:
        rest = e - 1
        return rest.args[0] if isinstance(rest, sympy.exp) else None
    return None


def _sech(f: sympy.Expr) -> sympy.Expr:
    """1/cosh(x) = 2 e^(−|x|)/(1 + e^(−2|x|))."""
    decay = sympy.exp(-sympy.Abs(f.args[0]))
    return 2 * decay / (1 + decay**2)


def _asinh(f: sympy.Expr) -> sympy.Expr:
    """asinh(x) = sign(x) log(|x| + √(1 + x²))."""
    x = f.args[0]
    return sympy.sign(x) * sympy.log(sympy.Abs(x) + sympy.sqrt(1 + x**2))


RULES = (
    (sympy.log, _softplus),
    (sympy.Pow, _logistic),
    (sympy.sech, _sech),
    (sympy.asinh, _asinh),
    (sympy.cosh, lambda f: (sympy.exp(f.args[0]) + sympy.exp(-f.args[0])) / 2),
    (sympy.sinh, lambda f: (sympy.exp(f.args[0]) - sympy.exp(-f.args[0])) / 2),
    (sympy.coth, lambda f: 1 / sympy.tanh(f.args[0])),
)
"""What is rewritten, innermost first."""
