"""A diffusion model that paints from words: a tiny one that a notebook trains itself, or a real Stable Diffusion.

Both are diffusers' U-Net with a CLIP text encoder, and everything here and in `painter_training` treats them alike.
What differs: the tiny one paints 32 × 32 pixels, not 512 × 512; it says what the clean picture is, Stable Diffusion
what the noise is; and it has no autoencoder, unlike Stable Diffusion: each 2 × 2 pixels of three colors are given
as twelve channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..device import Device, find_device
from ..errors import LabError, at_least, choose
from ..models.loading import ran_out
from ..notebook.extras import require
from ..quiet import quiet
from .drawings import COLOURS, STYLES, THINGS
from .larger import STABLE_DIFFUSION, announce

PAINTERS = {"tiny": None, "stable-diffusion": STABLE_DIFFUSION}
WORDS = ("<pad>", "<unknown>", "a", "an", *COLOURS, *THINGS, ",", *STYLES)
MAX_WORDS = 8
SIZE, PATCH = 32, 2  # pixels a side, of a picture and of what becomes one place of the U-Net's grid
CHANNELS, TEXT_WIDTH = (32, 64, 128), 64


@dataclass
class Painter:
    """A U-Net, the text encoder it listens to, and the noise schedule it was trained with.

    Attributes
    ----------
    name : str, a key of PAINTERS
    unet : diffusers UNet2DConditionModel, to which adapters are added
    text_encoder : transformers CLIPTextModel
    tokenizer : transformers tokenizer
    scheduler : diffusers DDIMScheduler
    vae : diffusers AutoencoderKL, or None
    device : Device
    dtype : torch.dtype that the frozen weights have
    size : int, pixels a side of a picture
    guidance : float >= 1, how much further than the caption its pictures go by default, see `paint`
    ready : bool, it can paint: loaded from a trained one, or trained (`painter_training.train_base`)
    """

    name: str
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    vae: Any
    device: Device
    dtype: Any
    size: int
    guidance: float
    ready: bool


def load_painter(name: str = "tiny", *, seed: int = 0, device: Device | None = None) -> Painter:
    """A painter; the tiny one comes untrained, and what Stable Diffusion takes is printed before it is downloaded.

    Parameters
    ----------
    name : str, a key of PAINTERS
    seed : int, of the tiny one's random weights
    device : Device, optional, default this machine's

    Returns
    -------
    Painter, its weights frozen; the tiny one in float32, Stable Diffusion in the device's compute dtype

    Raises
    ------
    LabError
        An unknown name, no diffusers, the hub does not answer, or the painter does not fit into memory.
    """
    device = device or find_device()
    choose("painter", name, PAINTERS)
    require("pictures")
    painter = _tiny(seed, device) if name == "tiny" else _stable_diffusion(name, device)
    with quiet():
        for model in (painter.unet, painter.text_encoder, painter.vae):
            if model is not None:
                _move(model, painter)
    return painter


def _move(model, painter: Painter) -> None:
    """Freeze one part of a painter and put it on the device, in the painter's dtype."""
    try:
        model.requires_grad_(False).eval().to(painter.device.kind, painter.dtype)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise LabError(
            f"The painter {painter.name} does not fit into the memory of {painter.device.name}. Restart other "
            "notebooks' kernels, which hold memory, or take load_painter('tiny')."
        ) from error


def _tiny(seed: int, device: Device) -> Painter:
    """3.9 million random numbers that can learn to draw."""
    import torch

    with quiet():
        from diffusers import DDIMScheduler, UNet2DConditionModel
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unknown>", model_max_length=MAX_WORDS
    )
    depth = len(CHANNELS) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(WORDS), hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=MAX_WORDS, pad_token_id=0, bos_token_id=2, eos_token_id=0,
        ))  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=SIZE // PATCH, in_channels=3 * PATCH**2, out_channels=3 * PATCH**2, layers_per_block=1,
            block_out_channels=CHANNELS, cross_attention_dim=TEXT_WIDTH, norm_num_groups=8,
            attention_head_dim=4,  # diffusers' name for the number of heads
            addition_embed_type="text", addition_embed_type_num_heads=4,  # the caption as a whole, beside the moment
            down_block_types=("DownBlock2D",) * depth + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * depth,
        )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )  # fmt: skip
    return Painter(
        "tiny", unet, text_encoder, tokenizer, scheduler, None, device, torch.float32, SIZE, guidance=1.5, ready=False
    )


def _stable_diffusion(name: str, device: Device) -> Painter:
    """Stable Diffusion's parts, for the adapter calls and the loops of this page."""
    announce(name, PAINTERS[name], device)
    with quiet():
        from diffusers import DDIMScheduler, StableDiffusionPipeline

    try:
        # The weights get their type later: older versions of diffusers have another name for the argument.
        pipe = StableDiffusionPipeline.from_pretrained(
            PAINTERS[name].source, safety_checker=None, requires_safety_checker=False
        )
    except Exception as error:  # OSError, ValueError, but also what safetensors and the network's libraries raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LabError(
            f"{PAINTERS[name].source} could not be loaded: {reason}. Is the hub reachable? load_painter('tiny') needs "
            "none."
        ) from error
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return Painter(
        name, pipe.unet, pipe.text_encoder, pipe.tokenizer, scheduler, pipe.vae, device, device.torch_dtype, size,
        guidance=7.5, ready=True,
    )  # fmt: skip


