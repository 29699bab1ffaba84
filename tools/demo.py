"""A page to try a classifier on a scan, on this machine only: see `make demo`."""

import argparse
import io
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from braintumor import config, dataset, images
from braintumor.app import answers, engines, readers
from braintumor.support.files import checksum

import cv2
import numpy as np

if TYPE_CHECKING:  # imported by `main`, once it cannot send or keep anything
    import gradio

HOST = "127.0.0.1"
USE = "**Research only, not for diagnosis.** Scans stay on this machine."
CARD_ENTRIES = ["model", "recipe", "weights", "protocol", "image_size", "data"]
FIGURE_SIZE = (5, 5.6)  # inches
EXAMPLES_APART = 20  # of the synthetic scans, every so many-th is offered


class Shown(NamedTuple):
    """What the page shows of a file: three components, in this order.

    Attributes:
        probabilities: By the name of the class; None shows nothing.
        words: A line for a person.
        picture: The scan with its heatmap, RGB; None shows nothing.
    """

    probabilities: dict[str, float] | None
    words: str
    picture: np.ndarray | None


def default_classifier() -> Path:
    """Find the classifier of models/; where none is there, the one that was made last.

    Returns:
        Its file.

    Raises:
        FileNotFoundError: There is neither.
    """
    made = (config.BUILD_DIR / "classifiers").glob("*.keras")
    by_age = sorted(made, key=lambda file: file.stat().st_mtime)
    if by_age and not engines.recorded_checksums(config.MODELS_DIR):
        return by_age[-1]
    return engines.released_classifier()


def answer(file: Path, classifier: engines.Classifier) -> Shown:
    """Answer the first page of a file, and say so if there are more.

    Args:
        file: An image file.
        classifier: What is asked.

    Returns:
        What the page shows.

    Raises:
        ValueError: The file cannot be read; says why.
    """
    from braintumor import plots  # here, as the page need not wait for matplotlib

    first_page, *other_pages = answers.pages_of(file)
    name = readers.shown_name(file.name)
    if first_page.pixels is None:
        raise ValueError(f"'{name}' cannot be read ({first_page.problem}).")
    said = answers.answer([first_page], classifier)[0]
    if said.problem:
        raise ValueError(f"'{name}' has no answer ({said.problem}).")
    words = said.says
    if other_pages:
        pages = f"This is page 1 of {1 + len(other_pages)}"
        words = f"{words} {pages}; `python -m braintumor classify` answers all."
    probabilities = {}
    for label, probability in said.probabilities.items():
        probabilities[plots.display_name(label)] = probability
    picture = _picture(first_page.pixels, said.predicted, classifier)
    return Shown(probabilities, words, picture)


def remove_upload(file: Path, offered: set[str]) -> None:
    """Remove a file that gradio keeps, if it still does.

    Gradio keeps one file where several people upload the same.

    Args:
        file: The upload.
        offered: The checksums of the scans that are offered; these stay.
    """
    with suppress(FileNotFoundError):
        if checksum(file) not in offered:
            file.unlink()


def _picture(
    pixels: np.ndarray, label: str, classifier: engines.Classifier
) -> np.ndarray:
    """A scan with its heatmap for one class over it, as an RGB image."""
    from braintumor import plots

    card = classifier.card
    square = images.to_square(pixels, card["image_size"], card["frame"])
    scan = square.pixels.astype("float32")[None, ..., None] / 255
    heatmap = classifier.heatmaps(scan, np.array([card["labels"].index(label)]))
    figure = plots.image_grid(
        list(scan),
        [""],
        title=f"Where it sees: {plots.display_name(label)}",
        columns=1,
        banner="",
        heatmaps=list(heatmap),
    )
    figure.set_size_inches(*FIGURE_SIZE)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    content = np.frombuffer(png.getvalue(), "uint8")
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB))


def example_scans() -> list[Path]:
    """Choose the synthetic scans that the page offers.

    Returns:
        Their files, some of each class.
    """
    synthetic_scans = sorted(dataset.unpack_synthetic_scans().glob("Testing/*/*.jpg"))
    return synthetic_scans[::EXAMPLES_APART]


def page(classifier: engines.Classifier, examples: list[Path]) -> "gradio.Blocks":
    """Build the page: a scan in, probabilities, words and heatmap out.

    Args:
        classifier: What is asked.
        examples: Scans that are offered.

    Returns:
        The page, which nobody can open yet.
    """
    import gradio

    card = classifier.card
    facts = [f"{name} {card.get(name, 'unknown')}" for name in CARD_ENTRIES]
    title = "# Brain tumors in MRI: try a scan"
    offered = {checksum(example) for example in examples}

    def show(upload: str | None) -> Shown:
        """Answer an upload, and keep no copy of it."""
        if not upload:
            return Shown(None, "", None)
        file = Path(upload)
        try:
            return answer(file, classifier)
        except ValueError as error:
            raise gradio.Error(f"{error}") from None
        finally:
            remove_upload(file, offered)

    with gradio.Blocks(title="Brain tumors in MRI", analytics_enabled=False) as blocks:
        gradio.Markdown(f"{title}\n{USE}\n\nClassifier: {', '.join(facts)}.")
        with gradio.Row():
            with gradio.Column():
                scan = gradio.File(
                    label="A scan: JPEG, PNG, TIFF or DICOM", type="filepath"
                )
                gradio.Examples(
                    [str(example) for example in examples],
                    scan,
                    label="Synthetic images",
                )
            with gradio.Column():
                probabilities = gradio.Label(
                    label="Probabilities, calibrated on validation scans"
                )
                words = gradio.Markdown()
                heat = gradio.Image(show_label=False)
        scan.change(show, scan, [probabilities, words, heat], api_name="answer")
    return blocks


def keep_to_this_machine(folder: str) -> None:
    """Let gradio send nothing, keep uploads in one folder, and need no proxy.

    Args:
        folder: Where uploads go.
    """
    # all of them are read when gradio is imported, or when the page opens
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    for name in ("no_proxy", "NO_PROXY"):
        others = os.environ.get(name)
        addresses = [others, HOST, "localhost"] if others else [HOST, "localhost"]
        os.environ[name] = ",".join(addresses)


def check_port(port: int) -> None:
    """Try whether the page can be opened at a port.

    Args:
        port: Its number.

    Raises:
        ValueError: It cannot; names the option that chooses another.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it must be 1 to 65535"
        raise ValueError(
            f"Port {port} cannot be used ({reason}): choose another with --port."
        ) from error


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options.

    Args:
        arguments: What follows the name of the program; None: as it was started.

    Returns:
        The options: ``model``, ``port``, ``quiet``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model",
        help="a classifier or its URL (default: that of models/, or the newest one)",
    )
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--quiet", action="store_true", help="open no browser")
    return parser.parse_args(arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that uploads are removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Open the page until it is stopped; SystemExit says why it cannot be opened."""
    options = parse_arguments()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _stop)
    with tempfile.TemporaryDirectory(prefix="braintumor-demo-") as folder:
        keep_to_this_machine(folder)
        try:
            check_port(options.port)
            place = options.model or default_classifier()
            classifier = engines.load_classifier(place)
        except (OSError, ValueError, ImportError) as error:
            sys.exit(f"{error}")
        import gradio

        blocks = page(classifier, example_scans())
        # fonts of this machine, none from elsewhere
        theme = gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["monospace"]
        )
        blocks.launch(
            server_name=HOST,
            server_port=options.port,
            share=False,
            theme=theme,
            inbrowser=not options.quiet,
        )


if __name__ == "__main__":
    main()
