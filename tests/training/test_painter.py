"""The painter: the same loop for the tiny one and for a Stable Diffusion, and diffusers' adapters on it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_stable_diffusion
import torch
from peft import LoraConfig

from lab_utils.beyond_text.drawings import COLOURS, NEW_THING, THINGS, caption, draw
from lab_utils.beyond_text.larger import STABLE_DIFFUSION
from lab_utils.beyond_text.painter import PAINTERS, Painter, decode_latents, encode_pictures, load_painter, paint, read
from lab_utils.beyond_text.painter_training import (
    HELD_OUT,
    PARTS,
    STYLED,
    PainterRecipe,
    _loss,
    adapter_recipe,
    first_pictures,
    style_pictures,
    train,
    train_base,
)
from lab_utils.device import Device
from lab_utils.errors import LabError

CPU = Device("cpu", "a processor", "float32", "it is a test")
SHORT = PainterRecipe(steps=6, batch_size=4, checkpoint_every=2)
ASKED = ["a red house", "a blue boat, neon"]


@pytest.fixture(scope="module")
def pictures():
    return style_pictures(copies=1)


@pytest.fixture
def painter():
    """Untrained, which is as good for laws; ready, so that it paints."""
    made = load_painter("tiny", device=CPU)
    made.ready = True
    return made


def add_neon(painter: Painter, rank: int = 2, alpha: float = 2.0) -> None:
    torch.manual_seed(0)
    painter.unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=PARTS), adapter_name="neon")


def teach_neon(painter: Painter) -> None:
    """An adapter that changes something: its B is not zero any more."""
    add_neon(painter)
    with torch.no_grad():
        for name, parameter in painter.unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))


def ship(painter: Painter, folder) -> None:
    """Save the adapter, take it off, and load it, as the page does."""
    painter.unet.save_lora_adapter(folder, adapter_name="neon")
    painter.unet.delete_adapters("neon")
    file = "pytorch_lora_weights.safetensors"
    painter.unet.load_lora_adapter(folder, prefix=None, weight_name=file, adapter_name="neon")


def same(one: list, other: list) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def largest_step(one: list, other: list) -> int:
    return max(
        abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x.tobytes(), y.tobytes(), strict=True)
    )


# --- the painter ---


def test_nobody_gets_the_real_one_without_naming_it(monkeypatch):
    """Whatever the device is: tests/pages/test_pretended_pages.py asks on a card."""
    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("downloads"))
    assert load_painter(device=CPU).name == "tiny"
    with pytest.raises(LabError, match=r"Unknown painter 'dall-e'\. Choose one of: tiny, stable-diffusion"):
        load_painter("dall-e", device=CPU)


def test_the_real_one_that_cannot_be_loaded_says_so(monkeypatch):
    from diffusers import StableDiffusionPipeline

    def no_network(*arguments, **options):
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", no_network)
    with pytest.raises(LabError, match=r"could not be loaded: cannot reach the hub.*load_painter\('tiny'\)"):
        load_painter("stable-diffusion", device=CPU)
    assert PAINTERS["stable-diffusion"].source.startswith("stable-diffusion-v1-5/")  # where the articles' one went


def test_what_the_real_one_takes_is_counted_and_printed_before_it_is_fetched(monkeypatch, capsys):
    """Its parts by their sizes alone: diffusers' and transformers' defaults, apart from what is given here."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        parts = (
            UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
            CLIPTextModel(CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)),
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4),
        )  # fmt: skip
    numbers = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert (STABLE_DIFFUSION.download_bytes, STABLE_DIFFUSION.weights_bytes) == (4 * numbers, 2 * numbers)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", lambda *_, **__: print("fetched"))
    with pytest.raises(AttributeError):  # the stand-in gave nothing
        load_painter("stable-diffusion", device=CPU)
    said = capsys.readouterr().out
    wanted = ("download: 4.3 GB", "memory: 2.0 GiB", f"learning rate of an adapter: {1e-4:g} (diffusers", "fetched")
    places = [said.find(one) for one in wanted]
    assert -1 not in places and places == sorted(places), said


