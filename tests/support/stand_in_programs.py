"""Stand-ins for the programs of BPG and VTM: scripts that write down what they were given."""

import json
import sys

import numpy as np

BPGENC, BPGDEC = "bpgenc", "bpgdec"
VTMENC, VTMDEC = "EncoderAppStatic", "DecoderAppStatic"
PROGRAMS = {"bpg": (BPGENC, BPGDEC), "vtm": (VTMENC, VTMDEC)}

# Each writes down what it was given, and codes without loss: a BPG header and the PNG behind it, or
# the raw planes with the frame's size before them.
PREAMBLE = """
import json, os, struct, sys
arguments = sys.argv[1:]
if arguments == ["-h"]:  # what libbpg 0.9.8 prints, and how it ends
    print("BPG Image Encoder version 0.9.8\\nusage: bpgenc [options] infile.[jpg|png]")
    print("-e encoder           select the HEVC encoder (x265 jctvc, default = x265)")
    sys.exit(1)
def after(option):
    return arguments[arguments.index(option) + 1]
def noted():
    name = os.path.basename(sys.argv[0]) + ".json"
    with open(os.path.join(os.path.dirname(sys.argv[0]), name), "w") as file:
        json.dump({"arguments": arguments, "folder": os.getcwd()}, file)
noted()
"""
SOURCES = {
    BPGENC: """
data = open(arguments[-1], "rb").read()
width, height = struct.unpack(">II", data[16:24])
def ue7(number):
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127 | 128)
    return bytes(reversed(groups))
with open(after("-o"), "wb") as file:
    file.write(b"BPG\\xfb\\x60\\0" + ue7(width) + ue7(height) + b"\\0" + data)
""",
    BPGDEC: """
data = open(arguments[-1], "rb").read()
open(after("-o"), "wb").write(data[data.index(b"\\x89PNG"):])
""",
    VTMENC: """
data = open(after("-i"), "rb").read()
assert len(data) == 3 * int(after("-wdt")) * int(after("-hgt")), "the size is wrong"
open(after("-b"), "wb").write(b"VTM " + data)
print("many words " * 1000)
""",
    VTMDEC: """
data = open(after("-b"), "rb").read()
if not data.startswith(b"VTM "):
    sys.exit("not a VTM file")
open(after("-o"), "wb").write(data[4:])
""",
}


def write_program(folder, name, source):
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{PREAMBLE}{source}")
    path.chmod(0o755)


def told(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def planes(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (3, height, width)).astype(np.uint8)
