"""Predict in one line."""

from ccsd.inference.predict import predict


def image(case, modality):
    return next(case.glob(f"*_{modality}.nii*"))


def one(source, *args):
    outcomes = list(predict([source], *args))
    assert len(outcomes) == 1
    return outcomes[0]
