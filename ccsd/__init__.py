"""Cross-Modal Compositional Self-Distillation: brain-tumour segmentation from any set of MRI sequences.

The Python API is `ccsd.load_model`, `Model.predict` and `ccsd.score` (docs/how-to/python.md). It is imported when used.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ccsd.api import (
        Image,
        InputError,
        MeasuredLesion,
        Model,
        Prediction,
        UsageError,
        load_model,
        score,
    )
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ccsd import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = ["Image", "InputError", "MeasuredLesion", "Model", "Prediction", "UsageError", "load_model", "score"]
