"""The meaning of words in names without a layout: sequences, segmentations, contrast, tumours, and other things."""

import re
from dataclasses import dataclass
from functools import cache

from preprocess.task import ALIASES, Task

LABEL_WORDS = ("seg", "segm", "segmentation", "label", "labels", "mask")
_SPELLINGS = {"t2_flair": "flair", "t2 flair": "flair", "t2.flair": "flair"}
_FOREIGN = (
    "skull", "skullstrip[a-z]*", "stripped", "unstripped", "headmask", "parenchyma", "ventricle", "ventricles",
    "tissue", "tissues", "gm", "wm", "csf", "parc", "parcellation", "aparc", "aseg", "bias", "biasfield", "bet",
    "hdbet", "probseg", "probability", "probabilities", "cerebrum", "cerebell[a-z]*", "cortex", "cortical",
    "adc", "dwi", "dti", "swi", "asl", "dsc", "dce", "cbf", "cbv", "mtt",
)  # fmt: skip
_SEPARATORS = re.compile("[-_. ]+")
_HEAD = re.compile(r"(?:^|[-_. ])head$", re.IGNORECASE)
_AGENT = r"gd|gad(?:o[a-z]*|avist)?|ce|km"
_CONTRAST = re.compile(
    r"(?<!pre[-_. ])(?<!no[-_. ])(?<!non[-_. ])(?<!without[-_. ])(?<![a-z])(?:post|with|after|mit)?(?:"
    rf"(?:{_AGENT})(?![a-z0-9])|gd(?=t1)|(?:[ck]ontrast|enh(?:an[a-z]*)?(?![a-z])))"
    r"|(?<![a-z])post(?:inj[a-z]*|con)?(?![a-z]|[-_. ]?(?:op|surg|treat|rt|radi|chemo|resec|therap))"
    r"|(?<![a-z])post(?=t1)"
    r"|(?<![a-z])(?:t1w?)?c\+|\+c(?![a-z])|(?<![a-z])t1w?[-_. ]?(?:c|ce|gd)(?![a-z0-9])",
    re.IGNORECASE,
)
_TECHNIQUE = re.compile(
    r"axi?|axial|tra|trans|transversal|transverse|sag|sagittal|cor|coronal|obl|oblique|mp2?rage|space|tse|fse|frfse|se"
    r"|spgr|fspgr|bravo|vibe|flash|gre|tfe|tfl|ir|tirm|stir|blade|propeller|cube|vista|[23]d|iso|fs|fatsat"
    r"|pre|post|(?:pre|post|non?|with|without|mit|ohne)?"
    rf"(?:{_AGENT}|[ck]ontrast[a-z]*|enh(?:an[a-z]*)?|c\+|\+c)",
    re.IGNORECASE,
)
_INITIALS = {"se", "ir", "fs", "ce", "gd", "km"}
"""With a number these may also be the name of a case."""
_NO_CONTRAST = re.compile(r"^(?:ce|gd|km)[-_. ]?[0-9]{2,}(?=[-_. ])|_ses-[a-z0-9]+", re.IGNORECASE)
_BRAIN_TUMOUR = re.compile(r"brain[-_. ]?(?=tumou?r)", re.IGNORECASE)
_TUMOUR = re.compile(
    r"tumou?rs?|lesions?|glioma|gbm|[hl]gg|glioblastoma|astrocytoma|meningioma|metastas[ei]s|mets?|mass|gtv|roi|voi|brats"
    r"|final|manual|manually|correct(?:ed|ion)|edited|revised|refined|checked|reviewed|approved|drawn|experts?|consensus"
    r"|gt|ground|truth|true|ref|reference|gold|standard|annotat(?:ed|ions?)|(?:rater|reader|observer|expert)[0-9a-z]?"
    r"|v[0-9]+|auto|automatic|automated|approx|all|multi|multiclass|seg|segm|segmentations?|segmented|labels?|masks?",
    re.IGNORECASE,
)
_PARTS_OF_A_SET = re.compile(
    r"(?:labels?|masks?)?(?:tr|ts|va|train|training|val|validation|test|testing)|data|dataset|images?|nifti|[0-9]+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Words:
    """The meaning of words in names for a task; the task's own names of sequences take precedence."""

    images: dict[str, str]
    file: re.Pattern[str]
    foreign: re.Pattern[str]

    def split(self, name: str) -> tuple[str, str] | None:
        """Return the part before the last word, and the word, if it means a sequence or a segmentation."""
        match = self.file.fullmatch(name)
        return None if match is None else (match["case"] or "", match["word"])


def words_of(task: Task) -> Words:
    """Return the meaning of words for a task."""
    return _words(task.modalities)


@cache
def _words(sequences: tuple[str, ...]) -> Words:
    images = {**ALIASES, **_SPELLINGS, **{name: name for name in sequences}}
    endings = "|".join(sorted((re.escape(word) for word in (*images, *LABEL_WORDS)), key=len, reverse=True))
    foreign = "|".join(word for word in _FOREIGN if word not in sequences)
    return Words(
        images,
        re.compile(rf"(?:(?P<case>.+?)[-_. ])?(?P<word>{endings})", re.IGNORECASE),
        re.compile(rf"(?:^|[-_. ])(?:brain(?![-_. ]?tumou?r)[a-z0-9]*|{foreign})(?=[-_. ]|$)", re.IGNORECASE),
    )


def is_foreign(name: str, task: Task) -> bool:
    """Return whether a file's name refers to something that is neither a sequence nor a tumour, such as the brain."""
    words = words_of(task)
    if words.foreign.search(name):
        return True
    whole = words.split(name)
    if whole is None or whole[1].lower() not in LABEL_WORDS:
        return False
    before = words.split(whole[0])  # the mask of an image is a brain mask
    is_of_image = whole[1].lower() == "mask" and before is not None and before[1].lower() not in LABEL_WORDS
    return is_of_image or bool(_HEAD.search(whole[0]))


def may_be_contrast(name: str) -> bool:
    """Return whether a name contains a word for contrast, not counting names of cases (`CE-001`) and sessions."""
    return bool(_CONTRAST.search(_NO_CONTRAST.sub("", name)))


def is_of_tumour(name: str) -> bool:
    """Return whether every word describes a tumour, or how a segmentation of one was made."""
    return all(_TUMOUR.fullmatch(word) for word in _split(name))


def is_of_labels(folder: str, task: Task) -> bool:
    """Return whether the name of a folder refers to segmentations, and to nothing but tumours."""
    return not is_foreign(folder, task) and all(
        _TUMOUR.fullmatch(word) or _PARTS_OF_A_SET.fullmatch(word) for word in _split(folder)
    )


def is_technique(name: str, task: Task) -> bool:
    """Return whether a name has only words for orientation, technique, contrast or sequences, and scan numbers."""
    parts = _split(name.lower())
    words = {word for word in parts if not word.isdigit()}
    if not words or (len(words) < len(parts) and words <= _INITIALS):
        return False
    return all(word in words_of(task).images or _TECHNIQUE.fullmatch(word) for word in words)


def _split(name: str) -> list[str]:
    return [word for word in _SEPARATORS.split(_BRAIN_TUMOUR.sub("", name)) if word]
