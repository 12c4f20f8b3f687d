#!/usr/bin/env bash
# TPU VMs by gcloud alone: a queued resource, and the same container on all of its hosts.
#
# Engine    gcloud (Cloud TPU API: v2 to v6e; it only gets fixes now, and TPU7x needs GKE, see jobset.yaml)
# Edit      the variables below, or give them: ZONE=us-east5-b launch/tpu_vm.sh up
# Command   launch/tpu_vm.sh up && launch/tpu_vm.sh run --config=configs/interplay.py:paper --workdir=/runs/paper
#           launch/tpu_vm.sh stop       SIGTERM to all hosts: they save the same step, run ends with 143
#           launch/tpu_vm.sh down       gives the machines back; until then they cost
# Preempted the machines go (state SUSPENDED): down, up and the same run continue it. run begins nothing again by itself;
#           143 (saved) asks for it, 2 (bad input) and 3 (NaN or Inf) would end in the same way
# Cost      16 chips by the hour, while the state is ACTIVE: https://cloud.google.com/tpu/pricing
set -euo pipefail

NAME=${NAME:-infojax}
ZONE=${ZONE:-us-west4-a}
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} # v2-alpha-tpuv6e for v6e
IMAGE=${IMAGE:-REGISTRY/infojax:0.1.0}  # Containerfile
NFS=${NFS:-10.0.0.2:/runs}              # a Filestore share: the run folder, which all hosts see
SPOT=${SPOT---spot}                     # SPOT= for machines that are not preempted

queued() { gcloud compute tpus queued-resources "$@" --zone="$ZONE"; }
everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

verb=${1:-}
shift || true
case $verb in
up)
  queued create "$NAME" --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" ${SPOT:+"$SPOT"}
  until state=$(queued describe "$NAME" --format='value(state.state)') && [[ $state == ACTIVE ]]; do
    case $state in FAILED | SUSPENDED | SUSPENDING)
      echo "tpu_vm.sh: $NAME is $state: launch/tpu_vm.sh down, then up again" >&2
      exit 1
      ;;
    esac
    sleep "${POLL:-30}"
  done
  everywhere "sudo apt-get install -qy nfs-common && sudo mkdir -p /runs && sudo mount $NFS /runs && sudo docker pull $IMAGE"
  ;;
run)
  # All hosts, or those that run wait for the others. One container of that name: a second run is refused.
  everywhere "sudo docker run --rm --name=infojax --net=host --privileged -v /runs:/runs $IMAGE ${*@Q} --distributed"
  ;;
stop) everywhere "sudo docker stop --time=120 infojax" ;;
down) queued delete "$NAME" --force --quiet ;;
*)
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
  ;;
esac
