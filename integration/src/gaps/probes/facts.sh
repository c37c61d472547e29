# What a process can tell about itself, one fact a line, without what differs from
# one container to the next. Sourced: `. /facts`, then one of these functions.

# Ids, groups, capabilities, seccomp, signals, umask, affinity of a process. Signals
# 32 and 33 are the C library's own: whoever started the harness may ignore them, no
# library call changes that on the way here, and runc hands it on while we do not.
status() {
    grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Seccomp_filters|Cap[A-Z][a-z]+|Sig(Blk|Ign|Cgt)|ShdPnd|Cpus_allowed|Mems_allowed|Speculation[A-Za-z_]*|CoreDumping|THP_enabled):' "/proc/${1:-self}/status" | while IFS= read -r line; do
        case $line in
            SigIgn:*) printf 'SigIgn:\t%016x\n' $((0x${line#SigIgn:?} & ~0x180000000)) ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

# Mounts: place, root, flags, propagation, type, options; in the order of places.
mounts() {
    sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s/(shared|master|propagate_from):[0-9]+/\1/g; s/,?(size|nr_inodes|inode64)=?[0-9]*k?//g' \
        "/proc/${1:-self}/mountinfo" | sed -E 's/ - overlay ([^ ]+) (r[ow]).*/ - overlay \2/' | sort -s -k 2,2
}

# Open files of a process: number, what it is.
files() {
    for fd in /proc/${1:-self}/fd/*; do
        to=$(readlink "$fd") || continue
        echo "${fd##*/} $(echo "$to" | sed -E 's/:\[[0-9]+\]/:[N]/; s#/proc/[0-9]+/#/proc/N/#')"
    done
}

# Which namespaces a process shares with process 1.
namespaces() {
    for ns in /proc/self/ns/*; do
        [ "$(readlink "$ns")" = "$(readlink /proc/1/ns/${ns##*/})" ] && echo "${ns##*/} same" || echo "${ns##*/} other"
    done
}

# Type, mode and owner of paths, without times.
list() {
    for path; do stat -c '%A %u:%g %n' "$path" 2>&1 | sed 's/^stat: //'; done
}

# Nodes in a directory: type, mode, owner, device, name.
nodes() {
    find "$1" -xdev ! -name '.' -exec stat -c '%F %a %u:%g %t:%T %n' {} + | sort -k 5
}
