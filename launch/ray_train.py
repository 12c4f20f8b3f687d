"""A run by Ray Train: one worker a TPU host (or one with a GPU), begun again after preemption.

Engine    Ray 2.60 or newer, ray.train.v2.jax.JaxTrainer (an alpha API); infojax installed where the workers run
Edit      nothing: the flags below have the defaults of a v6e 4x4 slice, 16 chips on 4 hosts
Command   ray job submit --working-dir . -- python launch/ray_train.py --config=configs/smoke.py --workdir=/runs/smoke
Preempted a worker that ends with 143 (saved), is lost, or ends alone is an error to Ray: all begin again, --restarts
          times at most, and the same command continues; after that this command ends with 1 and one line. 2 (bad input)
          and 3 (NaN or Inf) in all are results: nothing begins again, and they are the exit code of this command
Cost      what the cluster costs; for TPUs https://cloud.google.com/tpu/pricing
"""

import argparse
import sys


class Preempted(Exception):
    """A worker was stopped after it had saved."""


def train(config):
    """On every worker. Ray has joined the processes already, so there is no --distributed."""
    import ray.train

    from infojax.main import main
    from infojax.processes import ended_alike

    code = main(config["argv"])
    if code not in (0, 2, 3):
        raise Preempted(f"infojax ended with code {code}; the same command continues")
    if not ended_alike(code):  # `report` would wait for the others forever
        raise Preempted(f"infojax ended with code {code} in one worker alone; the same command continues")
    ray.train.report({"exit_code": code})


def launch(arguments=None):
    """Returns the exit code; arguments that are not ours are those of infojax."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4, help="hosts of the slice, or workers with GPUs (4)")
    parser.add_argument("--accelerator", default="TPU-V6E", help="as Ray names it (TPU-V6E)")
    parser.add_argument("--topology", default="4x4", help="of the slice; empty: GPUs, one per worker (4x4)")
    parser.add_argument("--restarts", type=int, default=10, help="at most (10)")
    parser.add_argument("--storage", help="where Ray keeps its own records: a folder or bucket that all workers see")
    ours, argv = parser.parse_known_args(arguments)

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    tpu = {"use_tpu": True, "topology": ours.topology, "accelerator_type": ours.accelerator}
    scaling = ScalingConfig(num_workers=ours.workers, **(tpu if ours.topology else {"use_gpu": True}))
    storage = {"storage_path": ours.storage} if ours.storage else {}
    run = RunConfig(name="infojax", failure_config=FailureConfig(max_failures=ours.restarts), **storage)
    trainer = JaxTrainer(train, train_loop_config={"argv": argv}, scaling_config=scaling, run_config=run)
    try:
        return trainer.fit().metrics["exit_code"]
    except Exception as error:  # of Ray, whose types differ between its versions
        reason = " ".join(str(error).split())[-300:]
        print(f"infojax: {ours.restarts} restarts did not help; the last failure: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(launch())
