"""Nodes along lines and in planes, in pieces between kinks, as source text for kernels.

The same rule as :mod:`effdyn.derive.numerical.split`, which says what is done and why, but turned inside out: a kernel
evaluates its switching functions at all places at once, so that LLVM vectorises them, and these functions say, stage
after stage, at which places they are needed next.
"""

from effdyn.derive.numerical.split import CELLS, MAP, RIDGE, SOFT, SPARE, STEPS

A, B, C, D = MAP

STAGES = {"lines": STEPS + 2, "planes": 2 * STEPS + 4}
"""How often switching functions are evaluated at new places, by the kind of rule."""
CANDIDATES = 6
"""How many cells of a grid in a plane are looked into, times the number of crossings that a plane may have."""

GEOMETRY = f'''
@njit(error_model="numpy", fastmath={{"contract", "nsz"}}, forceinline=True)
def line_place(t):
    """How far out the place t of a line is."""
    u = t * t
    return t * ({A} + u * ({B} + u * {C})) / (1.0 + {D} * u)


@njit(error_model="numpy", fastmath={{"contract", "nsz"}}, forceinline=True)
def line_stretch(t):
    """The derivative of line_place."""
    u = t * t
    below = 1.0 + {D} * u
    return ({A} + u * ({3 * B - A * D!r} + u * ({5 * C + B * D!r} + u * {3 * C * D!r}))) / (below * below)


@njit(error_model="numpy")
def mirrored(work, point, way, axis, size):
    """Mirror a point so that the axis falls on a unit vector, pointing back."""
    if work[way + axis] <= 1e-12 - 1.0:
        return
    along = work[point + axis]
    for c in range(size):
        along += work[point + c] * work[way + c]
    along /= 1.0 + work[way + axis]
    for c in range(size):
        work[point + c] -= along * work[way + c]
    work[point + axis] -= along


@njit(error_model="numpy")
def unit_probes(work, probe, mean, factor, n, variables, row, noise):
    """Write each field a deviation up and down, all others at their means. ``row`` is a row of the factor."""
    count = 2 * n
    for f in range(n):
        noisy = noise == 1 and f == n - 1
        size = 1.0 if noisy else 0.0
        if not noisy:
            for c in range(variables - noise):
                size += work[factor + f * row + c] ** 2
        size = math.sqrt(size)
        for s in range(count):
            work[probe + f * count + s] = 0.0 if noisy else work[mean + f]
        work[probe + f * count + f] += size
        work[probe + f * count + n + f] -= size
    return count
'''

