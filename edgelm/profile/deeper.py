"""What takes longer than a look: where a request spends its time, and what energy it takes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import msgspec

from edgelm.bundle import Bundle
from edgelm.devices.power import Meter
from edgelm.manifest import Variant
from edgelm.profile import energy, table
from edgelm.profile.inputs import token_ids
from edgelm.profile.layers import assigned
from edgelm.profile.ops import profile_ops
from edgelm.profile.peak import peak
from edgelm.profile.subject import loaded
from edgelm.progress import Progress, silent
from edgelm.runs import Profile, Run

__all__ = ["NO_OPS", "with_energy", "with_ops"]

NO_OPS = "litert: its Python interface has no profiler of operators, so that where it spends its time is not known"
"""Why only ONNX Runtime's variants have layers."""

_ENGINE = "onnxruntime"


def with_ops(bundle: Bundle, profile: Profile, *, progress: Progress = silent) -> Profile:
    """The profile with the operators of each of ONNX Runtime's variants, at one length, and the peak of the machine.

    Raises:
        DataError: the operators of a variant cannot be told apart.
    """

    def look(variant: Variant, run: Run) -> Run:
        request = token_ids(run.tokens, batch=run.batch, vocab=bundle.manifest.model.vocab)
        timed = profile_ops(bundle.read(variant.file), request, threads=run.threads)
        return msgspec.structs.replace(run, ops=assigned(timed, len(bundle.manifest.model.heads)))

    measured = _each(bundle, profile, "measure layers", look, progress, engine=_ENGINE)
    threads = {run.threads for run in measured.runs if run.ops}
    return msgspec.structs.replace(measured, peak=peak(threads.pop())) if threads else measured


def with_energy(bundle: Bundle, profile: Profile, meter: Meter, *, progress: Progress = silent) -> Profile:
    """The profile with the energy of a request of each variant, at one length."""

    def look(variant: Variant, run: Run) -> Run:
        with ExitStack() as stack:
            subject = loaded(stack, bundle, variant, threads=run.threads, batch=run.batch)
            request = token_ids(run.tokens, batch=run.batch, vocab=bundle.manifest.model.vocab)
            return msgspec.structs.replace(run, energy=energy.measured(partial(subject.run, *request), meter))

    return _each(bundle, profile, "measure energy", look, progress)


def _each(
    bundle: Bundle,
    profile: Profile,
    name: str,
    look: Callable[[Variant, Run], Run],
    progress: Progress,
    engine: str | None = None,
) -> Profile:
    """Replace the run of each variant at the length that stands for the others."""
    tokens = table.reference_length(profile)
    variants: dict[tuple[str, str], Variant] = {
        (v.engine, v.precision): v for v in bundle.manifest.variants if engine in (None, v.engine)
    }
    runs = list[Run]()
    with progress(name, len(variants)) as advance:
        for run in profile.runs:
            variant = variants.get((run.engine, run.precision))
            if variant is not None and run.tokens == tokens:
                runs.append(look(variant, run))
                advance(1)
            else:
                runs.append(run)
    return msgspec.structs.replace(profile, runs=tuple(runs))
