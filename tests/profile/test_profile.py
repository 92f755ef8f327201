"""What a profile says is what can be counted by hand, read off a clock or weighed in bytes."""

import importlib
import inspect
import json
import math
import pickle
import pkgutil
import subprocess
import sys

import pytest
import torch
from small_models import without_network

from splitrun.coding import FactorizedCoder
from splitrun.errors import ImageError, ModelFolderError, ReportError
from splitrun.image_files import list_images
from splitrun.measure import Latency, measure_steps
from splitzoo import profile
from splitzoo.profile.flops import count_flops
from splitzoo.profile.rate import model_rates
from splitzoo.profile.report import SCHEMA_VERSION, Distribution, read_report
from splitzoo.profile.size import encoder_bits, encoder_parameters, sc2bench_encoder_bits

NEVER_MEASURED = [
    "preprocessing (reading, resizing) in the latency",
    "entropy coding in the operations",
]


@pytest.fixture(scope="module")
def report(model, photos):
    """A profile of a ResNet-50 of the paper on real photos."""
    options = {"threads": 2, "warmup": 1, "iterations": 4, "command": "splitzoo …"}
    return profile.encoder(model, images=photos, **options)


@pytest.fixture(scope="module")
def bundle_report(tiny_bundle, photos):
    return profile.encoder(tiny_bundle, images=photos[:2], threads=1, warmup=1, iterations=4)


# The public functions


def test_no_module_of_the_folder_hides_a_public_function() -> None:
    for module in pkgutil.iter_modules(profile.__path__):
        importlib.import_module(f"splitzoo.profile.{module.name}")
    assert profile.__all__ == ["accuracy", "bits", "choose", "encoder", "tradeoff"]
    for name in profile.__all__:
        function = getattr(profile, name)
        assert inspect.isfunction(function)
        assert pickle.loads(pickle.dumps(function)) is function
        assert name in dir(profile)


def test_importing_profile_loads_nothing_heavy() -> None:
    code = "import sys; from splitzoo import profile; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "splitzoo.profile.api" in loaded.split()
    assert not {"torch", "numpy", "pydantic", "matplotlib"} & set(loaded.split())


# Size


def test_encoder_bits_are_32_for_each_parameter(model) -> None:
    gdn = 96 * 96 + 96 + 48 * 48 + 48
    convolutions = 3 * 96 * 25 + 96 * 48 * 25 + 48 * 24 * 4
    assert gdn + convolutions == 138_672
    assert encoder_parameters(model) == 138_672
    assert encoder_bits(model) == 32 * 138_672 == 4_437_504


def test_sc2bench_counts_buffers_and_tables_too(model) -> None:
    assert sc2bench_encoder_bits(model) == 4_503_936
    assert sc2bench_encoder_bits(model, model.codec.coder) == 4_503_936


def test_sc2bench_counts_the_tables_that_are_given(model) -> None:
    tables = model.codec.coder.tables
    wider = type(tables)(
        torch.nn.functional.pad(torch.tensor(tables.cdf), (0, 10)).numpy(),
        *(tables.length, tables.offset, tables.precision),
    )
    more = sc2bench_encoder_bits(model, FactorizedCoder(wider)) - sc2bench_encoder_bits(model)
    assert more == 32 * 10 * tables.channels


# Latency


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 50, 101])
def test_percentiles_are_nearest_rank(count) -> None:
    latency = Latency.of([float(value) for value in range(count, 0, -1)])
    expected = [1000 * math.ceil(share * count / 100) for share in (50, 90, 99)]
    assert [latency.p50_ms, latency.p90_ms, latency.p99_ms] == pytest.approx(expected)
    assert latency.mean_ms == pytest.approx(500 * (count + 1))


def test_steps_feed_each_other_and_warm_up_is_not_counted(monkeypatch) -> None:
    seen = []
    clock = iter(float(tick) for tick in range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    steps = {"add": lambda x: x + 1, "keep": lambda x: seen.append(x)}
    latency = measure_steps(steps, 1, warmup=2, iterations=3)
    assert seen == [2] * 5
    assert [*latency] == ["add", "keep", "total"]
    # Each look at this clock is a second; one lies between two steps.
    assert [one.p50_ms for one in latency.values()] == [1000, 1000, 2000]


def test_distribution_of_known_values() -> None:
    values = [float(value) for value in (5, 1, 4, 2, 3, 6, 7, 8, 9, 10)]
    assert Distribution.of(values) == Distribution(
        mean=5.5, median=5.5, p90=9, smallest=1, largest=10
    )
    assert Distribution.of([3.0]) == Distribution(mean=3, median=3, p90=3, smallest=3, largest=3)


# A model's profile


def test_profile_of_a_model_holds_every_measure(report, model, photos) -> None:
    assert (report.subject, report.device, report.date[:2]) == ("model", "cpu", "20")
    assert report.spec == model.spec
    assert report.model_id == model.digest().hex()[:8]
    assert report.runtime == f"PyTorch {torch.__version__}, eager"
    assert [*report.latency.steps] == ["encoder", "entropy coding", "framing", "total"]
    assert (report.latency.threads, report.latency.warmup, report.latency.iterations) == (2, 1, 4)
    steps = report.latency.steps
    parts = sum(steps[name].mean_ms for name in ("encoder", "entropy coding", "framing"))
    assert steps["total"].mean_ms == pytest.approx(parts, rel=1e-6)
    for one in steps.values():
        assert 0 < one.p50_ms <= one.p90_ms <= one.p99_ms
    assert report.peak_memory_bytes > 100e6
    assert {"cpu", "cores", "system", "python", "torch", "splitzoo"} <= report.environment.keys()
    assert len(report.rate.images) == len(photos)


def test_a_profile_says_what_it_did_not_measure(report, bundle_report) -> None:
    assert (report.size.graph_bytes, report.size.tables_bytes) == (None, None)
    assert report.not_measured == [
        "deployed bytes (export the model, then profile the bundle)",
        *NEVER_MEASURED,
    ]
    assert bundle_report.not_measured == NEVER_MEASURED
    for found in (report, bundle_report):
        assert (found.weights, found.seed) == ("random", 0)
        assert f"{found.size.parameters:,}" in str(found)


def test_profile_leaves_the_number_of_threads_as_it_was(tiny_model) -> None:
    before = torch.get_num_threads()
    profile.encoder(tiny_model, threads=before + 1, warmup=0, iterations=1)
    assert torch.get_num_threads() == before


# A bundle's profile


def test_profile_of_a_bundle_holds_what_was_deployed(bundle_report, tiny_bundle) -> None:
    size = bundle_report.size
    assert size.graph_bytes == (tiny_bundle / "device/encoder.onnx").stat().st_size
    assert size.tables_bytes == (tiny_bundle / "tables.npz").stat().st_size
    assert bundle_report.runtime.startswith("onnxruntime ")
    assert {"cpu", "cores", "numpy", "splitzoo"} <= bundle_report.environment.keys()
    assert bundle_report.peak_memory_bytes < 250e6


def test_profile_of_a_bundle_agrees_with_that_of_its_model(bundle_report, tiny_model) -> None:
    assert bundle_report.spec == tiny_model.spec
    assert bundle_report.model_id == tiny_model.digest().hex()[:8]
    assert bundle_report.compute == count_flops(tiny_model)
    assert bundle_report.size.encoder_bits == encoder_bits(tiny_model)
    assert bundle_report.size.sc2bench_encoder_bits == sc2bench_encoder_bits(tiny_model)


def test_a_bundle_sends_what_its_model_sends(bundle_report, tiny_model, photos) -> None:
    rate = model_rates(tiny_model, photos[:2])
    found = [one.stream_bytes for one in bundle_report.rate.images]
    assert found == [one.stream_bytes for one in rate.images]
    assert bundle_report.rate.estimated_bits is None
    assert bundle_report.rate.sc2bench_bytes is None


def test_profile_of_a_folder_that_is_neither_bundle_nor_model(tmp_path) -> None:
    with pytest.raises(ModelFolderError):
        profile.encoder(tmp_path)


# Bytes per image


def test_bytes_are_those_of_the_real_stream(report, model, photos) -> None:
    image = torch.from_numpy(model.spec.preprocessing.load(photos[0]))
    (stream,) = model.compress(image)
    with torch.no_grad():
        latent = model.encoder(image)
        (symbols,) = model.bottleneck.to_wire(latent)
    payload = model.codec.coder.encode(symbols[0].numpy())
    first = report.rate.images[0]
    assert (first.image, first.stream_bytes) == (photos[0].name, len(stream))
    assert first.payload_bytes == len(payload)
    pickled = pickle.dumps({"strings": [[payload]], "shape": latent.shape[-2:]})
    assert first.sc2bench_bytes == sys.getsizeof(pickled)
    for rate in report.rate.images:
        assert 0 < rate.payload_bytes < rate.stream_bytes == rate.payload_bytes + 12
        assert rate.estimated_bits == pytest.approx(8 * rate.payload_bytes, rel=0.01)


def test_an_image_codec_s_file_is_what_sc2bench_counts(photos) -> None:
    (one,) = model_rates(without_network("resnet50-jpeg-q90"), photos[:1]).images
    assert one.sc2bench_bytes == one.payload_bytes


@pytest.mark.parametrize(
    "name",
    ["splittable_resnet50-shp-beta0.16", "splittable_resnet50-bq3ch", "resnet50-layer1-jpeg-q90"],
)
def test_what_sc2bench_sends_in_another_form_has_no_size_of_its(name, photos) -> None:
    model = without_network(name)
    assert model_rates(model, photos[:1]).sc2bench_bytes is None
    found = profile.encoder(model, images=photos[:1], warmup=0, iterations=1)
    assert any(what.startswith("bytes as sc2bench counts") for what in found.not_measured)


def test_rates_are_summarised_over_the_images(report) -> None:
    for field in ("payload_bytes", "stream_bytes", "estimated_bits", "sc2bench_bytes"):
        values = [getattr(one, field) for one in report.rate.images]
        assert getattr(report.rate, field) == Distribution.of(values)
    assert report.rate.count == len(report.rate.images)
    assert report.rate.skipped == []


def test_a_broken_image_is_skipped_and_named(tiny_model, photos, tmp_path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:500])
    rate = model_rates(tiny_model, [photos[0], broken, photos[1]])
    assert rate.count == 2
    assert [one.image for one in rate.images] == [photos[0].name, photos[1].name]
    (skipped,) = rate.skipped
    assert skipped.image == "broken.jpg"
    assert skipped.reason


