"""Encoders: what a student inherits, what its tables keep, and what an int8 form may not change."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from sanderling_quantize.encoders import distil, embedding_codes, student_init
from sanderling_quantize.encoders import text_augmentation as texts_of
from sanderling_quantize.encoders.build_encoder import Encoding, make
from sanderling_quantize.encoders.export import check_operators, export
from sanderling_quantize.encoders.int8_export import quantize
from sanderling_quantize.encoders.int8_search import Int8Candidate, Recipe, encode, search, session
from sanderling_quantize.encoders.smoothquant import smoothed
from sanderling_quantize.encoders.student import mean, unit
from sanderling_quantize.encoders.student_config import TIERS, WHOLE, Shape
from sanderling_quantize.encoders.tokenization import batches, padded, tokenize
from tests.support import naive
from tests.support.gate_worlds import sharpen
from tests.support.worlds import write_language_model

pytestmark = pytest.mark.lab

TEXTS = [
    f"{colour} {thing} number {at}"
    for at in range(12)
    for colour in ("red", "blue")
    for thing in ("shoe", "lamp")
]
BASE = TIERS["base"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sharpen(write_language_model(tmp_path_factory.mktemp("encoders") / "model"))


@pytest.fixture(scope="module")
def teacher(folder):
    return AutoModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokens(folder):
    return tokenize(AutoTokenizer.from_pretrained(folder), TEXTS, 64)


def student(teacher, tokens, shape=BASE):
    importance = student_init.measure(teacher, tokens)
    return student_init.inherit(teacher, shape.within(teacher.config), importance, 64, 0).eval()


def vectors(model, tokens):
    out = np.empty((len(tokens), 32), np.float32)
    with torch.inference_mode():
        for ids, mask, chosen in batches(tokens, torch.device("cpu")):
            out[chosen] = model(ids, mask).numpy()
    return out


def test_the_whole_teacher_inherited_is_the_teacher(teacher, tokens):
    """A student of the teacher's own shape gives the teacher's vectors, in batches with padding as alone."""
    found = vectors(student(teacher, tokens), tokens)
    with torch.inference_mode():
        for at, one in enumerate(tokens[:10]):
            ids, mask = padded([one])
            alone = unit(mean(teacher(input_ids=ids, attention_mask=mask).last_hidden_state, mask))
            assert np.allclose(found[at], alone[0].numpy(), atol=1e-5)


def test_the_largest_parts_are_kept(teacher, tokens):
    """A head and a neuron that contribute nothing are the first to go."""
    muted = copy.deepcopy(teacher)
    layer = muted.encoder.layer[0]
    with torch.no_grad():
        layer.output.dense.weight[:, 5] = 0.0
        layer.attention.output.dense.weight[:, :16] = 0.0
    half = student(muted, tokens, replace(BASE, heads=1, neurons=63)).layers[0]
    kept = [at for at in range(64) if at != 5]
    assert torch.equal(half.expand.weight, layer.intermediate.dense.weight[kept])
    assert torch.equal(half.merge.weight, layer.attention.output.dense.weight[:, 16:])


@pytest.mark.parametrize(
    ("count", "layers", "kept"), [(6, 2, [0, 5]), (6, 3, [0, 2, 5]), (6, 6, [0, 1, 2, 3, 4, 5])]
)
def test_layers_are_spread(count, layers, kept):
    """A student of two layers or more begins with the first, the last, and some evenly between."""
    assert student_init.spread_layers(count, layers) == kept


def test_another_architecture_is_refused():
    """What is not built like BERT is named in one sentence."""
    with pytest.raises(
        ValueError, match=r"expected a language model of the kinds bert, .*found Linear"
    ):
        student_init.check(torch.nn.Linear(2, 2))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
@settings(max_examples=3, deadline=None)
def test_codes_point_at_the_nearest_centre(seed, group):
    """Each group of a word's numbers is stored as the centre that is nearest to it, as a loop finds it."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(300, 8, generator=generator)
    coded = embedding_codes.coded(table, torch.ones(300), group, 0)
    books = coded.books.detach().numpy().reshape(8 // group, -1, group)
    expected = naive.nearest_centres(table.numpy(), books)
    found = coded(torch.arange(300)[None])[0].detach().numpy()
    assert np.allclose(
        ((found - table.numpy()) ** 2).sum(1), ((expected - table.numpy()) ** 2).sum(1), atol=1e-4
    )


def test_heavy_words_are_kept_more_exactly():
    """With more words than codes, those that occur often lose less than those that do not."""
    table = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.where(torch.arange(2000) < 200, 100.0, 1.0)
    loss = (
        (embedding_codes.coded(table, weights, 4, 0)(torch.arange(2000)[None])[0] - table)
        .square()
        .sum(1)
        .detach()
    )
    assert loss[:200].mean() < 0.5 * loss[200:].mean()


def test_frozen_tables_are_within_half_a_step():
    """An int8 row differs from the float row by at most half its scale."""
    table = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    frozen = embedding_codes.frozen(torch.nn.Embedding.from_pretrained(table))
    assert ((frozen(torch.arange(50)) - table).abs() <= frozen.scale / 2 + 1e-7).all()


@given(st.floats(0.0, 1.0), st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_smoothing_changes_nothing_in_float(teacher, tokens, strength, outlier):
    """However strong, with however many loud channels: the float student gives the same vectors."""
    plain = student(teacher, tokens)
    assert np.allclose(
        vectors(smoothed(plain, tokens[:8], strength, outlier), tokens),
        vectors(plain, tokens),
        atol=1e-5,
    )


def test_loud_channels_are_what_int8_loses(teacher, tokens, tmp_path):
    """With one activation a hundred times the others, int8 is far nearer to float when that one is kept aside."""
    plain = student(teacher, tokens)
    with torch.no_grad():
        for layer in plain.layers:
            layer.expand.bias[3] += 200.0
            layer.contract.bias -= 200.0 * layer.contract.weight[:, 3]
    exact = vectors(plain, tokens)
    loss = {}
    for outlier in (0, 1):
        export(smoothed(plain, tokens[:8], 0.0, outlier), tmp_path / f"float{outlier}.onnx")
        quantize(
            tmp_path / f"float{outlier}.onnx", teacher.config, tmp_path / f"int8{outlier}.onnx"
        )
        loss[outlier] = (
            1.0 - (encode(session(tmp_path / f"int8{outlier}.onnx"), tokens) * exact).sum(1).mean()
        )
    assert loss[1] < 0.2 * loss[0]


@pytest.mark.parametrize("tier", ["base", "small", "nano"])
def test_the_graph_computes_what_the_student_does(teacher, tokens, tmp_path, tier):
    """The exported graph, reshapes rewritten, agrees with PyTorch for one text and for a padded batch."""
    made = student(teacher, tokens, replace(TIERS[tier], width=16 if tier == "nano" else WHOLE))
    export(made, tmp_path / "float.onnx")
    graph, exact = session(tmp_path / "float.onnx"), vectors(made, tokens)
    assert np.min((encode(graph, tokens) * exact).sum(1)) > 0.999
    ids, mask = padded(tokens)
    batch = graph.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    assert np.allclose(batch, encode(graph, tokens), atol=1e-5)


def test_no_length_is_computed_for_a_reshape(teacher, tokens, tmp_path):
    """Every Reshape of the graph has a constant shape, and no node is left over whose output nobody reads."""
    export(student(teacher, tokens), tmp_path / "float.onnx")
    graph = onnx.load(tmp_path / "float.onnx").graph
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    assert all(node.input[1] in constant for node in graph.node if node.op_type == "Reshape")
    read = {name for node in graph.node for name in node.input} | {"vector"}
    assert all(read & set(node.output) for node in graph.node)


def test_operators_outside_the_list_are_refused(tmp_path):
    """A graph with an operator that small runtimes may lack is named, with the operator."""
    node = onnx.helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 2])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [result])),
        tmp_path / "odd.onnx",
    )
    with pytest.raises(
        ValueError, match=r"odd.onnx: expected only operators.*com.microsoftFusedMatMul"
    ):
        check_operators(tmp_path / "odd.onnx")


