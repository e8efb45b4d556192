"""Gathers source text to learn from: `python data.py CORPUS`.

The packages of `packages.toml` are fetched by the ordinary clients of their registries, and nothing of
them is run. Each must declare itself a licence that is listed there as permissive, or nothing is written.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

HERE = pathlib.Path(__file__).parent

LANGUAGES = {".py": "python", ".rs": "rust", ".js": "javascript", ".mjs": "javascript", ".ts": "typescript"}

LEAST, MOST = 400, 60_000
"""Characters of a file that is worth reading."""

GENERATED = re.compile(r"@generated|auto-?generated|do not edit|sourceMappingURL|machine generated", re.IGNORECASE)

HEADER = re.compile(r"\A(?:\s*(?:#|//|/\*|\*|--).*\n)+\s*")
"""The comments a file begins with; they hold its licence, if it has one there."""


def wheel(name, version, folder):
    """A package as `pip` fetches it: one file in `folder`."""
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"{name}=={version}",
        "--dest", folder)
    (file,) = folder.glob("*.whl")
    return file


def pypi(name, version, folder):
    """A wheel, which needs no building: its files, and what it declares."""
    files = read_zip(wheel(name, version, folder))
    (metadata,) = (text for path, text in files.items() if path.endswith(".dist-info/METADATA"))
    found = re.findall(r"^(?:License-Expression|License): (.+)$|^Classifier: License :: .*:: (.+)$", metadata, re.MULTILINE)
    return files, [a or b for a, b in found]


def crates(name, version, folder):
    """A crate as `cargo vendor` lays it down, in a project that is never built."""
    (folder / "src").mkdir()
    (folder / "src" / "lib.rs").touch()
    dependency = f'{name} = {{ version = "={version}", default-features = false }}'
    (folder / "Cargo.toml").write_text(f'[package]\nname = "corpus"\nedition = "2024"\n[dependencies]\n{dependency}\n')
    run("cargo", "vendor", "--quiet", "--versioned-dirs", folder / "vendor", cwd=folder)
    crate = folder / "vendor" / f"{name}-{version}"
    files = {
        str(file.relative_to(crate)): file.read_text(encoding="utf-8", errors="replace")
        for file in sorted(crate.rglob("*"))
        if file.is_file() and (file.suffix in LANGUAGES or file.name == "Cargo.toml")
    }
    licence = tomllib.loads(files["Cargo.toml"])["package"].get("license", "")
    return files, [licence]


def npm(name, version, folder):
    """A package as `npm pack` fetches it."""
    run("npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}", cwd=folder)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as members:
        files = {
            member.name: members.extractfile(member).read().decode("utf-8", "replace")
            for member in members
            if member.isfile() and (pathlib.Path(member.name).suffix in LANGUAGES or member.name == "package/package.json")
        }
    return files, [json.loads(files["package/package.json"]).get("license", "")]


REGISTRIES = {"pypi": pypi, "crates": crates, "npm": npm}


def run(*command, cwd=None):
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def read_zip(file):
    with zipfile.ZipFile(file) as members:
        wanted = [name for name in members.namelist() if pathlib.Path(name).suffix in LANGUAGES or name.endswith("METADATA")]
        return {name: members.read(name).decode("utf-8", "replace") for name in wanted}


def permitted(declared, licences):
    """The licence by which a package may be used, or None. Where it declares several, each must be permissive; where
    one is a choice, one of the choices."""
    chosen = []
    for text in filter(None, declared):
        choices = [choice.strip("() ") for choice in re.split(r"\s+OR\s+|/", text)]
        chosen.append(next((choice for choice in choices if choice in licences), None))
    return chosen[0] if chosen and all(chosen) else None


def wanted(path, text):
    """The text to learn from, or None for what nobody wrote by hand, and for what is too short or long."""
    if pathlib.Path(path).suffix not in LANGUAGES or ".min." in path or "\ufffd" in text or "\r" in text:
        return None
    if GENERATED.search(text[:2000]):
        return None
    text = HEADER.sub("", text)
    lines = text.splitlines() or [""]
    if not LEAST <= len(text) <= MOST or max(map(len, lines)) > 300 or len(text) / len(lines) > 80:
        return None
    return text


def fingerprint(text):
    """The same for texts that differ in blanks only."""
    return hashlib.sha256("".join(text.split()).encode()).digest()


def gather(package, licences, seen):
    """The files of a package, and its licence."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = REGISTRIES[package["registry"]]
        files, declared = fetch(package["name"], package["version"], pathlib.Path(folder))
    licence = permitted(declared, licences)
    if not licence:
        raise SystemExit(f"{package['name']} {package['version']} declares {declared}, and none of that is permissive")
    kept = []
    for path, text in files.items():
        text = wanted(path, text)
        if text and (mark := fingerprint(text)) not in seen:
            seen.add(mark)
            path = pathlib.Path(path)
            kept.append({"package": package["name"], "name": path.name, "language": LANGUAGES[path.suffix], "text": text})
    return kept, licence


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=pathlib.Path, help="the folder to write")
    parser.add_argument("--packages", type=pathlib.Path, default=HERE / "packages.toml")
    options = parser.parse_args()
    listed = tomllib.loads(options.packages.read_text())
    options.corpus.mkdir(parents=True)
    # What is held out comes first, so that no copy of it is learned.
    packages = sorted(listed["package"], key=lambda package: not package.get("held_out", False))
    seen, parts, sources = set(), {"held_out": [], "train": []}, []
    for package in packages:
        files, licence = gather(package, listed["licences"], seen)
        part = "held_out" if package.get("held_out") else "train"
        parts[part] += files
        size = sum(len(file["text"]) for file in files)
        sources.append(f"{package['registry']}\t{package['name']}\t{package['version']}\t{licence}\t{part}\t{len(files)}\t{size}\n")
        print(sources[-1], end="", flush=True)
    for part, files in parts.items():
        (options.corpus / f"{part}.jsonl").write_text("".join(json.dumps(file) + "\n" for file in files))
    (options.corpus / "sources.tsv").write_text("".join(sources))


if __name__ == "__main__":
    main()
