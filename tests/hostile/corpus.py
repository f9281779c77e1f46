"""Hostile artifacts, each made by a few lines.

A case says what it attempts and which words its refusal must have. Whatever it is, three canaries must not
show: a file outside the model, a connection to a listener on this machine, and a secret of the environment in
any message. `test_hostile.py` locks each one for real.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARTIFACTS = Path(__file__).parents[2] / "model_artifacts"
XGBOOST = ARTIFACTS / "churn-xgboost/model.json"
ONNX = ARTIFACTS / "digits-onnx/model.onnx"
SKOPS = ARTIFACTS / "wine-kmeans/model.skops"
LIGHTGBM = ARTIFACTS / "breast-cancer-lightgbm/model.txt"
BERT = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}).encode()
TORCH, NUMPY = "pytorch_model.bin", "tables.npz"
SECRET = "hunter2-the-secret-of-the-environment"


@dataclass
class Kit:
    """Where a case builds, and what it would leave behind."""

    folder: Path  # the model's folder, in a project
    outside: Path  # a folder of somebody else's, with a file `secret`
    canary: Path  # must never exist
    port: int  # nobody must connect to it
    objects: dict[str, bytes] = field(default_factory=dict)  # of an S3 bucket, by key
    repository: dict[str, bytes] = field(default_factory=dict)  # of the hub, by path

    def write(self, path: str, content: bytes | str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    @property
    def code(self) -> str:
        """Python that leaves all three canaries, and keeps quiet about failing."""
        return (
            "import os, socket, sys\n"
            f"try: open({str(self.canary)!r}, 'w').close()\nexcept BaseException: pass\n"
            f"try: socket.create_connection(('127.0.0.1', {self.port}), 2)\nexcept BaseException: pass\n"
            "print(dict(os.environ), file=sys.stderr)\n"
        )


@dataclass(frozen=True)
class Case:
    """One artifact. `says` is empty where it is loaded, and contained, or loaded without what it hides."""

    name: str
    attempts: str
    build: Callable[[Kit], object]
    says: str = ""
    trust: bool = False
    model: str = "source: artifact, path: models/m"


def cases() -> list[Case]:
    """Every hostile artifact; names are unique."""
    found = [
        *folders(),
        *archives(),
        *listings(),
        *untrusted(),
        *calls(),
        *wrappings(),
        *readers(),
        *streams(),
        *uses(),
        *graphs(),
        *engines(),
        *contained(),
    ]
    assert len({case.name for case in found}) == len(found)
    return found


# Folders.


def folders() -> Iterator[Case]:
    def beside(build: Callable[[Kit], object]) -> Callable[[Kit], object]:
        def both(kit: Kit) -> None:
            kit.write("model.json", XGBOOST.read_bytes())
            build(kit)

        return both

    def case(name: str, attempts: str, says: str, build: Callable[[Kit], object]) -> Case:
        return Case(f"folder-{name}", attempts, beside(build), says)

    def link(name: str, target: Callable[[Kit], object]) -> Callable[[Kit], object]:
        return lambda kit: (kit.folder / name).symlink_to(str(target(kit)))

    reads = "packs a file of the system"
    out = "is a link out of the model's folder"
    yield case("link-absolute", reads, out, link("model.onnx_data", lambda kit: kit.outside / "secret"))
    yield case(
        "link-relative",
        reads,
        out,
        link("data.bin", lambda kit: os.path.relpath(kit.outside / "secret", kit.folder)),
    )
    yield case("link-passwd", reads, out, link("labels.txt", lambda _: "/etc/passwd"))
    yield case(
        "link-environ",
        "packs the environment of lock",
        out,
        link("README.md", lambda _: "/proc/self/environ"),
    )
    yield case("link-zero", "is read for ever", out, link("big.bin", lambda _: "/dev/zero"))
    yield case(
        "link-readme",
        "states a licence from elsewhere",
        out,
        link("README.md", lambda kit: kit.outside / "secret"),
    )
    yield case("link-signature", reads, out, link("signature.json", lambda kit: kit.outside / "secret"))
    yield case(
        "link-script",
        "runs a file of the system",
        out,
        link("inference.py", lambda kit: kit.outside / "secret"),
    )
    yield case("link-folder-out", "packs a folder of the system", out, link("code", lambda kit: kit.outside))
    yield case("link-folder-in", "walks in a circle", "is a link to a folder", link("loop", lambda _: "."))
    yield case("link-to-itself", "is followed for ever", "leads nowhere", link("loop", lambda _: "loop"))
    yield case("link-nowhere", "appears later", "leads nowhere", link("later", lambda _: "gone"))

    def chained(kit: Kit) -> None:
        (kit.folder / "a").symlink_to("b")
        (kit.folder / "b").symlink_to(kit.outside / "secret")

    yield case("link-chain", reads, out, chained)

    def hidden(kit: Kit) -> None:
        kit.write(".env", SECRET)
        (kit.folder / "labels.txt").symlink_to(".env")

    yield case("link-hidden", "packs a hidden file", "is a link to a hidden file", hidden)
    yield case(
        "hard-link",
        reads,
        "is a hard link",
        lambda kit: (kit.folder / "data.bin").hardlink_to(kit.outside / "secret"),
    )

    def hard_and_soft(kit: Kit) -> None:
        (kit.folder / "data.bin").hardlink_to(kit.outside / "secret")
        (kit.folder / "other.bin").symlink_to("data.bin")

    yield case("hard-link-counted-twice", reads, "is a hard link", hard_and_soft)
    yield case(
        "fifo", "waits for a writer for ever", "is a FIFO", lambda kit: os.mkfifo(kit.folder / "model.onnx")
    )

    def bound(kit: Kit) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(kit.folder)
            made.bind("s")
            os.chdir(here)

    yield case("socket", "is opened", "is a socket", bound)
    yield case(
        "many-folders",
        "keeps lock busy",
        "more than 20000 files and folders",
        lambda kit: [(kit.folder / f"d{n}").mkdir() for n in range(20_001)],
    )
    yield case(
        "deep",
        "exhausts the stack",
        "folders deep",
        lambda kit: (kit.folder / "/".join("d" * 60)).mkdir(parents=True),
    )
    names = {
        "bidi": ("model\u202enosj.py", "changes the direction"),
        "bidi-isolate": ("a\u2066b", "changes the direction"),
        "zero-width": ("mod\u200bel.bin", "invisible"),
        "tag-character": ("model\U000e0041.bin", "invisible"),
        "filler": ("\u3164.bin", "invisible"),
        "escape": ("a\x1b[2Jb", "control character"),
        "newline": ("a\nfix: none", "control character"),
        "line-separator": ("a\u2028b", "control character"),
        "decomposed": ("cafe\u0301.bin", "composed form"),
        "no-break-space": ("a\xa0b", "space other than"),
        "private-use": ("a\ue000", "does not define"),
        "not-utf8": (os.fsdecode(b"caf\xe9.bin"), "not valid UTF-8"),
        "backslash": ("a\\..\\..\\evil", "outside the model's folder"),
        "drive": ("C:evil", "outside the model's folder"),
        "stream": ("model.txt:evil", "which Windows does not allow"),
        "device-name": ("aux.bin", "name of a device"),
        "trailing-dot": ("data.bin.", "which Windows removes"),
    }
    for name, (file, says) in names.items():
        yield case(
            f"name-{name}", "reads as another name", says, lambda kit, file=file: kit.write(file, b"x")
        )
    for name, file in {"case": "MODEL.json", "compatible": "\uff4dodel.json", "sharp-s": "models"}.items():
        if name != "sharp-s":
            yield case(
                f"names-{name}",
                "replaces the model elsewhere",
                "are one name",
                lambda kit, file=file: kit.write(file, b"x"),
            )

    def elsewhere(kit: Kit) -> None:
        shutil.copy(XGBOOST, kit.outside / "model.json")
        (kit.folder.parent / "link").symlink_to(kit.outside)

    yield Case(
        "folder-is-a-link-out",
        "packs a folder of the system",
        elsewhere,
        "is a link to a target outside the project",
        model="source: artifact, path: models/link",
    )


# Archives.


def archives() -> Iterator[Case]:
    model = "source: artifact, path: models/m/model.tar.gz"

    def tar(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=form) as made:
            for member in members:
                info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
                content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
                if content:
                    info.size = len(content)
                made.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def special(name: str, kind: bytes, target: str = "", **pax: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.pax_headers = kind, target, pax
        return info

    good = ("model.json", XGBOOST.read_bytes())
    outside = "would be written outside the model's folder"
    over = tarfile.TarInfo("x")
    over.pax_headers = {"path": "../evil"}
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    contents: dict[str, tuple[str, Callable[[Kit], bytes], str]] = {
        "parent": ("writes beside itself", lambda _: tar(good, ("../evil", b"x")), outside),
        "parent-deep": ("writes beside itself", lambda _: tar(good, ("a/../../evil", b"x")), outside),
        "absolute": ("writes the canary", lambda kit: tar(good, (str(kit.canary), b"x")), outside),
        "backslash": ("writes beside itself", lambda _: tar(good, ("..\\evil", b"x")), outside),
        "drive": ("writes elsewhere", lambda _: tar(good, ("C:\\evil", b"x")), outside),
        "pax-path": ("writes beside itself", lambda _: tar(good, over), outside),
        "gnu-long-name": (
            "writes beside itself",
            lambda _: tar(good, ("../" + "a" * 200, b"x"), form=tarfile.GNU_FORMAT),
            outside,
        ),
        "link": (
            "reads the system",
            lambda _: tar(good, special("labels.txt", tarfile.SYMTYPE, "/etc/passwd")),
            "is a link",
        ),
        "link-inside": (
            "reads hidden files",
            lambda _: tar(good, special("a", tarfile.SYMTYPE, ".env")),
            "is a link",
        ),
        "hard-link": (
            "reads the system",
            lambda _: tar(good, special("a", tarfile.LNKTYPE, "/etc/passwd")),
            "is a link",
        ),
        "link-then-file": (
            "writes through a link",
            lambda kit: tar(good, special("d", tarfile.SYMTYPE, str(kit.outside)), ("d/evil", b"x")),
            "is a link",
        ),
        "fifo": (
            "waits for ever",
            lambda _: tar(good, special("a", tarfile.FIFOTYPE)),
            "neither a file nor a folder",
        ),
        "device": (
            "reads a disk",
            lambda _: tar(good, special("a", tarfile.BLKTYPE)),
            "neither a file nor a folder",
        ),
        "unknown-kind": (
            "confuses readers",
            lambda _: tar(good, special("a", b"Z")),
            "neither a file nor a folder",
        ),
        "bomb": ("fills the disk", lambda _: tar(good, ("zeros", bytes(80 << 20))), "as a bomb would"),
        "header-bomb": (
            "fills the memory",
            lambda _: gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)),
            "as a bomb would have",
        ),
        "many-files": (
            "keeps lock busy",
            lambda _: tar(*((f"f{n}", b"") for n in range(10_002))),
            "more than 10000 files",
        ),
        "many-folders": (
            "keeps lock busy",
            lambda _: tar(*(special(f"d{n}", tarfile.DIRTYPE) for n in range(20_002))),
            "more than 20000 files and folders",
        ),
        "twice": (
            "is two files to two readers",
            lambda _: tar(good, ("./model.json", b"{}")),
            "is listed twice",
        ),
        "case": ("is two files to two systems", lambda _: tar(good, ("Model.json", b"{}")), "are one name"),
        "file-and-folder": ("is both", lambda _: tar(("a", b"x"), ("a/b", b"x")), "both a file and a folder"),
        "bidi": (
            "reads as another name",
            lambda _: tar(good, ("a\u202egnp.py", b"x")),
            "changes the direction",
        ),
        "truncated": ("stops the reader", lambda _: tar(good)[:3000], "the archive is damaged"),
        "no-tar": ("stops the reader", lambda _: gzip.compress(b"no tar" * 500), "the archive is damaged"),
        "zip": ("is another kind of archive", lambda _: zipped({"model.json": b"{}"}), "not a .tar.gz"),
        "empty": ("is nothing", lambda _: b"", "not a .tar.gz"),
    }
    for name, (attempts, made, says) in contents.items():
        yield Case(
            f"archive-{name}",
            attempts,
            lambda kit, made=made: kit.write("model.tar.gz", made(kit)),
            says,
            model=model,
        )


def listings() -> Iterator[Case]:
    bucket, hub = "source: artifact, path: 's3://bucket/m'", "source: huggingface, id: acme/m"
    for name, key, says in (
        ("parent", "../evil", "outside the model's folder"),
        ("empty-part", "a//b", "no plain path"),
        ("bidi", "a\u202egnp.py", "changes the direction"),
        ("backslash", "..\\evil", "outside the model's folder"),
    ):
        yield Case(
            f"s3-{name}",
            "writes elsewhere",
            lambda kit, key=key: kit.objects.update({f"m/{key}": b"x", "m/model.json": b"{}"}),
            says if name != "empty-part" else "is not a plain path",
            model=bucket,
        )
    yield Case(
        "s3-many",
        "keeps lock busy",
        lambda kit: kit.objects.update({f"m/{n}": b"" for n in range(10_002)}),
        "more than 10000 files",
        model=bucket,
    )

    def repository(**files: bytes) -> Callable[[Kit], object]:
        return lambda kit: kit.repository.update(
            {name.replace("_dot_", ".").replace("__", "/"): content for name, content in files.items()}
        )

    mapped = json.dumps({**json.loads(BERT), "auto_map": {"AutoModel": "evil.Model"}}).encode()
    yield Case(
        "hub-auto-map",
        "imports code of the repository",
        repository(config_dot_json=mapped, model_dot_safetensors=b"x", tokenizer_dot_json=b"{}"),
        "auto_map",
        model=hub,
    )
    yield Case(
        "hub-pickle",
        "runs a pickle",
        repository(
            config_dot_json=BERT, pytorch_model_dot_bin=call("posix", "mkdir", "x"), tokenizer_dot_json=b"{}"
        ),
        "only pickled weights",
        model=hub,
    )
    yield Case(
        "hub-parent",
        "writes elsewhere",
        lambda kit: kit.repository.update({"../evil": b"x", "model.onnx": b"x"}),
        "an unsafe path",
        model=f"{hub}, include: ['*']",
    )


# What runs, where nobody said that it may.


def untrusted() -> Iterator[Case]:
    runs = "this model runs code when it is loaded"

    def script(path: str, *beside: tuple[str, Path]) -> Callable[[Kit], object]:
        def build(kit: Kit) -> None:
            kit.write(path, kit.code + "def model_fn(model_dir): ...\n")
            for name, source in beside:
                kit.write(name, source.read_bytes())

        return build

    def pickled(path: str, wrap: Callable[[bytes], bytes] = bytes, **more: bytes) -> Callable[[Kit], object]:
        def build(kit: Kit) -> None:
            kit.write(path, wrap(exec_of(kit)))
            for name, content in more.items():
                kit.write(name.replace("_dot_", "."), content)

        return build

    def case(name: str, build: Callable[[Kit], object], says: str = runs, more: str = "") -> Case:
        return Case(
            f"untrusted-{name}", "runs code", build, says, model=f"source: artifact, path: models/m{more}"
        )

    yield case("script", script("inference.py"))
    yield case("script-in-code", script("code/inference.py"))
    yield case("script-beside-xgboost", script("inference.py", ("model.json", XGBOOST)))
    yield case("script-beside-onnx", script("code/inference.py", ("model.onnx", ONNX)))
    yield case("script-by-include", script("inference.py", ("model.json", XGBOOST)), more=", include: ['*']")
    yield case("pickle", pickled("model.pkl"))
    yield case("joblib-zlib", pickled("model.joblib", zlib.compress))
    yield case("joblib-bz2", pickled("model.joblib", bz2.compress))
    yield case("joblib-xz", pickled("model.joblib", lzma.compress))
    yield case("protocol-0", pickled("model.pkl", lambda _: b"cposix\nmkdir\n(S'x'\ntR."))
    for name in ("model.json", "model.onnx", "model.skops", "model.txt", "model.safetensors"):
        yield case(f"pickle-called-{name}", pickled(name))
    yield case("torch", pickled("pytorch_model.bin", torch_zip, config_dot_json=BERT))
    yield case("torch-before-1.6", pickled("pytorch_model.bin", torch_legacy, config_dot_json=BERT))
    yield case("safetensors-that-is-torch", pickled("model.safetensors", torch_zip, config_dot_json=BERT))
    yield case(
        "mlflow",
        pickled("model.pkl", MLmodel=b"flavors: {sklearn: {pickled_model: model.pkl}}"),
        "is an MLflow model",
    )
    yield case(
        "mlflow-pyfunc",
        pickled("python_model.pkl", MLmodel=b"flavors: {python_function: {python_model: python_model.pkl}}"),
        "is an MLflow model",
    )
    yield case(
        "keras-lambda",
        lambda kit: kit.write("model.keras", zipped({"config.json": b"{}", "model.weights.h5": b""})),
        "Keras, which no engine",
    )
    yield case(
        "hdf5-lambda",
        lambda kit: kit.write("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(64)),
        "HDF5, which no engine",
    )
    yield case(
        "torchscript",
        lambda kit: kit.write(
            "model.pt", zipped({"m/data.pkl": b"", "m/constants.pkl": b"", "m/code/__torch__.py": b""})
        ),
        "TorchScript, which no engine",
    )
    yield case(
        "saved-model",
        lambda kit: kit.write("saved_model.pb", b"\x08\x01\x12\x04\x0a\x00\x12\x00"),
        "TensorFlow SavedModel, which no engine",
    )
    mapped = json.dumps({**json.loads(BERT), "auto_map": {"AutoModel": "evil.Model"}})

    def auto_map(kit: Kit) -> None:
        kit.write("config.json", mapped)
        kit.write("evil.py", kit.code)
        kit.write("model.safetensors", (2).to_bytes(8, "little") + b"{}")

    yield case("auto-map", auto_map, "auto_map")
    for kind in (
        "os.system",
        "builtins.eval",
        "functools.partial",
        "operator.attrgetter",
        "scipy.stats._continuous_distns.norm_gen",
        "numpy.lib._datasource.DataSource",
    ):
        yield case(f"skops-{kind}", lambda kit, kind=kind: kit.write("model.skops", skops_of(kind)))


# Pickles, with trust_code: true.


def trusted(
    name: str, attempts: str, build: Callable[[Kit], bytes], says: str, path: str = "model.pkl"
) -> Case:
    """A pickle that the spec trusts; PyTorch's in the folder of a network, NumPy's beside a script."""

    def both(kit: Kit) -> None:
        kit.write(path, build(kit))
        if path == TORCH:
            kit.write("config.json", BERT)
        if path == NUMPY:
            kit.write("inference.py", "def model_fn(model_dir): ...\n")

    return Case(f"pickle-{name}", attempts, both, says, trust=True)


def calls() -> Iterator[Case]:
    """What pickles of public reports have called: shells, importers, loaders, profilers, downloaders."""
    for module, name in (
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "compile"),
        ("builtins", "__import__"),
        ("builtins", "getattr"),
        ("builtins", "open"),
        ("io", "open"),
        ("__builtin__", "eval"),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("runpy", "_run_code"),
        ("pty", "spawn"),
        ("code", "InteractiveInterpreter"),
        ("timeit", "timeit"),
        ("cProfile", "run"),
        ("profile", "run"),
        ("trace", "Trace"),
        ("bdb", "Bdb"),
        ("pdb", "run"),
        ("doctest", "debug_script"),
        ("webbrowser", "open"),
        ("socket", "create_connection"),
        ("urllib.request", "urlopen"),
        ("shutil", "rmtree"),
        ("pathlib", "Path"),
        ("ctypes", "CDLL"),
        ("pickle", "loads"),
        ("_pickle", "loads"),
        ("marshal", "loads"),
        ("joblib", "load"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("pandas", "read_pickle"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("functools", "partial"),
        ("functools", "reduce"),
        ("types", "CodeType"),
        ("types", "FunctionType"),
        ("codecs", "decode"),
        ("pip", "main"),
        ("pydoc", "locate"),
        ("pkgutil", "resolve_name"),
        ("logging.config", "dictConfig"),
        ("asyncio.unix_events", "_UnixSubprocessTransport"),
        ("idlelib.pyshell", "ModifiedInterpreter"),
        ("lib2to3.pgen2.grammar", "Grammar"),
        ("multiprocessing.util", "spawnv_passfds"),
        ("cloudpickle.cloudpickle", "_make_function"),
        ("dill", "loads"),
        ("sklearn.utils.parallel", "Parallel"),
        ("sklearn.datasets", "fetch_openml"),
        ("scipy.io._fortran", "FortranFile"),
        ("numpy.lib._datasource", "DataSource"),
        ("joblib.numpy_pickle_compat", "NDArrayWrapper"),
        ("numpy._core", "_ufunc_reconstruct"),
        ("copyreg", "add_extension"),
        ("sklearn.tree._tree", "__import__"),
        ("evil_module_in_the_model", "run"),
    ):
        yield trusted(
            f"calls-{module}.{name}",
            f"calls {module}.{name}",
            lambda kit, module=module, name=name: call(module, name, str(kit.canary)),
            f"imports {module}.{name}",
        )


def wrappings() -> Iterator[Case]:
    """One and the same call, where a scanner may not look for it."""
    finds = "imports builtins.exec"

    def in_object_array(kit: Kit) -> bytes:
        import joblib
        import numpy as np

        out = io.BytesIO()
        joblib.dump(np.array([Exec(kit.code)], dtype=object), out)
        return out.getvalue()

    def behind_array(kit: Kit) -> bytes:
        import joblib
        import numpy as np

        out = io.BytesIO()
        joblib.dump([np.arange(999.0), Exec(kit.code), np.zeros(3)], out)
        return out.getvalue()

    def npz(kit: Kit) -> bytes:
        import numpy as np

        out = io.BytesIO()
        np.savez(out, a=np.array([Exec(kit.code)], dtype=object))
        return out.getvalue()

    made: dict[str, Callable[[Kit], bytes]] = {
        "zlib": lambda kit: zlib.compress(exec_of(kit)),
        "gzip": lambda kit: gzip.compress(exec_of(kit)),
        "bz2": lambda kit: bz2.compress(exec_of(kit)),
        "xz": lambda kit: lzma.compress(exec_of(kit)),
        "lzma": lambda kit: lzma.compress(exec_of(kit), lzma.FORMAT_ALONE),
        "zip": lambda kit: zipped({"m.pkl": exec_of(kit)}),
        "zip-in-zip": lambda kit: nested(exec_of(kit), 2),
        "zip-compressed": lambda kit: zipped({"m.pkl": exec_of(kit)}, zipfile.ZIP_DEFLATED),
        "torch": lambda kit: torch_zip(exec_of(kit)),
        "torch-before-1.6": lambda kit: torch_legacy(exec_of(kit)),
        "object-array": in_object_array,
        "behind-array": behind_array,
        "npz": npz,
        "second": lambda kit: pickle.dumps([1]) + exec_of(kit),
        "zip-appended": lambda kit: exec_of(kit) + zipped({"m.pkl": pickle.dumps(1)}),
        "zip-end-appended": lambda kit: exec_of(kit) + struct.pack("<4s4H2LH", b"PK\x05\x06", *[0] * 7),
        **{f"protocol-{n}": lambda kit, n=n: pickle.dumps(Exec(kit.code), n) for n in range(6)},
    }
    paths = {"torch": TORCH, "torch-before-1.6": TORCH, "npz": NUMPY}
    for name, build in made.items():
        old = name in ("protocol-0", "protocol-1", "protocol-2")
        says = "imports __builtin__.exec" if old else finds
        yield trusted(f"in-{name}", "hides a call", build, says, paths.get(name, "model.pkl"))


def readers() -> Iterator[Case]:
    """Files that two readers take for different things."""
    benign = pickle.dumps([1])

    def doubled(kit: Kit) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            for content in (benign, exec_of(kit)):
                info = zipfile.ZipInfo("m/data.pkl" if content == benign else "m/data.pkL")
                made.writestr(info, content)
        return out.getvalue().replace(b"data.pkL", b"data.pkl")

    one = zipped({"m/data.pkl": benign, "m/version": b"3"})
    contents: dict[str, tuple[Callable[[Kit], bytes], str]] = {
        "zip-behind-benign": (
            lambda kit: benign + zipped({"m.pkl": exec_of(kit)}),
            "after its end that are not a pickle",
        ),
        "garbage-behind": (lambda _: benign + b"garbage", "after its end"),
        "compressed-twice": (
            lambda kit: zlib.compress(benign) + zlib.compress(exec_of(kit)),
            "bytes after the end of its compressed",
        ),
        "pickle-behind-compressed": (
            lambda kit: gzip.compress(benign) + exec_of(kit),
            "bytes after the end of its compressed",
        ),
        "zip-name-twice": (doubled, "lists a member twice"),
        "zip-comment": (lambda kit: one[:-2] + struct.pack("<H", 4) + b"note", "after its end"),
        "zip-trailing": (lambda kit: one + exec_of(kit), "zip archive"),
        "torch-with-code": (
            lambda kit: zipped({"m/data.pkl": benign, "m/code/evil.py": kit.code.encode()}),
            "which torch.save does not write",
        ),
        "torch-two-in-one": (
            lambda kit: zipped({"a/data.pkl": benign, "b/data.pkl": exec_of(kit)}),
            "two torch.save archives",
        ),
        "lz4": (lambda kit: b"\x04\x22\x4d\x18" + exec_of(kit), "compressed with lz4"),
        "joblib-0.9": (
            lambda kit: b"ZF0x10              " + zlib.compress(exec_of(kit)),
            "by joblib before 0.10",
        ),
        "seven-zip": (lambda kit: b"7z\xbc\xaf\x27\x1c" + exec_of(kit), "cannot be read to its end"),
        "torch-tar": (lambda kit: gzip.decompress(tar_of({"pickle": exec_of(kit)})), "is a tar archive"),
        "zip-depth": (lambda kit: nested(exec_of(kit), 6), "archives nested"),
        "bomb": (lambda _: zlib.compress(bytes(100 << 20), 9), "decompression bomb"),
        "zip-bomb": (
            lambda _: zipped({"m.pkl": bytes(100 << 20)}, zipfile.ZIP_DEFLATED),
            "decompression bomb",
        ),
        "cut-short": (lambda kit: zlib.compress(exec_of(kit))[:-9], "is damaged"),
    }
    torch = ("zip-name-twice", "zip-comment", "zip-trailing", "torch-with-code", "torch-two-in-one")
    for name, (build, says) in contents.items():
        path = TORCH if name in torch else "model.pkl"
        yield trusted(f"file-{name}", "is read by another reader", build, says, path)


WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


def streams() -> Iterator[Case]:
    """Arrays that end where the scanner does not expect it, and streams that it cannot follow."""
    wrapper = glob(*WRAPPER)
    ways = {
        "reconstructor": glob("copyreg", "_reconstructor") + wrapper + glob("builtins", "object") + b"N\x87R",
        "newObj": glob("sklearn.neighbors._kd_tree", "newObj") + wrapper + b"\x85R",
        "bit-generator": glob("numpy.random._pickle", "__bit_generator_ctor") + wrapper + b"\x85R",
        "in-a-list": b"]" + wrapper + b"a" + wrapper + b")\x81",
    }
    for name, how in ways.items():
        yield trusted(
            f"wrapper-{name}",
            "moves the end of an array",
            lambda kit, how=how: wrapped(how, b"." + exec_of(kit)),
            "builds an array in a way that joblib does not",
        )
    for name, dtype, flags, size in (
        ("pointers", "O8", 0, -1),
        ("objects-in-floats", "f8", 63, -1),
        ("longer", "V8", 0, 800),
        ("no-size", "V8", 0, -1),
    ):
        yield trusted(
            f"dtype-{name}",
            "moves the end of an array",
            lambda kit, d=dtype, f=flags, s=size: wrapped(wrapper + b")\x81", exec_of(kit), d, f, s),
            "cannot be read to its end",
        )
    odd = {
        "truncated": (lambda kit: exec_of(kit)[:20], "cannot be read to its end"),
        "no-stop": (lambda _: b"\x80\x04N", "cannot be read to its end"),
        "unknown-instruction": (lambda kit: b"\x80\x04\xff" + exec_of(kit), "an unknown instruction"),
        "future-protocol": (lambda kit: b"\x80\x06" + exec_of(kit)[2:], "cannot be read to its end"),
        "extension": (lambda _: b"\x80\x04\x82\x01.", "extension code"),
        "persistent-id": (lambda _: b"\x80\x02X\x01\0\0\0aQ.", "a persistent id"),
        "empty-memo": (lambda _: b"\x80\x04h\x07.", "cannot be read to its end"),
        "frame-too-long": (lambda _: b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "cannot be read to its end"),
        "endless-line": (lambda _: b"\x80\x04c" + b"a" * (3 << 20), "cannot be read to its end"),
        "huge-bytes": (lambda _: b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.", "cannot be read to its end"),
        "out-of-band": (lambda _: b"\x80\x05\x97.", "cannot be read to its end"),
        "array-file": (
            lambda _: b"\x80\x04" + glob("joblib.numpy_pickle", "NDArrayWrapper") + b")\x81}b.",
            "imports joblib.numpy_pickle.NDArrayWrapper",
        ),
    }
    for name, (build, says) in odd.items():
        yield trusted(f"stream-{name}", "stops the scanner, and not the loader", build, says)


def uses() -> Iterator[Case]:
    """Names that models have, used as none does."""
    svc = glob("sklearn.svm._classes", "SVC")

    def template(kit: Kit) -> bytes:
        state = text("_parse_arg_template") + b"X" + struct.pack("<I", len(kit.code)) + kit.code.encode()
        return b"\x80\x04" + glob("scipy.stats._continuous_distns", "norm_gen") + b")\x81}" + state + b"sb."

    made: dict[str, tuple[Callable[[Kit], bytes], str]] = {
        "distribution": (template, "imports scipy.stats._continuous_distns.norm_gen"),
        "booster-of-a-file": (
            lambda kit: call("xgboost.core", "Booster", "/etc/passwd"),
            "calls xgboost.core.Booster",
        ),
        "estimator-with-arguments": (
            lambda _: call("sklearn.svm._classes", "SVC", "x"),
            "calls sklearn.svm._classes.SVC",
        ),
        "class-attributes": (
            lambda _: b"\x80\x04" + svc + b"N}" + text("predict") + svc + b"s\x86b.",
            "sets the state of something that is not a new object",
        ),
        "state-twice": (
            lambda _: b"\x80\x04" + svc + b")\x81}" + text("__setstate__") + svc + b"sb}b.",
            "sets the state of something that is not a new object",
        ),
        "append-of-an-object": (
            lambda _: b"\x80\x04" + svc + b")\x81}" + text("append") + svc + b"sbK\x01a.",
            "adds items to something that is not a container",
        ),
        "item-of-an-object": (
            lambda _: b"\x80\x04" + svc + b")\x81K\x01K\x02s.",
            "adds items to something that is not a container",
        ),
        "call-of-a-result": (lambda _: b"\x80\x04" + svc + b")\x81)R.", "calls an object that it created"),
        "codec": (
            lambda _: call("_codecs", "encode", "x", "zip"),
            "calls _codecs.encode in a way that no model does",
        ),
        "dtype-of-a-list": (
            lambda _: call("numpy", "dtype", "O,f8"),
            "calls numpy.dtype in a way that no model does",
        ),
        "ufunc-called": (lambda _: call("numpy", "log1p", "x"), "calls numpy.log1p"),
        "dotted-name": (lambda _: call("sklearn.utils", "os.system", "x"), "imports sklearn.utils.os.system"),
        "imported-by-the-library": (
            lambda _: call("sklearn.utils._testing", "check_output", "x"),
            "imports sklearn.utils._testing.check_output",
        ),
        "constructor-of-generators": (
            lambda _: (
                b"\x80\x04"
                + glob("numpy.random._pickle", "__randomstate_ctor")
                + text("x")
                + glob("builtins", "list")
                + b"\x86R."
            ),
            "in a way that no model does",
        ),
        "through-the-memo": (
            lambda _: b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x940h\0h\x01\x93.",
            "imports os.system",
        ),
        "inst": (lambda _: b"(S'x'\nios\nsystem\n.", "imports os.system"),
        "obj": (lambda _: b"\x80\x02(cos\nsystem\nX\x01\0\0\0xo.", "imports os.system"),
    }
    for name, (build, says) in made.items():
        yield trusted(f"use-{name}", "does harm with allowed names", build, says)
    yield Case(
        "skops-trusted-os.system",
        "runs a command",
        lambda kit: kit.write("model.skops", skops_of("os.system")),
        "imports os.system",
        trust=True,
    )
    yield Case(
        "skops-trusted-distribution",
        "compiles a text",
        lambda kit: kit.write("model.skops", skops_of("scipy.stats._continuous_distns.norm_gen")),
        "imports scipy.stats",
        trust=True,
    )
    yield Case(
        "script-with-hostile-pickle",
        "hides behind a script",
        lambda kit: (
            kit.write("inference.py", "def model_fn(model_dir): ...\n"),
            kit.write("model.pkl", exec_of(kit)),
        ),
        "model.pkl imports builtins.exec",
        trust=True,
    )


# Graphs, and what the engines themselves have to refuse.


def graphs() -> Iterator[Case]:
    def build(location: str, nested_deep: bool = False) -> Callable[[Kit], object]:
        return lambda kit: kit.write(
            "model.onnx", onnx_of(location.replace("SECRET", str(kit.outside / "secret")), nested_deep)
        )

    out = "keeps tensors in a file outside the model's folder"
    for name, location in {
        "parent": "../../secret",
        "absolute": "SECRET",
        "memory": "*/_ORT_MEM_ADDR_/*",
        "drive": "C:/x",
        "backslash": "..\\x",
    }.items():
        yield Case(f"onnx-data-{name}", "reads a file of the system", build(location), out)
    yield Case("onnx-data-in-a-branch", "reads a file of the system", build("../secret", True), out)
    yield Case("onnx-data-missing", "appears later", build("later.bin"), "which is not there")
    yield Case(
        "onnx-data-link",
        "reads a file of the system",
        lambda kit: (build("w.bin")(kit), (kit.folder / "w.bin").symlink_to(kit.outside / "secret")),
        "is a link out of the model's folder",
    )
    yield Case(
        "onnx-many-fields",
        "keeps lock busy",
        lambda kit: kit.write("model.onnx", b"\x08\x07" + tagged(0x3A, b"\x0a\x00" * 5_000_001)),
        "more fields than",
    )


def engines() -> Iterator[Case]:
    """Files that only a loader can judge; they are loaded in the sandbox."""
    yield Case(
        "engine-xgboost-garbage",
        "breaks the parser",
        lambda kit: kit.write("model.json", b'{"learner": {"a": ' + b"[" * 5000),
        "cannot load the model",
    )
    yield Case(
        "engine-lightgbm-truncated",
        "ends the process",
        lambda kit: kit.write("model.txt", LIGHTGBM.read_bytes()[:2000]),
        "cannot load the model",
    )
    yield Case(
        "engine-safetensors-header",
        "fills the memory",
        lambda kit: (
            kit.write("config.json", BERT),
            kit.write("model.safetensors", (90 << 20).to_bytes(8, "little") + b"{"),
        ),
        "cannot load the model",
    )


def contained() -> Iterator[Case]:
    """What runs because it was allowed to, and what is only in the way."""

    def script(more: str = "") -> Callable[[Kit], object]:
        return lambda kit: kit.write(
            "inference.py", kit.code + more + "\ndef model_fn(model_dir):\n    return lambda data: data\n"
        )

    yield Case("contained-script", "leaves canaries", script(), trust=True)
    yield Case(
        "contained-processes",
        "starts others",
        script("import subprocess\ntry: subprocess.run(['touch', 'x'])\nexcept BaseException: pass\n"),
        trust=True,
    )
    yield Case(
        "contained-secrets",
        "shows a file of yours in its error",
        lambda kit: kit.write(
            "inference.py", f"raise ValueError(open({str(kit.outside / 'secret')!r}).read())\n"
        ),
        "cannot load the model",
        trust=True,
    )

    def shadows(kit: Kit) -> None:
        members = {"model.json": XGBOOST.read_bytes()}
        members |= dict.fromkeys(
            ("xgboost.py", "orjson.py", "sitecustomize.py", "numpy/__init__.py"), kit.code.encode()
        )
        kit.write("model.tar.gz", tar_of(members))

    yield Case(
        "contained-shadowed-modules",
        "is imported in place of a library",
        shadows,
        model="source: artifact, path: models/m/model.tar.gz, include: ['*']",
    )


# How they are made.


class Exec:
    """Runs a text when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


