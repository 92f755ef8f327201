"""What a precision below fp32 changes, and when that is too much."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands import refused
from PIL import Image
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.comparison import Comparison, check_integers
from splitrun.errors import BundleError, CalibrationError, DesyncError, ParityError
from splitrun.halves import Device, Edge
from splitrun.limits import LIMITS, Limits, limits_of
from splitrun.precision_reports import PrecisionReport
from splitzoo import export, zoo
from splitzoo.export.options import ExportOptions
from splitzoo.export.precision import judging
from splitzoo.export.precision.judging import taken
from splitzoo.export.precision.lowering import Lowering
from splitzoo.export.precision.report import (
    CalibrationImages,
    exceeded_limits,
    measure_precision,
    read_images,
)
from splitzoo.zoo import get_spec
from splitzoo.zoo.calibration.images import draw_images

INT8 = LIMITS["int8"]

BROKEN = "it is not an image of a known format"


def report(**changes) -> PrecisionReport:
    facts = {
        **{"calibrated": 30, "held_out": 200, "real_images": True},
        **{"flips": 0.001, "changed": 0.05, "most_changed": 0.08, "largest_difference": 1},
        **{"symbols": 1000, "wire_error": 0.0},
        **{"payload_bytes_fp32": 1000.0, "payload_bytes": 1010.0},
        **{"labelled": 200, "correct_fp32": 150, "correct": 149},
    }
    return PrecisionReport(**facts | changes)


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        (
            {"most_changed": INT8.changed + 0.01},
            r"symbols that are not 0, 5\.00% differ, in one image up to 21\.00% \(20% may\)",
        ),
        ({"wire_error": 0.21}, r"what is sent differs by 21\.0% of the largest \(20% is allowed\)"),
        ({"largest_difference": INT8.difference + 1}, "a symbol differs by"),
        ({"payload_bytes": 1051.0}, r"the payload changes by \+5\.1% \(5% is allowed\)"),
        ({"payload_bytes": 620.0}, r"the payload changes by -38\.0%"),
        ({"correct": 147}, "3 of 200 images are no longer named correctly"),
    ],
)
def test_what_is_beyond_the_limits_is_refused_with_its_figures(changes, saying) -> None:
    assert exceeded_limits(report(), INT8, "int8") == []
    beyond = report(**changes)
    exceeded = exceeded_limits(beyond, INT8, "int8")
    with pytest.raises(ParityError, match=rf"In int8, .*{saying}") as caught:
        taken(beyond, exceeded, "In int8", "Keep more", accept=False)
    assert caught.value.next_step == (
        "Keep more, give other images, or take it as it is with --accept."
    )
    assert taken(beyond, exceeded, "In int8", "Keep more", accept=True).accepted == (*exceeded,)
    made = report(real_images=False)
    with pytest.raises(ParityError) as caught:
        taken(made, exceeded, "In int8", "Keep more", accept=False)
    assert "give photographs (--calibration DIR), or" in caught.value.next_step


def test_fp16_may_change_the_payload_less_than_int8() -> None:
    fp16 = report(most_changed=0.001, payload_bytes=1011.0)
    assert exceeded_limits(fp16, LIMITS["int8"], "int8") == []
    assert exceeded_limits(fp16, LIMITS["fp16"], "fp16") == [
        "the payload changes by +1.1% (1% is allowed)"
    ]


def test_one_image_more_or_less_is_no_loss() -> None:
    assert exceeded_limits(report(correct=148), INT8, "int8") == []
    assert exceeded_limits(report(labelled=0, correct=None, correct_fp32=None), INT8, "int8") == []
    assert exceeded_limits(report(correct=200), INT8, "int8") == []


def test_a_tie_may_differ_by_one_and_other_symbols_as_the_limits_say() -> None:
    expected = np.zeros(100, np.int32)
    ties = np.zeros(100, bool)
    ties[0] = True
    expected[50:57] = 3
    found = expected.copy()
    found[0] = 1
    assert check_integers(found, expected, ties, Limits()) == Comparison(100, 1, 1, 1, 8)
    found[1:3] = 2
    loose = Limits(changed=0.2, difference=2)
    assert check_integers(found, expected, ties, loose) == Comparison(
        100, 3, 1, 2, 10, beyond_ties=2
    )
    for limits in (Limits(), Limits(changed=0.2), Limits(changed=0.19, difference=2)):
        with pytest.raises(ParityError, match="2 of 100 symbols differ from PyTorch's, by up to 2"):
            check_integers(found, expected, ties, limits)


@pytest.mark.parametrize(
    "changes",
    [{"changed": -1.0}, {"tie_margin": float("nan")}, {"difference": 0}],
)
def test_limits_that_make_no_sense_are_refused(changes) -> None:
    with pytest.raises(ValueError, match=r"limit|differ"):
        Limits(**changes)


def test_values_with_a_range_of_their_own_may_all_differ_below_fp32() -> None:
    assert limits_of("fp32", quantised=True) == Limits()
    assert limits_of("int8", quantised=True).changed == 1.0
    assert limits_of("int8", quantised=False) == INT8


# Images


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """Eight photos in folders of two of the tiny model's classes, and a broken one."""
    for number, photo in enumerate([*photos, *photos][:12]):
        place = tmp_path / "photos" / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, place / f"{number}{photo.suffix}")
    (tmp_path / "photos" / "class 0" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    return tmp_path / "photos"


def test_images_are_parted_and_broken_ones_counted(tiny_model, folder) -> None:
    found = read_images(tiny_model, folder)
    assert (len(found.fitted), len(found.held_out)) == (9, 3)
    assert list(map(str, found.unread)) == [f"1 .jpg: {BROKEN}"]
    assert not set(found.fitted) & set(found.held_out)


def test_images_in_folders_of_the_models_classes_are_labelled(tiny_model, folder) -> None:
    found = read_images(tiny_model, folder)
    assert {found.classes[path] for path in found.fitted + found.held_out} == {0, 1}
    assert all(path.parent.name == f"class {label}" for path, label in found.classes.items())
    (folder / "class 1").rename(folder / "somewhere")
    assert set(read_images(tiny_model, folder).classes.values()) == {0}
    (folder / "class 0").rename(folder / "elsewhere")
    assert read_images(tiny_model, folder).classes == {}


def test_too_few_images_are_refused(tiny_model, folder) -> None:
    shutil.rmtree(folder / "class 1")
    for number in (0, 2, 4):
        next(folder.rglob(f"{number}.*")).unlink()
    with pytest.raises(CalibrationError, match="has 4 images, 1 of them unusable"):
        read_images(tiny_model, folder)


def test_the_effect_of_the_same_graph_is_none(tiny_model, tiny_bundle, folder) -> None:
    photos = read_images(tiny_model, folder)
    found = measure_precision(tiny_model, open_bundle(tiny_bundle), photos, Lowering())
    assert (found.calibrated, found.held_out) == (0, 3)
    assert found.warnings == photos.warnings
    assert [(count.reason, count.files) for count in found.unread] == [(BROKEN, 1)]
    assert found.flips < 1e-3
    assert found.rate_inflation == pytest.approx(0, abs=1e-3)


FEW = (
    "8 images are few: 100 or more, like those that the camera will see, are recommended. 6 were "
    "fitted to and 2 compared on, so that others may come out worse than is said"
)


def test_eight_images_for_int8_are_said_to_be_few_wherever_the_result_is(
    splitzoo, tiny_folder, photos, tmp_path
) -> None:
    folder, bundle = tmp_path / "eight", tmp_path / "b"
    folder.mkdir()
    for photo in photos[:8]:
        shutil.copyfile(photo, folder / photo.name)
    words = ("--random-weights", "--precision", "int8", "--accept", "--calibration", folder)
    code, out, err = splitzoo("export", "split", tiny_folder, *words, "-o", bundle)
    assert code == 0, err
    assert err.count(f"warning: {FEW}.") == 1
    assert FEW in " ".join(out.split())
    manifest = open_bundle(bundle).manifest
    assert manifest.precision_report is not None
    assert (manifest.precision_report.calibrated, manifest.precision_report.held_out) == (6, 2)
    assert manifest.precision_report.warnings == (FEW,)
    assert f"**Warning**: {FEW}." in (bundle / "README.md").read_text()
    assert splitzoo("cards", "build", "--bundle", bundle, "-o", tmp_path / "card")[0] == 0
    assert f"**Warning**: {FEW}." in (tmp_path / "card/README.md").read_text()


@pytest.mark.parametrize(("images", "warned"), [(8, True), (99, True), (100, False), (120, False)])
def test_a_hundred_images_are_enough(tmp_path, images, warned) -> None:
    for number in range(images):
        (tmp_path / f"{number}.png").touch()
    assert bool(draw_images(tmp_path, lambda path: path).warnings) is warned


def test_the_effect_counts_what_differs(tiny_model, tiny_bundle, monkeypatch) -> None:
    exact = Device.wire_tensors

    def shifted(device, image):
        (symbols,) = exact(device, image)
        symbols = symbols.copy()
        symbols[:, 0] += 2
        return (symbols,)

    monkeypatch.setattr(Device, "wire_tensors", shifted)
    found = measure_precision(tiny_model, open_bundle(tiny_bundle), None, Lowering())
    assert (found.real_images, found.largest_difference) == (False, 2)
    assert found.flips == pytest.approx(0.25, abs=1e-3)


# Exports


@pytest.fixture
def changed(monkeypatch):
    """Exports find that a precision changes much."""

    def change(**changes) -> None:
        monkeypatch.setattr(judging, "measure_precision", lambda *_: report(**changes))

    return change


def test_an_export_beyond_the_limits_exits_with_3_and_leaves_nothing(
    splitzoo, tiny_folder, photos, changed, copied_graphs, tmp_path
) -> None:
    changed(changed=0.5, most_changed=0.5)
    words = ("--random-weights", "--keep-tables", "--precision", "int8")
    words += ("--calibration", photos[0].parent, "-o", tmp_path / "b")
    result = splitzoo("export", "split", tiny_folder, *words)
    refused(
        result,
        "In int8, of the symbols that are not 0, 50.00% differ",
        "(20% may)",
        "--accept",
        code=3,
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_accepted_is_written_down_and_allowed_for(
    tiny_model, photos, changed, copied_graphs, tmp_path
) -> None:
    changed(changed=0.2, most_changed=0.3, largest_difference=4)
    options = {"precision": "int8", "accept": True, "keep_tables": True}
    options |= {"calibration": photos[0].parent}
    manifest = export.split(tiny_model, tmp_path / "b", **options)
    assert manifest.precision_report is not None
    assert len(manifest.precision_report.accepted) == 2
    bundle = open_bundle(tmp_path / "b")
    assert bundle.limits == Limits(**{**asdict(LIMITS["int8"]), "changed": 0.6, "difference": 8})
    assert "--accept" in manifest.provenance.command
    assert (
        "Beyond the limits, and accepted: of the symbols" in (tmp_path / "b/README.md").read_text()
    )
    assert export.verify(tmp_path / "b").manifest.precision_report == manifest.precision_report
    # Without the word for it, the same limits are too lenient.
    path = tmp_path / "b/manifest.json"
    document = json.loads(path.read_text())
    document["precision_report"]["accepted"] = []
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"allows changed of 0\.6; .* 0\.2 in int8"):
        export.verify(tmp_path / "b")


def test_int8_without_images_is_refused_before_anything_is_loaded(
    splitzoo, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "splitzoo.zoo.resolve.ModelSource.load", lambda *_, **__: pytest.fail("loaded")
    )
    words = ("--precision", "int8", "-o", tmp_path / "b")
    refused(splitzoo("export", "split", tiny_folder, *words), "--calibration DIR")


def test_both_sides_of_a_hyperprior_in_floats_run_the_same_engine() -> None:
    """The other would compute other scales for some images, and lose them."""
    mshp, prior = (get_spec(f"splittable_resnet50-{one}-beta0.08") for one in ("mshp", "fp"))
    for target, engine in (("jetson", "tensorrt"), ("openvino", "openvino")):
        assert ExportOptions(target=target).halves(mshp.in_floats()).edge.engine == engine
        options = ExportOptions(target=target, edge="onnxruntime")
        for spec in (prior, mshp):
            assert options.halves(spec).edge.engine == "onnxruntime"
            options.check_possible(spec)
        with pytest.raises(BundleError, match=f"{engine} and onnxruntime would disagree") as caught:
            options.check_possible(mshp.in_floats())
        assert caught.value.next_step.startswith("Leave --float-hyperprior out")
    with pytest.raises(BundleError, match="-fp-beta0\\.08 has none"):
        ExportOptions(float_hyperprior=True).check_possible(prior)


def test_a_factorized_learned_codec_has_no_hyperprior() -> None:
    kinds = {"factorized_prior": False, "scale_hyperprior": True, "mean_scale_hyperprior": True}
    kinds["joint_autoregressive_hierarchical_prior"] = True
    for name, expected in kinds.items():
        spec = get_spec(f"resnet50-{name}-q1")
        assert not spec.has_float_hyperprior
        assert spec.in_floats().has_float_hyperprior is expected


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"precision": "fp32", "accept": True}, "--accept is for precisions below fp32"),
        ({"precision": "fp16", "keep_fp32": ("gdn",)}, "--keep-fp32 is for int8"),
    ],
)
def test_words_that_would_do_nothing_are_refused(changes, saying) -> None:
    with pytest.raises(BundleError, match=saying):
        ExportOptions(target="jetson", **changes).check_possible(get_spec("resnet50-jpeg-q90"))


