"""Compiled code: cached, rebuilt when the file is broken, refused where others may write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hydraprune.sparsity import native_code as native
from hydraprune.sparsity import saliency_kernels as products


def test_code_that_does_not_compile_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    compile_code = native._compile

    def counting(command: str, source: Path, *rest: Any) -> None:
        calls.append(source)
        compile_code(command, source, *rest)

    monkeypatch.setattr(native, "_compile", counting)
    source = tmp_path / "broken.c"
    source.write_text("int broken(")
    assert native.load(source, tmp_path / "native", {"broken": ()}) is None
    assert calls == [source]


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


@pytest.mark.parametrize("at", [0, 100, 4096, -1])
def test_a_damaged_library_is_compiled_again(at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not loaded: the process would compute something else, or die by a signal."""
    folder = tmp_path / "native"
    assert native.load(products.SOURCE, folder, products.FUNCTIONS) is not None
    (library,) = folder.iterdir()
    whole = library.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    library.unlink()  # this process has the first one mapped
    library.write_bytes(bytes(damaged))
    library.chmod(0o700)
    assert native.load(products.SOURCE, folder, products.FUNCTIONS) is not None
    assert "is damaged: compiling it again" in caplog.text
    assert [file.read_bytes() for file in folder.iterdir()] == [whole]
