"""The page that lies in a bundle: how to run it where it is."""

from .manifest import Manifest


def bundle_readme(manifest: Manifest) -> str:
    """Render a bundle's ``README.md`` from its manifest."""
    spec, parity, provenance = manifest.spec, manifest.parity, manifest.provenance
    random = (
        f"**The weights are random (seed {provenance.seed})**: right for graphs, rates of the coder "
        "and latency, meaningless as answers.\n\n"
        if provenance.weights == "random"
        else ""
    )

    def shape(sizes: list[int]) -> str:
        return "×".join("N" if size == -1 else str(size) for size in sizes)

    return f"""# {spec.name} for {manifest.target}

{random}Two halves of one model. The device turns an image into a stream of bytes, the edge turns the
stream into an answer. Both need Python 3.11 or later and:

```
pip install -r requirements.txt
```

| | where | file | takes | gives |
| --- | --- | --- | --- | --- |
| device graph | camera board | `{manifest.device.file}` | {manifest.device.input.name} {shape(manifest.device.input.shape)} {manifest.device.input.dtype} | {manifest.device.output.name} {shape(manifest.device.output.shape)} {manifest.device.output.dtype} |
| edge graph | server | `{manifest.edge.file}` | {manifest.edge.input.name} {shape(manifest.edge.input.shape)} {manifest.edge.input.dtype} | {manifest.edge.output.name} {shape(manifest.edge.output.shape)} {manifest.edge.output.dtype} |

In this folder:

```
python -m splitrun selftest                     # does this machine compute what was recorded?
python -m splitrun encode photo.jpg -o photo.sz # on the device
python -m splitrun decode photo.sz              # on the edge
python -m splitrun bench                        # latency and memory here
```

The device half needs neither `{manifest.edge.file}` to run nor a network; send it the whole folder
all the same, since the self-test covers both halves.

## Checked when this was made

{parity.images} test pictures, {parity.symbols:,} symbols against PyTorch: {parity.symbols_differing}
differ. {parity.symbols_tied} lay within {parity.tie_margin:g} of a rounding boundary, where another
order of additions may round to the neighbour; only those may differ. Outputs within
{parity.output_max_relative_error:.1e} of the largest ({parity.output_tolerance:g} allowed). Every
stream gave back the symbols that went in.

Streams carry the id `{manifest.coding.model_id}`; a bundle of other weights or tables refuses them.

## Made by

```
{provenance.command}
```

with {", ".join(f"{name} {number}" for name, number in provenance.versions.items())}.
"""
