"""Qwen2.5-VL in small: which layers get adapters, that only they move, and that batches are what the model expects."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from lora_models import peft
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2TokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from lab_utils.beyond_text import larger, picture_questions, vision_language
from lab_utils.beyond_text.drawings import draw
from lab_utils.beyond_text.larger import QWEN
from lab_utils.beyond_text.picture_questions import (
    QUESTION,
    accuracy,
    ask,
    colour_questions,
    prepare,
    train,
    training_step,
)
from lab_utils.beyond_text.towers import LANGUAGE_ONLY, add_adapters, layers, targeted, tower_of, towers
from lab_utils.beyond_text.vision_language import (
    RATES,
    SIGHTED,
    SPECIAL,
    load_sighted,
    newer_shape,
    real_shape,
    tiny_model,
)
from lab_utils.checks import EXERCISES
from lab_utils.counts.architectures import ARCHITECTURES
from lab_utils.counts.parameters import lora_parameters
from lab_utils.device import GIB, Device
from lab_utils.errors import LabError
from lab_utils.finetune.adapter import take_off_adapter
from lab_utils.finetune.optimizer import build_optimizer
from lab_utils.finetune.recipe import Recipe
from lab_utils.finetune.supervision import IGNORED
from lab_utils.plots import loss_curve

VISION_MLP = {
    f"model.visual.blocks.{n}.mlp.{end}" for n in range(2) for end in ("gate_proj", "up_proj", "down_proj")
}
VISION = VISION_MLP | {f"model.visual.blocks.{n}.attn.{end}" for n in range(2) for end in ("qkv", "proj")}
MERGER = {"model.visual.merger.mlp.0", "model.visual.merger.mlp.2"}
MLP = {f"model.language_model.layers.{n}.mlp.{end}" for n in range(2) for end in ("gate_proj", "up_proj", "down_proj")}
ATTENTION = {f"model.language_model.layers.{n}.self_attn.{end}_proj" for n in range(2) for end in "qkvo"}
SELECTIONS = {
    "all-linear": ("all-linear", VISION | MERGER | MLP | ATTENTION),
    "q and v": (["q_proj", "v_proj"], {name for name in ATTENTION if name.endswith(("q_proj", "v_proj"))}),
    "MLP": (["gate_proj", "up_proj", "down_proj"], VISION_MLP | MLP),
    "pattern": (LANGUAGE_ONLY, MLP | ATTENTION),
    "a careless ending": (
        ["proj"],
        {name for name in VISION if name.endswith("attn.proj")} | {"model.visual.patch_embed.proj"},
    ),
    "merger": (r".*visual\.merger\.mlp\.[02]", MERGER),
}  # fmt: skip
PICTURES = [draw("house", "red", size=56, seed=1), draw("boat", "blue", size=84, seed=2)]
ANSWERS = ["red", "a blue boat"]


@pytest.fixture(scope="module")
def sighted():
    """(model, reader), plain; adapters that a test puts on are taken off by the next."""
    return tiny_model()


@pytest.fixture(scope="module")
def plain():
    """The same weights without quantization, to be read only."""
    return tiny_model(quantization="none")[0]


@pytest.fixture(scope="module")
def shape():
    return real_shape()


def batch_of(reader, answers=ANSWERS):
    return prepare(reader, PICTURES, [QUESTION] * 2, answers)


# Towers and targets


@pytest.mark.parametrize(("targets", "expected"), SELECTIONS.values(), ids=SELECTIONS)
def test_each_choice_of_targets_adapts_exactly_these_layers(sighted, plain, targets, expected):
    model = add_adapters(sighted[0], targets)
    layer = peft.tuners.lora.LoraLayer
    adapted = {name.removeprefix("base_model.model.") for name, m in model.named_modules() if isinstance(m, layer)}
    assert adapted == expected == set(targeted(plain, targets))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained) and len(trained) == 2 * len(expected)
    for tower in towers(plain, targets):
        here = {name: count for name, count in trained.items() if tower_of(name) == tower.name}
        assert tower.adapted == len(here) / 2 and tower.adapter_parameters == sum(here.values())


def test_towers_hold_all_of_the_model_quantized_or_not(sighted, plain):
    table = {tower.name: tower for tower in towers(plain)}
    assert sum(tower.parameters for tower in table.values()) == sum(p.numel() for p in plain.parameters())
    assert table["vision"].layers == len(VISION) and table["merger"].layers == len(MERGER)
    assert table["language"].layers == len(MLP | ATTENTION) + 1  # the head
    assert towers(take_off_adapter(sighted[0])) == list(table.values())
    assert set(layers(plain)) == VISION | MERGER | MLP | ATTENTION | {"lm_head", "model.visual.patch_embed.proj"}


def test_targets_that_select_nothing_are_named(sighted):
    with pytest.raises(LabError, match=r"target_modules='language_model' selects no layer.*down_proj.*qkv"):
        add_adapters(sighted[0], "language_model")  # a pattern has to fit the whole name
    with pytest.raises(LabError, match=r"selects model\.visual\.merger\.mlp\.1 too, a GELU"):
        add_adapters(sighted[0], r".*merger\.mlp\.\d")


def test_the_empty_shape_is_that_of_the_real_model(shape):
    """Its language model is Qwen2.5-3B, which the lab's own table of architectures counts in another way."""
    language = ARCHITECTURES["Qwen2.5-3B"]
    table = {tower.name: tower for tower in towers(shape, LANGUAGE_ONLY, rank=8)}
    assert table["language"].parameters == language.total_parameters()
    assert table["language"].adapter_parameters == lora_parameters(language, 8)
    width, depth, inner = 1280, 32, 3420  # the vision tower: two norms, attention and MLP with biases, in every block
    block = 2 * width + 4 * width * (width + 1) + 2 * inner * (width + 1) + width * (inner + 1)
    assert table["vision"].parameters == depth * block + 3 * 2 * 14 * 14 * width
    assert table["merger"].parameters == width + 5120 * 5121 + 2048 * 5121
    assert (table["vision"].adapted, table["merger"].adapted, table["language"].adapted) == (0, 0, 7 * 36)
    mlp = {tower.name: tower.adapted for tower in towers(shape, ["gate_proj", "up_proj", "down_proj"])}
    assert mlp == {"vision": 3 * 32, "merger": 0, "language": 3 * 36}
    assert all(p.device.type == "meta" for p in shape.parameters())


