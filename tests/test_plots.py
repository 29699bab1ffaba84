"""Every figure says its message, shows its note, keeps its colors and leaves its tables alone."""

import functools
import itertools

from braintumor import plots

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

LABELS = ["glioma", "meningioma", "no_tumor", "pituitary"]
NOTE = "PHANTOMS: synthetic drawings, not patients"


SCANS = [
    dict(label=label, split=split, subset=subset, mean_intensity=gray + i)
    for i, label in enumerate(LABELS)
    for split, subset, gray in [("training", "train", 50)] * (4 - i // 2)
    + [("training", "validation", 100), ("testing", "test", 60)]
]
SCANS = pd.DataFrame(SCANS).assign(width=512, height=[400 + n for n in range(22)])
SCANS = SCANS.assign(box_x=10.0, box_y=20.0, box_w=30.0, box_h=40.0)
EPOCHS = np.arange(1, 7)
VGG16 = dict(
    model="vgg16",
    epoch=EPOCHS,
    phase=["head"] * 2 + ["fine_tune"] * 4,
    loss=1 / EPOCHS,
    accuracy=EPOCHS / 7,
)
VGG16 = pd.DataFrame(
    VGG16 | dict(val_loss=1.2 / EPOCHS, val_accuracy=[0.3, 0.4, 0.6, 0.5, 0.75, 0.7])
)
REFERENCE = VGG16.assign(val_accuracy=0.69)
PREDICTED = SCANS.assign(
    predicted="glioma", **{f"p_{label}": float(label == "glioma") for label in LABELS}
)
RANKED = PREDICTED.assign(p_no_tumor=(PREDICTED["label"] == "no_tumor") * 0.5)
RANKED["p_glioma"] = np.linspace(0, 0.5, len(RANKED))
SPLIT = SCANS.assign(group=[f"patient-{n:03d}" for n in range(len(SCANS))])
SPLIT["excluded_because"] = ["label conflict"] + [""] * (len(SPLIT) - 1)
SPLIT.loc[0, "subset"] = "excluded"
PROBABILITIES = pd.Series([0.7, 0.1, 0.1, 0.1], LABELS)
IMAGES = [np.full((40, 30 + i), 128, "uint8") for i in range(len(SCANS))]
SQUARE = np.zeros((32, 32, 1), "float32")

BOXES = SCANS[["box_x", "box_y", "box_w", "box_h"]].to_numpy()
ROWS = [
    ("VGG16 (n = 394)", "#0072B2", 0.5, 0.45, 0.55),
    ("always the largest class", "#6E6E6E", 0.29, 0.29, 0.29),
]


def two_curves(note):
    figure, (axes, _) = plots.base_figure("Ours beside theirs", note, 3.5, 1, 2)
    plots.show_curves(axes, REFERENCE[:6], "accuracy", plots.GRAY, "reference")
    plots.show_curves(axes, VGG16, "accuracy", "#0072B2", "VGG16")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


FIGURES = {
    "image_grid": lambda note: plots.image_grid(
        IMAGES[:6],
        [f"scan {n}\n30 × 40 px" for n in range(6)],
        boxes=BOXES,
        title="Scans",
        columns=3,
        banner=note,
    ),
    "float_grid": lambda note: plots.image_grid(
        [SQUARE] * 6, ["augmented"] * 6, title="Views", columns=3, banner=note
    ),
    "empty_grid": lambda note: plots.image_grid(
        [], [], title="No conflicts", columns=3, banner=note
    ),
    "two_curves": two_curves,
    "training_curves": lambda note: plots.training_curves(
        VGG16, model="vgg16", baseline=0.3, banner=note
    ),
    "curves_beside_reference": lambda note: plots.curves_beside_reference(
        {"VGG16 (ImageNet)": VGG16, "ResNet50 (random)": VGG16},
        pd.concat([REFERENCE.assign(model=model) for model in ("VGG16", "ResNet50")]),
        title="Ours beside theirs",
        banner=note,
    ),
    "confusion_matrices": lambda note: plots.confusion_matrices(
        dict.fromkeys(["vgg16", "resnet50"], PREDICTED), subset="test", banner=note
    ),
    "roc_curves": lambda note: plots.roc_curves(
        dict.fromkeys(["vgg16", "resnet50"], RANKED), subset="test", banner=note
    ),
    "class_counts": lambda note: plots.class_counts(SCANS, banner=note),
    "sizes_and_intensities": lambda note: plots.sizes_and_intensities(
        SCANS, banner=note
    ),
    "split_flow": lambda note: plots.split_flow(SPLIT, banner=note),
    "probability_bars": lambda note: plots.probability_bars(
        PROBABILITIES, title="Glioma, with 70% confidence", banner=note
    ),
    "interval_chart": lambda note: plots.interval_chart(
        ROWS,
        title="Accuracy",
        xlabel="accuracy",
        banner=note,
        footnote="Bars: 95% intervals.",
    ),
}
FIGURES = {name: functools.cache(draw) for name, draw in FIGURES.items()}
every_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def texts(figure):
    """All that is written in a figure; ticks outside the limits of their axis are not drawn."""
    unseen = []
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        unseen += [
            tick.label1
            for tick in axis.get_major_ticks()
            if not low <= tick.get_loc() <= high
        ]
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text() and text not in unseen
    ]


