"""The linear layers of real models, module by module, with the names that peft targets.

Everything follows from a model's published configuration; no weight is needed. tests/test_architectures.py holds
the shapes and totals against models that transformers builds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from .errors import LabError, choose

GROUPS = ("all-linear", "attention", "mlp", "qv")


@dataclass(frozen=True)
class Linear:
    """One linear layer: a matrix (out_features, in_features), where it sits, and whether it has a bias.

    `group` is "attention", "mlp", or "head" for one that stands once at the model's end. `qv` marks the layers that
    make queries or values; where query, key and value are one fused matrix it marks that one.
    """

    out_features: int
    in_features: int
    group: str
    bias: bool = False
    qv: bool = False


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a language model.

    Attributes
    ----------
    name : str
    family : "llama" (Mistral too), "qwen2", "gemma", "gpt2", "gpt3", "falcon", "roberta" or "deberta-v2"
        How the layers are named and which have biases. "gpt3" is GPT-2 with query, key and value as three matrices,
        as the LoRA paper describes GPT-3.
    hidden : int, width
    n_layers : int
    heads, kv_heads : int, query heads, and key and value heads (fewer with grouped-query attention)
    head_size : int, width of a head
    intermediate : int, width inside the MLP
    vocabulary : int
    tied : bool, the output matrix is the embedding
    positions : int, rows of a learned table of positions; 0 if there is none
    """

    name: str
    family: str
    hidden: int
    n_layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = True
    positions: int = 0

    def __post_init__(self):
        choose("family", self.family, _LINEARS)

    def linears(self) -> dict[str, Linear]:
        """Every kind of linear layer by its name, the output matrix over the vocabulary left out."""
        return _LINEARS[self.family](self)

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of each linear layer of one transformer layer, by module name."""
        return self._shapes(once=False)

    def extra_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of linear layers that stand once in the whole model: an encoder's head, else nothing."""
        return self._shapes(once=True)

    def _shapes(self, once: bool) -> dict[str, tuple[int, int]]:
        return {
            name: (one.out_features, one.in_features)
            for name, one in self.linears().items()
            if (one.group == "head") == once
        }

    def copies(self, module: str) -> int:
        """How often `module` stands in the model: once a layer, or once if it belongs to the head."""
        return 1 if self.linears()[module].group == "head" else self.n_layers

    def total_parameters(self) -> int:
        """Numbers in the whole model, a tied output matrix counted once, biases and norms included."""
        linears = sum(
            self.copies(name) * one.out_features * (one.in_features + one.bias) for name, one in self.linears().items()
        )
        norm = self.hidden * (1 if self.family in ("llama", "qwen2", "gemma") else 2)  # RMSNorm has no bias
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.positions * self.hidden
        return linears + embeddings + 2 * self.n_layers * norm + self._outside(norm)

    def _outside(self, norm: int) -> int:
        """Numbers outside the layers, besides embeddings and linear layers; `norm` is the size of one norm."""
        if self.family == "roberta":  # norms of embedding and head, one token type, a bias over the vocabulary
            return 2 * norm + self.hidden + self.vocabulary
        if self.family == "deberta-v2":  # two more norms, and a convolution of width 3 beside the first layer
            return 4 * norm + 3 * self.hidden**2 + self.hidden + self.vocabulary
        return norm

    def select(self, target_modules: str | Sequence[str]) -> tuple[str, ...]:
        """The modules that `target_modules` means, in the model's order, each once.

        Parameters
        ----------
        target_modules : str or sequence of str
            Groups: "all-linear" (every linear layer but the output matrix over the vocabulary), "attention", "mlp",
            "qv" (query and value; on a fused model the fused matrix, key included). Or names: a name of
            `linear_shapes` or `extra_shapes` means that module alone; any other name means all modules that end in
            it after a dot, as in peft ("c_proj" of GPT-2 is two modules).

        Returns
        -------
        tuple of str

        Raises
        ------
        LabError
            Nothing is named, or a name fits no module; the message lists the modules.
        """
        wanted = [target_modules] if isinstance(target_modules, str) else target_modules
        linears = self.linears()
        if not isinstance(wanted, Sequence) or not wanted:
            raise LabError(f"target_modules={target_modules!r} names nothing. {self._choices()}")
        chosen = set()
        for name in wanted:
            fitting = _fitting(linears, name)
            if not fitting:
                raise LabError(f"{self.name} has no module {name!r}. {self._choices()}")
            chosen |= fitting
        return tuple(module for module in linears if module in chosen)

    def _choices(self) -> str:
        return f"Choose among {', '.join(GROUPS)}, or its modules: {', '.join(self.linears())}."


