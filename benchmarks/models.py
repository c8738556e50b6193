"""Well-known networks at their real size, random weights, built with transformers where that is installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from benchmarks.case import Case, Workload, short

Build = Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]


class Output(torch.nn.Module):
    """A transformers model that takes one tensor and returns one field of its output."""

    def __init__(self, model: torch.nn.Module, field: str, **arguments: bool) -> None:
        super().__init__()
        self.model, self.field, self.arguments = model, field, arguments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the field."""
        result: torch.Tensor = getattr(self.model(x, **self.arguments), self.field)
        return result


class Embedding(torch.nn.Module):
    """A BERT encoder with mean pooling over the mask, normalised: what sentence-transformers computes."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of token ids (batch, length) under a mask of the same shape."""
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9), dim=1)


def minilm(batch: int, length: int) -> Case:
    """Return MiniLM-L6 over token ids, in float32."""

    def build() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        from transformers import BertConfig, BertModel  # noqa: PLC0415

        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
        )
        ids = torch.randint(1000, 30000, (batch, length))
        return Embedding(BertModel(config, add_pooling_layer=False)), (ids, torch.ones_like(ids))

    return _case(f"MiniLM-L6 {batch}×{length}", torch.float32, build)


def bert_base(batch: int, length: int, dtype: torch.dtype) -> Case:
    """Return BERT-base with its language-model head over token ids."""

    def build() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        from transformers import BertConfig, BertForMaskedLM  # noqa: PLC0415

        return Output(BertForMaskedLM(BertConfig()), "logits"), (torch.randint(1000, 30000, (batch, length)),)

    return _case(f"BERT-base MLM {batch}×{length}", dtype, build)


def gpt2_small(batch: int, length: int, dtype: torch.dtype) -> Case:
    """Return GPT-2 small over token ids, without a cache of keys and values."""

    def build() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

        model = Output(GPT2LMHeadModel(GPT2Config()), "logits", use_cache=False)
        return model, (torch.randint(0, 50000, (batch, length)),)

    return _case(f"GPT-2 small {batch}×{length}", dtype, build)


def vit_base(batch: int, dtype: torch.dtype) -> Case:
    """Return ViT-B/16 over images of 224×224."""

    def build() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415

        return Output(ViTForImageClassification(ViTConfig()), "logits"), (torch.randn(batch, 3, 224, 224),)

    return _case(f"ViT-B/16 {batch}×224²", dtype, build)


def resnet50(batch: int, dtype: torch.dtype) -> Case:
    """Return ResNet-50 over images of 224×224, channels last."""

    def build() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415

        model: torch.nn.Module = ResNetForImageClassification(ResNetConfig())
        image = torch.randn(batch, 3, 224, 224).to(memory_format=torch.channels_last)
        # torch documents this overload and does not declare it.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Output(model, "logits"), (image,)

    return _case(f"ResNet-50 {batch}×224² channels last", dtype, build)


def _case(name: str, dtype: torch.dtype, build: Build) -> Case:
    def make(device: str) -> Workload:
        torch.manual_seed(0)
        module, inputs = build()
        module = module.eval().to(device, dtype)
        return module, tuple(x.to(device, dtype if x.is_floating_point() else x.dtype) for x in inputs)

    return Case(f"{name} {short(dtype)}", make)
