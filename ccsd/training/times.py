"""How long steps took, and how much of that was waiting for data."""


class StepTimes:
    """Adds up the steps between two records."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._steps, self._data_s, self._step_s = 0, 0.0, 0.0

    def add(self, data_s: float, step_s: float) -> None:
        """Add one step: seconds spent waiting for the batch, and seconds altogether."""
        self._steps += 1
        self._data_s += data_s
        self._step_s += step_s

    def take(self) -> dict[str, float]:
        """Return means per step, the share of waiting and samples per second, and begin anew."""
        steps, data_s, step_s = self._steps, self._data_s, self._step_s
        self._steps, self._data_s, self._step_s = 0, 0.0, 0.0
        return {
            "step_s": step_s / steps,
            "data_s": data_s / steps,
            "data_share": data_s / step_s,
            "samples_per_s": self._batch_size * steps / step_s,
        }
