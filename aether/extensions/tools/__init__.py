"""The reference tools. Importing this registers `get_current_time`, `http_get` and `read_file`.

It must not import an HTTP library: `http_get` does that when it is called.
"""

from aether.extensions.tools.file import read_file
from aether.extensions.tools.http import http_get
from aether.extensions.tools.time import get_current_time

__all__ = ["get_current_time", "http_get", "read_file"]