def words(figure):
    return " ".join(
        " ".join(text.get_text() for text in texts(figure))
        .replace("\N{NO-BREAK SPACE}", " ")
        .split()
    )


@every_figure
def test_a_notebook_shows_it_readably_with_a_banner_when_there_is_a_note(draw):
    plain, noted = draw(""), draw(NOTE)
    assert NOTE in words(noted) and NOTE not in words(plain) and not plain.artists
    assert [to_hex(banner.get_facecolor()).upper() for banner in noted.artists] == [
        plots.WARNING
    ]
    assert min(text.get_size() for text in texts(noted)) >= 9
    assert noted.dpi <= 100 and noted.get_figwidth() * noted.dpi <= 880
    assert to_hex(noted.get_facecolor(), keep_alpha=True) == "#ffffffff"
    assert noted._repr_png_().startswith(b"\x89PNG")


SAYS = {
    "image_grid": ["Scans", "scan 0", "scan 5 30 × 40 px"],
    "float_grid": ["Views", "augmented"],
    "empty_grid": ["No conflicts"],
    "two_curves": [
        "epoch",
        "VGG16 validation",
        "accuracy (share of scans)",
        "reference training",
    ],
    "training_curves": [
        "VGG16: validation accuracy 75% at best (epoch 5), 70% at the end",
        "epoch",
        "accuracy (share of scans)",
        "loss (cross-entropy, log scale)",
        "fine-tuning from epoch 3",
        "always the largest class, 30%",
        "epoch that is kept",
    ],
    "curves_beside_reference": [
        "VGG16 (ImageNet), validation",
        "ResNet50 (random), training",
        "reference study, validation",
    ],
    "confusion_matrices": [
        "VGG16 calls 1 meningioma scans glioma",
        "predicted label",
        "VGG16: 1 of 4 scans correct",
    ],
    "roc_curves": [
        "Hardest class to tell apart on test scans: glioma (AUROC 0.000)",
        "false positive rate (share of the other classes)",
        "no tumor: AUROC 1.000",
        "guessing: 0.500",
    ],
    "class_counts": [
        "Glioma: 28% of the Training folder, 25% of the Testing folder",
        "(n = 18)",
        "share of the folder",
    ],
    "sizes_and_intensities": [
        "the area of a dot grows with the number of scans",
        "mean intensity of a scan (0 to 255)",
    ],
    "split_flow": [
        "all scans: 22 scans",
        "excluded: label conflict: 1 scans",
        "known patients",
    ],
    "probability_bars": ["Glioma, with 70% confidence", "probability", "70 %"],
    "interval_chart": [
        "VGG16 (n = 394)",
        "50% (45% to 55%)",
        "always the largest class",
        " 29% ",
    ],
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_its_message_and_its_units(name):
    shown = words(FIGURES[name](""))
    assert [
        said for said in SAYS[name] if said not in shown
    ] == [] and "nan" not in shown.lower()


@every_figure
@pytest.mark.parametrize("note", ["", f"{NOTE}. " * 4], ids=["no note", "long note"])
def test_nothing_is_cut_off_or_written_over_something_else(draw, note):
    figure = draw(note)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert (
        drawn.x0 >= -0.01
        and drawn.y0 >= -0.01
        and drawn.x1 <= width + 0.01
        and drawn.y1 <= height + 0.01
    )
    boxes = [
        (text.get_text(), text.get_window_extent(renderer).padded(-1))
        for text in texts(figure)
    ]
    assert [
        (a[0], b[0]) for a, b in itertools.combinations(boxes, 2) if a[1].overlaps(b[1])
    ] == []


@every_figure
def test_tables_stay_as_they_were(draw):
    before = [(table, table.copy()) for table in (SCANS, VGG16, REFERENCE, PREDICTED)]
    draw.__wrapped__("")  # past the cache
    for table, copy in before:
        pd.testing.assert_frame_equal(table, copy)


def test_a_model_has_one_color_everywhere():
    for name in ("training_curves", "two_curves"):
        used = {
            to_hex(line.get_color()).upper()
            for axes in FIGURES[name]("").axes
            for line in axes.lines
        }
        assert plots.MODEL_COLORS["vgg16"] in used, name


def test_every_class_has_a_color_however_many_there_are():
    labels = [f"class {number}" for number in range(8)]
    colors = plots.class_colors(labels)
    assert list(colors) == labels
    assert len(set(colors.values())) == len(plots.CLASS_PALETTE)


def test_scans_keep_their_aspect_and_gray_levels():
    for name, brightest in (("image_grid", 255), ("float_grid", 1)):
        shown = [
            (axes, image) for axes in FIGURES[name]("").axes for image in axes.images
        ]
        assert shown and all(axes.get_aspect() == 1 for axes, _ in shown)
        assert all(
            image.get_cmap().name == "gray" and image.get_clim() == (0, brightest)
            for _, image in shown
        )


def test_a_tumor_box_is_drawn_only_where_it_is_known():
    boxes = np.where(np.arange(6)[:, None] < 2, BOXES[:6], np.nan)
    figure = plots.image_grid(
        IMAGES[:6], ["scan"] * 6, boxes=boxes, title="Scans", columns=3, banner=""
    )
    assert [len(axes.patches) for axes in figure.axes] == [1, 1, 0, 0, 0, 0]


def test_classes_that_are_equally_hard_are_all_named():
    perfect = PREDICTED.copy()
    for label in LABELS:
        perfect[f"p_{label}"] = (perfect["label"] == label).astype(float)
    figure = plots.roc_curves({"vgg16": perfect}, subset="test", banner="")
    said = "glioma and meningioma and no tumor and pituitary (AUROC 1.000)"
    assert f"Hardest classes to tell apart on test scans: {said}" in words(figure)


def test_a_name_of_a_network_says_how_it_started_and_has_its_color():
    values = {"model": "vgg16", "weights": "imagenet", "recipe": "transfer"}
    name = plots.network_name(values)
    assert name == "VGG16 (ImageNet)"
    assert plots.setting_name(values) == "VGG16 (ImageNet), transfer"
    assert plots.network_color(name) == plots.MODEL_COLORS["vgg16"]
    assert plots.network_color("densenet121 (random)") == plots.INK


@pytest.mark.parametrize(
    ("share", "text"), [(0.75, "75%"), (-0.12, "-12%"), (-0.001, "0%")]
)
def test_a_share_is_written_with_its_sign(share, text):
    assert plots.percent(share) == text


def test_the_flow_of_a_split_counts_the_groups_that_are_torn():
    torn = SPLIT.assign(group="the same")
    figure = plots.split_flow(torn, banner="")
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "in several subsets: 1" in words and "No group" not in words


def test_curves_that_cannot_be_drawn_are_a_sentence():
    unvalidated = VGG16.assign(val_accuracy=np.nan)
    with pytest.raises(ValueError, match="No epoch was validated"):
        plots.training_curves(unvalidated, model="vgg16", baseline=0.25, banner="")
    one_class = PREDICTED[PREDICTED["label"] == "glioma"]
    with pytest.raises(ValueError, match="of one class"):
        plots.roc_curves({"vgg16": one_class}, subset="validation", banner="")


def test_a_probability_is_never_said_to_be_100_percent():
    figure = plots.probability_bars(
        pd.Series([0.996, 0.004], ["glioma", "no_tumor"]), title="Sure", banner=""
    )
    assert "over 99 %" in words(figure)


def test_a_single_phase_is_not_named():
    single = VGG16.assign(phase="all")
    assert "from epoch" not in words(
        plots.training_curves(single, model="vgg16", baseline=0.3, banner="")
    )


def test_no_mistakes_are_said():
    right = {"vgg16": PREDICTED.assign(predicted=PREDICTED["label"])}
    assert "No errors on test scans" in words(
        plots.confusion_matrices(right, subset="test", banner="")
    )


@pytest.mark.parametrize("name", ["$", "a$b$c", "$\\foo$", "cost $x_{ $"])
def test_a_name_with_dollar_signs_is_no_formula(name):
    scans = np.zeros((2, 8, 8), "uint8")
    figure = plots.image_grid(scans, [name, "b"], title=name, columns=2, banner=name)
    assert figure._repr_png_().startswith(b"\x89PNG")
    table = SCANS.assign(label=SCANS["label"].replace("glioma", name))
    assert plots.class_counts(table, banner="")._repr_png_().startswith(b"\x89PNG")
