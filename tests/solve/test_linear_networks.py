"""Reductions of linear networks against the flow of every weight, and that against SciPy with matrices as they are."""

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from effdyn import solve
from effdyn.derive import LinearNetwork

TIGHT = {"rtol": 1e-13, "atol": 1e-15}
T_EVAL = np.linspace(0, 2, 5)
CLOSE = 1e-10
"""What two integrations at rtol 1e-13 may differ by, for flows of O(1) over O(1) times: 1000 steps' local errors."""


def data(rng, n=9, d=5, m=3):
    """X, Y with singular values of X about 1."""
    return rng.standard_normal((n, d)) / np.sqrt(n), rng.standard_normal((n, m)) / np.sqrt(n)


def layers(rng, *widths, scale=0.7):
    return [scale * rng.standard_normal((b, a)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]


def flow(ws, s_xx, s_yx, rates, mu, times):
    """Integrate the full flow with NumPy's products: an implementation that shares nothing with the derivation."""
    shapes = [w.shape for w in ws]
    cuts = np.cumsum([w.size for w in ws])[:-1]

    def rhs(_, y):
        w = [part.reshape(shape) for part, shape in zip(np.split(y, cuts), shapes, strict=True)]
        total = np.linalg.multi_dot([*w[::-1], np.eye(s_xx.shape[0])]) if len(w) > 1 else w[0]
        g = s_yx - total @ s_xx
        out = []
        for n in range(len(w)):
            above, below = np.eye(len(g)), np.eye(s_xx.shape[0])
            for other in w[:n:-1]:
                above = above @ other
            for other in w[:n]:
                below = other @ below
            out.append((rates[n] * (above.T @ g @ below.T - mu * w[n])).ravel())
        return np.concatenate(out)

    y0 = np.concatenate([w.ravel() for w in ws])
    y = solve_ivp(rhs, (0, times[-1]), y0, "DOP853", times, rtol=1e-13, atol=1e-15).y.T
    return [part.reshape(-1, *shape) for part, shape in zip(np.split(y, cuts, axis=1), shapes, strict=True)]


def correlations(x, y):
    return {"S_xx": x.T @ x, "S_yx": y.T @ x}


def close(a, b, tolerance=CLOSE):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=tolerance)


@pytest.mark.parametrize("widths", [(5, 3), (5, 4, 3), (5, 1, 3), (5, 2, 6, 3), (5, 4, 2, 3, 3)])
@pytest.mark.parametrize(("rates", "weight_decay"), [("equal", False), ("layerwise", True)])
def test_full_flow(rng, widths, rates, weight_decay):
    x, y = data(rng)
    ws = layers(rng, *widths)
    eta = rng.uniform(0.5, 2, len(ws)) if rates == "layerwise" else np.ones(len(ws))
    mu = 0.3 if weight_decay else 0.0
    net = LinearNetwork(depth=len(ws), rates=rates, weight_decay=weight_decay)
    params = correlations(x, y) | {"s_yy": (y**2).sum()} | ({"mu": mu} if weight_decay else {})
    params |= {f"eta_{n + 1}": e for n, e in enumerate(eta)} if rates == "layerwise" else {}
    sol = solve.integrate(
        net.dynamics(), (0, 2), y0={f"W{n + 1}": w for n, w in enumerate(ws)}, params=params, t_eval=T_EVAL, **TIGHT
    )
    expected = flow(ws, x.T @ x, y.T @ x, eta, mu, T_EVAL)
    for n, w in enumerate(expected):
        close(sol[f"W{n + 1}"], w)
    close(sol.loss, [0.5 * ((y - x @ w.T) ** 2).sum() for w in sol.W.values], 1e-13)


