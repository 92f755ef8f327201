"""What a bottleneck sends, in the form in which a spec lists it."""

from splitzoo.zoo.bottleneck_specs import WireTensor


def sent_by(bottleneck, latent):
    return tuple(
        WireTensor(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]))
        for name, tensor in zip(bottleneck.wire_names, bottleneck.to_wire(latent), strict=True)
    )
