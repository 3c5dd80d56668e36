"""Preprocessing, networks, and how a model is stored and exported."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from lepton_lib.cases import load_case
from lepton_lib.errors import DataError, ParameterError
from lepton_lib.models import (
    MLP,
    Ensemble,
    LinearModel,
    Preprocessor,
    build_model,
    export_onnx,
    load_model,
    save_model,
)
from lepton_lib.models.networks import mean_outputs
from lepton_lib.models.preprocessing import CLIP
from lepton_lib.models.trees import Trees, grow_trees

CASES = {"binary": "credit", "multiclass": "credit_tiers", "regression": "traffic"}
KINDS = ("linear", "mlp", "ensemble", "trees", "blend")


def raw_rows(case, n=300, seed=0, missing=0.1):
    """Raw inputs as `encode` lays them out, made up: numbers, category indices and gaps."""
    generator = np.random.default_rng(seed)
    columns = [
        generator.integers(field.n_categories, size=n)
        if field.n_categories
        else generator.lognormal(3, 1, size=n)
        for field in case.fields
    ]
    rows = np.column_stack(columns).astype(np.float32)
    rows[generator.random(rows.shape) < missing] = np.nan
    return rows


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """One case of each task."""
    return load_case(CASES[request.param])


def some_model(case, kind="ensemble", seed=0, **options):
    """A model with fresh weights or grown trees, fitted preprocessing and a temperature."""
    torch.manual_seed(seed)
    rows = raw_rows(case)
    model = build_model(case, rows, 100 + np.arange(len(rows)), kind=kind, **options)
    if kind in ("trees", "blend"):
        encoded = model.preprocessor(torch.tensor(rows)).numpy()
        labels = np.arange(len(rows)) % max(len(case.classes), 2)
        labels = labels if case.classes else labels.astype(np.float32)
        start = encoded.shape[1] - model.preprocessor.n_raw - len(model.preprocessor.level)
        trees, _ = grow_trees(
            encoded,
            labels,
            np.arange(len(rows)) // 100,
            output_size=case.n_outputs,
            offset=start,
            seed=seed,
        )
        if kind == "trees":
            model.network = trees
        else:
            model.network.trees = trees
    model.temperature.fill_(1.0 if case.task == "regression" else 1.3)
    return model.eval()


# Preprocessing


def test_missing_becomes_the_training_median_with_a_flag():
    """A gap becomes the training median, with a flag where training rows had gaps as well."""
    preprocessor = Preprocessor([("a", 0), ("b", 0)], encoding="standard")
    preprocessor.fit(np.array([[1, 5], [2, 6], [9, 7], [np.nan, 8], [np.nan, 9]]))
    filled, given = preprocessor(torch.tensor([[torch.nan, torch.nan], [2.0, 7.0]]))
    assert torch.equal(filled[:2], given[:2])
    assert preprocessor.output_names() == ["a", "b", "a missing"]
    assert (filled[2], given[2]) == (1, 0)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_is_missing(value):
    """An infinite number, in training or later, is treated as a gap and spoils no statistic."""
    preprocessor = Preprocessor([("a", 0)]).fit(np.array([[1.0], [2.0], [3.0], [value]]))
    assert preprocessor.mean.item() == 2
    assert torch.equal(
        preprocessor(torch.tensor([[value]])), preprocessor(torch.tensor([[torch.nan]]))
    )


def test_statistics_are_of_the_rows_given():
    """What fit learns depends on the rows given to it alone; encoding others changes nothing."""
    rows = np.random.default_rng(0).normal(5, 2, size=(100, 1))
    preprocessor = Preprocessor([("a", 0)], encoding="standard").fit(rows)
    before = {name: tensor.clone() for name, tensor in preprocessor.state_dict().items()}
    encoded = preprocessor(torch.tensor(rows, dtype=torch.float32))
    preprocessor(torch.full((10, 1), 1e6))
    np.testing.assert_allclose(
        encoded.numpy(), ((rows - rows.mean()) / rows.std()).clip(-CLIP, CLIP), atol=1e-5
    )
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in preprocessor.state_dict().items()
    )


def test_far_values_are_clipped():
    """A number far outside the training rows is clipped at five deviations."""
    preprocessor = Preprocessor([("a", 0)], encoding="standard").fit(np.array([[-1.0], [1.0]]))
    assert preprocessor(torch.tensor([[1e30], [-1e30]])).flatten().tolist() == [CLIP, -CLIP]


def test_piecewise_encoding_is_the_formula():
    """Each bin's column is the clipped fraction of the bin below x, as numpy computes it."""
    rows = np.random.default_rng(0).exponential(size=(500, 1)).astype(np.float32)
    preprocessor = Preprocessor([("a", 0)], n_bins=7).fit(rows)
    values = np.linspace(-1, 9, 300, dtype=np.float32)[:, None]
    edges = np.quantile(rows.astype(np.float64), np.linspace(0, 1, 8))
    expected = np.clip((values - edges[:-1]) / np.diff(edges), 0, 1)
    bins = preprocessor(torch.tensor(values))[:, 1:].numpy()
    np.testing.assert_allclose(bins, expected, atol=1e-5)
    assert (np.diff(bins, axis=0) >= 0).all()