@pytest.mark.parametrize("h", [1, 4, 9])
def test_gram_closure_for_under_determined_data(rng, h):
    x, y = data(rng, n=3, d=6, m=2)
    first, second = layers(rng, 6, h, 2)
    w1, w2 = flow([first, second], x.T @ x, y.T @ x, [1, 1], 0, T_EVAL)
    basis = eigenbasis(x, y)
    u1, u2 = basis["phi_1"].T @ first.T, basis["phi_2"].T @ first.T
    y0 = {"P": u1 @ u1.T, "S": u1 @ second.T, "R": second @ second.T, "P_null": u1 @ u2.T, "S_null": u2 @ second.T}
    params = {"delta": basis["delta"], "C": basis["C"]}
    net = LinearNetwork(depth=2)
    sol = solve.integrate(net.dynamics("gram-null"), (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)
    small = {name: y0[name] for name in "PSR"}
    gram = solve.integrate(net.dynamics("gram"), (0, 2), y0=small, params=params, t_eval=T_EVAL, **TIGHT)
    layer = solve.integrate(
        net.dynamics("principal"), (0, 2), y0={"U1": u1, "W2": second}, params=params, t_eval=T_EVAL, **TIGHT
    )
    seen, unseen = w1 @ basis["phi_1"], w1 @ basis["phi_2"]
    for found in (sol, gram):
        close(found.S, np.einsum("thr,tmh->trm", seen, w2))
        close(found.P, np.einsum("thr,ths->trs", seen, seen))
        close(found.R, np.einsum("tmh,tnh->tmn", w2, w2))
    close(sol.S_null, np.einsum("thr,tmh->trm", unseen, w2))
    close(layer.U1, seen.transpose(0, 2, 1))
    close(layer.W2, w2)
    target = np.linalg.pinv(x) @ y
    distance = [np.linalg.norm(a.T @ b.T - target) for a, b in zip(w1, w2, strict=True)]
    close(sol.distance, distance)
    least = 0.5 * ((y - x @ target) ** 2).sum()
    loss = [0.5 * ((y - x @ a.T @ b.T) ** 2).sum() - least for a, b in zip(w1, w2, strict=True)]
    for found in (sol, gram, layer):
        close(found.excess_loss, loss)


def eigenbasis(x, y):
    """δ, C and the eigenvectors of XᵀX with and without data."""
    left, s, right = np.linalg.svd(x)
    rank = int((s > 1e-12).sum())
    return {
        "delta": s[:rank] ** 2,
        "C": s[:rank, None] * (left[:, :rank].T @ y),
        "phi_1": right[:rank].T,
        "phi_2": right[rank:].T,
    }


@pytest.mark.parametrize(("rates", "mu"), [("equal", 0.0), ("layerwise", 0.4)])
def test_gram_closure_with_whitened_inputs_rates_and_decay(rng, rates, mu):
    s_yx = rng.standard_normal((3, 5)) / 2
    first, second = layers(rng, 5, 4, 3)
    eta = [0.6, 1.7] if rates == "layerwise" else [1, 1]
    w1, w2 = flow([first, second], np.eye(5), s_yx, eta, mu, T_EVAL)
    net = LinearNetwork(inputs="whitened", rates=rates, weight_decay=mu > 0)
    params = {"S_yx": s_yx} | ({"eta_1": eta[0], "eta_2": eta[1], "mu": mu} if mu else {})
    y0 = {"P": first.T @ first, "S": first.T @ second.T, "R": second @ second.T}
    sol = solve.integrate(net.dynamics("gram"), (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)
    close(sol.S, np.einsum("thr,tmh->trm", w1, w2))
    close(sol.P, np.einsum("thr,ths->trs", w1, w1))


def test_riccati_for_balanced_layers_and_not_for_others(rng):
    s_yx, lam = rng.standard_normal((4, 4)) / 2, -0.8
    h = 3
    first = rng.standard_normal((h, 4)) / 2
    values, vectors = np.linalg.eigh(first @ first.T + lam * np.eye(h))
    first *= np.sqrt(max(1.0, 1.2 * abs(lam) / np.linalg.eigvalsh(first @ first.T)[0]))
    values, vectors = np.linalg.eigh(first @ first.T + lam * np.eye(h))
    second = np.linalg.qr(rng.standard_normal((4, h)))[0] @ (vectors * np.sqrt(values)) @ vectors.T
    close(second.T @ second - first @ first.T, lam * np.eye(h), 1e-12)
    w1, w2 = flow([first, second], np.eye(4), s_yx, [1, 1], 0, T_EVAL)
    dyn = LinearNetwork(inputs="whitened").dynamics("riccati")

    def integrate(second):
        y0 = {"P": first.T @ first, "S": first.T @ second.T, "R": second @ second.T}
        params = {"S_yx": s_yx, "lam": lam}
        return solve.integrate(dyn, (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)

    close(integrate(second).S, np.einsum("thr,tmh->trm", w1, w2))
    other = second @ np.diag([1.0, 1.3, 0.6])
    w1, w2 = flow([first, other], np.eye(4), s_yx, [1, 1], 0, T_EVAL)
    assert abs(integrate(other).S.values - np.einsum("thr,tmh->trm", w1, w2)).max() > 1e-2


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_modes_strengths_and_chains(rng, depth):
    p, d, m = 3, 5, 4
    right, left = np.linalg.qr(rng.standard_normal((d, p)))[0], np.linalg.qr(rng.standard_normal((m, p)))[0]
    frames = [right, *(np.linalg.qr(rng.standard_normal((p + 1, p)))[0] for _ in range(depth - 1)), left]
    c, delta = rng.uniform(0.5, 1.5, p), rng.uniform(0.5, 2, p)
    s_xx = right @ np.diag(delta) @ right.T + 0.7 * (np.eye(d) - right @ right.T)
    amplitudes = rng.uniform(0.3, 0.9, (depth, p))
    net = LinearNetwork(depth=depth)
    data_ = {"c": c, "delta": delta}

    def whole(amplitudes):
        ws = [frames[n + 1] @ np.diag(amplitudes[n]) @ frames[n].T for n in range(depth)]
        found = flow(ws, s_xx, left @ np.diag(c) @ right.T, np.ones(depth), 0, T_EVAL)
        total = np.stack([np.linalg.multi_dot(w[::-1]) for w in zip(*found, strict=True)])
        return np.einsum("ma,tmd,da->ta", left, total, right)

    def integrate(reduction, y0, params):
        dyn = net.dynamics(reduction)
        return solve.integrate(dyn, (0, 2), y0=y0, params=data_ | params, t_eval=T_EVAL, **TIGHT).s

    expected = whole(amplitudes)
    close(integrate("modes", {f"w{n + 1}": w for n, w in enumerate(amplitudes)}, {}), expected)
    squares = amplitudes**2
    gaps = {f"gap_{n + 1}": squares[n] - squares[0] for n in range(1, depth)}
    close(integrate("chain", {"q": squares[0]}, gaps), expected)
    if depth == 2:
        close(integrate("strengths", {"s": amplitudes.prod(0)}, {"lam": squares[1] - squares[0]}), expected)
    else:
        equal = np.broadcast_to(amplitudes[0], amplitudes.shape)
        close(integrate("strengths", {"s": equal.prod(0)}, {}), whole(equal))


@pytest.mark.parametrize(("depth", "inputs"), [(2, "general"), (3, "general"), (4, "whitened")])
def test_end_to_end_map_of_balanced_layers(rng, depth, inputs):
    d, m, p = 5, 4, 3
    x, y = data(rng, n=8, d=d, m=m)
    s_xx = np.eye(d) if inputs == "whitened" else x.T @ x
    right, left = np.linalg.qr(rng.standard_normal((d, p)))[0], np.linalg.qr(rng.standard_normal((m, p)))[0]
    s = np.array([1.1, 0.6, 0.25])
    frames = [right, *(np.linalg.qr(rng.standard_normal((p, p)))[0] for _ in range(depth - 1)), left]
    ws = [frames[n + 1] @ np.diag(s ** (1 / depth)) @ frames[n].T for n in range(depth)]
    found = flow(ws, s_xx, y.T @ x, np.ones(depth), 0, T_EVAL)
    expected = np.stack([np.linalg.multi_dot(w[::-1]) for w in zip(*found, strict=True)])
    params = {"S_yx": y.T @ x} | ({"S_xx": s_xx} if inputs == "general" else {})
    dyn = LinearNetwork(depth=depth, inputs=inputs).dynamics("end-to-end")
    y0 = {"s": s, "U": left, "V": right}
    sol = solve.integrate(dyn, (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)
    close(sol.W, expected)
    close(np.einsum("tmp,tmq->tpq", sol.U, sol.U), np.broadcast_to(np.eye(p), (len(T_EVAL), p, p)))


@pytest.mark.parametrize("rates", ["equal", "layerwise"])
def test_single_neuron_on_whitened_inputs_as_a_chain(rng, rates):
    target = rng.standard_normal((1, 5))
    w, a = rng.standard_normal((1, 5)) / 4, np.array([[1.8]])  # λ > 0: a cannot vanish
    eta = (0.5, 2.0) if rates == "layerwise" else (1.0, 1.0)
    w1, w2 = flow([w, a], np.eye(5), target, eta, 0, T_EVAL)
    net = LinearNetwork(inputs="whitened", rates=rates)
    params = {"S_yx": target} | ({"eta_1": eta[0], "eta_2": eta[1]} if rates == "layerwise" else {})
    y0, params = solve.reduced_inputs(net, "neuron-chain", {"W1": w, "W2": a}, params)
    sol = solve.integrate(net.dynamics("neuron-chain"), (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)
    close(sol.beta, (w2 @ w1)[:, 0])
    close(sol.y, w2[:, 0, 0] ** -2.0)


@pytest.mark.parametrize("rates", ["equal", "layerwise"])
def test_single_neuron(rng, rates):
    x, y = data(rng, n=3, d=5, m=1)  # under-determined
    w, a = rng.standard_normal((1, 5)) / 2, np.array([[0.8]])
    eta = (0.5, 2.0) if rates == "layerwise" else (1.0, 1.0)
    w1, w2 = flow([w, a], x.T @ x, y.T @ x, eta, 0, T_EVAL)
    net = LinearNetwork(rates=rates)
    params = {"S_xx": x.T @ x, "S_yx": (y.T @ x)[0], "lam": eta[0] * a[0, 0] ** 2 - eta[1] * (w**2).sum()}
    params |= {"eta_1": eta[0], "eta_2": eta[1]} if rates == "layerwise" else {}
    y0 = {"beta": a[0, 0] * w[0]}
    sol = solve.integrate(net.dynamics("neuron"), (0, 2), y0=y0, params=params, t_eval=T_EVAL, **TIGHT)
    close(sol.beta, (w2 @ w1)[:, 0])
    close(sol.a2, w2[:, 0, 0] ** 2)


def test_a_neuron_whose_second_layer_vanishes_is_right_or_says_why_not():
    """λ < 0: a may cross zero, where the equations of β end to hold. Either they got across, or it is an error."""
    net, refused = LinearNetwork(), 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data_ = solve.correlations(rng.standard_normal((4, 3)), rng.standard_normal((4, 1)))
        weights = {"W1": rng.standard_normal((1, 3)), "W2": [[0.1]]}
        y0, params = solve.reduced_inputs(net, "neuron", weights, data_)
        full = solve.integrate(net.dynamics(), (0, 20), t_eval=[20.0], y0=weights, params=data_)
        try:
            sol = solve.integrate(net.dynamics("neuron"), (0, 20), t_eval=[20.0], y0=y0, params=params)
        except solve.Diverged as error:
            assert "before the first time that was to be saved" in str(error) and "assumptions" in str(error)
            refused += 1
        else:
            close(sol.beta, full.W[:, 0], 1e-6)
    assert 0 < refused < 12
