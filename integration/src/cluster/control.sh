#!/bin/bash
# The first process of a control plane, in mount, network and PID namespaces of its own.
# Makes its network, tells that it is ready, lives until its standard input closes
# (whichever way the harness ended), and then removes everything.
#   control.sh DIRECTORY ADDRESS
set -eu
dir=$1 address=$2
[ $$ = 1 ]

ip link set lo up
ip link add cluster0 type bridge
ip address add "$address/24" dev cluster0
ip link set cluster0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready

read -r _ || true

set +e
# Nobody but what is in this PID namespace.
kill -KILL -1
wait
rm -rf "$dir"
