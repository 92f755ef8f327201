"""Features through the codec of sc2-benchmark and through ours: what differs, and by how much."""

import numpy as np
import pytest
import torch
import torchvision.datasets
import torchvision.models  # noqa: F401  # torchdistill looks for both in sys.modules
from fields import relu_features, smooth
from torchvision.transforms.functional import to_pil_image

from splitrun.coding.features import FEATURE_CODECS, FeaturesCoder

pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test` in the README")

# sc2bench and what it imports use deprecated interfaces of other packages, and it divides by zero.
pytestmark = pytest.mark.filterwarnings("ignore")


def through_ours(features, codec, quality):
    coder = FeaturesCoder(codec, quality, len(features))
    payload = coder.encode(features)
    return coder.decode(payload, *features.shape[1:])[0], len(payload)


def through_sc2bench(features, codec, quality):
    """Features, data size, and how much of it are the pickled ranges."""
    from sc2bench.transforms.codec import PILTensorModule
    from torchdistill.common import file_util

    tensor = torch.from_numpy(features)
    module = PILTensorModule(returns_file_size=True, format=codec.upper(), quality=quality)
    decoded, size = module(tensor)
    maxima = [group.max() for group in tensor.split(3)]
    return decoded.numpy(), size, 2 * file_util.get_binary_object_size(maxima, unit_size=1)


# It puts three planes into one colour image, whose colours JPEG and WebP keep at a quarter of the
# resolution, and counts the pickles of its ranges, 9 KB here.
@pytest.mark.parametrize("codec", FEATURE_CODECS)
@pytest.mark.parametrize("shape", [(256, 56, 56), (512, 28, 28)], ids=["layer1", "layer2"])
def test_in_fewer_bytes_we_lose_less_than_a_third(codec, shape):
    features = relu_features(shape)
    features = features[features.max(axis=(1, 2)) > 0][:48]
    theirs, their_size, ranges_size = through_sc2bench(features, codec, 90)
    their_error = float(np.mean((theirs - features) ** 2))
    fine, fine_size = through_ours(features, codec, 90)
    assert float(np.mean((fine - features) ** 2)) < their_error / 30
    assert fine_size < 2 * their_size
    coarse, coarse_size = through_ours(features, codec, 30)
    assert float(np.mean((coarse - features) ** 2)) < their_error / 3
    assert coarse_size < their_size - ranges_size


# It divides by the maximum where the width of the range would be right.
@pytest.mark.parametrize("codec", FEATURE_CODECS)
@pytest.mark.parametrize("shift", [0, -5], ids=["of both signs", "negative"])
def test_features_below_zero_are_lost_in_sc2bench_but_not_here(codec, shift):
    features = smooth((6, 14, 14)) + np.float32(shift)
    theirs, *_ = through_sc2bench(features, codec, 90)
    ours, _ = through_ours(features, codec, 90)
    assert np.mean((theirs - features) ** 2) > 2 * features.var()
    assert np.mean((ours - features) ** 2) < 0.01 * features.var()


@pytest.mark.parametrize("codec", FEATURE_CODECS)
def test_dead_planes_are_nan_inside_sc2bench_and_zero_here(codec, monkeypatch):
    features = relu_features((6, 14, 14))
    features[3:] = 0
    given_to_pillow = []

    def watched(planes):
        given_to_pillow.append(planes.numpy().copy())
        return to_pil_image(planes)

    monkeypatch.setattr("sc2bench.transforms.codec.to_pil_image", watched)
    through_sc2bench(features, codec, 90)
    # What they become as bytes is not defined; on x86 it is 0.
    assert [bool(np.isnan(planes).all()) for planes in given_to_pillow] == [False, True]
    ours, _ = through_ours(features, codec, 90)
    np.testing.assert_array_equal(ours[3:], features[3:], strict=True)