def test_repeated_quantiles_are_merged():
    """A number that is mostly one value has fewer bins, a constant none; each is named."""
    rows = np.column_stack([[0] * 90 + list(range(1, 11)), [7.0] * 100])
    preprocessor = Preprocessor([("a", 0), ("b", 0)], n_bins=10).fit(rows)
    names = preprocessor.output_names()
    bins = [name for name in names if name.startswith("a bin")]
    assert 1 <= len(bins) < 10
    assert bins == [f"a bin {k + 1}" for k in range(len(bins))]
    assert not any(name.startswith("b bin") for name in names)
    assert (
        len(names)
        == preprocessor.output_size
        == preprocessor(torch.tensor(rows, dtype=torch.float32)).shape[1]
    )


def test_categories_are_one_hot_and_unknown_ones_nothing():
    """A category is one-hot; a gap, an index beyond the list, or one below it is all zeros."""
    preprocessor = Preprocessor([("c", 3)]).fit(np.array([[0.0], [1.0]]))
    encoded = preprocessor(torch.tensor([[0.0], [2.0], [torch.nan], [3.0], [-1.0]]))
    assert encoded.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert preprocessor.output_names() == ["c = 0", "c = 1", "c = 2"]


def test_features_are_computed_by_their_formulas():
    """A feature is its formula of the raw columns, and a division by nought counts as missing."""
    preprocessor = Preprocessor([("a", 0), ("b", 0)], [("share", "a / b")], encoding="standard")
    numbers = preprocessor.numbers(torch.tensor([[1.0, 4.0], [3.0, 0.0]]))
    assert numbers[0].tolist() == [1, 4, 0.25]
    preprocessor.fit(np.array([[1.0, 4.0], [3.0, 4.0], [3.0, 0.0]]))
    assert preprocessor.output_names()[-1] == "share missing"
    assert preprocessor(torch.tensor([[3.0, 0.0]])).isfinite().all()


@pytest.mark.parametrize("encoding", ["standard", "piecewise"])
def test_nothing_encodes_as_nan(case, encoding):
    """Gaps, infinities and the largest numbers come out as finite numbers, in every case."""
    preprocessor = Preprocessor.for_case(case, encoding=encoding).fit(raw_rows(case))
    extremes = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1e-45]
    rows = np.array([[value] * len(case.fields) for value in extremes], dtype=np.float32)
    assert preprocessor(torch.tensor(rows)).isfinite().all()


def test_a_column_without_any_value_is_harmless():
    """A number that no training row has becomes nought with a flag."""
    preprocessor = Preprocessor([("a", 0), ("b", 0)]).fit(np.array([[np.nan, 1.0], [np.nan, 2.0]]))
    assert preprocessor.median[0] == 0
    assert preprocessor(torch.tensor([[5.0, 1.0]])).isfinite().all()


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (4,), (0, 2)])
def test_fit_refuses_other_shapes(shape):
    """Rows of another width, or none, are refused."""
    with pytest.raises(DataError, match=r"got (an array of shape|no row)"):
        Preprocessor([("a", 0), ("b", 0)]).fit(np.zeros(shape))


