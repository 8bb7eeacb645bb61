#!/usr/bin/env bash
# Runs lowkey's GPU bundle: ./run.sh RESULTS [PART...]. Each part ends under nine minutes, leaves RESULTS/PART.json or .log and
# says how it went; result.json and summary.md hold everything so far. Exits 2 when there is no usable GPU.
set -uo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo 'usage: ./run.sh RESULTS [conformance|tests|sanitize|bench|peers]...' >&2 && exit 2; }
results=$1
shift
[ $# -gt 0 ] || set -- conformance tests sanitize bench peers
mkdir -p "$results"
results=$(cd -- "$results" && pwd)
device=${LOWKEY_TEST_DEVICE:-cuda:0}
export LOWKEY_TEST_DEVICE=$device RUST_BACKTRACE=0
cd "$here"

python=$(command -v python3) || { echo 'error: python3 is needed for the summary' >&2 && exit 2; }
"$here/kvbench" doctor --format json >"$results/doctor.json"
if ! "$python" summarize.py --gpu "$results/doctor.json"; then
    echo 'error: no usable GPU (see above)' >&2
    exit 2
fi
cp bundle.json "$results/"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader >"$results/nvidia-smi.txt" 2>/dev/null ||
    rm -f "$results/nvidia-smi.txt"

# part NAME SECONDS COMMAND...: runs it with a limit; its output goes to NAME.log, its exit code and seconds to NAME.status.
part() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    timeout --kill-after=10 "$limit" "$@" >"$results/$name.log" 2>&1
    status=$?
    printf '%d %d\n' "$status" $((SECONDS - start)) >"$results/$name.status"
    printf '%s: exit %d after %d s\n' "$name" "$status" $((SECONDS - start))
}

# json NAME SECONDS ARGS...: a run of kvbench whose document is kept.
json() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" bash -c '"$0" "${@:2}" --format json >"$1"' ./kvbench "$results/$name.json" "$@"
}

conformance() {
    LOWKEY_RECORD_CONFORMANCE=$results/conformance-record.json \
        part conformance 120 ./promises conformance:: --nocapture --test-threads 1
}

tests() {
    # Handles of one GPU share its memory account and whether it captures, so one test at a time. Families by name: other
    # tests of kernels compile them again.
    part tests 530 ./promises device:: kernels::every_instantiation kernels::the_smallest \
        kernels_{attention,bench,linear,nn,sparse,svd}:: --test-threads 1
}

sanitize() {
    local tool
    rm -f "$results"/sanitize*.status
    if ! command -v compute-sanitizer >/dev/null; then
        echo 'compute-sanitizer is not on this machine' | tee "$results/sanitize.log"
        echo 'absent 0' >"$results/sanitize.status"
        return
    fi
    for tool in memcheck racecheck initcheck synccheck; do
        part "sanitize-$tool" 130 compute-sanitizer --tool "$tool" --error-exitcode 9 ./promises kernels::the_smallest --test-threads 1
        if grep -q 'Device not supported' "$results/sanitize-$tool.log"; then
            echo "$tool: this runtime refuses compute-sanitizer"
            sed -i 's/^[0-9]*/refused/' "$results/sanitize-$tool.status"
        fi
    done
}

bench() {
    local common=(--device "$device")
    json bench-svd 150 svd "${common[@]}" --batch 512 --rows 4096 --cols 128 --rank 32 --dtype f32,bf16
    json bench-attention 150 attention "${common[@]}" --dtype bf16 --batch 4 --context 16k --heads 32/8 --head-dim 128 \
        --rank 32,64 --latent bf16,int8 --keys post-rope
    json bench-mask 60 mask "${common[@]}" --rows 4096 --cols 14336 --density 0.5 --dtype f32,bf16
    json bench-linear 60 linear "${common[@]}" --m 1,8 --n 4096 --k 4096 --rank 256,1024 --dtype bf16
    json bench-all 100 all "${common[@]}" --quick
}

peers() {
    part peers 300 "$python" peers/cuda.py --out "$results/peers.json"
}

for name in "$@"; do
    case $name in
    conformance | tests | sanitize | bench | peers) "$name" ;;
    *) printf 'error: no part %s\n' "$name" >&2 && exit 2 ;;
    esac
done
"$python" summarize.py "$results"
