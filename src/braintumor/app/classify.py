"""Try it on a scan of your own: a trained network as one file with a guard and a card, and what it says of images."""

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path

import cv2
import keras
import numpy
import pandas

from ..config import BUILD_DIR, Settings, recipe_named
from ..dataset import examine
from ..evaluation import predict, provenance, trained_network, write_table
from ..files import checksum, read_file, replace_file
from ..generators import subset_sequence, to_square
from ..metrics import fit_temperature
from ..splits import load_study
from ..training import build_for, run_name, with_available_weights

NAMES = r"(?i)\.(jpe?g|png|bmp|tiff?|webp|dcm|dicom)$"  # what is taken from a folder
UNLIKE = 0.05  # of the validation scans are less similar to the training scans than a card's threshold


def package(settings: Settings, model: str, folder: Path = BUILD_DIR / "classifiers") -> Path:
    """Write a trained run as one file to give away, ``braintumor-<run>.keras``, its card inside; returns its path.

    In float32, which works anywhere; probabilities are scaled by the temperature that suits validation best.
    """
    settings = with_available_weights(settings, model)
    root, table, report = load_study(settings)
    trained = trained_network(settings, model, table)
    bare = dataclasses.replace(settings, precision="float32", weights="random")
    network = build_for(bare, model, table["label"].nunique())
    network.set_weights(trained.get_weights())
    temperature = fit_temperature(predict(network, table, "validation", root, settings))
    network = with_guard(network, subset_sequence(table, "train", root, settings), temperature)
    guard = keras.Model(network.input, network.output["similarity"])  # alone, as the backbone takes longest
    similarity = guard.predict(subset_sequence(table, "validation", root, settings), verbose=0)
    card = provenance(settings, report, table, model=model) | {"precision": "float32", "temperature": temperature}
    card |= {"labels": sorted(table["label"].unique()), "frame": recipe_named(settings.recipe)["frame"]}
    card |= {"threshold": float(numpy.quantile(similarity, UNLIKE)), "use": "Research only, not for diagnosis."}

    def write(temporary):
        network.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr("card.json", json.dumps(card, indent=1))

    replace_file(file := folder / f"braintumor-{run_name(settings, model)}.keras", write)
    return file


