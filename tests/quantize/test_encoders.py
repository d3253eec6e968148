"""Encoders: how students are initialized and distilled, and what int8 may not change."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling_quantize.encoders import embedding_codes, student_init, text_augmentation
from sanderling_quantize.encoders.architecture import BERT_LIKE, check_architecture
from sanderling_quantize.encoders.build_encoder import Encoding, build_encoder
from sanderling_quantize.encoders.distil import distil
from sanderling_quantize.encoders.export import check_operators, export
from sanderling_quantize.encoders.int8_export import by_onnxruntime, by_optimum, quantize
from sanderling_quantize.encoders.int8_search import Int8Candidate, Recipe, encode, search, session
from sanderling_quantize.encoders.pooling import mean_pool, unit
from sanderling_quantize.encoders.smoothquant import smooth
from sanderling_quantize.encoders.student_config import TIERS, UNLIMITED, StudentConfig
from sanderling_quantize.encoders.teacher import Teacher
from sanderling_quantize.encoders.tokenization import batches, pad
from tests.support import naive
from tests.support.gate_bundles import sharpen
from tests.support.worlds import write_language_model

pytestmark = pytest.mark.lab

TEXTS = [
    f"{colour} {thing} number {number}"
    for number in range(12)
    for colour in ("red", "blue")
    for thing in ("shoe", "lamp")
]
BASE = TIERS["base"]
MAX_TOKENS = 64
WIDTH = 32


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return sharpen(write_language_model(tmp_path_factory.mktemp("encoders") / "model"))


@pytest.fixture(scope="module")
def teacher(language_model):
    return Teacher.load(language_model, MAX_TOKENS, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokens(teacher):
    return teacher.tokenize(TEXTS)


@pytest.fixture(scope="module")
def base(teacher, tokens):
    """A student that is the whole teacher; tests that change it copy it first."""
    return untrained(teacher, tokens, BASE)


@pytest.fixture(scope="module")
def base_graph(base, tmp_path_factory):
    """The float graph of `base`."""
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    export(base, path)
    return path


def untrained(teacher, tokens, config):
    importance = student_init.measure_importance(teacher, tokens)
    config = config.limited_to(teacher.model.config)
    return student_init.init_student(teacher, config, importance, 0).eval()


def vectors(model, tokens):
    out = np.empty((len(tokens), WIDTH), np.float32)
    with torch.inference_mode():
        for ids, mask, rows in batches(tokens, torch.device("cpu")):
            out[rows] = model(ids, mask).numpy()
    return out


def test_a_student_of_the_teachers_size_is_the_teacher(teacher, base, tokens):
    """A student of the teacher's own size gives the teacher's vectors, padded in batches too."""
    found = vectors(base, tokens)
    with torch.inference_mode():
        for row, text in enumerate(tokens[:10]):
            ids, mask = pad([text])
            hidden = teacher.model(input_ids=ids, attention_mask=mask).last_hidden_state
            assert np.allclose(found[row], unit(mean_pool(hidden, mask))[0].numpy(), atol=1e-5)


def test_the_largest_parts_are_kept(teacher, tokens):
    """A head and a neuron that contribute nothing are the first to be left out."""
    muted = replace(teacher, model=copy.deepcopy(teacher.model))
    layer = muted.model.encoder.layer[0]
    with torch.no_grad():
        layer.output.dense.weight[:, 5] = 0.0
        layer.attention.output.dense.weight[:, :16] = 0.0
    half = untrained(muted, tokens, replace(BASE, heads=1, neurons=63)).layers[0]
    kept = [neuron for neuron in range(64) if neuron != 5]
    assert torch.equal(half.ffn_in.weight, layer.intermediate.dense.weight[kept])
    assert torch.equal(half.attention_out.weight, layer.attention.output.dense.weight[:, 16:])


@pytest.mark.parametrize(
    ("count", "layers", "kept"), [(6, 2, [0, 5]), (6, 3, [0, 2, 5]), (6, 6, [0, 1, 2, 3, 4, 5])]
)
def test_layers_are_spread(count, layers, kept):
    """A student of two layers or more gets the first, the last, and some evenly between."""
    assert student_init.spread_layers(count, layers) == kept


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mpnet"},
        {"model_type": "t5", "hidden_act": "gelu"},
        {"model_type": "bert", "hidden_act": "relu"},
        {"model_type": "bert", "position_embedding_type": "relative_key"},
        {},
    ],
)
def test_another_architecture_is_refused(config):
    """A model that is not built like BERT is named in one sentence."""
    with pytest.raises(
        ValueError, match=r"mine: expected a language model of the kinds bert, .*found"
    ):
        check_architecture(config, "mine")


@pytest.mark.parametrize("model_type", BERT_LIKE)
def test_architectures_like_bert_are_taken(model_type):
    """The kinds that are named pass, with what BERT has where the configuration says nothing."""
    check_architecture({"model_type": model_type}, "mine")
    check_architecture(
        {"model_type": model_type, "hidden_act": "gelu", "position_embedding_type": "absolute"}, "x"
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
@settings(max_examples=3, deadline=None)
def test_codes_point_at_the_nearest_centre(seed, group):
    """Each group of a word's numbers is stored as the centre nearest to it, as a loop finds it."""
    n_words = 260  # more than a byte has codes
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(n_words, 4, generator=generator)
    codes = embedding_codes.encode_table(table, torch.ones(n_words), group, 0)
    books = codes.books.detach().numpy().reshape(4 // group, -1, group)
    expected = naive.nearest_centres(table.numpy(), books)
    found = codes(torch.arange(n_words)[None])[0].detach().numpy()
    assert np.allclose(
        ((found - table.numpy()) ** 2).sum(1), ((expected - table.numpy()) ** 2).sum(1), atol=1e-4
    )


def test_frequent_words_lose_less():
    """With more words than codes, those that occur often lose less than those that do not."""
    table = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.where(torch.arange(2000) < 200, 100.0, 1.0)
    codes = embedding_codes.encode_table(table, weights, 4, 0)
    loss = (codes(torch.arange(2000)[None])[0] - table).square().sum(1).detach()
    assert loss[:200].mean() < 0.5 * loss[200:].mean()


def test_int8_tables_are_within_half_a_step():
    """An int8 row differs from the float row by at most half its scale."""
    table = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    int8 = embedding_codes.to_int8(torch.nn.Embedding.from_pretrained(table))
    assert ((int8(torch.arange(50)) - table).abs() <= int8.scale / 2 + 1e-7).all()


@given(st.floats(0.0, 1.0), st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_smoothing_changes_nothing_in_float(base, tokens, strength, outliers):
    """Whatever strength and outlier channels: the float student gives the same vectors."""
    smoothed = smooth(base, tokens[:8], strength, outliers)
    assert np.allclose(vectors(smoothed, tokens), vectors(base, tokens), atol=1e-5)


def test_outlier_channels_are_what_int8_loses(teacher, tokens, tmp_path):
    """With one activation a hundred times the others, int8 is much better with that one apart."""
    student = untrained(teacher, tokens[:8], replace(BASE, layers=2))
    with torch.no_grad():
        for layer in student.layers:
            layer.ffn_in.bias[3] += 200.0
            layer.ffn_out.bias -= 200.0 * layer.ffn_out.weight[:, 3]
    exact = vectors(student, tokens)
    loss = {}
    for outliers in (0, 1):
        source, target = tmp_path / f"float{outliers}.onnx", tmp_path / f"int8{outliers}.onnx"
        export(smooth(student, tokens[:8], 0.0, outliers), source)
        quantize(source, teacher.model.config, target)
        loss[outliers] = 1.0 - (encode(session(target), tokens) * exact).sum(1).mean()
    assert loss[1] < 0.2 * loss[0]


@pytest.mark.parametrize("tier", ["base", "small", "nano"])
def test_the_graph_computes_what_the_student_does(teacher, tokens, tmp_path, tier):
    """The exported graph agrees with PyTorch for one text and for a padded batch."""
    config = replace(TIERS[tier], width=16 if tier == "nano" else UNLIMITED)
    student = untrained(teacher, tokens, config)
    export(student, tmp_path / "float.onnx")
    graph = session(tmp_path / "float.onnx")
    alone = encode(graph, tokens)
    assert np.min((alone * vectors(student, tokens)).sum(1)) > 0.999
    ids, mask = pad(tokens)
    batch = graph.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    assert np.allclose(batch, alone, atol=1e-5)


def test_no_length_is_computed_for_a_reshape(base_graph):
    """Every Reshape of the graph has a constant shape, and every node's output is read."""
    graph = onnx.load(base_graph).graph
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


def test_only_multiplications_with_weights_become_int8(teacher, base_graph, tmp_path):
    """Attention's products of two activations stay in float; all others are int8 or 7 bits."""
    largest = {}
    for bits in (7, 8):
        target = tmp_path / f"{bits}.onnx"
        source = tmp_path / "float.onnx"
        shutil.copyfile(base_graph, source)  # Optimum writes beside the graph
        quantize(source, teacher.model.config, target, bits)
        graph = onnx.load(target).graph
        count = check_operators(target)
        assert (count["MatMulInteger"], count["MatMul"]) == (4 * 4, 4 * 2)
        names = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
        weights = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.name in names
        ]
        largest[bits] = max(int(np.abs(array.astype(np.int32)).max()) for array in weights)
    assert 32 <= largest[7] <= 64 < largest[8] <= 128


@pytest.mark.parametrize("bits", [7, 8])
def test_optimum_and_onnxruntime_write_the_same_bytes(teacher, base_graph, tmp_path, bits):
    """The int8 graph is the same with and without Optimum."""
    pytest.importorskip("optimum.onnxruntime", reason="make optimum has it")
    source = tmp_path / "float.onnx"
    shutil.copyfile(base_graph, source)
    by_optimum(source, teacher.model.config, tmp_path / "optimum.onnx", bits)
    by_onnxruntime(source, tmp_path / "onnxruntime.onnx", bits)
    written = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("optimum", "onnxruntime")]
    assert written[0] == written[1]


