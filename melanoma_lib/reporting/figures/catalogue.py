"""Every figure of the thesis by name, with its caption."""

CHAPTERS = {
    "01": "The data",
    "02": "Preparing the images",
    "03": "The architectures",
    "04": "Training",
    "05": "Calibration",
    "06": "Finding melanoma",
    "07": "Explaining a prediction",
    "08": "Comparing the models",
    "11": "When not to answer",
    "12": "A better recipe",
}
TRAINING_CURVES = (
    "Loss and accuracy on the training and the validation split after each epoch. The weights of "
    "the marked epoch are kept."
)
CONFUSION_MATRIX = (
    "Confusion matrix on the test split: number of images and fraction of the row (true "
    "diagnosis). Darker cells hold larger fractions."
)
CATALOG = {
    "01-1-class-counts": "Images and lesions per diagnosis, in numbers and in per cent of all.",
    "01-2-patients": "Age, sex and body site, each lesion counted once. Beside the bars: lesions, "
    "and the fraction of them that is malignant.",
    "01-3-examples": "Dermatoscopic images of the seven diagnoses, one row per diagnosis.",
    "01-4-lesion-leak": "Images per lesion (left), and the fraction of held-out images whose "
    "lesion also has images in the training split when the data are split by image (right).",
    "01-5-abcde": "Asymmetry, border, colour and diameter, measured with the lesion masks. Boxes "
    "span the quartiles, whiskers the 5th to the 95th percentile; dashed: the median of melanoma.",
    "02-1-augmentation": "One training image and random augmentations of it, as in training.",
    "03-1-architectures": "Trainable parameters, and multiply-adds to classify one image.",
    "04-1-training-curves": TRAINING_CURVES,
    "04-2-confusion-matrix": CONFUSION_MATRIX,
    "05-1-reliability": "Accuracy against confidence on the test split before and after "
    "temperature scaling, with 95% intervals of independent images and, below, images per bin. On "
    "the diagonal confidence equals accuracy; ECE is the expected calibration error.",
    "05-2-temperature": "Negative log-likelihood on the validation split against the temperature "
    "that divides the logits. Markers: fitted temperatures; at temperature 1 nothing changes.",
    "05-3-melanoma-reliability": "Fraction of melanomas against the predicted probability of "
    "melanoma on the test split, before and after temperature scaling, with 95% intervals of "
    "independent images and, below, images per bin. On the diagonal the predicted probability is "
    "the observed frequency; ECE is the mean distance from it.",
    "06-1-roc": "Receiver operating characteristic for melanoma against all other diagnoses on "
    "the test split, with the chosen operating points. Right: the region framed on the left.",
    "06-2-thresholds": "Sensitivity and specificity for melanoma on the test split against the "
    "threshold on the predicted probability. Markers: thresholds chosen on the validation split.",
    "06-3-operating-points": "Sensitivity and specificity for melanoma on the test split at the "
    "operating points chosen on the validation split, with 95% intervals. Dashed: the target.",
    "06-4-decision-curves": "Net benefit of acting on the predicted probability of melanoma, on "
    "the test split, against the threshold at which one acts; one unit is one melanoma found per "
    "image without a false alarm. Grey: acting on every image, or on none.",
    "07-1-grad-cam": "Grad-CAM heat maps of the models: where the evidence for melanoma lies in "
    "the image, whatever its diagnosis. Dark all over: no evidence for melanoma; bright all over: "
    "equal evidence in every cell, however little. White outline: the lesion mask.",
    "07-2-mask-overlap": "Grad-CAM maps of the diagnosis that a model predicts, scored against "
    "the lesion masks of the test split, and how much more of its probability is lost with the "
    "hottest fifth of the pixels than with the coldest (ROAD): means with 95% intervals. Grey: the "
    "models with random weights, and baselines that ignore the image (dashed; their ROAD is that "
    "of the first model).",
    "07-3-doubtful-maps": "Test images, chosen by rule, whose Grad-CAM maps should be doubted. "
    "Dark all over: no evidence for the class; bright all over: equal evidence in every cell, "
    "however little. White outline: the lesion mask.",
    "07-4-randomised-weights": "How alike the maps of a model are to its own while its weights are "
    "made random layer by layer, from the output on: mean rank correlation, with 95% intervals. A "
    "map that stays alike does not show what the model has learned. Empty maps are left out.",
    "07-5-agreement": "How alike the Grad-CAM maps of a model and a blob in the middle of the "
    "image are, and (grey) those of two models on the same test images, each for the class its "
    "model predicts: mean rank correlation, with 95% intervals.",
    "07-6-occlusion": "Metrics on the test split as it is, with parts of the images hidden by the "
    "lesion masks, with artifacts painted over them, and in other light, focus and colours, with "
    "95% intervals. Dashed: an AUC without information. A network that tells melanoma without "
    "the lesion has found a shortcut.",
    "08-1-comparison": "The models on the same test split, with 95% intervals and values. Dots: "
    "single trainings, where there are several.",
    "08-2-training-curves": TRAINING_CURVES,
    "08-3-confusion-matrices": CONFUSION_MATRIX,
    "08-4-accuracy-latency": "Accuracy on the test split, with 95% intervals, against the time to "
    "classify one image: median, and from the 5th to the 95th percentile of the measured times. "
    "Larger markers: more parameters, given in millions (M).",
    "08-5-subgroups": "One model on groups of the test split, with 95% intervals. In parentheses: "
    "lesions, of them melanomas. Hollow and grey: groups of few lesions. Dashed: the whole test "
    "split.",
    "08-6-price-of-leakage": "What leakage changes in one architecture, on the same test images: "
    "trained with other images of test lesions minus trained without, with 95% intervals, in all "
    "test images, in those whose lesion leaked, and in those whose lesion did not (how many, in "
    "parentheses). Dots: single pairs of trainings. Above zero, and for ECE below, the model looks "
    "better than it is.",
    "08-7-leaked-fraction": "The same difference in all test images against the fraction of them "
    "whose lesion leaked, with 95% intervals. Dots: single pairs of trainings.",
    "08-8-two-splits": "The naive comparison: one architecture trained and tested on data split by "
    "lesion and on data split by image, where test lesions were seen in training, with 95% "
    "intervals. The test images differ too.",
    "08-9-value-of-trainings": "Half the width of the 95% interval over lesions and trainings, of "
    "two networks and of their difference, by the number of trainings of each and of test lesions, "
    "from measured variances.",
    "11-1-risk-coverage": "Fraction of errors among the images that are answered, against how many "
    "are, the most certain first, in several orders, on the test split. Grey: errors among all.",
    "11-2-referral": "What is left on the test split when the least confident images go to a "
    "doctor, by the fraction that is to be referred; thresholds chosen on the validation split, "
    "with 95% intervals. Melanomas found or referred: predicted positive, or not answered.",
    "11-3-kept-promises": "How often a threshold that is chosen on as many lesions as validation "
    "has reaches its target on all held-out lesions, from which they are drawn, and what is left "
    "of the other rate. One kind of threshold reaches the target on the lesions drawn, the other "
    "promises it with 95% confidence (dashed) and is missing where these lesions are too few.",
    "11-4-prediction-sets": "Conformal sets of diagnoses on the test split, every lesion weighing "
    "the same, with 95% intervals. Dashed: the coverage that is promised.",
    "11-5-shifts": "What becomes of promises when the images or the prevalence of melanoma differ "
    "from those of the validation split: marginal conformal sets, the first operating point, and "
    "a referral by confidence, with 95% intervals. Dashed: what was promised or aimed at.",
    "12-1-learning-rate": "The learning rate during a training, by recipe.",
    "12-2-recall-by-diagnosis": "Recall of each diagnosis on the test split of HAM10000 by recipe, "
    "with 95% intervals; in parentheses the number of test images.",
    "12-3-calibration-by-diagnosis": "Mean predicted probability of each diagnosis minus its "
    "frequency on the test split of HAM10000, with 95% intervals, of a network that saw few images "
    "of the most frequent diagnosis: not corrected for that, and corrected.",
    "12-4-time-to-quality": "Metrics on the test split of HAM10000 against the seconds of one "
    "training, by recipe, with 95% intervals over lesions and, where there are several, trainings.",
}

