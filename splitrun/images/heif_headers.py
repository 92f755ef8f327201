"""Checks of AVIF and HEIC files before a decoder sees them.

Both are ISO base media files (ISO/IEC 14496-12) in the manner of HEIF (ISO/IEC 23008-12): nested
boxes that describe items. The size stands twice, in the container and in the AV1 or HEVC data, and
a decoder allocates the second before it can notice that they differ. As in ``headers``, files as
the encoders here write them pass: one item, without transparency, grids, sequences or metadata.
"""

from typing import NamedTuple

from .headers import check_size, other_form, unpack

_META = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp"}
_AVIF_PROPERTIES = {b"ispe", b"pixi", b"colr", b"av1C"}
_HEIC_PROPERTIES = {b"ispe", b"pixi", b"colr", b"hvcC", b"clap"}

_AV1_SEQUENCE, _AV1_DELIMITER, _AV1_FRAME = 1, 2, 6
_HEVC_LAST_SLICE, _HEVC_SEQUENCE, _HEVC_SEI = 31, 33, (39, 40)
_HEVC_FILL = 64
"""Pixels by less than which encoders fill an image up, to whole coding units or a least size."""


class _Item(NamedTuple):
    """The only image of a file."""

    size: tuple[int, int]  # height and width that the container claims, pixels
    configuration: bytes  # content of the codec's configuration box
    data: bytes


