#!/bin/bash
# The first process of a test node, in mount and network namespaces of its own, and in
# a PID namespace of its own, too, but where systemd makes the node's cgroups.
# Makes the node's file system, tells that it is ready, lives until its standard
# input closes (whichever way the harness ended), and then removes everything.
#
#   init.sh NODE_DIR CONTAINERD_ROOT TEMPLATE|"" CGROUP CNI_PLUGINS own|"" PRIVATE|"" kubelet|""
#
# "own": it is in a cgroup namespace, and sees its own cgroups only.
# PRIVATE: more directories of the host of which it has a view of its own. It is a node
# on which Reprise was never installed then.
# "kubelet": one is to run here.
# A node that boots again finds what it had on its disk.
set -eu
dir=$1 root=$2 template=$3 cgroup=$4 cni=$5 cgroups=$6 private=$7 kubelet=$8
first=
[ -e "$dir/overlay" ] || first=yes

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
for host in /etc /var/lib $private; do
    mkdir -p "$dir/overlay$host/upper" "$dir/overlay$host/work"
    mount -t overlay -o "lowerdir=$host,upperdir=$dir/overlay$host/upper,workdir=$dir/overlay$host/work" \
        node "$host"
done
# CRIU keeps a cache in /run and expects a tmpfs there. systemd, where there is one and
# it is to make the cgroups, is asked through its sockets.
shared=
if [ $$ != 1 ]; then
    shared=$(echo /run/systemd /run/dbus)
    mkdir "$dir/run"
    mount --rbind /run "$dir/run"
fi
mount -t tmpfs -o mode=755 node /run
mkdir -p /run/netns /run/lock
for host in $shared; do
    mkdir "$host"
    mount --rbind "$dir$host" "$host"
done
[ -z "$shared" ] || umount -R -l "$dir/run"

mkdir -p /var/lib/containerd /var/lib/reprise /etc/reprise /etc/cni/net.d
if [ -n "$private" ] && [ -n "$first" ]; then
    # Nor has this machine's own Reprise or containerd anything to do with it.
    rm -rf /opt/reprise /etc/containerd /etc/reprise
    rm -f /usr/local/bin/{containerd-shim-reprise-v2,reprise}
    mkdir /etc/containerd
    cp "$dir/containerd.toml" /etc/containerd/config.toml
fi
mount --bind "$root" /var/lib/containerd
mount --bind "$dir/reprise" /var/lib/reprise
cp "$dir/cni.conflist" /etc/cni/net.d/10-node.conflist
if [ -e "$dir/reprise.toml" ]; then cp "$dir/reprise.toml" /etc/reprise/config.toml; fi
if [ -e "$dir/crictl.yaml" ]; then cp "$dir/crictl.yaml" /etc/crictl.yaml; fi

# The images' layers are the template's, read-only and not copied.
snapshots=io.containerd.snapshotter.v1.overlayfs/snapshots
if [ -n "$template" ]; then
    for layer in "$template/$snapshots"/*; do
        mkdir -p "/var/lib/containerd/$snapshots/${layer##*/}"
        mount --bind -o ro "$layer" "/var/lib/containerd/$snapshots/${layer##*/}"
    done
fi

if [ -n "$kubelet" ]; then
    mkdir -p "$dir/kubelet" "$dir/log" /var/lib/kubelet
    mount --bind "$dir/kubelet" /var/lib/kubelet
    mount --bind "$dir/log" /var/log
    # By it a kubelet tells that its node was booted.
    cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
    # The kernel lets a pod with users of its own have a /proc only where one is that
    # nothing covers a part of.
    mkdir /run/whole-proc
    mount -t proc proc /run/whole-proc
    mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
    mount --make-rshared /
fi

# Loopback up, without needing iproute2.
echo '{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}' |
    CNI_COMMAND=ADD CNI_NETNS_OVERRIDE=1 CNI_CONTAINERID=node CNI_NETNS=/proc/$$/ns/net CNI_IFNAME=lo CNI_PATH="$cni" \
        "$cni/loopback" >&2
echo ready

# Until the harness lets go of us.
read -r _ || true

set +e
# Everything that is the node's dies: all that has its PID namespace, or else its
# mounts, and then its slice.
others() { # ACTION, for each other process
    local p found=1
    for p in /proc/[0-9]*; do
        [ "$p" != /proc/$$ ] || continue
        [ $$ = 1 ] || [ "$p/ns/mnt" -ef /proc/$$/ns/mnt ] || continue
        found=0
        "$@" "${p#/proc/}"
    done
    return $found
}
for _ in $(seq 500); do others kill -KILL 2>/dev/null || break; sleep 0.01; done
if [ $$ != 1 ]; then
    [ ! -e "/sys/fs/cgroup/$cgroup/cgroup.kill" ] || echo 1 >"/sys/fs/cgroup/$cgroup/cgroup.kill"
    systemctl stop "$cgroup"
fi
cd /
groups() { find /sys/fs/cgroup -maxdepth 2 -type d -path "*/$cgroup"; }
for _ in $(seq 100); do
    [ -n "$(groups)" ] || break
    groups | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
    sleep 0.02
done
umount -R -l /var/lib /etc /run $private
[ -e "$dir/keep" ] || rm -rf "$dir"
