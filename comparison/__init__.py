"""A comparison of Aether with other libraries on one server that fails as it is told."""