# Batches


def test_pixel_values_are_normalised_patches_in_groups_of_four(sighted):
    """Cut by hand: blocks of 2 × 2 patches row by row, each patch twice; the 84 pixels make 6 patches a side."""
    batch = batch_of(sighted[1])
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])  # CLIP's
    patches = []
    for picture in PICTURES:
        pixels = ((np.asarray(picture) / 255 - mean) / std).transpose(2, 0, 1)
        side = pixels.shape[1] // 14
        for down in range(0, side, 2):
            for across in range(0, side, 2):
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    top, left = 14 * (down + y), 14 * (across + x)
                    patch = pixels[:, top : top + 14, left : left + 14]
                    patches.append(np.stack([patch, patch], axis=1).ravel())
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4], [1, 6, 6]]
    assert np.allclose(batch["pixel_values"].numpy(), np.stack(patches), atol=1e-5)


def test_the_batch_is_the_real_processors(sighted, monkeypatch):
    """Qwen2_5_VLProcessor itself, let through without its part for films, which needs torchvision."""
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None)
    reader = sighted[1]
    processor = Qwen2_5_VLProcessor(image_processor=reader.image_processor, tokenizer=reader.tokenizer)
    prompts = [picture_questions.PROMPT.format(image="<|image_pad|>", question=QUESTION)] * 2
    texts = [prompt + answer + "<|im_end|>" for prompt, answer in zip(prompts, ANSWERS, strict=True)]
    expected = processor(images=PICTURES, text=texts, return_tensors="pt", padding=True, padding_side="right")
    batch = batch_of(reader)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(batch[name], expected[name]), name
    assert set(batch) - set(expected) == {"labels"}


