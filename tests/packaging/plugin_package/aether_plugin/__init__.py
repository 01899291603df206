"""Plug-ins for Aether from outside of it: one a module."""
