"""Writes a TFDS ArrayRecord set from official files: `python -m infojax.data.prepare NAME --source DIR --out DIR`.

No TensorFlow is needed. The features are those of TensorFlow Datasets, the records lie in the order of the official
files (TensorFlow Datasets shuffles them), so that published lists of indices hold. The set appears under its name when
it is complete; an interrupted run leaves nothing that could be mistaken for one, and can be restarted.
"""

import argparse
import contextlib
import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infojax.data.official import CHECKSUMS, OFFICIAL, PREPARED
from infojax.data.source import DataError


def verify(paths: Sequence[Path]) -> None:
    """Compares archives with their published checksums; says which files have none.

    Raises:
      DataError: one differs.
    """
    for path in paths:
        algorithm, expected = CHECKSUMS.get(path.name, (None, None))
        known = (
            f"checking {path}" if expected else f"{path} is unpacked or unknown: there is no published checksum of it"
        )
        print(known, file=sys.stderr, flush=True)
        if expected is None:
            continue
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()  # type: ignore[arg-type]  # as known as expected
        if found != expected:
            raise DataError(f"{path}: {algorithm} is {found}, published is {expected}; get it anew")


def prepare(name: str, source: str | Path, out: str | Path) -> Path:
    """Writes OUT/NAME/VERSION from the official files and returns that folder; if it is complete nothing happens.

    Raises:
      DataError: missing or damaged files.
    """
    done = prepared_folder(name, out)
    if done is None:
        facts, root = OFFICIAL[name], Path(source).expanduser()
        verify(facts.files(root))
        columns = {split: facts.read(root, split) for split in facts.splits}
        done = write_records(name, columns, out, facts.class_names)
    return done


def prepared_folder(name: str, out: str | Path) -> Path | None:
    """The folder of a complete set, or None."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=Path(out).expanduser(), file_format="array_record")
    return Path(builder.data_path) if builder.is_prepared() else None


def write_records(name: str, columns: Mapping[str, Any], out: str | Path, class_names: Sequence[str] = ()) -> Path:
    """Writes {split: {"image", "label", ...}} with the features and version of the TFDS set `name` into its folder."""
    import tensorflow_datasets as tfds
    from PIL import Image

    out = Path(out).expanduser()
    official = tfds.builder(name, data_dir=out, file_format="array_record")
    for stale in Path(official.data_path).parent.glob(f"incomplete.*_{official.version}"):
        shutil.rmtree(stale)  # from a killed run

    class Writer(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # no types
        VERSION = official.version

        def _info(self):
            info = official.info
            return tfds.core.DatasetInfo(
                builder=self,
                description=info.description,
                features=info.features,
                supervised_keys=info.supervised_keys,
                homepage=info.homepage,
                citation=info.citation,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in columns}

        def _generate_examples(self, split):
            numbers = {key: value for key, value in columns[split].items() if key != "image"}
            for i, image in enumerate(columns[split]["image"]):
                row = {key: int(value[i]) for key, value in numbers.items()}
                # An array would be encoded by TensorFlow, a picture is encoded by Pillow.
                row["image"] = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
                yield i, row | ({"id": f"{split}_{i:05d}"} if "id" in self.info.features else {})

    Writer.name = name
    builder = Writer(data_dir=out, file_format="array_record")
    if class_names:
        builder.info.features["label"].names = list(class_names)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        builder.download_and_prepare()
    return Path(builder.data_path)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 and one line if the set cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m infojax.data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=PREPARED)
    parser.add_argument("--source", required=True, help="folder of the official files")
    parser.add_argument("--out", required=True, help="TFDS data folder, as data.dir of a run")
    args = parser.parse_args(argv)
    try:
        print(prepare(args.name, args.source, args.out))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