def exec_of(kit: Kit) -> bytes:
    return pickle.dumps(Exec(kit.code))


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def glob(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *arguments: str) -> bytes:
    given = b"(" + b"".join(map(text, arguments)) + b"t"
    return b"\x80\x04" + glob(module, name) + given + b"R."


def wrapped(how: bytes, data: bytes, dtype: str = "V1", flags: int = 0, size: int = 1) -> bytes:
    """A joblib stream with one array, whose wrapper is made by `how`."""
    made = glob("numpy", "dtype") + text(dtype) + b"\x89\x88\x87R"
    made += (
        b"(K\x03" + text("|") + b"NNN" + b"J" + struct.pack("<i", size) + b"K\x01K" + bytes([flags]) + b"tb"
    )
    state = b"}(" + text("subclass") + glob("numpy", "ndarray") + text("shape") + b"K\x01\x85"
    state += text("order") + text("C") + text("dtype") + made + text("allow_mmap") + b"\x89u"
    return b"\x80\x04" + how + state + b"b" + data


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def nested(content: bytes, depth: int) -> bytes:
    for _ in range(depth):
        content = zipped({"m.pkl": content})
    return content


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def torch_zip(content: bytes) -> bytes:
    return zipped({"archive/data.pkl": content, "archive/version": b"3\n"})


def torch_legacy(content: bytes) -> bytes:
    """What torch.save wrote before 1.6: a magic number, a version, facts of the machine, and the object."""
    return pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + content


def skops_of(name: str) -> bytes:
    module, _, kind = name.rpartition(".")
    schema = {"__class__": kind, "__module__": module, "__loader__": "ObjectNode", "__id__": 1, "protocol": 2}
    return zipped({"schema.json": json.dumps(schema).encode()})


def tagged(tag: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, out = len(content), bytearray([tag])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size]) + content


def onnx_of(location: str, in_a_branch: bool = False) -> bytes:
    """A graph with one tensor in a file of its own."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])
    if not in_a_branch:
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])], "g", [given], [result], [weight]
        )
    else:
        inner = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "i", [], [], [weight])
        branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([branch], "g", [given], [result])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())
