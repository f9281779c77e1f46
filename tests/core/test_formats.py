"""Formats are told by content: by what each library really writes, under whatever name."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.core.artifact.formats import detect, select
from modelstacks.core.artifact.sniffing import FORMATS, sniff
from modelstacks.core.errors import UsageError

ARTIFACTS = Path(__file__).parents[2] / "model_artifacts"


def xgboost_file(path: Path, suffix: str) -> None:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(ARTIFACTS / "churn-xgboost/model.json")
    booster.save_model(path.with_suffix(suffix))
    path.with_suffix(suffix).rename(path)


def copy_of(artifact: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes((ARTIFACTS / artifact).read_bytes())


def joblib_file(path: Path, compress: int) -> None:
    import joblib
    import numpy as np

    joblib.dump({"weights": np.arange(50.0)}, path, compress=compress)


def safetensors_file(path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((2, 3), np.float32)}, path)


def zip_of(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"\x80\x04N.")

    return write


def numpy_file(path: Path, values: list[object]) -> None:
    import numpy as np

    array = np.array(values, dtype=object)
    with path.open("wb") as out:
        np.save(out, array) if path.suffix == ".npy" else np.savez(out, a=np.zeros(3), b=array)


def torch_before_1_6(path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


# A SavedModel of schema version 1 with one MetaGraphDef, which has a meta_info_def and a graph_def.
SAVED_MODEL = b"\x08\x01\x12\x0b\x0a\x07\x22\x05serve\x12\x00"
PMML = """<?xml version="1.0" encoding="UTF-8"?>
<!-- made by <sklearn2pmml> --><!DOCTYPE PMML>
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/></PMML>
"""

WRITERS: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "xgboost.json": ("XGBoost JSON", lambda path: xgboost_file(path, ".json")),
    "xgboost.ubj": ("XGBoost UBJSON", lambda path: xgboost_file(path, ".ubj")),
    "lightgbm.txt": ("LightGBM text", copy_of("breast-cancer-lightgbm/model.txt")),
    "model.skops": ("skops", copy_of("wine-kmeans/model.skops")),
    "model.onnx": ("ONNX", copy_of("digits-onnx/model.onnx")),
    "model.safetensors": ("safetensors", safetensors_file),
    "model.pkl": ("pickle", lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=2))),
    "ancient.pkl": ("pickle", lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=0))),
    "model.joblib": ("pickle", lambda path: joblib_file(path, 0)),
    "compressed.joblib": ("pickle", lambda path: joblib_file(path, 3)),
    "pytorch_model.bin": ("PyTorch pickle", zip_of("archive/data.pkl", "archive/version")),
    "model.keras": ("Keras", zip_of("config.json", "model.weights.h5")),
    "saved_model.pb": ("TensorFlow SavedModel", lambda path: path.write_bytes(SAVED_MODEL)),
    "saved_model.pbtxt": (
        "TensorFlow SavedModel",
        lambda path: path.write_text("saved_model_schema_version: 1\nmeta_graphs {\n}\n"),
    ),
    "model.tflite": ("TensorFlow Lite", lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))),
    "model.ort": ("ONNX Runtime (ORT)", lambda path: path.write_bytes(b"\x1c\0\0\0ORTM" + bytes(64))),
    "model.pmml": ("PMML", lambda path: path.write_text(PMML)),
    "wide.pmml": ("PMML", lambda path: path.write_text(PMML, encoding="utf-16")),
    "prefixed.pmml": ("PMML", lambda path: path.write_text("<p:PMML xmlns:p='x'/>")),
    "script.pt": ("TorchScript", zip_of("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py")),
    "objects.npy": ("NumPy array of objects", lambda path: numpy_file(path, ["a", None])),
    "objects.npz": ("NumPy array of objects", lambda path: numpy_file(path, ["a", None])),
    "legacy.pt": ("PyTorch pickle", torch_before_1_6),
    "model.gguf": ("GGUF", lambda path: path.write_bytes(b"GGUF\x03\0\0\0")),
    "model.h5": ("HDF5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))),
    "model.cbm": ("CatBoost", lambda path: path.write_bytes(b"CBM1" + bytes(64))),
    "old.model": ("XGBoost binary", lambda path: path.write_bytes(b"binf" + bytes(64))),
    "lfs.onnx": (
        "Git LFS pointer",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    for name, (_, write) in WRITERS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_library_writes_is_known_by_its_bytes(name: str, written: Path) -> None:
    kind = sniff(written / name)
    assert kind is not None
    assert kind.name == WRITERS[name][0]


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"ancient.pkl", "compressed.joblib"}))
def test_another_name_hides_nothing(name: str, written: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "model.json"
    disguised.write_bytes((written / name).read_bytes())
    kind = sniff(disguised)
    assert kind is not None
    assert kind.name == WRITERS[name][0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"inputs": []}',
        b"PK\x03\x04 broken",
        b"\x08",
        b"\x08\x07",
        b"a,b\n1,2\n",
        b"\x93NUMPY\x01\0",
        b"%PDF-1.7",
        b"<html><PMML/></html>",
        b"<!---->" * 2000,
        b"\x08\x02\x12\x00",
        b"\x08\x01\x12\x04name",
    ],
)
def test_what_is_no_model_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    assert sniff(path) is None


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=120))
def test_any_bytes_have_a_format_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dat"
    path.write_bytes(content)
    assert sniff(path) in {*FORMATS.values(), None}


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 400), flip=st.integers(0, 255))
def test_a_damaged_onnx_file_never_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    content = bytearray((ARTIFACTS / "digits-onnx/model.onnx").read_bytes())
    content[cut] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.dat"
    path.write_bytes(content[: max(cut, 1)] if flip % 2 else content)
    assert sniff(path) in {*FORMATS.values(), None}


@pytest.mark.parametrize(
    ("folder", "engine", "files"),
    [
        ("churn-xgboost", "xgboost", ["model.json", "signature.json"]),
        ("diabetes-sklearn", "sklearn", ["model.skops", "signature.json"]),
        ("digits-onnx", "onnx", ["model.onnx", "signature.json"]),
        ("breast-cancer-lightgbm", "lightgbm", ["model.txt", "signature.json"]),
    ],
)
def test_training_data_and_readmes_beside_a_model_are_no_part_of_it(
    folder: str, engine: str, files: list[str]
) -> None:
    detected, chosen = select(ARTIFACTS / folder)
    assert (detected.engine, chosen) == (engine, files)


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Callable[..., Path]:
    """A folder with copies of the written files, and text files: `folder("model.onnx", notes="text")`."""

    def make(*names: str, **texts: str) -> Path:
        for name in names:
            source, _, target = name.partition("=")
            path = tmp_path / (target or source)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((written / source).read_bytes())
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


BERT = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]})


def test_of_several_forms_of_the_same_weights_the_served_one_is_taken(folder: Callable[..., Path]) -> None:
    made = folder(
        "model.onnx", "model.safetensors", "pytorch_model.bin",
        config_dot_json=BERT, tokenizer_dot_json="{}", README_dot_md="# hi", training__notes_dot_txt="x",
    )  # fmt: skip
    detected, chosen = select(made)
    assert detected.engine == "transformers"
    assert detected.pickles == ()
    assert chosen == ["config.json", "model.onnx", "tokenizer.json"]


def test_pytorch_weights_are_pickles(folder: Callable[..., Path]) -> None:
    detected = detect(folder("pytorch_model.bin", config_dot_json=BERT))
    assert (detected.engine, detected.pickles) == ("transformers", ("pytorch_model.bin",))


def test_a_folder_with_a_script_is_taken_whole(folder: Callable[..., Path]) -> None:
    made = folder(
        "model.joblib", "model.cbm", code__inference_dot_py="def model_fn(d): ...", vocabulary_dot_csv="a,b"
    )
    detected, chosen = select(made)
    assert detected.engine == "script"
    assert detected.pickles == ("model.joblib",)
    assert chosen == ["code/inference.py", "model.cbm", "model.joblib", "vocabulary.csv"]


def test_hidden_files_and_caches_are_never_part_of_a_model(folder: Callable[..., Path]) -> None:
    made = folder(
        "model.onnx=.git/model.onnx",
        "model.onnx=code/__pycache__/x.pyc",
        inference_dot_py="pass",
        _dot_env="SECRET=1",
    )
    assert select(made)[1] == ["inference.py"]


def test_include_says_which_of_two_models_is_meant(folder: Callable[..., Path]) -> None:
    made = folder("model.onnx=new.onnx", "model.onnx=old.onnx")
    detected, chosen = select(made, ["new.*"])
    assert (detected.engine, chosen) == ("onnx", ["new.onnx"])


@pytest.mark.parametrize(
    ("names", "texts", "message"),
    [
        (
            (),
            {"notes_dot_txt": "hello"},
            (
                "m has no model that can be identified; got notes.txt; allowed: XGBoost JSON, "
                "XGBoost UBJSON, "
                "LightGBM text, skops, pickle, ONNX, safetensors, PyTorch pickle, a "
                "transformers folder, or an inference.py"
            ),
        ),
        (
            ("model.onnx", "xgboost.json"),
            {},
            (
                "m holds 2 models; only one can be served; "
                "got model.onnx (ONNX), xgboost.json (XGBoost JSON); "
                "fix: name the one in the spec's model.include, or give each a folder of its own"
            ),
        ),
        (
            ("model.gguf",),
            {},
            (
                "m: model.gguf is GGUF, which no engine here serves; fix: export the model to ONNX "
                "or safetensors"
            ),
        ),
        (
            ("lfs.onnx",),
            {},
            "m: lfs.onnx is a Git LFS pointer, not the model; fix: fetch the real file: git lfs pull",
        ),
        (
            ("model.onnx=v1/model.onnx",),
            {},
            (
                "m: the model is in a sub-folder, v1/model.onnx; fix: make v1 itself the model's folder, "
                "or the archive's root"
            ),
        ),
        (
            ("model.safetensors",),
            {},
            (
                "m: found weights but no config.json to identify the network; got model.safetensors; fix: "
                "for a transformers model, add the config.json and tokenizer that save_pretrained writes; "
                "export any other network to ONNX (torch.onnx.export). An inference.py cannot load it: "
                "PyTorch is not installed where scripts run"
            ),
        ),
        (
            (),
            {"config_dot_json": BERT},
            (
                "m has a transformers config.json but no weights; got config.json; "
                "allowed: *.safetensors, *.onnx, or pytorch_model.bin with trust_code: true"
            ),
        ),
    ],
    ids=["nothing", "two models", "no engine", "git lfs", "sub-folder", "bare weights", "no weights"],
)
def test_what_cannot_be_served_is_refused_with_what_was_found(
    names: tuple[str, ...], texts: dict[str, str], message: str, folder: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError) as refused:
        detect(folder(*names, **texts), where="m")
    assert str(refused.value) == message


def test_a_pattern_that_matches_nothing_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r'm: nothing matches model.include "\*.ubj"; got model.onnx'):
        select(folder("model.onnx"), ["*.onnx", "*.ubj"], where="m")


def onnx_with_data(folder: Path, location: str, nested: bool = False) -> None:
    """A graph whose tensor is in a file of its own, as `onnx` writes it; or one inside a node's own graph."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="8")
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "inner", [], [], [weight])
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], "outer", [], []
    )
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(helper.make_model(outer if nested else inner).SerializeToString())
    assert onnx.load(folder / "model.onnx", load_external_data=False).graph.node