@pytest.mark.parametrize("options", [{"encoding": "other"}, {"n_bins": 0}])
def test_unknown_encodings_are_refused(options):
    """An encoding that there isn't, or no bin at all, is refused by name."""
    with pytest.raises(ParameterError, match=f"^{next(iter(options))}: got"):
        Preprocessor([("a", 0)], **options)


def test_state_of_another_fit_is_loaded_whole():
    """A preprocessor takes the state of one fitted on other rows, with more bins and flags."""
    fitted = Preprocessor([("a", 0), ("c", 2)]).fit(
        np.array([[1.0, 0], [2.0, 1], [np.nan, 0], [5.0, 1]])
    )
    other = Preprocessor([("a", 0), ("c", 2)]).fit(np.array([[3.0, 0], [3.0, 1]]))
    other.load_state_dict(fitted.state_dict())
    rows = torch.tensor([[1.5, 1.0], [torch.nan, 0.0]])
    assert torch.equal(other(rows), fitted(rows))
    assert other.output_size == fitted.output_size


def test_bins_and_scale_are_of_the_values_observed():
    """Where nearly all values are missing, mean, scale and bins are those of the others alone."""
    observed = np.random.default_rng(0).exponential(size=(50, 1))
    gaps = np.full((450, 1), np.nan)
    whole = Preprocessor([("a", 0)]).fit(observed)
    sparse = Preprocessor([("a", 0)]).fit(np.concatenate([observed, gaps]))
    for name in ("mean", "scale", "bin_start", "bin_width"):
        torch.testing.assert_close(getattr(sparse, name), getattr(whole, name))
    assert len(sparse.bin_start) == 12


def test_numbers_are_kept_raw_for_trees():
    """With keep_raw the numbers stand at the end as they came, NaN where missing or infinite."""
    preprocessor = Preprocessor([("a", 0), ("c", 2)], encoding="standard", keep_raw=True)
    preprocessor.fit(np.array([[1.0, 0], [3.0, 1]]))
    encoded = preprocessor(torch.tensor([[1e30, 1.0], [torch.inf, 0.0]]))
    assert preprocessor.output_names() == ["a", "c = 0", "c = 1", "a raw"]
    assert encoded.shape[1] == preprocessor.output_size
    assert encoded[0, -1] == torch.tensor(1e30)
    assert encoded[1, -1].isnan()


# Networks


def test_an_ensemble_is_the_mean_of_its_members():
    """In evaluation the probabilities, or predictions, are the mean of the members'."""
    inputs = torch.randn(20, 5)
    for size in (1, 3):
        ensemble = Ensemble(5, size, n_members=4).eval()
        members = ensemble.members(inputs)
        if size == 1:
            torch.testing.assert_close(ensemble(inputs).sigmoid(), members.sigmoid().mean(0))
        else:
            torch.testing.assert_close(ensemble(inputs).softmax(-1), members.softmax(-1).mean(0))
    ensemble = Ensemble(5, 1, n_members=4, regression=True).eval()
    torch.testing.assert_close(ensemble(inputs), ensemble.members(inputs).mean(0))


def test_an_ensemble_keeps_small_probabilities():
    """Logits far out don't become infinite when the members are averaged."""
    ensemble = Ensemble(1, 1, n_members=2, dropout=0.0).eval()
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
        ensemble.output_bias.copy_(torch.tensor([[[200.0]], [[100.0]]]))
    assert ensemble(torch.zeros(1, 1)).item() == pytest.approx(100 + math.log(2), abs=1e-3)


def test_members_answer_for_themselves_in_training():
    """In training each member's logits come out; dropout and first weights differ."""
    ensemble = Ensemble(5, 2, n_members=3, dropout=0.5).train()
    outputs = ensemble(torch.randn(7, 5))
    assert outputs.shape == (3, 7, 2)
    assert not torch.allclose(ensemble.hidden_weight[0], ensemble.hidden_weight[1])


