import pytest
import torch

from gga_lightning.backbones import TextTransformer


def test_padding_has_no_influence():
    torch.manual_seed(0)
    model = TextTransformer((8,), size=20, width=16, dropout=0.0).double()
    short = torch.tensor([[1, 5, 7, 0, 0, 0, 0, 0]])
    other = torch.tensor([[1, 5, 7, 9, 0, 0, 0, 0]])
    both = model(torch.cat([short, other]))
    assert torch.allclose(both[0], model(short)[0], atol=1e-12)
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    # by hand: the mean over the three tokens that are there
    hidden = model.words(short[:, :3]) + model.places[:3]
    for layer in model.layers.layers:
        hidden = layer(hidden)
    assert torch.allclose(model.layers.norm(hidden).mean(1), model(short), atol=1e-12)


def test_order_matters():
    torch.manual_seed(0)
    model = TextTransformer((4,), size=20, width=16)
    first, second = model(torch.tensor([[1, 5, 7, 0], [1, 7, 5, 0]]))
    assert not torch.allclose(first, second, atol=1e-4)


def test_evaluation_equals_training_without_dropout():
    torch.manual_seed(0)
    model = TextTransformer((4,), size=20, width=16, dropout=0.0)
    tokens = torch.tensor([[1, 5, 7, 0], [1, 7, 0, 0]])
    trained = model(tokens)
    with torch.inference_mode():
        assert torch.allclose(model.eval()(tokens), trained, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"input_shape": (3, 8, 8)}, r"`input_shape` must be \(length,\)"),
        ({"width": 30}, "`width` a multiple of `heads`, got 16384, 30, 2 and 4"),
        ({"layers": 0}, "must be at least 1"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
    ],
)
def test_arguments_out_of_range(settings, problem):
    with pytest.raises(ValueError, match=problem):
        TextTransformer(**{"input_shape": (4,), **settings})


def test_other_inputs_than_tokens():
    with pytest.raises(ValueError, match="needs tokens, which are integers, got float32"):
        TextTransformer((4,))(torch.zeros(2, 4))
