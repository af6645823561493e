"""Plain text with formulas in it, as assumptions and meanings are written, as LaTeX."""

import re
import unicodedata

_CHARACTERS = {
    "·": r"\cdot ", "→": r"\to ", "∞": r"\infty ", "−": "-", "½": r"\tfrac12 ", "²": "^2", "³": "^3", "√": r"\surd ",
    "~": r"\sim ", "∂": r"\partial ", "≤": r"\le ", "≥": r"\ge ", "×": r"\times ", "Σ": r"\sum ", "⟨": r"\langle ",
    "ᵀ": r"^{\mathsf{T}}", "⁺": "^{+}", "‖": r"\|", "Π": r"\prod ",
    **{c: f"_{{{n}}}" for n, c in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    "⟩": r"\rangle ", "≪": r"\ll ", "*": r"^{\star}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$",
}  # fmt: skip
_PLAIN = {
    "–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "…": r"\dots{}",
    "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "_": r"\_",
}  # fmt: skip
_NAME = re.compile(r"(\(?)((?:\w+\.)?[A-Za-z]{2,}(?:_[A-Za-z]{2,})+)([,;:.)]*)")
"""Names in code, such as error_rate, which are not indexed symbols."""
_GREEK_WORDS = {"eta": "η", "kappa": "κ", "sigma": "σ"}
_MATHEMATICAL = re.compile(
    r"[ᵀ⁺⁻‖₀-₉_*²³½·/^=~→∞−|√∂≤≥×Σ⟨⟩≪<>\u0370-\u03ff]|^[dtxyw][,.;:]?$|^[A-Z]\(|^\d+[,;)]*$|^1e-?\d"
)


def text_latex(text: str) -> str:
    """Return a line of plain text with its formulas as LaTeX.

    Examples
    --------
    >>> print(text_latex("student–student overlaps w_i·w_k/d"))
    student--student overlaps $w_{i}\\cdot w_{k}/d$
    >>> print(text_latex("inputs x ~ N(0, I_d), independent"))
    inputs $x \\sim  N(0, I_{d})$, independent
    >>> print(text_latex("d → ∞ at fixed time t = η·steps/d"))
    $d \\to  \\infty$ at fixed time $t = \\eta \\cdot \\mathrm{steps}/d$
    """
    out: list[str] = []
    formula: list[str] = []
    for word in [*re.sub(r"(\d) x (\d)", r"\1×\2", text).split(), ""]:
        if name := _NAME.fullmatch(word):
            code = re.sub(r"([._])", lambda m: rf"{'.' if m[0] == '.' else chr(92) + '_'}\allowbreak{{}}", name[2])
            word = rf"{name[1]}\texttt{{{code}}}{name[3]}"
            out += [f"${_formula(' '.join(formula))}$"] if formula else []
            out, formula = [*out, word], []
            continue
        if word and ((formula and word in "+-=") or _MATHEMATICAL.search(word) or word in _GREEK_WORDS):
            formula.append(_GREEK_WORDS.get(word, word))
            if word[-1] not in ",;:." or _is_open(formula):  # the comma of N(0, 1) ends no formula
                continue
            word = ""
        if formula:
            joined, tail = " ".join(formula), ""
            while joined[-1] in ",;:.":
                joined, tail = joined[:-1], joined[-1] + tail
            while joined.endswith(")") and joined.count("(") < joined.count(")"):
                joined, tail = joined[:-1], ")" + tail
            out.append(f"${_formula(joined)}${tail}")
            formula = []
        if word:
            out.append("".join(_PLAIN.get(c, c) for c in word))
    return " ".join(out)


def _is_open(formula: list[str]) -> bool:
    text = "".join(formula)
    return text.count("(") + text.count("[") > text.count(")") + text.count("]")


def _formula(text: str) -> str:
    text = text.replace("⁻¹", "^{-1}").replace("⁻²", "^{-2}")
    text = re.sub(r"([A-Za-z\u0370-\u03ff])\*_(\w)", r"\1^{\\star}_{\2}", text)
    text = re.sub(r"\*\*(\w+)", r"^{\1}", text.replace("**(", "^("))  # powers and products as Python writes them
    text = re.sub(r"\b1e(-?)0?(\d+)", r"10^{\1\2}", text)
    text = re.sub(r"\*(?=[A-Za-z0-9(])", r"\\,", text)
    text = re.sub(r"_(\w)", r"_{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z{])[A-Za-z]{2,}", lambda m: rf"\mathrm{{{m[0]}}}", text)
    return "".join(_letter(c) for c in text).strip()


def _letter(c: str) -> str:
    if c in _CHARACTERS:
        return _CHARACTERS[c]
    if "\u0370" <= c <= "\u03ff":
        words = unicodedata.name(c).split()  # GREEK SMALL LETTER ETA
        letter = words[3].lower().replace("lamda", "lambda") if len(words) > 3 else ""  # Unicode's name of it
        return rf"\{letter.capitalize() if words[1] == 'CAPITAL' else letter} "
    return c
