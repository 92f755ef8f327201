"""Names of tensors: sc2bench's to ours. All of a checkpoint goes somewhere, or is an error.

A name goes three steps: older spellings of it are brought up to date (``_RENAMED``), it is left out
if it is of a kind that has no place (``_LEFT_OUT``), and the longest of the prefixes that its
model's family knows is replaced (``prefixes``).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from splitrun.errors import CheckpointError

from ..bottlenecks.factorized_prior import TABLE_BUFFERS
from ..spec import ModelSpec

SCALE_TABLE = "scale_table"
_LISTED = 4
"""Number of names, and of groups of them, that a message lists."""
_SIGNS = (
    (r"backbone\.body\.", "a detector (faster_rcnn_…)"),
    (r"backbone\.(?!body\.|fpn\.)", "a segmentation network (deeplabv3_…)"),
    (r"(layer\d|features|stages|blocks|conv1|stem|s\d)\.", "a classifier"),
    (r"(.*\.)?bottleneck_layer\.h_a\.", "a hyperprior (…-shp or …-mshp)"),
    (r"(.*\.)?bottleneck_layer\.entropy_bottleneck\.", "a factorized prior (…-fp)"),
    (r"entropy_bottleneck\.", "an entropy bottleneck after a layer (…-eb_after_…)"),
)
"""Beginnings of names, and what they are a sign of; task first, then bottleneck."""

_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # CompressAI 1.1, with which the released ones were trained, and what it had before.
        (r"(?<=entropy_bottleneck\._)matrix(\d)$", r"matrices.\1"),
        (r"(?<=entropy_bottleneck\._)bias(\d)$", r"biases.\1"),
        (r"(?<=entropy_bottleneck\._)factor(\d)$", r"factors.\1"),
        (r"(?<=entropy_bottleneck\.)_(matrices|biases|factors)\.", r"\1."),
        # torchvision before 0.13, with which the detectors were trained.
        (r"(?<=fpn\.)(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"\1_blocks.\2.0.\3"),
        (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    )
)

_LEFT_OUT = {
    "entropy tables: made anew from the densities": (*TABLE_BUFFERS, SCALE_TABLE),
    "counters of batches: the model's batch norms are frozen and count none": (
        "num_batches_tracked",
    ),
}
"""Reason to last words of names, which are left out where our model has no such tensor."""

INTEGERS = "bottleneck.synthesis."
"""Prefix of a hyper-decoder's integers, which are made of its weights."""

_CODER = "bottleneck.entropy_bottleneck."
_HYPERPRIOR = {"g_a.": "encoder.", "g_s.": "decoder.g_s.", "": "bottleneck."}
_BOTTLENECKS = {
    "factorized-prior": {
        "encoder.": "encoder.",
        "entropy_bottleneck.": _CODER,
        "decoder.": "decoder.g_s.",
    },
    "scale-hyperprior": _HYPERPRIOR,
    "mean-scale-hyperprior": _HYPERPRIOR,
    "channel-reduction": {"encoder.": "encoder.", "decoder.": "decoder.g_s."},
}
"""sc2bench's names within its bottleneck to ours."""

_BOTTLENECK, _TAIL = "bottleneck_layer.", "decoder.tail."
_TASKS = {
    "image-classification": ("", {"": _TAIL}),
    "object-detection": ("backbone.body.", {"backbone.": _TAIL, "": _TAIL}),
    "semantic-segmentation": ("backbone.", {"backbone.": f"{_TAIL}body.", "": _TAIL}),
}
"""What stands before the bottleneck's name, and the names of the rest."""

_BACKBONES = {
    "inception_": {"inception_modules.": _TAIL},
    "vit_": {
        "patch_embed_pruned_stages.": f"{_TAIL}patch_embed.backbone.stages.",
        "patch_embed_proj.": f"{_TAIL}patch_embed.proj.",
    },
}
"""Beginnings of timm's names of the backbones whose layers sc2bench names in its own way."""

# Its EntropicClassifier: a network taken apart into parts whose layers keep their names.
_LAYERS = {
    "encoder.": "encoder.",
    "entropy_bottleneck.entropy_bottleneck.": _CODER,
    "decoder.": _TAIL,
    "classifier.": _TAIL,
}


@dataclass(frozen=True)
class LeftOut:
    """Tensors of a checkpoint that are not in the model on purpose, by sc2bench's names."""

    reason: str
    names: tuple[str, ...]


