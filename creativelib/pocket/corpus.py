"""The corpus of the icon world: freely licensed emoji and icon sets, rendered to 128 px with captions and splits.

``python -m creativelib.pocket.corpus`` fetches the sets by name with the ordinary npm client and writes ``images.npy``
(N, 128, 128, 3) uint8 and ``records.json`` to the work folder. It is needed to train and to measure, never to use, the model.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from creativelib.pocket import taxonomy

SIZE = 128
MARGIN = 6  # pixels of white around every drawing, so that nothing touches the border

# Unicode emoji sets: package -> the style words of its captions. The licence of each is read from the package itself.
EMOJI_SETS = {
    "noto": "flat noto",
    "noto-v1": "blob noto",
    "twemoji": "flat twitter",
    "fluent-emoji": "glossy fluent",
    "fluent-emoji-flat": "flat fluent",
    "emojione": "flat joypixels",
    "fxemoji": "flat firefox",
    "streamline-emojis": "outlined streamline",
}
# Sets without Unicode names, used for the thin subjects only; palette False: glyphs of one colour, which are tinted.
ICON_SETS = {
    "game-icons": "silhouette", "ph": "duotone", "solar": "duotone", "mdi": "silhouette", "temaki": "silhouette",
    "fluent": "silhouette", "icon-park": "line", "flat-color-icons": "flat", "streamline-kameleon-color": "round badge",
    "streamline-ultimate-color": "outlined", "streamline-plump-color": "outlined", "streamline-flex-color": "outlined",
    "streamline-sharp-color": "outlined", "streamline-cyber-color": "neon", "streamline-freehand-color": "hand drawn",
    "streamline-stickies-color": "sticker",
}  # fmt: skip
GLYPH_VARIANTS = {"ph": r"-(duotone|fill)$", "solar": r"-(bold-duotone|bold)$", "fluent": r"-48-filled$|-24-filled$"}
TINTS = {
    "red": "#d6333b", "orange": "#f08a24", "yellow": "#e8b90c", "green": "#3f9b46", "teal": "#16969b", "blue": "#2f6fd0",
    "purple": "#7b4bc4", "pink": "#dd5698", "brown": "#8a5a35", "gray": "#5c6670",
}  # fmt: skip
# Colour words by hue, up to an angle in degrees each; orange of less than 65 % brightness is brown.
HUES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "red")
HUE_ENDS = (12, 42, 68, 160, 195, 255, 290, 345)
TINTS_PER_GLYPH = 2
# Folders of Debian's openclipart-svg (public domain) and the noun of what is in them.
CLIPART_FOLDERS = {"animals": "animal", "transportation": "vehicle", "buildings": "building", "food": "food", "plants": "plant"}
CLIPART_FRUIT = r"apple|banana|cherr|grape|lemon|lime|orange|peach|pear|pineapple|strawberr|melon|plum|kiwi|mango|fruit|berry"
CLIPART_REFUSED = (
    r"sign|symbol|logo|road|map|traffic|icon|font|letter|path|fork|spoon|knife|plate|glass|can_|bottle|footprint|paw"
)
CLIPART_REFUSED += r"|aiga|man|pictogram|juice|pie|jam|cake|candy|silhouette|outline|skeleton|skull|icon"
PETS = r"dog|cat|puppy|kitten|bird|parrot|fish|horse|pony|rabbit|bunny|mouse|hamster|turtle|frog|duck|chick|pig|cow|sheep|goat"

# Pinned: another version of a set has other drawings, and the shipped evaluation was made on these.
NPM_VERSIONS = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/streamline-emojis": "1.2.4",
    "@iconify-json/game-icons": "1.2.4",
    "@iconify-json/ph": "1.2.2",
    "@iconify-json/solar": "1.2.13",
    "@iconify-json/mdi": "1.2.3",
    "@iconify-json/temaki": "1.2.6",
    "@iconify-json/fluent": "1.2.60",
    "@iconify-json/icon-park": "1.2.4",
    "@iconify-json/flat-color-icons": "1.2.3",
    "@iconify-json/streamline-kameleon-color": "1.2.2",
    "@iconify-json/streamline-ultimate-color": "1.2.2",
    "@iconify-json/streamline-plump-color": "1.2.2",
    "@iconify-json/streamline-flex-color": "1.2.2",
    "@iconify-json/streamline-sharp-color": "1.2.2",
    "@iconify-json/streamline-cyber-color": "1.2.2",
    "@iconify-json/streamline-freehand-color": "1.2.2",
    "@iconify-json/streamline-stickies-color": "1.2.2",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "emojibase-data": "17.0.0",
}


def fetch_packages(folder: Path) -> Path:
    """Install the icon sets with npm into ``folder``; returns its ``node_modules``. Does nothing when all are there."""
    modules = folder / "node_modules"
    missing = [name for name in NPM_VERSIONS if not (modules / name).exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            *(f"{name}@{version}" for name, version in NPM_VERSIONS.items()),
        ]
        try:
            subprocess.run(command, cwd=folder, check=True)
        except FileNotFoundError as error:
            raise SystemExit(
                "The corpus needs the npm client (Node.js) to fetch the icon sets: install it and run again."
            ) from error
    return modules


def slugify(label: str) -> str:
    """``"Mrs. Claus"`` -> ``"mrs-claus"``, as the icon sets name their files."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("'", "").replace("ñ", "n")).strip("-")


