#!/bin/bash
# For trying things by hand in a node: runs a pod with one container.
#   pod NAME HANDLER IMAGE [COMMAND...]    e.g.  pod a reprise python
# Prints "POD-ID CONTAINER-ID IP". Then `crictl checkpoint CONTAINER-ID` and so on.
set -eu
name=$1 handler=$2 image=$3
shift 3
command=""
for word in "$@"; do command="$command${command:+, }$(printf '"%s"' "${word//\"/\\\"}")"; done
dir=$NODE_DIR/tmp/$name
mkdir -p "$dir/logs"
cat >"$dir/pod.json" <<POD
{ "metadata": {"name": "$name", "namespace": "${NAMESPACE:-default}", "uid": "uid-$name"},
  "hostname": "$name", "log_directory": "$dir/logs",
  "dns_config": {"servers": ["10.96.0.10"]},
  "annotations": {${ANNOTATIONS:-}},
  "linux": {"cgroup_parent": "$NODE_CGROUP", "security_context": {"namespace_options": {"pid": 1}}} }
POD
cat >"$dir/container.json" <<CONTAINER
{ "metadata": {"name": "app"}, "image": {"image": "docker.io/reprise/$image:latest"},
  "command": [$command], "log_path": "app.log", "tty": ${TTY:-false}, "stdin": ${TTY:-false},
  "linux": {"security_context": {"namespace_options": {"pid": 1}}} }
CONTAINER
pod=$(crictl runp --runtime="$handler" "$dir/pod.json" 2>/dev/null)
container=$(crictl create "$pod" "$dir/container.json" "$dir/pod.json")
crictl start "$container" >/dev/null
echo "$pod $container $(crictl inspectp -o go-template --template '{{.status.network.ip}}' "$pod")"
