"""Every figure says its message, shows its note, keeps its colours and leaves its tables alone."""

import functools
import itertools

from braintumor import plots, plots_results

import numpy
import pandas
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

LABELS = ["glioma", "meningioma", "no_tumor", "pituitary"]
NOTE = "PHANTOMS: synthetic drawings, not patients"


SCANS = [dict(label=label, split=split, subset=subset, mean_intensity=grey + i)
         for i, label in enumerate(LABELS)
         for split, subset, grey in [("training", "train", 50)] * (4 - i // 2)
         + [("training", "validation", 100), ("testing", "test", 60)]]  # fmt: skip
SCANS = pandas.DataFrame(SCANS).assign(box_x=10.0, box_y=20.0, box_w=30.0, box_h=40.0)
EPOCHS = numpy.arange(1, 7)
VGG16 = dict(model="vgg16", epoch=EPOCHS, phase=["head"] * 2 + ["fine_tune"] * 4, loss=1 / EPOCHS, accuracy=EPOCHS / 7)
VGG16 = pandas.DataFrame(VGG16 | dict(val_loss=1.2 / EPOCHS, val_accuracy=[0.3, 0.4, 0.6, 0.5, 0.75, 0.7]))
HISTORY = pandas.concat([VGG16, VGG16.assign(model="resnet50")])
ORIGINAL = HISTORY.replace({"vgg16": "VGG16", "resnet50": "ResNet50"}).assign(val_accuracy=[0.69] * 6 + [0.73] * 6)
PREDICTED = SCANS.assign(predicted="glioma", **{f"p_{label}": float(label == "glioma") for label in LABELS})
METRICS = pandas.DataFrame({"model": ["vgg16", "resnet50"] * 2, "recipe": "transfer", "n": [485, 485, 394, 394]})
METRICS = METRICS.assign(subset=["validation"] * 2 + ["test"] * 2, accuracy=[0.83, 0.83, 0.5, 0.5])
METRICS = METRICS.assign(accuracy_low=METRICS["accuracy"] - 0.05, accuracy_high=METRICS["accuracy"] + 0.05)
IMAGES = [numpy.full((40, 30 + i), 128, "uint8") for i in range(len(SCANS))]
SQUARE = numpy.zeros((32, 32, 1), "float32")

FIGURES = {
    "scan_grid": lambda note: plots.scan_grid(IMAGES, SCANS, columns=4, note=note),
    "class_counts": lambda note: plots.class_counts(SCANS, note=note),
    "image_grid": lambda note: plots.image_grid(
        [SQUARE] * 6, [f"augmented, {n}" for n in range(1, 7)], title="One glioma scan", columns=3, note=note
    ),
    "training_curves": lambda note: plots_results.training_curves(VGG16, model="vgg16", baseline=0.3, note=note),
    "compare_curves": lambda note: plots_results.compare_curves(HISTORY, ORIGINAL, note=note),
    "confusion_matrices": lambda note: plots_results.confusion_matrices(
        dict.fromkeys(["vgg16", "resnet50"], PREDICTED), subset="test", note=note
    ),
    "accuracy_comparison": lambda note: plots_results.accuracy_comparison(METRICS, ORIGINAL, baseline=0.29, note=note),
}
FIGURES = {name: functools.cache(draw) for name, draw in FIGURES.items()}
every_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def texts(figure):
    """All that is written in a figure; ticks outside the limits of their axis are not drawn."""
    unseen = []
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        unseen += [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in unseen]


def words(figure):
    return " ".join(" ".join(text.get_text() for text in texts(figure)).replace("\N{NO-BREAK SPACE}", " ").split())


@every_figure
def test_a_notebook_shows_it_readably_with_a_banner_when_there_is_a_note(draw):
    plain, noted = draw(""), draw(NOTE)
    assert NOTE in words(noted) and NOTE not in words(plain) and not plain.artists
    assert [to_hex(banner.get_facecolor()).upper() for banner in noted.artists] == [plots.WARNING]
    assert min(text.get_size() for text in texts(noted)) >= 9
    assert noted.dpi <= 100 and noted.get_figwidth() * noted.dpi <= 880
    assert to_hex(noted.get_facecolor(), keep_alpha=True) == "#ffffffff"
    assert noted._repr_png_().startswith(b"\x89PNG")


SAYS = {
    "scan_grid": ["no tumor", "30 × 40 px", "Yellow: box around the tumour"],
    "class_counts": ["Glioma has 1.2 times as many scans as", "share of the folder's scans",
                     "Training folder (n = 18 scans)"],
    "image_grid": ["One glioma scan", "augmented, 1", "augmented, 6"],
    "training_curves": ["VGG16: 75 % of validation scans right at best (epoch 5), 70 % at the end", "epoch",
                        "accuracy (share of scans)", "loss (cross-entropy)", "fine-tuning from epoch 3", "class, 30 %"],
    "compare_curves": ["VGG16 70 % (original 69 %), ResNet50 70 % (original 73 %)", "epoch", "our validation 70 %",
                       "accuracy (share of scans)", "original's validation 69 %", "shares patients"],
    "confusion_matrices": ["VGG16 calls 1 meningioma scans glioma", "predicted class", "VGG16: 1 of 4 scans right"],
    "accuracy_comparison": ["VGG16 83 % → 50 %; ResNet50 83 % → 50 %", "accuracy (share of scans)", "shares patients",
                            "VGG16, test (n = 394 scans)", "50 % (45 % to 55 %)", "always the largest class",
                            "95 % intervals, bootstrap over patient"],
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_its_message_and_its_units(name):
    shown = words(FIGURES[name](""))
    assert [said for said in SAYS[name] if said not in shown] == [] and "nan" not in shown.lower()


@every_figure
@pytest.mark.parametrize("note", ["", f"{NOTE}. " * 4], ids=["no note", "long note"])
def test_nothing_is_cut_off_or_written_over_something_else(draw, note):
    figure = draw(note)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in texts(figure)]
    assert [(a[0], b[0]) for a, b in itertools.combinations(boxes, 2) if a[1].overlaps(b[1])] == []


@every_figure
def test_tables_stay_as_they_were(draw):
    before = [(table, table.copy()) for table in (SCANS, HISTORY, ORIGINAL, METRICS, PREDICTED)]
    draw.__wrapped__("")  # past the cache
    for table, copy in before:
        pandas.testing.assert_frame_equal(table, copy)


def test_a_model_has_one_colour_everywhere():
    for name in ("compare_curves", "accuracy_comparison"):
        used = {to_hex(line.get_color()).upper() for axes in FIGURES[name]("").axes for line in axes.lines}
        assert set(plots.MODEL_COLOURS.values()) <= used, name


def test_a_class_has_one_colour_everywhere():
    colours = plots.class_colours(reversed(LABELS))
    assert list(colours) == LABELS and len(set(colours.values())) == 4
    patches = [patch for axes in FIGURES["class_counts"]("").axes for patch in axes.patches]
    seen = list(dict.fromkeys(to_hex(patch.get_facecolor()).upper() for patch in patches))
    assert seen == list(colours.values())


def test_scans_keep_their_aspect_and_grey_levels():
    for name, brightest in (("scan_grid", 255), ("image_grid", 1)):
        shown = [(axes, image) for axes in FIGURES[name]("").axes for image in axes.images]
        assert shown and all(axes.get_aspect() == 1 for axes, _ in shown)
        assert all(image.get_cmap().name == "gray" and image.get_clim() == (0, brightest) for _, image in shown)


def test_a_tumour_box_is_drawn_only_where_it_is_known():
    table = SCANS.assign(box_x=SCANS["box_x"].where(SCANS["label"] == "glioma"))
    figure = plots.scan_grid(IMAGES, table, columns=2, note="")
    assert [len(axes.patches) for axes in figure.axes] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_a_single_phase_is_not_named():
    assert "from epoch" not in words(
        plots_results.training_curves(VGG16.assign(phase="all"), model="vgg16", baseline=0.3, note="")
    )


def test_a_model_that_the_original_never_logged_is_drawn_alone():
    log = ORIGINAL[ORIGINAL["model"] == "VGG16"]
    assert "(original 69 %), ResNet50 70 %" in words(plots_results.compare_curves(HISTORY, log, note=""))
    assert words(plots_results.accuracy_comparison(METRICS, log, baseline=0.29, note="")).count("(leaky)") == 1


def test_no_mistakes_are_said():
    right = {"vgg16": PREDICTED.assign(predicted=PREDICTED["label"])}
    assert "No mistakes on test scans" in words(plots_results.confusion_matrices(right, subset="test", note=""))
