"""The reference tools. Importing this registers `get_current_time`, `http_get` and `read_file`.

`build_http_get` makes one that fetches from named hosts alone. It must not import an HTTP library:
`http_get` does that when it is called.
"""

from aether.extensions.tools.file import read_file
from aether.extensions.tools.http import build_http_get, http_get
from aether.extensions.tools.time import get_current_time

__all__ = ["build_http_get", "get_current_time", "http_get", "read_file"]
