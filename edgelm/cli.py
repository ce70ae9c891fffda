"""Words for people: arguments in, tables and JSON out. What is done is done elsewhere."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from edgelm import console, show
from edgelm.errors import DataError, EdgelmError, MissingExtra
from edgelm.progress import silent

__all__ = ["app", "main"]


class _Commands(typer.core.TyperGroup):
    """The commands, with errors that were foreseen told in one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdgelmError as exc:
            _failed(str(exc), exc.exit_code)
        except KeyboardInterrupt:
            _failed("interrupted; nothing was left under the final name", 130)
        except BrokenPipeError:  # `edgelm run … | head` is no error, and the flush at exit must not make it one
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                _failed("the disk is full: free some space; nothing was left under the final name", 2)
            _failed(f"{exc.filename or 'input or output'}: {exc.strerror or exc}", 2)
        return None


app = typer.Typer(
    name="edgelm",
    cls=_Commands,
    help="A fine-tuned DistilBERT in, one file out that runs it, small and fast, on the device you name, with proof.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Argument, Option = typer.Argument, typer.Option
BundlePath = Annotated[Path, Argument(metavar="BUNDLE", help="A .edgelm file.")]
DataFile = Annotated[Path | None, Option("--data", metavar="FILE", help="JSON lines with 'text' and 'label'.")]
EngineName = Annotated[str | None, Option("--engine", help="Only this engine: onnxruntime or litert.")]
Html = Annotated[Path | None, Option("--html", metavar="FILE", help="Write a report for a browser.")]
Json = Annotated[str | None, Option("--json", metavar="FILE", help="Write one JSON object; - is standard output.")]
Lengths = Annotated[str | None, Option("--lengths", metavar="N,N", help="Token lengths, with commas between.")]
ModelName = Annotated[str, Argument(metavar="MODEL", help="A checkpoint folder or a hub id.")]
ModelOrFile = Annotated[
    str, Argument(metavar="MODEL", help="The same, or a .keras or .tflite file, or a SavedModel folder.")
]
PrecisionName = Annotated[str | None, Option("--precision", help="Only this precision: fp32 or int8-dynamic.")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")]
Threads = Annotated[int | None, Option("--threads", min=1, help="For the engine; physical cores if not given.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    show_version: Annotated[bool, Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        console.out.print(version("edgelm"))
    elif context.invoked_subcommand is None:
        console.out.print(context.get_help(), markup=False)


@app.command()
def build(
    recipe_path: Annotated[Path, Argument(metavar="RECIPE", help="What to build, in TOML.")],
    out: Annotated[Path | None, Option("--out", metavar="FILE", help="The bundle; build/NAME.edgelm.")] = None,
    html: Html = None,
    overrides: Set = None,
    json_out: Json = None,
) -> None:
    """Compress, export, check, bundle, profile, report."""
    with _needs("edgelm build", "all"):
        from edgelm import build as steps
        from edgelm import recipe
        from edgelm.bundle import Bundle
        from edgelm.profile import report
    located = recipe.read(recipe_path, overrides or ())
    out = out or Path("build") / f"{recipe_path.resolve().parent.name}.edgelm"
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_outputs(html, json_out)
    manifest, profile, compressed = steps.build(located, out, seconds=3.0, progress=console.progress)
    html = html or out.with_suffix(".html")
    bundle = Bundle(out)
    report.write(html, manifest, profile, bundle.downloads, title=out.stem)
    if json_out != "-":
        show.built(bundle, profile, html, steps.example(located, manifest))
        show.budget(compressed.report.get("budget"))
    _emit(json_out, "build", show.build_json(bundle) | {"compression": compressed.report})


@app.command()
def compress(
    model: ModelName,
    out: Annotated[Path | None, Option("--out", metavar="DIR", help="The compressed checkpoint.")] = None,
    recipe_path: Annotated[Path | None, Option("--recipe", metavar="FILE", help="How, in TOML.")] = None,
    data: DataFile = None,
    macs: Annotated[float | None, Option("--macs", min=1.0, help="Divide the encoder's work by this.")] = None,
    p50: Annotated[float | None, Option("--p50", metavar="MS", help="Prune to this latency; see [budget].")] = None,
    plan: Annotated[bool, Option("--plan", help="Say what would be done and what it would give; do nothing.")] = False,
    overrides: Set = None,
    json_out: Json = None,
) -> None:
    """Trim the vocabulary, prune and distil: a smaller checkpoint."""
    with _needs("edgelm compress", "compress"):
        from edgelm import checkpoint, recipe
        from edgelm import compression as steps
        from edgelm.compress.world import world
    _check_outputs(json_out)
    if not plan:
        if out is None:
            raise DataError("expected --out DIR, or --plan")
        checkpoint.check_target(out)
    given = [f"data.train={json.dumps(str(data.resolve()))}"] if data else []
    given += [f"prune.macs={macs}"] if macs else []
    given += [f"budget.p50_ms={p50}"] if p50 else []
    overrides = [*given, *(overrides or ())]
    located = recipe.read(recipe_path, overrides) if recipe_path else recipe.of(overrides)
    if out is None or plan:
        planned = steps.plan(located.with_model(model), progress=console.progress)
        if json_out != "-":
            show.planned(planned)
        _emit(json_out, "plan", planned)
        return
    first = world().first  # under `accelerate launch` one process speaks and writes for all
    compressed = steps.compress(located.with_model(model), out=out, progress=console.progress if first else silent)
    if not first:
        return
    steps.save(compressed, out)
    found = steps.summary(compressed, located)
    if json_out != "-":
        show.compressed(found, out)
    _emit(json_out, "compress", {"out": str(out), **found})


@app.command()
def export(
    model: ModelOrFile,
    device: Annotated[str, Option("--device", help="The target; edgelm devices lists them.")],
    out: Annotated[Path, Option("--out", metavar="FILE", help="The bundle.")],
    formats: Annotated[list[str] | None, Option("--format", help="onnx or tflite; both if not given.")] = None,
    precisions: Annotated[list[str] | None, Option("--precision", help="fp32 or int8-dynamic.")] = None,
    lengths: Lengths = None,
    packed: Annotated[str | None, Option("--compress", help="The bundle: none or deflate.")] = None,
    data: DataFile = None,
    tokenizer: Annotated[Path | None, Option("--tokenizer", metavar="FILE", help="Of a model of TensorFlow.")] = None,
    labels: Annotated[Path | None, Option("--labels", metavar="FILE", help="The same; one label a line.")] = None,
    json_out: Json = None,
) -> None:
    """Export a checkpoint or a model of TensorFlow, check every variant against it, bundle."""
    with _needs("edgelm export", "export"):
        from edgelm import build as steps
        from edgelm import recipe
        from edgelm.bundle import Bundle
        from edgelm.compression import compress
        from edgelm.exporters import foreign
        from edgelm.exporters.companions import companions
    _check_outputs(out, json_out)
    wanted: dict[str, Any] = {"device": device, "formats": formats or None, "precisions": precisions or None}
    wanted |= {"compress": packed}
    wanted |= {"lengths": _numbers(lengths, "--lengths")} if lengths else {}
    dev = {"dev": str(data.resolve())} if data else {}
    located = recipe.of(data=dev, export={key: value for key, value in wanted.items() if value is not None})
    located = located.with_model(model)
    if data is None:
        console.err.print("[dim]no --data: parity is checked on the 200 sample texts that ship with edgelm[/dim]")
    if foreign.recognised(model):
        beside = companions(Path(model), tokenizer, labels)
        assert located.recipe.export is not None  # it was given above
        found = foreign.read(Path(model), beside, located.recipe.export.lengths)
        steps.export(found, located, out, progress=console.progress)
    else:
        if tokenizer or labels:
            raise DataError("--tokenizer and --labels are for models of TensorFlow: a checkpoint folder has its own")
        steps.export(compress(located), located, out, progress=console.progress)
    bundle = Bundle(out)
    if json_out != "-":
        show.exported(bundle)
    _emit(json_out, "export", show.build_json(bundle))


@app.command()
def run(
    bundle: BundlePath,
    texts: Annotated[list[str] | None, Argument(metavar="[TEXT]...", help="Lines of standard input if none.")] = None,
    device: Annotated[str, Option("--device", help="auto or cpu.")] = "auto",
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    top_k: Annotated[int | None, Option("--top-k", min=1, help="This many labels a text.")] = None,
    explain: Annotated[bool, Option("--explain", help="Say what runs where, and why.")] = False,
    json_out: Json = None,
) -> None:
    """Answer: one label for each text."""
    import edgelm

    lines = list(texts) if texts else list(_stdin_lines())
    with edgelm.load(bundle, device=device, engine=engine, precision=precision, threads=threads) as model:
        found = model(lines) if top_k is None else model(lines, top_k=top_k)
        facts = model.explain()
    if explain:
        console.err.print_json(json.dumps(facts))
    if json_out != "-":
        show.answers(lines, found)
    _emit(json_out, "run", {"answers": found, "model": facts})


@app.command("eval")
def evaluate(
    bundle: BundlePath,
    data: Annotated[Path, Option("--data", metavar="FILE", help="JSON lines with 'text' and 'label'.")],
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    json_out: Json = None,
) -> None:
    """The task metric of each variant, on this machine."""
    from edgelm.evaluate import evaluate_bundle

    _check_outputs(json_out)
    results = evaluate_bundle(
        bundle, data, engine=engine, precision=precision, threads=threads, progress=console.progress
    )
    if json_out != "-":
        show.scores(results)
    _emit(json_out, "eval", {"results": results})


@app.command()
def profile(
    bundle: BundlePath,
    device: Annotated[str, Option("--device", help="auto or cpu.")] = "auto",
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    tokens: Annotated[str, Option("--tokens", metavar="N,N", help="Lengths to measure.")] = "16,32,64,128",
    seconds: Annotated[float, Option("--seconds", min=0.0, help="For each length, at least.")] = 5.0,
    html: Html = None,
    json_out: Json = None,
) -> None:
    """Latency and memory of each variant, on this machine."""
    from edgelm.bundle import Bundle
    from edgelm.predictor import check_device
    from edgelm.profile.measure import profile_bundle

    check_device(device)
    _check_outputs(html, json_out)
    if html:
        with _needs("the HTML report", "report"):
            from edgelm.profile import report
    measured = profile_bundle(
        bundle,
        engines=[engine] if engine else None,
        precisions=[precision] if precision else None,
        tokens=_numbers(tokens, "--tokens"),
        threads=threads,
        seconds=seconds,
        progress=console.progress,
    )
    if html:
        opened = Bundle(bundle)
        report.write(html, opened.manifest, measured, opened.downloads, title=bundle.stem)
    if json_out != "-":
        show.profiled(measured)
    _emit(json_out, "profile", show.profile_json(measured))


@app.command()
def inspect(bundle: BundlePath, json_out: Json = None) -> None:
    """What is inside a bundle."""
    from edgelm.bundle import Bundle

    opened = Bundle(bundle)
    if json_out != "-":
        show.inspected(opened)
    _emit(json_out, "inspect", show.inspect_json(opened))


@app.command()
def devices(
    name: Annotated[str | None, Argument(metavar="[NAME]", help="One of them, in full.")] = None, json_out: Json = None
) -> None:
    """Known targets."""
    from edgelm import devices as profiles
    from edgelm.devices.machine import detect
    from edgelm.schema import to_dict

    here = detect()
    chosen = [profiles.load(one) for one in ([name] if name else profiles.names())]
    if json_out != "-":
        show.device(chosen[0]) if name else show.devices(chosen, here)
    _emit(json_out, "devices", {"devices": [to_dict(one) for one in chosen], "this_machine": here})


@app.command()
def doctor(json_out: Json = None) -> None:
    """What this machine has and lacks."""
    from edgelm.doctor import examine

    found = examine()
    if json_out != "-":
        show.doctor(found)
    _emit(json_out, "doctor", found)


def main() -> None:
    """Run the command line. Exit codes: 0 done; 1 a gate failed; 2 bad usage or input, in one line; 130 interrupted."""
    console.log_to_terminal()
    app()


def _failed(message: str, code: int) -> NoReturn:
    console.err.print(f"edgelm: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)


def _emit(target: str | None, command: str, found: dict[str, Any]) -> None:
    """Write the JSON object of a command; ``-`` is standard output."""
    if target is None:
        return
    text = json.dumps({"schema": f"edgelm.{command}/1", "edgelm": version("edgelm"), **found}, indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    from edgelm.bundle import staged

    with staged(Path(target)) as staging:
        staging.write_text(text, encoding="utf-8")


def _check_outputs(*paths: Path | str | None) -> None:
    """Refuse a file in a folder that is not there, before the work and not after it."""
    for path in paths:
        if path is not None and path != "-" and not Path(path).absolute().parent.is_dir():
            raise DataError(f"{path}: the folder it is to be written to is not there; make it first")


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise DataError(f"{option} {text}: expected whole numbers with commas between, as in 16,32") from exc


def _stdin_lines() -> Iterator[str]:
    """Lines of standard input that are not blank, as text."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise DataError(f"standard input, line {number}: expected UTF-8 text, found other bytes") from exc
        if "\0" in text:
            raise DataError(f"standard input, line {number}: expected text, found binary data")
        if text.strip():
            yield text


@contextmanager
def _needs(what: str, extra: str) -> Iterator[None]:
    """Turn a missing package into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] == "edgelm":
            raise
        raise MissingExtra(what, extra) from exc
