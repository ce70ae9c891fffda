"""What is measured: the variants of a bundle that can run here, loaded, and others beside them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass

from edgelm.bundle import Bundle
from edgelm.manifest import Manifest, Variant
from edgelm.profile import memory
from edgelm.runs import Fresh
from edgelm.runtimes import Ids, load
from edgelm.runtimes.choose import able
from edgelm.runtimes.place import CPU, Place

__all__ = ["Extra", "choose", "loaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Something that can be measured: a variant of a bundle, or something beside them such as the original in PyTorch.

    Attributes:
        engine: its name in the profile: ``pytorch`` for the original.
        precision: named as that of a variant.
        run: takes ``input_ids`` and ``attention_mask``, int32, shape (batch, tokens).
        fresh: gives, for a number of tokens, what a fresh process tells; None when that is not known.
        provider: what it runs on.
    """

    engine: str
    precision: str
    run: Callable[[Ids, Ids], object]
    fresh: Callable[[int], Fresh | None] = lambda tokens: None
    provider: str = ""


def choose(
    manifest: Manifest,
    engines: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    place: Place = CPU,
) -> list[Variant]:
    """The variants of a bundle that can run on a device of this machine, in its order.

    Args:
        manifest: of the bundle.
        engines: only these, which must be able to run here; all that can when not given.
        precisions: only these; all when not given, and on a GPU fp16.
        place: where to run.

    Raises:
        DeviceUnavailable: the bundle has nothing that was asked for, or this machine cannot run it; with the cure.
    """
    asked = itertools.product(engines or (None,), precisions or (None,))
    found = [variant for name, precision in asked for variant in able(manifest, name, precision, place.device)]
    return [variant for variant in manifest.variants if variant in found]


def loaded(
    stack: ExitStack, bundle: Bundle, variant: Variant, *, threads: int, batch: int = 1, place: Place = CPU
) -> Extra:
    """A variant, loaded until the stack is left.

    Raises:
        BundleError: its engine does not take it.
        DeviceUnavailable: it would not really, or not wholly, run there.
    """
    session, where = load(bundle, variant, threads=threads, place=place), str(place)
    stack.callback(session.close)
    return Extra(
        engine=variant.engine,
        precision=variant.precision,
        run=session.run,
        fresh=lambda tokens: memory.fresh(
            bundle.path, variant.file, tokens=tokens, threads=threads, batch=batch, device=where
        ),
        provider=str(session.explain().get("provider", "")),
    )
