"""The sequential autoencoder of `jaxm2m.emg` in PyTorch's own modules, for emg_step.py, which runs this file.

    python benchmarks/emg_torch.py PARAMETERS.npz THREADS

Answers each line of the standard input by one of JSON: "check" by the loss's terms at posterior means, anything else
by the time and the memory of one training step. Input products are taken out of the loops over time, as one would.
"""

import json
import math
import resource
import sys
import time

import numpy as np
import torch
from torch import nn

HYPER = {
    "learning_rate": 2e-3,
    "dropout": 0.15,
    "coordinated_dropout": 0.4,
    "l2_generator": 1e-2,
    "l2_controller": 1e-2,
    "kl_ic": 1e-4,
    "kl_co": 1e-4,
}
MARGIN, RAMP = 6, 500


class GRU(nn.Module):
    """Reset before the product of the candidate, as in LFADS: `torch.nn.GRU` resets after it."""

    def __init__(self, inputs, units, clip=5.0):
        super().__init__()
        self.units, self.clip = units, clip
        self.input = nn.Linear(inputs, 3 * units)
        self.gates = nn.Linear(units, 2 * units, bias=False)
        self.candidate = nn.Linear(units, units, bias=False)

    def cell(self, projected, h):
        z, r = torch.sigmoid(projected[:, : 2 * self.units] + self.gates(h)).chunk(2, 1)
        n = torch.tanh(projected[:, 2 * self.units :] + self.candidate(r * h))
        return torch.clamp(z * h + (1 - z) * n, -self.clip, self.clip)

    def forward(self, x, h, reverse=False):
        steps = self.input(x).unbind(1)
        states = []
        for projected in reversed(steps) if reverse else steps:
            h = self.cell(projected, h)
            states.append(h)
        return torch.stack(states[::-1] if reverse else states, 1)


class Encoder(nn.Module):
    def __init__(self, inputs, units):
        super().__init__()
        self.forward_gru, self.backward_gru = GRU(inputs, units), GRU(inputs, units)
        self.start = nn.Parameter(torch.zeros(2, units))

    def forward(self, x):
        start = self.start[:, None].expand(-1, len(x), -1)
        return self.forward_gru(x, start[0]), self.backward_gru(x, start[1], reverse=True)


