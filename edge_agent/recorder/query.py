"""Conditions such as ``verdict>=stop and clearance_m<0.3`` over decisions: a small language, no Python in it.

expression = term {"or" term};  term = factor {"and" factor};  factor = ["not"] ("(" expression ")" | comparison)
comparison = column operator value | flag;   operator = < <= > >= = == !=
value = number | name (of a verdict, reason, source, mode) | hexadecimal digits (first ones of a policy's digest)
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE, DIGESTS
from edge_agent.errors import LogQueryError
from edge_agent.recorder.flat import COLUMNS, FLAGS, column_of, field_of
from edge_agent.recorder.values import NAMED

TEXT_MAX = 1000
DEPTH_MAX = 32
Mask = npt.NDArray[np.bool_]
Test = Callable[[npt.NDArray[np.void]], Mask]
_TOKEN = re.compile(r"\s*(?:(<=|>=|==|!=|<|>|=|\(|\))|([A-Za-z0-9_.+-]+))")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "=": np.equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
_DIGITS = re.compile("^[0-9a-f]{1,64}$")


class Query(NamedTuple):
    """A condition, ready to be asked; ``fields`` are those of DECISION_DTYPE that it looks at."""

    test: Test
    fields: frozenset[str]


def parse_query(text: str) -> Query:
    """Read a condition; raises LogQueryError, which says where and what would do."""
    if len(text) > TEXT_MAX:
        raise LogQueryError(f"--where: {len(text)} characters, at most {TEXT_MAX}")
    parser = _Parser(_tokens(text))
    test = parser.expression(0)
    if parser.left:
        raise LogQueryError(f"--where: expected 'and' or 'or', came {parser.left[0]!r}")
    return Query(test, frozenset(parser.fields))


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise LogQueryError(
                f"--where: cannot read {text[at:].strip()[:20]!r}; see `outrider logs grep --help`"
            )
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens that are left."""

    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens
        self.fields: set[str] = set()

    def _next(self, what: str) -> str:
        if not self.left:
            raise LogQueryError(f"--where: expected {what}, came the end")
        return self.left.pop(0)

    def _many(
        self, word: str, part: Callable[[int], Test], join: Callable[[Any, Any], Any], depth: int
    ) -> Test:
        tests = [part(depth)]
        while self.left and self.left[0] == word:
            self.left.pop(0)
            tests.append(part(depth))

        def test(records: npt.NDArray[np.void]) -> Mask:
            result = tests[0](records)
            for other in tests[1:]:
                result = join(result, other(records))
            return result

        return test

    def expression(self, depth: int) -> Test:
        """Terms joined by "or"."""
        if depth > DEPTH_MAX:
            raise LogQueryError(f"--where: more than {DEPTH_MAX} levels of brackets")
        return self._many("or", self._term, np.logical_or, depth)

    def _term(self, depth: int) -> Test:
        return self._many("and", self._factor, np.logical_and, depth)

    def _factor(self, depth: int) -> Test:
        token = self._next("a column")
        if token == "not":
            inner = self._factor(depth + 1)
            return lambda records: np.logical_not(inner(records))
        if token == "(":
            inner = self.expression(depth + 1)
            if (closing := self._next("')'")) != ")":
                raise LogQueryError(f"--where: expected ')', came {closing!r}")
            return inner
        return self._comparison(token)

    def _comparison(self, column: str) -> Test:
        if column not in COLUMNS and column not in FLAGS:
            near = [name for name in (*COLUMNS, *FLAGS) if column in name][:4]
            hint = f"did you mean {', '.join(near)}?" if near else "see `outrider logs grep --columns`"
            raise LogQueryError(f"--where: no column {column!r}; {hint}")
        self.fields.add(field_of(column))
        if column in FLAGS:
            return lambda records: column_of(records, column)
        operator = self._next(f"an operator after {column}")
        if operator not in _COMPARE:
            raise LogQueryError(f"--where: expected an operator after {column}, came {operator!r}")
        word, compare = self._next(f"a value after {column}{operator}"), _COMPARE[operator]
        if column in DIGESTS:
            return _digest_test(column, word.lower(), operator)
        value = _value(column, word)
        return lambda records: np.asarray(compare(column_of(records, column), value), dtype=np.bool_)


def _value(column: str, word: str) -> float | int:
    if column in NAMED and word.upper() in NAMED[column].__members__:
        return int(NAMED[column][word.upper()])
    try:
        return int(word) if word.lstrip("+-").isdigit() else float(word)
    except ValueError:
        names = f", or one of {', '.join(m.name.lower() for m in NAMED[column])}" if column in NAMED else ""
        raise LogQueryError(f"--where: {column}: expected a number{names}; came {word!r}") from None


def _digest_test(column: str, word: str, operator: str) -> Test:
    size = DECISION_DTYPE[column].shape[0]
    fits = (_DIGITS.match(word) and len(word) <= 2 * size) or word == "none"
    if operator not in ("=", "==", "!=") or not fits:
        raise LogQueryError(
            f"--where: {column}: expected = or != and up to {2 * size} hexadecimal digits or none; "
            f"came {operator}{word}"
        )
    digits = "0" * (2 * size) if word == "none" else word
    whole = np.frombuffer(bytes.fromhex(digits[: len(digits) // 2 * 2]), np.uint8)
    half = int(digits[-1], 16) if len(digits) % 2 else None

    def test(records: npt.NDArray[np.void]) -> Mask:
        digests = records[column].reshape(len(records), size)
        same: Mask = (digests[:, : len(whole)] == whole).all(axis=1)
        if half is not None:
            same &= digests[:, len(whole)] >> 4 == half
        return same if operator != "!=" else ~same

    return test