DIRECTIONS = f'''
@njit(error_model="numpy")
def ridge_solve(work, a, b, n):
    """Solve a x = b for a positive definite matrix, in place of both. Source: Cholesky."""
    for j in range(n):
        for i in range(j, n):
            rest = work[a + i * n + j]
            for k in range(j):
                rest -= work[a + i * n + k] * work[a + j * n + k]
            work[a + i * n + j] = math.sqrt(rest) if i == j else rest / work[a + j * n + j]
    for i in range(n):
        for k in range(i):
            work[b + i] -= work[a + i * n + k] * work[b + k]
        work[b + i] /= work[a + i * n + i]
    for r in range(n):
        i = n - 1 - r
        for k in range(i + 1, n):
            work[b + i] -= work[a + k * n + i] * work[b + k]
        work[b + i] /= work[a + i * n + i]


@njit(error_model="numpy")
def find_directions(work, value, group, way, rows, factor, n, variables, row, noise, count):
    """Write the direction along which all switching functions grow, and one across it: ``way`` and the next row.

    ``rows`` has space for the rows of the factor at unit length, and a matrix; of fields on which no function depends
    nothing is asked. Returns nothing if there are no functions: then the first direction is the diagonal.
    """
    matrix, growth = rows + n * variables, rows + n * variables + n * n
    for f in range(n):
        size = 0.0
        for c in range(variables):
            noisy = noise == 1 and (f == n - 1 or c == variables - 1)
            here = (1.0 if f == n - 1 and c == variables - 1 else 0.0) if noisy else work[factor + f * row + c]
            work[rows + f * variables + c] = here
            size += here * here
        size = math.sqrt(size)
        grows = False
        for j in range(count):
            grows = grows or work[value + j * 2 * n + f] != work[value + j * 2 * n + n + f]
        for c in range(variables):
            work[rows + f * variables + c] *= 1.0 / size if size > 0.0 and grows else 0.0
    last = way + variables
    for c in range(variables):
        work[way + c] = 1e-3
    kept = 0
    for j in range(count):
        repeated = False
        for k in range(j):
            repeated = repeated or work[group + k] == work[group + j]
        if repeated:
            continue
        square = level = 0.0
        for f in range(n):
            up, down = work[value + j * 2 * n + f], work[value + j * 2 * n + n + f]
            work[growth + f] = up - down
            square += (up - down) ** 2
            level += up * up + down * down
        size = math.sqrt(square + 1e-6 * level + 1e-300)
        for f in range(n):
            g = work[growth + f] / size
            work[growth + f] = g / math.sqrt(g * g + {SOFT * SOFT!r})
            for k in range(n):
                product = {RIDGE} if f == k else 0.0
                for c in range(variables):
                    product += work[rows + f * variables + c] * work[rows + k * variables + c]
                work[matrix + f * n + k] = product
        ridge_solve(work, matrix, growth, n)
        own, square = way + (2 + kept) * variables, 1e-20
        for c in range(variables):
            work[own + c] = 0.0
            for f in range(n):
                work[own + c] += work[growth + f] * work[rows + f * variables + c]
            square += work[own + c] ** 2
        for c in range(variables):
            work[own + c] /= math.sqrt(square)
            work[way + c] += work[own + c]
        kept += 1
    square = 0.0
    for c in range(variables):
        square += work[way + c] ** 2
    for c in range(variables):
        work[way + c] /= math.sqrt(square)
        work[last + c] = 0.0
    work[last + variables - 1] += 1e-3
    work[last] += 1.7e-3 if variables > 1 else 0.7e-3
    project_out(work, last, way, variables)
    for j in range(kept):
        project_out(work, way + (2 + j) * variables, way, variables)
    reference = way + (1 + kept) * variables
    for j in range(kept):
        own, overlap = way + (2 + j) * variables, 0.0
        for c in range(variables):
            overlap += work[own + c] * work[reference + c]
        for c in range(variables):
            work[last + c] += overlap * work[own + c]
    square = 0.0
    for c in range(variables):
        square += work[last + c] ** 2
    for c in range(variables):
        work[last + c] /= max(math.sqrt(square), 1e-300)


@njit(error_model="numpy")
def project_out(work, vector, way, size):
    """Subtract the part of a vector along a unit vector."""
    along = 0.0
    for c in range(size):
        along += work[vector + c] * work[way + c]
    for c in range(size):
        work[vector + c] -= along * work[way + c]


@njit(error_model="numpy")
def field_slopes(work, slope, way, factor, n, variables, row, noise):
    """Write how fast each field changes along a direction."""
    for f in range(n - noise):
        work[slope + f] = 0.0
        for c in range(variables - noise):
            work[slope + f] += work[factor + f * row + c] * work[way + c]
    if noise == 1:
        work[slope + n - 1] = work[way + variables - 1]


@njit(error_model="numpy")
def line_starts(work, par, start, nodes, way, point, mean, factor, n, variables, row, noise, left, lines, gap):
    """Write the fields at the middle of each line or plane; ``gap`` lies between fields."""
    turned = point + variables
    if variables - left == 2:
        for c in range(variables):
            work[turned + c] = work[way + variables + c]
        mirrored(work, turned, way, variables - 1, variables)
    for i in range(lines):
        for c in range(variables):
            work[point + c] = par[nodes + c * lines + i] if c < left else 0.0
        if variables - left == 2:
            mirrored(work, point, turned, variables - 2, variables - 1)
        mirrored(work, point, way, variables - 1, variables)
        for f in range(n - noise):
            work[start + f * gap + i] = work[mean + f]
            for c in range(variables - noise):
                work[start + f * gap + i] += work[factor + f * row + c] * work[point + c]
        if noise == 1:
            work[start + (n - 1) * gap + i] = work[point + variables - 1]
'''