def test_an_ensemble_of_one_is_an_mlp():
    """One member computes what an MLP with its weights computes."""
    ensemble, mlp = (
        Ensemble(4, 3, n_members=1, hidden_size=8).eval(),
        MLP(4, 3, hidden_size=8).eval(),
    )
    with torch.no_grad():
        mlp.layers[0].weight.copy_(ensemble.hidden_weight[0].T)
        mlp.layers[0].bias.copy_(ensemble.hidden_bias[0, 0])
        mlp.layers[-1].weight.copy_(ensemble.output_weight[0].T)
        mlp.layers[-1].bias.copy_(ensemble.output_bias[0, 0])
    inputs = torch.randn(9, 4)
    torch.testing.assert_close(ensemble(inputs), mlp(inputs).log_softmax(-1), rtol=1e-5, atol=1e-6)


def test_an_mlp_has_its_layers():
    """Layers and widths are those asked for, and dropout rests in evaluation."""
    mlp = MLP(4, 2, hidden_size=8, n_layers=3).eval()
    assert [tuple(p.shape) for p in mlp.parameters() if p.ndim == 2] == [
        (8, 4),
        (8, 8),
        (8, 8),
        (2, 8),
    ]
    inputs = torch.randn(5, 4)
    assert torch.equal(mlp(inputs), mlp(inputs))
    assert LinearModel(input_size=4, output_size=2)(inputs).shape == (5, 2)


def test_means_are_weighted():
    """Probabilities, or predictions, are weighted; a model of weight 0 changes nothing."""
    outputs, weights = torch.randn(3, 5, 2), torch.tensor([0.7, 0.3, 0.0])[:, None, None]
    mean = mean_outputs(outputs, weights, regression=False).softmax(-1)
    torch.testing.assert_close(mean, (weights * outputs.softmax(-1)).sum(0))
    mean = mean_outputs(outputs[..., :1], weights, regression=False).sigmoid()
    torch.testing.assert_close(mean, (weights * outputs[..., :1].sigmoid()).sum(0))
    mean = mean_outputs(outputs, weights, regression=True)
    torch.testing.assert_close(mean, (weights * outputs).sum(0))


def test_an_ensemble_may_be_deeper():
    """Inner layers have weights of their own for every member."""
    ensemble = Ensemble(4, 2, n_members=3, hidden_size=8, n_layers=3).eval()
    assert [tuple(weight.shape) for weight in ensemble.inner_weight] == [(3, 8, 8)] * 2
    assert ensemble(torch.randn(5, 4)).shape == (5, 2)


# Trees


def boosted(labels, inputs, *, regression=False):
    """A booster of scikit-learn, some rows held out."""
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    booster = kind(max_iter=15, early_stopping=True, scoring="loss", random_state=0)
    return booster.fit(inputs[50:], labels[50:], X_val=inputs[:50], y_val=labels[:50])


