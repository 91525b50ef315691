"""2. How the algorithm works: its steps, what is checked in a DICOM object, how pixels become input, the network."""

from model import pixels, scope
from model.card import GRAPH, VGG16, Card, Knots, Temperature
from model.describe import flow
from model.describe.document import Block, Drawn, Facts, Heading, Points, Table, Words
from model.describe.figures import NOT_KNOWN, TIGHT, facts_of, percent, tables_of
from model.describe.layers import Layers
from model.describe.sources import Sources
from model.network import CONVOLUTIONS, HEAD, LAYERS, layer_of
from model.train.recipe import Recipe

SCOPE_ROWS = {
    "rows": "What the learned check stops, on sets that did not train it",
    "scope": "What the learned check stops, on sets that did not train it",
}


def design(sources: Sources, network: Layers) -> list[Block]:
    card = sources.card
    return [
        Heading("2. Algorithm design and function", 1),
        Heading("2.1 Flowchart"),
        Drawn("The way of an image through the algorithm.", flow.picture(card), flow.mermaid(card)),
        Heading("2.2 DICOM checking steps"),
        Words(
            "The rules are asked in this order and the first that answers decides. Each gives its reason in words; "
            "a site may change the least age, add words, and say what silence in the header means."
        ),
        _rules(),
        Heading("2.3 Preprocessing steps"),
        Points(preprocessing(card), is_numbered=True),
        *_why(sources),
        Heading("2.4 Learned check of what the picture shows"),
        *_scope(sources),
        Heading("2.5 Network architecture"),
        *_architecture(sources, network),
        Heading("2.6 From the network's output to a finding"),
        *_output(sources),
    ]


def _rules() -> Table:
    stored = {rule.name for rule in scope.STORED_ONLY}
    rows = [
        [
            str(number),
            f"`{rule.name}`",
            rule.says.removesuffix(": stored only"),
            "stored, no job" if rule.name in stored else "skipped",
        ]
        for number, rule in enumerate(scope.RULES, 1)
    ]
    return Table(
        f"The {len(rows)} rules",
        ["", "rule", "there is no result where", "what becomes of it"],
        rows,
        frozenset({0}),
    )


def preprocessing(card: Card) -> list[str]:
    """In the order of `pixels.read` and `pixels.prepare`."""
    found = [
        "Stored values are decoded, 8 to 16 bits, signed or not; a stream that breaks off is an error and no picture.",
        "The Modality LUT, or rescale slope and intercept, is applied (PS3.3 C.11.1).",
        "The VOI LUT, or the first window, is applied (PS3.3 C.11.2). One that can't be used, or that leaves less "
        f"than {percent(pixels.LEAST_IN_WINDOW)} of the picture grey, counts as absent: then the range of the values "
        "is black to white.",
        "The picture is turned so that bone is bright: MONOCHROME1, or Presentation LUT Shape INVERSE.",
        "Pixel padding, and what lies outside the display shutter, is painted black; a shutter that would leave less "
        f"than {percent(pixels.LEAST_IN_SHUTTER)} of the picture is ignored.",
        f"Pixels that are not square are made so, up to {pixels.MOST_STRETCH:g} to 1.",
        "The picture is turned upright where Patient Orientation says how it lies.",
        f"It is stretched to {card.size} x {card.size} pixels, each axis by its own scale, with a bilinear filter "
        "whose reach grows with the reduction.",
        f"Grey from 0 to 1 is multiplied by {card.scale:g}.",
    ]
    if card.each_picture:
        found.append("Each picture is brought to a mean of 0 and a spread of 1 by itself.")
    channels = [f"{mean:g}" for mean in card.mean[: card.channels]]
    spreads = [f"{spread:g}" for spread in card.spread[: card.channels]]
    over = f", and divided by {', '.join(spreads)}" if set(spreads) != {"1"} else ""
    one = "once" if card.channels == 1 else f"{card.channels} times, as equal channels"
    found.append(f"It is taken {one}, less {', '.join(channels)}{over}.")
    return found


def _why(sources: Sources) -> list[Block]:
    why = sources.table("input").get("why")
    return [Words(f"As the card says: {why}")] if why else []


