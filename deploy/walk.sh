#!/usr/bin/env bash
# A walk as an operator, see docs/operating.md: three nodes behind nginx with TLS, joined by Redis, as in compose.yml but as
# processes; load, then one fault after the other, and for each the metrics, the log lines and the alerts that reveal it.
#
#	deploy/walk.sh bin/shoal                  # all of it: some four minutes
#	deploy/walk.sh bin/shoal slow broker      # some of it: load slow broker log disk descriptors
#
# HOLD=60 leaves each fault for a minute, to look at the dashboard of the node.
#
# It needs redis-server, nginx, openssl and curl; Prometheus for the alerts ($PROMETHEUS, or prometheus in PATH); root for a
# full file system (disk). Everything listens on the loopback interface and ends with the script.
set -euo pipefail
shoal=$(realpath "${1:?usage: deploy/walk.sh SHOAL [load|slow|broker|log|disk|descriptors…]}")
shift
all="load slow broker log disk descriptors"
steps=${*:-$all}
PATH=$PATH:/usr/sbin:/sbin
refuse() { echo "deploy/walk.sh: $1" >&2 && exit 2; }
"$shoal" version >/dev/null 2>&1 || refuse "$shoal is no shoal program: build one with \"make build\""
for step in $steps; do [[ " $all " == *" $step "* ]] || refuse "there is no step \"$step\"; the steps are: $all"; done
for tool in redis-server nginx openssl curl; do
	command -v "$tool" >/dev/null || refuse "$tool is missing: install it with the package manager (apt-get install $tool)"
done
cd "$(dirname "$0")/.."
here=$(mktemp -d "${TMPDIR:-/tmp}/shoal-walk.XXXXXX")
prometheus=${PROMETHEUS:-$(command -v prometheus || true)}
declare -A pid=()

finish() {
	kill -TERM "${pid[@]}" 2>/dev/null || true
	wait
	! mountpoint -q "$here/store" || umount "$here/store"
	[ -n "${KEEP:-}" ] || rm -rf "$here"
}
trap finish EXIT

