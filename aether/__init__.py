"""Typed primitives for AI-native applications, and one facade for the common case."""
