"""The command line: train and evaluate, classify scans, export a classifier."""

import argparse
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from braintumor.config import PRECISIONS, PRESETS, PROTOCOLS, UNREADABLE

if TYPE_CHECKING:  # imported where they are needed: an answer should not wait for Keras
    from braintumor.app.engines import Classifier
    from braintumor.app.readers import Source
    from braintumor.config import Settings

# settings of a preset that options of ``train`` can replace, and their types
CHANGEABLE_SETTINGS = {
    "protocol": str,
    "recipe": str,
    "weights": str,
    "image_size": int,
    "batch_size": int,
    "epochs": int,
    "precision": str,
    "unreadable": str,
}
# what their help says; nothing where it is a number
CHOICES = {
    "protocol": PROTOCOLS,
    "precision": PRECISIONS,
    "unreadable": UNREADABLE,
}
SCORE_COLUMNS = [
    "model",
    "subset",
    "n",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
]
EXPORT_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
STOPPED = 130  # the exit status after Ctrl-C
# what a person can do something about: shown as a sentence, without a traceback
EXPECTED_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    RuntimeError,
    MemoryError,
    FloatingPointError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the name of the program; None: as it was started.

    Returns:
        The exit status: 1 where a file could not be read or nobody reads the answers,
        130 after Ctrl-C, else 0.

    Raises:
        SystemExit: The command failed, or its options are wrong; holds a sentence that
            says why, or the status 2 after argparse has said it.
    """
    options = build_parser().parse_args(arguments)
    _show_any_letter()
    try:
        return options.run(options)
    except BrokenPipeError:  # who reads the answers has read enough, such as head
        _close_stdout()
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED
    except EXPECTED_ERRORS as error:
        sys.exit(f"{error}")


def _show_any_letter() -> None:
    """Let a terminal show letters that it lacks as numbers, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """Let what is still to be printed go nowhere, or Python complains at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; ``run`` of its result is the chosen one."""
    parser = argparse.ArgumentParser(
        prog="python -m braintumor", description="Research only, not for diagnosis."
    )
    commands = parser.add_subparsers(required=True, dest="command")
    _add_train(commands)
    _add_classify(commands)
    _add_export(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train and evaluate a model as the notebooks do; goes on where it stopped",
    )
    parser.set_defaults(run=train)
    parser.add_argument("--model", required=True, help="vgg16 or resnet50")
    parser.add_argument(
        "--preset", default="sample", help=f"{_listed(PRESETS)} (default: sample)"
    )
    parser.add_argument("--seed", type=int, default=0)
    for name, kind in CHANGEABLE_SETTINGS.items():
        option = "--" + name.replace("_", "-")
        text = "in place of the preset's"
        if name in CHOICES:
            text = f"{_listed(CHOICES[name])}; {text}"
        parser.add_argument(option, type=kind, help=text)
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="share batches with all processes of this launch (JAX)",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 is, if the launcher does not tell",
    )
    parser.add_argument(
        "--processes",
        type=int,
        help="how many processes there are, if the launcher does not tell",
    )
    parser.add_argument(
        "--process",
        type=int,
        help="which of them this is, from 0, if the launcher does not tell",
    )


def _listed(choices: Iterable[str]) -> str:
    """The choices of an option, as its help names them."""
    *first, last = choices
    return f"{', '.join(first)} or {last}"


def _add_classify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "classify", help="what a classifier says of images and folders of them"
    )
    parser.set_defaults(run=classify)
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="JPEG, PNG, TIFF, ..., DICOM, or a folder",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument(
        "--into",
        type=Path,
        help="write a CSV file; given again, it goes on after the last file in it",
    )
    parser.add_argument(
        "--model",
        help="a classifier: ....onnx, ....keras, or its URL (default: that of models/)",
    )
    _add_checksum(parser)


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="write a classifier in another format")
    parser.set_defaults(run=export)
    parser.add_argument("--to", required=True, choices=list(EXPORT_ENDINGS))
    parser.add_argument(
        "--into",
        required=True,
        type=Path,
        help="the file to write: ....onnx, or ....xml for OpenVINO",
    )
    parser.add_argument(
        "--model", required=True, help="a classifier: braintumor-....keras, or its URL"
    )
    _add_checksum(parser)


