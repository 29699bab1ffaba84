"""On the command line: what a classifier says of your scans, and its file in another format."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 where a file could not be read; else SystemExit says why."""
    parser = argparse.ArgumentParser(prog="python -m braintumor", description="Research only, not for diagnosis.")
    commands = parser.add_subparsers(required=True, dest="command")
    say = commands.add_parser("classify", help="what a classifier says of images and folders of them")
    say.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="JPEG, PNG, TIFF, ..., DICOM, or a folder")
    say.add_argument("--json", action="store_true", help="one JSON object a line")
    say.add_argument("--into", type=Path, help="write a CSV file; given again, it goes on after the last file in it")
    give = commands.add_parser("export", help="write a classifier in another format")
    give.add_argument("--to", required=True, choices=["onnx", "openvino"])
    give.add_argument("--into", required=True, type=Path, help="the file to write: ....onnx, or ....xml for OpenVINO")
    for command in (say, give):
        command.add_argument("--model", required=True, help="a classifier: braintumor-....keras, or its URL")
        command.add_argument("--sha256", help="its checksum, which is compared")
    options = parser.parse_args(arguments)
    from .app import classify  # not above: Keras takes seconds, and --help should not

    try:
        classifier = classify.load_classifier(options.model, options.sha256)
        if options.command == "export":
            classify.export(classifier[0], options.to, options.into)
            return 0
        return tell(classify, options, classifier)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"{error}")


def tell(classify, options, classifier) -> int:
    """Print, or write, the answers to all files that the options name; 1 where one could not be read."""
    files, count, status = classify.images_in(options.paths), 0, 0
    done = classify.answered(options.into) if options.into else set()
    files = [file for file in files if str(file) not in done]
    for table in classify.classify_batches(files, classifier):
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
