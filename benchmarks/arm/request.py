"""One request to one variant of a bundle, between two markers that ``counter.c`` knows.

It runs on the emulated core and, as the reference, on the machine itself, where the markers mean nothing. It needs
numpy, msgspec and the engine.

usage: python request.py BUNDLE FILE TOKENS        prints JSON: the engine's version, the logits
"""

from __future__ import annotations

import ctypes
import json
import sys

from edgelm.bundle import Bundle
from edgelm.profile.inputs import token_ids
from edgelm.runtimes import engine

BEGIN, END = 0x45444731, 0x45444730  # as in counter.c
WARMUP = 2  # the first request allocates and packs weights, which later ones do not


def main() -> None:
    """Load, warm up, and run the request that counts."""
    path, file, tokens = sys.argv[1:]
    bundle = Bundle(path)
    name = next(variant.engine for variant in bundle.manifest.variants if variant.file == file)
    session = engine(name).load(bundle.read(file), threads=1)
    inputs = token_ids(int(tokens), batch=1, vocab=bundle.manifest.model.vocab)
    for _ in range(WARMUP):
        session.run(*inputs)
    mark = ctypes.CDLL(None).prctl
    mark(BEGIN)
    logits = session.run(*inputs)
    mark(END)
    print(json.dumps({"version": session.explain()["version"], "logits": logits[0].tolist()}))


if __name__ == "__main__":
    main()
