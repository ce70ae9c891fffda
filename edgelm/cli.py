"""Words for people: arguments in, tables and JSON out. No logic lives here."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from edgelm import console

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgelm",
    help="A fine-tuned DistilBERT in, one file out that runs it, small and fast, on the device you name, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write one JSON object; - for standard output.")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="Only this engine: onnxruntime, litert.")]
PrecisionName = Annotated[str | None, typer.Option("--precision", help="Only this precision: fp32, int8-dynamic.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads for the engine; physical cores if not given.")
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .edgelm file.")]


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        console.out.print(version("edgelm"))
        raise typer.Exit


@app.command()
def build(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe in TOML.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The bundle to write; build/NAME.edgelm if not given.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="The report to write; beside the bundle if not given.")
    ] = None,
    overrides: Set = None,
    json_out: Json = None,
) -> None:
    """Compress, export, check, bundle, profile, report."""
    from edgelm import recipe

    steps = _build_side("edgelm build", "export")
    located = recipe.read(recipe_path, overrides or [])
    out = out or Path("build") / f"{recipe_path.resolve().parent.name}.edgelm"
    html = html or out.with_suffix(".html")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = _report_side("edgelm build")
    manifest, profile, compressed = steps.build(located, out, progress=console.progress)
    report.write(html, manifest, profile, title=out.stem)
    _emit(json_out, "build", steps.summary(out, manifest, profile, compressed) | {"report": str(html)})
    ...
