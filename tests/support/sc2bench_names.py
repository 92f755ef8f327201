"""sc2bench's names of our tensors, by hand: what the converter does the other way round."""

from splitzoo.zoo.bottlenecks.factorized_prior import TABLE_BUFFERS

TINY = "splittable_test_resnet-fp"
TABLES = "entropy tables: made anew from the densities"
COUNTERS = "counters of batches: the model's batch norms are frozen and count none"

# Our names to sc2bench's; the first match wins.
FACTORIZED = {
    "encoder.": "bottleneck_layer.encoder.",
    "bottleneck.entropy_bottleneck.": "bottleneck_layer.entropy_bottleneck.",
    "decoder.g_s.": "bottleneck_layer.decoder.",
}
HYPERPRIOR = {
    "encoder.": "bottleneck_layer.g_a.",
    "bottleneck.h_a.": "bottleneck_layer.h_a.",
    "bottleneck.h_s.": "bottleneck_layer.h_s.",
    "bottleneck.entropy_bottleneck.": "bottleneck_layer.entropy_bottleneck.",
    "bottleneck.gaussian_conditional.": "bottleneck_layer.gaussian_conditional.",
    "decoder.g_s.": "bottleneck_layer.g_s.",
}
LAYER = {
    "encoder.": "encoder.",
    "bottleneck.entropy_bottleneck.": "entropy_bottleneck.entropy_bottleneck.",
    "decoder.tail.fc.": "classifier.fc.",
    "decoder.tail.": "decoder.",
}
VIT = "decoder.tail.patch_embed."


def inside(names, before):
    return {ours: before + theirs for ours, theirs in names.items()}


DETECTION = {
    "decoder.tail.rpn.": "rpn.",
    "decoder.tail.roi_heads.": "roi_heads.",
    "decoder.tail.": "backbone.",
}
SEGMENTATION = {"decoder.tail.body.": "backbone.", "decoder.tail.": ""}
NAMES = {
    TINY: FACTORIZED | {"decoder.tail.": ""},
    "splittable_test_resnet-shp": HYPERPRIOR | {"decoder.tail.": ""},
    "splittable_test_resnet-mshp": HYPERPRIOR | {"decoder.tail.": ""},
    "splittable_resnet50-bq3ch": FACTORIZED | {"decoder.tail.": ""},
    "splittable_densenet169-bq12ch_v0.1.1": FACTORIZED | {"decoder.tail.": ""},
    "splittable_inception_v3-bq12ch_v0.1.1": FACTORIZED
    | {"decoder.tail.fc.": "fc.", "decoder.tail.": "inception_modules."},
    "splittable_hybrid_vit_small_r26_s32_224-fp": FACTORIZED
    | {
        f"{VIT}backbone.stages.": "patch_embed_pruned_stages.",
        f"{VIT}proj.": "patch_embed_proj.",
        "decoder.tail.": "",
    },
    "resnet50-eb_after_layer1-beta1.0e-15": LAYER,
    "resnet50-eb_after_avgpool-beta1.0e-15": LAYER,
    "faster_rcnn_splittable_test_resnet-fp": inside(FACTORIZED, "backbone.body.") | DETECTION,
    "faster_rcnn_splittable_test_resnet-mshp": inside(HYPERPRIOR, "backbone.body.") | DETECTION,
    "deeplabv3_splittable_test_resnet-fp": inside(FACTORIZED, "backbone.") | SEGMENTATION,
    "deeplabv3_splittable_test_resnet-shp": inside(HYPERPRIOR, "backbone.") | SEGMENTATION,
}


INTEGERS = "bottleneck.synthesis."


def is_table(name):
    """Entropy tables, and integers that are made of weights."""
    return name.endswith((*TABLE_BUFFERS, "scale_table")) or name.startswith(INTEGERS)


def theirs(model, names=None):
    """Our model's tensors as sc2bench would name them."""
    names = names or NAMES[model.spec.name]
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(INTEGERS):
            continue
        prefix = next(one for one in names if name.startswith(one))
        state[names[prefix] + name.removeprefix(prefix)] = tensor
    return state
