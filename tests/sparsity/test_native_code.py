"""Compiled code: cached, rebuilt when the file is broken, refused where others may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from hydraprune.sparsity import native_code as native
from hydraprune.sparsity import saliency_kernels as products


def test_a_broken_library_is_rebuilt_and_a_shared_folder_is_refused(tmp_path: Path) -> None:
    assert native.load(products.SOURCE, tmp_path / "other", products.FUNCTIONS) is not None
    (whole,) = (tmp_path / "other").iterdir()
    # Another path: a process loads each only once.
    folder = tmp_path / "native"
    folder.mkdir(mode=0o700)
    kept = folder / whole.name
    kept.write_bytes(whole.read_bytes()[:100])
    kept.chmod(0o700)
    assert native.load(products.SOURCE, folder, products.FUNCTIONS) is not None
    assert kept.stat().st_size == whole.stat().st_size
    folder.chmod(0o777)
    before = kept.stat()
    assert native.load(products.SOURCE, folder, products.FUNCTIONS) is None
    assert kept.stat() == before
    with pytest.raises(PermissionError, match="others may write"):
        native.build(products.SOURCE, folder, products.FUNCTIONS)
