#!/bin/bash
# PID 1 of a test node, in mount, network and PID namespaces of its own.
# Makes the node's file system, tells that it is ready, lives until its standard
# input closes (whichever way the harness ended), and then removes everything.
#
#   init.sh NODE_DIR CONTAINERD_ROOT TEMPLATE|"" CGROUP CNI_PLUGINS own|""
#
# "own": it is in a cgroup namespace, and sees its own cgroups only.
set -eu
dir=$1 root=$2 template=$3 cgroup=$4 cni=$5 cgroups=$6

if [ -n "$cgroups" ]; then
    hierarchies=$(sed -nE 's#^.* (/sys/fs/cgroup[^ ]*) [^-]*- (cgroup2?) [^ ]+ rw,?(.*)#\1 \2 \3#p' /proc/self/mountinfo)
    umount -R /sys/fs/cgroup
    case $hierarchies in
        "/sys/fs/cgroup "*) ;;
        *) mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup ;;
    esac
    echo "$hierarchies" | while read -r place kind controllers; do
        mkdir -p "$place"
        mount -t "$kind" ${controllers:+-o "$controllers"} cgroup "$place"
    done
fi

# A private, writable view of two host directories.
for host in /etc /var/lib; do
    mkdir -p "$dir/overlay$host/upper" "$dir/overlay$host/work"
    mount -t overlay -o "lowerdir=$host,upperdir=$dir/overlay$host/upper,workdir=$dir/overlay$host/work" \
        node "$host"
done
# CRIU keeps a cache in /run and expects a tmpfs there.
mount -t tmpfs -o mode=755 node /run
mkdir -p /run/netns /run/lock

mkdir -p /var/lib/containerd /var/lib/reprise /etc/reprise /etc/cni/net.d
mount --bind "$root" /var/lib/containerd
mount --bind "$dir/reprise" /var/lib/reprise
cp "$dir/cni.conflist" /etc/cni/net.d/10-node.conflist
if [ -e "$dir/reprise.toml" ]; then cp "$dir/reprise.toml" /etc/reprise/config.toml; fi

# The images' layers are the template's, read-only and not copied.
snapshots=io.containerd.snapshotter.v1.overlayfs/snapshots
if [ -n "$template" ]; then
    for layer in "$template/$snapshots"/*; do
        mkdir -p "/var/lib/containerd/$snapshots/${layer##*/}"
        mount --bind -o ro "$layer" "/var/lib/containerd/$snapshots/${layer##*/}"
    done
fi

# Loopback up, without needing iproute2.
echo '{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}' |
    CNI_COMMAND=ADD CNI_NETNS_OVERRIDE=1 CNI_CONTAINERID=node CNI_NETNS=/proc/1/ns/net CNI_IFNAME=lo CNI_PATH="$cni" \
        "$cni/loopback" >&2
echo ready

# Until the harness lets go of us.
read -r _ || true

set +e
kill -KILL -1
others() { for p in /proc/[0-9]*; do [ "$p" = /proc/1 ] || return 0; done; return 1; }
for _ in $(seq 500); do others || break; sleep 0.01; done
cd /
groups() { find /sys/fs/cgroup -maxdepth 2 -type d -path "*/$cgroup"; }
for _ in $(seq 100); do
    [ -n "$(groups)" ] || break
    groups | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
    sleep 0.02
done
umount -R -l /var/lib /etc /run && rm -rf "$dir"
