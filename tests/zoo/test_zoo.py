"""Models: how they are built, what goes through the bytes, what training changes."""

import copy

import numpy as np
import pytest
import torch

from splitrun.coding import read_stream
from splitrun.errors import BitstreamError, SpecError, WeightsNotFoundError
from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import FactorizedPriorBottleneck
from splitzoo.zoo.bottlenecks.factorized_prior import analysis


def random_images(count, height, width, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_names_that_the_package_does_not_offer_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = zoo.nothing
    assert [getattr(zoo, name) is not None for name in zoo.__all__] == [True] * len(zoo.__all__)


def test_the_encoder_has_the_parameters_of_the_papers(model):
    # 3·96·25 + 96·48·25 + 48·24·4 of the convolutions, 96² + 96 + 48² + 48 of GDN
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 138_672


@pytest.mark.parametrize("local", [False, True])
def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do(hub, local):
    with pytest.raises(WeightsNotFoundError) as caught:
        zoo.load("splittable_resnet50-fp-beta0.16_from_resnet50", local_files_only=local)
    assert caught.value.name == "splittable_resnet50-fp-beta0.16"
    assert "pretrained=False" in caught.value.next_step
    assert bool(hub.seen()) == (not local)


def test_equal_seeds_give_equal_models_and_other_seeds_others(tiny_model):
    first, again, other = (zoo.build(tiny_model.spec, seed=seed) for seed in (7, 7, 8))
    assert first.digest() == again.digest()
    assert first.codec.model_id != other.codec.model_id
    different = [
        name
        for name, tensor in first.encoder.state_dict().items()
        if name.endswith("weight") and torch.equal(tensor, other.encoder.state_dict()[name])
    ]
    assert different == []


def test_building_leaves_the_global_random_state_alone(tiny_model):
    before = torch.get_rng_state()
    zoo.build(tiny_model.spec, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_built_model_is_in_evaluation_mode(model):
    assert [module for module in model.modules() if module.training] == []


def test_a_random_model_has_something_to_code(model, photo):
    (symbols,) = model.wire_tensors(torch.from_numpy(model.spec.preprocessing.load(photo)))
    assert symbols.dtype == np.int32
    assert symbols.shape == (1, 24, 55, 55)
    assert np.unique(symbols).size > 5


def test_forward_equals_what_goes_through_the_bytes(model, photo):
    image = torch.from_numpy(model.spec.preprocessing.load(photo))
    with torch.no_grad():
        expected = model(image)
    output = model.decompress(model.compress(image))
    assert output.shape == (1, 1000)
    # Exactly: the quantised latents are equal bit by bit, and so is all that follows.
    assert torch.equal(output, expected)


def test_a_stream_of_the_models_input_shape_sends_no_shape(model, photo):
    stream = model.compress(torch.from_numpy(model.spec.preprocessing.load(photo)))[0]
    frame = read_stream(stream)
    assert (frame.model_id, frame.shape) == (model.digest()[:4], None)
    assert len(stream) == len(frame.payload) + 12


def test_a_batch_gives_the_streams_of_its_images(tiny_model):
    # Small random_images: a convolution that added in another order for a batch could turn a tie.
    images = random_images(3, 64, 64)
    streams = tiny_model.compress(images)
    assert streams == [tiny_model.compress(image[None])[0] for image in images]
    assert len(set(streams)) == 3


def test_a_batch_of_streams_gives_a_batch_of_outputs(tiny_model):
    images = random_images(3, 64, 64)
    streams = tiny_model.compress(images)
    outputs = tiny_model.decompress(streams)
    assert outputs.shape == (3, 10)
    with torch.no_grad():
        assert torch.equal(outputs, tiny_model(images))
    for stream, output in zip(streams, outputs, strict=True):
        # Another batch size may add in another order: a few float32 roundings.
        torch.testing.assert_close(tiny_model.decompress([stream])[0], output, rtol=1e-5, atol=1e-6)


def test_another_input_size_sends_its_shape_and_comes_back(model):
    image = random_images(1, 256, 320)
    stream = model.compress(image)[0]
    frame = read_stream(stream)
    assert frame.shape == (63, 79)
    assert len(stream) == len(frame.payload) + 16
    (decoded,), (symbols,) = model.codec.decompress(stream), model.wire_tensors(image)
    np.testing.assert_array_equal(decoded, symbols[0], strict=True)
    with torch.no_grad():
        assert torch.equal(model.decompress([stream]), model(image))


def test_streams_of_different_shapes_make_no_batch(tiny_model):
    streams = tiny_model.compress(random_images(1, 64, 64)) + tiny_model.compress(
        random_images(1, 64, 96)
    )
    with pytest.raises(BitstreamError, match="cannot make one batch"):
        tiny_model.decompress(streams)


def test_no_streams_make_no_batch(tiny_model):
    with pytest.raises(BitstreamError, match="No streams were given"):
        tiny_model.decompress([])


def test_a_stream_of_other_weights_is_refused(tiny_model):
    other = zoo.build(tiny_model.spec, seed=1)
    with pytest.raises(BitstreamError) as caught:
        tiny_model.decompress(other.compress(random_images(1, 64, 64)))
    assert other.codec.model_id.hex() in caught.value.message
    assert tiny_model.codec.model_id.hex() in caught.value.message


def test_changed_weights_change_the_id_of_streams(tiny_model):
    changed = zoo.build(tiny_model.spec)
    assert changed.codec.model_id == tiny_model.codec.model_id
    changed.train()
    with torch.no_grad():
        changed.decoder.tail.fc.bias += 1
    changed.eval()
    assert changed.codec.model_id != tiny_model.codec.model_id


def test_loading_other_weights_changes_the_id_of_streams(tiny_model):
    changed = zoo.build(tiny_model.spec)
    before = changed.codec.model_id
    changed.load_state_dict(zoo.build(tiny_model.spec, seed=1).state_dict())
    assert changed.codec.model_id != before


@pytest.mark.parametrize("height", [5, 6, 7, 8, 9, 63, 64, 65, 66, 223, 224, 225, 226, 301])
def test_latent_size_is_that_of_the_encoder(height):
    sizes = FactorizedPriorBottleneck(encoder_channels=(2, 2, 3), decoder_channels=(2, 2, 2))
    encoder = analysis(sizes)
    for width in [*range(5, 25), 224, 320, 333]:
        with torch.no_grad():
            latent = encoder(torch.zeros(1, 3, height, width))
        assert sizes.latent_shape(height, width) == latent.shape[1:]


def test_a_copied_model_keeps_its_id(tiny_model):
    assert copy.deepcopy(tiny_model).codec.model_id == tiny_model.codec.model_id


def test_random_weights_are_known_as_such_until_they_are_trained(tiny_model, tmp_path):
    model = zoo.build(tiny_model.spec, seed=3)
    zoo.save(model, tmp_path / "model")
    loaded = zoo.load(tmp_path / "model")
    assert (model.random_seed, loaded.random_seed) == (3, 3)
    assert (model.source, loaded.source) == (model.spec.name, str(tmp_path / "model"))
    loaded.train()
    assert loaded.eval().random_seed is None
    model.load_state_dict(loaded.state_dict())
    assert model.random_seed is None


def test_tables_follow_the_weights_that_were_trained(tiny_model, tmp_path):
    model = zoo.build(tiny_model.spec, seed=3)
    before = model.codec.coder.digest(), model.codec.model_id
    model.train()
    with torch.no_grad():
        model.bottleneck.entropy_bottleneck.quantiles[:, 0, 2] += 5
    model.eval()
    zoo.save(model, tmp_path / "model")
    after = model.codec.coder.digest(), model.codec.model_id
    assert before[0] != after[0]
    assert before[1] != after[1]
    loaded = zoo.load(tmp_path / "model")
    assert (loaded.codec.coder.digest(), loaded.codec.model_id) == after


def test_a_backbone_that_is_no_resnet_is_a_spec_error(tiny_model):
    spec = tiny_model.spec.model_copy(update={"backbone": "vit_tiny_patch16_224"})
    with pytest.raises(SpecError, match="tiny cannot be built"):
        zoo.build(spec)
