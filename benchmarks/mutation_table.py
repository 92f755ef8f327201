"""Thirty faults that the tests should notice: what each changes, and which tests run.

``file`` and ``tests`` are the ends of paths, so folders may move; a snippet that is gone, or not
the only one, is an error.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: Name for ``--only``.
        area: Part of the code; a key of ``WIDER``.
        what: Sentence that says what is wrong then.
        file: End of the path of the file, enough to name one.
        old: Snippet that stands there once.
        new: Snippet that takes its place.
        tests: Ends of the paths of the test files that should notice.
    """

    name: str
    area: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


# What runs where the tests of a mutation pass.
WIDER: dict[str, tuple[str, ...]] = {
    "coding": (
        *("test_coding.py", "test_coding_plain.py", "test_coding_quantised.py"),
        *("test_coding_hyperprior.py", "test_coding_features.py", "test_coding_context.py"),
        *("test_coding_autoregressive.py", "test_coding_relu_range.py", "test_stream.py"),
        *("test_tables.py", "test_calibration.py", "test_precision_report.py", "test_zoo.py"),
    ),
    "formats": (
        *("test_stream.py", "test_tables.py", "test_record.py", "test_store.py"),
        *("test_bundle_damage.py", "test_bundle_parts.py", "test_bundle_graphs.py"),
        *("test_export.py", "test_runtime.py", "test_packaged.py", "test_misfits.py"),
    ),
    "parity": (
        *("test_precision_report.py", "test_precision.py", "test_export.py", "test_record.py"),
        *("test_bundle_damage.py", "test_bundle_parts.py", "test_bundle_graphs.py"),
        *("test_runtime.py", "test_engines.py", "test_targets.py"),
    ),
    "preprocessing": (
        *("test_preprocessing.py", "test_preprocessing_padded.py", "test_detection_steps.py"),
        *("test_detection.py", "test_segmentation.py", "test_runtime.py"),
    ),
    "profile": ("test_profile.py", "test_flops.py", "test_cards.py", "test_tradeoff.py"),
    "Hub": (
        *("test_hub.py", "test_hub_faults.py", "test_hub_push.py", "test_hub_commands.py"),
        *("test_pretrained.py", "test_store.py", "test_zoo.py"),
    ),
}