@pytest.mark.parametrize("task", ["binary", "three classes", "regression"])
def test_trees_answer_as_scikit_learn_does(task):
    """Trees as tensors answer as the booster they came from, also on its thresholds and gaps."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(300, 3)).astype(np.float32)
    inputs[generator.random(inputs.shape) < 0.2] = np.nan
    signal = np.nan_to_num(inputs[:, 0]) + (np.nan_to_num(inputs[:, 1]) > 0)
    labels = {
        "binary": (signal > 0).astype(int),
        "three classes": np.digitize(signal, [0, 1]),
        "regression": signal,
    }[task]
    booster = boosted(labels, inputs, regression=task == "regression")
    booster._predictors = booster._predictors[: np.argmax(booster.validation_score_)]
    trees = Trees.from_boosters([booster], 3 if task == "three classes" else 1)
    edges = trees.numbers[0][trees.numbers[0] != 0]
    rows = torch.cat([torch.tensor(inputs), edges[:, None].expand(-1, 3)])
    expected = booster._raw_predict(rows.double().numpy())
    np.testing.assert_allclose(trees(rows).numpy(), expected, atol=15 * 2**-15)


def test_the_order_of_trees_does_not_matter():
    """Leaves are multiples of one number, so sums are exact in any order of the trees."""
    inputs = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    trees = Trees.from_boosters([boosted((inputs[:, 0] > 0).astype(int), inputs)], 1)
    answers = trees(torch.tensor(inputs))
    trees.trees = trees.trees.flip(1)
    assert torch.equal(trees(torch.tensor(inputs)), answers)


# Models of a case


@pytest.mark.parametrize("kind", KINDS)
def test_raw_records_give_probabilities(case, kind):
    """Raw rows with gaps give one finite row each: probabilities of sum one, or a number."""
    model = some_model(case, kind)
    answers = model.predict(raw_rows(case, n=50, seed=1))
    assert answers.shape == (50, max(len(case.classes), 1))
    assert answers.dtype == np.float64
    assert np.isfinite(answers).all()
    if case.classes:
        np.testing.assert_allclose(answers.sum(1), 1, atol=1e-6)


def test_prediction_leaves_the_model_as_it_was(case):
    """Prediction rests dropout and restores the mode; float64 and read-only rows are taken."""
    model = some_model(case, "mlp").train()
    rows = raw_rows(case, n=20)
    first = model.predict(rows)
    rows.flags.writeable = False
    np.testing.assert_array_equal(first, model.predict(rows))
    np.testing.assert_array_equal(first, model.predict(rows.astype(np.float64)))
    np.testing.assert_array_equal(first, model.predict(torch.tensor(rows)))
    assert model.training


def test_rows_of_another_width_are_refused(case):
    """A row with a column too many is refused, not silently cut."""
    with pytest.raises(DataError, match="got an array of shape"):
        some_model(case).predict(np.zeros((2, len(case.fields) + 1)))


def test_regression_speaks_the_targets_unit():
    """A fresh regression model answers near the training targets' mean, in their unit."""
    model = some_model(load_case("traffic"), "linear")
    assert model.target_mean.item() == pytest.approx(100 + 149.5)
    assert (
        abs(model.predict(raw_rows(load_case("traffic"))).mean() - 249.5) < 3 * model.target_scale
    )


def test_unknown_kinds_are_refused(case):
    """A kind of network that there isn't is refused with the list of those that there are."""
    with pytest.raises(DataError, match="linear, mlp, ensemble, trees, blend"):
        some_model(case, "forest")


@pytest.mark.parametrize("encoding", ["standard", "piecewise"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_model_answers_the_same(case, kind, encoding, tmp_path):
    """A model that was saved and loaded answers bit for bit the same, in evaluation mode."""
    model = some_model(case, kind, encoding=encoding)
    files = {"weights": tmp_path / "m.safetensors", "config": tmp_path / "m.json"}
    save_model(model, **files)
    loaded = load_model(**files)
    rows = raw_rows(case, seed=2)
    np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))
    assert not loaded.training
    save_model(loaded, **files)  # and again
    np.testing.assert_array_equal(load_model(**files).predict(rows), model.predict(rows))


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in KINDS), ("ensemble", {"n_layers": 3}), ("blend", {"n_layers": 2})],
)
def test_onnx_answers_the_same(case, kind, options, tmp_path):
    """The exported graph answers within 1e-6 of the model, for any number of rows."""
    import onnxruntime

    model = some_model(case, kind, **options).train()
    export_onnx(model, tmp_path / "m.onnx")
    assert model.training  # the caller's model stays in its mode
    session = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    for n in (1, 2, 7, 300):
        rows = raw_rows(case, n=n, seed=n)
        rows[0], rows[-1, ::2] = np.nan, np.inf
        (answers,) = session.run(["probabilities"], {"records": rows})
        np.testing.assert_allclose(answers, model.predict(rows), rtol=1e-6, atol=1e-6)


def test_the_graph_multiplies_once_for_all_members(tmp_path):
    """The exported ensemble has one large product, and gathers no columns but the raw numbers."""
    export_onnx(some_model(load_case("credit"), "ensemble"), tmp_path / "m.onnx")
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    assert [node.op_type for node in nodes].count("Gemm") == 1
    assert {node.input[0] for node in nodes if node.op_type == "Gather"} == {"records"}
    assert not {node.op_type for node in nodes} & {"Expand", "ReduceLogSumExp"}