def check_avif(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is an AVIF file of one still image of this size."""
    item = _only_item("AVIF", data, b"av01", b"av1C", _AVIF_PROPERTIES)
    check_size("AVIF", item.size, (height, width))
    kinds, position = [], 0
    while position < len(item.data):
        kind, content, position = _av1_unit(item.data, position)
        if kind == _AV1_SEQUENCE:
            check_size("AVIF", _av1_size(content), (height, width))
        if kind != _AV1_DELIMITER:
            kinds.append(kind)
    if kinds != [_AV1_SEQUENCE, _AV1_FRAME]:
        raise other_form("AVIF", "is not one still image")


def check_heic(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is a HEIC file of one HEVC image in one slice, of this size."""
    item = _only_item("HEIC", data, b"hvc1", b"hvcC", _HEIC_PROPERTIES)
    sequences = [_hevc_size(unit) for unit in _hevc_parameters(item.configuration)]
    if len(sequences) != 1:
        raise other_form("HEIC")
    for claimed in (item.size, *sequences):
        fill = (claimed[0] - height, claimed[1] - width)
        if not 0 <= min(fill) <= max(fill) < _HEVC_FILL:
            check_size("HEIC", claimed, (height, width))
    slices, position = 0, 0
    while position < len(item.data):
        (length,) = unpack("HEIC", ">I", item.data, position)
        unit = item.data[position + 4 : position + 4 + length]
        position += 4 + length
        if len(unit) != length or length < 3:
            raise other_form("HEIC", "is cut short")
        kind = unit[0] >> 1 & 0x3F
        if kind > _HEVC_LAST_SLICE and kind not in _HEVC_SEI:
            raise other_form("HEIC")
        slices += kind <= _HEVC_LAST_SLICE
    if slices != 1:
        raise other_form("HEIC", f"has {slices} slices")


def _only_item(
    name: str, data: bytes, kind: bytes, configuration: bytes, properties: set[bytes]
) -> _Item:
    """Take a file apart that holds one item of a kind, and nothing else.

    Args:
        configuration: Property that holds the codec's configuration.
        properties: Properties that the item may have.
    """
    top = _boxes(name, data, 0, {b"ftyp", b"meta", b"mdat"})
    meta = _boxes(name, _part(name, top, b"meta"), 4, _META)
    entry = _part(name, _boxes(name, _part(name, meta, b"iinf"), 6, {b"infe"}), b"infe")
    if unpack(name, ">B7x4s", entry, 0) != (2, kind):
        raise other_form(name)
    described = _boxes(name, _part(name, meta, b"iprp"), 0, {b"ipco", b"ipma"})
    held = _boxes(name, _part(name, described, b"ipco"), 0, properties)
    width, height = unpack(name, ">4xII", _part(name, held, b"ispe"), 0)
    start, length = _extent(name, _part(name, meta, b"iloc"))
    # All of `mdat`, and nothing but it, so that what is checked is what a decoder reads.
    coded = _part(name, top, b"mdat")
    if data[start : start + length] != coded or start + length != len(data):
        raise other_form(name)
    return _Item((height, width), _part(name, held, configuration), coded)


def _boxes(name: str, data: bytes, position: int, allowed: set[bytes]) -> dict[bytes, bytes]:
    """Return the contents of boxes by type; each occurs once."""
    found: dict[bytes, bytes] = {}
    while position < len(data):
        length, kind = unpack(name, ">I4s", data, position)
        if not 8 <= length <= len(data) - position:
            raise other_form(name, "is cut short")
        if kind not in allowed or kind in found:
            raise other_form(name, f"holds a part that is not expected: {kind!r}")
        found[kind] = data[position + 8 : position + length]
        position += length
    return found


def _part(name: str, boxes: dict[bytes, bytes], kind: bytes) -> bytes:
    if kind not in boxes:
        raise other_form(name, f"lacks a part: {kind.decode()}")
    return boxes[kind]


def _extent(name: str, location: bytes) -> tuple[int, int]:
    """Return where the only item's data starts and how long it is, from an ``iloc`` box."""
    version, sizes, base_size, items = unpack(name, ">IBBH", location, 0)
    if (version, sizes, items) != (0, 0x44, 1) or base_size not in (0, 0x40):
        raise other_form(name)
    form = ">2xHIHII" if base_size else ">2xHHII"
    reference, *base, extents, start, length = unpack(name, form, location, 8)
    if (reference, extents) != (0, 1):
        raise other_form(name)
    return sum(base) + start, length


class _Bits:
    """Reads bits, the highest first; past the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next bits as a number."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """Return the next unsigned Exp-Golomb number, below 2**16."""
        zeros = 0
        while zeros < 16 and not self.read(1):
            zeros += 1
        return (1 << zeros | self.read(zeros)) - 1


def _av1_unit(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return an open bitstream unit's type and content, and where it ends."""
    header, length = data[position], 0
    for index in range(5):
        (byte,) = unpack("AVIF", "B", data, position + 1 + index)
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    else:
        raise other_form("AVIF")
    start = position + 2 + index
    content = data[start : start + length]
    # Forbidden bit 0, no extension, the size is given, reserved bit 0.
    if header & 0b10000111 != 0b010 or len(content) != length:
        raise other_form("AVIF", "is cut short")
    return header >> 3, content, start + length


def _av1_size(sequence: bytes) -> tuple[int, int]:
    """Return height and width from a sequence header (AV1 specification, Section 5.5.1)."""
    bits = _Bits(sequence[:16])
    bits.read(3)
    still, reduced = bits.read(1), bits.read(1)
    if not (still and reduced):
        raise other_form("AVIF", "is not one still image")
    bits.read(5)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width = bits.read(width_bits) + 1
    return bits.read(height_bits) + 1, width


def _hevc_parameters(configuration: bytes) -> list[bytes]:
    """Return the sequence parameter sets in an ``hvcC`` box."""
    (arrays,) = unpack("HEIC", "B", configuration, 22)
    sequences, position = [], 23
    for _ in range(arrays):
        kind, units = unpack("HEIC", ">BH", configuration, position)
        position += 3
        for _ in range(units):
            (length,) = unpack("HEIC", ">H", configuration, position)
            unit = configuration[position + 2 : position + 2 + length]
            position += 2 + length
            # What a decoder goes by is the unit's own type.
            if len(unit) != length or length < 3 or unit[0] >> 1 & 0x3F != kind & 0x3F:
                raise other_form("HEIC")
            if kind & 0x3F == _HEVC_SEQUENCE:
                sequences.append(unit)
    return sequences


def _hevc_size(sequence: bytes) -> tuple[int, int]:
    """Return height and width from a sequence parameter set (ITU-T H.265, Section 7.3.2.2)."""
    # 3 after two zeros only keeps start codes out of the data.
    bits = _Bits(sequence[2:64].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    if bits.read(3):
        raise other_form("HEIC")  # sub-layers, whose profiles would follow
    bits.read(1 + 96)
    bits.exp_golomb()
    if bits.exp_golomb() == 3:
        bits.read(1)
    width = bits.exp_golomb()
    return bits.exp_golomb(), width