def prefixes(spec: ModelSpec) -> dict[str, str]:
    """Return the prefixes of sc2bench's names for a model, and ours in their place.

    Raises:
        CheckpointError: sc2-benchmark has no trained models of this kind.
    """
    kind = spec.bottleneck.kind
    if kind == "entropy-bottleneck":
        return _LAYERS
    if kind not in _BOTTLENECKS:
        raise CheckpointError(
            f"{spec.name} has no checkpoint: it is made of published parts, and nothing is trained "
            "for it.",
            next_step=f'zoo.load("{spec.name}") loads them.',
        )
    before, rest = _TASKS[spec.task]
    inside = {f"{before}{_BOTTLENECK}{ending}": ours for ending, ours in _BOTTLENECKS[kind].items()}
    for family, names in _BACKBONES.items():
        if spec.backbone.startswith(family):
            inside |= names
    return inside | rest


def up_to_date(name: str) -> str:
    """Return a name as today's CompressAI and torchvision spell it."""
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def map_tensors(
    spec: ModelSpec, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[LeftOut, ...]]:
    """Give the tensors of a checkpoint our names.

    Args:
        spec: Spec of the model.
        theirs: Tensors of the checkpoint, by sc2bench's names.
        ours: State dict of the model: what has to be filled, with which shape and dtype. Its
            entropy tables are not looked at.

    Returns:
        Tensors by our names, everything that ``ours`` has but entropy tables; and what was left
        out, with reasons.

    Raises:
        CheckpointError: Names are missing, unexpected or of another shape or dtype; all of them are
            listed, up to a few of each.
    """
    wanted = {name: tensor for name, tensor in ours.items() if not _is_table(name)}
    known = sorted(prefixes(spec).items(), key=lambda item: len(item[0]), reverse=True)
    mapped: dict[str, Tensor] = {}
    came_from: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    unexpected, unfit = [], []
    for given, tensor in theirs.items():
        current = up_to_date(given)
        prefix, new = next((pair for pair in known if current.startswith(pair[0])), ("", ""))
        name = new + current.removeprefix(prefix)
        if name in mapped:
            unexpected.append(f"{given} (the same as {came_from[name]})")
        elif name in wanted:
            mapped[name], came_from[name] = tensor, given
            if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
                unfit.append(f"{given} ({_kind(tensor)}, not {_kind(wanted[name])})")
        elif reason := _reason(given):
            left_out.setdefault(reason, []).append(given)
        else:
            unexpected.append(given)
    differences = {
        "missing, by our names": sorted(wanted.keys() - mapped.keys()),
        "unexpected": unexpected,
        "of another shape or type": unfit,
    }
    if named := list_differences(differences):
        raise CheckpointError(
            f"The checkpoint does not fit {spec.name}, {_kind_of(spec)}:{named}",
            next_step=f"{_likely_cause(list(theirs), len(mapped))} Another model is named with "
            "--name NAME; all names: splitzoo zoo list",
        )
    return mapped, tuple(LeftOut(reason, tuple(names)) for reason, names in left_out.items())


def _is_table(name: str) -> bool:
    """Say whether a tensor is made of others: an entropy table, or an integer of h_s."""
    table = name.rpartition(".")[2] in (*TABLE_BUFFERS, SCALE_TABLE)
    return name.startswith(INTEGERS) or (table and name.startswith("bottleneck."))


def _reason(name: str) -> str:
    last = name.rpartition(".")[2]
    return next((reason for reason, words in _LEFT_OUT.items() if last in words), "")


def _kind(tensor: Tensor) -> str:
    shape = "×".join(map(str, tensor.shape)) or "one"
    return f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def list_differences(differences: Mapping[str, Sequence[str]]) -> str:
    """Return names by what is wrong with them, a line each: number, the largest groups, a few."""
    told = ((len(names), what, _grouped(names)) for what, names in differences.items() if names)
    return "".join(f"\n  {count} {what}: {names}" for count, what, names in told)


def _grouped(names: Sequence[str]) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names)
    groups = Counter(".".join(name.split(".")[:2]) for name in names).most_common()
    told = ", ".join(f"{count} in {group}" for group, count in groups[:_LISTED] if count > 1)
    told += f", {len(groups) - _LISTED} more groups" if told and len(groups) > _LISTED else ""
    return f"{told and told + '; '}such as {', '.join(names[:_LISTED])}"


def _kind_of(spec: ModelSpec) -> str:
    return f"which is for {spec.task} with a {spec.bottleneck.kind} bottleneck"


def _likely_cause(names: Sequence[str], fitting: int) -> str:
    """Say what a checkpoint that does not fit is likely to be, by its names."""
    first = {name.partition(".")[0] for name in names}
    if not fitting and len(first) == 1:
        (prefix,) = first
        return (
            f"All its names begin with {prefix}., which what wrapped the network has put there: "
            "save the network itself (for DataParallel, model.module)."
        )
    found = [what for pattern, what in _SIGNS if any(re.match(pattern, name) for name in names)]
    if not found:
        return "It is of a network that sc2-benchmark has not."
    return f"By its names it is of {' with '.join(found)}."
