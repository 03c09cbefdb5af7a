"""How empty regions are scored. Published numbers differ mostly in this, so the policy is printed with every score."""

from dataclasses import dataclass

from ccsd.config.schema import Evaluation

BOTH, REFERENCE, PREDICTION, NEITHER = "both", "reference", "prediction", "no"
"""Which region is empty."""


@dataclass(frozen=True)
class Policy:
    """How empty regions are scored."""

    hd95_penalty: float = 373.13
    """HD95 in mm if exactly one of the two regions is empty; 373.13 is the diagonal of a BraTS volume."""
    score_both_empty: bool = True
    """Whether a region that is rightly absent scores (Dice 1, HD95 0) or is left out of the means."""

    def label(self) -> str:
        """Return the policy as printed in tables, without spaces so that it stays one field everywhere."""
        both = "dice=1,hd95=0,nsd=1" if self.score_both_empty else "left-out"
        return f"both-empty:{both};one-empty:dice=0,hd95={self.hd95_penalty:g},nsd=0"

    def sentence(self) -> str:
        """Return the policy as a sentence for readers."""
        both = (
            "Where prediction and reference are both empty, Dice and NSD are 1 and HD95 is 0 mm"
            if self.score_both_empty
            else "Cases where prediction and reference are both empty are left out of the means"
        )
        return f"{both}; where only one of them is empty, Dice and NSD are 0 and HD95 is {self.hd95_penalty:g} mm."


def which_is_empty(predicted: int, reference: int) -> str:
    """Return which of two regions, given by their numbers of voxels, is empty."""
    if predicted and reference:
        return NEITHER
    if predicted:
        return REFERENCE
    return PREDICTION if reference else BOTH


def policy_of(settings: Evaluation) -> Policy:
    """Return the settings' policy for empty regions."""
    return Policy(settings.hd95_penalty, score_both_empty=settings.both_empty == "score")
