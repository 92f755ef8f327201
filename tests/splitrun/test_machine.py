"""What a measurement says of the machine that it was made on."""

from pathlib import Path

import pytest

from splitrun import machine as machines

X86 = "model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n"
ARM = "Features\t: fp asimd asimddp\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 5 Model B\n"


@pytest.mark.parametrize(
    ("info", "cpu", "instructions"),
    [
        (X86, "AMD EPYC", "AVX2, AVX-512, VNNI, BF16"),
        (ARM, "Raspberry Pi 5 Model B", "NEON, dot product"),
    ],
)
def test_processor_and_instructions_are_read_from_the_kernel(
    info, cpu, instructions, monkeypatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: info)
    found = machines.machine()
    assert (found["cpu"], found["instructions"]) == (cpu, instructions)


def test_a_files_name_tells_processors_of_one_model_apart() -> None:
    facts = {"cpu": "AMD EPYC", "instructions": "AVX2, AVX-512"}
    assert machines.short_name(facts) == "amd-epyc-avx2-avx-512"
    assert machines.short_name(facts | {"instructions": ""}) == "amd-epyc"
