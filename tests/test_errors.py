"""Errors: a block completes them with its file and remedy, and they cross process borders."""

from __future__ import annotations

import pickle

import pytest

from cmbprep.errors import CmbprepError, ScanError, about


def test_a_block_completes_what_an_error_does_not_say() -> None:
    with pytest.raises(ScanError) as caught, about("a.tsv", hint="restore it"):
        raise ScanError("it is cut short")
    assert str(caught.value) == "a.tsv: it is cut short. What to do: restore it."
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_block_changes_nothing_that_an_error_says() -> None:
    error = CmbprepError("it is empty", path="b.json", hint="write it again")
    with pytest.raises(CmbprepError) as caught, about("a.tsv", hint="restore it"):
        raise error
    assert str(caught.value) == "b.json: it is empty. What to do: write it again."
