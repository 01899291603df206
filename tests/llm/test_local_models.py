"""Finding a model: what is meant by a name, a path or a reference, and what is no model at all."""

from __future__ import annotations

import struct
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from aether.errors import ConfigurationError
from aether.extensions.llm._local import models
from aether.extensions.llm._local.models import HubReference, check_model_file, find_model
from aether.extensions.llm.local import LocalProvider


def write_model(path: Path, *, version: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, 0))
    return path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(models, "files", files)


def test_default_is_the_file_of_the_installed_package() -> None:
    model = find_model()
    assert isinstance(model.source, Path)
    assert model.source.suffix == ".gguf"
    assert "SmolLM2" in model.name
    check_model_file(model.source)


@pytest.mark.usefixtures("nothing_installed")
def test_default_without_the_package_is_the_same_file_on_the_hub() -> None:
    model = find_model()
    assert isinstance(model.source, HubReference)
    assert model.source.file == f"{model.name}.gguf"


def test_default_goes_by_its_name_too() -> None:
    assert find_model(find_model().name) == find_model()


def test_a_file_is_named_by_its_stem(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.Q4_0.gguf")
    assert find_model(str(path)).name == "tiny.Q4_0"
    assert find_model(str(path)).source == path
    assert find_model(path=path) == find_model(str(path))
    assert find_model("other/model", path=path) == find_model(str(path))


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = write_model(tmp_path / "tiny.gguf")
    assert find_model("~/tiny.gguf").source == path


def test_relative_path_is_a_file_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "models" / "tiny")
    assert find_model("models/tiny").source == Path("models/tiny")


@pytest.mark.parametrize(
    ("reference", "repository", "wanted", "name"),
    [
        ("owner/repo", "owner/repo", None, "owner/repo"),
        ("owner/repo:Q4_K_M", "owner/repo", "Q4_K_M", "owner/repo:Q4_K_M"),
        ("owner/repo:tiny.Q8_0.gguf", "owner/repo", "tiny.Q8_0.gguf", "tiny.Q8_0"),
        ("hf:owner/repo", "owner/repo", None, "hf:owner/repo"),
        ("hf:owner/repo:Q8_0", "owner/repo", "Q8_0", "hf:owner/repo:Q8_0"),
        ("hf:owner/repo/tiny.gguf", "owner/repo", "tiny.gguf", "tiny"),
        ("hf:owner/repo/sub/tiny.gguf", "owner/repo", "sub/tiny.gguf", "tiny"),
        ("hf:Owner-1/re.po_2-GGUF/a.gguf", "Owner-1/re.po_2-GGUF", "a.gguf", "a"),
    ],
)
def test_hub_references(reference: str, repository: str, wanted: str | None, name: str) -> None:
    model = find_model(reference)
    assert model.source == HubReference(repository, wanted)
    assert model.name == name


@pytest.mark.parametrize(
    "reference", ["gpt-4", "a/b/c", "owner/", "../up/there", "owner/repo:", ""]
)
def test_what_is_not_understood_is_an_error_that_says_what_to_set(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="AETHER_LOCAL_MODEL"):
        find_model(reference)


@pytest.mark.parametrize("reference", ["models/tiny.gguf", "/no/such/tiny.gguf", "tiny.gguf"])
def test_missing_file_is_an_error(reference: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no model file '{reference}'"):
        find_model(reference)


def test_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGUF\x03", b"PK\x03\x04" + b"\0" * 20])
def test_file_without_the_magic_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a GGUF file"):
        find_model(str(path))


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_version_that_the_engine_does_not_read_is_named(tmp_path: Path, version: int) -> None:
    path = write_model(tmp_path / "model.gguf", version=version)
    with pytest.raises(ConfigurationError, match=f"version {version}; the engine reads 2 and 3"):
        find_model(str(path))


def test_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "model.gguf")

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        check_model_file(path)


def test_provider_takes_its_model_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    monkeypatch.setenv("AETHER_LOCAL_MODEL", str(path))
    assert LocalProvider().default_model == "tiny"
    other = write_model(tmp_path / "other.gguf")
    assert LocalProvider(default_model=str(other)).default_model == "other"
    assert LocalProvider(model_path=other).default_model == "other"


def test_provider_refuses_a_wrong_file_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no model file"):
        LocalProvider(model_path=tmp_path / "none.gguf")
    with pytest.raises(ConfigurationError, match="n_parallel"):
        LocalProvider(n_parallel=0)
