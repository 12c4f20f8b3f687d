"""Measures of features whose rows two processes share; prints what each found."""

import json
import sys

import numpy as np

from infojax import processes


def samples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 400).astype(np.int32)
    head = np.float32(rng.normal(size=(20, 16)))
    return np.float32(head[labels] + rng.normal(size=(400, 16))), labels, head


def program():
    from infojax import parallel

    z, labels, head = samples()
    mesh = parallel.make_mesh()
    z = parallel.from_local_rows(z[parallel.local_rows(len(z), mesh)], mesh)
    found = {
        "squares": float(parallel.class_stats(z, labels, 20, mesh=mesh).squares.sum()),
        "mir": float(parallel.interplay(z, labels, head, mesh=mesh).mir),
        "exact": parallel.estimate_interplay(z, labels, head, mesh=mesh).mir[:3],
        "estimated": parallel.estimate_interplay(z, labels, head, mesh=mesh, exact_side=8, confidence=0.999).mir[:3],
        "entropy": parallel.estimate_matrix_entropy(z, mesh=mesh, exact_side=8, confidence=0.999)[:3],
    }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    settings, _ = processes.split_flags(sys.argv[1:])
    sys.exit(processes.run(program, settings, "shared"))