def test_broken_images_alone_are_an_error(tiny_model, tmp_path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(ImageError, match=r"2 files given: none could be used \(.+\)"):
        model_rates(tiny_model, list_images(tmp_path))


def test_images_are_found_below_a_folder_in_order(tmp_path, photo) -> None:
    for name in ("b.JPG", "a/c.png", "a/notes.txt", "z.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a/c.png", "b.JPG", "z.jpeg"]


def test_a_folder_without_images_is_an_error(tmp_path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="no file in it has the name of an image"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="it is not a folder"):
        list_images(tmp_path / "nowhere")


# The document


def test_a_report_comes_back_as_it_was(report, bundle_report, tmp_path) -> None:
    for number, one in enumerate((report, bundle_report)):
        path = tmp_path / "reports" / f"{number}.json"
        one.save(path)
        assert read_report(path) == one
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["0.json", "1.json"]


def test_a_newer_report_says_how_to_read_it(report, tmp_path) -> None:
    path = tmp_path / "report.json"
    newer = {"schema_version": SCHEMA_VERSION + 1, "subject": "planet"}
    path.write_text(json.dumps(report.model_dump(mode="json") | newer))
    said = (
        f"has schema_version {SCHEMA_VERSION + 1}, and this reads schema_version {SCHEMA_VERSION}"
    )
    with pytest.raises(ReportError, match=said) as caught:
        read_report(path)
    assert caught.value.next_step == "pip install --upgrade splitzoo"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("schema_version", "new"),
        ("schema_version", SCHEMA_VERSION - 1),
        ("subject", "planet"),
        ("weights", None),
        ("latency", []),
        ("spec/name", "../x"),
        ("size/unknown", 1),
        ("size/encoder_bits", -1),
        ("latency/steps", {}),
        ("latency/steps/total/p50_ms", float("nan")),
        ("latency/steps/total/p50_ms", -1),
        ("compute/macs", 10**400),
        ("peak_memory_bytes", float("inf")),
    ],
)
def test_a_report_of_impossible_values_names_the_first(report, tmp_path, keys, value) -> None:
    content = json.loads(report.model_dump_json())
    *parents, last = keys.split("/")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    where = keys.split("/")[0]
    with pytest.raises(ReportError, match=rf"is no (valid )?encoder profile.*: .*({where}|JSON)"):
        read_report(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000], ids=lambda c: repr(c[:8])
)
def test_a_report_that_is_none_is_refused(tmp_path, content) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"report\.json") as caught:
        read_report(path)
    assert "splitzoo profile encoder -o report.json" in caught.value.next_step


def test_a_missing_report_says_how_to_make_one(tmp_path) -> None:
    with pytest.raises(ReportError, match="no such file or directory") as caught:
        read_report(tmp_path / "report.json")
    assert "splitzoo profile encoder -o report.json" in caught.value.next_step
    with pytest.raises(ReportError):
        read_report(tmp_path)


def test_a_huge_report_is_refused_unread(tmp_path) -> None:
    path = tmp_path / "report.json"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # sparse: no disk is used
    with pytest.raises(ReportError, match="is larger than"):
        read_report(path)


def test_a_manifest_is_no_report(tiny_bundle) -> None:
    with pytest.raises(ReportError, match=r"is no (valid )?encoder profile"):
        read_report(tiny_bundle / "manifest.json")


def test_a_profile_of_a_saved_model_is_of_its_own_weights(tiny_folder, tiny_model) -> None:
    found = profile.encoder(tiny_folder, warmup=0, iterations=1)
    assert found.model_id == tiny_model.digest().hex()[:8]
