# Joins a node's network to the control plane's bridge, through which it reaches the
# others and their pods.
#   connect CONTROL_PID NODE_PID INTERFACE NODE_ADDRESS NODE_PODS CONTROL_ADDRESS
set -eu
control=$1 node=$2 interface=$3 address=$4 pods=$5 gateway=$6
in_control() { nsenter --net --target "$control" "$@"; }
in_node() { nsenter --net --target "$node" "$@"; }

# That of a node that was booted again goes with its old network, which takes a while.
in_control ip link delete "$interface" 2>/dev/null || true
in_control ip link add "$interface" type veth peer name eth0 netns "$node"
in_control ip link set "$interface" master cluster0 up
in_node ip address add "$address/24" dev eth0
in_node ip link set eth0 up
in_node ip route add default via "$gateway"
in_node bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
in_control ip route replace "$pods" via "$address"
