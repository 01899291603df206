"""Reading docstrings: what a function does and what its parameters mean, in the author's words.

It must not know schemas. docstring-parser is loaded when the first docstring with sections is read.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docstring_parser import Docstring

__all__ = ["Documentation", "parse_docstring"]

# What begins a section in each style. Every pattern is anchored to a line, so that searching a
# text takes time in proportion to its length.
_STYLES = {
    "NUMPYDOC": re.compile(
        r"^(?:Parameters|Other Parameters|Returns|Yields|Raises|Attributes|Examples)[ \t]*\n-{3,}",
        re.MULTILINE,
    ),
    "GOOGLE": re.compile(
        r"^(?:Args|Arguments|Parameters|Params|Returns|Yields|Raises|Exceptions|Attributes"
        r"|Examples?):[ \t]*$",
        re.MULTILINE,
    ),
    "REST": re.compile(
        r"^:(?:param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?|yields?)\b",
        re.MULTILINE,
    ),
}


@dataclass(frozen=True, slots=True)
class Documentation:
    """A docstring, taken apart. `parameters` are descriptions by the parameter's name."""

    description: str = ""
    """The summary and the longer text, without the sections."""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def parse_docstring(text: str | None) -> Documentation:
    """Read a docstring in Google's, NumPy's or reST's style.

    Descriptions are word for word, without their indentation. A text without sections, or whose
    sections cannot be made out, is all description.
    """
    if not text:
        return Documentation()
    text = inspect.cleandoc(text)
    parsed = _parse_sections(text)
    if parsed is None:
        return Documentation(text)
    summary = (parsed.short_description, parsed.long_description)
    return Documentation(
        "\n\n".join(part for part in summary if part),
        MappingProxyType(
            {
                name.strip().lstrip("*"): parameter.description
                for parameter in parsed.params
                for name in parameter.arg_name.split(",")
                if parameter.description
            }
        ),
    )


def _parse_sections(text: str) -> Docstring | None:
    style = next((name for name, start in _STYLES.items() if start.search(text)), None)
    if style is None:
        return None
    import docstring_parser

    try:
        return docstring_parser.parse(
            _keep_indentation(text), docstring_parser.DocstringStyle[style]
        )
    except docstring_parser.ParseError:
        return None


def _keep_indentation(text: str) -> str:
    """Undo what cleaning does to a text whose first line is a heading: the body loses its indent.

    The empty line in front keeps the parser, which cleans again, from doing it once more.
    """
    heading, _, body = text.partition("\n")
    if _STYLES["GOOGLE"].fullmatch(heading) and body and not body[0].isspace():
        return f"\n{heading}\n{textwrap.indent(body, '    ')}"
    return text
