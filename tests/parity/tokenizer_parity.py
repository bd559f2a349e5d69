#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face `tokenizers` (run by hand: pip install tokenizers).

usage: tokenizer_parity.py TOOL CORPUS
TOOL is the build's tests/data/tokenizer_parity_tool, CORPUS a UTF-8 text file.

Trains both on the corpus and on a text of many scripts, compares vocabulary and merges, then encodes the same texts
with both. Prints one line a comparison; exits 1 if any text differs for another reason than the age of the Unicode
tables.
"""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁end｜>",
]
NUMBERS = r"\p{N}{1,3}"
IDEOGRAPHS = "[一-龥぀-ゟ゠-ヿ]+"
REST = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
CL100K = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
# Beginnings of blocks with letters, marks, digits, signs of many scripts.
SCRIPTS = [
    (0x20, 95),
    (0xA0, 96),
    (0x100, 255),
    (0x300, 112),
    (0x370, 144),
    (0x400, 256),
    (0x531, 90),
    (0x590, 110),
    (0x600, 256),
    (0x900, 128),
    (0xE00, 92),
    (0x1100, 128),
    (0x1680, 29),
    (0x1800, 30),
    (0x2000, 112),
    (0x2070, 50),
    (0x20A0, 32),
    (0x2150, 60),
    (0x2190, 200),
    (0x2460, 160),
    (0x3000, 64),
    (0x3040, 190),
    (0x4E00, 3000),
    (0x9FA0, 20),
    (0xAC00, 500),
    (0xFE00, 16),
    (0xFF00, 240),
    (0x1F300, 400),
    (0x1D400, 200),
    (0x20000, 50),
]


def frames(texts):
    encoded = [t.encode() for t in texts]
    return b"".join(struct.pack("<I", len(b)) + b for b in encoded)


def ours(tool, path, texts, special=False):
    run = subprocess.run(
        [tool, "encode", path, "special" if special else "plain"],
        input=frames(texts),
        stdout=subprocess.PIPE,
        check=True,
    )
    result, offset = [], 0
    for _ in texts:
        (count,) = struct.unpack_from("<I", run.stdout, offset)
        result.append(list(struct.unpack_from(f"<{count}i", run.stdout, offset + 4)))
        offset += 4 + 4 * count
    return result


def theirs(path, texts, special=False):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = not special
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def recent(text):
    """Whether the text has a character that Python's tables (Unicode 14) do not know."""
    return any(unicodedata.category(c) == "Cn" for c in text)


def compare(name, tool, path, texts, special=False):
    a, b = ours(tool, path, texts, special), theirs(path, texts, special)
    differ = [i for i in range(len(texts)) if a[i] != b[i]]
    known = [i for i in differ if recent(texts[i])]
    tokens = sum(map(len, a))
    print(f"{name}: {len(texts)} texts, {tokens} ids, {len(differ)} differ,", end=" ")
    print(f"of those {len(known)} by characters newer than Unicode 14")
    for i in [i for i in differ if i not in set(known)][:5]:
        print("   ", [hex(ord(c)) for c in texts[i][:24]], a[i][:12], b[i][:12])
    return len(differ) - len(known)


def scalars():
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def mixed(rng, count):
    texts = []
    pool = [chr(b + i) for b, n in SCRIPTS for i in range(n)]
    spaces = [
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\n\n",
        "\u00a0",
        "\u180e",
        "\u2003",
        "\u200b",
        "\u0085",
        "\u3000",
        "\x1c",
        "\x0b",
    ]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 40)):
            kind = rng.random()
            if kind < 0.3:
                parts.append(rng.choice(spaces))
            elif kind < 0.5:
                parts.append(
                    "".join(rng.choice("etaoinshrdlu'.,!?-()0123456789ETA") for _ in range(rng.randrange(1, 9)))
                )
            else:
                base, size = rng.choice(SCRIPTS)
                parts.append("".join(chr(base + rng.randrange(size)) for _ in range(rng.randrange(1, 7))))
            if rng.random() < 0.1:
                parts.append(rng.choice(pool))
        texts.append("".join(parts))
    return texts


