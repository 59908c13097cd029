#!/bin/sh
# Trains the networks of docs/reference-nets.md; stopped at any moment, it goes on when it is run again.
#
#   DATA=folder of cifar10-train.npz and cifar10-test.npz   OUT=folder for the results   docs/reference_nets.sh [shipped|all]
#
# ATTRSENS is the command to run, such as "python -m attrsens". The shipped four take an hour and a half on two cores.
set -u
ATTRSENS=${ATTRSENS:-attrsens} DATA=${DATA:-.} OUT=${OUT:-attrsens-out/train}
export OMP_WAIT_POLICY=PASSIVE # threads that wait asleep leave the machine to others

net() { # NAME OPTION...
  name=$1
  shift
  $ATTRSENS train "$DATA/cifar10-train.npz" --val "$DATA/cifar10-test.npz" --out "$OUT" --name "$name" "$@" || failed=1
}
failed=0

# the four that are shipped: one architecture, one seed, one data set
net cifar10-std --recipe std --epochs 48 --budget linf:2/255 --budget linf:8/255 --budget l2:0.5
net cifar10-linf --recipe fast --eps 8/255 --step-size 7/255 --weight-decay 0.0003 --epochs 30 \
  --budget linf:8/255 --budget linf:2/255 --budget l2:0.5
net cifar10-l2 --recipe fast --norm l2 --eps 0.5 --epochs 20 --budget l2:0.5 --budget linf:2/255 --budget linf:8/255
net cifar10-cure --recipe cure --from "$OUT/cifar10-std.safetensors" --epochs 5 --budget linf:2/255 --budget linf:8/255 --budget l2:0.5
[ "${1:-all}" = shipped ] && exit $failed

# one network a regime is a sample of one: three seeds of two regimes, half as wide; and a ladder of L2 budgets
for seed in 0 1 2; do
  net small-std-$seed --recipe std --width 16 --epochs 12 --seed $seed --budget linf:8/255 --budget l2:0.5
  net small-linf-$seed --recipe fast --eps 8/255 --width 16 --epochs 12 --seed $seed --budget linf:8/255 --budget l2:0.5
done
for eps in 0.25 0.5 1; do # 0 is small-std-0
  net small-l2-$eps --recipe fast --norm l2 --eps $eps --width 16 --epochs 12 --budget l2:$eps --budget linf:8/255
done
exit $failed
