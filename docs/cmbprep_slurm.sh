#!/bin/bash
set -euo pipefail

bids="/path/to/bids"
out="/path/to/derivatives/cmbprep"

logs=$out/logs/slurm

submit() {
    shopt -s nullglob
    local folders=("$bids"/sub-*/) list start size job jobs=afterany
    folders=("${folders[@]%/}")
    if ((${#folders[@]} == 0)); then
        echo "$bids: there is no folder sub-*" >&2
        exit 2
    fi
    mkdir -p "$logs"
    list=$(mktemp "$logs/participants-XXXXXX")
    printf '%s\n' "${folders[@]##*/}" > "$list"
    # Slurm takes 1000 tasks per array unless the site has raised MaxArraySize.
    for ((start = 0; start < ${#folders[@]}; start += 1000)); do
        size=$((${#folders[@]} - start))
        job=$(sbatch --parsable --job-name=cmbprep --array="1-$((size < 1000 ? size : 1000))" \
            --cpus-per-task=2 --mem=6G --time=02:00:00 --output="$logs/%A_%a.out" \
            "$0" participant "$list" "$start")
        jobs+=:${job%%;*}
    done
    sbatch --job-name=cmbprep-group --dependency="$jobs" \
        --cpus-per-task=1 --mem=4G --time=02:00:00 --output="$logs/%j_group.out" "$0" group
}

participant() {
    local list=$1 start=$2 label
    label=$(sed -n "$((start + SLURM_ARRAY_TASK_ID))p" "$list")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap : TERM  # cmbprep receives the signal too, and ends first
    cmbprep "$bids" "$out" participant --participant-label "$label" \
        --nprocs "$SLURM_CPUS_PER_TASK" --mem 6 --work-dir "$work"
}

group() {
    cmbprep "$bids" "$out" group
}

"${@:-submit}"
