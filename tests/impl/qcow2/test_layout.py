"""Stories of what is on disk: parsed once, refused by the name of the field."""

import pytest
from snapcheck.impl.qcow2.layout import (
    HEADER_BYTES,
    HEADER_BYTES_V2,
    HEADER_BYTES_V3,
    Header,
    ImageError,
    NeedMoreError,
    SnapshotEntry,
    next_id,
    pack_snapshots,
    parse_snapshots,
    strtoul,
)
from snapcheck.model.errno import Errno
from snapcheck.model.snapshot import SnapshotInfo

HEADER = Header(
    cluster_bits=12, size=65536, l1_size=1, l1_offset=3 << 12, refcount_table_offset=1 << 12, refcount_table_clusters=1
)


def patched(offset: int, value: bytes) -> bytes:
    raw = HEADER.pack()
    return raw[:offset] + value + raw[offset + len(value) :]


def entry(id_str: str = "1", name: str = "a", *, state: int = 0, extra: bytes = b"") -> SnapshotEntry:
    info = SnapshotInfo(id_str, name, state, 2**32 - 1, 999_999_999, 2**63 - 1)
    return SnapshotEntry(info, 5 << 12, 1, 65536, extra)


def with_count(count: int) -> Header:
    return HEADER._replace(snapshot_count=count, snapshots_offset=6 << 12)


def test_a_header_reads_back_as_it_was_packed() -> None:
    longer = HEADER._replace(header_length=112, incompatible=8, compression=1)
    old = HEADER._replace(header_length=72, version=2)
    for header, length in ((HEADER, HEADER_BYTES_V3), (longer, HEADER_BYTES), (old, HEADER_BYTES_V2)):
        assert len(header.pack()) == length
        assert Header.parse(header.pack()) == header


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (0, b"QCOW", "magic: 51434f57 is not 514649fb"),
        (4, (1).to_bytes(4, "big"), "version: 1, expected 2 or 3"),
        (4, (4).to_bytes(4, "big"), "version: 4, expected 2 or 3"),
        (20, (8).to_bytes(4, "big"), "cluster_bits: 8, expected 9 to 21"),
        (20, (22).to_bytes(4, "big"), "cluster_bits: 22"),
        (32, (1).to_bytes(4, "big"), "crypt_method: 1"),
        (96, (7).to_bytes(4, "big"), "refcount_order: 7, expected 0 to 6"),
        (100, (72).to_bytes(4, "big"), "header_length: 72"),
        (100, (107).to_bytes(4, "big"), "header_length: 107"),
    ],
)
def test_a_header_of_another_kind_is_refused_by_the_name_of_its_field(offset: int, value: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        Header.parse(patched(offset, value))


@pytest.mark.parametrize(
    ("change", "says", "errno"),
    [
        ({"l1_offset": 100}, "l1_table_offset: 0x64 is not the offset of a cluster", Errno.EINVAL),
        ({"l1_offset": 0}, "l1_table_offset: 0 is where the header is", Errno.EINVAL),
        ({"l1_offset": 1 << 30}, "l1_table_offset: .* beyond the end of the file", Errno.EINVAL),
        ({"l1_size": (4 << 20) + 1}, "l1_table: 33554440 bytes are more", Errno.EFBIG),
        ({"size": 1 << 40}, "l1_size: 1 entries are too few", Errno.EINVAL),
        ({"backing_offset": 4090, "backing_length": 10}, "backing_file_offset: 0xffa", Errno.EINVAL),
        ({"backing_offset": 112, "backing_length": 2000}, "backing_file_size: 2000", Errno.EINVAL),
        ({"refcount_table_clusters": 0}, "refcount_table_clusters: 0", Errno.EINVAL),
        ({"refcount_table_clusters": 1 << 20}, "refcount_table: .* more than", Errno.EFBIG),
        ({"refcount_table_offset": 7 << 12}, "refcount_table_offset", Errno.EINVAL),
        ({"snapshot_count": 65537}, "nb_snapshots: 65537", Errno.EFBIG),
        ({"snapshot_count": 1}, "snapshots_offset: 0 is where the header is", Errno.EINVAL),
        ({"snapshot_count": 400, "snapshots_offset": 6 << 12}, "snapshots_offset: .* beyond the end", Errno.EINVAL),
    ],
)
def test_a_table_that_can_not_be_there_is_refused(change: dict[str, int], says: str, errno: Errno) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        HEADER._replace(**change).require_sane(file_bytes=7 << 12)
    assert caught.value.errno is errno


@pytest.mark.parametrize("bit", [2, *range(5, 64)])
def test_every_feature_that_is_not_built_here_is_refused(bit: int) -> None:
    with pytest.raises(ImageError, match=f"incompatible_features: bit {bit}:"):
        HEADER._replace(incompatible=1 << bit).require_supported()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compression": 1}, "compression_type: 1 and bit 3"),
        ({"incompatible": 1 << 3}, "compression_type: 0 and bit 3"),
        ({"incompatible": 1 << 3, "compression": 2}, "compression_type: 2, expected"),
        ({"incompatible": 1 << 4}, "cluster_bits: 12, extended L2"),
    ],
)
def test_features_that_contradict_other_fields_are_refused(change: dict[str, int], says: str) -> None:
    with pytest.raises(ImageError, match=says):
        HEADER._replace(**change).require_supported()


