"""A module that cannot be imported: it stands for everything that nobody asked for."""

raise RuntimeError("imported, though nobody asked for it")