def test_a_card_without_room_is_named(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(LabError, match="The painter tiny does not fit into the memory of a processor"):
        load_painter("tiny", device=CPU)


def test_an_adapter_of_the_real_one_is_taught_at_the_rate_that_was_printed(painter):
    assert adapter_recipe(replace(painter, name="stable-diffusion")).learning_rate == STABLE_DIFFUSION.learning_rate


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(tiny_stable_diffusion.save(tmp_path_factory.mktemp("stable-diffusion")))


@pytest.fixture(params=["bfloat16", "float16"])
def real(request, checkpoint, monkeypatch, capfd):
    """A tiny Stable Diffusion of random weights, loaded as the real one is, in a GPU's half precision."""
    monkeypatch.setitem(PAINTERS, "stable-diffusion", replace(STABLE_DIFFUSION, source=checkpoint))
    loaded = load_painter("stable-diffusion", device=replace(CPU, compute_dtype=request.param))
    said = "".join(capfd.readouterr())
    assert "float32" not in said and "torchvision" not in said, said
    return loaded


def test_stable_diffusion_is_loaded_frozen_in_half_precision(real):
    parts = (real.unet, real.text_encoder, real.vae)
    facts = {(one.dtype, one.requires_grad) for model in parts for one in model.parameters()}
    assert facts == {(real.device.torch_dtype, False)} and real.dtype == real.device.torch_dtype
    assert (real.size, real.guidance, real.ready) == (64, 7.5, True)
    assert real.scheduler.config.prediction_type == "epsilon"


def test_it_paints_what_its_own_pipeline_paints(checkpoint, monkeypatch):
    """In float32: guidance, schedule, noise and autoencoder are diffusers' to a rounding."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    monkeypatch.setitem(PAINTERS, "stable-diffusion", replace(STABLE_DIFFUSION, source=checkpoint))
    mine = paint(load_painter("stable-diffusion", device=CPU), ASKED, steps=5, seed=3)
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    theirs = pipe(ASKED, num_inference_steps=5, guidance_scale=7.5, latents=noise).images
    assert largest_step(mine, theirs) <= 1 and np.array(mine[0]).std() > 10


def test_an_adapter_on_stable_diffusion_is_trained_shipped_and_fused_as_on_the_tiny_one(real, tmp_path):
    """The page's calls, in its order."""
    plain = paint(real, ASKED, steps=2)
    add_neon(real)
    recipe = replace(adapter_recipe(real, 3), learning_rate=0.05)
    told = style_pictures(["house"], copies=1, size=real.size)
    history = train(real, *told, recipe, tmp_path)
    assert [row["pictures"] for row in history] == [2] * 3 and all(math.isfinite(row["loss"]) for row in history)
    assert {p.dtype for name, p in real.unet.named_parameters() if "lora_" in name} == {torch.float32}
    taught = paint(real, ASKED, steps=2)
    assert not same(taught, plain)
    real.unet.disable_lora()
    assert same(paint(real, ASKED, steps=2), plain)
    real.unet.enable_lora()
    ship(real, tmp_path / "shelf")
    assert same(paint(real, ASKED, steps=2), taught)
    real.unet.fuse_lora()
    assert not same(paint(real, ASKED, steps=2), plain)


def test_a_seed_decides_the_weights_and_leaves_the_callers_chance_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two, other = (load_painter("tiny", seed=seed, device=CPU) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    first, second, third = (next(made.unet.parameters()) for made in (one, two, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert not any(parameter.requires_grad for parameter in one.unet.parameters())


def test_encoding_loses_nothing(painter):
    drawings = [draw("tree", "green", seed=1), draw("fish", "red", seed=2, style="neon")]
    latents = encode_pictures(painter, drawings)
    assert latents.shape == (2, 12, 16, 16) and -1 <= latents.min() and latents.max() <= 1
    assert same(decode_latents(painter, latents), drawings)
    with pytest.raises(LabError, match=r"\(64, 64\) pixels: give 32 × 32"):
        encode_pictures(painter, [draw("tree", "green", size=64)])


def test_captions_become_states_and_unknown_words_are_named(painter):
    states = read(painter, [*ASKED, ""])
    assert states.shape == (3, 8, 64) and not torch.equal(states[0], states[1])
    every = [caption(thing, colour, style) for thing in THINGS for colour in COLOURS for style in ("ink", "neon")]
    read(painter, every)  # all words are known
    with pytest.raises(LabError, match="cannot read 'a pink dragon': at most 8 words, out of: a an red"):
        read(painter, ["a red house", "a pink dragon"])
    with pytest.raises(LabError, match="at most 8 words"):
        read(painter, ["a red house, a red house, a red house"])


def test_painting_depends_on_seed_and_place_alone(painter):
    assert same(paint(painter, ASKED, steps=2), paint(painter, ASKED, steps=2))
    assert not same(paint(painter, ASKED, steps=2), paint(painter, ASKED, steps=2, seed=1))
    assert largest_step(paint(painter, ASKED[:1], steps=2), paint(painter, ASKED, steps=2)[:1]) <= 1
    painter.ready = False
    with pytest.raises(LabError, match="not trained yet"):
        paint(painter, ASKED)


def test_guidance_one_is_the_caption_alone_and_bad_values_are_refused(painter):
    """Guided by 1, the guess without a caption drops out: u + 1·(c − u) = c."""
    with torch.no_grad():
        painter.scheduler.set_timesteps(1)
        noise = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(0))
        moment = painter.scheduler.timesteps[0]
        guess = painter.unet(noise, moment, read(painter, ASKED[:1])).sample
        expected = decode_latents(painter, painter.scheduler.step(guess, moment, noise).prev_sample)
    assert largest_step(paint(painter, ASKED[:1], steps=1, guidance=1.0), expected) <= 1
    wrong_steps, wrong_guidance = (0, -1, 1.5, True, None, "3", math.nan), (0.5, math.nan, math.inf, True, "2")
    for wrong in (*({"steps": one} for one in wrong_steps), *({"guidance": one} for one in wrong_guidance)):
        with pytest.raises(LabError, match="take 1 or more"):
            paint(painter, ASKED, **wrong)
    with pytest.raises(LabError, match="captions=0"):
        paint(painter, [])


@pytest.mark.parametrize("caption", ["a red house <pad>", "<unknown>", "a \u00fcbung", 3, None])
def test_what_is_no_caption_is_refused(painter, caption):
    """The letters of a control token would be read as that token, and silently mean nothing."""
    with pytest.raises(LabError, match=r"cannot read|not a list of texts"):
        read(painter, [caption])


def test_what_is_no_picture_is_refused(painter):
    with pytest.raises(LabError, match="str is not a picture"):
        encode_pictures(painter, ["house.png"])


@pytest.mark.parametrize("error", [OSError("no"), ValueError("no"), RuntimeError("no\nmore"), EOFError()], ids=repr)
def test_whatever_a_damaged_download_raises_is_told_with_a_way_out(error, monkeypatch):
    import diffusers

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", fails)
    with pytest.raises(LabError, match=r"could not be loaded: .*load_painter\('tiny'\) needs none"):
        load_painter("stable-diffusion", device=CPU)


# --- recipes ---


def test_what_is_kept_from_the_painter_is_not_in_its_pictures():
    _, captions = first_pictures(copies=5)
    assert not any(NEW_THING in one or "neon" in one for one in captions)
    assert not any(caption(*pair) in one for pair in HELD_OUT for one in captions)
    assert sum("chalk" in one for one in captions) * 5 == len(captions)
    assert {word for one in captions for word in one.replace(",", "").split()} >= set(COLOURS)
    neon, words = style_pictures(copies=2)
    assert len(neon) == len(words) == 2 * len(STYLED) * len(COLOURS)
    assert {one.split()[2].rstrip(",") for one in words} == set(STYLED)


def test_the_learning_rate_rises_stays_and_falls():
    recipe = PainterRecipe(steps=100, learning_rate=0.01)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.001) and rates[9:60] == [0.01] * 51
    assert rates[80] == pytest.approx(0.005) and rates[99] == pytest.approx(0.01 * 0.025)
    for name, value in {"steps": 0, "learning_rate": 0.0, "average": 1.0, "seed": -1, "drop_captions": 1.5}.items():
        with pytest.raises(LabError, match=f"{name}={value} is out of range"):
            PainterRecipe(**{name: value})


def test_stable_diffusion_gets_a_gentler_recipe(painter):
    real = replace(painter, name="stable-diffusion")
    assert adapter_recipe(real).learning_rate < adapter_recipe(painter).learning_rate / 10
    assert adapter_recipe(real).batch_size == 2 and adapter_recipe(real, 7).steps == 7


@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
def test_each_kind_of_painter_is_held_against_its_own_target(painter, pictures, kind):
    """A U-Net that knows the answer has no loss: the clean picture, the noise, or √ᾱ·noise − √(1−ᾱ)·picture."""
    from diffusers import DDIMScheduler

    painter.scheduler = DDIMScheduler.from_config(painter.scheduler.config, prediction_type=kind)
    clean = encode_pictures(painter, pictures[0])
    recipe = PainterRecipe(batch_size=4, seed=1)
    chance = torch.Generator().manual_seed(1_000_003)
    chosen = torch.randint(len(clean), (4,), generator=chance)
    torch.rand(4, generator=chance)
    moments = torch.randint(1000, (4,), generator=chance)
    noise = torch.randn(clean[chosen].shape, generator=chance)
    kept = painter.scheduler.alphas_cumprod[moments].reshape(-1, 1, 1, 1)
    answers = {
        "sample": clean[chosen],
        "epsilon": noise,
        "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * clean[chosen],
    }

    def knows(noisy, moment, words):
        assert torch.equal(moment, moments) and words.shape == (4, 8, 64)
        assert torch.allclose(noisy, kept.sqrt() * clean[chosen] + (1 - kept).sqrt() * noise, atol=1e-6)
        return SimpleNamespace(sample=answers[kind])

    painter.unet = knows
    assert float(_loss(painter, clean, pictures[1], recipe, 0)) == pytest.approx(0, abs=1e-10)


# --- training ---


def test_an_adapter_moves_and_the_base_does_not(painter, pictures, tmp_path):
    before = {name: parameter.clone() for name, parameter in painter.unet.named_parameters()}
    add_neon(painter)
    history = train(painter, *pictures, SHORT, tmp_path)
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) and row["pictures"] == 4 for row in history)
    now = dict(painter.unet.named_parameters())
    plain = {name.replace(".base_layer", ""): parameter for name, parameter in now.items() if "lora_" not in name}
    assert plain.keys() == before.keys()
    assert all(torch.equal(parameter, before[name]) for name, parameter in plain.items())
    moved = [bool(parameter.abs().sum() > 0) for name, parameter in now.items() if "lora_B" in name]
    assert all(moved) and len(moved) > 30


