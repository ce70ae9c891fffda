"""The tree of errors. Every message says what was expected, what was found and what to do.

EdgelmError                     exit code 2: bad usage or input
├── BundleError                 a .edgelm file that cannot be read
│   └── BundleDamaged           what is in it is not what was written
├── CheckpointError             a model folder or hub id that cannot be read
├── DataError                   a data file, or a text, that cannot be used
├── DeviceUnavailable           what was asked for cannot run on this machine
├── MissingExtra                an optional dependency is not installed
├── RecipeError                 a recipe or device profile with a mistake in it
├── Regression                  exit code 1: what was compared got worse by more than is allowed
├── SelfTestFailed              exit code 1: a variant computes something else here than where it was built
└── BuildFailed                 exit code 1: the input was fine, the result is not
├── ExportFailed            a converter failed or wrote something that does not load
└── GateFailed              parity or accuracy outside the recipe's gates
"""

from __future__ import annotations

__all__ = [
    "BuildFailed",
    "BundleDamaged",
    "BundleError",
    "CheckpointError",
    "DataError",
    "DeviceUnavailable",
    "EdgelmError",
    "ExportFailed",
    "GateFailed",
    "MissingExtra",
    "RecipeError",
    "Regression",
    "SelfTestFailed",
]


class EdgelmError(Exception):
    """Base of every error that edgelm raises on purpose.

    Attributes:
        exit_code: what the command line exits with when this error ends it.
    """

    exit_code = 2


class BundleError(EdgelmError):
    """A bundle that is missing, cut short, altered, or of a version this edgelm does not read."""


class BundleDamaged(BundleError):
    """An entry of a bundle is not what was written: its checksum or its hash says so."""


class CheckpointError(EdgelmError):
    """A checkpoint that is missing, damaged, or of an architecture that is not supported."""


class DataError(EdgelmError):
    """Data that cannot be read, or does not fit the model."""


class DeviceUnavailable(EdgelmError):
    """The device or engine asked for would not really be used on this machine."""


class MissingExtra(EdgelmError):
    """A part of edgelm needs packages that are not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """Say what needs the extra, and the exact line that installs it.

        Args:
            what: the thing asked for, as it begins a sentence ("exporting to ONNX").
            extra: the name of the extra in pyproject.toml.
        """
        super().__init__(f"{what} needs packages that are not installed: pip install 'edgelm[{extra}]'")


class RecipeError(EdgelmError):
    """A recipe or device profile that is not TOML, or has a wrong key or value."""


class Regression(EdgelmError):
    """A profile is worse than another by more than was allowed, and not by noise."""

    exit_code = 1


class SelfTestFailed(EdgelmError):
    """A variant's answers to the golden inputs differ on this machine by more than they may: do not trust it here."""

    exit_code = 1


class BuildFailed(EdgelmError):
    """The input was fine but the result is not: nothing was left under the final name."""

    exit_code = 1


class ExportFailed(BuildFailed):
    """A converter failed, or wrote an artifact that its engine does not load."""


class GateFailed(BuildFailed):
    """A variant differs from the original by more than the recipe allows."""
