"""The tables: from values to lines in Markdown that can be read as they are, too.

It must not know how the values came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contracts import Figure
from benchmarks.running import Taken
from benchmarks.subjects import SUBJECTS

NONE = "-"
SLOW = 1.25
"""From so much of its usual time for the reference on, the machine was slow."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One figure of one library: what came out of all rounds."""

    value: float
    """The median."""
    low: float
    high: float
    slowness: float
    """The longest that the reference took around a value, in times of what is usual."""


def usual_reference(found: Iterable[Taken]) -> float:
    """What the reference takes as a rule, in µs: the median of all."""
    references = [
        reference for each in found for values in each.values.values() for _, reference in values
    ]
    return median(references) if references else 1.0


def summary(taken: Taken, figure: Figure, usual: float, *, is_raw: bool) -> Summary | None:
    """A figure, each of its times first scaled to a machine of the usual speed, unless `is_raw`."""
    values = taken.values.get(figure.key)
    if not values:
        return None
    scaled = [
        value * usual / reference if figure.is_time and not is_raw else value
        for value, reference in values
    ]
    slowness = max(reference for _, reference in values) / usual
    return Summary(median(scaled), min(scaled), max(scaled), slowness)


def bench_table(found: Sequence[Taken], figures: Sequence[Figure], *, is_raw: bool) -> str:
    """Each figure of the first library, with how far the rounds lie apart, and of the second."""
    usual = usual_reference(found)
    first = found[0]
    second = found[1] if len(found) > 1 else Taken("")
    rows = [["", "unit", SUBJECTS[first.name].title, "lowest to highest", "machine"]]
    if second.name:
        rows[0] += [SUBJECTS[second.name].title, "ratio"]
    for figure in figures:
        one = summary(first, figure, usual, is_raw=is_raw)
        two = summary(second, figure, usual, is_raw=is_raw)
        row = [figure.title, figure.unit, _number(one, figure), _range(one, figure), _speed(one)]
        if second.name:
            row += [_number(two, figure), _ratio(one, two, figure)]
        rows.append(row)
    return markdown(rows)


def peers_table(
    found: Sequence[Taken],
    figures: Sequence[Figure],
    targets: Mapping[str, float],
    *,
    reference: str,
    is_raw: bool,
) -> str:
    """Each figure of each library; Aether's also as a ratio to `reference`, beside its target."""
    usual = usual_reference(found)
    by_name = {each.name: each for each in found}
    names = [each.name for each in found]
    shows_ratio = reference in by_name and "aether" in by_name
    rows = [["", "unit", *(SUBJECTS[name].title for name in names)]]
    if shows_ratio:
        rows[0] += [f"Aether to {SUBJECTS[reference].title}", "at most"]
    for figure in figures:
        all_of = {name: summary(by_name[name], figure, usual, is_raw=is_raw) for name in names}
        row = [figure.title, figure.unit, *(_number(all_of[name], figure) for name in names)]
        if shows_ratio:
            target = targets.get(figure.key)
            row.append(_ratio(all_of["aether"], all_of[reference], figure))
            row.append(NONE if target is None else f"{target:g}")
        rows.append(row)
    return markdown(rows)


def ratios_table(
    found: Sequence[Taken], figures: Sequence[Figure], *, reference: str, is_raw: bool
) -> str:
    """The times of each library, as multiples of what `reference` takes."""
    usual = usual_reference(found)
    by_name = {each.name: each for each in found}
    rows = [["", *(SUBJECTS[each.name].title for each in found)]]
    for figure in figures:
        if not figure.is_time:
            continue
        base = summary(by_name[reference], figure, usual, is_raw=is_raw)
        if base is None:
            continue
        of_all = (summary(each, figure, usual, is_raw=is_raw) for each in found)
        rows.append([figure.title, *(_ratio(one, base, figure) for one in of_all)])
    return markdown(rows)


def notes(found: Sequence[Taken], *, scale: float = 1.0, is_raw: bool) -> str:
    """What could not be measured, and whether the machine was slow."""
    lines = [
        f"- {SUBJECTS[each.name].title}: no `{measure}` ({len(whys)} times): {whys[0]}."
        for each in found
        for measure, whys in each.why_not.items()
    ]
    if scale != 1:
        lines.append(f"- All was done {scale:g} times as often, with as much less or more of it.")
    usual = usual_reference(found)
    slow = max(
        (reference for each in found for values in each.values.values() for _, reference in values),
        default=usual,
    )
    lines.append(
        f"- The fixed piece of Python took {usual:,.0f} µs as a rule and {slow / usual:.2f} times "
        "that at most"
        + ("; times are as they were measured." if is_raw else "; times are scaled by it.")
    )
    if slow / usual >= SLOW:
        lines.append("- The machine was slow at times: repeat what matters.")
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of even width: the first on the left, numbers on the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_left = [not any(row[n][:1].isdigit() for row in rows[1:]) for n in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_left, strict=True)
        )
        + " |"
        for row in rows
    ]
    rule = "".join(
        f"{'-' * (width + 2)}|" if left else f"{'-' * (width + 1)}:|"
        for width, left in zip(widths, is_left, strict=True)
    )
    return "\n".join([lines[0], f"|{rule}", *lines[1:]])


def _number(one: Summary | None, figure: Figure) -> str:
    return NONE if one is None else f"{one.value:,.{figure.digits}f}"


def _range(one: Summary | None, figure: Figure) -> str:
    if one is None:
        return NONE
    low, high = (f"{value:,.{figure.digits}f}" for value in (one.low, one.high))
    return low if low == high else f"{low} to {high}"


def _speed(one: Summary | None) -> str:
    return NONE if one is None else f"{one.slowness:.2f}"


def _ratio(one: Summary | None, two: Summary | None, figure: Figure) -> str:
    if one is None or two is None or not two.value or not figure.is_size:
        return NONE
    ratio = one.value / two.value
    return f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"
