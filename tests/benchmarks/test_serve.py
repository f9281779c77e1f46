"""The comparison's own arithmetic and writing, and that every peer describes itself."""

from pathlib import Path

import pytest

from benchmarks import contestants, serve


@pytest.mark.parametrize("peer", contestants.peers(), ids=lambda peer: peer.name)
def test_every_peer_has_pins_and_a_script(peer: contestants.Contestant) -> None:
    script = Path(peer.command(8080, Path("model"))[1])
    assert script.exists()
    assert peer.protocol in ("instances", "open-inference")
    pins = script.parent / "requirements.txt"
    lines = [line for line in pins.read_text().splitlines() if line[:1].isalnum()] if pins.exists() else []
    assert all("==" in line for line in lines)
    assert not [line for line in lines if line.startswith(("torch==", "nvidia-cuda", "nvidia-cu"))]


def test_a_body_holds_the_first_held_out_row_as_each_protocol_wants_it() -> None:
    model = serve.MODELS / "digits-onnx"
    instances, expected = serve.one_row(model, "instances")
    tensor, _ = serve.one_row(model, "open-inference")
    assert len(expected) == 10
    assert serve.numbers(serve.json.loads(instances)) == serve.json.loads(tensor)["inputs"][0]["data"]


def test_numbers_are_found_in_any_protocols_answer() -> None:
    assert serve.numbers({"predictions": [[0.25, 0.75]]}) == [0.25, 0.75]
    answer = {"model_name": "m", "outputs": [{"name": "p", "shape": [1, 2], "data": [0.25, 0.75]}]}
    assert serve.numbers(answer)[-2:] == [0.25, 0.75]


def test_a_table_replaces_what_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin start -->\nold\n<!-- end start -->\nafter\n")
    serve.insert(page, "start", "new\n")
    assert page.read_text() == "before\n<!-- begin start -->\nnew\n\n<!-- end start -->\nafter\n"
    with pytest.raises(SystemExit, match="no markers"):
        serve.insert(page, "bodies", "new\n")
