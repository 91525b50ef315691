"""7. Which changes are foreseen, how each is made and judged, what it may do, who is told, how it is taken back.

The parts are those of FDA's guidance: description of modifications, modification protocol, impact assessment.
"""

from model.describe.document import Block, Heading, Points, Table, Words
from model.describe.figures import percent
from model.describe.sources import Sources
from model.describe.validation import PLAN
from model.evaluate.limits import FEW

LEAST_LOSS = 0.02
"""Of AUROC: a new model may lie so far below the old one, at the low end of the paired interval. A target."""
RUNTIME = 0.01
"""By how much a score may differ from the float32 one when another runtime computes it. A target."""
RUNTIME_IMAGES = 500
"""That both runtimes score. A target."""
SHADOW_IMAGES = 500
"""That both models have read before one takes the other's place. A target."""
FEWEST_PATIENTS = 200
"""Of a site, kept from training, below which a retrained model is not judged. A target."""


def changes(sources: Sources) -> list[Block]:
    card = sources.card
    return [
        Heading("7. Predetermined change control plan", 1),
        Words(
            "In the parts of FDA's final guidance of December 2024 on predetermined change control plans for "
            "AI-enabled device software functions: description of modifications, modification protocol, impact "
            "assessment. A plan; its limits are targets and not results. No authority has been asked about it."
        ),
        Words(
            f"The model is locked: {card.name} {card.version} ({card.sha256}) gives the same scores for the same "
            "image, and learns nothing while it runs. Nothing changes but by the steps below."
        ),
        Heading("7.1 Description of modifications"),
        _modifications(),
        Words("Not foreseen, so that each needs a description and a validation of its own:"),
        Points(
            [
                "another intended use, population, body part, view or modality; any action without a radiologist",
                "another finding, or another meaning of one",
                "another architecture, input size or preprocessing; learning while it runs",
            ]
        ),
        Heading("7.2 Modification protocol"),
        _protocol(),
        *_acceptance(),
        Heading("7.3 Impact assessment"),
        _impact(),
        Heading("7.4 Who is told, and how it is taken back"),
        Points(_told()),
    ]


def _modifications() -> Table:
    return Table(
        "Three modifications, each by a person and never by itself",
        ["", "what changes", "why", "what stays", "where"],
        [
            [
                "M1",
                "the weights: trained again, with images of the site",
                "other detectors, processing and patients than those of the training images",
                "intended use, findings, architecture, input, preprocessing",
                "one site, or all",
            ],
            [
                "M2",
                "calibration and thresholds, at the site's prevalence",
                "scores and error rates hold for the prevalence that they were fitted at",
                "the weights, and so the order of scores",
                "one site",
            ],
            [
                "M3",
                "the runtime that computes the network",
                "less time an image, other hardware",
                "weights, thresholds, and decisions but for ties",
                "one node",
            ],
        ],
    )


def _protocol() -> Table:
    return Table(
        "Steps, in order; a step that does not pass ends the change, and the old model stays",
        ["step", "by", "for", "passes where"],
        [
            [
                "1. Look at the data",
                "`hilum model explore`",
                "M1, M2",
                "nothing that it reports as wrong is left unexplained",
            ],
            [
                "2. Split by patient",
                "`hilum model data split`",
                "M1, M2",
                f"no patient in two splits; at least {FEWEST_PATIENTS} patients of the site are kept for the test "
                "and never trained on",
            ],
            [
                "3. Train",
                "`hilum model train`",
                "M1",
                "the recipe, seed and hashes stand in the run folder and the card",
            ],
            [
                "4. Choose thresholds",
                "`hilum model evaluate`",
                "M1, M2",
                "on validation images, never on the test's",
            ],
            [
                "5. Calibrate",
                "`hilum model calibrate`",
                "M1, M2",
                "on images that did not train it; the card says which",
            ],
            ["6. Judge", "`hilum model evaluate`", "all", "the criteria below, on the test images"],
            [
                "7. Compare",
                "`hilum model compare`",
                "all",
                "the paired differences below, on the same images",
            ],
            [
                "8. Describe",
                "`hilum model describe`",
                "all",
                "a new description, read and signed by the site's radiologist",
            ],
            [
                "9. Run in shadow",
                "`[analyze] shadow` in the configuration; `hilum model shadow`",
                "M1, M2",
                f"{SHADOW_IMAGES} images of daily work read by both; the new one sends nothing; what differs is "
                "looked at",
            ],
            [
                "10. Activate",
                "`hilum model activate`",
                "M1, M2",
                "the node takes weights, thresholds and calibration together; the audit log says who, when and which",
            ],
        ],
    )


def _acceptance() -> list[Block]:
    return [
        Table(
            "Acceptance criteria of a change. Targets, fixed beforehand",
            ["for", "figure", "holds where"],
            [
                [
                    "M1",
                    f"AUROC, new less old, each finding with {FEW} positives or more",
                    f"the paired interval's low end is above {-LEAST_LOSS:g}",
                ],
                [
                    "M1, M2",
                    "sensitivity and specificity at the new thresholds",
                    "neither interval lies wholly below that of the old model",
                ],
                [
                    "M1, M2",
                    "expected calibration error",
                    f"{PLAN.ece:g} or less at the site's prevalence",
                ],
                [
                    "M1",
                    "AUROC in each view, sex and age band",
                    "in none of them the paired interval lies wholly below 0",
                ],
                [
                    "M1",
                    "images out of scope",
                    f"at least {percent(PLAN.strange_stopped)} of each kind stopped, at most "
                    f"{percent(PLAN.right_lost)} of right ones lost",
                ],
                [
                    "M3",
                    f"scores on {RUNTIME_IMAGES} images",
                    f"none differs by more than {RUNTIME:g} from the float32 one; decisions unchanged but for ties",
                ],
            ],
        ),
    ]


def _impact() -> Table:
    return Table(
        "What each change may bring, what it may break, and what holds it",
        ["", "benefit", "risk", "held by"],
        [
            [
                "M1",
                "fits the site's detectors and patients",
                "learns a shortcut of the site (portable films, a scanner, a collection); worse elsewhere or for few; "
                "labels of the site are wrong",
                "floors that read no picture, parts by view, sex, age and source, patients kept apart, steps 6, 7 "
                "and 9",
            ],
            [
                "M2",
                "scores mean what they say at the site; false calls as often as the site wants",
                "thresholds chosen on few positives; prevalence moves with the season",
                "intervals, least numbers of positives, step 9; calibrated anew when the prevalence has moved",
            ],
            [
                "M3",
                "faster, on hardware that is there",
                "scores differ near a threshold",
                "the comparison with float32 scores on the same images; each result names the model by its hash",
            ],
            [
                "together",
                "",
                "one change hides another's harm",
                "one at a time: each is judged against the model that is active",
            ],
        ],
    )


def _told() -> list[str]:
    return [
        "The ML engineer makes the change and keeps run folder, reports and both descriptions.",
        "The radiologist responsible reads what changed (the description, and the comparison of step 7) and agrees in "
        "writing before step 10; all who read results are told the day, the version, and what will look different.",
        "The PACS administrator knows the day, and who takes it back.",
        "The compliance officer finds the activation in the audit log, and in every result the model's name, "
        "version and hash.",
        "Taken back by the same command with the folder of the old model, which is kept: `hilum model activate`. "
        "That, too, stands in the audit log. Results that the new model made stay as they are and name it.",
        "Taken back at once where a criterion turns out not to hold, where skipped or parked images become more "
        "frequent without a reason, or where the radiologist says so.",
    ]
