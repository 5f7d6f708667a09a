"""What the library's hints call the classes of libraries that load late. Importing this loads none of them.

A hint such as `"hints.Model"` is for readers, editors and mypy. While a program runs each is an empty class of that name,
so that `typing.get_type_hints` can read the library's functions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from datasets import Dataset as Dataset
    from datasets import DatasetDict as DatasetDict
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from nbformat import NotebookNode as NotebookNode
    from numpy.typing import NDArray
    from pandas import DataFrame as DataFrame
    from peft import PeftModel as PeftModel
    from torch import Tensor as Tensor
    from torch import device as device
    from torch import dtype as dtype
    from torch.nn import Module as Module
    from transformers import PreTrainedConfig as PreTrainedConfig
    from transformers import PreTrainedModel as PreTrainedModel
    from transformers import PreTrainedTokenizerBase
    from transformers import Trainer as Trainer
    from transformers.trainer_utils import TrainOutput as TrainOutput

    Hashes = NDArray[np.uint64]
    Bands = NDArray[np.uint32]
    Numbers = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Lengths = Sequence[int] | Numbers
    Tokenizer: TypeAlias = PreTrainedTokenizerBase
    BackendTokenizer: TypeAlias = tokenizers.Tokenizer  # inside of most of these
    Model: TypeAlias = PreTrainedModel | PeftModel  # a PeftModel has all that the model within it has
    SameModel = TypeVar("SameModel", bound=Module)
    Measure = Callable[[Model, Tokenizer, DatasetDict], object]
else:

    def __getattr__(name: str) -> type:
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return type(name, (), {"__module__": __name__})


class Config(Protocol):
    """A model's config: whatever has these attributes of a Llama's. A `head_dim` is looked at too, where there is one."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool
