"""A page to try a classifier on a scan, on this machine only: what `make demo` opens."""

import argparse
import os
from pathlib import Path

from braintumor import config, dataset, generators, plots
from braintumor.app import classify, explain

import cv2
import numpy

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported; nothing leaves this machine
import gradio

USE = "**Research only, not for diagnosis.** Scans stay on this machine."


def newest(folder: Path) -> Path:
    """The classifier that was made last; FileNotFoundError where none was."""
    files = sorted(folder.glob("*.keras"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError("There is no classifier yet: run the notebook 07_classify_a_scan, which makes one.")
    return files[-1]


def answer(file: str, classifier: tuple):
    """What the page shows of one file: probabilities, a line in words, and the scan with the lines of its heat."""
    network, card = classifier
    pages, problem = classify.read_pages(Path(file))
    if problem:
        raise gradio.Error(f"'{Path(file).name}' cannot be read ({problem}).")
    said = classify.classify(pages[0], classifier).iloc[0]
    square, *_ = generators.to_square(pages[0], card["image_size"], card["frame"])
    scan = numpy.float32(square)[None, ..., None] / 255
    heat = explain.grad_cam(network, scan, numpy.array([card["labels"].index(said["predicted"])]))
    title = f"Heat: {plots.display_name(said['predicted'])}"
    figure = plots.image_grid(scan, ["lines: a quarter, half, three quarters of the heat"], title=title, columns=1,
                              note="", heats=heat)  # fmt: skip
    figure.set_size_inches(5, 5.6)
    shares = {plots.display_name(label): float(said[f"p_{label}"]) for label in card["labels"]}
    return shares, said["says"], cv2.imdecode(numpy.frombuffer(figure._repr_png_(), "uint8"), cv2.IMREAD_COLOR_RGB)


def page(classifier: tuple, examples: list[str]) -> gradio.Blocks:
    """The page: a scan in, probabilities, words and heat out."""
    card = classifier[1]
    about = ", ".join(
        f"{name} {card[name]}" for name in ("model", "recipe", "weights", "protocol", "image_size", "data")
    )
    with gradio.Blocks(title="Brain tumours in MRI", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# Brain tumours in MRI: try a scan\n{USE}\n\nClassifier: {about}.")
        with gradio.Row():
            with gradio.Column():
                scan = gradio.File(label="A scan: JPEG, PNG, TIFF or DICOM", type="filepath")
                gradio.Examples(examples, scan, label="Phantoms (synthetic drawings)")
            with gradio.Column():
                shares = gradio.Label(label="Probabilities, calibrated on validation scans")
                words = gradio.Markdown()
                heat = gradio.Image(show_label=False)
        scan.change(lambda file: answer(file, classifier) if file else (None, "", None), scan, [shares, words, heat])
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a classifier or its URL; without: the newest in build/classifiers")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--quiet", action="store_true", help="open no browser")
    arguments = parser.parse_args()
    try:
        classifier = classify.load_classifier(arguments.model or newest(config.BUILD_DIR / "classifiers"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{error}") from None
    phantoms = sorted(map(str, dataset.unpack_phantoms().glob("Testing/*/*.jpg")))[::20]
    plain = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no font from elsewhere
    page(classifier, phantoms).launch(server_name="127.0.0.1", server_port=arguments.port, share=False, theme=plain,
                                      inbrowser=not arguments.quiet)  # fmt: skip


if __name__ == "__main__":
    main()