def emoji_records(modules: Path) -> list[dict]:
    """One record per concept that the corpus keeps: hexcode, label, tags, nouns."""
    data = json.loads((modules / "emojibase-data/en/data.json").read_text())
    subgroups = json.loads((modules / "emojibase-data/meta/groups.json").read_text())["subgroups"]
    concepts = []
    for entry in data:
        subgroup = subgroups.get(str(entry.get("subgroup")))
        label = entry["label"].lower()
        if subgroup not in taxonomy.SUBGROUP_NOUNS or "gender" in entry or re.search(r"o’clock|-thirty|^flag|keycap", label):
            continue
        nouns = taxonomy.nouns_of_label(label, subgroup)
        concepts.append({"concept": entry["hexcode"].lower(), "label": label, "tags": entry.get("tags", []), "nouns": nouns})
    return concepts


def svg_of(icon: dict, sheet: dict, tint: str | None = None) -> str:
    """The SVG document of one icon of an Iconify sheet, in ``tint`` where it draws in the current colour."""
    width, height = (icon.get(side, sheet.get(side, 16)) for side in ("width", "height"))
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"].replace("currentColor", tint or "#333333")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def on_white(image: Image.Image) -> np.ndarray:
    """An RGBA picture, centred on white with the corpus's margin: (128, 128, 3) uint8."""
    inner = SIZE - 2 * MARGIN
    scale = inner / max(image.size)
    image = image.convert("RGBA").resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE), "white")
    canvas.alpha_composite(image, tuple((SIZE - side) // 2 for side in image.size))
    return np.asarray(canvas.convert("RGB"))


def render(source: str) -> np.ndarray | None:
    """Render an SVG document, or a picture file when ``source`` is a path; None when it cannot be drawn or is blank."""
    import resvg_py

    try:
        if source.endswith(".webp"):
            picture = Image.open(source)
        else:
            keyword = {"svg_path": source} if source.endswith(".svg") else {"svg_string": source}
            picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(**keyword, width=SIZE * 3 // 2))))
        image = on_white(picture)
    except Exception:  # a malformed drawing among ten thousand is left out, and the count of these is printed
        return None
    covered = (image < 245).any(-1).mean()
    return image if 0.02 < covered < 0.98 else None


def is_colourful(image: np.ndarray) -> bool:
    """Whether at least 5 % of the picture is in colour: keeps black-and-white line art out of the clip art."""
    return float((np.ptp(image.astype(int), axis=-1) > 40).mean()) > 0.05


def colour_of(image: np.ndarray) -> str | None:
    """The colour word for a picture (H, W, 3), or None where no colour holds 45 % of what is drawn."""
    drawn = image[(image < 245).any(-1)].astype(np.float32) / 255
    if not len(drawn):
        return None
    high, low = drawn.max(-1), drawn.min(-1)
    spread = np.maximum(high - low, 1e-6)
    red, green, blue = drawn.T
    hue = np.where(
        high == red, (green - blue) / spread % 6, np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4)
    )
    grey = spread < 0.18
    names = np.array(HUES)[np.searchsorted(HUE_ENDS, hue * 60)]
    names[(names == "orange") & (high < 0.65)] = "brown"
    names[grey] = np.where(high[grey] < 0.3, "black", np.where(high[grey] > 0.85, "white", "gray"))
    words, counts = np.unique(names, return_counts=True)
    return str(words[counts.argmax()]) if counts.max() >= 0.45 * len(drawn) else None


def gather(modules: Path, clipart: Path) -> list[dict]:
    """All records of the corpus with their drawing under ``"drawing"``, in a fixed order."""
    records = []
    concepts = emoji_records(modules)
    sheets = {}
    for name in (*EMOJI_SETS, *ICON_SETS):
        folder = modules / "@iconify-json" / name
        sheets[name] = json.loads((folder / "icons.json").read_text())
    for name, style in EMOJI_SETS.items():
        icons = sheets[name]["icons"]
        chars_file = modules / "@iconify-json" / name / "chars.json"
        chars = json.loads(chars_file.read_text()) if chars_file.exists() else {}
        for concept in concepts:
            code = concept["concept"]
            slug = slugify(concept["label"])
            keys = (chars.get(code), chars.get(code.replace("-fe0f", "")), slug, slug.replace("-", ""))
            key = next((k for k in keys if k and k in icons and "skin-tone" not in k), None)
            if key:
                records.append({**concept, "set": name, "style": style, "drawing": svg_of(icons[key], sheets[name])})
    assets = modules / "@lobehub/fluent-emoji-3d/assets"
    for concept in concepts:
        for code in (concept["concept"], concept["concept"].replace("-fe0f", "")):
            if (assets / f"{code}.webp").exists():
                picture = str(assets / f"{code}.webp")
                records.append({**concept, "set": "fluent-emoji-3d", "style": "3d fluent", "drawing": picture})
                break
    for name, style in ICON_SETS.items():
        tinted = any("currentColor" in icon["body"] for icon in list(sheets[name]["icons"].values())[:20])
        for slug, icon in sheets[name]["icons"].items():
            if name in GLYPH_VARIANTS and not re.search(GLYPH_VARIANTS[name], slug) or "outline" in slug:
                continue
            bare = re.sub(r"-(duotone|bold-duotone|bold|fill|filled|\d+|flat|duo|one|two)\b", "", slug)
            noun = taxonomy.subject_of_name(slug)
            if noun is None:
                continue
            record = {"concept": f"{noun}:{bare}", "label": bare.replace("-", " "), "tags": [], "nouns": [noun], "set": name}
            picks = np.random.default_rng(int(hashlib.sha256(f"{name}/{slug}".encode()).hexdigest()[:8], 16))
            tints = picks.choice(list(TINTS), TINTS_PER_GLYPH, replace=False) if tinted else [None]
            for tint in tints:
                drawing = svg_of(icon, sheets[name], TINTS.get(tint))
                records.append({**record, "style": f"{tint} {style}" if tint else style, "drawing": drawing})
    for path in sorted(clipart.rglob("*.svg")) if clipart.exists() else []:
        top = path.relative_to(clipart).parts[0]
        stem = path.stem.lower()
        words = re.sub(r"[_\W\d]+", " ", stem).strip()
        dino = "dino" in stem
        if (top not in CLIPART_FOLDERS and not dino) or re.search(CLIPART_REFUSED, stem):
            continue
        noun = "dinosaur" if dino else CLIPART_FOLDERS[top]
        nouns = ["fruit"] if noun == "food" and re.search(CLIPART_FRUIT, stem) else [noun]
        if noun == "animal" and re.search(rf"(?:^|_)(?:{PETS})(?:s|_|$)", stem):
            nouns = ["pet", "animal"]
        label = " ".join(words.split()[:2])  # the file names end in their author's name
        record = {"concept": f"clipart:{stem}", "label": label, "tags": [], "nouns": nouns, "set": "openclipart"}
        records.append({**record, "style": "clip art", "drawing": str(path)})
    return records


def assign_split(records: list[dict], seed: int = 0) -> None:
    """Hold out 10 % of the concepts whole, and 5 % of the other renderings; writes ``record["split"]`` in place.

    The split depends only on names, so that a larger corpus keeps what was held out before.
    """

    def fraction(text: str) -> float:
        return int(hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()[:8], 16) / 2**32

    for record in records:
        if fraction(record["concept"].split(":")[-1]) < 0.10:
            record["split"] = "held-out concept"
        elif fraction(f"{record['concept']}/{record['set']}") < 0.05:
            record["split"] = "held-out rendering"
        else:
            record["split"] = "train"


def build(work: Path, clipart: Path) -> tuple[np.ndarray, list[dict]]:
    """Fetch, render and save the corpus; returns images (N, 128, 128, 3) uint8 and their records."""
    records = gather(fetch_packages(work / "npm"), clipart)
    with concurrent.futures.ProcessPoolExecutor() as pool:
        drawings = pool.map(render, [r["drawing"] for r in records], chunksize=50)
        images = list(tqdm(drawings, total=len(records), desc="render", leave=False, mininterval=1))
    kept, seen = [], set()
    for record, image in zip(records, images, strict=True):
        if image is None or (record["set"] == "openclipart" and not is_colourful(image)):
            continue
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest not in seen:  # sets share some drawings
            seen.add(digest)
            kept.append((record, image))
    print(f"{len(records)} drawings, {len(kept)} kept, {sum(i is None for i in images)} could not be drawn or were blank")
    records, images = [r for r, _ in kept], np.stack([i for _, i in kept])
    drawings = [record.pop("drawing") for record in records]
    assign_split(records)
    for record, image in zip(records, images, strict=True):
        record["colour"] = colour_of(image)
    (work / "corpus").mkdir(parents=True, exist_ok=True)
    np.save(work / "corpus/images.npy", images)
    (work / "corpus/drawings.json").write_text(json.dumps(drawings))
    (work / "corpus/records.json").write_text(json.dumps(records))
    return images, records


def load(work: Path) -> tuple[np.ndarray, list[dict]]:
    """The saved corpus: images (N, 128, 128, 3) uint8 and N records.

    Raises FileNotFoundError with the command that builds it.
    """
    folder = Path(work) / "corpus"
    if not (folder / "records.json").exists():
        raise FileNotFoundError(f"There is no corpus in {folder}. Build it with: make pocket-corpus")
    return np.load(folder / "images.npy"), json.loads((folder / "records.json").read_text())


def load_drawings(work: Path) -> list[str]:
    """What the N pictures of the saved corpus were rendered from: SVG text, or the path of a picture file.

    Raises FileNotFoundError with the command that builds it.
    """
    path = Path(work) / "corpus" / "drawings.json"
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Build it with: make pocket-corpus")
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="work folder (default: %(default)s)")
    parser.add_argument(
        "--clipart", type=Path, default=Path("/usr/share/openclipart/svg"), help="Debian's openclipart-svg, if there"
    )
    options = parser.parse_args()
    if not options.clipart.exists():
        print(
            f"There is no {options.clipart}: the corpus goes without the clip art, 3 % of the shipped model's pictures. "
            "To have it, install Debian's package openclipart-svg, or give --clipart a folder with its drawings."
        )
    _, records = build(options.work, options.clipart)
    for noun in taxonomy.SUBJECTS:
        chosen = [r for r in records if noun in r["nouns"]]
        print(f"{noun:10s} {len(chosen):5d} images of {len({r['concept'] for r in chosen})} concepts")


if __name__ == "__main__":
    main()