# Drawn by `melanoma evaluate` into its own folder, and no part of a run.
EXTERNAL = {
    "external-1-reliability": "Accuracy against confidence before and after temperature scaling, "
    "on the run's own test split and on images from elsewhere, with 95% intervals of independent "
    "images and, below, images per bin. The temperature is the same on both.",
    "external-1-melanoma-reliability": "Fraction of melanomas against the predicted probability "
    "of melanoma before and after temperature scaling, on the run's own test split and on images "
    "from elsewhere of which no more is known than melanoma or not, with 95% intervals of "
    "independent images and, below, images per bin. The temperature is the same on both.",
    "external-2-operating-points": "Sensitivity and specificity for melanoma on the run's own test "
    "split and on images from elsewhere, at thresholds carried over unchanged, with 95% intervals. "
    "Dashed: the target on the validation split.",
}
# Drawn once per model, each in a file that ends in the model's key.
PER_MODEL = ("04-1-training-curves", "04-2-confusion-matrix", "08-5-subgroups")


def catalog_markdown() -> str:
    """The catalogue as Markdown by chapter."""
    lines = ["# Figures", ""]
    for chapter, title in CHAPTERS.items():
        lines += [f"## {chapter} {title}", "", "| Figure | Caption |", "| --- | --- |"]
        names = [name for name in CATALOG if name.startswith(chapter)]
        lines += [f"| `{name}` | {CATALOG[name]} |" for name in names] + [""]
    return "\n".join(lines)
