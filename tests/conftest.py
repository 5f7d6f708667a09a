"""Shared by all tests: no hub, a cache of their own for built models, figures without a screen."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the cores to others
os.environ.pop("CPTLIB_RECIPE", None)

import functools
import gzip
import json
import sys
import zipfile
from types import SimpleNamespace

import hypothesis
import matplotlib
import pyarrow
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from cptlib import commands, corpus, memory, models
from cptlib.recipe import Recipe

matplotlib.use("agg")
# The same examples in every run; to look for new ones: pytest --hypothesis-profile=default
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_runtest_setup(item):
    """Skip what is marked `gpu` where there is no CUDA GPU, and what is marked `cpu(reason)` where there is one."""
    gpu, cpu = item.get_closest_marker("gpu"), item.get_closest_marker("cpu")
    if gpu or cpu:
        import torch

        if gpu and not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")
        if cpu and torch.cuda.is_available():
            pytest.skip(*cpu.args)


@pytest.fixture(scope="session")
def smoke():
    return Recipe.named("smoke")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CPTLIB_CACHE"] = str(folder)
    return folder


@pytest.fixture
def gpu(monkeypatch):
    """Has torch speak of a GPU: its free and total memory, what this process reserved and allocated there (GB), its UUID."""

    def install(free, total, reserved=0.0, allocated=0.0, uuid="5e-aa", name="Tesla T4"):
        answers = {
            "is_available": True,
            "current_device": 1,
            "get_device_name": name,
            "get_device_properties": SimpleNamespace(uuid=uuid, name=name, major=8, total_memory=total * memory.GB),
            "mem_get_info": (free * memory.GB, total * memory.GB),
            "memory_reserved": reserved * memory.GB,
            "max_memory_reserved": reserved * memory.GB,
            "memory_allocated": allocated * memory.GB,
            "max_memory_allocated": allocated * memory.GB,
        }
        for function, answer in answers.items():
            monkeypatch.setattr(f"torch.cuda.{function}", lambda *_, answer=answer: answer)

    monkeypatch.delenv("CPTLIB_GPU_GB", raising=False)
    return install


@pytest.fixture
def tiny(smoke):
    """(model, tokenizer): two layers of random weights, fresh for each test."""
    return models.load(smoke)


@pytest.fixture
def tokenizer(tiny):
    return tiny[1]


CONTROL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
TOKENIZERS = {  # whose: bytes or SentencePiece, what goes around a text, and its own control tokens
    "SmolLM2's": ("byte_level", "$0", {}),
    "Qwen's": ("byte_level", "$0", {"pad_token": "</s>", "bos_token": None}),
    "Llama 3's": ("byte_level", "<s> $0", {"pad_token": None}),
    "OPT's": ("byte_level", "</s> $0", {"bos_token": "</s>"}),
    "a SentencePiece without BOS": ("sentencepiece", "$0", {}),
    "Mistral's": ("sentencepiece", "<s> $0", {}),
    "one that adds EOS itself": ("sentencepiece", "<s> $0 </s>", {}),
}


@pytest.fixture(params=TOKENIZERS)
def any_tokenizer(request):
    """A tokenizer of each kind that models come with; `tiny` has embeddings for all of its ids."""
    from transformers import PreTrainedTokenizerFast

    kind, around, own = TOKENIZERS[request.param]
    tokenizer = Tokenizer.from_str({"byte_level": byte_level, "sentencepiece": sentencepiece}[kind]())
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.post_processor = processors.TemplateProcessing(around, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**CONTROL, **own})


@functools.cache
def byte_level():
    """As GPT-2, Llama 3 and Qwen have it: every token is a few bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    return trained(tokenizer, pre_tokenizers.ByteLevel.alphabet()).to_str()


@functools.cache
def sentencepiece():
    """As Llama 2 and Mistral have it: a blank is ▁, one more goes before the text, and is dropped when it is decoded; a
    letter that is not in the vocabulary, and a line break, is a token for each of its bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    written = json.loads(trained(tokenizer, []).to_str())["model"]
    vocabulary, merges = written["vocab"], [tuple(pair) for pair in written["merges"]]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    tokenizer.model = BPE(vocabulary, merges, byte_fallback=True)
    return tokenizer.to_str()


def trained(tokenizer, alphabet):
    texts = [text.replace("\n", " ") for text in corpus.read("stories")["text"][:100]]
    special = ["<pad>", "<s>", "</s>"]
    trainer = BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture
def documents(smoke, tokenizer):
    """train and held_out, with EOS."""
    return corpus.add_eos(corpus.split(corpus.read("stories", 12), 4, smoke.seed), tokenizer)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `python -m cptlib …` in this process: (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cptlib", *map(str, words)])
        try:
            code = commands.main()
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


# A file of each format that is read, each saying its sentence


def write_docx(path, text):
    """The least that Word would open."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    body = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in text.split("\n"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="{main}"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="a" Type="{kind}" Target="document.xml"/></Relationships>',
        )
        file.writestr("document.xml", f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>')


def write_epub(path, text, locked=False):
    with zipfile.ZipFile(path, "w") as book:
        rootfile = '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/>'
        book.writestr("META-INF/container.xml", f"<container><rootfiles>{rootfile}</rootfiles></container>")
        spine = '<manifest><item id="a" href="a.xhtml"/></manifest><spine><itemref idref="a"/></spine>'
        book.writestr("book.opf", f"<package><metadata><title>T</title></metadata>{spine}</package>")
        book.writestr("a.xhtml", f"<html><body><p>{text}</p></body></html>")
        if locked:
            book.writestr("META-INF/encryption.xml", '<CipherReference URI="a.xhtml"/>')


def write_pdf(path, text, password=None):
    from fpdf import FPDF

    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=12)
    pdf.multi_cell(0, text=text)
    if password:
        pdf.set_encryption(owner_password="owner", user_password=password)
    pdf.output(str(path))


def sentence(name):
    return f"In the {name} file there is a long sentence about the {name} of the sea."


@pytest.fixture(scope="session")
def one_of_each(tmp_path_factory):
    """A folder with a file of each format, and each of them again with .gz behind, saying `sentence(name)`."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text(sentence("a.txt"))
    (folder / "deep" / "a.md").write_text(f"# A title\n\n{sentence('a.md')}")
    (folder / "deep" / "er" / "a.html").write_text(f"<p>{sentence('a.html')}</p><script>x = 1</script>")
    (folder / "a.json").write_text(f'[{{"text": "{sentence("a.json")}"}}]')
    (folder / "a.jsonl").write_text(f'{{"text": "{sentence("a.jsonl")}"}}\n')
    (folder / "a.csv").write_text(f'id,text\n1,"{sentence("a.csv")}"\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": [sentence("a.parquet")]}), folder / "a.parquet")
    write_docx(folder / "a.docx", sentence("a.docx"))
    write_epub(folder / "a.epub", sentence("a.epub"))
    write_pdf(folder / "a.pdf", sentence("a.pdf"))
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        (file.parent / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    return folder
