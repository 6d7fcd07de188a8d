"""One export of everything."""

import pytest

from keras_resnet.data import synthetic
from keras_resnet.export.pipeline import export
from tests.export.nets import make_net, make_run


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The net, its export folder, and what export() returned."""
    net = make_net()
    run = make_run(tmp_path_factory.mktemp("runs") / "resnet8" / "seed-3", net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (1_000, 300))
        facts = export(run, formats=("saved_model", "onnx", "litert", "web"), quantize=True)
    return net, run / "export", facts


@pytest.fixture(scope="session")
def images():
    return synthetic.synthetic((16, 64), seed=5).test_images