def with_guard(network: keras.Model, train_scans, temperature: float) -> keras.Model:
    """A network from scans to scaled ``probabilities`` and ``similarity`` to the most similar of ``train_scans``.

    Similarity: the correlation, -1 to 1, of greys averaged over 8 x 8 fields, with the nearest neighbour (after
    arXiv:2204.06507, which takes features).
    """
    last, scan = network.get_layer("probabilities"), network.input
    greys = keras.layers.Flatten()(keras.layers.AveragePooling2D(scan.shape[1] // 8, dtype="float32")(scan))
    centred = greys - keras.ops.mean(greys, axis=-1, keepdims=True)
    direction = keras.layers.UnitNormalization(dtype="float32")(centred)
    known = keras.Model(scan, direction).predict(train_scans, verbose=0)
    similar = keras.layers.Dense(len(known), use_bias=False, dtype="float32")
    scaled = keras.layers.Dense(last.units, activation="softmax", dtype="float32", name=last.name)
    outputs = {"probabilities": scaled(last.input), "similarity": keras.ops.max(similar(direction), axis=-1)}
    similar.set_weights([known.T])
    scaled.set_weights([weights / temperature for weights in last.get_weights()])
    return keras.Model(scan, outputs, name=network.name)


def load_classifier(place: str | Path, sha256: str | None = None) -> tuple[keras.Model, dict]:
    """Network and card of a file of ``package``, or of one to fetch, once, from a URL.

    Raises ValueError where it is damaged or another one, FileNotFoundError or ConnectionError where it cannot be had.
    """
    if remote := str(place).startswith(("http://", "https://")):
        try:
            place = keras.utils.get_file(origin=str(place), file_hash=sha256, cache_subdir="braintumor")
        except Exception as error:  # Keras raises no kind of its own
            raise ConnectionError(f"The classifier cannot be fetched: {error}") from error
    if not (file := Path(place)).is_file():
        raise FileNotFoundError(f"There is no classifier '{file.name}': make one with 07_classify_a_scan.")
    if sha256 and not remote and checksum(file) != sha256:
        raise ValueError(f"'{file.name}' does not have the checksum {sha256[:12]}...: get it again.")
    card = read_file(file, lambda file: json.loads(zipfile.ZipFile(file).read("card.json")))
    return read_file(file, keras.saving.load_model), card


def export(network: keras.Model, to: str, file: Path) -> None:
    """Write a classifier as ``onnx`` or ``openvino``; it takes square grey scans, float32, 0-255 (n, size, size, 1)."""
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    whole = keras.Model(pixels, network(keras.layers.Rescaling(1 / 255)(pixels)))
    whole(keras.ops.zeros((1, *network.input_shape[1:])))  # ONNX wants a model that has been called
    whole.export(str(file), format=to, verbose=False)


def read_pages(path: Path | numpy.ndarray) -> tuple[list[numpy.ndarray], str]:
    """The pages or frames of an image file, grey uint8 (height, width), and what is wrong with it, or "".

    What has more than 8 bits is spread over 0-255. Of DICOM's tags only those are read that shape the image. An array
    is its only page.
    """
    if isinstance(path, numpy.ndarray):
        return [path], ""
    try:
        content = numpy.fromfile(path, "uint8")
        dicom = content[128:132].tobytes() == b"DICM"
        pages = dicom_frames(content) if dicom else cv2.imdecodemulti(content, cv2.IMREAD_ANYDEPTH)[1]
        spread = (None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        pages = [page if page.dtype == numpy.uint8 else cv2.normalize(page, *spread) for page in pages]
        return pages, "" if pages else "no whole image"
    except (OSError, cv2.error):
        return [], examine(Path(path))[1] or "no whole image"
    except Exception as error:  # pydicom has many kinds
        return [], " ".join(str(error).split())[:300] or type(error).__name__


def dicom_frames(content: numpy.ndarray) -> numpy.ndarray:
    """The frames in the bytes of a DICOM file, as they want to be seen: float32 (frames, height, width)."""
    try:
        from pydicom import dcmread, pixels
    except ModuleNotFoundError:
        raise ValueError("DICOM needs pydicom: pip install pydicom") from None
    scan = dcmread(BytesIO(content))
    values = pixels.apply_voi_lut(pixels.apply_modality_lut(scan.pixel_array, scan), scan)
    values = numpy.float32(values.mean(axis=-1) if scan.SamplesPerPixel > 1 else values)
    values = values.max() - values if scan.PhotometricInterpretation == "MONOCHROME1" else values
    return values.reshape(-1, scan.Rows, scan.Columns)


def images_in(scans) -> list:
    """The files that a path, or a list of paths, names, of folders the images in them, sorted; arrays as they are."""
    found = []
    for scan in [scans] if isinstance(scans, str | Path | numpy.ndarray) else scans:
        folder = not isinstance(scan, numpy.ndarray) and Path(scan).is_dir()
        inside = sorted(filter(Path.is_file, Path(scan).rglob("[!.]*"))) if folder else []
        found += [file for file in inside if re.search(NAMES, file.name)] if folder else [scan]
    if not found:
        raise FileNotFoundError("There is no image in what was named.")
    return found


def answered(file: Path) -> dict[str, str]:
    """The files that a CSV of answers names, with their problems; the last, which may be cut, is taken out of it."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    if "\n" not in text:
        file.unlink(missing_ok=True)
        return {}
    table = pandas.read_csv(StringIO(text[: text.rfind("\n") + 1]), dtype={"file": str}, keep_default_na=False)
    table = table[table["file"] != table["file"].tail(1).squeeze()]
    write_table(table, file)
    return table.groupby("file")["problem"].max().to_dict()


def classify(scans, classifier: tuple) -> pandas.DataFrame:
    """What a classifier says of a file, a folder, an array (height, width; 0-255), or a list of these, one row a page.

    Columns: ``file``, ``page``, ``p_<label>``, ``predicted``, ``similarity``, ``unlike`` (less similar to the training
    scans than nearly all of validation), ``says`` for a person, ``problem``: "" or why there is no answer.
    """
    return pandas.concat(classify_batches(images_in(scans), classifier), ignore_index=True)


def classify_batches(images: list, classifier: tuple, batch_size: int = 32) -> Iterator[pandas.DataFrame]:
    """``classify`` for ``images_in``, table by table, so that memory does not grow with their number."""
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(images), batch_size):
            some = images[first : first + batch_size]
            rows = [("array" if isinstance(image, numpy.ndarray) else str(image), number, page, problem)
                    for image, (pages, problem) in zip(some, pool.map(read_pages, some))
                    for number, page in enumerate(pages or [None])]  # fmt: skip
            yield judge(pandas.DataFrame(rows, columns=["file", "page", "pixels", "problem"]), *classifier)


def judge(pages: pandas.DataFrame, network: keras.Model, card: dict) -> pandas.DataFrame:
    """The answers to images, uint8 in the column ``pixels``, which they replace."""
    columns, good = [f"p_{label}" for label in card["labels"]], pages["problem"] == ""
    table = pages.drop(columns="pixels").reindex(columns=["file", "page", *columns, "similarity", "problem"])
    if good.any():
        squares = [to_square(image, network.input_shape[1], card["frame"])[0] for image in pages.loc[good, "pixels"]]
        parts = numpy.array_split(numpy.float32(squares)[..., None] / 255, -(-len(squares) // 32))
        answers = [network(part, training=False) for part in parts]  # in parts, as a file can have thousands of pages
        for name, where in {"probabilities": columns, "similarity": ["similarity"]}.items():
            values = [keras.ops.convert_to_numpy(answer[name]) for answer in answers]
            table.loc[good, where] = numpy.concatenate(values).reshape(len(squares), -1)
    table["unlike"] = table["similarity"] < card["threshold"]
    ranked = [row.sort_values(ascending=False) for _, row in table[columns].iterrows()]
    table["predicted"] = [row.index[0][2:] if row.notna().all() else "" for row in ranked]
    table["says"] = [in_words(row, unlike) for row, unlike in zip(ranked, table["unlike"])]
    return table


def in_words(shares: pandas.Series, unlike: bool) -> str:
    """A line for a person: the two most probable classes, and a warning where the image is unlike the training data."""
    if shares.isna().any():
        return "No answer."
    first, second = (f"{name[2:].replace('_', ' ')} ({100 * share:.0f} %)" for name, share in shares.head(2).items())
    warning = " It is unlike the scans the model learned from: do not rely on this." if unlike else ""
    return f"Most like {first}, then {second}.{warning}"
