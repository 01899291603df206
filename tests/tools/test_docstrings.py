from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.tools.docstrings import parse_docstring

GOOGLE = """Get the weather.

    It is the weather of today:
      only that.

    Args:
        city (str): The city, e.g. "Paris": a name.
            It goes on here.
        units (Literal['c', 'f'], optional): Either (or both): see https://x.y/z. Defaults to 'c'.
        **more: Whatever else.

    Returns:
        str: The weather.
    """
NUMPY = """Get the weather.

    It is the weather of today:
      only that.

    Parameters
    ----------
    city : str
        The city, e.g. "Paris": a name.
        It goes on here.
    units : {'c', 'f'}, optional
        Either (or both): see https://x.y/z. Defaults to 'c'.
    **more
        Whatever else.

    Returns
    -------
    str
        The weather.
    """
REST = """Get the weather.

    It is the weather of today:
      only that.

    :param city: The city, e.g. "Paris": a name.
        It goes on here.
    :param str units: Either (or both): see https://x.y/z. Defaults to 'c'.
    :param more: Whatever else.
    :returns: The weather.
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_each_style_gives_the_descriptions_word_for_word(text: str) -> None:
    read = parse_docstring(text)

    assert read.description == "Get the weather.\n\nIt is the weather of today:\n  only that."
    assert read.parameters == {
        "city": 'The city, e.g. "Paris": a name.\nIt goes on here.',
        "units": "Either (or both): see https://x.y/z. Defaults to 'c'.",
        "more": "Whatever else.",
    }


def test_a_text_without_sections_is_all_description() -> None:
    text = "Get the weather.\n\n    Note: it may rain.\n\n    Bring an umbrella.\n    "

    assert parse_docstring(text).description == (
        "Get the weather.\n\nNote: it may rain.\n\nBring an umbrella."
    )
    assert parse_docstring(text).parameters == {}


def test_no_docstring_is_no_description() -> None:
    assert parse_docstring(None).description == ""
    assert parse_docstring("").description == ""


def test_sections_that_cannot_be_made_out_stay_in_the_description() -> None:
    text = "Get it.\n\nArgs:\nnot indented\n"

    assert parse_docstring(text).description == "Get it.\n\nArgs:\nnot indented"


def test_a_docstring_that_is_only_sections_still_describes_the_parameters() -> None:
    text = """Args:
        city: The city.
        units: The units.

    Returns:
        The weather.
    """

    read = parse_docstring(text)

    assert read.description == ""
    assert read.parameters == {"city": "The city.", "units": "The units."}


def test_names_that_numpy_style_puts_together_share_a_description() -> None:
    text = "Add.\n\nParameters\n----------\na, b : int\n    A number.\n"

    assert parse_docstring(text).parameters == {"a": "A number.", "b": "A number."}


def test_the_parser_is_loaded_only_for_a_docstring_with_sections() -> None:
    script = dedent("""
        import sys
        from aether.tools.docstrings import parse_docstring
        parse_docstring("Get the weather. It may rain.")
        assert "docstring_parser" not in sys.modules
        parse_docstring("Get.\\n\\nArgs:\\n    a: b\\n")
        assert "docstring_parser" in sys.modules
    """)

    subprocess.run([sys.executable, "-c", script], check=True)


MEGABYTE = 1_000_000
HOSTILE = {
    "arguments": "S.\n\nArgs:\n" + "    a: text text\n" * (MEGABYTE // 16),
    "colons": "S.\n\nArgs:\n    a: " + ":" * MEGABYTE,
    "brackets": "S.\n\nArgs:\n    a " + "(" * MEGABYTE,
    "empty lines": "S.\n\nArgs:\n    a: x" + "\n" * MEGABYTE,
    "spaces": "S.\n\nArgs:\n    a: x" + " " * MEGABYTE + "y",
    "headings": "S.\n\n" + "Args:\n" * (MEGABYTE // 6),
    "defaults": "S.\n\nArgs:\n    a: " + "Defaults to " * (MEGABYTE // 12),
    "dashes": "S.\n\nParameters\n----------\n" + "-" * MEGABYTE,
    "numpy": "S.\n\nParameters\n----------\n" + "a : int\n    text\n" * (MEGABYTE // 18),
    "rest": "S.\n\n" + ":param a: text\n" * (MEGABYTE // 15),
    "rest without end": "S.\n\n:param a" + " a" * (MEGABYTE // 2),
    "no section": "S.\n" + " " * MEGABYTE + "Args",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_is_read_to_its_end(text: str) -> None:
    """In time that grows with its length: if it grew with the square, this would take hours."""
    read = parse_docstring(text)

    assert read.description.startswith("S.")


@given(
    st.lists(
        st.sampled_from(
            [
                "Args:",
                "    a: b",
                "  c (int): d",
                "Parameters",
                "---------",
                ":param x: y",
                ":type",
                "",
                "Returns:",
                "text",
                "    ",
                ":",
                "Raises:",
                "    x :",
            ]
        )
    ).map("\n".join)
    | st.text()
)
@settings(deadline=None)
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    read = parse_docstring(text)

    assert all(isinstance(value, str) for value in read.parameters.values())