def test_a_form_beaten_in_everything_is_not_on_the_front(tmp_path):
    """Dominance is at least as good in bytes, time, neighbours and cosine, and better in one."""
    good = Int8Candidate(Recipe(None, 0), tmp_path, 10, 5.0, 0.9, 0.99)
    recipe = Recipe(0.7, 0)
    assert good.dominates(Int8Candidate(recipe, tmp_path, 10, 5.0, 0.8, 0.99))
    assert good.dominates(Int8Candidate(recipe, tmp_path, 10, 5.0, 0.9, 0.98))
    assert not good.dominates(Int8Candidate(recipe, tmp_path, 9, 9.0, 0.1, 0.1))
    assert not good.dominates(Int8Candidate(recipe, tmp_path, 10, 5.0, 0.9, 0.99))


def test_a_form_that_the_gate_takes_comes_first(teacher, tokens, tmp_path):
    """Among eleven texts neighbours say nothing: the winner has the cosine that the gate asks for,
    if a form has it, whatever its time.
    """
    student = untrained(teacher, tokens[:8], replace(BASE, layers=1))
    few = tokens[8:18]
    forms = search(student, teacher.model.config, tokens[:8], few, tmp_path, 7)
    assert all(form.neighbours == 1.0 for form in forms)
    best = max(form.cosine for form in forms)
    for number, wanted in enumerate((best, 1.01)):
        folder = tmp_path / str(number)
        folder.mkdir()
        front = search(student, teacher.model.config, tokens[:8], few, folder, 7, wanted)
        assert number == 1 or front[0].cosine == best
        assert max(form.cosine for form in front) == best