@pytest.mark.parametrize(("bit", "says"), [(0, "dirty bit"), (1, "marked corrupt"), (4, "read and not written")])
def test_an_image_that_may_only_be_read_is_not_opened_for_writing(bit: int, says: str) -> None:
    header = HEADER._replace(incompatible=1 << bit, cluster_bits=16)
    header.require_supported()
    with pytest.raises(ImageError, match=says):
        header.require_writable()


def test_snapshots_read_back_with_long_names_large_states_and_unknown_extra_data() -> None:
    entries = [
        entry(extra=b"\xee" * 24), entry("i" * 200, "n" * 300, state=5 << 30), entry("", ""), entry("\udcff", "\u00e9"),
    ]  # fmt: skip
    raw = pack_snapshots(entries)
    assert parse_snapshots(raw + b"garbage", with_count(4)) == (entries, len(raw))


def test_a_state_beyond_32_bits_looks_disk_only_to_old_readers() -> None:
    raw = entry(state=5 << 30).pack()
    assert raw[32:36] == bytes(4)
    assert int.from_bytes(raw[40:48], "big") == 5 << 30


def test_an_entry_without_a_disk_size_has_the_current_one() -> None:
    raw = entry().pack()
    old_style = raw[:36] + (0).to_bytes(4, "big") + raw[56:]
    (found,), _ = parse_snapshots(old_style, with_count(1))
    assert found.disk_size == HEADER.size


def test_a_table_that_is_cut_off_says_how_much_it_needs() -> None:
    raw = pack_snapshots([entry(), entry("2")])
    with pytest.raises(NeedMoreError) as caught:
        parse_snapshots(raw[:-1], with_count(2))
    assert caught.value.length == len(raw)


def test_too_much_extra_data_is_refused_with_the_way_out() -> None:
    with pytest.raises(ImageError, match=r"entry 0 has 1041 bytes of extra data.*--repair") as caught:
        parse_snapshots(entry(extra=bytes(1025)).pack(), with_count(1))
    assert caught.value.errno is Errno.EFBIG


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7), ("", 0), ("x", 0), ("12x", 12), (" \t7", 7), ("+5", 5), ("-1", 2**64 - 1), ("0007", 7),
        ("4294967297", 2**32 + 1), (str(2**64 - 1), 2**64 - 1), (str(2**64), 2**64 - 1), ("9" * 127, 2**64 - 1),
        ("-" + "9" * 127, 2**64 - 1), ("\u0663", 0),
    ],
)  # fmt: skip
def test_an_id_counts_as_c_reads_it(text: str, number: int) -> None:
    assert strtoul(text) == number


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [((), "1"), (("1", "3"), "4"), (("x",), "1"), (("4294967297",), "4294967298"), ((str(2**64 - 1),), "0")],
)
def test_the_next_id_is_the_largest_plus_one_and_wraps(ids: tuple[str, ...], chosen: str) -> None:
    assert next_id([entry(id_str) for id_str in ids]) == chosen
