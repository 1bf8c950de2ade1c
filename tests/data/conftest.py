"""Fixtures of the tests of data."""

import os

import pytest


@pytest.fixture
def closed_folders(monkeypatch) -> set[str]:
    """Folders that cannot be listed, to add to: root, who may run the tests, may read all."""
    closed, scandir = set(), os.scandir

    def refuse(path):
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return closed
