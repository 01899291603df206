"""Faults: a server that goes wrong as it is told, and the words to tell it.

They must not know what is tested. `FaultServer` speaks the providers' protocols over real sockets;
what it is to do wrong is said with the functions here.
"""

from aether.testing.faults.answers import Answer, Ending, Framing
from aether.testing.faults.kinds import (
    Fault,
    Situation,
    bomb,
    close,
    cut,
    delay,
    document,
    drip,
    drop,
    edit,
    error_event,
    hang,
    headers,
    keep_alive,
    raw,
    redirect,
    refuse,
    reset,
    split,
    status,
    unsettled,
    untold,
    wrong_length,
)
from aether.testing.faults.served import Served
from aether.testing.faults.server import FaultServer, Item, Script
from aether.testing.wires import Failure, Reply, WireRequest

__all__ = [
    "Answer",
    "Ending",
    "Failure",
    "Fault",
    "FaultServer",
    "Framing",
    "Item",
    "Reply",
    "Script",
    "Served",
    "Situation",
    "WireRequest",
    "bomb",
    "close",
    "cut",
    "delay",
    "document",
    "drip",
    "drop",
    "edit",
    "error_event",
    "hang",
    "headers",
    "keep_alive",
    "raw",
    "redirect",
    "refuse",
    "reset",
    "split",
    "status",
    "unsettled",
    "untold",
    "wrong_length",
]
