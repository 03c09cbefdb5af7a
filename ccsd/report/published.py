"""Published averages over the 15 combinations, shown only beside scores of exactly the same test cases."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Mean Dice in per cent over the 15 combinations, as one source prints it."""

    method: str
    wt: float
    tc: float
    et: float
    source: str


@dataclass(frozen=True)
class Protocol:
    """A list of cases that several papers use, and the results published on it."""

    name: str
    rows: tuple[Published, ...]


_RFNET, _DEMOSEG = "README of RFNet", "README of DeMoSeg"
PROTOCOLS = {
    "770b30a85d7d": Protocol(
        "BraTS 2020, 219 / 50 / 100 cases",
        (
            Published("HeMIS", 75.10, 65.45, 47.73, _RFNET),
            Published("U-HVED", 81.24, 67.19, 48.55, _RFNET),
            Published("RobustSeg", 84.17, 73.45, 55.49, _RFNET),
            Published("RFNet", 86.98, 78.23, 61.47, _RFNET),
            Published("mmFormer", 87.08, 78.69, 64.08, _DEMOSEG),
            Published("SRMNet", 87.0, 79.3, 63.5, "README of SRMNet"),
            Published("MAVP", 87.58, 79.67, 64.87, _DEMOSEG),
            Published("GSS", 88.09, 79.24, 66.42, _DEMOSEG),
            Published("DeMoSeg", 88.90, 81.58, 69.71, _DEMOSEG),
        ),
    )
}
"""Protocol by the hash of its split (config/splits/brats2020.tsv).

Numbers over several splits together (BraTS 2018), or read off plots, are left out."""


def protocol_of(split_hashes: set[str], combinations: int) -> Protocol | None:
    """Return the protocol whose cases a study uses exactly, or None.

    Parameters
    ----------
    split_hashes
        Hashes of the splits that the scores come from.
    combinations
        How many combinations were scored; averages over fewer than 15 are not comparable.
    """
    if len(split_hashes) != 1 or combinations != 15:  # noqa: PLR2004 - all of them
        return None
    return PROTOCOLS.get(next(iter(split_hashes)))
