"""One training step of the EMG model at the paper's sizes, against PyTorch in the same run.

    python benchmarks/emg_step.py [--torch-python PYTHON] [--rounds 5]

Batch 400, 100 bins, 12 channels, temporal shift, coordinated dropout and dropout, float32. Four processes take turns,
so that what else the machine does meets them alike: PyTorch (emg_torch.py, the same model in its own modules) on two
threads and on one; one member, whose batch is split over two CPU devices; four members, two on each device, one after
the other. Times are per member and of the best round; "ratio" is ours over each of PyTorch's. A check compares the
terms of the loss for equal parameters. Run it on an idle machine: PyTorch's threads wait for each other busily,
and multiply their CPU time where others work.

Floor: products of 15 GFLOP forward, 10 for the gates that the backward pass computes anew, and 29 for gradients:
54 GFLOP, 0.27 s on two cores that do 100 GFLOP/s each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from jax.sharding import Mesh, PartitionSpec

from jaxm2m import emg
from jaxm2m.emg import lfads

HYPER = {
    "learning_rate": 2e-3,
    "dropout": 0.15,
    "coordinated_dropout": 0.4,
    "l2_generator": 1e-2,
    "l2_controller": 1e-2,
    "kl_ic": 1e-4,
    "kl_co": 1e-4,
}
MODEL = emg.SequentialVAE(emg.LFADSConfig(12))
BATCH, WIDE = 400, 112


def setting():
    """Windows and parameters."""
    windows = np.random.default_rng(0).gamma(1.0, 0.3, (BATCH, WIDE, 12)).clip(1e-3).astype(np.float32)
    return windows, MODEL.init(jax.random.key(0))


def member(params, state, hyper, windows, key, step, mean=lambda a: a):
    """One optimiser step; `mean` averages over the parts of a batch."""
    (loss, _), gradient = jax.value_and_grad(MODEL.loss, has_aux=True)(params, hyper, windows, key, step)
    updates, state = MODEL.optimizer(hyper).update(mean(gradient), state, params)
    return optax.apply_updates(params, updates), state, mean(loss)


def one(mesh, hyper):
    """The batch of one member is split over the devices."""

    def part(params, state, windows, key, step):
        key = jax.random.fold_in(key, jax.lax.axis_index("device"))
        return member(params, state, hyper, windows, key, step, partial(jax.lax.pmean, axis_name="device"))

    whole, split = PartitionSpec(), PartitionSpec("device")
    run = jax.shard_map(part, mesh=mesh, in_specs=(whole, whole, split, whole, whole), out_specs=whole, check_vma=False)
    return jax.jit(run, donate_argnums=(0, 1)), 1


def four(mesh, hyper):
    """Members over the devices, one after the other in each."""

    def several(params, state, windows, key, step):
        index = 2 * jax.lax.axis_index("device") + jnp.arange(2)

        def mapped(each):
            params, state, i = each
            return member(params, state, hyper, windows, jax.random.fold_in(key, i), step)

        return jax.lax.map(mapped, (params, state, index))

    whole, split = PartitionSpec(), PartitionSpec("device")
    run = jax.shard_map(
        several, mesh=mesh, in_specs=(split, split, whole, whole, whole), out_specs=split, check_vma=False
    )
    return jax.jit(run, donate_argnums=(0, 1)), 4


def work(case):
    """Answer each line of the standard input by the figures of a step."""
    windows, params = setting()
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    mesh = Mesh(np.array(jax.devices()[:2]), "device")
    run, members = {"one": one, "four": four}[case](mesh, hyper)
    state = MODEL.optimizer(hyper).init(params)
    if members > 1:
        params, state = jax.tree.map(lambda a: jnp.broadcast_to(a, (members, *a.shape)), (params, state))
    key = jax.random.key(1)
    start = time.perf_counter()
    compiled = run.lower(params, state, windows, key, jnp.int32(0)).compile()
    compilation = time.perf_counter() - start
    before = record.peak_memory() * 1e3
    for count, _ in enumerate(sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        params, state, loss = compiled(params, state, windows, jax.random.fold_in(key, count), jnp.int32(count))
        loss = float(jax.block_until_ready(loss).mean())
        answer = {"wall": (time.perf_counter() - wall) / members, "cpu": (time.process_time() - cpu) / members}
        flight = min(members, len(jax.devices()))
        answer |= {"memory": (record.peak_memory() * 1e3 - before) / flight, "loss": loss, "compilation": compilation}
        print(json.dumps(answer), flush=True)


def check(answer):
    """Largest relative difference of the loss's terms for equal parameters, at the posterior means."""
    windows, params = setting()
    data = jnp.asarray(windows[:, MODEL.margin : -MODEL.margin])
    terms = jax.jit(lfads.loss_terms, static_argnums=1)(params, MODEL.config, jnp.log(data), data)
    return max(abs(float(terms[name]) / answer[name] - 1) for name in terms)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=("one", "four"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.npz"
        windows, params = setting()
        named = {"/".join(k.key for k in path): np.asarray(a) for path, a in jax.tree.leaves_with_path(params)}
        np.savez(file, windows=windows, **named)
        words = {
            f"PyTorch, {n} thread" + "s" * (n > 1): [
                options.torch_python,
                str(Path(__file__).with_name("emg_torch.py")),
                str(file),
                str(n),
            ]
            for n in (2, 1)
        }
        words |= {
            "one member, two devices": [sys.executable, __file__, "--work", "one"],
            "four members, two devices": [sys.executable, __file__, "--work", "four"],
        }
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        workers = {name: subprocess.Popen(line, **pipe) for name, line in words.items()}

        def ask(name, what="step"):
            print(what, file=workers[name].stdin, flush=True)
            return json.loads(workers[name].stdout.readline())

        agreement = check(ask("PyTorch, 2 threads", "check"))
        for name in workers:
            ask(name)  # memory is faulted in, caches are warm
        rounds = [{name: ask(name) for name in workers} for _ in range(options.rounds)]
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    row = {"batch": BATCH, "time": WIDE - 2 * MODEL.margin, "channels": 12, "largest difference of terms": agreement}
    for name in workers:
        row[name] = rounds[-1][name] | {
            "wall": min(r[name]["wall"] for r in rounds),
            "cpu": min(r[name]["cpu"] for r in rounds),
        }
    theirs = [name for name in workers if name.startswith("PyTorch")]
    for name in workers.keys() - theirs:
        row[name]["ratio"] = {their: {k: row[name][k] / row[their][k] for k in ("wall", "cpu")} for their in theirs}
    row["rounds"] = [{name: [r[name]["wall"], r[name]["cpu"]] for name in workers} for r in rounds]
    row["units"] = "wall and cpu: s a member; memory: MB a member in flight, beyond what the process had before a step"
    record.write("emg_step", "paper", row)


if __name__ == "__main__":
    main()
