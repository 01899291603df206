"""What users need to test code that is built on Aether: no network, no keys, no surprises.

It must not be needed outside tests.
"""

from aether.extensions.llm.fake import FakeProvider
from aether.testing.chaos import ChaosProvider
from aether.testing.faults.server import FaultServer

__all__ = ["ChaosProvider", "FakeProvider", "FaultServer"]