class Model(nn.Module):
    def __init__(self, channels=12, units=64, ic_units=128, initial=30, inputs=3, factors=10):
        super().__init__()
        self.ic_encoder, self.ci_encoder = Encoder(channels, ic_units), Encoder(channels, units)
        self.ic, self.start = nn.Linear(2 * ic_units, 2 * initial), nn.Linear(initial, units)
        self.controller, self.generator = GRU(2 * units + factors, units), GRU(inputs, units)
        self.controller_start = nn.Parameter(torch.zeros(units))
        self.inputs = nn.Linear(units, 2 * inputs)
        self.factors = nn.Parameter(torch.zeros(factors, units))
        self.readout = nn.Linear(factors, 2 * channels)
        self.ic_mean = nn.Parameter(torch.zeros(initial))
        self.log_tau = nn.Parameter(torch.full((inputs,), math.log(10.0)))
        self.log_variance = nn.Parameter(torch.full((inputs,), math.log(0.1)))
        self.dropout = nn.Dropout(HYPER["dropout"])

    def forward(self, x):
        sampled = self.training
        ahead, behind = self.ic_encoder(x)
        known = self.dropout(torch.cat([ahead[:, -1], behind[:, 0]], 1))
        mean, log_variance = self.ic(known).chunk(2, 1)
        variance = log_variance.exp() + 1e-4
        initial = mean + variance.sqrt() * torch.randn_like(mean) if sampled else mean
        ahead, behind = self.ci_encoder(x)
        nothing = torch.zeros_like(ahead[:, :1])
        code = torch.cat([torch.cat([nothing, ahead[:, :-1]], 1), torch.cat([behind[:, 1:], nothing], 1)], 2)
        g = self.start(initial)
        c = self.controller_start.expand(len(x), -1)
        matrix = nn.functional.normalize(self.factors)
        f = self.dropout(g) @ matrix.T
        means, log_variances, factors = [], [], []
        for now in code.unbind(1):
            c = self.controller.cell(self.controller.input(self.dropout(torch.cat([now, f], 1))), c)
            m, v = self.inputs(c).chunk(2, 1)
            u = m + (0.5 * v).exp() * torch.randn_like(m) if sampled else m
            g = self.generator.cell(self.generator.input(u), g)
            f = self.dropout(g) @ matrix.T
            means.append(m)
            log_variances.append(v)
            factors.append(f)
        log_a, log_b = self.readout(torch.stack(factors, 1)).chunk(2, 2)
        return log_a, log_b, mean, variance, torch.stack(means, 1), torch.stack(log_variances, 1)

    def terms(self, x, target, graded=None):
        log_a, log_b, mean, variance, means, log_variances = self(x)
        a = log_a.exp()
        nll = a.lgamma() - a * log_b - (a - 1) * target.log() + log_b.exp() * target
        if graded is not None:
            nll = torch.where(graded, nll, nll.detach())
        u = means + (0.5 * log_variances).exp() * torch.randn_like(means) if self.training else means
        alpha = (-(-self.log_tau).exp()).exp()
        rest = self.log_variance - (1 - alpha**2).log()
        posterior = normal_log(u, means, log_variances).sum((1, 2))
        prior = normal_log(u[:, 0], 0, rest).sum(1)
        prior = prior + normal_log(u[:, 1:], alpha * u[:, :-1], self.log_variance).sum((1, 2))
        ratio = variance / 0.1
        kl_ic = 0.5 * (ratio - 1 - ratio.log() + (mean - self.ic_mean) ** 2 / 0.1).sum(1)
        return {"nll": nll.mean(), "kl_ic": kl_ic.mean(), "kl_co": (posterior - prior).mean()}

    def penalty(self):
        total = count = 0
        for name in ("generator", "controller"):
            layer = getattr(self, name)
            for kernel in (layer.gates.weight, layer.candidate.weight):
                total = total + 0.5 * HYPER[f"l2_{name}"] * kernel.square().sum()
                count += kernel.numel()
        return total / count

    def load(self, named):
        """Take over the parameters of `jaxm2m.emg`, by their paths."""

        def put(parameter, *path, part=slice(None)):
            value = named["/".join(path)]
            value = value[..., part]
            parameter.data.copy_(torch.as_tensor(np.ascontiguousarray(value.T)))

        def recurrent(layer, *path):
            put(layer.input.weight, *path, "input")
            put(layer.input.bias, *path, "bias")
            put(layer.gates.weight, *path, "recurrent", part=slice(2 * layer.units))
            put(layer.candidate.weight, *path, "recurrent", part=slice(2 * layer.units, None))

        for name in ("ic_encoder", "ci_encoder"):
            encoder = getattr(self, name)
            recurrent(encoder.forward_gru, name, "forward")
            recurrent(encoder.backward_gru, name, "backward")
        recurrent(self.controller, "controller")
        recurrent(self.generator, "generator")
        for name in ("ic", "start", "inputs", "readout"):
            put(getattr(self, name).weight, name, "kernel")
            put(getattr(self, name).bias, name, "bias")
        put(self.factors, "factors")


def normal_log(x, mean, log_variance):
    return -0.5 * (math.log(2 * math.pi) + log_variance + (x - mean) ** 2 * (-log_variance).exp())


def shifted(windows, deviation=3.0):
    batch, wide, channels = windows.shape
    shift = torch.empty(batch, 1, channels)
    nn.init.trunc_normal_(shift, std=deviation, a=-MARGIN, b=MARGIN)
    times = torch.arange(wide - 2 * MARGIN)[:, None] + MARGIN + shift.round().long()
    return windows.gather(1, times)


def step(model, optimizer, windows, count):
    source, target = shifted(windows), shifted(windows)
    share = 1 - HYPER["coordinated_dropout"]
    visible = torch.rand_like(source) < share
    x = torch.where(visible, source.log() / share, torch.zeros(()))
    terms = model.terms(x, target, ~visible)
    ramp = min(count / RAMP, 1)
    rest = model.penalty() + HYPER["kl_ic"] * terms["kl_ic"] + HYPER["kl_co"] * terms["kl_co"]
    loss = 1e4 * (terms["nll"] + ramp * rest)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 200.0)
    optimizer.step()
    return loss.item()


def memory():
    """Largest resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[2]))
    with np.load(sys.argv[1]) as file:
        named = dict(file)
    windows = torch.as_tensor(named.pop("windows"))
    model = Model()
    model.load(named)
    optimizer = torch.optim.Adam(model.parameters(), lr=HYPER["learning_rate"], betas=(0.9, 0.99), eps=1e-8)
    before = memory()
    for count, line in enumerate(sys.stdin):
        if line.strip() == "check":
            model.eval()
            with torch.no_grad():
                data = windows[:, MARGIN:-MARGIN]
                answer = {name: term.item() for name, term in model.terms(data.log(), data).items()}
            model.train()
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            loss = step(model, optimizer, windows, count)
            answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss}
        environment = {"threads": torch.get_num_threads(), "version": torch.__version__}
        print(json.dumps(answer | {"memory": memory() - before} | environment), flush=True)


if __name__ == "__main__":
    main()
