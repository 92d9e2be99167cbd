import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gga_lightning.alignment import Climb, DomainEvaluator, Walk, annealing_search
from tests.tape import TapeRecorder


def domains(network, dtype=torch.float64, sizes=(8, 5, 12, 7)):
    torch.manual_seed(0)
    data = [(torch.randn(n, 6, dtype=dtype), torch.randint(4, (n,))) for n in sizes]
    losses = [lambda x=x, y=y: functional.cross_entropy(network(x), y) for x, y in data]
    return DomainEvaluator(losses, list(network.parameters()), sizes=sizes)


def network(dtype=torch.float64):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).to(dtype)


def searched(evaluator, proposal, **settings):
    generator = torch.Generator().manual_seed(0)
    params = evaluator.params[:2]
    return annealing_search(
        params, evaluator, proposal=proposal, num_candidates=40, generator=generator, **settings
    )


@pytest.mark.parametrize(
    ("dtype", "objective", "proposal"),
    [
        (torch.float32, "min", Walk(0.003)),
        (torch.float32, "mean", Climb(0.02)),
        (torch.float64, "min", Climb(0.02)),
        (torch.float64, "mean", Walk(0.003)),
        pytest.param(torch.float32, "min", Climb(0.02), marks=pytest.mark.slow),
        pytest.param(torch.float32, "mean", Walk(0.003), marks=pytest.mark.slow),
        pytest.param(torch.float64, "min", Walk(0.003), marks=pytest.mark.slow),
        pytest.param(torch.float64, "mean", Climb(0.02), marks=pytest.mark.slow),
    ],
)
def test_a_search_takes_the_decisions_of_the_eager_one(dtype, objective, proposal):
    plain, recorded = network(dtype), network(dtype)
    expected = searched(domains(plain, dtype), proposal, objective=objective)
    evaluator, recorder = domains(recorded, dtype), TapeRecorder()
    with evaluator.recorded(recorder):
        found = searched(evaluator, proposal, objective=objective)
    assert recorder.refusal is None
    assert recorder.replayed >= 80
    assert found.accepted == expected.accepted
    assert found.accepted or objective == "mean"
    assert found.end.objective == pytest.approx(expected.end.objective, abs=1e-6)
    assert found.end.loss == pytest.approx(expected.end.loss)
    assert all(map(torch.equal, plain.parameters(), recorded.parameters()))


def test_the_losses_code_does_not_run_again():
    net, calls = network(), []
    evaluator = domains(net)
    losses = evaluator._losses
    evaluator._losses = [lambda f=f: calls.append(0) or f() for f in losses]
    with evaluator.recorded(TapeRecorder()):
        before = len(calls)
        searched(evaluator, Walk(0.01))
        assert len(calls) == before
    evaluator.score("min")
    assert len(calls) == before + 4


def test_rejected_candidates_need_two_domains():
    evaluator, recorder = domains(network()), TapeRecorder()
    with evaluator.recorded(recorder):
        lowest = evaluator.score("min").objective
        before = recorder.replayed
        assert evaluator.score("min", lowest + 1e-9) is None
        assert recorder.replayed == before + 2


def test_gradients_of_the_last_score():
    net = network()
    evaluator = domains(net)
    expected = evaluator.evaluate().gradients
    with evaluator.recorded(TapeRecorder()):
        evaluator.score("min")
        torch.testing.assert_close(evaluator.gradients(), expected)


def test_recordings_are_compared_once_and_released_each_time():
    recorder = TapeRecorder()
    evaluator = domains(network())
    counts = []
    for _ in range(2):
        before = recorder.replayed
        with evaluator.recorded(recorder):
            counts.append(recorder.replayed - before)
    assert counts == [8, 0]  # twice each domain, and the parameters end where they were
    assert (recorder.recorded, recorder.released) == (8, 2)
    assert all(map(torch.equal, network().parameters(), evaluator.params))


class TestWhatCannotBeRecorded:
    def refused(self, loss, **settings):
        evaluator = DomainEvaluator([loss] * 2, self.params(), **settings)
        recorder = TapeRecorder()
        with evaluator.recorded(recorder):
            score = evaluator.score("min")
        assert str(score) == str(evaluator.score("min"))
        count = recorder.recorded
        with evaluator.recorded(recorder):  # not tried again
            assert recorder.recorded == count
        return recorder.refusal

    def params(self):
        self.param = nn.Parameter(torch.tensor([1.0, 2.0]))
        return [self.param]

    def test_a_value_that_python_reads(self):
        def loss():
            return (self.param**2).sum() * (2.0 if self.param.sum().item() > 0 else 1.0)

        assert self.refused(loss) == "operation not permitted when stream is capturing"

    def test_a_derived_weight_that_is_kept_until_the_parameters_change(self):
        kept = {}

        def loss():
            version = self.param._version
            if version not in kept:
                kept.clear()
                kept[version] = self.param.detach() ** 2
            return (self.param**2 * kept[version]).sum()

        assert "a replay differs from an evaluation" in self.refused(loss)

    def test_state_that_is_left_behind(self):
        state = torch.zeros(())

        def loss():
            state.add_(1.0)
            return (self.param**2).sum() * state

        evaluator = DomainEvaluator([loss] * 2, self.params())
        recorder = TapeRecorder()
        with evaluator.recorded(recorder):
            assert "a replay differs" in recorder.refusal

    def test_no_loss(self):
        assert self.refused(lambda: None) == "a domain has no loss"

    def test_several_processes(self):
        evaluator = DomainEvaluator([], self.params(), reduce=lambda tensor: tensor)
        recorder = TapeRecorder()
        with evaluator.recorded(recorder):
            assert recorder.refusal == "there are several processes"

    def test_an_error_comes_up_in_the_score(self):
        def loss():
            raise ValueError("of the user's")

        evaluator = DomainEvaluator([loss] * 2, self.params())
        with (
            pytest.raises(ValueError, match="of the user's"),
            evaluator.recorded(TapeRecorder()),
        ):
            evaluator.score("min")

    def test_not_a_number(self):
        def loss():
            return (self.param * math.nan).sum()

        evaluator, recorder = DomainEvaluator([loss] * 2, self.params()), TapeRecorder()
        with evaluator.recorded(recorder):
            assert not evaluator.score("min").finite
        assert recorder.refusal is None


def test_an_empty_refusal_has_a_name():
    def loss():
        raise KeyError

    evaluator = DomainEvaluator([loss], [nn.Parameter(torch.ones(1))])
    recorder = TapeRecorder()
    with evaluator.recorded(recorder):
        assert recorder.refusal == "KeyError"
