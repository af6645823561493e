"""Balanced layers: the map W = W_N … W_1 alone, in SVD form W = U diag(s) Vᵀ.

Arora, Cohen & Hazan (2018); Bah et al. (2021). Balanced layers W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ share singular vectors and
have singular values s^(1/N), so that W' is a function of W; singular vectors and values then move as those of any
moving matrix do.
"""

import sympy

from ..dynamics import Dynamics, Equation, Quantity, Step
from ..errors import ModelError
from .indexed import entry, index
from .modes import P, check_plain
from .network import ANY_GRADIENT as G
from .network import D, LinearNetwork, M
from .reduction import Described, I, J, axis, dynamics, quantity, step
from .words import Letter, Matrix, Word, derivative, identity, product, rewrite, substitute

U, V = Letter("U", M, P), Letter("V", D, P)
ROOT = Letter("root", P, P, diagonal=True)
S = Quantity("s", (I,), (P,), "s", "singular values of the map", minimum=0.0, dims=("mode",))
B_IK, B_KI = sympy.symbols("b_ik b_ki", real=True)
ORTHONORMAL: dict[Word, Matrix] = {((frame, True), (frame, False)): identity(P) for frame in (U, V)}
DESCRIBED = {
    U: Described("U", "left singular vectors of the map, as columns"),
    V: Described("V", "right singular vectors of the map, as columns"),
}


def end_to_end_rate(network: LinearNetwork) -> Matrix:
    """Return W' in the singular vectors and the N-th roots of the singular values of W, for any loss.

    ``G`` is minus the gradient of the loss with respect to W; Σ_j (W Wᵀ)^((j-1)/N) G (Wᵀ W)^((N-j)/N).
    """
    frames = (V, *(Letter(f"R{n}", size, P) for n, size in enumerate(network.sizes[1:-1], 1)), U)
    values = {layer: frames[n + 1].matrix @ ROOT.matrix @ frames[n].matrix.T for n, layer in enumerate(network.layers)}
    rules: dict[Word, Matrix] = {((frame, True), (frame, False)): identity(P) for frame in frames}
    return rewrite(substitute(derivative(network.end_to_end, network.flow_of_any_loss), values), rules)


def end_to_end(network: LinearNetwork) -> Dynamics:
    """Return the motion of the singular values and vectors of the map of balanced layers."""
    check_plain(network, "end-to-end")
    if network.depth < 2:
        raise ModelError("reduction", "end-to-end", "at least two layers; one layer is its own map: reduction='full'")
    rate = end_to_end_rate(network)
    map_ = U.matrix @ _power(network.depth) @ V.matrix.T
    minus_gradient = network.data_matrix - map_ @ network.input_correlation
    drift = [
        Equation(S, _singular_value_rate(network, minus_gradient)),
        Equation(quantity(U, DESCRIBED[U]), _vector_rate(network, rate, minus_gradient, left=True)),
        Equation(quantity(V, DESCRIBED[V]), _vector_rate(network, rate, minus_gradient, left=False)),
    ]
    computed = Quantity(
        "W", (I, J), (M, D), "W", "the map that the network computes, U diag(s) Vᵀ", dims=(axis(M), axis(D))
    )
    return dynamics(
        title=f"{network.name}, balanced: singular values and vectors of its map",
        drift=drift,
        parameters=network.data_parameters,
        observables=[Equation(computed, _in_strengths(network, entry(map_, I, J)))],
        assumptions=(
            "gradient flow: the limit of small learning rates",
            "balanced layers, W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ, at all times if at the first",
            "singular values that differ and do not vanish",
        ),
        steps=[
            step("Gradient flow", "Cyclic derivatives of the loss.", network.flow),
            step("The map", "Its derivative, with W_l = R_l diag(s^(1/N)) R_{l-1}ᵀ.", {Letter("W", M, D): rate}),
            _rotations(network),
        ],
        model=network,
        reduction="end-to-end",
    )


def _power(n: int) -> Matrix:
    """Return diag(s) of a network of n layers: the n-th power of the roots."""
    return product([ROOT.matrix] * n, identity(P))


def _in_frames(network: LinearNetwork) -> sympy.Expr:
    """Return A(x, y) in (Uᵀ W' V)_ik = A(x, y) (Uᵀ G V)_ik, x and y the roots of s_i and s_k."""
    x, y = sympy.symbols("x y", positive=True)
    total = sympy.S.Zero
    for word, c in rewrite(U.matrix.T @ end_to_end_rate(network) @ V.matrix, ORTHONORMAL).terms:
        place = word.index((G, False))
        total += c * x ** word[:place].count((ROOT, False)) * y ** word[place:].count((ROOT, False))
    return total


