"""Several models as one: the mean of their probabilities, little memory, and models that do not fit together."""

import json
import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from ccsd.config import Evaluation
from ccsd.errors import UsageError
from ccsd.inference import case as module
from ccsd.inference.case import _on_device, mean_probabilities
from ccsd.inference.ensemble import Ensemble, load_ensemble, read_members
from ccsd.inference.options import Options
from ccsd.inference.predict import predict
from support.processes import ccsd_here
from support.tasks import FIVE, GLIOMA, PARTS, SUBSETS, changed

MakeRun = Callable[..., Path]


@pytest.fixture
def case(made_study: Path) -> Path:
    return min(path for path in (made_study / "phantoms").iterdir() if path.is_dir())


@pytest.fixture
def runs(make_run: MakeRun) -> list[Path]:
    """Three models that differ in whatever models of an ensemble may differ in."""
    return [
        make_run("a", seed=3),
        make_run("b", seed=4, model={"width": 2, "levels": 2}, experiment="thin"),
        make_run("c", seed=5, train={"patch": (16, 24, 32)}),
    ]


def probabilities(case: Path, out: Path, models: Path | list[Path], options: Options | None = None) -> Any:
    (outcome,) = predict([case], out, models, options or Options(probabilities=True))
    assert outcome.error is None
    return np.asarray(nib.load(out / f"{outcome.case}_probabilities.nii.gz").dataobj)


def test_probabilities_are_the_mean_of_those_of_each_model(case: Path, runs: list[Path], tmp_path: Path) -> None:
    alone = [probabilities(case, tmp_path / run.name, run) for run in runs]
    together = probabilities(case, tmp_path / "together", runs)
    labels = np.asarray(nib.load(tmp_path / "together" / f"{case.name}.nii.gz").dataobj)

    assert min(np.abs(one - together).max() for one in alone) > 0.01
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(labels > 0, (together > 0.5).any(axis=-1))


def test_the_mean_is_taken_at_the_spacing_of_the_training_and_brought_back(
    case: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [make_run(f"r{seed}", seed=seed, spacing_mm=[2.0, 1.0, 1.0]) for seed in (1, 2)]
    alone = [probabilities(case, tmp_path / run.name, run) for run in runs]
    together = probabilities(case, tmp_path / "together", runs)

    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)


def test_the_record_names_all_models_in_order(case: Path, runs: list[Path], tmp_path: Path) -> None:
    probabilities(case, tmp_path, runs)
    record = json.loads((tmp_path / f"{case.name}.json").read_text())
    hashes = [json.loads((run / "run.json").read_text())["model_hash"] for run in runs]

    assert [model["model_hash"] for model in record["models"]] == hashes
    assert [(model["experiment"], model["seed"]) for model in record["models"]] == [
        ("ccsd", 3),
        ("thin", 4),
        ("ccsd", 5),
    ]


