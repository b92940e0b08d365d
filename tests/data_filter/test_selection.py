from collections import Counter

import numpy as np
from glideslope.data_filter.labels import Label
from glideslope.data_filter.selection import choose_training, concept_weights


def make_labels(spec: list[tuple[str, int, str, int]]) -> list[Label]:
    """Concept, label, role and number of variants."""
    return [Label(f"{concept}-{n}", concept, "c", label, role, {}, "", "", "") for concept, label, role, count in spec for n in range(count)]


def test_only_train_labels_are_used_and_never_more_than_allowed() -> None:
    labels = make_labels([(f"p{n}", 1, role, 5) for n, role in enumerate(["train", "audit", "calibrate"] * 4)]
                         + [(f"n{n}", 0, "train", 1) for n in range(30)])
    for most in (7, 25, 50, 1000):
        chosen = choose_training(labels, most)
        assert all(labels[place].role == "train" for place in chosen)
        assert len(chosen) == min(most, 50) == len(set(chosen))
        assert list(chosen) == sorted(chosen)


def test_concepts_take_turns_and_classes_share_three_to_seven() -> None:
    labels = make_labels([("big", 1, "train", 500), *[(f"p{n}", 1, "train", 3) for n in range(29)],
                          *[(f"n{n}", 0, "train", 1) for n in range(400)]])
    chosen = [labels[place] for place in choose_training(labels, 100)]
    assert Counter(label.label for label in chosen) == {1: 30, 0: 70}
    assert Counter(label.concept for label in chosen if label.label == 1).most_common(1)[0][1] == 1


def test_a_class_that_runs_out_leaves_its_turns_to_the_other() -> None:
    labels = make_labels([("p", 1, "train", 2), *[(f"n{n}", 0, "train", 1) for n in range(50)]])
    assert Counter(labels[place].label for place in choose_training(labels, 20)) == {1: 2, 0: 18}


def test_the_choice_does_not_depend_on_the_order_of_the_labels() -> None:
    labels = make_labels([(f"c{n}", n % 2, "train", 1 + n % 4) for n in range(30)])
    turned = labels[::-1]
    assert {labels[place].key for place in choose_training(labels, 20)} == {turned[place].key for place in choose_training(turned, 20)}


def test_a_concept_of_many_variants_weighs_less_per_variant() -> None:
    weights = concept_weights(np.array(["a"] * 4 + ["b"], dtype=object))
    assert weights.tolist() == [0.5] * 4 + [1.0]
