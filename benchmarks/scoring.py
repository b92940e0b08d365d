"""How fast an RBF machine scores embeddings, beside scikit-learn's own decision function in the same run, and whether decisions agree.

    python -m benchmarks.scoring                         # one million embeddings of 512 numbers, 2,000 support vectors
    python -m benchmarks.scoring --sklearn-rows 1000000  # scikit-learn on all of them too; else its time is scaled up from fewer rows

Both use the threads that OMP_NUM_THREADS allows; scikit-learn's decision function uses one whatever it says.
"""

import argparse
import os
import time

import numpy as np
import torch
from sklearn.svm import SVC

from glideslope.data_filter.classifiers.kinds.estimator import TrainingSet, balance
from glideslope.data_filter.classifiers.kinds.rbf_svm import RbfSvm, RbfSvmEstimator

GAMMA, REGULARISATION = 4.0, 3.0


def draw(num: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Embeddings that all point roughly one way, as those of a CLIP do: float16 (N, D)."""
    x = generator.normal(size=(num, width)).astype(np.float32) + 2
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def fit(num_vectors: int, width: int, generator: np.random.Generator) -> tuple[RbfSvm, SVC]:
    """A machine of exactly so many support vectors, as ours and as scikit-learn's: random labels make every example one."""
    x, labels = draw(num_vectors, width, generator), np.arange(num_vectors) % 3 // 2
    data = TrainingSet(x, labels.astype(np.int64), np.ones(num_vectors))
    ours = RbfSvmEstimator(GAMMA, REGULARISATION).fit(data)
    prepared = ours.preparation.apply(x).numpy()
    theirs = SVC(C=REGULARISATION, gamma=GAMMA, cache_size=500).fit(prepared, labels, sample_weight=balance(np.ones(num_vectors), data.labels))
    return ours, theirs


def main() -> None:
    """Time both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=2000)
    parser.add_argument("--sklearn-rows", type=int, default=20_000)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    ours, theirs = fit(options.vectors, options.width, generator)
    rows = draw(options.rows, options.width, generator)
    ours.score(rows[:2000])

    started, cpu = time.perf_counter(), time.process_time()
    scores = ours.score(rows)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu

    chosen = np.linspace(0, options.rows - 1, min(options.sklearn_rows, options.rows)).astype(int)
    prepared = ours.preparation.apply(rows[chosen]).numpy()
    started, cpu = time.perf_counter(), time.process_time()
    expected = theirs.decision_function(prepared).astype(np.float32)
    taken = time.perf_counter() - started, time.process_time() - cpu
    their_seconds, their_cpu = (value / len(chosen) * options.rows for value in taken)

    print(f"{options.rows:,} embeddings of {options.width} numbers, {len(theirs.support_):,} support vectors, "
          f"{torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f} at the end")
    print(f"ours:         {seconds:8.1f} s   ({cpu_seconds:.1f} s of processor time)")
    scaled = "" if len(chosen) == options.rows else f", scaled up from {len(chosen):,} rows"
    print(f"scikit-learn: {their_seconds:8.1f} s   ({their_cpu:.1f} s of processor time{scaled})")
    print(f"ratio:        {their_seconds / seconds:8.1f}     ({their_cpu / cpu_seconds:.1f} by processor time)")
    found = np.unique(expected)
    thresholds = found[::max(1, len(found) // 200)]
    differing = sum(int(((scores[chosen] < threshold) != (expected < threshold)).sum()) for threshold in thresholds)
    distance = np.abs(scores[chosen] - expected)
    print(f"decisions:    {differing} differ at {len(thresholds)} thresholds that are scores themselves; "
          f"largest difference of a score {distance.max():.1e}, {int((distance > 0).sum())} of {len(chosen):,} scores differ in their last bit")


if __name__ == "__main__":
    main()