def train_theirs(texts, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Split(Regex(p), "isolated") for p in (NUMBERS, IDEOGRAPHS, REST)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        split + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def compare_training(name, tool, texts, vocab_size, directory):
    start = time.time()
    run = subprocess.run([tool, "train", str(vocab_size), "2"], input=frames(texts), stdout=subprocess.PIPE, check=True)
    middle = time.time()
    other = train_theirs(texts, vocab_size)
    end = time.time()
    path = directory / f"{name}.json"
    path.write_bytes(run.stdout)
    other_path = directory / f"{name}_theirs.json"
    other.save(str(other_path))
    a, b = json.loads(run.stdout)["model"], json.loads(other_path.read_text())["model"]
    merges_a = [m.split(" ") for m in a["merges"]]
    same = a["vocab"] == b["vocab"] and merges_a == b["merges"]
    print(f"train {name}: {vocab_size} tokens, same vocabulary and merges: {same};", end=" ")
    print(f"ours {middle - start:.1f} s, theirs {end - middle:.1f} s")
    if not same:
        first = next(
            (i for i, (x, y) in enumerate(zip(merges_a, b["merges"])) if x != y), min(len(merges_a), len(b["merges"]))
        )
        print("    first difference at merge", first, merges_a[first : first + 3], b["merges"][first : first + 3])
    # Their file must mean the same to us.
    return path, other_path, 0 if same else 1


def variant(path, directory, name, pre_tokenizer, ignore_merges=False, added=()):
    """A copy of the tokenizer with another pre-tokenizer or more added tokens, written by Hugging Face."""
    spec = json.loads(path.read_text())
    spec["pre_tokenizer"] = pre_tokenizer or spec["pre_tokenizer"]
    spec["model"]["ignore_merges"] = ignore_merges
    draft = directory / "draft.json"
    draft.write_text(json.dumps(spec))
    tokenizer = Tokenizer.from_file(str(draft))
    tokenizer.add_tokens([AddedToken(c, normalized=n, special=s) for c, n, s in added])
    result = directory / f"{name}.json"
    tokenizer.save(str(result))
    return result


def main():
    tool, corpus = sys.argv[1], pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    directory = pathlib.Path(tempfile.mkdtemp())
    rng = random.Random(7)
    print("tokenizers", tokenizers.__version__)
    documents = [corpus[i : i + 20000] for i in range(0, len(corpus), 20000)]
    fuzz = mixed(rng, 20000)
    bad = 0
    english, english_theirs, differ = compare_training("english", tool, documents, 4096, directory)
    bad += differ
    many, _, differ = compare_training("many_scripts", tool, fuzz + documents[:100], 6000, directory)
    bad += differ

    bad += compare("english corpus", tool, english, documents)
    bad += compare("english corpus, their file", tool, english_theirs, documents[:200])
    bad += compare("many scripts", tool, many, fuzz)
    for name, form in [
        ("alone", "{}"),
        ("twice", "{0}{0}"),
        ("after a letter", "a{}b"),
        ("after a space", "x {} y"),
        ("before line break", "  {}\n\n"),
        ("before spaces", "1{}  2"),
        ("after punctuation", "!{}a"),
    ]:
        bad += compare(f"every character {name}", tool, many, [form.format(c) for c in scalars()])
    everything = rng.sample(scalars(), 300000)
    bad += compare(
        "characters at random", tool, many, ["".join(everything[i : i + 30]) for i in range(0, len(everything), 30)]
    )

    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Isolated", "invert": False}
    plain = dict(gpt2, use_regex=False)
    bad += compare("GPT-2 pattern", tool, variant(many, directory, "gpt2", gpt2), fuzz)
    bad += compare(
        "GPT-4 pattern",
        tool,
        variant(many, directory, "gpt4", {"type": "Sequence", "pretokenizers": [split, plain]}),
        fuzz,
    )
    bad += compare("no pattern", tool, variant(many, directory, "whole", plain), fuzz[:2000])
    bad += compare("ignore_merges", tool, variant(many, directory, "ignore", None, True), fuzz)

    added = [
        ("<a>", False, False),
        ("<a><b>", True, False),
        ("<b>", True, False),
        ("<a><", False, True),
        ("e", True, False),
        ("<b>e", False, False),
        ("é<", True, True),
        ("<c>", False, True),
    ]
    path = variant(many, directory, "added", None, False, added)
    atoms = [c for c, _, _ in added] + SPECIAL[:4] + ["<", ">", "a", " ", "\n", "b>", "é", "The"]
    texts = ["".join(rng.choice(atoms) for _ in range(rng.randrange(1, 30))) for _ in range(20000)]
    bad += compare("added tokens, special ones read", tool, path, texts, special=True)

    start = time.time()
    theirs(english, ["x"])
    Tokenizer.from_file(str(english)).encode_batch(documents[:1])
    tokenizer = Tokenizer.from_file(str(english))
    start = time.time()
    size = sum(len(tokenizer.encode(d, add_special_tokens=False).ids) and len(d.encode()) for d in documents[:300])
    print(f"theirs, one thread: {size / 1e6 / (time.time() - start):.1f} MB/s")
    print("different:", bad)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
