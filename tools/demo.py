"""A page to try a classifier on a scan, on this machine only: what `make demo` opens."""

import argparse
import os
from pathlib import Path

from braintumor import config, dataset, images
from braintumor.app import answers, engines, readers

import cv2
import numpy as np

os.environ["GRADIO_ANALYTICS_ENABLED"] = (
    "False"  # read when it is imported; nothing leaves this machine
)
import gradio

USE = "**Research only, not for diagnosis.** Scans stay on this machine."


def default_classifier() -> Path:
    """The classifier of models/; where none is there, the one that was made last. FileNotFoundError: neither."""
    made = (config.BUILD_DIR / "classifiers").glob("*.keras")
    by_age = sorted(made, key=lambda file: file.stat().st_mtime)
    if by_age and not engines.recorded_checksums(config.MODELS_DIR):
        return by_age[-1]
    return engines.released_classifier()


def answer(file: str, classifier: engines.Classifier):
    """What the page shows of one file: probabilities, a line in words, and the scan with the lines of its heat."""
    from braintumor import plots  # here, as the page need not wait for matplotlib

    card = classifier.card
    pages, problem = readers.read_pages(Path(file))
    if problem:
        raise gradio.Error(f"'{Path(file).name}' cannot be read ({problem}).")
    first_page = answers.Page(Path(file).name, 0, pages[0], problem)
    said = answers.answer([first_page], classifier)[0]
    square, *_ = images.to_square(pages[0], card["image_size"], card["frame"])
    scan = np.float32(square)[None, ..., None] / 255
    heat = classifier.heatmaps(scan, np.array([card["labels"].index(said.predicted)]))
    title = f"Heat: {plots.display_name(said.predicted)}"
    figure = plots.image_grid(
        scan,
        ["lines: a quarter, half, three quarters of the heat"],
        title=title,
        columns=1,
        banner="",
        heats=heat,
    )
    figure.set_size_inches(5, 5.6)
    shares = {
        plots.display_name(label): share for label, share in said.probabilities.items()
    }
    picture = np.frombuffer(figure._repr_png_(), "uint8")
    return shares, said.says, cv2.imdecode(picture, cv2.IMREAD_COLOR_RGB)


def page(classifier: engines.Classifier, examples: list[str]) -> gradio.Blocks:
    """The page: a scan in, probabilities, words and heat out."""
    card = classifier.card
    about = ", ".join(
        f"{name} {card[name]}"
        for name in ("model", "recipe", "weights", "protocol", "image_size", "data")
    )
    with gradio.Blocks(title="Brain tumours in MRI", analytics_enabled=False) as blocks:
        gradio.Markdown(
            f"# Brain tumours in MRI: try a scan\n{USE}\n\nClassifier: {about}."
        )
        with gradio.Row():
            with gradio.Column():
                scan = gradio.File(
                    label="A scan: JPEG, PNG, TIFF or DICOM", type="filepath"
                )
                gradio.Examples(examples, scan, label="Phantoms (synthetic drawings)")
            with gradio.Column():
                shares = gradio.Label(
                    label="Probabilities, calibrated on validation scans"
                )
                words = gradio.Markdown()
                heat = gradio.Image(show_label=False)
        scan.change(
            lambda file: answer(file, classifier) if file else (None, "", None),
            scan,
            [shares, words, heat],
        )
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model",
        help="a classifier or its URL (default: that of models/, or the newest one)",
    )
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--quiet", action="store_true", help="open no browser")
    arguments = parser.parse_args()
    try:
        classifier = engines.load_classifier(arguments.model or default_classifier())
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"{error}") from None
    phantoms = sorted(
        map(str, dataset.unpack_synthetic_scans().glob("Testing/*/*.jpg"))
    )[::20]
    plain = gradio.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )  # no font from elsewhere
    page(classifier, phantoms).launch(
        server_name="127.0.0.1",
        server_port=arguments.port,
        share=False,
        theme=plain,
        inbrowser=not arguments.quiet,
    )


if __name__ == "__main__":
    main()