def test_the_search_keeps_the_front_winner_first(teacher, tokens, tmp_path):
    """The winner is not dominated, is nearly as fast as the fastest, and its file exists."""
    student = untrained(teacher, tokens[:8], replace(BASE, layers=1))
    front = search(student, teacher.model.config, tokens[:8], tokens[24:], tmp_path, 8)
    assert front[0].path.exists()
    assert not any(other.dominates(form) for form in front for other in front)
    assert front[0].us <= 1.2 * min(form.us for form in front)


def test_distillation_brings_the_student_to_the_teacher(teacher):
    """Two layers of four, words in codes: sixty steps bring the cosine on unseen texts above .9."""
    seen, unseen = text_augmentation.split_held_out(TEXTS, 0.2)
    further = text_augmentation.augment(seen, [], np.random.default_rng(0))
    further = text_augmentation.without(further, unseen)
    config = StudentConfig(layers=2, heads=2, neurons=64, width=WIDTH, group=4, steps=0)
    unseen_tokens = teacher.tokenize(unseen)
    expected = teacher.encode(unseen_tokens)
    cosine = []
    for steps in (1, 60):
        student = distil(teacher, seen, further, replace(config, steps=steps), seed=0)
        cosine.append(float((vectors(student, unseen_tokens) * expected).sum(1).mean()))
    assert cosine[1] > max(0.9, cosine[0])