def test_one_model_gives_the_bits_that_it_gives_alone(runs: list[Path]) -> None:
    image = torch.randn(4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    ensemble = load_ensemble(read_members(runs[0]))
    found = mean_probabilities(ensemble, image, SUBSETS[:2], Evaluation())
    expected = module.predict_probabilities(ensemble.models[0].net, image, SUBSETS[:2], GLIOMA, patch=(24, 24, 24))

    assert torch.equal(found, expected)


@pytest.mark.parametrize("count", [2, 6])
def test_memory_does_not_grow_with_the_number_of_models(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """While a model fills its volume there is one more, the sum of those before it."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most: list[int] = []
    original = module.predict_probabilities

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        most.append(sum(volume() is not None for volume in alive))
        found = original(*args, **options)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(module, "predict_probabilities", watched)
    ensemble = load_ensemble(read_members([make_run(f"r{seed}", seed=seed) for seed in range(1, count + 1)]))
    mean_probabilities(ensemble, torch.ones(4, 24, 24, 24), SUBSETS[:1], Evaluation())

    assert most == [0] + [1] * (count - 1)


def test_a_network_is_on_the_device_for_its_own_pass_only() -> None:
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2)).eval()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    elsewhere = torch.device("meta")
    with suppress(torch.OutOfMemoryError), _on_device(net, elsewhere, lent=True):
        assert all(tensor.is_meta for tensor in net.state_dict().values())
        raise torch.OutOfMemoryError
    assert all(torch.equal(tensor, weights[name]) for name, tensor in net.state_dict().items())
    with _on_device(net, elsewhere, lent=False):
        assert not any(tensor.is_meta for tensor in net.state_dict().values())


def mapped(file: Path) -> list[range]:
    """Return the addresses at which this process has the file in its memory."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ends = [line[0].split("-") for line in lines if line[-1] == str(file.resolve())]
    return [range(int(first, 16), int(last, 16)) for first, last in ends]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says which memory is whose")
def test_weights_stay_in_their_files(runs: list[Path]) -> None:
    ensemble = load_ensemble(read_members(runs))
    for run, model in zip(runs, ensemble.models, strict=True):
        with _on_device(model.net, torch.device("meta"), lent=True):
            pass
        places = mapped(run / "model.safetensors")
        assert all(any(weight.data_ptr() in place for place in places) for weight in model.net.parameters())


def test_every_network_is_lent_in_turn(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    original = module._on_device
    ensemble = load_ensemble(read_members(runs))
    order = [id(model.net) for model in ensemble.models]
    monkeypatch.setattr(
        module,
        "_on_device",
        lambda net, device, lent: seen.append((str(device), order.index(id(net)))) or original(net, device, lent=lent),
    )
    mean_probabilities(ensemble, torch.ones(4, 24, 24, 24), SUBSETS[:1], Evaluation())

    assert seen == [("cpu", 0), ("cpu", 1), ("cpu", 2)]


@pytest.mark.gpu
def test_a_gpu_holds_one_network_and_two_volumes_whatever_the_number_of_models(make_run: MakeRun) -> None:
    image = torch.ones(4, 64, 64, 64, device="cuda")
    runs = [make_run(f"r{seed}", seed=seed, model={"width": 16, "levels": 4}) for seed in range(1, 7)]
    peaks = []
    for count in (2, 6):
        ensemble = load_ensemble(read_members(runs[:count]), "cuda")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        mean_probabilities(ensemble, image, SUBSETS, Evaluation())
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.02 * peaks[0]


def test_experiments_and_seeds_name_an_ensemble_and_the_order_its_digest(make_run: MakeRun) -> None:
    a, b, c = make_run("a", 0), make_run("b", 7), make_run("c", 1, experiment="hmsd")

    def of(*runs: Path) -> Ensemble:
        return Ensemble(read_members(runs), ())

    assert [of(a).name, of(a, b).name, of(b, a).name, of(a, c, b).name] == [
        "ccsd", "ccsd-s0+7", "ccsd-s7+0", "ccsd-s0+7+hmsd-s1"
    ]  # fmt: skip
    digests = {ensemble.model_hash for ensemble in (of(a), of(b), of(a, b), of(b, a), of(a, b, c))}
    assert len(digests) == 5
    assert of(a).model_hash == json.loads((a / "run.json").read_text())["model_hash"]


NUMBERED = changed(GLIOMA, numbering={**GLIOMA.model_dump()["numbering"], "brats2023": {"NCR": 3, "ED": 2, "ET": 1}})
EDEMA = {key: {**PARTS[key], "EDEMA": what} for key, what in (("regions", ["ED"]), ("paint", "ED"))}
RENAMED = changed(GLIOMA, name="another")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": FIVE.model_dump()}, "has the sequences flair, t1, t1ce, t2, adc, but"),
        ({"task": changed(GLIOMA, **EDEMA).model_dump()}, "has the regions WT, TC, ET, EDEMA, but"),
        ({"task": RENAMED.model_dump()}, "the task another, but"),
        ({"task": NUMBERED.model_dump()}, "differ in the numbers of brats2023"),
        ({"spacing_mm": [2.5, 1.0, 0.5]}, "was trained at voxels of 0.5 x 1 x 2.5 mm, but"),
    ],
)
def test_models_that_do_not_fit_together_are_rejected_by_name_before_any_work(
    case: Path, make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    models = [make_run("first", 1), make_run("fits", 2), make_run("other", 3, **changes)]
    for model in models:
        (model / "model.safetensors").write_bytes(b"")  # none is read
    options = [word for model in models for word in ("--model", model)]
    done = ccsd_here("predict", case, tmp_path / "out", *options)

    assert done.returncode == 2
    for expected in (words, "made/other", "made/first", "choose models that fit together, or use only one --model"):
        assert expected in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_same_model_twice_is_rejected(case: Path, runs: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[0], tmp_path / "copy"))
    with pytest.raises(UsageError, match=r"made/a is given twice; give each model once"):
        list(predict([case], tmp_path / "out", [*runs, runs[0]]))
    with pytest.raises(UsageError, match=r"copy and .*made/a have the same weights"):
        list(predict([case], tmp_path / "out", [*runs, copy]))


def test_a_run_of_several_that_cannot_be_used_is_named(case: Path, runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing: not a finished run"):
        list(predict([case], tmp_path / "out", [*runs, tmp_path / "nothing"]))
    (runs[1] / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"made/b/model.safetensors: not a complete safetensors file"):
        list(predict([case], tmp_path / "out", runs))
    record = json.loads((runs[2] / "run.json").read_text())
    (runs[2] / "run.json").write_text(json.dumps({**record, "spacing_mm": None}))
    with pytest.raises(UsageError, match=r"made/c/run.json: spacing_mm is missing"):
        list(predict([case], tmp_path / "out", runs))
