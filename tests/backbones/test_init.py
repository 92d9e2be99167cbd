import pytest
import torch

from gga_lightning.backbones import MLP, MNISTCNN, TimmFeaturizer, TorchvisionFeaturizer


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda s: MLP(s), (94,)),
        (lambda s: MLP(s, widths=(16, 8)), (1, 8, 8)),
        (MNISTCNN, (1, 28, 28)),
        (MNISTCNN, (2, 8, 8)),
        (lambda s: TorchvisionFeaturizer("resnet18", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("resnet18", s), (2, 64, 64)),
        (lambda s: TorchvisionFeaturizer("efficientnet_b0", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("convnext_tiny", s), (5, 64, 64)),
        (lambda s: TorchvisionFeaturizer("vit_b_16", s), (3, 224, 224)),
        (lambda s: TorchvisionFeaturizer("swin_t", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("googlenet", s), (2, 64, 64)),
        (lambda s: TimmFeaturizer("resnet10t", s), (3, 64, 64)),
        (lambda s: TimmFeaturizer("vit_tiny_patch16_224", s), (3, 224, 224)),
        (lambda s: TimmFeaturizer("mobilenetv3_small_050", s), (2, 64, 64)),
    ],
)
def test_features_have_the_length_they_say(make, shape):
    featurizer = make(shape)
    with torch.no_grad():
        assert featurizer(torch.randn(2, *shape)).shape == (2, featurizer.out_features)


def test_normalization_is_that_of_the_weights():
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert TorchvisionFeaturizer("resnet18").normalization == imagenet
    assert TorchvisionFeaturizer("resnet18", (2, 64, 64)).normalization is None
    halves = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    assert TimmFeaturizer("vit_tiny_patch16_224").normalization == halves


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: MLP((4,), widths=(8, 0)), r"`widths` must be at least 1, got \[8, 0\]"),
            (lambda: MNISTCNN((94,)), r"must be that of an image, .*got \(94,\). .* take MLP"),
            (lambda: TorchvisionFeaturizer("resnet19"), "`name` must be one of .* got 'resnet19'"),
            (lambda: TorchvisionFeaturizer("squeezenet1_1"), "linear layer, got a SqueezeNet"),
            (
                lambda: TorchvisionFeaturizer("resnet18", weights="BEST"),
                r"`weights` must be one of \['IMAGENET1K_V1'.*\], an existing file .* got 'BEST'",
            ),
            (lambda: TimmFeaturizer("resnet19"), "`name` must be a model of timm .* 'resnet19'"),
            (
                lambda: TimmFeaturizer("resnet10t", weights="BEST"),
                "`weights` must be 'pretrained', an existing file or None, got 'BEST'",
            ),
            (
                lambda: TorchvisionFeaturizer("resnet18", dropout=1.0),
                "`dropout` must be in .0, 1.",
            ),
        ],
    )
    def test_are_refused_at_once(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()
