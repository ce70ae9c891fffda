"""What a person asks to be measured, checked, and handed to the measurement that does it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from edgelm.bundle import Bundle
from edgelm.devices.power import Meter, meter
from edgelm.errors import DataError
from edgelm.predictor import place
from edgelm.profile.deeper import with_energy, with_ops
from edgelm.profile.inputs import Request, from_histogram, from_texts
from edgelm.profile.loadgen import MIN_SECONDS, SCENARIOS
from edgelm.profile.measure import profile_bundle
from edgelm.profile.scenarios import profile_scenario
from edgelm.profile.sustained import profile_sustained
from edgelm.progress import Progress
from edgelm.runs import Profile
from edgelm.runtimes.place import CPU
from edgelm.text import sample

__all__ = ["Asked", "asked", "measure"]

_QUICK_S = 5.0
_SUSTAINED_TOKENS = 32
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure.

    Attributes:
        scenario: one of LoadGen's, ``sustained``, or ``quick``.
        seconds: of the measurement, as its kind understands it.
        tokens: lengths.
        rate: requests a second of ``server``.
        texts: what to draw requests from in a scenario.
        weights: of lengths to draw instead.
        per_layer: also ask where the time goes.
        meter: also measure energy by this; a reason why not.
    """

    scenario: str
    seconds: float
    tokens: tuple[int, ...]
    rate: float | None
    texts: tuple[str, ...]
    weights: dict[int, float] | None
    per_layer: bool = False
    meter: Meter | str | None = None

    @property
    def no_energy(self) -> str | None:
        """Why energy was asked for and cannot be measured."""
        return self.meter if isinstance(self.meter, str) else None


def asked(
    *,
    tokens: Sequence[int],
    scenario: str | None = None,
    sustained: str | None = None,
    seconds: float | None = None,
    histogram: str | None = None,
    rate: float | None = None,
    texts: Sequence[str] | None = None,
    per_layer: bool = False,
    energy: bool = False,
) -> Asked:
    """Check what goes together.

    Args:
        tokens: lengths of the quick and of the sustained measurement.
        scenario: of LoadGen.
        sustained: how long, as ``90``, ``90s``, ``10m`` or ``1h``.
        seconds: at least; the usual time of the kind when not given.
        histogram: ``16:10,32:3``, lengths with their weights.
        rate: requests a second of ``server``.
        texts: what to draw requests from; the sample that ships with edgelm when nothing is given.
        per_layer: of the quick measurement, also ask where the time goes.
        energy: of the quick measurement, also measure energy.

    Raises:
        DataError: something cannot be read, or does not go together.
    """
    if scenario is not None and scenario not in SCENARIOS:
        raise DataError(f"--scenario {scenario}: expected one of {', '.join(SCENARIOS)}")
    if scenario is not None and sustained is not None:
        raise DataError("expected --scenario or --sustained, found both")
    if scenario is None and (histogram or texts):
        raise DataError("--data and --histogram say which requests a scenario draws: give --scenario too")
    if histogram and texts:
        raise DataError("expected --data or --histogram, found both")
    if rate is not None and scenario != "server":
        raise DataError("--rate is of --scenario server")
    if (per_layer or energy) and (scenario or sustained):
        raise DataError("--per-layer and --energy are of the quick measurement: leave --scenario and --sustained out")
    kind = scenario or ("sustained" if sustained else "quick")
    usual = _duration(sustained) if sustained else MIN_SECONDS if scenario else _QUICK_S
    return Asked(
        scenario=kind,
        seconds=usual if seconds is None or sustained else seconds,
        tokens=tuple(tokens),
        rate=rate,
        texts=tuple(texts) if texts else sample(),
        weights=_weights(histogram) if histogram else None,
        per_layer=per_layer,
        meter=meter() if energy else None,
    )


def measure(
    bundle: Bundle,
    what: Asked,
    *,
    engines: Collection[str] | None,
    precisions: Collection[str] | None,
    threads: int | None,
    device: str,
    progress: Progress,
) -> Profile:
    """Measure a bundle on this machine.

    Raises:
        DataError: what was asked for is measured on the CPU alone.
        EdgelmError: as in ``profile_bundle``, ``profile_scenario`` and ``profile_sustained``.
    """
    where = place(device)
    if where != CPU and (what.per_layer or what.meter):
        raise DataError(f"--per-layer and --energy are of the CPU: leave them out, or --device {device}")
    common: dict[str, Any] = {"engines": engines, "precisions": precisions, "threads": threads}
    common |= {"place": where, "progress": progress}
    if what.scenario == "quick":
        profile = profile_bundle(bundle.path, tokens=what.tokens, seconds=what.seconds, **common)
        if what.per_layer:
            profile = with_ops(bundle, profile, progress=progress)
        return with_energy(bundle, profile, what.meter, progress=progress) if isinstance(what.meter, Meter) else profile
    if what.scenario == "sustained":
        length = _SUSTAINED_TOKENS if _SUSTAINED_TOKENS in what.tokens else what.tokens[0]
        return profile_sustained(bundle, seconds=what.seconds, tokens=length, **common)
    name = cast(Any, what.scenario)
    return profile_scenario(bundle, name, _requests(bundle, what), min_seconds=what.seconds, rate=what.rate, **common)


def _requests(bundle: Bundle, what: Asked) -> list[Request]:
    if what.weights:
        return from_histogram(bundle.manifest, what.weights)
    return from_texts(bundle, what.texts)


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or not float(found[1]):
        raise DataError(f"--sustained {text}: expected a time such as 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _weights(text: str) -> dict[int, float]:
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(length): float(weight) for length, weight in pairs}
    except ValueError as exc:
        raise DataError(f"--histogram {text}: expected lengths with weights, as in 16:10,32:3") from exc
