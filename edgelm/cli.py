"""Words for people: arguments in, tables and JSON out. What is done is done elsewhere."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer
import typer.core

from edgelm import cli_profile, console, show, show_prediction
from edgelm.errors import DataError, EdgelmError
from edgelm.manifest import Precision
from edgelm.options import (
    BundlePath,
    EngineName,
    Html,
    Json,
    PrecisionName,
    Threads,
    check_outputs,
    emit,
    needs,
    numbers,
)
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
AllowCpuOps = Annotated[bool, Option("--allow-cpu-ops", help="Let the CPU compute what the device cannot.")]
DeviceName = Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:1, tensorrt, openvino, …")]
DataFile = Annotated[Path | None, Option("--data", metavar="FILE", help="JSON lines, as the task has them.")]
Lengths = Annotated[str | None, Option("--lengths", metavar="N,N", help="Token lengths, with commas between.")]
ModelName = Annotated[str, Argument(metavar="MODEL", help="A checkpoint folder or a hub id.")]
ModelOrFile = Annotated[str, Argument(metavar="MODEL", help="The same; or a .keras or .tflite file, or a SavedModel.")]
PrecisionNames = Annotated[list[str] | None, Option("--precision", help=f"{', '.join(get_args(Precision))}.")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")]


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
    with needs("edgelm build", "all"):
        from edgelm import build as steps
        from edgelm import recipe
        from edgelm.bundle import Bundle
        from edgelm.profile import report
    located = recipe.read(recipe_path, overrides or ())
    out = out or Path("build") / f"{recipe_path.resolve().parent.name}.edgelm"
    out.parent.mkdir(parents=True, exist_ok=True)
    check_outputs(html, json_out)
    manifest, profile, compressed = steps.build(located, out, seconds=3.0, progress=console.progress)
    html = html or out.with_suffix(".html")
    bundle = Bundle(out)
    prediction = steps.predict(compressed, located, manifest)
    expected = show_prediction.expected(prediction)
    report.write(html, manifest, profile, bundle.downloads, title=out.stem, expected=expected)
    if json_out != "-":
        show_prediction.predicted(prediction)
        show.built(bundle, profile, html, steps.example(located, compressed))
        show.budget(compressed.report.get("budget"))
    found = show.build_json(bundle) | {"compression": compressed.report, "prediction": asdict(prediction)}
    emit(json_out, "build", found)


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
    with needs("edgelm compress", "compress"):
        from edgelm import checkpoint, recipe
        from edgelm import compression as steps
        from edgelm.compress.world import world
    check_outputs(json_out)
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
        emit(json_out, "plan", planned)
        return
    first = world().first  # under `accelerate launch` one process speaks and writes for all
    compressed = steps.compress(located.with_model(model), out=out, progress=console.progress if first else silent)
    if not first:
        return
    steps.save(compressed, out)
    found = steps.summary(compressed, located)
    if json_out != "-":
        show.compressed(found, out)
    emit(json_out, "compress", {"out": str(out), **found})


@app.command()
def export(
    model: ModelOrFile,
    device: Annotated[str, Option("--device", help="The target; edgelm devices lists them.")],
    out: Annotated[Path, Option("--out", metavar="FILE", help="The bundle.")],
    formats: Annotated[
        list[str] | None, Option("--format", help="onnx, tflite, …; what the device likes if not given.")
    ] = None,
    precisions: PrecisionNames = None,
    lengths: Lengths = None,
    pooling: Annotated[str | None, Option("--pooling", help="One vector a text: mean or cls.")] = None,
    normalize: Annotated[bool, Option("--normalize", help="Vectors of length 1.")] = False,
    packed: Annotated[str | None, Option("--compress", help="The bundle: none or deflate.")] = None,
    data: DataFile = None,
    tokenizer: Annotated[Path | None, Option("--tokenizer", metavar="FILE", help="Of a model of TensorFlow.")] = None,
    labels: Annotated[Path | None, Option("--labels", metavar="FILE", help="The same; one label a line.")] = None,
    json_out: Json = None,
) -> None:
    """Export a checkpoint or a model of TensorFlow, check every variant against it, bundle."""
    with needs("edgelm export", "export"):
        from edgelm import build as steps
        from edgelm import recipe
        from edgelm.bundle import Bundle
    check_outputs(out, json_out)
    wanted: dict[str, Any] = {"device": device, "formats": formats or None, "precisions": precisions or None}
    wanted |= {"compress": packed}
    wanted |= {"lengths": numbers(lengths, "--lengths")} if lengths else {}
    dev = {"dev": str(data.resolve())} if data else {}
    features = {"pooling": pooling, "normalize": normalize} if pooling else None
    if normalize and not pooling:
        raise DataError("--normalize: expected --pooling mean or cls with it")
    given = {key: value for key, value in wanted.items() if value is not None}
    located = recipe.of(data=dev, features=features, export=given)
    located = located.with_model(model)
    if data is None:
        console.err.print("[dim]no --data: parity is checked on the 200 sample texts that ship with edgelm[/dim]")
    source = steps.source(located, tokenizer, labels)
    manifest = steps.export(source, located, out, progress=console.progress)
    prediction, bundle = steps.predict(source, located, manifest), Bundle(out)
    if json_out != "-":
        show.exported(bundle)
        show_prediction.predicted(prediction)
    emit(json_out, "export", show.build_json(bundle) | {"prediction": asdict(prediction)})


@app.command()
def run(
    bundle: BundlePath,
    texts: Annotated[list[str] | None, Argument(metavar="[TEXT]...", help="Lines of standard input if none.")] = None,
    device: DeviceName = "auto",
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    allow_cpu_ops: AllowCpuOps = False,
    top_k: Annotated[int | None, Option("--top-k", min=1, help="This many answers a text, best first.")] = None,
    context: Annotated[str | None, Option("--context", metavar="TEXT", help="Where answers to questions are.")] = None,
    aggregation: Annotated[
        str | None, Option("--aggregation", help="Join tokens to entities: simple, first, average or max.")
    ] = None,
    explain: Annotated[bool, Option("--explain", help="Say what runs where, and why.")] = False,
    json_out: Json = None,
) -> None:
    """Answer each text: a label, entities, what is behind a mask, a vector, or the answer to it in a context."""
    import edgelm

    lines = list(texts) if texts else list(_stdin_lines())
    inputs = lines if context is None else [{"question": line, "context": context} for line in lines]
    options = {"top_k": top_k, "aggregation_strategy": aggregation}
    narrowed = functools.partial(edgelm.load, engine=engine, precision=precision, threads=threads)
    with narrowed(bundle, device=device, allow_cpu_ops=allow_cpu_ops) as model:
        found = model(inputs, **{name: value for name, value in options.items() if value is not None})
        facts = model.explain()
    if explain:
        console.err.print_json(json.dumps(facts))
    if json_out != "-":
        show.answers(lines, found)
    emit(json_out, "run", {"answers": found, "model": facts})


@app.command("eval")
def evaluate(
    bundle: BundlePath,
    data: Annotated[Path, Option("--data", metavar="FILE", help="JSON lines, as the task has them.")],
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    json_out: Json = None,
) -> None:
    """The task metric of each variant, on this machine."""
    from edgelm.evaluate import evaluate_bundle

    check_outputs(json_out)
    results = evaluate_bundle(
        bundle, data, engine=engine, precision=precision, threads=threads, progress=console.progress
    )
    if json_out != "-":
        show.scores(results)
    emit(json_out, "eval", {"results": results})


app.command()(cli_profile.profile)
app.command()(cli_profile.compare)


@app.command()
def inspect(bundle: BundlePath, json_out: Json = None) -> None:
    """What is inside a bundle."""
    from edgelm.bundle import Bundle

    opened = Bundle(bundle)
    if json_out != "-":
        show.inspected(opened)
    emit(json_out, "inspect", show.inspect_json(opened))


@app.command()
def verify(
    bundle: BundlePath,
    device: DeviceName = "auto",
    threads: Threads = None,
    json_out: Json = None,
) -> None:
    """Hashes, and golden outputs of every variant on this machine."""
    from edgelm.predictor import place
    from edgelm.verify import verify as check

    check_outputs(json_out)
    found = check(bundle, threads=threads, where=place(device), progress=console.progress)
    if json_out != "-":
        show.verified(found)
    emit(json_out, "verify", found)
    if not found["ok"]:
        _failed(f"{bundle}: not as it should be on this machine", 1)


@app.command()
def devices(
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="One of them, in full; detect measures this machine.")
    ] = None,
    out: Annotated[Path | None, Option("--out", metavar="FILE.toml", help="Of detect: write a profile.")] = None,
    json_out: Json = None,
) -> None:
    """Known targets."""
    from edgelm import devices as profiles
    from edgelm.devices.machine import detect
    from edgelm.schema import to_dict

    check_outputs(out, json_out)
    here = detect()
    if name == "detect":
        from edgelm.profile.detect import write

        found = write(out)
        if json_out != "-":
            show.device(found)
        emit(json_out, "devices", {"devices": [to_dict(found)], "this_machine": here})
        return
    chosen = [profiles.load(one) for one in ([name] if name else profiles.names())]
    if json_out != "-":
        show.device(chosen[0]) if name else show.devices(chosen, here)
    emit(json_out, "devices", {"devices": [to_dict(one) for one in chosen], "this_machine": here})


@app.command()
def doctor(
    clear_cache: Annotated[bool, Option("--clear-cache", help="Forget what was measured here.")] = False,
    json_out: Json = None,
) -> None:
    """What this machine has and lacks."""
    from edgelm.doctor import examine

    if clear_cache:
        from edgelm.runtimes.cache import clear

        console.err.print(f"forgot {clear()} files")
    found = examine()
    if json_out != "-":
        show.doctor(found)
    emit(json_out, "doctor", found)


def main() -> None:
    """Run the command line. Exit codes: 0 done; 1 a gate failed; 2 bad usage or input, in one line; 130 interrupted."""
    console.log_to_terminal()
    app()


def _failed(message: str, code: int) -> NoReturn:
    console.err.print(f"edgelm: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)


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
