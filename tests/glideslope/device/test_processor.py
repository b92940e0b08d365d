import json
import logging
import os
import subprocess
import sys

import pytest
import torch

from glideslope.device import processor
from glideslope.device.processor import choose_precision, half_factor, is_fast, threads, warn_of_slow_type

CPU = torch.device("cpu")
OLDER = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
PROGRAM = """
import json, torch
from glideslope.device.processor import choose_precision, half_factor, instruction_set
cpu = torch.device("cpu")
print(json.dumps([choose_precision("auto", cpu), half_factor(torch.bfloat16), instruction_set()]))
"""


def ask(**environment: str) -> list[object]:
    """What another process chooses, whose surroundings are these."""
    plain = {name: value for name, value in os.environ.items() if name not in processor.LIMITS}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=plain | environment, capture_output=True, text=True, check=True, timeout=120)
    return list(json.loads(done.stdout))


def test_bfloat16_is_taken_where_it_is_fast_and_a_processor_that_works_as_an_older_one_counts_as_one() -> None:
    native, older = ask(), ask(**OLDER)
    assert native[0] == ("bfloat16" if float(str(native[1])) <= processor.FAST_FACTOR else "float32")
    assert older[0] == "float32"
    assert float(str(older[1])) > 1.5
    assert native[2] != older[2]


def test_what_was_asked_for_by_name_is_taken_with_a_warning_that_states_the_factor(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(processor, "half_factor", lambda dtype: 13.96)
    assert choose_precision("float32", CPU) == "float32"
    assert not caplog.records
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    assert "bfloat16 is emulated by this processor: measured just now, it takes 14.0 times as long as float32" in caplog.text
    assert not is_fast(CPU)
    assert choose_precision("auto", CPU) == "float32"


def test_nothing_is_said_where_16_bits_are_fast_or_not_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(processor, "half_factor", lambda dtype: 0.4)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        warn_of_slow_type(dtype, CPU, "float32")
    monkeypatch.setattr(processor, "half_factor", lambda dtype: 9.0)
    warn_of_slow_type(torch.float32, CPU, "float32")
    warn_of_slow_type(torch.bfloat16, torch.device("cuda"), "float32")
    assert not caplog.records


def test_a_measurement_leaves_random_numbers_and_threads_as_they_were() -> None:
    before = torch.get_rng_state(), torch.get_num_threads()
    half_factor.cache_clear()
    assert half_factor(torch.bfloat16) > 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_threads_are_set_for_a_block_only() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
