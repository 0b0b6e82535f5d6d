"""What separating 20,000 touching objects in a map of 4096×4096 costs one core.

`OMP_NUM_THREADS=1 python -m benchmarks.instances` prints processor times, which do not change with
what else the machine does, and the largest memory of `separate` beside its input.
"""

import time
import tracemalloc

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.instances import InstanceRule, separate

EDGE = 4096
"""Edge of the map in px."""
OBJECTS_A_SIDE = 142
ROUNDS = 5
THRESHOLD = 0.35
BAR_S = 2.0
RULES = {
    "threshold only": InstanceRule(seed_threshold=THRESHOLD),
    "smallest area": InstanceRule(seed_threshold=THRESHOLD, smallest_area=30),
    "seeds": InstanceRule(seed_threshold=0.7),
    "seeds, smallest area": InstanceRule(seed_threshold=0.7, smallest_area=30),
}


def main() -> int:
    """Measure every rule and print a table."""
    probabilities = touching_objects()
    print(f"{'rule':<21} {'objects':>8} {'median':>10} {'bar':>7} {'memory':>11}")
    slow = False
    for name, rule in RULES.items():
        found = int(separate(probabilities, THRESHOLD, rule).max())
        seconds = float(np.median([processor_time(probabilities, rule) for _ in range(ROUNDS)]))
        memory = peak_bytes(probabilities, rule) / 2**20
        print(f"{name:<21} {found:>8} {seconds:>8.2f} s {BAR_S:>5.1f} s {memory:>7.0f} MiB")
        slow |= seconds > BAR_S
    return int(slow)


def touching_objects() -> NDArray[np.float32]:
    """Draw discs that touch on a shaken grid, with low ridges between them and some noise."""
    rng = np.random.default_rng(0)
    spacing = EDGE / OBJECTS_A_SIDE
    centres = (np.indices((OBJECTS_A_SIDE, OBJECTS_A_SIDE)) + 0.5) * spacing
    centres += rng.uniform(-0.1, 0.1, centres.shape) * spacing
    rows, columns = centres.reshape(2, -1).astype(np.intp)
    outside = np.ones((EDGE, EDGE), np.bool_)
    outside[rows, columns] = False
    distance = ndimage.distance_transform_edt(outside).astype(np.float32)
    noise = ndimage.gaussian_filter(rng.standard_normal((EDGE, EDGE), np.float32), 1.5)
    logits = 0.6 * (0.42 * spacing - distance) + 2.0 * noise
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def processor_time(probabilities: NDArray[np.float32], rule: InstanceRule) -> float:
    """Give the processor time of one call in s."""
    start = time.process_time()
    separate(probabilities, THRESHOLD, rule)
    return time.process_time() - start


def peak_bytes(probabilities: NDArray[np.float32], rule: InstanceRule) -> int:
    """Give the most memory that one call holds at once, its result included."""
    tracemalloc.start()
    separate(probabilities, THRESHOLD, rule)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    raise SystemExit(main())