MUTATIONS: tuple[Mutation, ...] = (
    # Coding
    Mutation(
        "escape-low-bits",
        "coding",
        "Escapes send 15 low bits and not 16: both sides agree, but the format is another.",
        "coding/ans.py",
        "_LOW_BITS = 16",
        "_LOW_BITS = 15",
        ("test_coding.py",),
    ),
    Mutation(
        "zero-bytes-at-the-end",
        "coding",
        "Zero bytes after a payload are taken, so one image has many streams.",
        "coding/ans.py",
        r'payload.endswith(b"\0")',
        r'payload == b"\0"',
        ("test_coding.py",),
    ),
    Mutation(
        "plain-coder-spills-late",
        "coding",
        "The coder in plain Python spills one state too late, at equality.",
        "coding/plain_ans.py",
        "if state >> _SPILL >= frequency",
        "if state >> _SPILL > frequency",
        ("test_coding_plain.py",),
    ),
    Mutation(
        "scale-indexes-unchecked",
        "coding",
        "Of the check of the scale indexes the length alone is compared.",
        "coding/hyperprior.py",
        "if index_check(indexes) != check",
        "if len(index_check(indexes)) != len(check)",
        ("test_coding_hyperprior.py",),
    ),
    Mutation(
        "scales-and-means-swapped",
        "coding",
        "The context network gives means where scales are wanted, and the reverse.",
        "coding/context_network.py",
        "np.split(x, 2, axis=1)",
        "np.split(x, 2, axis=1)[::-1]",
        ("test_coding_autoregressive.py",),
    ),
    Mutation(
        "context-mean-rounding",
        "coding",
        "Predicted means are rounded with 127/256 added and not a half.",
        "context/sparse.py",
        "mean += ONE // 2",
        "mean += ONE // 2 - 1",
        ("test_coding_context.py",),
    ),
    Mutation(
        "live-margin-sign",
        "coding",
        "The margin around the edge's threshold lies on the wrong side: live values are lost.",
        "coding/relu_range.py",
        "np.floor(end - _MARGIN",
        "np.floor(end + _MARGIN",
        ("test_coding_relu_range.py",),
    ),
    Mutation(
        "feature-steps-round-down",
        "coding",
        "Steps of features are rounded to the nearest, so the greatest feature may be cut.",
        "coding/features.py",
        "np.uint32(0xFFFF)) >> 16",
        "np.uint32(0x7FFF)) >> 16",
        ("test_coding_features.py",),
    ),
    Mutation(
        "fitted-to-held-out",
        "coding",
        "Calibration compares codings on photographs that it was fitted to.",
        "calibration/images.py",
        "images[::_HELD_OUT]",
        "images[1::_HELD_OUT]",
        ("test_precision_report.py",),
    ),
    # Formats
    Mutation(
        "shape-big-endian",
        "formats",
        "Height and width stand in a stream with the high byte first.",
        "coding/stream.py",
        '_SHAPE = struct.Struct("<HH")',
        '_SHAPE = struct.Struct(">HH")',
        ("test_stream.py",),
    ),
    Mutation(
        "crc-unchecked",
        "formats",
        "The CRC-32 of a stream is read and compared with nothing.",
        "coding/stream.py",
        "!= zlib.crc32(body)",
        "is None",
        ("test_stream.py",),
    ),
    Mutation(
        "digest-without-offsets",
        "formats",
        "The id of a model does not depend on the offsets of its tables.",
        "coding/tables.py",
        "content.update(self.offset",
        "content.update(self.length",
        ("test_tables.py",),
    ),
    Mutation(
        "file-hash-unchecked",
        "formats",
        "A file of a bundle may have any SHA-256.",
        "splitrun/bundle.py",
        "if found != expected",
        "if len(found) != len(expected)",
        ("test_bundle_damage.py",),
    ),
    Mutation(
        "saved-hash-unchecked",
        "formats",
        "The weights of a saved model may have any SHA-256.",
        "zoo/store.py",
        "if found != config.weights_sha256",
        "if len(found) != len(config.weights_sha256)",
        ("test_store.py",),
    ),
    # Parity and self-tests
    Mutation(
        "off-by-one-anywhere",
        "parity",
        "A symbol may be off by one anywhere and not at ties alone.",
        "splitrun/comparison.py",
        "(difference > 1) | ((difference == 1) & ~tied)",
        "difference > 1",
        ("test_export.py", "test_precision_report.py"),
    ),
    Mutation(
        "nan-passes",
        "parity",
        "An output that is not a number passes.",
        "splitrun/comparison.py",
        "if not error <= tolerance",
        "if error > tolerance",
        ("test_bundle_parts.py",),
    ),
    Mutation(
        "halves-uncompared",
        "parity",
        "The edge may read other symbols than the device here wrote, of the same shape.",
        "splitrun/selftest.py",
        "not np.array_equal(tensor[0], expected[info.name])",
        "one[0].shape != expected[info.name].shape",
        ("test_bundle_graphs.py",),
    ),
    Mutation(
        "nothing-but-ties",
        "parity",
        "A record may call every symbol tied.",
        "export/verification.py",
        "device.symbols_tied > MAX_TIED",
        "device.symbols_differing > MAX_TIED",
        ("test_bundle_parts.py",),
    ),
    Mutation(
        "last-convolution-left-out",
        "parity",
        "The last convolution does not count to what leads to a rounding.",
        "precision/node_roles.py",
        "if position >= last",
        "if position > last",
        ("test_precision.py",),
    ),
    # Preprocessing
    Mutation(
        "mean-and-std-swapped",
        "preprocessing",
        "Pixels are normalised with mean and standard deviation swapped.",
        "preprocessing.py",
        "(levels - np.float32(mean)) / np.float32(std)",
        "(levels - np.float32(std)) / np.float32(mean)",
        ("test_preprocessing.py",),
    ),
    Mutation(
        "longer-side-rounded",
        "preprocessing",
        "The longer side is rounded and not truncated.",
        "preprocessing.py",
        "int(self.resize * longer / shorter)",
        "round(self.resize * longer / shorter)",
        ("test_preprocessing.py",),
    ),
    Mutation(
        "box-offset-unscaled",
        "preprocessing",
        "Boxes are scaled back before the corner of the crop is added.",
        "preprocessing.py",
        "(boxes + corner) * ratio",
        "boxes * ratio + corner",
        ("test_preprocessing_padded.py",),
    ),
    # FLOPs, size, rate
    Mutation(
        "bias-everywhere",
        "profile",
        "Convolutions without a bias are counted with one.",
        "profile/operators.py",
        "at is not None and args[at] is not None",
        "at is not None",
        ("test_flops.py",),
    ),
    Mutation(
        "nats-not-bits",
        "profile",
        "The estimated rate is in nats.",
        "profile/rate.py",
        "tensor.log2()",
        "tensor.log()",
        ("test_profile.py",),
    ),
    Mutation(
        "tables-twice",
        "profile",
        "Given tables are counted beside the model's own.",
        "profile/size.py",
        "in TABLE_BUFFERS:",
        "in ():",
        ("test_profile.py",),
    ),
    # Hub
    Mutation(
        "revision-ignored",
        "Hub",
        "The commit of the main branch is taken, whatever revision was named.",
        "zoo/hub.py",
        "name, revision=repo.revision)",
        "name)",
        ("test_hub.py",),
    ),
    Mutation(
        "downloaded-hash-unchecked",
        "Hub",
        "Downloaded weights may have any SHA-256.",
        "zoo/hub.py",
        "if found == config.weights_sha256",
        "if len(found) == len(config.weights_sha256)",
        ("test_hub_faults.py",),
    ),
    Mutation(
        "branch-never-followed",
        "Hub",
        "A branch in the cache is never asked for anew.",
        "zoo/hub.py",
        "if cached is not None and cached == repo.revision",
        "if cached is not None",
        ("test_hub.py",),
    ),
    Mutation(
        "private-into-public",
        "Hub",
        "A model that is to be private may be pushed to a public repository.",
        "zoo/hub_push.py",
        "if private and not hub.model_info(repo.repo_id).private",
        "if private and hub.model_info(repo.repo_id).private is None",
        ("test_hub_push.py",),
    ),
    Mutation(
        "token-repeated",
        "Hub",
        "A token that the server repeats is repeated in the message.",
        "zoo/hub_errors.py",
        'sent.removeprefix("Bearer ")',
        "sent",
        ("test_hub_faults.py",),
    ),
)