@pytest.mark.parametrize("nested", [False, True])
def test_the_files_that_a_graph_keeps_its_tensors_in_are_part_of_it(nested: bool, tmp_path: Path) -> None:
    onnx_with_data(tmp_path, "weights.bin", nested)
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    (tmp_path / "notes.onnx_data").write_bytes(b"not named by the graph")
    assert select(tmp_path)[1] == ["model.onnx", "weights.bin"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/hostname", "a/../../secret", "*/_ORT_MEM_ADDR_/*", "C:/secret", "a\\b", ""],
)
def test_a_graph_that_refers_to_a_file_outside_its_folder_is_refused(
    location: str, nested: bool, tmp_path: Path
) -> None:
    onnx_with_data(tmp_path / "m", location, nested)
    (tmp_path / "secret").write_bytes(bytes(8))
    with pytest.raises(UsageError) as refused:
        detect(tmp_path / "m", where="m")
    assert str(refused.value).startswith(
        f"m: model.onnx keeps tensors in a file outside the model's folder; got {location!a}; allowed: "
    )


def test_a_graph_whose_data_is_missing_is_refused(tmp_path: Path) -> None:
    onnx_with_data(tmp_path, "weights.bin")
    with pytest.raises(UsageError, match=r"m: model.onnx keeps tensors in weights.bin, which is not there"):
        detect(tmp_path, where="m")


def test_a_folder_that_tensorflow_saved_is_refused_with_what_to_do(folder: Callable[..., Path]) -> None:
    made = folder("saved_model.pb", "model.pkl=variables/variables.data-00000-of-00001")
    with pytest.raises(UsageError) as refused:
        detect(made, where="m")
    assert str(refused.value) == (
        "m: saved_model.pb is TensorFlow SavedModel, which no engine here serves; fix: convert it to ONNX: "
        "python -m tf2onnx.convert --saved-model DIR --output model.onnx"
    )


MLFLOW = """\
flavors:
  python_function:
    loader_module: mlflow.{name}
    data: {file}
    model_path: {file}
  {name}:
    data: {file}
    pickled_model: {file}
    {name}_version: 1.2.3
mlflow_version: 3.17.2
"""


@pytest.mark.parametrize(
    ("name", "file", "fix"),
    [
        (
            "xgboost",
            "xgboost.ubj",
            (
                "to serve xgboost.ubj (XGBoost UBJSON) alone, in the xgboost engine, set model.include: "
                "[xgboost.ubj]; MLflow's signature"
            ),
        ),
        (
            "sklearn",
            "model.pkl",
            (
                "to serve model.pkl (pickle) alone, in the sklearn engine, set model.include: [model.pkl] "
                "and model.trust_code: true; MLflow's signature"
            ),
        ),
        ("tensorflow", "model.h5", "export the model to ONNX, or save it in its library's own format"),
    ],
)
def test_an_mlflow_folder_is_recognised_and_its_pickle_is_not_taken(
    name: str, file: str, fix: str, folder: Callable[..., Path]
) -> None:
    made = folder(file, MLmodel=MLFLOW.format(name=name, file=file), requirements_dot_txt="mlflow")
    with pytest.raises(UsageError) as refused:
        detect(made, where="m")
    assert str(refused.value).startswith(
        f"m is an MLflow model, which is not loaded as MLflow does; got MLmodel with the flavours "
        f"{name} 1.2.3; fix: {fix}"
    )


def test_the_file_of_an_mlflow_folder_can_be_named(folder: Callable[..., Path]) -> None:
    made = folder("xgboost.ubj", MLmodel=MLFLOW.format(name="xgboost", file="xgboost.ubj"))
    detected, chosen = select(made, ["xgboost.ubj"])
    assert (detected.engine, chosen) == ("xgboost", ["xgboost.ubj"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "flavors: []",
        "flavors: {sklearn: 1}",
        "a: [" * 5000,
        'flavors: {"\\e[2J": {}}',
        "\x00",
    ],
    ids=ascii,
)
def test_any_mlmodel_file_is_refused_in_plain_words(text: str, folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"m is an MLflow model.*flavours none") as refused:
        detect(folder("model.pkl", MLmodel=text), where="m")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("dtype", ["f8", "U3", "M8[ns]", [("a", "i4"), ("Other", "S2")]])
def test_arrays_without_objects_are_data(dtype: Any, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros(3, dtype))
    np.savez(tmp_path / "a.npz", a=np.zeros(3, dtype))
    assert sniff(tmp_path / "a.npy") is None
    assert sniff(tmp_path / "a.npz") is None
    np.save(tmp_path / "o.npy", np.zeros(3, [("a", "i4"), ("b", "O")]))
    kind = sniff(tmp_path / "o.npy")
    assert kind is not None
    assert kind.pickle
