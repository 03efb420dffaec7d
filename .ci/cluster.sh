#!/usr/bin/env bash
# Runs three nodes on this machine until Ctrl-C. Each has a NATS server inside, and those are a cluster. The
# arguments are more flags of shoal serve, for all nodes.
set -euo pipefail
set -m # each node is in a process group of its own, so that Ctrl-C reaches this script alone
cd "$(dirname "$0")/.."

ports=(1 2 3) # the last digits of the ports of each node
folder=$(mktemp -d "${TMPDIR:-/tmp}/shoal-cluster.XXXXXX")
pids=()

# Ends all nodes in an orderly way, and returns when they have ended.
stop() {
	[ ${#pids[@]} -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true
	wait
	rm -rf "$folder"
}
trap stop EXIT
trap 'echo; echo "ending all nodes"; exit 0' INT TERM

give_up() {
	echo "make cluster: node-$1 $2; its log ends with" >&2
	tail -n 5 "$folder/node-$1.log" >&2
	exit 1
}

# Another server would answer in place of a node that cannot listen.
for i in "${ports[@]}"; do
	if curl --noproxy '*' -s --max-time 5 "http://127.0.0.1:909$i/healthz" >/dev/null; then
		echo "make cluster: a server answers at 127.0.0.1:909$i already; end it first" >&2
		exit 1
	fi
done

for i in "${ports[@]}"; do
	bin/shoal serve --dev --addr "127.0.0.1:808$i" --admin-addr "127.0.0.1:909$i" \
		--broker nats-embedded --node-name "node-$i" --cluster-addr "127.0.0.1:622$i" \
		"${ports[@]/#/--cluster-route=127.0.0.1:622}" "$@" </dev/null >"$folder/node-$i.log" 2>&1 &
	pids+=($!)
done

# Returns when a node answers that it is ready, or ends all if that takes too long.
await() {
	local deadline=$((SECONDS + 60))
	until curl --noproxy '*' -fs "http://127.0.0.1:909$1/readyz" >/dev/null; do
		kill -0 "${pids[$1 - 1]}" 2>/dev/null || give_up "$1" "has ended"
		[ $SECONDS -lt $deadline ] || give_up "$1" "is not ready after a minute"
		sleep 0.2
	done
}
for i in "${ports[@]}"; do await "$i"; done

echo "three nodes, with their logs in $folder; demo pages:"
for i in "${ports[@]}"; do echo "  http://127.0.0.1:808$i/"; done
echo 'follow the upload "demo" on two of them, and try:'
tail -n 1 <(grep -h '^curl ' "$folder/node-1.log")
echo "Ctrl-C ends all"
wait
