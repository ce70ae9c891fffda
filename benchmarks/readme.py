"""Writes the README's figures from committed results; ``--check`` only says whether they are the same.

A block stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->``; nobody edits it by hand.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from peers_page import overview, words_first

from edgelm.bundle import staged
from edgelm.profile.table import TIMES, Table, markdown
from peer.figures import TOKENS, timed, verdicts

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Write the README, or fail when ``--check`` finds it out of date."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = rendered(before, blocks(_read("main_job"), _read("compression")) | {"peers": _peers(_read("peers"))})
    if "--check" in sys.argv:
        sys.exit("README.md: figures differ from benchmarks/: run make readme" if before != after else 0)
    with staged(readme) as staging:
        staging.write_text(after, encoding="utf-8")


def rendered(text: str, content: dict[str, str]) -> str:
    """The text with each of its blocks replaced.

    Raises:
        ValueError: a block is missing in the text.
    """
    for name, block in content.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"expected a block {begin.strip()} … {end}, found none")
        text = text[: text.index(begin)] + begin + block + text[text.index(end) :]
    return text


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8")))


def blocks(result: dict[str, Any], compression: dict[str, Any]) -> dict[str, str]:
    """The README's blocks, as Markdown."""
    columns, rows = tuple(result["demo"]["columns"]), tuple(map(tuple, result["demo"]["rows"]))
    return {
        "demo": markdown(Table("", columns, rows)) + "\n" + _machine(result) + "\n",
        "accuracy": markdown(_accuracy(result)),
        "compression": markdown(_compression(compression)),
        "wall times": _times(result) + "\n",
    }


def _accuracy(result: dict[str, Any]) -> Table:
    """Held-out accuracy: the assistant after pruning, and a teacher exported as it is."""
    assistant = [
        (f"{r['engine']} {r['precision']}", "CLINC150 dev, the assistant", f"{r['value']:.4f}", str(r["n"]))
        for r in result["clinc150"]["bundle"]
    ]
    reference = ("PyTorch, before pruning", assistant[0][1], f"{result['clinc150']['reference']:.4f}", assistant[0][3])
    teacher = [
        (f"{r['engine']} {r['precision']}", "SST-2 dev, a teacher as it is", f"{r['value']:.4f}", str(r["n"]))
        for r in result["sst2"]
    ]
    return Table("", ("variant", "data", "accuracy", "texts"), (reference, *assistant, *teacher))


def _compression(result: dict[str, Any]) -> Table:
    """What the strongest recipes keep, and what they take."""
    rows = [
        (
            row["recipe"],
            {"clinc150": "CLINC150", "sst2": "SST-2"}[row["task"]],
            {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}[variant["engine"]],
            f"{row['teacher']:.4f}",
            f"{variant['accuracy']:.4f}",
            f"{variant['bytes'] / 1e6:.1f} MB",
            f"1/{row['fp32_checkpoint_bytes'] / variant['bytes']:.0f}",
            f"{variant['faster']:.1f}{TIMES}",
        )
        for row in result["rows"]
        if row["recipe"] in ("smallest", "fastest")
        for variant in row["variants"]
    ]
    columns = ("recipe", "task", "int8 on", "teacher", "accuracy", "size", "of its fp32", "faster than its int8")
    return Table("", columns, tuple(rows))


def _peers(result: dict[str, Any]) -> str:
    """How others do with the same checkpoints, and whether what was aimed at is reached."""
    parts = result["parts"]
    machine = _machine(parts[timed(parts)[0]])
    said = f"Milliseconds are of the median request of {TOKENS} tokens, the others of {timed(parts)[-1]}. {machine}"
    lines = "\n".join(_filled(f"- {line}", "  ") for line in verdicts(parts))
    return f"{lines}\n\n{words_first(overview(parts))}\n\n{_filled(said)}\n"


def _filled(words: str, indent: str = "") -> str:
    return textwrap.fill(words, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _times(result: dict[str, Any]) -> str:
    minutes = {name: f"{seconds / 60:.1f} min" for name, seconds in result["seconds"].items()}
    return (
        f"Setting up took {minutes['set up']}, `make demo` {minutes['make demo']} and `make test` "
        f"{minutes['make test']} from a fresh clone. {_machine(result)}"
    )


def _machine(result: dict[str, Any]) -> str:
    found = result["machine"]
    return (
        f"Machine: {found['cpu']}, {found['cores']} cores, {found['memory_bytes'] / 2**30:.0f} GiB, {found['system']}."
    )


if __name__ == "__main__":
    main()
