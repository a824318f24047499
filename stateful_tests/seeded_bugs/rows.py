"""Where the seeded bugs come from: fixes in the history of QEMU, in own words, and why some of them are not here.

`ROWS` are bugs of snapshots that were really made and mended, each with its commits and the first release that has the
fix. `LEFT_OUT` says of those that no bug of the catalogue re-creates why that is so.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Row(NamedTuple):
    """One real bug: the commits that mended it, the first release with them ("" where it is not known), what it was."""

    commits: str
    release: str
    what: str


ROWS: Final[Mapping[str, Row]] = {
    # ordering, and what a power cut leaves
    "B01": Row("9a4767809f", "1.1", "delete lowered refcounts before the entry had left the table"),
    "B02": Row("43a0cac465", "1.1", "goto lowered the old tree's refcounts before it raised the new one's"),
    "B04": Row("2154f24e4e", "1.5", "goto and delete did not flush the refcounts"),
    "B06": Row("d69969c404", "1.1", "count and offset of the table were written to the header one after the other"),
    "B08": Row("84757f7e67", "1.7", "after a failed table write the array was restored, and not the count"),
    "B10": Row("589f284b76, 07fd877900, 42deb29fed, c2bc78b6a9", "1.1 to 1.5", "-1 or -EIO instead of the errno"),
    "B11": Row("7454d60045", "1.7", "a failure to count compressed clusters was shadowed: 0 was returned"),
    "B12": Row("c2b6ff51e4", "1.5", "after a failed write the L1 table stayed in the byte order of the disk"),
    "B14": Row("5d757b563d, db3a964fb6", "1.0", "results of allocations and refcount updates were ignored"),
    "B15": Row("67af674e47, 0b919fae31", "1.7", "a hazard: discards before what unreferences the clusters is stable"),
    # refcounts, COPIED, kinds of clusters
    "B18": Row("3f6a3ee51e", "1.0", "a buffer for the L1 table was too small for writes of whole sectors"),
    "B19": Row("24552feb6a", "4.2", "offsets of compressed clusters were cut to 32 bits when they were counted"),
    "B20": Row("b0b6862e5e", "1.1", "whether a cluster may be overwritten was asked of the wrong field"),
    "B23": Row("6e13610aa4", "1.7", "partial writes of VM state took what was around them for zeroes"),
    "B24": Row("6b7d4c5558", "2.0", "copy on write ended at the virtual size: VM state behind it was not copied"),
    "B25": Row("90b277593d, 7fa140abf6", "1.1, 5.1", "the size of the disk was not kept in the snapshot"),
    "B26": Row("c2c9a46609", "1.1", "the size of the VM state had 32 bits"),
    "B27": Row("00c49b21e7", "1.7", "the next id was worked out in a narrow type"),
    "B29": Row("647cc47223", "1.1", "something that exists was reported as ENOENT"),
    "B31": Row("7e3e736cbd", "4.1", "a repair was counted before it succeeded"),
    "B32": Row("a3e1505dae", "2.8", "emptying an image with snapshots went in steps that were not aligned"),
    "B33": Row("a97c67ee6c", "2.2", "unaligned pointers in the trees of snapshots were followed"),
    "B35": Row("1e242b5544, 998b959c1e", "1.7", "the overlap check read L1 tables of snapshots in the wrong order"),
    "B37": Row("0a85af351d, e40e6e88f6", "4.2", "an upgrade to version 3 left entries that version 3 does not allow"),
    "B38": Row("f252080453", "", "nothing said that entries are aligned: other writers packed them"),
    "B39": Row("28c1202ba6", "1.1", "the array of snapshots was not freed at close"),
    "B40": Row("03343166f7", "1.1", "the id was leaked by create"),
    "B41": Row("aa8b34c1b2, e9f5b6deaa", "4.0", "snapshots were taken of images with an external data file"),
    "B42": Row("93913dfd8a, 3b88e52b41", "1.1", "one write for each refcount made create take minutes"),
    # images that are not what they claim to be
    "B43": Row("ce48f2f441", "2.0", "offset and count of the table were not checked (CVE-2014-0144)"),
    "B44": Row("6a83f8b5be", "2.0", "the size of a snapshot's L1 table was not checked in load_tmp (CVE-2014-0143)"),
    "B46": Row("11b128f406", "2.0", "the count was set before there was an array to clean up (CVE-2014-0146)"),
    "B47": Row("5dae6e30c5", "2.0", "nothing limited the size of the whole table"),
    "B48": Row("87b86e7ef2", "2.3", "a limit in bytes was compared with a number of entries"),
    "B49": Row("314e8d3928, a8475d7573, db5794f1f1", "2.12", "a snapshot's L1 table was not checked in goto, delete"),
    "B50": Row("c7a9d81d70, c9a442e450, 0c2ada8136", "2.12", "nor in the overlap check, in amend and in check"),
    "B51": Row("cab60de930, db8a31d11d, b106ad9185", "2.0", "overflows when L1 and refcount tables grow"),
    "B52": Row("099febf3ac, d2b1d1ec73, f91f1f159b", "4.2", "images with too large tables could not be repaired"),
    "B53": Row("558902cc3d", "6.2", "a position in the VM state could overflow"),
    "B54": Row("88fb153512", "1.7", "lengths of id and name would have been cut to 16 bits"),
    # the calls on one node
    "B55": Row("6ca080453e, 8c04093c8c", "4.0", "an argument matched an id or a name, whichever came first"),
    "B56": Row("a89d89d3e6", "1.7", "delete could not tell an id from a name"),
    "B58": Row("ba2b22888c", "2.2", "an error object was used after it had been freed, with two devices"),
    "B59": Row("2a9170bcd4", "2.7", "a group delete that failed did not release the device's lock"),
    "B61": Row("f6d38c9f6d, bac09b093e", "9.0", "an iterator gave back another node than it had taken"),
    "B64": Row("7a9e51198c", "2.9", "goto opened the format driver again without its child"),
    "B65": Row("b75c5f9879", "10.0", "goto opened a driver again over what was left of its state"),
    "B66": Row("3c005293c2", "3.0", "goto called a close callback that need not be there"),
    "B68": Row("3432a1929e, 53ec73e264, 27a7649a48", "2.2 to 2.6", "delete ran while guest writes were in flight"),
    "B69": Row("04dec3c3ae, 70a5afedd6", "2.11", "goto left dirty bitmaps that described other content"),
    "B70": Row("0b62bcbc61, 2b624fe079", "2.11", "goto gave no reason"),
    "B71": Row("d3007d348a", "9.0", "can_snapshot looked at the configured mode, not at the present one"),
    "B72": Row("ce33d85d45", "9.0", "a text was put in front of an error that the caller did not want"),
    "B73": Row("6bc0bcc89f", "8.2", "a drain waited for who wanted the lock that was held"),
    "B74": Row("7b4c4781e3", "2.0", "load_tmp could not tell an id from a name"),
    # savevm, loadvm, the monitor
    "B75": Row("f139a41256", "1.0", "savevm without a name looked for NULL"),
    "B76": Row("7d631a116a", "1.0", "savevm without a name stored an empty one"),
    "B77": Row("2a909dc430", "6.0", "a failing savevm left snapshots on the devices before"),
    "B80": Row("d02f7094b9", "", "loadvm went on after an error"),
    "B81": Row("66270a475c", "5.1", "an error at the close of the VM state was ignored"),
    "B82": Row("f61fe11aa6, c53cd04e70", "6.0", "the machine went on after a failure and stopped after success"),
    "B83": Row("aded9dfa74", "4.1", "a savevm that was refused returned false, which is 0, which is success"),
    "B84": Row("4dd32b3dda, 97d2b66dcd", "3.1, 9.1", "a failing path set no error, and the caller read it"),
    "B85": Row("5aaac46793, 24f3902b08", "3.1, 2.7", "savevm ignored what blocks migration"),
    "B86": Row("6dcf66681a, 3d63da16fb", "2.7, 3.1", "a savevm that failed blocked all later ones"),
    "B87": Row("f9092b108f, 29d782710f", "1.0", "the device with the VM state was remembered beyond its unplug"),
    "B88": Row("07b70bfbb3", "1.0", "removable devices were left out"),
    "B89": Row("feeee5aca7, 7cdb1f6d30", "", "every device was said to support snapshots"),
    "B90": Row("ea17c9d20d, dc88a467ec, 17e2a4a47d", "2.10", "savevm hung or died with I/O threads: nested locks"),
    "B91": Row("5a8a49d7aa, 560d027b54, 75e972dab5", "1.0 to 2.10", "the machine was not reset before it was loaded"),
    "B92": Row("3a1ee71190, 0c204cc810, f920991574", "2.7", "whether all devices have a snapshot was asked of its id"),
    "B94": Row("3dc7ca3c97, 0b92885420", "2.3", "what blocks operations was not asked"),
    "B97": Row("c0b32426ce", "10.0", "a seek in the VM state took the wrong argument for the offset"),
    "B98": Row("libvirt ec8be9ac", "", "save and load chose the device with the VM state by different rules"),
    "B99": Row("0fa296eb00", "2.6", "an error of before was handed to a query"),
    # tools, output, other drivers
    "B100": Row("804359b8b9, 26513a0174, 52df1a5b61", "5.0 to 9.0", "columns of a list ran into each other"),
    "B101": Row("b9c532903f", "1.1", "a list that failed left its pointer unset, and the caller freed it"),
    "B102": Row("9e6337d081", "1.7", "a list leaked"),
    "B103": Row("e25cad6921", "2.9", "a delete of what is not there was success"),
    "B104": Row("89e2a31d33, b579ffb3fd, 3178e2755e", "2.9", "names were cut without a word"),
    "B105": Row("eab8eb8db3", "2.6", "delete was a stub that returned 0"),
    "B107": Row("b544c1aba8", "2.1", "a write in flight during a snapshot went to the wrong place"),
    "B108": Row("973a8529c5, 2df5fee2db", "", "create leaked a descriptor and a buffer"),
    "B109": Row("3c6c4348f2", "4.2", "goto needed a reopen that the driver did not have: the node was dead"),
    "B110": Row("7322afe7ea, d191d12d5f", "1.0", "an empty disk could have no snapshot"),
    "B111": Row("eb0b64f7aa", "1.0", "a list without snapshots failed"),
}  # fmt: skip

_MEMORY: Final = "Python frees memory and checks bounds"
_NO_TOOL: Final = "check, repair, amend and commit are no operations of the driver contract"
_NO_MACHINE: Final = "no machine runs here, and no migration"

LEFT_OUT: Final[Mapping[str, str]] = {
    "B18": _MEMORY,
    "B29": "only a transaction finds a name taken, and the monitor's errors have no errno",
    "B31": _NO_TOOL,
    "B32": _NO_TOOL,
    "B35": "the engine has no overlap check over the trees of snapshots",
    "B37": _NO_TOOL,
    "B39": _MEMORY,
    "B40": _MEMORY,
    "B41": "images with an external data file are refused",
    "B47": "the limit keeps an integer from overflowing, which Python's do not",
    "B48": "only in a file of more than 32 MiB does it decide, and what it lets in takes long to read, no more",
    "B50": "a checker that says too little looks like a sound image; the harness judges with its own",
    "B51": "integers do not overflow here",
    "B52": _NO_TOOL,
    "B53": "integers do not overflow here, and the limit of the L1 table refuses what is too far out",
    "B54": "no name of more than 255 bytes gets through the API",
    "B61": "nodes have no reference counts here",
    "B65": "the layers have no state of their own that could be left over",
    "B72": "a reason is a value here, and no pointer",
    "B82": _NO_MACHINE,
    "B85": _NO_MACHINE,
    "B91": _NO_MACHINE,
    "B94": "there are no jobs that could block an operation",
    "B100": "no text with columns is parsed",
    "B102": _MEMORY,
    "B108": _MEMORY,
}
