"""The packages of other engines, which are extras of hydraprune: a check that they are here, and quiet calls."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from importlib.util import find_spec

from hydraprune.errors import UserError, single_line

# Engine -> the packages of its extra.
PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino", "nncf")}
_TELEMETRY = "openvino_telemetry"


def require(engine: str) -> None:
    """Check that the packages of an engine are installed; call this before any of them is imported.

    Args:
        engine: a key of `PACKAGES`, which is also the name of the extra.

    Raises:
        UserError: naming the missing package, with the pip command.
    """
    for package in PACKAGES[engine]:
        if package not in sys.modules and find_spec(package) is None:
            reason, cure = f"the package {package} is not installed", f"pip install 'hydraprune[{engine}]'"
            raise UserError(reason, key=f"--to {engine}", cure=cure)
    if engine == "openvino" and _TELEMETRY not in sys.modules:
        # OpenVINO and NNCF would send events to Intel, from the import on; without this package they use a stub.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]


def versions(engine: str) -> dict[str, str]:
    """Package -> version of an engine's packages."""
    return {package: metadata.version(package) for package in PACKAGES[engine]}


@contextmanager
def converting(what: str) -> Iterator[None]:
    """Keep a converter's warnings and progress off the terminal, and turn any error of it into one line.

    Args:
        what: is converted, for errors.

    Raises:
        UserError: it cannot be converted.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # converters raise dozens of classes
        message = f"{type(error).__name__}: {single_line(error)}"
        raise UserError(f"cannot be converted ({message:.300})", key=what) from error
    finally:
        logging.disable(disabled)