def read(painter: Painter, captions: Sequence[str]):
    """What the text encoder makes of captions.

    Returns
    -------
    Tensor, shape (captions, words, width), in the text encoder's dtype and on its device

    Raises
    ------
    LabError
        The tiny painter does not know a word, or a caption is too long, no text, or holds a control token's letters.
    """
    import torch

    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise LabError(f"captions={captions!r} is not a list of texts.")

    longest, commands = painter.tokenizer.model_max_length, painter.tokenizer.all_special_tokens
    rows = painter.tokenizer(list(captions), padding="max_length").input_ids
    for caption, row in zip(captions, rows, strict=True):
        unknown = painter.name == "tiny" and WORDS.index("<unknown>") in row
        unknown = unknown or any(token in caption for token in commands)  # its letters would be taken for a command
        if unknown or len(row) > longest:
            words = f", out of: {' '.join(WORDS[2:])}" if painter.name == "tiny" else ""
            raise LabError(f"The painter cannot read {caption!r}: at most {longest} words{words}.")
    return painter.text_encoder(torch.tensor(rows, device=painter.text_encoder.device)).last_hidden_state


def encode_pictures(painter: Painter, pictures: Sequence):
    """Pictures as the U-Net sees them.

    Parameters
    ----------
    pictures : of PIL.Image.Image, RGB, `painter.size` pixels a side

    Returns
    -------
    float32 Tensor, shape (pictures, channels, height, width): twelve channels of 16 × 16 in [-1, 1], or the latents
    of Stable Diffusion's autoencoder

    Raises
    ------
    LabError
        A picture has another size, or is not a picture.
    """
    import numpy as np
    import torch
    from PIL import Image

    for picture in pictures:
        if not isinstance(picture, Image.Image):
            raise LabError(f"{type(picture).__name__} is not a picture: open it with PIL.Image.open(file) first.")
        if picture.size != (painter.size, painter.size):
            raise LabError(f"A picture has {picture.size} pixels: give {painter.size} × {painter.size}.")
    pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
    pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(painter.device.kind)
    if painter.vae is None:
        return torch.nn.functional.pixel_unshuffle(pixels, PATCH)
    with torch.no_grad():
        latents = [painter.vae.encode(one[None].to(painter.vae.dtype)).latent_dist.mean for one in pixels]
    return torch.cat(latents).float() * painter.vae.config.scaling_factor


def decode_latents(painter: Painter, latents) -> list:
    """What `encode` made, as PIL pictures again."""
    import torch
    from PIL import Image

    with torch.no_grad():
        if painter.vae is None:
            pixels = torch.nn.functional.pixel_shuffle(latents, PATCH)
        else:
            scaled = (latents / painter.vae.config.scaling_factor).to(painter.vae.dtype)
            pixels = torch.cat([painter.vae.decode(one[None]).sample for one in scaled])
        numbers = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in numbers]


def autocast(painter: Painter):
    """A context in which a painter in half precision computes together with adapters in float32."""
    import torch

    return torch.autocast(painter.device.kind, painter.dtype, enabled=painter.dtype != torch.float32)


def paint(
    painter: Painter, captions: Sequence[str], *, seed: int = 0, steps: int = 20, guidance: float | None = None
) -> list:
    """One picture a caption, from noise that depends on the seed and its place in the list only.

    Parameters
    ----------
    captions : of str
    seed : int, of the noise that the pictures grow from: the same noise for every adapter shows what the adapter does
    steps : int >= 1, times that the U-Net is asked
    guidance : float >= 1, how many times as far from a picture of nothing the caption leads: 1 is the caption alone
        (classifier-free guidance). Default the painter's own.

    Returns
    -------
    list of PIL.Image.Image, RGB

    Raises
    ------
    LabError
        The painter is not trained yet, or `steps` or `guidance` is out of range.

    Source: Song et al. 2020 (DDIM), https://arxiv.org/abs/2010.02502; Ho and Salimans 2022 (classifier-free guidance),
    https://arxiv.org/abs/2207.12598
    """
    import torch

    if not painter.ready:
        raise LabError("The painter is not trained yet: run the cell with train_base(painter, …) first.")
    guidance = painter.guidance if guidance is None else guidance
    at_least(1, captions=len(captions))
    real = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (steps, guidance))
    if not real or not isinstance(steps, int) or steps < 1 or not 1 <= guidance < math.inf:
        raise LabError(f"steps={steps!r}, guidance={guidance!r}: take 1 or more of each.")
    unet, scheduler = painter.unet.eval(), painter.scheduler
    side = unet.config.sample_size
    noise = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(captions), unet.config.in_channels, side, side, generator=noise).to(painter.device.kind)
    scheduler.set_timesteps(steps)
    with torch.no_grad(), autocast(painter):
        words = torch.cat([read(painter, [""] * len(captions)), read(painter, captions)])
        for time in scheduler.timesteps:
            without, asked = unet(latents.repeat(2, 1, 1, 1), time, words).sample.float().chunk(2)
            latents = scheduler.step(without + guidance * (asked - without), time, latents).prev_sample
    return decode_latents(painter, latents)
