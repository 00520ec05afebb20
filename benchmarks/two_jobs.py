"""How long waiting threads should spin: `python benchmarks/two_jobs.py`.

Steps per second of a training-like loop, alone with two threads, and of two such jobs with two
threads each on two cores, for several values of GOMP_SPINCOUNT and for OMP_WAIT_POLICY=PASSIVE.
OpenMP's default spins for so long that two jobs on the same cores nearly stop each other. Takes about
six minutes; run nothing else meanwhile. Needs Linux with GNU OpenMP, which torch includes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

SECONDS = 6.0
POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (0, 1_000, 10_000, 100_000)},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
TOKENS = {"MRPC-like": 54, "SST-2-like": 14}


def work(threads: int, tokens: int) -> float:
    """Steps per second of a bert-mini on batches of 16."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(threads)
    config = BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    model = BertModel(config, add_pooling_layer=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(1000, 30000, (16, tokens))
    steps, start = -2, time.perf_counter()
    while steps < 0 or time.perf_counter() - start < SECONDS:
        if steps == 0:
            start = time.perf_counter()
        model(input_ids=ids).last_hidden_state.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps / (time.perf_counter() - start)


def jobs(count: int, threads: int, tokens: int, policy: dict[str, str]) -> list[float]:
    """Steps per second of each of `count` concurrent processes."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | policy
    command = [sys.executable, __file__, str(threads), str(tokens)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(count)]
    return [float(process.communicate()[0]) for process in started]


def main() -> None:
    if len(sys.argv) == 3:
        print(work(int(sys.argv[1]), int(sys.argv[2])))
        return
    print("| steps per second | 1 job, 2 threads | 2 jobs, 2 threads each, in sum |\n|---|---|---|")
    for name, tokens in TOKENS.items():
        for policy, environment in POLICIES.items():
            (alone,), both = jobs(1, 2, tokens, environment), jobs(2, 2, tokens, environment)
            print(f"| {name}, {policy} | {alone:.1f} | {sum(both):.1f} |", flush=True)
        print(f"| {name}, 1 thread each | {jobs(1, 1, tokens, {})[0]:.1f} | {sum(jobs(2, 1, tokens, {})):.1f} |")


if __name__ == "__main__":
    main()