def test_onnx_names_no_path_of_this_machine(tmp_path):
    """The exported file holds no path and no line of source of the machine that wrote it."""
    export_onnx(some_model(load_case("credit")), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    for trace in (
        sys.prefix,
        str(tmp_path),
        "site-packages",
        "lepton_lib/",
        ".py",
        'File "',
        "/home",
        "/usr",
    ):
        assert trace.encode() not in content


def stored(tmp_path):
    files = {"weights": tmp_path / "m.safetensors", "config": tmp_path / "m.json"}
    save_model(some_model(load_case("heart"), "linear"), **files)
    return files


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.999])
def test_a_flipped_bit_is_refused(tmp_path, place):
    """One flipped bit anywhere in the weights is noticed, which safetensors alone doesn't do."""
    files = stored(tmp_path)
    content = bytearray(files["weights"].read_bytes())
    content[int(place * len(content))] ^= 1
    files["weights"].write_bytes(content)
    with pytest.raises(DataError, match="make no model"):
        load_model(**files)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"{}", b'"text"', b"\xff\xfe"])
@pytest.mark.parametrize("which", ["weights", "config"])
def test_foreign_files_are_refused(tmp_path, which, content):
    """Empty, foreign and half-written files are refused, whichever of the two it is."""
    files = stored(tmp_path)
    files[which].write_bytes(content)
    with pytest.raises(DataError, match="make no model"):
        load_model(**files)


@pytest.mark.parametrize(
    ("where", "size"),
    [("options", {"hidden_size": 10**12}), ("options", {"n_layers": 10**9}), ("fields", 10**9)],
)
def test_sizes_beyond_the_weights_are_refused_before_anything_is_made(tmp_path, where, size):
    """A configuration that names more than the weights hold is refused, whatever its sizes."""
    files = {"weights": tmp_path / "m.safetensors", "config": tmp_path / "m.json"}
    save_model(some_model(load_case("heart"), "mlp"), **files)
    description = json.loads(files["config"].read_text())
    if where == "options":
        description["options"] = size
    else:
        description["preprocessor"]["fields"][0][1] = size
    files["config"].write_text(json.dumps(description))
    with pytest.raises(DataError, match="make no model"):
        load_model(**files)


def test_weights_of_another_model_are_refused(tmp_path):
    """Weights of another configuration are refused, and so is a file that is not there."""
    files = stored(tmp_path)
    description = json.loads(files["config"].read_text())
    for change in ({"kind": "mlp"}, {"kind": "tree"}, {"output_size": 4}, {"preprocessor": {}}):
        files["config"].write_text(json.dumps(description | change))
        with pytest.raises(DataError, match="make no model"):
            load_model(**files)
    files["config"].write_text(json.dumps(description))
    save_file({"a": torch.zeros(2)}, files["weights"])
    with pytest.raises(DataError, match="make no model"):
        load_model(**files)
    files["weights"].unlink()
    with pytest.raises(DataError, match="make no model"):
        load_model(**files)


def test_gradients_reach_the_numbers_that_are_there():
    """Through a feature with a gap the other column's gradient is 0, not NaN."""
    preprocessor = Preprocessor([("a", 0), ("b", 0)], [("share", "a / b")], encoding="standard")
    preprocessor.fit(np.array([[1.0, 4.0], [3.0, 2.0], [2.0, 5.0]]))
    raw = torch.tensor([[1.0, torch.nan], [2.0, 4.0]], requires_grad=True)
    preprocessor(raw)[:, 2].sum().backward()
    assert raw.grad[0].tolist() == [0, 0]
    assert raw.grad[1, 0].item() == pytest.approx(1 / (4 * preprocessor.scale[2].item()))


def test_trees_are_laid_out_for_onnx_node_by_node():
    """Each node is named once within its tree, and each leaf's weight is its value."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 3)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    fold = np.arange(200) % 2
    trees, _ = grow_trees(inputs, labels, fold, output_size=1, offset=0, seed=0)
    laid_out = trees.onnx_attributes()
    nodes = list(zip(laid_out["nodes_treeids"], laid_out["nodes_nodeids"], strict=True))
    assert len(set(nodes)) == len(nodes) == trees.links.shape[1]
    leaves = [mode == "LEAF" for mode in laid_out["nodes_modes"]]
    assert laid_out["target_weights"] == trees.numbers[1][torch.tensor(leaves)].tolist()
    assert laid_out["n_targets"] == 1
