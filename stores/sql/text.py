"""The only two functions through which names and values enter SQL text.

(On servers, rows to insert become text by the driver's rules: `oomstream.stores.sql.mysql_rows`.)
"""

from __future__ import annotations


def quote_name(name: str, quote: str = '"') -> str:
    """An identifier as SQL text.

    Args:
        name: A checked name of ours; never data.
        quote: The engine's quotation mark: ``"``, or a backtick for MySQL's relatives.
    """
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


def literal(value: int | bytes) -> str:
    """A value as SQL text, for drivers that take no parameters and for column defaults.

    Only integers and bytes, which are written as a decimal number and as a hex literal: neither can hold a character
    that SQL gives a meaning. Text goes in as the bytes of its UTF-8 form.

    Raises:
        TypeError: Any other type.
    """
    if type(value) is bool or type(value) is int:
        return str(int(value))
    if type(value) is bytes:
        return f"x'{value.hex()}'"
    raise TypeError(f"{type(value).__name__} does not go into SQL text")