def test_images_that_say_nothing_are_told_as_the_cause_and_can_be_accepted(
    splitzoo, tiny_folder, tmp_path
) -> None:
    """Ranges of darkness saturate on the made images that parity is checked on."""
    night = tmp_path / "night"
    night.mkdir()
    for number in range(8):
        Image.fromarray(np.full((64, 64, 3), number % 2, np.uint8)).save(night / f"{number}.png")
    words = ("--random-weights", "--precision", "int8", "--calibration", night, "--keep-tables")
    code, _, _ = splitzoo("export", "split", tiny_folder, *words, "--accept", "-o", tmp_path / "b")
    assert code == 0
    found = export.verify(tmp_path / "b").manifest
    assert found.precision_report is not None
    assert "in one image up to" in found.precision_report.accepted[0]


def test_what_is_accepted_though_nothing_is_beyond_the_limits_changes_none(
    tiny_model, photos, tmp_path
) -> None:
    options = {"precision": "int8", "accept": True, "calibration": photos[0].parent}
    manifest = export.split(tiny_model, tmp_path / "b", **options, keep_tables=True)
    assert manifest.precision_report is not None
    assert manifest.precision_report.accepted == ()
    assert manifest.parity.limits.changed == INT8.changed
    export.verify(tmp_path / "b")


