"""torch.compile of the training's forward pass."""

from __future__ import annotations

import shutil
from types import ModuleType

import pytest
import torch

from trainables.model.objective import Objective, training_step
from trainables.spec import LossSpec


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_is_plain(workers: ModuleType, tiny_backbone: str) -> None:
    """Without dropout, whose draws differ: the loss and every gradient, to float32's rounding."""
    encoder = workers.build(tiny_backbone, dropout=0.0).train()
    inputs = workers.global_batch(3, 6, 11)
    objective = Objective(LossSpec(name="joint_lh", temperature=0.1))
    names = list(encoder.state_dict())
    plain = training_step(encoder, inputs, objective, None)
    wanted = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.compile_training()
    compiled = training_step(encoder, inputs, objective, None)
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-5)
    for name, parameter in encoder.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name], rtol=1e-3, atol=1e-6), name
    assert list(encoder.state_dict()) == names
