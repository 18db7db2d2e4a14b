"""The master secrets of the tests' stores, as strong as a new store's has to be."""

from __future__ import annotations

SECRET = "3f1d9b62c07e8a54d1b6f29073ce85a4f6d20b9817e35cac"
NEW_SECRET = "91c6e0d47a2bf85e3d07b6a9f41c8e25da3b60f79e1254c8"
"""What it is rotated to."""
