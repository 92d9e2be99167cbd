import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gga_lightning.alignment.gradients import (
    conflict_summary,
    cosine_matrix,
    domain_gradients,
    gram_matrix,
    pairwise,
)

SHAPES = [(4, 3), (4,), (2, 3, 3, 3), ()]


def gradients(count, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in SHAPES
        )
        for _ in range(count)
    ]


def concatenated(gradients):
    return torch.stack([torch.cat([g.flatten().double() for g in grad]) for grad in gradients])


class TestDomainGradients:
    def test_equals_backward_and_leaves_grad_alone(self):
        layer = nn.Linear(3, 2)
        batches = [torch.randn(5, 3) for _ in range(3)]
        found = domain_gradients(
            (layer(x).pow(2).mean() for x in batches), list(layer.parameters())
        )
        assert all(param.grad is None for param in layer.parameters())
        for gradient, batch in zip(found, batches, strict=True):
            layer.zero_grad()
            layer(batch).pow(2).mean().backward()
            for ours, param in zip(gradient, layer.parameters(), strict=True):
                torch.testing.assert_close(ours, param.grad)

    def test_a_list_may_share_one_graph(self):
        weight = torch.randn(3, requires_grad=True)
        shared = weight.exp()
        found = domain_gradients([shared.sum(), (2 * shared).sum()], [weight])
        torch.testing.assert_close(found[1][0], 2 * found[0][0])

    def test_a_generator_keeps_one_graph_alive(self):
        weight = torch.randn(3, requires_grad=True)
        alive = []

        def losses():
            for _ in range(3):
                loss = weight.exp().sum()
                alive.append(loss)
                yield loss

        domain_gradients(losses(), [weight])
        for loss in alive:
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()

    def test_unused_parameter_has_zero_gradient(self):
        used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
        ((_, zero),) = domain_gradients([used.sum()], [used, unused])
        assert torch.equal(zero, torch.zeros(3))

    def test_no_parameters(self):
        with pytest.raises(ValueError, match="`params` must hold at least one tensor"):
            domain_gradients([], [])


class TestGramMatrix:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_equals_products_of_the_concatenated(self, count):
        grads = gradients(count)
        flat = concatenated(grads)
        torch.testing.assert_close(gram_matrix(grads), flat @ flat.T)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_accumulates_above_the_gradients_precision(self, dtype):
        grads = gradients(3, dtype)
        flat = concatenated(grads)
        gram = gram_matrix(grads)
        assert gram.dtype is torch.float64
        torch.testing.assert_close(gram, flat @ flat.T, rtol=1e-5, atol=1e-5)

    def test_long_vectors_keep_their_digits(self):
        # one float32 accumulator loses these: 2^24 ones and then a small rest in other tensors
        long, rest = torch.ones(2**24), torch.full((1000,), 0.01)
        (product,) = gram_matrix([(long, *rest.split(1))]).flatten().tolist()
        assert product == pytest.approx(2**24 + 1000 * 0.01**2, rel=1e-9)

    def test_sparse_and_channels_last(self):
        dense = torch.tensor([[0.0, 2.0], [0.0, 3.0]])
        image = torch.randn(2, 3, 4, 4)
        other = image.clone(memory_format=torch.channels_last)
        gram = gram_matrix([(dense.to_sparse(), other), (dense, image)])
        assert gram[0, 1] == pytest.approx(float(13 + image.pow(2).sum()), rel=1e-6)

    def test_uneven_gradients(self):
        with pytest.raises(ValueError, match=r"got lengths \[4, 1\]"):
            gram_matrix([gradients(1)[0], (torch.ones(1),)])


class TestCosines:
    @given(scales=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
    def test_ignores_positive_scale(self, scales):
        grads = gradients(3)
        scaled = [tuple(s * g for g in grad) for s, grad in zip(scales, grads, strict=True)]
        torch.testing.assert_close(
            cosine_matrix(gram_matrix(grads)), cosine_matrix(gram_matrix(scaled))
        )

    def test_equals_torchs(self):
        grads = gradients(4)
        flat = concatenated(grads)
        expected = torch.cosine_similarity(flat[:, None], flat[None], dim=-1)
        torch.testing.assert_close(cosine_matrix(gram_matrix(grads)), expected)

    def test_permutes_with_the_domains(self):
        grads = gradients(4)
        order = [2, 0, 3, 1]
        cosines = cosine_matrix(gram_matrix(grads))
        permuted = cosine_matrix(gram_matrix([grads[i] for i in order]))
        torch.testing.assert_close(permuted, cosines[order][:, order])

    def test_zero_gradient_has_cosine_zero(self):
        one, zero = torch.ones(3), torch.zeros(3)
        cosines = cosine_matrix(gram_matrix([(one,), (zero,)]))
        assert cosines.tolist() == [[1.0, 0.0], [0.0, 0.0]]

    def test_never_leaves_the_interval(self):
        vector = (torch.tensor([1e-3, 3e-3, 7e-3]),)
        cosines = cosine_matrix(gram_matrix([vector, vector, (-vector[0],)]))
        assert cosines.abs().max() <= 1.0

    def test_non_finite_gradient_gives_nan(self):
        cosines = cosine_matrix(gram_matrix([(torch.tensor([torch.inf]),), (torch.ones(1),)]))
        assert cosines[0, 1].isnan()


class TestConflict:
    COSINES = torch.tensor([[1.0, 0.5, -0.2], [0.5, 1.0, -0.6], [-0.2, -0.6, 1.0]])

    def test_pairs_in_order(self):
        assert pairwise(self.COSINES).tolist() == pytest.approx([0.5, -0.2, -0.6])

    def test_summary(self):
        assert conflict_summary(self.COSINES) == pytest.approx((-0.6, -0.1, 2 / 3))

    def test_nan_shows_in_all_three(self):
        cosines = self.COSINES.clone()
        cosines[0, 1] = torch.nan
        assert all(value != value for value in conflict_summary(cosines))

    def test_one_domain(self):
        with pytest.raises(ValueError, match="two or more domains, got 1"):
            conflict_summary(torch.ones(1, 1))