def test_only_multiplications_with_weights_become_int8(teacher, tokens, tmp_path):
    """Attention's products of two activations stay in float; all others are int8, in 7 bits where asked for."""
    export(student(teacher, tokens), tmp_path / "float.onnx")
    largest = {}
    for bits in (7, 8):
        quantize(tmp_path / "float.onnx", teacher.config, tmp_path / f"{bits}.onnx", bits)
        graph = onnx.load(tmp_path / f"{bits}.onnx").graph
        count = check_operators(tmp_path / f"{bits}.onnx")
        assert (count["MatMulInteger"], count["MatMul"]) == (4 * 4, 4 * 2)
        weights = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
        found = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.name in weights
        ]
        largest[bits] = max(int(np.abs(array.astype(np.int32)).max()) for array in found)
    assert 32 <= largest[7] <= 64 < largest[8] <= 128


def test_a_form_beaten_in_everything_is_not_on_the_front(tmp_path):
    """Dominance is at least as good in bytes, time and likeness, and better in one."""
    good, recipe = Int8Candidate(Recipe(None, 0), tmp_path, 10, 5.0, 0.9), Recipe(0.7, 0)
    assert good.dominates(Int8Candidate(recipe, tmp_path, 10, 5.0, 0.8))
    assert not good.dominates(Int8Candidate(recipe, tmp_path, 9, 9.0, 0.1))
    assert not good.dominates(Int8Candidate(recipe, tmp_path, 10, 5.0, 0.9))


