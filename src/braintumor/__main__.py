"""On the command line: what a classifier says of your scans, and its file in another format."""

import argparse
import io
import sys
from pathlib import Path

import pandas

from .evaluation import write_table


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 1 where a file could not be read."""
    parser = argparse.ArgumentParser(prog="python -m braintumor", description="Research only, not for diagnosis.")
    commands = parser.add_subparsers(required=True, dest="command")
    say = commands.add_parser("classify", help="what a classifier says of images and folders of them")
    say.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="JPEG, PNG, TIFF, ..., DICOM, or a folder")
    say.add_argument("--json", action="store_true", help="one JSON object a line")
    say.add_argument("--into", type=Path, help="write a CSV file; given again, it goes on after the last file in it")
    give = commands.add_parser("export", help="write a classifier in another format")
    give.add_argument("--to", required=True, choices=["onnx", "openvino"])
    give.add_argument("--into", required=True, type=Path, help="the file to write")
    for command in (say, give):
        command.add_argument("--model", required=True, help="a classifier: braintumor-....keras, or its URL")
        command.add_argument("--sha256", help="its checksum, which is compared")
    options = parser.parse_args(arguments)
    from .app import classify  # late: Keras takes seconds, and --help should not

    classifier = classify.load_classifier(options.model, options.sha256)
    if options.command == "export":
        classify.export(classifier[0], options.to, options.into)
        return 0
    files, status = classify.files_in(options.paths), 0
    done = finished(options.into) if options.into else set()
    files = [file for file in files if str(file) not in done]
    for number, table in enumerate(classify.classify_batches(files, classifier)):
        status = max(status, int((table["problem"] != "").any()))
        if options.into:
            table.to_csv(options.into, mode="a", header=not options.into.exists(), index=False, float_format="%.6g")
            print(f"{number * 32 + table['file'].nunique():,} of {len(files):,} files", end="\r", file=sys.stderr)
        elif options.json:
            print(table.to_json(orient="records", lines=True), end="", flush=True)
        else:
            print(*(f"{row.file}: {row.problem or row.says}" for row in table.itertuples()), sep="\n", flush=True)
    return status


def finished(file: Path) -> set[str]:
    """The files that an earlier call has answered; the last, of which pages may be missing, is taken out of the CSV."""
    if not file.exists():
        return set()
    text = file.read_text()
    table = pandas.read_csv(io.StringIO(text[: text.rfind("\n") + 1]))
    table = table[table["file"] != table["file"].tail(1).squeeze()]
    write_table(table, file)
    return set(table["file"])


if __name__ == "__main__":
    sys.exit(main())
