"""Ten megabytes of mixed text and code in many scripts, from what a development machine has, and generated text.

Sources that a machine lacks are made up for by generated text, so that there is always as much as was asked for.
"""

import gettext
import gzip
import pathlib
import random
import sysconfig
import unicodedata

import harness

DOCUMENT = 8000  # characters, about

# First characters and sizes of blocks with letters, marks, digits and signs of many scripts.
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
    (0x700, 80),
    (0x900, 128),
    (0x980, 128),
    (0xB80, 128),
    (0xC00, 128),
    (0xE00, 92),
    (0xF00, 200),
    (0x1000, 160),
    (0x10A0, 96),
    (0x1100, 128),
    (0x1200, 380),
    (0x13A0, 90),
    (0x1680, 29),
    (0x1780, 110),
    (0x1800, 30),
    (0x1E00, 256),
    (0x2000, 112),
    (0x2070, 50),
    (0x20A0, 32),
    (0x2150, 60),
    (0x2190, 200),
    (0x2460, 160),
    (0x2C00, 96),
    (0x3000, 64),
    (0x3040, 190),
    (0x4E00, 3000),
    (0x9FA0, 20),
    (0xA000, 400),
    (0xAC00, 500),
    (0xFE00, 16),
    (0xFF00, 240),
    (0x10300, 36),
    (0x10400, 80),
    (0x12000, 200),
    (0x1D400, 200),
    (0x1E900, 68),
    (0x1F300, 400),
    (0x20000, 50),
]
SPACES = list(" \n\t\u00a0\u180e\u2003\u200b\u0085\u3000\x1c\x0b") + ["  ", "\r\n", "\n\n", "    "]


def known(text):
    """The text without characters that came after Unicode 14 (those of Python 3.11's tables)."""
    return text.translate({ord(c): " " for c in set(text) if unicodedata.category(c) in ("Cn", "Cs")})


def mixed(rng, parts):
    """Words of many scripts with all kinds of space and signs between them."""
    words = []
    for _ in range(parts):
        kind = rng.random()
        if kind < 0.3:
            words.append(rng.choice(SPACES))
        elif kind < 0.5:
            words.append("".join(rng.choice("etaoinshrdlu'.,!?-()0123456789ETA") for _ in range(rng.randrange(1, 9))))
        else:
            base, size = rng.choice(SCRIPTS)
            words.append("".join(chr(base + rng.randrange(size)) for _ in range(rng.randrange(1, 7))))
    return "".join(words)


def read(path):
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError):
        return ""


def files(roots, suffixes, limit, each=60_000):
    """Texts of files below the roots, the same order anywhere, until `limit` bytes are there."""
    texts, size = [], 0
    for root in map(pathlib.Path, roots):
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if size >= limit:
                return texts
            if path.is_file() and (not suffixes or path.name.endswith(suffixes)):
                texts.append(read(path)[:each])
                size += len(texts[-1].encode())
    return texts


def translations(limit, each):
    """Messages of programs in all languages that are installed, at most `each` bytes of one language."""
    texts, size = [], 0
    for directory in sorted(pathlib.Path("/usr/share/locale").glob("*/LC_MESSAGES")):
        language = []
        for path in sorted(directory.glob("*.mo")):
            try:
                with open(path, "rb") as file:
                    messages = gettext.GNUTranslations(file)._catalog
            except (OSError, UnicodeDecodeError, LookupError, ValueError):
                continue
            language += [message for key, message in messages.items() if key and message]
            if sum(map(len, language)) > each:
                break
        text = "\n".join(language).encode()[:each].decode("utf-8", "ignore")
        texts.append(text)
        size += len(text.encode())
        if size >= limit:
            break
    return texts


def code(limit):
    own = files([harness.ROOT / d for d in ("base", "kernels", "data", "trainer", "tests", "docs")], (), limit // 4)
    c = files(["/usr/include"], (".h", ".hpp", ".ipp"), limit // 4)
    python = files([sysconfig.get_path("stdlib")], (".py",), limit // 4, each=30_000)
    scripts = files(["/usr/share/perl", "/usr/share/cmake-3.25", "/usr/share/bash-completion"], (), limit // 4)
    return own + c + python + scripts


def build(size, seed=7):
    """Documents of `size` bytes together, shuffled; and a line that says what they are made of."""
    rng = random.Random(seed)
    manuals = ["/usr/share/doc", "/usr/share/common-licenses"]
    kinds = {
        "code": code(size * 3 // 10),
        "messages in many languages": translations(size * 4 // 10, each=45_000),
        "prose": files(manuals, ("changelog.gz", "README", "copyright"), size // 10),
        "locales": files(["/usr/share/i18n/locales"], (), size // 20),
    }
    documents, counts = [], {}
    for kind, texts in kinds.items():
        for text in map(known, texts):
            documents += [text[i : i + DOCUMENT] for i in range(0, len(text), DOCUMENT)]
        counts[kind] = sum(len(d.encode()) for d in documents) - sum(counts.values())
    counts["generated"] = 0
    while sum(counts.values()) < size:
        documents.append(known(mixed(rng, DOCUMENT // 4)))
        counts["generated"] += len(documents[-1].encode())
    rng.shuffle(documents)
    return documents, ", ".join(f"{kind} {count / 1e6:.1f} MB" for kind, count in counts.items())