def test_the_search_keeps_the_front_winner_first(teacher, tokens, tmp_path):
    """The winner is not beaten, is nearly as fast as the fastest, and its file is there."""
    front = search(student(teacher, tokens), teacher.config, tokens[::2], tokens[1::2], tmp_path, 8)
    assert front[0].path.exists()
    assert not any(other.dominates(one) for one in front for other in front)
    assert front[0].us <= 1.2 * min(one.us for one in front)


def test_distillation_brings_the_student_to_the_teacher(teacher, folder):
    """Two layers of four, words in codes: sixty steps on the catalogue bring the cosine on unseen texts above .9."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen, unseen = texts_of.held_out(TEXTS, 0.2)
    unseen_tokens = tokenize(tokenizer, unseen, 64)
    shape, further = (
        Shape(2, 2, 64, 32, 4, 60),
        texts_of.further(seen, [], np.random.default_rng(0)),
    )
    further = texts_of.unlike(further, unseen)
    wanted = distil.teach(teacher, unseen_tokens)
    likeness = []
    for steps in (1, 60):
        made = distil.distil(teacher, tokenizer, seen, further, replace(shape, steps=steps), 64, 0)
        likeness.append(float((vectors(made, unseen_tokens) * wanted).sum(1).mean()))
    assert likeness[1] > max(0.9, likeness[0])


def test_the_same_seed_makes_the_same_student(teacher, folder):
    """Nothing in distillation is by chance but for the seed: not even the order of the vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shape = Shape(1, 2, 64, 32, 4, 20)
    further = (
        list(texts_of.further(TEXTS, tokenizer.get_vocab(), np.random.default_rng(0)))
        for _ in range(2)
    )
    one, two = (distil.distil(teacher, tokenizer, TEXTS, texts, shape, 64, 7) for texts in further)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_an_encoder_is_made_from_a_folder(folder, tmp_path):
    """A language model's folder and texts give encoder.onnx and tokenizer.json, and the forms that were weighed."""
    (tmp_path / "bundle").mkdir()
    weighed = make(folder, TEXTS, [], tmp_path / "bundle", 64, Encoding("small", steps=2))
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        "encoder.onnx",
        "tokenizer.json",
    ]
    assert weighed[0]["bytes"] == (tmp_path / "bundle" / "encoder.onnx").stat().st_size


@given(st.sets(st.text(min_size=1), min_size=2, max_size=60))
def test_a_text_stays_on_its_side(catalogue):
    """The texts kept from training are not among the others, and another item moves none of a large part."""
    seen, unseen = texts_of.held_out(catalogue, 0.1)
    assert set(seen) | set(unseen) == catalogue
    assert seen
    assert unseen
    more = texts_of.held_out([*catalogue, "one more item"], 0.1)[1]
    assert len(unseen) == 1 or set(unseen) <= set(more)


@pytest.mark.parametrize("catalogue", [["one thing"], ["", " "]])
def test_the_smallest_catalogues_have_an_encoder(folder, tmp_path, catalogue):
    """One item, or items without words: an encoder is made all the same."""
    (tmp_path / "bundle").mkdir()
    assert make(folder, catalogue, [], tmp_path / "bundle", 64, Encoding("nano", steps=1))


@pytest.mark.parametrize("wrong", [{"tier": "huge"}, {"target": "mips"}])
def test_unknown_tiers_and_targets_are_refused(wrong):
    """The message says which ones there are."""
    with pytest.raises(
        ValueError, match=r"(tier|target): expected one of .*(base|avx2).*, found '(huge|mips)'"
    ):
        Encoding(**wrong)


@given(st.lists(st.text(alphabet="ab ", max_size=8), min_size=1, max_size=6))
def test_further_texts_come_from_any_catalogue(catalogue):
    """Blank texts do no harm; all further ones are made of the catalogue's words and the vocabulary's."""
    found = list(texts_of.further(catalogue, ["word", "##ing", "a1"], np.random.default_rng(0)))
    words = {word for text in catalogue for word in text.split()} | {"word"}
    assert {word for text in found for word in text.split()} <= words