PIECES = f'''
@njit(error_model="numpy")
def no_cuts(work, cuts, number, room, lines):
    """Begin the list of cuts of each line: its middle and its ends."""
    for i in range(lines):
        work[number + i] = 3.0
        work[cuts + i * room], work[cuts + i * room + 1], work[cuts + i * room + 2] = -1.0, 0.0, 1.0


@njit(error_model="numpy")
def insert_cut(work, cuts, number, room, i, t):
    """Put a cut into its place among those of line i."""
    k, own = int(work[number + i]), cuts + i * room
    work[number + i] += 1.0
    while k > 0 and work[own + k - 1] > t:
        work[own + k] = work[own + k - 1]
        k -= 1
    work[own + k] = t


@njit(error_model="numpy", fastmath={{"contract", "nsz"}})
def nodes_in_pieces(work, par, target, stride, weight, place, cuts, number, room, start, gap, share, slope, n, lines,
                    node, portion, per):
    """Write the fields and the weights of the nodes of all lines, piece after piece; return how many there are.

    The fields of line i begin at start + i and change by the slopes; ``gap`` lies between fields, ``stride`` between
    those at nodes (0: their number).
    """
    nodes = 0
    for i in range(lines):
        for k in range(int(work[number + i]) - 1):
            low, high = work[cuts + i * room + k], work[cuts + i * room + k + 1]
            for q in range(per):
                work[place + nodes + q] = (low + high + (high - low) * par[node + q]) / 2.0
                work[weight + nodes + q] = (high - low) * par[portion + q]
            nodes += per
    for s in range(nodes):
        t = work[place + s]
        x = line_place(t)
        work[place + s] = x
        work[weight + s] *= line_stretch(t) * node_exp(-(x * x) / 2.0)
    first, stride = 0, nodes if stride == 0 else stride
    for i in range(lines):
        last, total = first + (int(work[number + i]) - 1) * per, 0.0
        for s in range(first, last):
            total += work[weight + s]
        scale = work[share + i] / total
        for s in range(first, last):
            work[weight + s] *= scale
        for f in range(n):
            here, change = work[start + f * gap + i], work[slope + f]
            for s in range(first, last):
                work[target + f * stride + s] = here + change * work[place + s]
        first = last
    return nodes


@njit(error_model="numpy", fastmath={{"contract", "nsz"}})
def line_grid(work, probe, start, gap, slope, n, lines):
    """Write the fields on a grid along all lines, one place after another."""
    for f in range(n):
        for k in range({CELLS + 1}):
            x, at = line_place(-1.0 + k * {2 / CELLS!r}) * work[slope + f], probe + (f * {CELLS + 1} + k) * lines
            for i in range(lines):
                work[at + i] = work[start + f * gap + i] + x
    return lines * {CELLS + 1}


@njit(error_model="numpy")
def find_brackets(work, value, bracket, number, lines, count):
    """Write between which places of which line which function changes sign, and its values there."""
    m = 0
    for i in range(lines):
        work[number + i] = 0.0
    for j in range(count):
        for k in range({CELLS}):
            at = value + (j * {CELLS + 1} + k) * lines
            for i in range(lines):
                if work[at + i] * work[at + lines + i] < 0.0 and work[number + i] < count + {SPARE}:
                    b = bracket + 6 * m
                    work[b], work[b + 1] = i, j
                    work[b + 2], work[b + 3] = -1.0 + k * {2 / CELLS!r}, -1.0 + (k + 1) * {2 / CELLS!r}
                    work[b + 4], work[b + 5] = work[at + i], work[at + lines + i]
                    work[number + i] += 1.0
                    m += 1
    return m


@njit(error_model="numpy")
def secant(work, b):
    """The place where a bracket's secant vanishes."""
    low, high, at_low, at_high = work[b + 2], work[b + 3], work[b + 4], work[b + 5]
    return high if at_low == at_high else (low * at_high - high * at_low) / (at_high - at_low)


@njit(error_model="numpy", fastmath={{"contract", "nsz"}})
def root_probes(work, probe, place, bracket, start, gap, slope, n, m):
    """Write the fields where each bracket's secant vanishes."""
    for q in range(m):
        work[place + q] = line_place(secant(work, bracket + 6 * q))
    for f in range(n):
        for q in range(m):
            line = int(work[bracket + 6 * q])
            work[probe + f * m + q] = work[start + f * gap + line] + work[slope + f] * work[place + q]
    return m


@njit(error_model="numpy")
def narrow_brackets(work, value, bracket, m):
    """Replace an end of each bracket by its root, the Illinois way."""
    for q in range(m):
        b = bracket + 6 * q
        root, now = secant(work, b), work[value + int(work[b + 1]) * m + q]
        if now * work[b + 5] < 0.0:
            work[b + 2], work[b + 4] = work[b + 3], work[b + 5]
        else:
            work[b + 4] /= 2.0
        work[b + 3], work[b + 5] = root, now


@njit(error_model="numpy")
def cut_at_roots(work, cuts, number, room, bracket, m, lines):
    """Cut all lines where a function vanishes."""
    no_cuts(work, cuts, number, room, lines)
    for q in range(m):
        insert_cut(work, cuts, number, room, int(work[bracket + 6 * q]), work[bracket + 6 * q + 3])
'''

