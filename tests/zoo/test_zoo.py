"""Models: how they are built, what goes through the bytes, what training changes."""

import copy

import numpy as np
import pytest
import torch

from splitrun.coding import read_stream
from splitrun.errors import BitstreamError, WeightsNotFoundError
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


def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do(hub):
    for local in (True, False):
        with pytest.raises(WeightsNotFoundError) as caught:
            zoo.load("splittable_resnet50-fp-beta0.16_from_resnet50", local_files_only=local)
        assert caught.value.name == "splittable_resnet50-fp-beta0.16"
        assert "pretrained=False" in caught.value.next_step
        assert bool(hub.seen()) == (not local)


def test_equal_seeds_give_equal_models_and_other_seeds_others(tiny_model):
    before = torch.get_rng_state()
    first, again, other = (zoo.build(tiny_model.spec, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in first.modules())
    assert first.digest() == again.digest()
    assert first.codec.stream_id != other.codec.stream_id
    state = other.encoder.state_dict()
    weights = [name for name in state if name.endswith("weight")]
    assert not any(torch.equal(first.encoder.state_dict()[name], state[name]) for name in weights)


@torch.no_grad()
def test_forward_equals_what_goes_through_the_bytes(model, photo):
    image = torch.from_numpy(model.spec.preprocessing.load(photo))
    (symbols,) = model.wire_tensors(image)
    assert (symbols.dtype, symbols.shape) == (np.int32, (1, 24, 55, 55))
    assert np.unique(symbols).size > 5
    (stream,) = model.compress(image)
    # The shape that a model expects is not sent.
    frame = read_stream(stream)
    assert (frame.stream_id, frame.shape) == (model.device_digest()[:4], None)
    assert len(stream) == len(frame.payload) + 12
    output = model.decompress([stream])
    assert output.shape == (1, 1000)
    # Exactly: the quantised latents are equal bit by bit, and so is all that follows.
    assert torch.equal(output, model(image))


def test_a_batch_gives_the_streams_and_the_outputs_of_its_images(tiny_model):
    # Small images: a convolution that added in another order for a batch could turn a tie.
    images = random_images(3, 64, 64)
    streams = tiny_model.compress(images)
    assert streams == [tiny_model.compress(image[None])[0] for image in images]
    assert len(set(streams)) == 3
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


def test_streams_that_are_refused(tiny_model):
    (stream,) = tiny_model.compress(random_images(1, 64, 64))
    (wider,) = tiny_model.compress(random_images(1, 64, 96))
    with pytest.raises(BitstreamError, match="cannot make one batch"):
        tiny_model.decompress([stream, wider])
    with pytest.raises(BitstreamError, match="No streams were given"):
        tiny_model.decompress([])
    other = zoo.build(tiny_model.spec, seed=1)
    with pytest.raises(BitstreamError) as caught:
        other.decompress([stream])
    assert other.codec.stream_id.hex() in caught.value.message
    assert tiny_model.codec.stream_id.hex() in caught.value.message


def test_changed_and_loaded_weights_change_the_id_of_streams(tiny_model):
    changed = zoo.build(tiny_model.spec)
    before = changed.codec.stream_id
    assert before == tiny_model.codec.stream_id == copy.deepcopy(tiny_model).codec.stream_id
    changed.train()
    with torch.no_grad():
        changed.encoder[0].weight += 1
    changed.eval()
    trained = changed.codec.stream_id
    with torch.no_grad():
        changed.decoder.tail.fc.bias += 1  # what is made of a stream is not the stream
    assert changed.codec.stream_id == trained
    changed.load_state_dict(zoo.build(tiny_model.spec, seed=1).state_dict())
    assert len({before, trained, changed.codec.stream_id}) == 3


@torch.no_grad()
def test_latent_size_is_that_of_the_encoder():
    sizes = FactorizedPriorBottleneck(encoder_channels=(2, 2, 3), decoder_channels=(2, 2, 2))
    encoder = analysis(sizes)
    for height in (5, 6, 7, 8, 9, 63, 64, 65, 66, 223, 224, 225, 226, 301):
        for width in (*range(5, 25), 224, 320, 333):
            latent = encoder(torch.zeros(1, 3, height, width))
            assert sizes.latent_shape(height, width) == latent.shape[1:]


def test_training_makes_tables_anew_and_weights_no_longer_random(tiny_model, tmp_path):
    model = zoo.build(tiny_model.spec, seed=3)
    zoo.save(model, tmp_path / "model")
    loaded = zoo.load(tmp_path / "model")
    assert (model.random_seed, loaded.random_seed) == (3, 3)
    assert (model.source, loaded.source) == (model.spec.name, str(tmp_path / "model"))
    before = loaded.codec.coder.digest(), loaded.codec.stream_id
    loaded.train()
    with torch.no_grad():
        loaded.bottleneck.entropy_bottleneck.quantiles[:, 0, 2] += 5
    assert loaded.eval().random_seed is None
    zoo.save(loaded, tmp_path / "trained")
    after = loaded.codec.coder.digest(), loaded.codec.stream_id
    assert before[0] != after[0]
    assert before[1] != after[1]
    again = zoo.load(tmp_path / "trained").codec
    assert (again.coder.digest(), again.stream_id) == after
    model.load_state_dict(loaded.state_dict())
    assert model.random_seed is None
