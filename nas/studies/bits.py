"""What sharing weights between bit-widths costs: shared against dedicated training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.studies.records import StudyFolder
from nas.studies.source import Source, open_source
from nas.studies.subnets import stratified_subnets
from nas.studies.workers import AloneRecipe, Work, compute_all
from search_spaces.atomic import write_json_atomic
from search_spaces.bits import common_bits
from search_spaces.errors import InputError


@dataclass(frozen=True)
class BitsStudy:
    """Architectures trained on from the supernet's weights, shared and dedicated.

    ``shared`` trains one architecture at every bit-width in each step, with one set of weights;
    ``dedicated`` trains as many copies as there are bit-widths, each at its own alone. Both
    begin with the inherited weights, see the same images, take the same steps and learn from
    the targets, so the bits are all that differs.

    Attributes:
        bits: of weights and activations alike, in every searched layer; none for those that the
            space has for all of them.
        steps: of each training.
        learning_rate: peak.
        batch_size: images a step.
        subnets: how many architectures; ignored where ``archs`` are given.
        archs: texts of architectures; their own bits do not matter.
        seeds: trainings of each kind.
        seed: of the draw of architectures.
        images: validation images of one evaluation; None takes all.
    """

    bits: tuple[int, ...]
    steps: int
    learning_rate: float
    batch_size: int = 128
    subnets: int = 4
    archs: tuple[str, ...] = ()
    seeds: int = 1
    seed: int = 0
    images: int | None = None

    def run(
        self,
        source: Source,
        folder: Path,
        *,
        workers: int = 1,
        on_record: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Compute what ``folder`` lacks, write ``bits.json`` and return it.

        Args:
            source: the run whose weights are trained on.
            folder: of the study; what it holds already is not computed again.
            workers: processes of one thread each.
            on_record: called with (done, total, record) after each piece of work.

        Returns:
            ``differences``: by bits, dedicated minus shared and dedicated minus inherited
            accuracy in percentage points, means over architectures and seeds; and every
            accuracy in ``subnets``.

        Raises:
            InputError: bits that the space has not, or not two to compare.
        """
        space = open_source(source).space
        if not self.bits:
            bits = common_bits(space)
            if len(bits) < 2:
                raise InputError(
                    f"the space {space.name!r} has {list(bits) or 'no bits'} for every layer, and "
                    "a study of shared bits compares several: give the job's space more of "
                    "weight_bits and activation_bits"
                )
            return replace(self, bits=bits).run(
                source, folder, workers=workers, on_record=on_record
            )
        archs: Sequence[str] = self.archs
        if not archs:
            chosen = stratified_subnets(space, max(4, self.subnets), seed=self.seed)
            archs = [str(arch) for arch in chosen.archs[: self.subnets]]
        store = StudyFolder(
            folder,
            {
                "study": "bits",
                **source.identity(),
                "subnets": list(archs),
                "bits": self.bits,
                "steps": self.steps,
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "validation_images": self.images,
            },
        )
        recipe = AloneRecipe(steps=self.steps, batch_size=self.batch_size)
        store.complete(
            self._work(archs),
            lambda todo: compute_all(source, recipe, todo, workers=workers, images=self.images),
            on_record,
        )
        result = self._result(archs, store)
        write_json_atomic(Path(folder) / "bits.json", result)
        return result

    def _work(self, archs: Sequence[str]) -> list[Work]:
        def work(key: str, arch: str, seed: int, steps: int, bits: tuple[int, ...]) -> Work:
            options = {
                "seed": seed,
                "steps": steps,
                "learning_rate": self.learning_rate,
                "bits": bits,
            }
            return Work(key, "continued", arch, tuple(options.items()))

        found = []
        for arch in archs:
            found.append(work(f"inherited|{arch}", arch, 0, 0, self.bits))
            for seed in range(self.seeds):
                found.append(work(f"shared|{seed}|{arch}", arch, seed, self.steps, self.bits))
                for bits in self.bits:
                    key = f"dedicated|{bits}|{seed}|{arch}"
                    found.append(work(key, arch, seed, self.steps, (bits,)))
        return found

    def _result(self, archs: Sequence[str], store: StudyFolder) -> dict[str, Any]:
        subnets = []
        for arch in archs:
            entry: dict[str, Any] = {"arch": arch, "bits": {}}
            for bits in self.bits:
                key = str(bits)
                entry["bits"][key] = {
                    "inherited": store.known(f"inherited|{arch}")["accuracy"][key],
                    "shared": [
                        store.known(f"shared|{seed}|{arch}")["accuracy"][key]
                        for seed in range(self.seeds)
                    ],
                    "dedicated": [
                        store.known(f"dedicated|{bits}|{seed}|{arch}")["accuracy"][key]
                        for seed in range(self.seeds)
                    ],
                }
            subnets.append(entry)
        differences = {}
        for key in map(str, self.bits):
            dedicated = np.array([entry["bits"][key]["dedicated"] for entry in subnets])
            shared = np.array([entry["bits"][key]["shared"] for entry in subnets])
            inherited = np.array([[entry["bits"][key]["inherited"]] for entry in subnets])
            differences[key] = {
                "dedicated_minus_shared": round(100 * float((dedicated - shared).mean()), 3),
                "dedicated_minus_inherited": round(100 * float((dedicated - inherited).mean()), 3),
            }
        return {
            "differences": differences,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "seeds": self.seeds,
            "subnets": subnets,
        }
