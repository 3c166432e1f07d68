"""Read a model's formula, as statsmodels has it, without running any code in it.

A formula is text that patsy evaluates as Python. So that a mistyped or a borrowed formula can do
nothing but arithmetic on columns, it is read here first, and only names, numbers, operators and a
few functions are let through.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cmbprep.errors import UsageError
from cmbprep.files.tsv import listing

#: Kind of a model -> what it is called in a text.
KINDS = {
    "poisson": "Poisson regression",
    "nb": "negative binomial regression",
    "zip": "zero-inflated Poisson regression",
    "zinb": "zero-inflated negative binomial regression",
    "hurdle": "hurdle regression",
    "logit": "logistic regression",
    "ordinal": "ordinal (proportional odds) logistic regression",
}
#: Kinds with a second part, for the zeros.
WITH_ZERO_PART = ("zip", "zinb")
#: Kinds whose outcome is a number of microbleeds.
COUNTS = ("poisson", "nb", "zip", "zinb", "hurdle")
#: Functions of numbers that a formula may use, with or without ``np.``.
NUMERIC = ("log", "log1p", "log2", "log10", "sqrt", "exp")
#: Functions of terms: patsy's own.
TERM = ("C", "I", "Q", "center", "standardize")
MAX_LENGTH = 1000
_MAX_POWER = 6

_TOKEN = re.compile(
    r"\s*(?P<word>'[^'\\\n]*'|\"[^\"\\\n]*\"|[^\W\d]\w*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
    r"|\*\*|[-+*/:(),.=])\s*"
)
_COMPARISON = re.compile(r"^(?P<left>.+?)\s*(?P<operator>==|>=|<=|>|<)\s*(?P<right>.+)$")
_HINT = (
    'write it as for statsmodels, for instance "n_definite ~ age + hypertension + C(site)"; '
    "docs/usage.md lists what a formula may hold"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model explains: a column, or whether it passes a comparison.

    Attributes
    ----------
    column
        Name of the column.
    operator, value
        Comparison that makes a yes or no of it; None where the column is the outcome itself.
    """

    column: str
    operator: str | None = None
    value: str | float | None = None

    def __str__(self) -> str:
        if self.operator is None:
            return self.column
        value = f"{self.value:g}" if isinstance(self.value, float) else self.value
        return f"{self.column} {self.operator} {value}"


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One model, as it was asked for.

    Attributes
    ----------
    text
        The formula as it was written, with single spaces.
    kind
        One of :data:`KINDS`; None where the outcome decides.
    outcome
        What is explained.
    terms, zero_terms
        Right sides for patsy: of the model, and of its zeros (None: a constant).
    offsets
        Expressions that are added to the linear predictor with a coefficient of 1.
    columns
        Columns that the right sides and the offsets name, in order of appearance.
    """

    text: str
    kind: str | None
    outcome: Outcome
    terms: str
    zero_terms: str | None
    offsets: tuple[str, ...]
    columns: tuple[str, ...]


def parse_model(text: str) -> ModelRequest:
    """Read a model: ``[KIND:] OUTCOME ~ TERMS [| TERMS OF THE ZEROS]``.

    Parameters
    ----------
    text
        For instance ``n_definite ~ age + C(site)``, ``nb: n_any_lobar ~ age + offset(log(years))``,
        ``n_definite > 0 ~ age``, ``pattern_definite == strictly lobar ~ age``, or
        ``zip: n_definite ~ age | age``.

    Raises
    ------
    UsageError
        If it is not such a formula, or calls anything but the functions that are allowed.
    """
    shown = " ".join(text.split())
    left, tilde, right = text.partition("~")
    if not tilde or "~" in right or len(text) > MAX_LENGTH:
        raise UsageError(
            f"the model {shown[:80]!r} is no formula: it needs one ~ between the outcome and the "
            f"terms, and at most {MAX_LENGTH} characters",
            hint=_HINT,
        )
    kind, left = _split_kind(left)
    right, bar, zeros = right.partition("|")
    if bar and kind not in WITH_ZERO_PART:
        raise UsageError(
            f"the model {shown!r} has terms of zeros after |, which only the kinds "
            f"{' and '.join(WITH_ZERO_PART)} have",
            hint='write the kind before the outcome, for instance "zip: n_definite ~ age | age"',
        )
    reader = _Reader(shown)
    outcome = _parse_outcome(left, reader)
    terms, offsets = reader.terms(right)
    zero_terms, none = reader.terms(zeros) if bar else (None, ())
    if none:
        raise reader.error("the terms of the zeros cannot have an offset")
    return ModelRequest(
        text=shown,
        kind=kind,
        outcome=outcome,
        terms=terms,
        zero_terms=zero_terms,
        offsets=offsets,
        columns=tuple(dict.fromkeys(reader.names)),
    )


def _split_kind(left: str) -> tuple[str | None, str]:
    match = re.match(r"\s*([A-Za-z_-]+)\s*:(?P<rest>.*)$", left, re.DOTALL)
    if match is None:
        return None, left
    kind = match[1].lower()
    if kind not in KINDS:
        raise UsageError(
            f"there is no kind of model {match[1]!r}",
            hint=f"choose one of {', '.join(KINDS)}, or leave the kind out",
        )
    return kind, match["rest"]


def _parse_outcome(left: str, reader: _Reader) -> Outcome:
    match = _COMPARISON.match(" ".join(left.split()))
    name = reader.outcome(left if match is None else match["left"])
    if match is None:
        return Outcome(column=name)
    value: str | float = match["right"].strip("'\" ")
    try:
        value = float(value)
    except ValueError:
        if match["operator"] != "==":
            raise reader.error(
                f"{value!r} is not a number, so that {match['operator']} cannot be decided"
            ) from None
    return Outcome(column=name, operator=match["operator"], value=value)


class _Reader:
    """Checks the expressions of one formula and collects the columns that they name."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.names: list[str] = []

    def error(self, what: str) -> UsageError:
        return UsageError(f"the model {self.shown!r} cannot be used: {what}", hint=_HINT)

    def outcome(self, text: str) -> str:
        """Return the column of an outcome."""
        tree, _ = self._parse(text)
        known = len(self.names)
        self._number(tree)
        found = self.names[known:]
        del self.names[known:]
        if len(found) != 1 or not (isinstance(tree, ast.Name) or _called(tree) == "Q"):
            raise self.error(
                'the outcome is one column, or its comparison with a value ("n_definite > 0")'
            )
        return found[0]

    def terms(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Check a right side; return it without its offsets, and the offsets."""
        tree, source = self._parse(text)
        kept, offsets = [], []
        for sign, node in _summands(tree):
            if isinstance(node, ast.Call) and _called(node) == "offset":
                if sign != "+" or len(node.args) != 1 or node.keywords:
                    raise self.error("offset() is added and has one argument")
                self._number(node.args[0])
                offsets.append(_segment(source, node.args[0]))
            else:
                self._term(node)
                kept.append(f"{sign} ({_segment(source, node)})")
        return " ".join(kept).removeprefix("+ ") or "1", tuple(offsets)

    def _parse(self, text: str) -> tuple[ast.expr, str]:
        """Parse an expression; ``:`` between terms is written as ``@``, which Python knows."""
        tokens, place = [], 0
        while place < len(text.rstrip()):
            match = _TOKEN.match(text, place)
            if match is None:
                raise self.error(f"{text[place:].strip()[:20]!r} is not allowed in it")
            tokens.append("@" if match["word"] == ":" else match["word"])
            place = match.end()
        source = " ".join(tokens)
        try:
            # The depth of brackets is bounded by the length of the formula.
            return ast.parse(source, mode="eval").body, source
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self.error(
                f"{' '.join(text.split())!r} is no sum of terms; a name that is not a word needs "
                'Q("the name")'
            ) from None

    def _term(self, node: ast.expr) -> None:
        """Check an expression of terms: sums, products, interactions and powers of factors."""
        match node:
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.MatMult()):
                self._term(node.left)
                self._term(node.right)
            case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int() as power)) if (
                1 <= power <= _MAX_POWER
            ):
                self._term(node.left)
            case (
                ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value))
                | ast.Constant(value=int() as value)
            ) if type(value) is int and value in (0, 1):
                pass
            case ast.BinOp():
                raise self.error(
                    "division and powers of numbers stand inside I(), as in I(age / 10)"
                )
            case _:
                self._number(node, inside=False)

    def _number(self, node: ast.expr, *, inside: bool = True) -> None:
        """Check a factor: a column, a function of columns, and inside those arithmetic."""
        match node:
            case ast.Name(id=name):
                self.names.append(name)
            case ast.Constant(value=int() | float() as value) if inside and value is not True:
                pass
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()) if inside:
                self._number(node.left)
                self._number(node.right)
            case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int() | float() as power)) if (
                inside and abs(power) <= _MAX_POWER
            ):
                self._number(node.left)
            case ast.UnaryOp(op=ast.USub()) if inside:
                self._number(node.operand)
            case ast.Call():
                self._call(node)
            case _:
                raise self.error(f"{ast.unparse(node).replace('@', ':')!r} is not allowed there")

    def _call(self, node: ast.Call) -> None:
        name = _called(node)
        if name == "Q":
            match node:
                case ast.Call(args=[ast.Constant(value=str() as column)], keywords=[]):
                    self.names.append(column)
                    return
            raise self.error('Q() has one name in quotation marks, as in Q("MMSE total")')
        if name == "C" and len(node.args) == 2:
            self._contrast(node.args.pop())
        if name not in (*TERM, *NUMERIC) or len(node.args) != 1 or node.keywords:
            raise self.error(
                f"the call {ast.unparse(node)!r} is not allowed; there are "
                f"{', '.join(f'{known}()' for known in (*TERM, 'offset', *NUMERIC))}"
            )
        self._number(node.args[0])

    def _contrast(self, node: ast.expr) -> None:
        """Check the second argument of ``C()``: the reference level."""
        given = (
            [*node.args, *(item.value for item in node.keywords)]
            if isinstance(node, ast.Call)
            else []
        )
        keywords = [item.arg for item in node.keywords] if isinstance(node, ast.Call) else []
        if (
            _called(node) != "Treatment"
            or len(given) != 1
            or not isinstance(given[0], ast.Constant)
            or keywords not in ([], ["reference"])
        ):
            raise self.error('the second argument of C() is Treatment("reference level")')


def _called(node: ast.expr) -> str | None:
    """Return the name of the function that is called; ``np.log`` is ``log``."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=name)) if name in NUMERIC:
            return name
    return None


def _summands(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield sign and node of each summand at the top, from left to right."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _summands(node.left)
        yield "+" if isinstance(node.op, ast.Add) else "-", node.right
    else:
        yield "+", node


def _segment(source: str, node: ast.expr) -> str:
    """Return the text of a node, with ``:`` again."""
    line = source.encode("utf-8")[node.col_offset : node.end_col_offset].decode("utf-8")
    return re.sub(r"""("[^"]*"|'[^']*')|@""", lambda match: match[1] or ":", line)


def shown_expression(source: str) -> str:
    """Return an expression of numbers as people write it, ``log(years)``."""
    return ast.unparse(ast.parse(source.strip(), mode="eval"))


def unknown_names(request: ModelRequest, known: Callable[[str], bool]) -> list[str]:
    """Return the columns of a model that a table does not have."""
    wanted = dict.fromkeys((request.outcome.column, *request.columns))
    return [name for name in wanted if not known(name)]


def parse_models(texts: tuple[str, ...]) -> tuple[ModelRequest, ...]:
    """Read several models; one that is asked for twice is an error.

    Raises
    ------
    UsageError
        If a formula cannot be used, or stands there twice.
    """
    requests = tuple(parse_model(text) for text in texts)
    seen = [request.text for request in requests]
    if twice := sorted({text for text in seen if seen.count(text) > 1}):
        raise UsageError(f"the model {listing(twice)} is given twice", hint="give each model once")
    return requests