def _rotation(network: LinearNetwork) -> tuple[sympy.Expr, sympy.Expr]:
    """Return the angular velocities Ω_ik of left and right singular vectors, U' = U Ω, in x, y and b = Uᵀ G V.

    They solve (Uᵀ W' V)_ik = Ω^U_ik s_k − s_i Ω^V_ik and the same for (k, i), with Ω antisymmetric.
    """
    x, y = sympy.symbols("x y", positive=True)
    left, right = sympy.symbols("Omega_U Omega_V")
    s_i, s_k, a = x**network.depth, y**network.depth, _in_frames(network)
    equations = (a * B_IK - left * s_k + s_i * right, a * B_KI + left * s_i - s_k * right)
    (solution,) = sympy.solve(equations, (left, right), dict=True)
    denominator = y**2 - x**2
    return tuple(_over(solution[omega], denominator) for omega in (left, right))


def _over(expr: sympy.Expr, denominator: sympy.Expr) -> sympy.Expr:
    """Return the expression as a polynomial over this denominator, which it is."""
    numerator = sympy.cancel(sympy.together(expr) * denominator)
    assert numerator.is_polynomial(), numerator
    return sympy.collect(sympy.expand(numerator), (B_IK, B_KI)) / denominator


def _rotations(network: LinearNetwork) -> Step:
    """Return the stage at which the motion of singular vectors is found, for the reader."""
    left, right = sympy.Symbol("Omega_U"), sympy.Symbol("Omega_V")
    explanation = (
        "In the frame of singular vectors, b = UᵀGV, x and y the N-th roots of s_i and s_k: the angular velocities of "
        "the vectors; outside their span they move by (1 − UUᵀ) W' V s⁻¹."
    )
    return Step("Singular vectors", explanation, tuple(zip((left, right), _rotation(network), strict=True)))


def _singular_value_rate(network: LinearNetwork, minus_gradient: Matrix) -> sympy.Expr:
    """Return s_i' = (Uᵀ W' V)_ii."""
    x, y = sympy.symbols("x y", positive=True)
    a = _in_frames(network).subs({x: _root(network, I), y: _root(network, I)})
    return sympy.powsimp(a) * _frame_entry(network, minus_gradient, I, I)


def _frame_entry(network: LinearNetwork, minus_gradient: Matrix, i: sympy.Symbol, k: sympy.Symbol) -> sympy.Expr:
    """Return (Uᵀ G V)_ik, its sums over indices that occur nowhere else."""
    return _in_strengths(network, entry(rewrite(U.matrix.T @ minus_gradient @ V.matrix, ORTHONORMAL), i, k))


def _vector_rate(network: LinearNetwork, rate: Matrix, minus_gradient: Matrix, left: bool) -> sympy.Expr:
    """Return the rate of left (or right) singular vectors, at (i, j): component i of vector j."""
    vectors, rate = (U, rate) if left else (V, rate.T)
    other = V if left else U
    outside = rate @ other.matrix - vectors.matrix @ vectors.matrix.T @ rate @ other.matrix
    outside = _without_strength(rewrite(outside, ORTHONORMAL), network.depth)
    outside = rewrite(substitute(outside, {G: minus_gradient}), ORTHONORMAL)
    k = index("o")
    omega = _rotation(network)[0 if left else 1]
    x, y = sympy.symbols("x y", positive=True)
    same = sympy.KroneckerDelta(k, J)
    numerator, denominator = sympy.fraction(omega)
    values = {
        x: _root(network, k),
        y: _root(network, J),
        B_IK: _frame_entry(network, minus_gradient, k, J).subs(same, 0),
        B_KI: _frame_entry(network, minus_gradient, J, k).subs(same, 0),
    }
    base = sympy.IndexedBase(vectors.name, real=True)
    over = (1 - same) / (denominator.subs(values) + same)
    turns = (base[I, k] * over * part.subs(values) for part in sympy.Add.make_args(sympy.expand(numerator)))
    return sympy.Add(*(sympy.Sum(turn, (k, 1, P)) for turn in turns)) + _in_strengths(network, entry(outside, I, J))


def _without_strength(matrix: Matrix, depth: int) -> Matrix:
    """Return the polynomial divided by diag(s) on the right."""
    terms = {}
    for word, c in matrix.terms:
        assert word[-depth:] == ((ROOT, False),) * depth, matrix
        terms[word[:-depth]] = c
    return Matrix.of(terms, matrix.rows, matrix.columns)


def _root(network: LinearNetwork, i: sympy.Symbol) -> sympy.Expr:
    return S.base[i] ** sympy.Rational(1, network.depth)


def _in_strengths(network: LinearNetwork, expr: sympy.Expr) -> sympy.Expr:
    """Return an expression with roots as powers of s."""
    base = sympy.IndexedBase(ROOT.name, real=True)
    return expr.replace(
        lambda e: isinstance(e, sympy.Indexed) and e.base == base, lambda e: _root(network, e.indices[0])
    )