PLANES = f'''
@njit(error_model="numpy", fastmath={{"contract", "nsz"}})
def plane_grid(work, probe, start, across, along, n, planes):
    """Write the fields on a grid in all planes, one place after another."""
    count = {(CELLS + 1) ** 2}
    for f in range(n):
        for a in range({CELLS + 1}):
            for b in range({CELLS + 1}):
                x = line_place(-1.0 + a * {2 / CELLS!r}) * work[across + f]
                x += line_place(-1.0 + b * {2 / CELLS!r}) * work[along + f]
                at = probe + (f * count + a * {CELLS + 1} + b) * planes
                for i in range(planes):
                    work[at + i] = work[start + f * planes + i] + x
    return count * planes


@njit(error_model="numpy")
def find_candidates(work, value, group, candidate, most, planes, count):
    """Write the cells of the grid in which two functions change sign and may vanish together: 14 numbers each.

    Plane, both functions, the cell's centre, the place (two), the functions' slopes (four), their size, their values
    (two), and whether they are known.
    """
    stride, up, step, m = planes * {(CELLS + 1) ** 2}, {CELLS + 1} * planes, {2 / CELLS!r}, 0
    for j in range(count):
        for k in range(j):
            if work[group + j] == work[group + k]:
                continue
            for a in range({CELLS}):
                for b in range({CELLS}):
                    cell = value + (a * {CELLS + 1} + b) * planes
                    for i in range(planes):
                        one, two = cell + j * stride + i, cell + k * stride + i
                        if mixed(work, one, planes, up) and mixed(work, two, planes, up) and m < most:
                            c = candidate + 14 * m
                            work[c], work[c + 1], work[c + 2] = i, j, k
                            work[c + 3] = work[c + 5] = -1.0 + a * step + step / 2.0
                            work[c + 4] = work[c + 6] = -1.0 + b * step + step / 2.0
                            size = write_slopes(work, c + 7, one, planes, up, step)
                            work[c + 11] = max(size, write_slopes(work, c + 8, two, planes, up, step))
                            work[c + 12], work[c + 13] = middle(work, one, planes, up), middle(work, two, planes, up)
                            q, t = newton(work, c)
                            if abs(q) < step and abs(t) < step:
                                m += 1
    return m


@njit(error_model="numpy", forceinline=True)
def mixed(work, corner, right, up):
    """Whether a function has both signs at the corners of a cell."""
    above = (work[corner] > 0.0) + (work[corner + right] > 0.0) + (work[corner + up] > 0.0)
    above += work[corner + up + right] > 0.0
    return above > 0 and above < 4


@njit(error_model="numpy")
def middle(work, corner, right, up):
    """The mean of a function at the corners of a cell."""
    return (work[corner] + work[corner + right] + work[corner + up] + work[corner + up + right]) / 4.0


@njit(error_model="numpy")
def write_slopes(work, place, corner, right, up, step):
    """Write the slopes of a function in a cell, by q and two places on by t; return its largest size."""
    here, beside, above, both = work[corner], work[corner + right], work[corner + up], work[corner + up + right]
    work[place] = (above + both - here - beside) / (2.0 * step)
    work[place + 2] = (beside + both - here - above) / (2.0 * step)
    return max(max(abs(here), abs(beside)), max(abs(above), abs(both)))


@njit(error_model="numpy")
def newton(work, c):
    """Return the step to where both functions of a candidate vanish, as far as they are linear."""
    q1, q2, t1, t2 = work[c + 7], work[c + 8], work[c + 9], work[c + 10]
    det = q1 * t2 - t1 * q2
    det = 1e-300 if det == 0.0 else det
    return (work[c + 13] * t1 - work[c + 12] * t2) / det, (work[c + 12] * q2 - work[c + 13] * q1) / det


@njit(error_model="numpy")
def candidate_probes(work, probe, candidate, start, across, along, n, m, planes):
    """Write the fields at the place of each candidate."""
    for s in range(m):
        c = candidate + 14 * s
        x, y = line_place(work[c + 5]), line_place(work[c + 6])
        for f in range(n):
            here = work[start + f * planes + int(work[c])]
            work[probe + f * m + s] = here + work[across + f] * x + work[along + f] * y
    return m


@njit(error_model="numpy")
def read_candidates(work, value, candidate, m, moved, first):
    """Take the values at the candidates' places, and correct the slopes by them (Broyden), unless these are the
    first. ``moved`` holds the steps that led there."""
    for s in range(m):
        c = candidate + 14 * s
        one, two = work[value + int(work[c + 1]) * m + s], work[value + int(work[c + 2]) * m + s]
        if not first:
            q, t = work[moved + 2 * s], work[moved + 2 * s + 1]
            length = q * q + t * t
            if length > 1e-28:
                miss1 = (one - work[c + 12] - (work[c + 7] * q + work[c + 9] * t)) / length
                miss2 = (two - work[c + 13] - (work[c + 8] * q + work[c + 10] * t)) / length
                work[c + 7] += miss1 * q
                work[c + 8] += miss2 * q
                work[c + 9] += miss1 * t
                work[c + 10] += miss2 * t
        work[c + 12], work[c + 13] = one, two


@njit(error_model="numpy")
def move_candidates(work, candidate, m, moved):
    """Move each candidate by a step, at most a cell from where it began."""
    step = {2 / CELLS!r}
    for s in range(m):
        c = candidate + 14 * s
        q, t = newton(work, c)
        q = min(max(work[c + 5] + q, max(work[c + 3] - step, -1.0)), min(work[c + 3] + step, 1.0))
        t = min(max(work[c + 6] + t, max(work[c + 4] - step, -1.0)), min(work[c + 4] + step, 1.0))
        work[moved + 2 * s], work[moved + 2 * s + 1] = q - work[c + 5], t - work[c + 6]
        work[c + 5], work[c + 6] = q, t


@njit(error_model="numpy")
def cut_at_crossings(work, cuts, number, room, candidate, m, planes):
    """Cut all planes where two functions vanish."""
    no_cuts(work, cuts, number, room, planes)
    for s in range(m):
        c = candidate + 14 * s
        away = max(abs(work[c + 5] - work[c + 3]), abs(work[c + 6] - work[c + 4]))
        if away <= {0.51 * 2 / CELLS!r} and max(abs(work[c + 12]), abs(work[c + 13])) < 1e-6 * work[c + 11]:
            if work[number + int(work[c])] < room:
                insert_cut(work, cuts, number, room, int(work[c]), work[c + 5])
'''

SPLIT_SOURCES: dict[str, str] = {
    "unit_probes": GEOMETRY,
    "find_directions": DIRECTIONS,
    "nodes_in_pieces": PIECES,
    "plane_grid": PLANES,
}
"""Source texts, each by the name of one of its functions."""
