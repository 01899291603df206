"""The port to HTTP. Its implementations are in `aether.extensions.http`."""