def _fitting(linears: dict[str, Linear], name: object) -> set[str]:
    """The modules that one group or name means."""
    if name == "all-linear":
        return set(linears)
    if name in ("attention", "mlp"):
        return {module for module, one in linears.items() if one.group == name}
    if name == "qv":
        return {module for module, one in linears.items() if one.qv}
    if name in list(linears):  # a list: `name` may be unhashable
        return {name}
    return {module for module in linears if module.endswith(f".{name}")}


def _llama(a: Architecture) -> dict[str, Linear]:
    """Separate matrices, a gated MLP; biases on query, key and value in Qwen2 only."""
    queries, keys, bias = a.heads * a.head_size, a.kv_heads * a.head_size, a.family == "qwen2"
    return {
        "q_proj": Linear(queries, a.hidden, "attention", bias, qv=True),
        "k_proj": Linear(keys, a.hidden, "attention", bias),
        "v_proj": Linear(keys, a.hidden, "attention", bias, qv=True),
        "o_proj": Linear(a.hidden, queries, "attention"),
        "gate_proj": Linear(a.intermediate, a.hidden, "mlp"),
        "up_proj": Linear(a.intermediate, a.hidden, "mlp"),
        "down_proj": Linear(a.hidden, a.intermediate, "mlp"),
    }


def _gpt2(a: Architecture) -> dict[str, Linear]:
    """Query, key and value in one matrix."""
    return {
        "c_attn": Linear(3 * a.hidden, a.hidden, "attention", True, qv=True),
        "attn.c_proj": Linear(a.hidden, a.hidden, "attention", True),
        "c_fc": Linear(a.intermediate, a.hidden, "mlp", True),
        "mlp.c_proj": Linear(a.hidden, a.intermediate, "mlp", True),
    }