# Everything is on this machine, which a proxy of the environment does not reach.
curl() { command curl --noproxy '*' "$@"; }
say() { printf '\n== %s\n' "$*"; }
# as NAME COMMAND… starts a process, with its output in NAME.log.
as() {
	local name=$1
	shift
	"$@" >>"$here/$name.log" 2>&1 &
	pid[$name]=$!
}
stop() {
	kill "-$1" "${pid[$2]}"
	wait "${pid[$2]}" 2>/dev/null || true
	unset "pid[$2]"
}
# until_ok COMMAND… waits for a command to succeed, for at most 30 s.
until_ok() {
	local deadline=$((SECONDS + 30))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || { echo "still failing: $*" >&2 && tail -n 5 "$here"/*.log >&2 && exit 1; }
		sleep 0.2
	done
}
ready() { curl -fsS -m 2 "http://127.0.0.1:1909$1/readyz"; }
unready() { ! ready "$1"; }
# metrics N PATTERN prints metrics of node N, without those that are 0.
metrics() { curl -fsS -m 5 "http://127.0.0.1:1909$1/metrics" | grep -E "^($2)" | grep -v ' 0$' | sed 's/^/   metric /' || true; }
# logged NAME PATTERN prints the first line of each kind in the log of a process.
logged() { grep -hE "$2" "$here/$1.log" | sed -E 's/^time=[^ ]+ //' | sort -u -t '"' -k 2,2 | cut -c 1-160 | sed 's/^/   log    /' || true; }
# alerts prints the alerts that have fired since the step began, with the number of the node, once Prometheus has scraped.
began=0
alerts() {
	[ -n "$prometheus" ] || { echo "   alert  (Prometheus is not installed)" && return; }
	sleep 4
	curl -fsSG http://127.0.0.1:19099/api/v1/query --data-urlencode \
		"query=count by (alertname, instance) (max_over_time(ALERTS{alertstate='firing'}[$((SECONDS - began))s]))" |
		grep -oE '"alertname":"[A-Za-z]+"(,"instance":"[0-9.:]+")?' | tr -d '"' |
		sed -E -e 's/alertname:/   alert  /' -e 's/,instance:.*1909(.)/ node\1/' | sort | grep . || echo "   alert  none"
}
hold() { # hold N: leaves time to look at the dashboard of node N
	[ -z "${HOLD:-}" ] || { echo "   look   http://127.0.0.1:1909$1/dashboard/" && sleep "$HOLD"; }
}
node() { # node N [FLAGS…]
	local n=$1
	shift
	as "node$n" env SHOAL_JWT_SECRET_FILE="$here/jwt-secret" SHOAL_API_KEY_FILE="$here/api-key" "$shoal" serve --authorize open \
		--addr "127.0.0.1:1808$n" --admin-addr "127.0.0.1:1909$n" --node-name "node$n" --trusted-proxy 127.0.0.0/8 \
		--broker redis://127.0.0.1:16379 "$@"
}
bench() { # bench URL FLAGS…
	local url=$1
	shift
	SSL_CERT_FILE=$here/tls.crt SHOAL_JWT_SECRET=$(cat "$here/jwt-secret") SHOAL_API_KEY=$(cat "$here/api-key") \
		"$shoal" bench --url "$url" "$@" >>"$here/bench.log" 2>&1 || echo "   bench  ended with $?: $(tail -n 1 "$here/bench.log")"
}
publish() { # publish N: prints the status of the answer
	printf '{"action":"note","text":"%030000d"}' 1 | curl -sS -m 10 -o "$here/answer" -w '%{http_code}' --data-binary @- \
		-H "Authorization: Bearer $(cat "$here/api-key")" -H 'Content-Type: application/json' \
		"http://127.0.0.1:1808$1/v1/uploads/walk/messages" || true
}
redis() { as redis redis-server --bind 127.0.0.1 --port 16379 --dir "$here" --save "" --appendonly no; }

say "starting Redis, three nodes, and nginx with TLS"
openssl rand -hex 32 >"$here/jwt-secret"
openssl rand -hex 32 >"$here/api-key"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
	-keyout "$here/tls.key" -out "$here/tls.crt" 2>/dev/null
sed -e 's/node\([123]\):8080/127.0.0.1:1808\1/' -e "s#/run/secrets/tls-crt#$here/tls.crt#; s#/run/secrets/tls-key#$here/tls.key#" \
	-e 's/listen 8443 ssl/listen 127.0.0.1:18443 ssl/' -e 's/worker_connections 65536/worker_connections 4096/' \
	-e "s#/var/log/nginx#$here#" \
	-e "s#^http {#pid $here/nginx.pid; error_log $here/nginx.error; http { client_body_temp_path $here/body; \
proxy_temp_path $here/proxy; fastcgi_temp_path $here/f; uwsgi_temp_path $here/u; scgi_temp_path $here/s;#" \
	deploy/compose-nginx.conf >"$here/nginx.conf"
nginx -t -q -p "$here" -c "$here/nginx.conf" 2>/dev/null || nginx -t -p "$here" -c "$here/nginx.conf"
redis
for n in 1 2 3; do node $n; done
for n in 1 2 3; do until_ok ready $n; done
as nginx nginx -p "$here" -c "$here/nginx.conf" -g 'daemon off;'
until_ok curl -sk https://localhost:18443/v1/stats
if [ -n "$prometheus" ]; then
	# The alerts of alerts.yml, with windows that fit a walk: no waiting, rates over 10 s.
	sed -E -e 's/for: [0-9]+[sm]/for: 0s/' -e 's/\[(1|5|15)m\]/[10s]/g' -e 's/_connections > 100\)/_connections > 10)/' deploy/alerts.yml >"$here/alerts.yml"
	cat >"$here/prometheus.yml" <<-CONFIG
		global: {scrape_interval: 1s, evaluation_interval: 1s}
		rule_files: [$here/alerts.yml]
		scrape_configs:
		  - job_name: shoal
		    static_configs: [{targets: [127.0.0.1:19091, 127.0.0.1:19092, 127.0.0.1:19093]}]
	CONFIG
	as prometheus "$prometheus" --config.file="$here/prometheus.yml" --storage.tsdb.path="$here/tsdb" --web.listen-address=127.0.0.1:19099 --log.level=error
	until_ok curl -fsS http://127.0.0.1:19099/-/ready
fi

for step in $steps; do
	[ -z "$prometheus" ] || sleep 4 # so that the last step's alerts end, and rates have a value before this one
	began=$SECONDS
	case $step in
	load)
		say "load through nginx: 150 clients, 10 uploads, 200 messages a second for 10 s"
		bench https://localhost:18443 --connections 150 --uploads 10 --rate 200 --duration 10s
		metrics 1 'shoal_messages_in_total|shoal_deliveries_total|shoal_residence_seconds_count|shoal_closings_total'
		alerts
		;;
	slow)
		say "slow clients: half of 60 clients of node 1 stop reading, bursts of 4 KiB events"
		bench http://127.0.0.1:18081 --connections 60 --stalled 0.5 --rate 60 --burst 20 --payload 4096 --duration 25s &
		load=$!
		until_ok eval "metrics 1 shoal_stalled_connections | grep ."
		metrics 1 'shoal_stalled_connections|shoal_queue_bytes|shoal_queue_messages'
		alerts
		until_ok eval "metrics 1 shoal_slow_consumers_total | grep ."
		metrics 1 'shoal_slow_consumers_total|shoal_closings_total.*Slow|shoal_refusals_total.*queue'
		alerts
		hold 1
		wait $load
		;;
	broker)
		say "Redis is killed"
		stop KILL redis
		until_ok unready 1
		echo "   readyz $(curl -s http://127.0.0.1:19091/readyz | head -n 1)"
		echo "   publish answers $(publish 1): $(grep -o '"detail":"[^"]*"' "$here/answer" | cut -c 1-140)"
		metrics 1 'shoal_broker_failures_total'
		curl -fsS http://127.0.0.1:19091/metrics | grep -E '^shoal_(broker_healthy|ready) ' | sed 's/^/   metric /'
		alerts
		hold 1
		say "Redis is back"
		redis
		for n in 1 2 3; do until_ok ready $n; done
		echo "   publish answers $(publish 1)"
		logged node1 'broker'
		;;
	log)
		say "the log of a node goes to a full disk (/dev/full)"
		stop TERM node3
		as node3 bash -c 'exec "$@" 2>/dev/full' - env SHOAL_JWT_SECRET_FILE="$here/jwt-secret" SHOAL_API_KEY_FILE="$here/api-key" "$shoal" serve \
			--authorize open --addr 127.0.0.1:18083 --admin-addr 127.0.0.1:19093 --node-name node3 --broker redis://127.0.0.1:16379
		until_ok ready 3
		echo "   publish answers $(publish 3)"
		metrics 3 'shoal_log_dropped_lines_total'
		alerts
		hold 3
		stop TERM node3
		node 3
		until_ok ready 3
		;;
	disk)
		say "the folder of nats-embedded is on a full disk"
		[ "$(id -u)" = 0 ] || { echo "   left out: mounting a small file system needs root" && continue; }
		stop TERM node3
		mkdir "$here/store"
		mount -t tmpfs -o size=8m tmpfs "$here/store"
		as node3 env SHOAL_JWT_SECRET_FILE="$here/jwt-secret" SHOAL_API_KEY_FILE="$here/api-key" "$shoal" serve --authorize open \
			--addr 127.0.0.1:18083 --admin-addr 127.0.0.1:19093 --node-name alone \
			--broker nats-embedded --broker-storage file --broker-dir "$here/store"
		until_ok ready 3
		echo "   publish answers $(publish 3)"
		dd if=/dev/zero of="$here/store/filler" bs=64k 2>/dev/null || true
		for _ in 1 2; do echo "   publish answers $(publish 3)"; done
		until_ok unready 3
		sleep 8
		echo "   readyz $(curl -s http://127.0.0.1:19093/readyz | head -n 1)"
		metrics 3 'shoal_broker_failures_total'
		logged node3 'no space left|broker'
		alerts
		hold 3
		stop TERM node3
		rm "$here/store/filler"
		node 3
		until_ok ready 3
		;;
	descriptors)
		say "a node has no descriptors left: limit 128, 30 clients, 200 idle sockets"
		stop TERM node3
		as node3 bash -c 'ulimit -n 128; exec "$@"' - env SHOAL_JWT_SECRET_FILE="$here/jwt-secret" SHOAL_API_KEY_FILE="$here/api-key" "$shoal" serve \
			--authorize open --addr 127.0.0.1:18083 --admin-addr 127.0.0.1:19093 --node-name node3 --broker redis://127.0.0.1:16379
		until_ok ready 3
		bench http://127.0.0.1:18083 --connections 30 --rate 1 --duration "$((15 + ${HOLD:-0}))s" &
		load=$!
		until_ok eval "metrics 3 'shoal_connections\{' | grep -q ' 30$'"
		for _ in {1..200}; do exec {socket}<>/dev/tcp/127.0.0.1/18083; done 2>/dev/null
		echo "   healthz $(curl -s -m 3 -o /dev/null -w '%{http_code}' http://127.0.0.1:19093/healthz), readyz $(curl -s -m 3 http://127.0.0.1:19093/readyz | head -n 1)"
		echo "   publish answers $(publish 3)"
		metrics 3 'process_(open|max)_fds|shoal_connections|shoal_http_connections|shoal_refusals_total|shoal_accept_errors_total'
		alerts
		hold 3
		wait $load
		logged node3 'limit|accept|descriptor|open files'
		stop TERM node3
		node 3
		until_ok ready 3
		;;
	esac
done
say "done; everything ends"
