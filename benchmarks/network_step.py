"""One training step of the paper's networks: two builds and PyTorch in turns in one run.

    python benchmarks/network_step.py [--against FOLDER] [--batch 4] [--repeats 5]

The autoencoder and the mapper of preset "paper" (80^3, 32 and 64 filters) on random volumes, the step as `population`
takes it: loss, gradient, optimiser. Each build is a process of its own that is told when to run; `--against` is the
repository of another build. PyTorch (not a dependency; `pip install torch`) runs the same layers on two threads in
`channels_last_3d`, its fastest format for them. Bars: twice as fast as the other build and 1.25 of PyTorch's seconds;
4 GB at the peak of a process.

Floor of the autoencoder's step, layer by layer (GFLOP of a batch of four, forward and both gradients, at the rate of a
large product in the same run): 3 x 28.3 for 32 -> 64 at 40^3, of which tiles leave 12.6 x 3; 3 x 8.6 for 64 -> 32 of
20^3 upsampled (28.3 without sums of weights); 3 x 8.4 for 1 -> 32 at 80^3 with its pooling; little for the others.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import record

ROOT = Path(__file__).resolve().parents[1]


def prepare_ours(batch):
    """Steps of autoencoder and mapper, each a function without arguments."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxm2m.muscle import PRESETS

    try:
        from jaxm2m.muscle.networks import FieldAutoencoder, MuscleMapper
    except ImportError:  # the build of version 0.1
        training = import_module("jaxm2m.muscle._training")
        FieldAutoencoder, MuscleMapper = training.FieldAutoencoder, training.MuscleMapper

    preset = PRESETS["paper"]
    config = getattr(preset, "config", None) or preset.sizes
    random = np.random.default_rng(0)
    data = {
        "x": jnp.asarray(random.uniform(size=(batch, *config.shape, 1)), jnp.float32),
        "y": jnp.asarray(random.uniform(size=(batch, 15)), jnp.float32),
    }
    hyper = {k: jnp.asarray(v) for k, v in preset.mapper.hyper.items()}
    runs = {}
    for name, trainable in (
        ("autoencoder", FieldAutoencoder(config, preset.autoencoder.optimizer)),
        ("mapper", MuscleMapper(config, 15, 9, preset.mapper.optimizer)),
    ):
        params = trainable.init(jax.random.key(0))
        optimizer = trainable.optimizer(hyper)

        @jax.jit
        def step(params, state, trainable=trainable, optimizer=optimizer):
            def loss(params):
                return trainable.loss(params, hyper, data, jax.random.key(1), jnp.asarray(0))[0]

            value, slopes = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(slopes, state, params)
            return optax.apply_updates(params, updates), state, value

        state = optimizer.init(params)
        runs[name] = lambda step=step, params=params, state=state: jax.block_until_ready(step(params, state))
    a = jnp.ones((2048, 2048))
    _, best = record.timed(jax.jit(lambda a: a @ a), a)
    return runs, {"GFLOP/s of a product of 2048": 2 * 2048**3 / best / 1e9}


def prepare_torch(batch):
    """The same in PyTorch's own modules."""
    import torch
    from torch import nn

    torch.set_num_threads(2)
    torch.manual_seed(0)
    wide = {"kernel_size": 3, "padding": 1}

    def encoder():
        layers = []
        for before, after in ((1, 32), (32, 64), (64, 1)):
            layers += [nn.Conv3d(before, after, **wide), nn.ELU(), nn.MaxPool3d(2)]
        return layers

    decoder = []
    for before, after in ((1, 64), (64, 32), (32, 1)):
        decoder += [nn.Upsample(scale_factor=2), nn.Conv3d(before, after, **wide), nn.ELU()]
    models = {
        "autoencoder": nn.Sequential(*encoder(), *decoder[:-1]),
        "mapper": nn.Sequential(
            *encoder(), nn.Flatten(), nn.Linear(1000, 128), nn.ELU(), nn.Linear(128, 32), nn.ELU(), nn.Linear(32, 15)
        ),
    }
    x = torch.rand(batch, 1, 80, 80, 80).to(memory_format=torch.channels_last_3d)
    y = torch.rand(batch, 15)
    runs = {}
    for name, model in models.items():
        model = model.to(memory_format=torch.channels_last_3d)
        optimizer = (torch.optim.Adagrad if name == "autoencoder" else torch.optim.Adam)(model.parameters(), lr=1e-3)

        def step(name=name, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            result = model(x)
            if name == "autoencoder":
                nn.functional.mse_loss(result, x).backward()
            else:
                nn.functional.binary_cross_entropy_with_logits(result, y).backward()
            optimizer.step()

        runs[name] = step
    return runs, {"torch": torch.__version__}


def serve(options):
    """Prepare what is timed, then run what each line of the input names and answer with seconds."""
    record.check_build()
    runs, facts = (prepare_torch if options.serve == "torch" else prepare_ours)(options.batch)
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        facts[f"first {name}, s"] = time.perf_counter() - start
    print("READY", json.dumps(facts), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        runs[line.strip()]()
        print("READY", json.dumps([time.perf_counter() - start, record.peak_memory()]), flush=True)


def answer(process):
    for line in process.stdout:
        if line.startswith("READY"):
            return json.loads(line[6:])
    raise SystemExit("a process ended without an answer.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the repository of another build")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    servers, row = {}, {"batch": options.batch}
    for name, root in (("before", options.against), ("now", ROOT), ("torch", ROOT)):
        if root is None:
            continue
        servers[name] = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--batch", str(options.batch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        row[name] = answer(servers[name])
    for network in ("autoencoder", "mapper"):
        for _ in range(options.repeats):
            for name, server in servers.items():
                print(network, file=server.stdin, flush=True)
                seconds, row[name]["peak memory, GB"] = answer(server)
                row[name][f"{network}, s"] = min(seconds, row[name].get(f"{network}, s", seconds))
        for name in servers:
            if name != "now":
                row[f"{network}: {name} over now"] = row[name][f"{network}, s"] / row["now"][f"{network}, s"]
    for server in servers.values():
        server.stdin.close()
        server.wait()
    record.write("network_step", "paper", row)


if __name__ == "__main__":
    main()