def _add_checksum(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sha256", help="its checksum, which is compared")


def settings_from_options(options: argparse.Namespace) -> "Settings":
    """Make the settings that the options of ``train`` ask for.

    Args:
        options: Of ``build_parser``.

    Returns:
        The preset's settings, changed where an option says so.

    Raises:
        ValueError: There is no such preset, or a setting is out of range.
    """
    from braintumor import config

    changes = {}
    for name in CHANGEABLE_SETTINGS:
        value = getattr(options, name)
        if value is not None:
            changes[name] = value
    return config.settings_from(options.preset, seed=options.seed, **changes)


def train(options: argparse.Namespace) -> int:
    """Train and evaluate; print the scores and write them to metrics.csv.

    Args:
        options: Of ``build_parser``.

    Returns:
        The exit status, 0.
    """
    from braintumor import runs

    settings = settings_from_options(options)
    place = (options.coordinator, options.processes, options.process)
    if options.cluster or any(value is not None for value in place):
        from braintumor.support import cluster

        with cluster.join(*place) as share:
            run = cluster.train_and_evaluate(settings, options.model, share)
        if run is None:  # the first process alone evaluates
            return 0
    else:
        run = runs.train_and_evaluate(settings, options.model)
    scores = runs.metrics_table([run])
    print(scores[SCORE_COLUMNS].to_string(index=False))
    runs.write_all_metrics(settings.results_dir)
    return 0


def classify(options: argparse.Namespace) -> int:
    """Print, or write, the answers to all files that the options name.

    Args:
        options: Of ``build_parser``.

    Returns:
        The exit status: 1 where a file could not be read, else 0.
    """
    from braintumor.app import engines, readers

    files = readers.images_in(options.paths)
    if options.into:
        return _write_csv(files, options)
    classifier = engines.load_classifier(options.model, options.sha256)
    if options.json:
        return _print_json(files, classifier)
    return _print_lines(files, classifier)


def _print_lines(files: "list[Source]", classifier: "Classifier") -> int:
    """Print a line for each page; 1 where a file could not be read."""
    # no tables here: pandas takes longer to import than an answer
    from braintumor.app import answers

    status = 0
    for batch in answers.answer_batches(files, classifier):
        for answer in batch:
            print(f"{answer.file}: {answer.problem or answer.says}")
            if answer.problem:
                status = 1
        sys.stdout.flush()
    return status


def _print_json(files: "list[Source]", classifier: "Classifier") -> int:
    """Print a JSON object for each page; 1 where a file could not be read."""
    from braintumor.app import classify as tables

    status = 0
    for table in tables.classify_batches(files, classifier):
        print(table.to_json(orient="records", lines=True), end="", flush=True)
        if (table["problem"] != "").any():
            status = 1
    return status


def _write_csv(files: "list[Source]", options: argparse.Namespace) -> int:
    """Append answers to those a CSV file has; 1 where a file could not be read."""
    from braintumor.app import answers, engines
    from braintumor.app.answer_file import AnswerFile
    from braintumor.app.readers import shown_name

    file = engines.find_classifier(options.model, options.sha256)
    classifier = engines.open_classifier(file)
    answer_file = AnswerFile(options.into, classifier.card["labels"], file)
    named = {shown_name(path): path for path in files}
    answered = answer_file.resume(files)
    remaining = [path for name, path in named.items() if name not in answered]
    status = int(any(answered.values()))
    count = len(answered)
    for batch in answers.answer_batches(remaining, classifier):
        answer_file.append(batch)
        count += len({answer.file for answer in batch})
        progress = f"{count:,} of {len(named):,} files"
        print(progress, end="\r", file=sys.stderr, flush=True)
        if any(answer.problem for answer in batch):
            status = 1
    print(file=sys.stderr)
    return status


def export(options: argparse.Namespace) -> int:
    """Write a classifier in another format.

    Args:
        options: Of ``build_parser``.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: The classifier is no Keras file, or the name ends otherwise.
    """
    from braintumor.app import engines, release

    ending = EXPORT_ENDINGS[options.to]
    if options.into.suffix.lower() != ending:
        raise ValueError(f"--into {options.into.name} must end with {ending}.")
    classifier = engines.load_classifier(options.model, options.sha256)
    if not release.is_exportable(classifier):
        raise ValueError(
            "An ONNX file is no classifier to export from: name a braintumor-....keras."
        )
    release.export(classifier.network, options.to, options.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