def test_killed_at_any_step_it_goes_on_with_the_same_numbers(pictures, tmp_path):
    def run(folder, die_at=None):
        painter = load_painter("tiny", device=CPU)
        add_neon(painter)

        def on_step(history):
            if len(history) == die_at:
                raise KeyboardInterrupt

        history = train(painter, *pictures, SHORT, folder, on_step=on_step)
        weights = [parameter for name, parameter in painter.unet.named_parameters() if "lora_" in name]
        return [row["loss"] for row in history], weights

    losses, weights = run(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", die_at=5)
    again, resumed = run(tmp_path / "two")
    assert again == losses and all(map(torch.equal, weights, resumed))
    told = []
    finished = load_painter("tiny", device=CPU)
    add_neon(finished)
    assert [row["loss"] for row in train(finished, *pictures, SHORT, tmp_path / "two", on_step=told.append)] == losses
    assert [len(history) for history in told] == [SHORT.steps]  # loaded, not trained: told of it once


def test_another_recipe_is_another_run_and_a_broken_file_is_no_end(painter, pictures, tmp_path, capsys):
    add_neon(painter)
    train(painter, *pictures, replace(SHORT, steps=1), tmp_path)
    painter.unet.delete_adapters("neon")
    add_neon(painter)
    train(painter, *pictures, replace(SHORT, steps=1, seed=1), tmp_path)
    states = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]  # the others are locks
    assert len(states) == 2
    for path in states:
        path.write_bytes(b"half a file")
    painter.unet.delete_adapters("neon")
    add_neon(painter)
    assert len(train(painter, *pictures, replace(SHORT, steps=1), tmp_path)) == 1
    assert "cannot be read: training starts from the beginning" in capsys.readouterr().out


