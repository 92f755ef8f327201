"""Entropy tables: what is valid, what a file may hold."""

import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import INT32, any_tables

from splitrun.coding import FactorizedCoder, FactorizedTables, load_coder, save_coder
from splitrun.errors import TablesError

VALID = {
    "cdf": np.array([[0, 1, 3, 4], [0, 2, 4, 0]], np.int32),
    "length": np.array([4, 3], np.int32),
    "offset": np.array([-1, 0], np.int32),
    "precision": np.int32(2),
}


def load(path):
    return load_coder("factorized", {}, path)


def changed(**arrays):
    return {**VALID, **{name: np.asarray(value) for name, value in arrays.items()}}


def without(name):
    return {key: value for key, value in VALID.items() if key != name}


def zip_entry(name, **changes):
    """A ``.npz`` of valid tables in which one array's file is another."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for key, value in VALID.items():
            plain = io.BytesIO()
            np.save(plain, value)
            archive.writestr(f"{key}.npy", changes["data"] if key == name else plain.getvalue())
    return content.getvalue()


def array_header(shape, descr="<i4"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16)


def saved(save=np.savez, **arrays):
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


def patched(content, signature, position, value):
    """Overwrite one byte of every zip header of a kind, local or central."""
    patched = bytearray(content)
    start = patched.find(signature)
    while start >= 0:
        patched[start + position] = value
        start = patched.find(signature, start + 4)
    return bytes(patched)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param(changed(cdf=VALID["cdf"][0]), "rank 2", id="cdf of rank 1"),
        pytest.param(changed(length=VALID["length"][None]), "rank 1", id="length of rank 2"),
        pytest.param(changed(offset=0), "rank 1", id="offset of rank 0"),
        pytest.param(changed(precision=[2]), "rank 0", id="precision of rank 1"),
        pytest.param(changed(cdf=VALID["cdf"].astype(float)), "integer", id="float cdf"),
        pytest.param(changed(length=[4.0, 3.0]), "integer", id="float length"),
        pytest.param(changed(offset=[False, True]), "integer", id="bool offset"),
        pytest.param(changed(precision=2.0), "integer", id="float precision"),
        pytest.param(changed(precision=b"2"), "integer", id="bytes precision"),
        pytest.param(changed(offset=[None, 1]), "integer", id="objects"),
        pytest.param(changed(precision=0), "precision of 0 bits", id="precision 0"),
        pytest.param(changed(precision=-1), "precision of -1 bits", id="precision -1"),
        pytest.param(changed(precision=17), "precision of 17 bits", id="precision 17"),
        pytest.param(changed(precision=3), "row 0 does not rise from 0 to 8", id="other precision"),
        pytest.param(changed(cdf=[[0, 3, 1, 4], [0, 2, 4, 0]]), "row 0", id="decreasing row"),
        pytest.param(changed(cdf=[[0, 1, 3, 4], [0, 0, 4, 0]]), "row 1", id="slot without a count"),
        pytest.param(changed(cdf=[[1, 2, 3, 4], [0, 2, 4, 0]]), "row 0", id="row from 1"),
        pytest.param(changed(cdf=[[0, 1, 3, 5], [0, 2, 4, 0]]), "row 0", id="row beyond the top"),
        pytest.param(changed(cdf=[[0, 1, -3, 4], [0, 2, 4, 0]]), "row 0", id="negative entry"),
        pytest.param(
            # Each difference is positive modulo 2**32.
            changed(cdf=[[0, INT32.max, INT32.min, -1, 4]], length=[5], offset=[0]),
            "row 0",
            id="row that wraps around",
        ),
        pytest.param(changed(cdf=VALID["cdf"].astype(np.int64) << 32), "32 bits", id="huge cdf"),
        pytest.param(changed(offset=[1 << 31, 0]), "32 bits", id="offset of 2**31"),
        pytest.param(changed(offset=[-(1 << 31) - 1, 0]), "32 bits", id="offset below int32"),
        pytest.param(
            changed(offset=np.array([1 << 63, 0], np.uint64)), "32 bits", id="offset of 2**63"
        ),
        pytest.param(changed(offset=[INT32.max - 3, 0]), "32-bit range", id="offset too far up"),
        pytest.param(changed(length=[4, 2]), "below 3", id="length 2"),
        pytest.param(changed(length=[4, -3]), "below 3", id="negative length"),
        pytest.param(changed(length=[5, 3]), "beyond its row", id="length beyond the row"),
        pytest.param(changed(length=[4]), "2 rows and 1 lengths", id="too few lengths"),
        pytest.param(changed(offset=[0, 0, 0]), "2 rows and 3 offsets", id="too many offsets"),
        pytest.param(
            changed(cdf=np.zeros((0, 4), int), length=np.zeros(0, int), offset=np.zeros(0, int)),
            "0 rows",
            id="no channel",
        ),
        pytest.param(
            changed(
                cdf=np.tile([0, 2, 4], (65537, 1)),
                length=np.full(65537, 3),
                offset=np.zeros(65537, int),
            ),
            "65537 rows",
            id="too many channels",
        ),
    ],
)
def test_wrong_arrays_are_refused(arrays, message):
    with pytest.raises(TablesError, match=message):
        FactorizedTables(**arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        VALID | {"more": 1},
        *(without(name) for name in VALID),
    ],
    ids=["none", "one too many", *(f"no {name}" for name in VALID)],
)
def test_a_file_of_other_arrays_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "tables.npz", **arrays)
    with pytest.raises(TablesError, match="it holds"):
        load(tmp_path / "tables.npz")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a zip file", id="no zip"),
        pytest.param(saved(**VALID)[:-30], id="truncated"),
        pytest.param(saved(**without("offset")), id="array missing"),
        pytest.param(saved(**changed(cdf=VALID["cdf"].astype(np.float32))), id="float"),
        pytest.param(saved(**changed(offset=[None, {}])), id="pickled objects"),
        pytest.param(pickle.dumps(VALID), id="pickle"),
        pytest.param(zip_entry("cdf", data=pickle.dumps(VALID["cdf"])), id="pickle in a zip"),
        pytest.param(zip_entry("cdf", data=b""), id="empty array file"),
        pytest.param(zip_entry("cdf", data=array_header("(2, 400)")), id="array cut short"),
        pytest.param(zip_entry("cdf", data=array_header("(1 << 9,)")), id="shape to evaluate"),
        pytest.param(zip_entry("cdf", data=array_header("((((")), id="header that does not parse"),
        pytest.param(zip_entry("cdf", data=array_header("(-1, 4)")), id="negative shape"),
        pytest.param(zip_entry("cdf", data=array_header(f"({1 << 50},)")), id="claims 4 PiB"),
        pytest.param(zip_entry("cdf", data=array_header(f"({1 << 70},)")), id="claims 2**70"),
        pytest.param(zip_entry("cdf", data=array_header("(2, 4)", "|O")), id="claims objects"),
        pytest.param(patched(saved(**VALID), b"PK\1\2", 10, 99), id="unknown compression"),
        pytest.param(patched(saved(**VALID), b"PK\1\2", 6, 255), id="later zip version"),
        pytest.param(
            patched(patched(saved(**VALID), b"PK\1\2", 8, 1), b"PK\3\4", 6, 1), id="encrypted"
        ),
        pytest.param(
            patched(saved(np.savez_compressed, **VALID), b"PK\3\4", 57, 0xFF), id="broken deflate"
        ),
    ],
)
def test_a_hostile_or_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tables.npz").write_bytes(content)
    with pytest.raises(TablesError):
        load(tmp_path / "tables.npz")


def test_a_file_that_unpacks_to_more_than_64_mib_is_refused_unread(tmp_path):
    path = tmp_path / "tables.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cdf.npy", bytes((1 << 26) + 1))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(TablesError, match="unpacks to more than 64 MiB"):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(TablesError, match="Cannot read entropy tables"):
            load(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), compressed=st.booleans())
def test_a_file_with_changed_bytes_is_refused_or_holds_valid_tables(
    tmp_path_factory, data, compressed
):
    content = bytearray(saved(np.savez_compressed if compressed else np.savez, **VALID))
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            # numpy warns of headers as Python 2 wrote them, zipfile of names that come twice.
            warnings.simplefilter("ignore", UserWarning)
            coder = load(path)
    except TablesError:
        return
    symbols = np.zeros((coder.channels, 1, 2), np.int32)
    (decoded,) = coder.decode(coder.encode(symbols), 1, 2)
    np.testing.assert_array_equal(decoded, symbols, strict=True)


@settings(max_examples=50, deadline=None)
@given(tables=any_tables())
def test_saved_tables_come_back(tmp_path_factory, tables):
    path = tmp_path_factory.getbasetemp() / "tables.npz"
    save_coder(FactorizedCoder(tables), path)
    coder = load(path)
    assert isinstance(coder, FactorizedCoder)
    assert coder.digest() == tables.digest()
    loaded = coder.tables
    for name in ("cdf", "length", "offset"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tables, name), strict=True)
    assert loaded.precision == tables.precision
    assert loaded.digest() == tables.digest()


def test_tables_cannot_be_changed():
    tables = FactorizedTables(**VALID)
    for name in ("cdf", "length", "offset"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(tables, name)[0] = 1


def test_the_digest_ignores_padding_and_nothing_else():
    original = FactorizedTables(**VALID).digest()
    # Streams carry the id that begins with it: another digest would disown those of before.
    assert original.hex() == "ae4cc5c43d1b08b7556316eb826fdfe76f79751faa62b41249984cd21ebfc345"
    padded = changed(cdf=[[0, 1, 3, 4, 7, 7], [0, 2, 4, 9, 7, 7]])
    assert FactorizedTables(**padded).digest() == original
    others = [
        changed(cdf=[[0, 2, 3, 4], [0, 2, 4, 0]]),
        changed(cdf=[[0, 1, 3, 4], [0, 2, 3, 4]], length=[4, 4]),
        changed(offset=[-1, 1]),
        changed(cdf=2 * VALID["cdf"], precision=3),
        changed(cdf=VALID["cdf"][::-1], length=[3, 4], offset=[0, -1]),
    ]
    digests = {FactorizedTables(**other).digest() for other in others}
    assert len(digests | {original}) == 6


def test_tables_go_by_prefixed_names_beside_others():
    original, other = FactorizedTables(**VALID), FactorizedTables(**changed(offset=[-1, 1]))
    arrays = original.arrays("first_") | other.arrays("second_")
    assert tuple(arrays) == (*FactorizedTables.names("first_"), *FactorizedTables.names("second_"))
    assert {value.dtype for value in arrays.values()} == {np.dtype(np.int32)}
    assert FactorizedTables.of(arrays, "first_").digest() == original.digest()
    assert FactorizedTables.of(arrays, "second_").digest() == other.digest()
    for missing in arrays:
        rest = {name: value for name, value in arrays.items() if name != missing}
        with pytest.raises(TablesError, match=f"'{missing}' is missing"):
            FactorizedTables.of(rest, missing.partition("_")[0] + "_")


@pytest.mark.parametrize("kind", ["", "Factorized", "huffman"])
def test_a_kind_of_coder_that_is_unknown_is_answered_with_the_known_ones(tmp_path, kind):
    save_coder(FactorizedCoder(FactorizedTables(**VALID)), tmp_path / "tables.npz")
    with pytest.raises(TablesError, match=rf"The coder '{kind}' is unknown; .*factorized, "):
        load_coder(kind, {}, tmp_path / "tables.npz")


def test_tables_of_another_kind_of_coder_are_refused(tmp_path):
    save_coder(FactorizedCoder(FactorizedTables(**VALID)), tmp_path / "tables.npz")
    with pytest.raises(TablesError, match=r"it holds cdf\.npy"):
        load_coder("hyperprior", {}, tmp_path / "tables.npz")