def test_features_that_are_sent_as_floats_are_compared_too(photos, tmp_path) -> None:
    model = zoo.build(small_spec("image-classification", "feature-jpeg"))
    options = {"precision": "int8", "calibration": photos[0].parent, "accept": True}
    manifest = export.split(model, tmp_path / "b", **options)
    assert manifest.precision_report is not None
    assert (manifest.precision_report.symbols, manifest.precision_report.flips) == (0, 0)
    assert 0 < manifest.precision_report.wire_error < 1
    said = f"{100 * manifest.precision_report.wire_error:.1f}%"
    assert (
        f"largest difference of what is sent, relative to the largest value | | {said}"
        in (tmp_path / "b/README.md").read_text()
    )


def test_an_image_whose_scales_differ_is_not_named_correctly(
    tiny_model, tiny_bundle, photos, monkeypatch
) -> None:
    """It is held against PyTorch's own prediction: its stream may be beyond the edge too."""

    def lost(*_: object) -> None:
        raise DesyncError("other scales")

    monkeypatch.setattr(Edge, "decode", lost)
    classes = dict.fromkeys(photos, 0)
    given = CalibrationImages([], list(photos), classes)
    found = measure_precision(tiny_model, open_bundle(tiny_bundle), given, Lowering())
    assert (found.labelled, found.correct) == (len(photos), 0)


def test_tables_that_cannot_be_fitted_are_an_error_where_nothing_else_is_asked(
    splitzoo, photos, tmp_path
) -> None:
    words = ("resnet50-jpeg-q90", "--random-weights", "--calibration", photos[0].parent)
    result = splitzoo("export", "split", *words, "-o", tmp_path / "b")
    refused(result, "no tables to fit")


def test_an_engines_own_precision_is_refused_where_scale_indexes_must_agree() -> None:
    wanted = ExportOptions(target="openvino", precision="bf16")
    wanted.check_possible(get_spec("splittable_resnet50-fp-beta0.08"))
    mshp = get_spec("splittable_resnet50-mshp-beta0.08")
    wanted.check_possible(mshp)
    with pytest.raises(BundleError, match="the same scale indexes") as caught:
        wanted.check_possible(mshp.in_floats())
    assert caught.value.next_step.startswith("Leave --float-hyperprior out")