def test_the_same_seed_makes_the_same_student(teacher):
    """Nothing in distillation is random but by the seed: not even the order of the vocabulary."""
    config = StudentConfig(layers=1, heads=2, neurons=64, width=WIDTH, group=4, steps=20)
    states = []
    for _ in range(2):
        vocabulary = teacher.tokenizer.get_vocab()
        further = text_augmentation.augment(TEXTS, vocabulary, np.random.default_rng(0))
        states.append(distil(teacher, TEXTS, list(further), config, seed=7).state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True)
    )


def test_an_encoder_is_built_from_a_folder(language_model, tmp_path):
    """A language model's folder and texts give encoder.onnx, tokenizer.json and forms."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    encoding = Encoding("small", steps=2)
    forms = build_encoder(language_model, TEXTS, [], bundle, MAX_TOKENS, encoding)
    assert sorted(path.name for path in bundle.iterdir()) == ["encoder.onnx", "tokenizer.json"]
    assert forms[0]["bytes"] == (bundle / "encoder.onnx").stat().st_size


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_text_stays_on_its_side(catalog):
    """Held-out texts are not trained on, and another item moves none of several."""
    seen, unseen = text_augmentation.split_held_out(catalog, 0.1)
    assert set(seen) | set(unseen) == catalog
    assert not set(seen) & set(unseen)
    assert seen
    assert unseen
    with_one_more = text_augmentation.split_held_out([*catalog, "one more item"], 0.1)[1]
    assert len(unseen) == 1 or set(unseen) <= set(with_one_more)


@pytest.mark.parametrize("catalog", [["one thing"], ["", " "]])
def test_the_smallest_catalogs_have_an_encoder(language_model, tmp_path, catalog):
    """One item, or items without words: an encoder is built all the same."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    encoding = Encoding("nano", steps=1)
    assert build_encoder(language_model, catalog, [], bundle, MAX_TOKENS, encoding)


@pytest.mark.parametrize("wrong", [{"tier": "huge"}, {"target": "mips"}])
def test_unknown_tiers_and_targets_are_refused(wrong):
    """The message lists the valid ones."""
    with pytest.raises(
        ValueError, match=r"(tier|target): expected one of .*(base|avx2).*, found '(huge|mips)'"
    ):
        Encoding(**wrong)


@given(st.lists(st.text(alphabet="ab ", max_size=8), min_size=1, max_size=6))
def test_any_catalog_is_augmented(catalog):
    """Blank texts do no harm; new texts are made of the catalog's and the vocabulary's words."""
    vocabulary = ["word", "##ing", "a1"]
    new_texts = list(text_augmentation.augment(catalog, vocabulary, np.random.default_rng(0)))
    words = {word for text in catalog for word in text.split()} | {"word"}
    assert {word for text in new_texts for word in text.split()} <= words