def test_image_tokens_are_a_quarter_of_the_patches_and_labels_are_on_the_answer_alone(sighted):
    reader = sighted[1]
    batch = batch_of(reader)
    shown = (batch["input_ids"] == reader.image_token_id).sum(dim=1)
    assert shown.tolist() == (batch["image_grid_thw"].prod(dim=1) // 4).tolist() == [4, 9]
    assert batch["mm_token_type_ids"].sum(dim=1).tolist() == [4, 9]
    for row, answer in enumerate(ANSWERS):
        supervised = batch["labels"][row] != IGNORED
        assert reader.tokenizer.decode(batch["input_ids"][row][supervised]) == f"{answer} <|im_end|>"
        last = int(batch["attention_mask"][row].sum())
        assert supervised[:last].nonzero().flatten().tolist() == list(range(last - len(answer.split()) - 1, last))
    asked = batch_of(reader, answers=None)
    length = asked["input_ids"].shape[1]
    assert "labels" not in asked and torch.equal(asked["input_ids"][1], batch["input_ids"][1, :length])
    assert reader.tokenizer.decode(asked["input_ids"][1]).endswith("<|im_start|> assistant")


def test_lists_of_unequal_length_are_named(sighted):
    with pytest.raises(LabError, match="2 pictures, 1 questions, 2 answers: give as many of each"):
        prepare(sighted[1], PICTURES, [QUESTION], ANSWERS)
    for nothing in (None, []):
        with pytest.raises(LabError, match="0 pictures"):
            prepare(sighted[1], [], [], nothing)


# Steps


def test_a_step_moves_the_language_towers_adapters_and_not_one_other_bit(sighted):
    model, reader = add_adapters(sighted[0]), sighted[1]
    in_4_bits = [name for name, p in model.named_parameters() if hasattr(p, "quant_state")]
    assert len(in_4_bits) == len(VISION | MERGER | MLP | ATTENTION)
    optimizer = build_optimizer(model, 1e-2)
    training_step(model, optimizer, batch_of(reader))  # B is zero before: A gets its first gradient in the second step
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    training_step(model, optimizer, batch_of(reader))
    for name, parameter in model.named_parameters():
        adapter = "lora_" in name
        assert adapter == (not torch.equal(parameter, before[name])), name
        assert adapter == (parameter.grad is not None and bool(parameter.grad.any())), name
        assert not adapter or tower_of(name) == "language"


def test_the_newer_family_names_its_vision_blocks_otherwise_and_the_pattern_fits_both(shape):
    """Two blocks: qkv, proj and two of the MLP each; three mergers of two layers; seven layers a block of language."""
    newer = newer_shape()
    assert [(tower.name, tower.layers) for tower in towers(newer)] == [("vision", 8), ("merger", 6), ("language", 15)]
    for targets, older, hits in (
        (["gate_proj", "up_proj", "down_proj"], 96, 0), (["q_proj", "v_proj"], 0, 0), (LANGUAGE_ONLY, 0, 0),
        (["linear_fc1", "linear_fc2"], None, 4),
    ):  # fmt: skip
        assert towers(newer, targets)[0].adapted == hits
        if older is not None:
            assert towers(shape, targets)[0].adapted == older
    assert [tower.adapted for tower in towers(newer)] == [0, 0, 14]


@torch.no_grad()
def test_the_loss_is_the_models_own_on_the_answers_and_depends_on_the_picture(plain, sighted):
    batch = batch_of(sighted[1])
    logits = plain(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    pairs = [
        torch.nn.functional.cross_entropy(logits[row, n - 1][None], batch["labels"][row, n][None])
        for row, n in (batch["labels"] != IGNORED).nonzero().tolist()
    ]
    loss = plain(**batch).loss
    assert len(pairs) == 2 + 4 and torch.allclose(loss, torch.stack(pairs).mean(), atol=1e-5)
    swapped = prepare(sighted[1], [draw("house", "green", size=56, seed=1), PICTURES[1]], [QUESTION] * 2, ANSWERS)
    assert torch.equal(swapped["input_ids"], batch["input_ids"])
    assert abs(plain(**swapped).loss - loss) > 1e-3


def test_the_same_seed_is_the_same_model_and_random_numbers_go_on():
    torch.manual_seed(3)
    one, _ = tiny_model(seed=5, quantization="none")
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    other, _ = tiny_model(seed=6, quantization="none")
    again, _ = tiny_model(seed=5, quantization="none")
    weights = [list(model.parameters()) for model in (one, other, again)]
    assert all(map(torch.equal, weights[0], weights[2])) and not all(map(torch.equal, weights[0], weights[1]))


@pytest.mark.training
def test_adapters_learn_to_name_colours_on_drawings_that_they_have_not_seen(sighted):
    """Two colours here, to be quick; with the pictures' colours swapped the answers are swapped."""
    model, reader = add_adapters(sighted[0]), sighted[1]
    recipe = Recipe(steps=60, batch_size=16, learning_rate=5e-3)
    history = train(model, reader, colour_questions(("red", "green"), range(8)), recipe)
    assert [row["step"] for row in history] == list(range(1, 61)) and not model.training
    assert "step 60 of 60" in loss_curve(history).axes[0].get_title(loc="left")
    unseen = colour_questions(("red", "green"), range(100, 102))
    swap = {"red": "green", "green": "red"}
    turned = [dataclasses.replace(example, answer=swap[example.answer]) for example in unseen]
    assert accuracy(model, reader, unseen).value >= 0.9 and accuracy(model, reader, turned).value <= 0.1
    with model.disable_adapter():
        assert accuracy(model, reader, unseen).value < 0.3


def test_an_answer_is_what_the_likeliest_tokens_say(plain, sighted):
    reader = sighted[1]
    batch = prepare(reader, PICTURES[:1], [QUESTION])
    ids = batch.pop("input_ids")
    for _ in range(3):
        shown = (ids == reader.image_token_id).long()
        with torch.no_grad():
            logits = plain(**{**batch, "input_ids": ids, "mm_token_type_ids": shown,
                              "attention_mask": torch.ones_like(ids)}).logits  # fmt: skip
        ids = torch.cat([ids, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    expected = reader.tokenizer.decode(ids[0, -3:], skip_special_tokens=True)
    assert ask(plain, reader, PICTURES[0], max_new_tokens=3) == expected.strip()


def test_training_that_blows_up_is_stopped(sighted):
    model, reader = add_adapters(sighted[0]), sighted[1]
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    with pytest.raises(LabError, match=r"loss (is|of) nan"):
        training_step(model, build_optimizer(model, 1e-2), batch_of(reader))


# The choice of model, dtype and optimizer, on a machine that has no GPU


def test_what_the_real_model_takes_is_counted_from_its_shape():
    """Two bytes per number to download; on a GPU, 4.127 bits (page 06) in every linear layer but the head."""
    shape = real_shape()
    numbers = sum(parameter.numel() for parameter in shape.parameters())
    head = shape.get_output_embeddings()
    packed = sum(
        one.weight.numel() for one in layers(shape).values() if isinstance(one, torch.nn.Linear) and one is not head
    )
    assert QWEN.download_bytes == 2 * numbers
    assert QWEN.weights_bytes == round(packed * (4 + 8 / 64 + 32 / (64 * 256)) / 8) + 2 * (numbers - packed)
    assert RATES["qwen2.5-vl-3b"] == QWEN.learning_rate and RATES.keys() == SIGHTED.keys()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_a_gpu_the_real_model_is_loaded_in_nf4_in_the_gpus_dtype(monkeypatch, capsys, dtype):
    asked = {}

    def from_pretrained(where, **settings):
        asked["model"] = where, settings
        return torch.nn.Linear(1, 1)

    def tokenizer(where, **settings):
        asked["tokenizer"] = where
        return "tokenizer"

    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr(vision_language, "find_device", lambda: Device("cuda", "a GPU", dtype, "pretended"))
    monkeypatch.setattr(larger, "total_memory_bytes", lambda: 15 * GIB)
    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "from_pretrained", from_pretrained)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", tokenizer)
    processor = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil.from_pretrained"
    monkeypatch.setattr(processor, lambda where: f"processor of {where}")
    _, reader = load_sighted("qwen2.5-vl-3b")
    where, settings = asked["model"]
    config = settings["quantization_config"]
    assert where == asked["tokenizer"] == QWEN.source and reader.image_processor == f"processor of {QWEN.source}"
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == settings["dtype"] == getattr(torch, dtype)
    assert settings["device_map"] == {"": 0} and settings["attn_implementation"] == "sdpa"
    said = capsys.readouterr().out
    for line in ("download: 7.5 GB", "memory: 2.2 GiB of weights", "this GPU has 15.0 GiB", "adapter: 0.0002 (QLoRA"):
        assert line in said
    assert ("known to give NaN" in said) == (dtype == "float16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder as the hub has one: Qwen's tokenizer (of single bytes), its image processor's settings, weights."""
    folder = tmp_path_factory.mktemp("qwen")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    tokenizer = Qwen2TokenizerFast(tokenizer_object=bytewise, additional_special_tokens=[*SPECIAL], **named)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_processor_type"] = "Qwen2VLImageProcessor"  # the hub's name for it
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    Qwen2_5_VLForConditionalGeneration(vision_language.tiny_config(tokenizer)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_checkpoint_from_the_hub_is_read_taught_and_asked_in_half_precision(checkpoint, monkeypatch, dtype):
    monkeypatch.setattr(vision_language, "find_device", lambda: Device("cpu", "a processor", dtype, "pretended"))
    monkeypatch.setitem(SIGHTED, "qwen2.5-vl-3b", dataclasses.replace(QWEN, source=str(checkpoint)))
    model, reader = load_sighted("qwen2.5-vl-3b")
    batch = prepare(reader, PICTURES[:1], [QUESTION], ["red"])
    asked = picture_questions.PROMPT.format(image=4 * "<|image_pad|>", question=QUESTION)
    assert reader.tokenizer.decode(batch["input_ids"][0]) == f"{asked}red<|im_end|>"
    assert model.dtype == getattr(torch, dtype)
    pupil = add_adapters(model)
    assert {p.dtype for p in pupil.parameters() if p.requires_grad} == {torch.float32}
    assert ask(pupil, reader, PICTURES[0]) != "red"
    train(pupil, reader, colour_questions(("red",), [1]), Recipe(steps=40, batch_size=4, learning_rate=1e-2))
    assert ask(pupil, reader, PICTURES[0]) == "red"


def test_a_question_holds_no_picture_and_ends_no_turn(sighted):
    """Letters of a control token in a question are text; the prompt's own tokens are as many as without them."""
    reader = sighted[1]

    def write(said):
        return picture_questions.PROMPT.format(image=4 * "<|image_pad|>", question=said[0])

    plain = reader.control.prompt_ids(reader.tokenizer, [QUESTION], write)
    assert plain == reader.tokenizer(write([QUESTION]), add_special_tokens=False)["input_ids"]
    special = set(reader.tokenizer.added_tokens_decoder) - {reader.tokenizer.unk_token_id}
    asked = reader.control.prompt_ids(reader.tokenizer, [f"{QUESTION} <|image_pad|><|im_end|>"], write)
    assert len(asked) > len(plain) and asked.count(reader.image_token_id) == 4
    assert [one for one in asked if one in special] == [one for one in plain if one in special]



def test_a_hub_that_does_not_answer_is_said(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no connection\nand much more")

    monkeypatch.setattr(vision_language, "find_device", lambda: Device("cuda", "a GPU", "bfloat16", "pretended"))
    monkeypatch.setattr(larger, "total_memory_bytes", lambda: 15 * GIB)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(LabError, match=r"3B-Instruct could not be loaded.*no connection\. load_sighted\('tiny'\)"):
        load_sighted("qwen2.5-vl-3b")
    with pytest.raises(LabError, match=r"Unknown model 'gpt'\. Choose one of: tiny, qwen2\.5-vl-3b"):
        load_sighted("gpt")


def test_the_optimizer_has_the_adapters_on_every_device(sighted):
    model = add_adapters(sighted[0])
    for device in (Device("cuda", "a GPU", "bfloat16", "pretended"), Device("cpu", "a CPU", "float32", "pretended")):
        optimizer = build_optimizer(model, 1e-3, device)
        assert type(optimizer) is torch.optim.AdamW
        assert len(optimizer.param_groups[0]["params"]) == 2 * len(MLP | ATTENTION)


def test_nobody_gets_the_real_one_without_naming_it_and_a_cpu_computes_in_float32(monkeypatch, capsys):
    monkeypatch.setattr(vision_language, "find_device", lambda: Device("cpu", "a CPU", "bfloat16", "pretended"))
    model, reader = load_sighted(quantization="none")
    assert "tiny and random, none, on cpu" in capsys.readouterr().out
    assert model.dtype == torch.float32 and reader.tokenizer.eos_token_id == model.config.text_config.eos_token_id


def test_the_exercise_chooses_what_peft_adapts(plain, sighted):
    names = [name for name, _ in plain.named_modules()]
    chosen = EXERCISES["language_only"].solution(names).tolist()
    assert {name for name, one in zip(names, chosen, strict=True) if one} == MLP | ATTENTION
    pattern = EXERCISES["language_only"].reward.split()[-1].removesuffix(".")
    model = add_adapters(sighted[0], pattern.replace("…", "k_proj|v_proj|o_proj|gate_proj|up_proj"))
    adapted = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert {name.removeprefix("base_model.model.") for name in adapted} == MLP | ATTENTION  # the reward says so


@pytest.mark.parametrize(("change", "said"), [
    ({"questions": ["a", None]}, "Question 1 is None"), ({"questions": [3, "b"]}, "Question 0 is 3"),
    ({"questions": ["a", "\ud83d"]}, r"Question 1 holds U\+D83D, half a character"),
    ({"answers": ["red", 1]}, "Answer 1 is 1"), ({"pictures": ["a.png", None]}, "Picture 0 is str"),
])  # fmt: skip
def test_what_is_no_question_answer_or_picture_is_named_by_its_number(sighted, change, said):
    given = {"pictures": PICTURES, "questions": [QUESTION] * 2, "answers": ANSWERS} | change
    with pytest.raises(LabError, match=said):
        prepare(sighted[1], **given)


def test_letters_of_control_tokens_in_question_and_answer_are_text(sighted):
    """As many pieces of the picture, turns and ends as without them; the answer ends once."""
    reader = sighted[1]
    odd = "What <|im_end|><|image_pad|> {image} colour?"
    batch = prepare(reader, PICTURES[:1], [odd], ["red<|im_end|>"])
    plain = prepare(reader, PICTURES[:1], [QUESTION], ["red"])
    special = set(reader.tokenizer.added_tokens_decoder) - {reader.tokenizer.unk_token_id}

    def commands(made, name="input_ids"):
        return [token for token in made[name][0].tolist() if token in special]

    assert commands(batch) == commands(plain) and commands(batch, "labels") == commands(plain, "labels")
    assert int(batch["mm_token_type_ids"].sum()) == int(plain["mm_token_type_ids"].sum())


def test_a_loss_that_is_not_finite_changes_nothing(sighted):
    model, reader = add_adapters(sighted[0]), sighted[1]
    optimizer = build_optimizer(model, 1e-2)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(float("inf"))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(LabError, match=r"loss is nan|loss is inf"):
        training_step(model, optimizer, batch_of(reader))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if p.requires_grad)


def test_accuracy_is_a_share_with_its_interval(monkeypatch):
    """3 of 4 right; Wilson's interval of that, by hand, is 0.301 to 0.954."""
    examples = picture_questions.colour_questions(["red"], range(1))[:4]
    answers = iter(["red", "blue", "red", "red"])
    monkeypatch.setattr(picture_questions, "ask", lambda *_: next(answers))
    found = picture_questions.accuracy(None, None, examples)
    assert (found.value, found.n, found.how) == (0.75, 4, "Wilson")
    assert (found.low, found.high) == pytest.approx((0.301, 0.954), abs=1e-3)


def test_of_nothing_there_is_no_accuracy_and_no_training(sighted):
    model, reader = sighted
    for call in (lambda: picture_questions.accuracy(model, reader, []),
                 lambda: picture_questions.train(model, reader, [], Recipe())):  # fmt: skip
        with pytest.raises(LabError, match="no examples"):
            call()


@pytest.mark.parametrize("change", [
    {"target_modules": "*q_proj"}, {"target_modules": None}, {"target_modules": 3}, {"target_modules": [1]},
    {"rank": 0}, {"rank": True}, {"rank": "8"}, {"alpha": 0}, {"alpha": float("nan")}, {"alpha": "16"},
])  # fmt: skip
def test_adapters_of_no_sense_are_refused_by_name(sighted, change):
    ((name, _),) = change.items()
    with pytest.raises(LabError, match=f"{name}="):
        add_adapters(sighted[0], **change)
