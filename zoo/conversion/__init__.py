"""Checkpoints of sc2-benchmark, made into saved models.

::

    .pt file ─► read, nothing of it run ─► names of tensors mapped ─► model ─► tables ─► folder

Every tensor of a checkpoint is either in the model or named, with a reason, in the
:class:`~splitzoo.zoo.conversion.convert.Conversion`. That converted models compute what sc2bench's
own do is shown by tests.
"""
