"""Every figure of the thesis: data in, a matplotlib figure out; the style, the captions, `save`."""

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from melanoma_lib.reporting.figures.calibration import reliability, temperature_curve
from melanoma_lib.reporting.figures.catalogue import (
    CATALOG,
    CHAPTERS,
    EXTERNAL,
    PER_MODEL,
    catalog_markdown,
)
from melanoma_lib.reporting.figures.data import (
    abcde,
    augmentation,
    class_counts,
    examples,
    lesion_leak,
    patients,
)
from melanoma_lib.reporting.figures.explanation import grad_cam, mask_overlap, randomised_weights
from melanoma_lib.reporting.figures.models import (
    accuracy_latency,
    architectures,
    comparison,
    subgroups,
)
from melanoma_lib.reporting.figures.style import (
    LIGHT,
    MODEL_COLOURS,
    STYLE,
    WIDTH,
    SavedFigure,
    page,
    save,
    style,
)
from melanoma_lib.reporting.figures.thresholds import (
    decision_curves,
    operating_points,
    roc,
    threshold_curves,
)
from melanoma_lib.reporting.figures.training import confusion_matrices, training_curves