def _gpt3(a: Architecture) -> dict[str, Linear]:
    """As GPT-2, with query, key and value apart."""
    attention = {
        name: Linear(a.hidden, a.hidden, "attention", True, qv=name in ("q_proj", "v_proj"))
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    return {
        **attention,
        "c_fc": Linear(a.intermediate, a.hidden, "mlp", True),
        "c_proj": Linear(a.hidden, a.intermediate, "mlp", True),
    }


def _falcon(a: Architecture) -> dict[str, Linear]:
    """Query, key and value in one matrix; no biases."""
    queries = a.heads * a.head_size
    return {
        "query_key_value": Linear(queries + 2 * a.kv_heads * a.head_size, a.hidden, "attention", qv=True),
        "dense": Linear(a.hidden, queries, "attention"),
        "dense_h_to_4h": Linear(a.intermediate, a.hidden, "mlp"),
        "dense_4h_to_h": Linear(a.hidden, a.intermediate, "mlp"),
    }


def _encoder(query: str, key: str, value: str, head: str):
    """An encoder with the dense layer of its masked-language-model head, under the family's names."""

    def linears(a: Architecture) -> dict[str, Linear]:
        return {
            query: Linear(a.hidden, a.hidden, "attention", True, qv=True),
            key: Linear(a.hidden, a.hidden, "attention", True),
            value: Linear(a.hidden, a.hidden, "attention", True, qv=True),
            "attention.output.dense": Linear(a.hidden, a.hidden, "attention", True),
            "intermediate.dense": Linear(a.intermediate, a.hidden, "mlp", True),
            "output.dense": Linear(a.hidden, a.intermediate, "mlp", True),
            head: Linear(a.hidden, a.hidden, "head", True),
        }

    return linears


_LINEARS = {
    "llama": _llama,
    "qwen2": _llama,
    "gemma": _llama,
    "gpt2": _gpt2,
    "gpt3": _gpt3,
    "falcon": _falcon,
    "roberta": _encoder("query", "key", "value", "lm_head.dense"),
    "deberta-v2": _encoder("query_proj", "key_proj", "value_proj", "transform.dense"),
}

# name, family, hidden, layers, heads, key-value heads, head size, intermediate, vocabulary, tied, positions
_MODELS = (
    ("GPT-2", "gpt2", 768, 12, 12, 12, 64, 3072, 50257, True, 1024),
    ("GPT-2-M", "gpt2", 1024, 24, 16, 16, 64, 4096, 50257, True, 1024),
    ("GPT-2-L", "gpt2", 1280, 36, 20, 20, 64, 5120, 50257, True, 1024),
    ("GPT-2-XL", "gpt2", 1600, 48, 25, 25, 64, 6400, 50257, True, 1024),
    ("GPT-3", "gpt3", 12288, 96, 96, 96, 128, 49152, 50257, True, 2048),
    ("RoBERTa-base", "roberta", 768, 12, 12, 12, 64, 3072, 50265, True, 514),
    ("RoBERTa-large", "roberta", 1024, 24, 16, 16, 64, 4096, 50265, True, 514),
    ("DeBERTa-v2-XXL", "deberta-v2", 1536, 48, 24, 24, 64, 6144, 128100, True, 512),
    ("LLaMA-33B", "llama", 6656, 60, 52, 52, 128, 17920, 32000, False, 0),
    ("LLaMA-65B", "llama", 8192, 80, 64, 64, 128, 22016, 32000, False, 0),
    ("Llama-2-7B", "llama", 4096, 32, 32, 32, 128, 11008, 32000, False, 0),
    ("Llama-2-13B", "llama", 5120, 40, 40, 40, 128, 13824, 32000, False, 0),
    ("Llama-2-70B", "llama", 8192, 80, 64, 8, 128, 28672, 32000, False, 0),
    ("Llama-3-8B", "llama", 4096, 32, 32, 8, 128, 14336, 128256, False, 0),
    ("Llama-3-70B", "llama", 8192, 80, 64, 8, 128, 28672, 128256, False, 0),
    ("Mistral-7B", "llama", 4096, 32, 32, 8, 128, 14336, 32000, False, 0),
    ("Falcon-180B", "falcon", 14848, 80, 232, 8, 64, 59392, 65024, False, 0),
    ("SmolLM2-135M", "llama", 576, 30, 9, 3, 64, 1536, 49152, True, 0),
    ("SmolLM2-360M", "llama", 960, 32, 15, 5, 64, 2560, 49152, True, 0),
    ("SmolLM2-1.7B", "llama", 2048, 24, 32, 32, 64, 8192, 49152, True, 0),
    ("Qwen2.5-0.5B", "qwen2", 896, 24, 14, 2, 64, 4864, 151936, True, 0),
    ("Qwen2.5-1.5B", "qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True, 0),
    ("Qwen2.5-3B", "qwen2", 2048, 36, 16, 2, 128, 11008, 151936, True, 0),
    ("Qwen2.5-7B", "qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False, 0),
    ("Gemma-2B", "gemma", 2048, 18, 8, 1, 256, 16384, 256000, True, 0),
)
_FIELDS = (
    "name", "family", "hidden", "n_layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary", "tied",
    "positions",
)  # fmt: skip
ARCHITECTURES = MappingProxyType({row[0]: Architecture(**dict(zip(_FIELDS, row, strict=True))) for row in _MODELS})
