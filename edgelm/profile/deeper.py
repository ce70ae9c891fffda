"""What takes longer than a look: where a request spends its time, and what energy it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial

import msgspec

from edgelm.bundle import Bundle
from edgelm.devices.power import Meter
from edgelm.errors import DataError
from edgelm.manifest import Variant
from edgelm.profile import energy, table
from edgelm.profile.inputs import Request, token_ids
from edgelm.profile.layers import assigned
from edgelm.profile.ops import profile_ops
from edgelm.profile.ops_litert import profile_pieces
from edgelm.profile.peak import peak
from edgelm.profile.subject import loaded
from edgelm.progress import Progress, silent
from edgelm.runs import Op, Profile, Run
from edgelm.runtimes.given import opened

__all__ = ["with_energy", "with_ops"]


def _operators(bundle: Bundle, variant: Variant, request: Request, threads: int) -> tuple[Op, ...]:
    timed = profile_ops(opened(bundle, variant), request, threads=threads)
    return assigned(timed, len(bundle.manifest.model.heads))


def _pieces(bundle: Bundle, variant: Variant, request: Request, threads: int) -> tuple[Op, ...]:
    return profile_pieces(bundle.read(variant.file), request, len(bundle.manifest.model.heads), threads=threads)


_LOOKS = {"onnxruntime": _operators, "litert": _pieces}


def with_ops(bundle: Bundle, profile: Profile, *, progress: Progress = silent) -> Profile:
    """The profile with what each variant does in a request, at one length, and the peak of the machine.

    Of ONNX Runtime, every operator by its own profiler; of LiteRT, every piece of the graph, timed alone.

    Raises:
        DataError: the layers of the model are not known, or the operators of a variant cannot be told apart.
    """
    if not bundle.manifest.model.heads:
        raise DataError("--per-layer: the layers of a model of another framework are not known: leave it out")

    def look(variant: Variant, run: Run) -> Run:
        request = token_ids(run.tokens, batch=run.batch, vocab=bundle.manifest.model.vocab)
        found = _LOOKS[variant.engine](bundle, variant, request, run.threads)
        return msgspec.structs.replace(run, ops=found)

    measured = _each(bundle, profile, "measure layers", look, progress, engines=_LOOKS)
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
    engines: Collection[str] | None = None,
) -> Profile:
    """Replace the run of each variant at the length that stands for the others."""
    tokens = table.reference_length(profile)
    variants: dict[tuple[str, str], Variant] = {
        (v.engine, v.precision): v for v in bundle.manifest.variants if engines is None or v.engine in engines
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