def test_the_base_is_trained_once_and_a_trained_one_left_alone(tmp_path):
    painter = load_painter("tiny", device=CPU)
    before = next(painter.text_encoder.parameters()).clone()
    assert len(train_base(painter, replace(SHORT, steps=1), tmp_path)) == 1
    assert painter.ready and not torch.equal(next(painter.text_encoder.parameters()), before)
    assert not any(parameter.requires_grad for parameter in painter.unet.parameters())
    assert train_base(painter, SHORT, tmp_path) == []


def test_nothing_to_train_and_crooked_data_are_refused(painter, pictures, tmp_path):
    with pytest.raises(LabError, match="Nothing in this painter is trainable"):
        train(painter, *pictures, SHORT, tmp_path)
    add_neon(painter)
    with pytest.raises(LabError, match="24 pictures and 1 captions"):
        train(painter, pictures[0], ASKED[:1], SHORT, tmp_path)
    with pytest.raises(LabError, match="The loss is nan at step 1: lower learning_rate"):
        with torch.no_grad():
            painter.unet.conv_in.base_layer.weight.fill_(float("nan"))
        train(painter, *pictures, SHORT, tmp_path)


def test_a_painter_in_half_precision_trains_its_adapter_in_float32(painter, pictures, tmp_path):
    for model in (painter.unet, painter.text_encoder):
        model.bfloat16()
    painter.dtype = torch.bfloat16
    add_neon(painter)
    train(painter, *pictures, replace(SHORT, steps=2), tmp_path)
    dtypes = {"lora_" in name: parameter.dtype for name, parameter in painter.unet.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert len(paint(painter, ASKED, steps=1)) == 2


# --- diffusers' adapter calls, as notebook 12 makes them ---


def test_off_is_exact_and_fused_is_rounding(painter):
    plain = paint(painter, ASKED, steps=2)
    add_neon(painter)
    assert same(paint(painter, ASKED, steps=2), plain)  # B = 0
    painter.unet.delete_adapters("neon")
    teach_neon(painter)
    beside = paint(painter, ASKED, steps=2)
    assert not same(beside, plain)
    painter.unet.disable_lora()
    assert same(paint(painter, ASKED, steps=2), plain)
    painter.unet.enable_lora()
    painter.unet.fuse_lora()
    assert largest_step(paint(painter, ASKED, steps=2), beside) <= 1
    painter.unet.unfuse_lora()
    painter.unet.set_adapters("neon", weights=0.0)
    assert largest_step(paint(painter, ASKED, steps=2), plain) <= 1


def test_saved_and_loaded_it_paints_the_same_and_keeps_alpha(painter, tmp_path):
    torch.manual_seed(0)
    painter.unet.add_adapter(LoraConfig(r=2, lora_alpha=6.0, target_modules=PARTS), adapter_name="neon")
    with torch.no_grad():
        for name, parameter in painter.unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    taught = paint(painter, ASKED, steps=2)
    ship(painter, tmp_path)
    assert same(paint(painter, ASKED, steps=2), taught)


def test_the_pipelines_older_call_loses_alpha(painter, tmp_path):
    """What notebook 12 warns of: `save_lora_weights` without metadata, and α is r when it is loaded."""
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    add_neon(painter, rank=2, alpha=6.0)
    weights = get_peft_model_state_dict(painter.unet, adapter_name="neon")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=weights)
    painter.unet.delete_adapters("neon")
    state = StableDiffusionPipeline.lora_state_dict(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    state = state[0] if isinstance(state, tuple) else state
    painter.unet.load_lora_adapter(state, prefix="unet", adapter_name="neon")
    assert painter.unet.peft_config["neon"].lora_alpha == 2  # was 6


def test_a_second_adapter_trains_alone_and_both_paint_together(painter, pictures, tmp_path):
    teach_neon(painter)
    neon = {name: parameter.clone() for name, parameter in painter.unet.named_parameters() if ".neon." in name}
    alone = paint(painter, ASKED, steps=2)
    painter.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=PARTS), adapter_name="rocket")
    train(painter, *pictures, replace(SHORT, steps=2), tmp_path)
    now = dict(painter.unet.named_parameters())
    assert all(torch.equal(now[name], parameter) for name, parameter in neon.items())
    painter.unet.set_adapters(["neon", "rocket"], weights=[1.0, 0.0])
    assert largest_step(paint(painter, ASKED, steps=2), alone) <= 1
    painter.unet.set_adapters(["neon", "rocket"], weights=[1.0, 1.0])
    assert not same(paint(painter, ASKED, steps=2), alone)
