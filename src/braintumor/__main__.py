"""On the command line: train and judge, ask a classifier about your scans, or write it in another format."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

CHANGES = {"protocol": str, "recipe": str, "weights": str, "image_size": int, "batch_size": int, "epochs": int}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 where a file could not be read; else SystemExit says why."""
    options = commands().parse_args(arguments)
    from .app import classify  # not above: Keras takes seconds, and --help should not

    try:
        if options.command == "train":
            return train(options)
        classifier = classify.load_classifier(options.model, options.sha256)
        if options.command == "classify":
            return tell(classify, options, classifier)
        classify.export(classifier[0], options.to, options.into)
        return 0
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError, FloatingPointError) as error:
        sys.exit(f"{error}")


def commands() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m braintumor", description="Research only, not for diagnosis.")
    several = parser.add_subparsers(required=True, dest="command")
    fit = several.add_parser("train", help="train and judge a model, as the notebooks do; goes on where it stopped")
    fit.add_argument("--model", required=True, help="vgg16 or resnet50")
    fit.add_argument("--preset", default="sample", help="sample (the default), cpu, cpu-scratch or full")
    fit.add_argument("--seed", type=int, default=0)
    for name, kind in CHANGES.items():
        fit.add_argument(f"--{name.replace('_', '-')}", type=kind, help="in place of the preset's")
    fit.add_argument("--cluster", action="store_true", help="share batches with all processes of this launch (JAX)")
    fit.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is, if the launcher does not tell")
    fit.add_argument("--processes", type=int, help="how many processes there are, if the launcher does not tell")
    fit.add_argument("--process", type=int, help="which of them this is, from 0, if the launcher does not tell")
    say = several.add_parser("classify", help="what a classifier says of images and folders of them")
    say.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="JPEG, PNG, TIFF, ..., DICOM, or a folder")
    say.add_argument("--json", action="store_true", help="one JSON object a line")
    say.add_argument("--into", type=Path, help="write a CSV file; given again, it goes on after the last file in it")
    give = several.add_parser("export", help="write a classifier in another format")
    give.add_argument("--to", required=True, choices=["onnx", "openvino"])
    give.add_argument("--into", required=True, type=Path, help="the file to write: ....onnx, or ....xml for OpenVINO")
    for command in (say, give):
        command.add_argument("--model", required=True, help="a classifier: braintumor-....keras, or its URL")
        command.add_argument("--sha256", help="its checksum, which is compared")
    return parser


def train(options) -> int:
    """Train and judge as the options say, print the scores and give them their rows in metrics.csv."""
    from . import cluster, config, evaluation

    where = options.coordinator, options.processes, options.process
    several = options.cluster or any(value is not None for value in where)
    changes = {name: value for name, value in vars(options).items() if name in CHANGES and value is not None}
    settings = config.settings_from(options.preset, seed=options.seed, **changes)
    with cluster.join(*where) if several else nullcontext(cluster.ALONE) as share:
        run = evaluation.train_and_judge(settings, options.model, share)
    if not share.first:
        return 0
    scores = evaluation.metrics_table([run])
    columns = ["model", "subset", "n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1"]
    print(scores[columns].to_string(index=False))
    evaluation.write_all_metrics(settings.results_dir)
    return 0


def tell(classify, options, classifier: tuple) -> int:
    """Print, or write, the answers to all files that the options name; 1 where one could not be read."""
    files, done = classify.images_in(options.paths), classify.answered(options.into) if options.into else {}
    left = [file for file in files if str(file) not in done]
    count, status = len(files) - len(left), int(any(done.values()))
    for table in classify.classify_batches(left, classifier):
        count, status = count + table["file"].nunique(), max(status, int((table["problem"] != "").any()))
        if options.into:
            table.to_csv(options.into, mode="a", header=not options.into.exists(), index=False, float_format="%.6g")
            print(f"{count:,} of {len(files):,} files", end="\r", file=sys.stderr, flush=True)
        elif options.json:
            print(table.to_json(orient="records", lines=True), end="", flush=True)
        else:
            print(*(f"{row.file}: {row.problem or row.says}" for row in table.itertuples()), sep="\n", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
