"""The linear layers of real models, module by module, with the names that peft targets.

Everything follows from a model's published configuration; no weight is needed. tests/library/test_architectures.py
holds the shapes and totals against models that transformers builds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import LabError, choose, flag, listed, shown, whole
from .families import FAMILIES, QUERY_KEY_NORMS, Linear

GROUPS = ("all-linear", "attention", "mlp", "experts", "qv")
SIZES = ("hidden", "n_layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary")
SWITCHES = ("norm_bias", "attention_bias", "output_bias", "mlp_bias")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a language model.

    `lab_utils.counts.configurations.from_config` makes one from a transformers configuration. What is None below is as
    the family has it, which is not always as a certain model of it has it.

    Attributes
    ----------
    name : str
    family : "llama" (Mistral too), "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "gpt3", "gpt_neox",
        "falcon", "roberta", "deberta-v2", "mixtral", "qwen2_moe" or "gpt_oss"
        How the layers are named, and what None means. "gpt3" is GPT-2 with query, key and value as three matrices,
        as the LoRA paper describes GPT-3.
    hidden : int, width
    n_layers : int
    heads, kv_heads : int, query heads, and key and value heads (fewer with grouped-query attention)
    head_size : int, width of a head
    intermediate : int, width inside the MLP
    vocabulary : int
    tied : bool, the output matrix is the embedding
    positions : int, rows of a learned table of positions; 0 if there is none
    norms_per_layer : int, norms as wide as the model in each layer. Of "falcon" None means 1 with a single key and
        value head (Falcon-7B), else 2 (Falcon-40B and -180B)
    norm_bias : bool, a norm has a bias beside its scale
    attention_bias, output_bias, mlp_bias : bool, biases of query, key and value; of the attention's output; of the MLP
    query_key_norms : "none"; "head", a scale of head_size for queries and one for keys (Qwen3); "width", scales as
        wide as all heads (OLMo-2)
    outside : int, numbers outside the layers that are in no embedding and no linear layer: the last norm, and what
        an encoder has there
    experts : int, MLPs in each layer of a mixture of experts, each of width `intermediate`; 0 in all other families
    shared_intermediate : int, width of the expert that all tokens read ("qwen2_moe")

    Raises
    ------
    LabError
        A size is not a whole number of 1 or more (`positions`, `norms_per_layer`, `outside`: of 0 or more), heads do
        not go into kv_heads or the width where they must, or a word or switch is unknown; the field is named.
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
    norms_per_layer: int | None = None
    norm_bias: bool | None = None
    attention_bias: bool | None = None
    output_bias: bool | None = None
    mlp_bias: bool | None = None
    query_key_norms: str | None = None
    outside: int | None = None
    experts: int = 0
    shared_intermediate: int = 0

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise LabError(f"name={shown(self.name)} is out of range: a text.")
        choose("family", self.family, FAMILIES)
        plain = {name: whole(name, getattr(self, name)) for name in SIZES}
        for name in ("positions", "experts", "shared_intermediate"):
            plain[name] = whole(name, getattr(self, name), 0)
        plain["tied"] = flag("tied", self.tied)
        for name in ("norms_per_layer", "outside"):
            if getattr(self, name) is not None:
                plain[name] = whole(name, getattr(self, name), 0)
        for name in SWITCHES:
            if getattr(self, name) is not None:
                plain[name] = flag(name, getattr(self, name))
        if self.query_key_norms is not None:
            choose("query_key_norms", self.query_key_norms, QUERY_KEY_NORMS)
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        self._heads_fit()

    def _heads_fit(self) -> None:
        """Raise a LabError unless the heads go into each other, and into the width where the family says so."""
        family = FAMILIES[self.family]
        if self.heads % self.kv_heads:
            raise LabError(f"{self.name}: kv_heads={self.kv_heads} does not divide heads={self.heads}.")
        if not family.grouped and self.kv_heads != self.heads:
            raise LabError(
                f"{self.name}: kv_heads={self.kv_heads}, but in family {self.family!r} there are as many as heads: "
                f"{self.heads}."
            )
        if family.square and self.heads * self.head_size != self.hidden:
            raise LabError(
                f"{self.name}: heads={self.heads} of head_size={self.head_size} make {self.heads * self.head_size}, "
                f"but in family {self.family!r} they make the width: hidden={self.hidden}."
            )

    def has(self, name: str) -> int | bool | str:
        """The value of a field that may be None: its own, or else the family's.

        Parameters
        ----------
        name : "norms_per_layer", "norm_bias", "attention_bias", "output_bias", "mlp_bias" or "query_key_norms"
        """
        own = getattr(self, name)
        if own is not None:
            return own
        if name == "norms_per_layer" and self.family == "falcon" and self.kv_heads == 1:
            return 1  # one key and value head: the first architecture, with attention and MLP beside each other
        return getattr(FAMILIES[self.family], name)

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two branches."""
        return any(name.startswith("gate") for name in self.linears())

    def linears(self) -> dict[str, Linear]:
        """Every kind of linear layer by its name, the output matrix over the vocabulary left out."""
        return FAMILIES[self.family].linears(self)

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of each linear layer of one transformer layer, by module name."""
        return self._shapes(once=False)

    def extra_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of linear layers that occur once in the whole model: an encoder's head, else nothing."""
        return self._shapes(once=True)

    def _shapes(self, once: bool) -> dict[str, tuple[int, int]]:
        return {
            name: (one.out_features, one.in_features)
            for name, one in self.linears().items()
            if (one.group == "head") == once
        }

    def copies(self, module: str) -> int:
        """How many times `module` occurs in the model: in each layer (once for each expert), or once in the head.

        Raises
        ------
        LabError
            There is no such module.
        """
        linear = self.linears()[choose("module", module, self.linears())]
        return 1 if linear.group == "head" else self.n_layers * linear.copies

    def total_parameters(self) -> int:
        """Numbers in the whole model, a tied output matrix counted once, biases and norms included."""
        linears = sum(
            self.copies(name) * one.out_features * (one.in_features + one.bias) for name, one in self.linears().items()
        )
        norm = self.hidden * (2 if self.has("norm_bias") else 1)
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.positions * self.hidden
        layer = self.has("norms_per_layer") * norm + self._query_key_numbers()
        return linears + embeddings + self.n_layers * layer + self._outside(norm)

    def _query_key_numbers(self) -> int:
        """Numbers in the norms of queries and keys, in one layer."""
        kind = self.has("query_key_norms")
        heads = {"none": 0, "head": 2, "width": self.heads + self.kv_heads}[kind]
        return heads * self.head_size + (self.heads if self.family == "gpt_oss" else 0)

    def _outside(self, norm: int) -> int:
        """Numbers outside the layers, in no embedding and no linear layer; `norm` is the size of one norm."""
        if self.outside is not None:
            return self.outside
        biases = head_biases(self.vocabulary, self.tied)
        if self.family == "roberta":  # norms of embedding and head, one token type, a bias over the vocabulary
            return 2 * norm + self.hidden + biases
        if self.family == "deberta-v2":  # two more norms, and a convolution of width 3 beside the first layer
            return 4 * norm + 3 * self.hidden**2 + self.hidden + biases
        return norm

    def select(self, target_modules: str | Iterable[str]) -> tuple[str, ...]:
        """The modules that `target_modules` means, in the model's order, each once.

        Parameters
        ----------
        target_modules : str, or str in a list, tuple, set or generator
            Groups: "all-linear" (every linear layer but the output matrix over the vocabulary; what peft means by it),
            "attention", "mlp", "experts",
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
        wanted, linears = listed(target_modules), self.linears()
        if not wanted:
            raise LabError(f"target_modules={shown(target_modules)} names nothing. {self._choices()}")
        chosen = set()
        for name in wanted:
            fitting = _fitting(linears, name) if isinstance(name, str) else set()
            if not fitting:
                raise LabError(f"{self.name} has no module {shown(name)}. {self._choices()}")
            chosen |= fitting
        return tuple(module for module in linears if module in chosen)

    def _choices(self) -> str:
        return f"Choose among {', '.join(GROUPS)}, or its modules: {', '.join(self.linears())}."


def head_biases(vocabulary: int, tied: bool) -> int:
    """Biases over the vocabulary in an encoder's head: an untied output matrix has its own beside the head's."""
    return vocabulary if tied else 2 * vocabulary


def _fitting(linears: dict[str, Linear], name: str) -> set[str]:
    """The modules that one group or name means."""
    if name == "all-linear":
        return {module for module, one in linears.items() if one.plain}
    if name in ("attention", "mlp", "experts"):
        return {module for module, one in linears.items() if one.group == name}
    if name == "qv":
        return {module for module, one in linears.items() if one.qv}
    if name in linears:
        return {name}
    return {module for module in linears if module.endswith(f".{name}")}


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
    ("Qwen3-0.6B", "qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True, 0),
    ("Qwen3-8B", "qwen3", 4096, 36, 32, 8, 128, 12288, 151936, False, 0),
    ("Gemma-3-1B", "gemma3", 1152, 26, 4, 1, 256, 6912, 262144, True, 0),
    ("Gemma-2B", "gemma", 2048, 18, 8, 1, 256, 16384, 256000, True, 0),
)
_FIELDS = (
    "name", "family", "hidden", "n_layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary", "tied",
    "positions",
)  # fmt: skip
ARCHITECTURES = MappingProxyType({row[0]: Architecture(**dict(zip(_FIELDS, row, strict=True))) for row in _MODELS})


def named(architecture: Architecture | str) -> Architecture:
    """The architecture, or the one of that name in `ARCHITECTURES`.

    Raises
    ------
    LabError
        It is neither.
    """
    if isinstance(architecture, Architecture):
        return architecture
    return ARCHITECTURES[choose("architecture", architecture, ARCHITECTURES)]