def _scope(sources: Sources) -> list[Block]:
    card = sources.card
    told = sources.table("scope")
    if not card.scope:
        return [
            Words(
                "This model's folder has none. In the node the model that comes with Hilum looks at each picture as "
                "well, where that has one."
            )
        ]
    rows = sources.table("figures").get("scope")
    return [
        Words(
            "Beside the header's rules a score is learned from what the network itself computes of a picture: does "
            "it look like those that the model was made for? Where it does not, the image is skipped, or its result "
            "flagged, as the site chose."
        ),
        facts_of(told),
        *tables_of(told, SCOPE_ROWS),
        *tables_of({"scope": rows} if rows else {}, SCOPE_ROWS),
    ]


def _architecture(sources: Sources, network: Layers) -> list[Block]:
    card = sources.card
    parameters = f"{network.parameters:,}" if network.parameters is not None else NOT_KNOWN
    facts = Facts(
        [
            ("Architecture", "VGG16, built by this code" if card.architecture == VGG16 else "as imported"),
            ("Parameters", parameters),
            ("Weights", f"{card.weights}, {card.weights_path.stat().st_size:,} bytes, {card.sha256}"),
            ("Input", f"{card.size} x {card.size} x {card.channels}"),
            ("Outputs", f"{len(card.labels)}, each from 0 to 1"),
        ]
    )
    if not network.named:
        parts = "operations" if card.architecture == GRAPH else "layers"
        kinds = sorted(network.kinds.items(), key=lambda pair: (-pair[1], pair[0]))
        return [
            facts,
            Table(
                f"The file's {sum(network.kinds.values())} {parts} by kind. Which of them were trained: {NOT_KNOWN}",
                ["kind", parts],
                [[kind, str(count)] for kind, count in kinds],
                frozenset({1}),
            ),
        ]
    first = first_trained(sources.recipe)
    read = {layer_of(pool) for pool in card.pools}
    rows = [
        [
            layer.name,
            layer.kind,
            f"{TIGHT}x{TIGHT}".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            _state(layer.name, first) if layer.parameters else "",
            "yes" if layer.name in read else "",
        ]
        for layer in network.named
    ]
    total = ["all", "", "", parameters, "", ""]
    return [
        facts,
        Table(
            "Layers in order",
            ["layer", "kind", "gives", "parameters", "weights", "read by the head"],
            [*rows, total],
            frozenset({3}),
        ),
    ]


def first_trained(recipe: Recipe | None) -> str | None:
    """The first layer whose weights a recipe trains; None where no recipe is known."""
    if recipe is None:
        return None
    order = [*LAYERS, HEAD]
    return min((stage.cut for stage in recipe.stages), key=order.index, default=HEAD)


def _state(layer: str, first: str | None) -> str:
    if first is None:
        return NOT_KNOWN
    if layer not in CONVOLUTIONS:
        return "added, trained"
    return "fine-tuned" if first in LAYERS and LAYERS.index(layer) >= LAYERS.index(first) else "frozen"


def _output(sources: Sources) -> list[Block]:
    card = sources.card
    found: list[Block] = []
    if card.is_calibrated:
        found.append(
            Words(
                f"Scores that people see are calibrated: shares of images, not outputs. {card.calibrated_how}"
            )
        )
        found.append(_curves(card))
        found += tables_of(sources.table("calibration"), {"rows": "How far scores are from shares"})
        if rows := sources.table("figures").get("calibration"):
            found += tables_of({"rows": rows}, {"rows": "How far scores are from shares"})
    else:
        found.append(
            Words(
                "Scores are the network's outputs. The card has no calibration: a score of 0.5 does not say that "
                "half of such images have the finding."
            )
        )
    doubt = sources.table("doubt")
    if doubt:
        found.append(Words("How far a score would have moved, had other patients trained the model:"))
        found.append(facts_of(doubt))
        found += tables_of(
            doubt, {"rows": "Calls that the training does not settle, and how often they are wrong"}
        )
    found.append(Words(f"Thresholds: {card.rule}"))
    return found


def _curves(card: Card) -> Table:
    rows = []
    for label, curve in card.calibrations.items():
        match curve:
            case Temperature(temperature, shift):
                words = (
                    f"sigmoid(logit(output) / {temperature:.4g} {'-' if shift < 0 else '+'} {abs(shift):.4g})"
                )
            case Knots(raw):
                words = f"isotonic, {len(raw)} corners"
        prevalence = card.prevalence.get(label)
        rows.append([card.display[label], words, NOT_KNOWN if prevalence is None else percent(prevalence)])
    return Table(
        "Calibration of each finding", ["finding", "score", "holds at a prevalence of"], rows, frozenset({2})
    )
