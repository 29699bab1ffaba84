"""On the command line: train and judge, ask a classifier about your scans, or write it in another format."""

import argparse
import sys
from pathlib import Path

CHANGES = {
    "protocol": str,
    "recipe": str,
    "weights": str,
    "image_size": int,
    "batch_size": int,
    "epochs": int,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 where a file could not be read; else SystemExit says why."""
    options = commands().parse_args(arguments)
    command = {"train": train, "classify": classify, "export": export}[options.command]
    try:
        return command(options)
    except (
        OSError,
        ValueError,
        ImportError,
        RuntimeError,
        MemoryError,
        FloatingPointError,
    ) as error:
        sys.exit(f"{error}")


def commands() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m braintumor", description="Research only, not for diagnosis."
    )
    several = parser.add_subparsers(required=True, dest="command")
    fit = several.add_parser(
        "train",
        help="train and judge a model, as the notebooks do; goes on where it stopped",
    )
    fit.add_argument("--model", required=True, help="vgg16 or resnet50")
    fit.add_argument(
        "--preset",
        default="sample",
        help="sample (the default), cpu, cpu-scratch or full",
    )
    fit.add_argument("--seed", type=int, default=0)
    for name, kind in CHANGES.items():
        fit.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help="in place of the preset's"
        )
    fit.add_argument(
        "--cluster",
        action="store_true",
        help="share batches with all processes of this launch (JAX)",
    )
    fit.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 is, if the launcher does not tell",
    )
    fit.add_argument(
        "--processes",
        type=int,
        help="how many processes there are, if the launcher does not tell",
    )
    fit.add_argument(
        "--process",
        type=int,
        help="which of them this is, from 0, if the launcher does not tell",
    )
    say = several.add_parser(
        "classify", help="what a classifier says of images and folders of them"
    )
    say.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="JPEG, PNG, TIFF, ..., DICOM, or a folder",
    )
    say.add_argument("--json", action="store_true", help="one JSON object a line")
    say.add_argument(
        "--into",
        type=Path,
        help="write a CSV file; given again, it goes on after the last file in it",
    )
    give = several.add_parser("export", help="write a classifier in another format")
    give.add_argument("--to", required=True, choices=["onnx", "openvino"])
    give.add_argument(
        "--into",
        required=True,
        type=Path,
        help="the file to write: ....onnx, or ....xml for OpenVINO",
    )
    say.add_argument(
        "--model",
        help="a classifier: ....onnx or ....keras, or its URL (default: that of models/)",
    )
    give.add_argument(
        "--model", required=True, help="a classifier: braintumor-....keras, or its URL"
    )
    for command in (say, give):
        command.add_argument("--sha256", help="its checksum, which is compared")
    return parser


def settings_of(options: argparse.Namespace):
    """The settings that the options of ``train`` ask for."""
    from braintumor import config

    changes = {name: getattr(options, name) for name in CHANGES}
    changes = {name: value for name, value in changes.items() if value is not None}
    return config.settings_from(options.preset, seed=options.seed, **changes)


def train(options: argparse.Namespace) -> int:
    """Train and judge as the options say, print the scores and give them their rows in metrics.csv."""
    from braintumor import runs

    settings = settings_of(options)
    where = (options.coordinator, options.processes, options.process)
    if options.cluster or any(value is not None for value in where):
        from braintumor.support import cluster

        with cluster.join(*where) as share:
            run = cluster.train_and_evaluate(settings, options.model, share)
        if not share.is_first:
            return 0
    else:
        run = runs.train_and_evaluate(settings, options.model)
    scores = runs.metrics_table([run])
    columns = [
        "model",
        "subset",
        "n",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "macro_f1",
    ]
    print(scores[columns].to_string(index=False))
    runs.write_all_metrics(settings.results_dir)
    return 0


def classify(options: argparse.Namespace) -> int:
    """Print, or write, the answers to all files that the options name; 1 where one could not be read."""
    from braintumor.app import engines, readers

    classifier = engines.load_classifier(options.model, options.sha256)
    files = readers.images_in(options.paths)
    if options.into:
        return write_answers(files, classifier, options.into)
    if options.json:
        return print_json(files, classifier)
    return print_lines(files, classifier)


def print_lines(files: list, classifier) -> int:
    """A line a page; 1 where a file could not be read."""
    from braintumor.app import (
        answers,  # and no tables: pandas takes longer than an answer
    )

    status = 0
    for batch in answers.answer_batches(files, classifier):
        for answer in batch:
            print(f"{answer.file}: {answer.problem or answer.says}")
            if answer.problem:
                status = 1
        sys.stdout.flush()
    return status


def print_json(files: list, classifier) -> int:
    """A JSON object a page; 1 where a file could not be read."""
    from braintumor.app import classify as tables

    status = 0
    for table in tables.classify_batches(files, classifier):
        print(table.to_json(orient="records", lines=True), end="", flush=True)
        if (table["problem"] != "").any():
            status = 1
    return status


def write_answers(files: list, classifier, into: Path) -> int:
    """Append the answers to a CSV file, after those that it has; 1 where a file could not be read."""
    from braintumor.app import classify as tables

    answered = tables.resume_answers(into)
    status = int(any(answered.values()))
    remaining = [file for file in files if str(file) not in answered]
    count = len(files) - len(remaining)
    for table in tables.classify_batches(remaining, classifier):
        header = not into.exists()
        table.to_csv(into, mode="a", header=header, index=False, float_format="%.6g")
        count += table["file"].nunique()
        print(
            f"{count:,} of {len(files):,} files", end="\r", file=sys.stderr, flush=True
        )
        if (table["problem"] != "").any():
            status = 1
    return status


def export(options: argparse.Namespace) -> int:
    """Write a classifier in another format."""
    from braintumor.app import engines, release

    if options.model.endswith(".onnx"):
        raise ValueError(
            "An ONNX file is no classifier to export from: name a braintumor-....keras."
        )
    classifier = engines.load_classifier(options.model, options.sha256)
    release.export(classifier.network, options.to, options.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
